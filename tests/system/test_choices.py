"""Every choice a run file offers leads to the same physics by another way."""

from __future__ import annotations

import re
import shutil

import h5py
import numpy as np
import pytest

from saxs_pipeline import runfile
from saxs_pipeline.apps import batch
from saxs_pipeline.outputs import tables
from saxs_pipeline.simulation import simulate
from saxs_pipeline.types import BadInput
from tests.conftest import invoke, read_table, variant

MONITOR = re.compile(r"monitor: I1 .*")


def run(path):
    """The result and its series table; figures and exports have tests of their own."""
    result = batch.compute(runfile.load(path), quiet=True)
    table = path.with_suffix(".csv")
    tables.write_series(result, table)
    return result, read_table(table)


@pytest.fixture(scope="module")
def reference(beamtime):
    return run(variant(beamtime, "choices_reference"))


@pytest.fixture(scope="module")
def folder_of_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files") / "mccd"
    simulate("id02-cdse", folder, seed=11, frames=30, layout="mccd")
    return folder


def assert_same(series, reference, rtol):
    """Same values to a relative tolerance, on frames whose size is reported by both."""
    both = np.isfinite(series["r_nm"]) & np.isfinite(reference["r_nm"])
    assert both.sum() >= np.isfinite(reference["r_nm"]).sum() - 1
    for name in ("r_nm", "c_nc_umol_L", "c_nc_umol_L_err", "yield"):
        np.testing.assert_allclose(series[name][both], reference[name][both], rtol=rtol, err_msg=name)


def test_the_monitor_before_the_sample_with_transmissions(beamtime, reference):
    """I0 and the transmission of each measurement instead of I1, which holds it."""
    text = (beamtime / "run.yaml").read_text(encoding="utf-8").replace("folder: results", "folder: choices_i0")
    text = MONITOR.sub("monitor: I0\n  transmission: 0.42 ± 0.001", text)
    text = re.sub(r"(\n +)(scalers: raw/water\S+)", r"\1\2\1transmission: TW", text)
    text = re.sub(r"(\n +)(scalers: raw/empty\S+)", r"\1\2\1transmission: TE", text)
    ratios = {}
    for name in ("water", "empty"):
        shown = invoke("inspect", next(beamtime.glob(f"raw/{name}_scalers*"))).stdout
        i0, i1 = (float(re.search(rf"monitor {k} +([\d.e+]+)", shown)[1]) for k in ("I0", "I1"))
        ratios[name] = i1 / i0
    path = beamtime / "choices_i0.yaml"
    path.write_text(text.replace("TW", f"{ratios['water']:.6g}").replace("TE", f"{ratios['empty']:.6g}"))
    result, series = run(path)
    assert_same(series, reference[1], 1e-4)
    assert result.curves.scale_rel > reference[0].curves.scale_rel  # the transmission's uncertainty is in it


