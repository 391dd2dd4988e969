"""`live`, `run` and `status` as a user has them: processes that are stopped, killed, or left without room."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from saxs_pipeline import checkpoint
from tests.conftest import FRAMES, command, invoke
from tests.live.conftest import reference, without_frames
from tests.live.test_follow import written_by_lima


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


class Live:
    """`saxs-pipeline live` on a port of its own."""

    def __init__(self, path: Path) -> None:
        self.port = free_port()
        self.said = path.with_suffix(".said").open("w+")
        arguments = [sys.executable, "-m", "saxs_pipeline", "live", str(path), "--port", str(self.port)]
        self.process = subprocess.Popen(arguments, stdout=self.said, stderr=self.said)

    def state(self) -> dict[str, object]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status.json", timeout=10) as answer:
                return json.load(answer)
        except OSError:
            return {"state": "not there", "processed": 0}

    def until(self, wanted, limit_s: float = 90) -> dict[str, object]:
        deadline = time.monotonic() + limit_s
        while not wanted(state := self.state()):
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, state
            time.sleep(0.05)
        return state

    def text(self) -> str:
        self.said.flush()
        return Path(self.said.name).read_text()

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


@contextmanager
def live(path: Path) -> Iterator[Live]:
    started = Live(path)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait()
        started.said.close()


@pytest.mark.slow
def test_killed_in_the_middle_of_a_scan_and_begun_again(beamtime, tmp_path):
    path = without_frames(beamtime, tmp_path / "live")
    folder = path.parent / "results"
    with live(path) as first, written_by_lima(beamtime, path.parent, "--rate", "8"):
        first.until(lambda state: state["state"] == "waiting")
        first.until(lambda state: state["processed"] >= 15)
        time.sleep(2.5)  # frames wait up to two seconds to be written together
        assert first.end(signal.SIGKILL) == -signal.SIGKILL
    kept = checkpoint.count(folder)
    assert kept >= 15
    assert "interrupted" in invoke("status", folder).stdout
    with live(path) as second:
        second.until(lambda state: state["state"] == "finished")
        assert second.end() == 0
        said = second.text()
    assert f"{kept} frames finished earlier are taken from checkpoints" in said
    assert "finished: results are in" in said and "Traceback" not in said
    assert checkpoint.count(folder) == 0
    told = invoke("status", folder).stdout
    assert re.search(rf"state +finished\n(.*\n)*frames +{FRAMES} of {FRAMES} processed", told), told
    results = (folder / "series.csv").read_bytes()
    shutil.rmtree(folder)
    assert results == reference(path)


@pytest.mark.slow
def test_stopped_by_ctrl_c_in_the_middle_nothing_is_lost(beamtime, tmp_path):
    path = without_frames(beamtime, tmp_path / "live")
    with live(path) as session, written_by_lima(beamtime, path.parent, "--rate", "8", "--stop", "20"):
        state = session.until(lambda state: state["processed"] >= 18)
        assert session.end() == 0
        said = session.text()
    assert "go on from there" in said.replace("goes on", "go on") and "Traceback" not in said
    assert checkpoint.count(path.parent / "results") >= int(str(state["processed"]))
    assert not (path.parent / "results/series.csv").exists()


def test_the_page_is_for_this_machine_only_and_its_port_is_said_to_be_taken(beamtime, tmp_path):
    path = without_frames(beamtime, tmp_path / "live")
    with live(path) as session:
        session.until(lambda state: f"live page: http://127.0.0.1:{session.port}/" in session.text())
        found = subprocess.run(["cat", "/proc/net/tcp"], capture_output=True, text=True, check=True).stdout
        bound = [line.split()[1] for line in found.splitlines()[1:] if line.split()[3] == "0A"]
        assert [address for address in bound if address.endswith(f":{session.port:04X}")] == [
            f"0100007F:{session.port:04X}"
        ]
        (other := tmp_path / "other").mkdir()
        shutil.copytree(path.parent, other, dirs_exist_ok=True)
        done = command("live", other / "run.yaml", "--port", session.port)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert f"port {session.port}" in done.stderr


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A disk of its own, of so many bytes."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


needs_mount = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can mount a small disk")


def on_disk(beamtime: Path, folder: Path, disk: Path) -> Path:
    """The beamtime's run file with its results on that disk; a few frames per checkpoint."""
    path = without_frames(beamtime, folder)
    text = path.read_text().replace("folder: results", f"folder: {disk / 'results'}")
    path.write_text(text.replace("engine: {scheduler: threads}", "engine: {scheduler: threads, chunk: 4}"))
    return path


