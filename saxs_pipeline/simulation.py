"""A simulated beamtime: raw frames in a beamline's layout with everything a run needs, and the truth beside it.

The images come from `science.synthetic` through pyFAI's geometry, the files from `io.layouts`.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saxs_pipeline.io.id02_layout import Image, Series, Setup, Written
from saxs_pipeline.io.layouts import WRITERS, write_image
from saxs_pipeline.science import synthetic
from saxs_pipeline.science.synthetic import Detector, Projection, Scenario, Truth
from saxs_pipeline.types import BadInput, Floats, Uncertain

FEWEST_FRAMES = 20

Progress = Callable[[int, int], None]

SCENARIOS: Mapping[str, Scenario] = {"id02-cdse": Scenario("CdSe hot injection at 260 °C, simulated")}


@dataclass(frozen=True)
class _Timing:
    """Starts on the clock of the scan, exposure, number of frames before the injection and the time of it."""

    start_s: Floats
    exposure_s: float
    n_before: int
    zero_s: float
    law: str


@dataclass(frozen=True)
class _Bench:
    """Everything a frame is made from, but for the frame's own curve."""

    scenario: Scenario
    seed: int
    q_nm: Floats
    onto: Projection
    detector: Detector
    scales: synthetic.Scales
    truth: Truth


def simulate(
    scenario: str,
    out: Path,
    *,
    seed: int = 1,
    frames: int = 575,
    layout: str = "id02",
    progress: Progress | None = None,
) -> Path:
    """Write a beamtime of a scenario into the new folder `out`; returns the path of its run file.

    seed: the same seed gives the same bytes. frames: of the sample; fewer than the scenario's keep the time span by
    longer waits. layout: see `io.layouts.WRITERS`. progress(done, total) is called after each image.
    Raises BadInput for an unknown scenario or layout, a folder that is not empty, or impossible numbers.
    """
    chosen = _checked(scenario, out, seed, frames, layout)
    timing = _sweep(chosen, frames) if layout == "p21" else _stretched(chosen, frames)
    bench = _set_up(chosen, timing, seed)
    raw = _new_folder(out)
    total = frames + sum(chosen.references.values())
    counter = _Counter(progress, total)
    written = {
        series.name: WRITERS[layout](raw, series, counter.over(_images(bench, series)), _header_setup(chosen))
        for series in _all_series(bench, timing)
    }
    _write_geometry(out / "geometry.poni", chosen)
    write_image(out / "mask.edf", bench.detector.mask.astype(np.uint8))
    write_image(out / "flat.edf", bench.detector.flat)
    _write_truth(out / "truth.csv", bench.truth)
    run_file = out / "run.yaml"
    run_file.write_text(_run_text(chosen, timing, written, layout), encoding="utf-8")
    return run_file


def _checked(scenario: str, out: Path, seed: int, frames: int, layout: str) -> Scenario:
    if scenario not in SCENARIOS:
        raise BadInput(f"unknown scenario {scenario!r}; choose one of: {', '.join(SCENARIOS)}")
    if layout not in WRITERS:
        raise BadInput(f"unknown layout {layout!r}; choose one of: {', '.join(WRITERS)}")
    if frames < FEWEST_FRAMES:
        raise BadInput(f"{frames} frames are too few for a series; ask for at least {FEWEST_FRAMES}")
    if seed < 0:
        raise BadInput(f"the seed must not be negative, got {seed}")
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out} is a file; name a new folder")
    if out.is_dir() and any(out.iterdir()):
        raise BadInput(f"{out} is not empty; name a new folder, nothing is overwritten")
    return SCENARIOS[scenario]


def _new_folder(out: Path) -> Path:
    raw = out / "raw"
    try:
        raw.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"cannot make the folder {raw}: {error.strerror}; choose another place") from None
    return raw


# --- timing ----------------------------------------------------------------------------------------------------------


