"""Where things are in NeXus and LImA HDF5 files: found by NX_class and by shape, never by a group's name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  registers bitshuffle-LZ4 and the other filters with HDF5
import numpy as np

from saxs_pipeline.fields import natural_key
from saxs_pipeline.types import BadInput

_SERIES = re.compile(r"^data_\d+$")
_FAULTS = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError)


class DamagedFile(BadInput):
    """The file is not readable as HDF5: cut short, overwritten, or something else under this name."""


def open_hdf5(path: Path) -> h5py.File:
    """Open for reading without a lock, so that a file still being written opens too.

    Raises DamagedFile with the reason where the file is not HDF5 or is cut short.
    """
    try:
        try:
            return h5py.File(path, "r", locking=False)
        except OSError as error:
            if "open for write" not in str(error):
                raise
            return h5py.File(path, "r", swmr=True, locking=False)  # a writer in SWMR mode
    except OSError as error:
        reason = re.sub(r"^Unable to synchronously open file \((.*)\)$", r"\1", str(error))
        raise DamagedFile(f"{path}: cannot be opened as HDF5 ({reason}); check that it was copied completely") from None


@contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """The open file for a `with` block; any fault of HDF5 inside the block becomes DamagedFile."""
    with open_hdf5(path) as root, faults(path):
        yield root


@contextmanager
def faults(path: Path) -> Iterator[None]:
    """Any fault of HDF5 inside the block becomes DamagedFile."""
    try:
        yield
    except BadInput:
        raise
    except _FAULTS as error:  # what h5py raises depends on where the damage is
        reason = " ".join(str(error).split())
        raise DamagedFile(f"{path}: the HDF5 file is damaged ({reason}); copy it again") from None


def text(value: Any) -> str:
    """A scalar dataset's or attribute's value as text; arrays of one element count as scalars."""
    array = np.asarray(value)
    item = array.reshape(-1)[0] if array.size == 1 else value
    return item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)


def nx_class(node: Any) -> str:
    """The NX_class attribute, "" if there is none."""
    return text(node.attrs.get("NX_class", "")) if isinstance(node, h5py.Group) else ""


def children(group: h5py.Group) -> Iterator[tuple[str, Any]]:
    """Members in natural order of their names; links that lead nowhere are left out."""
    for name in sorted(group, key=natural_key):
        node = group.get(name)
        if node is not None:
            yield name, node


def walk(group: h5py.Group) -> Iterator[Any]:
    """All nodes below `group`, outer before inner; a group that several links lead to is walked once."""
    return _walk(group, {_identity(group)})


def _walk(group: h5py.Group, seen: set[tuple[Any, int]]) -> Iterator[Any]:
    for _, node in children(group):
        yield node
        if isinstance(node, h5py.Group) and _identity(node) not in seen:
            seen.add(_identity(node))
            yield from _walk(node, seen)


def _identity(node: Any) -> tuple[Any, int]:
    info = h5py.h5o.get_info(node.id)
    return info.fileno, info.addr


def groups(group: h5py.Group, wanted: str) -> list[h5py.Group]:
    """All groups of an NX_class below `group`, each once."""
    found = {_identity(node): node for node in walk(group) if nx_class(node) == wanted}
    return list(found.values())


def has_members(node: Any, names: tuple[str, ...]) -> bool:
    """Whether a node is a group with datasets of all these names."""
    return isinstance(node, h5py.Group) and all(isinstance(node.get(name), h5py.Dataset) for name in names)


def beside(dataset: h5py.Dataset, name: str) -> Any:
    """The node `name` next to a dataset or one level above it, None if there is none."""
    found = dataset.parent.get(name)
    return dataset.parent.parent.get(name) if found is None else found


def entry_text(entry: h5py.Group, name: str) -> str:
    """A text of an entry, such as its start_time; "" where it is not (yet) there."""
    node = entry.get(name)
    return text(node[()]).strip() if isinstance(node, h5py.Dataset) and node.size == 1 else ""


def entries(root: h5py.File) -> list[h5py.Group]:
    """The NXentry groups in natural order, or the root itself where a file has none."""
    found = [node for _, node in children(root) if nx_class(node) == "NXentry"]
    return found or [root]


def is_images(node: Any, dimensions: tuple[int, ...] = (3,)) -> bool:
    """Whether a node is a numeric dataset of the given number of dimensions with pixels in it."""
    return (
        isinstance(node, h5py.Dataset)
        and node.ndim in dimensions
        and node.dtype.kind in "uif"
        and all(n > 1 for n in node.shape[-2:])
    )


def signal(group: h5py.Group) -> Any:
    """The signal of an NXdata group (new or old style), None if it has none."""
    name = text(group.attrs.get("signal", ""))
    if name in group:
        return group.get(name)
    marked = [node for _, node in children(group) if "signal" in node.attrs]
    return marked[0] if marked else None


def _of_detector(detector: h5py.Group) -> list[h5py.Dataset]:
    data = detector.get("data")
    if isinstance(data, h5py.Group):
        data = signal(data)
    if is_images(data, (2, 3)):
        return [data]
    return [node for _, node in children(detector) if is_images(node)][:1]


def _of_data(data: h5py.Group) -> list[h5py.Dataset]:
    """Images of an NXdata group: a numbered series (Eiger master files, by external links), the signal, or a stack."""
    series = [name for name in sorted(data, key=natural_key) if _SERIES.match(name)]
    if series:
        missing = [name for name in series if data.get(name) is None]
        if missing:
            link = data.get(missing[0], getlink=True)
            raise BadInput(
                f"{data.file.filename}: {data.name}/{missing[0]} points to {getattr(link, 'filename', 'a dataset')}, "
                "which is missing or damaged; put the data files beside their master file"
            )
        return [data[name] for name in series if is_images(data[name])]
    found = signal(data)
    return [found] if is_images(found) else [node for _, node in children(data) if is_images(node)]


def _candidates(entry: h5py.Group) -> list[list[h5py.Dataset]]:
    """Image stacks of one entry, from the best place that has any, each once however many links lead to it."""
    places: tuple[Callable[[], list[list[h5py.Dataset]]], ...] = (
        lambda: [_of_detector(group) for group in groups(entry, "NXdetector")],
        lambda: [_of_data(group) for group in groups(entry, "NXdata")],
        lambda: [[node] for node in walk(entry) if is_images(node)],
    )
    for place in places:
        unique: dict[tuple[Any, ...], list[h5py.Dataset]] = {}
        for stack in place():
            unique.setdefault(tuple(_identity(node) for node in stack), stack)
        unique.pop((), None)
        if unique:
            stacks = list(unique.values())  # a 2-D dataset beside stacks is the spectra of some counter
            return [stack for stack in stacks if stack[0].ndim == 3] or stacks
    return []


def _chosen(path: Path, stacks: list[list[h5py.Dataset]], detector: str | None) -> list[h5py.Dataset]:
    """The stack of the detector; where there is only one there is nothing to choose."""
    if len(stacks) < 2:
        return stacks[0] if stacks else []
    wanted = [stack for stack in stacks if detector is None or detector in _names(stack[0])]
    if len(wanted) != 1:
        said = ", ".join(str(stack[0].name) for stack in stacks[:4])
        what = "holds several image stacks" if wanted else f"has no image stack of a detector {detector!r}"
        raise BadInput(f"{path}: {what} (found {said}); choose one with data.detector")
    return wanted[0]


def _names(dataset: h5py.Dataset) -> set[str]:
    """Names by which a user may call the detector of a dataset: its path's parts and the recorded name and model."""
    names = set(str(dataset.name).strip("/").split("/"))
    information = beside(dataset, "detector_information")
    if isinstance(information, h5py.Group):
        names |= {text(information[key][()]) for key in ("name", "model") if key in information}
    return names


