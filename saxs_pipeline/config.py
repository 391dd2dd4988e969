"""The run file: every key with its unit, its meaning and its limits.

`runfile.load` reads the YAML and reports all mistakes at once with their line and column; this module says what is
right. Numbers that have a unit are written with it ("18 keV"), and arrive here in the internal units (see types.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from saxs_pipeline.data_config import Darks, Data, FrameFiles, Image, Reference
from saxs_pipeline.engine_config import Engine
from saxs_pipeline.fields import (
    Folder,
    FrameSelection,
    InverseNm,
    Metres,
    Number,
    OneFile,
    QRange,
    Quantity,
    Radians,
    Ratio,
    Section,
    Thickness,
    TimeRange,
    Title,
    increasing,
    misplaced,
)
from saxs_pipeline.model_config import Model
from saxs_pipeline.reaction_config import AliquotTable, Kinetics
from saxs_pipeline.sample_config import Sample
from saxs_pipeline.science.standards import water_cross_section
from saxs_pipeline.sizes_config import Sizes
from saxs_pipeline.types import BadInput, Uncertain

# --- geometry and corrections ----------------------------------------------------------------------------------------


class Geometry(Section):
    """A PONI file; or the frames' header, with any of the values overridden; or all values here."""

    poni: OneFile | None = None
    header: bool = False
    detector: str | None = Field(None, description="pyFAI's name of the detector, for its mask and pixel size")
    distance: Metres | None = None
    center: tuple[Number, Number] | None = Field(None, description="beam centre in px, fast axis first")
    pixel_size: Metres | None = None
    energy: Annotated[float, Quantity("keV")] | None = None
    rotation: tuple[Radians, Radians, Radians] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        explicit = {"distance": self.distance, "center": self.center, "energy": self.energy}
        if self.poni is not None:
            if self.header or any(v is not None for v in (*explicit.values(), self.pixel_size, self.rotation)):
                raise misplaced("poni", "a PONI file holds the whole geometry; remove the other keys, or `poni`")
        elif not self.header:
            missing = [name for name, value in explicit.items() if value is None]
            if self.pixel_size is None and self.detector is None:
                missing.append("pixel_size")
            if missing:
                raise misplaced("", f"give `poni: FILE`, `header: true`, or also {', '.join(missing)}")
        return self


class BadPixels(Section):
    """Pixels that dark frames and flat show to be of no use are masked, counted and reported; `{}` for the defaults."""

    hot: Annotated[Number, Field(gt=0)] = Field(
        10.0, description="dark level above the median, in standard deviations of the pixels' levels (from their MAD)"
    )
    noisy: Annotated[Number, Field(gt=1)] = Field(5.0, description="scatter of the darks over the median pixel's")
    flat: Annotated[tuple[Number, Number], AfterValidator(increasing)] = Field(
        (0.5, 2.0), description="accepted range of the flat, relative to its median"
    )


class Sensor(Section):
    """The layer that absorbs the photons: oblique ones are seen further out (parallax), and more of them are."""

    material: Annotated[str, Field(min_length=1)] = Field(
        description="as pyFAI names it: Si, CdTe, CZT, GaAs, Gd2O2S …"
    )
    thickness: Metres


class SigmaClip(Section):
    """Zingers, cosmic rays and Bragg spots are left out of their q bin; `{}` for the defaults."""

    threshold: Annotated[Number, Field(ge=3)] = Field(
        5.0, description="standard deviations from the mean of the bin, by counting statistics or by its own scatter"
    )
    iterations: Annotated[int, Field(ge=1, le=100)] = 5


class Corrections(Section):
    """What is done to the pixels. gain, read_noise and polarization carry meaning: they have no default."""

    gain: Annotated[Number, Field(gt=0, description="ADU per photon; 1 for a photon counter")]
    read_noise: Annotated[Number, Field(ge=0, description="ADU, standard deviation per pixel; 0 for a photon counter")]
    polarization: Annotated[Number, Field(ge=-1, le=1)] | None = Field(description="factor as in pyFAI; null: off")
    solid_angle: bool = True
    pedestal: Number | None = Field(
        None, description="ADU, constant offset in frames and darks alike; default: what the header says, else 0"
    )
    dark: Darks | None = None
    flat: Image | None = None
    mask: Image | None = Field(None, description="non-zero = masked")
    sensor: Sensor | Literal["declared"] | None = Field(
        None, description="parallax and efficiency at oblique incidence; declared: what the named detector is made of"
    )
    bad_pixels: BadPixels | None = None
    sigma_clip: SigmaClip | None = None
    dummy: float | None = Field(None, description="value of pixels that were not measured; overrides the header's")
    dummy_delta: Annotated[Number, Field(ge=0)] = 0.0
    saturation: Annotated[Number, Field(gt=0)] | None = Field(None, description="ADU; such pixels are not used")


