"""Size distributions of a simulated synthesis at chosen times (Prins et al., Fig. 5a-c)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from saxs_pipeline.outputs.plot_model import Line, lines
from saxs_pipeline.outputs.plot_style import (
    DOUBLE_COLUMN_MM,
    GREY,
    Drawing,
    margins,
    new_figure,
    panel_letter,
    seconds_text,
)
from saxs_pipeline.outputs.simulated import ModelRun, Simulated, summarise
from saxs_pipeline.science import population
from saxs_pipeline.types import Floats

COARSE, FINE = 200, 500
"""Radii at which a distribution is looked for, and then computed: the sharpest edge is a few pm wide."""
VISIBLE = 2e-3
"""Share of the maximum of a distribution below which it is not drawn."""


class Snapshots(NamedTuple):
    """Distributions of one run at the times (k,) with crystals: density (k, m) in µmol/L/nm at radii (k, m) in nm.

    nuclei_nm: where crystals first nucleate, NaN if they do not; ended: the first snapshot after nucleation, None if
    there is none.
    """

    time_s: Floats
    radius_nm: Floats
    density: Floats
    nuclei_nm: float
    ended: int | None


def snapshots(run: ModelRun, times_s: tuple[float, ...]) -> Snapshots | None:
    """c(r) of a run at those of the times when there are crystals; None if there are none at any.

    None too for crystals of one size only, which have no density.
    """
    times = np.array([time for time in times_s if 0 < time <= run.development.time_s[-1]])
    times = times[population.at(run.development, times).all.c_umol_L > 0]
    if not times.size or any(crystals.sigma_m == 0 for crystals in run.synthesis.crystals):
        return None
    radius, density = zip(*(_distribution(run, float(time)) for time in times), strict=True)
    after = np.flatnonzero(times >= summarise(run.development).t98_c_s)
    ended = int(after[0]) if after.size else None
    return Snapshots(times, np.array(radius), np.array(density), first_nuclei_nm(run), ended)


def _distribution(run: ModelRun, time: float) -> tuple[Floats, Floats]:
    """Radii over which the distribution can be seen, and c(r) there."""
    modes = population.at(run.development, np.array([time])).modes
    reach = [(float(mode.radius_nm[0]), 8 * float(mode.sigma_nm[0])) for mode in modes if mode.c_umol_L[0] > 0]
    wide = np.linspace(max(min(r - s for r, s in reach), 0.05), max(r + s for r, s in reach), COARSE)
    found = population.density(run.synthesis, run.development, [time], wide)[0]
    seen = np.flatnonzero(found > VISIBLE * found.max())
    radius = np.linspace(wide[max(seen[0] - 1, 0)], wide[min(seen[-1] + 1, COARSE - 1)], FINE)
    return radius, population.density(run.synthesis, run.development, [time], radius)[0]


def first_nuclei_nm(run: ModelRun) -> float:
    """Radius of the nuclei when nucleation first reaches 1 % of its highest rate; NaN without nucleation."""
    development = run.development
    highest = float(development.nucleation.max())
    if not highest > 0:
        return math.nan
    first = int(np.argmax(development.nucleation >= 0.01 * highest))
    return float(development.critical_radius_nm[first]) + run.synthesis.nucleus_offset_m * 1e9


def draw_snapshots(simulated: Simulated) -> Drawing | None:
    """c(r) against r, light to dark with time; panels for the lowest, the own (or middle) and the highest n.

    None where there are no crystals at any of the times.
    """
    found = [(line, snapshots(line.run, simulated.snapshots_s)) for line in _three(simulated)]
    panels = [(line, shown) for line, shown in found if shown is not None]
    if not panels:
        return None
    times = sorted({float(time) for _, shown in panels for time in shown.time_s})
    figure = new_figure(DOUBLE_COLUMN_MM, 14 + 36 * len(panels))
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (line, shown), letter in zip(axes, panels, "abc", strict=False):
        _draw_panel(ax, line, shown, times)
        if len(panels) > 1:
            panel_letter(ax, letter)
    axes[-1].set_xlabel("radius $r$ (nm)")
    _limits(axes[-1], [shown for _, shown in panels])
    margins(figure, left=15, right=21)
    _legend(figure, times, GREY if len(panels) > 1 else panels[0][0].color)
    caption = _caption(simulated, panels, times)
    return Drawing("model_snapshots", figure, caption, _alt(panels))


def _three(simulated: Simulated) -> list[Line]:
    """Lowest n, the run's own or the middle one, highest n."""
    drawn = lines(simulated)
    if len(drawn) < 3:
        return drawn
    inner = [line for line in drawn[1:-1] if line.run.development is simulated.development]
    return [drawn[0], *(inner or [drawn[len(drawn) // 2]]), drawn[-1]]


def shades(color: str, number: int) -> list[tuple[float, float, float]]:
    """That many colours from light to dark around a colour."""
    base = np.array(to_rgb(color))
    steps = np.linspace(-0.7, 0.55, number) if number > 1 else np.zeros(1)
    mixed = [base - step * (1 - base) if step < 0 else base * (1 - step) for step in steps]
    return [(float(red), float(green), float(blue)) for red, green, blue in mixed]


def _draw_panel(ax: Axes, line: Line, shown: Snapshots, times: list[float]) -> None:
    color_at = dict(zip(times, shades(line.color, len(times)), strict=True))
    for time, radius, density in zip(shown.time_s, shown.radius_nm, shown.density, strict=True):
        ax.plot(radius, density, color=color_at[float(time)])
    if np.isfinite(shown.nuclei_nm):
        ax.axvline(shown.nuclei_nm, color=GREY, lw=0.6, zorder=0)
    top = float(shown.density.max())
    ax.set_ylim(0, 1.22 * top)
    if shown.ended is not None:
        peak = int(np.argmax(shown.density[shown.ended]))
        place = (shown.radius_nm[shown.ended, peak], shown.density[shown.ended, peak] + 0.02 * top)
        arrow = {"arrowstyle": "-|>", "color": line.color, "lw": 0.9, "mutation_scale": 7, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", place, (0, 11), textcoords="offset points", arrowprops=arrow)
    if line.label:
        ax.annotate(
            line.label, (1, 1), (-4, -4), xycoords="axes fraction", textcoords="offset points",
            ha="right", va="top", color=line.color, weight="bold",
        )  # fmt: skip
    ax.set_ylabel("$c(r)$ (µmol L⁻¹ nm⁻¹)")
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))


def _limits(ax: Axes, panels: list[Snapshots]) -> None:
    """Radii at which any distribution can be seen, and the line of the nuclei."""
    edges = [shown.nuclei_nm for shown in panels if np.isfinite(shown.nuclei_nm)]
    edges += [float(edge) for shown in panels for edge in (shown.radius_nm.min(), shown.radius_nm.max())]
    margin = 0.06 * (max(edges) - min(edges))
    ax.set_xlim(min(edges) - margin, max(edges) + margin)


def _legend(figure: Figure, times: list[float], color: str) -> None:
    figure.legend(
        [Line2D([], [], color=shade) for shade in shades(color, len(times))],
        [seconds_text(time) for time in times],
        title="time",
        loc="center right",
        borderaxespad=0.4,
    )


def _caption(simulated: Simulated, panels: list[tuple[Line, Snapshots]], times: list[float]) -> str:
    span = f"from {seconds_text(times[0])} (lightest) to {seconds_text(times[-1])} (darkest)"
    parts = [f"Size distributions of the simulated nanocrystals {span if len(times) > 1 else seconds_text(times[0])}."]
    if any(np.isfinite(shown.nuclei_nm) for _, shown in panels):
        parts.append("Vertical line: radius at which crystals first nucleate.")
    if any(shown.ended is not None for _, shown in panels):
        ends = ", ".join(_ended_text(line, shown) for line, shown in panels)
        parts.append(f"Arrow: first distribution shown after 98 % of the crystals have nucleated ({ends}).")
    if absent := [seconds_text(time) for time in simulated.snapshots_s if time not in times]:
        parts.append(f"Without crystals, or after the end: {', '.join(absent)}.")
    parts.append("Each panel has its own vertical scale." if len(panels) > 1 else "")
    return " ".join(parts).strip()


def _ended_text(line: Line, shown: Snapshots) -> str:
    ended = "none shown" if shown.ended is None else seconds_text(shown.time_s[shown.ended])
    return f"{line.label.replace('$', '')}: {ended}" if line.label else ended


def _alt(panels: list[tuple[Line, Snapshots]]) -> str:
    peaks = []
    for line, shown in panels:
        modes = np.take_along_axis(shown.radius_nm, np.argmax(shown.density, axis=1)[:, None], axis=1)[:, 0]
        name = f"{line.label.replace('$', '')}: " if line.label else ""
        peaks.append(f"{name}from {modes[0]:.3g} nm to {modes[-1]:.3g} nm")
    return f"Size distributions at several times; the most frequent radius moves {'; '.join(peaks)}."