def _stretched(scenario: Scenario, frames: int) -> _Timing:
    """The beamline's law; with another number of frames its growth is such that the last frame starts as late."""
    exposure, wait, growth = scenario.exposure_s, scenario.wait_s, scenario.wait_growth
    if frames != scenario.frames:
        last = synthetic.frame_starts(scenario.frames, exposure, wait, growth)[-1]
        growth = synthetic.growth_for_span(frames, exposure, wait, float(last))
    start = synthetic.frame_starts(frames, exposure, wait, growth)
    law = f"{{exposure: {exposure * 1e3:g} ms, wait: {wait * 1e3:g} ms, growth: {growth!r}}}"
    return _with_injection(scenario, start, exposure, law)


def _sweep(scenario: Scenario, frames: int) -> _Timing:
    """Constant exposure and period."""
    exposure = scenario.sweep_exposure_s
    period = round(scenario.sweep_s / frames, 3)
    if period <= exposure:
        most = int(scenario.sweep_s / (exposure + 0.001))
        raise BadInput(f"{frames} frames do not fit into {scenario.sweep_s:.0f} s; simulate at most {most}")
    law = f"{{exposure: {exposure * 1e3:g} ms, wait: {(period - exposure) * 1e3:g} ms, growth: 1}}"
    start = synthetic.frame_starts(frames, exposure, period - exposure, 1.0)
    return _with_injection(scenario, start, exposure, law)


def _with_injection(scenario: Scenario, start_s: Floats, exposure_s: float, law: str) -> _Timing:
    n_before = round(start_s.size * scenario.before_share)
    return _Timing(start_s, exposure_s, n_before, round(float(start_s[n_before]), 6), law)


# --- bench and frames ------------------------------------------------------------------------------------------------


def _set_up(scenario: Scenario, timing: _Timing, seed: int) -> _Bench:
    from pyFAI.detectors import Detector as PyfaiDetector
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

    poni1, poni2 = (scenario.centre_px[axis] * scenario.pixel_m for axis in (1, 0))
    ai = AzimuthalIntegrator(
        dist=scenario.distance_m,
        poni1=poni1,
        poni2=poni2,
        wavelength=scenario.wavelength_m,
        detector=PyfaiDetector(scenario.pixel_m, scenario.pixel_m, max_shape=scenario.shape),
    )
    detector = synthetic.build_detector(scenario, seed)
    q_pixels = ai.array_from_unit(scenario.shape, "center", "q_nm^-1", scale=True)
    solid_angle = ai.solidAngleArray(scenario.shape) * (scenario.pixel_m / scenario.distance_m) ** 2
    polarization = ai.polarization(scenario.shape, factor=scenario.polarization)
    return _Bench(
        scenario=scenario,
        seed=seed,
        q_nm=synthetic.q_grid(float(q_pixels.max())),
        onto=synthetic.projection(q_pixels, solid_angle, polarization, detector),
        detector=detector,
        scales=synthetic.draw_scales(scenario, seed),
        truth=synthetic.growth_truth(timing.start_s + 0.5 * timing.exposure_s - timing.zero_s, scenario.growth),
    )


def _all_series(bench: _Bench, timing: _Timing) -> Iterator[Series]:
    """The scan of the sample and the reference measurements, one scan number each."""
    yield _series(bench, "cdse", 1, timing.start_s, timing.exposure_s)
    scenario = bench.scenario
    for scan, (name, n) in enumerate(scenario.references.items(), start=2):
        exposure = timing.exposure_s if name == "dark" else scenario.reference_s
        yield _series(bench, name, scan, synthetic.frame_starts(n, exposure, scenario.wait_s, 1.0), exposure)


