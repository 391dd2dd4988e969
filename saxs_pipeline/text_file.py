"""Reading a short text file that a person wrote, with one clear line for whatever else may be at its path."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import NamedTuple

from saxs_pipeline.types import BadInput

LARGEST_BYTES = 10_000_000
"""What a person writes is far below; a larger file is another kind of file."""


class TextKind(NamedTuple):
    """What a file is called in messages, how its name ends, and what its text is."""

    name: str
    suffix: str
    text: str


def read_text(path: Path, kind: TextKind) -> str:
    """The text of a regular UTF-8 file. Raises BadInput."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise BadInput(f"{path}: is a folder; give the {kind.name} in it")
        if not stat.S_ISREG(status.st_mode):
            raise BadInput(f"{path}: is no file; a {kind.name} is {kind.text}")
        if status.st_size > LARGEST_BYTES:
            raise BadInput(f"{path}: holds {status.st_size / 1e6:.0f} MB; a {kind.name} is short: {kind.text}")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadInput(f"{path}: {kind.name} not found; give the path of a {kind.suffix} file") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path}: is not text (UTF-8); a {kind.name} is {kind.text}") from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror or error}") from None
    if "\0" in text:
        raise BadInput(f"{path}: is not text (UTF-8); a {kind.name} is {kind.text}")
    return text
