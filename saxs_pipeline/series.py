"""A series of frames ready to be processed: its source, its times and what each frame is divided by."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.config import RunConfig
from saxs_pipeline.data_config import FrameFiles
from saxs_pipeline.io import frames, scalers
from saxs_pipeline.io.fio_source import first_times
from saxs_pipeline.runfile import RunFile
from saxs_pipeline.types import BadInput, Floats, FrameChunk, FrameSource, FrameTimes, Ints, Progress, SourceInfo


class Look(NamedTuple):
    """What one opening of a scan that grows found: how much is there, and what tells its frames from others."""

    progress: Progress
    identities: list[str]


@dataclass(frozen=True, eq=False)
class FrameSeries:
    """Frames with their times and divisors; picklable, every worker opens the files itself.

    start_s (relative to the injection), exposure_s, monitor (n,); problems (n,) "" or why a frame cannot be used;
    identity: size and modification time of each file, so that a thread does not go on with an older one; by_order:
    times or divisors are those of a table or law, frame k having row k; look: of a scan that grows, as it was when this
    was opened.
    """

    paths: tuple[Path, ...]
    detector: str | None
    roots: tuple[Path, ...]
    info: SourceInfo
    start_s: Floats
    exposure_s: Floats
    monitor: Floats
    problems: tuple[str, ...]
    time_origin: str
    identity: tuple[tuple[int, int], ...]
    by_order: bool
    warnings: tuple[str, ...] = ()
    look: Look | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What a worker needs: not what was found out about each frame."""
        return {name: value for name, value in self.__dict__.items() if name not in {"look", "_identities"}}

    def __len__(self) -> int:
        return self.info.n_frames

    def read(self, start: int, stop: int) -> FrameChunk:
        """Frames start … stop - 1."""
        with _reading(self) as source:
            images, problems = _read(source, start, stop)
        known = self.problems[start:stop]
        return FrameChunk(
            index=np.arange(start, stop),
            images=images,
            start_s=self.start_s[start:stop],
            exposure_s=self.exposure_s[start:stop],
            monitor=self.monitor[start:stop],
            problems=tuple(a or b for a, b in zip(problems, known, strict=True)),
        )

    def blocks(self, start: int, stop: int) -> Iterator[FrameChunk]:
        """Frames start … stop - 1, as many at a time as take BLOCK_BYTES of memory, one at least."""
        size = max(1, BLOCK_BYTES // (math.prod(self.info.shape) * self.info.dtype.itemsize))
        for first in range(start, stop, size):
            yield self.read(first, min(first + size, stop))

    def left_out(self, key: str, index: Ints, problems: Sequence[str]) -> list[str]:
        """One line for each frame of a reference, at `key` of the run file, that cannot be used, by name."""
        return [
            f"{key}: frame {i} ({self.label(i)}) left out: {problem}"
            for i, problem in zip(index.tolist(), problems, strict=True)
            if problem
        ]

    def label(self, index: int) -> str:
        """File and frame number, for messages."""
        return _source(self).label(index)

    def progress(self) -> Progress:
        """How much of a running scan is on disk, of the frames of this series."""
        if self.look is not None:
            return self.look.progress
        with _reading(self) as source:
            return _look(source, len(self)).progress

    def identities(self) -> list[str]:
        """What tells each frame's recording from any other."""
        return self._identities

    @cached_property
    def _identities(self) -> list[str]:
        if self.look is not None:
            return self.look.identities
        with _reading(self) as source:
            return [source.identity(k) for k in range(len(self))]

    def marks(self) -> list[str]:
        """What a frame's result depends on beside the plan: its recording and its row, one text per frame."""
        rows = zip(self.start_s.tolist(), self.exposure_s.tolist(), self.monitor.tolist(), self.problems, strict=True)
        return [f"{identity}|{row!r}" for identity, row in zip(self.identities(), rows, strict=True)]


BLOCK_BYTES = 2**24
"""Images in memory of each worker at a time: they should stay in the cache of the processor, or nearly."""

PAUSES_S = (0.03, 0.1, 0.3)

_LOST = "unreadable: the files have fewer frames than before"


class _Latest(threading.local):
    key: tuple[Any, ...] = ()
    source: FrameSource | None = None


_latest = _Latest()


def _source(series: FrameSeries) -> FrameSource:
    """This thread's source of the series (file handles are not shared between threads)."""
    key = (series.paths, series.detector, series.roots, series.identity)
    if _latest.source is None or _latest.key != key or _latest.source.info.n_frames < len(series):
        _latest.source, _latest.key = _opened(series), key
    return _latest.source


def _look(source: FrameSource, n: int) -> Look:
    """The first n frames of a scan that may grow."""
    progress = source.progress()
    identities = [source.identity(k) for k in range(n)]
    return Look(progress._replace(complete=progress.complete[:n], sure=progress.sure[:n]), identities)


def _read(source: FrameSource, start: int, stop: int) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Frames of a source; those that it no longer has are unreadable."""
    images, problems = source.read(range(start, min(stop, source.info.n_frames)))
    lost = stop - start - len(images)
    if lost:
        images = np.concatenate([images, np.zeros((lost, *source.info.shape), source.info.dtype)])
    return images, (*problems, *[_LOST] * lost)


def _opened(series: FrameSeries) -> FrameSource:
    """Opened again after a pause where that fails: a file that is just being written to may be torn for a moment."""
    for pause in PAUSES_S:
        try:
            return frames.open_frames(series.paths, detector=series.detector, roots=series.roots)
        except (BadInput, OSError):
            time.sleep(pause)
    return frames.open_frames(series.paths, detector=series.detector, roots=series.roots)


@contextmanager
def _reading(series: FrameSeries) -> Iterator[FrameSource]:
    """The source, its files closed afterwards: HDF5 shows a file that any thread has open as it was when opened."""
    source = _source(series)
    try:
        yield source
    finally:
        source.close()


def open_sample(run: RunFile, *, growing: bool = False) -> FrameSeries:
    """The frames of the measurement itself; times are required.

    Of a `growing` scan the first frames count, as far as images, times and monitor all reach.
    """
    data = run.config.data
    assert data.frames is not None
    files = FrameFiles.model_construct(
        frames=data.frames, scalers=data.scalers, transmission=run.config.intensity.transmission
    )
    return _open_series(run, files, "data", timed=True, growing=growing)


def open_reference(run: RunFile, files: FrameFiles, key: str) -> FrameSeries:
    """Frames of a reference measurement; `key` is its place in the run file, for messages."""
    return _open_series(run, files, key, timed=False)


def open_dark(run: RunFile, files: FrameFiles) -> FrameSeries:
    """Dark frames: neither times nor monitor are needed."""
    config = run.config.model_copy(
        update={"intensity": run.config.intensity.model_copy(update={"monitor": "none", "transmission": None})}
    )
    return _open_series(RunFile(run.path, run.text, config, run.positions), files, "corrections.dark", timed=False)


def _open_series(run: RunFile, files: FrameFiles, key: str, *, timed: bool, growing: bool = False) -> FrameSeries:
    config = run.config
    info, tables, look = _read_files(run, files, key, growing=growing)
    if timed:
        times: FrameTimes | None = _times(run, info, tables, key)
    else:
        dark = config.corrections.dark if config.corrections is not None else None
        needed = config.intensity.monitor == "exposure" or (dark is not None and dark.scale_with_exposure)
        times = _exposures(run, info, tables, files, key) if needed else None
    monitor, problems = _monitor(run, info, tables, times, files, key)
    if times is None:
        times = FrameTimes(np.full(info.n_frames, np.nan), np.full(info.n_frames, np.nan), "not needed")
    return FrameSeries(
        paths=files.frames,
        detector=config.data.detector,
        roots=config.data.roots,
        info=info,
        start_s=times.start_s - config.data.time.zero,
        exposure_s=times.exposure_s,
        monitor=monitor,
        problems=problems,
        time_origin=times.origin,
        identity=tuple(frames.file_state(path) for path in info.paths),
        by_order=bool(tables) or times.origin == scalers.LAW,
        warnings=(*info.warnings, *(w for table in tables for w in table.warnings), *(_doubts(times) if timed else ())),
        look=look,
    )


def _read_files(
    run: RunFile, files: FrameFiles, key: str, *, growing: bool
) -> tuple[SourceInfo, list[scalers.Scalers], Look | None]:
    """What images and scalers say; of a growing scan cut to what both have, and looked at in the same opening."""
    data = run.config.data
    try:
        source = frames.open_frames(files.frames, detector=data.detector, roots=data.roots)
    except BadInput as error:
        raise run.error(f"{key}.frames", str(error)) from None
    with closing(source):
        try:
            tables = [scalers.read_scalers(path, growing=growing) for path in files.scalers or ()]
        except BadInput as error:
            raise run.error(f"{key}.scalers", str(error)) from None
        if not growing:
            return source.info, tables, None
        info, tables = _common_part(source.info, tables)
        return info, tables, _look(source, info.n_frames)


def _common_part(info: SourceInfo, tables: Sequence[scalers.Scalers]) -> tuple[SourceInfo, list[scalers.Scalers]]:
    """Images and scalers cut to the first frames that both have; raises BadInput where there is none yet."""
    joined = _joined_tables(tables)
    columns = [] if joined is None else list(joined.monitors.values())
    if joined is not None and joined.times is not None:
        columns.append(joined.times.start_s)
    n = min([info.n_frames, *(len(column) for column in columns)])
    if n == 0:
        raise BadInput(f"{info.paths[0].name}: no frame has its times and monitor yet")
    cut = replace(info, n_frames=n, times=first_times(info.times, n), monitors=_cut(info.monitors, n))
    return cut, [] if joined is None else [
        replace(joined, times=first_times(joined.times, n), monitors=_cut(joined.monitors, n))
    ]


def _joined_tables(tables: Sequence[scalers.Scalers]) -> scalers.Scalers | None:
    """Several tables as one, with the columns that all of them have; None of none."""
    if len(tables) < 2:
        return tables[0] if tables else None
    names = [name for name in tables[0].monitors if all(name in table.monitors for table in tables)]
    return replace(
        tables[0],
        times=_joined([table.times for table in tables if table.times is not None]),
        monitors={name: np.concatenate([table.monitors[name] for table in tables]) for name in names},
        warnings=tuple(warning for table in tables for warning in table.warnings),
    )


def _cut(monitors: Mapping[str, Floats], n: int) -> dict[str, Floats]:
    return {name: values[:n] for name, values in monitors.items()}


def law_times(config: RunConfig, n: int) -> FrameTimes | None:
    """Times of n frames by the configured law, None without one."""
    law = config.data.time.law
    return None if law is None else scalers.law_times(n, law.exposure, law.wait, law.growth)


def _times(run: RunFile, info: SourceInfo, tables: Sequence[scalers.Scalers], key: str) -> FrameTimes:
    wanted = run.config.data.time.source
    found = {
        "scalers": _joined([t.times for t in tables if t.times is not None]),
        "file": info.times,
        "law": law_times(run.config, info.n_frames),
    }
    for name in ("law", "scalers", "file") if wanted == "auto" else (wanted,):  # a law given is meant
        times = found[name]
        if times is not None:
            if len(times.start_s) != info.n_frames:
                raise run.error(
                    f"{key}.scalers",
                    f"the {name} hold times of {len(times.start_s)} frames, the images are {info.n_frames}; "
                    "give the scalers of this scan, or set data.time.source",
                )
            if not np.isfinite(times.start_s).any():
                raise run.error("data.time", f"no frame has a time ({times.origin}); give data.time.law")
            return times
    raise run.error(
        "data.time.source",
        f"no times found for {info.paths[0].name} ({'in ' + wanted if wanted != 'auto' else 'scalers, files, law'}); "
        "give data.scalers, or data.time: {source: law, law: {exposure: 75 ms, wait: 22 ms, growth: 1.015}}",
    )


def _exposures(
    run: RunFile, info: SourceInfo, tables: Sequence[scalers.Scalers], files: FrameFiles, key: str
) -> FrameTimes:
    """Exposures of a reference: stated, or its own files'. The timing law is the scan's, never a reference's."""
    if files.exposure is not None:
        return FrameTimes(np.full(info.n_frames, np.nan), np.full(info.n_frames, files.exposure), "run file")
    times = _joined([t.times for t in tables if t.times is not None]) or info.times
    if times is None or len(times.start_s) != info.n_frames:
        raise run.error(
            f"{key}.frames",
            f"the exposure of these frames is needed and not in their files; give {key}.exposure, e.g. 1 s",
        )
    return times


def _doubts(times: FrameTimes) -> tuple[str, ...]:
    """What is odd about the times of a scan."""
    start = times.start_s
    if not np.isfinite(start).all():
        return (f"{np.count_nonzero(~np.isfinite(start))} frames have no time ({times.origin})",)
    if (np.diff(start) <= 0).any():
        first = int(np.flatnonzero(np.diff(start) <= 0)[0]) + 1
        return (f"the times do not increase from frame {first} on ({times.origin})",)
    return ()


def _joined(parts: Sequence[FrameTimes]) -> FrameTimes | None:
    if not parts:
        return None
    return FrameTimes(
        np.concatenate([p.start_s for p in parts]), np.concatenate([p.exposure_s for p in parts]), parts[0].origin
    )


def _monitor(  # noqa: PLR0917
    run: RunFile,
    info: SourceInfo,
    tables: Sequence[scalers.Scalers],
    times: FrameTimes | None,
    files: FrameFiles,
    key: str,
) -> tuple[Floats, tuple[str, ...]]:
    """What each frame is divided by, (n,), and which frames it cannot divide."""
    name = run.config.intensity.monitor or "none"
    if name == "none":
        return np.ones(info.n_frames), ("",) * info.n_frames
    if name == "exposure":
        assert times is not None
        values = times.exposure_s
    else:
        values = _named_monitor(run, name, info, tables, key)
    if len(values) != info.n_frames:
        raise run.error(
            f"{key}.scalers",
            f"monitor {name} has {len(values)} values for {info.n_frames} frames; give the scalers of this scan "
            "(a missing monitor is never replaced)",
        )
    problems = tuple(
        "" if v > 0 and np.isfinite(v) else f"monitor_{'zero' if v <= 0 else 'nan'}: {name} is {v:g}" for v in values
    )
    if name != "I0":
        return values, problems
    if files.transmission is None:
        raise run.error(f"{key}.transmission", "monitor I0 is before the sample; give this measurement's transmission")
    return values * files.transmission.value, problems


def _named_monitor(run: RunFile, name: str, info: SourceInfo, tables: Sequence[scalers.Scalers], key: str) -> Floats:
    holders = [t.monitors for t in tables] or [info.monitors]
    if all(name in monitors for monitors in holders):
        return np.concatenate([monitors[name] for monitors in holders])
    known = sorted({k for monitors in holders for k in monitors})
    where = ", ".join(t.path.name for t in tables) or info.paths[0].name
    if not known:
        raise run.error(
            f"{key}.scalers" if not tables else "intensity.monitor",
            f"no monitor found in {where}; give the scalers file as {key}.scalers, "
            "or say intensity.monitor: exposure or none",
        )
    raise run.error("intensity.monitor", f"no monitor {name!r} in {where}; found: {', '.join(known)}")
