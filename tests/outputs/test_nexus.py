from __future__ import annotations

import dataclasses

import h5py
import numpy as np
import pytest

from saxs_pipeline.outputs import nexus
from saxs_pipeline.types import BadInput
from tests.outputs.known_run import make_result, only


def assert_equal(a, b, where="result"):
    """Equal to the last bit, in type too."""
    if dataclasses.is_dataclass(a):
        assert type(a) is type(b), where
        for field in dataclasses.fields(a):
            assert_equal(getattr(a, field.name), getattr(b, field.name), f"{where}.{field.name}")
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype, where
        assert a.shape == b.shape, where
        np.testing.assert_array_equal(a, b, err_msg=where)
    elif isinstance(a, tuple):
        assert type(a) is type(b), where
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}[{i}]")
    else:
        assert a == b, where
        assert type(a) is type(b), where


def test_everything_comes_back_exactly(result, tmp_path):
    nexus.write_run(result, tmp_path / "run.nxs")
    assert_equal(nexus.read_run(tmp_path / "run.nxs"), result)


def test_absent_parts_come_back_absent(bare, tmp_path):
    nexus.write_run(bare, tmp_path / "run.nxs")
    assert_equal(nexus.read_run(tmp_path / "run.nxs"), bare)


@pytest.mark.parametrize("frames", [[20], []])
def test_one_frame_or_none_comes_back(result, tmp_path, frames):
    few = only(result, frames)
    nexus.write_run(few, tmp_path / "run.nxs")
    assert_equal(nexus.read_run(tmp_path / "run.nxs"), few)


def test_without_images_there_is_no_detector(result, tmp_path):
    nexus.write_run(dataclasses.replace(result, pixel_mask=None), tmp_path / "run.nxs")
    assert nexus.read_run(tmp_path / "run.nxs").pixel_mask is None
    with h5py.File(tmp_path / "run.nxs") as file:
        assert "instrument" not in file["entry"]


def test_a_scale_of_version_0_1_has_no_contributions(result, tmp_path):
    nexus.write_run(result, tmp_path / "run.nxs")
    with h5py.File(tmp_path / "run.nxs", "a") as file:
        del file["entry/scale/contributions"], file["entry/scale/drift"]
    scale = nexus.read_run(tmp_path / "run.nxs").scale
    assert scale.contributions == ()
    assert np.isnan(scale.drift)
    assert scale.factor == result.scale.factor


def test_unusual_curves_come_back(bare, tmp_path):
    curves = dataclasses.replace(bare.curves, unit="a.u.", correlated=True, scale_rel=0.0)
    odd = dataclasses.replace(bare, curves=curves, title="Größe µ ☃", warnings=("", "w"))
    nexus.write_run(odd, tmp_path / "run.nxs")
    assert_equal(nexus.read_run(tmp_path / "run.nxs"), odd)


def test_the_same_result_gives_the_same_bytes(result, tmp_path):
    for name in ("a.nxs", "b.nxs"):
        nexus.write_run(result, tmp_path / name)
    assert (tmp_path / "a.nxs").read_bytes() == (tmp_path / "b.nxs").read_bytes()


def test_large_arrays_are_compressed_in_chunks_of_whole_rows(tmp_path):
    nexus.write_run(make_result(400, 200), tmp_path / "run.nxs")
    with h5py.File(tmp_path / "run.nxs") as file:
        stack = file["entry/curves/I"]
        assert stack.compression == "gzip"
        assert stack.chunks == (327, 200)


def test_uncertainties_carry_units_and_names(result, tmp_path):
    nexus.write_run(result, tmp_path / "run.nxs")
    with h5py.File(tmp_path / "run.nxs") as file:
        series = file["entry/series"]
        for name, unit in {"r": "nm", "sigma_r": "nm", "c_nc": "µmol/L", "background": "1/mm", "time": "s"}.items():
            assert series[name].attrs["units"] == unit
        np.testing.assert_array_equal(series["r_errors"], result.quantities.radius_nm.statistical)
        np.testing.assert_array_equal(series["c_nc_systematic"], result.quantities.c_nc_umol_L.systematic)
        np.testing.assert_array_equal(file["entry/curves/I_errors"], result.curves.sigma)
        assert series["flag"].asstr()[13] == "all_zero"
        assert list(series["covariance"].attrs["units"]) == ["nm", "nm", "µmol/L"]
        fit = file["entry/fit"]
        for name in ("parameters", "covariance"):
            assert len(fit[name].attrs["units"]) == fit[name].shape[-1]
        units = dict(zip(fit["parameter_names"].asstr()[()], fit["parameters"].attrs["units"], strict=True))
        assert units["r_nm"] == "nm" and units["sigma2_nm2"] == "nm^2" and units["background_1_mm"] == "1/mm"


def test_a_pixel_mask_is_that_of_nexus_and_small(result, tmp_path):
    """A field of 32 bits (NXdetector): gap bit 0, dead 1, under responding 2, over responding 3, noisy 4, user 8."""
    large = np.zeros((2880, 2880), np.uint16)
    large[::7, 400:] |= 1
    large[1000:1200, :] |= 256
    large[np.random.default_rng(4).random(large.shape) < 1e-3] |= 2
    nexus.write_run(dataclasses.replace(result, pixel_mask=large), tmp_path / "run.nxs")
    with h5py.File(tmp_path / "run.nxs") as file:
        assert [file[f"entry/{name}"].attrs["NX_class"] for name in ("instrument", "instrument/detector")] == [
            *("NXinstrument", "NXdetector")
        ]
        mask = file["entry/instrument/detector/pixel_mask"]
        assert mask.dtype == np.uint32 and mask.compression == "gzip"
        assert mask.id.get_storage_size() < 1_000_000  # of 33 MB
        np.testing.assert_array_equal(mask[()], large)
        for text in ("bit 0: gap", "bit 1: dead", "bit 2: under", "bit 3: over", "bit 4: noisy", "bit 8: user"):
            assert text in mask.attrs["bits"]
        assert "as the geometry means" in mask.attrs["orientation"]


@pytest.mark.parametrize("content", [b"", b"no HDF5 at all"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "run.nxs").write_bytes(content)
    with pytest.raises(BadInput, match="not a results file"):
        nexus.read_run(tmp_path / "run.nxs")


def test_a_foreign_nexus_file_is_refused(tmp_path):
    with h5py.File(tmp_path / "other.nxs", "w") as file:
        file.create_group("entry")
    with pytest.raises(BadInput, match="not a results file"):
        nexus.read_run(tmp_path / "other.nxs")
