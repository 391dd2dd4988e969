"""What is kept of finished frames: bit for bit, or not at all."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saxs_pipeline import checkpoint, durable
from saxs_pipeline.checkpoint import FrameStore, exclusive
from saxs_pipeline.types import BadInput
from tests.killing import ROOT, script
from tests.known_chunks import PLAN, assert_same_bits, chunk, key, keys

SETTINGS = {"model.radius": "2 nm", "intensity.thickness": "1.5 mm"}


def opened(results: Path, plan: str = PLAN, texts: dict[str, str] = SETTINGS, **options) -> FrameStore:
    return FrameStore(results / ".checkpoints", plan, texts, **options)


def parts(results: Path) -> list[Path]:
    return sorted((results / ".checkpoints").rglob("part-*.npz"))


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("model", [True, False], ids=["fits", "curves only"])
def test_what_was_added_comes_back_bit_for_bit(tmp_path, model):
    store = opened(tmp_path)
    store.add(keys(range(5)), chunk(range(5), model=model))
    assert_same_bits(store.assemble(keys(range(5))), chunk(range(5), model=model))
    again = opened(tmp_path)
    assert again.notes == ()
    assert len(again) == 5
    assert_same_bits(again.assemble(keys(range(5))), chunk(range(5), model=model))


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_cutting_and_order_of_adding_change_nothing(data):
    n = data.draw(st.integers(1, 12))
    cuts = sorted(data.draw(st.sets(st.integers(1, n - 1)))) if n > 1 else []
    pieces = [list(range(a, b)) for a, b in zip([0, *cuts], [*cuts, n], strict=True)]
    pieces = data.draw(st.permutations(pieces)) + data.draw(st.lists(st.sampled_from(pieces), max_size=2))
    pieces = [data.draw(st.permutations(piece)) for piece in pieces]
    wanted = data.draw(st.lists(st.integers(0, n - 1), min_size=1))
    with tempfile.TemporaryDirectory() as folder:
        store = opened(Path(folder), collect=data.draw(st.booleans()))
        for piece in pieces:
            store.add(keys(piece), chunk(piece))
        assert_same_bits(store.assemble(keys(wanted)), chunk(wanted))
        store.flush()
        assert_same_bits(store.assemble(keys(wanted)), chunk(wanted))
        assert_same_bits(opened(Path(folder)).assemble(keys(wanted)), chunk(wanted))


def test_what_is_assembled_is_nobody_elses_memory(tmp_path):
    store = opened(tmp_path)
    store.add(keys(range(4)), chunk(range(4)))
    store.assemble(keys(range(4))).curves.intensity[:] = 0
    assert_same_bits(store.assemble(keys(range(4))), chunk(range(4)))


def test_only_known_frames_can_be_had(tmp_path):
    store = opened(tmp_path)
    with pytest.raises(ValueError, match="no frames"):
        store.assemble([])
    store.add(keys([1]), chunk([1]))
    assert key(1) in store
    assert key(2) not in store
    with pytest.raises(KeyError):
        store.assemble(keys([1, 2]))
    with pytest.raises(ValueError, match="2 keys for 1"):
        store.add(keys([1, 2]), chunk([1]))
    store.add(keys([2]), chunk([2], model=False))
    with pytest.raises(ValueError, match="different plans"):
        store.assemble(keys([1, 2]))


def test_frames_that_may_become_readable_are_not_kept_on_disk(tmp_path):
    problems = {1: "unreadable: Stale file handle", 2: "not_recorded: the frame was never written", 3: "all_zero: yes"}
    store = opened(tmp_path)
    store.add(keys(range(5)), chunk(range(5), problems=problems))
    store.add(keys([6]), chunk([6], problems={6: "unreadable: no"}))
    assert_same_bits(store.assemble(keys(range(5))), chunk(range(5), problems=problems))
    assert len(parts(tmp_path)) == 1
    again = opened(tmp_path)
    assert [frame for frame in range(7) if key(frame) in again] == [0, 3, 4]
    assert_same_bits(again.assemble(keys([0, 3, 4])), chunk([0, 3, 4], problems=problems))
    again.add(keys([1]), chunk([1]))
    assert_same_bits(opened(tmp_path).assemble(keys([1, 4])), chunk([1, 4]))


def test_without_a_folder_frames_are_kept_in_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = FrameStore(None, PLAN, SETTINGS)
    store.add(keys([1, 0]), chunk([1, 0], problems={0: "unreadable: no"}))
    store.add(keys([0]), chunk([0]))  # read again, and better
    store.flush()
    assert_same_bits(store.assemble(keys([0, 1])), chunk([0, 1]))
    assert store.notes == ()
    assert everything(tmp_path) == set()


def test_single_frames_are_collected(tmp_path, monkeypatch):
    store = opened(tmp_path, collect=True)
    for frame in range(checkpoint.COLLECT_FRAMES - 1):
        store.add([key(frame)], chunk([frame]))
    assert parts(tmp_path) == []
    store.flush(waited_s=60)
    assert parts(tmp_path) == []
    store.add([key(31)], chunk([31]))
    assert len(parts(tmp_path)) == 1
    store.add([key(32)], chunk([32]))
    monkeypatch.setattr(checkpoint, "COLLECT_S", 0.05)
    time.sleep(0.06)
    store.add([key(33)], chunk([33]))
    assert len(parts(tmp_path)) == 2
    store.flush()
    assert len(parts(tmp_path)) == 2
    assert_same_bits(opened(tmp_path).assemble(keys(range(34))), chunk(range(34)))


def renamed(path: Path, content: bytes) -> None:
    """This content under the name it would have."""
    path.unlink()
    path.with_name(checkpoint._name(content)).write_bytes(content)


def npz(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def changed(path: Path, **changes) -> None:
    with np.load(path) as file:
        arrays = {**file, **changes}
    renamed(path, npz(**{name: array for name, array in arrays.items() if array is not None}))


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: os.truncate(path, 0),
    "flipped bit": flipped,
    "other name": lambda path: path.rename(path.with_name(f"part-{'0' * 32}.npz")),
    "cut, with its hash": lambda path: renamed(path, path.read_bytes()[:-9]),
    "no zip, with its hash": lambda path: renamed(path, b"part"),
    "foreign npz, with its hash": lambda path: renamed(path, npz(q=np.arange(3))),
    "pickled, with its hash": lambda path: renamed(path, npz(texts=np.array([{}], dtype=object))),
    "pickle inside, with its hash": lambda path: changed(path, q_nm=np.array([1, None], dtype=object)),
    "other plan, with its hash": lambda path: renamed(path, path.read_bytes().replace(PLAN.encode(), b"00" * 32)),
    "no array, with its hash": lambda path: changed(path, counts=None),
    "other shape, with its hash": lambda path: changed(path, counts=np.zeros((1, 2))),
    "other type, with its hash": lambda path: changed(path, n_points=np.zeros(2)),
    "no texts, with its hash": lambda path: changed(path, texts=np.zeros(3, dtype=np.uint8)),
    "texts of numbers, with its hash": lambda path: changed(path, texts=np.frombuffer(b"[1, 2]", dtype=np.uint8)),
}


@pytest.mark.filterwarnings("ignore:.*allow_pickle")
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_part_is_not_used_named_and_removed(tmp_path, damage):
    store = opened(tmp_path)
    store.add(keys([0, 1]), chunk([0, 1]))
    (first,) = parts(tmp_path)
    store.add(keys([2, 3]), chunk([2, 3]))
    (second,) = set(parts(tmp_path)) - {first}
    damage(second)
    (damaged,) = set(parts(tmp_path)) - {first}
    store = opened(tmp_path)
    assert store.notes == (f"1 damaged checkpoint is not used, its frames are processed anew ({damaged.name})",)
    assert [frame for frame in range(4) if key(frame) in store] == [0, 1]
    assert parts(tmp_path) == [first]
    store.add(keys([2, 3]), chunk([2, 3]))
    assert parts(tmp_path) == sorted([first, second])
    assert_same_bits(opened(tmp_path).assemble(keys(range(4))), chunk(range(4)))


def test_what_else_lies_in_the_folder_is_left_alone(tmp_path):
    opened(tmp_path).add(keys([0]), chunk([0]))
    (part,) = parts(tmp_path)
    part.with_name("part-of-a-letter.txt").touch()
    part.with_name("part-1.npz").mkdir()
    assert opened(tmp_path).notes == ()
    assert {path.name for path in part.parent.iterdir()} == {
        part.name, "part-of-a-letter.txt", "part-1.npz", "settings.json",
    }  # fmt: skip


def test_another_configuration_starts_fresh_and_says_why(tmp_path):
    other = "77" * 32
    assert opened(tmp_path).notes == ()
    opened(tmp_path).add(keys([0]), chunk([0]))
    thicker = SETTINGS | {"intensity.thickness": "2 mm", "background.factor": "0.9"}
    store = opened(tmp_path, other, thicker)
    assert store.notes == (
        "finished frames of another configuration are not used (changed: background.factor, intensity.thickness)",
    )
    assert key(0) not in store
    assert "version" in opened(tmp_path, other).notes[0]
    store.add(keys([1]), chunk([1]))
    assert opened(tmp_path, other, thicker).notes == ()
    assert opened(tmp_path).notes == ()
    assert key(0) in opened(tmp_path)
    for file in (tmp_path / ".checkpoints").rglob("settings.json"):
        file.write_bytes(b"[\xff")
    assert opened(tmp_path, "88" * 32).notes == ("finished frames of another configuration are not used",)


def test_a_complete_run_leaves_nothing(tmp_path):
    (tmp_path / "mine.txt").touch()
    with exclusive(tmp_path):
        opened(tmp_path).add(keys([0]), chunk([0]))
        store = opened(tmp_path, "77" * 32)
        store.add(keys([1]), chunk([1]))
        checkpoint.clear(tmp_path / ".checkpoints")
        assert everything(tmp_path) == {"mine.txt", ".checkpoints", ".checkpoints/lock"}
        assert_same_bits(store.assemble(keys([1])), chunk([1]))
        opened(tmp_path).add(keys([2]), chunk([2]))
        assert len(parts(tmp_path)) == 1
        checkpoint.clear(tmp_path / ".checkpoints")
    assert everything(tmp_path) == {"mine.txt"}


def test_frames_are_counted_without_being_read(tmp_path):
    assert checkpoint.count(tmp_path) == 0
    store = opened(tmp_path, "77" * 32)
    store.add(keys(range(7)), chunk(range(7)))
    os.utime(parts(tmp_path)[0], (0, 0))
    store = opened(tmp_path)
    store.add(keys([0, 1]), chunk([0, 1]))
    store.add(keys([1, 2]), chunk([1, 2]))
    assert checkpoint.count(tmp_path) == 3
    (tmp_path / ".checkpoints" / PLAN[:16] / "part-0.npz").write_bytes(b"PK")
    assert checkpoint.count(tmp_path) == 3


KILLED_WRITERS = """
import json, os, random, sys
from pathlib import Path
from tests.killing import killed_after
from tests.known_chunks import PLAN, chunk, keys
from saxs_pipeline.checkpoint import FrameStore

