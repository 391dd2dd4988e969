"""What a simulated beamtime holds: the papers' numbers, and yields by counting atoms."""

from __future__ import annotations

import numpy as np
import pytest

from saxs_pipeline.science.contrast import scattering_length_density
from saxs_pipeline.science.scenarios import (
    CDSE_AT_ID02,
    CSPBBR3_AT_P21,
    Coexistence,
    Growth,
    Truth,
    coexistence_contrasts,
    coexistence_truth,
    growth_truth,
)

PEROVSKITE = Coexistence()

# --- CdSe


def at(*time_s: float) -> Truth:
    return growth_truth(np.array(time_s), Growth())


def test_truth_has_the_numbers_of_the_paper():
    truth = at(0.0, 10.0, 60.0, 400.0)
    assert truth.radius_nm[0] == pytest.approx(1.5, abs=1e-9)
    assert truth.radius_nm[3] == pytest.approx(2.2, abs=0.01)
    assert truth.sigma_nm[[1, 3]] == pytest.approx([0.18, 0.13], abs=1e-4)
    assert truth.c_umol_L[2] == pytest.approx(0.98 * 25, rel=1e-12)


def test_yield_reaches_98_percent_of_its_end_at_400_s_and_agrees_with_s25_and_s26():
    truth = at(400.0, 7700.0)
    assert truth.yield_[0] / truth.yield_[1] == pytest.approx(0.98, abs=1e-4)
    volume = 4 * np.pi / 3 * (truth.radius_nm**3 + 3 * truth.radius_nm * truth.sigma_nm**2)
    assert truth.yield_ == pytest.approx(truth.c_umol_L * 4 * volume / 0.608**3 / 26e3, rel=1e-12)
    assert 0.75 < truth.yield_[1] < 0.85


def test_ripening_loses_crystals_but_no_volume():
    truth = at(1500.0, 4000.0, 7700.0)
    cubes = truth.radius_nm**3 + 3 * truth.radius_nm * truth.sigma_nm**2
    assert truth.c_umol_L * cubes == pytest.approx(np.full(3, 25 * (2.22**3 + 3 * 2.22 * 0.12897**2)), rel=1e-6)
    assert truth.c_umol_L[2] == pytest.approx(0.92 * 25, rel=1e-3)
    assert np.all(np.diff(truth.radius_nm) > 0)
    assert np.all(np.diff(truth.sigma_nm) > 0)


def test_nothing_before_the_injection():
    truth = at(-3.0, -0.01)
    assert np.isnan(truth.radius_nm).all()
    assert np.isnan(truth.sigma_nm).all()
    assert not truth.c_umol_L.any()
    assert not truth.yield_.any()


# --- CsPbBr3


def both(*time_s: float) -> tuple[Truth, Truth]:
    return coexistence_truth(np.array(time_s), PEROVSKITE)


def test_crystals_have_the_numbers_of_the_paper():
    """Montanarella et al.: 4.4 nm and at most 4.2 µmol/L at 3 s; 7.4 ± 0.7 nm at 30 s, 8.1 nm at 300 s; 61 %."""
    crystals, _ = both(0.5, 3.0, 30.0, 300.0)
    assert 2 * crystals.radius_nm == pytest.approx([4.4, 4.4, 7.4, 8.1], abs=0.05)
    assert 2 * crystals.sigma_nm[2] == pytest.approx(0.70, abs=0.01)
    assert crystals.yield_[3] == pytest.approx(0.61, abs=1e-4)
    every, _ = both(*np.linspace(0.05, 300, 6000))
    assert every.time_s[every.c_umol_L.argmax()] == pytest.approx(3.0, abs=0.06)
    assert every.c_umol_L.max() == pytest.approx(4.2, abs=0.01)
    assert np.all(np.diff(every.c_umol_L[every.time_s > 3.1]) < 0)
    narrowest = every.sigma_nm.argmin()
    assert 20 < every.time_s[narrowest] < 35
    assert every.sigma_nm[-1] > 1.2 * every.sigma_nm[narrowest]


def test_agglomerates_of_3_nm_are_used_up_after_30_s():
    _, agglomerates = both(0.5, 3.0, 30.0, 300.0)
    assert 2 * agglomerates.radius_nm == pytest.approx(np.full(4, 3.0))
    assert agglomerates.c_umol_L[0] > 40
    assert agglomerates.yield_[2] < 0.02 * agglomerates.yield_[0]
    assert agglomerates.yield_[3] < 1e-12


def test_yields_count_the_cs_in_both_populations():
    """Cs of 4.83 and 4.0 g/cm³ of CsPbBr3 (579.82 g/mol) in the volume of the spheres, by quadrature, of 5 mmol/L."""
    truths = both(1.0, 8.0, 40.0, 290.0)
    for truth, g_cm3 in zip(truths, (4.83, 4.0), strict=True):
        r = np.linspace(0, 8, 4001)[:, None]
        share = np.exp(-0.5 * ((r - truth.radius_nm) / truth.sigma_nm) ** 2)
        volume_nm3 = np.sum(share * 4 / 3 * np.pi * r**3, axis=0) / share.sum(axis=0)
        cs_per_nm3 = g_cm3 * 1e-21 / 579.82 * 6.02214076e23
        assert truth.yield_ == pytest.approx(truth.c_umol_L * volume_nm3 * cs_per_nm3 / 5000, rel=1.5e-3)
    assert truths[0].yield_ + truths[1].yield_ == pytest.approx(np.full(4, 0.61), rel=1e-12)


def test_nothing_of_both_before_the_injection():
    for truth in both(-20.0, -0.01):
        assert np.isnan(truth.radius_nm).all()
        assert np.isnan(truth.sigma_nm).all()
        assert not truth.c_umol_L.any()
        assert not truth.yield_.any()


def test_contrasts_of_both_against_hexane():
    """At 37.5 keV: 33.85e-6 of CsPbBr3 with 4.83 g/cm³, in proportion to the density, less 6.45e-6."""
    crystals, agglomerates = coexistence_contrasts(PEROVSKITE, 37.5)
    assert crystals == pytest.approx(33.85e-6 - 6.45e-6, rel=2e-3)
    looser = scattering_length_density("CsPbBr3", 4.0, 37.5) - scattering_length_density("C6H14", 0.655, 37.5)
    assert agglomerates == pytest.approx(looser, rel=1e-3)


def test_a_scenario_names_its_populations_main_one_first():
    time_s = np.array([5.0])
    (one,) = CDSE_AT_ID02.populations(time_s)
    assert one[1] == 35.2e-6
    crystals, agglomerates = CSPBBR3_AT_P21.populations(time_s)
    assert crystals[0].radius_nm[0] > agglomerates[0].radius_nm[0]
    assert crystals[1] > agglomerates[1]
