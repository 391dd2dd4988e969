"""Weighted least squares of a series with the full covariance of its points: linear, and a shape with an amplitude."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from saxs_pipeline.types import BadInput, Floats

_SINGULAR = 1e-7
"""Smallest singular value, of columns of unit length, with which derivatives by differences tell parameters apart."""

Shape = Callable[[Floats, Floats], Floats]


class Points(NamedTuple):
    """A series: times (n,) in s that increase, values (n,) and their covariance (n, n), positive definite."""

    time_s: Floats
    value: Floats
    covariance: Floats

    def between(self, start_s: float, end_s: float) -> Points:
        """The points from start_s to end_s, both included."""
        keep = (self.time_s >= start_s) & (self.time_s <= end_s)
        return Points(self.time_s[keep], self.value[keep], self.covariance[np.ix_(keep, keep)])


@dataclass(frozen=True, eq=False)
class Minimum:
    """Least-squares solution: parameters (p,), their covariance (p, p), gain (p, n) = ∂parameters/∂values, χ².

    residual (n,): values − model. Covariance and gain are NaN where the points do not determine the parameters.
    """

    parameters: Floats
    covariance: Floats
    gain: Floats
    chi2: float
    residual: Floats


def whiten(covariance: Floats, vectors: Floats) -> Floats:
    """W vectors, (n,) or (n, p), with W C Wᵀ = 1: W is the inverse Cholesky factor of the covariance C (n, n).

    Raises BadInput if C is not positive definite.
    """
    return np.asarray(np.linalg.solve(_factor(covariance), vectors))


def _factor(covariance: Floats) -> Floats:
    try:
        return np.asarray(np.linalg.cholesky(covariance))
    except np.linalg.LinAlgError:
        raise BadInput("covariance of the series: it is not positive definite") from None


def linear_fit(columns: Floats, points: Points) -> Minimum:
    """Best linear combination of columns (n, p)."""
    factor = _factor(points.covariance)
    white = np.linalg.solve(factor, np.column_stack([columns, points.value]))
    inverse = np.linalg.pinv(white[:, :-1])
    parameters = inverse @ white[:, -1]
    left = white[:, -1] - white[:, :-1] @ parameters
    return Minimum(
        parameters,
        inverse @ inverse.T,
        np.asarray(np.linalg.solve(factor.T, inverse.T).T),
        float(left @ left),
        points.value - columns @ parameters,
    )


def fit_shape(shape: Shape, grid: Floats, points: Points, bounds: Sequence[tuple[float, float]]) -> Minimum:
    """Fit value = a · shape(t, θ): parameters (a, θ…).

    grid (g, p): starting values of θ, the best of which is refined within the bounds of each; shape(t (n,), θ (…, p))
    → (…, n).
    """
    from scipy.optimize import least_squares

    white = whiten(points.covariance, np.eye(len(points.value)))
    target = white @ points.value

    def model(theta: Floats) -> Floats:
        return theta[..., :1] * shape(points.time_s, theta[..., 1:])

    start = _best_of(grid, white, target, shape(points.time_s, grid))
    lower, upper = np.array([(-np.inf, np.inf), *bounds]).T
    found = least_squares(
        lambda theta: white @ model(theta) - target,
        start,
        jac="3-point",
        bounds=(lower, upper),
        x_scale="jac",
        xtol=1e-12,
        ftol=1e-12,
        gtol=1e-12,
        max_nfev=200,
    )
    inverse = _inverse(found.jac)
    residual = points.value - model(found.x)
    return Minimum(found.x, inverse @ inverse.T, inverse @ white, float(2 * found.cost), residual)


def _inverse(jacobian: Floats) -> Floats:
    """Pseudo-inverse (p, n) of the derivatives (n, p); all NaN if a combination of parameters changes nothing."""
    length = np.sqrt((jacobian**2).sum(axis=0))
    if not (length > 0).all():
        return np.full(jacobian.T.shape, np.nan)
    unit = jacobian / length
    if np.linalg.svd(unit, compute_uv=False)[-1] < _SINGULAR:
        return np.full(jacobian.T.shape, np.nan)
    return np.asarray(np.linalg.pinv(unit) / length[:, None])


def _best_of(grid: Floats, white: Floats, target: Floats, shapes: Floats) -> Floats:
    """The grid point with the lowest χ² at its best positive amplitude, as (a, θ…)."""
    columns = shapes @ white.T
    along, length = columns @ target, np.einsum("gn,gn->g", columns, columns)
    amplitude = np.divide(along, length, out=np.zeros_like(along), where=length > 0)
    best = int(np.argmax(np.where(amplitude > 0, amplitude * along, -np.inf)))
    return np.concatenate([amplitude[best : best + 1], grid[best]])
