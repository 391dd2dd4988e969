"""Curves → fit table: one weighted fit of spheres per frame, whole chunks at once."""

from __future__ import annotations

import numpy as np

from saxs_pipeline.model_config import Model
from saxs_pipeline.science.batchfit import BatchFit, fit_frames
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.science.gram import Held
from saxs_pipeline.science.joint import CurveErrors, factor_covariance
from saxs_pipeline.science.limits import at_limit, beyond
from saxs_pipeline.types import Bools, Curves, FitTable, Floats, Ints

WEAK = 5.0
"""Below this c/σ_c a population's r and σ_r are not reported, and with two the weaker is dropped (science.md §2)."""

THERE = 16.0
"""Decrease of χ² by which a second population, with its c, R₀ and s, is there although c/σ_c is below WEAK: 0.1 %."""

POOR = 2.0
"""From this χ²_red on (plus five of its standard deviations) the model does not describe the curve."""


def fit(curves: Curves, settings: Model, model: CurveModel) -> tuple[FitTable, Floats]:
    """Fit every frame; returns the table and the fitted curves (n, m), NaN outside the q window.

    Of two populations, one that is not there (see `drop_missing`) is dropped, and its columns are NaN. Frames are
    independent of each other: nothing here depends on the chunk they come in.
    """
    inside = window(curves, settings)
    everything = np.ones(len(curves.index), dtype=bool)
    result = fit_rows(curves, everything, inside, model)
    if len(model.populations) > 1:
        drop_missing(curves, inside, model, result)
    table = FitTable(
        index=curves.index,
        values=result.values,
        covariance=result.covariance,
        free=result.free,
        chi2_red=result.chi2_red,
        n_points=result.n_points,
        converged=result.converged,
        flags=("",) * len(curves.index),
        model=model.spec,
        others=(("",) * len(curves.index),) * (len(model.populations) - 1),
    )
    table.covariance[:] += _factor_covariance(curves, table, inside, model)
    return table, spread(result.model, inside)


def fit_rows(
    curves: Curves,
    rows: Bools,
    inside: Bools,
    model: CurveModel,
    *,
    held: Held | None = None,
    start: Floats | None = None,
) -> BatchFit:
    """Fits of the frames `rows` (n,) in the window `inside` (m,); held and start as in `batchfit.fit_frames`."""
    q, intensity, sigma = (
        curves.q_nm[inside],
        np.ascontiguousarray(curves.intensity[rows][:, inside]),
        np.ascontiguousarray(curves.sigma[rows][:, inside]),
    )
    result = fit_frames(q, intensity, sigma, model, held=held, start=start)
    lost = np.flatnonzero(~result.converged)
    best = np.full(len(lost), np.inf)
    some = None if held is None else {j: values[lost] for j, values in held.items()}
    for limited in model.at_limits if lost.size else ():
        begin = None if start is None else start[lost]
        again = fit_frames(q, intensity[lost], sigma[lost], limited, held=some, start=begin)
        _improve(result, again, lost, best)
    return result


def _improve(result: BatchFit, again: BatchFit, rows: Ints, best: Floats) -> None:
    """Put fits in the place of those of `rows` that have none as good, χ²_red `best`: both in place.

    Where there is no power law in the curve its exponent is anything, and without interference η wants to be negative:
    such frames are fitted with it at an end of its range.
    """
    better = again.converged & (again.chi2_red < best)
    best[better] = again.chi2_red[better]
    for name in ("values", "covariance", "free", "chi2", "chi2_red", "converged", "model"):
        getattr(result, name)[rows[better]] = getattr(again, name)[better]


def drop_missing(curves: Curves, inside: Bools, model: CurveModel, result: BatchFit) -> None:
    """Fits with one population in frames where two are not both clearly there: the one that describes the curve better.

    Where a second one improves χ² clearly although its c/σ_c is small, both stay: dropping it would bias the first. The
    same where no fit with one succeeds; such frames are not converged unless the fit with both is, with one of them at
    5 standard errors at least. An amount below zero is no population, however well it describes the curve.
    """
    ratios = np.nan_to_num(np.stack([ratio(result.values, result.covariance, model, k) for k in (0, 1)]))
    lost = ~(result.converged & (ratios >= WEAK).all(axis=0))
    if not lost.any():
        return
    rows = np.flatnonzero(lost)
    both = result.converged[rows] & (ratios[:, rows] >= WEAK).any(axis=0) & (ratios[:, rows] > 0).all(axis=0)
    result.converged[rows] = both
    best = np.where(both, result.chi2[rows] + THERE, np.inf)
    for k in (0, 1):
        alone = CurveModel.of(model.alone(k))
        one = fit_rows(curves, lost, inside, alone)
        clear = np.nan_to_num(ratio(one.values, one.covariance, alone, 0)) >= WEAK
        found = one.converged & clear & (one.chi2 < best)
        best[found] = one.chi2[found]
        _take_over(result, rows[found], one, found, np.array(model.columns_of(alone, k)))


