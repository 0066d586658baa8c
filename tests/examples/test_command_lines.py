"""The command lines of the examples: what is refused, and how Ctrl-C ends them."""

from __future__ import annotations

import os
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import wait_for
from tests.examples.runner import PROJECT, SECONDS, check_clean, check_refused, command, environment, run

EXAMPLES = PROJECT / "examples"
PROGRAMS = sorted({path.name for path in EXAMPLES.glob("*.py")} - {"arguments.py"})


@pytest.mark.once("the text of the programs' help; that they run, other tests say")
@pytest.mark.parametrize("program", PROGRAMS)
def test_help_and_unknown_options(program: str) -> None:
    ended = run(EXAMPLES / program, "--help")
    check_clean(ended)
    assert ended.stdout.startswith(f"usage: {program}")
    check_refused(run(EXAMPLES / program, "--rattle"), "")


@pytest.mark.parametrize(
    "line",
    [
        "checksum_tree.py --slowest -1",
        "checksum_tree.py --timeout -1",
        "checksum_tree.py --workers 0",
        "extester.py --exit 256",
        "extester.py --repeat -1",
        "extester.py --sleep -1",
        "extester.py --sleep nan",
        "flaky_handler.py --timeout -1",
        "fork_queue.py --size 0",
        "map_commands.py --timeout -1",
        "map_commands.py --workers many",
        "polling_loop.py --jobs -1",
        "polling_loop.py --workers 0",
        "polling_loop.py --workers 99999999999999999999999999",
        "web_jobs.py --port 99999",
    ],
)
def test_a_bad_number_is_refused_by_the_name_of_its_option(line: str, tmp_path: Path) -> None:
    program, option, text = line.split()
    ended = run(EXAMPLES / program, option, text, env={**environment(), "TMPDIR": str(tmp_path)})
    check_refused(ended, f"argument {option}: must be a")
    assert f"not '{text}'" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_web_page_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.syspath_prepend(EXAMPLES)
    with pytest.raises(SystemExit, match=r"^web_jobs.py needs uvicorn, .*: pip install '\.\[web\]'$"):
        runpy.run_path(str(EXAMPLES / "web_jobs.py"))


@pytest.mark.parametrize(
    "line", ["polling_loop.py --jobs 1", "flaky_handler.py --timeout 60", "extester.py --stdout ready --sleep 60"]
)
def test_ctrl_c_ends_it_quietly(line: str) -> None:
    program, *args = line.split()
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command(EXAMPLES / program, *args), stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment(),
        process_group=0,
    ) as running:  # fmt: skip
        try:
            assert running.stdout is not None
            assert running.stdout.readline()  # it is at work
            interrupt(running)
        finally:
            running.kill()


def test_ctrl_c_ends_the_web_page_quietly(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    args = command(EXAMPLES / "web_jobs.py", "--port", port, "--root", tmp_path)
    pipe = subprocess.PIPE
    with subprocess.Popen(args, stdout=pipe, stderr=pipe, text=True, env=environment(), process_group=0) as running:
        try:
            wait_for(lambda: answers(port), what="the server")
            interrupt(running)
        finally:
            running.kill()


def answers(port: int) -> bool:
    """Whether the server is at work: it listens before."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)):
            return False
        probe.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return bool(probe.recv(1))


def interrupt(running: subprocess.Popen[str]) -> None:
    """Ctrl-C, which a terminal sends to the whole process group."""
    os.killpg(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=SECONDS)
    assert (running.returncode, errors) == (130, "")
