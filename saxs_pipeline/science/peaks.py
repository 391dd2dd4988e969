"""Gaussian peaks on linear backgrounds, fitted in many groups of pixels at once."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.types import Floats

FEWEST_PIXELS = 20
"""Of a group that is fitted."""
_ROUNDS = 20
_SETTLED = 1e-4
_OUTLIER = 5.0


class Peaks(NamedTuple):
    """Peaks of s groups, each (s,): height, centre and width (standard deviation) with their standard uncertainties.

    NaN where a group has fewer than FEWEST_PIXELS.
    """

    height: Floats
    centre: Floats
    width: Floats
    height_error: Floats
    centre_error: Floats


def fit_peaks(x: Floats, value: Floats, group: NDArray[np.intp], number: int, width: float) -> Peaks:
    """Fit h·exp(−(x − c)²/2w²) + a + b·x to the pixels of every group: Levenberg-Marquardt, all groups side by side.

    x, value (n,) of the pixels and the group (n,), 0 … number − 1, of each; width: what w starts from. After a first
    fit with equal weights the variance of a pixel is taken from the scatter of all groups, read² + gain·model; pixels
    off by more than five standard deviations do not count in the second.
    """
    kept = np.flatnonzero(np.bincount(group, minlength=number) >= FEWEST_PIXELS)
    found = np.full((5, number), np.nan)
    use = np.isin(group, kept)
    if kept.size:
        order = np.flatnonzero(use)[np.argsort(group[use], kind="stable")]
        names, starts = np.unique(group[order], return_index=True)
        places = [slice(*pair) for pair in itertools.pairwise((*starts.tolist(), order.size))]
        found[:, kept] = _peaks(_Pixels(x[order] / width, value[order], np.searchsorted(names, group[order]), places))
    height, centre, wide, height_error, centre_error = found
    return Peaks(height, centre * width, wide * width, height_error, centre_error * width)


class _Pixels(NamedTuple):
    """Pixels sorted by group: x in widths, value, the group of each (n,), and each group's place among them."""

    x: Floats
    value: Floats
    group: NDArray[np.intp]
    places: list[slice]

    def sums(self, values: Floats) -> Floats:
        """Sums over each group, (s,), of values (n,)."""
        return np.asarray(np.bincount(self.group, values, len(self.places)), dtype=float)


def _peaks(pixels: _Pixels) -> Floats:
    """Height, centre, width, error of height and of centre, (5, s)."""
    parameters = _minimise(pixels, np.ones(pixels.x.size), _starts(pixels))
    weight = _weights(pixels, parameters)
    parameters = _minimise(pixels, weight, parameters)
    normal, _ = _normal(pixels, _derivatives(pixels, parameters), weight, pixels.value)
    variance = np.diagonal(np.linalg.pinv(normal, hermitian=True), axis1=1, axis2=2)
    error = np.sqrt(np.maximum(variance, 0.0))
    return np.stack([parameters[:, 0], parameters[:, 1], np.abs(parameters[:, 2]), error[:, 0], error[:, 1]])


def _starts(pixels: _Pixels) -> Floats:
    """Best of some places and widths of a peak: its height and background are linear."""
    reach = int(max(0.0, float(np.abs(pixels.x).max()) - 1))
    best = np.tile([0.0, 0.0, 1.0, 0.0, 0.0], (len(pixels.places), 1))
    most = np.full(len(pixels.places), -np.inf)
    for centre, width in itertools.product(np.arange(-reach, reach + 1, dtype=float), _START_WIDTHS):
        shape = np.exp(-0.5 * ((pixels.x - centre) / width) ** 2)
        columns = np.stack([shape, np.ones_like(shape), pixels.x], axis=1)
        normal, right = _normal(pixels, columns, np.ones(shape.size), pixels.value)
        linear = np.einsum("sij,sj->si", np.linalg.pinv(normal, hermitian=True), right)
        explained = np.where(linear[:, 0] > 0, np.einsum("si,si->s", linear, right), -np.inf)
        better = explained > most
        most[better] = explained[better]
        best[better, 1:3] = centre, width
        best[better, 0], best[better, 3:] = linear[better, 0], linear[better, 1:]
    return best


