"""Size distributions of curves, and the compiled minimiser against SciPy's."""

from dataclasses import replace

import numpy as np
import pytest

from saxs_pipeline.sample_config import Sample
from saxs_pipeline.science.formfactors import gaussian_spheres, intensity_factor
from saxs_pipeline.science.nonnegative import NonNegative
from saxs_pipeline.science.size_inversion import Frame, radius_grid, set_up, single_size, smoothest, solve
from saxs_pipeline.sizes_config import Sizes
from saxs_pipeline.stages.compiled_nonnegative import minimise
from saxs_pipeline.stages.sizes import size_distributions
from saxs_pipeline.types import Uncertain
from tests.stages.test_fit import Q, curves

FACTOR = intensity_factor(35.2e-6)
SETTINGS = Sizes.model_construct(q_min=0.3, q_max=4.5, radius=(0.5, 6.0), bins=101, spacing="geometric")
SAMPLE = Sample.model_construct(contrast=Uncertain(35.2e-6, 0.3e-6))
VOLUME = 4 / 3 * np.pi * (2.2**3 + 3 * 2.2 * 0.02) * 20 * 6.02214076e-7  # of 20 µmol/L, Gaussian, σ² = 0.02 nm²


def made(n=3, problems=None, **other):
    return replace(curves(np.full(n, 20.0), 2.2, 0.02**0.5, problems=problems), **other)


# --- the stage -------------------------------------------------------------------------------------------------------


def test_absolute_curves_give_volume_fractions_with_the_error_of_the_scale_apart():
    found = size_distributions(made(scale_rel=0.006), SETTINGS, SAMPLE, None)
    assert found.absolute
    assert found.scale_rel == pytest.approx(np.hypot(0.006, 2 * 0.3 / 35.2))
    for total, error in zip(found.value("volume_fraction"), found.error("volume_fraction"), strict=True):
        assert abs(total - VOLUME) < 4 * error < 0.05 * VOLUME
    area = (found.density * found.bin_nm).sum(axis=1)
    np.testing.assert_allclose(area, VOLUME, rtol=0.02)


def test_the_error_of_a_frames_own_monitor_is_in_its_volume_and_nowhere_else():
    without, with_it = (
        size_distributions(made(factor_rel=np.full(3, rel)), SETTINGS, SAMPLE, None) for rel in (0.0, 0.01)
    )
    place = 3
    added = with_it.errors**2 - without.errors**2
    np.testing.assert_allclose(added[:, place], (0.01 * without.value("volume_fraction")) ** 2, rtol=1e-6)
    np.testing.assert_array_equal(np.delete(added, place, axis=1), 0)


@pytest.mark.parametrize(
    ("unit", "sample"), [("arbitrary", SAMPLE), ("1/mm", None), ("1/mm", Sample.model_construct())]
)
def test_without_scale_or_contrast_no_volume_fraction_is_claimed(unit, sample):
    found = size_distributions(made(unit=unit), SETTINGS, sample, None)
    assert not found.absolute
    assert np.isnan(found.value("volume_fraction")).all()
    assert np.isnan(found.value("background_1_mm")).all() == (unit != "1/mm")
    reference = size_distributions(made(), SETTINGS, SAMPLE, None)
    np.testing.assert_allclose(found.value("mean_nm"), reference.value("mean_nm"), rtol=1e-9)


def test_frames_that_are_not_usable_are_not_measured():
    found = size_distributions(made(problems=("", "beam_lost", "")), SETTINGS, SAMPLE, None)
    assert found.flags[1] == "not_measured"
    assert np.isnan(found.density[1]).all() and np.isfinite(found.density[[0, 2]]).all()


def test_only_the_window_counts():
    spoilt = made()
    outside = (Q < 0.3) | (Q > 4.5)
    spoilt.intensity[:, outside] = 1e3
    assert outside.sum() > 20
    found, reference = (size_distributions(c, SETTINGS, SAMPLE, None) for c in (spoilt, made()))
    np.testing.assert_array_equal(found.density, reference.density)


# --- the minimiser ---------------------------------------------------------------------------------------------------


def sums(problem, strength, x, data):
    fit = ((x @ problem.matrix.T - data) ** 2).sum(axis=1)
    return fit + strength * ((x @ problem.penalty.T) ** 2).sum(axis=1)


def test_the_minimiser_finds_the_minimum_of_scipys_nnls_from_any_start():
    rng = np.random.default_rng(0)
    for _ in range(60):
        k, n = rng.integers(3, 25), rng.integers(3, 60)
        matrix, data = rng.normal(size=(k, n)), 10 * rng.normal(size=(4, k))
        penalty, strength = np.diag(10 ** rng.uniform(-1, 1, n)), 10 ** rng.uniform(-2, 2)
        reference, problem = NonNegative(matrix, penalty), NonNegative(matrix, penalty, minimise)
        found = problem.solve(strength, data, (rng.random(n) < 0.5).astype(float))
        assert (found >= 0).all()
        expected = sums(reference, strength, reference.solve(strength, data), data)
        np.testing.assert_allclose(sums(problem, strength, found, data), expected, rtol=1e-7, atol=1e-7)


def test_the_minimiser_ends_and_is_right_on_the_curves_it_is_for():
    """To 1e-5 in χ², where 0.4 decides."""
    sigma = 2e-4
    clean = 20 * FACTOR * gaussian_spheres(Q, np.array([2.2]), np.array([0.02]))[0][0]
    noisy = clean + np.random.default_rng(1).normal(0, sigma, (5, Q.size))
    radii = radius_grid(0.5, 6.0)
    for curve in noisy:
        frames = [
            Frame(set_up(Q, radii, FACTOR, which), curve, np.full(Q.size, 1 / sigma)) for which in (None, minimise)
        ]
        one, other = frames
        solved = solve(one, single_size(one))
        data = one.data + one.problem.normals[:, : one.data.size]
        found = other.sharp.solve(solved.strength, data, solved.fraction)
        expected = sums(one.sharp, solved.strength, one.sharp.solve(solved.strength, data), data)
        np.testing.assert_allclose(sums(other.sharp, solved.strength, found, data), expected, atol=1e-5)
        smooth, same = (smoothest(frame, frame.data, solved.fraction, 20.0) for frame in (one, other))
        np.testing.assert_allclose(same, smooth, atol=1e-4 * smooth.max())


def test_what_the_minimiser_cannot_do_is_said():
    """No minimum without bounds: a matrix that is not positive definite."""
    x = minimise(np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([[1.0, 1.0]]), np.array([True, True]))
    assert np.isnan(x).all()
