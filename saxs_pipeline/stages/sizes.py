"""Curves → size distributions: one regularised inversion per frame, no shape assumed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from saxs_pipeline.sample_config import Sample
from saxs_pipeline.science import sizes
from saxs_pipeline.science.formfactors import intensity_factor
from saxs_pipeline.science.size_inversion import radius_grid
from saxs_pipeline.size_distribution import SIZE_COLUMNS, SizeDistributions
from saxs_pipeline.sizes_config import Sizes
from saxs_pipeline.stages.quantify import contrast_1_A2
from saxs_pipeline.types import Curves, Uncertain

_FRACTION, _BACKGROUND = (SIZE_COLUMNS.index(name) for name in ("volume_fraction", "background_1_mm"))


def size_distributions(
    curves: Curves, settings: Sizes, sample: Sample | None, energy_keV: float | None
) -> SizeDistributions:
    """The size distribution of every usable frame; the others are `not_measured`. Each frame is inverted on its own.

    Volume fractions need an absolute scale and a contrast: without, the density has an arbitrary unit, and total and
    background are NaN. The error of a frame's own monitor reading is in that of the total.
    """
    from saxs_pipeline.stages.compiled_nonnegative import minimise

    contrast = _contrast(sample, energy_keV) if curves.unit == "1/mm" else None
    inside = (curves.q_nm >= settings.q_min) & (curves.q_nm <= settings.q_max) & (curves.q_nm > 0)
    factor = 1.0 if contrast is None else intensity_factor(contrast.value)
    found = sizes.invert(
        curves.q_nm[inside],
        np.where(curves.usable[:, None], curves.intensity, np.nan)[:, inside],
        curves.sigma[:, inside],
        radius_grid(*settings.radius, settings.bins, settings.spacing),
        minimise=minimise,
        factor=factor,
    )
    found = replace(found, q_min=settings.q_min, q_max=settings.q_max, factor=factor)
    values, errors = found.values.copy(), found.errors.copy()
    errors[:, _FRACTION] = np.hypot(errors[:, _FRACTION], curves.factor_rel * np.abs(values[:, _FRACTION]))
    if curves.unit != "1/mm":
        values[:, _BACKGROUND] = errors[:, _BACKGROUND] = np.nan
    if contrast is None:
        values[:, _FRACTION] = errors[:, _FRACTION] = np.nan
        return replace(found, values=values, errors=errors)
    scale_rel = math.hypot(curves.scale_rel, 2 * contrast.relative)
    return replace(found, values=values, errors=errors, scale_rel=scale_rel, absolute=True)


def _contrast(sample: Sample | None, energy_keV: float | None) -> Uncertain | None:
    """In 1/Å²; None of samples whose populations have contrasts of their own: one curve cannot tell them apart."""
    if sample is None or (sample.contrast is None and (sample.particle is None or sample.solvent is None)):
        return None
    return contrast_1_A2(sample, energy_keV)
