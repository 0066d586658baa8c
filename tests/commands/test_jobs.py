"""Detached jobs: started here, and asked about by id."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bossworker import CommandHandler, jobs
from bossworker.commands import jobdir, record
from bossworker.commands.supervision import launching, orders
from bossworker.jobs import Status
from bossworker.system import identity, processes
from tests.commands.disk import fill
from tests.commands.supervised import escaping
from tests.conftest import alive, wait_for

pytestmark = pytest.mark.usefixtures("root")


def supervisor(jobid: str) -> int:
    pid = info(jobid).supervisor_pid
    assert pid is not None
    return pid


def info(jobid: str) -> jobs.Info:
    found = jobs.info(jobid)
    assert found is not None
    return found


def pid_of(jobid: str) -> int:
    pid = info(jobid).pid
    assert pid is not None
    return pid


# -- from start to end ----------------------------------------------------------------------------------


def test_a_job_from_start_to_end(root: Path) -> None:
    jobid = jobs.start(["sh", "-c", "echo out; echo err >&2; mkdir -p a/b; echo c > a/b/c; touch d; sleep 0.2"])
    assert jobs.status(jobid) is Status.RUNNING
    assert not jobs.is_finished(jobid)
    assert jobs.details(jobid)[0].startswith("started at ")
    assert jobs.wait(jobid) is Status.COMPLETED
    assert jobs.is_finished(jobid)
    assert (jobs.stdout(jobid), jobs.stderr(jobid, text=False)) == ("out\n", b"err\n")
    assert jobs.result_list(jobid) == ["a/b/c", "d"]
    assert (jobs.result(jobid, "a/b/c"), jobs.result(jobid, "d", text=False)) == ("c\n", b"")
    code, ended, elapsed = jobs.details(jobid)
    assert (code, elapsed) == ("exit code 0", "elapsed time 0 seconds")
    assert ended.startswith("completed at ")
    assert jobs.working_dir(jobid) == f"{root}/{jobid}/files"
    assert jobs.listing() == [jobid]
    assert jobs.clean(jobid) == 6
    assert jobs.status(jobid) is Status.UNKNOWN
    assert jobs.listing() == []


def test_info(root: Path) -> None:
    before = time.time()
    jobid = jobs.start(["sh", "-c", "exit 5"], meta={"a": [1]}, timeout=30, env={"X": "1"}, stdin="abc")
    assert jobs.wait(jobid) is Status.TERMINATED_BY_ERROR
    told = info(jobid)
    assert (told.jobid, told.status, told.args) == (jobid, "terminated by error", ["sh", "-c", "exit 5"])
    assert (told.exit_code, told.signal, told.core_dumped) == (5, None, False)
    assert (told.meta, told.timeout, told.env, told.stdin) == ({"a": [1]}, 30.0, {"X": "1"}, "3 bytes")
    assert (told.shell, told.cwd, told.directory) == (False, None, f"{root}/{jobid}")
    assert told.created_at is not None
    assert told.started_at is not None
    assert told.ended_at is not None
    assert before - 1 < told.created_at <= told.started_at <= told.ended_at < time.time() + 1
    assert told.max_rss is not None
    assert told.max_rss > 100_000
    with pytest.raises(AttributeError):
        told.status = Status.COMPLETED  # type: ignore[misc]
    mapping, path = jobs.get_configuration(jobid)
    assert (mapping["argv"], mapping["exit_code"], path) == (told.args, 5, f"{root}/{jobid}/status.json")


def test_all_is_private_to_the_user(root: Path) -> None:
    before = os.umask(0)
    try:
        jobid = jobs.start(["sh", "-c", "umask; touch file"])
    finally:
        os.umask(before)
    jobs.wait(jobid)
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert {stat.S_IMODE((root / jobid / one).stat().st_mode) for one in ("", "files")} == {0o700}
    files = ("job.json", "status.json", "stdout", "stderr")
    assert {stat.S_IMODE((root / jobid / one).stat().st_mode) for one in files} == {0o600}
    assert jobs.stdout(jobid) == "0000\n"  # the command has the umask of its starter


@pytest.mark.parametrize(("program", "code"), [("no-such-program", 127), ("/etc/passwd", 126), ("/", 126)])
def test_a_program_that_cannot_run_is_a_job_that_ended(program: str, code: int) -> None:
    jobid = jobs.start([program])
    assert jobs.wait(jobid) is Status.TERMINATED_BY_ERROR
    assert info(jobid).exit_code == code
    assert f"exit code {code}" in jobs.details(jobid)
    assert jobs.stderr(jobid).startswith(f"cannot run {program!r}: ")


def test_shell_stdin_env_cwd(tmp_path: Path) -> None:
    jobid = jobs.start("echo one two three | wc -w", shell=True)
    jobs.wait(jobid)
    assert jobs.stdout(jobid).strip() == "3"
    (tmp_path / "input").write_text("from a file")
    data = os.urandom(1 << 20) * 20
    wants: list[tuple[str, str | bytes]] = [
        (jobs.start(["cat"], stdin=data), data),
        (jobs.start(["cat"], stdin="größe"), "größe".encode()),
        (jobs.start(["cat"], stdin=tmp_path / "input"), b"from a file"),
        (jobs.start(["cat"]), b""),
        (
            jobs.start(["sh", "-c", "echo $A${HOME}; pwd"], env={"A": "1", "HOME": None}, cwd=tmp_path),
            f"1\n{tmp_path}\n",
        ),
    ]
    for jobid, wanted in wants:
        assert jobs.wait(jobid, 20) is Status.COMPLETED
        assert jobs.stdout(jobid, text=False) == (wanted if isinstance(wanted, bytes) else wanted.encode())


def test_the_environment_is_that_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("first", "second"):
        monkeypatch.setenv("LATER", value)
        jobid = jobs.start(["sh", "-c", "echo $LATER"])
        jobs.wait(jobid)
        assert jobs.stdout(jobid) == f"{value}\n"


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"args": "date -u"}, ValueError, "args must be a list of str: 'date -u' is one str, which needs shell=True"),
        ({"args": []}, ValueError, "args must name a program, and is empty"),
        ({"args": ["a", 1]}, TypeError, r"args\[1\] must be a str or path-like, not 1"),
        ({"args": ["a\0"]}, ValueError, "NUL"),
        ({"args": ["a"], "timeout": -1}, ValueError, "timeout must be between"),
        ({"args": ["a"], "cwd": "/nowhere"}, ValueError, "cwd must be a folder that exists"),
        (
            {"args": ["a"], "meta": {"x": b"y"}},
            TypeError,
            r"meta\['x'\] must be what JSON can hold, not b'y' \(bytes\)",
        ),
        ({"args": ["a"], "meta": {1: 2}}, TypeError, r"meta: a key must be a str, not 1 \(int\)"),
        ({"args": ["a"], "root": 4}, TypeError, "root must be a path or None, not 4"),
        ({"args": ["a"], "root": b"/tmp"}, TypeError, "root must be a path or None, not b'/tmp'"),
        ({"args": ["a"], "root": ""}, ValueError, "root must be the path of a folder, not ''"),
        ({"args": ["a"], "root": "a\0"}, ValueError, "root must be the path of a folder, not"),
        (
            {"args": ["a"], "root": "/etc/passwd"},
            NotADirectoryError,
            "root cannot be made: Not a directory: '/etc/passwd'",
        ),
        ({"args": ["a"], "root": "/etc/passwd/x/y"}, OSError, "root cannot be made: .*: '/etc/passwd/x/y'"),
        ({"args": None}, ValueError, "args is missing"),
    ],
)
def test_bad_input(root: Path, settings: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        jobs.start(**settings)
    assert not root.exists()


def test_timeout_ends_the_whole_tree(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    grandchild = escaping(f"open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    jobid = jobs.start(["sh", "-c", '"$@" & sleep 60', "sh", *grandchild], timeout=1)
    wait_for(lambda: mark.exists() and mark.read_text())
    assert jobs.wait(jobid, 20) is Status.TERMINATED_BY_REQUEST
    assert jobs.details(jobid)[:2] == ["timed out after 1 seconds", "terminated by signal 15"]
    assert not alive(int(mark.read_text()))


# -- signals --------------------------------------------------------------------------------------------


def test_kill_ends_the_whole_tree(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    grandchild = escaping(f"open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    jobid = jobs.start(["sh", "-c", '"$@" & sleep 60', "sh", *grandchild])
    wait_for(lambda: mark.exists() and mark.read_text())
    assert jobs.signal(jobid) is True
    assert jobs.wait(jobid, 20) is Status.TERMINATED_BY_REQUEST
    assert jobs.details(jobid)[:2] == ["terminated by signal 9", "without coredump"]
    assert jobs.details(jobid)[2].startswith("terminated at ")
    assert not alive(int(mark.read_text()))
    assert jobs.signal(jobid) is False


def test_term_goes_to_the_group_and_usr1_to_the_command() -> None:
    script = "trap 'echo usr1' USR1; (trap 'echo child' USR1; while :; do sleep 0.01; done) & echo up; "
    script += "while :; do wait; done"
    jobid = jobs.start(["sh", "-c", script])
    wait_for(lambda: "up" in jobs.stdout(jobid))
    assert jobs.signal(jobid, "USR1")
    wait_for(lambda: "usr1" in jobs.stdout(jobid))
    assert jobs.status(jobid) is Status.RUNNING
    assert jobs.signal(jobid, signal.SIGTERM)
    assert jobs.wait(jobid, 20) is Status.TERMINATED_BY_REQUEST
    assert "child" not in jobs.stdout(jobid)
    assert info(jobid).signal == signal.SIGTERM


def test_one_that_tidies_up_when_asked_to_end() -> None:
    for code, status in ((143, Status.TERMINATED_BY_REQUEST), (0, Status.COMPLETED)):
        jobid = jobs.start(["sh", "-c", f"trap 'echo bye; exit {code}' TERM; echo up; while :; do sleep 0.01; done"])
        wait_for(lambda: jobs.stdout(jobid))  # noqa: B023
        assert jobs.signal(jobid, "sigterm")
        assert jobs.wait(jobid, 20) is status
        assert jobs.stdout(jobid) == "up\nbye\n"


def test_a_signal_that_comes_too_late_has_not_ended_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As if it had ended by itself between the look at it and the signal."""
    monkeypatch.setattr(identity, "send", lambda *_, **__: False)
    script = f"until test -e {tmp_path}/go; do sleep 0.01; done; exit 3"
    first, second = jobs.start(["sh", "-c", script]), jobs.start(["sh", "-c", script])
    folder = record.open_job(second)
    assert folder is not None
    jobdir.request_signal(folder, signal.SIGTERM)  # somebody else, whose signal may have been sent
    os.close(folder)
    assert not jobs.signal(first, "TERM")
    assert not jobs.signal(second, "TERM")
    (tmp_path / "go").touch()
    assert jobs.wait(first, 20) is Status.TERMINATED_BY_ERROR
    assert jobs.wait(second, 20) is Status.TERMINATED_BY_REQUEST


