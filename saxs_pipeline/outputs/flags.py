"""What the flag words of a run mean for tables and figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from saxs_pipeline.types import Bools, Quantities, RunResult

MEANING = {
    "ok": "used as measured",
    "all_zero": "the image is zero everywhere",
    "unreadable": "the image could not be read",
    "nan": "the image holds values that are no numbers",
    "not_recorded": "the frame was never written",
    "saturated": "some pixels are saturated and left out",
    "monitor_zero": "the monitor reads zero or less",
    "monitor_nan": "the monitor has no value",
    "outlier": "the curve differs from those before and after: a bubble, a zinger, damage",
    "beam_lost": "the monitor counted less than half of what it did around",
    "few_pixels": "more than a tenth of the usual pixels hold no measurement",
    "exposure_nan": "the frame has no exposure, with which its dark is scaled",
    "background": "part of the background that is subtracted",
    "weak": "c below 5 standard errors: r and σ_r not reported; c at a size taken over, or of the fit of both",
    "size_held": "of two populations, this one is there, but no fit tells its size: c at a size taken over",
    "vanished": "of two populations, this one is no longer there: c below 5 standard errors at the size it had last",
    "negative_amount": "c more than 5 standard errors below zero, which is no amount: too much is subtracted",
    "at_limit": "an exponent or volume fraction that is fitted says nothing here: it is held at an end of its range",
    "out_of_range": "an exponent or volume fraction that is fitted lies beyond its range, at whose end it is held",
    "not_converged": "the fit did not converge: r and σ_r not reported",
    "negative_variance": "the fit wants σ_r² below zero, which is no size distribution: r and σ_r not reported",
    "poor_fit": "χ²_red above 2: the model does not describe the curve, the stated errors are too small",
    "sigma_upper_limit": "σ_r is an upper limit",
}
"""Words of the flag column, explained; a word that is not listed is shown as it is."""

_FRAME = frozenset({"background", "saturated", "outlier", "beam_lost", "few_pixels"})
_HARMLESS = _FRAME | {"ok", "weak", "size_held", "vanished", "at_limit", "sigma_upper_limit", "poor_fit"}


def frame_flags(result: RunResult) -> tuple[str, ...]:
    """Flag of every frame: "ok" or words joined by "|"; from the curves' problems and notes if nothing was fitted."""
    if result.quantities is not None:
        return result.quantities.flags
    curves = result.curves
    return tuple(
        problem.partition(":")[0].strip() or note or "ok"
        for problem, note in zip(curves.problems, curves.notes, strict=True)
    )


def words(flag: str) -> tuple[str, ...]:
    """The words of one flag; "" counts as "ok"."""
    return tuple(flag.split("|")) if flag else ("ok",)


def has_word(flags: Sequence[str], word: str) -> Bools:
    """Where the flag holds `word`, (n,)."""
    having = {flag: word in words(flag) for flag in set(flags)}
    return np.array([having[flag] for flag in flags], dtype=bool)


def at_given_size(flags: Sequence[str]) -> Bools:
    """Where c is that of a population too weak to tell its size, (n,): such points are hollow."""
    return has_word(flags, "weak") | has_word(flags, "size_held")


def populations(result: RunResult) -> tuple[tuple[str, Quantities], ...]:
    """Name and quantities of each population, "" as the name of a single one; () if nothing was fitted."""
    if result.quantities is None:
        return ()
    named = result.others and result.fits is not None
    first = result.fits.model.populations[0].name if named and result.fits is not None else ""
    return (first, result.quantities), *result.others


def sound(result: RunResult, one: Quantities | None = None) -> Bools:
    """Frames whose measurement and fit can be trusted, (n,): no problem, and no word but those that only inform.

    one: what counts is the fit of this population; without it that of any.
    """
    every = (one.flags,) if one is not None else tuple(q.flags for _, q in populations(result))
    trusted = [_informing(flags) for flags in every or (frame_flags(result),)]
    return np.asarray(result.curves.usable & np.any(trusted, axis=0))


def _informing(flags: Sequence[str]) -> Bools:
    """Where all words only inform, (n,)."""
    informs = {flag: _HARMLESS.issuperset(words(flag)) for flag in set(flags)}
    return np.array([informs[flag] for flag in flags], dtype=bool)


def independent(result: RunResult, one: Quantities | None = None) -> Bools:
    """The sound frames, (n,), but those that the background was made of: their fit says nothing of the crystals."""
    return sound(result, one) & ~has_word(frame_flags(result), "background")


def count_words(flags: Sequence[str]) -> list[tuple[str, int]]:
    """(word, number of frames) for each word but "ok", most frequent first, then by name."""
    counts = Counter(word for flag in flags for word in words(flag) if word != "ok")
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
