"""Run files and kinetic parameter files: YAML with positions → config, all mistakes at once as file:line:column."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from saxs_pipeline.config import RunConfig
from saxs_pipeline.fields import FoundFiles
from saxs_pipeline.kinetic_config import KineticModel
from saxs_pipeline.text_file import TextKind, read_text
from saxs_pipeline.types import BadInput

Position = tuple[int, int]
Location = tuple[str | int, ...]
Config = TypeVar("Config", bound=BaseModel)

MOST_NODES = 100_000


@dataclass(frozen=True)
class ModelFile:
    """A loaded parameter file: its path, its text as written, what it says under `settings` (key → "key=value")."""

    path: Path
    text: str
    config: KineticModel
    positions: dict[Location, Position]
    settings: Mapping[str, str] = field(default_factory=dict)

    def error(self, key: str, message: str) -> BadInput:
        """An error found later, at the place of `key` ("gamma") in the file, or naming the setting that gave it."""
        return BadInput(_line(_Places(self.path, self.positions, self.settings), tuple(key.split(".")), message))


@dataclass(frozen=True)
class RunFile:
    """A loaded run file: its path, its text as written, what it says, and the parameter file it names."""

    path: Path
    text: str
    config: RunConfig
    positions: dict[Location, Position]
    kinetics: ModelFile | None = None

    def error(self, key: str, message: str) -> BadInput:
        """An error found later (e.g. in the files named), at the place of `key` ("data.frames") in the run file."""
        return BadInput(_line(_Places(self.path, self.positions), tuple(key.split(".")), message))


def load(path: Path, *, must_exist: bool = True) -> RunFile:
    """Read and check a run file, and the parameter file it names.

    Paths in it are relative to its folder; with `must_exist=False` files that are not there yet are accepted.
    Raises BadInput with one line per mistake, `run.yaml:LINE:COL: key: what is wrong and how to mend it`.
    """
    text = read_text(path, _RUN.text)
    data, positions = _parse(path, text, _RUN)
    context = {"base": path.resolve().parent, "must_exist": must_exist}
    try:
        config = _checked(RunConfig, data, context, _Places(path, positions))
    except BadInput as error:
        raise BadInput(*error.messages, *_model_mistakes(data, path)) from None
    kinetics = load_model(config.kinetics.model) if config.kinetics is not None else None
    run = RunFile(path, text, config, positions, kinetics)
    if config.kinetics is not None and kinetics is not None:
        unused = [symbol for symbol in config.kinetics.fit if symbol not in kinetics.config.symbols]
        if unused:
            used = ", ".join(kinetics.config.symbols)
            raise run.error("kinetics.fit", f"{kinetics.path.name} has no single value of {unused[0]}; it has {used}")
    return run


def load_model(path: Path, settings: Sequence[str] = ()) -> ModelFile:
    """Read and check a kinetic parameter file, with settings "name=value" over what it says.

    Values of settings are YAML; a bare number takes the unit in which the file, or else the default, writes it.
    Raises BadInput with one line per mistake, `FILE:LINE:COL: key: …` or `--set name=value: …`.
    """
    text = read_text(path, _MODEL.text)
    data, positions = _parse(path, text, _MODEL)
    given = _split(settings)
    changes = {name: _setting(name, setting, data) for name, setting in given.items()}
    context = {"base": path.resolve().parent, "must_exist": True}
    config = _checked(KineticModel, data | changes, context, _Places(path, positions, given))
    return ModelFile(path, text, config, positions, given)


def input_files(run: RunFile) -> dict[str, Path | FoundFiles]:
    """Every file or pattern that the run file names, by its place ("corrections.dark.frames"), in its order."""
    found: dict[str, Path | FoundFiles] = {}

    def collect(key: str, value: object) -> None:
        if isinstance(value, FoundFiles | Path):
            found[key] = value
        elif isinstance(value, BaseModel):
            for name in type(value).model_fields:
                if name not in ("folder", "roots"):
                    collect(f"{key}.{name}" if key else name, getattr(value, name))

    collect("", run.config)
    return found


def input_paths(run: RunFile) -> tuple[Path, ...]:
    """The files that the run file names, each once, without the places inside HDF5 files."""
    paths = (
        path
        for found in input_files(run).values()
        for path in (found if isinstance(found, FoundFiles) else (Path(str(found).partition("::")[0]),))
    )
    return tuple(dict.fromkeys(paths))


def look_again(run: RunFile) -> RunFile:
    """The run file with the files that its patterns lead to now; raises BadInput where one has become a folder."""

    def again(key: str, value: Any) -> Any:
        if isinstance(value, FoundFiles):
            try:
                return value.again()
            except ValueError as error:
                raise run.error(key, str(error)) from None
        if not isinstance(value, BaseModel):
            return value
        names = type(value).model_fields
        return value.model_copy(
            update={name: again(f"{key}.{name}" if key else name, getattr(value, name)) for name in names}
        )

    return replace(run, config=again("", run.config))


def digest(run: RunFile) -> str:
    """SHA-256 of everything that can change a number (not: titles, output, what runs where, the folder of the run)."""
    content = {
        "run": run.config.model_dump(exclude={"title", "engine", "output"}),
        "device": run.config.engine.device,  # rounds in its own way
    }
    if run.kinetics is not None:
        content["kinetics"] = run.kinetics.config.model_dump(exclude={"title"})
    relative = partial(_relative, base=run.path.resolve().parent)
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=relative).encode()).hexdigest()


def settings(run: RunFile) -> dict[str, str]:
    """What a run file says that can change the numbers of any frame: "intensity.thickness" → its value as text."""
    other = {"title", "engine", "output", "kinetics", "aliquots"}
    dumped = run.config.model_dump(exclude={**dict.fromkeys(other, True), "data": {"frames", "scalers"}})
    dumped["engine"] = {"device": run.config.engine.device}
    relative = partial(_relative, base=run.path.resolve().parent)
    flat: dict[str, str] = {}

    def collect(key: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                collect(f"{key}.{name}" if key else name, inner)
        else:
            flat[key] = json.dumps(value, default=relative)

    collect("", dumped)
    return flat


def _relative(value: Any, base: Path) -> str:
    return str(value.relative_to(base)) if isinstance(value, Path) and value.is_relative_to(base) else str(value)


def schema(model: type[BaseModel] = RunConfig) -> dict[str, Any]:
    """JSON schema of the run file, or of the parameter file (`KineticModel`)."""
    return model.model_json_schema()


# --- settings over a parameter file ----------------------------------------------------------------------------------


def _split(settings: Sequence[str]) -> dict[str, str]:
    """Settings by name."""
    given: dict[str, str] = {}
    for setting in settings:
        name, equals, _ = setting.partition("=")
        name = name.strip()
        if not equals or not name:
            raise BadInput(f"--set {setting}: write name=value, for example n=2")
        if name in given:
            raise BadInput(f"--set {setting}: {name} is set twice; leave one")
        given[name] = setting
    return given


def _setting(name: str, setting: str, data: Mapping[str, Any]) -> Any:
    """The value of a setting as the file would hold it."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        value = YAML(typ="safe", pure=True).load(setting.partition("=")[2])
    except (YAMLError, ValueError, RecursionError):
        raise BadInput(f"--set {setting}: the value is not valid YAML; put quotes around it") from None
    known = KineticModel.model_fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or known is None:
        return value
    unit = _unit(data[name]) if name in data else UNITS_OF_DEFAULTS.get(name, "")
    return f"{value!r} {unit}" if unit else value


