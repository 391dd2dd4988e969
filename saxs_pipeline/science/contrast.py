"""Scattering length densities from composition and mass density (xraydb, Chantler tables), and mass densities.

A crystal's density follows from its unit cell, that of anything at another temperature from its thermal expansion.
"""

from __future__ import annotations

import math

from saxs_pipeline.science.formfactors import AVOGADRO_PER_MOL
from saxs_pipeline.types import BadInput, Uncertain

_HC_KEV_A = 12.398419843320026  # h c / e, exact in SI 2019, keV Å
_ENERGY_RANGE_KEV = (1.0, 500.0)


def scattering_length_density(formula: str, density_g_cm3: float, energy_keV: float) -> float:
    """Real part of the X-ray scattering length density, 1/Å²: 2πδ/λ² with 1 − δ the refractive index.

    `formula` such as "CdSe" or "Cd0.5Zn0.5Se"; `density_g_cm3` > 0; `energy_keV` 1…500.
    Raises BadInput for a formula that cannot be read and numbers out of range.
    """
    import xraydb

    _composition(formula)
    if not 0 < density_g_cm3 < math.inf:
        raise BadInput(f"contrast: the density of {formula} must be positive in g/cm³, not {density_g_cm3:g}")
    low, high = _ENERGY_RANGE_KEV
    if not low <= energy_keV <= high:
        raise BadInput(f"contrast: the energy must be within {low:g} to {high:g} keV, not {energy_keV:g} keV")
    delta = float(xraydb.xray_delta_beta(formula, density_g_cm3, energy_keV * 1e3)[0])
    return 2 * math.pi * delta / (_HC_KEV_A / energy_keV) ** 2


def crystal_density(formula: str, lattice_nm: float, formula_units: float) -> float:
    """Mass density, g/cm³, of a crystal with so many `formula_units` in a cubic cell of edge `lattice_nm` (nm).

    Zinc blende has 4 of them ("CdSe"), a (pseudo-)cubic perovskite 1 ("CsPbBr3").
    Raises BadInput as `scattering_length_density` does.
    """
    import xraydb

    composition = _composition(formula)
    if not 0 < lattice_nm < math.inf:
        raise BadInput(f"contrast: the lattice parameter of {formula} must be positive in nm, not {lattice_nm:g}")
    molar_mass = sum(count * float(xraydb.atomic_mass(element)) for element, count in composition.items())
    return formula_units * molar_mass / (AVOGADRO_PER_MOL * (lattice_nm * 1e-7) ** 3)


def expanded_density(density: Uncertain, expansion_1_K: Uncertain, warming_K: float) -> tuple[Uncertain, float]:
    """ρ(T) = ρ₀/(1 + β(T − T₀)), in the unit of ρ₀, with its standard uncertainty, and dρ/dT per K.

    expansion_1_K: β, mean coefficient of the volume between T₀ and T; warming_K: T − T₀, which is taken as exact.
    σ² = (σ_ρ₀/(1 + βΔT))² + (ρ ΔT σ_β/(1 + βΔT))². Raises BadInput where nothing of the volume would be left.
    """
    volume = 1 + expansion_1_K.value * warming_K
    if not volume > 0:
        raise BadInput(f"contrast: an expansion of {expansion_1_K.value:g} 1/K over {warming_K:g} K leaves no volume")
    value = density.value / volume
    error = math.hypot(density.error, value * warming_K * expansion_1_K.error) / volume
    return Uncertain(value, error), -expansion_1_K.value * value / volume


def _composition(formula: str) -> dict[str, float]:
    import xraydb

    try:
        composition = {str(element): float(count) for element, count in xraydb.chemparse(formula).items()}
    except ValueError:
        composition = {}
    if not composition or min(composition.values()) <= 0:
        raise BadInput(f"contrast: cannot read {formula!r} as a chemical formula; write for example 'CdSe' or 'C18H36'")
    return composition
