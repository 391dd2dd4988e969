"""The contrast of a sample: from compositions, unit cell, expansion, with its uncertainty."""

from __future__ import annotations

import math

import pytest

from saxs_pipeline.sample_config import Sample
from saxs_pipeline.science.contrast import scattering_length_density
from saxs_pipeline.stages.quantify import contrast_1_A2, scatterer
from saxs_pipeline.types import BadInput

CDSE = {"formula": "CdSe", "lattice_parameter": "0.608 nm", "formula_units": 4}
OCTADECENE = {"formula": "C18H36", "density": "0.789 g/cm^3", "density_at": "20 °C", "expansion": "1.3125e-3 1/K"}


def sample(**keys) -> Sample:
    return Sample.model_validate({"particle": CDSE, "solvent": OCTADECENE, "temperature": "260 °C", **keys})


def test_the_contrast_of_the_paper():
    """35.2e-6 1/Å² (Prins SI, S2) with 5.5e-6 for the reaction mixture; pure octadecene of 0.6 g/cm³ has 5.81e-6."""
    found = contrast_1_A2(sample(), 18.0)
    assert found.value == pytest.approx(35.2e-6 + 5.5e-6 - 5.81e-6, rel=2e-3)
    assert found.error == 0
    mixture = {"formula": "C18H36", "density": f"{0.6 * 5.5 / 5.8075:.5f} g/cm^3"}
    as_stated = sample(solvent=mixture, temperature=None)
    assert contrast_1_A2(as_stated, 18.0).value == pytest.approx(35.2e-6, rel=2e-3)


def test_perovskite_in_hexane_at_37_keV():
    """33.85e-6 less 6.45e-6 1/Å²."""
    materials = {
        "particle": {"formula": "CsPbBr3", "density": "4.83 g/cm^3"},
        "solvent": {"formula": "C6H14", "density": "0.655 g/cm^3"},
    }
    found = contrast_1_A2(Sample.model_validate(materials), 37.5)
    assert found == pytest.approx((27.40e-6, 0.0), rel=1e-3)


def test_its_uncertainty_is_that_of_all_that_is_stated():
    """By moving each input by its standard uncertainty."""
    uncertain = sample(
        particle=CDSE | {"lattice_parameter": "0.608 nm ± 0.1 %"},
        solvent=OCTADECENE | {"density": "0.789 g/cm^3 ± 0.5 %", "expansion": "1.3125e-3 1/K ± 4 %"},
        temperature="260 °C ± 5 K",
    )
    moved = [
        sample(particle=CDSE | {"lattice_parameter": f"{0.608 * 1.001} nm"}),
        sample(solvent=OCTADECENE | {"density": f"{0.789 * 1.005} g/cm^3"}),
        sample(solvent=OCTADECENE | {"expansion": f"{1.3125e-3 * 1.04} 1/K"}),
        sample(temperature="265 °C"),
    ]
    steps = [contrast_1_A2(one, 18.0).value - contrast_1_A2(sample(), 18.0).value for one in moved]
    assert contrast_1_A2(uncertain, 18.0).error == pytest.approx(math.hypot(*steps), rel=5e-3)
    assert min(abs(step) for step in steps) > 0.02e-6


def test_the_temperature_moves_both_materials_at_once():
    """Two materials with the same β: the contrast moves as its value does, not as two independent ones."""
    beta = {"expansion": "1e-3 1/K", "density_at": "20 °C"}
    both = sample(particle=CDSE | beta, solvent=OCTADECENE | beta, temperature="20 °C ± 10 K")
    found = contrast_1_A2(both, 18.0)
    assert found.relative == pytest.approx(0.01, rel=1e-9)


def test_a_material_without_expansion_keeps_its_density():
    found = scatterer(sample().materials["particle"], sample().temperature, 18.0)
    assert found.density_g_cm3.value == pytest.approx(5.656, abs=1e-3)
    assert found.per_K == 0
    assert found.length_density_1_A2.value == scattering_length_density("CdSe", found.density_g_cm3.value, 18.0)


def test_an_expansion_without_a_temperature_is_not_passed_over():
    with pytest.raises(BadInput, match="expansion of C18H36 needs"):
        scatterer(sample().materials["solvent"], None, 18.0)


def test_a_contrast_from_compositions_needs_the_energy():
    with pytest.raises(BadInput, match="energy"):
        contrast_1_A2(sample(), None)
