"""Joint weighted fit of the kinetic model to a series of (c, r, s = σ_r²), with lmfit.

The absolute scale of c is one more parameter, with the stated uncertainty as its prior: as a column of the covariance
made from measured values it would pull the fit low (Peelle's puzzle). After a search for a start, rounds of
Levenberg–Marquardt with coarse steps of the solver; the fine solver, and what the fits of single frames see of its
distributions, enter as the difference from the coarse one at the last solution, until that no longer moves. From the
second round on the values of the frames are found linearly around the model (see `apparent.one_step`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from saxs_pipeline.kinetic_config import UNITS, KineticModel
from saxs_pipeline.stages import degenerate
from saxs_pipeline.stages.kinetic_problem import Measured, Problem, Residual, descend, working_point
from saxs_pipeline.stages.kinetic_search import search
from saxs_pipeline.types import Floats, Uncertain

ROUNDS = 6
MOVED = 0.1
"""Standard errors: a round that moves every parameter by less is the last; what is left is a tenth of that."""

TOLERANCE = 1e-5
"""Relative change of χ² at which a round ends."""

MOST_EVALUATIONS = 100

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
    """Rounds of fits with coarse steps, each with what the fine solver and the view add at the last solution."""
    here, scale, moved = start, 1.0, math.inf
    series = problem.measured
    for k in range(ROUNDS):
        fine = problem.fine(here)
        series = _around(fine * [scale, 1, 1], series) if k or not start.size else series
        fit = descend(
            problem, here, scale, _full(series, fine - problem.coarse(here)), tolerance=TOLERANCE, most=MOST_EVALUATIONS
        )
        there, scale = working_point(problem, fit.params), float(fit.params["scale"].value)
        covariance = _covariance(problem, fit)
        moved = float(np.max(np.abs(there - here) / np.sqrt(np.diagonal(covariance)[: there.size]), initial=0.0))
        here = there
        if moved < MOVED and (k or series.linearised is None):
            break
    message = ""
    if not fit.success or not moved < MOVED:
        message = f"the fit did not converge: {fit.message}"
    if limits := _at_limits(problem, fit):
        message = f"the fit did not converge: {limits}"
    if not np.isfinite(problem.fine(here)).all():
        message = NO_CRYSTALS
    return _result(problem, fit, here, covariance, message)


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


def _result(problem: Problem, fit: Any, here: Floats, covariance: Floats, message: str) -> KineticFit:
    p, scale = here.size, float(fit.params["scale"].value)
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
        chi2=math.nan if message == NO_CRYSTALS else float(fit.chisqr),
        degrees=problem.measured.values.size - p,
        converged=not message,
        evaluations=problem.evaluations,
        message=message,
    )


def _at_limits(problem: Problem, fit: Any) -> str:
    """Which parameters ended where they may not go further, "" if none."""
    found = []
    for name in problem.names:
        parameter = fit.params[name]
        room = 1e-4 * (parameter.max - parameter.min)
        if min(parameter.value - parameter.min, parameter.max - parameter.value) < room:
            value = problem.changes(working_point(problem, fit.params))[name]
            found.append(f"{name} stopped at the limit {value:.4g} {UNITS[name]}".rstrip())
    return ", ".join(found)


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