def write(results, acknowledged):
    store = FrameStore(results / ".checkpoints", PLAN, {})
    for k in range(10_000):
        frames = range(3 * k, 3 * k + 3)
        store.add(keys(frames), chunk(frames))
        os.write(acknowledged, b"x")

random.seed(4)
counts = []
for k in range(20):
    reading, writing = os.pipe()
    first = []  # every second one is killed at some time after its first frames are kept, however slow the machine is
    begun = (lambda: first.append(os.read(reading, 1))) if k % 2 else lambda: None
    assert killed_after(lambda: write(Path(sys.argv[1]) / str(k), writing), random.uniform(0.005, 0.08), begun)
    os.close(writing)
    counts.append(len(first) + len(os.read(reading, 20_000)))
    os.close(reading)
print(json.dumps(counts))
"""


def test_killed_writers_leave_every_frame_whose_add_had_returned(tmp_path):
    counts = script(KILLED_WRITERS, tmp_path)
    assert len(counts) == 20
    assert min(counts[1::2]) > 0
    for k, added in enumerate(counts):
        store = opened(tmp_path / str(k), texts={})
        assert store.notes == ()
        assert len(store) in (3 * added, 3 * added + 3)
        if len(store):
            assert_same_bits(store.assemble(keys(range(len(store)))), chunk(range(len(store))))
        left = everything(tmp_path / str(k)) if added else set()
        assert not [name for name in left if name.endswith(".tmp")]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 300 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", disk], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"a small disk cannot be mounted: {made.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk_is_said_and_nothing_is_lost(small_disk):
    ballast, results = small_disk / "ballast", small_disk / "results"
    ballast.write_bytes(bytes(100_000))
    store, frame = opened(results), 0
    with pytest.raises(BadInput) as failure:
        while frame < 1000:
            store.add(keys(range(frame, frame + 10)), chunk(range(frame, frame + 10)))
            frame += 10
    assert frame > 0
    assert re.fullmatch(
        rf"the checkpoints in {results}/.checkpoints cannot be written: no space left on the disk; make room and run "
        rf"again: the {frame} frames finished before are kept",
        str(failure.value),
    )
    assert not list(results.rglob("*.tmp"))
    kept = opened(results)
    assert kept.notes == ()
    assert_same_bits(kept.assemble(keys(range(frame))), chunk(range(frame)))
    assert_same_bits(store.assemble(keys(range(frame + 10))), chunk(range(frame + 10)))
    ballast.unlink()
    store.add(keys([9000]), chunk([9000]))
    everyone = [*range(frame + 10), 9000]
    assert_same_bits(opened(results).assemble(keys(everyone)), chunk(everyone))


def test_a_disk_without_room_for_one_file_fails_clearly(small_disk):
    with (small_disk / "ballast").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(4096))
    with exclusive(small_disk / "results"), pytest.raises(BadInput, match=r"no space left .* the 0 frames"):
        opened(small_disk / "results").add(keys([0]), chunk([0]))


def test_a_read_only_disk_fails_clearly(small_disk):
    results = small_disk / "results"
    opened(results).add(keys([0]), chunk([0]))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    store = opened(results)
    assert key(0) in store
    with pytest.raises(BadInput, match=r"Read-only file system; mend that and run again: the 1 frames finished before"):
        store.add(keys([1]), chunk([1]))
    with (
        pytest.raises(BadInput, match=r"cannot write to .*Read-only file system; choose another folder"),
        exclusive(results),
    ):
        pass


def test_a_file_in_the_place_of_the_folder_fails_clearly(tmp_path):
    (tmp_path / ".checkpoints").touch()
    with pytest.raises(BadInput, match=r"\.checkpoints cannot be read: Not a directory"):
        opened(tmp_path)
    with pytest.raises(BadInput, match="cannot write to"), exclusive(tmp_path):
        pass


def test_a_folder_that_is_away_for_a_moment_heals(tmp_path):
    results, away = tmp_path / "results", tmp_path / "away"
    store = opened(results)
    store.add(keys([0]), chunk([0]))
    results.rename(away)
    back = threading.Timer(0.25, away.rename, [results])
    back.start()
    store.add(keys([1]), chunk([1]))
    back.join()
    assert_same_bits(opened(results).assemble(keys([0, 1])), chunk([0, 1]))


def test_a_folder_that_has_vanished_is_said_and_not_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(durable, "PAUSES_S", (0.01, 0.01))
    results = tmp_path / "results"
    store = opened(results)
    store.add(keys([0]), chunk([0]))
    shutil.rmtree(results)
    with pytest.raises(BadInput, match=r"\.checkpoints have vanished; mend that and run again: the 0 frames"):
        store.add(keys([1]), chunk([1]))
    assert not results.exists()


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ENOENT])
def test_faults_of_network_disks_are_tried_again(number, monkeypatch):
    monkeypatch.setattr(durable, "PAUSES_S", (0.01, 0.02))
    faults = [OSError(number, os.strerror(number))] * 2

    def action() -> str:
        if faults:
            raise faults.pop()
        return "done"

    start = time.perf_counter()
    assert durable.retried(action) == "done"
    assert time.perf_counter() - start >= 0.03
    faults += [OSError(number, "x")] * 3
    with pytest.raises(OSError, match="x"):
        durable.retried(action)
    faults[:] = [OSError(errno.EACCES, "x")] * 2
    with pytest.raises(OSError, match="x"):
        durable.retried(action)
    assert len(faults) == 1


HOLDER = """
import sys, time
from pathlib import Path
from saxs_pipeline.checkpoint import exclusive
with exclusive(Path(sys.argv[1])):
    print("has it", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_told_who_writes_and_a_killed_one_holds_nothing(tmp_path):
    results = tmp_path / "results"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, results], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with holder:
        try:
            assert holder.stdout.readline() == "has it\n"
            with pytest.raises(BadInput) as told, exclusive(results):
                pass
        finally:
            holder.kill()
    assert str(told.value) == (
        f"{results}: another run (process {holder.pid} on {socket.gethostname()}) is writing here; "
        "wait for it or stop it"
    )
    with exclusive(results), pytest.raises(BadInput, match=f"process {os.getpid()} on"), exclusive(results):
        pass
    assert list(results.iterdir()) == []


