"""One browser's live page: pulls the newest snapshot, shows what changed, follows the newest frame or holds one."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Final

import numpy as np
from bokeh.document import Document
from bokeh.models.widgets import Button, Div, RadioButtonGroup, Slider

from saxs_pipeline.apps.page_curve import CurvePlots, MapPlot, PicturePlot
from saxs_pipeline.apps.page_image import Pictures, found_again, heat_map
from saxs_pipeline.apps.page_series import SeriesPlots, SharedTable
from saxs_pipeline.apps.page_style import FONT, scale_time
from saxs_pipeline.apps.page_text import frame_text, progress_text, state_text, warnings_text
from saxs_pipeline.apps.snapshot import Latest, Snapshot
from saxs_pipeline.outputs.plot_style import TimeAxis
from saxs_pipeline.series import FrameSeries
from saxs_pipeline.stages.integrate import IntegrationSpec
from saxs_pipeline.types import RunResult

PERIOD_MS = 250
MAP_PERIOD_S, PICTURE_PERIOD_S = 2.0, 0.7
"""The map, and the image while it follows, are drawn anew at most so often: they are most of what is sent."""
FRAMES_PER_S = 5000
"""Frames in the panels against time that a browser is asked to paint, per second; a phone is no workstation."""
REST = 9
"""So many times the time of an update pass before the next: however long the series, the processing comes first."""
QUIET_S = 2.0
"""The slider's end waits so long after the reader has moved it."""
SCALES: Final = ("linear time", "log time")


