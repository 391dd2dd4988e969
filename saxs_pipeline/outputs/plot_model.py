"""Development of a simulated synthesis against time, and the share of nucleation (Prins et al., Fig. 5d-f)."""

from __future__ import annotations

from itertools import cycle
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from saxs_pipeline.outputs.plot_style import (
    BLACK,
    BLUE,
    DOUBLE_COLUMN_MM,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SINGLE_COLUMN_MM,
    VERMILLION,
    Drawing,
    TimeAxis,
    margins,
    new_figure,
    panel_letter,
    seconds_text,
)
from saxs_pipeline.outputs.simulated import ModelRun, Simulated, Summary, crystals_text, origins, summarise
from saxs_pipeline.science.population import Moments
from saxs_pipeline.types import Floats

PALETTE = {0.0: BLUE, 1.0: ORANGE, 2.0: GREEN, 3.0: PURPLE, 4.0: VERMILLION}
"""Colours of the growth exponents of the paper; others take in order what these leave."""

C_LABEL, R_LABEL, SIGMA_LABEL = r"$c_\mathrm{NC}$ (µmol L⁻¹)", "mean radius $r$ (nm)", "spread $σ_r$ (nm)"
DECADES = 4
"""Of time before the end that the figures show."""
DASHED = (0, (4, 2))
MOST = 5
"""Lines in one panel; of a longer scan so many are drawn."""


class Line(NamedTuple):
    """A run in a figure: its colour, its name (empty where n has none), its numbers."""

    run: ModelRun
    color: str
    label: str
    summary: Summary


def lines(simulated: Simulated) -> list[Line]:
    """At most five runs in order of n: lowest and highest, the run itself, the others evenly between."""
    runs = simulated.runs
    places = sorted({round(place) for place in np.linspace(0, len(runs) - 1, min(len(runs), MOST))})
    own = next(place for place, run in enumerate(runs) if run.development is simulated.development)
    if own not in places:
        places[min(range(1, len(places) - 1), key=lambda k: abs(places[k] - own))] = own
    drawn = [runs[place] for place in places]
    wanted = [BLUE if run.n is None else PALETTE.get(run.n) for run in drawn]
    free = (color for color in PALETTE.values() if color not in wanted)
    colors = [next(free) if color is None else color for color in wanted]
    return [Line(run, color, _label(run), summarise(run.development)) for run, color in zip(drawn, colors, strict=True)]


def _label(run: ModelRun) -> str:
    return "" if run.n is None else f"$n$ = {run.n:g}"


def draw_development(simulated: Simulated) -> Drawing:
    """c_NC and yield, rates, σ_r, r, S and r_c against the logarithm of time; inset: share of nucleation."""
    drawn = lines(simulated)
    figure = new_figure(DOUBLE_COLUMN_MM, 160)
    axes = figure.subplots(3, 2, sharex=True)
    _concentration(axes[0, 0], drawn)
    _rates(axes[0, 1], drawn)
    _curves(axes[1, 0], drawn, [line.run.development.all.sigma_nm for line in drawn], SIGMA_LABEL)
    _mark_ends(axes[1, 0], drawn)
    _curves(axes[1, 1], drawn, [line.run.development.all.radius_nm for line in drawn], R_LABEL)
    _supersaturation(axes[2, 0], drawn)
    _critical_radius(axes[2, 1], drawn)
    for ax in (axes[1, 0], axes[1, 1]):
        _keep_range(ax)
    for ax in axes[-1]:
        _time(ax, simulated)
    for ax, letter in zip(axes.ravel(), "abcdef", strict=True):
        panel_letter(ax, letter)
    _legend(figure, drawn)
    _grid_margins(figure)
    inset = _has_shares(simulated)
    if inset:
        _draw_share(axes[0, 0].inset_axes((0.17, 0.47, 0.3, 0.36)), simulated, small=True)
    return Drawing("model_development", figure, _caption(simulated, drawn, inset), _sentence(drawn))


def _time(ax: Axes, simulated: Simulated) -> None:
    """The same logarithmic axis everywhere: the last decades of the simulation."""
    shown = simulated.end_s * np.array([10.0**-DECADES, 1.0])
    TimeAxis(shown, np.ones(2, dtype=bool), logarithmic=True).apply(ax)
    ax.set_xlim(*shown)


def _curves(ax: Axes, drawn: list[Line], values: list[Floats], label: str) -> None:
    for line, value in zip(drawn, values, strict=True):
        ax.plot(line.run.development.time_s, value, color=line.color)
    ax.set_ylabel(label)


def _from_zero(ax: Axes, top: float) -> None:
    """From 0 to the top; an axis on which all is 0 keeps its own range."""
    if top > 0:
        ax.set_ylim(0, top)


def _keep_range(ax: Axes) -> None:
    """At least a tenth of the value, so that a constant is a straight line; room for the letter above the curves."""
    low, high = ax.get_ylim()
    middle = (low + high) / 2
    half = max((high - low) / 2, 0.05 * middle)
    ax.set_ylim(middle - half, middle + 1.2 * half)


