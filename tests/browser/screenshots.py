"""Pictures of a running live page for the docs: python -m tests.browser.screenshots FOLDER URL."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tests.browser.conftest import Reader, system_chromium

SIZES = {"live-400.png": (400, 860), "live-1920.png": (1920, 1080)}
MOST_BYTES = 400_000


def take(folder: Path, url: str) -> list[Path]:
    """Pictures of the page as it is now: 400 px wide in full length, 1920 × 1080 px."""
    folder.mkdir(parents=True, exist_ok=True)
    taken = []
    with sync_playwright() as driver:
        path = system_chromium()
        assert path is not None, "no Chromium on this machine"
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        for name, (width, height) in SIZES.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            Reader(page).open(url)
            page.wait_for_timeout(3000)  # the image and the map come a moment later
            taken.append(_save(page, folder / name, full=width < 700))
            page.close()
        browser.close()
    return taken


def _save(page: Page, path: Path, *, full: bool) -> Path:
    """In 256 colours, which is a third of the size."""
    picture = Image.open(io.BytesIO(page.screenshot(full_page=full))).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < MOST_BYTES, path
    return path


if __name__ == "__main__":
    for written in take(Path(sys.argv[1]), sys.argv[2]):
        print(written)
