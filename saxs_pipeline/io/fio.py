"""P21.2 scan files (.fio): comments, the command, parameters and a table, one row per frame.

Tolerant: a malformed line is left out and counted in one warning per file, the lines after it still count. Values are
data only (numbers, JSON, Python literals); nothing in a file is ever executed.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from saxs_pipeline.types import BadInput, Floats, FrameTimes

_COLUMN = re.compile(r"^\s*Col\s+(\d+)\s+(.+?)\s+([A-Z_]+)\s*$")
_EXPOSURE = re.compile(r"\b\d+:(\d+)/(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)")
_TIME_COLUMNS = ("timestamp", "unix time", "time", "t")
_MISSING = ("<no-data>", "None", "nan", "NaN")
_ENDED = re.compile(r"ended at|finished", re.IGNORECASE)
_ABORTED = re.compile(r"abort", re.IGNORECASE)


@dataclass(frozen=True)
class Scan:
    """One scan: command, start as written, parameters, columns of numbers (n,) and of words, and how it ended.

    `state` is "ended", "aborted" or "unfinished" (no closing line: running, or cut short).
    """

    path: Path
    command: str
    started: str
    parameters: Mapping[str, Any]
    columns: Mapping[str, Floats]
    n_rows: int
    state: str
    warnings: tuple[str, ...] = ()

    @property
    def exposure_s(self) -> float | None:
        """Exposure of one frame, s: from the command (1:720/0.10), else the first channel's parameter."""
        match = _EXPOSURE.search(self.command)
        if match:
            return float(match[2])
        keys = sorted(key for key in self.parameters if re.fullmatch(r"channel\d+_exposure", key))
        values = [self.parameters[key] for key in keys if isinstance(self.parameters[key], int | float)]
        return float(values[0]) if values else None

    @property
    def expected(self) -> int | None:
        """Frames that the command asks for (1:720/0.10), None where it does not say."""
        match = _EXPOSURE.search(self.command)
        return int(match[1]) if match else None

    @property
    def times(self) -> FrameTimes | None:
        """Starts from the first time column, relative to the first row, and the exposure; None if one is missing."""
        name = next((name for name in _TIME_COLUMNS if name in self.columns), None)
        if name is None or self.exposure_s is None or self.n_rows == 0:
            return None
        start = self.columns[name]
        known = start[np.isfinite(start)]
        if known.size and known[0] > 1e8:  # seconds since 1970
            start = start - known[0]
        return FrameTimes(start, np.full(self.n_rows, self.exposure_s), f"{self.path.name} column {name}")

    @property
    def monitors(self) -> dict[str, Floats]:
        """All columns of numbers by name, and `exposure` (s) where it is known."""
        known = dict(self.columns)
        if self.exposure_s is not None:
            known.setdefault("exposure", np.full(self.n_rows, self.exposure_s))
        return known

    @property
    def detectors(self) -> dict[str, Mapping[str, str]]:
        """Parameters that say where a detector's images are: name → {"Filedir": …, "Filepattern": …}."""
        return {
            name: {key: str(text) for key, text in value.items()}
            for name, value in self.parameters.items()
            if isinstance(value, dict) and {"Filedir", "Filepattern"} <= set(value)
        }


@dataclass
class _Draft:
    """What has been read so far."""

    comments: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    columns: list[tuple[str, str]] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    malformed: list[int] = field(default_factory=list)
    state: str = "unfinished"


def is_fio(head: bytes) -> bool:
    """Whether a text file that begins with `head` is a .fio scan: a section mark and comment lines."""
    lines = [line.strip() for line in head.splitlines()]
    marks = any(line in (b"%c", b"%p", b"%d") for line in lines)
    return b"\x00" not in head and marks and any(line.startswith(b"!") for line in lines)


