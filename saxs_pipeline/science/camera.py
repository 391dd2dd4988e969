"""A flat detector behind a sample: where a scattering angle falls on it, and the least-squares camera of ring points.

The camera is (distance, centre1, centre2, rot1, rot2): from the sample along the beam to the detector, where the beam
meets it (m, slow axis first, from the detector's origin), and pyFAI's rotations (rad) around the vertical and the
horizontal axis. These are what rings determine well; pyFAI's distance and PONI, the foot of the perpendicular, mix
them. Its third rotation, around the beam, moves no ring and is 0 here.

With u the point relative to the centre and rot1 = α, rot2 = β (Kieffer & Karkoulis 2013, J. Phys.: Conf. Ser. 425,
202012, eq. of the rotations): x1 = u1 cos β + u2 sin α sin β, x2 = u2 cos α, x3 = D + u1 sin β − u2 sin α cos β, and
tan 2θ = √(x1² + x2²)/x3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from saxs_pipeline.types import BadInput, Bools, Floats, Uncertain

OUTLIER = 5.0
"""Points further off than so many of the robust standard deviations of all are left out of a fit."""


class Camera(NamedTuple):
    """Distance along the beam (m), beam centre on the detector (m; slow, fast axis), rotations (rad)."""

    distance_m: float
    centre1_m: float
    centre2_m: float
    rot1: float = 0.0
    rot2: float = 0.0


class Poni(NamedTuple):
    """The same in pyFAI's terms: distance and foot of the perpendicular from the sample, m."""

    dist_m: float
    poni1_m: float
    poni2_m: float


def to_poni(camera: Camera) -> Poni:
    """dist = D cos α cos β, poni1 = c1 − D sin β, poni2 = c2 + D sin α cos β."""
    distance, centre1, centre2, a, b = camera
    return Poni(
        distance * math.cos(a) * math.cos(b),
        centre1 - distance * math.sin(b),
        centre2 + distance * math.sin(a) * math.cos(b),
    )


def poni_errors(camera: Camera, covariance: Floats) -> Poni:
    """Standard uncertainties of pyFAI's distance and PONI; covariance (5, 5) as of `CameraFit`."""
    distance = camera.distance_m
    sin1, cos1 = math.sin(camera.rot1), math.cos(camera.rot1)
    sin2, cos2 = math.sin(camera.rot2), math.cos(camera.rot2)
    jacobian = np.array(
        [
            [cos1 * cos2, 0.0, 0.0, -distance * sin1 * cos2, -distance * cos1 * sin2],
            [-sin2, 1.0, 0.0, 0.0, -distance * cos2],
            [sin1 * cos2, 0.0, 1.0, distance * cos1 * cos2, -distance * sin1 * sin2],
        ]
    )
    return Poni(*(float(error) for error in np.sqrt(np.diag(jacobian @ covariance @ jacobian.T))))


def scattering_angles(position_m: Floats, camera: Camera) -> tuple[Floats, Floats]:
    """2θ and azimuth (from the fast axis to the slow one), rad, (…), of points (…, 2) on the detector, m."""
    x1, x2, x3 = _in_space(position_m, camera)
    return np.arctan2(np.hypot(x1, x2), x3), np.arctan2(x1, x2)


def _in_space(position_m: Floats, camera: Camera) -> tuple[Floats, Floats, Floats]:
    first, second = _axes(camera)
    u1, u2 = position_m[..., 0] - camera.centre1_m, position_m[..., 1] - camera.centre2_m
    return u1 * first[0] + u2 * second[0], u2 * second[1], camera.distance_m + u1 * first[2] + u2 * second[2]


def _axes(camera: Camera) -> Floats:
    """The detector's axes (slow, fast) in space, (2, 3), of unit length and perpendicular."""
    sin1, cos1 = math.sin(camera.rot1), math.cos(camera.rot1)
    sin2, cos2 = math.sin(camera.rot2), math.cos(camera.rot2)
    return np.array([[cos2, 0.0, sin2], [sin1 * sin2, cos1, -sin1 * cos2]])


