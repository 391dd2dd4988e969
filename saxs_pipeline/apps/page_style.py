"""How the plots of the live page look: the figures' colours, plain axes, ranges that give way to the reader's zoom."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from bokeh.models import (
    ColumnDataSource,
    FixedTicker,
    HoverTool,
    LinearColorMapper,
    LinearScale,
    LogColorMapper,
    LogScale,
    LogTicker,
    PrintfTickFormatter,
    Range,
    Range1d,
)
from bokeh.models.annotations import ColorBar, Span, Title
from bokeh.models.axes import Axis
from bokeh.models.formatters import BasicTickFormatter
from bokeh.models.glyphs import Image
from bokeh.models.tickers import BasicTicker
from bokeh.palettes import viridis
from bokeh.plotting import figure
from numpy.typing import NDArray

from saxs_pipeline.outputs.plot_style import BLACK, GREY, LIGHT_GREY

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
LEVELS = 256
PALETTE = (LIGHT_GREY, *viridis(LEVELS - 1))
"""Colour of each level of an image; level 0 was not measured."""
AxisType = Literal["linear", "log"]
Ends = tuple[float, float]
NOWHERE: Ends = (0.1, 10.0)
"""What the axis of an empty plot shows, linear or logarithmic."""


def panel(name: str, labels: tuple[str, str], axes: tuple[AxisType, AxisType], **ranges: Any) -> figure:
    """An empty plot that fills its place; nothing moves under a finger until a tool is chosen.

    labels and axes: of x and y; ranges: x_range and y_range where they are shared with another plot.
    """
    ranges = {"x_range": free_range(), "y_range": free_range(), **ranges}
    plot = figure(
        name=name, x_axis_type=axes[0], y_axis_type=axes[1], x_axis_label=labels[0], y_axis_label=labels[1],
        tools="box_zoom,pan,reset,save", active_drag=None, toolbar_location="right", toolbar_inner=True,
        sizing_mode="stretch_both", min_border=6, background_fill_color="#FFFFFF", border_fill_color="#FFFFFF",
        outline_line_color=BLACK, outline_line_width=0.8, title=_title(), lod_threshold=None, **ranges,
    )  # fmt: skip
    plot.toolbar.autohide = True
    plot.toolbar.logo = None
    plot.grid.grid_line_color = "#EEEEEE"
    for axis in plot.axis:
        _style_axis(axis)
    return plot


def free_range() -> Range1d:
    """A range of an empty plot, for `lead`."""
    return Range1d(start=NOWHERE[0], end=NOWHERE[1], reset_start=NOWHERE[0], reset_end=NOWHERE[1])


def lead(axis_range: Range, ends: Ends, *, zoomed: bool = True) -> None:
    """Let the range show these ends, unless the reader has zoomed and did not reset; zoomed=False: even then."""
    assert isinstance(axis_range, Range1d)
    follows = (axis_range.start, axis_range.end) == (axis_range.reset_start, axis_range.reset_end)
    axis_range.update(reset_start=ends[0], reset_end=ends[1])
    if follows or not zoomed:
        axis_range.update(start=ends[0], end=ends[1])


def _style_axis(axis: Axis) -> None:
    """Ticks inside, upright labels."""
    axis.axis_label_text_font = axis.major_label_text_font = FONT
    axis.axis_label_text_font_style = "normal"
    axis.axis_label_text_color = axis.major_label_text_color = BLACK
    axis.axis_label_standoff = 4
    axis.major_tick_in, axis.major_tick_out, axis.minor_tick_in, axis.minor_tick_out = 5, 0, 3, 0
    axis.axis_line_width = 0.8


def _title() -> Title:
    """A small grey line above the plot, on the right, as in the printed figures."""
    return Title(
        text="",
        align="right",
        text_font=FONT,
        text_font_style="normal",
        text_color=GREY,
        standoff=4,
        text_line_height=1.3,
    )


def entitle(plot: figure, text: str) -> None:
    """Write the line above the plot."""
    assert isinstance(plot.title, Title)
    plot.title.text = text


def scale_time(plot: figure, *, logarithmic: bool) -> None:
    """Make the x axis logarithmic, with plain numbers, or linear again."""
    axis = plot.xaxis[0]
    if logarithmic:
        plot.x_scale, axis.ticker, axis.formatter = LogScale(), LogTicker(), PrintfTickFormatter(format="%g")
    else:
        plot.x_scale, axis.ticker, axis.formatter = LinearScale(), BasicTicker(), BasicTickFormatter()


def one_two_five(axis: Axis) -> None:
    """0.1, 0.2, 0.5, 1 … on a logarithmic axis of few decades."""
    decades = [10.0**power for power in range(-4, 4)]
    axis.ticker = FixedTicker(
        ticks=[digit * decade for decade in decades for digit in (1, 2, 5)],
        minor_ticks=[digit * decade for decade in decades for digit in (3, 4, 6, 7, 8, 9)],
    )
    axis.formatter = PrintfTickFormatter(format="%g")


def hover(plot: figure, renderers: list[Any], tooltips: list[tuple[str, str]]) -> None:
    """Show these values of the nearest point under the pointer."""
    plot.add_tools(HoverTool(renderers=renderers, tooltips=tooltips, mode="mouse", visible=False))


def frame_line(plot: figure) -> Span:
    """A vertical line at the frame that is shown, drawn while the page does not follow the newest."""
    line = Span(dimension="height", line_color=BLACK, line_width=1, line_dash="dotted", visible=False)
    plot.add_layout(line)
    return line


class LevelImage:
    """An image of levels 0 … 255 with a logarithmic colour bar to the right; grey before the first."""

    def __init__(self, plot: figure) -> None:
        self._image = ColumnDataSource()
        self._colours = _colour_bar(plot)
        self.show(np.zeros((1, 1), dtype=np.uint8), NOWHERE, NOWHERE, NOWHERE)
        mapper = LinearColorMapper(palette=PALETTE, low=0, high=LEVELS)
        plot.add_glyph(self._image, Image(image="image", color_mapper=mapper))
        plot.grid.visible = False

    def show(self, levels: NDArray[np.uint8], x: Ends, y: Ends, values: Ends) -> None:
        """Draw levels (rows from y[0] to y[1], columns from x[0] to x[1]); values: at level 1 and 255."""
        self._image.data = {"image": [levels], "x": [x[0]], "y": [y[0]], "dw": [x[1] - x[0]], "dh": [y[1] - y[0]]}
        self._colours.update(low=values[0], high=values[1])


def _colour_bar(plot: figure) -> LogColorMapper:
    """A logarithmic colour bar to the right; the mapper's low and high are what it shows."""
    mapper = LogColorMapper(palette=PALETTE[1:], low=1, high=10)
    bar = ColorBar(
        color_mapper=mapper, ticker=LogTicker(), width=10, padding=4, margin=0, border_line_color=None,
        background_fill_color=None, bar_line_color=BLACK, bar_line_width=0.8, major_tick_line_color=BLACK,
        major_label_text_font=FONT,
    )  # fmt: skip
    plot.add_layout(bar, "right")
    return mapper
