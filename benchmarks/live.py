"""Lag of the live page: from "frame complete on disk" to "in the published snapshot", and what a burst costs.

    python benchmarks/live.py [FRAMES] [BURST] [--browser]

A program that stands for LImA appends FRAMES frames (default 575) of 480 × 480 px at 10 Hz, the range BURST (default
200:300) as fast as the disk takes them; `saxs-pipeline live` follows, as a process of its own; a third one asks the
page every 20 ms which frames it has. --browser also opens the page in headless Chromium. Afterwards series.csv is
compared with that of a batch run. Ends with one line of JSON; ratio = batch rate / rate at which the burst went.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import psutil

from saxs_pipeline.simulation import simulate

ROOT = Path(__file__).resolve().parents[1]
PORT = 5917
FREE_PORT = f"http://127.0.0.1:{PORT}/status.json"


def published() -> dict[str, object] | None:
    try:
        with urllib.request.urlopen(FREE_PORT, timeout=5) as answer:
            return json.load(answer)
    except OSError:
        return None


def memory(process: psutil.Process) -> float:
    """Resident memory in MB of a process and its children."""
    return sum(p.memory_info().rss for p in [process, *process.children(recursive=True)]) / 1e6


def follow(path: Path, writer: list[object]) -> tuple[list[tuple[float, int]], list[tuple[float, float]]]:
    """(clock, frames in the snapshot) and (clock, MB), until the scan has ended."""
    command = [sys.executable, "-m", "saxs_pipeline", "live", str(path), "--port", str(PORT)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while published() is None:
            time.sleep(0.1)
        with browser() if "--browser" in sys.argv else nullcontext():
            time.sleep(3)
            subprocess.Popen(list(map(str, writer)), cwd=ROOT)
            watched, seen, used = psutil.Process(process.pid), [], []
            while (state := published()) is not None and state["state"] not in ("finished", "failed"):
                seen.append((time.time(), int(state["processed"])))
                if not used or time.time() - used[-1][0] > 0.2:
                    used.append((time.time(), memory(watched)))
                time.sleep(0.02)
            assert state is not None and state["state"] == "finished", state
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    return seen, used


class browser:
    """A headless Chromium on the page."""

    def __enter__(self) -> None:
        from playwright.sync_api import sync_playwright

        self.playwright = sync_playwright().start()
        self.chromium = self.playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        self.chromium.new_page().goto(f"http://127.0.0.1:{PORT}/")

    def __exit__(self, *_: object) -> None:
        self.chromium.close()
        self.playwright.stop()


def main() -> None:
    options = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    frames = int(options[0]) if options else 575
    burst = options[1] if len(options) > 1 else "200:300"
    first, last = map(int, burst.split(":"))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source", Path(folder) / "live"
        simulate("id02-cdse", source, seed=1, frames=frames)
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("cdse_*"))
        log = Path(folder) / "written.txt"
        writer = [sys.executable, "-m", "tests.live.lima_writer", source / "raw", target / "raw", log, "--burst", burst]
        seen, used = follow(target / "run.yaml", writer)
        begin = time.time()
        batch = subprocess.run(
            [sys.executable, "-m", "saxs_pipeline", "run", str(source / "run.yaml")], check=True, capture_output=True
        )
        batch_s = time.time() - begin
        same = (source / "results/series.csv").read_bytes() == (target / "results/series.csv").read_bytes()
        status = json.loads((source / "results/status.json").read_text())
        written = np.array([float(line) for line in log.read_text().split()])
    clock, count = np.array(seen).T
    lag = np.array([clock[np.argmax(count > k)] if count[-1] > k else np.nan for k in range(frames)]) - written
    steady = np.r_[lag[:first], lag[last:]]
    caught = clock[np.argmax(count >= last)] - written[first]
    before = statistics.median(mb for at, mb in used if written[max(first - 20, 0)] < at < written[first])
    during = max(mb for at, mb in used if written[first] < at < written[first] + caught + 1)
    figures = {
        "frames": frames,
        "burst": last - first,
        "lag_median_s": round(float(np.median(lag)), 3),
        "lag_95_s": round(float(np.percentile(lag, 95)), 3),
        "steady_median_s": round(float(np.median(steady)), 3),
        "steady_95_s": round(float(np.percentile(steady, 95)), 3),
        "burst_frames_per_s": round((last - first) / caught, 1),
        "batch_frames_per_s": round(status["rate"], 1),
        "batch_whole_s": round(batch_s, 1),
        "memory_before_burst_MB": round(before),
        "memory_in_burst_MB": round(during),
        "same_series": same,
    }
    for name, value in figures.items():
        print(f"{name:24} {value}")
    print(json.dumps(figures | {"ratio": round(figures["batch_frames_per_s"] / figures["burst_frames_per_s"], 2)}))
    assert same and re.search("report.html", batch.stdout.decode())


if __name__ == "__main__":
    main()
