"""Workers of dask.distributed: local processes with a dashboard, SLURM jobs, or a cluster that is running.

Workers open the files themselves. What frames share travels as the result of a task: dask copies it to the workers that
need it, once each, and makes it again where the last worker that had it is lost.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from concurrent.futures import Future as Coming
from contextlib import ExitStack, contextmanager, suppress
from pickle import dumps
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any
from uuid import uuid4

import dask
from distributed import Client, Future, KilledWorker, LocalCluster
from distributed.deploy.spec import SpecCluster
from distributed.utils import silence_logging_cmgr

from saxs_pipeline.engine_config import Engine, Slurm
from saxs_pipeline.engine_processes import without_frames, without_interrupts
from saxs_pipeline.engine_worker import Answer, answer, compare_software, unpacked
from saxs_pipeline.plan import Plan
from saxs_pipeline.provenance import PACKAGES, versions
from saxs_pipeline.types import BadInput, ChunkResult

CONNECT_S = 5.0

NO_WORKER_S = 60.0
"""So long a run goes on without any worker; it waits for the first one of SLURM's queue without end."""

UNSEEN_S = 15.0
"""A file that this machine sees and a worker does not may be on its way through a network disk for so long."""

LOOK_S = 0.5

KEEP_MEMORY = "MALLOC_TRIM_THRESHOLD_=268435456 MALLOC_MMAP_THRESHOLD_=33554432"
"""dask's workers give freed memory back at once (a trim threshold of 64 KiB): frame after frame, that doubles the time.
A local cluster goes without the threshold; where only the environment can be set, both are set high."""


