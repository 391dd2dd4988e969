"""Frames of crystals beside agglomerates: the curves that come out are the sum of both, within their errors."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from saxs_pipeline import runfile
from saxs_pipeline.apps import batch
from saxs_pipeline.outputs import nexus
from saxs_pipeline.simulation import simulate
from tests.conftest import ROOT, invoke, read_table, series_of

FRAMES = 40


def curves_only(run_file: Path) -> Path:
    """A run file beside it that stops at the curves."""
    text, changes = re.subn(r"^sample:.*?(?=^engine:)", "", run_file.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert changes == 1
    path = run_file.with_name("curves.yaml")
    path.write_text(text.replace("folder: results", "folder: curves"))
    return path


@pytest.fixture(scope="module")
def beamtime(tmp_path_factory) -> Path:
    return simulate("p21-cspbbr3", tmp_path_factory.mktemp("two") / "beamtime", seed=5, frames=FRAMES).parent


@pytest.fixture(scope="module")
def result(beamtime):
    return batch.compute(runfile.load(curves_only(beamtime / "run.yaml")), quiet=True)


def spheres(q_nm, c_umol_L, radius_nm, sigma_nm, contrast_1_A2):
    """c⟨P⟩ in 1/mm of a Gaussian distribution by summation over the radii; in m, mol and 1/m² throughout."""
    r = np.linspace(max(radius_nm - 6 * sigma_nm, 0.01), radius_nm + 6 * sigma_nm, 1201)
    share = np.exp(-0.5 * ((r - radius_nm) / sigma_nm) ** 2)
    x = np.outer(q_nm, r)
    amplitude = 3 * (np.sin(x) - x * np.cos(x)) / x**3 * (4 / 3 * np.pi * r**3 * 1e-27) * contrast_1_A2 * 1e20
    return 1e-3 * 1e-3 * c_umol_L * 6.02214076e23 * (amplitude**2 @ share) / share.sum()


def test_every_curve_is_the_sum_of_both_populations(beamtime, result):
    """Contrasts 27.436e-6 and 21.597e-6 1/Å² at 37.5 keV; one factor, the absolute scale, is common to all frames."""
    curves, truth = result.curves, read_table(beamtime / "truth.csv")
    after = np.flatnonzero(truth["t_s"] > 0)
    assert curves.time_s == pytest.approx(truth["t_s"], abs=1e-4)
    window = (curves.q_nm > 0.2) & (curves.q_nm < 4)
    q = curves.q_nm[window]
    expected = np.array(
        [
            sum(
                spheres(q, *(truth[f"{prefix}{key}"][i] for key in ("c_nc_umol_L", "r_nm", "sigma_r_nm")), contrast)
                for prefix, contrast in (("", 27.4357e-6), ("agglomerates_", 21.5974e-6))
            )
            for i in after
        ]
    )
    found, sigma = (values[after][:, window] for values in (curves.intensity, curves.sigma))
    factor = np.sum(found * expected / sigma**2) / np.sum((expected / sigma) ** 2)
    assert abs(factor - 1) < 3.5 * result.scale.factor.relative
    pull = (found - factor * expected) / sigma
    chi2_red = np.mean(pull**2, axis=1)
    one = np.sqrt(2 / window.sum())
    assert np.abs(chi2_red - 1).max() < 4 * one
    assert chi2_red.mean() == pytest.approx(1, abs=4 * one / np.sqrt(len(after)) + 0.02)
    # without the agglomerates the first frames are not described, the last ones are
    alone = np.array(
        [spheres(q, *(truth[key][i] for key in ("c_nc_umol_L", "r_nm", "sigma_r_nm")), 27.4357e-6) for i in after]
    )
    missing = np.mean(((found - factor * alone) / sigma) ** 2, axis=1)
    assert missing[:10].min() > 10
    assert missing[-5:].max() < 1 + 4 * one


def test_the_absolute_scale_is_within_its_uncertainty(result):
    """The monitor counts 1.073 times what the detector would: K = 1.073 up to the drawn thickness and cross section."""
    factor = result.scale.factor
    assert factor.value == pytest.approx(1.073, abs=3.5 * factor.error)
    assert factor.relative < 0.01


def test_the_commands_of_a_user(beamtime):
    path = curves_only(beamtime / "run.yaml")
    checked = invoke("check", path)
    assert checked.returncode == 0, checked.stderr
    assert f"{FRAMES} of 619 × 487 px" in " ".join(checked.stdout.split())
    assert "3.5 m, 37.5 keV, beam centre 40.40, 60.70 px" in " ".join(checked.stdout.split())
    assert "note" not in checked.stdout
    shown = invoke("inspect", beamtime / "raw/cspbbr3_00001.fio")
    assert shown.returncode == 0, shown.stderr
    assert f"{FRAMES} starts" in shown.stdout
    assert "header energy" in shown.stdout and "37500" in shown.stdout


def test_the_rings_of_its_calibrant_give_its_geometry(beamtime, tmp_path):
    frame = beamtime / "raw/agbh_00004/pilatus/agbh_00004_00001.cbf"
    camera = ("--mask", beamtime / "mask.edf", "--energy", "37.5 keV", "--pixel-size", "172 um")
    done = invoke("calibrate", "geometry", frame, *camera, "--out", tmp_path / "new.poni")
    assert done.returncode == 0, done.stderr
    number = r"([\d.]+) ± ([\d.]+)"
    distance = re.search(rf"distance +{number} mm", done.stdout).groups()
    centre = re.search(rf"beam centre +{number}, {number} px", done.stdout).groups()
    for found, error, true in ((*distance, 3500), (*centre[:2], 40.4), (*centre[2:], 60.7)):
        assert abs(float(found) - true) < 4 * float(error)
        assert float(error) < 2e-3 * true


@pytest.fixture(scope="module")
def whole(beamtime):
    """The run as a user starts it, with both populations."""
    done = invoke("run", beamtime / "run.yaml")
    assert done.returncode == 0, done.stderr
    return done, nexus.read_run(beamtime / "results/run.nxs")


def pulls(estimate, truth, rows):
    """Deviations over what is not common to all frames and the one factor of all concentrations."""
    return ((estimate.value - truth) / np.hypot(estimate.statistical, estimate.systematic))[rows]


def test_both_populations_are_found_as_they_are(beamtime, whole):
    _, run = whole
    truth, (name, agglomerates) = read_table(beamtime / "truth.csv"), run.others[0]
    assert (run.fits.model.populations[0].name, name) == ("crystals", "agglomerates")
    for prefix, found in (("", run.quantities), ("agglomerates_", agglomerates)):
        sized = np.isfinite(found.radius_nm.value)
        assert sized.sum() >= 12
        clear = sized & np.isfinite(found.sigma_nm.statistical)
        for estimate, column, rows in (
            (found.radius_nm, "r_nm", sized),
            (found.sigma_nm, "sigma_r_nm", clear),
            (found.c_nc_umol_L, "c_nc_umol_L", sized),
            (found.yield_, "yield", sized),
        ):
            off = pulls(estimate, truth[prefix + column], rows)
            assert np.abs(off).max() < 4.5, (prefix + column, off)
            assert 0.4 < np.sqrt(np.mean(off**2)) < 1.7, (prefix + column, off)


def test_the_example_configuration_finds_both(beamtime):
    """Used as its first lines say; only the injection time is the simulation's."""
    zero = re.search(r"zero: [\d.]+ s", (beamtime / "run.yaml").read_text())[0]
    text = (ROOT / "configs/p21-cspbbr3.yaml").read_text(encoding="utf-8")
    path = beamtime / "p21-cspbbr3.yaml"
    path.write_text(re.sub(r"zero: [\d.]+ s", zero, text), encoding="utf-8")
    series, truth = read_table(series_of(path)), read_table(beamtime / "truth.csv")
    for prefix in ("", "agglomerates_"):
        for column in ("r_nm", "c_nc_umol_L", "yield"):
            found, error = series[prefix + column], series[f"{prefix}{column}_err"]
            if column != "r_nm":
                error = np.hypot(error, series[f"{prefix}{column}_sys"])
            sized = np.isfinite(series[prefix + "r_nm"])
            assert sized.sum() >= 12
            assert np.abs((found - truth[prefix + column]) / error)[sized].max() < 4.5, prefix + column


