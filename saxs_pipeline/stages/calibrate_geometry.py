"""A frame of a calibrant's rings → where detector and beam are: lines from pyFAI, the fit from `science.rings`.

No pixel is clicked: the centre comes from the frame's symmetry, the distance from the calibrant's comb of radii, and
both with the tilt from Gaussian peaks in sectors of each ring (formats.md §4). What cannot be trusted is refused.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saxs_pipeline.science import ring_search
from saxs_pipeline.science.camera import Camera, scattering_angles
from saxs_pipeline.science.ring_search import Centre, Match, RadialPeaks
from saxs_pipeline.science.rings import Calibrant, Calibration, Frame, fit_rings, separate
from saxs_pipeline.types import BadInput, Bools, Floats

_LARGEST_PX = 1200
"""Frames with more rows or columns are binned to find the centre."""
_HINT = 0.2
"""How far from a distance that is given it is looked for, relative."""
_POSSIBLE_M = (0.005, 100.0)


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured: image (ny, nx), less dark; good (ny, nx) pixels; full (ny, nx), saturated ones, not good."""

    image: Floats
    good: Bools
    full: Bools


# --- calibrant -------------------------------------------------------------------------------------------------------


def read_calibrant(name: str, wavelength_m: float) -> Calibrant:
    """pyFAI's calibrant of this name, or that of a .D file, with 2θ of its lines. Raises BadInput."""
    from pyFAI.calibrant import ALL_CALIBRANTS
    from pyFAI.calibrant import Calibrant as PyfaiCalibrant

    if name in ALL_CALIBRANTS:
        spacings = ALL_CALIBRANTS(name).dspacing
    elif Path(name).is_file():
        try:
            spacings = PyfaiCalibrant(filename=str(Path(name))).dspacing
        except Exception as error:  # pyFAI raises whatever its parser trips over
            raise BadInput(f"{name}: cannot be read as a calibrant ({error})".split("\n")[0]) from None
    else:
        known = sorted(str(key) for key in ALL_CALIBRANTS.keys())  # noqa: SIM118 (a factory that cannot be iterated)
        near = [key for key in known if difflib.SequenceMatcher(None, key.lower(), name.lower()).ratio() > 0.6]
        hint = f"did you mean {' or '.join(near)}?" if near else f"it knows {', '.join(known)}"
        raise BadInput(f"--calibrant {name}: neither a file nor a calibrant of pyFAI; {hint}")
    angstrom = np.unique(np.array(spacings, dtype=float))[::-1]
    if not angstrom.size or not (np.isfinite(angstrom) & (angstrom > 0)).all():
        raise BadInput(f"--calibrant {name}: holds no positive d-spacings, one per line in Å")
    sine = wavelength_m / (2e-10 * angstrom)
    return Calibrant(Path(name).stem if name.endswith(".D") else name, wavelength_m, 2 * np.arcsin(sine[sine < 1]))


# --- fit -------------------------------------------------------------------------------------------------------------


def calibrate(measured: Measured, detector: Any, calibrant: Calibrant, distance_m: float | None = None) -> Calibration:
    """Camera of a frame of the calibrant on a pyFAI detector; distance_m, if given, need only be right to 20 %.

    Raises BadInput, with what is seen instead, where no rings or too few are found or their fit is not credible.
    """
    try:
        return _calibrated(measured, detector, calibrant, distance_m)
    except BadInput as error:
        share = float(measured.full.mean())
        if share < _SOME_FULL or "saturated" in str(error):
            raise
        raise BadInput(f"{error}; {share:.1%} of the pixels are saturated: expose shorter") from None


_SOME_FULL = 0.001


def _calibrated(measured: Measured, detector: Any, calibrant: Calibrant, distance_m: float | None) -> Calibration:
    frame = Frame(measured.image, measured.good, _positions(detector, measured.image.shape))
    _check_light(measured)
    start = _start(measured, detector, calibrant, distance_m)
    try:
        found = fit_rings(frame, calibrant.two_theta, start.camera, start.width)
    except BadInput as error:
        raise BadInput(f"{error}; sum more frames, expose longer, or mask what is no ring") from None
    result = Calibration(frame, calibrant, found, np.array([detector.pixel1, detector.pixel2], dtype=float))
    _check_credible(result)
    _check_full(measured, result)
    return result


