"""Covariance between frames: against refits of changed curves, and against the scatter of many simulated series."""

import numpy as np
import pytest

from saxs_pipeline.science import batchfit
from saxs_pipeline.science.formfactors import gaussian_spheres, intensity_factor
from saxs_pipeline.science.joint import (
    CurveErrors,
    JointSeries,
    expected_covariance,
    factor_covariance,
    independent_covariance,
    joint_covariance,
    shared_response,
)
from saxs_pipeline.types import BadInput
from tests.spheres import gaussian_model

Q = np.linspace(0.15, 5, 120)
FACTOR = intensity_factor(35.2e-6)
TRUTH = np.array([[6.0, 1.6, 0.17**2, 2e-4], [15.0, 1.9, 0.15**2, 0.0], [25.0, 2.2, 0.13**2, -1e-4]])
STATISTICAL = 4e-5 * np.array([1.0, 0.8, 1.3])[:, None] / np.sqrt(Q)
SHARED = 5e-5 / np.sqrt(Q)
MODEL = gaussian_model(FACTOR, (0.5, 4.0))
FREE = np.ones((3, 4), dtype=bool)
SIGMA = np.hypot(STATISTICAL, SHARED)


def model(values=TRUTH):
    form = gaussian_spheres(Q, values[:, 1], values[:, 2])[0]
    return FACTOR * values[:, :1] * form + values[:, 3:]


def fit(intensity, sigma=SIGMA):
    return batchfit.fit_frames(Q, intensity, sigma, MODEL)


def errors(sigma=SIGMA, common=SHARED, *, q=Q, by_factor=0.0, by_background=0.0):
    whole = [np.broadcast_to(part, sigma.shape) for part in (common, by_factor)]
    return CurveErrors(q, sigma, *whole, np.broadcast_to(by_background, q.shape))


def response(sigma=SIGMA):
    return shared_response(errors(sigma), TRUTH, MODEL, FREE)[:, :, :-1]


def test_response_equals_refits_of_changed_curves():
    exact = model()
    for k in (3, 17, 40, 90):
        step = 0.05 * SHARED[k] * (np.arange(Q.size) == k)
        difference = fit(exact + step).values - fit(exact - step).values
        expected = difference[:, :3] / 0.1
        size = np.abs(response()).max(axis=2)
        np.testing.assert_allclose(response()[:, :, k] / size, expected / size, atol=2e-4)


def test_masked_points_do_not_respond():
    sigma = SIGMA.copy()
    sigma[1, 10:20] = np.nan
    changed = response(sigma)
    assert (changed[1, :, 10:20] == 0).all()
    np.testing.assert_array_equal(changed[[0, 2]], response()[[0, 2]])
    without = np.r_[0:10, 20 : Q.size]
    alone = shared_response(errors(SIGMA[1:2, without], SHARED[without], q=Q[without]), TRUTH[1:2], MODEL, FREE[1:2])
    np.testing.assert_allclose(changed[1][:, without], alone[0][:, :-1], rtol=1e-9)


def test_own_covariance_is_that_of_the_fit():
    """N⁻¹ = G diag(σ²) Gᵀ: with all of σ shared, nothing is left to the frame alone."""
    fitted = fit(model())
    whole = shared_response(errors(common=SIGMA), TRUTH, MODEL, FREE)
    scale = np.sqrt(np.diagonal(fitted.covariance[:, :3, :3], axis1=1, axis2=2))
    unit = scale[:, :, None] * scale[:, None, :]
    np.testing.assert_allclose(
        np.einsum("nim,njm->nij", whole, whole) / unit, fitted.covariance[:, :3, :3] / unit, atol=1e-6
    )


def test_expected_covariance_is_that_of_the_fits():
    fitted = fit(model()).covariance[:, :3, :3]
    expected = expected_covariance(errors(), TRUTH, MODEL, FREE)
    scale = np.sqrt(np.diagonal(fitted, axis1=1, axis2=2))
    np.testing.assert_allclose(
        expected / scale[:, :, None] / scale[:, None, :], fitted / scale[:, :, None] / scale[:, None, :], atol=1e-6
    )
    masked = np.where(np.arange(Q.size) % 3 == 0, np.nan, SIGMA)
    keep = np.arange(Q.size) % 3 != 0
    np.testing.assert_allclose(
        expected_covariance(errors(masked), TRUTH, MODEL, FREE),
        expected_covariance(errors(SIGMA[:, keep], SHARED[keep], q=Q[keep]), TRUTH, MODEL, FREE),
        rtol=1e-9,
    )


def test_covariance_between_frames_equals_that_of_many_simulated_series():
    rng, n = np.random.default_rng(11), 2500
    common = SHARED * rng.standard_normal((n, 1, Q.size))
    noise = STATISTICAL * rng.standard_normal((n, 3, Q.size))
    fitted = fit((model() + common + noise).reshape(-1, Q.size), np.tile(SIGMA, (n, 1)))
    assert fitted.converged.all()
    samples = fitted.values[:, :3].reshape(n, 9)
    expected = joint_covariance(fit(model()).covariance[:, :3, :3], response())
    variance = np.diag(expected)
    error = np.sqrt((np.outer(variance, variance) + expected**2) / n)  # of a sample covariance (Wishart)
    z = (np.cov(samples.T) - expected) / error
    assert np.abs(z).max() < 4
    assert np.abs(expected / error)[:3, 6:].max() > 7  # the simulation can tell it from none


