"""Field types of the run file and the parameter file: sections, quantities with units, existing files, ranges.

Each validator raises ValueError with one sentence that says how to mend the value.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from saxs_pipeline import units
from saxs_pipeline.types import Uncertain


def misplaced(key: str, message: str, *more: tuple[str, str]) -> PydanticCustomError:
    """An error of a whole section that belongs to one of its keys, and any further (key, message) found with it.

    The message is data: braces in it stay as they are.
    """
    return PydanticCustomError("misplaced", "{message}", {"message": message, "places": ((key, message), *more)})


class Section(BaseModel):
    """A section of the run file: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


@dataclass(frozen=True)
class Quantity:
    """Annotation of a field whose number is written with its unit, e.g. `Annotated[float, Quantity("mm")]`.

    Arrives as float in `unit`, or with `uncertain` as Uncertain ("4 mm ± 0.02 mm").
    """

    unit: str
    sign: Literal["positive", "not negative", "any"] = "positive"
    uncertain: bool = False

    def validate(self, text: Any) -> float | Uncertain:
        """Number in `unit`; ValueError says what is wrong with the text."""
        quantity = units.parse_uncertain(text, self.unit) if self.uncertain else units.parse_quantity(text, self.unit)
        value = quantity.value if isinstance(quantity, Uncertain) else quantity
        if (self.sign == "positive" and value <= 0) or (self.sign == "not negative" and value < 0):
            raise ValueError(f"must be {self.sign}, got {text!r}")
        return quantity

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        form = f"e.g. '{units.example(self.unit)}'"
        if self.uncertain:
            form += f" or '1.5 ± 0.1 {self.unit}'"
        return {"type": "string" if self.unit else ["number", "string"], "description": f"a quantity, {form}"}


@dataclass(frozen=True)
class NumberOrRange:
    """Annotation of a field that is a number from `low` to `high`, held, or a range [a, b] within these, searched.

    Arrives as float or as a pair of floats. example: a range as one would write it.
    """

    low: float
    high: float
    example: str

    @property
    def allowed(self) -> str:
        """What may be given, in words."""
        return f"a number from {self.low:g} to {self.high:g}, or a range within these such as {self.example}"

    def validate(self, given: Any) -> float | tuple[float, float]:
        """The number or the range; ValueError says what is allowed."""
        if self._allows(given):
            return float(given)
        if isinstance(given, list | tuple) and len(given) == 2 and all(map(self._allows, given)):
            return increasing((float(given[0]), float(given[1])))
        raise ValueError(f"must be {self.allowed}, got {given!r:.60}")

    def _allows(self, number: Any) -> bool:
        return type(number) in (int, float) and self.low <= number <= self.high

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        number = {"type": "number", "minimum": self.low, "maximum": self.high}
        return {"anyOf": [number, {"type": "array", "items": number, "minItems": 2, "maxItems": 2}]}


Title = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Seconds = Annotated[float, Quantity("s")]
Metres = Annotated[float, Quantity("m")]
Radians = Annotated[float, Quantity("rad", "any")]
InverseNm = Annotated[float, Quantity("1/nm")]
Nm = Annotated[float, Quantity("nm")]
Time_s = Annotated[float, Quantity("s", "any")]
Thickness = Annotated[Uncertain, Quantity("mm", uncertain=True)]
Ratio = Annotated[Uncertain, Quantity("", uncertain=True)]


_PATTERN = re.compile(r"[*?\[]")


def natural_key(name: str | Path) -> list[tuple[int, int, str]]:
    """Sort key by which frame_2 precedes frame_10."""
    parts = re.findall(r"\d+|\D+", str(name))
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def _matching(path: Path, start: Path) -> Iterable[Path]:
    """Files that the pattern `path` leads to; those of one folder, which may be thousands, without asking for each."""
    if "**" in path.name or _PATTERN.search(str(path.parent.relative_to(start))):
        return (found for found in start.glob(str(path.relative_to(start))) if found.is_file())
    fits = re.compile(fnmatch.translate(path.name)).match
    try:
        with os.scandir(path.parent) as entries:
            return [path.parent / entry.name for entry in entries if fits(entry.name) and _is_file(entry)]
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # as of a folder without files
        return []


def _is_file(entry: os.DirEntry[str]) -> bool:
    """A link that leads nowhere, or in a circle, is none."""
    return Path(entry.path).is_file() if entry.is_symlink() else entry.is_file()


