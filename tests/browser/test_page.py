"""The live page in a headless Chromium: what it shows, that it asks nobody else, what its controls do."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np
import pytest

from saxs_pipeline.apps.dashboard import serve
from saxs_pipeline.apps.snapshot import Latest, ModelCurves
from saxs_pipeline.outputs.tables import write_series
from saxs_pipeline.reaction import BuildUp, SeriesAnalysis
from saxs_pipeline.types import Estimate, Uncertain
from tests.browser.conftest import TITLE, WAITING, model

pytestmark = pytest.mark.browser

FULL = 2
"""Renderer of a panel's full points: after the bars and the hollow ones."""
ROOTS = ("radius", "spread", "concentration", "yield", "curve", "residuals", "picture", "map")


def shows(frames: int) -> str:
    return f"{model('radius')}.renderers[{FULL}].data_source.get_length() == {frames}"


def test_curves_grow_offline_and_without_complaint(scan, latest, reader):
    with serve(latest, port=0) as url:
        page = reader().open(url)
        assert "waiting" in page.text("state") and WAITING.message in page.text("state")
        assert TITLE in page.text("state") and page.ask("document.title") == TITLE
        for version, frames in enumerate((20, 33, 40), start=2):
            latest.publish(scan.after(frames, version))
            page.until(shows(frames))
            drawn = page.column("radius", FULL, "radius")
            radius = scan.results[frames].quantities.radius_nm.value
            shown = np.array([np.nan if x is None else x for x in drawn])
            reported = np.isfinite(shown)
            assert reported.any() == np.isfinite(radius).any()
            np.testing.assert_allclose(shown[reported], radius[reported], rtol=1e-6)
            assert f"{frames + 1} of 40 frames" in page.text("progress")
        page.until(f"{model('picture')}.title.text.startsWith('frame 39')")
        page.until(f"{model('map')}.renderers[0].data_source.get_length() == 1")
        page.page.wait_for_timeout(300)
    host = urlsplit(url).netloc
    assert {urlsplit(asked).netloc for asked in page.asked} == {host}
    assert any(asked.startswith("ws:") for asked in page.asked)
    assert page.complaints == []


def test_what_is_drawn_is_what_was_measured(scan, latest, reader):
    result, time = scan.results[40], np.array([0.1, 1.0, 10.0])
    kinetics = ModelCurves(time, 1.0 * time, 2.0 * time, 3.0 * time, 0.01 * time)
    law = BuildUp("c_0 (1 − exp(−kt))", ("c", "k"), np.ones(2), np.eye(2), Uncertain(59.78, 0.21), 1.0)
    nothing = Estimate(*(np.zeros(0) for _ in range(3)))
    analysis = SeriesAnalysis(law, None, None, (), np.zeros(0), nothing, None)
    latest.publish(scan.after(40, 2, model=kinetics, analysis=analysis))
    bar = f"{model('picture')}.right[0].color_mapper"
    with serve(latest, port=0) as url:
        page = reader().open(url)
        page.until(f"{model('picture')}.title.text.startsWith('frame 39')")
        points = {name: page.column("curve", 1, name) for name in ("q", "intensity", "fit", "residual")}
        lines = {name: page.column(name, FULL + 1, name) for name in ("radius", "spread", "concentration", "yield")}
        levels = page.ask(f"Array.from({model('picture')}.renderers[0].data_source.data.image[0])")
        low, high = page.ask(f"[{bar}.low, {bar}.high]")
        assert "59.78 ± 0.21 s" in page.text("progress") and "not yet" in page.text("progress")
    assert page.complaints == []
    curves = result.curves
    positive = np.where(curves.intensity[39] > 0, curves.intensity[39], np.nan)
    np.testing.assert_array_equal(np.array(points["intensity"], dtype=float), positive)
    expected = (curves.intensity[39] - result.model[39]) / curves.sigma[39]
    np.testing.assert_allclose(np.array(points["residual"], dtype=float), expected)
    assert (lines["radius"], lines["spread"]) == ([0.1, 1.0, 10.0], [0.2, 2.0, 20.0])
    np.testing.assert_allclose([lines["concentration"], lines["yield"]], [3 * time, time])  # the yield in %
    mask, image = scan.plan.spec.mask, scan.plan.series.read(39, 40).images[0].astype(float)
    shown = np.array(levels).reshape(image.shape)
    np.testing.assert_array_equal(shown == 0, mask)
    level = 1 + 254 * np.log(np.clip(image, low, high) / low) / np.log(high / low)
    assert np.abs(shown - level)[~mask].max() <= 0.5 + 1e-9


