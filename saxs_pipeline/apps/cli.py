"""The command line. Everything heavy is imported inside the commands (--help in < 0.2 s)."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from saxs_pipeline import __version__
from saxs_pipeline.apps.messages import BAD_INPUT, clear_errors, note, say_where, tell

if TYPE_CHECKING:
    from sys import UnraisableHookArgs
    from types import FrameType

STOPPED = 1
AGAIN_S = 0.2
_FILE = click.Path(path_type=Path)


class _Interrupts:
    """Ctrl-C, raised again until it is on its way up: in imports and finalisers libraries may swallow it."""

    def __init__(self) -> None:
        heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not in the background of a script
        if heard and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._raise)
            signal.signal(signal.SIGALRM, self._raise_again)
            sys.unraisablehook = self._unraisable

    def _raise(self, number: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        raise KeyboardInterrupt

    def _raise_again(self, number: int, frame: FrameType | None) -> None:
        error = sys.exc_info()[1]
        while error is not None and not isinstance(error, KeyboardInterrupt):
            error = error.__context__
        if error is None:
            self._raise(number, frame)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)  # on its way it may still be swallowed

    def _unraisable(self, unraisable: UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            sys.__unraisablehook__(unraisable)

    def end(self) -> None:
        """Nothing is left to be stopped."""
        if signal.getsignal(signal.SIGINT) == self._raise:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGINT, signal.default_int_handler)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="saxs-pipeline")
@click.pass_context
def main(context: click.Context) -> None:
    """In-situ SAXS frames of growing nanocrystals to r(t), σ_r(t), c_NC(t) and yield(t), with errors.

    \b
    A first try, without any data:
      saxs-pipeline simulate id02-cdse --out beamtime/
      saxs-pipeline check beamtime/run.yaml
      saxs-pipeline run beamtime/run.yaml
    """
    context.call_on_close(_Interrupts().end)


@main.command()
@click.argument("run_files", type=_FILE, nargs=-1, required=True, metavar="RUN_FILE...")
def run(run_files: tuple[Path, ...]) -> None:
    """Process the frames that RUN_FILE describes; results go to its output.folder.

    A run that was stopped or killed resumes after its last finished frames. Of several run files (names, or a pattern
    in quotes) each is processed on its own, and a summary says which failed.
    """
    try:
        with clear_errors():
            if len(run_files) == 1 and not any(mark in str(run_files[0]) for mark in "*?["):
                _run_one(run_files[0])
            else:
                _run_several(run_files)
    except KeyboardInterrupt:
        click.echo("stopped; finished frames are kept: the same `run` again goes on from there", err=True)
        sys.exit(STOPPED)


def _run_one(run_file: Path) -> None:
    from saxs_pipeline import runfile

    loaded = runfile.load(run_file)
    from saxs_pipeline.apps import batch, terminal
    from saxs_pipeline.outputs import tables

    result = batch.execute(loaded, lambda line: note(f"note: {line}"))
    terminal.print_rows(tables.summary(result))
    for warning in result.warnings:
        note(f"note: {warning}")
    folder = loaded.config.output.folder
    tell(f"\nresults: {folder}  (open {folder / 'report.html'})")


def _run_several(run_files: tuple[Path, ...]) -> None:
    from saxs_pipeline.apps import several, terminal

    outcomes = several.execute(several.expand(run_files), note)
    terminal.print_rows(several.summary(outcomes))
    if any(outcome.state == "failed" for outcome in outcomes):
        sys.exit(BAD_INPUT)


@main.command()
@click.argument("run_file", type=_FILE)
@click.option("--port", type=click.IntRange(1, 65535), default=5006, show_default=True, help="Of the page.")
@click.option(
    "--allow-websocket-origin",
    "origins",
    multiple=True,
    metavar="HOST[:PORT]",
    help="Address under which a browser may also reach the page, e.g. through a proxy; repeatable.",
)
@click.option("--token", help="The page then needs ?token=TOKEN.")
def live(run_file: Path, port: int, origins: tuple[str, ...], token: str | None) -> None:
    """Follow the scan that RUN_FILE describes while it is measured, on a page at 127.0.0.1.

    Waits for files that do not exist yet. When the scan has ended the results are those of `run`; stopped before, by
    Ctrl-C or otherwise, `live` or `run` resumes after the last finished frames.
    """
    try:
        with clear_errors():
            from saxs_pipeline import runfile

            loaded = runfile.load(run_file, must_exist=False)
            from saxs_pipeline.apps import live as following

            following.follow(loaded, port=port, origins=origins, token=token, say=note)
    except KeyboardInterrupt:
        click.echo("stopped; finished frames are kept: `live` or `run` goes on from there", err=True)


@main.command()
@click.argument("folders", type=_FILE, nargs=-1, required=True, metavar="FOLDER...")
def status(folders: tuple[Path, ...]) -> None:
    """Say of results folders what is done, what failed, how fast."""
    with clear_errors():
        from saxs_pipeline.apps import status as told
        from saxs_pipeline.apps import terminal

        terminal.print_rows(told.describe(folders[0]) if len(folders) == 1 else told.describe_all(folders))


@main.command()
@click.argument("run_file", type=_FILE)
def check(run_file: Path) -> None:
    """Say what `run` would do with RUN_FILE, and what is missing, without processing."""
    with clear_errors():
        from saxs_pipeline import runfile

        loaded = runfile.load(run_file)
        from saxs_pipeline.apps import batch, describe, terminal

        batch.check_output(loaded)
        terminal.print_rows(describe.check(loaded))


@main.group()
def calibrate() -> None:
    """Calibrate the instrument, and show how well that went."""


@calibrate.command("geometry")
@click.argument("frames", type=_FILE, nargs=-1, required=True, metavar="FRAME...")
@click.option("--detector", help="pyFAI's name of the detector, for its mask and pixel size.")
@click.option("--pixel-size", metavar="LENGTH", help='Where the detector has no name, e.g. "354.1667 um".')
@click.option("--energy", metavar="ENERGY", help='E.g. "18 keV"; default: what the header says.')
@click.option("--calibrant", default="AgBh", show_default=True, help="One of pyFAI's, or a .D file of d-spacings.")
@click.option("--mask", type=_FILE, help="Image, non-zero where pixels are not used.")
@click.option("--dark", type=_FILE, help="Dark frames of the same exposure.")
@click.option("--distance", metavar="LENGTH", help="About, if it is known; not needed.")
@click.option("--out", type=_FILE, default=Path("geometry.poni"), show_default=True, help="PONI file to write.")
def calibrate_geometry(**arguments: Any) -> None:
    """Distance, beam centre and tilt from the rings in the sum of the FRAMEs, with uncertainties, as a PONI file.

    Nothing has to be clicked or known beforehand but the energy. A picture is written beside the PONI file.
    """
    with clear_errors():
        from saxs_pipeline.apps import calibration_geometry, terminal

        request = calibration_geometry.Request(**arguments)
        terminal.print_rows(calibration_geometry.calibrate(request))
        tell(f"\nresults: {request.out}  (look at {request.out.with_suffix('.png')})")


@calibrate.command("intensity")
@click.argument("run_file", type=_FILE)
@click.option("--out", type=_FILE, help="Folder for scale.json and the figure; default: `calibration` beside RUN_FILE.")
def calibrate_intensity(run_file: Path, out: Path | None) -> None:
    """Absolute scale from the water or the glassy carbon that RUN_FILE names; the sample's frames need not exist."""
    with clear_errors():
        from saxs_pipeline.apps import calibration_intensity, terminal

        folder = run_file.parent / "calibration" if out is None else out
        terminal.print_rows(calibration_intensity.calibrate(run_file, folder))
        say_where(folder)


