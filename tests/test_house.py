"""The house rules are enforced: layers, types, style, a quick --help."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [["lint-imports"], ["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]],
    ids=" ".join,
)
def test_checks_pass(command):
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_help_imports_nothing_heavy():
    code = "import sys; import saxs_pipeline.apps.cli; print([m for m in sys.modules if '.' not in m])"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("numpy", "scipy", "pyFAI", "fabio", "h5py", "matplotlib", "lmfit", "dask", "pydantic", "pint"):
        assert f"'{heavy}'" not in modules


def test_modules_and_functions_stay_readable():
    """A module fits in 400 lines; files named utils, helpers or common do not exist."""
    for path in (ROOT / "saxs_pipeline").rglob("*.py"):
        assert path.stem not in {"utils", "helpers", "common"}
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def test_python_m_and_the_command_are_the_same():
    start = time.perf_counter()
    outputs = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for command in ([BIN / "saxs-pipeline", "--help"], [sys.executable, "-m", "saxs_pipeline", "--help"])
    ]
    assert outputs[0] == outputs[1]
    assert "simulate" in outputs[0]
    assert time.perf_counter() - start < 60
