"""What has to be known before the first chunk: inputs, integration, absolute scale, background."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from saxs_pipeline import geometry, provenance
from saxs_pipeline.config import RunConfig
from saxs_pipeline.dark import average_dark
from saxs_pipeline.data_config import FrameFiles
from saxs_pipeline.io.curves_source import open_curves
from saxs_pipeline.model_spec import SigmaQ
from saxs_pipeline.omissions import standard_files, warnings
from saxs_pipeline.runfile import RunFile
from saxs_pipeline.science import rebinning
from saxs_pipeline.science.calibration import StandardMeasurement
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.series import FrameSeries, law_times, open_reference, open_sample
from saxs_pipeline.stages import quantify, reduce
from saxs_pipeline.stages.integrate import IntegrationSpec, bin_centers, bin_pixels, integrate
from saxs_pipeline.types import Background, BadInput, Bools, Curves, Floats, ScaleFactor

REFERENCE_CHUNK = 16
_OF_INTENSITY = ("thickness", "transmission", "absolute", "monitor_uncertainty")
FEWEST_BINS = 10


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything `process` needs, prepared once; picklable. Either `series` (frames) or `curves` is set."""

    config: RunConfig
    series: FrameSeries | None
    curves: Curves | None
    spec: IntegrationSpec | None
    energy_keV: float | None
    model: CurveModel | None
    scale: ScaleFactor | None = None
    standard: StandardMeasurement | None = None
    background: Background | None = None
    background_frames: frozenset[int] = frozenset()
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        if self.series is not None:
            return len(self.series)
        return 0 if self.curves is None else len(self.curves.index)

    @cached_property
    def key(self) -> str:
        """Digest of all that the frames' numbers depend on but the frames themselves: their key in checkpoints."""
        config = self.config
        numbers = {
            "versions": provenance.versions(),
            "source": provenance.source_digest(),
            "spec": None if self.spec is None else self.spec.key,
            "intensity": [getattr(config.intensity, name) for name in _OF_INTENSITY],
            "scale": None if self.scale is None else self.scale.factor,
            "model": None if config.model is None else [config.model.model_dump(), repr(self.model)],
            "sizes": None if config.sizes is None else [config.sizes.model_dump(), repr(config.sample)],
            "rebin": None if config.rebin is None else config.rebin.model_dump(),
        }
        content = hashlib.sha256(json.dumps(numbers, sort_keys=True).encode())
        b = self.background
        if b is not None:
            for array in (b.intensity, b.sigma):
                content.update(array.tobytes())
            content.update(repr((b.factor, b.dark_factor, b.factor_rel)).encode())
        return content.hexdigest()

    def frame_keys(self) -> list[str]:
        """Key of each frame in checkpoints: a digest of the plan's and of what is the frame's own."""
        if self.series is not None:
            marks = self.series.marks()
        else:
            assert self.curves is not None
            c = self.curves
            rows = zip(c.intensity, c.statistical, c.start_s.tolist(), c.exposure_s.tolist(), c.problems, strict=True)
            common = hashlib.sha256(c.q_nm.tobytes() + c.shared.tobytes() + c.unit.encode()).hexdigest()
            marks = [repr((common, i.tobytes(), s.tobytes(), *rest)) for i, s, *rest in rows]
        return [hashlib.sha256(f"{self.key}|{mark}".encode()).hexdigest() for mark in marks]

    @property
    def times_s(self) -> Floats:
        """Mid-exposure times relative to the injection, (n,)."""
        if self.series is not None:
            return self.series.start_s + 0.5 * self.series.exposure_s
        assert self.curves is not None
        return self.curves.time_s

    def monitor_rate(self, curves: Curves) -> Floats | None:
        """What the monitor counted per second in these frames, (n,); None without a monitor of the beam."""
        if self.series is None or self.config.intensity.monitor in (None, "none", "exposure"):
            return None
        exposure = np.where(curves.exposure_s > 0, curves.exposure_s, np.nan)
        return np.asarray(self.series.monitor[curves.index] / exposure)

    def curves_of(self, start: int, stop: int) -> Curves:
        """Curves of frames start … stop - 1 on the absolute scale, background still in."""
        if self.series is None:
            assert self.curves is not None
            raw = self.curves.select(start, stop)
        else:
            assert self.spec is not None
            raw = Curves.concatenate([integrate(chunk, self.spec) for chunk in self.series.blocks(start, stop)])
        return self.reduced(raw)

    def reduced(self, raw: Curves) -> Curves:
        """Integrated curves in the run's bins and on its absolute scale."""
        if self._grid is not None:
            raw = rebinning.rebin(raw, self._grid, self._pixels)
        return reduce.absolute(raw, self.scale, self.config.intensity)

    @cached_property
    def _grid(self) -> rebinning.Grid | None:
        """Which bins become one; None where they stay as they are."""
        settings = self.config.rebin
        if settings is None:
            return None
        return rebinning.grid(self._integrated_q_nm, settings.bins, logarithmic=settings.spacing == "log")

    @cached_property
    def _pixels(self) -> Floats:
        """Pixels of the bins before any become one, in a frame that lacks none, (m,)."""
        if self.spec is not None:
            return bin_pixels(self.spec)
        return np.ones(len(self._integrated_q_nm))

    @property
    def _integrated_q_nm(self) -> Floats:
        if self.spec is not None:
            return bin_centers(self.spec)
        assert self.curves is not None
        return self.curves.q_nm

    @property
    def q_nm(self) -> Floats:
        """q of the curves, 1/nm; raises BadInput where they cannot be re-binned as asked."""
        return self._integrated_q_nm if self._grid is None else self._grid.q_nm

    @property
    def bin_widths_1_nm(self) -> Floats:
        """Widths of the bins of the curves, as many old ones of equal width as each is made of."""
        whole = np.diff(self._integrated_q_nm).mean()
        if self._grid is None:
            return np.full(len(self.q_nm), whole)
        return np.asarray(whole * np.diff(self._grid.starts, append=self._grid.number))


