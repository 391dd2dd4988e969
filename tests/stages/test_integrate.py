"""Against pyFAI frame by frame, against the beamline's formula, and the traps of formats.md §3."""

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from saxs_pipeline.science import binning
from saxs_pipeline.science import orientation as orient
from saxs_pipeline.science.orientation import ORIENTATIONS
from saxs_pipeline.stages import compiled
from saxs_pipeline.stages.integrate import (
    COMPILE_FROM_PIXELS,
    IntegrationSpec,
    bin_centers,
    integrate,
    pixel_solid_angle,
)
from saxs_pipeline.types import FrameChunk

SHAPE = (120, 140)
BINS = 60


@pytest.fixture(scope="module")
def ai():
    detector = Detector(pixel1=0.8e-3, pixel2=0.8e-3, max_shape=SHAPE)
    return AzimuthalIntegrator(0.6, 60.3 * 0.8e-3, 66.1 * 0.8e-3, 0.02, -0.01, detector=detector, wavelength=0.69e-10)


@pytest.fixture(scope="module")
def spec(ai):
    rng = np.random.default_rng(0)
    mask = rng.random(SHAPE) < 0.05
    mask[50:70, 60:72] = True
    return IntegrationSpec(
        key="test",
        geometry=ai.get_config(),
        solid_angle_sr=pixel_solid_angle(ai),
        mask=mask,
        bins=BINS,
        q_range_nm=(0.2, 9.0),
        splitting="none",
        polarization=0.97,
        solid_angle=True,
        gain=1.6,
        read_noise=3.0,
        pedestal=10.0,
        dark=rng.random(SHAPE),
        dark_variance=np.full(SHAPE, 0.3),
        flat=1 + 0.1 * rng.random(SHAPE),
    )


def chunk(images, monitor=1e5):
    n = len(images)
    return FrameChunk(np.arange(n), images, np.arange(n) * 0.1, np.full(n, 0.075), np.full(n, monitor), ("",) * n)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    return (1.6 * rng.poisson(30, (24, *SHAPE)) + 10 + rng.normal(0, 3, (24, *SHAPE))).round().astype(np.uint16)


def by_pyfai(ai, spec, image, **changes):
    """I and σ of one image, per pixel norm, and the number of pixels, by pyFAI's exact engine."""
    signal = image - spec.pedestal - spec.dark
    options = {"mask": spec.mask, "method": ("no", "csr", "python")} | changes
    result = ai.integrate1d(
        signal,
        BINS,
        unit="q_nm^-1",
        radial_range=spec.q_range_nm,
        variance=spec.gain * signal + spec.read_noise**2,
        flat=spec.flat,
        polarization_factor=spec.polarization,
        **options,
    )
    used = result.method  # what is asked for may silently be replaced (formats.md §3.9)
    assert (used.split, used.algorithm.lower(), used.implementation.lower()) == options["method"]
    return result


def assert_same(curves, k, oracle, norm):
    filled = oracle.count > 0
    assert filled.sum() > 40
    np.testing.assert_allclose(curves.intensity[k][filled], oracle.intensity[filled] / norm, rtol=1e-5)
    np.testing.assert_allclose(curves.statistical[k][filled], oracle.sigma[filled] / norm, rtol=1e-5)
    np.testing.assert_allclose(curves.counts[k], oracle.count, rtol=1e-6)
    np.testing.assert_allclose(curves.q_nm, oracle.radial, rtol=1e-5)


DTYPES = ["uint8", "uint16", "int16", "uint32", "int32", "int64", "uint64", "float32", "float64"]


@pytest.mark.parametrize(
    ("dtype", "pixels"), [*((dtype, 0) for dtype in DTYPES), ("uint16", COMPILE_FROM_PIXELS)], ids=str
)
def test_equals_pyfai_frame_by_frame(ai, spec, images, dtype, pixels):
    curves = integrate(chunk(images.astype(dtype)), replace(spec, pixels=pixels))
    for k in (0, 7, 23):
        assert_same(curves, k, by_pyfai(ai, spec, images[k]), spec.solid_angle_sr * 1e5)


