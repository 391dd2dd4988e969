"""Population balance of a synthesis by cohorts: simulate nucleation and growth, exact in mass (science of SI S6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from saxs_pipeline.science import cohorts
from saxs_pipeline.science.characteristics import traced
from saxs_pipeline.science.cohorts import NM
from saxs_pipeline.science.completion import all_monomers
from saxs_pipeline.science.interpolation import interpolated
from saxs_pipeline.science.kinetics import Synthesis
from saxs_pipeline.types import BadInput, Floats

ETA = 0.025
"""Default step: h = η t. The error of σ_r is 3e-4 and falls with η²; where crystals dissolve it is a few percent."""
BEND = 3.0
"""Steps are as short as if the generation had begun so long ago as it takes to change by this share of itself."""
ONSET = 0.01
"""Where log-spaced steps begin, as a share of the shortest time, such as that of a crystal to grow by its volume."""
MOST_DISSOLVED, MOST_BORN = 0.05, 0.01
"""Share of the monomers in solution that counts as much, and share of the crystals that may form then."""
LARGEST_NM = 200.0
"""Largest radius whose size distribution is kept: the grid has a point every GRID_NM."""
GRID_NM = 0.01
"""Step of `Development.size_grid_nm`."""
UMOL = 1e3
"""µmol/L in one mol/m³."""


@dataclass(frozen=True, eq=False)
class Moments:
    """A set of crystals against time, each (n,): number concentration, mean, standard deviation and skewness of r.

    Radii are NaN where there are no crystals.
    """

    c_umol_L: Floats
    radius_nm: Floats
    sigma_nm: Floats
    skewness: Floats


@dataclass(frozen=True, eq=False)
class Development:
    """A simulated synthesis at times (n,) > 0 that increase.

    The first row is the start; where the generation jumps there are two rows, just before and after. all: every
    crystal; modes: the same crystals by origin, in order of birth (those present at t = 0, then those born from each
    upward jump of the generation on); yield_: monomers in crystals over all there are, formed, to be formed and in
    starting crystals; supersaturation; critical_radius_nm (NaN where S ≤ 1); generation, nucleation, growth: mol of
    monomer per m³ and s, generation = nucleation + growth; sizes (n, k): µmol/L of crystals on the grid
    size_grid_nm (k,), moments up to the third exact; mass_drift: largest relative error of the mass balance over all
    steps.
    """

    time_s: Floats
    all: Moments
    modes: tuple[Moments, ...]
    yield_: Floats
    supersaturation: Floats
    critical_radius_nm: Floats
    generation: Floats
    nucleation: Floats
    growth: Floats
    size_grid_nm: Floats
    sizes: Floats
    mass_drift: float


class _Row(NamedTuple):
    """What is kept of a moment; `moments` holds (c, r, σ, skewness) of all crystals and of every origin."""

    time_s: float
    moments: tuple[tuple[float, float, float, float], ...]
    yield_: float
    supersaturation: float
    critical_radius_nm: float
    generation: float
    nucleation: float
    growth: float
    sizes: Floats
    drift: float


# --- simulate --------------------------------------------------------------------------------------------------------


def simulate(synthesis: Synthesis, end_s: float, *, eta: float = ETA, sizes: bool = False) -> Development:
    """Develop a synthesis from t = 0 to end_s in steps h ≈ η·t; `sizes=False` leaves Development.sizes (0, 0).

    S6.2, S6.5 and S6.6 on characteristics, S quasi-stationary, second order in η. Raises BadInput where the parameters
    cannot be simulated.
    """
    _require_possible(synthesis, end_s, eta)
    # e^{a/r} of a crystal about to vanish, whose loss is bounded by what it holds; no such bound over no time at all
    with np.errstate(over="ignore", divide="ignore"):
        rows = list(_Solver(synthesis, end_s, eta, sizes).rows())
    development = _collect(rows)
    _require_little_dissolved(development, synthesis)
    return development


def _require_little_dissolved(development: Development, synthesis: Synthesis) -> None:
    """Raise BadInput if crystals form while many monomers are dissolved: S is then not quasi-stationary."""
    time, c = development.time_s, development.all.c_umol_L
    born = np.maximum(np.diff(c, prepend=c[0]), 0.0)
    there = synthesis.conversion.formed(time) + sum(set_.c_mol_m3 for set_ in synthesis.crystals)
    dissolved = development.supersaturation * synthesis.solubility_mol_m3
    too_early = float(born[dissolved > MOST_DISSOLVED * there].sum())
    if too_early > MOST_BORN * born.sum():
        raise BadInput(
            f"kinetic model: {too_early / born.sum():.0%} of the crystals form while more than {MOST_DISSOLVED:.0%} of "
            "the monomers are still dissolved, where a quasi-stationary supersaturation is wrong; lower M0 or gamma"
        )


class _Solver:
    """One simulation: the crystals now, the monomers freed by vanished ones (mol/m³), and the log-spaced clock."""

    def __init__(self, synthesis: Synthesis, end_s: float, eta: float, sizes: bool) -> None:
        self.synthesis, self.end_s, self.eta, self.sizes = synthesis, end_s, eta, sizes
        self.crystals = cohorts.existing(synthesis)
        self.started, self.everything = cohorts.monomers(self.crystals, synthesis), all_monomers(synthesis)
        self.time_s = self.formed = self.freed = self.guess = self.clock_zero_s = 0.0
        self.wanted = cohorts.demand(self.crystals, synthesis, synthesis.capillary_m(0.0))
        self.origin = 1 if synthesis.crystals else 0
        births = [t for t in self._between(synthesis.conversion.breaks_s) if self._jump(t) > 0]
        self.births_s = [t for t in births if synthesis.conversion.formed(np.asarray(t)) > 0]
        self.origins = self.origin + (1 + len(self.births_s) if synthesis.nucleation else 0)

    def rows(self) -> Iterator[_Row]:
        """The start, the end of every step, and both sides of every jump of the generation."""
        breaks = {*self.synthesis.conversion.breaks_s, *self.synthesis.temperature_breaks_s}
        for stop in [*self._between(sorted(breaks)), self.end_s]:
            jump = self.time_s == 0 or self._jump(self.time_s) != 0
            if jump or not len(self.crystals.number):
                self.origin += self.time_s in self.births_s
                row = self._start_clock(stop)
                if jump:
                    yield row
            self._keep_up(stop)
            while self.time_s < stop:
                self._step(stop)
                before = math.nextafter(self.time_s, 0)
                sudden = self.time_s == stop < self.end_s and self._jump(stop) != 0
                yield self._row(before if sudden else self.time_s, self._balance(self._rate(before)))

    def _between(self, times: Sequence[float]) -> list[float]:
        return [t for t in times if 0 < t < self.end_s]

    def _rate(self, time: float) -> float:
        return float(self.synthesis.conversion.rate(np.asarray(time)))

    def _jump(self, time: float) -> float:
        """How much the generation jumps, 0 where it only bends."""
        before, after = self._rate(math.nextafter(time, 0)), self._rate(time)
        return after - before if abs(after - before) > 1e-9 * max(after, before) else 0.0

    def _balance(self, generation: float) -> cohorts.Balance:
        """The moment's supersaturation and rates under the generation alone, without monomers freed."""
        floor = -self.crystals.volume / (self.eta * (self.time_s - self.clock_zero_s))
        return cohorts.balance(self.wanted, generation, floor, self.guess)

    def _keep_up(self, stop: float) -> None:
        """Shorten the steps where the generation bends, so that it changes by η of itself in one."""
        now, then = self._rate(self.time_s), self._rate(math.nextafter(stop, 0))
        if now != then:
            scale_s = BEND * max(now, ONSET * then) / abs(then - now) * (stop - self.time_s)
            self.clock_zero_s = max(self.clock_zero_s, self.time_s - scale_s)

    def _start_clock(self, stop: float) -> _Row:
        """Begin log-spaced steps anew, from a small share of the shortest time.

        That in which a crystal grows by its own volume, or in which all that forms until the stop would form now.
        """
        self.clock_zero_s = self.time_s
        rate, forming = self._rate(self.time_s), float(self.synthesis.conversion.formed(np.asarray(stop))) - self.formed
        now = self._balance(rate)
        speeds = [10 / (stop - self.time_s), *(now.growth / self.crystals.volume)]
        speeds += [rate / forming] if forming > 0 else []
        if now.nuclei.rate > 0:
            gain, loss = cohorts.volume_rates(now.nuclei.volume, self.synthesis, self.wanted.nuclei.capillary * NM)
            speeds += [*((gain * now.supersaturation - loss) / now.nuclei.volume)]
        speed = float(max(speeds))
        self.clock_zero_s = self.time_s - ONSET / speed
        return self._row(self.time_s or 1e-6 * self.eta * ONSET / speed, now)

    def _step(self, stop: float) -> None:
        """One step towards `stop`, landing on it exactly without a sliver before it."""
        left, h = stop - self.time_s, self.eta * (self.time_s - self.clock_zero_s)
        end = self.time_s + h if left > 2 * h else self.time_s + left / 2 if left > h else stop
        h, synthesis = end - self.time_s, self.synthesis
        formed = float(synthesis.conversion.formed(np.asarray(end)))
        supply = self._supply(end, h, (formed - self.formed) / h)
        step = cohorts.Interval(h, synthesis.capillary_m(end), supply, self.origin)
        self.crystals, self.freed, self.guess = cohorts.advance(self.crystals, self.wanted, step, synthesis, self.guess)
        self.time_s, self.formed = end, formed
        self.wanted = cohorts.demand(self.crystals, synthesis, step.capillary_m)

    def _supply(self, end: float, h: float, mean: float) -> tuple[float, float]:
        """Generation at both ends, scaled so that their mean is the exact one, with the monomers freed before."""
        ends = self._rate(self.time_s), self._rate(math.nextafter(end, 0))
        scale = 2 * mean / sum(ends) if sum(ends) > 0 else 0.0
        return ends[0] * scale + self.freed / h, ends[1] * scale + self.freed / h

    def _row(self, time: float, now: cohorts.Balance) -> _Row:
        radius, number = np.cbrt(self.crystals.volume), cohorts.counted(self.crystals, now.growth, self.synthesis)
        sets = [slice(None), *(self.crystals.origin == k for k in range(self.origins))] if self.origins > 1 else [...]
        moments = tuple(_moments(number[chosen], radius[chosen]) for chosen in sets)
        inside = cohorts.monomers(self.crystals, self.synthesis)
        self._require_monomers(now.supersaturation)
        log_s = math.log(now.supersaturation) if now.supersaturation > 1 else math.nan
        return _Row(
            time_s=time,
            moments=moments if self.origins > 1 else moments * 2,
            yield_=inside / self.everything,
            supersaturation=now.supersaturation,
            critical_radius_nm=self.wanted.nuclei.capillary / log_s,
            generation=now.nuclei.uptake + now.uptake,
            nucleation=now.nuclei.uptake,
            growth=now.uptake,
            sizes=_deposited(number, radius) if self.sizes else np.empty(0),
            drift=abs(inside + self.freed - self.formed - self.started) / self.everything,
        )

    def _require_monomers(self, supersaturation: float) -> None:
        """Raise BadInput where quasi-stationarity would need more monomers in solution than there are."""
        if supersaturation * self.synthesis.solubility_mol_m3 > self.everything:
            raise BadInput(
                f"kinetic model: at {self.time_s:.3g} s nucleation and growth need S = {supersaturation:.3g}, more "
                "monomers in solution than there are at all; lower gamma, or raise A or the prefactor"
            )


