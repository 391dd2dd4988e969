"""Dark frames: averaged, scaled where asked for, and told apart from what does not fit."""

import shutil

import h5py
import numpy as np
import pytest

from saxs_pipeline import dark, geometry
from saxs_pipeline.plan import prepare
from saxs_pipeline.runfile import load
from saxs_pipeline.series import open_sample
from saxs_pipeline.types import BadInput
from tests.conftest import variant


@pytest.fixture(scope="module")
def darks(beamtime):
    """Name of the beamtime's dark file, from the run file's folder."""
    (path,) = beamtime.glob("raw/dark_rayonix*.h5")
    return f"raw/{path.name}"


def planned(beamtime, name, text, *changes):
    before = next(line for line in (beamtime / "run.yaml").read_text(encoding="utf-8").splitlines() if "dark:" in line)
    return prepare(load(variant(beamtime, name, (before, f"  dark: {text}"), *changes)))


def images(path):
    with h5py.File(path) as file:
        found = []
        file.visititems(
            lambda _, node: found.append(node) if isinstance(node, h5py.Dataset) and node.ndim == 3 else None
        )
        return found[0][()]


def test_the_mean_and_its_variance_are_those_of_numpy(beamtime, darks):
    spec, raw = planned(beamtime, "dark_mean", darks).spec, images(beamtime / darks).astype(float)
    np.testing.assert_allclose(spec.dark, raw.mean(axis=0) - 10, atol=1e-9)
    np.testing.assert_allclose(spec.dark_variance, raw.var(axis=0, ddof=1) / len(raw), atol=1e-9)
    assert spec.dark_exposure_s is None


def test_a_median_does_not_see_a_cosmic_ray(beamtime, darks):
    struck = beamtime / "raw" / "struck.h5"
    shutil.copy(beamtime / darks, struck)
    with h5py.File(struck, "r+") as file:
        paths = []
        file.visititems(lambda name, node: paths.append(name) if getattr(node, "ndim", 0) == 3 else None)
        frame = file[paths[0]][4]
        frame[100:103, 200] = 60_000
        file[paths[0]][4] = frame
    mean = planned(beamtime, "dark_struck", "raw/struck.h5").spec.dark[100:103, 200]
    median = planned(beamtime, "dark_median", "{frames: raw/struck.h5, average: median}").spec
    assert (mean > 5000).all()
    np.testing.assert_allclose(median.dark, np.median(images(struck), axis=0) - 10, atol=1e-9)
    assert (median.dark[100:103, 200] < 20).all()


def test_a_dark_scaled_with_the_exposure_knows_its_own(beamtime, darks):
    """75 ms in the file of the dark frames, and as stated where it is stated."""
    plan = planned(beamtime, "dark_scaled", f"{{frames: {darks}, scale_with_exposure: true}}")
    assert plan.spec.dark_exposure_s == pytest.approx(0.075)
    stated = planned(beamtime, "dark_stated", f"{{frames: {darks}, scale_with_exposure: true, exposure: 150 ms}}")
    assert stated.spec.dark_exposure_s == pytest.approx(0.15)
    assert plan.spec.key != stated.spec.key
    whole, half = (p.series.read(0, 2).exposure_s / p.spec.dark_exposure_s for p in (plan, stated))
    np.testing.assert_allclose([whole, half], [[1.0, 1.0], [0.5, 0.5]], rtol=1e-6)


def test_dark_frames_of_several_exposures_cannot_be_scaled(beamtime):
    with pytest.raises(BadInput, match=r"run\.yaml:.*corrections\.dark: .* these have 0\.075 to 1 s"):
        dark._exposure(load(beamtime / "run.yaml"), [1.0, 0.075])


def test_noise_that_does_not_fit_the_stated_one_is_said(beamtime, darks):
    assert not any("read_noise" in text for text in planned(beamtime, "dark_quiet", darks).warnings)
    noisy = planned(beamtime, "dark_noisy", darks, ("read_noise: 2", "read_noise: 4"))
    assert any("read_noise is 4" in text and "scatter by" in text for text in noisy.warnings)


def test_a_median_of_more_frames_than_memory_holds_is_refused(beamtime, darks, monkeypatch):
    monkeypatch.setattr(dark, "MEDIAN_BYTES", 3 * 480 * 480 * 2)
    with pytest.raises(BadInput, match=r"corrections\.dark\.average: .* at most 3 frames, or average: mean"):
        planned(beamtime, "dark_many", f"{{frames: {darks}, average: median}}")


def test_bad_pixels_are_masked_and_counted(beamtime, darks):
    """The simulated detector has hot and dead ones, which its mask knows: without it they are found."""
    import fabio

    known = fabio.open(beamtime / "mask.edf").data != 0
    plain = planned(beamtime, "bad_masked", darks, ("  mask: mask.edf", "  mask: mask.edf\n  bad_pixels: {}"))
    found = planned(beamtime, "bad_found", darks, ("  mask: mask.edf", "  bad_pixels: {}"))
    (said,) = (text for text in found.warnings if text.startswith("bad pixels masked"))
    assert found.spec.mask.any()
    assert not (found.spec.mask & ~known).any()
    assert found.spec.mask.sum() > 50
    assert "hot (dark above" in said
    assert plain.spec.mask.sum() == known.sum()


def test_pixels_that_no_dark_frame_measured_are_not_used(beamtime, darks):
    """The simulated hot pixels above the saturation, which a run without a mask would otherwise correct by nonsense."""
    level = images(beamtime / darks).astype(float).mean(axis=0)
    top = float(np.sort(level.ravel())[-20])
    changes = ("  mask: mask.edf", "  #"), ("saturation: 65000", f"saturation: {top!r}")
    run = load(variant(beamtime, "dark_full", *changes))
    info = open_sample(run).info
    spec = geometry.specify(run, info, dark.average_dark(run, run.config.corrections.dark, info, 10.0, []))
    np.testing.assert_array_equal(spec.mask, level >= top)
