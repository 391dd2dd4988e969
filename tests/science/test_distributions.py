"""Moments of the Gaussian against Gauss–Hermite quadrature (exact for polynomials) and the density's own integral."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saxs_pipeline.science.distributions import gaussian_density, gaussian_moments


@given(st.floats(0.1, 50), st.floats(0.0, 0.5))
def test_moments_equal_gauss_hermite(mean, relative_width):
    sigma = mean * relative_width
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    moments = gaussian_moments(mean, sigma**2)
    assert moments.shape == (9,)
    for k, moment in enumerate(moments):
        expected = weights @ (mean + sigma * nodes) ** k / math.sqrt(2 * math.pi)
        assert moment == pytest.approx(expected, rel=1e-12)


def test_moments_are_polynomials_also_for_negative_variance():
    mean, s = 2.0, -0.01
    moments = gaussian_moments(mean, s)
    assert moments[2] == pytest.approx(mean**2 + s, rel=1e-15)
    assert moments[4] == pytest.approx(mean**4 + 6 * mean**2 * s + 3 * s**2, rel=1e-15)
    assert moments[6] == pytest.approx(mean**6 + 15 * mean**4 * s + 45 * mean**2 * s**2 + 15 * s**3, rel=1e-15)


def test_moments_broadcast():
    moments = gaussian_moments(np.array([1.0, 2.0]), np.array([0.0, 0.04]), order=3)
    np.testing.assert_allclose(moments.T, [[1, 1, 1, 1], [1, 2, 4.04, 8.24]], rtol=1e-15)


def test_density_is_normalised_with_mean_and_variance():
    r = np.linspace(0, 4.5, 20_001)
    density = gaussian_density(r, 2.22, 0.13**2)
    assert np.trapezoid(density, r) == pytest.approx(1, rel=1e-12)
    assert np.trapezoid(density * r, r) == pytest.approx(2.22, rel=1e-12)
    assert np.trapezoid(density * (r - 2.22) ** 2, r) == pytest.approx(0.13**2, rel=1e-10)


def test_negative_tail_is_as_small_as_documented():
    for relative_width, bound in ((0.2, 1e-9), (0.3, 6e-6)):
        r = np.linspace(-6, 0, 60_001)
        tail = np.trapezoid(gaussian_density(r, 1.0, relative_width**2) * r**6, r)
        assert 0 < tail / gaussian_moments(1.0, relative_width**2)[6] < bound
