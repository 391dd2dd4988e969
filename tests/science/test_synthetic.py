"""Detector images of a known truth: closed forms for the pixels, independence of the frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from saxs_pipeline.science import synthetic
from saxs_pipeline.science.scenarios import Growth, Scenario, Truth, growth_truth
from saxs_pipeline.science.synthetic import Detector
from saxs_pipeline.types import BadInput

SMALL = replace(Scenario("small"), shape=(40, 48), centre_px=(23.2, 20.1), pixel_m=3.5e-3)


# --- timing


def test_timing_law_of_prins():
    start = synthetic.frame_starts(575, 0.075, 0.022, 1.015)
    assert np.diff(start)[0] == pytest.approx(0.075 + 0.022 * 1.015, rel=1e-12)
    assert start[0] == 0.022
    assert np.diff(start)[-1] == pytest.approx(113, abs=0.5)
    assert start[-1] == pytest.approx(7703, abs=0.5)


@pytest.mark.parametrize("n", [20, 41, 300, 4000])
def test_other_numbers_of_frames_end_as_late(n):
    growth = synthetic.growth_for_span(n, 0.075, 0.022, 7703.0)
    assert synthetic.frame_starts(n, 0.075, 0.022, growth)[-1] == pytest.approx(7703, rel=2e-3)
    assert growth == round(growth, 6)


def test_more_frames_than_fit_are_refused():
    with pytest.raises(BadInput, match="at most 79413"):
        synthetic.growth_for_span(90_000, 0.075, 0.022, 7703.0)
    assert synthetic.growth_for_span(79_413, 0.075, 0.022, 7703.0) >= 1


def test_beam_decays_by_a_few_percent_and_is_refilled():
    beam = synthetic.beam_intensity(np.linspace(0, 7700, 2000), seed=3, scan=1)
    assert 0.93 < beam.min() < 0.95
    assert 0.99 < beam.max() < 1.005
    steps = np.diff(beam)
    assert np.sum(steps > 0.03) == 2  # refills
    assert np.std(steps[np.abs(steps) < 0.03]) == pytest.approx(np.sqrt(2) * 1e-3, rel=0.1)


def test_true_scales_scatter_as_stated():
    drawn = np.array([list(vars(synthetic.draw_scales(SMALL, seed)).values()) for seed in range(800)])
    stated = np.array([SMALL.sample_mm, SMALL.water_mm, SMALL.water_1_mm])
    normal = (drawn - stated[:, 0]) / stated[:, 1]
    assert np.abs(normal.mean(axis=0)).max() < 4 / np.sqrt(800)
    assert normal.std(axis=0) == pytest.approx(np.ones(3), abs=4 / np.sqrt(1600))
    assert np.abs(np.corrcoef(normal.T) - np.eye(3)).max() < 4 / np.sqrt(800)


# --- scattering


def test_crystals_scatter_as_in_the_reference_case():
    one = Truth(*(np.array([x]) for x in (0.0, 2.22, 0.13, 25.0, 0.8)))
    intensity = synthetic.crystals(np.array([0.0]), one, 0, 35.2e-6)
    assert intensity[0] == pytest.approx(0.412, abs=5e-4)


def test_behenate_rings_are_at_multiples_of_the_first():
    q = synthetic.q_grid(5.0)
    rings = synthetic.behenate_rings(q, 1.0, 0.025)
    peaks = q[1:-1][(rings[1:-1] > rings[:-2]) & (rings[1:-1] > rings[2:])]
    assert peaks == pytest.approx(1.07626 * np.arange(1, 5), abs=2e-3)


def detector_of_ones(shape: tuple[int, int]) -> Detector:
    return Detector(
        np.ones(shape, np.float32), np.ones(shape, bool), np.zeros(shape, bool), np.zeros(shape), np.zeros(shape), 1.6
    )


def test_expected_photons_are_curve_times_response_at_the_pixels_q():
    q_pixels = np.random.default_rng(5).uniform(0.1, 9.9, (60, 50))
    solid_angle, polarization = np.full(q_pixels.shape, 1.25e-7), np.linspace(0.98, 1, q_pixels.size).reshape(60, 50)
    onto = synthetic.projection(q_pixels, solid_angle, polarization, detector_of_ones(q_pixels.shape))
    truth = growth_truth(np.array([400.0]), Growth())
    curve = synthetic.crystals(synthetic.q_grid(10.0), truth, 0, 35.2e-6) + 7e-3
    photons = synthetic.expected_photons(curve, 3e9, onto)
    exact = synthetic.crystals(q_pixels.ravel(), truth, 0, 35.2e-6).reshape(q_pixels.shape) + 7e-3
    assert photons == pytest.approx(3e9 * 1.25e-7 * polarization * exact, rel=2e-5)


# --- detector


def test_detector_masks_every_pixel_that_is_of_no_use():
    detector = synthetic.build_detector(Scenario("full size"), seed=1)
    hot = detector.dark_adu > 1000
    assert detector.mask[~detector.live].all()
    assert detector.mask[hot].all()
    assert hot.sum() + (~detector.live & (detector.dark_adu > 5)).sum() >= 100
    assert detector.mask[238, 240]  # behind the beamstop
    assert detector.mask[:200, 240].all()  # its arm
    assert not detector.mask[300:470, 300:470].all()
    assert detector.mask.mean() < 0.02
    assert 0.01 < detector.flat.std() < 0.04
    assert detector.flat.dtype == np.float32
    assert 0.9 < detector.flat.min() < detector.flat.max() < 1.1


def test_beam_centre_is_in_the_middle_of_the_beamstop():
    shadow = synthetic.beamstop((100, 120), (60.3, 48.6))
    _, x = np.nonzero(shadow[46:])  # below lies the arm
    assert np.mean(x + 0.5) == pytest.approx(60.3, abs=0.35)
    assert not shadow[53:].any()


@pytest.fixture(scope="module")
def many_images():
    detector = synthetic.build_detector(SMALL, seed=2)
    photons = np.random.default_rng(0).uniform(0.2, 80, SMALL.shape) * detector.live
    images = np.stack([synthetic.read_out(photons, detector, synthetic.frame_stream(2, 1, i)) for i in range(1500)])
    return detector, photons, images


def test_mean_and_variance_of_the_pixels(many_images):
    """Poisson photons with gain, noise and rounding: mean gλ + d, variance g²λ + σ² + 1/12."""
    detector, photons, images = many_images
    seen = detector.noise_adu > 0
    n = len(images)
    variance = detector.gain**2 * photons + detector.noise_adu**2 + 1 / 12
    pull = (images.mean(axis=0) - detector.gain * photons - detector.dark_adu)[seen] / np.sqrt(variance / n)[seen]
    assert np.abs(pull).max() < 5
    assert pull.mean() == pytest.approx(0, abs=4 / np.sqrt(pull.size))
    assert pull.std() == pytest.approx(1, abs=4 / np.sqrt(2 * pull.size))
    ratio = (images.var(axis=0, ddof=1) / np.where(seen, variance, 1))[seen]
    assert ratio.mean() == pytest.approx(1, abs=4 * np.sqrt(2 / n / ratio.size))


def test_gaps_read_zero_and_dead_pixels_their_pedestal(many_images):
    detector, _, images = many_images
    gaps = detector.noise_adu == 0
    assert gaps.any()
    assert not images[:, gaps].any()
    dark = ~detector.live & ~gaps
    assert images[:, dark].mean() == pytest.approx(detector.dark_adu[dark].mean(), abs=0.02)


def test_images_are_cut_off_at_16_bits():
    detector = replace(detector_of_ones((2, 2)), dark_adu=np.array([[-50.0, 0.0], [10.0, 1e6]]))
    image = synthetic.read_out(np.zeros((2, 2)), detector, synthetic.frame_stream(1, 1, 0))
    assert image.dtype == np.uint16
    assert image.tolist() == [[0, 0], [10, 65535]]


# --- random streams


def image_of(seed: int, scan: int, index: int) -> np.ndarray:
    detector = synthetic.build_detector(SMALL, seed=1)
    return synthetic.read_out(np.full(SMALL.shape, 20.0), detector, synthetic.frame_stream(seed, scan, index))


def test_a_frame_does_not_depend_on_the_others():
    forwards = {i: image_of(7, 1, i) for i in (0, 1, 2, 3)}
    backwards = {i: image_of(7, 1, i) for i in (3, 1)}
    assert all(np.array_equal(forwards[i], backwards[i]) for i in backwards)


def test_frames_seeds_and_scans_differ():
    images = [image_of(*name) for name in ((7, 1, 0), (7, 1, 1), (7, 2, 0), (8, 1, 0), (1, 7, 0))]
    detector = synthetic.build_detector(SMALL, seed=1)
    seen = detector.noise_adu > 0
    for i, one in enumerate(images):
        for other in images[:i]:
            assert np.mean(one[seen] == other[seen]) < 0.2
    assert not np.array_equal(detector.flat, synthetic.build_detector(SMALL, seed=2).flat)
