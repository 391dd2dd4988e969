"""A small simulated beamtime, made once, and ways to run it as a user would."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

# Before numpy is there: test processes as many as cores, each with as many threads of BLAS, wait for one another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# What dask records of its own processes takes a twentieth of a core each, all the time.
os.environ.setdefault("DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED", "False")
os.environ.setdefault("DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL", "5s")
os.environ.setdefault("DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL", "500ms")

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = Path(os.environ.get("SAXS_REAL_DATA", ROOT.parent / "shared" / "data"))
FRAMES = 40
LONGEST = (
    *("stages/test_compare", "system/test_reaction", "live/test_processes", "test_engine", "contract/test_cluster"),
    *("system/test_resume", "system/test_run", "live/test_follow", "test_readme", "browser/test_page", "test_house"),
    *("system/test_calibrate_geometry", "science/test_population", "science/test_rings", "science/test_buildup"),
    *("system/test_choices", "outputs/test_plots", "outputs/test_reaction", "system/test_references"),
)
"""Files that take longest: they come first, so that in the end no process waits for another one's last file."""

# A shell that puts the tests into the background makes them, and all they start, deaf to Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {ROOT / "tests" / f"{name}.py": k for k, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(scope="session")
def beamtime(tmp_path_factory) -> Path:
    """The ID02 layout, 40 frames; tests add run files of their own beside run.yaml and leave the rest alone."""
    from saxs_pipeline.simulation import simulate

    folder = tmp_path_factory.mktemp("beamtime") / "id02"
    simulate("id02-cdse", folder, seed=11, frames=FRAMES)
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real data in {REAL_DATA}; set SAXS_REAL_DATA")
    return REAL_DATA


def variant(folder: Path, name: str, *changes: tuple[str, str]) -> Path:
    """A copy of the beamtime's run file with texts replaced, as NAME.yaml in the same folder, output in NAME/."""
    text = (folder / "run.yaml").read_text(encoding="utf-8")
    for old, new in (("folder: results", f"folder: {name}"), *changes):
        assert old in text, old
        text = text.replace(old, new, 1)
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def without_model(run_file: Path) -> Path:
    """The run file, which now stops at the curves: no fits, and few of the figures that take most of the time."""
    text, changes = re.subn(r"^model: .*$", "model: null", run_file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert changes == 1
    run_file.write_text(text, encoding="utf-8")
    return run_file


def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`saxs-pipeline ARGUMENTS`, as a process of its own."""
    line = [sys.executable, "-m", "saxs_pipeline", *map(str, arguments)]
    return subprocess.run(line, env=os.environ | environment, capture_output=True, text=True, check=False)


def invoke(*arguments: object) -> subprocess.CompletedProcess[str]:
    """What `saxs-pipeline ARGUMENTS` says and does, without the seconds that a process of its own imports for."""
    from click.testing import CliRunner

    from saxs_pipeline.apps.cli import main

    line, unraisable = [str(argument) for argument in arguments], sys.unraisablehook
    try:
        done = CliRunner().invoke(main, line, catch_exceptions=False)
    finally:
        sys.unraisablehook = unraisable
    return subprocess.CompletedProcess(line, done.exit_code, done.stdout, done.stderr)


def series_of(run_file: Path) -> Path:
    """series.csv of a run as NAME.csv beside its NAME.yaml; figures and reports, which take longer, are not drawn."""
    from saxs_pipeline import runfile
    from saxs_pipeline.apps import batch
    from saxs_pipeline.outputs import tables

    table = run_file.with_suffix(".csv")
    tables.write_series(batch.compute(runfile.load(run_file), quiet=True), table)
    return table


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Columns of a CSV; flags as text, all others as numbers."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        name: np.array([row[name] for row in rows])
        if name.endswith("flag")
        else np.array([float(row[name] or "nan") for row in rows])
        for name in rows[0]
    }
