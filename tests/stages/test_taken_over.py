"""Frames that take over a size: from which frame, what else is their own, and what its errors mean."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq

from saxs_pipeline.model_config import Model, StructureFactor
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.science.formfactors import gaussian_spheres
from saxs_pipeline.science.polydisperse import hindered
from saxs_pipeline.stages.fit import fit, good, poor
from saxs_pipeline.stages.refit import refit_weak
from saxs_pipeline.types import FitTable
from tests.stages import test_fit as single
from tests.stages.test_refit import CRYSTALS, FACTOR, MODEL, SPHERES, Q, curves_of, fitted, pulls, truth_of

AGGLOMERATES, RADIUS = 4, 5
OVER_Q = ("q_nm", "intensity", "statistical", "shared", "counts", "dark_sigma", "taken_off")


def of_one(model, values, seed=0, sigma=single.SIGMA, every=1):
    """Frames of one population with these values (n, p), fitted twice."""
    spheres = CurveModel.of(model.spec([single.FACTOR]))
    frames = single.curves(np.zeros(len(values)), seed=seed, sigma=sigma)
    thinned = {name: getattr(frames, name)[..., ::every] for name in OVER_Q}
    frames = replace(frames, **thinned)
    frames = replace(frames, intensity=frames.intensity + spheres.curve(frames.q_nm, np.asarray(values, dtype=float)))
    table, curves = fit(frames, model, spheres)
    return frames, table, refit_weak(frames, table, curves, model)[0]


# --- errors ----------------------------------------------------------------------------------------------------------


def test_the_error_of_the_size_is_in_c_as_fits_at_sizes_beside_it_say():
    """Linear regression at sizes to either side of the giver's, and the covariance of its size."""
    frames = single.curves([0.35, 3.0], seed=3)
    _, table, _ = single.fitted(frames)
    assert table.flags == ("weak", "")

    def regression(radius, s):
        shape = single.FACTOR * gaussian_spheres(single.Q, np.array([radius]), np.array([s]))[0][0]
        design = np.stack([shape, np.ones_like(shape)], axis=1) / single.SIGMA
        covariance = np.linalg.inv(design.T @ design)
        return covariance @ design.T @ (frames.intensity[0] / single.SIGMA), covariance

    size, given = table.values[1, 1:3], table.covariance[1, 1:3, 1:3]
    step = 1e-3 * np.sqrt(np.diagonal(given))
    found, own = regression(*size)
    slopes = np.stack(
        [(regression(*(size + h))[0] - regression(*(size - h))[0]) / (2 * h.sum()) for h in np.diag(step)], axis=1
    )
    total = own + slopes @ given @ slopes.T
    np.testing.assert_allclose(table.values[0, [0, 3]], found, rtol=1e-8)
    np.testing.assert_allclose(table.covariance[0][np.ix_([0, 3], [0, 3])], total, rtol=0.1)
    assert total[0, 0] > 1.5 * own[0, 0]


HARD = Model.model_construct(
    q_min=0.1, q_max=5.0, radius=(1.2, 2.0), sigma=(0.05, 0.4),
    structure_factor=StructureFactor.model_construct(volume_fraction=(0.01, 0.4), shell=0.0),
)  # fmt: skip


def crowded(c):
    """Spheres of which 60 µmol/L take a fifth of the volume, and others in proportion."""
    c = np.asarray(c, dtype=float)
    one = np.ones_like(c)
    return np.stack([c, 1.6 * one, 0.15**2 * one, 0 * c, 0.2 * c / 60], axis=1)


@pytest.fixture(scope="module")
def hard():
    """Weak frames of two amounts and one that gives its size: truth, and the table of both passes."""
    truth = crowded([1.0] * 6 + [3.0] * 6 + [40.0])
    frames, first, table = of_one(HARD, truth, seed=2, sigma=6e-4, every=4)
    assert good(first).tolist() == [False] * 12 + [True] and set(table.flags[:12]) == {"weak"}
    return truth, frames, table


def test_interference_is_that_of_the_amount_there_not_of_the_frame_that_gives_the_size(hard):
    truth, _, table = hard
    off = pulls(table, truth, [CRYSTALS])[:12]
    assert abs(off.mean()) < 0.9 and off.std() == pytest.approx(1, abs=0.6)
    np.testing.assert_allclose(
        table.values[:12, 4], table.values[12, 4] * table.values[:12, 0] / table.values[12, 0], 1e-3
    )
    assert not table.free[:12, 4].any()


