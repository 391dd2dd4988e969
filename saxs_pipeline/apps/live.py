"""Near-real-time: follow a scan, publish snapshots of it, and at its end write what a batch run writes."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from saxs_pipeline import engine, pipeline
from saxs_pipeline.apps import batch
from saxs_pipeline.apps.dashboard import serve
from saxs_pipeline.apps.follow import Follower, Seen
from saxs_pipeline.apps.snapshot import Latest, ModelCurves, Snapshot, State
from saxs_pipeline.apps.status import Frames
from saxs_pipeline.apps.watch import watching
from saxs_pipeline.fields import FoundFiles
from saxs_pipeline.runfile import RunFile, look_again
from saxs_pipeline.types import BadInput, RunResult

STALLED_S = 30.0
STALLED_GAPS = 5.0
"""A scan is stalled when nothing came for so long, and for so many of its longest pauses."""

SHARE = 0.5
"""Share of the time that snapshots of a long series may take; their rate falls, the frames' does not."""

ANALYSIS_S = 3.0
ANALYSIS_SHARE = 0.1
"""The analysis of the series is made anew so often, and takes at most this share of the time."""

AGAIN_S = (10.0, 300.0)
"""Results that could not be written (a full disk) are tried again after the first, then later, at most the last."""

RATE_S = 10.0
TELL_S = 10.0
LAST_WORD_S = 1.0
"""Pages that are open get so long to fetch what ended it."""
QUIET_S = 2.0
"""Without news a snapshot is published so often."""


@dataclass
class Arrivals:
    """When frames came in: for the rate, the lag, and to know a pause from the end."""

    complete: int = 0
    last: float = field(default_factory=time.time)
    longest: float = 0.0
    recent: deque[tuple[float, int]] = field(default_factory=deque)
    waiting: deque[tuple[float, int]] = field(default_factory=deque)

    def note(self, complete: int, when: float) -> None:
        """So many frames are there; the newest of them came at `when` (s since 1970)."""
        now = time.time()
        if complete > self.complete:
            if self.complete:
                self.longest = max(self.longest, now - self.last)
            self.last, self.complete = now, complete
            self.waiting.append((when, complete))
        self.recent.append((now, self.complete))
        while now - self.recent[0][0] > RATE_S:
            self.recent.popleft()

    def lag_s(self, processed: int) -> float:
        """Age of the newest of so many processed frames; NaN where none is new."""
        age = float("nan")
        while self.waiting and self.waiting[0][1] <= processed:
            age = time.time() - self.waiting.popleft()[0]
        if self.waiting:  # frames of one arrival are processed in pieces
            age = time.time() - self.waiting[0][0]
        return age

    @property
    def rate(self) -> float:
        """Frames per second in the last RATE_S."""
        (begin, first), (end, last) = self.recent[0], self.recent[-1]
        return (last - first) / (end - begin) if end > begin else 0.0

    @property
    def stalled(self) -> bool:
        """Whether the scan has paused for longer than its pauses so far explain."""
        return time.time() - self.last > max(STALLED_S, STALLED_GAPS * self.longest)


