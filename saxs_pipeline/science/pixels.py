"""Which pixels of a calibration frame say something: single hot and dead ones, and those that are full."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.types import Bools, Floats

_ODD = 8.0
_RELATIVE = 0.5
_BRIGHT = 0.25


def odd_pixels(image: Floats, good: Bools) -> Bools:
    """Good pixels of an image (ny, nx) far above the third largest, or below the third smallest, of their 3 × 3.

    The narrowest ring has three pixels in every such square, a hot pixel one or two. Far is eight times the usual
    difference, in units of the square root of the intensity (counting), and half of the intensity.
    """
    from scipy.ndimage import rank_filter

    odd = np.zeros(image.shape, dtype=np.bool_)
    for sign in (1.0, -1.0):
        signed = np.where(good, sign * image, -np.inf)
        third = rank_filter(signed, rank=-3, size=3)
        known = good & np.isfinite(third)
        if not known.any():
            continue
        scale = np.sqrt(np.maximum(np.abs(third[known]), 1.0))
        step = (signed[known] - third[known]) / scale
        usual = float(np.median(step)) + _ODD * 1.4826 * float(np.median(np.abs(step - np.median(step))))
        odd[known] |= (step > max(usual, _ODD)) & (signed[known] - third[known] > _RELATIVE * np.abs(third[known]))
    return odd


def full_pixels(image: NDArray[Any], limit: float | None) -> Bools:
    """Pixels of an image (ny, nx) that reached the largest value of the detector, `limit` or that of its integers.

    Detectors mark gaps and dead pixels by that value too: patches whose surroundings are dark are not full.
    """
    from scipy.ndimage import grey_dilation, label, mean

    if limit is None:
        if image.dtype.kind != "u" or image.dtype.itemsize > 4:
            return np.zeros(image.shape, dtype=np.bool_)
        limit = float(np.iinfo(image.dtype).max)
    high: Bools = image >= limit
    if not high.any():
        return high
    patches, number = label(high, np.ones((3, 3)))
    around = np.where(high, 0, grey_dilation(patches, size=3))
    names = np.arange(number + 1)
    present = np.isin(names, around)
    level = np.full(number + 1, np.inf)
    level[present] = mean(image.astype(float), around, names[present])
    full: Bools = high & (level[patches] > _BRIGHT * limit)
    return full
