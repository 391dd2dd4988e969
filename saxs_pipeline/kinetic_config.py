"""The kinetic parameter file: the symbols of Prins SI, Table S6.1, each with its unit, and the synthesis they describe.

Flat, as the paper's table is. `runfile.load_model` reads the file and reports all mistakes with their place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PlainValidator, ValidationInfo, WithJsonSchema, model_validator

from saxs_pipeline import columns
from saxs_pipeline.fields import Number, Quantity, Seconds, Section, Title, misplaced
from saxs_pipeline.kinetic_ranges import RANGES, capillary, outside
from saxs_pipeline.science import conversion, kinetics
from saxs_pipeline.types import BadInput
from saxs_pipeline.units import parse_quantity

UNITS: Mapping[str, str] = MappingProxyType(
    {
        **{"T": "K", "v0": "m^3", "gamma": "J/m^2", "M0": "mol/m^3", "D": "m^2/s"},
        **{"A": "m/s", "n": "", "r_c0": "m", "B": "m", "k_inf": "m/s", "alpha": "", "prefactor": ""},
        **{"k1": "1/s", "k2": "m^3/mol/s", "P0": "mol/m^3", "beta": ""},
    }
)
"""SI unit of every parameter that is a number, by its symbol."""

LIMITS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"n": (-5.0, 20.0), "alpha": (0.0, 1.0), "T": (200.0, 1000.0), "B": (0.0, 5e-9)}
)
"""Between which values a fit starts and looks for these parameters, in UNITS; n and alpha of a file lie there, too."""

MOST_POINTS = 1000
"""Points of a table of rates or of a temperature program: every one is a step of the simulation."""

SNAPSHOTS_S = (3.16, 9.47, 28.34, 49.03, 84.83, 146.78, 253.96, 439.4, 2275.8)
"""Times of the paper's Fig. 5a-c (SI, S6.6)."""

ADSORPTION = {
    "superfocusing": ("A", "n", "r_c0", "B"),
    "power": ("A", "n", "r_c0"),
    "linear_free_energy": ("k_inf", "alpha"),
}
CONVERSION = {"first_order": ("k1", "P0"), "second_order": ("k2", "P0", "beta"), "table": ("generation",)}
"""What each choice needs; keys of the other choices are then refused."""

Points = tuple[tuple[float, float], ...]


# --- curves against time ---------------------------------------------------------------------------------------------


def _points(value: Any, unit: str, sign: Literal["positive", "not negative"]) -> Points:
    """[[0 s, 230 °C], …] → ((time in s, value in `unit`), …), at least two, times increasing from 0 on."""
    if not isinstance(value, list | tuple) or len(value) < 2:
        raise ValueError(f"give at least two points, [[0 s, 1.5 {unit}], [60 s, 2 {unit}]]")
    points = []
    for i, pair in enumerate(value, start=1):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(f"point {i}: give a time and a value, [0 s, 1.5 {unit}]")
        try:
            time = Quantity("s", "not negative").validate(pair[0])
            points.append((float(time), float(Quantity(unit, sign).validate(pair[1]))))  # type: ignore[arg-type]
        except ValueError as error:
            raise ValueError(f"point {i}: {error}") from None
    _increasing([time for time, _ in points], "the times")
    if len(points) > MOST_POINTS:
        raise ValueError(f"{len(points)} points; give {MOST_POINTS} at most")
    return tuple(points)


def _increasing(values: Any, what: str) -> None:
    for i, (before, after) in enumerate(pairwise(values), start=1):
        if not after > before:
            raise ValueError(f"{what} must increase; number {i + 1} ({after:g}) does not follow {before:g}")


def _temperature(value: Any) -> float | Points:
    if isinstance(value, list | tuple):
        return _points(value, "K", "positive")
    kelvin = parse_quantity(value, "K")
    if kelvin <= 0:
        raise ValueError(f"must be above absolute zero, got {value!r}")
    return kelvin


