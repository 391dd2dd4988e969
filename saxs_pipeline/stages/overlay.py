"""Aliquots beside the series: the factor between the two, fixed or fitted."""

from __future__ import annotations

import numpy as np

from saxs_pipeline.reaction import Aliquots, ScaledAliquots
from saxs_pipeline.science.quantities import mean_volume
from saxs_pipeline.types import BadInput, Bools, Floats, Quantities, Uncertain

NEIGHBOURS = 7
"""Frames that a local value of the series rests on."""

_MOST_STEPS = 100


def overlay(aliquots: Aliquots, quantities: Quantities, scale: float | None) -> ScaledAliquots:
    """The aliquots with the scale by which c and yield agree with the series: aliquot = scale · in situ (paper: 0.8).

    r is not scaled. A given scale is taken as it is, with error 0; None fits it to c and yield of all aliquots within
    the time of the sound frames, weighted by the errors of both sides and by their correlation within an aliquot. Its
    error is statistical: what is common to all frames or to all aliquots (absolute scale, absorption coefficient) is
    what the scale takes up.
    Raises BadInput where no aliquot lies within the time of the series, or none has c or yield to compare.
    """
    sound = np.isfinite(quantities.radius_nm.value)  # quantify reports r of trusted frames only
    time = quantities.time_s[sound]
    inside = (aliquots.time_s >= time.min(initial=np.inf)) & (aliquots.time_s <= time.max(initial=-np.inf))
    if not inside.any():
        span = f"from {time.min():g} to {time.max():g} s" if len(time) else "empty: no frame is sound"
        raise BadInput(f"{aliquots.source}: no aliquot lies within the series, which is {span}; t_s counts seconds")
    if scale is not None:
        return ScaledAliquots(aliquots, Uncertain(float(scale)), fitted=False)
    series, series_covariance = _series_at(aliquots.time_s[inside], quantities, sound)
    values, covariance = _of_aliquots(aliquots, inside)
    known = np.isfinite(series) & np.isfinite(values)
    if not known.any():
        raise BadInput(
            f"{aliquots.source}: no aliquot has c or yield where the series has it; give `scale: 1` to show r alone"
        )
    fitted = _proportion(*_only(known, series, series_covariance), *_only(known, values, covariance))
    return ScaledAliquots(aliquots, fitted, fitted=True)


def outside(aliquots: Aliquots, quantities: Quantities) -> list[str]:
    """A note on aliquots before or after the frames that report a size, none if there are none."""
    time = quantities.time_s[np.isfinite(quantities.radius_nm.value)]
    beyond = int(((aliquots.time_s < time.min()) | (aliquots.time_s > time.max())).sum())
    if not beyond:
        return []
    span = f"{time.min():.4g} to {time.max():.4g} s"
    return [f"{aliquots.source}: {beyond} of {len(aliquots.time_s)} aliquots lie outside the series ({span})"]


# --- both sides: (c, yield) and its covariance -----------------------------------------------------------------------


def _of_aliquots(aliquots: Aliquots, inside: Bools) -> tuple[Floats, Floats]:
    """Values (k, 2) and covariance (k, 2, 2) of c and yield."""
    values = np.stack([aliquots.c_umol_L, aliquots.yield_], axis=1)[inside]
    errors = np.stack([aliquots.c_error, aliquots.yield_error], axis=1)[inside]
    correlation = np.zeros(len(values)) if aliquots.correlation is None else aliquots.correlation[inside]
    return values, _covariance(errors, correlation)


def _covariance(errors: Floats, correlation: Floats) -> Floats:
    """(k, 2, 2) from errors (k, 2) and the correlation (k,), which counts as 0 where it is unknown."""
    covariance = errors[:, :, None] * errors[:, None, :]
    covariance[:, [0, 1], [1, 0]] *= np.nan_to_num(correlation)[:, None]
    return covariance