def image_stacks(path: Path, root: h5py.File, detector: str | None) -> list[tuple[h5py.Group, h5py.Dataset]]:
    """The image datasets of a file in recording order, each with its entry.

    Raises BadInput where there is none, or where an entry has several and `detector` does not choose one.
    """
    found = [(entry, dataset) for entry in entries(root) for dataset in _chosen(path, _candidates(entry), detector)]
    if not found:
        raise BadInput(f"{path}: {_nothing_found(root)}")
    for _, dataset in found:
        _check_filters(path, dataset)
        _check_sources(path, dataset)
    return found


def _nothing_found(root: h5py.File) -> str:
    names: list[str] = []
    root.visit(names.append)
    leaves = {name.rsplit("/", 1)[-1] for name in names}
    if "HS32C" in leaves:
        return "a scalers file, not images; give it as data.scalers"
    if leaves & {"result_ave", "saxsutilities"}:
        return "integrated curves, not images; give it under data.curves"
    return "no image stack (a 3-D dataset in an NXdetector or NXdata group) found in this HDF5 file"


def _check_filters(path: Path, dataset: h5py.Dataset) -> None:
    properties = dataset.id.get_create_plist()
    for i in range(properties.get_nfilters()):
        code, _, _, name = properties.get_filter(i)
        if not h5py.h5z.filter_avail(code):
            raise BadInput(f"{path}: compressed with HDF5 filter {code} ({text(name)}), which is not installed here")


