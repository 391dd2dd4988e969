"""Simulated beamtimes: each layout opened by other people's readers, the physics through pyFAI, and refusals."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import fabio
import h5py
import hdf5plugin  # noqa: F401  registers the filter
import numpy as np
import pytest

from saxs_pipeline import pipeline, plan, provenance, runfile
from saxs_pipeline import simulation as stage
from saxs_pipeline.science import scenarios, synthetic
from saxs_pipeline.types import BadInput

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FRAMES = 20
BEFORE = 3
REFERENCES = {"water": 5, "empty": 5, "dark": 10, "agbh": 1}
LAYOUTS = ("id02", "edf", "mccd", "cbf", "p21")


def small() -> scenarios.Scenario:
    """The same camera with pixels five times as large."""
    full = stage.SCENARIOS["id02-cdse"]
    return replace(full, shape=(96, 90), centre_px=(45.1, 47.7), pixel_m=5 * full.pixel_m)


def simulate_small(out: Path, **options) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "SCENARIOS", {"small": small()})
        return stage.simulate("small", out, **{"frames": FRAMES, **options})


@pytest.fixture(scope="module", params=LAYOUTS)
def beamtime(request, tmp_path_factory) -> tuple[str, Path]:
    run_file = simulate_small(tmp_path_factory.mktemp("small") / request.param, layout=request.param)
    return request.param, run_file.parent


@pytest.fixture(scope="module")
def by_layout(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("all")
    return {layout: simulate_small(folder / layout, layout=layout).parent for layout in LAYOUTS}


@pytest.fixture(scope="module")
def full_size(tmp_path_factory) -> Path:
    return stage.simulate("id02-cdse", tmp_path_factory.mktemp("full") / "beamtime", frames=FRAMES).parent


def lima(folder: Path, name: str) -> Path:
    (path,) = (folder / "raw").glob(f"{name}_rayonix_*.h5")
    return path


def images(layout: str, folder: Path, name: str) -> np.ndarray:
    """All images of a measurement, read by h5py or fabio."""
    if layout == "id02":
        with h5py.File(lima(folder, name)) as file:
            return file["/entry_0000/measurement/data"][()]
    pattern = f"{name}_0*/pilatus/*.cbf" if layout == "p21" else f"{name}/*.{layout}"
    return np.stack([fabio.open(path).data for path in sorted((folder / "raw").glob(pattern))])


def truth(folder: Path) -> dict[str, np.ndarray]:
    with (folder / "truth.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}


def loaded(folder: Path) -> runfile.RunFile:
    return runfile.load(folder / "run.yaml")


# --- all layouts


def test_every_file_of_the_run_file_is_there(beamtime):
    layout, folder = beamtime
    config = loaded(folder).config
    data, water = config.data, config.intensity.water
    n_files = 1 if layout in ("id02", "p21") else FRAMES
    assert len(data.frames) == n_files
    assert (data.scalers is None) == (layout == "p21")
    assert all(path.is_file() for path in (*data.frames, *water.frames, *water.empty.frames))
    assert config.intensity.monitor == ("ion2" if layout == "p21" else "I1")
    assert config.background.frames == tuple(range(BEFORE))
    assert config.corrections.read_noise == pytest.approx(np.sqrt(4 + 1 / 12), abs=1e-4)


def test_all_frames_are_there(beamtime):
    layout, folder = beamtime
    for name, n in {"cdse": FRAMES, **REFERENCES}.items():
        assert images(layout, folder, name).shape == (n, 96, 90)


def test_layouts_hold_the_same_images(by_layout):
    for name in ("cdse", "water", "agbh"):
        expected = images("id02", by_layout["id02"], name)
        for layout in ("edf", "mccd", "cbf"):
            found = images(layout, by_layout[layout], name)
            assert np.array_equal(found.astype(np.int64), expected.astype(np.int64)), (layout, name)


def test_truth_has_one_row_per_frame(beamtime):
    layout, folder = beamtime
    assert (folder / "truth.csv").read_text().splitlines()[0] == "frame,t_s,r_nm,sigma_r_nm,c_nc_umol_L,yield"
    columns = truth(folder)
    assert columns["frame"].tolist() == list(range(FRAMES))
    before = columns["t_s"] < 0
    assert before.sum() == BEFORE
    assert np.array_equal(np.isnan(columns["r_nm"]), before)
    assert np.array_equal(columns["yield"] == 0, before)
    exposure = 0.1 if layout == "p21" else 0.075
    assert columns["t_s"][BEFORE] == pytest.approx(exposure / 2, abs=1e-6)
    assert columns["t_s"][-1] > (900 if layout == "p21" else 7600)


def test_same_seed_same_bytes_other_seed_other_bytes(beamtime, tmp_path):
    layout, folder = beamtime
    again, other = tmp_path / "again", tmp_path / "other"
    simulate_small(again, layout=layout)
    simulate_small(other, layout=layout, seed=2)
    digests = [
        {str(p.relative_to(f)): hashlib.sha256(p.read_bytes()).digest() for p in sorted(f.rglob("*")) if p.is_file()}
        for f in (folder, again, other)
    ]
    assert digests[0] == digests[1]
    assert digests[0].keys() == digests[2].keys()
    differing = {Path(name).suffix for name in digests[0] if digests[0][name] != digests[2][name]}
    assert {".yaml", ".poni", ".csv"} & differing <= {".csv"}  # the truth and the plan do not depend on the seed
    assert digests[0]["truth.csv"] == digests[2]["truth.csv"]
    assert all(digests[0][n] != digests[2][n] for n in digests[0] if n.endswith((".cbf", ".edf", ".mccd")))


# --- single layouts


def test_lima_file_is_nexus_with_bitshuffle_chunks_per_frame(by_layout):
    with h5py.File(lima(by_layout["id02"], "cdse")) as file:
        assert file.attrs["creator"].startswith("LIMA-")
        detector = file["/entry_0000/ESRF-ID02/rayonix"]
        assert detector.attrs["NX_class"] == "NXdetector"
        assert detector.parent.attrs["NX_class"] == "NXinstrument"
        data = detector["data"]
        assert data.chunks == (1, 96, 90)
        assert data.dtype == np.uint16
        assert data.id.get_create_plist().get_filter(0)[0] == 32008
        assert file["/entry_0000/measurement"].get("data", getlink=True).path == data.name
        assert file["/entry_0000/measurement/data"] == data
        header = {key: value[()].decode() for key, value in detector["header"].items()}
        assert (header["Center_1"], header["Center_2"], header["Dummy"]) == ("45.1", "47.7", "0")
        assert float(header["PSize_1"]) == pytest.approx(5 * 354.1667e-6)
        assert float(header["WaveLength"]) == pytest.approx(6.888e-11, rel=1e-4)
        assert detector["acquisition/nb_frames"][()] == FRAMES
        assert detector["time_of_frame"].shape == (FRAMES,)


def test_silx_finds_the_default_plot_of_a_lima_file(by_layout):
    import silx.io
    from silx.io import nxdata

    with silx.io.open(str(lima(by_layout["id02"], "cdse"))) as file:
        plot = nxdata.get_default(file)
        assert plot is not None
        assert plot.is_valid
        assert plot.signal.shape == (FRAMES, 96, 90)


def test_id02_scalers_follow_from_their_raw_counts(by_layout):
    """Times and monitors by the formulas of the beamline, from the counts alone."""
    folder = by_layout["id02"]
    (path,) = (folder / "raw").glob("cdse_scalers_*.h5")
    with h5py.File(path) as file:
        tfg, mcs = (file[f"/entry_0000/ESRF-ID02/{name}"] for name in ("TFG", "MCS"))
        periods = tfg["frame_time"][()]
        assert periods.shape == (2 * FRAMES,)
        start = np.cumsum(periods)[0::2]
        assert start == pytest.approx(tfg["delta_time"][()], abs=1e-9)
        assert periods[1::2] == pytest.approx(np.full(FRAMES, 0.075))
        pin = {key: int(mcs[key][()]) - 1 for key in ("HSTime", "HSI0", "HSI1")}
        counts, factor, zero = (mcs[key][()] for key in ("HS32C", "HS32F", "HS32Z"))
        assert [name.decode() for name in mcs["HS32N"][()]][:3] == ["Time", "I0", "I1"]
        t = counts[:, pin["HSTime"]] * factor[pin["HSTime"]]
        value = (counts[:, pin["HSI1"]] - zero[pin["HSI1"]] * t) * factor[pin["HSI1"]] * mcs["HSI1Factor"][()]
        opening, closing = (float(mcs[f"Shutter{k}Time"][()].decode().split()[0]) for k in ("Opening", "Closing"))
        assert value == pytest.approx(mcs["Intensity1UnCor"][()], rel=1e-12)
        corrected = value * (t - opening + closing) / (t - opening)
        assert corrected == pytest.approx(mcs["Intensity1ShutCor"][()], rel=1e-9)
        assert corrected / mcs["Intensity0ShutCor"][()] == pytest.approx(np.full(FRAMES, 0.42), rel=1e-5)
    zero_s = loaded(folder).config.data.time.zero
    assert start + 0.0375 - zero_s == pytest.approx(truth(folder)["t_s"], rel=1e-8, abs=1e-8)
    with (by_layout["mccd"] / "raw/cdse_scalers.csv").open() as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["frame", "start_s", "exposure_s", "I0", "I1"]
    assert [float(row["I1"]) for row in table] == pytest.approx(corrected, rel=3e-6)  # counts are whole
    assert [float(row["start_s"]) for row in table] == pytest.approx(start, abs=1e-6)


def test_edf_headers(by_layout):
    header = fabio.open(by_layout["edf"] / "raw/cdse/cdse_0004.edf").header
    assert float(header["Center_1"]) == 45.1
    assert float(header["PSize_2"]) == pytest.approx(5 * 354.1667e-6)
    assert float(header["SampleDistance"]) == 1.0
    assert float(header["ExposureTime"]) == 0.075


def test_marccd_block_by_fabio(by_layout):
    from fabio import marccdimage

    path = by_layout["mccd"] / "raw/cdse/cdse_0019.mccd"
    assert isinstance(fabio.open(path), marccdimage.MarccdImage)
    block = path.read_bytes()[1024:4096]
    values = marccdimage.interpret_header(block, marccdimage.HEADER_FORMAT, marccdimage.HEADER_NAMES)
    expected = {"nfast": 90, "nslow": 96, "depth": 2, "header_size": 3072, "saturated_value": 65000}
    expected |= {"xtal_to_detector": 1_000_000, "beam_x": 45_100, "beam_y": 47_700, "exposure_time": 75}
    expected |= {"pixelsize_x": 1_770_834, "mean_bias": 10_000, "source_wavelength": 68_880, "header_byte_order": 1234}
    assert {key: values[key] for key in expected} == expected
    stamp = b"".join(values["acquire_timestamp[32]"])
    assert stamp.rstrip(b"\0") == b"061410082022.22"  # MMDDhhmmYYYY.ss: 8:00 and 7702.9 s


def test_cbf_comments(by_layout):
    header = fabio.open(by_layout["cbf"] / "raw/cdse/cdse_0000.cbf").header["_array_data.header_contents"]
    assert "# Exposure_time 0.0750000 s" in header
    assert "# Beam_xy (45.100, 47.700) pixels" in header
    assert "# Detector_distance 1.000000 m" in header


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fio_scan_by_silx(by_layout):
    from silx.io.fioh5 import FioFile, is_fiofile

    path = by_layout["p21"] / "raw/cdse_00001.fio"
    assert is_fiofile(str(path))
    scan = FioFile(str(path))
    assert scan.title == "timesweep2 cdse 1:20/0.10"
    assert scan.user == "p21user"
    place = json.loads(scan.parameter["pilatus"])
    assert float(scan.parameter["energy"]) == pytest.approx(18_000, abs=0.01)
    assert place["Filedir"] == "/gpfs/current/raw/cdse_00001/pilatus"  # the beamline's disk
    for number in scan.data["pilatus"]:
        assert (path.parent / "cdse_00001/pilatus" / (place["Filepattern"] % number)).is_file()
    assert np.diff(scan.data["timestamp"]) == pytest.approx(np.full(FRAMES - 1, 60.0))
    assert scan.data["ion2"] / scan.data["ion1"] == pytest.approx(np.full(FRAMES, 0.42), rel=1e-6)
    assert path.read_text().splitlines()[-1].startswith("! Acquisition ended at ")


# --- the physics, at full size, through pyFAI


def integrator(folder: Path):
    import pyFAI

    ai = pyFAI.load(str(folder / "geometry.poni"))
    mask, flat = (fabio.open(folder / name).data for name in ("mask.edf", "flat.edf"))

    def integrate(image: np.ndarray, variance: np.ndarray, q_range=(0.1, 5.0)):
        return ai.integrate1d(
            image,
            200,
            variance=variance,
            unit="q_nm^-1",
            mask=mask,
            flat=flat,
            polarization_factor=0.97,
            radial_range=q_range,
            method=("no", "csr", "cython"),
        )

    return ai, integrate


def reduced(folder: Path, name: str):
    """Curve per steradian and photon of a whole measurement, and its error."""
    ai, integrate = integrator(folder)
    stack = images("id02", folder, name).astype(float)
    dark = images("id02", folder, "dark").mean(axis=0)
    with h5py.File(next((folder / "raw").glob(f"{name}_scalers_*.h5"))) as file:
        photons = file["/entry_0000/ESRF-ID02/MCS/Intensity1ShutCor"][()].sum() / 1.073
    signal = (stack - dark).sum(axis=0)
    variance = 1.6 * np.maximum(signal, 0) + len(stack) * (4 + 1 / 12) * (1 + len(stack) / REFERENCES["dark"])
    result = integrate(signal, variance)
    norm = 1.6 * photons * ai.pixel1 * ai.pixel2 / ai.dist**2
    return result.radial, result.intensity / norm, result.sigma / norm


def test_geometry_is_pyfais(full_size):
    ai, _ = integrator(full_size)
    assert (ai.dist, ai.detector.shape) == (1.0, (480, 480))
    assert ai.energy == pytest.approx(18.0, rel=1e-6)
    assert (ai.getFit2D()["centerX"], ai.getFit2D()["centerY"]) == pytest.approx((240.3, 238.6))


def test_water_and_empty_cell_give_back_the_cross_section_put_in(full_size):
    (q, water, water_sigma), (_, empty, empty_sigma) = (reduced(full_size, name) for name in ("water", "empty"))
    scales = synthetic.draw_scales(stage.SCENARIOS["id02-cdse"], seed=1)
    window = q > 0.3
    pull = (water - empty)[window] - scales.water_thickness_mm * scales.water_1_mm
    pull /= np.hypot(water_sigma, empty_sigma)[window]
    assert pull.mean() == pytest.approx(0, abs=4 / np.sqrt(pull.size))
    assert pull.std() == pytest.approx(1, abs=0.25)
    windows = (empty - synthetic.windows(q, 5e-3, 1e-5))[window] / empty_sigma[window]
    assert windows.mean() == pytest.approx(0, abs=4 / np.sqrt(windows.size))


def test_crystals_before_and_after_the_injection(full_size):
    """The last frame minus those before the injection is c · A · P(q) times the true thickness."""
    ai, integrate = integrator(full_size)
    stack = images("id02", full_size, "cdse").astype(float)
    with h5py.File(next((full_size / "raw").glob("cdse_scalers_*.h5"))) as file:
        photons = file["/entry_0000/ESRF-ID02/MCS/Intensity1ShutCor"][()] / 1.073
    dark, solid_angle = images("id02", full_size, "dark").mean(axis=0), ai.pixel1 * ai.pixel2 / ai.dist**2
    last, before = (stack[-1] - dark) / photons[-1], stack[:BEFORE].mean(axis=0) - dark
    difference = (last - before / photons[:BEFORE].mean()) / (1.6 * solid_angle)
    noise = 1.6 * np.maximum(stack[-1] - dark, 0) + 1.6 * before / BEFORE + (4 + 1 / 12) * (1 + 1 / BEFORE)
    result = integrate(difference, noise / (1.6 * solid_angle * photons[-1]) ** 2)
    columns = truth(full_size)
    end = scenarios.Truth(*(columns[k][-1:] for k in ("t_s", "r_nm", "sigma_r_nm", "c_nc_umol_L", "yield")))
    thickness = synthetic.draw_scales(stage.SCENARIOS["id02-cdse"], seed=1).sample_thickness_mm
    expected = thickness * synthetic.crystals(result.radial, end, 0, 35.2e-6)
    pull = ((result.intensity - expected) / result.sigma)[result.radial > 0.15]
    assert abs(pull.mean()) < 4 / np.sqrt(pull.size)
    assert 0.85 < pull.std() < 1.15
    photons_per_pixel = (stack[-1] - dark)[fabio.open(full_size / "mask.edf").data == 0].mean() / 1.6
    assert 30 < photons_per_pixel < 40


def test_behenate_rings_through_pyfai(full_size):
    _, integrate = integrator(full_size)
    signal = images("id02", full_size, "agbh").sum(axis=0) - 2 * images("id02", full_size, "dark").mean(axis=0)
    for order in (1, 2, 3, 4):
        ring = order * 2 * np.pi / 5.8380
        result = integrate(signal, signal + 10, (ring - 0.15, ring + 0.15))
        height = result.intensity - np.median(result.intensity)
        peak = np.abs(result.radial - ring) < 0.07
        assert np.average(result.radial[peak], weights=height[peak]) == pytest.approx(ring, abs=2e-3)


# --- a beamtime of a kinetic model


@pytest.fixture(scope="module")
def growth_only(tmp_path_factory) -> Path:
    """Crystals that are there at the start and grow until 240 s."""
    model = runfile.load_model(CONFIGS / "kinetics-growth-only.yaml")
    return simulate_small(tmp_path_factory.mktemp("model") / "beamtime", kinetics=model).parent


def test_the_run_file_counts_yields_as_the_model_does(growth_only):
    """c⟨V⟩/a³ · cations/c₀ of the truth's crystals by the numbers in run.yaml; ⟨r³⟩ with its skewness to 1e-5."""
    sample, columns = loaded(growth_only).config.sample, truth(growth_only)
    r, sigma, c = (columns[name][BEFORE:] for name in ("r_nm", "sigma_r_nm", "c_nc_umol_L"))
    volume = 4 * np.pi / 3 * r * (r**2 + 3 * sigma**2)
    cations = 1e-3 * c * sample.cations_per_cell * volume / sample.lattice_parameter.value**3
    np.testing.assert_allclose(cations / sample.cation_concentration.value, columns["yield"][BEFORE:], rtol=3e-4)
    assert columns["yield"][-1] == pytest.approx(1, abs=1e-6)


