"""The supervisor of one task: a small process, one poll loop over the command, its streams and its clients.

It stays for a while after the command's end, to start it again if it is asked to, until somebody ends it or deletes
the task. All that it knows is also in the task's job directory, so that nothing is lost with it.
"""

from __future__ import annotations

import os
import time

from bossworker.commands import job_status, jobdir
from bossworker.commands.supervision.supervisor import Supervisor
from bossworker.system import descendants, program
from bossworker.system.cpython import dumps, signal
from bossworker.tasks.supervisor.pipes import RETRY_SECONDS
from bossworker.tasks.supervisor.restarts import NEVER, Restarts
from bossworker.tasks.supervisor.streams import Streams
from bossworker.tasks.supervisor.task_events import TaskEvents
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

TASK_FD = 3  # the number of the command's descriptor for messages: one digit, or some shells cannot name it
END_SECONDS = 5.0  # in which a command that was told to end may fail, and be counted as having done so
_MEANS_END = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL))  # whoever may handle it
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
        self._restarts = Restarts(
            task["restart"], task["restart_limit"], task["restart_backoff"], task["restart_backoff_max"]
        )
        self._linger: float | None = task["linger"]
        self._linger_timer = 0
        self._left = False
        self._starts = 0
        self._restart_timer = 0
        self._next_start: float | None = None  # Unix seconds
        self._postponed = ""  # why a restart that is due cannot be
        self._asked: dict[int, float] = {}  # signals that clients had sent, and when, in monotonic seconds
        self._leaving: Callable[[], object] | None = None
        self._leaves_next = False  # as soon as the command has ended
        self._refuse_to_leave: Callable[[str], object] | None = None
        self.remove_files: Callable[[], object] = lambda: None
        """Removes all that there is of the task."""

    # -- the command's life -----------------------------------------------------------------------------

    def start(self) -> None:
        """Connect the streams and start the command, or note why it cannot be. OSError: nothing has changed."""
        self._connect()
        self._start_connected()

    def _connect(self) -> None:
        """Take all that may be short: room on the disk, and descriptors. OSError: then nothing has changed."""
        self.directory.take_room()
        self.order.stdio, data = self.streams.connect()
        os.dup2(data, TASK_FD, inheritable=False)
        os.close(data)
        self.order.keep = (TASK_FD,)

    def _start_connected(self) -> None:
        self.streams.goes_on = self._restarts.policy != NEVER
        self.loop.cancel(self._linger_timer)
        self.failure, self._postponed = None, ""
        self._asked, self._next_start = {}, None
        try:
            super().start()
        finally:
            os.dup2(0, TASK_FD, inheritable=False)  # ours stays open only for the command's

    def on_started(self) -> None:
        self._starts += 1
        super().on_started()
        if self._starts > 1:
            self.note(jobdir.INFO, "started again", starts=self._starts)
            self.events.tell({"event": protocol.RESTART, "pid": self.pid, "count": self._starts - 1})

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

    def _restart_delay(self, status: dict[str, Any], elapsed: float) -> float | None:
        """Seconds after which the command is started again; None: it is not."""
        if self._leaving is not None or self._leaves_next:
            return None
        delay = self._restarts.delay(
            failed=status["state"] != jobdir.COMPLETED,
            requested=status["state"] == jobdir.BY_REQUEST,
            ran_seconds=elapsed,
        )
        if delay is not None:
            facts = {"delay": delay, "state": status["state"], "exit_code": status["exit_code"]}
            self.note(jobdir.WARNING, "to be started again", **facts)
        return delay

    def _ended(self, status: dict[str, Any], elapsed: float) -> None:
        delay = self._restart_delay(status, elapsed)
        self._next_start = None if delay is None else time.time() + delay
        self.status = status
        self.streams.goes_on = delay is not None
        self.streams.command_ended()
        self.write_status(last=True)
        if delay is not None:
            self._restart_timer = self.loop.after(delay, self._start_again)
        else:
            self._is_over()
        self.events.tell(self._exit_event())
        if self._leaves_next and self._leaving is None:
            self.leave(_nothing)

    def _is_over(self) -> None:
        """No restart is due: the lock is given up before anybody hears of the end, and we leave some day."""
        if self.lock is not None:
            self.lock.release()
        if self._linger is not None:
            self._linger_timer = self.loop.after(self._linger, self._depart)

    def _depart(self) -> None:
        """Leave, unless the command has left something behind, or somebody has a stream of it: then look again."""
        if self.streams.connected or self.members():
            self._linger_timer = self.loop.after(max(self._linger or 0.0, RETRY_SECONDS), self._depart)
        else:
            self.leave(_nothing)

    def _start_again(self) -> None:
        self._restart_timer = 0
        try:
            self._connect()
        except OSError as error:
            self._postpone(error)
        else:
            self._restarts.started()
            self._start_connected()

    def _postpone(self, error: OSError) -> None:
        """No room for another start: the restart stays due."""
        self._postponed = f"the command cannot be started again: {error.strerror}"
        self._next_start = time.time() + RETRY_SECONDS
        self._restart_timer = self.loop.after(RETRY_SECONDS, self._start_again)
        self.status[task_info.TASK]["next_start"] = self._next_start

    def _cancel_restart(self) -> None:
        if self._restart_timer:
            self.loop.cancel(self._restart_timer)
            self._restart_timer, self._next_start, self._postponed = 0, None, ""
            self.streams.goes_on = False
            self.streams.command_ended()
            self.write_status(last=True)
            self._is_over()
            self.events.tell(self._exit_event())

    def requested_signal(self) -> int:
        """The one that the command ended by: at once, or by its own doing and soon. What it survived does not count."""
        assert self._exit is not None
        wait_status, _, elapsed = self._exit
        if os.WIFSIGNALED(wait_status) and os.WTERMSIG(wait_status) in self._asked:
            return os.WTERMSIG(wait_status)
        ended = self._started + elapsed
        return next((one for one, at in self._asked.items() if one in _MEANS_END and ended - at < END_SECONDS), 0)

    # -- the record -------------------------------------------------------------------------------------

    def write_status(self, last: bool = False) -> None:
        """Put on record how it stands. On a full disk the old status stands, until there is another."""
        restarts = max(0, self._starts - 1)
        self.status[task_info.TASK] = {"restarts": restarts, "next_start": self._next_start, "left": self._left}
        try:
            (self.directory.write_last_status if last else self.directory.write_status)(self.status)
        except OSError:
            pass

    def _exit_event(self) -> dict[str, Any]:
        status = self.status
        told = {key: status.get(key) for key in ("state", "exit_code", "signal", "core", "reason")}
        return {"event": protocol.EXIT, **told, "final": self._next_start is None}

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
            trouble=[*self.streams.trouble(), *filter(None, [self._postponed])],
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
            if number in job_status.ENDING_SIGNALS:
                self._cancel_restart()
            return False
        if number in job_status.ENDING_SIGNALS:
            self._asked[number] = time.monotonic()
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
            if self.lock is not None and not self._restart_timer:
                self.lock.release()
            raise
        self.loop.cancel(self._restart_timer)
        self._restart_timer = 0
        self._start_connected()
        return True

    def leave(
        self, then: Callable[[], object], refuse: Callable[[str], object] | None = None, grace: float | None = None
    ) -> None:
        """End the command and all that it has started, and then the supervisor; `then` is called in between.

        When somebody cannot be ended, `refuse` is called with the reason instead, and the supervisor stays.
        """
        if self._leaving is not None and grace is None:
            return
        self._leaving, self._refuse_to_leave = then, refuse
        self._cancel_restart()
        self.end_all("its supervisor was ended", grace)
        if self._ending is not None and self._ending.hopeless:  # it was tried before
            self._stay(self._ending.hopeless)

    def told_to_end(self, number: int) -> None:
        """This process has been sent a signal that means its end: end the command, and then leave.

        The command is told in the same way, for it may handle the one and not the other. If the signal was sent to all
        processes alike, TERM in its place would end the command before it has done what it does on that signal.
        """
        self._leaves_next = True
        if number != signal.SIGTERM and self._leaving is None and self.signal(number):
            self.loop.after(self.order.grace, lambda: self.leave(_nothing))  # TERM, then, and KILL
        else:
            self.leave(_nothing)

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
        refuse, self._refuse_to_leave = self._refuse_to_leave, None
        if refuse is not None:
            self._leaving = None
            refuse(why)

    def on_all_gone(self) -> None:
        super().on_all_gone()
        if self._leaving is not None:
            self._left = True
            self.write_status()
            self._leaving()
            self.loop.stop()


def _nothing() -> None:
    pass


def merged(old: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """The change put over the old mapping: mappings are merged at every depth, anything else is replaced."""
    both = {key: value for key, value in change.items() if isinstance(value, dict) and isinstance(old.get(key), dict)}
    return {**old, **change, **{key: merged(old[key], value) for key, value in both.items()}}
