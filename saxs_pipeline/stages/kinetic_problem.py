"""The kinetic model as a function of the parameters that a fit moves, beside the series it is compared with.

Positive parameters are moved as logarithms, but the surface energy as γ^(3/2). The concentration holds the speed of
the first growth, about A·S at the burst, where γ³/ln²S is nearly constant: ln A against γ^(3/2) is a straight line.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from saxs_pipeline.kinetic_config import LIMITS, UNITS, KineticModel
from saxs_pipeline.science.population import ETA, Development, at, simulate
from saxs_pipeline.types import BadInput, Floats

COARSE_ETA = 0.16
"""Step of the solver for the coarse fit: σ_r is then wrong by 1 %, which the fine solver takes out."""

ROUGH_ETA = 0.25
"""Step of the solver where only the best of several starts is wanted."""

LINEAR = frozenset({"n", "alpha", "T", "B"})
"""Symbols moved as they are; all others are positive."""

POWERS = {"gamma": 1.5}
"""λ of the working parameter ((x/x₀)^λ − 1)/λ of positive symbols, x₀ in the parameter file; 0, the logarithm."""

REACH = 30.0
"""Factor by which a positive symbol may leave the value of the parameter file."""

STEPS = {"n": 3e-4, "alpha": 3e-4, "T": 0.01, "B": 1e-13}
LOG_STEP = 3e-5
"""Steps of the differences that slopes are taken from: ten times larger ones bend the valley of A and gamma, along
which χ² rises 3e-5 times as fast as across; the simulation is smooth down to steps of 1e-6."""

WIDER = 10.0
"""Steps of central differences, whose error is the square of a small number, over those to one side."""


@dataclass(frozen=True, eq=False)
class Measured:
    """A measured series at time_s (k,) > 0, which increase.

    values (k, 3): c in µmol/L, r in nm, s = σ_r² in nm²; covariance (3k, 3k) of values.ravel(), statistical and shared;
    scale_rel: relative standard uncertainty of the factor all c have in common; seen: what the fits of single frames
    report at time_s of a simulated development (with sizes), (k, 3), None for its moments; linearised: values and
    covariance again, found linearly around a model (k, 3) (`apparent.one_step`), None where they are Gaussian as given.
    """

    time_s: Floats
    values: Floats
    covariance: Floats
    scale_rel: float
    seen: Callable[[Development], Floats] | None = None
    linearised: Callable[[Floats], tuple[Floats, Floats]] | None = None


class Problem:
    """The model as a function of the working parameters (p,): logarithms, powers (POWERS), or as they are (LINEAR)."""

    def __init__(self, measured: Measured, model: KineticModel, names: tuple[str, ...]) -> None:
        if measured.values.size <= len(names):
            raise BadInput(f"fit: {measured.time_s.size} frames are too few for {len(names)} parameters")
        try:
            np.linalg.cholesky(measured.covariance)
        except np.linalg.LinAlgError:
            raise BadInput("fit: the covariance of the series is not positive definite; has it errors?") from None
        for name in names:
            low, high = LIMITS.get(name, (0.0, math.inf))
            if not low <= model.value(name) <= high:
                where = f"{name} starts at {model.value(name):.4g} {UNITS[name]}".rstrip()
                raise BadInput(f"fit: {where}; start it between {low:g} and {high:g}")
        self.measured, self.model, self.names = measured, model, names
        self.is_linear = np.array([name in LINEAR for name in names], dtype=bool)
        self.given = np.array([model.value(name) for name in names])
        self.power = np.array([POWERS.get(name, 0.0) for name in names])
        self.evaluations = 0
        self._last: tuple[bytes | None, Floats] = (None, np.zeros(0))

    def start(self) -> Floats:
        """Working parameters (p,) of the values in the parameter file."""
        return self.working(self.given)

    def limits(self) -> tuple[Floats, Floats]:
        """Lowest and highest working parameters (p,): LIMITS, or REACH around the start."""
        given = np.array([LIMITS.get(name, (-math.inf, math.inf)) for name in self.names]).reshape(-1, 2).T
        low, high = np.where(self.is_linear, given, [self.given / REACH, self.given * REACH])
        return self.working(low), self.working(high)

    def room(self, working: Floats) -> Floats:
        """How far each may go altogether, from limit to limit, in working parameters at this point; (p,)."""
        low, high = np.array([LIMITS.get(name, (0.0, 0.0)) for name in self.names]).reshape(-1, 2).T
        per_log = self.values(working) / self.per_working(working)
        return np.where(self.is_linear, high - low, 2 * math.log(REACH) * per_log)

    def working(self, values: Floats) -> Floats:
        """Values in SI → working parameters, (p,)."""
        logs = np.log(np.where(self.is_linear, 1.0, values) / np.where(self.is_linear, 1.0, self.given))
        powers = np.where(self.power, self.power, 1.0)
        return np.where(self.is_linear, values, np.where(self.power, np.expm1(powers * logs) / powers, logs))

    def values(self, working: Floats) -> Floats:
        """Working parameters → values in SI, (p,)."""
        return np.where(self.is_linear, working, self.given * np.exp(self._logs(working)))

    def per_working(self, working: Floats) -> Floats:
        """dvalue/dworking (p,)."""
        return np.where(self.is_linear, 1.0, self.given * np.exp((1 - self.power) * self._logs(working)))

    def _logs(self, working: Floats) -> Floats:
        """ln(x/x₀) of the positive symbols, 0 for the others."""
        logs = np.where(self.power, np.log1p(self.power * working) / np.where(self.power, self.power, 1.0), working)
        return np.where(self.is_linear, 0.0, logs)

    def times(self, working: Floats, name: str, factor: float) -> Floats:
        """The working parameters (p,) with one value multiplied."""
        place = np.arange(working.size) == self.names.index(name)
        return self.working(self.values(working) * np.where(place, factor, 1.0))

    def changes(self, working: Floats) -> dict[str, float]:
        """Working parameters → what `synthesis` takes."""
        return dict(zip(self.names, self.values(working).tolist(), strict=True))

    def rough(self, working: Floats) -> Floats:
        """Moments (k, 3) good enough to choose a start."""
        return self._moments(self._develop(working, ROUGH_ETA, sizes=False))

    def coarse(self, working: Floats) -> Floats:
        """Moments (k, 3) with coarse steps; the last result is kept."""
        key = working.tobytes()
        if key != self._last[0]:
            self._last = key, self._moments(self._develop(working, COARSE_ETA, sizes=False))
        return self._last[1]

    def keep(self, working: Floats, moments: Floats) -> None:
        """Put back what was calculated before, after the neighbours that a slope needs."""
        self._last = working.tobytes(), moments

    def precise(self, working: Floats) -> Floats:
        """Moments (k, 3) with the solver's own steps."""
        return self._moments(self._develop(working, ETA, sizes=False))

    def fine(self, working: Floats) -> Floats:
        """(c, r, s) (k, 3) with the solver's own steps, as the fits of single frames see them."""
        seen = self.measured.seen
        development = self._develop(working, ETA, sizes=seen is not None)
        if seen is None or development is None:
            return self._moments(development)
        return seen(development)

    def _develop(self, working: Floats, eta: float, *, sizes: bool) -> Development | None:
        self.evaluations += 1
        try:
            synthesis = self.model.synthesis(self.changes(working))
            return simulate(synthesis, float(self.measured.time_s[-1]), eta=eta, sizes=sizes)
        except (BadInput, ArithmeticError):
            return None

    def _moments(self, development: Development | None) -> Floats:
        """Moments at the measured times; sizes before the first crystals are those of the first, NaN without any."""
        time = self.measured.time_s
        if development is None:
            return np.full((time.size, 3), np.nan)
        crystals = at(development, time).all
        values = np.stack([crystals.c_umol_L, crystals.radius_nm, crystals.sigma_nm**2], axis=1)
        there = np.isfinite(values[:, 1])
        if there.any():
            values[: np.argmax(there), 1:] = values[np.argmax(there), 1:]
        return values


