"""A results folder holds one run's files: the earlier or the new ones, whatever happens in between."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from saxs_pipeline.outputs.folder import is_alive, recover, staged
from saxs_pipeline.types import BadInput
from tests.killing import script

USERS = {"notes.txt", "figures/mine.png", "curves/mine.dat"}
OLD = {
    "run.nxs",
    "series.csv",
    "comparison.csv",
    "curves/frame_00001.dat",
    "figures/kinetics.png",
    "figures/radius.png",
}
NEW = {"run.nxs", "series.csv", "report.html", "curves/frame_00002.dat", "figures/radius.png"}
HOST = socket.gethostname()
DEAD = 2**22 + 1
"""More than the largest process number of Linux."""


def fill(folder: Path, names: set[str], text: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def earlier(folder: Path) -> None:
    """The user's files and the results of a first run."""
    fill(folder, USERS, "user")
    with staged(folder) as staging:
        fill(staging, OLD, "old")


def later(folder: Path) -> None:
    """The results of a second run."""
    with staged(folder) as staging:
        fill(staging, NEW, "new")


def content(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text(encoding="utf-8") for p in folder.rglob("*") if p.is_file()}


USER_FILES = dict.fromkeys(USERS, "user")
BEFORE = dict.fromkeys(OLD, "old") | USER_FILES
AFTER = dict.fromkeys(NEW, "new") | USER_FILES


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def visible(folder: Path) -> dict[str, str]:
    return {name: text for name, text in content(folder).items() if not name.startswith(".")}


def test_a_run_replaces_an_earlier_one_and_leaves_the_users_files(tmp_path):
    earlier(tmp_path)
    assert content(tmp_path) == BEFORE
    later(tmp_path)
    assert content(tmp_path) == AFTER
    assert hidden(tmp_path) == []


def test_what_fails_changes_nothing(tmp_path):
    earlier(tmp_path)
    with pytest.raises(RuntimeError), staged(tmp_path) as staging:
        fill(staging, NEW, "new")
        raise RuntimeError
    assert content(tmp_path) == BEFORE
    with pytest.raises(RuntimeError), staged(tmp_path / "other"):
        raise RuntimeError
    assert not (tmp_path / "other").exists()
    with staged(tmp_path / "other"):
        pass
    assert not (tmp_path / "other").exists()


EACH_STEP = """
import json, sys
from pathlib import Path
from tests.killing import killed_at
from tests.outputs.test_folder import earlier, later
step, killed = 0, True
while killed:
    folder = Path(sys.argv[1]) / str(step)
    earlier(folder)
    killed = killed_at(lambda: later(folder), step)
    step += 1
print(json.dumps(step))
"""


def test_killed_before_any_change_of_the_disk_one_runs_results_are_there(tmp_path):
    steps = script(EACH_STEP, tmp_path)
    assert steps > 40
    found, half_published = [], 0
    for step in range(steps):
        folder = tmp_path / str(step)
        left = visible(folder)
        recover(folder)
        half_published += left != visible(folder)
        found.append(visible(folder))
        recover(folder)
        assert visible(folder) == found[-1]
        with staged(folder):
            pass
        assert hidden(folder) == []
        assert content(folder) == found[-1]
    new = found.index(AFTER)
    assert found == [BEFORE] * new + [AFTER] * (steps - new)
    assert new > 10
    assert half_published > 10


KILLED_RECOVERY = """
import json, sys
from pathlib import Path
from saxs_pipeline.outputs.folder import recover
from tests.killing import killed_at
from tests.outputs.test_folder import earlier, later
tries = 0
for step in range(1000):
    folder = Path(sys.argv[1]) / f"first-{step}"
    earlier(folder)
    if not killed_at(lambda: later(folder), step):
        break
    if list(folder.glob(".complete-*")) and step % 10 == 0:
        at, killed = 0, True
        while killed:
            folder = Path(sys.argv[1]) / f"{step}-{at}"
            earlier(folder)
            killed_at(lambda: later(folder), step)
            killed = killed_at(lambda: recover(folder), at)
            at, tries = at + 1, tries + 1
print(json.dumps(tries))
"""


