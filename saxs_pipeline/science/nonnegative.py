"""Non-negative ridge regression of many right-hand sides at once: min ‖Mx − d‖² + α‖x‖² over x ≥ 0.

By its dual. With λ = d − Mx the minimum is x = max(0, Mᵀλ)/α, and λ minimises the convex, piecewise quadratic

    ½α‖λ‖² + ½‖max(0, Mᵀλ)‖² − α dᵀλ

in as many unknowns as there are data, k, however many x there are. Newton's method on it, with the exact minimum along
each step, ends after finitely many steps at the solution itself: on one piece the step leads to the minimum.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import nnls

from saxs_pipeline.types import Bools, Floats

_MOST_STEPS = 500
_STOP = 1e-9
"""What a step could still take off ‖Mx − d‖² + α‖x‖²: below, the rest is rounding."""


class NonNegativeRidge:
    """The problem for one matrix M (k, n); everything that depends on M alone is done once."""

    def __init__(self, matrix: Floats) -> None:
        self.matrix = matrix
        k = len(matrix)
        upper = np.triu_indices(k)
        self._products = np.ascontiguousarray((matrix[upper[0]] * matrix[upper[1]]).T)
        place = np.zeros((k, k), dtype=np.intp)
        place[upper] = np.arange(len(upper[0]))
        self._place = np.maximum(place, place.T).ravel()

    def solve(self, strength: float, data: Floats, start: Floats | None = None) -> tuple[Floats, Floats, Bools]:
        """x (b, n), λ (b, k), and whether the minimum was reached (b,), for data (b, k), α = strength > 0.

        start (b, k) or (1, k): λ of a similar problem, from which fewer steps are needed.
        """
        dual = np.zeros_like(data) if start is None else np.broadcast_to(start, data.shape).copy()
        live = np.arange(len(data))
        for _ in range(_MOST_STEPS):
            reached, dual[live] = self._step(strength, data[live], dual[live])
            live = live[~reached]
            if not live.size:
                break
        done = np.ones(len(data), dtype=bool)
        done[live] = False
        return np.maximum(dual @ self.matrix, 0.0) / strength, dual, done

    def _step(self, strength: float, data: Floats, dual: Floats) -> tuple[Bools, Floats]:
        """One Newton step: which problems it solved, and the new λ."""
        now = dual @ self.matrix
        positive = now > 0
        hessian = (positive.astype(float) @ self._products)[:, self._place].reshape(len(dual), *[data.shape[1]] * 2)
        hessian += strength * np.eye(data.shape[1])
        new = np.asarray(np.linalg.solve(hessian, strength * data[..., None])[..., 0], dtype=np.float64)
        then = new @ self.matrix
        step, change = new - dual, then - now
        slope = strength * (step * (dual - data)).sum(axis=-1)
        gain = -slope - (np.where(positive, now, 0.0) * change).sum(axis=-1)
        reached: Bools = ((then > 0) == positive).all(axis=-1) | (gain < _STOP * strength)
        rest = np.flatnonzero(~reached)
        if rest.size:
            share = _lowest(slope[rest], strength * (step[rest] ** 2).sum(axis=-1), now[rest], change[rest])
            new[rest] = dual[rest] + share[:, None] * step[rest]
        return reached, new

    def solve_one(self, strength: float, data: Floats) -> Floats:
        """x (n,) for data (k,), by the active set method of Lawson and Hanson, which needs no start."""
        n = self.matrix.shape[1]
        rows = np.concatenate([self.matrix, math.sqrt(strength) * np.eye(n)])
        return np.asarray(nnls(rows, np.concatenate([data, np.zeros(n)]), maxiter=30 * n)[0])

    def freedom(self, strength: float, x: Floats) -> float:
        """Effective number of parameters of one solution x (n,): tr H(H + α)⁻¹ with H = M₊M₊ᵀ of its positive x."""
        eigenvalues = np.linalg.svd(self.matrix[:, x > 0], compute_uv=False) ** 2
        return float((eigenvalues / (eigenvalues + strength)).sum())


def _lowest(slope: Floats, curvature: Floats, value: Floats, change: Floats) -> Floats:
    """Where along t = 0…1 slope·t + ½curvature·t² + ½‖max(0, value + t·change)‖² is lowest, for each row, (b,).

    The derivative is piecewise linear with its corners where an element changes sign; it rises with t.
    """
    rows = np.arange(len(value))
    with np.errstate(divide="ignore", invalid="ignore"):
        corner = -value / change
    turns = (corner > 0) & (corner < 1)
    corner = np.where(turns, corner, 1.0)
    order = np.argsort(corner, axis=1)
    corner = np.take_along_axis(corner, order, axis=1)
    kink = np.take_along_axis(np.where(turns, np.sign(change) * change**2, 0.0), order, axis=1)
    on = value > 0
    first = slope + (np.where(on, value, 0.0) * change).sum(axis=1)
    rise = curvature + (np.where(on, change, 0.0) ** 2).sum(axis=1)
    rise = rise[:, None] + np.concatenate([np.zeros((len(rows), 1)), np.cumsum(kink, axis=1)], axis=1)
    edges = np.concatenate([np.zeros((len(rows), 1)), corner, np.ones((len(rows), 1))], axis=1)
    derivative = first[:, None] + np.concatenate(
        [np.zeros((len(rows), 1)), np.cumsum(rise * np.diff(edges, axis=1), axis=1)], axis=1
    )
    crosses = derivative[:, 1:] >= 0
    piece = np.argmax(crosses, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = edges[rows, piece] - derivative[rows, piece] / rise[rows, piece]
    return np.where(crosses.any(axis=1) & np.isfinite(share), share, 1.0)
