"""McSAS3's fit of curves of known sizes, and what it asks in every move; the latter without McSAS3."""

import sys
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from saxs_pipeline.science.formfactors import intensity_factor, sphere
from saxs_pipeline.size_distribution import CrossCheck, MonteCarlo
from saxs_pipeline.sizes_config import Sizes
from saxs_pipeline.stages import montecarlo
from saxs_pipeline.stages.montecarlo import ScaleAndConstant, monte_carlo
from saxs_pipeline.stages.sizes import size_distributions
from saxs_pipeline.types import BadInput
from tests.stages.test_fit import Q, curves
from tests.stages.test_sizes import SAMPLE

SETTINGS = Sizes.model_construct(q_min=0.3, q_max=4.5, radius=(0.5, 6.0), bins=101, spacing="geometric")
PER_NM3 = 6.02214076e-7  # crystals per nm³ and µmol/L


def needs_mcsas3():
    return pytest.importorskip("mcsas3", reason='mcsas3 is not installed; pip install "saxs-pipeline[montecarlo]"')


class Known(NamedTuple):
    """One frame of 25 µmol/L of Gaussian spheres: its curve, its distribution, the truth from closed forms."""

    curve: object
    sizes: object
    mean_nm: float
    width_nm: float
    volume: float


def known(width, **other):
    r, s = 2.22, width**2
    third, fourth, fifth = r**3 + 3 * r * s, r**4 + 6 * r**2 * s + 3 * s**2, r**5 + 10 * r**3 * s + 15 * r * s**2
    curve = replace(curves([25.0], r, width), **other)
    sizes = size_distributions(curve, SETTINGS, SAMPLE, None)
    mean = fourth / third
    return Known(curve, sizes, mean, np.sqrt(fifth / third - mean**2), 4 / 3 * np.pi * third * 25 * PER_NM3)


# --- without mcsas3 --------------------------------------------------------------------------------------------------


def test_scale_and_constant_are_those_of_lstsq():
    rng = np.random.default_rng(0)
    model, sigma = rng.random(50) ** 2, 0.1 + rng.random(50)
    measured = 3 * model - 0.7 + sigma * rng.standard_normal(50)
    found, chi2 = ScaleAndConstant(measured, sigma).match(model)
    rows = np.column_stack([model, np.ones(50)]) / sigma[:, None]
    expected, rest, *_ = np.linalg.lstsq(rows, measured / sigma)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert chi2 == pytest.approx(rest[0] / 50, rel=1e-10)


def test_a_scale_below_zero_is_none():
    x = np.linspace(0, 1, 20)
    found, chi2 = ScaleAndConstant(-x, np.full(20, 0.5)).match(x)
    assert found.tolist() == pytest.approx([0, -0.5])
    assert chi2 == pytest.approx((4 * (x - 0.5) ** 2).mean())


def test_densities_are_counts_in_bins_about_the_radii():
    """Two repetitions of four spheres on radii 1, 2, 4 nm: edges 0.5, 1.5, 3, 5 nm."""
    radii = np.array([[1.0, 1.4, 1.6, 4.9], [2.0, 2.0, 2.9, 3.1]])
    found = MonteCarlo(radii, np.array([0.1, 0.2]), *np.zeros((3, 2)), 1.0, 9, 0.0, "")
    expected = [[0.2, 0.1 / 1.5, 0.1 / 2], [0, 0.6 / 1.5, 0.2 / 2]]
    np.testing.assert_allclose(found.density(np.array([1.0, 2.0, 4.0])), expected)
    np.testing.assert_allclose(found.volume, [0.4, 0.8])
    np.testing.assert_allclose(found.mean_nm, radii.mean(axis=1))


def test_means_agree_within_two_of_error_and_scatter():
    """Repetitions with means 1.9 and 2.1 nm: scatter √0.02 nm."""
    sizes = known(0.13).sizes
    other = MonteCarlo(np.array([[1.9, 1.9], [2.1, 2.1]]), *np.ones((4, 2)), 1.0, 9, 0.0, "")
    for error, own, agree in ((0.01, 2.28, True), (0.01, 2.29, False), (0.1, 2.34, True), (0.1, 2.35, False)):
        one = replace(sizes, values=np.full((1, 5), own), errors=np.full((1, 5), error))
        check = CrossCheck("", 0, "1/mm", one, other)
        assert check.combined_nm == pytest.approx(np.sqrt(error**2 + 0.02))
        assert check.difference_nm == pytest.approx(2.0 - own)
        assert check.agree == agree


def test_small_spheres_are_told_apart():
    other = MonteCarlo(np.array([[0.6, 2.2, 2.4], [2.0, 2.2, 2.4]]), *np.ones((4, 2)), 1.0, 9, 0.0, "")
    check = CrossCheck("", 0, "1/mm", known(0.13).sizes, other)
    assert check.small.mean() == pytest.approx(1 / 6)
    np.testing.assert_allclose(check.mean_without_small_nm, [2.3, 2.2])


