"""All figures of a run as PNG (200 dpi) and SVG, with captions and alternative texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from saxs_pipeline.outputs.figure_files import FigureFiles, write_drawings
from saxs_pipeline.outputs.plot_curves import draw_curves, draw_heatmap, draw_residuals
from saxs_pipeline.outputs.plot_kinetics import draw_kinetics
from saxs_pipeline.outputs.plot_populations import draw_populations
from saxs_pipeline.outputs.plot_quality import draw_quality
from saxs_pipeline.outputs.plot_reaction import draw_reaction
from saxs_pipeline.outputs.plot_series import draw_concentration_yield, draw_radius
from saxs_pipeline.outputs.plot_sizes import draw_sizes
from saxs_pipeline.types import RunResult


def write_figures(result: RunResult, folder: Path, curves: Sequence[int] = ()) -> list[FigureFiles]:
    """Write the figures that the run supports to folder/<name>.png and .svg; the same run gives the same bytes.

    Names, in order: radius, concentration_yield, populations (of two), reaction, kinetics, curves, heatmap, residuals,
    sizes, quality. `curves`: frame numbers to draw in `curves` and `sizes`; without them about six are chosen. Without
    a model there are curves, heatmap, sizes and quality at most; reaction needs an analysis, kinetics a comparison,
    sizes the section of that name. OSError if the folder cannot be written.
    """
    drawings = (
        partial(draw_radius, result),
        partial(draw_concentration_yield, result),
        partial(draw_populations, result),
        partial(draw_reaction, result),
        partial(draw_kinetics, result),
        partial(draw_curves, result, curves),
        partial(draw_heatmap, result),
        partial(draw_residuals, result),
        partial(draw_sizes, result, curves),
        partial(draw_quality, result),
    )
    return write_drawings(drawings, folder)
