"""Where a fit starts: the best point of a fixed grid of sizes, for each frame by itself.

For every point of the grid the linear coefficients are at their best; all that takes are a few products of the frames'
weights with curves known beforehand. Bins are summed to groups as narrow as the fastest oscillation allows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.types import Floats, Ints

_WIDTHS = {1: 5, 2: 3}
_RADII = {1: (16, 96), 2: (6, 24)}
"""Widths, and fewest and most radii, of each population, by how many there are."""
_BLOCK_ELEMENTS = 20_000
"""Frames × candidates worked on at once: they stay in the cache of a core."""
_EXPONENTS = 4
_FRACTIONS = 5
_PER_OSCILLATION = 4
_GROUPS_PER_OSCILLATION = 8


@dataclass(frozen=True, eq=False)
class _Term:
    """Curves of one population at its own grid points (g, m), and which of them each candidate has (k,)."""

    curves: Floats
    squares: Floats
    of: Ints


@dataclass(frozen=True, eq=False)
class _Spheres:
    """Populations' terms at the candidates, and of two their products (k, m); no exponent matters to them."""

    terms: tuple[_Term, ...]
    products: Floats | None


@dataclass(frozen=True, eq=False)
class _Grid:
    """Candidates with one exponent: free parameters (f, k), the spheres, other terms."""

    free: Floats
    spheres: _Spheres
    others: Floats  # (l, m): power law, constant


