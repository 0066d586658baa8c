"""The program's side of its launcher: starts one when it is needed, and hands it orders."""

from __future__ import annotations

import array
import errno
import marshal
import os
import select
import socket
import threading
from contextlib import suppress
from functools import partial

from bossworker.commands.jobdir import WARNING, JobDirectory
from bossworker.commands.request import Request
from bossworker.commands.supervision import job_supervisor, orders
from bossworker.commands.supervision.interpreter import Killed, start_launcher
from bossworker.commands.supervision.supervisor import GRACE
from bossworker.system.circumstances import inherited
from bossworker.system.cpython import NO_SIGPIPE
from bossworker.system.signals import let_through

ATTEMPTS = 5  # launchers that may be killed under an order before it is given up
LAST_ANSWER_SECONDS = 1.0  # for a supervisor whose launcher has died to be heard
_ANSWER_SIZE = 1 << 16  # bytes: what a pipe holds, so that an answer is there as a whole
_POLL_SECONDS = 60.0  # between looks whether an answer was lost without anybody's end; a safety net


class LauncherLine:
    """The line to this process's launcher, which is started by the first order. Any thread may use it, and any signal
    handler; a forked child starts a launcher of its own.

    What a launcher starts has its rights, limits and namespaces. So when those of the calling thread are not what they
    were when the launcher was started, that is replaced.
    """

    def __init__(self, detached: bool = True) -> None:
        """`detached`: whether it leaves this process's session and process group, or stays there."""
        self._detached = detached
        # One that its own thread may take again: a signal handler may start a job while the program starts one.
        self._lock = threading.RLock()
        self._busy = False
        self._sock: socket.socket | None = None
        self._inherited: tuple[object, ...] = ()

    def send(self, data: bytes, fds: list[int]) -> int:
        """Hand over an order; a descriptor that hangs up when the launcher ends, for the caller to close.

        OSError when there is no launcher to be had; `Killed` when one was killed before it was up.
        """
        with self._lock:
            if self._busy:
                # A signal has interrupted this very thread in the block below. The socket may hold half an order, so
                # this one goes to a launcher of its own, which leaves when it has carried it out.
                return self._send_apart(data, fds)
            try:
                self._busy = True
                return self._send(data, fds)
            finally:
                self._busy = False

    def prepare(self) -> None:
        """Start the launcher now, if there is none. OSError when there is none to be had."""
        with self._lock:
            if self._sock is not None or self._busy:
                return
            try:
                self._busy = True  # as in `send`
                self._launch()
            except Killed:  # the order will start another one
                pass
            finally:
                self._busy = False

    def _launch(self) -> None:
        now = inherited()
        self._sock = start_launcher(self._detached)
        self._inherited = now

    def _send(self, data: bytes, fds: list[int]) -> int:
        now = inherited()
        # It may still leave, being idle, between this look and the order: then no answer comes, and the order is given
        # again.
        if self._sock is not None and (self._inherited != now or _has_hung_up(self._sock)):
            self._close()
        if self._sock is None:
            self._launch()
        assert self._sock is not None
        try:
            # A launcher that is stopped takes nothing, so this may last: Ctrl-C must be able to end it. Half an order
            # may have gone by then, behind which no other makes sense: so the launcher is given up.
            let_through(partial(_send, self._sock, data, fds))
        except ConnectionError:  # the answer, which does not come, tells the caller
            pass
        except BaseException:  # a part of it may have been sent: nothing can follow
            self._close()
            raise
        # A descriptor of the caller's own: another thread may replace the launcher while this one waits for its answer.
        return os.dup(self._sock.fileno())

    def _send_apart(self, data: bytes, fds: list[int]) -> int:
        other = LauncherLine(self._detached)
        try:
            return other.send(data, fds)
        finally:
            other.close()

    def close(self) -> None:
        """Let the launcher go, if there is one; the next order starts another."""
        with self._lock:
            self._close()

    def forget(self) -> None:
        """In a forked child: it is the parent's."""
        self._lock = threading.RLock()
        self._busy = False
        self._close()

    def _close(self) -> None:
        # In this order: a Ctrl-C in between must not leave a socket that is closed and still used.
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()


_launcher = LauncherLine()
_attached = LauncherLine(detached=False)
_attached_to = (0, 0)  # the session and process group that it was started in
for _one in (_launcher, _attached):
    os.register_at_fork(after_in_child=_one.forget)


def close_launcher() -> None:
    """Let this process's launchers go at once. What they have started goes on."""
    _launcher.close()
    _attached.close()


def launcher_for(detached: bool) -> LauncherLine:
    """The one whose children are detached from this process, or are in its session and process group."""
    global _attached_to
    if detached:
        return _launcher
    ours = os.getsid(0), os.getpgrp()
    if _attached_to != ours:
        _attached.close()
        _attached_to = ours
    return _attached