def _series(bench: _Bench, name: str, scan: int, start_s: Floats, exposure_s: float) -> Series:
    """Times and monitors; I1 is proportional to the photons transmitted in the exposure."""
    scenario, transmission = bench.scenario, bench.scenario.transmissions[name]
    beam = synthetic.beam_intensity(start_s + 0.5 * exposure_s, bench.seed, scan) if transmission else 0.0 * start_s
    i0 = scenario.beam_photons_s * exposure_s * scenario.monitor_per_photon * beam
    return Series(name, scan, start_s, np.full(start_s.size, exposure_s), i0, i0 * transmission)


def _images(bench: _Bench, series: Series) -> Iterator[Image]:
    for index in range(series.start_s.size):
        transmitted = float(series.i1[index]) / bench.scenario.monitor_per_photon
        photons = synthetic.expected_photons(_scattering(bench, series.name, index), transmitted, bench.onto)
        rng = synthetic.frame_stream(bench.seed, series.scan, index)
        yield synthetic.read_out(photons, bench.detector, rng)


def _scattering(bench: _Bench, name: str, index: int) -> Floats:
    """Curve (m,) on bench.q_nm of frame `index` of a measurement, per steradian: cross section times path length."""
    scenario, scales, q = bench.scenario, bench.scales, bench.q_nm
    cell = synthetic.windows(q, scenario.window_flat, scenario.window_porod_nm4)
    match name:
        case "cdse":
            particles = synthetic.crystals(q, bench.truth, index, scenario.contrast_1_A2)
            return cell + scales.sample_thickness_mm * (scenario.solvent_1_mm + particles)
        case "water":
            return cell + scales.water_thickness_mm * scales.water_1_mm
        case "agbh":
            return synthetic.behenate_rings(q, *scenario.rings)
    return cell


class _Counter:
    """Reports the images as they are written."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def over(self, images: Iterator[Image]) -> Iterator[Image]:
        for image in images:
            yield image
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, self._total)


# --- files beside the frames -----------------------------------------------------------------------------------------


def _header_setup(scenario: Scenario) -> Setup:
    return Setup(
        shape=scenario.shape,
        pixel_m=scenario.pixel_m,
        distance_m=scenario.distance_m,
        centre_px=scenario.centre_px,
        wavelength_m=scenario.wavelength_m,
        pedestal=scenario.pedestal,
        saturation=scenario.saturation,
        monitor_per_count=scenario.beam_photons_s * scenario.monitor_per_photon / scenario.monitor_counts_s,
    )


def _write_geometry(path: Path, scenario: Scenario) -> None:
    """A PONI file as pyFAI writes it, without its time stamp."""
    config = {"pixel1": scenario.pixel_m, "pixel2": scenario.pixel_m, "max_shape": list(scenario.shape)}
    lines = (
        "# Geometry of the simulated camera",
        "poni_version: 2.1",
        "Detector: Detector",
        f"Detector_config: {json.dumps(config | {'orientation': 3})}",
        f"Distance: {scenario.distance_m!r}",
        f"Poni1: {scenario.centre_px[1] * scenario.pixel_m!r}",
        f"Poni2: {scenario.centre_px[0] * scenario.pixel_m!r}",
        *(f"Rot{k}: 0.0" for k in (1, 2, 3)),
        f"Wavelength: {scenario.wavelength_m!r}",
    )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_truth(path: Path, truth: Truth) -> None:
    """One row per frame; time is mid-exposure, relative to the injection."""
    columns = (truth.time_s, truth.radius_nm, truth.sigma_nm, truth.c_umol_L, truth.yield_)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["frame", "t_s", "r_nm", "sigma_r_nm", "c_nc_umol_L", "yield"])
        rows.writerows([i, *(f"{x:.9g}" for x in row)] for i, row in enumerate(zip(*columns, strict=True)))


_RUN_TEXT = """\
# Run file of a simulated beamtime, in the layout "{layout}". Paths are relative to this file.
#   saxs-pipeline check run.yaml     what would be done
#   saxs-pipeline run run.yaml       do it; truth.csv says what a perfect measurement would find
title: {title}

