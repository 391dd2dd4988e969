"""The joint fit against series made from known parameters: with known noise, and through the fits of whole curves."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from saxs_pipeline import runfile
from saxs_pipeline.config import Model
from saxs_pipeline.sample_config import Sample
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.science.formfactors import gaussian_spheres, intensity_factor, sphere
from saxs_pipeline.science.population import at, simulate
from saxs_pipeline.stages import fit as fit_stage
from saxs_pipeline.stages import kinetic_fit
from saxs_pipeline.stages.compare import compare
from saxs_pipeline.stages.degenerate import check, unresolved
from saxs_pipeline.stages.kinetic_fit import fit_model
from saxs_pipeline.stages.kinetic_problem import Measured
from saxs_pipeline.stages.quantify import quantify
from saxs_pipeline.stages.refit import refit_weak
from saxs_pipeline.types import BadInput, Curves, Provenance, RunResult

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NAMES = ("A", "gamma", "n", "k1")
Q = np.linspace(0.15, 5.0, 160)
FACTOR = intensity_factor(35.2e-6)
SHARED = 3e-5
SAMPLE = Sample(
    contrast="35.2e-6 1/Å^2",
    lattice_parameter="0.607 nm",
    cations_per_cell=4,
    cation_concentration="27 ± 0.3 mmol/L",
)


@cache
def model(*settings):
    return runfile.load_model(CONFIGS / "kinetics-calibrated.yaml", ("n=2", *settings)).config


@cache
def development():
    return simulate(model().synthesis(), 2275.8, sizes=True)


def off(*factors, n=2.0):
    """The model with A, gamma and k1 times factors, and another n."""
    changes = {name: model().value(name) * f for name, f in zip(("A", "gamma", "k1"), factors, strict=True)}
    return model().model_copy(update=changes | {"n": float(n)})


def uncertainty(pattern):
    return 1.5e-4 * np.sqrt(1 + pattern / 7e-3)


def fisher(values):
    """Inverse Fisher information (k, 3, 3) of (c, r, s) of a frame, its constant background free."""
    c, radius, variance = values.T
    form, by_radius, by_variance = (FACTOR * part for part in gaussian_spheres(Q, radius, variance))
    c = c[:, None]
    columns = np.stack([form, c * by_radius, c * by_variance, np.ones_like(form)], 1) / uncertainty(c * form)[:, None]
    return np.linalg.inv(np.einsum("nam,nbm->nab", columns, columns))[:, :3, :3]


@cache
def series(seed, scale_rel=0.02, scale=1.0):
    """60 frames from 8 s on with the noise of single frames and, after it, one factor on all c."""
    rng = np.random.default_rng(seed)
    time = np.geomspace(8, 2275, 60)
    crystals = at(development(), time).all
    truth = np.stack([crystals.c_umol_L, crystals.radius_nm, crystals.sigma_nm**2], axis=1)
    own = fisher(truth)
    values = truth + np.einsum("nij,nj->ni", np.linalg.cholesky(own), rng.standard_normal(truth.shape))
    values[:, 0] *= scale
    joint = np.zeros((60, 3, 60, 3))
    joint[np.arange(60), :, np.arange(60), :] = own
    return Measured(time, values, joint.reshape(180, 180), scale_rel)


def pulls(fit):
    return (fit.values - [model().value(name) for name in fit.names]) / np.sqrt(np.diagonal(fit.covariance))


@pytest.mark.parametrize(("seed", "start"), [(1, off(3, 1.3, 1 / 3, n=0)), (2, off(1 / 3, 3, 3, n=4))])
def test_truth_comes_back_from_starts_off_by_three(seed, start):
    fit = fit_model(series(seed), start, NAMES)
    assert fit.converged, fit.message
    assert np.abs(pulls(fit)).max() < 3.5
    assert fit.chi2 / fit.degrees == pytest.approx(1, abs=4 * np.sqrt(2 / fit.degrees))
    assert fit.degrees == 180 - 4
    np.testing.assert_allclose(pulls(fit), expected_pulls(series(seed)), atol=0.2)


def expected_pulls(measured):
    """What this noise does to A, gamma, n, k1 in the linear theory about the truth, the scale free, in standard errors.

    The fit is at the floor of a valley 200 times as long as wide only if it agrees.
    """
    weights = np.linalg.inv(np.linalg.cholesky(measured.covariance))

    def white(**changes):
        crystals = at(simulate(model().synthesis(changes), 2275.8), measured.time_s).all
        values = np.stack([crystals.c_umol_L, crystals.radius_nm, crystals.sigma_nm**2], axis=1)
        return weights @ values.ravel(), weights @ (values * [1, 0, 0]).ravel()

    columns = []
    for name in NAMES:
        step = 3e-4 * model().value(name)
        up, down = (white(**{name: model().value(name) + side * step})[0] for side in (1, -1))
        columns.append(np.append((up - down) / 6e-4, 0.0))  # per relative change
    there, by_scale = white()
    slopes = np.stack([*columns, np.append(by_scale, 1 / measured.scale_rel)], axis=1)
    noise = np.append(weights @ measured.values.ravel() - there, 0.0)
    covariance = np.linalg.inv(slopes.T @ slopes)
    return (covariance @ slopes.T @ noise / np.sqrt(np.diagonal(covariance)))[:4]


def test_two_parameters_scatter_as_their_errors_say():
    found = np.array([pulls(fit_model(series(seed), model(), ("n", "k1"))) for seed in range(10, 16)])
    assert np.abs(found.mean(axis=0)).max() < 3 / np.sqrt(6)
    assert np.sqrt((found**2).mean()) == pytest.approx(1, abs=0.5)


def test_a_common_error_of_c_does_not_move_the_parameters():
    names = ("n",)
    plain, scaled = (fit_model(series(5, scale=scale), model(), names) for scale in (1.0, 1.01))
    assert scaled.scale.value / plain.scale.value == pytest.approx(1.01, rel=1e-3)
    total = np.sqrt(np.diagonal(plain.covariance))
    assert (np.abs(scaled.values - plain.values) < 0.5 * total).all()
    fixed = fit_model(series(5, scale_rel=0.0, scale=1.01), model(), names)
    assert fixed.chi2 > scaled.chi2 + 1000, "without the nuisance the same error of c contradicts the model"


def test_the_systematic_part_is_what_an_error_of_the_scale_does():
    """All c off by one stated uncertainty, the same noise: every parameter moves by its systematic part."""
    names, rel = ("gamma", "k1"), 0.0005  # about as well as the data know the scale themselves
    plain, scaled = (fit_model(series(8, scale_rel=rel, scale=s), model(), names) for s in (1.0, 1.0 + rel))
    noise = np.sqrt(np.diagonal(plain.statistical))
    assert (np.abs(plain.by_scale) > 0.1 * noise).all()
    np.testing.assert_allclose((scaled.values - plain.values) / noise, plain.by_scale / noise, atol=0.03)


def test_a_fit_that_runs_into_a_limit_has_not_converged():
    found = fit_model(series(9), off(1, 1, 1, n=20), ("B",))  # with n = 20 it takes B = 12 nm to look like n = 2
    assert not found.converged
    assert "B stopped at the limit 5e-09 m" in found.message


def test_a_fit_that_has_not_settled_says_how_far_it_still_moves(monkeypatch):
    monkeypatch.setattr(kinetic_fit, "POLISH", 1)
    monkeypatch.setattr(kinetic_fit, "SETTLED", 1e-12)
    monkeypatch.setattr(kinetic_fit, "MOST_EVALUATIONS", (1,))
    found = fit_model(series(1), model(), ("n", "k1"))
    assert not found.converged
    assert "standard errors" in found.message


def test_larger_errors_make_larger_uncertainties():
    names = ("n",)
    first = fit_model(series(6), model(), names)
    second = fit_model(replace(series(6), covariance=4 * series(6).covariance), model(), names)
    np.testing.assert_allclose(second.statistical, 4 * first.statistical, rtol=0.02)
    assert second.chi2 == pytest.approx(first.chi2 / 4, rel=0.02)


def test_the_amount_of_precursor_is_known_as_well_as_the_scale_and_the_radius():
    """Crystal volume is P0 times scale; with A and gamma free, nothing else tells the amount better than the scale."""
    found = fit_model(series(7), off(1, 1, 1, n=2), ("A", "gamma", "n", "k1", "P0"))
    assert found.converged, found.message
    assert np.abs(pulls(found)).max() < 3.5
    relative = np.sqrt(np.diagonal(found.covariance))[-1] / found.values[-1]
    assert 0.001 < relative < 0.03


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("gamma", "T"), "gamma/T"),
        (("A", "D", "M0", "prefactor"), "M0"),
        (("A", "M0"), "A·M0"),
        (("prefactor", "A", "gamma"), "prefactor"),
        (("A", "r_c0"), r"A·\(r_c0 \+ B\)\^n"),
        (("k2",), "k1"),
        (("n", "n"), "twice"),
        (("A", "T", "prefactor"), "A, T, prefactor: they trade"),
        (("r_c0", "gamma", "prefactor"), "they trade"),
        (("M0", "r_c0"), "product"),
        (("D", "M0", "prefactor"), "D·prefactor"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(names, words):
    with pytest.raises(BadInput, match=words):
        fit_model(series(1), model(), names)


def test_parameters_that_a_series_does_not_tell_apart_are_named():
    correlation = np.array([[1, 0.2, 0.2], [0.2, 1, 0.9999999], [0.2, 0.9999999, 1]])
    assert "B, D apart" in unresolved(("n", "B", "D"), correlation)
    assert unresolved(("n", "B"), np.array([[1, 0.99], [0.99, 1]])) == ""
    assert unresolved(("n", "B"), np.full((2, 2), np.nan)) == "", "a fit that did not converge has said why"


@pytest.mark.parametrize("names", [("gamma",), ("T",), ("M0",), ("A",), ("r_c0", "n"), ("gamma", "n")])
def test_what_plays_no_part_without_nucleation_and_desorption_is_refused(names):
    grows = runfile.load_model(CONFIGS / "kinetics-growth-only.yaml").config
    with pytest.raises(BadInput, match="how growth is shared"):
        fit_model(series(1), grows, names)
    for free in (("D",), ("A",)):
        check(free, grows.model_copy(update={"D": 5e-10}))
    with pytest.raises(BadInput, match="ratio of adsorption to D"):
        check(("A", "D"), grows.model_copy(update={"D": 5e-10}))
    relation = grows.model_copy(update={"adsorption": "linear_free_energy", "n": None, "alpha": 0.5, "k_inf": 4e-3})
    relation = relation.model_copy(update={"A": None, "r_c0": None})
    check(("gamma",), relation)
    with pytest.raises(BadInput, match="alpha·gamma/T"):
        check(("alpha", "gamma"), relation)


def test_the_radius_at_which_adsorption_is_a_plays_no_part_without_an_exponent():
    with pytest.raises(BadInput, match="r_c0: with n = 0"):
        fit_model(series(1), off(1, 1, 1, n=0), ("r_c0",))
    check(("n", "r_c0"), off(1, 1, 1, n=0))


def test_a_parameter_that_leaves_no_trace_in_the_series_is_named():
    """Diffusion 10⁹ times as fast as the surface takes monomers up: D shifts a growth rate by 1e-9 of itself."""
    grows = runfile.load_model(CONFIGS / "kinetics-growth-only.yaml", ("D=1 m^2/s",)).config
    time = np.geomspace(8, 230, 20)
    crystals = at(simulate(grows.synthesis(), 240), time).all
    truth = np.stack([crystals.c_umol_L, crystals.radius_nm, crystals.sigma_nm**2], axis=1)
    errors = 0.01 * truth
    noisy = truth + errors * np.random.default_rng(1).standard_normal(truth.shape)
    found = fit_model(Measured(time, noisy, np.diag(errors.ravel() ** 2), 0.02), grows, ("D", "n"))
    assert not found.converged
    assert found.message.endswith("the series does not determine D, whose error has no limit")
    assert found.changes["n"] == pytest.approx(2, abs=0.1)
    assert np.isnan(found.covariance).all()
    assert np.isfinite([*found.values, found.chi2, *found.scale]).all()


def test_a_start_outside_of_what_a_fit_looks_for_is_refused():
    with pytest.raises(BadInput, match="T starts at 150 K; start it between 200 and 1000"):
        fit_model(series(1), model("T=150 K"), ("T",))


@pytest.mark.parametrize(("names", "factors"), [(("A", "n"), (100, 1, 1)), (("k1",), (1, 1, 100))])
def test_chi2_of_a_fit_at_a_limit_is_that_of_its_own_point(names, factors):
    measured, begin = series(4), off(*factors)
    found = fit_model(measured, begin, names)
    assert "stopped at the limit" in found.message
    crystals = at(simulate(begin.synthesis(found.changes), 2275.8), measured.time_s).all
    there = np.stack([found.scale.value * crystals.c_umol_L, crystals.radius_nm, crystals.sigma_nm**2], axis=1)
    there[:, 1:] = np.where(np.isfinite(there[:, 1:]), there[:, 1:], there[np.isfinite(there[:, 1])][0, 1:])
    off_by = np.linalg.solve(np.linalg.cholesky(measured.covariance), (there - measured.values).ravel())
    expected = off_by @ off_by + ((found.scale.value - 1) / measured.scale_rel) ** 2
    assert found.chi2 == pytest.approx(expected, rel=1e-6)
    assert np.isnan(found.covariance).all(), "no errors away from a minimum"


@pytest.mark.parametrize("start", ["1e-9", "3e-10"])
def test_the_diffusion_coefficient_is_found_in_either_valley_or_both_are_named(start):
    """c rises with D by nucleation and falls by growth: χ² of this model has minima at 5e-10 and 8.6e-10 m²/s."""
    plain = fit_model(series(1), model(f"D={start} m^2/s"), ("D",))
    assert plain.converged, plain.message
    assert np.abs(pulls(plain)).max() < 3.5
    torn = fit_model(series(2), model(f"D={start} m^2/s"), ("D",))
    assert not torn.converged
    assert "two values of D describe the series" in torn.message
    assert "8.62e-10" in torn.message
    assert "4.97e-10" in torn.message


# --- whole curves ----------------------------------------------------------------------------------------------------


@cache
def run(seed=0, shuffled=False, noise=1.0):
    """90 frames, the first ten before the injection, of the model's true size distributions; fitted and quantified."""
    rng = np.random.default_rng(seed)
    time = np.concatenate([np.linspace(-2, -0.1, 10), np.geomspace(3, 2275, 80)])
    there = at(development(), np.maximum(time, 1e-3))
    patterns = FACTOR * np.where(time[:, None] > 0, there.sizes @ sphere(Q, there.size_grid_nm), 0.0)
    statistical = noise * uncertainty(patterns)
    intensity = patterns + rng.normal(0, statistical) + rng.normal(0, noise * SHARED, Q.size)
    order = np.random.default_rng(1).permutation(90) if shuffled else np.arange(90)
    curves = Curves(
        q_nm=Q,
        intensity=intensity[order],
        statistical=statistical[order],
        shared=np.full(Q.size, noise * SHARED),
        counts=np.ones((90, Q.size)),
        index=np.arange(90),
        start_s=time[order] - 0.05,
        exposure_s=np.full(90, 0.1),
        problems=("",) * 90,
        notes=("",) * 90,
        dark_sigma=np.zeros(Q.size),
        dark_factor=np.zeros(90),
        taken_off=np.zeros(Q.size),
        scale_rel=0.01,
    )
    settings = Model.model_construct(q_min=0.1, q_max=4.9, radius=(0.5, 4.0), sigma=(0.02, 0.6))
    table, fitted = fit_stage.fit(curves, settings, CurveModel.of(settings.spec([FACTOR])))
    table, fitted = refit_weak(curves, table, fitted, settings)
    table = replace(table, flags=tuple(flag or "ok" for flag in table.flags))
    provenance = Provenance("", "", {}, (), (), {})
    (quantities,) = quantify(table, curves, [SAMPLE], 18.0)
    return RunResult("run", curves, None, None, table, fitted, quantities, provenance, ())


