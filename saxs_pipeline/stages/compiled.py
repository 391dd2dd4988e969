"""The sums of `science.binning.whole_sums`, compiled (numba): 2 to 10 times as fast, worth it for a long stack.

Imported only where it pays: numba takes 0.7 s, and seconds more where no earlier run has left its machine code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.science.binning import Limits, Sums, WholePixels

_BLOCK = 16384


def _compiled(function: Callable[..., Any]) -> Any:
    """Without the lock of Python; machine code is kept from run to run where there is a place for it."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder to keep it in
        return numba.njit(nogil=True)(function)


@_compiled
def _add(image: Any, label: Any, total: Any) -> None:
    """Four sums in turn: neighbours often share their bin, and each addition would wait for the one before."""
    a, b, c, d = total[0], total[1], total[2], total[3]
    rest = image.size - image.size % 4
    for p in range(0, rest, 4):
        a[label[p]] += image[p]
        b[label[p + 1]] += image[p + 1]
        c[label[p + 2]] += image[p + 2]
        d[label[p + 3]] += image[p + 3]
    for p in range(rest, image.size):
        a[label[p]] += image[p]


@_compiled
def _take_back(image: Any, label: Any, total: Any, limits: tuple[int, int, int]) -> int:
    """Without the pixels that are no measurement; how many of the used ones these are."""
    first, last, full = limits
    rejected = 0
    for p in range(image.size):
        value = np.int64(image[p])
        if value >= full or first <= value <= last:
            total[0, label[p]] -= value
            rejected += label[p] < total.shape[1] - 1
    return rejected


@_compiled
def _frames(images: Any, label: Any, limits: tuple[int, int, int], found: tuple[Any, Any, Any]) -> None:
    """Block by block, so that a block is still in the cache of the processor when it is added up."""
    first, last, full = limits
    raw, empty, rejected = found
    total = np.empty((4, raw.shape[1] + 1), np.int64)
    for k in range(images.shape[0]):
        total[:] = 0
        empty[k], rejected[k] = True, 0
        whole = images[k]
        for start in range(0, label.size, _BLOCK):
            image, bins = whole[start : start + _BLOCK], label[start : start + _BLOCK]
            lowest, highest = image[0], image[0]
            for p in range(image.size):  # counted by hand: only so the compiler takes many pixels at once
                lowest, highest = min(lowest, image[p]), max(highest, image[p])
            empty[k] &= lowest == 0 and highest == 0
            _add(image, bins, total)
            if highest >= full or (lowest <= last and highest >= first):
                rejected[k] += _take_back(image, bins, total, limits)
        for j in range(raw.shape[1]):
            raw[k, j] = total[0, j] + total[1, j] + total[2, j] + total[3, j]


def whole_sums(images: NDArray[Any], bins: WholePixels, limits: Limits) -> Sums:
    """As `science.binning.whole_sums`, to the last bit."""
    n = len(images)
    raw, empty, rejected = np.empty((n, bins.number), np.int64), np.empty(n, np.bool_), np.empty(n, np.int64)
    _frames(np.ascontiguousarray(images), bins.label, limits.whole(), (raw, empty, rejected))
    return Sums(raw, raw, empty, rejected)
