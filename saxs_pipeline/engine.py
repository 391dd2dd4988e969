"""Where chunks run: dask, in this thread, in threads, or in local processes. The numbers do not depend on it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from saxs_pipeline.config import Engine
from saxs_pipeline.pipeline import ChunkResult, process
from saxs_pipeline.plan import Plan
from saxs_pipeline.types import BadInput, SourceInfo

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

MOST_FRAMES = 32
CHUNK_BYTES = 2**24


def bounds(n: int, size: int) -> list[tuple[int, int]]:
    """(start, stop) of chunks of at most `size` frames that cover n frames."""
    return [(start, min(start + size, n)) for start in range(0, n, size)]


def workers(engine: Engine) -> int:
    """Number of workers: configured, else the cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return engine.workers or cores or 1


def chunk_size(engine: Engine, info: SourceInfo | None) -> int:
    """Frames per task: configured, else 1 to 32, as many as fit into CHUNK_BYTES (curves are small: 32)."""
    if engine.chunk is not None:
        return engine.chunk
    if info is None:
        return MOST_FRAMES
    frame = info.shape[0] * info.shape[1] * info.dtype.itemsize
    return max(1, min(MOST_FRAMES, CHUNK_BYTES // frame))


def run_chunks(plan: Plan, engine: Engine, on_frames: Callable[[int], None]) -> list[ChunkResult]:
    """Process all frames of the plan; `on_frames(k)` is called when k more frames are done.

    Raises BadInput if a worker process dies.
    """
    import dask
    from dask.callbacks import Callback

    pieces = bounds(len(plan), chunk_size(engine, plan.series.info if plan.series is not None else None))
    done = {f"chunk-{start}": stop - start for start, stop in pieces}

    def posttask(key: Any, result: Any, dsk: Any, state: Any, worker: Any) -> None:
        on_frames(done.get(key, 0))

    with ExitStack() as stack:
        stack.enter_context(Callback(posttask=posttask))
        if engine.scheduler == "processes":
            pool = stack.enter_context(_process_pool(plan, workers(engine)))
            call, settings = _process_in_worker, {"scheduler": "processes", "pool": pool, "chunksize": 1}
        else:
            call = lambda start, stop: process(plan, start, stop)  # noqa: E731
            settings = {"scheduler": engine.scheduler, "num_workers": workers(engine)}
        delayed = dask.delayed(call, pure=False, traverse=False)
        tasks = [delayed(start, stop, dask_key_name=f"chunk-{start}") for start, stop in pieces]
        try:
            return list(dask.compute(*tasks, optimize_graph=False, **settings))
        except BrokenExecutor:
            raise BadInput(
                "engine: a worker process died (killed, or out of memory); "
                "run again, with fewer workers or smaller chunks"
            ) from None


_worker_plan: Plan | None = None


def _start_worker(plans: Queue[Plan]) -> None:
    """Give a new worker process the plan, once; chunks then travel as two numbers."""
    global _worker_plan  # noqa: PLW0603
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's business; it ends its workers
    _worker_plan = plans.get()


def _process_in_worker(start: int, stop: int) -> ChunkResult:
    assert _worker_plan is not None
    return process(_worker_plan, start, stop)


@contextmanager
def _process_pool(plan: Plan, n: int) -> Iterator[Executor]:
    """Spawned workers (forking after pyFAI has used threads deadlocks), one OpenMP thread each.

    The plan goes through a queue: as an argument of the spawn it is written to a pipe that nobody reads any more when
    the new process dies, and the run would hang.
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    plans: Queue[Plan] = context.Queue()
    for _ in range(n):
        plans.put(plan)
    try:
        with ProcessPoolExecutor(n, mp_context=context, initializer=_start_worker, initargs=(plans,)) as pool:
            yield pool
    finally:
        plans.close()
        plans.cancel_join_thread()
