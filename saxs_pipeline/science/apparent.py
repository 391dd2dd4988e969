"""What a fit of Gaussian spheres reports of crystals whose sizes are not Gaussian.

Crystals that nucleate and grow have a tail towards small sizes (skewness −0.7 … −2). The fit of one frame then gives a
mean and a variance that differ from the moments of the distribution, by more than the statistical error of a series:
a model must be looked at through the same fit as the measurement. Without noise that fit does not depend on how
strong the signal is, only on how the weights are spread over q.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saxs_pipeline.model_spec import ModelSpec, Population
from saxs_pipeline.science import batchfit
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.science.formfactors import sphere
from saxs_pipeline.science.joint import CurveErrors, curve_gains, expected_covariance, joint_covariance, shared_response
from saxs_pipeline.science.population import Development, at
from saxs_pipeline.types import Bools, Floats, Ints

_STRENGTH = 1e5
"""√Σ(I/σ)² the patterns are fitted at: so large that where the fit stops is beyond the digits that matter."""
_TIMES = 150
"""Times at which a development is fitted; the difference from its moments is a smooth function of ln t."""


@dataclass(frozen=True, eq=False)
class View:
    """How frames at time_s (k,), which increase, see crystals: at q_nm (m,) with the uncertainties sigma (k, m).

    distribution: what is fitted to a frame. Points that do not count have σ NaN; only the shape of σ(q) matters.
    """

    time_s: Floats
    q_nm: Floats
    sigma: Floats
    distribution: str = "gaussian"

    def nearest(self, time_s: Floats) -> Floats:
        """σ(q) of the frame nearest to each of the times (n,), (n, m)."""
        middles = 0.5 * (self.time_s[1:] + self.time_s[:-1])
        return np.asarray(self.sigma[np.searchsorted(middles, time_s)])


def moments(size_grid_nm: Floats, sizes: Floats) -> Floats:
    """(c, mean, variance) of distributions: number `sizes` (n, g) on the grid (g,), c in their unit, (n, 3)."""
    c = sizes.sum(axis=1)
    mean = np.einsum("ng,g->n", sizes, size_grid_nm) / c
    variance = np.einsum("ng,ng->n", sizes, (size_grid_nm - mean[:, None]) ** 2) / c
    return np.stack([c, mean, variance], axis=1)


def reported(
    q_nm: Floats, sigma: Floats, size_grid_nm: Floats, sizes: Floats, distribution: str = "gaussian"
) -> Floats:
    """(c, R₀, s = σ_R²), (n, 3), that the fit gives of I(q) = Σ sizes · P(q, r) without noise.

    q_nm (m,); sigma (n, m), NaN where a point does not count; size_grid_nm (g,) > 0; sizes (n, g), numbers of crystals,
    some in every row. c is in the unit of `sizes`. A row whose fit does not converge is NaN.
    """
    true = moments(size_grid_nm, sizes)
    patterns = np.einsum("ng,gm->nm", sizes, sphere(q_nm, size_grid_nm), optimize=True)
    strength = _STRENGTH / np.sqrt(np.nansum((patterns / sigma) ** 2, axis=1))
    spheres = Population(
        1.0,
        radius_nm=(0.5 * true[:, 1].min(), 1.5 * true[:, 1].max()),
        sigma_nm=(0.003 * true[:, 1].min(), 0.5 * true[:, 1].max()),
    )
    model = CurveModel.of(ModelSpec((spheres,), distribution))
    fit = batchfit.fit_frames(q_nm, patterns * strength[:, None], sigma, model)
    values: Floats = np.where(fit.converged[:, None], fit.values[:, :3], np.nan)
    values[:, 0] /= strength
    return values


def as_seen(development: Development, view: View, time_s: Floats) -> Floats:
    """(c, R₀, s), (k, 3) in µmol/L, nm, nm², that the fits report of a development with sizes at times (k,).

    The moments, plus the difference of `reported` from them at up to 150 times spread evenly in ln t (PCHIP between
    them, constant outside). Before the first crystals c = 0, R₀ and s are NaN.
    """
    from scipy.interpolate import PchipInterpolator

    there = at(development, time_s).all
    values = np.stack([there.c_umol_L, there.radius_nm, there.sigma_nm**2], axis=1)
    rows = _spread_rows(development, view)
    if rows.size < 2:
        return values
    time = development.time_s[rows]
    grid, sizes = development.size_grid_nm, development.sizes[rows]
    true = moments(grid, sizes)
    difference = reported(view.q_nm, view.nearest(time), grid, sizes, view.distribution) - true
    difference[:, 0] /= true[:, 0]
    found = np.isfinite(difference).all(axis=1)
    if np.count_nonzero(found) < 2:
        return np.full_like(values, np.nan)
    log_time = np.log(time[found])
    position = np.clip(np.log(time_s), log_time[0], log_time[-1])
    shift: Floats = PchipInterpolator(log_time, difference[found])(position)
    shift[:, 0] *= values[:, 0]
    return values + shift


def _spread_rows(development: Development, view: View) -> Ints:
    """Up to _TIMES rows with crystals, evenly in ln t over the span of the view, one at each time."""
    some = np.flatnonzero((development.time_s > 0) & (development.sizes.sum(axis=1) > 0))
    if not some.size:
        return some
    time, last_of_a_time = np.unique(development.time_s[some][::-1], return_index=True)
    some = some[::-1][last_of_a_time]
    first, last = np.clip(view.time_s[[0, -1]], time[0], time[-1]).tolist()
    wanted = np.searchsorted(time, np.geomspace(first, last, _TIMES))
    return np.asarray(some[np.unique(np.minimum(wanted, some.size - 1))])


def one_step(
    errors: CurveErrors, intensity: Floats, *, reference: Floats, model: CurveModel, values: Floats, free: Bools
) -> tuple[Floats, Floats]:
    """(c, R₀, s) (k, 3) that one Gauss–Newton step of each frame's fit gives from a reference, and their covariance.

    intensity (k, m) with its errors; reference (k, 3), all c > 0, in place of the first three of the fitted values
    (k, p), of which `free` (k, p) were fitted. The covariance (3k, 3k) is frame by frame.

    With the model as the reference these are linear in the curves: Gaussian and without bias even in the first frames,
    where c and R₀ are so correlated that the fitted values lie on a curved band, and errors follow what c came out as.
    """
    values = np.column_stack([reference, values[:, 3:]])
    gains = curve_gains(errors.q_nm, errors.sigma, values, model, free)[:, :3]
    left = np.where(np.isfinite(errors.sigma), intensity - model.curve(errors.q_nm, values), 0.0)
    step = np.einsum("nim,nm->ni", gains, left)
    covariance = expected_covariance(errors, values, model, free)
    return reference + step, joint_covariance(covariance, shared_response(errors, values, model, free))
