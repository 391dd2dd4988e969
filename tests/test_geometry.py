"""From the geometry section to what pyFAI gets; the traps of formats.md §1.3 and §1.6."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyFAI.detectors import detector_factory

from saxs_pipeline import geometry
from saxs_pipeline.config import RunConfig
from saxs_pipeline.runfile import RunFile
from saxs_pipeline.types import BadInput, HeaderGeometry, SourceInfo

HEADER = HeaderGeometry(
    distance_m=1.0,
    poni1_m=238.6 * 1e-4,
    poni2_m=240.3 * 1e-4,
    pixel1_m=1e-4,
    pixel2_m=1e-4,
    wavelength_m=0.6888e-10,
)


def run(**section):
    config = RunConfig.model_validate(
        {
            "title": "t",
            "data": {"frames": str(Path(__file__))},
            "geometry": section,
            "corrections": {"gain": 1, "read_noise": 0, "polarization": None},
            "integration": {"bins": 100, "q_min": "0.1 1/nm", "q_max": "3 1/nm"},
            "intensity": {"monitor": "none"},
        }
    )
    return RunFile(Path("run.yaml"), "", config, {(): (1, 1), ("geometry",): (5, 1)})


def info(shape=(480, 480), header=None):
    return SourceInfo("test", (Path("frame.edf"),), 1, shape, np.dtype(np.uint16), geometry=header)


EXPLICIT = {"distance": "1 m", "center": [240.3, 238.6], "energy": "18 keV"}


def test_the_centre_is_in_pixels_fast_axis_first():
    config = geometry.resolve(run(**EXPLICIT, pixel_size="100 um"), info())
    assert config["poni1"] == pytest.approx(238.6e-4)
    assert config["poni2"] == pytest.approx(240.3e-4)
    assert geometry.energy_keV(config) == pytest.approx(18.0)


def test_another_pixel_size_than_the_headers_moves_the_centre_with_it():
    config = geometry.resolve(run(header=True, pixel_size="200 um"), info(header=HEADER))
    assert config["poni1"] / 200e-6 == pytest.approx(238.6)
    assert config["poni2"] / 200e-6 == pytest.approx(240.3)


def test_values_here_win_over_the_header_and_its_rotation_is_kept():
    header = HeaderGeometry(**(HEADER.__dict__ | {"rot1": 0.02}))
    config = geometry.resolve(run(header=True, distance="2 m"), info(header=header))
    assert config["dist"] == 2.0
    assert config["rot1"] == 0.02
    assert config["wavelength"] == pytest.approx(0.6888e-10)


@pytest.mark.parametrize("size", [{}, {"pixel_size": "172 um"}])
def test_a_named_detector_keeps_its_mask(size):
    """With or without a pixel size of its own (a plain detector of that size has no gaps)."""
    named = detector_factory("Pilatus1M")
    spec = geometry.specify(run(**EXPLICIT, detector="Pilatus1M", **size), info(named.shape))
    np.testing.assert_array_equal(spec.mask, named.mask != 0)
    assert 0.05 < spec.mask.mean() < 0.1


def test_a_binned_pixel_is_masked_where_any_of_its_pixels_is():
    named = detector_factory("Eiger4M")
    shape = (named.shape[0] // 2, named.shape[1] // 2)
    if (shape[0] * 2, shape[1] * 2) != tuple(named.shape):
        with pytest.raises(BadInput, match="pixels"):
            geometry.specify(run(**EXPLICIT, detector="Eiger4M"), info(shape))
    rayonix = geometry.resolve(run(**EXPLICIT, detector="RayonixMx170"), info((480, 480)))
    pixel = rayonix["detector_config"]["pixel1"]
    assert pixel == pytest.approx(8 * 44.2708e-6, rel=1e-5)


def test_the_varex_panel_of_p21_whole_and_binned():
    for size in (2880, 1440):
        config = geometry.resolve(run(**EXPLICIT, detector="VarexXRD4343CT"), info((size, size)))
        assert config["detector_config"]["pixel1"] == pytest.approx(150e-6 * 2880 / size)
        assert geometry.specify(run(**EXPLICIT, detector="XRD4343CT"), info((size, size))).mask.sum() == 0
    with pytest.raises(BadInput, match="2880"):
        geometry.resolve(run(**EXPLICIT, detector="XRD4343CT"), info((1000, 1000)))


def with_corrections(detector, **corrections):
    section = {"gain": 1, "read_noise": 0, "polarization": None} | corrections
    whole = {
        "title": "t",
        "data": {"frames": str(Path(__file__))},
        "geometry": EXPLICIT | {"detector": detector},
        "corrections": section,
        "integration": {"bins": 100, "q_min": "0.1 1/nm", "q_max": "3 1/nm"},
        "intensity": {"monitor": "none"},
    }
    return RunFile(Path("run.yaml"), "", RunConfig.model_validate(whole), {(): (1, 1), ("corrections",): (6, 1)})


def test_sigma_clipping_belongs_to_what_names_a_specification():
    plain, clipped, other = (
        geometry.specify(with_corrections("RayonixMx170", **more), info((480, 480)))
        for more in ({}, {"sigma_clip": {}}, {"sigma_clip": {"threshold": 4, "iterations": 3}})
    )
    assert (plain.clip, clipped.clip, other.clip) == (None, (5.0, 5), (4.0, 3))
    assert len({plain.key, clipped.key, other.key}) == 3


def test_the_sensor_that_a_detector_declares():
    spec = geometry.specify(with_corrections("RayonixMx170", sensor="declared"), info((480, 480)))
    assert spec.sensor == ("Gd2O2S", pytest.approx(40e-6))
    given = with_corrections("XRD4343CT", sensor={"material": "CdTe", "thickness": "1 mm"})
    assert geometry.specify(given, info((2880, 2880))).sensor == ("CdTe", 1e-3)


@pytest.mark.parametrize(
    ("detector", "shape", "sensor", "hint"),
    [
        ("XRD4343CT", (2880, 2880), "declared", "knows 0 sensors of this detector; give material and thickness"),
        ("Pilatus1M", (1043, 981), "declared", "{material: Si, thickness: 320 um} or {material: Si"),
        ("Pilatus1M", (1043, 981), {"material": "CsI", "thickness": "0.6 mm"}, "no 'CsI'; it knows Si, Ge"),
    ],
)
def test_sensors_that_are_not_known(detector, shape, sensor, hint):
    with pytest.raises(BadInput, match=r"run\.yaml:6:1: corrections\.sensor") as caught:
        geometry.specify(with_corrections(detector, sensor=sensor), info(shape))
    assert hint in str(caught.value)


def test_images_that_are_stored_on_their_side(tmp_path):
    """The geometry is that of the turned image; the mask may be stored in another orientation again."""
    mask = np.zeros((300, 200))
    mask[:40, 150:] = 1
    np.save(tmp_path / "mask.npy", mask[::-1])
    config = RunConfig.model_validate(
        {
            "title": "t",
            "data": {"frames": str(Path(__file__)), "orientation": "rotate_left"},
            "geometry": EXPLICIT | {"center": [100, 150], "pixel_size": "1 mm"},
            "corrections": {
                "gain": 1, "read_noise": 0, "polarization": None,
                "mask": {"file": str(tmp_path / "mask.npy"), "orientation": "flip_up_down"},
            },
            "integration": {"bins": 100, "q_min": "0.1 1/nm", "q_max": "3 1/nm"},
            "intensity": {"monitor": "none"},
        }
    )  # fmt: skip
    spec = geometry.specify(RunFile(Path("run.yaml"), "", config, {(): (1, 1)}), info((200, 300)))
    assert spec.mask.shape == (200, 300)
    np.testing.assert_array_equal(np.rot90(spec.mask), mask != 0)
    with pytest.raises(BadInput, match=r"mask\.npy has \(200, 300\) pixels, the frames have \(300, 200\)"):
        np.save(tmp_path / "mask.npy", mask.T)
        geometry.specify(RunFile(Path("run.yaml"), "", config, {(): (1, 1)}), info((200, 300)))


def test_the_geometry_of_a_header_is_that_of_the_image_as_stored():
    config = run(header=True).config
    turned = config.model_copy(update={"data": config.data.model_copy(update={"orientation": "flip_up_down"})})
    with pytest.raises(BadInput, match="give a PONI"):
        geometry.resolve(RunFile(Path("run.yaml"), "", turned, {(): (1, 1)}), info(header=HEADER))


@pytest.mark.parametrize(
    ("section", "shape", "hint"),
    [
        (EXPLICIT | {"detector": "NoSuchDetector"}, (480, 480), "geometry.detector"),
        (EXPLICIT | {"detector": "Pilatus1M"}, (480, 480), "has (1043, 981) pixels"),
        ({"header": True}, (480, 480), "no geometry in the header"),
    ],
)
def test_what_does_not_fit_is_refused(section, shape, hint):
    with pytest.raises(BadInput, match=r"run\.yaml:5:1") as caught:
        geometry.specify(run(**section), info(shape))
    assert hint in str(caught.value)
