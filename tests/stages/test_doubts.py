"""What cannot be is said of any population, whatever their order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from saxs_pipeline.science.distributions import mean_volume
from saxs_pipeline.stages.doubts import doubts
from saxs_pipeline.types import Estimate, Quantities
from tests.spheres import gaussian_model, two_populations
from tests.stages.test_fit import curves

N = 6
TWO = two_populations(1.0)


def estimate(value, error=0.0):
    return Estimate(np.broadcast_to(value, N).astype(float), np.full(N, error), np.zeros(N))


def quantities(*, radius=2.0, sigma=0.2, c=10.0, share=0.4, chi2=1.0):
    return Quantities(
        np.arange(N), np.arange(N, dtype=float), np.ones(N), estimate(radius, 0.01), estimate(sigma, 0.01),
        estimate(c, 0.1), estimate(share, 0.02), estimate(0.0), np.full(N, chi2), np.zeros((N, 3, 3)), ("ok",) * N,
    )  # fmt: skip


FRAMES = curves([20.0] * N)
NONE = quantities(radius=np.nan, sigma=np.nan, c=np.nan, share=np.nan)


def test_nothing_is_said_of_what_can_be():
    assert doubts(TWO, FRAMES, (quantities(), quantities())) == []
    assert doubts(TWO, FRAMES, (quantities(), NONE)) == []
    assert doubts(gaussian_model(1.0), FRAMES, ()) == []


@pytest.mark.parametrize("shares", [(0.2, 1.2), (1.2, 0.2), (0.7, 0.6)])
def test_a_yield_above_one_is_said_of_each_population_and_of_all(shares):
    (text,) = doubts(TWO, FRAMES, tuple(quantities(share=share) for share in shares))
    assert text.startswith("the yield exceeds 100 % in 6 frames")


def test_a_sum_within_its_errors_is_none():
    assert doubts(TWO, FRAMES, (quantities(share=0.52), quantities(share=0.52))) == []


def test_no_radius_names_keys_that_there_are():
    (text,) = doubts(gaussian_model(1.0), FRAMES, (NONE,))
    assert "check model.radius and model.sigma" in text
    (text,) = doubts(TWO, FRAMES, (NONE, NONE))
    assert "model.populations" in text and "model.radius" not in text
    (text,) = doubts(TWO, FRAMES, (NONE, quantities()))
    assert text.startswith("no frame supports a radius of crystals, ") and "put agglomerates first" in text


def test_frames_beyond_a_range_are_counted_and_the_key_is_named():
    model = two_populations(1.0, power_law=(3.0, 4.5))
    flags = ("ok", "out_of_range", "weak|out_of_range", "ok", "at_limit", "ok")
    both = (replace(quantities(), flags=flags), quantities())
    (text,) = doubts(model, FRAMES, both)
    assert text.startswith("in 2 frames model.power_law lies beyond its range") and "left out of the analysis" in text


@pytest.mark.parametrize("distribution", ["gaussian", "lognormal"])
def test_interference_is_that_of_the_volume_of_all(distribution):
    """Each takes 0.6 % of the volume, which is 1.2 % together; ⟨V⟩ of broad lognormals is much larger."""
    model = two_populations(1.0, distribution=distribution)
    volume = float(mean_volume(2.0, 1.0, distribution))  # nm³; 1 µmol/L is 6.022e-7 per nm³
    one = quantities(sigma=1.0, c=0.006 / (6.02214076e-7 * volume))
    assert doubts(model, FRAMES, (one, NONE)) == []
    (text,) = doubts(model, FRAMES, (NONE, one, one)[1:])
    assert text.startswith("the crystals take 1.2 % of the volume")
