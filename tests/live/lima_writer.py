"""A program that stands for LImA and the timer's scalers: it writes a finished scan again, frame by frame.

python -m tests.live.lima_writer SOURCE_FOLDER TARGET_FOLDER LOG --rate 10 --burst 50:100

The image dataset is allocated for all frames; counters and time_of_frame are zero until their frame is there. LOG gets
the clock (s since 1970) at which each frame was complete, one line per frame.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

DETECTOR = "entry_0000/ESRF-ID02/rayonix"
MCS = "entry_0000/ESRF-ID02/MCS"
COUNTERS = ("HS32C", "HS32V", "ExposureTime", *(f"Intensity{k}{kind}" for k in (0, 1) for kind in ("UnCor", "ShutCor")))


def begin_images(source: h5py.File, path: Path) -> h5py.File:
    """The target file with everything but frames, their times and the end."""
    target = h5py.File(path, "w")
    old = source[f"{DETECTOR}/data"]
    for name, value in source.attrs.items():
        target.attrs[name] = value
    entry = target.create_group("entry_0000")
    for group in ("entry_0000", "entry_0000/ESRF-ID02", DETECTOR):
        made = target.require_group(group)
        for name, value in source[group].attrs.items():
            made.attrs[name] = value
    for name in ("title", "start_time"):
        source.copy(f"entry_0000/{name}", entry)
    for name in ("header", "acquisition", "detector_information"):
        source.copy(f"{DETECTOR}/{name}", target[DETECTOR])
    target[DETECTOR].create_dataset(
        "data", old.shape, old.dtype, chunks=(1, *old.shape[1:]), **hdf5plugin.Bitshuffle(cname="lz4")
    )
    target[DETECTOR].create_dataset("time_of_frame", (len(old),), float)
    target.flush()
    return target


def begin_scalers(source: Path, path: Path) -> tuple[h5py.File, dict[str, np.ndarray]]:
    """The target scalers, all counters zero, and what they are going to be."""
    shutil.copyfile(source, path)
    target = h5py.File(path, "r+")
    final = {name: target[f"{MCS}/{name}"][()] for name in COUNTERS}
    for name, values in final.items():
        target[f"{MCS}/{name}"][...] = np.zeros_like(values)
    target.flush()
    return target, final


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("log", type=Path)
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--burst", default="0:0", help="frames of this range are written as fast as possible")
    parser.add_argument("--stop", type=int, default=None, help="number of frames after which to stop, without an end")
    parser.add_argument("--hold", type=int, default=None, help="frame before which to wait for the file TARGET/go")
    wanted = parser.parse_args()
    first, last = map(int, wanted.burst.split(":"))
    images = next(wanted.source.glob("cdse_rayonix_*.h5"))
    counters = next(wanted.source.glob("cdse_scalers_*.h5"))
    with (
        h5py.File(images) as source,
        begin_images(source, wanted.target / images.name) as target,
        wanted.log.open("w") as log,
    ):
        scalers, final = begin_scalers(counters, wanted.target / counters.name)
        frames, times = source[f"{DETECTOR}/data"], source[f"{DETECTOR}/time_of_frame"][()]
        n, due = len(frames), time.time()
        for k in range(n if wanted.stop is None else wanted.stop):
            image = frames[k]
            while k == wanted.hold and not (wanted.target / "go").exists():
                time.sleep(0.02)
                due = time.time()
            if not first <= k < last:
                due += 1 / wanted.rate
                time.sleep(max(0.0, due - time.time()))
            else:
                due = time.time()
            for name, values in final.items():
                scalers[f"{MCS}/{name}"][k] = values[k]
            scalers.flush()
            target[f"{DETECTOR}/data"][k] = image
            target[f"{DETECTOR}/time_of_frame"][k] = times[k]
            target.flush()
            log.write(f"{time.time():.4f}\n")
            log.flush()
        if wanted.stop is None:
            source.copy("entry_0000/end_time", target["entry_0000"])
        scalers.close()


if __name__ == "__main__":
    main()
