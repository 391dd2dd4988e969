"""What the terminal shows: progress on stderr, tables on stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


@contextmanager
def frame_progress(
    total: int, *, done: int = 0, quiet: bool = False, text: str = "frames"
) -> Iterator[Callable[[int], None]]:
    """A bar with count, rate and time left while frames are processed, `done` of them earlier; silent where stderr is
    no terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda frames: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(text),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(text, total=total, completed=done, rate="")

        def advance(frames: int) -> None:
            progress.advance(task, frames)
            speed = progress.tasks[0].speed
            progress.update(task, rate=f"{speed:.3g} {text}/s" if speed else "")

        yield advance


def one_line(text: str) -> str:
    """Without what would steer the terminal: names and titles come from files, and these from anywhere."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def plain(text: str) -> str:
    """As `one_line`, but of several lines."""
    return "\n".join(map(one_line, text.split("\n")))


def print_rows(rows: Iterable[tuple[str, str]]) -> None:
    """Two aligned columns on stdout, plain text so that it can be piped."""
    listed = [(one_line(name), plain(value)) for name, value in rows]
    width = max((len(name) for name, _ in listed), default=0)
    for name, value in listed:
        lines = value.split("\n") or [""]
        sys.stdout.write(f"{name:<{width}}  {lines[0]}\n")
        for line in lines[1:]:
            sys.stdout.write(f"{'':<{width}}  {line}\n")
