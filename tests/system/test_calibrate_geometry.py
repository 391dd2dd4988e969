"""`calibrate geometry` as a user runs it: known cameras, a real frame, and everything it must refuse."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyFAI
import pytest
from PIL import Image
from pyFAI.detectors import detector_factory

from saxs_pipeline import geometry as resolving
from saxs_pipeline import runfile
from saxs_pipeline.apps.calibration_geometry import Request, calibrate
from saxs_pipeline.io.frames import open_frames
from saxs_pipeline.types import BadInput
from tests.conftest import ROOT, invoke, variant
from tests.ring_frames import Setup, rayonix, rings, two_theta, write

RAYONIX = Setup()
NEAR = Setup(shape=(240, 240), centre_px=(120.3, 118.6), distance_m=0.5)
SAMPLE = ROOT / "sample_data"


def fit(folder: Path, image: np.ndarray | Path, setup: Setup = RAYONIX, **more):
    """Fit2D's view of what is found in one frame, and the rows that are said."""
    frame = image if isinstance(image, Path) else write(folder / "frame.edf", image)
    request = Request((frame,), folder / "found.poni", **{"energy": f"{setup.energy_keV} keV"} | more)
    rows = calibrate(request)
    found = pyFAI.load(str(request.out))
    assert found.rot3 == 0
    return found.getFit2D(), rows


def said(rows, name):
    return " | ".join(text for key, text in rows if key == name)


def pixel(setup: Setup) -> str:
    return f"{setup.pixel_m * 1e6:.6f} um"


def numbers(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text)]


# --- known cameras ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plane", [0.0, 100.0, -135.0])
def test_a_tilted_rayonix_frame(tmp_path, plane):
    """With its beamstop, gaps, hot and dead pixels and flat field, and no mask at all."""
    setup = replace(RAYONIX, tilt=1.0, plane=plane)
    found, rows = fit(tmp_path, rayonix(setup)[0], pixel_size=pixel(setup))
    assert found["directDist"] == pytest.approx(1000.0, rel=5e-4)
    assert (found["centerX"], found["centerY"]) == pytest.approx(setup.centre_px, abs=0.2)
    assert found["tilt"] == pytest.approx(1.0, abs=0.05)
    assert math.remainder(found["tiltPlanRotation"] - plane, 360) == pytest.approx(0, abs=3)
    distance, error = numbers(said(rows, "distance"))[:2]
    assert abs(distance - 1000.0) < 5 * error and error < 0.05
    x, x_error, y, y_error = numbers(said(rows, "beam centre"))[:4]
    assert abs(x - 240.3) < 5 * x_error and abs(y - 238.6) < 5 * y_error
    assert abs(numbers(said(rows, "tilt"))[0] - 1.0) < 5 * numbers(said(rows, "tilt"))[1]


def test_the_sample_data_with_dark_and_mask_and_the_energy_of_its_header(tmp_path):
    raw = SAMPLE / "raw"
    frame, dark = raw / "agbh_rayonix_00005_00.h5", raw / "dark_rayonix_00004_00.h5"
    found, rows = fit(tmp_path, frame, energy=None, mask=SAMPLE / "mask.edf", dark=dark)
    truth = pyFAI.load(str(SAMPLE / "geometry.poni")).getFit2D()
    assert found["directDist"] == pytest.approx(truth["directDist"], rel=1e-4)
    assert (found["centerX"], found["centerY"]) == pytest.approx((truth["centerX"], truth["centerY"]), abs=0.02)
    assert found["tilt"] < 0.06 and "not determined" in said(rows, "tilt plane")
    assert "corrections.mask" in said(rows, "note")


def test_an_energy_and_pixels_other_than_the_headers_are_said(tmp_path):
    """Both only change the distance that is found; the rings alone hardly tell."""
    frame, mask = SAMPLE / "raw/agbh_rayonix_00005_00.h5", SAMPLE / "mask.edf"
    rows = fit(tmp_path, frame, energy="12 keV", mask=mask, pixel_size="300 um")[1]
    assert "the header says 18 keV, not 12 keV" in said(rows, "note")
    assert "the header says pixels of 354.167 µm, not 300 µm" in said(rows, "note")
    assert "whole rings lie off" in said(rows, "note")