class _Pace:
    """Something repeated that may take a share of the time, and comes no more often than `least_s`."""

    def __init__(self, share: float, least_s: float = 0.0) -> None:
        self._share, self._least_s, self._cost_s = share, least_s, 0.0
        self.last = -np.inf

    def due(self) -> bool:
        """Whether it may be done again."""
        return time.monotonic() - self.last >= max(self._least_s, self._cost_s / self._share)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Around doing it."""
        begin = time.monotonic()
        yield
        self.last = time.monotonic()
        self._cost_s = self.last - begin


class _Refusal(NamedTuple):
    """Results that could not be made or written, of so many frames: tried again later and later, or with more."""

    complete: int
    pause_s: float
    until: float

    @classmethod
    def of(cls, complete: int, before: _Refusal | None) -> _Refusal:
        pause_s = AGAIN_S[0]
        if before is not None and before.complete == complete:
            pause_s = min(2 * before.pause_s, AGAIN_S[1])
        return cls(complete, pause_s, time.monotonic() + pause_s)

    def is_over(self, complete: int) -> bool:
        """Whether it may go well now."""
        return complete != self.complete or time.monotonic() >= self.until


class Live:
    """One scan followed: `step` looks once and publishes."""

    def __init__(self, run: RunFile, pool: engine.Pool, latest: Latest, claim: batch.Claim) -> None:
        pipeline.check_reaction(run)
        self._frames = run.config.data.frames
        if self._frames is None:
            raise run.error("data.curves", "live follows frames (data.frames); for integrated curves use `run`")
        self._run, self._pool, self._latest, self._claim = run, pool, latest, claim
        self._follower = Follower(run, pool, partial(claim.store, collect=True))
        self._arrivals = Arrivals()
        self._looked = time.time()
        self._shown = _Pace(SHARE)
        self._analysed = _Pace(ANALYSIS_SHARE, ANALYSIS_S)
        self._concluding: Future[RunResult] | None = None
        self._stale, self._published = False, 0.0
        self._held = self._follower.held
        self._delivered = -1
        self._refusal: _Refusal | None = None
        self.last_words: Callable[[], None] | None = None

    def step(self) -> State:
        """Look for frames, process some, publish; write the results when the scan has ended or stalls.

        Raises BadInput for what waiting cannot mend; the last snapshot then says so.
        """
        begin = time.time()
        try:
            seen = self._follower.look()
            self._arrivals.note(seen.complete, min(max(self._follower.written, self._looked), begin))
            if self._refusal is not None and self._refusal.is_over(seen.complete):
                self._delivered = -1
            state = self._state(seen)
            due = state in ("finished", "stalled") and self._delivered != seen.complete
            self._show(seen, "running" if due else state, due=due)
            self._looked = begin
            if due:
                self._deliver(state, seen)
        except BadInput as error:
            self._publish(state="failed", message=error.messages[0])
            raise
        return self._latest.pull().state

    def flush(self) -> None:
        """All processed frames onto the disk."""
        self._follower.flush()

    def _state(self, seen: Seen) -> State:
        if seen.waiting and not seen.complete:
            return "waiting"
        announced = seen.expected is not None and seen.complete >= seen.expected
        more_files = isinstance(self._frames, FoundFiles) and self._frames.open_ended
        if seen.ended and not seen.left and (announced or not more_files):
            return "stalled" if self._refusal is not None and self._delivered == seen.complete else "finished"
        return "stalled" if self._arrivals.stalled and not seen.left else "running"

    def _show(self, seen: Seen, state: State, *, due: bool) -> None:
        """Publish what changed: results no more often than their share of the time allows, but when they are due."""
        self._stale |= bool(seen.fresh) or self._follower.held != self._held
        self._held = self._follower.held
        before = self._latest.pull()
        told = before.message if state == before.state and self._delivered == seen.complete else ""
        message = seen.waiting or told
        changes: dict[str, Any] = {
            "state": state,
            "message": message,
            "n_complete": seen.complete,
            "n_expected": seen.expected,
            "rate": self._arrivals.rate,
        }
        if self._stale and (self._shown.due() or not before.n_processed or due):
            with self._shown.measured():
                changes |= self._result()
            self._stale = False
        lag_s = self._arrivals.lag_s(int(changes.get("n_processed", before.n_processed)))
        changes["lag_s"] = before.lag_s if np.isnan(lag_s) else lag_s
        news = (before.state, before.message, before.n_complete) != (state, message, seen.complete)
        if "result" in changes or news or time.monotonic() - self._published >= QUIET_S:
            self._publish(**changes)

    def _result(self) -> dict[str, Any]:
        """What a snapshot says about the processed frames."""
        result = self._follower.result()
        if result is None:
            return {}
        flagged = int(np.count_nonzero(~result.curves.usable))
        changes: dict[str, Any] = {"result": result, "n_processed": len(result.curves.index), "n_flagged": flagged}
        warnings = (*self._follower.gaps(), *result.warnings)
        changes |= {"warnings": warnings, "spec": self._follower.spec, "series": self._follower.series}
        return changes | self._analysis(result)

    def _analysis(self, result: RunResult) -> dict[str, Any]:
        """The last analysis that is ready; the next one is begun, beside all else, when its time has come."""
        ready: dict[str, Any] = {}
        if self._concluding is not None and self._concluding.done():
            done, self._concluding = self._concluding, None
            if done.exception() is None:  # a look ahead: what fails here is said at the end, by the run itself
                ready = {"analysis": done.result().analysis, "model": _model_curves(done.result())}
        if self._concluding is None and self._analysed.due():
            self._concluding = _aside(partial(self._conclude, result))
        return ready

    def _conclude(self, result: RunResult) -> RunResult:
        with self._analysed.measured():
            return pipeline.conclude(result, self._without_fit(), None)

    def _without_fit(self) -> RunFile:
        """The run file with its kinetic model as given: to fit it takes seconds, and waits for the end."""
        config = self._run.config
        if config.kinetics is None:
            return self._run
        kinetics = config.kinetics.model_copy(update={"fit": ()})
        return replace(self._run, config=config.model_copy(update={"kinetics": kinetics}))

    def _deliver(self, state: State, seen: Seen) -> None:
        """What `run` would write now; checkpoints are kept while more may come."""
        self._publish(state="running", message="writing the results")
        self._follower.flush()
        self._delivered = seen.complete
        try:
            now = look_again(self._run)
            result = batch.compute(
                now,
                quiet=True,
                store_of=self._claim.store,
                pool=self._pool,
                say=lambda line: self._publish(message=line),
            )
            folder = batch.write(result, now)
        except (BadInput, OSError) as error:
            why = error.messages[0] if isinstance(error, BadInput) else str(error)
            self._refusal = _Refusal.of(seen.complete, self._refusal)
            self._publish(state="stalled", message=f"no results yet: {why}")
            return
        self._refusal = None
        if state == "stalled":  # the result has a row for each frame that is still to come, too
            self._publish(state=state, message=f"results are in {folder.name}/; waiting for more frames")
            return
        self.last_words = partial(self._finish, result, f"results are in {folder.name}/")
        self.last_words()

    def _finish(self, result: RunResult, message: str) -> None:
        """Say so; checkpoints go. Interrupted, it is done again."""
        self._publish(state="finished", message=message, **self._final(result))
        self._claim.end("finished", message)

    def _final(self, result: RunResult) -> dict[str, Any]:
        return {
            "result": result,
            "n_processed": len(result.curves.index),
            "n_flagged": int(np.count_nonzero(~result.curves.usable)),
            "warnings": result.warnings,
            "analysis": result.analysis,
            "model": _model_curves(result),
        }

    def _publish(self, **changes: Any) -> None:
        before = self._latest.pull()
        snapshot = replace(before, version=before.version + 1, **changes)
        self._latest.publish(snapshot)
        frames = Frames(snapshot.n_expected, snapshot.n_complete, snapshot.n_processed, 0, snapshot.n_flagged)
        self._claim.tell(frames, snapshot.rate, snapshot.state, snapshot.message)
        self._published = time.monotonic()


def _aside(work: Callable[[], RunResult]) -> Future[RunResult]:
    """Do it in a thread that an end of the process does not wait for."""
    result: Future[RunResult] = Future()

    def do() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=do, daemon=True, name="analysis").start()
    return result


def _model_curves(result: RunResult) -> ModelCurves | None:
    c = result.comparison
    if c is None:
        return None
    return ModelCurves(c.curve_time_s, c.curve_radius_nm, c.curve_sigma_nm, c.curve_c_umol_L, c.curve_yield)


def follow(
    run: RunFile, *, port: int, origins: Sequence[str] = (), token: str | None = None, say: Callable[[str], None]
) -> None:
    """Follow the scan of a run file and serve its page, until interrupted.

    say: takes one line when the state changes. Raises BadInput for what waiting cannot mend.
    """
    latest = Latest(Snapshot(0, "waiting", "starting", run.config.title))
    with (
        batch.claimed(run, "live", say) as claim,
        watching() as watch,
        serve(latest, port=port, origins=origins, token=token) as url,
        engine.pool(run.config.engine) as pool,
    ):
        say(f"live page: {url}" + (f"\ndask's dashboard: {pool.link}" if pool.link else ""))
        preload()
        live, teller = Live(run, pool, latest, claim), _Teller(say)
        try:
            while live.step() != "finished":
                teller.tell(latest.pull())
                watch.wait(run)
            teller.tell(latest.pull())
            say(f"results: {run.config.output.folder}\nthe page stays until Ctrl-C")
            threading.Event().wait()
        except KeyboardInterrupt:
            live.flush()
            if live.last_words is None:
                raise
            signal.setitimer(signal.ITIMER_REAL, 0)  # it has arrived, and need not be raised again
            live.last_words()
            teller.tell(latest.pull())
        except BadInput:
            with suppress(BadInput):  # a full disk, which is what is being said
                live.flush()
            time.sleep(LAST_WORD_S)
            raise


def preload() -> None:
    """Import what takes seconds while the scan has not begun."""
    import lmfit  # noqa: F401
    import pyFAI.integrator.azimuthal  # noqa: F401

    import saxs_pipeline.io.hdf5_source  # noqa: F401


class _Teller:
    """Says in the terminal what changes, counts no more often than every TELL_S."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._state, self._line, self._said = say, "", "", -np.inf

    def tell(self, snapshot: Snapshot) -> None:
        """Say the state and its message, if they are news."""
        line = f"{snapshot.state}: {snapshot.message}" if snapshot.message else snapshot.state
        now = time.monotonic()
        if snapshot.state != self._state or (line != self._line and now - self._said >= TELL_S):
            self._say(line)
            self._state, self._line, self._said = snapshot.state, line, now
