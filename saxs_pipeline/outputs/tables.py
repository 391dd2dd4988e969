"""Tables as text: series.csv, curves/*.dat, and the summary shown in the terminal and the report."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from saxs_pipeline.outputs import populations
from saxs_pipeline.outputs.flags import count_words, frame_flags, has_word, independent, sound
from saxs_pipeline.outputs.flags import populations as flagged
from saxs_pipeline.outputs.numbers import estimate_text, percent, plus_minus
from saxs_pipeline.outputs.size_tables import size_rows
from saxs_pipeline.reaction import BuildUp, Comparison, KineticParameter, Phase, ScaledAliquots, SeriesAnalysis
from saxs_pipeline.types import BadInput, Curves, Floats, Quantities, RunResult, ScaleFactor, Uncertain

COLUMNS = (
    "frame",
    "t_s",
    "exposure_s",
    "r_nm",
    "r_nm_err",
    "sigma_r_nm",
    "sigma_r_nm_err",
    "c_nc_umol_L",
    "c_nc_umol_L_err",
    "c_nc_umol_L_sys",
    "yield",
    "yield_err",
    "yield_sys",
    "background_1_mm",
    "background_1_mm_err",
    "chi2_red",
    "flag",
)
"""Columns of series.csv. `_err` is the statistical standard uncertainty, `_sys` the systematic one. Further populations
and terms of the fit have their columns after these (`populations.columns`)."""


def write_series(result: RunResult, path: Path) -> None:
    """Write series.csv."""
    path.write_text(series_text(result), encoding="utf-8", newline="")


def series_text(result: RunResult) -> str:
    """series.csv: one row per frame, ten significant digits, `nan` where nothing is reported.

    Times in s, lengths in nm, c_nc in µmol/L, yield as a fraction, background in the unit of the curves (1/mm).
    """
    numbers, more = series_numbers(result), populations.columns(result)
    rows = [
        [str(frame), *(f"{x:.10g}" for x in row), flag, *rest]
        for frame, row, flag, *rest in zip(
            result.curves.index, numbers, frame_flags(result), *more.values(), strict=True
        )
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *more])
    writer.writerows(rows)
    return text.getvalue()


def beyond(law: BuildUp, curves: Curves) -> str:
    """That the t98 of a law lies behind the end of the series it was fitted to, "" where it does not."""
    end_s = float(np.nanmax(curves.time_s))
    return f", extrapolated: the series ends at {end_s:.4g} s" if law.t98_s.value > end_s else ""


def series_numbers(result: RunResult) -> Floats:
    """The columns of series.csv between `frame` and `flag`, (n, 15); NaN where nothing is reported."""
    curves, quantities = result.curves, result.quantities
    times = [curves.time_s, curves.exposure_s]
    if quantities is None:
        nothing = np.full(curves.index.size, np.nan)
        return np.column_stack([*times, *(nothing for _ in range(len(COLUMNS) - 4))])
    return np.column_stack([*times, *_quantity_columns(quantities)])


def _quantity_columns(quantities: Quantities) -> list[Floats]:
    r, sigma, c = quantities.radius_nm, quantities.sigma_nm, quantities.c_nc_umol_L
    background = quantities.background_1_mm
    return [
        *(r.value, r.statistical, sigma.value, sigma.statistical),
        *c,
        *quantities.yield_,
        *(background.value, background.statistical, quantities.chi2_red),
    ]


def write_curves(result: RunResult, folder: Path, frames: Sequence[int]) -> None:
    """Write folder/frame_00123.dat for the frame numbers `frames`: commented header, then columns; no masked bins.

    Columns: q in 1/nm, I, its total, statistical and shared standard uncertainty in the unit of the curves, and the
    fitted curve where there is one (nan outside the fit's window). Raises BadInput for a frame the run does not have.
    """
    row_of = {int(frame): row for row, frame in enumerate(result.curves.index)}
    missing = [str(frame) for frame in frames if frame not in row_of]
    if missing:
        raise BadInput(
            f"output.curves: frame {', '.join(missing)} is not in this run; "
            f"choose from {min(row_of, default=0)} to {max(row_of, default=0)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for frame in frames:
        _write_curve(result, row_of[frame], folder / f"frame_{frame:05d}.dat")


def _write_curve(result: RunResult, row: int, path: Path) -> None:
    curves = result.curves
    names = ["q_1_nm", f"I_{_unit_suffix(curves)}", "sigma_total", "sigma_statistical", "sigma_shared"]
    one = curves.select(row, row + 1)
    columns = [curves.q_nm, curves.intensity[row], one.sigma[0], curves.statistical[row], one.common[0]]
    if result.model is not None:
        names.append("I_fit")
        columns.append(result.model[row])
    measured = np.isfinite(curves.intensity[row])
    header = [*_curve_header(result, row), " ".join(names)]
    lines = [f"# {line}" for line in header]
    lines += [" ".join(f"{x:.10g}" for x in point) for point in np.column_stack(columns)[measured]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def _unit_suffix(curves: Curves) -> str:
    return "1_mm" if curves.unit == "1/mm" else "arbitrary"


def factors_left_out(curves: Curves) -> list[str]:
    """Uncertainties that move a whole curve and are in none of its points' σ, one sentence each."""
    found = (
        (curves.factor_rel, "I + f B: each frame's monitor reading"),
        (curves.taken_off_rel, "the background f B: its factor, the same in all frames"),
    )
    return [f"not in sigma: {100 * relative:.3g} % of {what}" for relative, what in found if relative]


def _curve_header(result: RunResult, row: int) -> list[str]:
    curves = result.curves
    scale = f"; one common scale uncertainty of {curves.scale_rel:.3g} (relative)" if curves.scale_rel else ""
    return [
        " ".join(result.title.split()),
        f"frame {curves.index[row]}, flag {frame_flags(result)[row]}",
        f"time {curves.time_s[row]:.10g} s (middle of the exposure), exposure {curves.exposure_s[row]:.10g} s",
        f"q in 1/nm; I and its standard uncertainties in {curves.unit}{scale}",
        "sigma_total^2 = sigma_statistical^2 + sigma_shared^2; sigma_shared is common to all frames (background, dark)",
        *factors_left_out(curves),
        "for SasView use run_nxcansas.h5: a text reader takes q for 1/A, I for 1/cm and the fourth column for dQ",
    ]


def summary(result: RunResult) -> list[tuple[str, str]]:
    """What a run found, as (name, text) rows: frames, flags, times, last values, quality of the fits, scale, reaction.

    Values read "value ± statistical ± systematic unit", rounded to the uncertainty's two leading digits.
    """
    rows = _frame_rows(result)
    if result.quantities is not None:
        rows += populations.named(result, _quantity_rows(result, result.quantities)) + populations.rows(result)
    if result.sizes is not None:
        rows += size_rows(result.sizes)
    if result.scale is not None:
        rows.append(("absolute scale", _scale_text(result.scale)))
    if result.background is not None:
        background = result.background
        factor = "" if background.factor == 1 else f", times {background.factor:g}"
        rows.append(("background", f"{background.source}{factor}"))
    if result.analysis is not None:
        rows += [*t98_rows(result.analysis, result.curves), *analysis_rows(result.analysis)]
    if result.comparison is not None:
        rows += comparison_rows(result.comparison)
    if result.aliquots is not None:
        scaled = math.isfinite(result.aliquots.scale.value)
        rows.append(("aliquots", f"c_NC, yield {scale_of_aliquots(result.aliquots)}" if scaled else "r alone"))
    return rows


def t98_rows(analysis: SeriesAnalysis, curves: Curves) -> list[tuple[str, str]]:
    """When c_NC and the yield of the series of these curves reach 98 %, as (name, text) rows."""
    laws = (("t98 of c_NC", analysis.concentration), ("t98 of the yield", analysis.yield_))
    return [(name, plus_minus(*law.t98_s, unit="s") + beyond(law, curves)) for name, law in laws if law is not None]


def analysis_rows(analysis: SeriesAnalysis) -> list[tuple[str, str]]:
    """What else the series says about the reaction, as (name, text) rows; nothing is said where it does not say."""
    rows = []
    if analysis.nucleation_share is not None:
        share = Uncertain(*(100 * x for x in analysis.nucleation_share))
        rows.append(("nucleation share", f"{plus_minus(*share, unit='%')} of the time to 98 % yield"))
    if analysis.phases:
        rows.append(("phases", ", ".join(phase_text(phase) for phase in analysis.phases)))
    if analysis.growth_exponent is not None:
        exponent = f"{plus_minus(*analysis.growth_exponent)} of the distribution as a whole; late nuclei lower it"
        rows.append(("apparent growth exponent", exponent))
    return rows


def phase_text(phase: Phase) -> str:
    """ "growth 61 to 403 s"."""
    return f"{phase.name} {seconds(phase.start_s)} to {seconds(phase.end_s)} s"


def seconds(time: float) -> str:
    """A time in s, three digits at least and no power of ten, without its unit."""
    return f"{time:.0f}" if abs(time) >= 100 else f"{time:.3g}"


def comparison_rows(comparison: Comparison) -> list[tuple[str, str]]:
    """Quality of the comparison with the kinetic model and the fitted parameters, as (name, text) rows."""
    rows = [("kinetic model", f"{comparison.title}: {quality_text(comparison)}")]
    rows += [(f"fitted {p.symbol}", parameter_text(p)) for p in comparison.parameters if p.fitted]
    return rows + [("note", note) for note in comparison.notes]


def quality_text(comparison: Comparison) -> str:
    """ "χ²_red 1.02 with 1204 degrees of freedom"; says so if the fit did not converge."""
    lost = "" if comparison.converged else "; the fit did not converge"
    return f"χ²_red {comparison.chi2_red:.3g} with {comparison.degrees} degrees of freedom{lost}"


def parameter_text(parameter: KineticParameter) -> str:
    """ "value ± statistical ± systematic unit", without uncertainties where it was not fitted or the fit has none."""
    if parameter.fitted and not math.isfinite(parameter.statistical):
        return f"{plus_minus(parameter.value, unit=unit_text(parameter.unit))} (not converged)"
    errors = [parameter.statistical] if parameter.fitted else []
    if parameter.fitted and parameter.systematic > 0.05 * parameter.statistical:  # less has no digit left
        errors.append(parameter.systematic)
    return plus_minus(parameter.value, *errors, unit=unit_text(parameter.unit))


def unit_text(unit: str) -> str:
    """ "mol/m^3" as "mol/m³"."""
    return unit.replace("^2", "²").replace("^3", "³")


def scale_of_aliquots(scaled: ScaledAliquots) -> str:
    """ "/ 0.80 ± 0.02 (fitted)", by what c_NC and yield of aliquots are divided."""
    return f"/ {bracketed_scale(scaled)} ({'fitted' if scaled.fitted else 'fixed'})"


def bracketed_scale(scaled: ScaledAliquots) -> str:
    """The factor aliquot / in situ, in brackets if it has an error."""
    return f"({plus_minus(*scaled.scale)})" if scaled.fitted else plus_minus(*scaled.scale)


def _frame_rows(result: RunResult) -> list[tuple[str, str]]:
    curves, every = result.curves, [(name, one.flags) for name, one in flagged(result)] or [("", frame_flags(result))]
    number, bad = curves.index.size, int((~sound(result)).sum())
    rows = [("frames", f"{number}, of which {number - bad} sound and {bad} excluded")]
    for name, flags in every:
        if counts := count_words(flags):
            rows.append((f"{name}: flagged".removeprefix(": "), ", ".join(f"{word}: {n}" for word, n in counts)))
    times = curves.time_s[np.isfinite(curves.time_s)]
    if times.size:
        rows.append(("time", f"{times.min():.4g} s to {times.max():.4g} s after the time zero"))
    rows.append(("q", f"{curves.q_nm[0]:.4g} to {curves.q_nm[-1]:.4g} nm⁻¹ in {curves.q_nm.size} bins"))
    return rows


def _quantity_rows(result: RunResult, quantities: Quantities) -> list[tuple[str, str]]:
    row = last_reported(result, quantities)
    if row is None:
        return [("last reported frame", "none: no frame supports a radius"), *_chi2_rows(result, quantities)]
    rows = [("last reported frame", f"{quantities.index[row]}, at {quantities.time_s[row]:.4g} s")]
    for name, estimate, unit, size in (
        ("radius r", quantities.radius_nm, "nm", "radius"),
        ("spread σ_r", quantities.sigma_nm, "nm", "sigma"),
        ("concentration c_NC", quantities.c_nc_umol_L, "µmol/L", ""),
        ("yield", percent(quantities.yield_), "%", ""),
    ):
        if np.isfinite(estimate.value[row]):
            rows.append((name, estimate_text(estimate, row, unit) + populations.held_note(result, 0, size)))
    return rows + _chi2_rows(result, quantities)


def _chi2_rows(result: RunResult, quantities: Quantities) -> list[tuple[str, str]]:
    chi2 = quantities.chi2_red[independent(result) & np.isfinite(quantities.chi2_red)]
    if not chi2.size:
        return []
    low, median, high = np.percentile(chi2, [5, 50, 95])
    return [("χ² reduced", f"median {median:.3f}, 5–95 % of the frames {low:.3f} to {high:.3f}")]


def last_reported(result: RunResult, one: Quantities | None = None) -> int | None:
    """Row of the last sound, well-fitted frame that has a radius and a spread with an error; None if there is none.

    one: of this population; without it of any.
    """
    reported = np.zeros(result.curves.index.size, dtype=bool)
    for _, quantities in flagged(result) if one is None else (("", one),):
        radius, spread = quantities.radius_nm, quantities.sigma_nm
        known = np.isfinite(radius.value + spread.value + spread.statistical)
        reported |= sound(result, quantities) & ~has_word(quantities.flags, "poor_fit") & known
    return int(np.flatnonzero(reported)[-1]) if reported.any() else None


def _scale_text(scale: ScaleFactor) -> str:
    text = f"{plus_minus(*scale.factor)} ({scale.method})"
    if scale.window_nm is not None:
        text += f", window {scale.window_nm[0]:g} to {scale.window_nm[1]:g} nm⁻¹"
    if math.isfinite(scale.slope_over_sigma):
        text += f", slope {scale.slope_over_sigma:.2f} σ"
    if math.isfinite(scale.drift):
        text += f" ({scale.drift:+.2%} across it), χ²_red {scale.chi2_red:.3g}"
    return f"{text}; {contributions_text(scale)}" if scale.contributions else text


def contributions_text(scale: ScaleFactor) -> str:
    """ "counting 0.12 %, cross section 1.0 %, …": what the relative uncertainty of the scale is made of."""
    return ", ".join(
        f"{name} {100 * value:.2g} %" if value > 0 else f"{name} not stated" for name, value in scale.contributions
    )