def _require_possible(synthesis: Synthesis, end_s: float, eta: float) -> None:
    """Raise BadInput where parameters are out of range or no crystals can ever be there."""
    positive = {
        "v0": synthesis.monomer_volume_m3,
        "gamma": synthesis.surface_energy_J_m2,
        "M0": synthesis.solubility_mol_m3,
        "prefactor": synthesis.nucleation_factor,
        "end": end_s,
        "eta": eta,
    }
    for name, value in positive.items():
        if not math.isfinite(value) or value <= 0:
            raise BadInput(f"kinetic model: {name} is {value:g}, but must be finite and above 0")
    if not synthesis.diffusion_m2_s > 0:
        raise BadInput(f"kinetic model: D is {synthesis.diffusion_m2_s:g}, but must be above 0 m^2/s")
    if synthesis.nucleation and not math.isfinite(synthesis.diffusion_m2_s):
        raise BadInput("kinetic model: nucleation needs D, its rate is proportional to it; give D or nucleation: false")
    if not synthesis.nucleation and not synthesis.crystals:
        raise BadInput("kinetic model: no crystals can form without nucleation; give crystals or nucleation: true")
    for crystals in synthesis.crystals:
        if not (crystals.c_mol_m3 > 0 and crystals.radius_m > 0 and crystals.sigma_m >= 0):
            raise BadInput("kinetic model: crystals need c and r above 0 and sigma of 0 or more")
    if not synthesis.crystals and synthesis.conversion.total_mol_m3 <= 0:
        raise BadInput("kinetic model: no monomers can form and there are no crystals; give P0 or crystals")


