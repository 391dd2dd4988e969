"""The commands about the reaction, as a user runs them: model, simulate --model, run, compare, growth, bimodal."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

from saxs_pipeline import runfile
from saxs_pipeline.apps import batch
from saxs_pipeline.outputs import nexus, reaction_tables, tables
from saxs_pipeline.outputs.nexus import read_run
from tests.conftest import ROOT, invoke, read_table, variant
from tests.readme import SHELL, shell

CONFIGS = ROOT / "configs"
(COMPARE,) = (line for line in SHELL[4] if " compare " in line)

# science of SI S6 with the misprints corrected, two independent prototypes agreeing: t98 c, t98 yield (s), r, σ_r (nm),
# skewness, c (µmol/L), highest S
REFERENCE = {
    ("published", 0): (18.37, 978.0, 2.7462, 0.15074, -0.94, 17.243, 177.82),
    ("published", 2): (44.89, 978.0, 2.3485, 0.04714, -1.60, 27.781, 177.82),
    ("published", 4): (132.3, 978.0, 1.9320, 0.04229, -2.04, 49.886, 177.82),
    ("calibrated", 0): (32.89, 798.4, 2.1894, 0.0865, -0.73, 34.18, 83.86),
    ("calibrated", 2): (67.01, 798.4, 1.8875, 0.0457, -1.18, 53.49, 83.86),
    ("calibrated", 4): (129.2, 798.4, 1.6321, 0.0354, -1.46, 82.77, 83.86),
}


def assert_reference(found, reference):
    t98_c, t98_y, r, sigma, skewness, c, peak = reference
    assert found["t98_c_s"] == pytest.approx(t98_c, rel=1e-2)
    assert found["t98_yield_s"] == pytest.approx(t98_y, rel=1e-3)
    assert found["nucleation_share"] == pytest.approx(t98_c / t98_y, rel=1e-2)
    assert found["r_nm"] == pytest.approx(r, rel=1e-3)
    assert found["sigma_r_nm"] == pytest.approx(sigma, rel=5e-3)
    assert found["skewness"] == pytest.approx(skewness, abs=6e-3)  # the last digit of the reference
    assert found["c_nc_umol_L"] == pytest.approx(c, rel=1e-3)
    assert found["peak_supersaturation"] == pytest.approx(peak, rel=1e-3)
    assert abs(found["mass_drift"]) < 1e-12


def model_of(name, out, *settings):
    """summary.json of the command, whose last row in model.csv is that of the summary."""
    changes = [word for setting in settings for word in ("--set", setting)]
    done = invoke("model", CONFIGS / f"kinetics-{name}.yaml", *changes, "--out", out)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "summary.json").read_text())
    assert found["end_s"] == 2275.8
    series = read_table(out / "model.csv")
    assert list(series) == ["t_s", "r_nm", "sigma_r_nm", "c_nc_umol_L", "yield", "supersaturation", "r_critical_nm"]
    assert series["t_s"][-1] == 2275.8
    assert series["r_nm"][-1] == pytest.approx(found["r_nm"], rel=1e-8)
    return found


def assert_scan(name, folder):
    scanned = read_table(folder / "scan.csv")
    assert scanned["n"].tolist() == [0, 1, 2, 3, 4]
    for row in (0, 2, 4):
        assert_reference({column: values[row] for column, values in scanned.items()}, REFERENCE[name, row])


def test_model_gives_the_reference_numbers(tmp_path):
    """Of n = 0 in its summary, of all n in the scan of the parameter file. The published one: `readme`."""
    assert_reference(model_of("calibrated", tmp_path / "out", "n=0"), REFERENCE["calibrated", 0])
    assert_scan("calibrated", tmp_path / "out")


def test_model_of_one_n_writes_no_scan(tmp_path):
    assert_reference(model_of("calibrated", tmp_path / "out", "n=4", "scan=null"), REFERENCE["calibrated", 4])
    assert not (tmp_path / "out/scan.csv").exists()


def test_model_without_out_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = invoke("model", CONFIGS / "kinetics-calibrated.yaml", "--set", "scan=null")
    assert done.returncode == 0, done.stderr
    assert "98 % of the yield" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("gama=0.2", "--set gama=0.2: "),
        ("gamma=0.2 nm", "not a unit of this quantity"),
        ("gamma=2 J/m^2", "kinetics-calibrated.yaml"),  # nothing nucleates
        ("k1=null", "k1"),
        ("n", "--set n"),
        ("M0=1e-3 mol/m^3", "still dissolved"),  # S is then not quasi-stationary
        ("scan={n: [2, 1e300]}", "n.1"),
    ],
)
def test_bad_settings_get_a_line(setting, said, tmp_path):
    done = invoke("model", CONFIGS / "kinetics-calibrated.yaml", "--set", setting, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def readme(tmp_path_factory):
    """The folder in which the README's commands about the reaction were typed, but for the fit of `compare`."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("configs", "sample_data"):
        (folder / name).symlink_to(ROOT / name)
    for line in SHELL[4]:
        if line != COMPARE:
            done = shell(line, folder)
            assert done.returncode == 0, (line, done.stderr)
            assert done.stdout.strip(), line
    return folder


