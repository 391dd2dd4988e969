"""The sections of the run file that name images: the measurement, its references, single images."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from saxs_pipeline.fields import (
    Files,
    Folder,
    Number,
    OneFile,
    Quantity,
    Ratio,
    Seconds,
    Section,
    Time_s,
    misplaced,
)

Orientation = Literal[
    "none",
    "flip_up_down",
    "flip_left_right",
    "rotate_180",
    "rotate_left",
    "rotate_right",
    "transpose",
    "transpose_anti",
]


class TimingLaw(Section):
    """Period of frame n (from 1): exposure + wait · growth^(n-1) (Prins SI, S1.4)."""

    exposure: Seconds
    wait: Annotated[float, Quantity("s", "not negative")] = 0.0
    growth: Annotated[Number, Field(gt=0)] = 1.0


class Time(Section):
    """Where the frames' times come from, and when the injection was."""

    source: Literal["auto", "scalers", "file", "law"] = Field(
        "auto", description="auto: the law if one is given, else the scalers, else the frames' own files"
    )
    law: TimingLaw | None = None
    zero: Time_s = Field(0.0, description="the injection, on the clock of the frames")

    @model_validator(mode="after")
    def _law_given(self) -> Self:
        if self.source == "law" and self.law is None:
            raise misplaced("source", "source: law needs `law: {exposure: 75 ms, wait: 22 ms, growth: 1.015}`")
        return self


class CurveFiles(Section):
    """Already-integrated 1D stacks: ID02 result_ave, SAXSutilities, or three-column text, one file per curve."""

    files: Files
    q_unit: Literal["1/nm", "1/Å", "1/angstrom", "1/m"]
    intensity_unit: Literal["1/mm", "1/cm", "1/m"]


class Data(Section):
    """The measurement: images (`frames`) or integrated curves (`curves`), their scalers and their times."""

    frames: Files | None = None
    curves: CurveFiles | None = None
    scalers: Files | None = None
    detector: str | None = Field(None, description="which detector of a .fio scan")
    orientation: Orientation = Field(
        "none", description="turns stored images, references' too, into those that geometry, flat and mask mean"
    )
    roots: tuple[Folder, ...] = Field((), description="folders that paths found inside files may point into")
    time: Time = Time()

    @model_validator(mode="after")
    def _one_input(self) -> Self:
        if (self.frames is None) == (self.curves is None):
            raise misplaced("frames", "give exactly one of `frames` (images) and `curves` (integrated)")
        return self


class FrameFiles(Section):
    """Frames of a reference measurement (dark, empty cell, background); a bare path stands for `frames:` alone."""

    frames: Files
    scalers: Files | None = None
    transmission: Ratio | None = Field(None, description="of this measurement; with monitor I0 only")
    exposure: Seconds | None = Field(None, description="of each frame, where it is needed and no file says it")


def _frames_alone(value: Any) -> Any:
    return {"frames": value} if isinstance(value, str | list) else value


Reference = Annotated[FrameFiles, BeforeValidator(_frames_alone)]


class DarkFrames(FrameFiles):
    """Frames without beam."""

    average: Literal["mean", "median"] = Field("mean", description="median: for darks with cosmic rays or zingers")
    scale_with_exposure: bool = Field(
        False, description="dark current, pedestal apart, times each frame's exposure over that of the dark frames"
    )


Darks = Annotated[DarkFrames, BeforeValidator(_frames_alone)]


class ImageFile(Section):
    """One image; a bare path stands for `file:` alone."""

    file: OneFile
    orientation: Orientation = Field("none", description="turns the stored image into the one that the geometry means")


Image = Annotated[ImageFile, BeforeValidator(lambda value: {"file": value} if isinstance(value, str) else value)]
