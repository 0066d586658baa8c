"""TERM, grace, KILL: those who tidy up can, and those who cannot be ended keep nobody waiting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bossworker import TIMED_OUT, BossWorker, CommandHandler, jobs, run_command
from bossworker.jobs import Status
from bossworker.system import descendants, proc
from bossworker.tasks import TaskPool
from tests.commands.privileges import make_sudo, need_root, nobodys_folder, python_as_nobody, unshare
from tests.commands.supervised import escaping
from tests.conftest import alive, wait_for

pytestmark = pytest.mark.usefixtures("root")

TIDIES = """trap 'sleep 0.1; sh -c "sleep 0.1 && touch $0"; exit 0' TERM
touch $0.up
while :; do sleep 0.05; done"""
"""Tidies up by programs that are born after TERM was sent, as ``docker rm`` or ``rsync`` in a trap are."""


def tidying(mark: Path) -> list[str]:
    return ["sh", "-c", TIDIES, str(mark)]


def by_its_own_timeout(mark: Path) -> None:
    run_command({"cmd": tidying(mark), "timeout": 0.3})


def by_the_pools_timeout(mark: Path) -> None:
    with BossWorker(CommandHandler(), worker_count=1, global_timeout=0.3, kill_grace=10) as pool:
        pool.add_work({"cmd": tidying(mark)})
        assert next(pool.results()).error == TIMED_OUT


def by_a_cancel(mark: Path) -> None:
    with BossWorker(CommandHandler(), worker_count=1, kill_grace=10) as pool:
        ids = pool.add_work({"cmd": tidying(mark)})
        wait_for(mark.with_suffix(".up").exists)
        pool.cancel(*ids)
        assert next(pool.results()).error_kind == "cancelled"


def by_a_jobs_timeout(mark: Path) -> None:
    jobs.wait(jobs.start(tidying(mark), timeout=0.3), 20)


def by_a_tasks_end(mark: Path) -> None:
    task = TaskPool(mark.parent / "tasks", mkdir_if_missing=True).spawn(tidying(mark))
    wait_for(mark.with_suffix(".up").exists)
    task.terminate_supervisor()
    task.delete()


ENDS = [by_its_own_timeout, by_the_pools_timeout, by_a_cancel, by_a_jobs_timeout, by_a_tasks_end]


@pytest.mark.parametrize("end", ENDS)
def test_what_is_started_in_the_grace_to_tidy_up_is_left_alone(tmp_path: Path, end: Callable[[Path], None]) -> None:
    end(tmp_path / "tidied")
    assert (tmp_path / "tidied").exists()


def test_what_is_born_in_the_grace_is_killed_after_it(tmp_path: Path) -> None:
    late = f"trap 'sleep 60 & echo $! > {tmp_path}/late; wait' TERM; while :; do sleep 0.05; done"
    result = run_command({"cmd": ["sh", "-c", late], "timeout": 0.3})
    assert result["signal"] == 9
    assert not alive(int((tmp_path / "late").read_text()))


def test_term_is_sent_once_and_kill_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, tuple[int, ...]]] = []

    def send(number: int, pids: list[int]) -> list[int]:
        sent.append((int(number), tuple(pids)))
        return []

    monkeypatch.setattr(descendants, "send", send)
    family = [[1, 2], [1, 2, 3], [1, 3, 4], []]
    ending = descendants.Ending(1000.0, members=lambda: family[0])
    for _ in range(2):
        assert ending.step()
        family.pop(0)
    ending.hurry(0.0)
    assert ending.step()
    family.pop(0)
    assert ending.step() is None
    assert sent == [(15, (1, 2)), (18, (1, 2)), (9, (1, 3, 4))]


# -- who cannot be ended ----------------------------------------------------------------------------------------

ROOT_COMMAND = """
import json, sys
from bossworker import BossWorker, jobs, run_command
with BossWorker(run_command, worker_count=1) as pool:
    pool.add_work({"cmd": [*sys.argv[1:], "sleep", "60"], "timeout": 0.3})
    result = pool.get_result()
    pool.add_work({"cmd": ["true"]})
    assert pool.get_result().ok
    job = result["jobid"]
    print(json.dumps([result, result.error_kind, jobs.status(job), jobs.details(job)[0], jobs.info(job).pid]))
"""


@pytest.fixture
def doomed() -> Iterator[list[int]]:
    """Pids that the test ends, as root."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        os.kill(pid, 9)
        wait_for(lambda: not alive(pid))  # noqa: B023


