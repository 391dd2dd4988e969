"""The scale between aliquots and series: recovered with the stated error, whatever side the errors are on."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from saxs_pipeline.config import Model
from saxs_pipeline.reaction import Aliquots
from saxs_pipeline.sample_config import Sample
from saxs_pipeline.science import quantities
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.science.formfactors import gaussian_spheres, intensity_factor
from saxs_pipeline.stages import fit as fit_stage
from saxs_pipeline.stages.overlay import overlay
from saxs_pipeline.stages.quantify import quantify
from saxs_pipeline.types import BadInput, Curves, Provenance, RunResult, Uncertain

TIME = np.geomspace(1, 380, 150)
TRUE_SCALE = 1.25
RADIUS, SIGMA2 = 2.0, 0.15**2
ALIQUOT_TIMES = np.array([5.3, 10, 20, 41, 60, 90, 130, 200, 280, 350.0])
Q = np.linspace(0.15, 5.0, 80)
FACTOR = intensity_factor(35.2e-6)
SAMPLE = Sample(
    contrast="35.2e-6 1/Å^2", lattice_parameter="0.608 nm", cations_per_cell=4, cation_concentration="26 mmol/L"
)
SETTINGS = Model.model_construct(q_min=0.1, q_max=5.1, radius=(0.5, 4.0), sigma=(0.02, 0.6))


def c_of(time):
    return 25 * (1 - np.exp(-np.asarray(time) / 25))


def yield_of(time):
    crystals = quantities.cations_per_crystal(quantities.mean_volume(RADIUS, SIGMA2), 0.608)
    return quantities.yield_fraction(c_of(time), crystals, 26.0)


@cache
def runs(statistical, shared, n=1, seed=0):
    """n simulated series, every curve fitted: errors of single frames, and one error of the background per series.

    Both in units in which 1 is 1.5e-4/mm without crystals. With seed 0 the errors are stated, but there is no noise.
    """
    pattern = FACTOR * gaussian_spheres(Q, np.array([RADIUS]), np.array([SIGMA2]))[0] * c_of(TIME)[:, None]
    own = statistical * 1.5e-4 * np.sqrt(1 + pattern / 7e-3)
    common = np.full(Q.size, shared * 1.5e-4)
    noise = np.zeros((n, *pattern.shape))
    if seed:
        rng = np.random.default_rng(seed)
        noise = own * rng.standard_normal(noise.shape) + common * rng.standard_normal((n, 1, Q.size))
    frames = n * len(TIME)
    curves = Curves(
        q_nm=Q,
        intensity=(pattern + noise).reshape(frames, -1),
        statistical=np.tile(own, (n, 1)),
        shared=common,
        counts=np.ones((frames, Q.size)),
        index=np.arange(frames),
        start_s=np.tile(TIME, n) - 0.05,
        exposure_s=np.full(frames, 0.1),
        problems=("",) * frames,
        notes=("",) * frames,
        dark_sigma=np.zeros(Q.size),
        dark_factor=np.zeros(frames),
        taken_off=np.zeros(Q.size),
        scale_rel=0.03,
    )
    table, model = fit_stage.fit(curves, SETTINGS, CurveModel.of(SETTINGS.spec([FACTOR])))
    table = replace(table, flags=tuple(flag or "ok" for flag in table.flags))
    (found,) = quantify(table, curves, [SAMPLE], 18.0)
    provenance = Provenance("", "", {}, (), (), {})
    whole = RunResult("run", curves, None, None, table, model, found, provenance, ())
    return tuple(part(whole, slice(k, k + len(TIME))) for k in range(0, frames, len(TIME)))


def part(result, rows):
    """Some frames of a result."""
    fits, found = result.fits, result.quantities
    arrays = ("index", "values", "covariance", "chi2_red", "n_points", "converged", "flags")
    table = replace(fits, **{name: getattr(fits, name)[rows] for name in arrays})
    estimates = ("radius_nm", "sigma_nm", "c_nc_umol_L", "yield_", "background_1_mm")
    of = {name: type(found.c_nc_umol_L)(*(v[rows] for v in getattr(found, name))) for name in estimates}
    of |= {name: getattr(found, name)[rows] for name in ("index", "time_s", "exposure_s", "chi2_red", "covariance")}
    curves = result.curves.select(rows.start, rows.stop)
    return replace(
        result, curves=curves, fits=table, model=result.model[rows], quantities=replace(found, **of, flags=table.flags)
    )


def series(statistical=0.3, shared=0.0):
    """One series without noise."""
    return runs(statistical, shared)[0]


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


def pulls(series_of, n=200, times=ALIQUOT_TIMES, **keys):
    """(found - true)/error of the scale for n series, each with its own aliquots."""
    rng = np.random.default_rng(7)
    found = [overlay(aliquots(rng, times, **keys), run, None).scale for run in runs(*series_of, n, 11)]
    return np.array([(scale.value - TRUE_SCALE) / scale.error for scale in found])


def precise(times):
    """Aliquots with hardly any error, and c alone."""
    exact = aliquots(times=times, relative=1e-6)
    return replace(exact, yield_=np.full(len(times), np.nan), yield_error=np.full(len(times), np.nan))


def test_without_noise_the_scale_is_right():
    """What remains is the curvature of c(t) within seven frames, 24 % of the time."""
    found = overlay(aliquots(), series(), None)
    assert found.fitted
    assert found.scale.value == pytest.approx(TRUE_SCALE, rel=2e-3)


def test_the_error_is_that_of_independent_measurements():
    """20 numbers of 5 %: 5 %/√20 of the scale; the series hardly adds to it."""
    found = overlay(aliquots(), series(statistical=1e-3), None)
    assert found.scale.error == pytest.approx(TRUE_SCALE * 0.05 / np.sqrt(20), rel=0.02)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_the_scale_is_recovered_with_right_pulls(correlation):
    found = pulls((0.3, 0.3), correlation=correlation)
    assert abs(found.mean()) < 4 / np.sqrt(found.size)
    assert found.std() == pytest.approx(1, abs=0.15)


def test_without_their_correlation_c_and_yield_would_count_as_two():
    assert pulls((0.3, 0.3), 100, correlation=0.9, state_it=False).std() > 1.2


@pytest.mark.parametrize("series_of", [(0.1, 1.0), (1.0, 0.0), (0.3, 0.3)])
@pytest.mark.parametrize("times", [np.linspace(200, 370, 30), np.full(30, 300.0)], ids=["spread", "at once"])
def test_errors_of_the_series_that_aliquots_share_count_once(series_of, times):
    """Many aliquots of 0.2 %, so that the errors are the series': background, one frame's, or both, in 30 aliquots."""
    found = pulls(series_of, times=times, relative=0.002)
    assert abs(found.mean()) < 4 / np.sqrt(found.size)
    assert found.std() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("series_of", [(0.1, 1.0), (1.0, 0.0)])
def test_more_aliquots_at_one_time_do_not_make_the_series_better(series_of):
    one, four, many = (overlay(precise(np.full(k, 300.0)), series(*series_of), None).scale for k in (1, 4, 64))
    assert four.error == pytest.approx(one.error, rel=1e-3)
    assert many.error == pytest.approx(one.error, rel=1e-3)


def test_an_error_of_single_frames_is_averaged_away_that_of_the_background_is_not():
    """Three frames of nearly the same error within ±6 % of the time: 1/√3 of it at their middle, or all of it."""
    middle = TIME[120]
    for series_of, expected in (((1.0, 0.0), 1 / np.sqrt(3)), ((1e-3, 1.0), 1.0)):
        c = series(*series_of).quantities.c_nc_umol_L
        found = overlay(precise([middle]), series(*series_of), None).scale
        assert found.error / found.value == pytest.approx(expected * c.statistical[120] / c.value[120], rel=0.02)


def test_between_frames_far_apart_the_series_is_not_bent():
    """One frame in six is sound, 27 % apart in time: the local value comes from the next frame on either side."""
    run = series(1e-3)
    radius = run.quantities.radius_nm
    sparse = radius._replace(value=np.where(np.arange(len(TIME)) % 6 == 0, radius.value, np.nan))
    run = replace(run, quantities=replace(run.quantities, radius_nm=sparse))
    found = [overlay(precise([time]), run, None).scale.value for time in np.geomspace(3, 300, 12)]
    assert np.max(np.abs(np.array(found) / TRUE_SCALE - 1)) < 6e-3  # (Δt)²/8τ² at t = τ


def test_the_background_keeps_its_error_in_any_number_of_aliquots():
    """Late in the reaction its error is nearly the same fraction of c in all frames: 300 aliquots know no more."""
    run = series(1e-3, 1.0)
    late = overlay(precise(np.linspace(300, 370, 300)), run, None).scale
    alone = overlay(precise([335.0]), run, None).scale
    assert late.error == pytest.approx(alone.error, rel=0.01)


def test_large_errors_of_aliquots_do_not_pull_the_scale_down():
    """Plain least squares of y on a noisy x would be 8 % too small at 30 % errors; 400 aliquots show it."""
    rng = np.random.default_rng(3)
    noisy = aliquots(rng, np.geomspace(20, 370, 400), relative=0.3)
    found = overlay(noisy, series(), None).scale
    assert abs(found.value - TRUE_SCALE) < 3 * found.error
    assert found.error < 0.02


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


def changed(result, **quantities_of):
    return replace(result, quantities=replace(result.quantities, **quantities_of))


def times_seven(estimate, rows):
    return estimate._replace(value=np.where(rows, 7 * estimate.value, estimate.value))


def test_unsound_frames_do_not_count():
    good = series()
    found, bad = good.quantities, np.arange(len(TIME)) % 3 == 0
    unsized = found.radius_nm._replace(value=np.where(bad, np.nan, found.radius_nm.value))  # as quantify leaves them
    wrong = {name: times_seven(getattr(found, name), bad) for name in ("c_nc_umol_L", "yield_")}
    scale = overlay(aliquots(), changed(good, radius_nm=unsized, **wrong), None).scale
    assert scale.value == pytest.approx(TRUE_SCALE, rel=4e-3)


def test_an_upper_limit_of_sigma_does_not_matter():
    limited, values = series(), series().fits.values.copy()
    values[:, 2] = 1e-4  # far below its error
    table = replace(limited.fits, values=values)
    limited = replace(limited, fits=table, quantities=quantify(table, limited.curves, [SAMPLE], 18.0)[0])
    assert np.isnan(limited.quantities.covariance[:20, 1]).all()
    assert overlay(aliquots(), limited, None).scale.error == pytest.approx(
        overlay(aliquots(), series(), None).scale.error, rel=0.02
    )


def test_a_given_scale_is_taken_as_it_is():
    found = overlay(aliquots(), series(), 0.8)
    assert (found.scale, found.fitted) == (Uncertain(0.8, 0.0), False)
    assert found.aliquots.source == "aliquots.csv"


@pytest.mark.parametrize("scale", [None, 0.8])
def test_aliquots_at_other_times_than_the_series_are_refused(scale):
    with pytest.raises(BadInput, match=r"aliquots.csv: no aliquot lies within the series, which is from 1 to 380"):
        overlay(aliquots(times=[0.1, 0.5, 5e3]), series(), scale)


def test_what_cannot_be_compared_is_refused():
    nothing, full = np.full(len(TIME), np.nan), series()
    unknown = full.quantities.c_nc_umol_L._replace(value=nothing)
    with pytest.raises(BadInput, match="no aliquot has c or yield"):
        overlay(aliquots(), changed(full, c_nc_umol_L=unknown, yield_=unknown), None)  # no absolute scale
    with pytest.raises(BadInput, match="no frame is sound"):
        overlay(aliquots(), changed(full, radius_nm=unknown), None)
    with pytest.raises(BadInput, match="no positive factor"):
        overlay(aliquots(scale=-1.0), full, None)
    with pytest.raises(BadInput, match=r"aliquots.csv: the run has no fits"):
        overlay(aliquots(), replace(full, quantities=None), None)
    with pytest.raises(BadInput, match=r"no fitted curves"):
        overlay(aliquots(), replace(full, model=None), None)


def test_without_a_unit_cell_c_alone_is_compared():
    full = series()
    unknown = full.quantities.yield_._replace(value=np.full(len(TIME), np.nan))
    found = overlay(aliquots(), changed(full, yield_=unknown), None).scale
    assert found.value == pytest.approx(TRUE_SCALE, rel=2e-3)
    assert found.error == pytest.approx(TRUE_SCALE * 0.05 / np.sqrt(10), rel=0.02)


def test_aliquots_with_nothing_but_radii_need_no_scale():
    given = replace(aliquots(), c_umol_L=np.full(10, np.nan), yield_=np.full(10, np.nan))
    found = overlay(given, series(), None)
    assert np.isnan(found.scale.value)
    assert not found.fitted
    np.testing.assert_array_equal(found.aliquots.radius_nm, given.radius_nm)
