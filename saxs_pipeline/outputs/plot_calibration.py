"""The figure of the absolute scale: the standard's curve, how it compares with what is known, and residuals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from saxs_pipeline.outputs.numbers import plus_minus
from saxs_pipeline.outputs.plot_style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    Q_LABEL,
    SINGLE_COLUMN_MM,
    Drawing,
    error_bars,
    margins,
    new_figure,
    panel_letter,
)
from saxs_pipeline.science.calibration import StandardMeasurement, usable
from saxs_pipeline.science.standards import (
    SRM_3600_1_MM,
    SRM_3600_Q_NM,
    SRM_3600_REL,
    SRM_3600_U_1_MM,
    glassy_carbon,
)
from saxs_pipeline.types import Bools, Floats, ScaleFactor, Uncertain

WINDOW, UNCERTAIN, UNUSED = "#EEF3F7", "#C9C9C9", "#9A9A9A"
"""Shades of the window and of what is uncertain about the known values; points outside the window."""


def draw_water(name: str, measured: StandardMeasurement, scale: ScaleFactor, known: Uncertain) -> Drawing:
    """Water, empty cell and their difference on the absolute scale; the difference about its level; residuals.

    known: dΣ/dΩ in 1/mm.
    """
    figure, (curves, level, residuals) = _panels(scale)
    _draw_curves(curves, measured, scale, ("water in its cell", "empty cell", "water: difference"), 1e3)
    curves.set_ylabel("$I$ (10⁻³ mm⁻¹)")
    curves.axhline(1e3 * known.value, color=BLACK, lw=0.7, ls="--", label="known cross section", zorder=4)
    curves.legend(loc="upper right")
    _draw_ratio(
        level, measured, scale, np.full(measured.q_nm.size, 1e-3), at=1e3 * known.value, relative=known.relative
    )
    level.set_ylabel("water (10⁻³ mm⁻¹)")
    _draw_residuals(residuals, measured, scale, np.full(measured.q_nm.size, known.value))
    margins(figure, left=14)
    text = _sentence(scale)
    caption = (
        f"Absolute scale from water. (a) Water in its cell, the empty cell, and their difference, each times K/d, with "
        f"bands of ± σ of the counts; shaded: the window; dashed: known cross section, {plus_minus(*known)} mm⁻¹, "
        f"where the level of the window is put. (b) The difference; grey band: ± the uncertainty of the known cross "
        f"section; grey points: outside the window. (c) Its residuals in σ of the counts. {text}"
    )
    return Drawing(name, figure, caption, f"Scattering of water on the absolute scale. {text}")


def draw_glassy_carbon(name: str, measured: StandardMeasurement, scale: ScaleFactor) -> Drawing:
    """Glassy carbon on the absolute scale over the certified values; their ratio; residuals."""
    figure, (curves, ratio, residuals) = _panels(scale)
    _draw_curves(curves, measured, scale, ("with background", "background", "carbon: difference"))
    curves.set_ylabel("$I$ (mm⁻¹)")
    curves.errorbar(
        SRM_3600_Q_NM, SRM_3600_1_MM, SRM_3600_U_1_MM, fmt="o", ms=1.8, mfc="none", mew=0.5, color=BLACK,
        elinewidth=0.5, label="certified (SRM 3600)", zorder=4,
    )  # fmt: skip
    curves.legend(loc="best")
    known = glassy_carbon(measured.q_nm)
    _draw_ratio(ratio, measured, scale, known, at=1.0, relative=SRM_3600_REL)
    ratio.set_ylabel("measured / certified")
    _draw_residuals(residuals, measured, scale, known)
    margins(figure, left=14)
    text = _sentence(scale)
    caption = (
        f"Absolute scale from glassy carbon. (a) The carbon with its background, the background, and their difference, "
        f"each times K/d, with bands of ± σ of the counts, over the certified values with their standard uncertainty; "
        f"shaded: the window. (b) Measured over certified; grey band: ± the certificate's uncertainty, common to all "
        f"q; grey points: outside the window. (c) Residuals in σ of the counts. {text}"
    )
    return Drawing(name, figure, caption, f"Scattering of glassy carbon over the certified values. {text}")


def _sentence(scale: ScaleFactor) -> str:
    return (
        f"K = {plus_minus(*scale.factor)}; change across the window {scale.drift:+.2%} "
        f"({scale.slope_over_sigma:+.2f} σ), χ²_red {scale.chi2_red:.3g}."
    )


def _panels(scale: ScaleFactor) -> tuple[Figure, Sequence[Axes]]:
    """Three panels over the same logarithmic q, the window shaded."""
    assert scale.window_nm is not None
    figure = new_figure(SINGLE_COLUMN_MM, 125)
    axes = figure.subplots(3, 1, sharex=True, height_ratios=(2.2, 1, 1))
    for ax, letter in zip(axes, "abc", strict=True):
        ax.axvspan(*scale.window_nm, color=WINDOW, lw=0, zorder=-1)
        panel_letter(ax, letter)
    axes[-1].set(xscale="log", xlabel=Q_LABEL)
    axes[-1].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[-1].xaxis.set_major_formatter(lambda q, _: f"{q:g}")
    axes[-1].xaxis.set_minor_formatter(NullFormatter())
    return figure, axes


def _scaled(measured: StandardMeasurement, scale: ScaleFactor) -> tuple[Floats, Floats]:
    level, sigma = measured.difference()
    return scale.factor.value * level, scale.factor.value * sigma


def _used(measured: StandardMeasurement, scale: ScaleFactor) -> Bools:
    assert scale.window_nm is not None
    return usable(measured, scale.window_nm)


def _draw_curves(
    ax: Axes, measured: StandardMeasurement, scale: ScaleFactor, names: tuple[str, str, str], unit: float = 1.0
) -> None:
    """The two measurements and their difference, all times K/d, with bands of ± σ; gaps where one is not above 0.

    unit: what 1 mm⁻¹ is on the axis.
    """
    factor = unit * scale.factor.value / measured.thickness_mm.value
    pairs = [(factor * i, factor * s) for i, s in (measured.standard, measured.background)]
    pairs.append((unit * _scaled(measured, scale)[0], unit * _scaled(measured, scale)[1]))
    for (value, error), label, color, width in zip(pairs, names, (ORANGE, GREY, BLUE), (1.8, 0.8, 0.8), strict=True):
        positive = np.where((value > 0) & (measured.q_nm > 0), value, np.nan)
        low = np.where(value > error, value - error, positive)
        ax.fill_between(measured.q_nm, low, positive + error, color=color, alpha=0.3, lw=0)
        ax.plot(measured.q_nm, positive, color=color, lw=width, label=label)
    ax.set_yscale("log")
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom / 1.1, 1.4 * top)  # room for the letter
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if top < 300 * bottom else (1,)))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())


def _draw_ratio(
    ax: Axes, measured: StandardMeasurement, scale: ScaleFactor, unit: Floats, *, at: float, relative: float
) -> None:
    """Measured over `unit` (m,) about the value `at`, which is known with a relative uncertainty."""
    y, sigma = (column / unit for column in _scaled(measured, scale))
    ax.axhspan(at * (1 - relative), at * (1 + relative), color=UNCERTAIN, lw=0, zorder=0)
    ax.axhline(at, color=BLACK, lw=0.7, ls="--", zorder=1)
    inside = _used(measured, scale)
    for shown, color in ((~inside, UNUSED), (inside, BLUE)):
        error_bars(ax, measured.q_nm[shown], (y - sigma)[shown], (y + sigma)[shown], color)
        ax.plot(measured.q_nm[shown], y[shown], "o", ms=1.3, mew=0, color=color, zorder=3)
    reach = 1.15 * max(float(np.abs(y[inside] - at).max() + np.median(sigma[inside])), 1.6 * at * relative)
    ax.set_ylim(at - reach, at + reach)


def _draw_residuals(ax: Axes, measured: StandardMeasurement, scale: ScaleFactor, known: Floats) -> None:
    """(measured - known)/σ of the counts, with lines at ± 2."""
    y, sigma = _scaled(measured, scale)
    inside = _used(measured, scale)
    residual = (y - known) / np.where(sigma > 0, sigma, np.nan)
    for shown, color in ((~inside, UNUSED), (inside, BLUE)):
        ax.plot(measured.q_nm[shown], residual[shown], "o", ms=1.3, mew=0, color=color)
    for at, style in ((-2, ":"), (0, "-"), (2, ":")):
        ax.axhline(at, color=GREY, lw=0.5, ls=style, zorder=0)
    limit = max(4.5, 1.15 * float(np.abs(residual[inside]).max()))
    ax.set(ylim=(-limit, limit), ylabel="residual / $σ$")
