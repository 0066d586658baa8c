"""The tests. They run with the compiled core, where one can be built, unless BOSSWORKER_PURE is set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Before any module of ours is loaded: what `pip install` has built lies elsewhere, and tests run from the sources.
# Once for all processes: spawned workers, which load this to find their handlers, would start a Python each.
if "BOSSWORKER_TESTS_HAVE_CORE" not in os.environ:
    os.environ["BOSSWORKER_TESTS_HAVE_CORE"] = "1"
    subprocess.run([sys.executable, str(Path(__file__).parent.parent / "native" / "build_core.py")], check=False)
