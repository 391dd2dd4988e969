"""SasView's own loader (sasdata) reads every exported curve back, in its units."""

from __future__ import annotations

import warnings
from dataclasses import replace

import h5py
import numpy as np
import pytest

from saxs_pipeline.outputs import nxcansas, tables
from tests.outputs.known_run import BAD_FRAMES, HOSTILE_TITLE, make_result, only

GOOD = [frame for frame in range(120) if frame not in BAD_FRAMES]


@pytest.fixture(scope="module")
def run():
    return make_result(120, 60)


def load(path):
    with warnings.catch_warnings():  # what other people's loaders warn of is not ours to fail on
        warnings.simplefilter("ignore")
        from sasdata.dataloader.loader import Loader

        return Loader().load(str(path))


@pytest.fixture(scope="module")
def loaded(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("nxcansas") / "run_nxcansas.h5"
    nxcansas.write(run, path)
    return load(path)


def test_every_usable_frame_is_one_curve_in_order(loaded):
    assert [int(data.run[0]) for data in loaded] == GOOD


def test_every_curve_is_equal_in_1_per_angstrom_and_1_per_cm(run, loaded):
    for frame, data in zip(GOOD, loaded, strict=True):
        assert data.errors == []
        np.testing.assert_allclose(data.x, run.curves.q_nm[1:] / 10, rtol=1e-6)
        np.testing.assert_allclose(data.y, run.curves.intensity[frame, 1:] * 10, rtol=1e-6)
        np.testing.assert_allclose(data.dy, run.curves.sigma[frame, 1:] * 10, rtol=1e-6)
        assert (data.x_unit, data.y_unit) == ("A^{-1}", "cm^{-1}")
        assert data.dx is None


def test_titles_tell_frame_time_and_flag(loaded):
    by_frame = {int(data.run[0]): data for data in loaded}
    assert by_frame[40].title.startswith(f"{HOSTILE_TITLE}, frame 40, t = ")
    assert by_frame[40].title.endswith(" s")
    assert by_frame[28].title.endswith(", sigma_upper_limit")


def test_wavelength_and_distance_arrive(loaded):
    assert loaded[0].source.wavelength == pytest.approx(0.6888)
    assert loaded[0].source.wavelength_unit == "angstrom"
    assert len(loaded[0].detector) == len(loaded[-1].detector) == 1


def test_frames_may_have_different_masked_bins(run, tmp_path):
    few = only(run, [50, 51])
    intensity = few.curves.intensity.copy()
    intensity[1, 20:30] = np.nan
    nxcansas.write(replace(few, curves=replace(few.curves, intensity=intensity)), tmp_path / "x.h5")
    first, second = load(tmp_path / "x.h5")
    assert (first.x.size, second.x.size) == (59, 49)
    np.testing.assert_allclose(second.x, run.curves.q_nm[np.r_[1:20, 30:60]] / 10, rtol=1e-6)


def test_order_survives_frame_numbers_of_different_length(run, tmp_path):
    few = only(run, [50, 51, 52])
    curves = replace(few.curves, index=np.array([9, 100_000, 1_000_000]))
    nxcansas.write(replace(few, curves=curves), tmp_path / "x.h5")
    assert [data.run[0] for data in load(tmp_path / "x.h5")] == ["9", "100000", "1000000"]


def test_uncalibrated_intensities_are_called_arbitrary(run, tmp_path):
    few = only(run, [50])
    nxcansas.write(replace(few, curves=replace(few.curves, unit="a.u.")), tmp_path / "x.h5")
    (data,) = load(tmp_path / "x.h5")
    np.testing.assert_allclose(data.y, run.curves.intensity[50, 1:], rtol=1e-6)
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["frame_00050/sasdata/I"].attrs["units"] == "arbitrary"


def test_no_usable_frame_makes_an_empty_file(run, tmp_path):
    nxcansas.write(only(run, [13, 16]), tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        assert list(file) == []


def test_the_same_run_gives_the_same_bytes(run, tmp_path):
    for name in "ab":
        nxcansas.write(only(run, range(20)), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_text_curve_is_read_as_columns(run, tmp_path):
    tables.write_curves(run, tmp_path, [100])
    (data,) = load(tmp_path / "frame_00100.dat")
    np.testing.assert_allclose(data.x, run.curves.q_nm[1:], rtol=1e-9)
    np.testing.assert_allclose(data.y, run.curves.intensity[100, 1:], rtol=1e-9)
    np.testing.assert_allclose(data.dy, run.curves.sigma[100, 1:], rtol=1e-9)
