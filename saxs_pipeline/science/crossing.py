"""t98 of a series without a law: when it reaches 98 % of its plateau, read off between its points."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from saxs_pipeline.science.leastsquares import Minimum, Points, linear_fit
from saxs_pipeline.science.timeseries import CLEAR, FEWEST, trend
from saxs_pipeline.types import Floats, Uncertain

_FLAT = 2.0
"""Standard errors below which a plateau is one: the last of the rise, too small to be CLEAR, would pull it down."""

_INTERPOLATION, _GAP = 1e-3, 0.1
"""Relative error of a time read off a parabola between points that are so far apart in ln t; with their distance it
grows as its cube."""

_MISFIT = 14.0
"""χ² of the narrowest parabola, of two degrees of freedom, from which on it describes nothing: 0.1 % by chance."""

_HALF_WIDTHS = (8, 6, 4, 3, 2)


class _Crossing(NamedTuple):
    """When a curve through the points passes a target, s, its error for what happens between them, and derivatives.

    by_value (n,) by the points, by_target by the target.
    """

    time_s: float
    between: float
    by_value: Floats
    by_target: float


def interpolated_t98(points: Points) -> tuple[Uncertain, Floats] | None:
    """When the values reach 98 % of their plateau for good, s, and its derivatives by the values (n,).

    The plateau is the mean over the longest end of the series without a trend; the crossing is that of a parabola in
    ln t, through as many neighbouring points as it describes. Its error holds, besides noise, what a plateau approached
    as 1/t would add, and the bends between the points. Where no parabola describes even five points, the crossing lies
    between the straight line and the continued neighbouring ones. None where the series shows no plateau, or nothing
    below 98 % of it.
    """
    n = len(points.time_s)
    tail = next((k for k in range(0, n - FEWEST, 2) if abs(trend(_part(points, k, n))) < _FLAT), None)
    if tail is None:
        return None
    final = linear_fit(np.ones((n - tail, 1)), _part(points, tail, n))
    target = 0.98 * float(final.parameters[0])
    smooth = np.convolve(points.value, np.full(FEWEST, 1 / FEWEST), mode="valid")
    below = np.flatnonzero(smooth < target)
    crossing = _crossing(points, int(below[-1]) + FEWEST // 2, target) if len(below) else None
    if crossing is None:
        return None
    by_plateau = 0.98 * crossing.by_target
    gradient = crossing.by_value.copy()
    gradient[tail:] += by_plateau * final.gain[0]
    statistical = math.sqrt(gradient @ points.covariance @ gradient)
    slow = by_plateau * _approach(_part(points, tail, n), final, crossing.time_s)
    return Uncertain(crossing.time_s, math.hypot(statistical, crossing.between, slow)), gradient


def _approach(tail: Points, mean: Minimum, t98_s: float) -> float:
    """How far above their mean these points' limit lies if it is approached as 1/t from t98 on; 0 if they exclude it.

    Then 2 % of it are missing at t98, and 2 % · t98/t later: a slope against 1/t that the points may contradict.
    """
    inverse = 1 / tail.time_s
    line = linear_fit(np.stack([np.ones_like(inverse), inverse], axis=-1), tail)
    missing = 0.02 * float(mean.parameters[0]) * t98_s
    if line.parameters[1] + missing > CLEAR * math.sqrt(line.covariance[1, 1]):
        return 0.0
    return missing * float(mean.gain[0] @ inverse)


def _crossing(points: Points, centre: int, target: float) -> _Crossing | None:
    """Where the values rise past the target near the point `centre`."""
    around, parabola = _parabola(points, centre)
    if parabola.chi2 > _MISFIT:
        return _between_lines(points, centre, target)
    found = _parabola_crossing(np.log(points.time_s[around]), parabola, target)
    if found is None:
        return None
    time, by_part, by_target = found
    by_value = np.zeros(len(points.time_s))
    by_value[around] = by_part
    left = int(np.searchsorted(points.time_s[:-1], time, side="right")) - 1
    first, second = points.time_s[left : left + 2]
    bend = _INTERPOLATION * max(1.0, math.log(second / first) / _GAP) ** 3 * time
    return _Crossing(time, min(bend, (second - first) / 2), by_value, by_target)


def _between_lines(points: Points, centre: int, target: float) -> _Crossing | None:
    """The middle of where a concave rise can pass the target, and half the width of that as its error.

    A concave curve lies above the straight line between two neighbouring points, and below those through the pairs
    before and after them. Where the points are not concave, the whole interval is possible.
    """
    time, value = points.time_s, points.value
    near = np.arange(centre - 2, min(centre + 2, len(time) - 1))
    rising = near[(value[near] < target) & (value[near + 1] >= target)]
    if not len(rising):
        return None
    k = int(rising[-1])
    last = _line_crossing(points, k, target)
    beside = [
        _line_crossing(points, j, target) for j in (k - 1, k + 1) if 0 <= j < len(time) - 1 and value[j + 1] > value[j]
    ]
    first = max(beside, key=lambda line: line.time_s, default=last)
    if not time[k] <= first.time_s < last.time_s:
        zero = np.zeros(len(time))
        first, last = _Crossing(time[k], 0.0, zero, 0.0), _Crossing(time[k + 1], 0.0, zero, 0.0)
    return _Crossing(
        (first.time_s + last.time_s) / 2,
        (last.time_s - first.time_s) / 2,
        (first.by_value + last.by_value) / 2,
        (first.by_target + last.by_target) / 2,
    )


def _line_crossing(points: Points, k: int, target: float) -> _Crossing:
    """t at which the straight line through the points k and k + 1 passes the target."""
    step = points.time_s[k + 1] - points.time_s[k]
    by_target = float(step / (points.value[k + 1] - points.value[k]))
    part = by_target * (target - points.value[k]) / step
    by_value = np.zeros(len(points.time_s))
    by_value[k : k + 2] = -by_target * (1 - part), -by_target * part
    return _Crossing(float(points.time_s[k] + part * step), 0.0, by_value, by_target)


def _part(points: Points, start: int, stop: int) -> Points:
    part = slice(start, stop)
    return Points(points.time_s[part], points.value[part], points.covariance[part, part])


def _parabola(points: Points, centre: int) -> tuple[slice, Minimum]:
    """The widest range of points about `centre` that a parabola in ln t describes, and that parabola."""
    for half in _HALF_WIDTHS:
        around = slice(max(centre - half, 0), centre + half + 1)
        part = _part(points, around.start, around.stop)
        logarithm = np.log(part.time_s)
        fit = linear_fit(np.vander(logarithm - logarithm.mean(), 3), part)
        if fit.chi2 < len(logarithm) - 3:  # a misfit that does not show yet would already shift the crossing
            break
    return around, fit


def _parabola_crossing(logarithm: Floats, parabola: Minimum, target: float) -> tuple[float, Floats, float] | None:
    """t where the parabola rises past the target, with the derivatives of t by the values and by the target."""
    centre = logarithm.mean()
    square, linear, _ = parabola.parameters
    roots = np.roots(parabola.parameters - [0.0, 0.0, target])
    rising = [float(x.real) for x in roots if np.isreal(x) and 2 * square * x.real + linear > 0]
    inside = [x for x in rising if logarithm[0] <= x + centre <= logarithm[-1]]
    if not inside:
        return None
    x = inside[0]
    t98 = math.exp(x + centre)
    by_target = t98 / float(2 * square * x + linear)
    return t98, -by_target * (np.array([x * x, x, 1.0]) @ parabola.gain), by_target
