"""A frame source over a sequence of image files: EDF, CBF, TIFF or MarCCD."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.io.frames import file_state
from saxs_pipeline.io.image_files import CBF, EDF, MARCCD, TIFF, FileContent, FileFormat, Loader
from saxs_pipeline.types import BadInput, Progress, SourceInfo


class FileSequence:
    """Frames of image files in the given order; every header is read at once, pixels on demand.

    A file whose header cannot be read counts as many frames as its neighbours have, all unreadable.
    Raises BadInput if no file is readable or if two differ in size or pixel type.
    """

    def __init__(self, paths: Sequence[Path], file_format: FileFormat) -> None:
        self._format = file_format
        states = [file_state(path) for path in paths]
        contents = [_content(path, file_format, *state) for path, state in zip(paths, states, strict=True)]
        first = _first_readable(contents)
        _check_alike(paths, contents)
        self._frames: list[tuple[Path, int]] = []
        self._identities: list[str] = []
        keys: list[Mapping[str, str] | None] = []
        for path, (size, mtime), content in zip(paths, states, contents, strict=True):
            found = content.frames if isinstance(content, FileContent) else (None,) * len(first.frames)
            self._frames += [(path, index) for index in range(len(found))]
            self._identities += [f"{path.name}:{size}:{mtime}:{index}" for index in range(len(found))]
            keys += found
        self._complete = np.array([key is not None for key in keys])
        lost = tuple(f"{message} (its frames are unreadable)" for message in _problems(contents))
        info = SourceInfo(file_format.kind, tuple(paths), len(self._frames), first.shape, first.dtype, first.frames[0],
                          warnings=lost)  # fmt: skip
        self._info = file_format.facts(info, keys)

    @property
    def info(self) -> SourceInfo:
        """What the source holds."""
        return self._info

    def read(self, indices: Sequence[int]) -> tuple[NDArray[Any], tuple[str, ...]]:
        """Images (n, ny, nx) and per frame "" or "unreadable: why" (then the frame is zeros)."""
        images = np.zeros((len(indices), *self._info.shape), self._info.dtype)
        problems = [""] * len(indices)
        wanted = [(row, *self._frames[index]) for row, index in enumerate(indices)]
        for path, group in groupby(wanted, key=lambda item: item[1]):
            rows = [(row, frame) for row, _, frame in group]
            try:
                with self._format.loading(path) as load:
                    for row, frame in rows:
                        problems[row] = _load(load, frame, images[row])
            except Exception as error:  # a file that cannot even be opened must not end the run
                for row, _ in rows:
                    problems[row] = problems[row] or unreadable(error)
        return images, tuple(problems)

    def label(self, index: int) -> str:
        """File name, and frame number where the file has several."""
        path, frame = self._frames[index]
        alone = sum(other == path for other, _ in self._frames[max(0, index - 1) : index + 2]) == 1
        return path.name if alone else f"{path.name} frame {frame}"

    def identity(self, index: int) -> str:
        """File name, size and modification time when it was opened, and the frame's number in it."""
        return self._identities[index]

    def progress(self) -> Progress:
        """Files whose header can be read; a folder never says that no more will come."""
        return Progress(self._complete, ended=False, expected=None, sure=np.zeros_like(self._complete))

    def close(self) -> None:
        """Nothing stays open between reads."""


def unreadable(error: Exception) -> str:
    """The problem word with its reason on one line."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"unreadable: {reason}"


def _load(load: Loader, frame: int, out: NDArray[Any]) -> str:
    try:
        image = load(frame)
        if image.shape != out.shape or image.dtype != out.dtype:
            raise OSError(f"{image.dtype} image of {image.shape}, expected {out.dtype} of {out.shape}")
        out[:] = image
    except Exception as error:  # decoders raise a wide family of errors for damaged data
        return unreadable(error)
    return ""


def _content(path: Path, file_format: FileFormat, size: int, mtime_ns: int) -> FileContent | BadInput:
    try:
        return _read_content(path, file_format.content, size, mtime_ns)
    except BadInput as error:
        return error
    except (OSError, ValueError) as error:
        return BadInput(f"{path}: cannot be read ({error})")


@lru_cache(maxsize=20_000)
def _read_content(path: Path, content: Callable[[Path], FileContent], size: int, mtime_ns: int) -> FileContent:
    """Headers of a file, read once while it stays the same: a folder that fills is looked at again and again."""
    return content(path)


def _problems(contents: Sequence[FileContent | BadInput]) -> list[str]:
    return [str(content) for content in contents if isinstance(content, BadInput)]


def _first_readable(contents: Sequence[FileContent | BadInput]) -> FileContent:
    for content in contents:
        if isinstance(content, FileContent) and content.frames:
            return content
    raise BadInput(_problems(contents)[0])


def _check_alike(paths: Sequence[Path], contents: Sequence[FileContent | BadInput]) -> None:
    readable = [(p, c) for p, c in zip(paths, contents, strict=True) if isinstance(c, FileContent)]
    first_path, first = readable[0]
    for path, content in readable[1:]:
        if (content.shape, content.dtype) != (first.shape, first.dtype):
            raise BadInput(
                f"the frames differ: {first_path} has {first.dtype} images of {first.shape}, {path} {content.dtype} of "
                f"{content.shape} (rows, columns); give files of one detector and binning"
            )


def open_edf(paths: Sequence[Path], **_: Any) -> FileSequence:
    """EDF files; error blocks are skipped."""
    return FileSequence(paths, EDF)


def open_cbf(paths: Sequence[Path], **_: Any) -> FileSequence:
    """CBF files."""
    return FileSequence(paths, CBF)


def open_tiff(paths: Sequence[Path], **_: Any) -> FileSequence:
    """TIFF files, also of Pilatus detectors."""
    return FileSequence(paths, TIFF)


def open_marccd(paths: Sequence[Path], **_: Any) -> FileSequence:
    """MarCCD (Rayonix) files, whatever their suffix."""
    return FileSequence(paths, MARCCD)
