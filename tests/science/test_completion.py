"""All monomers and the times of 98 %, against closed forms of syntheses with and without starting crystals."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from saxs_pipeline.science.completion import all_monomers, completion
from saxs_pipeline.science.conversion import FirstOrder, Tabulated
from saxs_pipeline.science.kinetics import Crystals
from saxs_pipeline.science.population import simulate
from saxs_pipeline.types import BadInput
from tests.outputs import known_model

MONOMER_NM3 = 5.59e-2


def inside(c_umol_L, radius_nm, sigma_nm):
    """Monomers in Gaussian crystals, mol/m³: c⟨V⟩/v₀ with ⟨V⟩ = 4π/3 (r³ + 3rσ²)."""
    return 1e-3 * c_umol_L * 4 * math.pi / 3 * (radius_nm**3 + 3 * radius_nm * sigma_nm**2) / MONOMER_NM3


def test_all_monomers_are_those_to_be_formed_and_those_in_starting_crystals():
    synthesis = known_model.growth_only().synthesis
    assert all_monomers(synthesis) == pytest.approx(0.05 * 480 + inside(25, 1.2, 0.1), rel=1e-12)
    more = replace(synthesis, crystals=(*synthesis.crystals, Crystals(0.003, 2e-9, 0.0)))
    assert all_monomers(more) == pytest.approx(24 + inside(25, 1.2, 0.1) + inside(3, 2, 0), rel=1e-12)
    assert all_monomers(known_model.calibrated(2.0)) == 27.0


def test_starting_crystals_count_in_the_yield_and_have_no_t98():
    """Growth takes up all that forms: yield = (K + Gt)/(K + G·240 s) with K in the starting crystals."""
    done = completion(known_model.stopped().development)
    start, everything = inside(25, 1.2, 0.1), 12 + inside(25, 1.2, 0.1)
    assert done.yield_s == pytest.approx((0.98 * everything - start) / 0.05, rel=1e-6)
    assert math.isnan(done.c_s)
    assert math.isnan(done.share)


def test_without_starting_crystals_the_conversion_sets_the_yield():
    """Solution holds next to nothing: ln 50/k₁ (first order)."""
    done = completion(known_model.scan().development)
    assert done.yield_s == pytest.approx(math.log(50) / 4.9e-3, rel=2e-3)
    assert done.share == pytest.approx(done.c_s / done.yield_s)
    assert 0 < done.c_s < done.yield_s


def test_what_is_complete_at_the_start_has_no_t98():
    """One part in a hundred is still to be formed: 98 % were never reached, they were there."""
    start = inside(25, 1.2, 0.1)
    little = Tabulated((0.0, 100.0), (1e-4 * start, 1e-4 * start))
    development = simulate(replace(known_model.growth_only().synthesis, conversion=little), 100.0)
    assert development.yield_[0] == pytest.approx(1 / 1.01, rel=1e-6)
    assert math.isnan(completion(development).yield_s)


def test_crystals_too_broad_to_be_simulated_are_refused():
    broad = replace(known_model.growth_only().synthesis, crystals=(Crystals(0.025, 1.2e-9, 0.5e-9),))
    with pytest.raises(BadInput, match="so broad a distribution"):
        all_monomers(broad)


def test_a_second_injection_counts_from_the_start():
    twice = replace(known_model.calibrated(2.0), conversion=FirstOrder(4.9e-3, ((0.0, 20.0), (600.0, 7.0))))
    assert all_monomers(twice) == pytest.approx(27.0)
