"""The supervisor of a detached job: what it may take, its terminal, and its answer to whoever started it."""

from __future__ import annotations

import marshal
import os

from bossworker.commands.jobdir import JobDirectory
from bossworker.commands.quota import TICK, Quota
from bossworker.commands.supervision import orders
from bossworker.commands.supervision.supervisor import Order, Supervisor
from bossworker.system import descendants
from bossworker.system.eventloop import READ, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bossworker.commands.terminal import Terminal
    from bossworker.system.program import CannotStart

ENTRY = "bossworker.commands.supervision.job_supervisor:supervise_job"


def supervise_job(data: bytes, fd: int, stdin: int, stdout: int, stderr: int, reply: int) -> int:
    """What the launcher calls in its child: start the command, say so, and see it through; the exit code."""
    descendants.mark_detached(descendants.JOB)
    asked = marshal.loads(data)
    directory = JobDirectory(asked["path"], fd)
    order = Order(
        asked["argv"],
        asked["environment"],
        asked["cwd"] or directory.files(),
        (stdin, stdout, stderr),
        umask=asked["umask"],
        timeout=asked["timeout"],
        grace=asked["grace"],
    )
    supervisor = JobSupervisor(directory, order, Loop(), asked)
    try:
        # The answer comes behind this: whoever has got it finds the job on record, and its command running or found not
        # to.
        supervisor.begin()
    except OSError as error:
        orders.answer(reply, error)
        raise
    orders.answer(reply)
    os.close(reply)
    supervisor.run()
    return 0


class JobSupervisor(Supervisor):
    """Sees to a job's limits while it runs, and takes what comes over its terminal."""

    def __init__(self, directory: JobDirectory, order: Order, loop: Loop, asked: dict[str, Any]) -> None:
        super().__init__(directory, order, loop)
        self._streams: tuple[int, ...] = ()
        if asked["max_output"]:
            self._streams = tuple(map(os.dup, order.stdio[1:]))
        self._quota = Quota(asked["memory"], asked["max_output"], self._streams, self.members)
        self._has_stdin: bool = asked["has_stdin"]
        self._wants_terminal: bool = asked["pty"]
        self._terminal: Terminal | None = None

    def start(self) -> None:
        if self._wants_terminal:
            self._take_terminal()
        super().start()
        if self._terminal is not None:
            self.loop.watch(self._terminal.fd, READ, self._take)

    def _take_terminal(self) -> None:
        """OSError when there is none to be had: then nothing is started."""
        from bossworker.commands.terminal import Terminal  # which few jobs need

        stdin, out, err = self.order.stdio
        self._terminal = Terminal(out)
        self.order.stdio = self._terminal.stdio(stdin if self._has_stdin else None)
        self._terminal.hand_over()
        for fd in {stdin, out, err} - set(self.order.stdio):
            os.close(fd)

    def last_step(self) -> Callable[[], object] | None:
        step = super().last_step()
        return step if self._terminal is None else self._terminal.last_step(step)

    def complain(self, error: CannotStart) -> None:
        super().complain(error)
        if self._terminal is not None:
            self._terminal.take()

    def on_started(self) -> None:
        super().on_started()
        if self._quota:
            self.loop.after(TICK, self._check_quota)

    def _check_quota(self) -> None:
        # The timer was set while the command ran; it may have ended since.
        if not self.pid:
            return
        if why := self._quota.check():
            self.end(why)
        self.loop.after(TICK, self._check_quota)

    def _take(self, events: int) -> None:
        if self._terminal is not None and not self._terminal.take():
            self.loop.forget(self._terminal.fd)

    def conclude(self) -> None:
        if self._terminal is not None:
            self._terminal.take()
        self._quota.trim(at_last=True)
        super().conclude()
