"""What a Gaussian fit reports of skewed distributions: against closed forms and a direct fit of the summed pattern."""

from __future__ import annotations

from pathlib import Path

import lmfit
import numpy as np
import pytest
from scipy.stats import gamma

from saxs_pipeline import runfile
from saxs_pipeline.science import apparent, batchfit
from saxs_pipeline.science.formfactors import gaussian_spheres
from saxs_pipeline.science.joint import CurveErrors
from saxs_pipeline.science.population import simulate
from tests.spheres import gaussian_model

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

Q = np.linspace(0.15, 5, 250)
GRID = np.arange(0.5, 4.0, 0.004)
SIGMA = 1e-3 * (1 + 0.3 * Q)


def gaussian(c, radius, sigma):
    density = np.exp(-0.5 * ((GRID - np.asarray(radius)[:, None]) / np.asarray(sigma)[:, None]) ** 2)
    return np.asarray(c)[:, None] * density / density.sum(axis=1, keepdims=True)


def skewed(c, radius, sigma, skewness):
    """A mirrored gamma distribution (n, g) of this mean, standard deviation and negative skewness."""
    shape = 4 / skewness**2
    density = gamma.pdf((radius - GRID) / sigma * np.sqrt(shape) + shape, shape)
    return c * density[None] / density.sum()


def test_gaussian_in_same_gaussian_out():
    c, radius, sigma = np.linspace(0.01, 50, 40), np.linspace(1.2, 2.6, 40), np.linspace(0.12, 0.04, 40)
    seen = apparent.reported(Q, np.tile(SIGMA, (40, 1)), GRID, gaussian(c, radius, sigma))
    np.testing.assert_allclose(seen, np.stack([c, radius, sigma**2], axis=1), rtol=1e-6)


@pytest.mark.parametrize(
    ("radius", "sigma", "skewness"), [(2.75, 0.151, -0.94), (2.35, 0.047, -1.6), (1.63, 0.035, -1.46)]
)
def test_skewed_as_a_direct_fit_of_the_summed_pattern(radius, sigma, skewness):
    sizes = skewed(20.0, radius, sigma, skewness)
    pattern = sum(
        n * gaussian_spheres(Q, np.array([r]), np.zeros(1))[0][0] for n, r in zip(sizes[0], GRID, strict=True)
    )
    weight = 1 / SIGMA / pattern.max()

    def residual(p):
        form = gaussian_spheres(Q, np.array([p["r"].value]), np.array([p["s"].value]))[0][0]
        return (p["c"] * form + p["b"] * pattern.max() - pattern) * weight

    start = lmfit.create_params(c=20.0, r=radius, s=sigma**2, b=0.0)
    direct = lmfit.minimize(residual, start, ftol=1e-15, xtol=1e-15, gtol=1e-15).params
    seen = apparent.reported(Q, SIGMA[None], GRID, sizes)[0]
    np.testing.assert_allclose(seen, [direct["c"], direct["r"], direct["s"]], rtol=2e-6)
    assert seen[2] < 0.99 * sigma**2, "a tail to small sizes makes the reported width smaller, which is why this exists"


def test_strength_and_masked_points_do_not_matter():
    sizes = skewed(20.0, 1.9, 0.05, -1.2)
    weights = np.stack([SIGMA, 1e4 * SIGMA, np.where(Q < 0.3, np.nan, SIGMA)])
    seen = apparent.reported(Q, weights, GRID, np.concatenate([sizes, 1e-6 * sizes, sizes]))
    np.testing.assert_allclose(seen[1], seen[0] * [1e-6, 1, 1], rtol=1e-8)
    outside = apparent.reported(Q[Q >= 0.3], SIGMA[None, Q >= 0.3], GRID, sizes)[0]
    np.testing.assert_allclose(seen[2], outside, rtol=1e-8)


def of_model(n, amplitude=7.4617e-6):
    model = gaussian_model(amplitude, (0.5, 3.0), (0.005, 0.5))
    return {"model": model, "values": np.zeros((n, 4)), "free": np.ones((n, 4), dtype=bool)}


