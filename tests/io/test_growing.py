"""Scans that grow: what is completely on disk, when they have ended, and what tells one recording from another."""

from __future__ import annotations

import os
import pickle
import shutil
import time
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest

from saxs_pipeline import runfile
from saxs_pipeline.io.frames import open_frames
from saxs_pipeline.io.scalers import read_scalers
from saxs_pipeline.runfile import RunFile
from saxs_pipeline.series import open_sample
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


def filtered(layout: dict[str, object]) -> bool:
    """Whether what is stored cannot be there in parts."""
    return len(layout) > 1


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_preallocated_stack_is_as_long_as_what_was_written(tmp_path, layout):
    images, path = counts(6), tmp_path / "scan_00.h5"
    growing(path, 6, layout)
    for k in range(4):
        append(path, k, images[k], 0.1 * k)
        found, last = progress(path), k
        if k == 0 and not layout:
            last = -1  # its time is zero as if not recorded: without chunks only the next frame tells
        assert found.complete.tolist() == [True] * (last + 1) + [False] * (5 - last)
        assert (found.ended, found.expected) == (False, 6)
        by_time_alone = k == 0 and layout and not filtered(layout)
        assert found.sure[found.complete].all() == (not by_time_alone)
    end(path)  # aborted: no more will come, and what is missing is said to be
    assert progress(path).ended and progress(path).complete.all()


def plain(path: Path, images: np.ndarray, **layout: object) -> h5py.Dataset:
    """An image stack as another program writes it, without times or an end: allocated, nothing in it."""
    file = h5py.File(path, "w")
    file.create_group("entry").attrs["NX_class"] = "NXentry"
    return file.create_dataset("entry/data", images.shape, images.dtype, **layout)


def overwrite(path: Path, place: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)


def place_of(path: Path, frame: int) -> int:
    """Where a frame that is not compressed is in its file, in bytes."""
    with h5py.File(path) as file:
        data = file["entry/data"]
        if data.chunks:
            return int(data.id.get_chunk_info_by_coord((frame, 0, 0)).byte_offset)
        return int(data.id.get_offset() + frame * data[0].nbytes)


def test_without_chunks_a_torn_frame_is_not_complete_before_the_next_one_begins(tmp_path):
    images, path = counts(4, shape=(128, 128)) + 1, tmp_path / "scan.h5"
    plain(path, images).file.close()
    assert not progress(path).complete.any()  # no space in the file yet
    with h5py.File(path, "r+") as file:
        file["entry/data"][0] = images[0]
    for half in (slice(64), slice(64, None)):
        with h5py.File(path, "r+") as file:
            file["entry/data"][1, half] = images[1, half]
        assert progress(path).complete.tolist() == [True, False, False, False]
    with h5py.File(path, "r+") as file:
        file["entry/data"][2] = images[2]
    assert progress(path).complete.tolist() == [True, True, False, False]


def test_the_last_chunk_that_is_not_compressed_is_sure_with_its_time_or_a_later_one(tmp_path):
    """Its second half may still be on its way: it counts when it is unchanged at a second look."""
    images, path = counts(4, shape=(128, 128)) + 1, tmp_path / "scan.h5"
    plain(path, images, chunks=(1, 128, 128)).file.close()
    torn = images[1].copy()
    torn[64:] = 0
    for k, image, sure in ((0, images[0], [False]), (1, torn, [True, False]), (1, images[1], [True, False])):
        with h5py.File(path, "r+") as file:
            file["entry/data"][k] = image
        found = progress(path)
        assert found.complete.tolist() == [True] * (k + 1) + [False] * (3 - k)
        assert found.sure[: k + 1].tolist() == sure
    timed = growing(tmp_path / "timed.h5", 4, {"chunks": (1, *SHAPE)})
    for k in (0, 1):
        append(timed, k, counts(4)[k], 0.1 * k)
    assert progress(timed).sure[:2].all()


