"""One curve in depth, with lmfit: values, covariance, profiles of χ², Monte Carlo.

The batched fit finds the minimum among many starts; lmfit goes on from there in the parameters that people quote, σ_r
itself in place of its square, with their ranges and ties. Errors are from the σ of the points, never scaled by χ².
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from saxs_pipeline.curve_fit import CurveFit, FitParameter
from saxs_pipeline.model_spec import ModelSpec
from saxs_pipeline.science.batchfit import BatchFit
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.science.joint import CurveErrors, factor_covariance
from saxs_pipeline.science.limits import at_limit, beyond
from saxs_pipeline.stages import fit_start, posterior, profiles
from saxs_pipeline.stages.fit import POOR
from saxs_pipeline.types import BadInput, Bools, Curves, Floats, Uncertain

TOLERANCE = 1e-12
"""Relative change of χ² and of the parameters at which lmfit ends."""

SAME = 0.01
"""Standard errors by which lmfit and the batched fit may differ before that is said."""

AT_LIMIT = "held at an end of its range"
"""How an exponent or a volume fraction was found that the curve does not tell, or that lies beyond its range."""

_KEYS = {"exponent": "power_law", "volume_fraction": "structure_factor.volume_fraction"}
_OTHER_NAMES = ("background", "power_law", "exponent", "volume_fraction")


class Recorded(NamedTuple):
    """What a run recorded for this frame: values (p,) and covariance (p, p) in the order of its model's columns."""

    values: Floats
    covariance: Floats


@dataclass(eq=False)
class Problem:
    """A model beside the points (m,) that are fitted; start (p,) in the order of the model's columns.

    absolute: whether c is a concentration; else it is what I per ⟨P⟩ is.
    """

    model: CurveModel
    q_nm: Floats
    intensity: Floats
    sigma: Floats
    start: Floats
    free: Bools
    absolute: bool
    _kept: tuple[Floats, Floats] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each column: c_nc, radius, sigma, with the population's in front of them where there are two …"""
        model, c = self.model, "c_nc" if self.absolute else "amplitude"
        found = {
            place: f"{prefix}{name}"
            for k, prefix in enumerate(model.prefixes)
            for place, name in zip(model.places(k), (c, "radius", "sigma"), strict=True)
        }
        others = [place for place in range(len(model.columns)) if place not in found]
        found |= dict(zip(others, _OTHER_NAMES if model.power_law else ("background", "volume_fraction"), strict=False))
        return tuple(found[place] for place in range(len(model.columns)))

    @property
    def widths(self) -> Bools:
        """Which columns hold s = σ_r², whose parameter is σ_r, (p,)."""
        found = np.zeros(len(self.model.columns), dtype=bool)
        found[[self.model.places(k)[2] for k in range(len(self.model.populations))]] = True
        return found

    @property
    def limits(self) -> list[tuple[float, float]]:
        """Accepted range of each parameter; a linear one has none."""
        found = [(-math.inf, math.inf)] * len(self.model.columns)
        for place, low, high in zip(self.model.nonlinear, *self.model.limits, strict=True):
            found[place] = (0.0, math.sqrt(high)) if self.widths[place] else (float(low), float(high))
        return found

    def parameters(self) -> Any:
        """lmfit's parameters at the start; a width whose s is not positive is held at 0, where χ² is least."""
        from lmfit import Parameters

        found, tied = Parameters(), dict(self.model.tied)
        columns = zip(self.names, self.start, self.free, self.widths, self.limits, strict=True)
        for name, value, free, width, (low, high) in columns:
            if name in tied:
                continue
            at = math.sqrt(max(value, 0.0)) if width else float(value)
            if free and not (width and at == 0):
                found.add(name, value=at, min=low, max=high)
            else:
                found.add(name, value=at, vary=False)
        for name, expression in tied.items():
            found.add(name, expr=expression)
        return found

    def values(self, parameters: Any) -> Floats:
        """The model's values (1, p), s in place of σ_r."""
        found = np.array([float(parameters[name].value) for name in self.names])
        return np.where(self.widths, found**2, found)[None]

    def residual(self, parameters: Any) -> Floats:
        """(I − model)/σ, (m,)."""
        values, model = self.values(parameters), self.model
        columns = self._columns(values)
        linear = list(model.linear)
        curve = np.einsum("k,km->m", values[0, linear], columns[linear]) + (model.constant or 0.0)
        return np.asarray((self.intensity - curve) / self.sigma)

    def jacobian(self, parameters: Any) -> Floats:
        """∂residual/∂(parameters that vary), (m, f)."""
        names = [name for name in parameters if parameters[name].vary]
        return np.asarray(-self.slopes(self._columns(self.values(parameters)), parameters, names) / self.sigma[:, None])

    def _columns(self, values: Floats) -> Floats:
        """∂I/∂(values), (p, m), at the fitted points; kept, since residuals and slopes are asked for together."""
        if self._kept is None or not np.array_equal(self._kept[0], values):
            self._kept = values, self.columns(self.q_nm, values)
        return self._kept[1]

    def columns(self, q_nm: Floats, values: Floats) -> Floats:
        """∂I/∂(values), (p, m)."""
        return np.asarray(self.model.design(q_nm, values, self.free[None]).columns[0])

    def slopes(self, columns: Floats, parameters: Any, names: Sequence[str]) -> Floats:
        """∂I/∂(parameters of these names), (m, f), from those by the values; those tied to them follow."""
        values = self.values(parameters)
        inner = np.ones(len(self.names))
        inner[self.widths] = 2 * np.sqrt(values[0, self.widths])  # ∂s/∂σ
        places = [self.names.index(name) for name in names]
        return np.asarray((inner[places, None] * columns[places]).T)


