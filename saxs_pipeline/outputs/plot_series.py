"""Figures against time: r and σ_r, c_NC and yield (Prins et al., Fig. 1b-c), quality of the fits."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from saxs_pipeline.outputs.flags import count_words, frame_flags, has_word, independent, sound
from saxs_pipeline.outputs.plot_aliquots import aliquots_caption, draw_aliquots
from saxs_pipeline.outputs.plot_style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LIGHT_GREY,
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
from saxs_pipeline.outputs.tables import last_reported, percent, plus_minus
from saxs_pipeline.types import FIT_COLUMNS, Bools, Estimate, Floats, Quantities, RunResult

LABELS = {
    "radius": "mean radius $r$ (nm)",
    "sigma": "spread $σ_r$ (nm)",
    "c": r"$c_\mathrm{NC}$ (µmol L⁻¹)",
    "yield": "yield (%)",
}
"""Labels of the axes; the yield is drawn in %."""


def draw_radius(result: RunResult) -> Drawing | None:
    """r(t) above σ_r(t); None where no frame supports a radius."""
    quantities, row = result.quantities, last_reported(result)
    if quantities is None or row is None:
        return None
    axis = time_axis(result)
    shown = sound(result) & axis.visible
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
        "Mean radius r (a) and standard deviation σ_r of the radii (b) against the time since the time zero. "
        f"Bars: statistical standard uncertainty. Dotted: last reported frame ({_last(quantities, row)}). "
        f"{count_limits(limit & shown)}{aliquots_caption(axis, result.aliquots, ('radius',))}{left_out(result, axis)}"
    )
    alt = f"Two plots against time; at the end {_last(quantities, row)}."
    return Drawing("radius", figure, caption.strip(), alt)


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


def draw_upper_limits(ax: Axes, axis: TimeAxis, estimate: Estimate, rows: Bools) -> None:
    """Triangles at the upper limits of σ_r (n,) of the frames `rows`."""
    rows = rows & np.isfinite(estimate.value)
    ax.plot(axis.seconds[rows], estimate.value[rows], "v", ms=3, mfc="white", mec=VERMILLION, mew=0.5, zorder=3)


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
    shown = independent(result) & axis.visible
    if not (shown & np.isfinite(quantities.c_nc_umol_L.value)).any():
        return None
    yield_ = percent(quantities.yield_)
    panels = [(quantities.c_nc_umol_L, "c", "µmol/L", GREEN)]
    if (shown & np.isfinite(yield_.value)).any():
        panels.append((yield_, "yield", "%", ORANGE))
    figure = new_figure(SINGLE_COLUMN_MM, 14 + 37 * len(panels))
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    weak, row = has_word(flags, "weak"), last_reported(result)
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
        f"Hollow: {int(weak.sum())} weak {plural('frame', int(weak.sum()))}, evaluated with the size of a later one: "
    )
    hollow += f"{'c_NC and yield are' if panels > 1 else 'c_NC is'} too low while the crystals still grow towards it. "
    return (
        f"{subject} against the time since the time zero. Coloured bars: statistical standard uncertainty; shaded "
        "and black bar: systematic standard uncertainty, which moves all frames together. Dotted: last reported frame. "
        f"{hollow if weak.any() else ''}"
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


def draw_quality(result: RunResult) -> Drawing | None:
    """Reduced χ² and the flags of the frames against time; None if there is neither."""
    flags, axis = frame_flags(result), time_axis(result)
    counted = count_words([flag for flag, visible in zip(flags, axis.visible, strict=True) if visible])
    chi2 = None if result.quantities is None else result.quantities.chi2_red
    drawable = axis.visible & (np.isfinite(chi2) if chi2 is not None else False)
    heights = [1.0] * bool(drawable.any()) + [0.12 * len(counted) + 0.15] * bool(counted)
    if not heights:
        return None
    figure = new_figure(SINGLE_COLUMN_MM, 14 + 42 * sum(heights))
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    if chi2 is not None and drawable.any():
        _draw_chi2(axes[0], result, axis, drawable, chi2)
    if counted:
        _draw_flags(axes[-1], result, axis, [word for word, _ in counted])
    axis.apply(axes[-1])
    margins(figure, left=26 if counted else 13)
    listed = ", ".join(f"{word} {n}" for word, n in counted) or "none"
    hidden = int((~axis.visible).sum())
    late = f" {hidden} {plural('frame', hidden)} at t ≤ 0 not shown." if hidden else ""
    caption = (
        "Reduced χ² of the fits and flags of the frames. Shaded: where 95 % of the frames lie if the model and the "
        f"uncertainties are right. Crosses: excluded frames. Frames per flag: {listed}.{late}"
    )
    return Drawing("quality", figure, caption, "Reduced chi-squared and flags of the frames against time.")


def _draw_chi2(ax: Axes, result: RunResult, axis: TimeAxis, rows: Bools, chi2: Floats) -> None:
    good = rows & sound(result)
    ax.plot(axis.seconds[good], chi2[good], "o", ms=1.8, color=BLUE, mew=0, zorder=3)
    ax.plot(axis.seconds[rows & ~good], chi2[rows & ~good], "x", ms=3, color=VERMILLION, mew=0.7, zorder=3)
    if result.fits is not None and (points := result.fits.n_points[good]).size:
        freedom = max(float(np.median(points)) - len(FIT_COLUMNS), 1.0)
        half = 1.96 * np.sqrt(2 / freedom)
        ax.axhspan(1 - half, 1 + half, color=LIGHT_GREY, alpha=0.7, lw=0, zorder=0)
    ax.axhline(1, color=GREY, linestyle=":", zorder=1)
    ax.set_ylabel("reduced $χ^2$")


def _draw_flags(ax: Axes, result: RunResult, axis: TimeAxis, words: list[str]) -> None:
    """One line per word, a mark per frame, with the frame's number where there is room."""
    flags, trusted = frame_flags(result), sound(result)
    for level, word in enumerate(words):
        rows = has_word(flags, word) & axis.visible
        for some, color in ((rows & trusted, BLUE), (rows & ~trusted, VERMILLION)):
            ax.plot(axis.seconds[some], np.full(int(some.sum()), level), "|", ms=5, color=color, mew=0.8)
        if 0 < rows.sum() <= 3:
            for row in np.flatnonzero(rows):
                place = (axis.seconds[row], level)
                number = str(result.curves.index[row])
                ax.annotate(number, place, (2.5, 0), textcoords="offset points", fontsize=5.5, va="center", color=GREY)
    ax.set_yticks(range(len(words)), words)
    ax.set_ylim(len(words) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
