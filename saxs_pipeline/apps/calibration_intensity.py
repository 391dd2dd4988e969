"""The work of `calibrate intensity`: the standard of a run file → absolute scale, how it was found, a figure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from saxs_pipeline import plan, runfile
from saxs_pipeline.apps.describe import STANDARDS, celsius
from saxs_pipeline.config import Water
from saxs_pipeline.fields import FoundFiles
from saxs_pipeline.omissions import standard_files
from saxs_pipeline.outputs.folder import staged
from saxs_pipeline.outputs.numbers import plus_minus
from saxs_pipeline.outputs.tables import contributions_text
from saxs_pipeline.runfile import RunFile, input_files
from saxs_pipeline.science.calibration import CARBON_DRIFT, MAX_SIGMA, WATER_DRIFT, StandardMeasurement, usable
from saxs_pipeline.series import FrameSeries, open_reference, open_sample
from saxs_pipeline.types import BadInput, Bools, ScaleFactor, Uncertain

Rows = list[tuple[str, str]]

NAME = "intensity_scale"
FILES = ("scale.json", f"{NAME}.png", f"{NAME}.svg")
_MADE_BY = "saxs-pipeline calibrate intensity"


@dataclass(frozen=True, eq=False)
class _Found:
    """What a calibration found: the standard of the run file, the scale from it, what else is to be said."""

    run: RunFile
    measured: StandardMeasurement
    scale: ScaleFactor
    notes: tuple[str, ...]

    @property
    def window_nm(self) -> tuple[float, float]:
        """The q the scale was read in."""
        assert self.scale.window_nm is not None
        return self.scale.window_nm

    @property
    def inside(self) -> Bools:
        """Bins the scale was read from, (m,)."""
        return usable(self.measured, self.window_nm)

    @property
    def known(self) -> Uncertain | None:
        """dΣ/dΩ of water, 1/mm; None of carbon, which has a curve."""
        standard = self.run.config.intensity.standard
        return standard.known if isinstance(standard, Water) else None

    @property
    def level(self) -> Uncertain:
        """Mean of the normalised measurement per mm over the window, by pixels, and its statistical σ."""
        level, sigma = (column[self.inside] for column in self.measured.difference())
        weight = self.measured.pixels[self.inside] / self.measured.pixels[self.inside].sum()
        return Uncertain(float((weight * level).sum()), float(np.sqrt((weight**2 * sigma**2).sum())))

    @property
    def frames(self) -> dict[str, tuple[int, int]]:
        """How many frames were used and left out, by their place in the run file."""
        places = (key for _, key in standard_files(self.run))
        return {key: (used, n - used) for key, (used, n) in zip(places, self.measured.frames, strict=True)}


def calibrate(run_file: Path, folder: Path) -> Rows:
    """Measure the absolute scale with the standard of a run file; scale.json and a figure go to `folder`.

    Raises BadInput where `run` would, up to the absolute scale; where the run file names no standard; and where files
    in the folder would be overwritten that this command has not made. The sample's frames are looked at only for what
    they say of the detector, and if there are none, the standard's say it.
    """
    run = runfile.load(run_file, must_exist=False)
    if run.config.intensity.standard is None:
        raise run.error("intensity", "no standard to calibrate with; give `water` or `glassy_carbon`")
    _check_there(run)
    _check_free(folder)
    with staged(folder) as staging:  # a folder that cannot be written fails at once
        found = _measure(run)
        content = _content(found) | {"figure": _draw(found, staging)}
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (staging / FILES[0]).write_text(f"{text}\n", encoding="utf-8", newline="\n")
    return _rows(found)


def _measure(run: RunFile) -> _Found:
    series, notes = _series(run)
    prepared = plan.prepare_frames(run, series)
    assert prepared.scale is not None and prepared.standard is not None
    about = (text for text in prepared.warnings if "intensity." in text)
    return _Found(run, prepared.standard, prepared.scale, (*notes, *about))


# --- before the work -------------------------------------------------------------------------------------------------


def _check_there(run: RunFile) -> None:
    """Raise BadInput for files that are needed and not there; those of the sample are not needed."""
    messages: list[str] = []
    for key, found in input_files(run).items():
        if not key.startswith(("geometry.", "corrections.", "intensity.")):
            continue
        paths = found if isinstance(found, FoundFiles) else (Path(str(found).partition("::")[0]),)
        absent = [str(path) for path in paths if not path.exists()]
        if isinstance(found, FoundFiles) and not found:
            absent = [" ".join(found.patterns)]
        messages += [line for name in absent for line in run.error(key, f"{name} not found; correct it").messages]
    if messages:
        raise BadInput(*messages)


def _check_free(folder: Path) -> None:
    """Raise BadInput where files of other origin would be overwritten."""
    there = [folder / name for name in FILES if (folder / name).exists()]
    if there and not _is_ours(folder / FILES[0]):
        raise BadInput(f"{there[0]} is in the way and not of this command; choose another folder with --out")


def _is_ours(path: Path) -> bool:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("made_by") == _MADE_BY


def _series(run: RunFile) -> tuple[FrameSeries, list[str]]:
    """Frames that say what the detector is like: the sample's, or the standard's where those cannot be opened."""
    data = run.config.data
    reason = "not there"
    if data.frames and all(path.is_file() for path in (*data.frames, *(data.scalers or ()))):
        try:
            return open_sample(run, growing=True), []  # a scan may be running
        except BadInput as error:
            reason = error.messages[0]
    files, key = standard_files(run)[0]
    note = f"shape and header of the frames are those of {key}.frames; the sample's: {reason}"
    return open_reference(run, files, key), [note]


# --- what is said ----------------------------------------------------------------------------------------------------


def paste_line(factor: Uncertain) -> str:
    """The factor as a run file takes it, to seven digits: "scale: 1.234567e-05 ± 0.512 %"."""
    return f"scale: {factor.value:.7g} ± {100 * factor.relative:.3g} %"


def _rows(found: _Found) -> Rows:
    scale, bins = found.scale, int(found.inside.sum())
    return [
        ("method", scale.method),
        ("factor K", f"{plus_minus(*scale.factor)}, ± {100 * scale.factor.relative:.2g} %"),
        ("window", f"{found.window_nm[0]:.4g} to {found.window_nm[1]:.4g} nm⁻¹, {bins} bins"),
        ("level", f"{plus_minus(*found.level)} per mm, normalised; mean over the window{_over_background(found)}"),
        *([] if found.known is None else [("cross section", _known_text(found.run, found.known))]),
        ("flatness", _flatness_text(scale, CARBON_DRIFT if found.known is None else WATER_DRIFT)),
        ("χ² reduced", f"{scale.chi2_red:.3f} with {bins - 1} degrees of freedom"),
        ("uncertainty of K", contributions_text(scale)),
        *((f"frames of {STANDARDS[key]}", f"{used} used, {out} left out") for key, (used, out) in found.frames.items()),
        *(("note", note) for note in found.notes),
        ("for a run file", paste_line(scale.factor)),
    ]


def _over_background(found: _Found) -> str:
    """How far the standard stands out, where its background is above 0."""
    standard, background = (
        float(curve[found.inside].mean()) for curve in (found.measured.standard[0], found.measured.background[0])
    )
    return f", {(standard - background) / background:.3g} times the background" if background > 0 else ""


def _flatness_text(scale: ScaleFactor, tolerated: float) -> str:
    text = f"slope {scale.slope_over_sigma:+.2f} σ, {scale.drift:+.2%} across the window"
    return f"{text} (refused only where both exceed {MAX_SIGMA:g} σ and {tolerated:.0%})"


def _known_text(run: RunFile, known: Uncertain) -> str:
    water = run.config.intensity.water
    at = "" if water is None or water.temperature is None else f", of water at {celsius(water.temperature)}"
    return f"{plus_minus(*known, unit='mm⁻¹')}{at}"


def _content(found: _Found) -> dict[str, Any]:
    """What scale.json holds; the units are in the names."""
    scale, known = found.scale, found.known
    return {
        "made_by": _MADE_BY,
        "run_file": found.run.path.name,
        "digest": runfile.digest(found.run),
        "method": scale.method,
        "factor": scale.factor.value,
        "factor_error": scale.factor.error,
        "scale": paste_line(scale.factor).removeprefix("scale: "),
        "contributions_relative": dict(scale.contributions),
        "window_1_nm": found.window_nm,
        "bins": int(found.inside.sum()),
        "level_normalised_1_mm": found.level.value,
        "level_normalised_1_mm_error": found.level.error,
        "cross_section_1_mm": None if known is None else known.value,
        "cross_section_1_mm_error": None if known is None else known.error,
        "slope_over_sigma": scale.slope_over_sigma,
        "drift_relative": scale.drift,
        "chi2_reduced": scale.chi2_red,
        "frames": {key: {"used": used, "left_out": out} for key, (used, out) in found.frames.items()},
        "notes": found.notes,
    }


def _draw(found: _Found, folder: Path) -> str:
    """The figure into `folder`; returns what it shows."""
    from saxs_pipeline.outputs.figure_files import write_drawings
    from saxs_pipeline.outputs.plot_calibration import draw_glassy_carbon, draw_water

    if found.known is None:
        draw = partial(draw_glassy_carbon, NAME, found.measured, found.scale)
    else:
        draw = partial(draw_water, NAME, found.measured, found.scale, found.known)
    return write_drawings([draw], folder)[0].caption
