"""What is known of a background's factor; truth in closed form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from saxs_pipeline.stages import reduce
from saxs_pipeline.types import Curves, Uncertain


def curves(level, n, **kinds):
    return Curves(
        q_nm=np.arange(1.0, 4),
        intensity=np.full((n, 3), level),
        statistical=np.full((n, 3), 0.1),
        shared=np.zeros(3),
        counts=np.ones((n, 3)),
        index=np.arange(n),
        start_s=np.arange(n) * 1.0,
        exposure_s=np.ones(n),
        problems=("",) * n,
        notes=("",) * n,
        dark_sigma=np.zeros(3),
        dark_factor=np.zeros(n),
        taken_off=np.zeros(3),
        **kinds,
    )


def test_a_background_has_one_factor_from_its_readings_and_both_transmissions():
    """Four readings of 2 % each leave 1 %; the transmissions of sample and background 0.3 % and 0.4 %."""
    own = (Uncertain(0.5, 0.0015), Uncertain(0.8, 0.0032))
    background = reduce.background(curves(2.0, 4, factor_rel=0.02), np.ones(4), "test", 1.5, own)
    assert background.factor_rel == pytest.approx(np.sqrt(0.01**2 + 0.003**2 + 0.004**2))
    np.testing.assert_allclose(background.sigma, 0.05)  # what moves all of it is not in its points
    reduced = reduce.subtract(curves(5.0, 2, factor_rel=0.02), background)
    np.testing.assert_allclose(reduced.by_background, 1.5 * 2.0 * background.factor_rel)
    np.testing.assert_allclose(reduced.by_factor, 0.02 * 5.0)  # the reading moves what was taken off as well
    np.testing.assert_allclose(reduced.intensity, 2.0)


def test_a_reading_moves_the_whole_curve():
    """By the law of propagation, from frames drawn with such readings."""
    rng, n = np.random.default_rng(4), 100_000
    drawn = curves(5.0, n, factor_rel=0.02)
    drawn = replace(drawn, intensity=5.0 * (1 + 0.02 * rng.standard_normal((n, 1))) * np.ones(3))
    found = reduce.subtract(drawn, reduce.background(curves(2.0, 4), np.ones(4), "test", 1.0)).intensity
    np.testing.assert_allclose(np.cov(found.T), 0.1**2, rtol=0.02)
