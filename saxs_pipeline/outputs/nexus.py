"""The results file run.nxs (NeXus/HDF5): everything a run made, readable by silx and nexpy, and back as a RunResult.

/entry (NXentry)
    series/      NXdata    r(t) and σ_r(t), the default plot, with c_NC, yield, background, χ², flags, covariance
    curves/      NXdata    I(t, q) with total, statistical and shared standard uncertainties
    fit/         NXparameters, one row per frame, with their covariance; model/ NXdata the fitted curves
    background/  NXdata    B(q), which was subtracted
    scale/       NXparameters of the absolute scale
    provenance/  NXprocess run file, versions, inputs, equations, geometry, warnings
Arrays are stored as they are (float64, gzip), nothing is time-stamped: the same result gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from saxs_pipeline import __version__
from saxs_pipeline.outputs.hdf5 import written_at_once
from saxs_pipeline.types import (
    FIT_COLUMNS,
    Background,
    BadInput,
    Curves,
    Estimate,
    FitTable,
    Floats,
    InputFile,
    Provenance,
    Quantities,
    RunResult,
    ScaleFactor,
    Uncertain,
)

_TEXT = h5py.string_dtype()
_CHUNK_ELEMENTS = 65_536
_ESTIMATES = (
    ("r", "radius_nm", "mean radius r (nm)", "nm"),
    ("sigma_r", "sigma_nm", "standard deviation of the radii (nm)", "nm"),
    ("c_nc", "c_nc_umol_L", "concentration of nanocrystals (µmol/L)", "µmol/L"),
    ("yield", "yield_", "yield", ""),
    ("background", "background_1_mm", "constant background of the fit", "1/mm"),
)
"""Name in the file, field of Quantities, label of the axis, unit."""


def write_run(result: RunResult, path: Path) -> None:
    """Write a run to a NeXus file. OSError if the path cannot be written; an existing file is replaced."""
    with written_at_once(path) as file:
        file.attrs.update(NX_class="NXroot", creator="saxs_pipeline", default="entry")
        entry = _group(file, "entry", "NXentry")
        entry["title"] = result.title
        entry["program_name"] = "saxs_pipeline"
        entry["program_name"].attrs["version"] = result.provenance.versions.get("saxs_pipeline", __version__)
        _write_curves(entry, result.curves)
        if result.background is not None:
            _write_background(entry, result.background, result.curves)
        if result.scale is not None:
            _write_scale(entry, result.scale)
        if result.fits is not None:
            _write_fits(entry, result.fits)
        if result.model is not None:
            _write_model(entry, result.model, result.curves)
        if result.quantities is not None:
            _write_series(entry, result.quantities, result.curves.unit)
        _write_provenance(entry, result)
        reported = result.quantities is not None and bool(np.isfinite(result.quantities.radius_nm.value).any())
        entry.attrs["default"] = "series" if reported else "curves"


# --- writing ---------------------------------------------------------------------------------------------------------


def _group(parent: h5py.Group, name: str, nx_class: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nx_class
    return group


def _array(group: h5py.Group, name: str, values: NDArray[Any], units: str = "", label: str = "") -> None:
    """An array with its unit; large ones in compressed chunks of whole rows."""
    options: dict[str, Any] = {}
    if values.size > _CHUNK_ELEMENTS // 16:
        per_row = max(1, values.size // values.shape[0])
        rows = min(values.shape[0], max(1, _CHUNK_ELEMENTS // per_row))
        options = {
            "chunks": (rows, *values.shape[1:]),
            "compression": "gzip",
            "compression_opts": 1,
            "shuffle": True,
        }
    dataset = group.create_dataset(name, data=values, **options)
    if units:
        dataset.attrs["units"] = units
    if label:
        dataset.attrs["long_name"] = label


def _texts(group: h5py.Group, name: str, values: Iterable[str]) -> None:
    group.create_dataset(name, data=np.array(list(values), dtype=object), dtype=_TEXT)


def _plot(group: h5py.Group, signal: str, axes: list[str], **more: Any) -> None:
    """NXdata attributes; `axes` are dimensions 0, 1, … of the signal."""
    group.attrs["signal"] = signal
    group.attrs["axes"] = np.array(axes, dtype=object)
    for dimension, axis in enumerate(axes):
        group.attrs[f"{axis}_indices"] = dimension
    for name, value in more.items():
        group.attrs[name] = value


def _write_curves(entry: h5py.Group, curves: Curves) -> None:
    group = _group(entry, "curves", "NXdata")
    unit = curves.unit
    _array(group, "I", curves.intensity, unit, f"I ({unit})")
    _array(group, "I_errors", curves.sigma, unit, f"standard uncertainty of I ({unit})")
    _array(group, "I_statistical", curves.statistical, unit)
    _array(group, "I_shared", curves.shared, unit)
    _array(group, "pixels", curves.counts)
    _array(group, "time", curves.time_s, "s", "time (s)")
    _array(group, "q", curves.q_nm, "1/nm", "q (1/nm)")
    _array(group, "start_time", curves.start_s, "s")
    _array(group, "exposure_time", curves.exposure_s, "s")
    _array(group, "frame", curves.index)
    _texts(group, "problem", curves.problems)
    _texts(group, "note", curves.notes)
    group.attrs["scale_relative_uncertainty"] = curves.scale_rel
    group.attrs["bins_correlated"] = curves.correlated
    style = json.dumps({"signal_scale_type": "log"})
    _plot(group, "I", ["time", "q"], title="I(t, q)", SILX_style=style)


def _write_background(entry: h5py.Group, background: Background, curves: Curves) -> None:
    group = _group(entry, "background", "NXdata")
    _array(group, "B", background.intensity, curves.unit, f"background ({curves.unit})")
    _array(group, "B_errors", background.sigma, curves.unit)
    group["q"] = entry["curves/q"]
    group["source"] = background.source
    group["factor"] = background.factor
    _plot(group, "B", ["q"], title="background that was subtracted")


def _write_scale(entry: h5py.Group, scale: ScaleFactor) -> None:
    group = _group(entry, "scale", "NXparameters")
    group["factor"], group["factor_errors"] = scale.factor
    group["method"] = scale.method
    if scale.window_nm is not None:
        _array(group, "window", np.array(scale.window_nm, dtype=np.float64), "1/nm")
    group["slope_over_sigma"] = scale.slope_over_sigma
    group["chi2_reduced"] = scale.chi2_red


def _write_fits(entry: h5py.Group, fits: FitTable) -> None:
    group = _group(entry, "fit", "NXparameters")
    _texts(group, "parameter_names", FIT_COLUMNS)
    _array(group, "parameters", fits.values)
    _array(group, "covariance", fits.covariance)
    _array(group, "chi2_reduced", fits.chi2_red)
    _array(group, "points", fits.n_points)
    _array(group, "converged", fits.converged)
    _array(group, "frame", fits.index)
    _texts(group, "flag", fits.flags)
    group["amplitude"] = fits.amplitude


def _write_model(entry: h5py.Group, model: Floats, curves: Curves) -> None:
    group = _group(entry, "model", "NXdata")
    _array(group, "I_fit", model, curves.unit, f"fitted I ({curves.unit})")
    group["time"], group["q"] = entry["curves/time"], entry["curves/q"]
    style = json.dumps({"signal_scale_type": "log"})
    _plot(group, "I_fit", ["time", "q"], title="fitted curves", SILX_style=style)


def _write_series(entry: h5py.Group, quantities: Quantities, unit: str) -> None:
    group = _group(entry, "series", "NXdata")
    _array(group, "time", quantities.time_s, "s", "time (s)")
    for name, field, label, own_unit in _ESTIMATES:
        estimate: Estimate = getattr(quantities, field)
        units = unit if name == "background" else own_unit
        _array(group, name, estimate.value, units, label)
        _array(group, f"{name}_errors", estimate.statistical, units, f"statistical standard uncertainty of {name}")
        _array(group, f"{name}_systematic", estimate.systematic, units, f"systematic standard uncertainty of {name}")
    _array(group, "chi2_reduced", quantities.chi2_red)
    _array(group, "covariance", quantities.covariance, label="statistical covariance of r, sigma_r, c_nc")
    _array(group, "exposure_time", quantities.exposure_s, "s")
    _array(group, "frame", quantities.index)
    _texts(group, "flag", quantities.flags)
    style = json.dumps({"axes_scale_types": ["log"]})
    _plot(group, "r", ["time"], title="mean radius and spread", SILX_style=style)
    group.attrs["auxiliary_signals"] = np.array(["sigma_r"], dtype=object)


def _write_provenance(entry: h5py.Group, result: RunResult) -> None:
    provenance = result.provenance
    group = _group(entry, "provenance", "NXprocess")
    group["program"] = "saxs_pipeline"
    group["version"] = provenance.versions.get("saxs_pipeline", __version__)
    _note(group, "configuration", "text/yaml", provenance.config_text)
    group["configuration/checksum"], group["configuration/algorithm"] = provenance.config_digest, "sha256"
    _note(group, "geometry", "application/json", json.dumps(dict(provenance.geometry)))
    remarks = _group(group, "remarks", "NXcollection")
    _texts(remarks, "equations", provenance.equations)
    _texts(remarks, "notes", provenance.notes)
    _texts(remarks, "warnings", result.warnings)
    inputs = _group(group, "inputs", "NXcollection")
    _texts(inputs, "path", (file.path for file in provenance.inputs))
    _array(inputs, "size", np.array([file.size for file in provenance.inputs], dtype=np.int64), "byte")
    _array(inputs, "mtime", np.array([file.mtime_ns for file in provenance.inputs], dtype=np.int64), "ns")
    versions = _named(group, "versions", provenance.versions)
    _texts(versions, "value", provenance.versions.values())


def _note(group: h5py.Group, name: str, mime_type: str, text: str) -> None:
    note = _group(group, name, "NXnote")
    note["type"] = mime_type
    note["data"] = text


def _named(group: h5py.Group, name: str, keys: Iterable[str]) -> h5py.Group:
    """Collection of names, to be given values; as text they keep their order and characters HDF5 does not allow."""
    collection = _group(group, name, "NXcollection")
    _texts(collection, "name", keys)
    return collection


# --- reading ---------------------------------------------------------------------------------------------------------


def read_run(path: Path) -> RunResult:
    """The RunResult in a file of `write_run`, arrays equal to the last bit; tuples in the geometry become lists.

    Raises BadInput if the file is no such file.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            return _read_entry(file["entry"])
    except (OSError, KeyError) as error:
        raise BadInput(f"{path}: not a results file of this program ({error}); give a run.nxs") from error


