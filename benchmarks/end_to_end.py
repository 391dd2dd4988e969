"""The whole job, raw frames → series table, against the script a beamline user would write, as whole processes.

    python benchmarks/end_to_end.py [REPEATS] [FRAMES]

Figures, report and exports are timed apart. Ends with one line of JSON; ratio = peer's time / ours.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from saxs_pipeline.simulation import simulate

HERE = Path(__file__).parent

OURS = """
import json, resource, sys, time
from pathlib import Path
from saxs_pipeline import runfile
from saxs_pipeline.apps import batch
from saxs_pipeline.outputs import tables
timings = {}
start = time.perf_counter()
run = runfile.load(Path(sys.argv[1]))
timings["run file"] = time.perf_counter() - start
import pyFAI.integrator.azimuthal, h5py, hdf5plugin, dask.threaded
timings["imports"] = time.perf_counter() - start - timings["run file"]
imports = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = batch.compute(run, quiet=True, timings=timings)
tables.write_series(result, Path(sys.argv[2]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if len(sys.argv) > 3:
    batch.write(result, run, timings=timings)
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mib = {"peak_mib": (peak - imports) / 1024, "with_outputs_mib": (whole - imports) / 1024}
    print(json.dumps({"timings": timings, **mib}))
"""


def timed(*command: object) -> tuple[float, str]:
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=True)
    return time.perf_counter() - start, done.stdout


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    frames = int(sys.argv[2]) if len(sys.argv) > 2 else 575
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "beamtime"
        run_file = simulate("id02-cdse", folder, frames=frames)
        ours_py = Path(work) / "ours.py"
        ours_py.write_text(OURS, encoding="utf-8")
        ours, naive = [], []
        for _ in range(repeats):
            ours.append(timed(ours_py, run_file, Path(work) / "ours.csv")[0])
            naive.append(timed(HERE / "naive_script.py", folder, Path(work) / "naive.csv")[0])
            print(f"ours {ours[-1]:6.2f} s   naive script {naive[-1]:6.2f} s", flush=True)
        details = json.loads(timed(ours_py, run_file, Path(work) / "ours.csv", "with outputs")[1].splitlines()[-1])
        agreement = compare(Path(work) / "ours.csv", Path(work) / "naive.csv")
    outputs = sum(details["timings"][name] for name in ("export", "figures", "report"))
    for name, seconds in details["timings"].items():
        print(f"  {name:<9} {seconds:6.2f} s")
    print(
        f"outputs {outputs:.1f} s; peak memory above imports {details['peak_mib']:.0f} MiB, with outputs "
        f"{details['with_outputs_mib']:.0f} MiB; largest difference of r {agreement:.2g} standard errors"
    )
    ratio = statistics.median(naive) / statistics.median(ours)
    summary = {
        "name": "end_to_end",
        "ratios": {"naive_script": round(ratio, 2)},
        "frames": frames,
        "seconds": {"ours": statistics.median(ours), "naive_script": statistics.median(naive), "outputs": outputs},
        "peak_mib_above_imports": details["peak_mib"],
        "largest_difference_of_r_in_standard_errors": agreement,
    }
    print(json.dumps(summary))


def compare(ours: Path, naive: Path) -> float:
    """Largest |difference| of r in standard errors over the frames for which both report one."""
    import csv

    with naive.open(newline="") as file:
        theirs = {int(row[0]): float(row[4]) for row in csv.reader(file)}
    with ours.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["flag"] == "ok"]
    return max(abs(float(row["r_nm"]) - theirs[int(row["frame"])]) / float(row["r_nm_err"]) for row in rows)


if __name__ == "__main__":
    main()
