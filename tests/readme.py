"""The README's text and the commands in it, as a reader would type them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = [block.strip().splitlines() for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)]


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The line without its comment, in a shell; the command is that of the tests' own Python."""
    line = line.split("#", maxsplit=1)[0].replace(".venv/bin/saxs-pipeline", f"{sys.executable} -m saxs_pipeline")
    return subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, check=False)
