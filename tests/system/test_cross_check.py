"""`saxs-pipeline cross-check`: a frame of a run against McSAS3; refusals, which need no McSAS3."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace

import h5py
import matplotlib.image
import numpy as np
import pytest

from saxs_pipeline import runfile
from saxs_pipeline.apps import batch
from saxs_pipeline.outputs import nexus
from tests.conftest import invoke, read_table
from tests.system.test_sizes_in_a_run import with_sizes

FRAME = 30


@pytest.fixture(scope="module")
def run(beamtime, tmp_path_factory):
    """A run.nxs with size distributions, in a folder of its own."""
    path = tmp_path_factory.mktemp("results") / "run.nxs"
    result = batch.compute(runfile.load(with_sizes(beamtime, "cross_check")), quiet=True)
    nexus.write_run(result, path)
    return path, result


@pytest.fixture(scope="module")
def checked(run):
    pytest.importorskip("mcsas3", reason='mcsas3 is not installed; pip install "saxs-pipeline[montecarlo]"')
    path, _ = run
    done = invoke("cross-check", path, "--frame", FRAME, "--repetitions", 3, "--contributions", 100)
    assert done.returncode == 0, done.stderr
    return done, path.parent / f"cross_check_frame_{FRAME:05d}"


def content(folder):
    return json.loads((folder / "cross_check.json").read_text(encoding="utf-8"))


def test_both_means_are_that_of_the_truth(checked, beamtime):
    """Mean of a Gaussian distribution weighted by volume, closed form."""
    truth = read_table(beamtime / "truth.csv")
    r, s = (truth[name][FRAME] for name in ("r_nm", "sigma_r_nm"))
    mean = (r**4 + 6 * r**2 * s**2 + 3 * s**4) / (r**3 + 3 * r * s**2)
    volume = 4 / 3 * np.pi * (r**3 + 3 * r * s**2) * truth["c_nc_umol_L"][FRAME] * 6.02214076e-7
    found = content(checked[1])
    assert abs(found["sizes"]["mean_nm"]["value"] - mean) < 4 * found["sizes"]["mean_nm"]["error"] < 0.02
    assert abs(found["mcsas3"]["mean_nm"]["value"] - mean) < 0.05
    assert abs(found["means"]["difference_nm"]) < 0.05
    assert found["mcsas3"]["volume_fraction"]["value"] == pytest.approx(volume, rel=0.08)


def test_what_is_said_is_what_the_file_holds(checked, run):
    done, folder = checked
    found, sizes = content(folder), run[1].sizes
    assert found["sizes"]["mean_nm"]["value"] == sizes.value("mean_nm")[FRAME]
    assert found["sizes"]["width_nm"]["error"] == sizes.error("width_nm")[FRAME]
    assert found["q_1_nm"] == [0.15, 5] and found["radius_nm"] == pytest.approx([0.5, 5])
    own, other, means = found["sizes"]["mean_nm"], found["mcsas3"]["mean_nm"], found["means"]
    assert len(other["repetitions"]) == 3 and found["mcsas3"]["settings"]["contributions"] == 100
    assert other["spread_of_repetitions"] == pytest.approx(np.std(other["repetitions"], ddof=1))
    combined = np.hypot(own["error"], other["spread_of_repetitions"])
    assert means["combined_nm"] == pytest.approx(combined)
    assert means["agree"] == (abs(other["value"] - own["value"]) <= 2 * combined)
    assert f"the mean radii {'agree' if means['agree'] else 'DIFFER'}: " in done.stdout
    assert "spread of repetitions, not an error bar" in done.stdout and f", frame {FRAME} at " in done.stdout
    assert found["versions"]["mcsas3"] in done.stdout
    assert "this can take minutes" in done.stderr


def test_the_table_has_both_densities_with_the_same_area(checked, run):
    _, folder = checked
    names = (folder / "cross_check.dat").read_text(encoding="utf-8").splitlines()[2].split()[1:]
    table = dict(zip(names, np.loadtxt(folder / "cross_check.dat").T, strict=True))
    np.testing.assert_allclose(table["density"], run[1].sizes.density[FRAME], rtol=1e-9)
    other = content(folder)["mcsas3"]["volume_fraction"]["value"]
    assert (table["mcsas3_density"] * table["bin_nm"]).sum() == pytest.approx(other, rel=1e-6)
    assert (table["density"] * table["bin_nm"]).sum() == pytest.approx(other, rel=0.08)


def test_the_figure_says_what_the_spread_is(checked):
    _, folder = checked
    nodes = ET.parse(folder / "cross_check.svg").iter("{http://www.w3.org/2000/svg}text")
    text = " ".join("".join(part.strip(" \n") for part in node.itertext()) for node in nodes)
    for label in ("spread of repetitions, not an error bar", "McSAS3", "(nm)", "(nm⁻¹)", "single size"):
        assert label in text, label
    picture = matplotlib.image.imread(folder / "cross_check.png")
    assert picture.shape[1] / 200 * 25.4 == pytest.approx(85, abs=0.2)
    assert (picture[:3].min(), picture[-3:].min(), picture[:, :3].min(), picture[:, -3:].min()) == (1.0,) * 4
    assert sorted(path.suffix for path in folder.iterdir()) == [".dat", ".json", ".png", ".svg"]


# --- refusals --------------------------------------------------------------------------------------------------------


def refused(*arguments):
    done = invoke("cross-check", *arguments)
    assert done.returncode == 2, done.stdout
    (line,) = done.stderr.strip().splitlines()
    return line


def test_without_mcsas3_it_is_said_how_to_get_it(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "mcsas3", None)  # as where it is not installed
    assert 'needs the package mcsas3; say: pip install "saxs-pipeline[montecarlo]"' in refused(run[0])
    assert not list(run[0].parent.glob(".writing*"))


def test_what_cannot_be_checked_is_said_in_one_line(run, tmp_path):
    path, result = run
    assert "frame 400 is not in this run; choose from 0 to 39" in refused(path, "--frame", 400)
    assert "frame 2 has no size distribution (weak); choose another" in refused(path, "--frame", 2)
    assert "not found" in refused(tmp_path / "nothing.nxs")
    bare = tmp_path / "bare.nxs"
    nexus.write_run(replace(result, sizes=None), bare)
    assert "no size distributions; add a section `sizes: {q_min: " in refused(bare)
    nexus.write_run(replace(result, sizes=replace(result.sizes, values=result.sizes.values * np.nan)), bare)
    assert "no frame has the signal for a size distribution" in refused(bare)


def test_results_of_earlier_versions_do_not_say_what_was_inverted(run, tmp_path):
    old = tmp_path / "old.nxs"
    nexus.write_run(run[1], old)
    with h5py.File(old, "r+") as file:
        for name in ("q_min", "q_max", "factor"):
            del file["entry/sizes"].attrs[name]
    assert "earlier version of this program; run again" in refused(old)


def test_files_of_others_are_not_overwritten(run, tmp_path):
    pytest.importorskip("mcsas3", reason='mcsas3 is not installed; pip install "saxs-pipeline[montecarlo]"')
    (tmp_path / "cross_check.dat").write_text("mine\n", encoding="utf-8")
    assert "is in the way and not of this command" in refused(run[0], "--out", tmp_path)
