from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from saxs_pipeline.io.frames import open_frames
from saxs_pipeline.types import BadInput
from tests.io.beamline_files import COMPRESSIONS, HEADER, SHAPE, counts, group, lima_entry, write_edf, write_lima


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_frames_and_header_of_a_lima_file(tmp_path: Path, compression: str) -> None:
    images = counts(5)
    times = np.arange(5) * 0.1
    path = write_lima(tmp_path / "scan_00.h5", images, compression=compression, times=times)
    source = open_frames([path])
    info = source.info
    read, problems = source.read([0, 1, 2, 4])
    assert info.kind == "hdf5" and info.n_frames == 5 and info.shape == SHAPE
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, images[[0, 1, 2, 4]])
    assert problems == ("",) * 4
    assert info.header["variance_formula"] == HEADER["variance_formula"]  # text, never evaluated
    assert info.times is not None and info.times.origin == "time_of_frame"
    np.testing.assert_allclose(info.times.start_s + 0.5 * info.times.exposure_s, times + 0.0375)
    assert (info.dummy, info.delta_dummy) == (65535, 0.5)
    assert source.label(4) == "scan_00.h5 frame 4"
    source.close()


def test_header_geometry_equals_pyfai(tmp_path: Path) -> None:
    from pyFAI.geometry import Geometry

    info = open_frames([write_lima(tmp_path / "a.h5", counts(1))]).info
    keys = ("SampleDistance", "Center_1", "Center_2", "PSize_1", "PSize_2", "WaveLength")
    geometry = Geometry()
    geometry.setSPD(**{key: float(HEADER[key]) for key in keys})
    found = info.geometry
    assert found is not None
    assert (found.distance_m, found.wavelength_m) == pytest.approx((geometry.dist, geometry.wavelength))
    assert (found.poni1_m, found.poni2_m) == pytest.approx((geometry.poni1, geometry.poni2))
    assert (found.pixel1_m, found.pixel2_m) == pytest.approx((geometry.pixel1, geometry.pixel2))


@pytest.mark.parametrize("key", ["Rot_1", "Rot_2", "Rot_3"])
def test_a_rotated_detector_is_refused_with_a_warning(tmp_path: Path, key: str) -> None:
    info = open_frames([write_lima(tmp_path / "a.h5", counts(1), header=HEADER | {key: "0.01"})]).info
    assert info.geometry is None
    assert f"{key} = 0.01" in info.warnings[0] and "PONI" in info.warnings[0]


def test_implausible_header_geometry_is_not_used(tmp_path: Path) -> None:
    info = open_frames([write_lima(tmp_path / "a.h5", counts(1), header=HEADER | {"SampleDistance": "-1.2"})]).info
    assert info.geometry is None and "distance -1.2 m" in info.warnings[0]


@pytest.mark.parametrize("zero", ["0", "0.0", "-0"])
def test_dummy_zero_means_none(tmp_path: Path, zero: str) -> None:
    keys = HEADER | {"Dummy": zero}
    for path in (
        write_lima(tmp_path / "a.h5", counts(1), header=keys),
        write_edf(tmp_path / "a.edf", [*counts(1)], [keys]),
    ):
        info = open_frames([path]).info
        assert info.dummy is None and info.delta_dummy == 0


def test_the_formula_in_a_header_is_never_evaluated(tmp_path: Path) -> None:
    """variance_formula is text (formats.md §1.3): whoever evaluated it would leave this file behind, or raise."""
    formula = f"__import__('pathlib').Path({str(tmp_path / 'evaluated')!r}).touch() or 1/0"
    path = write_lima(tmp_path / "a.h5", counts(2), header=HEADER | {"variance_formula": formula})
    source = open_frames([path])
    source.read([0, 1])
    assert source.info.header["variance_formula"] == formula and source.info.geometry is not None
    assert not (tmp_path / "evaluated").exists()


def test_groups_are_found_by_their_class_whatever_their_name(tmp_path: Path) -> None:
    """The instrument is called ESRF-ID02, instrument or anything: a group of that name without the class is none."""
    images = counts(2)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        entry = group(file, "scan one", "NXentry")
        entry["ESRF-ID02/rayonix/data"] = counts(3, 9, (8, 8))
        entry["instrument/detector/data"] = counts(4, 9, (8, 8))
        group(group(entry, "zzz", "NXinstrument"), "camera", "NXdetector")["data"] = images
    source = open_frames([tmp_path / "a.h5"])
    np.testing.assert_array_equal(source.read([0, 1])[0], images)
    assert source.info.n_frames == 2


