"""Compile the core. ``python native/build_core.py`` puts it beside the sources, for tests and editable installs.

Where there is no compiler, no header of Python's, or no platform for it, nothing is built and nothing is said: the
package does without.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent
NAME = "_core.abi3.so"  # Python's stable ABI, of 3.11 and all later ones
BESIDE = Path(__file__).parent.parent / "bossworker" / NAME
FLAGS = ("-shared", "-fPIC", "-O2", "-fvisibility=hidden")


def wanted() -> bool:
    """Whether it can be of use: it takes semaphores as Linux has them, and relies on the GIL."""
    return (
        sys.platform == "linux"
        and sys.implementation.name == "cpython"
        and not sysconfig.get_config_var("Py_GIL_DISABLED")
        and os.environ.get("BOSSWORKER_PURE", "0") in ("", "0")
    )


def compile_core(target: Path) -> bool:
    """Whether it worked."""
    if not wanted():
        return False
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    options = [*FLAGS, *shlex.split(os.environ.get("CFLAGS", "")), f"-I{sysconfig.get_path('include')}"]
    try:
        done = subprocess.run(
            [*compiler, *options, *SOURCES.glob("*.c"), "-o", target], capture_output=True, check=False
        )
    except OSError:  # no such program
        return False
    if done.returncode and os.environ.get("BOSSWORKER_BUILD_ERRORS"):
        sys.stderr.buffer.write(done.stderr)
    return not done.returncode


def build_beside() -> bool:
    """Put it beside the sources, unless it is there; whole, or not at all: others may do so at the same time."""
    changed = max(source.stat().st_mtime for source in SOURCES.glob("*.[ch]"))
    if BESIDE.exists() and BESIDE.stat().st_mtime >= changed:
        return True
    with tempfile.TemporaryDirectory(dir=BESIDE.parent, prefix="_core-") as folder:
        made = Path(folder) / NAME
        if compile_core(made):
            made.replace(BESIDE)
            return True
    return False


if __name__ == "__main__":
    sys.exit(not build_beside())
