"""A run that is killed at any moment goes on where it was, and ends as if nothing had been."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from saxs_pipeline import checkpoint, runfile
from saxs_pipeline.apps import batch, status
from tests.conftest import FRAMES, command, invoke, variant

KILLS = int(os.environ.get("SAXS_KILLS", "6"))
CHUNKS = ("engine: {scheduler: threads}", "engine: {scheduler: threads, chunk: 3, workers: 2}")


def results(folder: Path) -> dict[str, bytes]:
    """Every file a user sees, but the one that tells about the process."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != status.NAME]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def undisturbed(beamtime) -> tuple[Path, dict[str, bytes], float]:
    """A run file, the files of a run that nothing disturbed, and how long it took."""
    path = variant(beamtime, "killed", CHUNKS)
    begin = time.monotonic()
    done = command("run", path)
    assert done.returncode == 0, done.stderr
    return path, results(beamtime / "killed"), time.monotonic() - begin


@pytest.mark.slow
@pytest.mark.parametrize("k", range(KILLS))
def test_killed_at_a_random_moment(beamtime, undisturbed, k):
    """Moments over the whole run: while it starts, processes, writes checkpoints, draws, and puts results in place."""
    path, expected, duration = undisturbed
    folder = beamtime / "killed"
    shutil.rmtree(folder)
    moment = duration * random.Random(f"kill {k}").uniform(k / KILLS, (k + 1) / KILLS)
    arguments = [sys.executable, "-m", "saxs_pipeline", "run", str(path)]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = checkpoint.count(folder)
    done = invoke("run", path)
    assert done.returncode == 0, done.stderr
    taken = re.findall(r"(\d+) frames finished earlier", done.stderr)
    assert taken == ([str(kept)] if kept else [])
    told = status.read(folder)
    assert told is not None
    assert (told.frames.from_checkpoints, told.frames.processed) == (kept, FRAMES)
    found = results(folder)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []


@pytest.mark.slow
def test_a_change_that_alters_results_starts_fresh_and_says_so(beamtime):
    """A style that changes no number does not."""
    path = variant(beamtime, "changed", CHUNKS)
    arguments = [sys.executable, "-m", "saxs_pipeline", "run", str(path)]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while checkpoint.count(beamtime / "changed") < 10 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = checkpoint.count(beamtime / "changed")
    assert kept >= 10
    text = path.read_text()
    thicker = text.replace("thickness: 4 mm", "thickness: 5 mm", 1)
    assert thicker != text
    path.write_text(thicker)
    keep = beamtime / "keep_checkpoints"
    shutil.copytree(beamtime / "changed", keep)
    said = taken_from(path)
    assert "finished frames of another configuration are not used (changed: intensity.thickness" in said
    assert "taken from checkpoints" not in said
    shutil.rmtree(beamtime / "changed")
    keep.rename(beamtime / "changed")
    path.write_text(text.replace("title: CdSe", "title: Another title of CdSe").replace("curves: [", "curves: [3, "))
    said = taken_from(path)
    assert f"{kept} frames finished earlier are taken from checkpoints" in said, said
    assert "another configuration" not in said


def taken_from(path: Path) -> str:
    """What a run that goes on from what is there says about it."""
    said: list[str] = []
    run = runfile.load(path)
    with batch.claimed(run, "run", said.append) as claim:
        batch.compute(run, quiet=True, store_of=claim.store)
    return "\n".join(said)


def test_two_runs_of_one_folder_do_not_mix(beamtime):
    path = variant(beamtime, "twice", CHUNKS)
    with checkpoint.exclusive(beamtime / "twice"):
        done = command("run", path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "another run" in done.stderr
    assert f"{path}:" in done.stderr
