"""A launcher is started: which Python runs it, what that is told, and whether it answers as a launcher does."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from bossworker.commands.supervision import launcher, orders
from bossworker.system import program
from bossworker.system.signals import let_through
from bossworker.system.stdio import socket_above_stdio

PYTHON_VARIABLE = "BOSSWORKER_PYTHON"
HELLO_SECONDS = 10.0  # for a launcher to be up; Python takes some hundredths
EXIT_SECONDS = 0.2  # for what hung up to be gone, so that its exit status can be told
MOST_TEXT = 2000  # characters of a complaint, from its end

_PACKAGE_FOLDER = str(Path(__file__).parents[3])
_KEPT_VARIABLES = (b"PYTHONHOME", b"PYTHONPLATLIBDIR")  # without which some Pythons find no library

_ADVICE = f"set {PYTHON_VARIABLE} to a Python program (3.11 or later) that may be started"


class Killed(Exception):
    """It was Python, and somebody killed it before it was up: another one may be started."""


def find_python() -> str:
    """The Python that launchers run in: ``$BOSSWORKER_PYTHON``, else ``sys.executable``.

    OSError when there is none. In a frozen program, that is the program itself, and would start itself again and again.
    """
    told = os.environ.get(PYTHON_VARIABLE)
    if told:
        return os.path.abspath(told) if "/" in told else shutil.which(told) or told
    if not sys.executable:
        raise OSError(f"no launcher can be started: sys.executable is empty; {_ADVICE}")
    if getattr(sys, "frozen", False):
        raise OSError(f"no launcher can be started: sys.executable, {sys.executable!r}, is a frozen program; {_ADVICE}")
    return os.path.abspath(sys.executable)


def start_launcher(detached: bool) -> socket.socket:
    """Start a launcher; its socket, once it is up. The process in between has ended, and is reaped.

    Raises:
        Killed: See there.
        OSError: It cannot be started, or it is no launcher (of this version). The text says what to do.
    """
    python = find_python()
    ours, theirs = map(socket_above_stdio, socket.socketpair())
    first = 0
    try:
        try:
            first = _start(python, theirs.fileno(), detached)
        finally:
            theirs.close()
        let_through(partial(_await_hello, ours, first, python))
        with suppress(ChildProcessError):  # where SIGCHLD is ignored
            os.waitpid(first, 0)  # it has made way for its child before that said hello
    except BaseException:
        ours.close()
        _end(first)
        raise
    return ours


def _start(python: str, fd: int, detached: bool) -> int:
    """What it complains of goes to its socket, where its greetings are awaited."""
    argv = [python, "-s", "-P", "-S", "-c", launcher.PROGRAM, _PACKAGE_FOLDER, str(fd)]
    argv.append("detached" if detached else "attached")
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        return program.start(
            [os.fsencode(arg) for arg in argv], _environment(), b"/", (null, null, fd), keep=(fd,), session=detached
        )
    except program.CannotStart as error:
        raise OSError(f"no launcher can be started: {error}; {_ADVICE}") from None
    finally:
        os.close(null)


def _environment() -> list[bytes]:
    """Ours, but for what is to change how this program's Python behaves, or colours what it says."""
    items = os.environb.items()
    ours = (b"PYTHON", b"FORCE_COLOR")
    return [b"%b=%b" % one for one in items if not one[0].startswith(ours) or one[0] in _KEPT_VARIABLES]


# -- the answer -------------------------------------------------------------------------------------------------


def _await_hello(sock: socket.socket, first: int, python: str) -> None:
    """Returns when the launcher is up, and is of our version."""
    told, hung_up = _listen(sock)
    if orders.HELLO in told:
        _check_version(told)
        return
    if not hung_up:
        raise _no_launcher(python, told, f"it did not answer within {HELLO_SECONDS:g} seconds")
    how = _exit_of(first)
    if how < 0 or told == orders.GREETING:  # killed before or after it made way for its child
        raise Killed
    raise _no_launcher(python, told, f"it ended with exit code {how}" if how else "it ended at once")


def _listen(sock: socket.socket) -> tuple[bytes, bool]:
    """What it says until it is up, or its time is; and whether it has hung up."""
    told = b""
    deadline = time.monotonic() + HELLO_SECONDS
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while not told.endswith(orders.END_OF_HELLO):
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return told, False
        try:
            part = sock.recv(65536)
        except ConnectionError:
            part = b""
        if not part:
            return told, True
        told = (told + part)[-65536:]
    return told, False


def _check_version(told: bytes) -> None:
    version = told.rpartition(orders.HELLO)[2].removesuffix(orders.END_OF_HELLO)
    if version != b"%d" % orders.VERSION:
        theirs = version.decode("ascii", "replace")
        raise OSError(
            f"the launcher speaks version {theirs}, this program {orders.VERSION}: "
            "bossworker was replaced while the program runs; restart the program"
        )


def _no_launcher(python: str, told: bytes, why: str) -> OSError:
    text = told.replace(orders.GREETING, b"").decode("utf-8", "replace").strip()[-MOST_TEXT:]
    said = f"; it says:\n{text}" if text else ""
    if orders.GREETING in told:
        return OSError(f"the launcher, run by {python!r}, failed: {why}{said}")
    source = PYTHON_VARIABLE if os.environ.get(PYTHON_VARIABLE) else "sys.executable"
    return OSError(f"{source}, {python!r}, starts no launcher: {why}; is it Python? {_ADVICE}{said}")


def _exit_of(first: int) -> int:
    """How what was started first has ended, negative if by a signal. What hangs up and stays is ended: 0."""
    deadline = time.monotonic() + EXIT_SECONDS
    with suppress(ChildProcessError):
        while time.monotonic() < deadline:
            pid, status = os.waitpid(first, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.001)
    return 0


def _end(first: int) -> None:
    """It is our child, not reaped yet: its number is its own. (Or it was reaped, and this finds no child.)"""
    if first:
        with suppress(ChildProcessError, ProcessLookupError):
            if not os.waitpid(first, os.WNOHANG)[0]:
                os.kill(first, signal.SIGKILL)
                os.waitpid(first, 0)
