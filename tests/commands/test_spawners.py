"""Threads of the core that start commands: what they do by themselves, and what they hand to Python."""

from __future__ import annotations

import os
import random
import resource
import select
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bossworker.cli.command_crew import CommandCrew
from bossworker.cli.outcomes import Ended
from bossworker.commands.hosting import host
from bossworker.commands.hosting.capture import Capture
from bossworker.commands.hosting.cells import ENDED, QUEUED, Cells
from bossworker.commands.hosting.remainder import open_children
from bossworker.commands.hosting.threaded_spawning import ThreadedSpawning
from bossworker.system import compiled, processes
from bossworker.system.starter import Starter
from tests.commands.crews import crew, ends, pid_in, plan, runs
from tests.commands.privileges import need_root
from tests.conftest import wait_for

pytestmark = pytest.mark.skipif(compiled.core is None, reason="there are no spawners without the core")

NUMBER = 200_000 + os.getpid()  # of a user that has no other processes: other tests run at the same time


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOSSWORKER_ROOT", str(tmp_path / "jobs"))
    return tmp_path / "jobs"


def all_of(
    made: CommandCrew, folder: Path, scripts: list[str], look: Callable[[CommandCrew, int], None] | None = None
) -> dict[int, Ended]:
    """How all of them ended; each once. `look`: called with how many have ended."""
    found: dict[int, Ended] = {}
    waiting = deque(plan(one, at, folder) for at, one in enumerate(scripts))
    flight = 0
    while waiting or flight:
        while waiting and flight < 50:
            made.add([waiting.popleft()])
            flight += 1
        for at, one in ends(made, 1).items():
            assert one is not None
            assert at not in found
            found[at] = one
            flight -= 1
        if look is not None:
            look(made, len(found))
    assert sorted(found) == list(range(len(scripts)))
    return found


# -- in a host ----------------------------------------------------------------------------------------------------


def test_of_hundreds_each_is_told_of_once(tmp_path: Path, root: Path) -> None:
    with crew(tmp_path) as made:
        found = all_of(made, tmp_path, ["exit 0"] * 500)
    assert all(one.ok and one.exit_code == 0 for one in found.values())
    assert not root.exists()


def test_each_gets_its_own_output(tmp_path: Path) -> None:
    """Though all write into the same few files, and most of them nothing."""
    scripts = [f"echo {at}; echo {at} >&2" if at % 3 == 0 else "exit 0" for at in range(150)]
    with crew(tmp_path) as made:
        found = all_of(made, tmp_path, scripts)
    for at, one in found.items():
        said = b"%d\n" % at if at % 3 == 0 else b""
        assert (one.ok, one.stdout, one.stderr) == (True, said, said)


def test_what_is_left_running_without_a_word_writes_into_nobody_elses_output(tmp_path: Path) -> None:
    """Also once it has left the session."""
    scripts = [
        "(while [ ! -e go ]; do sleep 0.01; done; echo late; touch 0.said) & exit 0",
        "setsid sh -c 'while [ ! -e go ]; do sleep 0.01; done; echo late; touch 1.said' & exit 0",
    ]
    with crew(tmp_path) as made:
        made.add([plan(one, at, tmp_path) for at, one in enumerate(scripts)])
        assert all(one is not None and one.ok and not one.stdout for one in ends(made, 2).values())
        waits = "while [ ! -e 0.said ] || [ ! -e 1.said ]; do sleep 0.01; done; echo mine"
        made.add([plan(waits, at, tmp_path) for at in (2, 3)])
        (tmp_path / "go").touch()
        assert [one and one.stdout for one in ends(made, 2).values()] == [b"mine\n", b"mine\n"]


def test_as_many_run_at_once_as_there_are_slots(tmp_path: Path) -> None:
    script = "touch {}.here; while [ ! -e all ]; do sleep 0.02; done"
    with crew(tmp_path, slots=20) as made:
        made.add([plan(script.replace("{}", str(at)), at, tmp_path) for at in range(30)])
        wait_for(lambda: len(list(tmp_path.glob("*.here"))) == 20)
        wait_for(lambda: made.receive() == [] and len(made.running()) == 20)
        assert len(list(tmp_path.glob("*.here"))) == 20
        (tmp_path / "all").touch()
        assert len(ends(made, 30)) == 30


