"""The reaction as files for machines: comparison.csv, the series beside the model; reaction.json, the parameters."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from saxs_pipeline.reaction import BuildUp, Comparison, ScaledAliquots, SeriesAnalysis
from saxs_pipeline.types import Estimate, Floats, Quantities, RunResult, Uncertain

COMPARED = (
    ("r_nm", "radius_nm", "model_radius_nm"),
    ("sigma_r_nm", "sigma_nm", "model_sigma_nm"),
    ("c_nc_umol_L", "c_nc_umol_L", "model_c_umol_L"),
    ("yield", "yield_", "model_yield"),
)
"""Column of comparison.csv, field of Quantities, field of Comparison."""


def write_reaction(result: RunResult, folder: Path) -> None:
    """Write comparison.csv and reaction.json into `folder`, as far as the result has what goes into them."""
    if result.comparison is not None and result.quantities is not None:
        _write_comparison(result.quantities, result.comparison, folder / "comparison.csv")
    if result.analysis is not None or result.comparison is not None or result.aliquots is not None:
        text = json.dumps(reaction(result), indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "reaction.json").write_text(text + "\n", encoding="utf-8", newline="\n")


def residuals(measured: Estimate, model: Floats) -> Floats:
    """(measured − model)/σ_stat, (n,); NaN where one of them is missing or the error is not positive."""
    error = np.where(measured.statistical > 0, measured.statistical, np.nan)
    return (measured.value - model) / error


def _write_comparison(quantities: Quantities, comparison: Comparison, path: Path) -> None:
    """One row per frame; per quantity measured, statistical error, model, residual in standard errors; used: 1 or 0."""
    names, columns = ["t_s"], [quantities.time_s]
    for name, field, model_field in COMPARED:
        measured, model = getattr(quantities, field), getattr(comparison, model_field)
        names += [name, f"{name}_err", f"{name}_model", f"{name}_residual"]
        columns += [measured.value, measured.statistical, model, residuals(measured, model)]
    rows = [
        [str(frame), *(f"{x:.10g}" for x in row), str(int(used))]
        for frame, row, used in zip(quantities.index, np.column_stack(columns), comparison.used, strict=True)
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["frame", *names, "used"])
        writer.writerows(rows)


def reaction(result: RunResult) -> dict[str, Any]:
    """What reaction.json holds: "analysis", "kinetics" and "aliquots", each if the result has it; NaN becomes None.

    Units are in the names, those of parameters beside them; every value that has a standard uncertainty is an object
    of value and error.
    """
    parts: dict[str, Any] = {}
    if result.analysis is not None:
        parts["analysis"] = _analysis(result.analysis)
    if result.comparison is not None:
        parts["kinetics"] = _kinetics(result.comparison)
    if result.aliquots is not None:
        parts["aliquots"] = _aliquots(result.aliquots)
    return parts


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return float(value) if math.isfinite(value) else None


def _numbers(values: Floats) -> Any:
    """An array of any dimension as nested lists."""
    return [_numbers(row) if np.ndim(row) else _number(float(row)) for row in values]


def _uncertain(quantity: Uncertain | None) -> dict[str, float | None] | None:
    return None if quantity is None else {"value": _number(quantity.value), "error": _number(quantity.error)}


def _analysis(analysis: SeriesAnalysis) -> dict[str, Any]:
    rate = analysis.focusing_nm_s
    return {
        "concentration": _build_up(analysis.concentration),
        "yield": _build_up(analysis.yield_),
        "nucleation_share": _uncertain(analysis.nucleation_share),
        "phases": [
            {"name": phase.name, "start_s": _number(phase.start_s), "end_s": _number(phase.end_s)}
            for phase in analysis.phases
        ],
        "growth_exponent": _uncertain(analysis.growth_exponent),
        "focusing": {
            "time_s": _numbers(analysis.focusing_time_s),
            "rate_nm_s": _numbers(rate.value),
            "rate_nm_s_err": _numbers(rate.statistical),
        },
        "notes": list(analysis.notes),
    }


def _build_up(law: BuildUp | None) -> dict[str, Any] | None:
    if law is None:
        return None
    errors = np.sqrt(np.diag(law.covariance))
    return {
        "law": law.law,
        "parameters": {
            name: {"value": _number(value), "error": _number(error)}
            for name, value, error in zip(law.names, law.values, errors, strict=True)
        },
        "covariance": _numbers(law.covariance),
        "t98_s": _uncertain(law.t98_s),
        "chi2_red": _number(law.chi2_red),
    }


def _kinetics(comparison: Comparison) -> dict[str, Any]:
    return {
        "title": comparison.title,
        "parameters": {
            p.symbol: {
                "value": _number(p.value),
                "statistical": _number(p.statistical),
                "systematic": _number(p.systematic),
                "unit": p.unit,
                "fitted": bool(p.fitted),
            }
            for p in comparison.parameters
        },
        "fitted": [p.symbol for p in comparison.parameters if p.fitted],
        "correlation": _numbers(comparison.correlation),
        "chi2_red": _number(comparison.chi2_red),
        "degrees_of_freedom": int(comparison.degrees),
        "converged": bool(comparison.converged),
        "evaluations": int(comparison.evaluations),
        "notes": list(comparison.notes),
    }


def _aliquots(scaled: ScaledAliquots) -> dict[str, Any]:
    return {"source": scaled.aliquots.source, "scale": _uncertain(scaled.scale), "scale_fitted": bool(scaled.fitted)}
