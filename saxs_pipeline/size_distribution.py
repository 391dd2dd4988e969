"""Size distributions of many frames, as they travel from the inversion to the files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from saxs_pipeline.types import Bools, Floats, Ints

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
    uncertainty, one for all frames. q_min, q_max: what was inverted, 1/nm; factor: `formfactors.intensity_factor` of
    the contrast, 1 where the unit is arbitrary; NaN where they are not known, as in files of earlier versions.
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
    q_min: float = math.nan
    q_max: float = math.nan
    factor: float = math.nan

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


_NOT = ("radius_nm", "bin_nm", "flags", "scale_rel", "absolute", "q_min", "q_max", "factor")
PER_FRAME = tuple(f.name for f in fields(SizeDistributions) if f.name not in _NOT)
"""Arrays of SizeDistributions with one row per frame."""


@dataclass(frozen=True, eq=False)
class MonteCarlo:
    """n repetitions of a Monte Carlo fit to one curve, each by k spheres of equal volume fraction and a constant.

    radius_nm (n, k); fraction (n,) of each sphere, in the unit of the distribution it is compared with; background (n,)
    in that of the curve; chi2 (n,) per point, which was to fall to `target`; moves (n,): tried radii; points: of the
    curve; seconds: for all repetitions.
    """

    radius_nm: Floats
    fraction: Floats
    background: Floats
    chi2: Floats
    moves: Ints
    target: float
    points: int
    seconds: float
    version: str

    @property
    def mean_nm(self) -> Floats:
        """Volume-weighted mean radius of each repetition, (n,)."""
        return np.asarray(self.radius_nm.mean(axis=1))

    @property
    def width_nm(self) -> Floats:
        """Standard deviation of each repetition's volume-weighted distribution, (n,)."""
        return np.asarray(self.radius_nm.std(axis=1))

    @property
    def volume(self) -> Floats:
        """Total volume fraction of each repetition, (n,)."""
        return np.asarray(self.fraction * self.radius_nm.shape[1])

    def density(self, radius_nm: Floats) -> Floats:
        """Volume fraction per nm of each repetition, (n, bins), in bins whose edges lie midway between the radii."""
        step = np.diff(radius_nm)
        middle = radius_nm[:-1] + step / 2
        edges = np.concatenate([[radius_nm[0] - step[0] / 2], middle, [radius_nm[-1] + step[-1] / 2]])
        counts = np.array([np.histogram(row, edges)[0] for row in self.radius_nm])
        return np.asarray(self.fraction[:, None] * counts / np.diff(edges))


@dataclass(frozen=True, eq=False)
class CrossCheck:
    """The size distribution of one frame (one row), by regularised inversion and by Monte Carlo.

    source: where the curve is from; frame: its number; unit: of the curve.
    """

    source: str
    frame: int
    unit: str
    sizes: SizeDistributions
    other: MonteCarlo

    @property
    def difference_nm(self) -> float:
        """Of the mean radii: Monte Carlo's mean over the repetitions less that of the inversion."""
        return float(self.other.mean_nm.mean() - self.sizes.value("mean_nm")[0])

    @property
    def combined_nm(self) -> float:
        """Standard error of the inversion's mean radius and scatter of the repetitions' means, in quadrature."""
        return math.hypot(float(self.sizes.error("mean_nm")[0]), float(self.other.mean_nm.std(ddof=1)))

    @property
    def small(self) -> Bools:
        """Monte Carlo's spheres (n, k) below half the inversion's mean radius, where volume scatters little."""
        return np.asarray(self.other.radius_nm < 0.5 * self.sizes.value("mean_nm")[0])

    @property
    def mean_without_small_nm(self) -> Floats:
        """Mean radius of each repetition without its small spheres, (n,); NaN where it has no others."""
        large = ~self.small
        with np.errstate(invalid="ignore"):
            return np.asarray((self.other.radius_nm * large).sum(axis=1) / large.sum(axis=1))

    @property
    def agree(self) -> bool:
        """Whether the means differ by no more than two of `combined_nm`."""
        return abs(self.difference_nm) <= 2 * self.combined_nm