def test_a_command_with_other_rights_keeps_nobody_waiting(tmp_path: Path, root: Path, doomed: list[int]) -> None:
    sudo = make_sudo(tmp_path / "sudo")
    own = nobodys_folder(tmp_path / "nobodys")
    result, kind, status, reason, pid = json.loads(
        python_as_nobody(ROOT_COMMAND, *sudo, BOSSWORKER_ROOT=str(own), TMPDIR=str(own))
    )
    doomed.append(pid)
    assert alive(pid)
    lives_on = f"process {pid} cannot be ended: Operation not permitted"
    assert (result["ERROR"], kind) == (f"{TIMED_OUT}; {lives_on}", "timeout")
    assert (result["status"], result["exit_code"]) == ("running", None)
    assert (status, reason) == ("running", f"timed out after 0.3 seconds; {lives_on}")


ROOT_JOB = """
import json, sys
from bossworker import jobs
job = jobs.start([*sys.argv[1:], "sleep", "60"], timeout=0.3)
while "cannot" not in jobs.details(job)[0]:
    pass
print(json.dumps([job, jobs.status(job), jobs.details(job)[0], jobs.info(job).pid]))
"""


def test_a_job_with_other_rights_is_told_to_live_on(tmp_path: Path, doomed: list[int]) -> None:
    sudo = make_sudo(tmp_path / "sudo")
    own = nobodys_folder(tmp_path / "nobodys")
    told = python_as_nobody(ROOT_JOB, *sudo, BOSSWORKER_ROOT=str(own), TMPDIR=str(own))
    job, status, reason, pid = json.loads(told)
    doomed.append(pid)
    why = f"timed out after 0.3 seconds; process {pid} cannot be ended: Operation not permitted"
    assert (status, reason) == ("running", why)
    os.kill(doomed.pop(), 9)
    code = "import sys; from bossworker import jobs; print(jobs.wait(sys.argv[1]), jobs.info(sys.argv[1]).signal)"
    assert python_as_nobody(code, job, BOSSWORKER_ROOT=str(own)) == "terminated by request 9\n"


@pytest.fixture
def freezer() -> Iterator[Path]:
    """A control group whose processes can be frozen, so that not even KILL ends them."""
    need_root()
    group = Path(f"/sys/fs/cgroup/freezer/bossworker-test-{os.getpid()}")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no freezer: {error}")
    yield group
    (group / "freezer.state").write_text("THAWED")
    wait_for(lambda: not any(map(alive, map(int, (group / "cgroup.procs").read_text().split()))))
    wait_for(lambda: removed(group))


def removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False
    return True


def test_a_frozen_command_keeps_nobody_waiting(pool: Callable[..., BossWorker], freezer: Path) -> None:
    freeze = f"echo $$ > {freezer}/cgroup.procs; echo FROZEN > {freezer}/freezer.state; sleep 60"
    commands = pool(run_command, worker_count=1)
    begin = time.monotonic()
    commands.add_work({"cmd": ["sh", "-c", freeze], "timeout": 0.3})
    result = next(commands.results())
    assert time.monotonic() - begin < 30
    assert str(result.error).startswith(f"{TIMED_OUT}; process ")
    assert str(result.error).endswith("cannot be ended: it does not answer to SIGKILL")
    (job,) = jobs.listing()
    assert jobs.status(job) is Status.RUNNING
    (freezer / "freezer.state").write_text("THAWED")
    assert jobs.wait(job, 20) is Status.TERMINATED_BY_REQUEST
    assert "cannot be ended" in jobs.details(job)[0]


def test_a_command_ends_with_all_it_started_where_the_kernel_lists_no_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proc, "CHILDREN", "no-such-file")
    monkeypatch.setattr(proc, "_way_of", 0)
    try:
        escapes = escaping(f"open('{tmp_path}/pid', 'w').write(str(os.getpid())); time.sleep(60)")
        result = run_command({"cmd": ["sh", "-c", '"$@"; sleep 60', "sh", *escapes], "timeout": 1})
        assert result["ERROR"] == TIMED_OUT
        assert not alive(int((tmp_path / "pid").read_text()))
    finally:
        proc._way_of = 0


# -- where processes cannot be listed ---------------------------------------------------------------------------

WITHOUT_PROC = """
import os
from bossworker import BossWorker, run_command
with BossWorker(run_command, worker_count=1, kill_grace=5) as pool:
    for limits in ({"timeout": 0.3}, {}):
        pool.add_work({"cmd": ["sh", "-c", "echo $$; sleep 60 & sleep 60"], **limits}, timeout=None if limits else 0.3)
        result = pool.get_result()
        print(result.error, result["stdout"].strip(), flush=True)
"""


def test_without_proc_the_commands_group_is_ended() -> None:
    argv = [*unshare("--mount", setup="mount -t tmpfs none /proc"), sys.executable, "-c", WITHOUT_PROC]
    told = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout.splitlines()
    assert len(told) == 2
    for line in told:
        text, _, pid = line.rpartition(" ")
        assert text == TIMED_OUT
        with pytest.raises(ProcessLookupError):
            os.killpg(int(pid), 0)
