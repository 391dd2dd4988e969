"""A frame source over LImA and NeXus HDF5 files: closed or growing, several entries and several files."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.io import bitshuffle, direct_chunks, hdf5_frames, hdf5_layout, headers
from saxs_pipeline.io.direct_chunks import DirectReader
from saxs_pipeline.io.frames import file_state
from saxs_pipeline.types import BadInput, Bools, Floats, FrameTimes, HeaderGeometry, Progress, SourceInfo

_EXPOSURES = ("acquisition/exposure_time", "count_time")
_TO_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}


@dataclass(frozen=True)
class Stack:
    """One image dataset: where it is, its size, and what its file says about it.

    ended: its acquisition has an end; announced: frames that the whole acquisition was to have, in however many files;
    sources: the files that hold the frames of a virtual dataset.
    """

    path: Path
    sources: tuple[Path, ...]
    dataset: str
    n_frames: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    header: dict[str, str]
    start: str
    frame_s: Floats | None
    exposure_s: float | None
    ended: bool
    announced: int | None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold its frames."""
        return self.sources or (self.path,)


class Hdf5Source:
    """Frames of all image stacks of the given files, in the order of files and entries.

    A file that cannot be opened counts as many frames as the first readable one, all unreadable, with a warning.
    `info.paths` has the files that hold the frames, too, where the given ones only lead there.
    Raises BadInput if no file is readable, or if two stacks differ in size or pixel type.
    """

    def __init__(self, paths: Sequence[Path], detector: str | None = None) -> None:
        self._stacks, warnings = _stacks(paths, detector)
        _check_alike(self._stacks)
        first = next(stack for stack in self._stacks if stack.dataset)
        self._offsets = np.concatenate([[0], np.cumsum([stack.n_frames for stack in self._stacks])])
        times, more = _times(self._stacks)
        geometry, doubts = _geometry(first)
        dummy, delta = _dummy(first)
        self._info = SourceInfo(
            kind="hdf5",
            paths=tuple(dict.fromkeys((*paths, *(file for stack in self._stacks for file in stack.files)))),
            n_frames=int(self._offsets[-1]),
            shape=first.shape,
            dtype=first.dtype,
            header=first.header,
            geometry=geometry,
            times=times,
            dummy=dummy,
            delta_dummy=delta,
            saturation=headers.number(first.header, "saturation_value"),
            warnings=(*warnings, *more, *doubts),
        )
        self._lock = threading.RLock()  # of the open file: threads may share a source
        self._file: tuple[Path, h5py.File] | None = None
        self._stored: dict[tuple[Path, str], hdf5_frames.Stored] = {}
        self._direct: dict[tuple[Path, str], tuple[tuple[int, ...], DirectReader | None]] = {}
        self._marks: dict[tuple[Path, str], list[str]] = {}
        self._final: dict[tuple[Path, str], Bools] = {}

    @property
    def info(self) -> SourceInfo:
        """What the source holds."""
        return self._info

    def read(self, indices: Sequence[int]) -> tuple[NDArray[Any], tuple[str, ...]]:
        """Images (n, ny, nx) and per frame "", "unreadable: why" or "not_recorded: why" (then the frame is zeros)."""
        images = np.zeros((len(indices), *self._info.shape), self._info.dtype)
        problems: list[str] = []
        for stack, first, count in self._runs(indices):
            row = len(problems)
            problems += self._read_run(stack, first, images[row : row + count])
        return images, tuple(problems)

    def _runs(self, indices: Sequence[int]) -> Iterator[tuple[Stack, int, int]]:
        """Runs of consecutive frames of one stack: (stack, first frame in it, number of frames)."""
        run: tuple[Stack, int, int] | None = None
        for stack, frame in map(self._place, indices):
            if run is not None and run[0] is stack and run[1] + run[2] == frame:
                run = (stack, run[1], run[2] + 1)
                continue
            if run is not None:
                yield run
            run = (stack, frame, 1)
        if run is not None:
            yield run

    def _read_run(self, stack: Stack, first: int, out: NDArray[Any]) -> list[str]:
        try:
            if not stack.dataset:
                raise OSError("the file could not be opened")
            with self._lock:
                direct = self._direct_reader(stack)
                if direct is None:
                    return self._by_h5py(self._opened(stack.path)[stack.dataset], first, out)
            return direct.read(first, out)
        except (BadInput, OSError, KeyError, RuntimeError) as error:
            return [_unreadable(error)] * len(out)

    @staticmethod
    def _by_h5py(dataset: h5py.Dataset, first: int, out: NDArray[Any]) -> list[str]:
        try:
            shuffled = dataset.ndim == 3 and bitshuffle.is_bitshuffled(dataset)
            damaged = [shuffled and bitshuffle.frame_problem(dataset, first + i) for i in range(len(out))]
            if any(damaged):
                return [
                    f"unreadable: {problem}" if problem else _read_one(dataset, first + i, out[i : i + 1])
                    for i, problem in enumerate(damaged)
                ]
            _read(dataset, first, out)
            return [_not_recorded(dataset, first + i) for i in range(len(out))]
        except (OSError, RuntimeError, ValueError):  # one bad chunk fails the whole slice: find which
            return [_read_one(dataset, first + i, out[i : i + 1]) for i in range(len(out))]

    def _direct_reader(self, stack: Stack) -> DirectReader | None:
        """Reads past HDF5 where that can be done; kept as long as its file stays the same."""
        key, state = (stack.path, stack.dataset), direct_chunks.file_state(stack.path)
        known = self._direct.get(key)
        if known is None or known[0] != state:
            self._release()  # HDF5 shows a file as it was when it was opened
            self._stored.pop(key, None)
            with hdf5_layout.faults(stack.path):
                dataset = self._opened(stack.path)[stack.dataset]
                known = state, direct_chunks.reader(stack.path, dataset, self._places(stack))
            self._direct[key] = known
        return known[1]

    def _opened(self, path: Path) -> h5py.File:
        """The file, kept open until another one is needed: a sequence may have more files than handles."""
        if self._file is None or self._file[0] != path:
            self._release()
            self._file = (path, hdf5_layout.open_hdf5(path))
        return self._file[1]

    def label(self, index: int) -> str:
        """File name and frame number in it, e.g. "scan_00.h5 frame 17"; with the entry where a file has several."""
        stack, frame = self._place(index)
        shared = sum(other.path == stack.path for other in self._stacks) > 1
        name = f"{stack.path.name}::{stack.dataset}" if shared else stack.path.name
        return f"{name} frame {frame}"

    def identity(self, index: int) -> str:
        """Its acquisition, its number in it and a checksum of its bytes; the state of its files, where it has none.

        Between `progress` and `close` checksums of complete frames are carried over from earlier looks.
        """
        stack, frame = self._place(index)
        return f"{stack.path.name}:{stack.dataset}:{stack.start}:{frame}:{self._fingerprints(stack)[frame]}"

    def progress(self) -> Progress:
        """Frames in the file with their time; ended where LImA wrote the end of every acquisition it announced."""
        parts, sure, ended = [], [], True
        for stack in self._stacks:
            if not stack.dataset:
                parts.append(np.zeros(stack.n_frames, dtype=np.bool_))
                sure.append(parts[-1])
                continue
            with self._lock, hdf5_layout.faults(stack.path):
                places = self._places(stack)
                found = hdf5_frames.found(stack.path, self._opened(stack.path)[stack.dataset], places)
            self._final[stack.path, stack.dataset] = found.final
            parts.append(stack.ended | found.complete[: stack.n_frames])
            sure.append(found.sure[: stack.n_frames])
            ended = ended and stack.ended
        complete = np.concatenate(parts)
        announced = [stack.announced for stack in self._stacks]
        expected = max((number for number in announced if number is not None), default=None)
        whole = ended and (expected is None or expected <= len(complete))
        return Progress(complete, whole, expected, np.concatenate(sure))

    def _place(self, index: int) -> tuple[Stack, int]:
        """The stack that a frame is in, and its number there."""
        if not 0 <= index < self._info.n_frames:
            raise IndexError(f"frame {index} of {self._info.n_frames}")
        stack = int(np.searchsorted(self._offsets, index, side="right")) - 1
        return self._stacks[stack], index - int(self._offsets[stack])

    def _places(self, stack: Stack) -> hdf5_frames.Stored:
        key = (stack.path, stack.dataset)
        if key not in self._stored:
            self._stored[key] = hdf5_frames.stored(self._opened(stack.path)[stack.dataset])
            if len(self._stored[key].offset) < stack.n_frames:
                raise hdf5_layout.DamagedFile(f"{stack.path}: became shorter while it was read; copy it again")
        return self._stored[key]

    def _fingerprints(self, stack: Stack) -> list[str]:
        key = (stack.path, stack.dataset)
        if key not in self._marks:
            marks = [""] * stack.n_frames
            if stack.dataset and not stack.sources:
                with self._lock, hdf5_layout.faults(stack.path):
                    marks = hdf5_frames.fingerprints(stack.path, self._places(stack), self._final.get(key))
            files = ",".join("{}:{}".format(*file_state(file)) for file in stack.files)
            self._marks[key] = [mark or f"{zlib.crc32(files.encode()):08x}" for mark in marks]
        return self._marks[key]

    def close(self) -> None:
        """Release the open file, and forget what was in it: it may have grown when it is opened again."""
        with self._lock:
            self._stored, self._marks, self._final = {}, {}, {}
            self._release()

    def _release(self) -> None:
        if self._file is not None:
            self._file[1].close()
            self._file = None


