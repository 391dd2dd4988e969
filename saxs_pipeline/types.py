"""What travels between the stages: frozen dataclasses, with shapes and units in the docstrings.

Internal units everywhere: q in 1/nm, lengths of the sample in nm, I(q) in 1/mm (per steradian), concentration in
µmol/L, time in s, energy in keV; detector geometry in m and rad (pyFAI's convention).
Shapes: n frames, m bins in q, ny × nx pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.model_spec import ModelSpec

if TYPE_CHECKING:
    from saxs_pipeline.quality import Quality
    from saxs_pipeline.reaction import Comparison, ScaledAliquots, SeriesAnalysis
    from saxs_pipeline.size_distribution import SizeDistributions

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


class BadInput(Exception):
    """The user's input cannot be processed; each message is one line that says what, where and how to mend it."""

    def __init__(self, *messages: str) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages

    def __reduce__(self) -> tuple[type[BadInput], tuple[str, ...]]:
        return BadInput, self.messages


class Uncertain(NamedTuple):
    """A value with its standard uncertainty, both in the unit of the field that holds it."""

    value: float
    error: float = 0.0

    @property
    def relative(self) -> float:
        """Relative standard uncertainty."""
        return abs(self.error / self.value)


@dataclass(frozen=True)
class FrameTimes:
    """Start (s, on the clock of the source) and exposure (s) of every frame, both (n,); `origin` says where from."""

    start_s: Floats
    exposure_s: Floats
    origin: str


@dataclass(frozen=True)
class HeaderGeometry:
    """Geometry found in a file's header, in pyFAI's convention: m and rad; poni1/pixel1 along the slow axis."""

    distance_m: float
    poni1_m: float
    poni2_m: float
    pixel1_m: float
    pixel2_m: float
    wavelength_m: float | None = None
    rot1: float = 0.0
    rot2: float = 0.0
    rot3: float = 0.0


@dataclass(frozen=True)
class SourceInfo:
    """What a frame source holds, known without reading its images.

    `times` and `monitors` are what the images' own files say (a scalers file may say more). `header` has the first
    frame's keys as text. `dummy`: pixels with |value - dummy| <= delta_dummy were not measured.
    """

    kind: str
    paths: tuple[Path, ...]
    n_frames: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    header: Mapping[str, str] = field(default_factory=dict)
    geometry: HeaderGeometry | None = None
    times: FrameTimes | None = None
    monitors: Mapping[str, Floats] = field(default_factory=dict)
    dummy: float | None = None
    delta_dummy: float = 0.0
    pedestal: float | None = None
    saturation: float | None = None
    warnings: tuple[str, ...] = ()


class Progress(NamedTuple):
    """How much of a scan is on disk.

    complete (n,): frames that are there; ended: the source itself says that no more will come; expected: number of
    frames it announced, None if unknown; sure (n,): False where a frame may still be written although it can be read,
    so that only an identity unchanged at a second look says that it is complete.
    """

    complete: Bools
    ended: bool
    expected: int | None
    sure: Bools


class FrameSource(Protocol):
    """A sequence of equally shaped frames. Cheap to open, so that every worker opens its own."""

    @property
    def info(self) -> SourceInfo:
        """What the source holds."""
        ...

    def read(self, indices: Sequence[int]) -> tuple[NDArray[Any], tuple[str, ...]]:
        """Images (n, ny, nx) in the file's dtype and, per frame, what is wrong with it ("" if nothing).

        A frame that cannot be read is a frame of zeros with its reason, never an exception.
        """
        ...

    def label(self, index: int) -> str:
        """File and frame number for messages, e.g. "scan_00.h5 frame 17"."""
        ...

    def identity(self, index: int) -> str:
        """What tells this frame's recording from any other: of its own file or bytes, whatever is appended later."""
        ...

    def progress(self) -> Progress:
        """How much of a scan that may still be running is there."""
        ...

    def close(self) -> None:
        """Release the files."""
        ...


