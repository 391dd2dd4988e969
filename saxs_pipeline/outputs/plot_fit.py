"""The figure of one curve's fit: I(q) with what it is made of, residuals, the distribution of radii, its parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from saxs_pipeline.curve_fit import CurveFit, FitParameter
from saxs_pipeline.outputs.fit_files import unit_text, value_text
from saxs_pipeline.outputs.plot_style import (
    BLACK,
    BLUE,
    DOUBLE_COLUMN_MM,
    GREEN,
    GREY,
    LIGHT_GREY,
    ORANGE,
    PURPLE,
    Q_LABEL,
    VERMILLION,
    Drawing,
    error_bars,
    new_figure,
    panel_letter,
)
from saxs_pipeline.science.distributions import gaussian_density, lognormal_density, schulz_density
from saxs_pipeline.types import Bools, Floats

_HEIGHT_MM, _TOP_MM, _BOTTOM_MM = 100.0, 2.5, 10.0
_LEFT_MM, _WIDE_MM, _STRIP_MM = 14.0, 96.0, 21.0
_SIDE_MM, _SIDE_WIDE_MM, _SIDE_HIGH_MM, _LINE_MM = 124.0, 43.0, 38.0, 3.7
_STYLES = ((BLUE, "-"), (ORANGE, "-"))
_TERMS = {"power law": (GREEN, "--"), "constant": (PURPLE, ":")}
_DENSITIES: dict[str, Callable[[Floats, float, float], Floats]] = {
    "gaussian": gaussian_density,
    "lognormal": lognormal_density,
    "schulz": schulz_density,
}
_REACH = 4.5
"""Standard deviations of a distribution that are drawn."""
_MUCH_LOWER = 4.0
"""A distribution whose peak is lower than another's by more is drawn enlarged."""


