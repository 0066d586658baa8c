"""The processes that hold ZeroMQ beside a program: a door, or a porter. libzmq's threads are theirs, and nobody else's.

Each is a fresh interpreter, whatever the program's own processes are: no thread, lock or descriptor of the program's is
in it, it is started from threaded programs as well, and it loads nothing of the program's.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from bossworker.pool.wire.link import Link, LinkClosed, link_pair
from bossworker.pool.wire.messages import Kind
from bossworker.system import processes, signals, stdio

END_SECONDS = 1.0  # for one that was told to end

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from importlib import import_module; import_module(sys.argv[2]).main(*map(int, sys.argv[3:]))"
)


class SideProcess:
    """One of them, as the program sees it: a child, and a link to it."""

    def __init__(self, module: str, settings: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """Start it. Its ``main`` gets the number of its link, over which the `settings` come, and those of `fds`."""
        ours, theirs = link_pair()
        try:
            with stdio.stdio_reserved(), signals.endings_blocked():  # they stay so there, until it disregards them
                self.pid = _start(module, [theirs.fileno(), *fds])
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self.link = Link(ours)
        with suppress(LinkClosed):  # its end will be noticed
            self.link.send(Kind.LISTEN, b"", [json.dumps(settings).encode()])

    def end(self) -> None:
        """Hang up, and wait until it is gone."""
        self.link.close()
        processes.wait_or_kill(self.pid, END_SECONDS)


def _start(module: str, fds: list[int]) -> int:
    path = json.dumps(list(map(os.path.abspath, sys.path)))
    command = [sys.executable, "-S", "-E", "-c", _PROGRAM, path, module, *map(str, fds)]
    child = subprocess.Popen(
        command, pass_fds=fds, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True, cwd="/"
    )
    child.returncode = 0  # its end is ours to wait for
    return child.pid


def begin(fd: int) -> tuple[Link, dict[str, Any]]:
    """In the process: make it one of the pool's, and take in its settings. Ends it when the program is gone."""
    signals.disregard_endings()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    link = Link(socket.socket(fileno=fd))
    while True:
        processes.await_fd(link.fileno(), select.POLLIN)
        try:
            frames = link.receive()
        except LinkClosed:
            raise SystemExit(1) from None
        if frames:
            return link, json.loads(bytes(frames[0].body))
