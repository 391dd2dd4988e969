"""Reading a run file: YAML with positions → RunConfig, all mistakes reported at once as file:line:column."""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from saxs_pipeline.config import RunConfig
from saxs_pipeline.types import BadInput

Position = tuple[int, int]
Location = tuple[str | int, ...]

MOST_NODES = 100_000


@dataclass(frozen=True)
class RunFile:
    """A loaded run file: its path, its text as written and what it says."""

    path: Path
    text: str
    config: RunConfig
    positions: dict[Location, Position]

    def error(self, key: str, message: str) -> BadInput:
        """An error found later (e.g. in the files named), at the place of `key` ("data.frames") in the run file."""
        return BadInput(_line(self.path, self.positions, tuple(key.split(".")), message))


def load(path: Path, *, must_exist: bool = True) -> RunFile:
    """Read and check a run file.

    Paths in it are relative to its folder; with `must_exist=False` files that are not there yet are accepted.
    Raises BadInput with one line per mistake, `run.yaml:LINE:COL: key: what is wrong and how to mend it`.
    """
    text = _read_text(path)
    data, positions = _parse(path, text)
    context = {"base": path.resolve().parent, "must_exist": must_exist}
    try:
        config = RunConfig.model_validate(data, context=context)
    except ValidationError as error:
        lines = [
            _line(path, positions, *_explain(detail)) for detail in error.errors(include_url=False, include_input=True)
        ]
        raise BadInput(*dict.fromkeys(lines)) from None
    return RunFile(path, text, config, positions)


def digest(config: RunConfig) -> str:
    """SHA-256 of everything that can change a number (not: title, engine, output)."""
    content = config.model_dump(exclude={"title", "engine", "output"})
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def schema() -> dict[str, Any]:
    """JSON schema of the run file."""
    return RunConfig.model_json_schema()


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(f"{path}: run file not found; give the path of a .yaml file") from None
    except IsADirectoryError:
        raise BadInput(f"{path}: is a folder; give the run file in it, e.g. {path / 'run.yaml'}") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path}: is not text (UTF-8); a run file is YAML") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None


def _parse(path: Path, text: str) -> tuple[Any, dict[Location, Position]]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        YAML(typ="safe", pure=True).load(text)  # refuses tags, which the loader with positions lets pass
        tree = YAML(typ="rt").load(text)
    except RecursionError:
        raise BadInput(f"{path}:1:1: nested too deeply; a run file has three levels") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = (error.problem or error.context or "not valid YAML").split("\n")[0]
        raise BadInput(f"{path}:{line}:{column}: {problem}; correct the YAML there") from None
    except (YAMLError, ValueError) as error:
        raise BadInput(f"{path}:1:1: not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(tree, dict):
        raise BadInput(f"{path}:1:1: a run file holds sections such as `title:` and `data:`; this one holds none")
    positions: dict[Location, Position] = {(): (1, 1)}
    data = _plain(tree, (), positions)
    if len(positions) > MOST_NODES:
        raise BadInput(f"{path}:1:1: holds more than {MOST_NODES} values; a run file is short")
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


def _explain(detail: Any) -> tuple[Location, str]:
    """Where and what, from one of pydantic's error records."""
    location: Location = tuple(detail["loc"])
    kind, message = detail["type"], str(detail["msg"])
    if kind == "misplaced":
        key = detail["ctx"]["key"]
        return ((*location, key) if key else location), str(detail["ctx"]["message"])
    if kind == "extra_forbidden":
        return location, f"unknown key{_suggestion(location)}"
    if kind == "missing":
        return location, "is missing; " + _meaning(location)
    if kind == "value_error":
        return location, message.removeprefix("Value error, ")
    if kind in ("model_type", "model_attributes_type"):
        return location, "must be a section with keys of its own"
    return location, f"{message[0].lower()}{message[1:]}, got {detail.get('input')!r:.60}"


def _section(location: Location) -> Any:
    """The schema node that a location lies in ({} if unknown)."""
    root = schema()
    node: Any = root
    for key in location:
        node = _resolve(node, root)
        node = node.get("properties", {}).get(key, {}) if isinstance(key, str) else {}
    return _resolve(node, root)


def _resolve(node: Any, root: Any) -> Any:
    for choice in node.get("anyOf", []) or node.get("allOf", []):
        if "$ref" in choice:
            node = choice
            break
    return root["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node


def _suggestion(location: Location) -> str:
    known = list(_section(location[:-1]).get("properties", {}))
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f"; known here: {', '.join(known)}" if known else ""


def _meaning(location: Location) -> str:
    description = _section(location).get("description")
    return f"give it: {' '.join(description.split())}" if description else "add it"


def _line(path: Path, positions: dict[Location, Position], location: Location, message: str) -> str:
    """`run.yaml:LINE:COL: key: message`, at the nearest place that stands in the file."""
    known = location
    while known not in positions:
        known = known[:-1]
    line, column = positions[known]
    key = ".".join(str(part) for part in location)
    return f"{path}:{line}:{column}: {key + ': ' if key else ''}{message}"
