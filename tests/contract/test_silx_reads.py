"""silx and nexusformat open the results with a sensible default plot, and the NeXus validator finds no fault."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from saxs_pipeline.outputs import nexus, nxcansas
from tests.outputs.known_run import make_result, only


@pytest.fixture(scope="module")
def run():
    return make_result(40, 60)


@pytest.fixture(scope="module")
def path(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("nexus") / "run.nxs"
    nexus.write_run(run, path)
    return path


def default_plot(group):
    from silx.io.nxdata import get_default

    return get_default(group)


def test_the_default_plot_is_radius_and_spread_against_log_time(run, path):
    with h5py.File(path) as file:
        plot = default_plot(file)
        assert plot.is_valid, plot.issues
        np.testing.assert_array_equal(plot.signal[()], run.quantities.radius_nm.value)
        np.testing.assert_array_equal(plot.errors, run.quantities.radius_nm.statistical)
        np.testing.assert_array_equal(plot.axes[0][()], run.curves.time_s)
        np.testing.assert_array_equal(plot.auxiliary_signals[0][()], run.quantities.sigma_nm.value)
        assert plot.axes_names == ["time (s)"]
        assert plot.plot_style.axes_scale_types == ("log",)


@pytest.mark.parametrize("name", ["curves", "model", "background", "series"])
def test_every_plot_group_is_valid(path, name):
    with h5py.File(path) as file:
        plot = default_plot(file["entry"][name])
        assert plot.is_valid, plot.issues
        assert plot.title


def test_the_stack_has_time_and_q_axes_and_a_logarithmic_signal(run, path):
    with h5py.File(path) as file:
        plot = default_plot(file["entry/curves"])
        np.testing.assert_array_equal(plot.signal[()], run.curves.intensity)
        np.testing.assert_array_equal(plot.errors, run.curves.sigma)
        np.testing.assert_array_equal(plot.axes[1][()], run.curves.q_nm)
        assert plot.axes_names == ["time (s)", "q (1/nm)"]
        assert plot.plot_style.signal_scale_type == "log"


@pytest.mark.parametrize("kind", ["no model", "nothing reported"])
def test_without_a_radius_the_default_plot_is_the_stack(run, tmp_path, kind):
    bare = replace(run, fits=None, model=None, quantities=None) if kind == "no model" else only(run, [13, 16])
    nexus.write_run(bare, tmp_path / "run.nxs")
    with h5py.File(tmp_path / "run.nxs") as file:
        plot = default_plot(file)
        assert plot.is_valid, plot.issues
        np.testing.assert_array_equal(plot.signal[()], bare.curves.intensity)


def test_nexusformat_opens_it_with_the_same_default_plot(run, path):
    from nexusformat.nexus import nxload

    root = nxload(str(path))
    signal = root.get_default().nxsignal
    assert signal.nxname == "r"
    assert signal.attrs["units"] == "nm"
    np.testing.assert_array_equal(signal.nxvalue, run.quantities.radius_nm.value)
    assert root.entry.title.nxvalue == run.title


def validate(tool, *arguments):
    """Output of nexusformat's validators, which print counts and exit with 0 whatever they find."""
    command = Path(sys.executable).parent / tool
    done = subprocess.run([command, "-w", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def test_the_results_file_is_valid_nexus(path):
    output = validate("nxcheck", str(path))
    assert "Total number of warnings: 0" in output, output
    assert "Total number of errors: 0" in output, output


def test_the_export_is_valid_nxcansas(run, tmp_path):
    nxcansas.write(only(run, [30, 31]), tmp_path / "run_nxcansas.h5")
    for entry in ("frame_00030", "frame_00031"):
        output = validate("nxvalidate", "-p", f"/{entry}", str(tmp_path / "run_nxcansas.h5"))
        assert "Application Definition: NXcanSAS" in output, output
        assert "Total number of warnings: 0" in output, output
        assert "Total number of errors: 0" in output, output


def test_the_export_opens_in_silx_at_its_first_curve(run, tmp_path):
    nxcansas.write(only(run, [30, 31]), tmp_path / "run_nxcansas.h5")
    with h5py.File(tmp_path / "run_nxcansas.h5") as file:
        plot = default_plot(file)
        assert plot.is_valid, plot.issues
        np.testing.assert_allclose(plot.signal[()], 10 * run.curves.intensity[30, 1:], rtol=1e-12)
