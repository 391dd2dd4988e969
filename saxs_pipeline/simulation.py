"""A simulated beamtime: raw frames in a beamline's layout with everything a run needs, and the truth beside it.

The images come from `science.synthetic` through pyFAI's geometry, the files from `io.layouts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from saxs_pipeline.io.id02_layout import Image, Series, Setup
from saxs_pipeline.io.layouts import WRITERS, write_image
from saxs_pipeline.runfile import ModelFile
from saxs_pipeline.science import population, scenarios, synthetic
from saxs_pipeline.science.completion import all_monomers
from saxs_pipeline.science.scenarios import Growth, Scenario, Truth
from saxs_pipeline.science.synthetic import Detector, Projection
from saxs_pipeline.simulation_files import KINETICS_TEXT, Timing, run_text, write_geometry, write_truth
from saxs_pipeline.types import BadInput, Floats

FEWEST_FRAMES = 20

Progress = Callable[[int, int], None]

SCENARIOS: Mapping[str, Scenario] = {
    "id02-cdse": scenarios.CDSE_AT_ID02,
    "p21-cspbbr3": scenarios.CSPBBR3_AT_P21,
}


@dataclass(frozen=True)
class _Bench:
    """Everything a frame is made from, but for the frame's own curve."""

    scenario: Scenario
    seed: int
    q_nm: Floats
    onto: Projection
    detector: Detector
    scales: synthetic.Scales
    populations: tuple[tuple[Truth, float], ...]  # with their contrasts, 1/Å²
    crystals: Floats | None  # (n, m) cross sections of a kinetic model's crystals


