"""What is said about the frames themselves, whatever was fitted to them."""

from __future__ import annotations

from dataclasses import dataclass

from saxs_pipeline.types import Floats


@dataclass(frozen=True)
class Quality:
    """Per frame, (n,); NaN where it cannot be said.

    intensity: mean of I over all measured pixels, in the unit of the curves, and its statistical σ; valid_share: of the
    pixels that other frames have; neighbours_chi2: reduced χ² against the frames before and after; monitor_share: what
    the monitor counted per second, relative to the frames around.
    """

    intensity: Floats
    intensity_sigma: Floats
    valid_share: Floats
    neighbours_chi2: Floats
    monitor_share: Floats
