"""⟨P⟩ of spheres whose radii have a lognormal or a Schulz–Zimm distribution, or that hinder each other (hard spheres).

All take the number mean R₀ and the variance s = σ_R² of the radii, whatever the distribution, and return ⟨P⟩ and its
derivatives ∂/∂R₀ and ∂/∂s as `formfactors.gaussian_spheres` does. In the limit s → 0 all distributions agree, to the
first order in s; a slightly negative s is the analytic continuation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.science.distributions import schulz_moments_by
from saxs_pipeline.science.formfactors import SERIES_BELOW, SERIES_MOMENTS, gaussian_spheres, moment_series, sphere
from saxs_pipeline.science.structurefactors import hard_spheres_by_fraction
from saxs_pipeline.types import Floats

Averages = tuple[Floats, Floats, Floats]
Kernel = Callable[[Floats, NDArray[Any], Floats], tuple[NDArray[Any], ...]]
"""q (m,), radii (n,), real or complex, and a parameter (n,) → (n, m), and if it has one its derivative by it."""

_REACH = 7.5
"""Standard deviations to either side that an integral over sizes covers: beyond them are 1e-13 of the crystals."""
_LARGEST_POWER = 6
"""⟨P⟩ weights a size with its sixth power at q = 0."""
_CLEAR = 8.0
"""How far, in standard deviations, the mirror frequency of the trapezoidal rule keeps from those of the integrand."""
_BROAD = 0.5
"""σ_R/R₀ up to which an integral over hard spheres is good to 1e-8."""
_BROADEST = 1.5
"""The same for lognormal spheres."""
_MOST_TURNS = 50.0
"""Radians that are followed in steps of real radii; what turns faster is integrated along complex ones."""
_SERIES_WIDTH = 8.0
"""How much more s counts than R₀² for where Schulz–Zimm's moment series ends: its high moments grow with s."""
_ABOVE, _ABOVE_STEP, _ABOVE_REACH = 2.0, 0.35, 8.5
"""Where in the standard deviate that path runs, its step and its ends: as good as rounding allows."""
_NARROW = 1e-4
"""Below this σ_R/R₀ all distributions are the same to 1e-12, and the weights' derivatives lose digits."""


def schulz_spheres(q_nm: Floats, radius_nm: Floats, variance_nm2: Floats) -> Averages:
    """⟨P⟩ and its derivatives, each (n, m), for a Schulz–Zimm (gamma) distribution of R; arguments as for Gaussians.

    Closed form by the characteristic function φ(k) = ⟨exp(ikR)⟩ = (1 − iks/R₀)^(−R₀²/s), k = 2q; z = 1/(1 − iks/R₀):
    ⟨R exp(ikR)⟩ = R₀φz, ⟨R² exp(ikR)⟩ = (R₀² + s)φz² (the form of Aragón & Pecora 1976, J. Chem. Phys. 64, 2395), and
    P = (4π)² q⁻⁶ [½ + q²(R₀² + s)/2 − ½ Re φ − q Im(R₀φz) + ½ q² Re((R₀² + s)φz²)].
    """
    q, radius, variance = (np.asarray(a, dtype=float) for a in (q_nm, radius_nm, variance_nm2))
    forms = _schulz_closed(q, radius[:, None], variance[:, None])
    small = (q * radius[:, None]) ** 2 + _SERIES_WIDTH * q * q * np.abs(variance[:, None]) < SERIES_BELOW
    row, column = np.nonzero(small)
    if row.size:
        series = moment_series(q[column], *schulz_moments_by(radius[row], variance[row], SERIES_MOMENTS))
        for form, part in zip(forms, series, strict=True):
            form[row, column] = part
    return forms


def _schulz_closed(q: Floats, radius: Floats, s: Floats) -> Averages:
    k = 2 * q
    u = k * s / radius
    log_part, angle, slope = _schulz_functions(u * u)
    z = (1 + 1j * u) / (1 + u * u)
    phi = np.exp(-0.5 * k * k * s * log_part + 1j * k * radius * angle)
    by_radius = -k * u * log_part + 1j * k * (2 * angle - z)
    by_variance = k * k * (0.5 * log_part - 1 / (1 + u * u)) - 1j * k * k * u * slope
    second = radius * radius + s
    one, two = radius * phi * z, second * phi * z * z
    turn_radius, turn_variance = -1j * z * u / radius, 1j * z * k / radius  # ∂ ln z
    value = 0.5 + 0.5 * q * q * second - 0.5 * phi.real - q * one.imag + 0.5 * q * q * two.real
    per_radius = (
        q * q * radius
        - 0.5 * (phi * by_radius).real
        - q * (one * (1 / radius + by_radius + turn_radius)).imag
        + 0.5 * q * q * (two * (2 * radius / second + by_radius + 2 * turn_radius)).real
    )
    per_variance = (
        0.5 * q * q
        - 0.5 * (phi * by_variance).real
        - q * (one * (by_variance + turn_variance)).imag
        + 0.5 * q * q * (two * (1 / second + by_variance + 2 * turn_variance)).real
    )
    scale = (4 * math.pi) ** 2 / np.where(q > 0, q, np.inf) ** 6
    return scale * value, scale * per_radius, scale * per_variance


