"""The task that this very program runs as."""

from __future__ import annotations

import os
import select
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

from bossworker.system import processes
from bossworker.system.checks import check_seconds
from bossworker.system.cpython import NO_SIGPIPE
from bossworker.tasks.client.leftovers import TASK_ID
from bossworker.tasks.client.stream import Stream, check_message
from bossworker.tasks.client.task import Task
from bossworker.tasks.errors import StreamClosed, TaskError
from bossworker.tasks.wire.protocol import MAX_MESSAGE
from bossworker.tasks.wire.stream_files import DATA

if TYPE_CHECKING:
    from bossworker.tasks.client.task_pool import TaskPool


class OwnMessages(Stream):
    """The stream ``data`` as the task itself has it: `write` sends to those who watch, `read` takes what they sent."""

    def __init__(self, task: Task, fd: int) -> None:
        super().__init__(task, DATA)
        self._fd = fd

    def write(self, data: bytes | bytearray | memoryview | str, timeout: float | None = None) -> int:
        """Send one message; see `Stream.write`. Waits while the supervisor cannot keep it: its disk is full."""
        view = check_message(data)
        deadline = None if timeout is None else time.monotonic() + check_seconds("timeout", timeout)
        try:
            while self._await(select.POLLOUT | select.POLLHUP | select.POLLERR, deadline):
                with suppress(BlockingIOError):
                    return self._send(view)
        except ConnectionError as error:
            raise StreamClosed("the supervisor is gone") from error
        return 0

    def _send(self, view: memoryview) -> int:
        with socket.socket(fileno=os.dup(self._fd)) as sock:
            sock.setblocking(True)  # for whoever shares it, whatever socket.setdefaulttimeout says
            return sock.send(view, NO_SIGPIPE | socket.MSG_DONTWAIT)

    def _await(self, event: int, deadline: float | None) -> bool:
        seconds = None if deadline is None else max(0.0, deadline - time.monotonic())
        return processes.await_fd(self._fd, event, seconds)

    def receive(self, timeout: float | None = None) -> bytes | None:
        """The next message from outside; None when there is none in `timeout` seconds, or none can come any more.

        A `timeout` of 0 does not wait; None: no limit.
        """
        deadline = None if timeout is None else time.monotonic() + check_seconds("timeout", timeout)
        if not self._await(select.POLLIN, deadline):
            return None
        try:
            return os.read(self._fd, 2 * MAX_MESSAGE) or None
        except ConnectionError:
            return None

    def read(self, ofs: int | None = None, count: int | None = None) -> list[bytes]:
        """The messages from outside that have come and were not read yet, at most `count`."""
        if ofs is not None:
            raise ValueError("ofs must be None: messages from outside are not kept")
        found: list[bytes] = []
        while (count is None or len(found) < count) and (message := self.receive(0.0)) is not None:
            found.append(message)
        return found

    def follow(self, timeout: float | None = None) -> Iterator[bytes]:
        """Messages from outside as they come, until none can come any more, or none does for `timeout` seconds."""
        while (message := self.receive(timeout)) is not None:
            yield message


class CurrentTask(Task):
    """The task that this program runs as; see `current`."""

    def __init__(self, task_pool: TaskPool, pid: int, job_id: str, fd: int | None) -> None:
        super().__init__(task_pool, pid)
        self._belong_to(job_id)
        self._fd = fd

    def stream(self, index_or_name: int | str) -> Stream:
        """As for any task; ``data`` is this program's own end of it: see `messages`."""
        return super().stream(index_or_name)

    def _make_stream(self, number: int) -> Stream:
        return self.messages if number == DATA else super()._make_stream(number)

    @cached_property
    def messages(self) -> OwnMessages:
        """Messages to and from those who watch: the stream ``data`` from this side.

        TaskError when the descriptor was not passed on to this process.
        """
        if self._fd is None:
            raise TaskError("this process has no descriptor for messages")
        return OwnMessages(self, self._fd)

    def send(self, message: bytes | str) -> None:
        """Send a message to those who read the task's stream ``data``."""
        self.messages.write(message)

    def receive(self, timeout: float | None = None) -> bytes | None:
        """The next message that somebody wrote to the task's ``data``; None after `timeout` seconds, or at the end."""
        return self.messages.receive(timeout)


def current() -> CurrentTask | None:
    """The task that this program runs as; None when it does not run as one.

    A program in any language finds the same in its environment: ``BOSSWORKER_TASKS`` (the pool's directory),
    ``BOSSWORKER_TASK_PID`` (the supervisor's pid), ``BOSSWORKER_TASK_ID`` (of which the last twelve digits, with
    ``.sock`` behind them, name the supervisor's socket in that directory), and ``BOSSWORKER_TASK_FD``, the number of a
    descriptor: each write to it is a message to those who watch, each read one from them. A message may have 131072
    bytes; a write of more than the socket takes fails (EMSGSIZE), never cut.
    """
    from bossworker.tasks.client.task_pool import TaskPool

    environ = os.environ
    try:
        pid, job_id, path = int(environ["BOSSWORKER_TASK_PID"]), environ[TASK_ID], environ["BOSSWORKER_TASKS"]
    except (KeyError, ValueError):
        return None
    return CurrentTask(TaskPool(path), pid, job_id, _message_fd(environ.get("BOSSWORKER_TASK_FD", "")))


def _message_fd(text: str) -> int | None:
    """The descriptor, if it is what it says: a child of the task may have the variable and not the descriptor."""
    if not text.isdecimal():
        return None
    try:
        if not stat.S_ISSOCK(os.fstat(int(text)).st_mode):
            return None
        os.set_inheritable(int(text), False)
    except OSError:
        return None
    return int(text)
