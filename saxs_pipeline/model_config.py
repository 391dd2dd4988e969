"""What is fitted to the curves: populations of spheres, their sizes, and what comes on top of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from saxs_pipeline.fields import InverseNm, Metres, Nm, NumberOrRange, Quantity, Section, SizeRange, misplaced
from saxs_pipeline.model_spec import ModelSpec, Population, SigmaQ
from saxs_pipeline.sample_config import Material, Sample
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.science.expressions import Expression
from saxs_pipeline.types import BadInput, Uncertain


def _no_column(name: str) -> str:
    """Its columns of series.csv are none that are there without it: sigma_r_nm is."""
    if name == "sigma":
        raise ValueError("sigma_r_nm is a column already; give another name")
    return name


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}$"), AfterValidator(_no_column)]
Exponent = Annotated[float | tuple[float, float], NumberOrRange(1, 6, "[3, 4.5]")]
Fraction = Annotated[float | tuple[float, float], NumberOrRange(0, 0.6, "[0, 0.3]")]
BEAM_M = (1e-6, 1e-2)
"""Smallest and largest width of a beam on the detector that is one, m."""


class PopulationChoice(Section):
    """One of two populations. What is given of its material stands in place of the sample's."""

    name: Name = Field(description="word in front of its columns, e.g. crystals")
    radius: SizeRange = Field(description="accepted range, and range of the start grid")
    sigma: SizeRange = Field((0.02, 0.6), description="range of the start grid; the upper end limits σ_r")
    contrast: Annotated[Uncertain, Quantity("1/Å^2", uncertain=True)] | None = None
    particle: Material | None = None
    lattice_parameter: Annotated[Uncertain, Quantity("nm", uncertain=True)] | None = Field(
        None, description="(pseudo-)cubic unit cell, for the yield"
    )
    cations_per_cell: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_contrast(self) -> Self:
        if self.contrast is not None and self.particle is not None:
            raise misplaced("contrast", "give `contrast` or `particle`, not both")
        return self

    @property
    def own(self) -> dict[str, Any]:
        """What is given of its material, by key."""
        return {name: value for name in _OWN if (value := getattr(self, name)) is not None}

    def sample(self, common: Sample) -> Sample:
        """The sample as this population sees it."""
        own = self.own
        if "contrast" in own:
            own["particle"] = own["solvent"] = None
        elif "particle" in own:
            own["contrast"] = None
        return common.model_copy(update=own)


_OWN = ("contrast", "particle", "lattice_parameter", "cations_per_cell")


class Resolution(Section):
    """Smearing in q, a Gaussian: its standard deviation, or what the beam's size on the detector makes of it."""

    sigma_q: InverseNm | None = None
    beam: Metres | None = Field(
        None, description="full width at half maximum on the detector; pixels and width of the bins are added"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.sigma_q is None) == (self.beam is None):
            raise misplaced("", "give `sigma_q` (e.g. 0.02 1/nm) or `beam` (e.g. 0.4 mm)")
        if self.beam is not None and not BEAM_M[0] <= self.beam <= BEAM_M[1]:
            raise misplaced("beam", f"{self.beam:.2g} m is not the width of a beam; give one from 1 µm to 10 mm")
        return self


class StructureFactor(Section):
    """Hard spheres (Percus–Yevick), each particle among others of its size (local monodisperse approximation)."""

    volume_fraction: Fraction = Field(description="of the hard spheres: a value, or the range in which it is fitted")
    shell: Annotated[float, Quantity("nm", "not negative")] = Field(
        0.0, description="how much larger than the crystal the hard sphere is in radius: its ligands"
    )


