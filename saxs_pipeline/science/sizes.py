"""Size distributions of spheres without a shape assumption: I(q) = Σₖ φₖ K(q, Rₖ) + b with volume fractions φₖ ≥ 0.

Numbers come from the sharp distribution. Of all φ ≥ 0 that describe a curve equally well it is the one with the
smallest Σ (φₖ/gₖ)², gₖ² = Rₖ¹⁰ΔRₖ: ∫(φ(R)/R⁵)²dR. It is the positive part of a smooth function of R, and zero where the
data are silent. The power is a choice that was measured: lower ones let noise appear as small particles, which scatter
little for their volume (with R⁴ the mean radius of 2.2 nm spheres scatters by a third more), higher ones gain little.

How sharp. α in ‖(Σφₖ Kₖ + b − I)/σ‖² + α Σ (φₖ/gₖ)² does not come from the noise of a frame, as by the discrepancy
principle or the evidence, but from its errors: a single size with the frame's signal, and no noise, may be smeared
until its curve is off by Δχ² = 0.4. Nothing is sharper than a single size, so that no distribution is smoothed visibly;
α hardly varies between frames, and holds for the repetitions of a frame. (An α from χ² of the noisy curve scatters by a
decade, the mean radius then by a quarter more.)

Shown is the smoothest distribution that the data do not reject: of all φ ≥ 0 whose χ² is higher than that of the sharp
one by 4, the one with the smallest ∫(d²φ/dR²)²dR. The sharp one would break up broad distributions into spikes that
mean nothing. What the same rule makes of a single size with the frame's signal, and no noise, is the resolution; the
distance at which it shows two sizes as two is found in the same way. Its error is Wahba's (J. R. Stat. Soc. B 45, 133
(1983)), which holds, beside the noise, what smoothing takes away, for a truth as rough as Δχ² = 0.7 allows: the band of
one error then holds 67 to 99 % of true distributions of spreads from 6 to 20 %. (Repetitions with other noise, which
know nothing of the smoothing, would hold 6 to 43 %.)

Errors of the numbers. 50 repetitions with the same standard normal numbers for every frame, 25 orthogonal directions
and their opposites, added to the curve of the sharp distribution, of which the smearing is half undone, see below. σ is
their standard deviation. Their mean less what they were made with is the bias, which is taken off mean, width and
volume. Groups of sizes that the data do not ask for (without them Δχ² < 4) are rectified noise: sizes farther than a
factor of 1.25 from the other groups have no part in the numbers, neither of the frame nor of its repetitions. (With
them 2 to 3 % of the widths were off by more than three errors, without 1 to 2 %.)

The bias of smearing depends on the true width, which the data do not tell below the resolution: the truth lies between
a single size and the sharp distribution, in variance between v − v₁ and v, if v₁ is what a single size shows. The
middle is taken, v − v₁/2, and half the difference of the biases at the two ends is added to σ in quadrature.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from saxs_pipeline.science.nonnegative import Minimiser, NonNegative
from saxs_pipeline.science.size_inversion import (
    WEAK,
    Frame,
    Problem,
    Size,
    Solution,
    about,
    kernel,
    set_up,
    single_size,
    smoothest,
    smoothest_error,
    solve,
)
from saxs_pipeline.size_distribution import SHAPE_COLUMNS, SIZE_COLUMNS, SizeDistributions
from saxs_pipeline.types import BadInput, Floats

_UNDONE = 0.5  # share of the smearing
_POOR = 2.0  # reduced χ²
_AT_END = 0.1  # of the highest density
_MIN_POINTS = 10


# --- numbers of a distribution ---------------------------------------------------------------------------------------


def _numbers(fraction: Floats, radius_nm: Floats, constant: Floats) -> Floats:
    """(…, 5): mean, number-weighted mean, variance, total, and share of the constant, of volume fractions (…, bins).

    NaN where there are no particles. constant (bins,) or the share itself.
    """
    total = fraction.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = fraction @ radius_nm / total
        number = (fraction @ radius_nm**-2) / (fraction @ radius_nm**-3)
        variance = (fraction * (radius_nm - np.asarray(mean)[..., None]) ** 2).sum(axis=-1) / total
    share = fraction @ constant if constant.ndim else np.broadcast_to(constant, total.shape)
    return np.stack([mean, number, variance, total, share], axis=-1)


class _Candidate(NamedTuple):
    """A distribution that could be the truth: its curve (k,) and numbers (5,), and what is made of it without noise."""

    curve: Floats
    truth: Floats
    made: Floats
    bias: Floats


def _candidate(frame: Frame, near: NonNegative, found: Solution, constant: Floats, smearing: float) -> _Candidate:
    """The needed groups, each drawn together about its mean so that its variance is less by `smearing`, nm²."""
    p = frame.problem
    radii, fractions = [np.zeros(0)], [np.zeros(0)]
    for group in found.groups:
        part, radius = found.fraction[group], p.radius_nm[group]
        mean = part @ radius / part.sum()
        variance = part @ (radius - mean) ** 2 / part.sum()
        share = math.sqrt(max(0.0, 1 - smearing / variance)) if variance > 0 else 0.0
        radii.append(mean + share * (radius - mean))
        fractions.append(part)
    radius, fraction = np.concatenate(radii), np.concatenate(fractions)
    curve, level = frame.seen(radius, fraction)
    if curve.any():
        gain = float(curve @ frame.data) / float(curve @ curve)
        curve, level, fraction = gain * curve, gain * level, gain * fraction
    truth = _numbers(fraction, radius, np.array(level))
    made = near.solve(found.strength, curve, found.fraction)
    return _Candidate(curve, truth, made, _numbers(made, p.radius_nm, constant) - truth)


# --- resolution ------------------------------------------------------------------------------------------------------


def _full_width(density: Floats, radius_nm: Floats) -> float:
    """Full width at half maximum of one peak (bins,), nm, by linear interpolation; 0 outside the radii."""
    top = int(np.argmax(density))
    half = density[top] / 2
    padded, at = np.concatenate([[0], density, [0]]), np.concatenate([radius_nm[:1], radius_nm, radius_nm[-1:]])
    left = top + 1 - int(np.argmax(padded[: top + 2][::-1] < half))
    right = top + 1 + int(np.argmax(padded[top + 1 :] < half))
    edges = [
        at[i] + (half - padded[i]) / (padded[i + step] - padded[i]) * (at[i + step] - at[i])
        for i, step in ((left, 1), (right, -1))
    ]
    return float(edges[1] - edges[0])


def _told_apart(frame: Frame, size: Size, single: Floats, fwhm: float) -> float:
    """Distance in nm from which on two sizes about the single one, of equal volume and no noise, show two maxima.

    To 5 %; NaN where this takes more than the radii on either side. fwhm, nm: what a single size shows, single (bins,).
    """
    radius, ends = float(frame.problem.radius_nm[size.place]), frame.problem.radius_nm[[0, -1]]
    low, high, most = fwhm, 2 * fwhm, 1.9 * min(radius - ends[0], ends[1] - radius)
    while not _splits(frame, size, single, min(high, most)):
        if high > most:
            return math.nan
        low, high = high, 2 * high
    high = min(high, most)
    while high > 1.05 * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _splits(frame, size, single, middle) else (middle, high)
    return high


def _splits(frame: Frame, size: Size, single: Floats, distance: float) -> bool:
    """Whether the density of two sizes with the frame's signal dips by a fifth of the lower maximum (Rayleigh)."""
    p = frame.problem
    curve, _ = frame.seen(p.radius_nm[size.place] + np.array([-0.5, 0.5]) * distance, np.ones(2))
    curve *= float(np.linalg.norm(size.curve) / np.linalg.norm(curve))
    density = smoothest(frame, curve, single) / p.bin_nm
    left, right = density[: size.place + 1], density[size.place :]
    between = density[int(np.argmax(left)) : size.place + int(np.argmax(right)) + 1]
    return bool(between.min() < 0.8 * min(left.max(), right.max()))


