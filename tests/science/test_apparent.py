"""What a Gaussian fit reports of skewed distributions: against closed forms and a direct lmfit of the summed pattern."""

from __future__ import annotations

import lmfit
import numpy as np
import pytest
from scipy.stats import gamma

from saxs_pipeline.science import apparent
from saxs_pipeline.science.formfactors import gaussian_spheres

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
