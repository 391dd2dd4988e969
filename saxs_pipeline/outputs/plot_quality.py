"""Quality of frames and fits against time, in one picture: what stands out, and why."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from saxs_pipeline.outputs.flags import count_words, frame_flags, has_word, sound
from saxs_pipeline.outputs.plot_style import (
    BLUE,
    GREY,
    LIGHT_GREY,
    SINGLE_COLUMN_MM,
    VERMILLION,
    Drawing,
    TimeAxis,
    error_bars,
    margins,
    new_figure,
    plain_log_axis,
    plural,
    time_axis,
)
from saxs_pipeline.outputs.tables import unit_text
from saxs_pipeline.quality import Quality
from saxs_pipeline.types import Bools, Floats, RunResult


def draw_quality(result: RunResult) -> Drawing | None:
    """Reduced χ² and the flags of the frames against time; None if there is neither."""
    flags, axis = frame_flags(result), time_axis(result)
    counted = count_words([flag for flag, visible in zip(flags, axis.visible, strict=True) if visible])
    chi2 = None if result.quantities is None else result.quantities.chi2_red
    drawable = axis.visible & (np.isfinite(chi2) if chi2 is not None else False)
    judged = result.quality if result.quality is not None and axis.visible.any() else None
    heights = [0.8, 0.8] * (judged is not None) + [0.8] * bool(drawable.any())
    heights += [0.12 * len(counted) + 0.15] * bool(counted)
    if not heights:
        return None
    figure = new_figure(SINGLE_COLUMN_MM, 14 + 42 * sum(heights))
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    if judged is not None:
        _draw_intensity(axes[0], result, axis, judged)
        _draw_neighbours(axes[1], result, axis, judged)
    if chi2 is not None and drawable.any():
        _draw_chi2(axes[2 * (judged is not None)], result, axis, drawable, chi2)
    if counted:
        _draw_flags(axes[-1], result, axis, [word for word, _ in counted])
    axis.apply(axes[-1])
    margins(figure, left=26 if counted else 13)
    listed = ", ".join(f"{word} {n}" for word, n in counted) or "none"
    hidden = int((~axis.visible).sum())
    late = f" {hidden} {plural('frame', hidden)} at t ≤ 0 not shown." if hidden else ""
    caption = (
        f"{NEIGHBOURS if judged is not None else ''}Reduced χ² of the fits and flags of the frames. Shaded: where 95 % "
        "of the frames lie if the model and the uncertainties are right. Crosses: excluded frames. "
        f"Frames per flag: {listed}.{late}"
    )
    alt = "Mean intensity, reduced chi-squared and flags of the frames against time."
    return Drawing("quality", figure, caption, alt)


FAR_OFF = 30.0
"""χ²_red from which on only a logarithmic axis shows the others too."""

NEIGHBOURS = (
    "Mean intensity of the frames (background subtracted), and reduced χ² against the frames before and after: a "
    "bubble, a zinger or damage stands out (diamonds). "
)


def _draw_intensity(ax: Axes, result: RunResult, axis: TimeAxis, judged: Quality) -> None:
    rows = axis.visible & np.isfinite(judged.intensity)
    strange = rows & has_word(frame_flags(result), "outlier")
    t, mean, sigma = axis.seconds[rows], judged.intensity[rows], judged.intensity_sigma[rows]
    error_bars(ax, t, mean - sigma, mean + sigma, BLUE)
    ax.plot(t, mean, "o", ms=1.8, color=BLUE, mew=0, zorder=3)
    ax.plot(
        axis.seconds[strange], judged.intensity[strange], "D", ms=3.5, color=VERMILLION, mfc="none", mew=0.7, zorder=4
    )
    ax.set_ylabel(f"mean $I$ ({unit_text(result.curves.unit)})")


def _draw_neighbours(ax: Axes, result: RunResult, axis: TimeAxis, judged: Quality) -> None:
    rows = axis.visible & np.isfinite(judged.neighbours_chi2)
    strange = has_word(frame_flags(result), "outlier")
    for some, mark, size, color in ((rows & ~strange, "o", 1.8, BLUE), (rows & strange, "D", 3, VERMILLION)):
        ax.plot(axis.seconds[some], judged.neighbours_chi2[some], mark, ms=size, color=color, mew=0)
    ax.axhline(1, color=GREY, linestyle=":", zorder=1)
    if rows.any():
        plain_log_axis(ax)
    ax.set_ylabel("$χ^2$ to neighbours")


def _draw_chi2(ax: Axes, result: RunResult, axis: TimeAxis, rows: Bools, chi2: Floats) -> None:
    good = rows & sound(result)
    ax.plot(axis.seconds[good], chi2[good], "o", ms=1.8, color=BLUE, mew=0, zorder=3)
    ax.plot(axis.seconds[rows & ~good], chi2[rows & ~good], "x", ms=3, color=VERMILLION, mew=0.7, zorder=3)
    if result.fits is not None and good.any():
        freedom = max(float(np.median((result.fits.n_points - result.fits.free.sum(axis=1))[good])), 1.0)
        half = 1.96 * np.sqrt(2 / freedom)
        ax.axhspan(1 - half, 1 + half, color=LIGHT_GREY, alpha=0.7, lw=0, zorder=0)
    ax.axhline(1, color=GREY, linestyle=":", zorder=1)
    if chi2[rows].max() > FAR_OFF:
        plain_log_axis(ax)
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
