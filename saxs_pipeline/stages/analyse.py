"""Fits of a series → what it says about the reaction: build-up laws, phases, focusing, apparent growth exponent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from saxs_pipeline.reaction import BuildUp, Phase, SeriesAnalysis
from saxs_pipeline.science import timeseries
from saxs_pipeline.science.buildup import (
    Delay,
    LawFit,
    fit_delayed_second_order,
    fit_exponential,
    fit_second_order,
    share,
    with_scatter,
)
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.science.determination import determined
from saxs_pipeline.science.distributions import mean_volume, mean_volume_by
from saxs_pipeline.science.joint import CurveErrors, JointSeries, expected_covariance, shared_response
from saxs_pipeline.science.leastsquares import Points
from saxs_pipeline.stages.fit import poor, signal_to_noise
from saxs_pipeline.stages.quantify import UNSIZED
from saxs_pipeline.types import Bools, Curves, Estimate, FitTable, Floats, Ints, Quantities, Uncertain

MOST_POINTS = 96
"""More frames than these are averaged in as many bins of ln t. From 1 to 7700 s a bin is 10 % of its time wide, within
which an exponential bends by 2e-4 of its final value."""

SETTLED = (10, 0.9)
"""The series is analysed from the first run of so many frames on of which this share is sound."""

BIAS = 1.0
"""Bias of a frame's fit in units of cov(p, c)/c, as simulated for c/σ_c of 8 to 30: it is of second order, small beside
the error of one frame, and common to all, so that averages keep it."""

RUNS = 24
"""Runs of frames through which c, R₀ and s are smoothed, to evaluate errors that do not follow the noise."""

HELD_NOTE = "no growth exponent, no focusing rate: radius or spread were held or tied"

HELD = 1e-5
"""Relative error that stands for none where a size was held or tied: far below all others."""

FEWEST = 5
"""Sound frames that a series needs."""

C, R, S = range(3)


def analyse(curves: Curves, fits: FitTable, quantities: Quantities, model: Floats) -> SeriesAnalysis:
    """What the series says about the reaction; what it does not say is None, and the notes tell why.

    model (n, m): the fitted curves, not NaN in the window of the fit. Only frames after the injection count whose size
    is known. All errors contain the shared uncertainty of the background; that of the scale moves no time.
    """
    rows = _settled(_after_injection(curves, quantities), _sound(curves, fits, quantities), quantities.time_s)
    series = _averaged(_joint_series(curves, fits, quantities, model, rows), _information(curves, model, rows))
    if len(series.time_s) < FEWEST:
        return _nothing(f"{len(rows)} frames after the injection have a size: too few for an analysis of the series")
    per_volume = _yield_per_volume(fits, quantities, rows)
    points = _points(series, per_volume if math.isfinite(per_volume) else 1.0, fits.model.distribution)
    laws = _laws(points, _quiet(curves, fits, quantities))
    shown = _Shown(bool(np.isfinite(quantities.c_nc_umol_L.value[rows]).any()), math.isfinite(per_volume))
    doubts = ("more than half of the fits are poor: the errors here are too small, too",)
    said = doubts if poor(fits)[rows].mean() > 0.5 else ()
    return _report(points, laws, shown, said, sized=fits.model.sizes_are_free)


def _nothing(note: str) -> SeriesAnalysis:
    none = np.zeros(0)
    return SeriesAnalysis(None, None, None, (), none, Estimate(none, none, none), None, (note,))


# --- frames ----------------------------------------------------------------------------------------------------------


def _after_injection(curves: Curves, quantities: Quantities) -> Bools:
    """Usable frames after the injection that are not part of the background."""
    background = np.array(["background" in flag.split("|") for flag in quantities.flags])
    known = np.isfinite(quantities.time_s) & np.isfinite(curves.sigma).any(axis=1)
    return np.asarray(curves.usable & ~background & known & (quantities.time_s > 0))


def _sound(curves: Curves, fits: FitTable, quantities: Quantities) -> Bools:
    """Frames whose c, R₀ and s are known."""
    sized = np.array([UNSIZED.isdisjoint(flag.split("|")) for flag in quantities.flags])
    known = np.isfinite(fits.values[:, :3]).all(axis=1) & np.isfinite(fits.covariance[:, :3, :3]).all(axis=(1, 2))
    variances = np.diagonal(fits.covariance, axis1=1, axis2=2)[:, :3]
    positive = ((variances > 0) | ~fits.free[:, :3]).all(axis=1) & (fits.values[:, C] > 0)
    return np.asarray(_after_injection(curves, quantities) & fits.converged & sized & known & positive)


def _settled(after: Bools, sound: Bools, time_s: Floats) -> Ints:
    """Sound frames in order of time, from when on nearly all frames after the injection are sound.

    As long as only some pass the limit of c/σ_c, those do whose c came out too high.
    """
    order = np.flatnonzero(after)
    order = order[np.argsort(time_s[order], kind="stable")]
    passed = np.cumsum(np.concatenate([[0], sound[order]]))
    window = min(SETTLED[0], len(order))
    full = np.flatnonzero(passed[window:] - passed[: len(passed) - window] >= SETTLED[1] * window)
    order = order[int(full[0]) if len(full) else 0 :]
    return np.asarray(order[sound[order]])


def _quiet(curves: Curves, fits: FitTable, quantities: Quantities) -> Floats:
    """(time, 1 if no crystals are seen in it) of each usable frame after the injection, (j, 2)."""
    rows = np.flatnonzero(_after_injection(curves, quantities))
    with np.errstate(invalid="ignore"):
        seen = signal_to_noise(fits)[rows] > 2
    return np.stack([quantities.time_s[rows], ~seen], axis=-1)


def _window(model: Floats) -> Bools:
    return np.asarray(np.isfinite(model).any(axis=0))


def _joint_series(curves: Curves, fits: FitTable, quantities: Quantities, model: Floats, rows: Ints) -> JointSeries:
    """(c, R₀, s) of these frames with what all of them share: the background's error, and the bias of weak fits."""
    window = _window(model)
    errors = CurveErrors.of(curves, rows, window)
    smooth = _smoothed(np.log(quantities.time_s[rows]), fits.values[rows])
    spheres, free = CurveModel.of(fits.model), fits.free[rows]
    response = shared_response(errors, smooth, spheres, free)
    covariance = expected_covariance(errors, smooth, spheres, free)
    if not fits.model.sizes_are_free:  # the joint covariance must be definite; σ_r is not looked at then
        covariance[:, [R, S], [R, S]] += (HELD * smooth[:, [R, S]]) ** 2
    bias = BIAS * covariance[:, :, C] / smooth[:, C : C + 1]
    return JointSeries(
        quantities.time_s[rows],
        fits.values[rows, :3],
        covariance + bias[:, :, None] * bias[:, None, :],
        np.concatenate([response, bias[:, :, None]], axis=2),
    )


