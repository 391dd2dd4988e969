"""Images for the live page: raw frames and the map I(q, t) as bytes of colour, thinned to what a screen shows."""

from __future__ import annotations

import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.apps.page_style import LEVELS
from saxs_pipeline.checkpoint import PASSING_PROBLEMS
from saxs_pipeline.outputs.flags import sound
from saxs_pipeline.outputs.plot_style import TimeAxis
from saxs_pipeline.outputs.ranges import colour_range
from saxs_pipeline.science.orientation import turned
from saxs_pipeline.series import FrameSeries
from saxs_pipeline.stages.integrate import IntegrationSpec
from saxs_pipeline.types import BadInput, Bools, Floats, Ints, RunResult

Levels = NDArray[np.uint8]
LONGEST_SIDE = 480
"""Pixels of a raw frame's longer side on the page."""
COLUMNS, ROWS = 300, 200
"""Times and q of the map."""
KEPT_PICTURES = 32
TOLD_S = 1.0
"""So long all browsers that wait for a frame are told why there is none; asked for later, it is read again."""
TORN = (BadInput, OSError, IndexError, KeyError, RuntimeError, ValueError)
"""What may be raised while a file is read that another program writes or replaces."""


class Picture(NamedTuple):
    """A raw frame for the screen: levels 0 (not used) … 255 between `low` and `high` counts, on a logarithmic scale.

    It is turned as the geometry means it. Each point is the mean of the used ones of block × block pixels; shape
    (ny, nx) is that of the whole; centre: of the beam, (x, y) in px, None where it is not known.
    """

    levels: Levels
    low: float
    high: float
    block: int
    shape: tuple[int, int]
    centre: tuple[float, float] | None = None


class HeatMap(NamedTuple):
    """I(q, t) for the screen: levels (ROWS, COLUMNS), 0 where nothing was measured; edges of time and q."""

    levels: Levels
    low: float
    high: float
    time_s: tuple[float, float]
    q_nm: tuple[float, float]


def log_levels(values: Floats, low: float, high: float) -> Levels:
    """Levels 1 … 255 evenly in log(value) from `low` to `high`, the ends for what is beyond; 0 for NaN."""
    known = np.isfinite(values)
    share = np.log(np.clip(np.where(known, values, low), low, high) / low) / np.log(high / low)
    return np.where(known, 1 + np.round(share * (LEVELS - 2)), 0).astype(np.uint8)


