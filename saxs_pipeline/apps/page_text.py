"""What the live page says in words: state, counts, rate and lag, the frame that is shown, warnings; all escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from saxs_pipeline.apps.page_series import value_text
from saxs_pipeline.apps.snapshot import Snapshot
from saxs_pipeline.outputs.flags import frame_flags, words
from saxs_pipeline.outputs.numbers import percent, plus_minus
from saxs_pipeline.outputs.plot_style import seconds_text
from saxs_pipeline.reaction import BuildUp
from saxs_pipeline.types import Quantities, RunResult

MOST_WARNINGS = 20
C_NC, SPREAD = "c<sub>NC</sub>", "σ<sub>r</sub>"
Facts = list[tuple[str, str]]
_ERRORS = (
    '<p class="note">± one standard error: statistical, of this frame (the bars), then systematic, of all frames</p>'
)


def state_text(snapshot: Snapshot) -> str:
    """Title, state and message."""
    state = snapshot.state
    badge = f'<span class="badge {state}">{state}</span><span class="message {state}">{escape(snapshot.message)}</span>'
    return f'<h1>{escape(snapshot.title)}</h1><p role="status">{badge}</p>'


def progress_text(snapshot: Snapshot, behind: int | None) -> str:
    """Counts, rate, lag and t98 so far; how many frames the shown one is behind while the page does not follow."""
    expected = "" if snapshot.n_expected is None else f" of {snapshot.n_expected}"
    facts = [
        ("on disk", f"{snapshot.n_complete}{expected} frames"),
        ("processed", str(snapshot.n_processed)),
        ("flagged", str(snapshot.n_flagged)),
        ("rate", f"{snapshot.rate:.3g} frames/s"),
        ("lag", f"{snapshot.lag_s:.2f} s" if math.isfinite(snapshot.lag_s) else "–"),
    ]
    if snapshot.analysis is not None:
        analysis = snapshot.analysis
        end_s = np.inf if snapshot.result is None else float(np.nanmax(snapshot.result.curves.time_s))
        laws = ((f"t98 of {C_NC}", analysis.concentration), ("t98 of yield", analysis.yield_))
        facts += [(name, _t98(law, end_s)) for name, law in laws]
    if behind is not None:
        facts.append(("paused", f"behind by {behind} {'frame' if behind == 1 else 'frames'}"))
    return fact_list(facts)


def _t98(law: BuildUp | None, end_s: float) -> str:
    """What lies behind the end of the series is a guess of the law, which its error does not cover."""
    return "not yet" if law is None or law.t98_s.value > end_s else plus_minus(*law.t98_s, unit="s")


def fact_list(facts: Facts) -> str:
    """Pairs of name (HTML) and text, wrapping as the window allows."""
    pairs = (f"<div><dt>{name}</dt><dd>{escape(text)}</dd></div>" for name, text in facts)
    return f"<dl>{''.join(pairs)}</dl>"


def frame_text(result: RunResult, row: int) -> str:
    """The frame that is shown: number, time, what was found, its flag and why it was not used."""
    curves = result.curves
    facts = [("frame", str(curves.index[row])), ("time", seconds_text(float(curves.time_s[row])))]
    facts.append(("flag", ", ".join(words(frame_flag(result, row)))))
    facts.append(("exposure", f"{curves.exposure_s[row]:.3g} s"))
    if problem := curves.problems[row]:
        facts.append(("not used", problem))
    if result.quantities is None:
        return fact_list(facts)
    return fact_list(facts + _found(result.quantities, row)) + _ERRORS


def frame_flag(result: RunResult, row: int) -> str:
    """Flag of one frame."""
    return result.quantities.flags[row] if result.quantities is not None else frame_flags(result)[row]


def _found(quantities: Quantities, row: int) -> Facts:
    limit = "sigma_upper_limit" in words(quantities.flags[row])
    estimates: tuple[tuple[str, Any, str], ...] = (
        ("r", quantities.radius_nm, "nm"),
        (SPREAD, quantities.sigma_nm, "nm"),
        (C_NC, quantities.c_nc_umol_L, "µmol/L"),
        ("yield", percent(quantities.yield_), "%"),
    )
    facts = [(name, value_text(estimate, row, unit)) for name, estimate, unit in estimates]
    if limit:
        facts[1] = (SPREAD, f"below {quantities.sigma_nm.value[row]:.3g} nm")
    chi2 = quantities.chi2_red[row]
    return [*facts, ("reduced χ²", f"{chi2:.2f}" if math.isfinite(chi2) else "–")]


def warnings_text(warnings: Sequence[str]) -> str:
    """The newest warnings first, and how many there are besides."""
    if not warnings:
        return "<h2>Warnings</h2><p>none</p>"
    newest = [f"<li>{escape(text)}</li>" for text in reversed(warnings[-MOST_WARNINGS:])]
    rest = len(warnings) - len(newest)
    more = f"<p>and {rest} earlier {'one' if rest == 1 else 'ones'}</p>" if rest else ""
    return f"<h2>Warnings ({len(warnings)})</h2><ul>{''.join(newest)}</ul>{more}"
