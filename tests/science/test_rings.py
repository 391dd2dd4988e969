"""Ring points and the camera fitted to them: frames with pyFAI's geometry, and the statistics of repeated frames."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from saxs_pipeline.science.camera import Camera, tilt
from saxs_pipeline.science.rings import Frame, fit_rings
from saxs_pipeline.types import BadInput
from tests.ring_frames import Setup, rings, two_theta

SMALL = Setup(shape=(160, 160), centre_px=(82.3, 78.6), distance_m=0.4, tilt=1.0, plane=40.0)


def frame_of(setup: Setup, image: np.ndarray, good: np.ndarray | None = None) -> Frame:
    position = (np.stack(np.mgrid[: setup.shape[0], : setup.shape[1]], axis=-1) + 0.5) * setup.pixel_m
    return Frame(image.astype(float), np.ones(setup.shape, dtype=bool) if good is None else good, position)


def near(setup: Setup) -> Camera:
    """A start as the search gives it: half a pixel and 0.1 % off, without tilt."""
    x, y = setup.centre_px
    return Camera(1.001 * setup.distance_m, (y + 0.5) * setup.pixel_m, (x - 0.4) * setup.pixel_m)


def fitted(setup: Setup, image: np.ndarray, good=None, name="AgBh", width_px=1.5):
    lines, width = two_theta(name, setup), width_px * setup.pixel_m / setup.distance_m
    return fit_rings(frame_of(setup, image, good), lines, near(setup), width)


@pytest.mark.slow
def test_the_stated_uncertainties_are_those_of_repeated_frames():
    geometry, pulls, reduced = SMALL.geometry(), [], []
    x, y = SMALL.centre_px
    truth = (SMALL.distance_m, y * SMALL.pixel_m, x * SMALL.pixel_m, geometry.rot1, geometry.rot2)
    for seed in range(40):
        fit = fitted(SMALL, rings(SMALL, heights=200.0, level=10.0, seed=seed)).fit
        size, plane = tilt(fit.camera, fit.covariance)
        of_tilt = [(size.value - math.radians(1.0)) / size.error, (plane.value - math.radians(40.0)) / plane.error]
        pulls.append([*((np.array(fit.camera) - truth) / np.array(fit.errors)), *of_tilt])
        reduced.append(fit.chi2_red)
    spread = np.std(pulls, axis=0, ddof=1)
    assert ((spread > 0.8) & (spread < 1.25)).all(), spread
    assert np.abs(np.mean(pulls, axis=0)).max() < 0.55, np.mean(pulls, axis=0)
    assert np.mean(reduced) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("plane", [0.0, 90.0, -135.0])
@pytest.mark.parametrize("angle", [1.0, 5.0])
def test_tilt_is_found_from_a_start_without_any(angle, plane):
    setup = replace(Setup(), tilt=angle, plane=plane)
    fit = fitted(setup, rings(setup)).fit
    size, rotation = (math.degrees(part.value) for part in tilt(fit.camera, fit.covariance))
    assert size == pytest.approx(angle, abs=0.05)
    assert math.remainder(rotation - plane, 360.0) == pytest.approx(0.0, abs=3.0 / angle)
    assert fit.camera.distance_m == pytest.approx(1.0, rel=1e-4)


def test_blended_lines_are_not_used():
    """Quartz has doublets that these rings do not resolve."""
    setup = Setup(shape=(600, 600), pixel_m=2e-4, distance_m=0.12, centre_px=(300.0, 310.0), energy_keV=20.0)
    lines = two_theta("quartz", setup)
    found = fitted(setup, rings(setup, "quartz", heights=np.full(lines.size, 300.0)), name="quartz")
    radius = setup.distance_m * np.tan(lines) / setup.pixel_m
    used = np.unique(found.points.line)
    assert np.diff(radius)[used].min() > 4 and np.diff(radius)[used - 1].min() > 4
    assert found.fit.camera.distance_m == pytest.approx(setup.distance_m, rel=2e-4)


def test_one_ring_is_not_enough():
    image = rings(SMALL, heights=[400.0])
    with pytest.raises(BadInput, match="two are needed"):
        fitted(SMALL, image)
