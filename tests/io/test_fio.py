from __future__ import annotations

import json
import math
from pathlib import Path

import h5py
import numpy as np
import pytest

from saxs_pipeline.io.fio import parse_value, read_scan
from saxs_pipeline.io.frames import identify, open_frames
from saxs_pipeline.io.scalers import read_scalers
from saxs_pipeline.types import BadInput
from tests.io.beamline_files import counts, group, write_cbf

ENDED = "! Acquisition ended at Sat Jun 14 08:00:03 2025"


def write_fio(
    path: Path,
    rows: list[str],
    detectors: dict[str, tuple[str, str]],
    parameters: tuple[str, ...] = (),
    columns: tuple[str, ...] = ("timestamp DOUBLE", "pilatus INTEGER", "ion 1 DOUBLE"),
    end: str = ENDED,
    command: str = "timesweep2 growth 1:720/0.10",
) -> Path:
    lines = ["!", "! Comments", "!", "%c", command, "user p21user acquisition started at Sat Jun 14 08:00:00 2025"]
    lines += [
        "!",
        "! Parameter",
        "!",
        "%p",
        "channel1_exposure = 5.000000e-01",
        "energy = 37500.0",
        "idtx1 = <no-data>",
    ]
    lines += [f"{name} = {json.dumps({'Filedir': d, 'Filepattern': p})}" for name, (d, p) in detectors.items()]
    lines += [
        *parameters,
        "ABTGV2_CONF = {'gain': [1, 2], 'open': True}",
        "ScanName = growth",
        "!",
        "! Data",
        "!",
        "%d",
    ]
    lines += [f" Col {k} {column}" for k, column in enumerate(columns, start=1)]
    path.write_text("\n".join([*lines, *rows, end, ""]) if end else "\n".join([*lines, *rows, ""]))
    return path


def scan_folder(tmp_path: Path, n: int = 3, **options: object) -> tuple[Path, np.ndarray]:
    """tmp/raw/scan_7.fio and its images in tmp/raw/scan_7/pilatus; the .fio has the beamline's absolute path."""
    images = counts(n).astype(np.int32)
    folder = tmp_path / "raw" / "scan_7" / "pilatus"
    folder.mkdir(parents=True)
    for k, image in enumerate(images, start=1):
        write_cbf(folder / f"scan_{k:05}.cbf", image)
    rows = [f" {1749888000 + 0.5 * k:.3f} {k + 1} {1e-6 * (k + 1):.3e}" for k in range(n)]
    where = {"pilatus": ("/gpfs/current/raw/scan_7/pilatus", "scan_%05d.cbf")}
    given = {"rows": rows, "detectors": where} | options
    return write_fio(tmp_path / "raw" / "scan_7.fio", **given), images  # type: ignore[arg-type]


def test_scan_with_all_sections(tmp_path: Path) -> None:
    path, _ = scan_folder(tmp_path)
    scan = read_scan(path)
    assert scan.command == "timesweep2 growth 1:720/0.10" and scan.started == "Sat Jun 14 08:00:00 2025"
    assert scan.exposure_s == 0.10 and scan.state == "ended" and scan.warnings == ()
    assert scan.parameters["energy"] == 37500.0 and math.isnan(scan.parameters["idtx1"])
    assert scan.parameters["ABTGV2_CONF"] == {"gain": [1, 2], "open": True}
    assert scan.parameters["ScanName"] == "growth"
    assert list(scan.columns) == ["timestamp", "pilatus", "ion 1"]
    assert scan.times is not None
    np.testing.assert_allclose(scan.times.start_s, [0, 0.5, 1.0], atol=1e-6)
    np.testing.assert_allclose(scan.monitors["exposure"], 0.10)


def test_agrees_with_silx(tmp_path: Path) -> None:
    from silx.io.fioh5 import FioFile

    path, _ = scan_folder(tmp_path)
    scan, theirs = read_scan(path), FioFile(str(path))
    assert (theirs.title, theirs.start_time) == (scan.command, scan.started)
    for name in ("timestamp", "pilatus"):
        np.testing.assert_array_equal(theirs.data[name], scan.columns[name])
    assert float(theirs.parameter["energy"]) == scan.parameters["energy"]
    assert json.loads(theirs.parameter["pilatus"]) == dict(scan.detectors["pilatus"])


def test_one_malformed_line_costs_only_itself(tmp_path: Path) -> None:
    path, _ = scan_folder(tmp_path, parameters=("this line has no equals sign", "varex = {'Filedir': "))
    with path.open("a") as file:
        file.write(" 1 2\n 3 x 1\n")
    scan = read_scan(path)
    assert scan.parameters["ScanName"] == "growth" and "pilatus" in scan.detectors
    assert scan.n_rows == 3 and len(scan.warnings) == 1
    assert "4 malformed lines left out (line 15 first)" in scan.warnings[0]


