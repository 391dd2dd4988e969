"""Whole runs: the truth comes back, whatever the layout; the numbers do not depend on how the work is cut."""

from __future__ import annotations

import re
import shutil

import h5py
import hdf5plugin
import numpy as np
import pytest

from saxs_pipeline import runfile
from saxs_pipeline.apps import batch, status
from saxs_pipeline.outputs import nexus, nxcansas, tables
from saxs_pipeline.simulation import simulate
from tests.conftest import FRAMES, ROOT, command, invoke, read_table, series_of, variant, without_model

COLUMNS = (
    "frame,t_s,exposure_s,r_nm,r_nm_err,sigma_r_nm,sigma_r_nm_err,c_nc_umol_L,c_nc_umol_L_err,c_nc_umol_L_sys,"
    "yield,yield_err,yield_sys,background_1_mm,background_1_mm_err,chi2_red,flag"
)


def run(path):
    """As the command does it, without its process."""
    loaded = runfile.load(path)
    result = batch.compute(loaded, quiet=True)
    return batch.write(result, loaded)


def assert_truth_comes_back(series, truth):
    """Pulls of one run. The bounds leave room for the few frames: the mean of n pulls scatters by 1/√n and the shared
    background adds its own; c and yield share one scale factor, known to 1.2 %."""
    np.testing.assert_array_equal(series["frame"], truth["frame"])
    np.testing.assert_allclose(series["t_s"], truth["t_s"], atol=2e-4)
    good = (series["c_nc_umol_L"] / series["c_nc_umol_L_err"] > 10) & np.isfinite(series["r_nm"])
    assert good.sum() > 0.4 * len(good)
    for name in ("r_nm", "sigma_r_nm"):
        pull = ((series[name] - truth[name]) / series[name + "_err"])[good]
        pull = pull[np.isfinite(pull)]
        assert abs(pull.mean()) < 1.5, name
        assert 0.6 < pull.std() < 1.5, name
    for name in ("c_nc_umol_L", "yield"):
        total = np.hypot(series[name + "_err"], series[name + "_sys"])
        assert np.abs(((series[name] - truth[name]) / total)[good]).max() < 4, name
    assert np.nanmedian(series["chi2_red"]) == pytest.approx(1, abs=0.15)


@pytest.fixture(scope="module")
def results(beamtime):
    done = command("run", beamtime / "run.yaml")
    assert done.returncode == 0, done.stderr
    return beamtime / "results", done


def test_one_command_gives_everything(beamtime, results):
    folder, done = results
    assert {p.name for p in folder.iterdir()} == {
        *(
            "run.nxs",
            "run_nxcansas.h5",
            "series.csv",
            "reaction.json",
            "curves",
            "figures",
            "report.html",
            "status.json",
        )
    }
    assert (folder / "series.csv").read_text().splitlines()[0] == COLUMNS
    assert "concentration" in done.stdout
    assert_truth_comes_back(read_table(folder / "series.csv"), read_table(beamtime / "truth.csv"))


def test_frames_before_the_injection_are_weak_and_compatible_with_nothing(beamtime, results):
    series = read_table(results[0] / "series.csv")
    before = series["t_s"] < 0
    assert before.sum() >= 5
    assert all("weak" in flag.split("|") for flag in series["flag"][before])
    assert np.isnan(series["r_nm"][before]).all()
    pulls = (series["c_nc_umol_L"] / series["c_nc_umol_L_err"])[before]
    assert np.abs(pulls).max() < 4


def numbers(path, folder):
    """Series and NeXus file of a run in this process; returns their folder."""
    result = batch.compute(runfile.load(path), quiet=True)
    folder.mkdir()
    tables.write_series(result, folder / "series.csv")
    nexus.write_run(result, folder / "run.nxs")
    return folder


@pytest.mark.parametrize(
    "engine",
    [
        "{scheduler: synchronous, chunk: 1}",
        "{scheduler: synchronous, chunk: 1000}",
        "{scheduler: threads, workers: 3, chunk: 7}",
    ],
)
def test_numbers_do_not_depend_on_scheduler_workers_or_chunks(beamtime, results, engine, tmp_path):
    name = "engine_" + re.sub(r"\W+", "_", engine)
    path = variant(beamtime, name, ("engine: {scheduler: threads}", f"engine: {engine}"))
    assert_same_numbers(numbers(path, tmp_path / name), results[0])


