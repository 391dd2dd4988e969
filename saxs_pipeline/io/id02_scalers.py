"""ID02 scalers: the time frame generator (TFG) and the multi-channel scaler (MCS) of a run.

Value of a pin with raw counts C, zero level Z (counts/s), factor F and live time t: (C − Z·t)·F where the mode is 0
(integrated), (C/t − Z)·F where it is 1 (averaged). Monitor I_k = value of its pin · HSIkFactor, times
(t − SOT + SCT)/(t − SOT) for the opening and closing times of the shutter, t being the measured exposure.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.io import hdf5_layout, headers
from saxs_pipeline.types import BadInput, Floats, FrameTimes

_AGREEMENT = 1e-3
"""Largest relative difference from the file's own (single precision) intensities before a warning."""


def read_id02(path: Path) -> tuple[FrameTimes | None, dict[str, Floats], tuple[str, ...]]:
    """Times, monitors and warnings of a scalers file.

    Raises BadInput where it has no TFG and no MCS, has several scans, or its arrays contradict each other.
    """
    with hdf5_layout.reading(path) as root:
        return _read_groups(path, root)


def _read_groups(path: Path, place: h5py.Group) -> tuple[FrameTimes | None, dict[str, Floats], tuple[str, ...]]:
    tfg = _only(path, place, ("delta_time", "frame_time"))
    mcs = _only(path, place, ("HS32C", "Intensity1UnCor", "Intensity1ShutCor", "Intensity0UnCor"))
    if tfg is None and mcs is None:
        raise BadInput(f"{path}: no scalers (TFG or MCS groups) in this HDF5 file; check data.scalers")
    times = None if tfg is None else read_times(path, tfg)
    if mcs is None:
        return times, {}, ("the file has times but no monitors",)
    monitors, warnings = _read_monitors(path, mcs, None if times is None else times.exposure_s)
    return times, monitors, warnings


def _only(path: Path, place: h5py.Group, members: tuple[str, ...]) -> h5py.Group | None:
    groups = [node for node in hdf5_layout.walk(place) if isinstance(node, h5py.Group)]
    found = [group for group in groups if any(name in group for name in members)]
    if len(found) > 1:
        said = ", ".join(str(group.name) for group in found[:3])
        raise BadInput(f"{path}: has the scalers of several scans ({said}); give a file with one scan")
    return found[0] if found else None


def read_times(path: Path, tfg: h5py.Group) -> FrameTimes:
    """Start of each live frame after HMStart, first dead time included, and live times, s, (n,) each."""
    if "delta_time" in tfg and "live_time" in tfg:
        start, live = (_array(tfg, name) for name in ("delta_time", "live_time"))
    elif "frame_time" in tfg:
        periods = _array(tfg, "frame_time")  # dead0, live0, dead1, live1, …
        start, live = np.cumsum(periods)[0::2], periods[1::2]
    else:
        raise BadInput(f"{path}: {tfg.name} has start times but no live times")
    if start.shape != live.shape:
        raise BadInput(f"{path}: {tfg.name} has {start.size} start times but {live.size} live times")
    return FrameTimes(start, live, "TFG")


def _array(group: h5py.Group, name: str) -> Floats:
    return np.asarray(group[name][()], float).reshape(-1)


def _text(mcs: h5py.Group, name: str) -> str:
    return hdf5_layout.text(mcs[name][()]) if name in mcs else ""


def _read_monitors(path: Path, mcs: h5py.Group, live: Floats | None) -> tuple[dict[str, Floats], tuple[str, ...]]:
    if "HS32C" not in mcs:
        return _recorded(mcs)
    counts = np.asarray(mcs["HS32C"][()], float)
    if counts.ndim != 2:
        raise BadInput(f"{path}: {mcs.name}/HS32C must have one row per frame and one column per pin")
    factor, zero = _per_pin(path, mcs, "HS32F", counts, None), _per_pin(path, mcs, "HS32Z", counts, 0.0)
    mode = _per_pin(path, mcs, "HS32M", counts, 0.0)
    exposure = _exposure(path, mcs, counts, factor, live)
    gate = exposure if live is None else live[: len(counts)]
    if len(gate) < len(counts):
        raise BadInput(f"{path}: {len(counts)} rows of counts but {len(gate)} live times")
    values = pin_values(counts, factor, zero, mode, gate)
    monitors = {name: values[:, k] for k, name in enumerate(_names(mcs, counts.shape[1]))}
    return _intensities(path, mcs, monitors, values, exposure)


def pin_values(counts: Floats, factor: Floats, zero: Floats, mode: Floats, live_s: Floats) -> Floats:
    """Values (n, pins) of raw counts (n, pins): (C − Z·t)·F, or (C/t − Z)·F where the mode is 1; t is (n,) in s."""
    t = live_s[:, None]
    integrated = (counts - zero * t) * factor
    with np.errstate(divide="ignore", invalid="ignore"):
        averaged = (counts / t - zero) * factor
    return np.where(mode == 1, averaged, integrated)


