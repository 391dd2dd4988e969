from __future__ import annotations

import csv
import math

import numpy as np
import pytest

from saxs_pipeline.outputs import numbers, tables
from saxs_pipeline.types import BadInput
from tests.outputs.known_run import BAD_FRAMES, only

HEADER = (
    "frame,t_s,exposure_s,r_nm,r_nm_err,sigma_r_nm,sigma_r_nm_err,c_nc_umol_L,c_nc_umol_L_err,c_nc_umol_L_sys,"
    "yield,yield_err,yield_sys,background_1_mm,background_1_mm_err,chi2_red,flag"
)


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_series_has_exactly_the_agreed_columns_and_unix_line_ends(result, tmp_path):
    tables.write_series(result, tmp_path / "series.csv")
    raw = (tmp_path / "series.csv").read_bytes()
    assert raw.split(b"\n")[0].decode() == HEADER
    assert b"\r" not in raw
    assert raw.endswith(b"\n")
    assert raw.count(b"\n") == 41


def test_series_holds_the_quantities_of_every_frame(result, tmp_path):
    tables.write_series(result, tmp_path / "series.csv")
    rows, q = read(tmp_path / "series.csv"), result.quantities
    for column, values in {
        "frame": q.index,
        "t_s": q.time_s,
        "exposure_s": q.exposure_s,
        "r_nm": q.radius_nm.value,
        "r_nm_err": q.radius_nm.statistical,
        "sigma_r_nm": q.sigma_nm.value,
        "sigma_r_nm_err": q.sigma_nm.statistical,
        "c_nc_umol_L": q.c_nc_umol_L.value,
        "c_nc_umol_L_err": q.c_nc_umol_L.statistical,
        "c_nc_umol_L_sys": q.c_nc_umol_L.systematic,
        "yield": q.yield_.value,
        "yield_err": q.yield_.statistical,
        "yield_sys": q.yield_.systematic,
        "background_1_mm": q.background_1_mm.value,
        "background_1_mm_err": q.background_1_mm.statistical,
        "chi2_red": q.chi2_red,
    }.items():
        np.testing.assert_allclose([float(row[column]) for row in rows], values, rtol=1e-9, err_msg=column)
    assert tuple(row["flag"] for row in rows) == q.flags
    assert rows[13]["r_nm"] == "nan"


def test_series_without_a_model_lists_every_frame_with_its_problem(bare, tmp_path):
    tables.write_series(bare, tmp_path / "series.csv")
    rows = read(tmp_path / "series.csv")
    expected = {**dict.fromkeys(range(40), "ok"), 30: "saturated", **BAD_FRAMES}
    assert {int(row["frame"]): row["flag"] for row in rows} == expected
    np.testing.assert_allclose([float(row["t_s"]) for row in rows], bare.curves.time_s, rtol=1e-9)
    assert all(math.isnan(float(row[column])) for row in rows for column in ("r_nm", "yield_sys", "chi2_red"))


def test_curve_files_are_columns_of_numbers_without_masked_bins(result, tmp_path):
    tables.write_curves(result, tmp_path / "curves", [35])
    q, i, total, statistical, shared, fit = np.loadtxt(tmp_path / "curves" / "frame_00035.dat", unpack=True)
    curves = result.curves
    np.testing.assert_allclose(q, curves.q_nm[1:], rtol=1e-9)
    np.testing.assert_allclose(i, curves.intensity[35, 1:], rtol=1e-9)
    np.testing.assert_allclose(total**2, statistical**2 + shared**2, rtol=1e-8)
    np.testing.assert_allclose(fit, result.model[35, 1:], rtol=1e-9)
    header = [line for line in (tmp_path / "curves" / "frame_00035.dat").read_text().splitlines() if line[0] == "#"]
    assert header[-1] == "# q_1_nm I_1_mm sigma_total sigma_statistical sigma_shared I_fit"


def test_a_title_of_several_lines_stays_a_comment(bare, tmp_path):
    from dataclasses import replace

    tables.write_curves(replace(bare, title="first\n1 2 3\nlast"), tmp_path, [20])
    assert np.loadtxt(tmp_path / "frame_00020.dat").shape == (59, 5)


def test_a_frame_the_run_does_not_have_is_refused(result, tmp_path):
    with pytest.raises(BadInput, match="frame 40, 99 is not in this run; choose from 0 to 39"):
        tables.write_curves(result, tmp_path / "curves", [3, 40, 99])
    assert not (tmp_path / "curves").exists()


def test_summary_counts_frames_and_reports_the_last_good_one(result):
    rows = dict(tables.summary(result))
    assert rows["frames"] == "40, of which 35 sound and 5 excluded"
    assert "all_zero: 1" in rows["flagged"]
    assert rows["last reported frame"].startswith("39, at ")
    r = result.quantities.radius_nm
    assert rows["radius r"] == numbers.plus_minus(r.value[39], r.statistical[39], unit="nm")
    assert rows["concentration c_NC"].count("±") == 2
    assert rows["absolute scale"].startswith("(3.217 ± 0.039)·10⁻⁷ (water)")
    assert "slope 0.40 σ (+0.31% across it), χ²_red 1.05" in rows["absolute scale"]
    assert rows["absolute scale"].endswith("counting 0.05 %, cross section 1.1 %, thickness 0.55 %")


def test_summary_passes_over_frames_that_are_excluded_or_weak(result):
    rows = dict(tables.summary(only(result, [35, 25, 11])))
    assert rows["last reported frame"].startswith("35, at ")


@pytest.mark.parametrize("frames", [[13, 16], [10, 11]])
def test_summary_says_when_no_radius_is_reported(result, frames):
    assert dict(tables.summary(only(result, frames)))["last reported frame"].startswith("none")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((2.22134, 0.0042), "2.2213 ± 0.0042"),
        ((2.2, 0.0999), "2.200 ± 0.100"),
        ((24.96, 0.12, 0.28), "24.96 ± 0.12 ± 0.28"),
        ((1.98473, 0.0163, 0.0027), "1.985 ± 0.016 ± 0.003"),
        ((1234.5, 67.0), "1234 ± 67"),
        ((3.217e-7, 3.9e-9), "(3.217 ± 0.039)·10⁻⁷"),
        ((5.0, 0.0), "5"),
        ((math.nan, 1.0), "not reported"),
        ((0.0, 0.01), "0.000 ± 0.010"),
        ((-0.00012, 0.00003), "(-1.20 ± 0.30)·10⁻⁴"),
    ],
)
def test_values_are_rounded_to_two_digits_of_the_uncertainty(arguments, text):
    assert numbers.plus_minus(*arguments) == text
