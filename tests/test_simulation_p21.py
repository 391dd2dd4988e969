"""The simulated P21.2 beamtime of two populations: its scan by other people's readers, its truth, its run file."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import fabio
import numpy as np
import pytest
from ruamel.yaml import YAML

from saxs_pipeline import runfile
from saxs_pipeline import simulation as stage
from saxs_pipeline.sample_config import Sample
from saxs_pipeline.stages.quantify import contrast_1_A2
from saxs_pipeline.types import BadInput
from tests.conftest import invoke

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FRAMES = 32
BEFORE = 2
COLUMNS = ("r_nm", "sigma_r_nm", "c_nc_umol_L", "yield")


def simulate_small(out: Path, **options) -> Path:
    """The same camera with pixels five times as large; returns the folder."""
    full = stage.SCENARIOS["p21-cspbbr3"]
    small = replace(full, shape=(124, 97), centre_px=(8.1, 12.2), pixel_m=5 * full.pixel_m)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "SCENARIOS", {"small": small})
        return stage.simulate("small", out, **{"frames": FRAMES, **options}).parent


@pytest.fixture(scope="module")
def by_layout(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("p21")
    return {layout: simulate_small(folder / layout, layout=layout) for layout in ("p21", "cbf")}


@pytest.fixture(scope="module")
def scan(by_layout) -> Path:
    return by_layout["p21"]


def cbf(folder: Path, pattern: str) -> np.ndarray:
    return np.stack([fabio.open(path).data for path in sorted((folder / "raw").glob(pattern))])


def truth(folder: Path) -> dict[str, np.ndarray]:
    with (folder / "truth.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fio_scan_by_silx(scan):
    from silx.io.fioh5 import FioFile

    path = scan / "raw/cspbbr3_00001.fio"
    found = FioFile(str(path))
    assert found.title == f"timesweep2 cspbbr3 1:{FRAMES}/0.49"
    assert float(found.parameter["energy"]) == pytest.approx(37_500, abs=0.01)
    assert float(found.parameter["idtx"]) == pytest.approx(3500)
    place = json.loads(found.parameter["pilatus"])
    assert place["Filedir"] == "/gpfs/current/raw/cspbbr3_00001/pilatus"
    for number in found.data["pilatus"]:
        assert (path.parent / "cspbbr3_00001/pilatus" / (place["Filepattern"] % number)).is_file()
    assert found.data["ion2"] / found.data["ion1"] == pytest.approx(np.full(FRAMES, 0.84), rel=1e-6)
    zero_s = YAML(typ="safe").load(scan / "run.yaml")["data"]["time"]["zero"]
    expected = found.data["timestamp"] + 0.245 - float(zero_s.split()[0])
    assert truth(scan)["t_s"] == pytest.approx(expected, abs=1e-6)
    assert path.read_text().splitlines()[-1].startswith("! Acquisition ended at ")


def test_cbf_comments_name_the_detector(scan):
    path = scan / "raw/cspbbr3_00001/pilatus/cspbbr3_00001_00001.cbf"
    header = fabio.open(path).header["_array_data.header_contents"]
    assert "# Detector: PILATUS3 X CdTe" in header
    assert "# Exposure_time 0.4900000 s" in header
    assert "# Wavelength 0.33062" in header
    assert "# Detector_distance 3.500000 m" in header


def test_a_photon_counter_counts_photons_and_nothing_else(scan):
    """No pedestal, no read-out noise: without mask the variance over equal frames is the mean."""
    images = cbf(scan, "empty_0*/pilatus/*.cbf").astype(float)
    use = fabio.open(scan / "mask.edf").data == 0
    with (scan / "raw/empty_00003.fio").open() as file:
        i1 = np.array([float(line.split()[3]) for line in file if re.match(r" [\d.]+ \d+ \S+ \S+$", line)])
    equal = images[:, use] / (i1 / i1.mean())[:, None]
    ratio = equal.var(axis=0, ddof=1).mean() / equal.mean()
    assert ratio == pytest.approx(1, abs=5 * np.sqrt(2 / (4 * use.sum())) + 0.02)
    assert not images[:, ~use].min(axis=0).all()  # gaps and beamstop


def test_layouts_hold_the_same_images(by_layout):
    for name in ("cspbbr3", "water"):
        scanned = cbf(by_layout["p21"], f"{name}_0*/pilatus/*.cbf")
        assert np.array_equal(scanned, cbf(by_layout["cbf"], f"{name}/*.cbf")), name
    assert (by_layout["p21"] / "truth.csv").read_bytes() == (by_layout["cbf"] / "truth.csv").read_bytes()


def test_truth_holds_both_populations(scan):
    columns = truth(scan)
    assert list(columns) == ["frame", "t_s", *COLUMNS, *(f"agglomerates_{name}" for name in COLUMNS)]
    assert columns["frame"].tolist() == list(range(FRAMES))
    before = columns["t_s"] < 0
    assert before.tolist() == [True] * BEFORE + [False] * (FRAMES - BEFORE)
    for prefix in ("", "agglomerates_"):
        assert np.array_equal(np.isnan(columns[f"{prefix}r_nm"]), before)
        assert np.array_equal(columns[f"{prefix}yield"] == 0, before)
    assert columns["agglomerates_r_nm"][BEFORE:] == pytest.approx(np.full(FRAMES - BEFORE, 1.5))
    together = columns["yield"] + columns["agglomerates_yield"]
    assert together[BEFORE:] == pytest.approx(np.full(FRAMES - BEFORE, 0.61), rel=1e-8)
    assert columns["t_s"][-1] > 280


def test_same_seed_same_bytes_other_seed_other_bytes(scan, tmp_path):
    again, other = simulate_small(tmp_path / "again"), simulate_small(tmp_path / "other", seed=2)
    digests = [
        {str(p.relative_to(f)): hashlib.sha256(p.read_bytes()).digest() for p in sorted(f.rglob("*")) if p.is_file()}
        for f in (scan, again, other)
    ]
    assert digests[0] == digests[1]
    assert digests[0].keys() == digests[2].keys()
    assert all(digests[0][name] == digests[2][name] for name in ("truth.csv", "run.yaml", "geometry.poni"))
    assert all(digests[0][n] != digests[2][n] for n in digests[0] if n.endswith((".cbf", ".edf")))


def test_a_frame_every_half_second_for_five_minutes():
    full = stage.SCENARIOS["p21-cspbbr3"]
    timing = stage._stretched(full, full.frames)
    assert np.diff(timing.start_s) == pytest.approx(np.full(639, 0.5), rel=1e-9)
    assert timing.n_before == 40
    assert timing.zero_s == pytest.approx(20.01)
    assert timing.start_s[-1] - timing.zero_s == pytest.approx(299.5)


def test_fewer_frames_keep_the_span_by_longer_waits(scan):
    text = (scan / "run.yaml").read_text()
    wait, growth = re.search(r"# law: \{exposure: 490 ms, wait: (\S+) ms, growth: (\S+)\}", text).groups()
    waits = 1e-3 * float(wait) * float(growth) ** np.arange(FRAMES)
    starts = np.cumsum(waits) + 0.49 * np.arange(FRAMES)
    assert starts[-1] == pytest.approx(319.51, rel=2e-3)
    assert np.diff(truth(scan)["t_s"]) == pytest.approx(np.diff(starts), abs=1e-5)


def test_the_run_file_describes_both_populations(scan):
    """In mmol/L, 1/Å² and nm: what is written gives the contrasts and cells that the images were made with."""
    said = YAML(typ="safe").load(scan / "run.yaml")
    scenario = stage.SCENARIOS["p21-cspbbr3"]
    known = scenario.populations(np.array([5.0]))
    populations = said["model"]["populations"]
    assert [one["name"] for one in populations] == ["crystals", "agglomerates"]
    assert said["sample"]["cation_concentration"] == "5 mmol/L"
    for one, (found, contrast) in zip(populations, known, strict=True):
        sample = Sample.model_validate(
            {**said["sample"], **{k: one[k] for k in ("particle", "lattice_parameter", "cations_per_cell")}}
        )
        assert contrast_1_A2(sample, 37.5).value == pytest.approx(contrast, rel=1e-9)
        for key, values in (("radius", found.radius_nm), ("sigma", found.sigma_nm)):
            low, high = (float(text.split()[0]) for text in one[key])
            assert low < values[0] < high
        volume = 4 * np.pi / 3 * (found.radius_nm**3 + 3 * found.radius_nm * found.sigma_nm**2)
        cations = sample.cations_per_cell * volume / sample.lattice_parameter.value**3
        assert found.yield_ == pytest.approx(1e-3 * found.c_umol_L * cations / sample.cation_concentration.value)


def test_what_the_scenario_does_not_have_is_refused(tmp_path):
    model = runfile.load_model(CONFIGS / "kinetics-calibrated.yaml")
    for options, message in (
        ({"layout": "mccd"}, "unknown layout 'mccd' of p21-cspbbr3; choose one of: p21, cbf"),
        ({"frames": 641}, "641 frames do not fit into 320 s; simulate at most 640"),
        ({"kinetics": model}, "two populations, which no kinetic model has"),
    ):
        with pytest.raises(BadInput, match=re.escape(message)):
            stage.simulate("p21-cspbbr3", tmp_path / "out", **options)
    said = invoke("simulate", "p21-cspbbr3", "--out", tmp_path / "out", "--layout", "id02")
    assert said.returncode == 2
    assert said.stderr.strip() == "unknown layout 'id02' of p21-cspbbr3; choose one of: p21, cbf"
    assert not (tmp_path / "out").exists()
