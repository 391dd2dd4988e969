"""Scans that grow: what is completely on disk, when they have ended, and what tells one recording from another."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from saxs_pipeline.io.frames import open_frames
from saxs_pipeline.io.scalers import read_scalers
from saxs_pipeline.types import BadInput, Progress
from tests.io.beamline_files import SHAPE, counts, write_cbf, write_edf, write_lima
from tests.io.test_fio import write_fio

LAYOUTS = {
    "bitshuffle": {"chunks": (1, *SHAPE), **hdf5plugin.Bitshuffle(cname="lz4")},
    "gzip": {"chunks": (1, *SHAPE), "compression": "gzip"},
    "raw chunks": {"chunks": (1, *SHAPE)},
    "split chunks": {"chunks": (1, SHAPE[0] // 2, SHAPE[1])},
    "contiguous": {},
}


def growing(path: Path, n: int, layout: dict[str, object], announced: int | None = None) -> Path:
    """A LImA file whose dataset is allocated for n frames, none of them written."""
    with h5py.File(path, "w") as file:
        _allocate(file, n, layout, announced)
    return path


def _allocate(file: h5py.File, n: int, layout: dict[str, object], announced: int | None) -> None:
    detector = file.create_group("entry_0000/ESRF-ID02/rayonix")
    for place, kind in (("entry_0000", "NXentry"), ("entry_0000/ESRF-ID02", "NXinstrument")):
        file[place].attrs["NX_class"] = kind
    detector.attrs["NX_class"] = "NXdetector"
    file["entry_0000/start_time"] = "2025-06-14T08:00:00"
    detector.create_dataset("data", (n, *SHAPE), np.uint16, **layout)
    detector.create_dataset("time_of_frame", (n,), float)
    detector["acquisition/exposure_time"] = 0.1
    detector["acquisition/nb_frames"] = n if announced is None else announced


def append(path: Path, k: int, image: np.ndarray, time_s: float | None) -> None:
    """A frame more; the file is closed in between, as HDF5 in one process would not read it anew otherwise."""
    with h5py.File(path, "r+") as file:
        detector = file["entry_0000/ESRF-ID02/rayonix"]
        detector["data"][k] = image
        if time_s is not None:
            detector["time_of_frame"][k] = time_s


def end(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["entry_0000/end_time"] = "2025-06-14T08:00:01"


def progress(*paths: Path) -> Progress:
    source = open_frames(paths)
    found = source.progress()
    source.close()
    return found


def identity(path: Path, k: int) -> str:
    source = open_frames([path])
    found = source.identity(k)
    source.close()
    return found


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_preallocated_stack_is_as_long_as_what_was_written(tmp_path, layout):
    images, path = counts(6), tmp_path / "scan_00.h5"
    growing(path, 6, layout)
    for k in range(4):
        append(path, k, images[k], 0.1 * k)
        found = progress(path)
        assert found.complete.tolist() == [True] * (k + 1) + [False] * (5 - k)
        assert (found.ended, found.expected, found.sure) == (False, 6, True)
    end(path)  # aborted: no more will come, and what is missing is said to be
    assert progress(path).ended and progress(path).complete.all()


def test_a_frame_without_its_time_is_not_complete(tmp_path):
    images, path = counts(3), tmp_path / "scan_00.h5"
    growing(path, 3, LAYOUTS["bitshuffle"])
    for k, time_s in enumerate((0.0, 0.1, None)):
        append(path, k, images[k], time_s)
    assert progress(path).complete.tolist() == [True, True, False]


def test_a_frame_written_before_an_earlier_one_leaves_a_gap(tmp_path):
    images, path = counts(3), tmp_path / "scan_00.h5"
    growing(path, 3, LAYOUTS["bitshuffle"])
    for k in (0, 2):
        append(path, k, images[k], 0.1 * k)
    assert progress(path).complete.tolist() == [True, False, True]


def test_an_acquisition_in_several_files_ends_with_its_last_frame(tmp_path):
    images = counts(4)
    for number in range(2):
        path = growing(tmp_path / f"scan_{number:02}.h5", 2, LAYOUTS["bitshuffle"], announced=4)
        for k in range(2):
            append(path, k, images[2 * number + k], 0.1 * (2 * number + k))
        end(path)
        found = progress(*sorted(tmp_path.glob("*.h5")))
        assert (found.ended, found.expected) == (number == 1, 4)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_frame_keeps_its_identity_while_the_file_grows(tmp_path, layout):
    images, path = counts(3), tmp_path / "scan_00.h5"
    growing(path, 3, layout)
    append(path, 0, images[0], 0.0)
    append(path, 1, images[1], 0.1)
    before = [identity(path, k) for k in range(2)]
    append(path, 2, images[2], 0.2)
    assert [identity(path, k) for k in range(2)] == before
    assert len({*before, identity(path, 2)}) == 3
    append(path, 1, images[1] + 1, 0.1)  # recorded again
    assert identity(path, 1) != before[1]


def test_a_copied_stack_keeps_its_identities(tmp_path):
    path = write_lima(tmp_path / "scan_00.h5", counts(3))
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / path.name
    shutil.copyfile(path, copy)
    os.utime(copy, (1, 1))
    sources = open_frames([path]), open_frames([copy])
    assert [sources[0].identity(k) for k in range(3)] == [sources[1].identity(k) for k in range(3)]


def test_files_of_a_folder_are_told_apart_by_size_and_time(tmp_path):
    image = counts(1)[0]
    paths = [write_edf(tmp_path / f"a_{k}.edf", [image]) for k in range(2)]
    source = open_frames(paths)
    found = source.progress()
    assert found.complete.all() and not found.ended and not found.sure and found.expected is None
    first = source.identity(0), source.identity(1)
    assert first[0] != first[1]
    time.sleep(0.01)
    write_edf(paths[1], [image + 1])
    again = open_frames(paths)
    assert again.identity(0) == first[0] and again.identity(1) != first[1]


def test_a_file_that_is_not_readable_yet_is_not_complete(tmp_path):
    paths = [write_edf(tmp_path / f"a_{k}.edf", [image]) for k, image in enumerate(counts(2))]
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[:200])
    assert open_frames(paths).progress().complete.tolist() == [True, False]
    time.sleep(0.01)
    paths[1].write_bytes(whole)
    assert open_frames(paths).progress().complete.tolist() == [True, True]


def test_rows_of_a_running_fio_scan(tmp_path):
    images = counts(3)
    for k in range(2):
        write_cbf(tmp_path / f"img_{k:05}.cbf", images[k].astype(np.int32))
    detectors = {"pilatus": (str(tmp_path), "img_%05d.cbf")}
    rows = [f" {k * 0.5} {k} {100 + k}" for k in range(3)]
    path = write_fio(tmp_path / "scan.fio", rows, detectors, end="")
    found = open_frames([path]).progress()
    assert found.complete.tolist() == [True, True, False]
    assert (found.ended, found.expected) == (False, 720)
    write_cbf(tmp_path / "img_00002.cbf", images[2].astype(np.int32))
    write_fio(tmp_path / "scan.fio", rows, detectors)
    found = open_frames([path]).progress()
    assert found.complete.all() and found.ended


def test_a_row_being_written_is_left_out(tmp_path):
    write_cbf(tmp_path / "img_00000.cbf", counts(1)[0].astype(np.int32))
    path = write_fio(tmp_path / "scan.fio", [" 0.0 0 100"], {"pilatus": (str(tmp_path), "img_%05d.cbf")}, end="")
    text = path.read_text().rstrip("\n") + "\n"
    path.write_text(text + " 0.5 1 10")  # the monitor will be 101
    assert open_frames([path]).info.n_frames == 1
    table = tmp_path / "scalers.csv"
    table.write_text("start_s,exposure_s,I1\n0,0.1,100\n1,0.1,1")
    assert read_scalers(table, growing=True).monitors["I1"].tolist() == [100]
    assert read_scalers(table).monitors["I1"].tolist() == [100, 1]  # finished: an editor may leave out the last newline
    table.write_text("start_s,exp")
    with pytest.raises(BadInput, match="header line"):
        read_scalers(table, growing=True)
