"""Where chunks run: cut without gaps, and a worker that dies is said in one line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saxs_pipeline.engine import pool, workers
from saxs_pipeline.engine_config import Engine, Slurm
from saxs_pipeline.engine_processes import worker_processes
from saxs_pipeline.plan import pieces, prepare
from saxs_pipeline.runfile import load
from saxs_pipeline.stages.integrate import COMPILE_FROM_PIXELS
from saxs_pipeline.types import BadInput, ChunkResult
from tests.conftest import variant


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
def with_workers(
    beamtime: Path, name: str, scheduler: str = "processes"
) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A run in processes, from the moment its first worker exists, and the workers' numbers."""
    path = variant(beamtime, name, ("engine: {scheduler: threads}", f"engine: {{scheduler: {scheduler}, chunk: 1}}"))
    arguments = [sys.executable, "-m", "saxs_pipeline", "run", path]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, start_new_session=True) as run:
        try:
            deadline = time.monotonic() + 60
            while not (found := children(run.pid)) and time.monotonic() < deadline and run.poll() is None:
                time.sleep(0.03)
            assert found, run.communicate()[1]
            yield run, found
        finally:
            run.kill()


STOPPED = "stopped; finished frames are kept: the same `run` again goes on from there\n"

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to find worker processes")
moments = pytest.mark.parametrize("delay_s", [0, 0.3, 1], ids=["starting", "importing", "working"])


@needs_proc
def test_workers_are_started_afresh_with_one_thread_of_openmp(beamtime, monkeypatch):
    """Forked after pyFAI has used threads they would wait for ever (formats.md §3.7): `children` are spawned ones."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with with_workers(beamtime, "afresh") as (_, found):
        for pid in found:
            assert b"\0OMP_NUM_THREADS=1\0" in b"\0" + Path(f"/proc/{pid}/environ").read_bytes()


@needs_proc
@moments
def test_a_killed_worker_is_one_clear_line_and_leaves_nothing(beamtime, delay_s):
    with with_workers(beamtime, f"killed_{delay_s}") as (run, found):
        time.sleep(delay_s)
        os.kill(found[0], signal.SIGKILL)
        message = run.communicate(timeout=120)[1]
    assert run.returncode == 2, message
    assert message.count("\n") == 1
    assert message.startswith("engine: a worker process died")
    assert not (beamtime / f"killed_{delay_s}" / "series.csv").exists()


@needs_proc
@moments
def test_ctrl_c_ends_a_run_and_its_workers_without_a_traceback(beamtime, delay_s):
    with with_workers(beamtime, f"interrupted_{delay_s}") as (run, _):
        time.sleep(delay_s)
        os.killpg(run.pid, signal.SIGINT)
        message = run.communicate(timeout=120)[1]
        assert children(run.pid) == []
    assert run.returncode in (1, -signal.SIGINT)  # the latter where it passed through exec(), as in an import
    assert message == STOPPED
    assert not (beamtime / f"interrupted_{delay_s}" / "series.csv").exists()


@needs_proc
@moments
def test_workers_end_when_the_run_is_killed(beamtime, delay_s):
    with with_workers(beamtime, f"gone_{delay_s}") as (run, _):
        time.sleep(delay_s)
        found = children(run.pid)
        run.kill()
        run.wait()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}/exe").exists() for pid in found) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(Path(f"/proc/{pid}/exe").exists() for pid in found)


@pytest.mark.parametrize("swallowed", ["Finaliser", "library"])
def test_ctrl_c_that_is_swallowed_still_ends_the_run(swallowed):
    script = f"""
import os, signal, time
from saxs_pipeline.apps.cli import main

def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)

class Finaliser:
    def __del__(self):
        ctrl_c()

def library():
    try:
        ctrl_c()
    except BaseException:
        pass

@main.command()
def slow():
    {swallowed}()
    time.sleep(60)

main(["slow"])
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False)
    assert run.returncode == 1
    assert run.stderr == "\nAborted!\n"


def test_workers_can_be_started_from_any_thread(beamtime):
    def first_frames() -> list[int]:
        with worker_processes(1) as call:
            return list(call(prepare(load(beamtime / "run.yaml")), 0, 2).curves.index)

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(first_frames).result() == [0, 1]


def test_an_error_in_a_worker_is_raised_in_the_run_with_its_place(beamtime):
    plan = prepare(load(beamtime / "run.yaml"))
    with worker_processes(1) as call:
        with pytest.raises(TypeError) as caught:
            call(plan, 0, None)
        assert "pipeline.py" in caught.value.__notes__[0]
        assert len(call(plan, 0, 2).curves.index) == 2


@given(st.lists(st.integers(0, 300), unique=True).map(sorted), st.integers(1, 40))
def test_pieces_cover_the_given_frames_and_no_others(frames, size):
    found = pieces(frames, size)
    assert [k for start, stop in found for k in range(start, stop)] == frames
    assert all(0 < stop - start <= size for start, stop in found)


