"""One curve in depth: against sasmodels, scipy, explicit profiles and the truth of simulated noise."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import lmfit
import numpy as np
import pytest
from scipy.optimize import brentq, curve_fit, least_squares

from saxs_pipeline.curve_fit import FitParameter
from saxs_pipeline.science.distributions import mean_volume
from saxs_pipeline.science.formfactors import gaussian_spheres
from saxs_pipeline.stages import profiles
from saxs_pipeline.stages.fit_curve import Recorded, fit_curve
from saxs_pipeline.types import BadInput
from tests.one_curve import CONTRAST, EVERYWHERE, FACTOR, Q, noisy, one_curve, spheres
from tests.spheres import gaussian_model, two_populations

MODEL = gaussian_model(FACTOR)
NAMES = ("c_nc", "radius", "sigma", "background")


def sasmodels_sphere(name, c, radius, relative):
    """I(q), 1/mm, by 80 points over 8 σ; a lognormal's parameters there are the median and the width of ln R."""
    from sasmodels.core import load_model
    from sasmodels.direct_model import call_kernel

    width = math.sqrt(math.log1p(relative**2)) if name == "lognormal" else relative
    kernel = load_model("sphere", dtype="double", platform="dll").make_kernel([Q / 10])
    parameters = {
        "scale": c * 6.02214076e-7 * float(mean_volume(radius, (relative * radius) ** 2, name)),
        "background": 0.0,
        "sld": CONTRAST * 1e6,
        "sld_solvent": 0.0,
        "radius": 10 * (radius / math.sqrt(1 + relative**2) if name == "lognormal" else radius),
        "radius_pd": width,
        "radius_pd_n": 80,
        "radius_pd_nsigma": 8,
        "radius_pd_type": name,
    }
    return 0.1 * call_kernel(kernel, parameters)


@pytest.mark.parametrize("name", ["gaussian", "lognormal", "schulz"])
def test_curves_of_sasmodels_give_their_parameters_back(name):
    measured = one_curve(sasmodels_sphere(name, 25.0, 2.22, 0.06) + 1e-4, 1e-4)
    fit = fit_curve(measured, EVERYWHERE, gaussian_model(FACTOR, distribution=name))
    for one, truth in zip(fit.parameters, (25.0, 2.22, 0.06 * 2.22, 1e-4), strict=True):
        assert abs(one.value - truth) < 0.02 * one.error, one.name
    assert [one.name for one in fit.parameters] == list(NAMES)
    assert [one.unit for one in fit.parameters] == ["µmol/L", "nm", "nm", "1/mm"]
    np.testing.assert_allclose(fit.fitted, measured.intensity[0], rtol=0, atol=1e-6)


def scipy_fit(measured):
    def model(q, c, radius, width, background):
        return FACTOR * c * gaussian_spheres(q, np.array([radius]), np.array([width**2]))[0][0] + background

    return curve_fit(
        model, Q, measured.intensity[0], (20, 2.2, 0.15, 0), measured.sigma[0], absolute_sigma=True, xtol=1e-12
    )


@pytest.fixture(scope="module")
def clear():
    measured = noisy(25.0, seed=1)
    return measured, fit_curve(measured, EVERYWHERE, MODEL)


def test_values_and_covariance_are_those_of_scipy(clear):
    measured, fit = clear
    values, covariance = scipy_fit(measured)
    errors = np.sqrt(np.diag(covariance))
    assert fit.names == NAMES
    np.testing.assert_allclose(([one.value for one in fit.parameters] - values) / errors, 0, atol=2e-3)
    unit = errors * errors[:, None]
    np.testing.assert_allclose(fit.covariance / unit, covariance / unit, atol=2e-3)
    np.testing.assert_allclose([one.error for one in fit.parameters], errors, rtol=2e-3)
    assert fit.chi2 == pytest.approx(float(np.sum(((measured.intensity[0] - fit.fitted) / measured.sigma[0]) ** 2)))
    assert (fit.n_points, fit.degrees) == (200, 196)
    assert fit.notes == ()