def test_without_chunks_every_byte_of_a_frame_counts_in_its_identity(tmp_path):
    images, path = counts(2, shape=(128, 128)) + 1, tmp_path / "scan.h5"
    plain(path, images)[:] = images
    before = identity(path, 0), identity(path, 1)
    overwrite(path, place_of(path, 0) + 2000, b"\xff")  # between samples of the frame
    assert identity(path, 0) != before[0] and identity(path, 1) == before[1]


def test_chunks_allocated_early_are_not_complete(tmp_path):
    images, path = counts(4) + 1, tmp_path / "scan.h5"
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((1, *SHAPE))
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    with h5py.File(path, "w") as file:
        file.create_group("entry").attrs["NX_class"] = "NXentry"
        space = h5py.h5s.create_simple(images.shape)
        h5py.h5d.create(file["entry"].id, b"data", h5py.h5t.NATIVE_UINT16, space, properties)
    assert not progress(path).complete.any()
    for k in (0, 1):
        with h5py.File(path, "r+") as file:
            file["entry/data"][k] = images[k]
        assert progress(path).complete.tolist() == [True] * (k + 1) + [False] * (3 - k)


def virtual(path: Path, images: np.ndarray, parts: dict[str, slice]) -> Path:
    layout = h5py.VirtualLayout(images.shape, images.dtype)
    for name, frames in parts.items():
        layout[frames] = h5py.VirtualSource(name, "entry/data", images[frames].shape)
    with h5py.File(path, "w") as file:
        file.create_group("entry").attrs["NX_class"] = "NXentry"
        file["entry"].create_virtual_dataset("data", layout)
    return path


def test_a_virtual_dataset_is_as_long_as_its_files(tmp_path):
    images = counts(4) + 1
    plain(tmp_path / "a.h5", images[:2])[:] = images[:2]
    plain(tmp_path / "b.h5", images[2:], chunks=(1, *SHAPE), compression="gzip")[0] = images[2]
    path = virtual(tmp_path / "whole.h5", images, {"a.h5": slice(0, 2), "b.h5": slice(2, 4)})
    found, before = progress(path), identity(path, 0)
    assert found.complete.tolist() == [True, True, True, False] and not found.sure.any()
    assert open_frames([path]).info.paths == (path, tmp_path / "a.h5", tmp_path / "b.h5")
    with h5py.File(tmp_path / "b.h5", "r+") as file:
        file["entry/data"][1] = images[3]
    assert progress(path).complete.all() and identity(path, 0) != before
    (tmp_path / "b.h5").write_bytes(b"")  # copied again just now
    assert progress(path).complete.tolist() == [True, True, False, False]


def test_a_virtual_dataset_may_take_its_frames_in_turn_and_in_parts(tmp_path):
    images, half = counts(4) + 1, SHAPE[0] // 2
    for name, n in (("a.h5", 2), ("b.h5", 1)):
        plain(tmp_path / name, images[:2], chunks=(1, *SHAPE))[:n] = images[:n]
    sources = [h5py.VirtualSource(name, "entry/data", images[:2].shape) for name in ("a.h5", "b.h5")]
    turns, parts = (h5py.VirtualLayout(shape, images.dtype) for shape in (images.shape, images[:2].shape))
    for k, source in enumerate(sources):
        turns[k::2] = source
        parts[:, k * half : (k + 1) * half] = source[:, :half]
    for layout, expected in ((turns, [True, True, True, False]), (parts, [True, False])):
        with h5py.File(tmp_path / "whole.h5", "w") as file:
            file.create_virtual_dataset("data", layout)
        assert progress(tmp_path / "whole.h5").complete.tolist() == expected


def run_over(path: Path) -> RunFile:
    text = f"""
title: a scan that grows
data: {{frames: {path.name}, time: {{source: law, law: {{exposure: 1 s, wait: 1 s}}}}}}
geometry: {{header: true}}
corrections: {{gain: 1, read_noise: 0, polarization: 1}}
integration: {{bins: 10, q_min: 0.1 1/nm, q_max: 1 1/nm}}
intensity: {{monitor: none}}
"""
    file = path.parent / "run.yaml"
    file.write_text(text)
    return runfile.load(file)


