"""Programs that use a pool, run as processes of their own: what they do to themselves is no matter to the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

SECONDS = 60.0  # no program takes nearly as long


def environment() -> dict[str, str]:
    """Ours, with all that we import from."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def write_program(folder: Path, text: str) -> Path:
    path = folder / "program.py"
    path.write_text(textwrap.dedent(text))
    return path


def run_program(folder: Path, text: str, *args: str, stderr: str | None = "", options: tuple[str, ...] = ()) -> str:
    """Run it; what it printed. It must end well, and say nothing but `stderr` (None: anything) beside that."""
    command = [sys.executable, *options, str(write_program(folder, text)), *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS, env=environment())
    assert done.returncode == 0, done.stderr
    assert stderr is None or done.stderr == stderr
    return done.stdout
