"""Finished frames on disk: atomic parts, found again by a key per frame, so that nothing is computed twice."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from saxs_pipeline import checkpoint_part, durable
from saxs_pipeline.checkpoint_part import Part, Run
from saxs_pipeline.types import BadInput, ChunkResult

FOLDER, LOCK = ".checkpoints", "lock"
"""Name of the checkpoints' folder in a results folder, and in it of the file that one process holds."""

COLLECT_FRAMES = 32
COLLECT_S = 2.0
"""A collecting store writes a part when so many frames, or one for so long, have waited."""

PASSING_PROBLEMS = ("unreadable", "not_recorded")
"""Frames with these may be readable the next time: they are not kept on disk."""

_SETTINGS = "settings.json"
_TRIES = 1000
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})


class FrameStore:
    """Finished frames of one plan, in memory and on disk.

    `<folder>/<plan key>/part-<hash of its bytes>.npz`: a part is there complete or not at all, and is believed only if
    its bytes are those in its name. Methods are called by one thread; one process writes at a time (see `exclusive`).
    """

    def __init__(
        self, folder: Path | None, plan_key: str, settings: Mapping[str, str], *, collect: bool = False
    ) -> None:
        """Read what is there; the disk is not touched otherwise, but for damaged parts and what a killed run left.

        folder: <results>/.checkpoints, None to keep frames in memory only. settings: "section.key" → text, to say what
        changed since another configuration. collect: `add` gathers single frames into parts. Raises BadInput if the
        folder cannot be read.
        """
        self._root, self._key = folder, plan_key
        self._settings, self._collect = dict(settings), collect
        self._rows: dict[str, tuple[Part, int]] = {}
        self._saved: dict[Path, int] = {}
        self._waiting: list[tuple[tuple[str, ...], Part]] = []
        self._waiting_since = 0.0
        self._notes: list[str] = []
        if folder is not None:
            try:
                self._open(folder)
            except OSError as error:
                what = f"{folder} cannot be read: {durable.reason(error)}"
                raise BadInput(f"{what}; mend that or remove the folder") from None

    @property
    def notes(self) -> tuple[str, ...]:
        """One line each: what of an earlier run is not used, and why."""
        return tuple(self._notes)

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, keys: Sequence[str], chunk: ChunkResult) -> None:
        """Keep finished frames: in memory at once; on disk when this returns, or soon if the store collects.

        keys (n,): of the rows of `chunk`. Frames that may be readable the next time stay in memory only. Raises
        BadInput if the disk cannot take them; they stay in memory and are written with the next ones.
        """
        part = checkpoint_part.pack(chunk)
        if len(keys) != len(part):
            raise ValueError(f"{len(keys)} keys for {len(part)} frames")
        self._rows.update((key, (part, row)) for row, key in enumerate(keys))
        lasting = [row for row, text in enumerate(part.words["problems"]) if not text.startswith(PASSING_PROBLEMS)]
        if lasting and self._root is not None:
            kept = part if len(lasting) == len(part) else checkpoint_part.join(_runs([(part, row) for row in lasting]))
            self._waiting_since = self._waiting_since if self._waiting else time.monotonic()
            self._waiting.append((tuple(keys[row] for row in lasting), kept))
        full = sum(len(kept) for _, kept in self._waiting) >= COLLECT_FRAMES
        self.flush(0.0 if full or not self._collect else COLLECT_S)

    def flush(self, waited_s: float = 0.0) -> None:
        """Write the frames that are in memory only, if the first of them has waited for so many seconds.

        Raises BadInput if the disk cannot take them; they wait on, and all written before are kept.
        """
        if not self._waiting or time.monotonic() - self._waiting_since < waited_s:
            return
        keys = tuple(key for names, _ in self._waiting for key in names)
        part = checkpoint_part.join([(part, 0, len(part)) for _, part in self._waiting])
        self._write(keys, part)
        self._waiting.clear()
        self._rows.update((key, (part, row)) for row, key in enumerate(keys))

    def assemble(self, keys: Sequence[str]) -> ChunkResult:
        """The rows of these keys, in their order, bit for bit as they were added; frames are numbered 0 … n - 1.

        Raises KeyError for a frame that is not in the store, ValueError without keys.
        """
        return checkpoint_part.unpack(checkpoint_part.join(_runs([self._rows[key] for key in keys])))

    def _open(self, root: Path) -> None:
        _remove_temporary(root)
        own = root / self._key[:16]
        self._read(own)
        if not self._saved:
            self._notes += _other_configurations(root, own, self._settings)

    def _read(self, folder: Path) -> None:
        damaged, unread = [], []
        for path in _parts(folder):
            try:
                content = durable.retried(path.read_bytes)
            except OSError as error:
                unread.append(f"{path.name}: {durable.reason(error)}")
                continue
            try:
                if path.name != _name(content):
                    raise ValueError("not the bytes of its name")
                keys, part = checkpoint_part.decode(content, self._key)
            except ValueError:
                damaged.append(path.name)
                with suppress(OSError):
                    path.unlink()
                continue
            self._rows.update((key, (part, row)) for row, key in enumerate(keys))
            self._saved[path] = len(part)
        self._notes += [*_not_used("damaged", damaged), *_not_used("unreadable", unread)]

    def _write(self, keys: Sequence[str], part: Part) -> None:
        assert self._root is not None
        content = checkpoint_part.encode(keys, part, self._key)
        path = self._root / self._key[:16] / _name(content)
        try:
            durable.retried(lambda: self._place(path, content))
        except OSError as error:
            raise BadInput(self._failure(self._root, error)) from None
        self._saved[path] = len(part)

    def _place(self, path: Path, content: bytes) -> None:
        """Write one file; folders that vanished since are not made again: it may be the disk that is gone."""
        folder, begun = path.parent, bool(self._saved)
        folder.mkdir(parents=not begun, exist_ok=True)
        if not begun:
            durable.replace_file(folder / _SETTINGS, json.dumps(self._settings, indent=1).encode("ascii"))
            durable.sync_folder(folder.parent)
        durable.replace_file(path, content)

    def _failure(self, root: Path, error: OSError) -> str:
        kept = sum(n for path, n in self._saved.items() if path.exists())
        mend = "make room" if error.errno in durable.FULL else "mend that"
        what = f"the checkpoints in {root} cannot be written: {durable.reason(error)}"
        if not root.exists() and self._saved:
            what = f"the checkpoints in {root} have vanished"
        return f"{what}; {mend} and run again: the {kept} frames finished before are kept"


