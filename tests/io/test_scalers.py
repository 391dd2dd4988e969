from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from saxs_pipeline.io.scalers import law_times, read_scalers
from saxs_pipeline.types import BadInput
from tests.io.beamline_files import group

N = 4
DEAD, LIVE = np.array([0.022, 0.023, 0.024, 0.025]), np.full(N, 0.075)
NAMES = ["TIME", "PIN1", "PIN2", "THC1"]
FACTORS = np.array([1e-6, 2.0, 3e-9, 0.001])
ZEROS = np.array([0.0, 100.0, 380.0, 170.0])
COUNTS = np.array([[75_000, 8_000 + k, 500_000 - 1000 * k, 52_000] for k in range(N)], dtype=np.uint32)


def write_id02(path: Path, mcs: dict[str, Any] | None = None, tfg: dict[str, Any] | None = None) -> Path:
    """A scalers file; None as a value leaves a member out."""
    counters = {"HS32C": COUNTS, "HS32F": FACTORS, "HS32Z": ZEROS, "HS32N": [n.encode() for n in NAMES], "HSTime": 1,
                "HSI0": 2, "HSI1": 3, "HSI0Factor": 10.0, "HSI1Factor": 0.5, "ShutterOpeningTime": "0.005 s",
                "ShutterClosingTime": "0.003 s"}  # fmt: skip
    timer = {"frame_time": np.column_stack([DEAD, LIVE]).ravel(), "HMStartTime": "2025-06-14T08:00:00.000000+0200"}
    with h5py.File(path, "w") as file:
        instrument = group(group(file, "entry_0000", "NXentry"), "id02", "NXinstrument")
        for name, members in (("MCS", counters | (mcs or {})), ("TFG", timer | (tfg or {}))):
            made = group(instrument, name, "NXcollection")
            for key, value in members.items():
                if value is not None:
                    made[key] = value
        group(instrument, "parameters", "NXcollection")["MachineInfo"] = "Ie=183mA"
    return path


def test_times_are_the_starts_of_the_live_frames(tmp_path: Path) -> None:
    scalers = read_scalers(write_id02(tmp_path / "s.h5"))
    assert scalers.kind == "id02" and scalers.times is not None and scalers.warnings == ()
    by_hand = [0.022, 0.022 + 0.075 + 0.023, 0.022 + 0.023 + 0.024 + 0.150, 0.022 + 0.023 + 0.024 + 0.025 + 0.225]
    np.testing.assert_allclose(scalers.times.start_s, by_hand)
    np.testing.assert_allclose(scalers.times.exposure_s, 0.075)
    recorded = {"frame_time": None, "delta_time": np.array(by_hand), "live_time": LIVE}
    other = read_scalers(write_id02(tmp_path / "t.h5", tfg=recorded)).times
    assert other is not None
    np.testing.assert_allclose(other.start_s, scalers.times.start_s)


def test_integrated_and_averaged_pins_and_shutter(tmp_path: Path) -> None:
    modes = [0, 0, 0, 1]
    monitors = read_scalers(write_id02(tmp_path / "s.h5", {"HS32M": modes})).monitors
    shutter = (0.075 - 0.005 + 0.003) / (0.075 - 0.005)
    for k in range(N):
        assert monitors["PIN1"][k] == pytest.approx((8000 + k - 100 * 0.075) * 2)
        assert monitors["THC1"][k] == pytest.approx((52_000 / 0.075 - 170) * 0.001)
        assert monitors["I0"][k] == pytest.approx((8000 + k - 100 * 0.075) * 2 * 10 * shutter)
        assert monitors["I1"][k] == pytest.approx((500_000 - 1000 * k - 380 * 0.075) * 3e-9 * 0.5 * shutter)
    np.testing.assert_allclose(monitors["exposure"], 0.075)


def test_the_exposure_is_what_the_time_pin_counted(tmp_path: Path) -> None:
    """C·F of the HSTime pin (formats.md §1.2), not the timer's set value; the shutter correction goes with it."""
    counted = COUNTS.copy()
    counted[:, 0] = [74_000, 75_000, 76_000, 70_000]
    monitors = read_scalers(write_id02(tmp_path / "s.h5", {"HS32C": counted})).monitors
    t = np.array([0.074, 0.075, 0.076, 0.070])
    np.testing.assert_allclose(monitors["exposure"], t)
    by_pin = monitors["PIN2"] * 0.5
    np.testing.assert_allclose(monitors["I1"], by_pin * (t - 0.005 + 0.003) / (t - 0.005))


def test_without_modes_all_pins_are_integrated_and_the_group_may_have_any_name(tmp_path: Path) -> None:
    path = write_id02(tmp_path / "s.h5")
    with h5py.File(path, "a") as file:
        file.move("entry_0000/id02", "entry_0000/beamline 7")
    monitors = read_scalers(path).monitors
    np.testing.assert_allclose(monitors["THC1"], (52_000 - 170 * 0.075) * 0.001)