def test_a_recovery_that_is_killed_itself_can_be_repeated(tmp_path):
    assert script(KILLED_RECOVERY, tmp_path) > 20
    recovered = [folder for folder in tmp_path.iterdir() if not folder.name.startswith("first")]
    assert len(recovered) > 20
    for folder in recovered:
        recover(folder)
        assert visible(folder) == AFTER, folder.name


RANDOM_MOMENTS = """
import json, random, sys, time
from pathlib import Path
from tests.killing import killed_after
from tests.outputs.test_folder import earlier, later
start = time.perf_counter()
earlier(Path(sys.argv[1]) / "timed")
later(Path(sys.argv[1]) / "timed")
lasts_s = time.perf_counter() - start
random.seed(20)
for k in range(20):
    folder = Path(sys.argv[1]) / str(k)
    earlier(folder)
    killed_after(lambda: later(folder), random.uniform(0, lasts_s))
print(json.dumps(20))
"""


def test_killed_at_random_moments_one_runs_results_are_there(tmp_path):
    for k in range(script(RANDOM_MOMENTS, tmp_path)):
        folder = tmp_path / str(k)
        recover(folder)
        assert visible(folder) in (BEFORE, AFTER)
        later(folder)
        assert content(folder) == AFTER


def complete(folder: Path, pid: int, names: set[str], text: str) -> Path:
    """A complete staging folder of this process of this machine."""
    staging = folder / f".complete-{HOST}-{pid}"
    fill(staging, names, text)
    (staging / ".files.json").write_text(json.dumps(sorted(names)), encoding="ascii")
    return staging


