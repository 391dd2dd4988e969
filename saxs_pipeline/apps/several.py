"""Many runs with one command: each on its own, one line for each as it ends, one summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from saxs_pipeline import provenance, runfile
from saxs_pipeline.apps import batch
from saxs_pipeline.fields import FoundFiles
from saxs_pipeline.runfile import RunFile
from saxs_pipeline.types import BadInput


class Outcome(NamedTuple):
    """What became of a run file; message: one line if it failed, or why there was nothing to do."""

    path: Path
    state: Literal["finished", "up to date", "failed"]
    frames: int = 0
    flagged: int = 0
    seconds: float = 0.0
    message: str = ""


def expand(names: Sequence[Path]) -> list[Path]:
    """Run files of names and patterns, each once; raises BadInput for one that leads to no file."""
    found: dict[Path, None] = {}
    for name in names:
        try:
            found |= dict.fromkeys(FoundFiles.look([str(name)], Path(), must_exist=True))
        except ValueError as error:
            raise BadInput(str(error)) from None
    return list(found)


def execute(paths: Sequence[Path], say: Callable[[str], None]) -> list[Outcome]:
    """Run one after the other; one that fails does not stop the others, one that is up to date is left alone."""
    outcomes: list[Outcome] = []
    folders: dict[Path, Path] = {}
    for number, path in enumerate(paths, start=1):
        begin = time.monotonic()
        try:
            outcome = _execute(path, folders, say)
        except BadInput as error:
            outcome = Outcome(path, "failed", message="; ".join(error.messages))
        except (ArithmeticError, MemoryError, OSError) as error:  # of one scan: the others go on
            outcome = Outcome(path, "failed", message=f"{type(error).__name__}: {error}")
        outcomes.append(outcome._replace(seconds=time.monotonic() - begin))
        say(f"[{number}/{len(paths)}] {_line(outcomes[-1])}")
    return outcomes


def summary(outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    """Counts over all runs, and what failed."""
    count = {state: sum(o.state == state for o in outcomes) for state in ("finished", "up to date", "failed")}
    frames, flagged = sum(o.frames for o in outcomes), sum(o.flagged for o in outcomes)
    seconds = sum(o.seconds for o in outcomes if o.state == "finished")
    done = sum(o.frames for o in outcomes if o.state == "finished")
    rows = [
        ("runs", ", ".join(f"{n} {state}" for state, n in count.items() if n)),
        ("frames", f"{frames}, {flagged} of them not usable"),
    ]
    if done:
        rows.append(("speed", f"{done / seconds:.3g} frames/s over {seconds:.3g} s, figures and reports included"))
    return rows + [("failed", f"{o.path}: {o.message}") for o in outcomes if o.state == "failed"]


def _execute(path: Path, folders: dict[Path, Path], say: Callable[[str], None]) -> Outcome:
    """folders: of the runs before this one, with their run files; this one's is added."""
    run = runfile.load(path)
    folder = run.config.output.folder.resolve()
    if folder in folders:
        raise run.error("output.folder", f"{folders[folder].name} writes its results there; give each run its own")
    folders[folder] = path
    finished = _finished(run)
    if finished is not None:
        return Outcome(path, "up to date", *finished)
    result = batch.execute(run, lambda line: say(f"{path}: {line}"))
    usable = result.curves.usable
    return Outcome(path, "finished", len(usable), int(np.count_nonzero(~usable)))


def _finished(run: RunFile) -> tuple[int, int] | None:
    """Frames and flagged ones of results that this very run file, with these inputs and versions, has made already."""
    from saxs_pipeline.outputs import nexus

    try:
        result = nexus.read_run(run.config.output.folder / "run.nxs")
    except BadInput:
        return None
    usable = result.curves.usable
    return (len(usable), int(np.count_nonzero(~usable))) if provenance.same(run, result.provenance) else None


def _line(outcome: Outcome) -> str:
    if outcome.state == "failed":
        return f"{outcome.path}: failed: {outcome.message}"
    text = f"{outcome.path}: {outcome.state}, {outcome.frames} frames, {outcome.flagged} not usable"
    return text if outcome.state == "up to date" else f"{text}, {outcome.seconds:.3g} s"
