"""Does the whole chain give back the truth? 575 frames from raw pixels to yield, 8 seeds, pulls against truth.csv.

    python benchmarks/accuracy.py [SEEDS] [FRAMES]

Every run also carries four bad frames (all zero, truncated, NaN-poisoned, zero monitor), which must be flagged by name.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
from scipy.stats import chi2 as chi2_law

from saxs_pipeline import runfile
from saxs_pipeline.apps import batch
from saxs_pipeline.simulation import simulate

BAD = {"all_zero": 150, "unreadable": 250, "nan": 350, "monitor_zero": 450}


def spoil(folder: Path) -> None:
    """Make four frames bad: as a float stack, so that one can hold NaN."""
    raw = next(p for p in (folder / "raw").glob("*.h5") if is_sample(p, folder))
    with h5py.File(raw, "r+") as file:
        path = find_stack(file)
        images = file[path][()]
        attributes, parent, name = dict(file[path].attrs), file[path].parent, path.rsplit("/", 1)[1]
        del parent[name]
        data = parent.create_dataset(
            name, data=images.astype(np.float32), chunks=(1, *images.shape[1:]), **hdf5plugin.Bitshuffle(cname="lz4")
        )
        data.attrs.update(attributes)
        data[BAD["all_zero"]] = 0
        poisoned = data[BAD["nan"]]
        poisoned[100:110, 300:320] = np.nan
        data[BAD["nan"]] = poisoned
        mask, chunk = data.id.read_direct_chunk((BAD["unreadable"], 0, 0))
        data.id.write_direct_chunk((BAD["unreadable"], 0, 0), chunk[: len(chunk) // 2], mask)
    with h5py.File(scalers_of(folder), "r+") as file:
        mcs = next(g for g in groups(file) if "HS32C" in g)
        mcs["HS32C"][BAD["monitor_zero"], mcs["HSI1"][()] - 1] = 0


def is_sample(path: Path, folder: Path) -> bool:
    return path.resolve() in runfile.load(folder / "run.yaml").config.data.frames


def scalers_of(folder: Path) -> Path:
    return runfile.load(folder / "run.yaml").config.data.scalers[0]


def groups(node: h5py.Group) -> list[h5py.Group]:
    found = [node]
    for child in node.values():
        if isinstance(child, h5py.Group):
            found += groups(child)
    return found


def find_stack(file: h5py.File) -> str:
    return next(g["data"].name for g in groups(file) if "data" in g and getattr(g["data"], "ndim", 0) == 3)


def table(path: Path) -> dict[str, np.ndarray]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        name: np.array([row[name] for row in rows])
        if name == "flag"
        else np.array([float(row[name] or "nan") for row in rows])
        for name in rows[0]
    }


def one_run(seed: int, frames: int, work: Path) -> dict:
    folder = work / f"seed{seed}"
    simulate("id02-cdse", folder, seed=seed, frames=frames)
    if frames > max(BAD.values()):
        spoil(folder)
    start = time.perf_counter()
    loaded = runfile.load(folder / "run.yaml")
    result = batch.compute(loaded, quiet=True)
    batch.write(result, loaded)
    seconds = time.perf_counter() - start
    series, truth = table(loaded.config.output.folder / "series.csv"), table(folder / "truth.csv")
    shutil.rmtree(folder)
    return {"seed": seed, "seconds": seconds, **judge(series, truth)}


def common_factor(s: dict, t: dict, good: np.ndarray) -> float:
    """The one factor that c and yield share, by weighted least squares over both."""
    ratio = np.concatenate([s[name][good] / t[name][good] for name in ("c_nc_umol_L", "yield")])
    weight = np.concatenate([(t[name] / s[f"{name}_err"])[good] ** 2 for name in ("c_nc_umol_L", "yield")])
    return float(np.average(ratio, weights=weight))


def judge(s: dict, t: dict) -> dict:
    assert np.array_equal(s["frame"], t["frame"]), "frames lost"
    np.testing.assert_allclose(s["t_s"], t["t_s"], atol=1e-6)
    good = s["c_nc_umol_L"] / s["c_nc_umol_L_err"] > 10
    factor = common_factor(s, t, good)
    pulls = {
        name: ((s[name] / scale - t[name]) / (s[name + "_err"] / scale))[good]
        for name, scale in (("r_nm", 1), ("sigma_r_nm", 1), ("c_nc_umol_L", factor), ("yield", factor))
    }
    systematic = np.median((s["c_nc_umol_L_sys"] / s["c_nc_umol_L"])[good])
    tail = slice(-50, None)
    return {
        "used": int(good.sum()),
        "mean": {k: float(np.nanmean(v)) for k, v in pulls.items()},
        "std": {k: float(np.nanstd(v)) for k, v in pulls.items()},
        "chi2_red": float(np.nanmedian(s["chi2_red"])),
        "factor": factor,
        "z_c": float((factor - 1) / systematic),
        "systematic": float(systematic),
        "c_end": float(np.nanmean(s["c_nc_umol_L"][tail]) / t["c_nc_umol_L"][tail].mean()),
        "flags": {str(name): int((s["flag"] == name).sum()) for name in np.unique(s["flag"])},
        "bad_flagged": all(word in s["flag"][k].split("|") for word, k in BAD.items())
        if len(s["frame"]) > 450
        else None,
    }


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    frames = int(sys.argv[2]) if len(sys.argv) > 2 else 575
    names = ("r_nm", "sigma_r_nm", "c_nc_umol_L", "yield")
    print(f"{'seed':>4} {'used':>5} " + " ".join(f"{n + ' pull':>18}" for n in names), end="")
    print(f" {'chi2':>6} {'factor':>8} {'/σ_sys':>7} {'c_end':>7} {'bad':>5} {'s':>6}")
    results = []
    with tempfile.TemporaryDirectory() as work:
        for seed in range(1, seeds + 1):
            r = one_run(seed, frames, Path(work))
            results.append(r)
            cells = " ".join(f"{r['mean'][n]:+8.3f} ± {r['std'][n]:5.3f}  " for n in names)
            print(f"{seed:>4} {r['used']:>5} {cells} {r['chi2_red']:6.3f} {r['factor']:8.4f} {r['z_c']:+7.2f} ", end="")
            print(f"{r['c_end']:7.4f} {r['bad_flagged']!s:>5} {r['seconds']:6.1f}", flush=True)
    pooled = {n: float(np.mean([r["mean"][n] for r in results])) for n in names}
    chi2 = sum(r["z_c"] ** 2 for r in results)
    low, high = chi2_law.ppf([0.005, 0.995], len(results))
    criteria = {
        "mean of each run < 0.4": all(abs(r["mean"][n]) < 0.4 for r in results for n in names),
        "mean over the runs < 0.15": all(abs(v) < 0.15 for v in pooled.values()),
        "std 0.9-1.1": all(0.9 <= r["std"][n] <= 1.1 for r in results for n in names),
        "factor within 2.5 σ_sys": all(abs(r["z_c"]) < 2.5 for r in results),
        "χ² of the factors fits σ_sys": bool(low < chi2 < high),
        "c_end within 2 %": all(abs(r["c_end"] - 1) < 0.02 for r in results),
        "bad frames flagged by name": all(r["bad_flagged"] is not False for r in results),
    }
    print("pooled means: " + ", ".join(f"{n} {v:+.3f}" for n, v in pooled.items()))
    print(f"χ² of the common factors: {chi2:.1f} for {len(results)} runs (99 %: {low:.1f} to {high:.1f})")
    for name, passed in criteria.items():
        print(f"{'pass' if passed else 'FAIL'}  {name}")
    print(json.dumps({"name": "accuracy", "ratios": {}, "pooled_mean": pooled, "chi2": chi2, "criteria": criteria}))
    sys.exit(0 if all(criteria.values()) else 1)


if __name__ == "__main__":
    main()
