"""A small simulated beamtime, made once, and ways to run it as a user would."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = Path(os.environ.get("SAXS_REAL_DATA", ROOT.parent / "shared" / "data"))
FRAMES = 40

# A shell that puts the tests into the background makes them, and all they start, deaf to Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


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


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`saxs-pipeline ARGUMENTS`, as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "saxs_pipeline", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Columns of a CSV; `flag` as text, all others as numbers."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        name: np.array([row[name] for row in rows])
        if name == "flag"
        else np.array([float(row[name] or "nan") for row in rows])
        for name in rows[0]
    }
