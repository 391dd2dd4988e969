"""The results folder: files appear in it complete, all at the end, or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from saxs_pipeline import durable
from saxs_pipeline.types import BadInput


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A folder to write into; on success its files replace those of the same name in `folder`, else it vanishes.

    Raises BadInput if `folder` cannot be made or written to; an earlier run's results then stay as they were. Curves,
    figures and tables of an earlier run that this one did not make are removed, and what a killed run left; all other
    files in the folder are left alone. Killed at any moment, the folder holds after `recover` the earlier results or
    the new ones.
    """
    created = not folder.exists()
    staging = folder / f"{_WRITING}{_owner()}"
    try:
        recover(folder)
        _remove_abandoned(folder)
        staging.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {durable.reason(error)}; choose another folder") from None
    own = {staging.resolve(), _complete(folder).resolve()}
    _in_use.update(own)
    try:
        yield staging
        _publish(staging, folder)
    except OSError as error:
        if not _place(error, folder).is_relative_to(folder):  # a file of the system's: the folder is not at fault
            raise
        mend = "make room" if error.errno in durable.FULL else "mend that"
        raise BadInput(
            f"{_place(error, folder)} cannot be written: {durable.reason(error)}; {mend} and run again"
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        _in_use.difference_update(own)
        if created and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def check_free(folder: Path, names: Sequence[str], made_by: str, source: Path) -> None:
    """Raise BadInput where files of other origin, or what a command reads, would be overwritten.

    names: what the command writes; of the first, a JSON, `made_by` says whose files they are.
    """
    there = [folder / name for name in names if (folder / name).exists()]
    if any(path.samefile(source) for path in there):
        raise BadInput(f"{source} would be overwritten; choose another folder with --out")
    try:
        ours = json.loads((folder / names[0]).read_bytes()).get("made_by") == made_by
    except (OSError, ValueError, AttributeError):
        ours = False
    if there and not ours:
        raise BadInput(f"{there[0]} is in the way and not of this command; choose another folder with --out")


def recover(folder: Path) -> None:
    """Publish what a process had completed when it was killed while publishing; nothing to do is the normal case.

    May be killed and called again, and called by two processes at once. Raises BadInput if the folder cannot be
    written to.
    """
    try:
        for complete in _completed(folder):
            if _is_abandoned(complete, _COMPLETE):
                _roll_forward(complete, folder)
    except OSError as error:
        raise BadInput(
            f"{_place(error, folder)} cannot be written: {durable.reason(error)}; a run was killed while it put its "
            f"results into {folder}: mend that and try again"
        ) from None


def _place(error: OSError, folder: Path) -> Path:
    return Path(error.filename) if isinstance(error.filename, str) else folder


_WRITING, _COMPLETE = ".writing-", ".complete-"
"""Staging folders by machine and process: one that is being filled; one that has all files and is being published."""

_in_use: set[Path] = set()
"""Staging folders of this very process."""

FOREIGN_S = 86400.0
"""A staging folder of another machine is abandoned when nothing in it has come or gone for so long."""

_MANIFEST = ".files.json"
"""In a complete staging folder: the names of all its files, also of those that have been moved already."""

FIGURES = frozenset(
    {
        "radius",
        "concentration_yield",
        "populations",
        "reaction",
        "kinetics",
        "curves",
        "heatmap",
        "residuals",
        "sizes",
        "quality",
    }
)
MODEL_FIGURES = frozenset({"model_snapshots", "model_development", "model_share", "model_modes"})


def _pictures(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"figures/{name}.{kind}" for name in sorted(names) for kind in ("png", "svg"))


_OWN = {
    "run.nxs": ("curves/frame_*.dat", "comparison.csv", "reaction.json", "sizes.csv", *_pictures(FIGURES)),
    "fit.json": ("corner.png", "corner.svg"),
    "model.csv": ("modes.csv", "scan.csv", *_pictures(MODEL_FIGURES)),
}
"""What else results with this file may hold: what of it an earlier one left is removed; all else is the user's."""
_LAST = ("run.nxs", "series.csv")
"""Published after all others, so that a series.csv never stands beside results of another run."""


def _publish(staging: Path, folder: Path) -> None:
    names = _files(staging)
    if not names:
        return
    _check_places([folder / name for name in names])
    (staging / _MANIFEST).write_text(json.dumps([name.as_posix() for name in names]), encoding="ascii")
    _sync(staging)
    for earlier in _completed(folder):  # whoever's they are: they must not come after, and over, this one's
        _roll_forward(earlier, folder)
    complete = _complete(folder)
    staging.rename(complete)
    durable.sync_folder(folder)
    _roll_forward(complete, folder)


def _check_places(targets: Iterable[Path]) -> None:
    """Raise OSError if a file cannot be moved to one of these: it must fail before the first is moved."""
    for target in targets:
        parent = target.parent
        if target.is_dir() or (parent.exists() and not parent.is_dir()):
            raise OSError(errno.EEXIST, "something else is in its place", str(target))
        if parent.exists() and not os.access(parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(parent))


def _completed(folder: Path) -> list[Path]:
    """Complete staging folders, the oldest first."""

    def age(complete: Path) -> float:
        try:
            return (complete / _MANIFEST).stat().st_mtime
        except OSError:  # all has been moved from there
            return 0.0

    return sorted(folder.glob(f"{_COMPLETE}*"), key=age)


def _roll_forward(complete: Path, folder: Path) -> None:
    """Move all files of a complete staging folder to their places; remove those they supersede; remove the folder."""
    new = _manifest(complete)
    for name in sorted(_files(complete), key=lambda name: (name.name in _LAST, name)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        durable.retried(partial(_move, complete / name, folder / name))
    own = [pattern for kind, patterns in _OWN.items() if Path(kind) in new for pattern in patterns]
    for path in [path for pattern in own for path in folder.glob(pattern)]:
        if path.relative_to(folder) not in new:
            path.unlink(missing_ok=True)
    for parent in {(folder / name).parent for name in new}:
        if parent.is_dir():
            durable.sync_folder(parent)
    shutil.rmtree(complete, ignore_errors=True)


def _move(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except FileNotFoundError:
        if source.exists() or not target.exists():  # else another process, or the first try, has moved it
            raise


def _manifest(complete: Path) -> frozenset[Path]:
    """Files of the run that is being published; none (nothing is superseded) if there is no readable list of them."""
    try:
        return frozenset(Path(name) for name in json.loads((complete / _MANIFEST).read_bytes()))
    except (OSError, ValueError, TypeError):
        return frozenset()


def _files(staging: Path) -> list[Path]:
    """Names of the results in a staging folder, relative to it."""
    return [path.relative_to(staging) for path in staging.rglob("*") if path.is_file() and path != staging / _MANIFEST]


def _sync(staging: Path) -> None:
    """Force all files and folders to the disk; several at once, since each waits for the disk."""
    paths = [staging, *staging.rglob("*")]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(durable.sync_file, [path for path in paths if path.is_file()]))
        list(threads.map(durable.sync_folder, [path for path in paths if path.is_dir()]))


def _remove_abandoned(folder: Path) -> None:
    for path in folder.glob(f"{_WRITING}*"):
        if _is_abandoned(path, _WRITING):
            shutil.rmtree(path, ignore_errors=True)


def _host() -> str:
    return re.sub(r"[^\w.-]", "_", socket.gethostname())


def _owner() -> str:
    return f"{_host()}-{os.getpid()}"


def _complete(folder: Path) -> Path:
    return folder / f"{_COMPLETE}{_owner()}"


def _is_abandoned(path: Path, kind: str) -> bool:
    """Whether a staging folder has no living owner.

    One of this process's number that it does not use is of an earlier process (in a container every run may be
    process 1). On a shared disk a number says nothing about processes of another machine, and `check` and `status`
    look without the lock: what such a one may still be writing is left to it. No run publishes for a day, and no clock
    is wrong by one.
    """
    host, _, pid = path.name.removeprefix(kind).rpartition("-")
    if host != _host() or not pid.isdecimal():
        try:
            return time.time() - path.stat().st_mtime > FOREIGN_S
        except FileNotFoundError:  # its owner has just removed it
            return False
    if int(pid) == os.getpid():
        return path.resolve() not in _in_use
    return not is_alive(int(pid))


def is_alive(pid: int) -> bool:
    """Whether a process of this number runs on this machine; one on another machine that shares the disk does not.

    Commands that write hold `checkpoint.exclusive` besides, which network disks share between machines.
    """
    if os.name == "nt":  # asking would stop it
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
