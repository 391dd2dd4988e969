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
from saxs_pipeline.simulation import simulate
from tests.conftest import series_of

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
    return series_of(path).read_bytes()


def without_frames(beamtime: Path, folder: Path) -> Path:
    """The beamtime with its references, before the scan has begun; its run file."""
    shutil.copytree(beamtime, folder, ignore=shutil.ignore_patterns("cdse_*", "results*"))
    return folder / "run.yaml"


@pytest.fixture(scope="session")
def edf(tmp_path_factory) -> Path:
    """24 frames, one EDF file each; tests copy it."""
    return _simulated(tmp_path_factory, "edf")


@pytest.fixture(scope="session")
def p21(tmp_path_factory) -> Path:
    """24 frames of a .fio scan; tests copy it."""
    return _simulated(tmp_path_factory, "p21")


def _simulated(tmp_path_factory: pytest.TempPathFactory, layout: str) -> Path:
    return simulate("id02-cdse", tmp_path_factory.mktemp(layout) / layout, seed=5, frames=24, layout=layout).parent


def copied(beamtime: Path, folder: Path, *without: str) -> Path:
    """A copy, all files as new, but for those of some patterns; its folder."""
    return shutil.copytree(
        beamtime, folder, ignore=shutil.ignore_patterns("results*", *without), copy_function=shutil.copyfile
    )


@pytest.fixture
def quick_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan counts as stalled after a second."""
    monkeypatch.setattr(live, "STALLED_S", 1.0)
    monkeypatch.setattr(live, "STALLED_GAPS", 0.0)
