"""The image file formats with one or a few frames per file: what their headers say and how to get their pixels.

Each format is one `FileFormat`; `fabio_source` makes a frame source of a sequence of such files.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.io import headers, marccd, tiff
from saxs_pipeline.types import BadInput, FrameTimes, SourceInfo

Header = Mapping[str, str]
Loader = Callable[[int], NDArray[Any]]

_CBF_STARTER = b"\x0c\x1a\x04\xd5"
_CBF_HEADER_LIMIT = 1 << 20
_CBF_TYPES = {f"{sign}signed {bits}-bit integer": f"{'u' * bool(sign)}int{bits}" for sign in ("", "un")
              for bits in (8, 16, 32, 64)}  # fmt: skip


@dataclass(frozen=True)
class FileContent:
    """Frames of one file: (ny, nx), native pixel type, and the header of each frame."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    frames: tuple[Header, ...]


@dataclass(frozen=True)
class FileFormat:
    """A format: `content` reads the headers of a file, `loading` opens it and gives a loader of frame k, (ny, nx).

    `facts` adds to a source's description what the headers of all its frames (None: unreadable file) tell.
    """

    kind: str
    content: Callable[[Path], FileContent]
    loading: Callable[[Path], AbstractContextManager[Loader]]
    facts: Callable[[SourceInfo, Sequence[Header | None]], SourceInfo]


# --- EDF ---------------------------------------------------------------------------------------------------------


def _edf_images(edf: Any) -> list[int]:
    """Numbers of the blocks that hold data; an error block ("1.Image.Error") may follow each."""
    blocks = [{key.lower(): value for key, value in edf.get_frame(i).header.items()} for i in range(edf.nframes)]
    return [i for i, keys in enumerate(blocks) if "error" not in keys.get("edf_datablockid", "").lower()]


def edf_content(path: Path) -> FileContent:
    """Headers of an EDF file. Raises BadInput if they are damaged or the blocks differ in shape."""
    from fabio.edfimage import EdfImage

    try:
        with EdfImage().read(str(path)) as edf:
            frames = [edf.get_frame(i) for i in _edf_images(edf)]
            kinds = {(tuple(frame.shape), np.dtype(frame.dtype).newbyteorder("=")) for frame in frames}
            keys = tuple({str(k): str(v) for k, v in frame.header.items()} for frame in frames)
    except Exception as error:  # fabio raises a wide family of errors for damaged headers
        raise BadInput(f"{path}: the EDF header is cut short or damaged ({error}); copy the file again") from None
    if len(kinds) != 1:
        raise BadInput(f"{path}: the blocks of this EDF file differ in size or pixel type; give one kind of image")
    shape, dtype = kinds.pop()
    if len(shape) != 2:
        raise BadInput(f"{path}: this EDF file has {len(shape)}-dimensional data, not images")
    return FileContent((int(shape[0]), int(shape[1])), dtype, keys)


@contextmanager
def edf_loading(path: Path) -> Iterator[Loader]:
    """Open an EDF file; a block cut short raises OSError (fabio would fill it with zeros)."""
    from fabio.edfimage import EdfImage

    with EdfImage().read(str(path)) as edf:
        images = _edf_images(edf)

        def load(index: int) -> NDArray[Any]:
            frame = edf.get_frame(images[index])
            if frame.incomplete_data:
                raise OSError("file truncated: the data block is shorter than its header says")
            return np.asarray(frame.data)

        yield load


def saxs_facts(info: SourceInfo, frames: Sequence[Header | None]) -> SourceInfo:
    """Geometry, dummy, monitors (Intensity0/1) and times (HMDeltaTime, ExposureTime) of ESRF SAXS headers."""
    geometry, warnings = headers.saxs_geometry(info.header, info.shape)
    dummy, delta = headers.saxs_dummy(info.header)
    columns = {name: headers.column(frames, key) for name, key in (("I0", "Intensity0"), ("I1", "Intensity1"))}
    start, exposure = headers.column(frames, "HMDeltaTime"), headers.column(frames, "ExposureTime")
    times = FrameTimes(start, exposure, "header") if start is not None and exposure is not None else None
    return replace(
        info,
        geometry=geometry,
        dummy=dummy,
        delta_dummy=delta,
        times=times,
        monitors={name: values for name, values in columns.items() if values is not None},
        warnings=info.warnings + warnings,
    )


# --- CBF ---------------------------------------------------------------------------------------------------------


def _cbf_header(path: Path) -> tuple[dict[str, str], int]:
    """Keys of a CBF file and where its compressed pixels begin."""
    with path.open("rb") as file:
        block = file.read(8192)
        while _CBF_STARTER not in block and len(block) < _CBF_HEADER_LIMIT and (more := file.read(65536)):
            block += more
    if not block.startswith(b"###CBF"):
        raise BadInput(cbf_without_magic(path))
    start = block.find(_CBF_STARTER)
    if start < 0:
        raise BadInput(f"{path}: the CBF header is cut short; copy the file again")
    text = block[:start].decode("latin-1")
    keys = headers.dectris_keys(text)
    keys |= {key: value.strip(' "\r') for key, value in re.findall(r"^(X-Binary-[\w-]+|Content-MD5):(.*)$", text, re.M)}
    keys["conversions"] = (re.findall(r'conversions="([^"]+)"', text) or [""])[0]
    return keys, start + len(_CBF_STARTER)


