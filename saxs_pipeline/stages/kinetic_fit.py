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

POLISH, SETTLED, LONGEST = 20, 0.03, 200.0
"""Steps of the fine fit at most, and in standard errors: the step that is the last, the longest that is taken."""

MOST_EVALUATIONS = (40, 100)
"""Of the residuals by the coarse fit: first, and where that was not enough."""

NOTHING = 1e6
"""Residual of every point where the model cannot be simulated or has no crystals."""

NO_CRYSTALS = "the model cannot be simulated, or has no crystals, at the times of the frames"


@dataclass(frozen=True, eq=False)
class KineticFit:
    """Parameters by symbol (p,) in SI, their covariance (p, p) in all, and their error from that of the scale.

    by_scale (p,): how far each moves when all c are too large by the scale's stated uncertainty; scale: measured c over
    the model's; chi2 includes its prior, and is NaN without crystals to compare; message: why a fit did not converge.
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

    Raises BadInput for parameters that are unknown or cannot be told apart, and for a series that has too few points
    or no positive definite covariance. A fit that does not converge says so in its message.
    """
    degenerate.check(names, model)
    problem = Problem(measured, model, tuple(names))
    if names:
        return _refined(problem, search(problem))
    return _refined(problem, np.zeros(0)) if measured.scale_rel > 0 else _as_it_is(problem)


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
        solution = _Solution(here, scale, _covariance(problem, fit), float(fit.chisqr), math.inf)
        solution = _polished(problem, solution) if start.size else solution._replace(moved=0.0)
        limits = _at_limits(problem, solution.working)
        if solution.moved < SETTLED or limits:
            break
        here, scale = solution.working, solution.scale
    return _result(problem, solution, _message(problem, solution, limits))


def _message(problem: Problem, solution: _Solution, limits: str) -> str:
    """Why the fit did not converge, "" if it did."""
    if not np.isfinite(problem.fine(solution.working)).all():
        return NO_CRYSTALS
    if limits:
        return f"the fit did not converge: {limits}"
    if solution.moved < SETTLED:
        return ""
    return f"the fit did not converge: its last step was still {solution.moved:.2g} standard errors"


class _Solution(NamedTuple):
    """Working parameters (p,), scale, covariance of both (p + 1, p + 1), χ², and the last step in standard errors."""

    working: Floats
    scale: float
    covariance: Floats
    chi2: float
    moved: float


def _polished(problem: Problem, solution: _Solution) -> _Solution:
    """Gauss–Newton with the solver's own steps, until a step is below SETTLED standard errors.

    A and gamma lie in a valley in which χ² rises 3e-5 times as fast along as across: slopes of the coarse solver, right
    to 0.5 %, leave the fit a good part of a standard error from its floor.
    """
    here, scale = solution.working, solution.scale
    for _ in range(POLISH):
        plain = problem.precise(here)
        fine = plain if problem.measured.seen is None else problem.fine(here)
        if not np.isfinite(fine).all():
            break
        residual = _full(_around(fine * [scale, 1, 1], problem.measured), fine - plain)
        at_point = residual(plain, scale)
        slopes = precise_jacobian(problem, here, plain, scale, residual)
        length = np.linalg.norm(slopes, axis=0)
        covariance = np.linalg.pinv((slopes / length).T @ (slopes / length), hermitian=True) / length / length[:, None]
        step = -covariance @ (slopes.T @ at_point)
        full = np.zeros_like(solution.covariance)
        full[: step.size, : step.size] = covariance
        moved = float(np.max(np.abs(step) / np.sqrt(np.diagonal(covariance))))
        step *= min(1.0, LONGEST / moved)
        here = np.clip(here + step[: here.size], *problem.limits())
        scale = scale + (step[-1] if step.size > here.size else 0.0)
        predicted = at_point + slopes @ step
        solution = _Solution(here, scale, full, float(predicted @ predicted), moved)
        if moved < SETTLED:
            break
    return solution


def _around(fine: Floats, series: Measured) -> Measured:
    """The series with its values found linearly around the model, if that has crystals in every frame."""
    if series.linearised is None or not (np.isfinite(fine).all() and (fine[:, 0] > 0).all()):
        return series
    values, covariance = series.linearised(fine)
    return replace(series, values=values, covariance=covariance)


def _as_it_is(problem: Problem) -> KineticFit:
    """The comparison with nothing free."""
    fine, none = problem.fine(np.zeros(0)), np.zeros((0, 0))
    chi2 = float(np.sum(_full(_around(fine, problem.measured), np.zeros_like(fine))(fine, 1.0) ** 2))
    message = "" if np.isfinite(fine).all() else NO_CRYSTALS
    return KineticFit(
        names=(),
        values=np.zeros(0),
        covariance=none,
        by_scale=np.zeros(0),
        scale=Uncertain(1.0),
        chi2=chi2,
        degrees=fine.size,
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


def _result(problem: Problem, solution: _Solution, message: str) -> KineticFit:
    here, scale, covariance = solution.working, solution.scale, solution.covariance
    p = here.size
    jacobian, rel = problem.per_working(here), problem.measured.scale_rel
    in_values = covariance[:p, :p] * jacobian * jacobian[:, None]
    # a parameter moves by cov(p, scale)/rel² with the prior's centre; c too large by rel is that centre too low by rel
    by_scale = -covariance[:p, p] * jacobian / rel if rel > 0 else np.zeros(p)
    return KineticFit(
        names=problem.names,
        values=problem.values(here),
        covariance=in_values,
        by_scale=by_scale,
        scale=Uncertain(scale, math.sqrt(covariance[p, p])),
        chi2=math.nan if message == NO_CRYSTALS else solution.chi2,
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
