"""Files as the beamlines write them, made with h5py, fabio and struct alone."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

SHAPE = (24, 32)
COMPRESSIONS: dict[str, dict[str, Any]] = {
    "raw": {},
    "gzip": {"compression": "gzip"},
    "lzf": {"compression": "lzf"},  # which h5py reads, the others are read past it
    "bitshuffle": dict(hdf5plugin.Bitshuffle(cname="lz4")),
}
HEADER = {
    "BSize_1": "8",
    "BSize_2": "8",
    "Center_1": "15.25",
    "Center_2": "11.5",
    "Dummy": "65535",
    "DDummy": "0.5",
    "DetectorName": "rayonix",
    "Offset_1": "0",
    "PSize_1": "0.0003541667",
    "PSize_2": "0.00035",
    "Rot_1": "0",
    "Rot_2": "0",
    "Rot_3": "0",
    "SampleDistance": "1.2",
    "WaveLength": "6.888e-11",
    "variance_formula": "__import__('os').system('false')",
}


def counts(n: int, seed: int = 0, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).poisson(30, (n, *shape)).astype(np.uint16)


def group(parent: Any, name: str, nx_class: str) -> Any:
    made = parent.require_group(name)
    made.attrs["NX_class"] = nx_class
    return made


def lima_entry(
    file: h5py.File,
    images: np.ndarray,
    name: str = "entry_0000",
    compression: str = "bitshuffle",
    allocated: int | None = None,
    header: dict[str, str] | None = None,
    times: np.ndarray | None = None,
    start_time: str = "2025-06-14T08:00:00.000000Z",
) -> h5py.Dataset:
    """An entry as LImA writes it; `allocated` frames are reserved and only the given ones written."""
    entry = group(file, name, "NXentry")
    entry["title"] = "LImA 2D detector acquisition"
    entry["start_time"] = start_time
    instrument = group(entry, "ESRF-ID02", "NXinstrument")
    detector = group(instrument, "rayonix", "NXdetector")
    n = allocated or len(images)
    data = detector.create_dataset(
        "data", (n, *images.shape[1:]), images.dtype, chunks=(1, *images.shape[1:]), **COMPRESSIONS[compression]
    )
    data[: len(images)] = images
    keys = group(detector, "header", "NXcollection")
    for key, value in (HEADER if header is None else header).items():
        keys[key] = value
    acquisition = group(detector, "acquisition", "NXcollection")
    acquisition["exposure_time"] = 0.075
    acquisition["exposure_time"].attrs["units"] = "s"
    acquisition["nb_frames"] = n
    if times is not None:
        detector["time_of_frame"] = times
    information = group(detector, "detector_information", "NXcollection")
    information["name"] = "rayonix"
    group(entry, "measurement", "NXcollection")["data"] = h5py.SoftLink(data.name)
    group(detector, "plot", "NXdata").attrs["signal"] = "data"
    detector["plot/data"] = h5py.SoftLink(data.name)
    return data


def write_lima(path: Path, images: np.ndarray, **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["NX_class"], file.attrs["creator"] = "NXroot", "LIMA-1.9.3"
        lima_entry(file, images, **options)
    return path


def marccd_bytes(image: np.ndarray, fields: dict[int, int] | None = None, stamp: str = "061408002025.07") -> bytes:
    """A MarCCD file: TIFF header and tags at 8, the block at 1024, pixels at 4096."""
    ny, nx = image.shape
    tags = [(256, 4, nx), (257, 4, ny), (258, 3, 8 * image.itemsize), (259, 3, 1), (262, 3, 1), (273, 4, 4096),
            (277, 3, 1), (278, 4, ny), (279, 4, image.nbytes)]  # fmt: skip
    directory = struct.pack("<H", len(tags))
    for tag, kind, value in tags:
        directory += struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", value)
    block = bytearray(b"II*\x00" + struct.pack("<I", 8) + directory + bytes(4))
    block += bytes(4096 - len(block))
    standard = {1024: 2, 1104: nx, 1108: ny, 1112: image.itemsize, 1128: 65000, 1664: 1_200_000, 1668: 15_250,
               1672: 11_500, 1680: 75, 1796: 354_167, 1800: 350_000, 1804: 10_000, 1932: 68_880}  # fmt: skip
    for offset, value in (standard | (fields or {})).items():
        struct.pack_into("<i", block, offset, value)
    block[1028:1031] = b"MMX"
    block[2368 : 2368 + len(stamp)] = stamp.encode()
    return bytes(block) + image.astype(image.dtype.newbyteorder("<")).tobytes()


def tiff_bytes(image: np.ndarray, order: str = "<", photometric: int = 1, description: str = "") -> bytes:
    """A plain one-strip TIFF of either byte order."""
    ny, nx = image.shape
    sample = {"u": 1, "i": 2, "f": 3}[image.dtype.kind]
    entries = [(256, 4, nx), (257, 4, ny), (258, 3, 8 * image.itemsize), (259, 3, 1), (262, 3, photometric)]
    text = description.encode() + b"\x00" if description else b""
    count = 10 + bool(text)
    data_at = 8 + 2 + 12 * count + 4
    if text:
        entries.append((270, 2, data_at))
    entries += [(273, 4, data_at + len(text)), (277, 3, 1), (278, 4, ny), (279, 4, image.nbytes), (339, 3, sample)]
    block = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(order + "I", 8)
    block += struct.pack(order + "H", count)
    for tag, kind, value in entries:
        length = len(text) if tag == 270 else 1
        packed = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
        block += struct.pack(order + "HHI", tag, kind, length) + packed
    return block + bytes(4) + text + image.astype(image.dtype.newbyteorder(order)).tobytes()


def write_edf(path: Path, images: list[np.ndarray], headers: list[dict[str, str]] | None = None) -> Path:
    from fabio.edfimage import EdfImage

    headers = headers or [HEADER] * len(images)
    edf = EdfImage(data=images[0], header=dict(headers[0]))
    for image, header in zip(images[1:], headers[1:], strict=True):
        edf.append_frame(data=image, header=dict(header))
    edf.write(str(path))
    return path


def write_cbf(path: Path, image: np.ndarray, contents: str = "") -> Path:
    from fabio.cbfimage import CbfImage

    header = {"_array_data.header_contents": contents, "_array_data.header_convention": "PILATUS_1.2"}
    CbfImage(data=image.astype(np.int32), header=header if contents else {}).write(str(path))
    return path