def test_the_band_is_the_scatter_of_fits_drawn_from_the_covariance(clear):
    _, fit = clear
    draws = np.random.default_rng(3).multivariate_normal([one.value for one in fit.parameters], fit.covariance, 400)
    curves = np.array([spheres(*draw) for draw in draws])
    np.testing.assert_allclose(fit.band, curves.std(axis=0), rtol=0.2)


def test_the_parts_add_up(clear):
    measured, fit = clear
    assert [label for label, _ in fit.parts] == ["spheres", "constant"]
    np.testing.assert_allclose(sum(part for _, part in fit.parts), fit.fitted, rtol=1e-12)
    half = Q < 2
    part = fit_curve(measured, half, MODEL)
    assert np.isnan(part.fitted[~half]).all() and np.isfinite(part.fitted[half]).all()
    assert part.n_points == half.sum()


def test_profiles_of_a_clear_curve_are_its_standard_errors(clear):
    for one in clear[1].parameters:
        for level, low, high in one.intervals:
            assert (one.value - low) / one.error == pytest.approx(level, rel=0.03)
            assert (high - one.value) / one.error == pytest.approx(level, rel=0.03)


def least_chi2(measured, name, value):
    """χ² with one parameter held, the least from several starts."""
    held = NAMES.index(name)

    def residual(free):
        return (measured.intensity[0] - spheres(*np.insert(free, held, value))) / measured.sigma[0]

    bounds = np.delete(np.array([(-np.inf, np.inf), (0.5, 5), (0, 0.6), (-np.inf, np.inf)]), held, axis=0).T
    starts = [np.delete(np.array([0.5, radius, width, 1e-4]), held) for radius in (1.6, 2.1) for width in (0.1, 0.35)]
    scale = np.delete(np.array([0.1, 0.1, 0.1, 1e-5]), held)
    return min(
        2 * least_squares(residual, np.clip(start, *bounds), bounds=bounds, x_scale=scale, xtol=1e-12, ftol=1e-12).cost
        for start in starts
    )


@pytest.mark.parametrize("name", ["c_nc", "radius"])
def test_profiles_of_a_weak_curve_are_asymmetric_as_an_explicit_search_finds(name):
    measured = noisy(0.5, seed=4)
    fit = fit_curve(measured, EVERYWHERE, MODEL)
    one = fit.parameter(name)
    interval = one.intervals[0]
    below, above = one.value - interval.low, interval.high - one.value
    assert max(below, above) > 1.1 * min(below, above)

    def risen(value):
        return least_chi2(measured, name, value) - fit.chi2 - 1

    for limit, far in ((interval.low, one.value - 2 * below), (interval.high, one.value + 2 * above)):
        found = brentq(risen, *sorted((one.value, far)), xtol=2e-3 * one.error)
        assert limit == pytest.approx(found, abs=0.01 * one.error)


def test_a_profile_that_meets_a_lower_minimum_says_so():
    """χ² = 4(x² − 1)² + (x − 1)² + (y − x/10)²: 3.73 at x = −0.853, 0 at x = 1, and 4.6 between them."""

    def residual(parameters):
        x, y = parameters["x"].value, parameters["y"].value
        return np.array([2 * (x * x - 1), x - 1, y - x / 10])

    notes = []
    for start in (-1.0, 1.1):
        given = lmfit.Parameters()
        given.add("x", value=start, min=-5, max=5)
        given.add("y", value=0.0)
        minimizer = lmfit.Minimizer(residual, given, scale_covar=False)
        result = minimizer.leastsq()
        fitted = [FitParameter(name, "", result.params[name].value, 0.1, "fitted", (-5, 5)) for name in ("x", "y")]
        found, said = profiles.added(fitted, minimizer, result)
        assert [len(one.intervals) for one in found] == [2, 2]
        notes.append(said)
    assert result.chisqr == pytest.approx(0, abs=1e-9) and notes[1] == ()
    assert notes[0][0].startswith("x ") and "the fit is not the best one" in notes[0][0]


