"""Are the errors of the fits honest? Simulated series of one population and of two, fitted as a run does.

    python benchmarks/fit_statistics.py [SERIES] [FRAMES]

200 series of 575 frames with the noise of photon counting; r, σ_r² and c of every frame with c/σ_c > 10 against the
truth: pulls, coverage, χ²_red, share converged, and the scatter over the series against the Cramér–Rao bound. For two
populations a frame counts where both have c/σ_c > 10; the bounds are 1.5 times as wide.
"""

from __future__ import annotations

import json
import os
import sys

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import numpy as np

from saxs_pipeline.model_spec import ModelSpec, Population
from saxs_pipeline.science.batchfit import fit_frames
from saxs_pipeline.science.curvemodel import CurveModel
from saxs_pipeline.science.formfactors import intensity_factor

Q = np.linspace(0.15, 5.0, 200)
FACTOR = intensity_factor(35.2e-6)
ONE = CurveModel.of(ModelSpec((Population(FACTOR, (0.5, 5.0), (0.02, 0.6)),)))
TWO = CurveModel.of(
    ModelSpec(
        (
            Population(FACTOR, (1.8, 5.0), (0.05, 0.8), "crystals"),
            Population(FACTOR, (0.8, 1.8), (0.03, 0.5), "agglomerates"),
        )
    )
)
CLEAR = 10.0


def one_population(frames: int) -> np.ndarray:
    """The paper's growth: r 1.5 → 2.22 nm, σ_r 0.18 → 0.13 nm, c up to 25 µmol/L."""
    share = np.linspace(0.02, 1, frames)
    c, r, sigma = 25 * (1 - np.exp(-4 * share)), 1.5 + 0.72 * np.sqrt(share), 0.18 - 0.05 * share
    return np.stack([c, r, sigma**2, np.full(frames, 2e-3)], axis=1)


def two_populations(frames: int) -> np.ndarray:
    """Agglomerates of 3.0 nm that are consumed, crystals that grow from 4.4 to 7.4 nm in diameter."""
    share, one = np.linspace(0.05, 0.95, frames), np.ones(frames)
    columns = [20 * share, 2.2 + 1.5 * share, 0.09 * one, 2e-3 * one, 300 * (1 - share), 1.5 * one, 0.0225 * one]
    return np.stack(columns, axis=1)


def statistics(model: CurveModel, truth: np.ndarray, series: int) -> dict[str, object]:
    """Pulls of all nonlinear parameters and concentrations, pooled over frames and series."""
    exact = model.curve(Q, truth)
    sigma = np.sqrt((exact + 5e-3) / (3e5 * Q))
    bound = fit_frames(Q, exact, sigma, model)
    errors = np.sqrt(np.einsum("naa->na", bound.covariance))
    concentrations = [model.places(k)[0] for k in range(len(model.populations))]
    clear = bound.converged & (truth[:, concentrations] > CLEAR * errors[:, concentrations]).all(axis=1)
    columns = sorted({*concentrations, *model.nonlinear})
    pulls, chi2, lost, values = [], [], 0, []
    for seed in range(series):
        noise = np.random.default_rng(seed).standard_normal(exact.shape)
        fit = fit_frames(Q, (exact + sigma * noise)[clear], sigma[clear], model)
        lost += np.count_nonzero(~fit.converged)
        own = np.sqrt(np.einsum("naa->na", fit.covariance))
        found = (fit.values - truth[clear]) / own
        pulls.append(np.where(fit.converged[:, None], found, np.nan)[:, columns])
        values.append(np.where(fit.converged[:, None], fit.values, np.nan)[:, columns])
        chi2.append(fit.chi2_red[fit.converged])
    pooled, scatter = np.concatenate(pulls), np.nanstd(np.stack(values), axis=0, ddof=1)
    ratio = scatter / errors[clear][:, columns]
    return {
        "fits": pooled.shape[0],
        "converged": round(1 - lost / pooled.shape[0], 5),
        "pull_mean": dict(zip([model.columns[j] for j in columns], np.nanmean(pooled, axis=0).round(4), strict=True)),
        "pull_std": dict(zip([model.columns[j] for j in columns], np.nanstd(pooled, axis=0).round(4), strict=True)),
        "within_1": round(float(np.nanmean(np.abs(pooled[np.isfinite(pooled)]) < 1)), 4),
        "within_2": round(float(np.nanmean(np.abs(pooled[np.isfinite(pooled)]) < 2)), 4),
        "chi2_red": round(float(np.concatenate(chi2).mean()), 4),
        "std_over_cramer_rao": [round(float(x), 3) for x in (ratio.mean(), *np.percentile(ratio, [2.5, 97.5]))],
        "std_over_cramer_rao_by_column": [round(float(x), 3) for x in np.sqrt((ratio**2).mean(axis=0))],
    }


def main() -> None:
    series = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    frames = int(sys.argv[2]) if len(sys.argv) > 2 else 575
    found = {
        "one": statistics(ONE, one_population(frames), series),
        "two": statistics(TWO, two_populations(frames), series),
    }
    wrong = []
    for name, result in found.items():
        print(name, json.dumps(result, default=float), flush=True)
        wide = 1.0 if name == "one" else 1.5
        checks = {
            "pull mean": max(map(abs, result["pull_mean"].values())) < 0.03 * wide,
            "pull std": all(abs(x - 1) < 0.03 * wide for x in result["pull_std"].values()),
            "68.3 %": abs(result["within_1"] - 0.683) < 0.015 * wide,
            "95.4 %": abs(result["within_2"] - 0.954) < 0.01 * wide,
            "chi2": abs(result["chi2_red"] - 1) < 0.01 * wide,
            "converged": result["converged"] >= 1 - 0.001 * wide,
            "Cramér–Rao": all(abs(x - 1) < 0.05 * wide for x in result["std_over_cramer_rao_by_column"]),
        }
        wrong += [f"{name}: {check}" for check, fine in checks.items() if not fine]
    if wrong:
        sys.exit(f"not as promised: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
