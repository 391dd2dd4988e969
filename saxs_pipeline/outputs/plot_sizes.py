"""Figure of the size distributions: a map against time and radius, and chosen ones with bands and resolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from saxs_pipeline.outputs.plot_curves import choose_frames, edges
from saxs_pipeline.outputs.plot_style import (
    DOUBLE_COLUMN_MM,
    LIGHT_GREY,
    Drawing,
    TimeAxis,
    left_out,
    margins,
    new_figure,
    panel_letter,
    seconds_text,
    time_axis,
)
from saxs_pipeline.size_distribution import SizeDistributions
from saxs_pipeline.types import Bools, Floats, Ints, RunResult

_MOST = 5
_RADIUS = "radius $R$ (nm)"


def draw_sizes(result: RunResult, frames: Sequence[int] = ()) -> Drawing | None:
    """None without size distributions, or where no frame has the signal for one. `frames`: which to draw below."""
    sizes = result.sizes
    if sizes is None:
        return None
    axis, known = time_axis(result), np.isfinite(sizes.value("mean_nm"))
    rows = np.array([row for row in choose_frames(result, frames) if known[row]], dtype=np.int64)
    if rows.size == 0:
        rows = np.flatnonzero(known)
    if rows.size == 0:
        return None
    sizes, power = _in_powers_of_ten(sizes, known)
    label = _density_label(sizes, power)
    rows = rows[np.unique(np.linspace(0, rows.size - 1, _MOST).astype(np.int64))]
    mapped = np.unique(axis.seconds[known & axis.visible]).size > 1
    figure = new_figure(DOUBLE_COLUMN_MM, 125 if mapped else 65)
    axes = figure.subplots(1 + mapped, squeeze=False)[:, 0]
    if mapped:
        _draw_map(figure, axes[0], sizes, axis, known, label)
        panel_letter(axes[0], "a")
        panel_letter(axes[1], "b")
    _draw_chosen(axes[-1], result, sizes, rows, label)
    margins(figure, left=14, right=9, gap=12)
    return Drawing("sizes", figure, _caption(result, axis, mapped), _alt(mapped))


def _in_powers_of_ten(sizes: SizeDistributions, known: Bools) -> tuple[SizeDistributions, int]:
    """The densities divided by the power of ten of the highest one, and that power, for ticks without zeros."""
    highest = float(np.nanmax(sizes.density[known]))
    power = math.floor(math.log10(highest)) if highest > 0 else 0
    factor = 10.0**-power
    return replace(sizes, density=factor * sizes.density, density_err=factor * sizes.density_err), power


def _density_label(sizes: SizeDistributions, power: int) -> str:
    if not sizes.absolute:
        return "volume per nm (arbitrary)"
    return f"volume fraction per nm ($10^{{{power}}}$ nm⁻¹)" if power else "volume fraction per nm (nm⁻¹)"


def _draw_map(  # noqa: PLR0917
    figure: Figure, ax: Axes, sizes: SizeDistributions, axis: TimeAxis, known: Bools, label: str
) -> None:
    rows = np.flatnonzero(axis.visible)
    rows = rows[np.argsort(axis.seconds[rows], kind="stable")]
    density = np.where(known[:, None], sizes.density, np.nan)[rows]
    ax.set_facecolor(LIGHT_GREY)
    times, radii = edges(axis.seconds[rows], logarithmic=axis.logarithmic), edges(sizes.radius_nm)
    highest = float(np.nanpercentile(np.nanmax(density[np.isfinite(density).all(axis=1)], axis=1), 95))
    norm = PowerNorm(0.5, 0, highest)  # the first crystals are few
    mesh = ax.pcolormesh(times, radii, density.T, norm=norm, cmap="viridis", rasterized=True)
    axis.apply(ax)
    ax.set_xlim(times[0], times[-1])
    ax.set(ylabel=_RADIUS, ylim=(radii[0], _highest(sizes, known)))
    ax.tick_params(which="both", direction="out", top=False, right=False)
    bar = figure.colorbar(mesh, ax=ax, label=label, extend="max", pad=0.015, aspect=30, fraction=0.06)
    bar.outline.set_linewidth(0.6)


def _highest(sizes: SizeDistributions, rows: Bools | Ints) -> float:
    """Radius up to which there is something to see."""
    filled = np.flatnonzero((sizes.density[rows] > 0.01 * np.nanmax(sizes.density[rows])).any(axis=0))
    return float(min(1.15 * sizes.radius_nm[filled[-1]], sizes.radius_nm[-1]))


def _draw_chosen(ax: Axes, result: RunResult, sizes: SizeDistributions, rows: Ints, label: str) -> None:
    colors = mpl.colormaps["plasma"](np.linspace(0.0, 0.82, rows.size))
    highest = float(np.nanmax((sizes.density + sizes.density_err)[rows]))
    for k, (row, color) in enumerate(zip(rows.tolist(), colors, strict=True)):
        radius, time = sizes.radius_nm, seconds_text(result.curves.time_s[row])
        lower, upper = (sizes.density[row] + sign * sizes.density_err[row] for sign in (-1, 1))
        ax.fill_between(radius, np.maximum(lower, 0.0), upper, color=color, alpha=0.25, lw=0)
        ax.plot(radius, sizes.density[row], color=color, label=time)
        _draw_resolution(ax, sizes, row, highest * (1.06 + 0.05 * k), color)
    ax.set(xlabel=_RADIUS, ylabel=label, xlim=(sizes.radius_nm[0], _highest(sizes, rows)))
    ax.set_ylim(0, highest * (1.1 + 0.05 * rows.size))
    ax.legend(loc="upper right")


def _draw_resolution(ax: Axes, sizes: SizeDistributions, row: int, height: float, color: Any) -> None:
    """A bar as long as the full width of a single size, about the most frequent radius."""
    centre = float(sizes.radius_nm[int(np.argmax(sizes.density[row]))])
    half = 0.5 * float(sizes.value("single_fwhm_nm")[row])
    ends: Floats = np.array([centre - half, centre + half])
    ax.plot(ends, [height, height], "|-", color=color, ms=4, mew=0.8)


def _caption(result: RunResult, axis: TimeAxis, mapped: bool) -> str:
    chosen = (
        "distributions of single frames, bands: one standard error. Bars on top: full width at half "
        "maximum that a single size would show; narrower features mean nothing."
    )
    if not mapped:
        return f"Volume-weighted size distributions, no shape assumed; {chosen}"
    return (
        "Volume-weighted size distributions, no shape assumed. (a) Against time, colours by the square root; "
        "grey: too little signal, or excluded. "
        f"(b) {chosen[0].upper()}{chosen[1:]} {left_out(result, axis)}"
    ).strip()


def _alt(mapped: bool) -> str:
    first = "Map of the size distribution against time and radius, and s" if mapped else "S"
    return f"{first}elected size distributions with bands and bars for the resolution."
