"""Dark frames → the average dark and its variance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.data_config import DarkFrames
from saxs_pipeline.runfile import RunFile
from saxs_pipeline.science import corrections
from saxs_pipeline.science.corrections import Dark
from saxs_pipeline.series import FrameSeries, open_dark
from saxs_pipeline.types import Floats, SourceInfo

MEDIAN_BYTES = 2**30
"""A median needs all dark frames in memory; more than this is refused."""

NOISE_DIFFERS = 0.2
"""Relative difference from corrections.read_noise from which on the scatter of the dark frames is remarked on."""


@dataclass
class _Sums:
    """Σ and Σ² of the usable dark frames (ny, nx), their exposures (s), and the frames themselves for a median."""

    total: Floats
    squares: Floats
    exposures_s: list[float] = field(default_factory=list)
    frames: list[NDArray[Any]] = field(default_factory=list)

    def add(self, image: NDArray[Any], exposure_s: float, *, keep: bool) -> None:
        values = image.astype(np.float64)
        self.total += values
        self.squares += values * values
        self.exposures_s.append(exposure_s)
        if keep:
            self.frames.append(image)


def average_dark(run: RunFile, settings: DarkFrames, info: SourceInfo, pedestal: float, notes: list[str]) -> Dark:
    """Average of the dark frames for frames such as `info` says; what was left out, and why, is added to `notes`.

    Raises BadInput where no dark frame is usable, or they do not fit the frames.
    """
    assert run.config.corrections is not None
    gain, read_noise = run.config.corrections.gain, run.config.corrections.read_noise
    darks = open_dark(run, settings)
    if darks.info.shape != info.shape:
        raise run.error("corrections.dark", f"dark frames have {darks.info.shape} pixels, the frames {info.shape}")
    sums = _added(run, settings, darks, notes)
    if not sums.exposures_s:
        raise run.error("corrections.dark", f"none of {len(darks)} dark frames is usable")
    if not np.isfinite(sums.total).all():
        raise run.error("corrections.dark", "the dark frames hold values that are not finite")
    n = len(sums.exposures_s)
    dark = corrections.dark_from_sums(sums.total, sums.squares, n, pedestal=pedestal, gain=gain, read_noise=read_noise)
    if n > 1 and read_noise > 0:
        notes += _noise_doubt(np.sqrt(n * np.median(dark.variance) / _median_chi2(n - 1)), read_noise)
    if settings.average == "median":
        level, variance = _median(sums.frames) - pedestal, dark.variance * corrections.MEDIAN_VARIANCE
        dark = dark._replace(level=level, variance=variance)
    return dark._replace(exposure_s=_exposure(run, sums.exposures_s) if settings.scale_with_exposure else None)


def _added(run: RunFile, settings: DarkFrames, darks: FrameSeries, notes: list[str]) -> _Sums:
    counter = run.config.corrections is not None and run.config.corrections.read_noise == 0  # may well count nothing
    keep = settings.average == "median"
    frame_bytes = darks.info.shape[0] * darks.info.shape[1] * darks.info.dtype.itemsize
    if keep and len(darks) * frame_bytes > MEDIAN_BYTES:
        raise run.error(
            "corrections.dark.average",
            f"the median of {len(darks)} frames takes {len(darks) * frame_bytes / 2**30:.1f} GiB; "
            f"give at most {MEDIAN_BYTES // frame_bytes} frames, or average: mean",
        )
    sums = _Sums(*np.zeros((2, *darks.info.shape)))
    for chunk in darks.blocks(0, len(darks)):
        problems = [
            problem or ("" if counter or image.any() else "all_zero: every pixel is 0, the frame was not recorded")
            for problem, image in zip(chunk.problems, chunk.images, strict=True)
        ]
        notes += darks.left_out("corrections.dark", chunk.index, problems)
        for image, exposure, problem in zip(chunk.images, chunk.exposure_s.tolist(), problems, strict=True):
            if not problem:
                sums.add(image, exposure, keep=keep)
    return sums


def _median(frames: list[NDArray[Any]]) -> Floats:
    """Median of each pixel, row by row: of all at once it would take several times the memory."""
    rows = [np.median([frame[row] for frame in frames], axis=0) for row in range(len(frames[0]))]
    return np.stack(rows).astype(np.float64)


def _exposure(run: RunFile, exposures_s: list[float]) -> float:
    """Exposure of dark frames that are scaled with it: one for all."""
    known = np.array(exposures_s)
    mean = float(known.mean())
    if not mean > 0 or np.abs(known - mean).max() > 0.01 * mean:
        raise run.error(
            "corrections.dark",
            f"a dark that is scaled with the exposure needs frames of one exposure; these have {known.min():g} to "
            f"{known.max():g} s",
        )
    return mean


def _median_chi2(k: int) -> float:
    """Median of χ²/k with k degrees of freedom (Wilson & Hilferty 1931); hot pixels move it less than the mean."""
    return float((1 - 2 / (9 * k)) ** 3)


def _noise_doubt(measured: float, stated: float) -> list[str]:
    """Whether the scatter of the darks, ADU, fits the noise that sets the errors."""
    if abs(measured - stated) <= NOISE_DIFFERS * stated:
        return []
    return [
        f"corrections.read_noise is {stated:g} ADU, but the dark frames scatter by {measured:.3g} ADU per pixel: "
        "the errors follow the stated value"
    ]
