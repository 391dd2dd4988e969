"""A scan that grows, or has not begun: looked at again and again, every new frame processed once."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from saxs_pipeline import engine, pipeline, plan, provenance
from saxs_pipeline.checkpoint import COLLECT_S, PASSING_PROBLEMS, FrameStore
from saxs_pipeline.fields import FoundFiles
from saxs_pipeline.io.frames import file_state
from saxs_pipeline.plan import Plan
from saxs_pipeline.runfile import RunFile, input_files, input_paths, look_again
from saxs_pipeline.series import FrameSeries, open_sample
from saxs_pipeline.stages.integrate import IntegrationSpec
from saxs_pipeline.types import BadInput, Bools, ChunkResult, Progress, Provenance, RunResult

AT_ONCE = 96
"""Frames processed between two looks: a burst is worked off in pieces, and meanwhile the page goes on."""

SETTLED_S = 5.0
"""References unchanged for so long are complete: what is wrong with them then is a mistake, not a copy under way."""

AGAIN_S = (1.0, 30.0)
"""A frame that cannot be read is tried again after the first, twice as long each time, at most the last."""


TORN_S = 3.0
"""A file that another program writes may not be readable for a moment; after so long it is said."""

MOST_NAMED = 5
"""Files or frames named in one line; of the others it says how many."""


@dataclass(frozen=True)
class Seen:
    """What a look found. waiting: one line, what is missing before frames can be processed, "" if nothing is.

    complete: frames on disk; fresh: processed by this look; left: complete ones still to be processed; ended: the
    source says that no more will come, and all it has is complete, or nothing changes any more.
    """

    waiting: str
    complete: int = 0
    expected: int | None = None
    ended: bool = False
    fresh: int = 0
    left: int = 0


@dataclass
class Follower:
    """Follows the frames of a run file; `store_of` opens the checkpoints of a plan (by its key)."""

    run: RunFile
    pool: engine.Pool
    store_of: Callable[[Plan], FrameStore]
    series: FrameSeries | None = None
    _plan: Plan | None = None
    _ready: bool = False
    _store: FrameStore | None = None
    _stored: str = ""
    _keys: list[str] = field(default_factory=list)
    _done: list[int] = field(default_factory=list)
    _now: RunFile | None = None
    _references: tuple[object, ...] = ()
    _marks: list[str] = field(default_factory=list)
    _changed: float = 0.0
    _late: list[str] = field(default_factory=list)
    _said_then: tuple[str, ...] = ()
    _seen: Seen = field(default_factory=lambda: Seen(""))
    _torn_since: float = np.inf
    _again: dict[str, tuple[float, float]] = field(default_factory=dict)
    _provenance: tuple[str, Provenance] | None = None

    def look(self) -> Seen:
        """Look for new frames and process them, at most AT_ONCE; raises BadInput for what waiting cannot mend."""
        before = () if self.series is None else self.series.paths
        try:
            now = look_again(self.run)
            missing = _missing(now)
            if missing:
                return self._not_now(f"not there yet: {missing}")
            self.series = open_sample(now, growing=True)
            progress = self.series.progress()
            marks = self.series.marks()
        except (BadInput, OSError) as error:
            return self._not_now(str(error))
        self._now, self._torn_since = now, np.inf
        self._note_late(before, self.series.paths)
        if not self._prepare(now, self.series):
            return Seen("the references are still being written")
        assert self._plan is not None
        complete, ended = self._settled(progress, marks)
        wait = self._background(now, self._plan, complete, ended)
        fresh, left, idle = self._process(self._plan if self._ready else _bare(self._plan), complete)
        self._seen = Seen(idle or wait, int(complete.sum()), progress.expected, ended, fresh, left)
        return self._seen

    def _not_now(self, reason: str) -> Seen:
        """The files cannot be opened; what was seen before stays, and the reason is said if it lasts."""
        self._torn_since = min(self._torn_since, time.monotonic())
        lasting = not self._seen.complete or time.monotonic() - self._torn_since > TORN_S
        return replace(self._seen, waiting=reason if lasting else self._seen.waiting, fresh=0, left=0, ended=False)

    def _prepare(self, now: RunFile, series: FrameSeries) -> bool:
        """References and geometry, again where one of their files changed; False while they are still being written."""
        references = (series.info.shape, *(file_state(path) for path in _references(now)))
        if self._plan is None or self._references != references:
            try:
                self._plan, self._ready = plan.prepare_frames(now, series), False
                self._said_then, self._references = series.warnings, references
            except BadInput:
                if _changed_lately(now):
                    return False
                raise
        self._plan = replace(self._plan, series=series)
        return True

    def _background(self, now: RunFile, prepared: Plan, complete: Bools, ended: bool) -> str:
        """Evaluate the background once its frames are there; until then, what is missing."""
        if self._ready:
            return ""
        wait = "" if ended else plan.background_waits(now, prepared, complete)
        if not wait:
            try:
                self._plan, self._ready = plan.with_background(now, prepared), True
            except BadInput as error:
                if ended:
                    raise
                wait = error.messages[0]
        return f"no fits yet, the background is still in the curves: {wait}" if wait else ""

    def result(self) -> RunResult | None:
        """All processed frames so far, in their order; None before the first. What is not there yet is left out.

        Its provenance is that of the first result with these references: to name every file again takes too long.
        """
        if self._plan is None or self._store is None or not self._done:
            return None
        assert self.series is not None
        frames = self._store.assemble([self._keys[k] for k in self._done])
        if self._provenance is None or self._provenance[0] != self._plan.key:
            self._provenance = self._plan.key, provenance.collect(self._now or self.run, self._plan)
        result = pipeline.finish(self._plan, _numbered(frames, self._done), self._provenance[1])
        others = (warning for warning in result.warnings if warning not in self._said_then)
        series = self.series.warnings if self._seen.ended else ()  # of a running scan they are about what is to come
        return replace(result, warnings=(*series, *others))

    def flush(self) -> None:
        """All processed frames onto the disk."""
        if self._store is not None:
            self._store.flush()

    def gaps(self) -> tuple[str, ...]:
        """What is odd about the order in which the frames came, one line each."""
        late = [f"{name} came after later ones and was put in its place" for name in self._late]
        holes = sorted(set(range(self._done[-1])) - set(self._done)) if self._done else []
        if holes:
            late.append(f"not there, although later ones are: frame {_shortened(holes)}")
        absent = [number for _, number in _absent_numbers(self.series.paths if self.series is not None else ())]
        if absent:
            late.append(f"there is no file with number {_shortened(absent)}")
        return tuple(late)

    @property
    def held(self) -> tuple[str, int]:
        """What results are of: the plan, and how many frames, finished now or taken from checkpoints."""
        return self._stored, len(self._done)

    @property
    def written(self) -> float:
        """When a file of the scan was last written, s since 1970."""
        return 0.0 if self.series is None else max(mtime for _, mtime in self.series.identity) / 1e9

    @property
    def spec(self) -> IntegrationSpec | None:
        """What the pixels of the frames mean."""
        return None if self._plan is None else self._plan.spec

    def _settled(self, progress: Progress, marks: list[str]) -> tuple[Bools, bool]:
        """Complete frames that have their time and monitor, (n,), and whether no more will come.

        Where a file may still be written, those count that are unchanged since the look before.
        """
        assert self.series is not None
        series, changed = self.series, marks != self._marks
        same = np.array([self._marks[k : k + 1] == [mark] for k, mark in enumerate(marks)])
        self._marks, self._changed = marks, time.monotonic() if changed else self._changed
        usable = np.isfinite(series.start_s) & (series.exposure_s > 0)
        known = np.flatnonzero([not problem for problem in series.problems])
        usable &= np.arange(len(series)) <= (known[-1] if len(known) else -1)  # counters not written yet are zero
        absent = _absent_numbers(series.paths)
        if absent and series.by_order and len(series.paths) >= len(series):
            usable[absent[0][0] :] = False  # their rows are known once the frame before them is there
        complete: Bools = progress.complete & usable & (same | progress.sure)
        if not progress.ended or changed:
            return complete, False
        if time.monotonic() - self._changed > SETTLED_S:  # what is not there by now is said to be missing
            complete[:] = True
        return complete, bool(complete.all())

    def _process(self, prepared: Plan, complete: Bools) -> tuple[int, int, str]:
        """Process complete frames, AT_ONCE at most: how many were, how many are left, and why, if nobody processes."""
        if self._store is None or self._stored != prepared.key:
            self._store = self.store_of(prepared) if self._ready else FrameStore(None, prepared.key, {})
            self._stored = prepared.key
        store, self._keys = self._store, prepared.frame_keys()
        now, there = time.monotonic(), np.flatnonzero(complete).tolist()
        new = [k for k in there if self._keys[k] not in store]
        again = [k for k in there if self._again.get(self._keys[k], (np.inf, 0.0))[0] <= now]
        wanted = sorted({*new[:AT_ONCE], *again[: max(0, AT_ONCE - len(new))]})

        fresh, idle = 0, ""

        def keep(chunk: ChunkResult) -> None:
            nonlocal fresh
            keys = [self._keys[k] for k in chunk.curves.index.tolist()]
            store.add(keys, chunk)
            self._note_passing(keys, chunk.curves.problems)
            fresh += len(keys)

        assert prepared.series is not None
        size = engine.chunk_size(self.run.config.engine)
        size = max(1, min(size, -(-len(wanted) // engine.workers(self.run.config.engine))))
        try:
            self.pool.run(prepared, plan.pieces(wanted, size), keep, _go_on_looking)
        except _NobodyThere as why:
            idle = str(why)
        store.flush(COLLECT_S)
        self._done = [k for k, key in enumerate(self._keys) if complete[k] and key in store]
        return fresh, sum(self._keys[k] not in store for k in new), idle

    def _note_late(self, before: Sequence[Path], after: Sequence[Path]) -> None:
        """Files that come before one that was there already."""
        if before and len(after) > len(before) and tuple(after[: len(before)]) != tuple(before):
            last = after.index(before[-1]) if before[-1] in after else 0
            self._late += [path.name for path in after[:last] if path not in set(before)]

    def _note_passing(self, keys: Sequence[str], problems: Sequence[str]) -> None:
        """Frames that could not be read are tried again, later and later."""
        for key, problem in zip(keys, problems, strict=True):
            if problem.startswith(PASSING_PROBLEMS):
                pause = min(2 * self._again.get(key, (0.0, AGAIN_S[0] / 2))[1], AGAIN_S[1])
                self._again[key] = time.monotonic() + pause, pause
            else:
                self._again.pop(key, None)


class _NobodyThere(Exception):
    """No worker is there; its text says which."""


def _go_on_looking(why: str) -> None:
    """Workers may come, and meanwhile frames do: neither is waited for inside the pool."""
    raise _NobodyThere(why)


def _references(run: RunFile) -> list[Path]:
    """The files of the run but its frames and scalers."""
    data = run.config.data
    scan = {*(data.frames or ()), *(data.scalers or ())}
    return [path for path in input_paths(run) if path not in scan]


def _missing(run: RunFile) -> str:
    """Files that are named but not there, as they are written in the run file; "" if all are."""
    base = run.path.resolve().parent
    absent: list[str] = []
    for key, found in input_files(run).items():
        if isinstance(found, FoundFiles):
            absent += [f"{key}: {' '.join(found.patterns)}"] if not found else []
            paths: Sequence[Path] = found
        else:
            paths = [Path(str(found).partition("::")[0])]
        absent += [f"{key}: {os.path.relpath(path, base)}{_nowhere(path, base)}" for path in paths if not path.exists()]
    return _shortened(absent)


def _nowhere(path: Path, base: Path) -> str:
    folder = path.parent
    return "" if folder.is_dir() else f" (there is no folder {os.path.relpath(folder, base)})"


def _changed_lately(run: RunFile) -> bool:
    """Whether a file is so young that it may still be written."""
    return any(time.time() - file_state(path)[1] / 1e9 < SETTLED_S for path in input_paths(run))


def _shortened(items: Sequence[object]) -> str:
    more = f" and {len(items) - MOST_NAMED} more" if len(items) > MOST_NAMED else ""
    return ", ".join(map(str, items[:MOST_NAMED])) + more


def _absent_numbers(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """(place, number) of the numbers left out by files that are numbered one after the other.

    place: of the first file after it. [] where most steps are not 1, or more numbers are absent than there: then they
    are no count.
    """
    numbers = [int(found[-1]) for path in paths if (found := re.findall(r"\d+", path.stem))]
    steps = np.diff(np.array(numbers, dtype=object))
    if len(numbers) < len(paths) or len(steps) < 2 or np.count_nonzero(steps == 1) <= len(steps) / 2:
        return []
    jumps = [place for place, step in enumerate(steps) if step > 1]
    if sum(steps[place] - 1 for place in jumps) > len(numbers):
        return []
    return [(place + 1, absent) for place in jumps for absent in range(numbers[place] + 1, numbers[place + 1])]


def _bare(prepared: Plan) -> Plan:
    """The plan without fits and size distributions."""
    return replace(prepared, config=prepared.config.model_copy(update={"model": None, "sizes": None}))


def _numbered(frames: ChunkResult, numbers: Sequence[int]) -> ChunkResult:
    """The same frames with their numbers in the scan."""
    index = np.array(numbers, dtype=np.int64)
    fits = None if frames.fits is None else replace(frames.fits, index=index)
    return replace(frames, curves=replace(frames.curves, index=index), fits=fits)
