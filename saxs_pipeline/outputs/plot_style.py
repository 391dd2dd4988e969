"""How the figures look: sizes for print, a palette safe for colour-blind readers, the time axis, notes for captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from saxs_pipeline.outputs.flags import count_words, frame_flags, has_word, sound
from saxs_pipeline.types import Bools, Floats, RunResult

# Okabe & Ito, Color Universal Design (2008)
BLUE, VERMILLION, GREEN, ORANGE, PURPLE, BLACK = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#000000"
GREY, LIGHT_GREY = "#6B6B6B", "#D9D9D9"

SINGLE_COLUMN_MM, DOUBLE_COLUMN_MM = 85.0, 170.0

RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 7.0,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.titlesize": 7.5,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "lines.linewidth": 0.9,
    "svg.fonttype": "none",
    "svg.hashsalt": "saxs_pipeline",
    "figure.dpi": 200,
    "savefig.dpi": 200,
}
"""Settings of every figure; text stays text in SVG, and the same figure gives the same bytes."""


class Drawing(NamedTuple):
    """A figure in memory, with what is said about it."""

    name: str
    figure: Figure
    caption: str
    alt: str


@dataclass(frozen=True)
class TimeAxis:
    """Which frames a plot against time can show, (n,), and whether the axis is logarithmic."""

    seconds: Floats
    visible: Bools
    logarithmic: bool

    def apply(self, ax: Axes) -> None:
        """Scale, range and label of the x axis: the same in all figures of a run."""
        if self.logarithmic:
            ax.set_xscale("log")
            if self.beyond(1) < 100 * self.beyond(0):
                ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:g}")
            ax.xaxis.set_minor_formatter(NullFormatter())
        if np.unique(self.seconds[self.visible]).size > 1:
            ax.set_xlim(self.beyond(-0.05), self.beyond(1.08))
        ax.set_xlabel("time (s)")

    def beyond(self, fraction: float) -> float:
        """Time at a fraction of the way from the first visible frame to the last, on the scale of the axis."""
        first, last = self.seconds[self.visible].min(), self.seconds[self.visible].max()
        if self.logarithmic:
            return float(first * (last / first) ** fraction)
        return float(first + (last - first) * fraction)


def time_axis(result: RunResult) -> TimeAxis:
    """Logarithmic over t > 0 if the sound frames span more than a factor of ten there; linear over all t otherwise."""
    seconds = result.curves.time_s
    timed = np.isfinite(seconds)
    positive = seconds[timed & (seconds > 0) & sound(result)]
    logarithmic = positive.size > 1 and bool(positive.max() > 10 * positive.min())
    return TimeAxis(seconds, timed & (seconds > 0) if logarithmic else timed, logarithmic)


def new_figure(width_mm: float, height_mm: float) -> Figure:
    """An empty figure of a size in print."""
    return Figure(figsize=(width_mm / 25.4, height_mm / 25.4))


def margins(
    figure: Figure, *, left: float = 13, right: float = 4.5, bottom: float = 10, top: float = 2.5, gap: float = 2.5
) -> None:
    """Margins around the axes, and the gap between axes stacked above each other, in mm."""
    width, height = figure.get_size_inches() * 25.4
    figure.subplots_adjust(left=left / width, right=1 - right / width, bottom=bottom / height, top=1 - top / height)
    if gaps := len(figure.axes) - 1:
        panel = (height - bottom - top - gap * gaps) / (gaps + 1)
        figure.subplots_adjust(hspace=gap / panel)


def panel_letter(ax: Axes, letter: str) -> None:
    """(a), (b), … in the upper left corner."""
    ax.annotate(
        f"({letter})", (0, 1), (3, -3), xycoords="axes fraction", textcoords="offset points", va="top", weight="bold"
    )


def plain_log_axis(ax: Axes) -> None:
    """A logarithmic ordinate of pure numbers near 1: 0.5, 2, 20 in place of powers; below two decades 2 and 5 too."""
    low, high = ax.get_ylim()
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5, 7)))
    wide = not 0 < low < high < 100 * low
    ax.yaxis.set_minor_formatter(NullFormatter() if wide else StrMethodFormatter("{x:g}"))


def error_bars(ax: Axes, x: Floats, low: Floats, high: Floats, color: Any) -> None:
    """Vertical bars from `low` to `high`, as one line with breaks: a tenth of the size in SVG of a bar each."""
    breaks = np.full(x.size, np.nan)
    y = np.column_stack([low, high, breaks]).ravel()
    ax.plot(np.repeat(x, 3), y, "-", color=color, lw=0.4, alpha=0.5, zorder=2, solid_capstyle="butt")


def seconds_text(seconds: float) -> str:
    """Time with three digits, without a power of ten."""
    if not np.isfinite(seconds):
        return "time unknown"
    return f"{seconds:.0f} s" if abs(seconds) >= 1000 else f"{seconds:.3g} s"


def intensity_label(result: RunResult, symbol: str = "I") -> str:
    """Axis label of an intensity, with its unit."""
    unit = "mm⁻¹" if result.curves.unit == "1/mm" else result.curves.unit
    return f"${symbol}$ ({unit})"


Q_LABEL = "$q$ (nm⁻¹)"


def left_out(result: RunResult, axis: TimeAxis) -> str:
    """Sentences for a caption: which frames a plot against time does not show, and why."""
    flags = frame_flags(result)
    trusted, background = sound(result), has_word(flags, "background")
    sentences = []
    if excluded := count_words([f for f, good in zip(flags, trusted, strict=True) if not good]):
        listed = ", ".join(f"{word} {n}" for word, n in excluded)
        sentences.append(f"Excluded frames: {listed}.")
    if early := int((trusted & ~axis.visible).sum()):
        sentences.append(f"{early} {plural('frame', early)} at t ≤ 0 not shown.")
    if inside := int((trusted & axis.visible & background).sum()):
        sentences.append(f"{inside} {plural('frame', inside)} used as background not shown.")
    return " ".join(sentences)


def plural(noun: str, number: int) -> str:
    """The noun for that many."""
    return noun if number == 1 else f"{noun}s"
