"""Rate laws of nucleation and growth in solution, in SI (science of Prins et al., SI S3, S4 and S6).

Symbols: a = 2γV_m/RT the capillary length, r_c = a/ln S the critical radius, S the supersaturation, [M]₀ the
solubility of the monomer, κ = 1 where monomers desorb and 0 where they do not. Concentrations in mol/m³ (the same
number in mmol/L), rates per number of crystals divided by N_A.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from saxs_pipeline.types import Floats

R_GAS = 8.314462618  # J/mol/K, CODATA 2018
N_A = 6.02214076e23  # 1/mol, exact since 2019


# --- adsorption ------------------------------------------------------------------------------------------------------


class Adsorption(Protocol):
    """Rate constant k_a(r) of monomers adsorbing at a crystal."""

    def __call__(self, radius_m: Floats, capillary_m: float) -> Floats:
        """k_a in m/s, of the shape of `radius_m`; capillary_m is a = 2γV_m/RT."""
        ...


@dataclass(frozen=True)
class Superfocusing:
    """k_a = A((r_c0 + B)/(r + B))ⁿ (S6.16); with B = 0 the power law of S6.15. A in m/s (Table S6.1 prints m²/s)."""

    rate_m_s: float
    exponent: float
    reference_m: float = 0.8e-9
    offset_m: float = 0.2e-9

    def __call__(self, radius_m: Floats, capillary_m: float) -> Floats:
        """k_a in m/s."""
        ratio = (self.reference_m + self.offset_m) / (radius_m + self.offset_m)
        return np.asarray(self.rate_m_s * ratio**self.exponent)


@dataclass(frozen=True)
class LinearFreeEnergy:
    """k_a = k_a(∞) exp(−α a/r) (S4.10), α the transfer coefficient."""

    bulk_rate_m_s: float
    transfer: float

    def __call__(self, radius_m: Floats, capillary_m: float) -> Floats:
        """k_a in m/s."""
        return np.asarray(self.bulk_rate_m_s * np.exp(-self.transfer * capillary_m / radius_m))


# --- conversion of the precursor -------------------------------------------------------------------------------------


class Conversion(Protocol):
    """How monomers are generated. Smooth between the times in `breaks_s` (injections, kinks), which increase from 0."""

    @property
    def total_mol_m3(self) -> float:
        """All the monomers that can form, which a yield is counted against."""
        ...

    @property
    def breaks_s(self) -> tuple[float, ...]:
        """Times of injections and kinks after t = 0."""
        ...

    def formed(self, time_s: Floats) -> Floats:
        """Monomers formed from t = 0 until then, mol/m³, of the shape of `time_s`."""
        ...

    def rate(self, time_s: Floats) -> Floats:
        """G_M = d(formed)/dt, mol/m³/s; at a break the value after it."""
        ...


# --- the synthesis ---------------------------------------------------------------------------------------------------


def constant_temperature(kelvin: float) -> Callable[[float], float]:
    """T(t) of a synthesis that stays at one temperature."""
    return lambda time_s: kelvin


@dataclass(frozen=True)
class Crystals:
    """Crystals that are there at t = 0: a Gaussian distribution of radii."""

    c_mol_m3: float
    radius_m: float
    sigma_m: float


@dataclass(frozen=True)
class Synthesis:
    """Everything the population balance needs, SI units.

    temperature_K: T(t) in K; breaks at temperature_breaks_s. nucleation_factor multiplies the prefactor 2D/v₀^(5/3) of
    S6.4. Nuclei appear as a Gaussian nucleus_offset_m above r_c. diffusion_m2_s may be inf: no diffusion limit.
    Crystals below smallest_m dissolve.
    """

    monomer_volume_m3: float
    surface_energy_J_m2: float
    solubility_mol_m3: float
    diffusion_m2_s: float
    adsorption: Adsorption
    conversion: Conversion
    temperature_K: Callable[[float], float] = field(default=constant_temperature(533.15))
    temperature_breaks_s: tuple[float, ...] = ()
    desorption: bool = True
    nucleation: bool = True
    nucleation_factor: float = 1.0
    nucleus_offset_m: float = 0.3e-9
    nucleus_sd_m: float = 0.02e-9
    smallest_m: float = 0.4e-9
    crystals: tuple[Crystals, ...] = ()

    @property
    def molar_volume_m3_mol(self) -> float:
        """V_m = N_A v₀."""
        return N_A * self.monomer_volume_m3

    def capillary_m(self, time_s: float) -> float:
        """a = 2γV_m/RT."""
        return 2 * self.surface_energy_J_m2 * self.molar_volume_m3_mol / (R_GAS * self.temperature_K(time_s))


# --- nucleation and growth -------------------------------------------------------------------------------------------


def growth_rate(radius_m: Floats, supersaturation: float, synthesis: Synthesis, capillary_m: float) -> Floats:
    """j_G = D V_m [M]₀ (S − κe^{a/r})/(r + D/k_a(r)) in m/s (S4.8; S4.7 prints a spurious [M]₀ behind k_d/k_a)."""
    driving = supersaturation - (np.exp(capillary_m / radius_m) if synthesis.desorption else 0.0)
    resistance = radius_m / synthesis.diffusion_m2_s + 1 / synthesis.adsorption(radius_m, capillary_m)
    return np.asarray(synthesis.molar_volume_m3_mol * synthesis.solubility_mol_m3 * driving / resistance)


class Nucleation(NamedTuple):
    """J_N = prefactor · exp(−barrier/ln²S) in mol of crystals per m³ and s (S6.4), at one capillary length."""

    prefactor: float
    barrier: float

    def rate(self, log_s: float) -> float:
        """J_N at ln S; 0 where S ≤ 1."""
        return self.prefactor * math.exp(-self.barrier / log_s**2) if log_s > 0 else 0.0


def nucleation(synthesis: Synthesis, capillary_m: float) -> Nucleation:
    """The law of S6.4; its prefactor is 0 where nuclei do not form.

    16πγ³V_m²N_A/(3(RT)³) = (2π/3)·N_A·a³/V_m, which is how the barrier is computed from a.
    """
    barrier = capillary_m**3 / synthesis.molar_volume_m3_mol * N_A * (2 * math.pi / 3)
    if not synthesis.nucleation:
        return Nucleation(0.0, barrier)
    prefactor = 2 * synthesis.diffusion_m2_s / float(synthesis.monomer_volume_m3 ** (5 / 3)) / N_A
    return Nucleation(synthesis.nucleation_factor * prefactor, barrier)


def nucleation_rate(supersaturation: float, synthesis: Synthesis, capillary_m: float) -> float:
    """J_N in mol of crystals per m³ and s (S6.4); 0 where S ≤ 1."""
    return nucleation(synthesis, capillary_m).rate(math.log(supersaturation)) if supersaturation > 1 else 0.0
