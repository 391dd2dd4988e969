"""Frames against their neighbours: bubbles, zingers and a lost beam show in the data themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from saxs_pipeline.quality import Quality
from saxs_pipeline.types import Bools, Curves, Floats, Ints

OUTLIER, SPREAD = 2.0, 5.0
"""χ²_red against the neighbours, plus so many of its standard deviations, from which on a frame stands out."""

LOST = 0.5
"""Share of the usual monitor rate below which the beam counts as lost."""

FEW = 0.9
"""Share of the usual pixels below which a frame has few of them."""

FARTHEST = 2.5
"""How far a line through two frames is followed, in units of their distance; the next of an even series is at 2."""

NEAR = 3
"""Frames to either side that say how much neighbours usually differ."""

AROUND = 10
"""Frames to either side that say what the monitor's rate usually is."""


def assess(curves: Curves, monitor_per_s: Floats | None) -> Quality:
    """Quality of frames in order of time; monitor_per_s (n,), None without a monitor."""
    usable = curves.usable
    pixels = curves.counts.sum(axis=1)
    weight = np.where(np.isfinite(curves.intensity), curves.counts, 0.0)
    total = np.where(usable, weight.sum(axis=1), np.nan)
    total[total == 0] = np.nan
    mean = (weight * np.nan_to_num(curves.intensity)).sum(axis=1) / total
    sigma = np.sqrt((weight**2 * np.nan_to_num(curves.statistical) ** 2).sum(axis=1)) / total
    share = np.full(len(usable), np.nan)
    if (pixels[usable] > 0).any():
        share[usable] = pixels[usable] / np.median(pixels[usable & (pixels > 0)])
    rate = np.full(len(usable), np.nan) if monitor_per_s is None else _share_of_usual(monitor_per_s, usable)
    return Quality(mean, sigma, share, _against_neighbours(curves, usable), rate)


def words(quality: Quality, bins: int) -> list[str]:
    """What is remarkable about each frame, words joined by "|", "" if nothing; bins: number of q bins compared."""
    limit = OUTLIER + SPREAD * np.sqrt(2 / max(bins, 1))
    usual = _around(
        quality.neighbours_chi2, NEAR, _second_largest
    )  # frames far apart all differ; a pair may be strange
    kinds = {
        "outlier": quality.neighbours_chi2 > limit * np.maximum(usual, 1.0),
        "beam_lost": quality.monitor_share < LOST,
        "few_pixels": quality.valid_share < FEW,
    }
    return ["|".join(word for word, rows in kinds.items() if rows[k]) for k in range(len(quality.intensity))]


def _second_largest(values: Floats) -> float:
    return float(np.sort(values)[-2:][0])


def _around(values: Floats, around: int, said: Callable[[Floats], Any]) -> Floats:
    """What so many finite values to either side say, itself left out; NaN where there is none, or it is not finite."""
    found = np.full(len(values), np.nan)
    rows = np.flatnonzero(np.isfinite(values))
    for place, row in enumerate(rows):
        near = np.concatenate([rows[max(place - around, 0) : place], rows[place + 1 : place + 1 + around]])
        if len(near):
            found[row] = said(values[near])
    return found


def _share_of_usual(rate: Floats, usable: Bools) -> Floats:
    rate = np.where(usable, rate, np.nan)
    return rate / _around(rate, AROUND, np.median)


def _against_neighbours(curves: Curves, usable: Bools) -> Floats:
    """Smallest of the reduced χ² against the lines in time through a frame on both sides, two before, or two after.

    Lines follow a steady change, and those of one side are not spoilt by a jump such as the injection, nor by a strange
    frame on the other. A frame that agrees with none of them stands out.
    """
    found = np.full(len(usable), np.nan)
    rows = np.flatnonzero(usable & np.isfinite(curves.time_s))
    rows = rows[np.argsort(curves.time_s[rows], kind="stable")]
    if len(rows) < 3:
        return found
    values, variances, time = curves.intensity[rows], curves.statistical[rows] ** 2, curves.time_s[rows]
    n = len(rows)
    here = np.arange(n)
    best = np.full(n, np.inf)
    for first, second in ((-1, 1), (-2, -1), (1, 2)):
        some = here[(here + first >= 0) & (here + second < n)]
        a, b = some + first, some + second
        share, span = np.full(len(some), 0.5), time[b] - time[a]
        np.divide(time[some] - time[a], span, out=share, where=span > 0)
        share = np.clip(share, 1 - FARTHEST, FARTHEST)  # further on the line's own error would excuse anything
        best[some] = np.minimum(best[some], _chi2(values, variances, some, (a, b), share[:, None]))
    found[rows] = np.where(np.isfinite(best), best, np.nan)
    return found


def _chi2(values: Floats, variances: Floats, some: Ints, pair: tuple[Ints, Ints], share: Floats) -> Floats:
    """Reduced χ² of the frames `some` against (1 - share) of one and `share` of the other of their pairs, (k,)."""
    a, b = pair
    difference = values[some] - (1 - share) * values[a] - share * values[b]
    variance = variances[some] + (1 - share) ** 2 * variances[a] + share**2 * variances[b]
    known = np.isfinite(difference) & (variance > 0)
    pulls = np.zeros_like(difference)
    np.divide(difference**2, variance, out=pulls, where=known)
    chi2: Floats = pulls.sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return np.where(known.any(axis=1), chi2, np.inf)
