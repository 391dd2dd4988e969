"""What further populations and terms of a fit add to tables and summary."""

from __future__ import annotations

import numpy as np

from saxs_pipeline.outputs.flags import has_word, sound
from saxs_pipeline.outputs.numbers import estimate_text, percent, plus_minus
from saxs_pipeline.science.limits import at_limit
from saxs_pipeline.types import Bools, Floats, Quantities, RunResult

_TERMS = {
    "power_law_1_mm": ("power law d q⁻ᵖ, d", "1/mm at q = 1 nm⁻¹"),
    "exponent": ("exponent p", ""),
    "volume_fraction": ("volume fraction of hard spheres", ""),
}
"""Columns of the fit beside populations and constant: what they are called, and their unit."""


def columns(result: RunResult) -> dict[str, list[str]]:
    """Columns of series.csv after the first population's: of the others, and of what else was fitted."""
    found: dict[str, list[str]] = {}
    for name, quantities in result.others:
        for column, values in _numbers(quantities).items():
            found[f"{name}_{column}"] = [f"{x:.10g}" for x in values]
        found[f"{name}_flag"] = list(quantities.flags)
    for name, values, errors in _terms(result):
        found[name] = [f"{x:.10g}" for x in values]
        found[f"{name}_err"] = [f"{x:.10g}" for x in errors]
    return found


def _numbers(quantities: Quantities) -> dict[str, Floats]:
    r, sigma = quantities.radius_nm, quantities.sigma_nm
    found = {"r_nm": r.value, "r_nm_err": r.statistical, "sigma_r_nm": sigma.value, "sigma_r_nm_err": sigma.statistical}
    for column, estimate in (("c_nc_umol_L", quantities.c_nc_umol_L), ("yield", quantities.yield_)):
        found |= {column: estimate.value, f"{column}_err": estimate.statistical, f"{column}_sys": estimate.systematic}
    return found


def _terms(result: RunResult) -> list[tuple[str, Floats, Floats]]:
    """(column, values, standard errors) of the fit's terms beside populations and constant."""
    fits = result.fits
    if fits is None:
        return []
    errors = np.sqrt(np.diagonal(fits.covariance, axis1=1, axis2=2))
    for name, held in at_limit(fits.model, fits.values, fits.free).items():
        errors[held, fits.model.columns.index(name)] = np.nan  # not found, hence without an error
    names = [name for name in fits.model.columns if name in _TERMS]
    places = [fits.model.columns.index(name) for name in names]
    return [(name, fits.values[:, k], errors[:, k]) for name, k in zip(names, places, strict=True)]


def present(quantities: Quantities) -> Bools:
    """Frames in which a population is there: its size is reported."""
    return np.isfinite(quantities.radius_nm.value)


def rows(result: RunResult) -> list[tuple[str, str]]:
    """What the summary says of further populations and terms, as (name, text)."""
    found = []
    for name, quantities in result.others:
        found += [(f"{name}: {what}", text) for what, text in _population_rows(result, quantities)]
    last = np.flatnonzero(sound(result) & np.isfinite(result.curves.time_s))
    for name, values, errors in _terms(result):
        known = last[np.isfinite(values[last] + errors[last])] if last.size else last
        if known.size:
            what, unit = _TERMS[name]
            found.append((what, plus_minus(float(values[known[-1]]), float(errors[known[-1]]), unit=unit)))
    return found


def named(result: RunResult, rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Rows of the first population, with its name where there are others."""
    if not result.others or result.fits is None:
        return rows
    prefix = f"{result.fits.model.populations[0].name}: "
    return [(what if what.startswith(("χ²", "last")) else prefix + what, text) for what, text in rows]


def _population_rows(result: RunResult, quantities: Quantities) -> list[tuple[str, str]]:
    there = np.flatnonzero(present(quantities) & sound(result, quantities))
    if not there.size:
        limit = "" if np.isfinite(quantities.c_nc_umol_L.value).any() else "; no limit to its c, for want of a size"
        return [("seen", f"in no frame{limit}")]
    first, row = quantities.time_s[there[0]], int(there[-1])
    last = quantities.time_s[row]
    found = [("seen", f"from {first:.4g} s to {last:.4g} s, in {there.size} frames; values of the last one")]
    for what, estimate, unit in (
        ("radius r", quantities.radius_nm, "nm"),
        ("spread σ_r", quantities.sigma_nm, "nm"),
        ("concentration c", quantities.c_nc_umol_L, "µmol/L"),
        ("yield", percent(quantities.yield_), "%"),
    ):
        if np.isfinite(estimate.statistical[row]):
            found.append((what, estimate_text(estimate, row, unit)))
    return found + _end_rows(result, quantities)


def _end_rows(result: RunResult, quantities: Quantities) -> list[tuple[str, str]]:
    """What is said of a population that has vanished."""
    gone = np.flatnonzero(has_word(quantities.flags, "vanished") & sound(result, quantities))
    if not gone.size:
        return []
    c, row = quantities.c_nc_umol_L, int(gone[-1])
    start = quantities.time_s[gone[0]]
    text = f"from {start:.4g} s on; at {quantities.time_s[row]:.4g} s"
    if not np.isfinite(c.value[row]):
        return [("vanished", f"from {start:.4g} s on")]
    return [("vanished", f"{text} c is {plus_minus(float(c.value[row]), float(c.statistical[row]), unit='µmol/L')}")]