def _concentration(ax: Axes, drawn: list[Line]) -> None:
    right = ax.twinx()
    for line in drawn:
        right.plot(line.run.development.time_s, 100 * line.run.development.yield_, color=BLACK)
    concentrations = [line.run.development.all.c_umol_L for line in drawn]
    _curves(ax, drawn, concentrations, C_LABEL)
    _from_zero(ax, 1.4 * max(float(c.max()) for c in concentrations))
    right.set_ylim(0, 118)
    right.set_yticks([0, 20, 40, 60, 80, 100])
    right.set_ylabel("yield (%)")
    ax.tick_params(right=False)
    _mark_ends(ax, drawn)


def _mark_ends(ax: Axes, drawn: list[Line]) -> None:
    """Where the concentration (coloured) and the yield (black) reach 98 %."""
    for line in drawn:
        for time, color in ((line.summary.t98_c_s, line.color), (line.summary.t98_yield_s, BLACK)):
            if np.isfinite(time):
                ax.axvline(time, color=color, lw=0.6, linestyle=DASHED, zorder=0)


def _rates(ax: Axes, drawn: list[Line]) -> None:
    """Generation, growth and nucleation over five decades."""
    for line in drawn:
        development = line.run.development
        ax.plot(development.time_s, development.generation, color=BLACK, lw=1.2)
    _curves(ax, drawn, [line.run.development.growth for line in drawn], "rate (mol m⁻³ s⁻¹)")
    for line in drawn:
        development = line.run.development
        ax.plot(development.time_s, development.nucleation, color=line.color, linestyle=":")
    top = max(float(line.run.development.generation.max()) for line in drawn)
    if top > 0:
        ax.set_yscale("log")
        ax.set_ylim(1e-5 * top, 5 * top)


def _supersaturation(ax: Axes, drawn: list[Line]) -> None:
    """S over at most five decades; logarithmic where it changes more than tenfold."""
    values = [line.run.development.supersaturation for line in drawn]
    _curves(ax, drawn, values, "supersaturation $S$")
    high = max(float(s.max()) for s in values)
    low = max(min(float(s.min()) for s in values), 1e-5 * high)
    if high > 10 * low:
        ax.set_yscale("log")
        ax.set_ylim(low / 1.3, 3 * high)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    else:
        _from_zero(ax, 1.3 * high)


def _critical_radius(ax: Axes, drawn: list[Line]) -> None:
    """r_c up to the largest mean radius; it grows without bound as S approaches 1."""
    _curves(
        ax, drawn, [line.run.development.critical_radius_nm for line in drawn], r"critical radius $r_\mathrm{c}$ (nm)"
    )
    radii = np.concatenate([line.run.development.all.radius_nm for line in drawn])
    if np.isfinite(radii).any():
        ax.set_ylim(0, 1.1 * float(np.nanmax(radii)))


def _legend(figure: Figure, drawn: list[Line]) -> None:
    """A row of exponents, if there are any, above a row of line styles."""
    exponents = [Line2D([], [], color=line.color, label=line.label) for line in drawn if line.label]
    color = GREY if exponents else drawn[0].color
    styles = [
        Line2D([], [], color=BLACK, lw=1.2, label="yield (a), generation (b)"),
        Line2D([], [], color=color, label="growth (b)"),
        Line2D([], [], color=color, linestyle=":", label="nucleation (b)"),
        Line2D([], [], color=color, lw=0.6, linestyle=DASHED, label="98 % reached (a, c)"),
    ]
    for row, handles in enumerate(filter(None, (exponents, styles))):
        top = 1 - 4 * row / (25.4 * figure.get_figheight())
        figure.legend(
            handles=handles, loc="upper center", bbox_to_anchor=(0.5, top), ncols=len(handles), borderaxespad=0.3
        )


def _grid_margins(figure: Figure) -> None:
    width, height = figure.get_size_inches() * 25.4
    figure.subplots_adjust(
        left=14 / width, right=1 - 3 / width, bottom=10 / height, top=1 - 10.5 / height, hspace=0.05, wspace=0.4
    )
    figure.align_ylabels()


def _has_shares(simulated: Simulated) -> bool:
    return int(np.isfinite(_shares(simulated)[1]).sum()) > 1


def _shares(simulated: Simulated) -> tuple[Floats, Floats]:
    """n and share of nucleation in % of the scan."""
    runs = [run for run in simulated.runs if run.n is not None] if simulated.scan else []
    exponents = np.array([run.n for run in runs], dtype=float)
    return exponents, 100 * np.array([summarise(run.development).nucleation_share for run in runs], dtype=float)


def draw_share(simulated: Simulated) -> Drawing | None:
    """Share of nucleation, t98 of c_NC over t98 of the yield, against n; None without a scan that has any."""
    if not _has_shares(simulated):
        return None
    figure = new_figure(SINGLE_COLUMN_MM, 60)
    _draw_share(figure.subplots(), simulated, small=False)
    margins(figure)
    exponents, shares = _shares(simulated)
    listed = ", ".join(f"{share:.1f} % at n = {n:g}" for n, share in zip(exponents, shares, strict=True))
    caption = (
        "Share of the reaction during which crystals nucleate: the time at which their concentration reaches 98 %, "
        f"divided by that of the yield, against the growth exponent n: {listed}."
    )
    return Drawing("model_share", figure, caption, f"Share of nucleation against the growth exponent: {listed}.")


