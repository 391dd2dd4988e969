"""Joint weighted fit of the kinetic model to a series of (c, r, s = σ_r²), with lmfit.

The absolute scale of c is one more parameter, with the stated uncertainty as its prior: as a column of the covariance
made from measured values it would pull the fit low (Peelle's puzzle). After a search for a start, a short
Levenberg–Marquardt fit with coarse steps of the solver, then Gauss–Newton with its own steps. What the fits of single
frames see of the distributions enters as the difference from their moments at the last point, and the values of the
frames are found linearly around the model there (see `apparent.one_step`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from saxs_pipeline.kinetic_config import UNITS, KineticModel
from saxs_pipeline.stages import degenerate
from saxs_pipeline.stages.kinetic_problem import Measured, Problem, Residual, descend, precise_jacobian, working_point
from saxs_pipeline.stages.kinetic_search import search
from saxs_pipeline.types import Floats, Uncertain

TOLERANCE = 1e-2
"""Relative change of χ² at which the coarse fit ends."""

POLISH, STOPPED, SETTLED, LONGEST = 20, 3, 0.03, 200.0
"""Steps of the fine fit at most, and in a row against a limit; in standard errors: the step that is the last, the
longest that is taken."""

PARTS = (1.0, 0.25, 0.06, 0.015)
"""Of a step of the fine fit that are tried, until one ends where the model can be simulated."""

MOST_EVALUATIONS = (40, 100)
"""Of the residuals by the coarse fit: first, and where that was not enough."""

MOST_FITS, ANOTHER, DISTINCT, AS_GOOD = 3, 0.3, 3.0, 9.0
"""Of D: fits that are tried; ln of the ratio from which on a start is another; standard errors between two fits, and
difference of their χ², that make them contradict each other."""

NOTHING = 1e6
"""Residual of every point where the model cannot be simulated or has no crystals."""

NO_CRYSTALS = "the model cannot be simulated, or has no crystals, at the times of the frames"


@dataclass(frozen=True, eq=False)
class KineticFit:
    """Parameters by symbol (p,) in SI, their covariance (p, p) in all, and their error from that of the scale.

    by_scale (p,): how far each moves when all c are too large by the scale's stated uncertainty; scale: measured c over
    the model's; chi2 includes its prior, and is NaN without crystals to compare; message: why a fit did not converge.
    Covariance and by_scale of such a fit are NaN: they hold at a minimum.
    """

    names: tuple[str, ...]
    values: Floats
    covariance: Floats
    by_scale: Floats
    scale: Uncertain
    chi2: float
    degrees: int
    converged: bool
    evaluations: int
    message: str

    @property
    def changes(self) -> dict[str, float]:
        """What `KineticModel.synthesis` takes."""
        return dict(zip(self.names, self.values.tolist(), strict=True))

    @property
    def statistical(self) -> Floats:
        """Covariance (p, p) from the noise, the shared background's included: all but the scale's part."""
        matrix: Floats = self.covariance - np.outer(self.by_scale, self.by_scale)
        return matrix

    @property
    def correlation(self) -> Floats:
        """Correlation matrix (p, p) with the scale free."""
        errors = np.sqrt(np.diagonal(self.covariance))
        matrix: Floats = self.covariance / errors / errors[:, None]
        return matrix


def fit_model(measured: Measured, model: KineticModel, names: Sequence[str]) -> KineticFit:
    """Fit the parameters `names` (symbols; none: only the scale) and the scale to the series; see the module.

    Raises BadInput for parameters that are unknown, play no part, cannot be told apart, or start outside the values a
    fit looks for, and for a series that has too few points or no positive definite covariance. A fit that does not
    converge says so in its message.
    """
    degenerate.check(names, model)
    problem = Problem(measured, model, tuple(names))
    if names:
        return _best(problem, search(problem))
    return _refined(problem, np.zeros(0)) if measured.scale_rel > 0 else _as_it_is(problem)


def _best(problem: Problem, starts: Sequence[Floats]) -> KineticFit:
    """The fit from the first start; with D among the parameters the best from all whose D is another.

    One that as good a fit contradicts has not converged.
    """
    fits = [_refined(problem, starts[0])]
    if "D" in problem.names:
        place = problem.names.index("D")
        known = [problem.values(starts[0])[place], fits[0].values[place]]
        for start in starts[1:]:
            value = problem.values(start)[place]
            if len(fits) < MOST_FITS and np.abs(np.log(value / known)).min() > ANOTHER:
                fits.append(_refined(problem, start))
                known += [value, fits[-1].values[place]]
    best, *others = sorted(fits, key=lambda fit: (not fit.converged, fit.chi2))
    for other in others if best.converged else ():
        if _contradict(best, other):
            return _doubted(best, other)
    return best


def _contradict(fit: KineticFit, other: KineticFit) -> bool:
    """Whether D is another in the other fit, which describes the series as well."""
    if not (other.converged and other.chi2 < fit.chi2 + AS_GOOD):
        return False
    place = fit.names.index("D")
    error = math.sqrt(fit.covariance[place, place] + other.covariance[place, place])
    return abs(float(fit.values[place] - other.values[place])) > DISTINCT * error


def _doubted(fit: KineticFit, other: KineticFit) -> KineticFit:
    """The fit without its errors, and what else D may be."""
    both = " and ".join(f"{one.changes['D']:.3g} m^2/s (χ² {one.chi2:.1f})" for one in (fit, other))
    return replace(
        fit,
        covariance=np.full_like(fit.covariance, np.nan),
        by_scale=np.full_like(fit.by_scale, np.nan),
        converged=False,
        message=f"the fit did not converge: two values of D describe the series, {both}; fix D",
    )


def _refined(problem: Problem, start: Floats) -> KineticFit:
    """A short coarse fit, to which the fine solver and the view are added as they are at its start; then the polish.

    Where the polish does not settle, once more from a longer coarse fit.
    """
    here, scale = start, 1.0
    for most in MOST_EVALUATIONS:
        fine = problem.fine(here)
        residual = _full(_around(fine * [scale, 1, 1], problem.measured), fine - problem.coarse(here))
        fit = descend(problem, here, scale, residual, tolerance=TOLERANCE, most=most)
        here, scale = working_point(problem, fit.params), float(fit.params["scale"].value)
        solution = _Solution(here, scale, _covariance(problem, fit), math.inf)
        solution = _polished(problem, solution) if start.size else solution._replace(moved=0.0)
        limits = _at_limits(problem, solution.working)
        if solution.moved < SETTLED or limits:
            break
        here, scale = solution.working, solution.scale
    chi2 = _chi2(problem, solution.working, solution.scale)
    return _result(problem, solution, chi2, _message(problem, solution, limits) if math.isfinite(chi2) else NO_CRYSTALS)


def _chi2(problem: Problem, working: Floats, scale: float) -> float:
    """χ² at a point with the solver's own steps, as the fits of single frames see it; NaN without crystals."""
    fine = problem.fine(working)
    if not np.isfinite(fine).all():
        return math.nan
    residuals = _full(_around(fine * [scale, 1, 1], problem.measured), np.zeros_like(fine))(fine, scale)
    return float(residuals @ residuals)


