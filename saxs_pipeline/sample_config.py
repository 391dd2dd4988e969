"""The sample: what its crystals and its solvent are made of, and what the yield is counted against."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from saxs_pipeline.fields import Quantity, Section, misplaced
from saxs_pipeline.science.contrast import expanded_density
from saxs_pipeline.types import BadInput, Uncertain

_MOST_EXPANSION_1_K = 0.01


def _of_condensed_matter(expansion: Uncertain) -> Uncertain:
    if not abs(expansion.value) < _MOST_EXPANSION_1_K:
        raise ValueError(f"{expansion.value:g} 1/K is no expansion of a liquid (about 1e-3 1/K) or a solid (1e-5 1/K)")
    return expansion


class Material(Section):
    """Composition and density, or composition and unit cell, from which the scattering length density follows."""

    formula: Annotated[str, Field(pattern=r"^[A-Za-z0-9.()]+$")]
    density: Annotated[Uncertain, Quantity("g/cm^3", uncertain=True)] | None = None
    lattice_parameter: Annotated[Uncertain, Quantity("nm", uncertain=True)] | None = Field(
        None, description="of a (pseudo-)cubic cell, in place of the density"
    )
    formula_units: Annotated[int, Field(ge=1)] | None = Field(
        None, description="in that cell: 4 in zinc blende or rock salt, 1 in a cubic perovskite"
    )
    expansion: (
        Annotated[Uncertain, Quantity("1/K", "any", uncertain=True), AfterValidator(_of_condensed_matter)] | None
    ) = Field(None, description="mean thermal expansion of the volume from `density_at` to the sample's temperature")
    density_at: Annotated[float, Quantity("K")] | None = Field(
        None, description="temperature at which density or lattice parameter hold, e.g. 20 °C"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.lattice_parameter is None) != (self.formula_units is None):
            raise misplaced("", "a density from the unit cell needs lattice_parameter and formula_units")
        if (self.density is None) == (self.lattice_parameter is None):
            raise misplaced("density", "give `density`, or both `lattice_parameter` and `formula_units` of a crystal")
        if (self.expansion is None) != (self.density_at is None):
            raise misplaced("", "a density at another temperature needs expansion and density_at; give both or none")
        return self


class Sample(Section):
    """Contrast, and what the yield is counted against."""

    contrast: Annotated[Uncertain, Quantity("1/Å^2", uncertain=True)] | None = None
    particle: Material | None = None
    solvent: Material | None = None
    temperature: Annotated[Uncertain, Quantity("K", uncertain=True)] | None = Field(
        None, description="of the sample, for materials with `expansion`"
    )
    lattice_parameter: Annotated[Uncertain, Quantity("nm", uncertain=True)] | None = Field(
        None, description="cubic unit cell of the crystal"
    )
    cations_per_cell: Annotated[int, Field(ge=1)] | None = None
    cation_concentration: Annotated[Uncertain, Quantity("mmol/L", uncertain=True)] | None = Field(
        None, description="c_Cd,0 in the reaction mixture"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.contrast is not None and not (self.particle is None and self.solvent is None):
            raise misplaced("contrast", "give `contrast`, or both `particle` and `solvent`")
        return self

    @property
    def lacks(self) -> tuple[str, str] | None:
        """(key, what is missing there) for c_NC and yield, None if nothing is."""
        if self.contrast is None and (self.particle is None or self.solvent is None):
            return "contrast", "give `contrast`, or both `particle` and `solvent`"
        group = (self.lattice_parameter, self.cations_per_cell, self.cation_concentration)
        if any(v is None for v in group) and any(v is not None for v in group):
            return "", "a yield needs lattice_parameter, cations_per_cell and cation_concentration; give all or none"
        return None

    @model_validator(mode="after")
    def _expands(self) -> Self:
        if (mistake := self.expansion_mistake) is not None:
            raise misplaced(*mistake)
        return self

    @property
    def expansion_mistake(self) -> tuple[str, str] | None:
        """(key, what is wrong there) with the temperature to which materials expand, None if nothing is."""
        for name, material in self.materials.items():
            if material.expansion is None or material.density_at is None:
                continue
            if self.temperature is None:
                return "temperature", f"the expansion of the {name} needs it, e.g. `temperature: 260 °C`"
            try:
                expanded_density(Uncertain(1.0), material.expansion, self.temperature.value - material.density_at)
            except BadInput as error:
                return name, str(error)
        return None

    @property
    def expands(self) -> bool:
        """Whether any of its materials does."""
        return any(material.expansion is not None for material in self.materials.values())

    @property
    def materials(self) -> dict[str, Material]:
        """What the contrast is made of, by its key."""
        given = {"particle": self.particle, "solvent": self.solvent}
        return {name: material for name, material in given.items() if material is not None}