def test_yields_are_counted_in_caesium_and_add_up(beamtime, whole):
    _, run = whole
    truth, together = read_table(beamtime / "truth.csv"), run.quantities.yield_.value + run.others[0][1].yield_.value
    after = np.isfinite(together) & (truth["t_s"] > 3)
    assert truth["yield"][after] + truth["agglomerates_yield"][after] == pytest.approx(0.61, abs=0.005)
    assert together[after] == pytest.approx(0.61, abs=0.03)


def test_a_population_that_vanishes_is_said_to_have_vanished(beamtime, whole):
    done, run = whole
    agglomerates, truth = run.others[0][1], read_table(beamtime / "truth.csv")
    words = np.array([set(flag.split("|")) for flag in agglomerates.flags])
    gone = np.array(["vanished" in word for word in words])
    assert gone[-5:].all() and not gone[truth["t_s"] < 15].any()
    assert np.isnan(agglomerates.radius_nm.value[gone]).all()
    left = agglomerates.c_nc_umol_L
    assert np.abs((left.value - truth["agglomerates_c_nc_umol_L"]) / left.statistical)[gone].max() < 4
    text = " ".join(done.stdout.split())
    assert re.search(r"agglomerates: seen from [\d.]+ s to [\d.]+ s, in \d+ frames", text)
    weak = r"(?:; before that, from [\d.]+ s on, too weak for a size)?"
    said = re.search(
        rf"agglomerates: vanished from [\d.]+ s on{weak}; at ([\d.]+) s c is -?[\d.]+ ± [\d.]+ µmol/L", text
    )
    assert float(said[1]) == pytest.approx(truth["t_s"][-1], rel=1e-3)


def test_tables_and_figures_have_both(beamtime, whole):
    header = (beamtime / "results/series.csv").read_text().splitlines()[0].split(",")
    assert header[16:] == [
        "flag", "agglomerates_r_nm", "agglomerates_r_nm_err", "agglomerates_sigma_r_nm", "agglomerates_sigma_r_nm_err",
        "agglomerates_c_nc_umol_L", "agglomerates_c_nc_umol_L_err", "agglomerates_c_nc_umol_L_sys",
        "agglomerates_yield", "agglomerates_yield_err", "agglomerates_yield_sys", "agglomerates_flag",
    ]  # fmt: skip
    assert (beamtime / "results/figures/populations.png").stat().st_size > 10_000
    assert "Agglomerates have vanished at" in (beamtime / "results/report.html").read_text()
    _, run = whole
    table = read_table(beamtime / "results/series.csv")
    np.testing.assert_allclose(table["agglomerates_r_nm"], run.others[0][1].radius_nm.value, rtol=1e-9)


def test_chunks_do_not_change_a_bit(beamtime, whole):
    text = (beamtime / "run.yaml").read_text()
    other = beamtime / "chunks.yaml"
    other.write_text(text.replace("{scheduler: threads}", "{scheduler: synchronous, chunk: 7}").replace("folder: results", "folder: again"))  # fmt: skip  # noqa: E501
    assert invoke("run", other).returncode == 0
    same = (beamtime / "again/series.csv").read_bytes() == (beamtime / "results/series.csv").read_bytes()
    assert same
