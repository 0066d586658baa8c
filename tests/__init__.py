"""The tests. They run with the compiled core, where one can be built, unless BOSSWORKER_PURE is set."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# Before any module of ours is loaded: what `pip install` has built lies elsewhere, and tests run from the sources.
subprocess.run([sys.executable, str(Path(__file__).parent.parent / "native" / "build_core.py")], check=False)
