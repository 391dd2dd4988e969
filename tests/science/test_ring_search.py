"""Finding centre and distance on frames whose geometry is pyFAI's."""

from __future__ import annotations

import numpy as np
import pytest

from saxs_pipeline.science.bad_pixels import full_pixels, odd_pixels
from saxs_pipeline.science.ring_search import (
    Centre,
    RadialPeaks,
    centres,
    flatten,
    line_centre,
    match_lines,
    radial_peaks,
    symmetry_centres,
)
from tests.ring_frames import Setup, rings, two_theta

SETUP = Setup()
WIDE = (1.0, 1e9)


def away(centre: Centre, setup: Setup) -> float:
    return float(np.hypot(centre.slow + 0.5 - setup.centre_px[1], centre.fast + 0.5 - setup.centre_px[0]))


def gaps(shape):
    good = np.ones(shape, dtype=bool)
    good[shape[0] // 2 - 3 : shape[0] // 2 + 3] = good[:, shape[1] // 3 : shape[1] // 3 + 6] = False
    return good


def test_the_frames_symmetry_gives_the_centre_to_half_a_pixel():
    image, good = rings(SETUP, heights=40.0), gaps(SETUP.shape)
    assert away(symmetry_centres(flatten(image, good), good)[0], SETUP) <= 0.5


@pytest.mark.parametrize("centre", [(470.0, 240.0), (6.0, 9.0), (-60.0, 200.0)])
def test_the_centre_may_lie_at_an_edge_in_a_corner_or_outside(centre):
    setup = Setup(centre_px=centre)
    image, good = rings(setup), gaps(setup.shape)
    assert min(away(one, setup) for one in centres(flatten(image, good), good)) < 1.0


def test_half_of_every_ring_may_be_hidden():
    image, good = rings(SETUP), gaps(SETUP.shape)
    good[:, : int(SETUP.centre_px[0]) + 1] = False
    assert away(line_centre(flatten(image, good), good), SETUP) < 1.5
    assert min(away(one, SETUP) for one in centres(flatten(image, good), good)) < 0.7


def test_radial_peaks_are_the_rings():
    image, good = rings(SETUP), gaps(SETUP.shape)
    peaks = radial_peaks(image, good, Centre(SETUP.centre_px[1] - 0.5, SETUP.centre_px[0] - 0.5))
    expected = np.tan(two_theta("AgBh", SETUP)) * SETUP.distance_m / SETUP.pixel_m
    np.testing.assert_allclose(peaks.radius_px[:8], expected[:8], atol=0.4)
    np.testing.assert_allclose(peaks.width_px[:8], 1.5, atol=0.7)


def test_noise_and_broad_scattering_have_no_radial_peaks():
    rng, good = np.random.default_rng(0), np.ones((300, 300), dtype=bool)
    y, x = np.mgrid[:300, :300] - 150.0
    broad = 200 * np.exp(-(x**2 + y**2) / (2 * 60**2)) + 5
    for level in (np.full((300, 300), 3.0), broad):
        assert radial_peaks(rng.poisson(level).astype(float), good, Centre(150.0, 150.0)).radius_px.size == 0


# --- the comb --------------------------------------------------------------------------------------------------------

LINES = two_theta("AgBh", SETUP)
DISTANCE = SETUP.distance_m / SETUP.pixel_m


def peaks_of(lines, extra=(), distance=DISTANCE):
    radius = np.sort(np.concatenate([distance * np.tan(lines), np.array(extra, dtype=float)]))
    return RadialPeaks(Centre(0.0, 0.0), radius, *np.ones((2, radius.size)))


@pytest.mark.parametrize("seen", [slice(0, 8), slice(2, 7), slice(0, 2), slice(1, 3), [0, 1, 2, 4, 5, 7]])
def test_the_distance_is_not_a_multiple_of_the_true_one(seen):
    match = match_lines(peaks_of(LINES[seen]), LINES, WIDE)
    assert match is not None and match.distance_px == pytest.approx(DISTANCE, rel=1e-3)
    assert match.lines == LINES[seen].size


def test_peaks_that_are_no_rings_lower_the_agreement_only():
    match = match_lines(peaks_of(LINES[:6], extra=(45.0, 157.0)), LINES, WIDE)
    assert match is not None and match.distance_px == pytest.approx(DISTANCE, rel=1e-3)
    assert match.agreement == pytest.approx(6 / 8)


def test_only_distances_that_are_allowed_are_tried():
    match = match_lines(peaks_of(LINES[:6]), LINES, (1.6 * DISTANCE, 2.4 * DISTANCE))
    assert match is None or match.agreement < 0.6
    assert match_lines(peaks_of(LINES[:0]), LINES, WIDE) is None


def test_an_irregular_comb_is_unique():
    lines = two_theta("LaB6", Setup(energy_keV=17.0))
    match = match_lines(peaks_of(lines[1:9], distance=1500.0), lines, WIDE)
    assert match is not None and match.distance_px == pytest.approx(1500.0, rel=1e-3) and match.agreement == 1.0


# --- pixels ----------------------------------------------------------------------------------------------------------


def test_hot_and_dead_pixels_are_found_and_narrow_rings_are_not():
    image = rings(SETUP, heights=3000.0, level=100.0, width_px=0.8).astype(float)
    good = gaps(SETUP.shape)
    rng = np.random.default_rng(5)
    place = tuple(rng.integers(5, 470, (2, 60)))
    hot = image.copy()
    hot[place] += 20_000
    odd = odd_pixels(hot, good)
    assert odd[place][good[place]].mean() > 0.95
    odd[place] = False
    assert odd.sum() < 20


def test_full_pixels_are_told_from_gaps_marked_by_the_largest_value():
    image = np.full((60, 60), 20, np.uint16)
    image[:, 40:43] = 65535
    assert not full_pixels(image, None).any()
    y, x = np.mgrid[:60, :60]
    image[np.hypot(y - 20, x - 20) < 8] = 50_000
    spot = np.hypot(y - 20, x - 20) < 5
    image[spot] = 65535
    np.testing.assert_array_equal(full_pixels(image, None), spot)
    assert not full_pixels(image.astype(np.int32), None).any()
    np.testing.assert_array_equal(full_pixels(image.astype(np.int32), 65535.0), spot)
    assert full_pixels(np.full((9, 9), 255, np.uint8), None).all()
