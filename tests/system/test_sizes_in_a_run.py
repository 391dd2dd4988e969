"""Section `sizes` of a run file: distributions in run.nxs, sizes.csv, figure, summary and report."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from saxs_pipeline.outputs import nexus
from saxs_pipeline.outputs.plot_sizes import draw_sizes
from tests.conftest import FRAMES, invoke, read_table, variant

SECTION = "\nsizes: {q_min: 0.15 1/nm, q_max: 5 1/nm, radius: [0.5 nm, 5 nm]}\n"


def with_sizes(beamtime: Path, name: str, section: str = SECTION, *changes) -> Path:
    return variant(beamtime, name, ("\nengine:", f"{section}\nengine:"), *changes)


@pytest.fixture(scope="module")
def run(beamtime):
    path = with_sizes(beamtime, "sizes")
    done = invoke("run", path)
    assert done.returncode == 0, done.stderr
    return path, done.stdout


def rows(folder: Path) -> dict[str, np.ndarray]:
    return read_table(folder / "sizes.csv")


def test_means_and_volumes_are_those_of_the_truth_within_their_errors(run, beamtime):
    """Moments of a Gaussian number distribution, closed forms; the absolute scale is common to all frames."""
    table, truth = rows(run[0].with_suffix("")), read_table(beamtime / "truth.csv")
    known = np.isfinite(table["mean_nm"])
    assert 25 < known.sum() < FRAMES
    assert not known[truth["c_nc_umol_L"] == 0].any()
    r, s, c = (truth[name][known] for name in ("r_nm", "sigma_r_nm", "c_nc_umol_L"))
    third, fourth = r**3 + 3 * r * s**2, r**4 + 6 * r**2 * s**2 + 3 * s**4
    pulls = (table["mean_nm"][known] - fourth / third) / table["mean_nm_err"][known]
    assert np.abs(pulls).max() < 4.5
    assert np.abs(pulls).mean() < 1.2
    volume = 4 / 3 * np.pi * third * c * 6.02214076e-7
    found, error, systematic = (table[f"volume_fraction{end}"][known] for end in ("", "_err", "_sys"))
    assert (np.abs(found - volume) < 4.5 * error + 4 * systematic).all()
    strong = c > 20
    width = np.sqrt((r**5 + 10 * r**3 * s**2 + 15 * r * s**4) / third - (fourth / third) ** 2)
    off = (table["width_nm"][known] - width) / table["width_nm_err"][known]
    assert np.abs(off[strong]).max() < 4.5


def test_the_file_holds_what_the_table_says(run):
    folder = run[0].with_suffix("")
    table, sizes = rows(folder), nexus.read_run(folder / "run.nxs").sizes
    np.testing.assert_allclose(sizes.value("mean_nm"), table["mean_nm"], rtol=1e-9)
    np.testing.assert_allclose(sizes.error("width_nm"), table["width_nm_err"], rtol=1e-9)
    assert sizes.absolute and 0 < sizes.scale_rel < 0.02
    with h5py.File(folder / "run.nxs") as file:
        group = file["entry/sizes"]
        assert group.attrs["signal"] == "density" and list(group.attrs["axes"]) == ["time", "radius"]
        assert group["density"].shape == group["density_errors"].shape == (FRAMES, 161)
        assert group["density"].attrs["units"] == "1/nm"
        np.testing.assert_allclose(group["volume_fraction_systematic"], table["volume_fraction_sys"], rtol=1e-9)
        assert "number-weighted" in group["number_mean_nm"].attrs["long_name"]
        assert group["radius"][[0, -1]] == pytest.approx([0.5, 5.0])
    checked = subprocess.run(
        [Path(sys.executable).parent / "nxcheck", "-w", folder / "run.nxs"], capture_output=True, text=True, check=True
    )
    assert re.findall(r"number of (?:warnings|errors): (\d+)", checked.stdout) == ["0", "0"], checked.stdout


def test_summary_report_and_check_say_it(run):
    path, said = run
    assert "size distributions" in said and "a single size shows a full width of" in said
    report = (path.with_suffix("") / "report.html").read_text()
    assert "Volume-weighted size distributions" in report and "resolution in size" in report
    assert (path.with_suffix("") / "figures/sizes.png").stat().st_size > 20_000
    assert "161 radii from 0.5 to 5 nm" in invoke("check", path).stdout


def test_the_figure_shows_band_and_resolution_of_the_chosen_frames(run):
    result = nexus.read_run(run[0].with_suffix("") / "run.nxs")
    drawing = draw_sizes(result, [14, 37])
    top, bottom = drawing.figure.axes[:2]
    assert top.get_ylabel() == bottom.get_xlabel() == "radius $R$ (nm)"
    power = int(re.fullmatch(r"volume fraction per nm \(\$10\^\{(-\d+)\}\$ nm⁻¹\)", bottom.get_ylabel())[1])
    assert "time (s)" in top.get_xlabel()
    bars = [line.get_xdata() for line in bottom.get_lines() if line.get_marker() == "|"]
    lengths = [bar[1] - bar[0] for bar in bars]
    assert lengths == pytest.approx(result.sizes.value("single_fwhm_nm")[[14, 37]])
    curve = max(
        (line for line in bottom.get_lines() if line.get_marker() != "|"), key=lambda line: max(line.get_ydata())
    )
    assert max(curve.get_ydata()) * 10.0**power == pytest.approx(result.sizes.density[37].max())
    assert 0.1 < max(curve.get_ydata()) < 10
    mean, width = rows(run[0].with_suffix(""))["mean_nm"][37], 0.1
    assert curve.get_xdata()[np.argmax(curve.get_ydata())] == pytest.approx(mean, abs=width)
    (band,) = (b.get_paths()[0].vertices for b in bottom.collections[1:2])
    assert band[:, 1].min() >= 0 and band[:, 1].max() > max(curve.get_ydata())


def test_numbers_do_not_depend_on_the_cut_into_chunks_or_threads(run, beamtime):
    other = with_sizes(beamtime, "sizes_cut", SECTION, ("scheduler: threads", "scheduler: synchronous, chunk: 7"))
    assert invoke("run", other).returncode == 0
    first, second = (path.with_suffix("") / "sizes.csv" for path in (run[0], other))
    assert first.read_bytes() == second.read_bytes()


def test_without_a_model_there_are_sizes_all_the_same(beamtime, run):
    text = with_sizes(beamtime, "sizes_only").read_text()
    path = beamtime / "sizes_only.yaml"
    path.write_text("\n".join(line for line in text.splitlines() if not line.startswith("model:")))
    done = invoke("run", path)
    assert done.returncode == 0, done.stderr
    assert (beamtime / "sizes_only/sizes.csv").read_bytes() == (run[0].with_suffix("") / "sizes.csv").read_bytes()


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("sizes: {q_min: 0.01 1/nm, q_max: 5 1/nm}", "their q range must lie within the integrated one, 0.1 to 5 1/nm"),
        ("sizes: {q_min: 3 1/nm, q_max: 1 1/nm}", "q_max must be larger than q_min"),
        ("sizes: {q_min: 0.2 1/nm, q_max: 5 1/nm, radius: [3 nm, 2 nm]}", "radius"),
        ("sizes: {q_min: 0.2 1/nm, q_max: 5 1/nm, bins: 3}", "bins"),
        ("sizes: {method: entropy, q_min: 0.2 1/nm, q_max: 5 1/nm}", "regularised"),
    ],
)
def test_a_section_that_makes_no_sense_is_refused_in_one_line(beamtime, section, words):
    done = invoke("check", with_sizes(beamtime, "sizes_refused", f"\n{section}\n"))
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "sizes_refused.yaml:" in line and "sizes" in line and words in line
