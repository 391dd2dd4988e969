"""Section of the run file about size distributions without a shape assumption."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from saxs_pipeline.fields import InverseNm, Section, SizeRange, misplaced


class Sizes(Section):
    """The volume-weighted size distribution of every frame, spheres of any sizes plus a constant."""

    method: Literal["regularised"] = Field("regularised", description="regularised non-negative inversion")
    q_min: InverseNm
    q_max: InverseNm
    radius: SizeRange = Field((0.5, 6.0), description="range of the radii")
    bins: Annotated[int, Field(ge=20, le=400)] = Field(161, description="number of radii")
    spacing: Literal["geometric", "linear"] = Field("linear", description="of the radii")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.q_min < self.q_max:
            raise misplaced("q_max", f"q_max must be larger than q_min ({self.q_min:g} 1/nm)")
        return self