class Integration(Section):
    """Bins of the azimuthal integration, linear in q."""

    bins: Annotated[int, Field(ge=10, le=100_000)]
    q_min: InverseNm
    q_max: InverseNm
    splitting: Literal["none", "bbox", "full"] = Field(
        "none", description="pixel splitting correlates neighbouring bins: their errors are then too small"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.q_min < self.q_max:
            raise misplaced("q_max", f"q_max must be larger than q_min ({self.q_min:g} 1/nm)")
        return self


class Rebin(Section):
    """Fewer bins for all that follows the integration: means weighted by pixels, errors propagated."""

    bins: Annotated[int, Field(ge=10, le=100_000)]
    spacing: Literal["linear", "log"] = "linear"


# --- intensity and background ----------------------------------------------------------------------------------------


class Water(FrameFiles):
    """Water in its cell against the empty cell: the absolute scale."""

    empty: Reference
    thickness: Thickness
    cross_section: Annotated[Uncertain, Quantity("1/mm", uncertain=True)] | None = Field(
        None, description="dΣ/dΩ, e.g. 1.65e-3 1/mm (Dreiss et al. 2006); or give `temperature`"
    )
    temperature: Annotated[Uncertain, Quantity("K", uncertain=True)] | None = Field(
        None, description="of the water, e.g. 20 °C ± 0.5 °C; gives dΣ/dΩ in place of `cross_section`"
    )
    window: QRange

    @model_validator(mode="after")
    def _one_cross_section(self) -> Self:
        if (self.cross_section is None) == (self.temperature is None):
            raise misplaced(
                "cross_section",
                "give exactly one of `cross_section` (e.g. 1.65e-3 1/mm ± 1 %) and `temperature` (e.g. 20 °C ± 0.5 °C)",
            )
        if self.temperature is not None:
            try:
                water_cross_section(self.temperature)
            except BadInput as error:
                raise misplaced("temperature", str(error)) from None
        return self

    @property
    def known(self) -> Uncertain:
        """dΣ/dΩ in 1/mm, as given or from the temperature."""
        if self.cross_section is not None:
            return self.cross_section
        assert self.temperature is not None
        return water_cross_section(self.temperature)


class GlassyCarbon(FrameFiles):
    """Glassy carbon NIST SRM 3600 against its background: the absolute scale from the certified curve."""

    background: Reference
    thickness: Thickness
    window: QRange | None = Field(None, description="default: all certified q that the data cover")


class Intensity(Section):
    """From normalised to absolute intensity: monitor, thickness, and water, glassy carbon or a known factor."""

    monitor: str | None = Field(
        None, description="I1 (after the sample), I0 (needs transmission), exposure, none, or a scaler's name"
    )
    monitor_uncertainty: Annotated[float, Quantity("", "not negative")] | None = Field(
        None, description="relative standard uncertainty of each reading of the monitor, e.g. 0.2 %"
    )
    transmission: Ratio | None = None
    thickness: Thickness | None = None
    water: Water | None = None
    glassy_carbon: GlassyCarbon | None = None
    scale: Ratio | None = Field(None, description="known factor from normalised intensity to 1/mm")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [name for name in ("water", "glassy_carbon", "scale") if getattr(self, name) is not None]
        if len(given) > 1:
            raise misplaced(given[-1], f"one measurement or factor gives the scale; keep one of {', '.join(given)}")
        if self.standard is not None and self.thickness is None:
            raise misplaced("thickness", "absolute intensity needs the sample's thickness, e.g. '4 mm ± 0.02 mm'")
        if (self.monitor == "I0") != (self.transmission is not None):
            raise misplaced("transmission", "monitor I0 (before the sample) needs `transmission`, and only I0 does")
        if self.monitor_uncertainty is not None and self.monitor in (None, "none"):
            raise misplaced("monitor_uncertainty", "there is no monitor (`intensity.monitor`) that could be uncertain")
        if self.monitor_uncertainty is not None and not self.monitor_uncertainty < 0.1:
            share = f"{100 * self.monitor_uncertainty:g} %"
            raise misplaced(
                "monitor_uncertainty", f"{share} of a reading is no monitor; write it like '0.2 %', or 0.002"
            )
        if self.transmission is not None and not 0 < self.transmission.value <= 1:
            raise misplaced("transmission", f"a transmission lies between 0 and 1, got {self.transmission.value:g}")
        return self

    @property
    def standard(self) -> Water | GlassyCarbon | None:
        """The standard that was measured for the absolute scale."""
        return self.water if self.water is not None else self.glassy_carbon

    @property
    def absolute(self) -> bool:
        """Whether the curves come out in 1/mm."""
        return self.standard is not None or self.scale is not None


class BackgroundChoice(Section):
    """What is subtracted: the average over a time window or chosen frames of the scan, or separate frames."""

    time: TimeRange | None = None
    frames: FrameSelection | None = None
    file: Reference | None = None
    curve: OneFile | None = Field(None, description="three-column text in the unit of the curves, with data.curves")
    factor: Annotated[Number, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if sum(v is not None for v in (self.time, self.frames, self.file, self.curve)) != 1:
            raise misplaced("", "give exactly one of `time`, `frames`, `file`, `curve`")
        return self


# --- model, engine, output -------------------------------------------------------------------------------------------


class Output(Section):
    """Where the results go."""

    folder: Folder = Field(default=Path("results"), validate_default=True)
    curves: tuple[Annotated[int, Field(ge=0)], ...] = Field((), description="frames written as text and drawn")


class RunConfig(Section):
    """A whole run file."""

    title: Title
    data: Data
    geometry: Geometry | None = None
    corrections: Corrections | None = None
    integration: Integration | None = None
    rebin: Rebin | None = None
    intensity: Intensity = Intensity()
    background: BackgroundChoice | None = None
    sample: Sample | None = None
    model: Model | None = None
    sizes: Sizes | None = None
    kinetics: Kinetics | None = None
    aliquots: AliquotTable | None = None
    engine: Engine = Engine()
    output: Output = Output()

    @model_validator(mode="after")
    def _sections_match(self) -> Self:
        if self.data.frames is not None:
            for key in ("geometry", "corrections", "integration"):
                if getattr(self, key) is None:
                    raise misplaced(key, f"frames need the section `{key}`")
            if self.intensity.monitor is None:
                raise misplaced("intensity", "say what frames are divided by, e.g. `intensity: {monitor: I1}`")
        elif self.intensity.standard is not None or self.intensity.monitor is not None:
            raise misplaced("intensity", "integrated curves take `thickness` and `scale` only; a standard needs frames")
        if self.background is not None and self.background.curve is not None and self.data.curves is None:
            raise misplaced("background", "`curve` goes with data.curves; for frames give `file`, `time` or `frames`")
        if self.background is not None and self.background.file is not None and self.data.frames is None:
            raise misplaced("background", "`file` goes with data.frames; for curves give `curve`, `time` or `frames`")
        self._check_whole_pixels()
        self._check_model_window()
        self._check_sample()
        self._check_concentrations()
        return self

    def _check_whole_pixels(self) -> None:
        if self.integration is None or self.integration.splitting == "none":
            return
        if self.rebin is not None:
            raise misplaced("rebin", "pixel splitting ties neighbouring bins together: give `splitting: none`")
        if self.corrections is not None and self.corrections.sigma_clip is not None:
            raise misplaced("corrections", "`sigma_clip` needs pixels that lie in one bin each: give `splitting: none`")
        if self.engine.device != "cpu":
            raise misplaced("engine", f"`device: {self.engine.device}` adds whole pixels up: give `splitting: none`")

    def _check_model_window(self) -> None:
        if self.integration is None:
            return
        low, high = self.integration.q_min, self.integration.q_max
        for key, section, whose in (("model", self.model, "the fit's"), ("sizes", self.sizes, "their")):
            if section is not None and (section.q_min < low * (1 - 1e-9) or section.q_max > high * (1 + 1e-9)):
                raise misplaced(key, f"{whose} q range must lie within the integrated one, {low:g} to {high:g} 1/nm")

    def _check_sample(self) -> None:
        """Contrast, unit cell and expansion, as every population sees them."""
        populations = () if self.model is None else self.model.populations or ()
        if self.sample is None:
            for k, one in enumerate(populations):
                if own := one.own:
                    text = "without a section `sample` there is no c to be had; add `sample: {}` at least"
                    raise misplaced(f"model.populations.{k}.{min(own)}", text)
            return
        seen = [one.sample(self.sample) for one in populations]
        if self.sample.temperature is not None and not any(one.expands for one in (self.sample, *seen)):
            raise misplaced(
                "sample.temperature",
                "no material expands; give one `expansion` and `density_at`, or remove the temperature",
            )
        if not seen and self.sample.lacks is not None:
            key, text = self.sample.lacks
            raise misplaced(f"sample.{key}", text)
        for k, (one, sample) in enumerate(zip(populations, seen, strict=True)):
            self._check_population(f"model.populations.{k}", one.name, sample)

    @staticmethod
    def _check_population(place: str, name: str, sample: Sample) -> None:
        if sample.lacks is not None:
            raise misplaced(place, f"{name}: {sample.lacks[1]}, here or in `sample`")
        if sample.expansion_mistake is not None:
            key, text = sample.expansion_mistake
            text = "its expansion needs `sample.temperature`, e.g. 260 °C" if key == "temperature" else text
            raise misplaced(f"{place}.particle", f"{name}: {text}")

    def _check_concentrations(self) -> None:
        """The kinetic model and a fitted scale of aliquots need c_NC of the series."""
        missing = [f"the section `{key}`" for key in ("sample", "model") if getattr(self, key) is None]
        if self.data.frames is not None and not self.intensity.absolute:
            missing.append("an absolute scale, `water`, `glassy_carbon` or `scale` in `intensity`")
        if missing and self.kinetics is not None:
            raise misplaced("kinetics", f"a comparison needs c_NC of the series; add {' and '.join(missing)}")
        if missing and self.aliquots is not None and self.aliquots.scale is None:
            raise misplaced(
                "aliquots", f"to fit their scale needs c_NC of the series; add {' and '.join(missing)}, or give a scale"
            )
        if self.aliquots is not None and self.model is None:
            raise misplaced("aliquots", "there is no series to show them beside; add the section `model`")