def source_path(dataset: h5py.Dataset, name: str) -> Path:
    """The file of a virtual dataset's source; "." is the dataset's own."""
    own = Path(dataset.file.filename)
    return own if name == "." else own.parent / name


def source_files(dataset: h5py.Dataset) -> tuple[Path, ...]:
    """The files that a virtual dataset's sources are in, each once; () of any other dataset."""
    if not dataset.is_virtual:
        return ()
    return tuple(dict.fromkeys(source_path(dataset, source.file_name) for source in dataset.virtual_sources()))


def _check_sources(path: Path, dataset: h5py.Dataset) -> None:
    """A virtual dataset reads as zeros where one of its files is missing: refuse it instead."""
    for file in source_files(dataset):
        if not file.exists():
            raise BadInput(f"{path}: its data are in {file}, which is missing; put it beside this file")


def header_keys(entry: h5py.Group, dataset: h5py.Dataset) -> dict[str, str]:
    """Header of an image dataset as text, {} if there is none.

    LImA keeps it in `header` beside the data; older files in an NXcollection of the entry, in the detector's
    `parameters` or `data/header`; NXmx files have the fields in the detector and the beam themselves.
    """
    group = beside(dataset, "header")
    if isinstance(group, h5py.Group):
        return _texts(group)
    for collection in groups(entry, "NXcollection"):
        for name, detector in children(collection):
            if isinstance(detector, h5py.Group) and (nx_class(detector) == "NXdetector" or name == "detector"):
                for key in ("parameters", "data/header"):
                    if isinstance(detector.get(key), h5py.Group):
                        return _texts(detector[key])
    keys: dict[str, str] = {}
    for kind in ("NXbeam", "NXdetector"):
        for group in groups(entry, kind):
            keys |= _texts(group)
    return keys


def _texts(group: h5py.Group) -> dict[str, str]:
    return {name: text(node[()]) for name, node in children(group) if isinstance(node, h5py.Dataset) and node.size == 1}


def read_dataset(path: Path, name: str) -> np.ndarray[Any, Any]:
    """A 2-D dataset by its path inside the file, or the only one / the signal if `name` is "".

    A stack of one image counts as 2-D. Raises BadInput where there is none, or several.
    """
    with reading(path) as root:
        if name:
            node = root.get(name)
            if not isinstance(node, h5py.Dataset):
                raise BadInput(f"{path}: has no dataset {name}")
            found = [node]
        else:
            found = _two_dimensional(root)
        if len(found) != 1:
            said = ", ".join(str(node.name) for node in found[:4]) or "none"
            raise BadInput(f"{path}: one 2-D dataset is needed, found {said}; write FILE::/path/of/dataset")
        image = np.asarray(found[0][()])
    return image[0] if image.ndim == 3 and image.shape[0] == 1 else image


def _two_dimensional(root: h5py.File) -> list[h5py.Dataset]:
    signals = [signal(group) for group in groups(root, "NXdata")]
    for place in (signals, list(walk(root))):
        flat = {
            _identity(node): node
            for node in place
            if (is_images(node, (2,)) or (is_images(node) and node.shape[0] == 1))
            or (isinstance(node, h5py.Dataset) and node.ndim == 2 and node.dtype.kind == "b")
        }
        if flat:
            return list(flat.values())
    return []
