"""One HTML file that tells what a run found: readable offline, on paper and on a phone; it loads nothing."""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from saxs_pipeline.outputs.figure_files import FigureFiles
from saxs_pipeline.outputs.flags import MEANING, count_words, frame_flags, has_word, sound
from saxs_pipeline.outputs.flags import populations as flagged
from saxs_pipeline.outputs.numbers import plus_minus
from saxs_pipeline.outputs.report_reaction import kinetics_content, reaction_content
from saxs_pipeline.outputs.tables import series_numbers, summary
from saxs_pipeline.types import Ints, RunResult

MOST_ROWS = 600
"""Rows of the table of the series; longer series show every k-th frame and point to series.csv."""
LARGEST_SVG = 400_000
"""Bytes; a larger figure is embedded as PNG."""
_PLACED = ("reaction", "kinetics")
"""Figures in the section of their subject; all others stand together."""


def write(result: RunResult, figures: Sequence[FigureFiles], path: Path) -> None:
    """Write report.html. `figures`: as from plots.write_figures. OSError if the path cannot be written."""
    environment = Environment(
        loader=PackageLoader("saxs_pipeline.outputs", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(_content(result, figures))
    path.write_text(page, encoding="utf-8", newline="\n")


def _content(result: RunResult, figures: Sequence[FigureFiles]) -> dict[str, Any]:
    """What the template shows; all text is escaped there."""
    provenance = result.provenance
    every = max(1, math.ceil(len(result.curves.index) / MOST_ROWS))
    return {
        "title": result.title,
        "summary": summary(result),
        "warnings": result.warnings,
        "figures": [_embedded(figure) for figure in figures if figure.name not in _PLACED],
        "placed": {figure.name: _embedded(figure) for figure in figures if figure.name in _PLACED},
        "reaction": None if result.analysis is None else reaction_content(result.analysis),
        "kinetics": None if result.comparison is None else kinetics_content(result.comparison),
        "flags": _flag_tables(result),
        "first": flagged(result)[0][0] if result.others else "",
        "others": [name for name, _ in result.others],
        "every": every,
        "series": _series_rows(result, every) if result.quantities is not None else [],
        "uncertainty": _uncertainty_rows(result),
        "geometry": [(str(key), _plain(value)) for key, value in provenance.geometry.items()],
        "equations": provenance.equations,
        "notes": provenance.notes,
        "versions": provenance.versions,
        "inputs": provenance.inputs,
        "config": provenance.config_text,
        "digest": provenance.config_digest,
    }


def _embedded(figure: FigureFiles) -> dict[str, str]:
    """A figure as a data URI: vector where that is small."""
    vector = figure.svg.stat().st_size <= LARGEST_SVG
    data, mime = (figure.svg, "image/svg+xml") if vector else (figure.png, "image/png")
    uri = f"data:{mime};base64,{b64encode(data.read_bytes()).decode('ascii')}"
    return {"name": figure.name, "uri": uri, "alt": figure.alt, "caption": figure.caption}


def _flag_tables(result: RunResult) -> list[tuple[str, list[tuple[str, int, str, str]]]]:
    """Name of each population that has flags, "" of a single one, with its rows."""
    every = [(name, one.flags) for name, one in flagged(result)] or [("", frame_flags(result))]
    tables = [(name, _flag_rows(flags, result.curves.index)) for name, flags in every]
    return [(name, rows) for name, rows in tables if rows]


def _flag_rows(flags: Sequence[str], index: Ints) -> list[tuple[str, int, str, str]]:
    """(word, number, frames, meaning) for every flag."""
    return [
        (word, number, _frame_list(index[has_word(flags, word)].tolist()), MEANING.get(word, ""))
        for word, number in count_words(flags)
    ]


def _frame_list(frames: Sequence[int]) -> str:
    """ "0–9, 13": runs of consecutive frames joined."""
    runs: list[list[int]] = []
    for frame in frames:
        if runs and frame == runs[-1][-1] + 1:
            runs[-1].append(frame)
        else:
            runs.append([frame])
    shown = [str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs]
    return ", ".join(shown[:40]) + (" …" if len(shown) > 40 else "")


def _series_rows(result: RunResult, every: int) -> list[tuple[list[str], bool]]:
    """Cells of the table (frame, t, r, σ_r, c, yield in %, χ², flag) and whether the frame is sound."""
    numbers, flags, trusted = series_numbers(result), frame_flags(result), sound(result)
    rows = []
    for row in range(0, len(flags), every):
        t, _, r, dr, s, ds, c, dc, _, y, dy, *_, chi2 = numbers[row].tolist()
        pairs = [_cell(r, dr), _cell(s, ds), _cell(c, dc), _cell(100 * y, 100 * dy)]
        chi2_text = "" if math.isnan(chi2) else f"{chi2:.2f}"
        rows.append(([str(result.curves.index[row]), f"{t:.5g}", *pairs, chi2_text, flags[row]], bool(trusted[row])))
    return rows


def _cell(value: float, error: float) -> str:
    return "" if math.isnan(value) else plus_minus(value, error)


def _uncertainty_rows(result: RunResult) -> list[tuple[str, str]]:
    """How much each kind of uncertainty matters in I(q): medians over the sound frames."""
    curves = result.curves
    rows = np.flatnonzero(sound(result))
    rows_text = [("unit of I", curves.unit)]
    with np.errstate(invalid="ignore", divide="ignore"):
        statistical = curves.statistical[rows]
        for name, sigma in (("statistical", statistical), ("shared (background, dark)", curves.common[rows])):
            known = sigma[np.isfinite(sigma)]
            rows_text.append((f"{name}, median", f"{np.median(known):.3g} {curves.unit}" if known.size else "none"))
    rows_text += [
        (name, f"{100 * relative:.2g} %")
        for name, relative in (
            ("monitor, of each frame", curves.factor_rel),
            ("background's factor, common to all", curves.taken_off_rel),
        )
        if relative
    ]
    rows_text.append(("scale, common to all", f"{100 * curves.scale_rel:.2g} %"))
    splitting = "pixel splitting ties neighbouring bins together; the errors of fits are too small"
    rows_text.append(("bins", splitting if curves.correlated else "independent (no pixel splitting)"))
    return rows_text


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
