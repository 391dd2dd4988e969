import numpy as np
import pytest

from saxs_pipeline.science import corrections


def test_a_dark_frame_takes_the_pedestal_with_it():
    raw = np.array([[120, 130]], dtype=np.uint16)
    raw_dark = np.array([[14.0, 12.0]])  # holds the same pedestal of 10
    dark, _ = corrections.average_dark(raw_dark * 3, 3, pedestal=10, gain=1, read_noise=0)
    np.testing.assert_allclose(corrections.signal(raw, 10 + dark), raw - raw_dark)
    np.testing.assert_allclose(corrections.signal(raw, 10), [[110, 120]])


def test_unsigned_pixels_below_the_pedestal_do_not_wrap():
    assert corrections.signal(np.array([3], dtype=np.uint16), 10)[0] == -7


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.uint32, np.int32, np.float32])
def test_the_largest_pixel_values_are_held_exactly(dtype):
    largest = np.iinfo(dtype).max if np.dtype(dtype).kind in "iu" else 2.0**24
    assert corrections.signal(np.array([largest], dtype=dtype), 1.0)[0] == float(largest) - 1


@pytest.mark.parametrize(("gain", "read_noise", "photons"), [(1.0, 0.0, 0.02), (1.6, 3.0, 35.0), (0.4, 1.0, 1e4)])
def test_variance_model_matches_a_simulated_detector(gain, read_noise, photons):
    rng = np.random.default_rng(3)
    adu = gain * rng.poisson(photons, 400_000) + rng.normal(0, read_noise, 400_000)
    model = corrections.pixel_variance(np.full(1, gain * photons), gain, read_noise)
    assert adu.var() == pytest.approx(model[0], rel=0.02)


def test_the_mean_of_n_darks_has_an_nth_of_the_variance():
    one = corrections.average_dark(np.full((2, 2), 25.0), 1, 10, 2.0, 3.0)[1]
    many = corrections.average_dark(np.full((2, 2), 25.0 * 16), 16, 10, 2.0, 3.0)[1]
    np.testing.assert_allclose(one, 2.0 * 15 + 9)
    np.testing.assert_allclose(many, one / 16)


def test_pixels_that_hold_no_measurement():
    image = np.array([[0.0, -1.0, -2.0, 65535.0, 7.0]])
    np.testing.assert_array_equal(corrections.not_measured(image, -1, 1.5, 60000), [[True, True, True, True, False]])
    np.testing.assert_array_equal(corrections.not_measured(image, -1, 0, None), [[False, True, False, False, False]])
    assert corrections.not_measured(image, None, 0, None) is None
    image[0, 4] = np.nan
    np.testing.assert_array_equal(
        corrections.not_measured(image, np.nan, 0, None), [[False, False, False, False, True]]
    )
