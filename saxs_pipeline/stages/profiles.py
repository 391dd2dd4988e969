"""Profiles of χ²: how far each parameter can go before χ², the others at their best, has risen by 1 and by 4."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from scipy.optimize import brentq

from saxs_pipeline.curve_fit import FitParameter, Interval

LEVELS = (1.0, 2.0)
"""Standard errors; the intervals hold the truth in 68.3 and 95.4 % of all cases (likelihood ratio, Wilks 1938)."""

FINE = 1e-3
"""Of a standard error, to which a limit is found; lmfit.conf_interval stops at 5e-5 of the value, which can be more."""

_ENOUGH = 1e-9
"""Relative change of χ² and of the parameters at which a refit ends."""

_MOST = 0.7
"""Of the way to the end of its range that a parameter is moved for the start of a refit."""

_FARTHEST = 1e3
"""Standard errors beyond which no limit is looked for."""


def added(parameters: Sequence[FitParameter], minimizer: Any, result: Any) -> tuple[FitParameter, ...]:
    """Parameters with the intervals of those that were fitted; minimizer and result are lmfit's.

    A limit that the profile does not reach within the parameter's range is infinite. Known σ: χ² is not divided by
    its reduced value, as lmfit's own F test would.
    """
    return tuple(
        replace(one, intervals=_intervals(one.name, minimizer, result)) if one.how == "fitted" else one
        for one in parameters
    )


def _intervals(name: str, minimizer: Any, result: Any) -> tuple[Interval, ...]:
    profile = _Profile(name, minimizer, result)
    return tuple(Interval(level, profile.limit(-1, level), profile.limit(1, level)) for level in LEVELS)


class _Profile:
    """√(χ² − its least) against one parameter: nearly a straight line to either side."""

    def __init__(self, name: str, minimizer: Any, result: Any) -> None:
        self._name, self._minimizer, self._result = name, minimizer, result
        self._known: dict[float, float] = {}
        self._best, self._error = float(result.params[name].value), float(result.params[name].stderr)
        row = list(result.var_names).index(name)
        self._slopes = dict(zip(result.var_names, result.covar[row] / result.covar[row, row], strict=True))

    def __call__(self, value: float) -> float:
        """Refit with the parameter held; the others start where the covariance says."""
        if value not in self._known:
            held = self._result.params.copy()
            for name, slope in self._slopes.items():
                held[name].set(value=_before(held[name], slope * (value - self._best)))
            held[self._name].set(value=value, vary=False)
            self._known[value] = math.sqrt(max(self._least(held) - self._result.chisqr, 0.0))
        return self._known[value]

    def _least(self, held: Any) -> float:
        """χ² with the others, if there are any, at their best."""
        if len(self._slopes) > 1:
            return float(self._minimizer.leastsq(held, ftol=_ENOUGH, xtol=_ENOUGH).chisqr)
        residual = self._minimizer.userfcn(held)
        return float(residual @ residual)

    def limit(self, side: int, level: float) -> float:
        """Where it reaches a level on this side."""
        own = self._result.params[self._name]
        end = float(own.max if side > 0 else own.min)
        near, reach = self._best, level * self._error
        while reach <= _FARTHEST * self._error:
            far = self._best + side * reach
            far = min(far, end) if side > 0 else max(far, end)
            if self(far) >= level:
                return float(brentq(lambda value: self(value) - level, near, far, xtol=FINE * self._error))
            if far == end:
                break
            near, reach = far, 1.5 * reach
        return side * math.inf


def _before(parameter: Any, change: float) -> float:
    """Its value after a change, short of the end of its range: at σ_r = 0 the curve's slope in σ_r is 0."""
    value, room = float(parameter.value), float(parameter.max if change > 0 else parameter.min) - float(parameter.value)
    return value + (change if abs(change) < _MOST * abs(room) else _MOST * room)