def _read(dataset: h5py.Dataset, first: int, out: NDArray[Any]) -> None:
    if dataset.ndim == 2:
        dataset.read_direct(out[0])
    else:
        dataset.read_direct(out, np.s_[first : first + len(out)])


def _read_one(dataset: h5py.Dataset, frame: int, out: NDArray[Any]) -> str:
    try:
        _read(dataset, frame, out)
        return _not_recorded(dataset, frame)
    except (OSError, RuntimeError, ValueError) as error:
        out[:] = 0
        return _unreadable(error)


def _unreadable(error: Exception) -> str:
    return f"unreadable: {' '.join(str(error).split()) or type(error).__name__}"


def _not_recorded(dataset: h5py.Dataset, frame: int) -> str:
    """LImA allocates a dataset for all frames of a scan; a chunk that never got space was never written."""
    if dataset.chunks is None or dataset.is_virtual or dataset.ndim != 3:
        return ""
    chunk = dataset.id.get_chunk_info_by_coord((frame, 0, 0))
    return "" if chunk.byte_offset is not None else direct_chunks.NOT_RECORDED


def _stacks(paths: Sequence[Path], detector: str | None) -> tuple[list[Stack], list[str]]:
    found: list[list[Stack] | BadInput] = []
    for path in paths:
        try:
            found.append(_file_stacks(path, detector))
        except BadInput as error:
            found.append(error)
    readable = [item for item in found if isinstance(item, list)]
    if not readable:
        raise next(item for item in found if isinstance(item, BadInput))
    model = replace(
        readable[0][0], dataset="", n_frames=sum(stack.n_frames for stack in readable[0]), frame_s=None, sources=()
    )
    stacks, warnings = list[Stack](), list[str]()
    for path, item in zip(paths, found, strict=True):
        if isinstance(item, list):
            stacks += item
            continue
        if not isinstance(item, hdf5_layout.DamagedFile):
            raise item
        stacks.append(replace(model, path=path))
        warnings.append(f"{item}; counted as {model.n_frames} unreadable frames, as many as in the first file")
    return stacks, warnings


