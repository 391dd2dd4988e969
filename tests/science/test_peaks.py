"""Peaks of many groups at once: against scipy's curve_fit of each, and against their own statistics."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import curve_fit

from saxs_pipeline.science.peaks import fit_peaks


def peak(x, height, centre, width, level, slope):
    return height * np.exp(-0.5 * ((x - centre) / width) ** 2) + level + slope * x


def groups(number, n, rng, *, height=200.0, level=40.0, gain=1.0, read=0.0):
    """Pixels of peaks with centres around 0.3 and width 1.2, in random order."""
    group = rng.permutation(np.repeat(np.arange(number), n))
    x = rng.uniform(-4, 4, group.size)
    photons = rng.poisson(peak(x, height, 0.3, 1.2, level, 0.05 * level))
    return x, gain * photons + read * rng.standard_normal(x.size), group


def test_equals_curve_fit_of_each_group():
    x, value, group = groups(6, 400, np.random.default_rng(0))
    found = fit_peaks(x, value, group, 6, 1.0)
    for k in range(6):
        own = group == k
        sigma = np.sqrt(peak(x[own], 200, 0.3, 1.2, 40, 2.0))
        best, covariance = curve_fit(peak, x[own], value[own], (150, 0, 1, 30, 0), sigma, absolute_sigma=True)
        error = np.sqrt(np.diag(covariance))
        assert abs(found.centre[k] - best[1]) < 0.1 * error[1]
        assert abs(found.height[k] - best[0]) < 0.1 * error[0]
        assert abs(found.width[k] - abs(best[2])) < 0.1 * error[2]
        assert found.centre_error[k] == pytest.approx(error[1], rel=0.1)
        assert found.height_error[k] == pytest.approx(error[0], rel=0.1)


@pytest.mark.parametrize("kind", [{}, {"gain": 1.6, "read": 3.0}, {"height": 4.0, "level": 1.0}])
def test_uncertainties_are_those_of_the_scatter_whatever_the_detector(kind):
    x, value, group = groups(400, 150, np.random.default_rng(1), **kind)
    found = fit_peaks(x, value, group, 400, 1.0)
    pull = (found.centre - 0.3) / found.centre_error
    assert abs(pull.mean()) < 0.2
    assert pull.std() == pytest.approx(1.0, abs=0.15)


def test_hot_pixels_do_not_count():
    x, value, group = groups(10, 300, np.random.default_rng(2))
    hot = np.random.default_rng(3).permutation(x.size)[:20]
    spoiled = value.copy()
    spoiled[hot] += 3000
    clean, found = fit_peaks(x, value, group, 10, 1.0), fit_peaks(x, spoiled, group, 10, 1.0)
    assert np.abs((found.centre - clean.centre) / clean.centre_error).max() < 1.5


def test_the_scale_of_x_is_the_widths():
    x, value, group = groups(3, 300, np.random.default_rng(4))
    one, other = fit_peaks(x, value, group, 3, 1.0), fit_peaks(1e-4 * x, value, group, 3, 1e-4)
    for name in ("centre", "width", "centre_error"):
        np.testing.assert_allclose(getattr(other, name), 1e-4 * getattr(one, name), rtol=1e-9)


def test_groups_with_too_few_pixels_are_nan():
    x, value, group = groups(3, 100, np.random.default_rng(5))
    kept = (group != 1) | (np.cumsum(group == 1) <= 10)
    found = fit_peaks(x[kept], value[kept], group[kept], 4, 1.0)
    assert np.isnan(found.centre[[1, 3]]).all() and np.isfinite(found.centre[[0, 2]]).all()
