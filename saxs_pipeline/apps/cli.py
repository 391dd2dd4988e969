"""The command line. Everything heavy is imported inside the commands (--help in < 0.2 s)."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from saxs_pipeline import __version__

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

BAD_INPUT = 2
_FILE = click.Path(path_type=Path)


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Bad input: one line per mistake on stderr, exit code 2, no traceback."""
    from saxs_pipeline.types import BadInput

    for stream in (sys.stdout, sys.stderr):  # a terminal without µ and σ shows ? instead of ending the run
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        yield
    except BadInput as error:
        for message in error.messages:
            click.echo(message, err=True)
        sys.exit(BAD_INPUT)
    except MemoryError as error:
        click.echo(f"not enough memory: {error or 'the frames are too large'}; check the shapes with inspect", err=True)
        sys.exit(BAD_INPUT)
    except OSError as error:
        if error.filename is None:  # a closed pipe, an interrupted call: not the user's files
            raise
        click.echo(f"{error.filename}: {error.strerror}; check the disk and try again", err=True)
        sys.exit(BAD_INPUT)


def _interrupt_again(unraisable: UnraisableHookArgs) -> None:
    """Ctrl-C that arrives inside a finaliser is only printed by Python; raise it again once that has ended."""
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(unraisable)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="saxs-pipeline")
def main() -> None:
    """In-situ SAXS frames of growing nanocrystals to r(t), σ_r(t), c_NC(t) and yield(t), with errors.

    \b
    A first try, without any data:
      saxs-pipeline simulate id02-cdse --out beamtime/
      saxs-pipeline check beamtime/run.yaml
      saxs-pipeline run beamtime/run.yaml
    """
    sys.unraisablehook = _interrupt_again


@main.command()
@click.argument("run_file", type=_FILE)
def run(run_file: Path) -> None:
    """Process the frames that RUN_FILE describes; results go to its output.folder."""
    with _clear_errors():
        from saxs_pipeline import runfile

        loaded = runfile.load(run_file)
        from saxs_pipeline.apps import batch, terminal

        batch.check_output(loaded)
        result = batch.compute(loaded)
        folder = batch.write(result, loaded)
        from saxs_pipeline.outputs import tables

        terminal.print_rows(tables.summary(result))
        for warning in result.warnings:
            click.echo(f"note: {warning}", err=True)
        click.echo(f"\nresults: {folder}  (open {folder / 'report.html'})")


@main.command()
@click.argument("run_file", type=_FILE)
def check(run_file: Path) -> None:
    """Say what `run` would do with RUN_FILE, and what is missing, without processing."""
    with _clear_errors():
        from saxs_pipeline import runfile

        loaded = runfile.load(run_file)
        from saxs_pipeline.apps import batch, describe, terminal

        batch.check_output(loaded)
        terminal.print_rows(describe.check(loaded))


@main.command()
@click.argument("file", type=_FILE)
def inspect(file: Path) -> None:
    """Show what is in FILE: shape, header, times, monitors, geometry."""
    with _clear_errors():
        from saxs_pipeline.apps import describe, terminal

        terminal.print_rows(describe.inspect(file))


@main.command()
@click.argument("scenario", type=click.Choice(["id02-cdse"]))
@click.option("--out", type=_FILE, required=True, help="New folder for the simulated beamtime.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of the random numbers.")
@click.option("--frames", type=click.IntRange(min=20), default=575, show_default=True, help="Frames of the scan.")
@click.option(
    "--layout",
    type=click.Choice(["id02", "edf", "mccd", "cbf", "p21"]),
    default="id02",
    show_default=True,
    help="How the frames are stored.",
)
def simulate(scenario: str, out: Path, seed: int, frames: int, layout: str) -> None:
    """Write raw frames of a synthesis whose truth is known (truth.csv), with all references and a run file."""
    with _clear_errors():
        from saxs_pipeline import simulation
        from saxs_pipeline.apps import terminal

        images = frames + sum(simulation.SCENARIOS[scenario].references.values())
        with terminal.frame_progress(images, text="images") as advance:
            path = simulation.simulate(
                scenario, out, seed=seed, frames=frames, layout=layout, progress=lambda done, total: advance(1)
            )
        click.echo(f"{path}\nnext: saxs-pipeline run {path}")


@main.command()
def schema() -> None:
    """Print the JSON schema of the run file."""
    import json

    from saxs_pipeline import runfile

    click.echo(json.dumps(runfile.schema(), indent=2, ensure_ascii=False))
