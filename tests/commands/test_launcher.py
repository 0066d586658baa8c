"""The launcher: with whose rights it starts what, and what is told when it cannot be started."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bossworker import jobs, run_command
from bossworker.commands.supervision import interpreter, launcher, launching, orders
from bossworker.jobs import Status
from bossworker.system.circumstances import inherited
from tests.commands.privileges import NOBODY, need_root, nobodys_folder, unshare
from tests.conftest import alive, wait_for

pytestmark = pytest.mark.usefixtures("root")


def output(command: str) -> str:
    jobid = jobs.start(command, shell=True)
    jobs.wait(jobid, 20)
    return jobs.stdout(jobid).strip()


# -- rights and limits ------------------------------------------------------------------------------------------

DROPS_RIGHTS = """
import os, sys
from bossworker import jobs
from bossworker.tasks import TaskPool
first, second, tasks, python = sys.argv[1:]
jobs.wait(jobs.start(["true"], root=first), root=first)
TaskPool(tasks + "/0", mkdir_if_missing=True).spawn(["true"]).delete()
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
job = jobs.start(["id", "-un"], root=second)
jobs.wait(job, root=second)
task = TaskPool(tasks + "/1", mkdir_if_missing=True).spawn(["id", "-un"])
task.wait()
print(jobs.stdout(job, root=second).strip(), task.stream("stdout").read().decode().strip())
task.delete()
"""


def nobodys_python() -> str:
    """A Python that anybody may run, with this package."""
    need_root()
    package = str(Path(launching.__file__).parents[3])
    for python in (sys.executable, "/usr/bin/python3"):
        test = f"import sys; sys.path.append({package!r}); import bossworker.tasks; assert sys.version_info >= (3, 11)"
        with suppress(PermissionError):
            if subprocess.run([python, "-c", test], user=NOBODY, group=NOBODY, cwd="/", check=False).returncode == 0:
                return python
    pytest.skip("there is no Python that nobody may run")


def test_who_drops_its_rights_starts_nothing_with_them(tmp_path: Path) -> None:
    python = nobodys_python()
    folders = [str(tmp_path / "roots"), *(str(nobodys_folder(tmp_path / name)) for name in ("nobodys", "tasks"))]
    environment = {**os.environ, "BOSSWORKER_PYTHON": python}
    argv = [sys.executable, "-c", DROPS_RIGHTS, *folders, python]
    told = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout == "nobody nobody\n"


@contextmanager
def limited(kind: int, value: int) -> Iterator[None]:
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def test_a_limit_holds_from_the_next_job_on() -> None:
    assert output("ulimit -n") != "77"
    with limited(resource.RLIMIT_NOFILE, 77):
        assert output("ulimit -n") == "77"
    assert output("ulimit -n") != "77"
    with limited(resource.RLIMIT_CORE, 0):
        assert output("ulimit -c") == "0"


def test_processors_are_those_of_the_caller() -> None:
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        pytest.skip("needs two processors")
    whose = "grep Cpus_allowed_list /proc/self/status | cut -f2"
    for cpu in sorted(before)[:2]:
        os.sched_setaffinity(0, {cpu})
        try:
            assert output(whose) == str(cpu)
        finally:
            os.sched_setaffinity(0, before)


def in_a_child(code: str) -> str:
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return told.stdout


def test_nice_is_that_of_the_caller() -> None:
    code = "import os; from bossworker import jobs; jobs.start(['true']); os.nice(7); j = jobs.start(['nice']); "
    assert in_a_child(code + "jobs.wait(j); print(jobs.stdout(j))").strip() == str(min(os.nice(0) + 7, 19))


def test_namespaces_and_root_are_those_of_the_caller() -> None:
    unshare("--uts")
    code = """if True:
        import ctypes, os, socket
        from bossworker import jobs
        def name():
            job = jobs.start(["uname", "-n"])
            jobs.wait(job)
            return jobs.stdout(job).strip()
        before = name()
        assert ctypes.CDLL(None).unshare(0x04000000) == 0  # CLONE_NEWUTS
        socket.sethostname("inside")
        print(before == os.uname().nodename, name())
    """
    assert in_a_child(code) == "False inside\n"


def test_the_same_circumstances_keep_the_launcher() -> None:
    jobs.wait(jobs.start(["true"]))
    sock = launching._launcher._sock
    jobs.wait(jobs.start(["true"]))
    assert launching._launcher._sock is sock is not None
    assert inherited() == inherited()


# -- which Python -----------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_launcher_yet() -> None:
    launching.close_launcher()


def program(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("#!/bin/sh\necho once >> {log}\necho I am no Python >&2; exit 3", "it ended with exit code 3.*I am no Python"),
        ("#!/bin/sh\necho once >> {log}\n", "it ended at once"),
        ("#!/bin/sh\necho once >> {log}\nexec sleep 60", "it did not answer within 0.5 seconds"),
        ("no program", "cannot run"),
    ],
)
def test_what_is_no_python_is_tried_once_and_named(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    log = tmp_path / "log"
    app = program(tmp_path / "app", script.format(log=log))
    monkeypatch.setattr(sys, "executable", app)
    monkeypatch.setattr(interpreter, "HELLO_SECONDS", 0.5)
    with pytest.raises(OSError, match=rf"(?s){why}") as caught:
        jobs.start(["true"])
    assert app in str(caught.value)
    assert "set BOSSWORKER_PYTHON to a Python program" in str(caught.value)
    assert not log.exists() or log.read_text() == "once\n"
    assert os.listdir(root) == []
    assert jobs.listing() == []


def test_another_python_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = sys.executable
    monkeypatch.setattr(sys, "executable", program(tmp_path / "app", "#!/bin/sh\nexec sleep 60"))
    monkeypatch.setenv("BOSSWORKER_PYTHON", python)
    assert jobs.wait(jobs.start(["true"]), 20) is Status.COMPLETED


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_program_is_not_started_again(monkeypatch: pytest.MonkeyPatch, frozen: bool) -> None:
    if frozen:
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    else:
        monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(OSError, match=r"sys\.executable.*set BOSSWORKER_PYTHON"):
        jobs.start(["true"])


def test_a_python_that_needs_its_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one in an AppImage, which is told by PYTHONHOME where its library is. Other variables change nothing."""
    script = f"""#!/bin/sh
    env | grep ^PYTHON | cut -d= -f1 > {tmp_path}/variables
    [ "$PYTHONHOME" = {sys.base_prefix} ] || exit 1
    exec {sys.executable} "$@"
    """
    monkeypatch.setattr(sys, "executable", program(tmp_path / "app", script))
    monkeypatch.setenv("PYTHONHOME", sys.base_prefix)
    monkeypatch.setenv("PYTHONINSPECT", "1")
    assert jobs.wait(jobs.start(["true"]), 20) is Status.COMPLETED
    assert (tmp_path / "variables").read_text() == "PYTHONHOME\n"