@contextmanager
def cluster_pool(engine: Engine, n: int) -> Iterator[ClusterPool]:
    """The configured cluster, with n worker processes where it is local; raises BadInput where nobody answers."""
    with ExitStack() as stack:
        stack.enter_context(silence_logging_cmgr("critical"))  # what ends a run is said by the run, in one line
        stack.enter_context(dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TB"}))
        if engine.address is not None:
            stack.enter_context(dask.config.set({"distributed.comm.timeouts.connect": CONNECT_S}))
            client = stack.enter_context(_client_of(engine.address))
            yield ClusterPool(client, f"start some with `dask worker {engine.address}`")
            return
        cluster = stack.enter_context(_local_cluster(n) if engine.slurm is None else _submitted(engine.slurm))
        client = stack.enter_context(_closed(Client(cluster, set_as_default=False)))
        if engine.slurm is None:
            yield ClusterPool(client, "they keep dying (out of memory?); take fewer workers or smaller chunks")
        else:
            yield ClusterPool(client, "the jobs have ended (walltime?); take more time", patient=True)


def slurm_cluster(settings: Slurm) -> SpecCluster:
    """The scheduler for workers in SLURM jobs, none of them submitted yet; `job_script()` shows what will be."""
    from dask_jobqueue import SLURMCluster

    prologue = dask.config.get("jobqueue.slurm.job-script-prologue") or []
    return SLURMCluster(
        queue=settings.queue,
        account=settings.account,
        cores=settings.cores,
        processes=settings.cores,
        memory=settings.memory,
        walltime=settings.walltime,
        python=shlex.quote(sys.executable),
        job_script_prologue=[*prologue, f"export {KEEP_MEMORY}"],
        scheduler_options={"dashboard_address": "127.0.0.1:0"},
        silence_logs=logging.CRITICAL,
    )


@contextmanager
def _submitted(settings: Slurm) -> Iterator[SpecCluster]:
    with slurm_cluster(settings) as cluster:
        _check_job(cluster.job_script())
        cluster.scale(jobs=settings.jobs)
        yield cluster


def _check_job(script: str) -> None:
    """What SLURM says of the job before it is submitted: afterwards nobody waits for its answer."""
    try:
        said = subprocess.run(
            ["sbatch", "--test-only"],  # noqa: S607 (on the path, as every user's)
            input=script,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise BadInput("engine.slurm: there is no sbatch here; start the run where jobs are submitted") from None
    if said.returncode != 0:
        reason = " ".join(said.stderr.split())
        raise BadInput(f"engine.slurm: the job would be refused ({reason}); correct the section")


@contextmanager
def _local_cluster(n: int) -> Iterator[LocalCluster]:
    """n processes that Ctrl-C does not reach: to end them is the run's business."""
    with ExitStack() as stack:
        stack.enter_context(dask.config.set({"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}))
        with without_interrupts():
            cluster = LocalCluster(
                n_workers=n,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
                preload=["pyFAI.integrator.azimuthal"],
            )
            stack.enter_context(cluster)
        yield cluster


@contextmanager
def _client_of(address: str) -> Iterator[Client]:
    try:
        client = Client(address, timeout=CONNECT_S, set_as_default=False)
    except OSError:
        raise BadInput(
            f"engine.scheduler: nobody answers at {address}; start it with `dask scheduler`, or correct the address"
        ) from None
    with _closed(client):
        yield client


@contextmanager
def _closed(client: Client) -> Iterator[Client]:
    try:
        yield client
    finally:
        with suppress(TimeoutError, OSError):
            client.close(timeout=CONNECT_S)


Piece = tuple[int, int]


class ClusterPool:
    """The workers of a dask cluster.

    mend: what to do when there are none; patient: the first may be long in coming. Raises BadInput where the software
    of the scheduler or of a worker is not this run's.
    """

    def __init__(self, client: Client, mend: str, *, patient: bool = False) -> None:
        self._client = client
        self._mend = mend
        self._name = str(client.scheduler.address)
        self._patient = patient
        self._manned_s = monotonic()
        self._key = ""
        self._shared: Future[Any] | None = None
        self._compare_software()

    @property
    def link(self) -> str:
        """See engine.Pool."""
        try:
            link = self._client.dashboard_link or ""
        except KeyError:  # a scheduler without a dashboard
            return ""
        return re.sub(r"//.*:", "//127.0.0.1:", link) if self._client.cluster is not None else link

    def run(
        self,
        plan: Plan,
        pieces: Sequence[Piece],
        on_chunk: Callable[[ChunkResult], None],
        on_wait: Callable[[str], None] = lambda why: None,
    ) -> None:
        """See engine.Pool."""
        self._manned_s, unseen_s = monotonic(), 0.0
        sent, done = self._send(plan), SimpleQueue[Coming[Any]]()
        waiting = self._start(sent, pieces, done)
        try:
            while waiting:
                coming = self._next(done, on_wait)
                future, piece = waiting.pop(coming)
                found = self._answer(coming, future, piece)
                if found.unseen is None or not found.unseen.exists():
                    on_chunk(found.chunk())
                    continue
                unseen_s = unseen_s or monotonic()
                if monotonic() - unseen_s > UNSEEN_S:
                    raise BadInput(
                        f"engine: the worker {found.worker} does not see {found.unseen}; start the workers where the "
                        "files are, under the same paths"
                    )
                waiting |= self._start(sent, [piece], done, pause_s=1.0)
        finally:
            for coming in waiting:
                coming.cancel()

    def _compare_software(self) -> None:
        """Before any task: a worker without this package dies of one. Those that come later say so themselves."""
        names = ("saxs-pipeline", *PACKAGES)

        async def ask() -> Any:
            return await self._client.get_versions(packages=names)

        coming = asyncio.run_coroutine_threadsafe(ask(), self._client.loop.asyncio_loop)
        try:
            found = coming.result(CONNECT_S)
        except TimeoutError:  # a worker that hangs holds up nothing but itself
            coming.cancel()
            return
        except OSError:
            raise self._gone() from None
        ours = {name: found["client"]["packages"][name] for name in names}
        compare_software(f"the scheduler {self._name}", found["scheduler"]["packages"], ours)
        for address, theirs in found["workers"].items():
            compare_software(f"the worker {address}", theirs["packages"], ours)

    def _send(self, plan: Plan) -> dict[str, Future[Any]]:
        """What the chunks need: of the plan once per key, of the frames for this run."""
        if self._client.status != "running":
            raise self._gone()
        if self._shared is None or self._key != plan.key or self._shared.cancelled():
            self._shared, self._key = self._packed(without_frames(plan), "saxs-plan"), plan.key
        return {"shared": self._shared, "frames": self._packed((plan.series, plan.curves), "saxs-frames")}

    def _packed(self, content: object, name: str) -> Future[Any]:
        return self._client.submit(unpacked, dumps(content), versions(), key=(f"{name}-{uuid4().hex}", 0))

    def _start(
        self, sent: dict[str, Future[Any]], pieces: Sequence[Piece], done: SimpleQueue[Coming[Any]], pause_s: float = 0
    ) -> dict[Coming[Any], tuple[Future[Any], Piece]]:
        """Tasks of all pieces; their answers come to `done`, one after the other."""
        name = f"saxs-chunk-{uuid4().hex}"
        starts, stops = [start for start, _ in pieces], [stop for _, stop in pieces]
        keys = [(name, start) for start in starts]
        futures = self._client.map(answer, starts, stops, key=keys, theirs=versions(), pause_s=pause_s, **sent)
        waiting = {}
        for future, piece in zip(futures, pieces, strict=True):
            coming = asyncio.run_coroutine_threadsafe(self._gather(future), self._client.loop.asyncio_loop)
            coming.add_done_callback(done.put)
            waiting[coming] = future, piece
        return waiting

    async def _gather(self, future: Future[Any]) -> Any:
        """[answer], [] where there is none."""
        return await self._client.gather([future], errors="skip", asynchronous=True)

    def _next(self, done: SimpleQueue[Coming[Any]], on_wait: Callable[[str], None]) -> Coming[Any]:
        """The next that is done; raises BadInput when none will ever be."""
        while True:
            try:
                return done.get(timeout=LOOK_S)
            except Empty:
                if not self._manned():
                    on_wait(f"no worker at {self._name}: {'no job has started' if self._patient else self._mend}")

    def _manned(self) -> bool:
        """Whether a worker is there; raises BadInput where none has been for too long, or the scheduler is gone."""
        if self._client.status != "running":
            raise self._gone()
        try:
            found = self._client.sync(self._client.scheduler.identity, n_workers=1, callback_timeout=NO_WORKER_S)
        except (OSError, TimeoutError):
            raise self._gone() from None
        if found["workers"]:
            self._manned_s, self._patient = monotonic(), False
            return True
        if not self._patient and monotonic() - self._manned_s > NO_WORKER_S:
            raise BadInput(
                f"engine: no worker at {self._name} for {NO_WORKER_S:g} s: {self._mend}, and run again: finished "
                "frames are kept"
            )
        return False

    def _answer(self, coming: Coming[Any], future: Future[Any], piece: Piece) -> Answer:
        with suppress(OSError, CancelledError):
            for found in coming.result():
                return found  # type: ignore[no-any-return]
        if future.status != "error":
            raise self._gone()
        error = future.exception()
        if isinstance(error, KilledWorker):
            raise BadInput(
                f"engine: frames {piece[0]} to {piece[1] - 1} ended {error.allowed_failures + 1} workers, one after "
                "the other (out of memory?); run again, with smaller chunks or more memory"
            )
        raise error

    def _gone(self) -> BadInput:
        return BadInput(
            f"engine: the scheduler {self._name} is gone (stopped, or the network is down); run again: finished frames "
            "are kept"
        )
