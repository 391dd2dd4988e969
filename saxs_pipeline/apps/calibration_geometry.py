"""The work of `calibrate geometry`: frames of a calibrant in, a PONI file and its picture out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saxs_pipeline import geometry, units
from saxs_pipeline.io.frames import open_frames, read_image
from saxs_pipeline.science import bad_pixels
from saxs_pipeline.science.binning import Limits
from saxs_pipeline.stages import calibrate_geometry as stage
from saxs_pipeline.stages.calibrate_geometry import Measured
from saxs_pipeline.types import BadInput, Bools, Floats, FrameSource, SourceInfo

Rows = list[tuple[str, str]]

LIT = 10.0
"""Median of a frame, in its own units, above which a pixel that reads 0 was not measured."""


@dataclass(frozen=True)
class Request:
    """The command's arguments; quantities as they were written."""

    frames: tuple[Path, ...]
    out: Path
    calibrant: str = "AgBh"
    detector: str | None = None
    pixel_size: str | None = None
    energy: str | None = None
    mask: Path | None = None
    dark: Path | None = None
    distance: str | None = None


def calibrate(request: Request) -> Rows:
    """Fit the geometry, write it beside its picture, and say what was found.

    Raises BadInput where an input is missing or wrong, an output exists, or the rings do not give a geometry.
    """
    _check_out(request.out)
    with closing(open_frames(request.frames)) as source:
        info = source.info
        wavelength = _wavelength(request.energy, info)
        calibrant = stage.read_calibrant(request.calibrant, wavelength)
        detector, masked = _detector(request, info)
        distance = _metres("--distance", request.distance)
        masked |= _read_mask(request.mask, info.shape)
        total, rows = _sum(source)
    measured, left_out = _measured(total, masked, _dark(request.dark, info, total.frames))
    try:
        result = stage.calibrate(measured, detector, calibrant, distance)
    except BadInput as error:
        raise BadInput(f"{_named(request.frames)}: {error}") from None
    from saxs_pipeline.outputs import geometry_files

    doubts = [("note", text) for text in _contradictions(info, wavelength, detector)]
    rows = [*rows, ("pixels", left_out), *geometry_files.summary(result), *doubts, *_advice(detector, request)]
    _write(result, detector, rows, request.out)
    return rows


# --- output ----------------------------------------------------------------------------------------------------------


def _check_out(out: Path) -> None:
    if out.suffix != ".poni":
        raise BadInput(f"--out {out}: name a file that ends in .poni")
    if not out.parent.is_dir():
        raise BadInput(f"--out {out}: there is no folder {out.parent}; make it first")
    for path in outputs(out):
        if path.exists() or path.is_symlink():
            raise BadInput(f"{path} exists and is not overwritten; give another name with --out, or move it away")


def outputs(out: Path) -> tuple[Path, Path, Path]:
    """The PONI file and its pictures."""
    return out, out.with_suffix(".png"), out.with_suffix(".svg")


def _write(result: Any, detector: Any, rows: Rows, out: Path) -> None:
    from saxs_pipeline.outputs import geometry_files

    try:
        geometry_files.write_calibration(result, detector, rows, out)
    except BaseException:
        for path in outputs(out):  # none of them was there before
            path.unlink(missing_ok=True)
        raise


def _named(frames: Sequence[Path]) -> str:
    return str(frames[0]) if len(frames) == 1 else f"{frames[0]} and {len(frames) - 1} more"


def _advice(detector: Any, request: Request) -> Rows:
    """The PONI file holds no mask: neither the user's nor, of a plain detector, that of its gaps."""
    if request.mask is not None:
        return [("note", f"the PONI holds no mask: give corrections.mask: {request.mask} in the run file, too")]
    if type(detector).__name__ == "Detector" and request.detector is not None:
        said = (
            f"the PONI holds a plain detector, as frames or pixels are not those of {request.detector}: mask its gaps"
        )
        return [("note", said)]
    return []


def _contradictions(info: SourceInfo, wavelength_m: float, detector: Any) -> list[str]:
    """What was given and is not what the frames' header says: a wrong energy or pixel size hides in the distance."""
    header, found = info.geometry, list[str]()
    if header is None:
        return found
    if header.wavelength_m and not math.isclose(header.wavelength_m, wavelength_m, rel_tol=_AGREE):
        keV = [geometry.HC_KEV_M / length for length in (header.wavelength_m, wavelength_m)]
        found.append(f"the header says {keV[0]:.6g} keV, not {keV[1]:.6g} keV: the distance depends on which is right")
    if not math.isclose(header.pixel2_m, detector.pixel2, rel_tol=_AGREE):
        um = [1e6 * size for size in (header.pixel2_m, detector.pixel2)]
        found.append(f"the header says pixels of {um[0]:.6g} µm, not {um[1]:.6g} µm: the distance depends on it")
    return found


_AGREE = 1e-3


# --- inputs ----------------------------------------------------------------------------------------------------------


def _quantity(option: str, text: str, unit: str) -> float:
    try:
        value = units.parse_quantity(text, unit)
    except ValueError as error:
        raise BadInput(f"{option}: {error}") from None
    if value <= 0:
        raise BadInput(f"{option}: must be positive, got {text!r}")
    return value


def _metres(option: str, text: str | None) -> float | None:
    return None if text is None else _quantity(option, text, "m")


