"""The reaction in the results file: what the series says about it, the kinetic model, aliquots.

analysis/  NXprocess
    concentration/, yield/  NXparameters  a build-up law: names, values and covariance of its parameters, t98
    phases/                 NXparameters  name, start and end
    focusing/               NXdata        dσ_r/dt against time
    results/                NXparameters  nucleation_share, growth_exponent
kinetics/  NXprocess
    parameters/             NXparameters  symbol, unit, value and uncertainties, correlation, χ²
    frames/                 NXdata        the model at the times of the frames
    curve/                  NXdata        the model on a fine grid
aliquots/  NXdata           as measured; the scale that is applied beside the series is stored with them
"""

from __future__ import annotations

import json

import h5py
import numpy as np

from saxs_pipeline import __version__
from saxs_pipeline.outputs.nexus_groups import (
    group_of,
    mark_plot,
    put_array,
    put_texts,
    put_uncertain,
    text_in,
    texts_in,
    uncertain_in,
)
from saxs_pipeline.reaction import (
    Aliquots,
    BuildUp,
    Comparison,
    KineticParameter,
    Phase,
    ScaledAliquots,
    SeriesAnalysis,
)
from saxs_pipeline.types import Estimate, RunResult

_LOG_TIME = json.dumps({"axes_scale_types": ["log"]})
_MODEL = (
    ("r", "radius_nm", "mean radius r (nm)", "nm"),
    ("sigma_r", "sigma_nm", "standard deviation of the radii (nm)", "nm"),
    ("c_nc", "c_umol_L", "concentration of nanocrystals (µmol/L)", "µmol/L"),
    ("yield", "yield", "yield", ""),
)
"""Name in the file, end of the field's name in Comparison, label of the axis, unit."""
_ALIQUOTS = (
    ("r", "radius_nm", "radius_error", "nm"),
    ("c_nc", "c_umol_L", "c_error", "µmol/L"),
    ("yield", "yield_", "yield_error", ""),
)
"""Name in the file, fields of Aliquots for value and error, unit."""


def write(entry: h5py.Group, result: RunResult) -> None:
    """The groups analysis, kinetics and aliquots, as far as the result has them."""
    if result.analysis is not None:
        _write_analysis(entry, result.analysis)
    if result.comparison is not None:
        _write_comparison(entry, result.comparison)
    if result.aliquots is not None:
        _write_aliquots(entry, result.aliquots)


def _process(entry: h5py.Group, name: str) -> h5py.Group:
    group = group_of(entry, name, "NXprocess")
    group["program"], group["version"] = "saxs_pipeline", __version__
    return group


def _write_analysis(entry: h5py.Group, analysis: SeriesAnalysis) -> None:
    group = _process(entry, "analysis")
    for name, law in (("concentration", analysis.concentration), ("yield", analysis.yield_)):
        if law is not None:
            _write_build_up(group_of(group, name, "NXparameters"), law)
    phases = group_of(group, "phases", "NXparameters")
    put_texts(phases, "phase", (phase.name for phase in analysis.phases))
    put_array(phases, "start", np.array([phase.start_s for phase in analysis.phases], dtype=np.float64), "s")
    put_array(phases, "end", np.array([phase.end_s for phase in analysis.phases], dtype=np.float64), "s")
    _write_focusing(group, analysis)
    results = group_of(group, "results", "NXparameters")
    for name in ("nucleation_share", "growth_exponent"):
        if (quantity := getattr(analysis, name)) is not None:
            put_uncertain(results, name, quantity)
    put_texts(results, "notes", analysis.notes)


def _write_build_up(group: h5py.Group, law: BuildUp) -> None:
    group["law"] = law.law
    put_texts(group, "parameter_names", law.names)
    put_array(group, "parameters", law.values)
    put_array(group, "covariance", law.covariance)
    put_uncertain(group, "t98", law.t98_s, "s")
    group["chi2_reduced"] = float(law.chi2_red)


def _write_focusing(analysis_group: h5py.Group, analysis: SeriesAnalysis) -> None:
    group = group_of(analysis_group, "focusing", "NXdata")
    put_array(group, "time", analysis.focusing_time_s, "s", "time (s)")
    rate = analysis.focusing_nm_s
    put_array(group, "rate", rate.value, "nm/s", "dσ_r/dt (nm/s)")
    put_array(group, "rate_errors", rate.statistical, "nm/s")
    put_array(group, "rate_systematic", rate.systematic, "nm/s")
    mark_plot(group, "rate", ["time"], title="focusing rate", SILX_style=_LOG_TIME)


def _write_comparison(entry: h5py.Group, comparison: Comparison) -> None:
    group = _process(entry, "kinetics")
    _write_parameters(group_of(group, "parameters", "NXparameters"), comparison)
    frames = group_of(group, "frames", "NXdata")
    frames["time"] = entry["curves/time"]
    put_array(frames, "used", comparison.used)
    curve = group_of(group, "curve", "NXdata")
    put_array(curve, "time", comparison.curve_time_s, "s", "time (s)")
    for where, start in ((frames, "model"), (curve, "curve")):
        for name, field, label, units in _MODEL:
            put_array(where, name, getattr(comparison, f"{start}_{field}"), units, label)
        mark_plot(where, "r", ["time"], title="kinetic model", SILX_style=_LOG_TIME)
        where.attrs["auxiliary_signals"] = np.array(["sigma_r"], dtype=object)