def cbf_without_magic(path: Path) -> str:
    """The report on a CBF file that lacks its first line."""
    return (
        f"{path}: a CBF file without its ###CBF line, as ngMultiXRD4343 before 0.8.4 wrote (its pixels can be wrong "
        "too); convert the files with the beamline's cbftiffmxrdfix script first"
    )


def _cbf_layout(path: Path, keys: Header) -> tuple[tuple[int, int], np.dtype[Any]]:
    try:
        fast, slow = (int(keys[f"X-Binary-Size-{axis}-Dimension"]) for axis in ("Fastest", "Second"))
        dtype = np.dtype(_CBF_TYPES[keys["X-Binary-Element-Type"]])
        if keys["conversions"] != "x-CBF_BYTE_OFFSET":
            raise KeyError
        return (slow, fast), dtype
    except (KeyError, ValueError):
        raise BadInput(f"{path}: the CBF header lacks the size, pixel type or byte-offset compression") from None


def cbf_content(path: Path) -> FileContent:
    """Header of a CBF file. Raises BadInput if it is damaged or of the faulty ngMultiXRD4343 kind."""
    keys, _ = _cbf_header(path)
    shape, dtype = _cbf_layout(path, keys)
    return FileContent(shape, dtype, (keys,))


@contextmanager
def cbf_loading(path: Path) -> Iterator[Loader]:
    """Open a CBF file; missing bytes or a wrong checksum raise OSError (fabio only logs them)."""
    from fabio.compression import decByteOffset

    keys, start = _cbf_header(path)
    shape, dtype = _cbf_layout(path, keys)

    def load(_: int) -> NDArray[Any]:
        with path.open("rb") as file:
            file.seek(start)
            packed = file.read(int(keys["X-Binary-Size"]))
        if len(packed) < int(keys["X-Binary-Size"]):
            raise OSError(f"file truncated: {len(packed)} of {keys['X-Binary-Size']} bytes of pixels")
        digest = base64.b64encode(hashlib.md5(packed, usedforsecurity=False).digest()).decode()
        if keys.get("Content-MD5", digest) != digest:
            raise OSError("the checksum of the pixels is wrong")
        return np.asarray(decByteOffset(packed, size=shape[0] * shape[1], dtype=dtype)).reshape(shape)

    yield load


# --- TIFF and MarCCD ---------------------------------------------------------------------------------------------


def tiff_content(path: Path) -> FileContent:
    """Pages of a TIFF file. Raises BadInput for damaged or colour images and for pages of several kinds."""
    pages = tiff.read_pages(path)
    kinds = {(page.shape, page.dtype.newbyteorder("=")) for page in pages}
    if len(kinds) != 1:
        raise BadInput(f"{path}: the pages of this TIFF file differ in size or pixel type; give one kind of image")
    shape, dtype = kinds.pop()
    dates = ({"Date": page.date} if page.date else {} for page in pages)
    return FileContent(
        shape, dtype, tuple(headers.dectris_keys(p.description) | d for p, d in zip(pages, dates, strict=True))
    )


@contextmanager
def tiff_loading(path: Path) -> Iterator[Loader]:
    """Open a TIFF file."""
    pages = tiff.read_pages(path)
    yield lambda index: tiff.read_page(path, pages[index], index)


def dectris_facts(info: SourceInfo, frames: Sequence[Header | None]) -> SourceInfo:
    """Geometry, times and saturation of Dectris comments; negative pixels of a Pilatus (gaps −1, dead −2) are dummy."""
    geometry, warnings = headers.dectris_geometry(info.header, info.shape)
    dates = [None if header is None else headers.parse_date(header.get("Date", "")) for header in frames]
    exposure = headers.column(frames, "Exposure_time")
    times, more = headers.times_from_dates(dates, exposure, f"{info.kind} header")
    pilatus = "Count_cutoff" in info.header and info.dtype.kind == "i"
    return replace(
        info,
        geometry=geometry,
        times=times,
        saturation=headers.number(info.header, "Count_cutoff"),
        dummy=-2.0 if pilatus else None,
        delta_dummy=1.0 if pilatus else 0.0,
        warnings=info.warnings + warnings + more,
    )


def marccd_content(path: Path) -> FileContent:
    """Header of a MarCCD file. Raises BadInput if it is damaged."""
    keys = marccd.read_header(path)
    return FileContent((int(keys["nslow"]), int(keys["nfast"])), marccd.pixel_type(keys), (keys,))


@contextmanager
def marccd_loading(path: Path) -> Iterator[Loader]:
    """Open a MarCCD file."""
    keys = marccd.read_header(path)
    yield lambda _: marccd.read_pixels(path, keys)


def marccd_facts(info: SourceInfo, frames: Sequence[Header | None]) -> SourceInfo:
    """Geometry, times, pedestal (mean bias, ADU) and saturation (ADU) of MarCCD headers."""
    geometry, warnings = marccd.geometry(info.header)
    times, more = marccd.times(frames)
    bias, saturated = (headers.number(info.header, key) or 0.0 for key in ("mean_bias", "saturated_value"))
    return replace(
        info,
        geometry=geometry,
        times=times,
        pedestal=bias / 1000 if bias > 0 else None,
        saturation=saturated if saturated > 0 else None,
        warnings=info.warnings + warnings + more,
    )


EDF = FileFormat("edf", edf_content, edf_loading, saxs_facts)
CBF = FileFormat("cbf", cbf_content, cbf_loading, dectris_facts)
TIFF = FileFormat("tiff", tiff_content, tiff_loading, dectris_facts)
MARCCD = FileFormat("marccd", marccd_content, marccd_loading, marccd_facts)
