from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from saxs_pipeline.io.frames import identify, open_frames
from saxs_pipeline.types import BadInput
from tests.io.beamline_files import HEADER, SHAPE, counts, marccd_bytes, tiff_bytes, write_cbf, write_edf

REAL = Path(os.environ.get("SAXS_REAL_DATA", Path(__file__).parents[2] / ".." / "shared" / "data")) / "pilatus1m_agbh"


# --- EDF ---------------------------------------------------------------------------------------------------------


def test_edf_sequence_under_any_name(tmp_path: Path) -> None:
    images = counts(3)
    keys = [HEADER | {"ExposureTime": "0.075", "Intensity1": str(1e-6 * k), "Title": "a"} for k in range(1, 4)]
    paths = [write_edf(tmp_path / f"f_{k}.dat", [images[k]], [keys[k]]) for k in range(3)]
    assert identify(paths[0]) == "edf"
    source = open_frames(paths)
    read, problems = source.read([2, 0, 1])
    np.testing.assert_array_equal(read, images[[2, 0, 1]])
    assert problems == ("",) * 3 and source.label(2) == "f_2.dat"
    info = source.info
    assert info.geometry is not None and info.geometry.poni1_m == pytest.approx(11.5 * 0.00035)
    assert info.dummy == 65535 and info.times is None
    np.testing.assert_allclose(info.monitors["I1"], [1e-6, 2e-6, 3e-6])


def test_edf_error_blocks_are_not_frames(tmp_path: Path) -> None:
    images = counts(3).astype(np.float32)
    blocks = [block for k, image in enumerate(images, start=1) for block in (image, np.sqrt(image))]
    names = [f"{k}.Image.{kind}" for k in (1, 2, 3) for kind in ("Psd", "Error")]
    path = write_edf(tmp_path / "a.edf", blocks, [HEADER | {"EDF_DataBlockID": name} for name in names])
    source = open_frames([path])
    assert source.info.n_frames == 3
    read, problems = source.read([0, 1, 2])
    np.testing.assert_array_equal(read, images)
    assert problems == ("",) * 3 and source.label(1) == "a.edf frame 1"


def test_edf_times_from_header(tmp_path: Path) -> None:
    keys = [HEADER | {"ExposureTime": "0.075 s", "HMDeltaTime": str(0.1 * k)} for k in range(2)]
    times = open_frames([write_edf(tmp_path / "a.edf", list(counts(2)), keys)]).info.times
    assert times is not None
    np.testing.assert_allclose(times.start_s + 0.5 * times.exposure_s, [0.0375, 0.1375])


def test_edf_cut_short_is_unreadable_not_zeros(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", list(counts(2)))
    path.write_bytes(path.read_bytes()[:-10])
    read, problems = open_frames([path]).read([0, 1])
    assert problems[0] == "" and problems[1].startswith("unreadable: file truncated")
    assert read[0].any() and not read[1].any()


# --- CBF ---------------------------------------------------------------------------------------------------------

_DECTRIS = "\r\n".join(
    (
        "# Detector: PILATUS3 2M CdTe",
        "# 2025-06-14T08:00:0{}.250",
        "# Pixel_size 172e-6 m x 172e-6 m",
        "# Exposure_time 0.5000000 s",
        "# Count_cutoff 1048500 counts",
        "# Wavelength 0.33063 A",
        "# Detector_distance 1.50000 m",
        "# Beam_xy (15.00, 11.00) pixels",
    )
)


def test_cbf_sequence_with_dectris_header(tmp_path: Path) -> None:
    images = counts(3).astype(np.int32)
    images[:, 5, 5], images[:, 6, 6], images[:, 7, 7] = -1, -2, 70_000
    paths = [write_cbf(tmp_path / f"f_{k}.cbf", images[k], _DECTRIS.format(k)) for k in range(3)]
    source = open_frames(paths)
    read, problems = source.read(range(3))
    np.testing.assert_array_equal(read, images)
    info = source.info
    assert problems == ("",) * 3 and read.dtype == np.int32
    assert info.times is not None and info.geometry is not None
    np.testing.assert_allclose(info.times.start_s + 0.5 * info.times.exposure_s, [0.25, 1.25, 2.25])
    assert (info.geometry.poni1_m, info.geometry.poni2_m) == pytest.approx((11 * 172e-6, 15 * 172e-6))
    assert info.geometry.wavelength_m == pytest.approx(0.33063e-10)
    assert info.saturation == 1048500
    masked = np.abs(images[0] - info.dummy) <= info.delta_dummy
    assert masked.sum() == 2 and masked[5, 5] and masked[6, 6]


def test_cbf_without_comments(tmp_path: Path) -> None:
    info = open_frames([write_cbf(tmp_path / "a.cbf", counts(1)[0])]).info
    assert info.shape == SHAPE and info.times is None and info.geometry is None and info.dummy is None


def test_cbf_damage_is_unreadable(tmp_path: Path) -> None:
    paths = [write_cbf(tmp_path / f"f_{k}.cbf", image) for k, image in enumerate(counts(4))]
    whole = paths[1].read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(b"\x0c\x1a\x04\xd5") + 100] ^= 0x01
    paths[1].write_bytes(flipped)
    paths[2].write_bytes(paths[2].read_bytes()[:1200])
    paths[3].write_bytes(paths[3].read_bytes()[:200])
    source = open_frames(paths)
    _, problems = source.read(range(4))
    assert problems[0] == "" and "checksum" in problems[1] and "truncated" in problems[2] and "cut short" in problems[3]
    assert len(source.info.warnings) == 1 and "f_3.cbf" in source.info.warnings[0]


