"""Non-negative regularised least squares against their optimality conditions, and SciPy's active set method."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saxs_pipeline.science.nonnegative import NonNegative
from saxs_pipeline.stages.compiled_nonnegative import minimise


def problem(seed, k=12, n=60, b=7):
    """Smooth columns, nearly dependent, as those of a scattering kernel; a penalty on differences."""
    rng = np.random.default_rng(seed)
    rows, columns = np.linspace(0.2, 5, k), np.linspace(0.5, 4, n)
    matrix = np.exp(-((rows[:, None] * columns / 4) ** 2)) * columns**3
    penalty = np.eye(n) - 0.9 * np.eye(n, k=1)
    return matrix, penalty, rng.standard_normal((b, k)) + matrix @ rng.exponential(1, n) * 0.1


@pytest.mark.parametrize("minimiser", [None, minimise], ids=["scipy", "compiled"])
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(-6, 3))
def test_the_minimum_is_reached(minimiser, seed, log_strength):
    matrix, penalty, data = problem(seed)
    strength = 10**log_strength
    near = np.where(np.random.default_rng(seed).random(matrix.shape[1]) < 0.3, 1.0, 0.0)
    x = NonNegative(matrix, penalty, minimiser).solve(strength, data, near)
    gradient = strength * (x @ penalty.T @ penalty) + (x @ matrix.T - data) @ matrix
    size = np.abs(data @ matrix).max()
    assert (x >= 0).all()
    assert np.abs(gradient[x > 0]).max(initial=0) < 1e-7 * size
    assert gradient[x == 0].min(initial=0) > -1e-7 * size


def test_one_or_many_or_a_start_change_no_result():
    matrix, penalty, data = problem(4)
    solver = NonNegative(matrix, penalty, minimise)
    cold = solver.solve(1e-3, data)
    np.testing.assert_allclose(solver.solve(1e-3, data, cold[0]), cold, atol=1e-6 * cold.max())
    np.testing.assert_allclose(solver.solve(1e-3, data[2]), cold[2], atol=1e-6 * cold.max())


def test_freedom_counts_what_is_not_held_back():
    solver = NonNegative(np.diag([3.0, 1.0, 0.01]), np.eye(3))
    assert solver.freedom(1.0, np.array([1.0, 1.0, 0.0])) == pytest.approx(9 / 10 + 1 / 2)
    assert solver.freedom(1e-12, np.ones(3)) == pytest.approx(3, abs=1e-6)
