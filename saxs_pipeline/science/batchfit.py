"""Weighted least-squares fits of many curves at once: I(q) = A c ⟨P(q; R₀, s)⟩ + b, Gaussian spheres.

Separable least squares: for given (R₀, s) the best c and b are linear, so they are projected out and only (R₀, s) is
iterated, by Levenberg–Marquardt with a damping of its own for each frame. All it needs is the 5×5 Gram matrix of the
weighted columns [f, 1, ∂f/∂R₀, ∂f/∂s, y], f = A⟨P⟩.

No result depends on the other frames of a call, to the last bit: every frame starts from the same fixed grid, sums
run along its own row of a contiguous array (einsum without BLAS, whose kernels change with the shape), and all else
is elementwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from saxs_pipeline.science.formfactors import gaussian_spheres
from saxs_pipeline.types import BadInput, Bools, Floats, Ints

_BLOCK_ELEMENTS = 12_800
"""Frames × bins worked on at once: the dozen arrays of a block stay in the cache of a core."""
_MIN_POINTS = 5
_GRID_WIDTHS = 5
_GRID_RADII = (16, 96)
_MAX_ITERATIONS = 60
_FIRST_DAMPING = 1e-3
_STOP = 1e-6
"""Expected decrease of χ² (δᵀNδ) at which a fit has converged: a step of 0.001 standard errors."""
_POLISH = 4
_ROUNDING = 1e-12
"""χ² from the Gram matrix is the small difference of terms as large as Σ(y/σ)²; a rise below this share is noise."""

_F, _ONE, _BY_R, _BY_S, _Y = range(5)
_TO_FIT_COLUMNS = (_F, _BY_R, _BY_S, _ONE)


@dataclass(frozen=True)
class BatchFit:
    """Fits of n frames.

    values (n, 4) in the order of types.FIT_COLUMNS: c µmol/L, R₀ nm, s = σ_R² nm², b 1/mm; covariance (n, 4, 4) from
    the σ given, not scaled by χ²; chi2_red (n,) χ² over degrees of freedom; n_points (n,) points used; converged (n,);
    model (n, m) the fitted curve at every q. A frame that did not converge keeps the values it ended with, which are
    then no result; a frame with too few points has NaN everywhere.
    """

    values: Floats
    covariance: Floats
    chi2_red: Floats
    n_points: Ints
    converged: Bools
    model: Floats


@dataclass(frozen=True)
class _Range:
    """Box in the (R₀, s) plane."""

    radius: tuple[float, float]
    variance: tuple[float, float]

    def widened(self) -> _Range:
        """Room for the way to a minimum: twice the size, four times the variance."""
        return _Range((0.5 * self.radius[0], 2 * self.radius[1]), (4 * self.variance[0], 4 * self.variance[1]))

    def holds(self, points: Floats) -> Bools:
        """Which of the points (2, n) lie inside; NaN does not."""
        radius, variance = points
        inside: Bools = (
            (radius >= self.radius[0])
            & (radius <= self.radius[1])
            & (variance >= self.variance[0])
            & (variance <= self.variance[1])
        )
        return inside


@dataclass(frozen=True)
class _Scan:
    """Fixed starting points (2, g) and, for each, f and f² (g, m)."""

    points: Floats
    f: Floats
    f2: Floats


def fit_frames(
    q_nm: Floats,
    intensity: Floats,
    sigma: Floats,
    *,
    factor: float,
    radius_nm: tuple[float, float],
    sigma_nm: tuple[float, float],
) -> BatchFit:
    """Fit c, R₀, s = σ_R² and b to every curve, weighted by 1/σ².

    q_nm (m,); intensity and sigma (n, m) in 1/mm; points whose intensity or σ is not finite, or σ ≤ 0, get weight 0.
    factor is `formfactors.intensity_factor`. radius_nm and sigma_nm are the ranges searched for R₀ and σ_R. A fit that
    ends outside them (|s| beyond the largest σ_R²; s may be slightly negative) is not converged.
    Frames with fewer than 5 points are not fitted. Raises BadInput for ranges or shapes that make no sense.
    """
    q, intensity, sigma = _checked(q_nm, intensity, sigma, factor)
    allowed = _allowed(radius_nm, sigma_nm)
    scan = _scan(q, factor, radius_nm, sigma_nm)
    fit = _empty(*intensity.shape)
    for block in _blocks(*intensity.shape):
        u, v = _weighted(intensity[block], sigma[block])
        fit.n_points[block] = np.count_nonzero(u, axis=-1)
        enough = np.flatnonzero(fit.n_points[block] >= _MIN_POINTS)
        if enough.size:
            rows, u, v = block.start + enough, u[enough], v[enough]
            with np.errstate(all="ignore"):  # a hopeless frame ends in inf or NaN, which is never accepted
                start = _best_start(scan, u, v)
                points, stopped = _descend(q, factor, u, v, start, room=allowed.widened())
                _store(fit, rows, _solution(q, factor, u, v, points))
            fit.converged[rows] = stopped & allowed.holds(points) & np.isfinite(fit.covariance[rows, 0, 0])
    return fit


def fit_amplitudes(
    q_nm: Floats, intensity: Floats, sigma: Floats, *, factor: float, radius_nm: float, variance_nm2: float
) -> BatchFit:
    """Fit c and b alone, with R₀ and s fixed: for frames too weak to tell their size.

    Arguments and weights as in `fit_frames`. R₀ and s are repeated in the values; their rows and columns of the
    covariance are NaN; degrees of freedom are n_points − 2, and fewer than 5 points are not fitted.
    """
    q, intensity, sigma = _checked(q_nm, intensity, sigma, factor)
    f = factor * gaussian_spheres(q, np.array([radius_nm]), np.array([variance_nm2]))[0]
    fit = _empty(*intensity.shape)
    for block in _blocks(*intensity.shape):
        u, v = _weighted(intensity[block], sigma[block])
        fit.n_points[block] = np.count_nonzero(u, axis=-1)
        enough = np.flatnonzero(fit.n_points[block] >= _MIN_POINTS)
        if enough.size:
            rows, u, v = block.start + enough, u[enough], v[enough]
            with np.errstate(all="ignore"):
                swept = _sweep(_sweep(_gram(np.stack([f * u, u, v])), _ONE), _F)
            c, b = swept[:2, 2]
            fit.values[rows] = np.stack([c, np.full_like(c, radius_nm), np.full_like(c, variance_nm2), b], axis=-1)
            fit.covariance[rows[:, None, None], [[0], [3]], [0, 3]] = np.moveaxis(swept[:2, :2], -1, 0)
            fit.model[rows] = c[:, None] * f + b[:, None]
            fit.chi2_red[rows] = _chi2(u, v, fit.model[rows]) / (fit.n_points[rows] - 2)
            fit.converged[rows] = np.isfinite(swept).all(axis=(0, 1))
    return fit


def _checked(q_nm: Floats, intensity: Floats, sigma: Floats, factor: float) -> tuple[Floats, Floats, Floats]:
    q, y, e = (np.ascontiguousarray(a, dtype=np.float64) for a in (q_nm, intensity, sigma))
    if q.ndim != 1 or y.ndim != 2 or y.shape != e.shape or y.shape[1:] != q.shape:
        raise BadInput(f"fit: intensity {y.shape} and sigma {e.shape} must both be frames × bins, with q {q.shape}")
    if not (np.isfinite(q).all() and (q >= 0).all() and np.any(q > 0)):
        raise BadInput("fit: q must be finite and not negative; mask the bins that have no q")
    if not (math.isfinite(factor) and factor > 0):
        raise BadInput("fit: the intensity factor must be positive; is the contrast zero?")
    return q, y, e


def _allowed(radius_nm: tuple[float, float], sigma_nm: tuple[float, float]) -> _Range:
    for name, (low, high) in (("radius", radius_nm), ("sigma_r", sigma_nm)):
        if not 0 < low < high < math.inf:
            raise BadInput(
                f"fit: the {name} range must be two increasing positive numbers in nm, not {low:g} to {high:g}"
            )
    return _Range(radius_nm, (-(sigma_nm[1] ** 2), sigma_nm[1] ** 2))


def _blocks(n: int, m: int) -> list[slice]:
    size = max(1, _BLOCK_ELEMENTS // max(m, 1))
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def _empty(n: int, m: int) -> BatchFit:
    return BatchFit(
        values=np.full((n, 4), np.nan),
        covariance=np.full((n, 4, 4), np.nan),
        chi2_red=np.full(n, np.nan),
        n_points=np.zeros(n, dtype=np.int64),
        converged=np.zeros(n, dtype=bool),
        model=np.full((n, m), np.nan),
    )


def _weighted(intensity: Floats, sigma: Floats) -> tuple[Floats, Floats]:
    """u = 1/σ and v = I/σ, both 0 where a point does not count."""
    use = np.isfinite(intensity) & np.isfinite(sigma) & (sigma > 0)
    u = np.zeros_like(intensity)
    v = np.zeros_like(intensity)
    np.divide(1.0, sigma, out=u, where=use)
    np.multiply(intensity, u, out=v, where=use)
    return u, v


def _scan(q: Floats, factor: float, radius_nm: tuple[float, float], sigma_nm: tuple[float, float]) -> _Scan:
    """Grid of radii, four to an oscillation of P at the largest q (within limits), times widths; both geometric."""
    per_oscillation = 4 * q.max() * (radius_nm[1] - radius_nm[0]) / math.pi
    n_radii = int(np.clip(math.ceil(per_oscillation) + 1, *_GRID_RADII))
    radii, widths = np.meshgrid(np.geomspace(*radius_nm, n_radii), np.geomspace(*sigma_nm, _GRID_WIDTHS), indexing="ij")
    points = np.stack([radii.ravel(), widths.ravel() ** 2])
    f = factor * gaussian_spheres(q, points[0], points[1])[0]
    return _Scan(points, f, f * f)


def _best_start(scan: _Scan, u: Floats, v: Floats) -> Floats:
    """Grid point (2, n) with the largest decrease of χ² at a positive c, for each frame."""
    w, wy = u * u, u * v
    total, y = w.sum(axis=-1), wy.sum(axis=-1)
    f = np.einsum("nm,gm->ng", w, scan.f)
    f2 = np.einsum("nm,gm->ng", w, scan.f2)
    fy = np.einsum("nm,gm->ng", wy, scan.f)
    slope = fy - f * (y / total)[:, None]
    decrease = slope * np.abs(slope) / (f2 - f * f / total[:, None])
    return scan.points[:, np.argmax(decrease, axis=-1)]


def _columns(forms: tuple[Floats, Floats, Floats], factor: float, u: Floats, v: Floats) -> Floats:
    """Weighted columns (5, n, m) of f, 1, ∂f/∂R₀, ∂f/∂s and y."""
    columns = np.empty((5, *u.shape))
    scaled = factor * u
    for k, form in zip((_F, _BY_R, _BY_S), forms, strict=True):
        np.multiply(form, scaled, out=columns[k])
    columns[_ONE] = u
    columns[_Y] = v
    return columns


def _gram(columns: Floats) -> Floats:
    """Inner products (p, p, n) of weighted columns (p, n, m), each summed along its own row."""
    gram: Floats = np.einsum("anm,bnm->abn", columns, columns)
    return gram


def _sweep(gram: Floats, k: int) -> Floats:
    """Gauss–Jordan (sweep) operator on pivot k of (p, p, n): solves for parameter k, the others adjusted for it.

    Swept on a set of columns, the block of that set holds the inverse of its normal matrix, the last column its
    least-squares solution, and the last diagonal element χ² (Goodnight 1979, Am. Stat. 33, 149).
    """
    pivot, column = gram[k, k], gram[:, k]
    row = gram[k] / pivot
    swept: Floats = gram - column[:, None] * row
    swept[k] = row
    swept[:, k] = -column / pivot
    swept[k, k] = 1 / pivot
    return swept


def _normal_equations(q: Floats, factor: float, u: Floats, v: Floats, points: Floats) -> Floats:
    """(4, 3, n): normal matrix and gradient of (R₀, s) with c and b at their best, χ² at [2, 2]; [3, 0] is Σ(y/σ)²."""
    gram = _gram(_columns(gaussian_spheres(q, *points), factor, u, v))
    swept = _sweep(_sweep(gram, _ONE), _F)
    normal = np.zeros((4, 3, u.shape[0]))
    normal[:3] = swept[_BY_R:, _BY_R:]
    c = swept[_F, _Y]
    normal[:2] *= c
    normal[:3, :2] *= c
    normal[3, 0] = gram[_Y, _Y]
    return normal


def _step(normal: Floats, damping: Floats | float) -> Floats:
    """Levenberg–Marquardt step (2, n) in (R₀, s); damping 0 gives the Gauss–Newton step."""
    damped = normal[:3].copy()
    for k in range(2):
        damped[k, k] *= 1 + damping
    return _sweep(_sweep(damped, 0), 1)[:2, 2]


def _descend(q: Floats, factor: float, u: Floats, v: Floats, start: Floats, *, room: _Range) -> tuple[Floats, Bools]:
    """Minimise χ² over (R₀, s) from start (2, n); returns the points (2, n) and which of them are minima.

    Frames leave the working arrays when they are at a minimum, or have walked out of the room.
    """
    points, stopped = start.copy(), np.zeros(start.shape[1], dtype=bool)
    rows, here = np.arange(start.shape[1]), start
    damping = np.full(rows.size, _FIRST_DAMPING)
    all_u, all_v = u, v
    normal = _normal_equations(q, factor, u, v, here)
    for _ in range(_MAX_ITERATIONS):
        newton = _step(normal, 0.0)
        done = newton[0] * normal[0, 2] + newton[1] * normal[1, 2] < _STOP
        gone = done | ~room.holds(here)
        if gone.any():
            stopped[rows] = done
            points[:, rows] = np.where(done, here + newton, here)
            rows, here, damping, normal, u, v = (
                np.compress(~gone, a, axis=axis)
                for a, axis in ((rows, 0), (here, 1), (damping, 0), (normal, 2), (u, 0), (v, 0))
            )
            if not rows.size:
                break
        there = here + _step(normal, damping)
        trial = _normal_equations(q, factor, u, v, there)
        better = trial[2, 2] <= normal[2, 2] + _ROUNDING * normal[3, 0]
        here, normal = np.where(better, there, here), np.where(better, trial, normal)
        damping = np.where(better, 0.1 * damping, 10 * damping)
    points[:, rows] = here
    return _polished(q, factor, all_u, all_v, points, stopped=stopped), stopped


def _polished(q: Floats, factor: float, u: Floats, v: Floats, points: Floats, *, stopped: Bools) -> Floats:
    """Minima after a few more Gauss–Newton steps.

    In noisy frames these converge linearly, so that a step of 0.001 standard errors may have three times that ahead.
    A step that is larger than the one which stopped the frame is not taken.
    """
    for _ in range(_POLISH):
        normal = _normal_equations(q, factor, u, v, points)
        newton = _step(normal, 0.0)
        smaller = stopped & (newton[0] * normal[0, 2] + newton[1] * normal[1, 2] < _STOP)
        points = np.where(smaller, points + newton, points)
    return points


def _solution(q: Floats, factor: float, u: Floats, v: Floats, points: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Values (n, 4), covariance (n, 4, 4), χ² (n,) and model (n, m) at given (R₀, s)."""
    forms = gaussian_spheres(q, *points)
    swept = _sweep(_sweep(_gram(_columns(forms, factor, u, v)), _ONE), _F)
    c, b = swept[_F, _Y], swept[_ONE, _Y]
    inverse = _sweep(_sweep(swept, _BY_R), _BY_S)[:4, :4]
    scale = np.stack([np.ones_like(c), np.ones_like(c), 1 / c, 1 / c])  # the columns of R₀ and s are c ∂f
    covariance = (inverse * scale * scale[:, None])[np.ix_(_TO_FIT_COLUMNS, _TO_FIT_COLUMNS)]
    definite = (np.diagonal(covariance) > 0).all(axis=-1) & np.isfinite(covariance).all(axis=(0, 1))
    covariance[:, :, ~definite] = np.nan
    model = (factor * c)[:, None] * forms[0] + b[:, None]
    return np.stack([c, *points, b], axis=-1), np.moveaxis(covariance, -1, 0), _chi2(u, v, model), model


def _chi2(u: Floats, v: Floats, model: Floats) -> Floats:
    residual = v - u * model
    chi2: Floats = np.einsum("nm,nm->n", residual, residual)
    return chi2


def _store(fit: BatchFit, rows: Ints, solution: tuple[Floats, Floats, Floats, Floats]) -> None:
    fit.values[rows], fit.covariance[rows], chi2, fit.model[rows] = solution
    fit.chi2_red[rows] = chi2 / (fit.n_points[rows] - 4)
