"""Smooth size distributions by tracing growth backwards: where was a crystal of radius r when it was born?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from saxs_pipeline.science.cohorts import NM
from saxs_pipeline.science.interpolation import interpolated
from saxs_pipeline.science.kinetics import Synthesis, growth_rate, nucleation_rate
from saxs_pipeline.types import Floats


class _Moment(NamedTuple):
    """A time on the way back: t (s), S, capillary length (m) and, where nuclei form, rate (mol/m³/s) and mean (nm)."""

    time_s: float
    supersaturation: float
    capillary_m: float
    births: float
    middle_nm: float


def traced(synthesis: Synthesis, time_s: Floats, supersaturation: Floats, times_s: Floats, radius_nm: Floats) -> Floats:
    """c(r, t) in mol/m³/nm, (times, radii), in a known S(t) given at increasing times.

    Along dR/dt = j_G back from (t, r): c = ∫ J_N G(R(t')) ∂R(t')/∂r dt' + c₀(R(0)) ∂R(0)/∂r.
    """
    moments = _moments(synthesis, time_s, supersaturation, times_s)
    place = np.tile(radius_nm, (len(times_s), 1))
    log_jacobian, density = np.zeros_like(place), np.zeros_like(place)
    for late, early in zip(moments[:0:-1], moments[-2::-1], strict=True):
        on = times_s >= late.time_s
        h = late.time_s - early.time_s
        density[on] += h / 2 * _births(synthesis, late, place[on], log_jacobian[on])
        place[on], log_jacobian[on] = _back(synthesis, late, early, place[on], log_jacobian[on])
        density[on] += h / 2 * _births(synthesis, early, place[on], log_jacobian[on])
    for crystals in synthesis.crystals:
        centre, spread = crystals.radius_m / NM, crystals.sigma_m / NM
        density += crystals.c_mol_m3 * _gaussian(place, centre, spread, log_jacobian)
    return density


def _moments(synthesis: Synthesis, time_s: Floats, supersaturation: Floats, times_s: Floats) -> list[_Moment]:
    """The stored times and the wanted ones, with more between where nuclei outgrow their own width in one step."""
    times = np.union1d(time_s[time_s <= times_s.max()], times_s[times_s >= time_s[0]])
    s = interpolated(time_s, supersaturation, times)
    moments = [_moment(synthesis, *pair) for pair in zip(times, s, strict=True)]
    parts = [1 + int(_passed(synthesis, m, h)) for m, h in zip(moments, np.diff(times), strict=False)]
    steps = [np.linspace(a, b, k, endpoint=False) for a, b, k in zip(times[:-1], times[1:], parts, strict=True)]
    fine = np.concatenate([*steps, times[-1:]])
    s = interpolated(time_s, supersaturation, fine)
    return [_moment(synthesis, *pair) for pair in zip(fine, s, strict=True)]


def _moment(synthesis: Synthesis, time_s: float, supersaturation: float) -> _Moment:
    capillary_m = synthesis.capillary_m(time_s)
    births = nucleation_rate(supersaturation, synthesis, capillary_m)
    middle_nm = (capillary_m / np.log(supersaturation) + synthesis.nucleus_offset_m) / NM if births > 0 else 0.0
    return _Moment(time_s, supersaturation, capillary_m, births, middle_nm)


def _passed(synthesis: Synthesis, moment: _Moment, h: float) -> float:
    """By how many of its standard deviations the Gaussian of the nuclei grows in h, 32 at most."""
    if moment.births == 0:
        return 0.0
    radius = np.array([moment.middle_nm * NM])
    speed = growth_rate(radius, moment.supersaturation, synthesis, moment.capillary_m)[0]
    return min(abs(float(speed)) * h / synthesis.nucleus_sd_m, 32.0)


def _births(synthesis: Synthesis, moment: _Moment, place: Floats, log_jacobian: Floats) -> Floats:
    if moment.births == 0:
        return np.zeros_like(place)
    return moment.births * _gaussian(place, moment.middle_nm, synthesis.nucleus_sd_m / NM, log_jacobian)


def _gaussian(place: Floats, centre: float, spread: float, log_jacobian: Floats) -> Floats:
    exponent = log_jacobian - ((place - centre) / spread) ** 2 / 2
    return np.asarray(np.exp(exponent) / (spread * np.sqrt(2 * np.pi)))


def _back(
    synthesis: Synthesis, late: _Moment, early: _Moment, place: Floats, log_jacobian: Floats
) -> tuple[Floats, Floats]:
    """Places and ln ∂R/∂r one moment earlier, second order: the growth rate linear in r over the step, S its mean.

    Back in time small crystals fall fast and stably onto r_c, which no explicit step could follow. What shrinks below
    half the smallest radius was never born.
    """
    h = late.time_s - early.time_s
    mean_s = (late.supersaturation + early.supersaturation) / 2
    mean_a = (late.capillary_m + early.capillary_m) / 2
    speed, steepness = _growth(synthesis, mean_s, mean_a, place)
    way = np.where(np.abs(h * steepness) > 1e-8, -np.expm1(-h * steepness) / np.where(steepness, steepness, 1.0), h)
    smallest = synthesis.smallest_m / NM / 2
    earlier = np.maximum(place - speed * way, smallest)
    after = _growth(synthesis, mean_s, mean_a, earlier)[1]
    return earlier, np.where(earlier > smallest, log_jacobian - h * (steepness + after) / 2, -np.inf)


def _growth(synthesis: Synthesis, supersaturation: float, capillary_m: float, place: Floats) -> tuple[Floats, Floats]:
    """(j_G nm/s, ∂j_G/∂r 1/s) at radii in nm; below half the smallest radius as there."""
    radius = np.maximum(place, synthesis.smallest_m / NM / 2) * NM
    apart = 1e-4 * radius
    lower, middle, upper = (
        growth_rate(radius + shift, supersaturation, synthesis, capillary_m) for shift in (-apart, 0.0, apart)
    )
    return middle / NM, (upper - lower) / (2 * apart)
