from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from saxs_pipeline.io.curves_source import inverse_length, open_curves
from saxs_pipeline.types import BadInput
from tests.io.beamline_files import group

REAL = Path(os.environ.get("SAXS_REAL_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
Q = np.linspace(0.1, 5.0, 40)
I = np.random.default_rng(1).uniform(1, 2, (3, 40))
SIGMA = 0.02 * I


def write_ave(path: Path, unit: str | None = "nm^-1", tfg: bool = True, **changes: Any) -> Path:
    members = {"data": I, "data_errors": SIGMA, "q": Q, "t": np.array([0.1, 0.2, 0.3])} | changes
    with h5py.File(path, "w") as file:
        process = group(group(file, "entry_0000", "NXentry"), "PyFAI", "NXprocess")
        result = group(process, "result_ave", "NXdata")
        result.attrs["signal"] = "data"
        for key, value in members.items():
            if value is not None:
                result[key] = value
        if unit:
            result["q"].attrs["unit"] = unit
        if tfg:
            timer = group(process, "TFG", "NXcollection")
            timer["delta_time"], timer["live_time"] = [1.0, 2.0, 3.0], [0.075] * 3
    return path


def test_id02_stack(tmp_path: Path) -> None:
    curves = open_curves([write_ave(tmp_path / "a.h5")], q_unit="1/nm", intensity_unit="1/mm")
    np.testing.assert_array_equal(curves.q_nm, Q)
    np.testing.assert_array_equal(curves.intensity, I)
    np.testing.assert_array_equal(curves.statistical, SIGMA)
    assert not curves.shared.any() and (curves.counts == 1).all() and curves.problems == ("",) * 3
    np.testing.assert_array_equal(curves.index, [0, 1, 2])
    np.testing.assert_allclose(curves.time_s, [1.0375, 2.0375, 3.0375])


def test_times_without_tfg(tmp_path: Path) -> None:
    curves = open_curves([write_ave(tmp_path / "a.h5", tfg=False)], q_unit="1/nm", intensity_unit="1/mm")
    np.testing.assert_allclose(curves.time_s, [0.1, 0.2, 0.3])
    curves = open_curves([write_ave(tmp_path / "b.h5", tfg=False, t=None)], q_unit="1/nm", intensity_unit="1/mm")
    assert np.isnan(curves.time_s).all()


@pytest.mark.parametrize(("unit", "seconds"), [("s", 1.0), ("ms", 1e-3), ("min", 60.0)])
def test_times_have_the_unit_that_the_file_gives(tmp_path: Path, unit: str, seconds: float) -> None:
    path = write_ave(tmp_path / "a.h5", tfg=False)
    with h5py.File(path, "a") as file:
        file["entry_0000/PyFAI/result_ave/t"].attrs["unit"] = unit
    curves = open_curves([path], q_unit="1/nm", intensity_unit="1/mm")
    np.testing.assert_allclose(curves.time_s, seconds * np.array([0.1, 0.2, 0.3]))
    with h5py.File(path, "a") as file:
        file["entry_0000/PyFAI/result_ave/t"].attrs["unit"] = "frames"
    with pytest.raises(BadInput, match=r"/t has the unit 'frames'; its times must be in s"):
        open_curves([path], q_unit="1/nm", intensity_unit="1/mm")


def test_saxsutilities_stack(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = group(group(group(file, "entry_0000", "NXentry"), "saxsutilities", "NXprocess"), "data", "NXdata")
        data["array"], data["array_errors"], data["q"], data["t"] = I, SIGMA, Q * 1e9, [5.0, 6.0, 7.0]
        data["header_array/ExposureTime"] = [0.1] * 3
        data["q"].attrs["unit"] = "1/m"
    curves = open_curves([tmp_path / "a.h5"], q_unit="1/m", intensity_unit="1/cm")
    np.testing.assert_allclose(curves.q_nm, Q)
    np.testing.assert_allclose(curves.intensity, I / 10)
    np.testing.assert_allclose(curves.statistical, SIGMA / 10)
    np.testing.assert_allclose(curves.start_s, [5, 6, 7])


@pytest.mark.parametrize(
    ("unit", "target", "factor"),
    [("1/Å", "1/nm", 10), ("A^-1", "1/nm", 10), ("q_A^-1", "1/nm", 10), ("1/angstrom", "1/nm", 10),
     ("nm-1", "1/nm", 1), ("q_nm^-1", "1/nm", 1), ("1/m", "1/nm", 1e-9), ("1/cm", "1/mm", 0.1),
     ("1/m/sr", "1/mm", 1e-3), ("cm^-1", "1/mm", 0.1)],
)  # fmt: skip
def test_units(unit: str, target: str, factor: float) -> None:
    assert inverse_length(unit, target) == pytest.approx(factor, rel=1e-14)


@pytest.mark.parametrize("unit", ["nm", "2th_deg", "", "1/s", "counts"])
def test_unknown_units(tmp_path: Path, unit: str) -> None:
    path = write_ave(tmp_path / "a.h5")
    with pytest.raises(BadInput, match=r"^data\.curves: .* not an inverse length"):
        open_curves([path], q_unit="1/nm", intensity_unit=unit)
    with pytest.raises(BadInput, match=r"^data\.curves: .* not an inverse length"):
        open_curves([path], q_unit=unit, intensity_unit="1/mm")


def test_the_files_own_q_unit(tmp_path: Path) -> None:
    path = write_ave(tmp_path / "a.h5", unit="A^-1")
    curves = open_curves([path], q_unit="1/Å", intensity_unit="1/mm")
    np.testing.assert_allclose(curves.q_nm, 10 * Q)
    with pytest.raises(BadInput, match=r"q is in A\^-1, but .* data\.curves\.q_unit"):
        open_curves([path], q_unit="1/nm", intensity_unit="1/mm")
    np.testing.assert_allclose(open_curves([path], q_unit=None, intensity_unit="1/mm").q_nm, 10 * Q)
    with pytest.raises(BadInput, match="2th_deg"):
        open_curves([write_ave(tmp_path / "b.h5", unit="2th_deg")], q_unit="1/nm", intensity_unit="1/mm")
    plain = open_curves([write_ave(tmp_path / "c.h5", unit=None)], q_unit="1/Å", intensity_unit="1/mm")
    np.testing.assert_allclose(plain.q_nm, 10 * Q)


def test_points_without_an_uncertainty_are_masked(tmp_path: Path) -> None:
    sigma, intensity = SIGMA.copy(), I.copy()
    sigma[0, 3], sigma[1, 4], sigma[1, 5], intensity[0, 6], sigma[2] = 0, -1, np.nan, np.inf, 0
    path = write_ave(tmp_path / "a.h5", data=intensity, data_errors=sigma)
    curves = open_curves([path], q_unit="1/nm", intensity_unit="1/mm")
    bad = np.zeros(I.shape, bool)
    bad[0, [3, 6]] = bad[1, [4, 5]] = bad[2] = True
    np.testing.assert_array_equal(curves.counts == 0, bad)
    np.testing.assert_array_equal(np.isnan(curves.intensity), bad)
    np.testing.assert_array_equal(np.isnan(curves.statistical), bad)
    assert curves.problems[:2] == ("", "") and curves.problems[2].startswith("unreadable: ")


def test_stacks_that_cannot_be_used(tmp_path: Path) -> None:
    for changes, words in (
        ({"data_errors": None}, "no data_errors"),
        ({"data_errors": SIGMA[:2]}, "do not fit together"),
        ({"q": Q[::-1].copy()}, "increasing"),
        ({"q": None, "data": I}, "no integrated curves"),
    ):
        unit = None if "q" in changes else "nm^-1"
        with pytest.raises(BadInput, match=words):
            open_curves([write_ave(tmp_path / "a.h5", unit, **changes)], q_unit="1/nm", intensity_unit="1/mm")


# --- text --------------------------------------------------------------------------------------------------------


def write_text(path: Path, k: int, separator: str = " ", header: str = "", q: np.ndarray = Q) -> Path:
    lines = [separator.join(f"{x:.9e}" for x in row) for row in zip(q, I[k], SIGMA[k], strict=True)]
    path.write_text(header + "\n".join([*lines[:5], "# in between", "", *lines[5:]]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("separator", [" ", ", ", ";", "\t", "   "])
@pytest.mark.parametrize("header", ["", "# q I sigma\n", "q(1/A);I;err\n", "\ufeffSample: CdSe\n40\n q   I   s\n"])
def test_text_curves(tmp_path: Path, separator: str, header: str) -> None:
    header = header.replace("40\n", "")
    paths = [write_text(tmp_path / f"c_{k}.dat", k, separator, header) for k in range(3)]
    curves = open_curves(paths, q_unit="1/Å", intensity_unit="1/cm")
    np.testing.assert_allclose(curves.q_nm, 10 * Q, rtol=1e-8)
    np.testing.assert_allclose(curves.intensity, I / 10, rtol=1e-8)
    np.testing.assert_allclose(curves.statistical, SIGMA / 10, rtol=1e-8)
    assert np.isnan(curves.start_s).all()


def test_text_and_stack_on_one_grid(tmp_path: Path) -> None:
    paths = [write_ave(tmp_path / "a.h5"), write_text(tmp_path / "b.dat", 1)]
    assert open_curves(paths, q_unit="1/nm", intensity_unit="1/mm").intensity.shape == (4, 40)


def test_curves_on_different_grids(tmp_path: Path) -> None:
    a, b = write_text(tmp_path / "a.dat", 0), write_text(tmp_path / "b.dat", 1, q=Q * 1.001)
    with pytest.raises(BadInput, match=r"a\.dat .*b\.dat .*differ"):
        open_curves([a, b], q_unit="1/nm", intensity_unit="1/mm")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 bytes"),
        (b"1 2\n3 4\n", "line 1 has 2 columns"),
        (b"1 2 3\nend\n", "line 2 is not numbers"),
        (b"only words\n", "no numbers"),
        (b"1 2 3\n1 2 3\n", "increasing"),
        (bytes(range(256)), "neither HDF5 nor text"),
        (b"\x89HDF\r\n\x1a\n12", "cannot be opened as HDF5"),
    ],
)
def test_text_rubbish(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.dat").write_bytes(content)
    with pytest.raises(BadInput, match=words):
        open_curves([tmp_path / "a.dat"], q_unit="1/nm", intensity_unit="1/mm")


@pytest.mark.skipif(not (REAL / "roundrobin").is_dir(), reason=f"no real data at {REAL} (set SAXS_REAL_DATA)")
def test_real_round_robin_curve() -> None:
    path = REAL / "roundrobin" / "round_robin_dataset_1.dat"
    curves = open_curves([path], q_unit="1/nm", intensity_unit="1/m")
    table = np.loadtxt(path)
    np.testing.assert_allclose(curves.q_nm, table[:, 0])
    valid = curves.counts[0] == 1
    np.testing.assert_allclose(curves.intensity[0, valid], table[valid, 1] / 1000)
    assert valid.sum() == np.sum(table[:, 2] > 0)
