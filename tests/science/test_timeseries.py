"""Trends, phases, focusing and the apparent exponent: found where they are, and not where they are not."""

import numpy as np
import pytest

from saxs_pipeline.science import timeseries
from saxs_pipeline.science.buildup import exponential, fit_exponential
from saxs_pipeline.science.crossing import interpolated_t98
from saxs_pipeline.science.leastsquares import Points
from saxs_pipeline.science.scenarios import Growth, growth_truth
from saxs_pipeline.science.timeseries import Landmarks

TIME = np.geomspace(1.0, 7700.0, 90)
TRUTH = growth_truth(TIME, Growth())


def noisy(value, error, rng, time=TIME, common=0.0):
    covariance = error**2 * np.eye(len(value)) + common**2
    return Points(time, value + np.linalg.cholesky(covariance) @ rng.standard_normal(len(value)), covariance)


def seeds(n):
    return [np.random.default_rng(seed) for seed in range(n)]


# --- trends ----------------------------------------------------------------------------------------------------------


def test_trend_is_a_standard_normal_number_without_a_trend():
    found = np.array([timeseries.trend(noisy(np.full(40, 3.0), 0.1, rng, TIME[:40], common=0.5)) for rng in seeds(400)])
    assert abs(found.mean()) < 0.2
    assert 0.9 < found.std() < 1.1


def test_slope_of_a_line_is_exact():
    x = np.linspace(-2, 3, 30)
    found = timeseries.slope(x, Points(TIME[:30], 5 - 0.7 * x, 0.01 * np.eye(30)))
    assert found.value == pytest.approx(-0.7)
    assert found.error == pytest.approx(0.1 / np.sqrt(((x - x.mean()) ** 2).sum()))


# --- t98 without a law -----------------------------------------------------------------------------------------------


def true_t98():
    fine = np.linspace(300, 500, 200_001)
    share = growth_truth(fine, Growth()).yield_ / growth_truth(np.array([1e5]), Growth()).yield_[0]
    return float(np.interp(0.98, share, fine))


@pytest.mark.parametrize("error", [1e-3, 1e-4])
def test_interpolated_t98_and_its_error_hold(error):
    found = [interpolated_t98(noisy(TRUTH.yield_, error, rng)) for rng in seeds(40)]
    assert all(result is not None for result in found)
    values, errors = np.array([result[0] for result in found]).T
    assert true_t98() == pytest.approx(400, abs=0.1)
    assert abs(values.mean() - true_t98()) < max(0.5 * np.mean(errors), 2e-3 * 400)
    assert 0.7 < np.std(values) / np.mean(errors) < 1.3


def test_interpolated_t98_gradient_is_its_derivative():
    points = noisy(TRUTH.yield_, 1e-3, np.random.default_rng(0))
    at, gradient = interpolated_t98(points)
    for k in np.flatnonzero(gradient)[[0, 5, -10]]:
        step = 1e-5 * (np.arange(TIME.size) == k)
        moved = interpolated_t98(points._replace(value=points.value + step))[0]
        assert (moved.value - at.value) / 1e-5 == pytest.approx(
            gradient[k], rel=1e-2, abs=1e-2 * np.abs(gradient).max()
        )


def test_no_interpolated_t98_without_a_plateau_or_a_rise():
    rng = np.random.default_rng(1)
    assert interpolated_t98(noisy(np.log(TIME), 1e-3, rng)) is None
    assert interpolated_t98(noisy(np.ones(90), 1e-4, rng)) is None


def kinked(time):
    """A linear rise that ends at 240 s: monomers that form at a constant rate."""
    return np.minimum(0.215 + 0.785 * time / 240, 1.0)


RISES = {
    "kink": (kinked, 240 * (0.98 - 0.215) / 0.785),
    "exponential": (lambda t: exponential(t, 1 / 60), 60 * np.log(50)),
    "stretched": (lambda t: -np.expm1(-((t / 100) ** 1.5)), 100 * np.log(50) ** (2 / 3)),
}


def sampled(shape, period, error, rng):
    """interpolated_t98 of points at equal distances, the first anywhere within the first of them."""
    time = np.arange(rng.uniform(1, period), 7700, period)
    return interpolated_t98(noisy(shape(time), error, rng, time))