def prepare(run: RunFile) -> Plan:
    """Open the inputs and evaluate dark, water and background; raises BadInput with the place in the run file."""
    if run.config.data.curves is not None:
        return with_background(run, _prepare_curves(run))
    return with_background(run, prepare_frames(run, open_sample(run)))


def with_background(run: RunFile, plan: Plan) -> Plan:
    """The plan with what is subtracted from its frames; nothing in it depends on any other frame from here on."""
    notes: list[str] = []
    plan = _with_background(run, plan, notes)
    return replace(plan, warnings=(*plan.warnings, *notes))


def curve_model(run: RunFile, plan: Plan) -> CurveModel | None:
    """What is fitted; raises BadInput for an unusable contrast, or a window with too few bins."""
    model, q_nm = run.config.model, _q(run, plan)
    try:
        samples = (run.config.sample,) if model is None else model.samples(run.config.sample)
        amplitudes = quantify.amplitude_factors(samples, plan.energy_keV)
    except BadInput as error:
        raise run.error("sample", str(error)) from None
    if model is None:
        return None
    inside = int(((q_nm >= model.q_min) & (q_nm <= model.q_max)).sum())
    if inside < FEWEST_BINS:
        raise run.error("model.q_min", f"the fit's q range holds {inside} bins of the data; it needs {FEWEST_BINS}")
    if model.constant and run.config.data.frames is not None and not run.config.intensity.absolute:
        raise run.error(
            "model.constant", "is in 1/mm, the curves are not; give `water`, `glassy_carbon` or `scale` in `intensity`"
        )
    return CurveModel.of(model.spec(amplitudes, _resolution(run, plan, q_nm)))


def _resolution(run: RunFile, plan: Plan, q_nm: Floats) -> SigmaQ:
    """σ of the resolution in q, 1/nm; 0 where none is asked for."""
    assert run.config.model is not None
    settings = run.config.model.resolution
    if settings is None:
        return 0.0
    if settings.sigma_q is not None:
        return settings.sigma_q
    if plan.spec is None:
        raise run.error("model.resolution.beam", "the curves come without a geometry; give `sigma_q`, e.g. 0.02 1/nm")
    assert settings.beam is not None
    return geometry.resolution_1_nm(plan.spec.geometry, settings.beam, q_nm, plan.bin_widths_1_nm)


