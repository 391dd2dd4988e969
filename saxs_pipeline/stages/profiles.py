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

LOWER = 0.01
"""By how much χ² may be lower elsewhere before that is said."""

_ENOUGH = 1e-9
"""Relative change of χ² and of the parameters at which a refit ends."""

_MOST = 0.7
"""Of the way to the end of its range that a parameter is moved for the start of a refit."""

_FARTHEST = 1e3
"""Standard errors beyond which no limit is looked for."""


def added(
    parameters: Sequence[FitParameter], minimizer: Any, result: Any
) -> tuple[tuple[FitParameter, ...], tuple[str, ...]]:
    """Parameters with the intervals of those that were fitted, and notes; minimizer and result are lmfit's.

    A limit that the profile does not reach within the parameter's range is infinite. Known σ: χ² is not divided by
    its reduced value, as lmfit's own F test would. A χ² below that of the fit, met on the way, is noted.
    """
    profiles = {one.name: _Profile(one.name, minimizer, result) for one in parameters if one.how == "fitted"}
    found = tuple(replace(one, intervals=_intervals(profiles.get(one.name))) for one in parameters)
    lowest = min(profiles.values(), key=lambda profile: profile.lowest[0], default=None)
    return found, () if lowest is None or lowest.lowest[0] > -LOWER else (lowest.doubt,)


def _intervals(profile: _Profile | None) -> tuple[Interval, ...]:
    if profile is None:
        return ()
    return tuple(Interval(level, profile.limit(-1, level), profile.limit(1, level)) for level in LEVELS)


class _Profile:
    """√(χ² − its least) against one parameter: nearly a straight line to either side."""

    def __init__(self, name: str, minimizer: Any, result: Any) -> None:
        self._name, self._minimizer, self._result = name, minimizer, result
        self._known: dict[float, float] = {}
        self.lowest = 0.0, math.nan
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
            risen = self._least(held) - float(self._result.chisqr)
            self.lowest = min(self.lowest, (risen, value))
            self._known[value] = math.sqrt(max(risen, 0.0))
        return self._known[value]

    @property
    def doubt(self) -> str:
        """That the fit has not found the least χ²."""
        fallen, value = self.lowest
        return (
            f"{self._name} {value:.4g}: χ² is lower there by {-fallen:.2g}, so that the fit is not the best one; "
            "narrow the ranges around it and fit again"
        )

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
