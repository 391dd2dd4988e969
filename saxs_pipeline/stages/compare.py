"""Quantities ↔ kinetic model: the measured series beside the simulated one, and the joint fit of its parameters.

What is compared are c, r and s = σ_r² of every frame that reports a size. The yield is a function of these three
(S2.6) and takes part through them; the yield of the model is monomers in crystals over all that can form. s rather
than σ_r, because s keeps frames whose width is only an upper limit, without a bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from saxs_pipeline.kinetic_config import UNITS, KineticModel
from saxs_pipeline.reaction import Comparison, KineticParameter
from saxs_pipeline.science.apparent import View, as_seen, one_step
from saxs_pipeline.science.completion import all_monomers, completion
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.science.distributions import mean_volume
from saxs_pipeline.science.joint import CurveErrors, joint_covariance, shared_response
from saxs_pipeline.science.population import at, simulate
from saxs_pipeline.stages.degenerate import unresolved
from saxs_pipeline.stages.fit import POOR
from saxs_pipeline.stages.kinetic_fit import KineticFit, fit_model
from saxs_pipeline.stages.kinetic_problem import Measured
from saxs_pipeline.types import BadInput, Bools, Curves, FitTable, Floats, Ints, Quantities, RunResult

FINE_POINTS = 400
"""Points of the curves for drawing."""

SAME_AMOUNT = 0.01
"""Relative: all monomers of model and run have the same volume up to this, even if the run file gives no errors."""

_COMPANIONS = 5
MOST_FRAMES = 1000
"""Frames that are compared at most: their covariance takes memory with the square of their number."""

_NEIGHBOURS = 10
"""Frames to either side over which the shape of σ(q) is averaged."""

_GOOD = frozenset({"ok", "sigma_upper_limit", "at_limit"})
_MODEL_COLUMNS = ("model_radius_nm", "model_sigma_nm", "model_c_umol_L", "model_yield")
_CURVE_COLUMNS = ("curve_radius_nm", "curve_sigma_nm", "curve_c_umol_L", "curve_yield")


def compare(result: RunResult, model: KineticModel, fit: Sequence[str] = (), title: str = "") -> Comparison:
    """Compare a run with the kinetic model; `fit`: symbols of the parameters to fit, none to compare only.

    Raises BadInput if the run has no absolute concentrations or no frames with a size after the injection, if the
    parameters asked for cannot be told apart, or if the model cannot be simulated with those found.
    """
    run = _complete(result)
    quantities = run.quantities
    rows = used_frames(run.fits, quantities)
    view = _view(run.curves, rows, run.window, run.fits.model.distribution)
    measured = _measured(run, rows, view)
    place = {symbol: k for k, symbol in enumerate(model.symbols)}
    found = fit_model(measured, model, sorted(fit, key=lambda symbol: place.get(symbol, len(place))))
    used = np.zeros(len(quantities.index), dtype=bool)
    used[rows] = True
    after = quantities.time_s > 0
    fine = np.geomspace(quantities.time_s[after].min(), measured.time_s[-1], FINE_POINTS)
    frames = np.full((len(used), 4), np.nan)
    try:
        frames[after] = _simulated(model, found, view, quantities.time_s[after])
        drawn = _simulated(model, found, view, fine)
    except BadInput as error:
        raise BadInput(f"{_lost(found)}{error}") from None
    return Comparison(
        title=title or model.title,
        parameters=_parameters(model, found),
        correlation=found.correlation,
        chi2_red=found.chi2 / found.degrees,
        degrees=found.degrees,
        converged=found.converged,
        evaluations=found.evaluations,
        **dict(zip(_MODEL_COLUMNS, frames.T, strict=True)),
        used=used,
        curve_time_s=fine,
        **dict(zip(_CURVE_COLUMNS, drawn.T, strict=True)),
        notes=tuple(_notes(found, measured, quantities, rows, model)),
    )


def _lost(found: KineticFit) -> str:
    """That a model which cannot be simulated is one that a fit ended with, if it is."""
    if not found.names or found.converged:
        return ""
    values = ", ".join(f"{name} = {value:.4g}" for name, value in found.changes.items())
    return f"the fit did not converge; free fewer parameters or start nearer. It ended at {values}: "


@dataclass(frozen=True, eq=False)
class Complete:
    """The parts of a run that a comparison needs; window (m,): points of the curves that were fitted."""

    curves: Curves
    fits: FitTable
    quantities: Quantities
    window: Bools


def _complete(result: RunResult) -> Complete:
    if result.fits is None or result.quantities is None or result.model is None:
        raise BadInput("compare: the run has no fits; give it a `model` section")
    if not result.fits.model.sizes_are_free:
        raise BadInput("compare: radius or spread were held or tied (model.fixed, model.tied); run with both fitted")
    amplitude = result.fits.model.populations[0].amplitude
    if not np.isfinite(amplitude):
        raise BadInput("compare: the results are of an earlier version of this program; run again")
    if result.curves.unit != "1/mm" or amplitude == 1:
        raise BadInput(
            "compare: the run has no absolute concentrations; give an absolute scale (`intensity`) and `sample`"
        )
    window = np.asarray(np.isfinite(result.model).any(axis=0))
    return Complete(result.curves, result.fits, result.quantities, window)


def used_frames(fits: FitTable, quantities: Quantities) -> Ints:
    """Frames that take part, in order of time: with a size and no objection in their flags, from the first of them on.

    The first is the one that has the next four as companions: among frames too weak to give a size only those do that
    fluctuated up. Of more than MOST_FRAMES every k-th is taken. Raises BadInput if there is none.
    """
    plain = np.array([_GOOD.issuperset(flag.split("|")) for flag in quantities.flags])
    finite = np.isfinite(fits.values[:, :3]).all(axis=1) & np.isfinite(fits.covariance[:, :3, :3]).all(axis=(1, 2))
    after = np.flatnonzero(quantities.time_s > 0)
    after = after[np.argsort(quantities.time_s[after], kind="stable")]
    good = (plain & finite & fits.converged)[after]
    in_a_row = np.convolve(good, np.ones(_COMPANIONS), mode="valid") == _COMPANIONS
    if not in_a_row.any():
        raise BadInput(
            f"compare: after the injection there are no {_COMPANIONS} frames in a row that report a size; check `time` "
            "and the background frames"
        )
    first = int(np.argmax(in_a_row))
    rows = after[first:][good[first:]]
    return np.asarray(rows[:: -(-rows.size // MOST_FRAMES)])


def _view(curves: Curves, rows: Ints, window: Bools, distribution: str) -> View:
    sigma = np.where(np.isfinite(curves.intensity), curves.sigma, np.nan)
    return View(curves.time_s[rows], curves.q_nm[window], _expected(sigma[rows][:, window]), distribution)


def _expected(sigma: Floats) -> Floats:
    """σ (k, m) of frames in order of time, as it would be expected: with its shape over q averaged over neighbours.

    A frame's own σ comes from its own counts, is small where they fluctuated down, and weights by it pull c down
    (ADR 8). Each frame keeps its mean variance.
    """
    mean = np.nanmean(sigma**2, axis=1, keepdims=True)
    shape = sigma**2 / mean
    total, number = (np.cumsum(np.vstack([np.zeros(sigma.shape[1]), part]), axis=0) for part in _known(shape))
    first = np.maximum(np.arange(len(sigma)) - _NEIGHBOURS, 0)
    stop = np.minimum(np.arange(len(sigma)) + _NEIGHBOURS + 1, len(sigma))
    averaged = (total[stop] - total[first]) / np.maximum(number[stop] - number[first], 1)
    return np.where(np.isfinite(sigma), np.sqrt(averaged * mean), np.nan)


def _known(values: Floats) -> tuple[Floats, Floats]:
    """The values with 0 where they are NaN, and 1 where they are not."""
    known = np.isfinite(values)
    return np.where(known, values, 0.0), known.astype(float)


def _measured(result: Complete, rows: Ints, view: View) -> Measured:
    curves, fits, quantities = result.curves, result.fits, result.quantities
    errors = CurveErrors.of(curves, rows, result.window)._replace(sigma=view.sigma)
    intensity = curves.intensity[rows][:, result.window]
    spheres, values, free = CurveModel.of(fits.model), fits.values[rows], fits.free[rows]
    response = shared_response(errors, values, spheres, free)

    def linearised(model: Floats) -> tuple[Floats, Floats]:
        return one_step(errors, intensity, reference=model, model=spheres, values=values, free=free)

    return Measured(
        time_s=quantities.time_s[rows],
        values=fits.values[rows, :3],
        covariance=joint_covariance(fits.covariance[rows][:, :3, :3], response),
        scale_rel=_relative_scale(quantities, rows),
        seen=partial(as_seen, view=view, time_s=view.time_s),
        linearised=linearised,
    )


def _relative_scale(quantities: Quantities, rows: Ints) -> float:
    """Relative uncertainty of the amount of crystals against the precursor: that of the yield, else of c."""
    for estimate in (quantities.yield_, quantities.c_nc_umol_L):
        relative = (estimate.systematic / np.abs(estimate.value))[rows]
        if np.isfinite(relative).any():
            return float(np.nanmedian(relative))
    return 0.0


def _simulated(model: KineticModel, found: KineticFit, view: View, time_s: Floats) -> Floats:
    """(r, σ_r, c, yield) of the model at times (k,), (k, 4), as the fits of single frames report them.

    c and yield are multiplied by the scale that was found: they are on the scale of the measurement.
    """
    order = np.argsort(time_s, kind="stable")
    development = simulate(model.synthesis(found.changes), float(time_s.max()), sizes=True)
    values = np.full((time_s.size, 4), np.nan)
    c, radius, variance = as_seen(development, view, time_s[order]).T
    sigma = np.sqrt(np.where(variance >= 0, variance, np.nan))
    scale, share = found.scale.value, at(development, time_s[order]).yield_
    values[order] = np.stack([radius, sigma, scale * c, scale * share], axis=1)
    return values


def _parameters(model: KineticModel, found: KineticFit) -> tuple[KineticParameter, ...]:
    statistical = dict(zip(found.names, np.sqrt(np.diagonal(found.statistical)).tolist(), strict=True))
    systematic = dict(zip(found.names, np.abs(found.by_scale).tolist(), strict=True))
    return tuple(
        KineticParameter(
            symbol,
            UNITS[symbol],
            found.changes.get(symbol, model.value(symbol)),
            statistical.get(symbol, 0.0),
            systematic.get(symbol, 0.0),
            symbol in found.names,
        )
        for symbol in model.symbols
    )


def _notes(found: KineticFit, measured: Measured, quantities: Quantities, rows: Ints, model: KineticModel) -> list[str]:
    """What a reader must know before believing the parameters."""
    notes = [found.message] if found.message else []
    if found.names:
        notes.append(unresolved(found.names, found.correlation))
    ratio = found.chi2 / found.degrees
    if found.converged and ratio > POOR + 5 * np.sqrt(2 / found.degrees):
        notes.append(
            f"χ²_red = {ratio:.3g}: the model does not describe the series; errors of parameters are too small"
        )
    if measured.scale_rel > 0 and found.converged:
        notes.append(
            f"measured c over the model's: {found.scale.value:.4f} ± {found.scale.error:.4f}; the run states "
            f"± {measured.scale_rel:.4f}"
        )
    elif not measured.scale_rel > 0:
        notes.append("the run states no uncertainty of its absolute scale: the systematic errors are missing")
    notes += [_amount(quantities, rows, model, found), _own_times(model, found)]
    return [note for note in notes if note]


def _own_times(model: KineticModel, found: KineticFit) -> str:
    """When the model itself reaches 98 %, which is not what the build-up laws of the series say."""
    done = completion(simulate(model.synthesis(found.changes), model.end_s))
    if not np.isfinite(done.yield_s):
        return ""
    if not np.isfinite(done.c_s):
        return f"the model reaches 98 % of the yield at {done.yield_s:.4g} s, with crystals that are there at the start"
    return (
        f"the model reaches 98 % of c at {done.c_s:.4g} s, of the yield at {done.yield_s:.4g} s: "
        f"a share of {done.share:.1%}"
    )


def _amount(quantities: Quantities, rows: Ints, model: KineticModel, found: KineticFit) -> str:
    """Says if the model and the run's sample section do not count yields against the same volume of crystals.

    c⟨V⟩/yield is the volume all monomers would fill: c_cation,0 a³/cations per cell in the run; in the model those that
    can form and those in starting crystals, times v₀.
    """
    yields, c = quantities.yield_, quantities.c_nc_umol_L
    if not np.isfinite(yields.value[rows]).any():
        return ""
    volume = mean_volume(quantities.radius_nm.value[rows], quantities.sigma_nm.value[rows] ** 2)
    run = float(np.nanmedian(c.value[rows] * volume / yields.value[rows]))
    own = np.square(yields.systematic[rows] / yields.value[rows]) - np.square(c.systematic[rows] / c.value[rows])
    error = float(np.sqrt(max(np.nanmedian(own), 0.0)))
    synthesis = model.synthesis(found.changes)
    ratio = 1e30 * all_monomers(synthesis) * synthesis.monomer_volume_m3 / run
    if abs(ratio - 1) <= max(error, SAME_AMOUNT):
        return ""
    return (
        f"the model's monomers would make {ratio:.3f} times the crystal volume that the run counts yields against "
        f"(± {error:.3f}): check P0, v0 and crystals against sample.cation_concentration and lattice_parameter"
    )