def test_cbf_of_old_ngmultixrd_is_reported(tmp_path: Path) -> None:
    good = write_cbf(tmp_path / "good.cbf", counts(1)[0]).read_bytes()
    old = good[good.index(b"\n") + 1 :].replace(b"application/octet-stream", b"application / octet - stream")
    (tmp_path / "old.cbf").write_bytes(old)
    with pytest.raises(BadInput, match=r"ngMultiXRD4343 before 0\.8\.4"):
        open_frames([tmp_path / "old.cbf"])


# --- TIFF --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "f4"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_of_every_kind(tmp_path: Path, dtype: str, order: str) -> None:
    image = counts(1)[0].astype(dtype)
    path = tmp_path / "a.img"
    path.write_bytes(tiff_bytes(image, order, description="a longer description than four bytes"))
    source = open_frames([path])
    read, problems = source.read([0])
    assert source.info.kind == "tiff" and problems == ("",)
    assert read.dtype == np.dtype(dtype) and read.dtype.isnative
    np.testing.assert_array_equal(read[0], image)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
def test_tiff_pages_written_by_pillow(tmp_path: Path, compression: str) -> None:
    from PIL import Image

    images = counts(3)
    pages = [Image.fromarray(image) for image in images]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression=compression)
    source = open_frames([tmp_path / "a.tif"])
    np.testing.assert_array_equal(source.read([2, 0, 1])[0], images[[2, 0, 1]])


def test_tiff_written_by_fabio(tmp_path: Path) -> None:
    from fabio.tifimage import TifImage

    image = counts(1)[0]
    TifImage(data=image).write(str(tmp_path / "a.tif"))
    np.testing.assert_array_equal(open_frames([tmp_path / "a.tif"]).read([0])[0][0], image)


def test_tiff_with_colour_filter_tag_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff_bytes(counts(1)[0], photometric=32803))
    with pytest.raises(BadInput, match="CFA photometric tag"):
        open_frames([tmp_path / "a.tif"])


def test_tiff_cut_short(tmp_path: Path) -> None:
    data = tiff_bytes(counts(1)[0])
    paths = [tmp_path / f"a_{k}.tif" for k in range(4)]
    for path, part in zip(paths, (data, data[:-100], data[:60], b""), strict=True):
        path.write_bytes(part)
    _, problems = open_frames(paths).read(range(4))
    assert problems[0] == "" and all(problem.startswith("unreadable: ") for problem in problems[1:])
    with pytest.raises(BadInput, match="cut short"):
        open_frames(paths[2:3])


def test_tiff_whose_directory_points_to_itself_ends(tmp_path: Path) -> None:
    data = bytearray(tiff_bytes(counts(1)[0]))
    struct.pack_into("<I", data, 8 + 2 + 12 * 10, 8)
    (tmp_path / "a.tif").write_bytes(data)
    assert open_frames([tmp_path / "a.tif"]).info.n_frames == 1


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real data at {REAL} (set SAXS_REAL_DATA)")
def test_real_pilatus_frames_equal_fabio() -> None:
    import fabio

    paths = sorted(REAL.glob("*.tif"))
    source = open_frames(paths)
    read, problems = source.read(range(len(paths)))
    assert source.info.shape == (1043, 981) and problems == ("",) * len(paths)
    for path, image in zip(paths, read, strict=True):
        with fabio.open(str(path)) as other:
            np.testing.assert_array_equal(image, other.data)
    assert source.info.header["Pixel_size"].startswith("172e-6")
    assert source.info.saturation == 1053296 and (source.info.dummy, source.info.delta_dummy) == (-2, 1)


