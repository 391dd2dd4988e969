"""Second pass over the whole series: what is too weak to tell its size gets its c at a size that other frames gave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

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
    that is nearest, and the other one is fitted anew beside it. Flags such frames "weak", "vanished" after the last
    frame where one of two is good; or "not_converged" or "negative_variance" where the signal is there, and the free
    fit failed all the same. fitted (n, m): the fitted curves, returned with those of the second pass.
    """
    model = CurveModel.of(fits.model)
    strong = np.stack([good(fits, k) for k in range(len(model.populations))])
    again = ~strong.all(axis=0) & curves.usable
    if not again.any():
        return fits, fitted
    table = replace(fits, values=fits.values.copy(), covariance=fits.covariance.copy(), free=fits.free.copy(),
                    chi2_red=fits.chi2_red.copy())  # fmt: skip
    fitted, ratios = fitted.copy(), np.zeros(strong.shape)
    for pattern in np.unique(strong[:, again], axis=1).T:
        rows = again & (strong == pattern[:, None]).all(axis=0)
        _refit(curves, table, fitted, settings, rows, pattern, _givers(fits, strong), ratios)
    words = tuple(_words(fits, k, again, strong[k], ratios[k]) for k in range(len(strong)))
    return replace(table, flags=words[0], others=words[1:]), fitted


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


def _refit(  # noqa: PLR0917
    curves: Curves,
    table: FitTable,
    fitted: Floats,
    settings: Model,
    rows: Bools,
    strong: Bools,
    givers: list[Ints],
    ratios: Floats,
) -> None:
    """Fit these rows again, in which the populations `strong` (k,) are good: in place."""
    model, inside = CurveModel.of(table.model), window(curves, settings)
    weak = [k for k, is_strong in enumerate(strong) if not is_strong]
    known = [k for k in weak if givers[k].size]
    if any(strong) and not known:
        return  # the other one is nowhere in this series: the fit without it stands
    if not known or (len(known) < len(weak)):
        table.values[rows] = table.covariance[rows] = fitted[rows] = np.nan
        table.free[rows] = False
        if not known:
            return
    frames = [givers[k][rows] for k in known]
    held = _held(model, table, known, frames, everything=not any(strong))
    start = table.values[rows][:, model.nonlinear]
    absent = [k for k in weak if k not in known]
    fewer = CurveModel.of(model.alone(known[0])) if absent else model
    columns = np.array(model.columns_of(fewer, known[0]) if absent else range(len(model.columns)))
    numbers = {model.nonlinear.index(columns[fewer.nonlinear[j]]): j for j in range(len(fewer.nonlinear))}

    def at(sizes: dict[int, Floats]) -> BatchFit:
        there = {numbers[j]: value for j, value in sizes.items()}
        return fit_rows(curves, rows, inside, fewer, held=there, start=start[:, list(numbers)])

    result = at(held)
    covariance = result.covariance + _held_covariance(lambda sizes: at(sizes).values, held, model, table, known, frames)
    errors = CurveErrors.of(curves, rows, inside)
    covariance += factor_covariance(errors, result.values, fewer, result.free)
    where = np.flatnonzero(rows)
    table.values[np.ix_(where, columns)] = result.values
    table.covariance[np.ix_(where, columns, columns)] = covariance
    table.free[np.ix_(where, columns)] = result.free
    table.chi2_red[rows] = result.chi2_red
    fitted[rows] = spread(result.model, inside)
    for k in known:
        ratios[k, rows] = ratio(result.values, result.covariance, fewer, 0 if absent else k)


def _held(
    model: CurveModel, table: FitTable, known: list[int], frames: list[Ints], *, everything: bool
) -> dict[int, Floats]:
    """Nonlinear parameters taken over, by number; with `everything` also exponent and volume fraction."""
    held = {}
    for k, giver in zip(known, frames, strict=True):
        for j in (2 * k, 2 * k + 1):
            held[j] = table.values[giver, model.nonlinear[j]]
    if everything:
        for j in range(2 * len(model.populations), len(model.nonlinear)):
            held[j] = table.values[frames[0], model.nonlinear[j]]
    return held


def _held_covariance(  # noqa: PLR0917
    values_at: Callable[[dict[int, Floats]], Floats],
    held: dict[int, Floats],
    model: CurveModel,
    table: FitTable,
    known: list[int],
    frames: list[Ints],
) -> Floats:
    """What the covariance of the sizes taken over means for the parameters: J · covariance · Jᵀ, (k, p, p).

    J by central differences, a hundredth of a standard error to either side.
    """
    total: Floats | float = 0.0
    for k, giver in zip(known, frames, strict=True):
        columns = [model.nonlinear[2 * k], model.nonlinear[2 * k + 1]]
        given = table.covariance[giver][:, columns][:, :, columns]
        slopes = []
        for i in (0, 1):
            step = 0.01 * np.sqrt(given[:, i, i])
            up, down = (values_at(held | {2 * k + i: held[2 * k + i] + sign * step}) for sign in (1, -1))
            slopes.append((up - down) / np.where(step > 0, 2 * step, 1.0)[:, None])
        jacobian = np.stack(slopes, axis=-1)
        total = total + np.einsum("nik,nkl,njl->nij", jacobian, given, jacobian)
    return np.asarray(total)


def _words(fits: FitTable, population: int, again: Bools, strong: Bools, ratios: Floats) -> tuple[str, ...]:
    """The word of each frame for one population, "" where it is good."""
    negative = negative_variance(fits, population)
    failed = np.where(negative, "negative_variance", np.where(fits.converged, "weak", "not_converged"))
    clear = ratios > SHOULD_FIT if strong.any() else ~fits.converged  # without a good frame only the fit itself tells
    weak = np.full(len(strong), "weak", dtype="<U20")
    if fits.others and strong.any():
        weak[np.flatnonzero(strong)[-1] + 1 :] = "vanished"
    words = np.where(again & ~strong, np.where(clear, failed, weak), "")
    return tuple(map(str, words))
