"""Coexisting populations against time: r, σ_r, c and yield of each, and what the yields are together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from saxs_pipeline.outputs.flags import has_word, independent
from saxs_pipeline.outputs.flags import populations as named
from saxs_pipeline.outputs.numbers import percent
from saxs_pipeline.outputs.plot_series import LABELS, draw_points, draw_upper_limits, set_limits
from saxs_pipeline.outputs.plot_style import (
    BLACK,
    BLUE,
    DOUBLE_COLUMN_MM,
    ORANGE,
    Drawing,
    TimeAxis,
    left_out,
    new_figure,
    panel_letter,
    time_axis,
)
from saxs_pipeline.types import Bools, Estimate, Quantities, RunResult

_COLORS = (BLUE, ORANGE)


class _One(NamedTuple):
    """A population; shown (n,): the frames in which its fit can be trusted."""

    name: str
    quantities: Quantities
    color: str
    shown: Bools


def draw_populations(result: RunResult) -> Drawing | None:
    """r, σ_r, c and yield of two populations; None of one."""
    if not result.others:
        return None
    axis = time_axis(result)
    populations = [
        _One(name, one, color, independent(result, one) & axis.visible)
        for (name, one), color in zip(named(result), _COLORS, strict=True)
    ]
    figure = new_figure(DOUBLE_COLUMN_MM, 100)
    axes = figure.subplots(2, 2, sharex=True)
    _sizes(axes[0, 0], axes[1, 0], axis, populations)
    _amounts(axes[0, 1], axes[1, 1], axis, populations)
    for ax, letter in zip(axes.T.ravel(), "abcd", strict=True):
        panel_letter(ax, letter)
    for ax in axes[1]:
        axis.apply(ax)
    figure.subplots_adjust(left=0.075, right=0.975, bottom=0.1, top=0.955, hspace=0.12, wspace=0.2)
    names = " and ".join(one.name for one in populations)
    caption = (
        f"Mean radius r (a), spread σ_r (b), concentration (c) and yield (d) of {names} against the time since the "
        "time zero. Bars: statistical standard uncertainty. Hollow: the population is too weak to tell its size; its c "
        "and yield are at a size taken over, or from the fit of both. Triangles: upper limits. "
        f"{_gone_text(populations)}{left_out(result, axis)}"
    )
    return Drawing("populations", figure, caption.strip(), f"Radius, spread, concentration and yield of {names}.")


def _sizes(upper: Axes, lower: Axes, axis: TimeAxis, populations: list[_One]) -> None:
    for one in populations:
        limit = has_word(one.quantities.flags, "sigma_upper_limit")
        draw_points(upper, axis, one.quantities.radius_nm, one.shown, one.color)
        draw_points(lower, axis, one.quantities.sigma_nm, one.shown & ~limit, one.color)
        draw_upper_limits(lower, axis, one.quantities.sigma_nm, one.shown & limit, one.color)
    for ax, name, label in ((upper, "radius_nm", "radius"), (lower, "sigma_nm", "sigma")):
        both = [getattr(one.quantities, name) for one in populations]
        set_limits(ax, _stacked(both), np.concatenate([one.shown for one in populations]))
        ax.set_ylabel(LABELS[label])
    _legend(upper, populations)


def _amounts(upper: Axes, lower: Axes, axis: TimeAxis, populations: list[_One]) -> None:
    sized = [np.isfinite(one.quantities.radius_nm.value) for one in populations]
    for ax, name in ((upper, "c"), (lower, "yield")):
        both = [one.quantities.c_nc_umol_L if name == "c" else percent(one.quantities.yield_) for one in populations]
        for one, estimate, there in zip(populations, both, sized, strict=True):
            draw_points(ax, axis, estimate, one.shown & there, one.color)
            draw_points(ax, axis, estimate, one.shown & ~there, one.color, hollow=True)
        total, shown = both[0].value + both[1].value, populations[0].shown & populations[1].shown
        if name == "yield" and np.isfinite(total[shown]).any():
            order = np.argsort(axis.seconds, kind="stable")
            rows = order[(shown & np.isfinite(total))[order]]
            ax.plot(axis.seconds[rows], total[rows], color=BLACK, lw=0.6, zorder=1, label="together")
            ax.legend(loc="center right")
        each = np.concatenate([one.shown for one in populations])
        set_limits(ax, _stacked(both), each, from_zero=True, also=total[shown])
        ax.set_ylabel("$c$ (µmol L⁻¹)" if name == "c" else LABELS["yield"])


def _stacked(estimates: list[Estimate]) -> Estimate:
    return Estimate(*(np.concatenate(parts) for parts in zip(*estimates, strict=True)))


def _legend(ax: Axes, populations: list[_One]) -> None:
    for one in populations:
        ax.plot([], [], "o", ms=3, color=one.color, label=one.name)
    ax.legend(loc="best")


def _gone_text(populations: list[_One]) -> str:
    found = []
    for one in populations:
        gone = np.flatnonzero(has_word(one.quantities.flags, "vanished") & one.shown)
        if gone.size:
            found.append(f"{one.name.capitalize()} have vanished at {one.quantities.time_s[gone[0]]:.3g} s. ")
    return "".join(found)