def _draw_share(ax: Axes, simulated: Simulated, *, small: bool) -> None:
    exponents, shares = _shares(simulated)
    color_of = {line.run.n: line.color for line in lines(simulated)}
    ax.plot(exponents, shares, "-", color=GREY, lw=0.6, zorder=1)
    ax.scatter(exponents, shares, 8 if small else 18, [color_of.get(n, GREY) for n in exponents], zorder=2, lw=0)
    ax.set_ylim(0, 1.2 * float(np.nanmax(shares)))
    ax.margins(x=0.1)
    ax.yaxis.set_major_locator(MaxNLocator(4 if small else 5, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    if small:
        ax.tick_params(labelsize=6, pad=2, length=2)
        ax.set_xlabel("$n$", fontsize=6.5, labelpad=0)
        ax.set_ylabel("share (%)", fontsize=6.5, labelpad=1)
    else:
        ax.set_xlabel("growth exponent $n$")
        ax.set_ylabel("share of nucleation (%)")


def draw_modes(simulated: Simulated) -> Drawing | None:
    """c_NC, r and σ_r of the crystals by origin; None where all have the same."""
    development = simulated.development
    modes = [(mode, origin) for mode, origin in zip(development.modes, origins(simulated), strict=True) if origin]
    if len(modes) < 2:
        return None
    figure = new_figure(SINGLE_COLUMN_MM, 118)
    axes = figure.subplots(3, 1, sharex=True)
    axes[0].plot(development.time_s, development.all.c_umol_L, color=BLACK, lw=0.7, linestyle=DASHED, label="all")
    for (mode, origin), color in zip(modes, cycle((BLUE, VERMILLION, GREEN, PURPLE, ORANGE)), strict=False):
        for ax, value in zip(axes, (mode.c_umol_L, mode.radius_nm, mode.sigma_nm), strict=True):
            ax.plot(development.time_s, value, color=color, label=origin)
    for ax, label, letter in zip(axes, (C_LABEL, R_LABEL, SIGMA_LABEL), "abc", strict=True):
        ax.set_ylabel(label)
        panel_letter(ax, letter)
    _from_zero(axes[0], 1.25 * float(development.all.c_umol_L.max()))
    for ax in axes[1:]:
        _keep_range(ax)
    _time(axes[-1], simulated)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="upper center", ncols=len(modes) + 1, borderaxespad=0.3)
    margins(figure, top=7)
    ends = "; ".join(f"{origin}: {crystals_text(mode)}" for mode, origin in modes)
    caption = (
        "The simulated nanocrystals by origin: concentration (a; dashed: all), mean radius (b) and standard deviation "
        f"of the radii (c). At the end, crystals {ends}."
    )
    return Drawing("model_modes", figure, caption, f"Three plots against time, a line per mode; at the end {ends}.")


def _caption(simulated: Simulated, drawn: list[Line], inset: bool) -> str:
    share = " (inset: share of nucleation, the ratio of the two, against n)" if inset else ""
    hidden = len(simulated.runs) - len(drawn)
    others = f" {hidden} other n of the scan not shown." if hidden else ""
    together = " All modes together." if sum(map(bool, origins(simulated))) > 1 else ""
    return (
        "Simulated synthesis: (a) concentration c_NC (coloured) and yield (black); vertical dashed lines where they "
        f"reach 98 %{share}. (b) Monomers generated (black), consumed by growth (solid) and by nucleation (dotted). "
        "(c) Standard deviation of the radii. (d) Mean radius. (e) Supersaturation, at most five decades. (f) Critical "
        f"radius, up to the largest mean radius. The last {DECADES} decades of time.{together}{others} "
        f"{_sentence(drawn)}"
    )


def _sentence(drawn: list[Line]) -> str:
    """What each run ends with, for those who cannot see the figure."""
    return " ".join(f"{line.label.replace('$', '') or 'The run'}: {end_text(line.summary)}." for line in drawn)


def end_text(summary: Summary) -> str:
    """A run in words: t98 and their ratio if crystals nucleate, and the crystals at the end."""
    ends = []
    if np.isfinite(summary.t98_c_s):
        ends.append(f"98 % of c_NC at {seconds_text(summary.t98_c_s)}")
    if np.isfinite(summary.t98_yield_s):
        ends.append(f"98 % of the yield at {seconds_text(summary.t98_yield_s)}")
    if np.isfinite(summary.nucleation_share):
        ends.append(f"ratio {100 * summary.nucleation_share:.1f} %")
    last = Moments(*(np.array([value]) for value in (summary.c_nc_umol_L, summary.r_nm, summary.sigma_r_nm, 0.0)))
    return ", ".join([*ends, f"at the end {crystals_text(last)}"])
