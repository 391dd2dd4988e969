"""What a run file leaves open: every uncertainty that is not stated is named, in one line; what one of q would do."""

from __future__ import annotations

import re

import numpy as np
import pytest

from saxs_pipeline import runfile
from saxs_pipeline.omissions import warnings
from saxs_pipeline.science.batchfit import fit_frames
from saxs_pipeline.science.distributions import mean_volume
from tests.one_curve import FACTOR, Q, spheres
from tests.spheres import gaussian_model

HEAD = """\
title: CsPbBr3
data: {curves: {files: 'frame_*.dat', q_unit: 1/nm, intensity_unit: 1/mm}, time: {law: {exposure: 1 s, wait: 1 s}}}
"""
MODEL = "model: {q_min: 0.2 1/nm, q_max: 4 1/nm}\n"
CELL = "lattice_parameter: 0.587 nm, cations_per_cell: 1"
TWO = f"""\
sample:
  solvent: {{formula: C6H14, density: 0.655 g/cm^3}}
  cation_concentration: 5 mmol/L ± 1 %
model:
  q_min: 0.2 1/nm
  q_max: 4 1/nm
  populations:
    - {{name: crystals, radius: [1.8 nm, 5 nm], particle: {{formula: CsPbBr3, density: 4.83 g/cm^3}}, {CELL}}}
    - {{name: agglomerates, radius: [0.8 nm, 1.8 nm], particle: {{formula: CsPbBr3, density: 4 g/cm^3}}, {CELL}}}
"""


@pytest.fixture
def said(tmp_path):
    (tmp_path / "frame_1.dat").write_text("0.1 1 1\n", encoding="utf-8")

    def lines(text):
        (tmp_path / "run.yaml").write_text(HEAD + text, encoding="utf-8")
        return warnings(runfile.load(tmp_path / "run.yaml"))

    return lines


def test_all_that_has_no_uncertainty_stands_in_one_line(said):
    without, _ = said(TWO)
    assert without == (
        "no stated uncertainty, left out of the systematic ones: sample.solvent.density; "
        "lattice_parameter, particle.density of crystals and agglomerates"
    )
    without, _ = said(TWO.replace("4 g/cm^3", "4 g/cm^3 ± 2 %").replace("0.655 g/cm^3", "0.655 g/cm^3 ± 1 %"))
    assert without.endswith(": lattice_parameter, particle.density of crystals; lattice_parameter of agglomerates")
    assert len(said("sample: {contrast: 35e-6 1/Å^2 ± 1 %}\n" + MODEL)) == 1
    assert said("") == ()


def test_what_an_error_of_q_does_is_as_the_note_says(said):
    """The same curve over q that is 0.1 % larger."""
    fits = [fit_frames(scale * Q, spheres(25.0, 2.22, 0.13)[None], np.full((1, len(Q)), 2e-4), gaussian_model(FACTOR))
            for scale in (1.0, 1.001)]  # fmt: skip
    (c, r, s), (c_off, r_off, s_off) = (fit.values[0, :3] for fit in fits)
    volumes = mean_volume(r, s), mean_volume(r_off, s_off)
    moved = [100 * abs(off / value - 1) for value, off in (
        (r, r_off), (np.sqrt(s), np.sqrt(s_off)), (c, c_off), (c * volumes[0], c_off * volumes[1])
    )]  # fmt: skip
    *_, note = said("sample: {contrast: 35e-6 1/Å^2}\n" + MODEL)
    percent = [float(text) for text in re.findall(r"by ([\d.]+) %", note)]
    assert moved == pytest.approx([percent[0], *percent], rel=0.01)
    assert "yield" not in said(MODEL)[0]
