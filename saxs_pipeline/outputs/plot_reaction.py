"""Figure of the reaction: build-up of c_NC and yield, their 98 % times, the phases, the rate at which σ_r changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from saxs_pipeline.outputs.flags import at_given_size, independent
from saxs_pipeline.outputs.numbers import percent, plus_minus
from saxs_pipeline.outputs.plot_series import LABELS, draw_points, set_limits
from saxs_pipeline.outputs.plot_style import (
    BLACK,
    DOUBLE_COLUMN_MM,
    GREEN,
    GREY,
    LIGHT_GREY,
    ORANGE,
    VERMILLION,
    Drawing,
    TimeAxis,
    error_bars,
    left_out,
    margins,
    new_figure,
    panel_letter,
    time_axis,
)
from saxs_pipeline.outputs.tables import analysis_rows, t98_rows
from saxs_pipeline.reaction import BuildUp, Phase, SeriesAnalysis
from saxs_pipeline.science import buildup
from saxs_pipeline.types import Bools, Estimate, Floats, Quantities, RunResult

_PHASE_COLORS = {"induction": LIGHT_GREY, "nucleation": "#CFE6F5", "growth": "#D3EEDF", "ripening": "#FBE6C4"}
_GRID_POINTS = 400


class _Panel(NamedTuple):
    """A quantity with its build-up law, if it has one, and the factor from the law's unit to that of the axis."""

    name: str
    measured: Estimate
    law: BuildUp | None
    factor: float
    color: str


def draw_reaction(result: RunResult) -> Drawing | None:
    """c_NC(t) and yield(t) with their build-up laws, t98 and phases, above dσ_r/dt; None without an analysis."""
    analysis, quantities = result.analysis, result.quantities
    if analysis is None or quantities is None:
        return None
    axis = time_axis(result)
    shown = independent(result, quantities) & axis.visible
    weak = at_given_size(quantities.flags)
    panels = [one for one in _panels(quantities, analysis) if (shown & np.isfinite(one.measured.value)).any()]
    if not panels or np.unique(axis.seconds[shown]).size < 2:
        return None
    focusing = _focusing_rows(analysis, axis)
    number = len(panels) + bool(focusing.any())
    figure = new_figure(DOUBLE_COLUMN_MM, 18 + 40 * number)
    axes = figure.subplots(number, 1, sharex=True, squeeze=False)[:, 0].tolist()
    for ax, panel in zip(axes, panels, strict=False):
        draw_points(ax, axis, panel.measured, shown & ~weak, panel.color)
        draw_points(ax, axis, panel.measured, shown & weak, panel.color, hollow=True)
        set_limits(ax, panel.measured, shown, from_zero=True)
        _draw_law(ax, axis, panel)
        ax.set_ylabel(LABELS[panel.name])
    if focusing.any():
        _draw_focusing(axes[-1], analysis, focusing)
    axis.apply(axes[-1])
    _draw_t98(axes, panels)
    _draw_phases(axes, analysis.phases, axis)
    for ax, letter in zip(axes, "abc", strict=False):
        panel_letter(ax, letter)
    figure.align_ylabels()
    margins(figure, left=15, top=8)
    caption = _reaction_caption(result, axis, analysis, focusing=bool(focusing.any()))
    phases = ", ".join(phase.name for phase in analysis.phases)
    alt = f"Concentration, yield and focusing rate against time; phases: {phases or 'none found'}."
    return Drawing("reaction", figure, caption, alt)


def _panels(quantities: Quantities, analysis: SeriesAnalysis) -> list[_Panel]:
    return [
        _Panel("c", quantities.c_nc_umol_L, analysis.concentration, 1.0, GREEN),
        _Panel("yield", percent(quantities.yield_), analysis.yield_, 100.0, ORANGE),
    ]


def build_up_curve(law: BuildUp, time_s: Floats) -> Floats:
    """The fitted law at the times (k,) in s, in the unit of its final value; ValueError for a law not known here."""
    of = dict(zip(law.names, law.values.tolist(), strict=True))
    if law.law.startswith(buildup.EXPONENTIAL):
        late = time_s - _delay(law, of, buildup.exponential_t98(of["k_1_s"]))
        return np.asarray(law.values[0] * buildup.exponential(late, of["k_1_s"]))
    if law.law.startswith(buildup.SECOND_ORDER):
        shape = of["initial_rate_1_s"], of["inverse_excess"]
        late = time_s - _delay(law, of, buildup.second_order_t98(*shape))
        return np.asarray(law.values[0] * buildup.second_order(late, *shape))
    raise ValueError(f"no such build-up law: {law.law}")


def _delay(law: BuildUp, of: Mapping[str, float], t98_s: float) -> float:
    """When the build-up begins, s; of a delay that is no parameter of the law from t98, which it moves as a whole."""
    if buildup.WITH_DELAY not in law.law:
        return 0.0
    return of.get("delay_s", law.t98_s.value - t98_s)


def _draw_law(ax: Axes, axis: TimeAxis, panel: _Panel) -> None:
    if panel.law is None:
        return
    seconds = np.array([axis.beyond(fraction) for fraction in np.linspace(0, 1, _GRID_POINTS)])
    ax.plot(seconds, panel.factor * build_up_curve(panel.law, seconds), "-", color=BLACK, lw=0.9, zorder=4)


