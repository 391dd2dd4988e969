"""What a results folder tells: how far its run is, how fast it goes, and whether it still runs."""

from __future__ import annotations

import csv
import json
import math
import os
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from saxs_pipeline import durable
from saxs_pipeline.apps.terminal import one_line
from saxs_pipeline.outputs.flags import count_words
from saxs_pipeline.outputs.folder import is_alive, recover
from saxs_pipeline.types import BadInput

State = Literal["running", "waiting", "stalled", "finished", "interrupted", "failed"]
Command = Literal["run", "live"]

NAME = "status.json"
EVERY_S = 1.0
"""The file is written at most so often, but for a new state."""

_ACTIVE = ("running", "waiting", "stalled")
_RESULTS = ("run.nxs", "series.csv", "report.html")


class Frames(NamedTuple):
    """How many frames: expected by the scan (None if it does not say), complete on disk, processed (and how many of
    these come from checkpoints), and processed but not usable."""

    expected: int | None = None
    complete: int = 0
    processed: int = 0
    from_checkpoints: int = 0
    flagged: int = 0


@dataclass(frozen=True)
class Status:
    """Content of status.json. rate in frames/s; started and updated in local time with its offset (ISO 8601)."""

    state: State
    command: Command
    title: str
    run_file: str
    frames: Frames
    rate: float
    message: str
    started: str
    updated: str
    host: str
    pid: int


