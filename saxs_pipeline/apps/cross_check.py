"""The work of `cross-check`: the size distribution of one frame of a run, held against McSAS3."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saxs_pipeline.apps import terminal
from saxs_pipeline.outputs import cross_check_files, nexus
from saxs_pipeline.outputs.folder import check_free, staged
from saxs_pipeline.outputs.plot_style import seconds_text
from saxs_pipeline.size_distribution import CrossCheck, SizeDistributions
from saxs_pipeline.stages import montecarlo
from saxs_pipeline.types import BadInput, RunResult


@dataclass(frozen=True)
class Request:
    """What the command line asks for; None: the default."""

    run_nxs: Path
    frame: int | None = None
    repetitions: int = 10
    contributions: int = 300
    out: Path | None = None


def cross_check(request: Request, say: Callable[[str], None]) -> tuple[list[tuple[str, str]], Path]:
    """Do it; files go to the folder that is returned with the rows for the terminal.

    Raises BadInput for a file or a frame without size distribution, where mcsas3 is not installed, and where files in
    the folder would be overwritten that this command has not made.
    """
    path = request.run_nxs
    result = nexus.read_run(path)
    sizes = _sizes(result, path)
    row = _row(result, sizes, request)
    montecarlo.check_installed()
    number = int(result.curves.index[row])
    folder = path.parent / f"cross_check_frame_{number:05d}" if request.out is None else request.out
    check_free(folder, cross_check_files.FILES, cross_check_files.MADE_BY, path)
    curve, own = result.curves.rows(np.arange(len(result.curves.index)) == row), sizes.rows([row])
    with staged(folder) as staging:  # a folder that cannot be written fails at once
        say(f"McSAS3: {request.repetitions} repetitions of {request.contributions} spheres; this can take minutes")
        with terminal.frame_progress(request.repetitions, text="repetitions") as advance:
            other = montecarlo.monte_carlo(
                curve, own, repetitions=request.repetitions, contributions=request.contributions, advance=advance
            )
        source = f"{path}, frame {number} at {seconds_text(float(curve.time_s[0]))}"
        check = CrossCheck(source, number, curve.unit, own, other)
        cross_check_files.write_cross_check(check, staging)
    return cross_check_files.rows(check), folder


def _sizes(result: RunResult, path: Path) -> SizeDistributions:
    if result.sizes is None:
        raise BadInput(
            f"{path}: the run has no size distributions; add a section "
            "`sizes: {q_min: 0.15 1/nm, q_max: 5 1/nm}` to its run file and run again"
        )
    if not math.isfinite(result.sizes.factor):
        raise BadInput(f"{path}: the results are of an earlier version of this program; run again")
    return result.sizes


def _row(result: RunResult, sizes: SizeDistributions, request: Request) -> int:
    """Row of the frame that is asked for, or of the last that has a size distribution."""
    path, index = request.run_nxs, result.curves.index
    known = np.isfinite(sizes.value("mean_nm"))
    if not known.any():
        raise BadInput(f"{path}: no frame has the signal for a size distribution")
    if request.frame is None:
        return int(np.flatnonzero(known)[-1])
    found = np.flatnonzero(index == request.frame)
    if not found.size:
        raise BadInput(f"{path}: frame {request.frame} is not in this run; choose from {index.min()} to {index.max()}")
    row = int(found[0])
    if not known[row]:
        raise BadInput(
            f"{path}: frame {request.frame} has no size distribution ({sizes.flags[row]}); choose another with --frame"
        )
    return row
