"""Whether a series determines the t98 of a build-up law, checked against what its points show without the law."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from saxs_pipeline.science.buildup import LawFit, fails, with_scatter
from saxs_pipeline.science.crossing import interpolated_t98
from saxs_pipeline.science.leastsquares import Points
from saxs_pipeline.science.timeseries import FEWEST
from saxs_pipeline.types import Uncertain

UNDETERMINED = 0.5
"""Relative error of t98 from which on a series says nothing about it."""

APART = 1.5
"""Standard errors of an interpolated t98 from which on it differs from that of a law."""


def determined(law: Callable[[Points], LawFit], points: Points, what: str) -> tuple[LawFit | None, tuple[str, ...]]:
    """The fit, unless the series leaves its t98 open, and what must be said about it.

    Where the law fails and the series shows the end of the rise, t98 is interpolated.
    """
    fit = with_scatter(law, points)
    notes = list(fit.notes)
    if fails(fit):
        fit, doubt = _interpolated(fit, points)
        notes.append(f"{what} does not follow the {fit.build_up.law} within its errors: {doubt}")
    else:
        fit, doubts = _checked(fit, points, what)
        notes += doubts
    t98, error = fit.build_up.t98_s
    if not error < UNDETERMINED * t98:
        return None, (f"t98 of {what} is not determined: {t98:.3g} ± {error:.3g} s",)
    if t98 > points.time_s[-1]:
        notes.append(f"t98 of {what}, {t98:.4g} s, is extrapolated: the series ends at {points.time_s[-1]:.4g} s")
    return fit, tuple(notes)


def _checked(fit: LawFit, points: Points, what: str) -> tuple[LawFit, list[str]]:
    """The fit; where t98 by interpolation clearly differs, with that in its error: χ² overlooks slow bends."""
    found, (t98, error) = interpolated_t98(points), fit.build_up.t98_s
    notes = _unchecked(fit, points, what, None if found is None else found[0])
    if found is None or abs(found[0].value - t98) < APART * found[0].error:
        return fit, notes
    wider = Uncertain(t98, math.hypot(error, found[0].value - t98))
    return replace(fit, build_up=replace(fit.build_up, t98_s=wider)), [
        *notes,
        f"t98 of {what} is {t98:.4g} s by the {fit.build_up.law}, {found[0].value:.4g} ± {found[0].error:.2g} s by "
        "interpolation without it; the difference is in its error",
    ]


def _unchecked(fit: LawFit, points: Points, what: str, found: Uncertain | None) -> list[str]:
    """What to say where the points cannot tell the law from another: then χ² is blind to a law that is wrong."""
    t98, error = fit.build_up.t98_s
    start = f"t98 of {what} rests on the {fit.build_up.law}"
    during = int(((points.value - fit.residual > 0) & (points.time_s < t98)).sum())
    if during < FEWEST:
        return [f"{start} alone: {during} points of the rise lie before it"]
    if found is None:
        return [f"{start} alone: the points by themselves do not show it"]
    if abs(found.value - t98) < APART * found.error > APART * error:
        return [f"{start}: the points by themselves give {found.value:.4g} ± {found.error:.2g} s"]
    return []


def _interpolated(fit: LawFit, points: Points) -> tuple[LawFit, str]:
    """The fit with a t98 that needs no law, if there is one, and what to think of its t98."""
    chi2 = f"χ²_red {fit.build_up.chi2_red:.3g}"
    found = interpolated_t98(points)
    if found is None:
        return fit, f"{chi2}; its t98 is the law's, and its error cannot be trusted"
    by_law = fit.build_up.t98_s
    doubt = f"{chi2}; t98 is interpolated between the points, the law alone has {by_law.value:.4g} s"
    build_up = replace(fit.build_up, t98_s=found[0])
    return replace(fit, build_up=build_up, t98_by_value=found[1], t98_by_delay=0.0), doubt