@pytest.mark.parametrize("splitting", ["bbox", "full"])
def test_equals_pyfai_with_pixel_splitting(ai, spec, images, splitting):
    split = replace(spec, key=splitting, splitting=splitting)
    curves = integrate(chunk(images), split)
    oracle = by_pyfai(ai, spec, images[3], method=(splitting, "csr", "python"))
    assert_same(curves, 3, oracle, spec.solid_angle_sr * 1e5)
    spoiled = images[3:4].copy()
    spoiled[0, 80:90, 20:100] = 65535
    curves = integrate(chunk(spoiled), replace(split, key=splitting + " hole", saturation=60000.0))
    oracle = by_pyfai(ai, spec, images[3], mask=spec.mask | (spoiled[0] == 65535), method=(splitting, "csr", "python"))
    assert_same(curves, 0, oracle, spec.solid_angle_sr * 1e5)


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "int32"])
def test_compiled_sums_are_the_same_to_the_last_bit(spec, images, dtype):
    """Also with dummies, saturated pixels and frames of zeros, which are looked for on the way."""
    frames = images.astype(dtype)
    frames[1, 10:14, 3::7], frames[2, :, 90], frames[5] = 3, frames.max(), 0
    for changes in ({}, {"dummy": 3.0}, {"dummy": 2.0, "dummy_delta": 1.5, "saturation": float(frames.max())}):
        wanted = replace(spec, key=f"{dtype} {changes}", **changes)
        plain, compiled = (integrate(chunk(frames), replace(wanted, pixels=n)) for n in (0, COMPILE_FROM_PIXELS))
        for name in ("intensity", "statistical", "counts"):
            np.testing.assert_array_equal(getattr(plain, name), getattr(compiled, name))
        assert plain.problems == compiled.problems
        assert plain.problems[5].startswith("all_zero")
        assert plain.notes == compiled.notes
        assert (plain.notes[2] == "saturated") == ("saturation" in changes)


def test_the_parallax_is_pyfais_and_the_efficiency_that_of_the_slab(ai, spec, images):
    """A sensor of silicon: photons are absorbed deep in it, those at an angle further out, and more of them."""
    import copy

    with_sensor = copy.deepcopy(ai)
    with_sensor.enable_parallax(True, "Si", 0.45e-3)
    cosine = np.cbrt(ai.solidAngleArray(SHAPE))
    mu = with_sensor.parallax.sensor.mu
    slab = (1 - np.exp(-mu * 0.45e-3 / cosine)) / (1 - np.exp(-mu * 0.45e-3))
    assert 1.0002 < slab.max() < 1.2
    curves = integrate(chunk(images[:1]), replace(spec, key="sensor", sensor=("Si", 0.45e-3)))
    oracle = by_pyfai(with_sensor, replace(spec, flat=spec.flat * slab), images[0])
    assert_same(curves, 0, oracle, spec.solid_angle_sr * 1e5)
    plain = integrate(chunk(images[:1]), spec)
    assert (curves.counts != plain.counts).any()


def test_a_frame_without_the_exposure_its_dark_is_scaled_with_is_named(spec, images):
    timed = chunk(images[:3])
    timed.exposure_s[1] = np.nan
    curves = integrate(timed, replace(spec, key="no exposure", dark_exposure_s=0.15))
    assert [problem.partition(":")[0] for problem in curves.problems] == ["", "exposure_nan", ""]
    assert np.isnan(curves.intensity[1]).all() and np.isfinite(curves.intensity[[0, 2]]).any()


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("splitting", ["none", "bbox"])
def test_images_stored_in_any_orientation_give_the_same_curves(spec, images, orientation, splitting):
    """Stored images are turned here by hand; mask, flat and dark of the spec are in their orientation."""
    plain = replace(spec, key=splitting, splitting=splitting)
    expected = integrate(chunk(images[:2]), plain)
    stored = {name: orient.stored(getattr(spec, name), orientation) for name in ("mask", "flat", "dark")}
    variance = orient.stored(spec.dark_variance, orientation)
    turned = replace(plain, key=orientation + splitting, orientation=orientation, dark_variance=variance, **stored)
    frames = np.stack([orient.stored(image, orientation) for image in images[:2]])
    curves = integrate(chunk(frames), turned)
    np.testing.assert_array_equal(curves.counts, expected.counts)
    np.testing.assert_allclose(curves.intensity, expected.intensity, rtol=1e-9)
    np.testing.assert_allclose(curves.statistical, expected.statistical, rtol=1e-9)


