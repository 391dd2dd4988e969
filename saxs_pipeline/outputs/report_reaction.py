"""The sections on the reaction and on the kinetic model in the report: what stands in their tables, in plain words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from saxs_pipeline.outputs.numbers import plus_minus
from saxs_pipeline.outputs.tables import analysis_rows, parameter_text, quality_text, seconds, unit_text
from saxs_pipeline.reaction import BuildUp, Comparison, SeriesAnalysis
from saxs_pipeline.types import Floats

MEANING = {
    "T": "temperature of the reaction mixture",
    "v0": "volume of a monomer, v₀",
    "gamma": "surface energy, γ",
    "M0": "solubility of the monomer, [M]₀",
    "D": "diffusion coefficient of the monomer",
    "A": "rate constant of adsorption at r = r_c0",
    "n": "exponent of the fall of the adsorption rate with r",
    "r_c0": "radius at which k_a = A",
    "B": "offset of r in the adsorption rate",
    "k_inf": "rate constant of adsorption at a flat surface, k_a(∞)",
    "alpha": "transfer coefficient of the linear free energy relation, α",
    "prefactor": "factor on the prefactor of nucleation, 2D/v₀^(5/3)",
    "k1": "rate constant of the conversion of the precursor (first order), k₁",
    "P0": "concentration of the precursor at the injection, [P]₀",
    "k2": "rate constant of the conversion of the precursor (second order), k₂",
    "beta": "excess of the reaction partner, β",
}
"""Symbols of the kinetic model's parameter file; one that is not listed is shown without words."""

LAW_PARAMETERS = {
    "c_inf_umol_L": ("c∞", "µmol/L"),
    "k_1_s": ("k", "1/s"),
    "delay_s": ("delay", "s"),
    "yield_inf": ("yield∞", ""),
    "initial_rate_1_s": ("k₂c₀n₀β", "1/s"),
    "inverse_excess": ("1/β", ""),
}
"""Parameters of the build-up laws: symbol and unit; one that is not listed is shown by its name, unit in it."""


def reaction_content(analysis: SeriesAnalysis) -> dict[str, Any]:
    """Build-up laws as rows of cells, results as (name, text) rows, notes."""
    laws = [
        _law_cells(name, law)
        for name, law in (("c_NC", analysis.concentration), ("yield", analysis.yield_))
        if law is not None
    ]
    rows = analysis_rows(analysis)
    if text := focusing_text(analysis):
        rows.append(("focusing rate dσ_r/dt", text))
    return {"laws": laws, "rows": rows, "notes": analysis.notes}


def _law_cells(name: str, law: BuildUp) -> list[str]:
    errors = np.sqrt(np.diag(law.covariance))
    values = []
    for key, value, error in zip(law.names, law.values.tolist(), errors.tolist(), strict=True):
        symbol, unit = LAW_PARAMETERS.get(key, (key, ""))
        values.append(f"{symbol} = {plus_minus(value, error, unit=unit)}")
    return [name, law.law, ", ".join(values), plus_minus(*law.t98_s, unit="s"), f"{law.chi2_red:.3g}"]


def focusing_text(analysis: SeriesAnalysis) -> str:
    """Where σ_r falls or rises by more than three standard errors, and its steepest fall; "" without a rate."""
    time, (value, error, _) = analysis.focusing_time_s, analysis.focusing_nm_s
    known = np.isfinite(value) & (error > 0)
    if not known.any():
        return ""
    falling, rising = known & (value < -3 * error), known & (value > 3 * error)
    parts = []
    if falling.any():
        steepest = np.flatnonzero(falling)[value[falling].argmin()]
        rate = plus_minus(1e3 * float(value[steepest]), 1e3 * float(error[steepest]), unit="pm/s")
        parts.append(f"falls {_span(time[falling])}, fastest at {seconds(time[steepest])} s with {rate}")
    if rising.any():
        parts.append(f"rises {_span(time[rising])}")
    return f"σ_r {'; it '.join(parts) or 'changes in no single interval'} (by more than three standard errors)"


def _span(time: Floats) -> str:
    if time.size == 1:
        return f"at {seconds(time[0])} s"
    return f"between {seconds(time.min())} and {seconds(time.max())} s"


def kinetics_content(comparison: Comparison) -> dict[str, Any]:
    """Title, quality of the fit in words, rows of the parameters, correlations (text, whether strong), notes."""
    fitted = [p.symbol for p in comparison.parameters if p.fitted]
    systematic = any(p.fitted and p.systematic > 0 for p in comparison.parameters)
    return {
        "title": comparison.title,
        "quality": quality_text(comparison),
        "doubt": doubt(comparison),
        "heading": "value ± statistical ± systematic" if systematic else "value ± statistical",
        "parameters": [
            [
                p.symbol,
                MEANING.get(p.symbol, ""),
                parameter_text(p._replace(unit="")),
                unit_text(p.unit),
                _role(p.fitted),
            ]
            for p in comparison.parameters
        ],
        "fitted": fitted,
        "correlation": _correlation_rows(fitted, comparison) if len(fitted) > 1 else [],
        "notes": comparison.notes,
    }


def _role(fitted: bool) -> str:
    return "fitted" if fitted else "fixed"


def _correlation_rows(fitted: list[str], comparison: Comparison) -> list[tuple[str, list[tuple[str, bool]]]]:
    return [
        (symbol, [("–" if math.isnan(x) else f"{x:.2f}", i != j and abs(x) > 0.95) for j, x in enumerate(row.tolist())])
        for i, (symbol, row) in enumerate(zip(fitted, comparison.correlation, strict=True))
    ]


def doubt(comparison: Comparison) -> str:
    """A sentence where χ²_red lies more than five of its standard deviations above 1; "" where it does not."""
    if comparison.degrees < 1 or not comparison.chi2_red > 1 + 5 * math.sqrt(2 / comparison.degrees):
        return ""
    spread = math.sqrt(2 / comparison.degrees)
    sentence = (
        f"χ²_red is {comparison.chi2_red:.3g} where noise alone gives 1 ± {spread:.2g}: the model does not describe "
        "the series within its uncertainties; the residuals show where it fails."
    )
    if not (comparison.converged and any(p.fitted for p in comparison.parameters)):
        return sentence
    return f"{sentence} The stated uncertainties of the fitted parameters are too small."
