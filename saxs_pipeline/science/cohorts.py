"""Cohorts of crystals: volume rates, the monomer balance that sets the supersaturation, and one second-order step.

A cohort is n mol of crystals per m³ of one radius, with the state v = r³ (nm³). The crystal mass, 4π/(3v₀)·Σ n v in mol
of monomers per m³, is linear in n and n·v, so that every Runge-Kutta step keeps it to round-off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from saxs_pipeline.science.kinetics import Nucleation, Synthesis, nucleation
from saxs_pipeline.types import BadInput, Bools, Floats, Ints

NM = 1e-9
NODES = np.sqrt(3.0) * np.array([-1.0, 0.0, 1.0])
"""Radii of a nucleus Gaussian's cohorts in standard deviations: Gauss-Hermite, exact to the fifth moment."""
WEIGHTS = np.array([1.0, 4.0, 1.0]) / 6
LARGEST_LOG_S = 600.0
"""Bound of ln S: no supersaturation beyond it can be meant."""
FINE = 2000
"""Cohorts of equal number into which crystals are split before they dissolve: one that vanishes takes all it has."""
SHRINKING = 1e-4
"""Share of all crystals that shrinks from which on cohorts are split."""
EVEN, LEAST_ROOM, MOST_ROOM = 321, 3.0, 8.0
"""Number of starting cohorts that may dissolve, and how far they reach at least and at most in standard deviations."""
NEGLIGIBLE = 1e-9
"""Births of a step below this share of all crystals join the youngest cohort: none is lost, no cohort is spent."""


class Nuclei(NamedTuple):
    """Nuclei at one moment: rate (mol/m³/s), r³ of the nodes (3,) in nm³, monomers taken up (mol/m³/s)."""

    rate: float
    volume: Floats
    uptake: float


class Nucleating(NamedTuple):
    """Nuclei against ln S at one capillary length a, Gaussian about r_c + offset; lengths in nm, monomers per nm³."""

    law: Nucleation
    capillary: float
    offset: float
    spread: float
    smallest: float
    monomers: float

    def uptake(self, log_s: float) -> tuple[float, float]:
        """Monomers taken up (mol/m³/s), and d ln(uptake)/d ln S: the barrier falls with ln²S, smaller nuclei take less.

        The mean of r³ of nuclei as placed is m³ + 3m·sd² (S6.5 prints r_c³, which makes mass).
        """
        rate = self.law.rate(log_s)
        if rate == 0:
            return 0.0, 0.0
        middle, spread2 = self.capillary / log_s + self.offset, self.spread**2
        volume = middle * (middle**2 + 3 * spread2)
        shrinking = 3 * (middle**2 + spread2) / volume * self.capillary / log_s**2
        return self.monomers * rate * volume, 2 * self.law.barrier / log_s**3 - shrinking

    def at(self, log_s: float) -> Nuclei:
        """The nuclei at ln S."""
        rate = self.law.rate(log_s)
        if rate == 0:
            return Nuclei(0.0, np.full(3, self.smallest**3), 0.0)
        middle = self.capillary / log_s + self.offset
        return Nuclei(rate, (middle + self.spread * NODES) ** 3, self.uptake(log_s)[0])


class Balance(NamedTuple):
    """The quasi-stationary moment: S, the nuclei, dv/dt of every cohort (nm³/s), monomers into growth (mol/m³/s)."""

    supersaturation: float
    nuclei: Nuclei
    growth: Floats
    uptake: float


class Demand(NamedTuple):
    """Of every cohort: monomers per r³ (mol/m³/nm³), gain and loss of dv/dt = gain·S − loss (nm³/s); of the nuclei."""

    weight: Floats
    gain: Floats
    loss: Floats
    nuclei: Nucleating


@dataclass(frozen=True)
class Cohorts:
    """Crystals: number (mol/m³), volume = r³ (nm³) and index of origin, each (m,), in order of birth."""

    number: Floats
    volume: Floats
    origin: Ints

    def joined(self, other: Cohorts) -> Cohorts:
        """Both, the others after these."""
        return Cohorts(
            np.concatenate([self.number, other.number]),
            np.concatenate([self.volume, other.volume]),
            np.concatenate([self.origin, other.origin]),
        )

    def where(self, keep: Bools) -> Cohorts:
        """The cohorts that are kept."""
        return Cohorts(self.number[keep], self.volume[keep], self.origin[keep])


