"""The README's commands and messages are what the program does."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel import yaml

from saxs_pipeline.kinetic_config import KineticModel
from saxs_pipeline.outputs.flags import MEANING
from saxs_pipeline.outputs.tables import COLUMNS
from saxs_pipeline.reaction_config import AliquotTable
from tests.conftest import FRAMES, ROOT, invoke, variant
from tests.readme import README, SHELL, shell


def followed(line: str, folder: Path) -> str:
    """What `live` says until it has finished and Ctrl-C ends it."""
    arguments = line.split("#", maxsplit=1)[0].split()[1:]
    command = [sys.executable, "-m", "saxs_pipeline", *arguments]
    said = ""
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for text in process.stderr:
            said += text
            if text.startswith("the page stays"):
                process.send_signal(signal.SIGINT)
    assert process.returncode == 0
    return said


def test_the_two_commands_are_those_of_the_makefile_and_of_ci():
    assert [line.split("#")[0].strip() for line in SHELL[0]] == ["make demo", "make test"]
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_make_demo():
    done = shell("make demo", ROOT)
    assert done.returncode == 0, done.stderr
    assert "concentration" in done.stdout
    assert (ROOT / "sample_data/results/report.html").exists()
    assert sum(f.stat().st_size for f in (ROOT / "sample_data").rglob("*") if "results" not in f.parts) < 12e6


def test_the_beamtime_of_the_readme(tmp_path):
    """With fewer frames than the reader gets, whose number the full circle has: system/test_reaction.py."""
    simulate, *others = SHELL[1]
    for line in (simulate.replace("id02-cdse", f"id02-cdse --frames {FRAMES}"), *others):
        done = shell(line, tmp_path)
        assert done.returncode == 0, (line, done.stderr)
        assert done.stdout.strip(), line
    assert "(575 frames" in README
    assert (tmp_path / "beamtime/results/series.csv").read_text().count("\n") == 1 + FRAMES
    (calibrate,) = SHELL[2]
    done = shell(calibrate, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "±" in done.stdout and (tmp_path / "new.png").exists()
    install, live, *others = SHELL[3]
    assert "[live]" in install  # what the tests run in has it
    assert "finished: results are in results/" in followed(live, tmp_path)
    for line in others:
        done = shell(line, tmp_path)
        assert done.returncode == 0, (line, done.stderr)
        assert "finished" in done.stdout or "up to date" in done.stdout


def test_the_sections_of_the_readme(beamtime):
    sections = re.search(r"```yaml\n(kinetics:.*?)```", README, re.DOTALL)[1]
    shutil.copy(ROOT / "configs/kinetics-calibrated.yaml", beamtime)
    (beamtime / "aliquots.csv").write_text(
        "t_s,r_nm,r_nm_err,c_nc_umol_L,c_nc_umol_L_err,yield,yield_err\n60,1.8,0.05,20,1,0.3,0.02\n"
    )
    done = invoke("check", variant(beamtime, "readme_sections", ("engine:", f"{sections}\nengine:")))
    assert done.returncode == 0, done.stderr
    assert "fit of A, gamma, n, k1" in done.stdout


def test_every_key_of_the_parameter_file_and_of_aliquots_is_explained():
    docs = (ROOT / "docs/kinetics.md").read_text(encoding="utf-8")
    for key in KineticModel.model_fields:
        assert f"`{key}`" in docs, key
    example = yaml.YAML(typ="safe").load(re.search(r"```yaml\n(aliquots:.*?)```", docs, re.DOTALL)[1])["aliquots"]
    assert set(example) == set(AliquotTable.model_fields)
    AliquotTable.model_validate({**example, "file": "README.md"}, context={"base": ROOT})


def test_the_messages_of_the_readme(beamtime):
    path = variant(
        beamtime, "readme_errors", ("\n  thickness: 4 mm", "\n  thickness: 4 keV #"), ("  flat: flat", "  flatt: flat")
    )
    said = invoke("run", path).stderr.replace(f"{path.parent}/readme_errors.yaml", "run.yaml").splitlines()
    promised = re.search(r"```\n(run\.yaml.*?)```", README, re.DOTALL)[1].strip().splitlines()
    assert sorted(said) == sorted(promised)


@pytest.mark.parametrize("word", sorted(set(MEANING) - {"ok"}))
def test_every_flag_is_explained(word):
    assert f"`{word}`" in README


def test_the_columns_are_those_of_the_file():
    assert f"\n{','.join(COLUMNS)}\n" in README
