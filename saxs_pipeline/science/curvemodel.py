"""The model of a curve: I(q) = Σ_k A_k c_k ⟨P_k(q; R_k, s_k)⟩ + d q^(−p) + b, one population of spheres or several.

Linear coefficients (c, d, b) multiply *terms*; nonlinear parameters (R, s = σ_R², the exponent p, the volume fraction
of hard spheres) are inside them. A term's derivatives by its own nonlinear parameters are *partials*. Parameters may be
held at a value or tied to others by an expression; what is left is free.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from saxs_pipeline.science.expressions import Expression
from saxs_pipeline.science.polydisperse import average, hindered
from saxs_pipeline.types import BadInput, Bools, Floats

_TIE_STEP = 1e-6


@dataclass(frozen=True)
class Population:
    """Spheres: I(q) in 1/mm per µmol/L and nm⁶, and the ranges in which mean radius and spread are searched, in nm."""

    amplitude: float
    radius_nm: tuple[float, float]
    sigma_nm: tuple[float, float]
    name: str = ""


class Partial(NamedTuple):
    """∂(term)/∂(nonlinear parameter), by their numbers."""

    term: int
    parameter: int


@dataclass(frozen=True)
class CurveModel:
    """What is fitted to a curve.

    distribution: gaussian, lognormal or schulz, of the radii. power_law: range of the exponent p of d q^(−p), None
    without that term; constant: b where it is not fitted, 1/mm; volume_fraction: range of that of hard spheres of
    radius R + shell_nm, None without a structure factor. A range of equal numbers is a fixed value. sigma_q_1_nm:
    standard deviation of the resolution in q, for which the model is smeared. fixed: values of radius, sigma (nm) by
    name; tied: expressions. The names have the population's in front where there are several: crystals_radius.
    """

    populations: tuple[Population, ...]
    distribution: str = "gaussian"
    power_law: tuple[float, float] | None = None
    constant: float | None = None
    volume_fraction: tuple[float, float] | None = None
    shell_nm: float = 0.0
    sigma_q_1_nm: float = 0.0
    fixed: tuple[tuple[str, float], ...] = ()
    tied: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        known = set(self.sizes)
        for name in (*dict(self.fixed), *self._expressions):
            if name not in known:
                raise BadInput(f"{name} cannot be held or tied; choose from {', '.join(self.sizes)}")
        if double := dict(self.fixed).keys() & self._expressions.keys():
            raise BadInput(f"{min(double)} is fixed and tied; keep one")
        for name, expression in self._expressions.items():
            if unknown := expression.names - (known - self._expressions.keys()):
                where = "is tied itself" if unknown <= known else "is unknown"
                raise BadInput(f"{min(unknown)}, to which {name} is tied, {where}; use {', '.join(self.sizes)}")

    # --- names and places --------------------------------------------------------------------------------------------

    @cached_property
    def sizes(self) -> tuple[str, ...]:
        """Names of the radii and spreads (nm), population by population, as `fixed` and `tied` have them."""
        prefixes = [f"{p.name}_" if len(self.populations) > 1 else "" for p in self.populations]
        return tuple(f"{prefix}{name}" for prefix in prefixes for name in ("radius", "sigma"))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of all values: c, R, s of the first population, b, c, R, s of the others, then d, p, volume fraction."""
        prefixes = [f"{p.name}_" if len(self.populations) > 1 else "" for p in self.populations]
        groups = [tuple(f"{prefix}{name}" for name in ("c_nc_umol_L", "r_nm", "sigma2_nm2")) for prefix in prefixes]
        names = [*groups[0], "background_1_mm", *(name for group in groups[1:] for name in group)]
        if self.power_law is not None:
            names += ["power_law_1_mm", "exponent"]
        return (*names, "volume_fraction") if self.volume_fraction is not None else tuple(names)

    def places(self, population: int) -> tuple[int, int, int]:
        """Columns of c, R, s of a population."""
        first = 0 if population == 0 else 3 * population + 1
        return first, first + 1, first + 2

    @cached_property
    def linear(self) -> tuple[int, ...]:
        """Columns of the linear coefficients, in the order of the terms; b is the last, if it is fitted."""
        found = [self.places(k)[0] for k in range(len(self.populations))]
        if self.power_law is not None:
            found.append(self.columns.index("power_law_1_mm"))
        return (*found, 3) if self.constant is None else tuple(found)

    @cached_property
    def nonlinear(self) -> tuple[int, ...]:
        """Columns of the nonlinear parameters, in their order: R, s of each population, p, volume fraction."""
        found = [place for k in range(len(self.populations)) for place in self.places(k)[1:]]
        return (*found, *(self.columns.index(n) for n in ("exponent", "volume_fraction") if n in self.columns))

    @cached_property
    def partials(self) -> tuple[Partial, ...]:
        """Derivatives that `basis` gives, in its order."""
        number = len(self.populations)
        found = [Partial(k, 2 * k + j) for k in range(number) for j in (0, 1)]
        if self.power_law is not None:
            found.append(Partial(number, 2 * number))
        if self.volume_fraction is not None:
            found += [Partial(k, len(self.nonlinear) - 1) for k in range(number)]
        return tuple(found)

    # --- ranges, ties ------------------------------------------------------------------------------------------------

    @cached_property
    def free(self) -> tuple[int, ...]:
        """Numbers of the nonlinear parameters that are neither held nor tied."""
        low, high = self.limits
        held = set(dict(self.fixed)) | set(self._expressions)
        names = (*self.sizes, *[""] * (len(self.nonlinear) - len(self.sizes)))
        return tuple(j for j, name in enumerate(names) if name not in held and low[j] < high[j])

    @cached_property
    def limits(self) -> tuple[Floats, Floats]:
        """Smallest and largest accepted value of every nonlinear parameter, s in nm²: |s| up to the largest σ_R²."""
        ranges = [r for p in self.populations for r in (p.radius_nm, (-(p.sigma_nm[1] ** 2), p.sigma_nm[1] ** 2))]
        ranges += [r for r in (self.power_law, self.volume_fraction) if r is not None]
        low, high = np.array(ranges, dtype=float).T
        return low, high

    @cached_property
    def _expressions(self) -> Mapping[str, Expression]:
        return {name: Expression(text) for name, text in self.tied}

    @cached_property
    def tied_numbers(self) -> tuple[int, ...]:
        """Numbers of the nonlinear parameters that follow others."""
        return tuple(self.sizes.index(name) for name in self._expressions)

    def expand(
        self, free: Floats, numbers: tuple[int, ...] | None = None, held: Mapping[int, Floats] | None = None
    ) -> Floats:
        """All nonlinear parameters (j, n) from free ones (f, n), which are those of `numbers` (default: `free`).

        held: values (n,) of those that are not fitted in these frames, by number.
        """
        psi = np.empty((len(self.nonlinear), free.shape[1]))
        psi[:] = self.limits[0][:, None]
        for name, value in self.fixed:
            psi[self.sizes.index(name)] = value * value if name.endswith("sigma") else value
        psi[list(self.free if numbers is None else numbers)] = free
        for j, values in (held or {}).items():
            psi[j] = values
        if self._expressions:
            with np.errstate(invalid="ignore"):
                known = {n: np.sqrt(psi[j]) if n.endswith("sigma") else psi[j] for j, n in enumerate(self.sizes)}
            for name, expression in self._expressions.items():
                if self.sizes.index(name) not in (held or {}):
                    value = expression(known)
                    psi[self.sizes.index(name)] = value * value if name.endswith("sigma") else value
        return psi

    def ties(self, free: Floats, numbers: tuple[int, ...], held: Mapping[int, Floats] | None = None) -> Floats:
        """∂(all)/∂(free), (j, f, n), by central differences where something is tied."""
        chain = np.zeros((len(self.nonlinear), *free.shape))
        for k, number in enumerate(numbers):
            chain[number, k] = 1.0
            if self._expressions:
                step = np.zeros_like(free)
                step[k] = _TIE_STEP * np.maximum(np.abs(free[k]), _TIE_STEP)
                difference = self.expand(free + step, numbers, held) - self.expand(free - step, numbers, held)
                chain[list(self.tied_numbers), k] = (difference / (2 * step[k]))[list(self.tied_numbers)]
        return chain

    def holds(self, psi: Floats, numbers: tuple[int, ...], *, wide: bool) -> Bools:
        """Whether those of the nonlinear parameters psi (j, n), and what is tied to them, are in their ranges.

        wide: room for the way to a minimum: twice the size, four times the variance. NaN is nowhere.
        """
        low, high = self.limits
        if wide:
            low, high = low - 1.0, high + 1.0
            sizes = 2 * len(self.populations)
            low[:sizes:2], high[:sizes:2] = 0.5 * self.limits[0][:sizes:2], 2 * self.limits[1][:sizes:2]
            low[1:sizes:2], high[1:sizes:2] = 4 * self.limits[0][1:sizes:2], 4 * self.limits[1][1:sizes:2]
            if self.volume_fraction is not None:
                low[-1], high[-1] = self.volume_fraction[0] - 0.1, min(self.volume_fraction[1] + 0.1, 0.7)
        inside = np.ones(psi.shape[1], dtype=bool)
        for j in {*numbers, *(self.tied_numbers if numbers else ())}:
            inside &= (psi[j] >= low[j]) & (psi[j] <= high[j])
        return inside

    # --- curves ------------------------------------------------------------------------------------------------------

    def basis(self, q_nm: Floats, psi: Floats) -> tuple[list[Floats], list[Floats]]:
        """Terms but the constant, and partials, each (n, m), at nonlinear parameters psi (j, n); smeared in q."""
        if not self.sigma_q_1_nm:
            return self._sharp(q_nm, psi)
        deviates, weights = self._smearing
        spread = np.abs(q_nm[:, None] + self.sigma_q_1_nm * deviates).ravel()
        shape = (psi.shape[1], len(q_nm), len(weights))
        terms, partials = self._sharp(spread, psi)
        return [self._mean(t.reshape(shape), weights) for t in terms], [
            self._mean(p.reshape(shape), weights) for p in partials
        ]

    @property
    def q_per_bin(self) -> int:
        """How many q the model is evaluated at for each bin."""
        return len(self._smearing[0]) if self.sigma_q_1_nm else 1

    @staticmethod
    def _mean(values: Floats, weights: Floats) -> Floats:
        return np.asarray(np.einsum("nmj,j->nm", values, weights))

    @cached_property
    def _smearing(self) -> tuple[Floats, Floats]:
        """Gauss–Hermite rule in q: exact to 1e-7 for the fastest oscillation, cos 2Rq, that the ranges allow."""
        phase = 2 * self.sigma_q_1_nm * max(p.radius_nm[1] for p in self.populations)
        nodes, weights = np.polynomial.hermite_e.hermegauss(5 + 2 * math.ceil(1.5 * phase))
        return nodes, weights / weights.sum()

    def _sharp(self, q: Floats, psi: Floats) -> tuple[list[Floats], list[Floats]]:
        terms: list[Floats] = []
        partials: list[Floats] = []
        of_fraction: list[Floats] = []
        for k, one in enumerate(self.populations):
            radius, s = psi[2 * k], psi[2 * k + 1]
            if self.volume_fraction is None:
                value, by_radius, by_variance = average(self.distribution, q, radius, s)
            else:
                value, by_radius, by_variance, by = hindered(self.distribution, q, radius, s, psi[-1], self.shell_nm)
                of_fraction.append(one.amplitude * by)
            for form in (value, by_radius, by_variance):
                form *= one.amplitude
            terms.append(value)
            partials += [by_radius, by_variance]
        if self.power_law is not None:
            exponent = psi[2 * len(self.populations)][:, None]
            logarithm = np.log(np.where(q > 0, q, np.inf))
            terms.append(np.exp(-exponent * logarithm))
            partials.append(-np.where(q > 0, logarithm, 0.0) * terms[-1])
        return terms, partials + of_fraction

    def curve(self, q_nm: Floats, values: Floats) -> Floats:
        """I(q), (n, m), at values (n, p) in the order of `columns`; NaN counts as nothing for a population."""
        terms, _ = self.basis(q_nm, np.ascontiguousarray(values[:, self.nonlinear].T))
        total = np.repeat(values[:, 3:4], len(q_nm), axis=1)
        for column, term in zip(self.linear, terms, strict=False):
            there = np.isfinite(values[:, column])
            total[there] += values[there, column, None] * term[there]
        return total

    def jacobian(self, q_nm: Floats, values: Floats, free: Floats | None = None) -> Floats:
        """∂I/∂values, (n, p, m), at values (n, p), each of them by itself; 0 for those that `free` (n, p) has False."""
        terms, partials = self.basis(q_nm, np.ascontiguousarray(values[:, self.nonlinear].T))
        columns = np.zeros((*values.shape, len(q_nm)))
        for column, term in self._linear_terms(terms, q_nm):
            columns[:, column] = term
        for (term, j), partial in zip(self.partials, partials, strict=True):
            columns[:, self.nonlinear[j]] += values[:, self.linear[term], None] * partial
        if free is not None:
            columns[~np.asarray(free, dtype=bool)] = 0.0
        return columns

    def _linear_terms(self, terms: list[Floats], q_nm: Floats) -> Iterator[tuple[int, Floats]]:
        yield from zip(self.linear, terms, strict=False)
        if self.constant is None:
            yield 3, np.ones_like(q_nm)
