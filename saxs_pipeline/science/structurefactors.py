"""Structure factor of hard spheres (Percus–Yevick; Kinning & Thomas 1984, Macromolecules 17, 1712)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_SERIES_BELOW = 1.5
"""Below this A = 2qR the closed form, with A⁻⁵ in it, loses more than the series leaves out."""
_SERIES_TERMS = 11


def hard_spheres(q_nm: ArrayLike, radius_nm: ArrayLike, volume_fraction: ArrayLike) -> NDArray[Any]:
    """S(q) of hard spheres; q in 1/nm, radius (of the hard sphere) in nm, volume fraction 0 … 0.74; shapes broadcast.

    S = 1/(1 + 24η G), G = ∫₀¹ (α + βu + γu³) u² sin(Au)/(Au) du, A = 2qR, α = (1 + 2η)²/(1 − η)⁴,
    β = −6η(1 + η/2)²/(1 − η)⁴, γ = ηα/2; S(0) = (1 − η)⁴/(1 + 2η)². Analytic in the radius, which may be complex.
    """
    return hard_spheres_by_fraction(q_nm, radius_nm, volume_fraction)[0]


def hard_spheres_by_fraction(
    q_nm: ArrayLike, radius_nm: ArrayLike, volume_fraction: ArrayLike
) -> tuple[NDArray[Any], NDArray[Any]]:
    """S(q) as `hard_spheres`, and its derivative by the volume fraction."""
    eta = np.asarray(volume_fraction)
    alpha = (1 + 2 * eta) ** 2 / (1 - eta) ** 4
    per_eta = -6 * (1 + eta / 2) ** 2 / (1 - eta) ** 4
    alpha_by = alpha * (4 / (1 + 2 * eta) + 4 / (1 - eta))
    beta_by = per_eta + eta * per_eta * (1 / (1 + eta / 2) + 4 / (1 - eta))
    one, two, three = _integrals(2 * np.asarray(q_nm) * np.asarray(radius_nm))
    integral = alpha * one + eta * per_eta * two + 0.5 * eta * alpha * three
    by = alpha_by * one + beta_by * two + 0.5 * (alpha + eta * alpha_by) * three
    factor = 1 / (1 + 24 * eta * integral)
    return np.asarray(factor), np.asarray(-24 * factor * factor * (integral + eta * by))


def _integrals(a: NDArray[Any]) -> list[NDArray[Any]]:
    """∫₀¹ uᵏ sin(Au)/(Au) du for k = 2, 3, 5."""
    small = np.abs(a) < _SERIES_BELOW
    y = np.where(small, 1.0, a)
    sine, cosine, y2 = np.sin(y), np.cos(y), y * y
    found = [
        np.asarray(part)
        for part in (
            (sine - y * cosine) / (y * y2),
            (2 * y * sine + (2 - y2) * cosine - 2) / (y2 * y2),
            (-y2 * y2 * cosine + 4 * ((3 * y2 - 6) * cosine + (y * y2 - 6 * y) * sine + 6)) / (y2 * y2 * y2),
        )
    ]
    if small.any():
        a2 = a[small] ** 2
        for part, k in zip(found, (3, 4, 6), strict=True):
            total = np.zeros_like(a2)
            for j in reversed(range(_SERIES_TERMS)):
                total = total * a2 + (-1) ** j / (math.factorial(2 * j + 1) * (2 * j + k))
            part[small] = total
    return found
