"""The fit of one curve in depth, as data. No mathematics here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from saxs_pipeline.model_spec import ModelSpec
from saxs_pipeline.types import Bools, Curves, Floats, Uncertain

_UNKNOWN = Uncertain(math.nan, math.nan)


class Interval(NamedTuple):
    """Limits of a parameter at which its profile of χ² has risen by level²; infinite where it has not in its range."""

    level: float
    low: float
    high: float


@dataclass(frozen=True)
class FitParameter:
    """One parameter of the model, in `unit`.

    error: standard error from the σ of the points, NaN where it has none (held, or not determined); systematic: of
    what moves the whole curve (scale, contrast, monitor, background's factor), 0 if nothing is stated; how: "fitted",
    "fixed", "held at an end of its range", or "tied: EXPRESSION"; limits: its accepted range; upper_limit: of a width
    that is not resolved, else NaN; intervals: from profiles, () without; batch: what the fits of a whole series
    recorded for this frame, NaN without.
    """

    name: str
    unit: str
    value: float
    error: float
    how: str
    limits: tuple[float, float]
    systematic: float = 0.0
    upper_limit: float = math.nan
    intervals: tuple[Interval, ...] = ()
    batch: Uncertain = _UNKNOWN


@dataclass(frozen=True, eq=False)
class Chain:
    """Draws from the posterior: samples (k, f) of the parameters `names`, after the burn-in.

    steps of each of the walkers, of which the first `burn` are left out; acceptance: share of accepted moves;
    autocorrelation (f,): in steps, so that k / autocorrelation draws are independent.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    samples: Floats
    steps: int
    walkers: int
    burn: int
    acceptance: float
    autocorrelation: Floats

    @property
    def long_enough(self) -> bool:
        """Whether it has the 50 autocorrelation times that its quantiles need (emcee's rule)."""
        return bool((self.steps - self.burn >= 50 * self.autocorrelation).all())


@dataclass(frozen=True, eq=False)
class CurveFit:
    """A curve and what was fitted to it.

    source: where it comes from; curve: of one frame, m bins; window (m,): the fitted q range; absolute: whether c is a
    concentration. names and covariance (f, f): of the fitted parameters; chi2 of n_points with `degrees` of freedom.
    fitted, band (m,): I(q) of the fit and its standard error from the covariance, NaN outside the window; parts: what
    each population and term adds to it, by name. chain: None without Monte Carlo.
    """

    source: str
    curve: Curves
    window: Bools
    model: ModelSpec
    absolute: bool
    parameters: tuple[FitParameter, ...]
    names: tuple[str, ...]
    covariance: Floats
    chi2: float
    n_points: int
    degrees: int
    fitted: Floats
    band: Floats
    parts: tuple[tuple[str, Floats], ...]
    notes: tuple[str, ...] = ()
    chain: Chain | None = None

    @property
    def chi2_red(self) -> float:
        """χ² over degrees of freedom."""
        return self.chi2 / self.degrees

    @property
    def correlation(self) -> Floats:
        """Correlation matrix (f, f) of the fitted parameters."""
        errors = self.covariance.diagonal() ** 0.5
        matrix: Floats = self.covariance / errors / errors[:, None]
        return matrix

    def parameter(self, name: str) -> FitParameter:
        """The parameter of this name."""
        return next(one for one in self.parameters if one.name == name)
