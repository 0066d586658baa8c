"""A task as programs see it, whether they started it or not."""

from __future__ import annotations

import json
import os
import signal as signals
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from bossworker.commands.request import check_meta
from bossworker.system import identity
from bossworker.system.checks import check_seconds, check_signal
from bossworker.tasks.client.contact import Contact
from bossworker.tasks.client.events import EventWatch, is_end
from bossworker.tasks.client.stream import Stream, stream_number
from bossworker.tasks.client.task_record import Facts
from bossworker.tasks.errors import TaskError, TaskGone, TaskLocked, TaskNotStarted, TaskRefused
from bossworker.tasks.wire import protocol

if TYPE_CHECKING:
    from bossworker.tasks.client.task_pool import TaskPool

END_SECONDS = 10.0  # for a command to end: more than its grace and what its tree takes
POLL_SECONDS = 0.1  # between two looks at a task whose supervisor cannot be heard
PAUSE = 0.001  # seconds between two looks whether a supervisor that is about to end has done so


class Task:
    """A background task: a command under a supervisor of its own.

    Cheap to make: nothing is looked at before something is asked. Every call may find that the supervisor has ended
    meanwhile. What is on the disk is still told then (`info`, `wait`, reading streams); what only a supervisor could
    do raises TaskGone.

    Source: RapidApp::BgTask.
    """

    def __init__(self, task_pool: TaskPool | int, pid: int | None = None) -> None:
        """
        Args:
            task_pool: The pool it is in. ``Task(pid)`` means the default pool.
            pid: The process id of its supervisor.
        """
        from bossworker.tasks.client.task_pool import TaskPool, default_task_pool

        if isinstance(task_pool, int) and pid is None:
            pid, task_pool = task_pool, default_task_pool()
        if not isinstance(task_pool, TaskPool):
            raise TypeError(f"task_pool must be a TaskPool, not {task_pool!r}")
        if not isinstance(pid, int) or isinstance(pid, bool):
            raise TypeError(f"pid must be an int, not {pid!r}")
        self.pid = pid
        self.task_pool = task_pool
        self._contact = Contact(task_pool.path, pid)
        self._streams: dict[int, Stream] = {}
        self._info: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.pid} of {self.task_pool.path}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Task):
            return NotImplemented
        if (self.pid, self.task_pool.path) != (other.pid, other.task_pool.path):
            return False
        ids = {record.id for record in (self._contact.known, other._contact.known) if record is not None}
        return len(ids) < 2  # a supervisor that has ended may have had the pid of another

    def __hash__(self) -> int:
        return hash((self.pid, self.task_pool.path))

    # -- which task it is --------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The name of its job directory, which no other task ever has. TaskGone when there is no task of this pid."""
        return self._contact.record.id

    def _belong_to(self, task_id: str) -> None:
        """Mean the task of this id and no other, whoever has its supervisor's pid by now."""
        self._contact = Contact(self.task_pool.path, self.pid, task_id)

    # -- talking to the supervisor ----------------------------------------------------------------------

    def connect(self, fail_reason: dict[str, Any] | None = None) -> bool:
        """Connect to the supervisor, unless we are; True when that went well.

        Args:
            fail_reason: Where to put why it did not go well (``error``: text, ``errno``: number or None, ``pid``,
                ``path``); then the answer is False. None: TaskGone is raised instead.
        """
        try:
            self._contact.hang_on()
            return True
        except TaskGone as error:
            if fail_reason is None:
                raise
            number = getattr(error.__cause__, "errno", None)
            path = self.task_pool.socket_path(self.pid)
            fail_reason.update(error=str(error), errno=number, pid=self.pid, path=path)
            return False

    def disconnect(self) -> None:
        """Hang up, if we are connected. The next call that needs it connects again."""
        self._contact.hang_up()

    # -- what it tells ----------------------------------------------------------------------------------

    def info(self, fresh: bool = False) -> dict[str, Any]:
        """All about the task, as a dict of JSON values; fetched once, and again when `fresh` is true.

        From the supervisor, or when that is dead from what it left on the disk. The keys::

            id, command, shell, cwd, behavior, lockfile     as it was spawned; id names its job directory
            pid             of the command while it runs, otherwise None
            supervisor      pid, running
            status          state ("created", "running", "completed", "terminated by request", "terminated by error",
                            "unknown"), running, paused, exit_code, signal, core, reason
            meta            the metadata
            streams         stdin, stdout, stderr, data: each start, limit, eof
            clients         how many connections the supervisor has
            times           created, started, ended (Unix seconds), elapsed (seconds)
            restarts        policy, limit, count, next (Unix seconds)
            usage           user_time, system_time (seconds), max_rss (bytes)
            trouble         what the supervisor cannot do at present: a list of texts

        A task of another host, or of a container, whose supervisor can neither be seen nor reached from here is
        "unknown": ``running`` is None, for it may run, and the reason says where. Pids are those that count where the
        supervisor lives.

        Raises TaskGone when there is no such task (any more).
        """
        if self._info is None or fresh:
            self._info = self._fetch_info()
        return self._info

    def _fetch_info(self) -> dict[str, Any]:
        try:
            return dict(self._contact.ask({"op": "info"})[0]["info"])
        except (TaskGone, TaskRefused):
            self._check_exists()
            return self._contact.record.info()

    def _check_exists(self) -> None:
        if not self._contact.record.exists():
            raise TaskGone(f"task {self.pid} has been deleted from {self.task_pool.path}")

    def stream(self, index_or_name: int | str) -> Stream:
        """One of its streams: 0 or "stdin", 1 or "stdout", 2 or "stderr", 3 or "data". ValueError for any other.

        The same object each time, so that ``task.stream("stdout").read()`` in a loop gives what is new.
        """
        number = stream_number(index_or_name)
        if number not in self._streams:
            self._streams.setdefault(number, self._make_stream(number))  # of two threads at once, one has made it
        return self._streams[number]

    def _make_stream(self, number: int) -> Stream:
        return Stream(self, number)

    def events(self, forever: bool = False) -> Generator[dict[str, Any], None, None]:
        """Yield what happens as it happens, pushed by the supervisor; what has happened already comes first.

        Each event is a dict with a key ``event``::

            output-available    stream, limit, eof      there is more on the stream, or nothing more will come
            metadata-changed    meta                    what was changed
            exit                state, exit_code, signal, core, reason, final
            restart             pid, count

        They end when the command has ended and no restart of its own is due (the last one is an exit whose ``final`` is
        true); with `forever`, since somebody may call `restart`, only when the supervisor does. A watcher that falls
        behind hears of the latest output only; one that is very far behind, of all metadata at once. Raises TaskGone
        when there is no supervisor, or when one that lives cannot be reached any more.
        """
        watch = EventWatch(self._contact)  # now, not when the first is taken: nothing that happens in between is missed
        return self._events(watch, forever)

    @staticmethod
    def _events(watch: EventWatch, forever: bool) -> Generator[dict[str, Any], None, None]:
        with closing(watch.events()) as events:
            yield from events if forever else _up_to_the_end(events)

    def wait(self, timeout: float | None = None) -> dict[str, Any] | None:
        """Wait until the command has ended and no restart is due; ``info()["status"]``.

        A supervisor that is killed meanwhile ends the wait, too: its command ends with it. One that this process can
        neither see nor reach (see `info`) is waited for by the task's files.

        Args:
            timeout: None is returned after this many seconds; 0: do not wait; None: no limit.

        Raises TaskGone when the task has been deleted.
        """
        deadline = None if timeout is None else time.monotonic() + check_seconds("timeout", timeout)
        with suppress(TaskGone, TaskRefused), EventWatch(self._contact, deadline) as watch:
            if watch.sees_end(deadline):
                return dict(self.info(fresh=True)["status"])
            return self._final_status()
        while (status := self._final_status()) is None:  # alive, and not for us to talk to
            if deadline is not None and time.monotonic() >= deadline:
                return None
            time.sleep(POLL_SECONDS)
        return status

    def _final_status(self) -> dict[str, Any] | None:
        """None while the command runs or may run, or a restart is due. From the disk: a supervisor might not answer."""
        self._check_exists()
        self._info = None
        record = self._contact.record
        info = record.info() if record.facts().status else self.info()
        return None if info["status"]["running"] is not False or info["restarts"]["next"] else dict(info["status"])

    # -- what is done to it -----------------------------------------------------------------------------

    def apply_meta(self, mapping: Mapping[str, Any] | None = None, **attrs: Any) -> None:
        """Merge into its metadata: JSON values under str keys. TypeError for others; TaskGone without a supervisor.

        Mappings are merged at every depth: ``apply_meta(n={"b": 2})`` leaves what else is in ``n``. Everything else,
        lists included, replaces what was there.
        """
        change = check_size(check_meta({**check_meta(mapping), **attrs}))
        self._contact.ask({"op": "meta", "meta": change})
        self._info = None

    def kill(self, signal: int | str | signals.Signals = "KILL") -> bool:
        """Have a signal sent to the command; False when none is running.

        It goes to the command's process group, as from a terminal; KILL ends everything that the command has started,
        and STOP and CONT reach all of it, too, whatever group or session it moved to. The supervisor sends it to its
        own child, so it never reaches a stranger. A command that ends by such a signal (KILL, TERM, INT, HUP, QUIT,
        ABRT), or fails within five seconds after KILL, TERM, INT or QUIT, has been terminated by request, and its
        restart policy does not start it again. One that has survived it ends for reasons of its own.

        Args:
            signal: A number, or a name with or without ``SIG``; 0 only asks. TypeError or ValueError for any other.
        """
        number = 0 if signal == 0 else check_signal(signal)
        return bool(self._contact.ask({"op": "signal", "signal": number})[0]["sent"])

    def pause(self, on: bool = True) -> bool:
        """Stop all processes of the command where they are; or with False let them go on."""
        return self.kill(signals.SIGSTOP if on else signals.SIGCONT)

    def resume(self) -> bool:
        """Let a paused command go on."""
        return self.pause(False)

    def restart(self) -> bool:
        """Execute a command that has ended again, under its living supervisor; False when it is still running.

        Streams and metadata go on where they were. Raises TaskNotStarted, TaskLocked; TaskGone when the supervisor has
        left (see ``linger`` of `TaskPool.spawn`).
        """
        self._info = None
        try:
            return bool(self._contact.ask({"op": "restart"})[0]["restarted"])
        except TaskRefused as error:
            raise refusal(error) from error

    def terminate_supervisor(self) -> None:
        """End the supervisor; before that the command, if it runs, and all that it started: TERM, and KILL after a
        grace.

        The files stay, so that status and output are still told, and `TaskPool.search` still finds the task. When the
        supervisor is dead, what it could not end any more is ended.

        Raises TaskGone when the supervisor lives, or may live where this process cannot see it, and cannot be reached;
        TaskRefused when a process of the task is not for the supervisor to end.
        """
        self._end({"op": "terminate"})

    def delete(self) -> None:
        """Kill the command and all that it started, end the supervisor, and remove every file of the task.

        Also for a task whose supervisor is dead. A lock file stays: it was never the task's own. Raises TaskGone when
        the supervisor lives, or may live where this process cannot see it, and cannot be reached; TaskRefused when a
        process of the task is not for the supervisor to end, TaskError when a file is not for this user to remove. Then
        the task stays.
        """
        try:
            record = self._contact.record
        except TaskGone as error:
            if isinstance(error.__cause__, PermissionError) and identity.start_time(self.pid) is not None:
                raise  # it may live, and is not for us to talk to, nor are its files to be read
            return  # it has been deleted
        self._end({"op": "delete"})
        try:
            record.discard()
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise TaskError(f"task {self.pid} cannot be deleted: {why}: {error.filename!r}") from error
        record.clear(said=True)

    def _end(self, request: dict[str, Any]) -> None:
        """Have the supervisor end, and wait until it has. TaskGone when it may live, and is not for us to talk to."""
        self._info = None
        record = self._contact.record
        facts = record.facts()
        failure = None
        try:
            self._contact.ask(request, seconds=END_SECONDS)
        except TaskGone as error:
            failure = error
        finally:
            self.disconnect()
        self._await_end(facts, failure)
        self._reap(facts)
        record.end_leftovers()

    def _await_end(self, facts: Facts, failure: TaskGone | None) -> None:
        """Wait until the supervisor is gone: it has answered, or was killed just then. TaskGone when it is not."""
        socket, cause = self._contact.record.socket, failure and failure.__cause__
        hopeless = isinstance(failure, TimeoutError) or isinstance(cause, PermissionError)
        deadline = time.monotonic() + (0.0 if hopeless else END_SECONDS)
        while (sight := facts.sight) != identity.GONE:
            if sight != identity.ALIVE:  # one that cannot be seen is believed what it says, and takes its socket away
                if failure:
                    raise failure
                if not os.path.lexists(socket):
                    return
            if time.monotonic() >= deadline:
                raise failure or TaskGone(f"the supervisor {self.pid} does not end")
            time.sleep(PAUSE)

    def _reap(self, facts: Facts) -> None:
        """A supervisor in the foreground is a child of the process that has spawned it, and a zombie until then."""
        supervisor = facts.status.get("supervisor")
        if supervisor is not None and identity.of(self.pid) == supervisor:
            with suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)


def check_size(meta: dict[str, Any]) -> dict[str, Any]:
    """The same metadata. ValueError if it is too large for a message."""
    size = len(json.dumps(meta))
    if size > protocol.MAX_META:
        raise ValueError(f"meta must have at most {protocol.MAX_META} bytes in JSON, not {size}")
    return meta


def refusal(error: TaskRefused) -> TaskError:
    """Why a command was not started, as an error of its own."""
    if "holder" in error.facts:
        return TaskLocked(str(error), error.facts["holder"])
    if "exit_code" in error.facts:
        return TaskNotStarted(str(error), error.facts["exit_code"])
    return error


def _up_to_the_end(events: Iterable[dict[str, Any]]) -> Generator[dict[str, Any], None, None]:
    for event in events:
        yield event
        if is_end(event):
            return
