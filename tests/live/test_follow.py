"""Scans that grow in all the ways the beamlines have: followed, the results are those of a batch run afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from saxs_pipeline import runfile
from saxs_pipeline.apps import batch
from saxs_pipeline.types import BadInput
from tests.conftest import FRAMES, ROOT, without_model
from tests.live.conftest import copied, following, reference, without_frames


def written_by_lima(beamtime: Path, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    arguments = [beamtime / "raw", folder / "raw", folder / "written.txt", *options]
    return subprocess.Popen([sys.executable, "-m", "tests.live.lima_writer", *arguments], cwd=ROOT)


def test_a_stack_that_another_program_writes(beamtime, tmp_path):
    """Begun before there is any file; frames come one by one and in a burst; the background is not there at first."""
    path = without_frames(beamtime, tmp_path / "live")
    with following(path) as scan:
        assert "cdse_rayonix" in scan.until(lambda s: s.state == "waiting").message
        with written_by_lima(beamtime, path.parent, "--burst", "20:35", "--hold", "4"):
            early = scan.until(lambda s: s.n_processed == 4)
            assert early.state == "running" and "4 of its 6 frames are there" in early.message
            assert early.result.quantities is None and early.n_expected == FRAMES
            (path.parent / "raw/go").touch()
            counts = []
            scan.until(lambda s: (counts.append(s.n_processed), s.state == "finished")[1])
    assert counts == sorted(counts) and len(set(counts)) > 5
    last = scan.latest.pull()
    assert last.n_processed == last.n_complete == FRAMES and last.analysis is not None
    live = (path.parent / "results" / "series.csv").read_bytes()
    shutil.rmtree(path.parent / "results")
    assert live == reference(path)


def test_versions_of_snapshots_only_grow_and_old_ones_stay_as_they_were(beamtime, tmp_path):
    path = without_frames(beamtime, tmp_path / "live")
    seen = []
    with following(path) as scan, written_by_lima(beamtime, path.parent, "--rate", "20"):
        scan.until(lambda s: (seen.append(s), s.state == "finished")[1])
    versions = [s.version for s in seen]
    assert versions == sorted(versions)
    for snapshot in seen:
        if snapshot.result is not None:
            assert len(snapshot.result.curves.index) == snapshot.n_processed


def test_a_folder_that_fills_out_of_order(edf, tmp_path, quick_stall):
    """A file half-written, one too late, a gap in between: never read too early, slotted in, and said."""
    folder = copied(edf, tmp_path / "live", "cdse_0*")
    frames = sorted((edf / "raw/cdse").glob("*.edf"))
    target = folder / "raw/cdse"
    target.mkdir(exist_ok=True)
    with following(folder / "run.yaml") as scan:
        assert "cdse_*.edf" in scan.until(lambda s: s.state == "waiting").message
        for frame in [*frames[:12], *frames[13:16]]:
            shutil.copy(frame, target)
        snapshot = scan.until(lambda s: s.n_processed == 12)  # what follows the gap has no row yet
        assert any("no file with number" in warning for warning in snapshot.warnings)
        whole = frames[12].read_bytes()
        (target / frames[12].name).write_bytes(whole[: len(whole) // 2])
        time.sleep(0.5)
        before = scan.until(lambda s: s.version > snapshot.version)
        assert before.n_processed - before.n_flagged <= 15  # without it
        (target / frames[12].name).write_bytes(whole)
        snapshot = scan.until(lambda s: s.n_processed == 16 and not s.n_flagged)
        assert any("came after later ones" in warning for warning in snapshot.warnings)
        for frame in frames[16:]:
            shutil.copy(frame, target)
        scan.until(lambda s: s.state == "stalled" and "results are in" in s.message and s.n_processed == 24)
    live = (folder / "results/series.csv").read_bytes()
    shutil.rmtree(folder / "results")
    assert live == reference(folder / "run.yaml")


def test_a_fio_scan_that_runs(p21, tmp_path):
    folder = copied(p21, tmp_path / "live", "cdse_*")
    lines = (p21 / "raw/cdse_00001.fio").read_text().splitlines(keepends=True)
    first = max(k for k, line in enumerate(lines) if line.startswith(" Col")) + 1
    images = sorted(path for path in (p21 / "raw/cdse_00001").rglob("*") if path.is_file())
    with following(folder / "run.yaml") as scan:
        assert "cdse_00001.fio" in scan.until(lambda s: s.state == "waiting").message
        for k in (0, 1, 10, 24):  # rows; the image of the last row comes after it
            (folder / "raw/cdse_00001.fio").write_text("".join(lines[: first + k]))
            scan.session.step()
            for image in images[:k]:
                place = folder / image.relative_to(p21)
                place.parent.mkdir(parents=True, exist_ok=True)
                if not place.exists():
                    shutil.copy(image, place)
            if k:
                scan.until(lambda s, k=k: s.n_complete == k and s.n_processed == k and not s.n_flagged)
        (folder / "raw/cdse_00001.fio").write_text("".join(lines))
        scan.until(lambda s: s.state == "finished")
    live = (folder / "results/series.csv").read_bytes()
    shutil.rmtree(folder / "results")
    assert live == reference(folder / "run.yaml")


def test_a_finished_scan_is_done_at_once(beamtime, tmp_path):
    folder = tmp_path / "late"
    shutil.copytree(beamtime, folder, ignore=shutil.ignore_patterns("results*"))
    with following(without_model(folder / "run.yaml")) as scan:
        assert scan.until(lambda s: s.state != "running").state == "finished"


def test_a_burst_is_worked_off_in_pieces(beamtime, tmp_path, monkeypatch):
    """Between two looks no more than AT_ONCE frames are processed; a snapshot follows each."""
    monkeypatch.setattr("saxs_pipeline.apps.follow.AT_ONCE", 7)
    folder = tmp_path / "burst"
    shutil.copytree(beamtime, folder, ignore=shutil.ignore_patterns("results*"))
    counts = []
    with following(without_model(folder / "run.yaml")) as scan:
        scan.until(lambda s: (counts.append(s.n_processed), s.state == "finished")[1], every_s=0)
    assert max(np.diff([0, *counts])) <= 7


def test_scalers_that_lag_behind_hold_the_frames_back(beamtime, tmp_path):
    """A frame without its monitor is never divided by something else."""
    path = without_model(without_frames(beamtime, tmp_path / "live"))
    for image in (beamtime / "raw").glob("cdse_rayonix*"):
        shutil.copy(image, path.parent / "raw")
    with following(path) as scan:
        assert "cdse_scalers" in scan.until(lambda s: s.state == "waiting").message
        for table in (beamtime / "raw").glob("cdse_scalers*"):
            shutil.copy(table, path.parent / "raw")
        scan.until(lambda s: s.state == "finished")


def test_a_mistake_that_waiting_cannot_mend_ends_it(beamtime, tmp_path):
    folder = tmp_path / "wrong"
    shutil.copytree(beamtime, folder, ignore=shutil.ignore_patterns("results*"))
    for path in folder.rglob("*"):
        os.utime(path, (1e9, 1e9))
    run = folder / "run.yaml"
    run.write_text(run.read_text().replace("window: [1 1/nm, 4 1/nm]", "window: [7 1/nm, 8 1/nm]"))
    with pytest.raises(BadInput, match="water"), following(run) as scan:
        scan.until(lambda s: False)
    assert scan.latest.pull().state == "failed"


def test_a_frame_that_cannot_be_read_at_first_is_tried_again(edf, tmp_path):
    """Its file is torn when it is first looked at, and whole later: the results are as if nothing had been."""
    folder = copied(edf, tmp_path / "live")
    victim = sorted((folder / "raw/cdse").glob("*.edf"))[15]
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-1000])  # the header is whole, the pixels are not
    with following(folder / "run.yaml") as scan:
        scan.until(lambda s: s.n_processed == 24 and s.n_flagged == 1)
        victim.write_bytes(whole)
        scan.until(lambda s: s.n_processed == 24 and s.n_flagged == 0)


def test_live_and_run_share_checkpoints(beamtime, tmp_path):
    path = without_frames(beamtime, tmp_path / "live")
    with following(path) as scan, written_by_lima(beamtime, path.parent, "--rate", "40", "--stop", "25"):
        snapshot = scan.until(lambda s: s.n_processed >= 20 and s.result.quantities is not None)
        scan.session.flush()
    with following(path) as again:  # a page opened on a scan that pauses: nothing is fresh, all is shown
        assert again.until(lambda s: s.n_complete >= 25).n_processed >= 20
        again.until(lambda s: s.n_processed == s.n_complete and s.result is not None)
        again.session.flush()
        shown = again.latest.pull().n_processed
    with following(path) as third:
        assert third.until(lambda s: s.n_processed == shown).result is not None
    run = runfile.load(path)
    with batch.claimed(run, "run", scan.said.append) as claim:
        told = []
        batch.compute(run, quiet=True, store_of=claim.store, tell=lambda frames, rate: told.append(frames))
    assert told[0].from_checkpoints >= snapshot.n_processed
    assert any("taken from checkpoints" in line for line in scan.said)


def test_an_end_that_is_said_before_the_last_image_is_there(p21, tmp_path):
    """The closing line of the .fio comes first, then the image of its last row, in two pieces."""
    folder = copied(p21, tmp_path / "live")
    last = sorted(path for path in (folder / "raw/cdse_00001").rglob("*") if path.is_file())[-1]
    whole = last.read_bytes()
    last.unlink()
    with following(without_model(folder / "run.yaml")) as scan:
        snapshot = scan.until(lambda s: s.n_processed == 23)
        assert snapshot.state == "running"
        last.write_bytes(whole[: len(whole) // 2])
        scan.session.step()
        last.write_bytes(whole)
        snapshot = scan.until(lambda s: s.state == "finished")
    assert (snapshot.n_processed, snapshot.n_flagged) == (24, 0)


def test_an_image_that_never_comes_is_flagged_in_the_end(p21, tmp_path, monkeypatch):
    monkeypatch.setattr("saxs_pipeline.apps.follow.SETTLED_S", 1.0)
    folder = copied(p21, tmp_path / "live")
    last = sorted(path for path in (folder / "raw/cdse_00001").rglob("*") if path.is_file())[-1]
    last.unlink()
    with following(without_model(folder / "run.yaml")) as scan:
        snapshot = scan.until(lambda s: s.state == "finished")
    assert (snapshot.n_processed, snapshot.n_flagged) == (24, 1)


def test_counters_that_come_after_the_end_of_the_images(beamtime, tmp_path):
    """LImA has closed its file while the last rows of the scalers are still zero."""
    path = without_model(without_frames(beamtime, tmp_path / "live"))
    images, counters = (next((beamtime / "raw").glob(f"cdse_{kind}_*")) for kind in ("rayonix", "scalers"))
    shutil.copy(images, path.parent / "raw")
    table = path.parent / "raw" / counters.name
    shutil.copy(counters, table)
    with h5py.File(table, "r+") as file:
        rows = file["entry_0000/ESRF-ID02/MCS/HS32C"]
        final = rows[-3:]
        rows[-3:] = 0
    with following(path) as scan:
        assert scan.until(lambda s: s.n_processed == FRAMES - 3).state == "running"
        with h5py.File(table, "r+") as file:
            file["entry_0000/ESRF-ID02/MCS/HS32C"][-3:] = final
        snapshot = scan.until(lambda s: s.state == "finished")
    assert (snapshot.n_processed, snapshot.n_flagged) == (FRAMES, 0)


def test_references_that_are_still_being_copied(edf, tmp_path):
    """Dark frames come one by one after the scan: in the end all of them count, as in a batch run."""
    folder = copied(edf, tmp_path / "live", "dark_0*")
    darks = sorted((edf / "raw/dark").glob("*.edf"))
    (folder / "raw/dark").mkdir(exist_ok=True)
    with following(without_model(folder / "run.yaml")) as scan:
        assert "dark_*.edf" in scan.until(lambda s: s.state == "waiting").message
        for dark in darks:
            shutil.copy(dark, folder / "raw/dark")
            scan.session.step()
        result = scan.until(lambda s: s.n_processed == 24).result
    run = runfile.load(folder / "run.yaml")
    np.testing.assert_array_equal(result.curves.intensity, batch.compute(run, quiet=True).curves.intensity)


def test_a_time_stamp_in_a_name_is_no_count():
    from saxs_pipeline.apps.follow import _absent_numbers

    assert _absent_numbers([Path(f"a_{k}.edf") for k in (1, 2, 3, 5, 6)]) == [(3, 4)]
    assert _absent_numbers([Path(f"a_{k}.edf") for k in (1, 2, 3, 4, 20241103)]) == []
    assert _absent_numbers([Path(f"a_{k}.edf") for k in range(0, 100, 10)]) == []
