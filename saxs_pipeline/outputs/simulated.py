"""What the kinetic model made of a synthesis: one run, beside it perhaps a scan over n, and the numbers that sum up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from saxs_pipeline.science.completion import completion
from saxs_pipeline.science.kinetics import Synthesis
from saxs_pipeline.science.population import Development, Moments


class ModelRun(NamedTuple):
    """A synthesis and its development; n: its growth exponent, None where the rate law has none."""

    n: float | None
    synthesis: Synthesis
    development: Development


@dataclass(frozen=True, eq=False)
class Simulated:
    """What `model` computed.

    parameters: name → value as written, with its unit; snapshots_s: times of the size distributions to draw;
    scan: the same synthesis with other n, in order of n.
    """

    title: str
    parameters: Mapping[str, str]
    n: float | None
    synthesis: Synthesis
    development: Development
    snapshots_s: tuple[float, ...]
    scan: tuple[ModelRun, ...] = ()

    @property
    def run(self) -> ModelRun:
        """The run itself, without the scan."""
        return ModelRun(self.n, self.synthesis, self.development)

    @property
    def runs(self) -> tuple[ModelRun, ...]:
        """The scan and the run, once, in order of n; the run alone without a scan."""
        others = [run for run in self.scan if run.n != self.n]
        return tuple(sorted([self.run, *others], key=lambda run: -math.inf if run.n is None else run.n))

    @property
    def end_s(self) -> float:
        """Time at which the simulation ends."""
        return float(self.development.time_s[-1])


class Summary(NamedTuple):
    """A development in numbers, NaN where there is none.

    Times at which c_NC reaches 98 % of its highest value and the yield 98 % of what can form, and their ratio; mean,
    standard deviation and skewness of the radii and the concentration at the end; highest supersaturation; largest
    relative error of the mass balance.
    """

    t98_c_s: float
    t98_yield_s: float
    nucleation_share: float
    r_nm: float
    sigma_r_nm: float
    skewness: float
    c_nc_umol_L: float
    peak_supersaturation: float
    mass_drift: float


def summarise(development: Development) -> Summary:
    """The numbers that sum up a development; where 98 % of the crystals are there from the start, c_NC has no t98."""
    crystals, done = development.all, completion(development)
    return Summary(
        t98_c_s=done.c_s,
        t98_yield_s=done.yield_s,
        nucleation_share=done.share,
        r_nm=float(crystals.radius_nm[-1]),
        sigma_r_nm=float(crystals.sigma_nm[-1]),
        skewness=float(crystals.skewness[-1]),
        c_nc_umol_L=float(crystals.c_umol_L[-1]),
        peak_supersaturation=float(development.supersaturation.max()),
        mass_drift=development.mass_drift,
    )


FEW = 1e-6
"""Share of all crystals below which a mode is not spoken of."""


def origins(simulated: Simulated) -> list[str]:
    """Since when crystals of each mode nucleate, from the last injection before the first; empty: hardly any do."""
    development = simulated.development
    starts, few = [0.0, *simulated.synthesis.conversion.breaks_s], FEW * development.all.c_umol_L.max()
    found = []
    for mode in development.modes:
        present = development.time_s[mode.c_umol_L > few]
        since = max((start for start in starts if present.size and start <= present[0]), default=0.0)
        found.append(f"nucleated from {since:g} s" if present.size else "")
    if simulated.synthesis.crystals and found[0]:
        found[0] = "there at the start"
    return found


def crystals_text(crystals: Moments) -> str:
    """The crystals at the end, in words."""
    c, r, sigma = crystals.c_umol_L[-1], crystals.radius_nm[-1], crystals.sigma_nm[-1]
    if not c > 0:
        return "dissolved"
    return f"c_NC = {c:.4g} µmol/L, r = {r:.4g} nm, σ_r = {sigma:.3g} nm"
