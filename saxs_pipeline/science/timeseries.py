"""What a series shows without a kinetic model: phases of the reaction, focusing, apparent growth exponent.

Every statement rests on a test against the full covariance of the points: a trend counts when it is CLEAR standard
errors away from none. Times in s after the injection.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from saxs_pipeline.reaction import Phase
from saxs_pipeline.science.buildup import LawFit, exponential, exponential_t98, fit_exponential
from saxs_pipeline.science.leastsquares import Minimum, Points, fit_shape, linear_fit, whiten
from saxs_pipeline.types import Estimate, Floats, Uncertain

CLEAR = 4.0
"""Standard errors from which on a trend counts. A series is asked several questions: 3 would answer some by chance."""

FEWEST = 5
"""Points that a trend needs."""

_QUIET_FRAMES = 3
_QUIET_SHARE = 0.8
_FOCUSING_BINS = 30
_FOCUSING_POINTS = 4


# --- trends ----------------------------------------------------------------------------------------------------------


def slope(abscissa: Floats, points: Points) -> Uncertain:
    """Slope of the weighted regression line of the values on abscissa (n,), in their unit per unit of it; n ≥ 2."""
    columns = np.stack([np.ones_like(abscissa), abscissa - abscissa.mean()], axis=-1)
    fit = linear_fit(columns, points)
    return Uncertain(float(fit.parameters[1]), math.sqrt(fit.covariance[1, 1]))


def trend(points: Points) -> float:
    """Slope of the values against ln t in standard errors; 0 where there are too few points to tell."""
    if len(points.time_s) < FEWEST or not points.time_s[0] > 0:
        return 0.0
    found = slope(np.log(points.time_s), points)
    return found.value / found.error


def constant_chi2(points: Points) -> float:
    """χ² of the points about their weighted mean."""
    return linear_fit(np.ones((len(points.time_s), 1)), points).chi2


# --- phases ----------------------------------------------------------------------------------------------------------


def rises(points: Points, fit: LawFit) -> bool:
    """Whether the build-up law describes the points clearly better than a constant does."""
    return constant_chi2(points) - fit.chi2 > CLEAR**2 * max(1.0, fit.build_up.chi2_red)


def ripening_onset(concentration: Points) -> Uncertain | None:
    """When c begins to fall, s, or None where it does not; the error is NaN where it could be any time.

    Fitted is c∞(1 − e^{−kt})/(1 + λ(t − t_r)), t > t_r ≥ t98: build-up, then coarsening, whose crystals' volume grows
    linearly in time (Lifshitz, Slyozov and Wagner). It counts if it describes the series clearly better than build-up
    alone, and if c falls clearly after t_r whatever the law.
    """
    grid = _ripening_grid(concentration.time_s)
    if not len(grid):
        return None
    plain = fit_exponential(concentration)
    ripe = _ripening_fit(concentration, grid)
    chi2_red = max(1.0, ripe.chi2 / (len(concentration.time_s) - 4))
    onset = exponential_t98(float(np.exp(ripe.parameters[1]))) * float(np.exp(ripe.parameters[2]))
    falls = trend(concentration.between(onset, np.inf))
    if plain.chi2 - ripe.chi2 <= CLEAR**2 * chi2_red or falls >= -CLEAR:
        return None
    by_logarithms = np.array([0.0, -1.0, 1.0, 0.0])
    return Uncertain(onset, onset * float(np.sqrt(by_logarithms @ ripe.covariance @ by_logarithms)))


def _ripening_grid(time_s: Floats) -> Floats:
    """(g, 3) of ln k, ln(t_r/t98), ln λ with t98 ≤ t_r within the series; none for too few points."""
    if len(time_s) < 2 * FEWEST:
        return np.zeros((0, 3))
    onsets = np.log(time_s[1 : 1 - FEWEST])
    picked = onsets[np.unique(np.linspace(0, len(onsets) - 1, 40).astype(int))]
    rates = np.linspace(-math.log(time_s[-1]), 2 - math.log(time_s[0]), 16)
    declines = np.linspace(-8.0, 3.0, 12) - math.log(time_s[-1])
    grid = np.stack([a.ravel() for a in np.meshgrid(rates, picked, declines, indexing="ij")], axis=-1)
    grid[:, 1] -= math.log(exponential_t98(1.0)) - grid[:, 0]
    return grid[grid[:, 1] >= 0]


def _ripening_fit(points: Points, grid: Floats) -> Minimum:
    """Parameters c∞, ln k, ln(t_r/t98), ln λ."""

    def shape(time_s: Floats, theta: Floats) -> Floats:
        rate, delay, decline = (np.exp(theta[..., k : k + 1]) for k in range(3))
        onset = exponential_t98(1.0) / rate * delay
        return np.asarray(exponential(time_s, rate) / (1 + decline * np.maximum(time_s - onset, 0.0)))

    low, high = grid.min(axis=0), grid.max(axis=0)
    bounds = [(low[0] - 5, high[0] + 5), (0.0, high[1] + 1), (low[2] - 10, high[2] + 5)]
    return fit_shape(shape, grid, points, bounds)


def induction_end(concentration: Points, plain: LawFit, quiet: Floats) -> float | None:
    """When the build-up begins, if clearly after the injection: or None.

    quiet (j, 2): time of each usable frame after the injection, and 1 if nothing is seen in it. A delayed build-up must
    describe the series clearly better, and the frames before its start must show nothing.
    """
    if len(concentration.time_s) < FEWEST:
        return None
    late = fit_exponential(concentration, delayed=True)
    delay = float(late.build_up.values[2])
    before = quiet[quiet[:, 0] < delay, 1]
    if len(before) < _QUIET_FRAMES or before.mean() < _QUIET_SHARE:
        return None
    better = plain.chi2 - late.chi2 > CLEAR**2 * max(1.0, late.build_up.chi2_red)
    return delay if better else None


class Landmarks(NamedTuple):
    """Times that part the phases, s; None where the series does not show them."""

    induction_end: float | None
    nucleation_end: float | None
    reaction_end: float | None
    ripening_start: float | None


def find_phases(crystals: Points, landmarks: Landmarks) -> tuple[Phase, ...]:
    """Induction, nucleation, growth and ripening, as far as the series shows them.

    crystals: their volume (or the yield) against time. Nucleation ends where c is at 98 % of its final value, growth
    where the yield is, or where ripening starts; growth also needs a volume that clearly rises meanwhile.
    """
    first, last = float(crystals.time_s[0]), float(crystals.time_s[-1])
    begin, peak, end, fall = landmarks
    phases = [Phase("induction", 0.0, begin)] if begin is not None else []
    if peak is not None:
        phases.append(Phase("nucleation", begin or 0.0, min(peak, last, fall or last)))
    start = max(phases[-1].end_s if phases else first, first)
    stop = min(time for time in (end, fall, last) if time is not None)
    if stop > start and trend(crystals.between(start, stop)) > CLEAR:
        phases.append(Phase("growth", start, stop))
    if fall is not None:
        phases.append(Phase("ripening", fall, last))
    return tuple(phases)


# --- focusing --------------------------------------------------------------------------------------------------------


def focusing_rate(variance: Points) -> tuple[Floats, Estimate]:
    """dσ_r/dt in nm/s at up to 30 times (k,), from s = σ_r² in nm²: (times, rates).

    In each bin of neighbouring points s is fitted by a line (s is linear in the data and may be negative, σ_r is not
    and may not); dσ_r/dt = (ds/dt)/(2σ_r). Bins in which s is not clearly positive have no σ_r and are left out.
    """
    n = len(variance.time_s)
    count = min(_FOCUSING_BINS, n // _FOCUSING_POINTS)
    edges = np.linspace(0, n, count + 1).astype(int)
    rows = [_focusing(variance, slice(a, b)) for a, b in pairwise(edges)]
    time, rate, error = np.array([row for row in rows if row is not None]).reshape(-1, 3).T
    return time, Estimate(rate, error, np.zeros_like(rate))


def _focusing(variance: Points, part: slice) -> tuple[float, float, float] | None:
    """(time, dσ_r/dt, its error) of one bin."""
    points = Points(variance.time_s[part], variance.value[part], variance.covariance[part, part])
    centre = float(points.time_s.mean())
    fit = linear_fit(np.stack([np.ones_like(points.time_s), points.time_s - centre], axis=-1), points)
    level, rise = fit.parameters
    if level < CLEAR * math.sqrt(fit.covariance[0, 0]):
        return None
    gradient = np.array([-0.5 * rise / level, 1.0]) / (2 * math.sqrt(level))
    return centre, rise / (2 * math.sqrt(level)), math.sqrt(gradient @ fit.covariance @ gradient)


# --- growth exponent -------------------------------------------------------------------------------------------------


def apparent_exponent(radius: Points, variance: Points, cross: Floats) -> Uncertain | None:
    """n = −d ln σ_r/d ln r of crystals that only grow; None where r does not change clearly.

    Where j_G = A S/rⁿ (S4.12), rⁿδr is constant along the characteristics, so that σ_r ∝ 1/rⁿ. Apparent, because
    whatever else widens or narrows the distribution (ongoing nucleation, crystals that differ in more than size,
    an n that changes with r) is counted in.

    Fitted is s = K (r/r̄)^(−2n) with the errors of both, cross (n, n) being cov(r, s): K, n minimise uᵀC_u⁻¹u with
    u = s − K (r/r̄)^(−2n) and C_u its covariance at that (K, n), which no error of r can dilute.
    """
    if len(radius.time_s) < FEWEST or abs(trend(radius)) < CLEAR:
        return None
    from scipy.optimize import least_squares

    line = _Line(radius, variance, cross)
    start = [float(variance.value.mean()), 0.0]
    found = least_squares(line.whitened, start, x_scale=[abs(start[0]) or 1.0, 1.0], xtol=1e-12, ftol=1e-12)
    error = line.exponent_error(found.x)
    return Uncertain(float(found.x[1]), error) if math.isfinite(error) else None


class _Line(NamedTuple):
    """s = K (r/r̄)^(−2n), a line in ln s against ln r."""

    radius: Points
    variance: Points
    cross: Floats

    def ratio(self) -> Floats:
        """r/r̄ with the geometric mean r̄."""
        logarithm = np.log(self.radius.value)
        return np.asarray(np.exp(logarithm - logarithm.mean()))

    def residual(self, theta: Sequence[float] | Floats) -> tuple[Floats, Floats, Floats]:
        """u (n,), ∂u/∂r (n,) and C_u (n, n)."""
        level, exponent = theta
        model = level * self.ratio() ** (-2 * exponent)
        by_radius = 2 * exponent * model / self.radius.value
        mixed = by_radius[:, None] * self.cross
        covariance = self.variance.covariance + mixed + mixed.T
        covariance = covariance + by_radius[:, None] * self.radius.covariance * by_radius
        return self.variance.value - model, by_radius, covariance

    def whitened(self, theta: Floats) -> Floats:
        """Residuals of unit covariance."""
        u, _, covariance = self.residual(theta)
        return whiten(covariance, u)

    def exponent_error(self, theta: Floats) -> float:
        """σ_n from the derivatives at the radii adjusted to the line (York et al. 2004, Am. J. Phys. 72, 367)."""
        u, by_radius, covariance = self.residual(theta)
        with_u = self.cross + self.radius.covariance * by_radius  # cov(r, u)
        adjusted = self.radius.value - whiten(covariance, with_u.T).T @ whiten(covariance, u)
        logarithm = np.log(adjusted / self.radius.value * self.ratio())
        model = np.exp(-2 * theta[1] * logarithm)
        jacobian = whiten(covariance, np.stack([model, -2 * theta[0] * model * logarithm], axis=-1))
        return math.sqrt(np.linalg.pinv(jacobian.T @ jacobian)[1, 1])
