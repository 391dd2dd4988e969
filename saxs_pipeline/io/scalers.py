"""Times and monitors of a series: ID02 scalers files (TFG and MCS), CSV tables, .fio scans, and the timing law."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from saxs_pipeline.io import fio, frames
from saxs_pipeline.types import BadInput, Floats, FrameTimes

LAW = "timing law"
"""Origin of times that a configured law gives."""

_HDF5_MAGIC = b"\x89HDF"


@dataclass(frozen=True)
class Scalers:
    """Times (s, on the clock of the file) and monitors of all frames by name, (n,) each.

    For ID02 files the monitors are I0 and I1 (before and after the sample), every pin under its own name, and
    `exposure` (s). `kind` is "id02", "csv" or "fio".
    """

    kind: str
    path: Path
    times: FrameTimes | None
    monitors: Mapping[str, Floats] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_scalers(path: Path, *, growing: bool = False) -> Scalers:
    """Scalers of a file, its kind decided by its content; of a `growing` table a line not yet ended is left out.

    Raises BadInput where the file is missing, empty, damaged, or has neither times nor monitors.
    """
    head = frames.read_head(path)
    if head.startswith(_HDF5_MAGIC):
        from saxs_pipeline.io.id02_scalers import read_id02

        times, monitors, warnings = read_id02(path)
        return Scalers("id02", path, times, monitors, warnings)
    if b"\x00" in head:
        raise BadInput(f"{path}: neither an HDF5 scalers file nor a table in text; check data.scalers")
    if fio.is_fio(head):
        scan = fio.read_scan(path)
        return Scalers("fio", path, scan.times, scan.monitors, scan.warnings)
    return read_csv(path, growing=growing)


def read_csv(path: Path, *, growing: bool = False) -> Scalers:
    """A table with a header line: start_s, exposure_s (s), and one column per monitor.

    Separated by commas, semicolons, tabs or spaces; lines that begin with # before the header are comments, missing
    cells are NaN. A `frame` column must count up by one: rows belong to frames by their order.
    """
    names, rows = _table(path, growing)
    columns = {name: _numbers(path, name, [row[k] for _, row in rows], rows) for k, name in enumerate(names)}
    known = {name: values for name, values in columns.items() if values is not None}
    number = known.pop("frame", None)
    if number is not None and not np.all(np.diff(number) == 1):
        wrong = int(np.flatnonzero(np.diff(number) != 1)[0]) + 1
        raise BadInput(
            f"{path}: line {rows[wrong][0]}: the frame numbers do not count up by one; sort or complete them"
        )
    start, exposure = known.pop("start_s", None), known.pop("exposure_s", None)
    warnings = () if start is None or exposure is not None else ("start times without an exposure_s column: not used",)
    times = FrameTimes(start, exposure, f"{path.name}") if start is not None and exposure is not None else None
    if exposure is not None:
        known["exposure"] = exposure
    if not known and times is None:
        raise BadInput(
            f"{path}: no column of numbers; the header line names them, for example frame,start_s,exposure_s"
        )
    return Scalers("csv", path, times, known, warnings)


def _table(path: Path, growing: bool) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Column names and (line number, cells) of each row."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    if growing:
        text = text[: text.rfind("\n") + 1]
    lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]
    while len(lines) > 1 and lines[0][1].startswith("#") and lines[1][1].startswith("#"):
        lines.pop(0)
    if len(lines) < 2:
        raise BadInput(f"{path}: a table needs a header line and at least one row")
    header = lines[0][1].lstrip("# ")
    separator = next((mark for mark in (",", ";", "\t") if mark in header), None)
    cells = [(i, _cells(line, separator)) for i, line in lines[1:] if not line.startswith("#")]
    names = _cells(header, separator)
    if all(_number(name) is not None for name in names):
        raise BadInput(
            f"{path}: line {lines[0][0]}: the first line must name the columns, for example frame,start_s,I1"
        )
    for i, row in cells:
        if len(row) != len(names):
            raise BadInput(f"{path}: line {i} has {len(row)} cells, the header names {len(names)} columns")
    if len(set(names)) < len(names):
        raise BadInput(f"{path}: two columns have the same name; rename one")
    return names, cells


def _cells(line: str, separator: str | None) -> list[str]:
    if separator is None:
        return line.split()
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator))]


def _number(cell: str) -> float | None:
    if not cell or cell.lower() in ("nan", "none", "<no-data>"):
        return math.nan
    try:
        return float(cell)
    except ValueError:
        return None


def _numbers(path: Path, name: str, cells: Sequence[str], rows: Sequence[tuple[int, Any]]) -> Floats | None:
    """A column as numbers; None if it holds words only (file names). Raises BadInput for a mixture."""
    values = [_number(cell) for cell in cells]
    words = [i for i, value in enumerate(values) if value is None]
    if words and any(value is not None and not math.isnan(value) for value in values):
        raise BadInput(f"{path}: line {rows[words[0]][0]}: {cells[words[0]]!r} in column {name} is not a number")
    return None if words else np.array(values, dtype=float)


def law_times(n: int, exposure_s: float, wait_s: float, growth: float) -> FrameTimes:
    """Times of n frames with waits that grow geometrically, on the clock of the first wait (s).

    Period k = 1…n is a wait of wait_s·growth^(k−1) and an exposure, as the ID02 timer has them (dead, live, dead, …),
    so frame k starts at (k − 1)·exposure_s + Σ_{j≤k} wait_s·growth^(j−1). Prins et al. use 75 ms, 22 ms and 1.015.
    Raises BadInput for values that are not times.
    """
    if n < 1 or not (exposure_s > 0 and wait_s >= 0 and growth > 0):
        raise BadInput("data.time.law: needs exposure > 0, wait ≥ 0 and growth > 0")
    k = np.arange(n, dtype=float)
    start: Floats = k * exposure_s + np.cumsum(wait_s * growth**k)
    return FrameTimes(start, np.full(n, exposure_s), LAW)
