"""Exponents and volume fractions at an end of their range: whether they say nothing, or lie beyond."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from saxs_pipeline.model_config import Model
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.science.limits import at_limit
from saxs_pipeline.stages.fit import fit, limit_words, poor, window
from saxs_pipeline.stages.fit_curve import fit_curve
from tests.one_curve import EVERYWHERE, one_curve
from tests.stages.test_fit import FACTOR, SIGMA, Q, curves

RANGE = {"q_min": 0.1, "q_max": 5.0, "radius": (0.5, 4.0), "sigma": (0.03, 0.6)}
MODEL = Model.model_construct(**RANGE, power_law=(3.0, 4.5))
TRUTH = CurveModel.of(Model.model_construct(**RANGE, power_law=(1.0, 6.0)).spec([FACTOR]))


def frames_of(exponent, n, d=1e-4):
    frames = curves(np.zeros(n), seed=1)
    values = np.tile([10.0, 2.2, 0.13**2, 1e-4, d, exponent], (n, 1))
    return replace(frames, intensity=frames.intensity + TRUTH.curve(Q, values))


def words(frames, model=MODEL):
    table, fitted = fit(frames, model, CurveModel.of(model.spec([FACTOR])))
    assert table.converged.all() and not poor(table).any()
    return table, np.array(limit_words(frames, table, fitted, window(frames, model)))


def test_an_exponent_beyond_its_range_is_not_called_unimportant():
    table, said = words(frames_of(2.5, 20))
    assert (said == "out_of_range").all()
    assert (table.values[:, 5] == 3.0).all()


def test_the_same_with_sizes_that_are_known():
    fixed = MODEL.model_copy(update={"fixed": {"radius": 2.2, "sigma": 0.13}})
    assert (words(frames_of(2.5, 5), fixed)[1] == "out_of_range").all()


def test_an_exponent_at_the_very_end_is_beyond_it_by_chance_only():
    """Porod's exponent, and a range that ends with it: noise leads half of the fits out, a fortieth by two errors."""
    model = MODEL.model_copy(update={"power_law": (2.0, 4.0)})
    _, said = words(frames_of(4.0, 200), model)
    assert np.mean(said != "") == pytest.approx(0.5, abs=0.12)
    assert np.mean(said == "out_of_range") < 0.06


def test_where_there_is_no_power_law_its_exponent_says_nothing():
    table, said = words(frames_of(3.5, 40, d=0.0))
    held = at_limit(table.model, table.values, table.free)["exponent"]
    assert held.sum() > 10
    assert (said[held] == "at_limit").all() and (said[~held] == "").all()


def test_less_interference_than_the_range_allows_is_beyond_it():
    hard = {"structure_factor": {"volume_fraction": [0.02, 0.3]}}
    model = Model.model_validate({"q_min": "0.1 1/nm", "q_max": "5 1/nm", "radius": ["1.5 nm", "3 nm"], **hard})
    assert (words(curves([1.0] * 2, radius=2.2), model)[1] == "out_of_range").all()


def in_depth(exponent, d):
    noise = np.random.default_rng(0).normal(0, SIGMA, len(Q))
    exact = TRUTH.curve(Q, np.array([[10.0, 2.2, 0.13**2, 1e-4, d, exponent]]))[0]
    return fit_curve(
        one_curve(exact + noise, SIGMA, q=Q), EVERYWHERE, replace(TRUTH.spec, power_law=(3.0, 4.5)), profiled=False
    )


def test_one_curve_in_depth_says_that_its_exponent_lies_beyond():
    found = in_depth(2.5, 1e-4)
    one = found.parameter("exponent")
    assert (one.value, one.how) == (3.0, "held at an end of its range") and np.isnan(one.error)
    assert found.notes == ("exponent: held at 3, an end of its range; it lies beyond: widen model.power_law",)


def test_one_curve_in_depth_says_that_it_does_not_tell_its_exponent():
    (note,) = in_depth(3.5, -1e-7).notes
    assert note.startswith("exponent: held at ") and note.endswith("an end of its range, for it says nothing here")
