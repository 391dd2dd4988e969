"""Build-up laws of a series: exponential (S3.3) and second order (S3.2), fitted with the points' full covariance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from saxs_pipeline.reaction import BuildUp
from saxs_pipeline.science.leastsquares import Minimum, Points, Shape, fit_shape, whiten
from saxs_pipeline.types import BadInput, Floats, Uncertain

EXPONENTIAL = "exponential build-up c∞(1 − exp(−kt)) (S3.3)"
SECOND_ORDER = "second-order law (S3.2)"
WITH_DELAY = ", delayed"

_LN_50 = math.log(50)  # 98 % of the final value
_BOUND = 1e-6
"""By how much χ² must be lower inside the range of a parameter than at its end."""

_SCATTER_STEPS = 20
_SCATTER_SETTLED = 1e-3
"""Relative change of a scatter's variance that ends the search for it."""


@dataclass(frozen=True, eq=False)
class LawFit:
    """A build-up law at its best.

    chi2 from the points' own covariance; residual (n,) values − law; by_value (p, n) and t98_by_value (n,): by how
    much its parameters and t98 (s) change with each value; t98_by_delay: by how much t98 changes with a delay that was
    given.
    """

    build_up: BuildUp
    chi2: float
    residual: Floats
    by_value: Floats
    t98_by_value: Floats
    t98_by_delay: float = 0.0
    notes: tuple[str, ...] = ()


class Delay(NamedTuple):
    """Time before which nothing forms, s, as another series shows it, and its standard error.

    with_values (n,): its covariance with each value of the series whose law it delays.
    """

    value: float
    error: float
    with_values: Floats


# --- laws, each as the share of the final value that is reached ------------------------------------------------------


def exponential(time_s: Floats, rate_1_s: Floats | float) -> Floats:
    """1 − e^{−kt} (S3.3), 0 before t = 0."""
    return np.asarray(-np.expm1(-rate_1_s * np.maximum(time_s, 0.0)))


def second_order(time_s: Floats, rate_1_s: Floats | float, inverse_excess: Floats | float) -> Floats:
    """Share of the limiting precursor converted by a second-order reaction (S3.2), 0 before t = 0.

    rate_1_s: w = k₂c₀n₀β, the initial rate relative to n₀; inverse_excess: ε = 1/β in [0, 1]. With δ = 1 − ε and
    u = wδt, (β − 1)e^{−u}/(β − e^{−u}) = e^{−u}/(e^{−u} + wt(1 − e^{−u})/u): ε = 0 is the exponential, ε = 1 the
    hyperbola wt/(1 + wt), without a cancellation on the way.
    """
    progress = np.asarray(rate_1_s * np.maximum(time_s, 0.0))
    u = progress * (1 - np.asarray(inverse_excess))
    return np.asarray(1 - np.exp(-u) / (np.exp(-u) + progress * _slow_down(u)))


def _slow_down(u: Floats) -> Floats:
    """(1 − e^{−u})/u, 1 at u = 0."""
    small = np.abs(u) < 1e-8
    safe = np.where(small, 1.0, u)
    return np.where(small, 1.0 - 0.5 * u, -np.expm1(-safe) / safe)


def exponential_t98(rate_1_s: float) -> float:
    """Time at which `exponential` reaches 98 %, s."""
    return _LN_50 / rate_1_s


def second_order_t98(rate_1_s: float, inverse_excess: float) -> float:
    """Time at which `second_order` reaches 98 %, s: ln(1 + 49δ)/(wδ), δ = 1 − ε; 49/w for ε = 1."""
    delta = 1 - inverse_excess
    return (math.log1p(49 * delta) / delta if abs(delta) > 1e-12 else 49.0) / rate_1_s


# --- fits ------------------------------------------------------------------------------------------------------------


def fit_exponential(points: Points, *, delayed: bool = False) -> LawFit:
    """S3.3: names c_inf_umol_L and k_1_s for values in µmol/L; `delayed` adds delay_s, before which nothing forms.

    Needs more points than parameters, else BadInput.
    """
    _check(points, 3 if delayed else 2)
    rates, delays = _rate_grid(points), _delay_grid(points, delayed)
    grid = np.stack([a.ravel() for a in np.meshgrid(rates, delays, indexing="ij")], axis=-1)

    def shape(time_s: Floats, theta: Floats) -> Floats:
        delay = theta[..., 1:2] if delayed else 0.0
        return exponential(time_s - delay, np.exp(theta[..., :1]))

    bounds = [_rate_bounds(points), (0.0, float(points.time_s[-1]))][: 2 if delayed else 1]
    minimum = fit_shape(shape, grid[:, : len(bounds)], points, bounds)
    rate = float(np.exp(minimum.parameters[1]))
    t98 = exponential_t98(rate)
    gradient = np.array([0.0, -t98, 1.0][: len(minimum.parameters)])
    delay = float(minimum.parameters[2]) if delayed else 0.0
    names = ("c_inf_umol_L", "k_1_s", "delay_s")[: len(minimum.parameters)]
    return _law(
        EXPONENTIAL + (WITH_DELAY if delayed else ""), names, minimum, points, t98=delay + t98, gradient=gradient
    )