def _read_entry(entry: h5py.Group) -> RunResult:
    provenance = entry["provenance"]
    return RunResult(
        title=_text(entry["title"]),
        curves=_read_curves(entry["curves"]),
        background=_read_background(entry["background"]) if "background" in entry else None,
        scale=_read_scale(entry["scale"]) if "scale" in entry else None,
        fits=_read_fits(entry["fit"]) if "fit" in entry else None,
        model=entry["model/I_fit"][()] if "model" in entry else None,
        quantities=_read_series(entry["series"]) if "series" in entry else None,
        provenance=_read_provenance(provenance),
        warnings=_text_tuple(provenance["remarks/warnings"]),
    )


def _text(dataset: h5py.Dataset) -> str:
    return str(dataset.asstr()[()])


def _text_tuple(dataset: h5py.Dataset) -> tuple[str, ...]:
    return tuple(dataset.asstr()[()].tolist())


def _floats(dataset: h5py.Dataset) -> list[float]:
    return [float(value) for value in dataset[()]]


def _read_curves(group: h5py.Group) -> Curves:
    return Curves(
        q_nm=group["q"][()],
        intensity=group["I"][()],
        statistical=group["I_statistical"][()],
        shared=group["I_shared"][()],
        counts=group["pixels"][()],
        index=group["frame"][()],
        start_s=group["start_time"][()],
        exposure_s=group["exposure_time"][()],
        problems=_text_tuple(group["problem"]),
        notes=_text_tuple(group["note"]),
        unit=str(group["I"].attrs["units"]),
        scale_rel=float(group.attrs["scale_relative_uncertainty"]),
        correlated=bool(group.attrs["bins_correlated"]),
    )


