"""Sections of the run file about the reaction: the kinetic model to compare with, and aliquots beside the series."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from saxs_pipeline.fields import Number, OneFile, Quantity, Section, misplaced
from saxs_pipeline.kinetic_config import UNITS


class Kinetics(Section):
    """A kinetic model beside the measured series, and which of its parameters are fitted."""

    model: OneFile = Field(description="parameter file, e.g. kinetics-calibrated.yaml")
    fit: tuple[str, ...] = Field((), description="symbols of the parameters to fit, e.g. [A, gamma, n, k1]")

    @model_validator(mode="after")
    def _known_symbols(self) -> Self:
        for symbol in self.fit:
            if symbol not in UNITS:
                raise misplaced("fit", f"{symbol!r} is no parameter; there are {', '.join(UNITS)}")
            if self.fit.count(symbol) > 1:
                raise misplaced("fit", f"{symbol} is named twice; remove one")
        return self


def _scale(value: Any) -> float | None:
    if value == "fit":
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError(f"give `fit` or a positive number, e.g. 0.8, got {value!r:.40}")
    return float(value)


class AliquotTable(Section):
    """A table of aliquots (CSV), and how r, c and yield follow where the table holds absorbances.

    The keys below `scale` are constants common to all aliquots: an error of theirs is an error of `scale`.
    """

    file: OneFile = Field(description="CSV with t_s and r_nm or peak_nm, c_nc_umol_L, yield or absorbance, …_err")
    scale: Annotated[
        float | None, PlainValidator(_scale), WithJsonSchema({"type": ["string", "number"], "default": "fit"})
    ] = Field(
        None,
        description="aliquot = scale · in situ, for c and yield, e.g. the 0.8 of Prins SI, Fig. S1.2; default: fit",
    )
    sizing_curve: tuple[Number, ...] | None = Field(
        None,
        description="d0, d1, … of diameter/nm = Σ d_k (peak/nm)^k, for the column peak_nm",
        min_length=2,
        max_length=10,
    )
    absorption_coefficient: Annotated[float, Quantity("1/cm")] | None = Field(
        None, description="intrinsic, of the crystals at the wavelength of the column absorbance, e.g. 2.01e5 1/cm"
    )
    path: Annotated[float, Quantity("cm")] | None = Field(None, description="optical path of the cuvette, e.g. 10 mm")
    dilution: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="volume in the cuvette over volume of reaction mixture in it; or as the column dilution"
    )
    molar_volume: Annotated[float, Quantity("cm^3/mol")] | None = Field(
        None, description="of the crystals, per mole of the cation the yield counts, e.g. 33.7 cm^3/mol"
    )
    cation_concentration: Annotated[float, Quantity("mmol/L")] | None = Field(
        None, description="of that cation in the mixture the aliquots are from, e.g. 26 mmol/L"
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        absorbance = ("absorption_coefficient", "path", "molar_volume", "cation_concentration")
        missing = [key for key in absorbance if getattr(self, key) is None]
        if len(missing) < len(absorbance) and missing:
            raise misplaced("", f"yield and c from absorbances need also {', '.join(missing)}")
        if missing and self.dilution is not None:
            raise misplaced("dilution", f"is for absorbances, which need also {', '.join(missing)}")
        return self
