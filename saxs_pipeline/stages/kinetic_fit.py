"""Joint weighted fit of the kinetic model to a series of (c, r, s = σ_r²).

The parameters that are positive are fitted as logarithms. The absolute scale of c is one more parameter, with the
stated uncertainty as its prior: as a column of the covariance made from measured values it would pull the fit low
(Peelle's puzzle). First a search with coarse steps of the solver, from starts that may be off by a factor of three,
then Levenberg–Marquardt; the fine solver, and what the fits of single frames see of its distributions, enter as the
difference from the coarse one at the solution, until that no longer moves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from saxs_pipeline.kinetic_config import KineticModel
from saxs_pipeline.science.population import ETA, Development, at, simulate
from saxs_pipeline.science.quantities import mean_volume
from saxs_pipeline.stages import degenerate
from saxs_pipeline.types import BadInput, Floats, Uncertain

COARSE_ETA = 0.1
"""Step of the solver while the parameters move: σ_r is then wrong by 0.5 %, which the last rounds take out."""
ROUGH_ETA = 0.25

LINEAR = frozenset({"n", "alpha", "T"})
"""Symbols fitted as they are; all others are positive and fitted as logarithms."""

BOUNDS = {"n": (-2.0, 12.0), "alpha": (0.0, 1.0)}
STEPS = {"n": 1e-3, "alpha": 1e-3, "T": 0.1}
_LOG_STEP = 3e-4
ROUNDS = 6
REACH = math.log(30)
"""How far a logarithm may go from where it starts."""
LADDERS = {"gamma": (0.4, 0.5, 0.62, 0.75, 0.88, 1.0, 1.15, 1.35, 1.6, 2.0, 2.5), "A": (0.33, 1.0, 3.0)}
SLACK = np.array([0.02, 0.005, 0.02])
"""Differences of ln c, ln r and ln σ_r smaller than this do not matter to the search."""
CLEAR = 4.0
"""Standard errors from which on a value takes part in the search."""
ABSENT = math.log(1e3)
MOST_EVALUATIONS = 100
MOVED = 0.1
"""Standard errors: a round that moves every parameter by less is the last; what is left is a tenth of that."""
NO_CRYSTALS = "the model cannot be simulated, or has no crystals, at the times of the frames"
NOTHING = 1e6
"""Residual of every point where the model cannot be simulated or has no crystals."""


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


@dataclass(frozen=True, eq=False)
class KineticFit:
    """Parameters by symbol (p,) in SI, their covariances (p, p): with the scale free, and at the scale's best value.

    scale: measured c over the model's; chi2 includes its prior; message: why a fit did not converge.
    """

    names: tuple[str, ...]
    values: Floats
    covariance: Floats
    statistical: Floats
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
    problem = _Problem(measured, model, tuple(names))
    if names:
        return _refined(problem, search(problem))
    return _refined(problem, np.zeros(0)) if measured.scale_rel > 0 else _as_it_is(problem)


def _refined(problem: _Problem, start: Floats) -> KineticFit:
    """Rounds of fits with coarse steps, each with what the fine solver and the view add at the last solution."""
    here, scale, moved = start, 1.0, math.inf
    series = problem.measured
    for k in range(ROUNDS):
        fine = problem.fine(here)
        series = _around(fine * [scale, 1, 1], series) if k or not start.size else series
        fit = _descend(problem, here, scale, _full(series, fine - problem.coarse(here)), 1e-5)
        there, scale = _working(problem, fit.params), float(fit.params["scale"].value)
        covariance = _covariance(problem, fit)
        moved = float(np.max(np.abs(there - here) / np.sqrt(np.diagonal(covariance)[: there.size]), initial=0.0))
        here = there
        if moved < MOVED and (k or series.linearised is None):
            break
    message = ""
    if not fit.success or not moved < MOVED:
        message = f"the fit did not converge: {fit.message}"
    if not np.isfinite(fine).all():
        message = NO_CRYSTALS
    return _result(problem, fit, here, covariance, message)


def _around(fine: Floats, series: Measured) -> Measured:
    """The series with its values found linearly around the model, if that has crystals in every frame."""
    if series.linearised is None or not (np.isfinite(fine).all() and (fine[:, 0] > 0).all()):
        return series
    values, covariance = series.linearised(fine)
    return replace(series, values=values, covariance=covariance)


def _as_it_is(problem: _Problem) -> KineticFit:
    """The comparison with nothing free."""
    fine, none = problem.fine(np.zeros(0)), np.zeros((0, 0))
    chi2 = float(np.sum(_full(_around(fine, problem.measured), np.zeros_like(fine))(fine, 1.0) ** 2))
    message = "" if np.isfinite(fine).all() else NO_CRYSTALS
    return KineticFit(
        names=(),
        values=np.zeros(0),
        covariance=none,
        statistical=none,
        scale=Uncertain(1.0),
        chi2=chi2,
        degrees=fine.size,
        converged=not message,
        evaluations=problem.evaluations,
        message=message,
    )


def _covariance(problem: _Problem, fit: Any) -> Floats:
    """Covariance (p + 1, p + 1) of the working parameters and the scale, NaN where the fit gives none."""
    size = len(problem.names) + 1
    full = np.full((size, size), np.nan)
    if fit.errorbars:
        full = np.zeros((size, size))
        free = len(fit.var_names)
        full[:free, :free] = fit.covar
    return full


def _result(problem: _Problem, fit: Any, here: Floats, covariance: Floats, message: str) -> KineticFit:
    p, scale = here.size, float(fit.params["scale"].value)
    jacobian = problem.per_working(here)
    in_values = covariance[:p, :p] * jacobian * jacobian[:, None]
    given_scale = in_values
    if covariance[p, p] > 0:
        column = covariance[:p, p] * jacobian
        given_scale = in_values - np.outer(column, column) / covariance[p, p]
    return KineticFit(
        names=problem.names,
        values=problem.values(here),
        covariance=in_values,
        statistical=given_scale,
        scale=Uncertain(scale, math.sqrt(covariance[p, p])),
        chi2=float(fit.chisqr),
        degrees=problem.measured.values.size - p,
        converged=not message,
        evaluations=problem.evaluations,
        message=message,
    )


class _Problem:
    """The model as a function of the working parameters (p,): logarithms, or as they are (LINEAR)."""

    def __init__(self, measured: Measured, model: KineticModel, names: tuple[str, ...]) -> None:
        if measured.values.size <= len(names):
            raise BadInput(f"fit: {measured.time_s.size} frames are too few for {len(names)} parameters")
        try:
            np.linalg.cholesky(measured.covariance)
        except np.linalg.LinAlgError:
            raise BadInput("fit: the covariance of the series is not positive definite; has it errors?") from None
        self.measured, self.model, self.names = measured, model, names
        self.is_log = np.array([name not in LINEAR for name in names], dtype=bool)
        self.evaluations = 0
        self._last: tuple[bytes | None, Floats] = (None, np.zeros(0))

    def start(self) -> Floats:
        """Working parameters (p,) of the values in the parameter file."""
        return self.working([self.model.value(name) for name in self.names])

    def working(self, values: Sequence[float]) -> Floats:
        """Values in SI → working parameters."""
        given = np.asarray(values, dtype=float)
        return np.asarray(np.where(self.is_log, np.log(np.where(self.is_log, given, 1.0)), given))

    def values(self, working: Floats) -> Floats:
        """Working parameters → values in SI."""
        return np.where(self.is_log, np.exp(np.where(self.is_log, working, 0.0)), working)

    def per_working(self, working: Floats) -> Floats:
        """dvalue/dworking (p,)."""
        return np.where(self.is_log, self.values(working), 1.0)

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


def _descend(problem: _Problem, start: Floats, scale: float, residual: Residual, tolerance: float) -> Any:
    """lmfit's result of minimising the residuals over the working parameters and the scale, from a start."""
    from lmfit import Minimizer, Parameters

    parameters = Parameters()
    for name, value, is_log in zip(problem.names, start.tolist(), problem.is_log.tolist(), strict=True):
        low, high = (value - REACH, value + REACH) if is_log else BOUNDS.get(name, (-math.inf, math.inf))
        parameters.add(name, value=value, min=low, max=high)
    vary = problem.measured.scale_rel > 0
    parameters.add("scale", value=scale or 1.0, vary=vary)

    def at_point(p: Any) -> Floats:
        return residual(problem.coarse(_working(problem, p)), float(p["scale"].value))

    def slopes(p: Any) -> Floats:
        return _jacobian(problem, _working(problem, p), float(p["scale"].value), residual, with_scale=vary)

    fit = Minimizer(at_point, parameters, scale_covar=False, max_nfev=MOST_EVALUATIONS)
    return fit.leastsq(Dfun=slopes, ftol=tolerance, xtol=tolerance)