def _positions(detector: Any, shape: tuple[int, ...]) -> Floats:
    """Pixel centres on the detector (ny, nx, 2), m."""
    slow, fast = np.mgrid[: shape[0], : shape[1]].astype(float)
    first, second, height = detector.calc_cartesian_positions(slow, fast)
    if height is not None and np.ptp(height) > 1e-3 * detector.pixel1:
        raise BadInput(f"{detector.name} is not flat; calibrate it with pyFAI-calib2")
    return np.stack([first, second], axis=-1)


def _check_light(measured: Measured) -> None:
    if measured.full.mean() > _MOST_FULL:
        raise BadInput(f"{measured.full.mean():.0%} of the pixels are saturated; expose shorter or attenuate the beam")
    if not measured.good.any():
        raise BadInput("every pixel is masked, negative or saturated; non-zero in the mask means masked")
    if measured.image[measured.good].max() <= measured.image[measured.good].min():
        raise BadInput("the frame is empty: all its pixels are the same")


_MOST_FULL = 0.02


# --- start -----------------------------------------------------------------------------------------------------------


class _Start(NamedTuple):
    camera: Camera
    width: float


def _start(measured: Measured, detector: Any, calibrant: Calibrant, distance_m: float | None) -> _Start:
    """Camera without tilt from the best candidate of the centre, and the rings' width, rad."""
    pixel = float(detector.pixel2)
    if not 0.98 < detector.pixel1 / pixel < 1.02:
        raise BadInput("the pixels are not square; calibrate this detector with pyFAI-calib2")
    limits = (_POSSIBLE_M[0] / pixel, _POSSIBLE_M[1] / pixel)
    tried = [(peaks, ring_search.match_lines(peaks, calibrant.two_theta, limits)) for peaks in _candidates(measured)]
    peaks, match = max(tried, key=lambda pair: _merit(pair[1]))
    if match is None or match.lines < 2 or match.agreement < _FEWEST_AGREE:
        clearest = max((tested for tested, _ in tried), key=lambda one: float(one.strength.max(initial=0.0)))
        raise BadInput(_why_not(clearest, calibrant, pixel))
    if distance_m is not None:
        match = _as_hinted(peaks, match, calibrant, (distance_m, pixel))
    camera = Camera(
        match.distance_px * pixel,
        (peaks.centre.slow + 0.5) * detector.pixel1,
        (peaks.centre.fast + 0.5) * pixel,
    )
    return _Start(camera, float(np.median(peaks.width_px)) / match.distance_px)


_FEWEST_AGREE = 0.3


def _as_hinted(peaks: RadialPeaks, match: Match, calibrant: Calibrant, hint: tuple[float, float]) -> Match:
    """The match within 20 % of the distance that is given, if about as good as the best; hint: distance, pixel, m."""
    distance, pixel = hint
    limits = (distance * (1 - _HINT) / pixel, distance * (1 + _HINT) / pixel)
    near = ring_search.match_lines(peaks, calibrant.two_theta, limits)
    if near is None or _merit(near) < 0.8 * _merit(match):
        found = match.distance_px * pixel
        raise BadInput(
            f"the rings say {found:.4g} m, --distance {distance:.4g} m; correct it, or leave it out if it is a guess"
        )
    return near


def _merit(match: Match | None) -> float:
    return 0.0 if match is None else match.lines * match.agreement


def _candidates(measured: Measured) -> Iterator[RadialPeaks]:
    """Radial peaks around each candidate of the centre."""
    factor = math.ceil(max(measured.image.shape) / _LARGEST_PX)
    image, good = _binned(measured, factor)
    for centre in ring_search.centres(ring_search.flatten(image, good), good):
        at = Centre((centre.slow + 0.5) * factor - 0.5, (centre.fast + 0.5) * factor - 0.5)
        yield ring_search.radial_peaks(measured.image, measured.good, at)


