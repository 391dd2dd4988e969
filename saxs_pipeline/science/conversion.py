"""How the precursor turns into monomers, in closed form: first order, second order, a table; and temperature programs.

All three follow `kinetics.Conversion`: exact `formed`, its derivative `rate`, and the times where the rate jumps or
bends. Concentrations in mol/m³ (the same number in mmol/L), times in s from the first injection.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from saxs_pipeline.types import BadInput, Floats


def _require_increasing(times: Sequence[float], what: str) -> None:
    """Raise BadInput unless the times are finite and increase."""
    if not all(math.isfinite(t) for t in times) or any(later <= earlier for earlier, later in pairwise(times)):
        raise BadInput(f"{what}: times must be finite and increase, not {', '.join(f'{t:g}' for t in times)} s")


def _require_amounts(amounts: Iterable[float], what: str) -> None:
    """Raise BadInput unless every amount is finite and not negative."""
    for amount in amounts:
        if not math.isfinite(amount) or amount < 0:
            raise BadInput(f"{what}: {amount:g} is not possible; give a number of 0 or more")


def _require_injections(injections: Sequence[tuple[float, ...]], rate: float, conversion: str) -> None:
    """Raise BadInput unless the injections start at t = 0, increase, and amounts and rate constant are possible."""
    if not injections or injections[0][0] != 0:
        raise BadInput(f"{conversion} conversion: the first injection defines t = 0; give it the time 0 s")
    _require_increasing([injection[0] for injection in injections], f"injections of a {conversion} conversion")
    _require_amounts([rate], f"rate constant of a {conversion} conversion")
    _require_amounts([amount for injection in injections for amount in injection[1:]], "injected concentration")


@dataclass(frozen=True)
class FirstOrder:
    """dP/dt = −k₁P (S6.6; Table S6.1 prints m/s for k₁, it is 1/s).

    injections: (time s, precursor mol/m³ in the mixture), the first at t = 0. Raises BadInput.
    """

    rate_1_s: float
    injections: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        _require_injections(self.injections, self.rate_1_s, "first-order")

    @property
    def total_mol_m3(self) -> float:
        """All precursor injected, mol/m³."""
        return math.fsum(amount for _, amount in self.injections)

    @property
    def breaks_s(self) -> tuple[float, ...]:
        """Times of the injections after the first."""
        return tuple(time for time, _ in self.injections[1:])

    def formed(self, time_s: Floats) -> Floats:
        """Σ P_i(1 − e^{−k₁(t − t_i)}) over the injections made, mol/m³."""
        time = np.asarray(time_s, dtype=float)
        parts = [-p * np.expm1(-self.rate_1_s * np.maximum(time - start, 0)) for start, p in self.injections]
        return np.asarray(sum(parts))

    def rate(self, time_s: Floats) -> Floats:
        """k₁P, mol/m³/s."""
        time = np.asarray(time_s, dtype=float)
        parts = [
            np.where(time >= start, self.rate_1_s * p * np.exp(-self.rate_1_s * np.maximum(time - start, 0)), 0.0)
            for start, p in self.injections
        ]
        return np.asarray(sum(parts))


@dataclass(frozen=True)
class SecondOrder:
    """d(formed)/dt = k₂ · P · Q of two precursors, one monomer from one of each (S3.2, piecewise between injections).

    injections: (time s, limiting mol/m³, partner mol/m³ in the mixture), the first at t = 0; k₂ in m³/mol/s
    (0.14 L/mol/s = 1.4e-4 m³/mol/s). Raises BadInput.
    """

    rate_m3_mol_s: float
    injections: tuple[tuple[float, float, float], ...]

    def __post_init__(self) -> None:
        _require_injections(self.injections, self.rate_m3_mol_s, "second-order")

    @property
    def total_mol_m3(self) -> float:
        """Monomers that can form: the scarcer of the two precursors, all injections together."""
        return min(math.fsum(i[1] for i in self.injections), math.fsum(i[2] for i in self.injections))

    @property
    def breaks_s(self) -> tuple[float, ...]:
        """Times of the injections after the first."""
        return tuple(injection[0] for injection in self.injections[1:])

    def formed(self, time_s: Floats) -> Floats:
        """S3.2 between injections, mol/m³; exact through β = 1."""
        return self._follow(np.asarray(time_s, dtype=float))[0]

    def rate(self, time_s: Floats) -> Floats:
        """k₂ times what is left of both, mol/m³/s."""
        return self._follow(np.asarray(time_s, dtype=float))[1]

    def _follow(self, time: Floats) -> tuple[Floats, Floats]:
        formed, rate = np.zeros_like(time), np.zeros_like(time)
        before, limiting, partner = 0.0, 0.0, 0.0
        ends = [*self.breaks_s, math.inf]
        for (start, more, more_partner), end in zip(self.injections, ends, strict=True):
            limiting, partner = limiting + more, partner + more_partner
            inside = (time >= start) & (time < end)
            done, speed = _two_precursors(limiting, partner, self.rate_m3_mol_s, time[inside] - start)
            formed[inside], rate[inside] = before + done, speed
            if math.isfinite(end):
                used = float(_two_precursors(limiting, partner, self.rate_m3_mol_s, np.asarray(end - start))[0])
                before, limiting, partner = before + used, limiting - used, partner - used
        return formed, rate


def _two_precursors(first: float, second: float, k2: float, time: Floats) -> tuple[Floats, Floats]:
    """Formed and its rate for one batch of two precursors: abφ/(1 + aφ) with φ = (1 − e^{−k₂(b−a)t})/(b − a), a ≤ b.

    The same as S3.2, n₀(1 − (β−1)e^{−u}/(β − e^{−u})), written so that nothing cancels near β = 1.
    """
    scarce, excess = min(first, second), abs(second - first)
    growth = -np.expm1(-k2 * excess * time) / excess if excess > 0 else k2 * time
    share = 1 / (1 + scarce * growth)
    product = scarce * (scarce + excess)
    return product * growth * share, k2 * product * np.exp(-k2 * excess * time) * share**2


@dataclass(frozen=True)
class Tabulated:
    """Generation of monomers given as points, linear between them and 0 outside; the first and last point are breaks.

    A constant generation is two points of the same rate. Raises BadInput.
    """

    time_s: tuple[float, ...]
    rate_mol_m3_s: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "time_s", tuple(float(t) for t in self.time_s))
        object.__setattr__(self, "rate_mol_m3_s", tuple(float(r) for r in self.rate_mol_m3_s))
        if len(self.time_s) != len(self.rate_mol_m3_s) or len(self.time_s) < 2:
            raise BadInput(
                "tabulated generation: give at least two points and a rate for each time, "
                f"not {len(self.time_s)} times and {len(self.rate_mol_m3_s)} rates"
            )
        _require_increasing(self.time_s, "tabulated generation")
        if self.time_s[0] < 0:
            raise BadInput(f"tabulated generation: starts at {self.time_s[0]:g} s, but a synthesis starts at 0 s")
        _require_amounts(self.rate_mol_m3_s, "rate of a tabulated generation")

    @property
    def total_mol_m3(self) -> float:
        """The integral over the table, mol/m³."""
        return float(self._points[2][-1])

    @property
    def breaks_s(self) -> tuple[float, ...]:
        """Every point after t = 0: the rate bends there, and jumps at the ends."""
        return tuple(time for time in self.time_s if time > 0)

    def formed(self, time_s: Floats) -> Floats:
        """The integral of the rate from 0 to t, mol/m³, exact."""
        times, rates, formed = self._points
        inside = np.clip(np.asarray(time_s, dtype=float), times[0], times[-1])
        left = np.clip(np.searchsorted(times, inside, side="right") - 1, 0, len(times) - 2)
        mean_rate = (rates[left] + np.interp(inside, times, rates)) / 2
        return np.asarray(formed[left] + (inside - times[left]) * mean_rate)

    def rate(self, time_s: Floats) -> Floats:
        """Interpolated rate, mol/m³/s; 0 before the first point and from the last one on."""
        time = np.asarray(time_s, dtype=float)
        between = (time >= self.time_s[0]) & (time < self.time_s[-1])
        return np.where(between, np.interp(time, self.time_s, self.rate_mol_m3_s), 0.0)

    @cached_property
    def _points(self) -> tuple[Floats, Floats, Floats]:
        """Times, rates, and what has formed until then."""
        times, rates = np.array(self.time_s), np.array(self.rate_mol_m3_s)
        return times, rates, np.concatenate([[0.0], np.cumsum(np.diff(times) * (rates[1:] + rates[:-1]) / 2)])


@dataclass(frozen=True)
class TemperatureProgram:
    """T(t) in K, linear between points and constant outside: a `Synthesis.temperature_K` with its breaks.

    Raises BadInput.
    """

    time_s: tuple[float, ...]
    kelvin: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "time_s", tuple(float(t) for t in self.time_s))
        object.__setattr__(self, "kelvin", tuple(float(k) for k in self.kelvin))
        if len(self.time_s) != len(self.kelvin) or not self.time_s:
            raise BadInput(
                "temperature program: give a temperature for each time, "
                f"not {len(self.time_s)} times and {len(self.kelvin)} temperatures"
            )
        _require_increasing(self.time_s, "temperature program")
        if not all(math.isfinite(k) and k > 0 for k in self.kelvin):
            raise BadInput("temperature program: temperatures must be finite and above 0 K")

    @property
    def breaks_s(self) -> tuple[float, ...]:
        """Points after t = 0, where the heating rate changes."""
        return tuple(time for time in self.time_s if time > 0)

    def __call__(self, time_s: float) -> float:
        """T in K."""
        return float(np.interp(time_s, self.time_s, self.kelvin))
