"""The stated errors are those of simulated frames from 0.01 to 10⁵ photons per pixel, in every q bin.

Truth by construction: photons of a known mean per pixel, Poisson; read noise, normal; a dark level per pixel.
"""

from dataclasses import replace

import numpy as np
import pytest
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from saxs_pipeline.science import corrections, uncertainty
from saxs_pipeline.science.outliers import SigmaClip
from saxs_pipeline.stages import integrate as stage
from saxs_pipeline.stages import reduce
from saxs_pipeline.stages.integrate import IntegrationSpec, integrate, pixel_solid_angle
from saxs_pipeline.types import FrameChunk

PEDESTAL = 20.0
FRAMES, DARKS, BACKGROUNDS = 3, 4, 4
RUNS = 2500
LEVELS = (0.01, 0.3, 30.0, 1e5)


def geometry(shape):
    detector = Detector(pixel1=2e-3, pixel2=2e-3, max_shape=shape)
    return AzimuthalIntegrator(0.6, shape[0] * 1e-3, shape[1] * 1e-3, detector=detector, wavelength=0.69e-10)


def specification(shape, bins, *, gain, read_noise, first_px=4, flat=True):
    """Bins from a ring of `first_px` to the nearest edge of the detector."""
    ai, rng = geometry(shape), np.random.default_rng(0)
    q_range = tuple(
        ai.center_array(shape, unit="q_nm^-1")[shape[0] // 2, shape[1] // 2 + np.array([first_px, shape[0] // 2 - 1])]
    )
    return IntegrationSpec(
        key=f"pulls {shape} {bins} {gain} {flat}",
        geometry=ai.get_config(),
        solid_angle_sr=pixel_solid_angle(ai),
        mask=rng.random(shape) < 0.05,
        bins=bins,
        q_range_nm=q_range,
        splitting="none",
        polarization=0.97,
        solid_angle=True,
        gain=gain,
        read_noise=read_noise,
        pedestal=PEDESTAL if read_noise else 0.0,
        flat=1 + 0.1 * rng.random(shape) if flat else None,
    )


def chunk(images, monitor=1.0):
    n = len(images)
    return FrameChunk(np.arange(n), images, np.zeros(n), np.ones(n), np.full(n, monitor), ("",) * n)


def expected(photons, spec):
    """I(q) of a mean number of photons per pixel (ny, nx)."""
    operator = stage._operator(spec)
    return operator.bins.sum(spec.gain * photons.ravel()) / operator.whole.norm / spec.solid_angle_sr


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("references", [False, True], ids=["alone", "dark, background"])
def test_a_detector_with_read_noise(level, references):
    """Each run has a dark and a background of its own, whose errors its frames share."""
    shape = (30, 36)
    spec = specification(shape, 5, gain=1.6, read_noise=2.0)
    operator, rng = stage._operator(spec), np.random.default_rng(7)
    photons = level * (0.5 + rng.random(shape))
    level_adu = 3 * rng.random(shape)

    def frames(mean, n):
        adu = spec.gain * rng.poisson(mean, (n, *shape)) + PEDESTAL + level_adu + rng.normal(0, 2.0, (n, *shape))
        return adu.astype(np.float64)  # not rounded: that adds 1/12 to the variance, which read_noise would have

    truth = expected(photons, spec)
    pulls = []
    for run in range(RUNS):
        one = spec
        if references:
            darks = frames(0.0 * photons, DARKS)
            dark = corrections.dark_from_sums(
                darks.sum(0), (darks**2).sum(0), DARKS, pedestal=PEDESTAL, gain=spec.gain, read_noise=2.0
            )
            one = replace(spec, key=f"run {run}", dark=dark.level, dark_variance=dark.variance)
            stage._operators[one.key] = stage._with_dark(operator.bins, operator.norm, one)
        else:
            one = replace(spec, key="known dark", dark=level_adu, dark_variance=0 * level_adu)
        curves = integrate(chunk(frames(1.5 * photons if references else photons, FRAMES)), one)
        if references:
            behind = integrate(chunk(frames(0.5 * photons, BACKGROUNDS)), one)
            background = reduce.background(behind, np.ones(BACKGROUNDS), "frames", 1.0)
            curves = uncertainty.subtract(curves, background)
        pulls.append((curves.intensity - truth) / curves.sigma)
    pulls = np.concatenate(pulls)
    np.testing.assert_allclose(pulls.std(axis=0), 1.0, atol=0.03)
    np.testing.assert_allclose(pulls.mean(axis=0), 0.0, atol=0.08)


def counted(level, shape, rng):
    """Photons of a flat mean, (n, ny, nx); where they are few each is thrown on its own, which is the same."""
    if level > 0.1:
        return rng.poisson(level, shape).astype(np.uint32)
    pixels = np.prod(shape)
    where = rng.integers(pixels, size=rng.poisson(level * pixels))
    return np.bincount(where, minlength=pixels).astype(np.uint32).reshape(shape)


@pytest.mark.parametrize("level", [0.01, 1.0, 1e5])
@pytest.mark.parametrize("flat", [False, True], ids=["alone", "flat, background"])
def test_a_photon_counter(level, flat):
    shape, bins = ((200, 220), 2) if level < 0.1 else ((30, 36), 5)
    spec = specification(shape, bins, gain=1.0, read_noise=0.0, first_px=60 if level < 0.1 else 4, flat=flat)
    rng = np.random.default_rng(8)
    photons = np.full(shape, level)
    pulls = []
    for _ in range(12):
        curves = integrate(chunk(counted((1.5 if flat else 1) * level, (500, *shape), rng)), spec)
        if flat:  # a background that is known
            curves = replace(curves, intensity=curves.intensity - expected(0.5 * photons, spec))
        pulls.append((curves.intensity - expected(photons, spec)) / curves.sigma)
    pulls = np.concatenate(pulls)
    np.testing.assert_allclose(pulls.std(axis=0), 1.0, atol=0.03)


def test_pyfais_poisson_model_is_far_off_at_few_photons_and_this_is_not():
    shape = (200, 220)
    spec = specification(shape, 2, gain=1.0, read_noise=0.0, first_px=60)
    images = counted(0.015, (200, *shape), np.random.default_rng(9))
    curves = integrate(chunk(images), spec)
    scatter = curves.intensity.std(axis=0)
    np.testing.assert_allclose(curves.statistical.mean(axis=0) / scatter, 1.0, atol=0.15)
    theirs = geometry(shape).integrate1d(
        images[0], 2, unit="q_nm^-1", radial_range=spec.q_range_nm, mask=spec.mask, flat=spec.flat,
        polarization_factor=0.97, error_model="poisson", method=("no", "csr", "cython"),
    )  # fmt: skip
    assert (theirs.sigma / spec.solid_angle_sr / scatter > 5).all()


@pytest.mark.parametrize("level", [*LEVELS, 1.0, 10.0])
@pytest.mark.parametrize("read_noise", [0.0, 2.0])
def test_outliers_left_out_leave_the_errors_right(level, read_noise):
    """Clean frames, of which sigma clipping may take nothing that shows."""
    shape, runs = ((200, 220), 20) if level < 0.1 else ((100, 110), 40)
    gain = 1.6 if read_noise else 1.0
    spec = specification(shape, 4, gain=gain, read_noise=read_noise, first_px=shape[0] // 5)
    spec = replace(spec, key=f"clipped {read_noise} {shape}", clip=SigmaClip(5.0, 5))
    rng = np.random.default_rng(10)
    photons = level * stage._operator(spec).norm.reshape(shape)
    pulls, lost = [], 0.0
    for _ in range(runs):
        images = spec.gain * rng.poisson(photons, (20, *shape)) + spec.pedestal
        if read_noise:
            images = images + rng.normal(0, read_noise, images.shape)
        curves = integrate(chunk(images), spec)
        pulls.append((curves.intensity - expected(photons, spec)) / curves.sigma)
        lost += (stage.bin_pixels(spec) - curves.counts).sum()
    pulls = np.concatenate(pulls)
    np.testing.assert_allclose(pulls.mean(axis=0), 0.0, atol=0.1)
    assert pulls.std() == pytest.approx(1.0, abs=0.03)
    assert lost < 3e-6 * len(pulls) * stage.bin_pixels(spec).sum()
