"""Export for SasView and its kind: run_nxcansas.h5 after the NXcanSAS definition, one SASentry per usable frame.

A stack I(t, q) in one SASentry is legal NXcanSAS, but SasView reads it as copies of its last frame; and a plain NXentry
beside the SASentries can make a file unreadable there. Hence one entry per frame, in a file of its own.
Q is in 1/angstrom and I in 1/cm: SasView converts Q but takes I for 1/cm whatever its unit says.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from saxs_pipeline.outputs.flags import frame_flags
from saxs_pipeline.outputs.hdf5 import written_at_once
from saxs_pipeline.outputs.tables import factors_left_out
from saxs_pipeline.types import Bools, Curves, RunResult

Q_PER_ANGSTROM = 0.1
"""1/nm in 1/angstrom."""
I_PER_CM = 10.0
"""1/mm in 1/cm."""


def write(result: RunResult, path: Path) -> None:
    """Write every usable frame as a SASentry named after its frame number, bins without data left out.

    Idev is the total standard uncertainty √(statistical² + shared²). Intensities that are not on an absolute scale are
    written as they are, with the unit "arbitrary". What all entries have in common is stored once and hard-linked.
    OSError if the path cannot be written; an existing file is replaced.
    """
    curves = result.curves
    measured = np.isfinite(curves.intensity) & np.isfinite(curves.sigma)
    rows = np.flatnonzero(curves.usable & measured.any(axis=1))
    flags = frame_flags(result)
    with written_at_once(path) as file:
        file.attrs["NX_class"] = "NXroot"
        writer = _Writer(file, result)
        for row in rows:
            writer.add(int(row), measured[row], flags[row])
        if rows.size:
            file.attrs["default"] = entry_name(curves, int(rows[0]))


def entry_name(curves: Curves, row: int) -> str:
    """Name of a frame's entry, padded with zeros: readers list entries in alphabetical order."""
    digits = max(5, len(str(int(curves.index.max()))))
    return f"frame_{int(curves.index[row]):0{digits}d}"


class _Writer:
    """Adds entries to a file; keeps the objects they share."""

    def __init__(self, file: h5py.File, result: RunResult) -> None:
        self._file = file
        self._result = result
        self._q = result.curves.q_nm * Q_PER_ANGSTROM
        absolute = result.curves.unit == "1/mm"
        self._unit = "1/cm" if absolute else "arbitrary"
        scale = I_PER_CM if absolute else 1.0
        self._intensity = result.curves.intensity * scale
        self._sigma = result.curves.sigma * scale
        self._shared: dict[str, h5py.HLObject] = {}
        self._bins: dict[bytes, tuple[h5py.Dataset, h5py.Dataset]] = {}

    def add(self, row: int, measured: Bools, flag: str) -> None:
        """One SASentry."""
        curves = self._result.curves
        entry = _sas(self._file.create_group(entry_name(curves, row)), "NXentry", "SASentry")
        entry.attrs["version"] = "1.1"
        entry.attrs["default"] = "sasdata"
        frame = int(curves.index[row])
        suffix = "" if flag == "ok" else f", {flag}"
        entry["title"] = f"{self._result.title}, frame {frame}, t = {curves.time_s[row]:.6g} s{suffix}"
        entry["run"] = str(frame)
        self._add_data(entry, row, measured)
        self._link_shared(entry)

    def _add_data(self, entry: h5py.Group, row: int, measured: Bools) -> None:
        data = _sas(entry.create_group("sasdata"), "NXdata", "SASdata")
        data.attrs["signal"] = "I"
        data.attrs["axes"] = data.attrs["I_axes"] = "Q"
        data.attrs["Q_indices"] = 0
        data.attrs["mask"] = "mask"
        intensity = _values(data, "I", self._intensity[row, measured], self._unit)
        intensity.attrs["uncertainties"] = "Idev"
        _values(data, "Idev", self._sigma[row, measured], self._unit)
        key = measured.tobytes()
        if key in self._bins:
            data["Q"], data["mask"] = self._bins[key]
        else:
            q = _values(data, "Q", self._q[measured], "1/angstrom")
            mask = data.create_dataset("mask", data=np.zeros(int(measured.sum()), dtype=np.uint8))
            self._bins[key] = q, mask

    def _link_shared(self, entry: h5py.Group) -> None:
        if self._shared:
            for name, common in self._shared.items():
                entry[name] = common
            return
        entry["definition"] = "NXcanSAS"
        self._shared = {
            "definition": entry["definition"],
            "sassample": self._sample(entry),
            "sasinstrument": self._instrument(entry),
            "sasprocess": self._process(entry),
        }

    def _sample(self, entry: h5py.Group) -> h5py.Group:
        sample = _sas(entry.create_group("sassample"), "NXsample", "SASsample")
        sample["name"] = self._result.title
        return sample

    def _instrument(self, entry: h5py.Group) -> h5py.Group:
        geometry = self._result.provenance.geometry
        instrument = _sas(entry.create_group("sasinstrument"), "NXinstrument", "SASinstrument")
        source = _sas(instrument.create_group("sassource"), "NXsource", "SASsource")
        source["probe"] = "x-ray"
        if "wavelength" in geometry:
            _values(source, "incident_wavelength", np.array(1e10 * geometry["wavelength"]), "angstrom")
        if "dist" in geometry:
            detector = _sas(instrument.create_group("sasdetector"), "NXdetector", "SASdetector")
            detector["name"] = str(geometry.get("detector", "detector"))
            _values(detector, "SDD", np.array(geometry["dist"]), "m")
        return instrument

    def _process(self, entry: h5py.Group) -> h5py.Group:
        process = _sas(entry.create_group("sasprocess"), "NXprocess", "SASprocess")
        process["name"] = "saxs_pipeline"
        curves = self._result.curves
        process["description"] = ". ".join(
            (
                "Idev^2 = statistical^2 + shared^2; the shared part (background, dark) is the same for all frames",
                f"Not in Idev: one common scale uncertainty of {curves.scale_rel:.3g} (relative)",
                *factors_left_out(curves),
            )
        )
        return process


def _sas(group: h5py.Group, nx_class: str, cansas_class: str) -> h5py.Group:
    group.attrs["NX_class"] = nx_class
    group.attrs["canSAS_class"] = cansas_class
    return group


def _values(group: h5py.Group, name: str, values: NDArray[np.float64], units: str) -> h5py.Dataset:
    dataset = group.create_dataset(name, data=values)
    dataset.attrs["units"] = units
    return dataset
