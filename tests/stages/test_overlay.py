"""The scale between aliquots and series: recovered with the stated error, whatever side the errors are on."""

from dataclasses import replace

import numpy as np
import pytest

from saxs_pipeline.reaction import Aliquots
from saxs_pipeline.science import quantities
from saxs_pipeline.stages.overlay import overlay
from saxs_pipeline.types import BadInput, Quantities, Uncertain

TIME = 0.1 * 1.015 ** np.arange(400) * 10  # 1 s … 380 s, S1.4
TRUE_SCALE = 1.25
RADIUS, SIGMA2 = 2.0, 0.15**2
ALIQUOT_TIMES = np.array([5.3, 10, 20, 41, 60, 90, 130, 200, 280, 350.0])


def c_of(time):
    return 25 * (1 - np.exp(-np.asarray(time) / 25))


def yield_of(time):
    crystals = quantities.cations_per_crystal(quantities.mean_volume(RADIUS, SIGMA2), 0.608)
    return quantities.yield_fraction(c_of(time), crystals, 26.0)


def series(rng=None, *, relative=0.005):
    """Quantities of a series as fits of (c, r, s, b) would give them; `relative` is the error of c."""
    truth = np.stack([c_of(TIME), np.full_like(TIME, RADIUS), np.full_like(TIME, SIGMA2), np.zeros_like(TIME)], axis=1)
    errors = np.stack([relative * truth[:, 0], truth[:, 1] * 0.004, truth[:, 2] * 0.08], axis=1)
    correlation = np.array([[1, -0.8, 0.3], [-0.8, 1, -0.5], [0.3, -0.5, 1]])
    covariance = np.zeros((len(TIME), 4, 4))
    covariance[:, :3, :3] = errors[:, :, None] * errors[:, None, :] * correlation
    covariance[:, 3, 3] = 1e-12
    values = truth.copy()
    if rng is not None:
        values += np.einsum("nij,nj->ni", np.linalg.cholesky(covariance), rng.normal(size=truth.shape))
    derived = quantities.derive(
        values,
        covariance,
        lattice_nm=Uncertain(0.608),
        cations_per_cell=4,
        cation_mmol_L=Uncertain(26.0),
        scale_rel=0.03,
    )
    return Quantities(
        index=np.arange(len(TIME)),
        time_s=TIME,
        exposure_s=np.full_like(TIME, 0.075),
        radius_nm=derived.radius_nm,
        sigma_nm=derived.sigma_nm,
        c_nc_umol_L=derived.c_nc_umol_L,
        yield_=derived.yield_,
        background_1_mm=derived.background_1_mm,
        chi2_red=np.ones_like(TIME),
        covariance=derived.covariance,
        flags=("ok",) * len(TIME),
    )


def aliquots(rng=None, times=ALIQUOT_TIMES, *, relative=0.05, correlation=0.0, scale=TRUE_SCALE, state_it=True):
    times = np.asarray(times, dtype=float)
    c, y = c_of(times) * scale, yield_of(times) * scale
    noise = np.zeros((2, len(times)))
    if rng is not None:
        noise = relative * np.linalg.cholesky([[1, correlation], [correlation, 1]]) @ rng.normal(size=(2, len(times)))
    return Aliquots(
        time_s=times,
        radius_nm=np.full_like(times, RADIUS),
        radius_error=np.full_like(times, 0.03),
        c_umol_L=c * (1 + noise[0]),
        c_error=relative * c,
        yield_=y * (1 + noise[1]),
        yield_error=relative * y,
        source="aliquots.csv",
        correlation=np.full_like(times, correlation) if state_it else None,
    )


def pulls(n, **keys):
    rng = np.random.default_rng(7)
    found = [overlay(aliquots(rng, **keys), series(rng), None).scale for _ in range(n)]
    return np.array([(scale.value - TRUE_SCALE) / scale.error for scale in found])


def test_without_noise_the_scale_is_right():
    """What remains is the curvature of c(t) within seven frames: ½c″δt² ≈ 2e-4 of c at 20 s."""
    found = overlay(aliquots(), series(), None)
    assert found.fitted
    assert found.scale.value == pytest.approx(TRUE_SCALE, rel=3e-4)


