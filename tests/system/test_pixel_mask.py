"""The mask that was used is in run.nxs with its reasons, as the geometry means the images."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from pyFAI.detectors import detector_factory

from saxs_pipeline import runfile
from saxs_pipeline.apps import batch
from saxs_pipeline.io.frames import read_image
from saxs_pipeline.outputs import nexus
from tests.conftest import variant, without_model
from tests.io.beamline_files import write_edf

GAP, DEAD, UNDER, OVER, USER = 1, 2, 4, 8, 256
RUN = """\
title: gaps
data: {{frames: "f_*.edf", orientation: {orientation}, time: {{law: {{exposure: 1 s, wait: 1 s}}}}}}
geometry: {{detector: Pilatus1M, distance: 1 m, center: [400, 500], energy: 12 keV}}
corrections:
  mask: {{file: mask.edf, orientation: {mask_orientation}}}
  flat: {{file: flat.edf, orientation: {orientation}}}
  bad_pixels: {{}}
  gain: 1
  read_noise: 0
  polarization: 0.95
integration: {{bins: 40, q_min: 0.1 1/nm, q_max: 3 1/nm}}
intensity: {{monitor: none}}
"""


def written(path, folder):
    """run.nxs of a run, and its result."""
    result = batch.compute(runfile.load(path), quiet=True)
    nexus.write_run(result, folder / "written.nxs")
    return folder / "written.nxs", result


def pixel_mask(path):
    with h5py.File(path) as file:
        return file["entry/instrument/detector/pixel_mask"][()]


@pytest.mark.parametrize("orientation", ["none", "flip_up_down"])
def test_detector_file_and_flat_each_have_their_bit(tmp_path, orientation):
    """Against pyFAI's mask of the detector and the mask's file, which is stored in yet another orientation."""
    named = detector_factory("Pilatus1M")
    user, flat = np.zeros(named.shape, np.uint8), np.ones(named.shape, np.float32)
    user[480:520, 100:420], user[0, 0] = 1, 7
    flat[700, 300:310], flat[701, 300], flat[702, 300] = 0, 0.2, 3.0
    turn = {"none": lambda a: a, "flip_up_down": np.flipud}[orientation]
    write_edf(tmp_path / "mask.edf", [np.fliplr(user)], [{}])
    write_edf(tmp_path / "flat.edf", [turn(flat)], [{}])
    image = np.random.default_rng(3).poisson(5, named.shape).astype(np.int32)
    for k in range(2):
        write_edf(tmp_path / f"f_{k}.edf", [turn(image)], [{}])
    (tmp_path / "run.yaml").write_text(RUN.format(orientation=orientation, mask_orientation="flip_left_right"))
    path, result = written(tmp_path / "run.yaml", tmp_path)
    bits = pixel_mask(path)
    np.testing.assert_array_equal((bits & GAP) != 0, named.mask != 0)
    np.testing.assert_array_equal((bits & USER) != 0, user != 0)
    found = ~((named.mask != 0) | (user != 0))
    for bit, where in ((DEAD, flat == 0), (UNDER, flat == np.float32(0.2)), (OVER, flat == 3)):
        np.testing.assert_array_equal(((bits & bit) != 0)[found], where[found])
    q = named_q(result, named.shape)
    inside = (q > 0.1) & (q < 3) & (bits == 0)
    assert result.curves.counts[0].sum() == pytest.approx(inside.sum(), abs=3)  # a pixel on the outermost edge


def named_q(result, shape):
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

    integrator = AzimuthalIntegrator()
    integrator.set_config(dict(result.provenance.geometry))
    return integrator.center_array(shape, unit="q_nm^-1")


def test_a_plain_run_has_the_mask_of_its_file_and_takes_it_back(beamtime, tmp_path):
    """run.nxs itself may be the mask of another run: that uses the same pixels."""
    path, result = written(without_model(variant(beamtime, "mask_plain")), tmp_path)
    np.testing.assert_array_equal(pixel_mask(path), np.where(read_image(beamtime / "mask.edf") != 0, USER, 0))
    again = variant(
        beamtime, "mask_again", ("  mask: mask.edf", f"  mask: {path}::/entry/instrument/detector/pixel_mask")
    )
    counts = batch.compute(runfile.load(without_model(again)), quiet=True).curves.counts
    np.testing.assert_array_equal(counts, result.curves.counts)
