"""Where chunks run: dask, in this thread, in threads, or in local processes. The numbers do not depend on it."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from saxs_pipeline.config import Engine
from saxs_pipeline.pipeline import ChunkResult, process
from saxs_pipeline.plan import Plan
from saxs_pipeline.types import BadInput, SourceInfo

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

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

    scheduler: str = engine.scheduler
    call: Callable[[int, int], ChunkResult] = partial(process, plan)
    with ExitStack() as stack:
        stack.enter_context(Callback(posttask=posttask))
        if engine.scheduler == "processes":
            scheduler, call = "threads", stack.enter_context(_worker_processes(plan, workers(engine)))
        delayed = dask.delayed(call, pure=False, traverse=False)
        tasks = [delayed(start, stop, dask_key_name=f"chunk-{start}") for start, stop in pieces]
        return list(dask.compute(*tasks, optimize_graph=False, scheduler=scheduler, num_workers=workers(engine)))


def _work(connection: Connection) -> None:
    """Life of a worker process: receive the plan once, then (start, stop) of chunks until the run ends it or dies."""
    with suppress(EOFError, BrokenPipeError):
        plan = connection.recv()
        while True:
            start, stop = connection.recv()
            try:
                answer: ChunkResult | Exception = process(plan, start, stop)
            except Exception as error:
                error.add_note(traceback.format_exc())
                answer = error
            connection.send(answer)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C waits until processes are started, and they never see it: to end them is the run's business."""
    from multiprocessing import resource_tracker

    held: list[int] = []
    main = threading.current_thread() is threading.main_thread()  # only there does Ctrl-C raise
    if main:
        handler = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    resource_tracker.ensure_running()  # would unblock the signal if the first process started it
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if main:
            signal.signal(signal.SIGINT, handler)
    if held:
        raise KeyboardInterrupt


@contextmanager
def _death_is_bad_input() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError):
        raise BadInput(
            "engine: a worker process died (killed, or out of memory); run again, with fewer workers or smaller chunks"
        ) from None


@contextmanager
def _worker_processes(plan: Plan, n: int) -> Iterator[Callable[[int, int], ChunkResult]]:
    """process(start, stop) in one of n spawned processes (forking after pyFAI has used threads deadlocks).

    Each has a pipe of its own, so its death is an end of file to the one thread that waits for it. In the pools of
    concurrent.futures workers share queues and their locks, and a run hangs when one dies while another is being
    started or half-way through sending a result.
    """
    import multiprocessing

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    idle: SimpleQueue[Connection] = SimpleQueue()
    processes, connections = [], []

    def call(start: int, stop: int) -> ChunkResult:
        connection = idle.get()
        with _death_is_bad_input():
            connection.send((start, stop))
            answer = connection.recv()
        idle.put(connection)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    try:
        with _without_interrupts():
            for _ in range(n):
                ours, theirs = context.Pipe()
                worker = context.Process(target=_work, args=(theirs,), daemon=True)
                worker.start()
                processes.append(worker)
                theirs.close()
                connections.append(ours)
        for connection in connections:
            with _death_is_bad_input():
                connection.send(plan)
            idle.put(connection)
        yield call
    finally:
        for worker in processes:
            worker.terminate()
        for worker in processes:
            worker.join()