def _message(problem: Problem, solution: _Solution, limits: str) -> str:
    """Why the fit did not converge, "" if it did."""
    size = solution.working.size
    errors = np.sqrt(np.diagonal(solution.covariance)[:size])
    loose = [name for name, is_so in zip(problem.names, errors > problem.room(solution.working), strict=True) if is_so]
    if loose:
        return f"the fit did not converge: the series does not determine {', '.join(loose)}, whose error has no limit"
    if limits:
        return f"the fit did not converge: {limits}"
    if solution.moved < SETTLED:
        return ""
    return f"the fit did not converge: its last step was still {solution.moved:.2g} standard errors"


class _Solution(NamedTuple):
    """Working parameters (p,), scale, covariance of both (p + 1, p + 1), and the last step in standard errors."""

    working: Floats
    scale: float
    covariance: Floats
    moved: float


def _polished(problem: Problem, solution: _Solution) -> _Solution:
    """Gauss–Newton with the solver's own steps, until a step is below SETTLED standard errors.

    A and gamma lie in a valley in which χ² rises 3e-5 times as fast along as across: slopes of the coarse solver, right
    to 0.5 %, leave the fit a good part of a standard error from its floor.
    """
    here, scale, stopped = solution.working, solution.scale, 0
    plain = problem.precise(here)
    for _ in range(POLISH):
        fine = plain if problem.measured.seen is None else problem.fine(here)
        if not np.isfinite(fine).all():
            break
        residual = _full(_around(fine * [scale, 1, 1], problem.measured), fine - plain)
        at_point = residual(plain, scale)
        slopes = precise_jacobian(problem, here, plain, scale, residual)
        step, covariance = _newton(slopes, at_point, problem.room(here))
        full = np.zeros_like(solution.covariance)
        full[: step.size, : step.size] = covariance
        moved = float(np.max(np.abs(step) / np.sqrt(np.diagonal(covariance))))
        step *= min(1.0, LONGEST / moved) if moved > 0 else 1.0
        for part in PARTS:
            free = here + part * step[: here.size]
            there = np.clip(free, *problem.limits())
            plain = problem.precise(there)
            if np.isfinite(plain).all():
                break
        here, scale = there, scale + (part * step[-1] if step.size > here.size else 0.0)
        stopped = 0 if np.array_equal(here, free) else stopped + 1
        solution = _Solution(here, scale, full, moved)
        if moved < SETTLED or stopped == STOPPED:
            break
    return solution


