"""The work of the commands about the reaction: model, compare, growth, bimodal. Files in, files and rows out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from saxs_pipeline.apps.terminal import frame_progress
from saxs_pipeline.outputs.folder import staged
from saxs_pipeline.outputs.simulated import ModelRun, Simulated
from saxs_pipeline.runfile import ModelFile
from saxs_pipeline.science.population import simulate
from saxs_pipeline.types import BadInput

Rows = list[tuple[str, str]]

LARGEST_SUPERSATURATION = 1e30
"""Of `growth`; the highest that any synthesis reaches in the model are some hundred."""


def model(loaded: ModelFile, out: Path | None, *, quiet: bool = False) -> Rows:
    """Simulate a parameter file and its scan; files go to `out`, if given, and a summary is returned."""
    from saxs_pipeline.outputs import model_files

    with nullcontext() if out is None else staged(out) as staging:  # a folder that cannot be written fails at once
        simulated = _simulated(loaded, quiet=quiet)
        if staging is not None:
            model_files.write_model(simulated, staging)
    return [*_set_rows(loaded), *model_files.summary_rows(simulated)]


def _set_rows(loaded: ModelFile) -> Rows:
    """What --set made of the parameters, with their units."""
    written = loaded.config.written | {"end": f"{loaded.config.end_s:g} s"}
    settings = {key: text.partition("=")[2].strip() for key, text in loaded.settings.items()}
    return [("set", f"{key} = {written.get(key, text)}") for key, text in settings.items()]


def _as_set(loaded: ModelFile) -> str:
    """The parameter file in a message, with what was set over it."""
    return ", ".join([str(loaded.path), *(text for _, text in _set_rows(loaded))])


def _simulated(loaded: ModelFile, *, quiet: bool) -> Simulated:
    config = loaded.config
    own = config.n
    others = [n for n in config.scan_n if n != own]
    with frame_progress(1 + len(others), quiet=quiet, text="simulations") as advance:
        run = _one(loaded, own, advance)
        scan = tuple(run if n == own else _one(loaded, n, advance) for n in config.scan_n)
    return Simulated(
        title=config.title,
        parameters=config.written,
        n=own,
        synthesis=run.synthesis,
        development=run.development,
        snapshots_s=config.snapshots_s,
        scan=scan,
    )


def _one(loaded: ModelFile, n: float | None, advance: Callable[[int], None]) -> ModelRun:
    synthesis = loaded.config.synthesis({} if n is None else {"n": n})
    try:
        run = ModelRun(n, synthesis, simulate(synthesis, loaded.config.end_s))
    except BadInput as error:
        raise BadInput(f"{_as_set(loaded)}: {error}") from None
    advance(1)
    return run


def compare(run_nxs: Path, loaded: ModelFile, fit: Sequence[str], folder: Path) -> Rows:
    """Compare a finished run with the model, fit it if asked; report, tables and figures go to `folder`."""
    from saxs_pipeline.outputs import nexus, plots, reaction_tables, report, tables
    from saxs_pipeline.stages import compare as stage

    if folder.resolve() == run_nxs.parent.resolve():
        raise BadInput(f"{folder} holds the run's own results; give another folder with --out")
    result = nexus.read_run(run_nxs)
    with staged(folder) as staging:
        try:
            comparison = stage.compare(result, loaded.config, fit)
        except BadInput as error:
            raise BadInput(f"{run_nxs}, {_as_set(loaded)}: {error}") from None
        result = replace(result, comparison=comparison)
        reaction_tables.write_reaction(result, staging)
        nexus.write_run(result, staging / "run.nxs")
        report.write(result, plots.write_figures(result, staging / "figures"), staging / "report.html")
    return [*_set_rows(loaded), *tables.comparison_rows(comparison)]


def growth(loaded: ModelFile, supersaturation: float, folder: Path) -> Rows:
    """Growth rate against the radius at a supersaturation; table and figure go to `folder`."""
    from saxs_pipeline.outputs.growth_files import write_growth_rate

    if not 0 <= supersaturation <= LARGEST_SUPERSATURATION:
        largest = f"{LARGEST_SUPERSATURATION:g}".replace("e+", "e")
        raise BadInput(f"--supersaturation {supersaturation:g}: give a number from 0 to {largest}, e.g. 50")
    if supersaturation == 0 and not loaded.config.desorption:
        raise BadInput("--supersaturation 0: without desorption nothing grows or dissolves; give a number above 0")
    with staged(folder) as staging:
        return write_growth_rate(loaded.config.synthesis(), supersaturation, staging)


def bimodal(radii: Path, folder: Path) -> Rows:
    """Growth exponent from two series of radii; table and figure go to `folder`."""
    from saxs_pipeline.io.aliquots import read_radii
    from saxs_pipeline.outputs.growth_files import write_bimodal
    from saxs_pipeline.science.growth import fit_exponent

    measured = read_radii(radii)
    try:
        fit = fit_exponent(measured.r1_nm, measured.r1_error, measured.r2_nm, measured.r2_error)
    except BadInput as error:
        raise BadInput(f"{radii}: {error}") from None
    with staged(folder) as staging:
        return write_bimodal(measured, fit, staging)
