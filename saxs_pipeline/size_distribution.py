"""Size distributions of many frames, as they travel from the inversion to the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from saxs_pipeline.types import Bools, Floats

SIZE_COLUMNS = ("mean_nm", "number_mean_nm", "width_nm", "volume_fraction", "background_1_mm")
"""Columns of SizeDistributions.values and errors: volume-weighted mean radius, number-weighted mean radius, standard
deviation of the volume-weighted distribution, total volume fraction, constant background."""

SHAPE_COLUMNS = ("resolvable_width_nm", "single_fwhm_nm", "two_sizes_nm", "groups", "chi2_red")
"""Columns of SizeDistributions.shape: standard deviation that a single size shows in at most 5 % of repetitions; full
width at half maximum with which a single size of the same signal is shown; distance from which on two sizes are shown
as two (NaN: none within the radii); number of separate groups of sizes without which the curve would not be described;
reduced χ²."""


@dataclass(frozen=True, eq=False)
class SizeDistributions:
    """Volume-weighted size distributions of n frames on k radii.

    radius_nm (k,), bin_nm (k,) width of each bin; density (n, k) volume fraction per nm, and its standard error
    density_err; values and errors (n, 5) in the order of SIZE_COLUMNS; shape (n, 5) in that of SHAPE_COLUMNS; flags
    (n,) words joined by "|", "" if none:

    - `weak`: too little signal; no radius and no width is reported
    - `unresolved`: not wider than a single size would show; width_nm is an upper limit (two standard errors), without
      error
    - `poor_fit`: no distribution of spheres on these radii describes the curve
    - `at_limit`: the distribution runs into an end of the radii
    - `coarse_bins`: a bin is wider than half of what a single size would show: the bins limit the resolution
    - `not_measured`: too few points; all is NaN

    absolute: whether the fractions are such, and not in an arbitrary unit; scale_rel: their relative systematic
    uncertainty, one for all frames.
    """

    radius_nm: Floats
    bin_nm: Floats
    density: Floats
    density_err: Floats
    values: Floats
    errors: Floats
    shape: Floats
    flags: tuple[str, ...]
    scale_rel: float = 0.0
    absolute: bool = False

    def value(self, column: str) -> Floats:
        """One of SIZE_COLUMNS or SHAPE_COLUMNS, (n,)."""
        if column in SIZE_COLUMNS:
            return self.values[:, SIZE_COLUMNS.index(column)]
        return self.shape[:, SHAPE_COLUMNS.index(column)]

    def error(self, column: str) -> Floats:
        """Standard error of one of SIZE_COLUMNS, (n,)."""
        return self.errors[:, SIZE_COLUMNS.index(column)]

    def flagged(self, word: str) -> Bools:
        """Frames with this word among their flags, (n,)."""
        return np.array([word in flag.split("|") for flag in self.flags], dtype=np.bool_)

    def rows(self, chosen: Sequence[int]) -> SizeDistributions:
        """The frames at these places."""
        part: dict[str, Any] = {name: getattr(self, name)[list(chosen)] for name in PER_FRAME}
        return replace(self, **part, flags=tuple(self.flags[i] for i in chosen))

    @staticmethod
    def concatenate(parts: Sequence[SizeDistributions]) -> SizeDistributions:
        """Frames of several pieces on the same radii, one after the other."""
        stacked: dict[str, Any] = {name: np.concatenate([getattr(p, name) for p in parts]) for name in PER_FRAME}
        return replace(parts[0], **stacked, flags=tuple(flag for p in parts for flag in p.flags))


_NOT = ("radius_nm", "bin_nm", "flags", "scale_rel", "absolute")
PER_FRAME = tuple(f.name for f in fields(SizeDistributions) if f.name not in _NOT)
"""Arrays of SizeDistributions with one row per frame."""
