"""Angles on a tilted detector against pyFAI; the least-squares camera against exact points and its own statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry
from pyFAI.geometryRefinement import GeometryRefinement

from saxs_pipeline.science.camera import (
    Camera,
    angle_derivatives,
    fit_camera,
    on_detector,
    poni_errors,
    scattering_angles,
    tilt,
    to_poni,
)
from saxs_pipeline.types import BadInput
from tests.ring_frames import Setup, two_theta

PIXEL = 1e-4
CAMERAS = [
    Camera(1.0, 0.05, 0.06),
    Camera(0.3, 0.02, 0.05, 0.1, -0.2),
    Camera(0.2, -0.03, 0.05, -0.5, 0.3),
    Camera(2.0, 0.04, 0.03, 0.0, 0.02),
]


def pyfai(camera: Camera) -> Geometry:
    detector = Detector(PIXEL, PIXEL, max_shape=(1000, 1000))
    return Geometry(*to_poni(camera), camera.rot1, camera.rot2, 0.0, detector=detector, wavelength=1e-10)


def pixels(n=300):
    indices = np.random.default_rng(1).uniform(0, 1000, (n, 2))
    return indices, (indices + 0.5) * PIXEL


@pytest.mark.parametrize("camera", CAMERAS)
def test_angles_are_those_of_pyfai_and_lead_back_to_the_point(camera):
    indices, position = pixels()
    two, azimuth = scattering_angles(position, camera)
    np.testing.assert_allclose(two, pyfai(camera).tth(*indices.T), rtol=1e-12)
    np.testing.assert_allclose(np.angle(np.exp(1j * (azimuth - pyfai(camera).chi(*indices.T)))), 0, atol=1e-12)
    np.testing.assert_allclose(on_detector(two, azimuth, camera), position, atol=1e-14)


def test_a_ray_that_misses_the_detector_has_no_point():
    assert np.isnan(on_detector(np.array([math.pi / 2 + 0.1]), np.array([0.0]), CAMERAS[0])).all()


@pytest.mark.parametrize("camera", CAMERAS)
def test_distance_centre_and_tilt_are_those_of_fit2d(camera):
    theirs = pyfai(camera).getFit2D()
    size, plane = tilt(camera, np.eye(5))
    assert camera.distance_m * 1e3 == pytest.approx(theirs["directDist"])
    assert (camera.centre2_m / PIXEL, camera.centre1_m / PIXEL) == pytest.approx((theirs["centerX"], theirs["centerY"]))
    assert math.degrees(size.value) == pytest.approx(theirs["tilt"])
    if theirs["tilt"]:
        assert math.degrees(plane.value) == pytest.approx(theirs["tiltPlanRotation"])


@pytest.mark.parametrize("camera", CAMERAS)
def test_derivatives_and_propagated_uncertainties_are_those_of_differences(camera):
    _, position = pixels()
    steps = 1e-6 * np.eye(5)

    def both(function):
        return np.stack(
            [(np.array(function(up)) - np.array(function(down))) / 2e-6 for up, down in _around(camera, steps)], axis=-1
        )

    np.testing.assert_allclose(
        angle_derivatives(position, camera), both(lambda c: scattering_angles(position, c)[0]), atol=1e-7
    )
    factor = np.random.default_rng(2).standard_normal((5, 5)) * 1e-4
    covariance = factor @ factor.T
    by_differences = both(to_poni)
    expected = np.sqrt(np.diag(by_differences @ covariance @ by_differences.T))
    np.testing.assert_allclose(poni_errors(camera, covariance), expected, rtol=1e-6)
    if camera.rot1 or camera.rot2:
        of_tilt = both(lambda c: [part.value for part in tilt(c, covariance)])
        errors = [part.error for part in tilt(camera, covariance)]
        np.testing.assert_allclose(errors, np.sqrt(np.diag(of_tilt @ covariance @ of_tilt.T)), rtol=1e-6)


def _around(camera, steps):
    return [(Camera(*(np.array(camera) + step)), Camera(*(np.array(camera) - step))) for step in steps]


# --- fit -------------------------------------------------------------------------------------------------------------

TRUTH = Camera(1.0, 0.0845, 0.0851, 0.012, -0.02)
LINES = two_theta("AgBh", Setup())[:8]


def points(noise, seed=0, n=40):
    """Points on 8 rings, off by `noise` rad, with the 2θ of their rings."""
    rng = np.random.default_rng(seed)
    ring = np.repeat(LINES, n)
    azimuth = np.tile(np.linspace(-3, 3, n), LINES.size)
    return on_detector(ring + noise * rng.standard_normal(ring.size), azimuth, TRUTH), ring


def test_exact_points_give_the_camera_back():
    position, ring = points(0.0)
    fit = fit_camera(position, ring, np.full(ring.size, 1e-5), Camera(1.02, 0.083, 0.086))
    np.testing.assert_allclose(fit.camera, TRUTH, atol=1e-9)
    assert fit.used.all() and fit.scatter == 0


def test_pyfais_own_refinement_finds_no_better_camera():
    noise = 2e-5
    position, ring = points(noise)
    fit = fit_camera(position, ring, np.full(ring.size, noise), Camera(1.0, 0.084, 0.085))
    setup = Setup()
    theirs = GeometryRefinement(
        np.column_stack([position / setup.pixel_m - 0.5, np.repeat(np.arange(LINES.size), 40)]),
        "AgBh",
        *to_poni(Camera(1.0, 0.084, 0.085)),
        detector=Detector(setup.pixel_m, setup.pixel_m, max_shape=setup.shape),
        wavelength=setup.wavelength_m,
    )
    for _ in range(3):
        theirs.refine1()  # Levenberg-Marquardt; refine3 stops far from the minimum here
    assert (fit.residual**2).sum() == pytest.approx(theirs.chi2(), rel=1e-6)
    theirs = theirs.getFit2D()
    size, _ = tilt(fit.camera, fit.covariance)
    assert fit.camera.distance_m * 1e3 == pytest.approx(theirs["directDist"], abs=0.001)
    assert fit.camera.centre2_m / setup.pixel_m == pytest.approx(theirs["centerX"], abs=1e-3)
    assert math.degrees(size.value) == pytest.approx(theirs["tilt"], abs=1e-3)


def test_the_stated_uncertainties_are_those_of_repeated_draws():
    noise, pulls, reduced = 3e-5, [], []
    for seed in range(200):
        position, ring = points(noise, seed)
        fit = fit_camera(position, ring, np.full(ring.size, noise), TRUTH)
        pulls.append((np.array(fit.camera) - np.array(TRUTH)) / np.array(fit.errors))
        reduced.append(fit.chi2_red)
    assert np.mean(reduced) == pytest.approx(1.0, abs=0.02)
    np.testing.assert_allclose(np.std(pulls, axis=0), 1.0, atol=0.15)
    np.testing.assert_allclose(np.mean(pulls, axis=0), 0.0, atol=0.25)


def test_scatter_beyond_the_stated_uncertainty_is_found_and_counted():
    position, ring = points(5e-5)
    fit = fit_camera(position, ring, np.full(ring.size, 1e-5), TRUTH)
    assert fit.scatter == pytest.approx(math.sqrt(5e-5**2 - 1e-5**2), rel=0.1)
    honest = fit_camera(position, ring, np.full(ring.size, 5e-5), TRUTH)
    np.testing.assert_allclose(fit.errors, honest.errors, rtol=0.1)
    assert fit.chi2_red == pytest.approx(25, rel=0.2)


def test_offsets_of_whole_rings_are_in_the_uncertainties():
    """Eight rings, each off as a whole by 2e-5 rad: centre and tilt do not mind, the distance does, as it says."""
    noise, pulls, scatter = 2e-5, [], []
    for seed in range(200):
        offset = np.repeat(2e-5 * np.random.default_rng(1000 + seed).standard_normal(LINES.size), 40)
        position, ring = points(noise, seed)
        azimuth = np.tile(np.linspace(-3, 3, 40), LINES.size)
        position += on_detector(ring + offset, azimuth, TRUTH) - on_detector(ring, azimuth, TRUTH)
        fit = fit_camera(position, ring, np.full(ring.size, noise), TRUTH)
        pulls.append((np.array(fit.camera) - np.array(TRUTH)) / np.array(fit.errors))
        scatter.append(fit.ring_scatter)
    assert np.median(scatter) == pytest.approx(2e-5, rel=0.3)
    np.testing.assert_allclose(np.std(pulls, axis=0), 1.0, atol=0.3)
    honest = [fit_camera(*points(noise, seed), np.full(ring.size, noise), TRUTH).ring_scatter for seed in range(200)]
    assert np.count_nonzero(honest) <= 2, "rings that are off by chance only have none"


def test_outliers_are_left_out_and_named():
    position, ring = points(1e-5)
    bad = np.arange(5, ring.size, 31)
    position[bad] = on_detector(ring[bad] + 1e-3, np.tile(np.linspace(-3, 3, 40), LINES.size)[bad], TRUTH)
    fit = fit_camera(position, ring, np.full(ring.size, 1e-5), TRUTH)
    assert not fit.used[bad].any() and fit.used.sum() >= ring.size - bad.size - 2
    assert np.abs((np.array(fit.camera) - np.array(TRUTH)) / np.array(fit.errors)).max() < 4


def test_too_few_points_are_refused():
    position, ring = points(1e-5)
    with pytest.raises(BadInput, match="too few"):
        fit_camera(position[:5], ring[:5], np.full(5, 1e-5), TRUTH)
