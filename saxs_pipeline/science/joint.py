"""Covariance of (c, R₀, s) of many frames that share one background.

Every frame's weighted fit is linear near its solution: an error δI of its curve moves its parameters by G δI with
G = N⁻¹JᵀW, W = 1/(statistical² + shared²). The background's error is the same in all frames, so
cov(pᵢ, pⱼ) = Gᵢ diag(shared²) Gⱼᵀ for i ≠ j, while a frame's own covariance is N⁻¹. No average over frames makes the
shared part smaller. Errors that move a whole curve v, those of its monitor reading and of the background's factor, are
in no weight: they add (G v)(G v)ᵀ (law of propagation with full correlation over q).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.types import BadInput, Bools, Curves, Floats, Ints

_BLOCK_ELEMENTS = 100_000
_FLOOR = 1e-9
"""Smallest eigenvalue of a frame's independent covariance, in units of its variances: below is rounding."""


class CurveErrors(NamedTuple):
    """What is known of the errors of n curves in a fit's window of m points, 1/mm.

    q_nm (m,); sigma (n, m): √(statistical² + common²), NaN where a point did not count; common (n, m): what all curves
    have in common of it; by_factor (n, m) and by_background (m,): what one standard error of a curve's own factor, and
    of the background's, does to it.
    """

    q_nm: Floats
    sigma: Floats
    common: Floats
    by_factor: Floats
    by_background: Floats

    @classmethod
    def of(cls, curves: Curves, rows: Ints | Bools, window: Bools) -> CurveErrors:
        """Those of some rows of the curves, at the q where `window` is True."""
        sigma = np.where(np.isfinite(curves.intensity[rows]), curves.sigma[rows], np.nan)
        return cls(
            q_nm=curves.q_nm[window],
            sigma=sigma[:, window],
            common=np.nan_to_num(curves.common[rows][:, window], posinf=0.0),
            by_factor=np.nan_to_num(curves.by_factor[rows][:, window]),
            by_background=np.nan_to_num(curves.by_background[window]),
        )


def shared_response(errors: CurveErrors, values: Floats, model: CurveModel, free: Bools, population: int = 0) -> Floats:
    """U (n, 3, m + 1): what one standard error of what the frames share does to (c, R₀, s) of a population.

    That is the background at each q, and at last its factor. values (n, p) in the order of the model's columns, finite
    where they are free (n, p). c in µmol/L, R₀ in nm, s in nm².

    For weights in a fit over frames, take `values` from the smoothed series or the model, and so for
    `expected_covariance`: at each frame's own values the noise of U follows that of c, and where the shared part is
    large, a fit with the joint covariance then prefers some noise to other and is biased (by 2 σ in 2000 weak frames).
    """
    n, m = errors.sigma.shape
    response = np.empty((n, 3, m + 1))
    for block in _blocks(n, m):
        gains = curve_gains(errors.q_nm, errors.sigma[block], values[block], model, free[block])
        gains = gains[:, model.places(population)]
        response[block, :, :m] = gains * errors.common[block, None]
        response[block, :, m] = np.einsum("nim,m->ni", gains, errors.by_background)
    return response


def expected_covariance(errors: CurveErrors, values: Floats, model: CurveModel, free: Bools) -> Floats:
    """(n, 3, 3) of (c, R₀, s) that the fits of such curves have at `values`: N⁻¹, and what moves whole curves."""
    n, m = errors.sigma.shape
    covariance = np.empty((n, 3, 3))
    known = np.where(np.isfinite(errors.sigma), errors.sigma, 0.0)
    for block in _blocks(n, m):
        gains = curve_gains(errors.q_nm, errors.sigma[block], values[block], model, free[block])
        response = gains[:, :3] * known[block, None]
        covariance[block] = np.einsum("nim,njm->nij", response, response)
    return covariance + factor_covariance(errors, values, model, free)[:, :3, :3]


def factor_covariance(errors: CurveErrors, values: Floats, model: CurveModel, free: Bools) -> Floats:
    """(n, p, p) by which errors that move whole curves add to the covariance of the fitted values, of which `free` are.

    A row of values (n, p) that is not finite where it is free adds nothing. No row of the result depends on the others.
    """
    covariance = np.zeros((*values.shape, values.shape[1]))
    if not (errors.by_factor.any() or errors.by_background.any()):
        return covariance
    known = np.flatnonzero((np.isfinite(values) | ~free).all(axis=1) & free.any(axis=1))
    for block in _blocks(len(known), len(errors.q_nm)):
        rows = known[block]
        gains = curve_gains(errors.q_nm, errors.sigma[rows], values[rows], model, free[rows])
        gains = np.ascontiguousarray(gains)
        for curves in (errors.by_factor[rows], np.tile(errors.by_background, (len(rows), 1))):
            by = np.einsum("nim,nm->ni", gains, curves)
            covariance[rows] += by[:, :, None] * by[:, None, :]
    return covariance