def _draw_t98(axes: Sequence[Axes], panels: Sequence[_Panel]) -> None:
    """Dashed lines through all panels; the uncertainty as a band, and the number, in the panel of the law itself."""
    low, high = axes[0].get_xlim()
    for own, panel in zip(axes, panels, strict=False):
        if panel.law is None or not low < panel.law.t98_s.value < high:
            continue
        t98, error = panel.law.t98_s
        for ax in axes:
            ax.axvline(t98, color=panel.color, lw=0.8, ls="--", zorder=1.5)
        own.axvspan(max(t98 - error, low), min(t98 + error, high), color=panel.color, alpha=0.35, lw=0, zorder=1)
        left = own.transAxes.inverted().transform(own.transData.transform((t98, 0)))[0] > 0.8
        own.annotate(
            f"98 % at {plus_minus(t98, error, unit='s')}", (t98, 0.09), (-4 if left else 4, 0),
            xycoords=("data", "axes fraction"), textcoords="offset points", ha="right" if left else "left", fontsize=7,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}, zorder=4,
        )  # fmt: skip


def _draw_phases(axes: Sequence[Axes], phases: Sequence[Phase], axis: TimeAxis) -> None:
    """Tinted spans through all panels, named above the first; neighbours on two lines where there is little room."""
    low, high = axes[0].get_xlim()
    spans = [(p.name, max(p.start_s, low), min(p.end_s, high)) for p in phases if p.end_s > low and p.start_s < high]
    place = np.log if axis.logarithmic else np.asarray
    for number, (name, start, end) in enumerate(spans):
        for ax in axes:
            ax.axvspan(start, end, color=_PHASE_COLORS.get(name, LIGHT_GREY), alpha=0.6, lw=0, zorder=0)
        a, b, left, right = (float(place(x)) for x in (start, end, low, high))
        narrow = (b - a) / (right - left) * DOUBLE_COLUMN_MM < 1.6 * len(name)
        axes[0].annotate(
            name, (((a + b) / 2 - left) / (right - left), 1), (0, 9 if narrow and number % 2 else 2),
            xycoords="axes fraction", textcoords="offset points", ha="center", va="bottom", color=GREY, fontsize=7,
        )  # fmt: skip


def _focusing_rows(analysis: SeriesAnalysis, axis: TimeAxis) -> Bools:
    """Times of the focusing rate that can be drawn, (k,)."""
    seconds = analysis.focusing_time_s
    inside: Bools = np.isfinite(analysis.focusing_nm_s.value) & np.isfinite(analysis.focusing_nm_s.statistical)
    if not axis.visible.any():
        return np.zeros_like(inside)
    return inside & (seconds >= axis.beyond(-0.05)) & (seconds <= axis.beyond(1.08))


def _draw_focusing(ax: Axes, analysis: SeriesAnalysis, rows: Bools) -> None:
    """dσ_r/dt in pm/s with bars; linear up to the better known points' error, logarithmic beyond if that is far."""
    rate = analysis.focusing_nm_s
    seconds, value, error = analysis.focusing_time_s[rows], 1e3 * rate.value[rows], 1e3 * rate.statistical[rows]
    smallest, largest = float(np.percentile(error, 25)), float(np.max(np.abs(value)))
    if 0 < smallest < 0.05 * largest:
        ax.set_yscale("symlog", linthresh=10 ** np.round(np.log10(smallest)))
        ax.yaxis.set_major_formatter(lambda rate, _: f"{rate:g}".replace("-", "−"))
        ax.yaxis.set_minor_locator(NullLocator())
    error_bars(ax, seconds, value - error, value + error, VERMILLION)
    ax.plot(seconds, value, "o", ms=2, color=VERMILLION, mew=0, zorder=3)
    ax.axhline(0, color=GREY, lw=0.7, zorder=1)
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, -0.2 * high), max(high, -0.2 * low))  # room on both sides of zero
    for y, word, side in ((0.95, "broadening", "top"), (0.05, "focusing", "bottom")):
        ax.text(0.985, y, word, transform=ax.transAxes, ha="right", va=side, color=GREY, fontsize=6.5)
    ax.set_ylabel("d$σ_r$/d$t$ (pm s⁻¹)")


def _reaction_caption(result: RunResult, axis: TimeAxis, analysis: SeriesAnalysis, *, focusing: bool) -> str:
    rows = [*t98_rows(analysis, result.curves), *analysis_rows(analysis)]
    found = "; ".join(f"{name}: {text}" for name, text in rows)
    return (
        "Build-up of the reaction against the time since the time zero. Bars: statistical standard uncertainty. Black: "
        "fitted laws, exponential for c_NC (S3.3) and second order for the yield (S3.2). Dashed: 98 % of the final "
        f"value, with its standard uncertainty as a band. Tinted: phases. Hollow: weak frames, which the laws are not "
        f"fitted to. {_FOCUSING if focusing else ''}"
        f"{found + '. ' if found else ''}{left_out(result, axis)}"
    ).strip()


_FOCUSING = "Last panel: rate of σ_r; below zero the size distribution focuses. "
