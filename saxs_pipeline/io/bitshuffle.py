"""Is a bitshuffle chunk whole? The filter reads past the end of a truncated one, which can kill the process.

Layout (bitshuffle's HDF5 filter): bytes of the uncompressed chunk (8, big endian), bytes per block (4), then per block
its compressed size (4) and content; at the end the elements that do not fill a group of eight, as they are.
"""

from __future__ import annotations

import math
import struct

import h5py

FILTER = 32008
HEADER = 12
_COMPRESSED = (2, 3)  # LZ4, Zstandard
_GROUP = 8


def is_bitshuffled(dataset: h5py.Dataset) -> bool:
    """Whether a dataset's only filter is bitshuffle with compressed blocks."""
    plist = dataset.id.get_create_plist()
    if dataset.chunks is None or plist.get_nfilters() != 1:
        return False
    code, _, options, _ = plist.get_filter(0)
    return bool(code == FILTER and len(options) > 4 and options[4] in _COMPRESSED)


def frame_problem(dataset: h5py.Dataset, frame: int) -> str:
    """What is wrong with the stored chunks of one image of a stack (n, ny, nx), "" if nothing."""
    depth, height, width = dataset.chunks
    for row in range(0, dataset.shape[1], height):
        for column in range(0, dataset.shape[2], width):
            at = (frame - frame % depth, row, column)
            stored = dataset.id.get_chunk_info_by_coord(at).byte_offset is not None
            if stored and (problem := chunk_problem(dataset, at)):
                return problem
    return ""


def chunk_problem(dataset: h5py.Dataset, offset: tuple[int, ...]) -> str:
    """What is wrong with the stored chunk at `offset` of a bitshuffled dataset, "" if nothing."""
    skipped, content = dataset.id.read_direct_chunk(offset)
    expected = math.prod(dataset.chunks) * dataset.dtype.itemsize
    if skipped:
        return "" if len(content) == expected else "the chunk has not its full size"
    return content_problem(content, expected, dataset.dtype.itemsize)


def content_problem(content: bytes | memoryview, expected: int, itemsize: int) -> str:
    """What is wrong with the stored bytes of a chunk of `expected` bytes, "" if nothing."""
    if len(content) < HEADER:
        return "the chunk ends within its header"
    size, block = struct.unpack_from(">QI", content)
    if size != expected or block == 0 or block % (_GROUP * itemsize):
        return "the chunk's header does not fit the image"
    whole = _end_of_blocks(content, size, block, itemsize) == len(content)
    return "" if whole else "the chunk is cut off"


def _end_of_blocks(content: bytes | memoryview, size: int, block: int, itemsize: int) -> int:
    """Where the chunk should end according to the sizes of its blocks; beyond its end if it is cut off."""
    left_over = size % (_GROUP * itemsize)
    at = HEADER
    for _ in range(math.ceil((size - left_over) / block)):
        if at + 4 > len(content):
            return len(content) + 1
        at += 4 + int.from_bytes(content[at : at + 4], "big")
    return at + left_over
