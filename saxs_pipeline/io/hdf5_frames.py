"""Single frames of an image dataset that may still grow: whether they are on disk, and what tells them apart."""

from __future__ import annotations

import math
import zlib
from io import RawIOBase
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from saxs_pipeline.io import hdf5_layout
from saxs_pipeline.types import Bools, Ints

_BLOCKS, _BLOCK = 8, 1024
"""A frame is told from others by this many blocks of its stored bytes, of this size each."""


class Stored(NamedTuple):
    """Where the frames' bytes are in the file: offset and size, −1 where there are none; complete; all (n,)."""

    offset: Ints
    size: Ints
    complete: Bools


def stored(dataset: h5py.Dataset) -> Stored:
    """Places of all frames of a dataset.

    A chunk enters the index after its bytes, so what has a place is complete. Frames of a dataset without chunks have
    a place from the start: see `begun`. Virtual datasets have none of their own: all count as complete.
    """
    n = dataset.shape[0] if dataset.ndim == 3 else 1
    offset, size = np.full(n, -1), np.full(n, -1)
    if dataset.chunks is None or dataset.ndim != 3:
        start = dataset.id.get_offset()
        if start is not None and not dataset.is_virtual:
            size[:] = math.prod(dataset.shape[-2:]) * dataset.dtype.itemsize
            offset[:] = start + size * np.arange(n)
        return Stored(offset, size, np.full(n, True))
    deep = dataset.chunks[0]
    pieces = math.prod(-(-length // chunk) for length, chunk in zip(dataset.shape[1:], dataset.chunks[1:], strict=True))
    found = np.zeros(n, dtype=np.int64)

    def note(chunk: Any) -> None:
        frames = slice(chunk.chunk_offset[0], chunk.chunk_offset[0] + deep)
        found[frames] += 1
        offset[frames], size[frames] = chunk.byte_offset, chunk.size

    dataset.id.chunk_iter(note)
    return Stored(offset, size, found == pieces)


def begun(path: Path, places: Stored) -> Bools:
    """Frames of a dataset without chunks that are there: one is once it or a later one has a byte other than zero."""
    with path.open("rb", buffering=0) as file:
        last = next((k for k in range(len(places.offset))[::-1] if _sample(file, places, k).strip(b"\0")), -1)
    return np.arange(len(places.offset)) <= last


def timed(dataset: h5py.Dataset, n: int) -> Bools:
    """Frames whose `time_of_frame` is recorded, (n,); all where a file has none."""
    node = hdf5_layout.beside(dataset, "time_of_frame")
    if not isinstance(node, h5py.Dataset):
        return np.full(n, True)
    times = np.asarray(node[()], float).reshape(-1)[:n]
    known: Bools = np.zeros(n, dtype=np.bool_)
    known[: len(times)] = np.isfinite(times) & (times != 0)
    if len(times) and times[0] == 0:  # the first frame may well start at zero
        known[0] = True
    return known


def fingerprints(path: Path, places: Stored) -> list[str]:
    """Of each frame: size and a checksum of samples of its stored bytes; "" where they have no place of their own."""
    with path.open("rb", buffering=0) as file:
        return [
            f"{size}:{zlib.crc32(_sample(file, places, k)):08x}" if size >= 0 else ""
            for k, size in enumerate(places.size.tolist())
        ]


def _sample(file: RawIOBase, places: Stored, frame: int) -> bytes:
    start, size = int(places.offset[frame]), int(places.size[frame])
    whole = size <= _BLOCKS * _BLOCK
    step = 0 if whole else (size - _BLOCK) // (_BLOCKS - 1)
    found = b""
    for k in range(1 if whole else _BLOCKS):
        file.seek(start + k * step)
        found += file.read(size if whole else _BLOCK) or b""
    return found
