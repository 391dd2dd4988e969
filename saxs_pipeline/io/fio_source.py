"""A frame source over the images of a P21.2 scan, found from the paths written in its .fio file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.io import fio, frames
from saxs_pipeline.types import BadInput, Floats, FrameSource, FrameTimes, Progress, SourceInfo

_IMAGE_NUMBER = re.compile(r"%0?\d{0,2}d")
_NO_NUMBER = "not_recorded: the scan has no image number in this row"


class FioSource:
    """Frames of one detector of a scan, one per row of its table (or per frame of its HDF5 stack).

    Rows without an image number are frames that were not recorded. Raises BadInput where the detector is not known,
    its images are not found below `roots`, or rows and frames of a finished scan do not match.
    """

    def __init__(self, path: Path, detector: str | None, roots: Sequence[Path]) -> None:
        self._scan = fio.read_scan(path)
        name, where = _detector(self._scan, detector)
        numbers = _image_numbers(self._scan, name, where["Filepattern"])
        home = path.absolute().parent
        files = _files(path, where, numbers, roots or (home, home.parent))
        self._images: FrameSource = frames.open_frames(files)
        self._frame_of_row = _match(self._scan, numbers, self._images.info.n_frames)
        self._info = self._described(name)

    def _described(self, detector: str) -> SourceInfo:
        n, images = len(self._frame_of_row), self._images.info
        columns = {key: values[:n] for key, values in self._scan.monitors.items() if key != detector}
        parameters = {key: str(value) for key, value in self._scan.parameters.items()}
        return replace(
            images,
            kind="fio",
            paths=(self._scan.path, *images.paths),
            n_frames=n,
            header={**images.header, **parameters, "command": self._scan.command, "started": self._scan.started},
            times=first_times(self._scan.times, n) or (images.times if n == images.n_frames else None),
            monitors=columns,
            warnings=self._scan.warnings + images.warnings,
        )

    @property
    def info(self) -> SourceInfo:
        """What the source holds."""
        return self._info

    def read(self, indices: Sequence[int]) -> tuple[NDArray[Any], tuple[str, ...]]:
        """Images (n, ny, nx) and per frame "" or what is wrong with it (then the frame is zeros)."""
        images = np.zeros((len(indices), *self._info.shape), self._info.dtype)
        problems = [_NO_NUMBER] * len(indices)
        recorded = [row for row, index in enumerate(indices) if self._frame_of_row[index] >= 0]
        found, reasons = self._images.read([self._frame_of_row[indices[row]] for row in recorded])
        for k, row in enumerate(recorded):
            images[row], problems[row] = found[k], reasons[k]
        return images, tuple(problems)

    def label(self, index: int) -> str:
        """Row of the scan and image file, e.g. "scan_00007.fio row 17 (scan_00007_00018.cbf)"."""
        frame = self._frame_of_row[index]
        image = "no image" if frame < 0 else self._images.label(frame)
        return f"{self._scan.path.name} row {index} ({image})"

    def identity(self, index: int) -> str:
        """Of the image; of a row without one, its place."""
        frame = self._frame_of_row[index]
        return f"row {index} without image" if frame < 0 else self._images.identity(frame)

    def progress(self) -> Progress:
        """Rows whose image is there; ended when the scan says so, with as many frames as its command asks for."""
        images = self._images.progress()
        rows = np.array(self._frame_of_row, dtype=np.int64)
        complete = (rows < 0) | images.complete[rows] if len(rows) else np.zeros(0, dtype=np.bool_)
        sure = (rows >= 0) & images.sure[rows] if len(rows) else complete
        return Progress(complete, self._scan.state != "unfinished", self._scan.expected, sure)

    def close(self) -> None:
        """Release the image files."""
        self._images.close()


def first_times(times: FrameTimes | None, n: int) -> FrameTimes | None:
    """Times of the first n frames, None where there are none."""
    return None if times is None else FrameTimes(times.start_s[:n], times.exposure_s[:n], times.origin)


def _detector(scan: fio.Scan, wanted: str | None) -> tuple[str, Mapping[str, str]]:
    known = scan.detectors
    names = ", ".join(known) or "none"
    if wanted is None and len(known) != 1:
        raise BadInput(f"{scan.path}: choose the detector with data.detector (the scan has: {names})")
    name = next(iter(known)) if wanted is None else wanted
    if name not in known:
        raise BadInput(f"{scan.path}: has no images of a detector {name!r} (the scan has: {names}); see data.detector")
    return name, known[name]


def _image_numbers(scan: fio.Scan, detector: str, pattern: str) -> Floats:
    """Image number of each row, (n,), NaN where there is none; a stack without numbers counts its rows."""
    if detector in scan.columns:
        return scan.columns[detector]
    if "%" not in pattern:
        return np.arange(scan.n_rows, dtype=float)
    raise BadInput(f"{scan.path}: no column {detector!r} with the image numbers of this detector")


def _files(scan: Path, where: Mapping[str, str], numbers: Floats, roots: Sequence[Path]) -> list[Path]:
    """The image files of the numbers, each once, in order, below the roots."""
    *folder, pattern = _safe_parts(scan, where)
    names = list(dict.fromkeys(_file_name(scan, pattern, int(k)) for k in numbers[np.isfinite(numbers)]))
    if not names:
        raise BadInput(f"{scan}: the scan lists no image of this detector yet")
    place = _relocated(scan, folder, names, roots)
    return [_inside(scan, place / name, roots) for name in names]


def _safe_parts(scan: Path, where: Mapping[str, str]) -> list[str]:
    """Parts of Filedir/Filepattern without drive and root. Raises BadInput for one that climbs (..)."""
    said = f"{where['Filedir']}/{where['Filepattern']}"
    parts = [part for part in re.split(r"[\\/]+", said) if part not in ("", ".") and not part.endswith(":")]
    if ".." in parts or "\x00" in said or not parts:
        raise BadInput(f"{scan}: the path {said!r} in the scan is not allowed (it leaves its folder); correct the file")
    return parts


def _file_name(scan: Path, pattern: str, number: int) -> str:
    """The file of an image number: the pattern has one %d (as %05d) or, for a stack, none."""
    if "%" not in pattern:
        return pattern
    if len(_IMAGE_NUMBER.findall(pattern)) != 1 or pattern.count("%") != 1:
        raise BadInput(f"{scan}: the Filepattern {pattern!r} must have one number such as %05d; correct the file")
    return pattern % number


def _relocated(scan: Path, folder: Sequence[str], names: Sequence[str], roots: Sequence[Path]) -> Path:
    """The folder below the roots that has the images: Filedir's longest tail that leads to one.

    Filedir is absolute at the beamline, and the data have moved since.
    """
    wanted = set(names)
    for start in range(len(folder) + 1):
        for root in roots:
            place = root.joinpath(*folder[start:])
            if place.is_dir() and any(entry.name in wanted for entry in _inside(scan, place, roots).iterdir()):
                return place
    said = ", ".join(str(root) for root in roots)
    raise BadInput(
        f"{scan}: no image such as {'/'.join([*folder, names[0]])} found below {said}; give its folder in data.roots"
    )


def _inside(scan: Path, path: Path, roots: Sequence[Path]) -> Path:
    """The path itself. Raises BadInput where a link leads out of the roots."""
    real = path.resolve()
    if not any(real.is_relative_to(root.resolve()) for root in roots):
        raise BadInput(f"{scan}: {path} leads out of the allowed folders to {real}; name that folder in data.roots")
    return path


def _match(scan: fio.Scan, numbers: Floats, n_images: int) -> list[int]:
    """Frame of the image source for each row, −1 where the row has no image.

    Of a scan that is running or was aborted, rows and frames count as far as both reach.
    """
    known = np.isfinite(numbers)
    if scan.state == "ended" and int(known.sum()) != n_images:
        raise BadInput(
            f"{scan.path}: lists {int(known.sum())} images of this detector, but its files hold {n_images}; "
            "complete the files or correct the scan"
        )
    frame = np.where(known, np.cumsum(known) - 1, -1)
    reached = np.flatnonzero(frame >= n_images)
    return [int(k) for k in frame[: reached[0] if reached.size else None]]


def open_fio(paths: Sequence[Path], detector: str | None = None, roots: Sequence[Path] = ()) -> FioSource:
    """The images of one scan file."""
    if len(paths) != 1:
        raise BadInput(f"{paths[0]} and {len(paths) - 1} more: give one .fio scan at a time")
    return FioSource(paths[0], detector, roots)
