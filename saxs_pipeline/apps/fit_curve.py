"""The work of `fit`: one curve, from a run or a text, fitted in depth; files in, files and rows out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from saxs_pipeline import geometry, runfile
from saxs_pipeline.io import curves_source
from saxs_pipeline.io.frames import read_head
from saxs_pipeline.model_config import Model
from saxs_pipeline.model_spec import ModelSpec, SigmaQ
from saxs_pipeline.outputs import fit_files, nexus
from saxs_pipeline.outputs.flags import frame_flags
from saxs_pipeline.outputs.folder import staged
from saxs_pipeline.outputs.plot_style import seconds_text
from saxs_pipeline.outputs.tables import factors_left_out, last_reported
from saxs_pipeline.runfile import RunFile
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.stages import quantify
from saxs_pipeline.stages.fit import fit_rows
from saxs_pipeline.stages.fit_curve import Recorded, fit_curve
from saxs_pipeline.types import BadInput, Bools, Curves, Floats, RunResult

Rows = list[tuple[str, str]]

SMALL_Q = 1.0
"""Largest q, 1/nm, below which a curve without a unit may well be in 1/Å."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for; None: the default."""

    curve: Path
    frame: int | None = None
    run_file: Path | None = None
    q_unit: str | None = None
    intensity_unit: str | None = None
    profiles: bool = True
    steps: int | None = None
    out: Path | None = None


@dataclass(frozen=True, eq=False)
class _Task:
    """What is fitted to what: a curve (one row), its q range (m,), the model; systematic_rel: of c, by population.

    notes: what of the curve is not used; unit_is_guessed: nobody said what q is in.
    """

    source: str
    stem: str
    curve: Curves
    window: Bools
    model: ModelSpec
    systematic_rel: tuple[float, ...] = ()
    recorded: Recorded | None = None
    notes: tuple[str, ...] = ()
    unit_is_guessed: bool = False

    @property
    def absolute(self) -> bool:
        """Whether c is a concentration: it needs an absolute scale and a contrast."""
        return self.curve.unit == "1/mm" and all(one.amplitude != 1 for one in self.model.populations)


def fit(request: Request) -> tuple[Rows, Path]:
    """Fit a curve; files go to the folder that is returned with the rows for the terminal.

    Raises BadInput for a file, a frame or a model that cannot be used, and where files in the folder would be
    overwritten that this command has not made.
    """
    task = _of_run(request) if read_head(request.curve).startswith(b"\x89HDF") else _of_text(request)
    folder = request.curve.parent / f"fit_{task.stem}" if request.out is None else request.out
    _check_free(folder, request.curve)
    with staged(folder) as staging:  # a folder that cannot be written fails at once
        try:
            found = fit_curve(
                task.curve,
                task.window,
                task.model,
                source=task.source,
                absolute=task.absolute,
                systematic_rel=task.systematic_rel,
                recorded=task.recorded,
                profiled=request.profiles,
                steps=request.steps,
            )
        except BadInput as error:
            raise BadInput(f"{task.source}: {error}{_hint(task)}") from None
        found = replace(found, notes=(*found.notes, *task.notes, *factors_left_out(task.curve)))
        fit_files.write_fit(found, staging)
    return fit_files.rows(found), folder


def _hint(task: _Task) -> str:
    """What may be the reason of a fit that failed: q in another unit, or what ended beyond its range."""
    highest = float(task.curve.q_nm[-1])
    if task.unit_is_guessed and highest < SMALL_Q:
        return f"; q ends at {highest:.3g} 1/nm: is it in 1/Å? give --q-unit 1/Å"
    model = CurveModel.of(task.model)
    batch = fit_rows(task.curve, np.ones(1, dtype=bool), task.window, model)
    places = [place for place, free in enumerate(batch.free[0]) if free and place in model.nonlinear]
    beyond = []
    for place in places:
        number = model.nonlinear.index(place)
        value, (low, high) = batch.values[0, place], (float(ends[number]) for ends in model.limits)
        if math.isfinite(value) and not low <= value <= high:
            beyond.append(_beyond(model, number, float(value)))
    return f"; it ended beyond them, at {', '.join(beyond)}, with χ²_red {batch.chi2_red[0]:.3g}" if beyond else ""