def _schulz_functions(u2: Floats) -> Averages:
    """ln(1 + u²)/u², atan(u)/u and (atan(u)/u − 1/(1 + u²))/u², by their series where u² is small."""
    small = u2 < 0.01
    x = np.where(small, u2, 0.0)
    y = np.where(small, 1.0, u2)
    orders = range(9, -1, -1)
    series = [
        _polynomial(x, [(-1) ** n / (n + 1) for n in orders]),
        _polynomial(x, [(-1) ** n / (2 * n + 1) for n in orders]),
        _polynomial(x, [(-1) ** n * (2 * n + 2) / (2 * n + 3) for n in orders]),
    ]
    root = np.sqrt(y)
    angle = np.arctan(root) / root
    closed = (np.log1p(y) / y, angle, (angle - 1 / (1 + y)) / y)
    first, second, third = (np.where(small, a, b) for a, b in zip(series, closed, strict=True))
    return first, second, third


def _polynomial(x: Floats, coefficients: list[float]) -> Floats:
    """Highest order first."""
    total = np.zeros_like(x)
    for a in coefficients:
        total = total * x + a
    return total


# --- integrals over sizes -------------------------------------------------------------------------------------------


class Nodes(NamedTuple):
    """Rule of an integral over sizes for n frames, each (j, n): radii nm, weights, ∂ ln weight/∂R₀ and ∂/∂s.

    Radii are complex for a negative variance, and on a complex path.
    """

    radius: NDArray[Any]
    weight: NDArray[Any]
    by_radius: NDArray[Any]
    by_variance: NDArray[Any]


Rule = Callable[[NDArray[Any], Floats, Floats], Nodes]
"""Standard deviates (j,), R₀ and s (n,) → nodes."""


def integrate(
    q_nm: Floats,
    radius_nm: Floats,
    variance_nm2: Floats,
    *,
    rule: Rule,
    kernel: Kernel,
    parameter: Floats | None = None,
    broadest: float = _BROAD,
    most_turns: float = math.inf,
) -> list[Floats]:
    """∫ g(R) K(q, R) dR, its derivatives by R₀ and s through those of the density g, and by K's parameter; (n, m) each.

    parameter (n,): one of K's own for each frame; without it there is no fourth result. Distributions with σ_R/R₀ above
    `broadest`, which only the way to a minimum meets, and what turns by more than most_turns, are not followed further.
    Frames without a size, NaN, have NaN.

    Trapezoidal in the standard deviate, which for such integrands converges faster than any power of the step
    (Trefethen & Weideman 2014, SIAM Rev. 56, 385). The rule of a frame depends on nothing but its own (R₀, s) and q.
    """
    q = np.asarray(q_nm, dtype=float)
    totals = [np.zeros((len(radius_nm), len(q))) for _ in range(3 if parameter is None else 4)]
    own = np.zeros_like(radius_nm) if parameter is None else parameter
    relative = np.minimum(np.sqrt(np.abs(variance_nm2)) / np.abs(radius_nm), broadest)
    turns = _turns(q.max() * np.abs(radius_nm), relative, growing=rule is not gaussian_rule)
    step, reach = _extents(np.where(variance_nm2 > 0, np.minimum(turns, most_turns), turns), relative)
    group = np.stack([step, reach, variance_nm2 < 0])
    sized = np.isfinite(group[:2]).all(axis=0) & np.isfinite(own)
    for total in totals:
        total[~sized] = np.nan
    for one in np.unique(group[:, sized], axis=1).T:
        rows = np.flatnonzero((group == one[:, None]).all(axis=0))
        deviates = one[0] * np.arange(-math.ceil(_REACH / one[0]), math.ceil(one[1] / one[0]) + 1)
        nodes = (gaussian_rule if one[2] else rule)(deviates, radius_nm[rows], variance_nm2[rows])
        for total, part in zip(totals, _summed(q, nodes, kernel, own[rows]), strict=True):
            total[rows] = part
    return totals