Residual = Callable[[Floats, float], Floats]
"""Model (k, 3) and scale → residuals, the scale's own last."""


def descend(problem: Problem, start: Floats, scale: float, residual: Residual, *, tolerance: float, most: int) -> Any:
    """lmfit's result of minimising the residuals over the working parameters and the scale, from a start.

    tolerance: relative change of χ² at which it ends, for in a valley the parameters go on moving long after it; most:
    evaluations of the residuals.
    """
    from lmfit import Minimizer, Parameters

    parameters = Parameters()
    for name, value, low, high in zip(problem.names, start.tolist(), *problem.limits(), strict=True):
        parameters.add(name, value=value, min=low, max=high)
    vary = problem.measured.scale_rel > 0
    parameters.add("scale", value=scale or 1.0, vary=vary)

    def at_point(p: Any) -> Floats:
        return residual(problem.coarse(working_point(problem, p)), float(p["scale"].value))

    def slopes(p: Any) -> Floats:
        return _jacobian(problem, working_point(problem, p), float(p["scale"].value), residual, with_scale=vary)

    fit = Minimizer(at_point, parameters, scale_covar=False, max_nfev=most)
    return fit.leastsq(Dfun=slopes, ftol=tolerance, xtol=1e-7)


def working_point(problem: Problem, parameters: Any) -> Floats:
    """Working parameters (p,) in lmfit's parameters."""
    return np.array([parameters[name].value for name in problem.names])


def _jacobian(problem: Problem, working: Floats, scale: float, residual: Residual, *, with_scale: bool) -> Floats:
    """∂residual/∂(working parameters, scale) by differences, (m, p + 1), or (m, p) if the scale is fixed."""
    here = problem.coarse(working)
    columns = []
    for k, name in enumerate(problem.names):
        step = STEPS.get(name, LOG_STEP)
        shift = np.where(np.arange(working.size) == k, step, 0.0)
        up = problem.coarse(working + shift)
        columns.append((residual(up, scale) - residual(here, scale)) / step)
    if with_scale:
        columns.append((residual(here, scale + LOG_STEP) - residual(here, scale)) / LOG_STEP)
    problem.keep(working, here)
    return np.stack(columns, axis=-1)


def precise_jacobian(problem: Problem, working: Floats, here: Floats, scale: float, residual: Residual) -> Floats:
    """∂residual/∂(working parameters, scale) of the precise solver by central differences, (m, p + 1).

    here (k, 3): the moments at the working parameters. Without the column of the scale, (m, p), if that is fixed.
    """
    columns = []
    for k, name in enumerate(problem.names):
        step = WIDER * STEPS.get(name, LOG_STEP)
        shift = np.where(np.arange(working.size) == k, step, 0.0)
        up, down = (residual(problem.precise(working + side * shift), scale) for side in (1, -1))
        columns.append((up - down) / (2 * step))
    if problem.measured.scale_rel > 0:
        columns.append((residual(here, scale + LOG_STEP) - residual(here, scale)) / LOG_STEP)
    return np.stack(columns, axis=-1)
