"""Frames and curves measured by others, from the file to the answer (skipped where the data are not at hand)."""

from __future__ import annotations

import numpy as np
import pytest

from saxs_pipeline.outputs import nexus
from saxs_pipeline.types import Curves
from tests.conftest import invoke, read_table

PROTEIN = """\
title: protein solution minus buffer, Pilatus 1M
data:
  frames: {data}/ihs27_sample.tif
geometry: {{distance: 745 mm, center: [588.1, 319.4], pixel_size: 172 um, energy: 8.5803 keV}}  # from the AgBh rings
corrections: {{gain: 1, read_noise: 0, polarization: null, mask: {data}/mask-20260706_133745.txt}}
integration: {{bins: 400, q_min: 0.08 1/nm, q_max: 4 1/nm}}
intensity: {{monitor: exposure}}
background: {{file: {data}/ihs27_buffer.tif}}
output: {{folder: results}}
"""

GOLD = """\
title: bimodal gold spheres, human-factor round robin
data:
  curves: {{files: {data}/round_robin_dataset_1.dat, q_unit: 1/nm, intensity_unit: 1/m}}
  time: {{law: {{exposure: 1 s}}}}
model: {{q_min: 0.07 1/nm, q_max: 1.1 1/nm, radius: [5 nm, 40 nm], sigma: [0.5 nm, 8 nm]}}
output: {{folder: results}}
"""


def run(folder, text, data):
    path = folder / "run.yaml"
    path.write_text(text.format(data=data), encoding="utf-8")
    done = invoke("run", path)
    assert done.returncode == 0, done.stderr
    return folder / "results"


@pytest.fixture(scope="module")
def protein(tmp_path_factory, real_data) -> Curves:
    results = run(tmp_path_factory.mktemp("protein"), PROTEIN, real_data / "pilatus1m_agbh")
    return nexus.read_run(results / "run.nxs").curves


def test_protein_minus_buffer_has_its_radius_of_gyration(protein):
    q, intensity, sigma = protein.q_nm, protein.intensity[0], protein.sigma[0]
    assert (sigma[np.isfinite(intensity)] > 0).all()
    assert np.nanmin(protein.shared) > 0  # the buffer's error is there, apart from the sample's
    guinier = (q > 0.165) & (q < 0.35)  # the beamstop, not in the given mask, shades up to 0.16
    assert guinier.sum() > 15
    slope, _ = np.polyfit(q[guinier] ** 2, np.log(intensity[guinier]), 1, w=intensity[guinier] / sigma[guinier])
    assert np.sqrt(-3 * slope) == pytest.approx(2.0, abs=0.2)


def test_the_real_masked_pixels_are_left_out(protein):
    assert np.nanmin(protein.counts[0][protein.q_nm > 0.2]) > 10
    assert (protein.intensity[0][(protein.q_nm > 0.1) & (protein.q_nm < 1)] > 0).all()


def test_an_integrated_curve_is_fitted(tmp_path, real_data):
    """One population cannot describe the two here (14.4 and 28.7 nm); it must come out between, and say so."""
    results = run(tmp_path, GOLD, real_data / "roundrobin")
    series = read_table(results / "series.csv")
    assert 14.4 < series["r_nm"][0] < 28.7
    assert series["flag"][0] == "poor_fit"
    assert np.isnan(series["c_nc_umol_L"][0])
