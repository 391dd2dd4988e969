"""Ex-situ data in CSV: aliquots (r, c, yield, or the absorbances they follow from), and two radii side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saxs_pipeline import columns
from saxs_pipeline.columns import Columns
from saxs_pipeline.reaction import Aliquots
from saxs_pipeline.reaction_config import AliquotTable
from saxs_pipeline.science.kinetics import N_A
from saxs_pipeline.types import BadInput, Floats

_VALUES: Mapping[str, columns.Sign] = {
    **{"r_nm": "positive", "c_nc_umol_L": "any", "yield": "any"},
    **{"peak_nm": "positive", "absorbance": "any", "dilution": "positive"},
}
_CONFLICTS = (
    ("r_nm", "peak_nm", "both give the radius"),
    ("c_nc_umol_L", "absorbance", "both give c_NC"),
    ("yield", "absorbance", "both give the yield"),
)
_EXAMPLE = "t_s,r_nm,r_nm_err,c_nc_umol_L,c_nc_umol_L_err,yield,yield_err"
_RADII = ("t_s", "r1_nm", "r1_nm_err", "r2_nm", "r2_nm_err")
_PER_NM3 = 1e30 / N_A
"""One crystal per nm³ in µmol/L."""


MOST_YIELD = 2.0
"""A larger yield is not one in error, it is one in percent."""


@dataclass(frozen=True, eq=False)
class TwoRadii:
    """Radii of two populations in one mixture and their standard uncertainties, nm, at times in s; each (k,)."""

    time_s: Floats
    r1_nm: Floats
    r1_error: Floats
    r2_nm: Floats
    r2_error: Floats
    source: str


@dataclass(frozen=True, eq=False)
class _Measured:
    """Values and standard uncertainties, each (k,)."""

    value: Floats
    error: Floats


def read_aliquots(path: Path, section: AliquotTable) -> Aliquots:
    """Aliquots from a CSV table with the column t_s and any of r_nm, c_nc_umol_L, yield; each with its …_err.

    Instead of r_nm the table may hold peak_nm (position of the band-edge absorbance), which the sizing curve turns into
    r; instead of c_nc_umol_L and yield, absorbance (decadic, at the wavelength of the absorption coefficient), and with
    it dilution (unless the section gives it). All errors are propagated to first order. The times must not decrease;
    an empty cell was not measured. Raises BadInput with one line per mistake, `FILE:LINE:COLUMN: …`.
    """
    errors: dict[str, columns.Sign] = {f"{name}_err": "positive" for name in _VALUES}
    table = columns.read(path, {"t_s": "any", **_VALUES, **errors}, example=_EXAMPLE)
    _check_columns(table, section)
    _check_cells(table, ["t_s"], [name for name in _VALUES if name in table.values])
    radius = _radius(table, section)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused
        concentration, yield_, correlation = _amounts(table, section, radius)
    _check_amounts(table, yield_)
    return Aliquots(
        time_s=table.values["t_s"],
        radius_nm=radius.value,
        radius_error=radius.error,
        c_umol_L=concentration.value,
        c_error=concentration.error,
        yield_=yield_.value,
        yield_error=yield_.error,
        source=path.name,
        correlation=correlation,
    )


def read_radii(path: Path) -> TwoRadii:
    """Radii of a bimodal ensemble from a CSV table t_s,r1_nm,r1_nm_err,r2_nm,r2_nm_err without empty cells.

    The times must not decrease. Raises BadInput with one line per mistake.
    """
    example = ",".join(_RADII)
    known: dict[str, columns.Sign] = dict.fromkeys(_RADII, "positive")
    table = columns.read(path, known | {"t_s": "any"}, example=example)
    missing = [name for name in _RADII if name not in table.values]
    if missing:
        raise BadInput(f"{path}: the column {missing[0]} is missing; the table needs {example}")
    _check_cells(table, _RADII, [])
    time, r1, r1_error, r2, r2_error = (table.values[name] for name in _RADII)
    return TwoRadii(time, r1, r1_error, r2, r2_error, path.name)


# --- what the table must hold ----------------------------------------------------------------------------------------


def _check_columns(table: Columns, section: AliquotTable) -> None:
    """Raise BadInput where columns are missing or contradict each other or the run file."""
    there, path = table.values, table.path
    mistakes = [] if "t_s" in there else [f"{path}: the column t_s is missing (time after the injection in s)"]
    if not {"r_nm", "c_nc_umol_L", "yield", "peak_nm", "absorbance"} & there.keys():
        mistakes.append(f"{path}: no quantity; give r_nm, c_nc_umol_L, yield, peak_nm or absorbance")
    for name in _VALUES:
        if (name in there) != (f"{name}_err" in there):
            has, lacks = (name, f"{name}_err") if name in there else (f"{name}_err", name)
            mistakes.append(f"{path}: the column {has} needs {lacks}: every number comes with its uncertainty")
    mistakes += [f"{path}: {a} and {b} {why}; remove one" for a, b, why in _CONFLICTS if {a, b} <= there.keys()]
    if "peak_nm" in there and section.sizing_curve is None:
        mistakes.append(f"{path}: peak_nm needs aliquots.sizing_curve in the run file")
    if "absorbance" in there:
        if section.absorption_coefficient is None:
            mistakes.append(f"{path}: absorbance needs aliquots.absorption_coefficient in the run file")
        if ("dilution" in there) == (section.dilution is not None):
            mistakes.append(f"{path}: absorbance needs its dilution once: as the column or as aliquots.dilution")
    elif "dilution" in there:
        mistakes.append(f"{path}: dilution belongs to the column absorbance, which is missing")
    if mistakes:
        raise BadInput(*mistakes)


def _check_cells(table: Columns, complete: Sequence[str], pairs: Sequence[str]) -> None:
    """Raise BadInput for empty cells of `complete` columns, values without error, and times that decrease."""
    empty = {name: np.isnan(values) for name, values in table.values.items()}
    wrong = [(name, empty[name], "must not be empty") for name in complete]
    for name in pairs:
        error = f"{name}_err"
        wrong.append((name, empty[name] & ~empty[error], "is empty, but its uncertainty is given"))
        wrong.append((error, ~empty[name] & empty[error], "is empty; every number comes with its uncertainty"))
    if "dilution" in pairs:
        wrong.append(("dilution", empty["dilution"] & ~empty["absorbance"], "is empty, but an absorbance is given"))
    late = np.diff(table.values["t_s"], prepend=-np.inf) < 0
    wrong.append(("t_s", late, "comes after a later time; sort the rows by time"))
    mistakes = [(int(row), name, text) for name, rows, text in wrong for row in np.flatnonzero(rows)]
    if mistakes:
        mistakes.sort(key=lambda mistake: mistake[0])
        raise BadInput(*(table.message(name, row, text) for row, name, text in mistakes[: columns.MOST_MISTAKES]))


def _check_amounts(table: Columns, yield_: _Measured) -> None:
    """Raise BadInput for yields that are no fraction, and absorbances from which nothing finite follows."""
    if "absorbance" in table.values:
        measured = np.isfinite(table.values["absorbance"])
        lost = np.flatnonzero(measured & ~np.isfinite(yield_.value + yield_.error))
        if len(lost):
            raise BadInput(table.message("absorbance", int(lost[0]), "gives no finite amount; check it and the keys"))
    much = np.flatnonzero(yield_.value > MOST_YIELD)
    if len(much):
        row, name = int(much[0]), "yield" if "yield" in table.values else "absorbance"
        text = f"a yield of {yield_.value[row]:.3g} is no fraction (1 is complete); percent? check the units"
        raise BadInput(table.message(name, row, text))


# --- quantities ------------------------------------------------------------------------------------------------------


def _measured(table: Columns, name: str) -> _Measured:
    unknown = np.full(len(table.values["t_s"]), np.nan)
    return _Measured(table.values.get(name, unknown), table.values.get(f"{name}_err", unknown))


def _radius(table: Columns, section: AliquotTable) -> _Measured:
    """Radius in nm; from the peak by r = Σ d_k λ^k / 2, σ_r = |dr/dλ| σ_λ."""
    if "peak_nm" not in table.values or section.sizing_curve is None:
        return _measured(table, "r_nm")
    peak = _measured(table, "peak_nm")
    curve = np.polynomial.Polynomial(section.sizing_curve)
    radius, slope = curve(peak.value) / 2, curve.deriv()(peak.value) / 2
    outside = np.flatnonzero((radius <= 0) | (slope <= 0))
    if len(outside):
        row = int(outside[0])
        text = (
            f"the sizing curve gives r = {radius[row]:.3g} nm and dr/dλ = {slope[row]:.3g} here; it does not reach it"
        )
        raise BadInput(table.message("peak_nm", row, text))
    return _Measured(radius, slope * peak.error)


def _amounts(table: Columns, section: AliquotTable, radius: _Measured) -> tuple[_Measured, _Measured, Floats | None]:
    """c_NC in µmol/L, yield, and the correlation of their errors (None where they were measured independently).

    f = ln 10 · A · dilution/(µ · path) is the volume fraction of crystals in the reaction mixture;
    c_NC = f/(4π/3 r³ N_A) and yield = f/(V_m c_cation) share its error, c_NC has that of r besides.
    """
    if "absorbance" not in table.values:
        return _measured(table, "c_nc_umol_L"), _measured(table, "yield"), None
    fraction, per_amount = _volume_fraction(table, section), _per_cation(section)
    per_fraction = _PER_NM3 / (4 * math.pi / 3 * radius.value**3)
    c = fraction.value * per_fraction
    c_error = np.hypot(fraction.error * per_fraction, 3 * c / radius.value * radius.error)
    return (
        _Measured(c, c_error),
        _Measured(fraction.value * per_amount, fraction.error * per_amount),
        fraction.error * per_fraction / c_error,
    )


def _volume_fraction(table: Columns, section: AliquotTable) -> _Measured:
    assert section.absorption_coefficient is not None  # the section has all four constants or none
    assert section.path is not None
    absorbance, dilution = _measured(table, "absorbance"), _measured(table, "dilution")
    if section.dilution is not None:
        exact = np.zeros_like(absorbance.value)
        dilution = _Measured(exact + section.dilution, exact)
    per_unit = math.log(10) / (section.absorption_coefficient * section.path)
    error = np.hypot(dilution.value * absorbance.error, absorbance.value * dilution.error)
    return _Measured(per_unit * absorbance.value * dilution.value, per_unit * error)


def _per_cation(section: AliquotTable) -> float:
    """Yield per volume fraction, 1/(V_m c_cation); V_m in cm³/mol, c in mmol/L = 1e-6 mol/cm³."""
    assert section.molar_volume is not None
    assert section.cation_concentration is not None
    return 1 / (section.molar_volume * section.cation_concentration * 1e-6)
