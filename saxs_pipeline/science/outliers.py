"""Outliers among the pixels of a q bin: zingers, cosmic rays, Bragg spots.

Counts are compared after the square root that makes their scatter the same at every level, so that a limit of five
standard deviations means the same for one photon and for 10⁵ (docs/adr/0013).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from saxs_pipeline.types import Bools, Floats, Ints


class SigmaClip(NamedTuple):
    """Pixels further from the mean of their bin than `threshold` standard deviations are left out, again and again.

    iterations: at most so many times.
    """

    threshold: float
    iterations: int


def roots(adu: Floats, gain: float, read_noise: float) -> Floats:
    """√(g·s + 3/8·g² + read²) of values s, ADU; gain g in ADU per photon.

    2/g times it has a variance of about 1 if that of s is g·⟨s⟩ + read², and less at few photons: the generalised
    Anscombe transform (Murtagh, Starck & Bijaoui 1995, Astron. Astrophys. Suppl. Ser. 112, 179).
    """
    counted: Floats = gain * adu
    counted += 0.375 * gain**2 + read_noise**2
    np.maximum(counted, 0.0, out=counted)
    return np.sqrt(counted, out=counted)


def pulls(measured: Floats, expected: Floats, gain: float) -> Floats:
    """How many standard deviations pixels are from what is expected, from the roots of both.

    Above it 2/g times the difference of the roots, below it the difference of the values over √variance: photons have
    the longer tail above. A limit of 5 then loses less than the normal distribution has outside, at any level.
    """
    slope = measured / expected
    slope += 1.0
    np.minimum(slope, 2.0, out=slope)
    slope *= measured - expected
    slope /= gain
    return slope


def outliers(signal: Floats, norm: Floats, label: Ints, clip: SigmaClip, *, gain: float, read_noise: float) -> Bools:
    """Which pixels, (k,), do not belong to their bin.

    signal: S - D - b in ADU; norm: F·Ω_rel·P; label: their bins, in increasing order; all (k,). The mean of a bin c is
    expected to give c·norm in each of its pixels. A pixel is left out where |pull| > threshold·max(1, rms of the pulls
    of the others that are kept), so that neither counting statistics nor an intensity that changes within the bin loses
    any. The first mean is the median, which no zinger moves. Every time all pixels are judged anew.
    """
    if not len(label):
        return np.zeros(0, np.bool_)
    starts = np.flatnonzero(np.diff(label, prepend=-1))
    pixels = np.diff(starts, append=len(label))
    measured = roots(signal, gain, read_noise)
    centre = np.array([_middle(part) for part in np.split(signal / norm, starts[1:])])
    kept = np.ones(len(label), np.bool_)
    for _ in range(clip.iterations):
        expected = roots(np.repeat(np.maximum(centre, 0.0), pixels) * norm, gain, read_noise)
        squared = pulls(measured, expected, gain) ** 2
        before, kept = kept, squared <= clip.threshold**2
        if not kept.all():
            kept |= squared <= clip.threshold**2 * _mean_of_the_others(squared, before, starts, pixels)
        if np.array_equal(before, kept):
            break
        centre = np.add.reduceat(signal * kept, starts) / np.add.reduceat(norm * kept, starts)
    return ~kept


def _middle(values: Floats) -> float:
    """The median, without the checks that take np.median longer than the rest."""
    low, high = (len(values) - 1) // 2, len(values) // 2
    ordered = np.partition(values, (low, high))
    return float((ordered[low] + ordered[high]) / 2)


def _mean_of_the_others(squared: Floats, kept: Bools, starts: Ints, pixels: Ints) -> Floats:
    """Mean of the values kept in the bin of each pixel, its own left out; 0 where there is no other."""
    own = squared * kept
    number = np.repeat(np.add.reduceat(kept, starts, dtype=np.int64), pixels) - kept
    total = np.repeat(np.add.reduceat(own, starts), pixels) - own
    return np.asarray(total / np.maximum(number, 1))