def fit_second_order(points: Points, *, delay_s: float = 0.0, name: str = "yield_inf") -> LawFit:
    """S3.2: names `name`, initial_rate_1_s (w = k₂c₀n₀β) and inverse_excess (ε = 1/β in [0, 1]).

    An ε at 0 or 1 has no error there; the covariance is then that of the rest, and the notes say so. delay_s: time
    before which nothing forms. Needs more than 3 points and one after the delay, else BadInput.
    """
    shifted = points._replace(time_s=points.time_s - delay_s)
    _check(shifted, 3)
    minimum, notes = _second_order_minimum(shifted)
    rate, epsilon = float(np.exp(minimum.parameters[1])), float(minimum.parameters[2])
    t98 = second_order_t98(rate, epsilon)
    step = 1e-5
    by_epsilon = (second_order_t98(rate, epsilon + step) - second_order_t98(rate, epsilon - step)) / (2 * step)
    law = SECOND_ORDER + (WITH_DELAY if delay_s > 0 else "")
    names = (name, "initial_rate_1_s", "inverse_excess")
    gradient = np.array([0.0, -t98, by_epsilon])
    return _law(law, names, minimum, shifted, t98=delay_s + t98, gradient=gradient, notes=notes)


def fit_delayed_second_order(points: Points, delay: Delay) -> LawFit:
    """S3.2 after a delay, whose error is part of those of the parameters and of t98; else as `fit_second_order`."""
    fit = fit_second_order(points, delay_s=delay.value)
    step = min(delay.error, 0.1 * (float(points.time_s[-1]) - delay.value))
    earlier, later = (fit_second_order(points, delay_s=delay.value + x).build_up for x in (-step, step))
    by_delay = (later.values - earlier.values) / (2 * step)
    t98_by_delay = (later.t98_s.value - earlier.t98_s.value) / (2 * step)
    mixed = np.outer(fit.by_value @ delay.with_values, by_delay)
    covariance = fit.build_up.covariance + delay.error**2 * np.outer(by_delay, by_delay) + mixed + mixed.T
    t98, error = fit.build_up.t98_s
    together = float(fit.t98_by_value @ delay.with_values) * t98_by_delay
    variance = error**2 + (delay.error * t98_by_delay) ** 2 + 2 * together
    build_up = replace(fit.build_up, covariance=covariance, t98_s=Uncertain(t98, math.sqrt(max(variance, 0.0))))
    return replace(fit, build_up=build_up, t98_by_delay=t98_by_delay)


def _second_order_minimum(points: Points) -> tuple[Minimum, tuple[str, ...]]:
    """The best ε inside [0, 1], or on the bound where the inside is no better."""
    rates = _rate_grid(points)
    bounds = [_rate_bounds(points), (0.0, 1.0)]
    grid = np.stack([a.ravel() for a in np.meshgrid(rates, [0.1, 0.5, 0.9], indexing="ij")], axis=-1)

    def shape(time_s: Floats, theta: Floats) -> Floats:
        return second_order(time_s, np.exp(theta[..., :1]), theta[..., 1:2])

    inside = fit_shape(shape, grid, points, bounds)
    for limit, law in ((0.0, "an exponential: 1/β = 0"), (1.0, "a hyperbola: β = 1")):
        edge = fit_shape(_second_order_at(limit), rates[:, None], points, bounds[:1])
        if edge.chi2 <= inside.chi2 + _BOUND:
            return _with_fixed(edge, limit), (f"the yield is best described by {law}, the end of the law's range",)
    return inside, ()


def _second_order_at(inverse_excess: float) -> Shape:
    return lambda time_s, theta: second_order(time_s, np.exp(theta[..., :1]), inverse_excess)


def _with_fixed(minimum: Minimum, value: float) -> Minimum:
    """The same solution with one more parameter, which has no error."""
    return Minimum(
        np.append(minimum.parameters, value),
        np.pad(minimum.covariance, (0, 1)),
        np.pad(minimum.gain, ((0, 1), (0, 0))),
        minimum.chi2,
        minimum.residual,
    )


