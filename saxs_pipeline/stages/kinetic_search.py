"""Where the fit of the kinetic model starts: near enough to the solution, from starts off by a factor of three."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from saxs_pipeline.science.distributions import mean_volume
from saxs_pipeline.stages.kinetic_problem import REACH, Problem, Residual, descend, working_point
from saxs_pipeline.types import Floats

LADDERS = {"gamma": (0.33, 0.4, 0.5, 0.62, 0.75, 0.88, 1.0, 1.15, 1.35, 1.65, 2.0, 2.5, 3.0), "A": (0.33, 1.0, 3.0)}
LADDERS["k_inf"] = LADDERS["A"]
LADDERS["D"] = (0.33, 0.57, 1.0, 1.7, 3.0)
"""Factors on the start that are tried; next to each other along gamma the model still has crystals."""

LADDER_SLACK = np.array([0.1, 0.03, 0.1])
SLACK = np.array([0.005, 0.001, 0.01])
"""Differences of ln c, ln r and ln σ_r smaller than this do not matter on the ladders, and to the descents."""

CLEAR = 4.0
"""Standard errors from which on a value takes part in the search."""

ABSENT = math.log(1e3)
"""What ln c, ln r and ln σ_r are off by where the model has no crystals."""

TOLERANCE = 1e-2
MOST_EVALUATIONS = 20
"""A descent that takes longer creeps along the valley, and another one is nearer."""


def search(problem: Problem) -> list[Floats]:
    """Working parameters (p,) from which to fit, the best first, found from those of the parameter file.

    The generation of monomers follows from those found in crystals, without a simulation. For each of a few adsorption
    rates around the start the best of a ladder of surface energies is refined on the logarithms of c, r and σ_r, in
    which the model is far less curved than in their values. (One alone may end far down the curved valley along which
    adsorption rate and surface energy trade against each other.) D has steps of its own: it speeds up nucleation and
    growth, of which one raises c and the other lowers it, so that χ² may have several minima.
    """
    residual, on_ladder = _logarithmic(problem, SLACK), _logarithmic(problem, LADDER_SLACK)
    rate = "k_inf" if "k_inf" in problem.names else "A"
    tried = [
        _refined(problem, min(_ladder(problem, point, "gamma"), key=partial(_rough_cost, problem, on_ladder)), residual)
        for by_rate in _ladder(problem, _generation(problem, problem.start()), rate)
        for point in _ladder(problem, by_rate, "D")
    ]
    return [point for _, point in sorted(tried, key=lambda result: result[0])]


def _refined(problem: Problem, start: Floats, residual: Residual) -> tuple[float, Floats]:
    """χ² and working parameters after a descent from the start; the start itself if that was no better."""
    fit = descend(problem, start, 1.0, residual, tolerance=TOLERANCE, most=MOST_EVALUATIONS)
    found = working_point(problem, fit.params)
    ends = [
        (_cost(residual(problem.coarse(found), float(fit.params["scale"].value))), found),
        (_cost(residual(problem.coarse(start), 1.0)), start),
    ]
    return min(ends, key=lambda end: end[0])


def _rough_cost(problem: Problem, residual: Residual, point: Floats) -> float:
    return _cost(residual(problem.rough(point), 1.0))


def _cost(residuals: Floats) -> float:
    return float(np.sum(residuals * residuals))


def _ladder(problem: Problem, start: Floats, name: str) -> list[Floats]:
    """The start with one parameter times the factors of LADDERS; the start alone where that is not fitted."""
    if name not in problem.names:
        return [start]
    return [problem.times(start, name, factor) for factor in LADDERS[name]]


def _generation(problem: Problem, start: Floats) -> Floats:
    """The start with the rate constant of the conversion that best explains the monomers found in crystals."""
    rates = [name for name in problem.names if name in ("k1", "k2")]
    if not rates:
        return start
    measured = problem.measured
    c, radius, variance = measured.values.T
    volume = problem.model.synthesis({}).monomer_volume_m3
    found = 1e-30 * c * mean_volume(radius, variance) / volume
    rel = max(measured.scale_rel, 1e-3)
    trials = [problem.times(start, rates[0], factor) for factor in np.geomspace(1 / REACH, REACH, 171)]
    costs: list[float] = []
    for trial in trials:
        formed = problem.model.synthesis(problem.changes(trial)).conversion.formed(measured.time_s)
        weight = 1 / (0.05 * found.max()) ** 2
        factor = (weight * formed @ found + rel**-2) / (weight * formed @ formed + rel**-2)
        costs.append(float(weight * np.sum((found - factor * formed) ** 2) + ((factor - 1) / rel) ** 2))
    return trials[int(np.argmin(costs))]


def _logarithmic(problem: Problem, slack: Floats) -> Residual:
    """Residuals (3k + 1,) of ln c, ln r and ln σ_r in their errors, those taken as no smaller than `slack` (3,).

    Only of values well above their errors: the logarithm of a noisy value is biased.
    """
    measured, half = problem.measured, np.array([1, 1, 0.5])
    errors = np.sqrt(np.diagonal(measured.covariance).reshape(-1, 3))
    clear = measured.values > CLEAR * errors
    values = np.where(clear, measured.values, 1.0)
    weights = np.where(clear, 1 / np.hypot(errors / values * half, slack), 0.0)
    prior = 1 / measured.scale_rel if measured.scale_rel > 0 else 0.0

    def residual(coarse: Floats, scale: float) -> Floats:
        there = coarse > 0
        ratio = np.where(there, np.log(np.where(there, coarse, 1.0) / values), -ABSENT) * half
        ratio[:, 0] += math.log(max(scale, 1e-3))
        return np.asarray(np.append((ratio * weights).ravel(), (scale - 1) * prior))

    return residual
