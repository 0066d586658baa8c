"""One process that sees many commands through: what ends them, what it leaves, and what is left without it."""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bossworker import jobs
from bossworker.commands.hosting import host
from bossworker.commands.hosting.cells import Cells
from bossworker.commands.hosting.hosting_wire import DIRECT, GROUP, HostSettings, Unpacker, pack
from bossworker.commands.hosting.relaying import LineRelay, RelayTurns
from bossworker.commands.hosting.run_link import RunLink
from bossworker.commands.hosting.single_spawning import CommandEnvironment, SingleSpawning
from bossworker.commands.hosting.threaded_spawning import ThreadedSpawning
from bossworker.system import compiled, processes
from bossworker.system.starter import StartedProgram, Starter
from tests.commands.crews import crew, ends, pid_in, plan, runs
from tests.conftest import wait_for


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOSSWORKER_ROOT", str(tmp_path / "jobs"))
    return tmp_path / "jobs"


def test_a_host_that_is_killed_costs_what_it_ran(tmp_path: Path) -> None:
    """That is ended, with what it has started, and is told of; what had not begun runs in the next host."""
    with crew(tmp_path) as made:
        scripts = ["echo $$ > 0.pid; sleep 600", "(setsid sleep 600 & echo $! > 1.pid); sleep 600", "echo c", "echo d"]
        made.add([plan(one, at, tmp_path) for at, one in enumerate(scripts)])
        pids = [pid_in(tmp_path / "0.pid"), pid_in(tmp_path / "1.pid")]
        wait_for(lambda: made.receive() == [] and len(made.running()) == 2)
        os.kill(made._pid, signal.SIGKILL)
        found = ends(made, 4)
        first, second, *others = (found[at] for at in range(4))
        assert first is not None
        assert second is not None
        assert (first.kind, first.words) == (
            "crash",
            "it was running when the process that runs commands was killed (signal 9, SIGKILL)",
        )
        assert second.kind == "crash"
        assert [one and (one.ok, one.stdout) for one in others] == [(True, b"c\n"), (True, b"d\n")]
        assert not any(map(runs, pids))


def dies_once(monkeypatch: pytest.MonkeyPatch, flag: Path, kind: type, method: str) -> None:
    """The first host is killed as it calls this method."""
    whole: Callable[..., Any] = getattr(kind, method)

    def killed(*told: Any) -> Any:
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*told)

    monkeypatch.setattr(kind, method, killed)


def without_spawners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts start one after the other, as they do without the core, and where output is passed on."""

    def make(settings: HostSettings, cells: Cells, link: RunLink, poll: select.poll) -> SingleSpawning:
        return SingleSpawning(settings, cells, link, CommandEnvironment(settings))

    monkeypatch.setattr(host, "make_spawning", make)


@pytest.mark.parametrize("method", ["_lend", "_begin"])
def test_what_was_about_to_start_when_the_host_died_runs_in_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Though it was told of as one that begins."""
    if method == "_begin":
        without_spawners(monkeypatch)
    elif compiled.core is None:
        pytest.skip("there are no spawners without the core")
    dies_once(monkeypatch, tmp_path / "died", SingleSpawning if method == "_begin" else ThreadedSpawning, method)
    with crew(tmp_path) as made:
        made.add([plan(f"echo {at} >> ran; echo {at}", at, tmp_path) for at in range(4)])
        found = ends(made, 4)
    assert [one and one.stdout for _, one in sorted(found.items())] == [b"0\n", b"1\n", b"2\n", b"3\n"]
    assert sorted((tmp_path / "ran").read_text().split()) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("true", (True, 0, "")),
        ("exit 3", (False, 3, "exit code 3")),
        ("echo x", (False, 0, "exit code 0, but its output was lost when the process that runs commands was killed")),
    ],
)
def test_what_had_ended_when_the_host_died_is_told_as_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, told: tuple[bool, int, str]
) -> None:
    """It was reaped, and its record was not sent."""
    finish = host.Host._finish

    def killed(self: host.Host, one: Any) -> None:
        finish(self, one)
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(host.Host, "_finish", killed)
    with crew(tmp_path, slots=1) as made:
        made.add([plan(script, 0, tmp_path)])
        (found,) = ends(made, 1).values()
    assert found is not None
    assert (found.ok, found.exit_code) == told[:2]
    assert found.reason.startswith(told[2])
    assert found.seconds < 30


