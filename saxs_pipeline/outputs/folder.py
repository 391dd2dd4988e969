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

    Raises BadInput if `folder` cannot be made or written to. Curves and figures of an earlier run that this one did
    not make are removed, and what a killed run left; all other files in the folder are left alone.
    """
    created = not folder.exists()
    staging = folder / f".writing-{os.getpid()}"
    try:
        staging.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror or error}; choose another folder") from None
    try:
        yield staging
        _publish(staging, folder)
    except OSError as error:
        raise BadInput(
            f"{error.filename or folder} cannot be written: {error.strerror or error}; make room and run again"
        ) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if created and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


FIGURES = frozenset({"radius", "concentration_yield", "curves", "heatmap", "residuals", "quality"})
_OWN = ("curves/frame_*.dat", "figures/*.png", "figures/*.svg")
_LAST = ("run.nxs", "series.csv")
"""Published after all others, so that a series.csv never stands beside results of another run."""


def _publish(staging: Path, folder: Path) -> None:
    for abandoned in folder.glob(".writing-*"):
        if abandoned != staging and not _is_alive(abandoned.name.removeprefix(".writing-")):
            shutil.rmtree(abandoned, ignore_errors=True)
    new = {path.relative_to(staging) for path in staging.rglob("*") if path.is_file()}
    for name in sorted(new, key=lambda name: (name.name in _LAST, name)):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (staging / name).replace(target)
    for pattern in _OWN:
        for path in folder.glob(pattern):
            if path.relative_to(folder) not in new and path.stem in _names(path):
                path.unlink()


def _names(path: Path) -> frozenset[str]:
    """Stems that a run gives to files of this kind; others in the same folder are the user's."""
    return FIGURES if path.suffix in (".png", ".svg") else frozenset({path.stem})


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True
