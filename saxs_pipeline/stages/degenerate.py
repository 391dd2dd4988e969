"""Which parameters of the kinetic model a series can tell apart (science of Prins et al., SI S4 and S6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from saxs_pipeline.kinetic_config import KineticModel
from saxs_pipeline.types import BadInput, Floats

UNRESOLVED = 1e-6
"""Smallest eigenvalue of the correlation matrix below which a series does not tell the parameters apart.

For A, gamma, n and k1 it is 3e-5; with M0, or with the prefactor beside A and gamma, 2e-7 and less.
"""


class Degenerate(NamedTuple):
    """Parameters of which not all can be fitted together, and why."""

    symbols: frozenset[str]
    reason: str


STANDS_FOR = {"T": "gamma", "k_inf": "A", "r_c0": "A", "M0": "A"}
"""Beside others a parameter acts as another: only gamma/T enters, and growth knows A·(r_c0 + B)^n·M0 as one factor."""

KNOWN = (
    Degenerate(frozenset({"gamma", "T"}), "only gamma/T enters the model; fix T"),
    Degenerate(frozenset({"A", "M0"}), "growth knows only the product A·M0 where the surface limits it; fix M0"),
    Degenerate(frozenset({"k_inf", "M0"}), "growth knows only the product k_inf·M0; fix M0"),
    Degenerate(frozenset({"A", "r_c0"}), "only A·(r_c0 + B)^n enters the model; fix r_c0"),
    Degenerate(frozenset({"M0", "r_c0"}), "growth knows only the product A·(r_c0 + B)^n·M0; fix both"),
    Degenerate(frozenset({"A", "gamma", "prefactor"}), "they trade against each other; fix prefactor"),
    Degenerate(frozenset({"A", "D", "prefactor"}), "nucleation knows only D·prefactor; fix D"),
)


def check(names: Sequence[str], model: KineticModel) -> None:
    """Raises BadInput if the parameters to be fitted are unknown, repeated, or known not to be told apart."""
    unknown = [name for name in names if name not in model.symbols]
    if unknown:
        possible = ", ".join(model.symbols)
        raise BadInput(f"this model has no {', '.join(unknown)} to fit; its parameters are {possible}")
    if len(set(names)) < len(names):
        raise BadInput(f"{', '.join(names)} names a parameter twice")
    for roles in ({name: name for name in names}, {name: STANDS_FOR.get(name, name) for name in names}):
        for case in KNOWN:
            if case.symbols <= set(roles.values()):
                together = ", ".join(sorted(name for name, role in roles.items() if role in case.symbols))
                raise BadInput(f"a series cannot give {together}: {case.reason}")
    for case in _of_this_model(frozenset(names), model):
        if meant := sorted(case.symbols & set(names)):
            raise BadInput(f"a series cannot give {', '.join(meant)}: {case.reason}")


def _of_this_model(names: frozenset[str], model: KineticModel) -> Iterator[Degenerate]:
    """What plays no part in this model, or does not beside the others that are fitted."""
    if model.n == 0 and "n" not in names:
        yield Degenerate(frozenset({"r_c0", "B"}), "with n = 0 adsorption is A at every radius; fix it, or fit n too")
    if model.nucleation or model.desorption:
        return
    shares = "without nucleation and desorption only how growth is shared between sizes counts"
    yield Degenerate(frozenset({"M0"}), f"{shares}, which it does not change; fix it")
    transfer = {"alpha"} & names or model.alpha
    if not transfer:
        yield Degenerate(frozenset({"gamma", "T"}), f"{shares}, which it does not change; fix it")
    if "alpha" in names and names & {"gamma", "T"}:
        yield Degenerate(frozenset({"alpha", "gamma", "T"}), f"{shares}, by alpha·gamma/T alone; fix all but alpha")
    rates = frozenset({"A", "k_inf", "r_c0"})
    if model.D is None:
        yield Degenerate(rates, f"{shares}, which it does not change where diffusion limits nothing; fix it")
    elif len(names & (rates | {"D"})) > 1:
        yield Degenerate(rates | {"D"}, f"{shares}, by the ratio of adsorption to D; fit one of them")


def unresolved(names: Sequence[str], correlation: Floats) -> str:
    """Which parameters the fit could not tell apart, "" if it could: those of a correlation matrix near singular.

    A matrix of NaN is that of a fit that did not converge, whose message says why.
    """
    if not np.isfinite(correlation).all():
        return ""
    eigenvalues, vectors = np.linalg.eigh(correlation)
    if not eigenvalues[0] < UNRESOLVED:
        return ""
    involved = [name for name, share in zip(names, np.abs(vectors[:, 0]), strict=True) if share > 0.3]
    return (
        f"the series does not tell {', '.join(involved)} apart (smallest eigenvalue of their correlation matrix "
        f"{eigenvalues[0]:.1e}); fix one of them"
    )