def test_the_reaction_of_the_readme(readme):
    assert_scan("published", readme / "published")
    assert (readme / "growth/growth_rate.csv").exists()


@pytest.fixture(scope="module")
def circle(readme):
    """575 frames whose crystals are those of the calibrated model with n = 2, processed."""
    return readme / "circle"


def numbers(run_file, folder):
    """The files of a run that hold its numbers, in a new folder; figures and report take longer and are not made."""
    result = batch.compute(runfile.load(run_file), quiet=True)
    folder.mkdir()
    tables.write_series(result, folder / "series.csv")
    nexus.write_run(result, folder / "run.nxs")
    reaction_tables.write_reaction(result, folder)
    return result


@pytest.mark.slow
def test_the_full_circle_gives_the_parameters_back(readme, circle):
    """By the README's command, from a start that is off by ×3 in A and k1 and has another n."""
    params, text = circle / "start.yaml", (circle / "kinetics.yaml").read_text(encoding="utf-8")
    for old, new in (("0.045454545454545456 m/s", "0.13 m/s"), ("4.9e-3 1/s", "1.7e-3 1/s"), ("\nn: 2", "\nn: 0.5")):
        assert old in text
        text = text.replace(old, new)
    params.write_text(text, encoding="utf-8")
    assert "circle/kinetics.yaml" in COMPARE and "--fit A,gamma,n,k1" in COMPARE
    done = shell(COMPARE.replace("circle/kinetics.yaml", "circle/start.yaml"), readme)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    found = json.loads((circle / "results/comparison/reaction.json").read_text())["kinetics"]
    parameters = found["parameters"]
    truth = {"A": 1 / 22, "gamma": 0.18, "n": 2.0, "k1": 4.9e-3}
    for symbol, value in truth.items():
        p = parameters[symbol]
        assert p["fitted"]
        assert abs(p["value"] - value) < 2.6 * np.hypot(p["statistical"], p["systematic"]), symbol  # 4 at once: 96 %
    n = parameters["n"]
    assert abs(n["value"] - 2) < min(0.3, 2 * np.hypot(n["statistical"], n["systematic"]))
    assert found["converged"]
    assert 0.85 < found["chi2_red"] < 1.15
    assert "Kinetic model" in (circle / "results/comparison/report.html").read_text(encoding="utf-8")
    compared = read_table(circle / "results/comparison/comparison.csv")
    assert len(compared["t_s"]) == 575


def test_a_comparison_without_a_fit_and_one_that_does_not_describe_the_series(circle, tmp_path):
    run, params = circle / "results/run.nxs", circle / "kinetics.yaml"
    done = invoke("compare", run, "--model", params, "--out", tmp_path / "same")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "same/reaction.json").read_text())["kinetics"]
    assert found["fitted"] == []
    assert 0.85 < found["chi2_red"] < 1.15
    compared = read_table(tmp_path / "same/comparison.csv")
    used = compared["used"] == 1
    for name in ("r_nm", "c_nc_umol_L", "yield"):  # the model stands on the scale of the measurement
        assert abs(np.median(compared[f"{name}_residual"][used])) < 0.5, name
    names = ("--fit", "k1", "--fit", "n")
    done = invoke("compare", run, "--model", params, "--set", "A=0.05 m/s", *names, "--out", tmp_path / "other")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "other/reaction.json").read_text())["kinetics"]
    assert set(found["fitted"]) == {"k1", "n"}
    assert found["chi2_red"] > 1.2  # five standard errors of 1285 degrees of freedom
    assert "set" in done.stdout


