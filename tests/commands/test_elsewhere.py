"""Whoever cannot see a process (another pid namespace, another host, no /proc) says so, and judges nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bossworker import jobs
from bossworker.jobs import Status
from bossworker.system import identity, proc
from tests.commands.privileges import unshare
from tests.conftest import alive, wait_for

pytestmark = pytest.mark.usefixtures("root")

LOOKS = """
import json, sys
from bossworker import jobs
from bossworker.system import identity
job = sys.argv[1]
print(json.dumps({
    "status": jobs.status(job), "details": jobs.details(job), "signal": jobs.signal(job),
    "finished": jobs.is_finished(job), "waited": jobs.wait(job, 0.1), "one": jobs.clean(job),
    "all": jobs.clean(older_than=0), "unknown": jobs.clean(status="unknown"), "left": jobs.listing() == [job],
    "out": jobs.stdout(job), "held": identity.look(json.loads(sys.argv[2])),
}))
"""


@pytest.fixture
def running(root: Path) -> str:
    """A job that runs, and is ended by the test."""
    jobid = jobs.start(["sh", "-c", "echo here; exec sleep 60"])
    wait_for(lambda: jobs.stdout(jobid) == "here\n")
    return jobid


def boot_id_of_another(tmp_path: Path) -> str:
    (tmp_path / "boot").write_text("11111111-2222-3333-4444-555555555555\n")
    return f"mount --bind {tmp_path}/boot /proc/sys/kernel/random/boot_id"


PLACES: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "container": (lambda path: unshare("--pid", "--fork", "--mount-proc"), "in another pid namespace"),
    "container with a name": (
        lambda path: unshare("--pid", "--fork", "--mount-proc", "--uts", setup="hostname another"),
        f"on host {os.uname().nodename}",
    ),
    "same boot id, other namespace's proc": (lambda path: unshare("--pid", "--fork"), "in another pid namespace"),
    "other boot id": (
        lambda path: unshare("--mount", setup=boot_id_of_another(path)),
        "under another boot id",
    ),
    "other host": (
        lambda path: unshare("--mount", "--uts", setup=f"hostname another && {boot_id_of_another(path)}"),
        f"on host {os.uname().nodename}",
    ),
    "no proc": (lambda path: unshare("--mount", setup="mount -t tmpfs none /proc"), identity.NO_PROC),
}


@pytest.mark.parametrize("place", PLACES)
def test_to_look_from_elsewhere_is_harmless(running: str, tmp_path: Path, place: str) -> None:
    make, told = PLACES[place]
    found = jobs.info(running)
    assert found is not None
    assert found.pid is not None
    argv = [*make(tmp_path), sys.executable, "-c", LOOKS, running, json.dumps(identity.of(found.pid))]
    seen = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout)
    assert seen == {
        "status": "unknown", "details": [told], "signal": False, "finished": False, "waited": "unknown", "one": 0,
        "all": 0, "unknown": 0, "left": True, "out": "here\n", "held": told,
    }  # fmt: skip
    assert alive(found.pid)
    assert jobs.status(running) is Status.RUNNING
    assert jobs.clean(running) > 0
    assert not alive(found.pid)


def test_one_elsewhere_is_waited_for_and_followed_by_its_directory(root: Path) -> None:
    jobid = jobs.start(["sh", "-c", "echo first; sleep 0.5; echo last"])
    code = "import sys; from bossworker import jobs; print(''.join(jobs.follow(sys.argv[1])), jobs.wait(sys.argv[1]))"
    argv = [*unshare("--pid", "--fork", "--mount-proc"), sys.executable, "-c", code, jobid]
    told = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    assert told == "first\nlast\n completed\n"


def test_without_proc_no_job_is_started(root: Path) -> None:
    code = """if True:
        from bossworker import jobs
        try:
            jobs.start(["true"])
        except OSError as error:
            print(error)
    """
    argv = [*unshare("--mount", setup="mount -t tmpfs none /proc"), sys.executable, "-c", code]
    told = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    assert told.endswith(f"a detached job could not be found again: {identity.NO_PROC}\n")
    assert jobs.listing() == []


def test_a_job_of_a_container_is_unknown_outside(root: Path) -> None:
    code = "from bossworker import jobs; print(jobs.start(['sleep', '60']), flush=True); input()"
    inside = unshare("--pid", "--fork", "--mount-proc", "--uts", "--kill-child", setup="hostname inside")
    argv = [*inside, sys.executable, "-c", code]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as container:
        assert container.stdout is not None
        jobid = container.stdout.readline().strip()
        assert jobs.status(jobid) is Status.UNKNOWN
        assert jobs.details(jobid) == ["on host inside"]
        assert jobs.clean(jobid) == jobs.clean(status="unknown") == 0
        assert jobs.listing() == [jobid]
        container.kill()


# -- the same machine -------------------------------------------------------------------------------------------


def test_after_a_restart_it_is_gone() -> None:
    pid, _, _, *place = identity.own()
    assert identity.look([pid, 1, "before", *place]) == identity.GONE


def test_another_machine_of_our_name_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    pid, _, _, space, host = identity.own()
    name = str(host).partition(":")[0]
    assert identity.look([pid, 1, "before", space, f"{name}:00000000"]) == f"on host {name}"


def test_an_identity_of_the_older_format_holds() -> None:
    assert identity.holds(identity.own()[:3])
    pid, started, boot = identity.own()[:3]
    assert identity.look([pid, int(started) + 1, boot]) == identity.GONE


LEADER_LEAVES = """
import ctypes, sys, threading, time
def work():
    while True:
        print("on", flush=True)
        time.sleep(0.05)
threading.Thread(target=work).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_whose_leader_has_left_its_threads_lives() -> None:
    jobid = jobs.start([sys.executable, "-c", LEADER_LEAVES])
    wait_for(lambda: jobs.stdout(jobid))
    found = jobs.info(jobid)
    assert found is not None
    assert found.pid is not None
    wait_for(lambda: not alive(found.pid or 0), what="the leader to be shown as a zombie")
    assert identity.start_time(found.pid) is not None
    assert found.supervisor_pid is not None
    os.kill(found.supervisor_pid, 9)
    wait_for(lambda: not alive(found.supervisor_pid or 0))
    assert jobs.status(jobid) is Status.RUNNING
    assert jobs.signal(jobid) is True
    assert jobs.wait(jobid, 20) is Status.TERMINATED_BY_REQUEST
    assert jobs.clean(jobid) > 0


# -- children ---------------------------------------------------------------------------------------------------


def test_where_the_kernel_lists_no_children_they_are_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        listed = proc.children(os.getpid())
        assert child.pid in listed
        monkeypatch.setattr(proc, "CHILDREN", "no-such-file")
        monkeypatch.setattr(proc, "_way_of", 0)
        assert sorted(proc.children(os.getpid())) == sorted(listed)
        child.kill()
    proc._way_of = 0