def values(chunks: list[ChunkResult]) -> np.ndarray:
    return np.concatenate([c.fits.values for c in sorted(chunks, key=lambda chunk: chunk.curves.index[0])])


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
def test_two_workers_give_the_bits_of_one_twenty_times(beamtime, scheduler):
    """However frames are cut into chunks, with the compiled sums and without."""
    plain = prepare(load(beamtime / "run.yaml"))
    assert plain.spec is not None
    compiled = replace(plain, spec=replace(plain.spec, pixels=COMPILE_FROM_PIXELS))
    alone: list[ChunkResult] = []
    with pool(Engine(scheduler="synchronous")) as here:
        here.run(plain, [(0, len(plain))], alone.append)
    with pool(Engine(scheduler=scheduler, workers=2)) as opened:
        for k in range(20):
            chunks: list[ChunkResult] = []
            opened.run((plain, compiled)[k % 2], pieces(range(len(plain)), 3 + k), chunks.append)
            chunks.sort(key=lambda chunk: chunk.curves.index[0])
            for name in ("intensity", "statistical", "counts", "dark_factor"):
                together = np.concatenate([getattr(chunk.curves, name) for chunk in chunks])
                np.testing.assert_array_equal(together, getattr(alone[0].curves, name))
            np.testing.assert_array_equal(values(chunks), values(alone))


@pytest.mark.parametrize("scheduler", ["synchronous", "processes"])
def test_a_pool_serves_a_series_that_grows(beamtime, scheduler):
    """Only the series travels again, and results arrive as they are made."""
    plan = prepare(load(beamtime / "run.yaml"))
    whole, grown = [], []
    with pool(Engine(scheduler="threads", workers=2)) as threads:
        threads.run(plan, [(0, 12)], whole.append)
    with pool(Engine(scheduler=scheduler, workers=2)) as opened:
        assert opened.link == ""
        for stop in (4, 8, 12):
            series = replace(plan.series, info=replace(plan.series.info, n_frames=stop))
            opened.run(replace(plan, series=series), [(stop - 4, stop - 1), (stop - 1, stop)], grown.append)
            assert len(grown) == stop // 2
    np.testing.assert_array_equal(values(grown), values(whole))


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes"])
def test_what_on_chunk_raises_ends_the_run(beamtime, scheduler):
    seen = []

    def full_disk(chunk: ChunkResult) -> None:
        seen.append(chunk)
        raise OSError(28, "No space left on device")

    with pool(Engine(scheduler=scheduler, workers=1)) as opened, pytest.raises(OSError, match="No space left"):
        opened.run(prepare(load(beamtime / "run.yaml")), [(k, k + 1) for k in range(8)], full_disk)
    assert len(seen) == 1


@needs_proc
def test_local_workers_have_a_dashboard_on_this_machine_only_and_are_replaced(beamtime):
    plan, chunks, whole = prepare(load(beamtime / "run.yaml")), [], []

    def keep(chunk: ChunkResult) -> None:
        chunks.append(chunk)
        if len(chunks) == 3:
            os.kill(children(os.getpid())[0], signal.SIGKILL)

    with pool(Engine(scheduler="local", workers=1)) as local:
        assert local.link.startswith("http://127.0.0.1:")
        assert urllib.request.urlopen(local.link).status == 200
        assert listening_elsewhere() == []
        local.run(plan, [(k, k + 1) for k in range(12)], keep)
    assert children(os.getpid()) == []
    with pool(Engine(scheduler="synchronous")) as here:
        here.run(plan, [(0, 12)], whole.append)
    np.testing.assert_array_equal(values(chunks), values(whole))


def listening_elsewhere() -> list[str]:
    """Addresses but loopback where this process and its workers listen."""
    processes = [psutil.Process(pid) for pid in (os.getpid(), *children(os.getpid()))]
    sockets = [socket for process in processes for socket in process.net_connections() if socket.status == "LISTEN"]
    assert sockets
    return [socket.laddr.ip for socket in sockets if socket.laddr.ip != "127.0.0.1"]


@needs_proc
@pytest.mark.parametrize("delay_s", [0, 2.5], ids=["starting", "working"])
def test_ctrl_c_ends_a_run_in_local_workers_without_a_traceback(beamtime, delay_s):
    with with_workers(beamtime, f"stopped_{delay_s}", "local") as (run, _):
        time.sleep(delay_s)
        os.killpg(run.pid, signal.SIGINT)
        message = run.communicate(timeout=120)[1]
        assert children(run.pid) == []
    assert (run.returncode, message) == (1, STOPPED)


