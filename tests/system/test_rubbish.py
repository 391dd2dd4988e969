"""Rubbish in: one clear line per mistake on stderr, exit code 2, no traceback, nothing half-written."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import fabio
import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from saxs_pipeline.apps.cli import main
from tests.conftest import command, variant

FRAMES_LINE = re.compile(r"^  frames: .*$", re.MULTILINE)


def bad_file(folder, name, content: bytes):
    (folder / name).write_bytes(content)
    return name


def with_frames(folder, name, frames):
    """The run file with other sample frames."""
    text = (folder / "run.yaml").read_text(encoding="utf-8").replace("folder: results", f"folder: {name}")
    path = folder / f"{name}.yaml"
    path.write_text(FRAMES_LINE.sub(f"  frames: {frames}", text, count=1), encoding="utf-8")
    return path


def scalers_name(folder):
    return re.search(r"^  scalers: (\S+)", (folder / "run.yaml").read_text(), re.MULTILINE)[1]


def short_scalers(folder, name):
    """Scalers of one frame fewer than the images."""
    shutil.copy(folder / scalers_name(folder), folder / f"{name}.h5")
    with h5py.File(folder / f"{name}.h5", "r+") as file:
        found = []
        file.visititems(lambda _, node: found.append(node) if isinstance(node, h5py.Dataset) else None)
        n = max(node.shape[0] for node in found if node.name.endswith("HS32C"))
        for node in found:
            if node.shape and node.shape[0] in (n, 2 * n):
                values, attributes, where = node[()][: -(node.shape[0] // n)], dict(node.attrs), node.name
                del file[where]
                file[where] = values
                file[where].attrs.update(attributes)
    return f"{name}.h5"


def mixed_shapes(folder, name):
    (folder / name).mkdir(exist_ok=True)
    for k, shape in enumerate([(480, 480), (480, 480), (240, 240)]):
        fabio.edfimage.EdfImage(np.ones(shape, np.uint16)).write(str(folder / name / f"f_{k}.edf"))
    return with_frames(folder, f"run_{name}", f"{name}/*.edf")


def all_masked(folder, name):
    fabio.edfimage.EdfImage(np.ones((480, 480), np.uint8)).write(str(folder / f"{name}.edf"))
    return variant(folder, f"run_{name}", ("mask: mask.edf", f"mask: {name}.edf"))


def empty_folder(folder, name):
    (folder / name).mkdir(exist_ok=True)
    return with_frames(folder, f"run_{name}", f"{name}/*")


def wrong_mask_shape(folder, name):
    fabio.edfimage.EdfImage(np.zeros((48, 48), np.uint8)).write(str(folder / f"{name}.edf"))
    return variant(folder, f"run_{name}", ("mask: mask.edf", f"mask: {name}.edf"))


def all_zero_stack(folder, name):
    with h5py.File(folder / f"{name}.h5", "w") as file:
        file.attrs["NX_class"] = "NXroot"
        entry = file.create_group("entry_0000/instrument/detector")
        file["entry_0000"].attrs["NX_class"] = "NXentry"
        file["entry_0000/instrument"].attrs["NX_class"] = "NXinstrument"
        entry.attrs["NX_class"] = "NXdetector"
        entry.create_dataset("data", shape=(40, 480, 480), dtype=np.uint16, chunks=(1, 480, 480))
    return with_frames(folder, f"run_{name}", f"{name}.h5")


def output_is_a_file(folder, name):
    (folder / name).write_text("in the way")
    return variant(folder, f"run_{name}", (f"folder: run_{name}", f"folder: {name}"))


def no_water(folder, name):
    text = (folder / "run.yaml").read_text(encoding="utf-8")
    water = re.search(r"^    frames: (raw/\S*water\S*)", text, re.MULTILINE)[1]
    return variant(folder, name, (water, "raw/absent_water.h5"))


def swapped_water(folder, name):
    text = (folder / "run.yaml").read_text(encoding="utf-8")
    water, empty = (re.findall(rf"raw/{kind}_\S+", text) for kind in ("water", "empty"))
    other = dict(zip(water + empty, empty + water, strict=True))
    swapped = re.sub("|".join(map(re.escape, other)), lambda match: other[match[0]], text)
    path = folder / f"{name}.yaml"
    path.write_text(swapped.replace("folder: results", f"folder: {name}"), encoding="utf-8")
    return path


def poni_without_wavelength(folder, name):
    text = (folder / "geometry.poni").read_text()
    (folder / f"{name}.poni").write_text(re.sub(r"^Wavelength.*$", "", text, flags=re.MULTILINE))
    return variant(folder, f"run_{name}", ("poni: geometry.poni", f"poni: {name}.poni"))


def negative_distance_poni(folder, name):
    text = (folder / "geometry.poni").read_text()
    (folder / f"{name}.poni").write_text(re.sub(r"^Distance: .*$", "Distance: -1.0", text, flags=re.MULTILINE))
    return variant(folder, f"run_{name}", ("poni: geometry.poni", f"poni: {name}.poni"))


MATERIALS = "particle: {{formula: {}, density: 0.6 g/cm^3}}\n  solvent: {{formula: C18H36, density: 0.6 g/cm^3}}"
BOMB = "x0: &a0 [1]\n" + "".join(f"x{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 11))
EXPLICIT = "distance: {} m\n  center: [240.3, 238.6]\n  pixel_size: 354.1667 um\n  energy: 18 keV"

CASES = {
    "missing frames": (lambda f, n: with_frames(f, n, "raw/absent.h5"), "data.frames: file raw/absent.h5 not found"),
    "glob without a match": (lambda f, n: with_frames(f, n, "raw/*.nothing"), "no file matches"),
    "empty folder": (empty_folder, "no file matches"),
    "a folder as frames": (lambda f, n: with_frames(f, n, "raw"), "is a folder"),
    "wrong unit": (lambda f, n: variant(f, n, ("\n  thickness: 4 mm", "\n  thickness: 4 keV")), "give it in mm"),
    "no unit": (lambda f, n: variant(f, n, ("q_min: 0.1 1/nm", "q_min: 0.1")), "a unit is missing"),
    "unknown key": (lambda f, n: variant(f, n, ("  flat: flat.edf", "  flatt: flat.edf")), "did you mean `flat`?"),
    "zero-byte HDF5": (lambda f, n: with_frames(f, n, bad_file(f, f"{n}.h5", b"")), "empty"),
    "text renamed to .h5": (lambda f, n: with_frames(f, n, bad_file(f, f"{n}.h5", b"hello\n" * 99)), ".h5"),
    "truncated HDF5": (
        lambda f, n: with_frames(f, n, bad_file(f, f"{n}.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 99)),
        ".h5",
    ),
    "mixed shapes": (mixed_shapes, "f_2.edf"),
    "scalers of another scan": (lambda f, n: variant(f, n, (scalers_name(f), short_scalers(f, n))), "39"),
    "missing scalers": (
        lambda f, n: variant(f, n, (f"scalers: {scalers_name(f)}", "roots: []")),
        "data.scalers",
    ),
    "unknown monitor": (lambda f, n: variant(f, n, ("monitor: I1", "monitor: I7")), "no monitor 'I7'"),
    "no water": (no_water, "intensity.water.frames"),
    "water and empty cell swapped": (swapped_water, "intensity.water"),
    "q_min > q_max": (
        lambda f, n: variant(f, n, ("q_min: 0.1 1/nm, q_max: 5 1/nm", "q_min: 5 1/nm, q_max: 0.1 1/nm")),
        "q_max must be larger",
    ),
    "q beyond the detector": (
        lambda f, n: variant(
            f,
            n,
            ("q_min: 0.1 1/nm, q_max: 5 1/nm", "q_min: 50 1/nm, q_max: 60 1/nm"),
            ("{q_min: 0.15 1/nm, q_max: 5 1/nm", "{q_min: 50 1/nm, q_max: 60 1/nm"),
        ),
        "the detector covers",
    ),
    "thickness 0": (lambda f, n: variant(f, n, ("\n  thickness: 4 mm", "\n  thickness: 0 mm")), "must be positive"),
    "negative distance": (
        lambda f, n: variant(f, n, ("poni: geometry.poni", EXPLICIT.format(-1))),
        "geometry.distance: must be positive",
    ),
    "negative distance in the PONI": (negative_distance_poni, "geometry.poni"),
    "PONI without wavelength": (poni_without_wavelength, "wavelength"),
    "PONI that is none": (lambda f, n: variant(f, n, ("poni: geometry.poni", "poni: truth.csv")), "geometry.poni"),
    "all pixels masked": (all_masked, "every pixel is masked"),
    "mask of another shape": (wrong_mask_shape, "corrections.mask"),
    "only empty frames": (all_zero_stack, "none of the 6 frames of the background is usable"),
    "output folder is a file": (output_is_a_file, "output.folder"),
    "output folder cannot be made": (
        lambda f, n: variant(f, n, (f"folder: {n}", "folder: /proc/nowhere")),
        "output.folder",
    ),
    "background window without frames": (
        lambda f, n: variant(f, n, ('frames: "0:6"', "time: [-99 s, -98 s]")),
        "no frame lies in",
    ),
    "background frame that does not exist": (
        lambda f, n: variant(f, n, ('frames: "0:6"', 'frames: "0:50"')),
        "does not exist",
    ),
    "contrast of an unknown element": (
        lambda f, n: variant(f, n, ("contrast: 3.52e-05 1/Å^2", MATERIALS.format("CdXx"))),
        "sample: ",
    ),
    "no contrast": (
        lambda f, n: variant(f, n, ("contrast: 3.52e-05 1/Å^2", MATERIALS.format("C18H36"))),
        "there is no contrast",
    ),
    "fit window between two bins": (
        lambda f, n: variant(f, n, ("q_min: 0.15 1/nm, q_max: 5 1/nm", "q_min: 2 1/nm, q_max: 2.02 1/nm")),
        "it needs 10",
    ),
    "infinite gain": (lambda f, n: variant(f, n, ("gain: 1.6", "gain: .inf")), "corrections.gain"),
    "gain as a switch": (lambda f, n: variant(f, n, ("gain: 1.6", "gain: true")), "corrections.gain"),
    "somebody's home": (lambda f, n: with_frames(f, n, "~nosuchuser/x.h5"), "home folder"),
    "control characters": (lambda f, n: variant(f, n, ("title: CdSe", 'title: "a\\0b" #')), "title"),
    "YAML tags": (lambda f, n: variant(f, n, ("gain: 1.6", "gain: !!python/object/apply:os.getpid []")), "tag"),
    "YAML nested without end": (lambda f, n: variant(f, n, ("gain: 1.6", "gain: " + 3000 * "[")), "nested"),
    "YAML aliases without end": (lambda f, n: variant(f, n, ("title: ", BOMB + "title: ")), "values"),
    "broken YAML": (lambda f, n: variant(f, n, ("data:", "data: [")), "correct the YAML"),
    "duplicate key": (lambda f, n: variant(f, n, ("sample:", "engine: {workers: 1}\nsample:")), "duplicate"),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.replace(" ", "-"))
def test_each_mistake_is_one_clear_line(beamtime, case):
    build, hint = CASES[case]
    name = "bad_" + re.sub(r"\W+", "_", case)
    path = build(beamtime, name)
    done = CliRunner().invoke(main, ["run", str(path)])
    lines = done.stderr.strip().splitlines()
    assert done.exit_code == 2, done.output
    assert len(lines) == 1, lines
    assert re.match(rf"{re.escape(str(path))}:\d+:\d+: ", lines[0]), lines[0]
    assert hint in lines[0]
    assert "Traceback" not in done.output
    written = [p for p in (beamtime / name, beamtime / f"run_{name}") if p.is_dir() and any(p.iterdir())]
    assert not [p for p in written if any(q.suffix in {".csv", ".nxs"} or ".writing" in q.name for q in p.iterdir())]


def test_a_disk_that_fills_up_is_one_line_and_leaves_no_results(beamtime):
    """No file may grow beyond 300 kB, as on a full disk; the HDF5 library would crash while it closes its file."""
    path = variant(beamtime, "full_disk")
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)); " + (
        "from saxs_pipeline.apps.cli import main; main(['run', sys.argv[1]])"
    )
    done = subprocess.run([sys.executable, "-c", limited, path], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr[-2000:]
    said = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert len(said) == 1, said
    assert re.match(r".*full_disk\.yaml:\d+:\d+: output\.folder: .*make room and run again", said[0])
    assert {file.name for file in (beamtime / "full_disk").iterdir()} <= {".checkpoints", "status.json"}


def test_as_a_process_of_its_own_too(beamtime):
    path = with_frames(beamtime, "bad_process", "raw/absent.h5")
    for verb in ("run", "check"):
        done = command(verb, path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert "data.frames" in done.stderr


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\x89HDF\r\n\x1a\n", b"II*\0", b"\0" * 4096, b"{"])
def test_inspect_of_anything_is_clear(tmp_path, content):
    path = tmp_path / "thing.h5"
    path.write_bytes(content)
    done = CliRunner().invoke(main, ["inspect", str(path)])
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "thing.h5" in done.stderr


def test_simulate_does_not_write_over_something(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    done = CliRunner().invoke(main, ["simulate", "id02-cdse", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert (tmp_path / "precious.txt").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1