def _expand(pattern: str, base: Path, must_exist: bool) -> list[Path]:
    if "\0" in pattern or not pattern.strip():
        raise ValueError(f"{pattern!r} is not a path")
    try:
        path = base / Path(pattern).expanduser()
    except RuntimeError:
        raise ValueError(f"{pattern}: there is no such user's home folder") from None
    if path.is_file():
        return [path]
    if path.is_dir():
        raise ValueError(f"{pattern} is a folder; name its files, e.g. '{pattern.rstrip('/')}/*.edf'")
    if not _PATTERN.search(pattern):
        if must_exist:
            raise ValueError(f"file {pattern} not found (looked in {path.parent}); correct the path")
        return [path]
    start = base if path.is_relative_to(base) else Path(path.anchor)  # the run file's own folder is no pattern
    found = sorted(_matching(path, start), key=natural_key)
    if not found and must_exist:
        raise ValueError(f"no file matches {pattern} (looked from {base}); correct the pattern or the folder")
    return found


class FoundFiles(tuple[Path, ...]):
    """Files that patterns led to, in natural order; `again` looks for those that have come since."""

    patterns: tuple[str, ...]
    base: Path

    @classmethod
    def look(cls, patterns: Sequence[str], base: Path, *, must_exist: bool) -> Self:
        """Expand the patterns; ValueError where one leads to nothing that must exist."""
        found = [path for pattern in patterns for path in _expand(pattern, base, must_exist)]
        files = cls(dict.fromkeys(found))
        files.patterns, files.base = tuple(patterns), base
        return files

    def again(self) -> Self:
        """The files that the same patterns lead to now; a name without * stays, there or not."""
        return self.look(self.patterns, self.base, must_exist=False)

    @property
    def open_ended(self) -> bool:
        """Whether more files may come under a pattern."""
        return any(_PATTERN.search(pattern) for pattern in self.patterns)


def _files(value: Any, info: ValidationInfo) -> FoundFiles:
    """Path, glob or list of these, relative to the run file → existing files in natural order."""
    patterns = [value] if isinstance(value, str) else value
    if not isinstance(patterns, list | tuple) or not all(isinstance(p, str | Path) for p in patterns) or not patterns:
        raise ValueError("give a path, a glob such as 'raw/*.edf', or a list of these")
    context = info.context or {}
    base, must_exist = Path(context.get("base", ".")), bool(context.get("must_exist", True))
    return FoundFiles.look([str(pattern) for pattern in patterns], base, must_exist=must_exist)


def _one_file(value: Any, info: ValidationInfo) -> Path:
    if not isinstance(value, str):
        raise ValueError("give one path")
    location, _, inside = value.partition("::")
    found = _files(location, info)
    if len(found) != 1:
        raise ValueError(f"{value} matches {len(found)} files; one is needed")
    return Path(f"{found[0]}::{inside}") if inside else found[0]


def _folder(value: Any, info: ValidationInfo) -> Path:
    if not isinstance(value, str | Path) or not str(value).strip():
        raise ValueError("give a folder")
    return Path((info.context or {}).get("base", ".")) / Path(value).expanduser()


_PATHS = WithJsonSchema({"type": ["string", "array"], "items": {"type": "string"}, "description": "path, glob or list"})
_PATH = WithJsonSchema({"type": "string", "description": "path, relative to the run file"})

Files = Annotated[tuple[Path, ...], PlainValidator(_files), _PATHS]
OneFile = Annotated[Path, PlainValidator(_one_file), _PATH]
Folder = Annotated[Path, PlainValidator(_folder), _PATH]


def increasing(pair: tuple[float, float]) -> tuple[float, float]:
    """The pair; ValueError where it is not a range."""
    if not pair[0] < pair[1]:
        raise ValueError(f"the first value must be smaller than the second, got [{pair[0]:g}, {pair[1]:g}]")
    return pair


QRange = Annotated[tuple[InverseNm, InverseNm], AfterValidator(increasing)]
SizeRange = Annotated[tuple[Nm, Nm], AfterValidator(increasing)]
TimeRange = Annotated[tuple[Time_s, Time_s], AfterValidator(increasing)]


def _frame_selection(value: Any) -> tuple[int, ...]:
    """ "0:80" or a list of frame numbers (from 0)."""
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+)\s*:\s*(\d+)\s*", value)):
        first, stop = int(match[1]), int(match[2])
        if first >= stop:
            raise ValueError(f"'{value}' selects no frame; the first must be smaller than the end")
        return tuple(range(first, stop))
    if isinstance(value, list) and value and all(type(i) is int and i >= 0 for i in value):
        return tuple(sorted(set(value)))
    raise ValueError("give a range such as '0:80' (end not included) or a list of frame numbers, counted from 0")


FrameSelection = Annotated[
    tuple[int, ...],
    PlainValidator(_frame_selection),
    WithJsonSchema({"type": ["string", "array"], "description": "'0:80' or a list of frame numbers from 0"}),
]