@pytest.mark.parametrize("how", [GROUP, DIRECT])
def test_what_had_ended_and_was_not_reaped_when_the_host_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """It comes to us, with its status; not with its output, where that was captured."""
    dies_once(monkeypatch, tmp_path / "died", ThreadedSpawning, "_handed_in")
    dies_once(monkeypatch, tmp_path / "died", host.Host, "_on_end")
    with crew(tmp_path, slots=1, how=how) as made:
        made.add([plan("exit 0" if how == DIRECT else "echo a", 0, tmp_path), plan("exit 5", 1, tmp_path)])
        found = ends(made, 2)
    first, second = found[0], found[1]
    assert first is not None
    assert second is not None
    assert (first.ok, first.exit_code) == (how == DIRECT, 0)
    assert (second.exit_code, second.words) == (5, "exit code 5")


def test_a_host_that_dies_at_once_again_and_again_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "become_host", lambda *told: os._exit(3))
    with crew(tmp_path) as made:
        made.add([plan("true", 0, tmp_path)])
        with pytest.raises(ChildProcessError, match=r"has ended 4 times: exit code 3"):
            ends(made, 1)


def test_a_host_that_dies_of_each_command_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Though it says each time that the command begins."""
    without_spawners(monkeypatch)
    monkeypatch.setattr(SingleSpawning, "_begin", lambda *told: os.environ["NO_SUCH_NAME"])
    with crew(tmp_path) as made:
        made.add([plan("true", 0, tmp_path)])
        with pytest.raises(ChildProcessError, match=r"has ended 4 times: exit code 1"):
            ends(made, 1)
    assert capfd.readouterr().err.count("KeyError") == 4


def test_what_goes_wrong_as_one_is_started_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = "start" if compiled.core is None else "describe"
    whole = getattr(Starter, step)

    def take_some(self: Starter, argv: list[str], *told: Any) -> Any:
        return whole(self, argv, *told) if "b" not in argv[-1] else os.environ[argv[-1]]

    monkeypatch.setattr(Starter, step, take_some)
    with crew(tmp_path, slots=1) as made:
        pid = made._pid
        made.add([plan(f"echo {one}", at, tmp_path) for at, one in enumerate("abc")])
        found = ends(made, 3)
        assert made._pid == pid
    assert [one and (one.ok, one.reason) for _, one in sorted(found.items())] == [
        (True, ""),
        (False, "KeyError: 'echo b'"),
        (True, ""),
    ]


@pytest.mark.parametrize("watched", [True, False])
def test_a_timeout_ends_what_has_left_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    """Also where there are no descriptors that tell of the ends of processes."""
    if not watched:
        monkeypatch.setattr(host, "_pidfd", lambda pid: -1)
    script = "(setsid sh -c 'echo $$ > daemon.pid; exec sleep 600' &) ; sleep 600"
    with crew(tmp_path, timeout=0.5) as made:
        made.add([plan(script, 0, tmp_path), plan("sleep 0.1; echo fine", 1, tmp_path)])
        found = ends(made, 2)
        late, other = found[0], found[1]
        assert late is not None
        assert other is not None
        assert (late.kind, late.words, late.signal) == ("timeout", "timed out", signal.SIGTERM)
        assert (other.ok, other.stdout) == (True, b"fine\n")
        assert not runs(pid_in(tmp_path / "daemon.pid"))
        assert jobs.status(late.jobid) == "terminated by request"


def test_one_that_is_ended_leaves_the_others_and_theirs_alone(tmp_path: Path) -> None:
    script = "(setsid sleep 600 & echo $! > {}.pid); sleep 600"
    with crew(tmp_path) as made:
        made.add([plan(script.replace("{}", str(at)), at, tmp_path) for at in range(2)])
        first, second = pid_in(tmp_path / "0.pid"), pid_in(tmp_path / "1.pid")
        made.cancel([0])
        assert ends(made, 1) == {0: None}
        assert (runs(first), runs(second)) == (False, True)
        assert [one.place for one, _ in made.running()] == [1]


def test_what_is_left_running_ends_with_the_run(tmp_path: Path) -> None:
    with crew(tmp_path) as made:
        made.add([plan("sleep 600 & echo $! > left.pid; echo done", 0, tmp_path)])
        (ended,) = ends(made, 1).values()
        assert ended is not None
        assert ended.stdout == b"done\n"
        pid = pid_in(tmp_path / "left.pid")
        assert runs(pid)
    assert not runs(pid)


def test_queued_ones_are_cancelled_alone(tmp_path: Path) -> None:
    with crew(tmp_path, slots=1) as made:
        made.add(
            [plan("touch begun; while [ ! -e go ]; do sleep 0.01; done", 0, tmp_path), plan("exit 3", 1, tmp_path)]
        )
        wait_for((tmp_path / "begun").exists)
        made.cancel([0, 1], queued_only=True)
        assert ends(made, 1) == {1: None}
        (tmp_path / "go").touch()
        (ended,) = ends(made, 1).values()
        assert ended is not None
        assert ended.ok


def test_memory(tmp_path: Path) -> None:
    """Of the command and all that it has started."""
    script = f"{sys.executable} -c 'b = bytearray(1) * (200 << 20); import time; time.sleep(600)' & wait"
    with crew(tmp_path, memory=64 << 20) as made:
        made.add([plan(script, 0, tmp_path)])
        (ended,) = ends(made, 1).values()
        assert ended is not None
        assert ended.kind == "memory"
        assert ended.words.startswith("memory limit exceeded (")


@contextmanager
def held_up(program: Path) -> Iterator[None]:
    """Whoever executes it waits in the kernel until the end."""
    fcntl = pytest.importorskip("fcntl")
    program.write_bytes(Path("/bin/echo").read_bytes())
    program.chmod(0o755)
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # which tells that somebody waits
    file = os.open(program, os.O_RDONLY)
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield
    except AttributeError:
        pytest.skip("there are no leases here")
    finally:
        os.close(file)
        signal.signal(signal.SIGIO, before)


def test_a_program_that_is_long_in_starting_holds_up_no_other(tmp_path: Path) -> None:
    """Until it executes, the memory of its process is the host's, and not judged."""
    if compiled.core is None:
        pytest.skip("without the core, the host waits for each start")
    with crew(tmp_path, memory=8 << 20) as made:
        with held_up(tmp_path / "slow"):
            slow = plan("", 0, tmp_path)._replace(job=([str(tmp_path / "slow"), "on"], str(tmp_path), "", {}))
            made.add([slow, plan("sleep 0.2; echo a", 1, tmp_path), plan("echo b", 2, tmp_path)])
            assert sorted(ends(made, 2)) == [1, 2]
        (ended,) = ends(made, 1).values()
        assert ended is not None
        assert (ended.reason, ended.stdout) == ("", b"on\n")


