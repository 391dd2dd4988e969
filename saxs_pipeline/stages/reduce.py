"""Normalised curves → absolute, background-subtracted curves with the three kinds of uncertainty kept apart."""

from __future__ import annotations

import numpy as np

from saxs_pipeline.config import Intensity
from saxs_pipeline.science import calibration, uncertainty
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
    return uncertainty.rescale(curves, factor, scale_rel=float(relative), unit=unit)


def mean_curve(curves: Curves, weights: Floats, what: str) -> Mean:
    """Mean of the usable frames, weighted by `weights` (n,), their monitor counts.

    Raises BadInput if no frame of `what` is usable.
    """
    good = curves.usable
    if not good.any():
        reason = next(iter(curves.problems), "no frames")
        raise BadInput(f"none of the {len(good)} frames of {what} is usable ({reason}); check the files")
    return uncertainty.average(curves.rows(good), weights[good])


def water_scale(water: Curves, empty: Curves, monitors: tuple[Floats, Floats], intensity: Intensity) -> ScaleFactor:
    """Scale factor from the curves of water and of the empty cell; raises BadInput as science.calibration does."""
    settings = intensity.water
    if settings is None:
        raise BadInput("intensity.water: is missing; it gives the absolute scale")
    counts = water.counts[water.usable]
    return calibration.water_scale(
        water.q_nm,
        mean_curve(water, monitors[0], "water"),
        mean_curve(empty, monitors[1], "the empty cell"),
        water.dark_sigma,
        counts[0] if len(counts) else water.counts[0],
        cross_section=settings.cross_section,
        thickness_mm=settings.thickness,
        window_nm=settings.window,
        transmissions_rel=(_relative(settings.transmission), _relative(settings.empty.transmission)),
    )


def _relative(quantity: Uncertain | None) -> float:
    return 0.0 if quantity is None else quantity.relative


def background(
    curves: Curves, weights: Floats, source: str, factor: float, transmission: Uncertain | None = None
) -> Background:
    """Background from frames on the absolute scale; its error is shared by all frames it is taken off.

    That of a transmission of its own moves all of it together; point by point it is that share of B.
    """
    mean = mean_curve(curves, weights, "the background")
    sigma = np.hypot(mean.statistical, mean.intensity * _relative(transmission))
    return Background(mean.intensity, sigma, source, factor, mean.dark_factor)


def subtract(curves: Curves, background: Background | None) -> Curves:
    """Curves without the background (unchanged if there is none)."""
    return curves if background is None else uncertainty.subtract(curves, background)
