"""Aliquot tables: by hand, against Monte Carlo, and every mistake with its place."""

import math
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saxs_pipeline.io.aliquots import read_aliquots, read_radii
from saxs_pipeline.reaction_config import AliquotTable
from saxs_pipeline.types import BadInput

OPTICS = {
    "absorption_coefficient": "2.01e5 1/cm",
    "path": "10 mm",
    "molar_volume": "33.66 cm^3/mol",
    "cation_concentration": "26 mmol/L",
}
CURVE = {"sizing_curve": [9.2, -0.036, 4.5e-5]}  # diameter 3.2 nm at 500 nm, 4.02 nm at 560 nm … rises from 400 nm on


def section(folder, **keys):
    (folder / "table.csv").touch()
    return AliquotTable.model_validate({"file": "table.csv", **keys}, context={"base": folder})


def read(folder, text, **keys):
    path = folder / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_aliquots(path, section(folder, **keys))


def mistakes(folder, text, **keys):
    with pytest.raises(BadInput) as caught:
        read(folder, text, **keys)
    assert all("\n" not in line for line in caught.value.messages)
    return caught.value.messages


# --- quantities ------------------------------------------------------------------------------------------------------


def test_quantities_given_directly_arrive_as_they_are(tmp_path):
    text = (
        "# taken by hand\n"
        "t_s, r_nm,r_nm_err,c_nc_umol_L,c_nc_umol_L_err,yield,yield_err\n"
        "10,1.5,0.05,,,0.1,0.02\n"
        "\n"
        "10,,,12.5,1,,\n"
        '"60", 1.9 ,.05,20,1e0,+0.5,0.03\n'
    )
    found = read(tmp_path, text)
    assert found.source == "table.csv"
    assert found.correlation is None
    np.testing.assert_array_equal(found.time_s, [10, 10, 60])
    np.testing.assert_array_equal(found.radius_nm, [1.5, np.nan, 1.9])
    np.testing.assert_array_equal(found.radius_error, [0.05, np.nan, 0.05])
    np.testing.assert_array_equal(found.c_umol_L, [np.nan, 12.5, 20])
    np.testing.assert_array_equal(found.c_error, [np.nan, 1, 1])
    np.testing.assert_array_equal(found.yield_, [0.1, np.nan, 0.5])
    np.testing.assert_array_equal(found.yield_error, [0.02, np.nan, 0.03])


def test_one_quantity_is_enough_and_columns_come_in_any_order(tmp_path):
    found = read(tmp_path, b"\xef\xbb\xbfyield_err,t_s,yield\r\n0.1,5,0.3\r\n")
    assert (found.time_s[0], found.yield_[0], found.yield_error[0]) == (5, 0.3, 0.1)
    assert np.isnan(found.radius_nm[0])
    assert np.isnan(found.c_umol_L[0])


def test_an_absorbance_by_hand(tmp_path):
    """A = 0.5 in 1 cm, diluted 100 times: f = ln 10 · 50/2.01e5 = 5.7278e-4, 17.017 mmol/L in 26 mmol/L; r = 2 nm."""
    text = "t_s,r_nm,r_nm_err,absorbance,absorbance_err\n60,2,0.04,0.5,0.01\n90,,,0.5,0.01\n"
    found = read(tmp_path, text, **OPTICS, dilution=100)
    assert found.yield_ == pytest.approx([0.65449] * 2, rel=1e-5)
    assert found.yield_error == pytest.approx([0.02 * 0.65449] * 2, rel=1e-5)
    assert found.c_umol_L[0] == pytest.approx(28.383, rel=1e-4)
    assert found.c_error[0] == pytest.approx(28.383 * math.hypot(0.02, 3 * 0.02), rel=1e-4)
    assert found.correlation[0] == pytest.approx(0.02 / math.hypot(0.02, 0.06))
    assert np.isnan(found.c_umol_L[1])


def test_a_peak_gives_the_radius_by_the_sizing_curve(tmp_path):
    found = read(tmp_path, "t_s,peak_nm,peak_nm_err\n60,500,2\n90,,\n", **CURVE)
    assert found.radius_nm[0] == pytest.approx((9.2 - 18 + 11.25) / 2)
    assert found.radius_error[0] == pytest.approx((-0.036 + 2 * 4.5e-5 * 500) / 2 * 2)
    assert np.isnan(found.radius_nm[1])


