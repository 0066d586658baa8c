"""What a run loads until its end: it must reach its first command soon."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import bossworker

ROOT = Path(bossworker.__file__).parents[1]
PROGRAM = f"import sys; sys.path.append({str(ROOT)!r}); from bossworker.cli.main import main; sys.exit(main())"
SPARED = """
    asyncio bossworker.pool bossworker.tasks bossworker.system.checks concurrent.futures csv dataclasses decimal
    fractions inspect json logging math multiprocessing numbers pathlib pickle random shlex shutil signal socket sqlite3
    statistics subprocess tempfile textwrap traceback typing
"""


def test_a_run_loads_what_it_needs_and_no_more() -> None:
    """Neither itself nor its host."""
    command = [sys.executable, "-I", "-S", "-X", "importtime", "-c", PROGRAM, "run", "-j2", "echo", "{}", ":::", "a"]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in told.stderr.splitlines()}
    assert told.stdout == "a\n"
    assert {"bossworker.cli.runner", "bossworker.commands.hosting.host", "argparse"} <= loaded
    assert not loaded & {*SPARED.split()}
