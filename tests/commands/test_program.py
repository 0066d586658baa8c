"""What a program finds when it starts, and what is said of one that cannot."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from bossworker.system import compiled, program, starter
from bossworker.system.program import CannotStart
from bossworker.system.starter import StartedProgram, Starter
from tests.commands.supervised import ENVIRONMENT
from tests.conftest import signals_in


class Way:
    """How a program is started, and what it has printed then."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder

    def start(
        self, argv: Sequence[str], environment: list[bytes], cwd: str, stdio: tuple[int, int, int]
    ) -> StartedProgram:
        if self.name == "program":
            return StartedProgram(program.start(list(map(os.fsencode, argv)), environment, os.fsencode(cwd), stdio))
        starter = Starter(environment[1:])
        assert (starter._prepared is None) == (self.name == "starter in Python")
        files = program.candidates(os.fsencode(argv[0]), environment)
        return starter.start(list(argv), files, cwd, [os.fsdecode(one) for one in environment[:1]], stdio)

    def run(self, *argv: str | Path, cwd: str | Path = "/", environment: list[bytes] = ENVIRONMENT) -> str:
        path = self._folder / f"out{threading.get_ident()}"
        out = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            start = self.start(list(map(str, argv)), environment, str(cwd), (null, out, out))
            _, status = os.waitpid(start.pid, 0)
        finally:
            os.close(out)
            os.close(null)
        assert start.executes
        if refusal := start.refusal(list(map(str, argv)), str(cwd)):
            assert os.waitstatus_to_exitcode(status) == refusal.exit_code
            raise refusal
        return path.read_text("utf-8", "surrogateescape")


