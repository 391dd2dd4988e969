"""Pixels that are of no use, told from the others by dark frames, by the flat, or in a single image by those around."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.science.corrections import Dark
from saxs_pipeline.science.pixel_mask import DEAD, NOISY, OVER_RESPONDING, UNDER_RESPONDING, Bits
from saxs_pipeline.types import Bools, Floats

MAD_TO_SIGMA = 1.4826
"""Standard deviation of normal values over the median of their absolute deviations."""

_ODD = 8.0
_RELATIVE = 0.5
_BRIGHT = 0.25

FEWEST_FOR_STUCK = 5
"""Dark frames in which a pixel that works shows another value at least once."""


class Found(NamedTuple):
    """Pixels (ny, nx) of one kind, in words by what they were told, and what they are: bits, one or one per pixel."""

    pixels: Bools
    words: str
    bits: int | Bits


def in_dark(dark: Dark, used: Bools, *, hot: float, noisy: float) -> list[Found]:
    """Hot, noisy and stuck pixels among the `used` ones (ny, nx).

    hot: dark level above the median by so many standard deviations of the pixels' levels (from their MAD); noisy:
    scatter from dark to dark above so many times the median's; stuck: no scatter at all where others have some. The
    last two need several dark frames.
    """
    level, scatter = dark.level, np.sqrt(dark.variance * dark.frames)
    middle = float(np.median(level[used]))
    spread = MAD_TO_SIGMA * float(np.median(np.abs(level[used] - middle)))
    usual = float(np.median(scatter[used]))
    limit = middle + hot * max(spread, usual / np.sqrt(dark.frames), 1 / dark.frames)  # levels are 1/n ADU apart
    found = [Found(used & (level > limit), f"hot (dark above {limit:.4g} ADU)", OVER_RESPONDING)]
    if dark.frames > 1 and usual > 0:
        most = noisy * usual
        found.append(Found(used & (scatter > most), f"noisy (darks scatter by more than {most:.3g} ADU)", NOISY))
        if dark.frames >= FEWEST_FOR_STUCK:
            found.append(Found(used & (scatter == 0), "stuck (the same value in every dark)", DEAD))
    return found


def in_flat(flat: Floats, used: Bools, limits: tuple[float, float]) -> list[Found]:
    """Pixels among the `used` ones (ny, nx) that see too little or too much, relative to the median of the flat."""
    share = flat / np.median(flat[used])
    low, high = limits
    bits = np.where(share < low, UNDER_RESPONDING, OVER_RESPONDING).astype(np.uint16)
    return [Found(used & ((share < low) | (share > high)), f"outside {low:g} to {high:g} of the flat's median", bits)]


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
        usual = float(np.median(step)) + _ODD * MAD_TO_SIGMA * float(np.median(np.abs(step - np.median(step))))
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
