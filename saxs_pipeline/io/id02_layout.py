"""Writing a measurement as ESRF ID02 stores it: LImA image file and scalers file, both HDF5 (formats as LImA's
CtSaving_Hdf5.cpp and dahu's id02/metadata.py have them)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.types import Floats

Image = NDArray[np.uint16]

SHUTTER_S = 0.0005
"""The shutter opens and closes this much late: the scalers' gate misses so much of the exposure."""
_PINS = ("Time", "I0", "I1", "Diode3")
_CLOCK_S = 1e-6  # s per count of the time pin
_ZERO_LEVELS = (0.0, 140.0, 95.0, 20.0)  # counts per s


@dataclass(frozen=True)
class Setup:
    """What the files' headers say: shape (ny, nx), centre (fast, slow) in px, pedestal and saturation in ADU.

    monitor_per_count: calibration of the diodes, HSI0Factor and HSI1Factor of the scalers file.
    """

    shape: tuple[int, int]
    pixel_m: float
    distance_m: float
    centre_px: tuple[float, float]
    wavelength_m: float
    pedestal: float
    saturation: int
    monitor_per_count: float
    detector: str = "Rayonix"


@dataclass(frozen=True)
class Series:
    """One measurement: start_s on its own clock, exposure_s, i0 and i1 integrated over the exposure, each (n,)."""

    name: str
    scan: int
    start_s: Floats
    exposure_s: Floats
    i0: Floats
    i1: Floats

    @property
    def begin(self) -> datetime:
        """Zero of the clock: made up, so that the same simulation always gives the same bytes."""
        return datetime(2022, 6, 14, 5, tzinfo=UTC) + timedelta(hours=3 * self.scan)


@dataclass(frozen=True)
class Written:
    """Paths of the frames (a file, glob or .fio scan) and of their scalers, relative to the raw folder's parent."""

    frames: str
    scalers: str | None


def saxs_header(series: Series, setup: Setup) -> dict[str, str]:
    """The ESRF SAXS keys of EDF and LImA headers; axis 1 is the fast one, lengths in m, Dummy 0 means none."""
    return {
        "BSize_1": "8",
        "BSize_2": "8",
        "Center_1": f"{setup.centre_px[0]:g}",
        "Center_2": f"{setup.centre_px[1]:g}",
        "DDummy": "0",
        "DetectorName": "rayonix",
        "Dummy": "0",
        "ExposureTime": f"{series.exposure_s[0]:g}",
        "Offset_1": "0",
        "Offset_2": "0",
        "PSize_1": f"{setup.pixel_m:.10g}",
        "PSize_2": f"{setup.pixel_m:.10g}",
        "RasterOrientation": "1",
        "Rot_1": "0",
        "Rot_2": "0",
        "Rot_3": "0",
        "SampleDistance": f"{setup.distance_m:.10g}",
        "SaxsDataVersion": "2.40",
        "Title": series.name,
        "WaveLength": f"{setup.wavelength_m:.10g}",
    }


def write_id02(raw: Path, series: Series, images: Iterable[Image], setup: Setup) -> Written:
    """`{name}_rayonix_{scan}_00.h5` (bitshuffle-LZ4, a chunk per frame) and `{name}_scalers_{scan}_00.h5`."""
    frames = raw / f"{series.name}_rayonix_{series.scan:05}_00.h5"
    write_lima(frames, series, images, setup)
    scalers = write_scalers(raw, series, setup)
    return Written(f"{raw.name}/{frames.name}", f"{raw.name}/{scalers.name}")


def write_lima(path: Path, series: Series, images: Iterable[Image], setup: Setup) -> None:
    """A LImA image file; `images` yields as many (ny, nx) frames as `series` has."""
    import h5py
    import hdf5plugin

    n = series.start_s.size
    with h5py.File(path, "w") as file:
        entry = _entry(file, series, "LIMA-1.10.1")
        detector = _group(entry, "ESRF-ID02/rayonix", "NXinstrument", "NXdetector")
        data = detector.create_dataset(
            "data", (n, *setup.shape), np.uint16, chunks=(1, *setup.shape), **hdf5plugin.Bitshuffle(cname="lz4")
        )
        data.attrs["interpretation"] = "image"
        _describe(detector, series, setup)
        plot = _group(detector, "plot", "NXdata")
        plot.attrs["signal"] = "data"
        plot["data"] = h5py.SoftLink(data.name)
        entry.attrs["default"] = "ESRF-ID02/rayonix/plot"
        _group(entry, "measurement", "NXcollection")["data"] = h5py.SoftLink(data.name)
        for i, image in enumerate(images):
            data[i] = image