def fit_curve(
    curve: Curves,
    window: Bools,
    spec: ModelSpec,
    *,
    source: str = "",
    absolute: bool = True,
    systematic_rel: Sequence[float] = (),
    recorded: Recorded | None = None,
    profiled: bool = True,
    steps: int | None = None,
) -> CurveFit:
    """Fit one curve (a single row) at the q where `window` (m,) is True.

    systematic_rel: relative systematic uncertainty of each population's c, scale and contrast; recorded: shown beside
    what is found here; profiled: with intervals; steps: of Monte Carlo, None for none. Of two populations, one that is
    not there (see `fit.drop_missing`) is left out, and one whose size no fit tells is held. Raises BadInput where the
    points do not determine the parameters, or the fit ends outside their ranges.
    """
    if steps is not None:
        posterior.check_installed()
    whole = CurveModel.of(spec)
    model, number, batch, notes = fit_start.found(curve, window, whole, recorded and recorded.values)
    if number is not None:
        kept = whole.columns_of(model, number)
        some = batch.values[:, kept], _block(batch.covariance, kept), batch.free[:, kept]
        batch = replace(batch, values=some[0], covariance=some[1], free=some[2])
        systematic_rel = systematic_rel[number : number + 1]
        recorded = recorded and Recorded(recorded.values[kept], _block(recorded.covariance, kept))
    problem = _problem(curve, window, model, batch, absolute=absolute)
    minimizer, result = _minimised(problem)
    fit = _collected(curve, window, problem, result)
    notes += _limits_reached(curve, window, problem, batch)
    parameters = _with_systematic(fit, problem, result, systematic_rel)
    parameters = _beside(_with_limits(parameters, problem, batch), problem, recorded)
    parameters, lower = profiles.added(parameters, minimizer, result) if profiled else (parameters, ())
    chain = None if steps is None else posterior.sampled(problem.residual, result, parameters, steps)
    fit = replace(fit, source=source, parameters=_in_order(parameters, model), chain=chain)
    return replace(fit, notes=(*notes, *lower, *_doubts(fit)))


def _block(matrix: Floats, kept: list[int]) -> Floats:
    """Rows and columns of matrices (…, p, p) that are kept."""
    return matrix[..., kept, :][..., kept]


# --- start -----------------------------------------------------------------------------------------------------------


