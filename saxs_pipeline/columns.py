"""Tables of numbers in CSV: named columns with the unit in the name, and the place of every mistake.

Strict on purpose: commas only, no column that is not known, no number that is not one. An empty cell is a value that
was not measured.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from saxs_pipeline.text_file import TextKind, read_text
from saxs_pipeline.types import BadInput, Floats

Sign = Literal["any", "positive", "not negative"]
_Cell = tuple[float, tuple[int, int]]

MOST_MISTAKES = 20
"""Mistakes reported at once; a file with more is wrong as a whole."""

_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class Columns:
    """A table: values (k,) by column, NaN where the cell is empty; only columns that stand in the file."""

    path: Path
    values: Mapping[str, Floats]
    places: Mapping[str, tuple[tuple[int, int], ...]]

    def message(self, name: str, row: int, text: str) -> str:
        """`FILE:LINE:COLUMN: name: text` for the cell of column `name` in row `row` (from 0)."""
        line, column = self.places[name][row]
        return f"{self.path}:{line}:{column}: {name}: {text}"


def read(path: Path, known: Mapping[str, Sign], *, example: str) -> Columns:
    """Read a table whose columns are among `known` (name → sign its numbers must have); any order, any subset.

    Lines that begin with # are comments. Raises BadInput, with one line per mistake, for files that are no such table.
    """
    lines = _lines(path, example)
    names = _header(path, *lines[0], known, example)
    rows, mistakes = [], []
    for number, line in lines[1:]:
        row, problems = _row(number, line, names, known)
        rows.append(row)
        mistakes += [f"{path}:{problem}" for problem in problems]
    if mistakes:
        more = len(mistakes) - MOST_MISTAKES
        raise BadInput(*mistakes[:MOST_MISTAKES], *([f"{path}: and {more} more mistakes"] if more > 0 else []))
    values = np.array([[value for value, _ in row] for row in rows], dtype=float).reshape(len(rows), len(names))
    places = {name: tuple(row[k][1] for row in rows) for k, name in enumerate(names)}
    return Columns(path, {name: values[:, k].copy() for k, name in enumerate(names)}, places)


def _lines(path: Path, example: str) -> list[tuple[int, str]]:
    """(line number, text) of the header and the rows."""
    text = read_text(path, TextKind("table", ".csv", f"CSV, for example {example}"))
    lines = [(i, line) for i, line in enumerate(text.split("\n"), start=1) if line.strip() and line.strip()[0] != "#"]
    if len(lines) < 2:
        raise BadInput(f"{path}: a table needs a header line and at least one row, for example {example}")
    return lines


def _cells(line: str) -> list[tuple[str, int]]:
    """(text, column from 1) of each cell; quotes around a cell are dropped."""
    cells, start = [], 0
    for part in line.split(","):
        text = part.strip()
        cells.append((text.strip('"').strip(), start + part.index(text) + 1 if text else start + 1))
        start += len(part) + 1
    return cells


def _header(path: Path, number: int, line: str, known: Mapping[str, Sign], example: str) -> list[str]:
    if "," not in line and re.search(r"[;\t]", line):
        raise BadInput(f"{path}:{number}:1: columns are separated by commas here; save the table as {example}")
    cells = _cells(line)
    mistakes = []
    for k, (name, column) in enumerate(cells):
        if name in [other for other, _ in cells[:k]]:
            mistakes.append(f"{path}:{number}:{column}: two columns are named {name!r}; remove one")
        elif name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            mistakes.append(f"{path}:{number}:{column}: unknown column {name[:40]!r}; {hint}")
    if mistakes and not any(name in known for name, _ in cells):
        raise BadInput(f"{path}:{number}:1: the first line must name the columns, for example {example}")
    if mistakes:
        raise BadInput(*mistakes[:MOST_MISTAKES])
    return [name for name, _ in cells]


def _row(number: int, line: str, names: list[str], known: Mapping[str, Sign]) -> tuple[list[_Cell], list[str]]:
    """(value, (line, column)) of each cell, and what is wrong as "LINE:COLUMN: …"."""
    cells = _cells(line)
    if len(cells) != len(names):
        comma = "; a decimal comma must be a point" if len(cells) > len(names) else ""
        return [], [f"{number}:1: has {len(cells)} cells, the header names {len(names)} columns{comma}"]
    row: list[_Cell] = []
    problems = []
    for name, (text, column) in zip(names, cells, strict=True):
        value, problem = _value(text, known[name])
        if problem:
            problems.append(f"{number}:{column}: {name}: {problem}")
        row.append((value, (number, column)))
    return row, problems


def _value(text: str, sign: Sign) -> tuple[float, str]:
    """Number (NaN for an empty cell), and what is wrong with it ("" if nothing)."""
    if not text:
        return math.nan, ""
    if not _NUMBER.fullmatch(text):
        return math.nan, f"{text[:40]!r} is not a number; leave the cell empty where nothing was measured"
    value = float(text)
    if not math.isfinite(value):
        return math.nan, f"{text[:40]!r} is too large for a number"
    if (sign == "positive" and value <= 0) or (sign == "not negative" and value < 0):
        return math.nan, f"must be {sign}, got {text[:40]!r}"
    return value, ""
