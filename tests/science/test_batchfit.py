"""The batched fit against lmfit, simulated truth, scaling laws, and itself in other company."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saxs_pipeline.science.batchfit import BatchFit, fit_frames
from saxs_pipeline.science.formfactors import gaussian_spheres, intensity_factor, sphere
from saxs_pipeline.types import BadInput
from tests.spheres import gaussian_model

FACTOR = intensity_factor(35.2e-6)
MODEL = gaussian_model(FACTOR)
FIELDS = ("values", "covariance", "free", "chi2_red", "n_points", "converged", "model")
Q = np.linspace(0.15, 5.0, 200)


def curves(c, radius, sigma, background, q=Q):
    c, radius, sigma, background = np.broadcast_arrays(*np.atleast_1d(c, radius, sigma, background))
    return c[:, None] * FACTOR * gaussian_spheres(q, radius, sigma**2)[0] + background[:, None]


def measured(truth, seed=0, exposure=3e5):
    """Gaussian noise of the size that photon counting at this exposure has, with its true σ."""
    sigma = np.sqrt((truth + 5e-3) / (exposure * Q))
    return truth + sigma * np.random.default_rng(seed).standard_normal(truth.shape), sigma


def growing(n, seed=0):
    """A run like the paper's: r 1.5 → 2.22 nm, σ 0.18 → 0.13 nm, c → 25 µmol/L."""
    t = np.linspace(0, 1, n)
    truth = np.stack([25 * (1 - 0.97 * np.exp(-15 * t)), 1.5 + 0.72 * np.sqrt(t), (0.18 - 0.05 * t) ** 2, 2e-3 + 0 * t])
    intensity, sigma = measured(curves(truth[0], truth[1], np.sqrt(truth[2]), truth[3]), seed)
    return truth.T, intensity, sigma


def errors(fit: BatchFit):
    return np.sqrt(np.diagonal(fit.covariance, axis1=1, axis2=2))


