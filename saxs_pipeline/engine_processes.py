"""Worker processes on this machine, each behind a pipe of its own."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING

from saxs_pipeline.pipeline import process
from saxs_pipeline.plan import Plan
from saxs_pipeline.types import BadInput, ChunkResult

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

Call = Callable[[Plan, int, int], ChunkResult]


def without_frames(plan: Plan) -> Plan:
    """What all frames of `plan.key` share: several MB of masks, flats and backgrounds, the same as a scan grows."""
    return replace(plan, series=None, curves=None, background_frames=frozenset(), warnings=())


@contextmanager
def worker_processes(n: int) -> Iterator[Call]:
    """`process` in one of n processes, spawned (forking after pyFAI has used threads deadlocks), for n threads to call.

    Each has a pipe of its own, so its death is an end of file to the one thread that waits for it: a BadInput. In the
    pools of concurrent.futures workers share queues and their locks, and a run hangs when one dies while another is
    being started or half-way through sending a result.
    """
    import multiprocessing

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    idle: SimpleQueue[_Worker] = SimpleQueue()
    processes = []

    def call(plan: Plan, start: int, stop: int) -> ChunkResult:
        worker = idle.get()
        answer = worker.process(plan, start, stop)
        idle.put(worker)
        if isinstance(answer, Exception):
            raise answer
        return answer

    try:
        with without_interrupts():
            for _ in range(n):
                ours, theirs = context.Pipe()
                started = context.Process(target=_work, args=(theirs,), daemon=True)
                started.start()
                processes.append(started)
                theirs.close()
                idle.put(_Worker(ours))
        yield call
    finally:
        for started in processes:
            started.terminate()
        for started in processes:
            started.join()


class _Worker:
    """Our end of the pipe to a worker process, and the plan it has."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._plan: Plan | None = None

    def process(self, plan: Plan, start: int, stop: int) -> ChunkResult | Exception:
        """The chunk, or what was raised; of the plan only what the worker does not have yet is sent along."""
        with _death_is_bad_input():
            if plan is not self._plan:
                known = self._plan is not None and self._plan.key == plan.key
                self._connection.send((None if known else without_frames(plan), plan.series, plan.curves))
                self._plan = plan
            self._connection.send((start, stop))
            return self._connection.recv()  # type: ignore[no-any-return]


def _work(connection: Connection) -> None:
    """Life of a worker process: plans, and (start, stop) of chunks, until the run ends it or dies."""
    shared: Plan | None = None
    with suppress(EOFError, BrokenPipeError):
        while True:
            match connection.recv():
                case (news, series, curves):
                    shared = shared if news is None else news
                    assert shared is not None
                    plan = replace(shared, series=series, curves=curves)
                case (start, stop):
                    connection.send(_answer(plan, start, stop))


def _answer(plan: Plan, start: int, stop: int) -> ChunkResult | Exception:
    try:
        return process(plan, start, stop)
    except Exception as error:
        error.add_note(traceback.format_exc())
        return error


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Ctrl-C waits until processes are started, and they never see it: to end them is the run's business."""
    from multiprocessing import resource_tracker

    held: list[int] = []
    main = threading.current_thread() is threading.main_thread()  # only there does Ctrl-C raise
    if main:
        handler = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
        if signal.setitimer(signal.ITIMER_REAL, 0)[0]:  # one that was swallowed is to be raised again
            held.append(signal.SIGINT)
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
