"""Groups and datasets of a NeXus file: how they are written, compressed and named, and read back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.types import Uncertain

_TEXT = h5py.string_dtype()
_CHUNK_ELEMENTS = 65_536


def group_of(parent: h5py.Group, name: str, nx_class: str) -> h5py.Group:
    """A new group of a NeXus class."""
    group = parent.create_group(name)
    group.attrs["NX_class"] = nx_class
    return group


def put_array(group: h5py.Group, name: str, values: NDArray[Any], units: str = "", label: str = "") -> None:
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


def put_units(dataset: h5py.Dataset, units: Iterable[str]) -> None:
    """A unit for each place along the last axis, and along the one before it of a covariance."""
    dataset.attrs["units"] = np.array(list(units), dtype=object)


def put_texts(group: h5py.Group, name: str, values: Iterable[str]) -> None:
    """A list of texts."""
    group.create_dataset(name, data=np.array(list(values), dtype=object), dtype=_TEXT)


def put_uncertain(group: h5py.Group, name: str, quantity: Uncertain, units: str = "") -> None:
    """A value as `name` and its standard uncertainty as `name`_errors."""
    put_array(group, name, np.array(quantity.value, dtype=np.float64), units)
    put_array(group, f"{name}_errors", np.array(quantity.error, dtype=np.float64), units)


def mark_plot(group: h5py.Group, signal: str, axes: list[str], **more: Any) -> None:
    """NXdata attributes; `axes` are dimensions 0, 1, … of the signal."""
    group.attrs["signal"] = signal
    group.attrs["axes"] = np.array(axes, dtype=object)
    for dimension, axis in enumerate(axes):
        group.attrs[f"{axis}_indices"] = dimension
    for name, value in more.items():
        group.attrs[name] = value


def text_in(dataset: h5py.Dataset) -> str:
    """One text."""
    return str(dataset.asstr()[()])


def texts_in(dataset: h5py.Dataset) -> tuple[str, ...]:
    """A list of texts."""
    return tuple(dataset.asstr()[()].tolist())


def uncertain_in(group: h5py.Group, name: str) -> Uncertain:
    """A value with its standard uncertainty, as `put_uncertain` wrote it."""
    return Uncertain(float(group[name][()]), float(group[f"{name}_errors"][()]))
