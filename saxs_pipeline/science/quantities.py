"""From fitted parameters to what the user came for: radius, width, concentration, yield, with their covariance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from saxs_pipeline.science.distributions import mean_volume, mean_volume_by
from saxs_pipeline.science.formfactors import AVOGADRO_PER_MOL
from saxs_pipeline.types import Bools, Estimate, Floats, Uncertain

_C, _R, _S, _B = range(4)
_UMOL_PER_MMOL = 1e3


@dataclass(frozen=True)
class Derived:
    """Quantities of n frames, each an Estimate of (n,) arrays.

    covariance (n, 3, 3) of (r, σ_r, c), statistical, with NaN in the row and column of a σ_r that is only a limit;
    sigma_is_limit (n,): the width is not resolved (s < 2 standard errors); sigma_nm then holds the upper limit
    √(max(s, 0) + 2 s.e.) and no error.
    """

    radius_nm: Estimate
    sigma_nm: Estimate
    c_nc_umol_L: Estimate
    yield_: Estimate
    background_1_mm: Estimate
    covariance: Floats
    sigma_is_limit: Bools


def volume_fraction(c_nc_umol_L: ArrayLike, mean_volume_nm3: ArrayLike) -> Floats:
    """The crystals' share of the volume, c N_A ⟨V⟩: 1 µmol/L is 6.022e-7 per nm³."""
    share: Floats = 1e-30 * AVOGADRO_PER_MOL * np.asarray(c_nc_umol_L, dtype=float) * np.asarray(mean_volume_nm3)
    return share


def cations_per_crystal(mean_volume_nm3: ArrayLike, lattice_nm: float, cations_per_cell: float = 4) -> Floats:
    """n = cations_per_cell ⟨V⟩/a³ (S2.5: 4 Cd in a zinc-blende cell of edge a)."""
    number: Floats = cations_per_cell * np.asarray(mean_volume_nm3, dtype=float) / lattice_nm**3
    return number


def yield_fraction(c_nc_umol_L: ArrayLike, cations: ArrayLike, cation_mmol_L: float) -> Floats:
    """Y = c_NC n / c_cation,0 (S2.6): the share of all cations that is in crystals, 1 for a complete reaction."""
    in_crystals = np.asarray(c_nc_umol_L, dtype=float) * np.asarray(cations, dtype=float)
    share: Floats = in_crystals / (_UMOL_PER_MMOL * cation_mmol_L)
    return share


def derive(
    values: Floats,
    covariance: Floats,
    *,
    lattice_nm: Uncertain | float,
    cations_per_cell: float,
    cation_mmol_L: Uncertain,
    scale_rel: float,
    distribution: str = "gaussian",
) -> Derived:
    """Quantities and their errors from fits.

    values (n, 4) and covariance (n, 4, 4) of c, R₀, s, b; a row of NaN gives NaN everywhere.
    Statistical errors come from the full covariance of (c, R₀, s), which are strongly correlated. Systematic ones:
    scale_rel · |value| for c and b, which share the absolute scale; for the yield also the relative uncertainties of
    the cation concentration and of a³, in quadrature.
    """
    lattice = lattice_nm if isinstance(lattice_nm, Uncertain) else Uncertain(float(lattice_nm))
    c, radius, _, background = values.T
    c_error, radius_error, _, background_error = _errors(covariance).T
    crystals, gradient = _yield(values, distribution, (lattice.value, cations_per_cell, cation_mmol_L.value))
    yield_rel = math.hypot(scale_rel, cation_mmol_L.relative, 3 * lattice.relative)
    sigma, is_limit, covariance_rsc = _width(values, covariance)
    none = np.where(np.isnan(radius), np.nan, 0.0)
    return Derived(
        radius_nm=Estimate(radius, radius_error, none),
        sigma_nm=Estimate(sigma[0], sigma[1], none),
        c_nc_umol_L=Estimate(c, c_error, scale_rel * np.abs(c)),
        yield_=Estimate(crystals, _propagated(gradient, covariance), yield_rel * np.abs(crystals)),
        background_1_mm=Estimate(background, background_error, scale_rel * np.abs(background)),
        covariance=covariance_rsc,
        sigma_is_limit=is_limit,
    )


def _errors(covariance: Floats) -> Floats:
    errors: Floats = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    return errors


def _yield(values: Floats, distribution: str, counted: tuple[float, float, float]) -> tuple[Floats, Floats]:
    """Yield (n,) and its gradient (n, 4) in c, R₀, s, b; counted: lattice nm, cations in a cell, cations mmol/L."""
    c, radius, variance, _ = values.T
    lattice_nm, cations_per_cell, cation_mmol_L = counted
    per_crystal = yield_fraction(1.0, cations_per_crystal(1.0, lattice_nm, cations_per_cell), cation_mmol_L)
    volume = mean_volume(radius, variance, distribution)
    by_radius, by_variance = mean_volume_by(radius, variance, distribution)
    gradient = np.stack([volume, c * by_radius, c * by_variance, np.zeros_like(c)], axis=-1)
    return c * volume * per_crystal, per_crystal * gradient


def _propagated(gradient: Floats, covariance: Floats) -> Floats:
    """√(gᵀ C g) for each frame, g (n, p) and C (n, p, p)."""
    terms = (gradient[:, :, None] * covariance * gradient[:, None, :]).reshape(len(gradient), -1)
    errors: Floats = np.sqrt(terms.sum(axis=-1))
    return errors


def _width(values: Floats, covariance: Floats) -> tuple[tuple[Floats, Floats], Bools, Floats]:
    """(σ_r, its error), whether it is only an upper limit, and the covariance (n, 3, 3) of (r, σ_r, c)."""
    variance, error = values[:, _S], _errors(covariance)[:, _S]
    is_limit = variance < 2 * error
    limit = np.sqrt(np.maximum(variance, 0) + 2 * error)
    sigma = np.sqrt(np.where(is_limit, np.nan, variance))
    jacobian = np.ones((len(values), 3))
    jacobian[:, 1] = 1 / (2 * sigma)
    rows = [_R, _S, _C]
    of_rsc = covariance[:, rows][:, :, rows] * jacobian[:, :, None] * jacobian[:, None, :]
    return (np.where(is_limit, limit, sigma), error * jacobian[:, 1]), is_limit, of_rsc
