"""Form factors of spheres, per unit contrast², in nm⁶, and the factor that turns them into an absolute intensity.

The model is I(q) = A · c · ⟨P(q)⟩ + b with c in µmol/L and A from `intensity_factor`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from saxs_pipeline.science.distributions import gaussian_moments_by
from saxs_pipeline.types import Floats

AVOGADRO_PER_MOL = 6.02214076e23  # exact, SI 2019

SERIES_BELOW = 0.06
"""Below x² + |t| of this the closed form, a difference of numbers near ½, loses more than the series leaves out."""
SERIES_MOMENTS = 20
"""Highest moment of the series."""
_SPHERE_SERIES_BELOW = 0.3


def intensity_factor(contrast_1_A2: float) -> float:
    """A = Δρ² N_A: I in 1/mm from a concentration in µmol/L times a form factor in nm⁶; contrast Δρ in 1/Å².

    1 µmol/L = 6.022e-7 crystals per nm³, Δρ = 100 Δρ(1/Å²) in 1/nm², 1/nm = 1e6/mm.
    """
    crystals_per_nm3 = AVOGADRO_PER_MOL * 1e-6 / 1e24
    return crystals_per_nm3 * (100.0 * contrast_1_A2) ** 2 * 1e6


def sphere(q_nm: Floats, radius_nm: ArrayLike) -> Floats:
    """P(q, R) = V² [3 (sin x − x cos x)/x³]², x = qR, nm⁶: (m,) for a number, (…, m) for radii of shape (…).

    Analytic in the radius, which may be complex.
    S2.2 prints 36π; the dimension-consistent factor is 9, with which P(0) = V².
    """
    radius = np.asarray(radius_nm)[..., None]
    x = radius * np.asarray(q_nm, dtype=float)
    x2 = x * x
    small = np.abs(x2) < _SPHERE_SERIES_BELOW**2
    amplitude = np.sin(x)
    amplitude -= x * np.cos(x)
    amplitude *= 3
    np.divide(amplitude, x2 * x, out=amplitude, where=~small)
    if small.any():
        y = x2[small]
        amplitude[small] = 1 - y / 10 * (1 - y / 28 * (1 - y / 54 * (1 - y / 88)))
    form: Floats = (4 * math.pi / 3 * radius**3 * amplitude) ** 2
    return form


def gaussian_spheres(q_nm: Floats, radius_nm: Floats, variance_nm2: Floats) -> tuple[Floats, Floats, Floats]:
    """⟨P⟩ of spheres with a Gaussian number distribution of R, and its derivatives ∂/∂R₀ and ∂/∂s.

    q_nm (m,) ≥ 0; radius_nm (n,) is R₀; variance_nm2 (n,) is s = σ_R² and may be slightly negative.
    Returns (P, ∂P/∂R₀, ∂P/∂s), each (n, m), in nm⁶, nm⁵, nm⁴. With x = qR₀, t = q²s, E = exp(−2t):

        P = (4π)² q⁻⁶ F,   F = ½(1 + x² + t) + ½(x² − 1 − 3t − 4t²) E cos 2x − x(1 + 2t) E sin 2x
        ∂F/∂x = x − x(1 + 4t) E cos 2x − (x² − t − 4t²) E sin 2x
        ∂F/∂t = ½ − (½ + x² + t − 4t²) E cos 2x + 4xt E sin 2x

    F = ⟨(sin X − X cos X)²⟩ for X normal with mean x and variance t, i.e. over all real R (see `distributions`).
    """
    q, radius, variance = (np.asarray(a, dtype=float) for a in (q_nm, radius_nm, variance_nm2))
    x = radius[:, None] * q
    t = variance[:, None] * (q * q)
    value, by_radius, by_variance = _closed_form(x, t)
    inverse = 1 / np.where(q > 0, q, np.inf)  # q = 0 is left to the series
    scale = (4 * math.pi) ** 2 * inverse**4
    by_variance *= scale
    by_radius *= scale * inverse
    value *= scale * inverse * inverse
    row, column = np.nonzero(x * x + np.abs(t) < SERIES_BELOW)
    if row.size:
        series = moment_series(q[column], *gaussian_moments_by(radius[row], variance[row], SERIES_MOMENTS))
        value[row, column], by_radius[row, column], by_variance[row, column] = series
    return value, by_radius, by_variance


def _closed_form(x: Floats, t: Floats) -> tuple[Floats, Floats, Floats]:
    """F, ∂F/∂x, ∂F/∂t of `gaussian_spheres` for x and t of equal shape.

    In place throughout: with a temporary per operation, the memory for them costs more than the sines.
    """
    work = -2 * t
    decay = np.exp(work, out=work)
    sine = 2 * x
    cosine = np.cos(sine)
    np.sin(sine, out=sine)
    cosine *= decay
    sine *= decay
    x2 = np.multiply(x, x, out=decay)

    term = (4 * t + 3) * t
    term += 1
    value = x2 - term
    value *= cosine
    value += x2
    value += t
    value += 1
    value *= 0.5
    np.multiply(t, 2, out=term)
    term += 1
    term *= x
    term *= sine
    value -= term

    np.multiply(t, 4, out=term)
    term += 1
    by_x = term * x
    by_x *= cosine
    np.subtract(x, by_x, out=by_x)
    term *= t
    np.subtract(x2, term, out=term)
    term *= sine
    by_x -= term

    by_t = x * t
    by_t *= sine
    by_t *= 4
    np.multiply(t, -4, out=term)
    term += 1
    term *= t
    term += x2
    term += 0.5
    term *= cosine
    by_t -= term
    by_t += 0.5
    return value, by_x, by_t


def moment_series(q: Floats, moments: Floats, by_radius: Floats, by_variance: Floats) -> tuple[Floats, Floats, Floats]:
    """P, ∂P/∂R₀, ∂P/∂s by P = (4π)² Σ_j a_j q^(2j−6) ⟨R^2j⟩ for q (k,) and SERIES_MOMENTS + 1 moments (…, k).

    a_j = (−1)^(j−1) 4^(j−1) (2j−1)(j−2)/(2j)!, from (sin X − X cos X)² = X⁶/9 − X⁸/45 + …
    """
    forms = np.zeros((3, *q.shape))
    for j in range(SERIES_MOMENTS // 2, 2, -1):  # Horner in q²
        k = 2 * j
        a = (-1) ** (j - 1) * 4 ** (j - 1) * (k - 1) * (j - 2) / math.factorial(k)
        forms = forms * q * q + a * np.stack([moments[k], by_radius[k], by_variance[k]])
    value, per_radius, per_variance = (4 * math.pi) ** 2 * forms
    return value, per_radius, per_variance
