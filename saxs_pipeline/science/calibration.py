"""Absolute scale from water: a measurement against the empty cell, its uncertainty, and a test that it is flat."""

from __future__ import annotations

import numpy as np

from saxs_pipeline.science.uncertainty import Mean
from saxs_pipeline.types import BadInput, Floats, ScaleFactor, Uncertain

MAX_SLOPE_SIGMA = 3.0
MAX_DRIFT = 0.01
"""A window is refused when its slope is both significant and worth more than this share of the level."""


def water_scale(
    q_nm: Floats,
    water: Mean,
    empty: Mean,
    dark_sigma: Floats,
    counts: Floats,
    *,
    cross_section: Uncertain,
    thickness_mm: Uncertain,
    window_nm: tuple[float, float],
    transmissions_rel: tuple[float, float] = (0.0, 0.0),
) -> ScaleFactor:
    """Factor K from normalised intensity per mm to 1/mm, with K = (dΣ/dΩ)_water / ⟨(I_water - I_empty)/d⟩.

    water, empty: normalised; dark_sigma (m,) as in Curves; counts (m,) pixels per bin, the weights of the mean
    (unbiased, unlike inverse variances estimated from the same counts); cross_section in 1/mm, e.g. 1.65e-3 (Dreiss
    et al. 2006, J. Appl. Cryst. 39, 32) or 1.632e-3 at 20 °C (Orthaber et al. 2000, J. Appl. Cryst. 33, 1218).
    transmissions_rel: relative uncertainties of what water and empty cell were divided by, one factor for each curve.
    Raises BadInput if the window is empty, not flat, or water does not scatter more than the empty cell.
    """
    level = (water.intensity - empty.intensity) / thickness_mm.value
    dark = (water.dark_factor - empty.dark_factor) * dark_sigma
    sigma = np.sqrt(water.statistical**2 + empty.statistical**2 + dark**2) / thickness_mm.value
    inside = (q_nm >= window_nm[0]) & (q_nm <= window_nm[1]) & np.isfinite(level) & (sigma > 0)
    where = f"water window {window_nm[0]:g}-{window_nm[1]:g} 1/nm"
    if inside.sum() < 5:
        raise BadInput(f"{where}: holds {inside.sum()} usable q bins, 5 are needed; widen intensity.water.window")
    q, level, sigma, weight = q_nm[inside], level[inside], sigma[inside], counts[inside]
    mean, slope = _line(q, level, sigma, weight)
    if mean.value < 5 * mean.error:
        raise BadInput(
            f"{where}: water minus empty cell is {mean.value:.3g} ± {mean.error:.2g}, not above zero; "
            "check which files are water and empty, and their monitors"
        )
    drift = slope.value * (q[-1] - q[0]) / mean.value
    if abs(slope.value) > MAX_SLOPE_SIGMA * slope.error and abs(drift) > MAX_DRIFT:
        raise BadInput(
            f"{where}: not flat, it changes by {drift:+.1%} across the window ({slope.value / slope.error:+.1f} σ); "
            "choose another intensity.water.window or check the empty-cell measurement"
        )
    factor = cross_section.value / mean.value
    share = (weight / weight.sum() / thickness_mm.value / mean.value)[:, None]  # of each curve in the level
    both = np.stack([water.intensity[inside], empty.intensity[inside]], axis=1)
    factors = (share * both).sum(axis=0) * transmissions_rel
    relative = np.sqrt(mean.relative**2 + cross_section.relative**2 + thickness_mm.relative**2 + (factors**2).sum())
    chi2 = float((((level - mean.value) / sigma) ** 2).sum() / (len(q) - 1))
    return ScaleFactor(Uncertain(factor, float(factor * relative)), "water", window_nm, slope.value / slope.error, chi2)


def _line(q: Floats, y: Floats, sigma: Floats, weight: Floats) -> tuple[Uncertain, Uncertain]:
    """Weighted mean and slope of y(q) with their σ propagated from the points."""
    w = weight / weight.sum()
    x = q - (w * q).sum()
    mean, slope_weight = (w * y).sum(), w * x / (w * x**2).sum()
    return (
        Uncertain(float(mean), float(np.sqrt((w**2 * sigma**2).sum()))),
        Uncertain(float((slope_weight * y).sum()), float(np.sqrt((slope_weight**2 * sigma**2).sum()))),
    )
