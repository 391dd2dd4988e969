"""Second pass over the whole series: what is too weak to tell its size gets its c at a size that other frames gave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from saxs_pipeline.model_config import Model
from saxs_pipeline.science.batchfit import BatchFit
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.science.joint import CurveErrors, factor_covariance
from saxs_pipeline.stages.fit import WEAK, fit_rows, good, negative_variance, ratio, signal_to_noise, spread, window
from saxs_pipeline.types import Bools, Curves, FitTable, Floats, Ints

CLEAR = 2 * WEAK
"""From this c/σ_c on a frame gives its size to weak ones: just above WEAK those pass whose size fluctuated up."""

SHOULD_FIT = 20 * WEAK
"""c/σ_c at a given size (20 times better known than with the size free) from which a failed fit is a failure."""


def refit_weak(curves: Curves, fits: FitTable, fitted: Floats, settings: Model) -> tuple[FitTable, Floats]:
    """c of populations that are not good in a frame, with R₀ and s of a frame where they are.

    One population takes them from the first clearly good frame. Of two, each takes them from the clearly good frame
    that is nearest, and the other one, where it can be told, is fitted anew beside it. Flags such frames "weak",
    "vanished" where one of two is no longer there (c/σ_c < 5 at the size held); or "not_converged" or
    "negative_variance" where the signal is there, and the free fit failed all the same. fitted (n, m): the fitted
    curves, returned with those of the second pass.
    """
    model = CurveModel.of(fits.model)
    model = CurveModel.of(fits.model)
    strong = np.stack([good(fits, k) for k in range(len(model.populations))])
    several = len(strong) > 1
    known = fits.converged & strong.any(axis=0) & np.isfinite(fits.values).all(axis=1) if several else strong[0]
    again = ~known & curves.usable
    if bool(strong[:, curves.usable].all()):
        return fits, fitted
    table = replace(fits, **{name: getattr(fits, name).copy() for name in ("values", "covariance", "free", "chi2_red")})
    second = _Second(curves, table, fitted.copy(), window(curves, settings), model, _givers(fits, strong))
    neither = again & ~strong.any(axis=0)
    if several and neither.any():
        second.try_one(neither, strong)
    ratios = np.zeros(strong.shape)
    for pattern in np.unique(strong[:, again], axis=1).T:
        second.fit(again & (strong == pattern[:, None]).all(axis=0), pattern, ratios)
    words = tuple(_words(fits, k, known, strong[k] | ~curves.usable, ratios[k]) for k in range(len(strong)))
    return replace(table, flags=words[0], others=words[1:]), second.fitted


def _givers(fits: FitTable, strong: Bools) -> list[Ints]:
    """For each population the frame (n,) that gives its size to each frame; empty where no frame can."""
    found = []
    for k, frames in enumerate(strong):
        clear = frames & (signal_to_noise(fits, k) >= CLEAR)
        some = np.flatnonzero(clear if clear.any() else frames)
        if len(strong) == 1 or not some.size:
            some = some[:1]
        nearest = np.abs(np.arange(len(frames))[:, None] - some).argmin(axis=1) if some.size else np.zeros(0, int)
        found.append(some[nearest])
    return found


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
            sizes = [2 * k, 2 * k + 1]
            start = values.copy()
            lost = ~self.model.holds(start.T, tuple(sizes), wide=False)
            start[lost] = self._given(rows)[lost]
            one = self._at(self._held(rows, [other], everything=False), rows, start)
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

    def _held(self, rows: Bools, populations: list[int], *, everything: bool) -> dict[int, Floats]:
        """Nonlinear parameters taken over, by number; with `everything` also exponent and volume fraction."""
        held = {}
        for k in populations:
            for j in (2 * k, 2 * k + 1):
                held[j] = self.table.values[self.givers[k][rows], self.model.nonlinear[j]]
        if everything:
            for j in range(2 * len(self.givers), len(self.model.nonlinear)):
                held[j] = self.table.values[self.givers[populations[0]][rows], self.model.nonlinear[j]]
        return held

    def _at(self, held: dict[int, Floats], rows: Bools, start: Floats) -> BatchFit:
        return fit_rows(self.curves, rows, self.inside, self.model, held=held, start=start)

    def fit(self, rows: Bools, strong: Bools, ratios: Floats) -> None:
        """Fit these rows, in which the populations `strong` (k,) are good, with the others held at sizes given."""
        weak = [k for k, is_strong in enumerate(strong) if not is_strong]
        known = [k for k in weak if self.givers[k].size]
        if not known and any(strong):
            return  # the other one is nowhere in this series: the fit without it stands
        if not known:
            self.table.values[rows] = self.table.covariance[rows] = self.fitted[rows] = np.nan
            self.table.free[rows] = False
            return
        if len(known) < len(weak):
            self._alone(rows, known[0], ratios)
            return
        start = self.table.values[rows][:, self.model.nonlinear]
        held = self._held(rows, known, everything=not any(strong))
        result = self._at(held, rows, start)
        moved = self._moved_by_sizes(lambda sizes: self._at(sizes, rows, start).values, held, rows, known)
        self._store(rows, result, moved, self.model, np.arange(len(self.model.columns)))
        for k in known:
            ratios[k, rows] = ratio(result.values, result.covariance, self.model, k)

    def _alone(self, rows: Bools, population: int, ratios: Floats) -> None:
        """Fit with one population, at a size given, in a series where the other one is nowhere."""
        alone = CurveModel.of(self.model.alone(population))
        columns = np.array(self.model.columns_of(alone, population))
        whole = self._held(rows, [population], everything=True)
        numbers = {j: self.model.nonlinear.index(columns[place]) for j, place in enumerate(alone.nonlinear)}
        start = np.zeros((np.count_nonzero(rows), len(alone.nonlinear)))

        def at(sizes: dict[int, Floats]) -> BatchFit:
            held = {j: sizes[number] for j, number in numbers.items()}
            return fit_rows(self.curves, rows, self.inside, alone, held=held, start=start)

        result = at(whole)
        moved = self._moved_by_sizes(lambda sizes: at(sizes).values, whole, rows, [population])
        self.table.values[rows] = self.table.covariance[rows] = np.nan
        self.table.free[rows] = False
        self._store(rows, result, moved, alone, columns)
        ratios[population, rows] = ratio(result.values, result.covariance, alone, 0)

    def _moved_by_sizes(
        self, values_at: Callable[[dict[int, Floats]], Floats], held: dict[int, Floats], rows: Bools, known: list[int]
    ) -> Floats:
        """What the covariance of the sizes taken over means for the parameters: J · covariance · Jᵀ, (k, p, p).

        J by central differences, a hundredth of a standard error to either side.
        """
        total: Floats | float = 0.0
        for k in known:
            columns = [self.model.nonlinear[2 * k], self.model.nonlinear[2 * k + 1]]
            given = self.table.covariance[self.givers[k][rows]][:, columns][:, :, columns]
            slopes = []
            for i in (0, 1):
                step = 0.01 * np.sqrt(given[:, i, i])
                up, down = (values_at(held | {2 * k + i: held[2 * k + i] + sign * step}) for sign in (1, -1))
                slopes.append((up - down) / np.where(step > 0, 2 * step, 1.0)[:, None])
            jacobian = np.stack(slopes, axis=-1)
            total = total + np.einsum("nik,nkl,njl->nij", jacobian, given, jacobian)
        return np.asarray(total)

    def _store(self, rows: Bools, result: BatchFit, moved: Floats, model: CurveModel, columns: Ints) -> None:
        errors = CurveErrors.of(self.curves, rows, self.inside)
        covariance = result.covariance + moved + factor_covariance(errors, result.values, model, result.free)
        where = np.flatnonzero(rows)
        self.table.values[np.ix_(where, columns)] = result.values
        self.table.covariance[np.ix_(where, columns, columns)] = covariance
        self.table.free[np.ix_(where, columns)] = result.free
        self.table.chi2_red[rows], self.fitted[rows] = result.chi2_red, spread(result.model, self.inside)


def _words(fits: FitTable, population: int, known: Bools, strong: Bools, ratios: Floats) -> tuple[str, ...]:
    """The word of each frame for one population, "" where it is good.

    known (n,): where a fit with all populations stands, in which this one may be weak.
    """
    negative = negative_variance(fits, population)
    failed = np.where(negative, "negative_variance", np.where(fits.converged, "weak", "not_converged"))
    there = np.flatnonzero(good(fits, population) | known)
    clear = ratios > SHOULD_FIT if there.size else ~fits.converged  # without a good frame only the fit itself tells
    weak = np.full(len(strong), "weak", dtype="<U20")
    if fits.others and there.size:
        gone = (np.arange(len(strong)) > there[-1]) & (ratios < WEAK)
        weak[gone] = "vanished"
    words = np.where(strong, "", np.where(clear & ~known, failed, weak))
    return tuple(map(str, words))