def no_cohorts() -> Cohorts:
    """Before the first crystal."""
    return Cohorts(np.empty(0), np.empty(0), np.empty(0, dtype=np.int64))


def existing(synthesis: Synthesis) -> Cohorts:
    """The crystals present at t = 0, each Gaussian as cohorts with its moments. Raises BadInput."""
    cohorts = no_cohorts()
    for crystals in synthesis.crystals:
        centre, spread = crystals.radius_m / NM, crystals.sigma_m / NM
        places, weights = _gaussian((centre - synthesis.smallest_m / NM) / spread if spread else math.inf, synthesis)
        if not len(places):
            raise BadInput(
                f"kinetic model: crystals of {centre:g} ± {spread:g} nm: so broad a distribution reaches below "
                f"{synthesis.smallest_m / NM:g} nm, where crystals dissolve; give a smaller sigma"
            )
        number = crystals.c_mol_m3 * weights / weights.sum()
        new = Cohorts(number, (centre + spread * places) ** 3, np.zeros(len(places), dtype=np.int64))
        cohorts = cohorts.joined(new)
    return cohorts


def _gaussian(room: float, synthesis: Synthesis) -> tuple[Floats, Floats]:
    """(places, weights) of a standard Gaussian, all above −room; none if that is too little room.

    Many evenly spaced ones where crystals may dissolve, which they do one after the other; the mean and the variance
    are exact. Gauss-Hermite otherwise, and where the Gaussian would be cut.
    """
    if synthesis.desorption and room > LEAST_ROOM:
        places = np.linspace(-1, 1, EVEN) * min(MOST_ROOM, 0.99 * room)
        weights = np.exp(-places * places / 2)
        return places / math.sqrt(weights @ places**2 / weights.sum()), weights
    for nodes in range(16, 3, -1):
        places, weights = np.polynomial.hermite_e.hermegauss(nodes)
        if places[0] > -room:
            return places, weights
    return np.zeros(0), np.zeros(0)


def monomers_per_volume(synthesis: Synthesis) -> float:
    """4π/(3v₀) in 1/nm³: monomers in a crystal of r³ = 1 nm³."""
    return 4 * math.pi / 3 / (synthesis.monomer_volume_m3 / NM**3)


def monomers(cohorts: Cohorts, synthesis: Synthesis) -> float:
    """Monomers in the crystals, mol/m³."""
    return monomers_per_volume(synthesis) * float(cohorts.number @ cohorts.volume)


# --- the monomer balance ---------------------------------------------------------------------------------------------


def nucleating(synthesis: Synthesis, capillary_m: float) -> Nucleating:
    """The nuclei that form at this capillary length."""
    return Nucleating(
        law=nucleation(synthesis, capillary_m),
        capillary=capillary_m / NM,
        offset=synthesis.nucleus_offset_m / NM,
        spread=synthesis.nucleus_sd_m / NM,
        smallest=synthesis.smallest_m / NM,
        monomers=monomers_per_volume(synthesis),
    )


def volume_rates(volume: Floats, synthesis: Synthesis, capillary_m: float) -> tuple[Floats, Floats]:
    """(gain, loss) of dv/dt = gain·S − loss, nm³/s, from dv/dt = 3r² j_G (S4.8, linear in S).

    A crystal that vanishes within the step is taken at half the smallest radius, where the step's own bound rules it.
    """
    radius = np.maximum(np.cbrt(volume) * NM, synthesis.smallest_m / 2)
    area = 3 * radius**2 / NM**3
    resistance = radius / synthesis.diffusion_m2_s + 1 / synthesis.adsorption(radius, capillary_m)
    gain = area * synthesis.molar_volume_m3_mol * synthesis.solubility_mol_m3 / resistance
    return gain, gain * np.exp(capillary_m / radius) if synthesis.desorption else np.zeros_like(gain)


def demand(cohorts: Cohorts, synthesis: Synthesis, capillary_m: float) -> Demand:
    """What the cohorts and nuclei can take up or set free at this capillary length."""
    gain, loss = volume_rates(cohorts.volume, synthesis, capillary_m)
    return Demand(monomers_per_volume(synthesis) * cohorts.number, gain, loss, nucleating(synthesis, capillary_m))


