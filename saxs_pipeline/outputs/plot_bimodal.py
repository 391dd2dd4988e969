"""Two populations growing in one mixture: measured radii and what growth ∝ 1/rⁿ predicts (Prins et al., Fig. 4)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
from matplotlib.axes import Axes

from saxs_pipeline.outputs.numbers import plus_minus
from saxs_pipeline.outputs.plot_style import (
    BLACK,
    BLUE,
    DOUBLE_COLUMN_MM,
    GREEN,
    ORANGE,
    VERMILLION,
    Drawing,
    TimeAxis,
    new_figure,
    panel_letter,
)
from saxs_pipeline.science import growth
from saxs_pipeline.science.growth import ExponentFit
from saxs_pipeline.types import Floats


class Radii(Protocol):
    """Radii of two populations and their standard uncertainties, nm, at times in s; each (k,)."""

    @property
    def time_s(self) -> Floats:
        """Time in s, (k,)."""
        ...

    @property
    def r1_nm(self) -> Floats:
        """Mean radius of the first population."""
        ...

    @property
    def r1_error(self) -> Floats:
        """Its standard uncertainty."""
        ...

    @property
    def r2_nm(self) -> Floats:
        """Mean radius of the second population."""
        ...

    @property
    def r2_error(self) -> Floats:
        """Its standard uncertainty."""
        ...


class Prediction(NamedTuple):
    """A growth law in the figure: its fit, and the fits at n ± σ_n (none without an uncertainty)."""

    name: str
    color: str
    fit: ExponentFit
    band: tuple[ExponentFit, ...] = ()


def predictions(radii: Radii, fit: ExponentFit) -> list[Prediction]:
    """Reaction control, diffusion control, and the fitted exponent, each with the constant of S4.15 that fits best."""

    def given(exponent: float) -> ExponentFit:
        return growth.with_exponent(radii.r1_nm, radii.r1_error, radii.r2_nm, radii.r2_error, exponent)

    n, error = fit.exponent.value, fit.exponent.error
    known = math.isfinite(error) and error > 0
    text = plus_minus(n, error) if known else f"{n:.3g}"
    return [
        Prediction("$n$ = 0, reaction", BLUE, given(0.0)),
        Prediction("$n$ = 1, diffusion", VERMILLION, given(1.0)),
        Prediction(f"$n$ = {text}", GREEN, fit, (given(n - error), given(n + error)) if known else ()),
    ]


def draw_bimodal(radii: Radii, fit: ExponentFit) -> Drawing:
    """r₁ and r₂ against time (a) and r₁ against r₂ (b), with r₁ predicted from r₂ for n = 0, 1 and the fitted n."""
    drawn = predictions(radii, fit)
    figure = new_figure(DOUBLE_COLUMN_MM, 76)
    left, right = figure.subplots(1, 2)
    _against_time(left, radii, drawn)
    _against_each_other(right, radii, drawn)
    for ax, letter in ((left, "a"), (right, "b")):
        panel_letter(ax, letter)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=len(labels), columnspacing=1.3, borderaxespad=0.3)
    figure.subplots_adjust(left=0.075, right=0.985, bottom=0.135, top=0.915, wspace=0.2)
    text = "; ".join(f"{one.name.replace('$', '')}: reduced χ² {one.fit.chi2_red:.3g}" for one in drawn)
    shaded = " Shaded: n ± its standard uncertainty." if drawn[-1].band else ""
    caption = (
        "Radii of two populations in one mixture against time (a), and one against the other (b). Points: measured, "
        "bars: standard uncertainty. Lines: r₁ predicted from the measured r₂ by growth ∝ 1/rⁿ, each with its best "
        f"constant ({text}).{shaded} {' '.join(fit.notes)}"
    )
    return Drawing("growth_bimodal", figure, caption.strip(), f"Two radii and predictions of the first; {text}.")


def _against_time(ax: Axes, radii: Radii, drawn: list[Prediction]) -> None:
    order, time = np.argsort(radii.time_s, kind="stable"), radii.time_s
    ax.errorbar(time, radii.r1_nm, radii.r1_error, color=ORANGE, label="$r_1$ measured", **_POINTS)
    ax.errorbar(time, radii.r2_nm, radii.r2_error, color=BLACK, label="$r_2$ measured", **_POINTS)
    for one in drawn:
        _draw_prediction(ax, time[order], one, [which.r1_nm[order] for which in (one.fit, *one.band)])
    logarithmic = bool(time.min() > 0 and time.max() > 10 * time.min())
    TimeAxis(time, np.ones(time.size, dtype=bool), logarithmic).apply(ax)
    ax.set_ylabel("radius (nm)")


def _against_each_other(ax: Axes, radii: Radii, drawn: list[Prediction]) -> None:
    ax.errorbar(radii.r2_nm, radii.r1_nm, radii.r1_error, radii.r2_error, color=ORANGE, **_POINTS)
    second = np.linspace(float(radii.r2_nm.min()), float(radii.r2_nm.max()), 300)
    for one in drawn:
        _draw_prediction(ax, second, one, [_first_radius(which, radii, second) for which in (one.fit, *one.band)])
    ax.set_xlabel("second radius $r_2$ (nm)")
    ax.set_ylabel("first radius $r_1$ (nm)")


_POINTS: Any = {"fmt": "o", "ms": 2.6, "elinewidth": 0.6, "mew": 0, "zorder": 3}


def _draw_prediction(ax: Axes, x: Floats, one: Prediction, curves: list[Floats]) -> None:
    """The fitted law, and the band between the laws at both ends of its uncertainty."""
    ax.plot(x, curves[0], color=one.color, label=one.name, zorder=2)
    if len(curves) > 1:
        low, high = np.minimum(*curves[1:]), np.maximum(*curves[1:])
        ax.fill_between(x, low, high, color=one.color, alpha=0.22, lw=0, zorder=1)


def _first_radius(fit: ExponentFit, radii: Radii, second: Floats) -> Floats:
    """r₁ at other r₂, along the same growth law; NaN where it has none."""
    known = np.flatnonzero(np.isfinite(fit.r1_nm))
    if not known.size:
        return np.full(second.shape, np.nan)
    start = known[0]
    return growth.bimodal_radius(second, float(fit.r1_nm[start]), float(radii.r2_nm[start]), fit.exponent.value)
