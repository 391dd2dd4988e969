"""Statistical, shared and scale uncertainties stay apart (science.md §1); truth by simulation and closed form."""

import numpy as np
import pytest

from saxs_pipeline.science import uncertainty
from saxs_pipeline.types import Background, Curves


def curves(intensity, statistical, shared=0.0, dark=0.0):
    n, m = intensity.shape
    return Curves(
        q_nm=np.arange(1.0, m + 1),
        intensity=intensity,
        statistical=np.broadcast_to(statistical, (n, m)),
        shared=np.full(m, shared),
        counts=np.ones((n, m)),
        index=np.arange(n),
        start_s=np.arange(n) * 1.0,
        exposure_s=np.ones(n),
        problems=("",) * n,
        notes=("",) * n,
        dark_sigma=np.full(m, 0.5),
        dark_factor=np.full(n, dark),
        taken_off=np.zeros(m),
    )


def test_an_average_weighs_by_exposure_and_shrinks_statistics():
    rng = np.random.default_rng(1)
    exposure = np.array([1.0, 2.0, 5.0])
    sigma = 0.3 / np.sqrt(exposure)
    draws = rng.normal(2.0, sigma[:, None], (3, 200_000))
    mean = uncertainty.average(curves(draws, sigma[:, None], dark=0.7), exposure)
    assert mean.intensity.std() == pytest.approx(0.3 / np.sqrt(8), rel=0.01)
    np.testing.assert_allclose(mean.statistical, 0.3 / np.sqrt(8))
    assert mean.intensity.mean() == pytest.approx(2.0, abs=0.002)
    assert mean.dark_factor == pytest.approx(0.7)  # an average has as much of the dark's error as each frame


def test_exposure_weights_do_not_favour_frames_that_fluctuated_low():
    rng = np.random.default_rng(2)
    counts = rng.poisson(20.0, (10, 100_000)).astype(float)
    mean = uncertainty.average(curves(counts, np.sqrt(np.maximum(counts, 1))), np.ones(10)).intensity
    inverse_variance = (counts / np.maximum(counts, 1)).sum(0) / (1 / np.maximum(counts, 1)).sum(0)
    assert mean.mean() == pytest.approx(20.0, abs=0.02)
    assert inverse_variance.mean() < 19.2  # the bias that is avoided


def test_the_background_error_is_shared_not_statistical():
    frames = curves(np.full((4, 3), 5.0), 0.1)
    background = Background(np.full(3, 2.0), np.full(3, 0.3), "test", factor=1.5)
    reduced = uncertainty.subtract(frames, background)
    np.testing.assert_allclose(reduced.intensity, 2.0)
    np.testing.assert_allclose(reduced.statistical, 0.1)
    np.testing.assert_allclose(reduced.shared, 0.45)
    np.testing.assert_allclose(reduced.sigma, np.hypot(0.1, 0.45))


def test_the_same_dark_in_frame_and_background_leaves_no_error():
    """Dark frames of error e in both: (S - e) - f·(B - e) has (1 - f)·e."""
    for factor, left in ((1.0, 0.0), (0.6, 0.4)):
        background = Background(np.full(3, 2.0), np.zeros(3), "test", factor, dark_factor=2.0)
        reduced = uncertainty.subtract(curves(np.full((4, 3), 5.0), 0.1, dark=2.0), background)
        np.testing.assert_allclose(reduced.common, left * 2.0 * 0.5, atol=1e-12)
        np.testing.assert_allclose(reduced.sigma, np.hypot(0.1, left))


def test_scale_multiplies_values_and_stays_a_number_of_its_own():
    scaled = uncertainty.rescale(curves(np.full((2, 3), 5.0), 0.1, 0.2, 0.3), 2.0, scale_rel=0.03, unit="1/mm")
    np.testing.assert_allclose(scaled.common, np.hypot(0.4, 2 * 0.3 * 0.5))
    np.testing.assert_allclose([scaled.intensity[0, 0], scaled.statistical[0, 0], scaled.shared[0]], [10, 0.2, 0.4])
    assert scaled.scale_rel == 0.03
    assert scaled.unit == "1/mm"
