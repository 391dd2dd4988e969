"""Build-up laws: the printed equations, the paper's number, and errors that hold in many simulated series."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saxs_pipeline.science.buildup import (
    Delay,
    exponential,
    exponential_t98,
    fails,
    fit_delayed_second_order,
    fit_exponential,
    fit_second_order,
    second_order,
    second_order_t98,
    share,
    with_scatter,
)
from saxs_pipeline.science.leastsquares import Points, linear_fit, whiten
from saxs_pipeline.types import BadInput

TIME = np.geomspace(1.0, 3000.0, 60)


def correlated(size, error=0.01, common=0.02):
    """Covariance of points with errors of their own and a common one that fades."""
    shared = common * np.exp(-np.arange(size) / 30.0)
    return error**2 * np.eye(size) + np.outer(shared, shared)


def points(value, covariance=None, rng=None):
    covariance = correlated(len(value)) if covariance is None else covariance
    noise = 0 if rng is None else np.linalg.cholesky(covariance) @ rng.standard_normal(len(value))
    return Points(TIME[: len(value)], value + noise, covariance)


@pytest.mark.parametrize("beta", [1.001, 1.2, 2.5, 10.0, 1000.0])
def test_second_order_is_the_printed_equation(beta):
    k2, c0_n0 = 0.14, 0.2e-3 / 12e-3
    decay = np.exp(-k2 * (beta - 1) * c0_n0 * TIME)
    printed = 1 - (beta - 1) * decay / (beta - decay)  # S3.2
    np.testing.assert_allclose(second_order(TIME, k2 * c0_n0 * beta, 1 / beta), printed, rtol=1e-10, atol=1e-12)


def test_number_of_the_paper():
    """β = 2.5, k₂ = 0.14 L/mol/s, 0.2 mmol in 12 mL: t98 = 975.6 s."""
    assert second_order_t98(0.14 * 0.2e-3 / 12e-3 * 2.5, 1 / 2.5) == pytest.approx(975.6, abs=0.05)


@given(st.floats(1e-4, 10), st.floats(0, 1))
def test_t98_is_where_the_laws_reach_98_percent(rate, epsilon):
    t98 = second_order_t98(rate, epsilon)
    assert second_order(np.array([t98]), rate, epsilon)[0] == pytest.approx(0.98, rel=1e-9)
    assert exponential(np.array([exponential_t98(rate)]), rate)[0] == pytest.approx(0.98, rel=1e-12)


@given(st.floats(1e-4, 10), st.floats(0, 1), st.floats(0.01, 100))
def test_only_rate_times_time_matters(rate, epsilon, factor):
    np.testing.assert_allclose(
        second_order(TIME / factor, rate * factor, epsilon), second_order(TIME, rate, epsilon), rtol=1e-9, atol=1e-300
    )
    assert second_order_t98(rate * factor, epsilon) * factor == pytest.approx(second_order_t98(rate, epsilon))


def test_ends_of_the_second_order_law():
    np.testing.assert_allclose(second_order(TIME, 0.01, 0.0), exponential(TIME, 0.01), rtol=1e-12)
    np.testing.assert_allclose(second_order(TIME, 0.01, 1.0), 0.01 * TIME / (1 + 0.01 * TIME), rtol=1e-12)
    for law in (second_order(np.array([-5.0, 0.0]), 0.01, 0.4), exponential(np.array([-5.0, 0.0]), 0.01)):
        assert (law == 0).all()
    assert second_order(np.array([1e9]), 1.0, 0.5)[0] == 1


def test_whitened_vectors_have_unit_covariance():
    covariance = correlated(40)
    white = whiten(covariance, np.eye(40))
    np.testing.assert_allclose(white @ covariance @ white.T, np.eye(40), atol=1e-10)
    with pytest.raises(BadInput, match="positive definite"):
        whiten(-np.eye(3), np.ones(3))


def test_linear_fit_is_generalised_least_squares():
    rng = np.random.default_rng(0)
    covariance, value = correlated(30), rng.normal(size=30)
    columns = np.stack([np.ones(30), np.linspace(-1, 1, 30)], axis=-1)
    fit = linear_fit(columns, Points(TIME[:30], value, covariance))
    inverse = np.linalg.inv(covariance)
    expected = np.linalg.inv(columns.T @ inverse @ columns)
    np.testing.assert_allclose(fit.covariance, expected, rtol=1e-9)
    np.testing.assert_allclose(fit.parameters, expected @ columns.T @ inverse @ value, rtol=1e-9)
    np.testing.assert_allclose(fit.gain @ value, fit.parameters, rtol=1e-9)
    residual = value - columns @ fit.parameters
    assert fit.chi2 == pytest.approx(residual @ inverse @ residual)


@pytest.mark.parametrize("rate", [3e-3, 0.06, 0.5])
def test_exact_exponential_is_found(rate):
    fit = fit_exponential(points(25 * exponential(TIME, rate)))
    np.testing.assert_allclose(fit.build_up.values, [25, rate], rtol=1e-6)
    assert fit.build_up.names == ("c_inf_umol_L", "k_1_s")
    assert fit.build_up.t98_s.value == pytest.approx(np.log(50) / rate, rel=1e-6)
    assert fit.chi2 < 1e-6


def test_exact_delay_is_found():
    fit = fit_exponential(points(25 * exponential(TIME - 12.0, 0.03)), delayed=True)
    np.testing.assert_allclose(fit.build_up.values, [25, 0.03, 12.0], rtol=1e-4)
    assert fit.build_up.t98_s.value == pytest.approx(12 + np.log(50) / 0.03, rel=1e-4)


@pytest.mark.parametrize("epsilon", [0.15, 0.4, 0.8])
def test_exact_second_order_is_found(epsilon):
    fit = fit_second_order(points(0.8 * second_order(TIME, 0.01, epsilon), correlated(60, 1e-3, 1e-3)))
    np.testing.assert_allclose(fit.build_up.values, [0.8, 0.01, epsilon], rtol=1e-4)
    assert fit.build_up.t98_s.value == pytest.approx(second_order_t98(0.01, epsilon), rel=1e-4)
    assert fit.notes == ()


@pytest.mark.parametrize(("epsilon", "word"), [(0.0, "exponential"), (1.0, "hyperbola")])
def test_end_of_the_range_is_said_and_has_no_error(epsilon, word):
    curved = second_order(TIME, 0.01, 1.0) ** 0.9 if epsilon else exponential(TIME, 0.01) ** 1.2  # more than S3.2 can
    fit = fit_second_order(points(0.8 * curved, correlated(60, 1e-3, 1e-3)))
    assert fit.build_up.values[2] == epsilon
    assert word in fit.notes[0]
    assert (fit.build_up.covariance[2] == 0).all()
    assert (np.diag(fit.build_up.covariance)[:2] > 0).all()
    assert fit.build_up.t98_s.error > 0


def pulls(fit, truth, seeds):
    """(t98 − truth)/σ, and t98 with its σ, over many noisy series."""
    rows = [fit(np.random.default_rng(seed)) for seed in range(seeds)]
    return np.array([(t98.value - truth) / t98.error for t98 in rows])


def test_errors_of_t98_hold_with_correlated_points():
    exact = 25 * exponential(TIME, 0.03)
    covariance = correlated(60, 0.3, 0.5)
    z = pulls(lambda rng: fit_exponential(points(exact, covariance, rng)).build_up.t98_s, np.log(50) / 0.03, 150)
    assert abs(z.mean()) < 0.3
    assert 0.83 < z.std() < 1.17


def test_errors_of_second_order_t98_hold():
    exact, covariance = 0.8 * second_order(TIME, 0.01, 0.4), correlated(60, 0.004, 0.004)
    truth = second_order_t98(0.01, 0.4)
    z = pulls(lambda rng: fit_second_order(points(exact, covariance, rng)).build_up.t98_s, truth, 60)
    assert abs(z.mean()) < 0.45
    assert 0.75 < z.std() < 1.25


def test_share_knows_that_both_come_from_the_same_frames():
    """Points of c and yield with nearly the same noise: the errors of the ratio are those of the scatter."""
    rng, own, ratios = np.random.default_rng(5), 0.004, []
    covariance, cross = own**2 * 1.25 * np.eye(60), own**2 * np.eye(60)
    for _ in range(60):
        same = own * rng.standard_normal(60)
        c, y = (
            Points(TIME, exact + same + 0.5 * own * rng.standard_normal(60), covariance)
            for exact in (exponential(TIME, 0.05), second_order(TIME, 0.02, 0.3))
        )
        ratios.append(share(fit_exponential(c), fit_second_order(y), cross))
    truth = exponential_t98(0.05) / second_order_t98(0.02, 0.3)
    values, errors = np.array(ratios).T
    z = (values - truth) / errors
    assert abs(z.mean()) < 0.45
    assert 0.75 < z.std() < 1.25


def test_a_law_that_fails_gets_errors_from_its_misfit():
    wavy = 0.8 * second_order(TIME, 0.01, 0.5) + 0.01 * np.sin(4 * np.log(TIME))
    tight = points(wavy, 1e-8 * np.eye(60))
    fit, alone = with_scatter(fit_second_order, tight), fit_second_order(tight)
    assert fails(alone)
    assert fit.build_up.chi2_red >= alone.build_up.chi2_red * (1 - 1e-9)  # the same minimum, found twice
    assert alone.build_up.chi2_red > 1000
    scale = np.sqrt(np.diag(fit.build_up.covariance) / np.diag(alone.build_up.covariance))
    assert scale == pytest.approx(0.01 / np.sqrt(2) / 1e-4, rel=0.5)
    good = points(0.8 * second_order(TIME, 0.01, 0.5), 1e-8 * np.eye(60), np.random.default_rng(1))
    np.testing.assert_array_equal(
        with_scatter(fit_second_order, good).build_up.covariance, fit_second_order(good).build_up.covariance
    )


WAVY = 0.8 * second_order(TIME, 0.01, 0.5) + 0.01 * np.sin(4 * np.log(TIME))


@pytest.mark.parametrize("shared", [0.003, 0.01, 0.05])
@pytest.mark.parametrize("shape", [np.ones(60), second_order(TIME, 0.01, 0.5)], ids=["offset", "factor"])
def test_the_scatter_of_a_misfit_does_not_depend_on_what_the_points_share(shared, shape):
    """An error that moves all points together explains no wave about the law."""
    alone = with_scatter(fit_second_order, points(WAVY, 1e-8 * np.eye(60))).build_up
    fit = with_scatter(fit_second_order, points(WAVY, 1e-8 * np.eye(60) + shared**2 * np.outer(shape, shape))).build_up
    assert fit.t98_s.value == pytest.approx(alone.t98_s.value, abs=0.3 * alone.t98_s.error)
    assert fit.t98_s.error == pytest.approx(alone.t98_s.error, rel=0.1)


def test_errors_hold_with_scatter_and_a_shared_error():
    """Points that scatter by ten times their own errors, and a shared error twice the scatter."""
    exact, truth = 0.8 * second_order(TIME, 0.01, 0.4), second_order_t98(0.01, 0.4)
    own, shared, scatter = 1e-3, 0.02, 0.01
    z = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        value = exact + scatter * rng.standard_normal(60) + shared * rng.standard_normal()
        series = Points(TIME, value, own**2 * np.eye(60) + shared**2)
        t98 = with_scatter(fit_second_order, series).build_up.t98_s
        z.append((t98.value - truth) / t98.error)
    assert abs(np.mean(z)) < 0.3
    assert 0.8 < np.std(z) < 1.25


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_the_error_of_a_delay_is_in_t98_and_in_the_share(correlation):
    """Delay 40 s, known to 0.8 s from c; dt98/d(delay) is 12.7 here."""
    time, error_c, error_y, z, share_z = np.geomspace(5.0, 3000.0, 80), 1.0, 0.002, [], []
    t98_c, t98_y = 40 + exponential_t98(0.03), 40 + second_order_t98(0.01, 0.5)
    cross = correlation * error_c * error_y * np.eye(80)
    for seed in range(100):
        noise, other = np.random.default_rng(seed).standard_normal((2, 80))
        c = Points(time, 25 * exponential(time - 40, 0.03) + error_c * noise, error_c**2 * np.eye(80))
        both = correlation * noise + np.sqrt(1 - correlation**2) * other
        y = Points(time, 0.8 * second_order(time - 40, 0.01, 0.5) + error_y * both, error_y**2 * np.eye(80))
        late = fit_exponential(c, delayed=True)
        error = float(np.sqrt(late.build_up.covariance[2, 2]))
        fit = fit_delayed_second_order(y, Delay(float(late.build_up.values[2]), error, late.by_value[2] @ cross))
        z.append((fit.build_up.t98_s.value - t98_y) / fit.build_up.t98_s.error)
        ratio = share(late, fit, cross, c.covariance @ late.by_value[2])
        share_z.append((ratio.value - t98_c / t98_y) / ratio.error)
    assert fit.t98_by_delay == pytest.approx(12.7, rel=0.1)
    for pull in (z, share_z):
        assert abs(np.mean(pull)) < 0.3
        assert 0.85 < np.std(pull) < 1.2


@pytest.mark.parametrize("delay", [100.0, 500.0])
def test_a_delay_as_long_as_the_series_is_refused(delay):
    with pytest.raises(BadInput, match="delay"):
        fit_second_order(Points(np.linspace(10, 100, 30), np.ones(30), np.eye(30)), delay_s=delay)


def test_a_delay_of_any_float_type():
    series = Points(TIME, 0.8 * second_order(TIME - 12, 0.01, 0.4), 1e-6 * np.eye(60))
    fits = [fit_second_order(series, delay_s=delay).build_up for delay in (12.0, np.float64(12.0))]
    assert fits[0].law == fits[1].law
    assert fits[1].law.endswith("delayed")


def test_too_few_points_are_refused():
    with pytest.raises(BadInput, match="2 points"):
        fit_exponential(points(np.array([1.0, 2.0])))