@dataclass(frozen=True)
class FrameChunk:
    """Consecutive frames on their way to the integration.

    index (n,) frame numbers from 0; images (n, ny, nx); start_s and exposure_s (n,) relative to the time zero;
    monitor (n,) what I is divided by (monitor · transmission where the monitor is before the sample);
    problems (n,) reason not to use a frame, "" if none.
    """

    index: Ints
    images: NDArray[Any]
    start_s: Floats
    exposure_s: Floats
    monitor: Floats
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Curves:
    """Integrated curves I(q) with their uncertainties kept apart (science.md §1).

    q_nm (m,); intensity (n, m) in `unit`; statistical (n, m) independent per point and frame; shared (m,) common to
    all frames (the background's); dark_sigma (m,) the dark frame's, common to all frames too, of which frame i has
    dark_factor[i] times, (n,), less what the background has of it; scale_rel one relative uncertainty of everything;
    factor_rel: relative uncertainty of each frame's own factor, its monitor reading, which moves the whole curve and
    what was taken off it; taken_off (m,): the background in it, f·B, of which taken_off_rel is that of B's factor;
    counts (n, m) pixels per bin (0 and intensity NaN where nothing was measured); index, start_s, exposure_s (n,);
    problems (n,) "" if the frame is usable, else "word: reason"; notes (n,) words on usable frames ("saturated"), ""
    if none; correlated: True where pixel splitting ties neighbouring bins together.
    """

    q_nm: Floats
    intensity: Floats
    statistical: Floats
    shared: Floats
    counts: Floats
    index: Ints
    start_s: Floats
    exposure_s: Floats
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    dark_sigma: Floats
    dark_factor: Floats
    taken_off: Floats
    unit: str = "1/mm"
    scale_rel: float = 0.0
    factor_rel: float = 0.0
    taken_off_rel: float = 0.0
    correlated: bool = False

    @property
    def common(self) -> Floats:
        """What background and dark leave in each frame, equal in all but for the dark's factor, (n, m)."""
        return np.hypot(self.shared, np.abs(self.dark_factor)[:, None] * self.dark_sigma)

    @property
    def sigma(self) -> Floats:
        """Point-wise uncertainty of one frame, √(statistical² + common²), (n, m)."""
        return np.hypot(self.statistical, self.common)

    @property
    def by_factor(self) -> Floats:
        """What one standard error of its own factor does to each curve, (n, m): in no other σ."""
        return self.factor_rel * (self.intensity + self.taken_off)

    @property
    def by_background(self) -> Floats:
        """What one standard error of the background's factor does to all curves, (m,): in no other σ."""
        return self.taken_off_rel * self.taken_off

    @property
    def time_s(self) -> Floats:
        """Mid-exposure time relative to the injection, s, (n,)."""
        return self.start_s + 0.5 * self.exposure_s

    @property
    def usable(self) -> Bools:
        """Frames without a problem, (n,)."""
        return np.array([not problem for problem in self.problems], dtype=np.bool_)

    def select(self, start: int, stop: int) -> Curves:
        """Frames start … stop - 1."""
        part: dict[str, Any] = {name: getattr(self, name)[start:stop] for name in (*_PER_FRAME, "problems", "notes")}
        return replace(self, **part)

    def rows(self, chosen: Bools) -> Curves:
        """The frames of which `chosen` (n,) is True."""
        part: dict[str, Any] = {name: getattr(self, name)[chosen] for name in _PER_FRAME}
        words: dict[str, Any] = {
            name: tuple(word for word, keep in zip(getattr(self, name), chosen, strict=True) if keep)
            for name in ("problems", "notes")
        }
        return replace(self, **part, **words)

    @staticmethod
    def concatenate(parts: Sequence[Curves]) -> Curves:
        """Frames of several pieces on the same q, one after the other."""
        stacked: dict[str, Any] = {name: np.concatenate([getattr(p, name) for p in parts]) for name in _PER_FRAME}
        words: dict[str, Any] = {
            name: tuple(word for p in parts for word in getattr(p, name)) for name in ("problems", "notes")
        }
        return replace(parts[0], **stacked, **words)


_PER_FRAME = ("intensity", "statistical", "counts", "index", "start_s", "exposure_s", "dark_factor")