def _working(problem: _Problem, parameters: Any) -> Floats:
    return np.array([parameters[name].value for name in problem.names])


def _jacobian(problem: _Problem, working: Floats, scale: float, residual: Residual, *, with_scale: bool) -> Floats:
    """∂residual/∂(working parameters, scale) by differences, (m, p + 1), or (m, p) if the scale is fixed."""
    here = problem.coarse(working)
    columns = []
    for k, name in enumerate(problem.names):
        step = STEPS.get(name, _LOG_STEP)
        shift = np.where(np.arange(working.size) == k, step, 0.0)
        up = problem.coarse(working + shift)
        columns.append((residual(up, scale) - residual(here, scale)) / step)
    if with_scale:
        columns.append((residual(here, scale + _LOG_STEP) - residual(here, scale)) / _LOG_STEP)
    problem.keep(working, here)
    return np.stack(columns, axis=-1)


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


# --- search for a start ----------------------------------------------------------------------------------------------


def search(problem: _Problem) -> Floats:
    """Working parameters (p,) near enough to the solution for Levenberg–Marquardt, from those of the parameter file.

    The generation of monomers follows from those found in crystals, without a simulation. Of a lattice of nucleation
    and growth parameters around the start the best is refined on the logarithms of c, r and σ_r, in which the model
    is far less curved than in their values.
    """
    generated = _generation(problem, problem.start())
    residual = _logarithmic(problem)
    candidates = _lattice(problem, generated)
    costs = [float(np.sum(residual(problem.rough(point), 1.0) ** 2)) for point in candidates]
    best = candidates[int(np.argmin(costs))]
    fit = _descend(problem, best, 1.0, residual, 1e-2)
    return _working(problem, fit.params)


