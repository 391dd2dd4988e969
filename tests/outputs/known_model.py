"""Simulated syntheses whose numbers are known: the calibrated set with its scan, growth only, a second injection."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from saxs_pipeline.outputs.simulated import ModelRun, Simulated
from saxs_pipeline.science.conversion import FirstOrder, Tabulated
from saxs_pipeline.science.kinetics import Crystals, LinearFreeEnergy, Superfocusing, Synthesis
from saxs_pipeline.science.population import simulate

SNAPSHOTS = (3.16, 9.47, 28.34, 49.03, 84.83, 146.78, 253.96, 439.4, 2275.8)  # SI S6.6
END = 2275.8


def calibrated(n: float) -> Synthesis:
    """Table S6.1 with γ = 0.18 J/m², k₁ = 4.9e-3 1/s and no desorption."""
    return Synthesis(
        monomer_volume_m3=5.59e-29,
        surface_energy_J_m2=0.18,
        solubility_mol_m3=1e-7,
        diffusion_m2_s=5e-10,
        adsorption=Superfocusing(1 / 22, n),
        conversion=FirstOrder(4.9e-3, ((0.0, 27.0),)),
        desorption=False,
    )


def simulated(n: float | None, synthesis: Synthesis, end_s: float = END, snapshots_s=SNAPSHOTS, scan=()) -> Simulated:
    """A run with its development."""
    parameters = {"T": "533.15 K", "gamma": "0.18 J/m^2"}
    return Simulated("CdSe", parameters, n, synthesis, simulate(synthesis, end_s), snapshots_s, scan)


@cache
def scan() -> Simulated:
    """n = 2 of the calibrated set, beside n = 0, 2 and 4."""
    runs = {n: simulated(n, calibrated(n)).run for n in (0.0, 2.0, 4.0)}
    return Simulated("CdSe", {"n": "2"}, *runs[2.0], SNAPSHOTS, tuple(runs.values()))


@cache
def growth_only(n: float = 2.0) -> Simulated:
    """SI S6.4: 25 µmol/L of crystals, 1.2 ± 0.1 nm, constant generation, no nucleation, no desorption."""
    synthesis = replace(
        calibrated(n),
        diffusion_m2_s=float("inf"),
        surface_energy_J_m2=0.2,
        adsorption=Superfocusing(1 / 22, n, offset_m=0.0),
        conversion=Tabulated((0.0, 480.0), (0.05, 0.05)),
        nucleation=False,
        crystals=(Crystals(0.025, 1.2e-9, 0.1e-9),),
    )
    return simulated(n, synthesis, 240.0, (10.0, 120.0, 240.0))


@cache
def stopped() -> Simulated:
    """The same with a generation that ends at 240 s, followed to 300 s."""
    synthesis = replace(growth_only().synthesis, conversion=Tabulated((0.0, 240.0), (0.05, 0.05)))
    return simulated(2.0, synthesis, 300.0, (10.0, 300.0))


@cache
def second_injection() -> Simulated:
    """A quarter of the precursor after 600 s, when all crystals of the first injection have nucleated."""
    synthesis = replace(
        calibrated(2.0), conversion=FirstOrder(20e-3, ((0.0, 20.0), (600.0, 20.0))), adsorption=Superfocusing(0.02, 4)
    )
    return simulated(4.0, synthesis)


@cache
def linear_free_energy() -> Simulated:
    """A rate law without an exponent."""
    return simulated(None, replace(calibrated(0.0), adsorption=LinearFreeEnergy(0.1, 0.5)))


def wide_scan() -> Simulated:
    """The scan's development of n = 2 under nine exponents: only its place matters."""
    known = scan()
    runs = tuple(ModelRun(n / 2, known.synthesis, replace(known.development)) for n in range(9))
    return replace(known, n=1.5, scan=runs)
