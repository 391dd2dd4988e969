"""Curves → fit table: one weighted Gaussian-sphere fit per frame, whole chunks at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from saxs_pipeline.config import Model
from saxs_pipeline.science import batchfit
from saxs_pipeline.science.batchfit import BatchFit
from saxs_pipeline.science.joint import CurveErrors, factor_covariance
from saxs_pipeline.types import FIT_COLUMNS, Bools, Curves, FitTable, Floats

WEAK = 5.0
"""Below this c/σ_c a frame's r and σ_r are not reported (science.md §2)."""

CLEAR = 2 * WEAK
"""From this c/σ_c on a frame gives its size to weak ones: just above WEAK those pass whose size fluctuated up."""

SHOULD_FIT = 20 * WEAK
"""c/σ_c at a given size (20 times better known than with the size free) from which a failed fit is a failure."""

POOR = 2.0
"""From this χ²_red on (plus five of its standard deviations) the model does not describe the curve."""

C, R, S2, B = range(4)
SIZE = [R, S2]


def fit(curves: Curves, model: Model, factor: float) -> tuple[FitTable, Floats]:
    """Fit every frame; returns the table and the fitted curves (n, m), NaN outside the q window.

    factor: I(q) in 1/mm per µmol/L and nm⁶ of ⟨P⟩ (formfactors.intensity_factor). Frames are independent of each
    other: nothing here depends on the chunk they come in.
    """
    window = _window(curves, model)
    result = batchfit.fit_frames(
        curves.q_nm[window],
        np.ascontiguousarray(curves.intensity[:, window]),
        np.ascontiguousarray(curves.sigma[:, window]),
        factor=factor,
        radius_nm=model.radius,
        sigma_nm=model.sigma,
    )
    table = FitTable(
        index=curves.index,
        values=result.values,
        covariance=result.covariance + _factor_covariance(curves, result, window, factor),
        chi2_red=result.chi2_red,
        n_points=result.n_points,
        converged=result.converged,
        flags=("",) * len(curves.index),
        amplitude=factor,
    )
    return table, _spread(result.model, window)


def _factor_covariance(curves: Curves, result: BatchFit, window: Bools, factor: float) -> Floats:
    """What monitor and background's factor add to the covariance (n, 4, 4) of frames that can be good."""
    added = np.zeros_like(result.covariance)
    with np.errstate(invalid="ignore"):
        clear = result.converged & (result.values[:, C] >= WEAK * np.sqrt(result.covariance[:, C, C]))
    errors = CurveErrors.of(curves, clear, window)
    added[clear] = factor_covariance(errors, result.values[clear], factor)
    return added


def signal_to_noise(fits: FitTable) -> Floats:
    """c/σ_c per frame, (n,); NaN where the fit gave none."""
    variance = fits.covariance[:, C, C]
    ratio: Floats = np.full(len(fits.index), np.nan)
    np.divide(fits.values[:, C], np.sqrt(np.maximum(variance, 0.0)), out=ratio, where=variance > 0)
    return ratio


def negative_variance(fits: FitTable) -> Bools:
    """Frames whose s = σ_r² lies more than two standard errors below zero, where r and its error mean nothing."""
    return fits.converged & (fits.values[:, S2] < -2 * np.sqrt(fits.covariance[:, S2, S2]))


def good(fits: FitTable) -> Bools:
    """Frames whose r and σ_r are reported: converged, c/σ_c ≥ 5, and s not significantly negative."""
    return fits.converged & (signal_to_noise(fits) >= WEAK) & ~negative_variance(fits)


def poor(fits: FitTable) -> Bools:
    """Frames whose curve the model does not describe: the errors of their parameters are then too small."""
    spread = np.sqrt(2 / np.maximum(fits.n_points - len(FIT_COLUMNS), 1))
    return fits.chi2_red > POOR + 5 * spread


