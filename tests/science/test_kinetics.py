"""Rate laws against the formulas as printed (misprints mended) and against each other."""

from __future__ import annotations

import math

import numpy as np
import pytest

from saxs_pipeline.science.conversion import FirstOrder
from saxs_pipeline.science.kinetics import (
    N_A,
    R_GAS,
    LinearFreeEnergy,
    Superfocusing,
    Synthesis,
    growth_rate,
    nucleation_rate,
)

KELVIN, GAMMA, VOLUME, SOLUBILITY, DIFFUSION = 533.15, 0.2, 5.59e-29, 1e-7, 5e-10


def synthesis(**changes) -> Synthesis:
    given = {
        "monomer_volume_m3": VOLUME,
        "surface_energy_J_m2": GAMMA,
        "solubility_mol_m3": SOLUBILITY,
        "diffusion_m2_s": DIFFUSION,
        "adsorption": Superfocusing(1 / 22, 2),
        "conversion": FirstOrder(4e-3, ((0.0, 27.0),)),
    }
    return Synthesis(**(given | changes))


RADII = np.linspace(0.5e-9, 4e-9, 36)


def test_molar_volume_and_capillary_length() -> None:
    assert synthesis().molar_volume_m3_mol == pytest.approx(3.366e-5, abs=0.0005e-5)
    assert synthesis().capillary_m(0) == pytest.approx(2 * GAMMA * N_A * VOLUME / (R_GAS * KELVIN), rel=1e-14)


@pytest.mark.parametrize("saturation", [5.0, 50.0, 177.8])
def test_nucleation_rate_is_s6_4_with_its_avogadro_constant(saturation: float) -> None:
    molar = N_A * VOLUME
    barrier = 16 * math.pi * GAMMA**3 * molar**2 * N_A / (3 * (R_GAS * KELVIN) ** 3 * math.log(saturation) ** 2)
    expected = 2 * DIFFUSION / VOLUME ** (5 / 3) * math.exp(-barrier) / N_A
    s = synthesis()
    assert nucleation_rate(saturation, s, s.capillary_m(0)) == pytest.approx(expected, rel=1e-12)


def test_nothing_nucleates_without_supersaturation_or_when_told_so() -> None:
    s = synthesis()
    assert nucleation_rate(1.0, s, s.capillary_m(0)) == 0
    assert nucleation_rate(50.0, synthesis(nucleation=False), s.capillary_m(0)) == 0


def test_growth_is_limited_by_diffusion_where_adsorption_is_fast() -> None:
    s = synthesis(adsorption=Superfocusing(1e9, 0))
    a = s.capillary_m(0)
    expected = DIFFUSION * s.molar_volume_m3_mol * SOLUBILITY * (50 - np.exp(a / RADII)) / RADII
    np.testing.assert_allclose(growth_rate(RADII, 50.0, s, a), expected, rtol=1e-8)


def test_growth_is_limited_by_reaction_where_diffusion_is_fast() -> None:
    s = synthesis(diffusion_m2_s=math.inf)
    a = s.capillary_m(0)
    adsorption = (1e-9 / (RADII + 0.2e-9)) ** 2 / 22
    expected = s.molar_volume_m3_mol * SOLUBILITY * adsorption * (50 - np.exp(a / RADII))
    np.testing.assert_allclose(growth_rate(RADII, 50.0, s, a), expected, rtol=1e-13)


def test_growth_changes_sign_at_the_critical_radius() -> None:
    s = synthesis()
    a = s.capillary_m(0)
    critical = a / math.log(50)
    below, above = growth_rate(critical * np.array([0.999, 1.001]), 50.0, s, a)
    assert below < 0 < above


def test_without_desorption_every_crystal_grows_in_proportion_to_s() -> None:
    s = synthesis(desorption=False)
    a = s.capillary_m(0)
    np.testing.assert_allclose(growth_rate(RADII, 4.0, s, a), 8 * growth_rate(RADII, 0.5, s, a), rtol=1e-14)
    assert (growth_rate(RADII, 0.5, s, a) > 0).all()


@pytest.mark.parametrize("transfer", [0.0, 0.3, 1.0])
def test_linear_free_energy_gives_s4_11_with_table_s4_1(transfer: float) -> None:
    s, saturation = synthesis(adsorption=LinearFreeEnergy(4e-3, transfer)), 50.0
    a = s.capillary_m(0)
    share = a / math.log(saturation) / RADII
    resistance = RADII + DIFFUSION / 4e-3 * saturation ** (transfer * share)
    expected = DIFFUSION * s.molar_volume_m3_mol * SOLUBILITY * (saturation - saturation**share) / resistance
    np.testing.assert_allclose(growth_rate(RADII, saturation, s, a), expected, rtol=1e-12)


def test_superfocusing_has_one_rate_at_the_reference_radius_for_all_exponents() -> None:
    rates = [Superfocusing(1 / 22, n)(np.array([0.8e-9]), 3e-9)[0] for n in (0, 1, 2, 3, 4)]
    np.testing.assert_allclose(rates, 1 / 22, rtol=1e-14)


def test_without_offset_the_local_exponent_is_n_everywhere() -> None:
    """S4.21, n = −(r/f) df/dr."""
    adsorption = Superfocusing(1 / 22, 3, offset_m=0.0)(RADII, 3e-9)
    np.testing.assert_allclose(np.gradient(np.log(adsorption), np.log(RADII)), -3, rtol=1e-9)
