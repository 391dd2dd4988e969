"""Frames → curves: pyFAI's geometry and sparse engine, with the variance given explicitly (science.md §1).

I(q) = Σ (S - D - b) / Σ (F · Ω_rel · P) / (Ω_0 · monitor), σ(q) = √(Σ var) / Σ (F · Ω_rel · P) / (Ω_0 · monitor): per
steradian and per monitor unit, as the beamline's own reduction has it (formats.md §1.4).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.science import corrections
from saxs_pipeline.types import Bools, Curves, Floats, FrameChunk

_SPLIT = {"none": "no", "bbox": "bbox", "full": "full"}

_building = threading.Lock()
"""pyFAI evaluates geometry with numexpr expressions shared by all integrators: two threads at once crash or get other
numbers (docs/adr/0006). Everything but the integration itself happens under this lock."""


@dataclass(frozen=True, eq=False)
class IntegrationSpec:
    """All that turns pixels into a curve; `key` names it, so that a worker builds its integrator once.

    geometry: pyFAI's `get_config()`; mask (ny, nx) True = not used; dark, dark_variance, flat (ny, nx) or None;
    pedestal, read_noise, saturation in ADU, gain in ADU per photon; q_range_nm of the bins' outer edges;
    solid_angle_sr of a pixel (Ω_0).
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


@dataclass(frozen=True, eq=False)
class _Engine:
    """pyFAI's sparse operator for a spec, the pixels' F·Ω_rel·P (float32), and what is subtracted from an image."""

    sparse: Any
    norm: NDArray[np.float32]
    offset: Floats | float
    offset32: NDArray[np.float32] | np.float32


class _Latest(threading.local):
    """This thread's engine: a shared one silently returns other frames' results (formats.md §3.1)."""

    key: str = ""
    engine: _Engine | None = None


_latest = _Latest()


def integrate(chunk: FrameChunk, spec: IntegrationSpec) -> Curves:
    """Curves per steradian and monitor unit of a chunk; frames that cannot be used get NaN and a problem."""
    n, m = len(chunk.index), spec.bins
    intensity, sigma, counts = np.full((n, m), np.nan), np.full((n, m), np.nan), np.zeros((n, m))
    problems, notes = list(chunk.problems), [""] * n
    for k in range(n):
        problems[k] = problems[k] or image_problem(chunk.images[k], spec)
        if not problems[k]:
            intensity[k], sigma[k], counts[k], notes[k] = _integrate_image(chunk.images[k], spec)
    usable = np.array([not problem for problem in problems])
    norm: Floats = np.where(usable, spec.solid_angle_sr * chunk.monitor, np.nan)[:, None]
    return Curves(
        q_nm=bin_centers(spec),
        intensity=intensity / norm,
        statistical=sigma / norm,
        shared=np.zeros(m),
        counts=counts,
        index=chunk.index,
        start_s=chunk.start_s,
        exposure_s=chunk.exposure_s,
        problems=tuple(problems),
        notes=tuple(notes),
        unit="normalised",
        correlated=spec.splitting != "none",
    )


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
    integrator.empty = np.nan
    return integrator


def image_problem(image: NDArray[Any], spec: IntegrationSpec) -> str:
    """Why a frame is no measurement ("all_zero", "nan"), or ""; a few rows decide for nearly every good frame."""
    if not image[: image.shape[0] // 8].any() and not image.any():
        return "all_zero: every pixel is 0, the frame was not recorded"
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        bad = ~np.isfinite(image) & ~spec.mask
        if spec.dummy is not None and np.isnan(spec.dummy):
            bad &= ~np.isnan(image)
        if bad.any():
            return f"nan: {bad.sum()} unmasked pixels are not finite"
    return ""


def pixel_q_nm(integrator: Any, shape: tuple[int, ...]) -> Floats:
    """|q| at the pixel centres, 1/nm, (ny, nx)."""
    with _building:
        q: Floats = integrator.center_array(shape, unit="q_nm^-1")
    return q


def _integrate_image(image: NDArray[Any], spec: IntegrationSpec) -> tuple[Floats, Floats, Floats, str]:
    """I and σ (m,) per pixel norm, pixels per bin, and a note on the frame."""
    engine = _engine(spec)
    signal = corrections.signal(image, engine.offset32 if image.dtype.itemsize <= 2 else engine.offset)
    variance = corrections.pixel_variance(signal, spec.gain, spec.read_noise, spec.dark_variance)
    bad = corrections.not_measured(image, spec.dummy, spec.dummy_delta, spec.saturation)
    note = ""
    if bad is not None:
        signal[bad] = np.nan
        if (corrections.saturated(image, spec.dummy, spec.dummy_delta, spec.saturation) & ~spec.mask).any():
            note = "saturated"
    sums = engine.sparse.integrate_ng(signal, variance=variance, flat=engine.norm)
    norm = np.where(sums.count > 0, sums.normalization, np.nan)  # a bin without pixels is NaN, not 0 ± 0
    return sums.signal / norm, np.sqrt(sums.variance) / norm, sums.count, note


def _engine(spec: IntegrationSpec) -> _Engine:
    if _latest.engine is None or _latest.key != spec.key:
        with _building:
            _latest.engine, _latest.key = _build_engine(spec), spec.key
    return _latest.engine


def _build_engine(spec: IntegrationSpec) -> _Engine:
    integrator, shape = build_integrator(spec.geometry), spec.mask.shape
    norm = np.ones(shape) if spec.flat is None else spec.flat.copy()
    if spec.solid_angle:
        norm *= integrator.solidAngleArray(shape)
    if spec.polarization is not None:
        norm *= integrator.polarization(shape, spec.polarization)
    sparse = integrator.setup_sparse_integrator(
        shape,
        spec.bins,
        mask=spec.mask,
        pos0_range=spec.q_range_nm,
        unit="q_nm^-1",
        split=_SPLIT[spec.splitting],
        algo="CSC",
        empty=np.nan,
    )
    offset = spec.pedestal if spec.dark is None else spec.pedestal + spec.dark
    return _Engine(sparse, norm.astype(np.float32), offset, np.asarray(offset).astype(np.float32))
