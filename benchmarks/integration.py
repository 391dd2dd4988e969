"""Azimuthal integration, frames to I(q) ± σ: ours against pyFAI, side by side, in memory and from HDF5 files.

Mask, dark, flat, solid angle, polarisation and an explicit variance, no pixel splitting, dummies and saturated pixels.
Every curve is compared with pyFAI's first. Prints frames/s and, as the last line, ratios as JSON:
  pyfai_N       in memory, one thread: ours / pyFAI's integrate1d, csr engine, one thread
  worker_N      the same against pyFAI's Worker
  file_N        from a bitshuffle-LZ4 file, ours on 2 threads / a loop of h5py and integrate1d over the same file
  raw_N         the same for a file that is not compressed
  read_fraction time of merely reading and decompressing on 2 threads / of ours, bitshuffle-LZ4, smallest of all sizes
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of pyFAI's engines, and of ours: threads are counted here

import argparse
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator
from pyFAI.worker import Worker

from saxs_pipeline.io.frames import file_state, open_frames
from saxs_pipeline.series import FrameSeries
from saxs_pipeline.stages.integrate import (
    COMPILE_FROM_PIXELS,
    IntegrationSpec,
    bin_centers,
    integrate,
    pixel_solid_angle,
)
from saxs_pipeline.types import FrameChunk

BINS, GAIN, READ_NOISE, PEDESTAL, SATURATION, DUMMY = 300, 1.6, 2.0, 10.0, 60000.0, 65535
METHOD = ("no", "csr", "cython")
THREADS, PIECE = 2, 32  # as a run has them
SECONDS = 0.7
FILE_FRAMES = {480: 1536, 960: 384, 1920: 128, 2880: 128}


def geometry(size):
    """A detector of 170 mm at 1 m, whatever the number of pixels."""
    pixel = 0.17 / size
    detector = Detector(pixel1=pixel, pixel2=pixel, max_shape=(size, size))
    return AzimuthalIntegrator(1.0, 0.497 * 0.17, 0.503 * 0.17, 0.01, 0.005, detector=detector, wavelength=0.6888e-10)


def specification(ai, size):
    rng, shape = np.random.default_rng(0), (size, size)
    mask = rng.random(shape) < 0.005
    mask[size // 2 - 4 : size // 2 + 4] = True
    return IntegrationSpec(
        key=f"benchmark {size}", geometry=ai.get_config(), solid_angle_sr=pixel_solid_angle(ai), mask=mask, bins=BINS,
        q_range_nm=(0.05, 12.0), splitting="none", polarization=0.97, solid_angle=True, gain=GAIN,
        read_noise=READ_NOISE, pedestal=PEDESTAL, dark=rng.random(shape), dark_variance=np.full(shape, 0.1),
        flat=1 + 0.1 * rng.random(shape), dummy=DUMMY, saturation=SATURATION, pixels=COMPILE_FROM_PIXELS,
    )  # fmt: skip


def make_images(size, n, rng):
    photons = rng.poisson(3.0, (n, size, size))
    return (GAIN * photons + PEDESTAL + rng.normal(0, READ_NOISE, photons.shape)).clip(0).round().astype(np.uint16)


class Peer:
    """pyFAI frame by frame, with the variance that its own error models do not give."""

    def __init__(self, ai, spec):
        self.ai, self.spec = ai, spec
        self.offset, self.flat = (PEDESTAL + spec.dark).astype(np.float32), spec.flat.astype(np.float32)

    def __call__(self, image):
        signal = image - self.offset
        mask = self.spec.mask | (image >= SATURATION) if image.max() >= SATURATION else self.spec.mask
        return self.ai.integrate1d(
            signal, BINS, unit="q_nm^-1", radial_range=self.spec.q_range_nm, mask=mask, flat=self.flat,
            variance=GAIN * signal + READ_NOISE**2, polarization_factor=self.spec.polarization, method=METHOD,
        )  # fmt: skip


def pyfai_worker(ai, spec):
    """pyFAI's Worker, its own (Poisson) errors: what a plain user of it has."""
    worker = Worker(ai, shapeIn=spec.mask.shape, shapeOut=(1, BINS), unit="q_nm^-1", dummy=DUMMY, delta_dummy=0.5)
    worker.method = METHOD
    worker.radial_range = list(spec.q_range_nm)
    worker.polarization_factor = spec.polarization
    worker.ai.detector.mask = spec.mask
    worker.ai.flatfield = spec.flat.astype(np.float32)
    worker.ai.darkcurrent = (PEDESTAL + spec.dark).astype(np.float32)
    worker.error_model = "poisson"
    return worker


def chunk(images):
    n = len(images)
    return FrameChunk(np.arange(n), images, np.zeros(n), np.ones(n), np.ones(n), ("",) * n)


