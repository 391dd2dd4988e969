"""The Gram matrix of a model's weighted columns, for many frames: all that their least-squares fits need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.types import Bools, Floats, Ints

Held = Mapping[int, Floats]
"""Nonlinear parameters, by number, that are not fitted in these frames, and their values (n,)."""


@dataclass(frozen=True)
class Layout:
    """Which nonlinear parameters of a model are free, and where things stand in the Gram matrix."""

    model: CurveModel
    held: tuple[int, ...]

    @cached_property
    def free(self) -> tuple[int, ...]:
        """Nonlinear parameters that are fitted, by number."""
        return tuple(j for j in self.model.free if j not in self.held)

    @cached_property
    def terms(self) -> int:
        """Number of linear terms, the constant included where it is fitted."""
        return len(self.model.linear)

    @property
    def parameters(self) -> int:
        """How many are fitted altogether."""
        return self.terms + len(self.free)

    @cached_property
    def partials(self) -> tuple[int, ...]:
        """Partials that change with a free parameter."""
        follow = (j for j, sources in self.model.sources.items() if not set(sources).isdisjoint(self.free))
        moved = set(self.free) | (set(follow) - set(self.held))
        return tuple(i for i, p in enumerate(self.model.partials) if p.parameter in moved)

    @cached_property
    def of(self) -> Ints:
        """Linear term of each used partial."""
        return np.array([self.model.partials[i].term for i in self.partials], dtype=np.int64)

    @cached_property
    def parameter_of(self) -> list[int]:
        """Nonlinear parameter of each used partial."""
        return [self.model.partials[i].parameter for i in self.partials]

    @cached_property
    def plain(self) -> bool:
        """Whether each free parameter has one partial of its own, in order."""
        return not self.model.tied and self.parameter_of == list(self.free)


class Frames:
    """Curves of a block: weighted data and the model's Gram matrices for them."""

    def __init__(self, q: Floats, u: Floats, v: Floats, layout: Layout, held: Held) -> None:
        self.q, self.u, self.layout, self.held = q, u, layout, held
        constant = layout.model.constant
        self.v = v if constant is None else v - constant * u

    def keep(self, rows: Bools) -> Frames:
        """Some of the frames; what is subtracted already stays so."""
        some = object.__new__(Frames)
        some.q, some.layout = self.q, self.layout
        some.u, some.v = np.compress(rows, self.u, axis=0), np.compress(rows, self.v, axis=0)
        some.held = {j: value[rows] for j, value in self.held.items()}
        return some

    def expand(self, free: Floats) -> Floats:
        """All nonlinear parameters (j, n)."""
        return self.layout.model.expand(free, self.layout.free, self.held)

    def basis(self, psi: Floats) -> tuple[list[Floats], list[Floats]]:
        """Terms and partials, each (n, m)."""
        return self.layout.model.basis(self.q, psi)

    def gram(self, terms: list[Floats], partials: list[Floats]) -> Floats:
        """Inner products (p, p, n) of the weighted terms, partials and y, each summed along its own row."""
        layout = self.layout
        columns = np.empty((layout.terms + len(layout.partials) + 1, *self.u.shape))
        for k, term in enumerate(terms):
            np.multiply(term, self.u, out=columns[k])
        if layout.model.constant is None:
            columns[layout.terms - 1] = self.u
        for k, i in enumerate(layout.partials):
            np.multiply(partials[i], self.u, out=columns[layout.terms + k])
        columns[-1] = self.v
        gram: Floats = np.einsum("anm,bnm->abn", columns, columns)
        return gram

    def collapsed(self, gram: Floats, coefficients: Floats, free: Floats) -> Floats:
        """Matrix (…, f + 1, n) of what is before the partials, the free parameters and y: partials times their c, tied.

        gram (l + i + 1, l + i + 1, n); coefficients (terms, n).
        """
        layout, first = self.layout, len(gram) - len(self.layout.partials) - 1
        out = gram.copy()
        weight = coefficients[layout.of]
        out[first:-1] *= weight[:, None]
        out[:, first:-1] *= weight
        if layout.plain:
            return out
        chain = np.zeros((len(gram), first + len(layout.free) + 1, gram.shape[2]))
        chain[np.arange(first), np.arange(first)] = 1.0
        chain[-1, -1] = 1.0
        chain[first:-1, first:-1] = self.chain(free)[layout.parameter_of]
        return np.asarray(np.einsum("ian,ijn,jbn->abn", chain, out, chain, optimize=True))

    def chain(self, free: Floats) -> Floats:
        """∂(nonlinear)/∂(free), (j, f, n)."""
        return self.layout.model.ties(free, self.layout.free, self.held)

    def normal_equations(self, free: Floats) -> tuple[Floats, Floats]:
        """(f + 1, f + 1, n): normal matrix and gradient of the free parameters with all linear ones at their best, χ²
        in the corner; and Σ(y/σ)² (n,).
        """
        gram = self.gram(*self.basis(self.expand(free)))
        swept = gram
        for k in reversed(range(self.layout.terms)):
            swept = sweep(swept, k)
        terms = self.layout.terms
        return self.collapsed(swept[terms:, terms:], swept[:terms, -1], free), gram[-1, -1]

    def inside(self, free: Floats) -> Bools:
        """Where there is room for the way to a minimum: twice the size, four times the variance."""
        return self.layout.model.holds(self.expand(free), self.layout.free, wide=True)

    def within(self, free: Floats) -> Bools:
        """Which frames have all that is not held in the model's ranges."""
        return self.layout.model.holds(self.expand(free), self.layout.free, wide=False)


def sweep(gram: Floats, k: int) -> Floats:
    """Gauss–Jordan (sweep) operator on pivot k of (p, p, n): solves for parameter k, the others adjusted for it.

    Swept on a set of columns, the block of that set holds the inverse of its normal matrix, the last column its
    least-squares solution, and the last diagonal element χ² (Goodnight 1979, Am. Stat. 33, 149).
    """
    pivot, column = gram[k, k], gram[:, k]
    row = gram[k] / pivot
    swept: Floats = gram - column[:, None] * row
    swept[k] = row
    swept[:, k] = -column / pivot
    swept[k, k] = 1 / pivot
    return swept