def test_the_error_of_the_dark_stays_apart_and_has_the_size_of_a_simulation(spec, images):
    """Frames that only differ in the dark that was measured scatter by dark_factor · dark_sigma."""
    rng = np.random.default_rng(5)
    level, spread = 2.0 + rng.random(SHAPE), np.full(SHAPE, 0.3)
    curves = [
        integrate(
            chunk(images[:1]),
            replace(spec, key=f"dark {k}", dark=level + rng.normal(0, spread**0.5), dark_variance=spread),
        )
        for k in range(12)
    ]
    scatter = np.std([c.intensity[0] for c in curves], axis=0, ddof=1)
    stated = curves[0].common[0]
    assert np.nanmean(scatter**2 / stated**2) == pytest.approx(1.0, abs=0.2)
    assert not curves[0].shared.any()


def test_a_dark_scaled_with_the_exposure(spec, images):
    """Frames of half the dark's exposure have half of its current, and the whole pedestal."""
    scaled = integrate(chunk(images[:2]), replace(spec, key="scaled", dark_exposure_s=0.15))
    half = integrate(chunk(images[:2]), replace(spec, key="half", dark=spec.dark / 2))
    np.testing.assert_allclose(scaled.intensity, half.intensity, rtol=1e-9)
    np.testing.assert_allclose(scaled.common, integrate(chunk(images[:2]), spec).common / 2, rtol=1e-9)


def test_equals_the_beamlines_formula_written_out(ai, spec, images):
    """I(q) = Σ(S - D) / Σ(flat·Ω_rel·P) / (Ω_0·I1) (formats.md §1.4), with NumPy alone but for the pixels' q."""
    low, high = spec.q_range_nm
    q = ai.center_array(SHAPE, unit="q_nm^-1")
    label = np.floor((q - low) / (high - low) * BINS).astype(int)
    used = ~spec.mask & (q >= low) & (q < high)
    norm = spec.flat * ai.solidAngleArray(SHAPE) * ai.polarization(SHAPE, 0.97)
    signal = images[3] - 10.0 - spec.dark
    sums = [np.bincount(label[used], weights=x[used], minlength=BINS) for x in (signal, norm)]
    expected = sums[0] / sums[1] / (0.8e-3**2 / ai.dist**2) / 1e5
    got = integrate(chunk(images[3:4]), spec)
    same = got.counts[0] == np.bincount(label[used], minlength=BINS)  # a pixel on a bin's edge may fall either side
    assert same.sum() > 0.9 * BINS
    np.testing.assert_allclose(got.intensity[0][same], expected[same], rtol=1e-6)


def test_empty_bins_are_nan_with_count_zero_never_zero(spec, images):
    curves = integrate(chunk(images[:2]), replace(spec, key="wide", q_range_nm=(0.0001, 20.0)))
    empty = curves.counts[0] == 0
    assert empty.any()
    assert np.isnan(curves.intensity[0][empty]).all()
    assert np.isnan(curves.statistical[0][empty]).all()


def test_integers_above_2_to_24_keep_their_sum(spec):
    big = np.full((1, *SHAPE), 2**26 + 5, dtype=np.uint32)
    plain = replace(spec, key="plain", polarization=None, solid_angle=False, dark=None, flat=None, pedestal=0.0)
    curves = integrate(chunk(big, 1.0), plain)
    values = curves.intensity[0] * spec.solid_angle_sr
    np.testing.assert_allclose(values[curves.counts[0] > 0], 2**26 + 5, rtol=1e-7)