def test_its_run_ends_with_a_yield_of_one(growth_only):
    run = loaded(growth_only)
    prepared = plan.prepare(run)
    result = pipeline.finish(prepared, pipeline.process(prepared, 0, FRAMES), provenance.collect(run, prepared))
    found = result.quantities.yield_
    complete = truth(growth_only)["t_s"] > 240
    error = np.hypot(found.statistical, found.systematic)[complete]
    assert complete.sum() >= 3
    assert error.max() < 0.05
    assert np.abs(found.value[complete] - 1).max() < 3.5 * error.max()
    assert not [warning for warning in result.warnings if "exceeds 100 %" in warning]


# --- options and refusals


def test_progress_counts_every_image(tmp_path):
    calls: list[tuple[int, int]] = []
    simulate_small(tmp_path / "out", progress=lambda done, total: calls.append((done, total)))
    total = FRAMES + sum(REFERENCES.values())
    assert calls == [(i, total) for i in range(1, total + 1)]


def test_an_empty_folder_is_used(tmp_path):
    assert simulate_small(tmp_path) == tmp_path / "run.yaml"


def test_the_papers_frames_have_the_papers_times(tmp_path):
    timing = stage._stretched(stage.SCENARIOS["id02-cdse"], 575)
    assert timing.n_before == 80
    assert timing.zero_s == pytest.approx(9.43, abs=0.01)
    assert timing.start_s[-1] == pytest.approx(7703, abs=0.5)
    assert timing.law == "{exposure: 75 ms, wait: 22 ms, growth: 1.015}"


