"""Processes that die: actions in a fork, killed after a time or just before a chosen change of the disk.

For plain scripts without threads, as `script` runs them: forking pytest itself could deadlock.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CHANGES = frozenset({"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree"})
"""What Python tells audit hooks before it does it: every change of names on the disk, and each file opened."""


def script(code: str, *arguments: object) -> Any:
    """The JSON that a Python script prints; it sees `argv` and what is importable from the root of the project."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def killed_at(action: Callable[[], object], change: int) -> bool:
    """Fork, do the action there, with SIGKILL just before its change number `change`; False if it ended before."""

    def dying() -> None:
        seen = 0

        def hook(event: str, _: object) -> None:
            nonlocal seen
            if event in CHANGES:
                if seen == change:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen += 1

        sys.addaudithook(hook)
        action()

    return _ended(_forked(dying))


def killed_after(action: Callable[[], object], seconds: float, begun: Callable[[], object] = lambda: None) -> bool:
    """Fork, do the action there, SIGKILL some time after `begun` returns here; False if it ended before."""
    child = _forked(action)
    begun()
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return _ended(child)


def _forked(action: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def _ended(child: int) -> bool:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), f"the action failed by itself: {code}"
    return code != 0