def check(ai, spec, images):
    """Values and σ within 1e-5 of pyFAI's exact engine, the same pixels in each bin, empty bins NaN."""
    spoiled = images[:3].copy()
    size = len(spec.mask)
    spoiled[1, 5:9, : size // 3] = DUMMY
    spoiled[2, :, size // 5] = int(SATURATION)
    curves, peer = integrate(chunk(spoiled), spec), Peer(ai, spec)
    worst = 0.0
    for k, image in enumerate(spoiled):
        oracle = peer(image)
        filled = oracle.count > 0
        assert filled.sum() < BINS and (curves.counts[k] == oracle.count).all()
        assert np.isnan(curves.intensity[k][~filled]).all() and np.isnan(curves.statistical[k][~filled]).all()
        for ours, theirs in ((curves.intensity[k], oracle.intensity), (curves.statistical[k], oracle.sigma)):
            difference = np.abs(ours[filled] * spec.solid_angle_sr / theirs[filled] - 1)
            worst = max(worst, float(difference.max()))
    assert worst < 1e-5, worst
    np.testing.assert_allclose(bin_centers(spec), oracle.radial, rtol=1e-6)
    return worst


def rates(jobs):
    """Frames/s of each job, {name: (call, frames per call)}: the best of rounds in turn, so that all see the same
    machine."""
    best = dict.fromkeys(jobs, 0.0)
    for _ in range(3):
        for name, (call, frames) in jobs.items():
            start, done = time.perf_counter(), 0
            while (spent := time.perf_counter() - start) < SECONDS / 3 or not done:
                call()
                done += frames
            best[name] = max(best[name], done / spent if done and spent else 0.0)
    return best


def in_memory(ai, spec, images):
    peer, worker = Peer(ai, spec), pyfai_worker(geometry(len(spec.mask)), spec)
    block = chunk(images)
    for warm in (lambda: integrate(block, spec), lambda: peer(images[0]), lambda: worker.process(images[0])):
        warm()
    return rates(
        {
            "ours": (lambda: integrate(block, spec), len(images)),
            "pyFAI integrate1d": (lambda: [peer(image) for image in images], len(images)),
            "pyFAI Worker": (lambda: [worker.process(image) for image in images], len(images)),
        }
    )


def write(path, images, frames, **filters):
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry_0000/instrument/detector")
        for name, kind in (("entry_0000", "NXentry"), ("entry_0000/instrument", "NXinstrument")):
            file[name].attrs["NX_class"] = kind
        entry.attrs["NX_class"] = "NXdetector"
        shape = images.shape[1:]
        data = entry.create_dataset("data", (frames, *shape), images.dtype, chunks=(1, *shape), **filters)
        for k in range(frames):
            data[k] = images[k % len(images)]


def series(path):
    info = open_frames([path]).info
    n = info.n_frames
    return FrameSeries(
        paths=(path,), detector=None, roots=(), info=info, start_s=np.zeros(n), exposure_s=np.ones(n),
        monitor=np.ones(n), problems=("",) * n, time_origin="", identity=(file_state(path),), by_order=False,
    )  # fmt: skip


def from_file(ai, spec, path):
    frames, peer = series(path), Peer(ai, spec)
    pieces = [(start, min(start + PIECE, len(frames))) for start in range(0, len(frames), PIECE)]

    def ours(piece):
        for block in frames.blocks(*piece):
            integrate(block, spec)

    def only_read(piece):
        for _ in frames.blocks(*piece):
            pass

    def loop():
        with h5py.File(path, locking=False) as file:
            data = file["entry_0000/instrument/detector/data"]
            for k in range(min(len(data), 96)):
                peer(data[k])

    with ThreadPoolExecutor(THREADS) as pool:
        return rates(
            {
                "ours": (lambda: list(pool.map(ours, pieces)), len(frames)),
                "pyFAI loop": (loop, min(len(frames), 96)),
                "reading": (lambda: list(pool.map(only_read, pieces)), len(frames)),
            }
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="*", default=[480, 960, 1920, 2880])
    ratios, fractions = {}, []
    for size in parser.parse_args().sizes:
        ai = geometry(size)
        spec, images = specification(ai, size), make_images(size, 4 if size > 1000 else 36, np.random.default_rng(1))
        worst = check(ai, spec, images)
        memory = in_memory(ai, spec, images)
        print(f"{size}²: within {worst:.1e} of pyFAI")
        print("  in memory, 1 thread:  " + ", ".join(f"{name} {rate:.4g}/s" for name, rate in memory.items()))
        ratios[f"pyfai_{size}"] = memory["ours"] / memory["pyFAI integrate1d"]
        ratios[f"worker_{size}"] = memory["ours"] / memory["pyFAI Worker"]
        for kind, filters in (("raw", {}), ("file", dict(hdf5plugin.Bitshuffle(cname="lz4")))):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "scan.h5"
                write(path, images, FILE_FRAMES.get(size, 64), **filters)
                found = from_file(ai, spec, path)
            name = "not compressed" if kind == "raw" else "bitshuffle-LZ4"
            print(f"  {name}, 2 threads: " + ", ".join(f"{what} {rate:.4g}/s" for what, rate in found.items()))
            ratios[f"{kind}_{size}"] = found["ours"] / found["pyFAI loop"]
            if kind == "file":
                fractions.append(found["ours"] / found["reading"])
    ratios["read_fraction"] = min(fractions)
    print(json.dumps({name: round(value, 2) for name, value in ratios.items()}))


if __name__ == "__main__":
    main()
