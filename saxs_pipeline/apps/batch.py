"""One run after the beamtime: run file in, results folder out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from saxs_pipeline import engine, pipeline, plan, provenance
from saxs_pipeline.apps.status import Command, Frames, State, StatusFile
from saxs_pipeline.apps.terminal import frame_progress
from saxs_pipeline.checkpoint import FOLDER, FrameStore, clear, exclusive
from saxs_pipeline.outputs.folder import staged
from saxs_pipeline.runfile import RunFile, settings
from saxs_pipeline.types import BadInput, ChunkResult, RunResult

Timings = dict[str, float]
StoreOf = Callable[[plan.Plan], FrameStore]
Say = Callable[[str], None]
"""Takes one line for the terminal."""


def in_memory(prepared: plan.Plan) -> FrameStore:
    """Finished frames in memory only."""
    return FrameStore(None, prepared.key, {})


@contextmanager
def _timed(timings: Timings, name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[name] = time.perf_counter() - start


class _Count:
    """How far a run is."""

    def __init__(self, total: int, from_checkpoints: int) -> None:
        self.frames = Frames(total, total, from_checkpoints, from_checkpoints)
        self._begin = time.monotonic()

    @property
    def rate(self) -> float:
        """Frames per second so far, without those from checkpoints."""
        new = self.frames.processed - self.frames.from_checkpoints
        return new / (time.monotonic() - self._begin) if new else 0.0

    def add(self, chunk: ChunkResult) -> Frames:
        """After one more chunk."""
        usable, before = chunk.curves.usable, self.frames
        self.frames = before._replace(
            processed=before.processed + len(usable), flagged=before.flagged + int((~usable).sum())
        )
        return self.frames


def compute(
    run: RunFile,
    *,
    quiet: bool = False,
    timings: Timings | None = None,
    store_of: StoreOf = in_memory,
    tell: Callable[[Frames, float], None] = lambda frames, rate: None,
    pool: engine.Pool | None = None,
    say: Say = lambda line: None,
) -> RunResult:
    """Frames → quantities; raises BadInput if the inputs cannot be used or no frame is usable.

    `timings` collects the seconds of each step. `store_of` opens the checkpoints of the plan: what they hold is taken
    from there, and what is finished goes there at once. `tell` hears how far it is, `say` what a user should know.
    `pool`: workers to use, else those of the run file.
    """
    timings = {} if timings is None else timings
    with _timed(timings, "prepare"):
        aliquots = pipeline.check_reaction(run)
        prepared = plan.prepare(run)
        store, keys = store_of(prepared), prepared.frame_keys()
        missing = [k for k, key in enumerate(keys) if key not in store]
    count = _Count(len(keys), len(keys) - len(missing))
    tell(count.frames, 0.0)
    with (
        _timed(timings, "process"),
        frame_progress(len(keys), done=len(keys) - len(missing), quiet=quiet) as advance,
    ):

        def keep(chunk: ChunkResult) -> None:
            with _placed(run):
                store.add([keys[k] for k in chunk.curves.index.tolist()], chunk)
            advance(len(chunk.curves.index))
            tell(count.add(chunk), count.rate)

        if missing:
            _process(prepared, run, missing, keep, pool=pool, say=say)
    with _timed(timings, "finish"):
        result = pipeline.finish(prepared, store.assemble(keys), provenance.collect(run, prepared))
    if not result.curves.usable.any():
        problems = result.curves.problems
        key = "data.frames" if run.config.data.frames is not None else "data.curves"
        raise run.error(key, f"none of {len(problems)} frames is usable; the first: {problems[0]}")
    absent = ", ".join(str(frame) for frame in run.config.output.curves if frame >= len(keys))
    if absent:  # of a scan that was to be longer
        said = f"output.curves: there is no frame {absent}; the last one is {len(keys) - 1}"
        result = replace(result, warnings=(*result.warnings, said))
    with _timed(timings, "conclude"):
        return pipeline.conclude(result, run, aliquots)


def _process(
    prepared: plan.Plan,
    run: RunFile,
    missing: Sequence[int],
    keep: Callable[[ChunkResult], None],
    *,
    pool: engine.Pool | None,
    say: Say,
) -> None:
    """The missing frames, in chunks, by the given workers or those of the run file."""
    settings, idle = run.config.engine, set[str]()

    def wait(why: str) -> None:
        if why not in idle:
            say(f"waiting: {why}")
        idle.add(why)

    size = engine.chunk_size(settings)
    with engine.pool(settings) if pool is None else nullcontext(pool) as workers:
        if workers.link and pool is None:
            say(f"dask's dashboard: {workers.link}")
        workers.run(prepared, plan.pieces(missing, size), keep, wait)


def write(result: RunResult, run: RunFile, *, timings: Timings | None = None) -> Path:
    """All results into the output folder, complete or not at all; returns the folder."""
    from saxs_pipeline.outputs import nexus, nxcansas, plots, reaction_tables, report, size_tables, tables

    folder, timings = run.config.output.folder, {} if timings is None else timings
    frames = [frame for frame in run.config.output.curves if frame < len(result.curves.index)]
    with _placed(run), staged(folder) as staging:
        with _timed(timings, "export"):
            tables.write_series(result, staging / "series.csv")
            tables.write_curves(result, staging / "curves", frames)
            reaction_tables.write_reaction(result, staging)
            size_tables.write_sizes(result, staging / "sizes.csv")
            nexus.write_run(result, staging / "run.nxs")
            nxcansas.write(result, staging / "run_nxcansas.h5")
        with _timed(timings, "figures"):
            figures = plots.write_figures(result, staging / "figures", frames)
        with _timed(timings, "report"):
            report.write(result, figures, staging / "report.html")
    return folder


def check_output(run: RunFile) -> None:
    """Fail before the work, not after it, when the results could not be written."""
    with _placed(run), staged(run.config.output.folder):
        pass


class Claim:
    """The results folder of a run while this process has it: checkpoints, and what `status` tells."""

    def __init__(self, run: RunFile, command: Command, say: Say) -> None:
        self._run, self._say, self._opened = run, say, False
        self._checkpoints = run.config.output.folder / FOLDER
        self._status = StatusFile(run.config.output.folder, command=command, title=run.config.title, run_file=run.path)
        self._frames, self._rate = Frames(), 0.0
        self.finished = False

    def store(self, prepared: plan.Plan, *, collect: bool = False) -> FrameStore:
        """The checkpoints of a plan; says once what of earlier ones is and is not used."""
        store = FrameStore(self._checkpoints, prepared.key, settings(self._run), collect=collect)
        resumed = f"{len(store)} frames finished earlier are taken from checkpoints"
        if not self._opened:  # later ones hold what this process has finished
            for note in (*store.notes, *([resumed] if len(store) else [])):
                self._say(note)
        self._opened = True
        return store

    def tell(self, frames: Frames, rate: float, state: State = "running", message: str = "") -> None:
        """Keep status.json up to date."""
        self._frames, self._rate = frames, rate
        self._status.write(state, frames, rate=rate, message=message)

    def end(self, state: State, message: str = "") -> None:
        """The last word; checkpoints of a finished run are removed."""
        if state == "finished":
            self.finished = True
            clear(self._checkpoints)
        self._status.write(state, self._frames, rate=self._rate, message=message)


@contextmanager
def claimed(run: RunFile, command: Command, say: Say) -> Iterator[Claim]:
    """The results folder for this process alone; what ends the block is the state that `status` tells.

    Raises BadInput if the folder cannot be written to, or if another process has it.
    """
    with ExitStack() as stack:
        with _placed(run):
            stack.enter_context(exclusive(run.config.output.folder))
        check_output(run)
        claim = Claim(run, command, say)
        claim.tell(Frames(), 0.0, "running" if command == "run" else "waiting", "starting")
        try:
            yield claim
        except BadInput as error:
            claim.end("failed", error.messages[0])
            raise
        except Exception as error:  # of a disk, or one that nobody foresaw: nothing runs any longer
            what = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
            claim.end("failed", f"{what}{error}")
            raise
        except KeyboardInterrupt:
            if not claim.finished:
                claim.end("interrupted", "stopped by Ctrl-C")
            raise


def execute(run: RunFile, say: Say, *, quiet: bool = False) -> RunResult:
    """All of one run: frames → results on disk, resuming what an earlier process of the same run began."""
    with claimed(run, "run", say) as claim:
        result = compute(run, quiet=quiet, store_of=claim.store, tell=claim.tell, say=say)
        write(result, run)
        claim.end("finished")
    return result


@contextmanager
def _placed(run: RunFile) -> Iterator[None]:
    """What goes wrong with the folder is said at its place in the run file."""
    try:
        yield
    except BadInput as error:
        raise run.error("output.folder", str(error)) from None