def _read_background(group: h5py.Group) -> Background:
    return Background(group["B"][()], group["B_errors"][()], _text(group["source"]), float(group["factor"][()]))


def _read_scale(group: h5py.Group) -> ScaleFactor:
    window = tuple(_floats(group["window"])) if "window" in group else None
    return ScaleFactor(
        factor=Uncertain(float(group["factor"][()]), float(group["factor_errors"][()])),
        method=_text(group["method"]),
        window_nm=None if window is None else (window[0], window[1]),
        slope_over_sigma=float(group["slope_over_sigma"][()]),
        chi2_red=float(group["chi2_reduced"][()]),
    )


def _read_fits(group: h5py.Group) -> FitTable:
    return FitTable(
        index=group["frame"][()],
        values=group["parameters"][()],
        covariance=group["covariance"][()],
        chi2_red=group["chi2_reduced"][()],
        n_points=group["points"][()],
        converged=group["converged"][()],
        flags=_text_tuple(group["flag"]),
        amplitude=float(group["amplitude"][()]),
    )


def _read_series(group: h5py.Group) -> Quantities:
    parts = ("", "_errors", "_systematic")
    estimates = {field: Estimate(*(group[name + part][()] for part in parts)) for name, field, _, _ in _ESTIMATES}
    return Quantities(
        index=group["frame"][()],
        time_s=group["time"][()],
        exposure_s=group["exposure_time"][()],
        chi2_red=group["chi2_reduced"][()],
        covariance=group["covariance"][()],
        flags=_text_tuple(group["flag"]),
        **estimates,
    )


def _read_provenance(group: h5py.Group) -> Provenance:
    inputs = group["inputs"]
    columns = (_text_tuple(inputs["path"]), inputs["size"][()].tolist(), inputs["mtime"][()].tolist())
    versions = group["versions"]
    return Provenance(
        config_text=_text(group["configuration/data"]),
        config_digest=_text(group["configuration/checksum"]),
        versions=dict(zip(_text_tuple(versions["name"]), _text_tuple(versions["value"]), strict=True)),
        inputs=tuple(InputFile(*row) for row in zip(*columns, strict=True)),
        equations=_text_tuple(group["remarks/equations"]),
        geometry=json.loads(_text(group["geometry/data"])),
        notes=_text_tuple(group["remarks/notes"]),
    )