def test_a_long_one_leaves_the_other_slots_to_those_that_come_later(tmp_path: Path) -> None:
    with crew(tmp_path, slots=2) as made:
        made.add([plan("sleep 600", 0, tmp_path)])
        wait_for(lambda: made.receive() == [] and made.running() and made.running()[0][1] > 0.05)
        for at in range(1, 5):
            made.add([plan(f"echo {at}; exit {at % 2}", at, tmp_path)])
            (found,) = ends(made, 1).items()
            assert (found[0], found[1] and found[1].stdout) == (at, b"%d\n" % at)


def test_all_are_ended_at_once_whatever_they_do_just_now(tmp_path: Path) -> None:
    """Those that are to begin, that begin, run or have ended: each is told of once, and nothing goes on."""
    for number in range(10):
        with crew(tmp_path, slots=3) as made:
            made.add([plan("exit 0" if at % 2 else "sleep 600", at, tmp_path) for at in range(40)])
            time.sleep(random.random() * 0.02)
            made.cancel(range(40))
            found = ends(made, 40)
            assert sorted(found) == list(range(40)), number
            assert all(one is None or one.ok for one in found.values())
            assert not processes.children(made._pid)


def test_a_host_that_is_killed_again_and_again(tmp_path: Path) -> None:
    """No command runs twice, none is left out, and what counts as failed has begun."""
    for name in ("ran", "ended"):
        (tmp_path / name).mkdir()
    script = "mkdir ran/{} || touch twice; mkdir ended/{}"
    kills = sorted(random.sample(range(5, 195), 6))

    def kill(made: CommandCrew, count: int) -> None:
        if kills and count >= kills[0]:
            del kills[0]
            os.kill(made._pid, signal.SIGKILL)

    with crew(tmp_path) as made:
        found = all_of(made, tmp_path, [script.replace("{}", str(at)) for at in range(200)], kill)
    assert not (tmp_path / "twice").exists()
    assert {at for at, one in found.items() if one.ok} <= {int(one.name) for one in (tmp_path / "ended").iterdir()}
    assert sum(not one.ok for one in found.values()) <= 6 * 2


