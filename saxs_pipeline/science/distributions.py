"""Number distributions of the radius: density and moments of the Gaussian.

The Gaussian is taken over all real R, because only then its moments, the form factor and their derivatives are closed
forms in (R₀, s = σ_R²). A crystal has R > 0; what the negative tail adds to ⟨R⁶⟩ is below 1e-9 of it for σ_R/R₀ ≤ 0.2
and below 6e-6 for σ_R/R₀ = 0.3. Broader distributions need another shape, not a truncated Gaussian.
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