@pytest.mark.parametrize(
    ("number", "error"), [(0, ValueError), (65, ValueError), (-9, ValueError), ("NO", ValueError), (9.0, TypeError),
                          (True, TypeError), (None, TypeError)],
)  # fmt: skip
def test_bad_signals(number: Any, error: type[Exception]) -> None:
    jobid = jobs.start(["sleep", "60"])
    with pytest.raises(error, match="signal must be"):
        jobs.signal(jobid, number)
    assert jobs.status(jobid) is Status.RUNNING
    jobs.clean(jobid)


def test_bad_signals_are_told_before_the_id_is_looked_at() -> None:
    with pytest.raises(ValueError, match="signal must be"):
        jobs.signal("nonsense", 0)


# -- waiting and following ------------------------------------------------------------------------------


def test_wait_with_a_timeout() -> None:
    jobid = jobs.start(["sleep", "60"])
    assert jobs.wait(jobid, 0.05) is Status.RUNNING
    assert jobs.wait(jobid, 0) is Status.RUNNING
    jobs.signal(jobid)
    assert jobs.wait(jobid, 20) is Status.TERMINATED_BY_REQUEST
    assert jobs.wait("nonsense") is Status.UNKNOWN
    with pytest.raises(ValueError, match="timeout must be"):
        jobs.wait(jobid, -1)


