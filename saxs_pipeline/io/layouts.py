"""Writing a measurement in the layouts of the beamlines: one file per frame with a table of scalers, or a .fio scan.

ID02's own HDF5 layout is in `id02_layout`. Nothing here depends on the clock: the same frames give the same bytes.
"""

from __future__ import annotations

import csv
import json
import struct
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.io.id02_layout import Image, Series, Setup, Written, saxs_header, write_id02, write_scalers

_TIFF_TAGS = (
    # tag, type (3 short, 4 long), value; the pixels follow the 3072 bytes of the MarCCD block
    (258, 3, 16),  # bits per sample
    (259, 3, 1),  # not compressed
    (262, 3, 1),  # black is zero
    (273, 4, 4096),  # offset of the pixels
    (274, 3, 1),  # orientation
    (277, 3, 1),  # samples per pixel
    (339, 3, 1),  # unsigned
)
_P21_ROOT = "/gpfs/current/raw"  # scans name their images as the beamline's disk had them
_P21_DETECTOR = "pilatus"
_P21_COLUMNS = (("timestamp", "DOUBLE"), (_P21_DETECTOR, "INTEGER"), ("ion1", "DOUBLE"), ("ion2", "DOUBLE"))


def write_edf(raw: Path, series: Series, images: Iterable[Image], setup: Setup) -> Written:
    """`{name}/{name}_0000.edf` … and ID02's scalers file."""
    from fabio.edfimage import EdfImage

    folder = _folder(raw, series)
    header = saxs_header(series, setup)
    for i, image in enumerate(images):
        stamp = {"Time": _time(series, i), "ExposureTime": f"{series.exposure_s[i]:g}"}
        EdfImage(data=image, header=header | stamp).write(folder / f"{series.name}_{i:04}.edf")
    scalers = write_scalers(raw, series, setup)
    return Written(f"{raw.name}/{series.name}/{series.name}_*.edf", f"{raw.name}/{scalers.name}")


def write_mccd(raw: Path, series: Series, images: Iterable[Image], setup: Setup) -> Written:
    """`{name}/{name}_0000.mccd` … and `{name}_scalers.csv`."""
    folder = _folder(raw, series)
    for i, image in enumerate(images):
        path = folder / f"{series.name}_{i:04}.mccd"
        path.write_bytes(marccd_header(series, i, setup) + image.astype("<u2").tobytes())
    return Written(f"{raw.name}/{series.name}/{series.name}_*.mccd", _write_csv(raw, series))


def marccd_header(series: Series, index: int, setup: Setup) -> bytes:
    """4096 bytes: TIFF header and tags, then the MarCCD block from 1024 on (offsets as in fabio.marccdimage)."""
    ny, nx = setup.shape
    block = bytearray(4096)
    sizes = ((256, 4, nx), (257, 4, ny), (278, 4, ny), (279, 4, 2 * nx * ny))
    tags = sorted((*_TIFF_TAGS, *sizes))
    struct.pack_into("<2sHIH", block, 0, b"II", 42, 8, len(tags))
    for k, (tag, kind, value) in enumerate(tags):
        struct.pack_into("<HHII", block, 10 + 12 * k, tag, kind, 1, value)
    for offset, number in _marccd_numbers(series, index, setup).items():
        struct.pack_into("<i", block, offset, number)
    stamp = (series.begin + timedelta(seconds=float(series.start_s[index]))).strftime("%m%d%H%M%Y.%S")
    struct.pack_into("<16s", block, 1028, b"MMX")
    struct.pack_into("<32s", block, 2368, stamp.encode())
    struct.pack_into("<512s", block, 2464, f"simulated {series.name}".encode())
    return bytes(block)


def _marccd_numbers(series: Series, index: int, setup: Setup) -> Mapping[int, int]:
    """Offset → value: distance in µm, pixels in nm, times in ms, wavelength in fm, the rest in thousandths."""
    ny, nx = setup.shape
    exposure = round(1000 * float(series.exposure_s[index]))
    return {
        **{1024: 2, 1044: 1, 1052: 1234, 1056: 1234, 1060: 3072, 1064: 1, 1068: 1, 1100: 1},  # type, version, order
        **{1104: nx, 1108: ny, 1112: 2, 1116: nx, 1120: 16, 1128: setup.saturation, 1136: 1},
        **{1664: round(setup.distance_m * 1e6), 1668: round(setup.centre_px[0] * 1e3)},
        **{1672: round(setup.centre_px[1] * 1e3), 1676: exposure, 1680: exposure, 1684: 22},
        **{1796: round(setup.pixel_m * 1e9), 1800: round(setup.pixel_m * 1e9), 1804: round(setup.pedestal * 1e3)},
        1932: round(setup.wavelength_m * 1e15),
    }


def write_cbf(raw: Path, series: Series, images: Iterable[Image], setup: Setup) -> Written:
    """`{name}/{name}_0000.cbf` … and `{name}_scalers.csv`."""
    folder = _folder(raw, series)
    for i, image in enumerate(images):
        _write_cbf_file(folder / f"{series.name}_{i:04}.cbf", image, series, i, setup)
    return Written(f"{raw.name}/{series.name}/{series.name}_*.cbf", _write_csv(raw, series))