def _per_pin(path: Path, mcs: h5py.Group, name: str, counts: Floats, default: float | None) -> Floats:
    """A value per pin; missing ones at the end are `default` if there is one."""
    pins = counts.shape[1]
    given = _array(mcs, name)[:pins] if name in mcs else np.empty(0)
    if len(given) < pins and default is None:
        raise BadInput(f"{path}: {mcs.name}/{name} has {len(given)} values for {pins} pins")
    return np.concatenate([given, np.full(pins - len(given), default or 0.0)])


def _names(mcs: h5py.Group, pins: int) -> list[str]:
    given: NDArray[Any] = np.asarray(mcs["HS32N"][()]).reshape(-1) if "HS32N" in mcs else np.empty(0)
    names = [hdf5_layout.text(name).strip() for name in given[:pins]]
    return [names[k] if k < len(names) and names[k] else f"pin{k + 1}" for k in range(pins)]


def _pin(path: Path, mcs: h5py.Group, key: str, pins: int) -> int | None:
    """Index of the pin that `key` (HSI0, HSI1, HSTime) names by 1-based number or by name; None if absent."""
    said = _text(mcs, key).strip()
    if not said:
        return None
    names = _names(mcs, pins)
    if said in names:
        return names.index(said)
    try:
        number = int(float(said))
    except ValueError:
        number = 0
    if not 1 <= number <= pins:
        known = ", ".join(names)
        raise BadInput(f"{path}: {key} = {said!r} is neither a pin number from 1 to {pins} nor a name ({known})")
    return number - 1


def _exposure(path: Path, mcs: h5py.Group, counts: Floats, factor: Floats, live: Floats | None) -> Floats:
    """Measured exposure of each frame, s, (n,): counts of the time pin, else as recorded, else the timer's."""
    pin = _pin(path, mcs, "HSTime", counts.shape[1])
    if pin is not None:
        measured: Floats = counts[:, pin] * factor[pin]
        return measured
    if "ExposureTime" in mcs:
        return _array(mcs, "ExposureTime")
    if live is None:
        raise BadInput(f"{path}: no exposure times (HSTime, ExposureTime or TFG/live_time)")
    return live[: len(counts)]


def _intensities(
    path: Path, mcs: h5py.Group, monitors: dict[str, Floats], values: Floats, exposure: Floats
) -> tuple[dict[str, Floats], tuple[str, ...]]:
    correction, warnings = _shutter(mcs, exposure)
    for k in (0, 1):
        pin = _pin(path, mcs, f"HSI{k}", values.shape[1])
        if pin is None:
            continue
        scale = float(_text(mcs, f"HSI{k}Factor") or 1.0)
        counted = values[:, pin] * scale
        monitors[f"I{k}"] = np.where(counted > 0, counted * correction, counted)  # nothing counted stays nothing
        warnings += _disagreement(mcs, f"Intensity{k}ShutCor", monitors[f"I{k}"])
    if "I1" not in monitors and "I0" not in monitors:
        warnings += ("HSI0 and HSI1 do not say which pins are the monitors: choose a pin by its name",)
    monitors["exposure"] = exposure
    return monitors, warnings


def _shutter(mcs: h5py.Group, exposure: Floats) -> tuple[Floats, tuple[str, ...]]:
    """(t − SOT + SCT)/(t − SOT) per frame, (n,); NaN where the shutter opens later than the exposure ends."""
    opening, closing = (headers.seconds(_text(mcs, f"Shutter{word}Time")) for word in ("Opening", "Closing"))
    if opening is None or closing is None:
        return np.ones_like(exposure), ("no shutter times in the file: I0 and I1 are not corrected for the shutter",)
    open_s = exposure - opening
    late = open_s <= 0
    said = f"{int(late.sum())} frames are shorter than the shutter's opening time: they have no monitor"
    open_s = np.where(late, np.nan, open_s)
    return (open_s + closing) / open_s, (said,) if late.any() else ()


def _disagreement(mcs: h5py.Group, name: str, ours: Floats) -> tuple[str, ...]:
    if name not in mcs:
        return ()
    theirs = _array(mcs, name)[: len(ours)]
    both = np.isfinite(theirs) & np.isfinite(ours[: len(theirs)]) & (theirs != 0)
    if not both.any():
        return ()
    worst = float(np.max(np.abs(ours[: len(theirs)][both] / theirs[both] - 1)))
    if worst <= _AGREEMENT:
        return ()
    return (f"{name} in the file differs from its raw counts by up to {100 * worst:.2g} %: the raw counts are used",)


def _recorded(mcs: h5py.Group) -> tuple[dict[str, Floats], tuple[str, ...]]:
    """Monitors of a file without raw counts: what it recorded, shutter-corrected where it has that."""
    monitors: dict[str, Floats] = {}
    warnings: tuple[str, ...] = ()
    for k in (0, 1):
        if f"Intensity{k}ShutCor" in mcs:
            monitors[f"I{k}"] = _array(mcs, f"Intensity{k}ShutCor")
        elif f"Intensity{k}UnCor" in mcs:
            monitors[f"I{k}"] = _array(mcs, f"Intensity{k}UnCor")
            warnings += (f"I{k} is not corrected for the shutter (the file has Intensity{k}UnCor only)",)
    if "ExposureTime" in mcs:
        monitors["exposure"] = _array(mcs, "ExposureTime")
    return monitors, warnings