def _write_parameters(group: h5py.Group, comparison: Comparison) -> None:
    parameters = comparison.parameters
    group["title"] = comparison.title
    put_texts(group, "symbol", (p.symbol for p in parameters))
    put_texts(group, "unit", (p.unit for p in parameters))
    for name in ("value", "statistical", "systematic"):
        put_array(group, name, np.array([getattr(p, name) for p in parameters], dtype=np.float64))
    put_array(group, "fitted", np.array([p.fitted for p in parameters], dtype=np.bool_))
    put_array(group, "correlation", comparison.correlation)
    group["chi2_reduced"] = float(comparison.chi2_red)
    group["degrees_of_freedom"], group["evaluations"] = comparison.degrees, comparison.evaluations
    group["converged"] = comparison.converged
    put_texts(group, "notes", comparison.notes)


def _write_aliquots(entry: h5py.Group, scaled: ScaledAliquots) -> None:
    group = group_of(entry, "aliquots", "NXdata")
    aliquots = scaled.aliquots
    put_array(group, "time", aliquots.time_s, "s", "time (s)")
    for name, field, error, units in _ALIQUOTS:
        put_array(group, name, getattr(aliquots, field), units, f"{name} of the aliquots")
        put_array(group, f"{name}_errors", getattr(aliquots, error), units)
    if aliquots.correlation is not None:
        put_array(group, "c_nc_yield_correlation", aliquots.correlation)
    put_uncertain(group, "scale", scaled.scale)
    group["scale_fitted"] = scaled.fitted
    group["source"] = aliquots.source
    mark_plot(group, _aliquot_signal(aliquots), ["time"], title="aliquots", SILX_style=_LOG_TIME)


def _aliquot_signal(aliquots: Aliquots) -> str:
    """The first column with a value, to be shown by default."""
    known = [name for name, field, _, _ in _ALIQUOTS if np.isfinite(getattr(aliquots, field)).any()]
    return known[0] if known else "r"


# --- reading ---------------------------------------------------------------------------------------------------------


def read_analysis(group: h5py.Group) -> SeriesAnalysis:
    """The analysis in a group that `write` made; KeyError if it is another."""
    phases, focusing, results = group["phases"], group["focusing"], group["results"]
    ends = (texts_in(phases["phase"]), phases["start"][()].tolist(), phases["end"][()].tolist())
    return SeriesAnalysis(
        concentration=_read_build_up(group["concentration"]) if "concentration" in group else None,
        yield_=_read_build_up(group["yield"]) if "yield" in group else None,
        nucleation_share=uncertain_in(results, "nucleation_share") if "nucleation_share" in results else None,
        phases=tuple(Phase(*phase) for phase in zip(*ends, strict=True)),
        focusing_time_s=focusing["time"][()],
        focusing_nm_s=Estimate(*(focusing[name][()] for name in ("rate", "rate_errors", "rate_systematic"))),
        growth_exponent=uncertain_in(results, "growth_exponent") if "growth_exponent" in results else None,
        notes=texts_in(results["notes"]),
    )


def _read_build_up(group: h5py.Group) -> BuildUp:
    return BuildUp(
        law=text_in(group["law"]),
        names=texts_in(group["parameter_names"]),
        values=group["parameters"][()],
        covariance=group["covariance"][()],
        t98_s=uncertain_in(group, "t98"),
        chi2_red=float(group["chi2_reduced"][()]),
    )


def read_comparison(group: h5py.Group) -> Comparison:
    """The comparison in a group that `write` made; KeyError if it is another."""
    parameters, frames, curve = group["parameters"], group["frames"], group["curve"]
    columns = (
        texts_in(parameters["symbol"]),
        texts_in(parameters["unit"]),
        *(parameters[name][()].tolist() for name in ("value", "statistical", "systematic", "fitted")),
    )
    model = {f"model_{field}": frames[name][()] for name, field, _, _ in _MODEL}
    curves = {f"curve_{field}": curve[name][()] for name, field, _, _ in _MODEL}
    return Comparison(
        title=text_in(parameters["title"]),
        parameters=tuple(KineticParameter(*row) for row in zip(*columns, strict=True)),
        correlation=parameters["correlation"][()],
        chi2_red=float(parameters["chi2_reduced"][()]),
        degrees=int(parameters["degrees_of_freedom"][()]),
        converged=bool(parameters["converged"][()]),
        evaluations=int(parameters["evaluations"][()]),
        used=frames["used"][()],
        curve_time_s=curve["time"][()],
        notes=texts_in(parameters["notes"]),
        **model,
        **curves,
    )


def read_aliquots(group: h5py.Group) -> ScaledAliquots:
    """The aliquots in a group that `write` made; KeyError if it is another."""
    columns = {field: group[name][()] for name, field, _, _ in _ALIQUOTS}
    errors = {error: group[f"{name}_errors"][()] for name, _, error, _ in _ALIQUOTS}
    aliquots = Aliquots(
        time_s=group["time"][()],
        source=text_in(group["source"]),
        correlation=group["c_nc_yield_correlation"][()] if "c_nc_yield_correlation" in group else None,
        **columns,
        **errors,
    )
    return ScaledAliquots(aliquots, uncertain_in(group, "scale"), bool(group["scale_fitted"][()]))
