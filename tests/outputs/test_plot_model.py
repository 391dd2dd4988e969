from __future__ import annotations

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from saxs_pipeline.outputs.plot_model import draw_development, draw_modes, draw_share, lines
from saxs_pipeline.outputs.plot_snapshots import draw_snapshots, shades, snapshots
from saxs_pipeline.outputs.plot_style import BLACK, BLUE, GREEN, RC, VERMILLION
from saxs_pipeline.outputs.simulated import summarise
from saxs_pipeline.science import population
from saxs_pipeline.science.conversion import Tabulated
from saxs_pipeline.science.kinetics import Crystals
from tests.outputs import known_model

COLORS = {0.0: BLUE, 2.0: GREEN, 4.0: VERMILLION}
T98_C = {0.0: 32.89, 2.0: 67.01, 4.0: 129.2}  # science of the calibrated set, two independent solvers
T98_YIELD = np.log(50) / 4.9e-3


def panel(drawing, label):
    (found,) = [ax for ax in drawing.figure.axes if label in ax.get_ylabel()]
    return found


def colored(ax, color, style="-"):
    return [one for one in ax.lines if one.get_color() == color and one.get_linestyle() == style]


def verticals(ax):
    """(time, colour) of the vertical lines."""
    return [(one.get_xdata()[0], one.get_color()) for one in ax.lines if len(set(one.get_xdata())) == 1]


@pytest.fixture(scope="module")
def development():
    return draw_development(known_model.scan())


@pytest.mark.parametrize(
    ("label", "quantity"),
    [
        (r"c_\mathrm{NC}", lambda d: d.all.c_umol_L),
        ("σ_r", lambda d: d.all.sigma_nm),
        ("mean radius", lambda d: d.all.radius_nm),
        ("supersaturation", lambda d: d.supersaturation),
        ("critical radius", lambda d: d.critical_radius_nm),
        ("rate", lambda d: d.growth),
    ],
)
def test_the_curves_are_the_development_in_the_colour_of_its_n(development, label, quantity):
    ax = panel(development, label)
    for run in known_model.scan().scan:
        drawn = [one for one in colored(ax, COLORS[run.n]) if len(one.get_xdata()) > 2]
        assert len(drawn) == 1
        np.testing.assert_array_equal(drawn[0].get_xdata(), run.development.time_s)
        np.testing.assert_array_equal(drawn[0].get_ydata(), quantity(run.development))


def test_yield_generation_and_nucleation_are_told_apart(development):
    runs = known_model.scan().scan
    yields = [one.get_ydata() for one in colored(panel(development, "yield (%)"), BLACK)]
    for drawn, run in zip(yields, runs, strict=True):
        np.testing.assert_array_equal(drawn, 100 * run.development.yield_)
    rates = panel(development, "rate")
    generated = colored(rates, BLACK)[0]
    np.testing.assert_allclose(generated.get_ydata(), 27 * 4.9e-3 * np.exp(-4.9e-3 * generated.get_xdata()), rtol=1e-9)
    for run in runs:
        (nucleated,) = colored(rates, COLORS[run.n], ":")
        np.testing.assert_array_equal(nucleated.get_ydata(), run.development.nucleation)


def test_every_axis_has_a_unit_and_the_same_logarithmic_time(development):
    labels = {ax.get_ylabel() for ax in development.figure.axes}
    assert labels == {
        r"$c_\mathrm{NC}$ (µmol L⁻¹)",
        "yield (%)",
        "rate (mol m⁻³ s⁻¹)",
        "spread $σ_r$ (nm)",
        "mean radius $r$ (nm)",
        "supersaturation $S$",
        r"critical radius $r_\mathrm{c}$ (nm)",
    }
    for ax in development.figure.axes:
        assert ax.get_xscale() == "log"
        np.testing.assert_allclose(ax.get_xlim(), [0.22758, 2275.8])
    assert [ax.get_xlabel() for ax in development.figure.axes].count("time (s)") == 2
    assert panel(development, "rate").get_yscale() == "log"


