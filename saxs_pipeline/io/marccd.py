"""The MarCCD (Rayonix) header: 3072 bytes at byte 1024 of a TIFF file, fixed little-endian offsets.

Offsets and units as in Mar's C definition (printed in fabio.marccdimage); distances in µm, times in ms, pixel
sizes in nm, wavelengths in fm, beam centre and bias in thousandths.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.io import headers, tiff
from saxs_pipeline.types import BadInput, Floats, FrameTimes, HeaderGeometry

PIXELS_AT = 4096
_MAX_SIDE = 1 << 15
_PIXEL_TYPES: Mapping[int, np.dtype[Any]] = {1: np.dtype("<u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4")}
FIELDS: Mapping[str, int] = {
    "nfast": 1104,
    "nslow": 1108,
    "depth": 1112,
    "saturated_value": 1128,
    "background_applied": 1176,
    "bias_applied": 1180,
    "flatfield_applied": 1184,
    "distortion_applied": 1188,
    "xtal_to_detector": 1664,
    "beam_x": 1668,
    "beam_y": 1672,
    "integration_time": 1676,
    "exposure_time": 1680,
    "readout_time": 1684,
    "pixelsize_x": 1796,
    "pixelsize_y": 1800,
    "mean_bias": 1804,
    "source_wavelength": 1932,
}
_TEXTS = {"acquire_timestamp": (2368, 32), "file_comments": (2464, 512)}


def is_marccd(head: bytes) -> bool:
    """Whether a TIFF file that begins with `head` (4096 bytes) has a MarCCD block.

    As dxtbx decides it: the frame's size and depth in the block equal those in the TIFF tags.
    """
    if len(head) < 1116 or head[:4] != b"II*\x00":
        return False
    size = struct.unpack("<iii", head[1104:1116])
    at = struct.unpack("<I", head[4:8])[0]
    count = struct.unpack("<H", head[at : at + 2])[0] if at < 1022 else 0
    tags: dict[int, int] = {}
    for entry in range(at + 2, min(at + 2 + 12 * count, len(head) - 11), 12):
        tag, kind = struct.unpack("<HH", head[entry : entry + 4])
        tags[tag] = struct.unpack("<H" if kind == 3 else "<I", head[entry + 8 : entry + (10 if kind == 3 else 12)])[0]
    return size == (tags.get(tiff.WIDTH), tags.get(tiff.HEIGHT), tags.get(tiff.BITS, 0) // 8)


def read_header(path: Path) -> dict[str, str]:
    """The fields of the block as text, whole numbers in the block's own units. Raises BadInput if it is cut short."""
    with path.open("rb") as file:
        block = file.read(PIXELS_AT)
    if len(block) < PIXELS_AT or not is_marccd(block):
        raise BadInput(f"{path}: the MarCCD header is cut short or missing; copy the file again")
    if not all(0 < n <= _MAX_SIDE for n in struct.unpack_from("<ii", block, FIELDS["nfast"])):
        raise BadInput(f"{path}: the size in the MarCCD header is not that of a frame; copy the file again")
    keys = {name: str(struct.unpack_from("<i", block, at)[0]) for name, at in FIELDS.items()}
    for name, (at, length) in _TEXTS.items():
        keys[name] = block[at : at + length].split(b"\x00")[0].decode("latin-1").strip()
    return keys


def pixel_type(header: headers.Header) -> np.dtype[Any]:
    """Unsigned integers of `depth` bytes. Raises ValueError for another depth."""
    depth = int(header["depth"])
    if depth not in _PIXEL_TYPES:
        raise ValueError(f"pixels of {depth} bytes are not supported")
    return _PIXEL_TYPES[depth].newbyteorder("=")


def read_pixels(path: Path, header: headers.Header) -> NDArray[Any]:
    """Pixels (nslow, nfast). Raises OSError where the file ends before its pixels do."""
    shape = int(header["nslow"]), int(header["nfast"])
    dtype = _PIXEL_TYPES[int(header["depth"])]
    data = np.fromfile(path, dtype, count=shape[0] * shape[1], offset=PIXELS_AT)
    if data.size < shape[0] * shape[1]:
        raise OSError(f"file truncated: {data.size} of {shape[0] * shape[1]} pixels")
    return data.reshape(shape).astype(pixel_type(header), copy=False)


def geometry(header: headers.Header) -> tuple[HeaderGeometry | None, tuple[str, ...]]:
    """Geometry in m if the fields are filled and plausible, else None and a warning.

    ESRF files fill distance and beam centre differently from Mar's definition (the centre may be in µm), so a
    centre outside the frame is not trusted.
    """
    values = {name: int(header[name]) for name in FIELDS}
    fast, slow = values["pixelsize_x"] * 1e-9, values["pixelsize_y"] * 1e-9
    distance, wavelength = values["xtal_to_detector"] * 1e-6, values["source_wavelength"] * 1e-15
    if not (fast > 0 and slow > 0 and distance > 0):
        return None, ("the MarCCD header has no distance or pixel size: give the geometry in the run file",)
    x, y = values["beam_x"] * 1e-3, values["beam_y"] * 1e-3
    if not (0 < x < values["nfast"] and 0 < y < values["nslow"]):
        said = f"beam centre {x:g}, {y:g} px outside the {values['nfast']} × {values['nslow']} px frame"
        return None, (f"the MarCCD header has its {said}: its geometry is not used, give it in the run file",)
    found = HeaderGeometry(distance, y * slow, x * fast, slow, fast, wavelength if wavelength > 0 else None)
    return headers.checked(found, (values["nslow"], values["nfast"]))


def exposures(frames: Sequence[headers.Header | None]) -> Floats | None:
    """Exposure of each frame, s, (n,), NaN where unknown; None if no frame says it."""
    for key in ("exposure_time", "integration_time"):
        values = headers.column(frames, key)
        if values is not None and np.nanmax(values) > 0:
            return np.where(values > 0, values * 1e-3, np.nan)
    return None


def times(frames: Sequence[headers.Header | None]) -> tuple[FrameTimes | None, tuple[str, ...]]:
    """Times from the whole-second time stamps ("MMDDhhmmYYYY.ss") where these tell the frames apart."""
    dates = [None if header is None else _stamp(header.get("acquire_timestamp", "")) for header in frames]
    return headers.times_from_dates(dates, exposures(frames), "MarCCD acquire_timestamp (whole seconds)")


def _stamp(text: str) -> datetime | None:
    try:
        return datetime.strptime(text[:15], "%m%d%H%M%Y.%S")
    except ValueError:
        return None
