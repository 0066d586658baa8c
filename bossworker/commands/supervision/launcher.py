"""The launcher: a small process beside a program that starts detached commands. It forks a supervisor for each.

It is started without Python between fork and exec, so that a program with threads may have one; it is single-threaded
and holds nothing, so that a fork of it is quick and its pages stay shared. It is not its program's child: nothing has
to wait for it. It leaves when the program is gone, or asks for nothing for a while.

What it is told comes from the program that started it, over a socket pair; see ``orders.py``.
"""

from __future__ import annotations

import gc
import os
import select
import sys

from bossworker.commands.supervision import orders
from bossworker.system import descendants, identity
from bossworker.system.cpython import signal, socket
from bossworker.system.descriptors import close_all_but

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

IDLE_SECONDS = 5.0

_NAMES = "SIGHUP SIGINT SIGQUIT SIGTERM SIGUSR1 SIGUSR2"
OUTLIVED = tuple(getattr(signal, name) for name in _NAMES.split())
"""What a service manager (or ``pkill``) sends to all processes of a service alike. A supervisor lives on, to put on
record how its command ends by it; the launcher leaves with its program."""

PROGRAM = (
    f"import os, sys; os.write(int(sys.argv[2]), {orders.GREETING!r}); "
    "os.fork() and os._exit(0); sys.path.append(sys.argv[1]); "
    "from bossworker.commands.supervision.launcher import main; "
    "main(int(sys.argv[2]), sys.argv[3] == 'detached')"
)
"""Run as ``python -s -P -S -c PROGRAM FOLDER DESCRIPTOR detached|attached``; what is started leaves at once, and a
child of it goes on. Until it has said hello, its stderr is the socket: so its program hears why it could not."""


def main(fd: int, detached: bool) -> None:
    """The launcher's whole life. It stays in its program's session and process group unless it is to be detached."""
    if detached:
        os.setsid()
    shed(fd)
    warm_up()
    # Once all is shed: whoever reads this may rely on our holding nothing open that it closes.
    os.write(fd, orders.hello())
    program = socket.socket(fileno=fd)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    # An order may come just after this has given up. Whoever sent it sees us hang up without an answer, and starts
    # another launcher.
    while poll.poll(IDLE_SECONDS * 1000):
        order = orders.receive(program)
        if order is None:
            break
        _carry_out(*order, program)
    os._exit(0)


def _carry_out(entry: str, data: bytes, fds: list[int], program: socket.socket) -> None:
    """Fork the supervisor that an order asks for; or answer why there is none."""
    main_of(entry)  # here, so that the pages of what is imported are shared by all supervisors
    try:
        pid = os.fork()
    except OSError as error:
        orders.answer(fds[-1], error)
    else:
        if pid == 0:
            program.close()
            become(entry, data, fds)
    for one in fds:
        os.close(one)


def warm_up() -> None:
    """What every supervisor would do for itself otherwise, in pages of its own."""
    descendants.load_prctl()
    identity.own()
    gc.disable()
    gc.freeze()


def main_of(entry: str) -> Callable[..., int]:
    """The function ``package.module:function`` that a supervisor of this kind runs."""
    module, _, name = entry.partition(":")
    if module not in sys.modules:
        __import__(module)
        gc.freeze()
    main: Callable[..., int] = getattr(sys.modules[module], name)
    return main


def shed(keep: int) -> None:
    """Let go of all that is the program's: its folder, descriptors, signal dispositions, umask."""
    os.chdir("/")
    os.umask(0o077)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    close_all_but(keep)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # The kernel reaps supervisors: nobody here looks at their pids, so it does not matter that these are used again.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for number in OUTLIVED:  # a handler, not "ignored", which a command would inherit
        signal.signal(number, lambda number, frame: None)


def become(entry: str, data: bytes, fds: list[int]) -> None:
    """In the child: be the supervisor that was ordered, and never return."""
    status = 1
    try:
        status = main_of(entry)(data, *fds)
    finally:
        os._exit(status)
