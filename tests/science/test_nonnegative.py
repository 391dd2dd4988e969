"""Non-negative ridge regression against its optimality conditions and against SciPy's active set method."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from saxs_pipeline.science.nonnegative import NonNegativeRidge


def problem(seed, k=12, n=60, b=7):
    """Smooth columns, nearly dependent, as those of a scattering kernel."""
    rng = np.random.default_rng(seed)
    rows, columns = np.linspace(0.2, 5, k), np.linspace(0.5, 4, n)
    matrix = np.exp(-((rows[:, None] * columns / 4) ** 2)) * columns**3
    return matrix, rng.standard_normal((b, k)) + matrix @ rng.exponential(1, n) * 0.1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(-6, 3))
def test_the_minimum_is_reached(seed, log_strength):
    matrix, data = problem(seed)
    strength = 10**log_strength
    x, dual, reached = NonNegativeRidge(matrix).solve(strength, data)
    assert reached.all()
    gradient = strength * x + (x @ matrix.T - data) @ matrix
    size = np.abs(data @ matrix).max()
    assert (x >= 0).all()
    assert np.abs(gradient[x > 0]).max(initial=0) < 1e-7 * size
    assert gradient[x == 0].min(initial=0) > -1e-7 * size
    np.testing.assert_allclose(dual, data - x @ matrix.T, atol=1e-6 * np.abs(data).max())


@pytest.mark.parametrize("strength", [1e-6, 1e-3, 1.0, 1e3])
def test_equals_scipy(strength):
    matrix, data = problem(3)
    ridge = NonNegativeRidge(matrix)
    x = ridge.solve(strength, data)[0]
    for one, found in zip(data, x, strict=True):
        stacked = np.concatenate([matrix, np.sqrt(strength) * np.eye(matrix.shape[1])])
        other = nnls(stacked, np.concatenate([one, np.zeros(matrix.shape[1])]))[0]
        np.testing.assert_allclose(matrix @ found, matrix @ other, atol=1e-6 * np.abs(one).max())
        np.testing.assert_allclose(ridge.solve_one(strength, one), other, atol=1e-9 * other.max())


def test_a_start_changes_no_result():
    matrix, data = problem(4)
    ridge = NonNegativeRidge(matrix)
    cold, dual, _ = ridge.solve(1e-3, data)
    warm, _, reached = ridge.solve(1e-3, data, dual[:1])
    assert reached.all()
    np.testing.assert_allclose(warm, cold, atol=1e-6 * cold.max())


def test_freedom_counts_what_is_not_held_back():
    matrix = np.diag([3.0, 1.0, 0.01])
    ridge = NonNegativeRidge(matrix)
    assert ridge.freedom(1.0, np.array([1.0, 1.0, 0.0])) == pytest.approx(9 / 10 + 1 / 2)
    assert ridge.freedom(1e-12, np.ones(3)) == pytest.approx(3, abs=1e-6)
