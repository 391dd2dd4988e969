"""Why a pixel is not used, as bits: those of NeXus' NXdetector/pixel_mask, so that any reader knows them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint16]
"""Reasons per pixel, any number of them; 0: used. NeXus has 32 bits, of which those from 16 on reject nothing."""

GAP, DEAD, UNDER_RESPONDING, OVER_RESPONDING, NOISY, USER = (1 << bit for bit in (0, 1, 2, 3, 4, 8))

MEANING: Mapping[int, str] = {
    GAP: "gap (the named detector's own mask)",
    DEAD: "dead (no positive flat, no dark that measured it, the same value in every dark)",
    UNDER_RESPONDING: "under responding (low in the flat)",
    OVER_RESPONDING: "over responding (hot in the dark, high in the flat)",
    NOISY: "noisy (from dark to dark)",
    USER: "user's mask (corrections.mask)",
}