# --- one row ---------------------------------------------------------------------------------------------------------


class _Result(NamedTuple):
    """One row of SizeDistributions."""

    density: Floats
    density_err: Floats
    values: Floats
    errors: Floats
    shape: Floats
    flags: str


def _result(frame: Frame) -> _Result:
    p, size = frame.problem, single_size(frame)
    found = solve(frame, size)
    constant = frame.constant @ (kernel(p.q_nm, p.radius_nm, p.factor) * frame.weight[:, None])
    groups = found.groups or [slice(size.place, size.place + 1)]  # none is needed: the errors are of the nearest one
    near = about(frame, [p.radius_nm[group] for group in groups])
    smearing = _numbers(found.single, p.radius_nm, constant)[2]
    middle, *ends = (_candidate(frame, near, found, constant, share * smearing) for share in (_UNDONE, 0.0, 1.0))
    repeated = _numbers(_repeated(frame, near, found.strength, middle.curve, middle.made), p.radius_nm, constant)
    numbers = _numbers(near.solve(found.strength, frame.data, found.fraction), p.radius_nm, constant)
    values = numbers - (repeated.mean(axis=0) - middle.truth)
    errors = np.hypot(repeated.std(axis=0, ddof=1), 0.5 * (ends[1].bias - ends[0].bias))
    alone = _repeated(frame, about(frame, [p.radius_nm[found.single > 0]]), found.strength, size.curve, found.single)
    single = _numbers(alone, p.radius_nm, constant)[:, 2]
    limit = float(np.percentile(single, 95))
    resolved = bool(numbers[2] > limit)
    degrees = frame.weight.astype(bool).sum() - 1 - frame.sharp.freedom(found.strength, found.fraction)
    chi2 = (frame.misfit(found.fraction, frame.data) + frame.rest) / degrees
    weak = size.signal < WEAK
    shown = _shown(frame, size, found)
    return _Result(
        shown.density,
        shown.density_err,
        *_reported(frame, values, errors, resolved=resolved, weak=weak),
        np.array([math.sqrt(limit), shown.fwhm_nm, shown.two_sizes_nm, len(found.groups), chi2]),
        _joined(
            weak=weak,
            unresolved=not weak and not resolved,
            poor_fit=chi2 > _POOR + 5 * math.sqrt(2 / degrees),
            at_limit=not weak and _reaches_an_end(shown.density),
            coarse_bins=not weak and shown.fwhm_nm < 2 * p.bin_nm[size.place],
        ),
    )