def test_a_profile_that_reaches_no_limit_says_so():
    fit = fit_curve(noisy(0.5, seed=4), EVERYWHERE, MODEL)
    width = fit.parameter("sigma")
    assert width.intervals[1].low == -math.inf  # equal spheres are as good
    assert math.isfinite(width.upper_limit)


def test_a_width_that_is_not_resolved_is_an_upper_limit():
    """Equal spheres: in half of all curves χ² is least at s < 0, where no width is."""
    held = 0
    for seed in range(6):
        fit = fit_curve(noisy(10.0, width=0.0, seed=seed), EVERYWHERE, MODEL)
        width = fit.parameter("sigma")
        assert 0 < width.upper_limit < 0.2
        if width.how == "fixed":
            held += 1
            assert width.value == 0 and "sigma" not in fit.names
            assert any(note.startswith("sigma") and "held at 0" in note for note in fit.notes)
    assert 0 < held < 6


# --- what is asked for besides ---------------------------------------------------------------------------------------


def test_a_tied_width_follows_with_its_error():
    measured = noisy(25.0, width=0.06 * 2.22, seed=2)
    fit = fit_curve(measured, EVERYWHERE, gaussian_model(FACTOR, tied=(("sigma", "0.06 * radius"),)))
    radius, sigma = fit.parameter("radius"), fit.parameter("sigma")
    assert sigma.how == "tied: 0.06 * radius"
    assert (sigma.value, sigma.error) == pytest.approx((0.06 * radius.value, 0.06 * radius.error), rel=1e-6)
    assert fit.names == ("c_nc", "radius", "background") and fit.degrees == 197
    assert abs(radius.value - 2.22) < 4 * radius.error

    def model(q, c, radius, background):
        return spheres(c, radius, 0.06 * radius, background)

    start = (20, 2.2, 0)
    values, covariance = curve_fit(model, Q, measured.intensity[0], start, measured.sigma[0], absolute_sigma=True)
    assert radius.value == pytest.approx(values[1], abs=2e-3 * radius.error)
    assert radius.error == pytest.approx(math.sqrt(covariance[1, 1]), rel=2e-3)


def test_fixed_values_and_a_given_constant_stay():
    model = gaussian_model(FACTOR, fixed=(("sigma", 0.13),), constant=1e-4)
    fit = fit_curve(noisy(25.0), EVERYWHERE, model)
    assert fit.names == ("c_nc", "radius")
    for name, value in (("sigma", 0.13), ("background", 1e-4)):
        one = fit.parameter(name)
        assert (one.value, one.how) == (pytest.approx(value, rel=1e-12), "fixed")
        assert math.isnan(one.error) and one.intervals == ()


def test_two_populations_with_a_power_law():
    q = np.linspace(0.1, 5.0, 400)
    truth = {
        "crystals_c_nc": 5.0, "crystals_radius": 3.0, "crystals_sigma": 0.25, "agglomerates_c_nc": 40.0,
        "agglomerates_radius": 1.4, "agglomerates_sigma": 0.12, "background": 2e-4, "power_law": 1e-3, "exponent": 3.0,
    }  # fmt: skip
    one, two = spheres(5.0, 3.0, 0.25, q=q), spheres(40.0, 1.4, 0.12, q=q)
    exact = one + two + 2e-4 + 1e-3 * q**-3.0
    measured = one_curve(exact + np.random.default_rng(5).normal(0, 2e-4, len(q)), 2e-4, q)
    model = two_populations(FACTOR, power_law=(2.0, 4.0))
    fit = fit_curve(measured, np.ones(len(q), dtype=bool), model)
    assert [p.name for p in fit.parameters] == list(truth)
    for p in fit.parameters:
        assert abs(p.value - truth[p.name]) < 4 * p.error, p.name
    assert [label for label, _ in fit.parts] == ["crystals", "agglomerates", "power law", "constant"]
    np.testing.assert_allclose(fit.parts[0][1], one, rtol=0.05)