def _problem(curve: Curves, window: Bools, model: CurveModel, batch: BatchFit, *, absolute: bool) -> Problem:
    intensity, sigma = curve.intensity[0], curve.sigma[0]
    used = window & np.isfinite(intensity) & np.isfinite(sigma) & (sigma > 0)
    return Problem(model, curve.q_nm[used], intensity[used], sigma[used], batch.values[0], batch.free[0], absolute)


def _minimised(problem: Problem) -> tuple[Any, Any]:
    """lmfit's minimizer, whose further fits have the same settings, and its result."""
    from lmfit import Minimizer

    minimizer = Minimizer(
        problem.residual,
        problem.parameters(),
        scale_covar=False,
        Dfun=problem.jacobian,
        ftol=TOLERANCE,
        xtol=TOLERANCE,
    )
    result = minimizer.leastsq()
    if not result.errorbars:
        raise BadInput(
            "the points do not determine all parameters of the model; hold one under model.fixed, or tie it to another"
        )
    return minimizer, result


# --- what was found --------------------------------------------------------------------------------------------------


def _collected(curve: Curves, window: Bools, problem: Problem, result: Any) -> CurveFit:
    model, q = problem.model, curve.q_nm[window]
    values = problem.values(result.params)
    names = tuple(result.var_names)
    slopes = problem.slopes(problem.columns(q, values), result.params, names)
    band = np.sqrt(np.einsum("mi,ij,mj->m", slopes, result.covar, slopes))
    terms, _ = model.basis(q, np.ascontiguousarray(values[:, model.nonlinear].T))
    labels = [one.name or "spheres" for one in model.populations] + ["power law"] * (model.power_law is not None)
    parts = [values[0, place] * term[0] for place, term in zip(model.linear, terms, strict=False)]
    labels, parts = [*labels, "constant"], [*parts, np.full(len(q), values[0, 3])]
    return CurveFit(
        source="",
        curve=curve,
        window=window,
        model=model.spec,
        absolute=problem.absolute,
        parameters=_parameters(curve, problem, result),
        names=names,
        covariance=np.asarray(result.covar),
        chi2=float(result.chisqr),
        n_points=len(problem.q_nm),
        degrees=len(problem.q_nm) - len(names),
        fitted=_everywhere(model.curve(q, values)[0], window),
        band=_everywhere(band, window),
        parts=tuple((label, _everywhere(part, window)) for label, part in zip(labels, parts, strict=True)),
    )


def _everywhere(inside: Floats, window: Bools) -> Floats:
    full = np.full(len(window), np.nan)
    full[window] = inside
    return full


def _parameters(curve: Curves, problem: Problem, result: Any) -> tuple[FitParameter, ...]:
    tied, found = dict(problem.model.tied), []
    reached = [
        name for name, held in at_limit(problem.model, problem.start[None], problem.free[None]).items() if held[0]
    ]
    for name, limits in zip(problem.names, problem.limits, strict=True):
        one = result.params[name]
        how = "fitted" if one.vary else f"tied: {tied[name]}" if name in tied else "fixed"
        how = AT_LIMIT if name in reached else how
        error = math.nan if one.stderr is None or not (one.vary or name in tied) else float(one.stderr)
        found.append(FitParameter(name, _unit(name, curve.unit), float(one.value), error, how, limits))
    return tuple(found)


def _unit(name: str, of_curve: str) -> str:
    units = {
        "c_nc": "µmol/L",
        "amplitude": f"{of_curve}/nm^6",
        "radius": "nm",
        "sigma": "nm",
        "background": of_curve,
        "power_law": of_curve,  # of the term at q = 1/nm
    }
    return next((unit for end, unit in units.items() if name.endswith(end)), "")


