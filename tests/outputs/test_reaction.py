"""Analysis, comparison and aliquots of a run in the results file, tables, figures and report."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest

from saxs_pipeline.kinetic_config import UNITS
from saxs_pipeline.outputs import nexus, plots, reaction_tables, report, report_reaction, tables
from saxs_pipeline.outputs.figure_files import write_drawings
from saxs_pipeline.outputs.folder import FIGURES, staged
from saxs_pipeline.outputs.plot_kinetics import draw_kinetics
from saxs_pipeline.outputs.plot_reaction import build_up_curve, draw_reaction
from saxs_pipeline.outputs.plot_series import draw_concentration_yield, draw_radius
from saxs_pipeline.reaction import KineticParameter, Phase
from saxs_pipeline.science.buildup import EXPONENTIAL, WITH_DELAY
from saxs_pipeline.types import Estimate, Uncertain
from tests.outputs.known_run import DELAY, EXCESS, RATE, T98_YIELD, development, make_result, only, with_reaction
from tests.outputs.test_nexus import assert_equal
from tests.outputs.test_plots import texts
from tests.outputs.test_report import Page

NAN = float("nan")


@pytest.fixture(scope="module")
def nxs(reacted, tmp_path_factory):
    path = tmp_path_factory.mktemp("reaction") / "run.nxs"
    nexus.write_run(reacted, path)
    return path


# --- run.nxs ---------------------------------------------------------------------------------------------------------


def test_the_reaction_comes_back_exactly(reacted, nxs):
    back = nexus.read_run(nxs)
    assert back.comparison is not None
    assert_equal(back, reacted)


@pytest.mark.parametrize("part", ["analysis", "comparison", "aliquots"])
def test_each_part_may_be_absent(reacted, tmp_path, part):
    without = replace(reacted, **{part: None})
    nexus.write_run(without, tmp_path / "run.nxs")
    assert_equal(nexus.read_run(tmp_path / "run.nxs"), without)


def test_what_the_series_does_not_say_stays_unsaid(reacted, tmp_path):
    nothing = np.empty(0)
    analysis = replace(
        reacted.analysis, concentration=None, yield_=None, nucleation_share=None, phases=(), growth_exponent=None,
        focusing_time_s=nothing, focusing_nm_s=Estimate(nothing, nothing, nothing), notes=(),
    )  # fmt: skip
    comparison = replace(reacted.comparison, parameters=(), correlation=np.empty((0, 0)), notes=(), converged=False)
    mute = replace(reacted, analysis=analysis, comparison=comparison)
    nexus.write_run(mute, tmp_path / "run.nxs")
    assert_equal(nexus.read_run(tmp_path / "run.nxs"), mute)


def test_a_time_that_is_not_known_comes_back_as_nan(reacted, tmp_path):
    law = replace(reacted.analysis.concentration, t98_s=Uncertain(NAN, NAN))
    nexus.write_run(replace(reacted, analysis=replace(reacted.analysis, concentration=law)), tmp_path / "run.nxs")
    assert all(math.isnan(x) for x in nexus.read_run(tmp_path / "run.nxs").analysis.concentration.t98_s)


def test_a_file_of_an_earlier_version_still_loads(result, tmp_path):
    nexus.write_run(result, tmp_path / "run.nxs")
    with h5py.File(tmp_path / "run.nxs", "a") as file:
        del file["entry/fit/model"]
        del file["entry/fit/free"]
    old = nexus.read_run(tmp_path / "run.nxs")
    assert math.isnan(old.fits.model.populations[0].amplitude)
    assert (old.analysis, old.comparison, old.aliquots) == (None, None, None)
    assert_equal(replace(old, fits=replace(old.fits, model=result.fits.model)), result)


def test_the_same_reaction_gives_the_same_bytes(reacted, nxs, tmp_path):
    nexus.write_run(reacted, tmp_path / "again.nxs")
    again = tmp_path / "run.nxs"
    nexus.write_run(reacted, again)
    assert again.read_bytes() == nxs.read_bytes()


def test_the_new_groups_are_valid_nexus_with_units(nxs):
    done = subprocess.run(
        [Path(sys.executable).parent / "nxcheck", "-w", str(nxs)], capture_output=True, text=True, check=True
    )
    assert "Total number of warnings: 0" in done.stdout, done.stdout
    assert "Total number of errors: 0" in done.stdout, done.stdout
    with h5py.File(nxs) as file:
        entry = file["entry"]
        assert entry["analysis/concentration/t98"].attrs["units"] == "s"
        assert entry["analysis/focusing/rate"].attrs["units"] == "nm/s"
        assert entry["kinetics/frames/c_nc"].attrs["units"] == "µmol/L"
        assert entry["aliquots/time"].attrs["units"] == "s"


@pytest.mark.parametrize("name", ["analysis/focusing", "kinetics/frames", "kinetics/curve", "aliquots"])
def test_silx_plots_the_new_groups(nxs, name):
    from silx.io.nxdata import get_default

    with h5py.File(nxs) as file:
        plot = get_default(file["entry"][name])
        assert plot.is_valid, plot.issues
        assert plot.axes_names == ["time (s)"]


# --- tables ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(reacted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    reaction_tables.write_reaction(reacted, folder)
    return folder


def test_the_comparison_lists_measured_model_and_residual(reacted, written):
    raw = (written / "comparison.csv").read_bytes()
    assert b"\r" not in raw
    with (written / "comparison.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    q, t = reacted.quantities, np.maximum(reacted.quantities.time_s, 0)
    names = ("r_nm", "sigma_r_nm", "c_nc_umol_L", "yield")
    estimates = (q.radius_nm, q.sigma_nm, q.c_nc_umol_L, q.yield_)
    assert list(rows[0]) == [
        *("frame", "t_s"), *(n + end for n in names for end in ("", "_err", "_model", "_residual")), "used"
    ]  # fmt: skip
    for name, estimate, truth in zip(names, estimates, development(t), strict=True):
        model = np.where(q.time_s < 0, np.nan, truth)
        for column, values in {
            name: estimate.value,
            f"{name}_err": estimate.statistical,
            f"{name}_model": model,
            f"{name}_residual": (estimate.value - model) / estimate.statistical,
        }.items():
            np.testing.assert_allclose([float(row[column]) for row in rows], values, rtol=1e-9, err_msg=column)
    assert [row["used"] == "1" for row in rows] == reacted.comparison.used.tolist()
    assert rows[13]["r_nm_residual"] == "nan"


def test_residuals_without_an_error_are_not_infinite():
    measured = Estimate(np.array([1.0, 2.0, NAN]), np.array([0.0, 0.5, NAN]), np.zeros(3))
    np.testing.assert_array_equal(reaction_tables.residuals(measured, np.ones(3)), [NAN, 2.0, NAN])


def test_the_parameters_are_readable_by_machines(reacted, written):
    said = json.loads((written / "reaction.json").read_text(encoding="utf-8"))
    analysis, kinetics = said["analysis"], said["kinetics"]
    assert analysis["concentration"]["t98_s"] == {"value": 15 * math.log(50), "error": 0.9}
    assert analysis["concentration"]["parameters"]["c_inf_umol_L"] == {"value": 25.0, "error": 0.1}
    assert analysis["yield"]["covariance"][2] == [0, 0, 0.01]
    assert analysis["nucleation_share"] == {"value": 0.1458, "error": 0.005}
    assert [phase["name"] for phase in analysis["phases"]] == ["induction", "nucleation", "growth", "ripening"]
    assert analysis["phases"][1] == {"name": "nucleation", "start_s": 1.1, "end_s": 58.7}
    assert analysis["focusing"]["rate_nm_s"][3] is None
    assert kinetics["parameters"]["gamma"] == {
        **{"value": 0.181, "statistical": 0.0021, "systematic": 0.0009}, "unit": "J/m^2", "fitted": True
    }  # fmt: skip
    assert kinetics["fitted"] == ["A", "gamma", "n", "k1"]
    np.testing.assert_array_equal(kinetics["correlation"], reacted.comparison.correlation)
    assert (kinetics["degrees_of_freedom"], kinetics["converged"]) == (103, True)
    assert said["aliquots"] == {"source": "aliquots.csv", "scale": {"value": 0.8, "error": 0.02}, "scale_fitted": True}


def test_only_what_the_run_has_is_written(result, reacted, tmp_path):
    reaction_tables.write_reaction(result, tmp_path)
    assert list(tmp_path.iterdir()) == []
    reaction_tables.write_reaction(replace(reacted, comparison=None, aliquots=None), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["reaction.json"]
    assert list(json.loads((tmp_path / "reaction.json").read_text(encoding="utf-8"))) == ["analysis"]


def fill(folder, *names):
    """A results folder with these files."""
    with staged(folder) as staging:
        for name in names:
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).touch()


def files_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_reaction_of_an_earlier_run_is_removed_with_its_figures(tmp_path):
    fill(tmp_path, "run.nxs", "comparison.csv", "reaction.json", "figures/kinetics.png", "figures/radius.png")
    (tmp_path / "figures" / "mine.png").touch()
    fill(tmp_path, "run.nxs", "figures/radius.png")
    assert files_in(tmp_path) == {"run.nxs", "figures/radius.png", "figures/mine.png"}


def test_a_simulation_and_a_run_leave_each_others_files_alone(tmp_path):
    run = ("run.nxs", "comparison.csv", "curves/frame_00001.dat", "figures/radius.svg")
    fill(tmp_path, *run)
    fill(tmp_path, "model.csv", "scan.csv", "figures/model_share.png", "figures/model_development.png")
    fill(tmp_path, "model.csv", "figures/model_development.png")
    assert files_in(tmp_path) == {*run, "model.csv", "figures/model_development.png"}
    fill(tmp_path, "growth_rate.csv")
    fill(tmp_path, "run.nxs")
    assert files_in(tmp_path) == {"run.nxs", "model.csv", "growth_rate.csv", "figures/model_development.png"}


def test_the_summary_tells_the_reaction(reacted):
    rows = dict(tables.summary(reacted))
    assert rows["t98 of c_NC"] == "58.68 ± 0.90 s"
    assert rows["t98 of the yield"] == "403 ± 12 s"
    assert rows["nucleation share"].startswith("14.58 ± 0.50 %")
    assert rows["phases"] == (
        "induction 0 to 1.1 s, nucleation 1.1 to 58.7 s, growth 58.7 to 402 s, ripening 402 to 7900 s"
    )
    assert rows["apparent growth exponent"].startswith("2.10 ± 0.40 of the distribution")
    assert rows["kinetic model"] == "calibrated <model>: χ²_red 1.01 with 103 degrees of freedom"
    assert rows["fitted gamma"] == "0.1810 ± 0.0021 ± 0.0009 J/m²"
    assert rows["fitted k1"] == "(4.880 ± 0.031)·10⁻³ 1/s"
    assert "fitted T" not in rows
    assert rows["aliquots"] == "c_NC, yield / (0.800 ± 0.020) (fitted)"


def test_a_fit_that_did_not_converge_says_so(reacted):
    lost = replace(reacted, comparison=replace(reacted.comparison, converged=False))
    assert dict(tables.summary(lost))["kinetic model"].endswith("; the fit did not converge")


@pytest.mark.parametrize(
    ("parameter", "text"),
    [
        (KineticParameter("T", "K", 533.15, 0.0, 0.0, False), "533.15 K"),
        (KineticParameter("n", "", 3.92, 0.11, 0.0, True), "3.92 ± 0.11"),
        (KineticParameter("M0", "mol/m^3", 1e-7, 2e-9, 1e-9, True), "(1.000 ± 0.020 ± 0.010)·10⁻⁷ mol/m³"),
        (KineticParameter("A", "m/s", 0.04, NAN, NAN, True), "0.04 m/s (not converged)"),
    ],
)
def test_parameters_read_value_statistical_systematic_unit(parameter, text):
    assert tables.parameter_text(parameter) == text


def test_one_frame_is_enough_for_the_files(reacted, tmp_path):
    few = only(reacted, [35])
    c = reacted.comparison
    cut = {
        n: getattr(c, n)[[35]] for n in ("model_radius_nm", "model_sigma_nm", "model_c_umol_L", "model_yield", "used")
    }
    few = replace(few, comparison=replace(c, **cut))
    reaction_tables.write_reaction(few, tmp_path)
    assert len((tmp_path / "comparison.csv").read_text().splitlines()) == 2
    nexus.write_run(few, tmp_path / "run.nxs")
    assert_equal(nexus.read_run(tmp_path / "run.nxs"), few)


# --- figures ---------------------------------------------------------------------------------------------------------


def lines(ax, marker):
    """(x, y) of everything drawn with a marker ("None": lines), one after the other."""
    drawn = [line.get_xydata() for line in ax.get_lines() if line.get_marker() == marker and len(line.get_xydata())]
    return [(xy[:, 0], xy[:, 1]) for xy in drawn]


def longest(ax):
    """The line with the most points that is no error bar."""
    return max((xy for xy in lines(ax, "None") if np.isfinite(xy[1]).all()), key=lambda xy: xy[0].size)


@pytest.fixture(scope="module")
def pictures(reacted, tmp_path_factory):
    return plots.write_figures(reacted, tmp_path_factory.mktemp("pictures"))


def test_the_figures_stand_in_print_with_labels(pictures):
    figures = {figure.name: figure for figure in pictures}
    assert {"reaction", "kinetics"} <= set(figures)
    assert set(figures) == FIGURES - {"populations", "sizes"}
    for name, words in {
        "reaction": [
            *("(µmol L⁻¹)", "yield (%)", "(pm s⁻¹)", "time (s)", "58.68 ± 0.90 s", "induction", "ripening", "focusing")
        ],
        "kinetics": ["mean radius", "spread", "Δ/", "time (s)", "gamma = 0.1810 ± 0.0021 ± 0.0009 J/m²", "= 1.01"],
    }.items():
        content = texts(figures[name])
        for word in words:
            assert word in content, word
        assert figures[name].svg.stat().st_size < 500_000


def test_the_same_reaction_gives_the_same_pictures(reacted, pictures, tmp_path):
    again = write_drawings([partial(draw_reaction, reacted), partial(draw_kinetics, reacted)], tmp_path)
    for figure in again:
        (first,) = [one for one in pictures if one.name == figure.name]
        assert figure.png.read_bytes() == first.png.read_bytes()
        assert figure.svg.read_bytes() == first.svg.read_bytes()


def test_the_laws_are_drawn_as_fitted(reacted):
    top, middle, _ = draw_reaction(reacted).figure.axes
    t, c = longest(top)
    np.testing.assert_allclose(c, 25 * (1 - np.exp(-t / 15)), rtol=1e-9, atol=1e-12)
    t, percent = longest(middle)
    e = np.exp(-RATE * (1 - 1 / EXCESS) * np.maximum(t - DELAY, 0))  # e^{-u} of S3.2
    np.testing.assert_allclose(percent, 81 * (1 - (EXCESS - 1) * e / (EXCESS - e)), rtol=1e-9, atol=1e-9)


def test_the_curve_of_a_law_reaches_98_percent_at_t98(reacted):
    for law in (reacted.analysis.concentration, reacted.analysis.yield_):
        assert build_up_curve(law, np.array([law.t98_s.value]))[0] == pytest.approx(0.98 * law.values[0], rel=1e-9)
    with pytest.raises(ValueError, match="no such build-up law"):
        build_up_curve(replace(law, law="sigmoid"), np.ones(1))


def test_a_delay_that_is_a_parameter_is_taken_as_it_is(reacted):
    law = replace(
        reacted.analysis.concentration, law=EXPONENTIAL + WITH_DELAY, names=("c_inf_umol_L", "k_1_s", "delay_s"),
        values=np.array([25.0, 0.1, 4.0]), t98_s=Uncertain(99.0, 1.0),
    )  # fmt: skip
    np.testing.assert_allclose(build_up_curve(law, np.array([3.0, 4.0, 14.0])), [0, 0, 25 * (1 - math.exp(-1))])


def test_t98_stands_as_a_line_in_all_panels_with_its_error_as_a_band(reacted):
    axes = draw_reaction(reacted).figure.axes
    for t98 in (15 * math.log(50), T98_YIELD):
        for ax in axes:
            assert any(x.size == 2 and np.all(x == t98) for x, _ in lines(ax, "None"))
    bands = [patch.get_x() for patch in axes[1].patches if patch.get_width() == pytest.approx(2 * 12.3)]
    assert bands == [pytest.approx(T98_YIELD - 12.3)]


def test_phases_tint_every_panel_within_the_axis(reacted):
    for ax in draw_reaction(reacted).figure.axes:
        low, high = ax.get_xlim()
        spans = {(patch.get_x(), patch.get_x() + patch.get_width()) for patch in ax.patches}
        for start, end in ((low, 1.1), (1.1, 58.7), (58.7, 402.4), (402.4, high)):
            assert any(a == pytest.approx(start) and b == pytest.approx(end) for a, b in spans), (start, end)


def test_names_of_short_phases_do_not_collide(reacted):
    ends = [0.0, 0.12, 0.3, 0.9, 4000.0]
    names = ("induction", "nucleation", "growth", "ripening")
    phases = tuple(Phase(name, *ends[i : i + 2]) for i, name in enumerate(names))
    figure = draw_reaction(replace(reacted, analysis=replace(reacted.analysis, phases=phases))).figure
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts if text.get_text() in names]
    assert len(boxes) == 4
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_the_focusing_rate_is_drawn_where_it_is_known(reacted):
    bottom = draw_reaction(reacted).figure.axes[-1]
    ((t, rate),) = lines(bottom, "o")
    known = np.isfinite(reacted.analysis.focusing_nm_s.value) & (
        reacted.analysis.focusing_time_s < bottom.get_xlim()[1]
    )
    np.testing.assert_array_equal(t, reacted.analysis.focusing_time_s[known])
    np.testing.assert_allclose(rate, 1e3 * reacted.analysis.focusing_nm_s.value[known])
    assert bottom.get_ylim()[0] < 0 < bottom.get_ylim()[1]


def test_a_reaction_of_which_little_is_known_is_drawn_too(reacted):
    nothing = np.empty(0)
    analysis = replace(
        reacted.analysis, concentration=None, yield_=None, phases=(), nucleation_share=None, growth_exponent=None,
        focusing_time_s=nothing, focusing_nm_s=Estimate(nothing, nothing, nothing),
    )  # fmt: skip
    drawing = draw_reaction(replace(reacted, analysis=analysis))
    assert len(drawing.figure.axes) == 2
    assert "none found" in drawing.alt
    assert draw_reaction(replace(reacted, analysis=None)) is None
    assert draw_reaction(replace(reacted, quantities=None)) is None
    assert draw_reaction(only(reacted, [35])) is None


def test_the_model_is_a_line_and_the_residuals_stand_below(reacted):
    axes = draw_kinetics(reacted).figure.axes
    assert len(axes) == 8
    used = reacted.comparison.used & (reacted.curves.time_s > 0) & np.isfinite(reacted.quantities.sigma_nm.value)
    q, c = reacted.quantities, reacted.comparison
    estimates = (q.radius_nm, q.sigma_nm, q.c_nc_umol_L, q.yield_)
    truth = development(c.curve_time_s)
    limits = [line for line in axes[2].get_lines() if line.get_marker() == "v"]
    np.testing.assert_array_equal(limits[0].get_xdata(), q.time_s[[28]])  # 11 is weak: it has no σ_r
    assert "Triangles: upper limits of σ_r" in draw_kinetics(reacted).caption
    for upper, lower, estimate, curve, factor in zip(
        axes[::2], axes[1::2], estimates, truth, (1, 1, 1, 100), strict=True
    ):
        t, y = longest(upper)
        np.testing.assert_array_equal(t, c.curve_time_s)
        np.testing.assert_allclose(y, factor * curve)
        t, y = max(lines(lower, "o"), key=lambda xy: xy[0].size)
        rows = used & (np.arange(40) != 28) if upper is axes[2] else used
        model = development(q.time_s[rows])[axes[::2].index(upper)]
        residual = (estimate.value[rows] - model) / estimate.statistical[rows]
        inside = np.abs(residual) <= lower.get_ylim()[1]
        np.testing.assert_allclose(np.sort(y), np.sort(residual[inside]), rtol=1e-9)


def test_the_error_of_the_scale_is_a_band_behind_the_residuals(reacted):
    axes = draw_kinetics(reacted).figure.axes
    band = axes[5].collections[0].get_paths()[0].vertices
    c, last = reacted.quantities.c_nc_umol_L, 39
    at_the_end = band[np.isclose(band[:, 0], reacted.quantities.time_s[last]), 1]
    assert at_the_end.max() == pytest.approx(c.systematic[last] / c.statistical[last])
    assert at_the_end.min() == pytest.approx(-c.systematic[last] / c.statistical[last])


def test_frames_not_used_are_hollow_and_grey(reacted):
    upper = draw_kinetics(reacted).figure.axes[0]
    grey = [line for line in upper.get_lines() if line.get_marker() == "o" and line.get_markerfacecolor() == "white"]
    (times,) = [line.get_xdata() for line in grey]
    assert times.size > 0
    assert times.max() <= 3
    assert "not used in the fit" in draw_kinetics(reacted).caption
    all_used = replace(reacted.comparison, used=np.ones(40, dtype=bool))
    assert "not used" not in draw_kinetics(replace(reacted, comparison=all_used)).caption


def test_residuals_beyond_the_strip_are_marked_at_its_edge(reacted):
    far = reacted.comparison.model_radius_nm.copy()
    far[39] += 1
    strip = draw_kinetics(replace(reacted, comparison=replace(reacted.comparison, model_radius_nm=far))).figure.axes[1]
    beyond = lines(strip, "v")
    assert len(beyond) == 1
    assert beyond[0][0] == reacted.quantities.time_s[39]
    assert strip.get_ylim()[0] < beyond[0][1][0] < 0


@pytest.mark.parametrize(("draw", "panels"), [(draw_radius, [0]), (draw_kinetics, [0, 4, 6])])
def test_aliquots_lie_on_the_series_with_their_scale(reacted, draw, panels):
    axes = draw(reacted).figure.axes
    for panel in panels:
        ((t, y),) = [xy for xy in lines(axes[panel], "D") if xy[0].size > 1]
        r, _, c, percent = development(t) * np.array([1, 1, 1, 100])[:, None]
        np.testing.assert_allclose(y, {0: r, 4: c, 6: percent}[panel])
        assert t.max() == 2000.0
        legend = axes[panel].get_legend().get_texts()[0].get_text()
        assert legend == ("aliquots" if panel == 0 else "aliquots / (0.800 ± 0.020)")
        low, high = axes[panel].get_ylim()
        assert low < y.min() < y.max() < high


def test_aliquots_far_from_the_series_are_within_the_axes_and_late_ones_counted(reacted):
    scaled = reacted.aliquots
    much = replace(scaled.aliquots, c_umol_L=3 * scaled.aliquots.c_umol_L)
    drawing = draw_concentration_yield(replace(reacted, aliquots=scaled._replace(aliquots=much)))
    assert drawing.figure.axes[0].get_ylim()[1] > 75
    assert "Diamonds: aliquots, c_NC and yield / (0.800 ± 0.020) (fitted). 1 aliquot outside" in drawing.caption
    nothing = replace(scaled.aliquots, radius_nm=np.full(6, np.nan))
    radius = draw_radius(replace(reacted, aliquots=scaled._replace(aliquots=nothing)))
    assert "aliquot" not in radius.caption
    assert radius.figure.axes[0].get_legend() is None


def test_a_fixed_scale_has_no_error(reacted):
    fixed = reacted.aliquots._replace(scale=Uncertain(0.8), fitted=False)
    drawing = draw_concentration_yield(replace(reacted, aliquots=fixed))
    assert drawing.figure.axes[0].get_legend().get_texts()[0].get_text() == "aliquots / 0.8"
    assert "/ 0.8 (fixed)" in drawing.caption


def test_without_a_fit_the_model_is_drawn_all_the_same(reacted):
    fixed = tuple(p._replace(fitted=False) for p in reacted.comparison.parameters)
    plain = replace(reacted.comparison, parameters=fixed, correlation=np.empty((0, 0)))
    assert "No parameter was fitted" in draw_kinetics(replace(reacted, comparison=plain)).caption
    assert draw_kinetics(replace(reacted, comparison=None)) is None


def test_a_short_series_has_a_linear_axis(reacted):
    late = replace(reacted, curves=replace(reacted.curves, start_s=reacted.curves.start_s + 20000))
    for draw in (draw_reaction, draw_kinetics, draw_radius):
        assert draw(late).figure.axes[0].get_xscale() == "linear"


# --- report ----------------------------------------------------------------------------------------------------------


def html_of(one, figures, folder):
    report.write(one, figures, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_report_has_sections_with_their_figures(reacted, pictures, tmp_path):
    html = html_of(reacted, pictures, tmp_path)
    page = Page(html)
    assert len(page.all("img")) == 8
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {attrs["href"].removeprefix("#") for attrs in page.all("a")}
    assert {"reaction-section", "kinetics-section"} <= links <= set(ids)
    order = [ids.index(name) for name in ("figures", "reaction-section", "reaction", "kinetics-section", "kinetics")]
    assert order == sorted(order)
    for said in (
        *("c∞ = 25.00 ± 0.10 µmol/L", "58.68 ± 0.90 s", "14.58 ± 0.50 %", "growth 58.7 to 402 s", "2.10 ± 0.40"),
        *("0.1810 ± 0.0021 ± 0.0009", "J/m²", "surface energy, γ", "fitted", "fixed", "-0.30"),
    ):
        assert said in page.text["td"], said
    assert page.text["strong"].count("0.97") == 2
    assert "the growth phase <has> few frames" in page.text["li"]
    assert "the induction was not fitted" in page.text["li"]
    assert "<model>" not in html
    assert "calibrated <model>" in page.text["p"]


@pytest.mark.parametrize("frames", [[35], [13, 16], [10, 11]])
def test_few_frames_with_a_reaction_make_a_report_too(reacted, tmp_path, frames):
    c = reacted.comparison
    names = ("model_radius_nm", "model_sigma_nm", "model_c_umol_L", "model_yield", "used")
    cut = replace(c, **{name: getattr(c, name)[frames] for name in names})
    few = replace(only(reacted, frames), comparison=cut)
    Page(html_of(few, plots.write_figures(few, tmp_path), tmp_path))


def test_a_report_without_the_parts_has_no_such_sections(result, tmp_path):
    html = html_of(result, [], tmp_path)
    assert "reaction-section" not in html
    assert "kinetics-section" not in html


def test_a_model_that_does_not_describe_the_series_is_said_to(reacted, tmp_path):
    assert report_reaction.doubt(reacted.comparison) == ""
    poor = replace(reacted.comparison, chi2_red=3.4)
    html = html_of(replace(reacted, comparison=poor), [], tmp_path)
    assert "The stated uncertainties of the fitted parameters are too small" in html
    nothing_fitted = replace(poor, parameters=tuple(p._replace(fitted=False) for p in poor.parameters))
    assert "3.4 where noise alone gives 1 ± 0.14" in report_reaction.doubt(nothing_fitted)
    assert "uncertainties of the fitted" not in report_reaction.doubt(nothing_fitted)


def test_focusing_in_words(reacted):
    analysis = reacted.analysis
    assert report_reaction.focusing_text(analysis).startswith("σ_r falls between 48.1 and 236 s, fastest at 48.1 s")
    assert "; it rises between 2183 and 3000 s (by more than three" in report_reaction.focusing_text(analysis)
    rate = Estimate(np.array([1e-3, 2e-3]), np.ones(2), np.zeros(2))
    flat = replace(analysis, focusing_time_s=np.array([1.0, 2.0]), focusing_nm_s=rate)
    said = "σ_r changes in no single interval (by more than three standard errors)"
    assert report_reaction.focusing_text(flat) == said
    rate = Estimate(np.full(2, np.nan), np.full(2, np.nan), np.zeros(2))
    assert report_reaction.focusing_text(replace(flat, focusing_nm_s=rate)) == ""


def test_every_parameter_of_the_model_has_a_meaning():
    assert set(UNITS) == set(report_reaction.MEANING)


def test_a_long_series_stays_a_file_to_mail(tmp_path):
    long = with_reaction(make_result(575, 60))
    figures = write_drawings([partial(draw_reaction, long), partial(draw_kinetics, long)], tmp_path)
    assert len(html_of(long, figures, tmp_path)) < 1_500_000