def draw_fit(fit: CurveFit) -> Drawing:
    """The curve with fit, 1σ band and parts, log-log; normalised residuals; number distribution of the radii."""
    figure = new_figure(DOUBLE_COLUMN_MM, _HEIGHT_MM)
    high = _HEIGHT_MM - _TOP_MM - _BOTTOM_MM - _STRIP_MM
    curve = _axes(figure, _LEFT_MM, _BOTTOM_MM + _STRIP_MM, _WIDE_MM, high)
    strip = _axes(figure, _LEFT_MM, _BOTTOM_MM, _WIDE_MM, _STRIP_MM)
    sizes = _axes(figure, _SIDE_MM, _HEIGHT_MM - _TOP_MM - _SIDE_HIGH_MM, _SIDE_WIDE_MM, _SIDE_HIGH_MM)
    _draw_curve(curve, fit)
    _draw_residuals(strip, fit)
    enlarged = _draw_sizes(sizes, fit)
    for ax, letter in ((curve, "a"), (strip, "b"), (sizes, "c")):
        panel_letter(ax, letter)
    strip.set_xlim(*curve.get_xlim())
    curve.tick_params(labelbottom=False)
    figure.align_ylabels([curve, strip])
    _write_parameters(figure, fit)
    limited = any(math.isfinite(one.upper_limit) for one in fit.parameters)
    unresolved = "; a width that is an upper limit is drawn as fitted" if limited else ""
    caption = (
        f"{fit.source}. (a) I(q) with bars of its standard uncertainty; pale: I < σ, without bars; hollow: outside the "
        "fit. Thick line: the fit with its 1σ band from the covariance; thin: what each part adds. (b) (I − fit)/σ; "
        f"shaded: ±1. (c) {_what(fit)} of the radii{enlarged}{unresolved}. χ²_red {fit.chi2_red:.3g} with "
        f"{fit.degrees} degrees of freedom; {_listed(fit)}."
    )
    return Drawing("fit", figure, caption, f"Scattering curve with its fit; {_listed(fit)}.")


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in mm."""
    return figure.add_axes(
        (left / DOUBLE_COLUMN_MM, bottom / _HEIGHT_MM, width / DOUBLE_COLUMN_MM, height / _HEIGHT_MM)
    )


def _listed(fit: CurveFit) -> str:
    return ", ".join(f"{one.name} {value_text(one)}" for one in fit.parameters)


# --- the curve -------------------------------------------------------------------------------------------------------


def _draw_curve(ax: Axes, fit: CurveFit) -> None:
    q, intensity, sigma = fit.curve.q_nm, fit.curve.intensity[0], fit.curve.sigma[0]
    drawn = (intensity > 0) & (q > 0)
    clear = drawn & (intensity > sigma)  # the other bars reach zero, which a logarithmic axis does not have
    for rows, color in ((fit.window, BLACK), (~fit.window, GREY)):
        _draw_points(ax, fit, drawn & rows, clear & rows, color)
    there = fit.window & (q > 0)
    low, high = np.maximum(fit.fitted - fit.band, 1e-3 * fit.fitted), fit.fitted + fit.band
    ax.fill_between(q[there], low[there], high[there], color=VERMILLION, alpha=0.35, lw=0)
    for label, part in fit.parts:
        color, line = _style(fit, label)
        shown = there & (part > 0)
        if shown.any():
            ax.plot(q[shown], part[shown], line, color=color, lw=0.7, zorder=3, label=label)
    ax.plot(q[there], fit.fitted[there], "-", color=VERMILLION, lw=1.0, zorder=4, label="fit")
    ax.set(xscale="log", yscale="log", ylabel=f"$I$ ({unit_text(fit.curve.unit)})")
    level = intensity[clear & fit.window] if (clear & fit.window).any() else intensity[drawn]
    lowest, highest = float(np.percentile(level, 1)), float(max(level.max(), np.nanmax(fit.fitted)))
    constant = fit.parameter("background").value
    bottom = max(0.5 * constant, 0.03 * lowest) if constant > 0 else lowest  # a line far below leaves the curve no room
    ax.set_ylim(min(0.4 * lowest, bottom), 3 * highest)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.legend(loc="lower left", frameon=True, facecolor="white", edgecolor="none", framealpha=0.85)


def _draw_points(ax: Axes, fit: CurveFit, drawn: Bools, clear: Bools, color: str) -> None:
    q, intensity, sigma = fit.curve.q_nm, fit.curve.intensity[0], fit.curve.sigma[0]
    error_bars(ax, q[clear], (intensity - sigma)[clear], (intensity + sigma)[clear], color)
    pale = drawn & ~clear
    ax.plot(q[pale], intensity[pale], "o", ms=1.4, color=color, mew=0, alpha=0.3, zorder=2)
    face = "none" if color == GREY else color
    ax.plot(q[clear], intensity[clear], "o", ms=1.9, mfc=face, mec=color, mew=0.3, zorder=2)


def _style(fit: CurveFit, label: str) -> tuple[str, str]:
    """Colour and line of a part: populations by their order, terms by their name."""
    number = [label for label, _ in fit.parts].index(label)
    return _STYLES[number] if number < len(fit.model.populations) else _TERMS[label]


def _draw_residuals(ax: Axes, fit: CurveFit) -> None:
    q, shown = fit.curve.q_nm, fit.window & np.isfinite(fit.curve.intensity[0]) & (fit.curve.q_nm > 0)
    residual = ((fit.curve.intensity[0] - fit.fitted) / fit.curve.sigma[0])[shown]
    residual, q = residual[np.isfinite(residual)], q[shown][np.isfinite(residual)]
    reach = max(3.5, 1.1 * float(np.abs(residual).max()))
    ax.axhspan(-1, 1, color=LIGHT_GREY, alpha=0.6, lw=0, zorder=0)
    ax.axhline(0, color=VERMILLION, lw=0.7, zorder=1)
    ax.plot(q, residual, "o", ms=1.6, color=BLACK, mew=0, zorder=3)
    ax.set(xscale="log", xlabel=Q_LABEL, ylabel="Δ/$σ$", ylim=(-reach, reach))
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True, prune="both"))
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())


# --- sizes -----------------------------------------------------------------------------------------------------------


class _Sizes(NamedTuple):
    """Distribution of one population: its name, amount, mean and standard deviation of the radius, nm."""

    name: str
    amount: float
    radius: float
    sigma: float

    def density(self, distribution: str, radius: Floats) -> Floats:
        """Its amount per nm; 0 where there is no size."""
        found = np.zeros_like(radius)
        there = radius > 0
        found[there] = self.amount * _DENSITIES[distribution](radius[there], self.radius, self.sigma**2)
        return found


def _populations(fit: CurveFit) -> list[_Sizes]:
    """Amounts in µmol/L, or else relative to the largest."""
    c = "c_nc" if fit.absolute else "amplitude"
    unit = 1.0 if fit.absolute else max(abs(fit.parameter(f"{prefix}{c}").value) for prefix in fit.model.prefixes)
    return [
        _Sizes(
            one.name,
            fit.parameter(f"{prefix}{c}").value / unit,
            fit.parameter(f"{prefix}radius").value,
            fit.parameter(f"{prefix}sigma").value,
        )
        for one, prefix in zip(fit.model.populations, fit.model.prefixes, strict=True)
    ]


def _draw_sizes(ax: Axes, fit: CurveFit) -> str:
    """Number distributions; a sentence on those that are enlarged. Equal spheres are a line."""
    populations = _populations(fit)
    low = min(one.radius - _REACH * one.sigma for one in populations)
    high = max(one.radius + _REACH * one.sigma for one in populations)
    margin = 0.0 if high > low else 0.1 * high
    radius = np.linspace(max(0.0, low - margin), high + margin, 600)
    curves = [one.density(fit.model.distribution, radius) if one.sigma > 0 else None for one in populations]
    highest = max((float(curve.max()) for curve in curves if curve is not None), default=1.0)
    said = ""
    for one, curve, (color, line) in zip(populations, curves, _STYLES, strict=False):
        if curve is None:
            ax.axvline(one.radius, color=color, lw=1.0)
            continue
        factor = _enlargement(highest, float(curve.max()))
        said += f"; {one.name} enlarged {factor:g} times" if factor != 1 else ""
        label = f"{one.name} × {factor:g}" if factor != 1 else one.name
        ax.plot(radius, factor * curve, line, color=color, lw=1.0, label=label)
        ax.fill_between(radius, factor * curve, color=color, alpha=0.15, lw=0)
    ax.set_xlim(radius[0], radius[-1])
    ax.set_ylim(0, 1.3 * highest)
    ax.set_xlabel("$R$ (nm)")
    ax.set_ylabel("d$c$/d$R$ (µmol L⁻¹ nm⁻¹)" if fit.absolute else "relative number (nm⁻¹)")
    if len(populations) > 1:
        ax.legend(loc="upper right")
    return said


def _enlargement(highest: float, peak: float) -> float:
    """1, or a round factor that makes the peak at most as high as the highest."""
    if not 0 < peak < highest / _MUCH_LOWER:
        return 1.0
    power = 10.0 ** math.floor(math.log10(highest / peak))
    return power * math.floor(highest / peak / power)


def _what(fit: CurveFit) -> str:
    return {"gaussian": "Gaussian", "lognormal": "Lognormal", "schulz": "Schulz–Zimm"}[
        fit.model.distribution
    ] + " number distribution"


_SYMBOLS = {
    "c_nc": "$c$",
    "amplitude": "$A$",
    "radius": "$R$",
    "sigma": "$σ_R$",
    "background": "$b$",
    "power_law": "$d$",
    "exponent": "$p$",
    "volume_fraction": "$η$",
}


def _write_parameters(figure: Figure, fit: CurveFit) -> None:
    """The parameters below the distribution, with a mark in the colour of their population."""
    top = _HEIGHT_MM - _TOP_MM - _SIDE_HIGH_MM - 13.0
    lines = [(_line(one, fit), _color(one, fit)) for one in fit.parameters]
    lines.append((f"$χ^2_{{\\rm red}}$ = {fit.chi2_red:.3g} ({fit.degrees} d.o.f.)", BLACK))
    for k, (text, color) in enumerate(lines):
        x, y = (_SIDE_MM - 8.0) / DOUBLE_COLUMN_MM, (top - k * _LINE_MM) / _HEIGHT_MM
        figure.text(x, y, text, fontsize=7, va="top")
        if color != BLACK:
            figure.text(x - 2.6 / DOUBLE_COLUMN_MM, y, "■", color=color, fontsize=6, va="top")


def _line(one: FitParameter, fit: CurveFit) -> str:
    prefix = next((p for p in fit.model.prefixes if p and one.name.startswith(p)), "")
    symbol = _SYMBOLS[one.name.removeprefix(prefix)]
    value = value_text(one)
    held = "" if one.how == "fitted" or math.isfinite(one.upper_limit) else f" ({one.how.split(':')[0]})"
    return f"{symbol} {value}{held}" if value.startswith("<") else f"{symbol} = {value}{held}"


def _color(one: FitParameter, fit: CurveFit) -> str:
    for k, prefix in enumerate(fit.model.prefixes):
        if prefix and one.name.startswith(prefix):
            return _STYLES[k][0]
    return BLACK
