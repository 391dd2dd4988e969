"""Which frames report a size, and what the others get: rules of ADR 5; truth by simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from saxs_pipeline.model_config import Model
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.science.formfactors import gaussian_spheres, intensity_factor
from saxs_pipeline.stages import fit as stage
from saxs_pipeline.stages.quantify import quantify
from saxs_pipeline.stages.refit import refit_weak
from saxs_pipeline.types import Curves

Q = np.linspace(0.15, 5, 200)
FACTOR = intensity_factor(35.2e-6)
SIGMA = 2e-4
MODEL = Model.model_construct(q_min=0.1, q_max=5.0, radius=(0.5, 4.0), sigma=(0.03, 0.6))
SPHERES = CurveModel.of(MODEL.spec([FACTOR]))
C, R = 0, 1


def curves(c, radius=1.6, width=0.15, seed=0, problems=None, sigma=SIGMA):
    """Frames of concentration c (n,) with noise."""
    c = np.asarray(c, dtype=float)
    n = len(c)
    shape = gaussian_spheres(Q, np.full(n, radius), np.full(n, width**2))[0]
    noise = np.random.default_rng(seed).normal(0, sigma, (n, len(Q)))
    return Curves(
        q_nm=Q,
        intensity=FACTOR * c[:, None] * shape + noise,
        statistical=np.full((n, len(Q)), sigma),
        shared=np.zeros(len(Q)),
        counts=np.ones((n, len(Q))),
        index=np.arange(n),
        start_s=np.arange(n, dtype=float),
        exposure_s=np.ones(n),
        problems=tuple(problems or [""] * n),
        notes=("",) * n,
        dark_sigma=np.zeros(len(Q)),
        dark_factor=np.zeros(n),
        taken_off=np.zeros(len(Q)),
    )


def fitted(frames):
    table, model = stage.fit(frames, MODEL, SPHERES)
    return table, *refit_weak(frames, table, model, MODEL)


def test_weak_frames_get_c_at_the_size_of_the_first_good_frame():
    frames = curves([0.0] * 20 + [0.3] * 20 + [20.0] * 5)
    first_pass, table, model = fitted(frames)
    assert all(flag == "weak" for flag in table.flags[:20])
    assert table.flags[40:] == ("",) * 5
    np.testing.assert_array_equal(table.values[40:], first_pass.values[40:])
    assert (table.values[:20, R] == table.values[40, R]).all()
    pulls = table.values[:20, C] / np.sqrt(table.covariance[:20, C, C])
    assert abs(pulls.mean()) < 3 / np.sqrt(20)
    assert pulls.std() == pytest.approx(1, abs=0.5)
    assert np.isfinite(model[:20]).all()


def test_frames_with_neither_power_law_nor_interference_are_fitted_at_ends_of_both_ranges():
    """No exponent is right where d = 0, and the volume fraction is that of the lower end."""
    model, truth = replace(SPHERES, power_law=(3.0, 4.5), volume_fraction=(1e-3, 0.3)), np.zeros((8, 7))
    truth[:, [C, R, 2, 5, 6]] = 20.0, 2.2, 0.15**2, 3.0, 1e-3
    frames = curves(np.zeros(8))
    table, _ = stage.fit(replace(frames, intensity=frames.intensity + model.curve(Q, truth)), MODEL, model)
    assert table.converged.all()
    neither = ~table.free[:, 5:].any(axis=1)
    assert neither.sum() >= 3
    np.testing.assert_allclose(table.values[neither, 6], 1e-3)
    errors = np.sqrt(np.einsum("naa->na", table.covariance))[neither, :3]
    assert np.abs((table.values - truth)[neither, :3] / errors).max() < 4


def test_the_uncertainty_of_the_held_size_is_in_the_error_of_c():
    """Many realisations: c of weak frames scatters around the truth as statistical and held-size errors say."""
    pulls = []
    for seed in range(150):
        frames = curves([0.35] * 3 + [3.0], seed=seed)
        _, table, _ = fitted(frames)
        if table.flags[3] or table.flags[0] != "weak":
            continue
        variance = table.covariance[0, C, C]
        pulls.append((table.values[0, C] - 0.35) / np.sqrt(variance))
    assert len(pulls) > 100
    assert np.std(pulls) == pytest.approx(1, abs=0.3)
    assert abs(np.mean(pulls)) < 0.5


def test_the_monitor_is_in_the_errors_of_all_frames_and_of_none_of_their_neighbours():
    """Readings with 3 % errors: c scatters as stated, of frames with a size and of weak ones; chunks change no bit."""
    rng, c, relative = np.random.default_rng(5), np.array([0.35] * 400 + [20.0] * 400), 0.03
    water = 1.6e-3 + 2e-3 * np.exp(-Q)
    frames = curves(c, seed=6)
    frames = replace(
        frames,
        intensity=(frames.intensity + water) * (1 + relative * rng.standard_normal((len(c), 1))) - water,
        taken_off=water,
        factor_rel=relative,
    )
    first, table, _ = fitted(frames)
    assert all(flag == "weak" for flag in table.flags[:400]) and not any(table.flags[400:])
    error = np.sqrt(table.covariance[:, C, C])
    pulls = (table.values[:, C] - c) / error
    for rows in (slice(400), slice(400, 800)):
        assert pulls[rows].std() == pytest.approx(1, abs=0.11)  # three standard errors
    assert np.median(error[400:]) > 0.029 * 20
    known = fitted(replace(frames, factor_rel=0.0))[1]
    np.testing.assert_array_equal(table.values[400:], known.values[400:])
    assert np.median(np.sqrt(known.covariance[:400, C, C]) / error[:400]) < 0.9
    for start, stop in ((0, 1), (397, 409), (799, 800)):
        alone, _ = stage.fit(frames.select(start, stop), MODEL, SPHERES)
        np.testing.assert_array_equal(alone.covariance, first.covariance[start:stop])


def test_sizes_of_weak_frames_are_not_reported():
    frames = curves([0.2] * 3 + [20.0])
    _, table, _ = fitted(frames)
    (result,) = quantify(table, frames, [None], None)
    assert np.isnan(result.radius_nm.value[:3]).all()
    assert np.isfinite(result.radius_nm.value[3])
    assert np.isnan(result.covariance[:3, 0]).all()
    assert np.isfinite(result.covariance[:3, 2, 2]).all()


def test_without_any_good_frame_nothing_is_invented():
    _, table, model = fitted(curves([0.0] * 4))
    assert np.isnan(table.values).all()
    assert np.isnan(model).all()
    assert set(table.flags) <= {"weak", "not_converged"}


def test_a_start_range_beside_the_truth_is_not_called_weak():
    frames = curves([20.0] * 3, radius=2.2)
    elsewhere = MODEL.model_copy(update={"radius": (6.0, 9.0)})
    table, model = stage.fit(frames, elsewhere, CurveModel.of(elsewhere.spec([FACTOR])))
    table, _ = refit_weak(frames, table, model, elsewhere)
    assert set(table.flags) == {"not_converged"}


def test_a_bad_frame_is_not_fitted():
    frames = curves([20.0] * 3, problems=["", "nan: 3 pixels", ""])
    frames.intensity[1] = np.nan
    _, table, _ = fitted(frames)
    assert np.isnan(table.values[1]).all()
    assert table.flags[1] == ""  # the problem itself is the flag


def test_a_strong_curve_of_another_shape_says_so():
    frames = curves([20.0] * 2)
    frames.intensity[1] = 3e-2 * Q**-2.5  # no sphere at all
    first_pass, table, _ = fitted(frames)
    assert stage.poor(first_pass)[1] or table.flags[1] in {"not_converged", "negative_variance"}
    assert not stage.poor(first_pass)[0]


def test_a_width_significantly_below_zero_is_no_size():
    first_pass, _, _ = fitted(curves([20.0] * 400, width=0.0, sigma=2e-3))
    negative = stage.negative_variance(first_pass)
    assert 0.005 < negative.mean() < 0.12  # 2.3 % lie beyond two standard errors, more as those shrink with s
    assert not (stage.good(first_pass) & negative).any()
