"""The inversion of one curve: I(q) = Σₖ φₖ K(q, Rₖ) + b, φ ≥ 0, its smoothness, and its groups of sizes.

What is done and why is said in `sizes`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from saxs_pipeline.science.formfactors import AVOGADRO_PER_MOL, sphere
from saxs_pipeline.science.nonnegative import Minimiser, NonNegative
from saxs_pipeline.types import BadInput, Floats

DRAWS = 50
"""Repetitions for the errors: half of them are the other half's opposites."""

WEAK = 5.0
"""Below this signal over noise, that of the best single size, no radius is reported."""

_POWER = 5.0  # of R in g
_MISFIT = 0.4  # Δχ² of a single size without noise
_TOLERATED = 4.0  # Δχ² of the smoothest distribution
_ALLOWED = 0.7  # Δχ² that its error allows for
_NEAR = 1.2  # both are met within this factor
_REACH = 1.25  # factor in radius
_SIGNIFICANT = 4.0  # Δχ² without a group of sizes
_RANK = DRAWS // 2
_CUT = 1e-13
_STRENGTHS = (1e-18, 1e2)  # of the largest ‖M‖²/‖L‖² of a column
_FIRST = 1e-5  # of them

_CUBIC_NM_PER_UMOL_L = AVOGADRO_PER_MOL * 1e-6 / 1e24


# --- what a bin scatters ---------------------------------------------------------------------------------------------


def radius_grid(smallest_nm: float, largest_nm: float, bins: int = 161, spacing: str = "linear") -> Floats:
    """Radii (bins,) in nm from smallest to largest, "linear" or "geometric". Raises BadInput for other requests."""
    if not 0 < smallest_nm < largest_nm < math.inf:
        raise BadInput(
            f"sizes: radii must be two increasing positive numbers in nm, not {smallest_nm:g}, {largest_nm:g}"
        )
    if bins < 3:
        raise BadInput(f"sizes: {bins} bins are no distribution; give at least 3")
    if spacing not in ("geometric", "linear"):
        raise BadInput(f"sizes: radii are spaced geometric or linear, not {spacing}")
    space = np.geomspace if spacing == "geometric" else np.linspace
    return np.asarray(space(smallest_nm, largest_nm, bins))


def kernel(q_nm: Floats, radius_nm: Floats, factor: float) -> Floats:
    """K(q, R) (m, k): I in 1/mm of spheres of radius R with volume fraction 1, A P(q, R)/(V N_A).

    factor A: `formfactors.intensity_factor`, in 1/mm per µmol/L and nm⁶.
    """
    volume = 4 * math.pi / 3 * radius_nm**3
    return np.asarray((factor / _CUBIC_NM_PER_UMOL_L) * (sphere(q_nm, radius_nm) / volume[:, None]).T)


def repetitions() -> Floats:
    """Standard normal deviates (DRAWS, k), orthogonal: mean 0 and covariance 1 exactly; the same wherever asked for."""
    square = np.random.default_rng(1).standard_normal((_RANK, _RANK))
    directions, triangle = np.linalg.qr(square)
    directions *= np.sign(np.diagonal(triangle)) * math.sqrt(_RANK * (DRAWS - 1) / DRAWS)
    return np.concatenate([directions, -directions])


# --- one frame -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Problem:
    """What all frames share: q (m,), radii and bin widths (k,), g (k,), K·g = basis @ rows, 1/mm; φ → φ″ (k, k)."""

    q_nm: Floats
    radius_nm: Floats
    bin_nm: Floats
    scale: Floats
    factor: float
    basis: Floats
    rows: Floats
    normals: Floats
    bend: Floats
    minimise: Minimiser | None


def set_up(q: Floats, radius: Floats, factor: float, minimise: Minimiser | None = None) -> Problem:
    """The problem for q (m,) and radii (k,) in 1/nm and nm; factor as in `kernel`."""
    width = np.gradient(radius)
    scale = radius**_POWER * np.sqrt(width)
    left, values, right = np.linalg.svd(kernel(q, radius, factor) * scale, full_matrices=False)
    k = int((values > 0.1 * _CUT * values[0]).sum())
    basis, rows = np.ascontiguousarray(left[:, :k]), values[:k, None] * right[:k]
    return Problem(
        q, radius, width, scale, factor, basis, rows, repetitions(), _second_derivative(radius) / width, minimise
    )