def test_an_import_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the package is replaced under a running program."""
    monkeypatch.setattr(interpreter, "_PACKAGE_FOLDER", str(tmp_path))
    monkeypatch.setenv("FORCE_COLOR", "1")
    with pytest.raises(OSError, match=r"(?s)the launcher, run by .* failed: .*ModuleNotFoundError: .*bossworker"):
        jobs.start(["true"])
    assert jobs.listing() == []


def test_a_launcher_of_another_version_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(Path(orders.__file__).parents[2], tmp_path / "bossworker")
    file = tmp_path / "bossworker" / "commands" / "supervision" / "orders.py"
    file.write_text(file.read_text().replace(f"VERSION = {orders.VERSION}", "VERSION = 999"))
    monkeypatch.setattr(interpreter, "_PACKAGE_FOLDER", str(tmp_path))
    with pytest.raises(OSError, match=f"version 999, this program {orders.VERSION}: .*restart the program"):
        jobs.start(["true"])


def test_a_launcher_killed_while_it_starts_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once by a signal to Python as it starts, once later: it says that it is Python, and is gone."""
    greeting = "".join(f"\\{one:03o}" for one in orders.GREETING)
    script = f"""#!/bin/sh
    echo x >> {tmp_path}/log
    case $(wc -l < {tmp_path}/log) in
        1) kill -9 $$ ;;
        2) printf '{greeting}' >&2 ;;
        *) exec {sys.executable} "$@" ;;
    esac
    """
    monkeypatch.setattr(sys, "executable", program(tmp_path / "app", script))
    jobid = jobs.start(["true"])
    assert jobs.wait(jobid, 20) is Status.COMPLETED
    assert (tmp_path / "log").read_text() == "x\n" * 3
    files = jobs.working_dir(jobid)
    assert files is not None
    noted = (Path(files).parent / "supervisor.log").read_text().splitlines()
    # The first one was started before there was a job to note it of.
    assert [line.partition(" ")[2] for line in noted] == ["WARNING launcher killed: attempt=1 of=5"]