class Model(Section):
    """Spheres with a distribution of radii plus a constant (Prins SI, S2.1-S2.3), and what else is asked for."""

    q_min: InverseNm
    q_max: InverseNm
    distribution: Literal["gaussian", "lognormal", "schulz"] = Field(
        "gaussian", description="of the number of radii; r and σ_r are its mean and standard deviation"
    )
    radius: SizeRange = Field((0.5, 5.0), description="accepted range, and range of the start grid")
    sigma: SizeRange = Field((0.02, 0.6), description="range of the start grid; the upper end limits σ_r")
    populations: tuple[PopulationChoice, PopulationChoice] | None = Field(
        None, description="two coexisting ones in place of `radius` and `sigma`; the series analysis is of the first"
    )
    power_law: Exponent | None = Field(
        None, description="term d q^-p: its exponent (4: Porod), or the range in which it is fitted"
    )
    constant: Annotated[float, Quantity("1/mm", "any")] | None = Field(
        None, description="the constant background where it is known; default: fitted"
    )
    structure_factor: StructureFactor | None = None
    resolution: Resolution | None = None
    fixed: dict[str, Nm] = Field(
        {}, description="radius or sigma, with two populations crystals_radius …, held at a value"
    )
    tied: dict[str, Annotated[str, Field(min_length=1)]] = Field(
        {}, description="radius or sigma as an expression of others, e.g. sigma: 0.06 * radius"
    )

    @field_validator("fixed", mode="before")
    @classmethod
    def _sizes_alone(cls, held: Any, info: ValidationInfo) -> Any:
        """Only sizes can be held; said before their unit is looked at."""
        if not isinstance(held, dict) or "populations" not in info.data:  # these are wrong themselves
            return held
        names = _sizes(info.data["populations"])
        for name in held:
            if name not in names:
                raise misplaced(str(name), f"cannot be held at a value; choose from {', '.join(names)}")
        return held

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.q_min < self.q_max:
            raise misplaced("q_max", f"q_max must be larger than q_min ({self.q_min:g} 1/nm)")
        if self.populations is not None:
            first, second = sorted(self.populations, key=lambda p: p.radius)
            _check_names(first.name, second.name)
            if first.radius[1] > second.radius[0]:
                raise misplaced(
                    "populations",
                    f"the radii of {first.name} and {second.name} overlap, so that a fit could exchange them; "
                    "let one range end where the other begins",
                )
            if given := self.model_fields_set & {"radius", "sigma"}:
                raise misplaced(min(given), "belongs to each of the populations; remove it here")
        _check_not_circular(self.tied, _sizes(self.populations))
        try:
            model = CurveModel.of(self.spec([1.0, 1.0]))
        except BadInput as error:
            raise misplaced("tied" if self.tied else "fixed", str(error)) from None
        self._check_fixed(model)
        self._check_tied(model)
        return self

    def _check_fixed(self, model: CurveModel) -> None:
        """What is held lies where it would be accepted if it were fitted."""
        for name, value in self.fixed.items():
            low, high = model.accepted_nm[name]
            if not low <= value <= high:
                raise misplaced(
                    f"fixed.{name}", f"{value:g} nm lies outside the accepted {low:g} to {high:g} nm; widen that range"
                )

    def _check_tied(self, model: CurveModel) -> None:
        """An expression is accepted somewhere in the ranges of what it follows, of which 17 values each are tried."""
        for name, text in self.tied.items():
            expression = Expression(text)
            tried = [
                [self.fixed[source]] if source in self.fixed else np.linspace(*model.accepted_nm[source], 17)
                for source in sorted(expression.names)
            ]
            values = expression(dict(zip(sorted(expression.names), np.meshgrid(*tried), strict=True)))
            low, high = model.accepted_nm[name]
            if not ((values > 0) & (values >= low) & (values <= high)).any():
                accepted = f"{low:g} to {high:g} nm"
                raise misplaced(
                    f"tied.{name}", f"{text!r} is nowhere in the accepted {accepted}; correct it or the range"
                )

    def samples(self, sample: Sample | None) -> tuple[Sample | None, ...]:
        """The sample as each population sees it."""
        if self.populations is None or sample is None:
            return (sample,) * (1 if self.populations is None else 2)
        return tuple(one.sample(sample) for one in self.populations)

    def spec(self, amplitudes: tuple[float, ...] | list[float], sigma_q_1_nm: SigmaQ = 0.0) -> ModelSpec:
        """The model with what I(q) is per µmol/L and nm⁶ of each population, and the resolution in q."""
        choices = self.populations or (PopulationChoice.model_construct(name="", radius=self.radius, sigma=self.sigma),)
        hard = self.structure_factor
        return ModelSpec(
            populations=tuple(
                Population(amplitude, one.radius, one.sigma, one.name)
                for amplitude, one in zip(amplitudes, choices, strict=False)
            ),
            distribution=self.distribution,
            power_law=_range(self.power_law),
            constant=self.constant,
            volume_fraction=None if hard is None else _range(hard.volume_fraction),
            shell_nm=0.0 if hard is None else hard.shell,
            sigma_q_1_nm=sigma_q_1_nm,
            fixed=tuple(sorted(self.fixed.items())),
            tied=tuple(sorted(self.tied.items())),
        )


def _check_names(one: str, other: str) -> None:
    """The names of parameters and columns, NAME_…, tell the populations apart."""
    if one == other:
        raise misplaced("populations", f"both are named {one}; give them different names")
    short, long = sorted((one, other), key=len)
    if long.startswith(f"{short}_"):
        raise misplaced("populations", f"{long} begins like the columns of {short}, {short}_…; rename one")


def _sizes(populations: tuple[PopulationChoice, ...] | None) -> list[str]:
    """Names of what can be held or tied."""
    prefixes = [f"{one.name}_" for one in populations or ()] or [""]
    return [f"{prefix}{name}" for prefix in prefixes for name in ("radius", "sigma")]


def _check_not_circular(tied: dict[str, str], sizes: list[str]) -> None:
    """What a size is tied to is not tied itself."""
    use = ", ".join(size for size in sizes if size not in tied) or "numbers alone"
    for name, text in tied.items():
        try:
            names = Expression(text).names
        except BadInput:  # said when the model is put together
            continue
        if name in names:
            raise misplaced(f"tied.{name}", f"{text!r} says it by itself; use {use}")
        if circular := names & tied.keys():
            raise misplaced(f"tied.{name}", f"{min(circular)}, to which it is tied, is tied itself; use {use}")


def _range(value: float | tuple[float, float] | None) -> tuple[float, float] | None:
    return (value, value) if isinstance(value, float) else value