def test_it_needs_its_package(monkeypatch):
    one = known(0.13)
    monkeypatch.setitem(sys.modules, "mcsas3", None)  # as where it is not installed
    with pytest.raises(BadInput, match=r"pip install .saxs-pipeline\[montecarlo\]"):
        monte_carlo(one.curve, one.sizes, repetitions=2, contributions=10)


# --- with mcsas3 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0.0, 0.13])
def test_both_methods_find_the_mean_and_the_volume_of_known_sizes(width):
    """Means to 0.05 nm, volumes to 5 %, which small spheres that nobody sees take up."""
    needs_mcsas3()
    one = known(width)
    found = monte_carlo(one.curve, one.sizes, repetitions=2, contributions=100)
    own = float(one.sizes.value("mean_nm")[0])
    assert abs(own - one.mean_nm) < 0.01
    assert np.abs(found.mean_nm - one.mean_nm).max() < 0.05
    assert abs(found.mean_nm.mean() - own) < 0.05
    np.testing.assert_allclose(found.volume, one.volume, rtol=0.05)
    assert one.width_nm - 0.02 < found.width_nm.min() and found.width_nm.max() < one.width_nm + 0.25
    assert np.abs(found.background).max() < 1e-4  # of 0.41 mm⁻¹ at q = 0; there is none
    assert (found.chi2 <= found.target).all() and found.points == ((Q >= 0.3) & (Q <= 4.5)).sum()
    area = (found.density(one.sizes.radius_nm) * one.sizes.bin_nm).sum(axis=1)
    np.testing.assert_allclose(area, found.volume, rtol=1e-9)


def test_the_same_curve_gives_the_same_radii_and_other_seeds_others(monkeypatch):
    needs_mcsas3()
    monkeypatch.setattr(montecarlo, "MOST_MOVES", 500)
    one = known(0.13)
    first, again = (monte_carlo(one.curve, one.sizes, repetitions=2, contributions=30) for _ in range(2))
    np.testing.assert_array_equal(first.radius_nm, again.radius_nm)
    assert (first.radius_nm[0] != first.radius_nm[1]).any()
    assert (first.moves == 500).all() and (first.chi2 > first.target).all()  # and it does not go on for ever


def test_points_without_value_and_outside_the_window_do_not_count():
    needs_mcsas3()
    one = known(0.13)
    intensity, inside = one.curve.intensity.copy(), (Q >= 0.3) & (Q <= 4.5)
    intensity[:, ~inside] = 1e3
    intensity[:, 80] = np.nan
    found = monte_carlo(replace(one.curve, intensity=intensity), one.sizes, repetitions=2, contributions=50)
    assert found.points == inside.sum() - 1
    assert np.abs(found.mean_nm - one.mean_nm).max() < 0.1


def test_without_a_contrast_the_unit_is_that_of_the_distribution():
    needs_mcsas3()
    one = known(0.13)
    bare = size_distributions(one.curve, SETTINGS, None, None)
    assert bare.factor == 1 and not bare.absolute
    found = monte_carlo(one.curve, bare, repetitions=2, contributions=50)
    own = (bare.density * bare.bin_nm).sum()
    assert own == pytest.approx(one.volume * intensity_factor(35.2e-6), rel=0.02)
    np.testing.assert_allclose(found.volume, own, rtol=0.06)


def test_mcsas3s_own_search_finds_the_same_scale_and_constant_but_no_lower_chi2():
    """Curves on the way from random radii to the truth."""
    needs_mcsas3()
    from mcsas3.osb import optimizeScalingAndBackground

    curve, rng = known(0.13).curve, np.random.default_rng(2)
    measured, sigma = 1e3 * curve.intensity[0], 1e3 * curve.sigma[0]
    exact, searching = ScaleAndConstant(measured, sigma), optimizeScalingAndBackground(measured, sigma)
    found, theirs = [], []
    for share in np.linspace(0, 1, 30):
        radii = np.where(rng.random(300) < share, rng.normal(2.24, 0.13, 300), rng.uniform(0.5, 6, 300))
        model = (sphere(Q, radii) / (4 / 3 * np.pi * radii**3)[:, None]).sum(axis=0)
        for method, results in ((exact, found), (searching, theirs)):
            values, chi2 = method.match(model)
            results.append([*values, chi2])
    assert (np.array(found)[:, 2] <= np.array(theirs)[:, 2] * (1 + 1e-9)).all()
    np.testing.assert_allclose(np.array(theirs)[:, 2], np.array(found)[:, 2], rtol=1e-3)
    np.testing.assert_allclose(np.array(theirs)[:, 0], np.array(found)[:, 0], rtol=5e-3)