def picture(image: NDArray[Any], mask: Bools | None) -> Picture:
    """A frame (ny, nx) in counts, averaged over blocks so that no side is longer than 480 points."""
    block = -(-max(image.shape) // LONGEST_SIDE)
    used = np.isfinite(image) if mask is None else np.isfinite(image) & ~mask
    small = (-(-image.shape[0] // block), -(-image.shape[1] // block))
    total, number = np.zeros(small), np.zeros(small)
    for first in np.ndindex(block, block):
        part = (slice(first[0], None, block), slice(first[1], None, block))
        inside = tuple(slice(size) for size in image[part].shape)
        total[inside] += np.where(used[part], image[part], 0)
        number[inside] += used[part]
    mean = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    low, high = span(mean[mean > 0], 1.0)
    return Picture(log_levels(mean, low, high), low, high, block, (image.shape[0], image.shape[1]))


def span(positive: Floats, lowest: float) -> tuple[float, float]:
    """From the `lowest` percentile of positive values to nearly the largest; a decade where there is no range."""
    if positive.size == 0:
        return 1.0, 10.0
    low, high = np.percentile(positive, [lowest, 99.9])
    return (float(low), float(high)) if high > 1.01 * low else (float(low), 10 * float(low))


class Pictures:
    """Raw frames on their way to the page; one thread reads them, so that no page waits.

    Kept by their recording, not by their number: a late file moves all after it. What could not be read is not kept.
    """

    def __init__(self) -> None:
        self._reader = ThreadPoolExecutor(1, "pictures")
        self._kept: OrderedDict[str, Picture] = OrderedDict()
        self._coming: tuple[str, Future[Picture | str]] | None = None
        self._failed: tuple[str, str, float] = ("", "", -np.inf)

    def get(self, series: FrameSeries, frame: int, spec: IntegrationSpec | None) -> Picture | str | None:
        """The picture, a reason why there is none, or None while it is being read: ask again."""
        self._collect()
        try:
            recording = series.identities()[frame]
        except TORN as error:
            return _unread(frame, error)
        if recording in self._kept:
            self._kept.move_to_end(recording)
            return self._kept[recording]
        failed, reason, when = self._failed
        if failed == recording and time.monotonic() - when < TOLD_S:
            return reason
        if self._coming is None:
            self._coming = recording, self._reader.submit(_read, series, frame, spec)
        return None

    def _collect(self) -> None:
        if self._coming is None or not self._coming[1].done():
            return
        (recording, future), self._coming = self._coming, None  # first: what the future raises, it raises again
        found = future.result()
        if isinstance(found, str):
            self._failed = recording, found, time.monotonic()
            return
        self._kept[recording] = found
        while len(self._kept) > KEPT_PICTURES:
            self._kept.popitem(last=False)

    def close(self) -> None:
        """Read no more."""
        self._reader.shutdown(cancel_futures=True)


def _read(series: FrameSeries, frame: int, spec: IntegrationSpec | None) -> Picture | str:
    try:
        images, problem = (chunk := series.read(frame, frame + 1)).images, chunk.problems[0]
    except TORN as error:
        return _unread(frame, error)
    if problem.startswith(PASSING_PROBLEMS):
        return f"frame {frame}: {problem}"
    return picture(images[0], None) if spec is None else as_meant(images[0], spec)


def as_meant(image: NDArray[Any], spec: IntegrationSpec) -> Picture:
    """A stored frame (ny, nx) as the geometry means it, without the pixels that the integration does not take."""
    unused = spec.mask | spec.limits.dummies(image)
    shown = picture(turned(image, spec.orientation), turned(unused, spec.orientation))
    return shown._replace(centre=spec.beam_centre_px)


def _unread(frame: int, error: Exception) -> str:
    return f"frame {frame} cannot be read: {' '.join(str(error).split()) or type(error).__name__}"


def found_again(frame: int, before: FrameSeries | None, after: FrameSeries | None) -> int:
    """Number in `after` of the frame that has this number in `before`; the same where it cannot be told."""
    if before is None or after is None or before is after:
        return frame
    try:
        recording, now = before.identities()[frame], after.identities()
        return frame if frame < len(now) and now[frame] == recording else now.index(recording)
    except TORN:
        return frame


def heat_map(result: RunResult, axis: TimeAxis) -> HeatMap | None:
    """The map over the times that the axis shows; each point is the nearest frame and bin. None without a range."""
    rows = np.flatnonzero(axis.visible)
    rows = rows[np.argsort(axis.seconds[rows], kind="stable")]
    trusted = sound(result)
    if np.unique(axis.seconds[rows[trusted[rows]]]).size < 2:
        return None
    times, time_edges = _nearest(axis.seconds[rows], COLUMNS, logarithmic=axis.logarithmic)
    bins, q_edges = _nearest(result.curves.q_nm, ROWS, logarithmic=False)
    chosen, curves = rows[times], result.curves
    intensity = np.where(trusted[chosen, None], curves.intensity[chosen[:, None], bins], np.nan)
    seen = chosen[trusted[chosen]]
    common = np.hypot(curves.shared[bins], np.abs(curves.dark_factor[seen])[:, None] * curves.dark_sigma[bins])
    sigma = np.hypot(curves.statistical[seen[:, None], bins], common)
    positive = intensity[intensity > 0]
    low, high = colour_range(sigma, positive) if positive.size else (1.0, 10.0)
    return HeatMap(log_levels(intensity.T, low, high), low, high, time_edges, q_edges)


def _nearest(points: Floats, number: int, *, logarithmic: bool) -> tuple[Ints, tuple[float, float]]:
    """Index of the point nearest to each of `number` even steps between the first and last point, and their edges."""
    x = np.log(points) if logarithmic else points
    first, last = float(x[0]), float(x[-1])
    centres = first + (last - first) * (np.arange(number) + 0.5) / number
    right = np.clip(np.searchsorted(x, centres), 1, x.size - 1)
    nearest: Ints = np.where(centres - x[right - 1] <= x[right] - centres, right - 1, right)
    edges = (float(points[0]), float(points[-1]))
    return nearest, edges
