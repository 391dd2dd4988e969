"""The frame that is shown: its image, I(q) with error band and fit, the residuals; and the map I(q, t)."""

from __future__ import annotations

import numpy as np
from bokeh.models import ColumnDataSource, DataRange1d
from bokeh.models.annotations import BoxAnnotation, Span
from bokeh.models.tickers import BasicTicker

from saxs_pipeline.apps.page_image import HeatMap, Picture
from saxs_pipeline.apps.page_style import (
    NOWHERE,
    LevelImage,
    entitle,
    frame_line,
    hover,
    lead,
    one_two_five,
    panel,
)
from saxs_pipeline.outputs.plot_style import BLACK, BLUE, GREY, LIGHT_GREY, VERMILLION
from saxs_pipeline.types import Floats, RunResult

Q_LABEL = "q (nm⁻¹)"
RESIDUALS = 4.0
"""The residuals' axis reaches at least so many σ."""


class CurvePlots:
    """I(q) of one frame on logarithmic axes, and (I − fit)/σ below it."""

    def __init__(self) -> None:
        self.curve = panel("curve", ("", "I"), ("log", "log"))
        self.residuals = panel("residuals", (Q_LABEL, "(I − fit) / σ"), ("log", "linear"), x_range=self.curve.x_range)
        self._points = ColumnDataSource({name: [] for name in ("q", "intensity", "alpha", "fit", "residual")})
        self._band = ColumnDataSource({"q": [], "intensity": []})
        self.residuals.yaxis[0].ticker = BasicTicker(desired_num_ticks=4)
        for plot in (self.curve, self.residuals):
            one_two_five(plot.xaxis[0])
        self._draw()

    def _draw(self) -> None:
        curve, residuals, points = self.curve, self.residuals, self._points
        curve.patch("q", "intensity", source=self._band, fill_color=BLUE, fill_alpha=0.25, line_color=None)
        drawn = curve.scatter("q", "intensity", source=points, size=4, color=BLUE, line_color=None, fill_alpha="alpha")
        curve.line("q", "fit", source=points, color=BLACK, line_width=1.5)
        inside = BoxAnnotation(
            bottom=-2, top=2, fill_color=LIGHT_GREY, fill_alpha=0.5, line_color=None, level="underlay"
        )
        residuals.add_layout(inside)
        residuals.add_layout(Span(location=0, dimension="width", line_color=GREY, line_dash="dotted"))
        off = residuals.scatter("q", "residual", source=points, size=4, color=BLUE, line_color=None)
        hover(curve, [drawn], [("q", "@q{0.000} nm⁻¹"), ("I", "@intensity{0.000e+0}"), ("fit", "@fit{0.000e+0}")])
        hover(residuals, [off], [("q", "@q{0.000} nm⁻¹"), ("(I − fit)/σ", "@residual{0.0}")])

    def show(self, result: RunResult, row: int, highest: float) -> None:
        """Draw the frame in this row; `highest` intensity of the series, so that the axis stands still."""
        curves = result.curves
        q, intensity = curves.q_nm, curves.intensity[row]
        sigma = curves.select(row, row + 1).sigma[0]
        fit = np.full_like(q, np.nan) if result.model is None else result.model[row]
        with np.errstate(divide="ignore", invalid="ignore"):
            residual = np.where(sigma > 0, (intensity - fit) / sigma, np.nan)
        drawn = (intensity > 0) & (q > 0)
        self._points.data = {
            "q": q, "intensity": np.where(drawn, intensity, np.nan), "alpha": np.where(intensity > sigma, 1.0, 0.3),
            "fit": np.where(fit > 0, fit, np.nan), "residual": residual,
        }  # fmt: skip
        self._limit(q, intensity, residual, drawn, highest)
        self._show_band(q, intensity, sigma)
        self.curve.yaxis[0].axis_label = f"I ({unit_text(curves.unit)})"

    def _limit(self, q: Floats, intensity: Floats, residual: Floats, drawn: Floats, highest: float) -> None:
        known = residual[np.isfinite(residual)]
        reach = max(RESIDUALS, 1.15 * float(np.abs(known).max())) if known.size else RESIDUALS
        positive = q[q > 0]
        across = (0.93 * float(positive.min()), 1.07 * float(positive.max()))
        lead(self.curve.x_range, across)
        lead(self.residuals.y_range, (-reach, reach))
        if drawn.any():
            value = intensity[drawn]
            top = 2 * max(highest, float(value.max()))
            lead(self.curve.y_range, (min(0.5 * float(np.percentile(value, 3)), 0.1 * top), top))

    def _show_band(self, q: Floats, intensity: Floats, sigma: Floats) -> None:
        """I ± σ as one outline per run of measured bins; where I < σ it reaches the bottom, as the error does."""
        upper, lower = intensity + sigma, intensity - sigma
        drawn = (upper > 0) & (q > 0)
        if not drawn.any():
            self._band.data = {"q": [], "intensity": []}
            return
        lower = np.maximum(lower, 1e-3 * float(upper[drawn].min()))
        runs = np.split(np.arange(q.size), np.flatnonzero(np.diff(drawn.astype(np.int8))) + 1)
        gap = np.array([np.nan])
        outline_q: list[Floats] = []
        outline: list[Floats] = []
        for run in (run for run in runs if drawn[run[0]]):
            outline_q += [q[run], q[run][::-1], gap]
            outline += [upper[run], lower[run][::-1], gap]
        self._band.data = {"q": np.concatenate(outline_q), "intensity": np.concatenate(outline)}


