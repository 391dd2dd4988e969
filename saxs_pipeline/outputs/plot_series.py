"""Figures against time: r and σ_r, c_NC and yield (Prins et al., Fig. 1b-c)."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from saxs_pipeline.outputs.flags import has_word, independent, populations, sound
from saxs_pipeline.outputs.numbers import percent, plus_minus
from saxs_pipeline.outputs.plot_aliquots import aliquots_caption, draw_aliquots
from saxs_pipeline.outputs.plot_style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SINGLE_COLUMN_MM,
    VERMILLION,
    Drawing,
    TimeAxis,
    error_bars,
    left_out,
    margins,
    new_figure,
    panel_letter,
    plural,
    seconds_text,
    time_axis,
)
from saxs_pipeline.outputs.ranges import value_range
from saxs_pipeline.outputs.tables import last_reported
from saxs_pipeline.types import Bools, Estimate, Floats, Quantities, RunResult

LABELS = {
    "radius": "mean radius $r$ (nm)",
    "sigma": "spread $σ_r$ (nm)",
    "c": r"$c_\mathrm{NC}$ (µmol L⁻¹)",
    "yield": "yield (%)",
}
"""Labels of the axes; the yield is drawn in %."""


def draw_radius(result: RunResult) -> Drawing | None:
    """r(t) above σ_r(t); None where no frame supports a radius."""
    quantities = result.quantities
    row = None if quantities is None else last_reported(result, quantities)
    if quantities is None or row is None:
        return None
    axis = time_axis(result)
    shown = sound(result, quantities) & axis.visible
    limit = has_word(quantities.flags, "sigma_upper_limit")
    figure = new_figure(SINGLE_COLUMN_MM, 88)
    upper, lower = figure.subplots(2, 1, sharex=True)
    draw_points(upper, axis, quantities.radius_nm, shown, BLUE)
    draw_points(lower, axis, quantities.sigma_nm, shown & ~limit, VERMILLION)
    draw_upper_limits(lower, axis, quantities.sigma_nm, shown & limit)
    others = {
        upper: draw_aliquots(upper, axis, result.aliquots, "radius", left=True),
        lower: quantities.sigma_nm.value[shown & limit],
    }
    for ax, estimate, label, letter in (
        (upper, quantities.radius_nm, LABELS["radius"], "a"),
        (lower, quantities.sigma_nm, LABELS["sigma"], "b"),
    ):
        _mark_last(ax, estimate, row, "nm")
        set_limits(ax, estimate, shown & ~limit, also=others[ax])
        ax.set_ylabel(label)
        panel_letter(ax, letter)
    axis.apply(lower)
    margins(figure, top=4.5, gap=4.5)
    caption = (
        f"{whose(result)}Mean radius r (a) and standard deviation σ_r of the radii (b) against the time since the "
        "time zero. "
        f"Bars: statistical standard uncertainty. Dotted: last reported frame ({_last(quantities, row)}). "
        f"{count_limits(limit & shown)}{aliquots_caption(axis, result.aliquots, ('radius',))}{left_out(result, axis)}"
    )
    alt = f"Two plots against time; at the end {_last(quantities, row)}."
    return Drawing("radius", figure, caption.strip(), alt)


def whose(result: RunResult) -> str:
    """ "Crystals: ", the name of the first population where there are others, for a caption; else ""."""
    names = [name for name, _ in populations(result)]
    return f"{names[0].replace('_', ' ').capitalize()}: " if len(names) > 1 else ""


def _mark_last(ax: Axes, estimate: Estimate, row: int, unit: str) -> None:
    """Dotted line at the last reported value; above the panel the value, its statistical, systematic uncertainty."""
    value, errors = estimate.value[row], [estimate.statistical[row]]
    if estimate.systematic[row] > 0:
        errors.append(estimate.systematic[row])
    ax.axhline(value, color=GREY, linestyle=":", zorder=1)
    ax.set_title(plus_minus(value, *errors, unit=unit), loc="right", pad=2, color=GREY, fontsize=6.5)


def _last(quantities: Quantities, row: int) -> str:
    r, s = quantities.radius_nm, quantities.sigma_nm
    return (
        f"{seconds_text(quantities.time_s[row])}: r = {plus_minus(r.value[row], r.statistical[row], unit='nm')}, "
        f"σ_r = {plus_minus(s.value[row], s.statistical[row], unit='nm')}"
    )


def count_limits(limits: Bools) -> str:
    """A sentence on the upper limits of σ_r for a caption, with a space behind; "" if there are none."""
    number = int(limits.sum())
    return f"Triangles: upper limits of σ_r, {number} {plural('frame', number)}. " if number else ""


def draw_points(ax: Axes, axis: TimeAxis, estimate: Estimate, rows: Bools, color: str, *, hollow: bool = False) -> None:
    """Values (n,) of the frames `rows` with bars of their statistical uncertainty."""
    rows = rows & np.isfinite(estimate.value)
    if rows.any():
        face = "white" if hollow else color
        x, y, error = axis.seconds[rows], estimate.value[rows], estimate.statistical[rows]
        error_bars(ax, x, y - error, y + error, color)
        ax.plot(x, y, "o", ms=1.7, mfc=face, mec=color, mew=0.35, zorder=3)


def draw_upper_limits(ax: Axes, axis: TimeAxis, estimate: Estimate, rows: Bools, color: str = VERMILLION) -> None:
    """Triangles at the upper limits of σ_r (n,) of the frames `rows`."""
    rows = rows & np.isfinite(estimate.value)
    ax.plot(axis.seconds[rows], estimate.value[rows], "v", ms=3, mfc="white", mec=color, mew=0.5, zorder=3)


def set_limits(
    ax: Axes, estimate: Estimate, rows: Bools, *, from_zero: bool = False, also: Floats | None = None
) -> None:
    """Range of the y axis: what the well-known points and the values of `also` need, not the largest error bar."""
    rows = rows & np.isfinite(estimate.value) & np.isfinite(estimate.statistical)
    if not rows.any():
        return
    others = np.empty(0) if also is None else also[np.isfinite(also)]
    span = value_range(estimate.value[rows], estimate.statistical[rows], others, from_zero=from_zero)
    ax.set_ylim(span)
    ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))


def draw_concentration_yield(result: RunResult) -> Drawing | None:
    """c_NC(t) above yield(t), with the systematic uncertainty as a band; None without a concentration."""
    quantities, axis = result.quantities, time_axis(result)
    if quantities is None:
        return None
    flags = quantities.flags
    shown = independent(result, quantities) & axis.visible
    if not (shown & np.isfinite(quantities.c_nc_umol_L.value)).any():
        return None
    yield_ = percent(quantities.yield_)
    panels = [(quantities.c_nc_umol_L, "c", "µmol/L", GREEN)]
    if (shown & np.isfinite(yield_.value)).any():
        panels.append((yield_, "yield", "%", ORANGE))
    figure = new_figure(SINGLE_COLUMN_MM, 14 + 37 * len(panels))
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    weak, row = has_word(flags, "weak"), last_reported(result, quantities)
    for ax, (estimate, name, unit, color), letter in zip(axes, panels, "ab", strict=False):
        _band(ax, axis, estimate, shown & ~weak, color)
        draw_points(ax, axis, estimate, shown & ~weak, color)
        draw_points(ax, axis, estimate, shown & weak, color, hollow=True)
        set_limits(ax, estimate, shown, from_zero=True, also=draw_aliquots(ax, axis, result.aliquots, name, left=True))
        _systematic_bar(ax, axis, estimate, shown & ~weak)
        ax.set_ylabel(LABELS[name])
        if row is not None:
            _mark_last(ax, estimate, row, unit)
        if len(panels) > 1:
            panel_letter(ax, letter)
    axis.apply(axes[-1])
    margins(figure, top=4.5, gap=4.5)
    return Drawing(
        "concentration_yield", figure, _concentration_caption(result, axis, shown & weak, len(panels)),
        "Concentration of nanocrystals and yield against time, with statistical bars and a systematic band.",
    )  # fmt: skip


def _concentration_caption(result: RunResult, axis: TimeAxis, weak: Bools, panels: int) -> str:
    subject = "Concentration of nanocrystals c_NC (a) and yield (b)" if panels > 1 else "Concentration c_NC"
    hollow = (
        f"Hollow: {int(weak.sum())} weak {plural('frame', int(weak.sum()))}, evaluated with the size of another one: "
    )
    hollow += f"{'c_NC and yield are' if panels > 1 else 'c_NC is'} too low while the crystals still grow towards it. "
    return (
        f"{whose(result)}{subject} against the time since the time zero. Coloured bars: statistical standard "
        "uncertainty; shaded and black bar: systematic standard uncertainty, which moves all frames together. Dotted: "
        f"last reported frame. {hollow if weak.any() else ''}"
        f"{aliquots_caption(axis, result.aliquots, ('c', 'yield'))}{left_out(result, axis)}"
    ).strip()


def _band(ax: Axes, axis: TimeAxis, estimate: Estimate, rows: Bools, color: str) -> None:
    """Systematic uncertainty: it moves all points together, so it is drawn as one band behind them."""
    rows = rows & np.isfinite(estimate.value) & (estimate.systematic > 0)
    order = np.flatnonzero(rows)[np.argsort(axis.seconds[rows], kind="stable")]
    value, error = estimate.value[order], estimate.systematic[order]
    ax.fill_between(axis.seconds[order], value - error, value + error, color=color, alpha=0.22, lw=0, zorder=1)


def _systematic_bar(ax: Axes, axis: TimeAxis, estimate: Estimate, rows: Bools) -> None:
    """The same at the last point, to the right of it, where the points do not hide it."""
    rows = rows & np.isfinite(estimate.value) & (estimate.systematic > 0)
    if not rows.any():
        return
    last = np.flatnonzero(rows)[axis.seconds[rows].argmax()]
    ax.errorbar(
        axis.beyond(1.04), estimate.value[last], estimate.systematic[last],
        fmt="none", ecolor=BLACK, capsize=1.5, elinewidth=0.7,
    )  # fmt: skip
