"""Known truth → expected photons → detector images; what the truth of a scenario is, `scenarios` says.

Every random number comes from a stream named by (seed, what it is for, frame), so that a frame does not depend on
which others are made with it. All cross sections are in 1/mm per steradian; "scattering" here is cross section times
path length, per steradian: the share of the transmitted photons that goes into unit solid angle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.science.formfactors import gaussian_spheres, intensity_factor, sphere
from saxs_pipeline.science.population import Development
from saxs_pipeline.science.scenarios import Scenario, Truth
from saxs_pipeline.types import BadInput, Bools, Floats

AGBH_PERIOD_NM = 5.8380  # silver behenate, Huang et al. 1993, J. Appl. Cryst. 26, 180
SATURATION_ADU = 65535

_GRID_STEP_NM = 0.0025  # linear interpolation between the points is good to 1e-5 of I(q)
_BEHIND_BEAMSTOP_NM = 0.05  # the windows' q⁻⁴ is cut off below
_DETECTOR, _SCALES, _BEAM, _FRAME = range(4)


def stream(seed: int, *name: int) -> np.random.Generator:
    """Random numbers of their own for (seed, name); both not negative."""
    return np.random.default_rng([seed, *name])


# --- timing and beam -------------------------------------------------------------------------------------------------


def frame_starts(n: int, exposure_s: float, wait_s: float, growth: float) -> Floats:
    """Start of each frame (n,), s: waits of wait_s·growth^(k−1) before frame k = 1…n (Prins SI, S1.4)."""
    return np.asarray(np.cumsum(wait_s * growth ** np.arange(n)) + exposure_s * np.arange(n))


def growth_for_span(n: int, exposure_s: float, wait_s: float, last_start_s: float) -> float:
    """Growth of the waits, to six digits, with which frame n starts at `last_start_s`.

    Raises BadInput if n frames last longer even without growth.
    """
    from scipy.optimize import brentq

    period_s = exposure_s + wait_s
    if n * period_s - exposure_s >= last_start_s:
        most = int((last_start_s + exposure_s) / period_s + 1e-9)
        raise BadInput(f"{n} frames do not fit into {last_start_s:.0f} s; simulate at most {most}")

    def late(growth: float) -> float:
        return float(frame_starts(n, exposure_s, wait_s, growth)[-1]) - last_start_s

    highest = (last_start_s / wait_s) ** (1 / (n - 1)) * (1 + 1e-9)  # the last wait alone would last that long
    return round(float(brentq(late, 1.0, highest, xtol=1e-12)), 6)


def beam_intensity(time_s: Floats, seed: int, scan: int) -> Floats:
    """Beam before the sample (n,), 1 after a refill: decays by 6 % in an hour between refills, flickers by 0.1 %."""
    decay = np.exp(-0.06 * ((time_s / 3600 + 0.4) % 1.0))
    return np.asarray(decay * (1 + 1e-3 * stream(seed, _BEAM, scan).standard_normal(time_s.size)))


@dataclass(frozen=True)
class Scales:
    """Values that an experimenter knows only with an uncertainty: mm, mm and 1/mm."""

    sample_thickness_mm: float
    water_thickness_mm: float
    water_1_mm: float


def draw_scales(scenario: Scenario, seed: int) -> Scales:
    """True values, drawn from what the experimenter states: these errors are one factor for a whole run."""
    normal = stream(seed, _SCALES).standard_normal(3)
    stated = (scenario.sample_mm, scenario.water_mm, scenario.water_1_mm)
    return Scales(*(float(s.value + s.error * z) for s, z in zip(stated, normal, strict=True)))


# --- scattering ------------------------------------------------------------------------------------------------------


def q_grid(q_max_nm: float) -> Floats:
    """q (m,) in 1/nm from 0 past q_max, on which the curves are calculated."""
    return np.arange(math.ceil(q_max_nm / _GRID_STEP_NM) + 2, dtype=float) * _GRID_STEP_NM


def windows(q_nm: Floats, flat: float, porod_nm4: float) -> Floats:
    """Scattering of the cell's glass windows, (m,): flat + porod/q⁴, per steradian."""
    return np.asarray(flat + porod_nm4 / np.maximum(q_nm, _BEHIND_BEAMSTOP_NM) ** 4)


def crystals(q_nm: Floats, truth: Truth, index: int, contrast_1_A2: float) -> Floats:
    """Cross section of the crystals in frame `index`, (m,), 1/mm: Gaussian spheres (S2.1-S2.3)."""
    if truth.c_umol_L[index] == 0:
        return np.zeros(q_nm.size)
    one = slice(index, index + 1)
    form = gaussian_spheres(q_nm, truth.radius_nm[one], truth.sigma_nm[one] ** 2)[0][0]
    return np.asarray(truth.c_umol_L[index] * intensity_factor(contrast_1_A2) * form)


def development_crystals(q_nm: Floats, time_s: Floats, development: Development, contrast_1_A2: float) -> Floats:
    """Cross section (n, m), 1/mm, of the crystals of a simulated synthesis (with sizes): the sum over all its spheres.

    Between the steps of the simulation the curves are interpolated in ln t (PCHIP); 0 before its first crystals.
    """
    from scipy.interpolate import PchipInterpolator

    apart = np.diff(np.log(development.time_s), prepend=-np.inf) > 1e-9  # at an injection there are two rows
    steps = np.flatnonzero((development.all.c_umol_L > 0) & apart)
    curves = development.sizes[steps] @ sphere(q_nm, development.size_grid_nm)
    known = time_s >= development.time_s[steps[0]]
    found = np.zeros((time_s.size, q_nm.size))
    found[known] = PchipInterpolator(np.log(development.time_s[steps]), curves)(np.log(time_s[known]))
    return found * intensity_factor(contrast_1_A2)