def _turns(x: Floats, relative: Floats, *, growing: bool) -> Floats:
    """Radians by which cos 2qR turns per standard deviate, x = qR₀. growing: the radii's distances grow with them."""
    return np.asarray(2 * x * relative * (np.exp(6 * relative) if growing else 1.0))


def _extents(turns: Floats, relative: Floats) -> tuple[Floats, Floats]:
    """Step and upper end of each frame's rule (n,), in few different values so that frames share them.

    The step is fine enough for what oscillates over sizes, the end far enough for what is weighted by R⁶.
    """
    step = 2.0 ** (np.floor(2 * np.log2(2 * math.pi / (turns + _CLEAR))) / 2)
    return step, _REACH + np.ceil(_LARGEST_POWER * relative)


def _summed(q: Floats, nodes: Nodes, kernel: Kernel, parameter: Floats) -> list[Floats]:
    totals: list[Any] = [0.0, 0.0, 0.0]
    for r, w, by_radius, by_variance in zip(*nodes, strict=True):
        value, *by_parameter = kernel(q, r, parameter)
        weighted = w[:, None] * value
        totals[0] = totals[0] + weighted
        totals[1] = totals[1] + by_radius[:, None] * weighted
        totals[2] = totals[2] + by_variance[:, None] * weighted
        for by in by_parameter:
            totals[3:] = [(totals[3] if len(totals) > 3 else 0.0) + w[:, None] * by]
    return [np.real(total) for total in totals]


def gaussian_rule(deviates: NDArray[Any], radius: Floats, variance: Floats) -> Nodes:
    """Radii R₀ + σz; those that are not positive count as none."""
    floor = (_NARROW * radius) ** 2
    s = np.where(np.abs(variance) < floor, np.copysign(floor, variance), variance)
    width = np.sqrt(s) if (s > 0).all() else np.sqrt(s.astype(complex))
    z = deviates[:, None]
    r = radius + width * z
    weight = np.where(r.real > 0, np.exp(-0.5 * z * z) / np.exp(-0.5 * z * z).sum(), 0.0)
    return Nodes(r, weight, z / width, (z * z - 1) / (2 * s))


def lognormal_rule(deviates: NDArray[Any], radius: Floats, variance: Floats) -> Nodes:
    """Radii R₀ exp(ωz − ω²/2), ω² = ln(1 + s/R₀²), for s ≥ 0; deviates also complex, also (j, n)."""
    omega2 = np.maximum(np.log1p(variance / radius**2), _NARROW**2)
    omega, z = np.sqrt(omega2), deviates.reshape(len(deviates), -1)
    r = radius * np.exp(omega * z - 0.5 * omega2)
    by_omega2 = ((z * z - 1) / omega - z) / (2 * omega)
    second = radius**2 + variance
    by_radius = z / (omega * radius) - by_omega2 * 2 * variance / (radius * second)
    return Nodes(r, _normalised(np.exp(-0.5 * z * z) + 0 * r), by_radius, by_omega2 / second)


def schulz_rule(deviates: NDArray[Any], radius: Floats, variance: Floats) -> Nodes:
    """Radii R₀ exp(ωz), ω as for the lognormal, with the weights of the gamma distribution, for s ≥ 0."""
    s = np.maximum(variance, (_NARROW * radius) ** 2)
    y = np.sqrt(np.log1p(s / radius**2)) * deviates[:, None]
    below = _below_exponential(y)
    weight = _normalised(np.exp(radius**2 / s * below))
    by_radius = (2 * below + np.expm1(y)) * radius / s
    by_variance = -below * (radius / s) ** 2
    means = (_sum(weight * by) for by in (by_radius, by_variance))
    return Nodes(
        radius * np.exp(y), weight, *(by - mean for by, mean in zip((by_radius, by_variance), means, strict=True))
    )


def _below_exponential(y: Floats) -> Floats:
    """y − (exp y − 1), without cancellation where y is small."""
    series = -0.5 * y * y * (1 + y / 3 * (1 + y / 4 * (1 + y / 5 * (1 + y / 6 * (1 + y / 7)))))
    return np.asarray(np.where(np.abs(y) < 0.01, series, y - np.expm1(y)))