def test_exact_curves_are_recovered():
    truth = np.array([[25, 2.22, 0.13**2, 1e-3], [0.5, 1.2, 0.2**2, 0.0], [8.0, 4.0, 0.1**2, -2e-3]])
    intensity = curves(truth[:, 0], truth[:, 1], np.sqrt(truth[:, 2]), truth[:, 3])
    fit = fit_frames(Q, intensity, np.full_like(intensity, 1e-4), MODEL)
    assert fit.converged.all()
    np.testing.assert_allclose(fit.values, truth, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(fit.model, intensity, rtol=1e-6, atol=1e-9)
    assert (fit.n_points == 200).all()
    assert (fit.chi2_red < 1e-6).all()


def lmfit_direct_sum(intensity, sigma, start):
    """The paper's way: radii in steps of 0.02 nm, one curve at a time."""
    import lmfit

    def model(q, c, radius, width, background):
        r = np.arange(0.02, 6.0, 0.02)
        weight = np.exp(-0.5 * ((r - radius) / width) ** 2)
        return c * FACTOR * (weight @ form) / weight.sum() + background

    form = sphere(Q, np.arange(0.02, 6.0, 0.02))
    return lmfit.Model(model).fit(
        intensity,
        q=Q,
        **dict(zip(("c", "radius", "width", "background"), start, strict=True)),
        weights=1 / sigma,
        scale_covar=False,
        fit_kws={"xtol": 1e-11, "ftol": 1e-11},
    )


def test_equals_lmfit_with_the_direct_sum():
    truth, intensity, sigma = growing(12, seed=3)
    fit = fit_frames(Q, intensity, sigma, MODEL)
    for k, (c, radius, variance, background) in enumerate(truth):
        other = lmfit_direct_sum(intensity[k], sigma[k], (c, radius, np.sqrt(variance), background))
        value = np.array([other.params[p].value for p in ("c", "radius", "width", "background")])
        error = np.array([other.params[p].stderr for p in ("c", "radius", "width", "background")])
        chain = np.array([1, 1, 2 * value[2], 1])
        value[2] **= 2
        np.testing.assert_allclose((fit.values[k] - value) / (error * chain), 0, atol=2e-3)
        np.testing.assert_allclose(errors(fit)[k], error * chain, rtol=5e-3)
        ours = fit.covariance[k] / np.outer(errors(fit)[k], errors(fit)[k])
        theirs = other.covar / np.sqrt(np.outer(np.diag(other.covar), np.diag(other.covar)))
        np.testing.assert_allclose(ours, theirs, atol=5e-3)
        assert fit.chi2_red[k] == pytest.approx(other.redchi, rel=1e-5)


def test_pulls_and_coverage():
    n = 4000
    truth = np.array([5.0, 2.0, 0.15**2, 2e-3])
    exact = np.repeat(curves(5.0, 2.0, 0.15, 2e-3), n, axis=0)
    intensity, sigma = measured(exact, seed=11, exposure=1e6)
    fit = fit_frames(Q, intensity, sigma, MODEL)
    assert fit.converged.all()
    pulls = (fit.values - truth) / errors(fit)
    np.testing.assert_allclose(pulls.mean(axis=0), 0, atol=4 / np.sqrt(n) + 0.02)
    np.testing.assert_allclose(pulls.std(axis=0), 1, atol=4 / np.sqrt(2 * n))
    for width, share in ((1, 0.6827), (2, 0.9545)):
        expected = 4 * np.sqrt(share * (1 - share) / n)
        np.testing.assert_allclose((np.abs(pulls) < width).mean(axis=0), share, atol=expected)
    assert fit.chi2_red.mean() == pytest.approx(1, abs=4 * np.sqrt(2 / 196 / n))
    # correlations are as stated, too: the Mahalanobis distance is χ² with 4 degrees of freedom
    shift = fit.values - truth
    distance = np.einsum("ni,nij,nj->n", shift, np.linalg.inv(fit.covariance), shift)
    assert distance.mean() == pytest.approx(4, abs=4 * np.sqrt(8 / n) + 0.05)


def test_radii_over_the_whole_range_find_their_minimum():
    rng = np.random.default_rng(5)
    radius = rng.uniform(0.8, 4.8, 600)
    width = np.minimum(radius * rng.uniform(0.02, 0.2, 600), 0.55)
    exact = curves(20 * (2 / radius) ** 6, radius, width, 1e-3)
    sigma = 0.01 * exact
    fit = fit_frames(Q, exact + sigma * rng.standard_normal(exact.shape), sigma, MODEL)
    assert fit.converged.all()
    assert (fit.chi2_red < 1.6).all()
    assert (np.abs(fit.values[:, 1] - radius) < 6 * errors(fit)[:, 1]).all()


def test_alone_or_in_company_every_bit_is_the_same():
    _, intensity, sigma = growing(300)
    intensity[17] = np.nan
    together = fit_frames(Q, intensity, sigma, MODEL)
    for k in (0, 1, 16, 17, 63, 64, 299):
        alone = fit_frames(Q, intensity[k : k + 1], sigma[k : k + 1], MODEL)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(together, name)[k])


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(6, 211), st.sampled_from([1, 5, 64, 130]))
def test_no_frame_depends_on_chunk_order_or_neighbours(data, n_q, n):
    q = np.linspace(0.1, 5.0, n_q)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    exact = curves(rng.uniform(0.3, 30, n), rng.uniform(0.7, 4, n), rng.uniform(0.0, 0.3, n), 1e-3, q)
    sigma = 0.02 * exact + 1e-4
    intensity = exact + sigma * rng.standard_normal(exact.shape)
    intensity[rng.random(exact.shape) < 0.02] = np.nan
    order = rng.permutation(n)[: rng.integers(1, n + 1)]
    cuts = np.sort(rng.integers(0, order.size + 1, 2))

    def search(q, intensity, sigma):
        return fit_frames(q, intensity, sigma, MODEL)

    def at_a_size(q, intensity, sigma):
        return amplitudes(intensity, sigma, 2.0, 0.02, q)

    for fit in (search, at_a_size):
        whole = fit(q, intensity, sigma)
        for part in np.split(order, cuts):
            chunk = fit(q, intensity[part], sigma[part])
            for name in FIELDS:
                np.testing.assert_array_equal(getattr(chunk, name), getattr(whole, name)[part])


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_intensity_scales_c_and_b_only(factor, seed):
    _, intensity, sigma = growing(4, seed)
    one = fit_frames(Q, intensity, sigma, MODEL)
    other = fit_frames(Q, factor * intensity, factor * sigma, MODEL)
    scale = np.array([factor, 1, 1, factor])
    assert (np.abs(other.values / scale - one.values) < 1e-5 * errors(one)).all()
    np.testing.assert_allclose(errors(other) / scale, errors(one), rtol=1e-6)
    np.testing.assert_allclose(other.chi2_red, one.chi2_red, rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.2, 20), st.integers(0, 1000))
