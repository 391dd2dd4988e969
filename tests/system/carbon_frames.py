"""Frames of glassy carbon and of its background, made by `science.synthetic` for a simulated beamtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator
from scipy.interpolate import CubicSpline

from saxs_pipeline.io.id02_layout import Series, write_id02
from saxs_pipeline.science import standards, synthetic
from saxs_pipeline.simulation import SCENARIOS, header_setup

SCENARIO = SCENARIOS["id02-cdse"]
FACTOR = SCENARIO.monitor_per_photon / SCENARIO.gain
"""The scale that must be found: ADU per monitor unit → photons per photon."""
THICKNESS_MM = 1.055
EXPOSURE_S = 0.1

_SETTINGS = """\
glassy_carbon:
    frames: {carbon[0]}
    scalers: {carbon[1]}
    background:
      frames: {air[0]}
      scalers: {air[1]}
    thickness: 1.055 mm ± 0.5 %
"""


def cross_section(q_nm):
    """dΣ/dΩ in 1/mm: a spline through the certified values but those closer than 1 %, level outside them.

    It is not the interpolation under test.
    """
    q, i = standards.SRM_3600_Q_NM, standards.SRM_3600_1_MM
    apart = np.append(np.diff(np.log(q)) > 0.01, True)
    return np.exp(CubicSpline(np.log(q[apart]), np.log(i[apart]))(np.log(np.clip(q_nm, q[0], q[-1]))))


def add_carbon(folder: Path, seed: int, *, frames: int = 3, air: float = 1.0) -> str:
    """Write both scans into the beamtime of `seed`; returns the section for its run file. air: how strong that is."""
    onto, q, detector = _bench(seed)
    empty = air * synthetic.windows(q, SCENARIO.window_flat, SCENARIO.window_porod_nm4)
    curves = {"carbon": empty + THICKNESS_MM * cross_section(q), "air": empty}
    written = {}
    for scan, (name, transmission) in enumerate((("carbon", 0.8), ("air", 0.95)), start=21):
        start = synthetic.frame_starts(frames, EXPOSURE_S, 0.02, 1.0)
        i0 = SCENARIO.beam_photons_s * EXPOSURE_S * SCENARIO.monitor_per_photon * np.linspace(1, 0.9, frames)
        series = Series(name, scan, start, np.full(frames, EXPOSURE_S), i0, i0 * transmission)
        images = (
            synthetic.read_out(
                synthetic.expected_photons(curves[name], i1 / SCENARIO.monitor_per_photon, onto),
                detector,
                synthetic.frame_stream(seed, scan, k),
            )
            for k, i1 in enumerate(series.i1)
        )
        done = write_id02(folder / "raw", series, images, header_setup(SCENARIO))
        written[name] = (done.frames, done.scalers)
    return _SETTINGS.format(**written)


def _bench(seed):
    s = SCENARIO
    detector = synthetic.build_detector(s, seed)
    ai = AzimuthalIntegrator(
        dist=s.distance_m,
        poni1=s.centre_px[1] * s.pixel_m,
        poni2=s.centre_px[0] * s.pixel_m,
        wavelength=s.wavelength_m,
        detector=Detector(s.pixel_m, s.pixel_m, max_shape=s.shape),
    )
    q_pixels = ai.array_from_unit(s.shape, "center", "q_nm^-1", scale=True)
    solid_angle = ai.solidAngleArray(s.shape) * (s.pixel_m / s.distance_m) ** 2
    onto = synthetic.projection(q_pixels, solid_angle, ai.polarization(s.shape, factor=s.polarization), detector)
    return onto, synthetic.q_grid(float(q_pixels.max())), detector