def balance(wanted: Demand, supply: float, floor: Floats, guess: float) -> Balance:
    """S at which nucleation and growth take up just `supply` (mol/m³/s), no dv/dt falling below `floor` (nm³/s).

    The quasi-stationary S6.5, dS/dt = 0. `guess` is a nearby S. Raises BadInput if no supersaturation can do it.
    """
    weight, gain, loss, forming = wanted
    while True:
        offered = supply + float(weight @ loss)
        s, born = _quasi_stationary(offered, float(weight @ gain), forming, guess)
        growth = gain * s - loss
        too_fast = growth < floor
        if not too_fast.any():
            return Balance(s, born, growth, float(weight @ growth))
        gain, loss = np.where(too_fast, 0.0, gain), np.where(too_fast, -floor, loss)


def _quasi_stationary(offered: float, gain: float, forming: Nucleating, guess: float) -> tuple[float, Nuclei]:
    """S and the nuclei with S·gain + uptake of the nuclei = offered, closed to round-off (all mol/m³/s)."""
    if offered <= 0:
        return 0.0, forming.at(-math.inf)
    log_limit = math.log(offered / gain) if gain > 0 else LARGEST_LOG_S
    if gain > 0 and (log_limit <= 0 or forming.law.prefactor == 0):
        return offered / gain, forming.at(-math.inf)
    if gain == 0 and forming.uptake(LARGEST_LOG_S)[0] < offered:
        raise BadInput(
            f"kinetic model: there are no crystals, and nucleation cannot take up {offered:.3g} mol/m^3/s of monomers "
            "at any supersaturation; lower gamma or raise the prefactor"
        )
    start = min(math.log(guess), log_limit) if guess > 1 else log_limit
    log_s = _newton(offered, gain, forming, start, log_limit)
    born = forming.at(log_s)
    if born.uptake < offered / 2:
        return (offered - born.uptake) / gain, born
    share = (offered - gain * math.exp(log_s)) / born.uptake
    return math.exp(log_s), Nuclei(born.rate * share, born.volume, born.uptake * share)


def _newton(offered: float, gain: float, forming: Nucleating, log_s: float, high: float) -> float:
    """Root in ln S of ln(taken up/offered) by Newton's method kept inside a bracket, halved where it does not help."""
    low, before = 0.0, math.inf
    for _ in range(200):
        grown = gain * math.exp(log_s)
        uptake, by_log_s = forming.uptake(log_s)
        taken = grown + uptake
        residual = math.log(taken / offered) if taken > 0 else -math.inf
        low, high = (low, log_s) if residual > 0 else (log_s, high)
        slope = grown + uptake * by_log_s
        step = -residual * taken / slope if slope > 0 else math.inf
        if abs(step) <= 1e-14 * max(1.0, log_s) or high - low <= 1e-15 * high:
            return log_s
        helps = abs(residual) < before / 2 and low < log_s + step < high
        log_s, before = log_s + step if helps else (low + high) / 2, abs(residual)
    raise BadInput(
        f"kinetic model: no supersaturation balances {offered:.3g} mol/m^3/s of monomers; check gamma, M0, D and A"
    )


# --- one step --------------------------------------------------------------------------------------------------------


class Interval(NamedTuple):
    """A time step: its length (s), capillary length at its end (m), supply at start and end (mol/m³/s), open origin."""

    length_s: float
    capillary_m: float
    supply: tuple[float, float]
    origin: int


class Advanced(NamedTuple):
    """After a step: the cohorts, the monomers set free by those that vanished (mol/m³), and S shortly before."""

    cohorts: Cohorts
    freed: float
    supersaturation: float


def advance(cohorts: Cohorts, wanted: Demand, step: Interval, synthesis: Synthesis, guess: float) -> Advanced:
    """Heun's step of all cohorts and of the one opened in it, which takes part in the balance.

    `wanted` is their demand at the start. No crystal can lose more than all it has.
    """
    h, v = step.length_s, cohorts.volume
    first = balance(wanted, step.supply[0], -v / h, guess)
    opened = Cohorts(h * first.nuclei.rate * WEIGHTS, first.nuclei.volume, np.full(3, step.origin))
    middle = Cohorts(cohorts.number, v + h * first.growth, cohorts.origin).joined(opened)
    floor = np.concatenate([-2 * v / h - first.growth, -opened.volume / h])
    predicted = demand(middle, synthesis, step.capillary_m)
    second = balance(predicted, step.supply[1], floor, first.supersaturation)
    moved = np.maximum(v + h / 2 * (first.growth + second.growth[: len(v)]), 0.0)
    old, freed = _without_vanished(Cohorts(cohorts.number, moved, cohorts.origin), v, synthesis)
    if synthesis.desorption and cohorts.number[moved < v].sum() > SHRINKING * cohorts.number.sum():
        old = split(old)
    newborn, freed_at_birth = _without_vanished(_newborn(step, first, second), opened.volume, synthesis)
    return Advanced(_with_births(old, newborn), freed + freed_at_birth, second.supersaturation)


