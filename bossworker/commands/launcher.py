"""The launcher: a small process beside a program that starts detached commands. It forks a supervisor for each.

It is started without Python between fork and exec, so that a program with threads may have one; it is single-threaded
and holds nothing, so that a fork of it is quick and its pages stay shared. It is not its program's child: nothing has
to wait for it. It leaves when the program is gone, or asks for nothing for a while.

An order is a length, descriptors beside its first byte, and marshalled data: what passes is between one program and
the process that it started itself.
"""

from __future__ import annotations

import errno
import gc
import marshal
import os
import select
import sys

from bossworker.commands import identity, tree
from bossworker.commands.jobdir import JobDirectory
from bossworker.commands.loop import Loop
from bossworker.commands.supervisor import Order, Supervisor
from bossworker.system.cpython import signal, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

IDLE_SECONDS = 5.0
LENGTH = 8  # bytes, little-endian
DESCRIPTORS = 5  # of an order at most: job directory, stdin, stdout, stderr, and where the answer goes
JOB, TASK = b"j", b"t"  # the first byte of an order's data
FD_BYTES = 4

PROGRAM = (
    "import os, sys; os.fork() and os._exit(0); sys.path.append(sys.argv[1]); "
    "from bossworker.commands.launcher import main; "
    "main(int(sys.argv[2]), sys.argv[3] == 'detached')"
)
"""Run as ``python -I -S -c PROGRAM FOLDER DESCRIPTOR detached|attached``; what is started leaves at once, and a
child of it goes on."""


def main(fd: int, detached: bool) -> None:
    """The launcher's whole life. It stays in its program's session and process group unless it is to be detached."""
    if detached:
        os.setsid()
    shed(fd)
    warm_up()
    orders = socket.socket(fileno=fd)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while poll.poll(IDLE_SECONDS * 1000):
        order = receive(orders)
        if order is None:
            break
        data, fds = order
        if data[:1] == TASK:
            load_tasks()
        try:
            pid = os.fork()
        except OSError as error:
            answer(fds[-1], error)
        else:
            if pid == 0:
                orders.close()
                become(data, fds)
        for one in fds:
            os.close(one)
    os._exit(0)


def warm_up() -> None:
    """What every supervisor would do for itself otherwise, in pages of its own."""
    tree.load_prctl()
    identity.boot_id()
    gc.disable()
    gc.freeze()


def load_tasks() -> None:
    """Be ready for supervisors of tasks, once the first is asked for."""
    if "bossworker.tasks.birth" not in sys.modules:
        import bossworker.tasks.birth  # noqa: F401

        gc.freeze()


def shed(keep: int) -> None:
    """Let go of all that is the program's: its folder, descriptors, signal dispositions, umask."""
    os.chdir("/")
    os.umask(0o077)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors need no reaping
    for number in (signal.SIGHUP, signal.SIGINT):  # a handler, not "ignored", which a command would inherit
        signal.signal(number, lambda number, frame: None)


def receive(orders: Any) -> tuple[bytes, list[int]] | None:
    """An order's data and descriptors; None when the program is gone."""
    head, ancillary, _, _ = orders.recvmsg(LENGTH, socket.CMSG_SPACE(DESCRIPTORS * FD_BYTES), _CLOEXEC)
    fds = [fd for _, _, data in ancillary for fd in descriptors(data)]
    size = read(orders, LENGTH - len(head), head) if head else None
    data = None if size is None else read(orders, int.from_bytes(size, "little"))
    if data is None or not fds:
        return None
    return data, fds


_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def descriptors(data: bytes) -> list[int]:
    starts = range(0, len(data) - len(data) % FD_BYTES, FD_BYTES)
    return [int.from_bytes(data[start : start + FD_BYTES], sys.byteorder) for start in starts]


def read(orders: Any, count: int, begun: bytes = b"") -> bytes | None:
    """So many bytes more; None when the program went away in the middle."""
    parts = [begun]
    while count:
        part = orders.recv(min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def answer(fd: int, error: OSError | None = None) -> None:
    """Tell whoever waits how it went: an error number and a text."""
    told = (0, "") if error is None else (error.errno or errno.EIO, error.strerror or str(error))
    try:
        os.write(fd, marshal.dumps(told))
    except OSError:  # nobody waits any more; the command runs all the same
        pass


def become(data: bytes, fds: list[int]) -> None:
    """In the child: be the supervisor that was ordered, and never return."""
    status = 1
    try:
        if data[:1] == TASK:
            from bossworker.tasks import birth

            status = birth.forked(data[1:], *fds)
        else:
            status = supervise_job(data[1:], fds)
    finally:
        os._exit(status)


def supervise_job(data: bytes, fds: list[int]) -> int:
    """Start the command, say so, and see it through; the exit code."""
    tree.stand_apart(tree.JOB)
    fd, stdin, stdout, stderr, reply = fds
    path, argv, environment, cwd, umask, timeout = marshal.loads(data)
    order = Order(argv, environment, cwd, (stdin, stdout, stderr), umask=umask, timeout=timeout)
    supervisor = Supervisor(JobDirectory(path, fd), order, Loop())
    try:
        supervisor.begin()
    except OSError as error:
        answer(reply, error)
        raise
    answer(reply)
    os.close(reply)
    supervisor.run()
    return 0
