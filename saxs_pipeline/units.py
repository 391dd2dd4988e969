"""Quantities with units at the border: "12.4 keV", "0.1 1/nm", "4 ± 0.02 mm" → numbers in internal units.

The only module that imports pint (late: it takes 0.4 s).
"""

from __future__ import annotations

import math
import re
import unicodedata
from functools import lru_cache
from typing import Any

from saxs_pipeline.types import Uncertain

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_PLUS_MINUS = re.compile(r"±|\+/-|\+-")


_DEFINITIONS = """
kilo- = 1e3 = k-
milli- = 1e-3 = m-
micro- = 1e-6 = µ- = μ- = u-
nano- = 1e-9 = n-
pico- = 1e-12 = p-
mega- = 1e6 = M-
centi- = 1e-2 = c-
deci- = 1e-1 = d-
meter = [length] = m = metre
second = [time] = s = sec
minute = 60 * second = min
hour = 3600 * second = h
gram = [mass] = g
kelvin = [temperature]; offset: 0 = K
degree_Celsius = kelvin; offset: 273.15 = °C = degC = degreeC = celsius
mole = [substance] = mol
electron_volt = [energy] = eV
radian = [] = rad
degree = 0.017453292519943295 * radian = deg
percent = 0.01 = %
dimensionless = 1
angstrom = 1e-10 * meter = Å = Angstrom = A
liter = 1e-3 * meter ** 3 = L = l = litre
molar = mole / liter = M
joule = 1e3 * gram * meter ** 2 / second ** 2 = J
""".strip().splitlines()
"""The units of the field. pint's own list takes half a second to build and has none that a run file needs besides."""


@lru_cache(maxsize=1)
def _registry() -> Any:
    import pint

    registry: Any = pint.UnitRegistry(None, autoconvert_offset_to_baseunit=True)
    for line in _DEFINITIONS:
        registry.define(line)
    return registry


@lru_cache(maxsize=512)
def _linear(unit: str, target: str) -> tuple[float, float]:
    """(factor, offset) from `unit` to `target`; ValueError if the unit is unknown or of another dimension."""
    import pint

    registry = _registry()
    try:
        zero, one = (float(registry.Quantity(x, unit).to(target).magnitude) for x in (0.0, 1.0))
    except pint.DimensionalityError:
        raise ValueError(f"unit {unit!r} is not a unit of this quantity; give it in {target}") from None
    except Exception:  # pint raises a wide family of errors (tokenizer, definition, attribute) for unreadable text
        raise ValueError(f"unknown unit {unit!r}; give it in {target or 'plain numbers or %'}") from None
    return (one, 0.0) if zero == 0.0 else (one - zero, zero)


def _number_and_unit(text: str, whole: str, target: str) -> tuple[float, str]:
    match = _NUMBER.match(text)
    if match is None:
        raise ValueError(f"cannot read {whole!r} as a quantity; write for example {example(target)!r}")
    return float(match[0]), text[match.end() :].strip()


def parse_uncertain(text: Any, target: str) -> Uncertain:
    """ "4 mm ± 0.02 mm", "4 ± 0.02 mm", "4 mm ± 0.5 %" or "4 mm" → value and standard uncertainty in `target`.

    A bare number is refused unless `target` is "" (dimensionless): numbers without a unit are how runs go wrong.
    Raises ValueError with a sentence that says how to mend it.
    """
    if isinstance(text, bool) or not isinstance(text, int | float | str):
        raise ValueError(f"give a quantity such as {example(target)!r}")
    if isinstance(text, int | float):
        if target:
            raise ValueError(f"a unit is missing; write for example '{text:g} {target}'")
        return _finite(Uncertain(float(text)))
    composed = unicodedata.normalize("NFC", text.strip())  # the Ångström sign U+212B is the letter Å
    bare = re.sub(r"^\((.*?)\)(.*)$", r"\1 \2", composed)  # "(4 +/- 0.02) mm"
    left, *right = _PLUS_MINUS.split(bare)
    if len(right) > 1:
        raise ValueError(f"cannot read {text!r} as a quantity; write for example '1.5 ± 0.1 {target}'")
    value, unit = _number_and_unit(left.strip(), text, target)
    error, error_unit = _number_and_unit(right[0].strip(), text, target) if right else (0.0, "")
    if not unit and error_unit not in ("", "%"):  # "4 ± 0.02 mm": one unit for both
        unit = error_unit
    if target and not unit:
        raise ValueError(f"a unit is missing in {text!r}; write for example '{value:g} {target}'")
    if error < 0:
        raise ValueError(f"the uncertainty in {text!r} must not be negative")
    factor, offset = _linear(unit, target or "dimensionless") if unit else (1.0, 0.0)
    result = value * factor + offset
    if error_unit == "%" and offset:
        raise ValueError(f"the uncertainty in {text!r} is a share of a temperature; give it in K")
    if error_unit == "%" and unit != "%":
        return _finite(Uncertain(result, error * abs(result) / 100))
    error_factor = _linear(error_unit, target or "dimensionless")[0] if error_unit else factor
    return _finite(Uncertain(result, error * error_factor))


def parse_quantity(text: Any, target: str) -> float:
    """ "12.4 keV" → number in `target`; as `parse_uncertain`, without an uncertainty."""
    if isinstance(text, str) and _PLUS_MINUS.search(text):
        raise ValueError("no uncertainty is used here; give the value alone")
    return parse_uncertain(text, target).value


def example(target: str) -> str:
    """A well-formed quantity for error messages."""
    return f"1.5 {target}".strip()


def _finite(quantity: Uncertain) -> Uncertain:
    if not (math.isfinite(quantity.value) and math.isfinite(quantity.error)):
        raise ValueError("the number must be finite")
    return quantity
