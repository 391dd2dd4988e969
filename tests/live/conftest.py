"""A scan followed in this process, and beamtimes whose frames are still to come."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from saxs_pipeline import engine, runfile
from saxs_pipeline.apps import batch, live
from saxs_pipeline.apps.snapshot import Latest, Snapshot
from saxs_pipeline.runfile import RunFile

DEADLINE_S = 30.0


class Following:
    """A followed scan: `until` looks again and again until a snapshot is as wanted."""

    def __init__(self, run: RunFile, session: live.Live, latest: Latest, said: list[str]) -> None:
        self.run, self.session, self.latest, self.said = run, session, latest, said

    def until(self, wanted: Callable[[Snapshot], bool], every_s: float = 0.05) -> Snapshot:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            self.session.step()
            snapshot = self.latest.pull()
            if wanted(snapshot):
                return snapshot
            assert time.monotonic() < deadline, _state(snapshot)
            time.sleep(every_s)


def _state(s: Snapshot) -> tuple[object, ...]:
    return s.n_complete, s.n_processed, s.n_flagged, s.state, s.message, s.warnings


@contextmanager
def following(path: Path) -> Iterator[Following]:
    live.preload()
    run, said = runfile.load(path, must_exist=False), []
    latest = Latest(Snapshot(0, "waiting", "", run.config.title))
    with batch.claimed(run, "live", said.append) as claim, engine.pool(run.config.engine) as pool:
        yield Following(run, live.Live(run, pool, latest, claim), latest, said)


def reference(path: Path) -> bytes:
    """series.csv of a batch run."""
    run = runfile.load(path)
    batch.write(batch.compute(run, quiet=True), run)
    return (run.config.output.folder / "series.csv").read_bytes()


def without_frames(beamtime: Path, folder: Path) -> Path:
    """The beamtime with its references, before the scan has begun; its run file."""
    shutil.copytree(beamtime, folder, ignore=shutil.ignore_patterns("cdse_*", "results*"))
    return folder / "run.yaml"


@pytest.fixture
def quick_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan counts as stalled after a second."""
    monkeypatch.setattr(live, "STALLED_S", 1.0)
    monkeypatch.setattr(live, "STALLED_GAPS", 0.0)