class StatusFile:
    """Writes status.json of one run. It is a courtesy: a run never ends because this file cannot be written."""

    def __init__(self, folder: Path, *, command: Command, title: str, run_file: Path) -> None:
        """folder: of the results; run_file: only its name is told. Nothing is written yet."""
        self._path = folder / NAME
        self._state: State | None = None
        self._written_s = -math.inf
        self._about: dict[str, Any] = {
            "command": command,
            "title": title,
            "run_file": run_file.name,
            "started": _now(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        for left in folder.glob(f".{NAME}.*{durable.TEMPORARY}"):  # of a process killed while it wrote
            with suppress(OSError):
                left.unlink()

    def write(self, state: State, frames: Frames, *, rate: float = 0.0, message: str = "") -> None:
        """Say how it goes; nothing happens within a second of the last time unless the state is another.

        rate: frames/s, lately or on the whole (NaN counts as 0); message: one line, "" if there is nothing to say.
        """
        now = time.monotonic()
        if state == self._state and now - self._written_s < EVERY_S:
            return
        self._state, self._written_s = state, now
        rate = float(rate) if math.isfinite(rate) else 0.0
        status = Status(state=state, frames=frames, rate=rate, message=message, updated=_now(), **self._about)
        content = {**asdict(status), "frames": frames._asdict()}
        # On a full disk the frames and results matter, and say so where they cannot be written; nobody waits for this.
        with suppress(OSError):
            durable.replace_file(self._path, json.dumps(content, indent=1).encode("ascii"), force=False)


def read(folder: Path) -> Status | None:
    """What status.json says, None if there is none; raises BadInput if it is damaged or cannot be read."""
    path = folder / NAME
    try:
        content = json.loads(path.read_bytes())
        status = Status(**{**content, "frames": Frames(**content["frames"])})
        _check(status)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {durable.reason(error)}") from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise BadInput(f"{path} is damaged; remove it, the results beside it do not depend on it") from None
    return status


def _check(status: Status) -> None:
    """Raise ValueError unless every field has its type and makes sense."""
    kinds: dict[str, type] = {"frames": Frames, "rate": float, "pid": int}
    wrong = [f.name for f in fields(Status) if not isinstance(getattr(status, f.name), kinds.get(f.name, str))]
    if wrong or status.state not in get_args(State) or status.pid < 1 or not math.isfinite(status.rate):
        raise ValueError("not a status")
    expected, *others = status.frames
    if not all(isinstance(n, int) and n >= 0 for n in (expected or 0, *others)):
        raise ValueError("not a number of frames")
    if datetime.fromisoformat(status.updated).tzinfo is None:
        raise ValueError("no offset of the time")


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def describe(folder: Path) -> list[tuple[str, str]]:
    """Rows for the terminal: what is done, what failed, how fast, and what to do.

    Publishes first what a killed run had completed. Raises BadInput if the folder holds no results, or status.json is
    damaged.
    """
    unpublished = _recovered(folder)
    status = _read_current(folder)
    files = ", ".join(name for name in _RESULTS if (folder / name).exists()) or "none yet"
    if status is None:
        rows = [("state", _state_without_file(folder)), ("frames", _frames_in_table(folder / "series.csv"))]
    else:
        rows = [
            ("state", _state_text(status, folder)),
            ("title", one_line(status.title)),
            ("command", one_line(f"saxs-pipeline {status.command} {status.run_file}")),
            ("frames", _frames_text(status.frames)),
            ("rate", f"{status.rate:.3g} frames/s"),
            ("started", status.started),
            ("updated", f"{status.updated} ({_ago(status)} ago)"),
            ("process", one_line(f"{status.pid} on {status.host}")),
            ("message", one_line(status.message)),
        ]
    rows += [("results", files), ("note", unpublished)]
    return [(name, text) for name, text in rows if text]


class Row(NamedTuple):
    """One results folder in a table of many, as text; "" where it is not known.

    state: "none" or "damaged" where `describe` would raise BadInput; frames: processed/expected; flagged: processed
    but not usable; rate: frames/s.
    """

    state: str
    frames: str
    flagged: str
    rate: str
    folder: str


def overview(folders: Iterable[Path]) -> list[Row]:
    """A row for each results folder, in their order."""
    return [_row(folder) for folder in folders]


def describe_all(folders: Iterable[Path]) -> list[tuple[str, str]]:
    """A heading and `overview` for the terminal: (state, all else in aligned columns)."""
    rows = [Row("state", "frames", "not usable", "frames/s", "folder"), *overview(folders)]
    widths = [max(len(row[k]) for row in rows) for k in range(1, 4)]
    return [(row.state, "  ".join([*map(str.rjust, row[1:4], widths), row.folder])) for row in rows]


def _row(folder: Path) -> Row:
    _recovered(folder)
    try:
        status = _read_current(folder)
        if status is None:
            state = _state_without_file(folder).partition(":")[0]
            return Row(state, _frames_in_table(folder / "series.csv").partition(" ")[0], "", "", str(folder))
    except BadInput:
        return Row("damaged" if (folder / NAME).exists() else "none", "", "", "", str(folder))
    done, expected = status.frames.processed, status.frames.expected
    frames = str(done) if expected is None else f"{done}/{expected}"
    return Row(status.state, frames, str(status.frames.flagged), f"{status.rate:.3g}", str(folder))


def _read_current(folder: Path) -> Status | None:
    """As `read`, with state "interrupted" where the file says that a process works that is dead."""
    if not folder.exists():
        raise BadInput(f"{folder}: not found; give the output folder of a run")
    if not folder.is_dir():
        raise BadInput(f"{folder}: is a file; give the output folder of a run")
    status = read(folder)
    if status is None or status.state not in _ACTIVE or not _is_here(status) or is_alive(status.pid):
        return status
    return replace(status, state="interrupted")


def _recovered(folder: Path) -> str:
    """Publish what a killed run had completed; "" or why that cannot be."""
    try:
        recover(folder)
    except BadInput as error:
        return str(error)
    return ""


def _is_here(status: Status) -> bool:
    return status.host == socket.gethostname()


def _state_text(status: Status, folder: Path) -> str:
    if status.state == "interrupted":
        return _interrupted(_in_checkpoints(folder))
    if status.state == "failed" and (kept := _in_checkpoints(folder)):
        return f"failed; {kept} frames are in checkpoints"
    if status.state in _ACTIVE and not _is_here(status):
        return one_line(
            f"{status.state} on {status.host}, as it said {_ago(status)} ago; ask there whether it still is"
        )
    return status.state


def _state_without_file(folder: Path) -> str:
    """State from the results and checkpoints alone; raises BadInput where there are neither."""
    if kept := _in_checkpoints(folder):
        return _interrupted(kept)
    if (folder / "run.nxs").exists() or (folder / "series.csv").exists():
        return "finished"
    raise BadInput(f"{folder}: holds no results of a run; give the output folder of one")


def _interrupted(kept: int) -> str:
    return f"interrupted: run again to resume; {kept} frames are in checkpoints"


def _in_checkpoints(folder: Path) -> int:
    from saxs_pipeline import checkpoint

    try:
        return checkpoint.count(folder)
    except OSError:  # another process removes them just now, or they may not be read
        return 0


def _frames_text(frames: Frames) -> str:
    expected = "" if frames.expected is None else f" of {frames.expected}"
    text = f"{frames.processed}{expected} processed"
    if frames.from_checkpoints:
        text += f", {frames.from_checkpoints} of them from checkpoints"
    if frames.complete > frames.processed:
        text += f", {frames.complete} complete on disk"
    return f"{text}; {frames.flagged} not usable"


def _frames_in_table(table: Path) -> str:
    """Number of frames in series.csv and how many have which flag; "" if that cannot be read."""
    try:
        with table.open(newline="", encoding="utf-8") as file:
            flags = [row["flag"] for row in csv.DictReader(file)]
    except (OSError, KeyError, UnicodeDecodeError, csv.Error):
        return ""
    words = ", ".join(f"{n} {word}" for word, n in count_words(flags))
    return f"{len(flags)} processed" + (f"; {words}" if words else "")


def _ago(status: Status) -> str:
    """Time since the file was written, in the largest unit that gives at least 2."""
    seconds = max((datetime.now().astimezone() - datetime.fromisoformat(status.updated)).total_seconds(), 0.0)
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
