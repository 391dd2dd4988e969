"""The picture of a geometry calibration: the frame under its fitted rings, what is left of them, and the pattern."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from saxs_pipeline.outputs.plot_style import (
    BLUE,
    DOUBLE_COLUMN_MM,
    GREY,
    LIGHT_GREY,
    VERMILLION,
    Drawing,
    new_figure,
    panel_letter,
)
from saxs_pipeline.science.camera import Camera, on_detector, scattering_angles
from saxs_pipeline.science.rings import Calibration, Frame
from saxs_pipeline.types import Floats

_SHOWN_PX = 700
"""Rows or columns of the frame in the picture; larger frames are binned."""


def draw_geometry(result: Calibration, name: str) -> Drawing:
    """Frame with rings (a), residuals of the points against azimuth (b), azimuthal mean with expected lines (c)."""
    figure = new_figure(DOUBLE_COLUMN_MM, 86)
    grid = figure.add_gridspec(2, 2, left=0.065, right=0.985, bottom=0.115, top=0.975, wspace=0.2, hspace=0.42)
    image, left_over, pattern = (figure.add_subplot(part) for part in (grid[:, 0], grid[0, 1], grid[1, 1]))
    _image(image, result)
    _residuals(left_over, result)
    _pattern(pattern, result)
    for ax, letter in ((left_over, "b"), (pattern, "c")):
        panel_letter(ax, letter)
    calibrant, lines = result.calibrant.name, result.lines + 1
    caption = (
        f"Frame of {calibrant} (a) with the rings of the fitted geometry (arcs; grey: pixels not used; cross: beam "
        "centre), distance of the fitted points from their ring against azimuth, with standard uncertainties (b; "
        "hollow: left out), and azimuthal mean against q with the calibrant's lines (c; dotted: not used)."
    )
    return Drawing(name, figure, caption, f"Rings {lines[0]} to {lines[-1]} of {calibrant} and their residuals.")


# --- frame -----------------------------------------------------------------------------------------------------------


def _image(ax: Axes, result: Calibration) -> None:
    frame, pixel_m, camera = result.frame, result.pixel_m, result.rings.fit.camera
    rows, columns = frame.image.shape
    factor = math.ceil(max(rows, columns) / _SHOWN_PX)
    shown = _shown(frame, factor)
    positive = shown[np.isfinite(shown) & (shown > 0)]
    low, high = (float(level) for level in np.percentile(positive, (1.0, 99.7)))
    ax.set_facecolor(LIGHT_GREY)
    drawn = ax.imshow(
        np.where(shown > 0, shown, np.where(np.isfinite(shown), low, np.nan)),
        cmap="cividis",
        norm=LogNorm(low, max(high, 1.01 * low)),
        origin="lower",
        interpolation="nearest",
        extent=(0, shown.shape[1] * factor, 0, shown.shape[0] * factor),
    )
    _intensity_bar(ax, drawn, (low, max(high, 1.01 * low)))
    for line in result.lines:
        ax.plot(*_ring(float(result.calibrant.two_theta[line]), camera, pixel_m), color=VERMILLION, lw=0.7)
    centre = camera.centre2_m / pixel_m[1], camera.centre1_m / pixel_m[0]
    ax.plot(*centre, "+", color="white", ms=7, mew=1.1)
    margin = 0.02 * max(rows, columns)
    ax.set_xlim(min(0.0, centre[0] - margin), max(columns, centre[0] + margin))
    ax.set_ylim(min(0.0, centre[1] - margin), max(rows, centre[1] + margin))
    ax.set_xlabel("fast axis (px)")
    ax.set_ylabel("slow axis (px)")
    ax.annotate("(a)", (0, 1), (3, -3), xycoords="axes fraction", textcoords="offset points", va="top", weight="bold",
                bbox={"fc": "white", "ec": "none", "pad": 1.0, "alpha": 0.8})  # fmt: skip


def _intensity_bar(ax: Axes, drawn: Any, limits: tuple[float, float]) -> None:
    bar = ax.figure.colorbar(drawn, ax=ax, orientation="horizontal", fraction=0.045, pad=0.13, extend="both")
    levels = np.geomspace(*limits, 4)
    bar.set_ticks(levels.tolist(), labels=[f"{level:.2g}" if level < 10 else f"{level:.0f}" for level in levels])
    bar.ax.xaxis.set_minor_locator(NullLocator())
    bar.set_label("intensity (detector units)")


def _shown(frame: Frame, factor: int) -> Floats:
    """Mean of the good pixels of each block, NaN without any."""
    rows, columns = (n // factor for n in frame.image.shape)
    cut, blocks = (slice(rows * factor), slice(columns * factor)), (rows, factor, columns, factor)
    number = frame.good[cut].reshape(blocks).sum(axis=(1, 3))
    total = np.where(frame.good, frame.image, 0.0)[cut].reshape(blocks).sum(axis=(1, 3))
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _ring(two_theta: float, camera: Camera, pixel_m: Floats) -> tuple[Floats, Floats]:
    """Fast and slow coordinate of a ring, px; arcs of 10° with as long breaks, in which the frame's own is seen."""
    azimuth = np.linspace(-math.pi, math.pi, 36 * 10 + 1)
    azimuth[np.arange(azimuth.size) % 20 > 10] = np.nan
    slow, fast = (on_detector(np.full(azimuth.size, two_theta), azimuth, camera) / pixel_m).T
    return fast, slow