def test_errors_are_those_of_a_monte_carlo(tmp_path):
    text = "t_s,peak_nm,peak_nm_err,absorbance,absorbance_err,dilution,dilution_err\n60,520,0.8,0.4,0.006,80,1.5\n"
    found = read(tmp_path, text, **OPTICS, **CURVE)
    rng = np.random.default_rng(1)
    peak, absorbance, dilution = (rng.normal(m, s, 400_000) for m, s in ((520, 0.8), (0.4, 0.006), (80, 1.5)))
    radius = np.polyval(CURVE["sizing_curve"][::-1], peak) / 2
    volume_share = absorbance * dilution * math.log(10) / 2.01e5
    c = volume_share / (4 / 3 * math.pi * radius**3) * 1e27 / 6.02214076e23 * 1e3
    yield_ = volume_share / 33.66e-6 / 26
    assert [found.radius_nm[0], found.c_umol_L[0], found.yield_[0]] == pytest.approx(
        [radius.mean(), c.mean(), yield_.mean()], rel=2e-3
    )
    assert [found.radius_error[0], found.c_error[0], found.yield_error[0]] == pytest.approx(
        [radius.std(), c.std(), yield_.std()], rel=0.01
    )
    assert found.correlation[0] == pytest.approx(np.corrcoef(c, yield_)[0, 1], abs=0.01)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.floats(-1e300, 2), st.floats(1e-300, 1e300)), min_size=1, max_size=8),
    st.sampled_from([repr, "{:.17g}".format, "{:+.17e}".format, " {:.17G} ".format]),
)
def test_numbers_survive_however_they_are_written(tmp_path, pairs, write):
    rows = "".join(f"{k},{write(value)},{write(error)}\n" for k, (value, error) in enumerate(pairs))
    found = read(tmp_path, "t_s,yield,yield_err\n" + rows)
    np.testing.assert_array_equal(found.yield_, [value for value, _ in pairs])
    np.testing.assert_array_equal(found.yield_error, [error for _, error in pairs])


def test_yields_in_percent_and_amounts_that_overflow_are_refused(tmp_path):
    assert (
        "table.csv:3:3: yield: a yield of 14 is no fraction"
        in mistakes(tmp_path, "t_s,yield,yield_err\n1,0.1,0.01\n2,14,1\n")[0]
    )


# --- mistakes --------------------------------------------------------------------------------------------------------


def test_all_bad_cells_are_reported_with_line_and_column(tmp_path):
    text = "t_s,yield,yield_err\n1,0.1,0.01\n2, abc,0.01\n3,0.2,-0.01\n4,0.2,0\n5,nan,1e999\n6,0.3\n7,0,5,0.1\n"
    found = mistakes(tmp_path, text)
    places = [re.match(r".*table\.csv:(\d+:\d+): ", line)[1] for line in found]
    assert places == ["3:4", "4:7", "5:7", "6:3", "6:7", "7:1", "8:1"]
    assert "'abc' is not a number" in found[0]
    assert "must be positive, got '-0.01'" in found[1]
    assert "decimal comma" in found[-1]


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ("t_s,yield,yield_err\n1,0.1,\n", ":2:7: yield_err: ", "every number comes with its uncertainty"),
        ("t_s,yield,yield_err\n1,,0.1\n", ":2:3: yield: ", "is empty"),
        ("t_s,yield,yield_err\n,0.1,0.1\n", ":2:1: t_s: ", "must not be empty"),
        ("t_s,yield,yield_err\n5,0.1,0.1\n4,0.1,0.1\n", ":3:1: t_s: ", "sort"),
        ("t_s,r_nm,r_nm_err\n5,-1,0.1\n", ":2:3: r_nm: ", "positive"),
        ("t_s,yeild,yield_err\n5,1,1\n", ":1:5: ", "did you mean 'yield'?"),
        ("t_s,yield,yield\n5,1,1\n", ":1:11: ", "two columns"),
        ("t_s,yield\n5,1\n", ": ", "the column yield needs yield_err"),
        ("t_s,yield_err\n5,1\n", ": ", "the column yield_err needs yield"),
        ("yield,yield_err\n5,1\n", ": ", "t_s is missing"),
        ("t_s\n5\n", ": ", "no quantity"),
        ("t_s;yield;yield_err\n5;1;1\n", ":1:1: ", "commas"),
        ("t_s\tyield\tyield_err\n5\t1\t1\n", ":1:1: ", "commas"),
        ("5,1,1\n6,1,1\n", ":1:1: ", "name the columns"),
        ("t_s,yield,yield_err\n", ": ", "at least one row"),
        ("", ": ", "at least one row"),
        ("\n\n# nothing\n", ": ", "at least one row"),
        (b"\x89HDF\r\n\x1a\n\x00\x00\xff\xfe", ": ", "not text"),
        (b"PK\x03\x04\x00\x00", ": ", "not text"),
        ("t_s,yield,yield_err\n5,1,1\n".encode("utf-16"), ": ", "not text"),
        ("t_s,yield,yield_err\n5,1_0,1\n", ":2:3: yield: ", "not a number"),
        ("t_s,yield,yield_err\n5,٣,1\n", ":2:3: yield: ", "not a number"),
        ("t_s,peak_nm,peak_nm_err\n5,500,1\n", ": ", "aliquots.sizing_curve"),
        ("t_s,absorbance,absorbance_err\n5,1,1\n", ": ", "aliquots.absorption_coefficient"),
        ("t_s,yield,yield_err,dilution,dilution_err\n5,1,1,2,1\n", ": ", "dilution belongs to the column absorbance"),
    ],
)
def test_rubbish_is_refused_in_one_clear_line(tmp_path, text, place, hint):
    (found,) = (line for line in mistakes(tmp_path, text) if hint in line)
    assert f"table.csv{place}" in found


