"""Sums on an OpenCL device are those of the processor; where there is none, one line says so."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from saxs_pipeline import runfile
from saxs_pipeline.plan import prepare
from saxs_pipeline.science import binning
from saxs_pipeline.science.binning import Limits, WholePixels
from saxs_pipeline.science.outliers import SigmaClip
from saxs_pipeline.stages import opencl
from saxs_pipeline.stages.integrate import integrate
from saxs_pipeline.types import BadInput
from tests.conftest import invoke, read_table, series_of, variant
from tests.stages.test_integrate import DTYPES, ai, chunk, images, spec  # noqa: F401  pytest finds the fixtures

ON_DEVICE = ("engine: {scheduler: threads}", "engine: {scheduler: threads, device: opencl}")
PIXELS, BINS = 30_000, 70


def missing():
    try:
        opencl.device_name()
    except BadInput as error:
        return str(error)
    return ""


needs_device = pytest.mark.skipif(bool(missing()), reason=missing())


@needs_device
@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_are_those_of_numpy(dtype):
    """With pixels outside, an empty bin, dummies, saturated pixels and a frame of zeros."""
    rng = np.random.default_rng(1)
    label = rng.integers(BINS + 5, size=PIXELS)
    label[label > BINS], label[label == 7] = BINS, 8
    bins, limits = WholePixels(label.astype(np.uint16), BINS), Limits.of(3.0, 0.0, 100.0)
    frames = rng.poisson(10, (4, PIXELS)).astype(dtype)
    frames[1, ::50], frames[2] = 120, 0
    theirs, ours = opencl.whole_sums(frames, bins, limits), binning.sums(frames, bins, limits)
    assert ours.rejected[1] > PIXELS / 60
    for got, expected in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-7)
    assert not theirs.raw[:, 7].any()


@needs_device
@pytest.mark.parametrize(("dtype", "level"), [("uint32", 2**28), ("float64", 2**28), ("float32", 1e-3)])
def test_sums_of_large_and_small_values(dtype, level):
    rng = np.random.default_rng(2)
    bins = WholePixels(np.sort(rng.integers(BINS, size=PIXELS)).astype(np.uint16), BINS)
    frames = (level * (1 + rng.random((2, PIXELS)))).astype(dtype)
    ours = [[bins.sum(frame.astype(np.float64))] for frame in frames]
    np.testing.assert_allclose(
        opencl.whole_sums(frames, bins, Limits.of(None, 0.0, None)).raw, np.concatenate(ours), rtol=1e-8
    )


@needs_device
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("changes", [{}, {"clip": SigmaClip(5.0, 5)}, {"orientation": "flip_up_down"}], ids=str)
def test_curves_and_errors_are_those_of_the_processor(spec, images, dtype, changes):  # noqa: F811
    """The rest of the chain is the same: pedestal, dark, flat, mask, dummies, saturation, empty bins, bad frames."""
    frames = images[:6].astype(dtype)
    frames[1, 80:84, 20:100], frames[2, 30:33], frames[3] = 65535, 5, 0
    wanted = replace(
        spec, key=f"device {dtype} {changes}", q_range_nm=(0.001, 12.0), dummy=5.0, saturation=60000.0, **changes
    )
    ours = integrate(chunk(frames), wanted)
    theirs = integrate(chunk(frames), replace(wanted, key=wanted.key + " opencl", device="opencl"))
    assert (ours.counts == 0).any()
    for name in ("intensity", "statistical", "counts"):
        np.testing.assert_allclose(getattr(theirs, name), getattr(ours, name), rtol=1e-5)
    assert (theirs.problems, theirs.notes) == (ours.problems, ours.notes)
    assert theirs.problems[3].startswith("all_zero") and theirs.notes[1] == "saturated"


@needs_device
def test_a_run_gives_the_same_sizes_and_says_where(beamtime):
    plain, on_device = (
        variant(beamtime, name, *change) for name, change in (("processor", ()), ("device", (ON_DEVICE,)))
    )
    ours, theirs = (read_table(series_of(path)) for path in (plain, on_device))
    for name in ("r_nm", "r_nm_err", "c_nc_umol_L", "yield"):
        np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-5)
    plans = [prepare(runfile.load(path)) for path in (plain, on_device)]
    assert plans[0].key != plans[1].key  # frames of one are not taken for those of the other
    assert any(opencl.device_name() in warning for warning in plans[1].warnings)


@pytest.mark.skipif(not missing(), reason="there is an OpenCL device")
def test_without_a_device_the_plan_is_refused_in_one_line(beamtime):
    done = invoke("check", variant(beamtime, "no_device", ON_DEVICE))
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    what = "there is no OpenCL device here" if find_spec("pyopencl") else "opencl needs pyopencl: pip install"
    assert f"engine.device: {what}" in line and "device: cpu" in line