def test_threads_share_an_operator_and_return_their_own_frames(spec, images):
    """One integrator shared between threads returns other frames' results; the operator here is never changed."""
    expected = integrate(chunk(images), spec).intensity

    def one(k):
        return k, integrate(chunk(images[k : k + 1]), spec).intensity[0]

    with ThreadPoolExecutor(4) as pool:
        for k, got in pool.map(one, list(range(24)) * 10):
            np.testing.assert_array_equal(got, expected[k])


STRESS = """
import dataclasses, pickle, sys, threading
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from saxs_pipeline.stages.integrate import integrate
spec, chunk = pickle.load(open(sys.argv[1], "rb"))
expected, together = integrate(chunk, spec).intensity, threading.Barrier(2)
def one(k):
    together.wait()
    return np.array_equal(integrate(chunk, dataclasses.replace(spec, key=str(k))).intensity, expected, equal_nan=True)
with ThreadPoolExecutor(2) as pool:
    print(sum(pool.map(one, range(80))))
"""


def test_two_threads_may_build_their_integrators_at_the_same_time(tmp_path, spec, images):
    """pyFAI's numexpr expressions are shared: without a lock this crashes the process within a few tries (ADR 6)."""
    with (tmp_path / "task.pkl").open("wb") as file:
        pickle.dump((spec, chunk(images[:1])), file)
    done = subprocess.run(
        [sys.executable, "-c", STRESS, tmp_path / "task.pkl"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "80"), done.stderr[-2000:]


def test_a_changed_mask_or_range_is_not_served_by_the_old_engine(spec, images):
    first = integrate(chunk(images[:1]), spec)
    other_mask = spec.mask.copy()
    other_mask[:, :70] = True
    masked = integrate(chunk(images[:1]), replace(spec, key="masked", mask=other_mask))
    shifted = integrate(chunk(images[:1]), replace(spec, key="shifted", q_range_nm=(0.2, 5.0)))
    assert masked.counts.sum() < 0.7 * first.counts.sum()
    assert shifted.counts[0, :20].sum() < first.counts[0, :20].sum()
    np.testing.assert_array_equal(integrate(chunk(images[:1]), spec).intensity, first.intensity)


def test_dummy_saturated_and_nan_pixels_are_left_out(spec, images):
    clean = images[:1].astype(np.float32)
    spoiled = clean.copy()
    where = np.zeros(SHAPE, bool)
    where[80:90, 20:100] = True
    reference = integrate(chunk(clean), replace(spec, key="hole", mask=spec.mask | where))
    for value, changes in ((-2.0, {"dummy": -1.0, "dummy_delta": 1.5}), (np.nan, {"dummy": np.nan})):
        spoiled[0, where] = value
        got = integrate(chunk(spoiled), replace(spec, key="dummy", **changes))
        np.testing.assert_array_equal(got.counts, reference.counts)
        np.testing.assert_allclose(got.intensity, reference.intensity, rtol=1e-6)
    spoiled[0, where] = 65535
    got = integrate(chunk(spoiled), replace(spec, key="saturated", saturation=60000.0))
    np.testing.assert_allclose(got.intensity, reference.intensity, rtol=1e-6)
    assert got.notes == ("saturated",)


PATHS = {"plain": {}, "compiled": {"pixels": COMPILE_FROM_PIXELS}, "split": {"splitting": "bbox"}}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int32", "int64", "uint64"])
def test_the_largest_number_as_dummy_is_left_out_exactly(spec, images, dtype, path):
    """As an Eiger marks its gaps. A float64 cannot hold 2^64 - 1, nor 2^63 - 1; the number below is no dummy."""
    top = np.iinfo(dtype).max
    clean, where = np.minimum(images[:2], 100).astype(dtype), np.zeros(SHAPE, dtype=bool)
    where[20:40, 30:50] = True
    spoiled, masked = clean.copy(), replace(spec, key=f"{path} hole", mask=spec.mask | where, **PATHS[path])
    spoiled[:, where] = top
    spoiled[:, spec.mask] = top
    wanted = replace(spec, key=f"{path} {dtype}", dummy=float(top), **PATHS[path])
    got, expected = integrate(chunk(spoiled), wanted), integrate(chunk(clean), masked)
    np.testing.assert_allclose(got.counts, expected.counts, atol=1e-6)
    np.testing.assert_allclose(got.intensity, expected.intensity, rtol=1e-9)
    assert got.notes == ("", "")  # dummies are not saturated
    spoiled[:, where] = top - 1
    near = integrate(chunk(spoiled), replace(wanted, key=f"{path} {dtype} near", saturation=float(top - 1)))
    np.testing.assert_allclose(near.counts, expected.counts, atol=1e-6)
    assert near.notes == ("saturated", "saturated")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("dtype", "value", "dummy"),
    [("uint64", 2**64 - 2, float(2**64)), ("uint64", 2**53, None), ("int64", -(2**63), None)],
)
def test_numbers_that_no_sum_could_hold_are_no_counts(spec, images, dtype, value, dummy, path):
    """In 64 bits a pixel of 2^53 or more would be rounded, two of 2^63 give 0: they are left out, and said to be."""
    clean, where = images[:1].astype(dtype), np.zeros(SHAPE, dtype=bool)
    where[20:40, 30:50] = True
    spoiled = clean.copy()
    spoiled[:, where] = value
    got = integrate(chunk(spoiled), replace(spec, key=f"{path} huge {dummy}", dummy=dummy, **PATHS[path]))
    expected = integrate(chunk(clean), replace(spec, key=f"{path} hole", mask=spec.mask | where, **PATHS[path]))
    np.testing.assert_allclose(got.counts, expected.counts, atol=1e-6)
    np.testing.assert_allclose(got.intensity, expected.intensity, rtol=1e-9)
    assert got.notes == ("saturated",)


