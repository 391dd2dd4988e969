"""All figures of a run as PNG (200 dpi) and SVG, with captions and alternative texts."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG

from saxs_pipeline.outputs.plot_curves import draw_curves, draw_heatmap, draw_residuals
from saxs_pipeline.outputs.plot_series import draw_concentration_yield, draw_quality, draw_radius
from saxs_pipeline.outputs.plot_style import RC, Drawing
from saxs_pipeline.types import RunResult

_SETTINGS = threading.Lock()  # matplotlib's settings are global


@dataclass(frozen=True)
class FigureFiles:
    """A figure on disk: its name, what it shows, a text for those who cannot see it, and its two files."""

    name: str
    caption: str
    alt: str
    png: Path
    svg: Path


def write_figures(result: RunResult, folder: Path, curves: Sequence[int] = ()) -> list[FigureFiles]:
    """Write the figures that the run supports to folder/<name>.png and .svg; the same run gives the same bytes.

    Names, in order: radius, concentration_yield, curves, heatmap, residuals, quality. `curves`: frame numbers to draw
    in `curves`; without them about six are chosen. Without a model there are curves, heatmap and quality at most.
    OSError if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _SETTINGS, mpl.rc_context(RC):
        drawings = (
            draw_radius(result),
            draw_concentration_yield(result),
            draw_curves(result, curves),
            draw_heatmap(result),
            draw_residuals(result),
            draw_quality(result),
        )
        return [_save(drawing, folder) for drawing in drawings if drawing is not None]


def _save(drawing: Drawing, folder: Path) -> FigureFiles:
    png, svg = folder / f"{drawing.name}.png", folder / f"{drawing.name}.svg"
    FigureCanvasAgg(drawing.figure).print_figure(png, metadata={"Software": None})
    FigureCanvasSVG(drawing.figure).print_figure(svg, dpi=150, metadata={"Date": None})
    return FigureFiles(drawing.name, drawing.caption, drawing.alt, png, svg)
