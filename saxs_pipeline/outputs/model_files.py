"""What `model` writes: model.csv, summary.json, scan.csv, modes.csv, figures; and its summary in the terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from saxs_pipeline import __version__
from saxs_pipeline.outputs.simulated import Simulated, Summary, crystals_text, origins, summarise
from saxs_pipeline.types import Floats

STILL = 1e-3
"""Share of the highest nucleation rate above which nucleation goes on."""

COLUMNS = ("t_s", "r_nm", "sigma_r_nm", "c_nc_umol_L", "yield", "supersaturation", "r_critical_nm")
"""Columns of model.csv."""


def write_model(simulated: Simulated, folder: Path) -> list[str]:
    """Write all files of a simulation into an existing folder; the same simulation gives the same bytes.

    model.csv: one row per step of the solver and two where the generation jumps (before, after), nine significant
    digits, `nan` where nothing is defined; modes.csv: crystals of each origin; scan.csv: the summary of each n;
    summary.json: the summary with null for NaN, parameters, versions. In figures/: model_snapshots, model_development,
    model_share (of a scan), model_modes (of several origins); those drawn are returned. OSError if the folder cannot be
    written.
    """
    development = simulated.development
    crystals = development.all
    columns = [crystals.radius_nm, crystals.sigma_nm, crystals.c_umol_L, development.yield_]
    columns += [development.supersaturation, development.critical_radius_nm]
    write_table(folder / "model.csv", COLUMNS, np.column_stack([development.time_s, *columns]))
    if len(development.modes) > 1:
        _write_modes(simulated, folder / "modes.csv")
    if simulated.scan:
        rows = [[_number(run.n), *summarise(run.development)] for run in simulated.scan]
        write_table(folder / "scan.csv", ("n", *Summary._fields), rows)
    _write_summary(simulated, folder / "summary.json")
    return _write_figures(simulated, folder / "figures")


def write_table(path: Path, names: Sequence[str], rows: Floats | Iterable[Sequence[float]]) -> None:
    """A CSV table with a header, nine significant digits."""
    lines = [",".join(names), *(",".join(f"{x:.9g}" for x in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _write_modes(simulated: Simulated, path: Path) -> None:
    """Columns r1_nm, sigma_r1_nm, c1_nc_umol_L of the first mode, then those of the others, in order of birth."""
    names, columns = ["t_s"], [simulated.development.time_s]
    for number, mode in enumerate(simulated.development.modes, start=1):
        names += [f"r{number}_nm", f"sigma_r{number}_nm", f"c{number}_nc_umol_L"]
        columns += [mode.radius_nm, mode.sigma_nm, mode.c_umol_L]
    write_table(path, names, np.column_stack(columns))


def _write_summary(simulated: Simulated, path: Path) -> None:
    numbers = summarise(simulated.development)._asdict()
    content = {
        "title": simulated.title,
        "end_s": simulated.end_s,
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
        "yield": float(simulated.development.yield_[-1]),
        "parameters": dict(simulated.parameters),
        "versions": {"saxs_pipeline": __version__, "numpy": version("numpy"), "scipy": version("scipy")},
    }
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def _write_figures(simulated: Simulated, folder: Path) -> list[str]:
    from saxs_pipeline.outputs.figure_files import write_captions, write_drawings
    from saxs_pipeline.outputs.plot_model import draw_development, draw_modes, draw_share
    from saxs_pipeline.outputs.plot_snapshots import draw_snapshots

    draw = (draw_snapshots, draw_development, draw_share, draw_modes)
    files = write_drawings([partial(figure, simulated) for figure in draw], folder)
    write_captions(files)
    return [one.name for one in files]


def summary_rows(simulated: Simulated) -> list[tuple[str, str]]:
    """What a simulation found, as (name, text) rows for the terminal; one row per origin and per n."""
    summary = summarise(simulated.development)
    rows = [
        ("98 % of c_NC", _with_unit(summary.t98_c_s, "s")),
        ("98 % of the yield", _with_unit(summary.t98_yield_s, "s")),
        ("share of nucleation", _with_unit(100 * summary.nucleation_share, "%")),
        (f"radius r at {simulated.end_s:.5g} s", _with_unit(summary.r_nm, "nm")),
        ("spread σ_r", _with_unit(summary.sigma_r_nm, "nm")),
        ("skewness", _with_unit(summary.skewness, "")),
        ("concentration c_NC", _with_unit(summary.c_nc_umol_L, "µmol/L")),
        ("yield", _with_unit(100 * float(simulated.development.yield_[-1]), "%")),
        ("highest supersaturation", _with_unit(summary.peak_supersaturation, "")),
        ("error of the mass balance", f"{summary.mass_drift:.1e}"),
    ]
    modes = list(zip(origins(simulated), simulated.development.modes, strict=True))
    if sum(map(bool, origins(simulated))) > 1:
        rows += [(f"crystals {origin}", crystals_text(mode)) for origin, mode in modes if origin]
    nucleation = simulated.development.nucleation
    if nucleation[-1] > STILL * nucleation.max() > 0:
        rows.append(("note", "crystals still form at the end: 98 % is of what there is by then"))
    return rows + [(f"n = {_number(run.n):g}", _scan_text(summarise(run.development))) for run in simulated.scan]


def _with_unit(value: float, unit: str) -> str:
    return f"{value:.5g} {unit}".rstrip() if math.isfinite(value) else "none"


def _scan_text(summary: Summary) -> str:
    parts = (
        ("98 % of c_NC at", summary.t98_c_s, "s"),
        ("98 % of the yield at", summary.t98_yield_s, "s"),
        ("share", 100 * summary.nucleation_share, "%"),
        ("r", summary.r_nm, "nm"),
        ("σ_r", summary.sigma_r_nm, "nm"),
        ("c_NC", summary.c_nc_umol_L, "µmol/L"),
    )
    return ", ".join(f"{name} {_with_unit(value, unit)}" for name, value, unit in parts if math.isfinite(value))
