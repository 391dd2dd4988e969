"""Covariance of (c, R₀, s) of many frames that share one background.

Every frame's weighted fit is linear near its solution: an error δI of its curve moves its parameters by G δI with
G = N⁻¹JᵀW, W = 1/(statistical² + shared²). The background's error is the same in all frames, so
cov(pᵢ, pⱼ) = Gᵢ diag(shared²) Gⱼᵀ for i ≠ j, while a frame's own covariance is N⁻¹. No average over frames makes the
shared part smaller.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saxs_pipeline.science.formfactors import gaussian_spheres
from saxs_pipeline.types import BadInput, Floats, Ints

_BLOCK_ELEMENTS = 100_000
_FLOOR = 1e-9
"""Smallest eigenvalue of a frame's independent covariance, in units of its variances: below is rounding."""


def shared_response(q_nm: Floats, sigma: Floats, shared: Floats, values: Floats, amplitude: float) -> Floats:
    """U (n, 3, m): what one standard error of what the frames share, the background, does to (c, R₀, s) of each frame.

    q_nm (m,): the fit's window; sigma (n, m): √(statistical² + shared²) in 1/mm, not finite where a point did not
    count; shared (m,) or (n, m): what the frames have in common of it; values (n, 4), finite, in the order of
    FIT_COLUMNS; amplitude: I(q) in 1/mm per µmol/L and nm⁶. c in µmol/L, R₀ in nm, s in nm².

    For weights in a fit over frames, take `values` from the smoothed series or the model, and so for
    `expected_covariance`: at each frame's own values the noise of U follows that of c, and where the shared part is
    large, a fit with the joint covariance then prefers some noise to other and is biased (by 2 σ in 2000 weak frames).
    """
    n, m = sigma.shape
    response = np.empty((n, 3, m))
    common = np.broadcast_to(np.nan_to_num(shared, nan=0.0, posinf=0.0), sigma.shape)
    for block in _blocks(n, m):
        response[block] = _gains(q_nm, sigma[block], values[block], amplitude)[:, :3] * common[block, None]
    return response


def expected_covariance(q_nm: Floats, sigma: Floats, values: Floats, amplitude: float) -> Floats:
    """N⁻¹ (n, 3, 3) of (c, R₀, s) that the fits of such curves have at `values`; arguments as `shared_response`."""
    n, m = sigma.shape
    covariance = np.empty((n, 3, 3))
    known = np.where(np.isfinite(sigma), sigma, 0.0)
    for block in _blocks(n, m):
        response = _gains(q_nm, sigma[block], values[block], amplitude)[:, :3] * known[block, None]
        covariance[block] = np.einsum("nim,njm->nij", response, response)
    return covariance


def _blocks(n: int, m: int) -> list[slice]:
    step = max(1, _BLOCK_ELEMENTS // max(m, 1))
    return [slice(start, start + step) for start in range(0, n, step)]


def _gains(q_nm: Floats, sigma: Floats, values: Floats, amplitude: float) -> Floats:
    """G = N⁻¹JᵀW (n, 4, m), the change of (c, R₀, s, b) per change of the curve."""
    c, radius, variance, _ = values.T
    form, by_radius, by_variance = gaussian_spheres(q_nm, radius, variance)
    factor = amplitude * c[:, None]
    jacobian = np.stack([amplitude * form, factor * by_radius, factor * by_variance, np.ones_like(form)], axis=1)
    use = np.isfinite(sigma) & (sigma > 0)
    weight = np.zeros_like(sigma)
    np.divide(1.0, sigma * sigma, out=weight, where=use)
    weighted = jacobian * weight[:, None]
    normal = np.einsum("nam,nbm->nab", weighted, jacobian)
    scale = np.sqrt(np.diagonal(normal, axis1=1, axis2=2))[:, :, None]  # the columns differ by orders of magnitude
    scaled = normal / (scale * np.swapaxes(scale, 1, 2))
    gains: Floats = np.linalg.solve(scaled, weighted / scale) / scale
    return gains


def joint_covariance(covariance: Floats, response: Floats) -> Floats:
    """Covariance (3n, 3n) of (c, R₀, s) of all frames, frame by frame; positive definite.

    covariance (n, 3, 3): of one frame, shared part included; response (n, 3, m): of `shared_response`. Raises BadInput
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

    time_s (n,); values (n, 3); covariance (n, 3, 3) of each, shared part included; response (n, 3, m).
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
