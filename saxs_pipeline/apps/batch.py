"""One run after the beamtime: run file in, results folder out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saxs_pipeline import engine, pipeline, plan
from saxs_pipeline.apps.terminal import frame_progress
from saxs_pipeline.outputs.folder import staged
from saxs_pipeline.runfile import RunFile
from saxs_pipeline.types import BadInput, RunResult

Timings = dict[str, float]


@contextmanager
def _timed(timings: Timings, name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[name] = time.perf_counter() - start


def compute(run: RunFile, *, quiet: bool = False, timings: Timings | None = None) -> RunResult:
    """Frames → quantities; raises BadInput if the inputs cannot be used or no frame is usable.

    `timings` collects the seconds of each step.
    """
    timings = {} if timings is None else timings
    with _timed(timings, "prepare"):
        aliquots = pipeline.check_reaction(run)
        prepared = plan.prepare(run)
    with _timed(timings, "process"), frame_progress(len(prepared), quiet=quiet) as advance:
        chunks = engine.run_chunks(prepared, run.config.engine, advance)
    with _timed(timings, "finish"):
        result = pipeline.finish(prepared, run, chunks)
    if not result.curves.usable.any():
        problems = result.curves.problems
        key = "data.frames" if run.config.data.frames is not None else "data.curves"
        raise run.error(key, f"none of {len(problems)} frames is usable; the first: {problems[0]}")
    with _timed(timings, "conclude"):
        return pipeline.conclude(result, run, aliquots)


def write(result: RunResult, run: RunFile, *, timings: Timings | None = None) -> Path:
    """All results into the output folder, complete or not at all; returns the folder."""
    from saxs_pipeline.outputs import nexus, nxcansas, plots, reaction_tables, report, tables

    folder, timings = run.config.output.folder, {} if timings is None else timings
    frames = run.config.output.curves
    unknown = [frame for frame in frames if frame >= len(result.curves.index)]
    if unknown:
        raise run.error("output.curves", f"frame {unknown[0]} does not exist; there are {len(result.curves.index)}")
    with _placed(run), staged(folder) as staging:
        with _timed(timings, "export"):
            tables.write_series(result, staging / "series.csv")
            tables.write_curves(result, staging / "curves", frames)
            reaction_tables.write_reaction(result, staging)
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


@contextmanager
def _placed(run: RunFile) -> Iterator[None]:
    """What goes wrong with the folder is said at its place in the run file."""
    try:
        yield
    except BadInput as error:
        raise run.error("output.folder", str(error)) from None