@pytest.mark.parametrize(
    ("header", "row", "keys", "hint"),
    [
        ("r_nm,r_nm_err,peak_nm,peak_nm_err", "1,1,500,1", CURVE, "both give the radius"),
        ("yield,yield_err,absorbance,absorbance_err", "1,1,1,1", {**OPTICS, "dilution": 2}, "both give the yield"),
        ("c_nc_umol_L,c_nc_umol_L_err,absorbance,absorbance_err", "1,1,1,1", OPTICS, "both give c_NC"),
        ("absorbance,absorbance_err", "1,1", OPTICS, "needs its dilution once"),
        ("absorbance,absorbance_err,dilution,dilution_err", "1,1,1,1", {**OPTICS, "dilution": 2}, "dilution once"),
        ("absorbance,absorbance_err,dilution,dilution_err", "1,1,,", OPTICS, "an absorbance is given"),
        ("peak_nm,peak_nm_err", "380,1", CURVE, ":2:3: peak_nm: the sizing curve gives"),
    ],
)
def test_columns_that_contradict_each_other_or_the_run_file(tmp_path, header, row, keys, hint):
    assert any(hint in line for line in mistakes(tmp_path, f"t_s,{header}\n5,{row}\n", **keys))


def test_files_that_cannot_be_a_table(tmp_path):
    huge = tmp_path / "huge.csv"
    with huge.open("wb") as file:
        file.truncate(1_000_000_000)
    for path, hint in ((huge, "1000 MB"), (tmp_path, "is a folder"), (tmp_path / "none.csv", "table not found; give")):
        with pytest.raises(BadInput, match=hint) as caught:
            read_aliquots(path, section(tmp_path))
        assert len(caught.value.messages) == 1


def test_a_file_of_nothing_but_mistakes_stays_readable(tmp_path):
    found = mistakes(tmp_path, "t_s,yield,yield_err\n" + "a,b,c\n" * 1000)
    assert len(found) == 21
    assert "2980 more" in found[-1]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.text(alphabet='t_s,yield_err0123456789.e-\n;"#', max_size=200).map(str.encode))
def test_no_content_breaks_the_reader(tmp_path, content):
    try:
        found = read(tmp_path, content)
    except BadInput as error:
        assert all("\n" not in line for line in error.messages)
    else:
        assert np.isfinite(found.time_s).all()


# --- two radii -------------------------------------------------------------------------------------------------------


def test_two_radii(tmp_path):
    path = tmp_path / "radii.csv"
    path.write_text("t_s,r1_nm,r1_nm_err,r2_nm,r2_nm_err\n0,2,0.02,1.2,0.05\n60,2.1,0.02,1.7,0.04\n")
    found = read_radii(path)
    np.testing.assert_array_equal(found.time_s, [0, 60])
    np.testing.assert_array_equal(found.r1_nm, [2, 2.1])
    np.testing.assert_array_equal(found.r1_error, [0.02, 0.02])
    np.testing.assert_array_equal(found.r2_nm, [1.2, 1.7])
    np.testing.assert_array_equal(found.r2_error, [0.05, 0.04])
    assert found.source == "radii.csv"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("t_s,r1_nm,r1_nm_err,r2_nm\n0,2,0.02,1.2\n", "r2_nm_err is missing"),
        ("t_s,r1_nm,r1_nm_err,r2_nm,r2_nm_err\n0,2,0.02,,\n", ":2:10: r2_nm: must not be empty"),
        ("t_s,r1_nm,r1_nm_err,r2_nm,r2_nm_err\n0,2,0.02,1,0\n", ":2:12: r2_nm_err: must be positive"),
        ("t_s,r1_nm,r1_nm_err,r2_nm,r2_nm_err\n5,2,1,1,1\n4,2,1,1,1\n", ":3:1: t_s: comes after"),
    ],
)
def test_two_radii_must_be_complete(tmp_path, text, hint):
    path = tmp_path / "radii.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=re.escape(hint)):
        read_radii(path)
