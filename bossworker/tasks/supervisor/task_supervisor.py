"""The supervisor of one task: a small process, one poll loop over the command, its streams and its clients.

It stays for a while after the command's end, to start it again if it is asked to, until somebody ends it or deletes
the task. All that it knows is also in the task's job directory, so that nothing is lost with it. What is decided is in
``task_ledger.py``.
"""

from __future__ import annotations

import os
import time

from bossworker.commands import job_status, jobdir
from bossworker.commands.supervision.supervisor import Supervisor
from bossworker.system import descendants, program
from bossworker.system.cpython import dumps, signal
from bossworker.tasks.supervisor.pipes import RETRY_SECONDS
from bossworker.tasks.supervisor.restarts import Restarts
from bossworker.tasks.supervisor.streams import Streams
from bossworker.tasks.supervisor.task_events import TaskEvents
from bossworker.tasks.supervisor.task_ledger import TaskLedger
from bossworker.tasks.wire import protocol, task_info

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bossworker.commands.jobdir import JobDirectory
    from bossworker.commands.supervision.supervisor import Order
    from bossworker.system.eventloop import Loop
    from bossworker.tasks.supervisor.clients import Client
    from bossworker.tasks.wire.lockfile import LockFile

    _Then = Callable[[], object]
    _Refuse = Callable[[str], object]

TASK_FD = 3  # the number of the command's descriptor for messages: one digit, or some shells cannot name it
_WHOLE_TREE = frozenset((signal.SIGSTOP, signal.SIGCONT))  # whoever pauses a task means all that it has started