_START_WIDTHS = (1.0, 2.0)


def _model(pixels: _Pixels, parameters: Floats) -> Floats:
    height, centre, width, level, slope = (column[pixels.group] for column in parameters.T)
    return np.asarray(height * np.exp(-0.5 * ((pixels.x - centre) / width) ** 2) + level + slope * pixels.x)


def _derivatives(pixels: _Pixels, parameters: Floats) -> Floats:
    """∂model/∂(h, c, w, a, b), (n, 5)."""
    height, centre, width = (column[pixels.group] for column in parameters.T[:3])
    away = (pixels.x - centre) / width
    shape = np.exp(-0.5 * away**2)
    by_centre = height * shape * away / width
    return np.stack([shape, by_centre, by_centre * away, np.ones_like(shape), pixels.x], axis=1)


def _normal(pixels: _Pixels, columns: Floats, weight: Floats, target: Floats) -> tuple[Floats, Floats]:
    """Normal matrices (s, p, p) and right-hand sides (s, p) of weighted columns (n, p)."""
    weighted, both = columns * weight[:, None], np.column_stack([columns, target])
    products = np.stack([weighted[place].T @ both[place] for place in pixels.places])
    return products[..., :-1], products[..., -1]


def _minimise(pixels: _Pixels, weight: Floats, parameters: Floats) -> Floats:
    """Levenberg-Marquardt for all groups: each has its own damping, and keeps a step that lowers its χ²."""
    damping, residual = np.full(len(parameters), 1e-3), pixels.value - _model(pixels, parameters)
    best = pixels.sums(weight * residual**2)
    for _ in range(_ROUNDS):
        normal, right = _normal(pixels, _derivatives(pixels, parameters), weight, residual)
        diagonal = np.einsum("sii->si", normal)
        diagonal += damping[:, None] * diagonal + 1e-12 * diagonal.sum(axis=1, keepdims=True) + 1e-300
        trial = parameters + np.linalg.solve(normal, right[..., None])[..., 0]
        trial[:, 2] = np.where(np.abs(trial[:, 2]) < _NARROWEST, _NARROWEST, trial[:, 2])
        left = pixels.value - _model(pixels, trial)
        reached = pixels.sums(weight * left**2)
        better = reached < best
        settled = better & (best - reached <= _SETTLED * best)
        parameters = np.where(better[:, None], trial, parameters)
        residual = np.where(better[pixels.group], left, residual)
        best = np.where(better, reached, best)
        damping = np.where(better, damping / 10, damping * 10)
        if (settled | (damping > 1e6)).all():
            break
    return parameters


_NARROWEST = 0.1


def _weights(pixels: _Pixels, parameters: Floats) -> Floats:
    """1/variance of each pixel, 0 for outliers; the variance read² + gain·model fits the squares of the residuals."""
    from scipy.optimize import nnls

    model = _model(pixels, parameters)
    number = np.bincount(pixels.group)[pixels.group]
    square = (pixels.value - model) ** 2 * number / np.maximum(number - 5, 1)
    bright = np.maximum(model, 0.0)
    usual = bright + max(float(np.median(bright)), 1e-9)
    good = square <= _OUTLIER**2 * _MEDIAN_SQUARE * float(np.median(square / usual)) * usual
    if not good.any():
        return np.ones(model.size)
    columns = np.stack([np.ones_like(bright), bright], axis=1) / usual[:, None]
    read2, gain = nnls(columns[good], square[good] / usual[good])[0]
    variance = read2 + gain * bright
    variance = np.maximum(variance, 1e-6 * float(variance.mean()) + 1e-300)
    return np.where(square <= _OUTLIER**2 * variance, 1 / variance, 0.0)


_MEDIAN_SQUARE = 2.198
"""Mean over median of squares of normally distributed numbers."""
