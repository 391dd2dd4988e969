"""Frames → curves: pyFAI's geometry and pixel-to-bin operator, sums of counts, and the variance that follows from them.

I(q) = Σ (S - b - D) / Σ (F · Ω_rel · P) / (Ω_0 · monitor): per steradian and per monitor unit, as the beamline's own
reduction has it (formats.md §1.4), and σ(q) = √(gain·Σ (S - b - D) + N·read²) / Σ (F · Ω_rel · P) / (Ω_0 · monitor).
All sums but Σ S are the same for every frame (science.binning). The dark's own error, equal in all frames, stays apart.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.science import binning, corrections, outliers
from saxs_pipeline.science.binning import Bins, Limits, SplitPixels, Sums, WholePixels
from saxs_pipeline.science.orientation import stored, turned
from saxs_pipeline.science.outliers import SigmaClip
from saxs_pipeline.science.pixel_mask import Bits
from saxs_pipeline.types import Bools, Curves, Floats, FrameChunk, Ints

_SPLIT = {"none": "no", "bbox": "bbox", "full": "full"}

COMPILE_FROM_PIXELS = 10**9
"""Pixels of all frames from which on compiled sums save more than the seconds that they cost."""

NO_PIXEL = 1e-6
"""What is left of a bin whose pixels, shared with others, were all left out: rounding."""

NO_EXPOSURE = "exposure_nan: the frame has no exposure, with which its dark is scaled"

_KEPT = 2
"""Operators in memory; a run needs one."""

_building = threading.Lock()
"""pyFAI evaluates geometry with numexpr expressions shared by all integrators: two threads at once crash or get other
numbers (docs/adr/0006). Building an operator happens under this lock."""


@dataclass(frozen=True, eq=False)
class IntegrationSpec:
    """All that turns pixels into a curve; `key` names it, so that a worker builds its operator once.

    geometry: pyFAI's `get_config()`; mask (ny, nx) True = not used; dark, dark_variance, flat (ny, nx) or None;
    pedestal, read_noise, saturation in ADU, gain in ADU per photon; q_range_nm of the bins' outer edges;
    solid_angle_sr of a pixel (Ω_0); dark_exposure_s: the dark grows with the exposure and is that of this one, None: it
    is the same in every frame; orientation: from these images, as stored, to those that the geometry means; sensor: its
    material and thickness, m; clip: outliers of a bin are left out, which needs splitting none; device: what the pixels
    are added up on, "cpu" or an OpenCL device, by name; bad_pixels: kinds found and masked, in words; pixel_mask
    (ny, nx): why pixels are in the mask, None where that is not known; pixels: in all frames to come, which decides
    only how they are added up.
    """

    key: str
    geometry: Mapping[str, Any]
    solid_angle_sr: float
    mask: Bools
    bins: int
    q_range_nm: tuple[float, float]
    splitting: str
    polarization: float | None
    solid_angle: bool
    gain: float
    read_noise: float
    pedestal: float
    dark: Floats | None = None
    dark_variance: Floats | None = None
    flat: Floats | None = None
    dummy: float | None = None
    dummy_delta: float = 0.0
    saturation: float | None = None
    dark_exposure_s: float | None = None
    orientation: str = "none"
    sensor: tuple[str, float] | None = None
    clip: SigmaClip | None = None
    device: str = "cpu"
    bad_pixels: tuple[str, ...] = ()
    pixel_mask: Bits | None = None
    pixels: int = 0

    @property
    def mask_as_meant(self) -> Bools:
        """The mask of images that are turned as the geometry means them."""
        return turned(self.mask, self.orientation)

    @cached_property
    def beam_centre_px(self) -> tuple[float, float]:
        """Where the beam meets the image that is meant, (x, y) in px from its first corner; x is along a row.

        pyFAI's getFit2D leaves out that a detector of a PONI file may count its rows or columns backwards (Exif 1-4).
        """
        integrator, (ny, nx) = build_integrator(self.geometry), self.mask_as_meant.shape
        found, orientation = integrator.getFit2D(), int(integrator.detector.orientation)
        x, y = float(found["centerX"]), float(found["centerY"])
        return nx - x if orientation in (1, 4) else x, ny - y if orientation in (1, 2) else y

    @property
    def limits(self) -> Limits:
        """Pixel values that are no measurement."""
        return Limits.of(self.dummy, self.dummy_delta, self.saturation)


class _PerBin(NamedTuple):
    """Sums over the used pixels of each bin, (…, m): w, w·F·Ω_rel·P, w·D, and the same of w² for variances."""

    pixels: Floats
    norm: Floats
    dark: Floats
    pixels_squared: Floats
    dark_squared: Floats


@dataclass(frozen=True, eq=False)
class _Operator:
    """What a spec comes to: the bins, F·Ω_rel·P and D of each pixel (ny·nx,), what a bin has without rejected pixels,
    and √Σ w²·var D / Σ w·F·Ω_rel·P (m,)."""

    bins: Bins
    norm: Floats
    dark: Floats
    whole: _PerBin
    dark_sigma: Floats


def integrate(chunk: FrameChunk, spec: IntegrationSpec) -> Curves:
    """Curves per steradian and monitor unit of a chunk; frames that cannot be used get NaN and a problem."""
    operator = _operator(spec)
    images = chunk.images.reshape(len(chunk.images), -1)
    sums = _summing(images.dtype, spec, operator.bins)(images, operator.bins, spec.limits)
    darks = _dark_share(chunk, spec)
    problems = tuple(
        problem or ("" if share >= 0 else NO_EXPOSURE) or _image_problem(image, empty, spec, operator.bins.used)
        for image, empty, share, problem in zip(images, sums.empty.tolist(), darks, chunk.problems, strict=True)
    )
    usable = np.array([not problem for problem in problems])
    there = _remaining(images, sums, spec, operator)
    if spec.clip is not None:
        _leave_out_outliers(images, np.flatnonzero(usable), darks, sums, there, spec=spec, op=operator)
    signal = sums.raw - spec.pedestal * there.pixels - darks[:, None] * there.dark
    squared = sums.raw_squared - spec.pedestal * there.pixels_squared - darks[:, None] * there.dark_squared
    variance = corrections.bin_variance(squared, there.pixels_squared, spec.gain, spec.read_noise)
    per_monitor = np.full(len(images), np.nan)
    np.divide(1 / spec.solid_angle_sr, chunk.monitor, out=per_monitor, where=usable)
    scale = np.full_like(signal, np.nan)  # a bin without pixels is NaN, not 0 ± 0
    np.divide(per_monitor[:, None], there.norm, out=scale, where=there.pixels > 0)
    return Curves(
        q_nm=bin_centers(spec),
        intensity=signal * scale,
        statistical=np.sqrt(variance) * scale,
        shared=np.zeros(spec.bins),
        counts=np.where(usable[:, None], there.pixels, 0.0),
        index=chunk.index,
        start_s=chunk.start_s,
        exposure_s=chunk.exposure_s,
        problems=problems,
        notes=_notes(images, sums, spec, operator.bins.used),
        unit="normalised",
        correlated=spec.splitting != "none",
        dark_sigma=operator.dark_sigma,
        dark_factor=np.where(usable, darks * per_monitor, 0.0),
        taken_off=np.zeros(spec.bins),
    )


def bin_pixels(spec: IntegrationSpec) -> Floats:
    """Pixels of each q bin in a frame that lacks none, (m,)."""
    return _operator(spec).whole.pixels


def bin_centers(spec: IntegrationSpec) -> Floats:
    """Centres of the q bins, 1/nm, (m,)."""
    low, high = spec.q_range_nm
    edges = np.linspace(low, high, spec.bins + 1, dtype=np.float64)
    return (edges[:-1] + edges[1:]) / 2


def pixel_solid_angle(integrator: Any) -> float:
    """Ω_0 = pixel area / distance², sr: the solid angle of a pixel at the point of normal incidence."""
    return float(integrator.detector.pixel1 * integrator.detector.pixel2 / integrator.dist**2)


def build_integrator(geometry: Mapping[str, Any]) -> Any:
    """pyFAI integrator from its `get_config()` (pickling an integrator would drop its engines)."""
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

    integrator = AzimuthalIntegrator()
    integrator.set_config(dict(geometry))
    return integrator


def pixel_q_nm(integrator: Any, shape: tuple[int, ...]) -> Floats:
    """|q| at the pixel centres, 1/nm, (ny, nx)."""
    with _building:
        q: Floats = integrator.center_array(shape, unit="q_nm^-1")
    return q


# --- the frames ------------------------------------------------------------------------------------------------------


def _summing(dtype: np.dtype[Any], spec: IntegrationSpec, bins: Bins) -> Callable[..., Sums]:
    """How images of this type are added up; all ways that fit on the processor give the same bits."""
    if spec.device != "cpu":
        from saxs_pipeline.stages import opencl

        return opencl.whole_sums
    if not isinstance(bins, WholePixels) or dtype.kind not in "iu":
        return binning.sums
    if spec.pixels < COMPILE_FROM_PIXELS:
        return binning.whole_sums
    from saxs_pipeline.stages import compiled

    return compiled.whole_sums


def _image_problem(image: NDArray[Any], empty: bool, spec: IntegrationSpec, used: Bools) -> str:
    """Why a frame (ny·nx,) is no measurement ("all_zero", "nan"), or ""."""
    if empty:
        return "all_zero: every pixel is 0, the frame was not recorded"
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        bad = ~np.isfinite(image) & used & ~spec.limits.dummies(image)
        if bad.any():
            return f"nan: {bad.sum()} unmasked pixels are not finite"
    return ""


def _remaining(images: NDArray[Any], sums: Sums, spec: IntegrationSpec, operator: _Operator) -> _PerBin:
    """Sums over the pixels that count in each frame, (n, m): all used ones but those that were no measurement."""
    rows = _PerBin(*(np.repeat(part[None], len(images), axis=0) for part in operator.whole))
    for k in np.flatnonzero(sums.rejected).tolist():
        _take_out(rows, k, np.flatnonzero(spec.limits.reject(images[k]) & operator.bins.used), operator)
    return rows


def _take_out(rows: _PerBin, k: int, pixels: Ints, operator: _Operator) -> None:
    """These pixels of frame k no longer count, in place."""
    for row, lost in zip(rows, _per_bin(operator.bins, operator.norm, operator.dark, pixels), strict=True):
        row[k] -= lost
    rows.pixels[k][rows.pixels[k] < NO_PIXEL] = 0


def _leave_out_outliers(
    images: NDArray[Any],
    usable: Ints,
    darks: Floats,
    sums: Sums,
    there: _PerBin,
    *,
    spec: IntegrationSpec,
    op: _Operator,
) -> None:
    """Outliers of their bins no longer count in the usable frames, in place."""
    for k in usable.tolist():
        kept, odd = _judged(images[k], float(darks[k]), spec, op)
        if len(odd):  # added up again: what is left would be lost beside a large value that is taken away
            sums.raw[k] = sums.raw_squared[k] = op.bins.sum(images[k][kept], kept)
            _take_out(there, k, odd, op)


def _judged(image: NDArray[Any], share: float, spec: IntegrationSpec, op: _Operator) -> tuple[Ints, Ints]:
    """The used pixels of a frame (ny·nx,) that are measurements: those that belong to their bin, and the outliers."""
    assert isinstance(op.bins, WholePixels) and spec.clip is not None
    order = op.bins.in_order[0]
    pixels = order[~spec.limits.reject(image[order])]
    signal = image[pixels].astype(np.float64) - spec.pedestal - share * op.dark[pixels]
    odd = outliers.outliers(
        signal, op.norm[pixels], op.bins.label[pixels], spec.clip, gain=spec.gain, read_noise=spec.read_noise
    )
    return pixels[~odd], pixels[odd]


def _notes(images: NDArray[Any], sums: Sums, spec: IntegrationSpec, used: Bools) -> tuple[str, ...]:
    """ "saturated" for frames of which saturated pixels were left out."""
    return tuple(
        "saturated" if rejected and (spec.limits.saturated(image) & used).any() else ""
        for image, rejected in zip(images, sums.rejected.tolist(), strict=True)
    )


def _dark_share(chunk: FrameChunk, spec: IntegrationSpec) -> Floats:
    """How many times the dark is in each frame, (n,)."""
    if spec.dark is None or spec.dark_exposure_s is None:
        return np.full(len(chunk.index), 0.0 if spec.dark is None else 1.0)
    return chunk.exposure_s / spec.dark_exposure_s


# --- the operator ----------------------------------------------------------------------------------------------------

_operators: OrderedDict[str, _Operator] = OrderedDict()


def _operator(spec: IntegrationSpec) -> _Operator:
    """The operator of a spec, built once per process; it is never changed, so threads may share it."""
    with _building:
        if spec.key not in _operators:
            _operators[spec.key] = _build(spec)
            if len(_operators) > _KEPT:
                _operators.popitem(last=False)
        _operators.move_to_end(spec.key)
        return _operators[spec.key]


def _build(spec: IntegrationSpec) -> _Operator:
    integrator = build_integrator(spec.geometry)
    if spec.sensor is not None:
        integrator.enable_parallax(True, *spec.sensor)
    else:  # a PONI file may ask for it: half of a correction that nobody chose here
        integrator.enable_parallax(False)
    return _with_dark(_bins(integrator, spec), _norm(integrator, spec), spec)


def _norm(integrator: Any, spec: IntegrationSpec) -> Floats:
    """F·Ω_rel·P of each pixel, (ny·nx,), F with the sensor's efficiency at oblique incidence."""
    shape = spec.mask_as_meant.shape
    norm = np.ones(spec.mask.shape) if spec.flat is None else spec.flat.copy()
    if spec.solid_angle:
        norm *= stored(integrator.solidAngleArray(shape), spec.orientation)
    if spec.polarization is not None:
        norm *= stored(integrator.polarization(shape, spec.polarization), spec.orientation)
    if spec.sensor is not None:
        cosine, depth = integrator.solidAngleArray(shape, order=1), integrator.parallax.sensor.mu * spec.sensor[1]
        norm *= stored(corrections.sensor_efficiency(cosine, depth), spec.orientation)
    return norm.ravel()