def _newborn(step: Interval, first: Balance, second: Balance) -> Cohorts:
    """The cohorts opened in a step as they are at its end."""
    h = step.length_s
    rates = first.nuclei.rate, second.nuclei.rate
    if sum(rates) == 0:
        return no_cohorts()
    placed = (rates[0] * first.nuclei.volume + rates[1] * second.nuclei.volume) / sum(rates)
    grown = h * rates[0] * second.growth[-3:] / sum(rates)
    return Cohorts(h / 2 * sum(rates) * WEIGHTS, placed + grown, np.full(3, step.origin))


def _without_vanished(cohorts: Cohorts, before: Floats, synthesis: Synthesis) -> tuple[Cohorts, float]:
    """The cohorts left once those shrinking below the smallest radius are gone, and the monomers these held."""
    if not len(cohorts.number):
        return cohorts, 0.0
    gone = (cohorts.volume < (synthesis.smallest_m / NM) ** 3) & (cohorts.volume < before)
    return (cohorts.where(~gone), monomers(cohorts.where(gone), synthesis)) if gone.any() else (cohorts, 0.0)


def split(cohorts: Cohorts) -> Cohorts:
    """No cohort with more than 2/FINE of all crystals: those are spread over the r³ nearest to them.

    Number and mass stay. Cohorts stand for a continuous distribution; r³ gains the variance of the cells, (Δr³)²/12.
    """
    share = cohorts.number / cohorts.number.sum()
    if not share.max() > 2 / FINE:
        return cohorts
    order = np.lexsort((-cohorts.volume, cohorts.origin))
    number, volume, origin = cohorts.number[order], cohorts.volume[order], cohorts.origin[order]
    pieces = np.ceil(FINE * share[order]).astype(np.int64)
    parent = np.repeat(np.arange(len(number)), pieces)
    place = np.arange(len(parent)) - (np.cumsum(pieces) - pieces)[parent]
    spread = (place + 0.5) / pieces[parent] - 0.5
    volume = volume[parent] - _cells(volume, origin)[parent] * spread
    return Cohorts((number / pieces)[parent], volume, origin[parent])


def _cells(volume: Floats, origin: Ints) -> Floats:
    """Width in r³ (m,) that each cohort stands for, half the way to its neighbours; volume falls within each origin."""
    cells = np.zeros_like(volume)
    for first in np.unique(origin):
        own = origin == first
        if own.sum() > 1:
            cells[own] = np.minimum(-np.gradient(volume[own]), volume[own])
    return cells


def counted(cohorts: Cohorts, growth: Floats, synthesis: Synthesis) -> Floats:
    """Number (m,) of each cohort that is still there, with its dv/dt: what is about to vanish counts in part.

    It fades over the last stretch before the smallest radius, as long as the gap to the next larger cohort, so that the
    moments change smoothly with time and parameters.
    """
    smallest = (synthesis.smallest_m / NM) ** 3
    fading = growth < 0
    if not fading.any():
        return cohorts.number
    number = cohorts.number.copy()
    for origin in np.unique(cohorts.origin[fading]):
        own = np.flatnonzero(cohorts.origin == origin)
        own = own[np.argsort(cohorts.volume[own], kind="stable")]
        volume = cohorts.volume[own]
        gap = np.diff(volume, append=volume[-1])
        part = np.clip((volume - smallest) / np.where(gap > 0, gap, smallest), 0.0, 1.0)
        number[own] *= np.where(fading[own] & (gap > 0), part, 1.0)
    return number


def _with_births(cohorts: Cohorts, newborn: Cohorts) -> Cohorts:
    """The cohorts and the newborn; negligible ones join the youngest of the same origin."""
    negligible = newborn.number.sum() < NEGLIGIBLE * cohorts.number.sum()
    if not negligible or len(newborn.number) != 3 or not np.array_equal(cohorts.origin[-3:], newborn.origin):
        return cohorts.joined(newborn)
    n, v = cohorts.number.copy(), cohorts.volume.copy()
    n[-3:] += newborn.number
    v[-3:] += (newborn.volume - v[-3:]) * newborn.number / n[-3:]
    return Cohorts(n, v, cohorts.origin)
