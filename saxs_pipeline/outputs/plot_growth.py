"""How fast crystals of each radius grow: j_G(r) and its local exponent (Prins et al., Fig. 3b-c, S4.21)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from saxs_pipeline.outputs.plot_style import (
    BLACK,
    BLUE,
    DOUBLE_COLUMN_MM,
    GREY,
    VERMILLION,
    Drawing,
    new_figure,
    panel_letter,
)
from saxs_pipeline.science import growth
from saxs_pipeline.science.kinetics import Synthesis, growth_rate
from saxs_pipeline.types import Floats

LARGEST_NM = 5.0
"""Radius up to which the rates are drawn."""
POINTS = 801
RateLaw = Callable[[Floats, float, Synthesis, float], Floats]
FULL = "#A8A8A8"


class Regime(NamedTuple):
    """A rate of growth against radius: j_G and its limit for large radii in nm/s, local exponent; each (m,)."""

    name: str
    color: str
    rate: Floats
    limit: Floats
    exponent: Floats


def regimes(synthesis: Synthesis, supersaturation: float, capillary_m: float, radius_nm: Floats) -> list[Regime]:
    """The full rate, then under diffusion control (if D is finite) and under reaction control, at radii (m,) in nm."""
    laws = [("full rate", FULL, growth_rate), ("surface reaction", BLUE, growth.reaction_limited)]
    if math.isfinite(synthesis.diffusion_m2_s):
        laws.insert(1, ("diffusion", VERMILLION, growth.diffusion_limited))
    found = []
    for name, color, law in laws:

        def rate(radius_m: Floats, capillary_m: float = capillary_m, law: RateLaw = law) -> Floats:
            return 1e9 * law(radius_m, supersaturation, synthesis, capillary_m)

        radius_m = radius_nm * 1e-9
        exponent = growth.local_exponent(rate, radius_m)
        found.append(Regime(name, color, rate(radius_m), rate(radius_m, 0.0), exponent))
    return found


def radii_shown(synthesis: Synthesis, supersaturation: float, capillary_m: float) -> Floats:
    """Radii (m,) in nm from half the critical radius on, far enough to see the limits."""
    critical = critical_radius_nm(synthesis, supersaturation, capillary_m)
    if math.isnan(critical):
        return np.linspace(0.5, LARGEST_NM, POINTS)
    return np.linspace(0.45 * critical, max(LARGEST_NM, 4 * critical), POINTS)


def draw_growth_rate(synthesis: Synthesis, supersaturation: float, *, time_s: float = 0.0) -> Drawing:
    """j_G(r) with diffusion and with the surface reaction in control, beside the full rate; local exponents.

    time_s: when, for the temperature of a program. Without a diffusion limit (D infinite) its panel is left out.
    """
    capillary = synthesis.capillary_m(time_s)
    critical = critical_radius_nm(synthesis, supersaturation, capillary)
    known = not math.isnan(critical)
    radius = radii_shown(synthesis, supersaturation, capillary)
    full, *controls = regimes(synthesis, supersaturation, capillary, radius)
    figure = new_figure(DOUBLE_COLUMN_MM, 62)
    axes = figure.subplots(1, len(controls) + 1, sharex=True)
    for ax, control in zip(axes, controls, strict=False):
        _draw_rate(ax, radius, control, full)
    _draw_exponents(axes[-1], radius, [full, *controls], critical)
    for ax, letter in zip(axes, "abc", strict=False):
        _mark_critical(ax, critical)
        ax.set_xlabel("radius $r$ (nm)")
        panel_letter(ax, letter)
    axes[0].set_xlim(0, radius[-1])
    _legend(figure, controls)
    figure.subplots_adjust(left=0.085, right=0.985, bottom=0.165, top=0.9, wspace=0.34)
    text = _sentence(synthesis, supersaturation, critical, radius, [full, *controls])
    panels = " and ".join(f"{one.name} ({letter})" for one, letter in zip(controls, "ab", strict=False))
    grow = " of crystals that grow" if known else ""
    caption = (
        f"Growth rate j_G against the radius r, controlled by {panels}; grey: full rate; dashed: limit for large "
        f"radii, without the curvature of the surface{'; dotted: critical radius r_c' if known else ''}. "
        f"({'abc'[len(controls)]}) Local exponent n = −d ln |j_G|/d ln r{grow}. {text}"
    )
    return Drawing("growth_rate", figure, caption, f"Growth rate and its local exponent against the radius. {text}")


def _legend(figure: Figure, controls: list[Regime]) -> None:
    handles = [
        *(Line2D([], [], color=one.color, label=f"{one.name} controls") for one in controls),
        Line2D([], [], color=FULL, lw=2.4, label="full rate"),
        Line2D([], [], color=BLACK, lw=0.7, linestyle="--", label="large-$r$ limit"),
    ]
    figure.legend(handles=handles, loc="upper center", ncols=len(handles), columnspacing=1.4, borderaxespad=0.3)


def _sentence(
    synthesis: Synthesis, supersaturation: float, critical: float, radius: Floats, drawn: list[Regime]
) -> str:
    parts = [f"S = {supersaturation:g}"]
    if critical > 0:
        parts.append(f"r_c = {critical:.3g} nm")
    place = int(np.argmin(np.abs(radius - 2)))
    parts += [f"{one.name}: j_G = {one.rate[place]:.3g} nm/s, n = {one.exponent[place]:.2f}" for one in drawn]
    return f"{', '.join(parts[: -len(drawn)])}; at r = 2 nm {'; '.join(parts[-len(drawn) :])}."


def critical_radius_nm(synthesis: Synthesis, supersaturation: float, capillary_m: float) -> float:
    """Where crystals neither grow nor dissolve; NaN without desorption or at S ≤ 1, where there is no such radius."""
    if not synthesis.desorption or supersaturation <= 1:
        return math.nan
    return 1e9 * capillary_m / math.log(supersaturation)


def _draw_rate(ax: Axes, radius: Floats, control: Regime, full: Regime) -> None:
    top, low = float(control.rate.max()), float(control.rate.min())
    power = _power(max(top, -low if top <= 0 else 0.0))
    scale = 10.0**-power
    ax.plot(radius, scale * full.rate, color=FULL, lw=2.4)
    ax.plot(radius, scale * control.limit, color=control.color, linestyle="--", lw=0.7)
    ax.plot(radius, scale * control.rate, color=control.color)
    ax.axhline(0, color=GREY, lw=0.5, zorder=0)
    if top > 0:
        floor = -0.35 * top if low < 0 else -0.05 * top
        ax.set_ylim(scale * floor, scale * max(1.45 * top, 1.2 * float(control.limit[-1])))
    elif low < 0:
        ax.set_ylim(1.05 * scale * low, -0.25 * scale * low)
    unit = "nm s⁻¹" if power == 0 else f"$10^{{{power}}}$ nm s⁻¹"
    ax.set_ylabel(rf"growth rate $j_\mathrm{{G}}$ ({unit})")


def _draw_exponents(ax: Axes, radius: Floats, drawn: list[Regime], critical: float) -> None:
    growing = radius > 1.02 * critical if critical > 0 else np.ones(radius.size, dtype=bool)
    for one, width in zip(drawn, (2.4, 0.9, 0.9), strict=False):
        ax.plot(radius[growing], one.exponent[growing], color=one.color, lw=width)
    values = np.concatenate([one.exponent[growing] for one in drawn])
    known = values[np.isfinite(values)]  # where nothing grows or dissolves there is none
    if known.size:
        ax.set_ylim(max(-2.0, float(known.min())) - 0.25, float(known.max()) + 0.4)
    ax.set_ylabel("local exponent $n$")


def _mark_critical(ax: Axes, critical: float) -> None:
    if critical > 0:
        ax.axvline(critical, color=GREY, lw=0.7, linestyle=":", zorder=0)
        ax.annotate(
            r"$r_\mathrm{c}$", (critical, 0.6), (-2.5, 0), xycoords=("data", "axes fraction"),
            textcoords="offset points", color=GREY, ha="right",
        )  # fmt: skip


def _power(values: float) -> int:
    """Power of ten, a multiple of three, that brings a value between 1 and 1000."""
    return 3 * math.floor(math.log10(values) / 3) if values > 0 else 0
