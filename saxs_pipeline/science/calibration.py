"""Absolute scale from a standard of known cross section R(q): water, or glassy carbon.

The normalised measurement (I_standard - I_background)/d = y(q) is compared with R over a window of q: y = a·R by least
squares, K = 1/a. The weights hold the pixels of a bin and a variance that is smooth in q, never a bin's own counts:
inverse variances estimated from these would favour what fluctuated low (docs/adr/0004). A window in which y/R changes
with q is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from saxs_pipeline.science.standards import SRM_3600_Q_NM, SRM_3600_REL, glassy_carbon
from saxs_pipeline.types import BadInput, Bools, Floats, ScaleFactor, Uncertain

MAX_SIGMA = 3.0
WATER_DRIFT = 0.01
"""A window is refused when y/R changes across it by more than MAX_SIGMA standard errors and by more than this share."""
CARBON_DRIFT, CARBON_MISFIT = 0.05, 0.03
"""As WATER_DRIFT, and for the rms of y/(aR) - 1 beyond what the counts explain: about twice and once the certificate's
own standard uncertainty of 2.6 %, which leaves no more room for the shape."""
LEAST_CARBON = 0.1
"""1 mm of glassy carbon scatters many times as much as what is around it; less than this share of it is no carbon."""
FEWEST_WATER, FEWEST_CARBON = 5, 10
"""Bins a window must hold; a shape needs more than a level."""


@dataclass(frozen=True, eq=False)
class StandardMeasurement:
    """A standard and its background (water and the empty cell), each averaged over its frames.

    q_nm (m,); standard, background: normalised I and statistical σ, each (m,); pixels (m,) of the standard's bins,
    0 and I NaN where nothing was measured; thickness_mm of the standard; transmissions_rel and monitors_rel: relative
    uncertainties of what standard and background were divided by, one factor for each curve; frames of each: usable,
    and in all; dark (m,): σ that the dark frames leave in their difference.
    """

    q_nm: Floats
    standard: tuple[Floats, Floats]
    background: tuple[Floats, Floats]
    pixels: Floats
    thickness_mm: Uncertain
    transmissions_rel: tuple[float, float] = (0.0, 0.0)
    monitors_rel: tuple[float, float] = (0.0, 0.0)
    frames: tuple[tuple[int, int], tuple[int, int]] = ((1, 1), (1, 1))
    dark: Floats | float = 0.0

    def difference(self) -> tuple[Floats, Floats]:
        """(I_standard - I_background)/d and its σ, normalised per mm, (m,)."""
        thickness = self.thickness_mm.value
        level = (self.standard[0] - self.background[0]) / thickness
        return level, np.hypot(np.hypot(self.standard[1], self.background[1]), self.dark) / thickness


def water_scale(
    measured: StandardMeasurement, cross_section: Uncertain, window_nm: tuple[float, float], method: str = "water"
) -> ScaleFactor:
    """Factor K from normalised intensity per mm to 1/mm, with K = (dΣ/dΩ)_water / ⟨(I_water - I_empty)/d⟩.

    cross_section in 1/mm, e.g. 1.65e-3 (Dreiss et al. 2006, J. Appl. Cryst. 39, 32), 1.632e-3 at 20 °C (Orthaber et
    al. 2000, J. Appl. Cryst. 33, 1218), or `standards.water_cross_section`. The mean weighs by pixels.
    Raises BadInput if the window is empty, not flat, or water does not scatter more than the empty cell.
    """
    where = f"water window {window_nm[0]:g}-{window_nm[1]:g} 1/nm"
    inside = usable(measured, window_nm)
    if inside.sum() < FEWEST_WATER:
        raise BadInput(
            f"{where}: holds {inside.sum()} usable q bins, {FEWEST_WATER} are needed; the data reach from "
            f"{measured.q_nm[0]:.3g} to {measured.q_nm[-1]:.3g} 1/nm: change intensity.water.window"
        )
    known = np.full(inside.sum(), cross_section.value)
    found = _compare(measured, inside, known, measured.pixels[inside])
    if found.share.value < 5 * found.share.error:
        level, error = (cross_section.value * x for x in found.share)
        raise BadInput(
            f"{where}: water minus empty cell is {level:.3g} ± {error:.2g}, not above zero; "
            "check which files are water and empty, and their monitors"
        )
    if found.changes(WATER_DRIFT):
        raise BadInput(
            f"{where}: not flat, it changes by {found.drift:+.1%} across the window ({found.slope_over_sigma:+.1f} σ); "
            "choose another intensity.water.window, or check corrections.mask and the empty-cell measurement"
        )
    known_rel = ("cross section", cross_section.relative)
    return _scale(measured, found, known_rel, names=("water", "empty cell"), window_nm=window_nm, method=method)


def glassy_carbon_scale(
    measured: StandardMeasurement,
    window_nm: tuple[float, float] | None = None,
    method: str = "glassy carbon SRM 3600",
) -> ScaleFactor:
    """Factor K from normalised intensity per mm to 1/mm, with K·(I_carbon - I_background)/d = R, certified (SRM 3600).

    window_nm: all bins with a certified value if None. The certificate's uncertainty counts as common to all q.
    Raises BadInput if the window reaches beyond the certificate or holds too few bins, if the carbon hardly scatters
    more than its background, or if the measured curve has not the certified shape.
    """
    certified = (float(SRM_3600_Q_NM[0]), float(SRM_3600_Q_NM[-1]))
    low, high = certified if window_nm is None else window_nm
    where = f"glassy carbon window {low:.4g}-{high:.4g} 1/nm"
    if low < certified[0] or high > certified[1]:
        raise BadInput(f"{where}: certified are {certified[0]:.4g}-{certified[1]:.4g} 1/nm; narrow it to these")
    inside = usable(measured, (low, high))
    if inside.sum() < FEWEST_CARBON:
        raise BadInput(
            f"{where}: holds {inside.sum()} usable q bins, {FEWEST_CARBON} are needed; "
            "widen the window, or integrate more of this q range, in more bins"
        )
    q = measured.q_nm[inside]
    known = glassy_carbon(q)
    found = _compare(measured, inside, known, _smooth_weights(measured, inside, known))
    _check_strength(measured, found, where)
    if found.changes(CARBON_DRIFT) or found.deviates(CARBON_MISFIT):
        raise BadInput(
            f"{where}: not the certified shape: measured over certified changes by {found.drift:+.1%} across it "
            f"({found.slope_over_sigma:+.1f} σ), χ²_red {found.chi2_red:.3g}; check the background, the geometry and "
            "the mask, or choose another intensity.glassy_carbon.window"
        )
    names, window_nm = ("glassy carbon", "background"), (float(q[0]), float(q[-1]))
    return _scale(measured, found, ("certificate", SRM_3600_REL), names=names, window_nm=window_nm, method=method)


def usable(measured: StandardMeasurement, window_nm: tuple[float, float]) -> Bools:
    """Measured bins in a window of q, (m,)."""
    level, sigma = measured.difference()
    q = measured.q_nm
    inside: Bools = (q >= window_nm[0]) & (q <= window_nm[1]) & np.isfinite(level) & (sigma > 0)
    return inside


@dataclass(frozen=True, eq=False)
class _Comparison:
    """y = share·R + slope·(q - q̄)·R with their statistical σ, over the k bins `inside` (m,) a window.

    q, y, sigma, model (share·R), of_share (∂share/∂y) and importance (that of each bin for the share, sum 1), all (k,).
    """

    inside: Bools
    q: Floats
    y: Floats
    sigma: Floats
    model: Floats
    of_share: Floats
    importance: Floats
    share: Uncertain
    slope: Uncertain

    @property
    def slope_over_sigma(self) -> float:
        """How clear the change of y/R with q is."""
        return self.slope.value / self.slope.error

    @property
    def drift(self) -> float:
        """Relative change of y/R across the window."""
        return float(self.slope.value * (self.q[-1] - self.q[0]) / self.share.value)

    @property
    def chi2_red(self) -> float:
        """χ² of y against share·R per degree of freedom."""
        return float((((self.y - self.model) / self.sigma) ** 2).sum() / (len(self.y) - 1))

    def changes(self, tolerance: float) -> bool:
        """Whether y/R changes with q, clearly and by more than is tolerated."""
        return abs(self.slope_over_sigma) > MAX_SIGMA and abs(self.drift) > tolerance

    def deviates(self, tolerance: float) -> bool:
        """Whether y/R has structure, its rms clearly larger than tolerated once that of the counts is taken off.

        By importance; σ² of a squared deviation is 2·noise², and its distribution is skewed: hence more than MAX_SIGMA.
        """
        noise = (self.sigma / self.model) ** 2
        excess = float((((self.y / self.model - 1) ** 2 - noise) * self.importance).sum())
        return excess - (MAX_SIGMA + 1) * math.sqrt(2 * float(((noise * self.importance) ** 2).sum())) > tolerance**2


def _compare(measured: StandardMeasurement, inside: Bools, known: Floats, weight: Floats) -> _Comparison:
    """Weighted least squares of y on known R (k,) over the bins inside (m,); q̄ makes share and slope independent."""
    q = measured.q_nm[inside]
    y, sigma = (column[inside] for column in measured.difference())
    importance = weight * known**2 / (weight * known**2).sum()
    x = q - (importance * q).sum()
    of_share, of_slope = importance / known, importance * x / known / (importance * x**2).sum()
    share, slope = (
        Uncertain(float((part * y).sum()), float(np.sqrt((part**2 * sigma**2).sum()))) for part in (of_share, of_slope)
    )
    return _Comparison(inside, q, y, sigma, share.value * known, of_share, importance, share, slope)


def _smooth_weights(measured: StandardMeasurement, inside: Bools, known: Floats) -> Floats:
    """1/σ² with σ² = (α + β·R)/pixels, α and β ≥ 0 from all bins together: background and carbon are counted."""
    from scipy.optimize import nnls

    pixels, variance = measured.pixels[inside], measured.difference()[1][inside] ** 2
    columns = np.stack([np.ones(len(known)), known / known.mean()], axis=1)
    per_pixel = pixels * variance
    weight: Floats = pixels / (columns @ nnls(columns, per_pixel / per_pixel.mean())[0])
    return weight


def _check_strength(measured: StandardMeasurement, found: _Comparison, where: str) -> None:
    background = float(measured.background[0][found.inside].mean())
    over = float(measured.standard[0][found.inside].mean()) - background
    if over < LEAST_CARBON * background or found.share.value < 5 * found.share.error:
        raise BadInput(
            f"{where}: carbon minus background is {over:.3g}, the background {background:.3g}: hardly more than that; "
            "check which files are carbon and background, and their monitors"
        )


def _scale(
    measured: StandardMeasurement,
    found: _Comparison,
    known_rel: tuple[str, float],
    *,
    names: tuple[str, str],
    window_nm: tuple[float, float],
    method: str,
) -> ScaleFactor:
    """K = 1/share, uncertain by the counts, the known cross section, thickness, monitors and transmissions.

    Monitor and transmission act on a whole curve, and so on the share of the result that this curve is.
    """
    curves = np.stack([measured.standard[0][found.inside], measured.background[0][found.inside]])
    taken = (curves * found.of_share).sum(axis=1) / measured.thickness_mm.value / found.share.value
    factors = (("monitor", measured.monitors_rel), ("transmission", measured.transmissions_rel))
    contributions = (
        ("counting", found.share.relative),
        known_rel,
        ("thickness", measured.thickness_mm.relative),
        *(
            (f"{what} of {name}", float(abs(share * relative)))
            for what, both in factors
            for name, share, relative in zip(names, taken, both, strict=True)
            if relative
        ),
    )
    factor, relative = 1 / found.share.value, math.hypot(*(value for _, value in contributions))
    return ScaleFactor(
        factor=Uncertain(factor, factor * relative),
        method=method,
        window_nm=window_nm,
        slope_over_sigma=found.slope_over_sigma,
        chi2_red=found.chi2_red,
        drift=found.drift,
        contributions=contributions,
    )
