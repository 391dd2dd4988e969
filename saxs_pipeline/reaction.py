"""What a series says about the reaction: build-up laws, phases, aliquots, and its comparison with the kinetic model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from saxs_pipeline.types import Bools, Estimate, Floats, Uncertain


@dataclass(frozen=True)
class BuildUp:
    """A build-up law fitted to a series: parameters (k,) by name (unit in the name), covariance (k, k).

    t98_s: when 98 % of the final value is reached, with its standard uncertainty.
    """

    law: str
    names: tuple[str, ...]
    values: Floats
    covariance: Floats
    t98_s: Uncertain
    chi2_red: float


class Phase(NamedTuple):
    """A phase of the reaction (induction, nucleation, growth, ripening) from start to end, s."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class SeriesAnalysis:
    """What the series says about the reaction; None where it does not say, `notes` tell why.

    concentration: c_NC(t), S3.3; yield_: yield(t), S3.2; nucleation_share: ratio of their t98;
    focusing: dσ_r/dt (nm/s) at focusing_time_s, each (k,), value and statistical uncertainty (systematic 0);
    growth_exponent: apparent n of j_G ∝ 1/rⁿ in the growth phase, from −d ln σ_r/d ln r.
    """

    concentration: BuildUp | None
    yield_: BuildUp | None
    nucleation_share: Uncertain | None
    phases: tuple[Phase, ...]
    focusing_time_s: Floats
    focusing_nm_s: Estimate
    growth_exponent: Uncertain | None
    notes: tuple[str, ...] = ()


class KineticParameter(NamedTuple):
    """A parameter of the kinetic model: its symbol in the parameter file, unit, value and uncertainties.

    statistical includes the shared background; systematic is that of the absolute scale; both 0 if it was not fitted.
    """

    symbol: str
    unit: str
    value: float
    statistical: float
    systematic: float
    fitted: bool


@dataclass(frozen=True)
class Aliquots:
    """Ex-situ series, each (k,): NaN where not measured; the errors are standard uncertainties.

    correlation: of the errors of c and yield of one aliquot; None where they were measured independently.
    """

    time_s: Floats
    radius_nm: Floats
    radius_error: Floats
    c_umol_L: Floats
    c_error: Floats
    yield_: Floats
    yield_error: Floats
    source: str
    correlation: Floats | None = None


class ScaledAliquots(NamedTuple):
    """Aliquots beside the series: aliquot = scale · in situ for c and yield; a fixed scale has error 0.

    NaN where the aliquots have neither.
    """

    aliquots: Aliquots
    scale: Uncertain
    fitted: bool


@dataclass(frozen=True)
class Comparison:
    """Measured series against the kinetic model; rows are the frames of Quantities.

    model_*: (n,) of what a Gaussian-sphere fit would report of the model's crystals at the frames' times (NaN before
    the injection), c and yield times the scale that was fitted; used (n,): frames that took part in the fit;
    correlation (k, k) of the fitted parameters in order; chi2_red over the used frames with `degrees` of freedom;
    curve_*: the model on a fine time grid, for drawing.
    """

    title: str
    parameters: tuple[KineticParameter, ...]
    correlation: Floats
    chi2_red: float
    degrees: int
    converged: bool
    evaluations: int
    model_radius_nm: Floats
    model_sigma_nm: Floats
    model_c_umol_L: Floats
    model_yield: Floats
    used: Bools
    curve_time_s: Floats
    curve_radius_nm: Floats
    curve_sigma_nm: Floats
    curve_c_umol_L: Floats
    curve_yield: Floats
    notes: tuple[str, ...] = ()
