"""Scattering length densities against the papers' numbers and the free-electron limit."""

import subprocess
import sys

import pytest

from saxs_pipeline.science.contrast import scattering_length_density, zincblende_density
from saxs_pipeline.types import BadInput

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


def test_zincblende_density():
    assert zincblende_density("CdSe", 0.608) == pytest.approx(5.656, abs=1e-3)
    assert zincblende_density("Cd0.5Zn0.5Se", 0.608) < zincblende_density("CdSe", 0.608)


@pytest.mark.parametrize("formula", ["", "cadmium selenide", "Xy2", "C[", "Cd0Se0"])
def test_unreadable_formula(formula):
    with pytest.raises(BadInput, match="chemical formula"):
        scattering_length_density(formula, 5.0, 18.0)
    with pytest.raises(BadInput, match="chemical formula"):
        zincblende_density(formula, 0.6)


@pytest.mark.parametrize("energy", [0.0, -18.0, 0.018, 18_000.0, float("nan")])
def test_energy_out_of_range(energy):
    with pytest.raises(BadInput, match="keV"):
        scattering_length_density("CdSe", 5.656, energy)


@pytest.mark.parametrize("number", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_density_or_lattice(number):
    with pytest.raises(BadInput, match="density"):
        scattering_length_density("CdSe", number, 18.0)
    with pytest.raises(BadInput, match="lattice"):
        zincblende_density("CdSe", number)


def test_xraydb_is_imported_late():
    code = "import sys, saxs_pipeline.science.contrast; sys.exit('xraydb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
