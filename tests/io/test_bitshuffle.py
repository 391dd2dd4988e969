"""A truncated bitshuffle chunk makes the HDF5 filter read past its end, sometimes with a crash: so it is not tried."""

import struct

import h5py
import hdf5plugin
import numpy as np
import pytest

from saxs_pipeline.io import bitshuffle
from saxs_pipeline.io.frames import open_frames

SHAPE = (123, 77)  # neither a multiple of the blocks nor of their groups of eight


@pytest.fixture(params=[np.uint16, np.uint32, np.float32], ids=lambda d: np.dtype(d).name)
def images(request):
    return np.random.default_rng(1).poisson(30, (6, *SHAPE)).astype(request.param)


def write(path, images, chunks=None, **filters):
    with h5py.File(path, "w") as file:
        file.attrs["NX_class"] = "NXroot"
        entry = file.create_group("entry_0000")
        entry.attrs["NX_class"] = "NXentry"
        instrument = entry.create_group("instrument")
        instrument.attrs["NX_class"] = "NXinstrument"
        detector = instrument.create_group("detector")
        detector.attrs["NX_class"] = "NXdetector"
        detector.create_dataset("data", data=images, chunks=chunks or (1, *images.shape[1:]), **filters)
    return path


def damage(path, frame, change):
    with h5py.File(path, "r+") as file:
        data = file["entry_0000/instrument/detector/data"]
        mask, content = data.id.read_direct_chunk((frame, 0, 0))
        data.id.write_direct_chunk((frame, 0, 0), change(content), mask)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
@pytest.mark.parametrize("chunks", [None, (2, 40, 77)])
def test_whole_chunks_are_whole(tmp_path, images, codec, chunks):
    path = write(tmp_path / "a.h5", images, chunks, **hdf5plugin.Bitshuffle(cname=codec))
    read, problems = open_frames([path]).read(range(6))
    assert problems == ("",) * 6
    np.testing.assert_array_equal(read, images)


@pytest.mark.parametrize("keep", [0.0, 0.0005, 0.3, 0.5, 0.9, 0.9999])
def test_a_chunk_cut_off_anywhere_is_unreadable_and_the_others_are_read(tmp_path, images, keep):
    path = write(tmp_path / "a.h5", images, **hdf5plugin.Bitshuffle(cname="lz4"))
    damage(path, 3, lambda content: content[: max(1, int(keep * len(content)))])
    for _ in range(5):  # without the check it depends on the memory layout whether this crashes
        read, problems = open_frames([path]).read(range(6))
        assert [k for k, p in enumerate(problems) if p] == [3]
        assert problems[3].startswith("unreadable: the chunk")
        np.testing.assert_array_equal(np.delete(read, 3, 0), np.delete(images, 3, 0))
        assert not read[3].any()


@pytest.mark.parametrize(
    "change",
    [
        lambda c: struct.pack(">Q", 2**40) + c[8:],
        lambda c: c[:8] + struct.pack(">I", 0) + c[12:],
        lambda c: c[:12] + struct.pack(">I", 2**31) + c[16:],
        lambda c: c + b"more",
    ],
    ids=["size", "block", "first block", "too long"],
)
def test_sizes_that_do_not_fit_are_not_believed(tmp_path, images, change):
    path = write(tmp_path / "a.h5", images, **hdf5plugin.Bitshuffle(cname="lz4"))
    damage(path, 2, change)
    _, problems = open_frames([path]).read(range(6))
    assert [k for k, p in enumerate(problems) if p] == [2]


def test_only_bitshuffle_is_looked_into(tmp_path, images):
    for name, filters in {"raw": {}, "gzip": {"compression": "gzip"}, "lz4": hdf5plugin.LZ4()}.items():
        with h5py.File(write(tmp_path / f"{name}.h5", images, **filters)) as file:
            assert not bitshuffle.is_bitshuffled(file["entry_0000/instrument/detector/data"])
    with h5py.File(write(tmp_path / "b.h5", images, **hdf5plugin.Bitshuffle(cname="lz4"))) as file:
        assert bitshuffle.is_bitshuffled(file["entry_0000/instrument/detector/data"])
