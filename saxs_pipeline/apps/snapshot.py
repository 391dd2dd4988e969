"""What a live page shows: one immutable snapshot after the other, from one writer; readers pull the latest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from saxs_pipeline.reaction import SeriesAnalysis
    from saxs_pipeline.series import FrameSeries
    from saxs_pipeline.stages.integrate import IntegrationSpec
    from saxs_pipeline.types import Floats, RunResult

State = Literal["waiting", "running", "stalled", "finished", "failed"]


@dataclass(frozen=True, eq=False)
class ModelCurves:
    """The kinetic model beside the series: time_s, radius_nm, sigma_nm, c_nc_umol_L, yield_, all (k,)."""

    time_s: Floats
    radius_nm: Floats
    sigma_nm: Floats
    c_nc_umol_L: Floats
    yield_: Floats


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The state of a followed scan at one moment.

    message: one line, what it waits for or what went wrong. n_complete frames are on disk, n_processed of them are in
    `result`, n_flagged of these could not be used; n_expected as the scan says, None where it does not. rate: frames
    per second that came in lately; lag_s from the newest frame's arrival to this snapshot, NaN without one.
    result: all processed frames, without analysis and comparison, None before the first; `analysis` may be some frames
    behind it. series: reads the raw frames of `result` by number; spec: what their pixels mean.
    """

    version: int
    state: State
    message: str
    title: str
    n_complete: int = 0
    n_processed: int = 0
    n_flagged: int = 0
    n_expected: int | None = None
    rate: float = 0.0
    lag_s: float = float("nan")
    warnings: tuple[str, ...] = ()
    result: RunResult | None = None
    analysis: SeriesAnalysis | None = None
    model: ModelCurves | None = None
    series: FrameSeries | None = None
    spec: IntegrationSpec | None = None


class Latest:
    """The newest snapshot: one writer publishes, any number of readers pull."""

    def __init__(self, first: Snapshot) -> None:
        self._snapshot = first

    def publish(self, snapshot: Snapshot) -> None:
        """Replace the snapshot, in one step for all readers; versions only grow."""
        self._snapshot = snapshot

    def pull(self) -> Snapshot:
        """The newest snapshot."""
        return self._snapshot
