"""Which process limits growth: j_G(r) of each regime, and the exponent n of j_G ∝ 1/rⁿ from coexisting sizes.

Crystals that grow in one solution by j_G = A S(t)/rⁿ (S4.12) share ∫AS dt, whatever S does: with F(r) = r^(n+1)/(n+1),
and its limit ln r for n = −1, the difference F(r₁) − F(r₂) never changes (S4.15). n = 0 is reaction control, n = 1
diffusion control, n > 1 superfocusing. Times and rates play no part.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from saxs_pipeline.science.kinetics import Superfocusing, Synthesis, growth_rate
from saxs_pipeline.types import BadInput, Floats, Uncertain

EXPONENTS = (-10.0, 40.0)
"""Range in which an exponent is looked for, as far as the errors allow."""

_LINEAR = 0.4
"""Largest |n| σ_r/r: the error of rⁿ is linear in that of r only for small ones, and beyond it every law fits."""

_FEWEST = 3
_RADII_NM, _LARGEST_RATIO, _ERRORS = (1e-3, 1e6), 1e3, (1e-9, 1e3)
"""Radii; one over another; errors over their radius: what can be raised to the powers of EXPONENTS."""

_STEP = 5e-4
"""Step in ln r of the five-point derivative: its error is the fourth power of n times that."""


# --- regimes ---------------------------------------------------------------------------------------------------------


def diffusion_limited(radius_m: Floats, supersaturation: float, synthesis: Synthesis, capillary_m: float) -> Floats:
    """j_G in m/s where diffusion limits growth, D/k_a ≪ r (S4.8): D V_m [M]₀ (S − κe^{a/r})/r (Fig. 3b).

    With a = 0, large crystals, j_G ∝ 1/r (eq. 2).
    """
    instant = replace(synthesis, adsorption=Superfocusing(math.inf, exponent=0.0))
    return growth_rate(radius_m, supersaturation, instant, capillary_m)


def reaction_limited(radius_m: Floats, supersaturation: float, synthesis: Synthesis, capillary_m: float) -> Floats:
    """j_G in m/s where adsorption limits growth, D/k_a ≫ r (S4.8): V_m [M]₀ k_a (S − κe^{a/r}) (Fig. 3c).

    With a = 0, large crystals, and the linear free-energy law it is constant (eq. 3).
    """
    return growth_rate(radius_m, supersaturation, replace(synthesis, diffusion_m2_s=math.inf), capillary_m)


def local_exponent(rate: Callable[[Floats], Floats], radius: Floats) -> Floats:
    """n = −(r/f) df/dr (S4.21) of any smooth f(r) at radii r > 0, by central differences good to 1e-9; NaN if f = 0.

    A law 1/rⁿ with this n approximates f around r. For k_a of S6.16 it is n r/(r + B), for S4.10 −αa/r.
    """
    here = np.asarray(rate(radius), dtype=float)
    weights = (1 / 12, -2 / 3, 2 / 3, -1 / 12)
    steps = (-2, -1, 1, 2)
    by_logarithm = sum(w * rate(radius * math.exp(k * _STEP)) for w, k in zip(weights, steps, strict=True)) / _STEP
    return np.asarray(-by_logarithm / np.where(here == 0, np.nan, here))


# --- growth alone ----------------------------------------------------------------------------------------------------


def _progress(ratio: Floats, order: float) -> Floats:
    """(x^m − 1)/m of ratios x > 0, ln x for m = 0, without cancellation."""
    logarithm = np.log(ratio)
    if order == 0:
        return np.asarray(logarithm)
    return np.asarray(np.expm1(order * logarithm) / order)


def _from_progress(progress: Floats, order: float) -> Floats:
    """x with (x^m − 1)/m = progress; NaN where no x > 0 has it: the crystal is dissolved."""
    if order == 0:
        return np.asarray(np.exp(progress))
    inside = np.where(order * progress > -1, order * progress, np.nan)
    return np.asarray(np.exp(np.log1p(inside) / order))


def grown_radius(radius_nm: ArrayLike, growth: ArrayLike, exponent: float) -> Floats:
    """r after growth alone: r^{n+1} = r₀^{n+1} + (n + 1)K with K = ∫AS dt in nm^{n+1} (S4.14, S6.14); r₀e^K for n = −1.

    NaN where K < 0 has dissolved a crystal.
    """
    start, order = np.asarray(radius_nm, dtype=float), exponent + 1
    return start * _from_progress(np.asarray(growth, dtype=float) / start**order, order)


def bimodal_radius(r2_nm: ArrayLike, r1_start_nm: float, r2_start_nm: float, exponent: float) -> Floats:
    """r₁ when r₂ has grown from r2_start_nm to r2_nm: (r₂^{n+1} + r₁,₀^{n+1} − r₂,₀^{n+1})^{1/(n+1)} (S4.15).

    n = 1 is eq. 2 (diffusion), n = 0 eq. 3 (reaction), n = −1 a constant ratio. NaN where r₁ would be dissolved.
    """
    order = exponent + 1
    second = np.asarray(r2_nm, dtype=float) / r1_start_nm
    gained = _progress(second, order) - _progress(np.asarray(r2_start_nm / r1_start_nm), order)
    return r1_start_nm * _from_progress(gained, order)


# --- exponent from two coexisting sizes ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ExponentFit:
    """Growth exponent of two series of radii; its error is 0 if the exponent was given, inf if it has no limit.

    constant: r₁^{n+1} − r₂^{n+1} in nm^{n+1} at the best fit, or ln(r₁/r₂) for n = −1; r1_nm (k,): r₁ predicted from
    the measured r₂, NaN where the fit has none; chi2_red over `degrees` of freedom.
    """

    exponent: Uncertain
    constant: float
    r1_nm: Floats
    chi2_red: float
    degrees: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Radii and errors over their geometric mean `unit_nm`, in which sums of powers keep their digits."""

    r1: Floats
    e1: Floats
    r2: Floats
    e2: Floats
    unit_nm: float

    def range(self) -> tuple[float, float]:
        """Exponents that can be told with these errors."""
        limit = _LINEAR / float(max((self.e1 / self.r1).max(), (self.e2 / self.r2).max()))
        return max(EXPONENTS[0], -limit), min(EXPONENTS[1], limit)

    def conserved(self, exponent: float) -> tuple[Floats, Floats]:
        """F(r₁) − F(r₂) (k,) and its standard errors."""
        order = exponent + 1
        difference = _progress(self.r1, order) - _progress(self.r2, order)
        return difference, np.hypot(self.r1**exponent * self.e1, self.r2**exponent * self.e2)

    def constant(self, exponent: float) -> float:
        """The weighted mean of what is conserved."""
        difference, error = self.conserved(exponent)
        return float((difference / error**2).sum() / (1 / error**2).sum())

    def pulls(self, exponent: float) -> Floats:
        """Deviations from the constant in standard errors, (k,)."""
        difference, error = self.conserved(exponent)
        return np.asarray((difference - self.constant(exponent)) / error)

    def adjusted(self, exponent: float) -> _Pairs:
        """The radii moved onto the law, each by its share of the error."""
        difference, error = self.conserved(exponent)
        lack = (difference - self.constant(exponent)) / error**2
        r1 = self.r1 - self.e1**2 * self.r1**exponent * lack
        r2 = self.r2 + self.e2**2 * self.r2**exponent * lack
        return replace(self, r1=np.maximum(r1, 0.5 * self.r1), r2=np.maximum(r2, 0.5 * self.r2))

    def exponent_error(self, exponent: float) -> float:
        """σ_n from the derivative of what is conserved, at the adjusted radii (York et al. 2004, Am. J. Phys. 72, 367).

        The constant is fitted along, so that only the scatter of the derivative about its weighted mean counts.
        """
        moved, step = self.adjusted(exponent), 1e-4
        slope = (moved.conserved(exponent + step)[0] - moved.conserved(exponent - step)[0]) / (2 * step)
        weight = 1 / self.conserved(exponent)[1] ** 2
        information = float((weight * (slope - (weight * slope).sum() / weight.sum()) ** 2).sum())
        return 1 / math.sqrt(information) if information > 0 else math.inf