@pytest.mark.parametrize("centre", [(233.0, 120.0), (6.0, 9.0)])
def test_the_beam_near_an_edge(tmp_path, centre):
    setup = replace(NEAR, centre_px=centre, tilt=1.0, plane=30.0)
    found, _ = fit(tmp_path, rings(setup), pixel_size=pixel(setup))
    assert found["directDist"] == pytest.approx(500.0, rel=5e-4)
    assert (found["centerX"], found["centerY"]) == pytest.approx(centre, abs=0.2)


def test_half_of_the_rings_in_shadow(tmp_path):
    image = rings(NEAR)
    shadow = np.arange(240) < 121
    image[:, shadow] = np.random.default_rng(8).poisson(2, (240, int(shadow.sum())))
    found, _ = fit(tmp_path, image, pixel_size=pixel(NEAR))
    assert found["directDist"] == pytest.approx(500.0, rel=5e-4)
    assert (found["centerX"], found["centerY"]) == pytest.approx(NEAR.centre_px, abs=0.2)


def test_lanthanum_hexaboride_at_wide_angle_with_much_tilt(tmp_path):
    setup = Setup((900, 900), 1e-4, 0.15, (440.0, 470.0), tilt=4.0, plane=70.0, energy_keV=17.0)
    image = rings(setup, "LaB6", heights=np.full(40, 300.0), width_px=1.8)
    found, rows = fit(tmp_path, image, setup, pixel_size=pixel(setup), calibrant="LaB6")
    assert found["directDist"] == pytest.approx(150.0, rel=1e-4)
    assert (found["centerX"], found["centerY"]) == pytest.approx(setup.centre_px, abs=0.05)
    assert (found["tilt"], found["tiltPlanRotation"]) == pytest.approx((4.0, 70.0), abs=0.1)
    assert "LaB6" in said(rows, "calibrant")


def test_a_file_of_d_spacings_is_a_calibrant(tmp_path):
    own = tmp_path / "own.D"
    own.write_text("".join(f"{58.380 / k:.8f}\n" for k in range(1, 20)))
    found, rows = fit(tmp_path, rings(NEAR), pixel_size=pixel(NEAR), calibrant=str(own))
    assert found["directDist"] == pytest.approx(500.0, rel=1e-4)
    assert said(rows, "calibrant").startswith("own,")


def test_a_named_detector_keeps_its_name_and_mask(tmp_path):
    setup = Setup((1043, 981), 172e-6, 0.745, (588.6, 320.1), energy_keV=8.58)
    image = rings(setup, heights=300.0, width_px=2.5)
    image[detector_factory("Pilatus1M").mask != 0] = 10  # as if the gaps were not marked in the file
    found, _ = fit(tmp_path, image, setup, detector="Pilatus1M", distance="0.7 m")
    assert pyFAI.load(str(tmp_path / "found.poni")).detector.name == "Pilatus 1M"
    assert found["directDist"] == pytest.approx(745.0, rel=1e-4)
    assert (found["centerX"], found["centerY"]) == pytest.approx(setup.centre_px, abs=0.05)


def test_several_frames_are_summed_and_bad_ones_named(tmp_path):
    frames = [write(tmp_path / f"{k}.edf", rings(NEAR, heights=20.0, level=2.0, seed=k)) for k in range(4)]
    frames.append(write(tmp_path / "4.edf", np.zeros(NEAR.shape, np.int32)))
    one = Request((frames[0],), tmp_path / "one.poni", pixel_size=pixel(NEAR), energy="18 keV")
    alone, together = calibrate(one), calibrate(replace(one, frames=tuple(frames), out=tmp_path / "all.poni"))
    assert said(together, "frames").startswith("4 of 5") and "4.edf" in said(together, "note")
    ratio = numbers(said(alone, "distance"))[1] / numbers(said(together, "distance"))[1]
    assert ratio == pytest.approx(2.0, rel=0.35)  # √4, and weak sectors that are used only together


def test_counting_more_photons_does_not_change_the_answer(tmp_path):
    """Twice the image is the same geometry: the noise is read off the frame."""
    image = rings(NEAR, heights=100.0)
    (tmp_path / "twice").mkdir()
    first, rows = fit(tmp_path, image, pixel_size=pixel(NEAR))
    second, again = fit(tmp_path / "twice", 2 * image, pixel_size=pixel(NEAR))
    assert first["directDist"] == pytest.approx(second["directDist"], rel=2e-5)
    assert numbers(said(rows, "distance"))[1] == pytest.approx(numbers(said(again, "distance"))[1], rel=0.1)


