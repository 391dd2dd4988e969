"""Figure of the comparison: the four measured series with the kinetic model, each above its residuals."""

from __future__ import annotations

import textwrap
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from saxs_pipeline.outputs.flags import has_word, independent
from saxs_pipeline.outputs.numbers import percent
from saxs_pipeline.outputs.plot_aliquots import aliquots_caption, draw_aliquots
from saxs_pipeline.outputs.plot_series import LABELS, count_limits, draw_points, draw_upper_limits, set_limits
from saxs_pipeline.outputs.plot_style import (
    BLACK,
    BLUE,
    DOUBLE_COLUMN_MM,
    GREEN,
    GREY,
    LIGHT_GREY,
    ORANGE,
    VERMILLION,
    Drawing,
    TimeAxis,
    left_out,
    new_figure,
    panel_letter,
    plural,
    time_axis,
)
from saxs_pipeline.outputs.reaction_tables import residuals
from saxs_pipeline.outputs.tables import parameter_text, quality_text
from saxs_pipeline.reaction import Comparison
from saxs_pipeline.types import Bools, Estimate, Floats, Quantities, RunResult

_PANEL_MM, _STRIP_MM, _GAP_MM = 33.0, 11.0, 3.5
_LEFT_MM, _RIGHT_MM, _BOTTOM_MM, _LINE_MM = 15.0, 3.0, 10.0, 3.6


class _Panel(NamedTuple):
    """One quantity: measured, at the frames and on the fine grid of the model, in the unit of its axis."""

    name: str
    measured: Estimate
    model: Floats
    curve: Floats
    color: str


def draw_kinetics(result: RunResult) -> Drawing | None:
    """r, σ_r, c_NC, yield with the kinetic model, each above its residuals; None without a comparison."""
    comparison, quantities = result.comparison, result.quantities
    if comparison is None or quantities is None:
        return None
    axis = time_axis(result)
    shown = independent(result, quantities) & axis.visible
    panels = [one for one in _panels(quantities, comparison) if (shown & np.isfinite(one.measured.value)).any()]
    if not panels or np.unique(axis.seconds[shown]).size < 2:
        return None
    headline = _headline(comparison)
    figure, pairs = _stacked(len(panels), 2 + _LINE_MM * (headline.count("\n") + 1))
    limit = has_word(quantities.flags, "sigma_upper_limit")
    for (upper, lower), panel, letter in zip(pairs, panels, "abcd", strict=False):
        valued = shown & ~limit if panel.name == "sigma" else shown
        _draw_panel(upper, axis, panel, valued, result)
        draw_upper_limits(upper, axis, panel.measured, shown & ~valued)
        _draw_residuals(lower, axis, panel, valued, comparison.used)
        upper.plot(comparison.curve_time_s, panel.curve, "-", color=BLACK, lw=0.9, zorder=3.5)
        panel_letter(upper, letter)
    axis.apply(pairs[-1][1])
    figure.align_ylabels()
    figure.text(_LEFT_MM / DOUBLE_COLUMN_MM, 0.995, headline, va="top", fontsize=7, linespacing=1.4)
    caption = _caption(result, axis, shown & ~comparison.used, shown & limit)
    alt = f"Measured {', '.join(panel.name for panel in panels)} with the kinetic model; {quality_text(comparison)}."
    return Drawing("kinetics", figure, caption, alt)


def _panels(quantities: Quantities, comparison: Comparison) -> list[_Panel]:
    c = comparison
    return [
        _Panel("radius", quantities.radius_nm, c.model_radius_nm, c.curve_radius_nm, BLUE),
        _Panel("sigma", quantities.sigma_nm, c.model_sigma_nm, c.curve_sigma_nm, VERMILLION),
        _Panel("c", quantities.c_nc_umol_L, c.model_c_umol_L, c.curve_c_umol_L, GREEN),
        _Panel("yield", percent(quantities.yield_), 100 * c.model_yield, 100 * c.curve_yield, ORANGE),
    ]


def _stacked(number: int, top_mm: float) -> tuple[Figure, list[tuple[Axes, Axes]]]:
    """Pairs of axes above each other, a panel and the strip of its residuals, all with the same time axis."""
    pair = _PANEL_MM + _STRIP_MM
    height = top_mm + _BOTTOM_MM + number * pair + (number - 1) * _GAP_MM
    figure = new_figure(DOUBLE_COLUMN_MM, height)
    left, width = _LEFT_MM / DOUBLE_COLUMN_MM, 1 - (_LEFT_MM + _RIGHT_MM) / DOUBLE_COLUMN_MM
    pairs: list[tuple[Axes, Axes]] = []
    for n in range(number):
        bottom = height - top_mm - (n + 1) * pair - n * _GAP_MM
        first = pairs[0][0] if pairs else None
        upper = figure.add_axes((left, (bottom + _STRIP_MM) / height, width, _PANEL_MM / height), sharex=first)
        lower = figure.add_axes((left, bottom / height, width, _STRIP_MM / height), sharex=upper)
        upper.tick_params(labelbottom=False)
        lower.tick_params(labelbottom=n == number - 1)
        pairs.append((upper, lower))
    return figure, pairs