@pytest.mark.parametrize("rise", RISES)
@pytest.mark.parametrize(("period", "widest"), [(30.0, 5.0), (64.0, 14.0), (100.0, 30.0)])
def test_interpolated_t98_knows_of_the_gaps_between_points(rise, period, widest):
    shape, truth = RISES[rise]
    values, errors = np.array([sampled(shape, period, 1e-3, rng)[0] for rng in seeds(100)]).T
    assert np.sqrt((((values - truth) / errors) ** 2).mean()) < 1.3
    assert np.median(errors) < widest


def test_the_middle_between_lines_has_the_right_derivatives():
    points = noisy(kinked(np.arange(20.0, 2000.0, 64.0)), 1e-3, np.random.default_rng(0), np.arange(20.0, 2000.0, 64.0))
    at, gradient = interpolated_t98(points)
    assert at.error > 5
    for k in np.flatnonzero(gradient)[:5]:
        step = 1e-6 * (np.arange(points.time_s.size) == k)
        moved = interpolated_t98(points._replace(value=points.value + step))[0]
        assert (moved.value - at.value) / 1e-6 == pytest.approx(gradient[k], rel=1e-3, abs=1e-2)


def test_a_plateau_that_is_approached_as_a_hyperbola_is_not_known():
    """t/(40 s + t) has 98 % of its limit at 1960 s; at 7700 s the limit is still out of sight."""
    found = [sampled(lambda t: t / (40 + t), 100.0, 1e-3, rng) for rng in seeds(30)]
    pulls = np.array([(t98.value - 1960) / t98.error for t98, _ in filter(None, found)])
    assert len(pulls) > 20
    assert np.sqrt((pulls**2).mean()) < 2.5
    dense = interpolated_t98(noisy(exponential(TIME, 1 / 60), 1e-4, np.random.default_rng(0)))[0]
    assert dense.error < 0.5


# --- phases ----------------------------------------------------------------------------------------------------------


def test_ripening_is_dated():
    onsets = [timeseries.ripening_onset(noisy(TRUTH.c_umol_L, 0.05, rng, common=0.05)) for rng in seeds(20)]
    z = np.array([(onset.value - 400) / onset.error for onset in onsets])
    assert abs(z.mean()) < 0.8
    assert np.abs(z).max() < 4
    assert np.median([onset.error for onset in onsets]) < 60


@pytest.mark.parametrize("error", [0.02, 1.0])
def test_no_ripening_is_invented(error):
    plateau = 25 * exponential(TIME, 0.065)
    assert all(timeseries.ripening_onset(noisy(plateau, error, rng, common=error)) is None for rng in seeds(25))


def test_no_ripening_is_invented_where_the_build_up_is_not_exponential():
    rise = 25 * exponential(TIME, 0.065) ** 0.7
    assert all(timeseries.ripening_onset(noisy(rise, 0.02, rng)) is None for rng in seeds(10))


def test_no_ripening_from_few_points():
    assert timeseries.ripening_onset(noisy(TRUTH.c_umol_L[:9], 0.05, np.random.default_rng(0), TIME[:9])) is None


def test_induction_is_found_where_frames_show_nothing():
    time = TIME[TIME > 20]
    points = noisy(25 * exponential(time - 15.0, 0.05), 0.05, np.random.default_rng(3), time)
    early = np.arange(1.0, 15.0)
    quiet = np.stack([np.append(early, time), np.append(np.ones(14), np.zeros(len(time)))], axis=-1)
    plain = fit_exponential(points)
    assert timeseries.induction_end(points, plain, quiet) == pytest.approx(15.0, abs=0.5)
    assert timeseries.induction_end(points, plain, quiet[14:]) is None  # nobody looked
    seen = quiet.copy()
    seen[:8, 1] = 0
    assert timeseries.induction_end(points, plain, seen) is None  # crystals were there


def test_no_induction_is_invented():
    quiet = np.stack([np.linspace(0.05, 0.95, 10), np.ones(10)], axis=-1)
    for rng in seeds(30):
        points = noisy(25 * exponential(TIME, 0.065), 0.1, rng)
        assert timeseries.induction_end(points, fit_exponential(points), quiet) is None


def names_and_times(phases):
    return [(phase.name, round(phase.start_s), round(phase.end_s)) for phase in phases]


