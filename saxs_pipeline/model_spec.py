"""What is fitted to curves, as data: populations of spheres and what comes on top of them. No mathematics here."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

SigmaQ = float | tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Population:
    """Spheres: I(q) in 1/mm per µmol/L and nm⁶, and the ranges in which mean radius and spread are searched, in nm."""

    amplitude: float
    radius_nm: tuple[float, float]
    sigma_nm: tuple[float, float]
    name: str = ""


@dataclass(frozen=True)
class ModelSpec:
    """What is fitted to a curve: I(q) = Σ_k A_k c_k ⟨P_k(q; R_k, s_k)⟩ + d q^(−p) + b.

    distribution: gaussian, lognormal or schulz, of the radii. power_law: range of the exponent p of d q^(−p), None
    without that term; constant: b where it is not fitted, 1/mm; volume_fraction: range of that of hard spheres of
    radius R + shell_nm, None without a structure factor. A range of equal numbers is a fixed value. sigma_q_1_nm:
    standard deviation of the resolution in q, for which the model is smeared; or pairs (q, σ_q), between which it is
    interpolated, where it is not the same everywhere. fixed: values of radius, sigma (nm) by
    name; tied: expressions. The names have the population's in front where there are several: crystals_radius.
    """

    populations: tuple[Population, ...]
    distribution: str = "gaussian"
    power_law: tuple[float, float] | None = None
    constant: float | None = None
    volume_fraction: tuple[float, float] | None = None
    shell_nm: float = 0.0
    sigma_q_1_nm: SigmaQ = 0.0
    fixed: tuple[tuple[str, float], ...] = ()
    tied: tuple[tuple[str, str], ...] = ()

    @cached_property
    def prefixes(self) -> tuple[str, ...]:
        """What stands before the names of each population's parameters: nothing where there is one population."""
        return tuple(f"{p.name}_" if len(self.populations) > 1 else "" for p in self.populations)

    @cached_property
    def sizes(self) -> tuple[str, ...]:
        """Names of the radii and spreads (nm), population by population, as `fixed` and `tied` have them."""
        return tuple(f"{prefix}{name}" for prefix in self.prefixes for name in ("radius", "sigma"))

    @property
    def sigma_q_range(self) -> tuple[float, float]:
        """Smallest and largest σ_q, 1/nm."""
        if isinstance(self.sigma_q_1_nm, tuple):
            values = [sigma for _, sigma in self.sigma_q_1_nm]
            return min(values), max(values)
        return self.sigma_q_1_nm, self.sigma_q_1_nm

    @property
    def accepted_nm(self) -> dict[str, tuple[float, float]]:
        """Smallest and largest accepted value of every radius and spread, nm."""
        ranges = (one for p in self.populations for one in (p.radius_nm, (0.0, p.sigma_nm[1])))
        return dict(zip(self.sizes, ranges, strict=True))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of all values: c, R, s of the first population, b, c, R, s of the others, d, p, volume fraction."""
        groups = [
            tuple(f"{prefix}{name}" for name in ("c_nc_umol_L", "r_nm", "sigma2_nm2")) for prefix in self.prefixes
        ]
        names = [*groups[0], "background_1_mm", *(name for group in groups[1:] for name in group)]
        if self.power_law is not None:
            names += ["power_law_1_mm", "exponent"]
        return (*names, "volume_fraction") if self.volume_fraction is not None else tuple(names)

    @property
    def sizes_are_free(self) -> bool:
        """Whether radius and spread of the first population are fitted, each by itself."""
        bound = {*dict(self.fixed), *dict(self.tied)}
        return bound.isdisjoint(self.sizes[:2])

    def places(self, population: int) -> tuple[int, int, int]:
        """Columns of c, R, s of a population."""
        first = 0 if population == 0 else 3 * population + 1
        return first, first + 1, first + 2

    def alone(self, population: int) -> ModelSpec:
        """The model of one population of several: names without its prefix, and no ties to the other."""
        own = {f"{self.prefixes[population]}{name}": name for name in ("radius", "sigma")}
        strangers = set(self.sizes) - set(own)
        return ModelSpec(
            (self.populations[population],),
            self.distribution,
            self.power_law,
            self.constant,
            self.volume_fraction,
            self.shell_nm,
            self.sigma_q_1_nm,
            tuple((own[name], value) for name, value in self.fixed if name in own),
            tuple(
                (own[name], _WORD.sub(lambda word: own.get(word[0], word[0]), text))
                for name, text in self.tied
                if name in own and strangers.isdisjoint(_WORD.findall(text))
            ),
        )

    def columns_of(self, alone: ModelSpec, population: int) -> list[int]:
        """Where the columns of the model of one population stand here."""
        prefix = self.prefixes[population]
        own = [f"{prefix}{name}" for name in alone.columns]
        return [self.columns.index(name if name in self.columns else name.removeprefix(prefix)) for name in own]


_WORD = re.compile(r"\b[A-Za-z_]\w*")
"""A name in an expression."""


def to_text(spec: ModelSpec) -> str:
    """The specification as JSON; numbers keep their last bit."""
    return json.dumps(asdict(spec))


def from_text(text: str) -> ModelSpec:
    """The specification that `to_text` wrote; raises ValueError for any other text."""
    try:
        content = {name: _tuples(value) for name, value in json.loads(text).items()}
        populations = tuple(Population(**{k: _tuples(v) for k, v in one.items()}) for one in content.pop("populations"))
        return ModelSpec(populations, **content)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a model: {error}") from None


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
