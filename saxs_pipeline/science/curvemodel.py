"""The model of a curve: I(q) = Σ_k A_k c_k ⟨P_k(q; R_k, s_k)⟩ + d q^(−p) + b, one population of spheres or several.

Linear coefficients (c, d, b) multiply *terms*; nonlinear parameters (R, s = σ_R², the exponent p, the volume fraction
of hard spheres) are inside them. A term's derivatives by its own nonlinear parameters are *partials*. Parameters may be
held at a value or tied to others by an expression; what is left is free.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from saxs_pipeline.model_spec import ModelSpec
from saxs_pipeline.science.expressions import Expression
from saxs_pipeline.science.polydisperse import average, broadest, hindered
from saxs_pipeline.types import BadInput, Bools, Floats

_TIE_STEP = 1e-6
_REAL = 1e-12
"""Largest imaginary part of what is real but for rounding."""


class Partial(NamedTuple):
    """∂(term)/∂(nonlinear parameter), by their numbers."""

    term: int
    parameter: int


def _fields(spec: ModelSpec) -> dict[str, Any]:
    return {field.name: getattr(spec, field.name) for field in fields(spec)}


class Design(NamedTuple):
    """Derivatives (n, p, m) of curves by their values, 0 where these are not free (n, p); tied ones count as not free,
    their derivatives are in those of what they follow, at the rates of chain (n, p, p).
    """

    columns: Floats
    free: Bools
    chain: Floats | None

    def followed(self, changes: Floats) -> Floats:
        """Changes (n, p, m) of the values, those of the tied ones with them."""
        if self.chain is None:
            return changes
        return np.asarray(changes + np.einsum("nts,nsm->ntm", self.chain, changes))


@dataclass(frozen=True)
class CurveModel(ModelSpec):
    """The mathematics of a ModelSpec. Raises BadInput for parameters that cannot be held or tied as it says."""

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

    @classmethod
    def of(cls, spec: ModelSpec) -> CurveModel:
        """The mathematics of this specification."""
        return spec if isinstance(spec, cls) else cls(**_fields(spec))

    @property
    def spec(self) -> ModelSpec:
        """What it is, as data."""
        return ModelSpec(**_fields(self))

    # --- places ------------------------------------------------------------------------------------------------------

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
    def sources(self) -> Mapping[int, tuple[int, ...]]:
        """The free nonlinear parameters that each tied one follows, all by number; none where it is a constant."""
        return {
            self.sizes.index(name): tuple(j for j in self.free if j < len(self.sizes) and self.sizes[j] in tied.names)
            for name, tied in self._expressions.items()
        }

    @cached_property
    def tied_numbers(self) -> tuple[int, ...]:
        """Numbers of the nonlinear parameters that an expression gives."""
        return tuple(self.sources)

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
        for name, expression in self._expressions.items():
            j = self.sizes.index(name)
            if j not in (held or {}):
                psi[j] = self._tied(expression, psi, squared=name.endswith("sigma"))
        return psi

    def _tied(self, expression: Expression, psi: Floats, *, squared: bool) -> Floats:
        """Values (n,) of an expression, or their squares, at psi (j, n); NaN where there is no real one.

        A width of negative s is imaginary: that of s = −0.01 nm² times 2 has s = −0.04 nm².
        """
        numbers = {name: j for j, name in enumerate(self.sizes) if name in expression.names}
        known = {n: np.sqrt(psi[j].astype(complex)) if n.endswith("sigma") else psi[j] for n, j in numbers.items()}
        with np.errstate(invalid="ignore", over="ignore"):
            value = expression(known) ** (2 if squared else 1)
            return np.where(np.abs(value.imag) <= _REAL * np.abs(value), value.real, np.nan)

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
        return inside if wide else inside & self._known(psi, numbers)

    def _known(self, psi: Floats, numbers: tuple[int, ...]) -> Bools:
        """Where the populations whose sizes are among those are not broader than the integral over them is good."""
        inside = np.ones(psi.shape[1], dtype=bool)
        most = broadest(self.distribution, hindered=self.volume_fraction is not None)
        for k in range(len(self.populations)) if most < math.inf else ():
            if not {2 * k, 2 * k + 1}.isdisjoint(numbers):
                inside &= psi[2 * k + 1] <= (most * psi[2 * k]) ** 2
        return inside

    @cached_property
    def at_limits(self) -> tuple[CurveModel, ...]:
        """The model with a fitted exponent, volume fraction, or both, held at ends of their ranges instead."""
        found: list[CurveModel] = []
        if self.power_law is not None and self.power_law[0] < self.power_law[1]:
            found += [replace(self, power_law=(end, end)) for end in self.power_law]
        if self.volume_fraction is not None and self.volume_fraction[0] < self.volume_fraction[1]:
            found += [
                replace(one, volume_fraction=(end, end)) for one in (self, *found) for end in self.volume_fraction
            ]
        return tuple(found)

    # --- curves ------------------------------------------------------------------------------------------------------

    def basis(self, q_nm: Floats, psi: Floats) -> tuple[list[Floats], list[Floats]]:
        """Terms but the constant, and partials, each (n, m), at nonlinear parameters psi (j, n); smeared in q."""
        if not self.sigma_q_1_nm:
            return self._sharp(q_nm, psi)
        deviates, weights = self._smearing
        sigma = self.sigma_q_1_nm
        if isinstance(sigma, tuple):
            sigma = np.interp(q_nm, *np.transpose(sigma))[:, None]
        spread = np.abs(q_nm[:, None] + sigma * deviates).ravel()
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
        phase = 2 * self.sigma_q_range[1] * max(p.radius_nm[1] for p in self.populations)
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
            terms.append(one.amplitude * value)
            partials += [one.amplitude * by_radius, one.amplitude * by_variance]
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
        for place, term in zip(self.linear, terms, strict=False):
            there = np.isfinite(values[:, place])
            total[there] += values[there, place, None] * term[there]
        return total

    def design(self, q_nm: Floats, values: Floats, free: Bools) -> Design:
        """Derivatives of the curves by what is free (n, p) of the values (n, p)."""
        terms, partials = self.basis(q_nm, np.ascontiguousarray(values[:, self.nonlinear].T))
        columns = np.zeros((*values.shape, len(q_nm)))
        for place, term in self._linear_terms(terms, q_nm):
            columns[:, place] = term
        for (number, j), partial in zip(self.partials, partials, strict=True):
            columns[:, self.nonlinear[j]] += values[:, self.linear[number], None] * partial
        columns[~free] = 0.0
        if not self._expressions:
            return Design(columns, free, None)
        chain, followers = self._following(values, free)
        columns += np.einsum("nts,ntm->nsm", chain, columns)
        columns[followers] = 0.0
        return Design(columns, free & ~followers, chain)

    def _following(self, values: Floats, free: Bools) -> tuple[Floats, Bools]:
        """∂(tied)/∂(free) (n, p, p) of the columns, and which follow others (n, p): those that are not held.

        In frames with one population, a tie to the other (NaN there) is none.
        """
        chain, followers = np.zeros((*values.shape, values.shape[1])), np.zeros_like(free)
        ties = self.ties(np.ascontiguousarray(values[:, self._free_columns].T), self.free)
        for number, sources in self.sources.items():
            place, rows = self.nonlinear[number], [self.free.index(j) for j in sources]
            columns = [self.nonlinear[j] for j in sources]
            tied = free[:, place] & np.isfinite(ties[number, rows]).all(axis=0) & free[:, columns].any(axis=1)
            chain[:, place, columns] = np.where(tied & free[:, columns].T, ties[number, rows], 0.0).T
            followers[:, place] = tied
        return chain, followers

    @property
    def _free_columns(self) -> list[int]:
        return [self.nonlinear[j] for j in self.free]

    def _linear_terms(self, terms: list[Floats], q_nm: Floats) -> Iterator[tuple[int, Floats]]:
        yield from zip(self.linear, terms, strict=False)
        if self.constant is None:
            yield 3, np.ones_like(q_nm)