def test_phases_follow_the_landmarks():
    crystals = noisy(TRUTH.yield_, 1e-3, np.random.default_rng(0))
    assert names_and_times(timeseries.find_phases(crystals, Landmarks(5.0, 60.0, 400.0, 700.0))) == [
        ("induction", 0, 5),
        ("nucleation", 5, 60),
        ("growth", 60, 400),
        ("ripening", 700, 7700),
    ]
    assert names_and_times(timeseries.find_phases(crystals, Landmarks(None, 60.0, 400.0, 300.0)))[1:] == [
        ("growth", 60, 300),
        ("ripening", 300, 7700),
    ]
    late = crystals.between(101.0, 7700.0)
    assert names_and_times(timeseries.find_phases(late, Landmarks(None, None, 400.0, None))) == [("growth", 102, 400)]


def test_no_growth_without_a_rising_yield():
    flat = noisy(np.full(90, 0.8), 1e-3, np.random.default_rng(0))
    assert names_and_times(timeseries.find_phases(flat, Landmarks(None, 60.0, 400.0, None))) == [("nucleation", 0, 60)]
    assert timeseries.find_phases(flat, Landmarks(None, None, None, None)) == ()


# --- focusing --------------------------------------------------------------------------------------------------------


def test_focusing_rate_and_its_error_hold():
    pulls = []
    for rng in seeds(20):
        time, rate = timeseries.focusing_rate(noisy(TRUTH.sigma_nm**2, 3e-4, rng, common=1e-3))
        step = 1e-3 * time
        truth = (growth_truth(time + step, Growth()).sigma_nm - growth_truth(time - step, Growth()).sigma_nm) / (
            2 * step
        )
        pulls.append((rate.value - truth) / rate.statistical)
    assert len(time) == 22
    assert (np.diff(time) > 0).all()
    assert abs(np.mean(pulls)) < 0.2
    assert 0.85 < np.std(pulls) < 1.15
    assert (rate.systematic == 0).all()


def test_focusing_of_a_line_is_exact():
    time = np.linspace(10.0, 50.0, 12)
    variance = (0.2 - 1e-3 * time) ** 2
    at, rate = timeseries.focusing_rate(Points(time, variance, 1e-12 * np.eye(12)))
    np.testing.assert_allclose(rate.value, -1e-3, rtol=1e-2)
    assert len(at) == 3


def test_no_focusing_of_unresolved_widths_or_few_points():
    unresolved = Points(TIME, np.full(90, 1e-3), 1e-2 * np.eye(90))
    assert len(timeseries.focusing_rate(unresolved)[0]) == 0
    assert len(timeseries.focusing_rate(Points(TIME[:3], np.ones(3), np.eye(3)))[1].value) == 0


# --- growth exponent -------------------------------------------------------------------------------------------------


def exponent_of(n, rng, error_r=0.004, error_s=4e-4, correlation=-0.6):
    """Fit to a series with σ ∝ r⁻ⁿ and correlated errors in r and s, common part included."""
    radius = np.linspace(1.6, 2.1, 25)
    variance = (0.16 * (radius / 1.8) ** -n) ** 2
    time = np.geomspace(60, 400, 25)
    block = np.array([[error_r**2, correlation * error_r * error_s], [correlation * error_r * error_s, error_s**2]])
    joint = np.kron(block, np.eye(25) + 0.3)
    draw = np.linalg.cholesky(joint) @ rng.standard_normal(50)
    r, s = Points(time, radius + draw[:25], joint[:25, :25]), Points(time, variance + draw[25:], joint[25:, 25:])
    return timeseries.apparent_exponent(r, s, joint[:25, 25:])


@pytest.mark.parametrize("n", [0.0, 1.0, 3.0])
def test_apparent_exponent_and_its_error_hold(n):
    found = np.array([exponent_of(n, rng) for rng in seeds(100)])
    z = (found[:, 0] - n) / found[:, 1]
    assert abs(z.mean()) < 0.35
    assert 0.82 < z.std() < 1.18


def test_errors_of_the_radius_do_not_dilute_the_exponent():
    """With errors of r a fifth of its spread, ordinary regression gives 0.96 of the exponent; Deming's none less."""
    found = np.array([exponent_of(2.0, rng, error_r=0.03, error_s=2e-4, correlation=0.0) for rng in seeds(100)])
    assert found[:, 0].mean() == pytest.approx(2.0, abs=4 * found[:, 0].std() / 10)


def test_no_exponent_without_growth():
    time = np.geomspace(60, 400, 25)
    rng = np.random.default_rng(4)
    still = noisy(np.full(25, 2.0), 0.01, rng, time)
    assert timeseries.apparent_exponent(still, noisy(np.full(25, 0.02), 1e-3, rng, time), np.zeros((25, 25))) is None