def test_a_degenerate_request_is_refused_with_the_reason(circle):
    for names in ("gamma,T", "A,M0", "A,r_c0"):
        done = invoke("compare", circle / "results/run.nxs", "--model", circle / "kinetics.yaml", "--fit", names)
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
        assert all(name in done.stderr for name in names.split(","))
        assert len(done.stderr) > 80


def test_the_truth_of_a_modelled_beamtime_is_the_model(circle):
    truth, found = read_table(circle / "truth.csv"), read_table(circle / "results/series.csv")
    assert truth["c_nc_umol_L"][0] == 0
    assert np.isnan(truth["r_nm"][0])
    assert truth["r_nm"][-1] == pytest.approx(1.8875, rel=1e-3)
    assert truth["c_nc_umol_L"][-1] == pytest.approx(53.49, rel=1e-3)
    late = found["t_s"] > 1000
    total = np.hypot(found["yield_err"], found["yield_sys"])
    assert np.all(np.abs(found["yield"] - truth["yield"])[late] < 5 * total[late])


def test_compare_says_what_is_wrong_with_its_input(circle, tmp_path):
    (tmp_path / "junk.nxs").write_bytes(b"no HDF5")
    for run, model in (
        (tmp_path / "junk.nxs", circle / "kinetics.yaml"),
        (tmp_path / "none.nxs", circle / "kinetics.yaml"),
        (circle / "results/run.nxs", circle / "run.yaml"),
        (circle / "results/run.nxs", tmp_path / "none.yaml"),
    ):
        done = invoke("compare", run, "--model", model, "--out", tmp_path / "out")
        assert done.returncode == 2
        assert done.stderr.strip()
        assert "Traceback" not in done.stderr
    done = invoke(
        "compare", circle / "results/run.nxs", "--model", circle / "kinetics.yaml", "--out", circle / "results"
    )
    assert done.returncode == 2
    assert "another folder" in done.stderr


def aliquots_of(folder, path):
    """Five aliquots of the truth, c and yield 0.8 of it, written with 2 % errors."""
    truth = read_table(folder / "truth.csv")
    rows = [["t_s", "r_nm", "r_nm_err", "c_nc_umol_L", "c_nc_umol_L_err", "yield", "yield_err"]]
    for row in np.flatnonzero(truth["t_s"] > 30)[::4]:
        r, c, y = truth["r_nm"][row], 0.8 * truth["c_nc_umol_L"][row], 0.8 * truth["yield"][row]
        rows.append([truth["t_s"][row], r, 0.03, c, 0.02 * c, y, 0.02 * y])
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def with_reaction(beamtime, name, *changes):
    aliquots_of(beamtime, beamtime / "aliquots.csv")
    shutil.copy(CONFIGS / "kinetics-calibrated.yaml", beamtime / "kinetics-test.yaml")
    sections = "kinetics: {model: kinetics-test.yaml}\naliquots: {file: aliquots.csv}\n\nengine:"
    return variant(beamtime, name, ("engine:", sections), *changes)


@pytest.fixture(scope="module")
def with_model(beamtime):
    """A run with a model and aliquots: its folder, and what the command said."""
    done = invoke("run", with_reaction(beamtime, "reaction", ("scheduler: threads", "scheduler: threads, chunk: 7")))
    assert done.returncode == 0, done.stderr
    return beamtime / "reaction", done


def test_a_run_with_a_model_and_aliquots(with_model):
    folder, done = with_model
    assert "kinetic model" in done.stdout
    said = json.loads((folder / "reaction.json").read_text())
    assert said["aliquots"]["scale"]["value"] == pytest.approx(0.8, abs=3 * said["aliquots"]["scale"]["error"] + 0.02)
    assert (folder / "figures/kinetics.png").exists()
    assert (folder / "figures/reaction.png").exists()
    result = read_run(folder / "run.nxs")
    assert result.comparison is not None
    assert result.comparison.chi2_red > 5  # another synthesis: the model cannot describe it, and the report says so
    assert "does not describe" in (folder / "report.html").read_text(encoding="utf-8")
    assert result.analysis is not None
    assert "kinetics-test.yaml" in result.provenance.config_text


