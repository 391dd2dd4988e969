"""What a command says beside its answer, and how it ends on bad input. Nothing heavy is imported here."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

BAD_INPUT = 2
"""Exit code."""


@contextmanager
def clear_errors() -> Iterator[None]:
    """Bad input: one line per mistake on stderr, exit code 2, no traceback."""
    from saxs_pipeline.types import BadInput

    for stream in (sys.stdout, sys.stderr):  # a terminal without µ and σ shows ? instead of ending the run
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        yield
    except BadInput as error:
        for message in error.messages:
            note(message)
        sys.exit(BAD_INPUT)
    except MemoryError as error:
        note(f"not enough memory: {error or 'the frames are too large'}; check the shapes with inspect")
        sys.exit(BAD_INPUT)
    except ArithmeticError as error:
        note(f"the numbers leave what can be calculated ({error}); check units and parameters")
        sys.exit(BAD_INPUT)
    except OSError as error:
        if error.filename is None:  # a closed pipe, an interrupted call: not the user's files
            raise
        note(f"{error.filename}: {error.strerror}; check the disk and try again")
        sys.exit(BAD_INPUT)


def note(text: str) -> None:
    """Beside the answer, on stderr."""
    tell(text, aside=True)


def tell(text: str, *, aside: bool = False) -> None:
    """Without what would steer the terminal: names of files and of what is in them come from anywhere."""
    from saxs_pipeline.apps import terminal

    click.echo(terminal.plain(text), err=aside)


def say_where(folder: Path | None) -> None:
    """Where the files of a command are, if it has written any."""
    if folder is not None:
        tell(f"\nresults: {folder}")