def test_numbers_do_not_depend_on_processes_or_the_threads_of_blas(beamtime, results):
    path = variant(
        beamtime, "engine_processes", ("{scheduler: threads}", "{scheduler: processes, workers: 2, chunk: 13}")
    )
    done = command("run", path, OPENBLAS_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    assert_same_numbers(beamtime / "engine_processes", results[0])


def assert_same_numbers(folder, expected):
    """The same series.csv, byte for byte, and the same numbers in run.nxs."""
    assert (folder / "series.csv").read_bytes() == (expected / "series.csv").read_bytes()
    with h5py.File(folder / "run.nxs") as ours, h5py.File(expected / "run.nxs") as reference:
        compared = []

        def compare(where, node):
            if isinstance(node, h5py.Dataset) and node.dtype.kind == "f":
                np.testing.assert_array_equal(ours[where][()], node[()])
                compared.append(where)

        reference.visititems(compare)
        assert len(compared) > 10


def test_two_runs_give_the_same_bytes(beamtime, results, tmp_path):
    result = batch.compute(runfile.load(variant(beamtime, "again")), quiet=True)
    tables.write_series(result, tmp_path / "series.csv")
    nxcansas.write(result, tmp_path / "run_nxcansas.h5")
    for name in ("series.csv", "run_nxcansas.h5"):
        assert (tmp_path / name).read_bytes() == (results[0] / name).read_bytes(), name


@pytest.mark.parametrize("layout", ["edf", "mccd", "cbf", "p21"])
def test_every_layout_gives_the_truth(tmp_path, layout):
    folder = tmp_path / layout
    simulate("id02-cdse", folder, seed=3, frames=30, layout=layout)
    assert_truth_comes_back(read_table(series_of(folder / "run.yaml")), read_table(folder / "truth.csv"))


@pytest.mark.parametrize(("config", "layout"), [("id02-cdse", "id02"), ("image-folder", "mccd"), ("p21-fio", "p21")])
def test_the_example_configurations_run(tmp_path, config, layout):
    """Each is used as its first lines say, on a simulated beamtime; only the injection time is the simulation's."""
    folder = tmp_path / "beamtime"
    simulate("id02-cdse", folder, seed=4, frames=60, layout=layout)
    zero = re.search(r"zero: [\d.]+ s", (folder / "run.yaml").read_text())[0]
    text = (ROOT / "configs" / f"{config}.yaml").read_text(encoding="utf-8")
    path = folder / f"{config}.yaml"
    path.write_text(re.sub(r"zero: [\d.]+ s", zero, text), encoding="utf-8")
    series = read_table(series_of(path))
    truth = read_table(folder / "truth.csv")
    last = np.flatnonzero(np.isfinite(series["r_nm"]))[-1]
    assert series["r_nm"][last] == pytest.approx(truth["r_nm"][last], abs=0.01)
    assert series["c_nc_umol_L"][last] == pytest.approx(truth["c_nc_umol_L"][last], rel=0.06)


def test_bad_frames_are_flagged_by_name_and_the_others_untouched(beamtime, results, tmp_path):
    """One all-zero, one truncated, one NaN-poisoned, one with a zero monitor."""
    folder = tmp_path / "spoiled"
    shutil.copytree(beamtime, folder, ignore=shutil.ignore_patterns("results", "bad_*", "run_bad*", "engine_*"))
    bad = {"all_zero": 20, "unreadable": 23, "nan": 26, "monitor_zero": 29}
    stack = next(folder.glob("raw/cdse_rayonix*"))
    with h5py.File(stack, "r+") as file:
        found = []
        file.visititems(lambda _, node: found.append(node) if getattr(node, "ndim", 0) == 3 else None)
        images, where = found[0][()].astype(np.float32), found[0].name
        images[bad["all_zero"]] = 0
        images[bad["nan"], 200:210, 300:310] = np.nan
        del file[where]
        data = file.create_dataset(where, data=images, chunks=(1, 480, 480), **hdf5plugin.Bitshuffle(cname="lz4"))
        mask, chunk = data.id.read_direct_chunk((bad["unreadable"], 0, 0))
        data.id.write_direct_chunk((bad["unreadable"], 0, 0), chunk[: len(chunk) // 2], mask)
    with h5py.File(next(folder.glob("raw/cdse_scalers*")), "r+") as file:
        found = []
        file.visititems(lambda name, node: found.append(node) if name.endswith("MCS/HS32C") else None)
        found[0][bad["monitor_zero"], found[0].parent["HSI1"][()] - 1] = 0
    done = invoke("run", folder / "run.yaml")
    assert done.returncode == 0, done.stderr
    series, clean = read_table(folder / "results/series.csv"), read_table(results[0] / "series.csv")
    for word, frame in bad.items():
        assert series["flag"][frame].split("|")[0] == word
        assert np.isnan(series["c_nc_umol_L"][frame])
        assert re.search(rf"frame {frame} \(.*\) skipped: {word}", done.stderr), done.stderr
    others = [k for k in range(FRAMES) if k not in bad.values()]
    for name in ("r_nm", "c_nc_umol_L_err", "chi2_red"):
        np.testing.assert_allclose(series[name][others], clean[name][others], rtol=1e-6)  # float32, not uint16
    assert "4" in re.search(r"^frames .*$", done.stdout, re.MULTILINE)[0]


def test_results_replace_those_of_an_earlier_run_and_nothing_else(beamtime, tmp_path):
    path = without_model(variant(beamtime, "again_twice", ("curves: [", "curves: [12, ")))
    result = batch.compute(runfile.load(path), quiet=True)
    folder = batch.write(result, runfile.load(path))
    (folder / "my notes.txt").write_text("keep")
    assert (folder / "curves/frame_00012.dat").exists()
    path.write_text(path.read_text().replace("curves: [12, ", "curves: ["), encoding="utf-8")
    batch.write(result, runfile.load(path))
    assert not (folder / "curves/frame_00012.dat").exists()
    assert (folder / "my notes.txt").read_text() == "keep"
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_curves_of_frames_that_a_shortened_scan_does_not_have_are_left_out_and_said(beamtime):
    """The rest of the run file is for the scan as it was planned."""
    path = variant(beamtime, "shortened", ("curves: [", f"curves: [12, {FRAMES}, 400, "))
    done = invoke("run", without_model(path))
    assert done.returncode == 0, done.stderr
    said = f"output.curves: there is no frame {FRAMES}, 400; the last one is {FRAMES - 1}"
    assert said in done.stderr and said in (beamtime / "shortened/report.html").read_text()
    assert (beamtime / "shortened/curves/frame_00012.dat").exists()
    assert not (beamtime / f"shortened/curves/frame_{FRAMES:05d}.dat").exists()


def test_status_is_there_from_the_beginning(beamtime):
    loaded = runfile.load(variant(beamtime, "begun"))
    for name, state in (("run", "running"), ("live", "waiting")):
        with batch.claimed(loaded, name, print):
            found = status.read(beamtime / "begun")
        assert (found.command, found.state, found.message) == (name, state, "starting")


@pytest.mark.parametrize(
    ("error", "message"),
    [(ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"), (OSError("disk"), "disk")],
)
def test_a_run_that_ends_in_an_error_does_not_run_for_ever(beamtime, error, message):
    loaded = runfile.load(variant(beamtime, "broken"))
    with pytest.raises(type(error)), batch.claimed(loaded, "run", print):
        raise error
    found = status.read(beamtime / "broken")
    assert (found.state, found.message) == ("failed", message)


def test_check_says_what_a_run_would_do(beamtime):
    done = invoke("check", beamtime / "run.yaml")
    assert done.returncode == 0, done.stderr
    for text in (f"{FRAMES} of 480 × 480 px", "18 keV", "background", "memory", "TFG"):
        assert text in done.stdout
    assert not (beamtime / "nothing").exists()


def test_check_says_what_is_switched_on(beamtime):
    path = variant(
        beamtime,
        "check_options",
        ("  monitor: I1", "  monitor: I1\n  monitor_uncertainty: 0.2 %\n "),
        ("  solid_angle: true", "  solid_angle: true\n  sigma_clip: {threshold: 6}"),
        ("integration:", "rebin: {bins: 60, spacing: log}\n\nintegration:"),
        ("data:\n", "data:\n  orientation: rotate_180\n"),
    )
    done = invoke("check", path)
    assert done.returncode == 0, done.stderr
    for text in ("each ± 0.2 %", "beyond 6 σ", "of 60 log bins", "rotate_180"):
        assert text in done.stdout
    assert "rotate" not in invoke("check", beamtime / "run.yaml").stdout


def test_inspect_shows_what_is_in_every_kind_of_file(beamtime, results):
    for path, texts in {
        next(beamtime.glob("raw/cdse_rayonix*")): ("480 × 480", "beam centre", "18 keV"),
        next(beamtime.glob("raw/cdse_scalers*")): ("I1", "TFG"),
        beamtime / "mask.edf": ("480 × 480",),
    }.items():
        done = invoke("inspect", path)
        assert done.returncode == 0, done.stderr
        for text in texts:
            assert text in done.stdout, (path, done.stdout)


def test_the_schema_is_printed(beamtime):
    assert '"cation_concentration"' in invoke("schema").stdout


def test_no_model_stops_at_the_curves(beamtime):
    folder = run(without_model(variant(beamtime, "no_model")))
    series = read_table(folder / "series.csv")
    assert np.isnan(series["r_nm"]).all()
    assert set(series["flag"]) == {"ok", "background"}
    assert (folder / "run_nxcansas.h5").exists()
