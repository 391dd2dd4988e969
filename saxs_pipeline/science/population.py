"""Population balance of a synthesis by cohorts: simulate nucleation and growth, exact in mass (science of SI S6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saxs_pipeline.science.kinetics import Synthesis
from saxs_pipeline.types import Floats

ETA = 0.025
"""Default step: h = η t. The error of σ_r is 3e-4 and falls with η²."""


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

    all: every crystal; modes: the same crystals by origin, in order of birth (those present at t = 0, then those born
    after each injection); yield_: monomers in crystals over all that can form; supersaturation; critical_radius_nm (NaN
    where S ≤ 1); generation, nucleation, growth: mol of monomer per m³ and s, generation = nucleation + growth;
    sizes (n, k): µmol/L of crystals on the grid size_grid_nm (k,), moments up to the third exact; mass_drift: largest
    relative error of the mass balance over all steps.
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


def simulate(synthesis: Synthesis, end_s: float, *, eta: float = ETA, sizes: bool = False) -> Development:
    """Develop a synthesis from t = 0 to end_s; `sizes=False` leaves Development.sizes (0, 0)."""
    raise NotImplementedError


def at(development: Development, time_s: Floats) -> Development:
    """The development at other times (k,) by interpolation; before the first crystals c and yield are 0, radii NaN."""
    raise NotImplementedError


def density(synthesis: Synthesis, development: Development, times_s: Sequence[float], radius_nm: Floats) -> Floats:
    """Smooth c(r, t) in µmol/L/nm, (times, radii), by tracing the characteristics back through the stored S(t)."""
    raise NotImplementedError
