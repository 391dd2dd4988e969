"""Waking up when files change: the system's notice where it gives one, and a look every so often where it does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from saxs_pipeline.fields import FoundFiles
from saxs_pipeline.runfile import RunFile
from saxs_pipeline.types import BadInput

RESCAN_S = 0.5
"""Network disks give no notice of what other machines write."""


class Watch:
    """Waits for changes in the folders of a scan."""

    def __init__(self) -> None:
        self._changed = threading.Event()
        self._stop = threading.Event()
        self._folders: tuple[Path, ...] = ()

    def wait(self, run: RunFile) -> None:
        """Return when something changed in a folder of the frames or scalers, or after RESCAN_S."""
        self._look_at(folders(run))
        self._changed.wait(RESCAN_S)
        self._changed.clear()

    def close(self) -> None:
        """Watch no longer."""
        self._stop.set()

    def _look_at(self, wanted: tuple[Path, ...]) -> None:
        there = tuple(folder for folder in wanted if folder.is_dir())
        if there != self._folders:
            self._stop.set()
            self._folders, self._stop = there, threading.Event()
            if there:
                threading.Thread(target=self._notice, args=(there, self._stop), daemon=True, name="watch").start()

    def _notice(self, places: Sequence[Path], stop: threading.Event) -> None:
        import watchfiles

        try:
            for _ in watchfiles.watch(
                *places, stop_event=stop, recursive=False, debounce=60, step=20, rust_timeout=500
            ):
                self._changed.set()
        except (OSError, RuntimeError):  # no notices here, or no more of them: the regular looks go on
            return


@contextmanager
def watching() -> Iterator[Watch]:
    """A Watch for the block; raises BadInput where the extra is missing."""
    try:
        import watchfiles  # noqa: F401
    except ImportError:
        raise BadInput("live needs more packages; pip install 'saxs-pipeline[live]'") from None
    watch = Watch()
    try:
        yield watch
    finally:
        watch.close()


def folders(run: RunFile) -> tuple[Path, ...]:
    """Folders in which files of the scan appear: of its frames, its scalers, and those named by its data roots."""
    data = run.config.data
    found: dict[Path, None] = {}
    for files in (data.frames, data.scalers):
        if isinstance(files, FoundFiles):
            for pattern in files.patterns:
                found[(files.base / Path(pattern).expanduser()).parent] = None
            found |= dict.fromkeys(path.parent for path in files.again())
    found |= dict.fromkeys(data.roots)
    return tuple(found)
