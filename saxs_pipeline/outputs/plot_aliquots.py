"""Aliquots beside the series: open diamonds with error bars, c_NC and yield divided by the scale factor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from saxs_pipeline.outputs.plot_style import BLACK, TimeAxis, error_bars, plural
from saxs_pipeline.outputs.tables import bracketed_scale, scale_of_aliquots
from saxs_pipeline.reaction import ScaledAliquots
from saxs_pipeline.types import Bools, Floats


class _Shown(NamedTuple):
    """What is drawn of one quantity, (k,), in the unit of its axis: the yield in %."""

    seconds: Floats
    value: Floats
    error: Floats


def _shown(scaled: ScaledAliquots, name: str) -> _Shown:
    a, scale = scaled.aliquots, scaled.scale.value
    columns = {
        "radius": (a.radius_nm, a.radius_error),
        "c": (a.c_umol_L / scale, a.c_error / scale),
        "yield": (100 * a.yield_ / scale, 100 * a.yield_error / scale),
    }
    return _Shown(a.time_s, *columns[name])


def _inside(shown: _Shown, axis: TimeAxis) -> Bools:
    """Aliquots with a value at a time that the axis shows."""
    inside: Bools = (
        np.isfinite(shown.value) & (shown.seconds >= axis.beyond(-0.05)) & (shown.seconds <= axis.beyond(1.08))
    )
    return inside


def draw_aliquots(ax: Axes, axis: TimeAxis, scaled: ScaledAliquots | None, name: str, *, left: bool = False) -> Floats:
    """Draw the aliquots' "radius", "c" or "yield"; returns what the y axis must reach, empty if none.

    The legend stands above the panel, on the right or, where the last value is written there, on the left.

    Bars are the aliquots' own standard uncertainty; that of the scale factor, common to all, is in the legend.
    """
    if scaled is None:
        return np.empty(0)
    shown = _shown(scaled, name)
    inside = _inside(shown, axis)
    if not inside.any():
        return np.empty(0)
    seconds, value, error = (column[inside] for column in shown)
    error = np.where(np.isfinite(error), error, 0.0)
    error_bars(ax, seconds, value - error, value + error, BLACK)
    label = "aliquots" if name == "radius" else f"aliquots / {bracketed_scale(scaled)}"
    ax.plot(seconds, value, "D", ms=3.2, mfc="white", mec=BLACK, mew=0.7, zorder=4, label=label)
    corner = (
        {"loc": "lower left", "bbox_to_anchor": (0, 1)} if left else {"loc": "lower right", "bbox_to_anchor": (1, 1)}
    )
    ax.legend(handlelength=1, borderaxespad=0.1, **corner)
    return np.concatenate([value - error, value + error])


def aliquots_caption(axis: TimeAxis, scaled: ScaledAliquots | None, names: Sequence[str]) -> str:
    """Sentences on the aliquots for a caption, with a space behind; "" if there are none."""
    if scaled is None:
        return ""
    shown = [_shown(scaled, name) for name in names]
    measured = np.any([np.isfinite(one.value) for one in shown], axis=0)
    inside = np.any([_inside(one, axis) for one in shown], axis=0)
    outside = int((measured & ~inside).sum())
    late = f" {outside} {plural('aliquot', outside)} outside the time range not shown." if outside else ""
    if not inside.any():
        return late.lstrip() + " " if late else ""
    unscaled = set(names) == {"radius"} or not math.isfinite(scaled.scale.value)
    factor = "" if unscaled else f", c_NC and yield {scale_of_aliquots(scaled)}"
    return f"Diamonds: aliquots{factor}.{late} "
