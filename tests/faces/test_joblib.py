"""joblib's ``Parallel`` on a pool: `joblib_checks.py`.

In a process of its own: joblib loads much of multiprocessing, which then keeps a process of its own for programs that
spawn, and other tests would find that.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = Path(__file__).with_name("joblib_checks.py")


@pytest.mark.skipif(importlib.util.find_spec("joblib") is None, reason="joblib is not installed")
def test_joblib() -> None:
    command = [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", str(CHECKS)]
    told = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKS.parents[2])
    assert told.returncode == 0, told.stdout + told.stderr