def fit_exponent(r1_nm: Floats, r1_error: Floats, r2_nm: Floats, r2_error: Floats) -> ExponentFit:
    """n and the constant of S4.15 from radii of two populations and their standard errors at k times, each (k,), nm.

    All radii are measured, the starting ones too: F(r₁) − F(r₂) = C with one free C for all times. n and C minimise the
    sum of squares of F(r₁) − F(r₂) − C over its variance r₁²ⁿσ₁² + r₂²ⁿσ₂² at that n. An n at an end of the range that
    the errors allow, or with a standard error wider than half of it, is not determined: its error is inf, and a note
    says so. Raises BadInput for fewer than 3 times, and for numbers that are not positive or no radii of crystals.
    """
    from scipy.optimize import minimize_scalar

    pairs = _pairs(r1_nm, r1_error, r2_nm, r2_error)

    def chi2(exponent: float) -> float:
        pulls = pairs.pulls(exponent)
        return float(pulls @ pulls)

    low, high = pairs.range()
    coarse = np.linspace(low, high, 201)
    best = int(np.argmin([chi2(float(n)) for n in coarse]))
    around = coarse[max(best - 1, 0)], coarse[min(best + 1, len(coarse) - 1)]
    found = minimize_scalar(chi2, bounds=around, method="bounded", options={"xatol": 1e-9})
    best_n, error = float(found.x), pairs.exponent_error(float(found.x))
    note = ""
    if min(best_n - low, high - best_n) < 1e-3:
        note = f"n is not determined: the best one, {best_n:.4g}, is at the end of the range that was searched"
    elif error > (high - low) / 2:
        note = f"n is not determined: its error, {error:.2g}, is too large for the range that was searched"
    fit = _exponent_fit(pairs, Uncertain(best_n, math.inf if note else error), free=2)
    return replace(fit, notes=(note,) if note else ())


