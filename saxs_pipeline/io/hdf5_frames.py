"""Single frames of an image dataset that may still grow: whether they are on disk, and what tells them apart."""

from __future__ import annotations

import math
import os
import threading
import zlib
from collections import OrderedDict
from io import RawIOBase
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from saxs_pipeline.io import hdf5_layout
from saxs_pipeline.types import BadInput, Bools, Floats, Ints

_BLOCKS, _BLOCK = 8, 1024
"""A frame in chunks is told from others by this many blocks of its stored bytes, of this size each."""

_MOST_MARKS = 100_000
"""Fingerprints kept from look to look."""


class Stored(NamedTuple):
    """Where the frames' bytes are in the file: offset and size, −1 where there are none; complete; all (n,).

    chunked: frames have chunks, which enter the file one by one; plain: all have gone through the dataset's filters.
    """

    offset: Ints
    size: Ints
    complete: Bools
    chunked: bool
    plain: bool


class Found(NamedTuple):
    """Frames that are complete, and those whose bytes will not change any more, unless recorded again; all (n,).

    sure: False where only what is stored, unchanged at a second look, tells that a frame is complete.
    """

    complete: Bools
    final: Bools
    sure: Bools


def stored(dataset: h5py.Dataset) -> Stored:
    """Places of all frames of a dataset.

    A chunk enters the index after its bytes, unless all were allocated early: see `found`. Frames of a dataset without
    chunks have a place once there is space for any. Virtual and very small datasets have none: all count as complete.
    """
    n = _length(dataset)
    offset, size = np.full(n, -1), np.full(n, -1)
    if dataset.chunks is None or dataset.ndim != 3:
        start = None if dataset.is_virtual else dataset.id.get_offset()
        if start is not None:
            size[:] = math.prod(dataset.shape[-2:]) * dataset.dtype.itemsize
            offset[:] = start + size * np.arange(n)
        there = dataset.is_virtual or dataset.id.get_space_status() == h5py.h5d.SPACE_STATUS_ALLOCATED
        return Stored(offset, size, np.full(n, there), chunked=False, plain=True)
    deep = dataset.chunks[0]
    pieces = math.prod(-(-length // chunk) for length, chunk in zip(dataset.shape[1:], dataset.chunks[1:], strict=True))
    count = np.zeros(n, dtype=np.int64)
    skipped: set[int] = set()

    def note(chunk: Any) -> None:
        frames = slice(chunk.chunk_offset[0], chunk.chunk_offset[0] + deep)
        count[frames] += 1
        skipped.add(chunk.filter_mask)
        offset[frames], size[frames] = chunk.byte_offset, chunk.size

    dataset.id.chunk_iter(note)
    return Stored(offset, size, count == pieces, chunked=True, plain=not any(skipped))


def _length(dataset: h5py.Dataset) -> int:
    return int(dataset.shape[0]) if dataset.ndim == 3 else 1


def found(path: Path, dataset: h5py.Dataset, places: Stored) -> Found:
    """Frames of a dataset that are on disk: their bytes, and their `time_of_frame` where the file records it.

    Bytes that are not filtered may be there before they are written. Then a frame in chunks needs a byte other than
    zero in it or in a later one, or a time; one without chunks, of which the end may be missing, a later one or a time.
    The last of those in chunks, without a time, is not sure: its end may be missing, too.
    """
    number, none = np.arange(len(places.offset)), np.zeros(len(places.offset), dtype=np.bool_)
    recorded, possible = _timed(dataset, len(number))
    if dataset.is_virtual:
        return Found(_of_sources(dataset) & possible, none, sure=none)
    if not places.chunked and (places.offset < 0).any():
        return Found(places.complete & possible, none, sure=~none & ~places.complete.any())
    single = places.complete if places.chunked and dataset.chunks[0] == 1 else none
    if dataset.id.get_create_plist().get_nfilters():
        return Found(places.complete & possible, single, sure=~none)
    last = _last_begun(path, places, after=int(max(number[recorded], default=-1)))
    there = places.complete & ((number <= last) if places.chunked else (number < last) | recorded)
    return Found(there & possible, single & (number < last), sure=(number != last) | recorded)


def _last_begun(path: Path, places: Stored, after: int = -1) -> int:
    """The last frame with a byte other than zero; `after` where no later one has."""
    with path.open("rb", buffering=0) as file:
        later = (k for k in range(len(places.offset) - 1, after, -1) if places.complete[k])
        return next((k for k in later if _sample(file, places, k).strip(b"\0")), after)


def _timed(dataset: h5py.Dataset, n: int) -> tuple[Bools, Bools]:
    """Frames whose `time_of_frame` is recorded, and those of which it may be, (n,); none and all without such times.

    Times that are not recorded are zero, which may as well be the time of the first frame.
    """
    node = hdf5_layout.beside(dataset, "time_of_frame")
    recorded: Bools = np.zeros(n, dtype=np.bool_)
    if not isinstance(node, h5py.Dataset):
        return recorded, np.full(n, True)
    times: Floats = np.asarray(node[()], float).reshape(-1)[:n]
    recorded[: len(times)] = np.isfinite(times) & (times != 0)
    possible = recorded.copy()
    possible[:1] |= times[:1] == 0 if len(times) else False
    return recorded, possible


def _of_sources(dataset: h5py.Dataset) -> Bools:
    """Frames of a virtual dataset of which no part is known to be missing in its files."""
    complete = np.full(_length(dataset), True)
    for source in dataset.virtual_sources():
        here, there = _selected(source.vspace, len(complete)), _selected(source.src_space, len(complete))
        here = here[here < len(complete)]
        begun = _of_source(hdf5_layout.source_path(dataset, source.file_name), source.dset_name)
        if begun is not None and len(here) <= len(there):  # else not frame by frame: it cannot be followed
            complete[here] &= np.isin(there[: len(here)], np.flatnonzero(begun))
    return complete


def _selected(space: h5py.h5s.SpaceID, most: int) -> Ints:
    """Frames of a selection in their order, at most so many or a few more; an image is frame 0, alone."""
    if space.get_select_type() == h5py.h5s.SEL_ALL:
        return np.arange(most)
    if space.get_simple_extent_ndims() != 3 or not space.is_regular_hyperslab():
        return np.arange(1 if space.get_simple_extent_ndims() == 2 else 0)
    start, stride, count, block = (min(int(edge[0]), 2**62) for edge in space.get_regular_hyperslab())
    steps = np.arange(min(count, most)) * stride
    frames: Ints = (start + steps[:, None] + np.arange(min(block, most))).ravel()
    return frames


def _of_source(path: Path, name: str) -> Bools | None:
    """Frames of a virtual dataset's source that have begun; None where it is virtual itself."""
    try:
        with hdf5_layout.reading(path) as root:
            dataset = root[name]
            if dataset.is_virtual:
                return None
            places = stored(dataset)
            if (places.offset < 0).all() or dataset.id.get_create_plist().get_nfilters():
                return places.complete
            return places.complete & (np.arange(len(places.offset)) <= _last_begun(path, places))
    except BadInput:
        return np.zeros(0, dtype=np.bool_)


class _Marks:
    """Fingerprints of places in files, the latest used ones."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str | int, ...], str] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str | int, ...]) -> str | None:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def keep(self, key: tuple[str | int, ...], mark: str) -> None:
        with self._lock:
            self._known[key] = mark
            if len(self._known) > _MOST_MARKS:
                self._known.popitem(last=False)


_marks = _Marks()


def fingerprints(path: Path, places: Stored, final: Bools | None = None) -> list[str]:
    """Of each frame: size and a checksum of its stored bytes; "" where they have no place of their own.

    In chunks samples of the bytes do, as a frame is written as a whole. Those of `final` frames (n,) are taken from an
    earlier call in this process while they are in the same place: a frame recorded again there is not noticed.
    """
    marks = []
    with path.open("rb", buffering=0) as file:
        state = os.fstat(file.fileno())
        for k, (offset, size) in enumerate(zip(places.offset.tolist(), places.size.tolist(), strict=True)):
            key = (str(path), state.st_dev, state.st_ino, offset, size)
            keep = final is not None and places.chunked and bool(final[k])
            mark = _marks.get(key) if keep else None
            if mark is None:
                mark = (
                    f"{size}:{zlib.crc32(_sample(file, places, k, whole=not places.chunked)):08x}" if size >= 0 else ""
                )
                if keep:
                    _marks.keep(key, mark)
            marks.append(mark)
    return marks


def _sample(file: RawIOBase, places: Stored, frame: int, *, whole: bool = False) -> bytes:
    start, size = int(places.offset[frame]), int(places.size[frame])
    whole = whole or size <= _BLOCKS * _BLOCK
    step = 0 if whole else (size - _BLOCK) // (_BLOCKS - 1)
    found = b""
    for k in range(1 if whole else _BLOCKS):
        file.seek(start + k * step)
        found += file.read(size if whole else _BLOCK) or b""
    return found