@pytest.mark.parametrize("summing", [binning.whole_sums, compiled.whole_sums], ids=["plain", "compiled"])
@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_sums_of_64_bits_are_those_of_whole_numbers(dtype, summing):
    """Near the largest counts there are, against Python's own integers: a float64 loses the last bits of the sum."""
    image = (2**37 - 1 - np.random.default_rng(8).integers(0, 1000, 2**18)).astype(dtype)
    expected = sum(image.tolist())
    assert int(float(expected)) != expected
    bins = binning.WholePixels(np.zeros(image.size, np.uint16), 1)
    found = summing(image[None], bins, binning.Limits.of(None, 0.0, None))
    assert found.raw[0].tolist() == [expected] and found.rejected.tolist() == [0]


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_a_dummy_reaches_as_far_as_its_delta_and_no_further(spec, images, dtype):
    """|value - Dummy| <= DDummy means not measured (formats.md §1.3)."""
    for value, lost in ((-7, 0), (-6, 4), (-2, 4), (-1, 0)):
        frames = images[:1].astype(dtype)
        frames[0, 20:22, 30:32] = value
        got = integrate(chunk(frames), replace(spec, key="delta", dummy=-4.0, dummy_delta=2.0))
        assert integrate(chunk(images[:1]), spec).counts.sum() - got.counts.sum() == lost


