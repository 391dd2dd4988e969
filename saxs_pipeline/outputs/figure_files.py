"""Figures on disk: drawn in the house's style, as PNG (200 dpi) and SVG; the same figure gives the same bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG

from saxs_pipeline.outputs.plot_style import RC, Drawing

_SETTINGS = threading.Lock()  # matplotlib's settings are global


@dataclass(frozen=True)
class FigureFiles:
    """A figure on disk: its name, what it shows, a text for those who cannot see it, and its two files."""

    name: str
    caption: str
    alt: str
    png: Path
    svg: Path


def write_drawings(draw: Iterable[Callable[[], Drawing | None]], folder: Path) -> list[FigureFiles]:
    """Draw figures and write those that there are to folder/<name>.png and .svg. OSError if that cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    with _SETTINGS, mpl.rc_context(RC):
        return [_save(drawing, folder) for one in draw if (drawing := one()) is not None]


def write_captions(files: Iterable[FigureFiles]) -> None:
    """What each of the figures shows, in captions.txt beside them."""
    listed = list(files)
    if listed:
        text = "\n\n".join(f"{one.name}: {one.caption}" for one in listed)
        (listed[0].png.parent / "captions.txt").write_text(text + "\n", encoding="utf-8", newline="\n")


def _save(drawing: Drawing, folder: Path) -> FigureFiles:
    png, svg = folder / f"{drawing.name}.png", folder / f"{drawing.name}.svg"
    FigureCanvasAgg(drawing.figure).print_figure(png, metadata={"Software": None})
    FigureCanvasSVG(drawing.figure).print_figure(svg, dpi=150, metadata={"Date": None})
    return FigureFiles(drawing.name, drawing.caption, drawing.alt, png, svg)
