"""`saxs-pipeline fit`: a frame of a run, texts of any unit, the real gold spheres of a round robin; refusals."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest

from saxs_pipeline import runfile
from saxs_pipeline.apps import batch
from saxs_pipeline.outputs import nexus, tables
from saxs_pipeline.outputs.flags import frame_flags
from saxs_pipeline.stages.fit_curve import Recorded, fit_curve
from tests.conftest import invoke, variant
from tests.one_curve import Q, noisy

MODEL = """\
title: frames that are not there
data: {{frames: raw/nothing.h5}}
geometry: {{distance: 1 m, center: [240, 240], pixel_size: 354 um, energy: 18 keV}}
corrections: {{gain: 1, read_noise: 0, polarization: null}}
integration: {{bins: 300, q_min: 0.1 1/nm, q_max: 5 1/nm}}
intensity: {{monitor: I1}}
sample: {sample}
model: {{q_min: 0.15 1/nm, q_max: 5 1/nm, radius: [0.5 nm, 4 nm]}}
"""

GOLD = """\
title: bimodal gold spheres, human-factor round robin
data: {curves: {files: gold.dat, q_unit: 1/nm, intensity_unit: 1/m}}
model:
  q_min: 0.03 1/nm
  q_max: 1.1 1/nm
  populations:
    - {name: small, radius: [5 nm, 20 nm], sigma: [0.5 nm, 6 nm]}
    - {name: large, radius: [20 nm, 40 nm], sigma: [0.5 nm, 6 nm]}
  power_law: 4