def test_lengths_scale_radius_and_concentration(length, seed):
    _, intensity, sigma = growing(4, seed)
    one = fit_frames(Q, intensity, sigma, MODEL)
    scaled = gaussian_model(FACTOR, (0.5 * length, 5 * length), (0.03 * length, 0.6 * length))
    other = fit_frames(Q / length, intensity, sigma, scaled)
    scale = np.array([length**-6, length, length**2, 1])
    assert (np.abs(other.values / scale - one.values) < 1e-5 * errors(one)).all()


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 10), st.integers(0, 1000))
def test_sigma_scales_the_errors_and_chi2_only(factor, seed):
    _, intensity, sigma = growing(4, seed)
    one = fit_frames(Q, intensity, sigma, MODEL)
    other = fit_frames(Q, intensity, factor * sigma, MODEL)
    # each stops at a step of 0.001 of its own standard errors; frames too weak to report a size converge slower
    distance = np.abs(other.values - one.values) / (1e-3 * np.maximum(1, factor) * errors(one))
    reported = np.minimum(1, 1 / factor) * one.values[:, 0] >= 5 * errors(one)[:, 0]
    assert (distance[reported] < 1).all()
    assert (distance < 5).all()
    np.testing.assert_allclose(errors(other), factor * errors(one), rtol=1e-2)
    np.testing.assert_allclose(other.chi2_red * factor**2, one.chi2_red, rtol=1e-6)


def test_points_without_measurement_have_no_weight():
    _, intensity, sigma = growing(5)
    intensity, sigma = np.repeat(intensity[3:4], 5, axis=0), np.repeat(sigma[3:4], 5, axis=0)
    intensity[0, 10:40] = np.nan
    intensity[1, 10:40] = np.inf
    sigma[2, 10:40] = 0.0
    sigma[3, 10:40] = np.nan
    sigma[4, 10:40] = -1.0
    intensity[2:, 10:40] = 1e6
    fit = fit_frames(Q, intensity, sigma, MODEL)
    keep = np.r_[0:10, 40:200]
    without = fit_frames(Q[keep], intensity[:1, keep], sigma[:1, keep], MODEL)
    assert (fit.n_points == 170).all()
    assert (np.abs(fit.values - without.values) < 1e-4 * errors(without)).all()
    np.testing.assert_allclose(fit.chi2_red, without.chi2_red[0], rtol=1e-9)
    assert np.isfinite(fit.model).all()


def test_hopeless_frames_are_not_converged_and_harm_nobody():
    _, intensity, sigma = growing(8)
    clean = fit_frames(Q, intensity, sigma, MODEL)
    intensity[0] = np.nan
    sigma[1] = 0.0
    intensity[2, 3:] = np.nan  # three points
    intensity[3] = 1e-3  # constant, no noise
    intensity[4] = 0.0
    intensity[5] = 1e300
    fit = fit_frames(Q, intensity, sigma, MODEL)
    assert fit.n_points.tolist() == [0, 0, 3] + 5 * [200]
    assert not fit.converged[:3].any()
    assert np.isnan(fit.values[:3]).all()
    assert np.isnan(fit.covariance[:3]).all()
    assert np.isnan(fit.chi2_red[:3]).all()
    assert np.isnan(fit.model[:3]).all()
    for k in (3, 4, 5):  # nothing a caller could take for crystals
        assert not fit.converged[k] or abs(fit.values[k, 0]) < 5 * errors(fit)[k, 0]
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(fit, name)[6:], getattr(clean, name)[6:])


def test_radius_outside_the_range_is_not_a_result():
    exact = curves(5.0, [2.0, 3.4], 0.2, 1e-3)
    fit = fit_frames(Q, exact, 0.01 * exact, gaussian_model(FACTOR, (1.0, 3.0)))
    assert fit.converged.tolist() == [True, False]
    assert fit.values[1, 1] > 3.0


