"""The chain: frames → integrate → reduce → fit → quantify. The only place that knows the order of the stages.

`plan.prepare` looks at the references once, `process` does a chunk (anywhere, independently of the others), `finish`
joins the chunks. Batch and live runs use the same three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from saxs_pipeline import provenance
from saxs_pipeline.plan import Plan
from saxs_pipeline.runfile import RunFile
from saxs_pipeline.stages import quantify, reduce
from saxs_pipeline.stages.fit import fit, poor, refit_weak
from saxs_pipeline.types import Curves, FitTable, Floats, RunResult


@dataclass(frozen=True, eq=False)
class ChunkResult:
    """What one chunk gives: its reduced curves and, with a model, their fits."""

    curves: Curves
    fits: FitTable | None
    model: Floats | None


def process(plan: Plan, start: int, stop: int) -> ChunkResult:
    """Frames start … stop - 1 through the chain; the result does not depend on how the frames are cut into chunks."""
    curves = reduce.subtract(plan.curves_of(start, stop), plan.background)
    if plan.config.model is None:
        return ChunkResult(curves, None, None)
    fits, model = fit(curves, plan.config.model, plan.factor)
    return ChunkResult(curves, fits, model)


def finish(plan: Plan, run: RunFile, chunks: Sequence[ChunkResult]) -> RunResult:
    """Join the chunks (in order of frames), fit weak frames again, derive the quantities."""
    curves = Curves.concatenate([chunk.curves for chunk in chunks])
    fits, model, quantities = None, None, None
    tables = [chunk.fits for chunk in chunks if chunk.fits is not None]
    if plan.config.model is not None and tables:
        fits = _join_fits(tables)
        model = np.concatenate([chunk.model for chunk in chunks if chunk.model is not None])
        fits, model = refit_weak(curves, fits, model, plan.config.model, plan.factor)
        fits = replace(fits, flags=_flags(plan, curves, fits))
        quantities = quantify.quantify(fits, curves, plan.config.sample, plan.energy_keV)
    return RunResult(
        title=plan.config.title,
        curves=curves,
        background=plan.background,
        scale=plan.scale,
        fits=fits,
        model=model,
        quantities=quantities,
        provenance=provenance.collect(run, plan),
        warnings=(*plan.warnings, *_frame_warnings(plan, curves)),
    )


def _join_fits(tables: Sequence[FitTable]) -> FitTable:
    arrays = ("index", "values", "covariance", "chi2_red", "n_points", "converged")
    joined = {name: np.concatenate([getattr(table, name) for table in tables]) for name in arrays}
    return FitTable(**joined, flags=tuple(flag for table in tables for flag in table.flags))


def _flags(plan: Plan, curves: Curves, fits: FitTable) -> tuple[str, ...]:
    """Words of each frame joined by "|", "ok" if there is nothing to say."""
    flags, badly = [], poor(fits)
    for k, (index, problem) in enumerate(zip(curves.index.tolist(), curves.problems, strict=True)):
        words = [problem.split(":")[0]] if problem else [curves.notes[k], fits.flags[k], "poor_fit" if badly[k] else ""]
        if index in plan.background_frames:
            words.append("background")
        flags.append("|".join(word for word in words if word) or "ok")
    return tuple(flags)


def _frame_warnings(plan: Plan, curves: Curves) -> list[str]:
    """One line for each frame that could not be used, by name."""
    found = []
    for index, problem in zip(curves.index.tolist(), curves.problems, strict=True):
        if problem:
            name = plan.series.label(index) if plan.series is not None else f"curve {index}"
            found.append(f"frame {index} ({name}) skipped: {problem}")
    return found
