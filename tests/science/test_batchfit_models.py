"""Fits of all the models: exact curves, lmfit, simulated truth, and themselves in other company."""

import numpy as np
import pytest

from saxs_pipeline.science.batchfit import fit_frames
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.science.formfactors import intensity_factor
from saxs_pipeline.science.joint import curve_gains
from tests.spheres import gaussian_model, two_populations

FACTOR = intensity_factor(35.2e-6)
Q = np.linspace(0.15, 5.0, 160)
FIELDS = ("values", "covariance", "free", "chi2", "chi2_red", "n_points", "converged", "model")
MODELS = {
    "lognormal": gaussian_model(FACTOR, distribution="lognormal"),
    "schulz": gaussian_model(FACTOR, distribution="schulz"),
    "porod": gaussian_model(FACTOR, power_law=(4.0, 4.0)),
    "power law": gaussian_model(FACTOR, power_law=(2.5, 4.5)),
    "power law, sizes fixed": gaussian_model(FACTOR, power_law=(2.5, 4.5), fixed=(("radius", 2.0), ("sigma", 0.2))),
    "constant known": gaussian_model(FACTOR, constant=2e-3),
    "smeared": gaussian_model(FACTOR, sigma_q_1_nm=0.06),
    "hard spheres": gaussian_model(FACTOR, (1.2, 3.0), (0.1, 0.5), volume_fraction=(0.02, 0.3), shell_nm=0.6),
    "width tied": gaussian_model(FACTOR, tied=(("sigma", "0.1*radius"),)),
    "width without a value at small radii": gaussian_model(FACTOR, tied=(("sigma", "0.1*sqrt(radius - 0.7)"),)),
    "width fixed": gaussian_model(FACTOR, fixed=(("sigma", 0.2),)),
    "two": two_populations(FACTOR),
    "two, tied": two_populations(FACTOR, tied=(("agglomerates_sigma", "crystals_sigma/2"),)),
    "two, own tie": two_populations(FACTOR, tied=(("agglomerates_sigma", "0.1*agglomerates_radius"),)),
    "two, Porod": two_populations(FACTOR, power_law=(4.0, 4.0)),
    "two, Schulz": two_populations(FACTOR, distribution="schulz"),
}
TRUTH = {
    "crystals_c_nc_umol_L": 12.0, "crystals_r_nm": 2.6, "crystals_sigma2_nm2": 0.3**2,
    "agglomerates_c_nc_umol_L": 150.0, "agglomerates_r_nm": 1.5, "agglomerates_sigma2_nm2": 0.15**2,
    "c_nc_umol_L": 20.0, "r_nm": 2.0, "sigma2_nm2": 0.2**2, "background_1_mm": 2e-3,
    "power_law_1_mm": 3e-3, "exponent": 3.3, "volume_fraction": 0.12,
}  # fmt: skip


def truth_of(model, n=1, seed=0):
    """(n, p): the truth, each row 10 % off in all but the exponent."""
    row = np.array([TRUTH[name] for name in model.columns])
    if model.power_law == (4.0, 4.0):
        row[model.columns.index("exponent")] = 4.0
    rows = np.repeat(row[None], n, axis=0)
    if n > 1:
        free = [j for j, name in enumerate(model.columns) if name != "exponent" and not (j == 3 and model.constant)]
        rows[:, free] *= np.random.default_rng(seed).uniform(0.9, 1.1, (n, len(free)))
    if model.fixed or model.tied:
        psi = model.expand(np.ascontiguousarray(rows[:, [model.nonlinear[j] for j in model.free]].T))
        rows[:, model.nonlinear] = psi.T
    return rows


def noise_of(curves, exposure=3e6):
    return np.sqrt((np.abs(curves) + 5e-3) / (exposure * Q))


@pytest.mark.parametrize("name", MODELS)
def test_exact_curves_are_recovered(name):
    model = MODELS[name]
    truth = truth_of(model, 5)
    exact = model.curve(Q, truth)
    fit = fit_frames(Q, exact, noise_of(exact), model)
    assert fit.converged.all()
    np.testing.assert_allclose(fit.values, truth, rtol=2e-5, atol=1e-9)
    assert (fit.chi2_red < 1e-6).all()


