"""The minimiser of `science.nonnegative`, compiled (numba): ten times as fast as SciPy's nnls, as it begins with the
positive elements of a similar solution (Bro and de Jong, J. Chemom. 11, 393 (1997)).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from saxs_pipeline.stages.compiled import compiled
from saxs_pipeline.types import Bools, Floats

_LEAST = 1e-11
"""Slope, in parts of the highest in c, of an element that is let in: below is rounding."""


def minimise(quadratic: Floats, linear: Floats, start: Bools) -> Floats:
    """x (b, n) of min ½xᵀQx − cᵀx over x ≥ 0, Q (n, n) with ones on its diagonal, c (b, n); see `Minimiser`."""
    x = np.empty_like(linear)
    _all(np.ascontiguousarray(quadratic), np.ascontiguousarray(linear), start, x)
    return x


@compiled
def _all(quadratic: Any, linear: Any, start: Any, x: Any) -> None:
    n = start.size
    place, factor, new = np.empty(n, np.int64), np.empty((n, n)), np.empty(n)
    for row in range(linear.shape[0]):
        x[row] = 0.0
        if not _one(quadratic, linear[row], start, x[row], (place, factor, new)):
            x[row] = np.nan


@compiled
def _one(quadratic: Any, linear: Any, start: Any, x: Any, space: tuple[Any, Any, Any]) -> bool:
    """The conditions of Karush, Kuhn and Tucker by exchanges of elements, from x = 0; False if it does not end.

    place[:count]: the elements that may be positive; rows of Cholesky's factor, and new values, in their order.
    """
    place, factor, new = space
    count, known, entered = 0, 0, -1
    for i in range(start.size):
        if start[i]:
            place[count] = i
            count += 1
    for _ in range(10 * start.size):
        if not _solved(quadratic, linear, place[:count], (factor, new), known):
            return False
        known, last = _step(place[:count], new, x), count
        count = _kept(place[:count], x, new)
        if count < last:
            if entered >= 0 and x[entered] == 0.0:  # rounding: it would come back
                return False
            continue
        entered = _steepest(quadratic, linear, place[:count], x)
        if entered < 0:
            return True
        place[count] = entered
        count, known = count + 1, count
    return False


@compiled
def _step(place: Any, new: Any, x: Any) -> int:
    """From x towards the new values as far as none becomes negative; how many of the first elements then stay."""
    share, first = 1.0, place.size
    for k in range(place.size):
        if new[k] <= 0.0:
            value = x[place[k]]
            share = min(share, value / (value - new[k]) if value > 0.0 else 0.0)
    for k in range(place.size):
        i = place[k]
        value = x[i] + share * (new[k] - x[i])
        if new[k] <= 0.0 and value <= 1e-12 * (x[i] - new[k]):
            value = 0.0
            first = min(first, k)
        x[i] = value
    return int(first)


@compiled
def _kept(place: Any, x: Any, new: Any) -> int:
    """Elements that left, those at 0 which are not to be positive, are taken from `place`; how many stay."""
    count = 0
    for k in range(place.size):
        if x[place[k]] > 0.0 or new[k] > 0.0:
            place[count] = place[k]
            count += 1
    return count


@compiled
def _steepest(quadratic: Any, linear: Any, place: Any, x: Any) -> int:
    """The element at 0 with the highest slope towards positive values; -1 if there is none."""
    best, found = _LEAST * np.abs(linear).max(), -1
    for i in range(x.size):
        if x[i] == 0.0:
            slope = linear[i]
            for j in place:
                slope -= quadratic[i, j] * x[j]
            if slope > best:
                best, found = slope, int(i)
    return found


@compiled
def _solved(quadratic: Any, linear: Any, place: Any, space: tuple[Any, Any], known: int) -> bool:
    """The minimum in the elements at `place` without bounds, by Cholesky's factors, of which the first rows are known.

    False if there is none.
    """
    factor, new = space
    count = place.size
    for r in range(known, count):
        for c in range(r + 1):
            total = quadratic[place[r], place[c]]
            for k in range(c):
                total -= factor[r, k] * factor[c, k]
            if r == c:
                if total <= 0.0:
                    return False
                factor[r, r] = math.sqrt(total)
            else:
                factor[r, c] = total / factor[c, c]
    for r in range(count):
        total = linear[place[r]]
        for k in range(r):
            total -= factor[r, k] * new[k]
        new[r] = total / factor[r, r]
    for r in range(count - 1, -1, -1):
        new[r] /= factor[r, r]
        for k in range(r):
            new[k] -= factor[r, k] * new[r]
    return True
