"""Statistical, shared and scale uncertainties through scaling, averaging and subtraction (science.md §1).

Statistical: independent per point and frame. Shared: the same error in every frame (the background's, the dark's).
Scale: one factor for everything. A frame's own factor (its monitor reading) moves all its points together. They are
never merged on the way; an average over frames does not shrink the shared part.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from saxs_pipeline.types import Background, Curves, Floats


def rescale(curves: Curves, factor: float, *, scale_rel: float, unit: str) -> Curves:
    """Curves times a constant whose relative uncertainty becomes the scale uncertainty, in the new unit."""
    return replace(
        curves,
        intensity=curves.intensity * factor,
        statistical=curves.statistical * abs(factor),
        shared=curves.shared * abs(factor),
        dark_factor=curves.dark_factor * factor,
        taken_off=curves.taken_off * factor,
        scale_rel=scale_rel,
        unit=unit,
    )


class Mean(NamedTuple):
    """Mean over frames: I and its statistical σ (m,), how many times the dark's error is in it, as in Curves, and the
    relative uncertainty of its factor, from those of the frames.
    """

    intensity: Floats
    statistical: Floats
    dark_factor: float
    factor_rel: float


def average(curves: Curves, weights: Floats) -> Mean:
    """Weighted mean over all frames, weights (n,).

    The weights (n,) are exposures (monitor counts), not inverse variances: those, estimated from the counts
    themselves, would favour frames that fluctuated low. A bin that any frame lacks is NaN.
    """
    w = (weights / weights.sum())[:, None]
    return Mean(
        (w * curves.intensity).sum(axis=0),
        np.sqrt((w**2 * curves.statistical**2).sum(axis=0)),
        float((w[:, 0] * curves.dark_factor).sum()),
        curves.factor_rel * float(np.sqrt((w**2).sum())),
    )


def subtract(curves: Curves, background: Background) -> Curves:
    """I_sub = I - f·B; the background's σ joins the shared uncertainty, and as much of the dark's error cancels."""
    return replace(
        curves,
        intensity=curves.intensity - background.factor * background.intensity,
        shared=np.hypot(curves.shared, background.factor * background.sigma),
        dark_factor=curves.dark_factor - background.factor * background.dark_factor,
        taken_off=background.factor * background.intensity,
        taken_off_rel=background.factor_rel,
    )
