"""Where chunks run: dask, in this thread, in threads, or in local processes. The numbers do not depend on it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any, Protocol

from saxs_pipeline.engine_config import Engine
from saxs_pipeline.engine_processes import Call, worker_processes
from saxs_pipeline.pipeline import process
from saxs_pipeline.plan import Plan
from saxs_pipeline.types import BadInput, ChunkResult

CHUNK_FRAMES = 32

OnChunk = Callable[[ChunkResult], None]
OnWait = Callable[[str], None]


class Pool(Protocol):
    """Workers that are there, for one run or for the many of a live series."""

    @property
    def link(self) -> str:
        """Address of dask's dashboard, "" without one."""
        ...

    def run(
        self, plan: Plan, pieces: Sequence[tuple[int, int]], on_chunk: OnChunk, on_wait: OnWait = lambda why: None
    ) -> None:
        """`process` frames start … stop - 1 of every piece (start, stop).

        `on_chunk` is called in this thread as each chunk is done, in any order; `on_wait` as long as no worker is
        there, twice a second, with one line that says so. What they raise ends the run. Of plans with the same key only
        the first travels as a whole, of the others only their frames' times and monitors.
        Raises BadInput where workers die or cannot be reached.
        """
        ...


def workers(engine: Engine) -> int:
    """Number of workers: configured, else the cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return engine.workers or cores or 1


def chunk_size(engine: Engine) -> int:
    """Frames per task: configured, else 32. Their images are in memory a few at a time, however large they are."""
    return engine.chunk or CHUNK_FRAMES


@contextmanager
def pool(engine: Engine) -> Iterator[Pool]:
    """The configured workers, started once and ended with the block."""
    with ExitStack() as stack:
        if engine.slurm is not None or engine.scheduler == "local" or engine.address is not None:
            _need_extra("distributed", *(["dask_jobqueue"] if engine.slurm is not None else []))
            from saxs_pipeline.engine_cluster import cluster_pool

            yield stack.enter_context(cluster_pool(engine, workers(engine)))
            return
        if engine.scheduler == "synchronous":
            yield _LocalPool(process, None)
            return
        threads = stack.enter_context(ThreadPoolExecutor(workers(engine)))
        call: Call = process
        if engine.scheduler == "processes":
            call = stack.enter_context(worker_processes(workers(engine)))
        yield _LocalPool(call, threads)


def _need_extra(*packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            raise BadInput(f"engine: {package} is not installed; a cluster needs pip install 'saxs-pipeline[cluster]'")


class _LocalPool:
    """dask's schedulers of this process: each of `threads`, or this one without any, calls `call`."""

    link = ""

    def __init__(self, call: Call, threads: ThreadPoolExecutor | None) -> None:
        self._call = call
        self._where: dict[str, Any] = (
            {"scheduler": "synchronous"} if threads is None else {"scheduler": "threads", "pool": threads}
        )

    def run(
        self, plan: Plan, pieces: Sequence[tuple[int, int]], on_chunk: OnChunk, on_wait: OnWait = lambda why: None
    ) -> None:
        """See Pool; its own workers are always there."""
        import dask

        done: deque[ChunkResult] = deque()  # not dask's results: those stay in memory until all are there

        def task(start: int, stop: int) -> None:
            done.append(self._call(plan, start, stop))

        def posttask(key: Any, result: Any, dsk: Any, state: Any, worker: Any) -> None:
            on_chunk(done.popleft())

        delayed = dask.delayed(task, pure=False, traverse=False)
        tasks = [delayed(*piece, dask_key_name=f"chunk-{k}") for k, piece in enumerate(pieces)]
        callback = (None, None, None, posttask, None)
        dask.compute(*tasks, optimize_graph=False, callbacks=[callback], **self._where)