def _describe(detector: Any, series: Series, setup: Setup) -> None:
    """What LImA writes beside the data: acquisition, operations, detector, header."""
    detector["time_of_frame"] = series.start_s
    detector["time_of_frame"].attrs["units"] = "s"
    header = _group(detector, "header", "NXcollection")
    for key, value in saxs_header(series, setup).items():
        header[key] = value
    acquisition = _group(detector, "acquisition", "NXcollection")
    acquisition["exposure_time"] = float(series.exposure_s[0])
    acquisition["latency_time"] = 0.0
    acquisition["nb_frames"] = series.start_s.size
    acquisition["mode"], acquisition["trigger_mode"] = "Single", "ExtGate"
    operation = _group(detector, "image_operation", "NXcollection")
    operation["binning/x"], operation["binning/y"] = 8, 8
    operation["flipping/x"], operation["flipping/y"], operation["rotation"] = 0, 0, "NONE"
    information = _group(detector, "detector_information", "NXcollection")
    information["name"], information["type"], information["model"] = "rayonix", "Rayonix", "MX170-HS"
    information["pixel_size/xsize"] = information["pixel_size/ysize"] = setup.pixel_m


def write_scalers(raw: Path, series: Series, setup: Setup) -> Path:
    """`{name}_scalers_{scan}_00.h5` in `raw`: TFG and MCS groups, with the raw counts of the shuttered gate."""
    import h5py

    path = raw / f"{series.name}_scalers_{series.scan:05}_00.h5"
    with h5py.File(path, "w") as file:
        instrument = _group(_entry(file, series, "ID02 metadata writer"), "ESRF-ID02", "NXinstrument")
        _write_times(_group(instrument, "TFG", "NXcollection"), series)
        _write_counters(_group(instrument, "MCS", "NXcollection"), series, setup.monitor_per_count)
        parameters = _group(instrument, "parameters", "NXcollection")
        parameters["Title"], parameters["Machine"] = series.name, "ESRF"
    return path


def _write_times(tfg: Any, series: Series) -> None:
    """frame_time is interleaved dead0, live0, dead1, …; delta_time = cumsum(frame_time)[0::2] are the starts."""
    ends = series.start_s + series.exposure_s
    dead = np.diff(series.start_s, prepend=0.0)
    dead[1:] -= series.exposure_s[:-1]
    tfg["frame_time"] = np.column_stack([dead, series.exposure_s]).ravel()
    tfg["live_time"], tfg["dead_time"], tfg["delta_time"] = series.exposure_s, dead, series.start_s
    tfg["HMStartTime"] = series.begin.isoformat()
    tfg["HMStartEpoch"] = series.begin.timestamp()
    tfg["stop_time"] = (series.begin + timedelta(seconds=float(ends[-1]))).isoformat()


def _write_counters(mcs: Any, series: Series, factor: float) -> None:
    """Counts C with value (C − Z·t)·F, I_k = value·HSIkFactor, before the correction (t − SOT + SCT)/(t − SOT)."""
    t = series.exposure_s
    open_share = (t - SHUTTER_S) / t  # = (t − SOT)/(t − SOT + SCT) with SOT = SCT
    uncorrected = series.i0 * open_share, series.i1 * open_share
    zero = np.array(_ZERO_LEVELS)
    clean = np.column_stack([t / _CLOCK_S, uncorrected[0] / factor, uncorrected[1] / factor, 1e4 * t])
    counts = np.rint(clean + zero * t[:, None])
    factors = np.array([_CLOCK_S, 1.0, 1.0, 1.0])
    values = (counts - zero * t[:, None]) * factors
    mcs["HS32C"], mcs["HS32F"], mcs["HS32Z"], mcs["HS32V"] = counts.astype(np.uint32), factors, zero, values
    mcs["HS32N"], mcs["HS32M"] = list(_PINS), np.zeros(len(_PINS), dtype=np.int32)
    mcs["HSTime"], mcs["HSI0"], mcs["HSI1"] = 1, 2, 3
    mcs["HSI0Factor"] = mcs["HSI1Factor"] = factor
    mcs["ShutterOpeningTime"] = mcs["ShutterClosingTime"] = f"{SHUTTER_S:g} s"
    mcs["ExposureTime"] = values[:, 0]
    for k in (0, 1):
        mcs[f"Intensity{k}UnCor"] = values[:, k + 1] * factor
        mcs[f"Intensity{k}ShutCor"] = values[:, k + 1] * factor / open_share


def _entry(file: Any, series: Series, creator: str) -> Any:
    file.attrs["NX_class"], file.attrs["creator"], file.attrs["default"] = "NXroot", creator, "entry_0000"
    entry = _group(file, "entry_0000", "NXentry")
    entry["title"] = series.name
    entry["start_time"] = series.begin.isoformat()
    end = float(series.start_s[-1] + series.exposure_s[-1])
    entry["end_time"] = (series.begin + timedelta(seconds=end)).isoformat()
    return entry


def _group(parent: Any, path: str, *classes: str) -> Any:
    """The group at `path`, one NX class for each of its steps."""
    group = parent
    for name, nx_class in zip(path.split("/"), classes, strict=True):
        group = group.create_group(name)
        group.attrs["NX_class"] = nx_class
    return group
