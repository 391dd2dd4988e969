"""What a run would do (`check`) and what is in a file (`inspect`), as rows of text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from saxs_pipeline import engine, geometry
from saxs_pipeline.config import GlassyCarbon, Intensity
from saxs_pipeline.engine_config import Engine
from saxs_pipeline.io.curves_source import open_curves
from saxs_pipeline.io.frames import open_frames
from saxs_pipeline.io.scalers import read_scalers
from saxs_pipeline.omissions import standard_files, warnings
from saxs_pipeline.outputs.numbers import plus_minus
from saxs_pipeline.pipeline import check_reaction
from saxs_pipeline.plan import Plan, curve_model, open_curve_stack
from saxs_pipeline.runfile import RunFile
from saxs_pipeline.sample_config import Material, Sample
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.science.standards import FREEZING_K
from saxs_pipeline.series import BLOCK_BYTES, FrameSeries, open_dark, open_reference, open_sample
from saxs_pipeline.stages.integrate import IntegrationSpec, build_integrator, pixel_q_nm
from saxs_pipeline.stages.quantify import Scatterer, contrast_1_A2, scatterer
from saxs_pipeline.types import BadInput, Floats, FrameTimes, SourceInfo, Uncertain

Rows = list[tuple[str, str]]

STANDARDS = {
    "intensity.water": "water",
    "intensity.water.empty": "empty cell",
    "intensity.glassy_carbon": "glassy carbon",
    "intensity.glassy_carbon.background": "carbon's background",
}
"""What the frames of a standard are called, by their place in the run file."""


def check(run: RunFile) -> Rows:
    """What `run` would do, from headers and scalers alone; raises BadInput where it could not start."""
    reaction = _reaction_rows(run)
    if run.config.data.frames is None:
        curves = open_curve_stack(run)
        rows = [("curves", f"{len(curves.index)} × {len(curves.q_nm)} points"), _time_row(curves.time_s)]
        energy = run.config.geometry.energy if run.config.geometry is not None else None
        model = curve_model(run, Plan(run.config, None, curves, None, energy, None))
        rows += [*_contrasts(run, energy), ("model", _model_text(model))]
        return rows + reaction + [("note", text) for text in warnings(run)]
    series = open_sample(run)
    spec = geometry.specify(run, series.info)
    energy = geometry.energy_keV(spec.geometry)
    model = curve_model(run, Plan(run.config, None, None, spec, energy, None))
    rows = [
        ("frames", _frames_text(series.info)),
        _time_row(series.start_s + 0.5 * series.exposure_s),
        ("time source", series.time_origin),
        ("monitor", _monitor_text(run.config.intensity, series)),
        *_geometry_rows(spec),
        *_option_rows(run, spec),
        *_reference_rows(run),
        ("background", _background_text(run, series)),
        *_contrasts(run, energy),
        ("model", _model_text(model)),
        *_size_rows(run),
        *reaction,
        ("memory", _memory_text(series.info, spec, run.config.engine)),
        ("results", str(run.config.output.folder)),
    ]
    bad = sum(bool(problem) for problem in series.problems)
    if bad:
        rows.append(("note", f"{bad} frames have no usable monitor and will be skipped"))
    return rows + [("note", text) for text in (*warnings(run), *series.warnings)]


def _reaction_rows(run: RunFile) -> Rows:
    aliquots, rows = check_reaction(run), []
    if run.kinetics is not None and run.config.kinetics is not None:
        fitted = ", ".join(run.config.kinetics.fit)
        rows.append(("kinetic model", f"{run.kinetics.config.title}; {f'fit of {fitted}' if fitted else 'no fit'}"))
    if aliquots is not None:
        times = aliquots.time_s
        rows.append(("aliquots", f"{times.size} of {aliquots.source}, {times.min():.6g} to {times.max():.6g} s"))
    return rows


def inspect(path: Path) -> Rows:
    """What is in a file: frames, integrated curves, or scalers, recognised from its content."""
    readers: tuple[Callable[[Path], Rows], ...] = (_inspect_frames, _inspect_curves, _inspect_scalers)
    errors = []
    for reader in readers:
        try:
            return [("file", str(path)), *reader(path)]
        except BadInput as error:
            errors.append(error)
    raise errors[0]


def _inspect_frames(path: Path) -> Rows:
    source = open_frames((path,))
    info = source.info
    source.close()
    rows = [("format", info.kind), ("frames", _frames_text(info))]
    rows += _times_rows(info.times) + _monitor_rows(info.monitors)
    if info.geometry is not None:
        g = info.geometry
        rows.append(("distance", f"{g.distance_m:g} m"))
        rows.append(("beam centre", f"{g.poni2_m / g.pixel2_m:.2f}, {g.poni1_m / g.pixel1_m:.2f} px (fast, slow)"))
        rows.append(("pixel size", f"{g.pixel2_m * 1e6:g} × {g.pixel1_m * 1e6:g} µm"))
        if g.wavelength_m:
            rows.append(("energy", f"{geometry.HC_KEV_M / g.wavelength_m:.6g} keV"))
        if any((g.rot1, g.rot2, g.rot3)):
            rows.append(("rotation", f"{g.rot1:g}, {g.rot2:g}, {g.rot3:g} rad"))
    for name, value in (("dummy", info.dummy), ("pedestal", info.pedestal), ("saturation", info.saturation)):
        if value is not None:
            rows.append((name, f"{value:g} ADU"))
    rows += [(f"header {key}", value) for key, value in info.header.items()]
    return rows + [("note", text) for text in info.warnings]


def _inspect_curves(path: Path) -> Rows:
    curves = open_curves((path,), q_unit=None, intensity_unit="1/mm")
    return [
        ("format", "integrated curves"),
        ("curves", f"{len(curves.index)} × {len(curves.q_nm)} points"),
        ("q", f"{curves.q_nm[0]:.4g} to {curves.q_nm[-1]:.4g} 1/nm (as the file says, or taken to be 1/nm)"),
        _time_row(curves.time_s),
    ]


def _inspect_scalers(path: Path) -> Rows:
    table = read_scalers(path)
    return [
        ("format", table.kind),
        *_times_rows(table.times),
        *_monitor_rows(table.monitors),
        *(("note", text) for text in table.warnings),
    ]


def _frames_text(info: SourceInfo) -> str:
    files = f"{len(info.paths)} files, first {info.paths[0].name}" if len(info.paths) > 1 else info.paths[0].name
    return f"{info.n_frames} of {info.shape[0]} × {info.shape[1]} px, {info.dtype} ({info.kind}, {files})"


def _time_row(times: Floats) -> tuple[str, str]:
    known = times[np.isfinite(times)]
    if not len(known):
        return ("time", "not known")
    return ("time", f"{known[0]:.6g} to {known[-1]:.6g} s after time.zero (mid-exposure)")


def _times_rows(times: FrameTimes | None) -> Rows:
    if times is None:
        return [("times", "none in this file")]
    start, exposure = times.start_s, times.exposure_s
    text = f"{len(start)} starts {start[0]:.6g} to {start[-1]:.6g} s, exposure {_range_text(exposure)} s"
    return [("times", f"{text} ({times.origin})")]


def _monitor_rows(monitors: Mapping[str, Floats]) -> Rows:
    return [(f"monitor {name}", _range_text(values)) for name, values in monitors.items()]


def _range_text(values: Floats) -> str:
    known = values[np.isfinite(values)]
    if not len(known):
        return "no finite value"
    return f"{known.min():.6g}" if known.min() == known.max() else f"{known.min():.6g} to {known.max():.6g}"


def _geometry_rows(spec: IntegrationSpec) -> Rows:
    integrator = build_integrator(spec.geometry)
    centre = spec.beam_centre_px
    q = pixel_q_nm(integrator, spec.mask_as_meant.shape)[~spec.mask_as_meant]
    return [
        (
            "geometry",
            f"{integrator.dist:.6g} m, {geometry.energy_keV(spec.geometry):.6g} keV, beam centre "
            f"{centre[0]:.2f}, {centre[1]:.2f} px (fast, slow)",
        ),
        ("mask", ", ".join([f"{spec.mask.mean():.1%} of the pixels", *spec.bad_pixels])),
        ("q range", f"{q.min():.4g} to {q.max():.4g} 1/nm on the detector"),
        ("q bins", f"{spec.bins} in {spec.q_range_nm[0]:g} to {spec.q_range_nm[1]:g} 1/nm, {spec.splitting} splitting"),
    ]


def _monitor_text(intensity: Intensity, series: FrameSeries) -> str:
    relative = intensity.monitor_uncertainty
    each = "" if relative is None else f", each ± {100 * relative:.2g} %"
    return f"{intensity.monitor}: {_range_text(series.monitor)}{each}"


def _option_rows(run: RunFile, spec: IntegrationSpec) -> Rows:
    """What is switched on besides."""
    rows, rebin = [], run.config.rebin
    if spec.orientation != "none":
        rows.append(("orientation", f"{spec.orientation} of the stored images"))
    if spec.clip is not None:
        rows.append(("outliers", f"left out beyond {spec.clip.threshold:g} σ of their bin (sigma_clip)"))
    if rebin is not None:
        bins = Plan(run.config, None, None, spec, None, None).q_nm.size
        rows.append(("re-binned", f"to {bins} of {rebin.bins} {rebin.spacing} bins, those that hold any of the above"))
    if spec.device != "cpu":
        rows.append(("device", spec.device))
    return rows


def _reference_rows(run: RunFile) -> Rows:
    corrections = run.config.corrections
    background = run.config.background
    rows = []
    if corrections is not None and corrections.dark is not None:
        rows.append(("dark", _frames_text(open_dark(run, corrections.dark).info)))
    rows.append(("absolute scale", _scale_text(run.config.intensity)))
    for files, key in standard_files(run):
        rows.append((STANDARDS[key], _frames_text(open_reference(run, files, key).info)))
    if background is not None and background.file is not None:
        rows.append(("background file", _frames_text(open_reference(run, background.file, "background.file").info)))
    return rows


def _scale_text(intensity: Intensity) -> str:
    """What calibrates, with what is known of it."""
    standard = intensity.standard
    if standard is None:
        return "none" if intensity.scale is None else f"given, {plus_minus(*intensity.scale)}"
    window = "all certified q" if standard.window is None else f"{standard.window[0]:g} to {standard.window[1]:g} 1/nm"
    thickness = f"{plus_minus(*standard.thickness, unit='mm')} thick"
    if isinstance(standard, GlassyCarbon):
        return f"glassy carbon SRM 3600, {thickness}, in {window}"
    known = plus_minus(*standard.known, unit="1/mm")
    at = "" if standard.temperature is None else f" at {celsius(standard.temperature)}"
    return f"water{at}, {known}, {thickness}, in {window}"


def _contrasts(run: RunFile, energy_keV: float | None) -> Rows:
    """The contrast of each population, and what it is made of."""
    model, sample = run.config.model, run.config.sample
    if model is None or model.populations is None:
        return _contrast_rows(sample, energy_keV) if sample is None or sample.lacks is None else []
    rows = []
    for one, own in zip(model.populations, model.samples(sample), strict=True):
        rows += [(f"{one.name}: {name}", text) for name, text in _contrast_rows(own, energy_keV)]
    return rows


def _model_text(model: CurveModel | None) -> str:
    """ "Gaussian spheres + constant"."""
    if model is None:
        return "none: stops at I(q)"
    several = [f"{p.name} {p.radius_nm[0]:g} to {p.radius_nm[1]:g} nm" for p in model.populations if p.name]
    shape = {"gaussian": "Gaussian", "lognormal": "lognormal", "schulz": "Schulz–Zimm"}[model.distribution]
    terms = [f"{shape} spheres" + (f" ({', '.join(several)})" if several else "")]
    if model.volume_fraction is not None:
        terms[0] += f" as hard spheres, volume fraction {_limits_text(model.volume_fraction)}"
    if model.power_law is not None:
        terms.append(f"q^-p, p {_limits_text(model.power_law)}")
    terms.append("constant" if model.constant is None else f"{model.constant:g} 1/mm")
    smeared = f", smeared with σ_q = {_limits_text(model.sigma_q_range, 3)} 1/nm" if model.sigma_q_1_nm else ""
    held = [
        *(f"{name} {value:g} nm" for name, value in model.fixed),
        *(f"{name} = {text}" for name, text in model.tied),
    ]
    return " + ".join(terms) + smeared + (f"; {', '.join(held)}" if held else "")


def _limits_text(pair: tuple[float, float], digits: int = 6) -> str:
    return f"{pair[0]:.{digits}g}" if pair[0] == pair[1] else f"{pair[0]:.{digits}g} to {pair[1]:.{digits}g}"


def _contrast_rows(sample: Sample | None, energy_keV: float | None) -> Rows:
    """The contrast, and what it is made of."""
    if sample is None:
        return []
    text = plus_minus(*contrast_1_A2(sample, energy_keV), unit="1/Å²")
    if sample.contrast is not None or energy_keV is None:
        return [("contrast", f"{text}, given")]
    rows = [("contrast", f"{text}, from compositions at {energy_keV:.6g} keV")]
    for name, material in sample.materials.items():
        found = scatterer(material, sample.temperature, energy_keV)
        rows.append((name, _material_text(material, found, sample.temperature)))
    return rows


def _material_text(material: Material, found: Scatterer, temperature_K: Uncertain | None) -> str:
    parts = [f"{material.formula}, {plus_minus(*found.density_g_cm3, unit='g/cm³')}"]
    if material.lattice_parameter is not None:
        parts.append(f"{material.formula_units} per cell of {plus_minus(*material.lattice_parameter, unit='nm')}")
    if material.density_at is not None and temperature_K is not None:
        parts.append(f"expanded from {material.density_at - FREEZING_K:g} to {celsius(temperature_K)}")
    return ", ".join([*parts, plus_minus(*found.length_density_1_A2, unit="1/Å²")])


def celsius(temperature_K: Uncertain) -> str:
    """ "20.00 ± 0.50 °C"."""
    return plus_minus(temperature_K.value - FREEZING_K, temperature_K.error, unit="°C")


def _background_text(run: RunFile, series: FrameSeries) -> str:
    choice = run.config.background
    if choice is None:
        return "none: nothing is subtracted"
    if choice.file is not None:
        return "frames of its own"
    if choice.frames is not None:
        return f"{len(choice.frames)} frames of the scan"
    assert choice.time is not None
    times = series.start_s + 0.5 * series.exposure_s
    inside = int(((times >= choice.time[0]) & (times <= choice.time[1])).sum())
    if not inside:
        raise run.error(
            "background.time", f"no frame lies in {choice.time[0]:g} to {choice.time[1]:g} s after time.zero"
        )
    return f"{inside} frames of the scan, {choice.time[0]:g} to {choice.time[1]:g} s"


def _memory_text(info: SourceInfo, spec: IntegrationSpec, settings: Engine) -> str:
    pixels = info.shape[0] * info.shape[1]
    chunks = engine.workers(settings) * max(BLOCK_BYTES, pixels * info.dtype.itemsize)
    working = pixels * 8 * 8 + info.n_frames * spec.bins * 8 * 10
    return f"about {(chunks + working) / 2**20:.0f} MiB above the libraries, {engine.workers(settings)} workers"


def _size_rows(run: RunFile) -> list[tuple[str, str]]:
    sizes = run.config.sizes
    if sizes is None:
        return []
    low, high = sizes.radius
    return [("sizes", f"distributions without a shape assumption, {sizes.bins} radii from {low:g} to {high:g} nm")]