def lmfit_of(model: CurveModel, intensity, sigma, start):
    """Values, standard errors, χ² and χ²_red by lmfit, with s as the parameter, ties as its expressions."""
    import lmfit

    parameters = lmfit.Parameters()
    tied = {model.nonlinear[j] for j in model.tied_numbers}
    free = {*model.linear, *(model.nonlinear[j] for j in model.free)}
    for k, name in enumerate(model.columns):
        if k not in tied:
            parameters.add(name, value=start[k] * (1.02 if k in free else 1), vary=k in free)

    def values_at(p):
        row = np.array([[p[name].value if name in p else 0.0 for name in model.columns]])
        psi = model.expand(np.ascontiguousarray(row[:, [model.nonlinear[j] for j in model.free]].T))
        if tied:
            row[:, model.nonlinear] = psi.T
        return row

    found = lmfit.minimize(
        lambda p: (model.curve(Q, values_at(p))[0] - intensity) / sigma, parameters, scale_covar=False,
        ftol=1e-12, xtol=1e-12, epsfcn=1e-12,
    )  # fmt: skip
    errors = np.array([found.params[n].stderr or 0.0 if n in found.params else np.nan for n in model.columns])
    return values_at(found.params)[0], errors, found.chisqr, found.redchi


@pytest.mark.parametrize("name", MODELS)
def test_lmfit_agrees(name):
    model = MODELS[name]
    exact = model.curve(Q, truth_of(model))
    sigma = noise_of(exact)
    noisy = exact + sigma * np.random.default_rng(5).standard_normal(exact.shape)
    fit = fit_frames(Q, noisy, sigma, model)
    assert fit.converged.all()
    values, errors, chi2, chi2_red = lmfit_of(model, noisy[0], sigma[0], fit.values[0])
    assert (fit.chi2[0], fit.chi2_red[0]) == (pytest.approx(chi2, rel=1e-4), pytest.approx(chi2_red, rel=1e-4))
    own = np.sqrt(np.diagonal(fit.covariance[0]))
    fitted = fit.free[0]
    assert (np.abs(values - fit.values[0])[fitted] < 2e-3 * own[fitted]).all()
    known = fitted & np.isfinite(errors)
    np.testing.assert_allclose(own[known], errors[known], rtol=5e-3)


@pytest.mark.parametrize("name", MODELS)
def test_no_frame_depends_on_its_company(name):
    model = MODELS[name]
    exact = model.curve(Q, truth_of(model, 70, seed=3))
    sigma = noise_of(exact, 1e5)
    noisy = exact + sigma * np.random.default_rng(1).standard_normal(exact.shape)
    noisy[17, 5:] = np.nan
    together = fit_frames(Q, noisy, sigma, model)
    for k in (0, 17, 18, 69):
        alone = fit_frames(Q, noisy[k : k + 1], sigma[k : k + 1], model)
        for field in FIELDS:
            np.testing.assert_array_equal(getattr(alone, field)[0], getattr(together, field)[k])


@pytest.mark.parametrize("name", ["two", "lognormal", "power law", "width tied"])
def test_errors_are_those_of_simulated_series(name):
    model, n = MODELS[name], 1500
    truth = truth_of(model)
    exact = np.repeat(model.curve(Q, truth), n, axis=0)
    sigma = noise_of(exact)
    fit = fit_frames(Q, exact + sigma * np.random.default_rng(2).standard_normal(exact.shape), sigma, model)
    assert fit.converged.mean() > 0.999
    free = fit.free[0]
    pulls = ((fit.values - truth) / np.sqrt(np.einsum("naa->na", fit.covariance)))[:, free]
    pulls = pulls[fit.converged]
    assert np.abs(pulls.mean(axis=0)).max() < 0.12, "of second order in the noise, and 4/√n of chance"
    np.testing.assert_allclose(pulls.std(axis=0), 1, atol=4 / np.sqrt(2 * n) + 0.02)
    assert fit.chi2_red.mean() == pytest.approx(1, abs=4 * np.sqrt(2 / 150 / n))


HELD = {"crystals": (0, 1), "agglomerates": (2, 3)}
"""Numbers of their nonlinear parameters."""