@pytest.mark.parametrize(("i0", "i1"), [("PIN1", "PIN2"), ("2", "3"), (2.0, 3.0), (b"PIN1", 3)])
def test_pins_by_name_or_number(tmp_path: Path, i0: Any, i1: Any) -> None:
    expected = read_scalers(write_id02(tmp_path / "a.h5")).monitors
    found = read_scalers(write_id02(tmp_path / "b.h5", {"HSI0": i0, "HSI1": i1, "HSTime": "TIME"})).monitors
    for name in ("I0", "I1", "exposure"):
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("pin", [0, 5, "PIN9"])
def test_a_pin_that_is_not_there(tmp_path: Path, pin: Any) -> None:
    with pytest.raises(BadInput, match=r"HSI1 = .* is neither a pin number from 1 to 4 nor a name"):
        read_scalers(write_id02(tmp_path / "s.h5", {"HSI1": pin}))


def test_without_shutter_times_the_monitors_are_plain_and_said_so(tmp_path: Path) -> None:
    scalers = read_scalers(write_id02(tmp_path / "s.h5", {"ShutterOpeningTime": None, "ShutterClosingTime": None}))
    assert scalers.monitors["I0"][0] == pytest.approx((8000 - 7.5) * 20)
    assert "not corrected for the shutter" in scalers.warnings[0]


def test_shutter_times_as_numbers(tmp_path: Path) -> None:
    expected = read_scalers(write_id02(tmp_path / "a.h5")).monitors["I1"]
    found = read_scalers(write_id02(tmp_path / "b.h5", {"ShutterOpeningTime": 0.005, "ShutterClosingTime": "3 ms"}))
    np.testing.assert_allclose(found.monitors["I1"], expected)


def test_frames_shorter_than_the_shutter_have_no_monitor(tmp_path: Path) -> None:
    scalers = read_scalers(write_id02(tmp_path / "s.h5", {"ShutterOpeningTime": "0.1 s"}))
    assert np.isnan(scalers.monitors["I1"]).all() and "4 frames are shorter" in scalers.warnings[0]


def test_the_files_own_intensity_is_checked(tmp_path: Path) -> None:
    expected = read_scalers(write_id02(tmp_path / "a.h5")).monitors["I1"]
    same = read_scalers(write_id02(tmp_path / "b.h5", {"Intensity1ShutCor": expected.astype(np.float32)}))
    assert same.warnings == ()
    other = read_scalers(write_id02(tmp_path / "c.h5", {"Intensity1ShutCor": expected * 1.02}))
    assert "Intensity1ShutCor in the file differs" in other.warnings[0] and "2 %" in other.warnings[0]
    np.testing.assert_array_equal(other.monitors["I1"], expected)


def test_recorded_intensities_without_raw_counts(tmp_path: Path) -> None:
    recorded = {"HS32C": None, "Intensity1ShutCor": np.arange(N) + 1.0, "Intensity0UnCor": np.arange(N) + 2.0}
    scalers = read_scalers(write_id02(tmp_path / "s.h5", recorded))
    np.testing.assert_array_equal(scalers.monitors["I1"], [1, 2, 3, 4])
    np.testing.assert_array_equal(scalers.monitors["I0"], [2, 3, 4, 5])
    assert len(scalers.warnings) == 1 and scalers.warnings[0].startswith("I0 is not corrected")


def test_a_short_monitor_stays_short(tmp_path: Path) -> None:
    scalers = read_scalers(write_id02(tmp_path / "s.h5", {"HS32C": COUNTS[:3]}))
    assert scalers.monitors["I1"].shape == (3,) and scalers.times is not None and scalers.times.start_s.shape == (4,)


def test_contradictions_in_the_file(tmp_path: Path) -> None:
    for mcs, tfg, words in (
        ({"HS32C": np.vstack([COUNTS, COUNTS])}, None, "8 rows of counts but 4 live times"),
        ({"HS32F": FACTORS[:2]}, None, "HS32F has 2 values for 4 pins"),
        (None, {"delta_time": np.arange(3.0), "live_time": LIVE}, "3 start times but 4 live times"),
        ({"HS32C": COUNTS[0]}, None, "one row per frame"),
    ):
        with pytest.raises(BadInput, match=words):
            read_scalers(write_id02(tmp_path / "s.h5", mcs, tfg))


def test_a_file_with_two_scans(tmp_path: Path) -> None:
    path = write_id02(tmp_path / "s.h5")
    with h5py.File(path, "a") as file:
        file.copy("entry_0000", "entry_0001")
    with pytest.raises(BadInput, match="several scans"):
        read_scalers(path)


