"""The cohort solver against measured reference values, closed forms and independent solutions of the same model."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.optimize import brentq

from saxs_pipeline.science import population
from saxs_pipeline.science.completion import t98
from saxs_pipeline.science.conversion import FirstOrder, SecondOrder, Tabulated, TemperatureProgram
from saxs_pipeline.science.kinetics import Crystals, LinearFreeEnergy, Superfocusing, Synthesis
from saxs_pipeline.science.population import Development, at, density, simulate
from saxs_pipeline.types import BadInput
from tests.science import finite_volume

END_S = 2275.8
PUBLISHED = {"gamma": 0.2, "k1": 4e-3, "desorption": True}
CALIBRATED = {"gamma": 0.18, "k1": 4.9e-3, "desorption": False}


def synthesis(n: float = 2, gamma: float = 0.18, k1: float = 4.9e-3, desorption: bool = False, **changes) -> Synthesis:
    given = {
        "monomer_volume_m3": 5.59e-29,
        "surface_energy_J_m2": gamma,
        "solubility_mol_m3": 1e-7,
        "diffusion_m2_s": 5e-10,
        "adsorption": Superfocusing(1 / 22, n),
        "conversion": FirstOrder(k1, ((0.0, 27.0),)),
        "desorption": desorption,
    }
    return Synthesis(**(given | changes))


def seeds(n: float = 0, **changes) -> Synthesis:
    """The growth-only development of S6.4."""
    given = {
        "diffusion_m2_s": math.inf,
        "adsorption": Superfocusing(1 / 22, n, offset_m=0.0),
        "conversion": Tabulated((0.0, 240.0), (0.05, 0.05)),
        "nucleation": False,
        "crystals": (Crystals(25e-3, 1.2e-9, 0.1e-9),),
    }
    return synthesis(**(given | changes))


def last(development: Development) -> np.ndarray:
    """(c, r, σ) at the end."""
    every = development.all
    return np.array([every.c_umol_L[-1], every.radius_nm[-1], every.sigma_nm[-1]])


# --- the reference values of the model -------------------------------------------------------------------------------

REFERENCE = [  # parameters, n, t98 of the yield, t98 of c, r, σ, skewness, c, peak S
    (PUBLISHED, 0, 978.0, 18.37, 2.7462, 0.15074, -0.94, 17.243, 177.82),
    (PUBLISHED, 2, 978.0, 44.89, 2.3485, 0.04714, -1.60, 27.781, 177.82),
    (PUBLISHED, 4, 978.0, 132.3, 1.9320, 0.04229, -2.04, 49.886, 177.82),
    (CALIBRATED, 0, 798.4, 32.89, 2.1894, 0.0865, -0.73, 34.18, 83.86),
    (CALIBRATED, 2, 798.4, 67.01, 1.8875, 0.0457, -1.18, 53.49, 83.86),
    (CALIBRATED, 4, 798.4, 129.2, 1.6321, 0.0354, -1.46, 82.77, 83.86),
]


@pytest.mark.parametrize(("parameters", "n", "yield_s", "c_s", "r", "sigma", "skewness", "c", "peak"), REFERENCE)
def test_reference_values(parameters, n, yield_s, c_s, r, sigma, skewness, c, peak) -> None:
    found = simulate(synthesis(n, **parameters), END_S)
    assert last(found)[0] == pytest.approx(c, rel=1e-3)
    assert last(found)[1] == pytest.approx(r, rel=1e-3)
    assert last(found)[2] == pytest.approx(sigma, rel=5e-3)
    assert found.all.skewness[-1] == pytest.approx(skewness, abs=0.01)
    assert found.supersaturation.max() == pytest.approx(peak, rel=1e-3)
    assert t98(found.time_s, found.all.c_umol_L) == pytest.approx(c_s, rel=0.01)
    assert t98(found.time_s, found.yield_, final=1) == pytest.approx(yield_s, rel=1e-3)
    assert found.mass_drift < 1e-12


def test_share_of_nucleation_grows_with_the_exponent_as_calibrated() -> None:
    shares = []
    for n in (0, 2, 4):
        found = simulate(synthesis(n), END_S)
        shares.append(t98(found.time_s, found.all.c_umol_L) / t98(found.time_s, found.yield_, final=1))
    np.testing.assert_allclose(100 * np.array(shares), [4.1, 8.4, 16.2], atol=0.06)


# --- exactness -------------------------------------------------------------------------------------------------------


def truth_of_growth(n: float, time_s: float) -> tuple[float, float, float]:
    """(S, r, σ) of S6.14 for the Gaussian seeds: r^{n+1} = r₀^{n+1} + (n+1)K(t), K from the monomers formed."""
    molar, v0, c = 6.02214076e23 * 5.59e-29, 5.59e-2, 25e-3

    def average(power: float, k: float) -> float:
        def weighted(r0: float) -> float:
            gauss = math.exp(-(((r0 - 1.2) / 0.1) ** 2) / 2) / (0.1 * math.sqrt(2 * math.pi))
            return gauss * (r0 ** (n + 1) + (n + 1) * k) ** (power / (n + 1))

        return quad(weighted, 0.5, 1.9, epsabs=1e-13, epsrel=1e-13, points=[1.2])[0]

    formed = 4 * math.pi / (3 * v0) * c
    k = brentq(lambda k: formed * (average(3, k) - average(3, 0)) - 0.05 * time_s, 0, 100, xtol=1e-15)
    speed = molar * 1e-7 / 22 * 1e9 * 0.8**n
    s = 0.05 / (3 * formed * average(2 - n, k) * speed)
    return s, average(1, k), math.sqrt(average(2, k) - average(1, k) ** 2)


@pytest.mark.parametrize("n", [0, 2, 4])
def test_growth_alone_is_the_closed_form(n: float) -> None:
    found = simulate(seeds(n), 240.0)
    times = np.array([0.0, 60.0, 120.0, 240.0])
    there = at(found, times)
    truth = np.array([truth_of_growth(n, t) for t in times]).T
    for values, exact in zip((there.supersaturation, there.all.radius_nm, there.all.sigma_nm), truth, strict=True):
        np.testing.assert_allclose(values, exact, rtol=3e-5)
    np.testing.assert_allclose(found.all.c_umol_L, 25, rtol=1e-13)
    assert found.mass_drift < 1e-13


@pytest.mark.parametrize(
    ("n", "s", "r", "sigma"),
    [
        (0, (40.098, 20.041, 14.369), 2.00908, 0.10000),
        (2, (90.847, 90.847, 90.847), 2.01340, 0.035744),
        (4, (200.09, 412.76, 575.67), 2.01395, 0.013315),
    ],
)
def test_growth_alone_gives_the_reference_values(n: float, s, r: float, sigma: float) -> None:
    there = at(simulate(seeds(n), 240.0), np.array([0.0, 120.0, 240.0]))
    np.testing.assert_allclose(there.supersaturation, s, rtol=3e-5)
    assert there.all.radius_nm[-1] == pytest.approx(r, rel=1e-5)
    assert there.all.sigma_nm[-1] == pytest.approx(sigma, rel=4e-5)


@pytest.mark.parametrize(("parameters", "n"), [(PUBLISHED, 2), (PUBLISHED, 4), (CALIBRATED, 0), (CALIBRATED, 4)])
def test_second_order_in_the_step(parameters, n: float) -> None:
    sigma = [last(simulate(synthesis(n, **parameters), END_S, eta=eta))[2] for eta in (0.05, 0.025, 0.0125)]
    assert math.log2((sigma[0] - sigma[1]) / (sigma[1] - sigma[2])) >= 1.8


def test_a_coarser_step_costs_proportionally_less() -> None:
    fine, coarse = (len(simulate(synthesis(), END_S, eta=eta).time_s) for eta in (0.025, 0.1))
    assert fine / coarse == pytest.approx(4, rel=0.05)


def test_the_same_again_is_the_same_to_the_bit() -> None:
    first, again = (simulate(synthesis(), 300.0, sizes=True) for _ in range(2))
    assert np.array_equal(first.sizes, again.sizes)
    assert np.array_equal(first.supersaturation, again.supersaturation)


def test_only_products_of_rate_constants_and_solubility_matter() -> None:
    """(A, D)·λ with [M]₀/λ; the prefactor factor·D stays, so the factor goes with 1/λ."""
    factor = 7.3
    base = synthesis(3, **PUBLISHED)
    other = replace(
        base,
        adsorption=Superfocusing(factor / 22, 3),
        diffusion_m2_s=5e-10 * factor,
        solubility_mol_m3=1e-7 / factor,
        nucleation_factor=1 / factor,
    )
    one, two = simulate(base, END_S), simulate(other, END_S)
    for name in ("time_s", "supersaturation", "yield_", "generation", "nucleation", "growth", "critical_radius_nm"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-10)
    np.testing.assert_allclose(last(one), last(two), rtol=1e-10)


def test_only_surface_energy_over_temperature_matters() -> None:
    one = simulate(synthesis(), END_S)
    two = simulate(synthesis(gamma=0.18 * 0.9, temperature_K=lambda t: 533.15 * 0.9), END_S)
    np.testing.assert_allclose(last(one), last(two), rtol=1e-10)


def test_rates_add_up_to_the_generation_everywhere() -> None:
    s = synthesis(**PUBLISHED)
    found = simulate(s, END_S)
    np.testing.assert_allclose(found.nucleation + found.growth, found.generation, rtol=1e-12)
    np.testing.assert_allclose(found.generation, s.conversion.rate(found.time_s), rtol=1e-9)
    np.testing.assert_allclose(found.yield_[1:], s.conversion.formed(found.time_s[1:]) / 27, rtol=1e-12)
    critical = s.capillary_m(0) * 1e9 / np.log(found.supersaturation)
    np.testing.assert_allclose(found.critical_radius_nm, critical, rtol=1e-12)


# --- independent solutions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parameters", "n"), [(PUBLISHED, 2), (CALIBRATED, 0)])
def test_the_supersaturation_may_be_taken_as_quasi_stationary(parameters, n: float) -> None:
    s = synthesis(n, **parameters)
    stationary = finite_volume.develop(s, 60.0, 100, "upwind", finite_volume.lsoda)
    dynamic = finite_volume.develop(s, 60.0, 100, "upwind", finite_volume.dynamic)
    np.testing.assert_allclose(stationary, dynamic, rtol=1e-4)


HEATING = TemperatureProgram((0.0, 60.0), (503.15, 533.15))


@pytest.mark.parametrize(
    "s",
    [
        synthesis(0),
        synthesis(2, **PUBLISHED),
        synthesis(0, temperature_K=HEATING, temperature_breaks_s=HEATING.breaks_s),
        synthesis(2, conversion=FirstOrder(4.9e-3, ((0.0, 13.0), (100.0, 40.0)))),
        synthesis(0, conversion=SecondOrder(1.4e-4, ((0.0, 16.7, 41.7),))),
        synthesis(0, conversion=Tabulated((0.0, 50.0, 120.0), (0.1, 0.02, 0.06))),
        synthesis(0, adsorption=LinearFreeEnergy(0.05, 0.3)),
    ],
    ids=["n=0", "n=2, desorption", "heating", "two injections", "second order", "table", "linear free energy"],
)
def test_a_fixed_grid_converges_to_the_cohorts(s: Synthesis) -> None:
    truth = last(simulate(s, 150.0, eta=0.0125))
    errors = [np.abs(np.array(finite_volume.develop(s, 150.0, n, "koren")) / truth - 1) for n in (200, 800)]
    assert (errors[1] < [1.2e-3, 4e-4, 6e-3]).all()
    assert errors[1][2] < errors[0][2] / 4


def test_two_sizes_exchange_monomers_as_the_ordinary_differential_equations_say() -> None:
    """Ripening of two sizes with nothing generated: dr/dt = S4.8 for both, S such that the mass stays."""
    small, large = Crystals(20e-3, 1.5e-9, 0.0), Crystals(10e-3, 2.5e-9, 0.0)
    s = seeds(
        desorption=True, diffusion_m2_s=5e-10, conversion=FirstOrder(1e-3, ((0.0, 0.0),)), crystals=(small, large)
    )
    found = simulate(s, 3000.0, eta=0.0125)

    def grow(_: float, r: np.ndarray) -> np.ndarray:
        weight = np.array([20.0, 10.0]) * r**2 / (r * 1e-9 / 5e-10 + 22)
        solubility = np.exp(s.capillary_m(0) * 1e9 / r)
        driving = weight @ solubility / weight.sum() - solubility
        return s.molar_volume_m3_mol * 1e-7 * driving / (r * 1e-9 / 5e-10 + 22) * 1e9

    def gone(_: float, r: np.ndarray) -> float:
        return r[0] - 0.4

    gone.terminal = True
    truth = solve_ivp(grow, (0, 3000), [1.5, 2.5], rtol=1e-10, atol=1e-12, events=gone, dense_output=True)
    half = truth.t_events[0][0] / 2
    there = at(found, np.array([half]))
    r = truth.sol(half)
    assert there.all.radius_nm[0] == pytest.approx((20 * r[0] + 10 * r[1]) / 30, rel=1e-4)
    assert there.all.sigma_nm[0] == pytest.approx((r[1] - r[0]) * math.sqrt(2) / 3, rel=1e-3)
    vanished = found.time_s[np.flatnonzero(found.all.c_umol_L < 11)[0]]
    assert vanished == pytest.approx(truth.t_events[0][0], rel=0.02)
    assert found.all.radius_nm[-1] == pytest.approx((2.5**3 + 2 * 1.5**3) ** (1 / 3), rel=1e-9)
    assert found.mass_drift < 1e-12


# --- dissolution and ripening ----------------------------------------------------------------------------------------


def test_ripening_loses_crystals_but_no_mass() -> None:
    found = simulate(synthesis(0, **PUBLISHED), 1e5, eta=0.05)
    there = at(found, np.array([3e3, 1e4, 3e4, 1e5]))
    assert (np.diff(there.all.c_umol_L) < 0).all()
    assert there.all.c_umol_L[-1] < 0.2 * there.all.c_umol_L[0]
    assert (np.diff(there.all.radius_nm) > 0).all()
    assert there.yield_[-1] == pytest.approx(1, abs=1e-3)
    assert found.mass_drift < 1e-12


@pytest.mark.parametrize("spread", [0.1, 0.2])
def test_ripening_approaches_the_law_of_lifshitz_slyozov_and_wagner(spread: float) -> None:
    """Limited by diffusion, a/r small: σ_r/r → 0.215, skewness → −0.92, d⟨r⟩³/dt → 4/9 a D V_m [M]₀.

    A Gaussian comes near slowly (as 1/ln²t), the rate and σ_r/r from above.
    """
    s = synthesis(
        surface_energy_J_m2=0.004,
        nucleation=False,
        diffusion_m2_s=5e-10,
        adsorption=Superfocusing(1e6, 0.0),
        conversion=FirstOrder(1.0, ((0.0, 0.0),)),
        crystals=(Crystals(1e-3, 10e-9, spread * 10e-9),),
        desorption=True,
    )
    rate = 4 / 9 * s.capillary_m(0) * 5e-10 * s.molar_volume_m3_mol * s.solubility_mol_m3 * 1e27  # nm³/s
    end = 300 * 10**3 / rate
    found = simulate(s, end)
    times = np.geomspace(0.03, 1, 7) * end
    there = at(found, times).all
    rates = np.diff(there.radius_nm**3) / (np.diff(times) * rate)
    assert (rates > 1).all()
    assert (rates[1:] < rates[:-1] + 0.01).all()
    assert rates[-1] < 1.1
    assert there.sigma_nm[-1] / there.radius_nm[-1] == pytest.approx(0.215, rel=0.06)
    assert there.skewness[-1] == pytest.approx(-0.92, abs=0.15)
    assert there.c_umol_L[-1] < 0.005
    late = (found.time_s > 3e-3 * end) & (found.time_s < 0.3 * end)
    assert np.abs(np.diff(np.log(found.all.sigma_nm[late]))).max() < 0.02, (
        "no sawtooth as one cohort after another goes"
    )
    assert found.mass_drift < 1e-12


def test_crystals_near_the_smallest_size_start_with_their_moments() -> None:
    for sigma, exact in ((0.1e-9, 1e-12), (0.2e-9, 1e-12), (0.3e-9, 1e-9)):
        s = synthesis(desorption=True, nucleation=False, crystals=(Crystals(5e-3, 1.5e-9, sigma),))
        start = at(simulate(s, 1.0), np.array([0.0])).all
        assert (start.c_umol_L[0], start.radius_nm[0], start.sigma_nm[0]) == pytest.approx(
            (5, 1.5, sigma * 1e9), rel=exact
        )


def test_without_desorption_nothing_ripens_once_the_precursor_is_spent() -> None:
    found = simulate(synthesis(0), 1e5, eta=0.05)
    there = at(found, np.array([5e3, 1e5]))
    np.testing.assert_allclose(there.all.c_umol_L[1], there.all.c_umol_L[0], rtol=1e-9)
    assert found.supersaturation[-1] < 1
    assert math.isnan(found.critical_radius_nm[-1])


# --- injections and crystals that were there -------------------------------------------------------------------------


def test_two_injections_are_two_modes_that_sum_to_all() -> None:
    s = synthesis(2, conversion=FirstOrder(4.9e-3, ((0.0, 13.0), (240.0, 40.0))))
    found = simulate(s, 900.0)
    first, second = found.modes
    np.testing.assert_allclose(first.c_umol_L + second.c_umol_L, found.all.c_umol_L, rtol=1e-13)
    before = found.time_s <= 240
    assert (second.c_umol_L[before] == 0).all()
    assert np.isnan(second.radius_nm[before]).all()
    late = found.time_s > 241
    weight = np.array([first.c_umol_L[late], second.c_umol_L[late]])
    radius = np.array([first.radius_nm[late], second.radius_nm[late]])
    np.testing.assert_allclose((weight * radius).sum(0) / weight.sum(0), found.all.radius_nm[late], rtol=1e-12)
    assert second.c_umol_L[-1] > 1
    assert first.radius_nm[-1] > second.radius_nm[-1]
    assert found.mass_drift < 1e-12


def test_a_sudden_generation_after_a_slow_one_is_resolved() -> None:
    """However late and steep; also the first crystals, if a table starts from nothing and the simulation ends late."""
    late = Tabulated((0.0, 5000.0, 5010.0, 5030.0, 5200.0), (0.002, 0.002, 2.0, 2.0, 0.0))
    usual, fine = (last(simulate(synthesis(2, conversion=late), 6000.0, eta=eta)) for eta in (0.025, 0.004))
    np.testing.assert_allclose(usual, fine, rtol=3e-4)
    first = Tabulated((0.0, 1.0, 100.0), (0.0, 2.0, 0.0))
    short, long = (at(simulate(synthesis(2, conversion=first), end), np.array([149.0])) for end in (150.0, 1e7))
    np.testing.assert_allclose(short.all.c_umol_L, long.all.c_umol_L, rtol=1e-6)


@pytest.mark.parametrize("k1", [5e-5, 4.9e-3, 10.0, 1e3])
def test_the_98_percent_time_of_a_first_order_conversion(k1: float) -> None:
    s = synthesis(nucleation=False, k1=k1, crystals=(Crystals(25e-3, 1.2e-9, 0.1e-9),))
    found = simulate(s, 2e5)
    content = 4 * math.pi / 3 / 5.59e-2 * 25e-3 * (1.2**3 + 3 * 1.2 * 0.1**2)
    formed = (found.yield_ * (27 + content) - content) / 27
    assert t98(found.time_s, formed, final=1.0) == pytest.approx(math.log(50) / k1, rel=1e-3)


def test_supersaturation_jumps_at_an_injection_and_is_not_interpolated_across() -> None:
    s = synthesis(2, conversion=FirstOrder(4.9e-3, ((0.0, 13.0), (240.0, 40.0))))
    there = at(simulate(s, 300.0), np.array([239.999, 240.0, 240.001]))
    assert there.supersaturation[1] > 2 * there.supersaturation[0]
    assert there.generation[0] == pytest.approx(float(s.conversion.rate(np.asarray(239.999))), rel=1e-6)
    assert there.generation[2] == pytest.approx(float(s.conversion.rate(np.asarray(240.001))), rel=1e-6)


def test_crystals_that_are_there_are_the_first_mode() -> None:
    s = synthesis(2, crystals=(Crystals(5e-3, 1.5e-9, 0.1e-9),))
    found = simulate(s, 500.0)
    there, born = found.modes
    np.testing.assert_allclose(there.c_umol_L, 5, rtol=1e-13)
    assert (there.radius_nm[0], there.sigma_nm[0]) == pytest.approx((1.5, 0.1), rel=1e-12)
    assert there.skewness[0] == pytest.approx(0, abs=1e-9)
    assert born.c_umol_L[0] == 0
    assert born.c_umol_L[-1] > 1
    content = 4 * math.pi / 3 / 5.59e-2 * 5e-3 * (1.5**3 + 3 * 1.5 * 0.1**2)
    assert found.yield_[0] == pytest.approx(content / (27 + content), rel=1e-12)


def test_a_table_that_starts_late_makes_no_empty_mode() -> None:
    found = simulate(synthesis(conversion=Tabulated((20.0, 300.0), (0.1, 0.1))), 200.0)
    assert len(found.modes) == 1
    assert at(found, np.array([19.0])).all.c_umol_L[0] == 0
    shifted = simulate(synthesis(conversion=Tabulated((0.0, 280.0), (0.1, 0.1))), 180.0)
    np.testing.assert_allclose(last(found), last(shifted), rtol=1e-6)


# --- what is read from a development ---------------------------------------------------------------------------------


def test_sizes_have_the_moments_of_the_crystals() -> None:
    found = simulate(synthesis(0, **PUBLISHED), END_S, sizes=True)
    rows = slice(5, None, 40)
    c, grid, every = found.sizes[rows], found.size_grid_nm, found.all
    total = c.sum(axis=1)
    mean = c @ grid / total
    apart = grid - mean[:, None]
    sigma = np.sqrt((c * apart**2).sum(1) / total)
    np.testing.assert_allclose(total, every.c_umol_L[rows], rtol=1e-12)
    np.testing.assert_allclose(mean, every.radius_nm[rows], rtol=1e-12)
    np.testing.assert_allclose(sigma, every.sigma_nm[rows], rtol=1e-10)
    np.testing.assert_allclose((c * apart**3).sum(1) / total / sigma**3, every.skewness[rows], rtol=1e-7, atol=1e-7)
    assert np.diff(grid) == pytest.approx(population.GRID_NM)
    assert simulate(synthesis(), 10.0).sizes.shape == (0, 0)


@pytest.mark.parametrize("n", [0, 4])
def test_between_rows_a_development_is_what_a_simulation_ending_there_gives(n: float) -> None:
    s = synthesis(n, **PUBLISHED)
    found = simulate(s, END_S, sizes=True)
    for k in (60, 150, 250, 340):
        time = float(found.time_s[k] + 0.4 * (found.time_s[k + 1] - found.time_s[k]))
        there, truth = at(found, np.array([time])), simulate(s, time)
        np.testing.assert_allclose(last(there), last(truth), rtol=3e-5)
        assert there.yield_[0] == pytest.approx(truth.yield_[-1], rel=1e-5)
        assert there.supersaturation[0] == pytest.approx(truth.supersaturation[-1], rel=1e-4)
        assert there.sizes[0].sum() == pytest.approx(truth.all.c_umol_L[-1], rel=1e-5)


def test_at_its_own_times_a_development_is_itself() -> None:
    found = simulate(synthesis(), 300.0)
    again = at(found, found.time_s)
    for name in ("supersaturation", "yield_", "growth"):
        assert np.array_equal(getattr(again, name), getattr(found, name))
    assert np.array_equal(again.all.radius_nm, found.all.radius_nm, equal_nan=True)


def test_before_the_first_crystals_there_are_none() -> None:
    there = at(simulate(synthesis(), 100.0), np.array([-3.0, 0.0]))
    assert (there.all.c_umol_L == 0).all()
    assert (there.yield_ == 0).all()
    assert np.isnan(there.all.radius_nm).all()
    assert np.array_equal(there.time_s, [-3.0, 0.0])


def test_before_the_start_the_crystals_are_as_they_were_put_in() -> None:
    there = at(simulate(seeds(), 100.0), np.array([-3.0, 0.0]))
    np.testing.assert_allclose(there.all.radius_nm, 1.2, rtol=1e-12)
    np.testing.assert_allclose(there.all.c_umol_L, 25, rtol=1e-12)


def test_beyond_the_end_is_refused() -> None:
    found = simulate(synthesis(), 100.0)
    with pytest.raises(ValueError, match="ends at 100 s, but 101 s"):
        at(found, np.array([50.0, 101.0]))
    with pytest.raises(ValueError, match="ends at 100 s, but 101 s"):
        density(synthesis(), found, [101.0], np.linspace(0.5, 3, 10))


def test_t98_is_98_percent_of_the_final_value() -> None:
    time = np.geomspace(1, 1000, 200)
    assert t98(time, 1 - np.exp(-time / 50), final=1) == pytest.approx(50 * math.log(50), rel=1e-4)
    assert t98(time, np.sqrt(time)) == pytest.approx(0.98**2 * 1000, rel=1e-6)
    assert math.isnan(t98(time, np.zeros(200), final=1))


@pytest.mark.parametrize(("parameters", "n"), [(PUBLISHED, 0), (CALIBRATED, 2)])
def test_density_is_smooth_and_has_the_moments_of_the_crystals(parameters, n: float) -> None:
    s, radius, times = synthesis(n, **parameters), np.linspace(0.4, 3.5, 3101), [3.16, 49.03, 439.4]
    found = simulate(s, 500.0)
    c = density(s, found, times, radius)
    there = at(found, np.array(times)).all
    total = np.trapezoid(c, radius, axis=1)
    mean = np.trapezoid(c * radius, radius, axis=1) / total
    sigma = np.sqrt(np.trapezoid(c * (radius - mean[:, None]) ** 2, radius, axis=1) / total)
    np.testing.assert_allclose(total, there.c_umol_L, rtol=1e-3)
    np.testing.assert_allclose(mean, there.radius_nm, rtol=3e-4)
    np.testing.assert_allclose(sigma, there.sigma_nm, rtol=3e-3)
    assert (c >= 0).all()
    for row in c:
        rising = np.diff(row[row > 1e-3 * row.max()]) > 0
        assert np.count_nonzero(np.diff(rising.astype(int))) == 1, "one maximum"


def test_density_of_growing_seeds_is_the_closed_form() -> None:
    """n = 2: r³ = r₀³ + 3K for every crystal."""
    s, radius = seeds(2), np.linspace(1.7, 2.2, 2001)
    c = density(s, simulate(s, 240.0), [240.0], radius)[0]
    k3 = 0.05 * 240 / (4 * math.pi / (3 * 5.59e-2) * 25e-3)
    start = np.cbrt(radius**3 - k3)
    truth = 25 * np.exp(-(((start - 1.2) / 0.1) ** 2) / 2) / (0.1 * math.sqrt(2 * math.pi)) * (radius / start) ** 2
    np.testing.assert_allclose(c, truth, atol=2e-3 * truth.max())


def test_density_stays_finite_late_under_strong_focusing() -> None:
    s = synthesis(4)
    c = density(s, simulate(s, END_S), [END_S], np.linspace(0.2, 4, 400))
    assert np.isfinite(c).all()


# --- what cannot be simulated ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("s", "words"),
    [
        (synthesis(nucleation=False), "no crystals can form without nucleation"),
        (synthesis(diffusion_m2_s=math.inf), "nucleation needs D"),
        (synthesis(gamma=math.nan), "gamma is nan"),
        (synthesis(gamma=-0.1), "gamma is -0.1"),
        (synthesis(gamma=0.7), "more monomers in solution than there are"),
        (synthesis(nucleation_factor=1e-60), "nucleation cannot take up"),
        (synthesis(diffusion_m2_s=0.0), "D is 0"),
        (synthesis(conversion=FirstOrder(4e-3, ((0.0, 0.0),))), "no monomers can form"),
        (seeds(crystals=(Crystals(25e-3, 1.2e-9, 0.5e-9),)), "so broad a distribution"),
        (seeds(crystals=(Crystals(-25e-3, 1.2e-9, 0.1e-9),)), "crystals need c and r above 0"),
    ],
)
def test_impossible_parameters_are_one_clear_line(s: Synthesis, words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        simulate(s, 100.0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("end", "eta"), [(0.0, 0.025), (math.inf, 0.025), (100.0, 0.0)])
def test_impossible_times_and_steps_are_refused(end: float, eta: float) -> None:
    with pytest.raises(BadInput, match="must be finite and above 0"):
        simulate(synthesis(), end, eta=eta)
