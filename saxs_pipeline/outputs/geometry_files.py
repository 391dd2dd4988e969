"""What `calibrate geometry` writes: the PONI file and a picture beside it; and what it says."""

from __future__ import annotations

import io
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from saxs_pipeline import durable
from saxs_pipeline.outputs.figure_files import write_drawings
from saxs_pipeline.outputs.numbers import plus_minus
from saxs_pipeline.outputs.plot_geometry import draw_geometry
from saxs_pipeline.science.camera import poni_errors, tilt, to_poni
from saxs_pipeline.science.rings import Calibration
from saxs_pipeline.types import Floats

Rows = list[tuple[str, str]]

HC_KEV_NM = 1.2398419843320026
"""Planck constant times speed of light, keV·nm (exact SI values)."""


# --- files -----------------------------------------------------------------------------------------------------------


def write_calibration(result: Calibration, detector: Any, rows: Rows, out: Path) -> None:
    """out, a PONI file of pyFAI's detector with the rows as comments, and beside it its picture as .png and .svg.

    The PONI file comes last: where it is, all is. Raises OSError.
    """
    write_drawings([partial(draw_geometry, result, out.stem)], out.parent)
    durable.replace_file(out, poni_text(result, detector, rows).encode())


def poni_text(result: Calibration, detector: Any, rows: Rows) -> str:
    """A PONI file as pyFAI writes it, with the rows and the uncertainties of its own numbers as comments."""
    from pyFAI.geometry import Geometry
    from pyFAI.io.ponifile import PoniFile

    fit = result.rings.fit
    wavelength, camera = result.calibrant.wavelength_m, fit.camera
    written = io.StringIO()
    PoniFile(Geometry(*to_poni(camera), camera.rot1, camera.rot2, 0.0, detector=detector, wavelength=wavelength)).write(
        written
    )
    errors = poni_errors(camera, fit.covariance)
    spread = f"distance {errors.dist_m:.3g} m, poni1 {errors.poni1_m:.3g} m, poni2 {errors.poni2_m:.3g} m"
    comments = [*rows, ("standard uncertainties", f"{spread}, rot1 {fit.errors.rot1:.3g}, rot2 {fit.errors.rot2:.3g}")]
    return written.getvalue().rstrip("\n") + "\n" + "".join(f"# {name}: {text}\n" for name, text in comments)


# --- summary ---------------------------------------------------------------------------------------------------------


def summary(result: Calibration) -> Rows:
    """What was found, with standard uncertainties."""
    fit, pixel = result.rings.fit, result.pixel_m
    camera, errors, used = fit.camera, fit.errors, fit.used
    poni = to_poni(camera)
    wavelength = result.calibrant.wavelength_m * 1e9
    fast = plus_minus(camera.centre2_m / pixel[1], errors.centre2_m / pixel[1])
    slow = plus_minus(camera.centre1_m / pixel[0], errors.centre1_m / pixel[0])
    px, q = result.residual_px[used], result.residual_q_nm[used]
    points = f"{used.sum()} points" + (f", {(~used).sum()} outliers left out" if not used.all() else "")
    return [
        ("calibrant", f"{result.calibrant.name}, {result.lines.size} rings, {points}"),
        ("energy", f"{HC_KEV_NM / wavelength:.6g} keV ({wavelength:.6g} nm), taken as exact"),
        ("distance", plus_minus(1e3 * camera.distance_m, 1e3 * errors.distance_m, unit="mm") + " along the beam"),
        ("beam centre", f"{fast}, {slow} px (fast, slow)"),
        *_tilt_rows(result),
        ("PONI", f"distance {poni.dist_m:.7g} m, poni1 {poni.poni1_m:.7g} m, poni2 {poni.poni2_m:.7g} m"),
        ("rotations", f"rot1 {_degrees(camera.rot1, errors.rot1)}, rot2 {_degrees(camera.rot2, errors.rot2)}, "
                      "rot3 0 (rings do not determine it)"),
        ("residuals", f"{_rms(px):.2g} px, {_rms(q):.2g} 1/nm rms; reduced χ² {fit.chi2_red:.3g}{_beyond(result)}"),
        *_ring_rows(result),
        *notes(result),
    ]  # fmt: skip


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _degrees(angle: float, error: float) -> str:
    return plus_minus(math.degrees(angle), math.degrees(error)) + "°"


def _tilt_rows(result: Calibration) -> Rows:
    size, plane = tilt(result.rings.fit.camera, result.rings.fit.covariance)
    known = size.value > 3 * size.error
    rotation = _degrees(*plane) if known else "not determined: the tilt is within three uncertainties of 0"
    return [("tilt", _degrees(*size)), ("tilt plane", rotation)]


def _beyond(result: Calibration) -> str:
    """Scatter of points and of whole rings beyond counting statistics."""
    fit = result.rings.fit
    points, rings = (value * fit.camera.distance_m / result.pixel_m[1] for value in (fit.scatter, fit.ring_scatter))
    text = f", {points:.2g} px of scatter beyond counting is in the uncertainties" if points else ""
    return text + (f", so are offsets of {rings:.2g} px of whole rings" if rings else "")


def _ring_rows(result: Calibration) -> Rows:
    points, px, q, rows = result.rings.points, result.residual_px, result.residual_q_nm, []
    for line in result.lines:
        own = result.rings.fit.used & (points.line == line)
        text = f"{own.sum()} points, mean {px[own].mean():+.2g}, rms {_rms(px[own]):.2g} px, {_rms(q[own]):.2g} 1/nm"
        rows.append((f"ring {line + 1}", f"q {result.line_q_nm[line]:.5g} 1/nm: {text}"))
    return rows


# --- notes -----------------------------------------------------------------------------------------------------------


def notes(result: Calibration) -> Rows:
    """What a reader of the numbers should know besides."""
    reach, found = _reach(result), []
    if reach is not None:
        found.append(
            f"the rings widen outward, as with a calibrant that reaches ±{1e3 * reach:.2g} mm along the beam (standard "
            "deviation); the distance is that of its middle"
        )
    if result.rings.fit.ring_scatter > 0:
        found.append(
            "whole rings lie off: are energy, pixel size and calibrant right, and are the rings single ones (picture)?"
        )
    return [("note", text) for text in found]


def _reach(result: Calibration) -> float | None:
    """Extent of the calibrant along the beam (m) that the widths of the rings ask for; None if they hardly widen.

    A step δ along the beam moves a ring by sin 2θ cos 2θ δ/D: width² = w0² + (sin 2θ cos 2θ δ/D)².
    """
    points = result.rings.points
    lines = np.unique(points.line)
    if lines.size < 3:
        return None
    width = np.array([np.median(points.width[points.line == line]) for line in lines])
    lever = (0.5 * np.sin(2 * result.calibrant.two_theta[lines])) ** 2
    slope, level = np.polyfit(lever, width**2, 1)
    if slope <= 0 or slope * lever[-1] < 2 * max(level, 0.0) or slope * np.ptp(lever) < _WIDENING * width[0] ** 2:
        return None
    return float(math.sqrt(slope) * result.rings.fit.camera.distance_m)


_WIDENING = 1.0
