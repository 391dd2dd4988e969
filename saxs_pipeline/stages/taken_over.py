"""Fits of frames whose sizes are those of other frames, and what the errors of those mean for them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from saxs_pipeline.science.batchfit import BatchFit
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.science.gram import Held
from saxs_pipeline.science.joint import CurveErrors, factor_covariance
from saxs_pipeline.stages.fit import fit_rows
from saxs_pipeline.types import Bools, Curves, Floats

_ROUNDS = 4
"""Newton steps to a volume fraction that goes with c: the few per cent of a weak frame need two."""

_TIE_STEP = 1e-6

_ROWS = 500
"""Frames whose derivatives are in memory at a time."""


@dataclass(frozen=True, eq=False)
class Giver:
    """What a population of k frames takes over from others.

    population: its number in the model; values (k, g) and covariance (k, g, g) of R₀, s, c and, if the model has one,
    the volume fraction in the frames that give.
    """

    population: int
    values: Floats
    covariance: Floats

    @property
    def numbers(self) -> tuple[int, int]:
        """Of the nonlinear parameters R₀ and s."""
        return 2 * self.population, 2 * self.population + 1


@dataclass(frozen=True, eq=False)
class TakenOver:
    """Frames (k of the n rows) to be fitted with a model in the window `inside` (m,); start (k, j) of what is free."""

    curves: Curves
    rows: Bools
    inside: Bools
    model: CurveModel
    givers: list[Giver]
    start: Floats

    def fit(self, *, proportional: bool) -> tuple[BatchFit, Floats]:
        """Fits at the sizes taken over; their covariance (k, p, p) with the errors of these, of monitor and background.

        proportional: the volume fraction is not the frame's own, but goes with c: η = η_giver c/c_giver of the first
        population, for hard spheres of one size take a volume in proportion to their number.
        """
        held: dict[int, Floats] = {}
        for giver in self.givers:
            held |= dict(zip(giver.numbers, giver.values[:, :2].T, strict=True))
        per_c = np.zeros(len(self.start))
        if proportional:
            held[self._fraction], per_c = self._with_fraction(held)
        result = self._at(held)
        responses = self._responses(result, held)
        covariance = result.covariance + self._by_givers(responses, held, per_c)
        errors = CurveErrors.of(self.curves, self.rows, self.inside)
        covariance = covariance + factor_covariance(errors, result.values, self.model, result.free)
        if proportional:
            covariance = _followed(covariance, responses[:, :, -1], self._c, per_c)
        return result, covariance

    def _at(self, held: Held) -> BatchFit:
        return fit_rows(self.curves, self.rows, self.inside, self.model, held=held, start=self.start)

    @property
    def _fraction(self) -> int:
        """Number of the volume fraction."""
        return len(self.model.nonlinear) - 1

    @property
    def _c(self) -> int:
        """Column of the concentration with which the volume fraction goes."""
        return self.model.places(self.givers[0].population)[0]

    def _with_fraction(self, held: dict[int, Floats]) -> tuple[Floats, Floats]:
        """η = η_giver c/c_giver (k,) beside what is held, and ∂η/∂c (k,), 0 where η is at 0 or its largest value.

        Newton steps in η: c itself rises with the η held, by 8 c η at q = 0. Past η = 1/8 not even the sign of a step
        is sure, so that none is more than doubled. Less than no interference is none.
        """
        giver, limit = self.givers[0], self.model.limits[1][-1]
        per_c = giver.values[:, 3] / giver.values[:, 2]
        fraction = np.zeros(len(per_c))
        for _ in range(_ROUNDS):
            given = held | {self._fraction: fraction}
            result = self._at(given)
            c, by = result.values[:, self._c], self._responses(result, given)[:, self._c, -1]
            step = (per_c * c - fraction) / np.maximum(1 - per_c * by, 0.5)
            fraction = np.clip(fraction + step, 0.0, limit)
        return fraction, np.where((fraction > 0) & (fraction < limit), per_c, 0.0)

    def _responses(self, result: BatchFit, held: Held) -> Floats:
        """Change of the fitted values by what is held, (k, p, h): −C Σ (∂I/∂values)(∂I/∂held)/σ², C their covariance.

        What is tied to something that is held moves with it.
        """
        model, found = self.model, np.zeros((*result.values.shape, len(held)))
        numbers = tuple(j for j in model.free if j not in held)
        free = np.ascontiguousarray(result.values[:, [model.nonlinear[j] for j in numbers]].T)
        for place, (j, value) in enumerate(held.items()):
            step = _TIE_STEP * np.maximum(np.abs(value), _TIE_STEP)
            up, down = (model.expand(free, numbers, {**held, j: value + sign * step}) for sign in (1, -1))
            found[:, model.nonlinear, place] = ((up - down) / (2 * step)).T
        untied = replace(model, tied=())
        sigma = CurveErrors.of(self.curves, self.rows, self.inside).sigma
        with np.errstate(invalid="ignore", divide="ignore"):
            weight = np.where(sigma > 0, 1 / (sigma * sigma), 0.0)
        for first in range(0, len(found), _ROWS):
            some = slice(first, first + _ROWS)
            values = result.values[some]
            columns = untied.design(self.curves.q_nm[self.inside], values, np.ones(values.shape, dtype=bool)).columns
            moved = np.einsum("npm,nph->nhm", columns, found[some])
            gradient = np.einsum("npm,nm,nhm->nph", columns, weight[some], moved)
            found[some] -= np.einsum("npq,nqh->nph", result.covariance[some], gradient)
        return found

    def _by_givers(self, responses: Floats, held: Held, per_c: Floats) -> Floats:
        """What the covariance of what is taken over adds, (k, p, p)."""
        total: Floats | float = 0.0
        places = list(held)
        for k, giver in enumerate(self.givers):
            jacobian = np.zeros((*responses.shape[:2], giver.values.shape[1]))
            jacobian[:, :, :2] = responses[:, :, [places.index(j) for j in giver.numbers]]
            if k == 0 and per_c.any():
                follows = held[self._fraction] * (per_c > 0)
                jacobian[:, :, 2] = -responses[:, :, -1] * (follows / giver.values[:, 2])[:, None]
                jacobian[:, :, 3] = responses[:, :, -1] * (follows / giver.values[:, 3])[:, None]
            total = total + np.einsum("nik,nkl,njl->nij", jacobian, giver.covariance, jacobian)
        return np.asarray(total)


def _followed(covariance: Floats, by_fraction: Floats, c: int, per_c: Floats) -> Floats:
    """Covariance (k, p, p) of fits at given volume fractions, as that of fits whose fraction follows c, by per_c (k,).

    A change of the values at a given fraction, δ, becomes δ + (∂values/∂η)(∂η/∂c) δ_c/(1 − (∂c/∂η)(∂η/∂c)).
    """
    rate = per_c / (1 - by_fraction[:, c] * per_c)
    change = np.eye(covariance.shape[1]) + np.zeros_like(covariance)
    change[:, :, c] += by_fraction * rate[:, None]
    return np.asarray(np.einsum("nik,nkl,njl->nij", change, covariance, change))
