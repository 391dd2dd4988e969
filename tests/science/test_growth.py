"""Growth regimes against closed forms; exponents of two radii series against the truth they were made with."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import brentq

from saxs_pipeline.science import growth
from saxs_pipeline.science.conversion import FirstOrder
from saxs_pipeline.science.kinetics import LinearFreeEnergy, Superfocusing, Synthesis, growth_rate
from saxs_pipeline.types import BadInput

# Table S4.1
SYNTHESIS = Synthesis(
    monomer_volume_m3=5.59e-29,
    surface_energy_J_m2=0.2,
    solubility_mol_m3=1e-7,
    diffusion_m2_s=5e-10,
    adsorption=LinearFreeEnergy(4e-3, 0.5),
    conversion=FirstOrder(4e-3, ((0.0, 27.0),)),
)
S = 50.0
CAPILLARY = SYNTHESIS.capillary_m(0.0)
CRITICAL = CAPILLARY / np.log(S)
RADIUS = np.linspace(0.5e-9, 10e-9, 60)
EXPONENT = st.floats(-4, 12)
SIZE = st.floats(0.5, 5)


# --- regimes ---------------------------------------------------------------------------------------------------------


def test_regimes_are_the_limits_of_the_growth_rate():
    """1/j_G is the sum of both resistances, so each regime is what remains when the other one is taken away."""
    whole = growth_rate(RADIUS, S, SYNTHESIS, CAPILLARY)
    by_diffusion = growth.diffusion_limited(RADIUS, S, SYNTHESIS, CAPILLARY)
    by_reaction = growth.reaction_limited(RADIUS, S, SYNTHESIS, CAPILLARY)
    np.testing.assert_allclose(1 / whole, 1 / by_diffusion + 1 / by_reaction, rtol=1e-12)
    fast = replace(SYNTHESIS, adsorption=LinearFreeEnergy(4e9, 0.5))
    np.testing.assert_allclose(growth_rate(RADIUS, S, fast, CAPILLARY), by_diffusion, rtol=1e-6)


def test_diffusion_limited_growth_is_equation_1():
    expected = 5e-10 * SYNTHESIS.molar_volume_m3_mol * 1e-7 * (S - S ** (CRITICAL / RADIUS)) / RADIUS
    np.testing.assert_allclose(growth.diffusion_limited(RADIUS, S, SYNTHESIS, CAPILLARY), expected, rtol=1e-12)
    assert growth.diffusion_limited(np.array([CRITICAL]), S, SYNTHESIS, CAPILLARY)[0] == pytest.approx(0, abs=1e-20)


def test_large_crystals_approach_the_dashed_lines():
    large = np.array([1e-6, 2e-6])
    for law in (growth.diffusion_limited, growth.reaction_limited):
        np.testing.assert_allclose(law(large, S, SYNTHESIS, CAPILLARY), law(large, S, SYNTHESIS, 0.0), rtol=3e-3)
    np.testing.assert_allclose(
        growth.reaction_limited(RADIUS, S, SYNTHESIS, 0.0), SYNTHESIS.molar_volume_m3_mol * 1e-7 * 4e-3 * 49
    )
    np.testing.assert_allclose(
        growth.diffusion_limited(RADIUS, S, SYNTHESIS, 0.0) * RADIUS, 5e-10 * SYNTHESIS.molar_volume_m3_mol * 1e-7 * 49
    )


def test_local_exponent_of_the_regimes_and_of_the_rate_constants():
    def exponent(law):
        return growth.local_exponent(law, RADIUS)

    np.testing.assert_allclose(exponent(lambda r: growth.diffusion_limited(r, S, SYNTHESIS, 0.0)), 1.0, rtol=1e-9)
    np.testing.assert_allclose(exponent(lambda r: growth.reaction_limited(r, S, SYNTHESIS, 0.0)), 0.0, atol=1e-9)
    focusing = Superfocusing(1 / 22, 4.0)
    np.testing.assert_allclose(exponent(lambda r: focusing(r, CAPILLARY)), 4 * RADIUS / (RADIUS + 0.2e-9), rtol=1e-9)
    energy = LinearFreeEnergy(4e-3, 0.5)
    np.testing.assert_allclose(exponent(lambda r: energy(r, CAPILLARY)), -0.5 * CAPILLARY / RADIUS, rtol=1e-9)


@given(st.floats(-8, 8), st.floats(0.1, 10), st.floats(-5, 5))
def test_local_exponent_of_a_power_law_is_its_exponent(n, radius, factor):
    assume(abs(factor) > 1e-3)
    found = growth.local_exponent(lambda r: factor / r**n, np.array([radius]))
    assert found[0] == pytest.approx(n, abs=1e-8)


def test_local_exponent_where_nothing_grows_is_nan():
    assert np.isnan(growth.local_exponent(lambda r: 0.0 * r, np.array([1.0]))).all()


# --- growth alone ----------------------------------------------------------------------------------------------------


@given(EXPONENT, SIZE, st.floats(0, 1))
def test_grown_radius_is_the_printed_sum_of_powers(n, radius, growth_nm):
    assume(abs(n + 1) > 1e-3)
    sum_of_powers = radius ** (n + 1) + (n + 1) * growth_nm
    assume(sum_of_powers > 1e-3 * radius ** (n + 1))
    assert growth.grown_radius(radius, growth_nm, n) == pytest.approx(sum_of_powers ** (1 / (n + 1)), rel=1e-6)


@given(EXPONENT, SIZE, st.floats(0, 0.05), st.floats(0, 0.05), st.floats(0.1, 10))
def test_growth_adds_up_and_scales(n, radius, first, second, unit):
    both = growth.grown_radius(radius, first + second, n)
    assume(np.isfinite(both))
    assert growth.grown_radius(growth.grown_radius(radius, first, n), second, n) == pytest.approx(both, rel=1e-9)
    scaled = growth.grown_radius(radius * unit, (first + second) * unit ** (n + 1), n)
    assert scaled == pytest.approx(both * unit, rel=1e-9)


def test_grown_radius_solves_the_growth_equation():
    """dr/dK = 1/rⁿ, and n → −1 is continuous."""
    for n in (-1.0, -0.999999, 0.0, 2.0, 4.0):
        step = 1e-6
        rate = (growth.grown_radius(1.5, 0.3 + step, n) - growth.grown_radius(1.5, 0.3 - step, n)) / (2 * step)
        assert rate == pytest.approx(growth.grown_radius(1.5, 0.3, n) ** -n, rel=1e-8)
    assert growth.grown_radius(1.5, 0.3, -1.0) == pytest.approx(1.5 * np.exp(0.3))
    assert growth.grown_radius(1.5, 0.3, -1.0 + 1e-9) == pytest.approx(1.5 * np.exp(0.3), rel=1e-8)
    assert np.isnan(growth.grown_radius(1.0, -0.6, 1.0))


@pytest.mark.parametrize(
    ("n", "radius", "sigma"), [(0, 2.00908, 0.10000), (2, 2.01340, 0.035744), (4, 2.01395, 0.013315)]
)
def test_growth_only_development_of_the_paper(n, radius, sigma):
    """Gaussian 1.2 ± 0.1 nm, 25 µmol/L, G = 0.05 mol/m³/s for 240 s (S6.14): the growth that takes up just that."""
    z, w = np.polynomial.hermite_e.hermegauss(60)
    w = w / w.sum()
    start = 1.2 + 0.1 * z
    start, w = start[start > 0.3], w[start > 0.3]
    per_crystal = 0.05 * 240 * 5.59e-29 / (25e-3 * 4 * np.pi / 3) * 1e27  # Δ⟨r³⟩ in nm³

    def surplus(k):
        return float(w @ growth.grown_radius(start, k, n) ** 3 - w @ start**3) - per_crystal

    grown = growth.grown_radius(start, brentq(surplus, 0, 50, xtol=1e-13), n)
    mean = float(w @ grown)
    assert mean == pytest.approx(radius, abs=1e-5)
    assert np.sqrt(w @ (grown - mean) ** 2) == pytest.approx(sigma, rel=2e-4)


# --- two coexisting sizes --------------------------------------------------------------------------------------------


def test_bimodal_radius_is_equations_2_and_3():
    r2 = np.linspace(1.2, 2.0, 9)
    np.testing.assert_allclose(growth.bimodal_radius(r2, 1.8, 1.2, 1), np.sqrt(r2**2 + 1.8**2 - 1.2**2))
    np.testing.assert_allclose(growth.bimodal_radius(r2, 1.8, 1.2, 0), r2 + 0.6)
    np.testing.assert_allclose(growth.bimodal_radius(r2, 1.8, 1.2, 4), (r2**5 + 1.8**5 - 1.2**5) ** 0.2)
    np.testing.assert_allclose(growth.bimodal_radius(r2, 1.8, 1.2, -1), r2 * 1.5)


@given(EXPONENT, SIZE, SIZE, st.floats(0, 0.2))
def test_both_sizes_grow_by_the_same_integral(n, r1, r2, growth_nm):
    ends = [growth.grown_radius(r, growth_nm, n) for r in (r1, r2)]
    assume(np.isfinite(ends).all() and max(ends) < 50)
    predicted = float(growth.bimodal_radius(ends[1], r1, r2, n))
    order = abs(n + 1)
    digits = 1e-9 * (1 + (max(r1, r2, *ends) / min(r1, r2, *ends)) ** order)  # sums of unequal powers lose digits
    assume(digits < 1e-3)
    assert predicted == pytest.approx(ends[0], rel=digits)
    assert float(growth.bimodal_radius(r2, r1, r2, n)) == pytest.approx(r1)


def series(n, error, seed, times=12):
    rng = np.random.default_rng(seed)
    r2 = np.linspace(1.2, 1.9, times)
    r1 = growth.bimodal_radius(r2, 1.8, 1.2, n)
    e1, e2 = error * r1, error * r2
    return r1 + e1 * rng.standard_normal(times), e1, r2 + e2 * rng.standard_normal(times), e2


@pytest.mark.parametrize("n", [-1.0, 0.0, 1.0, 4.0, 7.5])
def test_exact_radii_give_their_exponent(n):
    r1, e1, r2, e2 = series(n, 1e-9, 0)
    found = growth.fit_exponent(r1, 1e6 * e1, r2, 1e6 * e2)
    assert found.exponent.value == pytest.approx(n, abs=1e-5)
    np.testing.assert_allclose(found.r1_nm, r1, rtol=1e-6)
    expected = 1.8 ** (n + 1) - 1.2 ** (n + 1) if n != -1 else 0.0
    if n != -1:
        assert found.constant == pytest.approx(expected, rel=1e-4)
    assert found.degrees == 10


@pytest.mark.parametrize("n", [0.0, 1.0, 4.0])
def test_error_of_the_exponent_holds(n):
    fits = [growth.fit_exponent(*series(n, 0.01, seed)) for seed in range(150)]
    z = np.array([(fit.exponent.value - n) / fit.exponent.error for fit in fits])
    assert abs(z.mean()) < 0.35
    assert 0.85 < z.std() < 1.15
    assert 0.88 < (np.abs(z) < 2).mean() < 0.99
    assert np.mean([fit.chi2_red for fit in fits]) == pytest.approx(1.0, abs=5 * np.sqrt(2 / 10 / 150))


def test_wrong_exponents_are_told_by_their_misfit():
    radii = series(4.0, 0.003, 1)
    free, diffusion, reaction = growth.fit_exponent(*radii), *(growth.with_exponent(*radii, n) for n in (1.0, 0.0))
    assert free.chi2_red < 3 < diffusion.chi2_red < reaction.chi2_red
    assert diffusion.exponent == (1.0, 0.0)
    assert diffusion.degrees == 11
    closer = np.abs(free.r1_nm - radii[0]).mean()
    assert closer < np.abs(diffusion.r1_nm - radii[0]).mean() < np.abs(reaction.r1_nm - radii[0]).mean()


@given(st.floats(0.1, 10))
def test_the_unit_of_length_does_not_matter(unit):
    radii = series(2.0, 0.01, 5)
    here, there = growth.fit_exponent(*radii), growth.fit_exponent(*(unit * column for column in radii))
    assert there.exponent.value == pytest.approx(here.exponent.value, abs=1e-5)
    assert there.exponent.error == pytest.approx(here.exponent.error, rel=1e-4)
    assert there.constant == pytest.approx(here.constant * unit ** (here.exponent.value + 1), rel=1e-3)
    np.testing.assert_allclose(there.r1_nm, unit * here.r1_nm, rtol=1e-5)


def test_radii_that_do_not_change_determine_nothing():
    r1, e1, r2, e2 = (np.full(8, value) for value in (1.8, 0.05, 1.2, 0.05))
    noise = np.random.default_rng(0).normal(0, 0.05, (2, 8))
    found = growth.fit_exponent(r1 + noise[0], e1, r2 + noise[1], e2)
    assert found.exponent.error > 2 or found.notes


@pytest.mark.parametrize("bad", [0, 1, 2, 3])
def test_radii_that_make_no_sense_are_refused(bad):
    columns = list(series(1.0, 0.01, 0))
    columns[bad] = np.where(np.arange(12) == 4, -1.0, columns[bad])
    with pytest.raises(BadInput, match="positive"):
        growth.fit_exponent(*columns)
    with pytest.raises(BadInput, match="3 times"):
        growth.fit_exponent(*(column[:2] for column in series(1.0, 0.01, 0)))
    columns[bad] = columns[bad][:-1]
    with pytest.raises(BadInput, match="equally often"):
        growth.with_exponent(*columns, 1.0)


def test_an_exponent_with_an_error_beyond_the_searched_range_is_undetermined():
    """Errors as large as the radii allow |n| < 0.4 alone; the best n lies inside, its error is 17 times that."""
    r2 = np.linspace(1.2, 1.5, 6)
    r1 = growth.bimodal_radius(r2, 1.8, 1.2, -0.3)
    found = growth.fit_exponent(r1, r1, r2, r2)
    assert abs(found.exponent.value + 0.3) < 1e-3
    assert found.exponent.error == np.inf
    assert "not determined" in found.notes[0]
    assert not growth.fit_exponent(*series(1.0, 0.01, 0)).notes


@pytest.mark.parametrize(
    ("r1", "error", "hint"),
    [
        (1e200, 0.01, r"e\+200"),
        (1e-200, 0.01, "1e-200"),
        (2000.0, 0.01, "factor"),
        (2.0, 1e-200, "errors"),
        (2.0, 1e200, "errors"),
    ],
)
def test_numbers_that_are_no_radii_of_crystals_are_refused(r1, error, hint):
    first, second = r1 * np.array([1.0, 1.1, 1.2]), np.array([1.0, 1.2, 1.4])
    with pytest.raises(BadInput, match=hint):
        growth.fit_exponent(first, error * first, second, 0.01 * second)
