"""Exponents and volume fractions that are fitted, and end at an end of their range."""

from __future__ import annotations

import numpy as np

from saxs_pipeline.model_spec import ModelSpec
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.science.joint import CurveErrors, curve_gains
from saxs_pipeline.types import Bools, Floats

CLEAR = 5.0
"""Standard errors of d from which on d q⁻ᵖ is there, and tells p."""

BEYOND = 2.0
"""Standard errors outside its range from which on a parameter does not end there by chance: 2.3 % of those at it."""


def at_limit(spec: ModelSpec, values: Floats, free: Bools) -> dict[str, Bools]:
    """Fits (n,) that hold an exponent or a volume fraction, by its name, at an end of the range it is fitted in.

    values and free (n, p) in the order of the columns.
    """
    found = {}
    for name, ends in (("exponent", spec.power_law), ("volume_fraction", spec.volume_fraction)):
        if ends is not None and ends[0] < ends[1]:
            column = spec.columns.index(name)
            found[name] = ~free[:, column] & np.isin(values[:, column], ends)
    return found


def beyond(  # noqa: PLR0917
    errors: CurveErrors, residual: Floats, model: CurveModel, values: Floats, free: Bools, name: str
) -> Bools:
    """Where an exponent or a volume fraction that is held at an end of its range lies beyond it, (n,).

    By more than BEYOND standard errors, as one Gauss–Newton step with it free says; an exponent only where its term,
    without that step, is clear. residual (n, m); values, free (n, p).
    """
    column = model.columns.index(name)
    absent = np.zeros(values.shape[1])  # of a population that is not there c is 0, whatever its size
    absent[list(model.nonlinear)] = model.limits[1]
    values = np.where(np.isfinite(values), values, absent)
    known = np.isfinite(errors.sigma) & np.isfinite(residual)
    sigma = np.where(known, errors.sigma, 0.0)

    def gains(fitted: Bools, place: int) -> Floats:
        found: Floats = curve_gains(errors.q_nm, errors.sigma, values, model, fitted)[:, place]
        return found

    freed = free.copy()
    freed[:, column] = True
    own = gains(freed, column)
    step = np.einsum("nm,nm->n", own, np.where(known, residual, 0.0))
    far = np.abs(step) > BEYOND * np.sqrt(np.einsum("nm,nm->n", own**2, sigma**2))
    if name == "exponent":
        term = model.columns.index("power_law_1_mm")
        error = np.sqrt(np.einsum("nm,nm->n", gains(free, term) ** 2, sigma**2))
        far &= np.abs(values[:, term]) >= CLEAR * error
    return np.asarray(far)
