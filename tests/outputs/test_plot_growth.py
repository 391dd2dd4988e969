from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from saxs_pipeline.io.aliquots import TwoRadii
from saxs_pipeline.outputs.figure_files import write_drawings
from saxs_pipeline.outputs.plot_bimodal import draw_bimodal
from saxs_pipeline.outputs.plot_growth import draw_growth_rate
from saxs_pipeline.outputs.plot_style import BLUE, GREEN, GREY, ORANGE, VERMILLION
from saxs_pipeline.science.conversion import FirstOrder
from saxs_pipeline.science.growth import fit_exponent
from saxs_pipeline.science.kinetics import LinearFreeEnergy, Superfocusing, Synthesis

V_M, M0, D, K_A, ALPHA, S = 6.02214076e23 * 5.59e-29, 1e-7, 5e-10, 4e-3, 0.5, 50.0
A = 2 * 0.2 * V_M / (8.314462618 * 533.15)

TABLE_S4_1 = Synthesis(
    monomer_volume_m3=5.59e-29,
    surface_energy_J_m2=0.2,
    solubility_mol_m3=M0,
    diffusion_m2_s=D,
    adsorption=LinearFreeEnergy(K_A, ALPHA),
    conversion=FirstOrder(4e-3, ((0.0, 27.0),)),
)


def unit(ax):
    """nm/s per unit of the axis."""
    label = ax.get_ylabel()
    return 10.0 ** int(label.split("{")[2].split("}")[0]) if "10^" in label else 1.0


def curve(ax, color, style="-"):
    (line,) = [one for one in ax.lines if one.get_color() == color and one.get_linestyle() == style]
    return line.get_xdata(), line.get_ydata() * unit(ax)


@pytest.fixture(scope="module")
def rates():
    return draw_growth_rate(TABLE_S4_1, S)


def test_diffusion_control_and_its_limit(rates):
    ax = rates.figure.axes[0]
    r, rate = curve(ax, VERMILLION)
    np.testing.assert_allclose(rate, 1e9 * D * V_M * M0 * (S - np.exp(A / (r * 1e-9))) / (r * 1e-9), rtol=1e-9)
    r, limit = curve(ax, VERMILLION, "--")
    np.testing.assert_allclose(limit, 1e9 * D * V_M * M0 * (S - 1) / (r * 1e-9), rtol=1e-9)


def test_reaction_control_and_its_limit(rates):
    ax = rates.figure.axes[1]
    r, rate = curve(ax, BLUE)
    driven = S - np.exp(A / (r * 1e-9))
    np.testing.assert_allclose(rate, 1e9 * V_M * M0 * K_A * np.exp(-ALPHA * A / (r * 1e-9)) * driven, rtol=1e-9)
    np.testing.assert_allclose(curve(ax, BLUE, "--")[1], 1e9 * V_M * M0 * K_A * (S - 1), rtol=1e-9)
    bottom, top = ax.get_ylim()
    assert bottom < 0 < 1e9 * V_M * M0 * K_A * (S - 1) / unit(ax) < top


def test_the_critical_radius_is_marked_where_the_rate_is_zero(rates):
    critical = 1e9 * A / np.log(S)
    for ax in rates.figure.axes:
        (mark,) = [line for line in ax.lines if line.get_color() == GREY and line.get_linestyle() == ":"]
        assert mark.get_xdata()[0] == pytest.approx(critical, rel=1e-9)
    assert "r_c = 0.776 nm" in rates.caption
    r, rate = curve(rates.figure.axes[0], VERMILLION)
    assert np.all((rate > 0) == (r > critical))


