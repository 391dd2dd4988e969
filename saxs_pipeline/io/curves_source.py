"""Curves that somebody else integrated: ID02 and SAXSutilities HDF5 stacks, and three-column text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from saxs_pipeline.io.frames import read_head
from saxs_pipeline.types import BadInput, Curves, Floats

if TYPE_CHECKING:
    import h5py

_PER_METRE = {"m": 1.0, "cm": 1e2, "mm": 1e3, "µm": 1e6, "um": 1e6, "nm": 1e9, "å": 1e10, "a": 1e10, "angstrom": 1e10}
_UNIT = re.compile(r"^(?:q_)?(?:1/([a-zåµ]+)|([a-zåµ]+)\^?-1)(?:[/ ]?sr(?:\^?-1)?)?$")
_INTENSITIES = ("data", "array", "intensity", "I")
_COMMENT = re.compile(r"^\s*(?:[#;!%]|$)")
_SEPARATORS = re.compile(r"[\s,;]+")
_BETWEEN_CELLS = re.compile(r"[\s;]+")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+(?:[eE][-+]?\d+)?")
_OWN_HEADER = re.compile(
    r"# q in (\S+); I(?: and its standard uncertainties)? in ([^;\s]+)"
    r"(?:; one common scale uncertainty of ([0-9.e-]+) \(relative\))?"
)
_SECONDS = {"s": 1.0, "ms": 1e-3, "min": 60.0}
_SAME_Q = 1e-6


@dataclass(frozen=True)
class _Block:
    """Curves of one file, in the file's units but for q: q (m,) 1/nm; intensity, sigma (n, m); times (n,) s."""

    path: Path
    q_nm: Floats
    intensity: Floats
    sigma: Floats
    start_s: Floats
    exposure_s: Floats


def inverse_length(unit: str, target: str) -> float:
    """Factor from an inverse length such as "1/Å", "nm^-1", "q_A^-1" or "1/m/sr" to `target` ("1/nm", "1/mm").

    Raises ValueError for anything else.
    """
    lengths = []
    for text in (unit, target):
        match = _UNIT.match(text.strip().replace("Å", "å").replace("μ", "µ").lower().replace("\u212b", "å"))
        length = (match[1] or match[2]) if match else ""
        if length not in _PER_METRE:
            raise ValueError(f"{text!r} is not an inverse length such as 1/nm, 1/Å, 1/cm or 1/mm")
        lengths.append(_PER_METRE[length])
    return lengths[0] / lengths[1]


class Stated(NamedTuple):
    """What a curve written by this program says in its header: units, relative uncertainty of its scale."""

    q_unit: str
    intensity_unit: str
    scale_rel: float


