"""`calibrate intensity`, and runs calibrated by glassy carbon or by water at its temperature."""

from __future__ import annotations

import json
import re
import shutil

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest

from saxs_pipeline import plan, runfile
from saxs_pipeline.apps import batch, calibration_intensity
from saxs_pipeline.outputs import tables
from saxs_pipeline.simulation import simulate
from saxs_pipeline.types import BadInput
from tests.conftest import invoke
from tests.system.carbon_frames import FACTOR, add_carbon

SEED = 31


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A beamtime with water, and run.yaml, carbon.yaml (glassy carbon in place of water) beside each other."""
    folder = tmp_path_factory.mktemp("calibration") / "beamtime"
    simulate("id02-cdse", folder, seed=SEED, frames=20)
    section = add_carbon(folder, SEED)
    with_scale(folder, "carbon", section)
    return folder


def with_scale(folder, name, section):
    """The run file with another section for the absolute scale, as NAME.yaml, output in NAME/."""
    text = (folder / "run.yaml").read_text(encoding="utf-8").replace("folder: results", f"folder: {name}")
    path = folder / f"{name}.yaml"
    path.write_text(re.sub(r"  water:.*?(?=\nbackground)", f"  {section}", text, flags=re.S), encoding="utf-8")
    return path


def changed(folder, name, old, new, *, of="run"):
    text = (folder / f"{of}.yaml").read_text(encoding="utf-8")
    assert old in text, old
    path = folder / f"{name}.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


def found(folder):
    return json.loads((folder / "scale.json").read_text(encoding="utf-8"))


def test_glassy_carbon_gives_the_factor_of_the_simulation(bench, tmp_path):
    """To a tenth of a per cent: the bins' centres, and our interpolation against another, differ by that much."""
    done = invoke("calibrate", "intensity", bench / "carbon.yaml", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    scale = found(tmp_path / "out")
    assert scale["factor"] == pytest.approx(FACTOR, rel=1e-3)
    assert scale["factor_error"] / scale["factor"] == pytest.approx(np.hypot(0.0258, 0.005), rel=2e-3)
    assert abs(scale["factor"] - FACTOR) < scale["factor_error"]
    assert scale["chi2_reduced"] < 5  # 3e6 photons per bin see the difference between the interpolations
    assert scale["window_1_nm"][1] == pytest.approx(2.47, abs=0.02)
    assert "factor K" in done.stdout
    assert "certificate 2.6 %" in done.stdout
    assert f"scale: {scale['scale']}" in done.stdout
    for kind in ("png", "svg"):
        assert (tmp_path / f"out/intensity_scale.{kind}").stat().st_size > 10_000


def test_a_run_with_glassy_carbon(bench):
    loaded = runfile.load(bench / "carbon.yaml")
    result = batch.compute(loaded, quiet=True)
    assert result.curves.unit == "1/mm"
    assert result.scale.factor.value == pytest.approx(FACTOR, rel=1e-3)
    text = dict(tables.summary(result))["absolute scale"]
    assert "glassy carbon SRM 3600" in text
    assert "certificate 2.6 %, thickness 0.5 %" in text
    assert result.curves.scale_rel == pytest.approx(np.hypot(result.scale.factor.relative, 0.003), rel=1e-6)
    water = batch.compute(runfile.load(bench / "run.yaml"), quiet=True)
    both = np.hypot(result.scale.factor.error, water.scale.factor.error)
    assert abs(result.scale.factor.value - water.scale.factor.value) < 3 * both


def test_the_default_folder_lies_beside_the_run_file_and_is_renewed(bench):
    (bench / "calibration").mkdir()
    (bench / "calibration" / "notes.txt").write_text("mine")
    for _ in range(2):
        done = invoke("calibrate", "intensity", bench / "run.yaml")
        assert done.returncode == 0, done.stderr
    assert (bench / "calibration" / "notes.txt").read_text() == "mine"
    scale = found(bench / "calibration")
    prepared = plan.prepare(runfile.load(bench / "run.yaml"))
    assert (scale["factor"], scale["factor_error"]) == prepared.scale.factor
    assert scale["contributions_relative"]["cross section"] == pytest.approx(0.005)
    assert scale["level_normalised_1_mm"] == pytest.approx(1.65e-3 / scale["factor"], rel=1e-9)
    assert scale["frames"]["intensity.water"] == {"used": 5, "left_out": 0}


def test_the_line_to_paste_gives_the_same_scale(bench, tmp_path):
    rows = dict(calibration_intensity.calibrate(bench / "run.yaml", tmp_path / "out"))
    pasted = plan.prepare(runfile.load(with_scale(bench, "pasted", rows["for a run file"] + "\n"))).scale
    measured = found(tmp_path / "out")
    assert pasted.factor.value == pytest.approx(measured["factor"], rel=1e-6)
    assert pasted.factor.error == pytest.approx(measured["factor_error"], rel=5e-3)


def test_the_frames_of_the_sample_need_not_be_there(bench, tmp_path):
    text = (bench / "run.yaml").read_text(encoding="utf-8")
    path = bench / "no_sample.yaml"
    path.write_text(re.sub(r"raw/cdse\S+", "raw/later/*.h5", text), encoding="utf-8")
    rows = calibration_intensity.calibrate(path, tmp_path / "without")
    calibration_intensity.calibrate(bench / "run.yaml", tmp_path / "with")
    assert found(tmp_path / "without")["factor"] == found(tmp_path / "with")["factor"]
    assert (
        "note",
        "shape and header of the frames are those of intensity.water.frames; the sample's: not there",
    ) in rows


def test_a_scan_of_the_sample_that_is_not_complete_does_not_matter(bench, tmp_path):
    (sample,) = (bench / "raw").glob("cdse_rayonix*.h5")
    (bench / "raw" / "torn.h5").write_bytes(sample.read_bytes()[:5000])
    rows = calibration_intensity.calibrate(changed(bench, "torn", f"raw/{sample.name}", "raw/torn.h5"), tmp_path)
    assert any("intensity.water.frames; the sample's: " in text and "torn.h5" in text for _, text in rows)
    assert found(tmp_path)["factor"] == plan.prepare(runfile.load(bench / "run.yaml")).scale.factor.value


def test_water_at_its_temperature(bench, tmp_path):
    """K goes with the cross section: 1.6422e-3 1/mm (20 °C) in place of 1.65e-3; 1 % of it is uncertain."""
    old = "cross_section: 0.00165 1/mm ± 0.5 %"
    calibration_intensity.calibrate(changed(bench, "warm", old, "temperature: 20 °C ± 0.5 °C"), tmp_path / "t")
    calibration_intensity.calibrate(bench / "run.yaml", tmp_path / "x")
    ratio = found(tmp_path / "t")["factor"] / found(tmp_path / "x")["factor"]
    assert ratio == pytest.approx(1.6422e-3 / 1.65e-3, rel=1e-4)
    assert found(tmp_path / "t")["method"] == "water at 20 °C"
    assert found(tmp_path / "t")["contributions_relative"]["cross section"] == pytest.approx(0.01, rel=1e-2)


def test_check_says_what_calibrates(bench):
    text = invoke("check", bench / "carbon.yaml").stdout
    assert re.search(r"absolute scale +glassy carbon SRM 3600, 1\.0550 ± 0\.0053 mm thick, in all certified q", text)
    assert re.search(r"carbon's background +3 of 480 × 480 px", text)
    assert re.search(
        r"absolute scale +water, \(1\.6500 ± 0\.0083\)·10⁻³ 1/mm", invoke("check", bench / "run.yaml").stdout
    )


def test_a_frame_that_is_left_out_is_counted_and_named(bench, tmp_path):
    (water,) = (bench / "raw").glob("water_rayonix*.h5")
    copy = bench / "raw" / "gap.h5"
    shutil.copy(water, copy)
    with h5py.File(copy, "r+") as file:
        data = file["/entry_0000/measurement/data"]
        data[2] = np.zeros(data.shape[1:], data.dtype)
    rows = calibration_intensity.calibrate(changed(bench, "gap", f"raw/{water.name}", "raw/gap.h5"), tmp_path / "out")
    assert dict(rows)["frames of water"] == "4 used, 1 left out"
    assert any("gap.h5 frame 2" in text and "all_zero" in text for name, text in rows if name == "note")


def test_files_of_others_are_not_overwritten(bench, tmp_path):
    for name, content in (("scale.json", '{"scale": 2}'), ("intensity_scale.png", "a picture")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text(content)
        with pytest.raises(BadInput, match="is in the way"):
            calibration_intensity.calibrate(bench / "run.yaml", folder)
        assert (folder / name).read_text() == content
        assert len(list(folder.iterdir())) == 1


def without_scale(bench):
    return with_scale(bench, "none", "\n")


def far_from_certified(bench):
    changed(bench, "far", "q_min: 0.1 1/nm", "q_min: 2.6 1/nm", of="carbon")
    return changed(bench, "far", "q_min: 0.15 1/nm", "q_min: 2.6 1/nm", of="far")


def sample_as_carbon(bench):
    """Water in the place of carbon: 500 times less, and flat."""
    text = (bench / "carbon.yaml").read_text(encoding="utf-8")
    for kind in ("carbon", "air"):
        other = {"carbon": "water", "air": "empty"}[kind]
        for files in ("rayonix", "scalers"):
            (path,) = (bench / "raw").glob(f"{other}_{files}*.h5")
            text = re.sub(rf"raw/{kind}_{files}\S+", f"raw/{path.name}", text)
    path = bench / "no_carbon.yaml"
    path.write_text(text, encoding="utf-8")
    return path


CASES = {
    "no standard": (without_scale, r"none\.yaml:\d+:1: intensity: no standard to calibrate with"),
    "a given factor": (lambda b: with_scale(b, "given", "scale: 2 ± 1 %\n"), "no standard to calibrate with"),
    "no water": (
        lambda b: changed(b, "absent", "raw/water_rayonix", "raw/absent"),
        r"absent\.yaml:\d+:5: intensity\.water\.frames: .*not found",
    ),
    "no pattern": (
        lambda b: changed(b, "pattern", "raw/empty_rayonix", "raw/*absent"),
        r"intensity\.water\.empty\.frames: .*not found",
    ),
    "mask absent": (lambda b: changed(b, "maskless", "mask: mask.edf", "mask: gone.edf"), r"corrections\.mask"),
    "q beyond the certificate": (far_from_certified, r"intensity\.glassy_carbon: .*holds 0 usable q bins"),
    "no carbon": (sample_as_carbon, r"intensity\.glassy_carbon: .*not the certified shape"),
    "window too wide": (
        lambda b: changed(
            b, "wide", "thickness: 1.055 mm", "window: [0.5 1/nm, 3 1/nm]\n    thickness: 1.055 mm", of="carbon"
        ),
        r"certified are 0\.08276-2\.474 1/nm",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_calibrate_is_said_in_one_line(bench, tmp_path, case):
    make, said = CASES[case]
    with pytest.raises(BadInput, match=said) as caught:
        calibration_intensity.calibrate(make(bench), tmp_path / "out")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_command_ends_with_exit_code_2(bench, tmp_path):
    done = invoke("calibrate", "intensity", without_scale(bench), "--out", tmp_path / "out")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
