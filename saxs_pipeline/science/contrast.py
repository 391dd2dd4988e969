"""Scattering length densities from composition and mass density (xraydb, Chantler tables)."""

from __future__ import annotations

import math

from saxs_pipeline.science.formfactors import AVOGADRO_PER_MOL
from saxs_pipeline.types import BadInput

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


def zincblende_density(formula: str, lattice_nm: float) -> float:
    """Mass density, g/cm³, of a zinc-blende crystal: 4 formula units in a cube of edge `lattice_nm` (nm).

    `formula` is one unit of cation and anion, such as "CdSe". Raises BadInput as `scattering_length_density` does.
    """
    import xraydb

    if not 0 < lattice_nm < math.inf:
        raise BadInput(f"contrast: the lattice parameter of {formula} must be positive in nm, not {lattice_nm:g}")
    molar_mass = sum(count * float(xraydb.atomic_mass(element)) for element, count in _composition(formula).items())
    return 4 * molar_mass / (AVOGADRO_PER_MOL * (lattice_nm * 1e-7) ** 3)


def _composition(formula: str) -> dict[str, float]:
    import xraydb

    try:
        composition = {str(element): float(count) for element, count in xraydb.chemparse(formula).items()}
    except ValueError:
        composition = {}
    if not composition or min(composition.values()) <= 0:
        raise BadInput(f"contrast: cannot read {formula!r} as a chemical formula; write for example 'CdSe' or 'C18H36'")
    return composition