# --- MarCCD ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mccd", ".tif"])
@pytest.mark.parametrize("dtype", ["u2", "u4"])
def test_marccd_header_and_pixels(tmp_path: Path, suffix: str, dtype: str) -> None:
    images = counts(2).astype(dtype)
    paths = [tmp_path / f"f_{k}{suffix}" for k in range(2)]
    for k, path in enumerate(paths):
        path.write_bytes(marccd_bytes(images[k], stamp=f"06140800202{5}.{7 + 2 * k:02}"))
    source = open_frames(paths)
    info, geometry = source.info, source.info.geometry
    read, problems = source.read([0, 1])
    np.testing.assert_array_equal(read, images)
    assert info.kind == "marccd" and problems == ("", "") and geometry is not None
    assert (geometry.distance_m, geometry.wavelength_m) == pytest.approx((1.2, 6.888e-11))
    assert (geometry.pixel1_m, geometry.pixel2_m) == pytest.approx((350e-6, 354.167e-6))
    assert (geometry.poni1_m, geometry.poni2_m) == pytest.approx((11.5 * 350e-6, 15.25 * 354.167e-6))
    assert (info.pedestal, info.saturation) == (10, 65000)
    assert info.times is not None
    np.testing.assert_allclose(info.times.start_s, [0, 2])
    np.testing.assert_allclose(info.times.exposure_s, 0.075)


def test_marccd_offsets_equal_those_of_fabio(tmp_path: Path) -> None:
    from fabio.marccdimage import HEADER_FORMAT, HEADER_NAMES, interpret_header

    from saxs_pipeline.io import marccd

    data = bytearray(marccd_bytes(counts(1)[0]))
    for k, offset in enumerate(marccd.FIELDS.values()):
        if offset > 1112:
            struct.pack_into("<i", data, offset, 1000 + k)
    (tmp_path / "a.mccd").write_bytes(data)
    theirs = interpret_header(bytes(data[1024:4096]), HEADER_FORMAT, HEADER_NAMES)
    ours = marccd.read_header(tmp_path / "a.mccd")
    assert {name: ours[name] for name in marccd.FIELDS} == {name: str(theirs[name]) for name in marccd.FIELDS}
    assert ours["acquire_timestamp"] == b"".join(theirs["acquire_timestamp[32]"]).strip(b"\x00").decode()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({1668: 5_400_000}, "beam centre 5400"),
        ({1664: 0}, "no distance"),
        ({1932: 1}, "wavelength"),
        ({1796: 0}, "pixel"),
    ],
)
def test_marccd_geometry_that_cannot_be_is_not_used(tmp_path: Path, fields: dict[int, int], words: str) -> None:
    (tmp_path / "a.mccd").write_bytes(marccd_bytes(counts(1)[0], fields))
    info = open_frames([tmp_path / "a.mccd"]).info
    assert info.geometry is None and words in info.warnings[0]


def test_marccd_whole_second_stamps_of_fast_frames_are_not_times(tmp_path: Path) -> None:
    for k in range(3):
        (tmp_path / f"f_{k}.mccd").write_bytes(marccd_bytes(counts(1)[0]))
    info = open_frames(sorted(tmp_path.glob("*.mccd"))).info
    assert info.times is None and "whole seconds" in info.warnings[0]


def test_marccd_without_exposure_has_no_times(tmp_path: Path) -> None:
    (tmp_path / "a.mccd").write_bytes(marccd_bytes(counts(1)[0], {1680: 0}))
    assert open_frames([tmp_path / "a.mccd"]).info.times is None


def test_marccd_cut_short(tmp_path: Path) -> None:
    data = marccd_bytes(counts(1)[0])
    for k, part in enumerate((data, data[:-1], data[:2000], data[:600])):
        (tmp_path / f"f_{k}.mccd").write_bytes(part)
    read, problems = open_frames(sorted(tmp_path.glob("*.mccd"))).read(range(4))
    assert problems[0] == "" and "truncated" in problems[1] and all("cut short" in words for words in problems[2:])
    assert not read[1:].any()


def test_a_fabio_marccd_is_a_plain_tiff(tmp_path: Path) -> None:
    from fabio.marccdimage import MarccdImage

    MarccdImage(data=counts(1)[0]).write(str(tmp_path / "a.mccd"))
    assert identify(tmp_path / "a.mccd") == "tiff"


# --- sequences ---------------------------------------------------------------------------------------------------


def test_mixed_sizes_and_types_name_both_files(tmp_path: Path) -> None:
    a = write_edf(tmp_path / "a.edf", [counts(1)[0]])
    b = write_edf(tmp_path / "b.edf", [counts(1)[0].T.copy()])
    c = write_edf(tmp_path / "c.edf", [counts(1)[0].astype(np.float32)])
    for other in (b, c):
        with pytest.raises(BadInput, match=rf"a\.edf.*{other.name}"):
            open_frames([a, other])


def test_a_file_that_vanishes_or_changes_is_unreadable(tmp_path: Path) -> None:
    paths = [write_edf(tmp_path / f"{k}.edf", [image]) for k, image in enumerate(counts(3))]
    source = open_frames(paths)
    paths[0].unlink()
    write_edf(paths[1], [np.zeros((4, 4), np.uint16)])
    _, problems = source.read(range(3))
    assert problems[0].startswith("unreadable: ") and "expected uint16" in problems[1] and problems[2] == ""
