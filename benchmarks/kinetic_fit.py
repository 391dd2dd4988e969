"""Does the joint fit of the kinetic model give back the truth? {A, γ, n, k₁} from noisy series, starts off by ×3.

    OMP_NUM_THREADS=1 python benchmarks/kinetic_fit.py [SEEDS] [FRAMES] [FIRST_SEED]

Truth: configs/kinetics-calibrated.yaml with n = 2. Every series has c, r and σ_r² of FRAMES frames at log-spaced times,
with the covariance that the fit of one 75 ms frame has on a flux like ID02's, and one error of 2 % of all c. Starts:
A, γ and k₁ each off by a random factor between 1/3 and 3, n between 0 and 4.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from saxs_pipeline import runfile
from saxs_pipeline.science.formfactors import gaussian_spheres, intensity_factor
from saxs_pipeline.science.population import at, simulate
from saxs_pipeline.stages.kinetic_fit import fit_model
from saxs_pipeline.stages.kinetic_problem import Measured

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "kinetics-calibrated.yaml"
NAMES = ("A", "gamma", "n", "k1")
SCALE_REL = 0.02
FACTOR = intensity_factor(35.2e-6)
Q = np.linspace(0.15, 5.0, 200)


def frame_covariances(values: np.ndarray) -> np.ndarray:
    """Covariance (k, 3, 3) of (c, r, s) of single frames: inverse Fisher information, the constant background free."""
    c, radius, variance = values.T
    form, by_radius, by_variance = gaussian_spheres(Q, radius, variance)
    sigma = 1.5e-4 * np.sqrt(1 + FACTOR * c[:, None] * form / 7e-3)
    columns = np.stack(
        [FACTOR * form, FACTOR * c[:, None] * by_radius, FACTOR * c[:, None] * by_variance, np.ones_like(form)], axis=1
    )
    return np.linalg.inv(np.einsum("nam,nbm->nab", columns / sigma[:, None], columns / sigma[:, None]))[:, :3, :3]


def series(model: runfile.KineticModel, frames: int, rng: np.random.Generator) -> Measured:
    """A noisy series of those frames whose concentration is at least five standard errors."""
    times = np.geomspace(1.0, model.end_s, frames)
    crystals = at(simulate(model.synthesis(), model.end_s), times).all
    truth = np.stack([crystals.c_umol_L, crystals.radius_nm, crystals.sigma_nm**2], axis=1)
    some = truth[:, 0] > 0.05
    covariance = frame_covariances(truth[some])
    clear = truth[some, 0] > 5 * np.sqrt(covariance[:, 0, 0])
    truth, covariance = truth[some][clear], covariance[clear]
    noisy = truth + np.einsum("nij,nj->ni", np.linalg.cholesky(covariance), rng.standard_normal(truth.shape))
    # an error of the absolute scale multiplies I(q) and its σ, hence c with its errors
    scaling = np.array([1 + SCALE_REL * rng.standard_normal(), 1, 1])
    noisy, covariance = noisy * scaling, covariance * scaling * scaling[:, None]
    joint = np.zeros((len(truth), 3, len(truth), 3))
    rows = np.arange(len(truth))
    joint[rows, :, rows, :] = covariance
    return Measured(times[some][clear], noisy, joint.reshape(noisy.size, noisy.size), SCALE_REL)


def start(model: runfile.KineticModel, rng: np.random.Generator) -> runfile.KineticModel:
    """The model with starts off by a factor of up to three."""
    off = 3.0 ** rng.uniform(-1, 1, 3)
    changes = {name: model.value(name) * factor for name, factor in zip(("A", "gamma", "k1"), off, strict=True)}
    return model.model_copy(update=changes | {"n": float(rng.uniform(0, 4))})


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    frames = int(sys.argv[2]) if len(sys.argv) > 2 else 150
    first = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    model = runfile.load_model(CONFIG, ["n=2"]).config
    truth = np.array([model.value(name) for name in NAMES])
    pulls, seconds, evaluations, failed, chi2 = [], [], [], [], []
    for seed in range(first, first + seeds):
        rng = np.random.default_rng(seed)
        measured = series(model, frames, rng)
        begin = start(model, rng)
        before = time.process_time()
        fit = fit_model(measured, begin, NAMES)
        seconds.append(time.process_time() - before)
        pull = (fit.values - truth) / np.sqrt(np.diagonal(fit.covariance))
        right = fit.converged and np.abs(pull).max() < 6
        if not right:
            failed.append(seed)
        pulls.append(pull)
        evaluations.append(fit.evaluations)
        chi2.append(fit.chi2 / fit.degrees)
        cells = " ".join(f"{name} {p:+6.2f}" for name, p in zip(NAMES, pull, strict=True))
        factors = " ".join(f"{begin.value(name) / model.value(name):4.2f}" for name in ("A", "gamma", "k1"))
        print(
            f"{seed:4d}  start x {factors}, n {begin.value('n'):4.2f}  pulls {cells}  chi2 {chi2[-1]:.3f}  "
            f"{evaluations[-1]:3d} simulations {seconds[-1]:5.2f} s {'' if right else 'WRONG ' + fit.message}",
            flush=True,
        )
    report(np.array(pulls), np.array(seconds), failed, np.array(chi2))


def report(pulls: np.ndarray, seconds: np.ndarray, failed: list[int], chi2: np.ndarray) -> None:
    inside = (np.abs(pulls) < 2).mean(axis=0)
    for name, share, mean, std in zip(NAMES, inside, pulls.mean(axis=0), pulls.std(axis=0), strict=True):
        print(f"{name:>6}: inside 2σ {100 * share:5.1f} %   pulls {mean:+.2f} ± {std:.2f}")
    print(f"χ²_red {chi2.mean():.3f}; {seconds.mean():.2f} s of CPU per fit, at most {seconds.max():.2f} s")
    print(f"seeds that failed: {failed or 'none'}")
    criteria = {
        "all converge": not failed,
        "truth inside 2σ in ≥ 93 %": bool((inside >= 0.93).all()),
        "≤ 10 s of one core each": bool(seconds.max() <= 10),
    }
    for text, passed in criteria.items():
        print(f"{'pass' if passed else 'FAIL'}  {text}")
    coverage = dict(zip(NAMES, inside.tolist(), strict=True))
    print(json.dumps({"name": "kinetic_fit", "coverage": coverage, "seconds": seconds.mean(), "criteria": criteria}))
    sys.exit(0 if all(criteria.values()) else 1)


if __name__ == "__main__":
    main()