data:
{data}
  time:
    zero: {zero:.6f} s          # the injection, on the clock of the frames
    # source: law               # if the frames had no times of their own:
    # law: {law}

geometry:
  poni: geometry.poni

corrections:
  dark: {dark}
  flat: flat.edf
  mask: mask.edf                # non-zero = masked: beamstop, gaps, hot and dead pixels
  pedestal: {pedestal:g}                  # ADU, in frames and darks alike
  gain: {gain:g}                     # ADU per photon
  read_noise: {noise:.4f}            # ADU, rounding to whole ADU included: sqrt({read_noise:g}^2 + 1/12)
  saturation: {saturation}             # ADU
  polarization: {polarization:g}            # factor as in pyFAI
  solid_angle: true

integration: {{bins: 300, q_min: 0.1 1/nm, q_max: 5 1/nm, splitting: none}}

intensity:
  monitor: {monitor}                   # after the sample: the transmission is in it
  thickness: {sample_mm}
  water:                        # the absolute scale, from water in its cell against the empty cell
{water}
    empty:
{empty}
    thickness: {water_mm}
    cross_section: {water_1_mm}
    window: [1 1/nm, 4 1/nm]    # where the difference is flat

background:
  frames: "0:{n_before}"                # all frames before the injection

sample:
  contrast: {contrast} 1/Å^2
  lattice_parameter: {lattice:g} nm
  cations_per_cell: {cations}
  cation_concentration: {cation_concentration:g} mmol/L   # exact here; in real life say for instance "26 mmol/L ± 1 %"

model: {{q_min: 0.15 1/nm, q_max: 5 1/nm, radius: [0.5 nm, 4 nm], sigma: [0.03 nm, 0.6 nm]}}

engine: {{scheduler: threads}}

output: {{folder: results, curves: {curves}}}
"""

_SHOWN_S = (1.8, 5.3, 11.0, 22.0, 76.0, 4680.0)  # the curves of Prins SI, Fig. S2.1


def _run_text(scenario: Scenario, timing: _Timing, written: Mapping[str, Written], layout: str) -> str:
    growth, after = scenario.growth, timing.start_s + 0.5 * timing.exposure_s - timing.zero_s
    detector = "\n  detector: pilatus" if layout == "p21" else ""
    return _RUN_TEXT.format(
        layout=layout,
        title=scenario.title,
        data=_file_keys(written["cdse"], "  ") + detector,
        zero=timing.zero_s,
        law=timing.law,
        dark=written["dark"].frames,
        pedestal=scenario.pedestal,
        gain=scenario.gain,
        read_noise=scenario.read_noise,
        noise=math.sqrt(scenario.read_noise**2 + 1 / 12),
        saturation=scenario.saturation,
        polarization=scenario.polarization,
        monitor="ion2" if layout == "p21" else "I1",
        sample_mm=_with_percent(scenario.sample_mm, "mm"),
        water=_file_keys(written["water"], "    "),
        empty=_file_keys(written["empty"], "      "),
        water_mm=_with_percent(scenario.water_mm, "mm"),
        water_1_mm=_with_percent(scenario.water_1_mm, "1/mm"),
        n_before=timing.n_before,
        contrast=f"{scenario.contrast_1_A2:g}",
        lattice=growth.lattice_parameter_nm,
        cations=growth.cations_per_cell,
        cation_concentration=growth.cation_concentration_mmol_L,
        curves=sorted({int(np.abs(after - t).argmin()) for t in _SHOWN_S}),
    )


def _file_keys(written: Written, indent: str) -> str:
    lines = [f"{indent}frames: {written.frames}"]
    if written.scalers is not None:
        lines.append(f"{indent}scalers: {written.scalers}")
    return "\n".join(lines)


def _with_percent(quantity: Uncertain, unit: str) -> str:
    return f"{quantity.value:g} {unit} ± {100 * quantity.relative:g} %"