def _moments(number: Floats, radius: Floats) -> tuple[float, float, float, float]:
    """(c µmol/L, mean nm, standard deviation nm, skewness) of cohorts; NaN radii where there are none."""
    total = float(number.sum())
    if total == 0:
        return 0.0, math.nan, math.nan, math.nan
    share = number / total
    mean = float(share @ radius)
    apart = radius - mean
    squares = share * apart**2
    sigma = math.sqrt(squares.sum())
    skewness = float(squares @ apart) / sigma**3 if sigma > 0 else math.nan
    return total * UMOL, mean, sigma, skewness


def _deposited(number: Floats, radius: Floats) -> Floats:
    """Cohorts on the grid 0, GRID_NM, …: each over four points by Lagrange's weights, moments 0 to 3 exact; µmol/L."""
    if radius.size and radius.max() > LARGEST_NM:
        raise BadInput(
            f"kinetic model: crystals grow to r = {radius.max():.3g} nm; sizes are kept up to {LARGEST_NM:g}"
        )
    left = np.floor(radius / GRID_NM).astype(np.int64)
    u = radius / GRID_NM - left
    before, first, second, third = u + 1, u, u - 1, u - 2
    weights = (
        -first * second * third / 6,
        before * second * third / 2,
        -before * first * third / 2,
        before * first * second / 6,
    )
    points = np.concatenate([left - 1, left, left + 1, left + 2])
    return np.asarray(UMOL * np.bincount(points, np.concatenate([number * weight for weight in weights])))