def _second_derivative(radius: Floats) -> Floats:
    """(k, k): second derivative of a density (k,), with zeros beyond the ends, times √ΔR: its squares add up to ∫."""
    step = np.diff(radius)
    before, after = np.concatenate([step[:1], step]), np.concatenate([step, step[-1:]])
    middle = np.diag(-2 / (before * after))
    middle += np.diag((2 / (before * (before + after)))[1:], -1) + np.diag((2 / (after * (before + after)))[:-1], 1)
    return np.asarray(middle * np.sqrt(np.gradient(radius))[:, None])


class Frame:
    """One curve in units of its errors, freed of what a constant background can describe, in at most 25 coordinates.

    Later coordinates belong to details of φ that are 1e-13 of the curve or less.
    """

    def __init__(self, problem: Problem, intensity: Floats, weight: Floats) -> None:
        self.problem, self.weight = problem, weight
        self.norm = float(np.linalg.norm(weight))
        self.constant = weight / self.norm
        left, triangle = np.linalg.qr(self._freed(problem.basis * weight[:, None]))
        inner, values, right = np.linalg.svd(triangle @ problem.rows, full_matrices=False)
        k = min(_RANK, int((values > _CUT * values[0]).sum()))
        self.turn = left @ inner[:, :k]
        self.matrix = values[:k, None] * right[:k] / problem.scale
        self.sharp = NonNegative(self.matrix, np.diag(1 / problem.scale), problem.minimise)
        self.smooth = NonNegative(self.matrix, problem.bend, problem.minimise)
        self.level = float(self.constant @ (intensity * weight))
        white = self._freed(intensity * weight)
        self.data = self.turn.T @ white
        self.rest = float(white @ white - self.data @ self.data)

    def _freed(self, columns: Floats) -> Floats:
        return np.asarray(columns - np.multiply.outer(self.constant, self.constant @ columns))

    def seen(self, radius_nm: Floats, fraction: Floats) -> tuple[Floats, float]:
        """Curve of volume fractions at any radii: coordinates (k,), and its share of the constant."""
        white = (kernel(self.problem.q_nm, radius_nm, self.problem.factor) @ fraction) * self.weight
        return self.turn.T @ self._freed(white), float(self.constant @ white)

    def misfit(self, fraction: Floats, curve: Floats) -> float:
        """χ² of volume fractions (bins,) against a curve (k,)."""
        residual = self.matrix @ fraction - curve
        return float(residual @ residual)


class Size(NamedTuple):
    """A single size: its place on the grid, its curve (k,) at the frame's signal, and the frame's signal over noise."""

    place: int
    curve: Floats
    signal: float


def single_size(frame: Frame) -> Size:
    """The single size that describes the curve best; a weak frame's is given the signal that is just not weak."""
    along = frame.matrix.T @ frame.data
    length = np.sqrt((frame.matrix**2).sum(axis=0))
    signal = along / length
    place = int(np.argmax(signal))
    curve = frame.matrix[:, place] * (max(float(signal[place]), WEAK) / length[place])
    return Size(place, curve, float(signal[place]))


def _with_misfit(
    problem: NonNegative, curve: Floats, excess: float, base: float = 0.0, near: Floats | None = None
) -> tuple[float, Floats]:
    """α and fractions (bins,) with which χ² of a curve (k,) is base + excess, the latter within `_NEAR`; in log α."""
    fit, smooth = ((m**2).sum(axis=0) for m in (problem.matrix, problem.penalty))
    below, above = (math.log10(float((fit / smooth).max()) * limit) for limit in _STRENGTHS)
    place, known = math.log10(float((fit / smooth).max()) * _FIRST), [False, False]
    while True:
        x = problem.solve(10**place, curve, near)
        residual = problem.matrix @ x - curve
        lack = math.log10(max(float(residual @ residual) - base, 1e-30) / excess)
        if abs(lack) < math.log10(_NEAR) or above - below < 0.02:
            return 10**place, x
        known[lack > 0], near = True, x
        below, above = (below, place) if lack > 0 else (place, above)
        inside = place - min(max(1.1 * lack, -4.0), 4.0)  # the misfit is about proportional to α
        place = inside if not all(known) and below < inside < above else (below + above) / 2


