"""Second pass over the whole series: what is too weak to tell its size gets its c at a size that other frames gave."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.model_config import Model
from saxs_pipeline.science.batchfit import BatchFit
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.stages.fit import (
    WEAK,
    fit_rows,
    good,
    negative_variance,
    poor,
    ratio,
    signal_to_noise,
    spread,
    window,
)
from saxs_pipeline.stages.taken_over import Giver, TakenOver
from saxs_pipeline.types import Bools, Curves, FitTable, Floats, Ints

CLEAR = 2 * WEAK
"""From this c/σ_c on a frame gives its size to weak ones: just above WEAK those pass whose size fluctuated up."""

SHOULD_FIT = 20 * WEAK
"""c/σ_c at a given size (20 times better known than with the size free) from which a failed fit is a failure."""

_LINE = 5
"""Frames that give their size whose trend says how far a size may have moved on the way to the frame that takes it."""

_STRANGE = frozenset({"outlier", "beam_lost"})
"""Remarks on frames whose curve is perhaps not that of the sample."""


def refit_weak(curves: Curves, fits: FitTable, fitted: Floats, settings: Model) -> tuple[FitTable, Floats]:
    """c of populations that are not good in a frame, with R₀ and s of a frame where they are.

    One population takes them from the first clearly good frame. Of two, each takes them from the clearly good frame
    that is nearest, and the other one, where it can be told, is fitted anew beside it; where that fails, neither tells
    its size. Flags such frames "weak"; of two "size_held" where one is there (c/σ_c ≥ 5 at the size held) although no
    fit tells its own size, "vanished" where it no longer is; "negative_amount" where c is below zero by as much; or
    "not_converged" or "negative_variance" where the signal is strong, and the free fit failed all the same. fitted
    (n, m): the fitted curves, returned with those of the second pass.
    """
    model = CurveModel.of(fits.model)
    strong = np.stack([good(fits, k) for k in range(len(model.populations))])
    several = len(strong) > 1
    givers = _givers(curves, fits, strong)
    known = _both_known(fits, strong, givers) if several else strong[0]
    again = ~known & curves.usable
    if bool(strong[:, curves.usable].all()):
        return fits, fitted
    changed = ("values", "covariance", "free", "chi2_red", "converged")
    table = replace(fits, **{name: getattr(fits, name).copy() for name in changed})
    second = _Second(curves, table, fitted.copy(), window(curves, settings), model, givers)
    neither = again & ~strong.any(axis=0)
    if several and neither.any():
        second.try_one(neither, strong)
    ratios = np.zeros(strong.shape)
    for pattern in np.unique(strong[:, again & strong.any(axis=0)], axis=1).T:
        second.fit(again & (strong == pattern[:, None]).all(axis=0), pattern, ratios)
    lost = again & strong.any(axis=0) & ~table.converged
    strong[:, lost] = False
    second = replace(second, givers=_givers(curves, table, strong))
    second.fit(again & ~strong.any(axis=0), np.zeros(len(strong), dtype=bool), ratios)
    words = [
        np.where(lost, "not_converged", second.words(fits, k, known, strong[k] | ~curves.usable, ratios[k]))
        for k in range(len(strong))
    ]
    flags = [tuple(map(str, one)) for one in words]
    return replace(table, flags=flags[0], others=tuple(flags[1:])), second.fitted


def _both_known(fits: FitTable, strong: Bools, givers: list[Ints]) -> Bools:
    """Frames (n,) in which the fit with both populations stands: one is good, and the other at most weak in it.

    Where a width is significantly below zero, its c and the other population's values are those of no size at all:
    such frames are fitted again where a frame can give the size.
    """
    found = fits.converged & strong.any(axis=0) & np.isfinite(fits.values).all(axis=1)
    for k, frames in enumerate(givers):
        if frames.size:
            found &= ~negative_variance(fits, k)
    return np.asarray(found)


def _position(curves: Curves) -> Floats:
    """Where each frame stands in the series, (n,): its time, or its place where not all times are known."""
    timed = np.isfinite(curves.time_s).all()
    return np.asarray(curves.time_s if timed else np.arange(len(curves.index), dtype=float))


def _givers(curves: Curves, fits: FitTable, strong: Bools) -> list[Ints]:
    """For each population the frame (n,) that gives its size to each frame; empty where no frame can."""
    position, found = _position(curves), []
    for k, frames in enumerate(strong):
        some = _candidates(curves, fits, frames & curves.usable, signal_to_noise(fits, k) >= CLEAR)
        some = some[np.argsort(position[some], kind="stable")]
        if len(strong) == 1:
            some = some[:1]
        halfway = 0.5 * (position[some][1:] + position[some][:-1])
        found.append(some[np.searchsorted(halfway, position)] if some.size else some)
    return found


def _candidates(curves: Curves, fits: FitTable, able: Bools, clear: Bools) -> Ints:
    """The frames among those that are able to give a size which are best at it.

    Those are clear, nothing is remarkable about them, and the model describes them. A poor fit of a clear frame is
    better than one that is just above the limit, and either better than a bubble.
    """
    spotless = np.array([not note for note in curves.notes], dtype=bool)
    strange = np.array([not _STRANGE.isdisjoint(note.split("|")) for note in curves.notes], dtype=bool)
    badly = poor(fits)
    for choice in (clear & spotless & ~badly, clear & ~strange & ~badly, clear & ~strange, ~strange, clear):
        if (able & choice).any():
            return np.flatnonzero(able & choice)
    return np.flatnonzero(able)


@dataclass(frozen=True, eq=False)
class _Second:
    """What the second pass works on: table and fitted curves (n, m) are changed in place."""

    curves: Curves
    table: FitTable
    fitted: Floats
    inside: Bools
    model: CurveModel
    givers: list[Ints]

    def try_one(self, rows: Bools, strong: Bools) -> None:
        """Frames in which neither of two could be told: one may be there, beside the other at a size held.

        Marks in strong (k, n) the one with the larger c/σ_c, if that is 5 or more.
        """
        where, best = np.flatnonzero(rows), np.full(np.count_nonzero(rows), WEAK)
        winner = np.full(len(where), -1)
        values = self.table.values[rows][:, self.model.nonlinear]
        found = values.copy()
        for k, other in ((0, 1), (1, 0)):
            if not (self.givers[k].size and self.givers[other].size):
                continue
            start = values.copy()
            lost = ~self.model.holds(start.T, (2 * k, 2 * k + 1), wide=False)
            start[lost] = self._given(rows)[lost]
            giver = self.table.values[self.givers[other][rows]]
            held = {2 * other + j: giver[:, place] for j, place in enumerate(self.model.places(other)[1:])}
            one = fit_rows(self.curves, rows, self.inside, self.model, held=held, start=start)
            ratios = np.nan_to_num(ratio(one.values, one.covariance, self.model, k))
            clear = one.converged & (ratios >= best)
            best[clear], winner[clear] = ratios[clear], k
            found[clear] = one.values[clear][:, self.model.nonlinear]
        for k in (0, 1):
            strong[k, where[winner == k]] = True
        self.table.values[np.ix_(where, np.array(self.model.nonlinear))] = found

    def _given(self, rows: Bools) -> Floats:
        """Nonlinear parameters of the frames that give their sizes to these rows, (k, j)."""
        found = self.table.values[self.givers[0][rows]][:, self.model.nonlinear]
        for k in range(1, len(self.givers)):
            sizes = [2 * k, 2 * k + 1]
            columns = [self.model.nonlinear[j] for j in sizes]
            found[:, sizes] = self.table.values[self.givers[k][rows]][:, columns]
        return found

    def _start(self, rows: Bools, population: int, model: CurveModel, columns: Ints) -> Floats:
        """Where to start, (k, j): from the first fit; an exponent or fraction that is none from the giver's."""
        places = columns[list(model.nonlinear)]
        start = self.table.values[rows][:, places]
        given = self.table.values[self.givers[population][rows]][:, places]
        for j in range(2 * len(model.populations), len(places)):
            lost = ~model.holds(start.T, (j,), wide=False)
            start[lost, j] = given[lost, j]
        return start

    def fit(self, rows: Bools, strong: Bools, ratios: Floats) -> None:
        """Fit these rows, in which the populations `strong` (k,) are good, with the others held at sizes given.

        Only sizes are taken over: an exponent is the frame's own, a volume fraction goes with c.
        """
        weak = [k for k, is_strong in enumerate(strong) if not is_strong]
        known = [k for k in weak if self.givers[k].size]
        if not known and any(strong):
            return  # the other one is nowhere in this series: the fit without it stands
        model, columns = self.model, np.arange(len(self.model.columns))
        if known and len(known) < len(weak):  # the other one is nowhere in this series
            model = CurveModel.of(self.model.alone(known[0]))
            columns = np.array(self.model.columns_of(model, known[0]))
        start = self._start(rows, known[0], model, columns) if known else np.empty(0)
        if not any(strong):
            self.forget(rows)
        if not known:
            return
        givers = [self._giver(k, model.populations.index(self.model.populations[k]), rows) for k in known]
        taken = TakenOver(self.curves, rows, self.inside, model, givers, start)
        fraction = model.volume_fraction
        fitted = fraction is not None and fraction[0] < fraction[1]
        result, covariance = taken.fit(proportional=fitted and not any(strong))
        self._store(rows, result, covariance, columns, sized=any(strong))
        for k, giver in zip(known, givers, strict=True):
            found = ratio(result.values, result.covariance, model, giver.population)
            ratios[k, rows] = np.where(result.converged, found, 0.0)

    def _giver(self, population: int, number: int, rows: Bools) -> Giver:
        """What these rows take over of a population, which is this one of the model they are fitted with."""
        frames, names = self.givers[population][rows], self.model.columns
        c, radius, s = self.model.places(population)
        places = [radius, s, c, *(names.index(name) for name in names if name == "volume_fraction")]
        covariance = self.table.covariance[frames][:, places][:, :, places]
        moved = self._moved(population, rows)
        covariance[:, :2, :2] += moved[:, :, None] * moved[:, None, :]
        return Giver(number, self.table.values[frames][:, places], covariance)

    def _moved(self, population: int, rows: Bools) -> Floats:
        """How far R₀ and s would move from the giver to these rows, (k, 2), at the rate at which they do around it.

        That of the straight line through the _LINE givers around it, but no farther than all givers are apart.
        """
        position, own = _position(self.curves), self.givers[population][rows]
        givers = np.unique(self.givers[population])
        givers = givers[np.argsort(position[givers], kind="stable")]
        places = list(self.model.places(population)[1:])
        sizes = self.table.values[givers][:, places]
        variances = np.diagonal(self.table.covariance[givers], axis1=1, axis2=2)[:, places]
        first = np.clip(np.arange(len(givers)) - _LINE // 2, 0, max(len(givers) - _LINE, 0))
        around = [slice(k, k + _LINE) for k in first]
        slopes = np.array([_slopes(position[givers[some]], sizes[some], variances[some]) for some in around])
        place = {int(giver): k for k, giver in enumerate(givers)}
        moved = slopes[[place[int(giver)] for giver in own]] * (position[rows] - position[own])[:, None]
        farthest = np.ptp(sizes, axis=0)
        return np.asarray(np.clip(moved, -farthest, farthest))

    def _store(self, rows: Bools, result: BatchFit, covariance: Floats, columns: Ints, *, sized: bool) -> None:
        """Put the fits that converged into the table."""
        done = result.converged
        if sized:
            self.table.converged[rows] = done
        where = np.flatnonzero(rows)[done]
        self.table.values[np.ix_(where, columns)] = result.values[done]
        self.table.covariance[np.ix_(where, columns, columns)] = covariance[done]
        self.table.free[np.ix_(where, columns)] = result.free[done]
        self.table.chi2_red[where], self.fitted[where] = result.chi2_red[done], spread(result.model[done], self.inside)

    def forget(self, rows: Bools) -> None:
        """Frames of which nothing can be told."""
        self.table.values[rows] = self.table.covariance[rows] = self.fitted[rows] = np.nan
        self.table.free[rows] = False

    def words(self, first: FitTable, population: int, known: Bools, strong: Bools, ratios: Floats) -> NDArray[np.str_]:
        """The word of each frame for one population, "" where it is good (`strong`).

        first: the table before this pass; known (n,): where a fit with all populations stands, in which this one may be
        weak; ratios (n,): c/σ_c at the size held.
        """
        failed = np.where(first.converged, "weak", "not_converged").astype("<U20")
        failed[negative_variance(first, population)] = "negative_variance"
        there, position = good(first, population) | known, _position(self.curves)
        with np.errstate(invalid="ignore"):
            clear = np.where(known, signal_to_noise(first, population) >= WEAK, ratios > SHOULD_FIT)
            below = signal_to_noise(self.table, population) <= -WEAK
        if not there.any():  # then only the fit itself tells
            clear = ~first.converged
        weak = np.full(len(strong), "weak", dtype="<U20")
        if first.others:
            weak[ratios >= WEAK] = "size_held"
        if first.others and there.any():
            weak[(position > position[there].max()) & (ratios < WEAK)] = "vanished"
        weak[below] = "negative_amount"
        return np.where(strong, "", np.where(clear, failed, weak))


def _slopes(at: Floats, values: Floats, variances: Floats) -> Floats:
    """Slopes (j,) of the straight lines through values (n, j), weighted by their variances; 0 of single ones."""
    weights = np.divide(1.0, variances, out=np.zeros_like(variances), where=variances > 0)  # of what is fixed: 0
    total = weights.sum(axis=0)
    off = at[:, None] - (weights * at[:, None]).sum(axis=0) / np.where(total > 0, total, 1.0)
    spread = (weights * off**2).sum(axis=0)
    return np.asarray((weights * off * values).sum(axis=0) / np.where(spread > 0, spread, np.inf))
