"""The fit of one curve in depth as files: fit.json, fit.dat, fit.txt, figures; and its rows for the terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from saxs_pipeline import __version__
from saxs_pipeline.curve_fit import Chain, CurveFit, FitParameter
from saxs_pipeline.outputs.numbers import plus_minus
from saxs_pipeline.types import Floats, Uncertain

Rows = list[tuple[str, str]]

MADE_BY = "saxs-pipeline fit"
FILES = ("fit.json", "fit.dat", "fit.txt", "fit.png", "fit.svg", "corner.png", "corner.svg")
"""What may be written; the last two with Monte Carlo only."""

TOLD = 0.1
"""|r| from which on a correlation is listed."""

QUANTILES = (2.275, 15.865, 50.0, 84.135, 97.725)
"""In %: those of a normal distribution at -2 … 2 standard deviations."""


def write_fit(fit: CurveFit, folder: Path) -> None:
    """Write all files of a fit into an existing folder; the same fit gives the same bytes. OSError if that fails."""
    from saxs_pipeline.outputs.figure_files import write_drawings
    from saxs_pipeline.outputs.plot_corner import draw_corner
    from saxs_pipeline.outputs.plot_fit import draw_fit

    drawn = write_drawings([partial(draw_fit, fit), partial(draw_corner, fit)], folder)
    captions = {one.name: one.caption for one in drawn}
    _write_curve(fit, folder / "fit.dat")
    text = json.dumps(_content(fit) | {"captions": captions}, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "fit.json").write_text(f"{text}\n", encoding="utf-8", newline="\n")
    listed = rows(fit)
    width = max(len(name) for name, _ in listed)
    lines = [f"{name:<{width}}  {value}".replace("\n", "\n" + " " * (width + 2)) for name, value in listed]
    lines += [f"\n{name}: {caption}" for name, caption in captions.items()]
    (folder / "fit.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


# --- text ------------------------------------------------------------------------------------------------------------


def rows(fit: CurveFit) -> Rows:
    """What a fit found, as (name, text) rows: "value ± statistical ± systematic unit", profiles, correlations, χ²."""
    q = fit.curve.q_nm[fit.window]
    found: Rows = [("curve", fit.source), ("q", f"{q[0]:.4g} to {q[-1]:.4g} nm⁻¹, {fit.n_points} points")]
    found += [("model", _model_text(fit))]
    found += [(one.name, _parameter_rows(one)) for one in fit.parameters]
    found += [(f"{name}", plus_minus(*value, unit="%")) for name, value in relative_widths(fit).items()]
    found.append(("χ² reduced", f"{fit.chi2_red:.4g} with {fit.degrees} degrees of freedom"))
    if correlations := _correlation_text(fit.names, fit.correlation):
        found.append(("correlation", correlations))
    if fit.chain is not None:
        found += _chain_rows(fit.chain)
    return found + [("note", note) for note in fit.notes]


def _model_text(fit: CurveFit) -> str:
    model = fit.model
    spheres = [f"{one.name}: spheres".removeprefix(": ") for one in model.populations]
    terms = [f"{' + '.join(spheres)}, radii {model.distribution}"]
    if model.volume_fraction is not None:
        terms.append("hard-sphere structure factor")
    if model.power_law is not None:
        terms.append("power law d q^-p")
    terms.append("constant" if model.constant is None else "constant given")
    if model.sigma_q_1_nm:
        low, high = model.sigma_q_range
        terms.append(f"smeared by {low:.3g}{f' to {high:.3g}' if low < high else ''} nm⁻¹")
    return "; ".join(terms)


def value_text(one: FitParameter) -> str:
    """ "2.2193 ± 0.0016 nm"; "< 0.24 nm" for a width that is not resolved."""
    unit = unit_text(one.unit)
    if math.isfinite(one.upper_limit):
        return f"< {one.upper_limit:#.2g} {unit}"
    errors = [one.error] if math.isfinite(one.error) else []
    if errors and one.systematic > 0.05 * one.error:  # less has no digit left
        errors.append(one.systematic)
    return plus_minus(one.value, *errors, unit=unit)


def _parameter_rows(one: FitParameter) -> str:
    lines = [value_text(one)]
    if math.isfinite(one.upper_limit):
        fitted = plus_minus(one.value, one.error, unit=unit_text(one.unit)) if one.how == "fitted" else "0"
        lines = [f"{lines[0]} (2 standard errors; not resolved: fitted {fitted})"]
    elif one.how != "fitted":
        lines = [f"{lines[0]} ({one.how})"]
    elif one.systematic > 0.05 * one.error:
        lines = [f"{lines[0]} (statistical, systematic)"]
    if one.intervals:
        lines.append(_profile_text(one))
    if one.batch.error > 0:
        lines.append(f"fit of the series: {plus_minus(*one.batch, unit=unit_text(one.unit))}")
    return "\n".join(lines)


def _profile_text(one: FitParameter) -> str:
    """ "profile: 1 σ −0.0016 +0.0015, 2 σ −0.0032 +0.0029": limits as distances from the value."""
    power = _power(one.value, one.error)
    text = ", ".join(
        f"{i.level:g} σ {_away(i.low - one.value, power)} {_away(i.high - one.value, power)}" for i in one.intervals
    )
    return f"profile{f' ({_ten(power)})' if power else ''}: {text}"


def _power(value: float, error: float) -> int:
    """The power of ten that `plus_minus` takes out of a value with this error."""
    power = math.floor(math.log10(max(abs(value), error)))
    return power if power < -2 or power > 5 else 0


def _ten(power: int) -> str:
    return "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _away(distance: float, power: int) -> str:
    """Distance of a limit from its value, in units of a power of ten."""
    if not math.isfinite(distance):
        return "no lower limit" if distance < 0 else "no upper limit"
    return f"{'+' if distance > 0 else '−'}{abs(distance) / 10.0**power:#.2g}".rstrip(".")


def relative_widths(fit: CurveFit) -> dict[str, Uncertain]:
    """σ_r over r of each population where both were fitted, in %."""
    found = {}
    for prefix in fit.model.prefixes:
        radius, sigma = fit.parameter(f"{prefix}radius"), fit.parameter(f"{prefix}sigma")
        if radius.name in fit.names and sigma.name in fit.names and not math.isfinite(sigma.upper_limit):
            ratio = sigma.value / radius.value
            slope = np.zeros(len(fit.names))
            slope[fit.names.index(sigma.name)] = 1 / radius.value
            slope[fit.names.index(radius.name)] = -ratio / radius.value
            error = math.sqrt(float(slope @ fit.covariance @ slope))
            found[f"{sigma.name}/{radius.name}"] = Uncertain(100 * ratio, 100 * error)
    return found


def _correlation_text(names: Sequence[str], matrix: Floats) -> str:
    """Pairs with |r| > 0.1, the strongest first."""
    pairs = [(matrix[i, j], a, names[j]) for i, a in enumerate(names) for j in range(i + 1, len(names))]
    pairs = sorted((pair for pair in pairs if abs(pair[0]) > TOLD), key=lambda pair: -abs(pair[0]))
    return "\n".join(f"{a}, {b}: {r:+.3f}".replace("-", "−") for r, a, b in pairs)


def _chain_rows(chain: Chain) -> Rows:
    enough = "" if chain.long_enough else "; fewer than 50 autocorrelation times: give --emcee more steps"
    text = (
        f"{chain.walkers} walkers, {chain.steps} steps, the first {chain.burn} left out; "
        f"{100 * chain.acceptance:.0f} % accepted; autocorrelation {chain.autocorrelation.max():.0f} steps{enough}"
    )
    found = [("Monte Carlo", text)]
    for name, unit, (_, low, median, high, _) in zip(chain.names, chain.units, quantiles(chain).T, strict=True):
        power = _power(median, 0.5 * (high - low))
        value, *sides = median / 10.0**power, _away(low - median, power), _away(high - median, power)
        decimals = max((len(side.partition(".")[2]) for side in sides), default=0)
        text = f"{value:.{decimals}f} {' '.join(sides)}"
        found.append((f"  {name}", f"{f'({text})·{_ten(power)}' if power else text} {unit_text(unit)}".rstrip()))
    return found


def quantiles(chain: Chain) -> Floats:
    """QUANTILES of each parameter, (5, f)."""
    found: Floats = np.percentile(chain.samples, QUANTILES, axis=0)
    return found


def unit_text(unit: str) -> str:
    """ "1/mm" as "mm⁻¹"."""
    return {"1/mm": "mm⁻¹", "1/mm/nm^6": "mm⁻¹ nm⁻⁶"}.get(unit, unit.replace("^6", "⁶"))


# --- data ------------------------------------------------------------------------------------------------------------


def _content(fit: CurveFit) -> dict[str, Any]:
    """What fit.json holds; null where there is no number. Lengths nm, q 1/nm."""
    q = fit.curve.q_nm[fit.window]
    packages = ("numpy", "scipy", "lmfit", *(("emcee",) if fit.chain is not None else ()))
    return {
        "made_by": MADE_BY,
        "source": fit.source,
        "q_1_nm": [float(q[0]), float(q[-1])],
        "points": fit.n_points,
        "degrees_of_freedom": fit.degrees,
        "chi2": fit.chi2,
        "chi2_reduced": fit.chi2_red,
        "model": asdict(fit.model),
        "parameters": {one.name: _parameter_content(one) for one in fit.parameters},
        "derived_percent": {name: list(value) for name, value in relative_widths(fit).items()},
        "fitted": list(fit.names),
        "covariance": fit.covariance.tolist(),
        "correlation": fit.correlation.tolist(),
        "monte_carlo": None if fit.chain is None else _chain_content(fit.chain),
        "notes": list(fit.notes),
        "versions": {"saxs_pipeline": __version__, **{name: version(name) for name in packages}},
    }


def _parameter_content(one: FitParameter) -> dict[str, Any]:
    return {
        "value": one.value,
        "error": _number(one.error),
        "systematic": _number(one.systematic),
        "unit": one.unit,
        "how": one.how,
        "range": [_number(limit) for limit in one.limits],
        "upper_limit": _number(one.upper_limit),
        "profile": {f"{i.level:g} sigma": [_number(i.low), _number(i.high)] for i in one.intervals},
        "series": [_number(part) for part in one.batch],
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _chain_content(chain: Chain) -> dict[str, Any]:
    return {
        "parameters": list(chain.names),
        "steps": chain.steps,
        "burn_in": chain.burn,
        "walkers": chain.walkers,
        "acceptance": chain.acceptance,
        "autocorrelation_steps": chain.autocorrelation.tolist(),
        "long_enough": chain.long_enough,
        "percent": list(QUANTILES),
        "quantiles": dict(zip(chain.names, quantiles(chain).T.tolist(), strict=True)),
    }


def _write_curve(fit: CurveFit, path: Path) -> None:
    """q, I, σ, fit with its error, residual, and what each part adds; measured bins, nan outside the fit's window."""
    curve, suffix = fit.curve, "1_mm" if fit.curve.unit == "1/mm" else "arbitrary"
    names = ["q_1_nm", f"I_{suffix}", "sigma", "I_fit", "I_fit_err", "residual"]
    names += [f"I_{label.replace(' ', '_')}" for label, _ in fit.parts]
    residual = (curve.intensity[0] - fit.fitted) / curve.sigma[0]
    columns = [curve.q_nm, curve.intensity[0], curve.sigma[0], fit.fitted, fit.band, residual]
    columns += [part for _, part in fit.parts]
    measured = np.isfinite(curve.intensity[0])
    header = [
        fit.source,
        f"q in 1/nm; I in {curve.unit}; sigma: standard uncertainty; residual (I - I_fit)/sigma",
        " ".join(names),
    ]
    lines = [f"# {line}" for line in header]
    lines += [" ".join(f"{x:.10g}" for x in point) for point in np.column_stack(columns)[measured]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
