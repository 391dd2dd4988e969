"""When a synthesis is complete: all the monomers there are, and the times at which 98 % of the end are reached."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from saxs_pipeline.science.cohorts import existing, monomers
from saxs_pipeline.science.interpolation import reached
from saxs_pipeline.science.kinetics import Synthesis
from saxs_pipeline.types import Floats

if TYPE_CHECKING:
    from saxs_pipeline.science.population import Development

NEARLY = 0.98
"""Share of the end at which a build-up counts as done (t98)."""


class Completion(NamedTuple):
    """When c_NC and the yield reach 98 % of their end, s; NaN where they never do, or are there from the start."""

    c_s: float
    yield_s: float

    @property
    def share(self) -> float:
        """Share of the reaction during which crystals nucleate."""
        return self.c_s / self.yield_s


def all_monomers(synthesis: Synthesis) -> float:
    """What a yield is counted against, mol/m³: the monomers that can form and those in the starting crystals.

    Raises BadInput for starting crystals that cannot be simulated.
    """
    return synthesis.conversion.total_mol_m3 + monomers(existing(synthesis), synthesis)


def completion(development: Development) -> Completion:
    """Times at which c_NC reaches 98 % of its highest value, and the yield 98 % of all the monomers there are."""
    time, c = development.time_s, development.all.c_umol_L
    most = float(c.max())  # not the last: ripening takes crystals away long after nucleation
    return Completion(_done(time, c, most), _done(time, development.yield_, 1.0))


def t98(time_s: Floats, values: Floats, *, final: float | None = None) -> float:
    """Time (s) at which values (n,) first reach 98 % of `final`, by default of their last value; NaN if never.

    A yield is counted against all that can form: `final=1`; its t98 is then ln 50/k₁ in a first-order conversion.
    """
    return reached(time_s, values, NEARLY * float(values[-1] if final is None else final))


def _done(time: Floats, values: Floats, end: float) -> float:
    return t98(time, values, final=end) if values[0] < NEARLY * end else math.nan
