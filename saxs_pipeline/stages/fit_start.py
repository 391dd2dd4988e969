"""Where the fit of one curve starts: the batched fit, with the populations that the curve shows."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np

from saxs_pipeline.science.batchfit import BatchFit
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.stages.fit import THERE, WEAK, drop_missing, fit_rows, ratio
from saxs_pipeline.types import BadInput, Bools, Curves, Floats

_RADII, _WIDTHS = 5, 3
"""Radii and widths, from end to end of their ranges, at which a population is held whose own cannot be fitted."""

_ONE = np.ones(1, dtype=bool)


class Start(NamedTuple):
    """The model of the populations that are there; number: of two, which one it is where the other is not; batch: the
    fit, with the columns of the whole model; notes: what is to be said of the populations.
    """

    model: CurveModel
    number: int | None
    batch: BatchFit
    notes: list[str]


def found(curve: Curves, window: Bools, model: CurveModel, recorded: Floats | None) -> Start:
    """The batched fit of a curve (one row) at the q where `window` (m,) is True.

    recorded (p,): what a run recorded for it. Of two populations, one that is there although no fit tells its size is
    held: at the size that the run has it at, else at the best of some. Raises BadInput where the points are too
    few, or nothing is found.
    """
    batch = _batched(curve, window, model)
    there = [k for k in range(len(model.populations)) if np.isfinite(batch.values[0, model.places(k)[0]])]
    if len(model.populations) > 1 and not (batch.converged[0] and len(there) > 1):
        beside = _beside_held(curve, window, model, batch, recorded)
        if beside is not None:
            return beside
    if not batch.converged[0]:
        raise BadInput(f"the fit finds no spheres with {_ranges(model)}; change the ranges or the model with --model")
    if len(there) == len(model.populations):
        return Start(model, None, batch, [])
    number = there[0]
    return Start(CurveModel.of(model.alone(number)), number, batch, _left_out(model, number, recorded))


def _batched(curve: Curves, window: Bools, model: CurveModel) -> BatchFit:
    """The batched fit, of which populations that are not there are NaN."""
    batch = fit_rows(curve, _ONE, window, model)
    fitted = int(batch.free.sum())
    if batch.n_points[0] <= max(fitted, 4):
        raise BadInput(
            f"the q range of the fit holds {batch.n_points[0]} points with an uncertainty, too few for {fitted} "
            "parameters; widen model.q_min and q_max, or hold some under model.fixed"
        )
    if len(model.populations) > 1:
        drop_missing(curve, window, model, batch)
    return batch


def _beside_held(
    curve: Curves, window: Bools, model: CurveModel, batch: BatchFit, recorded: Floats | None
) -> Start | None:
    """The best fit with the size of one population held, if it improves χ² as clearly as one has to that is there."""
    best, start = batch.chi2[0] - THERE if batch.converged[0] else math.inf, None
    for k in (0, 1):
        if batch.converged[0] and np.isfinite(batch.values[0, model.places(k)[0]]):
            continue  # this one could be fitted, alone
        sizes, origin = _sizes(model, k, recorded)
        for radius, sigma in sizes:
            held = _held(model, k, radius, sigma)
            one = fit_rows(curve, _ONE, window, held)
            clear = all(ratio(one.values, one.covariance, held, j)[0] >= WEAK for j in (0, 1))
            if one.converged[0] and clear and one.chi2[0] < best:
                note = (
                    f"{model.populations[k].name} is there, but no fit tells its size: held at r {radius:.4g} nm, "
                    f"σ_r {sigma:.3g} nm, {origin}; all else, and its errors, are beside this size"
                )
                best, start = one.chi2[0], Start(held, None, one, [note])
    return start


def _sizes(model: CurveModel, population: int, recorded: Floats | None) -> tuple[list[tuple[float, float]], str]:
    """R₀ and σ_R at which a population may be held, and where they are from."""
    if recorded is not None:
        radius, s = recorded[list(model.places(population)[1:])]
        if np.isfinite(radius + s):
            return [(float(radius), math.sqrt(max(float(s), 0.0)))], "as the series has it"
    one = model.populations[population]
    axes = (np.geomspace(*ends, n).tolist() for ends, n in ((one.radius_nm, _RADII), (one.sigma_nm, _WIDTHS)))
    sizes = list(product(*axes))
    usual = [(radius, sigma) for radius, sigma in sizes if sigma <= radius / 3]  # such that all radii are above zero
    return usual or sizes, f"the best of {len(usual or sizes)} sizes in its ranges"


def _held(model: CurveModel, population: int, radius: float, sigma: float) -> CurveModel:
    """The model with the size of one population fixed; what the run file fixes stays so."""
    names = model.sizes[2 * population : 2 * population + 2]
    fixed = dict(zip(names, (radius, sigma), strict=True)) | dict(model.fixed)
    tied = tuple((name, text) for name, text in model.tied if name not in names)
    return replace(model, fixed=tuple(fixed.items()), tied=tied)


def _left_out(model: CurveModel, number: int, recorded: Floats | None) -> list[str]:
    """That of two populations only this one is there, and what the run did with the other."""
    names = [one.name for one in model.populations]
    held = recorded is not None and np.isfinite(recorded[model.places(1 - number)[0]])
    beside = f"; the series has it with {names[1 - number]} beside it, at a size from another frame" if held else ""
    return [f"{names[1 - number]} is not there: fitted with {names[number]} alone{beside}"]


def _ranges(model: CurveModel) -> str:
    """The ranges of all sizes, as text."""
    return ", ".join(
        f"{prefix}radius {low:g} to {high:g} nm, {prefix}sigma up to {one.sigma_nm[1]:g} nm"
        for prefix, one in zip(model.prefixes, model.populations, strict=True)
        for low, high in (one.radius_nm,)
    )
