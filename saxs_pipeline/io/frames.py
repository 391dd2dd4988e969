"""Opening frames: which files, of which format (decided by their content), as one source."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.io import fio, marccd, tiff
from saxs_pipeline.types import BadInput, FrameSource

HEAD = 4096
"""Bytes of a file that decide its format."""

ENTRY_POINTS = "saxs_pipeline.frames"
"""Group of entry points by which other packages add a `Format`."""

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_EDF_START = re.compile(rb"^\s{0,4}\{\s")
_EDF_KEYS = re.compile(rb"EDF_|HeaderID|ByteOrder|DataType|Dim_1", re.IGNORECASE)


@dataclass(frozen=True)
class Format:
    """A file format: `understand(first bytes, path)` recognises it; `target` is "module:function", imported when used.

    The function takes (paths, detector=…, roots=…) and returns a FrameSource.
    """

    name: str
    understand: Callable[[bytes, Path], bool]
    target: str

    def open(self, paths: Sequence[Path], detector: str | None, roots: Sequence[Path]) -> FrameSource:
        """The source over files of this format."""
        module, function = self.target.split(":")
        source: FrameSource = getattr(import_module(module), function)(paths, detector=detector, roots=roots)
        return source


def _is_edf(head: bytes, path: Path) -> bool:
    if not _EDF_START.match(head) or not _EDF_KEYS.search(head):
        return False
    if b"}" not in head and len(head) < HEAD:
        raise BadInput(f"{path}: the EDF header is cut short; copy the file again")
    return True


def _is_tiff(head: bytes, path: Path) -> bool:
    if tiff.is_tiff(head) and len(head) < HEAD and not tiff.is_complete(path):
        raise BadInput(f"{path}: the TIFF file is cut short; copy the file again")
    return tiff.is_tiff(head)


def _is_cbf(head: bytes, path: Path) -> bool:
    if b"Content-Type: application / octet - stream;" in head and not head.startswith(b"###CBF"):
        from saxs_pipeline.io.image_files import cbf_without_magic

        raise BadInput(cbf_without_magic(path))
    return head.startswith(b"###CBF")


FORMATS: tuple[Format, ...] = (
    Format("hdf5", lambda head, _: head.startswith(_HDF5_MAGIC), "saxs_pipeline.io.hdf5_source:open_hdf5_frames"),
    Format("edf", _is_edf, "saxs_pipeline.io.fabio_source:open_edf"),
    Format("cbf", _is_cbf, "saxs_pipeline.io.fabio_source:open_cbf"),
    Format("marccd", lambda head, _: marccd.is_marccd(head), "saxs_pipeline.io.fabio_source:open_marccd"),
    Format("tiff", _is_tiff, "saxs_pipeline.io.fabio_source:open_tiff"),
    Format("fio", lambda head, _: fio.is_fio(head), "saxs_pipeline.io.fio_source:open_fio"),
)
"""Formats in the order in which they are tried; more specific ones come first."""


@lru_cache(maxsize=1)
def formats() -> tuple[Format, ...]:
    """All formats; those of other packages (entry points) are tried before ours, as they know special cases."""
    others: list[Format] = []
    for point in entry_points(group=ENTRY_POINTS):
        try:
            others.append(point.load())
        except Exception as error:  # whatever another package does wrong while it is imported
            raise BadInput(f"the frame format {point.name} ({point.value}) cannot be loaded: {error}") from None
    return (*others, *FORMATS)


def file_state(path: Path) -> tuple[int, int]:
    """Size and modification time (ns) of a file, (0, 0) of one that is not there: the same as long as it is."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def read_head(path: Path) -> bytes:
    """The first bytes of a file. Raises BadInput where there is no such file, or an empty one."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except IsADirectoryError:
        raise BadInput(f"{path}: is a folder, not a file; give its files, for example {path}/*.h5") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror or error}); check the path and its rights") from None
    if not head:
        raise BadInput(f"{path}: the file is empty (0 bytes); the copy or the acquisition failed")
    return head


def identify(path: Path) -> str:
    """Name of the format, from the file's content.

    Raises BadInput for files that are missing, empty, cut short or of no known format.
    """
    return _format_of(path).name


def _format_of(path: Path) -> Format:
    return _recognised(path, *file_state(path))


@lru_cache(maxsize=20_000)
def _recognised(path: Path, size: int, mtime_ns: int) -> Format:
    """Looked at once while the file stays the same: a folder that fills is opened again and again."""
    head = read_head(path)
    for candidate in formats():
        if candidate.understand(head, path):
            return candidate
    raise BadInput(f"{path}: {_what_it_is(head)}; frames are {', '.join(f.name for f in formats())} files")


def _what_it_is(head: bytes) -> str:
    if head[:2] == b"\x1f\x8b" or head[:3] == b"BZh" or head[:2] == b"PK":
        return "a compressed archive; unpack it first"
    if head[:6] == b"\x93NUMPY":
        return "a NumPy array, which is read as a mask or flat only"
    if _HDF5_MAGIC.startswith(head[:8]) or head[:4] in (b"II*\x00", b"MM\x00*"):
        return "cut short in its header; copy it again"
    if b"\x00" not in head and all(byte >= 9 for byte in head):
        return "a text file, whatever its name says, and not a .fio scan"
    return "not of a known image format"


def open_frames(paths: Sequence[Path], *, detector: str | None = None, roots: Sequence[Path] = ()) -> FrameSource:
    """One source over the given files, which must be of one format.

    `detector` chooses where a scan or a file holds several; `roots` are the folders that paths found inside files may
    point into. Damaged files among readable ones become unreadable frames. Raises BadInput where no file is readable,
    or where formats, sizes or pixel types differ.
    """
    chosen: tuple[Path, Format] | None = None
    problems: list[BadInput] = []
    for path in paths:
        try:
            found = _format_of(path)
        except BadInput as error:
            problems.append(error)
            continue
        if chosen is None:
            chosen = path, found
        if found.name != chosen[1].name:
            raise BadInput(
                f"the files are of different formats: {chosen[0]} is {chosen[1].name}, {path} is {found.name}; "
                "narrow the pattern to one of them"
            )
    if chosen is None:
        raise problems[0] if problems else BadInput("no files to open")
    return chosen[1].open(paths, detector, roots)


def read_image(path: Path) -> NDArray[Any]:
    """One image (ny, nx) for a mask or a flat.

    Any of the frame formats with one frame, .npy, HDF5 ("file.h5::/path/of/dataset", or the only 2-D dataset), or a
    table of numbers as text. Raises BadInput where that is not one image.
    """
    name, _, inside = str(path).partition("::")
    file = Path(name)
    head = read_head(file)
    if head.startswith(_HDF5_MAGIC):
        return _hdf5_image(file, inside)
    if head.startswith(b"\x93NUMPY"):
        return _two_dimensional(file, _numpy_image(file))
    if b"\x00" not in head and not any(known.understand(head, file) for known in formats()):
        return _text_image(file)
    return _only_frame(file, open_frames([file]))


def _hdf5_image(file: Path, inside: str) -> NDArray[Any]:
    from saxs_pipeline.io import hdf5_layout

    return _two_dimensional(file, hdf5_layout.read_dataset(file, inside))


def _numpy_image(file: Path) -> NDArray[Any]:
    try:
        image: NDArray[Any] = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise BadInput(f"{file}: cannot be read as a NumPy array ({error})") from None
    return image


def _text_image(file: Path) -> NDArray[Any]:
    text = file.read_text(encoding="utf-8", errors="replace").replace(",", " ").replace(";", " ")
    rows = [line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if len({len(row) for row in rows}) > 1:
        raise BadInput(f"{file}: the rows of this text image differ in length; every row needs one number per pixel")
    try:
        return _two_dimensional(file, np.array(rows, dtype=float))
    except ValueError as error:
        raise BadInput(f"{file}: not a table of numbers ({error})") from None


def _two_dimensional(file: Path, image: NDArray[Any]) -> NDArray[Any]:
    if image.ndim != 2 or 0 in image.shape or image.dtype.kind not in "buif":
        raise BadInput(f"{file}: an image needs rows and columns of numbers, this is {image.dtype} of {image.shape}")
    return image


def _only_frame(file: Path, source: FrameSource) -> NDArray[Any]:
    try:
        if source.info.n_frames != 1:
            raise BadInput(f"{file}: one image is needed here, this file has {source.info.n_frames} frames")
        images, problems = source.read([0])
    finally:
        source.close()
    if problems[0]:
        raise BadInput(f"{file}: {problems[0]}")
    image: NDArray[Any] = images[0]
    return image
