"""The figure of a cross-check: a size distribution with its band, and that of McSAS3 with the spread it has."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from saxs_pipeline.outputs.plot_style import (
    BLACK,
    BLUE,
    SINGLE_COLUMN_MM,
    VERMILLION,
    Drawing,
    margins,
    new_figure,
)
from saxs_pipeline.size_distribution import CrossCheck, SizeDistributions
from saxs_pipeline.types import Floats


def draw_cross_check(check: CrossCheck) -> Drawing:
    """Volume-weighted densities of both against the radius, and what a single size would show."""
    figure = new_figure(SINGLE_COLUMN_MM, 70)
    ax = figure.subplots()
    density = check.other.density(check.sizes.radius_nm)
    mean, spread = density.mean(axis=0), density.std(axis=0, ddof=1)
    _draw_own(ax, check.sizes)
    _draw_other(ax, check, mean, spread)
    highest = float(max(np.max(check.sizes.density[0] + check.sizes.density_err[0]), np.max(mean + spread)))
    _draw_resolution(ax, check.sizes, 1.07 * highest)
    ax.set(xlabel="radius $R$ (nm)", xlim=_range(check.sizes, mean), ylim=(0, 1.6 * highest))
    ax.set_ylabel("volume fraction per nm (nm⁻¹)" if check.sizes.absolute else "volume per nm (arbitrary)")
    ax.legend(loc="upper left")
    margins(figure, left=15)
    repetitions, spheres = check.other.radius_nm.shape
    caption = (
        f"{check.source}. Volume-weighted size distributions of the same curve. Blue: regularised inversion, band: one "
        f"standard error. Red: McSAS3 {check.other.version}, mean of {repetitions} repetitions of {spheres} spheres; "
        "thin: the spread of the repetitions, which is not an error bar. Black bar: full width at half maximum that a "
        "single size would show in blue; narrower features mean nothing."
    )
    alt = "Size distribution with its error band beside that of McSAS3, and a bar for the resolution."
    return Drawing("cross_check", figure, caption, alt)


def _draw_own(ax: Axes, sizes: SizeDistributions) -> None:
    density, error = sizes.density[0], sizes.density_err[0]
    low = np.maximum(density - error, 0.0)
    ax.fill_between(sizes.radius_nm, low, density + error, color=BLUE, alpha=0.25, lw=0)
    ax.plot(sizes.radius_nm, density, color=BLUE, label="inversion, band: standard error")


def _draw_other(ax: Axes, check: CrossCheck, mean: Floats, spread: Floats) -> None:
    radius, steps = check.sizes.radius_nm, "steps-mid"
    label = f"McSAS3, mean of {len(check.other.chi2)} repetitions"
    ax.plot(radius, mean, color=VERMILLION, ds=steps, label=label)
    for sign, name in ((-1, "spread of repetitions, not an error bar"), (1, None)):
        edge = np.maximum(mean + sign * spread, 0.0)
        ax.plot(radius, edge, "--", color=VERMILLION, lw=0.4, ds=steps, label=name)


def _draw_resolution(ax: Axes, sizes: SizeDistributions, height: float) -> None:
    """A bar as long as the full width of a single size, about the most frequent radius."""
    centre = float(sizes.radius_nm[int(np.argmax(sizes.density[0]))])
    half = 0.5 * float(sizes.value("single_fwhm_nm")[0])
    ax.plot([centre - half, centre + half], [height, height], "|-", color=BLACK, ms=4, mew=0.8, label="single size")


def _range(sizes: SizeDistributions, other: Floats) -> tuple[float, float]:
    """Radii between which there is something to see of either."""
    seen = np.zeros(other.size, dtype=bool)
    for density in (sizes.density[0], other):
        seen |= density > 0.01 * density.max()
    filled = sizes.radius_nm[seen]
    low, high = sizes.radius_nm[[0, -1]]
    return float(max(filled[0] / 1.15, low)), float(min(1.15 * filled[-1], high))
