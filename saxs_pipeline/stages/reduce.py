"""Normalised curves → absolute, background-subtracted curves with the three kinds of uncertainty kept apart."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from saxs_pipeline.config import Intensity, Water
from saxs_pipeline.science import calibration, standards, uncertainty
from saxs_pipeline.science.calibration import StandardMeasurement
from saxs_pipeline.science.uncertainty import Mean
from saxs_pipeline.types import Background, BadInput, Curves, Floats, ScaleFactor, Uncertain


def absolute(curves: Curves, scale: ScaleFactor | None, intensity: Intensity) -> Curves:
    """I(1/mm) = K · I(normalised) / d; without a scale or thickness that factor is 1 and the unit says so."""
    factor, relative = 1.0, curves.scale_rel
    if scale is not None:
        factor, relative = factor * scale.factor.value, np.hypot(relative, scale.factor.relative)
    if intensity.thickness is not None:
        factor, relative = factor / intensity.thickness.value, np.hypot(relative, intensity.thickness.relative)
    if intensity.transmission is not None:
        relative = np.hypot(relative, intensity.transmission.relative)
    unit = "1/mm" if intensity.absolute else curves.unit
    scaled = uncertainty.rescale(curves, factor, scale_rel=float(relative), unit=unit)
    return _with_monitor(scaled, intensity)


def _with_monitor(curves: Curves, intensity: Intensity) -> Curves:
    return replace(curves, factor_rel=intensity.monitor_uncertainty or 0.0)


def mean_curve(curves: Curves, weights: Floats, what: str) -> Mean:
    """Mean of the usable frames, weighted by `weights` (n,), their monitor counts.

    Raises BadInput if no frame of `what` is usable.
    """
    good = curves.usable
    if not good.any():
        reason = next(iter(curves.problems), "no frames")
        raise BadInput(f"none of the {len(good)} frames of {what} is usable ({reason}); check the files")
    return uncertainty.average(curves.rows(good), weights[good])


def standard(
    measured: tuple[Curves, Floats], background: tuple[Curves, Floats], intensity: Intensity
) -> StandardMeasurement:
    """A standard and its background, each from its curves and their monitor counts, and what is known of them.

    Raises BadInput if none of the frames of one is usable.
    """
    settings = intensity.standard
    assert settings is not None
    if isinstance(settings, Water):
        names, taken_off = ("water", "the empty cell"), settings.empty
    else:
        names, taken_off = ("glassy carbon", "its background"), settings.background
    curves, empty = (_with_monitor(one, intensity) for one in (measured[0], background[0]))
    there, behind = mean_curve(curves, measured[1], names[0]), mean_curve(empty, background[1], names[1])
    return StandardMeasurement(
        curves.q_nm,
        (there.intensity, there.statistical),
        (behind.intensity, behind.statistical),
        pixels=curves.counts[curves.usable][0],
        thickness_mm=settings.thickness,
        transmissions_rel=(_relative(settings.transmission), _relative(taken_off.transmission)),
        monitors_rel=(there.factor_rel, behind.factor_rel),
        frames=(_frames(curves), _frames(empty)),
        dark=abs(there.dark_factor - behind.dark_factor) * curves.dark_sigma,
    )


def scale_factor(measured: StandardMeasurement, intensity: Intensity) -> ScaleFactor:
    """Absolute scale from a standard; raises BadInput as science.calibration does."""
    settings = intensity.standard
    if isinstance(settings, Water):
        at = "" if settings.temperature is None else f" at {settings.temperature.value - standards.FREEZING_K:.4g} °C"
        return calibration.water_scale(measured, settings.known, settings.window, f"water{at}")
    assert settings is not None
    return calibration.glassy_carbon_scale(measured, settings.window)


def _frames(curves: Curves) -> tuple[int, int]:
    """How many frames are usable, and how many there are."""
    return int(curves.usable.sum()), len(curves.index)


def _relative(quantity: Uncertain | None) -> float:
    return 0.0 if quantity is None else quantity.relative


def background(
    curves: Curves, weights: Floats, source: str, factor: float, transmissions: tuple[Uncertain | None, ...] = ()
) -> Background:
    """Background from frames on the absolute scale; its error is shared by all frames it is taken off.

    transmissions: those that decide how much of it the frames have, its own and the sample's; with the monitor's
    readings they are one factor for all of it.
    """
    mean = mean_curve(curves, weights, "the background")
    factor_rel = math.hypot(mean.factor_rel, *map(_relative, transmissions))
    return Background(mean.intensity, mean.statistical, source, factor, mean.dark_factor, factor_rel)


def subtract(curves: Curves, background: Background | None) -> Curves:
    """Curves without the background (unchanged if there is none)."""
    return curves if background is None else uncertainty.subtract(curves, background)
