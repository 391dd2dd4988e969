"""A run on ID02 files against the beamline's formula (formats.md §1.4), in h5py, NumPy and pyFAI's arrays alone.

Nothing of this package takes part but the run itself and the files of the simulated beamtime.
"""

from __future__ import annotations

import re
import shutil

import fabio
import h5py
import numpy as np
import pyFAI
import pytest

from saxs_pipeline import plan, runfile
from saxs_pipeline.apps import batch
from saxs_pipeline.outputs import nexus
from saxs_pipeline.types import BadInput
from tests.conftest import FRAMES, variant, without_model

LOW, HIGH, BINS, PEDESTAL = 0.1, 5.0, 300, 10.0


def datasets(path):
    """All datasets of a file by their name, the last one where a name occurs twice."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda _, node: found.update({node.name: node[()]}) if isinstance(node, h5py.Dataset) else None)
    return found


def named(found, end):
    (value,) = (value for name, value in found.items() if name.endswith(end))
    return value


def stack(path):
    return next(value for value in datasets(path).values() if getattr(value, "ndim", 0) == 3).astype(np.float64)


def monitor(path):
    """I1 after the sample, corrected for the shutter, from raw counts (formats.md §1.2)."""
    found = datasets(path)
    counts, factor, zero = (named(found, f"MCS/HS32{letter}") for letter in "CFZ")
    live = named(found, "TFG/frame_time")[1::2]
    pin, time = (int(named(found, f"MCS/{name}")) - 1 for name in ("HSI1", "HSTime"))
    value = (counts[:, pin] - zero[pin] * live) * factor[pin] * float(named(found, "MCS/HSI1Factor"))
    opening, closing = (
        float(str(np.asarray(named(found, f"MCS/Shutter{word}Time")).astype(str)).split()[0])
        for word in ("Opening", "Closing")
    )
    t = counts[:, time] * factor[time]
    return value * (t - opening + closing) / (t - opening)


def test_a_run_from_files_is_the_beamlines_formula(beamtime, tmp_path):
    """I = Σ(S − D) / Σ(flat·Ω_rel·P) / (Ω_0·I1), then K/d; what run.nxs holds plus its background is that."""
    run = runfile.load(without_model(variant(beamtime, "formula")))
    nexus.write_run(batch.compute(run, quiet=True), tmp_path / "run.nxs")
    text = run.text
    polarization = float(re.search(r"polarization: ([\d.]+)", text)[1])
    thickness_mm = float(re.search(r"thickness: ([\d.]+) mm", text)[1])
    ai = pyFAI.load(str(beamtime / "geometry.poni"))
    images = stack(next(beamtime.glob("raw/cdse_rayonix*")))
    dark = stack(next(beamtime.glob("raw/dark_rayonix*"))).mean(axis=0) - PEDESTAL
    flat, mask = (fabio.open(beamtime / name).data for name in ("flat.edf", "mask.edf"))
    shape = images.shape[1:]
    q = ai.center_array(shape, unit="q_nm^-1")
    used = (mask == 0) & (q >= LOW) & (q < HIGH)
    label = np.floor((q[used] - LOW) / (HIGH - LOW) * BINS).astype(int)
    norm = flat.astype(np.float64) * ai.solidAngleArray(shape) * ai.polarization(shape, polarization)
    number, below = (np.bincount(label, x, BINS) for x in (np.ones(label.size), norm[used]))
    solid_angle = ai.detector.pixel1 * ai.detector.pixel2 / ai.dist**2
    monitors = monitor(next(beamtime.glob("raw/cdse_scalers*")))
    with h5py.File(tmp_path / "run.nxs") as file:
        got = file["entry/curves/I"][()] + file["entry/background/B"][()]
        pixels, factor = file["entry/curves/pixels"][()], file["entry/scale/factor"][()]
    same = (pixels[0] == number) & (number > 0)  # a pixel on the edge of a bin may fall to either side
    assert same.sum() > 0.9 * (number > 0).sum()
    for k in (0, 17, FRAMES - 1):
        above = np.bincount(label, (images[k] - PEDESTAL - dark)[used], BINS)
        with np.errstate(invalid="ignore"):
            expected = above / below / (solid_angle * monitors[k]) * factor / thickness_mm
        np.testing.assert_allclose(got[k][same], expected[same], rtol=1e-6)


def shortened(beamtime, name, cut):
    """A run file whose scalers lack their last row: of the counts alone, or of times and counts."""
    source = next(beamtime.glob("raw/cdse_scalers*"))
    path = source.with_name(f"{name}.h5")
    shutil.copy(source, path)
    with h5py.File(path, "r+") as file:
        for end, rows in cut.items():
            found = []
            file.visititems(lambda where, _, end=end, found=found: found.append(where) if where.endswith(end) else None)
            values = file[found[0]][()][:rows]
            del file[found[0]]
            file[found[0]] = values
    return variant(beamtime, name, (f"scalers: raw/{source.name}", f"scalers: raw/{path.name}"))


def test_a_monitor_shorter_than_the_images_is_an_error(beamtime):
    """It is neither padded nor repeated (formats.md §1.2: filled up with 1.0 it was silent nonsense)."""
    path = shortened(beamtime, "short_monitor", {"MCS/HS32C": FRAMES - 1})
    with pytest.raises(BadInput, match=rf"data\.scalers: monitor I1 has {FRAMES - 1} values for {FRAMES} frames"):
        plan.prepare(runfile.load(path))