def _newton(slopes: Floats, residuals: Floats, room: Floats) -> tuple[Floats, Floats]:
    """The step of Gauss–Newton (m,) and the covariance (m, m) of slopes (k, m) and residuals (k,).

    room (p,) of the first p: a parameter that could use all of it without a trace stays, with an infinite variance.
    """
    length = np.linalg.norm(slopes, axis=0)
    idle = np.append(length[: room.size] * room < 1, np.zeros(length.size - room.size, dtype=bool))
    length, scaled = np.where(idle, 1.0, length), np.where(idle, 0.0, slopes)
    scaled = scaled / length
    covariance = np.linalg.pinv(scaled.T @ scaled, hermitian=True) / length / length[:, None]
    step = -covariance @ (slopes.T @ residuals)
    covariance[idle, idle] = np.inf
    return step, covariance


def _around(fine: Floats, series: Measured) -> Measured:
    """The series with its values found linearly around the model, if that has crystals in every frame."""
    if series.linearised is None or not (np.isfinite(fine).all() and (fine[:, 0] > 0).all()):
        return series
    values, covariance = series.linearised(fine)
    return replace(series, values=values, covariance=covariance)


def _as_it_is(problem: Problem) -> KineticFit:
    """The comparison with nothing free."""
    chi2, none = _chi2(problem, np.zeros(0), 1.0), np.zeros((0, 0))
    message = "" if math.isfinite(chi2) else NO_CRYSTALS
    return KineticFit(
        names=(),
        values=np.zeros(0),
        covariance=none,
        by_scale=np.zeros(0),
        scale=Uncertain(1.0),
        chi2=chi2,
        degrees=problem.measured.values.size,
        converged=not message,
        evaluations=problem.evaluations,
        message=message,
    )


def _covariance(problem: Problem, fit: Any) -> Floats:
    """Covariance (p + 1, p + 1) of the working parameters and the scale, NaN where the fit gives none."""
    size = len(problem.names) + 1
    full = np.full((size, size), np.nan)
    if fit.errorbars:
        full = np.zeros((size, size))
        free = len(fit.var_names)
        full[:free, :free] = fit.covar
    return full


def _result(problem: Problem, solution: _Solution, chi2: float, message: str) -> KineticFit:
    here, scale, p = solution.working, solution.scale, solution.working.size
    variance = float(solution.covariance[p, p])
    covariance = np.full_like(solution.covariance, np.nan) if message else solution.covariance
    jacobian, rel = problem.per_working(here), problem.measured.scale_rel
    in_values = covariance[:p, :p] * jacobian * jacobian[:, None]
    # a parameter moves by cov(p, scale)/rel² with the prior's centre; c too large by rel is that centre too low by rel
    by_scale = -covariance[:p, p] * jacobian / rel if rel > 0 else np.zeros(p)
    return KineticFit(
        names=problem.names,
        values=problem.values(here),
        covariance=in_values,
        by_scale=by_scale,
        scale=Uncertain(scale, math.sqrt(variance) if math.isfinite(variance) else rel),
        chi2=chi2,
        degrees=problem.measured.values.size - p,
        converged=not message,
        evaluations=problem.evaluations,
        message=message,
    )


def _at_limits(problem: Problem, working: Floats) -> str:
    """Which parameters ended where they may not go further, "" if none."""
    low, high = problem.limits()
    room = 1e-4 * np.where(np.isfinite(high - low), high - low, 0.0)
    stopped = (working - low < room) | (high - working < room)
    values = problem.changes(working)
    return ", ".join(
        f"{name} stopped at the limit {values[name]:.4g} {UNITS[name]}".rstrip()
        for name, is_there in zip(problem.names, stopped.tolist(), strict=True)
        if is_there
    )


def _full(series: Measured, offset: Floats) -> Residual:
    """Residuals of the joint fit, (3k + 1,): the coarse model + offset against the series, and the scale's prior."""
    from scipy.linalg import solve_triangular

    cholesky, rel = np.linalg.cholesky(series.covariance), series.scale_rel
    added = np.where(np.isfinite(offset), offset, 0.0)

    def residual(coarse: Floats, scale: float) -> Floats:
        values = coarse + added
        values[:, 0] *= scale
        if not np.isfinite(values).all():
            return np.full(values.size + 1, NOTHING)
        prior = (scale - 1) / rel if rel > 0 else 0.0
        white = solve_triangular(cholesky, (values - series.values).ravel(), lower=True, check_finite=False)
        return np.append(white, prior)

    return residual
