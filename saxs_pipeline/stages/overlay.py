"""Aliquots beside the series: the factor between the two, fixed or fitted."""

from __future__ import annotations

import math

import numpy as np

from saxs_pipeline.reaction import Aliquots, ScaledAliquots
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.science.distributions import mean_volume, mean_volume_by
from saxs_pipeline.science.joint import CurveErrors, independent_covariance, shared_response
from saxs_pipeline.types import BadInput, Bools, Floats, Ints, Quantities, RunResult, Uncertain

NEIGHBOURS = 4
"""Frames on each side of an aliquot that a local value of the series may rest on."""

REACH = 0.06
"""How far from an aliquot these may lie, as a share of its time, over which the line is straight to 1e-3 of the value;
the next frame on either side always counts."""

_MOST_STEPS = 100


def overlay(aliquots: Aliquots, result: RunResult, scale: float | None) -> ScaledAliquots:
    """The aliquots with the scale by which c and yield agree with the series: aliquot = scale · in situ (paper: 0.8).

    r is not scaled, and where there is nothing else there is no scale. A given scale is taken as it is, with error 0;
    None fits it to c and yield of all aliquots within the time of the sound frames, weighted by the errors of both
    sides and by their correlation within an aliquot. Its
    error contains what the aliquots share of the series: the background, and frames near to several of them. What is
    common to all frames or to all aliquots (absolute scale, absorption coefficient) is what the scale takes up.
    Raises BadInput where no aliquot lies within the time of the series, or none has c or yield to compare.
    """
    if result.quantities is None:
        raise BadInput(f"{aliquots.source}: the run has no fits to compare with; give it a `model` section")
    quantities = result.quantities
    sound = np.isfinite(quantities.radius_nm.value)  # quantify reports r of trusted frames only
    time = quantities.time_s[sound]
    inside = (aliquots.time_s >= time.min(initial=np.inf)) & (aliquots.time_s <= time.max(initial=-np.inf))
    if not inside.any():
        span = f"from {time.min():g} to {time.max():g} s" if len(time) else "empty: no frame is sound"
        raise BadInput(f"{aliquots.source}: no aliquot lies within the series, which is {span}; t_s counts seconds")
    if not (np.isfinite(aliquots.c_umol_L) | np.isfinite(aliquots.yield_)).any():
        return ScaledAliquots(aliquots, Uncertain(math.nan), fitted=False)
    if scale is not None:
        return ScaledAliquots(aliquots, Uncertain(float(scale)), fitted=False)
    return ScaledAliquots(aliquots, _fitted(aliquots, inside, result, quantities, np.flatnonzero(sound)), fitted=True)


def outside(aliquots: Aliquots, quantities: Quantities) -> list[str]:
    """A note on aliquots before or after the frames that report a size, none if there are none."""
    time = quantities.time_s[np.isfinite(quantities.radius_nm.value)]
    beyond = int(((aliquots.time_s < time.min()) | (aliquots.time_s > time.max())).sum())
    if not beyond:
        return []
    span = f"{time.min():.4g} to {time.max():.4g} s"
    return [f"{aliquots.source}: {beyond} of {len(aliquots.time_s)} aliquots lie outside the series ({span})"]


# --- both sides: (c, yield) and its errors ---------------------------------------------------------------------------


def _of_aliquots(aliquots: Aliquots, inside: Bools) -> tuple[Floats, Floats]:
    """Values (k, 2) and covariance (k, 2, 2) of c and yield; their correlation counts as 0 where it is unknown."""
    values = np.stack([aliquots.c_umol_L, aliquots.yield_], axis=1)[inside]
    errors = np.stack([aliquots.c_error, aliquots.yield_error], axis=1)[inside]
    correlation = np.zeros(len(values)) if aliquots.correlation is None else aliquots.correlation[inside]
    covariance = errors[:, :, None] * errors[:, None, :]
    covariance[:, [0, 1], [1, 0]] *= np.nan_to_num(correlation)[:, None]
    return values, covariance


def _series_at(times_s: Floats, quantities: Quantities, near: Ints) -> tuple[Floats, Floats]:
    """c and yield of the series (k, 2) by a weighted line through the frames `near` (k, p); weights (k, 2, p).

    Weights and values together: values[k, j] = Σ weights[k, j] · quantity j of near[k].
    """
    weights, values = np.empty((len(times_s), 2, near.shape[1])), np.empty((len(times_s), 2))
    for j, estimate in enumerate((quantities.c_nc_umol_L, quantities.yield_)):
        for k, (time, frames) in enumerate(zip(times_s, near, strict=True)):
            weights[k, j] = _line_at(quantities.time_s[frames] / time - 1, estimate.statistical[frames])
        values[:, j] = (weights[:, j] * estimate.value[near]).sum(axis=-1)
    return values, weights


def _nearest(times_s: Floats, frame_times_s: Floats, frames: Ints) -> Ints:
    """The NEIGHBOURS of these frames on each side of each time, (k, p); p is smaller where there are fewer."""
    order = frames[np.argsort(frame_times_s[frames], kind="stable")]
    most = min(2 * NEIGHBOURS, len(order))
    first = np.searchsorted(frame_times_s[order], times_s) - NEIGHBOURS
    return np.asarray(order[np.clip(first, 0, len(order) - most)[:, None] + np.arange(most)])