def _unit(text: Any) -> str:
    """What follows the number in a quantity as written, "" if nothing does."""
    match = re.fullmatch(r"\s*[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?\s*(.*?)\s*", text) if isinstance(text, str) else None
    return match[1] if match else ""


UNITS_OF_DEFAULTS = {"end": "s", "T": "K"}
"""Units of the quantities that a parameter file may leave out."""


# --- reading and checking --------------------------------------------------------------------------------------------


class _Kind(NamedTuple):
    """A YAML file: as text, and what it holds."""

    text: TextKind
    holds: str

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self.text.name


_RUN = _Kind(TextKind("run file", ".yaml", "YAML"), "sections such as `title:` and `data:`")
_MODEL = _Kind(TextKind("parameter file", ".yaml", "YAML"), "keys such as `title:` and `gamma: 0.2 J/m^2`")


class _Places(NamedTuple):
    """Where each value of a file stands; `settings` by key are those that came from the command line."""

    path: Path
    positions: Mapping[Location, Position]
    settings: Mapping[str, str] = {}


def _checked(model: type[Config], data: Any, context: dict[str, Any], places: _Places) -> Config:
    try:
        return model.model_validate(data, context=context)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=True)
        lines = [_line(places, *found) for detail in details for found in _explain(detail, model)]
        raise BadInput(*dict.fromkeys(lines)) from None


def _model_mistakes(data: Any, path: Path) -> tuple[str, ...]:
    """What is wrong in the parameter file that a faulty run file names; () where it names none that is there."""
    section = data.get("kinetics")
    name = section.get("model") if isinstance(section, dict) else None
    file = path.resolve().parent / name if isinstance(name, str) and "\0" not in name else None
    if file is None or not file.is_file():
        return ()
    try:
        load_model(file)
    except BadInput as error:
        return error.messages
    return ()