def test_vertical_lines_stand_where_98_percent_are_reached(development):
    for label in (r"c_\mathrm{NC}", "σ_r"):
        marks = verticals(panel(development, label))
        for n, color in COLORS.items():
            (time,) = [time for time, mark in marks if mark == color]
            assert time == pytest.approx(T98_C[n], rel=0.01)
        assert [time for time, mark in marks if mark == BLACK] == pytest.approx([T98_YIELD] * 3, rel=2e-3)


def test_the_share_of_nucleation_grows_with_n_as_in_the_reference(development):
    (inset,) = panel(development, r"c_\mathrm{NC}").child_axes
    for ax in (inset, draw_share(known_model.scan()).figure.axes[0]):
        points = ax.collections[0].get_offsets()
        np.testing.assert_array_equal(points[:, 0], [0, 2, 4])
        np.testing.assert_allclose(points[:, 1], [4.1, 8.4, 16.2], rtol=0.015)
        assert [to_hex(color).upper() for color in ax.collections[0].get_facecolors()] == list(COLORS.values())


def test_the_caption_says_what_was_found(development):
    for text in ("n = 0: 98 % of c_NC at 32.", "98 % of the yield at 798 s", "µmol/L", "inset", "(f)"):
        assert text in development.caption
    assert "ratio 8.4 %" in development.alt


@pytest.mark.parametrize("simulated", [known_model.linear_free_energy, known_model.scan, known_model.growth_only])
def test_all_text_lies_inside_the_figure(simulated):
    with mpl.rc_context(RC):
        figure = draw_development(simulated()).figure
        FigureCanvasAgg(figure).draw()
    inside = figure.get_tightbbox()
    assert inside.x0 >= 0
    assert inside.y0 >= 0
    assert inside.x1 <= figure.get_figwidth()
    assert inside.y1 <= figure.get_figheight()


def test_without_a_scan_there_is_one_curve_and_no_share():
    single = replace(known_model.scan(), scan=())
    drawing = draw_development(single)
    assert draw_share(single) is None
    assert "inset" not in drawing.caption
    assert not panel(drawing, r"c_\mathrm{NC}").child_axes
    assert len([one for one in panel(drawing, "σ_r").lines if len(one.get_xdata()) > 2]) == 1


def test_a_long_scan_shows_five_exponents_its_own_among_them():
    wide = known_model.wide_scan()
    drawn = lines(wide)
    assert [line.run.n for line in drawn] == [0, 1.5, 2, 3, 4]
    assert len({line.color for line in drawn}) == 5
    assert "4 other n of the scan not shown" in draw_development(wide).caption
    assert len(draw_share(wide).figure.axes[0].collections[0].get_offsets()) == 9


def test_a_rate_law_without_exponent_has_no_n():
    simulated = known_model.linear_free_energy()
    drawing = draw_development(simulated)
    assert "n =" not in drawing.caption.split("time.")[1]
    assert "The run: 98 % of c_NC" in drawing.alt
    assert draw_snapshots(simulated) is not None


def test_growth_alone_has_no_end_of_nucleation():
    drawing = draw_development(known_model.growth_only())
    assert not verticals(panel(drawing, "σ_r"))
    assert "98 %" not in drawing.alt
    constant = panel(drawing, "supersaturation")  # 90.847 for n = 2: a straight line in the middle, not noise
    assert constant.get_yscale() == "linear"
    assert constant.get_ylim()[0] == 0
    assert constant.lines[0].get_ydata() == pytest.approx(90.847, abs=0.02)


