"""From raw pixels to signal and its variance (science.md §1; variance model of formats.md §3.2).

The detector's pedestal b is in every frame it makes, dark frames too: signal = (S - b) - (D_raw - b). A dark frame
therefore takes the pedestal away with it, and b alone is subtracted where there is no dark frame.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.types import Bools, Floats


def average_dark(total: Floats, n: int, pedestal: float, gain: float, read_noise: float) -> tuple[Floats, Floats]:
    """Dark current D (ny, nx) in ADU without the pedestal, and the variance of this mean, from the sum of n frames."""
    dark = total / n - pedestal
    return dark, pixel_variance(dark, gain, read_noise) / n


def signal(image: NDArray[Any], offset: NDArray[np.floating[Any]] | np.float32 | float) -> NDArray[np.floating[Any]]:
    """Signal S - b - D in ADU of one or many images (…, ny, nx); offset b + D, or b alone without a dark frame.

    Images of up to 16 bits give float32, which holds them exactly, others float64.
    """
    precision = np.float32 if image.dtype.itemsize <= 2 else np.float64
    difference: NDArray[np.floating[Any]] = np.subtract(image, offset, dtype=precision, casting="same_kind")
    return difference


def pixel_variance(
    signal_adu: NDArray[np.floating[Any]], gain: float, read_noise: float, dark_variance: Floats | None = None
) -> NDArray[np.floating[Any]]:
    """Variance in ADU²: gain·max(S - D - b, 0) + read² + var D, gain in ADU per photon (science.md §1)."""
    variance: NDArray[np.floating[Any]] = np.maximum(signal_adu, 0)
    variance *= gain
    variance += read_noise**2
    if dark_variance is not None:
        variance += dark_variance
    return variance


def not_measured(image: NDArray[Any], dummy: float | None, delta: float, saturation: float | None) -> Bools | None:
    """Pixels without a measurement: |value - dummy| <= delta (NaN for a NaN dummy) or saturated; None if none."""
    bad: Bools | None = None
    if dummy is not None:
        bad = _is_dummy(image, dummy, delta)
    if saturation is not None:
        full = image >= saturation
        bad = full if bad is None else bad | full
    return bad if bad is not None and bad.any() else None


def saturated(image: NDArray[Any], dummy: float | None, delta: float, saturation: float | None) -> Bools:
    """Pixels at or above the saturation that were measured: some detectors mark dead pixels by the largest value."""
    full: Bools = np.zeros(image.shape, dtype=np.bool_) if saturation is None else image >= saturation
    return full if dummy is None else full & ~_is_dummy(image, dummy, delta)


def _is_dummy(image: NDArray[Any], dummy: float, delta: float) -> Bools:
    same: Bools = np.isnan(image) if np.isnan(dummy) else np.abs(image.astype(np.float64) - dummy) <= delta
    return same
