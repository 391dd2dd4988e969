"""The corner plot of a Monte Carlo: every parameter's distribution, and of every two of them."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from saxs_pipeline.curve_fit import Chain, CurveFit
from saxs_pipeline.outputs.fit_files import quantiles, unit_text
from saxs_pipeline.outputs.plot_style import BLACK, BLUE, VERMILLION, Drawing, new_figure
from saxs_pipeline.types import Floats

_BINS = 25
_SHARES = (0.864665, 0.393469)
"""Of the draws within the 2σ and 1σ ellipses of a normal distribution of two parameters: 1 − exp(−n²/2)."""
_PANEL_MM, _LEFT_MM, _BOTTOM_MM, _EDGE_MM, _GAP_MM = 26.0, 19.0, 19.0, 3.0, 1.5


def draw_corner(fit: CurveFit) -> Drawing | None:
    """Histograms and 1σ, 2σ regions of the draws, with the fit's values; None without Monte Carlo."""
    chain = fit.chain
    if chain is None:
        return None
    number = len(chain.names)
    size = _LEFT_MM + number * _PANEL_MM + (number - 1) * _GAP_MM + _EDGE_MM
    figure = new_figure(size, size - _LEFT_MM + _BOTTOM_MM)
    axes = figure.subplots(number, number, squeeze=False)
    values = [fit.parameter(name).value for name in chain.names]
    ranges = [_range(column) for column in chain.samples.T]
    for i in range(number):
        for j in range(number):
            ax = axes[i, j]
            if j > i:
                ax.set_axis_off()
                continue
            _draw(ax, chain, i, j, ranges)
            ax.axvline(values[j], color=VERMILLION, lw=0.7, zorder=4)
            if i != j:
                ax.axhline(values[i], color=VERMILLION, lw=0.7, zorder=4)
            _label(ax, chain, i, j)
    width, height = figure.get_size_inches() * 25.4
    figure.subplots_adjust(
        left=_LEFT_MM / width,
        right=1 - _EDGE_MM / width,
        bottom=_BOTTOM_MM / height,
        top=1 - _EDGE_MM / height,
        wspace=_GAP_MM / _PANEL_MM,
        hspace=_GAP_MM / _PANEL_MM,
    )
    figure.align_labels()
    caption = (
        f"Posterior of the parameters by Monte Carlo ({chain.walkers} walkers, {chain.steps - chain.burn} steps), "
        "uniform prior within their ranges. Contours hold 39.3 and 86.5 % of the draws (1σ and 2σ of two parameters); "
        "dashed: median and 15.9, 84.1 %; red: the fit."
    )
    return Drawing("corner", figure, caption, f"Corner plot of {', '.join(chain.names)}.")


def _range(column: Floats) -> tuple[float, float]:
    """All but the last 0.1 % to either side."""
    low, high = np.percentile(column, [0.1, 99.9])
    return float(low), float(high)


def _draw(ax: Axes, chain: Chain, i: int, j: int, ranges: list[tuple[float, float]]) -> None:
    x = chain.samples[:, j]
    if i == j:
        ax.hist(x, _BINS, range=ranges[j], histtype="step", color=BLUE, lw=0.8)
        for limit in quantiles(chain)[1:4, j]:
            ax.axvline(limit, color=BLACK, ls="--", lw=0.5)
        ax.set_xlim(*ranges[j])
        ax.set_yticks([])
        return
    counts, x_edges, y_edges = np.histogram2d(x, chain.samples[:, i], _BINS, range=(ranges[j], ranges[i]))
    ordered = np.sort(counts.ravel())[::-1]
    share = np.cumsum(ordered) / len(x)
    places = [min(int(np.searchsorted(share, s)), ordered.size - 1) for s in _SHARES]
    levels = sorted({float(ordered[place]) for place in places})
    centres = (0.5 * (edges[1:] + edges[:-1]) for edges in (x_edges, y_edges))
    ax.pcolormesh(x_edges, y_edges, counts.T, cmap="Blues", rasterized=True)
    ax.contour(*centres, counts.T, levels=[level for level in levels if level > 0], colors=BLACK, linewidths=0.6)
    ax.set_xlim(*ranges[j])
    ax.set_ylim(*ranges[i])


def _label(ax: Axes, chain: Chain, i: int, j: int) -> None:
    """Names with units along the left and the lower edge only."""
    last = len(chain.names) - 1
    powers = [_power(column) for column in chain.samples.T]
    ax.xaxis.set_major_locator(MaxNLocator(3, prune="both"))
    ax.xaxis.set_major_formatter(_scaled(powers[j]))
    if i != j:
        ax.yaxis.set_major_locator(MaxNLocator(3, prune="both"))
        ax.yaxis.set_major_formatter(_scaled(powers[i]))
    ax.tick_params(labelsize=6, labelbottom=i == last, labelleft=j == 0 and i > 0)
    for text in ax.get_xticklabels():
        text.set(rotation=45, ha="right", rotation_mode="anchor")
    if i == last:
        ax.set_xlabel(_name(chain, j, powers[j]))
    if j == 0 and i > 0:
        ax.set_ylabel(_name(chain, i, powers[i]))


def _power(column: Floats) -> int:
    """The power of ten that stands in the label in place of the ticks; 0 for numbers that are read without."""
    power = math.floor(math.log10(float(np.abs(column).max()) or 1.0))
    return power if power < -2 or power > 4 else 0


def _scaled(power: int) -> FuncFormatter:
    return FuncFormatter(lambda value, _: f"{value / 10.0**power:.6g}")


def _name(chain: Chain, number: int, power: int) -> str:
    unit = f"{'' if not power else f'$10^{{{power}}}$ '}{unit_text(chain.units[number])}".strip()
    return f"{chain.names[number]}\n({unit})" if unit else chain.names[number]