def _draw_panel(ax: Axes, axis: TimeAxis, panel: _Panel, shown: Bools, result: RunResult) -> None:
    """Measured points, grey and hollow where not used, and the aliquots."""
    assert result.comparison is not None
    used = shown & result.comparison.used
    draw_points(ax, axis, panel.measured, shown & ~used, GREY, hollow=True)
    draw_points(ax, axis, panel.measured, used, panel.color)
    aliquots = np.empty(0) if panel.name == "sigma" else draw_aliquots(ax, axis, result.aliquots, panel.name)
    decisive = used if (used & np.isfinite(panel.measured.value)).any() else shown
    model = panel.model[decisive & np.isfinite(panel.model)]
    reach = np.concatenate([aliquots, model])
    set_limits(ax, panel.measured, decisive, from_zero=panel.name in ("c", "yield"), also=reach)
    ax.set_ylabel(LABELS[panel.name])


def _draw_residuals(ax: Axes, axis: TimeAxis, panel: _Panel, shown: Bools, used: Bools) -> None:
    """(measured − model)/σ_stat above a band of the systematic uncertainty; beyond the strip a triangle at its edge."""
    residual = residuals(panel.measured, panel.model)
    known = shown & np.isfinite(residual)
    reach = _reach(residual[known & used] if (known & used).any() else residual[known])
    ax.axhspan(-1, 1, color=LIGHT_GREY, alpha=0.6, lw=0, zorder=0)
    order = np.flatnonzero(known)[np.argsort(axis.seconds[known], kind="stable")]
    common = panel.measured.systematic[order] / panel.measured.statistical[order]
    ax.fill_between(axis.seconds[order], -common, common, color=panel.color, alpha=0.15, lw=0, zorder=0.5)
    ax.axhline(0, color=BLACK, lw=0.7, zorder=1)
    for rows, color, face in ((known & ~used, GREY, "white"), (known & used, panel.color, panel.color)):
        inside = rows & (np.abs(residual) <= reach)
        ax.plot(axis.seconds[inside], residual[inside], "o", ms=1.5, mfc=face, mec=color, mew=0.35, zorder=3)
        for side, marker in ((1, "^"), (-1, "v")):
            beyond = rows & (side * residual > reach)
            edge = np.full(int(beyond.sum()), side * 0.93 * reach)
            ax.plot(axis.seconds[beyond], edge, marker, ms=2.2, mfc=face, mec=color, mew=0.35, zorder=3)
    ax.set_ylim(-reach, reach)
    ticks = np.asarray(MaxNLocator(2, steps=[1, 2, 4, 5, 10]).tick_values(0, 0.75 * reach))
    tick = float(ticks[ticks <= 0.75 * reach][-1])
    ax.set_yticks([-tick, 0, tick], [f"{side * tick:g}".replace("-", "−") for side in (-1, 0, 1)])
    ax.set_ylabel("Δ/$σ$")


def _reach(residual: Floats) -> float:
    """Half the height of a strip: what 98 % of the residuals need, 3.5 at least."""
    return max(3.5, 1.1 * float(np.percentile(np.abs(residual), 98))) if residual.size else 3.5


def _headline(comparison: Comparison) -> str:
    """Fitted parameters and χ²_red on as few lines as fit into the width."""
    fitted = [f"{p.symbol} = {parameter_text(p)}" for p in comparison.parameters if p.fitted]
    joined = (
        ";  ".join([*fitted, f"χ²_red = {comparison.chi2_red:.3g}"]).replace(" ", "\xa0").replace(";\xa0\xa0", "; ")
    )
    return "\n".join(textwrap.wrap(joined, 110, break_long_words=False))


def _caption(result: RunResult, axis: TimeAxis, unused: Bools, limits: Bools) -> str:
    comparison = result.comparison
    assert comparison is not None
    fitted = "; ".join(f"{p.symbol} = {parameter_text(p)}" for p in comparison.parameters if p.fitted)
    number = int(unused.sum())
    grey = f"Grey, hollow: {number} {plural('frame', number)} not used in the fit; weak ones among them are "
    grey += "evaluated with the size of a later frame, their c_NC and yield are too low while the crystals grow. "
    return (
        f"The series against the kinetic model ({comparison.title}): r, σ_r, c_NC and yield with the model as a line, "
        "its c_NC and yield times the fitted scale. "
        "Bars: statistical standard uncertainty σ. Below each: Δ/σ = (measured − model)/σ, triangles beyond the strip; "
        "tinted: systematic standard uncertainty, which moves all frames together. "
        f"{grey if number else ''}{count_limits(limits)}"
        f"{aliquots_caption(axis, result.aliquots, ('radius', 'c', 'yield'))}"
        f"{'Fitted: ' + fitted + '. ' if fitted else 'No parameter was fitted. '}{quality_text(comparison)}. "
        f"{left_out(result, axis)}"
    ).strip()
