"""Pixels that are of no use, told from the others by their dark frames and by the flat."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from saxs_pipeline.science.corrections import Dark
from saxs_pipeline.types import Bools, Floats

MAD_TO_SIGMA = 1.4826
"""Standard deviation of normal values over the median of their absolute deviations."""

FEWEST_FOR_STUCK = 5
"""Dark frames in which a pixel that works shows another value at least once."""


class Found(NamedTuple):
    """Pixels (ny, nx) of one kind, and in words by what they were told."""

    pixels: Bools
    words: str


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
    found = [Found(used & (level > limit), f"hot (dark above {limit:.4g} ADU)")]
    if dark.frames > 1 and usual > 0:
        most = noisy * usual
        found.append(Found(used & (scatter > most), f"noisy (darks scatter by more than {most:.3g} ADU)"))
        if dark.frames >= FEWEST_FOR_STUCK:
            found.append(Found(used & (scatter == 0), "stuck (the same value in every dark)"))
    return found


def in_flat(flat: Floats, used: Bools, limits: tuple[float, float]) -> list[Found]:
    """Pixels among the `used` ones (ny, nx) that see too little or too much, relative to the median of the flat."""
    share = flat / np.median(flat[used])
    low, high = limits
    return [Found(used & ((share < low) | (share > high)), f"outside {low:g} to {high:g} of the flat's median")]
