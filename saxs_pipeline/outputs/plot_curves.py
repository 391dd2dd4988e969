"""Figures of the curves: chosen I(q) with fits (Prins et al., SI, Fig. S2.1b), maps of I(q, t) and of residuals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from saxs_pipeline.outputs.flags import sound
from saxs_pipeline.outputs.plot_style import (
    BLACK,
    DOUBLE_COLUMN_MM,
    LIGHT_GREY,
    Q_LABEL,
    SINGLE_COLUMN_MM,
    Drawing,
    TimeAxis,
    error_bars,
    intensity_label,
    left_out,
    margins,
    new_figure,
    seconds_text,
    time_axis,
)
from saxs_pipeline.outputs.ranges import colour_range
from saxs_pipeline.types import Bools, Curves, Floats, Ints, RunResult

OFFSET = 6.0
"""Factor between neighbouring curves, as in the paper."""
MOST_CURVES = 8


def choose_frames(result: RunResult, frames: Sequence[int]) -> Ints:
    """Rows to draw: the sound ones among `frames` with a point above zero; else about six, evenly spread in log time.

    Without a choice, frames with c_NC below ten standard errors are passed over if there are others.
    """
    drawable = (result.curves.intensity > 0) & (result.curves.q_nm > 0)
    trusted = sound(result) & drawable.any(axis=1)
    if frames:
        return _thin(np.flatnonzero(trusted & np.isin(result.curves.index, frames)), MOST_CURVES)
    axis = time_axis(result)
    candidates = trusted & axis.visible if (trusted & axis.visible).any() else trusted
    strong = candidates & _strong(result)
    rows = np.flatnonzero(strong if strong.any() else candidates)
    if rows.size <= 6:
        return rows
    position = np.log(axis.seconds[rows]) if axis.logarithmic else axis.seconds[rows]
    targets = np.linspace(position.min(), position.max(), 6)
    nearest = np.abs(position[None, :] - targets[:, None]).argmin(axis=1)
    chosen: Ints = rows[np.unique(nearest)]
    return chosen


def _strong(result: RunResult) -> Bools:
    if result.quantities is None:
        return result.curves.usable
    c = result.quantities.c_nc_umol_L
    strong: Bools = c.value > 10 * c.statistical
    return strong


def _thin(rows: Ints, most: int) -> Ints:
    """Evenly chosen rows, `most` at most."""
    if rows.size <= most:
        return rows
    thinned: Ints = rows[np.linspace(0, rows.size - 1, most).astype(np.int64)]
    return thinned


def draw_curves(result: RunResult, frames: Sequence[int]) -> Drawing | None:
    """Chosen curves, log-log, each offset by a factor 6ⁿ, with bars and fits; None if no frame can be drawn."""
    rows = choose_frames(result, frames)
    if rows.size == 0:
        return None
    figure = new_figure(SINGLE_COLUMN_MM, 60 + 9 * rows.size)
    ax = figure.subplots()
    colors = mpl.colormaps["plasma"](np.linspace(0.0, 0.82, rows.size))
    for n, (row, color) in enumerate(zip(rows, colors, strict=True)):
        _draw_curve(ax, result, int(row), n, color)
    ax.set(xscale="log", yscale="log", xlabel=Q_LABEL, ylabel=_offset_label(result, rows.size))
    lowest = result.curves.intensity[rows[0]]
    ax.set_ylim(0.5 * np.percentile(lowest[lowest > 0], 3), 2.5 * ax.get_ylim()[1])  # room for the uppermost label
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(lambda q, _: f"{q:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    margins(figure)
    times = ", ".join(seconds_text(result.curves.time_s[row]) for row in rows)
    factor = f", from bottom to top multiplied by {OFFSET:g}ⁿ, n = 0 … {rows.size - 1}," if rows.size > 1 else ""
    fitted = " Lines: fits." if result.model is not None else ""
    numbers = ", ".join(str(result.curves.index[row]) for row in rows)
    caption = (
        f"Curves I(q) at {times} (frames {numbers}){factor} with bars of the total standard uncertainty "
        f"(statistical and background).{fitted} Pale points: I < σ, without bars; points at I ≤ 0 cannot be drawn."
    )
    return Drawing("curves", figure, caption, f"Scattering curves at {times} on logarithmic axes with their fits.")


def _offset_label(result: RunResult, number: int) -> str:
    label = intensity_label(result)
    return label if number == 1 else label.replace("$I$", f"$I$ × {OFFSET:g}$^n$")


def _draw_curve(ax: Axes, result: RunResult, row: int, n: int, color: Any) -> None:
    """One curve with its fit and time."""
    curves, factor = result.curves, OFFSET**n
    intensity, sigma = factor * curves.intensity[row], factor * curves.sigma[row]
    drawn = (intensity > 0) & (curves.q_nm > 0)
    q, value, error = curves.q_nm[drawn], intensity[drawn], sigma[drawn]
    clear = value > error  # the other bars reach zero, which a logarithmic axis does not have
    error_bars(ax, q[clear], (value - error)[clear], (value + error)[clear], color)
    ax.plot(q[clear], value[clear], "o", ms=1.5, color=color, mew=0, zorder=3)
    ax.plot(q[~clear], value[~clear], "o", ms=1.2, color=color, mew=0, alpha=0.3, zorder=2)
    if result.model is not None:
        model = factor * np.where(curves.q_nm > 0, result.model[row], np.nan)
        ax.plot(curves.q_nm, np.where(model > 0, model, np.nan), color=BLACK, lw=0.7, zorder=4)
    label = seconds_text(curves.time_s[row])
    ax.annotate(
        label,
        (q[0], value[: max(3, q.size // 20)].max()),
        (0, 4),
        textcoords="offset points",
        color=color,
        fontsize=6.5,
    )


# --- maps ------------------------------------------------------------------------------------------------------------


def draw_heatmap(result: RunResult) -> Drawing | None:
    """I(q, t) in colour on a logarithmic scale; None for fewer than two times or no positive intensity."""
    axis = time_axis(result)
    shown = sound(result) & axis.visible
    intensity = np.where(shown[:, None], result.curves.intensity, np.nan)
    positive = intensity[intensity > 0]
    if np.unique(axis.seconds[shown]).size < 2 or positive.size == 0:
        return None
    low, high = colour_range(result.curves.sigma[shown], positive)
    intensity[intensity <= 0] = 0.1 * low  # below the colours; a logarithm would leave a hole
    figure, ax = _map_figure(axis)
    norm = LogNorm(low, high)
    _draw_map(figure, ax, result, axis, intensity, norm=norm, cmap="viridis", label=intensity_label(result))
    caption = (
        "Intensity I(q, t) against time and q, colours logarithmic from the median standard uncertainty up; "
        "what is below, or negative, is darkest. Grey: not measured or excluded. "
        f"{left_out(result, axis)}"
    )
    return Drawing("heatmap", figure, caption.strip(), "Map of the scattered intensity against time and q.")


def draw_residuals(result: RunResult) -> Drawing | None:
    """(I − fit)/σ in colour, zero in the middle; None without fits or for fewer than two times."""
    if result.model is None:
        return None
    axis = time_axis(result)
    residual = _residuals(result.curves, result.model, sound(result) & axis.visible)
    known = residual[np.isfinite(residual)]
    if np.unique(axis.seconds[np.isfinite(residual).any(axis=1)]).size < 2:
        return None
    figure, ax = _map_figure(axis)
    label = "($I$ − fit) / $σ$"
    steps = mpl.colormaps["RdBu_r"].resampled(17)  # an odd number: white in the middle; steps keep the file small
    _draw_map(figure, ax, result, axis, residual, norm=Normalize(-4.25, 4.25), cmap=steps, label=label)
    low, high = np.flatnonzero(np.isfinite(residual).any(axis=0))[[0, -1]]
    ax.set_ylim(result.curves.q_nm[low], result.curves.q_nm[high])
    beyond = 100 * float(np.mean(np.abs(known) > 2))
    caption = (
        "Residuals (I − fit)/σ with σ the total standard uncertainty, in the q range of the fit. "
        f"{beyond:.1f} % of the points lie beyond ±2 (4.6 % expected). Grey: not measured or excluded. "
        f"{left_out(result, axis)}"
    )
    return Drawing("residuals", figure, caption.strip(), "Map of the weighted residuals against time and q.")


def _residuals(curves: Curves, model: Floats, shown: Bools) -> Floats:
    usable = shown[:, None] & (curves.sigma > 0)
    return np.where(usable, (curves.intensity - model) / np.where(usable, curves.sigma, 1.0), np.nan)


def _map_figure(axis: TimeAxis) -> tuple[Figure, Axes]:
    figure = new_figure(DOUBLE_COLUMN_MM, 78)
    ax = figure.subplots()
    ax.set_facecolor(LIGHT_GREY)
    ax.set_ylabel(Q_LABEL)
    axis.apply(ax)
    margins(figure, left=12, right=9)
    return figure, ax


def _draw_map(
    figure: Figure,
    ax: Axes,
    result: RunResult,
    axis: TimeAxis,
    values: Floats,
    *,
    norm: Normalize,
    cmap: str | Colormap,
    label: str,
) -> None:
    """Cells reach half-way to the neighbouring frames and bins; rasterised also in SVG."""
    rows = np.flatnonzero(axis.visible)
    rows = rows[np.argsort(axis.seconds[rows], kind="stable")]
    times = edges(axis.seconds[rows], logarithmic=axis.logarithmic)
    mesh = ax.pcolormesh(times, edges(result.curves.q_nm), values[rows].T, norm=norm, cmap=cmap, rasterized=True)
    ax.set_xlim(times[0], times[-1])
    ax.tick_params(which="both", direction="out", top=False, right=False)
    bar = figure.colorbar(mesh, ax=ax, label=label, extend="both", pad=0.015, aspect=30, fraction=0.06)
    bar.outline.set_linewidth(0.6)


def edges(centres: Floats, *, logarithmic: bool = False) -> Floats:
    """Borders half-way between centres, (n + 1,), geometrically if `logarithmic`."""
    x = np.log(centres) if logarithmic else centres
    middle = 0.5 * (x[1:] + x[:-1])
    first, last = (x[0] - (middle[0] - x[0]), x[-1] + (x[-1] - middle[-1])) if x.size > 1 else (x[0] - 0.5, x[0] + 0.5)
    edges = np.concatenate([[first], middle, [last]])
    return np.exp(edges) if logarithmic else edges