def test_the_error_of_all_that_is_taken_over_is_in_c(hard):
    """Explicitly: the root of η = η_giver c/c_giver with c by linear regression, and its slopes by differences."""
    _, frames, table = hard
    row, places = 8, [1, 2, 0, 4]
    giver, given = table.values[12, places], table.covariance[12][np.ix_(places, places)]

    def design(radius, s, fraction):
        shape = single.FACTOR * hindered("gaussian", frames.q_nm, *np.array([[radius], [s], [fraction]]), 0.0)[0][0]
        return np.stack([shape, np.ones_like(shape)], axis=1) / 6e-4

    def regression(taken, curve):
        """Designs are interpolated between volume fractions to either side of the one that was found."""
        radius, s, c, fraction = taken
        low, high = (design(radius, s, share * table.values[row, 4]) for share in (0.9, 1.1))

        def found(eta):
            part = (eta / table.values[row, 4] - 0.9) / 0.2
            return np.linalg.lstsq((1 - part) * low + part * high, curve / 6e-4)[0]

        return found(brentq(lambda eta: fraction * found(eta)[0] / c - eta, 0, 0.1, xtol=1e-13))

    def slopes(changes, changed):
        return np.stack([(changed(h) - changed(-h)) / (2 * h.sum()) for h in np.diag(changes)], axis=1)

    curve = frames.intensity[row]
    found = regression(giver, curve)
    by_taken = slopes(1e-2 * np.sqrt(np.diagonal(given)), lambda h: regression(giver + h, curve))
    by_points = slopes(np.full(len(curve), 1e-5), lambda h: regression(giver, curve + h))
    total = by_points @ by_points.T * 6e-4**2 + by_taken @ given @ by_taken.T
    np.testing.assert_allclose(table.values[row, [0, 3]], found, rtol=1e-4)
    np.testing.assert_allclose(table.covariance[row][np.ix_([0, 3], [0, 3])], total, rtol=0.05)


def test_the_exponent_of_a_weak_frame_is_its_own():
    """Porod scattering beside weak crystals, and beside clear ones a power law of another exponent."""
    model = Model.model_construct(q_min=0.1, q_max=5.0, radius=(0.5, 4.0), sigma=(0.03, 0.6), power_law=(2.0, 5.0))
    truth = np.tile([0.4, 1.6, 0.15**2, 0.0, 1e-3, 4.0], (30, 1))
    truth[25:] = [20.0, 1.6, 0.15**2, 0.0, 1e-3, 3.0]
    _, _, table = of_one(model, truth)
    weak = np.array([flag == "weak" for flag in table.flags])
    assert weak[:25].sum() > 20 and not weak[25:].any()
    off = pulls(table, truth, [CRYSTALS, 5])[weak]
    assert np.abs(off.mean(axis=0)).max() < 0.7
    np.testing.assert_allclose(off.std(axis=0), 1, atol=0.45)


# --- a second fit that fails -----------------------------------------------------------------------------------------


def test_a_fit_beside_a_size_held_that_ends_outside_its_range_is_not_reported():
    """Agglomerates just inside the range: beside crystals that are held, noise leads some fits out of it."""
    truth = np.concatenate(
        [truth_of(np.full(60, 0.5), np.full(60, 60.0)), truth_of(np.full(4, 40.0), np.full(4, 200.0))]
    )
    truth[:60, RADIUS] = 1.795
    truth[60:, RADIUS] = 1.4
    _, table, _ = fitted(curves_of(truth, 1))
    said = np.array([flag == "" for flag in table.others[0]])
    assert 0 < (~said).sum() < 15
    assert {table.others[0][k] for k in np.flatnonzero(~said)} == {"not_converged"}
    assert (table.values[said, RADIUS] <= 1.8).all() and table.converged[said].all()
    assert not table.converged[~said].any()
    off = pulls(table, truth, [AGGLOMERATES, RADIUS])[said]
    assert np.abs(off.mean(axis=0)).max() < 0.8 and np.abs(off).max() < 5


# --- who gives -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("note", ["outlier", "beam_lost", "saturated"])
def test_a_bubble_gives_its_size_to_nobody(note):
    frames = single.curves([0.3] * 10 + [20.0] * 5)
    bubble = single.curves([20.0], radius=3.5, width=0.2).intensity[0] + 5e-3 * np.exp(-single.Q)
    frames.intensity[3] = bubble
    frames = replace(frames, notes=tuple(note if k == 3 else "" for k in range(15)))
    _, table, _ = single.fitted(frames)
    assert table.flags[3] == "" and table.flags[0] == "weak"
    np.testing.assert_array_equal(table.values[:3, 1], table.values[10, 1])


def test_a_frame_that_the_model_does_not_describe_gives_no_size():
    frames = single.curves([0.3] * 10 + [20.0] * 5)
    frames.intensity[10] += 1.5e-3 * np.exp(-3 * (single.Q - 2.5) ** 2)
    first, table, _ = single.fitted(frames)
    assert poor(first)[10] and good(first)[10]
    np.testing.assert_array_equal(table.values[:3, 1], table.values[11, 1])
    noted = replace(frames, notes=("",) * 10 + ("saturated",) * 5)
    again = refit_weak(noted, *fit(noted, single.MODEL, single.SPHERES), single.MODEL)[0]
    np.testing.assert_array_equal(again.values[:3, 1], table.values[11, 1])


def test_of_two_populations_the_nearest_in_time_gives_its_size():
    """Frames written in another order than they were measured in."""
    truth = truth_of([0.0, 15.0, 15.0, 15.0], np.full(4, 150.0), [2.6, 2.6, 3.0, 3.4])
    frames = replace(curves_of(truth), start_s=np.array([10.0, 90.0, 70.0, 11.0]))
    _, table, _ = fitted(frames)
    assert table.values[0, 1] == table.values[3, 1]
    untimed = replace(frames, start_s=np.array([10.0, np.nan, np.nan, 11.0]))
    assert fitted(untimed)[1].values[0, 1] == table.values[1, 1]