def test_a_population_that_is_not_there_is_left_out():
    fit = fit_curve(noisy(25.0, radius=2.4), EVERYWHERE, two_populations(FACTOR), systematic_rel=(0.01, 0.02))
    assert [one.name for one in fit.parameters] == list(NAMES)
    assert any("agglomerates is not there" in note for note in fit.notes)
    assert abs(fit.parameter("radius").value - 2.4) < 4 * fit.parameter("radius").error
    c = fit.parameter("c_nc")
    assert c.systematic == pytest.approx(0.01 * c.value)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_population_whose_size_no_fit_tells_is_held_and_not_called_absent(recorded):
    """Agglomerates with a radius below its range: where a run gives their size, all else comes out right."""
    truth = {"crystals_c_nc": 15.0, "crystals_radius": 2.6, "crystals_sigma": 0.3, "agglomerates_c_nc": 60.0}
    exact = spheres(15.0, 2.6, 0.3) + spheres(60.0, 1.3, 0.15)
    measured = one_curve(exact + np.random.default_rng(1).normal(0, 2e-4, len(Q)), 2e-4)
    model = two_populations(FACTOR, agglomerates=((1.4, 1.8), (0.03, 0.3)))
    run = Recorded(np.array([15.0, 2.6, 0.09, 0.0, 60.0, 1.3, 0.15**2]), 1e-4 * np.eye(7)) if recorded else None
    fit = fit_curve(measured, EVERYWHERE, model, systematic_rel=(0.01, 0.02), recorded=run, profiled=False)
    held = {one.name: one.value for one in fit.parameters if one.how == "fixed"}
    (note,) = (note for note in fit.notes if note.startswith("agglomerates is there, but no fit tells its size: held"))
    assert ("as the series has it" in note) is recorded and set(held) == {"agglomerates_radius", "agglomerates_sigma"}
    if recorded:
        assert held == {"agglomerates_radius": pytest.approx(1.3), "agglomerates_sigma": pytest.approx(0.15)}
        assert all(abs(one.value - truth[one.name]) < 4 * one.error for one in fit.parameters if one.name in truth)
    else:
        assert held["agglomerates_radius"] == pytest.approx(1.4), "of those in the range the one nearest to the truth"


def test_without_a_contrast_there_is_no_concentration():
    fit = fit_curve(noisy(25.0), EVERYWHERE, gaussian_model(1.0), absolute=False)
    amplitude = fit.parameters[0]
    assert (amplitude.name, amplitude.unit) == ("amplitude", "1/mm/nm^6")
    assert amplitude.value == pytest.approx(FACTOR * 25.0, abs=4 * amplitude.error)


def test_what_moves_the_whole_curve_is_systematic():
    """A monitor wrong by 1 %: c and b move by 1 %, sizes do not; in quadrature with the scale of c."""
    measured = replace(noisy(25.0), factor_rel=0.01)
    fit = fit_curve(measured, EVERYWHERE, MODEL, systematic_rel=(0.02,))
    c, radius, sigma, background = fit.parameters
    assert c.systematic == pytest.approx(math.hypot(0.01, 0.02) * c.value, rel=1e-6)
    assert background.systematic == pytest.approx(0.01 * abs(background.value), rel=1e-6)
    assert max(radius.systematic, sigma.systematic) < 1e-9


