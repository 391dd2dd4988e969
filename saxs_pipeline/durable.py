"""Files that survive a pulled plug: written beside their place, forced to the disk, then moved there in one step."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

PAUSES_S = (0.1, 0.4, 1.6)
"""Waits before a write or read is tried again: network disks show a rename late and lose handles for a moment."""

PASSING = frozenset({errno.ESTALE, errno.EIO, errno.ENOENT, errno.ETIMEDOUT, errno.EBUSY})
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""No room: on the disk, in the quota, or for a file of this size."""
_NOT_FOR_FOLDERS = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES})

TEMPORARY = ".tmp"
"""Ending of a file that is not complete; what a killed process leaves ends so."""

Result = TypeVar("Result")


def retried(action: Callable[[], Result]) -> Result:
    """`action()`, again after a pause where it failed with what may pass on a network disk; then its OSError."""
    for pause in PAUSES_S:
        try:
            return action()
        except OSError as error:
            if error.errno not in PASSING:
                raise
            time.sleep(pause)
    return action()


def replace_file(path: Path, content: bytes, *, force: bool = True) -> None:
    """Make `path` hold `content`: at every moment it is the old file or the new one, also after a kill or power cut.

    force: wait until it is on the disk. Raises OSError; nothing half-written stays then, so that a full disk does not
    become fuller.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            if force:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if force:
        sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Wait until the file's content is on the disk; raises OSError."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Wait until the names in the folder are on the disk, where the system can; raises OSError."""
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NOT_FOR_FOLDERS:
            raise
    finally:
        os.close(handle)


def reason(error: OSError) -> str:
    """What the system says, in its words, without numbers and paths."""
    if error.errno in FULL - {errno.EFBIG}:
        return "no space left on the disk"
    return error.strerror or str(error)
