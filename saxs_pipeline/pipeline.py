"""The chain: frames → integrate → reduce → fit → quantify. The only place that knows the order of the stages.

`plan.prepare` looks at the references once, `process` does a chunk (anywhere, independently of the others), `finish`
takes all frames together, `conclude` says what the series tells about the reaction. Batch and live use the same four.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.io.aliquots import read_aliquots
from saxs_pipeline.plan import Plan, times_doubts
from saxs_pipeline.quality import Quality
from saxs_pipeline.reaction import Aliquots
from saxs_pipeline.runfile import RunFile
from saxs_pipeline.science import quality
from saxs_pipeline.science.orientation import turned
from saxs_pipeline.science.population import simulate
from saxs_pipeline.stages import degenerate, quantify, reduce
from saxs_pipeline.stages.analyse import analyse
from saxs_pipeline.stages.compare import compare
from saxs_pipeline.stages.doubts import doubts
from saxs_pipeline.stages.fit import fit, limit_words, poor, window
from saxs_pipeline.stages.kinetic_problem import ROUGH_ETA
from saxs_pipeline.stages.overlay import outside, overlay
from saxs_pipeline.stages.refit import refit_weak
from saxs_pipeline.stages.sizes import size_distributions
from saxs_pipeline.types import BadInput, ChunkResult, Curves, FitTable, Provenance, Quantities, RunResult


def process(plan: Plan, start: int, stop: int) -> ChunkResult:
    """Frames start … stop - 1 through the chain; the result does not depend on how the frames are cut into chunks."""
    curves = reduce.subtract(plan.curves_of(start, stop), plan.background)
    sizes = None
    if plan.config.sizes is not None:
        sizes = size_distributions(curves, plan.config.sizes, plan.config.sample, plan.energy_keV)
    if plan.config.model is None or plan.model is None:
        return ChunkResult(curves, None, None, sizes)
    fits, model = fit(curves, plan.config.model, plan.model)
    return ChunkResult(curves, fits, model, sizes)


def finish(plan: Plan, frames: ChunkResult, provenance: Provenance) -> RunResult:
    """All frames in order → result: fit weak frames again, derive the quantities."""
    judged = quality.assess(frames.curves, plan.monitor_rate(frames.curves))
    curves, fits, model = _with_notes(plan, frames.curves, judged), frames.fits, frames.model
    quantities: Quantities | None = None
    others: tuple[tuple[str, Quantities], ...] = ()
    settings = plan.config.model
    if settings is not None and fits is not None and model is not None:
        fits, model = refit_weak(curves, fits, model, settings)
        inside = window(curves, settings)
        limited = limit_words(curves, fits, model, inside)
        flags = [_flags(curves, fits, own, limited) for own in (fits.flags, *fits.others)]
        fits = replace(fits, flags=flags[0], others=tuple(flags[1:]))
        samples = settings.samples(plan.config.sample)
        quantities, *more = quantify.quantify(fits, curves, samples, plan.energy_keV, inside)
        others = tuple((one.name, its) for one, its in zip(fits.model.populations[1:], more, strict=True))
    return RunResult(
        title=plan.config.title,
        curves=curves,
        background=plan.background,
        scale=plan.scale,
        fits=fits,
        model=model,
        quantities=quantities,
        provenance=provenance,
        warnings=(
            *plan.warnings,
            *times_doubts(plan),
            *_frame_warnings(plan, curves),
            *doubts(plan.model, curves, () if quantities is None else (quantities, *(one for _, one in others))),
        ),
        others=others,
        quality=judged,
        pixel_mask=_pixel_mask(plan),
        sizes=frames.sizes,
    )


def _pixel_mask(plan: Plan) -> NDArray[np.uint16] | None:
    """Why pixels are not used, as the geometry means the images; None of curves that others integrated."""
    if plan.spec is None or plan.spec.pixel_mask is None:
        return None
    return turned(plan.spec.pixel_mask, plan.spec.orientation)


def check_reaction(run: RunFile) -> Aliquots | None:
    """What can be known to be wrong with the sections `kinetics` and `aliquots` before any frame; the aliquots."""
    kinetics, table = run.config.kinetics, run.config.aliquots
    if kinetics is not None and run.kinetics is not None:
        model = run.kinetics.config
        try:
            degenerate.check(kinetics.fit, model)
        except BadInput as error:
            raise run.error("kinetics.fit", str(error)) from None
        try:
            simulate(model.synthesis(), model.end_s, eta=ROUGH_ETA)
        except BadInput as error:
            raise run.error("kinetics.model", f"{run.kinetics.path.name}: {error}") from None
    return None if table is None else read_aliquots(table.file, table)


def conclude(result: RunResult, run: RunFile, table: Aliquots | None) -> RunResult:
    """The result with the analysis of its series, aliquots beside it, and its comparison with the kinetic model.

    table: as read by `check_reaction`. Where one of these fails, a warning says why: the reduced data are not lost.
    """
    if result.fits is None or result.quantities is None or result.model is None:
        return result
    warnings, quantities = list(result.warnings), result.quantities
    with _kept(warnings, "no analysis of the series"):
        result = replace(result, analysis=analyse(result.curves, result.fits, quantities, result.model))
    if table is not None and run.config.aliquots is not None:
        with _kept(warnings, "aliquots are not shown"):
            result = replace(result, aliquots=overlay(table, result, run.config.aliquots.scale))
            warnings += outside(table, quantities)
    if run.kinetics is not None and run.config.kinetics is not None:
        with _kept(warnings, "no comparison with the kinetic model"):
            result = replace(result, comparison=compare(result, run.kinetics.config, run.config.kinetics.fit))
    return replace(result, warnings=tuple(dict.fromkeys(warnings)))


@contextmanager
def _kept(warnings: list[str], lost: str) -> Iterator[None]:
    """What fails here is a warning: the frames are processed, and their results must get to the disk."""
    try:
        yield
    except (BadInput, ArithmeticError, ValueError, MemoryError) as error:  # LinAlgError is a ValueError
        warnings.append(f"{lost}: {error}")


def _with_notes(plan: Plan, curves: Curves, judged: Quality) -> Curves:
    """Curves whose notes also say which frames are part of the background, and which stand out."""
    found = quality.words(judged, len(curves.q_nm))
    notes = (
        _joined_words(note, "background" if index in plan.background_frames else "", remark)
        for index, note, remark in zip(curves.index.tolist(), curves.notes, found, strict=True)
    )
    return replace(curves, notes=tuple(notes))


def _flags(curves: Curves, fits: FitTable, own: tuple[str, ...], limited: tuple[str, ...]) -> tuple[str, ...]:
    """Words of each frame joined by "|", with a population's own; "ok" if there is nothing to say."""
    flags, badly = [], poor(fits)
    for k, problem in enumerate(curves.problems):
        words = (problem.split(":")[0],) if problem else (own[k], limited[k], "poor_fit" if badly[k] else "")
        flags.append(_joined_words(*words, curves.notes[k]) or "ok")
    return tuple(flags)


def _joined_words(*words: str) -> str:
    return "|".join(word for word in words if word)


def _frame_warnings(plan: Plan, curves: Curves) -> list[str]:
    """One line for each frame that could not be used, by name."""
    found = []
    for index, problem in zip(curves.index.tolist(), curves.problems, strict=True):
        if problem:
            name = plan.series.label(index) if plan.series is not None else f"curve {index}"
            found.append(f"frame {index} ({name}) skipped: {problem}")
    return found
