import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saxs_pipeline.types import Uncertain
from saxs_pipeline.units import parse_quantity, parse_uncertain


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("4 mm ± 0.02 mm", "mm", (4.0, 0.02)),
        ("4 ± 0.02 mm", "mm", (4.0, 0.02)),
        ("4 mm ± 0.5 %", "mm", (4.0, 0.02)),
        ("(4 +/- 0.02) mm", "mm", (4.0, 0.02)),
        ("4 mm", "mm", (4.0, 0.0)),
        ("0.4 cm ± 20 um", "mm", (4.0, 0.02)),
        ("0.01 1/angstrom", "1/nm", (0.1, 0.0)),
        ("35.2e-6 Å^-2 ± 1 %", "1/Å^2", (35.2e-6, 35.2e-8)),
        ("3.52e-05 1/A^2", "1/Å^2", (35.2e-6, 0.0)),
        ("260 ± 5 °C", "K", (533.15, 5.0)),
        ("20 °C", "K", (293.15, 0.0)),
        ("20 degC ± 0.5 degC", "K", (293.15, 0.5)),
        ("20 °C ± 0.5 K", "K", (293.15, 0.5)),
        ("42 % ± 1 %", "", (0.42, 0.01)),
        (0.42, "", (0.42, 0.0)),
        ("-6 s", "s", (-6.0, 0.0)),
        ("18000 eV", "keV", (18.0, 0.0)),
        ("1 \u212b", "nm", (0.1, 0.0)),
        ("2 \u03bcm", "mm", (0.002, 0.0)),
        ("25 mM", "mmol/L", (25.0, 0.0)),
        ("5.656 g/cm^3", "g/cm^3", (5.656, 0.0)),
        ("90 deg", "rad", (math.pi / 2, 0.0)),
    ],
)
def test_quantities_with_units_arrive_in_internal_units(text, unit, expected):
    assert parse_uncertain(text, unit) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "unit", "hint"),
    [
        (4, "mm", "'4 mm'"),
        ("4", "mm", "'4 mm'"),
        ("4 kg", "mm", "give it in mm"),
        ("4 florins", "mm", "unknown unit"),
        ("four mm", "mm", "cannot read"),
        ("1e999 mm", "mm", "finite"),
        ("4 mm ± -1 mm", "mm", "negative"),
        ("4 mm ± 1 ± 2 mm", "mm", "cannot read"),
        ("20 °C ± 1 %", "K", "give it in K"),
        ([4], "mm", "give a quantity"),
        (True, "", "give a quantity"),
        ("__import__('os') mm", "mm", "cannot read"),
        ("1 __import__('os').getcwd()", "mm", "unknown unit"),
    ],
)
def test_what_cannot_be_read_says_how_to_mend_it(text, unit, hint):
    with pytest.raises(ValueError, match=r".") as caught:
        parse_uncertain(text, unit)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_uncertainty_is_refused_where_none_is_used():
    with pytest.raises(ValueError, match="no uncertainty"):
        parse_quantity("18 ± 1 keV", "keV")


@given(st.floats(1e-6, 1e6), st.floats(0, 10), st.sampled_from([("mm", 1.0), ("cm", 10.0), ("um", 1e-3), ("m", 1e3)]))
def test_value_and_error_scale_together(value, error, unit):
    name, factor = unit
    read = parse_uncertain(f"{value!r} ± {error!r} {name}", "mm")
    assert read == pytest.approx((value * factor, error * factor), rel=1e-9)
    assert math.isclose(read.relative, Uncertain(value, error).relative, rel_tol=1e-9, abs_tol=1e-15)