class TaskSupervisor(Supervisor):
    """Sees a task through: the steps of `Supervisor`, each perhaps more than once, and what clients ask for."""

    def __init__(
        self, directory: JobDirectory, order: Order, loop: Loop, job: dict[str, Any], lock: LockFile | None
    ) -> None:
        super().__init__(directory, order, loop)
        task = job[task_info.TASK]
        self.job = job
        self.meta: dict[str, Any] = job.get("meta") or {}
        self.lock = lock
        self.failure: program.CannotStart | None = None
        """Why the command could not be started, the last time."""
        self.streams = Streams(
            loop,
            directory.fd,
            cap=task["max_read_buf_size"],
            retain=task["retain_output"],
            changed=self._output_came,
        )
        self.events = TaskEvents(loop, self.streams, self._exit_event)
        self.ledger = TaskLedger(
            Restarts(task["restart"], task["restart_limit"], task["restart_backoff"], task["restart_backoff_max"])
        )
        self._linger: float | None = task["linger"]
        self._timer = 0  # of a restart that is due, or until we leave; never of both
        self._waiting: list[tuple[_Then, _Refuse]] = []
        """To be called for those who have asked us to leave: when all are gone, or with the reason why we cannot."""
        self.remove_files: _Then = lambda: None
        """Removes all that there is of the task."""

    # -- the command's life -----------------------------------------------------------------------------

    def start(self) -> None:
        """Connect the streams and start the command, or note why it cannot be. OSError: nothing has changed."""
        self._connect()
        self._start_connected(due=False)

    def _connect(self) -> None:
        """Take all that may be short: room on the disk, and descriptors. OSError: then nothing has changed."""
        self.directory.take_room()
        self.order.stdio, data = self.streams.connect()
        os.dup2(data, TASK_FD, inheritable=False)
        os.close(data)
        self.order.keep = (TASK_FD,)

    def _start_connected(self, due: bool) -> None:
        self.streams.goes_on = self.ledger.on_start(due)
        self.failure = None
        self.loop.cancel(self._timer)
        try:
            super().start()
        finally:
            os.dup2(0, TASK_FD, inheritable=False)  # ours stays open only for the command's

    def on_started(self) -> None:
        starts = self.ledger.on_started()
        super().on_started()
        if starts > 1:
            self.note(jobdir.INFO, "started again", starts=starts)
            self.events.tell({"event": protocol.RESTART, "pid": self.pid, "count": starts - 1})

    def on_cannot_start(self, error: program.CannotStart) -> None:
        self.failure = error
        self.note(jobdir.WARNING, "not started", reason=error.reason)
        status = job_status.not_started(self.status, error.exit_code, error.reason, time.time())
        self._ended(status, elapsed=0.0)

    def conclude(self) -> None:
        """The command has ended, and what was to end with it."""
        self.streams.drain()
        status = self.last_status()
        self.note_end(status)
        self._exit, self.reason = None, ""
        self._ended(status, status["elapsed"])

    def _ended(self, status: dict[str, Any], elapsed: float) -> None:
        self.status = status
        delay = self.ledger.on_end(status["state"], elapsed, time.time())
        if delay is not None:
            facts = {"delay": delay, "state": status["state"], "exit_code": status["exit_code"]}
            self.note(jobdir.WARNING, "to be started again", **facts)
        self._settle(delay)
        if self.ledger.must_leave:
            self.leave()

    def _settle(self, delay: float | None) -> None:
        """The command has ended: see to what comes next, and say so. It is started again after `delay`, or it is over.

        When it is over, the lock is given up before anybody hears of the end, and we leave some day.
        """
        self.streams.goes_on = delay is not None
        self.streams.command_ended()
        self.write_status(last=True)
        self.loop.cancel(self._timer)
        if delay is None and self.lock is not None:
            self.lock.release()
        seconds, step = (self._linger, self._depart) if delay is None else (delay, self._start_again)
        if seconds is not None:
            self._timer = self.loop.after(seconds, step)
        self.events.tell(self._exit_event())

    def _depart(self) -> None:
        """Leave, unless the command has left something behind, or somebody has a stream of it: then look again."""
        if self.streams.connected or self.members():
            self._timer = self.loop.after(max(self._linger or 0.0, RETRY_SECONDS), self._depart)
        else:
            self.leave()

    def _start_again(self) -> None:
        try:
            self._connect()
        except OSError as error:
            why = f"the command cannot be started again: {error.strerror}"
            self.ledger.on_postponed(why, time.time() + RETRY_SECONDS)
            self._timer = self.loop.after(RETRY_SECONDS, self._start_again)
            self.status[task_info.TASK] = self.ledger.facts()
        else:
            self._start_connected(due=True)

    def requested_signal(self) -> int:
        assert self._exit is not None
        wait_status, _, elapsed = self._exit
        ended_by = os.WTERMSIG(wait_status) if os.WIFSIGNALED(wait_status) else 0
        return self.ledger.requested(ended_by, self._started + elapsed)

    # -- the record -------------------------------------------------------------------------------------

    def write_status(self, last: bool = False) -> None:
        """Put on record how it stands. On a full disk the old status stands, until there is another."""
        self.status[task_info.TASK] = self.ledger.facts()
        try:
            (self.directory.write_last_status if last else self.directory.write_status)(self.status)
        except OSError:
            pass

    def _exit_event(self) -> dict[str, Any]:
        status = self.status
        told = {key: status.get(key) for key in ("state", "exit_code", "signal", "core", "reason")}
        return {"event": protocol.EXIT, **told, "final": self.ledger.next_start is None}

    def info(self) -> dict[str, Any]:
        """The account of the task, as of now."""
        paused, usage = task_info.live(self.pid) if self.pid else (False, None)
        return task_info.info(
            self.directory.id,
            self.job,
            self.status,
            self.meta,
            self.streams.info(),
            alive=True,
            clients=self.events.clients,
            paused=paused,
            usage=usage,
            trouble=[*self.streams.trouble(), *filter(None, [self.ledger.postponed])],
        )

    # -- what clients ask for ---------------------------------------------------------------------------

    def apply_meta(self, change: dict[str, Any]) -> None:
        """Merge into the metadata. OSError or ValueError when it cannot be put on record: then it is as it was."""
        meta = merged(self.meta, change)
        size = len(dumps(meta))
        if size > protocol.MAX_META:
            raise ValueError(f"all of it would have {size} bytes in JSON; {protocol.MAX_META} are allowed")
        self.directory.write_json(task_info.META, meta)
        self.meta = meta
        self.events.tell({"event": protocol.META, "meta": change})

    def signal(self, number: int) -> bool:
        """Send a signal to the command and its process group, or to all that it has started; whether there is one."""
        if not self.pid:
            if number in job_status.ENDING_SIGNALS and self.ledger.on_restart_unwanted():
                self._settle(None)
            return False
        self.ledger.on_signal(number, time.monotonic())
        if number == signal.SIGKILL:
            self.end("", grace=0.0)
        elif number in _WHOLE_TREE:
            descendants.send(number, self.members())
        elif number:
            os.killpg(self.pid, number)
        return True

    def restart(self) -> bool:
        """Start the command again, if it has ended; whether it had. OSError or LockHeld: all is as it was."""
        if self.pid or self._ending is not None:
            return False
        if self.lock is not None:
            self.lock.acquire()  # or it is ours still, when a restart is due
        try:
            self._connect()
        except OSError:
            if self.lock is not None and self.ledger.next_start is None:
                self.lock.release()
            raise
        self._start_connected(due=False)
        return True

    def leave(self, then: _Then | None = None, refuse: _Refuse | None = None, grace: float | None = None) -> None:
        """End the command and all that it has started, and then the supervisor; `then` is called in between.

        When somebody cannot be ended, `refuse` is called with the reason instead, and the supervisor stays.
        """
        if then and refuse:
            self._waiting.append((then, refuse))
        if self.ledger.on_leave(refusable=refuse is not None):
            self._settle(None)
        self.end_all("its supervisor was ended", grace)
        if self._ending is not None and self._ending.hopeless:  # it was tried before
            self._stay(self._ending.hopeless)

    def told_to_end(self, number: int) -> None:
        """This process has been sent a signal that means its end: end the command, and then leave.

        The command is told in the same way, for it may handle the one and not the other. If the signal was sent to all
        processes alike, TERM in its place would end the command before it has done what it does on that signal.
        """
        self.ledger.on_told_to_end()
        if number != signal.SIGTERM and not self.ledger.leaving and self.signal(number):
            self.loop.after(self.order.grace, self.leave)  # TERM, then, and KILL
        else:
            self.leave()

    def watch(self, client: Client) -> None:
        """Tell a client what happens from now on, and first what has happened already."""
        over = self.status["state"] not in (jobdir.CREATED, jobdir.RUNNING)  # not as soon as it is reaped
        self.events.watch(client, over)

    def _output_came(self, stream: int) -> None:
        self.events.output_came(stream)

    def on_hopeless(self, why: str) -> None:
        self._stay(why)
        super().on_hopeless(why)

    def _stay(self, why: str) -> None:
        """Tell whoever wanted us to leave that we cannot. Without anybody to tell, we leave when it is over."""
        self.ledger.on_cannot_leave()
        waiting, self._waiting = self._waiting, []
        for _, refuse in waiting:
            refuse(why)

    def on_all_gone(self) -> None:
        super().on_all_gone()
        if self.ledger.on_all_gone():
            self.write_status()
            waiting, self._waiting = self._waiting, []
            for then, _ in waiting:
                then()
            self.loop.stop()


def merged(old: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """The change put over the old mapping: mappings are merged at every depth, anything else is replaced."""
    both = {key: value for key, value in change.items() if isinstance(value, dict) and isinstance(old.get(key), dict)}
    return {**old, **change, **{key: merged(old[key], value) for key, value in both.items()}}