def test_files_from_before_2025_have_no_times(tmp_path: Path) -> None:
    """Without time_of_frame nothing is made up from the exposure: times come from scalers, or from the user's law."""
    assert open_frames([write_lima(tmp_path / "a.h5", counts(3))]).info.times is None


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_allocated_and_never_written_frames_are_not_recorded(tmp_path: Path, compression: str) -> None:
    images = counts(3)
    times = np.array([0.0, 0.1, 0.2, 0.0, 0.0])
    path = write_lima(tmp_path / "a.h5", images, compression=compression, allocated=5, times=times)
    source = open_frames([path])
    read, problems = source.read(range(5))
    assert source.info.n_frames == 5
    np.testing.assert_array_equal(read[:3], images)
    assert not read[3:].any()
    assert problems[:3] == ("",) * 3
    assert all(problem.startswith("not_recorded: ") for problem in problems[3:])
    assert source.info.times is not None
    assert np.isnan(source.info.times.start_s).tolist() == [False, False, False, True, True]


@pytest.mark.parametrize("compression", ["gzip", "bitshuffle"])
def test_a_corrupt_chunk_is_one_unreadable_frame(tmp_path: Path, compression: str) -> None:
    images = counts(6)
    path = write_lima(tmp_path / "a.h5", images, compression=compression)
    with h5py.File(path, "r+") as file:
        data = file["entry_0000/ESRF-ID02/rayonix/data"].id
        mask, chunk = data.read_direct_chunk((3, 0, 0))
        data.write_direct_chunk((3, 0, 0), chunk[: len(chunk) // 2], mask)
    read, problems = open_frames([path]).read(range(6))
    good = [0, 1, 2, 4, 5]
    np.testing.assert_array_equal(read[good], images[good])
    assert not read[3].any()
    assert problems[3].startswith("unreadable: ")
    assert [problems[k] for k in good] == [""] * 5


def test_frames_do_not_depend_on_how_they_are_asked_for(tmp_path: Path) -> None:
    path = write_lima(tmp_path / "a.h5", counts(7), allocated=9)
    source = open_frames([path])
    whole, problems = source.read(range(9))
    for indices in ([8, 0, 3, 4, 2], [5], [], [1, 1]):
        part, reasons = source.read(indices)
        np.testing.assert_array_equal(part, whole[indices])
        assert reasons == tuple(problems[k] for k in indices)
    with pytest.raises(IndexError):
        source.read([9])


def test_entries_and_files_are_concatenated(tmp_path: Path) -> None:
    first, second, third = counts(2, 1), counts(3, 2), counts(1, 3)
    times = [np.array([0.0, 0.1]), np.array([0.0, 0.1, 0.2]), np.array([0.0])]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        lima_entry(file, first, times=times[0])
        lima_entry(file, second, "entry_0001", times=times[1], start_time="2025-06-14T08:00:10.500Z")
    write_lima(tmp_path / "b.h5", third, times=times[2], start_time="2025-06-14T08:01:00Z")
    source = open_frames([tmp_path / "a.h5", tmp_path / "b.h5"])
    read, problems = source.read(range(6))
    np.testing.assert_array_equal(read, np.concatenate([first, second, third]))
    assert problems == ("",) * 6
    assert source.info.times is not None
    np.testing.assert_allclose(source.info.times.start_s, [0, 0.1, 10.5, 10.6, 10.7, 60.0])
    assert source.label(2) == "a.h5::/entry_0001/ESRF-ID02/rayonix/data frame 0"
    assert source.label(5) == "b.h5 frame 0"


def test_times_that_restart_without_start_time_are_not_used(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        write_lima(tmp_path / name, counts(2), times=np.array([0.0, 0.1]), start_time="yesterday")
    info = open_frames([tmp_path / "a.h5", tmp_path / "b.h5"]).info
    assert info.times is None and "restarts" in info.warnings[0]


@pytest.mark.parametrize("place", ["parameters", "data/header"])
def test_header_of_older_files(tmp_path: Path, place: str) -> None:
    path = tmp_path / "old.h5"
    with h5py.File(path, "w") as file:
        entry = group(file, "entry", "NXentry")
        detector = group(group(entry, "instrument", "NXinstrument"), "Frelon", "NXdetector")
        detector["data"] = counts(2)
        collection = group(entry, "measurement", "NXcollection")
        keys = group(group(collection, "Frelon", "NXdetector"), place, "NXcollection")
        for key, value in HEADER.items():
            keys[key] = value
    info = open_frames([path]).info
    assert info.n_frames == 2 and info.header == HEADER
    assert info.geometry is not None and info.geometry.distance_m == 1.2


def test_old_data_group_with_a_signal(tmp_path: Path) -> None:
    images = counts(2)
    with h5py.File(tmp_path / "old.h5", "w") as file:
        detector = group(group(group(file, "e", "NXentry"), "i", "NXinstrument"), "d", "NXdetector")
        data = group(detector, "data", "NXdata")
        data.attrs["signal"] = "array"
        data["array"] = images
        data["header/Center_1"] = "15.25"
    source = open_frames([tmp_path / "old.h5"])
    assert source.info.header == {"Center_1": "15.25"}
    np.testing.assert_array_equal(source.read([0, 1])[0], images)


def test_float_frames_keep_their_nan(tmp_path: Path) -> None:
    images = counts(2).astype(np.float32)
    images[1, 3, 4] = np.nan
    read, problems = open_frames([write_lima(tmp_path / "a.h5", images)]).read([0, 1])
    assert read.dtype == np.float32 and problems == ("", "")
    np.testing.assert_array_equal(read, images)


def test_big_endian_data_come_in_native_order(tmp_path: Path) -> None:
    images = counts(2)
    read, _ = open_frames([write_lima(tmp_path / "a.h5", images.astype(">u2"))]).read([0, 1])
    assert read.dtype == np.dtype("=u2")
    np.testing.assert_array_equal(read, images)


def _eiger(tmp_path: Path) -> tuple[Path, np.ndarray]:
    images = counts(5).astype(np.uint32)
    for k, part in enumerate((images[:3], images[3:]), start=1):
        with h5py.File(tmp_path / f"run_data_{k:06}.h5", "w") as file:
            file["entry/data/data"] = part
    master = tmp_path / "run_master.h5"
    with h5py.File(master, "w") as file:
        entry = group(file, "entry", "NXentry")
        data = group(entry, "data", "NXdata")
        for k in (1, 2):
            data[f"data_{k:06}"] = h5py.ExternalLink(f"run_data_{k:06}.h5", "/entry/data/data")
        instrument = group(entry, "instrument", "NXinstrument")
        detector = group(instrument, "detector", "NXdetector")
        numbers = {"beam_center_x": 15.0, "beam_center_y": 11.0, "x_pixel_size": 75e-6, "y_pixel_size": 75e-6}
        for key, value in (numbers | {"detector_distance": 1.5, "saturation_value": 9000}).items():
            detector[key] = value
        detector["pixel_mask"] = np.zeros(SHAPE, np.uint32)
        group(instrument, "beam", "NXbeam")["incident_wavelength"] = 0.6888
    return master, images


def test_eiger_master_with_external_links(tmp_path: Path) -> None:
    master, images = _eiger(tmp_path)
    source = open_frames([master])
    read, problems = source.read(range(5))
    np.testing.assert_array_equal(read, images)
    assert problems == ("",) * 5
    geometry = source.info.geometry
    assert geometry is not None
    assert (geometry.poni1_m, geometry.poni2_m) == pytest.approx((11 * 75e-6, 15 * 75e-6))
    assert geometry.wavelength_m == pytest.approx(6.888e-11)
    assert source.info.saturation == 9000 and source.info.dummy == 2**32 - 1


def test_eiger_master_without_its_data_file(tmp_path: Path) -> None:
    master, _ = _eiger(tmp_path)
    (tmp_path / "run_data_000002.h5").unlink()
    with pytest.raises(BadInput, match=r"run_data_000002\.h5, which is missing"):
        open_frames([master])


def test_virtual_dataset_without_its_file_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["data"] = counts(2)
    layout = h5py.VirtualLayout((2, *SHAPE), np.uint16)
    layout[:] = h5py.VirtualSource("part.h5", "data", (2, *SHAPE))
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        group(group(file, "entry", "NXentry"), "d", "NXdetector").create_virtual_dataset("data", layout)
    np.testing.assert_array_equal(open_frames([tmp_path / "whole.h5"]).read([0, 1])[0], counts(2))
    (tmp_path / "part.h5").unlink()
    with pytest.raises(BadInput, match=r"part\.h5, which is missing"):
        open_frames([tmp_path / "whole.h5"])


def test_generic_nexus_stack_and_choice_of_detector(tmp_path: Path) -> None:
    saxs, waxs = counts(2, 1), counts(2, 2, (8, 8))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        entry = group(file, "scan", "NXentry")
        group(entry, "saxs", "NXdata")["counts"] = saxs
    np.testing.assert_array_equal(open_frames([tmp_path / "a.h5"]).read([1])[0][0], saxs[1])
    with h5py.File(tmp_path / "a.h5", "a") as file:
        group(file["scan"], "waxs", "NXdata")["counts"] = waxs
    with pytest.raises(BadInput, match=r"several image stacks .*data\.detector"):
        open_frames([tmp_path / "a.h5"])
    assert open_frames([tmp_path / "a.h5"], detector="waxs").info.shape == (8, 8)
    with pytest.raises(BadInput, match="no image stack of a detector 'eiger'"):
        open_frames([tmp_path / "a.h5"], detector="eiger")


def test_one_stack_needs_no_choice_and_counters_are_no_stacks(tmp_path: Path) -> None:
    path = write_lima(tmp_path / "a.h5", counts(2))
    with h5py.File(path, "a") as file:
        group(file["entry_0000/ESRF-ID02"], "mca", "NXdetector")["data"] = np.zeros((2, 1024))
        group(file["entry_0000/ESRF-ID02"], "diode", "NXdetector")["data"] = np.zeros(2)
    assert open_frames([path], detector="pilatus").info.shape == SHAPE


def test_links_that_run_in_circles(tmp_path: Path) -> None:
    path = write_lima(tmp_path / "a.h5", counts(1))
    with h5py.File(path, "a") as file:
        file["entry_0000/measurement/up"] = file["entry_0000"]
        file["entry_0000/measurement/nowhere"] = h5py.SoftLink("/not/there")
    assert open_frames([path]).info.n_frames == 1


def test_stacks_of_different_size_name_both_files(tmp_path: Path) -> None:
    a, b = write_lima(tmp_path / "a.h5", counts(1)), write_lima(tmp_path / "b.h5", counts(1, shape=(8, 8)))
    with pytest.raises(BadInput, match=r"a\.h5.*\(24, 32\).*b\.h5.*\(8, 8\)"):
        open_frames([a, b])


def test_a_truncated_file_among_others_is_unreadable_frames(tmp_path: Path) -> None:
    images = [counts(3, seed) for seed in range(3)]
    paths = [write_lima(tmp_path / f"scan_{k:02}.h5", images[k]) for k in range(3)]
    paths[0].write_bytes(paths[0].read_bytes()[:-3000])
    paths.append(tmp_path / "scan_03.h5")
    paths[3].touch()
    source = open_frames(paths)
    read, problems = source.read(range(12))
    assert source.info.n_frames == 12 and len(source.info.warnings) == 2
    assert "scan_00.h5" in source.info.warnings[0] and "truncated" in source.info.warnings[0]
    assert all(problem.startswith("unreadable: ") for problem in problems[:3] + problems[9:])
    np.testing.assert_array_equal(read[3:9], np.concatenate(images[1:]))
    assert not read[:3].any() and source.label(1) == "scan_00.h5 frame 1"


def test_a_truncated_file_alone_is_bad_input(tmp_path: Path) -> None:
    path = write_lima(tmp_path / "a.h5", counts(3))
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(BadInput, match="truncated file"):
        open_frames([path])


def test_files_that_hold_something_else_say_what(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "s.h5", "w") as file:
        group(group(file, "entry", "NXentry"), "MCS", "NXcollection")["HS32C"] = np.zeros((4, 5))
    with h5py.File(tmp_path / "c.h5", "w") as file:
        group(group(file, "entry", "NXentry"), "result_ave", "NXdata")["data"] = np.zeros((4, 5))
    with h5py.File(tmp_path / "n.h5", "w") as file:
        group(file, "entry", "NXentry")
    for name, words in (("s.h5", r"data\.scalers"), ("c.h5", r"data\.curves"), ("n.h5", "no image stack")):
        with pytest.raises(BadInput, match=words):
            open_frames([tmp_path / name])


def test_a_stack_without_frames_yet(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        detector = group(group(file, "entry", "NXentry"), "d", "NXdetector")
        detector.create_dataset("data", (0, *SHAPE), "u2", maxshape=(None, *SHAPE), chunks=(1, *SHAPE))
    with pytest.raises(BadInput, match="no frames yet"):
        open_frames([tmp_path / "a.h5"])


_WRITER = """
import sys, h5py, numpy as np
with h5py.File(sys.argv[1], "w", libver=sys.argv[2]) as file:
    file.create_group("entry").attrs["NX_class"] = "NXentry"
    file.create_group("entry/d").attrs["NX_class"] = "NXdetector"
    data = file.create_dataset("entry/d/data", (2, 8, 8), "u2", maxshape=(None, 8, 8), chunks=(1, 8, 8))
    data[:] = 7
    if sys.argv[2] == "latest":
        file.swmr_mode = True
    for word in sys.stdin:
        data.resize(data.shape[0] + 1, axis=0)
        data[-1] = 9
        file.flush()
        print("ready", flush=True)
"""


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_file_is_read_while_another_process_writes_it(tmp_path: Path, libver: str) -> None:
    path = tmp_path / "a.h5"
    command = [sys.executable, "-c", _WRITER, str(path), libver]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        for expected in (3, 4):
            writer.stdin.write("more\n")
            writer.stdin.flush()
            assert writer.stdout.readline() == "ready\n"
            source = open_frames([path])
            assert source.info.n_frames == expected
            read, problems = source.read([0, expected - 1])
            assert read[:, 0, 0].tolist() == [7, 9] and problems == ("", "")
            source.close()
        writer.stdin.close()
        assert writer.wait(timeout=20) == 0