def _normalised(weight: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(weight / _sum(weight))


def _sum(values: NDArray[Any]) -> NDArray[Any]:
    """Over the first axis, in order: what numpy's sum does depends on how many columns there are."""
    return np.asarray(np.cumsum(values, axis=0)[-1])


def _spheres(q: Floats, radius: NDArray[Any], _: Floats) -> tuple[NDArray[Any], ...]:
    return (sphere(q, radius),)


def _lognormal_spheres(q_nm: Floats, radius_nm: Floats, variance_nm2: Floats) -> Averages:
    value, by_radius, by_variance = integrate(
        q_nm,
        radius_nm,
        variance_nm2,
        rule=lognormal_rule,
        kernel=_spheres,
        broadest=_BROADEST,
        most_turns=_MOST_TURNS,
    )
    relative = np.minimum(np.sqrt(np.maximum(variance_nm2, 0.0)) / np.abs(radius_nm), _BROADEST)
    fast = _turns(q_nm * np.abs(radius_nm)[:, None], relative[:, None], growing=True) > _MOST_TURNS
    rows = np.flatnonzero(fast.any(axis=1))
    if rows.size:
        beyond = _lognormal_above(np.asarray(q_nm, dtype=float), radius_nm[rows], variance_nm2[rows])
        for whole, part in zip((value, by_radius, by_variance), beyond, strict=True):
            whole[rows] = np.where(fast[rows], part, whole[rows])
    return value, by_radius, by_variance


def _lognormal_above(q: Floats, radius: Floats, s: Floats) -> Averages:
    """⟨P⟩ and its derivatives (n, m), for s > 0, along complex radii, on which exp(2iqR) decays where it turns fast.

    P = (4π)² q⁻⁶ ½ [1 + x² + Re (x + i)² e^(2ix)], x = qR: the integrand has no poles, so that any path will do. Where
    all x are small, P is a small difference of these parts, and the sum over P itself is better.
    """
    above = np.minimum(_ABOVE, 0.5 * math.pi / np.sqrt(np.log1p(s / radius**2)))  # half way to where it grows again
    number = round(_ABOVE_REACH / _ABOVE_STEP)
    nodes = lognormal_rule(_ABOVE_STEP * np.arange(-number, number + 1)[:, None] + 1j * above, radius, s)
    value, by_radius, by_variance = _summed(q, nodes, _oscillation, radius)
    scale = 0.5 * (4 * math.pi) ** 2 / np.where(q > 0, q, np.inf) ** 6
    mean, second = radius[:, None], (radius**2 + s)[:, None]
    return scale * (1 + q * q * second + value), scale * (2 * q * q * mean + by_radius), scale * (q * q + by_variance)


def _oscillation(q: Floats, radius: NDArray[Any], _: Floats) -> tuple[NDArray[Any], ...]:
    x = q * radius[:, None]
    return (np.exp(2j * x) * (x + 1j) ** 2,)


RULES: dict[str, Rule] = {"gaussian": gaussian_rule, "lognormal": lognormal_rule, "schulz": schulz_rule}
CLOSED: dict[str, Callable[[Floats, Floats, Floats], Averages]] = {
    "gaussian": gaussian_spheres,
    "lognormal": _lognormal_spheres,
    "schulz": schulz_spheres,
}


def broadest(distribution: str, *, hindered: bool) -> float:
    """σ_R/R₀ up to which `average`, or `hindered`, is good to 1e-8."""
    if hindered:
        return _BROAD
    return _BROADEST if distribution == "lognormal" else math.inf


def average(distribution: str, q_nm: Floats, radius_nm: Floats, variance_nm2: Floats) -> Averages:
    """⟨P⟩, ∂/∂R₀, ∂/∂s, each (n, m), of spheres with that distribution: gaussian, lognormal or schulz."""
    return CLOSED[distribution](q_nm, radius_nm, variance_nm2)


def hindered(  # noqa: PLR0917
    distribution: str, q_nm: Floats, radius_nm: Floats, variance_nm2: Floats, fraction: Floats, shell_nm: float
) -> tuple[Floats, Floats, Floats, Floats]:
    """⟨P S⟩ and its derivatives by R₀, s and the volume fraction η (n,) of hard spheres of radius R + shell.

    Local monodisperse approximation (Pedersen 1994, J. Appl. Cryst. 27, 595): a particle is among others of its size.
    """

    def kernel(q: Floats, radius: NDArray[Any], eta: Floats) -> tuple[NDArray[Any], ...]:
        form = sphere(q, radius)
        factor, by_fraction = hard_spheres_by_fraction(q, radius[:, None] + shell_nm, eta[:, None])
        return form * factor, form * by_fraction

    value, by_radius, by_variance, by = integrate(
        q_nm, radius_nm, variance_nm2, rule=RULES[distribution], kernel=kernel, parameter=fraction
    )
    return value, by_radius, by_variance, by