def _generation(value: Any, info: ValidationInfo) -> Points:
    if not isinstance(value, str):
        points = _points(value, "mol/m^3/s", "not negative")
    else:
        try:
            points = _rate_table(Path((info.context or {}).get("base", ".")) / Path(value).expanduser())
        except BadInput as error:
            raise ValueError("; ".join(error.messages)) from None
    if not any(rate > 0 for _, rate in points):
        raise ValueError("all rates are zero; nothing would form")
    return points


def _rate_table(path: Path) -> Points:
    names = ("t_s", "rate_mol_m3_s")
    table = columns.read(path, dict.fromkeys(names, "not negative"), example=",".join(names))
    missing = [name for name in names if name not in table.values]
    if missing:
        raise BadInput(f"{path}: the column {missing[0]} is missing")
    for name in names:
        for row, value in enumerate(table.values[name]):
            if math.isnan(value):
                raise BadInput(table.message(name, row, "the cell is empty; times and rates must be complete"))
    time, rate = (table.values[name].tolist() for name in names)
    _increasing(time, f"{path}: the times")
    if not 2 <= len(time) <= MOST_POINTS:
        raise BadInput(f"{path}: holds {len(time)} times; give 2 to {MOST_POINTS}")
    return tuple(zip(time, rate, strict=True))


_CURVE = {"type": ["string", "array"]}
Temperature = Annotated[float | Points, PlainValidator(_temperature), WithJsonSchema(_CURVE)]
Generation = Annotated[Points, PlainValidator(_generation), WithJsonSchema(_CURVE)]


# --- sections --------------------------------------------------------------------------------------------------------


Exponent = Annotated[Number, Field(ge=LIMITS["n"][0], le=LIMITS["n"][1])]


class Injection(Section):
    """A further injection of precursor."""

    time: Annotated[float, Quantity("s")] = Field(description="after the first injection, e.g. 240 s")
    P0: Annotated[float, Quantity("mol/m^3", "not negative")] = Field(description="what it adds to P, e.g. 27 mmol/L")
    partner: Annotated[float, Quantity("mol/m^3", "not negative")] | None = Field(
        None, description="what it adds to the reaction partner of P; second_order only, default: none"
    )


class CrystalSet(Section):
    """Crystals that are there at t = 0: a Gaussian distribution of radii."""

    c: Annotated[float, Quantity("mol/m^3")] = Field(description="number concentration, e.g. 25 µmol/L")
    r: Annotated[float, Quantity("m")] = Field(description="mean radius, e.g. 1.2 nm")
    sigma: Annotated[float, Quantity("m")] = Field(description="standard deviation of the radius, e.g. 0.1 nm")

    @model_validator(mode="after")
    def _possible_radii(self) -> Self:
        if self.sigma > self.r / 4:
            raise misplaced("sigma", "must not exceed a quarter of r: a Gaussian would reach radii below zero")
        return self


class Scan(Section):
    """Values to simulate one after the other."""

    n: tuple[Exponent, ...] = Field(description="growth exponents, e.g. [0, 1, 2, 3, 4]", min_length=1, max_length=100)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.n)) < len(self.n):
            raise misplaced("n", "a value is there twice; remove one")
        return self


def _text(section: Section, **units: str) -> str:
    """ "time 240 s, P0 27 mol/m^3": what stands in a section."""
    known = {key: getattr(section, key) for key in units}
    return ", ".join(f"{key} {value:.10g} {units[key]}" for key, value in known.items() if value is not None)