def _lattice(problem: _Problem, start: Floats) -> list[Floats]:
    """The start with its surface energy and adsorption rate times the factors of LADDERS."""
    points = [start]
    for name, factors in LADDERS.items():
        if name in problem.names:
            place = np.arange(start.size) == problem.names.index(name)
            points = [point + math.log(factor) * place for point in points for factor in factors]
    return points


def _generation(problem: _Problem, start: Floats) -> Floats:
    """The start with the rate constant of the conversion that best explains the monomers found in crystals."""
    rates = [k for k, name in enumerate(problem.names) if name in ("k1", "k2")]
    if not rates:
        return start
    measured, place = problem.measured, np.arange(start.size) == rates[0]
    c, radius, variance = measured.values.T
    volume = problem.model.synthesis({}).monomer_volume_m3
    found = 1e-30 * c * mean_volume(radius, variance) / volume
    rel = max(measured.scale_rel, 1e-3)
    trials: list[Floats] = [start + shift * place for shift in np.linspace(-math.log(30), math.log(30), 171)]
    costs: list[float] = []
    for trial in trials:
        formed = problem.model.synthesis(problem.changes(trial)).conversion.formed(measured.time_s)
        weight = 1 / (0.05 * found.max()) ** 2
        factor = (weight * formed @ found + rel**-2) / (weight * formed @ formed + rel**-2)
        costs.append(float(weight * np.sum((found - factor * formed) ** 2) + ((factor - 1) / rel) ** 2))
    return trials[int(np.argmin(costs))]


def _logarithmic(problem: _Problem) -> Residual:
    """Residuals (3k + 1,) of ln c, ln r and ln σ_r in their errors, those taken as no smaller than SLACK.

    Only of values well above their errors: the logarithm of a noisy value is biased.
    """
    measured, half = problem.measured, np.array([1, 1, 0.5])
    errors = np.sqrt(np.diagonal(measured.covariance).reshape(-1, 3))
    clear = measured.values > CLEAR * errors
    values = np.where(clear, measured.values, 1.0)
    weights = np.where(clear, 1 / np.hypot(errors / values * half, SLACK), 0.0)
    prior = 1 / measured.scale_rel if measured.scale_rel > 0 else 0.0

    def residual(coarse: Floats, scale: float) -> Floats:
        there = coarse > 0
        ratio = np.where(there, np.log(np.where(there, coarse, 1.0) / values), -ABSENT) * half
        ratio[:, 0] += math.log(max(scale, 1e-3))
        return np.asarray(np.append((ratio * weights).ravel(), (scale - 1) * prior))

    return residual
