"""Statistical, shared and scale uncertainties through scaling, averaging and subtraction (science.md §1).

Statistical: independent per point and frame. Shared: the same error in every frame (the background's). Scale: one
factor for everything. They are never merged on the way; an average over frames does not shrink the shared part.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from saxs_pipeline.types import Background, Curves, Floats


def rescale(curves: Curves, factor: float, *, scale_rel: float, unit: str) -> Curves:
    """Curves times a constant whose relative uncertainty becomes the scale uncertainty, in the new unit."""
    return replace(
        curves,
        intensity=curves.intensity * factor,
        statistical=curves.statistical * abs(factor),
        shared=curves.shared * abs(factor),
        scale_rel=scale_rel,
        unit=unit,
    )


def average(intensity: Floats, statistical: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weighted mean over frames of I (n, m) and its statistical σ (m,).

    The weights (n,) are exposures (monitor counts), not inverse variances: those, estimated from the counts
    themselves, would favour frames that fluctuated low. A bin that any frame lacks is NaN.
    """
    w = (weights / weights.sum())[:, None]
    mean: Floats = (w * intensity).sum(axis=0)
    sigma: Floats = np.sqrt((w**2 * statistical**2).sum(axis=0))
    return mean, sigma


def subtract(curves: Curves, background: Background) -> Curves:
    """I_sub = I - f·B; the background's σ joins the shared uncertainty."""
    return replace(
        curves,
        intensity=curves.intensity - background.factor * background.intensity,
        shared=np.hypot(curves.shared, background.factor * background.sigma),
    )