def read_scan(path: Path) -> Scan:
    """Parse a scan. Raises BadInput where the file cannot be read or has none of the three sections."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror or error})") from None
    lines = text.splitlines()
    draft = _Draft()
    if lines and not text.endswith("\n") and not (_ENDED.search(lines[-1]) or _ABORTED.search(lines[-1])):
        draft.malformed.append(len(lines))  # being written, or cut short: its last number may lack digits
        lines.pop()
    section = ""
    for number, line in enumerate(lines, start=1):
        stripped = line.strip()
        if stripped in ("%c", "%p", "%d"):
            section = stripped
        elif stripped.startswith("!") or (section == "%d" and stripped.lower().startswith(("aborted", "acquisition"))):
            _note_end(draft, stripped)
        elif stripped and not _READERS[section](draft, line):
            draft.malformed.append(number)
    if not section:
        raise BadInput(f"{path}: not a .fio scan (no %c, %p or %d section)")
    return _finished(path, draft)


def _note_end(draft: _Draft, line: str) -> None:
    if _ABORTED.search(line):
        draft.state = "aborted"
    elif _ENDED.search(line) and draft.state != "aborted":
        draft.state = "ended"


def _read_comment(draft: _Draft, line: str) -> bool:
    draft.comments.append(line.strip())
    return True


def _read_parameter(draft: _Draft, line: str) -> bool:
    key, equals, value = line.partition("=")
    if not equals or not key.strip():
        return False
    parsed = parse_value(value.strip())
    draft.parameters[key.strip()] = parsed
    return not (isinstance(parsed, str) and parsed.startswith(("{", "[")))  # a broken JSON or Python literal


def _read_row(draft: _Draft, line: str) -> bool:
    match = _COLUMN.match(line)
    if match and not draft.rows:
        draft.columns.append((match[2], match[3]))
        return True
    cells = line.split()
    if len(cells) != len(draft.columns) or not all(map(_fits, cells, draft.columns)):
        return False
    draft.rows.append(cells)
    return True


_READERS = {"": lambda draft, line: False, "%c": _read_comment, "%p": _read_parameter, "%d": _read_row}


def _fits(cell: str, column: tuple[str, str]) -> bool:
    return _is_text(column) or not math.isnan(_float(cell, math.inf)) or cell in _MISSING


def _is_text(column: tuple[str, str]) -> bool:
    return column[1] == "STRING"


def _float(cell: str, missing: float) -> float:
    """A cell as a number; `missing` where there is no value, NaN where it is not a number."""
    if cell in _MISSING:
        return missing
    if cell.lower() in ("true", "false"):
        return float(cell.lower() == "true")
    try:
        return float(cell)
    except ValueError:
        return math.nan


def parse_value(text: str) -> Any:
    """A parameter's value: number, JSON, Python literal, else the text itself; missing ones are NaN."""
    if text in _MISSING:
        return math.nan
    for parse in (float, json.loads, ast.literal_eval):
        try:
            value: Any = parse(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        return value
    return text


def _finished(path: Path, draft: _Draft) -> Scan:
    cells = {column: [row[k] for row in draft.rows] for k, column in enumerate(draft.columns)}
    numbers = {c[0]: np.array([_float(x, math.nan) for x in v]) for c, v in cells.items() if not _is_text(c)}
    return Scan(
        path=path,
        command=draft.comments[0] if draft.comments else "",
        started=_started(draft.comments),
        parameters=draft.parameters,
        columns=numbers,
        n_rows=len(draft.rows),
        state=draft.state,
        warnings=_warnings(path, draft),
    )


def _started(comments: Sequence[str]) -> str:
    for line in comments:
        _, mark, date = line.partition("acquisition started at")
        if mark:
            return date.strip()
    return ""


def _warnings(path: Path, draft: _Draft) -> tuple[str, ...]:
    warnings: list[str] = []
    if draft.malformed:
        count, first = len(draft.malformed), draft.malformed[0]
        warnings.append(f"{path.name}: {count} malformed line{'s' * (count > 1)} left out (line {first} first)")
    if draft.state != "ended":
        word = "was aborted" if draft.state == "aborted" else "has no closing line: it is running, or was cut short"
        warnings.append(f"{path.name}: the scan {word}; {len(draft.rows)} frames are listed")
    return tuple(warnings)
