"""Figures on disk: drawn in the house's style, as PNG (200 dpi) and SVG; the same figure gives the same bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axis import Axis, XAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

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
    _join_minor_ticks(drawing.figure)
    png, svg = folder / f"{drawing.name}.png", folder / f"{drawing.name}.svg"
    FigureCanvasAgg(drawing.figure).print_figure(png, metadata={"Software": None})
    FigureCanvasSVG(drawing.figure).print_figure(svg, dpi=150, metadata={"Date": None})
    return FigureFiles(drawing.name, drawing.caption, drawing.alt, png, svg)


def _join_minor_ticks(figure: Figure) -> None:
    """Draw the minor ticks of each side as one line of marks: one by one they take a third of the time of a figure."""
    bare = [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) if _unlabelled(axis)]
    joined = [(axis, _minor_ticks(axis)) for axis in bare]  # all before any: axes that stand together share locators
    for axis, lines in joined:
        axis.set_minor_locator(NullLocator())
        for line in lines:
            axis.axes.add_artist(line)


def _unlabelled(axis: Axis) -> bool:
    places = axis.get_minorticklocs().tolist()
    return axis.get_visible() and len(places) > 0 and not any(axis.get_minor_formatter().format_ticks(places))


def _minor_ticks(axis: Axis) -> list[Line2D]:
    """Of each side that has ticks one line with all of them, each as the axis draws its first."""
    low, high = sorted(axis.get_view_interval())
    places = [place for place in axis.get_minorticklocs() if low <= place <= high]
    first, lines = axis.get_minor_ticks(1)[0], []
    for tick, side in ((first.tick1line, 0.0), (first.tick2line, 1.0)):
        sides = [side] * len(places)
        line = Line2D(*((places, sides) if isinstance(axis, XAxis) else (sides, places)))
        line.update_from(tick)
        line.set(zorder=axis.get_zorder(), clip_on=False)
        lines.append(line)
    return lines