def test_what_a_living_process_publishes_is_left_to_it(tmp_path):
    earlier(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        complete(tmp_path, other.pid, NEW, "new")
        (tmp_path / f".writing-{HOST}-{other.pid}").mkdir()
        recover(tmp_path)
        with staged(tmp_path):
            pass
        assert visible(tmp_path) == BEFORE
        assert sorted(hidden(tmp_path)) == [f".complete-{HOST}-{other.pid}", f".writing-{HOST}-{other.pid}"]
        other.communicate(b"\n")
    recover(tmp_path)
    assert visible(tmp_path) == AFTER
    with staged(tmp_path):
        pass
    assert hidden(tmp_path) == []


def test_an_earlier_process_of_the_same_number_is_dead(tmp_path):
    """In a container every run may be process 1."""
    earlier(tmp_path)
    complete(tmp_path, os.getpid(), NEW, "new")
    (tmp_path / f".writing-{HOST}-{os.getpid()}").mkdir()
    recover(tmp_path)
    assert visible(tmp_path) == AFTER
    with staged(tmp_path) as staging:
        assert list(staging.iterdir()) == []


@pytest.mark.parametrize("owner", ["id02-node7-{dead}", "id02-node7-{ours}", "{dead}", "somebody"])
def test_what_another_machine_writes_is_left_to_it_for_a_day(tmp_path, owner):
    """Which of its processes live cannot be asked from here."""
    owner = owner.format(dead=DEAD, ours=os.getpid())
    earlier(tmp_path)
    writing, finished = tmp_path / f".writing-{owner}", tmp_path / f".complete-{owner}"
    fill(writing, {"run.nxs"}, "half")
    fill(finished, NEW, "new")
    (finished / ".files.json").write_text(json.dumps(sorted(NEW)), encoding="ascii")
    for age_s in (0, 23 * 3600):
        for folder in (writing, finished):
            os.utime(folder, times=(time.time() - age_s,) * 2)
        recover(tmp_path)
        with staged(tmp_path):
            pass
        assert visible(tmp_path) == BEFORE
        assert sorted(hidden(tmp_path)) == [finished.name, writing.name]
    for folder in (writing, finished):
        os.utime(folder, times=(time.time() - 25 * 3600,) * 2)
    recover(tmp_path)
    assert visible(tmp_path) == AFTER
    with staged(tmp_path):
        pass
    assert hidden(tmp_path) == []


def test_what_this_process_writes_is_left_to_it(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    monkeypatch.chdir(tmp_path)
    with staged(tmp_path / "results") as staging:
        fill(staging, NEW, "new")
        recover(tmp_path / "results")
        with pytest.raises(BadInput, match="cannot write to results"), staged(Path("results")):
            pass
    assert content(tmp_path / "results") == dict.fromkeys(NEW, "new")


def test_older_results_never_come_over_newer_ones(tmp_path):
    earlier(tmp_path)
    complete(tmp_path, 1, OLD, "older")
    later(tmp_path)
    recover(tmp_path)
    assert content(tmp_path) == AFTER
    first, second = (complete(tmp_path, DEAD + k, {"series.csv"}, f"{k}") for k in range(2))
    os.utime(first / ".files.json", (2e9, 2e9))
    os.utime(second / ".files.json", (1e9, 1e9))
    recover(tmp_path)
    assert (tmp_path / "series.csv").read_text(encoding="utf-8") == "0"


@pytest.mark.parametrize("damaged", [b"", b"\xff", b"3", b'{"a": 1}', b"[1]", None])
def test_without_a_readable_list_nothing_is_removed(tmp_path, damaged):
    earlier(tmp_path)
    file = complete(tmp_path, DEAD, NEW, "new") / ".files.json"
    if damaged is None:
        file.unlink()
    else:
        file.write_bytes(damaged)
    recover(tmp_path)
    assert visible(tmp_path) == BEFORE | AFTER
    assert hidden(tmp_path) == []


def test_a_list_from_elsewhere_removes_nothing_but_results(tmp_path):
    outside = tmp_path / "outside.txt"
    outside.touch()
    folder = tmp_path / "results"
    earlier(folder)
    file = complete(folder, DEAD, {"run.nxs"}, "new") / ".files.json"
    file.write_text(json.dumps(["run.nxs", "../outside.txt", "notes.txt", str(outside)]), encoding="utf-8")
    recover(folder)
    assert outside.exists()
    assert visible(folder) == USER_FILES | {"run.nxs": "new", "series.csv": "old"}


def test_a_folder_in_the_place_of_a_file_is_said_before_anything_moves(tmp_path):
    fill(tmp_path, {"notes.txt", "report.html/mine.txt"}, "user")
    with pytest.raises(BadInput, match=r"report\.html cannot be written: something else is in its place; mend that"):
        later(tmp_path)
    assert content(tmp_path) == dict.fromkeys(("notes.txt", "report.html/mine.txt"), "user")
    (tmp_path / "report.html" / "mine.txt").unlink()
    (tmp_path / "report.html").rmdir()
    (tmp_path / "figures").touch()
    with pytest.raises(BadInput, match=r"figures/radius\.png cannot be written: something else is in its place"):
        later(tmp_path)
    assert set(content(tmp_path)) == {"notes.txt", "figures"}
    with pytest.raises(BadInput, match=r"cannot write to .*: Not a directory; choose another folder"):
        later(tmp_path / "figures")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 200 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"a small disk cannot be mounted: {made.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_on_a_full_disk_the_earlier_results_stay(small_disk):
    earlier(small_disk)
    (small_disk / "ballast").write_bytes(bytes(100_000))
    with pytest.raises(BadInput) as failure, staged(small_disk) as staging:
        fill(staging, NEW, "new")
        (staging / "run.nxs").write_bytes(bytes(150_000))
    assert str(failure.value) == f"{small_disk} cannot be written: no space left on the disk; make room and run again"
    (small_disk / "ballast").unlink()
    assert content(small_disk) == BEFORE
    later(small_disk)
    assert content(small_disk) == AFTER


def test_on_a_read_only_disk_one_line_says_so(small_disk):
    earlier(small_disk)
    waiting = complete(small_disk, DEAD, NEW, "new")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for attempt in (recover, later):
        with pytest.raises(BadInput, match=r"cannot be written: Read-only file system; .* mend that and try again"):
            attempt(small_disk)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    recover(small_disk)
    assert not waiting.exists()
    assert content(small_disk) == AFTER
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    recover(small_disk)
    with pytest.raises(BadInput, match=r"cannot write to .*Read-only file system; choose another folder"):
        later(small_disk)


def test_who_is_alive():
    assert is_alive(os.getpid())
    assert is_alive(1)
    assert not is_alive(DEAD)
    assert not is_alive(10**30)
