"""Where chunks run: cut without gaps, and a worker that dies is said in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saxs_pipeline.config import Engine
from saxs_pipeline.engine import _worker_processes, bounds, workers
from saxs_pipeline.plan import prepare
from saxs_pipeline.runfile import load
from tests.conftest import variant


@given(st.integers(0, 10_000), st.integers(1, 500))
def test_chunks_cover_every_frame_once(n, size):
    pieces = bounds(n, size)
    assert [k for start, stop in pieces for k in range(start, stop)] == list(range(n))
    assert all(stop - start <= size for start, stop in pieces)


def test_workers_default_to_the_cores_of_this_process():
    assert workers(Engine(workers=3)) == 3
    assert workers(Engine()) == len(os.sched_getaffinity(0))


def children(pid: int) -> list[int]:
    """Worker processes of a run (spawned by multiprocessing), not the resource tracker."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            parent = int(status.read_text().split("PPid:")[1].split()[0])
            line = (status.parent / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue
        if parent == pid and b"spawn_main" in line:
            found.append(int(status.parent.name))
    return found


@contextmanager
def with_workers(beamtime: Path, name: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A run in processes, from the moment its first worker exists, and the workers' numbers."""
    path = variant(beamtime, name, ("engine: {scheduler: threads}", "engine: {scheduler: processes, chunk: 1}"))
    arguments = [sys.executable, "-m", "saxs_pipeline", "run", path]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, start_new_session=True) as run:
        try:
            deadline = time.monotonic() + 60
            while not (found := children(run.pid)) and time.monotonic() < deadline and run.poll() is None:
                time.sleep(0.001)
            assert found, run.communicate()[1]
            yield run, found
        finally:
            run.kill()


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to find worker processes")
moments = pytest.mark.parametrize("delay_s", [0, 0.3, 1], ids=["starting", "importing", "working"])


@needs_proc
@moments
def test_a_killed_worker_is_one_clear_line_and_leaves_nothing(beamtime, delay_s):
    with with_workers(beamtime, "killed") as (run, found):
        time.sleep(delay_s)
        os.kill(found[0], signal.SIGKILL)
        message = run.communicate(timeout=120)[1]
    assert run.returncode == 2, message
    assert message.count("\n") == 1
    assert message.startswith("engine: a worker process died")
    assert not (beamtime / "killed").exists()


@needs_proc
@moments
def test_ctrl_c_ends_a_run_and_its_workers_without_a_traceback(beamtime, delay_s):
    with with_workers(beamtime, "interrupted") as (run, _):
        time.sleep(delay_s)
        os.killpg(run.pid, signal.SIGINT)
        message = run.communicate(timeout=120)[1]
        assert children(run.pid) == []
    assert run.returncode in (1, -signal.SIGINT)  # the latter where it passed through exec(), as in an import
    assert message == "\nAborted!\n"
    assert not (beamtime / "interrupted").exists()


@needs_proc
@moments
def test_workers_end_when_the_run_is_killed(beamtime, delay_s):
    with with_workers(beamtime, "gone") as (run, _):
        time.sleep(delay_s)
        found = children(run.pid)
        run.kill()
        run.wait()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}/exe").exists() for pid in found) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in found)


def test_ctrl_c_inside_a_finaliser_still_ends_the_run():
    script = """
import os, signal, time
from saxs_pipeline.apps.cli import main

class Finaliser:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

@main.command()
def slow():
    Finaliser()
    time.sleep(60)

main(["slow"])
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False)
    assert run.returncode == 1
    assert run.stderr == "\nAborted!\n"


def test_workers_can_be_started_from_any_thread(beamtime):
    def first_frames() -> list[int]:
        with _worker_processes(prepare(load(beamtime / "run.yaml")), 1) as call:
            return list(call(0, 2).curves.index)

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(first_frames).result() == [0, 1]


def test_an_error_in_a_worker_is_raised_in_the_run_with_its_place(beamtime):
    with _worker_processes(prepare(load(beamtime / "run.yaml")), 1) as call:
        with pytest.raises(TypeError) as caught:
            call(0, None)
        assert "pipeline.py" in caught.value.__notes__[0]
        assert len(call(0, 2).curves.index) == 2