@pytest.mark.parametrize(
    ("end", "state"),
    [(ENDED, "ended"), ("! Acquisition aborted at Sat", "aborted"), ("aborted", "aborted"), ("", "unfinished")],
)
def test_how_a_scan_ended(tmp_path: Path, end: str, state: str) -> None:
    scan = read_scan(scan_folder(tmp_path, end=end)[0])
    assert scan.state == state and scan.n_rows == 3
    assert len(scan.warnings) == (state != "ended")


def test_a_row_being_written_is_left_out(tmp_path: Path) -> None:
    path, images = scan_folder(tmp_path, rows=["0 1 1", "0.5 2 2", "1.0 "], end="")
    assert read_scan(path).n_rows == 2
    source = open_frames([path])
    assert source.info.n_frames == 2
    np.testing.assert_array_equal(source.read([0, 1])[0], images[:2])


def test_missing_values_are_nan_and_frames_not_recorded(tmp_path: Path) -> None:
    path, images = scan_folder(tmp_path, rows=["0 1 None", "0.5 <no-data> 2e-6", "1.0 2 <no-data>", "1.5 3 4e-6"])
    source = open_frames([path])
    read, problems = source.read(range(4))
    np.testing.assert_array_equal(read[[0, 2, 3]], images)
    assert problems[1].startswith("not_recorded: ") and (problems[0], problems[2], problems[3]) == ("", "", "")
    np.testing.assert_array_equal(source.info.monitors["ion 1"], [np.nan, 2e-6, np.nan, 4e-6])
    assert source.label(1) == "scan_7.fio row 1 (no image)"
    assert source.label(2) == "scan_7.fio row 2 (scan_00002.cbf)"


def test_values_are_data_and_never_run() -> None:
    assert parse_value("__import__('os').system('exit 3')") == "__import__('os').system('exit 3')"
    assert parse_value("{'a': (1, None)}") == {"a": (1, None)}
    assert parse_value('{"a": true, "b": null}') == {"a": True, "b": None}
    assert parse_value("1e-3") == 1e-3 and parse_value("a b") == "a b"
    assert parse_value("[" * 5000) == "[" * 5000


def test_frames_of_a_scan_after_the_data_moved(tmp_path: Path) -> None:
    path, images = scan_folder(tmp_path)
    assert identify(path) == "fio"
    source = open_frames([path])
    read, problems = source.read([2, 0])
    np.testing.assert_array_equal(read, images[[2, 0]])
    info = source.info
    assert problems == ("", "") and info.kind == "fio" and info.n_frames == 3
    assert info.paths[0] == path and len(info.paths) == 4
    assert "pilatus" not in info.monitors and set(info.monitors) == {"timestamp", "ion 1", "exposure"}
    assert info.header["energy"] == "37500.0" and info.times is not None
    source.close()


def test_a_scan_named_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, images = scan_folder(tmp_path, detectors={"pilatus": ("raw/scan_7/pilatus", "scan_%05d.cbf")})
    monkeypatch.chdir(path.parent)
    np.testing.assert_array_equal(open_frames([Path(path.name)]).read([1])[0][0], images[1])


def test_exposure_from_the_channel_parameter(tmp_path: Path) -> None:
    assert read_scan(scan_folder(tmp_path, command="timesweep2 growth")[0]).exposure_s == 0.5


@pytest.mark.parametrize("folder", ["t:\\data\\scan_7\\pilatus", "scan_7/pilatus", "/gpfs/pilatus", "/elsewhere"])
def test_relocation_by_shorter_tails(tmp_path: Path, folder: str) -> None:
    path, images = scan_folder(tmp_path, detectors={"pilatus": (folder, "scan_%05d.cbf")})
    roots = [] if folder.endswith("scan_7/pilatus") or "\\" in folder else [tmp_path / "raw" / "scan_7" / "pilatus"]
    np.testing.assert_array_equal(open_frames([path], roots=roots).read([1])[0][0], images[1])


@pytest.mark.parametrize(
    "where",
    [("/gpfs/../../etc", "scan_%05d.cbf"), ("/gpfs/raw", "../scan_%05d.cbf"), ("..\\raw", "scan_%05d.cbf")],
)
def test_paths_that_climb_are_refused(tmp_path: Path, where: tuple[str, str]) -> None:
    path, _ = scan_folder(tmp_path, detectors={"pilatus": where})
    with pytest.raises(BadInput, match="not allowed"):
        open_frames([path])


def test_links_that_leave_the_roots_are_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    write_cbf(outside / "scan_00001.cbf", counts(1)[0])
    path, _ = scan_folder(tmp_path / "home", 1)
    folder = tmp_path / "home/raw/scan_7/pilatus"
    (folder / "scan_00001.cbf").unlink()
    (folder / "scan_00001.cbf").symlink_to(outside / "scan_00001.cbf")
    with pytest.raises(BadInput, match=r"leads out of the allowed folders .*data\.roots"):
        open_frames([path])
    assert open_frames([path], roots=[path.parent, outside]).info.n_frames == 1
    (folder / "scan_00001.cbf").unlink()
    folder.rmdir()
    folder.symlink_to(outside)
    with pytest.raises(BadInput, match="leads out"):
        open_frames([path])


