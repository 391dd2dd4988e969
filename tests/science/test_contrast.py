"""Scattering length densities against the papers' numbers and the free-electron limit; densities against tables."""

import math
import subprocess
import sys

import pytest

from saxs_pipeline.science.contrast import crystal_density, expanded_density, scattering_length_density
from saxs_pipeline.science.standards import water_density
from saxs_pipeline.types import BadInput, Uncertain

ELECTRON_RADIUS_A = 2.8179403262e-5


@pytest.mark.parametrize(
    ("formula", "density", "energy", "expected"),
    [
        ("CdSe", 5.656, 18.0, 40.65e-6),
        ("C18H36", 0.6, 18.0, 5.81e-6),
        ("CsPbBr3", 4.83, 37.5, 33.85e-6),
        ("C6H14", 0.655, 37.5, 6.45e-6),
    ],
)
def test_values_of_the_papers(formula, density, energy, expected):
    assert scattering_length_density(formula, density, energy) == pytest.approx(expected, rel=1.5e-3)


def test_light_atoms_scatter_as_free_electrons():
    # far above the K edges of C and H: electrons per volume times the classical electron radius
    electrons_per_A3 = 0.6 / (18 * 12.011 + 36 * 1.008) * 6.02214076e23 * (18 * 6 + 36) / 1e24
    assert scattering_length_density("C18H36", 0.6, 18.0) == pytest.approx(
        electrons_per_A3 * ELECTRON_RADIUS_A, rel=1e-3
    )


def test_proportional_to_density():
    one, two = (scattering_length_density("CdSe", d, 12.0) for d in (2.5, 5.0))
    assert two == pytest.approx(2 * one, rel=1e-12)


@pytest.mark.parametrize(
    ("formula", "lattice_nm", "units", "g_cm3"),
    [
        ("NaCl", 0.56402, 4, 2.165),  # CRC Handbook: 2.17 g/cm³
        ("Si", 0.5431020511, 8, 2.3290),  # CODATA lattice parameter; density of silicon, 2.3290 g/cm³
        ("CdSe", 0.608, 4, 5.656),
        ("CsPbBr3", (0.8207 * 0.8255 * 1.1759 / 4) ** (1 / 3), 1, 4.835),  # orthorhombic, 4 in the cell: ICSD 97851
    ],
)
def test_density_of_crystals(formula, lattice_nm, units, g_cm3):
    assert crystal_density(formula, lattice_nm, units) == pytest.approx(g_cm3, rel=1e-3)


def test_zinc_blende_cdse_has_the_scattering_length_density_of_the_paper():
    """40.7e-6 1/Å² at 18 keV (Prins SI, S2)."""
    value = scattering_length_density("CdSe", crystal_density("CdSe", 0.608, 4), 18.0)
    assert 40.6e-6 < value < 40.7e-6


def test_expansion_of_water_from_20_to_80_degrees():
    """With the mean coefficient between the two: Kell's densities, 998.20 and 971.80 kg/m³."""
    cold, hot = water_density(293.15), water_density(353.15)
    beta = (cold / hot - 1) / 60
    assert expanded_density(Uncertain(cold), Uncertain(beta), 60.0)[0].value == pytest.approx(hot, rel=1e-12)
    assert hot == pytest.approx(971.8, abs=0.05)


def test_octadecene_of_the_paper():
    """0.789 g/cm³ at 20 °C and 0.6 g/cm³ at 260 °C: a third more volume, 1.3125e-3 1/K."""
    hot, per_K = expanded_density(Uncertain(0.789), Uncertain(1.3125e-3), 240.0)
    assert hot == pytest.approx((0.6, 0.0), rel=1e-12)
    assert scattering_length_density("C18H36", hot.value, 18.0) == pytest.approx(5.81e-6, rel=1e-3)
    warmer = expanded_density(Uncertain(0.789), Uncertain(1.3125e-3), 241.0)[0].value
    assert per_K == pytest.approx(warmer - hot.value, rel=2e-3)


def test_uncertainty_of_an_expanded_density():
    """0.789 ± 0.5 % and β ± 4 %: 240 K · 5.25e-5 1/K of 1.315 are 0.958 %; together 1.081 %."""
    hot, _ = expanded_density(Uncertain(0.789, 0.003945), Uncertain(1.3125e-3, 5.25e-5), 240.0)
    assert hot.relative == pytest.approx(math.hypot(0.005, 0.0126 / 1.315), rel=1e-9)
    cold, _ = expanded_density(Uncertain(0.6, 0.003), Uncertain(1.3125e-3, 5.25e-5), -240.0)
    assert cold.relative == pytest.approx(math.hypot(0.005, 0.0126 / 0.685), rel=1e-9)


def test_an_expansion_that_leaves_nothing():
    with pytest.raises(BadInput, match="leaves no volume"):
        expanded_density(Uncertain(1.0), Uncertain(-5e-3), 200.0)


@pytest.mark.parametrize("formula", ["", "cadmium selenide", "Xy2", "C[", "Cd0Se0"])
def test_unreadable_formula(formula):
    with pytest.raises(BadInput, match="chemical formula"):
        scattering_length_density(formula, 5.0, 18.0)
    with pytest.raises(BadInput, match="chemical formula"):
        crystal_density(formula, 0.6, 4)


@pytest.mark.parametrize("energy", [0.0, -18.0, 0.018, 18_000.0, float("nan")])
def test_energy_out_of_range(energy):
    with pytest.raises(BadInput, match="keV"):
        scattering_length_density("CdSe", 5.656, energy)


@pytest.mark.parametrize("number", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_density_or_lattice(number):
    with pytest.raises(BadInput, match="density"):
        scattering_length_density("CdSe", number, 18.0)
    with pytest.raises(BadInput, match="lattice"):
        crystal_density("CdSe", number, 4)


def test_xraydb_is_imported_late():
    code = "import sys, saxs_pipeline.science.contrast; sys.exit('xraydb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
