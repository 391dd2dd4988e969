"""TIFF pages: the few tags a detector image needs, and its pixels (TIFF 6.0, Adobe 1992)."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.types import BadInput

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, DESCRIPTION = 256, 257, 258, 259, 262, 270
STRIP_OFFSETS, SAMPLES, STRIP_BYTES, DATE, SAMPLE_FORMAT = 273, 277, 279, 306, 339
COLOUR_FILTER_ARRAY = 32803
_TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d"}
_KINDS = {1: "u", 2: "i", 3: "f"}


@dataclass(frozen=True)
class Page:
    """One image of a TIFF file: (ny, nx), pixel type as stored, where its strips are, and its texts."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    compressed: bool
    strips: tuple[tuple[int, int], ...]
    description: str
    date: str


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins with `head` is a TIFF of either byte order."""
    return head[:4] in (b"II*\x00", b"MM\x00*")


def read_pages(path: Path) -> list[Page]:
    """All pages of a file. Raises BadInput where a header is cut short or an image is not a grey-scale frame."""
    with path.open("rb") as file:
        head = file.read(8)
        if not is_tiff(head) or len(head) < 8:
            raise BadInput(f"{path}: not a TIFF image, or cut short in its header; copy the file again")
        order = "<" if head[:2] == b"II" else ">"
        offset = struct.unpack(order + "I", head[4:])[0]
        pages: list[Page] = []
        seen: set[int] = set()
        try:
            while offset and offset not in seen:
                seen.add(offset)
                tags, offset = _directory(file, order, offset)
                pages.append(_page(path, tags, order))
        except (struct.error, KeyError, IndexError):
            raise BadInput(f"{path}: the TIFF header is cut short or damaged; copy the file again") from None
    if not pages:
        raise BadInput(f"{path}: the TIFF file holds no image; copy the file again")
    return pages


def is_complete(path: Path) -> bool:
    """Whether the file reaches to the end of its last strip."""
    ends = [offset + length for page in read_pages(path) for offset, length in page.strips]
    return max(ends) <= path.stat().st_size


def _directory(file: Any, order: str, offset: int) -> tuple[dict[int, tuple[Any, ...]], int]:
    """Tags of the directory at `offset`, and where the next directory is (0: none)."""
    size = os.fstat(file.fileno()).st_size
    file.seek(offset)
    (count,) = struct.unpack(order + "H", file.read(2))
    block = file.read(12 * count + 4)
    (following,) = struct.unpack(order + "I", block[12 * count :])
    tags = {}
    for i in range(count):
        tag, kind, length = struct.unpack(order + "HHI", block[12 * i : 12 * i + 8])
        if kind not in _TYPES:
            continue
        form = f"{order}{length}{_TYPES[kind]}"
        value = block[12 * i + 8 : 12 * i + 12]
        if struct.calcsize(form) > size:
            raise struct.error("a tag longer than the file")
        if struct.calcsize(form) > 4:
            file.seek(struct.unpack(order + "I", value)[0])
            value = file.read(struct.calcsize(form))
        tags[tag] = struct.unpack(form, value[: struct.calcsize(form)])
    return tags, following


def _page(path: Path, tags: dict[int, tuple[Any, ...]], order: str) -> Page:
    if tags.get(PHOTOMETRIC, (1,))[0] == COLOUR_FILTER_ARRAY:
        raise BadInput(
            f"{path}: this TIFF says it is a colour image (CFA photometric tag), as ngMultiXRD4343 writes; "
            "convert the files with the beamline's cbftiffmxrdfix script first"
        )
    if tags.get(SAMPLES, (1,))[0] != 1:
        raise BadInput(f"{path}: a colour image, not a detector frame; export it as grey scale")
    kind, bits = _KINDS.get(tags.get(SAMPLE_FORMAT, (1,))[0], "u"), tags[BITS][0]
    if bits not in (8, 16, 32, 64):
        raise BadInput(f"{path}: pixels of {bits} bits are not supported; convert the images to 16 or 32 bits")
    shape = int(tags[HEIGHT][0]), int(tags[WIDTH][0])
    compressed = tags.get(COMPRESSION, (1,))[0] != 1
    if 0 in shape or (not compressed and sum(tags[STRIP_BYTES]) < shape[0] * shape[1] * bits // 8):
        raise BadInput(
            f"{path}: the TIFF header is damaged ({shape} pixels do not fit its strips); copy the file again"
        )
    return Page(
        shape=shape,
        dtype=np.dtype(f"{order}{kind}{bits // 8}"),
        compressed=compressed,
        strips=tuple(zip(tags[STRIP_OFFSETS], tags[STRIP_BYTES], strict=True)),
        description=_text(tags.get(DESCRIPTION)),
        date=_text(tags.get(DATE)),
    )


def _text(value: tuple[Any, ...] | None) -> str:
    return value[0].split(b"\x00")[0].decode("utf-8", "replace") if value else ""


def read_page(path: Path, page: Page, index: int) -> NDArray[Any]:
    """Pixels (ny, nx) in native byte order. Raises OSError where the file ends before its pixels do."""
    if page.compressed:
        return _decompressed(path, index)
    with path.open("rb") as file:
        parts = []
        for offset, length in page.strips:
            file.seek(offset)
            parts.append(file.read(length))
    expected = page.shape[0] * page.shape[1] * page.dtype.itemsize
    data = b"".join(parts)
    if len(data) < expected:
        raise OSError(f"file truncated: {len(data)} of {expected} bytes of pixels")
    image = np.frombuffer(data, page.dtype, count=page.shape[0] * page.shape[1]).reshape(page.shape)
    return image.astype(page.dtype.newbyteorder("="), copy=False)


def _decompressed(path: Path, index: int) -> NDArray[Any]:
    from PIL import Image

    with Image.open(path) as image:
        image.seek(index)
        return np.array(image)