def _blocks(n: int, m: int) -> list[slice]:
    step = max(1, _BLOCK_ELEMENTS // max(m, 1))
    return [slice(start, start + step) for start in range(0, n, step)]


def curve_gains(q_nm: Floats, sigma: Floats, values: Floats, model: CurveModel, free: Bools) -> Floats:
    """G = N⁻¹JᵀW (n, p, m), the change of the values per change of the curve; 0 for those that are not free (n, p).

    q_nm (m,); sigma (n, m), not finite where a point did not count; values (n, p), finite where they are free.
    """
    design = model.design(q_nm, values, free)
    use = np.isfinite(sigma) & (sigma > 0)
    weight = np.zeros_like(sigma)
    np.divide(1.0, sigma * sigma, out=weight, where=use)
    weighted = design.columns * weight[:, None]
    normal = np.einsum("nam,nbm->nab", weighted, design.columns)
    scale = np.sqrt(np.diagonal(normal, axis1=1, axis2=2))  # the columns differ by orders of magnitude
    scale = np.where(design.free, scale, 1.0)[:, :, None]
    normal += np.eye(normal.shape[1]) * ~design.free[:, None]
    scaled = normal / (scale * np.swapaxes(scale, 1, 2))
    gains: Floats = np.linalg.solve(scaled, weighted / scale) / scale
    return design.followed(gains)


def joint_covariance(covariance: Floats, response: Floats) -> Floats:
    """Covariance (3n, 3n) of (c, R₀, s) of all frames, frame by frame; positive definite.

    covariance (n, 3, 3): of one frame, shared part included; response (n, 3, j): of `shared_response`. Raises BadInput
    if the two do not fit together in shape.
    """
    n = len(covariance)
    if covariance.shape != (n, 3, 3) or response.shape[:2] != (n, 3):
        raise BadInput(f"joint covariance: covariance {covariance.shape} and response {response.shape} do not match")
    flat = response.reshape(3 * n, -1)
    joint: Floats = flat @ flat.T
    frames = np.arange(n)
    joint.reshape(n, 3, n, 3)[frames, :, frames, :] += independent_covariance(covariance, response)
    return joint


def independent_covariance(covariance: Floats, response: Floats) -> Floats:
    """The part (n, 3, 3) of each frame's covariance that is its own: G diag(statistical²) Gᵀ; positive definite."""
    own: Floats = covariance - np.einsum("nim,njm->nij", response, response)
    scale = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    unit = scale[:, :, None] * scale[:, None, :]
    eigenvalues, vectors = np.linalg.eigh(own / unit)
    low = (eigenvalues < _FLOOR).any(axis=-1)
    if low.any():
        lifted = np.maximum(eigenvalues[low], _FLOOR)
        own[low] = unit[low] * np.einsum("nik,nk,njk->nij", vectors[low], lifted, vectors[low])
    return own


@dataclass(frozen=True, eq=False)
class JointSeries:
    """(c, R₀, s) of frames or of averages over neighbouring frames, in order of time.

    time_s (n,); values (n, 3); covariance (n, 3, 3) of each, shared part included; response (n, 3, j).
    """

    time_s: Floats
    values: Floats
    covariance: Floats
    response: Floats

    def joint(self) -> Floats:
        """Covariance (3n, 3n) of all values, row by row."""
        return joint_covariance(self.covariance, self.response)

    def averaged(self, starts: Ints, weight: Floats) -> JointSeries:
        """Weighted means over the runs of frames that begin at `starts` (b,); weight (n,) > 0.

        The shared part stays, the independent part shrinks with the number of frames. Weights must not depend on the
        values: averages of c weighted by the fits' own errors, which grow with c, would come out too small.
        """
        share = weight / np.repeat(np.add.reduceat(weight, starts), np.diff(starts, append=len(weight)))
        by_frame = share[:, None, None]
        own = independent_covariance(self.covariance, self.response)
        response = np.add.reduceat(by_frame * self.response, starts)
        return JointSeries(
            time_s=np.add.reduceat(share * self.time_s, starts),
            values=np.add.reduceat(share[:, None] * self.values, starts),
            covariance=np.add.reduceat(by_frame**2 * own, starts) + np.einsum("nim,njm->nij", response, response),
            response=response,
        )
