"""What stands beside the frames of a simulated beamtime: geometry, truth and run file."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saxs_pipeline.io.id02_layout import Written
from saxs_pipeline.science.scenarios import Coexistence, Growth, Scenario, Truth
from saxs_pipeline.types import Floats, Uncertain


@dataclass(frozen=True)
class Timing:
    """Starts on the clock of the scan, exposure, number of frames before the injection and the time of it."""

    start_s: Floats
    exposure_s: float
    n_before: int
    zero_s: float
    law: str


def write_geometry(path: Path, scenario: Scenario) -> None:
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


def write_truth(path: Path, truths: Sequence[Truth]) -> None:
    """One row per frame; time is mid-exposure, relative to the injection. A second population is the agglomerates."""
    names = ["frame", "t_s", *_TRUTH_COLUMNS, *(f"agglomerates_{name}" for name in _TRUTH_COLUMNS * (len(truths) - 1))]
    columns = [truths[0].time_s]
    for truth in truths:
        columns += [truth.radius_nm, truth.sigma_nm, truth.c_umol_L, truth.yield_]
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(names)
        rows.writerows([i, *(f"{x:.9g}" for x in row)] for i, row in enumerate(zip(*columns, strict=True)))


_TRUTH_COLUMNS = ["r_nm", "sigma_r_nm", "c_nc_umol_L", "yield"]

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
{detector}  saturation: {saturation}             # ADU
  polarization: {polarization:g}            # factor as in pyFAI
  solid_angle: true

integration: {{bins: 300, q_min: {q[0]:g} 1/nm, q_max: {q[1]:g} 1/nm, splitting: none}}

intensity:
  monitor: {monitor}                   # after the sample: the transmission is in it
  thickness: {sample_mm}
  water:                        # the absolute scale, from water in its cell against the empty cell
{water}
    empty:
{empty}
    thickness: {water_mm}
    cross_section: {water_1_mm}
    window: [{water_q[0]:g} 1/nm, {water_q[1]:g} 1/nm]    # where the difference is flat

background:
  frames: "0:{n_before}"                # all frames before the injection

{sample}
engine: {{scheduler: threads}}

output: {{folder: results, curves: {curves}}}
"""

_ADU_TEXT = """\
  dark: {dark}
  flat: flat.edf
  mask: mask.edf                # non-zero = masked: beamstop, gaps, hot and dead pixels
  pedestal: {pedestal:g}                  # ADU, in frames and darks alike
  gain: {gain:g}                     # ADU per photon
  read_noise: {noise:.4f}            # ADU, rounding to whole ADU included: sqrt({read_noise:g}^2 + 1/12)
"""

_COUNTER_TEXT = """\
  flat: flat.edf
  mask: mask.edf                # non-zero = masked: beamstop, gaps, hot and dead pixels
  gain: 1                       # a photon counter
  read_noise: 0
"""

_ONE_TEXT = """\
sample:
  contrast: {contrast:g} 1/Å^2
  lattice_parameter: {lattice:.9g} nm
  cations_per_cell: {cations}
  cation_concentration: {concentration:g} mmol/L   # exact here; in real life say for instance "26 mmol/L ± 1 %"

model: {{q_min: {q[0]:g} 1/nm, q_max: {q[1]:g} 1/nm, radius: [0.5 nm, 4 nm], sigma: [0.03 nm, 0.6 nm]}}
"""

_TWO_TEXT = """\
sample:                         # of all populations
  solvent: {{formula: {g.solvent}, density: {g.solvent_g_cm3:g} g/cm^3}}
  cation_concentration: {g.cation_concentration_mmol_L:g} mmol/L   # Cs; exact here, in real life say "5 mmol/L ± 1 %"

model:
  q_min: {q[0]:g} 1/nm
  q_max: {q[1]:g} 1/nm
  distribution: gaussian
  populations:                  # the first is the main one, which the analysis of the series is about
    - name: crystals
      radius: [1.8 nm, 5 nm]
      sigma: [0.05 nm, 1 nm]
      particle: {{formula: {g.formula}, lattice_parameter: {g.lattice_parameter_nm:g} nm, formula_units: {units}}}
      lattice_parameter: {g.lattice_parameter_nm:g} nm
      cations_per_cell: {units}
    - name: agglomerates        # of Cs[PbBr3], less dense than the crystals
      radius: [0.8 nm, 1.8 nm]
      sigma: [0.03 nm, 0.5 nm]
      particle: {{formula: {g.formula}, lattice_parameter: {g.agglomerate_lattice_nm:g} nm, formula_units: {units}}}
      lattice_parameter: {g.agglomerate_lattice_nm:g} nm
      cations_per_cell: {units}
"""

KINETICS_TEXT = """
# The crystals were made by the kinetic model in kinetics.yaml; to hold the results against it:
# kinetics: {model: kinetics.yaml, fit: [A, gamma, n, k1]}
"""


def run_text(scenario: Scenario, timing: Timing, written: Mapping[str, Written], layout: str) -> str:
    """The run file that finds the truth again, up to the statistics."""
    after = timing.start_s + 0.5 * timing.exposure_s - timing.zero_s
    detector = "\n  detector: pilatus" if layout == "p21" else ""
    return _RUN_TEXT.format(
        layout=layout,
        title=scenario.title,
        data=_file_keys(written[scenario.sample], "  ") + detector,
        zero=timing.zero_s,
        law=timing.law,
        detector=_detector_text(scenario, written),
        saturation=scenario.saturation,
        polarization=scenario.polarization,
        monitor="ion2" if layout == "p21" else "I1",
        sample_mm=_with_percent(scenario.sample_mm, "mm"),
        water=_file_keys(written["water"], "    "),
        empty=_file_keys(written["empty"], "      "),
        water_mm=_with_percent(scenario.water_mm, "mm"),
        water_1_mm=_with_percent(scenario.water_1_mm, "1/mm"),
        n_before=timing.n_before,
        q=scenario.q_nm,
        water_q=scenario.water_nm,
        sample=_sample_text(scenario, scenario.growth),
        curves=sorted({int(np.abs(after - t).argmin()) for t in scenario.shown_s}),
    )


def _detector_text(scenario: Scenario, written: Mapping[str, Written]) -> str:
    """What the detector adds to the photons; a counter adds nothing."""
    if scenario.read_noise == 0:
        return _COUNTER_TEXT
    return _ADU_TEXT.format(
        dark=written["dark"].frames,
        pedestal=scenario.pedestal,
        gain=scenario.gain,
        read_noise=scenario.read_noise,
        noise=math.sqrt(scenario.read_noise**2 + 1 / 12),
    )


def _sample_text(scenario: Scenario, growth: Growth | Coexistence) -> str:
    """The sections `sample` and `model`."""
    if isinstance(growth, Coexistence):
        return _TWO_TEXT.format(g=growth, units=growth.cations_per_cell, q=scenario.fit_nm)
    return _ONE_TEXT.format(
        contrast=scenario.contrast_1_A2,
        lattice=growth.lattice_parameter_nm,
        cations=growth.cations_per_cell,
        concentration=growth.cation_concentration_mmol_L,
        q=scenario.fit_nm,
    )


def _file_keys(written: Written, indent: str) -> str:
    lines = [f"{indent}frames: {written.frames}"]
    if written.scalers is not None:
        lines.append(f"{indent}scalers: {written.scalers}")
    return "\n".join(lines)


def _with_percent(quantity: Uncertain, unit: str) -> str:
    return f"{quantity.value:g} {unit} ± {100 * quantity.relative:g} %"
