"""Are the stated errors the true ones? A longer run against its truth (benchmarks/accuracy.py does 8 × 575 frames)."""

from __future__ import annotations

import numpy as np
import pytest

from saxs_pipeline import runfile
from saxs_pipeline.apps import batch
from saxs_pipeline.outputs import tables
from saxs_pipeline.simulation import simulate
from tests.conftest import read_table

FRAMES = 200


@pytest.fixture(scope="module")
def series_and_truth(tmp_path_factory):
    folder = tmp_path_factory.mktemp("accuracy") / "beamtime"
    simulate("id02-cdse", folder, seed=77, frames=FRAMES)
    result = batch.compute(runfile.load(folder / "run.yaml"), quiet=True)
    tables.write_series(result, folder / "series.csv")
    return read_table(folder / "series.csv"), read_table(folder / "truth.csv")


def test_pulls_are_those_of_honest_errors(series_and_truth):
    """28 background frames: their common error moves the mean by 0.19; 150 frames tell the width to 6 %."""
    series, truth = series_and_truth
    good = series["c_nc_umol_L"] / series["c_nc_umol_L_err"] > 10
    assert good.sum() > 0.75 * FRAMES
    ratios, weights = [], []
    for name in ("c_nc_umol_L", "yield"):  # one scale factor for both
        ratios.append(series[name][good] / truth[name][good])
        weights.append((truth[name][good] / series[name + "_err"][good]) ** 2)
    factor = np.average(ratios, weights=weights)
    for name, scale in (("r_nm", 1.0), ("sigma_r_nm", 1.0), ("c_nc_umol_L", factor), ("yield", factor)):
        pull = (series[name][good] / scale - truth[name][good]) / (series[name + "_err"][good] / scale)
        pull = pull[np.isfinite(pull)]
        assert abs(pull.mean()) < 0.75, name
        assert 0.8 < pull.std() < 1.2, name
    assert abs(factor - 1) < 3.5 * np.median(series["c_nc_umol_L_sys"][good] / series["c_nc_umol_L"][good])


def test_weak_frames_scatter_as_their_errors_say(series_and_truth):
    series, truth = series_and_truth
    weak = np.array(["weak" in flag.split("|") for flag in series["flag"]]) & (series["t_s"] > 0)
    pull = ((series["c_nc_umol_L"] - truth["c_nc_umol_L"]) / series["c_nc_umol_L_err"])[weak]
    assert weak.sum() >= 2
    assert np.abs(pull).max() < 4


def test_chi2_is_one(series_and_truth):
    series, _ = series_and_truth
    assert np.median(series["chi2_red"][series["flag"] == "ok"]) == pytest.approx(1, abs=0.03)
