"""Full circle: kinetic model → 575 raw frames → run → compare. Do the fitted parameters contain the truth?

    python benchmarks/circle.py [SEEDS] [FRAMES] [n]

The truth is configs/kinetics-calibrated.yaml (n = 2 unless given); the fit starts from A, γ and k₁ off by up to ×3 or
5 % (γ) and from n = 1, and knows nothing of the truth but T, [M]₀, D, v₀ and P₀.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from saxs_pipeline import runfile, simulation
from saxs_pipeline.apps import batch
from saxs_pipeline.stages.compare import compare

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("A", "gamma", "n", "k1")


def once(seed: int, frames: int, n: float, folder: Path) -> tuple[np.ndarray, float, float]:
    """(value − truth, statistical, systematic) per parameter, (4, 3); χ²_red; seconds of the fit."""
    params = folder / "params.yaml"
    params.write_text((ROOT / "configs/kinetics-calibrated.yaml").read_text().replace("\nn: 2", f"\nn: {n:g}"))
    truth = runfile.load_model(params)
    assert truth.config.n == n
    run = runfile.load(simulation.simulate("id02-cdse", folder / "beamtime", seed=seed, frames=frames, kinetics=truth))
    result = batch.compute(run, quiet=True)
    off = 3 ** np.random.default_rng(seed).uniform(-1, 1, 2)
    start = runfile.load_model(
        params, (f"A={truth.config.A * off[0]:.6g}", f"k1={truth.config.k1 * off[1]:.6g}", "gamma=0.19", "n=1")
    )
    begin = time.perf_counter()
    found = compare(result, start.config, NAMES)
    seconds = time.perf_counter() - begin
    by_symbol = {p.symbol: p for p in found.parameters}
    rows = [(p.value - truth.config.value(p.symbol), p.statistical, p.systematic) for p in map(by_symbol.get, NAMES)]
    return np.array(rows), found.chi2_red, seconds


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    frames = int(sys.argv[2]) if len(sys.argv) > 2 else 575
    n = float(sys.argv[3]) if len(sys.argv) > 3 else 2.0
    pulls = []
    print(f"{'seed':>4} {'chi2_red':>8} {'fit s':>6}  " + "  ".join(f"{name:^30}" for name in NAMES))
    for seed in range(1, seeds + 1):
        with tempfile.TemporaryDirectory() as folder:
            rows, chi2_red, seconds = once(seed, frames, n, Path(folder))
        total = np.hypot(rows[:, 1], rows[:, 2])
        pulls.append(rows[:, 0] / total)
        cells = "  ".join(f"{d:+.2e} ± {e:.1e} ({d / e:+.2f}σ)" for d, e in zip(rows[:, 0], total, strict=True))
        print(f"{seed:4d} {chi2_red:8.3f} {seconds:6.1f}  {cells}", flush=True)
    all_pulls = np.array(pulls)
    print(f"pulls: mean {np.round(all_pulls.mean(0), 2)}, rms {np.round(np.sqrt((all_pulls**2).mean(0)), 2)}")
    print(f"inside 2σ: {(np.abs(all_pulls) < 2).sum(0)} of {seeds}")


if __name__ == "__main__":
    main()