def _law(
    law: str,
    names: tuple[str, ...],
    minimum: Minimum,
    points: Points,
    *,
    t98: float,
    gradient: Floats,
    notes: tuple[str, ...] = (),
) -> LawFit:
    """The fit's report: its rate is ln k inside, k outside."""
    values = minimum.parameters.copy()
    values[1] = np.exp(values[1])
    scale = np.ones(len(values))
    scale[1] = values[1]
    free = int(np.count_nonzero(np.diagonal(minimum.covariance) > 0))
    return LawFit(
        BuildUp(
            law=law,
            names=names,
            values=values,
            covariance=minimum.covariance * np.outer(scale, scale),
            t98_s=Uncertain(t98, float(np.sqrt(gradient @ minimum.covariance @ gradient))),
            chi2_red=minimum.chi2 / max(len(points.time_s) - free, 1),
        ),
        minimum.chi2,
        minimum.residual,
        minimum.gain * scale[:, None],
        gradient @ minimum.gain,
        notes=notes,
    )


def fails(fit: LawFit) -> bool:
    """Whether the law misses the points by clearly more than their errors."""
    degrees = len(fit.residual) - len(fit.build_up.values)
    return fit.build_up.chi2_red > 1 + 5 * math.sqrt(2 / max(degrees, 1))


def with_scatter(law: Callable[[Points], LawFit], points: Points) -> LawFit:
    """Fit of a law that is not expected to hold within the points' errors.

    Where it `fails`, the points get a scatter of their own that accounts for the misfit, the same for all: otherwise
    those with the smallest errors would bend the law alone, and its parameters look better known than they are. It is
    the one with which χ² equals the degrees of freedom (Mandel and Paule 1970, Anal. Chem. 42, 1194): what the points
    share counts as one of them, however large it is.
    chi2 and chi2_red stay those of the errors without the scatter.
    """
    fit = law(points)
    if not fails(fit):
        return fit
    degrees = max(len(fit.residual) - len(fit.build_up.values), 1)
    variances, axes = np.linalg.eigh(points.covariance)
    previous = 0.0
    for _ in range(_SCATTER_STEPS):
        scatter = _scatter(np.maximum(variances, 0.0), fit.residual @ axes, degrees)
        fit = law(points._replace(covariance=points.covariance + scatter * np.eye(len(points.value))))
        if abs(scatter - previous) <= _SCATTER_SETTLED * scatter:
            break
        previous = scatter
    whitened = whiten(points.covariance, fit.residual)
    chi2 = float(whitened @ whitened)
    return replace(fit, chi2=chi2, build_up=replace(fit.build_up, chi2_red=chi2 / degrees))


def _scatter(variances: Floats, residual: Floats, degrees: int) -> float:
    """v with Σ residual²/(variances + v) = degrees, for residuals (n,) along the axes of their covariance."""
    from scipy.optimize import brentq

    highest = float(residual @ residual) / degrees
    lowest = 1e-12 * highest

    def excess(variance: float) -> float:
        return float((residual**2 / (variances + variance)).sum()) - degrees

    return float(brentq(excess, lowest, highest, rtol=1e-9)) if excess(lowest) > 0 > excess(highest) else highest


def share(nucleation: LawFit, reaction: LawFit, cross: Floats, delay_with_values: Floats | float = 0.0) -> Uncertain:
    """t98 of the concentration over t98 of the yield.

    cross (n_c, n_y): covariance of the points of the two fits; delay_with_values (n_c,): that of the delay of the
    reaction's law with the points of c.
    """
    (t_c, e_c), (t_y, e_y) = nucleation.build_up.t98_s, reaction.build_up.t98_s
    with_reaction = cross @ reaction.t98_by_value + reaction.t98_by_delay * np.asarray(delay_with_values)
    together = float((nucleation.t98_by_value * with_reaction).sum())
    ratio = t_c / t_y
    variance = (e_c / t_c) ** 2 + (e_y / t_y) ** 2 - 2 * together / (t_c * t_y)
    return Uncertain(ratio, ratio * math.sqrt(max(variance, 0.0)))


def _check(points: Points, parameters: int) -> None:
    """Times count from the beginning of the build-up."""
    if len(points.time_s) <= parameters:
        raise BadInput(f"build-up law: {len(points.time_s)} points after the injection are too few")
    if not points.time_s[-1] > 0:
        raise BadInput("build-up law: no point lies after its beginning; a delay must be shorter than the series")


def _rate_grid(points: Points) -> Floats:
    """ln k from a tenth of the rise within the series to a rise before its first quarter step."""
    low, high = _rate_bounds(points)
    return np.linspace(low + 2, high - 2, 60)


def _rate_bounds(points: Points) -> tuple[float, float]:
    logarithm = np.log(points.time_s[points.time_s > 0])
    return float(-logarithm[-1] - 5), float(5 - logarithm[0])


def _delay_grid(points: Points, delayed: bool) -> Floats:
    """Delays to start from: none, and between the points of the first half."""
    half = points.time_s[: max(len(points.time_s) // 2, 2)]
    return np.concatenate([[1e-3 * half[0]], 0.5 * (half[1:] + half[:-1])]) if delayed else np.zeros(1)
