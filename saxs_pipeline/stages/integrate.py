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

_METHODS = {"none": ("no", "csc", "cython"), "bbox": ("bbox", "csc", "cython"), "full": ("full", "csc", "cython")}


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


class _Latest(threading.local):
    """This thread's integrator: a shared one silently returns other frames' results (formats.md §3.1)."""

    key: str = ""
    integrator: Any = None


_latest = _Latest()


def integrate(chunk: FrameChunk, spec: IntegrationSpec) -> Curves:
    """Curves per steradian and monitor unit of a chunk; frames that cannot be used get NaN and a problem."""
    n, m = len(chunk.index), spec.bins
    intensity, sigma, counts = np.full((n, m), np.nan), np.full((n, m), np.nan), np.zeros((n, m))
    problems, notes = list(chunk.problems), [""] * n
    for k in range(n):
        problems[k] = problems[k] or image_problem(chunk.images[k], spec)
        if problems[k]:
            continue
        signal, variance, saturated = _pixels(chunk.images[k], spec)
        result = _integrate1d(signal, variance, spec)
        intensity[k], sigma[k], counts[k] = result.intensity, result.sigma, result.count
        notes[k] = "saturated" if saturated else ""
    intensity[counts == 0] = sigma[counts == 0] = np.nan  # pyFAI leaves 0 ± 0 or NaN there, by engine
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


def _pixels(image: NDArray[Any], spec: IntegrationSpec) -> tuple[Floats, Floats, bool]:
    """Signal and variance (ny, nx) in ADU and ADU², NaN where not measured; whether an unmasked pixel is saturated."""
    signal = corrections.signal(image, spec.pedestal, spec.dark)
    variance = corrections.pixel_variance(
        signal, spec.gain, spec.read_noise, 0.0 if spec.dark_variance is None else spec.dark_variance
    )
    bad = corrections.not_measured(image, spec.dummy, spec.dummy_delta, spec.saturation)
    if bad is not None:
        signal[bad] = np.nan
    saturated = (
        spec.saturation is not None and bad is not None and bool(((image >= spec.saturation) & ~spec.mask).any())
    )
    return signal, variance, saturated


def _integrate1d(signal: Floats, variance: Floats, spec: IntegrationSpec) -> Any:
    # safe=False reuses the engine without hashing mask and range again: right for all but a spec's first frame
    fresh = _latest.key != spec.key
    if fresh:
        _latest.integrator, _latest.key = build_integrator(spec.geometry), spec.key
    return _latest.integrator.integrate1d(
        signal,
        spec.bins,
        unit="q_nm^-1",
        radial_range=spec.q_range_nm,
        variance=variance,
        mask=spec.mask,
        flat=spec.flat,
        polarization_factor=spec.polarization,
        correctSolidAngle=spec.solid_angle,
        method=_METHODS[spec.splitting],
        safe=fresh,
    )