def with_exponent(r1_nm: Floats, r1_error: Floats, r2_nm: Floats, r2_error: Floats, exponent: float) -> ExponentFit:
    """The constant of S4.15 for a given n, as `fit_exponent`: how well reaction or diffusion control would do."""
    return _exponent_fit(_pairs(r1_nm, r1_error, r2_nm, r2_error), Uncertain(exponent), free=1)


def _pairs(*columns: Floats) -> _Pairs:
    r1, e1, r2, e2 = (np.asarray(column, dtype=float) for column in columns)
    if not r1.shape == e1.shape == r2.shape == e2.shape or r1.ndim != 1 or r1.size < _FEWEST:
        raise BadInput(f"two radii: give r1, r2 and their errors at {_FEWEST} times or more, equally often")
    if not all(np.isfinite(column).all() and (column > 0).all() for column in (r1, e1, r2, e2)):
        raise BadInput("two radii: every radius and every error must be a positive number; leave other times out")
    _require_crystals(np.concatenate([r1, r2]), np.concatenate([e1, e2]))
    unit = float(np.exp(0.5 * (np.log(r1).mean() + np.log(r2).mean())))
    return _Pairs(r1 / unit, e1 / unit, r2 / unit, e2 / unit, unit)


def _require_crystals(radii: Floats, errors: Floats) -> None:
    """Raise BadInput where radii (k,) in nm or their errors cannot be those of crystals side by side."""
    low, high = float(radii.min()), float(radii.max())
    if low < _RADII_NM[0] or high > _RADII_NM[1] or high > _LARGEST_RATIO * low:
        raise BadInput(
            f"two radii: they go from {low:.3g} to {high:.3g} nm; give radii from {_RADII_NM[0]:g} to {_RADII_NM[1]:g} "
            f"nm that differ by less than a factor of {_LARGEST_RATIO:g}"
        )
    relative = errors / radii
    if relative.min() < _ERRORS[0] or relative.max() > _ERRORS[1]:
        raise BadInput(
            f"two radii: errors are {relative.min():.3g} to {relative.max():.3g} times their radius; give standard "
            f"errors from {_ERRORS[0]:g} to {_ERRORS[1]:g} times"
        )


def _exponent_fit(pairs: _Pairs, exponent: Uncertain, free: int) -> ExponentFit:
    n, order = exponent.value, exponent.value + 1
    constant, pulls = pairs.constant(n), pairs.pulls(n)
    degrees = len(pulls) - free
    return ExponentFit(
        exponent=exponent,
        constant=constant * (order * pairs.unit_nm**order if order else 1.0),
        r1_nm=pairs.unit_nm * _from_progress(_progress(pairs.r2, order) + constant, order),
        chi2_red=float(pulls @ pulls) / degrees,
        degrees=degrees,
    )
