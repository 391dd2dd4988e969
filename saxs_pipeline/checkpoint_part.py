"""Rows of finished frames as plain arrays: cut, joined, and written to bytes and back, bit for bit."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.model_spec import from_text, to_text
from saxs_pipeline.size_distribution import PER_FRAME, SHAPE_COLUMNS, SIZE_COLUMNS, SizeDistributions
from saxs_pipeline.types import ChunkResult, Curves, FitTable

_CURVES = {
    "intensity": "nm",
    "statistical": "nm",
    "counts": "nm",
    "start_s": "n",
    "exposure_s": "n",
    "dark_factor": "n",
}
_FITS = {
    "values": "np",
    "covariance": "npp",
    "free": "np",
    "chi2_red": "n",
    "n_points": "n",
    "converged": "n",
}
_MODEL = {"model": "nm"}
_PER_BIN = {"q_nm": "m", "shared": "m", "dark_sigma": "m", "taken_off": "m"}
_SCALARS = {"scale_rel": "", "factor_rel": "", "taken_off_rel": ""}
_SIZES = {f"sizes_{name}": "nk" for name in PER_FRAME} | {
    "sizes_values": "nv",
    "sizes_errors": "nv",
    "sizes_shape": "ns",
}
_SIZE_SCALARS = {f"sizes_{name}": "" for name in ("scale_rel", "absolute", "q_min", "q_max", "factor")}
_SIZE_GROUND = {"sizes_radius_nm": "k", "sizes_bin_nm": "k", **_SIZE_SCALARS}
_GROUND = {**_PER_BIN, **_SCALARS, **_SIZE_GROUND}
_SHAPES = {**_GROUND, **_CURVES, **_FITS, **_MODEL, **_SIZES}
_TYPES: Mapping[str, Any] = {"n_points": np.int64, "converged": np.bool_, "free": np.bool_}
_TEXTS = ("plan", "keys", "unit", "correlated", "model")


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of n finished frames.

    arrays: by name as in Curves and FitTable, those per frame with n as first axis. words: "problems", "notes" and
    with fits "flags", each (n,). unit and correlated as in Curves; model: what was fitted, as text, "" without fits.
    """

    arrays: Mapping[str, NDArray[Any]]
    words: Mapping[str, tuple[str, ...]]
    unit: str
    correlated: bool
    model: str = ""

    def __len__(self) -> int:
        return len(self.words["problems"])

    @cached_property
    def _ground(self) -> bytes:
        """The bits of what all rows share."""
        numbers = b"".join(self.arrays[name].tobytes() for name in _GROUND if name in self.arrays)
        return numbers + repr((sorted(self.arrays), self.unit, self.correlated, self.model)).encode()

    def alike(self, other: Part) -> bool:
        """Whether rows of both can stand in one table: same q, same shared uncertainties, both with or without fits.

        The last bits may differ: workers of one cluster need not have the same processor.
        """
        if self._ground == other._ground:
            return True
        mine, its = self.arrays, other.arrays
        return (
            mine.keys() == its.keys()
            and (self.unit, self.correlated, self.model) == (other.unit, other.correlated, other.model)
            and all(_close(mine[name], its[name]) for name in _GROUND if name in mine)
        )


def _close(mine: NDArray[Any], its: NDArray[Any]) -> bool:
    return mine.shape == its.shape and np.allclose(mine, its, rtol=1e-9, atol=0, equal_nan=True)


Run = tuple[Part, int, int]
"""Rows start … stop - 1 of a part."""


def pack(chunk: ChunkResult) -> Part:
    """A part that shares its arrays with `chunk`; raises ValueError if these have other shapes or types than stated."""
    curves, fits = chunk.curves, chunk.fits
    arrays = {name: getattr(curves, name) for name in (*_CURVES, *_PER_BIN)}
    arrays |= {name: np.array(getattr(curves, name), dtype=np.float64) for name in _SCALARS}
    words = {"problems": curves.problems, "notes": curves.notes}
    model = ""
    if fits is not None:
        arrays |= {name: getattr(fits, name) for name in _FITS}
        words["flags"] = fits.flags
        model = to_text(fits.model)
    if chunk.model is not None:
        arrays["model"] = chunk.model
    if chunk.sizes is not None:
        arrays |= {name: np.asarray(getattr(chunk.sizes, name[6:]), np.float64) for name in (*_SIZES, *_SIZE_GROUND)}
        words["size_flags"] = chunk.sizes.flags
    part = Part(arrays, words, curves.unit, curves.correlated, model)
    _check(part)
    return part