"""


@pytest.fixture(scope="module")
def run(beamtime, tmp_path_factory):
    """run.nxs and text curves of the simulated beamtime, in a folder of their own."""
    folder = tmp_path_factory.mktemp("results")
    result = batch.compute(runfile.load(variant(beamtime, "fit_command")), quiet=True)
    nexus.write_run(result, folder / "run.nxs")
    tables.write_curves(result, folder / "curves", [30])
    return folder, result


@pytest.fixture(scope="module")
def fitted(run):
    folder, _ = run
    done = invoke("fit", folder / "run.nxs")
    assert done.returncode == 0, done.stderr
    return done.stdout, folder / "fit_frame_00039"


def content(folder):
    return json.loads((folder / "fit.json").read_text(encoding="utf-8"))


def write_text(path, q, intensity, sigma):
    lines = [" ".join(f"{x:.10g}" for x in row) for row in zip(q, intensity, sigma, strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_frames_of_a_run_come_out_as_the_run_has_them(run):
    """All clearly good frames, to 2e-3 standard errors."""
    _, result = run
    window = np.isfinite(result.model).any(axis=0)
    good = [row for row, flag in enumerate(frame_flags(result)) if flag == "ok"]
    assert len(good) > 15
    for row in good[::5]:
        one = result.curves.rows(np.arange(len(result.curves.index)) == row)
        recorded = Recorded(result.fits.values[row], result.fits.covariance[row])
        fit = fit_curve(one, window, result.fits.model, recorded=recorded)
        for p in fit.parameters:
            assert abs(p.value - p.batch.value) < 2e-3 * p.error, (row, p.name)
            assert p.batch.error >= 0.999 * p.error


def test_the_last_good_frame_is_the_default(run, fitted):
    said, folder = fitted
    _, result = run
    assert ", frame 39 at " in said and "fit of the series: " in said
    found = content(folder)["parameters"]
    estimate = result.quantities.c_nc_umol_L
    assert found["c_nc"]["value"] == pytest.approx(estimate.value[39], abs=2e-3 * estimate.statistical[39])
    assert found["c_nc"]["systematic"] == pytest.approx(estimate.systematic[39], rel=1e-3)
    assert found["sigma"]["value"] == pytest.approx(result.quantities.sigma_nm.value[39], rel=1e-4)
    assert found["sigma"]["series"] == pytest.approx(
        [result.quantities.sigma_nm.value[39], result.quantities.sigma_nm.statistical[39]], rel=1e-9
    )


def test_the_files_hold_the_same_fit(fitted):
    said, folder = fitted
    found = content(folder)
    names = (folder / "fit.dat").read_text(encoding="utf-8").splitlines()[2].split()[1:]
    columns = dict(zip(names, np.loadtxt(folder / "fit.dat").T, strict=True))
    inside = np.isfinite(columns["I_fit"])
    total = columns["I_spheres"] + columns["I_constant"]
    np.testing.assert_allclose(total[inside], columns["I_fit"][inside], rtol=1e-8)
    residual = ((columns["I_1_mm"] - columns["I_fit"]) / columns["sigma"])[inside]
    assert found["points"] == inside.sum()
    assert found["chi2"] == pytest.approx(float(residual @ residual), rel=1e-6)
    np.testing.assert_allclose(columns["residual"][inside], residual, rtol=1e-6, atol=1e-8)
    errors = np.sqrt(np.diag(found["covariance"]))
    assert [found["parameters"][name]["error"] for name in found["fitted"]] == pytest.approx(errors.tolist())
    assert (folder / "fit.txt").read_text(encoding="utf-8").startswith(said.split("\n\nresults")[0].split("\n")[0])
    assert f"{found['chi2_reduced']:.4g} with {found['degrees_of_freedom']} degrees" in said


def test_the_figure_is_labelled_and_of_print_size(fitted):
    _, folder = fitted
    nodes = ET.parse(folder / "fit.svg").iter("{http://www.w3.org/2000/svg}text")
    text = " ".join("".join(part.strip(" \n") for part in node.itertext()) for node in nodes)
    for label in ("(mm⁻¹)", "(nm⁻¹)", "µmol/L", "spheres", "constant", "(nm)", "(a)", "(c)", "d.o.f."):
        assert label in text, label
    picture = matplotlib.image.imread(folder / "fit.png")
    assert picture.shape[1] / 200 * 25.4 == pytest.approx(170, abs=0.2)
    assert (picture[:3].min(), picture[-3:].min(), picture[:, :3].min(), picture[:, -3:].min()) == (1.0,) * 4


def test_the_same_fit_gives_the_same_bytes(run, fitted):
    folder, (_, first) = run[0], fitted
    assert invoke("fit", folder / "run.nxs", "--frame", 39, "--out", folder / "again").returncode == 0
    for name in ("fit.json", "fit.dat", "fit.png", "fit.svg"):
        assert (folder / "again" / name).read_bytes() == (first / name).read_bytes(), name


def test_a_text_of_a_run_with_its_run_file_is_the_frame(run, beamtime, tmp_path):
    folder, result = run
    curve = folder / "curves" / "frame_00030.dat"
    done = invoke("fit", curve, "--model", beamtime / "run.yaml", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    found = content(tmp_path)["parameters"]
    c, radius = result.quantities.c_nc_umol_L, result.quantities.radius_nm
    assert found["c_nc"]["value"] == pytest.approx(c.value[30], abs=2e-3 * c.statistical[30])
    assert found["c_nc"]["systematic"] == pytest.approx(c.systematic[30], rel=5e-3)  # the header has three digits
    assert found["radius"]["value"] == pytest.approx(radius.value[30], abs=2e-3 * radius.statistical[30])


@pytest.fixture
def text(tmp_path):
    measured = noisy(25.0, seed=3)
    return write_text(tmp_path / "curve.dat", Q, measured.intensity[0], measured.sigma[0])


def test_units_of_a_text(text, tmp_path):
    q, intensity, sigma = np.loadtxt(text).T
    other = write_text(tmp_path / "other.dat", q / 10, 10 * intensity, 10 * sigma)
    for path, options in ((text, ()), (other, ("--q-unit", "1/Å", "--intensity-unit", "1/cm"))):
        done = invoke("fit", path, *options, "--out", tmp_path / path.stem)
        assert done.returncode == 0, done.stderr
        assert "c_nc" not in done.stdout and "amplitude" in done.stdout  # there is no contrast
    first, second = (content(tmp_path / name)["parameters"] for name in ("curve", "other"))
    for name in ("amplitude", "radius", "sigma", "background"):
        assert second[name]["value"] == pytest.approx(first[name]["value"], abs=1e-4 * first[name]["error"])


@pytest.mark.parametrize(
    ("sample", "relative"),
    [
        ("{contrast: 35.2e-6 1/Å^2 ± 1 %}", 0.02),
        ("{particle: {formula: CdSe, density: 5.656 g/cm^3}, solvent: {formula: C18H36, density: 0.57 g/cm^3}}", 0.0),
    ],
)
def test_a_run_file_gives_the_contrast_without_its_frames(text, tmp_path, sample, relative):
    model = tmp_path / "model.yaml"
    model.write_text(MODEL.format(sample=sample), encoding="utf-8")
    done = invoke("fit", text, "--model", model)
    assert done.returncode == 0, done.stderr
    c = content(tmp_path / "fit_curve")["parameters"]["c_nc"]
    assert c["value"] == pytest.approx(25.0, rel=0.02)  # 40.6 − 5.5 = 35.1 · 10⁻⁶ from compositions
    assert c["systematic"] == pytest.approx(relative * c["value"], rel=1e-6)


def test_a_frame_with_another_model(run, tmp_path):
    model = tmp_path / "model.yaml"
    changed = MODEL.format(sample="{contrast: 35.2e-6 1/Å^2}").replace("radius:", "distribution: schulz, radius:")
    model.write_text(changed, encoding="utf-8")
    done = invoke("fit", run[0] / "run.nxs", "--frame", 35, "--model", model, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "radii schulz" in done.stdout and "fit of the series" not in done.stdout


def test_a_run_has_energy_and_geometry_for_another_model(run, beamtime, tmp_path):
    """A contrast at the energy of the frames' header, 34.83e-6 1/Å²; a beam of 1 mm at 1 m and 18 keV, whose smearing
    is that of σ_q = 91.22 1/nm/m · √((1 mm/2.3548)² + (0.354 mm)²/12), and of bins of 4.9/300 1/nm."""
    materials = "particle: {formula: CdSe, density: 5.656 g/cm^3}\n  solvent: {formula: C18H36, density: 0.6 g/cm^3}"
    changes = ("poni: geometry.poni", "header: true"), ("contrast: 3.52e-05 1/Å^2", materials)
    sigma_q = np.sqrt((91.22 * 1e-3 / 2.35482) ** 2 + ((91.22 * 354.1667e-6) ** 2 + (4.9 / 300) ** 2) / 12)
    found = {}
    for name, more in (("beam", "beam: 1 mm"), ("sigma", f"sigma_q: {sigma_q:.8f} 1/nm")):
        model = variant(beamtime, f"fit_{name}", *changes, ("model: {", f"model: {{resolution: {{{more}}}, "))
        done = invoke("fit", run[0] / "run.nxs", "--model", model, "--no-profiles", "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
        found[name] = content(tmp_path / name)["parameters"]
    for name, one in found["sigma"].items():
        assert found["beam"][name]["value"] == pytest.approx(one["value"], abs=2e-3 * one["error"]), name
    model = variant(beamtime, "fit_header", *changes)
    assert invoke("fit", run[0] / "run.nxs", "--model", model, "--no-profiles", "--out", tmp_path).returncode == 0
    c, series = content(tmp_path)["parameters"]["c_nc"], run[1].quantities.c_nc_umol_L
    assert c["value"] / series.value[39] == pytest.approx((35.2 / (40.63 - 5.81)) ** 2, rel=2e-3)
    assert found["beam"]["sigma"]["value"] < content(tmp_path)["parameters"]["sigma"]["value"]  # less is left to it


def test_the_gold_spheres_of_the_round_robin(tmp_path, real_data):
    """Reference (shared answer): 14.37 and 28.68 nm, χ²_red 1.04, with 2 % of I added to σ in quadrature."""
    q, intensity, sigma = np.loadtxt(real_data / "roundrobin" / "round_robin_dataset_1.dat").T
    curve = write_text(tmp_path / "gold.dat", q, intensity, np.hypot(sigma, 0.02 * intensity))
    (tmp_path / "gold.yaml").write_text(GOLD, encoding="utf-8")
    done = invoke("fit", curve, "--model", tmp_path / "gold.yaml")
    assert done.returncode == 0, done.stderr
    found = content(tmp_path / "fit_gold")
    radii = [found["parameters"][f"{name}_radius"]["value"] for name in ("small", "large")]
    assert radii == pytest.approx([14.4, 28.7], abs=0.3)
    assert found["chi2_reduced"] < 1.2
    for name, ratio in (("small_sigma/small_radius", 16.0), ("large_sigma/large_radius", 8.7)):
        assert found["derived_percent"][name][0] == pytest.approx(ratio, abs=0.5)
    assert found["parameters"]["exponent"]["value"] == 4
    assert all(-1 < r < 1 for row, line in enumerate(found["correlation"]) for k, r in enumerate(line) if k != row)


def test_monte_carlo_draws_a_corner_plot(text, tmp_path):
    pytest.importorskip("emcee")
    done = invoke("fit", text, "--emcee", 100, "--no-profiles")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "fit_curve"
    assert "Monte Carlo" in done.stdout and "give --emcee more steps" in done.stdout
    chain = content(folder)["monte_carlo"]
    low, median, high = (chain["quantiles"]["radius"][k] for k in (1, 2, 3))
    assert low < median < high and abs(median - 2.22) < 0.02
    assert matplotlib.image.imread(folder / "corner.png").min() < 0.3
    assert "profile" not in done.stdout
    assert invoke("fit", text).returncode == 0
    assert not (folder / "corner.png").exists()  # of the earlier fit


def refused(*arguments):
    done = invoke("fit", *arguments)
    assert done.returncode == 2, done.stdout
    (line,) = done.stderr.strip().splitlines()
    return line


def test_what_cannot_be_fitted_is_said_in_one_line(run, tmp_path, text):
    folder, result = run
    nxs = folder / "run.nxs"
    assert "frame 400 is not in this run; choose from 0 to 39" in refused(nxs, "--frame", 400)
    assert "says its units" in refused(nxs, "--q-unit", "1/nm")
    assert "one curve; --frame is for a run.nxs" in refused(text, "--frame", 1)
    assert "cannot be read" in refused(tmp_path / "nothing.dat")
    bad = replace(result, curves=replace(result.curves, problems=("nan: 3 pixels", *result.curves.problems[1:])))
    nexus.write_run(bad, tmp_path / "bad.nxs")
    assert "frame 0 could not be used (nan: 3 pixels)" in refused(tmp_path / "bad.nxs", "--frame", 0)
    bare = replace(result, fits=None, model=None, quantities=None)
    nexus.write_run(bare, tmp_path / "bare.nxs")
    assert "no fits; say with --model" in refused(tmp_path / "bare.nxs", "--frame", 30)
    assert "say with --frame" in refused(tmp_path / "bare.nxs")
    two = tmp_path / "two.dat"
    two.write_text("0.1 3\n0.2 2\n", encoding="utf-8")
    assert "2 columns; q, I and sigma are needed" in refused(two)
    few = write_text(tmp_path / "few.dat", [1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [0.1, 0.1, 0.1])
    assert "3 points with an uncertainty, too few for 4 parameters" in refused(few)
    ours = folder / "curves" / "frame_00030.dat"
    assert "says that it is in 1/nm, not 1/Å" in refused(ours, "--q-unit", "1/Å")
    model = tmp_path / "none.yaml"
    model.write_text("title: t\ndata: {curves: {files: a, q_unit: 1/nm, intensity_unit: 1/mm}}\n", encoding="utf-8")
    assert "there is nothing to fit; add a section `model" in refused(text, "--model", model)
    model.write_text(MODEL.format(sample="null").replace("radius:", "resolution: {beam: 0.3 mm}, radius:"), "utf-8")
    assert "a curve comes without a geometry; give `sigma_q`" in refused(text, "--model", model)


def test_points_that_cannot_be_used_are_counted(text, tmp_path):
    q, intensity, sigma = np.loadtxt(text).T
    sigma[10], intensity[20] = -sigma[10], np.nan
    path = write_text(tmp_path / "holes.dat", q, intensity, sigma)
    path.write_text("# a line of words\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    done = invoke("fit", path, "--no-profiles")
    assert done.returncode == 0, done.stderr
    assert f"2 of {len(q)} points left out" in done.stdout and "lines 12, 22" in done.stdout
    assert content(tmp_path / "fit_holes")["points"] == len(q) - 2


def test_a_text_without_a_measured_curve_is_refused_with_the_reason(text, tmp_path):
    q, intensity, sigma = np.loadtxt(text).T
    for name, numbers, reason in (
        ("negative", (q, intensity, -sigma), "σ, the third column, must be positive, and I and σ finite (lines 1, 2, "),
        ("zero", (q, 0 * intensity, sigma), "the intensity, the second column, is zero at every point"),
        ("angstrom", (q / 10, intensity, sigma), "q ends at 0.5 1/nm: is it in 1/Å? give --q-unit 1/Å"),
    ):
        assert reason in refused(write_text(tmp_path / f"{name}.dat", *numbers))
    comma = tmp_path / "comma.dat"
    comma.write_text(text.read_text(encoding="utf-8").replace(".", ","), encoding="utf-8")
    assert "line 1 has a decimal comma, '0,15'; write 0.15" in refused(comma)
    separated = tmp_path / "separated.dat"
    separated.write_text(text.read_text(encoding="utf-8").replace(" ", ","), encoding="utf-8")
    assert invoke("fit", separated, "--no-profiles").returncode == 0


def test_a_fit_that_ends_beyond_its_ranges_says_where(tmp_path):
    broad = noisy(25.0, radius=3.0, width=0.9, seed=3)  # σ_r up to 0.6 nm is searched
    path = write_text(tmp_path / "broad.dat", Q, broad.intensity[0], broad.sigma[0])
    said = refused(path)
    found = float(said.split("sigma² ")[1].split()[0])
    assert "it ended beyond them, at sigma² " in said and found == pytest.approx(0.81, rel=0.03)


def test_files_of_others_are_not_overwritten(text, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "fit.dat").write_text("1 2 3\n", encoding="utf-8")
    assert "is in the way and not of this command" in refused(text, "--out", tmp_path / "mine")
    assert invoke("fit", text, "--out", tmp_path / "fit").returncode == 0
    assert "would be overwritten" in refused(tmp_path / "fit" / "fit.dat", "--out", tmp_path / "fit")
    assert invoke("fit", tmp_path / "fit" / "fit.dat", "--out", tmp_path / "second").returncode == 0
