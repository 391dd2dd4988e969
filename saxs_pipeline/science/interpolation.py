"""Cubic interpolation of columns that jump, or are NaN for a while, and the time at which a rise is nearly done."""

from __future__ import annotations

import numpy as np

from saxs_pipeline.types import Floats, Ints


def interpolated(time: Floats, values: Floats, wanted: Floats) -> Floats:
    """Cubic Hermite with parabolic slopes: values (n,) or (n, k) at increasing times (n,) → (m,) or (m, k).

    Two rows one float apart are a jump: nothing is interpolated across it. NaN rows stay NaN up to the next finite row.
    Before the first time the first row, after the last one the last.
    """
    columns = values.reshape(len(time), -1)
    run = _runs(time, columns)
    slopes = np.zeros_like(columns)
    for start, stop in zip(*_bounds(run), strict=True):
        if stop - start > 1:
            slopes[start:stop] = _slopes(time[start:stop], columns[start:stop])
    found = _hermite(time, columns, slopes, run, np.asarray(wanted, dtype=float))
    return found.reshape(len(found), *values.shape[1:])


def _slopes(time: Floats, columns: Floats) -> Floats:
    """Slope of the parabola through each row and its neighbours; at the ends that of the last parabola."""
    h = np.diff(time)[:, None]
    secant = np.diff(columns, axis=0) / h
    if len(h) == 1:
        return np.concatenate([secant, secant])
    middle = (h[1:] * secant[:-1] + h[:-1] * secant[1:]) / (h[:-1] + h[1:])
    return np.concatenate([2 * secant[:1] - middle[:1], middle, 2 * secant[-1:] - middle[-1:]])


def _runs(time: Floats, columns: Floats) -> Ints:
    """Number of the smooth stretch each row belongs to."""
    jump = np.asarray(np.nextafter(time[:-1], np.inf) == time[1:])
    finite = np.asarray(np.isfinite(columns).all(axis=1))
    return np.concatenate([[0], np.cumsum(jump | (finite[:-1] != finite[1:]))])


def _bounds(run: Ints) -> tuple[Ints, Ints]:
    starts = np.flatnonzero(np.diff(run, prepend=-1))
    return starts, np.append(starts[1:], len(run))


def _hermite(time: Floats, columns: Floats, slopes: Floats, run: Ints, wanted: Floats) -> Floats:
    inside = np.clip(wanted, time[0], time[-1])
    i = np.minimum(np.searchsorted(time, inside, side="right") - 1, len(time) - 2)
    h = time[i + 1] - time[i]
    u = ((inside - time[i]) / h)[:, None]
    left, right = columns[i], columns[i + 1]
    steep = h[:, None] * (slopes[i] * (1 - u) - slopes[i + 1] * u)
    smooth = left * (1 - u) + right * u + u * (1 - u) * (steep + (right - left) * (2 * u - 1))
    split = np.where(u == 0, left, np.where(u == 1, right, np.nan))
    return np.where((run[i] == run[i + 1])[:, None], smooth, split)


def reached(time: Floats, values: Floats, level: float) -> float:
    """First time at which the values (n,) reach a level from below, by the same interpolation; NaN if never."""
    above = np.flatnonzero(values >= level)
    if not len(above):
        return float("nan")
    if above[0] == 0:
        return float(time[0])
    fine = np.linspace(time[above[0] - 1], time[above[0]], 257)
    curve = interpolated(time, values, fine)
    k = max(int(np.argmax(curve >= level)), 1)
    return float(np.interp(level, curve[k - 1 : k + 1], fine[k - 1 : k + 1]))
