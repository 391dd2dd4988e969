from __future__ import annotations

import json
import threading
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest

from saxs_pipeline.outputs.folder import staged
from saxs_pipeline.outputs.model_files import summary_rows, write_model
from tests.conftest import read_table
from tests.outputs import known_model

KEYS = {
    "t98_c_s", "t98_yield_s", "nucleation_share", "r_nm", "sigma_r_nm", "skewness", "c_nc_umol_L",
    "peak_supersaturation", "mass_drift",
}  # fmt: skip


def strict_json(path):
    def refuse(text):
        raise AssertionError(text)

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    names = write_model(known_model.scan(), folder)
    assert names == ["model_snapshots", "model_development", "model_share"]
    return folder


def test_model_csv_holds_the_development(folder):
    header = (folder / "model.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "t_s,r_nm,sigma_r_nm,c_nc_umol_L,yield,supersaturation,r_critical_nm"
    table, development = read_table(folder / "model.csv"), known_model.scan().development
    crystals = development.all
    for name, values in (
        ("t_s", development.time_s),
        ("r_nm", crystals.radius_nm),
        ("sigma_r_nm", crystals.sigma_nm),
        ("c_nc_umol_L", crystals.c_umol_L),
        ("yield", development.yield_),
        ("supersaturation", development.supersaturation),
        ("r_critical_nm", development.critical_radius_nm),
    ):
        np.testing.assert_allclose(table[name], values, rtol=1e-8, err_msg=name)
    assert table["t_s"][-1] == 2275.8
    np.testing.assert_array_equal(np.isnan(table["r_critical_nm"]), table["supersaturation"] <= 1)


def test_summary_json_has_the_numbers_of_the_reference(folder):
    summary = strict_json(folder / "summary.json")
    assert set(summary) == KEYS | {"yield", "title", "end_s", "parameters", "versions"}
    assert summary["end_s"] == 2275.8
    assert summary["parameters"] == {"n": "2"}
    assert summary["t98_c_s"] == pytest.approx(67.01, rel=0.01)
    assert summary["t98_yield_s"] == pytest.approx(798.4, rel=2e-3)
    assert summary["nucleation_share"] == pytest.approx(0.084, rel=0.01)
    assert summary["r_nm"] == pytest.approx(1.8875, rel=1e-3)
    assert summary["sigma_r_nm"] == pytest.approx(0.0457, rel=5e-3)
    assert summary["skewness"] == pytest.approx(-1.18, abs=0.02)
    assert summary["c_nc_umol_L"] == pytest.approx(53.49, rel=1e-3)
    assert summary["peak_supersaturation"] == pytest.approx(83.86, rel=1e-3)
    assert 0 <= summary["mass_drift"] < 1e-12
    assert set(summary["versions"]) == {"saxs_pipeline", "numpy", "scipy"}


def test_scan_csv_has_a_row_per_exponent(folder):
    table = read_table(folder / "scan.csv")
    assert set(table) == KEYS | {"n"}
    np.testing.assert_array_equal(table["n"], [0, 2, 4])
    np.testing.assert_allclose(table["c_nc_umol_L"], [34.18, 53.49, 82.77], rtol=1e-3)
    np.testing.assert_allclose(table["nucleation_share"], [0.041, 0.084, 0.162], rtol=0.015)
    assert not (folder / "modes.csv").exists()


def test_pictures_have_the_size_of_print(folder):
    for name, width in (("model_snapshots", 170), ("model_development", 170), ("model_share", 85)):
        picture = matplotlib.image.imread(folder / "figures" / f"{name}.png")
        assert picture.shape[1] / 200 * 25.4 == pytest.approx(width, abs=0.2)
        assert 0.02 < np.mean(np.any(picture[..., :3] < 0.95, axis=2)) < 0.5
        assert (folder / "figures" / f"{name}.svg").stat().st_size < 500_000


def test_the_same_simulation_gives_the_same_bytes_in_any_thread(folder, tmp_path):
    thread = threading.Thread(target=write_model, args=(known_model.scan(), tmp_path))
    thread.start()
    thread.join()
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert len(names) == 10
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_a_folder_holds_one_simulation_and_the_users_files(tmp_path):
    out = tmp_path / "out"
    for simulated in (known_model.second_injection(), replace(known_model.scan(), scan=())):
        with staged(out) as staging:
            write_model(simulated, staging)
        (out / "notes.csv").touch()
    left = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    drawn = {f"figures/{name}.{kind}" for name in ("model_snapshots", "model_development") for kind in ("png", "svg")}
    assert left == {"model.csv", "summary.json", "notes.csv", "figures/captions.txt"} | drawn


def test_growth_alone_has_nulls_where_nothing_nucleates(tmp_path):
    names = write_model(known_model.growth_only(), tmp_path)
    assert names == ["model_snapshots", "model_development"]
    summary = strict_json(tmp_path / "summary.json")
    assert summary["t98_c_s"] is None
    assert summary["nucleation_share"] is None
    assert summary["c_nc_umol_L"] == pytest.approx(25)
    assert summary["r_nm"] == pytest.approx(2.01340, abs=2e-4)
    assert not (tmp_path / "scan.csv").exists()
    rows = dict(summary_rows(known_model.growth_only()))
    assert rows["98 % of c_NC"] == "none"


def test_modes_csv_has_a_group_of_columns_per_origin(tmp_path):
    simulated = known_model.second_injection()
    assert "model_modes" in write_model(simulated, tmp_path)
    table, every = read_table(tmp_path / "modes.csv"), read_table(tmp_path / "model.csv")
    assert list(table) == [
        "t_s", "r1_nm", "sigma_r1_nm", "c1_nc_umol_L", "r2_nm", "sigma_r2_nm", "c2_nc_umol_L",
    ]  # fmt: skip
    np.testing.assert_allclose(table["c1_nc_umol_L"] + table["c2_nc_umol_L"], every["c_nc_umol_L"], rtol=1e-7)
    np.testing.assert_array_equal(np.isnan(table["r2_nm"]), table["c2_nc_umol_L"] == 0)
    for number, mode in enumerate(simulated.development.modes, start=1):
        np.testing.assert_allclose(table[f"r{number}_nm"], mode.radius_nm, rtol=1e-8)


def test_the_terminal_says_values_with_units_and_a_row_per_exponent():
    rows = dict(summary_rows(known_model.scan()))
    assert rows["98 % of c_NC"].endswith(" s")
    assert float(rows["share of nucleation"].removesuffix(" %")) == pytest.approx(8.4, abs=0.05)
    assert rows["radius r at 2275.8 s"].endswith(" nm")
    assert rows["concentration c_NC"].endswith(" µmol/L")
    assert [name for name in rows if name.startswith("n = ")] == ["n = 0", "n = 2", "n = 4"]
    assert "share 16.2 %" in rows["n = 4"] or "share 16.1" in rows["n = 4"]
    rows = dict(summary_rows(known_model.second_injection()))
    assert rows["crystals nucleated from 600 s"].startswith("c_NC = ")
    assert (
        "98 %"
        not in dict(summary_rows(replace(known_model.growth_only(), scan=(known_model.growth_only().run,))))["n = 2"]
    )
    assert "n = 2" not in dict(summary_rows(replace(known_model.scan(), scan=())))
