"""Number distributions of the radius, by their mean R₀ and variance s = σ_R²: densities, moments, mean volume.

Gaussian, lognormal, Schulz–Zimm (the gamma distribution). The Gaussian is taken over all real R, because only then its
moments, the form factor and their derivatives are closed forms in (R₀, s). A crystal has R > 0; what the negative tail
adds to ⟨R⁶⟩ is below 1e-9 of it for σ_R/R₀ ≤ 0.2 and below 6e-6 for σ_R/R₀ = 0.3. Broader distributions need another
shape, not a truncated Gaussian.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from saxs_pipeline.types import Floats


def gaussian_density(radius_nm: ArrayLike, mean_nm: float, variance_nm2: float) -> Floats:
    """Number density of the Gaussian distribution at `radius_nm`, 1/nm, same shape; `variance_nm2` > 0."""
    deviation = np.asarray(radius_nm, dtype=float) - mean_nm
    density: Floats = np.exp(-0.5 * deviation**2 / variance_nm2) / math.sqrt(2 * math.pi * variance_nm2)
    return density


def gaussian_moments(mean: ArrayLike, variance: ArrayLike, order: int = 8) -> Floats:
    """Raw moments ⟨R^k⟩, k = 0…order, of the Gaussian over all R: (order + 1, …) for mean and variance of shape (…).

    By the recurrence ⟨R^(k+1)⟩ = R₀⟨R^k⟩ + k s⟨R^(k−1)⟩ (Stein's lemma): polynomials in (R₀, s), so that a slightly
    negative s is a valid analytic continuation. Unit of ⟨R^k⟩: that of R to the power k.
    """
    center, spread = np.broadcast_arrays(np.asarray(mean, dtype=float), np.asarray(variance, dtype=float))
    moments = np.ones((order + 1, *center.shape))
    for k in range(order):
        moments[k + 1] = center * moments[k]
        if k:
            moments[k + 1] += k * spread * moments[k - 1]
    return moments


def lognormal_density(radius_nm: ArrayLike, mean_nm: float, variance_nm2: float) -> Floats:
    """Number density of the lognormal distribution with this mean and variance (not of ln R), 1/nm; radius > 0."""
    radius = np.asarray(radius_nm, dtype=float)
    omega2 = math.log1p(variance_nm2 / mean_nm**2)
    deviation = np.log(radius / mean_nm) + 0.5 * omega2
    density: Floats = np.exp(-0.5 * deviation**2 / omega2) / (radius * math.sqrt(2 * math.pi * omega2))
    return density


def schulz_density(radius_nm: ArrayLike, mean_nm: float, variance_nm2: float) -> Floats:
    """Number density of the Schulz–Zimm distribution with this mean and variance, 1/nm; radius > 0."""
    scale, shape = variance_nm2 / mean_nm, mean_nm**2 / variance_nm2
    x = np.asarray(radius_nm, dtype=float) / scale
    density: Floats = np.exp((shape - 1) * np.log(x) - x - math.lgamma(shape)) / scale
    return density


def gaussian_moments_by(mean: ArrayLike, variance: ArrayLike, order: int) -> tuple[Floats, Floats, Floats]:
    """`gaussian_moments` and their derivatives by the mean and the variance, each (order + 1, …)."""
    moments = gaussian_moments(mean, variance, order)
    by_mean, by_variance = np.zeros_like(moments), np.zeros_like(moments)
    k = np.arange(order + 1.0).reshape(-1, *[1] * (moments.ndim - 1))
    by_mean[1:] = k[1:] * moments[:-1]
    by_variance[2:] = 0.5 * k[2:] * k[1:-1] * moments[:-2]
    return moments, by_mean, by_variance


def schulz_moments_by(mean: ArrayLike, variance: ArrayLike, order: int) -> tuple[Floats, Floats, Floats]:
    """Raw moments of the Schulz–Zimm distribution and their derivatives by mean and variance, each (order + 1, …).

    ⟨R^(k+1)⟩ = ⟨R^k⟩ (R₀ + k s/R₀).
    """
    center, spread = np.broadcast_arrays(np.asarray(mean, dtype=float), np.asarray(variance, dtype=float))
    moments, by_mean, by_variance = (np.zeros((order + 1, *center.shape)) for _ in range(3))
    moments[0] = 1.0
    for k in range(order):
        factor = center + k * spread / center
        moments[k + 1] = moments[k] * factor
        by_mean[k + 1] = by_mean[k] * factor + moments[k] * (1 - k * spread / center**2)
        by_variance[k + 1] = by_variance[k] * factor + moments[k] * (k / center)
    return moments, by_mean, by_variance


def mean_volume(radius_nm: ArrayLike, variance_nm2: ArrayLike, distribution: str = "gaussian") -> Floats:
    """⟨V⟩ = 4π/3 ⟨R³⟩, nm³: ⟨R³⟩ = R₀³ + 3R₀s; Schulz–Zimm has 2s²/R₀ more, the lognormal (3s² + s³/R₀²)/R₀."""
    radius, s = np.asarray(radius_nm, dtype=float), np.asarray(variance_nm2, dtype=float)
    skewness = {"gaussian": 0.0, "schulz": 2.0, "lognormal": 3.0}[distribution] * s * s / radius
    cube = radius * (radius * radius + 3 * s) + skewness
    if distribution == "lognormal":
        cube = cube + (s / radius) ** 3
    volume: Floats = 4 * math.pi / 3 * cube
    return volume


def mean_volume_by(radius_nm: Floats, variance_nm2: Floats, distribution: str = "gaussian") -> tuple[Floats, Floats]:
    """∂⟨V⟩/∂R₀ and ∂⟨V⟩/∂s, nm² and nm."""
    radius, s = radius_nm, variance_nm2
    skewness = {"gaussian": 0.0, "schulz": 2.0, "lognormal": 3.0}[distribution] * s / radius
    by_radius = 3 * (radius * radius + s) - skewness * s / radius
    by_variance = 3 * radius + 2 * skewness
    if distribution == "lognormal":
        by_radius = by_radius - 3 * (s / radius) ** 3 / radius
        by_variance = by_variance + 3 * s * s / radius**3
    return 4 * math.pi / 3 * by_radius, 4 * math.pi / 3 * by_variance