def _file_stacks(path: Path, detector: str | None) -> list[Stack]:
    with hdf5_layout.reading(path) as root:
        stacks = [_stack(entry, data) for entry, data in hdf5_layout.image_stacks(path, root, detector)]
    if not any(stack.n_frames for stack in stacks):
        raise BadInput(f"{path}: the image stack has no frames yet; wait for the first, or check the acquisition")
    return stacks


def _stack(entry: h5py.Group, dataset: h5py.Dataset) -> Stack:
    count = dataset.shape[0] if dataset.ndim == 3 else 1
    frame_s = hdf5_layout.beside(dataset, "time_of_frame")
    return Stack(
        path=Path(dataset.file.filename),  # an external link leads to another file
        sources=hdf5_layout.source_files(dataset),
        dataset=str(dataset.name),
        n_frames=int(count),
        shape=(int(dataset.shape[-2]), int(dataset.shape[-1])),
        dtype=dataset.dtype.newbyteorder("="),
        header=hdf5_layout.header_keys(entry, dataset),
        start=hdf5_layout.entry_text(entry, "start_time"),
        frame_s=None if frame_s is None else np.asarray(frame_s[()], float).reshape(-1),
        exposure_s=_exposure(dataset),
        ended=bool(hdf5_layout.entry_text(entry, "end_time")),
        announced=_announced(dataset),
    )


