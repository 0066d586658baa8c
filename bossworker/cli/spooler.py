"""The process that runs a group of queued commands: a ``BossWorker`` with a journal, and what decides what is due.

The first `add` starts it; it goes when nothing is left to do. What it has not done then, or when it was killed, or the
machine was, stands in the folder and the journal (queue_files.py), and the next one goes on with it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from itertools import groupby
from typing import Any

from bossworker import journal
from bossworker.cli.entries import CANCELLED, NOT_STARTED, short
from bossworker.cli.queue_files import QueueFolder, all_groups
from bossworker.cli.room import is_no_room
from bossworker.commands import ended_job, job_status, jobdir, record
from bossworker.commands.inline.handler import CommandHandler
from bossworker.commands.jobdir import JobDirectory
from bossworker.commands.record import JobRecord
from bossworker.commands.request import Request, check
from bossworker.commands.roots import find_root, open_root
from bossworker.errors import BossWorkerError, JournalError
from bossworker.pool.caller.client import BossWorker
from bossworker.pool.door.addresses import bind_path, remove_path
from bossworker.result import Result
from bossworker.system import identity
from bossworker.system.descriptors import nameless_file
from bossworker.system.signal_pipe import SignalPipe

IDLE_VARIABLE, IDLE_SECONDS = "BOSSWORKER_QUEUE_IDLE", 10.0
TICK_SECONDS = 1.0  # between looks whether it is time to leave, and at the folder if nobody says that there is more
ROOM_SECONDS = 5.0  # between looks whether a disk that was full has room
OTHERS_SECONDS = 1.0  # between looks at commands of other groups that some here wait for
MOST_QUESTION = 1 << 20  # bytes
FORGET_EVERY = 500  # results, until they are taken out of the journal: their job directories tell of them
INTERRUPTED = "interrupted: the machine, or the queue's process, was stopped"


class GroupPaused(Exception):
    """A command is not started for the time being."""


class QueuedCommand(CommandHandler):
    """The work handler: a command under the id, and in the environment, that it was added with."""

    prepare_job = None  # type: ignore[assignment]  # its paths are absolute

    def __init__(self, folder: QueueFolder) -> None:
        super().__init__(root=find_root(), keep="all")
        self._folder = folder
        self._job: Mapping[str, Any] = {}

    def __call__(self, job: Mapping[str, Any]) -> Mapping[str, Any]:
        # A pool begins with what is in its journal, before it can be paused: with what an earlier process left queued.
        if self._folder.settings.paused:
            raise GroupPaused
        self._job = job
        os.environ.clear()  # a worker runs one at a time, and has nothing of its own to look up there
        os.environ.update(job["environment"])
        return super().__call__(job["command"])

    def _create(self, request: Request) -> tuple[JobDirectory, tuple[int, int]]:
        """FileExistsError: it has been started before. No command runs twice unasked."""
        folder = open_root(self.root)
        try:
            job = {**request.record(), "created": self._job["created"], "supervisor": identity.own()}
            return jobdir.create_at(folder, find_root(self.root), job, jobid=self._job["id"])
        finally:
            os.close(folder)


class LeaveSignals:
    """Hears that the process is to leave; its loop looks here. The handler raises nothing.

    What a handler raises is lost where Python drops exceptions: in what a weak reference calls, while something is
    imported, for instance. And where the signal comes just before a poll, it raises when that is over: in an hour.
    """

    def __init__(self, pipe: SignalPipe) -> None:
        """
        Args:
            pipe: Ends the poll.
        """
        self.pipe = pipe
        self.number = 0
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        self.number = self.number or number

    def check(self) -> None:
        """SystemExit if it is."""
        if self.number:
            raise SystemExit(128 + self.number)


class Spooler:
    """See the module."""

    def __init__(self, folder: QueueFolder, listener: socket.socket, signals: LeaveSignals) -> None:
        self.folder = folder
        self.listener = listener
        self.signals = signals
        self.settings = folder.settings
        self.pool: BossWorker[Any, Any] = BossWorker(
            QueuedCommand(folder),
            worker_count=self.settings.slots,
            journal=folder.journal,
            name=f"queue {folder.group}",
            close_fds=True,  # the lock above all
        )
        self.slots = self.settings.slots
        self.requests: dict[str, dict[str, Any]] = {}  # what waits, or runs
        self.ids: dict[str, int] = {}  # of these, what the pool has, and under which id
        self.ended = 0
        self.idle = _idle_seconds()
        self.idle_since = time.monotonic()
        self.look_again_at = 0.0  # at what waits in the folder; there may be much
        self.verdicts: dict[str, tuple[str, str]] = {}  # of what never starts, while there is no room to keep it
        self.full_until = 0.0  # monotonic seconds: nothing is started before

    def run(self) -> None:
        """Until there has been nothing to do for a while."""
        with self.pool:
            self.take_up()
            self.look()
            while not self.may_leave():
                self.signals.check()
                self.turn()
            self.listener.close()  # whoever adds something from now on starts another process, which waits for our end
            if self.folder.settings.paused:
                self.pool.shut_down(force=True)  # what is queued stays in the journal
        with suppress(BossWorkerError):
            journal.open(self.folder.journal).forget()

    def turn(self) -> None:
        """Sleep until something happens, and see to it."""
        fds = [self.listener.fileno(), self.pool.fileno()]
        ready, _, _ = select.select([*fds, self.signals.pipe.fileno()], [], [], self.seconds_to_sleep())
        if fds[0] in ready:
            self.answer()
        while (result := self.pool.get_result_nb()) is not None:
            self.on_result(result)
        self.look()

    def take_up(self) -> None:
        """What the journal has of an earlier process, which the pool goes on with."""
        found = journal.open(self.folder.journal)
        self.ids = {found.job(one.id)["id"]: one.id for one in found.jobs() if not one.retrieved}

    def seconds_to_sleep(self) -> float:
        """Until something is due."""
        if (self.pool.pending() == 0 and not self.requests) or self.settings.paused:
            return min(TICK_SECONDS, self.idle)
        waiting = [one for jobid, one in self.requests.items() if jobid not in self.ids]
        due: list[float] = [one["not_before"] - time.time() for one in waiting if one["not_before"] > time.time()]
        due += [OTHERS_SECONDS] if any(one["after"] for one in waiting) else []
        due += [self.full_until - time.monotonic()] if self.is_full else []
        return max(0.0, min([*due, 3600.0]))

    def may_leave(self) -> bool:
        """Whether nothing runs, and nothing will."""
        running = self.pool.stats().running if self.settings.paused else self.pool.pending()
        if running or (self.requests and not self.settings.paused):
            self.idle_since = time.monotonic()
            return False  # also of one that is to leave at once
        return time.monotonic() - self.idle_since >= self.idle

    # -- what is asked --------------------------------------------------------------------------------------

    def answer(self) -> None:
        """Somebody has changed something in the folder, wants commands cancelled, or us to leave once all is done."""
        sock, _ = self.listener.accept()
        with sock, suppress(OSError):
            sock.settimeout(1.0)
            try:
                question = json.loads(_line(sock))
                self.look_again_at = 0.0
                self.look()
                for jobid in question.get("cancel", ()):
                    self.cancel(str(jobid))
                if question.get("leave"):
                    self.idle = 0.0
                told: dict[str, Any] = {"pid": os.getpid()}
            except (ValueError, TypeError, AttributeError) as error:
                told = {"error": str(error)}
            sock.sendall(json.dumps(told).encode())

    def cancel(self, jobid: str) -> None:
        """One that waits never runs; one that runs is ended as by a timeout."""
        if jobid in self.ids:
            self.pool.cancel(self.ids[jobid])
        elif (request := self.requests.get(jobid)) is not None:
            self.conclude(request, CANCELLED, jobdir.BY_REQUEST)

    # -- what is due ----------------------------------------------------------------------------------------

    def look(self) -> None:
        """Take in what was added, and hand to the pool what is due."""
        self.apply_settings()
        if time.monotonic() >= self.look_again_at:
            self.take_in()
        if self.is_full:
            return
        new = [request for jobid, request in self.requests.items() if jobid not in self.ids]
        new.sort(key=lambda one: (-one["priority"], one["id"]))  # an idle pool takes the first
        due = [request for request in new if self.is_due(request)]
        for priority, some in groupby(due, key=lambda one: int(one["priority"])):
            self.hand_over(list(some), priority)

    def hand_over(self, requests: list[dict[str, Any]], priority: int) -> None:
        """To the pool: all by one call, which is one write to the disk."""
        jobs = [{key: request[key] for key in ("id", "command", "environment", "created")} for request in requests]
        try:
            ids = self.pool.add_work(*jobs, priority=priority)
        except JournalError:
            self.wait_for_room()
            return
        self.ids.update(zip((job["id"] for job in jobs), ids, strict=True))

    def take_in(self) -> None:
        """What was added. Whoever adds says so; but may be killed before."""
        self.look_again_at = time.monotonic() + TICK_SECONDS
        for jobid in self.folder.waiting_ids():
            if jobid not in self.requests and (request := self.folder.request(jobid)) is not None:
                self.requests[jobid] = request

    def apply_settings(self) -> None:
        self.settings = self.folder.settings
        if self.pool.stats().paused != self.settings.paused:
            self.pool.pause() if self.settings.paused else self.pool.resume()
        if self.settings.slots != self.slots:
            self.slots = self.settings.slots
            self.pool.resize(self.slots)

    def is_due(self, request: dict[str, Any]) -> bool:
        """Whether it may run now. One that never will is done with."""
        jobid = request["id"]
        if record.read(jobid).is_there:  # it has run, and the process before did not live to strike it off
            self.strike_off(jobid)
            return False
        if jobid in self.verdicts:
            self.conclude(request, *self.verdicts[jobid])
            return False
        if "damaged" in request:
            self.conclude(request, f"{NOT_STARTED}: {request['damaged']}", jobdir.BY_ERROR)
            return False
        if request["not_before"] > time.time():
            return False
        failed, waits = self.dependencies(request["after"])
        if failed:
            self.conclude(request, failed, jobdir.BY_ERROR)
        return not failed and not waits

    def dependencies(self, ids: list[str]) -> tuple[str, bool]:
        """Why it must not run, since one that it comes after has failed; and whether it has to wait for one."""
        waits = False
        for jobid in ids:
            found = record.read(jobid)
            if found.state == jobdir.COMPLETED:
                continue
            if found.may_change or jobid in self.requests or _is_waiting(jobid):
                waits = True
            else:
                found = record.read(jobid)  # it may have ended since
                if found.state != jobdir.COMPLETED:
                    return f"{NOT_STARTED}: {short(jobid)}, which it comes after, {_how(found)}", False
        return "", waits

    # -- what has ended -------------------------------------------------------------------------------------

    def on_result(self, result: Result[Any]) -> None:
        """A command has ended: its job directory tells how, if it ever started."""
        jobid = result.job["id"]
        self.ids.pop(jobid, None)
        if record.read(jobid).is_there or (request := self.folder.request(jobid)) is None:  # somebody has deleted it
            self.strike_off(jobid)
        else:
            self.requests[jobid] = request
            self.on_unstarted(request, result)
        self.idle_since = time.monotonic()
        self.ended += 1
        if self.ended % FORGET_EVERY == 0:
            journal.open(self.folder.journal).forget()

    def on_unstarted(self, request: dict[str, Any], result: Result[Any]) -> None:
        """One has ended that never started."""
        if is_no_room(result.exception):  # for its job directory: its turn comes again
            self.wait_for_room()
        elif isinstance(result.exception, GroupPaused):
            pass  # it is handed to the pool once more
        elif result.error_kind == "cancelled":
            self.conclude(request, CANCELLED, jobdir.BY_REQUEST)
        else:
            why = INTERRUPTED if result.error_kind == "interrupted" else str(result.error)
            self.conclude(request, why, jobdir.BY_ERROR)

    def conclude(self, request: dict[str, Any], why: str, state: str) -> None:
        """Keep a job directory of one that never started, which says why; and so does its stderr."""
        jobid = request["id"]
        try:
            _keep_verdict(request, why, state)
        except OSError as error:
            if not is_no_room(error):
                raise
            self.verdicts[jobid] = why, state
            self.wait_for_room()
            return
        self.verdicts.pop(jobid, None)
        self.strike_off(jobid)

    def strike_off(self, jobid: str) -> None:
        """It is told of by its job directory from now on."""
        self.requests.pop(jobid, None)
        self.folder.remove(jobid)

    def wait_for_room(self) -> None:
        """Start nothing for a while: what was queued stays so, and what runs goes on."""
        self.full_until = time.monotonic() + ROOM_SECONDS

    @property
    def is_full(self) -> bool:
        return time.monotonic() < self.full_until


def _keep_verdict(request: dict[str, Any], why: str, state: str) -> None:
    """OSError: there is no room."""
    now = time.time()
    status = {**job_status.lost({"started": now}, why, now), "state": state}
    out, err = nameless_file("stdout"), nameless_file("stderr")
    try:
        os.write(err, f"bossworker: {why}\n".encode())
        root = open_root()
        try:
            asked = {} if "damaged" in request else check(request["command"]).record()
            job = {**asked, "created": request["created"]}
            with suppress(FileExistsError):
                ended_job.keep(root, request["id"], job, status, {"stdout": out, "stderr": err})
        finally:
            os.close(root)
    finally:
        os.close(out)
        os.close(err)


def _idle_seconds() -> float:
    """With nothing to do, until it leaves."""
    try:
        return max(0.0, float(os.environ.get(IDLE_VARIABLE, IDLE_SECONDS)))
    except ValueError:
        return IDLE_SECONDS


def _line(sock: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n") and len(data) < MOST_QUESTION and (more := sock.recv(1 << 16)):
        data += more
    return data


def _is_waiting(jobid: str) -> bool:
    return any(folder.request(jobid) is not None for folder in all_groups())


def _how(found: JobRecord) -> str:
    """How one has failed, in words."""
    if not found.known:
        return "is gone"
    if found.reason.startswith(NOT_STARTED):
        return "was not started"
    if found.reason.startswith(CANCELLED):
        return "was cancelled"
    status = found.status
    if status.get("signal") is not None:
        return f"has failed (signal {status['signal']})"
    return "has failed" + (f" (exit code {status['exit_code']})" if status.get("exit_code") is not None else "")


def main(group: str, lock: int) -> int:
    """The process's main. Whoever holds the lock sees to the group: it was taken for us, and goes with us."""
    os.set_inheritable(lock, False)
    folder = QueueFolder(group)
    with SignalPipe() as pipe:
        signals = LeaveSignals(pipe)
        listener = bind_path(folder.socket)
        try:
            Spooler(folder, listener, signals).run()
        finally:
            listener.close()
            remove_path(folder.socket)
    return 0
