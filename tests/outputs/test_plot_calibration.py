from __future__ import annotations

import numpy as np
import pytest

from saxs_pipeline.outputs.figure_files import write_drawings
from saxs_pipeline.outputs.plot_calibration import UNCERTAIN, UNUSED, draw_glassy_carbon, draw_water
from saxs_pipeline.outputs.plot_style import BLACK, BLUE
from saxs_pipeline.science.calibration import StandardMeasurement
from saxs_pipeline.science.standards import SRM_3600_1_MM, SRM_3600_Q_NM
from saxs_pipeline.types import ScaleFactor, Uncertain

Q = np.linspace(0.1, 5, 100)
KNOWN = Uncertain(1.65e-3, 1.6e-5)
WATER_SCALE = ScaleFactor(Uncertain(0.7, 0.01), "water", (1.0, 4.0), -0.7, 1.02, -0.0012, (("counting", 0.001),))
CARBON_SCALE = ScaleFactor(Uncertain(0.7, 0.02), "glassy carbon SRM 3600", (0.12, 2.46), 0.3, 0.98, 0.002)


def measurement(q, cross_section, thickness, cell=5e-3):
    """Normalised curves whose difference is d·cross_section/K with K = 0.7, each with 2 % of error."""
    background = np.full_like(q, cell)
    standard = background + thickness * cross_section / 0.7
    pair = (standard, 0.02 * standard), (background, 0.02 * background)
    return StandardMeasurement(q, *pair, pixels=1 + 100 * q, thickness_mm=Uncertain(thickness, 0.01))


@pytest.fixture(scope="module")
def water():
    wave = KNOWN.value * (1 + 0.001 * np.sin(5 * Q))
    wave[0] = -1e-3  # below zero: not on a logarithmic axis
    return wave, draw_water("intensity_scale", measurement(Q, wave, 4.0), WATER_SCALE, KNOWN)


@pytest.fixture(scope="module")
def carbon():
    return draw_glassy_carbon("intensity_scale", measurement(SRM_3600_Q_NM, 1.01 * SRM_3600_1_MM, 1.055), CARBON_SCALE)


def line(ax, label):
    (found,) = [one for one in ax.lines if one.get_label() == label]
    return found.get_xdata(), found.get_ydata()


def points(ax, color):
    (found,) = [one for one in ax.lines if one.get_color() == color and one.get_marker() == "o"]
    return found.get_xdata(), found.get_ydata()


def test_the_difference_is_drawn_on_the_absolute_scale(water):
    truth, drawing = water
    ax = drawing.figure.axes[0]
    drawn = line(ax, "water: difference")[1]
    np.testing.assert_allclose(drawn[1:], 1e3 * truth[1:], rtol=1e-9)
    assert np.isnan(drawn[0])
    np.testing.assert_allclose(line(ax, "known cross section")[1], 1.65)
    np.testing.assert_allclose(line(ax, "empty cell")[1], 1e3 * 0.7 * 5e-3 / 4)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_the_window_is_shaded_and_points_outside_it_are_grey(water):
    truth, drawing = water
    inside = (Q >= 1) & (Q <= 4)
    for ax in drawing.figure.axes:
        shaded = ax.patches[0]
        assert (shaded.get_x(), shaded.get_x() + shaded.get_width()) == pytest.approx((1.0, 4.0))
    for ax in drawing.figure.axes[1:]:
        np.testing.assert_array_equal(points(ax, BLUE)[0], Q[inside])
        np.testing.assert_array_equal(points(ax, UNUSED)[0], Q[~inside])
    np.testing.assert_allclose(points(drawing.figure.axes[1], BLUE)[1], 1e3 * truth[inside], rtol=1e-9)


def test_the_band_is_the_uncertainty_of_the_known_cross_section(water):
    ax = water[1].figure.axes[1]
    (band,) = [one for one in ax.patches if one.get_facecolor()[0] == pytest.approx(int(UNCERTAIN[1:3], 16) / 255)]
    assert (band.get_y(), band.get_y() + band.get_height()) == pytest.approx((1.65 - 0.016, 1.65 + 0.016))


def test_residuals_are_in_sigma_of_the_counts(water):
    truth, drawing = water
    sigma = 0.7 * np.hypot(0.02 * (5e-3 + 4 * truth / 0.7), 0.02 * 5e-3) / 4
    inside = (Q >= 1) & (Q <= 4)
    expected = ((truth - KNOWN.value) / sigma)[inside]
    np.testing.assert_allclose(points(drawing.figure.axes[2], BLUE)[1], expected, rtol=1e-6)


def test_carbon_lies_over_the_certified_values(carbon):
    curves, ratio, _ = carbon.figure.axes
    np.testing.assert_allclose(line(curves, "carbon: difference")[1], 1.01 * SRM_3600_1_MM, rtol=1e-9)
    certified = curves.containers[0]
    np.testing.assert_array_equal(certified.lines[0].get_ydata(), SRM_3600_1_MM)
    assert certified.lines[0].get_color() == BLACK
    np.testing.assert_allclose(points(ratio, BLUE)[1], 1.01, rtol=1e-9)
    low, high = ratio.get_ylim()
    assert low < 0.97 < 1.03 < high  # the certificate's band can be seen


def test_axes_have_units_and_captions_say_what_is_seen(water, carbon):
    assert [ax.get_ylabel() for ax in water[1].figure.axes] == [
        "$I$ (10⁻³ mm⁻¹)",
        "water (10⁻³ mm⁻¹)",
        "residual / $σ$",
    ]
    assert [ax.get_ylabel() for ax in carbon.figure.axes] == ["$I$ (mm⁻¹)", "measured / certified", "residual / $σ$"]
    for drawing in (water[1], carbon):
        assert drawing.figure.axes[-1].get_xlabel() == "$q$ (nm⁻¹)"
    assert "K = 0.700 ± 0.010; change across the window -0.12% (-0.70 σ), χ²_red 1.02" in water[1].caption
    assert "(1.650 ± 0.016)·10⁻³ mm⁻¹" in water[1].caption


def test_files_are_the_same_bytes_each_time(tmp_path):
    for name in "ab":
        measured = measurement(SRM_3600_Q_NM, SRM_3600_1_MM, 1.055)
        write_drawings([lambda one=measured: draw_glassy_carbon("scale", one, CARBON_SCALE)], tmp_path / name)
    for kind in ("png", "svg"):
        assert (tmp_path / f"a/scale.{kind}").read_bytes() == (tmp_path / f"b/scale.{kind}").read_bytes()