@pytest.fixture(params=["program", "starter", "starter in Python"])
def way(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Way:
    if request.param == "starter" and compiled.core is None:
        pytest.skip("there is no compiled core here, or it is not wanted")
    if request.param == "starter in Python":
        monkeypatch.setattr(starter, "core", None)
    return Way(request.param, tmp_path)


def test_descriptors_session_folder_and_umask(way: Way, tmp_path: Path) -> None:
    leak = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        told = way.run("/bin/sh", "-c", "ls /proc/$$/fd; pwd; ps -o sid= -o pid= -p $$", cwd=tmp_path)
    finally:
        os.close(leak)
    *fds, folder, ids = told.splitlines()
    assert (fds, folder) == (["0", "1", "2"], str(tmp_path))
    session, pid = ids.split()
    assert session == pid


def test_umask(tmp_path: Path) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    pid = program.start([b"touch", b"made"], None, os.fsencode(tmp_path), (null, null, null), umask=0o27)
    os.close(null)
    assert os.waitpid(pid, 0) == (pid, 0)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o640


def test_signals_are_default_though_some_are_not_here(way: Way) -> None:
    """Ignored ones are the business of `program.start` alone; SIGPIPE is ignored in any Python."""
    here = signal.SIG_IGN if way.name == "program" else lambda number, frame: None
    before = {number: signal.signal(number, here) for number in (signal.SIGHUP, signal.SIGUSR2)}
    try:
        told = way.run("cat", "/proc/self/status")
        assert signal.getsignal(signal.SIGHUP) == here
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    signals = dict(line.split() for line in told.splitlines() if line.startswith(("SigBlk", "SigIgn", "SigCgt")))
    assert {name: signals_in(mask) for name, mask in signals.items()} == {
        "SigBlk:": set(), "SigIgn:": set(), "SigCgt:": set(),
    }  # fmt: skip


def test_the_path_of_its_own_environment_finds_it(way: Way, tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho found\n")
    tool.chmod(0o755)
    assert way.run("tool", environment=[b"PATH=/nowhere:" + os.fsencode(tmp_path)]) == "found\n"
    with pytest.raises(CannotStart):
        way.run("tool")


@pytest.mark.parametrize(
    ("argv", "cwd", "code", "reason"),
    [
        ("no-such-program", "/", 127, "cannot run 'no-such-program': No such file or directory"),
        ("/no/such/program", "/", 127, "cannot run '/no/such/program': No such file or directory"),
        ("", "/", 127, "a program without a name"),
        ("/etc/passwd", "/", 126, "cannot run '/etc/passwd': Permission denied"),
        ("/usr", "/", 126, "cannot run '/usr': Permission denied"),
        ("/bin/true", "/nowhere", 126, "cannot change to '/nowhere': No such file or directory"),
        ("/bin/true", "/etc/passwd", 126, "cannot change to '/etc/passwd': Not a directory"),
    ],
)
def test_what_cannot_run(way: Way, argv: str, cwd: str, code: int, reason: str) -> None:
    with pytest.raises(CannotStart) as caught:
        way.run(argv, cwd=cwd)
    assert (caught.value.exit_code, str(caught.value)) == (code, reason)


def test_a_file_that_is_no_program(way: Way, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    (tmp_path / "text").chmod(0o755)
    with pytest.raises(CannotStart, match="Exec format error") as caught:
        way.run(tmp_path / "text")
    assert caught.value.exit_code == 126


def test_too_many_arguments(way: Way, tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="Argument list too long") as caught:
        way.run("/bin/true", *["x" * 100_000] * 100)
    assert caught.value.exit_code == 126


def test_names_that_are_not_utf8(way: Way, tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff")
    assert way.run("printf", "%s.", name, "").encode("utf-8", "surrogateescape") == b"\xff.."
    with pytest.raises(CannotStart) as caught:
        way.run(name)
    out = os.open(tmp_path / "reason", os.O_RDWR | os.O_CREAT)
    program.tell(out, caught.value)
    os.close(out)
    assert b"No such file" in (tmp_path / "reason").read_bytes()


@pytest.mark.parametrize("words", [["echo", "a\0b"], ["ec\0ho"], ["echo", "\ud800"]])
def test_texts_that_no_program_can_get(way: Way, words: list[str]) -> None:
    open_before = os.listdir("/proc/self/fd")
    with pytest.raises(ValueError):  # noqa: PT011 - Python's own, in several words
        way.run(*words)
    assert os.listdir("/proc/self/fd") == open_before


def test_the_environment(way: Way) -> None:
    told = way.run("env", environment=[*ENVIRONMENT, b"A=\xff b", b"EMPTY="])
    assert sorted(told.encode("utf-8", "surrogateescape").split(b"\n")[:-1]) == sorted(
        [*ENVIRONMENT, b"A=\xff b", b"EMPTY="]
    )


def test_it_works_outside_the_main_thread(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        with ThreadPoolExecutor(4) as threads:
            told = list(threads.map(lambda n: run_in(tmp_path / str(n)), range(8)))
    finally:
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    assert told == ["hello\n"] * 8


def run_in(folder: Path) -> str:
    folder.mkdir()
    return Way("program", folder).run("echo", "hello")


def test_nothing_is_imported_that_a_supervisor_can_do_without() -> None:
    import subprocess

    heavy = "enum re typing collections json signal socket pathlib dataclasses contextlib subprocess threading"
    module = "bossworker.commands.supervision.supervisor"
    code = f"import sys; import {module}; print(*({{*sys.modules}} & {{*{heavy.split()}}}))"
    root = str(Path(program.__file__).parents[2])
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({root!r}); {code}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == []


def test_what_closes_later_does_not_hold_a_start_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As gevent does: its ``os.close`` leaves it to its loop, which does not turn meanwhile."""
    later: list[int] = []
    monkeypatch.setattr(os, "close", later.append)
    null = os.open(os.devnull, os.O_RDWR)
    pid = program.start([b"true"], None, b"/", (null, null, null))
    monkeypatch.undo()
    for fd in (null, *later):
        os.close(fd)
    assert os.waitpid(pid, 0) == (pid, 0)