def fitted(comparison):
    return {p.symbol: p for p in comparison.parameters if p.fitted}


def test_a_run_gives_its_parameters_back():
    result = compare(run(), off(1.5, 0.9, 1.3, n=1), NAMES, "beside the run")
    found = fitted(result)
    assert tuple(found) == ("gamma", "A", "n", "k1")
    for name, p in found.items():
        assert abs(p.value - model().value(name)) < 3.5 * np.hypot(p.statistical, p.systematic), name
        assert p.statistical > 0
    assert result.converged
    assert result.chi2_red == pytest.approx(1, abs=0.35)
    assert not result.used[:10].any()
    assert result.used[40:].all()
    assert np.isnan(result.model_radius_nm[:10]).all()
    assert np.isfinite(result.model_radius_nm[10:]).all()
    assert np.isfinite([result.curve_radius_nm, result.curve_c_umol_L, result.curve_yield]).all()


def test_the_model_is_seen_as_the_fits_see_it():
    """With a tenth of the noise: at the true parameters the widths agree with the fits', the moments' do not."""
    quiet = run(noise=0.1)
    result = compare(quiet, model())
    assert all(not p.fitted and p.statistical == 0 for p in result.parameters)
    assert result.degrees == 3 * result.used.sum()
    assert result.chi2_red == pytest.approx(1, abs=0.35)
    values, errors = quiet.fits.values[result.used, 2], np.sqrt(quiet.fits.covariance[result.used, 2, 2])
    assert abs(np.mean((values - result.model_sigma_nm[result.used] ** 2) / errors)) < 0.4
    moments = at(development(), quiet.quantities.time_s[result.used]).all.sigma_nm
    assert np.mean((values - moments**2) / errors) < -3