def test_hdf5_without_scalers_and_other_rubbish(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = 1
    (tmp_path / "empty.h5").touch()
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    write_id02(tmp_path / "cut.h5")
    (tmp_path / "cut.h5").write_bytes((tmp_path / "cut.h5").read_bytes()[:-2000])
    for name, words in (
        ("a.h5", "no scalers"),
        ("empty.h5", "0 bytes"),
        ("binary", "neither an HDF5"),
        ("cut.h5", "truncated"),
        ("none.h5", "No such file"),
    ):
        with pytest.raises(BadInput, match=words):
            read_scalers(tmp_path / name)


# --- CSV ---------------------------------------------------------------------------------------------------------

ROWS = ("0,0.022,0.075,1.5,2e-3", "1,0.12,0.075,1.6,", "2,0.219,0.075,1.7,4e-3")


@pytest.mark.parametrize("separator", [",", ";", "\t", "   "])
@pytest.mark.parametrize("top", ["", "# made by hand\n# ", "\ufeff"])
def test_csv(tmp_path: Path, separator: str, top: str) -> None:
    rows = [row.replace("6,", "6,nan").replace(",", separator) for row in ROWS]
    header = separator.join(("frame", "start_s", "exposure_s", "I0", "ion 2" if separator != "   " else "ion2"))
    (tmp_path / "s.csv").write_text(top + header + "\n" + "\n".join(rows) + "\n", encoding="utf-8")
    scalers = read_scalers(tmp_path / "s.csv")
    assert scalers.kind == "csv" and scalers.times is not None
    np.testing.assert_allclose(scalers.times.start_s, [0.022, 0.12, 0.219])
    np.testing.assert_allclose(scalers.monitors["exposure"], 0.075)
    second = scalers.monitors["ion2" if separator == "   " else "ion 2"]
    np.testing.assert_allclose(second, [2e-3, np.nan, 4e-3])
    assert set(scalers.monitors) == {"I0", "exposure", "ion2" if separator == "   " else "ion 2"}


def test_csv_empty_cells_and_words(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("file,I1\na.edf,1\nb.edf,\n")
    scalers = read_scalers(tmp_path / "s.csv")
    assert scalers.times is None and list(scalers.monitors) == ["I1"]
    np.testing.assert_array_equal(scalers.monitors["I1"], [1, np.nan])


def test_csv_start_without_exposure(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("start_s,I1\n0,1\n1,1\n")
    scalers = read_scalers(tmp_path / "s.csv")
    assert scalers.times is None and "without an exposure_s" in scalers.warnings[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("frame,I1\n0,1\n2,1\n", "line 3: the frame numbers"),
        ("frame,I1\n0,1\n1,x\n", "line 3: 'x' in column I1"),
        ("frame,I1\n0,1\n1\n", "line 3 has 1 cells"),
        ("frame,I1\n", "at least one row"),
        ("1,2\n3,4\n", "must name the columns"),
        ("I1,I1\n3,4\n", "same name"),
        ("a,b\nx,y\n", "no column of numbers"),
    ],
)
def test_csv_rubbish_names_the_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(BadInput, match=words):
        read_scalers(tmp_path / "s.csv")


# --- the timing law ----------------------------------------------------------------------------------------------


def test_law_of_prins() -> None:
    """575 frames of 75 ms, first wait 22 ms, growth 1.015: first period 97 ms, last gap 113 s, last start 7703 s."""
    times = law_times(575, 0.075, 0.022, 1.015)
    ends = times.start_s + times.exposure_s
    gaps = times.start_s[1:] - ends[:-1]
    assert ends[0] == pytest.approx(0.097)
    assert round(gaps[-1]) == 113 and round(times.start_s[-1]) == 7703
    np.testing.assert_allclose(gaps[1:] / gaps[:-1], 1.015)
    closed = 574 * 0.075 + 0.022 * (1.015**575 - 1) / 0.015
    assert times.start_s[-1] == pytest.approx(closed, rel=1e-12)


def test_law_equals_the_timer_file(tmp_path: Path) -> None:
    times = law_times(N, 0.075, 0.022, 1.1)
    dead = 0.022 * 1.1 ** np.arange(N)
    frame_time = np.column_stack([dead, LIVE]).ravel()
    from_file = read_scalers(write_id02(tmp_path / "s.h5", tfg={"frame_time": frame_time})).times
    assert from_file is not None
    np.testing.assert_allclose(from_file.start_s, times.start_s)


@pytest.mark.parametrize("law", [(0, 1, 1, 1), (3, 0, 1, 1), (3, 1, -1, 1), (3, 1, 1, 0), (3, float("nan"), 1, 1)])
def test_law_that_is_none(law: tuple[int, float, float, float]) -> None:
    with pytest.raises(BadInput, match=r"data\.time\.law"):
        law_times(*law)