@pytest.mark.parametrize("pattern", ["scan_%s.cbf", "scan_%05d_%d.cbf", "scan_%999999999d.cbf", "100%.cbf"])
def test_strange_patterns_are_refused(tmp_path: Path, pattern: str) -> None:
    path, _ = scan_folder(tmp_path, detectors={"pilatus": ("/gpfs/raw", pattern)})
    with pytest.raises(BadInput, match="Filepattern"):
        open_frames([path])


def test_a_missing_image_is_unreadable_and_none_at_all_is_bad_input(tmp_path: Path) -> None:
    path, _ = scan_folder(tmp_path)
    folder = tmp_path / "raw/scan_7/pilatus"
    (folder / "scan_00002.cbf").unlink()
    _, problems = open_frames([path]).read(range(3))
    assert problems[0] == problems[2] == "" and problems[1].startswith("unreadable: ")
    for image in folder.iterdir():
        image.unlink()
    with pytest.raises(BadInput, match=r"scan_00001\.cbf found below .*data\.roots"):
        open_frames([path])


def test_choice_of_the_detector(tmp_path: Path) -> None:
    where = {"pilatus": ("/gpfs/raw/scan_7/pilatus", "scan_%05d.cbf"), "varex": ("/gpfs/raw/scan_7/varex", "v_%d.tif")}
    path, _ = scan_folder(tmp_path, detectors=where)
    with pytest.raises(BadInput, match=r"choose the detector with data\.detector \(the scan has: pilatus, varex\)"):
        open_frames([path])
    assert open_frames([path], detector="pilatus").info.n_frames == 3
    with pytest.raises(BadInput, match="no column 'varex'"):
        open_frames([path], detector="varex")
    with pytest.raises(BadInput, match="no images of a detector 'eiger'"):
        open_frames([path], detector="eiger")


def _stack_scan(tmp_path: Path, frames: int, rows: int, end: str = ENDED) -> tuple[Path, np.ndarray]:
    images = counts(frames)
    (tmp_path / "eiger").mkdir()
    with h5py.File(tmp_path / "eiger" / "scan_7.h5", "w") as file:
        group(group(file, "entry", "NXentry"), "data", "NXdata")["data"] = images
    lines = [f"{0.5 * k} {k + 1}" for k in range(rows)]
    columns = ("timestamp DOUBLE", "eiger INTEGER")
    where = {"eiger": ("/gpfs/current/raw/eiger", "scan_7.h5")}
    return write_fio(tmp_path / "scan_7.fio", lines, where, columns=columns, end=end), images


def test_stack_without_a_number_in_its_pattern(tmp_path: Path) -> None:
    path, images = _stack_scan(tmp_path, 4, 4)
    source = open_frames([path])
    np.testing.assert_array_equal(source.read(range(4))[0], images)
    assert source.label(3) == "scan_7.fio row 3 (scan_7.h5 frame 3)"


@pytest.mark.parametrize(("frames", "rows"), [(3, 4), (4, 3)])
def test_rows_and_frames_must_match_unless_the_scan_is_running(tmp_path: Path, frames: int, rows: int) -> None:
    path, images = _stack_scan(tmp_path, frames, rows)
    with pytest.raises(BadInput, match=f"lists {rows} images of this detector, but its files hold {frames}"):
        open_frames([path])
    path.write_text(path.read_text().replace(ENDED, ""))
    source = open_frames([path])
    assert source.info.n_frames == 3 and source.info.times is not None and len(source.info.times.start_s) == 3
    np.testing.assert_array_equal(source.read(range(3))[0], images[:3])


def test_a_scan_as_scalers(tmp_path: Path) -> None:
    scalers = read_scalers(scan_folder(tmp_path)[0])
    assert scalers.kind == "fio" and scalers.times is not None
    np.testing.assert_allclose(scalers.monitors["ion 1"], [1e-6, 2e-6, 3e-6])


def test_several_scans_and_files_that_are_none(tmp_path: Path) -> None:
    path, _ = scan_folder(tmp_path)
    with pytest.raises(BadInput, match=r"one \.fio scan at a time"):
        open_frames([path, path])
    (tmp_path / "a.fio").write_text("nothing\n")
    with pytest.raises(BadInput, match=r"not a \.fio scan"):
        read_scan(tmp_path / "a.fio")
    with pytest.raises(BadInput, match=r"choose the detector .*none"):
        open_frames([write_fio(tmp_path / "b.fio", ["0 1 1"], {})])