def test_a_folder_made_for_the_lock_goes_with_it(tmp_path):
    with exclusive(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
    assert everything(tmp_path) == set()
    with exclusive(tmp_path / "new"):
        (tmp_path / "new" / "series.csv").touch()
    assert everything(tmp_path) == {"new", "new/series.csv"}


def test_a_file_system_without_locks_needs_none(tmp_path, monkeypatch):
    import fcntl

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with exclusive(tmp_path), exclusive(tmp_path):
        pass
    assert everything(tmp_path) == set()


CROWD = """
import json, os, sys, time
from pathlib import Path
from saxs_pipeline.checkpoint import exclusive
from saxs_pipeline.types import BadInput

results, inside = Path(sys.argv[1]), Path(sys.argv[1] + ".inside")

def come_and_go():
    entered, end = 0, time.monotonic() + 1.0
    while time.monotonic() < end:
        try:
            with exclusive(results):
                os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails if there are two
                entered += 1
                inside.unlink()
        except BadInput as error:
            assert "another run" in str(error), error
    os._exit(0 if entered > 10 else 3)

children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        come_and_go()
    children.append(child)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]))
"""


def test_of_many_that_come_and_go_one_is_inside(tmp_path):
    assert script(CROWD, tmp_path / "results") == [0, 0, 0, 0]
    assert everything(tmp_path) <= {"results"}


CHANGED_LOCK = """
import fcntl, json, os, sys
from pathlib import Path
from saxs_pipeline.checkpoint import exclusive
from saxs_pipeline.types import BadInput

results, others = Path(sys.argv[1]), []
file = results / ".checkpoints" / "lock"

def between_opening_and_locking(event, _):
    if event == "fcntl.flock" and not others:
        file.unlink()  # the process that had it leaves
        others.append(os.open(file, os.O_CREAT | os.O_RDWR))  # and a third one comes
        fcntl.flock(others[0], fcntl.LOCK_EX)

sys.addaudithook(between_opening_and_locking)
try:
    with exclusive(results):
        print(json.dumps("two are inside"))
except BadInput as error:
    print(json.dumps([str(error), file.exists()]))
"""


def test_a_lock_that_was_removed_before_it_was_locked_counts_for_nothing(tmp_path):
    told = f"{tmp_path}: another run (another process) is writing here; wait for it or stop it"
    assert script(CHANGED_LOCK, tmp_path) == [told, True]
