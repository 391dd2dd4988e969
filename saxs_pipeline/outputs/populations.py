"""What further populations and terms of a fit add to tables and summary."""

from __future__ import annotations

import numpy as np

from saxs_pipeline.outputs.flags import has_word, sound
from saxs_pipeline.outputs.numbers import estimate_text, percent, plus_minus
from saxs_pipeline.science.limits import at_limit
from saxs_pipeline.types import Bools, Floats, Ints, Quantities, RunResult

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
    for number, (name, quantities) in enumerate(result.others, start=1):
        found += [(f"{name}: {what}", text) for what, text in _population_rows(result, quantities, number)]
    good = sound(result) & np.isfinite(result.curves.time_s)
    for name, values, errors in _terms(result):
        if (good & np.isfinite(values)).any():
            what, unit = _TERMS[name]
            found.append((what, _term_text(result, name, unit, values, errors, good & np.isfinite(values))))
    return found


def _term_text(  # noqa: PLR0917
    result: RunResult, name: str, unit: str, values: Floats, errors: Floats, known: Bools
) -> str:
    """A term in the last of the frames `known` (n,); of one that is held at an end of its range, the most precise too.

    values, errors (n,), of which NaN is that of a value that is held.
    """
    last, free = int(np.flatnonzero(known)[-1]), np.flatnonzero(known & np.isfinite(errors))
    if free.size and not errors[free].any():
        return f"{plus_minus(float(values[last]), unit=unit)} (fixed)"
    if np.isfinite(errors[last]):
        return plus_minus(float(values[last]), float(errors[last]), unit=unit)
    text = f"{plus_minus(float(values[last]), unit=unit)} (held at an end of its range)"
    if not free.size:
        return text
    best = int(free[np.argmin(errors[free])])
    fitted = plus_minus(float(values[best]), float(errors[best]), unit=unit)
    return f"{text}; fitted in {free.size} of {known.sum()} frames, best in {result.curves.index[best]}: {fitted}"


def held_note(result: RunResult, number: int, size: str) -> str:
    """ " (fixed)" behind a size, radius or sigma, of this population where model.fixed holds it, else ""."""
    if result.fits is None:
        return ""
    model = result.fits.model
    return " (fixed)" if f"{model.prefixes[number]}{size}" in dict(model.fixed) else ""


def named(result: RunResult, rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Rows of the first population, with its name where there are others."""
    if not result.others or result.fits is None:
        return rows
    prefix = f"{result.fits.model.populations[0].name}: "
    return [(what if what.startswith(("χ²", "last")) else prefix + what, text) for what, text in rows]


def _population_rows(result: RunResult, quantities: Quantities, number: int) -> list[tuple[str, str]]:
    there = np.flatnonzero(present(quantities) & sound(result, quantities))
    if not there.size:
        limit = "" if np.isfinite(quantities.c_nc_umol_L.value).any() else "; no limit to its c, for want of a size"
        return [("seen", f"in no frame{limit}")]
    end = _end_rows(result, quantities, int(there[-1]))
    row = _most_precise(quantities, there) if end else int(there[-1])
    first, last = (f"{quantities.time_s[there[k]]:.4g} s" for k in (0, -1))
    which = f"frame {quantities.index[row]}, at {quantities.time_s[row]:.4g} s, "
    which += "the one that tells its radius best" if end else "the last one"
    found = [("seen", f"from {first} to {last}, in {there.size} frames; values of {which}")]
    for what, estimate, unit, size in (
        ("radius r", quantities.radius_nm, "nm", "radius"),
        ("spread σ_r", quantities.sigma_nm, "nm", "sigma"),
        ("concentration c", quantities.c_nc_umol_L, "µmol/L", ""),
        ("yield", percent(quantities.yield_), "%", ""),
    ):
        if np.isfinite(estimate.statistical[row]):
            found.append((what, estimate_text(estimate, row, unit) + held_note(result, number, size)))
    return found + end


def _most_precise(quantities: Quantities, rows: Ints) -> int:
    """Of these rows the one with the smallest error of the radius; of c, relative to it, where the radius has none."""
    errors = quantities.radius_nm.statistical[rows]
    if not (errors > 0).any():
        errors = np.abs(quantities.c_nc_umol_L.statistical[rows] / quantities.c_nc_umol_L.value[rows])
    return int(rows[np.argmin(np.where(np.isfinite(errors), errors, np.inf))])


def _end_rows(result: RunResult, quantities: Quantities, seen: int) -> list[tuple[str, str]]:
    """What is said of a population that has vanished; seen: row in which its size was reported last."""
    trusted, time = sound(result, quantities), quantities.time_s
    gone = np.flatnonzero(has_word(quantities.flags, "vanished") & trusted)
    gone = gone[gone > seen]
    if not gone.size:
        return []
    text = f"from {time[gone[0]]:.4g} s on"
    if gone[0] > seen + 1:
        text += f"; before that, from {time[seen + 1]:.4g} s on, too weak for a size"
    c = quantities.c_nc_umol_L
    last = np.flatnonzero(trusted & np.isfinite(c.value))[-1:].tolist()
    if last and last[0] >= gone[0]:
        amount = plus_minus(float(c.value[last[0]]), float(c.statistical[last[0]]), unit="µmol/L")
        text += f"; at {time[last[0]]:.4g} s c is {amount}"
    return [("vanished", text)]
