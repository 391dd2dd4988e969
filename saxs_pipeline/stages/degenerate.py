"""Which parameters of the kinetic model a series can tell apart (science of Prins et al., SI S4 and S6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from saxs_pipeline.kinetic_config import KineticModel
from saxs_pipeline.types import BadInput, Floats

UNRESOLVED = 1e-6
"""Smallest eigenvalue of the correlation matrix below which a series does not tell the parameters apart.

For A, gamma, n and k1 it is 3e-5; with M0, or with the prefactor or D beside A and gamma, 2e-7 and less.
"""


class Degenerate(NamedTuple):
    """Parameters of which not all can be fitted together, and why."""

    symbols: frozenset[str]
    reason: str


KNOWN = (
    Degenerate(frozenset({"gamma", "T"}), "only gamma/T enters the model; fix T"),
    Degenerate(frozenset({"P0"}), "P0 and the absolute scale of c are one factor; fix P0 and give the scale its error"),
    Degenerate(
        frozenset({"A", "D", "M0", "prefactor"}),
        "A and D times any factor, with M0 and prefactor over it, give the same series; fix M0, D and prefactor",
    ),
    Degenerate(frozenset({"A", "M0"}), "growth knows only the product A·M0 where the surface limits it; fix M0"),
    Degenerate(frozenset({"k_inf", "M0"}), "growth knows only the product k_inf·M0; fix M0"),
    Degenerate(frozenset({"A", "gamma", "prefactor"}), "they trade against each other; fix prefactor"),
    Degenerate(frozenset({"A", "r_c0"}), "only A·(r_c0 + B)^n enters the model; fix r_c0"),
)


def check(names: Sequence[str], model: KineticModel) -> None:
    """Raises BadInput if the parameters to be fitted are unknown, repeated, or known not to be told apart."""
    unknown = [name for name in names if name not in model.symbols]
    if unknown:
        possible = ", ".join(model.symbols)
        raise BadInput(f"this model has no {', '.join(unknown)} to fit; its parameters are {possible}")
    if len(set(names)) < len(names):
        raise BadInput(f"{', '.join(names)} names a parameter twice")
    for case in KNOWN:
        if case.symbols <= set(names):
            together = ", ".join(sorted(case.symbols))
            raise BadInput(f"a series cannot give {together}: {case.reason}")


def unresolved(names: Sequence[str], correlation: Floats) -> str:
    """Which parameters the fit could not tell apart, "" if it could: those of a correlation matrix near singular."""
    if not np.isfinite(correlation).all():
        return f"the series does not determine all of {', '.join(names)}: the fit gives no errors; fix some of them"
    eigenvalues, vectors = np.linalg.eigh(correlation)
    if not eigenvalues[0] < UNRESOLVED:
        return ""
    involved = [name for name, share in zip(names, np.abs(vectors[:, 0]), strict=True) if share > 0.3]
    return (
        f"the series does not tell {', '.join(involved)} apart (smallest eigenvalue of their correlation matrix "
        f"{eigenvalues[0]:.1e}); fix one of them"
    )