def test_pause_scrub_and_follow(scan, latest, reader):
    latest.publish(scan.after(20, 2))
    with serve(latest, port=0) as url:
        page = reader().open(url)
        page.until(shows(20))
        assert "paused" not in page.text("progress")
        page.page.get_by_role("button", name="Pause").click()
        page.until(f"{model('progress')}.text.includes('behind by 0 frames')")
        latest.publish(scan.after(40, 3))
        page.until(shows(40))
        page.until(f"{model('progress')}.text.includes('behind by 20 frames')")
        assert page.text("frame").startswith("frame 19 ")
        page.until(f"{model('slider')}.end == 39", seconds=5)
        page.page.locator(".noUi-handle").press("ArrowLeft")
        page.page.get_by_role("button", name="‹").click()
        page.until(f"{model('frame')}.text.includes('<dd>17</dd>')")
        page.until(f"{model('progress')}.text.includes('behind by 22 frames')")
        np.testing.assert_allclose(page.ask(f"{model('slider')}.value"), 17)
        intensity = scan.results[40].curves.intensity[17]
        page.until(f"{model('picture')}.title.text.startsWith('frame 17')")
        drawn = np.array(page.column("curve", 1, "intensity"), dtype=float)
        np.testing.assert_array_equal(drawn, np.where(intensity > 0, intensity, np.nan))
        page.page.get_by_role("button", name="Follow newest").click()
        page.until(f"{model('frame')}.text.includes('<dd>39</dd>')")
        page.until(f"!{model('progress')}.text.includes('paused')")
        page.page.get_by_role("button", name="›").click()
        page.until(f"{model('progress')}.text.includes('behind by 0 frames')")
    assert page.complaints == []


def test_time_axis_switches_and_zooms(scan, latest, reader):
    latest.publish(scan.after(40, 2))
    scaled = f"[{model('radius')}, {model('yield')}, {model('map')}].map((plot) => plot.x_scale.type)"
    ends = f"[{model('radius')}.x_range.start, {model('radius')}.x_range.end]"
    times = scan.results[40].curves.time_s
    with serve(latest, port=0) as url:
        page = reader().open(url)
        for name, scale in (("linear time", "LinearScale"), ("log time", "LogScale"), ("linear time", "LinearScale")):
            page.page.get_by_role("button", name=name).click()
            page.until(f"{scaled}.every((scale) => scale == '{scale}')")
            page.page.wait_for_timeout(300)
            start, end = page.ask(ends)
            if scale == "LogScale":
                assert 0.1 * times[times > 0].min() < start < times[times > 0].min()
            else:
                assert -0.05 * times.max() < start < times.min()
            assert times.max() < end < 1.5 * times.max()
        page.ask(f"{model('radius')}.x_range.setv({{start: 5, end: 6}})")  # as the zoom tool does
        page.page.wait_for_timeout(300)
        latest.publish(scan.after(33, 3))
        page.until(shows(33))
        assert page.ask(ends) == [5, 6]
        page.ask(f"{model('radius')}.x_range.reset()")  # as the reset tool does
        page.page.wait_for_timeout(300)
        last = scan.results[33].curves.time_s.max()
        assert last < page.ask(ends)[1] < 1.1 * last
    assert page.complaints == []


def test_the_downloaded_table_is_the_runs(scan, latest, reader, tmp_path):
    latest.publish(scan.after(33, 2))
    write_series(scan.results[33], tmp_path / "series.csv")
    with serve(latest, port=0, token="a/b c&d") as url:
        page = reader().open(url)
        with page.page.expect_download() as download:
            page.page.get_by_role("link", name="series.csv").click()
        assert download.value.suggested_filename == "series.csv"
        assert download.value.path().read_bytes() == (tmp_path / "series.csv").read_bytes()


