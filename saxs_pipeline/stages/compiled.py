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


def compiled(function: Callable[..., Any]) -> Any:
    """Without the lock of Python; machine code is kept from run to run where there is a place for it."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder to keep it in
        return numba.njit(nogil=True)(function)


@compiled
def _add(image: Any, label: Any, total: Any) -> None:
    """Four sums in turn: neighbours often share their bin, and each addition would wait for the one before."""
    a, b, c, d = total[0], total[1], total[2], total[3]
    rest = image.size - image.size % 4
    for p in range(0, rest, 4):
        a[label[p]] += np.int64(image[p])
        b[label[p + 1]] += np.int64(image[p + 1])
        c[label[p + 2]] += np.int64(image[p + 2])
        d[label[p + 3]] += np.int64(image[p + 3])
    for p in range(rest, image.size):
        a[label[p]] += np.int64(image[p])


@compiled
def _take_back(image: Any, label: Any, total: Any, limits: tuple[Any, Any, Any, Any]) -> int:
    """Without the pixels that are no measurement; how many of the used ones these are.

    What wrapped around in the sum as it was too large for 64 bits wraps back.
    """
    lowest, first, last, full = limits
    rejected = 0
    for p in range(image.size):
        value = image[p]
        if value >= full or value < lowest or first <= value <= last:
            total[0, label[p]] -= np.int64(value)
            rejected += label[p] < total.shape[1] - 1
    return rejected


@compiled
def _frames(images: Any, label: Any, limits: tuple[Any, Any, Any, Any], found: tuple[Any, Any, Any]) -> None:
    """Block by block, so that a block is still in the cache of the processor when it is added up."""
    lowest, first, last, full = limits
    raw, empty, rejected = found
    total = np.empty((4, raw.shape[1] + 1), np.int64)
    for k in range(images.shape[0]):
        total[:] = 0
        empty[k], rejected[k] = True, 0
        whole = images[k]
        for start in range(0, label.size, _BLOCK):
            image, bins = whole[start : start + _BLOCK], label[start : start + _BLOCK]
            least, most = image[0], image[0]
            for p in range(image.size):  # counted by hand: only so the compiler takes many pixels at once
                least, most = min(least, image[p]), max(most, image[p])
            empty[k] &= least == 0 and most == 0
            _add(image, bins, total)
            if most >= full or least < lowest or (least <= last and most >= first):
                rejected[k] += _take_back(image, bins, total, limits)
        for j in range(raw.shape[1]):
            raw[k, j] = total[0, j] + total[1, j] + total[2, j] + total[3, j]


def whole_sums(images: NDArray[Any], bins: WholePixels, limits: Limits) -> Sums:
    """As `science.binning.whole_sums`, to the last bit."""
    n = len(images)
    raw, empty, rejected = np.empty((n, bins.number), np.int64), np.empty(n, np.bool_), np.empty(n, np.int64)
    kind = np.uint64 if images.dtype == np.uint64 else np.int64  # compared as what they are, never as floats
    bounds = tuple(kind(bound) for bound in limits.whole(images.dtype))
    _frames(np.ascontiguousarray(images), bins.label, bounds, (raw, empty, rejected))
    return Sums(raw, raw, empty, rejected)
