"""Sums over the pixels of each q bin: all of an azimuthal integration that depends on the frame is Σ S.

Flat, solid angle, polarisation, dark and the number of pixels do not depend on it: their sums are taken once. Sums of
integers are exact, whichever way they are added up, so that the results of different kernels agree to the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.types import Bools, Floats, Ints

_COUNTED = 2**37
"""Whole numbers of this size and more are no counts: without them the sum of 2²⁵ pixels is exact as int64."""


class WholeLimits(NamedTuple):
    """Limits for integers of one type, which can hold all but perhaps `full`.

    No measurement is what is below `lowest`, from `first` to `last` (nothing where first > last), and from `full` on.
    """

    lowest: int
    first: int
    last: int
    full: int


class Bins(Protocol):
    """Which q bins the pixels belong to, with what weight w."""

    @property
    def number(self) -> int:
        """Number of bins, m."""
        ...

    @property
    def used(self) -> Bools:
        """Pixels that are in a bin, (ny·nx,)."""
        ...

    def sum(self, values: NDArray[Any], pixels: Ints | None = None) -> Floats:
        """Σ w·values per bin, (m,), of all pixels, values (ny·nx,), or of the listed ones, values (k,)."""
        ...

    def sum_squared(self, values: NDArray[Any], pixels: Ints | None = None) -> Floats:
        """Σ w²·values per bin, (m,): variances add up so."""
        ...


@dataclass(frozen=True, eq=False)
class WholePixels:
    """Every pixel lies in one bin: label (ny·nx,), `number` for a pixel that is in none."""

    label: NDArray[Any]
    number: int

    def sum(self, values: NDArray[Any], pixels: Ints | None = None) -> Floats:
        """See Bins."""
        label = self.label if pixels is None else self.label[pixels]
        return np.bincount(label, weights=values, minlength=self.number + 1)[: self.number].astype(np.float64)

    sum_squared = sum

    @cached_property
    def used(self) -> Bools:
        """Pixels that are in a bin, (ny·nx,)."""
        inside: Bools = self.label < self.number
        return inside

    @cached_property
    def in_order(self) -> tuple[Ints, Ints, Ints]:
        """Used pixels bin by bin; the bins that have any; where each of these begins in the pixels."""
        order = np.argsort(self.label, kind="stable")[: int(np.count_nonzero(self.used))]
        filled, starts = np.unique(self.label[order], return_index=True)
        return order.astype(np.intp), filled.astype(np.intp), starts


@dataclass(frozen=True, eq=False)
class SplitPixels:
    """Pixels are shared between bins: share (m, ny·nx), a sparse matrix by columns of the parts, and their squares."""

    share: Any
    squared: Any

    @property
    def number(self) -> int:
        """Number of bins."""
        return int(self.share.shape[0])

    @cached_property
    def used(self) -> Bools:
        """Pixels that are in a bin, (ny·nx,)."""
        inside: Bools = np.diff(self.share.indptr) > 0
        return inside

    def sum(self, values: NDArray[Any], pixels: Ints | None = None) -> Floats:
        """See Bins."""
        total: Floats = (self.share if pixels is None else self.share[:, pixels]) @ values.astype(np.float64)
        return total

    def sum_squared(self, values: NDArray[Any], pixels: Ints | None = None) -> Floats:
        """See Bins."""
        total: Floats = (self.squared if pixels is None else self.squared[:, pixels]) @ values.astype(np.float64)
        return total


class Limits(NamedTuple):
    """Values that are no measurement: first_dummy … last_dummy (NaN if `nan`), and from `saturation` on."""

    first_dummy: float
    last_dummy: float
    saturation: float
    nan: bool = False

    @classmethod
    def of(cls, dummy: float | None, delta: float, saturation: float | None) -> Limits:
        """|value - dummy| <= delta is a dummy, NaN for a NaN dummy; None: there is none."""
        full = math.inf if saturation is None else saturation
        if dummy is None or math.isnan(dummy):
            return cls(math.inf, -math.inf, full, dummy is not None)
        return cls(dummy - delta, dummy + delta, full)

    def whole(self, dtype: np.dtype[Any]) -> WholeLimits:
        """The same limits for integers of this type.

        A dummy is a float64, which for the largest number of 64 bits holds the one above: the largest is meant.
        """
        kind = np.iinfo(dtype)
        lowest, highest = int(kind.min), int(kind.max)
        first, last = highest, lowest
        if self.first_dummy <= float(highest) and self.last_dummy >= lowest:
            first = min(math.ceil(max(self.first_dummy, lowest)), highest)
            last = math.floor(min(self.last_dummy, highest))
        full = math.ceil(max(min(self.saturation, highest + 1, _COUNTED), lowest))
        return WholeLimits(max(lowest, 1 - _COUNTED), first, last, full)

    def dummies(self, values: NDArray[Any]) -> Bools:
        """Which values say "not measured"."""
        if self.nan and values.dtype.kind == "f":
            return np.asarray(np.isnan(values))
        first, last = (self.first_dummy, self.last_dummy)
        if values.dtype.kind != "f":
            _, first, last, _ = self.whole(values.dtype)
        return np.asarray((values >= first) & (values <= last))

    def saturated(self, values: NDArray[Any]) -> Bools:
        """Which values are at or above the saturation, or no counts at all, but for dummies (the largest number)."""
        if values.dtype.kind == "f":
            return np.asarray(values >= self.saturation) & ~self.dummies(values)
        lowest, _, _, full = self.whole(values.dtype)
        return np.asarray((values >= full) | (values < lowest)) & ~self.dummies(values)

    def reject(self, values: NDArray[Any]) -> Bools:
        """Which values are no measurement."""
        return self.dummies(values) | self.saturated(values)


class Sums(NamedTuple):
    """Of n images, without the used pixels that are no measurement.

    raw (n, m) Σ w·S; raw_squared (n, m) Σ w²·S; empty (n,) whether every pixel is 0; rejected (n,) number of the pixels
    that were left out.
    """

    raw: NDArray[Any]
    raw_squared: NDArray[Any]
    empty: Bools
    rejected: Ints


def whole_sums(images: NDArray[Any], bins: WholePixels, limits: Limits) -> Sums:
    """Sums of integer images (n, ny·nx), exact as int64."""
    n = len(images)
    raw, empty, rejected = np.zeros((n, bins.number), np.int64), np.zeros(n, np.bool_), np.zeros(n, np.int64)
    order, filled, starts = bins.in_order
    lowest, first, last, full = limits.whole(images.dtype)
    for k, image in enumerate(images):
        least, most = int(image.min()), int(image.max())
        empty[k] = least == most == 0
        values = image[order]
        if most >= full or least < lowest or (least <= last and most >= first):
            bad = (values >= full) | (values < lowest) | ((values >= first) & (values <= last))
            rejected[k] = np.count_nonzero(bad)
            values[bad] = 0
        if len(filled):
            raw[k, filled] = np.add.reduceat(values, starts, dtype=np.int64)
    return Sums(raw, raw, empty, rejected)


def sums(images: NDArray[Any], bins: Bins, limits: Limits) -> Sums:
    """Sums of images (n, ny·nx) of any type, in float64."""
    n = len(images)
    raw, squared = np.zeros((2, n, bins.number))
    found = Sums(raw, squared, np.zeros(n, np.bool_), np.zeros(n, np.int64))
    for k, image in enumerate(images):
        bad = limits.reject(image) & bins.used
        found.empty[k] = not image.any()
        found.rejected[k] = np.count_nonzero(bad)
        values = np.where(bins.used & ~bad, image, 0)
        found.raw[k], found.raw_squared[k] = bins.sum(values), bins.sum_squared(values)
    return found