class KineticModel(Section):
    """A whole parameter file; the values are in SI units after loading."""

    title: Title = Field(description="one line that says what the parameters are")
    end: Seconds = Field(2275.8, description="how long to simulate, from the injection on (SI, S6.6)")
    T: Temperature = Field(
        533.15,
        description="temperature, e.g. 260 °C, or a program [[0 s, 230 °C], [60 s, 260 °C]]: linear between, constant "
        "outside. The paper does not print it",
    )
    v0: Annotated[float, Quantity("m^3")] = Field(description="volume of a monomer, e.g. 5.59e-29 m^3")
    gamma: Annotated[float, Quantity("J/m^2")] = Field(description="surface tension of the crystals, e.g. 0.2 J/m^2")
    M0: Annotated[float, Quantity("mol/m^3")] = Field(description="solubility of the monomer [M]0, e.g. 1e-7 mol/m^3")
    D: Annotated[float, Quantity("m^2/s")] | None = Field(
        description="diffusion coefficient of the monomer, e.g. 5e-10 m^2/s; null: diffusion limits nothing"
    )
    adsorption: Literal["superfocusing", "power", "linear_free_energy"] = Field(
        description="k_a(r): superfocusing A((r_c0 + B)/(r + B))^n (S6.16), power A(r_c0/r)^n (S6.15), or "
        "linear_free_energy k_inf exp(-alpha 2 gamma V_m/(r R T)) (S4.10)"
    )
    A: Annotated[float, Quantity("m/s")] | None = Field(None, description="k_a at r_c0, e.g. 0.045 m/s")
    n: Exponent | None = Field(None, description="growth exponent, e.g. 2")
    r_c0: Annotated[float, Quantity("m")] | None = Field(
        None, description="radius at which k_a = A whatever n is, e.g. 0.8 nm"
    )
    B: Annotated[float, Quantity("m", "not negative")] | None = Field(
        None, description="radial offset that keeps k_a finite at r = 0, e.g. 0.2 nm"
    )
    k_inf: Annotated[float, Quantity("m/s")] | None = Field(
        None, description="adsorption rate constant of a flat surface, e.g. 4e-3 m/s"
    )
    alpha: Annotated[Number, Field(ge=LIMITS["alpha"][0], le=LIMITS["alpha"][1])] | None = Field(
        None, description="transfer coefficient, 0 to 1"
    )
    desorption: bool = Field(description="whether monomers leave the crystals again (false: kappa = 0)")
    nucleation: bool = Field(description="whether crystals form")
    prefactor: Annotated[Number, Field(gt=0)] = Field(1.0, description="factor on 2D/v0^(5/3) of S6.4")
    conversion: Literal["first_order", "second_order", "table"] = Field(
        description="how precursor turns into monomer: first_order k1 P (S6.6), second_order k2 P Q (S3.2), or a table"
    )
    k1: Annotated[float, Quantity("1/s")] | None = Field(None, description="first-order rate constant, e.g. 4e-3 1/s")
    k2: Annotated[float, Quantity("m^3/mol/s")] | None = Field(
        None, description="second-order rate constant, e.g. 0.14 L/mol/s"
    )
    P0: Annotated[float, Quantity("mol/m^3")] | None = Field(
        None, description="precursor at t = 0, e.g. 27 mmol/L; the limiting one with second_order"
    )
    beta: Annotated[Number, Field(gt=0)] | None = Field(None, description="reaction partner over P0 at t = 0, e.g. 2.5")
    generation: Generation | None = Field(
        None,
        description="monomers generated: [[0 s, 0.05 mol/m^3/s], [240 s, 0.05 mol/m^3/s]], or a CSV file with the "
        "columns t_s,rate_mol_m3_s; linear between the points, none outside",
    )
    injections: tuple[Injection, ...] = Field((), description="further injections, [{time: 240 s, P0: 27 mmol/L}]")
    crystals: tuple[CrystalSet, ...] = Field(
        (), description="crystals at t = 0, [{c: 25 µmol/L, r: 1.2 nm, sigma: 0.1 nm}]"
    )
    snapshots: tuple[Seconds, ...] | None = Field(
        None, description="times whose size distributions are shown; default: those of the paper, and the end"
    )
    scan: Scan | None = Field(None, description="values to simulate one after the other, {n: [0, 1, 2, 3, 4]}")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        mistakes = [
            *self._choice("adsorption", ADSORPTION),
            *self._choice("conversion", CONVERSION),
            *self._contradictions(),
            *self._order_in_time(),
            *self._impossible(),
        ]
        if mistakes:
            raise misplaced(*mistakes[0], *mistakes[1:])
        return self

    def _choice(self, key: str, options: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
        chosen = getattr(self, key)
        missing = [name for name in options[chosen] if getattr(self, name) is None]
        if missing:
            yield key, f"{chosen} needs {' and '.join(missing)}: {self._advice(missing[0])}"
        for name in dict.fromkeys(name for names in options.values() for name in names):
            if name not in options[chosen] and getattr(self, name) is not None:
                yield name, f"not used with {key}: {chosen}, which takes {', '.join(options[chosen])}; remove it"

    def _advice(self, name: str) -> str:
        return f"give `{name}`, {type(self).model_fields[name].description}"

    def _contradictions(self) -> Iterator[tuple[str, str]]:
        if self.D is None and self.nucleation:
            yield "D", "the nucleation rate (S6.4) needs it; give D, or say `nucleation: false`"
        if not self.nucleation:
            if not self.crystals:
                yield "crystals", "without nucleation there must be crystals; give crystals: [{c: …, r: …, sigma: …}]"
            if self.prefactor != 1:
                yield "prefactor", "not used with nucleation: false; remove it"
        if self.scan is not None and self.adsorption == "linear_free_energy":
            yield "scan", "not used with adsorption: linear_free_energy, which has no n; remove it"
        if self.injections and self.conversion == "table":
            yield "injections", "not used with conversion: table; put them into the table"
        for i, injection in enumerate(self.injections):
            if injection.partner is not None and self.conversion != "second_order":
                yield "injections", f"number {i + 1}: partner is used with conversion: second_order only; remove it"
            if injection.P0 + (injection.partner or 0) == 0:
                yield "injections", f"number {i + 1} adds nothing; give its P0"

    def _order_in_time(self) -> Iterator[tuple[str, str]]:
        if not 1e-3 <= self.end <= 1e8:
            yield "end", f"{self.end:.4g} s; give 1 ms to 1e8 s"
        if any(injection.time < 1e-3 for injection in self.injections):
            yield "injections", "a further injection comes 1 ms after the first at the earliest"
        for key, times in (("injections", [i.time for i in self.injections]), ("snapshots", self.snapshots or ())):
            try:
                _increasing(times, "the times")
            except ValueError as error:
                yield key, str(error)
            if times and max(times) > self.end:
                yield key, f"{max(times):g} s lies after the end of the simulation ({self.end:g} s)"

    def _impossible(self) -> Iterator[tuple[str, str]]:
        kelvin = [self.T] if isinstance(self.T, float) else [value for _, value in self.T]
        values = [
            *((symbol, symbol, self.value(symbol)) for symbol in self.symbols if symbol in RANGES and symbol != "T"),
            *(("T", "T", value) for value in kelvin),
            *(("generation", "generation", rate) for _, rate in self.generation or ()),
            *(("injections", "P0", injection.P0) for injection in self.injections),
            *(("injections", "partner", injection.partner or 0.0) for injection in self.injections),
            *(("crystals", name, getattr(one, name)) for one in self.crystals for name in ("c", "r", "sigma")),
        ]
        wrong = list(outside(values))
        yield from wrong or capillary(self.gamma, self.v0, min(kelvin))

    # --- what the model says -----------------------------------------------------------------------------------------

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols of the numbers this model depends on; a temperature program is none."""
        numbers = [symbol for symbol in UNITS if isinstance(getattr(self, symbol), float)]
        return tuple(symbol for symbol in numbers if symbol != "prefactor" or self.nucleation)

    def value(self, symbol: str) -> float:
        """Value in UNITS[symbol]; KeyError for a symbol that this model does not use."""
        if symbol not in self.symbols:
            raise KeyError(symbol)
        return float(getattr(self, symbol))

    @property
    def written(self) -> dict[str, str]:
        """Everything the model depends on, by key, as text with units."""
        numbers = {symbol: f"{self.value(symbol):.10g} {UNITS[symbol]}".rstrip() for symbol in self.symbols}
        choices = {key: str(getattr(self, key)) for key in ("adsorption", "conversion", "desorption", "nucleation")}
        tables = {"T": (self.T, "K"), "generation": (self.generation, "mol/m^3/s")}
        curves = {
            key: ", ".join(f"[{t:.10g} s, {value:.10g} {unit}]" for t, value in points)
            for key, (points, unit) in tables.items()
            if isinstance(points, tuple)
        }
        sets = {
            "injections": "; ".join(_text(one, time="s", P0="mol/m^3", partner="mol/m^3") for one in self.injections),
            "crystals": "; ".join(_text(one, c="mol/m^3", r="m", sigma="m") for one in self.crystals),
        }
        return numbers | choices | curves | {key: text for key, text in sets.items() if text}

    @property
    def end_s(self) -> float:
        """How long to simulate, s."""
        return self.end

    @property
    def snapshots_s(self) -> tuple[float, ...]:
        """Times whose size distributions are shown, s."""
        return self.snapshots or (*(t for t in SNAPSHOTS_S if t < self.end), self.end)

    @property
    def scan_n(self) -> tuple[float, ...]:
        """Growth exponents to simulate one after the other; () if the file asks for none."""
        return self.scan.n if self.scan is not None else ()

    def synthesis(self, changes: Mapping[str, float] = MappingProxyType({})) -> kinetics.Synthesis:
        """The synthesis, with some parameters replaced (symbol → value in SI units).

        Raises KeyError for a symbol that this model does not use.
        """
        unused = [symbol for symbol in changes if symbol not in self.symbols]
        if unused:
            raise KeyError(unused[0])
        value = {symbol: self.value(symbol) for symbol in self.symbols} | dict(changes)
        program = None
        if not isinstance(self.T, float):
            program = conversion.TemperatureProgram(*(tuple(part) for part in zip(*self.T, strict=True)))
        return kinetics.Synthesis(
            monomer_volume_m3=value["v0"],
            surface_energy_J_m2=value["gamma"],
            solubility_mol_m3=value["M0"],
            diffusion_m2_s=value.get("D", float("inf")),
            adsorption=self._adsorption(value),
            conversion=self._conversion(value),
            temperature_K=kinetics.constant_temperature(value["T"]) if program is None else program,
            temperature_breaks_s=() if program is None else program.breaks_s,
            desorption=self.desorption,
            nucleation=self.nucleation,
            nucleation_factor=value.get("prefactor", 1.0),
            crystals=tuple(kinetics.Crystals(set_.c, set_.r, set_.sigma) for set_ in self.crystals),
        )

    def _adsorption(self, value: Mapping[str, float]) -> kinetics.Adsorption:
        if self.adsorption == "linear_free_energy":
            return kinetics.LinearFreeEnergy(value["k_inf"], value["alpha"])
        return kinetics.Superfocusing(value["A"], value["n"], value["r_c0"], value.get("B", 0.0))

    def _conversion(self, value: Mapping[str, float]) -> kinetics.Conversion:
        if self.generation is not None:
            time_s, rate = zip(*self.generation, strict=True)
            return conversion.Tabulated(time_s, rate)
        if self.conversion == "first_order":
            later = tuple((i.time, i.P0) for i in self.injections)
            return conversion.FirstOrder(value["k1"], injections=((0.0, value["P0"]), *later))
        both = tuple((i.time, i.P0, i.partner or 0.0) for i in self.injections)
        first = (0.0, value["P0"], value["beta"] * value["P0"])
        return conversion.SecondOrder(value["k2"], injections=(first, *both))