def _smoothed(logarithm: Floats, values: Floats) -> Floats:
    """Values (n, p) with straight lines in ln t through runs of frames for the first population and the constant: where
    errors are evaluated. c stays positive.
    """
    smooth = values.copy()
    for run in np.array_split(np.arange(len(values)), max(min(RUNS, len(values) // 3), 1)):
        columns = np.stack([np.ones(len(run)), logarithm[run]], axis=-1)
        smooth[run, :4] = columns @ (np.linalg.pinv(columns) @ values[run, :4])
        smooth[run, C] = np.maximum(smooth[run, C], 0.3 * values[run, C].mean()) if len(run) else 0.0
    return smooth


def _information(curves: Curves, model: Floats, rows: Ints) -> Floats:
    """Weight (n,) of each frame: Σ1/σ² of its curve, which knows about exposure and beam, but not about the values."""
    sigma = curves.sigma[rows][:, _window(model)]
    weight = np.zeros_like(sigma)
    np.divide(1.0, sigma * sigma, out=weight, where=np.isfinite(sigma) & (sigma > 0))
    return np.asarray(weight.sum(axis=1))


def _averaged(series: JointSeries, weight: Floats) -> JointSeries:
    """At most MOST_POINTS points: frames of one bin of ln t are one point. Frames at the same time are one, too."""
    logarithm = np.log(series.time_s)
    bins = logarithm
    if len(logarithm) > MOST_POINTS:
        inner = np.linspace(logarithm[0], logarithm[-1], MOST_POINTS + 1)[1:-1]
        bins = np.searchsorted(inner, logarithm, side="right")
    starts = np.flatnonzero(np.diff(bins, prepend=-np.inf) > 0)
    return series.averaged(starts, weight) if len(starts) else series


@dataclass(frozen=True, eq=False)
class _Series:
    """The points of one series: concentration, crystals' volume or yield, r, s, and what ties them together.

    c_crystals and r_s (b, b): covariance of c with the crystals' volume, and of r with s.
    """

    concentration: Points
    crystals: Points
    radius: Points
    variance: Points
    c_crystals: Floats
    r_s: Floats


def _yield_per_volume(fits: FitTable, quantities: Quantities, rows: Ints) -> float:
    """Yield per c⟨V⟩ (µmol/L nm³), one number for a series; NaN without a yield."""
    c, r, s = fits.values[rows, :3].T
    return float(np.median(quantities.yield_.value[rows] / (c * mean_volume(r, s, fits.model.distribution))))


def _points(series: JointSeries, per_volume: float, distribution: str) -> _Series:
    """Points of c, of c⟨V⟩ times per_volume, of r and of s."""
    c, r, s = series.values.T
    n, volume = len(c), mean_volume(r, s, distribution)
    by_radius, by_variance = mean_volume_by(r, s, distribution)
    joint = series.joint().reshape(n, 3, n, 3)
    gradient = per_volume * np.stack([volume, c * by_radius, c * by_variance], axis=-1)
    covariance = np.einsum("ia,iajb,jb->ij", gradient, joint, gradient, optimize=True)

    def points(k: int) -> Points:
        return Points(series.time_s, series.values[:, k], joint[:, k, :, k])

    return _Series(
        points(C),
        Points(series.time_s, per_volume * c * volume, 0.5 * (covariance + covariance.T)),
        points(R),
        points(S),
        np.einsum("ijb,jb->ij", joint[:, C], gradient),
        joint[:, R, :, S],
    )


# --- findings --------------------------------------------------------------------------------------------------------


class _Shown(NamedTuple):
    """Whether c is on an absolute scale, and whether the yield is known."""

    concentration: bool
    yield_: bool


class _Laws(NamedTuple):
    """Build-up laws of c and of the crystals' volume, None where undetermined; landmarks of the phases; notes."""

    concentration: LawFit | None
    crystals: LawFit | None
    cross: Floats
    delay_with_c: Floats
    landmarks: timeseries.Landmarks
    notes: tuple[str, ...]

    def nucleation_share(self) -> Uncertain | None:
        """Ratio of the two t98."""
        if self.concentration is None or self.crystals is None:
            return None
        return share(self.concentration, self.crystals, self.cross, self.delay_with_c)


def _laws(points: _Series, quiet: Floats) -> _Laws:
    """Fit both laws: that of c only up to the start of ripening."""
    onset, vague = _ripening(points.concentration)
    rising = points.concentration.between(0.0, math.inf if onset is None else onset)
    cross = points.c_crystals[: len(rising.time_s)]
    nucleation, late, missing = _concentration_law(rising, quiet)
    reaction, lacking = _crystals_law(points.crystals, None if late is None else _delay(late, cross))
    ends = [None if fit is None else fit.build_up.t98_s.value for fit in (nucleation, reaction)]
    return _Laws(
        nucleation,
        reaction,
        cross,
        np.zeros(len(rising.time_s)) if late is None else rising.covariance @ late.by_value[2],
        timeseries.Landmarks(None if late is None else float(late.build_up.values[2]), ends[0], ends[1], onset),
        (*missing, *lacking, *vague),
    )


def _delay(late: LawFit, cross: Floats) -> Delay:
    """Delay of a law of c; cross (n_c, n_y): covariance of its points with those of the yield."""
    value, variance = float(late.build_up.values[2]), float(late.build_up.covariance[2, 2])
    return Delay(value, math.sqrt(variance), late.by_value[2] @ cross)


def _ripening(concentration: Points) -> tuple[float | None, tuple[str, ...]]:
    """Start of ripening: the best time or, where that is vague, the end of its error, from when on it is seen."""
    onset = timeseries.ripening_onset(concentration)
    if onset is None:
        return None, ()
    if onset.error < 0.2 * onset.value:
        return onset.value, ()
    middle = float(np.median(concentration.time_s[concentration.time_s > onset.value]))
    seen = min(onset.value + onset.error, middle) if math.isfinite(onset.error) else middle
    return seen, (f"ripening starts at {onset.value:.3g} ± {onset.error:.2g} s; {seen:.3g} s is taken",)


def _concentration_law(points: Points, quiet: Floats) -> tuple[LawFit | None, LawFit | None, tuple[str, ...]]:
    """S3.3; the fit with a delay where the build-up begins clearly after the injection; notes."""
    if len(points.time_s) < FEWEST:
        return None, None, ("no build-up law: c falls from the beginning",)
    fit = fit_exponential(points)
    if not timeseries.rises(points, fit):
        return None, None, ("no build-up law: c does not clearly rise within the series",)
    if timeseries.induction_end(points, fit, quiet) is None:
        plain, notes = determined(fit_exponential, points, "c")
        return plain, None, notes
    delayed = partial(fit_exponential, delayed=True)
    late = with_scatter(delayed, points)
    known = late.build_up.covariance[2, 2] < late.build_up.values[2] ** 2
    delayed_fit, notes = determined(delayed, points, "c")
    return delayed_fit, late if known else None, notes


def _crystals_law(points: Points, delay: Delay | None) -> tuple[LawFit | None, tuple[str, ...]]:
    """S3.2 of the yield, or of the crystals' volume, which is proportional to it."""
    if not timeseries.rises(points, fit_second_order(points, delay_s=0.0 if delay is None else delay.value)):
        return None, ("no second-order law: the yield does not clearly rise within the series",)
    law = fit_second_order if delay is None else partial(fit_delayed_second_order, delay=delay)
    return determined(law, points, "the yield")


def _report(points: _Series, laws: _Laws, shown: _Shown, doubts: tuple[str, ...], *, sized: bool) -> SeriesAnalysis:
    """All findings in one; sized: radius and spread were fitted."""
    phases = timeseries.find_phases(points.crystals, laws.landmarks)
    exponent, notes = _exponent(points, phases) if sized else (None, (HELD_NOTE,))
    none = np.zeros(0)
    focusing_time, focusing = timeseries.focusing_rate(points.variance) if sized else (none, Estimate(none, none, none))
    if sized and not len(focusing_time):
        notes = (*notes, "no focusing rate: σ_r is not resolved, or the frames are too few")
    hidden = [
        _hidden(name, why, fit)
        for name, why, fit, seen in (
            ("concentration", "no absolute scale", laws.concentration, shown.concentration),
            ("yield", "no cation concentration, unit cell or absolute scale", laws.crystals, shown.yield_),
        )
        if fit is not None and not seen
    ]
    return SeriesAnalysis(
        concentration=_of(laws.concentration) if shown.concentration else None,
        yield_=_of(laws.crystals) if shown.yield_ else None,
        nucleation_share=laws.nucleation_share(),
        phases=phases,
        focusing_time_s=focusing_time,
        focusing_nm_s=focusing,
        growth_exponent=exponent,
        notes=(*laws.notes, *hidden, *notes, *doubts),
    )


def _of(fit: LawFit | None) -> BuildUp | None:
    return None if fit is None else fit.build_up


def _hidden(name: str, why: str, fit: LawFit) -> str:
    """What is known of a law whose quantity is only known up to a factor."""
    t98, error = fit.build_up.t98_s
    return f"no {name} law ({why}); up to a factor it is known, with t98 {t98:.4g} ± {error:.2g} s"


def _exponent(points: _Series, phases: tuple[Phase, ...]) -> tuple[Uncertain | None, tuple[str, ...]]:
    """Apparent growth exponent of the growth phase, or why there is none."""
    growth = [phase for phase in phases if phase.name == "growth"]
    if not growth:
        return None, ("no growth exponent: the series shows no phase of growth alone",)
    start, end = growth[0].start_s, growth[0].end_s
    keep = (points.radius.time_s >= start) & (points.radius.time_s <= end)
    found = timeseries.apparent_exponent(
        points.radius.between(start, end), points.variance.between(start, end), points.r_s[np.ix_(keep, keep)]
    )
    return found, () if found is not None else ("no growth exponent: r does not clearly change in the growth phase",)