@pytest.mark.parametrize("layout", ["id02", "p21"])
def test_the_law_in_the_run_file_gives_the_frames_times(by_layout, layout):
    text = (by_layout[layout] / "run.yaml").read_text()
    law = re.search(r"# law: \{exposure: (\S+) ms, wait: (\S+) ms, growth: (\S+)\}", text)
    exposure, wait, growth = (float(number) for number in law.groups())
    start = synthetic.frame_starts(FRAMES, exposure * 1e-3, wait * 1e-3, growth)
    zero_s = loaded(by_layout[layout]).config.data.time.zero
    assert start + exposure * 5e-4 - zero_s == pytest.approx(truth(by_layout[layout])["t_s"], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenario": "id02-pbs"}, "unknown scenario 'id02-pbs'; choose one of: id02-cdse, p21-cspbbr3"),
        ({"layout": "h5"}, "unknown layout 'h5' of id02-cdse; choose one of: id02, edf, mccd, cbf, p21"),
        ({"frames": 19}, "19 frames are too few"),
        ({"frames": 100_000}, "simulate at most 79412"),
        ({"frames": 20_000, "layout": "p21"}, "simulate at most 11881"),
        ({"seed": -1}, "the seed must not be negative"),
    ],
)
def test_refusals_leave_nothing_behind(tmp_path, options, message):
    out = tmp_path / "new"
    with pytest.raises(BadInput) as error:
        stage.simulate(**{"scenario": "id02-cdse", "out": out, **options})
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not out.exists()


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("data")
    with pytest.raises(BadInput, match="not empty"):
        stage.simulate("id02-cdse", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("data")
    with pytest.raises(BadInput, match="is a file"):
        stage.simulate("id02-cdse", tmp_path / "file")
    with pytest.raises(BadInput, match="cannot make the folder"):
        stage.simulate("id02-cdse", tmp_path / "file" / "below")