def test_one_step_from_the_truth_is_unbiased_where_fits_are_not():
    """Frames so weak that c and R lie on a curved band: the mean of many steps is the truth, the scatter as stated."""
    n, truth, amplitude = 4000, np.array([30.0, 1.03, 0.05**2]), 7.4617e-6
    pattern = amplitude * truth[0] * gaussian_spheres(Q, truth[1:2], truth[2:])[0][0]
    sigma = np.full(Q.size, 1.5e-4)
    curves = pattern + 1e-3 + np.random.default_rng(3).normal(0, sigma, (n, Q.size))
    rows = np.tile(sigma, (n, 1))
    nothing = np.zeros(Q.size)
    values, errors = [], []
    for block in np.array_split(np.arange(n), 20):
        known = CurveErrors(Q, rows[block], 0 * rows[block], 0 * rows[block], nothing)
        reference = np.tile(truth, (block.size, 1))
        step, joint = apparent.one_step(known, curves[block], reference=reference, **of_model(block.size))
        values.append(step)
        errors.append(np.sqrt(np.diagonal(joint)).reshape(-1, 3))
    error = np.concatenate(errors)[0]
    assert error[0] > 0.1 * truth[0]
    pulls = (np.concatenate(values) - truth) / error
    assert np.abs(pulls.mean(axis=0)).max() < 4 / np.sqrt(n)
    np.testing.assert_allclose(pulls.std(axis=0), 1, atol=4 / np.sqrt(2 * n))
    fits = batchfit.fit_frames(Q, curves, rows, of_model(n)["model"])
    of_fits = (fits.values[:, :3] - truth) / np.sqrt(np.diagonal(fits.covariance, axis1=1, axis2=2)[:, :3])
    assert np.abs(of_fits[fits.converged].mean(axis=0)).max() > 0.1


def test_one_step_ends_where_the_fit_does():
    truth = np.array([[20.0, 1.9, 0.05**2], [25.0, 2.1, 0.1**2]])
    amplitude = 7.4617e-6
    pattern = amplitude * truth[:, :1] * gaussian_spheres(Q, truth[:, 1], truth[:, 2])[0]
    sigma = np.where(Q < 0.25, np.nan, np.full((2, Q.size), 1e-4))
    curves = np.where(Q < 0.25, np.nan, pattern + np.random.default_rng(4).normal(0, 1e-4, pattern.shape))
    fit = batchfit.fit_frames(Q, curves, sigma, of_model(2)["model"])
    known = CurveErrors(Q, sigma, np.full(sigma.shape, 3e-5), np.zeros(sigma.shape), np.zeros(Q.size))
    values, joint = apparent.one_step(known, curves, reference=fit.values[:, :3], **of_model(2))
    errors = np.sqrt(np.diagonal(fit.covariance, axis1=1, axis2=2)[:, :3])
    assert (np.abs(values - fit.values[:, :3]) < 0.05 * errors).all()
    np.testing.assert_allclose(joint[3:, 3:], fit.covariance[1, :3, :3], rtol=1e-6, atol=1e-12)
    assert (np.abs(np.diagonal(joint[:3, 3:])) > 0).all(), "the background's error is the same in both frames"


def test_a_development_is_seen_at_any_time():
    """At its own rows as the fits of those rows."""
    model = runfile.load_model(CONFIGS / "kinetics-calibrated.yaml", ["n=2"]).config
    development = simulate(model.synthesis(), 300.0, sizes=True)
    rows = np.flatnonzero(development.all.c_umol_L > 1)[::7]
    time = development.time_s[rows]
    view = apparent.View(time, Q, np.tile(SIGMA, (time.size, 1)))
    direct = apparent.reported(Q, view.sigma, development.size_grid_nm, development.sizes[rows])
    np.testing.assert_allclose(apparent.as_seen(development, view, time), direct, rtol=2e-3)
    between = apparent.as_seen(development, view, np.array([100.0]))
    assert direct[:, 1].min() < between[0, 1] < direct[:, 1].max()