def _with_dark(bins: Bins, norm: Floats, spec: IntegrationSpec) -> _Operator:
    dark = np.zeros(norm.size) if spec.dark is None else spec.dark.ravel()
    whole = _per_bin(bins, norm, dark)
    dark_sigma = np.full(spec.bins, np.nan)
    spread = np.zeros(norm.size) if spec.dark_variance is None else spec.dark_variance.ravel()
    np.divide(np.sqrt(bins.sum_squared(spread)), whole.norm, out=dark_sigma, where=whole.pixels > 0)
    return _Operator(bins, norm, dark, whole, dark_sigma)


def _bins(integrator: Any, spec: IntegrationSpec) -> Bins:
    """pyFAI's own assignment of pixels to bins, bit for bit that of its `integrate1d`."""
    mask = np.ascontiguousarray(spec.mask_as_meant)
    sparse = integrator.setup_sparse_integrator(
        mask.shape,
        spec.bins,
        mask=mask,
        pos0_range=spec.q_range_nm,
        unit="q_nm^-1",
        split=_SPLIT[spec.splitting],
        algo="CSR",
        empty=np.nan,
    )
    if spec.splitting == "none":
        label = np.full(mask.size, spec.bins, np.uint16 if spec.bins < 2**16 else np.int32)
        label[sparse.indices] = np.repeat(np.arange(spec.bins, dtype=label.dtype), np.diff(sparse.indptr))
        return WholePixels(stored(label.reshape(mask.shape), spec.orientation).ravel(), spec.bins)
    from scipy.sparse import csr_array

    order = stored(np.arange(mask.size).reshape(mask.shape), spec.orientation).ravel()
    share = csr_array((sparse.data, sparse.indices, sparse.indptr), (spec.bins, mask.size), dtype=np.float64)
    share = share.tocsc()[:, order]
    return SplitPixels(share, share.multiply(share).tocsc())


def _per_bin(bins: Bins, norm: Floats, dark: Floats, pixels: Ints | None = None) -> _PerBin:
    """Sums of all used pixels, or of these."""
    if pixels is not None:
        norm, dark = norm[pixels], dark[pixels]
    one = np.ones(norm.size)
    return _PerBin(
        bins.sum(one, pixels),
        bins.sum(norm, pixels),
        bins.sum(dark, pixels),
        bins.sum_squared(one, pixels),
        bins.sum_squared(dark, pixels),
    )
