"""What the page draws, as numbers: images in levels of colour, thinning, and sending only what changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fabio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("bokeh", reason="the extra [live] is not installed")

from bokeh.document import Document
from bokeh.models import ColumnDataSource
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from saxs_pipeline.apps.page_curve import PicturePlot
from saxs_pipeline.apps.page_image import COLUMNS as TIMES
from saxs_pipeline.apps.page_image import LONGEST_SIDE, ROWS, Picture, Pictures, as_meant, heat_map, log_levels, picture
from saxs_pipeline.apps.page_series import COLUMNS, SharedTable, limits, send_changes, tabulate
from saxs_pipeline.apps.page_session import Page
from saxs_pipeline.apps.snapshot import Latest
from saxs_pipeline.io.frames import file_state, open_frames
from saxs_pipeline.outputs.flags import has_word, sound
from saxs_pipeline.outputs.plot_style import TimeAxis
from saxs_pipeline.series import FrameSeries
from saxs_pipeline.types import FrameChunk


def test_levels_are_even_in_the_logarithm():
    levels = log_levels(np.array([1.0, 10.0, 100.0, 1000.0, 0.5, 5000.0, np.nan, -3.0, 0.0]), 1.0, 1000.0)
    np.testing.assert_array_equal(levels[[0, 3, 4, 5, 6, 7, 8]], [1, 255, 1, 255, 0, 1, 1])
    np.testing.assert_allclose(levels[[1, 2]], [1 + 254 / 3, 1 + 508 / 3], atol=0.5)


def test_a_small_frame_is_shown_pixel_by_pixel():
    image = np.arange(1, 13, dtype=np.uint16).reshape(3, 4)
    mask = np.zeros((3, 4), dtype=bool)
    mask[1, 2] = True
    shown = picture(image, mask)
    assert shown.block == 1 and shown.shape == (3, 4)
    np.testing.assert_array_equal(shown.levels == 0, mask)
    assert shown.levels[0, 0] == 1 and shown.levels[2, 3] == 255


@pytest.mark.parametrize("shape", [(1043, 981), (2167, 2070), (481, 3)])
def test_a_large_frame_is_the_mean_of_unmasked_pixels_in_blocks(shape):
    rng = np.random.default_rng(3)
    image = rng.poisson(50, shape).astype(np.int32)
    mask = rng.random(shape) < 0.3
    shown = picture(image, mask)
    block = shown.block
    assert max(shown.levels.shape) <= LONGEST_SIDE < max(shape) / (block - 1)
    for row, column in ((0, 0), (shown.levels.shape[0] - 1, shown.levels.shape[1] - 1), (7, 0)):
        part = np.s_[row * block : (row + 1) * block, column * block : (column + 1) * block]
        good = image[part][~mask[part]]
        expected = log_levels(np.array([good.mean() if good.size else np.nan]), shown.low, shown.high)[0]
        assert shown.levels[row, column] == expected


@pytest.mark.parametrize("value", [0, -1, 7])
def test_a_frame_without_contrast_is_drawn(value):
    shown = picture(np.full((5, 5), value), None)
    assert (shown.levels > 0).all() and shown.low < shown.high


@pytest.mark.parametrize("logarithmic", [False, True])
def test_the_map_shows_the_nearest_frame(logarithmic, scan):
    result = scan.results[40]
    seconds = result.curves.time_s
    axis = TimeAxis(seconds, seconds > 0 if logarithmic else np.isfinite(seconds), logarithmic)
    drawn = heat_map(result, axis)
    visible = np.flatnonzero(axis.visible)
    assert drawn.time_s == (seconds[visible].min(), seconds[visible].max())
    place = np.log if logarithmic else np.asarray
    ends = place(np.array(drawn.time_s))
    q = result.curves.q_nm
    half = (q[-1] - q[0]) / (2 * ROWS)
    nearest_q = [np.abs(q - end).argmin() for end in (q[0] + half, q[-1] - half)]
    for column in (0, 1, 57, 123, TIMES - 1):
        time = ends[0] + (ends[1] - ends[0]) * (column + 0.5) / TIMES
        frame = visible[np.abs(place(seconds[visible]) - time).argmin()]
        if not sound(result)[frame]:
            assert (drawn.levels[:, column] == 0).all()
            continue
        expected = log_levels(result.curves.intensity[frame, nearest_q], drawn.low, drawn.high)
        np.testing.assert_array_equal(drawn.levels[[0, -1], column], expected)


def test_excluded_frames_are_grey_and_a_single_time_has_no_map(scan):
    result = scan.results[40]
    bad = tuple("monitor_zero: I1 is 0" if n == 39 else "" for n in range(40))
    excluded = replace(result, curves=replace(result.curves, problems=bad))
    axis = TimeAxis(result.curves.time_s, np.ones(40, dtype=bool), logarithmic=False)
    assert (heat_map(excluded, axis).levels[:, -1] == 0).all()
    assert (heat_map(result, axis).levels[:, -1] > 0).any()
    assert (
        heat_map(scan.results[1], TimeAxis(result.curves.time_s[:1], np.ones(1, dtype=bool), logarithmic=False)) is None
    )


def test_panels_hold_the_sound_frames(scan):
    result = scan.results[40]
    quantities, table = result.quantities, tabulate(result).table
    column = dict(zip(COLUMNS, table, strict=True))
    weak, background = (has_word(quantities.flags, word) for word in ("weak", "background"))
    good = sound(result)
    for name, rows in (
        ("radius", good & np.isfinite(quantities.radius_nm.value)),
        ("concentration", good & ~background & ~weak),
        ("concentration_hollow", good & ~background & weak),
    ):
        np.testing.assert_array_equal(np.isfinite(column[name]), rows)
    full = np.isfinite(column["yield"])
    np.testing.assert_allclose(column["yield"][full], 100 * quantities.yield_.value[full], rtol=1e-6)
    half = (column["yield_high"] - column["yield_low"])[full] / 2
    np.testing.assert_allclose(half, 100 * quantities.yield_.statistical[full], rtol=1e-3, atol=1e-4)


def table_of(rows: list[float]) -> np.ndarray:
    return np.tile(np.array(rows, dtype=np.float32), (len(COLUMNS), 1)).reshape(len(COLUMNS), len(rows))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, np.nan]), max_size=12), max_size=6))
def test_the_browser_gets_every_change(states):
    source, old = ColumnDataSource({name: [] for name in COLUMNS}), table_of([])
    for state in states:
        send_changes(source, old, table_of(state))
        old = table_of(state)
        for name in COLUMNS:
            np.testing.assert_array_equal(np.asarray(source.data[name], dtype=np.float32), old[0])


def test_a_new_frame_sends_itself_alone():
    source, events = ColumnDataSource({name: [] for name in COLUMNS}), []
    document = Document()
    document.add_root(source)
    many = list(np.arange(1000.0))
    send_changes(source, table_of([]), table_of(many))
    document.on_change(events.append)
    send_changes(source, table_of(many), table_of([*many, 7.0]))
    changed = [*many[:500], -1.0, *many[501:], 7.0]
    send_changes(source, table_of([*many, 7.0]), table_of(changed))
    send_changes(source, table_of(changed), table_of(changed))
    assert [event.kind for event in events] == ["ColumnsStreamed", "ColumnsPatched"]
    assert all(len(values) == 1 for values in events[0].data.values())
    assert all(part == slice(500, 501) for patches in events[1].patches.values() for part, _ in patches)


def test_one_browsers_source_does_not_change_the_others():
    first, second = (ColumnDataSource({name: [] for name in COLUMNS}) for _ in range(2))
    before, after = table_of([1.0, 2.0]), table_of([1.0, 3.0])
    for source in (first, second):
        send_changes(source, table_of([]), before)
    for source in (first, second):
        send_changes(source, before, after)
        np.testing.assert_array_equal(source.data["radius"], [1.0, 3.0])
    np.testing.assert_array_equal(before[0], [1.0, 2.0])


def test_limits_are_those_of_well_known_points():
    value = np.array([1.0, 2.0, 3.0, 50.0])
    error = np.array([0.1, 0.1, 0.1, 20.0])
    columns = np.array([value, value - error, value + error, np.full(4, np.nan)], dtype=np.float32)
    low, high = limits(columns, from_zero=False)
    assert 0.5 < low < 0.9 and 3.1 < high < 3.5
    assert limits(columns, from_zero=True)[0] < 0
    assert limits(np.full((4, 3), np.nan, dtype=np.float32), from_zero=False) == (0.0, 1.0)
    upper = np.array([[np.nan], [np.nan], [np.nan], [0.3]], dtype=np.float32)
    low, high = limits(upper, from_zero=False)
    assert low < 0.3 < high


def recorded(folder: Path, counts: int) -> Path:
    """An image file whose pixels all have so many counts."""
    file = folder / f"frame_{counts:05d}.edf"
    fabio.edfimage.EdfImage(np.full((8, 6), counts, dtype=np.int32)).write(file)
    return file


def series_of(*files: Path, kind: type[FrameSeries] = FrameSeries) -> FrameSeries:
    source = open_frames(files, detector=None, roots=())
    n = source.info.n_frames
    source.close()
    start, one = np.arange(n, dtype=float), np.ones(n)
    states = tuple(file_state(file) for file in files)
    return kind(files, None, (), source.info, start, one, one, ("",) * n, "files", states, by_order=False)


@pytest.fixture
def pictures() -> Iterator[Pictures]:
    made = Pictures()
    yield made
    made.close()


def awaited(ask: Callable[[], Any]) -> Any:
    """What is there in the end."""
    end = time.monotonic() + 10
    while (found := ask()) is None or found is False:
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def counts_of(shown: Picture) -> float:
    return shown.low


def test_a_late_file_does_not_lend_its_number_to_anothers_picture(tmp_path, pictures):
    first, last = recorded(tmp_path, 10), recorded(tmp_path, 30)
    before = series_of(first, last)
    assert counts_of(awaited(lambda: pictures.get(before, 1, None))) == 30
    after = series_of(first, recorded(tmp_path, 20), last)
    assert counts_of(awaited(lambda: pictures.get(after, 1, None))) == 20
    assert counts_of(pictures.get(after, 2, None)) == 30  # kept, under its new number


def test_a_frame_that_could_not_be_read_is_read_again(tmp_path, pictures):
    file = recorded(tmp_path, 10)
    series, whole, state = series_of(file), file.read_bytes(), file.stat()
    file.write_bytes(whole[:600])
    assert "unreadable" in awaited(lambda: pictures.get(series, 0, None))
    file.write_bytes(whole)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))  # nothing tells it from what it was
    shown = awaited(lambda: isinstance(found := pictures.get(series, 0, None), Picture) and found)
    assert counts_of(shown) == 10


class Torn(FrameSeries):
    """Read while another program writes the file."""

    fault: Exception = KeyError("data")

    def read(self, start: int, stop: int) -> FrameChunk:
        raise self.fault


@pytest.mark.parametrize("fault", [IndexError, KeyError, RuntimeError, ValueError, OSError])
def test_what_a_torn_file_may_raise_is_a_text(tmp_path, pictures, monkeypatch, fault):
    monkeypatch.setattr(Torn, "fault", fault("cannot\nopen"))
    torn = series_of(recorded(tmp_path, 10), kind=Torn)
    assert awaited(lambda: pictures.get(torn, 0, None)).startswith("frame 0 cannot be read: ")
    assert awaited(lambda: pictures.get(torn, 7, None)).startswith("frame 7 cannot be read: ")


def test_an_error_of_our_own_is_raised_once(tmp_path, pictures, monkeypatch):
    monkeypatch.setattr(Torn, "fault", ZeroDivisionError())
    torn, good = series_of(recorded(tmp_path, 10), kind=Torn), series_of(recorded(tmp_path, 20))
    with pytest.raises(ZeroDivisionError):
        awaited(lambda: pictures.get(torn, 0, None))
    assert counts_of(awaited(lambda: pictures.get(good, 0, None))) == 20


TURNS = {
    "none": lambda stored: stored,
    "flip_up_down": lambda stored: stored[::-1],
    "flip_left_right": lambda stored: stored[:, ::-1],
    "rotate_180": lambda stored: stored[::-1, ::-1],
    "rotate_left": lambda stored: stored.T[::-1],
    "rotate_right": lambda stored: stored[::-1].T,
    "transpose": lambda stored: stored.T,
    "transpose_anti": lambda stored: stored[::-1, ::-1].T,
}
"""From the stored image to the one that is meant, by slices and the transpose alone."""


@pytest.mark.parametrize("orientation", TURNS)
def test_a_frame_is_shown_as_the_geometry_means_it(scan, tmp_path, pictures, orientation):
    """With what is not used grey, a cross where the beam is, and axes of the turned frame; the files are as stored."""
    stored = np.random.default_rng(2).integers(5, 90, (30, 44)).astype(np.int32)
    stored[3:5, 30:37] = -1  # dummies
    mask = np.zeros(stored.shape, dtype=bool)
    mask[20:26, 2:5] = True
    fabio.edfimage.EdfImage(stored).write(tmp_path / "f.edf")
    turn = TURNS[orientation]
    meant = turn(stored)
    geometry = AzimuthalIntegrator(
        *(1.0, 7.25e-4, 11.5e-4, 0.0, 0.0, 0.0),
        detector=Detector(1e-4, 1e-4, max_shape=meant.shape),
        wavelength=1e-10,
    ).get_config()
    spec = replace(scan.plan.spec, geometry=geometry, mask=mask, orientation=orientation, dummy=-1.0, dummy_delta=0.0)
    latest = Latest(replace(scan.after(1, 2), series=series_of(tmp_path / "f.edf"), spec=spec))
    page = Page(Document(), latest, pictures, SharedTable(), "series.csv")

    def drawn() -> bool:
        page.pull()
        return page.picture.plot.title.text.startswith("frame 0, counts; grey: not used")

    awaited(drawn)
    image, cross = (renderer.data_source.data for renderer in page.picture.plot.renderers)
    (levels,) = image["image"]
    unused = turn(mask) | (meant < 0)
    np.testing.assert_array_equal(levels == 0, unused)
    order = np.argsort(meant[~unused], kind="stable")
    assert (np.diff(levels[~unused][order].astype(int)) >= 0).all() and levels[~unused].max() == 255
    ny, nx = meant.shape
    assert (image["dw"], image["dh"]) == ([nx], [ny])
    assert [axis.bounds for axis in page.picture.plot.axis] == [(0, nx), (0, ny)]
    assert (cross["x"], cross["y"]) == ([pytest.approx(11.5)], [pytest.approx(7.25)])


def test_a_beam_beside_the_frame_has_no_cross(scan):
    plot = PicturePlot()
    shown = as_meant(np.ones(scan.plan.spec.mask.shape, np.uint16), scan.plan.spec)
    for centre, number in ((shown.centre, 1), ((-0.1, 20.0), 0), ((20.0, 481.0), 0), (None, 0)):
        plot.show(3, shown._replace(centre=centre))
        assert len(plot.plot.renderers[1].data_source.data["x"]) == number


@pytest.mark.parametrize("exif", [1, 2, 3, 4])
def test_the_cross_of_a_tilted_detector_is_where_2_theta_is_zero(scan, exif):
    """And not at the point of normal incidence, which a PONI file has; its detector may count rows backwards."""
    tilted = AzimuthalIntegrator(
        *(0.5, 0.02, 0.025, 0.03, 0.02, 0.2),
        detector=Detector(1e-4, 1e-4, max_shape=(600, 700), orientation=exif),
        wavelength=1e-10,
    )
    angle = tilted.array_from_unit((600, 700), unit="2th_rad")
    row, column = np.unravel_index(angle.argmin(), angle.shape)
    spec = replace(scan.plan.spec, geometry=tilted.get_config(), mask=np.zeros((600, 700), dtype=bool))
    x, y = spec.beam_centre_px
    assert (int(y), int(x)) == (row, column)
    assert np.hypot(tilted.poni1 / 1e-4 - y, tilted.poni2 / 1e-4 - x) > 100


def test_a_frame_on_hold_keeps_its_place_among_late_ones(scan, tmp_path, pictures):
    files = [recorded(tmp_path, 10 + k) for k in range(33)]
    early = replace(scan.after(20, 2), series=series_of(*files[13:]), spec=None)
    latest = Latest(early)
    page = Page(Document(), latest, pictures, SharedTable(), "series.csv")

    def shown(frame: int, counts: int) -> bool:
        page.pull()
        mapper = page.picture.plot.right[0].color_mapper
        return page.picture.plot.title.text.startswith(f"frame {frame},") and mapper.low == counts

    awaited(lambda: shown(19, 42))
    page.slider.value = 4
    awaited(lambda: shown(4, 27))
    latest.publish(replace(scan.after(33, 3), series=series_of(*files), spec=None))
    awaited(lambda: shown(17, 27))
    assert "<dd>17</dd>" in page.frame.text
    assert "behind by 15 frames" in page.progress.text
    assert page.slider.value == 17
    curves = scan.results[33].curves
    drawn = np.asarray(page.curves.curve.renderers[1].data_source.data["intensity"], dtype=float)
    np.testing.assert_array_equal(drawn, np.where(curves.intensity[17] > 0, curves.intensity[17], np.nan))


def test_a_frame_on_hold_that_is_read_at_last_is_shown(scan, tmp_path, pictures):
    files = [recorded(tmp_path, 10 + k) for k in range(20)]
    whole = files[4].read_bytes()
    result = scan.results[20]
    bad = replace(result.curves, problems=tuple("unreadable: torn" if k == 4 else "" for k in range(20)))
    files[4].write_bytes(whole[:600])
    first = replace(scan.after(20, 2), result=replace(result, curves=bad), series=series_of(*files), spec=None)
    latest = Latest(first)
    page = Page(Document(), latest, pictures, SharedTable(), "series.csv")

    def titled(text: str) -> bool:
        page.pull()
        return text in page.picture.plot.title.text

    page.pull()
    page.slider.value = 4
    awaited(lambda: titled("frame 4: unreadable"))
    assert "not used" in page.frame.text
    files[4].write_bytes(whole)
    latest.publish(replace(scan.after(20, 3), series=series_of(*files), spec=None))
    awaited(lambda: titled("frame 4, counts"))
    assert "not used" not in page.frame.text
