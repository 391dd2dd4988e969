"""Non-negative regularised least squares, min ‖Mx − d‖² + α‖Lx‖² over x ≥ 0, for many d and more columns than rows.

By the active set method of Lawson and Hanson (SciPy's nnls). The solutions of similar problems have nearly the same
positive elements: a minimiser that begins with them, such as that of `stages.compiled_nonnegative`, may take its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import nnls

from saxs_pipeline.types import Bools, Floats

Minimiser = Callable[[Floats, Floats, Bools], Floats]
"""(Q (n, n) with ones on its diagonal, c (b, n), start (n,)) → x (b, n) of min ½xᵀQx − cᵀx over x ≥ 0, which may be
positive at `start`; rows that it could not solve are NaN."""


class NonNegative:
    """The problem for one matrix M (k, n) and one penalty L (l, n), of which the rank is n."""

    def __init__(self, matrix: Floats, penalty: Floats, minimise: Minimiser | None = None) -> None:
        self.matrix, self.penalty, self._minimise = matrix, penalty, minimise
        self._products, self._bends = matrix.T @ matrix, penalty.T @ penalty

    def solve(self, strength: float, data: Floats, near: Floats | None = None) -> Floats:
        """x (…, n) for data (…, k) and α = strength > 0; near (n,): x of a similar problem."""
        rows = np.atleast_2d(data)
        x = np.full((len(rows), self.matrix.shape[1]), np.nan)
        if self._minimise is not None:
            quadratic = self._products + strength * self._bends
            unit = 1 / np.sqrt(np.diagonal(quadratic))
            start = np.zeros(unit.size, dtype=np.bool_) if near is None else near > 0
            x = unit * self._minimise(quadratic * np.multiply.outer(unit, unit), (rows @ self.matrix) * unit, start)
        for i in np.flatnonzero(np.isnan(x).any(axis=1)):
            x[i] = self._by_active_set(strength, rows[i])
        return x.reshape(*data.shape[:-1], -1)

    def _by_active_set(self, strength: float, data: Floats) -> Floats:
        rows = np.concatenate([self.matrix, math.sqrt(strength) * self.penalty])
        target = np.concatenate([data, np.zeros(len(self.penalty))])
        return np.asarray(nnls(rows, target, maxiter=30 * rows.shape[1])[0])

    def freedom(self, strength: float, x: Floats) -> float:
        """Effective number of parameters of one solution x (n,): the trace of data → fit, where x > 0."""
        rows = np.concatenate([self.matrix, math.sqrt(strength) * self.penalty])[:, x > 0]
        return float((np.linalg.qr(rows)[0][: len(self.matrix)] ** 2).sum())
