"""Peak memory of whole runs: 5,000 frames of 480² and 200 frames of 2880² (bitshuffle-LZ4), frames to fits and report.

Prints the largest resident size of the run, which must stay below 1.5 GiB, and frames/s; the last line is JSON.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

LIMIT_MIB = 1536
DISTINCT = 4

RUN = """\
title: memory
data:
  frames: scan.h5
  time: {{law: {{exposure: 75 ms, wait: 22 ms}}}}
geometry: {{distance: 1 m, center: [{centre}, {centre}], pixel_size: {pixel} um, energy: 18 keV}}
corrections:
  {{gain: 1.6, read_noise: 2.02, polarization: 0.97, pedestal: 10, saturation: 60000,
    dark: dark.h5, flat: flat.npy, mask: mask.npy}}
integration: {{bins: 300, q_min: 0.1 1/nm, q_max: 5 1/nm}}
intensity: {{monitor: none}}
model: {{q_min: 0.15 1/nm, q_max: 5 1/nm}}
engine: {{scheduler: threads, workers: 2}}
output: {{folder: results}}
"""


def write(path, images, frames):
    """A stack of few different images, each compressed once and stored again and again."""
    with h5py.File(path, "w") as file:
        group = file.create_group("entry_0000/instrument/detector")
        for place, kind in ((group.parent.parent, "NXentry"), (group.parent, "NXinstrument"), (group, "NXdetector")):
            place.attrs["NX_class"] = kind
        shape = images.shape[1:]
        filters = hdf5plugin.Bitshuffle(cname="lz4")
        data = group.create_dataset("data", (frames, *shape), np.uint16, chunks=(1, *shape), **filters)
        data[: len(images)] = images
        for k in range(len(images), frames):
            data.id.write_direct_chunk((k, 0, 0), data.id.read_direct_chunk((k % len(images), 0, 0))[1])


def write_all(folder, size, frames):
    rng, y, x = np.random.default_rng(0), *np.mgrid[:size, :size]
    fall = 40 / (1 + (np.hypot(x - size / 2, y - size / 2) / (0.06 * size)) ** 2)
    for name, photons, n in (("scan", fall, frames), ("dark", 0 * fall, DISTINCT)):
        images = 1.6 * rng.poisson(photons, (DISTINCT, size, size)) + 10 + rng.normal(0, 2, (DISTINCT, size, size))
        write(folder / f"{name}.h5", images.clip(0).round().astype(np.uint16), n)
    np.save(folder / "flat.npy", 1 + 0.1 * rng.random((size, size), dtype=np.float32))
    np.save(folder / "mask.npy", np.hypot(x - size / 2, y - size / 2) < 0.01 * size)


def measure(size, frames):
    with tempfile.TemporaryDirectory() as folder:
        write_all(Path(folder), size, frames)
        run = Path(folder) / "run.yaml"
        run.write_text(RUN.format(centre=size / 2, pixel=170e3 / size), encoding="utf-8")
        start = time.perf_counter()
        command = [sys.executable, "-c", WATCHED, sys.executable, "-m", "saxs_pipeline", "run", str(run)]
        peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
        spent = time.perf_counter() - start
    print(f"{frames} frames of {size}²: {peak} MiB at most, {spent:.1f} s, {frames / spent:.0f} frames/s")
    return peak


WATCHED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stacks", nargs="*", default=["480:5000", "2880:200"], metavar="SIZE:FRAMES")
    peaks = {stack: measure(*map(int, stack.split(":"))) for stack in parser.parse_args().stacks}
    print(json.dumps({"peak_mib": peaks, "limit_mib": LIMIT_MIB, "held": max(peaks.values()) < LIMIT_MIB}))


if __name__ == "__main__":
    main()