def test_the_order_of_frames_does_not_matter():
    plain, shuffled = (compare(run(shuffled=s), model(), ("n",)) for s in (False, True))
    for name, p in fitted(plain).items():
        assert fitted(shuffled)[name].value == pytest.approx(p.value, abs=1e-3 * p.statistical)
    order = np.random.default_rng(1).permutation(90)
    np.testing.assert_allclose(shuffled.model_c_umol_L, plain.model_c_umol_L[order], rtol=1e-3)


def test_another_amount_of_precursor_is_noted():
    other = compare(run(), model("P0=40 mmol/L"))
    assert any("crystal volume" in note for note in other.notes)
    assert any("does not describe" in note for note in other.notes)
    assert not any("crystal volume" in note for note in compare(run(), model()).notes)


def test_runs_without_concentrations_or_sizes_are_refused():
    curves = replace(run().curves, unit="a.u.")
    relative = replace(run(), curves=curves, quantities=quantify(run().fits, curves, [SAMPLE], 18.0)[0])
    with pytest.raises(BadInput, match="absolute"):
        compare(relative, model())
    with pytest.raises(BadInput, match="no fits"):
        compare(replace(run(), fits=None), model())
    with pytest.raises(BadInput, match="in a row"):
        compare(replace(run(), quantities=replace(run().quantities, flags=("weak",) * 90)), model())