def write_p21(raw: Path, series: Series, images: Iterable[Image], setup: Setup) -> Written:
    """`{name}_{scan}.fio`, with the ion chambers, and its images `{name}_{scan}/pilatus/…_00001.cbf`, from 1 on."""
    scan = f"{series.name}_{series.scan:05}"
    folder = raw / scan / _P21_DETECTOR
    folder.mkdir(parents=True)
    pattern = f"{scan}_%05d.cbf"
    for i, image in enumerate(images):
        _write_cbf_file(folder / (pattern % (i + 1)), image, series, i, setup)
    (raw / f"{scan}.fio").write_text(
        _fio(series, setup, f"{_P21_ROOT}/{scan}/{_P21_DETECTOR}", pattern), encoding="utf-8"
    )
    return Written(f"{raw.name}/{scan}.fio", None)


def _fio(series: Series, setup: Setup, folder: str, pattern: str) -> str:
    """The text of a .fio scan: comments, command (%c), parameters (%p), table (%d)."""
    n, exposure = series.start_s.size, float(series.exposure_s[0])
    end = series.begin + timedelta(seconds=float(series.start_s[-1]) + exposure)
    energy_ev = 1.239841984e-6 / setup.wavelength_m
    lines = ["!", "! Comments", "!", "%c", f"timesweep2 {series.name} 1:{n}/{exposure:.2f}"]
    lines += [f"user p21user acquisition started at {series.begin:%a %b %d %H:%M:%S %Y}", "!", "! Parameter", "!", "%p"]
    lines += [f"channel1_exposure = {exposure:g}", f"energy = {energy_ev:.3f}", f"idtx = {setup.distance_m * 1e3:g}"]
    lines += [f"{_P21_DETECTOR} = " + json.dumps({"Filedir": folder, "Filepattern": pattern}), "!", "! Data", "!", "%d"]
    lines += [f" Col {k} {name} {kind}" for k, (name, kind) in enumerate(_P21_COLUMNS, start=1)]
    table = zip(series.start_s, series.i0, series.i1, strict=True)
    lines += [f" {start:.6f} {i + 1} {i0:.8e} {i1:.8e}" for i, (start, i0, i1) in enumerate(table)]
    return "\n".join([*lines, f"! Acquisition ended at {end:%a %b %d %H:%M:%S %Y}", ""])


def _write_cbf_file(path: Path, image: Image, series: Series, index: int, setup: Setup) -> None:
    """A CBF with Dectris' comment lines; pixels as signed 32-bit, as Dectris stores them."""
    from fabio.cbfimage import CbfImage

    pixel = f"{setup.pixel_m:.7e} m"
    contents = (
        f"# Detector: {setup.detector}",
        f"# {_time(series, index)}",
        f"# Pixel_size {pixel} x {pixel}",
        f"# Exposure_time {series.exposure_s[index]:.7f} s",
        f"# Count_cutoff {setup.saturation} counts",
        f"# Wavelength {setup.wavelength_m * 1e10:.8f} A",
        f"# Detector_distance {setup.distance_m:.6f} m",
        f"# Beam_xy ({setup.centre_px[0]:.3f}, {setup.centre_px[1]:.3f}) pixels",
    )
    header = {"_array_data.header_contents": "\r\n".join(contents), "_array_data.header_convention": "PILATUS_1.2"}
    CbfImage(data=image.astype(np.int32), header=header).write(str(path))


def _write_csv(raw: Path, series: Series) -> str:
    """`{name}_scalers.csv`: one row per frame, numbered from 0; the monitors are integrated over the exposure."""
    path = raw / f"{series.name}_scalers.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["frame", "start_s", "exposure_s", "I0", "I1"])
        table = zip(series.start_s, series.exposure_s, series.i0, series.i1, strict=True)
        rows.writerows([i, f"{s:.6f}", f"{t:g}", f"{i0:.8e}", f"{i1:.8e}"] for i, (s, t, i0, i1) in enumerate(table))
    return f"{raw.name}/{path.name}"


def write_image(path: Path, image: NDArray[Any]) -> None:
    """A single EDF image, for masks and flat fields."""
    from fabio.edfimage import EdfImage

    EdfImage(data=image, header={}).write(path)


def _folder(raw: Path, series: Series) -> Path:
    folder = raw / series.name
    folder.mkdir()
    return folder


def _time(series: Series, index: int) -> str:
    moment = series.begin + timedelta(seconds=float(series.start_s[index]))
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds")


Writer = Callable[[Path, Series, Iterable[Image], Setup], Written]
WRITERS: Mapping[str, Writer] = {
    "id02": write_id02,
    "edf": write_edf,
    "mccd": write_mccd,
    "cbf": write_cbf,
    "p21": write_p21,
}
"""Each writes one measurement into the raw folder and says where."""
