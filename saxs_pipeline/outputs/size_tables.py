"""Size distributions as text: sizes.csv, and what the summary says of them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from saxs_pipeline.size_distribution import SHAPE_COLUMNS, SIZE_COLUMNS, SizeDistributions
from saxs_pipeline.types import RunResult

COLUMNS = (
    "frame",
    "t_s",
    *(part for name in SIZE_COLUMNS for part in (name, f"{name}_err")),
    "volume_fraction_sys",
    *SHAPE_COLUMNS,
    "flag",
)
"""Columns of sizes.csv, of which the names in nm are lengths; see `size_distribution` for their meaning."""


def write_sizes(result: RunResult, path: Path) -> None:
    """Write sizes.csv where the run has size distributions: one row per frame, `nan` where nothing is reported."""
    if result.sizes is not None:
        path.write_text(sizes_text(result, result.sizes), encoding="utf-8", newline="")


def sizes_text(result: RunResult, sizes: SizeDistributions) -> str:
    """The text of sizes.csv, ten significant digits; `_err` statistical, `_sys` systematic standard uncertainty."""
    pairs = [column for k in range(len(SIZE_COLUMNS)) for column in (sizes.values[:, k], sizes.errors[:, k])]
    systematic = sizes.scale_rel * np.abs(sizes.value("volume_fraction"))
    numbers = np.column_stack([result.curves.time_s, *pairs, systematic, sizes.shape])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(
        [str(frame), *(f"{x:.10g}" for x in row), flag or "ok"]
        for frame, row, flag in zip(result.curves.index, numbers, sizes.flags, strict=True)
    )
    return text.getvalue()


def size_rows(sizes: SizeDistributions) -> list[tuple[str, str]]:
    """What the distributions say, as (name, text) rows."""
    known = np.isfinite(sizes.value("mean_nm"))
    if not known.any():
        return [("size distributions", "no frame has the signal for one")]
    unresolved = sizes.flagged("unresolved") & known
    several = known & (sizes.value("groups") > 1)
    single = float(np.median(sizes.value("single_fwhm_nm")[known]))
    apart = sizes.value("two_sizes_nm")[known]
    distance = "none" if not np.isfinite(apart).any() else f"{float(np.nanmedian(apart)):.2g} nm"
    rows = [
        (
            "size distributions",
            f"of {known.sum()} frames; {unresolved.sum()} are not wider than a single size would show, "
            f"{several.sum()} have more than one group of sizes",
        ),
        (
            "resolution in size",
            f"a single size shows a full width of {single:.2g} nm; two of equal volume can be told apart from "
            f"{distance} on (medians)",
        ),
    ]
    if poor := int((sizes.flagged("poor_fit") & known).sum()):
        rows.append(("size distributions, doubt", f"in {poor} frames no distribution of spheres describes the curve"))
    if coarse := int((sizes.flagged("coarse_bins") & known).sum()):
        text = (
            f"in {coarse} frames the bins limit the resolution (coarse_bins): give more `bins` or a narrower `radius`"
        )
        rows.append(("size distributions, bins", text))
    return rows
