"""Where the rings of a powder are centred and how far away the detector is, from the frame alone.

The frame is flattened (local mean 0, local deviation 1). Candidates for the centre come from its self-convolution, in
which a frame meets its own point inversion, and from straight lines across the rings, which meet in the centre even
where half of the rings is hidden. Around each, the peaks of the radial profile are held against the calibrant's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.types import Bools, Floats

_CLIP = 3.0
"""Flattened values beyond are cut to it: a few hot pixels would outweigh all rings."""
_SMOOTHING = 1.5
"""Rings are at least as wide as this Gaussian, px."""


class Centre(NamedTuple):
    """A place on the frame, index along slow and fast axis: pixel centres are whole numbers."""

    slow: float
    fast: float


def flatten(image: Floats, good: Bools) -> Floats:
    """Square roots of an image (ny, nx) less their local mean, over their local deviation, smoothed; 0 if not `good`.

    Every ring is then about as strong as the others, and counting noise is everywhere the same.
    """
    width = max(4.0, min(image.shape) / 60)
    root = np.sqrt(np.where(good, np.maximum(image, 0.0), 0.0))
    high = np.where(good, root - _local_mean(root, good, width), 0.0)
    deviation = np.sqrt(_local_mean(high**2, good, 2 * width))
    scaled = np.divide(high, deviation, out=np.zeros_like(high), where=good & (deviation > 0))
    smooth: Floats = np.where(good, _local_mean(np.clip(scaled, -_CLIP, _CLIP), good, _SMOOTHING), 0.0)
    return smooth


def _local_mean(values: Floats, good: Bools, width: float) -> Floats:
    """Gaussian mean of the good pixels around each; 0 where there are none."""
    from scipy.ndimage import gaussian_filter

    share = gaussian_filter(good.astype(float), width, mode="constant")
    total = gaussian_filter(np.where(good, values, 0.0), width, mode="constant")
    return np.asarray(np.divide(total, share, out=np.zeros_like(total), where=share > 1e-6))


# --- centre ----------------------------------------------------------------------------------------------------------


def centres(flat: Floats, good: Bools) -> list[Centre]:
    """Candidates for the centre of the rings of a flattened image, each moved to where the rings are sharpest."""
    return [sharpest(flat, good, one) for one in (*symmetry_centres(flat, good), line_centre(flat, good))]


def symmetry_centres(flat: Floats, good: Bools, number: int = 2) -> list[Centre]:
    """Points around which the flattened image (ny, nx) is most like its own inversion, best first.

    The self-convolution s(2c) = Σ f(x) f(2c − x), over its standard deviation without symmetry, √(2 Σ f² f²) (each
    pair of pixels is in the sum twice); all by FFT.
    """
    from scipy.fft import irfft2, next_fast_len, rfft2

    size = [next_fast_len(2 * n - 1, real=True) for n in flat.shape]
    shape = tuple(2 * n - 1 for n in flat.shape)

    def own(values: Floats) -> Floats:
        return np.asarray(irfft2(rfft2(values, size) ** 2, size)[: shape[0], : shape[1]])

    spread = np.sqrt(np.maximum(2 * own(flat**2), 1e-12))
    score = np.where(own(good.astype(float)) > _FEWEST_PAIRS, own(flat) / spread, 0.0)
    found = []
    for _ in range(number):
        at = [int(k) for k in np.unravel_index(int(np.argmax(score)), shape)]
        found.append(Centre(at[0] / 2, at[1] / 2))
        near = tuple(slice(max(0, k - _APART), k + _APART + 1) for k in at)
        score[near] = 0.0
    return found


_FEWEST_PAIRS = 1000
_APART = 10


def line_centre(flat: Floats, good: Bools) -> Centre:
    """Point that most lines across the steepest slopes of the flattened image pass, within or around the frame.

    Each steep pixel votes for the cells along its gradient n; the lines near the best cell then meet by least squares,
    c = (Σ (1 − nnᵀ))⁻¹ Σ (1 − nnᵀ) x (cf. Parthasarathy 2012, Nat. Methods 9, 724).
    """
    slope = np.stack((np.gradient(flat, axis=0), np.gradient(flat, axis=1)), axis=-1)
    inside = _local_mean(good.astype(float), np.ones_like(good), _SMOOTHING) > 0.99  # edges of the mask are slopes too
    steep = np.where(inside, np.hypot(slope[..., 0], slope[..., 1]), 0.0)
    chosen = np.argsort(steep, axis=None)[-_VOTERS:]
    chosen = chosen[steep.flat[chosen] > 0]
    point = np.stack(np.unravel_index(chosen, flat.shape), axis=-1).astype(float)
    normal = slope.reshape(-1, 2)[chosen] / steep.flat[chosen][:, None]
    centre = _most_voted(point, normal, flat.shape)
    for tolerance in (2 * _CELL, _CELL, _CELL / 2):
        offset = point - centre
        near = np.abs(offset[:, 0] * normal[:, 1] - offset[:, 1] * normal[:, 0]) < tolerance
        across = np.eye(2) - normal[near, :, None] * normal[near, None, :]
        total = across.sum(axis=0)
        if near.sum() < 3 or np.linalg.cond(total) > 1e4:
            break
        centre = np.linalg.solve(total, np.einsum("nij,nj->i", across, point[near]))
    return Centre(float(centre[0]), float(centre[1]))


_VOTERS = 6000
_CELL = 4.0


def _most_voted(point: Floats, normal: Floats, shape: tuple[int, ...]) -> Floats:
    """Centre of the cell that most lines pass, in the frame and half its size around it."""
    margin = np.array(shape) / 2
    cells: NDArray[np.intp] = np.array([math.ceil(2 * n / _CELL) for n in shape])
    votes = np.zeros(int(cells.prod()))
    reach = 1.5 * math.hypot(*shape)
    for step in np.arange(-reach, reach, _CELL):
        at = np.floor((point + step * normal + margin) / _CELL).astype(int)
        inside = (at >= 0).all(axis=1) & (at < cells).all(axis=1)
        votes += np.bincount(at[inside, 0] * cells[1] + at[inside, 1], minlength=votes.size)
    best = np.unravel_index(int(np.argmax(votes)), tuple(cells))
    return np.asarray((np.array(best) + 0.5) * _CELL - margin)


def sharpest(flat: Floats, good: Bools, start: Centre) -> Centre:
    """Centre near `start` around which the radial profile p(r) of the flattened image is sharpest: Σ N(r) p(r)²."""
    from scipy.optimize import minimize

    place = np.flatnonzero(good)[:: max(1, flat.size // _PIXELS)]
    slow, fast = (index.astype(float) for index in np.unravel_index(place, flat.shape))
    value = flat.ravel()[place]

    def blur(centre: Floats) -> float:
        ring = np.hypot(slow - centre[0], fast - centre[1]).astype(int)
        number = np.bincount(ring)
        return -float((np.bincount(ring, value) ** 2 / np.maximum(number, 1)).sum())

    corners = np.array(start) + np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
    found = minimize(
        blur, start, method="Nelder-Mead", options={"initial_simplex": corners, "xatol": 0.05, "maxfev": 80}
    )
    return Centre(float(found.x[0]), float(found.x[1]))


_PIXELS = 100_000


# --- radial profile --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class RadialPeaks:
    """Rings around a centre, each (k,): radius and standard deviation in px, prominence over noise; inner first."""

    centre: Centre
    radius_px: Floats
    width_px: Floats
    strength: Floats


def radial_peaks(image: Floats, good: Bools, centre: Centre) -> RadialPeaks:
    """Narrow peaks of the azimuthal mean of an image (ny, nx) around a centre that stand out of its noise.

    The noise of a mean over N pixels is their standard deviation over √N, the peak's prominence at least `_PROMINENT`
    times as much, its full width at half height at most a quarter of its radius.
    """
    from scipy.ndimage import gaussian_filter1d
    from scipy.signal import find_peaks

    mean, noise = _profile(image, good, centre)
    known = np.flatnonzero(np.isfinite(noise))
    if known.size < 8:
        return RadialPeaks(centre, *np.empty((3, 0)))
    radius = np.arange(mean.size) + 0.5
    line = gaussian_filter1d(np.interp(radius, radius[known], mean[known]), 1.0)
    floor = 0.53 * np.interp(radius, radius[known], noise[known])  # √Σ g² of that filter
    found, shape = find_peaks(line, prominence=0.0, width=0.0, rel_height=0.5)
    kept = (shape["prominences"] > _PROMINENT * floor[found]) & (shape["widths"] < 0.25 * radius[found])
    kept &= np.isfinite(noise[found])
    width = shape["widths"][kept] / np.sqrt(8 * np.log(2))
    middle = 0.5 * (shape["left_ips"] + shape["right_ips"])[kept] + 0.5
    strength = shape["prominences"][kept] / floor[found[kept]]
    return RadialPeaks(centre, middle, np.maximum(width, 0.5), strength)


_PROMINENT = 8.0
_FEWEST_IN_RING = 20


def _profile(image: Floats, good: Bools, centre: Centre) -> tuple[Floats, Floats]:
    """Azimuthal mean and its standard error in rings 1 px wide; NaN where there are too few pixels."""
    slow, fast = np.ogrid[: image.shape[0], : image.shape[1]]
    ring = np.hypot(slow - centre.slow, fast - centre.fast)[good].astype(int)
    value = image[good]
    number = np.bincount(ring)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(ring, value) / number
        variance = np.bincount(ring, (value - mean[ring]) ** 2) / number
        noise = np.where(number >= _FEWEST_IN_RING, np.sqrt(variance / number), np.nan)
    return mean, noise


# --- calibrant -------------------------------------------------------------------------------------------------------


class Match(NamedTuple):
    """Peaks explained by a calibrant: distance along the beam in px, number of its lines that are seen, agreement.

    agreement: (lines seen)² / (lines expected between the innermost and the outermost peak · different peaks there),
    1 where all lines are seen and nothing else is.
    """

    distance_px: float
    lines: int
    agreement: float


def match_lines(peaks: RadialPeaks, two_theta: Floats, distances_px: tuple[float, float]) -> Match | None:
    """Distance at which the calibrant's lines (k,), rad, explain the radii best; None without peaks in these distances.

    Every peak is tried as every line. Of several answers the one with the highest agreement · lines is taken: a comb
    of half or twice the distance explains as many peaks, or has as many lines seen, but not both.
    """
    slope, radius = np.tan(two_theta[two_theta < _STEEPEST]), peaks.radius_px
    tolerance = 1.5 * peaks.width_px + 0.005 * radius
    tried = (radius[:, None] / slope).ravel()
    tried = np.sort(tried[(tried >= distances_px[0]) & (tried <= distances_px[1])])
    best: Match | None = None
    for distance in tried:
        found = _agreement(radius, tolerance, slope, float(distance))
        if best is None or found.agreement * found.lines > best.agreement * best.lines * (1 + 1e-9):
            best = found
    return best


_STEEPEST = np.deg2rad(75.0)


def _agreement(radius: Floats, tolerance: Floats, slope: Floats, distance: float) -> Match:
    ring = distance * slope
    nearest: NDArray[np.intp] = np.abs(radius[:, None] - ring).argmin(axis=1)
    seen = np.abs(radius - ring[nearest]) <= tolerance
    lines = np.unique(nearest[seen]).size
    expected = ((ring >= radius[0] - tolerance[0]) & (ring <= radius[-1] + tolerance[-1])).sum()
    refined = float(np.median(radius[seen] / slope[nearest[seen]])) if lines else distance
    return Match(refined, lines, lines**2 / max(1, int(expected)) / (lines + int((~seen).sum())))