def test_memory_does_not_grow_with_the_square_of_the_frames():
    n, q = 4000, np.linspace(0.3, 4, 12)
    truth = truth_of(np.full(n, 15.0), np.full(n, 150.0))
    frames = curves_of(truth[:1])
    narrow = {name: np.zeros(12) for name in ("shared", "dark_sigma", "taken_off")}
    frames = replace(
        frames, q_nm=q, intensity=SPHERES.curve(q, truth), statistical=np.full((n, 12), 3e-4), counts=np.ones((n, 12)),
        index=np.arange(n), start_s=np.arange(n, dtype=float), exposure_s=np.ones(n), problems=("",) * n,
        notes=("",) * n, dark_factor=np.zeros(n), **narrow,
    )  # fmt: skip
    covariance = np.zeros((n, 7, 7)) + np.diag((0.01 * np.abs(truth[0]) + 1e-9) ** 2)
    values = truth.copy()
    values[n // 2, 4:] = np.nan
    table = FitTable(
        np.arange(n), values, covariance, np.isfinite(values), np.ones(n), np.full(n, 12), np.ones(n, dtype=bool),
        ("",) * n, SPHERES.spec, (("",) * n,),
    )  # fmt: skip
    tracemalloc.start()
    refit_weak(frames, table, frames.intensity.copy(), MODEL)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6  # a matrix of frames by frames is 128e6


# --- what is said ----------------------------------------------------------------------------------------------------


def test_no_fit_with_an_amount_below_zero_is_kept():
    """A background with more agglomerates in it than the frames have."""
    first, _, _ = fitted(curves_of(truth_of(np.full(20, 15.0), np.full(20, -25.0))))
    assert not (first.values[:, [CRYSTALS, AGGLOMERATES]] < 0).any()


def test_an_amount_below_zero_is_said():
    truth = truth_of(np.full(23, 15.0), np.array([150.0] * 3 + [-25.0] * 20))
    _, table, _ = fitted(curves_of(truth, 1))
    assert set(table.others[0][:3]) == {""} and set(table.others[0][3:]) == {"negative_amount"}
    assert pulls(table, truth, [AGGLOMERATES])[3:].std() == pytest.approx(1, abs=0.6)


def test_a_clear_population_with_a_width_below_zero_is_not_called_weak():
    truth = truth_of(np.full(10, 15.0), np.full(10, 150.0))
    frames = curves_of(truth_of(np.full(10, 15.0), np.zeros(10)))
    frames.intensity[:] += FACTOR * 150 * gaussian_spheres(Q, truth[:, RADIUS], np.full(10, -0.02))[0]
    _, table, _ = fitted(frames)
    assert set(table.others[0]) == {"negative_variance"} and set(table.flags) == {""}


# --- how far a size may have moved -----------------------------------------------------------------------------------


def test_the_error_of_a_held_size_holds_how_far_it_moves_on_the_way():
    """Crystals that grow by 0.05 nm a frame, too weak at first: numpy's line through five givers says the rate."""
    n, early = 30, np.arange(8)
    c, radius = np.full(n, 15.0), 2.2 + 0.05 * np.arange(n)
    c[early] = 0.5
    truth = truth_of(c, np.full(n, 150.0), radius)
    first, table, _ = fitted(curves_of(truth, 2))
    assert {table.flags[k] for k in early} <= {"weak", "size_held"} and set(table.flags[8:]) == {""}
    held = early[table.values[early, 1] == first.values[8, 1]]
    assert held.size > 3
    errors = np.sqrt(np.einsum("naa->na", first.covariance))
    for column in (1, 2):
        around = slice(8, 13)
        rate = np.polyfit(np.arange(8, 13), first.values[around, column], 1, w=1 / errors[around, column])[0]
        moved = np.minimum(np.abs(rate * (held - 8)), np.ptp(first.values[8:, column]))
        wanted = first.covariance[8, column, column] + moved**2
        np.testing.assert_allclose(table.covariance[held, column, column], wanted, rtol=1e-6)
    off = pulls(table, truth, [CRYSTALS, AGGLOMERATES, RADIUS])[held]
    assert np.abs(off).max() < 3
    own = first.covariance[8, 1, 1] ** 0.5
    assert abs(truth[0, 1] - table.values[held[0], 1]) > 5 * own, "the giver's own error does not tell"


def test_a_size_that_does_not_move_is_as_well_known_as_in_its_giver():
    """Frames in time or not: a giver that is alone has no rate, and says nothing of one."""
    truth = truth_of([15.0, 0.0, 0.0], np.full(3, 150.0))
    first, table, _ = fitted(curves_of(truth, 1))
    assert table.flags[1:] != ("", "")
    np.testing.assert_allclose(table.covariance[1:, 1, 1], first.covariance[0, 1, 1], rtol=1e-6)