class PicturePlot:
    """The raw frame as the geometry means it, first row on top, pixels that are not used grey, a cross at the beam."""

    def __init__(self) -> None:
        ranges = {"x_range": DataRange1d(range_padding=0), "y_range": DataRange1d(range_padding=0, flipped=True)}
        self.plot = panel("picture", ("x (pixel)", "y (pixel)"), ("linear", "linear"), **ranges)
        self.plot.match_aspect = True
        self.plot.outline_line_color = None
        self._image = LevelImage(self.plot)
        self._centre = ColumnDataSource({"x": [], "y": []})
        self.plot.scatter("x", "y", source=self._centre, marker="cross", size=16, line_color=VERMILLION, line_width=1.5)
        self._drawn: Picture | None = None
        entitle(self.plot, "no image yet")

    def show(self, frame: int, picture: Picture | str) -> None:
        """Draw the frame, or say why it cannot be drawn."""
        if isinstance(picture, str):
            entitle(self.plot, picture)
            return
        if picture is not self._drawn:  # it is most of what is sent
            ny, nx = picture.shape
            self._image.show(picture.levels, (0, nx), (0, ny), (picture.low, picture.high))
            for axis, pixels in zip(self.plot.axis, (nx, ny), strict=True):
                axis.bounds = (0, pixels)
            self._mark_beam(picture)
            self._drawn = picture
        mean = f", mean of {picture.block} × {picture.block} pixels" if picture.block > 1 else ""
        entitle(self.plot, f"frame {frame}, counts{mean}; grey: not used")

    def _mark_beam(self, picture: Picture) -> None:
        """A cross at the beam where it meets the frame."""
        (ny, nx), centre = picture.shape, picture.centre
        marks = [centre] if centre is not None and 0 <= centre[0] <= nx and 0 <= centre[1] <= ny else []
        self._centre.data = {"x": [x for x, _ in marks], "y": [y for _, y in marks]}


class MapPlot:
    """I(q, t) over the same times as the series."""

    def __init__(self) -> None:
        self.plot = panel("map", ("time (s)", Q_LABEL), ("linear", "linear"))
        self.plot.background_fill_color = LIGHT_GREY
        self._image = LevelImage(self.plot)
        self._line = frame_line(self.plot)

    def show(self, drawn: HeatMap | None, unit: str, *, zoomed: bool) -> None:
        """Draw the map; None: there is none for these times. zoomed: the reader's zoom in time stays."""
        if drawn is None:
            drawn = HeatMap(np.zeros((1, 1), dtype=np.uint8), *NOWHERE, NOWHERE, NOWHERE)
        self._image.show(drawn.levels, drawn.time_s, drawn.q_nm, (drawn.low, drawn.high))
        lead(self.plot.x_range, drawn.time_s, zoomed=zoomed)
        lead(self.plot.y_range, drawn.q_nm)
        entitle(self.plot, f"I ({unit_text(unit)}); grey: excluded")

    def mark(self, time_s: float | None) -> None:
        """A line at the time of the frame that is shown; None takes it away."""
        self._line.visible = time_s is not None
        if time_s is not None:
            self._line.location = time_s


def unit_text(unit: str) -> str:
    """The unit of intensities as the axes name it."""
    return "mm⁻¹" if unit == "1/mm" else unit