def test_local_exponents_follow_from_the_law(rates):
    ax = rates.figure.axes[2]
    r, n = curve(ax, VERMILLION)
    x = A / (r * 1e-9)
    curvature = x * np.exp(x) / (S - np.exp(x))  # d ln(S − e^x)/d ln r
    np.testing.assert_allclose(n, 1 - curvature, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(curve(ax, BLUE)[1], -ALPHA * x - curvature, rtol=1e-5, atol=1e-6)
    assert r.min() > 1e9 * A / np.log(S)


def test_axes_have_units(rates):
    assert [ax.get_xlabel() for ax in rates.figure.axes] == ["radius $r$ (nm)"] * 3
    assert all("nm s⁻¹" in ax.get_ylabel() for ax in rates.figure.axes[:2])
    assert rates.figure.axes[2].get_ylabel() == "local exponent $n$"


def test_without_desorption_nothing_is_critical():
    drawing = draw_growth_rate(replace(TABLE_S4_1, desorption=False, adsorption=Superfocusing(1 / 22, 4.0)), S)
    assert not [text for ax in drawing.figure.axes for text in ax.texts if "r_" in text.get_text()]
    assert "r_c" not in drawing.caption
    r, n = curve(drawing.figure.axes[2], BLUE)
    np.testing.assert_allclose(n, 4 * r / (r + 0.2), rtol=1e-6)


def test_without_diffusion_limit_only_the_reaction_is_drawn():
    drawing = draw_growth_rate(replace(TABLE_S4_1, diffusion_m2_s=float("inf"), nucleation=False), S)
    assert len(drawing.figure.axes) == 2
    assert "diffusion" not in drawing.caption


def test_below_saturation_all_dissolve():
    drawing = draw_growth_rate(TABLE_S4_1, 0.8)
    for ax in drawing.figure.axes[:2]:
        (line,) = [one for one in ax.lines if one.get_color() in (BLUE, VERMILLION) and one.get_linestyle() == "-"]
        assert (line.get_ydata() < 0).all()
        assert ax.get_ylim()[0] < line.get_ydata().min()
        assert 1 <= np.abs(line.get_ydata()).max() < 1000


def test_files_are_the_same_bytes_each_time(tmp_path):
    for name in "ab":
        (files,) = write_drawings([lambda: draw_growth_rate(TABLE_S4_1, S)], tmp_path / name)
        assert files.name == "growth_rate"
    for kind in ("png", "svg"):
        assert (tmp_path / f"a/growth_rate.{kind}").read_bytes() == (tmp_path / f"b/growth_rate.{kind}").read_bytes()


# --- two populations -------------------------------------------------------------------------------------------------


def two_radii(exponent: float, error: float) -> TwoRadii:
    """Radii exactly on S4.15, with an error they do not have."""
    time = np.array([5.0, 10, 20, 40, 80, 150, 300, 600])
    second = 1.1 + 1.0 * (1 - np.exp(-time / 120))
    order = exponent + 1
    first = (second**order + 1.8**order - 1.1**order) ** (1 / order)
    errors = np.full(time.size, error)
    return TwoRadii(time, first, errors, second, errors, "radii.csv")


@pytest.fixture(scope="module")
def bimodal():
    radii = two_radii(3.0, 0.01)
    fit = fit_exponent(radii.r1_nm, radii.r1_error, radii.r2_nm, radii.r2_error)
    return radii, fit, draw_bimodal(radii, fit)


def line_of(ax, color):
    (line,) = [one for one in ax.lines if one.get_color() == color and one.get_linestyle() == "-"]
    return line.get_xdata(), line.get_ydata()


def test_the_fitted_law_goes_through_the_points_and_the_others_keep_their_constant(bimodal):
    radii, _, drawing = bimodal
    against_time, against_second = drawing.figure.axes
    np.testing.assert_allclose(line_of(against_time, GREEN)[1], radii.r1_nm, rtol=1e-6)
    second, first = line_of(against_second, GREEN)
    np.testing.assert_allclose(first**4 - second**4, radii.r1_nm[0] ** 4 - radii.r2_nm[0] ** 4, rtol=1e-5)
    second, first = line_of(against_second, BLUE)
    assert np.ptp(first - second) < 1e-9
    second, first = line_of(against_second, VERMILLION)
    assert np.ptp(first**2 - second**2) < 1e-9


def test_a_solution_in_which_nothing_grows_is_drawn_too():
    drawing = draw_growth_rate(replace(TABLE_S4_1, desorption=False), 0.0)
    assert not np.any(drawing.figure.axes[0].lines[0].get_ydata())
    assert np.isfinite(drawing.figure.axes[-1].get_ylim()).all()


def test_measured_radii_are_drawn_with_their_errors(bimodal):
    radii, _, drawing = bimodal
    points = drawing.figure.axes[0].containers[0]
    np.testing.assert_array_equal(points.lines[0].get_ydata(), radii.r1_nm)
    assert points.lines[0].get_color() == ORANGE
    bars = points.lines[2][0].get_segments()
    np.testing.assert_allclose([bar[1, 1] - bar[0, 1] for bar in bars], 2 * radii.r1_error)


def test_the_band_is_that_of_n_and_the_caption_says_how_well_each_does(bimodal):
    _, fit, drawing = bimodal
    assert len(drawing.figure.axes[0].collections) == 3  # bars of both radii and the band
    assert fit.exponent.value == pytest.approx(3, abs=1e-3)
    assert "n = 0, reaction: reduced χ²" in drawing.caption
    assert "n = 3.0" in drawing.caption
    assert "Shaded" in drawing.caption
    assert drawing.figure.axes[0].get_xscale() == "log"


def test_an_exponent_without_limits_has_no_band():
    radii = two_radii(3.0, 0.6)
    fit = fit_exponent(radii.r1_nm, radii.r1_error, radii.r2_nm, radii.r2_error)
    drawing = draw_bimodal(radii, replace(fit, exponent=fit.exponent._replace(error=float("inf")), notes=("unknown",)))
    assert len(drawing.figure.axes[0].collections) == 2
    assert "Shaded" not in drawing.caption
    assert drawing.caption.endswith("unknown")