def test_a_program_that_is_long_in_starting_is_ended_in_time(tmp_path: Path) -> None:
    if compiled.core is None:
        pytest.skip("without the core, the host waits for each start")
    with crew(tmp_path, timeout=0.1) as made, held_up(tmp_path / "slow"):
        made.add([plan("", 0, tmp_path)._replace(job=([str(tmp_path / "slow")], str(tmp_path), "", {}))])
        (ended,) = ends(made, 1).values()
        assert ended is not None
        assert (ended.kind, ended.signal) == ("timeout", signal.SIGTERM)


def test_no_process_is_to_be_had(tmp_path: Path) -> None:
    """What cannot be started is told of, and the host goes on."""
    with crew(tmp_path) as made:
        bad = plan("", 0, tmp_path)._replace(job=(["/bin/sh", "a\0b"], str(tmp_path), "", {}))
        gone = plan("", 1, tmp_path)._replace(job=(["true"], f"{tmp_path}/gone", "", {}))
        made.add([bad, gone, plan("echo on", 2, tmp_path)])
        found = ends(made, 3)
        first, second, third = (found[at] for at in range(3))
        assert first is not None
        assert second is not None
        assert third is not None
        assert (first.kind, first.words) == ("exception", "ValueError: embedded null byte")
        assert second.words == f"exit code 126: cannot change to {f'{tmp_path}/gone'!r}: No such file or directory"
        assert third.stdout == b"on\n"


@pytest.mark.parametrize("limit", [resource.RLIMIT_NOFILE, None])
def test_as_many_run_at_once_as_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None) -> None:
    """Where descriptors or processes are short, the others come later."""
    become_host, start = host.become_host, Starter.start
    starts: list[int] = []

    def start_some(*told: Any, **settings: Any) -> StartedProgram:
        starts.append(1)
        if len(starts) in (3, 4, 5):
            (tmp_path / "refused").touch()
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return start(*told, **settings)

    def with_little(*told: Any) -> None:
        if limit is not None:
            resource.setrlimit(limit, (30, 30))
        become_host(*told)

    if limit is None:
        without_spawners(monkeypatch)
        monkeypatch.setattr(Starter, "start", start_some)

    monkeypatch.setattr(host, "become_host", with_little)
    with crew(tmp_path, slots=40) as made:
        made.add([plan(f"sleep 0.05; echo {at}", at, tmp_path) for at in range(40)])
        found = ends(made, 40)
        assert [one and one.stdout for _, one in sorted(found.items())] == [b"%d\n" % at for at in range(40)]
        assert (tmp_path / "refused").exists() == (limit is None)


