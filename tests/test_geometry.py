"""From the geometry section to what pyFAI gets; the traps of formats.md §1.3 and §1.6."""

from __future__ import annotations

import json
from dataclasses import replace
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


def test_resolution_of_a_beam_a_pixel_and_each_bin():
    """2π/(λL) = 91.22 1/nm per m at 18 keV and 1 m; widths of squares over √12, of a Gaussian's half maximum 2.3548."""
    config = geometry.resolve(run(**EXPLICIT, pixel_size="100 um"), info())
    q, widths = np.array([1.0, 2.0, 4.0]), np.array([0.02, 0.04, 0.3])
    wanted = np.sqrt((91.22 * 8e-4 / 2.35482) ** 2 + (91.22 * 1e-4) ** 2 / 12 + widths**2 / 12)
    pairs = geometry.resolution_1_nm(config, 8e-4, q, widths)
    np.testing.assert_allclose(pairs, np.transpose([q, wanted]), rtol=1e-4)
    assert geometry.resolution_1_nm(config, 8e-4, q, np.full(3, 0.04)) == pytest.approx(wanted[1], rel=1e-4)
    assert geometry.resolution_1_nm(json.loads(json.dumps(config)), 8e-4, q, widths) == pairs  # as run.nxs has it


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


PONI = """poni_version: 2.1
Detector: Detector
Detector_config: {"pixel1": 3e-4, "pixel2": 2e-4, "max_shape": [480, 480], "orientation": 3}
Distance: 3.5
Poni1: 0.11
Poni2: 0.07
Rot1: 0.01
Rot2: -0.02
Rot3: 0.0
Wavelength: 1.2e-10
"""


def test_a_poni_file_wins_over_the_header(tmp_path):
    """Whole, with its tilt: nothing of the header's geometry is left (formats.md §1.3)."""
    (tmp_path / "a.poni").write_text(PONI)
    with_poni = run(poni=str(tmp_path / "a.poni"))
    config = geometry.resolve(with_poni, info(header=HEADER))
    expected = {"dist": 3.5, "poni1": 0.11, "poni2": 0.07, "rot1": 0.01, "rot2": -0.02, "wavelength": 1.2e-10}
    assert {name: config[name] for name in expected} == pytest.approx(expected)
    assert config["detector_config"]["pixel1"] == 3e-4
    spec = geometry.specify(with_poni, info(header=HEADER))
    assert spec.solid_angle_sr == pytest.approx(3e-4 * 2e-4 / 3.5**2)
    with pytest.raises(ValueError, match="a PONI file holds the whole geometry"):
        run(poni=str(tmp_path / "a.poni"), header=True)


@pytest.mark.parametrize("size", [{}, {"pixel_size": "172 um"}])
@pytest.mark.parametrize(("name", "shape"), [("Pilatus1M", (1043, 981)), ("PilatusCdTe2M", (1679, 1475))])
def test_a_named_detector_keeps_its_mask(name, shape, size):
    """With or without a pixel size of its own (a plain detector of that size has no gaps)."""
    named = detector_factory(name)
    spec = geometry.specify(run(**EXPLICIT, detector=name, **size), info(shape))
    np.testing.assert_array_equal(spec.mask, named.mask != 0)
    assert 0.05 < spec.mask.mean() < 0.1


def test_a_binning_of_seven_has_its_pixels_and_keeps_the_mask():
    """Factors that no vendor offers, of which pyFAI's setter is wrong for the Rayonix (formats.md §1.6)."""
    named, shape = detector_factory("Eiger2CdTe_9M"), (3262 // 7, 3108 // 7)
    spec = geometry.specify(run(**EXPLICIT, detector="Eiger2CdTe_9M"), info(shape))
    config = spec.geometry["detector_config"]
    assert (config["pixel1"], config["pixel2"]) == pytest.approx((7 * 75e-6, 7 * 75e-6))
    rows, columns = np.nonzero(named.mask)
    expected = np.zeros(shape, dtype=bool)
    expected[rows // 7, columns // 7] = True
    np.testing.assert_array_equal(spec.mask, expected)
    assert 0.06 < spec.mask.mean() < 0.2
    guessed = detector_factory("Eiger2CdTe_9M")
    guessed.guess_binning(np.empty(shape))
    np.testing.assert_array_equal(spec.mask, guessed.mask != 0)
    twelve = geometry.resolve(run(**EXPLICIT, detector="RayonixMx170"), info((320, 320)))["detector_config"]
    assert twelve["pixel1"] == pytest.approx(12 * 44.2708e-6, rel=1e-5)


def test_a_mask_file_of_a_binned_detector_is_not_lost(tmp_path):
    """pyFAI's guess_binning erases a mask that was set before (formats.md §1.6)."""
    mask = np.zeros((480, 480), np.uint8)
    mask[100:120, 30:400] = 1
    np.save(tmp_path / "mask.npy", mask)
    spec = geometry.specify(with_corrections("RayonixMx170", mask=str(tmp_path / "mask.npy")), info((480, 480)))
    np.testing.assert_array_equal(spec.mask, mask != 0)
    theirs = detector_factory("RayonixMx170")
    theirs.mask = np.kron(mask, np.ones((8, 8), np.uint8))
    theirs.guess_binning(mask)
    assert theirs.mask is None or not theirs.mask.any()  # or the trap is gone


def test_frames_of_a_rayonix_binned_by_seven_need_their_pixel_size():
    """3840 is no multiple of 7: what its 548 × 548 pixels are must be said."""
    with pytest.raises(BadInput, match=r"has \(3840, 3840\) pixels, the frames have \(548, 548\); give the pixel size"):
        geometry.resolve(run(**EXPLICIT, detector="RayonixMx170"), info((548, 548)))
    config = geometry.resolve(run(**EXPLICIT, pixel_size="309.8956 um"), info((548, 548)))
    assert config["detector_config"]["pixel1"] == pytest.approx(7 * 44.2708e-6)


def test_a_tilt_in_the_header_is_refused_with_its_reason():
    """pyFAI's setSPD has no tilt (formats.md §3.4): not ignored, and not called a header without a geometry."""
    from saxs_pipeline.io.headers import saxs_geometry

    keys = {"SampleDistance": "1.2", "Center_1": "240", "Center_2": "238", "PSize_1": "1e-4", "PSize_2": "1e-4"}
    for name in ("Rot_1", "Rot_2", "Rot_3"):
        found, warnings = saxs_geometry(
            keys | {"Rot_1": "0", "Rot_2": "0.0", "Rot_3": "0"} | {name: "0.01"}, (480, 480)
        )
        assert found is None
        tilted = SourceInfo("test", (Path("frame.edf"),), 1, (480, 480), np.dtype(np.uint16), warnings=warnings)
        with pytest.raises(BadInput, match=rf"in the header of frame\.edf .*rotated detector \({name} = 0\.01\).*PONI"):
            geometry.resolve(run(header=True), tilted)


def test_pedestal_and_dummy_are_the_headers_unless_the_run_file_says():
    """The mean bias of a MarCCD header (formats.md §1.6), the Dummy of a SAXS header (§1.3)."""
    known = replace(info((480, 480)), pedestal=10.0, dummy=-5.0, delta_dummy=1.5)
    spec = geometry.specify(with_corrections("RayonixMx170"), known)
    assert (spec.pedestal, spec.dummy, spec.dummy_delta) == (10.0, -5.0, 1.5)
    spec = geometry.specify(with_corrections("RayonixMx170", pedestal=3, dummy=-1), known)
    assert (spec.pedestal, spec.dummy, spec.dummy_delta) == (3.0, -1.0, 0.0)


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
