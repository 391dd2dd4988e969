"""From sums of raw counts to signal and its variance (science.md §1; variance model of formats.md §3.2).

The detector's pedestal b is in every frame it makes, dark frames too: signal = (S - b) - (D_raw - b). A dark frame
therefore takes the pedestal away with it, and b alone is subtracted where there is no dark frame.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from saxs_pipeline.types import Floats

MEDIAN_VARIANCE = np.pi / 2
"""Variance of the median of many normal values over that of their mean."""


class Dark(NamedTuple):
    """Dark current D (ny, nx) in ADU without the pedestal, and the variance of this average, ADU².

    frames: how many were averaged; exposure_s: theirs, where the dark is to be scaled to the exposure of each frame.
    """

    level: Floats
    variance: Floats
    frames: int = 1
    exposure_s: float | None = None


def dark_from_sums(total: Floats, squares: Floats, n: int, *, pedestal: float, gain: float, read_noise: float) -> Dark:
    """Mean of n dark frames from Σ and Σ² of their pixels (ny, nx); the variance is what the frames themselves show.

    A single frame shows none: gain·max(D, 0) + read² then.
    """
    mean = total / n
    if n == 1:
        return Dark(mean - pedestal, gain * np.maximum(mean - pedestal, 0) + read_noise**2)
    spread = np.maximum(squares - total * mean, 0) / (n - 1)
    return Dark(mean - pedestal, spread / n, n)


def sensor_efficiency(cosine: Floats, depth: float) -> Floats:
    """Photons absorbed in a sensor at oblique over those at normal incidence: (1 - e^(-μd/cos α))/(1 - e^(-μd)).

    cosine: cos α of the angle between ray and normal; depth: μd, the sensor's thickness in absorption lengths. A flat
    that was taken with light from the sample's place holds this already.
    """
    return np.asarray(np.expm1(-depth / cosine) / np.expm1(-depth))


def bin_variance(signal_adu: Floats, weight: Floats, gain: float, read_noise: float) -> Floats:
    """Variance in ADU² of Σ (S - D - b) over the pixels of a bin: gain·Σ (S - D - b) + N·read².

    signal_adu: that sum; weight: N, the number of pixels; gain in ADU per photon. A sum below zero is noise, as one
    above it may be; both count, or noise would be taken for photons (docs/adr/0010), but at least half of the read-out
    noise comes out. Of a photon counter it is at least that of one photon.
    """
    readout = read_noise**2 * weight
    variance: Floats = np.maximum(gain * signal_adu + readout, readout / 2)
    if read_noise > 0:
        return variance
    return np.where(weight > 0, np.maximum(variance, gain**2), variance)
