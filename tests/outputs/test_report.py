from __future__ import annotations

import base64
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from saxs_pipeline.outputs import plots, report
from tests.outputs.known_run import CONFIG_TEXT, HOSTILE_TITLE, make_result, only

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Collects tags, attributes, text per tag, and whether every tag is closed in order."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.text = [], [], {}
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.text[self.open[-1]] = self.text.get(self.open[-1], "") + data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def html(result, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    report.write(result, plots.write_figures(result, folder / "figures"), folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_nothing_is_loaded_from_elsewhere(html):
    page = Page(html)
    for tag, attrs in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base"}
        for name in ("src", "srcset", "href", "action", "background"):
            if name in attrs:
                assert attrs[name].startswith(("#", "data:image/")), (tag, name)
    assert "url(" not in html
    assert "@import" not in html


def test_hostile_title_and_run_file_are_text(html):
    page = Page(html)
    assert page.text["h1"] == HOSTILE_TITLE
    assert page.text["title"] == HOSTILE_TITLE
    assert page.text["pre"].rstrip("\n") == CONFIG_TEXT.rstrip("\n")
    assert "raw/<b>.h5" in page.text["code"]


def test_figures_are_embedded_with_caption_and_alternative_text(html):
    page = Page(html)
    images = page.all("img")
    assert len(images) == 6
    for image in images:
        assert len(image["alt"]) > 20
        mime, data = image["src"].split(";base64,")
        start = base64.b64decode(data)[:8]
        assert start.startswith(b"\x89PNG" if mime == "data:image/png" else b"<?xml")
    assert page.text["figcaption"].count("time zero") == 2


def test_summary_flags_warnings_and_series_are_there(html):
    page = Page(html)
    cells = page.text["td"]
    assert "35 sound and 5 excluded" in cells
    assert "the image is zero everywhere" in cells
    assert "times from the scalers" in page.text["p"]
    assert "I(q) = c N_A ⟨P⟩ + b (S2.1)" in page.text["li"]
    assert sum(attrs.get("class") == "excluded" for attrs in page.all("tr")) == 5
    assert "9f3c" * 16 in page.text["code"]


def test_a_long_run_stays_below_two_megabytes(tmp_path):
    result = make_result(575, 200)
    report.write(result, plots.write_figures(result, tmp_path), tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_many_warnings_are_folded(bare, tmp_path):
    report.write(replace(bare, warnings=tuple(f"w{i}" for i in range(30))), [], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "22 more warnings" in page.text["summary"]
    assert all(f"w{i}" in page.text["p"] for i in range(30))


def test_a_very_long_series_is_thinned_and_says_so(result, tmp_path):
    long = only(result, [i % 40 for i in range(1300)])
    report.write(long, [], tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "one frame in 3; all are in series.csv" in html
    assert html.count("<tr") < 600


@pytest.mark.parametrize("frames", [[35], [13, 16]], ids=["one frame", "all excluded"])
def test_few_frames_make_a_report_too(result, tmp_path, frames):
    few = only(result, frames)
    report.write(few, plots.write_figures(few, tmp_path), tmp_path / "report.html")
    Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_a_run_without_a_model_makes_a_report_too(bare, tmp_path):
    report.write(bare, [], tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "No frame could be drawn" in page.text["p"]
    assert "36 sound and 4 excluded" in page.text["td"]
