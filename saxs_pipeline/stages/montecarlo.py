"""Size distribution of one curve by McSAS3, an independent Monte Carlo method, for comparison with `science.sizes`.

McSAS3 (Bressler, Pauw, Thünemann, J. Appl. Cryst. 48, 962 (2015)) describes a curve by k spheres of equal volume
fraction and a constant. One after the other gets a random radius, which is kept if χ² falls, until χ² is low enough.
Radii, moves and form factor are McSAS3's. Scale and constant, two linear parameters, are solved exactly here: McSAS3
searches for the same minimum numerically in every move, which takes more than nine tenths of its time. (A repetition
of 300 spheres ended at the same mean and χ² after the same 7629 moves, in 2.4 s in place of 60 s.)
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

from saxs_pipeline.science.formfactors import intensity_factor
from saxs_pipeline.size_distribution import MonteCarlo, SizeDistributions
from saxs_pipeline.types import BadInput, Curves, Floats

MOST_MOVES = 100_000
"""McSAS3's own limit."""
_PER_M = 1e3  # 1/mm in McSAS3's unit
_FRACTION = 1e-5  # of McSAS3's scale: lengths in nm where it has Å, 1/m where it has 1/cm


def check_installed() -> None:
    """Raise BadInput where mcsas3 is not installed."""
    if importlib.util.find_spec("mcsas3") is None:
        raise BadInput('cross-check needs the package mcsas3; say: pip install "saxs-pipeline[montecarlo]"')


def monte_carlo(
    curve: Curves,
    sizes: SizeDistributions,
    *,
    repetitions: int,
    contributions: int,
    advance: Callable[[int], None] = lambda done: None,
) -> MonteCarlo:
    """McSAS3's fit of a curve (one row) on the q and the radii of its distribution (one row); `advance`d by each.

    Repetition k has the seed k: the same curve gives the same radii. McSAS3 stops at χ² per point 1, or, where the
    distribution has a higher reduced χ² than that, at this. Raises BadInput where mcsas3 is not installed.
    """
    check_installed()
    use = (curve.q_nm >= sizes.q_min) & (curve.q_nm <= sizes.q_max) & (curve.q_nm > 0)
    use &= np.isfinite(curve.intensity[0]) & (curve.sigma[0] > 0)
    data = {"Q": [curve.q_nm[use]], "I": _PER_M * curve.intensity[0, use], "ISigma": _PER_M * curve.sigma[0, use]}
    target = max(1.0, float(sizes.value("chi2_red")[0]))
    model: dict[str, Any] = {
        "modelName": "mcsas_sphere",
        "nContrib": contributions,
        "fitParameterLimits": {"radius": [float(sizes.radius_nm[0]), float(sizes.radius_nm[-1])]},
        "staticParameters": {"sld": 1e6 * math.sqrt(sizes.factor / intensity_factor(1.0)), "sld_solvent": 0.0},
    }
    start, rows = time.perf_counter(), []
    for seed in range(repetitions):
        rows.append(_repetition(data, {**model, "seed": seed}, target))
        advance(1)
    radius, scale, constant, chi2, moves = (np.array(column) for column in zip(*rows, strict=True))
    return MonteCarlo(
        radius_nm=radius,
        fraction=_FRACTION * scale,
        background=constant / _PER_M,
        chi2=chi2,
        moves=moves,
        target=target,
        points=int(use.sum()),
        seconds=time.perf_counter() - start,
        version=version("mcsas3"),
    )


def _repetition(
    data: dict[str, Any], settings: dict[str, Any], target: float
) -> tuple[Floats, float, float, float, int]:
    """Radii (k,) in nm, scale, constant, χ² per point and number of moves, in McSAS3's units."""
    from mcsas3.mc_core import McCore
    from mcsas3.mc_model import McModel
    from mcsas3.mc_opt import McOpt

    with contextlib.redirect_stdout(io.StringIO()):  # it tells every 1000 moves
        model, found = McModel(**settings), McOpt(convCrit=target, maxIter=MOST_MOVES)
        core = McCore(data, model=model, opt=found)
        core._OSB = ScaleAndConstant(data["I"], data["ISigma"])
        core.optimize()
    radius = model.parameterSet["radius"].to_numpy(dtype=np.float64)
    return radius, float(found.x0[0]), float(found.x0[1]), float(found.gof), int(found.step)


class ScaleAndConstant:
    """Weighted least squares of measured ≈ scale · model + constant, scale ≥ 0: what McSAS3 asks in every move."""

    def __init__(self, measured: Floats, sigma: Floats) -> None:
        self.weight = 1 / sigma
        self.norm = float(self.weight @ self.weight)
        self.mean = float(self.weight @ (measured * self.weight)) / self.norm
        self.white = (measured - self.mean) * self.weight

    def match(self, model: Floats, start: object = None) -> tuple[Floats, float]:
        """(scale, constant) and χ² per point for a model curve (m,); it needs no start."""
        white = model * self.weight
        mean = float(self.weight @ white) / self.norm
        white = white - mean * self.weight
        scale = max(float(white @ self.white) / float(white @ white), 0.0)
        rest = self.white - scale * white
        return np.array([scale, self.mean - scale * mean]), float(rest @ rest) / rest.size
