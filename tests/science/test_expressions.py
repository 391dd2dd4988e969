"""Expressions of parameters: arithmetic against Python's own, and nothing else."""

import numpy as np
import pytest
from lmfit import Parameters

from saxs_pipeline.science.expressions import Expression
from saxs_pipeline.types import BadInput

VALUES = {"radius": np.array([1.5, 2.0]), "sigma": np.array([0.1, 0.2])}


@pytest.mark.parametrize(
    "text", ["0.06 * radius", "-sigma + 2*(radius - 1)**2 / 3", "sqrt(radius) + exp(-sigma) - log(radius)", "+3"]
)
def test_values_are_those_of_lmfit(text):
    found = np.broadcast_to(Expression(text)(VALUES), 2)
    for k in range(2):
        parameters = Parameters()
        for name, values in VALUES.items():
            parameters.add(name, value=float(values[k]))
        parameters.add("tied", expr=text)
        assert found[k] == pytest.approx(parameters["tied"].value, rel=1e-14)


def test_names_are_found():
    assert Expression("a * b - sqrt(a)").names == {"a", "b"}


@pytest.mark.parametrize(
    "text",
    ["", "0.06 radius", "__import__('os')", "radius.real", "radius[0]", "open('x')", "sqrt", "sqrt(1, 2)",
     "a if b else c", "lambda: 1", "'a'", "True", "a < b", "(" * 500 + ")" * 500, "a" * 300, "x := 3", "f'{a}'", "1j"],
)  # fmt: skip
def test_what_is_no_arithmetic_is_refused(text):
    if text == "sqrt":
        assert Expression(text).names == {"sqrt"}  # a name like any other; no parameter is called so
        return
    with pytest.raises(BadInput, match=r"expression|allowed"):
        Expression(text)


def test_values_that_do_not_exist_are_nan_or_inf():
    assert np.isnan(Expression("sqrt(-radius)")(VALUES)).all()
    assert np.isinf(Expression("radius / 0")(VALUES)).all()