def test_factors_of_whole_curves_scatter_the_fits_as_stated():
    """Monitor readings, each frame's own, and the background's factor: covariance of many simulated series."""
    rng, n = np.random.default_rng(12), 2500
    background = 2e-3 / Q
    by = {"by_factor": 0.01 * (model() + background), "by_background": 0.004 * background}
    curves = model() + STATISTICAL * rng.standard_normal((n, 3, Q.size))
    curves += by["by_factor"] * rng.standard_normal((n, 3, 1)) + by["by_background"] * rng.standard_normal((n, 1, 1))
    fitted = fit(curves.reshape(-1, Q.size), np.tile(STATISTICAL, (n, 1)))
    assert fitted.converged.all()
    known = errors(STATISTICAL, 0.0, **by)
    expected = joint_covariance(
        expected_covariance(known, TRUTH, MODEL, FREE), shared_response(known, TRUTH, MODEL, FREE)
    )
    alone = fit(model(), STATISTICAL).covariance + factor_covariance(known, TRUTH, MODEL, FREE)
    np.testing.assert_allclose(alone[1, :3, :3], expected[3:6, 3:6], rtol=1e-5, atol=1e-9)
    variance = np.diag(expected)
    error = np.sqrt((np.outer(variance, variance) + expected**2) / n)  # of a sample covariance (Wishart)
    assert np.abs((np.cov(fitted.values[:, :3].reshape(n, 9).T) - expected) / error).max() < 4
    without = joint_covariance(expected_covariance(errors(STATISTICAL, 0.0), TRUTH, MODEL, FREE), 0 * response())
    assert (variance > 1.5 * np.diag(without)).sum() > 3, "the simulation can tell them from none"


def test_factors_with_the_size_held_move_c_and_b_only():
    """A curve that moves by a constant moves b by it, and nothing else; a frame without a fit gets nothing."""
    values = np.vstack([TRUTH, [np.nan] * 4])
    held = np.tile([True, False, False, True], (4, 1))
    added = factor_covariance(errors(np.vstack([SIGMA, SIGMA[:1]]), 0.0, by_factor=0.01), values, MODEL, held)
    assert (added[:3, [1, 2]] == 0).all() and (added[3] == 0).all()
    np.testing.assert_allclose(added[:3, 0, 0], 0.0, atol=1e-12)
    np.testing.assert_allclose(added[:3, 3, 3], 1e-4)


def test_joint_covariance_is_positive_definite_and_keeps_each_frame():
    covariance = fit(model()).covariance[:, :3, :3]
    joint = joint_covariance(covariance, response())
    np.linalg.cholesky(joint)
    np.testing.assert_allclose(joint, joint.T, rtol=1e-9)
    for k in range(3):
        block = slice(3 * k, 3 * k + 3)
        np.testing.assert_allclose(joint[block, block], covariance[k], rtol=1e-9)
    np.testing.assert_allclose(joint[:3, 3:6], response()[0] @ response()[1].T, rtol=1e-9)


def test_a_shared_part_as_large_as_everything_is_still_positive_definite():
    whole = shared_response(errors(common=SIGMA), TRUTH, MODEL, FREE)
    joint = joint_covariance(np.einsum("nim,njm->nij", whole, whole), whole)
    assert (np.linalg.eigvalsh(joint / np.sqrt(np.outer(np.diag(joint), np.diag(joint)))) > 0).all()


def test_averages_are_linear_and_do_not_shrink_the_shared_part():
    rng = np.random.default_rng(2)
    rows = rng.integers(0, 3, 7)
    series = JointSeries(
        np.arange(7.0), TRUTH[rows, :3], fit(model()).covariance[rows, :3, :3], response()[rows]
    )  # fmt: skip
    weight, starts = rng.uniform(0.5, 2, 7), np.array([0, 2, 3])
    matrix = np.zeros((3, 7))
    for k, part in enumerate((slice(0, 2), slice(2, 3), slice(3, 7))):
        matrix[k, part] = weight[part] / weight[part].sum()
    mean = series.averaged(starts, weight)
    np.testing.assert_allclose(mean.values, matrix @ series.values)
    np.testing.assert_allclose(mean.time_s, matrix @ series.time_s)
    big = np.kron(matrix, np.eye(3))
    expected = big @ series.joint() @ big.T
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(mean.joint() / scale, expected / scale, atol=1e-9)
    many = JointSeries(
        *(
            np.repeat(part[:1], 4000, axis=0)
            for part in (series.time_s, series.values, series.covariance, series.response)
        )
    )
    average = many.averaged(np.array([0]), np.ones(4000)).covariance[0]
    shared = series.response[0] @ series.response[0].T
    own = independent_covariance(series.covariance[:1], series.response[:1])[0]
    np.testing.assert_allclose(average, shared + own / 4000, rtol=1e-9)


def test_shapes_that_do_not_match_are_refused():
    with pytest.raises(BadInput, match="do not match"):
        joint_covariance(np.zeros((2, 3, 3)), np.zeros((3, 3, 5)))