def on_detector(two_theta: Floats, azimuth: Floats, camera: Camera) -> Floats:
    """Points (n, 2), m, where rays of these angles (n,), rad, meet the detector; NaN where they miss it."""
    first, second = _axes(camera)
    normal = np.cross(second, first)  # against the beam for a detector that faces it
    ray = np.stack([np.sin(two_theta) * np.sin(azimuth), np.sin(two_theta) * np.cos(azimuth), np.cos(two_theta)], -1)
    towards = ray @ normal / normal[2]
    length = camera.distance_m / np.where(towards > 0, towards, np.nan)
    offset = ray * length[..., None] - np.array([0.0, 0.0, camera.distance_m])
    return np.stack([camera.centre1_m + offset @ first, camera.centre2_m + offset @ second], axis=-1)


def angle_derivatives(position_m: Floats, camera: Camera) -> Floats:
    """∂2θ/∂(distance, centre1, centre2, rot1, rot2) at points (n, 2): (n, 5), rad per m and rad per rad."""
    sin1, cos1 = math.sin(camera.rot1), math.cos(camera.rot1)
    sin2, cos2 = math.sin(camera.rot2), math.cos(camera.rot2)
    u1, u2 = position_m[:, 0] - camera.centre1_m, position_m[:, 1] - camera.centre2_m
    zero, one = np.zeros(len(u1)), np.ones(len(u1))
    d1 = np.stack([zero, -cos2 * one, -sin1 * sin2 * one, u2 * cos1 * sin2, -u1 * sin2 + u2 * sin1 * cos2], axis=1)
    d2 = np.stack([zero, zero, -cos1 * one, -u2 * sin1, zero], axis=1)
    d3 = np.stack([one, -sin2 * one, sin1 * cos2 * one, -u2 * cos1 * cos2, u1 * cos2 + u2 * sin1 * sin2], axis=1)
    x1, x2, x3 = (x[:, None] for x in _in_space(position_m, camera))
    across = np.hypot(x1, x2)
    return np.asarray((x3 * (x1 * d1 + x2 * d2) / across - across * d3) / (across**2 + x3**2))


@dataclass(frozen=True, eq=False)
class CameraFit:
    """Least-squares camera of n ring points.

    covariance (5, 5) in the order of Camera; chi2_red of the points with their own uncertainties; scatter (rad): what
    has to be added to these in quadrature so that it is 1, or 0; ring_scatter (rad): the same for offsets that all
    points of a ring have in common; both are in the covariance; residual (n,) = 2θ of the point − 2θ of its ring, rad;
    used (n,): False for outliers.
    """

    camera: Camera
    covariance: Floats
    chi2_red: float
    scatter: float
    ring_scatter: float
    residual: Floats
    used: Bools

    @property
    def errors(self) -> Camera:
        """Standard uncertainties of the camera's parameters, in its own form."""
        return Camera(*(float(error) for error in np.sqrt(np.diag(self.covariance))))


def fit_camera(position_m: Floats, two_theta: Floats, sigma: Floats, start: Camera) -> CameraFit:
    """Camera that minimises Σ (2θ(position) − two_theta)²/(sigma² + scatter²), outliers left out.

    position_m (n, 2) on the detector, m; two_theta (n,) of their rings and sigma (n,), rad. The scatter, common to all
    points, is what makes χ²_red 1 where it is above (Paule & Mandel 1982, J. Res. NBS 87, 377): where rings are known
    much better than they are round, bright ones may not outweigh all others. Offsets of whole rings, as a thick or
    double calibrant gives, change no weight, but add to the covariance where chance does not explain them. The
    wavelength is taken as exact.
    Raises BadInput if the points are too few or do not determine the camera.
    """
    used: Bools = np.ones(len(two_theta), dtype=np.bool_)
    camera, scatter = start, 0.0
    for _ in range(_ROUNDS):
        total = np.hypot(sigma, scatter)
        camera = _minimum(position_m[used], two_theta[used], total[used], camera)
        residual = scattering_angles(position_m, camera)[0] - two_theta
        degrees, before = int(used.sum()) - len(camera), scatter
        scatter = _scatter(residual[used], sigma[used], degrees)
        pull = np.abs(residual) / np.hypot(sigma, scatter)
        kept = pull <= OUTLIER * max(1.0, 1.4826 * float(np.median(pull[used])))
        if (kept == used).all() and abs(scatter - before) <= 0.01 * float(np.median(total)):
            break
        used = kept
    total = np.hypot(sigma, scatter)[used]
    weighted = angle_derivatives(position_m[used], camera) / total[:, None]
    chi2_red = float(((residual / sigma)[used] ** 2).sum() / degrees)
    own, ring = _inverse_normal(weighted), _Rings.of(residual[used], total, two_theta[used])
    by_ring = own @ (weighted / total[:, None]).T @ ring.member
    offset = ring.scatter()
    return CameraFit(camera, own + offset**2 * by_ring @ by_ring.T, chi2_red, scatter, offset, residual, used)


