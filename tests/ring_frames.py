"""Frames of calibrants whose geometry is known: 2θ of the pixels is pyFAI's, the tilt is given as Fit2D has it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from fabio.edfimage import EdfImage
from pyFAI.calibrant import get_calibrant
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from saxs_pipeline.science import synthetic
from saxs_pipeline.science.scenarios import Scenario

HC_KEV_M = 1.2398419843320026e-9


@dataclass(frozen=True)
class Setup:
    """A camera; centre (fast, slow) in px, angles in degrees."""

    shape: tuple[int, int] = (480, 480)
    pixel_m: float = 354.1667e-6
    distance_m: float = 1.0
    centre_px: tuple[float, float] = (240.3, 238.6)
    tilt: float = 0.0
    plane: float = 0.0
    energy_keV: float = 18.0

    @property
    def wavelength_m(self) -> float:
        return HC_KEV_M / self.energy_keV

    def geometry(self, kind=Geometry):
        detector = Detector(self.pixel_m, self.pixel_m, max_shape=self.shape)
        made = kind(detector=detector, wavelength=self.wavelength_m)
        made.setFit2D(self.distance_m * 1e3, *self.centre_px, self.tilt, self.plane)
        made.rot3 = 0.0  # pyFAI adds a turn around the beam, which no ring shows
        again = made.getFit2D()
        assert np.allclose([again["directDist"], again["tilt"]], [self.distance_m * 1e3, self.tilt], atol=1e-6)
        return made


def two_theta(name: str, setup: Setup) -> np.ndarray:
    calibrant = get_calibrant(name)
    calibrant.setWavelength_change2th(setup.wavelength_m)
    return np.array(calibrant.get_2th())


@cache
def angles(setup: Setup) -> np.ndarray:
    """2θ of the pixels, rad; not to be changed."""
    return setup.geometry().center_array(setup.shape, unit="2th_rad", scale=False)


def rings(setup: Setup, name: str = "AgBh", *, heights=400.0, level=20.0, width_px=1.5, seed=0) -> np.ndarray:
    """Counted photons of Gaussian rings, the k-th 1/k as high (AgBh), or of these heights (k,), on a flat level."""
    angle = angles(setup)
    lines = two_theta(name, setup)
    high = heights / (1 + np.arange(lines.size)) if np.isscalar(heights) else np.array(heights, dtype=float)
    image, width = np.full(setup.shape, float(level)), width_px * setup.pixel_m / setup.distance_m
    for line, height in zip(lines, high, strict=False):
        if line < angle.max() + 6 * width:
            image += height * np.exp(-0.5 * ((angle - line) / width) ** 2)
    return np.random.default_rng(seed).poisson(image).astype(np.int32)


def rayonix(setup: Setup, seed: int = 3) -> tuple[np.ndarray, synthetic.Detector]:
    """A frame of the simulated beamline's detector (beamstop, gaps, hot and dead pixels, flat field) on this camera."""
    scenario = Scenario("agbh", shape=setup.shape, centre_px=setup.centre_px)
    ai = setup.geometry(AzimuthalIntegrator)
    detector = synthetic.build_detector(scenario, seed)
    q_pixels = ai.array_from_unit(setup.shape, "center", "q_nm^-1", scale=True)
    solid_angle = ai.solidAngleArray(setup.shape) * (setup.pixel_m / setup.distance_m) ** 2
    onto = synthetic.projection(q_pixels, solid_angle, ai.polarization(setup.shape, factor=0.97), detector)
    q_nm = synthetic.q_grid(float(q_pixels.max()))
    curve = synthetic.windows(q_nm, scenario.window_flat, scenario.window_porod_nm4)
    curve = curve + synthetic.behenate_rings(q_nm, *scenario.rings)
    photons = synthetic.expected_photons(curve, scenario.beam_photons_s * 0.35, onto)
    return synthetic.read_out(photons, detector, np.random.default_rng(seed)), detector


def write(path: Path, image: np.ndarray, **header: object) -> Path:
    EdfImage(data=image, header={key: str(value) for key, value in header.items()}).write(str(path))
    return path