@pytest.mark.parametrize(("dummy", "delta"), [(1.0, 0.0), (-1.0, 2.5)])
def test_flat_and_dark_are_not_looked_through_for_dummies(ai, spec, images, dummy, delta):
    """pyFAI holds the flat against the dummy, too: with a flat of 1 no pixel would be left (formats.md §3.9)."""
    plain = replace(spec, key="ones", flat=np.ones(SHAPE), dark=np.ones(SHAPE))
    got = integrate(chunk(images[:1]), replace(plain, key=f"ones {dummy}", dummy=dummy, dummy_delta=delta))
    expected = integrate(chunk(images[:1]), plain)
    np.testing.assert_array_equal(got.counts, expected.counts)
    np.testing.assert_array_equal(got.intensity, expected.intensity)
    theirs = by_pyfai(ai, plain, images[0], dummy=dummy, delta_dummy=delta)
    assert expected.counts.sum() > 0 and theirs.count.sum() == 0  # or the trap is gone, and the words above with it


def test_true_zeros_count_where_no_dummy_is_set(spec):
    image = np.zeros((1, *SHAPE), np.uint16)
    image[0, ::2] = 20
    curves = integrate(chunk(image), replace(spec, key="zeros", pedestal=0.0, dark=None))
    assert curves.counts.sum() == integrate(chunk(image + 1), spec).counts.sum()


@pytest.mark.parametrize(
    ("spoil", "word"),
    [(lambda f: f.fill(0), "all_zero"), (lambda f: f.__setitem__((30, 40), np.nan), "nan")],
)
def test_a_bad_frame_is_named_and_the_others_untouched(spec, images, spoil, word):
    frames = images[:3].astype(np.float32)
    good = integrate(chunk(frames), spec)
    spoil(frames[1])
    if word == "nan":
        frames[1][np.isnan(frames[1]) & spec.mask] = 1
        frames[1][~spec.mask & (np.arange(SHAPE[1]) == 40)] = np.inf
    curves = integrate(chunk(frames), spec)
    assert curves.problems[1].startswith(word + ":")
    assert np.isnan(curves.intensity[1]).all()
    np.testing.assert_array_equal(curves.intensity[[0, 2]], good.intensity[[0, 2]])


def test_splitting_is_said_so(spec, images):
    split = integrate(chunk(images[:1]), replace(spec, key="split", splitting="full"))
    assert split.correlated
    assert not integrate(chunk(images[:1]), spec).correlated


def test_bin_centers_are_linear(spec):
    q = bin_centers(spec)
    np.testing.assert_allclose(np.diff(q), (9.0 - 0.2) / BINS)
    assert q[0] == pytest.approx(0.2 + 8.8 / BINS / 2)


def test_a_used_spec_travels_without_any_engine(spec, images):
    """A pyFAI integrator that was used pickles to megabytes, or loses its engines (formats.md §3.1, §3.7)."""
    arrays = sum(a.nbytes for a in (spec.mask, spec.dark, spec.dark_variance, spec.flat))
    before = integrate(chunk(images[:2]), spec)
    packed = pickle.dumps(spec)
    assert len(packed) < arrays + 10_000
    after = integrate(chunk(images[:2]), replace(pickle.loads(packed), key="sent"))
    np.testing.assert_array_equal(after.intensity, before.intensity)


@pytest.mark.parametrize(("splitting", "low", "high"), [("none", -0.03, 0.03), ("full", 0.1, 0.9)])
def test_only_split_pixels_tie_neighbouring_bins_together(ai, splitting, low, high):
    """Correlation of neighbouring bins over many frames of photons, 0 without splitting (formats.md §3.3)."""
    rng, n = np.random.default_rng(6), 300
    frames = rng.poisson(20, (n, *SHAPE)).astype(np.int32)
    plain = IntegrationSpec(
        key=f"correlation {splitting}", geometry=ai.get_config(), solid_angle_sr=1.0, mask=np.zeros(SHAPE, bool),
        bins=80, q_range_nm=(0.5, 4.0), splitting=splitting, polarization=None, solid_angle=False,
        gain=1.0, read_noise=0.0, pedestal=0.0,
    )  # fmt: skip
    curves = integrate(chunk(frames, 1.0), plain)
    pulls = (curves.intensity - curves.intensity.mean(axis=0)) / curves.intensity.std(axis=0)
    assert low < np.mean(pulls[:, 1:] * pulls[:, :-1]) < high