class _Rings(NamedTuple):
    """Weighted mean residual of each ring (k,), its uncertainty (k,), and which points are its own (n, k)."""

    mean: Floats
    sigma: Floats
    member: Floats

    @classmethod
    def of(cls, residual: Floats, sigma: Floats, two_theta: Floats) -> _Rings:
        member = (two_theta[:, None] == np.unique(two_theta)).astype(np.float64)
        weight = sigma**-2 @ member
        return cls((residual * sigma**-2) @ member / weight, weight**-0.5, member)

    def scatter(self) -> float:
        """Of the rings' offsets beyond that of their points, rad; 0 where chance alone gives as much."""
        from scipy.stats import chi2

        if ((self.mean / self.sigma) ** 2).sum() < chi2.isf(_CHANCE, len(self.mean)):
            return 0.0
        return _scatter(self.mean, self.sigma, len(self.mean) - 1)


_CHANCE = 1e-3


_ROUNDS = 20
_SINGULAR = 1e-9
"""Of the smallest singular value of the weighted derivatives, columns of unit length: nothing is determined below."""


def _scatter(residual: Floats, sigma: Floats, degrees: int) -> float:
    """s with Σ residual²/(sigma² + s²) = degrees; 0 where the sum is smaller without."""
    from scipy.optimize import brentq

    def excess(scatter: float) -> float:
        return float((residual**2 / (sigma**2 + scatter**2)).sum()) - degrees

    if excess(0.0) <= 0:
        return 0.0
    return float(brentq(excess, 0.0, math.sqrt(float((residual**2).sum()) / degrees)))


def _minimum(position_m: Floats, two_theta: Floats, sigma: Floats, start: Camera) -> Camera:
    from scipy.optimize import least_squares

    if len(two_theta) <= len(start):
        raise BadInput(f"{len(two_theta)} points on rings are too few for distance, beam centre and tilt")
    found = least_squares(
        lambda p: (scattering_angles(position_m, Camera(*p))[0] - two_theta) / sigma,
        start,
        jac=lambda p: angle_derivatives(position_m, Camera(*p)) / sigma[:, None],
        x_scale="jac",
        xtol=1e-12,
        ftol=1e-12,
        gtol=1e-12,
        max_nfev=200,
    )
    return Camera(*(float(value) for value in found.x))


def _inverse_normal(weighted: Floats) -> Floats:
    """(JᵀJ)⁻¹ of weighted derivatives J (n, 5)."""
    length = np.sqrt((weighted**2).sum(axis=0))
    _, singular, rows = np.linalg.svd(weighted / length, full_matrices=False)
    if singular[-1] < _SINGULAR * singular[0]:
        raise BadInput("the ring points do not determine distance, beam centre and tilt")
    half = rows.T / singular / length[:, None]
    return np.asarray(half @ half.T)


def tilt(camera: Camera, covariance: Floats) -> tuple[Uncertain, Uncertain]:
    """Tilt of the detector from the plane across the beam, and rotation of the tilt plane, rad, as Fit2D has them.

    cos τ = cos α cos β; the rotation is atan2(sin β, −cos β sin α) (pyFAI's `getFit2D`). covariance (5, 5) as of
    `CameraFit`. Both uncertainties are by first order; at tilt 0 the rotation means nothing and its is infinite.
    """
    a, b = camera.rot1, camera.rot2
    across = np.array([-math.cos(b) * math.sin(a), math.sin(b)])
    jacobian = np.array([[-math.cos(b) * math.cos(a), math.sin(b) * math.sin(a)], [0.0, math.cos(b)]])
    of_across = jacobian @ covariance[3:, 3:] @ jacobian.T
    sine = float(np.hypot(*across))
    angle, direction = math.asin(min(sine, 1.0)), math.atan2(across[1], across[0])
    along = across / sine if sine > 0 else np.array([1.0, 0.0])
    normal = np.array([-along[1], along[0]])
    tilt_error = math.sqrt(along @ of_across @ along) / math.cos(angle)
    turn_error = math.sqrt(normal @ of_across @ normal) / sine if sine > 0 else math.inf
    return Uncertain(angle, tilt_error), Uncertain(direction, turn_error)
