"""Monomer generation against the papers' closed forms, numerical integration and plain bookkeeping."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.optimize import brentq

from saxs_pipeline.science.conversion import FirstOrder, SecondOrder, Tabulated, TemperatureProgram
from saxs_pipeline.science.kinetics import Conversion
from saxs_pipeline.types import BadInput

EVERY: list[Conversion] = [
    FirstOrder(4e-3, ((0.0, 27.0), (240.0, 13.0))),
    SecondOrder(1.4e-4, ((0.0, 16.7, 41.7), (240.0, 8.0, 2.0))),
    SecondOrder(1.4e-4, ((0.0, 20.0, 20.0), (240.0, 0.0, 10.0))),
    Tabulated((5.0, 60.0, 300.0), (0.02, 0.1, 0.04)),
]


@pytest.mark.parametrize("conversion", EVERY)
def test_formed_is_the_integral_of_the_rate(conversion: Conversion) -> None:
    for time in (3.0, 47.0, 239.0, 240.0, 291.0, 1000.0):
        breaks = [b for b in (5.0, *conversion.breaks_s) if b < time]
        integral = quad(lambda t: float(conversion.rate(np.asarray(t))), 0, time, points=breaks, epsabs=1e-12)[0]
        assert float(conversion.formed(np.asarray(time))) == pytest.approx(integral, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("conversion", EVERY)
def test_nothing_at_the_start_everything_in_the_end(conversion: Conversion) -> None:
    assert conversion.formed(np.array([0.0]))[0] == 0
    assert conversion.formed(np.array([1e8]))[0] == pytest.approx(conversion.total_mol_m3, rel=1e-5)


@pytest.mark.parametrize("conversion", EVERY)
def test_shape_is_kept_and_one_by_one_is_the_same(conversion: Conversion) -> None:
    times = np.array([[0.0, 5.0, 60.0], [240.0, 300.0, 999.0]])
    for law in (conversion.formed, conversion.rate):
        together = law(times)
        assert together.shape == times.shape
        assert np.array_equal(together.ravel(), [law(np.asarray(t)) for t in times.ravel()])


def test_first_order_is_an_exponential() -> None:
    law = FirstOrder(4e-3, ((0.0, 27.0),))
    assert float(law.formed(np.asarray(math.log(50) / 4e-3))) == pytest.approx(0.98 * 27, rel=1e-13)
    assert float(law.rate(np.asarray(0.0))) == pytest.approx(0.108)


def test_second_order_of_the_cdse_recipe_reaches_98_percent_at_975_6_s() -> None:
    """S3.1: 0.2 mmol in 12 mL, β = 2.5, k₂ = 0.14 L/mol/s."""
    cadmium = 0.2e-3 / 12e-6
    law = SecondOrder(0.14e-3, ((0.0, cadmium, 2.5 * cadmium),))
    assert brentq(lambda t: law.formed(np.asarray(t)) - 0.98 * cadmium, 1, 1e5) == pytest.approx(975.6, abs=0.05)


def test_second_order_is_s3_2_as_printed() -> None:
    n0, beta, k2, t = 16.7, 2.5, 1.4e-4, np.linspace(0, 2000, 50)
    e = np.exp(-k2 * (beta - 1) * n0 * t)
    expected = n0 * (1 - (beta - 1) * e / (beta - e))
    np.testing.assert_allclose(SecondOrder(k2, ((0.0, n0, beta * n0),)).formed(t), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("beta", [1.0, 1 + 1e-15, 1 + 1e-9, 1 - 1e-9])
def test_second_order_does_not_cancel_near_equal_amounts(beta: float) -> None:
    n0, k2, t = 16.7, 1.4e-4, np.array([1e-3, 1.0, 1e3, 1e6])
    expected = n0 * k2 * n0 * t / (1 + k2 * n0 * t)
    np.testing.assert_allclose(SecondOrder(k2, ((0.0, n0, beta * n0),)).formed(t), expected, rtol=2e-9)


def test_the_scarcer_precursor_limits() -> None:
    short = SecondOrder(1.4e-4, ((0.0, 20.0, 5.0),))
    assert short.total_mol_m3 == 5
    assert float(short.formed(np.asarray(1e7))) == pytest.approx(5, rel=1e-12)


def test_second_injection_reacts_with_what_the_first_left() -> None:
    law = SecondOrder(1.4e-4, ((0.0, 16.7, 41.7), (240.0, 8.0, 2.0)))

    def slope(t: float, y: list[float]) -> list[float]:
        return [1.4e-4 * (16.7 + 8.0 * (t >= 240) - y[0]) * (41.7 + 2.0 * (t >= 240) - y[0])]

    first = solve_ivp(slope, (0, 240 - 1e-9), [0.0], rtol=1e-11, atol=1e-12).y[0, -1]
    later = solve_ivp(slope, (240, 700), [first], rtol=1e-11, atol=1e-12).y[0, -1]
    assert float(law.formed(np.asarray(700.0))) == pytest.approx(later, rel=1e-9)
    assert law.breaks_s == (240.0,)


def test_a_table_is_linear_between_its_points_and_zero_outside() -> None:
    table = Tabulated((10.0, 20.0), (0.05, 0.05))
    assert [float(table.rate(np.asarray(t))) for t in (9.9, 10.0, 15.0, 20.0)] == [0, 0.05, 0.05, 0]
    assert float(table.formed(np.asarray(14.0))) == pytest.approx(0.2, rel=1e-14)
    assert table.breaks_s == (10.0, 20.0)


def test_temperature_program_is_linear_and_holds_its_ends() -> None:
    """The paper's mixture drops to 230 °C at injection and is back at 260 °C within 60 s."""
    program = TemperatureProgram((0.0, 60.0), (503.15, 533.15))
    assert [program(t) for t in (-1.0, 0.0, 30.0, 60.0, 500.0)] == [503.15, 503.15, 518.15, 533.15, 533.15]
    assert program.breaks_s == (60.0,)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: FirstOrder(4e-3, ((5.0, 27.0),)), "first injection defines t = 0"),
        (lambda: FirstOrder(4e-3, ()), "first injection defines t = 0"),
        (lambda: FirstOrder(-4e-3, ((0.0, 27.0),)), "rate constant"),
        (lambda: FirstOrder(4e-3, ((0.0, 27.0), (9.0, -1.0))), "injected concentration"),
        (lambda: SecondOrder(1e-4, ((0.0, 1.0, 1.0), (0.0, 1.0, 1.0))), "must be finite and increase"),
        (lambda: SecondOrder(math.nan, ((0.0, 1.0, 1.0),)), "rate constant"),
        (lambda: Tabulated((0.0, 1.0), (1.0,)), "2 times and 1 rates"),
        (lambda: Tabulated((0.0,), (1.0,)), "at least two points"),
        (lambda: Tabulated((-1.0, 1.0), (1.0, 1.0)), "starts at -1 s"),
        (lambda: Tabulated((0.0, 1.0), (1.0, -1.0)), "rate of a tabulated generation"),
        (lambda: TemperatureProgram((0.0, 1.0), (500.0,)), "a temperature for each time"),
        (lambda: TemperatureProgram((0.0,), (-3.0,)), "above 0 K"),
        (lambda: TemperatureProgram((1.0, 0.0), (500.0, 500.0)), "must be finite and increase"),
    ],
)
def test_impossible_input_is_one_clear_line(build, words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        build()
    assert "\n" not in str(caught.value)