def prepare_frames(run: RunFile, series: FrameSeries) -> Plan:
    """Dark, geometry and absolute scale for the frames of a series, which may go on growing; no background yet."""
    config, notes = run.config, list(warnings(run))
    dark = None
    if config.corrections is not None and config.corrections.dark is not None:
        pedestal = geometry.pedestal(run, series.info)
        dark = average_dark(run, config.corrections.dark, series.info, pedestal, notes)
    spec = geometry.specify(run, series.info, dark)
    energy = geometry.energy_keV(spec.geometry)
    if spec.bad_pixels:
        notes.append(f"bad pixels masked: {', '.join(spec.bad_pixels)}")
    if spec.device != "cpu":
        notes.append(f"the pixels are added up on {spec.device} (engine.device), which rounds in its own way")
    notes += series.warnings
    plan = Plan(config, series, None, spec, energy, None)
    plan = replace(plan, model=curve_model(run, plan))
    if config.intensity.standard is not None:
        plan = _with_standard(run, plan, notes)
    elif config.intensity.scale is not None:
        plan = replace(plan, scale=ScaleFactor(config.intensity.scale, "given"))
    return replace(plan, warnings=tuple(notes))


def open_curve_stack(run: RunFile) -> Curves:
    """Already-integrated curves with their times relative to the injection."""
    config = run.config
    assert config.data.curves is not None
    settings = config.data.curves
    try:
        curves = open_curves(settings.files, q_unit=settings.q_unit, intensity_unit=settings.intensity_unit)
    except BadInput as error:
        raise run.error("data.curves.files", str(error)) from None
    times = law_times(config, len(curves.index))
    if times is not None:
        curves = replace(curves, start_s=times.start_s, exposure_s=times.exposure_s)
    if not np.isfinite(curves.start_s).all():
        raise run.error("data.time", "the curves carry no times; give data.time: {law: {exposure: 1 s, wait: 0 s}}")
    return replace(curves, start_s=curves.start_s - config.data.time.zero)


def _prepare_curves(run: RunFile) -> Plan:
    config = run.config
    energy = config.geometry.energy if config.geometry is not None else None
    scale = None if config.intensity.scale is None else ScaleFactor(config.intensity.scale, "given")
    plan = Plan(config, None, open_curve_stack(run), None, energy, None, scale=scale, warnings=warnings(run))
    return replace(plan, model=curve_model(run, plan))


def _q(run: RunFile, plan: Plan) -> Floats:
    """q of its curves; raises BadInput with the place in the run file."""
    try:
        return plan.q_nm
    except BadInput as error:
        raise run.error("rebin", str(error)) from None


def _reference_curves(
    run: RunFile, files: FrameFiles, key: str, plan_spec: IntegrationSpec, notes: list[str]
) -> tuple[Curves, Floats]:
    series = open_reference(run, files, key)
    if series.info.shape != plan_spec.mask.shape:
        raise run.error(f"{key}.frames", f"has {series.info.shape} pixels, the frames have {plan_spec.mask.shape}")
    curves = Curves.concatenate([integrate(chunk, plan_spec) for chunk in series.blocks(0, len(series))])
    notes += [*series.left_out(key, curves.index, curves.problems), *(f"{key}: {text}" for text in series.warnings)]
    return curves, series.monitor


def pieces(frames: Sequence[int], size: int) -> list[tuple[int, int]]:
    """(start, stop) of runs of consecutive frame numbers, none longer than `size`; frames increase."""
    found: list[tuple[int, int]] = []
    for frame in frames:
        if found and found[-1][1] == frame and frame - found[-1][0] < size:
            found[-1] = (found[-1][0], frame + 1)
        else:
            found.append((frame, frame + 1))
    return found


def _with_standard(run: RunFile, plan: Plan, notes: list[str]) -> Plan:
    """The plan with the absolute scale from the standard; what was left out of its frames goes into `notes`."""
    assert plan.spec is not None
    files = standard_files(run)
    measured, background = (_reference_curves(run, *one, plan.spec, notes) for one in files)
    try:
        standard = reduce.standard(measured, background, run.config.intensity)
        return replace(plan, standard=standard, scale=reduce.scale_factor(standard, run.config.intensity))
    except BadInput as error:
        raise run.error(files[0][1], str(error)) from None


