"""Numbers with their uncertainties as text."""

from __future__ import annotations

import math

from saxs_pipeline.types import Estimate


def percent(share: Estimate) -> Estimate:
    """A share with its uncertainties in %."""
    return Estimate(*(100 * part for part in share))


def estimate_text(estimate: Estimate, row: int, unit: str) -> str:
    """ "value ± statistical ± systematic unit" of one frame."""
    value, statistical, systematic = (float(part[row]) for part in estimate)
    if not systematic > 0:
        return plus_minus(value, statistical, unit=unit)
    return plus_minus(value, statistical, systematic, unit=unit) + " (statistical, systematic)"


def plus_minus(value: float, *errors: float, unit: str = "") -> str:
    """ "2.2213 ± 0.0042 nm": two digits of the first positive error, a common power of ten if needed."""
    known = [e for e in errors if math.isfinite(e) and e > 0]
    suffix = f" {unit}" if unit else ""
    if not math.isfinite(value):
        return "not reported"
    if not known:
        return f"{value:.6g}{suffix}"
    largest = max(abs(value), *known)
    power = math.floor(math.log10(largest))
    scale = power if power < -2 or power > 5 else 0
    decimals = max(0, 1 - math.floor(math.log10(known[0]) + 1e-12) + scale)
    text = " ± ".join(f"{x / 10.0**scale:.{decimals}f}" for x in (value, *errors))
    return f"({text})·10{_superscript(scale)}{suffix}" if scale else f"{text}{suffix}"


def _superscript(number: int) -> str:
    return str(number).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
