import numpy as np
import pytest

from saxs_pipeline.science import corrections


def dark(frames, pedestal=10.0, gain=1.6, read_noise=3.0):
    frames = np.asarray(frames, dtype=float)
    return corrections.dark_from_sums(
        frames.sum(axis=0), (frames**2).sum(axis=0), len(frames), pedestal=pedestal, gain=gain, read_noise=read_noise
    )


def test_a_dark_frame_takes_the_pedestal_with_it():
    raw, raw_dark = np.array([[120, 130]]), np.array([[14.0, 12.0]])  # both hold the same pedestal of 10
    np.testing.assert_allclose(raw - 10 - dark([raw_dark] * 3).level, raw - raw_dark)


def test_the_variance_of_a_mean_of_darks_is_what_they_show_themselves():
    rng = np.random.default_rng(1)
    means = np.array([dark(rng.normal(12, 2.5, (5, 40, 40))).level for _ in range(200)])
    stated = dark(rng.normal(12, 2.5, (5, 400, 400))).variance
    assert stated.mean() == pytest.approx(2.5**2 / 5, rel=0.01)
    assert means.var(axis=0).mean() == pytest.approx(stated.mean(), rel=0.02)


def test_a_single_dark_frame_has_the_variance_of_the_model():
    np.testing.assert_allclose(dark([[[25.0, 4.0]]]).variance, [[1.6 * 15 + 9, 9]])


def test_the_variance_of_a_median_of_darks():
    rng = np.random.default_rng(2)
    spread = np.median(rng.normal(0, 1, (101, 20_000)), axis=0).var() * 101
    assert spread == pytest.approx(corrections.MEDIAN_VARIANCE, rel=0.03)


@pytest.mark.parametrize("photons", [0.01, 0.3, 35.0, 1e4])
@pytest.mark.parametrize(("gain", "read_noise"), [(1.0, 0.0), (1.6, 3.0), (0.4, 1.0), (1.6, 0.2)])
def test_the_variance_of_a_bin_is_that_of_a_simulated_detector(gain, read_noise, photons):
    """Without bias also where the read noise is above the signal: no pixel's noise is taken for photons."""
    rng = np.random.default_rng(3)
    pixels, bins = 400, 3000
    adu = (gain * rng.poisson(photons, (bins, pixels)) + rng.normal(0, read_noise, (bins, pixels))).sum(axis=1)
    model = corrections.bin_variance(adu, np.full(bins, float(pixels)), gain, read_noise)
    assert adu.var() == pytest.approx(model.mean(), rel=0.1)


def test_a_bin_of_a_photon_counter_has_at_least_the_error_of_one_photon():
    """Also where a dark or a pedestal leaves a fraction of one, or less than nothing."""
    signal, pixels = np.array([0.0, 0.002, -0.7, 2.0, 6.0, 0.0]), np.array([30.0] * 5 + [0.0])
    found = corrections.bin_variance(signal, pixels, 2.0, 0.0)
    np.testing.assert_array_equal(found, [4.0, 4.0, 4.0, 4.0, 12.0, 0.0])
