"""Frames read past HDF5 are those that h5py reads; whatever is stored otherwise is left to h5py."""

from concurrent.futures import ThreadPoolExecutor

import h5py
import hdf5plugin
import numpy as np
import pytest

from saxs_pipeline.io import direct_chunks, hdf5_frames
from saxs_pipeline.io.frames import open_frames
from tests.io.test_bitshuffle import damage, write

FILTERS = {
    "raw": {},
    "gzip": {"compression": "gzip"},
    "bitshuffle-lz4": dict(hdf5plugin.Bitshuffle(cname="lz4")),
    "bitshuffle-zstd": dict(hdf5plugin.Bitshuffle(cname="zstd")),
}
DATA = "entry_0000/instrument/detector/data"


def images(dtype="uint16", n=6, shape=(123, 77)):
    return np.random.default_rng(1).poisson(30, (n, *shape)).astype(dtype)


def direct(path):
    """The reader of a file's images, None where h5py must read them."""
    with h5py.File(path) as file:
        return direct_chunks.reader(path, file[DATA], hdf5_frames.stored(file[DATA]))


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64"])
def test_frames_are_those_that_h5py_reads(tmp_path, name, dtype):
    path = write(tmp_path / "a.h5", images(dtype), **FILTERS[name])
    out = np.zeros((3, 123, 77), dtype)
    reader = direct(path)
    assert reader is not None
    assert reader.read(2, out) == [""] * 3
    with h5py.File(path) as file:
        np.testing.assert_array_equal(out, file[DATA][2:5])


def test_frames_that_lie_one_after_the_other(tmp_path):
    with h5py.File(write(tmp_path / "a.h5", images()), "r+") as file:
        del file[DATA]
        file[DATA] = images()
    out = np.zeros((6, 123, 77), np.uint16)
    assert direct(tmp_path / "a.h5").read(0, out) == [""] * 6
    np.testing.assert_array_equal(out, images())


@pytest.mark.parametrize("name", FILTERS)
def test_threads_get_their_own_frames(tmp_path, name):
    path = write(tmp_path / "a.h5", images(n=40), **FILTERS[name])
    source = open_frames([path])
    with ThreadPoolExecutor(4) as pool:
        for k, (read, problems) in enumerate(pool.map(lambda k: source.read([k]), list(range(40)) * 3)):
            assert problems == ("",)
            np.testing.assert_array_equal(read[0], images(n=40)[k % 40])


@pytest.mark.parametrize(
    "layout",
    [
        {"chunks": (2, 123, 77)},
        {"chunks": (1, 60, 77)},
        {"compression": "gzip", "shuffle": True},
        dict(hdf5plugin.LZ4()),
        {"fletcher32": True},
    ],
    ids=str,
)
def test_other_layouts_are_left_to_h5py(tmp_path, layout):
    path = write(tmp_path / "a.h5", images(), **layout)
    assert direct(path) is None
    np.testing.assert_array_equal(open_frames([path]).read(range(6))[0], images())


def test_big_endian_images_and_a_block_of_the_users_before_the_file(tmp_path):
    path = write(tmp_path / "a.h5", images(">u2"))
    assert direct(path) is None
    np.testing.assert_array_equal(open_frames([path]).read(range(6))[0], images())
    with h5py.File(path) as file, h5py.File(tmp_path / "b.h5", "w", userblock_size=512) as other:
        file.copy(file["entry_0000"], other)
        del other[DATA]
        other[DATA] = images()
    assert direct(tmp_path / "b.h5") is None


def test_a_chunk_that_skipped_its_filter(tmp_path):
    path = write(tmp_path / "a.h5", images(), **FILTERS["bitshuffle-lz4"])
    with h5py.File(path, "r+") as file:
        file[DATA].id.write_direct_chunk((3, 0, 0), images()[3].tobytes(), 1)
    assert direct(path) is None
    np.testing.assert_array_equal(open_frames([path]).read(range(6))[0], images())


@pytest.mark.parametrize("name", ["gzip", "bitshuffle-lz4", "bitshuffle-zstd"])
def test_damaged_bytes_never_end_the_process_nor_touch_other_frames(tmp_path, name):
    """What is stored inside a compressed block may be anything: the frame is unreadable or wrong, no more."""
    path = write(tmp_path / "a.h5", images(), **FILTERS[name])
    with h5py.File(path) as file:
        _, whole = file[DATA].id.read_direct_chunk((2, 0, 0))
    rng = np.random.default_rng(4)
    for _ in range(60):
        content = bytearray(whole)
        for at in rng.integers(0, len(whole), 4):
            content[at] = rng.integers(256)
        damage(path, 2, lambda _, content=bytes(content): content)
        read, problems = open_frames([path]).read(range(6))
        assert [k for k, problem in enumerate(problems) if problem] in ([], [2])
        np.testing.assert_array_equal(np.delete(read, 2, 0), np.delete(images(), 2, 0))


def test_a_frame_that_is_written_later_is_found(tmp_path):
    path = tmp_path / "a.h5"
    write(path, images(n=2))
    with h5py.File(path, "r+") as file:
        del file[DATA]
        data = file.create_dataset(DATA, (6, 123, 77), "uint16", chunks=(1, 123, 77))
        data[:4] = images()[:4]
    source = open_frames([path])
    assert source.read([3, 4])[1] == ("", "not_recorded: the frame was never written to the file")
    source.close()
    with h5py.File(path, "r+") as file:
        file[DATA][4] = images()[4]
    read, problems = source.read([3, 4])
    assert problems == ("", "")
    np.testing.assert_array_equal(read, images()[3:5])


def test_a_file_that_became_shorter_is_unreadable_from_there_on(tmp_path):
    path = write(tmp_path / "a.h5", images())
    reader = direct(path)
    with path.open("r+b") as file:
        file.truncate(int(reader.places.offset.max()))
    out = np.zeros((6, 123, 77), np.uint16)
    problems = reader.read(0, out)
    assert problems[int(reader.places.offset.argmax())] == "unreadable: the file ends before it"
    assert problems.count("") == 5


def test_another_file_under_the_same_name_is_read_anew(tmp_path):
    """As a copy that is put in place again: its frames may lie elsewhere."""
    path = write(tmp_path / "a.h5", images())
    source = open_frames([path])
    np.testing.assert_array_equal(source.read([0, 5])[0], images()[[0, 5]])
    source.close()
    with h5py.File(tmp_path / "b.h5", "w") as other, h5py.File(path) as file:
        other["before"] = np.full(5000, 9)
        file.copy("entry_0000", other)
    (tmp_path / "b.h5").replace(path)
    read, problems = source.read([0, 5])
    assert problems == ("", "")
    np.testing.assert_array_equal(read, images()[[0, 5]])


def test_a_small_dataset_inside_the_headers_of_its_file(tmp_path):
    path = write(tmp_path / "a.h5", images(n=2, shape=(16, 16)))
    with h5py.File(path, "r+") as file:
        del file[DATA]
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((2, 16, 16))
        where = file["entry_0000/instrument/detector"].id
        h5py.h5d.create(where, b"data", h5py.h5t.NATIVE_UINT16, space, layout)
        file[DATA][...] = images(n=2, shape=(16, 16))
    assert direct(path) is None
    read, problems = open_frames([path]).read(range(2))
    assert problems == ("", "")
    np.testing.assert_array_equal(read, images(n=2, shape=(16, 16)))
