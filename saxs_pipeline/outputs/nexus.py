"""The results file run.nxs (NeXus/HDF5): everything a run made, readable by silx and nexpy, and back as a RunResult.

/entry (NXentry)
    series/      NXdata    r(t) and σ_r(t), the default plot, with c_NC, yield, background, χ², flags, covariance;
                           of a second population series_NAME/
    curves/      NXdata    I(t, q) with total, statistical and shared standard uncertainties; what the dark
                           frames leave is dark_factor · dark_sigma; attributes: what moves whole curves
    quality/     NXdata    mean intensity, pixels, χ² against the frames around, monitor
    instrument/detector/   pixel_mask: which pixels are in no sum, and why
    fit/         NXparameters, one row per frame, with their covariance; model/ NXdata the fitted curves
    sizes/       NXdata    size distributions without a shape assumption (see nexus_sizes)
    background/  NXdata    B(q), which was subtracted
    scale/       NXparameters of the absolute scale
    analysis/    NXprocess what the series says about the reaction (see nexus_reaction)
    kinetics/    NXprocess the series against the kinetic model
    aliquots/    NXdata    ex-situ series
    provenance/  NXprocess run file, versions, inputs, equations, geometry, warnings
Arrays are stored as they are (float64, gzip), nothing is time-stamped: the same result gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np

from saxs_pipeline import __version__
from saxs_pipeline.outputs import nexus_fits, nexus_reaction, nexus_sizes
from saxs_pipeline.outputs.hdf5 import written_at_once
from saxs_pipeline.outputs.nexus_groups import group_of, mark_plot, put_array, put_texts, text_in, texts_in
from saxs_pipeline.quality import Quality
from saxs_pipeline.science.pixel_mask import MEANING, Bits
from saxs_pipeline.types import (
    Background,
    BadInput,
    Curves,
    InputFile,
    Provenance,
    RunResult,
    ScaleFactor,
    Uncertain,
)

_PIXEL_MASK = "instrument/detector/pixel_mask"


def write_run(result: RunResult, path: Path) -> None:
    """Write a run to a NeXus file. OSError if the path cannot be written; an existing file is replaced."""
    with written_at_once(path) as file:
        file.attrs.update(NX_class="NXroot", creator="saxs_pipeline", default="entry")
        entry = group_of(file, "entry", "NXentry")
        entry["title"] = result.title
        entry["program_name"] = "saxs_pipeline"
        entry["program_name"].attrs["version"] = result.provenance.versions.get("saxs_pipeline", __version__)
        _write_curves(entry, result.curves)
        if result.background is not None:
            _write_background(entry, result.background, result.curves)
        if result.scale is not None:
            _write_scale(entry, result.scale)
        nexus_fits.write(entry, result)
        if result.quality is not None:
            _write_quality(entry, result.quality, result.curves)
        if result.pixel_mask is not None:
            _write_pixel_mask(entry, result.pixel_mask)
        if result.sizes is not None:
            nexus_sizes.write(entry, result.sizes, result.curves)
        nexus_reaction.write(entry, result)
        _write_provenance(entry, result)
        reported = result.quantities is not None and bool(np.isfinite(result.quantities.radius_nm.value).any())
        entry.attrs["default"] = "series" if reported else "curves"


# --- writing ---------------------------------------------------------------------------------------------------------


def _write_curves(entry: h5py.Group, curves: Curves) -> None:
    group = group_of(entry, "curves", "NXdata")
    unit = curves.unit
    put_array(group, "I", curves.intensity, unit, f"I ({unit})")
    put_array(group, "I_errors", curves.sigma, unit, f"standard uncertainty of I ({unit})")
    put_array(group, "I_statistical", curves.statistical, unit)
    put_array(group, "I_shared", curves.shared, unit)
    put_array(group, "dark_sigma", curves.dark_sigma)
    put_array(group, "dark_factor", curves.dark_factor)
    put_array(group, "taken_off", curves.taken_off, unit, f"background that was subtracted ({unit})")
    put_array(group, "pixels", curves.counts)
    put_array(group, "time", curves.time_s, "s", "time (s)")
    put_array(group, "q", curves.q_nm, "1/nm", "q (1/nm)")
    put_array(group, "start_time", curves.start_s, "s")
    put_array(group, "exposure_time", curves.exposure_s, "s")
    put_array(group, "frame", curves.index)
    put_texts(group, "problem", curves.problems)
    put_texts(group, "note", curves.notes)
    group.attrs["scale_relative_uncertainty"] = curves.scale_rel
    group.attrs["monitor_relative_uncertainty"] = curves.factor_rel
    group.attrs["taken_off_relative_uncertainty"] = curves.taken_off_rel
    group.attrs["bins_correlated"] = curves.correlated
    style = json.dumps({"signal_scale_type": "log"})
    mark_plot(group, "I", ["time", "q"], title="I(t, q)", SILX_style=style)


def _write_background(entry: h5py.Group, background: Background, curves: Curves) -> None:
    group = group_of(entry, "background", "NXdata")
    put_array(group, "B", background.intensity, curves.unit, f"background ({curves.unit})")
    put_array(group, "B_errors", background.sigma, curves.unit)
    group["q"] = entry["curves/q"]
    group["source"] = background.source
    group["factor"] = background.factor
    group["dark_factor"] = background.dark_factor
    group["relative_uncertainty"] = background.factor_rel
    mark_plot(group, "B", ["q"], title="background that was subtracted")


_QUALITY = ("intensity", "intensity_errors", "valid_pixels_share", "chi2_reduced_neighbours", "monitor_share")


def _write_quality(entry: h5py.Group, quality: Quality, curves: Curves) -> None:
    group = group_of(entry, "quality", "NXdata")
    for name, values in zip(_QUALITY, vars(quality).values(), strict=True):
        put_array(group, name, values, curves.unit if name.startswith("intensity") else "")
    group["time"], group["frame"] = entry["curves/time"], entry["curves/frame"]
    mark_plot(group, "intensity", ["time"], title="mean intensity of the frames")


def _write_pixel_mask(entry: h5py.Group, bits: Bits) -> None:
    detector = group_of(group_of(entry, "instrument", "NXinstrument"), "detector", "NXdetector")
    put_array(detector, "pixel_mask", bits.astype(np.uint32), label="pixels that are not used: 0 is used")
    said = "; ".join(f"bit {bit.bit_length() - 1}: {meaning}" for bit, meaning in MEANING.items())
    detector["pixel_mask"].attrs["bits"] = said
    detector["pixel_mask"].attrs["orientation"] = "as the geometry means the images: data.orientation is applied"


def _write_scale(entry: h5py.Group, scale: ScaleFactor) -> None:
    group = group_of(entry, "scale", "NXparameters")
    group["factor"], group["factor_errors"] = scale.factor
    group["method"] = scale.method
    if scale.window_nm is not None:
        put_array(group, "window", np.array(scale.window_nm, dtype=np.float64), "1/nm")
    group["slope_over_sigma"] = scale.slope_over_sigma
    group["chi2_reduced"] = scale.chi2_red
    group["drift"] = scale.drift
    made_of = _named(group, "contributions", (name for name, _ in scale.contributions))
    put_array(made_of, "relative_uncertainty", np.array([value for _, value in scale.contributions], dtype=np.float64))


def _write_provenance(entry: h5py.Group, result: RunResult) -> None:
    provenance = result.provenance
    group = group_of(entry, "provenance", "NXprocess")
    group["program"] = "saxs_pipeline"
    group["version"] = provenance.versions.get("saxs_pipeline", __version__)
    _note(group, "configuration", "text/yaml", provenance.config_text)
    group["configuration/checksum"], group["configuration/algorithm"] = provenance.config_digest, "sha256"
    _note(group, "geometry", "application/json", json.dumps(dict(provenance.geometry)))
    remarks = group_of(group, "remarks", "NXcollection")
    put_texts(remarks, "equations", provenance.equations)
    put_texts(remarks, "notes", provenance.notes)
    put_texts(remarks, "warnings", result.warnings)
    inputs = group_of(group, "inputs", "NXcollection")
    put_texts(inputs, "path", (file.path for file in provenance.inputs))
    put_array(inputs, "size", np.array([file.size for file in provenance.inputs], dtype=np.int64), "byte")
    put_array(inputs, "mtime", np.array([file.mtime_ns for file in provenance.inputs], dtype=np.int64), "ns")
    versions = _named(group, "versions", provenance.versions)
    put_texts(versions, "value", provenance.versions.values())


def _note(group: h5py.Group, name: str, mime_type: str, text: str) -> None:
    note = group_of(group, name, "NXnote")
    note["type"] = mime_type
    note["data"] = text


def _named(group: h5py.Group, name: str, keys: Iterable[str]) -> h5py.Group:
    """Collection of names, to be given values; as text they keep their order and characters HDF5 does not allow."""
    collection = group_of(group, name, "NXcollection")
    put_texts(collection, "name", keys)
    return collection


# --- reading ---------------------------------------------------------------------------------------------------------


def read_run(path: Path) -> RunResult:
    """The RunResult in a file of `write_run`, arrays equal to the last bit; tuples in the geometry become lists.

    Raises BadInput if the file is no such file.
    """
    if not path.exists():
        raise BadInput(f"{path}: not found; give the run.nxs of a results folder")
    if path.is_dir():
        raise BadInput(f"{path}: is a folder; give the run.nxs in it")
    try:
        with h5py.File(path, "r", locking=False) as file:
            return _read_entry(file["entry"])
    except (OSError, KeyError) as error:
        what = " ".join(str(error).split())
        raise BadInput(f"{path}: not a results file of this program ({what:.200}); give a run.nxs") from error


def _read_entry(entry: h5py.Group) -> RunResult:
    provenance = entry["provenance"]
    fits = nexus_fits.read_fits(entry["fit"]) if "fit" in entry else None
    return RunResult(
        title=text_in(entry["title"]),
        curves=_read_curves(entry["curves"]),
        background=_read_background(entry["background"]) if "background" in entry else None,
        scale=_read_scale(entry["scale"]) if "scale" in entry else None,
        fits=fits,
        model=entry["model/I_fit"][()] if "model" in entry else None,
        quantities=nexus_fits.read_series(entry["series"]) if "series" in entry else None,
        others=nexus_fits.read_others(entry, fits),
        provenance=_read_provenance(provenance),
        warnings=texts_in(provenance["remarks/warnings"]),
        analysis=nexus_reaction.read_analysis(entry["analysis"]) if "analysis" in entry else None,
        comparison=nexus_reaction.read_comparison(entry["kinetics"]) if "kinetics" in entry else None,
        aliquots=nexus_reaction.read_aliquots(entry["aliquots"]) if "aliquots" in entry else None,
        quality=Quality(*(entry["quality"][name][()] for name in _QUALITY)) if "quality" in entry else None,
        sizes=nexus_sizes.read(entry["sizes"]) if "sizes" in entry else None,
        pixel_mask=entry[_PIXEL_MASK][()].astype(np.uint16) if _PIXEL_MASK in entry else None,
    )


def _floats(dataset: h5py.Dataset) -> list[float]:
    return [float(value) for value in dataset[()]]


def _read_curves(group: h5py.Group) -> Curves:
    return Curves(
        q_nm=group["q"][()],
        intensity=group["I"][()],
        statistical=group["I_statistical"][()],
        shared=group["I_shared"][()],
        dark_sigma=group["dark_sigma"][()] if "dark_sigma" in group else np.zeros(group["q"].shape),
        dark_factor=group["dark_factor"][()] if "dark_factor" in group else np.zeros(group["frame"].shape),
        taken_off=group["taken_off"][()] if "taken_off" in group else np.zeros(group["q"].shape),
        counts=group["pixels"][()],
        index=group["frame"][()],
        start_s=group["start_time"][()],
        exposure_s=group["exposure_time"][()],
        problems=texts_in(group["problem"]),
        notes=texts_in(group["note"]),
        unit=str(group["I"].attrs["units"]),
        scale_rel=float(group.attrs["scale_relative_uncertainty"]),
        factor_rel=float(group.attrs.get("monitor_relative_uncertainty", 0.0)),
        taken_off_rel=float(group.attrs.get("taken_off_relative_uncertainty", 0.0)),
        correlated=bool(group.attrs["bins_correlated"]),
    )


def _read_background(group: h5py.Group) -> Background:
    dark, relative = (  # not in files of version 0.1
        float(group[name][()]) if name in group else 0.0 for name in ("dark_factor", "relative_uncertainty")
    )
    source, factor = text_in(group["source"]), float(group["factor"][()])
    return Background(group["B"][()], group["B_errors"][()], source, factor, dark, relative)


def _read_scale(group: h5py.Group) -> ScaleFactor:
    window = tuple(_floats(group["window"])) if "window" in group else None
    return ScaleFactor(
        factor=Uncertain(float(group["factor"][()]), float(group["factor_errors"][()])),
        method=text_in(group["method"]),
        window_nm=None if window is None else (window[0], window[1]),
        slope_over_sigma=float(group["slope_over_sigma"][()]),
        chi2_red=float(group["chi2_reduced"][()]),
        drift=float(group["drift"][()]) if "drift" in group else float("nan"),
        contributions=_read_contributions(group),
    )


def _read_contributions(group: h5py.Group) -> tuple[tuple[str, float], ...]:
    if "contributions" not in group:  # files of version 0.1
        return ()
    made_of = group["contributions"]
    return tuple(zip(texts_in(made_of["name"]), _floats(made_of["relative_uncertainty"]), strict=True))


def _read_provenance(group: h5py.Group) -> Provenance:
    inputs = group["inputs"]
    columns = (texts_in(inputs["path"]), inputs["size"][()].tolist(), inputs["mtime"][()].tolist())
    versions = group["versions"]
    return Provenance(
        config_text=text_in(group["configuration/data"]),
        config_digest=text_in(group["configuration/checksum"]),
        versions=dict(zip(texts_in(versions["name"]), texts_in(versions["value"]), strict=True)),
        inputs=tuple(InputFile(*row) for row in zip(*columns, strict=True)),
        equations=texts_in(group["remarks/equations"]),
        geometry=json.loads(text_in(group["geometry/data"])),
        notes=texts_in(group["remarks/notes"]),
    )