def test_no_job_is_there_before_there_is_a_launcher(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To start one takes long: whoever is killed meanwhile leaves no job that nobody starts."""
    script = f"""#!/bin/sh
    ls -A {root} > {tmp_path}/there
    exec {sys.executable} "$@"
    """
    monkeypatch.setattr(sys, "executable", program(tmp_path / "app", script))
    assert jobs.wait(jobs.start(["true"]), 20) is Status.COMPLETED
    assert (tmp_path / "there").read_text() == ""


# -- signal handlers --------------------------------------------------------------------------------------------


def test_a_signal_handler_may_start_jobs_while_the_program_does() -> None:
    started: list[str] = []
    before = signal.signal(signal.SIGALRM, lambda *_: started.append(jobs.start(["true"])))
    try:
        for number in range(40):
            signal.setitimer(signal.ITIMER_REAL, 0.0002 + number % 10 * 0.0003)
            started.append(jobs.start(["true"]))
            wait_for(lambda: signal.getitimer(signal.ITIMER_REAL)[0] == 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(started) == 80
    assert {jobs.wait(one, 20) for one in started} == {Status.COMPLETED}


def test_a_signal_handler_that_comes_amid_an_order_has_a_launcher_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the very middle: half of the order has been sent."""
    send, inner = launching._send, []

    def interrupted(*arguments: object) -> None:
        monkeypatch.setattr(launching, "_send", send)
        inner.append(jobs.start(["echo", "inner"]))
        send(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(launching, "_send", interrupted)
    outer = jobs.start(["echo", "outer"])
    for jobid, text in ((outer, "outer\n"), (inner[0], "inner\n")):
        assert jobs.wait(jobid, 20) is Status.COMPLETED
        assert jobs.stdout(jobid) == text


def test_a_signal_handler_may_run_commands_while_the_program_does() -> None:
    results: list[object] = []
    main = threading.get_ident()
    before = signal.signal(signal.SIGALRM, lambda *_: results.append(run_command({"cmd": ["true"]})["exit_code"]))
    try:
        for number in range(60):
            timer = threading.Timer(0.0002 * (number % 12), signal.pthread_kill, (main, signal.SIGALRM))
            timer.start()
            results.append(run_command({"cmd": ["true"]})["exit_code"])
            timer.join()
        wait_for(lambda: len(results) == 120)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert set(results) == {0}


# -- signals to all processes of a service ----------------------------------------------------------------------


@pytest.mark.parametrize("number", launcher.OUTLIVED)
def test_a_supervisor_outlives_what_is_sent_to_all(number: int) -> None:
    name = signal.Signals(number).name
    script = f"trap 'sleep 0.1; exit 7' {name.removeprefix('SIG')}; echo up; while :; do sleep 0.05; done"
    jobid = jobs.start(["bash" if shutil.which("bash") else "sh", "-c", script])
    wait_for(lambda: jobs.stdout(jobid))
    found = jobs.info(jobid)
    assert found is not None
    assert found.pid is not None
    assert found.supervisor_pid is not None
    for pid in (found.supervisor_pid, found.pid):
        os.kill(pid, number)
    assert jobs.wait(jobid, 20) is Status.TERMINATED_BY_ERROR
    assert "exit code 7" in jobs.details(jobid)
    wait_for(lambda: not alive(found.supervisor_pid or 0))


def test_a_program_that_closed_its_streams_can_start_jobs() -> None:
    code = """if True:
        import os, sys
        out = os.dup(1)
        os.closerange(0, 3)
        from bossworker import jobs
        job = jobs.start(["echo", "hello"])
        jobs.wait(job)
        os.write(out, jobs.stdout(job).encode())
    """
    assert in_a_child(code) == "hello\n"


def test_time_for_an_answer_is_not_spent_when_it_comes() -> None:
    begin = time.monotonic()
    jobs.wait(jobs.start(["true"]))
    assert time.monotonic() - begin < interpreter.HELLO_SECONDS
