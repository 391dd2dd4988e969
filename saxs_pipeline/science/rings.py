"""Points on the rings of a calibrant, sector by sector, and the camera that fits them.

In each sector of a ring a Gaussian on a linear background is fitted to the pixels, in 2θ of the camera as known so
far; the peaks, back on the detector, are the points of the next fit of the camera. Inner rings come first: tilt moves
a ring by the square of its radius, so that each fit predicts the next rings well enough to find them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.science.camera import Camera, CameraFit, fit_camera, on_detector, scattering_angles
from saxs_pipeline.science.peaks import Peaks, fit_peaks
from saxs_pipeline.types import BadInput, Bools, Floats, Ints

_FIRST_RINGS = 3
_ROUNDS = 10


class Frame(NamedTuple):
    """An image (ny, nx), which of its pixels count (ny, nx), and where they are on the detector (ny, nx, 2), m."""

    image: Floats
    good: Bools
    position_m: Floats


@dataclass(frozen=True, eq=False)
class Calibrant:
    """A powder whose rings are known: 2θ (k,) of its lines at the wavelength, rad, increasing."""

    name: str
    wavelength_m: float
    two_theta: Floats


class RingPoints(NamedTuple):
    """Points on rings, each (n,): line (from 0), azimuth, 2θ and its uncertainty, width of the peak, rad."""

    line: Ints
    azimuth: Floats
    two_theta: Floats
    sigma: Floats
    width: Floats


@dataclass(frozen=True, eq=False)
class RingFit:
    """The camera and the points it was fitted to. position_m (n, 2) on the detector."""

    fit: CameraFit
    points: RingPoints
    position_m: Floats


@dataclass(frozen=True, eq=False)
class Calibration:
    """A frame with the rings found in it; pixel_m (2,): size of a pixel along the slow and the fast axis."""

    frame: Frame
    calibrant: Calibrant
    rings: RingFit
    pixel_m: Floats

    @property
    def lines(self) -> Ints:
        """Lines with points that were used, from 0."""
        return np.unique(self.rings.points.line[self.rings.fit.used])

    @property
    def line_q_nm(self) -> Floats:
        """q of the calibrant's lines (k,), 1/nm."""
        return np.asarray(4e-9 * math.pi / self.calibrant.wavelength_m * np.sin(self.calibrant.two_theta / 2))

    @property
    def residual_px(self) -> Floats:
        """How far each point (n,) lies outside its ring, px."""
        points, fit = self.rings.points, self.rings.fit
        ring = on_detector(self.calibrant.two_theta[points.line], points.azimuth, fit.camera)
        away = np.hypot(*((self.rings.position_m - ring) / self.pixel_m).T)
        return np.asarray(np.copysign(away, fit.residual))

    @property
    def residual_q_nm(self) -> Floats:
        """The same in q, 1/nm: dq = (2π/λ) cos θ d2θ."""
        theta = self.calibrant.two_theta[self.rings.points.line] / 2
        return np.asarray(2e-9 * math.pi / self.calibrant.wavelength_m * np.cos(theta) * self.rings.fit.residual)


def fit_rings(frame: Frame, lines: Floats, start: Camera, width: float) -> RingFit:
    """Camera from a frame; lines (k,): 2θ of the calibrant, rad, increasing; width: of the rings, rad, roughly.

    Raises BadInput where fewer than two rings stand out, or their points do not determine a camera.
    """
    camera, number, known = start, _FIRST_RINGS, 0
    for _ in range(_ROUNDS):
        points = _points(frame, scattering_angles(frame.position_m, camera), _Lines(lines, number, width))
        position = on_detector(points.two_theta, points.azimuth, camera)
        fit = fit_camera(position, lines[points.line], points.sigma, camera)
        change = np.abs(np.array(fit.camera) - np.array(camera)) / np.array(fit.errors)
        found, camera, width = np.unique(points.line).size, fit.camera, float(np.median(points.width))
        if found == known and change.max() < _SETTLED:
            break
        number, known = 2 * number, found
    return RingFit(fit, points, position)


_SETTLED = 0.2
"""Change of the camera's parameters, in their standard uncertainties, with which the rounds end."""


class _Lines(NamedTuple):
    """2θ of the calibrant's lines, rad; how many of them are to be found; how wide, rad, they are about."""

    two_theta: Floats
    number: int
    width: float