def _parse(path: Path, text: str, kind: _Kind) -> tuple[Any, dict[Location, Position]]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        YAML(typ="safe", pure=True).load(text)  # refuses tags, which the loader with positions lets pass
        tree = YAML(typ="rt").load(text)
    except RecursionError:
        raise BadInput(f"{path}:1:1: nested too deeply; a {kind.name} has three levels") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = (error.problem or error.context or "not valid YAML").split("\n")[0]
        raise BadInput(f"{path}:{line}:{column}: {problem}; correct the YAML there") from None
    except (YAMLError, ValueError) as error:
        raise BadInput(f"{path}:1:1: not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(tree, dict):
        raise BadInput(f"{path}:1:1: a {kind.name} holds {kind.holds}; this one holds none")
    positions: dict[Location, Position] = {(): (1, 1)}
    data = _plain(tree, (), positions)
    if len(positions) > MOST_NODES:
        raise BadInput(f"{path}:1:1: holds more than {MOST_NODES} values; a {kind.name} is short")
    return data, positions


def _plain(node: Any, location: Location, positions: dict[Location, Position]) -> Any:
    """ruamel's annotated tree → plain Python; where each key stands goes into `positions`."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    if len(positions) > MOST_NODES:  # aliases of aliases grow without end
        return None
    if isinstance(node, CommentedMap):
        for key in node:
            line, column = node.lc.key(key) if key in node.lc.data else (node.lc.line, node.lc.col)
            positions[(*location, key)] = (line + 1, column + 1)
        return {str(key): _plain(value, (*location, key), positions) for key, value in node.items()}
    if isinstance(node, CommentedSeq):
        for i in range(len(node)):
            line, column = node.lc.item(i)
            positions[(*location, i)] = (line + 1, column + 1)
        return [_plain(value, (*location, i), positions) for i, value in enumerate(node)]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (str, int, float):
        if isinstance(node, kind):
            return kind(node)
    return str(node)


def _explain(detail: Any, model: type[BaseModel]) -> list[tuple[Location, str]]:
    """Where and what, from one of pydantic's error records."""
    location: Location = tuple(detail["loc"])
    if detail["type"] == "misplaced":
        return [((*location, *_steps(key)), text) for key, text in detail["ctx"]["places"]]
    return [(location, _mistake(detail, location, model))]


def _steps(key: str) -> Location:
    """ "model.populations.1" as a location: numbers count the items of a list."""
    return tuple(int(step) if step.isdigit() else step for step in key.split(".") if step)


def _mistake(detail: Any, location: Location, model: type[BaseModel]) -> str:
    """What is wrong, in the words of a run file instead of pydantic's."""
    message, given, context = str(detail["msg"]), detail.get("input"), detail.get("ctx", {})
    texts: dict[str, Callable[[], str]] = {
        "extra_forbidden": lambda: f"unknown key{_suggestion(location, model)}",
        "missing": lambda: "is missing; " + _meaning(location, model),
        "value_error": lambda: message.removeprefix("Value error, "),
        "model_type": lambda: "must be a section with keys of its own",
        "tuple_type": lambda: f"must be a list in brackets, such as [{given!s:.40}]",
        "too_short": lambda: f"must have at least {context['min_length']}, but has {context['actual_length']}",
    }
    same = {"model_attributes_type": "model_type", "list_type": "tuple_type"}
    kind = same.get(detail["type"], detail["type"])
    return texts[kind]() if kind in texts else f"{message[0].lower()}{message[1:]}, got {given!r:.60}"


def _section(location: Location, model: type[BaseModel]) -> Any:
    """The schema node that a location lies in ({} if unknown)."""
    root = schema(model)
    node: Any = root
    for key in location:
        node = _resolve(node, root)
        node = node.get("properties", {}).get(key, {}) if isinstance(key, str) else node.get("items", {})
    return _resolve(node, root)


def _resolve(node: Any, root: Any) -> Any:
    for choice in node.get("anyOf", []) or node.get("allOf", []):
        if "$ref" in choice:
            node = choice
            break
    return root["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node


def _suggestion(location: Location, model: type[BaseModel]) -> str:
    known = list(_section(location[:-1], model).get("properties", {}))
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f"; known here: {', '.join(known)}" if known else ""


def _meaning(location: Location, model: type[BaseModel]) -> str:
    description = _section(location, model).get("description")
    return f"give it: {' '.join(description.split())}" if description else "add it"


def _line(places: _Places, location: Location, message: str) -> str:
    """`run.yaml:LINE:COL: key: message`, at the nearest place that stands in the file; or the setting that is wrong."""
    if location and str(location[0]) in places.settings:
        inside = ".".join(str(part) for part in location[1:])
        return f"--set {places.settings[str(location[0])]}: {inside + ': ' if inside else ''}{message}"
    known = location
    while known not in places.positions:
        known = known[:-1]
    line, column = places.positions[known]
    key = ".".join(str(part) for part in location)
    return f"{places.path}:{line}:{column}: {key + ': ' if key else ''}{message}"