@main.command()
@click.argument("curve", type=_FILE, metavar="CURVE")
@click.option("--frame", type=click.IntRange(min=0), help="Of a run.nxs; default: the last that was fitted well.")
@click.option("--model", "run_file", type=_FILE, metavar="RUN_FILE", help="What to fit: its `model` and `sample`.")
@click.option("--q-unit", type=click.Choice(["1/nm", "1/Å", "1/angstrom", "1/m"]), help="Of a text; default: 1/nm.")
@click.option("--intensity-unit", type=click.Choice(["1/mm", "1/cm", "1/m"]), help="Of a text; default: 1/mm.")
@click.option("--profiles/--no-profiles", default=True, help="Limits from profiles of χ²; slow for hard spheres.")
@click.option(
    "--emcee",
    "steps",
    is_flag=False,
    flag_value=2000,
    type=click.IntRange(min=100),
    metavar="[STEPS]",
    help="Also draw from the posterior by Monte Carlo, 2000 steps; needs saxs-pipeline[mcmc].",
)
@click.option("--out", type=_FILE, help="Folder for fit.json, fit.dat, fit.txt and figures; default: beside CURVE.")
def fit(**arguments: Any) -> None:
    """Fit one CURVE in depth: a frame of a results/run.nxs with its model, or a text with columns q, I, sigma.

    Values with errors, profiles of χ², correlations, and the figure for a paper.
    """
    with clear_errors():
        from saxs_pipeline.apps import fit_curve, terminal

        rows, folder = fit_curve.fit(fit_curve.Request(**arguments))
        terminal.print_rows(rows)
        say_where(folder)


