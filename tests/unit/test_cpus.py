"""How many processors are used where the machine is shared: control groups, affinity, and what Python was told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bossworker.system import cpus


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of eight processors, with control groups of its own."""
    monkeypatch.setattr(cpus, "OWN_GROUPS", str(tmp_path / "own"))
    monkeypatch.setattr(cpus, "GROUPS", str(tmp_path / "groups"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)
    monkeypatch.delenv("PYTHON_CPU_COUNT", raising=False)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_control_groups_affinity_counts(machine: Path) -> None:
    assert cpus.usable_cpus() == 8


@pytest.mark.parametrize(
    ("quota", "count"),
    [("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1), ("max 100000", 8), ("9900000 100000", 8), ("", 8)],
)
def test_a_quota_is_rounded_up(machine: Path, quota: str, count: int) -> None:
    write(machine / "own", "0::/\n")
    write(machine / "groups" / "cpu.max", quota)
    assert cpus.usable_cpus() == count


def test_the_least_of_all_groups_above_counts(machine: Path) -> None:
    write(machine / "own", "0::/slice/service/leaf\n")
    write(machine / "groups/slice/service/cpu.max", "300000 100000")
    write(machine / "groups/slice/cpu.max", "500000 100000")
    assert cpus.usable_cpus() == 3


def test_in_a_container_the_path_may_be_the_hosts(machine: Path) -> None:
    write(machine / "own", "0::/docker/0123456789\n")
    write(machine / "groups/cpu.max", "200000 100000")
    assert cpus.usable_cpus() == 2


@pytest.mark.parametrize("folder", ["cpu,cpuacct", "cpu"])
def test_groups_of_the_first_version(machine: Path, folder: str) -> None:
    write(machine / "own", "5:memory:/x\n4:cpu,cpuacct:/x\n3:cpuset:/x\n")
    write(machine / f"groups/{folder}/x/cpu.cfs_quota_us", "250000")
    write(machine / f"groups/{folder}/x/cpu.cfs_period_us", "100000")
    write(machine / f"groups/{folder}/cpu.cfs_quota_us", "-1")
    write(machine / f"groups/{folder}/cpu.cfs_period_us", "100000")
    assert cpus.usable_cpus() == 3


@pytest.mark.parametrize("own", ["", "nonsense", "::::", "0::", "1:cpu:", "0::/../../x\n"])
def test_what_cannot_be_read_is_no_limit(machine: Path, own: str) -> None:
    write(machine / "own", own)
    assert cpus.usable_cpus() == 8


def count_in(*options: str, **environment: str) -> int:
    program = "from bossworker.system.cpus import usable_cpus; print(usable_cpus())"
    command = [sys.executable, *options, "-c", program]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return int(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)


def test_what_python_was_told_goes_before_all_else() -> None:
    assert count_in(PYTHON_CPU_COUNT="3") == 3
    assert count_in(PYTHON_CPU_COUNT="1") == 1
    if sys.version_info >= (3, 13):
        assert count_in("-X", "cpu_count=5") == 5
        assert count_in("-X", "cpu_count=5", PYTHON_CPU_COUNT="3") == 5


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="Python itself reads it, and complains")
def test_a_word_that_is_no_number_is_passed_over() -> None:
    assert count_in(PYTHON_CPU_COUNT="many") == count_in()
