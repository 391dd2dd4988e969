"""References of a run: their exposures, their bad frames, their place in memory."""

from __future__ import annotations

import re

import numpy as np
import pytest

from saxs_pipeline import plan, runfile
from saxs_pipeline.apps import batch
from saxs_pipeline.simulation import simulate
from saxs_pipeline.types import BadInput
from tests.conftest import variant

MONITOR = re.compile(r"monitor: I1 .*")
LAW = "zero: 0 s\n    law: {exposure: 75 ms, wait: 1 s}"


@pytest.fixture(scope="module")
def edf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edf") / "beamtime"
    simulate("id02-cdse", folder, seed=5, frames=24, layout="edf")
    return folder


def timing(folder):
    return re.search(r"zero: .*", (folder / "run.yaml").read_text())[0]


def test_the_scans_timing_law_is_not_the_references(beamtime):
    """monitor: exposure with a law of 75 ms: the 1 s frames of water are divided by their own exposure."""
    text = MONITOR.sub("monitor: exposure", (beamtime / "run.yaml").read_text(encoding="utf-8"))
    scales = []
    for name, change in (("by_scalers", timing(beamtime)), ("by_law", LAW)):
        path = beamtime / f"exposure_{name}.yaml"
        path.write_text(text.replace(timing(beamtime), change), encoding="utf-8")
        scales.append(plan.prepare(runfile.load(path)).scale.factor.value)
    assert scales[0] == pytest.approx(scales[1], rel=1e-3)


def test_a_law_that_is_given_is_used(beamtime):
    prepared = plan.prepare(runfile.load(variant(beamtime, "law_given", (timing(beamtime), LAW))))
    np.testing.assert_allclose(np.diff(prepared.series.start_s), 1.075)


def test_references_without_any_exposure_ask_for_it(edf):
    text = MONITOR.sub("monitor: exposure", (edf / "run.yaml").read_text(encoding="utf-8"))
    text = re.sub(r"\n +scalers: raw/(water|empty)\S+", "", text)
    stripped = edf / "raw" / "bare"
    stripped.mkdir()
    import fabio

    for kind in ("water", "empty"):
        for image in sorted((edf / "raw" / kind).glob("*.edf")):
            fabio.edfimage.EdfImage(fabio.open(str(image)).data).write(str(stripped / image.name))
        text = text.replace(f"raw/{kind}/", "raw/bare/")
    path = edf / "no_exposure.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=r"intensity\.water.*exposure"):
        plan.prepare(runfile.load(path))
    path.write_text(re.sub(r"(\n +)(frames: raw/bare)", r"\1exposure: 1 s\1\2", text), encoding="utf-8")
    assert plan.prepare(runfile.load(path)).scale.factor.value > 0


@pytest.mark.parametrize(("kind", "key"), [("dark", "corrections.dark"), ("water", "intensity.water")])
def test_a_bad_reference_frame_is_named_and_left_out(edf, kind, key):
    victim = sorted((edf / "raw" / kind).glob("*.edf"))[1]
    content = victim.read_bytes()
    try:
        victim.write_bytes(content[: len(content) // 2])
        result = batch.compute(runfile.load(edf / "run.yaml"), quiet=True)
    finally:
        victim.write_bytes(content)
    said = [warning for warning in result.warnings if warning.startswith(key)]
    assert len([text for text in said if victim.name in text and "left out: unreadable" in text]) == 1, said


def test_background_frames_far_apart_are_not_all_read(beamtime):
    pieces = plan.pieces([0, 1, 2, 30, 31, 574], plan.REFERENCE_CHUNK)
    assert pieces == [(0, 3), (30, 32), (574, 575)]
    assert max(stop - start for start, stop in plan.pieces(range(1000), plan.REFERENCE_CHUNK)) <= plan.REFERENCE_CHUNK


def test_a_file_that_was_replaced_is_read_anew(edf):
    """In one process, by the same threads: the second run sees the second file."""
    first = batch.compute(runfile.load(edf / "run.yaml"), quiet=True)
    frame = sorted((edf / "raw" / "cdse").glob("*.edf"))[20]
    original = frame.read_bytes()
    other = sorted((edf / "raw" / "cdse").glob("*.edf"))[4].read_bytes()
    try:
        copy = frame.with_suffix(".new")
        copy.write_bytes(other)
        copy.replace(frame)
        second = batch.compute(runfile.load(edf / "run.yaml"), quiet=True)
    finally:
        frame.write_bytes(original)
    assert not np.array_equal(first.curves.intensity[20], second.curves.intensity[20])
    np.testing.assert_array_equal(np.delete(first.curves.intensity, 20, 0), np.delete(second.curves.intensity, 20, 0))


def test_results_that_cannot_be_right_are_remarked(beamtime):
    path = variant(beamtime, "little_cadmium", ("cation_concentration: 26 mmol/L", "cation_concentration: 2.6 mmol/L"))
    warnings = batch.compute(runfile.load(path), quiet=True).warnings
    assert any("exceeds 100 %" in text for text in warnings)
    path = variant(beamtime, "zero_far_away", (timing(beamtime), "zero: 1e6 s"))
    warnings = batch.compute(runfile.load(path), quiet=True).warnings
    assert any("before data.time.zero" in text for text in warnings)


def test_figures_of_an_earlier_run_do_not_stay_beside_a_new_report(beamtime):
    path = variant(beamtime, "stale")
    loaded = runfile.load(path)
    batch.write(batch.compute(loaded, quiet=True), loaded)
    (beamtime / "stale/figures/mine.png").write_bytes(b"mine")
    path.write_text(re.sub(r"^model: .*$", "model: null", path.read_text(), flags=re.MULTILINE), encoding="utf-8")
    loaded = runfile.load(path)
    batch.write(batch.compute(loaded, quiet=True), loaded)
    left = {p.name for p in (beamtime / "stale/figures").iterdir()}
    assert "radius.png" not in left
    assert {"curves.png", "mine.png"} <= left