def behenate_rings(q_nm: Floats, height: float, width_nm: float) -> Floats:
    """Scattering of silver behenate powder, (m,): Gaussian rings at 2πk/5.8380 nm, the k-th 1/k as high."""
    orders = np.arange(1, 1 + int(q_nm[-1] * AGBH_PERIOD_NM / (2 * math.pi)))[:, None]
    rings = height / orders * np.exp(-0.5 * ((q_nm - orders * 2 * math.pi / AGBH_PERIOD_NM) / width_nm) ** 2)
    return np.asarray(rings.sum(axis=0) + 0.05 * height)


# --- detector --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Detector:
    """A detector in its place, arrays (ny, nx).

    flat: relative efficiency, as calibrated (float32); live: light reaches the pixel and is seen; mask: True where a
    pixel is of no use; dark_adu: mean reading without light, pedestal included; noise_adu: its standard deviation;
    gain: ADU per photon.
    """

    flat: NDArray[np.float32]
    live: Bools
    mask: Bools
    dark_adu: Floats
    noise_adu: Floats
    gain: float


def build_detector(scenario: Scenario, seed: int) -> Detector:
    """Detector with beamstop and its arm, a cross of gaps between four tiles, and hot and dead pixels."""
    rng = stream(seed, _DETECTOR)
    ny, nx = shape = scenario.shape
    y, x = (np.mgrid[:ny, :nx] + 0.5) / np.array([ny, nx])[:, None, None]
    smooth = 1.02 - 0.10 * ((x - 0.5) ** 2 + (y - 0.5) ** 2) + 0.02 * np.sin(5 * x + 2 * y)
    flat = (smooth * (1 + 0.01 * rng.standard_normal(shape))).astype(np.float32)
    gap = (np.abs(x - 0.5) * nx <= 1) | (np.abs(y - 0.5) * ny <= 1)
    odd = rng.permutation(ny * nx)[: max(ny * nx // 1500, 2)].reshape(-1)
    hot, dead = np.zeros((2, *shape), dtype=bool)
    hot.flat[odd[::2]], dead.flat[odd[1::2]] = True, True
    level = np.where(hot, rng.uniform(5e3, 5e4, shape), scenario.pedestal + scenario.dark_adu * (x + y * (1 - y)))
    return Detector(
        flat=flat,
        live=~(beamstop(shape, scenario.centre_px) | gap | dead),
        mask=beamstop(shape, scenario.centre_px, margin_px=1.0) | gap | hot | dead,
        dark_adu=np.where(gap, 0.0, level),
        noise_adu=np.where(gap, 0.0, np.where(hot, np.sqrt(scenario.gain * level), scenario.read_noise)),
        gain=scenario.gain,
    )


def beamstop(shape: tuple[int, int], centre_px: tuple[float, float], margin_px: float = 0.0) -> Bools:
    """Shadow (ny, nx) of a disc of 2.6 px around the beam and of its arm, 2.4 px wide, down to the first row."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    dx, dy = x - centre_px[0], y - centre_px[1]
    shadow: Bools = (np.hypot(dx, dy) <= 2.6 + margin_px) | ((np.abs(dx) <= 1.2 + margin_px) & (dy < 0))
    return shadow


@dataclass(frozen=True)
class Projection:
    """From a curve on `q_grid` to the pixels: lower neighbour, weight of the upper one, and response, each (ny, nx).

    response: photons in a pixel per transmitted photon and unit of scattering (solid angle in sr, polarisation,
    efficiency, shadows).
    """

    lower: NDArray[np.intp]
    weight: Floats
    response: Floats


def projection(q_pixels_nm: Floats, solid_angle_sr: Floats, polarization: Floats, detector: Detector) -> Projection:
    """How curves fall on the detector; the arguments (ny, nx) are values at the pixels' centres."""
    position = q_pixels_nm / _GRID_STEP_NM
    lower = position.astype(np.intp)
    response = solid_angle_sr * polarization * detector.flat * detector.live
    return Projection(lower, position - lower, response)


def expected_photons(scattering: Floats, transmitted_photons: float, onto: Projection) -> Floats:
    """Mean number of photons (ny, nx) of a curve (m,) on `q_grid`, with so many photons transmitted in the exposure."""
    curve = scattering[onto.lower]
    curve += onto.weight * (scattering[onto.lower + 1] - curve)
    curve *= transmitted_photons * onto.response
    return curve


def read_out(photons: Floats, detector: Detector, rng: np.random.Generator) -> NDArray[np.uint16]:
    """One image: round(gain · Poisson(photons) + dark + noise), cut off at 0 and at the largest 16-bit number."""
    adu: NDArray[Any] = rng.standard_normal(photons.shape)
    adu *= detector.noise_adu
    adu += detector.dark_adu
    adu += detector.gain * rng.poisson(photons)
    return np.clip(np.rint(adu, out=adu), 0, SATURATION_ADU, out=adu).astype(np.uint16)


def frame_stream(seed: int, scan: int, index: int) -> np.random.Generator:
    """The random numbers of one frame."""
    return stream(seed, _FRAME, scan, index)