def _take_over(result: BatchFit, rows: Ints, one: BatchFit, there: Bools, columns: Ints) -> None:
    """Put fits of a model with some of the columns in the place of what is there."""
    result.values[rows] = result.covariance[rows] = np.nan
    result.free[rows] = False
    result.values[np.ix_(rows, columns)] = one.values[there]
    result.covariance[np.ix_(rows, columns, columns)] = one.covariance[there]
    result.free[np.ix_(rows, columns)] = one.free[there]
    for name in ("chi2", "chi2_red", "model"):
        getattr(result, name)[rows] = getattr(one, name)[there]
    result.converged[rows] = True


def _factor_covariance(curves: Curves, fits: FitTable, inside: Bools, model: CurveModel) -> Floats:
    """What monitor and background's factor add to the covariance (n, p, p) of frames that can be good."""
    added = np.zeros_like(fits.covariance)
    clear = fits.converged & np.any([signal_to_noise(fits, k) >= WEAK for k in range(len(model.populations))], axis=0)
    errors = CurveErrors.of(curves, clear, inside)
    added[clear] = factor_covariance(errors, fits.values[clear], model, fits.free[clear])
    return added


def ratio(values: Floats, covariance: Floats, model: CurveModel, population: int) -> Floats:
    """c/σ_c of a population in each of n fits; NaN where there is none."""
    c = model.places(population)[0]
    variance = covariance[:, c, c]
    found: Floats = np.full(len(values), np.nan)
    with np.errstate(invalid="ignore"):
        there = variance > 0
    np.divide(values[:, c], np.sqrt(np.where(there, variance, 1.0)), out=found, where=there)
    return found


def signal_to_noise(fits: FitTable, population: int = 0) -> Floats:
    """c/σ_c of a population per frame, (n,); NaN where the fit gave none."""
    return ratio(fits.values, fits.covariance, CurveModel.of(fits.model), population)


def negative_variance(fits: FitTable, population: int = 0) -> Bools:
    """Frames whose s = σ_r² lies more than two standard errors below zero, where r and its error mean nothing."""
    s = fits.model.places(population)[2]
    with np.errstate(invalid="ignore"):
        below = fits.values[:, s] < -2 * np.sqrt(fits.covariance[:, s, s])
    return np.asarray(fits.converged & below)


def good(fits: FitTable, population: int = 0) -> Bools:
    """Frames in which a population's r and σ_r are reported: converged, c/σ_c ≥ 5, s not significantly negative."""
    return fits.converged & (signal_to_noise(fits, population) >= WEAK) & ~negative_variance(fits, population)


def poor(fits: FitTable) -> Bools:
    """Frames whose curve the model does not describe: the errors of their parameters are then too small."""
    spread = np.sqrt(2 / np.maximum(fits.n_points - fits.free.sum(axis=1), 1))
    return np.asarray(fits.chi2_red > POOR + 5 * spread)


def limit_words(curves: Curves, fits: FitTable, fitted: Floats, inside: Bools) -> tuple[str, ...]:
    """For each frame "at_limit" where an exponent or a volume fraction is held at an end of its range because it says
    nothing there, "out_of_range" where it says that it lies beyond (see `beyond`); else "". fitted (n, m): the curves.
    """
    words, model = np.full(len(fits.index), "", dtype="<U12"), CurveModel.of(fits.model)
    for name, held in at_limit(fits.model, fits.values, fits.free).items():
        rows = np.flatnonzero(held & curves.usable)
        if rows.size:
            errors = CurveErrors.of(curves, rows, inside)
            residual = (curves.intensity - fitted)[rows][:, inside]
            past = beyond(errors, residual, model, fits.values[rows], fits.free[rows], name)
            words[rows] = np.where(past | (words[rows] == "out_of_range"), "out_of_range", "at_limit")
    return tuple(map(str, words))


def window(curves: Curves, settings: Model) -> Bools:
    """Bins that are fitted, (m,)."""
    inside: Bools = (curves.q_nm >= settings.q_min) & (curves.q_nm <= settings.q_max)
    return inside


def spread(fitted: Floats, inside: Bools) -> Floats:
    """Curves in the window as curves at every q, NaN outside."""
    full = np.full((len(fitted), len(inside)), np.nan)
    full[:, inside] = fitted
    return full