def _with_systematic(
    fit: CurveFit, problem: Problem, result: Any, relative_of_c: Sequence[float]
) -> tuple[FitParameter, ...]:
    """Parameters with what moves the whole curve: the scale, the contrast, its own factor, the background's factor."""
    values, widths = problem.values(result.params)[0], problem.widths
    errors = CurveErrors.of(fit.curve, np.ones(1, dtype=bool), fit.window)
    variance = np.diagonal(factor_covariance(errors, values[None], problem.model, problem.free[None])[0])
    inner = np.where(widths & (values > 0), 2 * np.sqrt(np.where(widths, values, 1.0)), np.where(widths, np.inf, 1.0))
    scale = dict.fromkeys(("background", "power_law"), fit.curve.scale_rel)
    scale |= {problem.names[problem.model.places(k)[0]]: relative for k, relative in enumerate(relative_of_c)}
    return tuple(
        replace(one, systematic=math.hypot(float(by_factor), scale.get(one.name, 0.0) * one.value))
        for one, by_factor in zip(fit.parameters, np.sqrt(np.maximum(variance, 0.0)) / inner, strict=True)
    )


def _beside(
    parameters: tuple[FitParameter, ...], problem: Problem, recorded: Recorded | None
) -> tuple[FitParameter, ...]:
    """Parameters with what the run recorded, if it did; of a width the square root of s, NaN where that is negative."""
    if recorded is None:
        return parameters
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.where(problem.widths, np.sqrt(recorded.values), recorded.values)
        errors = np.sqrt(np.diagonal(recorded.covariance))
        errors = np.where(problem.widths, errors / (2 * values), errors)
    pairs = zip(values.tolist(), errors.tolist(), strict=True)
    return tuple(replace(one, batch=Uncertain(*pair)) for one, pair in zip(parameters, pairs, strict=True))


def _with_limits(parameters: tuple[FitParameter, ...], problem: Problem, batch: BatchFit) -> tuple[FitParameter, ...]:
    """Widths that are not resolved (s < 2 standard errors) with the upper limit √(max(s, 0) + 2 s.e.)."""
    found = []
    for k, one in enumerate(parameters):
        s, error = batch.values[0, k], math.sqrt(max(batch.covariance[0, k, k], 0.0))
        unresolved = problem.widths[k] and problem.free[k] and s < 2 * error
        found.append(replace(one, upper_limit=math.sqrt(max(s, 0.0) + 2 * error)) if unresolved else one)
    return tuple(found)


def _limits_reached(curve: Curves, window: Bools, problem: Problem, batch: BatchFit) -> list[str]:
    """That an exponent or a volume fraction is held at an end of its range, and why."""
    model, errors, found = problem.model, CurveErrors.of(curve, np.ones(1, dtype=bool), window), []
    residual = curve.intensity[:, window] - batch.model
    for name, held in at_limit(model, batch.values, batch.free).items():
        if held[0]:
            past = beyond(errors, residual, model, batch.values, batch.free, name)[0]
            at = (
                f"{name.replace('_', ' ')}: held at {batch.values[0, model.columns.index(name)]:g}, an end of its range"
            )
            found.append(
                f"{at}; it lies beyond: widen model.{_KEYS[name]}" if past else f"{at}, for it says nothing here"
            )
    return found


def _in_order(parameters: tuple[FitParameter, ...], model: CurveModel) -> tuple[FitParameter, ...]:
    """Those of the populations, one after the other, then those of the other terms."""
    places = [place for k in range(len(model.populations)) for place in model.places(k)]
    return tuple(parameters[k] for k in (*places, *(k for k in range(len(parameters)) if k not in places)))


def _doubts(fit: CurveFit) -> list[str]:
    """What makes the errors too small, or the result doubtful."""
    notes = []
    if fit.chi2_red > POOR + 5 * math.sqrt(2 / fit.degrees):
        notes.append(f"χ²_red {fit.chi2_red:.3g}: the model does not describe the curve, the errors are too small")
    if fit.curve.correlated:
        notes.append("pixel splitting ties neighbouring bins together: the errors are too small")
    for one in fit.parameters:
        if one.how == "fixed" and math.isfinite(one.upper_limit):
            notes.append(f"{one.name}: χ² is least below 0, held at 0; the other errors are those of equal spheres")
        moved = abs(one.value - one.batch.value) / one.error if one.error > 0 else 0.0
        if one.batch.error > 0 and moved > SAME:
            notes.append(f"{one.name}: {moved:.2g} standard errors from the fit of the series")
    return notes