# --- a real frame ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pilatus(real_data) -> Path:
    return real_data / "pilatus1m_agbh"


@pytest.mark.parametrize("with_mask", [True, False])
def test_a_real_frame_of_silver_behenate(pilatus, tmp_path, with_mask):
    """Each ring is double on this frame: the powder has two surfaces, at 740.3 and 753.6 mm by two-Gaussian fits.

    The distance found is that of their middle, 746.9 mm, and the widening of the rings is said.
    """
    mask = {"mask": pilatus / "mask-20260706_133745.txt", "detector": "Pilatus1M"} if with_mask else {}
    found, rows = fit(
        tmp_path, pilatus / "AgBh700_96.9_calib.tif", energy="8.580221 keV", **({"pixel_size": "172 um"} | mask)
    )
    assert found["directDist"] == pytest.approx(746.9, abs=1.0)
    assert abs(found["directDist"] - 745.0) < 2.5  # as others have it, ± 1 mm
    assert (found["centerX"], found["centerY"]) == pytest.approx((588.7, 319.2), abs=0.5)
    assert said(rows, "calibrant").startswith("AgBh, 5 rings")
    assert "widen outward" in said(rows, "note")


@pytest.mark.parametrize("name", ["ihs27_buffer.tif", "ihs27_sample.tif"])
def test_buffer_and_protein_are_refused(pilatus, tmp_path, name):
    done = invoke(
        "calibrate", "geometry", pilatus / name, "--pixel-size", "172 um", "--energy", "8.58 keV",
        "--out", tmp_path / "out.poni",
    )  # fmt: skip
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert re.search(r"no rings|one ring|not the rings|stands? out|not credible", done.stderr)
    assert not list(tmp_path.iterdir())


# --- what is written -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("written")
    frame = SAMPLE / "raw/agbh_rayonix_00005_00.h5"
    done = invoke("calibrate", "geometry", frame, "--mask", SAMPLE / "mask.edf", "--out", folder / "new.poni")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_picture_and_poni_lie_side_by_side_and_nothing_else(written):
    folder, text = written
    assert sorted(path.name for path in folder.iterdir()) == ["new.png", "new.poni", "new.svg"]
    with Image.open(folder / "new.png") as picture:
        assert picture.size[0] > 1000
    drawn = (folder / "new.svg").read_text(encoding="utf-8")
    for label in ("fast axis (px)", "slow axis (px)", "azimuth (°)", "intensity (detector units)"):
        assert label in drawn
    for word in ("distance", "beam centre", "tilt", "residuals", "ring 1", "points", "px", "1/nm", "keV"):
        assert word in text
    assert all("±" in line for line in text.splitlines() if line.startswith(("distance", "beam centre", "rotations")))


def test_the_poni_is_what_a_run_takes(written, beamtime):
    folder, _ = written
    path = variant(beamtime, "calibrated", ("poni: geometry.poni", f"poni: {folder / 'new.poni'}"))
    run = runfile.load(path)
    config = resolving.resolve(run, open_frames([SAMPLE / "raw/agbh_rayonix_00005_00.h5"]).info)
    assert config["dist"] == pytest.approx(1.0, rel=1e-4)
    assert resolving.energy_keV(config) == pytest.approx(18.0, rel=1e-6)
    comments = (folder / "new.poni").read_text(encoding="utf-8")
    assert "# calibrant: AgBh" in comments and "# standard uncertainties: distance" in comments


def test_an_output_that_exists_is_left_as_it_is(written):
    folder, _ = written
    before = {path: path.read_bytes() for path in folder.iterdir()}
    done = invoke("calibrate", "geometry", SAMPLE / "raw/agbh_rayonix_00005_00.h5", "--out", folder / "new.poni")
    assert done.returncode == 2 and "exists and is not overwritten" in done.stderr
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


# --- what is refused -------------------------------------------------------------------------------------------------

NOISE = np.random.default_rng(0).poisson(30, (300, 300)).astype(np.int32)


def ring_only(line):
    heights = np.zeros(60)
    heights[line] = 400.0
    return rings(RAYONIX, heights=heights)