def test_fits_a_phone_and_a_wall(scan, latest, reader):
    latest.publish(scan.after(40, 2))
    with serve(latest, port=0) as url:
        page = reader(400, 800).open(url)
        page.until(shows(40))
        for width, height in ((400, 800), (800, 1100), (1920, 1080), (3840, 2160)):
            page.page.set_viewport_size({"width": width, "height": height})
            page.page.wait_for_timeout(600)
            assert page.ask("document.documentElement.scrollWidth") <= width
            places = {name: page.page.locator(f"section.{name}").bounding_box() for name in ROOTS}
            for box in places.values():
                assert box["x"] >= 0 and box["x"] + box["width"] <= width
                assert box["height"] > 100
            label = page.ask(f"parseFloat({model('yield')}.below[0].axis_label_text_font_size)")
            assert label == max(12, round(0.0076 * width))
            if width == 400:
                assert len({box["x"] for box in places.values()}) == 1  # one column
                buttons = [
                    page.page.locator(f".{name} .bk-btn").first for name in ("pause", "back", "forward", "scale")
                ]
                assert all(min(button.bounding_box()[side] for side in ("width", "height")) >= 44 for button in buttons)
            if width >= 1920:  # all of it at a glance, on the whole screen
                bottom = max(box["y"] + box["height"] for box in places.values())
                assert 0.97 * height < bottom <= height
    assert page.complaints == []


def test_without_a_frame_there_are_words_and_no_empty_axes(scan, latest, reader):
    with serve(latest, port=0) as url:
        page = reader().open(url)
        plots = [page.page.locator(f"section.{name} canvas").first for name in ROOTS]
        assert WAITING.message in page.text("state")
        assert not any(plot.is_visible() for plot in plots)
        latest.publish(scan.after(20, 2))
        page.until(shows(20))
        for plot in plots:
            plot.wait_for(state="visible")
    assert page.complaints == []


@pytest.mark.parametrize("height", [900, 1080])
def test_a_wall_shows_the_flag_and_says_what_the_errors_are(scan, latest, reader, height):
    latest.publish(scan.after(40, 2))
    with serve(latest, port=0) as url:
        page = reader(1920, height).open(url)
        page.until(shows(40))
        words = page.page.locator(".words").bounding_box()
        flag = page.page.locator(".frame dt", has_text="flag").bounding_box()
        assert words["y"] <= flag["y"] and flag["y"] + flag["height"] <= words["y"] + words["height"] <= height
        assert "± one standard error: statistical, of this frame (the bars), then systematic" in page.text("frame")


def test_says_what_went_wrong_and_keeps_what_there_is(scan, latest, reader):
    latest.publish(scan.after(33, 2))
    with serve(latest, port=0) as url:
        page = reader().open(url)
        warned = tuple(f"frame {n} skipped: <unreadable>" for n in range(25))
        latest.publish(replace(WAITING, version=3, state="failed", message="the disk is full", warnings=warned))
        page.until(f"{model('state')}.text.includes('failed')")
        assert "the disk is full" in page.text("state")
        assert page.page.locator(".badge.failed").is_visible()
        assert page.ask(shows(33))
        said = page.text("warnings")
        assert said.index("frame 24 skipped: <unreadable>") < said.index("frame 5 skipped")
        assert "frame 4 skipped" not in said and "and 5 earlier ones" in said
    assert page.complaints == []


def test_a_lost_connection_is_said(scan, latest, reader):
    latest.publish(scan.after(20, 2))
    with serve(latest, port=0) as url:
        page = reader().open(url)
        assert not page.page.get_by_role("alert").is_visible()
        port = urlsplit(url).port
    page.page.get_by_role("alert").wait_for(state="visible", timeout=5000)
    with serve(Latest(scan.after(40, 1)), port=port):
        page.until(f"!!window.Bokeh?.documents[0]?.is_idle && {shows(40)}")