def prepare() -> None:
    """What takes longest, before there is a job directory: whoever is killed meanwhile leaves nothing."""
    _launcher.prepare()


def start(directory: JobDirectory, streams: tuple[int, int], request: Request) -> None:
    """Have a supervisor of its own run a command; returns when the command runs, or has been found not to.

    A launcher may be killed at any moment. Whether its order was taken by then is seen in the directory: a supervisor
    puts itself on record before it starts anything. If nobody has, the order is given to another launcher. It can never
    run twice: should the first supervisor only have been slow, one of the two finds the directory claimed by the other.

    OSError when the directory cannot be written to, or no process can be made: then nothing runs.
    """
    data = orders.encode(job_supervisor.ENTRY, marshal.dumps(_asked(directory, request)))
    out, err = streams
    streams = (out, out) if request.merged else (out, err)
    stdin = request.open_stdin()
    try:
        fds = [directory.fd, stdin, *streams]
        if not any(_is_taken(directory, data, fds, attempt) for attempt in range(1, ATTEMPTS + 1)):
            raise OSError("the launcher was killed again and again")
    finally:
        os.close(stdin)


def _is_taken(directory: JobDirectory, data: bytes, fds: list[int], attempt: int) -> bool:
    """Whether an order was taken; if not, its launcher was killed, which is put on record."""
    # In this order: without an answer, the launcher is dead. What it forked before that may claim the directory a
    # moment after this look; then a second supervisor finds it claimed, and nothing runs twice.
    if _order(data, fds) or directory.has_status():
        return True
    directory.note(WARNING, "launcher killed", attempt=attempt, of=ATTEMPTS)
    return False


def _asked(directory: JobDirectory, request: Request) -> dict[str, object]:
    """What `supervise_job` reads."""
    return {
        "path": directory.path,
        "argv": request.encoded_argv(),
        "environment": request.environment(directory.id, apart=True),
        "cwd": request.cwd and os.fsencode(request.cwd),
        "umask": current_umask(),
        "timeout": request.timeout,
        "grace": GRACE if request.grace is None else request.grace,
        "memory": request.memory,
        "max_output": request.max_output,
        "pty": request.pty,
        "has_stdin": request.stdin is not None,
    }


def _order(data: bytes, fds: list[int]) -> bool:
    """Whether there was an answer. OSError if it is one."""
    told = ask(_launcher, data, fds)
    if not told:
        return False
    number, text = marshal.loads(told)
    if number and number != errno.EEXIST:  # that of a launcher that we had given up has it
        raise OSError(number, text)
    return True


def ask(by: LauncherLine, data: bytes, fds: list[int]) -> bytes:
    """Hand over an order, with where to answer behind its descriptors; the answer, or nothing if there will be none."""
    answer, theirs = os.pipe()
    alive = -1
    try:
        try:
            alive = by.send(data, [*fds, theirs])
        except Killed:
            return b""
        finally:
            os.close(theirs)
        return _await_answer(answer, alive)
    finally:
        os.close(answer)
        if alive >= 0:
            os.close(alive)


def _await_answer(answer: int, launcher_alive: int) -> bytes:
    """The answer, or nothing when there will be none.

    Its pipe may be held open by a child that another thread forked just then: so the launcher's end counts too.
    """
    poll = select.poll()
    poll.register(answer, select.POLLIN)
    poll.register(launcher_alive, select.POLLHUP)
    look = partial(poll.poll, _POLL_SECONDS * 1000)
    while not (found := dict(let_through(look))):
        pass
    # The launcher is gone, which hangs up here at once; its supervisor may have been forked before, and still be about
    # to answer.
    if answer not in found:
        poll.unregister(launcher_alive)
        if not poll.poll(LAST_ANSWER_SECONDS * 1000):
            return b""
    return os.read(answer, _ANSWER_SIZE)


def _send(sock: socket.socket, data: bytes, fds: list[int]) -> None:
    """An encoded order, with the descriptors beside its first bytes."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
    sent = sock.sendmsg([data], rights, NO_SIGPIPE)
    sock.sendall(data[sent:], NO_SIGPIPE) if sent < len(data) else None


def _has_hung_up(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLHUP)
    return bool(poll.poll(0))


def current_umask() -> int:
    """Ours, for the command; it can only be asked for by setting it, except on Linux."""
    with suppress(OSError, StopIteration, ValueError):
        with open("/proc/self/status", "rb", buffering=0) as file:
            lines = file.readall().splitlines()
        return int(next(line for line in lines if line.startswith(b"Umask:")).split()[1], 8)
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
