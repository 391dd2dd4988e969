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
    a = 2 * np.asarray(q_nm) * np.asarray(radius_nm)
    eta = np.asarray(volume_fraction)
    alpha = (1 + 2 * eta) ** 2 / (1 - eta) ** 4
    beta = -6 * eta * (1 + eta / 2) ** 2 / (1 - eta) ** 4
    gamma = eta * alpha / 2
    small = np.abs(a) < _SERIES_BELOW
    integral = np.where(small, _series(a, alpha, beta, gamma), _closed(np.where(small, 1.0, a), alpha, beta, gamma))
    return np.asarray(1 / (1 + 24 * eta * integral))


def _series(a: NDArray[Any], alpha: Any, beta: Any, gamma: Any) -> NDArray[Any]:
    a2 = np.where(np.abs(a) < _SERIES_BELOW, a * a, 0.0)
    total = np.zeros_like(a2)
    for k in reversed(range(_SERIES_TERMS)):
        moment = alpha / (2 * k + 3) + beta / (2 * k + 4) + gamma / (2 * k + 6)
        total = total * a2 + (-1) ** k / math.factorial(2 * k + 1) * moment
    return total


def _closed(a: NDArray[Any], alpha: Any, beta: Any, gamma: Any) -> NDArray[Any]:
    sine, cosine, a2 = np.sin(a), np.cos(a), a * a
    first = (sine - a * cosine) / (a * a2)
    second = (2 * a * sine + (2 - a2) * cosine - 2) / (a2 * a2)
    third = (-a2 * a2 * cosine + 4 * ((3 * a2 - 6) * cosine + (a * a2 - 6 * a) * sine + 6)) / (a2 * a2 * a2)
    return np.asarray(alpha * first + beta * second + gamma * third)
