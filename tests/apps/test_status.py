"""What a results folder tells about its run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from saxs_pipeline import checkpoint
from saxs_pipeline.apps import status
from saxs_pipeline.apps.cli import main
from saxs_pipeline.apps.status import Frames, StatusFile, describe, describe_all, overview, read
from saxs_pipeline.apps.terminal import one_line, plain
from saxs_pipeline.checkpoint import FrameStore
from saxs_pipeline.outputs.folder import staged
from saxs_pipeline.types import BadInput
from tests.killing import ROOT
from tests.known_chunks import PLAN, chunk, keys

FRAMES = Frames(expected=575, complete=420, processed=412, from_checkpoints=64, flagged=3)


def status_file(folder: Path) -> StatusFile:
    return StatusFile(folder, command="live", title="CdSe, run 4", run_file=Path("somewhere/run.yaml"))


def text(folder: Path) -> str:
    return (folder / "status.json").read_text(encoding="utf-8")


def rewritten(folder: Path, **changes: object) -> None:
    (folder / "status.json").write_text(json.dumps(json.loads(text(folder)) | changes), encoding="utf-8")


def test_what_is_written_can_be_read(tmp_path):
    before = datetime.now().astimezone().replace(microsecond=0)
    status_file(tmp_path).write("running", FRAMES, rate=23.456, message="µ: beam lost")
    found = read(tmp_path)
    assert found.frames == FRAMES
    assert (found.state, found.command, found.title) == ("running", "live", "CdSe, run 4")
    assert (found.run_file, found.rate, found.message) == ("run.yaml", 23.456, "µ: beam lost")
    assert (found.host, found.pid) == (socket.gethostname(), os.getpid())
    for moment in map(datetime.fromisoformat, (found.started, found.updated)):
        assert before <= moment <= datetime.now().astimezone()
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_it_is_written_at_most_once_per_second_but_for_a_new_state(tmp_path, monkeypatch):
    file = status_file(tmp_path)
    written = []
    for k, state in enumerate(["waiting", "waiting", "running", "running", "finished"]):
        file.write(state, Frames(processed=k), rate=float("nan"))
        written.append(read(tmp_path).frames.processed)
    assert written == [0, 0, 2, 2, 4]
    monkeypatch.setattr(status, "EVERY_S", 0.02)
    time.sleep(0.03)
    file.write("finished", Frames(processed=5))
    assert read(tmp_path).frames.processed == 5


def test_it_is_a_courtesy_and_leaves_nothing_behind(tmp_path):
    file = StatusFile(tmp_path / "gone", command="run", title="", run_file=Path("run.yaml"))
    file.write("running", Frames())
    assert not (tmp_path / "gone").exists()
    (tmp_path / "status.json").mkdir()
    status_file(tmp_path).write("running", Frames())
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
    (tmp_path / ".status.json.4711.tmp").touch()
    status_file(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_a_full_disk_does_not_end_the_run(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", disk], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"a small disk cannot be mounted: {made.stderr.decode().strip()}")
    try:
        file = status_file(disk)
        file.write("waiting", FRAMES)
        with (disk / "ballast").open("wb", buffering=0) as ballast, pytest.raises(OSError, match="No space"):
            while True:
                ballast.write(bytes(4096))
        file.write("running", FRAMES)
        assert read(disk).state == "waiting"
        (disk / "ballast").unlink()
        file.write("finished", FRAMES)
        assert read(disk).state == "finished"
        assert [path.name for path in disk.iterdir()] == ["status.json"]
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_running_run_is_described(tmp_path):
    status_file(tmp_path).write("stalled", FRAMES, rate=23.456, message="no frame for 12 s")
    rows = dict(describe(tmp_path))
    assert list(rows) == [
        "state", "title", "command", "frames", "rate", "started", "updated", "process", "message", "results",
    ]  # fmt: skip
    assert rows["state"] == "stalled"
    assert rows["title"] == "CdSe, run 4"
    assert rows["command"] == "saxs-pipeline live run.yaml"
    assert rows["frames"] == "412 of 575 processed, 64 of them from checkpoints, 420 complete on disk; 3 not usable"
    assert rows["rate"] == "23.5 frames/s"
    assert rows["updated"].endswith(" s ago)")
    assert rows["process"] == f"{os.getpid()} on {socket.gethostname()}"
    assert rows["message"] == "no frame for 12 s"
    assert rows["results"] == "none yet"


def test_a_finished_run_names_its_results(tmp_path):
    status_file(tmp_path).write("finished", Frames(expected=None, complete=40, processed=40))
    for name in ("series.csv", "run.nxs"):
        (tmp_path / name).touch()
    rows = dict(describe(tmp_path))
    assert rows["state"] == "finished"
    assert rows["frames"] == "40 processed; 0 not usable"
    assert rows["results"] == "run.nxs, series.csv"
    assert "message" not in rows


KILLED = """
import sys, time
from pathlib import Path
from saxs_pipeline.apps.status import Frames, StatusFile
StatusFile(Path(sys.argv[1]), command="run", title="", run_file=Path("run.yaml")).write("running", Frames(9, 9, 5))
print("written", flush=True)
time.sleep(60)
"""


def test_a_killed_run_is_interrupted_and_can_be_resumed(tmp_path):
    store = FrameStore(tmp_path / ".checkpoints", PLAN, {})
    store.add(keys(range(6)), chunk(range(6)))
    with subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], cwd=ROOT, stdout=subprocess.PIPE) as run:
        try:
            assert run.stdout.readline() == b"written\n"
            assert dict(describe(tmp_path))["state"] == "running"
            assert overview([tmp_path])[0].state == "running"
        finally:
            run.send_signal(signal.SIGKILL)
    expected = "interrupted: run again to resume; 6 frames are in checkpoints"
    assert dict(describe(tmp_path))["state"] == expected
    assert overview([tmp_path])[0] == ("interrupted", "5/9", "0", "0", str(tmp_path))
    (tmp_path / "status.json").unlink()
    assert describe(tmp_path) == [("state", expected), ("results", "none yet")]
    assert overview([tmp_path])[0].state == "interrupted"
    status_file(tmp_path).write("failed", Frames(), message="no space left")
    assert dict(describe(tmp_path))["state"] == "failed; 6 frames are in checkpoints"
    checkpoint.clear(tmp_path / ".checkpoints")
    assert dict(describe(tmp_path))["state"] == "failed"


def test_another_machine_has_to_be_asked_itself(tmp_path):
    status_file(tmp_path).write("running", FRAMES)
    ago = datetime.now().astimezone() - timedelta(minutes=7)
    rewritten(tmp_path, host="id02-node7", pid=2**30, updated=ago.isoformat())
    assert dict(describe(tmp_path))["state"] == (
        "running on id02-node7, as it said 7 min ago; ask there whether it still is"
    )
    assert overview([tmp_path])[0].state == "running"
    rewritten(tmp_path, state="finished")
    assert dict(describe(tmp_path))["state"] == "finished"


def test_results_without_a_status_tell_what_they_can(tmp_path):
    (tmp_path / "run.nxs").touch()
    assert describe(tmp_path) == [("state", "finished"), ("results", "run.nxs")]
    (tmp_path / "series.csv").write_text("frame,flag\n0,weak|background\n1,ok\n2,weak\n", encoding="utf-8")
    assert dict(describe(tmp_path))["frames"] == "3 processed; 2 weak, 1 background"
    assert overview([tmp_path]) == [("finished", "3", "", "", str(tmp_path))]
    for damaged in (b"\xff\xff", b"a,b\n1,2\n"):
        (tmp_path / "series.csv").write_bytes(damaged)
        assert "frames" not in dict(describe(tmp_path))


def test_what_was_complete_when_its_run_was_killed_is_published(tmp_path):
    with staged(tmp_path) as staging:
        (staging / "series.csv").write_text("old", encoding="utf-8")
    complete = tmp_path / f".complete-{socket.gethostname()}-{2**22 + 1}"
    complete.mkdir()
    (complete / "series.csv").write_text("frame,flag\n0,ok\n", encoding="utf-8")
    (complete / ".files.json").write_text('["series.csv"]', encoding="utf-8")
    assert dict(describe(tmp_path))["frames"] == "1 processed"
    assert not complete.exists()


def test_what_cannot_be_published_is_said(tmp_path):
    (tmp_path / "series.csv").mkdir()
    complete = tmp_path / f".complete-{socket.gethostname()}-{2**22 + 1}"
    complete.mkdir()
    (complete / "series.csv").touch()
    assert "cannot be written" in dict(describe(tmp_path))["note"]
    assert overview([tmp_path])[0].state == "finished"


DAMAGED = {
    "empty": "",
    "no JSON": "{",
    "a list": "[1]",
    "a number": "3",
    "deep": "[" * 100_000,
    "bytes": b"\xff\xfe",
    "fields missing": '{"state": "running"}',
    "no frames": {"frames": None},
    "frames are text": {"frames": {"processed": "5"}},
    "negative frames": {"frames": {"processed": -5}},
    "no processed": {"frames": {"processed": None}},
    "more frames": {"frames": {"lost": 5}},
    "other state": {"state": "sleeping"},
    "state is a list": {"state": []},
    "title is a number": {"title": 5},
    "rate": {"rate": "fast"},
    "no rate": {"rate": float("nan")},
    "pid": {"pid": -1},
    "moment": {"updated": "yesterday"},
    "no offset": {"updated": "2025-01-01T00:00:00"},
    "one more": {"more": 1},
}


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_one_line(tmp_path, damaged):
    status_file(tmp_path).write("running", FRAMES)
    if isinstance(damaged, dict):
        rewritten(tmp_path, **damaged)
    else:
        (tmp_path / "status.json").write_bytes(damaged.encode() if isinstance(damaged, str) else damaged)
    with pytest.raises(BadInput, match=r"status\.json is damaged; remove it"):
        describe(tmp_path)
    assert overview([tmp_path])[0] == ("damaged", "", "", "", str(tmp_path))


def test_what_is_no_results_folder_is_one_line(tmp_path):
    (tmp_path / "run.yaml").touch()
    (tmp_path / "other").mkdir()
    cases = {"gone": "gone: not found", "run.yaml": "run.yaml: is a file", "other": "other: holds no results of a run"}
    for name, message in cases.items():
        with pytest.raises(BadInput, match=f"{message}; give"):
            describe(tmp_path / name)
    rows = overview(tmp_path / name for name in cases)
    assert [row.state for row in rows] == ["none"] * 3
    (tmp_path / "status.json").mkdir()
    with pytest.raises(BadInput, match=r"status\.json cannot be read: Is a directory"):
        describe(tmp_path)


def test_nothing_in_the_file_steers_the_terminal(tmp_path):
    file = StatusFile(tmp_path, command="run", title="a\x1b[2Jb\nc", run_file=Path("run\r.yaml"))
    file.write("running", FRAMES, message="\x07")
    assert all(value.isprintable() for _, value in describe(tmp_path))


STEERS = "\r\x07\x1b]0;\x9b2J\u202e"
"""Steers a terminal, or turns its text around."""


def test_no_text_steers_the_terminal(tmp_path):
    assert one_line("µ\r\x07\x1bσ_r\n²") == "µ   σ_r ²"
    assert plain("one\r\ntwo\x9b2J") == "one \ntwo 2J"
    file = tmp_path / "names.h5"
    with h5py.File(file, "w") as h5:
        h5[f"entry/detector{STEERS}/data"] = np.zeros((2, 4, 4))
    named = tmp_path / f"no{STEERS}thing"
    named.mkdir()
    for command in (["inspect", str(file)], ["status", str(named)], ["status", str(named), str(tmp_path)]):
        said = CliRunner().invoke(main, command).output
        assert said
        assert all(line.isprintable() for line in said.split("\n"))


def test_many_folders_are_a_table(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    status_file(tmp_path / "a").write("finished", FRAMES, rate=12)
    assert describe_all(tmp_path / name for name in "abc") == [
        ("state", " frames  not usable  frames/s  folder"),
        ("finished", f"412/575           3        12  {tmp_path}/a"),
        ("none", f"{'':31}{tmp_path}/b"),
        ("none", f"{'':31}{tmp_path}/c"),
    ]


def test_thousands_of_folders_take_seconds(tmp_path):
    folders = [tmp_path / str(k) for k in range(1000)]
    for folder in folders:
        folder.mkdir()
        status_file(folder).write("finished", FRAMES, rate=12)
    start = time.perf_counter()
    rows = overview(folders)
    assert time.perf_counter() - start < 5
    assert set(rows) == {("finished", "412/575", "3", "12", str(folder)) for folder in folders}