def _announced(dataset: h5py.Dataset) -> int | None:
    node = hdf5_layout.beside(dataset, "acquisition/nb_frames")
    number = headers.number({"n": hdf5_layout.text(node[()])}, "n") if isinstance(node, h5py.Dataset) else None
    return None if number is None or number < 1 else int(number)


def _exposure(dataset: h5py.Dataset) -> float | None:
    for name in _EXPOSURES:
        node = hdf5_layout.beside(dataset, name)
        if isinstance(node, h5py.Dataset) and node.size == 1:
            value = headers.number({"t": hdf5_layout.text(node[()])}, "t")
            unit = hdf5_layout.text(node.attrs.get("units", "s"))
            if value is not None and value > 0 and unit in _TO_SECONDS:
                return value * _TO_SECONDS[unit]
    return None


def _check_alike(stacks: Sequence[Stack]) -> None:
    first = next(stack for stack in stacks if stack.dataset)
    for stack in stacks:
        if (stack.shape, stack.dtype) != (first.shape, first.dtype):
            raise BadInput(
                f"the frames differ: {first.path} {first.dataset} has {first.dtype} images of {first.shape}, "
                f"{stack.path} {stack.dataset} {stack.dtype} of {stack.shape} (rows, columns); give files of one kind"
            )


def _geometry(stack: Stack) -> tuple[HeaderGeometry | None, tuple[str, ...]]:
    read = headers.saxs_geometry if "SampleDistance" in stack.header else headers.nxmx_geometry
    return read(stack.header, stack.shape)


def _dummy(stack: Stack) -> tuple[float | None, float]:
    """Dummy of the SAXS header; an Eiger writes its masked pixels as the largest number of the pixel type."""
    if "saturation_value" in stack.header and stack.dtype.kind == "u":
        return float(np.iinfo(stack.dtype).max), 0.0
    return headers.saxs_dummy(stack.header)


def _times(stacks: Sequence[Stack]) -> tuple[FrameTimes | None, tuple[str, ...]]:
    """Times from time_of_frame (s since the start of its acquisition) and the acquisition's exposure time.

    Several acquisitions are put on one clock by their start_time; frames that were not recorded have time NaN.
    """
    if all(stack.frame_s is None for stack in stacks):
        return None, ()
    if any(stack.exposure_s is None for stack in stacks):
        return None, ("time_of_frame is recorded without an exposure time and is not used",)
    parts = [_frame_starts(stack) for stack in stacks]
    several_entries = len({stack.path for stack in stacks}) < len(stacks)
    if several_entries or not _increases(np.concatenate(parts)):
        parts = _on_one_clock(stacks, parts)
    start = np.concatenate(parts) if parts else np.array([])
    if not parts or not _increases(start):
        return None, ("time_of_frame does not increase over all frames, or restarts without a start_time: not used",)
    exposure = np.concatenate([np.full(stack.n_frames, stack.exposure_s) for stack in stacks])
    return FrameTimes(start, exposure, "time_of_frame"), ()


def _on_one_clock(stacks: Sequence[Stack], parts: Sequence[Floats]) -> list[Floats]:
    """Starts of all acquisitions relative to the first one's start_time; [] where that is not known for all."""
    dates = [headers.parse_date(stack.start) for stack in stacks]
    known = [date for date in dates if date is not None]
    if len(known) < len(dates) or len({date.tzinfo is None for date in known}) > 1:
        return []
    return [part + (date - known[0]).total_seconds() for part, date in zip(parts, known, strict=True)]


def _frame_starts(stack: Stack) -> Floats:
    starts = np.full(stack.n_frames, np.nan)
    if stack.frame_s is not None:
        known = stack.frame_s[: stack.n_frames]
        starts[: len(known)] = known
        starts[1:][starts[1:] == 0] = np.nan  # pre-allocated and never filled
    return starts


def _increases(start: Floats) -> bool:
    return bool(np.all(np.diff(start[np.isfinite(start)]) > 0))


def open_hdf5_frames(paths: Sequence[Path], detector: str | None = None, **_: Any) -> Hdf5Source:
    """LImA, NeXus or Eiger master files."""
    return Hdf5Source(paths, detector)