# --- residuals and pattern -------------------------------------------------------------------------------------------


def _residuals(ax: Axes, result: Calibration) -> None:
    points, used, residual_px = result.rings.points, result.rings.fit.used, result.residual_px
    lines = np.unique(points.line)
    sigma = points.sigma * np.abs(residual_px / result.rings.fit.residual)
    named = lines[np.unique(np.linspace(0, lines.size - 1, _NAMED).round().astype(int))]
    for line in lines:
        color = colormaps["viridis"](0.92 * (line - lines[0]) / max(1, lines[-1] - lines[0]))
        style: Any = {"fmt": "o", "color": color, "ms": 1.8, "elinewidth": 0.4, "mew": 0.4}
        for own, hollow in ((used & (points.line == line), False), (~used & (points.line == line), True)):
            if own.any():
                label = f"ring {line + 1}" if line in named and not hollow else None
                face: Any = {"mfc": "none"} if hollow else {}
                degrees = np.degrees(points.azimuth[own])
                ax.errorbar(degrees, residual_px[own], sigma[own], label=label, **style, **face)
    ax.axhline(0, color=GREY, lw=0.6, zorder=1)
    reach = 1.3 * float(np.max(np.abs(residual_px[used])))
    ax.set_ylim(-reach, 1.5 * reach)
    ax.set_xlim(-180, 180)
    ax.set_xticks(range(-180, 181, 90))
    ax.set_xlabel("azimuth (°)")
    ax.set_ylabel("point − ring (px)")
    ax.legend(loc="upper right", ncols=_NAMED, columnspacing=0.6, handletextpad=0.0, borderaxespad=0.2)


_NAMED = 4
"""Rings that the legend names."""


def _pattern(ax: Axes, result: Calibration) -> None:
    """Mean intensity against q: good rings are narrow and stand on the calibrant's lines."""
    frame = result.frame
    two_theta = scattering_angles(frame.position_m, result.rings.fit.camera)[0][frame.good]
    q = 4e-9 * math.pi / result.calibrant.wavelength_m * np.sin(two_theta / 2)
    bins = min(1500, max(frame.image.shape))
    step = float(q.max()) / bins
    place = np.minimum((q / step).astype(int), bins - 1)
    number = np.bincount(place, minlength=bins)
    mean = np.bincount(place, frame.image[frame.good], bins) / np.maximum(number, 1)
    known = number >= _FEWEST
    ax.plot(((np.arange(bins) + 0.5) * step)[known], mean[known], color=BLUE, lw=0.7, zorder=3)
    fitted = np.isin(np.arange(result.line_q_nm.size), result.lines)
    for at, solid in zip(result.line_q_nm, fitted, strict=True):
        if at < q.max():
            ax.axvline(at, color=VERMILLION if solid else GREY, lw=0.5, ls="-" if solid else ":", zorder=1)
    shown = mean[known & (mean > 0)]
    if shown.size:
        ax.set_yscale("log")
        low, high = 0.8 * float(np.percentile(shown, 1)), 2.5 * float(shown.max())
        ax.set_ylim(low, high)
        if high < 300 * low:
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter(lambda level, _: f"{level:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xlim(0, float(q.max()))
    ax.set_xlabel("$q$ (nm⁻¹)")
    ax.set_ylabel("mean (detector units)")


_FEWEST = 10