def _beyond(model: CurveModel, number: int, value: float) -> str:
    """ "radius 0.27 nm", "sigma² 0.84 nm²": what the fit varies."""
    if number >= len(model.sizes):
        return f"{model.columns[model.nonlinear[number]].replace('_', ' ')} {value:.3g}"
    name = model.sizes[number]
    return f"{name} {value:.3g} nm" if name.endswith("radius") else f"{name}² {value:.3g} nm²"


def _check_free(folder: Path, curve: Path) -> None:
    """Raise BadInput where files of other origin, or the curve itself, would be overwritten."""
    there = [folder / name for name in fit_files.FILES if (folder / name).exists()]
    if any(path.samefile(curve) for path in there):
        raise BadInput(f"{curve} would be overwritten; choose another folder with --out")
    try:
        ours = json.loads((folder / "fit.json").read_bytes()).get("made_by") == fit_files.MADE_BY
    except (OSError, ValueError, AttributeError):
        ours = False
    if there and not ours:
        raise BadInput(f"{there[0]} is in the way and not of this command; choose another folder with --out")


# --- a frame of a run ------------------------------------------------------------------------------------------------


def _of_run(request: Request) -> _Task:
    path = request.curve
    if request.q_unit is not None or request.intensity_unit is not None:
        raise BadInput(f"{path} says its units; leave out --q-unit and --intensity-unit")
    result = nexus.read_run(path)
    row = _row(result, request)
    number, curves = int(result.curves.index[row]), result.curves
    flag = frame_flags(result)[row]
    source = f"{path}, frame {number} at {seconds_text(float(curves.time_s[row]))}"
    source += "" if flag == "ok" else f" ({flag})"
    one = curves.rows(np.arange(len(curves.index)) == row)
    if request.run_file is not None:
        run = runfile.load(request.run_file, must_exist=False)
        return _with_model(source, f"frame_{number:05d}", one, run, result.provenance.geometry)
    if result.fits is None or result.model is None:
        raise BadInput(f"{path}: the run has no fits; say with --model RUN_FILE what to fit")
    if not all(math.isfinite(population.amplitude) for population in result.fits.model.populations):
        raise BadInput(f"{path}: the results are of an earlier version of this program; run again")
    recorded = Recorded(result.fits.values[row], result.fits.covariance[row])
    return _Task(
        source=source,
        stem=f"frame_{number:05d}",
        curve=one,
        window=np.asarray(np.isfinite(result.model).any(axis=0)),
        model=result.fits.model,
        systematic_rel=_systematic(result, row),
        recorded=recorded if np.isfinite(recorded.values).any() else None,
    )


def _row(result: RunResult, request: Request) -> int:
    """Row of the frame that is asked for, or of the last that was fitted well."""
    path, index = request.curve, result.curves.index
    if request.frame is None:
        row = last_reported(result)
        if row is None:
            raise BadInput(f"{path}: no frame was fitted well; say with --frame which to fit")
        return row
    found = np.flatnonzero(index == request.frame)
    if not found.size:
        raise BadInput(f"{path}: frame {request.frame} is not in this run; choose from {index.min()} to {index.max()}")
    row = int(found[0])
    if problem := result.curves.problems[row]:
        raise BadInput(f"{path}: frame {request.frame} could not be used ({problem}); choose another with --frame")
    return row


def _systematic(result: RunResult, row: int) -> tuple[float, ...]:
    """Relative systematic uncertainty of c of each population; that of the scale where c is not reported."""
    if result.quantities is None:
        return ()
    found = []
    for one in (result.quantities, *(quantities for _, quantities in result.others)):
        c = one.c_nc_umol_L
        relative = abs(float(c.systematic[row] / c.value[row])) if c.value[row] else math.nan
        found.append(relative if math.isfinite(relative) else result.curves.scale_rel)
    return tuple(found)


# --- a text ----------------------------------------------------------------------------------------------------------


def _of_text(request: Request) -> _Task:
    path = request.curve
    if request.frame is not None:
        raise BadInput(f"{path} is one curve; --frame is for a run.nxs")
    run = None if request.run_file is None else runfile.load(request.run_file, must_exist=False)
    curve = _text_curve(request, run)
    notes = _check_points(path, curve)
    said = run is not None and run.config.data.curves is not None
    guessed = request.q_unit is None and curves_source.stated(path) is None and not said
    if run is not None:
        task = _with_model(str(path), path.stem, curve, run)
        return replace(task, notes=notes, unit_is_guessed=guessed)
    model = Model.model_construct(q_min=0.0, q_max=math.inf).spec([1.0])
    return _Task(
        str(path), path.stem, curve, np.ones(len(curve.q_nm), dtype=bool), model, notes=notes, unit_is_guessed=guessed
    )