def test_the_reaction_does_not_depend_on_chunks_and_scheduler(beamtime, with_model, tmp_path):
    engine = ("scheduler: threads", "scheduler: processes, workers: 2, chunk: 3")  # the other: threads, chunk: 7
    numbers(with_reaction(beamtime, "reaction_again", engine), tmp_path / "again")
    assert (tmp_path / "again/reaction.json").read_bytes() == (with_model[0] / "reaction.json").read_bytes()


def test_mistakes_in_the_reaction_sections_are_found_before_the_frames(beamtime):
    for old, new, said in (
        ("file: aliquots.csv", "file: nothing.csv", "aliquots.file"),
        ("{model: kinetics-test.yaml}", "{model: kinetics-test.yaml, fit: [gamma, T]}", "kinetics.fit"),
        ("{model: kinetics-test.yaml}", "{model: truth.csv}", "truth.csv"),
    ):
        path = with_reaction(beamtime, "reaction_wrong", (old, new))
        done = invoke("check", path)
        assert done.returncode == 2, new
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_aliquots_outside_the_series_are_named(beamtime):
    path = with_reaction(beamtime, "reaction_outside")
    with (beamtime / "aliquots.csv").open("a", newline="") as file:
        csv.writer(file).writerow([99999, 2.2, 0.1, 20, 1, 0.8, 0.1])
    warnings = batch.compute(runfile.load(path), quiet=True).warnings
    assert any("1 of " in text and "lie outside the series" in text for text in warnings), warnings


def test_a_table_that_is_no_file_is_refused_at_once(beamtime):
    for name in ("/dev/zero", "/dev/null"):
        done = invoke("model", CONFIGS / "kinetics-growth-only.yaml", "--set", f"generation={name}")
        assert done.returncode == 2
        assert "no file" in done.stderr


@pytest.mark.parametrize("supersaturation", ["nan", "inf", "-1", "1e300"])
def test_a_supersaturation_must_be_a_number(supersaturation, tmp_path):
    path = CONFIGS / "kinetics-linear-free-energy.yaml"
    done = invoke("growth", path, f"--supersaturation={supersaturation}", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"--supersaturation {float(supersaturation):g}: give a number from 0 to 1e30, e.g. 50"
    ]
    assert not (tmp_path / "out").exists()


def test_below_saturation_all_crystals_dissolve(tmp_path):
    path = CONFIGS / "kinetics-linear-free-energy.yaml"
    done = invoke("growth", path, "--supersaturation", 0.5, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "dissolve" in done.stdout
    assert "(c)" in (tmp_path / "out/figures/captions.txt").read_text(encoding="utf-8")


def test_growth_and_bimodal(tmp_path):
    done = invoke(
        "growth", CONFIGS / "kinetics-linear-free-energy.yaml", "--supersaturation", 50, "--out", tmp_path / "growth"
    )
    assert done.returncode == 0, done.stderr
    rates = read_table(tmp_path / "growth/growth_rate.csv")
    r_c = 0.5 * 1e9 * 2 * 0.2 * 6.02214076e23 * 5.59e-29 / (8.314462618 * 533.15 * np.log(50)) * 2
    assert np.all((rates["rate_full_nm_s"] > 0) == (rates["r_nm"] > r_c))
    assert (tmp_path / "growth/figures/growth_rate.svg").exists()
    done = invoke("bimodal", ROOT / "sample_data/radii.csv", "--out", tmp_path / "bimodal")
    assert done.returncode == 0, done.stderr
    n, error = map(float, done.stdout.split("growth exponent n")[1].split("\n")[0].split("±"))
    assert abs(n - 4) < 2 * error < 2  # the file was made with n = 4
    done = invoke("bimodal", ROOT / "sample_data/truth.csv", "--out", tmp_path / "wrong")
    assert done.returncode == 2
    assert "r1_nm" in done.stderr


def test_a_comparison_that_fails_does_not_lose_the_run(beamtime):
    """Nearly all frames are background: none reports a size; the results are on the disk, and say so."""
    path = with_reaction(beamtime, "reaction_none", ('frames: "0:6"', 'frames: "0:39"'))
    done = invoke("run", path)
    assert done.returncode == 0, done.stderr
    assert "no comparison with the kinetic model: compare: after the injection there are no 5 frames" in done.stderr
    assert "aliquots are not shown" in done.stderr
    assert (beamtime / "reaction_none/run.nxs").exists()
    assert (beamtime / "reaction_none/report.html").exists()