@main.command("cross-check")
@click.argument("run_nxs", type=_FILE)
@click.option("--frame", type=click.IntRange(min=0), help="Default: the last that has a size distribution.")
@click.option(
    "--repetitions", type=click.IntRange(min=2), default=10, show_default=True, help="Of the Monte Carlo fit."
)
@click.option("--contributions", type=click.IntRange(min=10), default=300, show_default=True, help="Spheres in each.")
@click.option("--out", type=_FILE, help="Folder for cross_check.json, .dat and the figure; default: beside RUN_NXS.")
def cross_check(**arguments: Any) -> None:
    """Hold the size distribution of one frame of RUN_NXS (results/run.nxs) against McSAS3, a Monte Carlo method.

    Same curve, errors, range of q and radii, another method. Needs saxs-pipeline[montecarlo].
    """
    with clear_errors():
        from saxs_pipeline.apps import cross_check as checking
        from saxs_pipeline.apps import terminal

        rows, folder = checking.cross_check(checking.Request(**arguments), note)
        terminal.print_rows(rows)
        say_where(folder)


@main.command()
@click.argument("file", type=_FILE)
def inspect(file: Path) -> None:
    """Show what is in FILE: shape, header, times, monitors, geometry."""
    with clear_errors():
        from saxs_pipeline.apps import describe, terminal

        terminal.print_rows(describe.inspect(file))


@main.command()
@click.argument("scenario", type=click.Choice(["id02-cdse", "p21-cspbbr3"]))
@click.option("--out", type=_FILE, required=True, help="New folder for the simulated beamtime.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of the random numbers.")
@click.option("--frames", type=click.IntRange(min=20), help="Frames of the scan; default: 575 of CdSe, 640 of CsPbBr3.")
@click.option(
    "--layout",
    type=click.Choice(["id02", "edf", "mccd", "cbf", "p21"]),
    help="How the frames are stored; default: as the beamline does.",
)
@click.option("--model", "params", type=_FILE, help="Kinetic parameter file whose crystals the frames show.")
def simulate(
    scenario: str, *, out: Path, seed: int, frames: int | None, layout: str | None, params: Path | None
) -> None:
    """Write raw frames of a synthesis whose truth is known (truth.csv), with all references and a run file.

    id02-cdse: CdSe crystals (Prins et al. 2021). p21-cspbbr3: CsPbBr3 crystals beside the agglomerates that they form
    from (Montanarella et al. 2023), as a .fio scan or CBF files.
    """
    with clear_errors():
        from saxs_pipeline import runfile, simulation
        from saxs_pipeline.apps import terminal

        kinetics = None if params is None else runfile.load_model(params)
        known = simulation.SCENARIOS[scenario]
        images = (frames or known.frames) + sum(known.references.values())
        with terminal.frame_progress(images, text="images") as advance:
            path = simulation.simulate(
                scenario,
                out,
                seed=seed,
                frames=frames,
                layout=layout,
                kinetics=kinetics,
                progress=lambda done, total: advance(1),
            )
        tell(f"{path}\nnext: saxs-pipeline run {path}")


