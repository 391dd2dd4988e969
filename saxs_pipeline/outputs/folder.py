"""The results folder: files appear in it complete, all at the end, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from saxs_pipeline.types import BadInput


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A folder to write into; on success its files replace those of the same name in `folder`, else it vanishes.

    Raises BadInput if `folder` cannot be made or written to. Curves, figures and tables of an earlier run that this one
    did not make are removed, and what a killed run left; all other files in the folder are left alone.
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


FIGURES = frozenset(
    {"radius", "concentration_yield", "reaction", "kinetics", "curves", "heatmap", "residuals", "quality"}
)
MODEL_FIGURES = frozenset({"model_snapshots", "model_development", "model_share", "model_modes"})


def _pictures(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"figures/{name}.{kind}" for name in sorted(names) for kind in ("png", "svg"))


_OWN = {
    "run.nxs": ("curves/frame_*.dat", "comparison.csv", "reaction.json", *_pictures(FIGURES)),
    "model.csv": ("modes.csv", "scan.csv", *_pictures(MODEL_FIGURES)),
}
"""What else results with this file may hold: what of it an earlier one left is removed; all else is the user's."""
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
    own = [pattern for kind, patterns in _OWN.items() if Path(kind) in new for pattern in patterns]
    for path in [path for pattern in own for path in folder.glob(pattern)]:
        if path.relative_to(folder) not in new:
            path.unlink()


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True