def _points(frame: Frame, angles: tuple[Floats, Floats], lines: _Lines) -> RingPoints:
    """Points of the first lines that are found."""
    parts: list[RingPoints] = []
    for line, room in separate(lines.two_theta, lines.width).items():
        middle = lines.two_theta[line]
        near = frame.good & (np.abs(angles[0] - middle) < min(room, 8 * lines.width))
        peaks = _ring(_Pixels(angles[0][near] - middle, angles[1][near], frame.image[near]), lines.width)
        if peaks is not None:
            ring = np.full(peaks.azimuth.size, line)
            parts.append(RingPoints(ring, peaks.azimuth, peaks.centre + middle, peaks.sigma, peaks.width))
        if len(parts) == lines.number:
            break
    if len(parts) < 2:
        raise BadInput(f"{len(parts) or 'no'} ring of the calibrant stands out; two are needed")
    return RingPoints(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def separate(two_theta: Floats, width: float) -> dict[int, float]:
    """Lines that are no blend with another, with how far around them is theirs: nearly half-way to the next line."""
    gaps = np.diff(two_theta, prepend=0.0, append=math.inf)
    room = 0.45 * np.minimum(gaps[:-1], gaps[1:])
    return {k: float(r) for k, r in enumerate(room) if r >= 2 * width}


class _Pixels(NamedTuple):
    """Pixels near a ring, each (n,): 2θ from the line and azimuth, rad; intensity."""

    x: Floats
    azimuth: Floats
    value: Floats


class _Sectors(NamedTuple):
    """Peaks of a ring, each (s,), rad."""

    azimuth: Floats
    centre: Floats
    sigma: Floats
    width: Floats


def _ring(pixels: _Pixels, width: float) -> _Sectors | None:
    """Peaks in as many sectors as the ring's strength allows; None where it is too weak or too little of it is seen."""
    whole = _whole(pixels, width)
    if not (whole.height > _PRESENT * whole.height_error and 0.3 * width < whole.width < 4 * width):
        return None
    wide, near = float(whole.width[0]), np.abs(pixels.x - whole.centre) < 3 * whole.width
    pixels = _Pixels(pixels.x[near] - whole.centre, pixels.azimuth[near], pixels.value[near])
    number = min(_MOST_SECTORS, pixels.x.size // _PIXELS_PER_SECTOR)
    while number >= _FEWEST_SECTORS:
        sector = ((pixels.azimuth / (2 * math.pi) % 1.0) * number).astype(np.intp) % number
        peaks = fit_peaks(pixels.x, pixels.value, sector, number, wide)
        seen = peaks.height_error > 0
        strength = float(np.median(peaks.height[seen] / peaks.height_error[seen])) if seen.any() else 0.0
        if strength > 0.8 * _SIGNIFICANT:
            return _sound(pixels, sector, peaks, whole)
        number = int(number * min(0.7, (strength / _SIGNIFICANT) ** 2))
    return None


_PRESENT = 4.0
_SIGNIFICANT = 7.0
"""Height over its uncertainty that a peak should have: a weak ring gets fewer, longer sectors."""
_PIXELS_PER_SECTOR = 60
_FEWEST_SECTORS, _MOST_SECTORS = 5, 90


def _whole(pixels: _Pixels, width: float) -> Peaks:
    """Peak of the azimuthal mean."""
    reach = float(np.abs(pixels.x).max(initial=width))
    step = np.floor((pixels.x / reach + 1) * (_BINS / 2)).astype(np.intp)
    number = np.bincount(step)
    full = np.flatnonzero(number >= 5)
    x, value = (np.bincount(step, column)[full] / number[full] for column in (pixels.x, pixels.value))
    return fit_peaks(x, value, np.zeros(x.size, dtype=np.intp), 1, width)


_BINS = 40


def _sound(pixels: _Pixels, sector: NDArray[np.intp], peaks: Peaks, whole: Peaks) -> _Sectors | None:
    """Those of the sectors' peaks that look like the ring's own; None where they are too few."""
    kept = (
        (peaks.height > 0.5 * _SIGNIFICANT * peaks.height_error)
        & (np.abs(peaks.centre) < 2.5 * whole.width)
        & (peaks.width > 0.3 * whole.width)
        & (peaks.width < 2.0 * whole.width)
        & (peaks.centre_error < 0.5 * whole.width)
    )
    if kept.sum() < 3:
        return None
    number = kept.size
    along, across = (np.bincount(sector, part(pixels.azimuth), number) for part in (np.cos, np.sin))
    azimuth = np.arctan2(across, along)[kept]
    return _Sectors(azimuth, (peaks.centre + whole.centre)[kept], peaks.centre_error[kept], peaks.width[kept])