class Scan:
    """The grid of a model for curves at q_nm (m,)."""

    def __init__(self, q_nm: Floats, model: CurveModel) -> None:
        self._starts = _groups(q_nm, model)
        self.spheres = _spheres_of(replace(model, power_law=None, constant=0.0), q_nm.tobytes())
        self._grids = [
            _Grid(free, self.spheres, _others(q_nm, model, free, self._starts)) for free in _candidates(q_nm, model)
        ]

    def best(self, u: Floats, v: Floats) -> Floats:
        """Free parameters (f, n) of the candidate with the largest decrease of χ² at positive concentrations.

        u = 1/σ and v = I/σ, (n, m), 0 where a point does not count.
        """
        w, wy = (np.add.reduceat(a, self._starts, axis=1) for a in (u * u, u * v))
        rows = max(1, _BLOCK_ELEMENTS // self._grids[0].free.shape[1])
        blocks = [slice(k, k + rows) for k in range(0, len(u), rows)]
        return np.concatenate([self._best(w[block], wy[block]) for block in blocks], axis=1)

    def _best(self, w: Floats, wy: Floats) -> Floats:
        found, decrease = np.zeros((len(self._grids[0].free), len(w))), np.full(len(w), -np.inf)
        for grid in self._grids:
            here = _decrease(grid, w, wy)
            place = np.argmax(here, axis=1)
            most = here[np.arange(len(w)), place]
            better = most > decrease
            found[:, better], decrease[better] = grid.free[:, place[better]], most[better]
        return found


@lru_cache(maxsize=64)
def scan_of(model: CurveModel, q_nm: bytes) -> Scan:
    """The grid for curves at q whose float64 bytes are given; kept, for chunks are many and the grid is one."""
    return Scan(np.frombuffer(q_nm, dtype=np.float64), model)


@lru_cache(maxsize=16)
def _spheres_of(model: CurveModel, q_nm: bytes) -> _Spheres:
    """Spheres at the candidates of a model without a power law.

    Two populations with ranges of exponent and volume fraction are 27 models to a run: together, each alone, each range
    or one of its ends. To 9 of them the spheres differ, which are what takes time and memory.
    """
    q = np.frombuffer(q_nm, dtype=np.float64)
    (free,) = _candidates(q, model)
    psi, starts = model.expand(free), _groups(q, model)
    terms = tuple(_term(q, model, psi, starts, k) for k in range(len(model.populations)))
    products = terms[0].curves[terms[0].of] * terms[1].curves[terms[1].of] if len(terms) > 1 else None
    return _Spheres(terms, products)


def _groups(q: Floats, model: CurveModel) -> Ints:
    """First bins of the groups."""
    largest = max(p.radius_nm[1] for p in model.populations)
    number = math.ceil(_GROUPS_PER_OSCILLATION * largest * (q.max() - q.min()) / math.pi) + 1
    edges = np.linspace(0, len(q), min(number, len(q)) + 1)[:-1]
    return np.unique(edges.astype(np.int64))


def _candidates(q: Floats, model: CurveModel) -> list[Floats]:
    """Free parameters (f, k) of the candidates, one array for each exponent of the power law."""
    number = min(len(model.populations), 2)
    axes: list[Floats] = []
    for one in model.populations:
        low, high = one.radius_nm
        points = math.ceil(_PER_OSCILLATION * q.max() * (high - low) / math.pi) + 1
        axes.append(np.geomspace(low, high, int(np.clip(points, *_RADII[number]))))
        axes.append(np.geomspace(*one.sigma_nm, _WIDTHS[number]) ** 2)
    exponents = np.zeros(1)
    if model.power_law is not None:
        axes.append(np.zeros(1))
        exponents = np.linspace(*model.power_law, _EXPONENTS if model.power_law[0] < model.power_law[1] else 1)
    if model.volume_fraction is not None:
        axes.append(np.linspace(*model.volume_fraction, _FRACTIONS))
    crossed = [axis.ravel() for axis in np.meshgrid(*(axes[j] for j in model.free), indexing="ij")]
    grid = np.stack(crossed) if crossed else np.zeros((0, 1))
    if model.tied:
        grid = _possible(grid, model)
    place = 2 * len(model.populations)
    if place not in model.free or model.power_law is None:
        return [grid]
    row = model.free.index(place)
    return [np.where(np.arange(len(grid))[:, None] == row, exponent, grid) for exponent in exponents]


def _possible(grid: Floats, model: CurveModel) -> Floats:
    """Candidates from which a fit does not leave at once: what is tied has a value there, in its range or near it."""
    there = model.holds(model.expand(grid), model.tied_numbers, wide=True)
    return grid[:, there] if there.any() else grid


def _term(q: Floats, model: CurveModel, psi: Floats, starts: Ints, population: int) -> _Term:
    rows = [p.parameter for p in model.partials if p.term == population]
    points, of = np.unique(psi[rows], axis=1, return_inverse=True)
    everything = np.repeat(psi[:, :1], points.shape[1], axis=1)
    everything[rows] = points
    curves = _grouped(model.basis(q, everything)[0][population], starts)
    return _Term(curves, curves * curves, np.asarray(of.ravel(), dtype=np.int64))


def _others(q: Floats, model: CurveModel, free: Floats, starts: Ints) -> Floats:
    terms = model.basis(q, model.expand(free[:, :1]))[0][len(model.populations) :]
    others = [_grouped(term, starts) for term in terms]
    if model.constant is None:
        others.append(np.ones((1, len(starts))))
    return np.concatenate(others) if others else np.zeros((0, len(starts)))


def _grouped(curves: Floats, starts: Ints) -> Floats:
    number = np.diff(np.append(starts, curves.shape[1]))
    return np.asarray(np.add.reduceat(curves, starts, axis=1) / number)


def _decrease(grid: _Grid, w: Floats, wy: Floats) -> Floats:
    """Decrease of χ² (n, k) at each candidate, against the other terms alone."""
    directions = _orthonormal(grid.others, w)
    slope, square, along = [], [], []
    for term in grid.spheres.terms:
        projected = [np.einsum("nm,gm->ng", w * d, term.curves) for d in directions]
        own = [(wy * d).sum(axis=1) for d in directions]
        slopes = np.einsum("nm,gm->ng", wy, term.curves)
        squares = np.einsum("nm,gm->ng", w, term.squares)
        least = 1e-12 * squares
        for p, y in zip(projected, own, strict=True):
            slopes -= p * y[:, None]
            squares -= p * p
        slope.append(slopes[:, term.of])
        square.append(np.maximum(squares, least)[:, term.of])
        along.append([p[:, term.of] for p in projected])
    single = [b * np.abs(b) / n for b, n in zip(slope, square, strict=True)]
    if grid.spheres.products is None:
        return np.asarray(single[0])
    cross = np.einsum("nm,gm->ng", w, grid.spheres.products)
    for one, two in zip(*along, strict=True):
        cross -= one * two
    first = slope[0] * square[1]
    first -= slope[1] * cross
    second = slope[1] * square[0]
    second -= slope[0] * cross
    positive = (first > 0) & (second > 0)
    least = square[0] * square[1]
    cross *= cross
    determinant = least - cross
    least *= 1e-9
    first *= slope[0]
    second *= slope[1]
    first += second
    first /= np.maximum(determinant, least, out=determinant)
    return np.asarray(np.where(positive, first, np.maximum(*single)))


def _orthonormal(others: Floats, w: Floats) -> list[Floats]:
    """The terms (n, m) each, made orthonormal with the weights of each frame (Gram–Schmidt)."""
    found: list[Floats] = []
    for term in others:
        left = np.repeat(term[None], len(w), axis=0)
        for d in found:
            left = left - (w * left * d).sum(axis=1)[:, None] * d
        found.append(left / np.sqrt((w * left * left).sum(axis=1))[:, None])
    return found