@pytest.mark.parametrize(
    ("name", "population"),
    [
        *((name, None) for name in ("two", "two, tied", "two, own tie", "width tied", "power law", "hard spheres")),
        *((name, population) for name in ("two, tied", "two, own tie") for population in HELD),
    ],
)
def test_gains_are_changes_of_the_fit(name, population):
    model = MODELS[name]
    truth = truth_of(model)
    exact = model.curve(Q, truth)
    sigma = noise_of(exact)
    start = truth[:, model.nonlinear]
    given = {"held": {j: start[:, j] for j in HELD[population]}, "start": start} if population else {}
    fit = fit_frames(Q, exact, sigma, model, **given)
    gains = curve_gains(Q, sigma, fit.values, model, fit.free)[0]
    assert (gains[~fit.free[0]] == 0).all()
    for place in (10, 60, 120):
        step = 0.02 * sigma[0, place] * (np.arange(Q.size) == place)
        up, down = (fit_frames(Q, exact + sign * step, sigma, model, **given).values[0] for sign in (1, -1))
        numeric = (up - down) / (2 * step[place])
        known = fit.free[0]
        size = np.sqrt(np.diagonal(fit.covariance[0]))[known] / sigma[0, place]
        np.testing.assert_allclose(gains[known, place] / size, numeric[known] / size, atol=2e-3)
    covariance = np.einsum("am,bm->ab", gains * sigma[0], gains * sigma[0])
    scale = np.sqrt(np.diagonal(fit.covariance[0])) + 1e-30
    np.testing.assert_allclose(
        covariance / np.outer(scale, scale), fit.covariance[0] / np.outer(scale, scale), atol=1e-4
    )


@pytest.mark.parametrize(
    ("name", "population", "fitted"),
    [
        ("two, own tie", "agglomerates", (1, 1, 1, 1, 1, 0, 0)),
        ("two, own tie", "crystals", (1, 0, 0, 1, 1, 1, 1)),
        ("two, tied", "agglomerates", (1, 1, 1, 1, 1, 0, 0)),
        ("two, tied", "crystals", (1, 0, 0, 1, 1, 1, 0)),
    ],
)
def test_what_is_tied_to_a_size_that_is_held_is_not_fitted(name, population, fitted):
    model, truth = MODELS[name], truth_of(MODELS[name])
    exact, start = model.curve(Q, truth), truth[:, MODELS[name].nonlinear]
    held = {j: start[:, j] for j in HELD[population]}
    fit = fit_frames(Q, exact, noise_of(exact), model, held=held, start=start)
    assert tuple(fit.free[0].astype(int)) == fitted
    assert ((np.diagonal(fit.covariance[0]) > 0) == fit.free[0]).all()


def test_widths_that_are_tied_to_unresolved_ones_are_not_selected():
    """Of narrow distributions half have s < 0: none of these frames is lost, and the mean of s is that of the truth."""
    model, n = two_populations(FACTOR, tied=(("agglomerates_sigma", "crystals_sigma"),)), 400
    truth = truth_of(model)
    truth[:, [2, 6]] = 0.03**2
    exact = np.repeat(model.curve(Q, truth), n, axis=0)
    sigma = np.full(exact.shape, 3e-4)
    fit = fit_frames(Q, exact + sigma * np.random.default_rng(4).standard_normal(exact.shape), sigma, model)
    assert fit.converged.all() and (fit.values[:, 2] < 0).mean() > 0.2
    np.testing.assert_allclose(fit.values[:, 2], fit.values[:, 6], rtol=1e-12)
    pulls = (fit.values[:, 2] - 0.03**2) / np.sqrt(fit.covariance[:, 2, 2])
    assert abs(pulls.mean()) < 4 / np.sqrt(n)


@pytest.mark.parametrize("name", ["two, tied", "two, own tie"])
@pytest.mark.parametrize("population", [0, 1])
def test_gains_of_frames_with_one_population_are_those_without_the_other(name, population):
    """What is tied within the population follows there too; a tie to the one that is dropped is none."""
    model = MODELS[name]
    values = truth_of(model)
    dropped = list(model.places(1 - population))
    values[:, dropped] = np.nan
    free = np.isfinite(values)
    sigma = np.full((1, Q.size), 3e-4)
    gains = curve_gains(Q, sigma, values, model, free)
    own = [*model.places(population), 3]
    tied = (("sigma", "0.1*radius"),) if population == 1 and name == "two, own tie" else ()
    alone = gaussian_model(FACTOR, tied=tied)
    wanted = curve_gains(Q, sigma, values[:, own], alone, np.ones((1, 4), dtype=bool))
    np.testing.assert_allclose(gains[:, own], wanted, rtol=1e-6, atol=1e-9 * np.abs(wanted).max())
    assert (gains[:, dropped] == 0).all()