def test_what_a_run_recorded_stands_beside_and_differences_are_said(clear):
    measured, fit = clear
    values = np.array([one.value for one in fit.parameters])
    values[2] **= 2
    covariance = np.diag([0.06, 0.0016, 2 * 0.13 * 0.0026, 2e-5]) ** 2
    beside = fit_curve(measured, EVERYWHERE, MODEL, recorded=Recorded(values, covariance))
    assert beside.notes == ()
    assert beside.parameter("sigma").batch == pytest.approx((math.sqrt(values[2]), 0.0026), rel=0.02)
    values[1] += fit.parameter("radius").error
    (note,) = fit_curve(measured, EVERYWHERE, MODEL, recorded=Recorded(values, covariance)).notes
    assert note == "radius: 1 standard errors from the fit of the series"


def test_a_model_that_does_not_describe_the_curve_says_so():
    wrong = one_curve(spheres(25.0, 2.2, 0.13) + spheres(0.1, 3.4, 0.2), 2e-4)
    assert any("does not describe" in note for note in fit_curve(wrong, EVERYWHERE, MODEL).notes)


def test_points_without_sigma_do_not_count(clear):
    measured, _ = clear
    statistical = measured.statistical.copy()
    statistical[0, 50] = np.nan
    fit = fit_curve(replace(measured, statistical=statistical), EVERYWHERE, MODEL)
    assert fit.n_points == 199
    bare = fit_curve(replace(measured, statistical=statistical), EVERYWHERE, MODEL, profiled=False)
    assert all(one.intervals == () for one in bare.parameters)
    np.testing.assert_array_equal(bare.covariance, fit.covariance)


def test_what_cannot_be_fitted_is_refused(clear):
    measured, _ = clear
    few = np.arange(len(Q)) < 4
    with pytest.raises(BadInput, match=r"holds 4 points .* too few for 4 parameters"):
        fit_curve(measured, few, MODEL)
    with pytest.raises(BadInput, match="finds no spheres with radius 6 to 9 nm"):
        fit_curve(measured, EVERYWHERE, gaussian_model(FACTOR, (6.0, 9.0)))


# --- Monte Carlo -----------------------------------------------------------------------------------------------------


def test_the_posterior_of_a_clear_curve_is_its_covariance(clear):
    pytest.importorskip("emcee")
    measured, fit = clear
    chain = fit_curve(measured, EVERYWHERE, MODEL, steps=250).chain
    errors = np.array([one.error for one in fit.parameters])
    assert chain.names == fit.names
    independent = chain.samples.shape[0] / chain.autocorrelation.max()
    assert independent > 150
    # standard error of a standard deviation from n draws: 1/√(2n); of a mean: 1/√n
    np.testing.assert_allclose(chain.samples.std(axis=0) / errors, 1, atol=4 / math.sqrt(2 * independent))
    moved = (chain.samples.mean(axis=0) - [one.value for one in fit.parameters]) / errors
    assert np.abs(moved).max() < 4 / math.sqrt(independent)
    assert not chain.long_enough  # of 188 steps fewer than 50 times the autocorrelation of some 25


def test_the_posterior_of_an_unresolved_width_reaches_to_zero():
    pytest.importorskip("emcee")
    for seed in range(6):
        measured = noisy(10.0, width=0.0, seed=seed)
        if fit_curve(measured, EVERYWHERE, MODEL).parameter("sigma").how == "fixed":
            break
    chain, again = (fit_curve(measured, EVERYWHERE, MODEL, steps=100).chain for _ in range(2))
    np.testing.assert_array_equal(chain.samples, again.samples)
    width = chain.samples[:, chain.names.index("sigma")]
    assert 0 <= width.min() < 0.2 * width.max() < 0.1


def test_monte_carlo_needs_its_package(monkeypatch, clear):
    monkeypatch.setitem(sys.modules, "emcee", None)  # as where it is not installed
    with pytest.raises(BadInput, match=r"pip install .saxs-pipeline\[mcmc\]"):
        fit_curve(clear[0], EVERYWHERE, MODEL, steps=100)