def as_user_of_few(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host of a crew is another user's, who may have so many processes, threads counted."""
    need_root()
    become_host = host.become_host
    for name in ("bossworker.commands.hosting.kept", "bossworker.system.titles"):
        import_module(name)  # now: that user may not be allowed to read where they lie

    def with_few(*told: Any) -> None:
        os.setresuid(NUMBER, NUMBER, NUMBER)
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
        become_host(*told)

    monkeypatch.setattr(host, "become_host", with_few)
    monkeypatch.setenv("TMPDIR", "/tmp")  # which is for everybody


@pytest.mark.parametrize("most", [3, 4, 6, 14])
def test_processes_are_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """As many run at once as there can be: spawners are processes, too, as the system counts them."""
    as_user_of_few(most, monkeypatch)
    scripts = ["exec sleep 0.02", "exit 3", "exec sleep 0.006", "exit 0"]
    with crew(tmp_path, slots=40) as made:
        made.add([plan(scripts[at % 4], at, Path("/")) for at in range(80)])
        found = ends(made, 80)
    assert [one and one.exit_code for _, one in sorted(found.items())] == [0, 3, 0, 0] * 20


def test_processes_are_short_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Since others have them. Once there are some again, they are used, though none of ours has ended."""
    as_user_of_few(5, monkeypatch)
    with ExitStack() as others, crew(tmp_path, slots=2) as made:
        for _ in range(2):
            other = others.enter_context(subprocess.Popen(["sleep", "600"], user=NUMBER))
            others.callback(other.kill)
        made.add([plan("exec sleep 600", 0, Path("/"))])
        wait_for(lambda: made.receive() == [] and made.running() and made.running()[0][1] > 0.05)
        made.add([plan("echo on", 1, Path("/"))])
        wait_for(lambda: not made.receive() and made.running()[0][1] > 0.1)
        others.close()
        assert list(ends(made, 1)) == [1]


def test_a_spawner_that_waits_for_what_cannot_be_ended_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up, as what sleeps in the kernel for good; another command has its slot."""
    hopeless = SimpleNamespace(hopeless="it cannot be ended", step=lambda: 0.1)
    monkeypatch.setattr(host, "Ending", lambda *told: hopeless)
    with crew(tmp_path, slots=1, timeout=0.3) as made:
        made.add([plan("sleep 600", 0, tmp_path), plan("echo on", 1, tmp_path)])
        found = ends(made, 2)
    assert found[0] is not None
    assert (found[0].kind, found[0].words) == ("timeout", "timed out; it cannot be ended")
    assert found[1] is not None
    assert found[1].stdout == b"on\n"


def test_a_host_ends_with_all_its_spawners(tmp_path: Path) -> None:
    with crew(tmp_path, slots=3) as made:
        made.add([plan(f"echo $$ > {at}.pid; exec sleep 600", at, tmp_path) for at in range(3)])
        pids = [pid_in(tmp_path / f"{at}.pid") for at in range(3)]
        pid = made._pid
    assert not any(map(runs, [pid, *pids]))


def test_one_that_is_refused_as_descriptors_are_short_is_told_of_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = ThreadedSpawning._refused
    failed = tmp_path / "failed"

    def none_at_first(self: ThreadedSpawning) -> Iterator[Any]:
        if self._bad and not failed.exists():
            failed.touch()
            monkeypatch.setattr("bossworker.commands.hosting.threaded_spawning.Capture", _no_capture)
            yield from refused(self)
            monkeypatch.setattr("bossworker.commands.hosting.threaded_spawning.Capture", Capture)
        yield from refused(self)

    monkeypatch.setattr(ThreadedSpawning, "_refused", none_at_first)
    with crew(tmp_path) as made:
        made.add([plan("echo a", 0, tmp_path), plan("a\0b", 1, tmp_path)])
        found = ends(made, 2)
    assert [one and one.reason for _, one in sorted(found.items())] == ["", "ValueError: embedded null byte"]
    assert failed.exists()


def test_one_that_is_refused_waits_for_descriptors_while_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all of them have been taken over."""
    add = ThreadedSpawning.add
    few = "bossworker.commands.hosting.threaded_spawning.Capture"

    def short(self: ThreadedSpawning, jobs: Any) -> None:
        add(self, jobs)
        monkeypatch.setattr(few, _no_capture if self._bad else Capture)

    monkeypatch.setattr(ThreadedSpawning, "add", short)
    with crew(tmp_path) as made:
        made.add([plan("while [ ! -e go ]; do sleep 0.01; done", 0, tmp_path)])
        wait_for(lambda: made.receive() == [] and made.running() and made.running()[0][1] > 0.05)
        made.add([plan("a\0b", 1, tmp_path)])
        assert not processes.await_fd(made.fileno(), select.POLLIN, 0.05)
        made.add([plan("exit 0", 2, tmp_path)])
        assert list(ends(made, 1)) == [2]
        made.cancel([1])
        assert ends(made, 1) == {1: None}
        (tmp_path / "go").touch()
        found = ends(made, 1)
    assert found[0] is not None
    assert found[0].ok


def test_without_a_thread_the_host_starts_them_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoSpawners:
        def __init__(self, *told: Any) -> None:
            raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(compiled.core, "Spawners", NoSpawners)
    with crew(tmp_path) as made:
        made.add([plan("echo a", 0, tmp_path)])
        (found,) = ends(made, 1).values()
    assert found is not None
    assert found.stdout == b"a\n"


def _no_capture() -> Capture:
    raise OSError(24, "Too many open files")


# -- alone --------------------------------------------------------------------------------------------------------


_CELLS = 50


class AloneSpawners:
    """Spawners in this process: what they are given, and what they tell."""

    def __init__(self, slots: int) -> None:
        self.null = os.open(os.devnull, os.O_RDONLY)
        self.known: list[tuple[Any, ...]] = []
        self.event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.children = open_children()
        self.cells = Cells(_CELLS)
        self.capture = Capture()
        self.starter = Starter([b"PATH=/usr/bin:/bin"])
        self.made = compiled.core.Spawners(self.cells.words, slots, 1, self.event, self.children)

    def add(self, number: int, *argv: str) -> None:
        words = list(argv)
        files = [b"/bin/" + words[0].encode()]
        self.made.add(number, number, self.starter.describe(words, files, "/", [], (self.null, -1, -1)))

    def collect(self) -> tuple[list[tuple[int]], list[tuple[Any, ...]], float]:
        """What there is, once there is something."""
        assert processes.await_fd(self.event, select.POLLIN, 60)
        found: tuple[list[tuple[int]], list[tuple[Any, ...]], float] = self.made.collect()
        return found

    def ended(self) -> tuple[Any, ...]:
        """The next one that has ended."""
        while not self.known:
            self.known += self.collect()[1]
        return self.known.pop(0)

    def close(self) -> None:
        self.made.hold(True)
        for fd in (self.event, self.children, self.null):
            os.close(fd)
        self.capture.close()


@pytest.fixture
def spawners() -> Iterator[AloneSpawners]:
    made = AloneSpawners(1)
    yield made
    made.close()


def test_well_and_otherwise(spawners: AloneSpawners) -> None:
    spawners.made.lend(*spawners.capture.streams)
    spawners.add(0, "true")
    number, seconds, started_at = spawners.ended()
    assert number == 0
    assert 0 < seconds < 60
    assert abs(time.time() - started_at) < 60
    cell = spawners.cells.read(0)
    assert (cell.state, cell.status, cell.output, cell.seconds > 0) == (ENDED, 0, 0, True)
    spawners.add(1, "sh", "-c", "exit 3")
    number, pid, error, *_, out, _ = spawners.ended()
    assert (number, error, out) == (1, 0, spawners.capture.streams[0])
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    spawners.made.release(False)
    spawners.add(2, "true")
    assert not processes.await_fd(spawners.event, select.POLLIN, 0.05), "the files are not given back"
    spawners.made.lend(*spawners.capture.streams)
    assert spawners.ended()[0] == 2


def test_what_is_taken_over_is_not_reaped(spawners: AloneSpawners) -> None:
    spawners.made.lend(*spawners.capture.streams)
    spawners.add(0, "sleep", "600")
    begun, ended, oldest = spawners.collect()
    assert (begun, ended) == ([(0,)], [])
    assert spawners.made.take_over(oldest - 1) == []
    ((number, pid, error, _, started, _, _),) = spawners.made.take_over(oldest)
    assert (number, error, started) == (0, 0, oldest)
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    spawners.add(1, "true")
    spawners.made.lend(*spawners.capture.streams)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert spawners.made.collect()[1:] == ([], 0.0)
    spawners.made.release(False)
    assert spawners.ended()[0] == 1


def test_an_end_wakes_only_its_spawner(spawners: AloneSpawners) -> None:
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
    spawners.made.hold(True)
    spawners.made.lend(*spawners.capture.streams)
    for number in range(_CELLS):
        spawners.add(number, "true")
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    spawners.made.hold(False)
    assert [spawners.ended()[0] for _ in range(_CELLS)] == list(range(_CELLS))
    assert resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before < _CELLS / 2


def test_held_and_withdrawn(spawners: AloneSpawners) -> None:
    spawners.made.hold(True)
    spawners.made.lend(*spawners.capture.streams)
    for number in range(4):
        spawners.add(number, "true")
    assert spawners.made.withdraw({1, 3, 7}) == [1, 3]
    assert spawners.cells.read(0).state == QUEUED
    spawners.made.hold(False)
    found = [spawners.ended()[0], spawners.ended()[0]]
    assert found == [0, 2]


def test_bad_input(spawners: AloneSpawners) -> None:
    with pytest.raises(IndexError, match=f"there is no cell {_CELLS}"):
        spawners.add(_CELLS, "true")
    with pytest.raises(TypeError):
        spawners.made.add(0, 0, ())
    with pytest.raises(ValueError, match="embedded null byte"):
        spawners.add(0, "a\0b")
    with pytest.raises(TypeError):
        spawners.made.take_over("x")
    with pytest.raises(TypeError):
        spawners.made.withdraw([1])
    spawners.made.lend(*spawners.capture.streams)
    with pytest.raises(ValueError, match="there are enough"):
        spawners.made.lend(*spawners.capture.streams)
