"""The sample: what its crystals and its solvent are made of, and what the yield is counted against."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from saxs_pipeline.fields import Quantity, Section, misplaced
from saxs_pipeline.types import Uncertain


class Material(Section):
    """Composition and density, from which the scattering length density follows."""

    formula: Annotated[str, Field(pattern=r"^[A-Za-z0-9.()]+$")]
    density: Annotated[float, Quantity("g/cm^3")]


class Sample(Section):
    """Contrast, and what the yield is counted against."""

    contrast: Annotated[Uncertain, Quantity("1/Å^2", uncertain=True)] | None = None
    particle: Material | None = None
    solvent: Material | None = None
    lattice_parameter: Annotated[Uncertain, Quantity("nm", uncertain=True)] | None = Field(
        None, description="cubic unit cell of the crystal"
    )
    cations_per_cell: Annotated[int, Field(ge=1)] | None = None
    cation_concentration: Annotated[Uncertain, Quantity("mmol/L", uncertain=True)] | None = Field(
        None, description="c_Cd,0 in the reaction mixture"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.contrast is None) == (self.particle is None) or (self.particle is None) != (self.solvent is None):
            raise misplaced("contrast", "give `contrast`, or both `particle` and `solvent`")
        group = (self.lattice_parameter, self.cations_per_cell, self.cation_concentration)
        if any(v is None for v in group) and any(v is not None for v in group):
            raise misplaced(
                "", "a yield needs lattice_parameter, cations_per_cell and cation_concentration; give all or none"
            )
        return self