def clear(root: Path) -> None:
    """Remove the checkpoints of all configurations from <results>/.checkpoints, but not the lock of a process."""
    for folder in _configurations(root):
        shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        root.rmdir()


def count(results: Path) -> int:
    """Number of finished frames in the checkpoints of a results folder: of the configuration used last."""
    folders = [parts for folder in _configurations(results / FOLDER) if (parts := _parts(folder))]
    newest = max(folders, key=lambda parts: max(part.stat().st_mtime_ns for part in parts), default=[])
    return len(frozenset[str]().union(*(checkpoint_part.read_keys(part) for part in newest)))


def _name(content: bytes) -> str:
    return f"part-{hashlib.sha256(content).hexdigest()[:32]}.npz"


def _runs(rows: Sequence[tuple[Part, int]]) -> list[Run]:
    """Rows, each of a part, as runs of consecutive rows of one part."""
    runs: list[Run] = []
    last, stop = None, -1
    for part, row in rows:
        if part is last and row == stop:
            stop += 1
            runs[-1] = (part, runs[-1][1], stop)
        else:
            last, stop = part, row + 1
            runs.append((part, row, stop))
    return runs


def _parts(folder: Path) -> list[Path]:
    """Files of finished frames in the folder of a configuration, none where there is no such folder."""
    return [entry for entry in _entries(folder) if entry.match("part-*.npz") and entry.is_file()]


def _configurations(root: Path) -> list[Path]:
    return [entry for entry in _entries(root) if entry.is_dir() and not entry.is_symlink()]


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted; raises OSError if it is there and cannot be read (Path.glob would say nothing)."""
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def _remove_temporary(root: Path) -> None:
    """What processes left that were killed while they wrote."""
    for folder in _configurations(root):
        for path in folder.glob(f".*{durable.TEMPORARY}"):
            with suppress(OSError):
                path.unlink()


def _not_used(how: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    words = "checkpoint is not used, its" if len(names) == 1 else "checkpoints are not used, their"
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return [f"{len(names)} {how} {words} frames are processed anew ({shown})"]


def _other_configurations(root: Path, own: Path, settings: Mapping[str, str]) -> list[str]:
    """A line that says which settings differ from those of the newest other checkpoints, if there are any."""
    others = [path for path in _configurations(root) if path != own and _parts(path)]
    if not others:
        return []
    newest = max(others, key=lambda path: path.stat().st_mtime)
    try:
        before = dict(json.loads((newest / _SETTINGS).read_bytes()))
    except (OSError, ValueError, TypeError):
        return ["finished frames of another configuration are not used"]
    changed = sorted(key for key in before.keys() | settings.keys() if before.get(key) != settings.get(key))
    what = ", ".join(changed) or "the version of the software or the reference files"
    return [f"finished frames of another configuration are not used (changed: {what})"]


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Only one process at a time writes into a results folder; the lock is gone with the process, however it ends.

    Raises BadInput if another process has it, or the folder cannot be written to. Where the file system or the system
    has no locks, there is none.
    """
    place = folder / FOLDER
    created = not folder.exists()
    try:
        lock = _locked(place)
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {durable.reason(error)}; choose another folder") from None
    try:
        yield
    finally:
        # Removed while it is still locked: who waits on this file finds that it is no longer the one of the name.
        with suppress(OSError):
            if _is_named(lock, place / LOCK):
                (place / LOCK).unlink()
        os.close(lock)
        with suppress(OSError):
            place.rmdir()
            if created:
                folder.rmdir()


def _locked(place: Path) -> int:
    """Handle of the lock file of this folder, locked."""
    fault: OSError | None = None
    for _ in range(_TRIES):
        try:
            place.mkdir(parents=True, exist_ok=True)
            lock = os.open(place / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except (FileNotFoundError, FileExistsError) as error:
            fault = error  # another process just removed the folder, or something else is in its place
            continue
        try:
            _lock(lock, place)
            if _is_named(lock, place / LOCK):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)
    raise fault or OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(place))


def _lock(lock: int, place: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = os.read(lock, 200).decode(errors="replace").strip() or "another process"
        raise BadInput(f"{place.parent}: another run ({who}) is writing here; wait for it or stop it") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    with suppress(OSError):  # who it is serves the message only, and the disk may be full
        os.ftruncate(lock, 0)
        os.write(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def _is_named(lock: int, path: Path) -> bool:
    """Whether the open file still is the one of that name: the process that had it may just have removed it."""
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False