def _collect(rows: Sequence[_Row]) -> Development:
    """Rows to columns."""
    longest = max(len(row.sizes) for row in rows)
    sizes = np.array([np.pad(row.sizes, (0, longest - len(row.sizes))) for row in rows]) if longest else _NO_SIZES
    all_, *modes = (Moments(*np.array(column).T) for column in zip(*(row.moments for row in rows), strict=True))
    scalars = {name: np.array([getattr(row, name) for row in rows]) for name in _SCALARS}
    return Development(
        all=all_,
        modes=tuple(modes),
        size_grid_nm=np.asarray(np.arange(longest) * GRID_NM),
        sizes=sizes,
        mass_drift=max(row.drift for row in rows),
        **scalars,
    )


_SCALARS = ("time_s", "yield_", "supersaturation", "critical_radius_nm", "generation", "nucleation", "growth")
_NO_SIZES = np.empty((0, 0))


# --- use -------------------------------------------------------------------------------------------------------------


def at(development: Development, time_s: Floats) -> Development:
    """The development at other times (k,) by interpolation; before the first crystals c and yield are 0, radii NaN.

    Cubic Hermite between rows, never across a jump; at t ≤ 0 the start. Raises ValueError beyond the last row.
    """
    wanted = _within(development, time_s)

    def there(column: Floats) -> Floats:
        return interpolated(development.time_s, column, wanted)

    columns: dict[str, Any] = {name: there(getattr(development, name)) for name in _SCALARS if name != "time_s"}
    sizes = there(development.sizes) if development.sizes.size else _NO_SIZES
    all_, *modes = (_moments_at(moments, there) for moments in (development.all, *development.modes))
    return replace(development, time_s=wanted, all=all_, modes=tuple(modes), sizes=sizes, **columns)


def _within(development: Development, time_s: Floats | Sequence[float]) -> Floats:
    wanted, last = np.asarray(time_s, dtype=float), development.time_s[-1]
    if not (wanted <= last * (1 + 1e-12)).all():
        raise ValueError(f"the simulation ends at {last:g} s, but {np.max(wanted):g} s is asked for")
    return wanted


def _moments_at(moments: Moments, there: Callable[[Floats], Floats]) -> Moments:
    return Moments(
        *(there(column) for column in (moments.c_umol_L, moments.radius_nm, moments.sigma_nm, moments.skewness))
    )


def density(synthesis: Synthesis, development: Development, times_s: Sequence[float], radius_nm: Floats) -> Floats:
    """Smooth c(r, t) in µmol/L/nm, (times, radii), by tracing the characteristics back through the stored S(t).

    Raises ValueError beyond the last row, BadInput for starting crystals of one size, which have no density.
    """
    wanted = _within(development, times_s)
    if any(crystals.sigma_m == 0 for crystals in synthesis.crystals):
        raise BadInput("kinetic model: crystals of sigma 0 have no density to draw; give them a sigma")
    with np.errstate(over="ignore", under="ignore"):
        found = traced(synthesis, development.time_s, development.supersaturation, wanted, radius_nm)
    return UMOL * found
