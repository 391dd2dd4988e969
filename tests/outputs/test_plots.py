from __future__ import annotations

import threading
import xml.etree.ElementTree as ET
from dataclasses import replace

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from saxs_pipeline.outputs import plots
from saxs_pipeline.outputs.figure_files import _join_minor_ticks
from saxs_pipeline.outputs.plot_curves import choose_frames, draw_curves, draw_residuals
from saxs_pipeline.outputs.plot_series import draw_concentration_yield
from saxs_pipeline.outputs.plot_style import RC, time_axis
from saxs_pipeline.types import Estimate
from tests.outputs.known_run import make_result, only

ALL = ["radius", "concentration_yield", "curves", "heatmap", "residuals", "quality"]


@pytest.fixture(scope="module")
def figures(result, tmp_path_factory):
    return {figure.name: figure for figure in plots.write_figures(result, tmp_path_factory.mktemp("figures"))}


def texts(figure):
    """All text of an SVG, formulas joined from their letters; fails if it is no XML."""
    nodes = ET.parse(figure.svg).iter("{http://www.w3.org/2000/svg}text")
    joined = ["".join(part.strip(" \n") if "\n" in part else part for part in node.itertext()) for node in nodes]
    return " ".join(joined).replace("\xa0", " ")


def test_all_figures_are_made_in_order(figures):
    assert list(figures) == ALL


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("radius", ["mean radius", "spread", "(nm)", "time (s)", "100"]),
        ("concentration_yield", ["(µmol L⁻¹)", "yield (%)", "time (s)"]),
        ("curves", ["(nm⁻¹)", "(mm⁻¹)", "1480 s"]),
        ("heatmap", ["(nm⁻¹)", "(mm⁻¹)", "time (s)"]),
        ("residuals", ["(nm⁻¹)", "fit) /", "time (s)"]),
        ("quality", ["reduced", "all_zero", "unreadable", "not_converged", "time (s)"]),
    ],
)
def test_axes_are_labelled_with_units_in_real_text(figures, name, labels):
    content = texts(figures[name])
    for label in labels:
        assert label in content


@pytest.mark.parametrize("name", ALL)
def test_pictures_show_something_at_print_resolution(figures, name):
    picture = matplotlib.image.imread(figures[name].png)
    width_mm = picture.shape[1] / 200 * 25.4
    assert width_mm == pytest.approx(170 if name in ("heatmap", "residuals") else 85, abs=0.2)
    assert 0.02 < np.mean(np.any(picture[..., :3] < 0.95, axis=2)) < 0.95
    assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 20
    assert figures[name].svg.stat().st_size < 500_000


def test_captions_count_what_is_left_out(figures):
    for name in ("radius", "concentration_yield", "heatmap", "residuals"):
        caption = figures[name].caption
        assert "Excluded frames: all_zero 1, monitor_zero 1, nan 1, not_converged 1, unreadable 1." in caption
        assert "10 frames at t ≤ 0 not shown" in caption
        assert figures[name].alt
    assert "Hollow: 2 weak frames" in figures["concentration_yield"].caption


def test_the_same_run_gives_the_same_bytes_in_any_thread(result, tmp_path):
    few = only(result, range(12, 40))
    threads = [threading.Thread(target=plots.write_figures, args=(few, tmp_path / name)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(names) == 12
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_the_fraction_of_large_residuals_is_that_of_gaussian_noise():
    drawing = draw_residuals(make_result(200, 100))
    percent = float(drawing.caption.split(" % of the points")[0].rsplit(" ", 1)[1])
    assert percent == pytest.approx(4.6, abs=0.6)


def test_without_a_model_only_the_curves_are_drawn(bare, tmp_path):
    assert [figure.name for figure in plots.write_figures(bare, tmp_path)] == ["curves", "heatmap", "quality"]


@pytest.mark.parametrize(
    ("frames", "names"),
    [
        ([35], ["radius", "concentration_yield", "curves", "quality"]),
        ([13, 16, 19, 22], ["quality"]),
        ([10, 11], ["concentration_yield", "curves", "heatmap", "residuals", "quality"]),
    ],
    ids=["one frame", "all excluded", "all weak"],
)
def test_few_or_no_good_frames(result, tmp_path, frames, names):
    assert [figure.name for figure in plots.write_figures(only(result, frames), tmp_path)] == names


def test_no_yield_no_panel(result):
    nothing = Estimate(*(np.full(40, np.nan) for _ in range(3)))
    drawing = draw_concentration_yield(replace(result, quantities=replace(result.quantities, yield_=nothing)))
    assert [ax.get_ylabel() for ax in drawing.figure.axes] == [r"$c_\mathrm{NC}$ (µmol L⁻¹)"]
    assert "yield" not in drawing.caption


@pytest.mark.parametrize(("unit", "label"), [("1/mm", "$I$ (mm⁻¹)"), ("a.u.", "$I$ (a.u.)")])
def test_the_unit_of_the_intensity_is_the_curves_own(bare, unit, label):
    drawing = draw_curves(replace(bare, curves=replace(bare.curves, unit=unit)), [20])
    assert drawing.figure.axes[0].get_ylabel() == label


def test_negative_or_untimed_curves_are_no_error(bare, tmp_path):
    below = replace(bare, curves=replace(bare.curves, intensity=-np.abs(bare.curves.intensity)))
    assert [figure.name for figure in plots.write_figures(below, tmp_path / "below")] == ["quality"]
    untimed = replace(bare, curves=replace(bare.curves, start_s=np.zeros(40), exposure_s=np.zeros(40)))
    assert [figure.name for figure in plots.write_figures(untimed, tmp_path / "untimed")] == ["curves", "quality"]


def test_time_is_logarithmic_only_where_it_can_be(result):
    axis = time_axis(result)
    assert axis.logarithmic
    np.testing.assert_array_equal(axis.visible, result.curves.time_s > 0)
    before = replace(result, curves=replace(result.curves, start_s=np.arange(40.0) - 50))
    assert not time_axis(before).logarithmic
    assert time_axis(before).visible.all()


def test_curves_are_chosen_evenly_in_log_time_among_good_frames(result):
    rows = choose_frames(result, ())
    times = result.curves.time_s[rows]
    assert 4 <= rows.size <= 6
    assert rows[-1] == 39
    assert np.ptp(np.diff(np.log(times))) < 1.2
    assert not set(rows) & {13, 16, 19, 22, 25}


def test_curves_follow_the_users_choice_without_bad_frames(result):
    assert choose_frames(result, (35, 13, 20)).tolist() == [20, 35]
    assert choose_frames(result, range(40)).size == 8


def test_minor_ticks_in_one_line_look_as_they_did_one_by_one():
    """Two panels that share a logarithmic axis, ticks inward and outward, on both sides and on one."""
    with mpl.rc_context(RC):
        figure = Figure(figsize=(2, 2))
        upper, lower = figure.subplots(2, 1, sharex=True)
        upper.set(xscale="log", xlim=(0.3, 7e3), yscale="log", ylim=(2, 300))
        lower.tick_params(which="both", direction="out", top=False)
        before = drawn(figure)
        _join_minor_ticks(figure)
        assert not len(upper.xaxis.get_minorticklocs()) and not len(lower.xaxis.get_minorticklocs())
        np.testing.assert_array_equal(drawn(figure), before)


def drawn(figure):
    """Pixels of a figure."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())