def stated(path: Path) -> Stated | None:
    """What the header of a text says, if it is one that this program wrote."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for line in file:
            if not line.startswith("#"):
                return None
            if found := _OWN_HEADER.match(line):
                return Stated(found[1], found[2], float(found[3] or 0.0))
    return None


def open_curves(paths: Sequence[Path], *, q_unit: str | None, intensity_unit: str) -> Curves:
    """Curves of all files in order, q in 1/nm and I in 1/mm; `q_unit` None: as each file says, 1/nm where it does not.

    σ is taken as statistical, shared is 0; a point whose σ is not positive, or whose I or σ is not finite, is NaN with
    count 0. Times are NaN where a file has none; an unknown exposure beside a known time counts as 0 s, so that the
    time of the frame is the file's. Raises BadInput where a file has no σ, where q grids differ, where a file's own q
    unit contradicts `q_unit`, or where a unit is unknown.
    """
    try:
        to_nm = None if q_unit is None else inverse_length(q_unit, "1/nm")
        to_mm = inverse_length(intensity_unit, "1/mm")
    except ValueError as error:
        raise BadInput(f"data.curves: {error}") from None
    blocks = [block for path in paths for block in _read(path, to_nm)]
    if not blocks:
        raise BadInput("data.curves: names no file")
    _check_q(blocks)
    intensity, sigma = (np.concatenate([getattr(block, name) for block in blocks]) * to_mm
                        for name in ("intensity", "sigma"))  # fmt: skip
    with np.errstate(invalid="ignore"):
        valid = np.isfinite(intensity) & np.isfinite(sigma) & (sigma > 0)
    return Curves(
        q_nm=blocks[0].q_nm,
        intensity=np.where(valid, intensity, np.nan),
        statistical=np.where(valid, sigma, np.nan),
        shared=np.zeros(blocks[0].q_nm.size),
        counts=valid.astype(float),
        index=np.arange(len(intensity)),
        start_s=np.concatenate([block.start_s for block in blocks]),
        exposure_s=np.concatenate([block.exposure_s for block in blocks]),
        notes=("",) * len(intensity),
        dark_sigma=np.zeros(blocks[0].q_nm.size),
        dark_factor=np.zeros(len(intensity)),
        taken_off=np.zeros(blocks[0].q_nm.size),
        problems=tuple("" if row.any() else "unreadable: no point with an uncertainty above 0" for row in valid),
    )


def _check_q(blocks: Sequence[_Block]) -> None:
    first = blocks[0]
    for block in blocks:
        q = block.q_nm
        if q.size < 2 or not np.all(np.isfinite(q)) or q[0] < 0 or np.any(np.diff(q) <= 0):
            raise BadInput(f"{block.path}: q must be at least two increasing numbers; sort the curve, remove repeats")
        if q.size != first.q_nm.size or not np.allclose(q, first.q_nm, rtol=_SAME_Q, atol=0):
            raise BadInput(
                f"the q values of {first.path} ({first.q_nm.size} points) and {block.path} ({q.size} points) differ; "
                "integrate all curves on one grid"
            )


def _read(path: Path, to_nm: float | None) -> Iterator[_Block]:
    head = read_head(path)
    if head.startswith(b"\x89HDF"):
        yield from _read_hdf5(path, to_nm)
    elif b"\x00" in head:
        raise BadInput(f"{path}: neither HDF5 nor text; curves are HDF5 stacks or text with columns q, I, sigma")
    else:
        q, intensity, sigma = _read_text(path)
        unknown = np.full(1, np.nan)
        yield _Block(path, q * (to_nm or 1.0), intensity[None], sigma[None], unknown, unknown)


def left_out(path: Path) -> tuple[list[int], int]:
    """Lines of a text whose point cannot be used, I or σ not finite or σ not positive, and how many points it has.

    Raises BadInput for a text that is no curve.
    """
    lines, (_, intensity, sigma) = _numbered(path)
    with np.errstate(invalid="ignore"):
        bad = ~(np.isfinite(intensity) & np.isfinite(sigma) & (sigma > 0))
    return [line for line, out in zip(lines, bad, strict=True) if out], len(lines)


def _read_text(path: Path) -> Floats:
    """Columns q, I, σ, (3, m)."""
    return _numbered(path)[1]


def _numbered(path: Path) -> tuple[list[int], Floats]:
    """Numbers of the lines, from 1, and columns q, I, σ, (3, m). Lines of words before the numbers are the header."""
    rows: list[list[float]] = []
    lines: list[int] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        if _COMMENT.match(line):
            continue
        try:
            cells = [float(cell) for cell in _SEPARATORS.split(line.strip()) if cell]
        except ValueError:
            if rows:
                raise BadInput(f"{path}: line {number} is not numbers: {line.strip()[:40]!r}") from None
            continue
        if commas := [cell for cell in _BETWEEN_CELLS.split(line.strip()) if _DECIMAL_COMMA.fullmatch(cell)]:
            raise BadInput(
                f"{path}: line {number} has a decimal comma, {commas[0]!r}; write {commas[0].replace(',', '.')}"
            )
        if len(cells) < 3:
            raise BadInput(f"{path}: line {number} has {len(cells)} columns; q, I and sigma are needed in every line")
        rows.append(cells[:3])
        lines.append(number)
    if not rows:
        raise BadInput(f"{path}: holds no numbers; a curve is text with columns q, I, sigma")
    return lines, np.array(rows).T.copy()


def _read_hdf5(path: Path, to_nm: float | None) -> Iterator[_Block]:
    from saxs_pipeline.io import hdf5_layout

    with hdf5_layout.reading(path) as root:
        found = 0
        for entry in hdf5_layout.entries(root):
            for group, name in _stacks(entry):
                found += 1
                yield _block(path, entry, group, name, _q_factor(f"{path}: {group.name}", group["q"], to_nm))
    if not found:
        raise BadInput(f"{path}: no integrated curves (data and q, as in PyFAI/result_ave) in this HDF5 file")


def _stacks(entry: h5py.Group) -> list[tuple[h5py.Group, str]]:
    """Groups with q (m,) and curves (n, m) or (m,), and the name of the curves."""
    import h5py

    from saxs_pipeline.io import hdf5_layout

    found = []
    for group in hdf5_layout.walk(entry):
        if not isinstance(group, h5py.Group) or not isinstance(group.get("q"), h5py.Dataset):
            continue
        nodes = {name: group.get(name) for name in _INTENSITIES}
        names = [name for name, node in nodes.items() if isinstance(node, h5py.Dataset) and node.ndim in (1, 2)]
        if names:
            found.append((group, names[0]))
    return found


def _block(path: Path, entry: h5py.Group, group: h5py.Group, name: str, to_nm: float) -> _Block:
    where = f"{path}: {group.name}"
    errors = group.get(f"{name}_errors", group.get("errors"))
    if errors is None:
        raise BadInput(f"{where} has no {name}_errors; the fit needs an uncertainty for every point")
    q = np.asarray(group["q"][()], float)
    intensity, sigma = (np.atleast_2d(np.asarray(node[()], float)) for node in (group[name], errors))
    if sigma.shape != intensity.shape or q.shape != intensity.shape[1:]:
        raise BadInput(f"{where}: curves {intensity.shape}, errors {sigma.shape} and q {q.shape} do not fit together")
    start, exposure = _times(path, entry, group, len(intensity))
    return _Block(path, q * to_nm, intensity, sigma, start, exposure)


def _q_factor(where: str, q: h5py.Dataset, wanted: float | None) -> float:
    """Factor from the file's q to 1/nm. The unit that a file gives for its q must be the user's (`wanted`)."""
    said = _said_unit(q)
    if not said:
        return wanted or 1.0
    try:
        own = inverse_length(said, "1/nm")
    except ValueError:
        raise BadInput(
            f"{where}/q has the unit {said!r}, which is not an inverse length; integrate again in q"
        ) from None
    if wanted is not None and not np.isclose(own, wanted, rtol=1e-9):
        raise BadInput(f"{where}/q is in {said}, but the run file gives another unit; correct data.curves.q_unit")
    return own


def _said_unit(dataset: h5py.Dataset) -> str:
    """The unit that a file gives for a dataset, "" if none."""
    from saxs_pipeline.io import hdf5_layout

    return next((hdf5_layout.text(dataset.attrs[key]) for key in ("unit", "units") if key in dataset.attrs), "")


def _times(path: Path, entry: h5py.Group, group: h5py.Group, n: int) -> tuple[Floats, Floats]:
    """Start and exposure of each curve, s, (n,): from TFG beside the curves, else from t; NaN where unknown."""
    from saxs_pipeline.io import hdf5_layout, id02_scalers

    for node in hdf5_layout.walk(entry):
        if hdf5_layout.has_members(node, ("delta_time", "live_time")) or hdf5_layout.has_members(node, ("frame_time",)):
            times = id02_scalers.read_times(path, node)
            return _full(times.start_s, n, path), _full(times.exposure_s, n, path)
    recorded: Any = group.get("t")
    if recorded is None:
        return np.full(n, np.nan), np.full(n, np.nan)
    unit = _said_unit(recorded) or "s"
    if unit not in _SECONDS:
        raise BadInput(f"{path}: {group.name}/t has the unit {unit!r}; its times must be in s, ms or min")
    return _full(_SECONDS[unit] * np.asarray(recorded[()], float).reshape(-1), n, path), np.zeros(n)


def _full(values: Floats, n: int, path: Path) -> Floats:
    if values.size < n:
        raise BadInput(f"{path}: {values.size} times for {n} curves; the file is incomplete")
    return values[:n]
