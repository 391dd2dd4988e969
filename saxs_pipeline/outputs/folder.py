"""The results folder: files appear in it complete, all at the end, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saxs_pipeline.types import BadInput


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A folder to write into; on success its files replace those of the same name in `folder`, else it vanishes.

    Raises BadInput if `folder` cannot be made or written to. Text curves of an earlier run are taken away with it:
    their frame numbers would not be this run's. Other files in the folder are left alone.
    """
    created = not folder.exists()
    staging = folder / f".writing-{os.getpid()}"
    try:
        staging.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"output.folder: cannot write to {folder}: {error.strerror}; choose another folder") from None
    try:
        yield staging
        _publish(staging, folder)
    except OSError as error:
        raise BadInput(
            f"{error.filename or folder}: cannot be written: {error.strerror}; make room and run again"
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if created and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def _publish(staging: Path, folder: Path) -> None:
    for stale in (folder / "curves").glob("frame_*.dat"):
        stale.unlink()
    for path in sorted(p for p in staging.rglob("*") if p.is_file()):
        target = folder / path.relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
