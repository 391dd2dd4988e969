"""Zingers are left out of their bins, whatever else is corrected; nothing else is."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from saxs_pipeline.science.outliers import SigmaClip
from saxs_pipeline.stages import integrate as stage
from saxs_pipeline.stages.integrate import COMPILE_FROM_PIXELS, IntegrationSpec, bin_pixels, integrate
from saxs_pipeline.types import FrameChunk

SHAPE = (480, 480)
CLIP = SigmaClip(5.0, 5)
GAIN, READ, PEDESTAL = 1.6, 3.0, 10.0
ZINGERS = 100


def chunk(images):
    n = len(images)
    return FrameChunk(np.arange(n), images, np.arange(n) * 0.1, np.full(n, 0.075), np.full(n, 1e5), ("",) * n)


@pytest.fixture(scope="module")
def spec():
    size = 354e-6
    detector = Detector(pixel1=size, pixel2=size, max_shape=SHAPE)
    ai = AzimuthalIntegrator(0.6, 231 * size, 246 * size, 0.02, -0.01, detector=detector, wavelength=0.69e-10)
    rng = np.random.default_rng(0)
    return IntegrationSpec(
        key="zingers",
        geometry=ai.get_config(),
        solid_angle_sr=stage.pixel_solid_angle(ai),
        mask=rng.random(SHAPE) < 0.03,
        bins=150,
        q_range_nm=(0.5, 12.0),
        splitting="none",
        polarization=0.97,
        solid_angle=True,
        gain=GAIN,
        read_noise=READ,
        pedestal=PEDESTAL,
        dark=4 * rng.random(SHAPE),
        dark_variance=np.full(SHAPE, 0.3),
        flat=1 + 0.3 * rng.random(SHAPE),
        dark_exposure_s=0.15,
    )


@pytest.fixture(scope="module")
def photons(spec):
    """3,000 photons per pixel, from 1.5 1/nm on falling as q^-3, a seventh within a bin at first."""
    ai = stage.build_integrator(spec.geometry)
    q = ai.center_array(SHAPE, unit="q_nm^-1")
    return 3000 * np.maximum(q / 1.5, 1) ** -3 + 2


@pytest.fixture(scope="module")
def images(spec, photons):
    rng = np.random.default_rng(1)
    mean = photons * stage._operator(spec).norm.reshape(SHAPE)
    adu = GAIN * rng.poisson(mean, (6, *SHAPE)) + PEDESTAL + spec.dark / 2 + rng.normal(0, READ, (6, *SHAPE))
    return adu.round()


@pytest.fixture(scope="module")
def spoiled(spec, photons, images):
    """Every frame with 100 zingers of its own, of 20 to 2,000 standard deviations, and where they are."""
    rng = np.random.default_rng(2)
    frames, where = images.copy(), np.zeros(images.shape, bool)
    inside = np.flatnonzero(stage._operator(spec).bins.used)
    sigma = np.sqrt(GAIN**2 * photons + READ**2).ravel()
    for frame, hit in zip(frames, where, strict=True):
        pixels = rng.choice(inside, ZINGERS, replace=False)
        hit.ravel()[pixels] = True
        frame.ravel()[pixels] += np.ceil(25 * sigma[pixels] * 80 ** rng.random(ZINGERS))
    return frames, where


def lost(curves, spec):
    return bin_pixels(spec).sum() - curves.counts.sum(axis=1)


def test_a_frame_with_zingers_gives_the_clean_curve_with_the_option_and_not_without(spec, images, spoiled):
    clean, spec_clip = integrate(chunk(images), spec), replace(spec, key="clip", clip=CLIP)
    curves = integrate(chunk(spoiled[0]), spec_clip)
    far = np.abs(curves.intensity - clean.intensity) / clean.statistical
    assert np.nanmax(far) < 1
    np.testing.assert_allclose(curves.statistical, clean.statistical, rtol=0.05)
    np.testing.assert_allclose(lost(curves, spec), ZINGERS, atol=2)
    assert lost(integrate(chunk(images), spec_clip), spec).max() <= 1
    without = integrate(chunk(spoiled[0]), spec)
    assert np.nanmax(np.abs(without.intensity - clean.intensity) / clean.statistical) > 20


@pytest.mark.parametrize(
    ("dtype", "pixels"), [("uint16", 0), ("uint16", COMPILE_FROM_PIXELS), ("float32", 0), ("int64", 0)], ids=str
)
def test_left_out_means_as_if_masked(spec, images, spoiled, dtype, pixels):
    """Also with dummies and saturated pixels in the same frames; the sums are those of a mask with all of these."""
    frames, where = spoiled[0].astype(dtype), spoiled[1].copy()
    frames[:, 100:104, :] = 65535
    frames[:, :, 300] = 60000
    where[:, 100:104, :] = where[:, :, 300] = True
    limits = {"dummy": 65535.0, "saturation": 59000.0}
    curves = integrate(chunk(frames), replace(spec, key=f"{dtype} {pixels}", pixels=pixels, clip=CLIP, **limits))
    assert curves.notes == ("saturated",) * len(frames)
    for k in (0, 3):
        by_hand = replace(spec, key=f"{dtype} by hand {k}", mask=spec.mask | where[k])
        expected = integrate(chunk(images[k : k + 1].astype(dtype)), by_hand)
        same = curves.counts[k] == expected.counts[0]  # a pixel of a clean frame is lost in 10⁶
        assert same.mean() > 0.98
        np.testing.assert_allclose(curves.intensity[k][same], expected.intensity[0][same], rtol=1e-9)
        np.testing.assert_allclose(curves.statistical[k][same], expected.statistical[0][same], rtol=1e-9)


def test_neither_chunks_nor_threads_change_a_bit(spec, spoiled):
    frames, spec_clip = spoiled[0].astype(np.uint16), replace(spec, key="bits", clip=CLIP)
    expected = integrate(chunk(frames), spec_clip)

    def one(k):
        return k, integrate(chunk(frames[k : k + 1]), spec_clip)

    with ThreadPoolExecutor(4) as pool:
        for k, got in pool.map(one, list(range(len(frames))) * 3):
            for name in ("intensity", "statistical", "counts"):
                np.testing.assert_array_equal(getattr(got, name)[0], getattr(expected, name)[k])


def test_frames_that_cannot_be_used_are_left_alone(spec, spoiled):
    frames = spoiled[0].astype(np.float32)
    frames[1], frames[2, 200, 200:300], frames[4] = 0, np.nan, 60000
    whole = replace(spec, key="unusable", clip=CLIP, dummy=60000.0)
    curves = integrate(chunk(frames), whole)
    assert [problem.partition(":")[0] for problem in curves.problems] == ["", "all_zero", "nan", "", "", ""]
    assert np.isnan(curves.intensity[[1, 2, 4]]).all()
    assert not curves.counts[4].any()
    np.testing.assert_array_equal(curves.intensity[3], integrate(chunk(frames[3:4]), whole).intensity[0])


def test_a_value_beyond_all_others_takes_nothing_with_it(spec, images):
    """10³⁰ in a float image: subtracted from a sum it would leave nothing of the rest."""
    frames = images[:1].astype(np.float64)
    frames[0].ravel()[np.flatnonzero(stage._operator(spec).bins.used)[::5000]] = 1e30
    curves = integrate(chunk(frames), replace(spec, key="huge", clip=CLIP))
    clean = integrate(chunk(images[:1]), spec)
    assert np.nanmax(np.abs(curves.intensity - clean.intensity) / clean.statistical) < 1
