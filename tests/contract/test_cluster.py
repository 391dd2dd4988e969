"""A dask scheduler and workers of its own on loopback: the same numbers, whatever dies; and said in one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client

from saxs_pipeline import engine, engine_cluster
from saxs_pipeline.apps.batch import compute
from saxs_pipeline.checkpoint import count
from saxs_pipeline.engine_config import Engine
from saxs_pipeline.outputs.tables import write_series
from saxs_pipeline.plan import Plan, prepare
from saxs_pipeline.runfile import load
from saxs_pipeline.types import BadInput, ChunkResult
from tests.conftest import FRAMES, command, invoke, variant, without_model
from tests.live.conftest import following, reference, without_frames
from tests.live.test_follow import written_by_lima

needs_proc = pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs /proc to look at processes")
PIECES = [(k, k + 1) for k in range(FRAMES)]


@dataclass
class Cluster:
    """`dask scheduler` with `dask worker`s of one thread, without nannies: what is killed stays dead."""

    folder: Path
    scheduler: subprocess.Popen[bytes]
    address: str
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def add(self, *options: str, python: str = sys.executable, **where: Any) -> subprocess.Popen[bytes]:
        """One more worker, once the scheduler knows it."""
        arguments = ["--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--local-directory", self.folder, *options]
        worker = quiet([python, "-m", "distributed.cli.dask_worker", self.address, *arguments], **where)
        self.workers.append(worker)
        alive = sum(worker.poll() is None for worker in self.workers)
        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(alive, timeout=30)
        return worker

    def dismiss(self) -> None:
        """No more workers."""
        for worker in self.workers:
            worker.kill()
            worker.wait()
        with Client(self.address, set_as_default=False) as client:
            while client.scheduler_info()["workers"]:
                time.sleep(0.02)

    def end(self) -> None:
        """Nothing is left."""
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


def quiet(command: list[object], **options) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **options
    )


@contextmanager
def scheduler_in(folder: Path) -> Iterator[Cluster]:
    where = folder / "scheduler.json"
    options = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", where]
    process = quiet([sys.executable, "-m", "distributed.cli.dask_scheduler", *options])
    deadline = time.monotonic() + 30
    address = ""
    while not address and time.monotonic() < deadline:
        with suppress(OSError, ValueError, KeyError):
            address = json.loads(where.read_text())["address"]
        time.sleep(0.02)
    cluster = Cluster(folder, process, address)
    try:
        yield cluster
    finally:
        cluster.end()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    with scheduler_in(tmp_path_factory.mktemp("cluster")) as found:
        found.add()
        found.add()
        yield found


@pytest.fixture
def scheduler(tmp_path) -> Iterator[Cluster]:
    """One to be killed."""
    with scheduler_in(tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def without_workers(tmp_path_factory) -> Iterator[Cluster]:
    with scheduler_in(tmp_path_factory.mktemp("scheduler")) as found:
        yield found


@pytest.fixture
def bare(without_workers) -> Iterator[Cluster]:
    """A scheduler to which a test adds workers, which end with it."""
    yield without_workers
    without_workers.dismiss()


@pytest.fixture(scope="module")
def plan(beamtime) -> Plan:
    return prepare(load(beamtime / "run.yaml"))


@pytest.fixture(scope="module")
def truth(plan) -> list[ChunkResult]:
    return run(plan, Engine(scheduler="threads"))


def run(
    plan: Plan, where: Engine, on_chunk: Callable[[int], None] = lambda done: None, pieces=PIECES
) -> list[ChunkResult]:
    """Chunks in the order of frames; `on_chunk(number of chunks so far)` after each."""
    chunks: list[ChunkResult] = []

    def keep(chunk: ChunkResult) -> None:
        chunks.append(chunk)
        on_chunk(len(chunks))

    with engine.pool(where) as pool:
        pool.run(plan, pieces, keep)
    return sorted(chunks, key=lambda chunk: chunk.curves.index[0])


def same(a: list[ChunkResult], b: list[ChunkResult]) -> None:
    """Bit for bit."""
    assert len(a) == len(b)
    for ours, theirs in zip(a, b, strict=True):
        np.testing.assert_array_equal(ours.model, theirs.model)
        for part in ("curves", "fits"):
            for name in (f.name for f in fields(getattr(ours, part))):
                np.testing.assert_array_equal(getattr(getattr(ours, part), name), getattr(getattr(theirs, part), name))


def once(frames: int, action: Callable[[], object]) -> Callable[[int], None]:
    return lambda done: action() if done == frames else None


def test_a_run_on_a_cluster_writes_the_numbers_of_threads_and_nothing_else(beamtime, cluster, tmp_path):
    path = variant(beamtime, "by_cluster", ("scheduler: threads", f'scheduler: "{cluster.address}", chunk: 3'))
    done = command("run", path)
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("note: ") for line in done.stderr.splitlines())
    write_series(compute(load(beamtime / "run.yaml"), quiet=True), tmp_path / "series.csv")
    assert (beamtime / "by_cluster" / "series.csv").read_bytes() == (tmp_path / "series.csv").read_bytes()


def test_every_chunk_is_identical_and_a_killed_worker_changes_nothing(plan, truth, cluster):
    third = cluster.add()
    same(run(plan, Engine(scheduler=cluster.address), once(5, third.kill)), truth)
    assert third.wait() == -signal.SIGKILL


def test_a_pool_serves_a_series_that_grows(plan, truth, cluster):
    chunks: list[ChunkResult] = []
    with engine.pool(Engine(scheduler=cluster.address)) as pool:
        assert re.fullmatch(r"http://127.0.0.1:\d+/status", pool.link)
        for first in range(0, FRAMES, 10):
            pool.run(plan, PIECES[first : first + 10], chunks.append)
    same(sorted(chunks, key=lambda chunk: chunk.curves.index[0]), truth)


def test_what_on_chunk_raises_ends_the_run_and_the_pool_goes_on(plan, truth, cluster):
    chunks: list[ChunkResult] = []

    def full_disk(chunk: ChunkResult) -> None:
        raise OSError(28, "No space left on device")

    with engine.pool(Engine(scheduler=cluster.address)) as pool:
        with pytest.raises(OSError, match="No space left"):
            pool.run(plan, PIECES, full_disk)
        pool.run(plan, PIECES, chunks.append)
    same(sorted(chunks, key=lambda chunk: chunk.curves.index[0]), truth)


def test_a_killed_scheduler_ends_a_run_with_one_line(beamtime, scheduler):
    where = f'scheduler: "{scheduler.address}", chunk: 1'
    path = without_model(variant(beamtime, "gone", ("scheduler: threads", where)))
    arguments = [sys.executable, "-m", "saxs_pipeline", "run", str(path)]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        with Client(scheduler.address, set_as_default=False) as client:
            while not client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks) > FRAMES):
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.05)
        start = time.monotonic()
        scheduler.scheduler.kill()
        message = process.communicate(timeout=30)[1]
    assert time.monotonic() - start < 10
    assert process.returncode == 2
    said = [line for line in message.splitlines() if not line.startswith("note: ")]
    assert said == [
        f"engine: the scheduler {scheduler.address} is gone (stopped, or the network is down); run again: finished "
        "frames are kept"
    ]
    kept = count(beamtime / "gone")
    path.write_text(path.read_text().replace(f'scheduler: "{scheduler.address}"', "scheduler: threads"))
    done = invoke("run", path)
    assert done.returncode == 0
    assert kept == 0 or f"{kept} frames finished earlier are taken from checkpoints" in done.stderr


def test_a_scheduler_killed_between_two_chunks_ends_the_run_soon(plan, scheduler):
    scheduler.add()
    killed: list[float] = []

    def kill() -> None:
        killed.append(time.monotonic())
        scheduler.scheduler.kill()

    with pytest.raises(BadInput, match=r"is gone .*; run again: finished frames are kept"):
        run(plan, Engine(scheduler=scheduler.address), once(3, kill))
    assert time.monotonic() - killed[0] < 10


def test_without_any_worker_a_run_ends_in_time(plan, bare, monkeypatch):
    monkeypatch.setattr(engine_cluster, "NO_WORKER_S", 1.0)
    worker = bare.add()
    with pytest.raises(BadInput, match=r"no worker at tcp://.* for 1 s: start some with `dask worker tcp://.*`"):
        run(plan, Engine(scheduler=bare.address), once(3, worker.kill))


def test_a_run_says_once_that_it_waits_for_workers_and_goes_on_with_the_first(beamtime, bare):
    path = without_model(variant(beamtime, "patient", ("scheduler: threads", f'scheduler: "{bare.address}"')))
    arguments = [sys.executable, "-m", "saxs_pipeline", "run", str(path)]
    with (beamtime / "patient.said").open("w+") as said:
        with subprocess.Popen(arguments, stdout=said, stderr=said) as process:
            deadline = time.monotonic() + 60
            while "no worker" not in (text := Path(said.name).read_text()) and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(1.5)  # three more looks
            bare.add()
            assert process.wait(timeout=120) == 0
        text = Path(said.name).read_text()
    mend = f"start some with `dask worker {bare.address}`"
    assert [line for line in text.splitlines() if "no worker" in line] == [
        f"note: waiting: no worker at {bare.address}: {mend}"
    ]
    assert (beamtime / "patient/series.csv").exists()


def test_live_says_that_no_worker_is_there_and_goes_on_with_the_first(beamtime, bare, tmp_path):
    """Meanwhile it sees the frames that come, and that it is behind."""
    path = without_frames(beamtime, tmp_path / "live")
    path.write_text(path.read_text().replace("scheduler: threads", f'scheduler: "{bare.address}"'))
    with following(path) as scan:
        scan.until(lambda s: s.state == "waiting")
        with written_by_lima(beamtime, path.parent, "--rate", "20"):
            first = scan.until(lambda s: "no worker at" in s.message)
            later = scan.until(lambda s: s.n_complete == FRAMES)
        last = scan.until(lambda s: s.lag_s > later.lag_s + 1)
        assert (first.state, last.state, last.n_processed) == ("running", "running", 0)
        assert f"start some with `dask worker {bare.address}`" in last.message
        bare.add()
        scan.until(lambda s: s.state == "finished")
    found = (path.parent / "results/series.csv").read_bytes()
    shutil.rmtree(path.parent / "results")
    assert found == reference(path)


def test_other_software_on_a_worker_is_refused_before_it_works(plan, cluster, tmp_path):
    other = tmp_path / "other_version.py"
    other.write_text("import saxs_pipeline\nsaxs_pipeline.__version__ = '0.0'\n")
    worker = cluster.add("--preload", str(other))
    try:
        with pytest.raises(BadInput, match=r"the worker tcp://.* has saxs_pipeline 0\.0, this run .*same environment"):
            run(plan, Engine(scheduler=cluster.address))
    finally:
        worker.kill()


def test_a_worker_without_this_package_is_refused(plan, bare, tmp_path):
    packages = tmp_path / "packages"
    packages.mkdir()
    for entry in Path(np.__file__).parents[1].iterdir():
        if "saxs_pipeline" not in entry.name:
            (packages / entry.name).symlink_to(entry)
    python = shutil.which(f"python{sys.version_info[0]}.{sys.version_info[1]}", path=Path(sys.base_prefix) / "bin")
    bare.add(python=python, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(packages)})
    with pytest.raises(BadInput, match=r"the worker tcp://.* has no saxs-pipeline"):
        run(plan, Engine(scheduler=bare.address))


@pytest.fixture
def seen_from_here(beamtime, monkeypatch) -> Plan:
    """A plan whose frames are found by this process only: under its working directory."""
    monkeypatch.chdir(beamtime)
    path = variant(beamtime, "elsewhere", ("frames: raw/", "frames: /proc/self/cwd/raw/"))
    return prepare(load(path))


@needs_proc
def test_a_worker_that_does_not_see_the_files_is_named(seen_from_here, bare, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_cluster, "UNSEEN_S", 0.5)
    bare.add(cwd=tmp_path)
    with pytest.raises(BadInput, match=r"the worker tcp://.* does not see /proc/self/cwd/raw/.*\.h5"):
        run(seen_from_here, Engine(scheduler=bare.address))


@needs_proc
def test_files_that_a_network_disk_shows_late_are_waited_for(beamtime, seen_from_here, truth, bare, tmp_path):
    bare.add(cwd=tmp_path)
    late = threading.Timer(1.5, lambda: shutil.copytree(beamtime / "raw", tmp_path / "raw"))
    late.start()
    chunks = run(seen_from_here, Engine(scheduler=bare.address))
    assert not late.is_alive()
    same(chunks, truth)


def test_nobody_at_the_address_is_said_soon():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    start = time.monotonic()
    with pytest.raises(BadInput, match=f"nobody answers at {address}"), engine.pool(Engine(scheduler=address)):
        pass
    assert time.monotonic() - start < 10