def test_a_cluster_without_its_packages_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(BadInput, match=r"pip install 'saxs-pipeline\[cluster\]'"), pool(Engine(scheduler="local")):
        pass


# --- SLURM -----------------------------------------------------------------------------------------------------------

JOB = {"queue": "nice", "account": "in-1234", "cores": 2, "memory": "4 GB", "walltime": "00:30:00"}

SBATCH = """#!/bin/sh
if [ "$1" = --test-only ]; then grep -q 'SBATCH -p nice' || {{ echo 'sbatch: error: no such partition' >&2; exit 1; }}
else cp "$1" {folder}/job.sh; setsid sh {folder}/job.sh > {folder}/job.log 2>&1 & echo "Submitted batch job $!"; fi
"""


@pytest.fixture
def submits(tmp_path, monkeypatch) -> None:
    """Stands for SLURM: a job is a process group on this machine."""
    for name, text in (("sbatch", SBATCH.format(folder=tmp_path)), ("scancel", "#!/bin/sh\nkill -- -$1\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


def test_the_job_script_asks_for_what_the_run_file_says():
    from saxs_pipeline.engine_cluster import slurm_cluster

    with slurm_cluster(Slurm(**JOB)) as cluster:
        lines = cluster.job_script().splitlines()
    directives = {line for line in lines if line.startswith("#SBATCH")} - {"#SBATCH -J dask-worker"}
    asked = ("-p nice", "-A in-1234", "-n 1", "--cpus-per-task=2", "--mem=4G", "-t 00:30:00")
    assert directives == {f"#SBATCH {option}" for option in asked}
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[-1].startswith(f"{sys.executable} -m distributed.cli.dask_worker tcp://")
    assert "--nthreads 1" in lines[-1] and "--nworkers 2" in lines[-1]


def test_a_site_s_own_prologue_stays_in_the_job_script():
    import dask
    import dask_jobqueue  # noqa: F401 (brings its defaults)

    from saxs_pipeline.engine_cluster import slurm_cluster

    with (
        dask.config.set({"jobqueue.slurm.job-script-prologue": ["module load saxs"]}),
        slurm_cluster(Slurm(**JOB)) as cluster,
    ):
        assert "\nmodule load saxs\n" in cluster.job_script()


@needs_proc
def test_jobs_do_the_work_and_end_with_the_run(beamtime, submits, tmp_path):
    plan, chunks, whole = prepare(load(beamtime / "run.yaml")), [], []
    with pool(Engine(slurm=JOB)) as jobs:
        assert jobs.link.startswith("http://127.0.0.1:")
        jobs.run(plan, [(0, 3), (3, 6)], chunks.append)
    with pool(Engine(scheduler="synchronous")) as here:
        here.run(plan, [(0, 6)], whole.append)
    np.testing.assert_array_equal(values(chunks), values(whole))
    address = re.search(r"tcp://\S+", (tmp_path / "job.sh").read_text())[0].encode()
    deadline = time.monotonic() + 20
    while (left := mentioning(address)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def mentioning(word: bytes) -> list[Path]:
    """Processes with the word in their command."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if word in path.read_bytes():
                found.append(path)
    return found


def test_a_job_that_slurm_would_refuse_is_one_line(submits):
    with (
        pytest.raises(BadInput, match=r"engine\.slurm: .*sbatch: error: no such partition"),
        pool(Engine(slurm=JOB | {"queue": "none"})),
    ):
        pass


def test_without_slurm_a_job_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match=r"engine\.slurm: there is no sbatch here"), pool(Engine(slurm=JOB)):
        pass


@pytest.mark.parametrize(
    "section",
    [
        "{scheduler: thread}",
        '{scheduler: "tcp://host:8786\\n"}',
        '{scheduler: "http://host:8786"}',
        "{slurm: {cores: 2, memory: 4 GB, walltime: '1:00:00'}, scheduler: threads}",
        "{slurm: {cores: 2, memory: 4 GB, walltime: '1:00:00'}, workers: 3}",
        "{scheduler: 'tcp://host:8786', workers: 3}",
        "{slurm: {cores: 2, memory: 4 GB, walltime: 90}}",
        '{slurm: {cores: 2, memory: 4 GB, walltime: "1:00:00", queue: "nice\\n#SBATCH --wrap=id"}}',
        '{slurm: {cores: 2, memory: 4 GB, walltime: "1:00:00", account: "$(id)"}}',
        '{slurm: {cores: 2, memory: "4 GB\\n", walltime: "1:00:00"}}',
        "{slurm: {cores: 2, walltime: '1:00:00'}}",
    ],
)
def test_mistakes_in_the_section_are_said_at_their_place(beamtime, section):
    path = variant(beamtime, "mistake", ("{scheduler: threads}", section))
    with pytest.raises(BadInput, match=r"mistake\.yaml:\d+:\d+: engine\."):
        load(path)