def _check_points(path: Path, curve: Curves) -> tuple[str, ...]:
    """Says which points of a text are not used; raises BadInput where there is nothing to fit in it."""
    lines, number = curves_source.left_out(path)
    which = f"line{'s' * (len(lines) > 1)} {', '.join(map(str, lines[:5]))}{' …' * (len(lines) > 5)}"
    if len(lines) == number:
        raise BadInput(
            f"{path}: no point can be used: σ, the third column, must be positive, and I and σ finite ({which}); "
            "give the standard uncertainty of every point"
        )
    if not np.nan_to_num(curve.intensity).any():
        raise BadInput(f"{path}: the intensity, the second column, is zero at every point; give a measured curve")
    if not lines:
        return ()
    return (f"{len(lines)} of {number} points left out, with I or σ not finite, or σ not positive: {which}",)


def _text_curve(request: Request, run: RunFile | None) -> Curves:
    """The curve in the units that its header, the command line or the run file says, in this order; or 1/nm, 1/mm."""
    path = request.curve
    asked = request.q_unit, request.intensity_unit
    said = curves_source.stated(path)
    if said is not None:
        for given, own in zip(asked, (said.q_unit, said.intensity_unit), strict=True):
            if given is not None and given != own:
                raise BadInput(f"{path} says that it is in {own}, not {given}; leave the option out")
        curve = curves_source.open_curves([path], q_unit=said.q_unit, intensity_unit="1/mm")
        return replace(curve, unit=said.intensity_unit, scale_rel=said.scale_rel)
    files = None if run is None else run.config.data.curves
    usual = ("1/nm", "1/mm") if files is None else (files.q_unit, files.intensity_unit)
    return curves_source.open_curves([path], q_unit=asked[0] or usual[0], intensity_unit=asked[1] or usual[1])


def _with_model(
    source: str, stem: str, curve: Curves, run: RunFile, measured: Mapping[str, Any] = MappingProxyType({})
) -> _Task:
    """The curve with the model and the sample of a run file, whose frames need not exist.

    measured: the geometry with which the curve was integrated, as a run recorded it; empty where nothing did.
    """
    settings = run.config.model
    if settings is None:
        raise run.error("", "there is nothing to fit; add a section `model: {q_min: 0.15 1/nm, q_max: 5 1/nm}`")
    samples = settings.samples(run.config.sample)
    energy = None
    if any(s is not None and s.contrast is None for s in samples):
        energy = geometry.energy_keV(measured) if measured else geometry.stated_energy_keV(run)
    try:
        amplitudes = quantify.amplitude_factors(samples, energy)
        contrasts = [0.0 if s is None else quantify.contrast_1_A2(s, energy).relative for s in samples]
    except BadInput as error:
        raise run.error("sample", str(error)) from None
    if settings.constant and curve.unit != "1/mm":
        raise run.error("model.constant", f"is in 1/mm, the curve in {curve.unit}; leave it out")
    return _Task(
        source=source,
        stem=stem,
        curve=curve,
        window=(curve.q_nm >= settings.q_min) & (curve.q_nm <= settings.q_max),
        model=settings.spec(amplitudes, _resolution(run, settings, curve.q_nm, measured)),
        systematic_rel=tuple(math.hypot(curve.scale_rel, 2 * relative) for relative in contrasts),
    )


def _resolution(run: RunFile, settings: Model, q_nm: Floats, measured: Mapping[str, Any]) -> SigmaQ:
    """σ of the resolution in q, 1/nm; 0 where none is asked for."""
    if settings.resolution is None:
        return 0.0
    if settings.resolution.sigma_q is not None:
        return settings.resolution.sigma_q
    if not measured:
        raise run.error("model.resolution.beam", "a curve comes without a geometry; give `sigma_q`, e.g. 0.02 1/nm")
    assert settings.resolution.beam is not None
    return geometry.resolution_1_nm(measured, settings.resolution.beam, q_nm, np.gradient(q_nm))
