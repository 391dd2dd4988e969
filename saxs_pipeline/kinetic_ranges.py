"""Ranges of the kinetic parameters: decades wider than any synthesis, narrow enough to calculate with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from saxs_pipeline.science.kinetics import N_A, R_GAS

RANGES: Mapping[str, tuple[float, float, str]] = MappingProxyType(
    {
        **{"T": (1.0, 1e4, "K"), "v0": (1e-31, 1e-24, "m^3"), "gamma": (1e-6, 100.0, "J/m^2")},
        **{"M0": (1e-30, 1e5, "mol/m^3"), "D": (1e-20, 1.0, "m^2/s"), "prefactor": (1e-30, 1e30, "")},
        **{"A": (1e-20, 1e10, "m/s"), "k_inf": (1e-20, 1e10, "m/s"), "r_c0": (1e-12, 1e-6, "m"), "B": (0.0, 1e-7, "m")},
        **{"k1": (1e-12, 1e6, "1/s"), "k2": (1e-12, 1e6, "m^3/mol/s"), "beta": (1e-6, 1e6, "")},
        **{"P0": (1e-9, 1e6, "mol/m^3"), "partner": (1e-9, 1e6, "mol/m^3"), "generation": (1e-15, 1e6, "mol/m^3/s")},
        **{"c": (1e-15, 1e3, "mol/m^3"), "r": (1e-11, 1e-7, "m"), "sigma": (1e-14, 1e-7, "m")},
    }
)
"""Lowest and highest value by symbol, with their unit; 0 is never refused here."""

LONGEST_CAPILLARY_M = 1e-7
"""a = 2γV_m/RT of CdSe is 3 nm; crystals of some nm would dissolve e^(a/r) times as fast as a flat surface."""


def outside(values: Iterable[tuple[str, str, float]]) -> Iterator[tuple[str, str]]:
    """(key, message) of every (key, symbol, value in SI) that lies outside RANGES."""
    for key, symbol, value in values:
        low, high, unit = RANGES[symbol]
        if value and not low <= value <= high:
            what = symbol if symbol == key else f"{key}, {symbol}"
            yield (
                key,
                f"{value:.4g} {unit}".rstrip() + f" is no possible {what}; give {low:g} to {high:g} {unit}".rstrip(),
            )


def capillary(gamma: float, v0: float, coldest_k: float) -> Iterator[tuple[str, str]]:
    """(key, message) if the capillary length at the lowest temperature is too long to calculate with."""
    length = 2 * gamma * N_A * v0 / (R_GAS * coldest_k)
    if length > LONGEST_CAPILLARY_M:
        yield "gamma", f"with this v0 and T the capillary length 2γV_m/RT is {length:.3g} m; give less than 1e-7 m"
