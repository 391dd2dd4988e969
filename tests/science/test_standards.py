"""Water against IAPWS, the speed of sound and published cross sections; glassy carbon against its certificate."""

import math

import numpy as np
import pytest

from saxs_pipeline.science.standards import (
    SRM_3600_1_MM,
    SRM_3600_Q_NM,
    SRM_3600_REL,
    SRM_3600_U_1_MM,
    glassy_carbon,
    water_compressibility,
    water_cross_section,
    water_density,
)
from saxs_pipeline.types import BadInput, Uncertain


def at(celsius, error=0.0):
    return water_cross_section(Uncertain(celsius + 273.15, error))


@pytest.mark.parametrize(("celsius", "density"), [(3.98, 999.975), (25.0, 997.047)])
def test_the_density_is_that_of_iapws(celsius, density):
    assert water_density(celsius + 273.15) == pytest.approx(density, rel=1e-5)


@pytest.mark.parametrize(("celsius", "compressibility"), [(20.0, 4.5894e-10), (25.0, 4.5247e-10)])
def test_the_compressibility_is_that_of_iapws(celsius, compressibility):
    assert water_compressibility(celsius + 273.15) == pytest.approx(compressibility, rel=2e-4)


def test_the_compressibility_is_smallest_near_46_degrees():
    t = np.linspace(0, 100, 1001)
    found = [water_compressibility(x + 273.15) for x in t]
    assert t[np.argmin(found)] == pytest.approx(46, abs=1)


@pytest.mark.parametrize(
    ("celsius", "sound_m_s", "heat_J_kg_K"),
    [(4.0, 1421.6, 4205.0), (25.0, 1496.7, 4181.0), (40.0, 1528.9, 4178.5), (60.0, 1551.0, 4185.0)],
)
def test_the_compressibility_gives_the_speed_of_sound(celsius, sound_m_s, heat_J_kg_K):
    """1/(ρ c²) = κ_T - T α²/(ρ c_p), with c measured (Del Grosso and Mader 1972) and α from the density."""
    t = celsius + 273.15
    density = water_density(t)
    expansion = -(math.log(water_density(t + 0.5)) - math.log(water_density(t - 0.5)))
    adiabatic = water_compressibility(t) - t * expansion**2 / (density * heat_J_kg_K)
    assert 1 / math.sqrt(density * adiabatic) == pytest.approx(sound_m_s, rel=1e-3)


def test_the_cross_section_from_its_constants():
    """0.33367 electrons per Å³ at 20 °C, r_e = 2.81794e-5 Å, k_B T = 4.0474e-21 J, κ_T of IAPWS."""
    length_density_1_m2 = 0.33367e30 * 2.81794e-15
    expected_1_m = length_density_1_m2**2 * 4.0474e-21 * 4.5894e-10
    assert at(20.0).value == pytest.approx(1e-3 * expected_1_m, rel=3e-4)


@pytest.mark.parametrize(("celsius", "published"), [(20.0, 1.632e-3), (25.0, 1.65e-3)])
def test_published_cross_sections_lie_within_the_stated_uncertainty(celsius, published):
    """Orthaber et al. 2000 at 20 °C, Dreiss et al. 2006; they differ from each other by 1.1 %."""
    found = at(celsius)
    assert abs(found.value - published) < found.error < 0.011 * found.value


def test_the_uncertainty_of_the_temperature_is_carried_on():
    """Exact to first order: half the change over ± 0.5 K, and the share of the model besides."""
    change = (at(60.5).value - at(59.5).value) / 2
    assert change > 0
    found = at(60.0, 0.5)
    assert found.error == pytest.approx(math.hypot(change, at(60.0).error), rel=1e-4)
    assert at(60.0).error == pytest.approx(0.01 * at(60.0).value)


def test_the_cross_section_hardly_changes_near_room_temperature_and_rises_above():
    """ρ²κ_T T: the compressibility falls about as fast as T rises until its minimum."""
    assert at(25.0).value / at(20.0).value == pytest.approx(1, abs=1e-3)
    iapws = (992.215 / 998.207) ** 2 * (4.4240 / 4.5894) * (313.15 / 293.15)
    assert at(40.0).value / at(20.0).value == pytest.approx(iapws, rel=3e-4)


@pytest.mark.parametrize("celsius", [-0.1, 100.1, float("nan")])
def test_ice_and_steam_are_refused(celsius):
    with pytest.raises(BadInput, match="0 to 100 °C"):
        at(celsius)


# --- glassy carbon ---------------------------------------------------------------------------------------------------


def test_the_values_are_those_of_the_certificate(real_data):
    path = real_data / "srm3600" / "srm3600.csv"
    if not path.exists():
        pytest.skip(f"no {path}: set SAXS_REAL_DATA to the folder of real data")
    table = np.loadtxt(path, delimiter=",")
    np.testing.assert_allclose(SRM_3600_Q_NM, 10 * table[:, 0], rtol=1e-12)
    np.testing.assert_allclose(SRM_3600_1_MM, table[:, 1] / 10, rtol=1e-12)
    np.testing.assert_allclose(SRM_3600_U_1_MM, table[:, 2] / 10, rtol=1e-12)
    np.testing.assert_allclose(table[:, 3] / table[:, 2], 2.423, rtol=1e-3)


def test_its_uncertainty_is_one_factor():
    np.testing.assert_allclose(SRM_3600_U_1_MM / SRM_3600_1_MM, SRM_3600_REL, rtol=1e-5)
    assert 0.0257 < SRM_3600_REL < 0.0259


def test_certified_values_come_back_and_nothing_beyond_them():
    np.testing.assert_allclose(glassy_carbon(SRM_3600_Q_NM), SRM_3600_1_MM, rtol=1e-12)
    outside = glassy_carbon(np.array([0.0, -1.0, 0.0827, 2.475, 10.0, np.nan]))
    assert np.isnan(outside).all()


def test_between_the_values_the_curve_neither_swings_nor_leaves_them():
    q = np.geomspace(SRM_3600_Q_NM[0], SRM_3600_Q_NM[-1], 5001)[1:-1]
    found = glassy_carbon(q)
    assert (np.diff(found) < 0).all()
    straight = np.exp(np.interp(np.log(q), np.log(SRM_3600_Q_NM), np.log(SRM_3600_1_MM)))
    np.testing.assert_allclose(found, straight, rtol=5e-3)


def test_values_left_out_are_found_again():
    """The curve between two neighbours of a certified value, without it: within 0.5 %, far below the uncertainty."""
    from scipy.interpolate import PchipInterpolator

    kept = np.arange(0, 30, 2)
    others = PchipInterpolator(np.log(SRM_3600_Q_NM[kept]), np.log(SRM_3600_1_MM[kept]))
    left_out = np.arange(1, 28, 2)
    np.testing.assert_allclose(
        np.exp(others(np.log(SRM_3600_Q_NM[left_out]))), glassy_carbon(SRM_3600_Q_NM[left_out]), rtol=5e-3
    )