def test_broad_distributions_are_fitted_as_far_as_they_are_known():
    model = gaussian_model(FACTOR, (0.5, 3.0), (0.1, 1.2), distribution="lognormal")
    truth = np.array([[20.0, 1.0, 0.8**2, 2e-3]])
    exact = model.curve(Q, truth)
    fit = fit_frames(Q, exact, noise_of(exact), model)
    assert fit.converged.all()
    np.testing.assert_allclose(fit.values, truth, rtol=1e-5)
    hard = gaussian_model(FACTOR, (0.5, 3.0), (0.1, 1.2), volume_fraction=(0.1, 0.1))
    schulz = gaussian_model(FACTOR, (0.5, 3.0), (0.1, 1.2), distribution="schulz")
    psi = np.array([[0.6, 1.0, 1.0], [1.0, 0.6**2, 0.4**2]])
    for one, inside in ((model, [0, 1, 1]), (hard, [0, 0, 1]), (schulz, [1, 1, 1])):
        known = one.holds(np.vstack([psi, np.full((len(one.nonlinear) - 2, 3), 0.1)]), one.free, wide=False)
        assert known.tolist() == inside


def test_held_sizes_are_not_fitted():
    model, truth = MODELS["two"], truth_of(MODELS["two"], 3)
    exact = model.curve(Q, truth)
    held = {2: truth[:, 5], 3: truth[:, 6]}
    start = truth[:, model.nonlinear] * 1.05
    fit = fit_frames(Q, exact, noise_of(exact), model, held=held, start=start)
    assert fit.converged.all()
    np.testing.assert_allclose(fit.values, truth, rtol=1e-5)
    assert (fit.free == [True, True, True, True, True, False, False]).all()
    assert (fit.covariance[:, 5:] == 0).all()
    freely = fit_frames(Q, exact, noise_of(exact), model)
    variances, larger = (np.diagonal(f.covariance, axis1=1, axis2=2)[:, :5] for f in (fit, freely))
    assert (variances < larger).all()


def test_a_minimum_outside_any_range_is_not_a_result():
    model = two_populations(FACTOR, agglomerates=((0.8, 1.4), (0.03, 0.5)))
    exact = MODELS["two"].curve(Q, truth_of(MODELS["two"]))
    assert not fit_frames(Q, exact, noise_of(exact), model).converged.any()


def test_a_weak_population_beside_a_strong_one_is_found_wherever_a_fit_from_the_truth_finds_it():
    """Strong crystals are between the points of the grid; a chunk of one frame finds the same, to the last bit."""
    model = two_populations(FACTOR, crystals=((1.8, 5.0), (0.05, 1.0)))
    crystals, agglomerates = np.linspace(3.4, 3.6, 40), np.linspace(4, 1.5, 40)
    truth = np.array([2.0, 0, 0.36**2, 0, 0, 1.5, 0.2**2]) + np.zeros((40, 1))
    truth[:, 1], truth[:, 4] = crystals, agglomerates
    exact = model.curve(Q, truth)
    sigma = np.sqrt((exact + 0.01) / (2.5e6 * Q))
    noisy = exact + sigma * np.random.default_rng(2).standard_normal(exact.shape)
    found = fit_frames(Q, noisy, sigma, model)
    wanted = fit_frames(Q, noisy, sigma, model, start=truth[:, model.nonlinear])
    assert wanted.converged.sum() > 30
    assert found.converged[wanted.converged].all()
    assert (found.chi2 < wanted.chi2 + 1e-3)[wanted.converged].all()
    for k in range(0, 40, 5):
        alone = fit_frames(Q, noisy[k : k + 1], sigma[k : k + 1], model)
        np.testing.assert_array_equal(alone.values[0], found.values[k])
        np.testing.assert_array_equal(alone.covariance[0], found.covariance[k])