def test_follow_gives_all_as_it_comes_and_cuts_no_character() -> None:
    script = r"printf 'a\303'; sleep 0.2; printf '\266b\n'; sleep 0.2; printf 'end\377'"
    jobid = jobs.start(["sh", "-c", script])
    parts = list(jobs.follow(jobid))
    assert "".join(parts) == "aöb\nend�"
    assert len(parts) >= 2
    assert b"".join(jobs.follow(jobid, text=False)) == b"a\xc3\xb6b\nend\xff"
    assert list(jobs.follow(jobid, stream="stderr")) == []
    assert list(jobs.follow("nonsense")) == []
    with pytest.raises(ValueError, match="stream must be 'stdout' or 'stderr', not 'x'"):
        jobs.follow(jobid, stream="x")


def test_a_stream_is_read_as_it_stands(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who writes faster than we read does not keep us reading."""
    jobid = jobs.start(["true"])
    jobs.wait(jobid)
    stdout, read = root / jobid / "stdout", os.read

    def read_and_write(fd: int, count: int) -> bytes:
        with suppress(OSError), stdout.open("ab") as file:
            file.write(b"y" * 70_000) if stdout.stat().st_size < 10_000_000 else None
        return read(fd, count)

    stdout.write_bytes(b"x" * 100_000)
    monkeypatch.setattr(os, "read", read_and_write)
    assert jobs.stdout(jobid, text=False) == b"x" * 100_000


def test_follow_of_much() -> None:
    jobid = jobs.start(["sh", "-c", "seq 200000; sleep 0.1; seq 200000"])
    assert "".join(jobs.follow(jobid)) == 2 * "".join(f"{n}\n" for n in range(1, 200001))


# -- whoever dies ---------------------------------------------------------------------------------------


def test_the_supervisor_is_killed() -> None:
    jobid = jobs.start(["sleep", "60"])
    os.kill(supervisor(jobid), signal.SIGKILL)
    wait_for(lambda: not alive(supervisor(jobid)))
    assert jobs.status(jobid) is Status.RUNNING  # for so it is
    assert jobs.details(jobid)[0] == "its supervisor is gone: its exit status will not be known"
    assert jobs.signal(jobid) is True
    assert jobs.wait(jobid, 20) is Status.TERMINATED_BY_REQUEST
    assert jobs.details(jobid) == ["its supervisor is gone: its exit status is not known"]
    assert info(jobid).exit_code is None


def test_kill_ends_the_tree_of_one_without_a_supervisor(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    child = f"import os, time; os.setsid(); open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    jobid = jobs.start(["sh", "-c", '"$@" & sleep 60', "sh", sys.executable, "-c", child])
    wait_for(lambda: mark.exists() and mark.read_text())
    os.kill(supervisor(jobid), signal.SIGKILL)
    wait_for(lambda: not alive(supervisor(jobid)))
    assert jobs.signal(jobid)
    wait_for(lambda: not alive(int(mark.read_text())))


@pytest.mark.parametrize("how", ["exits", "killed"])
def test_it_goes_on_when_the_caller_ends(how: str) -> None:
    program = "import time; from bossworker import jobs; job = jobs.start(['sh', '-c', 'sleep 0.5; echo done']); "
    program += "print(job, flush=True)"
    program += "; time.sleep(60)" if how == "killed" else ""
    caller = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    jobid = caller.stdout.readline().strip()
    if how == "killed":
        caller.kill()
    assert caller.stdout.read() == ""  # nobody holds its descriptors
    caller.stdout.close()
    caller.wait()
    assert jobs.wait(jobid, 20) is Status.COMPLETED
    assert jobs.stdout(jobid) == "done\n"


@pytest.mark.parametrize("delay", [0, 0.003, 0.01, 0.02, 0.03, 0.05])
def test_a_caller_killed_at_any_moment_leaves_no_lie(root: Path, delay: float) -> None:
    program = "from bossworker import jobs; print(flush=True)\nwhile True: jobs.start(['true'])"
    caller = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert caller.stdout is not None
    caller.stdout.readline()
    time.sleep(delay)
    caller.kill()
    caller.wait()
    caller.stdout.close()
    for jobid in jobs.listing():
        if jobs.status(jobid) is not Status.CREATED:  # the one whose order was not sent
            assert jobs.wait(jobid, 20) is Status.COMPLETED
    left = [one for one in jobs.listing() if jobs.status(one) is Status.CREATED]
    assert len(left) <= 1


def test_a_killed_launcher_is_replaced_and_nothing_lost() -> None:
    stop = threading.Event()
    first = jobs.start(["sleep", "0.1"])

    def kill_launchers() -> None:
        """At any moment, but not again before the next job has been started: somebody must get through some day."""
        killed_at = -1
        while not stop.wait(0.005):
            if len(ids) > killed_at and (pids := launchers()):
                killed_at = len(ids)
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)

    ids: list[str] = []
    killer = threading.Thread(target=kill_launchers)
    killer.start()
    try:
        for number in range(40):
            ids.append(jobs.start(["echo", str(number)]))
    finally:
        stop.set()
        killer.join()
    assert jobs.wait(first, 20) is Status.COMPLETED
    for number, jobid in enumerate(ids):
        assert jobs.wait(jobid, 20) is Status.COMPLETED
        assert jobs.stdout(jobid) == f"{number}\n"  # and once


def launchers() -> list[int]:
    """The launchers that live: this test's program adopts orphans, so they are its children.

    So are the supervisors of one that was killed, which were forked from it and are called as it was; but the socket
    for orders is the first thing that they close.
    """
    found = []
    for pid in processes.children(os.getpid()):
        with suppress(OSError):
            held = {name_of(fd) for fd in os.scandir(f"/proc/{pid}/fd")}
            if b"launcher" in Path(f"/proc/{pid}/cmdline").read_bytes() and "socket" in held:
                found.append(pid)
    return found


def is_busy(link: launching.LauncherLine) -> bool:
    """Whether it is at work, and still is an instant later."""
    time.sleep(0.005)
    return link._busy


def test_a_launcher_killed_under_many_orders() -> None:
    """Whoever is about to write to it then hears so in another way than who comes later."""
    jobs.wait(jobs.start(["true"]))
    (pid,) = launchers()
    link = launching._launcher
    assert link._sock is not None
    link._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(8) as threads:
        ids = [threads.submit(jobs.start, ["echo", str(number)]) for number in range(8)]
        wait_for(lambda: all(is_busy(link) for _ in range(20)))  # somebody cannot write
        os.kill(pid, signal.SIGKILL)
        for number, jobid in enumerate(ids):
            assert jobs.wait(jobid.result(), 20) is Status.COMPLETED
            assert jobs.stdout(jobid.result()) == f"{number}\n"


@pytest.mark.parametrize("ended", [True, False])
def test_an_order_that_is_given_twice_is_carried_out_once(monkeypatch: pytest.MonkeyPatch, ended: bool) -> None:
    order, root = launching._order, Path(os.environ["BOSSWORKER_ROOT"])

    def twice(data: bytes, fds: list[int]) -> bool:
        assert order(data, fds)
        (jobid,) = jobs.listing()
        wait_for(lambda: jobs.stdout(jobid) if not ended else (root / jobid / "status.json").stat().st_size >= 1024)
        return order(data, fds)

    monkeypatch.setattr(launching, "_order", twice)
    jobid = jobs.start(["sh", "-c", f"echo once; {'true' if ended else 'sleep 0.3'}"])
    assert jobs.wait(jobid, 20) is Status.COMPLETED
    assert jobs.stdout(jobid) == "once\n"


def test_the_supervisor_survives_a_hangup_and_holds_nothing() -> None:
    jobid = jobs.start(["sleep", "60"])
    pid = supervisor(jobid)
    os.kill(pid, signal.SIGHUP)
    os.kill(pid, signal.SIGINT)
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    held = sorted(["null"] * 3 + [".status.next", jobid, "pipe", "pipe"])
    wait_for(lambda: sorted(map(name_of, os.scandir(f"/proc/{pid}/fd"))) == held)  # the answer's pipe goes last
    assert jobs.status(jobid) is Status.RUNNING
    jobs.clean(jobid)


def name_of(fd: os.DirEntry[str]) -> str:
    try:
        return os.readlink(fd.path).rpartition("/")[2].split(":")[0]
    except OSError:
        return "gone"


# -- callers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [True, False])
def test_an_interrupted_start_leaves_nothing_or_a_job_that_runs(
    root: Path, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(by: launching.LauncherLine, data: bytes, fds: list[int]) -> bytes:
        if after:
            ask(by, data, fds)
        raise KeyboardInterrupt

    ask = launching.ask
    monkeypatch.setattr(launching, "ask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        jobs.start(["true"])
    assert [jobs.wait(one, 20) for one in jobs.listing()] == [Status.COMPLETED] * after
    assert len(os.listdir(root)) == after


def test_nothing_follows_an_order_that_was_sent_by_half(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(sock: socket.socket, data: bytes, fds: list[int]) -> None:
        socket.send_fds(sock, [len(data).to_bytes(orders.LENGTH, "little"), data[:5]], fds)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(launching, "_send", interrupted)
        with pytest.raises(KeyboardInterrupt):
            jobs.start(["true"])
    assert jobs.wait(jobs.start(["true"]), 20) is Status.COMPLETED


def test_it_leaves_no_zombie_and_no_child_in_the_caller() -> None:
    program = """if True:
        import os, time
        from bossworker import jobs
        ids = [jobs.start(["true"]) for _ in range(5)]
        assert all(jobs.wait(one) == "completed" for one in ids)
        try:
            print(os.waitpid(-1, os.WNOHANG))
        except ChildProcessError:
            print("none")
    """
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "none\n"
    )


def test_from_many_threads() -> None:
    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(lambda number: jobs.start(["echo", str(number)]), range(64)))
    assert len(set(ids)) == 64
    for number, jobid in enumerate(ids):
        assert jobs.wait(jobid, 20) is Status.COMPLETED
        assert jobs.stdout(jobid) == f"{number}\n"
    assert sorted(ids) == jobs.listing()


def test_a_forked_child_has_a_launcher_of_its_own() -> None:
    jobs.start(["true"])
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if jobs.wait(jobs.start(["true"]), 20) is Status.COMPLETED else 1
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert jobs.wait(jobs.start(["true"]), 20) is Status.COMPLETED


def test_two_hundred_at_once() -> None:
    ids = [jobs.start(["sh", "-c", f"sleep 0.3; exit {number % 7}"]) for number in range(200)]
    wanted = {number: Status.TERMINATED_BY_ERROR if number % 7 else Status.COMPLETED for number in range(200)}
    for number, jobid in enumerate(ids):
        assert jobs.wait(jobid, 60) is wanted[number]
        assert info(jobid).exit_code == number % 7
    assert jobs.listing() == ids


def test_a_full_disk_raises_and_leaves_nothing(small_disk: Path) -> None:
    ok = jobs.start(["true"], root=small_disk)
    jobs.wait(ok, root=small_disk)
    before = sorted(os.listdir(small_disk))
    for leave in (0, 4096, 8192, 16384):
        fill(small_disk, leave)
        try:
            jobid = jobs.start(["true"], root=small_disk)
        except OSError as error:
            assert "No space left" in str(error)  # noqa: PT017
        else:
            assert jobs.wait(jobid, 20, root=small_disk) is Status.COMPLETED
            jobs.clean(jobid, root=small_disk)
        os.unlink(small_disk / "ballast")
        assert sorted(os.listdir(small_disk)) == before


def test_a_disk_that_is_full_just_as_it_starts(small_disk: Path) -> None:
    """Wherever it happens: nothing was started, or it can be found and ended."""
    started = 0
    for pages in range(2, 8):
        fill(small_disk, leave=pages * 4096)
        try:
            jobid = jobs.start(["sleep", "60"], root=small_disk)
        except OSError:
            pass
        else:
            started += 1
            assert jobs.status(jobid, root=small_disk) is Status.RUNNING
            found = jobs.info(jobid, root=small_disk)
            assert found is not None
            assert found.pid is not None
            assert jobs.signal(jobid, root=small_disk) is True
            assert jobs.wait(jobid, 20, root=small_disk) is Status.TERMINATED_BY_REQUEST
            assert jobs.clean(jobid, root=small_disk) > 0
        os.unlink(small_disk / "ballast")
        assert jobs.listing(small_disk) == []
    assert started >= 3


def test_stdin_without_room(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with pytest.raises(OSError, match=f"stdin cannot be stored: No space left on device: '{small_disk}'"):
        jobs.start(["cat"], stdin=bytes(1 << 20))
    assert jobs.listing() == []


def test_a_supervisor_is_small() -> None:
    """Alone, without a launcher or another supervisor that shares pages with it."""
    jobid = jobs.start(["sleep", "60"])
    (pid,) = launchers()
    launching.close_launcher()
    wait_for(lambda: not alive(pid))
    rollup = Path(f"/proc/{supervisor(jobid)}/smaps_rollup").read_text().splitlines()
    private = sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))
    assert private <= 4096, f"{private} KiB"
    jobs.clean(jobid)


# -- cleaning -------------------------------------------------------------------------------------------


def test_cleaning_a_running_job_ends_it_first(tmp_path: Path) -> None:
    jobid = jobs.start(["sh", "-c", "sleep 60 & sleep 60"])
    pid = pid_of(jobid)
    assert jobs.clean(jobid) > 0
    assert not alive(pid)
    assert jobs.status(jobid) is Status.UNKNOWN


def test_cleaning_in_bulk(root: Path) -> None:
    good, bad, running = jobs.start(["true"]), jobs.start(["false"]), jobs.start(["sleep", "60"])
    jobs.wait(good)
    jobs.wait(bad)
    assert jobs.clean(older_than=3600) == 0
    assert jobs.clean(status="completed") == 4
    assert jobs.listing() == sorted([bad, running])
    debris = root / f".{time.strftime('%Y%m%d-%H%M%S', time.gmtime(time.time() - 7200))}-000000-{'0' * 20}"
    debris.mkdir()
    (debris / "job.json").touch()
    assert jobs.clean(older_than=0) == 4 + 1
    assert os.listdir(root) == [running]
    for wrong in ({}, {"jobid": running, "older_than": 1}, {"status": "nonsense"}, {"older_than": -1}):
        with pytest.raises(ValueError, match=r"clean|status must be|older_than must be"):
            jobs.clean(**wrong)
    jobs.clean(running)


def test_another_root(tmp_path: Path) -> None:
    jobid = jobs.start(["sh", "-c", "echo hi; touch made"], root=tmp_path / "other")
    assert jobs.wait(jobid, root=tmp_path / "other") is Status.COMPLETED
    assert jobs.wait(jobid) is Status.UNKNOWN
    assert jobs.stdout(jobid, root=str(tmp_path / "other")) == "hi\n"
    assert jobs.result_list(jobid, root=tmp_path / "other") == ["made"]
    assert (jobs.result(jobid, "made", root=tmp_path / "other"), jobs.result(jobid, "made")) == ("", None)
    assert jobs.listing(tmp_path / "other") == [jobid]
    assert jobs.clean(jobid, root=tmp_path / "other") == 5


def test_a_root_that_is_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    jobid = jobs.start(["true"], root=root)
    assert jobs.wait(jobid, 20, root=tmp_path / "link") is Status.COMPLETED
    assert jobs.clean(jobid, root=tmp_path / "link") == 4
    assert os.listdir(root) == []


def test_the_usual_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from bossworker.commands.roots import find_root

    monkeypatch.delenv("BOSSWORKER_ROOT")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", "relative, so of no account")
    assert find_root() == f"{tmp_path}/.local/state/bossworker"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert find_root() == f"{tmp_path}/xdg/bossworker"
    jobs.wait(jobs.start(["true"]))
    assert len(jobs.listing()) == 1


def test_speed_of_looking_at_many(root: Path) -> None:
    """Ten thousand take less than two seconds; a thirtieth of them, with a margin of thirty."""
    root.mkdir(parents=True)
    for _ in range(300):
        directory, streams = jobdir.create(str(root), {"argv": ["true"], "created": 0.0})
        directory.write_status({"state": "completed", **dict.fromkeys(record._NUMBERS, 0.0)})
        directory.close()
        for fd in streams:
            os.close(fd)
    started = time.monotonic()
    assert {jobs.status(one) for one in jobs.listing()} == {Status.COMPLETED}
    assert time.monotonic() - started < 2.0


def test_a_wait_of_years_is_one_of_hours() -> None:
    jobid = jobs.start(["sleep", "0.3"])
    assert jobs.wait(jobid, 30 * 86400) is Status.COMPLETED
    with pytest.raises(ValueError, match=r"timeout must be between 0 and 1e\+09 seconds"):
        jobs.wait(jobid, 10**5000)


def test_what_is_sent_after_term_does_not_take_it_back() -> None:
    jobid = jobs.start(["sleep", "60"])
    assert jobs.signal(jobid, "STOP")
    stat = Path(f"/proc/{pid_of(jobid)}/stat")
    wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
    for name in ("TERM", "WINCH", "CONT"):  # it hears the first of them after the last
        assert jobs.signal(jobid, name)
    assert jobs.wait(jobid, 20) is Status.TERMINATED_BY_REQUEST


def test_stdin_that_cannot_be_encoded() -> None:
    with pytest.raises(ValueError, match="stdin cannot be encoded"):
        jobs.start(["true"], stdin="\ud800")


def test_a_root_that_cannot_be() -> None:
    assert jobs.listing("a\0") == []


# -- damage -------------------------------------------------------------------------------------------------------

DAMAGED = [
    '{"state": []}',
    '{"state": {}}',
    '{"state": "running", "started": Infinity, "supervisor": [true], "command": [[]]}',
    *(
        f'{{"state": "completed", "started": 1, "ended": 1, "user_time": 0, "system_time": 0, "max_rss": 0, {elapsed}}}'
        for elapsed in ('"elapsed": ' + one for one in ("Infinity", "-Infinity", "NaN", "[]", "1" + "0" * 400))
    ),
]


@pytest.mark.parametrize("status", DAMAGED)
def test_no_reader_raises(root: Path, status: str) -> None:
    jobid = jobs.start(["true"])
    jobs.wait(jobid, 20)
    (root / jobid / "status.json").write_text(status)
    for read in (jobs.status, jobs.details, jobs.info, jobs.is_finished, jobs.get_configuration, jobs.result_list):
        read(jobid)
    assert not jobs.signal(jobid)


def test_an_impossible_date_is_no_id(root: Path) -> None:
    jobs.wait(jobs.start(["true"]), 20)
    odd = "99999999-999999-999999-" + "0" * 20
    for name in (odd, f".{odd}"):
        (root / name).mkdir()
    assert jobs.status(odd) is Status.UNKNOWN
    assert jobs.clean(older_than=0) > 0
    assert sorted(os.listdir(root)) == [f".{odd}", odd]
    for day in ("20260230", "00010101", "99991231"):
        assert jobs.status(f"{day}-000060-000000-{'0' * 20}") is Status.UNKNOWN
        assert isinstance(jobdir.time_of(f"{day}-000060-000000-{'0' * 20}"), float)


def test_what_cannot_be_read_is_not_cleaned_unasked(root: Path) -> None:
    jobid = jobs.start(["sleep", "60"])
    status = root / jobid / "status.json"
    wait_for(lambda: jobs.status(jobid) == "running")
    told_of = jobs.info(jobid)
    assert told_of is not None
    supervisor = told_of.supervisor_pid
    told = status.read_text()
    status.write_text("{")
    assert jobs.clean(older_than=0) == 0
    assert jobs.listing() == [jobid]
    status.write_text(told)
    assert jobs.signal(jobid)
    jobs.wait(jobid, 20)
    wait_for(lambda: supervisor is None or not alive(supervisor), what="its last word")
    status.write_text("{")
    assert jobs.clean(status="unknown") > 0
    assert jobs.listing() == []


# -- folders without end ------------------------------------------------------------------------------------------

DIG = "import os\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')\nopen('f', 'w')"


def test_folders_deeper_than_any_path(root: Path) -> None:
    jobid = jobs.start([sys.executable, "-c", DIG])
    assert jobs.wait(jobid, 60) is Status.COMPLETED
    (name,) = jobs.result_list(jobid)
    assert name == "d/" * 3000 + "f"
    assert jobs.result(jobid, name) == ""
    assert jobs.clean(jobid) == 5
    assert os.listdir(root) == []


def test_deep_folders_that_are_not_kept(tmp_path: Path) -> None:
    result = CommandHandler(root=tmp_path / "own", keep="none")({"cmd": [sys.executable, "-c", DIG]})
    assert result["exit_code"] == 0
    assert os.listdir(tmp_path / "own") == []


# -- the root -----------------------------------------------------------------------------------------------------


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BOSSWORKER_ROOT", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "relative")
    with pytest.raises(RuntimeError, match="HOME is 'relative', which is no absolute path"):
        jobs.start(["true"])


def test_a_umask_that_leaves_the_owner_nothing(tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        jobid = jobs.start(["true"], root=tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert jobs.wait(jobid, 20, root=tmp_path / "a" / "b") is Status.COMPLETED
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