class _Shown(NamedTuple):
    """Density (bins,) in 1/nm with its error, and what a single size and two would show."""

    density: Floats
    density_err: Floats
    fwhm_nm: float
    two_sizes_nm: float


def _shown(frame: Frame, size: Size, found: Solution) -> _Shown:
    p, least = frame.problem, frame.misfit(found.fraction, frame.data)
    fraction = smoothest(frame, frame.data, found.fraction, least)
    error = smoothest_error(frame, frame.data, found.fraction, least)
    single = smoothest(frame, size.curve, found.single)
    fwhm = _full_width(single / p.bin_nm, p.radius_nm)
    return _Shown(fraction / p.bin_nm, error / p.bin_nm, fwhm, _told_apart(frame, size, single, fwhm))


def _repeated(frame: Frame, problem: NonNegative, strength: float, curve: Floats, made: Floats) -> Floats:
    """Volume fractions (DRAWS, bins) of noisy repetitions of a curve (k,), of which made (bins,) is the solution."""
    return problem.solve(strength, curve + frame.problem.normals[:, : len(curve)], made)


def _reported(frame: Frame, values: Floats, errors: Floats, *, resolved: bool, weak: bool) -> tuple[Floats, Floats]:
    """Values and errors in the order of SIZE_COLUMNS from the numbers of `_numbers`."""
    mean, number, variance, total, share = values
    scatter = errors[2]
    if resolved and variance > 0:
        width, width_err = math.sqrt(variance), scatter / (2 * math.sqrt(variance))
    else:
        width, width_err = math.sqrt(max(variance, 0.0) + 2 * scatter), math.nan
    background = (frame.level - share) / frame.norm
    found = np.array([mean, number, width, total, background])
    error = np.array([errors[0], errors[1], width_err, errors[3], math.hypot(1.0, errors[4]) / frame.norm])
    if weak:
        found[:3] = error[:3] = math.nan
    elif not errors[1] < 0.2 * number:  # a few small particles, unseen, would change it
        found[1] = error[1] = math.nan
    return found, error


