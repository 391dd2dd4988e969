"""What axes and colours have to span, for the printed figures and the live page alike."""

from __future__ import annotations

import numpy as np

from saxs_pipeline.types import Floats


def value_range(value: Floats, error: Floats, also: Floats, *, from_zero: bool) -> tuple[float, float] | None:
    """What the well-known of these points (n,) and the values `also` need, not the largest error bar; None of none.

    value, error and also are finite.
    """
    if value.size + also.size == 0:
        return None
    middle = np.median(error) if error.size else 0.0
    reach, known = np.where(error <= 6 * middle, error, 0.0), error <= 30 * middle
    ends = np.concatenate([(value - reach)[known], (value + reach)[known], also])
    low, high = float(ends.min()), float(ends.max())
    low = min(0.0, low) if from_zero else low
    margin = 0.12 * (high - low) or 0.1 * abs(high) or 1.0
    return low - (0.3 * margin if from_zero else margin), high + margin


def colour_range(sigma: Floats, positive: Floats) -> tuple[float, float]:
    """From the median uncertainty, below which there is nothing to see, to nearly the largest intensity."""
    high = float(np.percentile(positive, 99.9))
    known = sigma[np.isfinite(sigma)]
    noise = float(np.median(known)) if known.size else 0.0
    return (noise if 0 < noise < 0.1 * high else 1e-3 * high), high
