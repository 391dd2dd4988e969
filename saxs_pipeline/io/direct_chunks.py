"""Frames read past HDF5: stored bytes from the file, decompressed outside HDF5's lock, so that threads share the work.

For one frame per chunk as it is written at the beamlines: not compressed, bitshuffle (LZ4, Zstandard) or gzip; and for
frames that lie in the file one after the other. Everything else is left to h5py.
"""

from __future__ import annotations

import ctypes
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.io import bitshuffle
from saxs_pipeline.io.hdf5_frames import Stored

Decode = Callable[[memoryview, NDArray[Any]], str]
"""From stored bytes to an image (ny, nx); returns what is wrong with them, "" if nothing."""

NOT_RECORDED = "not_recorded: the frame was never written to the file"


@dataclass(frozen=True)
class DirectReader:
    """Reads frames of one dataset by their places in its file."""

    path: Path
    places: Stored
    decode: Decode

    def read(self, first: int, out: NDArray[Any]) -> list[str]:
        """Frames first … into `out` (n, ny, nx); what is wrong with each, "" if nothing (then the frame is zeros)."""
        file = os.open(self.path, os.O_RDONLY)
        try:
            return [self._one(file, first + k, image) for k, image in enumerate(out)]
        finally:
            os.close(file)

    def _one(self, file: int, frame: int, image: NDArray[Any]) -> str:
        offset, size = int(self.places.offset[frame]), int(self.places.size[frame])
        if offset < 0:
            return NOT_RECORDED
        try:
            return self._stored_at(file, offset, size, image)
        except OSError as error:
            return _fail(image, error.strerror or str(error))

    def _stored_at(self, file: int, offset: int, size: int, image: NDArray[Any]) -> str:
        if self.decode is _copy:
            target = image.data.cast("B")
            return "" if os.preadv(file, [target], offset) == len(target) else _fail(image, "the file ends before it")
        stored = memoryview(bytearray(size))
        if os.preadv(file, [stored], offset) != size:
            return _fail(image, "the file ends before it")
        problem = self.decode(stored, image)
        return _fail(image, problem) if problem else ""


def file_state(path: Path) -> tuple[int, ...]:
    """What changes when a file is written to, or another one takes its place."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _fail(image: NDArray[Any], problem: str) -> str:
    image[:] = 0
    return f"unreadable: {problem}"


def reader(path: Path, dataset: h5py.Dataset, places: Stored) -> DirectReader | None:
    """A reader of the dataset's frames, None where h5py must do it."""
    placed = places.chunked or not (places.offset < 0).any()  # very small datasets lie in the file's own headers
    ordinary = dataset.dtype.isnative and not dataset.is_virtual and not dataset.file.userblock_size
    decode = _decoder(dataset) if placed and ordinary and places.plain else None
    return None if decode is None else DirectReader(path, places, decode)


def _decoder(dataset: h5py.Dataset) -> Decode | None:
    if dataset.ndim != 3 or dataset.external or dataset.chunks not in (None, (1, *dataset.shape[1:])):
        return None
    settings = dataset.id.get_create_plist()
    filters = [settings.get_filter(k) for k in range(settings.get_nfilters())]
    if not filters:
        return _copy
    if [code for code, *_ in filters] == [h5py.h5z.FILTER_DEFLATE]:
        return _inflate
    if bitshuffle.is_bitshuffled(dataset):
        function = _library_function(_BITSHUFFLE[filters[0][2][4]])
        return None if function is None else _Unshuffle(function)
    return None


def _copy(stored: memoryview, image: NDArray[Any]) -> str:
    image.data.cast("B")[:] = stored
    return ""


def _inflate(stored: memoryview, image: NDArray[Any]) -> str:
    try:
        content = zlib.decompress(stored, bufsize=image.nbytes)
    except zlib.error as error:
        return f"its compressed bytes are damaged ({error})"
    if len(content) != image.nbytes:
        return "its bytes do not fill the image"
    return _copy(memoryview(content), image)


_BITSHUFFLE = {2: "bshuf_decompress_lz4", 3: "bshuf_decompress_zstd"}
"""Functions of hdf5plugin's library by the filter's code of the compression."""


@cache
def _library_function(name: str) -> Any:
    """A function of the bitshuffle library that hdf5plugin brings; None where it does not show it."""
    import hdf5plugin

    for file in Path(hdf5plugin.PLUGINS_PATH).glob("*h5bshuf*"):
        try:
            function = getattr(ctypes.CDLL(str(file)), name)
        except (OSError, AttributeError):
            continue
        function.restype = ctypes.c_int64
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_size_t] * 3]
        return function
    return None


@dataclass(frozen=True)
class _Unshuffle:
    """bitshuffle's own decompression; called so, Python's lock is free meanwhile."""

    function: Any

    def __call__(self, stored: memoryview, image: NDArray[Any]) -> str:
        problem = bitshuffle.content_problem(stored, image.nbytes, image.itemsize)
        if problem:
            return problem
        content = np.frombuffer(stored, np.uint8)
        block = int.from_bytes(stored[8:12], "big") // image.itemsize
        header = bitshuffle.HEADER
        used = self.function(content.ctypes.data + header, image.ctypes.data, image.size, image.itemsize, block)
        return "" if used == len(stored) - header else f"its compressed bytes are damaged (bitshuffle says {used})"
