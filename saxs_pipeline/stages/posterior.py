"""Draws from the posterior of one curve's parameters by Markov chain Monte Carlo (lmfit with emcee)."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from saxs_pipeline.curve_fit import Chain, FitParameter
from saxs_pipeline.types import BadInput, Floats

SEED = 1
WALKERS = 32
"""At least; four for each parameter where that is more."""
BURN = 0.25
"""Share of the steps that is left out: the walkers start where the covariance of the fit says."""


def check_installed() -> None:
    """Raise BadInput where emcee is not installed."""
    if importlib.util.find_spec("emcee") is None:
        raise BadInput('--emcee needs the package emcee; say: pip install "saxs-pipeline[mcmc]"')


def sampled(residual: Callable[[Any], Floats], result: Any, parameters: Sequence[FitParameter], steps: int) -> Chain:
    """A chain of `steps` for each walker, with a uniform prior within the ranges; the same seed, the same chain.

    residual: of lmfit's parameters; result: lmfit's. A width that the fit holds at 0 takes part.
    """
    from lmfit import Minimizer

    free, widths = result.params.copy(), {}
    for one in parameters:
        if one.how == "fixed" and math.isfinite(one.upper_limit):
            free[one.name].set(value=0.5 * one.upper_limit, vary=True, min=one.limits[0], max=one.limits[1])
            widths[one.name] = one.upper_limit
    names = tuple(name for name in free if free[name].vary)
    walkers = max(WALKERS, 4 * len(names))
    burn = int(BURN * steps)
    start = _start(names, result, widths, [(free[name].min, free[name].max) for name in names], walkers)
    minimizer = Minimizer(residual, free)
    with np.errstate(all="ignore"), contextlib.redirect_stdout(io.StringIO()):  # on short chains, which we say too
        drawn = minimizer.emcee(steps=steps, nwalkers=walkers, burn=burn, pos=start, seed=SEED, progress=False)
    units = {one.name: one.unit for one in parameters}
    return Chain(
        names=names,
        units=tuple(units[name] for name in names),
        samples=np.asarray(drawn.chain).reshape(-1, len(names)),
        steps=steps,
        walkers=walkers,
        burn=burn,
        acceptance=float(np.mean(drawn.acceptance_fraction)),
        autocorrelation=np.asarray(minimizer.sampler.get_autocorr_time(discard=burn, tol=0)),
    )


def _start(
    names: Sequence[str], result: Any, widths: dict[str, float], limits: list[tuple[float, float]], walkers: int
) -> Floats:
    """Walkers (w, f), drawn from the covariance of the fit, inside the limits."""
    rng = np.random.default_rng(SEED)
    fitted = list(result.var_names)
    centre = np.array([result.params[name].value for name in fitted])
    drawn = dict(zip(fitted, rng.multivariate_normal(centre, result.covar, walkers).T, strict=True))
    drawn |= {name: rng.uniform(0.0, limit, walkers) for name, limit in widths.items()}
    start = np.stack([drawn[name] for name in names], axis=-1)
    low, high = np.array(limits).T
    inside = np.where(start < low, 2 * low - start, np.where(start > high, 2 * high - start, start))
    best = np.array([result.params[name].value for name in names])
    return np.asarray(np.where((inside > low) & (inside < high), inside, best))
