"""Weighted least-squares fits of many curves at once, of any `CurveModel`.

Separable least squares: for given sizes the best concentrations, power law and constant are linear, so they are
projected out and only the nonlinear parameters are iterated, by Levenberg–Marquardt with a damping of its own for each
frame (the variable projection of Golub & Pereyra 1973 in Kaufman's approximation). All it needs is the Gram matrix of
the weighted columns: terms, partials, y.

No result depends on the other frames of a call, to the last bit: every frame starts from the same fixed grid, sums
run along its own row of a contiguous array (einsum without BLAS, whose kernels change with the shape), and all else
is elementwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.science.gram import Frames, Held, Layout, sweep
from saxs_pipeline.science.scan import scan_of
from saxs_pipeline.types import BadInput, Bools, Floats, Ints

_BLOCK_ELEMENTS = 12_800
"""Frames × bins worked on at once: the dozen arrays of a block stay in the cache of a core."""
_FEWEST_POINTS = 5
_MAX_ITERATIONS = 60
_FIRST_DAMPING = 1e-3
_STOP = 1e-6
"""Expected decrease of χ² (δᵀNδ) at which a fit has converged: a step of 0.001 standard errors."""
_POLISH = 4
_POLISHED = 1e-9
_WORTH = 2.0
"""c/σ_c at a size held in the middle of its ranges from which on it is worth while to fit that size too."""
_ROUNDING = 1e-12
"""χ² from the Gram matrix is the small difference of terms as large as Σ(y/σ)²; a rise below this share is noise."""


@dataclass(frozen=True)
class BatchFit:
    """Fits of n frames.

    values (n, p) in the order of the model's columns; covariance (n, p, p) from the σ given, not scaled by χ², 0 for
    what is held; free (n, p): what was fitted, and what is tied to that; chi2 (n,), and chi2_red (n,) over degrees of
    freedom; n_points (n,) points used; converged (n,); model (n, m) the fitted curve at every q. A frame that did not
    converge keeps the values it ended with, which are then no result; one with too few points has NaN everywhere.
    """

    values: Floats
    covariance: Floats
    free: Bools
    chi2: Floats
    chi2_red: Floats
    n_points: Ints
    converged: Bools
    model: Floats


def fit_frames(
    q_nm: Floats,
    intensity: Floats,
    sigma: Floats,
    model: CurveModel,
    *,
    held: Held | None = None,
    start: Floats | None = None,
) -> BatchFit:
    """Fit every curve, weighted by 1/σ².

    q_nm (m,); intensity and sigma (n, m) in 1/mm; points whose intensity or σ is not finite, or σ ≤ 0, get weight 0.
    A fit that ends outside the model's ranges is not converged; from the grid, one of two populations that leads it
    there is held for a while, see `_search_again`. held: nonlinear parameters with given values; start (n, j):
    nonlinear parameters to start from instead of the grid, needed where some but not all are held.
    Frames with fewer than 5 points, or no more than parameters, are not fitted. Raises BadInput for ranges or shapes
    that make no sense.
    """
    q, intensity, sigma = _checked(q_nm, intensity, sigma, model)
    fit = _fit(q, intensity, sigma, model, held, start)
    if len(model.populations) > 1 and start is None and not held:
        _search_again(fit, q, intensity, sigma, model)
    return fit


def _fit(  # noqa: PLR0917
    q: Floats, intensity: Floats, sigma: Floats, model: CurveModel, held: Held | None, start: Floats | None
) -> BatchFit:
    """The fits from one start."""
    layout = Layout(model, tuple(sorted(held or {})))
    scan = scan_of(model, q.tobytes()) if layout.free and start is None else None
    fit = _empty(len(intensity), len(q), layout)
    for block in _blocks(len(intensity), len(q) * model.q_per_bin):
        u, v = _weighted(intensity[block], sigma[block])
        fit.n_points[block] = np.count_nonzero(u, axis=-1)
        rows = block.start + np.flatnonzero(fit.n_points[block] >= max(layout.parameters + 1, _FEWEST_POINTS))
        if rows.size:
            u, v = u[rows - block.start], v[rows - block.start]
            fixed = {j: value[rows] for j, value in (held or {}).items()}
            frames = Frames(q, u, v, layout, fixed)
            with np.errstate(all="ignore"):  # a hopeless frame ends in inf or NaN, which is never accepted
                first = scan.best(u, v) if scan is not None else _given(start, rows, layout)
                free, stopped = _descend(frames, first)
                _store(fit, rows, frames, free)
            fine = np.isfinite(fit.covariance[rows][:, model.linear[0], model.linear[0]])
            fit.converged[rows] = stopped & frames.within(free) & fine
    return fit


def _search_again(fit: BatchFit, q: Floats, intensity: Floats, sigma: Floats, model: CurveModel) -> None:
    """Put fits from other starts in the place of those of two populations of which one was led out of its ranges.

    Points of the grid are farther apart than a strong population's size is known: from the best of them a fit bends a
    weak one to what the strong one still lacks, and walks off with it. So what walked off is held in the middle of its
    ranges until the other one is fitted, and if it is there, both are fitted from then on.
    """
    ended, (low, high) = fit.values[:, model.nonlinear], model.limits
    out = ~((ended >= low) & (ended <= high))
    for sizes, others in zip(_middles(model), _middles(model)[::-1], strict=True):
        rows = np.flatnonzero(~fit.converged & out[:, list(sizes)].any(axis=1) & ~out[:, list(others)].any(axis=1))
        if not rows.size or set(sizes).isdisjoint(model.free):
            continue
        held = {j: np.full(rows.size, value) for j, value in sizes.items()}
        one = _fit(q, intensity[rows], sigma[rows], model, held, ended[rows])
        places = list(model.linear[: len(model.populations)])
        with np.errstate(invalid="ignore"):
            errors = np.sqrt(np.einsum("naa->na", one.covariance)[:, places])
            there = one.converged & (one.values[:, places] > _WORTH * errors).all(axis=1)
        rows = rows[there]
        two = _fit(q, intensity[rows], sigma[rows], model, None, one.values[there][:, model.nonlinear])
        for field in fields(BatchFit):
            getattr(fit, field.name)[rows[two.converged]] = getattr(two, field.name)[two.converged]


def _middles(model: CurveModel) -> list[dict[int, float]]:
    """R₀ and s of each population in the middle of their ranges; what is tied follows."""
    middle = 0.5 * np.sum(model.limits, axis=0)
    for k, one in enumerate(model.populations):
        middle[2 * k : 2 * k + 2] = math.sqrt(math.prod(one.radius_nm)), math.prod(one.sigma_nm)
    psi = model.expand(middle[list(model.free), None])[:, 0]
    return [{j: float(psi[j]) for j in (2 * k, 2 * k + 1)} for k in range(len(model.populations))]


def _given(start: Floats | None, rows: Ints, layout: Layout) -> Floats:
    if start is None:
        return np.zeros((0, len(rows)))
    return np.ascontiguousarray(start[rows][:, layout.free].T)


def _checked(q_nm: Floats, intensity: Floats, sigma: Floats, model: CurveModel) -> tuple[Floats, Floats, Floats]:
    q, y, e = (np.ascontiguousarray(a, dtype=np.float64) for a in (q_nm, intensity, sigma))
    if q.ndim != 1 or y.ndim != 2 or y.shape != e.shape or y.shape[1:] != q.shape:
        raise BadInput(f"fit: intensity {y.shape} and sigma {e.shape} must both be frames × bins, with q {q.shape}")
    if not (np.isfinite(q).all() and (q >= 0).all() and np.any(q > 0)):
        raise BadInput("fit: q must be finite and not negative; mask the bins that have no q")
    for one in model.populations:
        if not (np.isfinite(one.amplitude) and one.amplitude > 0):
            raise BadInput("fit: the intensity factor must be positive; is the contrast zero?")
        for name, (low, high) in (("radius", one.radius_nm), ("sigma_r", one.sigma_nm)):
            if not 0 < low < high < np.inf:
                raise BadInput(
                    f"fit: the {name} range must be two increasing positive numbers in nm, not {low:g} to {high:g}"
                )
    return q, y, e


def _blocks(n: int, m: int) -> list[slice]:
    size = max(1, _BLOCK_ELEMENTS // max(m, 1))
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]


def _weighted(intensity: Floats, sigma: Floats) -> tuple[Floats, Floats]:
    """u = 1/σ and v = I/σ, both 0 where a point does not count."""
    use = np.isfinite(intensity) & np.isfinite(sigma) & (sigma > 0)
    u = np.zeros_like(intensity)
    v = np.zeros_like(intensity)
    np.divide(1.0, sigma, out=u, where=use)
    np.multiply(intensity, u, out=v, where=use)
    return u, v


def _step(normal: Floats, damping: Floats | float) -> Floats:
    """Levenberg–Marquardt step (f, n); damping 0 gives the Gauss–Newton step."""
    damped = normal.copy()
    number = len(normal) - 1
    for k in range(number):
        damped[k, k] *= 1 + damping
    for k in range(number):
        damped = sweep(damped, k)
    return damped[:-1, -1]


def _descend(frames: Frames, start: Floats) -> tuple[Floats, Bools]:
    """Minimise χ² over the free parameters from start (f, n); returns them and which of them are minima.

    Frames leave the working arrays when they are at a minimum, or have walked out of the room.
    """
    points, stopped = start.copy(), np.ones(start.shape[1], dtype=bool)
    if not len(start):
        return points, stopped
    stopped[:] = False
    rows, here, left = np.arange(start.shape[1]), start, frames
    damping = np.full(rows.size, _FIRST_DAMPING)
    normal, total = left.normal_equations(here)
    for _ in range(_MAX_ITERATIONS):
        newton = _step(normal, 0.0)
        done = _decrease(newton, normal) < _STOP
        gone = done | ~left.inside(here)
        if gone.any():
            stopped[rows] = done
            points[:, rows] = np.where(done, here + newton, here)
            rows, here, damping, normal, total = (
                np.compress(~gone, a, axis=-1) for a in (rows, here, damping, normal, total)
            )
            left = left.keep(~gone)
            if not rows.size:
                break
        there = here + _step(normal, damping)
        trial, _ = left.normal_equations(there)
        better = trial[-1, -1] <= normal[-1, -1] + _ROUNDING * total
        here, normal = np.where(better, there, here), np.where(better, trial, normal)
        damping = np.where(better, 0.1 * damping, 10 * damping)
    points[:, rows] = here
    return _polished(frames, points, stopped=stopped), stopped


def _decrease(step: Floats, normal: Floats) -> Floats:
    """Expected decrease of χ² (n,) of a Gauss–Newton step."""
    expected = step[0] * normal[0, -1]
    for k in range(1, len(step)):
        expected = expected + step[k] * normal[k, -1]
    return np.asarray(expected)


def _polished(frames: Frames, points: Floats, *, stopped: Bools) -> Floats:
    """Minima after a few more Gauss–Newton steps, as long as one is worth it.

    In noisy frames these converge linearly, so that a step of 0.001 standard errors may have three times that ahead.
    A step that is larger than the one which stopped the frame is not taken.
    """
    points, rows, left = points.copy(), np.arange(points.shape[1]), frames
    going = stopped
    for _ in range(_POLISH):
        rows, left = rows[going], left.keep(going)
        if not rows.size:
            break
        normal, _ = left.normal_equations(points[:, rows])
        newton = _step(normal, 0.0)
        decrease = _decrease(newton, normal)
        points[:, rows] += np.where(decrease < _STOP, newton, 0.0)
        going = (decrease < _STOP) & (decrease > _POLISHED)
    return points


def _empty(n: int, m: int, layout: Layout) -> BatchFit:
    model = layout.model
    p = len(model.columns)
    free = np.zeros(p, dtype=bool)
    free[list(model.linear)] = True
    free[[model.nonlinear[j] for j in layout.parameter_of]] = True
    return BatchFit(
        values=np.full((n, p), np.nan),
        covariance=np.full((n, p, p), np.nan),
        free=np.repeat(free[None], n, axis=0),
        chi2=np.full(n, np.nan),
        chi2_red=np.full(n, np.nan),
        n_points=np.zeros(n, dtype=np.int64),
        converged=np.zeros(n, dtype=bool),
        model=np.full((n, m), np.nan),
    )


def _store(fit: BatchFit, rows: Ints, frames: Frames, free: Floats) -> None:
    """Values, covariance, χ² and fitted curves at given free parameters (f, n)."""
    layout, model = frames.layout, frames.layout.model
    psi = frames.expand(free)
    terms, partials = frames.basis(psi)
    gram = frames.gram(terms, partials)
    swept = gram
    for k in reversed(range(layout.terms)):
        swept = sweep(swept, k)
    linear = swept[: layout.terms, -1]
    values = np.full((len(rows), len(model.columns)), 0.0 if model.constant is None else model.constant)
    values[:, model.linear] = linear.T
    values[:, model.nonlinear] = psi.T
    fit.values[rows] = values
    fit.covariance[rows] = np.moveaxis(_covariance(frames, gram, linear, free), -1, 0)
    curves = np.repeat(values[:, 3:4], len(frames.q), axis=1)
    for coefficient, term in zip(linear, terms, strict=False):
        curves += coefficient[:, None] * term
    fit.model[rows] = curves
    residual = frames.v - frames.u * (curves - (model.constant or 0.0))
    fit.chi2[rows] = np.einsum("nm,nm->n", residual, residual)
    fit.chi2_red[rows] = fit.chi2[rows] / (fit.n_points[rows] - layout.parameters)


def _covariance(frames: Frames, gram: Floats, linear: Floats, free: Floats) -> Floats:
    """Covariance (p, p, n) of all columns; NaN where the points do not determine them."""
    layout, model = frames.layout, frames.layout.model
    normal = frames.collapsed(gram, linear, free)[:-1, :-1]
    scale = np.sqrt(np.einsum("aan->an", normal))
    inverse = normal / (scale[:, None] * scale)
    for k in range(len(inverse)):
        inverse = sweep(inverse, k)
    inverse /= scale[:, None] * scale
    definite = (np.einsum("aan->an", inverse) > 0).all(axis=0) & np.isfinite(inverse).all(axis=(0, 1))
    inverse[:, :, ~definite] = np.nan
    full = np.zeros((len(model.columns), len(model.columns), inverse.shape[2]))
    if layout.plain:
        places = [*model.linear, *(model.nonlinear[j] for j in layout.free)]
        full[np.ix_(places, places)] = inverse
        return full
    chain = np.zeros((len(model.columns), len(inverse), inverse.shape[2]))
    chain[list(model.linear), np.arange(layout.terms)] = 1.0
    if layout.free:
        chain[list(model.nonlinear), layout.terms :] = frames.chain(free)
    return np.asarray(np.einsum("ian,abn,jbn->ijn", chain, inverse, chain, optimize=True))