def test_the_error_is_that_of_independent_measurements():
    """20 numbers of 5 %: 5 %/√20 of the scale; the series hardly adds to it."""
    found = overlay(aliquots(), series(relative=1e-5), None)
    assert found.scale.error == pytest.approx(TRUE_SCALE * 0.05 / np.sqrt(20), rel=0.02)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_the_scale_is_recovered_with_right_pulls(correlation):
    found = pulls(300, correlation=correlation)
    assert abs(found.mean()) < 4 / np.sqrt(300)
    assert found.std() == pytest.approx(1, abs=0.13)


def test_without_their_correlation_c_and_yield_would_count_as_two():
    assert pulls(150, correlation=0.9, state_it=False).std() > 1.2


def test_large_errors_of_aliquots_do_not_pull_the_scale_down():
    """Plain least squares of y on a noisy x would be 8 % too small at 30 % errors; 400 aliquots show it."""
    rng = np.random.default_rng(3)
    noisy = aliquots(rng, np.geomspace(20, 370, 400), relative=0.3)
    found = overlay(noisy, series(), None).scale
    assert abs(found.value - TRUE_SCALE) < 3 * found.error
    assert found.error < 0.02


def test_an_error_common_to_the_frames_is_not_averaged_away():
    """One precise aliquot: what is left is the error of one frame, though several frames went into the value."""
    alone = replace(aliquots(times=[300.0], relative=1e-4), yield_=np.array([np.nan]), yield_error=np.array([np.nan]))
    assert overlay(alone, series(relative=0.04), None).scale.error == pytest.approx(0.04 * TRUE_SCALE, rel=0.05)
    rng = np.random.default_rng(5)
    values = [overlay(alone, series(rng, relative=0.04), None).scale.value for _ in range(100)]
    assert np.std(values) < 0.04 * TRUE_SCALE / 2


def test_c_or_yield_alone_is_enough_and_aliquots_outside_do_not_count():
    full = aliquots(np.random.default_rng(2))
    nothing = np.full_like(ALIQUOT_TIMES, np.nan)
    parts = [replace(full, c_umol_L=nothing), replace(full, yield_=nothing)]
    for part in parts:
        found = overlay(part, series(), None).scale
        assert abs(found.value - TRUE_SCALE) < 3 * found.error
    times = [*ALIQUOT_TIMES, 381.0, 1e4]
    wrong_outside = aliquots(times=times)
    wrong_outside.c_umol_L[-2:] = 1e4
    assert overlay(wrong_outside, series(), None).scale == pytest.approx(overlay(aliquots(), series(), None).scale)


def test_unsound_frames_do_not_count():
    good = series()
    bad = np.arange(len(TIME)) % 3 == 0
    for estimate in (good.c_nc_umol_L, good.yield_):
        estimate.value[bad] *= 7
    good.radius_nm.value[bad] = np.nan  # as quantify leaves them
    assert overlay(aliquots(), good, None).scale.value == pytest.approx(TRUE_SCALE, rel=6e-4)


def test_an_upper_limit_of_sigma_leaves_the_fit_finite():
    limited = series()
    limited.covariance[:, 1, :] = limited.covariance[:, :, 1] = np.nan
    found = overlay(aliquots(), limited, None).scale
    assert found == pytest.approx(overlay(aliquots(), series(), None).scale, rel=0.02)


def test_a_given_scale_is_taken_as_it_is():
    found = overlay(aliquots(), series(), 0.8)
    assert (found.scale, found.fitted) == (Uncertain(0.8, 0.0), False)
    assert found.aliquots.source == "aliquots.csv"


@pytest.mark.parametrize("scale", [None, 0.8])
def test_aliquots_at_other_times_than_the_series_are_refused(scale):
    with pytest.raises(BadInput, match=r"aliquots.csv: no aliquot lies within the series, which is from 1 to 380"):
        overlay(aliquots(times=[0.1, 0.5, 5e3]), series(), scale)


def test_what_cannot_be_compared_is_refused():
    blind = series()
    for estimate in (blind.c_nc_umol_L, blind.yield_):
        estimate.value[:] = np.nan  # no absolute scale
    with pytest.raises(BadInput, match="no aliquot has c or yield"):
        overlay(aliquots(), blind, None)
    blind.radius_nm.value[:] = np.nan
    with pytest.raises(BadInput, match="no frame is sound"):
        overlay(aliquots(), blind, None)
    with pytest.raises(BadInput, match="no positive factor"):
        overlay(aliquots(scale=-1.0), series(), None)
