"""Wider bins: the same means and errors as a direct integration and a simulation give."""

from dataclasses import replace

import numpy as np
import pytest

from saxs_pipeline.science import rebinning
from saxs_pipeline.types import BadInput
from tests.science.test_uncertainty import curves

PIXELS = np.array([3.0, 8.0, 11.0, 20.0, 17.0, 30.0, 41.0, 36.0, 52.0, 60.0])
Q = np.linspace(0.1, 1.0, 10)


def stack(intensity, sigma, **changes):
    made = curves(np.asarray(intensity, float), np.asarray(sigma, float))
    return replace(made, q_nm=Q, counts=np.broadcast_to(PIXELS, made.intensity.shape), **changes)


def test_a_mean_of_pixels_is_the_mean_of_pixels_however_they_are_binned():
    """Counts per pixel, drawn once, and binned finely and coarsely."""
    rng = np.random.default_rng(1)
    pixels = [rng.poisson(5, int(n)) for n in PIXELS]
    fine = stack([[p.mean() for p in pixels]], [[np.sqrt(p.sum()) / len(p) for p in pixels]])
    onto = rebinning.grid(Q, 5, logarithmic=False)
    coarse = rebinning.rebin(fine, onto, PIXELS)
    for k in range(5):
        both = np.concatenate(pixels[2 * k : 2 * k + 2])
        assert coarse.intensity[0, k] == pytest.approx(both.mean())
        assert coarse.statistical[0, k] == pytest.approx(np.sqrt(both.sum()) / len(both))
        assert coarse.counts[0, k] == len(both)
    np.testing.assert_allclose(coarse.q_nm, Q.reshape(5, 2).mean(axis=1))


def test_errors_are_those_of_a_simulation_and_the_kinds_stay_apart():
    rng = np.random.default_rng(2)
    sigma, shared, dark = 0.3 / np.sqrt(PIXELS), 0.1 / np.sqrt(PIXELS), 0.2 / np.sqrt(PIXELS)
    draws = rng.normal(2.0, sigma, (20_000, 10))
    fine = stack(draws, np.broadcast_to(sigma, draws.shape), shared=shared, dark_sigma=dark)
    coarse = rebinning.rebin(fine, rebinning.grid(Q, 3, logarithmic=True), PIXELS)
    np.testing.assert_allclose(coarse.intensity.std(axis=0) / coarse.statistical[0], 1, atol=0.02)
    np.testing.assert_allclose(coarse.shared / coarse.statistical[0], 1 / 3)
    np.testing.assert_allclose(coarse.dark_sigma / coarse.statistical[0], 2 / 3)
    np.testing.assert_array_equal(coarse.dark_factor, fine.dark_factor)


def test_bins_without_pixels_do_not_count():
    fine = stack([[np.nan, 2.0] + [np.nan] * 2 + [3.0] * 6], np.full((1, 10), 0.1))
    fine = replace(fine, counts=np.where(np.isfinite(fine.intensity), PIXELS, 0))
    coarse = rebinning.rebin(fine, rebinning.grid(Q, 5, logarithmic=False), PIXELS)
    assert coarse.intensity[0, 0] == 2.0 and coarse.statistical[0, 0] == pytest.approx(0.1)
    assert np.isnan([coarse.intensity[0, 1], coarse.statistical[0, 1]]).all() and coarse.counts[0, 1] == 0


def test_a_logarithmic_grid_keeps_narrow_bins_and_joins_wide_ones():
    q = np.linspace(0.05, 5, 500)
    onto = rebinning.grid(q, 60, logarithmic=True)
    joined = np.diff(onto.starts, append=500)
    assert joined[0] == 1 and joined[-1] > 20
    assert onto.q_nm[0] == q[0]
    assert len(onto.q_nm) < 60  # the first bins would be narrower than those that there are
    wide = np.diff(np.log(onto.q_nm))[-20:]
    np.testing.assert_allclose(wide, np.log(100) / 60, rtol=0.1)


def test_what_cannot_be_rebinned_is_refused():
    onto = rebinning.grid(Q, 5, logarithmic=False)
    with pytest.raises(BadInput, match="splitting: none"):
        rebinning.rebin(stack(np.ones((1, 10)), np.ones((1, 10)), correlated=True), onto, PIXELS)
    for q, logarithmic in ((Q[::-1], False), (Q - 0.1, True)):
        with pytest.raises(BadInput, match="must increase"):
            rebinning.grid(q, 5, logarithmic=logarithmic)