def test_monitor_readings_with_an_uncertainty(beamtime, reference):
    """The curves stay; c gets at least that share, sizes nearly nothing, and the average of water little."""
    (_, plain), path = reference, variant(beamtime, "choices_monitor")
    text = MONITOR.sub("monitor: I1\n  monitor_uncertainty: 0.8 %", path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")
    result, series = run(path)
    np.testing.assert_array_equal(result.curves.intensity, reference[0].curves.intensity)
    assert_same({**series, "c_nc_umol_L_err": plain["c_nc_umol_L_err"]}, plain, 1e-12)
    sized = np.isfinite(series["r_nm"])
    added = (
        np.sqrt(series["c_nc_umol_L_err"] ** 2 - plain["c_nc_umol_L_err"] ** 2)[sized] / series["c_nc_umol_L"][sized]
    )
    strong = plain["c_nc_umol_L_err"][sized] < 0.02 * series["c_nc_umol_L"][sized]
    assert strong.sum() > 5
    np.testing.assert_allclose(added[strong], 0.008, rtol=0.05)
    assert np.median((series["r_nm_err"] / plain["r_nm_err"])[sized]) < 1.05
    parts = dict(result.scale.contributions)
    assert 0 < parts["monitor of water"] < 0.008


def test_a_known_scale_factor_instead_of_water(beamtime, reference):
    factor = reference[0].scale.factor
    text = (beamtime / "run.yaml").read_text(encoding="utf-8").replace("folder: results", "folder: choices_scale")
    text = re.sub(r"  water:.*?(?=\nbackground)", f"  scale: {factor.value!r} ± {factor.error!r}\n", text, flags=re.S)
    path = beamtime / "choices_scale.yaml"
    path.write_text(text, encoding="utf-8")
    result, series = run(path)
    assert_same(series, reference[1], 1e-9)
    assert result.curves.scale_rel == pytest.approx(reference[0].curves.scale_rel)


def test_without_any_scale_sizes_are_reported_and_concentrations_are_not(beamtime, reference):
    text = (beamtime / "run.yaml").read_text(encoding="utf-8").replace("folder: results", "folder: choices_relative")
    text = re.sub(r"  water:.*?(?=\nbackground)", "", text, flags=re.S)
    path = beamtime / "choices_relative.yaml"
    path.write_text(text, encoding="utf-8")
    result, series = run(path)
    both = np.isfinite(reference[1]["r_nm"])
    np.testing.assert_allclose(series["r_nm"][both], reference[1]["r_nm"][both], rtol=1e-4)
    assert np.isnan(series["c_nc_umol_L"]).all()
    assert np.isnan(series["yield"]).all()
    assert any("no absolute scale" in warning for warning in result.warnings)
    given = path.with_name("choices_constant.yaml")
    given.write_text(text.replace("model: {", "model: {constant: 1e-4 1/mm, "), encoding="utf-8")
    said = invoke("check", given)
    assert said.returncode == 2
    assert re.search(r"choices_constant\.yaml:\d+:9: model\.constant: is in 1/mm, the curves are not", said.stderr)
    given.write_text(text.replace("model: {", "model: {constant: 0 1/mm, "), encoding="utf-8")
    assert invoke("check", given).returncode == 0  # nothing is nothing in any unit


def test_the_background_as_a_time_window(beamtime, reference):
    path = variant(beamtime, "choices_window", ('frames: "0:6"', "time: [-100 s, 0 s]"))
    assert_same(run(path)[1], reference[1], 0)


def test_the_background_as_files_of_its_own(folder_of_files):
    same_frames = run(variant(folder_of_files, "within", (background(folder_of_files), "frames: [0, 1, 2, 3]")))
    table = (folder_of_files / "raw/cdse_scalers.csv").read_text().splitlines()
    (folder_of_files / "first.csv").write_text("\n".join(table[:5]) + "\n")
    files = "file: {frames: 'raw/cdse/cdse_000[0-3].mccd', scalers: first.csv}"
    apart = run(variant(folder_of_files, "apart", (background(folder_of_files), files)))
    assert_same(apart[1], same_frames[1], 0)
    np.testing.assert_array_equal(apart[0].background.sigma, same_frames[0].background.sigma)
    assert not any("background" in flag for flag in apart[1]["flag"])


def background(folder):
    return re.search(r"^background:\n  (.*?)( +#.*)?$", (folder / "run.yaml").read_text(), re.MULTILINE)[1]


def test_the_geometry_from_the_header(beamtime, reference):
    path = variant(beamtime, "choices_header", ("poni: geometry.poni", "header: true"))
    assert_same(run(path)[1], reference[1], 1e-4)


def test_the_contrast_from_compositions(beamtime, reference):
    materials = "particle: {formula: CdSe, density: 5.656 g/cm^3}\n  solvent: {formula: C18H36, density: 0.6 g/cm^3}"
    path = variant(beamtime, "choices_contrast", ("contrast: 3.52e-05 1/Å^2", materials))
    _, series = run(path)
    last = np.flatnonzero(np.isfinite(series["r_nm"]))[-1]
    ratio = series["c_nc_umol_L"][last] / reference[1]["c_nc_umol_L"][last]
    assert ratio == pytest.approx((35.2 / (40.63 - 5.81)) ** 2, rel=2e-3)


def test_an_uncertain_contrast_from_compositions(beamtime, reference):
    """The solvent's 0.6 g/cm³ ± 1.08 %: 0.18 % of the contrast, 0.36 % of c and yield, in their systematic errors."""
    solvent = "{formula: C18H36, density: 0.789 g/cm^3 ± 0.5 %, expansion: 1.3125e-3 1/K ± 4 %, density_at: 20 °C}"
    materials = (
        "temperature: 260 °C\n  particle: {formula: CdSe, lattice_parameter: 0.608 nm, formula_units: 4}\n"
        f"  solvent: {solvent}"
    )
    path = variant(beamtime, "choices_expanded", ("contrast: 3.52e-05 1/Å^2", materials))
    result, series = run(path)
    last = np.flatnonzero(np.isfinite(series["r_nm"]))[-1]
    for name in ("c_nc_umol_L", "yield"):
        shares = [table[f"{name}_sys"][last] / table[name][last] for table in (reference[1], series)]
        assert np.sqrt(shares[1] ** 2 - shares[0] ** 2) == pytest.approx(2 * 0.01081 * 5.8075 / 34.827, rel=1e-2)
    (note,) = (text for text in result.warnings if text.startswith("no stated uncertainty"))
    without = re.split(r"[,;:] ", note)
    assert set(without) >= {"sample.temperature", "sample.particle.lattice_parameter"}
    assert not {"sample.solvent.density", "sample.solvent.expansion", "sample.contrast"} & set(without)
    rows = invoke("check", path).stdout.replace("\n", " ")
    assert "(3.4827 ± 0.0063)·10⁻⁵ 1/Å², from compositions at 18 keV" in " ".join(rows.split())
    assert "expanded from 20 to 260 °C" in " ".join(rows.split())


def test_pixel_splitting_says_that_its_errors_are_too_small(beamtime, reference):
    path = variant(beamtime, "choices_split", ("splitting: none", "splitting: full"))
    result, series = run(path)
    assert result.curves.correlated
    assert any("splitting" in warning for warning in result.warnings)
    last = np.flatnonzero(np.isfinite(series["r_nm"]))[-1]
    assert series["r_nm"][last] == pytest.approx(reference[1]["r_nm"][last], abs=0.01)


def test_zingers_that_are_left_out_change_no_size(beamtime, reference):
    """Thirty of 2,000 ADU in every frame of the sample: sizes as without them, and far off where they stay."""
    frames = "cdse_rayonix_00001_00", "zingers"
    path = variant(beamtime, "choices_zingers", frames, ("  flat:", "  sigma_clip: {}\n  flat:"))
    shutil.copy(beamtime / "raw/cdse_rayonix_00001_00.h5", beamtime / "raw/zingers.h5")
    rng = np.random.default_rng(5)
    with h5py.File(beamtime / "raw/zingers.h5", "r+") as file:
        images = next(g[name] for g in groups(file) for name in g if getattr(g[name], "ndim", 0) == 3)
        for k, image in enumerate(images[()]):
            image.ravel()[rng.choice(image.size, 30, replace=False)] += 2000
            images[k] = image
    result, series = run(path)
    staying = run(variant(beamtime, "choices_staying", frames))[1]
    good = reference[1]["flag"] == "ok"
    assert good.sum() > 5
    pulls = [np.abs(s["r_nm"] - reference[1]["r_nm"])[good] / reference[1]["r_nm_err"][good] for s in (series, staying)]
    assert pulls[0].max() < 1 < np.nanmax(pulls[1])
    whole, left = (r.curves.counts.sum(axis=1) for r in (reference[0], result))
    assert (whole - left).mean() == pytest.approx(30 * whole.mean() / image.size, rel=0.15)  # the rest hit no bin


def groups(file):
    found = [file]
    file.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Group) else None)
    return found