_SET = click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Replace a parameter, e.g. --set n=2; repeatable."
)


@main.command()
@click.argument("params", type=_FILE)
@click.option(
    "--out", type=_FILE, help="Folder for model.csv, summary.json and figures; without it nothing is written."
)
@_SET
def model(params: Path, out: Path | None, settings: tuple[str, ...]) -> None:
    """Simulate the nucleation and growth that the parameter file PARAMS describes."""
    with clear_errors():
        from saxs_pipeline import runfile

        loaded = runfile.load_model(params, settings)
        from saxs_pipeline.apps import reaction, terminal

        terminal.print_rows(reaction.model(loaded, out))
        say_where(out)


@main.command()
@click.argument("run_nxs", type=_FILE)
@click.option("--model", "params", type=_FILE, required=True, help="Kinetic parameter file.")
@click.option("--fit", "names", multiple=True, metavar="NAMES", help="Parameters to fit, e.g. A,gamma,n,k1.")
@click.option("--out", type=_FILE, help="Folder for the comparison; default: `comparison` beside RUN_NXS.")
@_SET
def compare(run_nxs: Path, params: Path, names: tuple[str, ...], out: Path | None, settings: tuple[str, ...]) -> None:
    """Hold the results of a run, RUN_NXS (results/run.nxs), against the kinetic model, and fit it."""
    with clear_errors():
        from saxs_pipeline import runfile

        loaded = runfile.load_model(params, settings)
        from saxs_pipeline.apps import reaction, terminal

        folder = run_nxs.parent / "comparison" if out is None else out
        fit = tuple(name.strip() for name in ",".join(names).split(",") if name.strip())
        terminal.print_rows(reaction.compare(run_nxs, loaded, fit, folder))
        say_where(folder)


@main.command()
@click.argument("params", type=_FILE)
@click.option("--supersaturation", type=float, required=True, help="S at which crystals grow.")
@click.option("--out", type=_FILE, required=True, help="Folder for growth_rate.csv and the figure.")
@_SET
def growth(params: Path, supersaturation: float, out: Path, settings: tuple[str, ...]) -> None:
    """Growth rate j_G(r) of the parameter file PARAMS: its diffusion and reaction limits, its local exponent."""
    with clear_errors():
        from saxs_pipeline import runfile

        loaded = runfile.load_model(params, settings)
        from saxs_pipeline.apps import reaction, terminal

        terminal.print_rows(reaction.growth(loaded, supersaturation, out))
        say_where(out)


@main.command()
@click.argument("radii", type=_FILE)
@click.option("--out", type=_FILE, required=True, help="Folder for bimodal.csv and the figure.")
def bimodal(radii: Path, out: Path) -> None:
    """Growth exponent from two coexisting sizes: RADII is a CSV with t_s,r1_nm,r1_nm_err,r2_nm,r2_nm_err."""
    with clear_errors():
        from saxs_pipeline.apps import reaction, terminal

        terminal.print_rows(reaction.bimodal(radii, out))
        say_where(out)


@main.command()
def schema() -> None:
    """Print the JSON schema of the run file."""
    import json

    from saxs_pipeline import runfile

    click.echo(json.dumps(runfile.schema(), indent=2, ensure_ascii=False))
