"""A real run of the small beamtime, snapshot by snapshot, and a browser to look at them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from saxs_pipeline import pipeline, plan, provenance, runfile
from saxs_pipeline.apps.snapshot import Latest, Snapshot
from saxs_pipeline.types import RunResult

TITLE = "CdSe <hot> injection & growth"
WAITING = Snapshot(1, "waiting", "waits for scan_00001.h5, which does not exist yet", TITLE)


@dataclass(frozen=True)
class Scan:
    """The beamtime's plan and its results after some frames."""

    run: runfile.RunFile
    plan: plan.Plan
    results: dict[int, RunResult]

    def after(self, frames: int, version: int, **changes: Any) -> Snapshot:
        result = self.results[frames]
        said = f"reads scan_00001.h5, {frames} frames so far"
        snapshot = Snapshot(version, "running", said, TITLE, frames + 1, frames, 0, 40, 9.87, 0.123)
        about = {"series": self.plan.series, "spec": self.plan.spec, "warnings": result.warnings}
        return replace(snapshot, result=result, **(about | changes))


@pytest.fixture(scope="session")
def scan(beamtime: Path) -> Scan:
    run = runfile.load(beamtime / "run.yaml")
    prepared = plan.prepare(run)
    about = provenance.collect(run, prepared)
    results = {n: pipeline.finish(prepared, pipeline.process(prepared, 0, n), about) for n in (1, 20, 33, 40)}
    return Scan(run, prepared, results)


def system_chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = system_chromium()
    if path is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=path, headless=True, args=root)
        yield browser
        browser.close()


class Reader:
    """A browser's page, with what it asked for and what its console said."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("websocket", lambda socket: self.asked.append(socket.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._listen)

    def _listen(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)

    def open(self, url: str) -> Reader:
        self.page.goto(url)
        self.until("!!window.Bokeh?.documents[0]?.is_idle")
        return self

    def ask(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def until(self, expression: str, seconds: float = 60) -> None:
        """Wait for something to be true in the page (the page's own policy forbids to wait inside it)."""
        end = time.monotonic() + seconds
        while not self._holds(expression):
            assert time.monotonic() < end, f"not true after {seconds} s: {expression}"
            self.page.wait_for_timeout(20)

    def _holds(self, expression: str) -> bool:
        """False also while the page is being loaded again."""
        from playwright.sync_api import Error

        try:
            return bool(self.ask(expression))
        except Error as error:
            if "context was destroyed" in str(error):
                return False
            raise

    def column(self, root: str, renderer: int, name: str) -> list[float | None]:
        """A column of a plot's data, NaN as None."""
        values = f"{model(root)}.renderers[{renderer}].data_source.data['{name}']"
        return self.ask(f"Array.from({values}, (x) => Number.isFinite(x) ? x : null)")

    def text(self, name: str) -> str:
        """The words at a place, as rendered; lines joined."""
        return " ".join(self.page.locator(f".{name} .bk-clearfix").inner_text().split())


def model(name: str) -> str:
    """A root of the page by its name, in the page's language."""
    return f"Bokeh.documents[0].get_model_by_name('{name}')"


@pytest.fixture
def reader(chromium: Any) -> Iterator[Callable[..., Reader]]:
    """Opens pages of a window size."""
    contexts = []

    def make(width: int = 1280, height: int = 900) -> Reader:
        contexts.append(chromium.new_context(viewport={"width": width, "height": height}))
        return Reader(contexts[-1].new_page())

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def latest() -> Latest:
    return Latest(WAITING)