def test_integrated_curves_enter_after_the_integration(reference, tmp_path):
    """The reference's subtracted curves as text files, through data.curves: the same fits."""
    curves = reference[0].curves
    good = np.isfinite(curves.intensity).all(axis=0)
    for k in range(20, 40):
        columns = np.stack([curves.q_nm, curves.intensity[k], curves.sigma[k]])[:, good]
        np.savetxt(tmp_path / f"frame_{k}.dat", columns.T, fmt="%.15g", header="q I sigma")
    (tmp_path / "run.yaml").write_text(
        "title: text\n"
        "data:\n"
        "  curves: {files: 'frame_*.dat', q_unit: 1/nm, intensity_unit: 1/mm}\n"
        "  time: {law: {exposure: 1 s, wait: 1 s}}\n"
        "sample: {contrast: 35.2e-6 1/Å^2}\n"
        "model: {q_min: 0.15 1/nm, q_max: 5 1/nm, radius: [0.5 nm, 4 nm], sigma: [0.03 nm, 0.6 nm]}\n",
        encoding="utf-8",
    )
    _, series = run(tmp_path / "run.yaml")
    for name in ("r_nm", "sigma_r_nm", "c_nc_umol_L"):
        np.testing.assert_allclose(series[name], reference[1][name][20:], rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(series["t_s"], 1.5 + 2 * np.arange(20))
    assert np.isnan(series["yield"]).all()


@pytest.mark.parametrize("kind", ["result_ave", "saxsutilities"])
def test_integrated_stacks_of_the_beamline_go_through_a_run(reference, tmp_path, kind):
    """What ID02's own pipelines leave (formats.md §1.4), with its q in 1/nm and times in s: the same fits."""
    curves = reference[0].curves
    good = np.isfinite(curves.intensity).all(axis=0)
    where = {
        "result_ave": ("/entry_0000/PyFAI/result_ave", "data", "data_errors"),
        "saxsutilities": ("/entry_0000/saxsutilities/data", "array", "array_errors"),
    }[kind]
    with h5py.File(tmp_path / "stack.h5", "w") as file:
        group = file.create_group(where[0])
        group[where[1]], group[where[2]] = curves.intensity[:, good], curves.sigma[:, good]
        group["q"], group["t"] = curves.q_nm[good], curves.time_s
        group["q"].attrs["unit"], group["t"].attrs["unit"] = "nm^-1", "s"
    (tmp_path / "run.yaml").write_text(
        "title: stack\n"
        "data: {curves: {files: stack.h5, q_unit: 1/nm, intensity_unit: 1/mm}}\n"
        "sample: {contrast: 35.2e-6 1/Å^2}\n"
        "model: {q_min: 0.15 1/nm, q_max: 5 1/nm, radius: [0.5 nm, 4 nm], sigma: [0.03 nm, 0.6 nm]}\n",
        encoding="utf-8",
    )
    result, series = run(tmp_path / "run.yaml")
    assert result.pixel_mask is None  # there are no pixels
    np.testing.assert_allclose(series["r_nm"], reference[1]["r_nm"], rtol=1e-9)
    np.testing.assert_allclose(series["t_s"], reference[1]["t_s"], atol=1e-6)


def test_wider_bins_lead_to_the_same_sizes(beamtime, reference):
    """A third of the bins, in ln q: c, r and their errors stay, as little is lost."""
    result, series = run(
        variant(beamtime, "choices_rebin", ("integration:", "rebin: {bins: 150, spacing: log}\nintegration:"))
    )
    assert len(result.curves.q_nm) < 120
    assert_same(series, reference[1], rtol=0.06)
    smeared = variant(
        beamtime,
        "choices_smeared",
        ("integration:", "rebin: {bins: 60, spacing: log}\nintegration:"),
        ("model: {", "model: {resolution: {beam: 0.4 mm}, "),
    )
    said = " ".join(invoke("check", smeared).stdout.split())
    low, high = map(float, re.search(r"smeared with σ_q = ([\d.]+) to ([\d.]+) 1/nm", said).groups())
    per_m = 2 * np.pi / (1.239841984 / 18)  # 2π/λL, 1/nm per m on the detector
    of_beam = np.hypot(per_m * 0.4e-3 / 2.3548, per_m * 354.1667e-6 / np.sqrt(12))
    of_bins = [np.hypot(of_beam, number * 4.9 / 300 / np.sqrt(12)) for number in (1, 18, 19, 20)]  # q ln(50)/60 wide
    assert low == pytest.approx(of_bins[0], rel=5e-3) and min(abs(high / np.array(of_bins[1:]) - 1)) < 5e-3
    whole, narrow = result.curves.counts.sum(axis=1), reference[0].curves.counts.sum(axis=1)
    np.testing.assert_array_equal(whole, narrow)
    changes = ("splitting: none", "splitting: full"), ("integration:", "rebin: {bins: 50}\nintegration:")
    split = variant(beamtime, "choices_split", *changes)
    with pytest.raises(BadInput, match=r"choices_split\.yaml:\d+:1: rebin: .*splitting: none"):
        runfile.load(split)