def _series_at(times_s: Floats, quantities: Quantities, sound: Bools) -> tuple[Floats, Floats]:
    """c and yield of the series (k, 2), and their covariance (k, 2, 2), from the frames nearest to each time.

    A weighted straight line through NEIGHBOURS frames. Its error is that of errors common to these frames: the
    background's part is, and averaging would not shrink it.
    """
    frames = np.flatnonzero(sound)
    estimates = (quantities.c_nc_umol_L, quantities.yield_)
    correlation = _correlation(quantities)
    values, errors, correlations = np.empty((3, len(times_s), 2))
    for k, time in enumerate(times_s):
        near = frames[np.argsort(np.abs(quantities.time_s[frames] - time), kind="stable")[:NEIGHBOURS]]
        for j, estimate in enumerate(estimates):
            weights = _line_at(quantities.time_s[near] - time, estimate.statistical[near])
            values[k, j] = weights @ estimate.value[near]
            errors[k, j] = np.abs(weights) @ estimate.statistical[near]
        correlations[k] = correlation[near].mean()
    return values, _covariance(errors, correlations[:, 0])


def _line_at(offset: Floats, error: Floats) -> Floats:
    """Weights w (m,) of the values in a line fitted to them, at offset 0; in their mean where there are only two."""
    inverse = 1 / error**2
    mean = inverse / inverse.sum()
    centre = mean @ offset
    spread = mean @ (offset - centre) ** 2
    if len(offset) < 3 or not spread > 0:
        return np.asarray(mean)
    return np.asarray(mean * (1 - centre * (offset - centre) / spread))


def _correlation(quantities: Quantities) -> Floats:
    """Correlation of c and yield of each frame (n,), from the covariance of (r, σ_r, c); yield ∝ c⟨V⟩.

    Where σ_r is an upper limit it has no covariance, and ⟨V⟩ hardly depends on it: its part is left out.
    """
    radius, sigma = quantities.radius_nm.value, np.nan_to_num(quantities.sigma_nm.value)
    c, yield_ = quantities.c_nc_umol_L, quantities.yield_
    with_c = np.nan_to_num(quantities.covariance[:, :, 2])
    volume = mean_volume(radius, sigma**2)
    relative = with_c[:, 2] / c.value
    relative += 4 * np.pi * ((radius**2 + sigma**2) * with_c[:, 0] + 2 * radius * sigma * with_c[:, 1]) / volume
    return np.asarray(np.clip(relative * yield_.value / (c.statistical * yield_.statistical), -1, 1))


# --- the fit ---------------------------------------------------------------------------------------------------------


def _only(known: Bools, values: Floats, covariance: Floats) -> tuple[Floats, Floats]:
    """Values (k, 2) and covariance without what is unknown: 0 ± 1 there, on both sides, says nothing about a factor."""
    both = known[:, :, None] & known[:, None, :]
    return np.where(known, values, 0.0), np.where(both, covariance, np.eye(2))


def _proportion(x: Floats, x_covariance: Floats, y: Floats, y_covariance: Floats) -> Uncertain:
    """s of y = s·x, both (k, 2) with errors, covariances (k, 2, 2); least squares in x and y (York et al. 2004).

    York, Evensen, Martínez & Delgado, Am. J. Phys. 72, 367, for a line through the origin and pairs of values: the
    minimum of Σ eᵀ(C_y + s²C_x)⁻¹e, e = y − s x, is where Σ x̂ᵀ(C_y + s²C_x)⁻¹e = 0 with x̂ the adjusted x.
    """
    scale = float((x * y).sum() / (x * x).sum()) if (x * x).sum() > 0 else np.nan
    information = np.nan
    for _ in range(_MOST_STEPS):
        precision = np.linalg.inv(y_covariance + scale**2 * x_covariance)
        residual = np.einsum("kij,kj->ki", precision, y - scale * x)
        adjusted = x + scale * np.einsum("kij,kj->ki", x_covariance, residual)
        weighted = np.einsum("kij,kj->ki", precision, adjusted)
        before, scale = scale, float((weighted * y).sum() / (weighted * x).sum())
        information = float((weighted * adjusted).sum())
        if abs(scale - before) <= 1e-12 * abs(scale):
            break
    if not (np.isfinite(scale) and scale > 0 and information > 0):
        raise BadInput("the aliquots and the series have no positive factor between them; give aliquots.scale")
    return Uncertain(scale, information**-0.5)