def master(folder: Path, images: np.ndarray) -> Path:
    """A master file whose frames are in a file beside it, which will grow."""
    data = plain(folder / "data.h5", images, chunks=(1, *SHAPE), maxshape=(None, *SHAPE))
    data[:] = images
    data.file.close()
    with h5py.File(folder / "master.h5", "w") as file:
        file.create_group("entry").attrs["NX_class"] = "NXentry"
        file["entry"].create_group("data").attrs["NX_class"] = "NXdata"
        file["entry/data/data_000001"] = h5py.ExternalLink("data.h5", "/entry/data")
    return folder / "master.h5"


def test_a_master_file_is_as_long_as_the_file_it_links_to(tmp_path):
    images = counts(3) + 1
    run = run_over(master(tmp_path, images[:2]))
    before = open_sample(run, growing=True)
    assert before.info.paths == (tmp_path / "master.h5", tmp_path / "data.h5")
    assert before.read(0, 2).problems == ("", "")
    with h5py.File(tmp_path / "data.h5", "r+") as file:
        file["entry/data"].resize(3, axis=0)
        file["entry/data"][2] = images[2]
    after = open_sample(run, growing=True)
    assert after.identity != before.identity
    assert after.progress().complete.tolist() == [True] * 3
    assert after.identities()[:2] == before.identities() and len(after.identities()) == 3
    np.testing.assert_array_equal(after.read(0, 3).images, images)


def test_a_file_that_grows_within_one_tick_of_its_clock_is_read_anew(tmp_path):
    images = counts(3) + 1
    run = run_over(master(tmp_path, images))
    place, whole = tmp_path / "data.h5", (tmp_path / "data.h5").read_bytes()
    with h5py.File(place, "r+") as file:
        file["entry/data"].resize(2, axis=0)
    short = place.read_bytes() + bytes(max(0, len(whole) - place.stat().st_size))
    series = []
    for content in (short, whole + bytes(len(short) - len(whole))):
        place.write_bytes(content)
        os.utime(place, (1, 1))
        series.append(open_sample(run, growing=True))
        series[-1].read(0, 1)
    assert series[0].identity == series[1].identity
    assert [len(one.identities()) for one in series] == [len(one.progress().complete) for one in series] == [2, 3]
    assert series[1].read(2, 3).problems == ("",) and series[0].read(0, 2).problems == ("", "")


def test_a_frame_that_is_no_longer_there_is_unreadable(tmp_path):
    images = counts(3) + 1
    series = open_sample(run_over(master(tmp_path, images)))
    with h5py.File(tmp_path / "data.h5", "r+") as file:
        file["entry/data"].resize(1, axis=0)
    found = series.read(0, 3)
    assert found.problems[0] == "" and all(problem.startswith("unreadable") for problem in found.problems[1:])
    np.testing.assert_array_equal(found.images[0], images[0])


def test_what_a_look_found_stays_in_its_process(tmp_path):
    run = run_over(master(tmp_path, counts(2) + 1))
    series = open_sample(run, growing=True)
    sent = pickle.dumps(series)
    assert series.identities()[0].encode() not in sent
    assert pickle.loads(sent).identities() == series.identities()
    batch = open_sample(run)
    assert batch.identities()[0].encode() not in pickle.dumps(batch)


def test_marks_are_carried_from_look_to_look_and_never_into_a_batch(tmp_path):
    run = run_over(master(tmp_path, counts(3) + 1))
    before = open_sample(run, growing=True).identities()
    for k in (0, 2):
        overwrite(tmp_path / "data.h5", place_of(tmp_path / "data.h5", k), b"\xff\xff")
    looked, batch = open_sample(run, growing=True).identities(), open_sample(run).identities()
    assert looked[0] == before[0] and looked[2] != before[2]  # the last frame may still have been under way
    assert [a == b for a, b in zip(batch, before, strict=True)] == [False, True, False]
    shutil.copyfile(tmp_path / "data.h5", tmp_path / "copy.h5")
    (tmp_path / "copy.h5").replace(tmp_path / "data.h5")  # another file now
    assert open_sample(run, growing=True).identities() == batch


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
    assert found.complete.all() and not found.ended and not found.sure.any() and found.expected is None
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
