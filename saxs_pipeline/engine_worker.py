"""What the workers of a cluster do: unpack what frames share, process chunks, and say what they do not see."""

from __future__ import annotations

import pickle
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from distributed import get_worker

from saxs_pipeline import provenance
from saxs_pipeline.checkpoint import PASSING_PROBLEMS
from saxs_pipeline.io.frames import file_state
from saxs_pipeline.pipeline import process
from saxs_pipeline.plan import Plan
from saxs_pipeline.series import FrameSeries
from saxs_pipeline.types import BadInput, ChunkResult, Curves

Frames = tuple[FrameSeries | None, Curves | None]


class Answer(NamedTuple):
    """What became of a chunk, and a file that this worker does not see as the run does, if that may be why."""

    worker: str
    result: ChunkResult | Exception
    unseen: Path | None

    def chunk(self) -> ChunkResult:
        """The chunk; raises what was raised instead."""
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def compare_software(where: str, theirs: Mapping[str, str | None], ours: Mapping[str, str | None]) -> None:
    """Raises BadInput where versions differ: results must be the same wherever they are made."""
    for name, version in ours.items():
        if theirs.get(name) != version:
            here = f"{name} {theirs[name]}" if theirs.get(name) else f"no {name}"
            raise BadInput(f"engine: {where} has {here}, this run {version}; start it in the same environment")


def unpacked(blob: bytes, theirs: Mapping[str, str]) -> Any:
    """A plan without frames, or Frames, as sent by a run with these versions; raises BadInput for other ones here."""
    _check(theirs)
    return pickle.loads(blob)  # noqa: S301 (whoever reaches the scheduler may run anything anyway)


def answer(start: int, stop: int, *, shared: Plan, frames: Frames, theirs: Mapping[str, str], pause_s: float) -> Answer:
    """`process` frames start … stop - 1, after a pause where files were not seen before.

    Raises BadInput where versions differ: results must be the same wherever they are made.
    """
    _check(theirs)
    series, curves = frames
    sizes = [] if series is None else [size for size, _ in series.identity]
    if pause_s and series is not None:
        time.sleep(pause_s)
        series = replace(series, identity=tuple(file_state(path) for path in series.info.paths))
    here = str(get_worker().address)
    try:
        chunk = process(replace(shared, series=series, curves=curves), start, stop)
    except Exception as error:
        unseen = _unseen(series, sizes)
        if unseen is None:
            raise
        return Answer(here, error, unseen)
    doubtful = any(problem.startswith(PASSING_PROBLEMS) for problem in chunk.curves.problems)
    return Answer(here, chunk, _unseen(series, sizes) if doubtful else None)


@cache
def _versions() -> dict[str, str]:
    return provenance.versions()


def _check(theirs: Mapping[str, str]) -> None:
    compare_software(f"the worker {get_worker().address}", _versions(), theirs)


def _unseen(series: FrameSeries | None, sizes: list[int]) -> Path | None:
    """The first file that is missing here, or shorter than the run saw it."""
    if series is None:
        return None
    pairs = zip(series.info.paths, sizes, strict=True)
    return next((path for path, size in pairs if file_state(path)[0] < max(size, 1)), None)
