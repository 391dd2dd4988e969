"""The script a beamline user would write: h5py + pyFAI integrate1d per frame + lmfit with the direct sum per frame.

    python benchmarks/naive_script.py BEAMTIME_FOLDER OUT.csv

The same work as ours: raw frames → dark, flat, mask, monitor, water scale, background → r, σ_r, c, yield with errors.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import fabio
import h5py
import hdf5plugin  # noqa: F401
import lmfit
import numpy as np
import pyFAI
from ruamel.yaml import YAML

RADII = np.arange(0.02, 4.0, 0.02)  # nm, the paper's steps


def scattering(q, c, r, sigma, b, factor):
    weights = np.exp(-0.5 * ((RADII - r) / sigma) ** 2)
    weights /= weights.sum()
    x = q[:, None] * RADII
    amplitude = 4 * np.pi * RADII**3 * (np.sin(x) - x * np.cos(x)) / x**3
    return factor * c * (amplitude**2 @ weights) + b


def number(text):
    return float(str(text).split()[0])


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    settings = YAML(typ="safe").load((folder / "run.yaml").read_text())
    corr, integ, inten = settings["corrections"], settings["integration"], settings["intensity"]
    ai = pyFAI.load(str(folder / settings["geometry"]["poni"]))
    mask = fabio.open(str(folder / corr["mask"])).data
    flat = fabio.open(str(folder / corr["flat"])).data.astype(float)
    omega = ai.detector.pixel1 * ai.detector.pixel2 / ai.dist**2
    gain, read, pedestal = corr["gain"], corr["read_noise"], corr.get("pedestal", 0)

    def stack(path):
        found = []
        file = h5py.File(folder / path, "r")
        file.visititems(lambda name, node: found.append(node) if getattr(node, "ndim", 0) == 3 else None)
        return found[0]

    def scalers(path):
        with h5py.File(folder / path, "r") as file:
            groups = {}
            file.visititems(lambda name, node: groups.__setitem__(name.rsplit("/", 1)[-1], node))
            mcs, tfg = groups["MCS"], groups["TFG"]
            t = mcs["HS32C"][:, int(mcs["HSTime"][()]) - 1] * mcs["HS32F"][int(mcs["HSTime"][()]) - 1]
            pin = int(mcs["HSI1"][()]) - 1
            i1 = (mcs["HS32C"][:, pin] - mcs["HS32Z"][pin] * t) * mcs["HS32F"][pin] * float(mcs["HSI1Factor"][()])
            if "ShutterOpeningTime" in mcs:
                opening, closing = (
                    float(str(mcs[k][()].decode() if isinstance(mcs[k][()], bytes) else mcs[k][()]).split()[0])
                    for k in ("ShutterOpeningTime", "ShutterClosingTime")
                )
                i1 = i1 * (t - opening + closing) / (t - opening)
            return tfg["delta_time"][:], tfg["live_time"][:], i1

    dark = np.mean(stack(corr["dark"]), axis=0) - pedestal

    def integrate(image, monitor):
        signal = image.astype(float) - pedestal - dark
        r = ai.integrate1d(
            signal,
            integ["bins"],
            unit="q_nm^-1",
            radial_range=(number(integ["q_min"]), number(integ["q_max"])),
            variance=gain * np.maximum(signal, 0) + read**2,
            mask=mask,
            flat=flat,
            polarization_factor=corr["polarization"],
            method=("no", "csr", "cython"),
        )
        return r.radial, r.intensity / omega / monitor, r.sigma / omega / monitor

    def average(path, monitors):
        curves = [integrate(image, m) for image, m in zip(stack(path), monitors, strict=True)]
        return np.mean([intensity for _, intensity, _ in curves], axis=0)

    water = inten["water"]
    w = average(water["frames"], scalers(water["scalers"])[2])
    e = average(water["empty"]["frames"], scalers(water["empty"]["scalers"])[2])

    start, live, monitor = scalers(settings["data"]["scalers"])
    times = start + live / 2 - number(settings["data"]["time"]["zero"])
    curves = [integrate(image, m) for image, m in zip(stack(settings["data"]["frames"]), monitor, strict=True)]
    q = curves[0][0]
    window = (q >= number(water["window"][0])) & (q <= number(water["window"][1]))
    scale = number(water["cross_section"]) / np.mean((w - e)[window] / number(water["thickness"]))
    scale /= number(inten["thickness"])
    before = range(*(int(k) for k in settings["background"]["frames"].split(":")))
    background = np.mean([curves[k][1] for k in before], axis=0)
    background_error = np.sqrt(np.mean([curves[k][2] ** 2 for k in before], axis=0) / len(before))

    model = settings["model"]
    use = (q >= number(model["q_min"])) & (q <= number(model["q_max"]))
    contrast = number(settings["sample"]["contrast"])
    factor = 6.02214076e23 * 1e-6 * 1e-6 * (contrast * 1e2) ** 2 * 1e-18 * 1e6  # µmol/L, nm⁻², nm⁶ → mm⁻¹
    cell, c0 = number(settings["sample"]["lattice_parameter"]), number(settings["sample"]["cation_concentration"])
    rows = []
    for k, (_, intensity, sigma) in enumerate(curves):
        y, s = ((intensity - background) * scale)[use], (np.hypot(sigma, background_error) * scale)[use]
        parameters = lmfit.Parameters()
        parameters.add("c", 10, min=0)
        parameters.add("r", 2.0, min=0.5, max=5)
        parameters.add("sigma", 0.15, min=0.02, max=0.6)
        parameters.add("b", 0)
        fit = lmfit.minimize(
            lambda p: (scattering(q[use], p["c"], p["r"], p["sigma"], p["b"], factor) - y) / s,  # noqa: B023
            parameters,
            scale_covar=False,
        )
        p = fit.params
        volume = 4 / 3 * np.pi * (p["r"].value ** 3 + 3 * p["r"].value * p["sigma"].value ** 2)
        crystal = p["c"].value * 4 * volume / cell**3 / c0 / 1000
        rows.append([k, times[k], *(v for n in p for v in (p[n].value, p[n].stderr)), crystal])
    with out.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    main()
