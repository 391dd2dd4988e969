from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from saxs_pipeline.io.frames import formats, identify, open_frames, read_image
from saxs_pipeline.types import BadInput
from tests.io.beamline_files import counts, marccd_bytes, tiff_bytes, write_cbf, write_edf, write_lima


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    image = counts(1)[0]
    writers = {
        "hdf5": lambda path: write_lima(path, image[None]),
        "edf": lambda path: write_edf(path, [image]),
        "cbf": lambda path: write_cbf(path, image),
        "tiff": lambda path: path.write_bytes(tiff_bytes(image)),
        "marccd": lambda path: path.write_bytes(marccd_bytes(image)),
        "fio": lambda path: path.write_text("!\n! Comments\n!\n%c\ntimesweep2 1:2/0.1\n%p\n%d\n"),
    }
    for kind, write in writers.items():
        for suffix in (".h5", ".tif", ".dat", ""):
            path = tmp_path / f"{kind}{suffix}"
            write(path)
            assert identify(path) == kind


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 bytes"),
        (b"frame,time\n1,2\n", "a text file, whatever its name says"),
        (b"\x89HDF", "cut short"),
        (b"{\nEDF_DataBlockID = 1.Image.Psd ;\nDim_1 = 4 ;\n", "cut short"),
        (b"II*\x00\x08\x00", "cut short"),
        (b"\x1f\x8b\x08\x00" + bytes(50), "unpack"),
        (bytes(range(256)), "not of a known image format"),
    ],
)
def test_rubbish_is_one_clear_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        open_frames([path])
    (line,) = str(caught.value).splitlines()
    assert str(path) in line and words in line


def test_truncated_hdf5_header(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n\x00\x00")
    with pytest.raises(BadInput, match=r"a\.h5: cannot be opened as HDF5"):
        open_frames([path])


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        identify(tmp_path / "no.h5")
    with pytest.raises(BadInput, match="is a folder"):
        identify(tmp_path)
    with pytest.raises(BadInput, match="no files"):
        open_frames([])


def test_mixed_formats_name_both_files(tmp_path: Path) -> None:
    a, b = write_edf(tmp_path / "a.edf", [counts(1)[0]]), write_lima(tmp_path / "b.h5", counts(1))
    with pytest.raises(BadInput, match=r"a\.edf is edf, .*b\.h5 is hdf5"):
        open_frames([a, b])


def test_choosing_a_format_imports_nothing_heavy() -> None:
    code = (
        "import sys, saxs_pipeline.io.frames, saxs_pipeline.io.scalers, saxs_pipeline.io.curves_source\n"
        "print([m for m in ('h5py', 'hdf5plugin', 'fabio', 'pyFAI', 'scipy', 'PIL', 'pint') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_other_packages_add_formats(tmp_path: Path) -> None:
    (tmp_path / "facility.py").write_text(
        "from saxs_pipeline.io.frames import Format\n"
        "def open_it(paths, detector, roots): return ('opened', paths, detector)\n"
        "FORMAT = Format('raw42', lambda head, path: head.startswith(b'RAW42'), 'facility:open_it')\n"
    )
    info = tmp_path / "facility-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: facility\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[saxs_pipeline.frames]\nraw42 = facility:FORMAT\n")
    (tmp_path / "a.raw").write_bytes(b"RAW42 and so on")
    code = (
        "from pathlib import Path; from saxs_pipeline.io.frames import identify, open_frames; import sys\n"
        "path = Path(sys.argv[1]); print(identify(path), *open_frames([path], detector='d'))"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "a.raw")]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(run, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith("raw42 opened [") and done.stdout.strip().endswith("d")
    (tmp_path / "facility.py").write_text("1 / 0\n")
    done = subprocess.run(run, capture_output=True, text=True, check=False, env=environment)
    assert "BadInput: the frame format raw42 (facility:FORMAT) cannot be loaded: division by zero" in done.stderr
    assert "raw42" not in [known.name for known in formats()]


# --- masks and flats ---------------------------------------------------------------------------------------------


def test_mask_from_every_kind_of_file(tmp_path: Path) -> None:
    import h5py

    mask = (counts(1)[0] > 33).astype(np.uint8)
    np.save(tmp_path / "m.npy", mask.astype(bool))
    write_edf(tmp_path / "m.edf", [mask])
    (tmp_path / "m.tif").write_bytes(tiff_bytes(mask))
    write_cbf(tmp_path / "m.cbf", mask)
    np.savetxt(tmp_path / "m.txt", mask, fmt="%d")
    np.savetxt(tmp_path / "m.csv", mask, fmt="%d", delimiter=",", header="mask, 1 = masked")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["mask/values"] = mask
        file["mask/title"] = "one"
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(read_image(path), mask, err_msg=path.name)


def test_hdf5_image_by_path_or_signal(tmp_path: Path) -> None:
    import h5py

    first, second = counts(2)
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file["a"], file["b/c"] = first, second
    np.testing.assert_array_equal(read_image(Path(f"{path}::/b/c")), second)
    with pytest.raises(BadInput, match="one 2-D dataset is needed, found /a, /b/c"):
        read_image(path)
    with pytest.raises(BadInput, match="no dataset /d"):
        read_image(Path(f"{path}::/d"))
    with h5py.File(path, "a") as file:
        file["b"].attrs["NX_class"], file["b"].attrs["signal"] = "NXdata", "c"
    np.testing.assert_array_equal(read_image(path), second)


def test_images_that_are_none(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("this must not run",)

    np.save(tmp_path / "pickle.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    np.save(tmp_path / "cube.npy", np.zeros((2, 3, 4)))
    (tmp_path / "ragged.txt").write_text("1 2 3\n4 5\n")
    (tmp_path / "words.txt").write_text("1 2 x\n4 5 6\n")
    write_lima(tmp_path / "two.h5", counts(2))
    write_edf(tmp_path / "two.edf", list(counts(2)))
    for name, words in (
        ("pickle.npy", "allow_pickle"),
        ("cube.npy", "needs rows and columns"),
        ("ragged.txt", "differ in length"),
        ("words.txt", "not a table of numbers"),
        ("two.h5", "found none"),
        ("two.edf", "has 2 frames"),
    ):
        with pytest.raises(BadInput, match=words):
            read_image(tmp_path / name)