def _joined(**said: bool) -> str:
    return "|".join(word for word, holds in said.items() if holds)


def _reaches_an_end(density: Floats) -> bool:
    return bool(max(density[0], density[-1]) > _AT_END * density.max())


# --- all frames ------------------------------------------------------------------------------------------------------


def invert(
    q_nm: Floats,
    intensity: Floats,
    sigma: Floats,
    radius_nm: Floats,
    *,
    factor: float,
    minimise: Minimiser | None = None,
) -> SizeDistributions:
    """The size distribution of every curve, with errors and resolution.

    q_nm (m,) > 0; intensity and sigma (n, m) in 1/mm; points that are not finite, or with σ ≤ 0, get weight 0. Frames
    with fewer than 10 points give NaN. radius_nm (k,) increasing, from `size_inversion.radius_grid`; factor:
    `formfactors.intensity_factor`; with 1 the volume fractions are in units of that of the true factor. Every frame is
    inverted on its own. Raises BadInput for shapes or ranges that make no sense.
    """
    q, y, e, radius = (np.ascontiguousarray(a, dtype=np.float64) for a in (q_nm, intensity, sigma, radius_nm))
    _require(q, y, e, radius, factor)
    problem = set_up(q, radius, factor, minimise)
    rows = []
    for curve, error in zip(y, e, strict=True):
        use = np.isfinite(curve) & np.isfinite(error) & (error > 0)
        weight = np.divide(1.0, error, out=np.zeros_like(error), where=use)
        enough = np.count_nonzero(use) >= _MIN_POINTS
        rows.append(_result(Frame(problem, np.where(use, curve, 0.0), weight)) if enough else _unmeasured(radius.size))
    return _gathered(problem, rows)


def _require(q: Floats, intensity: Floats, sigma: Floats, radius: Floats, factor: float) -> None:
    if q.ndim != 1 or intensity.ndim != 2 or intensity.shape != sigma.shape or intensity.shape[1:] != q.shape:
        raise BadInput(
            f"sizes: intensity {intensity.shape} and sigma {sigma.shape} must be frames × bins, with q {q.shape}"
        )
    if not (np.isfinite(q).all() and (q > 0).all()):
        raise BadInput("sizes: q must be finite and positive; mask the bins that have no q")
    if radius.ndim != 1 or radius.size < 3 or not (radius[0] > 0 and (np.diff(radius) > 0).all()):
        raise BadInput("sizes: radii must be at least three increasing positive numbers in nm")
    if not (math.isfinite(factor) and factor > 0):
        raise BadInput("sizes: the intensity factor must be positive; is the contrast zero?")


def _unmeasured(bins: int) -> _Result:
    nothing = np.full(bins, np.nan)
    numbers, shape = np.full(len(SIZE_COLUMNS), np.nan), np.full(len(SHAPE_COLUMNS), np.nan)
    return _Result(nothing, nothing, numbers, numbers, shape, "not_measured")


def _gathered(problem: Problem, rows: list[_Result]) -> SizeDistributions:
    def stack(name: str, width: int) -> Floats:
        return np.array([getattr(row, name) for row in rows]).reshape(len(rows), width)

    bins = problem.radius_nm.size
    return SizeDistributions(
        radius_nm=problem.radius_nm,
        bin_nm=problem.bin_nm,
        density=stack("density", bins),
        density_err=stack("density_err", bins),
        values=stack("values", len(SIZE_COLUMNS)),
        errors=stack("errors", len(SIZE_COLUMNS)),
        shape=stack("shape", len(SHAPE_COLUMNS)),
        flags=tuple(row.flags for row in rows),
    )