def test_pure_noise_is_not_mistaken_for_crystals():
    exact = np.full((500, Q.size), 2e-3)
    intensity, sigma = measured(exact, seed=8)
    fit = fit_frames(Q, intensity, sigma, MODEL)
    significant = fit.converged & (fit.values[:, 0] > 5 * errors(fit)[:, 0])
    assert significant.mean() < 0.01


def amplitudes(intensity, sigma, radius, variance, q=Q):
    """Fits of c and b at a size that is given."""
    n = len(intensity)
    return fit_frames(q, intensity, sigma, MODEL, held={0: np.full(n, radius), 1: np.full(n, variance)})


def test_amplitudes_of_weak_frames_are_unbiased():
    n = 3000
    exact = np.repeat(curves(0.05, 1.5, 0.18, 2e-3), n, axis=0)
    intensity, sigma = measured(exact, seed=21)
    fit = amplitudes(intensity, sigma, 1.5, 0.18**2)
    assert fit.converged.all()
    assert (fit.values[:, 1:3] == [1.5, 0.18**2]).all()
    assert (fit.covariance[:, 1:3] == 0).all()
    assert (fit.covariance[:, :, 1:3] == 0).all()
    assert (fit.free == [True, False, False, True]).all()
    pulls = (fit.values[:, [0, 3]] - [0.05, 2e-3]) / errors(fit)[:, [0, 3]]
    np.testing.assert_allclose(pulls.mean(axis=0), 0, atol=4 / np.sqrt(n))
    np.testing.assert_allclose(pulls.std(axis=0), 1, atol=4 / np.sqrt(2 * n))
    assert np.corrcoef(pulls.T)[0, 1] == pytest.approx(
        np.mean(fit.covariance[:, 0, 3] / np.prod(errors(fit)[:, [0, 3]], axis=1)), abs=4 / np.sqrt(n)
    )
    assert fit.chi2_red.mean() == pytest.approx(1, abs=4 * np.sqrt(2 / 198 / n))


def test_amplitudes_equal_linear_regression():
    _, intensity, sigma = growing(6)
    fit = amplitudes(intensity, sigma, 1.8, 0.02)
    design = np.stack([FACTOR * gaussian_spheres(Q, np.array([1.8]), np.array([0.02]))[0][0], np.ones_like(Q)], axis=1)
    for k in range(6):
        best, *_ = np.linalg.lstsq(design / sigma[k][:, None], intensity[k] / sigma[k], rcond=None)
        inverse = np.linalg.inv((design / sigma[k][:, None] ** 2).T @ design)
        np.testing.assert_allclose(fit.values[k, [0, 3]], best, rtol=1e-9)
        np.testing.assert_allclose(fit.covariance[k][np.ix_([0, 3], [0, 3])], inverse, rtol=1e-9)


def test_amplitudes_of_hopeless_frames():
    _, intensity, sigma = growing(3)
    intensity[0] = np.nan
    intensity[1, 4:] = np.nan
    fit = amplitudes(intensity, sigma, 1.8, 0.02)
    assert fit.converged.tolist() == [False, False, True]
    assert np.isnan(fit.values[:2]).all()


def test_no_frames_is_an_empty_fit():
    fit = fit_frames(Q, np.empty((0, 200)), np.empty((0, 200)), MODEL)
    assert fit.values.shape == (0, 4)
    assert fit.model.shape == (0, 200)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"radius_nm": (5.0, 0.5)}, "radius range"),
        ({"radius_nm": (0.0, 5.0)}, "radius range"),
        ({"sigma_nm": (0.1, float("inf"))}, "sigma_r range"),
        ({"factor": 0.0}, "contrast"),
        ({"factor": float("nan")}, "contrast"),
    ],
)
def test_senseless_ranges_are_refused(changes, message):
    _, intensity, sigma = growing(1)
    with pytest.raises(BadInput, match=message):
        fit_frames(Q, intensity, sigma, gaussian_model(**({"factor": FACTOR} | changes)))


def test_senseless_arrays_are_refused():
    _, intensity, sigma = growing(2)
    with pytest.raises(BadInput, match="frames × bins"):
        fit_frames(Q[:-1], intensity, sigma, MODEL)
    with pytest.raises(BadInput, match="frames × bins"):
        fit_frames(Q, intensity, sigma[:1], MODEL)
    with pytest.raises(BadInput, match="q must be finite"):
        fit_frames(np.where(Q > 4, np.nan, Q), intensity, sigma, MODEL)