@needs_mount
@pytest.mark.slow
@pytest.mark.parametrize("size", ["300k", "1500k"], ids=["for the checkpoints", "for the results"])
def test_a_full_disk_stops_a_run_which_resumes(beamtime, tmp_path, size):
    with small_disk(tmp_path / "disk", size) as disk:
        path = on_disk(beamtime, tmp_path / "run", disk)
        for frames in (beamtime / "raw").glob("cdse_*"):
            shutil.copy(frames, path.parent / "raw")
        done = command("run", path)
        assert done.returncode == 2
        lines = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
        assert len(lines) == 1 and "no space left on the disk; make room and run again" in lines[0], done.stderr
        kept = checkpoint.count(disk / "results")
        assert kept > 0 and not (disk / "results/series.csv").exists()
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        done = invoke("run", path)
        assert done.returncode == 0
        assert f"{kept} frames finished earlier are taken from checkpoints" in done.stderr
        found = (disk / "results/series.csv").read_bytes()
        shutil.rmtree(disk / "results")
        assert found == reference(path)


@needs_mount
@pytest.mark.slow
def test_a_full_disk_stops_live_which_resumes(beamtime, tmp_path):
    with small_disk(tmp_path / "disk", "300k") as disk:
        path = on_disk(beamtime, tmp_path / "run", disk)
        with live(path) as session, written_by_lima(beamtime, path.parent, "--rate", "20"):
            assert session.process.wait(timeout=90) == 2
            last = session.text().strip().splitlines()[-1]
        assert "no space left on the disk; make room and run again" in last
        kept = checkpoint.count(disk / "results")
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        with live(path) as session:
            session.until(lambda state: state["state"] == "finished")
            assert session.end() == 0
            assert kept == 0 or f"{kept} frames finished earlier" in session.text()
        found = (disk / "results/series.csv").read_bytes()
        shutil.rmtree(disk / "results")
        assert found == reference(path)


@needs_mount
@pytest.mark.slow
def test_results_for_which_there_was_no_room_are_written_when_there_is(beamtime, tmp_path):
    with small_disk(tmp_path / "disk", "1500k") as disk:
        path = on_disk(beamtime, tmp_path / "run", disk)
        with live(path) as session, written_by_lima(beamtime, path.parent, "--rate", "20"):
            session.until(lambda state: "stalled" in session.text())
            assert re.search(r"stalled: no results yet: .*no space left on the disk; make room", session.text())
            subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
            session.until(lambda state: state["state"] == "finished")
            assert session.end() == 0
        found = (disk / "results/series.csv").read_bytes()
        shutil.rmtree(disk / "results")
        assert found == reference(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run", "live"])
def test_ctrl_c_at_any_moment_is_one_line(beamtime, tmp_path, name):
    """While it imports, reads, fits, or opens its page."""
    path = without_frames(beamtime, tmp_path / "scan")
    for frames in (beamtime / "raw").glob("cdse_*"):
        shutil.copy(frames, path.parent / "raw")
    arguments = [sys.executable, "-m", "saxs_pipeline", name, str(path)]
    arguments += ["--port", str(free_port())] if name == "live" else []
    for k in range(8):
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        time.sleep(1 + 0.35 * k)  # by then Python has begun
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
        if name == "run" and process.returncode == 0 and "results:" in said:
            continue
        last = [line for line in said.splitlines() if line.strip()][-1]
        assert "Traceback" not in said and re.search(r"stopped; .*from there|the page stays", last), said


@pytest.mark.slow
def test_several_runs_and_one_summary(beamtime, tmp_path):
    """One that fails does not stop the others; what is up to date is left alone the next time."""
    folder = tmp_path / "several"
    shutil.copytree(beamtime, folder, ignore=shutil.ignore_patterns("*.yaml", "results*"))
    text = re.sub("(?m)^model: .*$", "model: null", (beamtime / "run.yaml").read_text())
    for name in ("a", "b", "c"):
        content = text.replace("folder: results", f"folder: out_{name}")
        (folder / f"scan_{name}.yaml").write_text(
            content.replace("gain: 1.6", "gain: none") if name == "b" else content
        )
    done = invoke("run", folder / "scan_*.yaml")
    assert done.returncode == 2
    assert "2 finished, 1 failed" in done.stdout and f"{2 * FRAMES}, 0 of them not usable" in done.stdout
    assert "scan_b.yaml" in done.stdout and "gain" in done.stdout and "Traceback" not in done.stderr
    for name in ("series.csv", "run_nxcansas.h5"):
        assert (folder / "out_a" / name).read_bytes() == (folder / "out_c" / name).read_bytes()
    (folder / "scan_b.yaml").unlink()
    (folder / "scan_c.yaml").write_text(
        text.replace("folder: results", "folder: out_c").replace("title: CdSe", "title: New")
    )
    done = invoke("run", folder / "scan_a.yaml", folder / "scan_c.yaml")
    assert done.returncode == 0
    assert "1 finished, 1 up to date" in done.stdout
    told = invoke("status", folder / "out_a", folder / "out_c").stdout
    assert told.count("finished") == 2
    assert invoke("run", folder / "none_*.yaml").returncode == 2