def test_generation_that_stops_leaves_no_monomers_to_grow_from():
    simulated = known_model.stopped()
    drawing = draw_development(simulated)
    inside = 0.025 * 4 * np.pi / 3 * (1.2**3 + 3 * 1.2 * 0.1**2) * 1e-27 / 5.59e-29  # mol/m³ in the crystals at t = 0
    full = (0.98 * (inside + 12) - inside) / 0.05  # yield 98 % of crystals and table
    ((time, color),) = verticals(panel(drawing, "σ_r"))
    assert color == BLACK
    assert time == pytest.approx(full, rel=1e-3)
    supersaturation = panel(drawing, "supersaturation")
    assert supersaturation.get_yscale() == "log"
    assert simulated.development.supersaturation[-1] == 0


# --- size distributions ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def distributions():
    return draw_snapshots(known_model.scan())


def test_each_n_has_a_panel_and_its_lines_hold_all_crystals(distributions):
    times = np.array(known_model.SNAPSHOTS)
    for ax, run in zip(distributions.figure.axes, known_model.scan().scan, strict=True):
        drawn = [one for one in ax.lines if len(one.get_xdata()) > 2]
        areas = [np.trapezoid(one.get_ydata(), one.get_xdata()) for one in drawn]
        np.testing.assert_allclose(areas, population.at(run.development, times).all.c_umol_L, rtol=0.01)
        assert [text.get_text() for text in ax.texts if "$n$" in text.get_text()] == [f"$n$ = {run.n:g}"]
        assert ax.get_ylabel() == "$c(r)$ (µmol L⁻¹ nm⁻¹)"
    assert distributions.figure.axes[-1].get_xlabel() == "radius $r$ (nm)"


def test_lines_darken_with_time(distributions):
    for ax in distributions.figure.axes:
        brightness = [sum(one.get_color()) for one in ax.lines if len(one.get_xdata()) > 2]
        assert brightness == sorted(brightness, reverse=True)
        assert len(set(brightness)) == 9
    labels = [text.get_text() for text in distributions.figure.legends[0].get_texts()]
    assert labels[0] == "3.16 s"
    assert labels[-1] == "2276 s"
    assert shades(GREEN, 1)


def test_a_line_marks_the_radius_of_the_first_nuclei(distributions):
    synthesis = known_model.calibrated(0.0)
    nuclei = synthesis.capillary_m(0) / np.log(83.86) * 1e9 + 0.3  # peak S of the reference, nuclei 0.3 nm above r_c
    for ax in distributions.figure.axes:
        ((radius, _),) = verticals(ax)
        assert radius == pytest.approx(nuclei, abs=2e-3)
        assert ax.get_xlim()[0] < radius < ax.get_xlim()[1]


@pytest.mark.parametrize(("n", "first_after"), [(0, 49.03), (2, 84.83), (4, 146.78)])
def test_the_arrow_points_at_the_first_distribution_after_nucleation(distributions, n, first_after):
    row = [0, 2, 4].index(n)
    run, ax = known_model.scan().scan[row], distributions.figure.axes[row]
    shown = snapshots(run, known_model.SNAPSHOTS)
    assert shown.time_s[shown.ended] == first_after
    (arrow,) = [text for text in ax.texts if not text.get_text()]
    line = [one for one in ax.lines if len(one.get_xdata()) > 2][shown.ended]
    assert arrow.xy[0] == pytest.approx(line.get_xdata()[np.argmax(line.get_ydata())])
    assert f"n = {n}: {first_after:.3g} s" in distributions.caption


def test_growth_alone_is_drawn_from_its_gaussian_without_line_or_arrow():
    drawing = draw_snapshots(known_model.growth_only(0.0))
    (ax,) = drawing.figure.axes
    assert not verticals(ax)
    assert [text.get_text() for text in ax.texts] == ["$n$ = 0"]
    last = ax.lines[-1]  # n = 0 moves the Gaussian as it is
    r = last.get_xdata()
    expected = 25 / (0.1 * np.sqrt(2 * np.pi)) * np.exp(-0.5 * ((r - 2.00908) / 0.1) ** 2)
    np.testing.assert_allclose(last.get_ydata(), expected, atol=0.5)
    assert "Vertical" not in drawing.caption


