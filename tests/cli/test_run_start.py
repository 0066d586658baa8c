"""How a run begins: it is to reach its first command soon."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import bossworker
from bossworker import cli
from bossworker.cli.host_process import HostProcess
from bossworker.cli.main import main
from bossworker.system import forking
from bossworker.system.compiled import core
from bossworker.system.descendants import children

ROOT = Path(bossworker.__file__).parents[1]
PROGRAM = f"import sys; sys.path.append({str(ROOT)!r}); from bossworker.cli.main import main; sys.exit(main())"
SPARED = """
    argparse asyncio bossworker.cli.dry_run bossworker.cli.joblog bossworker.cli.run_parser bossworker.errors
    bossworker.pool bossworker.tasks bossworker.system.checks concurrent.futures csv dataclasses decimal enum fractions
    gettext inspect json locale logging math multiprocessing numbers pathlib pickle random re shlex shutil signal
    socket sqlite3 statistics subprocess tempfile textwrap traceback typing
"""


def test_a_run_loads_what_it_needs_and_no_more() -> None:
    """Neither itself nor its host, until both have ended."""
    command = [sys.executable, "-I", "-S", "-X", "importtime", "-c", PROGRAM, "run", "-j2", "echo", "{}", ":::", "a"]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in told.stderr.splitlines()}
    assert told.stdout == "a\n"
    assert {"bossworker.cli.runner", "bossworker.commands.hosting.host"} <= loaded
    assert not loaded & {*SPARED.split()}


@pytest.mark.skipif(core is None, reason="without a core, it is ctypes that calls the kernel")
def test_ctypes_and_struct_are_for_the_host_alone() -> None:
    program = f"""
import sys; sys.path.append({str(ROOT)!r}); from bossworker.cli.run_start import begin
assert begin()(["echo", ":::", "a"]) == 0
sys.exit(not {{"ctypes", "struct"}}.isdisjoint(sys.modules))"""
    command = [sys.executable, "-I", "-S", "-c", program]
    assert subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout == "a\n"


def test_a_host_that_is_of_no_use_is_ended() -> None:
    host = HostProcess()
    host.drop()
    host.drop()
    with pytest.raises(ProcessLookupError):
        os.kill(host.pid, 0)


def test_a_run_that_is_interrupted_while_it_loads_leaves_no_host(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Interrupting:
        def find_spec(self, name: str, *told: object) -> None:
            if name == "bossworker.cli.run_main":
                raise KeyboardInterrupt

    monkeypatch.delattr(cli, "run_main", raising=False)
    monkeypatch.delitem(sys.modules, "bossworker.cli.run_main", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    before = children(os.getpid())
    assert main(["run", "echo", ":::", "a"]) == 130
    assert children(os.getpid()) == before
    assert capfd.readouterr() == ("", "")


def test_a_program_that_is_interrupted_while_it_loads_ends_without_a_word() -> None:
    """Python would tell of it at length, or lose it in a callback of an import."""
    program = f"""
import os, signal, sys
class Interrupting:
    def find_spec(self, name, *told):
        if name == "bossworker.cli.run_main":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
{PROGRAM}"""
    command = [sys.executable, "-c", program, "run", "echo", ":::", "a"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout, told.stderr) == (-signal.SIGINT, "", "")


def test_a_host_ends_whose_run_is_gone_before_it_tells_what_to_do() -> None:
    host = HostProcess()
    host._link.close()
    assert os.waitpid(host.pid, 0) == (host.pid, 0)


def test_signals_that_end_a_run_do_not_end_its_host() -> None:
    """At no time: it ends what the run has started."""
    host = HostProcess()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(host.pid, number)
    host._link.close()
    assert os.waitpid(host.pid, 0) == (host.pid, 0)


def test_without_a_process_to_be_had_the_run_says_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(forking, "fork", refuse)
    assert main(["run", "echo", ":::", "a"]) == 255
    assert capfd.readouterr().err == "bossworker run: [Errno 11] Resource temporarily unavailable\n"