def _binned(measured: Measured, factor: int) -> tuple[Floats, Bools]:
    """Mean of the good pixels of each block; blocks with less than half of them are not good, the rest is cut off."""
    rows, columns = (n // factor for n in measured.image.shape)
    blocks = (rows, factor, columns, factor)
    cut = (slice(rows * factor), slice(columns * factor))
    good = measured.good[cut].reshape(blocks).sum(axis=(1, 3))
    total = np.where(measured.good, measured.image, 0.0)[cut].reshape(blocks).sum(axis=(1, 3))
    return total / np.maximum(good, 1), 2 * good >= factor**2


_CLEAR = 30.0
"""Prominence over noise of a peak that is called a ring where no calibrant confirms it."""


def _why_not(peaks: RadialPeaks, calibrant: Calibrant, pixel_m: float) -> str:
    radius, centre = peaks.radius_px[peaks.strength > _CLEAR], peaks.centre
    if not radius.size:
        return f"no rings are seen: not a frame of {calibrant.name}, too weak, or its rings are off the detector"
    where = f"around {centre.fast + 0.5:.1f}, {centre.slow + 0.5:.1f} px (fast, slow)"
    if radius.size == 1:
        first = radius[0] * pixel_m / math.tan(calibrant.two_theta[0])
        return (
            f"one ring only, of {radius[0]:.1f} px {where}: it gives the distance ({first:.4g} m if it is the first "
            f"of {calibrant.name}) only with its order, centre and tilt known; let two rings or more fall on it"
        )
    listed = ", ".join(f"{r:.1f}" for r in radius[:6]) + (", …" if radius.size > 6 else "")
    return (
        f"{radius.size} peaks {where}, of {listed} px, are not the rings of {calibrant.name} at any distance; "
        "check --calibrant, --energy and the mask"
    )


# --- is it credible --------------------------------------------------------------------------------------------------


def _check_credible(result: Calibration) -> None:
    """Raises BadInput if the fit does not describe the rings, or these do not determine the camera."""
    found, lines, pixel = result.rings, result.lines, float(result.pixel_m[1])
    used = found.fit.used
    width = float(np.median(found.points.width[used]))
    between = [line for line in separate(result.calibrant.two_theta, width) if lines[0] <= line <= lines[-1]]
    scatter = float(np.sqrt(np.mean(found.fit.residual[used] ** 2)))
    seen = np.unique((found.points.azimuth[used] / _SECTOR).astype(int)).size * math.degrees(_SECTOR)
    errors = found.fit.errors
    reasons = (
        (lines.size < 2, "only one ring is left of the fit"),
        (lines.size < _FEWEST_SEEN * len(between), f"only {lines.size} of the {len(between)} rings expected are seen"),
        (scatter > 0.5 * width, f"the points scatter by {scatter / width:.1f} widths of the rings about the fit"),
        (used.mean() < _FEWEST_USED, f"{1 - used.mean():.0%} of the points are off the fitted rings"),
        (seen < _LEAST_DEGREES, f"the rings are seen over {seen:.0f}° of azimuth only"),
        (
            errors.distance_m > 0.01 * found.fit.camera.distance_m,
            f"the distance is uncertain by {errors.distance_m / found.fit.camera.distance_m:.0%}",
        ),
        (
            max(errors.centre1_m, errors.centre2_m) > 2 * pixel,
            f"the beam centre is uncertain by {max(errors.centre1_m, errors.centre2_m) / pixel:.1f} px",
        ),
    )
    said = [reason for wrong, reason in reasons if wrong]
    if said:
        raise BadInput(f"the fit is not credible: {'; '.join(said)}; check --calibrant, --energy and the mask")


_SECTOR = math.radians(10.0)
_FEWEST_SEEN = 0.6
_FEWEST_USED = 0.7
_LEAST_DEGREES = 60.0


def _check_full(measured: Measured, result: Calibration) -> None:
    """Raises BadInput if a ring that was used is saturated: its peak is then not where its flanks say."""
    if not measured.full.any():
        return
    points = result.rings.points
    two_theta = scattering_angles(result.frame.position_m, result.rings.fit.camera)[0]
    for line in result.lines:
        width = float(np.median(points.width[points.line == line]))
        near = np.abs(two_theta - result.calibrant.two_theta[line]) < width
        share = float(measured.full[near].sum() / max(1, (measured.good | measured.full)[near].sum()))
        if share > _MOST_FULL:
            raise BadInput(f"{share:.0%} of the pixels on ring {line + 1} are saturated; expose shorter")
