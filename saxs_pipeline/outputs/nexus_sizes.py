"""Size distributions in the results file run.nxs: /entry/sizes (NXdata), density against time and radius."""

from __future__ import annotations

import math
from typing import Any

import h5py
import numpy as np

from saxs_pipeline.outputs.nexus_groups import group_of, mark_plot, put_array, put_texts, texts_in
from saxs_pipeline.size_distribution import SHAPE_COLUMNS, SIZE_COLUMNS, SizeDistributions
from saxs_pipeline.types import Curves

_DENSITIES = {
    "density": "density",
    "density_errors": "density_err",
}
"""Name in the file, field of SizeDistributions; (n, k)."""
_GROUND = ("q_min", "q_max", "factor")
"""Attributes and fields alike: 1/nm, 1/nm, and 1/mm per µmol/L and nm⁶; not in files of earlier versions."""

_LABELS = {
    "mean_nm": "volume-weighted mean radius (nm)",
    "number_mean_nm": "number-weighted mean radius (nm)",
    "width_nm": "standard deviation of the volume-weighted distribution (nm)",
    "volume_fraction": "volume fraction of all sizes",
    "background_1_mm": "constant background",
    "resolvable_width_nm": "standard deviation that a single size exceeds in 5 % of cases (nm)",
    "single_fwhm_nm": "full width at half maximum of a single size (nm)",
    "two_sizes_nm": "distance from which on two sizes are shown as two (nm)",
    "groups": "separate groups of sizes that the curve needs",
    "chi2_red": "reduced chi-square",
}
"""What the columns are."""

_LABELS = {
    "mean_nm": "volume-weighted mean radius (nm)",
    "number_mean_nm": "number-weighted mean radius (nm)",
    "width_nm": "standard deviation of the volume-weighted distribution (nm)",
    "volume_fraction": "volume fraction of all sizes",
    "background_1_mm": "constant background",
    "resolvable_width_nm": "standard deviation that a single size exceeds in 5 % of cases (nm)",
    "single_fwhm_nm": "full width at half maximum of a single size (nm)",
    "two_sizes_nm": "distance from which on two sizes are shown as two (nm)",
    "groups": "separate groups of sizes that the curve needs",
    "chi2_red": "reduced chi-square",
}
"""What the columns are."""


def write(entry: h5py.Group, sizes: SizeDistributions, curves: Curves) -> None:
    """The group `sizes` of an entry that has `curves`."""
    group = group_of(entry, "sizes", "NXdata")
    unit = "1/nm" if sizes.absolute else "arbitrary"
    for name, field in _DENSITIES.items():
        put_array(group, name, getattr(sizes, field), unit, f"volume fraction per radius, {name} ({unit})")
    put_array(group, "radius", sizes.radius_nm, "nm", "radius (nm)")
    put_array(group, "bin_width", sizes.bin_nm, "nm")
    for k, name in enumerate(SIZE_COLUMNS):
        put_array(group, name, sizes.values[:, k], _unit(name, curves), _LABELS[name])
        said = f"statistical standard uncertainty of {name}"
        put_array(group, f"{name}_errors", sizes.errors[:, k], _unit(name, curves), said)
    systematic = sizes.scale_rel * np.abs(sizes.value("volume_fraction"))
    put_array(group, "volume_fraction_systematic", systematic, "", "systematic standard uncertainty of volume_fraction")
    for k, name in enumerate(SHAPE_COLUMNS):
        put_array(group, name, sizes.shape[:, k], _unit(name, curves), _LABELS[name])
    put_texts(group, "flag", sizes.flags)
    group["time"], group["frame"] = entry["curves/time"], entry["curves/frame"]
    group.attrs["scale_relative_uncertainty"] = sizes.scale_rel
    group.attrs["absolute"] = sizes.absolute
    for name in _GROUND:
        group.attrs[name] = getattr(sizes, name)
    mark_plot(group, "density", ["time", "radius"], title="volume-weighted size distribution")


def _unit(column: str, curves: Curves) -> str:
    if column.endswith("_nm"):
        return "nm"
    return curves.unit if column == "background_1_mm" else ""


def read(group: h5py.Group) -> SizeDistributions:
    """As it was written."""
    densities: dict[str, Any] = {field: group[name][()] for name, field in _DENSITIES.items()}
    ground: dict[str, Any] = {name: float(group.attrs.get(name, math.nan)) for name in _GROUND}
    return SizeDistributions(
        radius_nm=group["radius"][()],
        bin_nm=group["bin_width"][()],
        values=np.column_stack([group[name][()] for name in SIZE_COLUMNS]),
        errors=np.column_stack([group[f"{name}_errors"][()] for name in SIZE_COLUMNS]),
        shape=np.column_stack([group[name][()] for name in SHAPE_COLUMNS]),
        flags=texts_in(group["flag"]),
        scale_rel=float(group.attrs["scale_relative_uncertainty"]),
        absolute=bool(group.attrs["absolute"]),
        **densities,
        **ground,
    )