class Page:
    """The models of one page and what they show."""

    def __init__(
        self, document: Document, latest: Latest, pictures: Pictures, tables: SharedTable, download: str
    ) -> None:
        self._document, self._latest, self._download = document, latest, download
        self._pictures, self._tables = pictures, tables
        self._version: int | None = None
        self._snapshot = latest.pull()
        self._result: RunResult | None = None
        self._series: FrameSeries | None = None
        self._spec: IntegrationSpec | None = None
        self._row, self._following = 0, True
        self._awaited: tuple[FrameSeries, int] | None = None
        self._series_due = self._map_due = False
        self._series_drawn = self._map_drawn = self._picture_drawn = self._moved = self._rests_until = -np.inf
        self._logarithmic: bool | None = None
        self._scaled = False
        self._setting = False
        self.series, self.curves, self.picture, self.map = SeriesPlots(), CurvePlots(), PicturePlot(), MapPlot()
        self._plots: tuple[Any, ...] = (
            *self.series.figures.values(),
            self.curves.curve,
            self.curves.residuals,
            self.picture.plot,
            self.map.plot,
        )
        for plot in self._plots:  # axes without anything say nothing
            plot.styles = {"visibility": "hidden"}  # has its place, unlike what is not `visible`
        self._make_controls()

    def _make_controls(self) -> None:
        self.state, self.progress = _words("state"), _words("progress")
        self.frame, self.warnings, self.link = _words("frame"), _words("warnings"), _words("download")
        self.pause = Button(name="pause", label="Pause")
        self.back, self.forward = Button(name="back", label="‹"), Button(name="forward", label="›")
        self.slider = Slider(name="slider", start=0, end=1, value=0, step=1, show_value=False, tooltips=False)
        self.scale = RadioButtonGroup(name="scale", labels=list(SCALES), active=0)
        self._controls = (self.pause, self.back, self.forward, self.slider, self.scale)
        for control in self._controls:
            control.update(stylesheets=[_CONTROLS], sizing_mode="stretch_width", margin=0, disabled=True)
        self.pause.on_click(self._toggle)
        self.back.on_click(lambda: self._hold(self._row - 1))
        self.forward.on_click(lambda: self._hold(self._row + 1))
        self.slider.on_change("value", self._slide)
        self.scale.on_change("active", self._choose_scale)

    @property
    def roots(self) -> list[Any]:
        """All that the page's template places, by name."""
        words = [self.state, self.progress, self.frame, self.warnings, self.link]
        return [*words, *self._controls, *self._plots]

    # --- from the writer ---------------------------------------------------------------------------------------------

    def pull(self) -> None:
        """Show the newest snapshot if there is a new one, and what was put off before; in a share of the time."""
        start = time.monotonic()
        if start < self._rests_until:
            return
        snapshot = self._latest.pull()
        if snapshot.version != self._version:
            self._version, self._snapshot = snapshot.version, snapshot
            self._show(snapshot)
        if self._series_due and start - self._series_drawn > self._frames / FRAMES_PER_S:
            self._show_series()
        if self._awaited is not None:
            self._show_picture()
        if self._map_due and start - self._map_drawn > MAP_PERIOD_S:
            self._show_map()
        now = time.monotonic()
        self._rests_until = now + REST * (now - start)

    def _show(self, snapshot: Snapshot) -> None:
        self.state.text = state_text(snapshot)
        self.warnings.text = warnings_text(snapshot.warnings)
        self.series.show_model(snapshot.model)
        if snapshot.result is not None and snapshot.result is not self._result:
            if self._result is None:
                self._enable()
            self._row = snapshot.result.curves.index.size - 1 if self._following else self._held_row(snapshot)
            self._result, self._series_due = snapshot.result, True
            self._series, self._spec = snapshot.series, snapshot.spec
            self._show_frame()
            self._set_slider()
        self.progress.text = progress_text(snapshot, self._behind())

    def _held_row(self, snapshot: Snapshot) -> int:
        """Row of the frame on hold in a new result: others may have come before it."""
        assert self._result is not None
        assert snapshot.result is not None
        index = snapshot.result.curves.index
        frame = found_again(int(self._result.curves.index[self._row]), self._series, snapshot.series)
        return min(int(np.searchsorted(index, frame)), index.size - 1)

    def _enable(self) -> None:
        self.link.text = f'<a href="{self._download}" download="series.csv">Download series.csv</a>'
        for control in self._controls:
            control.disabled = False
        for plot in self._plots:
            plot.styles = {"visibility": "visible"}

    @property
    def _frames(self) -> int:
        return 0 if self._result is None else self._result.curves.index.size

    def _behind(self) -> int | None:
        if self._following or self._result is None:
            return None
        return self._frames - 1 - self._row

    # --- what is shown -----------------------------------------------------------------------------------------------

    def _axis(self, result: RunResult) -> TimeAxis:
        """The times that are shown: as in the printed figures until the reader chooses linear or logarithmic."""
        axis = self._tables.of(result).axis
        if self._logarithmic is None or self._logarithmic == axis.logarithmic:
            return axis
        timed = np.isfinite(axis.seconds)
        return replace(
            axis, logarithmic=self._logarithmic, visible=timed & (axis.seconds > 0) if self._logarithmic else timed
        )

    def _show_series(self) -> None:
        assert self._result is not None
        self._series_due, self._series_drawn = False, time.monotonic()
        axis = self._axis(self._result)
        if axis.logarithmic != bool(self.scale.active):
            self._set(self.scale, "active", int(axis.logarithmic))
        switched, self._scaled = axis.logarithmic != self._scaled, axis.logarithmic
        if switched and not axis.logarithmic:
            self._scale_time()
        self.series.show(self._tables.of(self._result), axis)
        self._map_due = True
        if switched:
            self._show_map(zoomed=False)
        if switched and axis.logarithmic:  # only now: a logarithmic axis must not see times before the injection
            self._scale_time()

    def _scale_time(self) -> None:
        with self._document.models.freeze():  # or Bokeh looks through all models at each new one
            for plot in (*self.series.figures.values(), self.map.plot):
                scale_time(plot, logarithmic=self._scaled)

    def _show_map(self, *, zoomed: bool = True) -> None:
        assert self._result is not None
        self._map_due, self._map_drawn = False, time.monotonic()
        axis = self._axis(self._result)
        self.map.show(heat_map(self._result, axis), self._result.curves.unit, zoomed=zoomed)

    def _show_frame(self) -> None:
        """Curve, residuals, image and numbers of the frame in the chosen row."""
        assert self._result is not None
        result, row = self._result, self._row
        self.curves.show(result, row, self._tables.of(result).highest)
        self.frame.text = frame_text(result, row)
        marked = None if self._following else float(result.curves.time_s[row])
        for plots in (self.series, self.map):
            plots.mark(marked)
        self._set(self.slider, "value", row)
        self._show_picture()

    def _show_picture(self) -> None:
        """Ask for the image of the frame on show; one that was asked for is shown even if the newest has moved on."""
        series, result, now = self._series, self._result, time.monotonic()
        if series is None or result is None:
            self._awaited = None
            return
        wanted = series, int(result.curves.index[self._row])
        self._awaited = wanted if self._awaited is None else self._awaited
        if self._following and now - self._picture_drawn < PICTURE_PERIOD_S:
            return
        found = self._pictures.get(*self._awaited, self._spec)
        if found is not None:
            self.picture.show(self._awaited[1], found)
            self._picture_drawn = now
            self._awaited = None if self._awaited == wanted else wanted

    # --- from the reader ---------------------------------------------------------------------------------------------

    def _set(self, control: Any, name: str, value: int) -> None:
        """Move a control without taking it for the reader's wish."""
        self._setting = True
        setattr(control, name, value)
        self._setting = False

    def _set_slider(self) -> None:
        """Let the slider reach the newest frame; not under the reader's finger."""
        assert self._result is not None
        if self._following or time.monotonic() - self._moved > QUIET_S:
            self._set(self.slider, "end", max(1, self._frames - 1))
            self._set(self.slider, "value", self._row)

    def _toggle(self) -> None:
        if self._following:
            self._hold(self._row)
        else:
            self._follow()

    def _follow(self) -> None:
        if self._result is not None:
            self._following, self._row = True, self._frames - 1
            self.pause.update(label="Pause", button_type="default")
            self._set_slider()
            self._show_frame()
            self.progress.text = progress_text(self._snapshot, None)

    def _hold(self, row: int) -> None:
        if self._result is not None:
            self._following, self._row = False, min(max(row, 0), self._frames - 1)
            self.pause.update(label="Follow newest", button_type="primary")
            self._show_frame()
            self.progress.text = progress_text(self._snapshot, self._behind())

    def _slide(self, _name: str, _old: Any, row: Any) -> None:
        if not self._setting:
            self._moved = time.monotonic()
            self._hold(int(row))

    def _choose_scale(self, _name: str, _old: Any, active: Any) -> None:
        if not self._setting and self._result is not None:
            self._logarithmic = bool(active)
            self._show_series()


