"""What stands out in a series is found, and nothing else; truth by construction."""

from dataclasses import replace

import numpy as np
import pytest

from saxs_pipeline.science import quality
from saxs_pipeline.types import Curves

BINS = 120
TIME = np.concatenate([np.arange(-10, 0) * 0.1, np.geomspace(0.1, 500, 50)])


def series(seed=1, noise=0.01):
    """Nothing before t = 0, a jump there, then growth; pixels per bin rise with q."""
    rng = np.random.default_rng(seed)
    level = np.where(TIME < 0, 0.0, 0.3 + 1 - np.exp(-np.maximum(TIME, 0) / 60))
    truth = 1 + level[:, None] * np.exp(-np.linspace(0, 3, BINS))
    n = len(TIME)
    return Curves(
        q_nm=np.linspace(0.1, 5, BINS),
        intensity=truth + rng.normal(0, noise, truth.shape),
        statistical=np.full(truth.shape, noise),
        shared=np.zeros(BINS),
        counts=np.tile(np.arange(1.0, BINS + 1), (n, 1)),
        index=np.arange(n),
        start_s=TIME,
        exposure_s=np.zeros(n),
        problems=("",) * n,
        notes=("",) * n,
        dark_sigma=np.zeros(BINS),
        dark_factor=np.zeros(n),
        taken_off=np.zeros(BINS),
    )


def words(curves, rate=None):
    return quality.words(quality.assess(curves, rate), BINS)


def test_noise_jump_and_growth_are_not_remarkable():
    for seed in range(20):
        assert not any(words(series(seed)))
    found = quality.assess(series(), None).neighbours_chi2
    assert 0.8 < np.median(found) < 1.05  # the smallest of three


@pytest.mark.parametrize("rows", [[25], [30, 31], [0], [59], [9], [10]])
def test_a_bubble_is_an_outlier_and_its_neighbours_are_not(rows):
    """Also the first and the last frame, and those at the injection."""
    curves = series()
    curves.intensity[rows] *= 1.2
    assert [k for k, word in enumerate(words(curves)) if word] == rows
    assert words(curves)[rows[0]] == "outlier"


def test_frames_far_apart_all_differ_and_none_stands_out():
    """Every third frame only: what lies between two of them is no straight line, but a bubble is still one."""
    sparse = series(noise=0.002).rows((np.arange(60) >= 10) & (np.arange(60) % 3 == 0))
    found = quality.assess(sparse, None).neighbours_chi2
    assert (found > 3).any()
    assert not any(words(sparse))
    sparse.intensity[5] *= 1.5
    assert [k for k, word in enumerate(words(sparse)) if word] == [5]


def test_a_zinger_in_few_bins_stands_out():
    curves = series()
    curves.intensity[40, 17] += 0.5
    assert [k for k, word in enumerate(words(curves)) if word] == [40]


def test_a_frame_that_cannot_be_used_neither_counts_nor_is_judged():
    curves = series()
    curves.intensity[20] = np.nan
    curves = replace(curves, problems=("",) * 20 + ("nan: why",) + ("",) * 39)
    found = quality.assess(curves, None)
    assert not any(quality.words(found, BINS))
    assert np.isnan([found.intensity[20], found.neighbours_chi2[20], found.valid_share[20]]).all()
    assert np.isfinite(np.delete(found.neighbours_chi2, 20)).all()


def test_the_mean_intensity_is_that_of_all_pixels_with_its_error():
    means = [quality.assess(series(seed), None) for seed in range(200)]
    values = np.array([found.intensity for found in means])
    weights = np.arange(1, BINS + 1) / np.arange(1, BINS + 1).sum()
    truth = (
        1
        + np.where(TIME < 0, 0.0, 0.3 + 1 - np.exp(-np.maximum(TIME, 0) / 60))
        * (weights * np.exp(-np.linspace(0, 3, BINS))).sum()
    )
    np.testing.assert_allclose(values.mean(axis=0), truth, atol=4e-4)
    np.testing.assert_allclose(values.std(axis=0).mean() / means[0].intensity_sigma, 1, atol=0.05)


def test_a_lost_beam_and_missing_pixels():
    curves, rate = series(), np.full(60, 2e7)
    rate[33], rate[45:48] = 4e6, 0.7e7
    curves.counts[50] *= 0.8
    found = words(curves, rate)
    assert [k for k, word in enumerate(found) if word == "beam_lost"] == [33, 45, 46, 47]
    assert [k for k, word in enumerate(found) if word == "few_pixels"] == [50]
    assert not any(words(series(), None))


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_short_series_have_little_to_compare(n):
    found = quality.assess(series().select(0, n), np.ones(n))
    assert len(quality.words(found, BINS)) == n
    assert np.isnan(found.neighbours_chi2).all() == (n < 3)