def _with_background(run: RunFile, plan: Plan, notes: list[str]) -> Plan:
    """The plan with its background B(q), from frames of the scan or a measurement of its own."""
    config, choice = run.config, run.config.background
    if choice is None:
        return plan
    frames: list[int] = []
    if choice.file is not None:
        curves, weights, source = _background_file(run, plan, choice.file, notes)
    elif choice.curve is not None:
        curves, weights, source = _background_curve(run, plan, choice.curve)
    else:
        frames = _background_frames(run, plan)
        curves = Curves.concatenate([plan.curves_of(*piece) for piece in pieces(frames, REFERENCE_CHUNK)])
        weights = np.ones(len(frames)) if plan.series is None else plan.series.monitor[frames]
        source = f"{len(frames)} frames of the scan, {frames[0]} to {frames[-1]}"
    own = () if choice.file is None else (choice.file.transmission, config.intensity.transmission)
    try:
        background = reduce.background(curves, weights, source, choice.factor, own)
    except BadInput as error:
        raise run.error("background", str(error)) from None
    return replace(plan, background=background, background_frames=frozenset(frames))


def background_waits(run: RunFile, plan: Plan, complete: Bools) -> str:
    """What a running scan still lacks before its background is final, in words; "" if nothing.

    complete (n,): the frames that are there. Those of a time window are, once one after it is.
    """
    choice = run.config.background
    if choice is None or (choice.frames is None and choice.time is None):
        return ""
    times = plan.times_s
    if choice.time is not None:
        after = complete & (times > choice.time[1])
        wanted = np.flatnonzero((times >= choice.time[0]) & (times <= choice.time[1])).tolist()
        if not after.any():
            return f"a frame after {choice.time[1]:g} s (background.time)"
    else:
        wanted = list(choice.frames or ())
    there = sum(k < len(complete) and bool(complete[k]) for k in wanted)
    return "" if there == len(wanted) else f"{there} of its {len(wanted)} frames are there"


def _background_file(run: RunFile, plan: Plan, files: FrameFiles, notes: list[str]) -> tuple[Curves, Floats, str]:
    assert plan.spec is not None
    curves, weights = _reference_curves(run, files, "background.file", plan.spec, notes)
    names = files.frames[0].name + (f" and {len(files.frames) - 1} more" if len(files.frames) > 1 else "")
    return plan.reduced(curves), weights, f"{len(weights)} frames of {names}"


def _background_curve(run: RunFile, plan: Plan, path: Path) -> tuple[Curves, Floats, str]:
    settings = run.config.data.curves
    assert settings is not None and plan.curves is not None
    try:
        curves = open_curves((path,), q_unit=settings.q_unit, intensity_unit=settings.intensity_unit)
    except BadInput as error:
        raise run.error("background.curve", str(error)) from None
    if not np.array_equal(curves.q_nm, plan.curves.q_nm):
        raise run.error("background.curve", f"{path.name} has another q grid than the curves; integrate both alike")
    return plan.reduced(curves), np.ones(len(curves.index)), path.name


def _background_frames(run: RunFile, plan: Plan) -> list[int]:
    """Frame numbers of the background, sorted."""
    choice = run.config.background
    assert choice is not None
    if choice.frames is not None:
        if choice.frames[-1] >= len(plan):
            raise run.error(
                "background.frames", f"frame {choice.frames[-1]} does not exist; there are {len(plan)}, from 0"
            )
        return list(choice.frames)
    assert choice.time is not None
    times = plan.times_s
    inside = np.flatnonzero((times >= choice.time[0]) & (times <= choice.time[1]))
    if not len(inside):
        raise run.error(
            "background.time",
            f"no frame lies in {choice.time[0]:g} to {choice.time[1]:g} s after time.zero; "
            f"the frames run from {np.nanmin(times):.6g} to {np.nanmax(times):.6g} s",
        )
    return [int(i) for i in inside]


def times_doubts(plan: Plan) -> tuple[str, ...]:
    """Whether the time zero lies where the frames are."""
    times = plan.times_s
    if len(times) > 1 and plan.config.model is not None and not (times > 0).any():
        return ("every frame lies before data.time.zero; is it on the clock of the frames?",)
    return ()
