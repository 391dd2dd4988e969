"""Fits and the series of every population in the results file, and back."""

from __future__ import annotations

import json

import h5py
import numpy as np

from saxs_pipeline.model_spec import ModelSpec, Population, from_text, to_text
from saxs_pipeline.outputs.nexus_groups import (
    group_of,
    mark_plot,
    put_array,
    put_texts,
    put_units,
    text_in,
    texts_in,
)
from saxs_pipeline.types import Curves, Estimate, FitTable, Floats, Quantities, RunResult

_ESTIMATES = (
    ("r", "radius_nm", "mean radius r (nm)", "nm"),
    ("sigma_r", "sigma_nm", "standard deviation of the radii (nm)", "nm"),
    ("c_nc", "c_nc_umol_L", "concentration of nanocrystals (µmol/L)", "µmol/L"),
    ("yield", "yield_", "yield", ""),
    ("background", "background_1_mm", "constant background of the fit", "1/mm"),
)
"""Name in the file, field of Quantities, label of the axis, unit."""

_COVARIANCE_UNITS = ("nm", "nm", "µmol/L")
"""Of r, sigma_r, c_nc."""


def write(entry: h5py.Group, result: RunResult) -> None:
    """Write what the fits gave."""
    if result.fits is not None:
        _write_fits(entry, result.fits, result.curves.unit)
    if result.model is not None:
        _write_model(entry, result.model, result.curves)
    if result.quantities is not None:
        first = result.fits.model.populations[0].name if result.fits is not None else ""
        _write_series(entry, "series", first, result.quantities, result.curves.unit)
    for name, quantities in result.others:
        _write_series(entry, f"series_{name}", name, quantities, result.curves.unit)


def _units(model: ModelSpec, unit: str) -> list[str]:
    """Unit of each column of the fits of curves in `unit`; of c without a contrast that of I per ⟨P⟩."""
    by_end = {
        "c_nc_umol_L": "µmol/L",
        "r_nm": "nm",
        "sigma2_nm2": "nm^2",
        "background_1_mm": unit,
        "power_law_1_mm": unit,  # of the term at q = 1/nm
    }
    if all(one.amplitude == 1 for one in model.populations):
        by_end["c_nc_umol_L"] = f"{unit}/nm^6"
    return [next((own for end, own in by_end.items() if name.endswith(end)), "") for name in model.columns]


def _write_fits(entry: h5py.Group, fits: FitTable, unit: str) -> None:
    group = group_of(entry, "fit", "NXparameters")
    put_texts(group, "parameter_names", fits.model.columns)
    put_array(group, "parameters", fits.values, label="parameters, units by column")
    put_array(group, "covariance", fits.covariance, label="covariance of the parameters, whose units are given")
    for name in ("parameters", "covariance"):
        put_units(group[name], _units(fits.model, unit))
    put_array(group, "chi2_reduced", fits.chi2_red)
    put_array(group, "points", fits.n_points)
    put_array(group, "converged", fits.converged)
    put_array(group, "frame", fits.index)
    put_array(group, "free", fits.free)
    put_texts(group, "flag", fits.flags)
    for name, flags in zip(fits.model.prefixes[1:], fits.others, strict=True):
        put_texts(group, f"{name}flag", flags)
    group["model"] = to_text(fits.model)


def _write_model(entry: h5py.Group, model: Floats, curves: Curves) -> None:
    group = group_of(entry, "model", "NXdata")
    put_array(group, "I_fit", model, curves.unit, f"fitted I ({curves.unit})")
    group["time"], group["q"] = entry["curves/time"], entry["curves/q"]
    style = json.dumps({"signal_scale_type": "log"})
    mark_plot(group, "I_fit", ["time", "q"], title="fitted curves", SILX_style=style)


def _write_series(entry: h5py.Group, name: str, population: str, quantities: Quantities, unit: str) -> None:
    group = group_of(entry, name, "NXdata")
    if population:
        group.attrs["population"] = population
    put_array(group, "time", quantities.time_s, "s", "time (s)")
    for column, field, label, own_unit in _ESTIMATES:
        estimate: Estimate = getattr(quantities, field)
        units = unit if column == "background" else own_unit
        put_array(group, column, estimate.value, units, label)
        put_array(
            group, f"{column}_errors", estimate.statistical, units, f"statistical standard uncertainty of {column}"
        )
        put_array(
            group, f"{column}_systematic", estimate.systematic, units, f"systematic standard uncertainty of {column}"
        )
    put_array(group, "chi2_reduced", quantities.chi2_red)
    put_array(group, "covariance", quantities.covariance, label="statistical covariance of r, sigma_r, c_nc")
    put_units(group["covariance"], _COVARIANCE_UNITS)
    if quantities.shared is not None:
        said = "of the standard uncertainties of r, sigma_r, c_nc: what background and dark cause, alike in all frames"
        put_array(group, "shared_errors", quantities.shared, label=said)
        put_units(group["shared_errors"], _COVARIANCE_UNITS)
    put_array(group, "exposure_time", quantities.exposure_s, "s")
    put_array(group, "frame", quantities.index)
    put_texts(group, "flag", quantities.flags)
    style = json.dumps({"axes_scale_types": ["log"]})
    mark_plot(
        group,
        "r",
        ["time"],
        title=f"mean radius and spread{f' of {population}' if population else ''}",
        SILX_style=style,
    )
    group.attrs["auxiliary_signals"] = np.array(["sigma_r"], dtype=object)


def read_fits(group: h5py.Group) -> FitTable:
    """The fit table; of version 0.1, which does not say what c is multiplied with, that is NaN."""
    covariance = group["covariance"][()]
    if "model" in group:
        model = from_text(text_in(group["model"]))
    else:
        amplitude = float(group["amplitude"][()]) if "amplitude" in group else float("nan")
        model = ModelSpec((Population(amplitude, (0.0, np.inf), (0.0, np.inf)),))
    return FitTable(
        index=group["frame"][()],
        values=group["parameters"][()],
        covariance=covariance,
        free=group["free"][()] if "free" in group else np.isfinite(np.diagonal(covariance, axis1=1, axis2=2)),
        chi2_red=group["chi2_reduced"][()],
        n_points=group["points"][()],
        converged=group["converged"][()],
        flags=texts_in(group["flag"]),
        model=model,
        others=tuple(texts_in(group[f"{name}flag"]) for name in model.prefixes[1:]),
    )


def read_others(entry: h5py.Group, fits: FitTable | None) -> tuple[tuple[str, Quantities], ...]:
    """Names and series of further populations."""
    names = [] if fits is None else [one.name for one in fits.model.populations[1:]]
    return tuple((name, read_series(entry[f"series_{name}"])) for name in names if f"series_{name}" in entry)


def read_series(group: h5py.Group) -> Quantities:
    """Quantities of one population."""
    parts = ("", "_errors", "_systematic")
    estimates = {field: Estimate(*(group[name + part][()] for part in parts)) for name, field, _, _ in _ESTIMATES}
    return Quantities(
        index=group["frame"][()],
        time_s=group["time"][()],
        exposure_s=group["exposure_time"][()],
        chi2_red=group["chi2_reduced"][()],
        covariance=group["covariance"][()],
        flags=texts_in(group["flag"]),
        shared=group["shared_errors"][()] if "shared_errors" in group else None,
        **estimates,
    )