def _wavelength(energy: str | None, info: SourceInfo) -> float:
    """Wavelength in m, from --energy or else the frames' header."""
    if energy is not None:
        return geometry.HC_KEV_M / _quantity("--energy", energy, "keV")
    if info.geometry is not None and info.geometry.wavelength_m:
        return info.geometry.wavelength_m
    raise BadInput(f'{info.paths[0]}: its header has no energy; give --energy, e.g. --energy "18 keV"')


def _detector(request: Request, info: SourceInfo) -> tuple[Any, Bools]:
    """pyFAI's detector and its mask (ny, nx): named, or plain pixels of the size given or in the header."""
    from pyFAI.detectors import Detector

    size = _metres("--pixel-size", request.pixel_size)
    both = None if size is None else (size, size)
    if request.detector is not None:
        try:
            named, ratio = geometry.named_detector(request.detector, info.shape)
        except BadInput as error:
            raise BadInput(f"--detector: {error}; give --pixel-size instead") from None
        mask = geometry.binned_mask(named.mask, ratio, info.shape)
        return geometry.plain_or_named(named, ratio, both, info.shape), mask
    if both is None and info.geometry is not None:
        both = info.geometry.pixel1_m, info.geometry.pixel2_m
    if both is None:
        raise BadInput(f'{info.paths[0]}: give --detector NAME or --pixel-size, e.g. --pixel-size "354.1667 um"')
    plain = Detector(pixel1=both[0], pixel2=both[1], max_shape=info.shape)
    return plain, np.zeros(info.shape, dtype=np.bool_)


# --- frames ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Sum:
    """Sum (ny, nx) of so many frames, pixels without a measurement in any of them, and those that were full in one."""

    image: Floats
    frames: int
    unmeasured: Bools
    full: Bools


def _sum(source: FrameSource) -> tuple[_Sum, Rows]:
    """Sum of the usable frames, and what is said about the others."""
    info = source.info
    image, number = np.zeros(info.shape), 0
    unmeasured, full = (np.zeros(info.shape, dtype=np.bool_) for _ in range(2))
    rows: Rows = [("note", warning) for warning in info.warnings]
    for index in range(info.n_frames):
        images, problems = source.read([index])
        one, problem = images[0], problems[0] or ("" if images[0].any() else "all_zero: every pixel is 0")
        if problem:
            rows.append(("note", f"{source.label(index)} is left out: {problem}"))
            continue
        reached = bad_pixels.full_pixels(one, info.saturation)
        missing = Limits.of(info.dummy, info.delta_dummy, _limit(one, info.saturation)).reject(one)
        full |= reached
        unmeasured |= ~np.isfinite(one) | (one < 0) | missing
        image += np.where(np.isfinite(one), one, 0.0)
        number += 1
    if not number:
        raise BadInput(f"{_named(info.paths)}: no frame holds a measurement (all zero or unreadable)")
    summed = f"{number} of {info.n_frames}, {_named(info.paths)}"
    return _Sum(image, number, unmeasured, full), [("frames", summed), *rows]


def _limit(image: Any, saturation: float | None) -> float | None:
    """The value at which a pixel says nothing: the header's, else the largest of an unsigned integer."""
    if saturation is not None or image.dtype.kind != "u" or image.dtype.itemsize > 4:
        return saturation
    return float(np.iinfo(image.dtype).max)


def _dark(path: Path | None, info: SourceInfo, frames: int) -> Floats | None:
    """Dark of so many frames (ny, nx): their number times the mean of the file's frames."""
    if path is None:
        return None
    with closing(open_frames([path])) as source:
        if source.info.shape != info.shape:
            raise BadInput(f"--dark {path}: has {source.info.shape} pixels, the frames have {info.shape}")
        total, number = np.zeros(info.shape), 0
        for image in _readable(source):
            total += image
            number += 1
    if not number or not np.isfinite(total).all():
        raise BadInput(f"--dark {path}: no frame of it can be read, or it holds values that are not finite")
    return total * (frames / number)


def _readable(source: FrameSource) -> Iterator[Floats]:
    for index in range(source.info.n_frames):
        images, problems = source.read([index])
        if not problems[0]:
            yield images[0].astype(np.float64)


def _read_mask(path: Path | None, shape: tuple[int, int]) -> Bools:
    """Non-zero means masked."""
    if path is None:
        return np.zeros(shape, dtype=np.bool_)
    mask = read_image(path)
    if mask.shape != shape:
        raise BadInput(f"--mask {path}: has {mask.shape} pixels, the frames have {shape}")
    masked: Bools = ~(mask == 0)
    return masked


def _measured(total: _Sum, masked: Bools, dark: Floats | None) -> tuple[Measured, str]:
    """The image less dark with its good pixels, and in words which are left out."""
    good = ~(masked | total.unmeasured)
    unlit: Bools = np.zeros(good.shape, dtype=np.bool_)
    if good.any() and np.median(total.image[good]) > LIT:
        unlit = good & (total.image == 0)
    good &= ~unlit
    odd = bad_pixels.odd_pixels(total.image, good)
    image = total.image if dark is None else total.image - dark
    counted = {
        "masked": masked,
        "without a measurement": total.unmeasured & ~masked,
        "without light (0)": unlit,
        "hot or dead": odd,
    }
    listed = ", ".join(f"{part.sum()} {word}" for word, part in counted.items() if part.any())
    said = f"{(good & ~odd).mean():.1%} used" + (f"; left out: {listed}" if listed else "")
    return Measured(image, good & ~odd, total.full & ~masked), said
