"""Fits of a series of Gaussian spheres: ours against what people use today, side by side, one thread, 200 bins.

    python benchmarks/fits.py [FRAMES]

(a) lmfit with the paper's direct sum in steps of 0.02 nm; (b) sasmodels' sphere (80 points, 8 σ) with bumps'
Levenberg–Marquardt; (c) lmfit with a kernel matrix made beforehand; (d) scipy's least_squares with our closed form and
its derivatives; and two populations, against lmfit with two direct sums. All are weighted by 1/σ and start at the same
values, a good guess, where ours searches for its own. The peers fit every so-many-th frame, times are per frame.
"""

from __future__ import annotations

import json
import os
import sys
import time

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "SAS_OPENCL": "none"}

import numpy as np

from saxs_pipeline.model_spec import Population
from saxs_pipeline.science.batchfit import fit_frames
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.science.formfactors import gaussian_spheres, intensity_factor, sphere

PROMISED = {
    "lmfit_direct": 300,
    "sasmodels_bumps": 80,
    "lmfit_kernel": 15,
    "scipy_closed_form": 6,
    "two_populations_lmfit": 300,
}
Q = np.linspace(0.1, 5.0, 200)
CONTRAST = 35.2e-6
FACTOR = intensity_factor(CONTRAST)
STEP_NM = 0.02
RADII = np.arange(STEP_NM, 6.0, STEP_NM)
START = {"c": 15.0, "r": 2.0, "sigma": 0.2, "b": 0.0}
ONE = CurveModel((Population(FACTOR, (0.5, 5.0), (0.02, 0.6)),))
TWO = CurveModel(
    (
        Population(FACTOR, (1.8, 5.0), (0.05, 0.8), "crystals"),
        Population(FACTOR, (0.8, 1.8), (0.03, 0.5), "agglomerates"),
    )
)
START_TWO = {"c1": 10.0, "r1": 2.6, "sigma1": 0.3, "c2": 200.0, "r2": 1.4, "sigma2": 0.2, "b": 0.0}


