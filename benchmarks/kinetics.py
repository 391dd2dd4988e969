"""Cohorts against a fixed grid: σ_r and time of one simulation, published parameters, n = 0, 2, 4, one core.

    python benchmarks/kinetics.py [ELEMENTS]

The grid has 502 elements from 0 to 4 nm, the paper's number, with plain upwind fluxes (LSODA steps with a banded
Jacobian) and Koren-limited ones (explicit third-order SSP steps at 0.8 cells), each with the steps that are faster for
it. The converged answer is extrapolated from cohorts at η = 0.0125 and 0.00625.
"""

from __future__ import annotations

import json
import os
import sys
import time

os.environ["OPENBLAS_NUM_THREADS"] = "1"

from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from saxs_pipeline.science.conversion import FirstOrder
from saxs_pipeline.science.kinetics import Superfocusing, Synthesis
from saxs_pipeline.science.population import ETA, simulate
from tests.science import finite_volume

END_S = 2275.8
ALLOWED_S, ALLOWED_ERROR = 0.3, 5e-3


def published(n: float) -> Synthesis:
    return Synthesis(
        monomer_volume_m3=5.59e-29,
        surface_energy_J_m2=0.2,
        solubility_mol_m3=1e-7,
        diffusion_m2_s=5e-10,
        adsorption=Superfocusing(1 / 22, n),
        conversion=FirstOrder(4e-3, ((0.0, 27.0),)),
    )


def sigma(synthesis: Synthesis, eta: float) -> float:
    return float(simulate(synthesis, END_S, eta=eta).all.sigma_nm[-1])


def timed(run, repeats: int) -> tuple[float, float]:
    """(result, shortest processor time s)."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        result = run()
        seconds.append(time.process_time() - start)
    return result, min(seconds)


def solvers(n: float, elements: int) -> dict:
    s = published(n)
    return {
        "cohorts": (lambda: sigma(s, ETA), 5),
        "upwind": (lambda: finite_volume.develop(s, END_S, elements, "upwind", finite_volume.lsoda)[2], 1),
        "Koren": (lambda: finite_volume.develop(s, END_S, elements, "koren", finite_volume.ssp)[2], 1),
    }


def main() -> None:
    elements = int(sys.argv[1]) if len(sys.argv) > 1 else 502
    print(f"{'n':>2} {'solver':>8} {'σ_r nm':>9} {'error':>10} {'seconds':>8} {'error ratio':>12} {'time ratio':>11}")
    ratios, worst = {}, {"seconds": 0.0, "error": 0.0}
    for n in (0, 2, 4):
        coarse, fine = (sigma(published(n), eta) for eta in (0.0125, 0.00625))
        converged = fine + (fine - coarse) / 3
        found = {name: timed(*job) for name, job in solvers(n, elements).items()}
        error = {name: abs(value / converged - 1) for name, (value, _) in found.items()}
        for name, (value, seconds) in found.items():
            better, faster = error[name] / error["cohorts"], seconds / found["cohorts"][1]
            row = f"{n:>2} {name:>8} {value:9.5f} {value / converged - 1:+10.1e} {seconds:8.3f}"
            print(row + (f" {better:11.0f}× {faster:10.1f}×" if name != "cohorts" else ""), flush=True)
            ratios[f"n={n} {name}"] = {"error": better, "time": faster}
        worst["seconds"] = max(worst["seconds"], found["cohorts"][1])
        worst["error"] = max(worst["error"], error["cohorts"])
    criteria = {
        f"cohorts within {ALLOWED_S} s": bool(worst["seconds"] <= ALLOWED_S),
        f"cohorts' σ_r within {ALLOWED_ERROR:.1%}": bool(worst["error"] <= ALLOWED_ERROR),
    }
    for name, passed in criteria.items():
        print(f"{'pass' if passed else 'FAIL'}  {name}")
    print(
        json.dumps({"name": "kinetics", "elements": elements, "ratios": ratios, "worst": worst, "criteria": criteria})
    )
    sys.exit(0 if all(criteria.values()) else 1)


if __name__ == "__main__":
    main()