def smoothest(frame: Frame, curve: Floats, near: Floats, least: float = 0.0) -> Floats:
    """Fractions (bins,) of least ∫φ″² whose χ² to a curve (k,) is `least`, 0 without noise, and _TOLERATED more.

    near (bins,): a similar distribution.
    """
    return _with_misfit(frame.smooth, curve, _TOLERATED, least, near)[1]


def smoothest_error(frame: Frame, curve: Floats, near: Floats, least: float) -> Floats:
    """Standard error (bins,) of `smoothest` (Wahba 1983): from noise, and from features that smoothing takes away.

    How rough the truth may be is told by the α at which χ² is _ALLOWED more than `least`.
    """
    strength, fraction = _with_misfit(frame.smooth, curve, _ALLOWED, least, near)
    rows = np.concatenate([frame.matrix, math.sqrt(strength) * frame.problem.bend])
    filled = fraction > 0
    orthogonal, triangle = np.linalg.qr(rows[:, filled])
    free = np.linalg.norm(rows - orthogonal @ (orthogonal.T @ rows), axis=0)  # an empty bin, if it were filled
    inverse = solve_triangular(triangle, np.eye(len(triangle)))
    free[filled] = 1 / np.linalg.norm(inverse, axis=1)
    return np.asarray(1 / free)


def _groups(fraction: Floats) -> list[slice]:
    """Uninterrupted runs of bins with particles."""
    filled = np.concatenate([[0], (fraction > 1e-9 * fraction.max()).astype(int), [0]])
    edges = np.flatnonzero(np.diff(filled))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _needed(frame: Frame, strength: float, fraction: Floats) -> list[slice]:
    """The groups without which the minimised sum would be higher by _SIGNIFICANT; the strongest one in any case."""
    groups = _groups(fraction)
    signals = [float(np.sum((frame.matrix[:, group] @ fraction[group]) ** 2)) for group in groups]
    lowest = _sum(frame, strength, fraction)
    needed = []
    for group, signal in zip(groups, signals, strict=True):
        if signal < max(signals):
            if signal < _SIGNIFICANT:
                continue
            without = frame.matrix.copy()
            without[:, group] = 0.0
            other = NonNegative(without, frame.sharp.penalty).solve(strength, frame.data, fraction)
            if _sum(frame, strength, other) - lowest < _SIGNIFICANT:
                continue
        needed.append(group)
    return needed


def _sum(frame: Frame, strength: float, fraction: Floats) -> float:
    return frame.misfit(fraction, frame.data) + strength * float(((frame.sharp.penalty @ fraction) ** 2).sum())


def about(frame: Frame, radius_nm: list[Floats]) -> NonNegative:
    """The sharp problem with particles only within _REACH of these groups of radii."""
    radius = frame.problem.radius_nm
    inside = np.zeros(radius.size, dtype=np.bool_)
    for group in radius_nm:
        inside |= (radius > group[0] / _REACH) & (radius < group[-1] * _REACH)
    return NonNegative(np.where(inside, frame.matrix, 0.0), frame.sharp.penalty, frame.problem.minimise)


class Solution(NamedTuple):
    """α, the frame's fractions (bins,), their needed groups, and those of a single size at this α."""

    strength: float
    fraction: Floats
    groups: list[slice]
    single: Floats


def solve(frame: Frame, size: Size) -> Solution:
    """The sharp distribution. With several groups α is chosen again, so that each of them could be a single size."""
    p = frame.problem
    strength, single = _with_misfit(frame.sharp, size.curve, _MISFIT)
    fraction = frame.sharp.solve(strength, frame.data, single)
    groups = _needed(frame, strength, fraction)
    if len(groups) > 1:
        volumes = np.array([fraction[g].sum() for g in groups])
        radii = [fraction[g] @ p.radius_nm[g] / fraction[g].sum() for g in groups]
        places = [int(np.argmin(np.abs(p.radius_nm - radius))) for radius in radii]
        strength, _ = _with_misfit(frame.sharp, frame.matrix[:, places] @ volumes, _MISFIT)
        fraction = frame.sharp.solve(strength, frame.data, fraction)
        single = frame.sharp.solve(strength, size.curve, single)
        groups = _needed(frame, strength, fraction)
    return Solution(strength, fraction, groups, single)
