"""Two populations of which one comes and one goes: what each frame reports of them; truth by simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from saxs_pipeline.model_config import Model, PopulationChoice
from saxs_pipeline.model_spec import Population
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.science.formfactors import intensity_factor
from saxs_pipeline.stages.fit import WEAK, fit, fit_rows, good, negative_variance, ratio, window
from saxs_pipeline.stages.quantify import quantify
from saxs_pipeline.stages.refit import refit_weak
from saxs_pipeline.types import Curves

Q = np.linspace(0.15, 5, 160)
FACTOR = intensity_factor(35.2e-6)
MODEL = Model.model_construct(
    q_min=0.1,
    q_max=5.0,
    populations=(
        PopulationChoice.model_construct(name="crystals", radius=(1.8, 5.0), sigma=(0.05, 0.8)),
        PopulationChoice.model_construct(name="agglomerates", radius=(0.8, 1.8), sigma=(0.03, 0.5)),
    ),
)
SPHERES = CurveModel.of(MODEL.spec([FACTOR, FACTOR]))
CRYSTALS, AGGLOMERATES = 0, 4
WIDER = Population(FACTOR, (0.8, 4.0), (0.03, 1.0))


def truth_of(crystals, agglomerates, radius=2.6):
    n = len(crystals)
    one = np.ones(n)
    radii = np.broadcast_to(radius, n)
    return np.stack(
        [np.asarray(crystals), radii, 0.3**2 * one, 0 * one, np.asarray(agglomerates), 1.5 * one, 0.15**2 * one], axis=1
    )


def curves_of(truth, seed=0, sigma=3e-4, common=0.0):
    exact, rng = SPHERES.curve(Q, np.asarray(truth, dtype=float)), np.random.default_rng(seed)
    n = len(exact)
    shared = np.full(len(Q), common)
    return Curves(
        q_nm=Q,
        intensity=exact + rng.normal(0, sigma, exact.shape) + rng.normal(0, 1, len(Q)) * shared,
        statistical=np.full(exact.shape, sigma),
        shared=shared,
        counts=np.ones(exact.shape),
        index=np.arange(n),
        start_s=np.arange(n, dtype=float),
        exposure_s=np.ones(n),
        problems=("",) * n,
        notes=("",) * n,
        dark_sigma=np.zeros(len(Q)),
        dark_factor=np.zeros(n),
        taken_off=np.zeros(len(Q)),
    )


def fitted(curves):
    table, model = fit(curves, MODEL, SPHERES)
    return table, *refit_weak(curves, table, model, MODEL)


def pulls(table, truth, columns):
    errors = np.sqrt(np.einsum("naa->na", table.covariance))
    return ((table.values - truth) / errors)[:, columns]


def test_one_comes_and_the_other_goes():
    crystals = np.concatenate([np.zeros(30), np.linspace(1, 15, 30), np.full(30, 15.0)])
    agglomerates = np.concatenate([np.full(30, 150.0), np.linspace(150, 20, 30), np.zeros(30)])
    truth = truth_of(crystals, agglomerates)
    first, table, model = fitted(curves_of(truth))
    (others,) = table.others
    assert set(table.flags[:30]) == {"weak"} and set(others[:30]) == {""}
    assert set(table.flags[35:]) == {""}
    assert set(others[35:58]) == {""} and set(others[62:]) == {"vanished"}
    assert np.isnan(first.values[70:, AGGLOMERATES]).all(), "a chunk cannot know the size of what is not there"
    assert np.isfinite(table.values).all() and np.isfinite(model).all()
    gone = pulls(table, truth, [CRYSTALS, 1, AGGLOMERATES])[62:]
    assert np.abs(gone.mean(axis=0)).max() < 0.6
    np.testing.assert_allclose(gone.std(axis=0), 1, atol=0.4)
    early = pulls(table, truth, [CRYSTALS, AGGLOMERATES, 5])[:30]
    assert np.abs(early.mean(axis=0)).max() < 0.6
    both = pulls(table, truth, [CRYSTALS, 1, AGGLOMERATES, 5])[36:58]
    assert np.abs(both.mean(axis=0)).max() < 0.7
    np.testing.assert_allclose(both.std(axis=0), 1, atol=0.45)


def test_a_population_that_is_seen_but_too_weak_does_not_bias_the_other():
    """Crystals of c/σ_c 1 to 3, with the size of the frame that gives it: fitted alone, agglomerates come out wrong."""
    n = 300
    truth = np.concatenate([truth_of(np.full(n, 4.0), np.full(n, 150.0), 2.2), truth_of([15.0], [150.0], 2.2)])
    curves = curves_of(truth, seed=4)
    _, table, _ = fitted(curves)
    assert np.mean([flag in {"weak", "size_held"} for flag in table.flags[:n]]) > 0.8
    found = pulls(table, truth, [AGGLOMERATES, 5])[:n]
    assert np.abs(np.median(found, axis=0)).max() < 0.6
    assert np.sqrt(np.mean(found**2, axis=0)).max() < 1.3
    alone = fit(curves, MODEL, CurveModel.of(replace(SPHERES.alone(1), populations=(WIDER,))))[0]
    wrong = (alone.values[:n, 0] - 150.0) / np.sqrt(alone.covariance[:n, 0, 0])
    assert np.abs(np.median(wrong)) > 10


def test_without_the_second_population_the_first_is_as_if_fitted_alone():
    truth = truth_of(np.linspace(5, 15, 20), np.zeros(20))
    curves = curves_of(truth)
    _, table, _ = fitted(curves)
    alone = CurveModel.of(SPHERES.alone(0))
    one = fit(curves, MODEL, alone)[0]
    np.testing.assert_array_equal(table.values[:, :4], one.values)
    np.testing.assert_array_equal(table.covariance[:, :4, :4], one.covariance)
    assert np.isnan(table.values[:, 4:]).all() and not table.free[:, 4:].any()
    assert set(table.others[0]) == {"weak"}
    crystals, agglomerates = quantify(table, curves, [None, None], None)
    assert np.isfinite(crystals.radius_nm.value).all() and np.isnan(agglomerates.radius_nm.value).all()


@pytest.mark.parametrize("expression", ["0.1 * agglomerates_radius", "crystals_sigma / 2"])
def test_a_tie_of_a_population_that_is_not_there_does_not_matter(expression):
    """Sizes and errors, those by the monitor and what frames share of them, are those of the model without a tie."""
    tied = MODEL.model_copy(update={"tied": {"agglomerates_sigma": expression}})
    curves = replace(curves_of(truth_of(np.full(6, 15.0), np.zeros(6)), common=2e-4), factor_rel=0.01)
    found = []
    for settings in (tied, MODEL):
        table, model = fit(curves, settings, CurveModel.of(settings.spec([FACTOR, FACTOR])))
        table, _ = refit_weak(curves, table, model, settings)
        found.append(quantify(table, curves, [None, None], None, window(curves, settings))[0])
    for one, other in zip(*(quantities.radius_nm for quantities in found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)
    np.testing.assert_allclose(found[0].shared[:, :2], found[1].shared[:, :2], rtol=1e-6)
    assert np.isfinite(found[0].radius_nm.statistical).all() and (found[0].shared[:, :2] > 0).all()


def test_a_second_population_stays_by_the_chi2_of_its_curve_also_where_widths_are_tied():
    """One that is too weak by itself is there if χ² falls by more than 16, counted from the curves."""
    ties = {f"{name}_sigma": f"0.1 * {name}_radius" for name in ("crystals", "agglomerates")}
    tied = MODEL.model_copy(update={"tied": ties})
    model = CurveModel.of(tied.spec([FACTOR, FACTOR]))
    curves = curves_of(truth_of(np.full(120, 0.04), np.full(120, 150.0), 2.6))
    inside = window(curves, tied)
    rows = np.ones(120, dtype=bool)
    both, alone = (fit_rows(curves, rows, inside, one) for one in (model, CurveModel.of(model.alone(1))))
    table, _ = fit(curves, tied, model)
    chi2 = [(((curves.intensity - one.model) / curves.sigma) ** 2).sum(axis=1) for one in (both, alone)]
    weak = both.converged & (ratio(both.values, both.covariance, model, 0) < WEAK)
    kept = np.isfinite(table.values[:, CRYSTALS])
    assert (kept == (chi2[1] - chi2[0] > 16.0))[weak].all()
    near = np.abs(chi2[1] - chi2[0] - 16.0) < 2
    assert (near & weak).sum() >= 6, "the frames can tell 16 from 14 and 18"


def test_what_is_there_is_not_called_weak_where_only_its_size_cannot_be_fitted():
    """Agglomerates that are used up beside strong crystals; what is there is judged by fits at their true size."""
    settings = MODEL.model_copy(
        update={"populations": (MODEL.populations[0].model_copy(update={"sigma": (0.05, 1.0)}), MODEL.populations[1])}
    )
    model, n = CurveModel.of(settings.spec([FACTOR, FACTOR])), 60
    truth = truth_of(np.full(n, 2.0), np.linspace(6, 0.2, n), np.linspace(3.4, 3.6, n))
    truth[:, [2, 6]] = 0.36**2, 0.2**2
    curves = curves_of(truth, 1, sigma=5e-5)
    first, curve = fit(curves, settings, model)
    table, _ = refit_weak(curves, first, curve, settings)
    words, inside = np.array(table.others[0]), window(curves, settings)
    sizes = {2: truth[:, 5], 3: truth[:, 6]}
    known = fit_rows(curves, np.ones(n, dtype=bool), inside, model, held=sizes, start=truth[:, model.nonlinear])
    assert (ratio(known.values, known.covariance, model, 1) >= WEAK).all(), "the agglomerates are in every frame"
    assert set(words) == {"", "weak", "size_held"} and np.count_nonzero(words == "") > 45
    own = ratio(first.values, first.covariance, model, 1)
    assert (own[words == "weak"] < WEAK).all() and np.isfinite(own[words == "weak"]).all()
    assert np.isnan(own[words == "size_held"]).all() and set(table.flags) == {""}
    off = pulls(table, truth, [CRYSTALS, 1, AGGLOMERATES, 5])
    assert np.abs(off[words == ""].mean(axis=0)).max() < 0.5 and np.abs(off[words == "size_held"]).max() < 3
    sizes = quantify(table, curves, [None, None], None)[1]
    assert np.isnan(sizes.radius_nm.value[words != ""]).all()


def test_c_where_the_width_is_below_zero_is_at_the_size_of_another_frame():
    """Widths of s = −0.02 nm² in three frames: what is reported of them is a fit at the size of the nearest other."""
    truth = truth_of(np.full(12, 15.0), np.full(12, 150.0))
    strange = np.arange(4, 7)
    truth[strange, 6] = -0.02
    curves = curves_of(truth, 3)
    first, table, _ = fitted(curves)
    assert negative_variance(first, 1)[strange].all() and not negative_variance(first, 1)[[3, 7]].any()
    assert {table.others[0][k] for k in strange} == {"negative_variance"} and set(table.flags) == {""}
    for k, giver in zip(strange, (3, 3, 7), strict=True):
        np.testing.assert_array_equal(table.values[k, 5:], first.values[giver, 5:])
        rows = np.arange(12) == k
        sizes = {2: first.values[giver, 5:6], 3: first.values[giver, 6:]}
        start = truth[giver][None, SPHERES.nonlinear]
        one = fit_rows(curves, rows, window(curves, MODEL), SPHERES, held=sizes, start=start)
        np.testing.assert_allclose(table.values[k], one.values[0], rtol=1e-5, atol=1e-8)


def test_nothing_is_invented_where_there_is_nothing():
    _, table, model = fitted(curves_of(truth_of(np.zeros(5), np.zeros(5))))
    assert np.isnan(table.values).all() and np.isnan(model).all()
    assert set(table.flags) | set(table.others[0]) <= {"weak", "not_converged"}


def test_the_chunk_does_not_matter():
    truth = truth_of(np.linspace(0, 15, 50), np.linspace(150, 0, 50))
    curves = curves_of(truth)
    whole, _ = fit(curves, MODEL, SPHERES)
    for start, stop in ((0, 1), (7, 20), (49, 50)):
        part, _ = fit(curves.select(start, stop), MODEL, SPHERES)
        np.testing.assert_array_equal(part.values, whole.values[start:stop])
        np.testing.assert_array_equal(part.covariance, whole.covariance[start:stop])


def test_a_bad_frame_stays_without_a_word_of_the_fit():
    curves = curves_of(truth_of(np.full(6, 15.0), np.full(6, 150.0)))
    curves.intensity[3] = np.nan
    curves = replace(curves, problems=("", "", "", "nan: all", "", ""))
    _, table, _ = fitted(curves)
    assert (table.flags, table.others[0]) == (("",) * 6, ("",) * 6)
    assert np.isnan(table.values[3]).all()


@pytest.mark.slow
def test_the_shared_part_of_the_errors_is_what_a_mean_over_frames_keeps():
    """The means of 20 frames scatter from series to series as the shared part says, not as σ/√20."""
    truth, means, shares, single = truth_of(np.full(20, 15.0), np.full(20, 150.0)), [], [], []
    for seed in range(160):
        curves = curves_of(truth, seed, common=4e-4)
        table, _ = fit(curves, MODEL, SPHERES)
        assert good(table, 0).all() and good(table, 1).all()
        table = replace(table, flags=("ok",) * 20, others=(("ok",) * 20,))
        crystals, agglomerates = quantify(table, curves, [None, None], None, window(curves, MODEL))
        three = (crystals.radius_nm, crystals.sigma_nm, agglomerates.radius_nm)
        means.append([estimate.value.mean() for estimate in three])
        shares.append([*crystals.shared[:, :2].mean(axis=0), agglomerates.shared[:, 0].mean()])
        single.append([estimate.statistical.mean() for estimate in three])
    scatter, shared = np.std(means, axis=0), np.mean(shares, axis=0)
    own = np.sqrt(np.mean(single, axis=0) ** 2 - shared**2) / np.sqrt(20)
    np.testing.assert_allclose(scatter, np.hypot(shared, own), rtol=0.17)  # three standard errors of a scatter
    assert (shared > 2 * own).all()