def saturated():
    return np.minimum(rings(NEAR, heights=200_000.0, level=500.0), 65535).astype(np.uint16)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (NOISE, "no rings are seen"),
        (np.zeros((100, 100), np.int32), "no frame holds a measurement"),
        (np.full((100, 100), 7, np.int32), "empty"),
        (np.full((100, 100), -1, np.int32), "every pixel is masked"),
        (np.full((100, 100), 65535, np.uint16), "saturated"),
        (ring_only(0), r"one ring only, of 33\.\d px .*distance \((?:0\.99|1\.0)\d* m if it is the first of AgBh\)"),
        (ring_only(2), "one ring only"),
    ],
    ids=["noise", "zeros", "flat", "negative", "full", "first ring", "third ring"],
)
def test_frames_without_rings(tmp_path, image, words):
    with pytest.raises(BadInput, match=words) as caught:
        fit(tmp_path, image, pixel_size="354.1667 um")
    assert len(caught.value.messages) == 1 and "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["frame.edf"]


def test_saturated_rings(tmp_path):
    with pytest.raises(BadInput, match=r"\d% of the pixels .*saturated"):
        fit(tmp_path, saturated(), pixel_size="354.1667 um")


def test_rings_of_another_calibrant(tmp_path):
    with pytest.raises(BadInput, match=r"LaB6|credible|stands? out"):
        fit(tmp_path, rings(NEAR), pixel_size="354.1667 um", calibrant="LaB6")


def test_a_distance_that_is_far_off(tmp_path):
    with pytest.raises(BadInput, match=r"the rings say 0\.5\d* m, --distance"):
        fit(tmp_path, rings(NEAR), pixel_size="354.1667 um", distance="1 m")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "give --detector NAME or --pixel-size"),
        ({"pixel_size": "354"}, "--pixel-size: a unit is missing"),
        ({"pixel_size": "-3 um"}, "--pixel-size: must be positive"),
        ({"pixel_size": "100 um", "energy": None}, "has no energy; give --energy"),
        ({"pixel_size": "100 um", "energy": "18 mm"}, "--energy: unit 'mm'"),
        ({"pixel_size": "100 um", "distance": "far"}, "--distance: cannot read"),
        ({"detector": "NoSuch"}, "pyFAI knows no detector 'NoSuch'"),
        ({"detector": "Pilatus1M"}, r"Pilatus1M has \(1043, 981\) pixels"),
        ({"pixel_size": "100 um", "calibrant": "AgBe"}, "did you mean AgBh"),
        ({"pixel_size": "100 um", "calibrant": "xyzzy"}, "it knows AgBh"),
        ({"pixel_size": "100 um", "mask": Path("absent.edf")}, "absent.edf"),
        ({"pixel_size": "100 um", "mask": SAMPLE / "mask.edf"}, "--mask .* pixels, the frames have"),
        ({"pixel_size": "100 um", "dark": SAMPLE / "mask.edf"}, "--dark .* pixels, the frames have"),
    ],
)
def test_what_is_missing_or_wrong_is_said_in_one_line(tmp_path, more, words):
    with pytest.raises(BadInput, match=words) as caught:
        fit(tmp_path, NOISE, **more)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("out", "words"), [("a.txt", r"ends in \.poni"), ("none/a.poni", "there is no folder")])
def test_a_place_that_cannot_hold_the_poni(tmp_path, out, words):
    frame = write(tmp_path / "frame.edf", NOISE)
    with pytest.raises(BadInput, match=words):
        calibrate(Request((frame,), tmp_path / out, pixel_size="100 um", energy="18 keV"))


def test_half_the_distance_is_not_taken_for_the_true_one(tmp_path):
    """Every second line of AgBh at half the distance falls on a ring."""
    with pytest.raises(BadInput, match=r"the rings say 0\.5\d* m, --distance"):
        fit(tmp_path, rings(NEAR), pixel_size="354.1667 um", distance="0.25 m")


def test_lines_are_those_of_braggs_law():
    spacing = 5.8380 / np.arange(1, 11)
    expected = 2 * np.arcsin(RAYONIX.wavelength_m * 1e9 / (2 * spacing))
    from saxs_pipeline.stages.calibrate_geometry import read_calibrant

    np.testing.assert_allclose(read_calibrant("AgBh", RAYONIX.wavelength_m).two_theta[:10], expected, rtol=2e-3)
    np.testing.assert_allclose(two_theta("AgBh", RAYONIX)[:10], expected, rtol=2e-3)