def open_page(document: Document, latest: Latest, pictures: Pictures, tables: SharedTable, download: str) -> None:
    """Put a page into a browser's document and keep it up to date while the browser is there.

    pictures, tables: shared by all browsers; download: address of series.csv.
    """
    page = Page(document, latest, pictures, tables, download)
    with document.models.freeze():
        page.pull()
        for root in page.roots:
            document.add_root(root)
    document.config.update(reconnect_session=False, notify_connection_status=False)
    document.add_periodic_callback(page.pull, PERIOD_MS)


def _words(name: str) -> Div:
    return Div(name=name, disable_math=True, sizing_mode="stretch_width", margin=0, stylesheets=[_WORDS])


_WORDS = f"""
:host {{ font: 1rem/1.4 {FONT}; color: #1b1f24; }}
h1 {{ font-size: 1.25rem; line-height: 1.25; margin: 0 0 .3rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1rem; margin: 0 0 .2rem; }}
p {{ margin: 0; overflow-wrap: anywhere; }}
dl {{ display: flex; flex-wrap: wrap; gap: .3rem 1.3rem; margin: 0; }}
sub {{ line-height: 0; }}
dt {{ color: #57606a; font-size: .8rem; line-height: 1.2; }}
dd {{ margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }}
ul {{ margin: 0; padding-left: 1.1rem; }}
li {{ overflow-wrap: anywhere; }}
a {{ display: inline-block; padding: .65rem 0; color: #0072b2; }}
.badge {{ display: inline-block; padding: .1rem .7rem; margin-right: .6rem; border-radius: 1rem; color: #fff;
  background: #57606a; font-weight: 600; }}
.badge.running {{ background: #0072b2; }}
.badge.finished {{ background: #00694d; }}
.badge.stalled {{ background: #fff; color: #8a4b00; box-shadow: inset 0 0 0 2px #8a4b00; }}
.badge.failed {{ background: #a63d00; }}
.note {{ color: #57606a; font-size: .8rem; padding-top: .2rem; }}
.message.failed {{ color: #a63d00; font-weight: 600; }}
"""

_CONTROLS = f"""
:host {{ font: 1rem/1.2 {FONT}; }}
.bk-btn {{ font: inherit; min-height: max(44px, 2.7rem); padding: .3rem .7rem; }}
.bk-btn-primary, .bk-btn.bk-active {{ background: #0072b2; border-color: #0072b2; color: #fff; }}
.bk-btn[disabled], .bk-btn.bk-active[disabled] {{ background: #eee; border-color: #ccc; color: #57606a; }}
.noUi-target {{ margin: 14px 14px; }}
.noUi-horizontal {{ height: 10px; }}
.noUi-horizontal .noUi-handle {{ width: 28px; height: 28px; right: -14px; top: -10px; border-radius: 50%; }}
"""