def noisy(curves: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    sigma = 1e-3 * np.sqrt(0.02 + 50 * curves)
    return curves + np.random.default_rng(seed).normal(size=curves.shape) * sigma, sigma


def series(frames: int) -> tuple[np.ndarray, np.ndarray]:
    """The paper's growth: r 1.5 → 2.22 nm, σ_r 0.18 → 0.13 nm, c up to 25 µmol/L."""
    share = np.linspace(0.02, 1, frames)
    c, r, sigma = 25 * (1 - np.exp(-4 * share)), 1.5 + 0.72 * share, 0.18 - 0.05 * share
    return noisy(FACTOR * c[:, None] * gaussian_spheres(Q, r, sigma**2)[0], 1)


def two_series(frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Agglomerates of 3.0 nm that are consumed, crystals that grow from 4.4 to 7.4 nm in diameter."""
    share = np.linspace(0.1, 0.9, frames)
    crystals = (20 * share)[:, None] * gaussian_spheres(Q, 2.2 + 1.5 * share, np.full(frames, 0.09))[0]
    others = (300 * (1 - share))[:, None] * gaussian_spheres(Q, np.full(frames, 1.5), np.full(frames, 0.0225))[0]
    return noisy(FACTOR * (crystals + others), 2)


def direct(r, sigma):
    """The paper's sum: every form factor at every q is calculated anew."""
    weight = np.exp(-0.5 * ((RADII - r) / sigma) ** 2)
    return FACTOR * (weight[:, None] * sphere(Q, RADII)).sum(axis=0) / weight.sum()


KERNEL = sphere(Q, RADII)


def by_kernel(r, sigma):
    weight = np.exp(-0.5 * ((RADII - r) / sigma) ** 2)
    return FACTOR * (weight / weight.sum()) @ KERNEL


def lmfit_one(y, e, form):
    import lmfit

    parameters = lmfit.Parameters()
    for name, value in START.items():
        parameters.add(name, value=value, min=0.3 if name == "r" else (0.02 if name == "sigma" else -np.inf))

    def residual(p):
        return (p["c"].value * form(p["r"].value, p["sigma"].value) + p["b"].value - y) / e

    return lmfit.minimize(residual, parameters, scale_covar=False).params["r"].value


def lmfit_two(y, e, form):
    import lmfit

    parameters = lmfit.Parameters()
    lowest = {"r1": 1.8, "r2": 0.8, "sigma1": 0.05, "sigma2": 0.03}
    for name, value in START_TWO.items():
        parameters.add(name, value=value, min=lowest.get(name, -np.inf), max=1.8 if name == "r2" else np.inf)

    def residual(p):
        v = p.valuesdict()
        return (v["c1"] * form(v["r1"], v["sigma1"]) + v["c2"] * form(v["r2"], v["sigma2"]) + v["b"] - y) / e

    return lmfit.minimize(residual, parameters, scale_covar=False).params["r1"].value


def scipy_one(y, e):
    from scipy.optimize import least_squares

    def residual(p):
        return (FACTOR * p[0] * gaussian_spheres(Q, p[1:2], p[2:3])[0][0] + p[3] - y) / e

    def jacobian(p):
        value, by_radius, by_variance = (part[0] for part in gaussian_spheres(Q, p[1:2], p[2:3]))
        columns = [FACTOR * value, FACTOR * p[0] * by_radius, FACTOR * p[0] * by_variance, np.ones_like(Q)]
        return np.stack(columns, axis=-1) / e[:, None]

    start = [START["c"], START["r"], START["sigma"] ** 2, 0.0]
    return least_squares(residual, start, jac=jacobian, x_scale="jac", method="lm").x[1]


def bumps_fit():
    """sasmodels + bumps as in their manual: Experiment, FitProblem, fit."""
    from bumps.fitters import fit
    from bumps.names import FitProblem
    from sasmodels.bumps_model import Experiment, Model
    from sasmodels.core import load_model
    from sasmodels.data import Data1D

    kernel = load_model("sphere", dtype="double!")

    def one(y, e):
        data = Data1D(Q / 10, 10 * y, dx=None, dy=10 * e)  # 1/Å, 1/cm
        model = Model(kernel, sld=40.7, sld_solvent=5.5, radius=10 * START["r"], radius_pd=START["sigma"] / START["r"])
        model.radius_pd_n.value, model.radius_pd_nsigma.value = 80, 8
        model.scale.value, model.background.value = 6e-4, 1e-4
        model.scale.range(0, 1)
        model.background.range(-1, 1)
        model.radius.range(3, 60)
        model.radius_pd.range(0.01, 0.5)
        problem = FitProblem(Experiment(data=data, model=model))
        fit(problem, method="lm", verbose=False)
        return model.radius.value / 10

    return one


def milliseconds(run, repeats: int = 3) -> float:
    """Shortest processor time."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return 1e3 * min(found)


def peer(run, y, e, every: int, truth, errors, name: str) -> float:
    """ms per frame of a peer over each every-th frame; it must agree with ours, or the comparison says nothing."""
    rows = range(every // 2, len(y), every)
    radii = []
    once = milliseconds(lambda: radii.extend(run(y[k], e[k]) for k in rows), repeats=1) / len(rows)
    off = np.median(np.abs((np.array(radii) - truth[list(rows)]) / errors[list(rows)]))
    print(f"  {name:24s} {once:9.3f} ms per frame; median |r - ours| = {off:.1e} standard errors", flush=True)
    return once


def main() -> None:
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else 575
    y, e = series(frames)
    ours = milliseconds(lambda: fit_frames(Q, y, e, ONE)) / frames
    fit = fit_frames(Q, y, e, ONE)
    print(f"{frames} frames, {len(Q)} bins: ours {ours:.4f} ms per frame, {fit.converged.mean():.1%} converged")
    r, error = fit.values[:, 1], np.sqrt(fit.covariance[:, 1, 1])
    times = {
        "scipy_closed_form": peer(scipy_one, y, e, 5, r, error, "scipy_closed_form"),
        "lmfit_kernel": peer(lambda a, b: lmfit_one(a, b, by_kernel), y, e, 10, r, error, "lmfit_kernel"),
        "lmfit_direct": peer(lambda a, b: lmfit_one(a, b, direct), y, e, 50, r, error, "lmfit_direct"),
        "sasmodels_bumps": peer(bumps_fit(), y, e, 50, r, error, "sasmodels_bumps"),
    }
    ratios = {name: round(value / ours, 1) for name, value in times.items()}
    y, e = two_series(frames)
    ours_two = milliseconds(lambda: fit_frames(Q, y, e, TWO)) / frames
    fit = fit_frames(Q, y, e, TWO)
    print(f"two populations: ours {ours_two:.4f} ms per frame, {fit.converged.mean():.1%} converged")
    r, error = fit.values[:, 1], np.sqrt(fit.covariance[:, 1, 1])
    two = peer(lambda a, b: lmfit_two(a, b, direct), y, e, 50, r, error, "two_populations_lmfit")
    ratios["two_populations_lmfit"] = round(two / ours_two, 1)
    print(json.dumps({"ratios": ratios, "ours_ms": round(ours, 4), "ours_two_ms": round(ours_two, 4)}))
    short = {name: value for name, value in ratios.items() if value < PROMISED[name]}
    if short:
        sys.exit(f"below what is promised: {short}")


if __name__ == "__main__":
    main()