@pytest.mark.parametrize("times", [(30.0,), (1e-9, 30.0, 9000.0)], ids=["one", "too early and too late"])
def test_only_times_with_crystals_are_drawn(times):
    drawing = draw_snapshots(replace(known_model.scan(), snapshots_s=times))
    for ax in drawing.figure.axes:
        assert len([one for one in ax.lines if len(one.get_xdata()) > 2]) == 1
    assert ("after the end: 1e-09 s, 9000 s" in drawing.caption) == (len(times) > 1)
    assert [text.get_text() for text in drawing.figure.legends[0].get_texts()] == ["30 s"]


def test_no_crystals_no_figure():
    assert draw_snapshots(replace(known_model.scan(), snapshots_s=(1e-9,))) is None
    assert draw_snapshots(replace(known_model.scan(), snapshots_s=())) is None


# --- modes -----------------------------------------------------------------------------------------------------------


def test_crystals_of_each_injection_are_drawn_apart():
    simulated = known_model.second_injection()
    drawing = draw_modes(simulated)
    concentration, radius, spread = drawing.figure.axes
    every, first, second = (one.get_ydata() for one in concentration.lines)
    np.testing.assert_allclose(first + second, every, rtol=1e-9)
    assert [one.get_label() for one in concentration.lines] == ["all", "nucleated from 0 s", "nucleated from 600 s"]
    for ax, values in ((radius, "radius_nm"), (spread, "sigma_nm")):
        for line, mode in zip(ax.lines, simulated.development.modes, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), getattr(mode, values))
    assert not np.isfinite(radius.lines[1].get_ydata()[simulated.development.time_s < 600]).any()
    assert "nucleated from 600 s: c_NC = " in drawing.caption
    assert "All modes together" in draw_development(simulated).caption


def test_one_mode_is_no_figure():
    assert draw_modes(known_model.scan()) is None


def test_a_mode_of_hardly_any_crystals_is_left_out():
    simulated = known_model.second_injection()
    first, second = simulated.development.modes
    rare = replace(second, c_umol_L=1e-9 * second.c_umol_L)
    assert draw_modes(replace(simulated, development=replace(simulated.development, modes=(first, rare)))) is None


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_ripening_does_not_move_the_end_of_nucleation():
    development = known_model.scan().development
    time, c = development.time_s, development.all.c_umol_L
    ripened = replace(development.all, c_umol_L=np.where(time > 1000, 0.6 * c, c))
    assert summarise(replace(development, all=ripened)).t98_c_s == summarise(development).t98_c_s


def test_crystals_of_one_size_have_no_density_to_draw():
    simulated = known_model.growth_only()
    (crystals,) = simulated.synthesis.crystals
    one_size = replace(simulated.synthesis, crystals=(replace(crystals, sigma_m=0.0),))
    sharp = known_model.simulated(2.0, one_size, 240.0, (240.0,))
    assert draw_snapshots(sharp) is None
    assert "σ_r = 0 nm" in draw_development(sharp).alt


@pytest.mark.parametrize("crystals", [(), (Crystals(0.025, 1.2e-9, 1e-10),)])
def test_nothing_that_forms_before_the_end_is_drawn_without_a_warning(crystals):
    late = Tabulated((300.0, 540.0), (0.05, 0.05))
    nothing = replace(known_model.calibrated(2.0), conversion=late, crystals=crystals, nucleation=not crystals)
    drawing = draw_development(known_model.simulated(2.0, nothing, 240.0, (240.0,)))
    assert all(np.isfinite(ax.get_ylim()).all() and np.ptp(ax.get_ylim()) > 0 for ax in drawing.figure.axes)
    c = panel(drawing, r"c_\mathrm{NC}")
    assert (c.get_ylim()[0] == 0) == bool(crystals)