def refit_weak(
    curves: Curves, fits: FitTable, model_curves: Floats, model: Model, factor: float
) -> tuple[FitTable, Floats]:
    """Second pass over the whole series: c of frames that are not good, with R₀ and s of the first clearly good one.

    Flags such frames "weak"; or "not_converged" or "negative_variance" where the signal is there, and the free fit
    failed all the same.
    """
    strong, negative = good(fits), negative_variance(fits)
    again = ~strong & curves.usable
    if not again.any():
        return fits, model_curves
    values, covariance = fits.values.copy(), fits.covariance.copy()
    chi2, curves_fitted = fits.chi2_red.copy(), model_curves.copy()
    values[again] = covariance[again] = np.nan
    curves_fitted[again] = np.nan
    ratio = np.zeros(len(again))
    if strong.any():
        first = _size_giver(fits, strong)
        size, spread = fits.values[first, SIZE], fits.covariance[first][np.ix_(SIZE, SIZE)]
        result = _at_size(curves, again, model, factor, size)
        held = _held_covariance(lambda at: _at_size(curves, again, model, factor, at).values, size, spread)
        errors = CurveErrors.of(curves, again, _window(curves, model))
        held += factor_covariance(errors, result.values, factor, free=(C, B))
        values[again], covariance[again], chi2[again] = result.values, result.covariance + held, result.chi2_red
        curves_fitted[again] = _spread(result.model, _window(curves, model))
        ratio[again] = result.values[:, C] / np.sqrt(result.covariance[:, C, C])
    failed = np.where(negative, "negative_variance", np.where(fits.converged, "weak", "not_converged"))
    clear = ratio > SHOULD_FIT if strong.any() else ~fits.converged  # without a good frame only the fit itself tells
    words = np.where(again, np.where(clear, failed, "weak"), "")
    table = replace(
        fits,
        values=values,
        covariance=covariance,
        chi2_red=chi2,
        flags=tuple(map(str, words)),
    )
    return table, curves_fitted


def _size_giver(fits: FitTable, strong: Bools) -> int:
    """The first good frame that is clearly above the limit, else the first good one."""
    clear = strong & (signal_to_noise(fits) >= CLEAR)
    return int(np.flatnonzero(clear if clear.any() else strong)[0])


def _at_size(curves: Curves, rows: Bools, model: Model, factor: float, size: Floats) -> BatchFit:
    """Fits of c and b with (R₀, s) = size, whose rows of the covariance are zero: taken over, not fitted."""
    window = _window(curves, model)
    result = batchfit.fit_amplitudes(
        curves.q_nm[window],
        np.ascontiguousarray(curves.intensity[rows][:, window]),
        np.ascontiguousarray(curves.sigma[rows][:, window]),
        factor=factor,
        radius_nm=float(size[0]),
        variance_nm2=float(size[1]),
    )
    result.covariance[:, SIZE, :] = result.covariance[:, :, SIZE] = 0.0
    return result


def _held_covariance(values_at: Callable[[Floats], Floats], size: Floats, spread: Floats) -> Floats:
    """What the covariance `spread` (2, 2) of the size taken over means for the parameters: J · spread · Jᵀ, (k, 4, 4).

    J by central differences, a hundredth of a standard error to either side.
    """
    steps = 0.01 * np.sqrt(np.diagonal(spread))
    columns = []
    for k, step in enumerate(steps):
        shift = np.where(np.arange(2) == k, step, 0.0)
        columns.append((values_at(size + shift) - values_at(size - shift)) / (2 * step))
    jacobian = np.stack(columns, axis=-1)
    product: Floats = np.einsum("nik,kl,njl->nij", jacobian, spread, jacobian)
    return product


def _window(curves: Curves, model: Model) -> Bools:
    inside: Bools = (curves.q_nm >= model.q_min) & (curves.q_nm <= model.q_max)
    return inside


def _spread(fitted: Floats, window: Bools) -> Floats:
    full = np.full((len(fitted), len(window)), np.nan)
    full[:, window] = fitted
    return full