def _line_at(offset: Floats, error: Floats) -> Floats:
    """Weights w (m,) of the values in a line fitted to them, at offset 0; offsets increase, relative to the time."""
    counts = np.abs(offset) <= REACH
    after = min(int(np.searchsorted(offset, 0.0)), len(offset) - 1)
    counts[max(after - 1, 0) : after + 1] = True
    inverse = np.where(counts, 1 / error**2, 0.0)
    mean = inverse / inverse.sum()
    centre = mean @ offset
    spread = mean @ (offset - centre) ** 2
    return np.asarray(mean * (1 - centre * (offset - centre) / spread) if spread > 0 else mean)


def _series_errors(result: RunResult, quantities: Quantities, near: Ints, weights: Floats) -> Floats:
    """L (k, 2, j) of `_series_at`: covariance of any two values = Σ L·L over the last axis.

    The columns are the independent errors of every frame, of which aliquots close in time have some in common, and the
    errors of the background at every q, which are the same in all frames: no line and no mean makes them smaller.
    """
    if result.fits is None or result.model is None:
        raise BadInput("aliquots: the run has no fitted curves; give it a `model` section")
    frames, place = np.unique(near, return_inverse=True)
    place = place.reshape(near.shape)
    curves, fits = result.curves, result.fits
    window = np.asarray(np.isfinite(result.model).any(axis=0))
    values, covariance = fits.values[frames], fits.covariance[frames][:, :3, :3]
    errors = CurveErrors.of(curves, frames, window)
    response = shared_response(errors, values, CurveModel.of(fits.model), fits.free[frames])
    own = np.linalg.cholesky(independent_covariance(covariance, response))
    gradient = _gradient(
        values, quantities.c_nc_umol_L.value[frames], quantities.yield_.value[frames], fits.model.distribution
    )
    by_frame = np.zeros((len(near), 2, len(frames), 3))
    aliquot = np.arange(len(near))[:, None]
    by_frame[aliquot, :, place] = np.swapaxes(weights, 1, 2)[..., None] * (gradient @ own)[place]
    common = np.einsum("kjp,kpjm->kjm", weights, (gradient @ response)[place])
    return np.concatenate([by_frame.reshape(len(near), 2, -1), common], axis=-1)


def _gradient(values: Floats, c: Floats, yield_: Floats, distribution: str) -> Floats:
    """Derivatives (n, 2, 3) of c and yield by the fitted (c, R₀, s); yield ∝ c⟨V⟩. NaN where either is unknown."""
    fitted, radius, variance = values[:, :3].T
    volume = mean_volume(radius, variance, distribution)
    by_yield = [1 / fitted, *(by / volume for by in mean_volume_by(radius, variance, distribution))]
    none = np.zeros_like(c)
    return np.stack([np.stack([c / fitted, none, none], -1), yield_[:, None] * np.stack(by_yield, -1)], axis=1)


# --- the fit ---------------------------------------------------------------------------------------------------------


def _fitted(aliquots: Aliquots, inside: Bools, result: RunResult, quantities: Quantities, sound: Ints) -> Uncertain:
    """The scale of the aliquots inside the series."""
    times = aliquots.time_s[inside]
    near = _nearest(times, quantities.time_s, sound)
    series, weights = _series_at(times, quantities, near)
    values, covariance = _of_aliquots(aliquots, inside)
    known = np.isfinite(series) & np.isfinite(values)
    if not known.any():
        raise BadInput(f"{aliquots.source}: no aliquot has c or yield where the series has it; give aliquots.scale")
    # 0 ± 1 on the one side and 0 ± 0 on the other say nothing about a factor
    both = known[:, :, None] & known[:, None, :]
    errors = np.where(known[:, :, None], _series_errors(result, quantities, near, weights), 0.0)
    return _proportion(
        np.where(known, series, 0.0), errors, np.where(known, values, 0.0), np.where(both, covariance, np.eye(2))
    )


def _proportion(x: Floats, x_errors: Floats, y: Floats, y_covariance: Floats) -> Uncertain:
    """s of y = s·x, both (k, 2); least squares in x and y (York et al. 2004), with the error of correlated pairs.

    x_errors (k, 2, j): L of the covariance LLᵀ of all x; y_covariance (k, 2, 2), independent between pairs.
    York, Evensen, Martínez & Delgado, Am. J. Phys. 72, 367, for a line through the origin and pairs of values: the
    minimum of Σ eᵀ(C_y + s²C_x)⁻¹e, e = y − s x, is where Σ x̂ᵀ(C_y + s²C_x)⁻¹e = 0 with x̂ the adjusted x. The weights
    are those of the pairs one by one, as if independent: a joint covariance that follows the noise of x would bias s.
    The error is that of this sum under the covariance of all pairs.
    """
    x_covariance = x_errors @ np.swapaxes(x_errors, 1, 2)
    scale = float((x * y).sum() / (x * x).sum()) if (x * x).sum() > 0 else np.nan
    information, variance = np.nan, np.nan
    for _ in range(_MOST_STEPS):
        precision = np.linalg.inv(y_covariance + scale**2 * x_covariance)
        residual = np.einsum("kij,kj->ki", precision, y - scale * x)
        adjusted = x + scale * np.einsum("kij,kj->ki", x_covariance, residual)
        weighted = np.einsum("kij,kj->ki", precision, adjusted)
        of_series = scale * np.einsum("ki,kij->j", weighted, x_errors)
        variance = np.einsum("ki,kij,kj->", weighted, y_covariance, weighted) + of_series @ of_series
        before, scale = scale, float((weighted * y).sum() / (weighted * x).sum())
        information = float((weighted * adjusted).sum())
        if abs(scale - before) <= 1e-12 * abs(scale):
            break
    if not (np.isfinite(scale) and scale > 0 and information > 0):
        raise BadInput("the aliquots and the series have no positive factor between them; give aliquots.scale")
    return Uncertain(scale, float(np.sqrt(variance)) / information)
