"""Fewer, wider q bins: means of neighbouring ones, weighted by their pixels, with every uncertainty propagated."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from saxs_pipeline.types import BadInput, Curves, Floats, Ints


@dataclass(frozen=True, eq=False)
class Grid:
    """Runs of neighbouring bins that become one: where each begins (k,), how many all were, and their mean q (k,)."""

    starts: Ints
    number: int
    q_nm: Floats


def grid(q_nm: Floats, bins: int, *, logarithmic: bool) -> Grid:
    """At most so many bins over the range of q (m,), of equal width in q or in ln q.

    A bin that would hold no old one, as the first of a logarithmic grid may, is left out. Raises BadInput where q does
    not increase or a logarithm does not exist.
    """
    if not (np.diff(q_nm) > 0).all() or (logarithmic and q_nm[0] <= 0):
        raise BadInput(f"q must increase{' from above 0' if logarithmic else ''} to be re-binned")
    x = np.log(q_nm) if logarithmic else q_nm
    half = (x[-1] - x[0]) / (2 * len(x))  # edges as far outside as the old ones on average
    label = ((x - x[0] + half) / (x[-1] - x[0] + 2 * half) * bins).astype(np.int64)
    starts = np.flatnonzero(np.diff(label, prepend=-1))
    return Grid(starts, len(q_nm), np.add.reduceat(q_nm, starts) / np.diff(starts, append=len(q_nm)))


def rebin(curves: Curves, onto: Grid, pixels: Floats) -> Curves:
    """Curves with wider bins; pixels (m,): of the old bins in a frame that lacks none, for what all frames share.

    Raises BadInput where bins are correlated: their errors would come out too small.
    """
    if curves.correlated:
        raise BadInput("pixel splitting ties neighbouring bins together; they cannot be re-binned: use splitting: none")
    measured = np.isfinite(curves.intensity)
    weight = np.where(measured, curves.counts, 0.0)
    total = np.add.reduceat(weight, onto.starts, axis=1)
    return replace(
        curves,
        q_nm=onto.q_nm,
        intensity=_mean(weight, curves.intensity, onto),
        statistical=np.where(total > 0, _sigma(weight, curves.statistical, onto), np.nan),
        shared=_sigma(pixels[None], curves.shared[None], onto)[0],
        dark_sigma=_sigma(pixels[None], curves.dark_sigma[None], onto)[0],
        taken_off=_mean(pixels[None], curves.taken_off[None], onto)[0],
        counts=total,
    )


def _sums(weight: Floats, values: Floats, onto: Grid) -> Floats:
    return np.add.reduceat(np.where(weight > 0, weight * values, 0.0), onto.starts, axis=1)


def _mean(weight: Floats, values: Floats, onto: Grid) -> Floats:
    """Σ w·values / Σ w of the bins that become one, (n, k); NaN where there is none."""
    total = np.add.reduceat(weight, onto.starts, axis=1)
    found = np.full(total.shape, np.nan)
    np.divide(_sums(weight, values, onto), total, out=found, where=total > 0)
    return found


def _sigma(weight: Floats, sigma: Floats, onto: Grid) -> Floats:
    """√Σ w²σ² / Σ w of the bins that become one, (n, k); NaN where there is none."""
    total = np.add.reduceat(weight, onto.starts, axis=1)
    found = np.full(total.shape, np.nan)
    np.divide(np.sqrt(_sums(weight**2, sigma**2, onto)), total, out=found, where=total > 0)
    return found
