"""The live page against time: r, σ_r, c_NC and yield of all frames, the kinetic model beside them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from bokeh.models import ColumnDataSource
from bokeh.plotting import figure
from numpy.typing import NDArray

from saxs_pipeline.apps.page_style import NOWHERE, entitle, frame_line, free_range, hover, lead, panel
from saxs_pipeline.apps.snapshot import ModelCurves
from saxs_pipeline.outputs.flags import at_given_size, has_word, independent, sound
from saxs_pipeline.outputs.numbers import percent, plus_minus
from saxs_pipeline.outputs.plot_style import BLACK, BLUE, GREEN, ORANGE, VERMILLION, TimeAxis, time_axis
from saxs_pipeline.outputs.ranges import value_range
from saxs_pipeline.outputs.tables import last_reported
from saxs_pipeline.types import Bools, Estimate, Floats, RunResult

PANELS = {
    "radius": ("r", "mean radius r (nm)", "nm", BLUE),
    "spread": ("σ_r", "spread σ_r (nm)", "nm", VERMILLION),
    "concentration": ("c_NC", "c_NC (µmol L⁻¹)", "µmol/L", GREEN),
    "yield": ("yield", "yield (%)", "%", ORANGE),
}
"""Symbol, label, unit and colour of each panel, as in the printed figures."""
FROM_ZERO = ("concentration", "yield")
KINDS = ("", "_low", "_high", "_hollow")
"""Columns of one panel: full points, ends of the statistical bars, hollow points (weak frames or upper limits)."""
SAMPLE = 300
COLUMNS = ("frame", "time", *(name + kind for name in PANELS for kind in KINDS))


class SeriesTable(NamedTuple):
    """All frames as the panels draw them: table (18, n) in the order of COLUMNS, NaN where nothing is drawn.

    axis: which times are shown by default; titles: the last reported value per panel; highest: intensity, of a
    selection of the frames.
    """

    table: NDArray[np.float32]
    axis: TimeAxis
    titles: dict[str, str]
    highest: float


class SharedTable:
    """The table of the newest result, made once for all browsers."""

    def __init__(self) -> None:
        self._made: tuple[RunResult, SeriesTable] | None = None

    def of(self, result: RunResult) -> SeriesTable:
        """The table of this result."""
        if self._made is None or self._made[0] is not result:
            self._made = result, tabulate(result)
        return self._made[1]


def tabulate(result: RunResult) -> SeriesTable:
    """What the panels draw of a result: sound frames, weak ones hollow, upper limits of σ_r as triangles."""
    curves, quantities = result.curves, result.quantities
    trusted = sound(result, quantities)
    table = np.full((len(COLUMNS), curves.index.size), np.nan, dtype=np.float32)
    table[0], table[1] = curves.index, curves.time_s
    axis, highest = time_axis(result), _highest(result, trusted)
    if quantities is None:
        return SeriesTable(table, axis, {}, highest)
    crystals, weak = independent(result, quantities), at_given_size(quantities.flags)
    limit = has_word(quantities.flags, "sigma_upper_limit")
    drawn = {
        "radius": (quantities.radius_nm, trusted, np.zeros_like(weak)),
        "spread": (quantities.sigma_nm, trusted, limit),
        "concentration": (quantities.c_nc_umol_L, crystals, weak),
        "yield": (percent(quantities.yield_), crystals, weak),
    }
    for place, (name, (estimate, rows, hollow)) in enumerate(drawn.items()):
        bars = rows & ~hollow if name == "spread" else rows
        table[2 + 4 * place : 6 + 4 * place] = _columns(estimate, rows, hollow, bars)
    return SeriesTable(table, axis, _titles(result, {name: drawn[name][0] for name in drawn}), highest)


def _highest(result: RunResult, trusted: Bools) -> float:
    """The largest intensity of at most some hundred sound frames; 0 without one."""
    rows = np.flatnonzero(trusted)
    some = result.curves.intensity[rows[:: max(1, rows.size // SAMPLE)]]
    return float(np.max(some[np.isfinite(some)], initial=0.0))


def _columns(estimate: Estimate, rows: Bools, hollow: Bools, bars: Bools) -> Floats:
    """Full points, lower and upper ends of bars, hollow points, (4, n)."""
    value, error = estimate.value, estimate.statistical
    return np.where(
        [rows & ~hollow, bars, bars, rows & hollow], [value, value - error, value + error, value], np.nan
    )  # fmt: skip


def _titles(result: RunResult, estimates: dict[str, Estimate]) -> dict[str, str]:
    row = last_reported(result, result.quantities)
    if row is None:
        return {}
    return {
        name: f"{PANELS[name][0]} = {value_text(estimate, row, PANELS[name][2])}"
        for name, estimate in estimates.items()
        if np.isfinite(estimate.value[row])
    }


def value_text(estimate: Estimate, row: int, unit: str) -> str:
    """ "value ± statistical ± systematic unit" of one frame."""
    value, *errors = (float(part[row]) for part in estimate)
    return plus_minus(value, *(error for error in errors if error > 0), unit=unit)


class SeriesPlots:
    """Four panels over one time axis, linear or logarithmic; only frames that changed are sent to the browser."""

    def __init__(self) -> None:
        self._table = np.empty((len(COLUMNS), 0), dtype=np.float32)
        self._source = ColumnDataSource({name: [] for name in COLUMNS})
        self._model = ColumnDataSource({name: [] for name in ("time", *PANELS)})
        self._modelled: ModelCurves | None = None
        self._times, self._logarithmic = free_range(), False
        self.figures = {name: panel(name, ("", PANELS[name][1]), ("linear", "linear"), x_range=self._times)
                        for name in PANELS}  # fmt: skip
        self._lines = [frame_line(plot) for plot in self.figures.values()]
        for name, plot in self.figures.items():
            self._draw(name, plot)
        self.figures["yield"].xaxis[0].axis_label = "time (s)"

    def _draw(self, name: str, plot: figure) -> None:
        symbol, _, unit, color = PANELS[name]
        source = self._source
        plot.segment("time", f"{name}_low", "time", f"{name}_high", source=source, color=color, alpha=0.45)
        hollow = plot.scatter(
            "time", f"{name}_hollow", source=source, size=5, line_color=color, fill_color="#FFFFFF",
            marker="inverted_triangle" if name == "spread" else "circle",
        )  # fmt: skip
        full = plot.scatter("time", name, source=source, size=4, color=color, line_color=None)
        plot.line("time", name, source=self._model, color=BLACK, line_width=1.5)
        shown = [("frame", "@frame{0}"), ("time", "@time{0.00} s")]
        bar = f"@{name}_low{{0.0000}} to @{name}_high{{0.0000}} {unit}"
        hover(plot, [full], [*shown, (symbol, f"@{name}{{0.0000}} {unit}"), ("± 1 σ", bar)])
        hover(plot, [hollow], [*shown, (symbol, f"@{name}_hollow{{0.0000}} {unit}")])

    def show(self, made: SeriesTable, axis: TimeAxis) -> None:
        """Draw this table with the times that `axis` shows."""
        send_changes(self._source, self._table, made.table)
        self._table = made.table
        lead(self._times, _shown(axis), zoomed=axis.logarithmic == self._logarithmic)
        self._logarithmic = axis.logarithmic
        for place, (name, plot) in enumerate(self.figures.items()):
            columns = made.table[2 + 4 * place : 6 + 4 * place, axis.visible]
            lead(plot.y_range, limits(columns, from_zero=name in FROM_ZERO))
            entitle(plot, made.titles.get(name, ""))

    def show_model(self, model: ModelCurves | None) -> None:
        """Draw the kinetic model, or none."""
        if model is self._modelled or model is None:
            return
        self._modelled = model
        curves = (model.radius_nm, model.sigma_nm, model.c_nc_umol_L, 100 * model.yield_)
        self._model.data = {"time": model.time_s, **dict(zip(PANELS, curves, strict=True))}

    def mark(self, time_s: float | None) -> None:
        """A line at the time of the frame that is shown; None takes it away."""
        for line in self._lines:
            line.visible = time_s is not None
            if time_s is not None:
                line.location = time_s


def _shown(axis: TimeAxis) -> tuple[float, float]:
    """Ends of the time axis; around a single time, anything without one."""
    if not axis.visible.any():
        return NOWHERE
    first, last = axis.beyond(-0.03), axis.beyond(1.03)
    if first < last:
        return first, last
    return (first / 2, first * 2) if axis.logarithmic else (first - 1, first + 1)


def send_changes(source: ColumnDataSource, old: NDArray[np.float32], new: NDArray[np.float32]) -> None:
    """Bring the source from table `old` (18, n) to `new`, sending only the rows that differ."""
    known, number = old.shape[1], new.shape[1]
    if number < known or known == 0:
        source.data = {name: new[k].copy() for k, name in enumerate(COLUMNS)}  # patches are made in place
        return
    changed = np.flatnonzero((old.view(np.int32) != new[:, :known].copy().view(np.int32)).any(axis=0))
    if changed.size:
        part = slice(int(changed[0]), int(changed[-1]) + 1)
        source.patch({name: [(part, new[k, part])] for k, name in enumerate(COLUMNS)})
    if number > known:
        source.stream({name: new[k, known:] for k, name in enumerate(COLUMNS)})


def limits(columns: NDArray[np.float32], *, from_zero: bool) -> tuple[float, float]:
    """Range of a panel: what the well-known points of its columns (4, n) need, not the largest error bar."""
    full, low, high, hollow = columns
    value, error = np.where(np.isfinite(full), full, hollow), 0.5 * (high - low)
    limit = hollow[np.isfinite(hollow) & ~np.isfinite(error)]
    known = np.isfinite(value) & np.isfinite(error)
    return value_range(value[known], error[known], limit, from_zero=from_zero) or (0.0, 1.0)
