"""Finished frames with known numbers, any of them made from its frame number alone."""

from __future__ import annotations

import numpy as np

from saxs_pipeline.size_distribution import PER_FRAME, SHAPE_COLUMNS, SIZE_COLUMNS, SizeDistributions
from saxs_pipeline.types import ChunkResult, Curves, FitTable
from tests.spheres import gaussian_model

BINS = 40
RADII = 7
PLAN = "5a" * 32
WORDS = ("", "saturated", "grün|Å·µ 測", "not UTF-8: \udcff", "zero: \0")


def key(frame: int) -> str:
    return f"{frame:064x}"


def keys(frames) -> list[str]:
    return [key(frame) for frame in frames]


def chunk(frames, *, model: bool = True, problems: dict[int, str] | None = None) -> ChunkResult:
    """Results of these frames, in this order; arbitrary bits, so also every kind of NaN, infinities and -0."""
    frames = list(frames)
    numbers = np.stack([_numbers(frame) for frame in frames])
    index = np.array(frames, dtype=np.int64)
    intensity, statistical, counts, fitted = (numbers[:, BINS * k : BINS * (k + 1)].copy() for k in range(4))
    rest = numbers[:, BINS * 4 :]
    curves = Curves(
        q_nm=np.geomspace(0.1, 5, BINS),
        intensity=intensity,
        statistical=statistical,
        shared=np.where(np.arange(BINS) < 3, np.nan, np.linspace(0.1, 0.2, BINS)),
        dark_sigma=np.linspace(0.01, 0.03, BINS),
        dark_factor=0.25 * index - 1,
        taken_off=np.linspace(3.0, 4.0, BINS),
        factor_rel=0.002,
        taken_off_rel=0.003,
        counts=counts,
        index=index,
        start_s=rest[:, 0].copy(),
        exposure_s=rest[:, 1].copy(),
        problems=tuple((problems or {}).get(frame, "") for frame in frames),
        notes=tuple(WORDS[frame % len(WORDS)] for frame in frames),
        unit="1/mm",
        scale_rel=0.1 + 0.2,
        correlated=True,
    )
    if not model:
        return ChunkResult(curves, None, None)
    fits = FitTable(
        index=index,
        values=rest[:, 2:6].copy(),
        covariance=rest[:, 6:22].reshape(-1, 4, 4).copy(),
        free=(index[:, None] + np.arange(4)) % 3 > 0,
        chi2_red=rest[:, 22].copy(),
        n_points=index * 7,
        converged=index % 3 > 0,
        flags=tuple(WORDS[frame % 2] for frame in frames),
        model=gaussian_model(1 / 3, volume_fraction=None).spec,
    )
    return ChunkResult(curves, fits, fitted, _sizes(frames))


def _sizes(frames: list[int]) -> SizeDistributions:
    radius = np.geomspace(0.5, 6, RADII)
    widths = dict.fromkeys(PER_FRAME, RADII) | {
        "values": len(SIZE_COLUMNS),
        "errors": len(SIZE_COLUMNS),
        "shape": len(SHAPE_COLUMNS),
    }
    bits = {
        name: np.stack([np.frombuffer(np.random.default_rng([frame, k]).bytes(8 * width)) for frame in frames])
        for k, (name, width) in enumerate(widths.items())
    }
    flags = tuple(WORDS[frame % len(WORDS)] for frame in frames)
    ground = {"scale_rel": 0.1, "absolute": True, "q_min": 1 / 7, "q_max": 5.0, "factor": 1 / 3}
    return SizeDistributions(radius, np.gradient(radius), flags=flags, **ground, **bits)


def _numbers(frame: int) -> np.ndarray:
    special = [-0.0, np.inf, -np.inf, np.nan]
    numbers = np.frombuffer(np.random.default_rng(frame).bytes(8 * (4 * BINS + 23 - len(special))))
    return np.concatenate([special, numbers])


def assert_same_bits(got: ChunkResult, expected: ChunkResult) -> None:
    """Equal in every bit, type and word, but for the numbers of the frames, which are 0 … n - 1."""
    assert (got.fits is None, got.model is None) == (expected.fits is None, expected.model is None)
    if expected.model is not None:
        _same(got.model, expected.model, "model")
    assert (got.sizes is None) == (expected.sizes is None)
    for one, other in ((got.curves, expected.curves), (got.fits, expected.fits), (got.sizes, expected.sizes)):
        for name, value in {} if other is None else vars(other).items():
            _same(getattr(one, name), np.arange(len(value)) if name == "index" else value, name)


def _same(got, expected, name):
    assert type(got) is type(expected), name
    if isinstance(expected, np.ndarray):
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype), name
        assert got.tobytes() == expected.tobytes(), name
    else:
        assert got == expected, name