@dataclass(frozen=True)
class ScaleFactor:
    """Absolute scale: I(1/mm) = factor.value · I(normalised), and how it was found.

    window_nm: the q it was read in; slope_over_sigma and drift (relative, across the window): how far measured over
    known changes with q; chi2_red: of the measured curve against the known one; contributions: what the relative
    uncertainty is made of, by name, to be added in quadrature.
    """

    factor: Uncertain
    method: str
    window_nm: tuple[float, float] | None = None
    slope_over_sigma: float = float("nan")
    chi2_red: float = float("nan")
    drift: float = float("nan")
    contributions: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Background:
    """Background B(q): intensity and shared uncertainty (m,), on the scale of the curves it is subtracted from.

    sigma is without the dark's, of which B has dark_factor times as in Curves, and without that of its factor (monitor,
    transmissions), which is factor_rel, relative.
    """

    intensity: Floats
    sigma: Floats
    source: str
    factor: float = 1.0
    dark_factor: float = 0.0
    factor_rel: float = 0.0


@dataclass(frozen=True)
class FitTable:
    """Result of one weighted fit per frame.

    values (n, p) in the order of model.columns: c, r, s = σ_r² (it may be slightly negative) of the first population,
    the constant, and so on; NaN for a population that a frame was fitted without; covariance (n, p, p) from statistical
    and shared uncertainties, the latter including that of a size taken over from another frame; free (n, p): what the
    fit of this frame had to find; chi2_red (n,); n_points (n,); converged (n,); flags (n,) words joined by "|", "" if
    none, of the first population, `others` of the others.
    """

    index: Ints
    values: Floats
    covariance: Floats
    free: Bools
    chi2_red: Floats
    n_points: Ints
    converged: Bools
    flags: tuple[str, ...]
    model: ModelSpec
    others: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, eq=False)
class ChunkResult:
    """What some frames give: their reduced curves; with a model their fits and the fitted curves (n, m); sizes."""

    curves: Curves
    fits: FitTable | None
    model: Floats | None
    sizes: SizeDistributions | None = None


class Estimate(NamedTuple):
    """One quantity per frame: value, statistical and systematic standard uncertainty, each (n,)."""

    value: Floats
    statistical: Floats
    systematic: Floats


@dataclass(frozen=True)
class Quantities:
    """What the user came for, one row per frame; NaN where a frame does not support it (see flags).

    covariance (n, 3, 3) of (r, sigma_r, c_nc), statistical; flags (n,) as in series.csv ("ok" or words joined by "|").
    shared (n, 3): how much of the standard errors of r, sigma_r, c_nc is the background's and the dark's, common to all
    frames: no average over frames makes it smaller. None where it is not known.
    """

    index: Ints
    time_s: Floats
    exposure_s: Floats
    radius_nm: Estimate
    sigma_nm: Estimate
    c_nc_umol_L: Estimate
    yield_: Estimate
    background_1_mm: Estimate
    chi2_red: Floats
    covariance: Floats
    flags: tuple[str, ...]
    shared: Floats | None = None


@dataclass(frozen=True)
class InputFile:
    """Identity of an input: path as given, size in bytes, modification time (ns)."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Provenance:
    """How a result came to be: enough to repeat it."""

    config_text: str
    config_digest: str
    versions: Mapping[str, str]
    inputs: tuple[InputFile, ...]
    equations: tuple[str, ...]
    geometry: Mapping[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunResult:
    """Everything a run made.

    quantities: of the first population; others: names and quantities of further ones.
    model (n, m): the fitted curve, NaN outside the fit's window or without a fit; pixel_mask (ny, nx): why pixels are
    not used, bits of science.pixel_mask, of images turned as the geometry means them; None without images.
    """

    title: str
    curves: Curves
    background: Background | None
    scale: ScaleFactor | None
    fits: FitTable | None
    model: Floats | None
    quantities: Quantities | None
    provenance: Provenance
    warnings: tuple[str, ...]
    analysis: SeriesAnalysis | None = None
    comparison: Comparison | None = None
    aliquots: ScaledAliquots | None = None
    quality: Quality | None = None
    pixel_mask: NDArray[np.uint16] | None = None
    sizes: SizeDistributions | None = None
    others: tuple[tuple[str, Quantities], ...] = ()