def test_cells_may_be_longer_than_a_file_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under ``ulimit -f`` a host inherits them, and so does the next one."""
    dies_once(monkeypatch, tmp_path / "flag", host.Host, "run")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
        with crew(tmp_path, slots=8) as made:
            assert made._book.file == -1
            made.add([plan("true", at, tmp_path) for at in range(9)])
            found = ends(made, 9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert all(one is not None and one.ok for one in found.values())


def test_what_a_host_is_told_may_be_long(tmp_path: Path) -> None:
    with crew(tmp_path, env={f"LONG{at}": "\udc80" * 50_000 for at in range(10)}) as made:
        made.add([plan("echo ${#LONG0} ${#LONG9}", 0, tmp_path)])
        one = ends(made, 1)[0]
        assert one is not None
        assert one.stdout == b"50000 50000\n"


def test_whoever_does_not_listen_holds_up_starts_but_no_timeouts(tmp_path: Path) -> None:
    """Records wait; nothing is started that the run has not heard of."""
    scripts = ["sleep 600", *["head -c 200000 /dev/zero"] * 40, "touch last"]
    with crew(tmp_path, timeout=1.0) as made:
        made.add([plan(one, at, tmp_path) for at, one in enumerate(scripts)])
        children = wait_for(lambda: processes.children(made._pid))
        wait_for(lambda: not processes.children(made._pid))
        assert children
        assert not (tmp_path / "last").exists()
        found = ends(made, len(scripts))
        assert (tmp_path / "last").exists()
        assert [at for at, one in found.items() if one is None or not one.ok] == [0]


def test_whoever_begins_to_listen_as_the_last_one_ends_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host could send nothing a moment ago, and now it can, with nothing left to wait for but that."""
    send, run = RunLink.send, host.Host.run
    hosts: list[host.Host] = []

    def send_and_wait(self: RunLink) -> None:
        send(self)
        if self.is_jammed and self.records and not hosts[0]._running:
            (tmp_path / "waits").touch()
            processes.await_fd(self.fd, select.POLLOUT, 60)
            time.sleep(0.3)  # until all has been read

    def run_and_note(self: host.Host, title: str) -> None:
        hosts.append(self)
        run(self, title)

    monkeypatch.setattr(RunLink, "send", send_and_wait)  # before the host is forked
    monkeypatch.setattr(host.Host, "run", run_and_note)
    scripts = ["sleep 600", *["head -c 100000 /dev/zero"] * 20]
    with crew(tmp_path, timeout=1.0) as made:
        made.add([plan(one, at, tmp_path) for at, one in enumerate(scripts)])
        wait_for((tmp_path / "waits").exists)
        assert len(ends(made, len(scripts))) == len(scripts)


def test_messages_come_however_they_are_cut() -> None:
    messages = [[(1,), (2, "", "x" * 300)], [], [(3,)]]
    data = b"".join(map(pack, messages))
    for size in (1, 2, 5, 64, len(data)):
        unpacker = Unpacker()
        assert [one for at in range(0, len(data), size) for one in unpacker.feed(data[at : at + size])] == messages


def test_lines_of_two_are_never_mixed(tmp_path: Path, redirected: Callable[[], int]) -> None:
    """Though whoever reads takes a little now and then, so that a line cannot be written at once."""
    reading = redirected()
    turns = RelayTurns()
    files = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT | os.O_APPEND) for name in ("a", "b", "empty")]
    relays = [LineRelay((file, files[2]), b"", turns) for file in files[:2]]
    for file, letter in zip(files, (b"a", b"b")):
        os.write(file, (letter * 50_000 + b"\n") * 5)
    data = b""
    while [relay.pass_on(at_last=True) for relay in relays] != [True, True]:
        data += os.read(reading, 3000)
    os.set_blocking(reading, False)
    while processes.await_fd(reading, 1, 0):
        data += os.read(reading, 1 << 20)
    lines = data.splitlines()
    assert sorted(lines) == [b"a" * 50_000] * 5 + [b"b" * 50_000] * 5
    for file in files:
        os.close(file)


@pytest.fixture
def redirected(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[[], int]]:
    """Puts a pipe in the place of stdout; gives its other end."""
    before = os.dup(1)
    fds: list[int] = []

    def redirect() -> int:
        reading, writing = os.pipe()
        os.dup2(writing, 1)
        os.close(writing)
        fds.append(reading)
        return reading

    yield redirect
    os.dup2(before, 1)
    for fd in (before, *fds):
        os.close(fd)