def test_the_scale_takes_in_what_the_yield_is_counted_against():
    expected = np.sqrt(0.01**2 + (0.3 / 27) ** 2)
    notes = compare(run(), model()).notes
    assert any(f"± {expected:.4f}" in note for note in notes), notes


def test_a_model_without_crystals_says_so():
    fit = fit_model(series(1), off(1, 3, 1), ("k1",))
    assert not fit.converged
    assert "no crystals" in fit.message
    with pytest.raises(BadInput, match="lower gamma"):
        compare(run(), off(1, 3, 1))


def growth_only(c):
    """Starting crystals of c µmol/L, 1.2 ± 0.1 nm, and 12 mol/m³ of monomers until 240 s."""
    crystals = f"crystals=[{{c: {c} µmol/L, r: 1.2 nm, sigma: 0.1 nm}}]"
    return runfile.load_model(CONFIGS / "kinetics-growth-only.yaml", (crystals,)).config


MONOMERS_PER_UMOL = 1e-3 * 4 * np.pi / 3 * (1.2**3 + 3 * 1.2 * 0.1**2) / 5.59e-2
"""mol/m³ in 1 µmol/L of them: c⟨V⟩/v₀."""


def test_monomers_in_starting_crystals_are_part_of_the_amount():
    """Together the 27 mol/m³ of the run; and 25 µmol/L of crystals are 15.3 mol/m³."""
    enough = compare(run(), growth_only(15 / MONOMERS_PER_UMOL)).notes
    assert not any("crystal volume" in note for note in enough)
    expected = (12 + 25 * MONOMERS_PER_UMOL) / 27
    assert any(f"would make {expected:.3f} times" in note for note in compare(run(), growth_only(25)).notes)


def test_crystals_that_are_there_at_the_start_have_no_t98():
    """Growth takes up all that forms: 98 % of the yield at (0.98(K + 12) - K)/0.05 s, K mol/m³ at the start."""
    start = 25 * MONOMERS_PER_UMOL
    expected = (0.98 * (start + 12) - start) / 0.05
    (note,) = (note for note in compare(run(), growth_only(25)).notes if "98 %" in note)
    assert f"98 % of the yield at {expected:.4g} s" in note
    assert "share" not in note
    assert "98 % of c" not in note