def simulate(
    scenario: str,
    out: Path,
    *,
    seed: int = 1,
    frames: int | None = None,
    layout: str | None = None,
    kinetics: ModelFile | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a beamtime of a scenario into the new folder `out`; returns the path of its run file.

    kinetics: the crystals are those of this model, with the sizes it gives them, instead of the scenario's.

    seed: the same seed gives the same bytes. frames: of the sample, default: the scenario's; fewer keep the time span
    by longer waits. layout: one of the scenario's, default: the first. progress(done, total): called after each image.
    Raises BadInput for an unknown scenario or layout, a folder that is not empty, or impossible numbers.
    """
    chosen = _modelled(_chosen(scenario, layout), kinetics)
    frames, layout = chosen.frames if frames is None else frames, layout or chosen.layouts[0]
    _check(out, seed, frames)
    timing = _sweep(chosen, frames) if layout == "p21" and chosen.sweep_s is not None else _stretched(chosen, frames)
    bench = _set_up(chosen, timing, seed, kinetics)
    raw = _new_folder(out)
    total = frames + sum(chosen.references.values())
    counter = _Counter(progress, total)
    written = {
        series.name: WRITERS[layout](raw, series, counter.over(_images(bench, series)), header_setup(chosen))
        for series in _all_series(bench, timing)
    }
    write_geometry(out / "geometry.poni", chosen)
    write_image(out / "mask.edf", bench.detector.mask.astype(np.uint8))
    write_image(out / "flat.edf", bench.detector.flat)
    write_truth(out / "truth.csv", [truth for truth, _ in bench.populations])
    run_file = out / "run.yaml"
    text = run_text(chosen, timing, written, layout)
    if kinetics is not None:
        (out / "kinetics.yaml").write_text(kinetics.text, encoding="utf-8")
        text += KINETICS_TEXT
    run_file.write_text(text, encoding="utf-8")
    return run_file


def _chosen(scenario: str, layout: str | None) -> Scenario:
    if scenario not in SCENARIOS:
        raise BadInput(f"unknown scenario {scenario!r}; choose one of: {', '.join(SCENARIOS)}")
    known = SCENARIOS[scenario].layouts
    if layout is not None and layout not in known:
        raise BadInput(f"unknown layout {layout!r} of {scenario}; choose one of: {', '.join(known)}")
    return SCENARIOS[scenario]


def _check(out: Path, seed: int, frames: int) -> None:
    if frames < FEWEST_FRAMES:
        raise BadInput(f"{frames} frames are too few for a series; ask for at least {FEWEST_FRAMES}")
    if seed < 0:
        raise BadInput(f"the seed must not be negative, got {seed}")
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out} is a file; name a new folder")
    if out.is_dir() and any(out.iterdir()):
        raise BadInput(f"{out} is not empty; name a new folder, nothing is overwritten")


def _new_folder(out: Path) -> Path:
    raw = out / "raw"
    try:
        raw.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"cannot make the folder {raw}: {error.strerror}; choose another place") from None
    return raw


# --- timing ----------------------------------------------------------------------------------------------------------


def _stretched(scenario: Scenario, frames: int) -> Timing:
    """The beamline's law; with another number of frames its growth is such that the last frame starts as late."""
    exposure, wait, growth = scenario.exposure_s, scenario.wait_s, scenario.wait_growth
    if frames != scenario.frames:
        last = synthetic.frame_starts(scenario.frames, exposure, wait, growth)[-1]
        growth = synthetic.growth_for_span(frames, exposure, wait, float(last))
    start = synthetic.frame_starts(frames, exposure, wait, growth)
    law = f"{{exposure: {exposure * 1e3:g} ms, wait: {wait * 1e3:g} ms, growth: {growth!r}}}"
    return _with_injection(scenario, start, exposure, law)


def _sweep(scenario: Scenario, frames: int) -> Timing:
    """Constant exposure and period."""
    assert scenario.sweep_s is not None
    exposure = scenario.sweep_exposure_s
    period = round(scenario.sweep_s / frames, 3)
    if period <= exposure:
        most = int(scenario.sweep_s / (exposure + 0.001))
        raise BadInput(f"{frames} frames do not fit into {scenario.sweep_s:.0f} s; simulate at most {most}")
    law = f"{{exposure: {exposure * 1e3:g} ms, wait: {(period - exposure) * 1e3:g} ms, growth: 1}}"
    start = synthetic.frame_starts(frames, exposure, period - exposure, 1.0)
    return _with_injection(scenario, start, exposure, law)


def _with_injection(scenario: Scenario, start_s: Floats, exposure_s: float, law: str) -> Timing:
    n_before = round(start_s.size * scenario.before_share)
    return Timing(start_s, exposure_s, n_before, round(float(start_s[n_before]), 6), law)


# --- bench and frames ------------------------------------------------------------------------------------------------


def _set_up(scenario: Scenario, timing: Timing, seed: int, kinetics: ModelFile | None) -> _Bench:
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
    q_nm = synthetic.q_grid(float(q_pixels.max()))
    populations, crystals = _particles(scenario, timing, q_nm, kinetics)
    return _Bench(
        scenario=scenario,
        seed=seed,
        q_nm=q_nm,
        onto=synthetic.projection(q_pixels, solid_angle, polarization, detector),
        detector=detector,
        scales=synthetic.draw_scales(scenario, seed),
        populations=populations,
        crystals=crystals,
    )


def _modelled(scenario: Scenario, kinetics: ModelFile | None) -> Scenario:
    """The scenario with the unit cell and the cations of the model: v₀ holds one cation.

    All of them may react, or are in starting crystals: the yield of the model counts both.
    """
    if kinetics is None:
        return scenario
    if not isinstance(scenario.growth, Growth):
        raise BadInput(f"{scenario.title}: two populations, which no kinetic model has; simulate id02-cdse with it")
    synthesis = kinetics.config.synthesis()
    cell_nm = 1e9 * (scenario.growth.cations_per_cell * synthesis.monomer_volume_m3) ** (1 / 3)
    growth = replace(scenario.growth, lattice_parameter_nm=cell_nm, cation_concentration_mmol_L=all_monomers(synthesis))
    return replace(scenario, title=f"{kinetics.config.title}, simulated", growth=growth)


def _particles(
    scenario: Scenario, timing: Timing, q_nm: Floats, kinetics: ModelFile | None
) -> tuple[tuple[tuple[Truth, float], ...], Floats | None]:
    """What there is to find in each frame, and with a kinetic model the curves of its crystals."""
    middle = timing.start_s + 0.5 * timing.exposure_s - timing.zero_s
    if kinetics is None:
        return scenario.populations(middle), None
    development = population.simulate(
        kinetics.config.synthesis(), float(middle[-1]), eta=0.5 * population.ETA, sizes=True
    )
    truth, contrast = scenarios.development_truth(middle, development), scenario.contrast_1_A2
    return ((truth, contrast),), synthetic.development_crystals(q_nm, middle, development, contrast)


def _all_series(bench: _Bench, timing: Timing) -> Iterator[Series]:
    """The scan of the sample and the reference measurements, one scan number each."""
    scenario = bench.scenario
    yield _series(bench, scenario.sample, 1, timing.start_s, timing.exposure_s)
    for scan, (name, n) in enumerate(scenario.references.items(), start=2):
        exposure = timing.exposure_s if name == "dark" else scenario.reference_s
        yield _series(bench, name, scan, synthetic.frame_starts(n, exposure, scenario.wait_s, 1.0), exposure)


def _series(bench: _Bench, name: str, scan: int, start_s: Floats, exposure_s: float) -> Series:
    """Times and monitors; I1 is proportional to the photons transmitted in the exposure."""
    scenario = bench.scenario
    transmission = scenario.transmissions["sample" if name == scenario.sample else name]
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
    if name == scenario.sample:
        return cell + scales.sample_thickness_mm * (scenario.solvent_1_mm + _of_particles(bench, index))
    if name == "water":
        return cell + scales.water_thickness_mm * scales.water_1_mm
    return synthetic.behenate_rings(q, *scenario.rings) if name == "agbh" else cell


def _of_particles(bench: _Bench, index: int) -> Floats:
    """Cross section (m,) of all populations of frame `index`, 1/mm."""
    if bench.crystals is not None:
        return np.asarray(bench.crystals[index])
    parts = [synthetic.crystals(bench.q_nm, truth, index, contrast) for truth, contrast in bench.populations]
    return np.asarray(sum(parts))


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


def header_setup(scenario: Scenario) -> Setup:
    """What headers and scalers of a beamline say of the scenario."""
    return Setup(
        shape=scenario.shape,
        pixel_m=scenario.pixel_m,
        distance_m=scenario.distance_m,
        centre_px=scenario.centre_px,
        wavelength_m=scenario.wavelength_m,
        pedestal=scenario.pedestal,
        saturation=scenario.saturation,
        detector=scenario.detector,
        monitor_per_count=scenario.beam_photons_s * scenario.monitor_per_photon / scenario.monitor_counts_s,
    )
