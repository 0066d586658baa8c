"""What a program finds when it starts, and what is said of one that cannot."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from bossworker.system import program
from bossworker.system.program import CannotStart
from tests.commands.supervised import ENVIRONMENT
from tests.conftest import signals_in


def run(tmp_path: Path, *argv: str | Path, cwd: str | Path = "/", environment: list[bytes] = ENVIRONMENT) -> str:
    out = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        pid = program.start(list(map(os.fsencode, argv)), environment, os.fsencode(cwd), (null, out, out), umask=0o27)
        os.waitpid(pid, 0)
    finally:
        os.close(out)
        os.close(null)
    return (tmp_path / "out").read_text()


def test_descriptors_session_folder_and_umask(tmp_path: Path) -> None:
    leak = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        told = run(tmp_path, "/bin/sh", "-c", "ls /proc/$$/fd; pwd; umask; ps -o sid= -o pid= -p $$", cwd=tmp_path)
    finally:
        os.close(leak)
    *fds, folder, umask, ids = told.splitlines()
    assert (fds, folder, umask) == (["0", "1", "2"], str(tmp_path), "0027")
    session, pid = ids.split()
    assert session == pid


def test_signals_are_default_though_some_are_ignored_here(tmp_path: Path) -> None:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGUSR2)}
    try:
        told = run(tmp_path, "cat", "/proc/self/status")
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    signals = dict(line.split() for line in told.splitlines() if line.startswith(("SigBlk", "SigIgn", "SigCgt")))
    assert {name: signals_in(mask) for name, mask in signals.items()} == {
        "SigBlk:": set(), "SigIgn:": set(), "SigCgt:": set(),
    }  # fmt: skip


def test_the_path_of_its_own_environment_finds_it(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho found\n")
    tool.chmod(0o755)
    assert run(tmp_path, "tool", environment=[b"PATH=/nowhere:" + os.fsencode(tmp_path)]) == "found\n"
    with pytest.raises(CannotStart):
        run(tmp_path, "tool")


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
def test_what_cannot_run(tmp_path: Path, argv: str, cwd: str, code: int, reason: str) -> None:
    with pytest.raises(CannotStart) as caught:
        run(tmp_path, argv, cwd=cwd)
    assert (caught.value.exit_code, str(caught.value)) == (code, reason)


def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    (tmp_path / "text").chmod(0o755)
    with pytest.raises(CannotStart, match="Exec format error") as caught:
        run(tmp_path, tmp_path / "text")
    assert caught.value.exit_code == 126


def test_too_many_arguments(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="Argument list too long") as caught:
        run(tmp_path, "/bin/true", *["x" * 100_000] * 100)
    assert caught.value.exit_code == 126


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff")
    with pytest.raises(CannotStart) as caught:
        run(tmp_path, name)
    out = os.open(tmp_path / "reason", os.O_RDWR | os.O_CREAT)
    program.tell(out, caught.value)
    os.close(out)
    assert b"No such file" in (tmp_path / "reason").read_bytes()


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
    return run(folder, "echo", "hello")


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