def unpack(part: Part) -> ChunkResult:
    """Curves, fits and model that share the arrays of `part`; frames are numbered 0 … n - 1."""
    arrays, index = part.arrays, np.arange(len(part), dtype=np.int64)
    numbers: dict[str, Any] = {name: arrays[name] for name in (*_CURVES, *_PER_BIN)}
    numbers |= {name: float(arrays[name]) for name in _SCALARS}
    curves = Curves(
        index=index,
        problems=part.words["problems"],
        notes=part.words["notes"],
        unit=part.unit,
        correlated=part.correlated,
        **numbers,
    )
    fits = None
    if "values" in arrays:
        table: dict[str, Any] = {name: arrays[name] for name in _FITS}
        model, flags = from_text(part.model), part.words["flags"]
        others = (("",) * len(part),) * (len(model.populations) - 1)
        fits = FitTable(index=index, flags=flags, model=model, others=others, **table)
    return ChunkResult(curves, fits, arrays.get("model"), _sizes_in(part))


def _sizes_in(part: Part) -> SizeDistributions | None:
    if "sizes_values" not in part.arrays:
        return None
    numbers: dict[str, Any] = {name[6:]: part.arrays[name] for name in (*_SIZES, *_SIZE_GROUND)}
    numbers |= {name[6:]: float(part.arrays[name]) for name in _SIZE_SCALARS}
    numbers["absolute"] = bool(numbers["absolute"])
    return SizeDistributions(flags=part.words["size_flags"], **numbers)


def join(runs: Sequence[Run]) -> Part:
    """One part of its own memory from runs of rows; raises ValueError without any, or if they are not alike."""
    if not runs:
        raise ValueError("no frames to join")
    first = runs[0][0]
    if not all(part.alike(first) for part in {id(part): part for part, _, _ in runs}.values()):
        raise ValueError("frames of different plans cannot stand in one table")
    arrays = {
        name: array.copy() if name in _GROUND else np.concatenate([part.arrays[name][a:b] for part, a, b in runs])
        for name, array in first.arrays.items()
    }
    words = {name: tuple(word for part, a, b in runs for word in part.words[name][a:b]) for name in first.words}
    return Part(arrays, words, first.unit, first.correlated, first.model)


def encode(keys: Sequence[str], part: Part, plan_key: str) -> bytes:
    """An npz of plain arrays; all texts are JSON in the array `texts`, so that nothing is ever unpickled."""
    texts = {"plan": plan_key, "keys": list(keys), "unit": part.unit, "correlated": part.correlated}
    texts |= {"model": part.model, **part.words}
    arrays: dict[str, Any] = {"texts": np.frombuffer(json.dumps(texts).encode("ascii"), dtype=np.uint8), **part.arrays}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def decode(content: bytes, plan_key: str) -> tuple[tuple[str, ...], Part]:
    """Keys and part from the bytes that `encode` made for the same plan; raises ValueError for all others."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        texts = json.loads(arrays.pop("texts").tobytes())
        keys = tuple(texts["keys"])
        words = {name: tuple(texts[name]) for name in texts if name not in _TEXTS}
        part = Part(arrays, words, texts["unit"], texts["correlated"], texts["model"])
        if texts["plan"] != plan_key or len(keys) != len(part) or not _are_texts(keys):
            raise ValueError("of another plan")
        _check(part)
    except Exception as error:  # zip, npy and JSON readers raise many kinds; whatever it is, these are not our bytes
        raise ValueError(str(error)) from None
    return keys, part


def read_keys(path: Path) -> frozenset[str]:
    """Keys of the frames in a part, to count them: neither verified nor kept; none where it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return frozenset(json.loads(file["texts"].tobytes())["keys"])
    except Exception:  # as in `decode`
        return frozenset()


def _check(part: Part) -> None:
    """Raise ValueError unless all that a part needs is there, in shape and type."""
    fits, sizes = "values" in part.arrays, "sizes_values" in part.arrays
    expected = {*_PER_BIN, *_SCALARS, *_CURVES, *(_FITS if fits else ())}
    expected |= {*_SIZES, *_SIZE_GROUND} if sizes else set()
    words = {"problems", "notes", *["flags"] * fits, *["size_flags"] * sizes}
    if part.arrays.keys() - {"model"} != expected or part.words.keys() != words:
        raise ValueError("other arrays")
    if not isinstance(part.unit, str) or not isinstance(part.correlated, bool) or not isinstance(part.model, str):
        raise ValueError("other texts")
    if any(len(words) != len(part) or not _are_texts(words) for words in part.words.values()):
        raise ValueError("other texts")
    size = {"n": len(part), "m": part.arrays["q_nm"].size, "v": len(SIZE_COLUMNS), "s": len(SHAPE_COLUMNS)}
    if fits:
        size["p"] = len(from_text(part.model).columns)
    if sizes:
        size["k"] = part.arrays["sizes_radius_nm"].size
    for name, array in part.arrays.items():
        shape = tuple(size[letter] for letter in _SHAPES[name])
        if array.shape != shape or array.dtype != _TYPES.get(name, np.float64):
            raise ValueError(f"{name} has another shape or type")


def _are_texts(words: tuple[str, ...]) -> bool:
    return all(isinstance(word, str) for word in words)
