"""What `growth` and `bimodal` write: growth_rate.csv and bimodal.csv, their figures; and their summaries."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np

from saxs_pipeline.outputs.figure_files import write_captions, write_drawings
from saxs_pipeline.outputs.model_files import write_table
from saxs_pipeline.outputs.numbers import plus_minus
from saxs_pipeline.outputs.plot_bimodal import Radii, draw_bimodal, predictions
from saxs_pipeline.outputs.plot_growth import critical_radius_nm, draw_growth_rate, radii_shown, regimes
from saxs_pipeline.science.growth import ExponentFit
from saxs_pipeline.science.kinetics import Synthesis

Rows = list[tuple[str, str]]


def write_growth_rate(synthesis: Synthesis, supersaturation: float, folder: Path) -> Rows:
    """growth_rate.csv: r_nm, then j_G (nm/s) and its local exponent (S4.21) in full and under each control; a figure.

    Returns the summary. OSError if the folder cannot be written.
    """
    capillary = synthesis.capillary_m(0.0)
    radius = radii_shown(synthesis, supersaturation, capillary)
    shown = regimes(synthesis, supersaturation, capillary, radius)
    names, columns = ["r_nm"], [radius]
    for regime in shown:
        word = {"full rate": "full", "surface reaction": "reaction"}.get(regime.name, regime.name)
        names += [f"rate_{word}_nm_s", f"exponent_{word}"]
        columns += [regime.rate, regime.exponent]
    write_table(folder / "growth_rate.csv", names, np.column_stack(columns))
    write_captions(write_drawings([partial(draw_growth_rate, synthesis, supersaturation)], folder / "figures"))
    critical = critical_radius_nm(synthesis, supersaturation, capillary)
    none = "none: crystals of all sizes dissolve" if synthesis.desorption else "none: nothing dissolves"
    rows = [("critical radius", f"{critical:.4g} nm" if math.isfinite(critical) else none)]
    at = int(np.argmin(np.abs(radius - _REFERENCE_NM)))
    return rows + [
        (one.name, f"{one.rate[at]:.4g} nm/s, exponent n = {one.exponent[at]:.3g}, at r = {radius[at]:.3g} nm")
        for one in shown
    ]


_REFERENCE_NM = 2.0


def write_bimodal(radii: Radii, fit: ExponentFit, folder: Path) -> Rows:
    """bimodal.csv: the measured radii and r₁ predicted from r₂ for n = 0, n = 1 and the fitted n (S4.15); a figure.

    Returns the summary. OSError if the folder cannot be written.
    """
    drawn = predictions(radii, fit)
    names = ["t_s", "r1_nm", "r1_nm_err", "r2_nm", "r2_nm_err", "r1_reaction_nm", "r1_diffusion_nm", "r1_fit_nm"]
    columns = [radii.time_s, radii.r1_nm, radii.r1_error, radii.r2_nm, radii.r2_error]
    write_table(folder / "bimodal.csv", names, np.column_stack([*columns, *(one.fit.r1_nm for one in drawn)]))
    write_captions(write_drawings([partial(draw_bimodal, radii, fit)], folder / "figures"))
    rows = [
        ("growth exponent n", plus_minus(*fit.exponent)),
        *(
            (f"χ² reduced, {label}", f"{one.fit.chi2_red:.3g} with {one.fit.degrees} degrees of freedom")
            for label, one in zip(("n = 0 (reaction)", "n = 1 (diffusion)", "fitted n"), drawn, strict=True)
        ),
    ]
    return rows + [("note", note) for note in fit.notes]
