"""A handle's line to its boss, with a scribe on it: see ``journaled.py``."""

from __future__ import annotations

import json
import logging
import os
import select
import time
import weakref
from array import array
from collections.abc import Iterable
from contextlib import suppress

from bossworker.errors import JournalError
from bossworker.failure import Outcome, encode_text
from bossworker.journal.ranges import Ranges
from bossworker.journal.reader import Journal
from bossworker.pool.caller.connection import Connection
from bossworker.pool.caller.given_out import GivenOut, as_ranges
from bossworker.pool.caller.inbox import Inbox
from bossworker.pool.caller.recalled import recalled_jobs
from bossworker.pool.door.side_process import SideProcess
from bossworker.pool.launch import Launched
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.frames import Frame, pack
from bossworker.pool.wire.link import close_fds
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.segments import read_segments, single
from bossworker.system import processes
from bossworker.system.exits import run_at_exit

END_SECONDS = 10.0  # for the scribe to write down the last of it
_logger = logging.getLogger("bossworker")


class JournalConnection(Connection):
    """See the module. The process that it watches is the scribe: the boss's end is the scribe's to tell."""

    def __init__(self, launched: Launched, inbox: Inbox, scribe: SideProcess, path: str) -> None:
        super().__init__(launched, inbox)
        self._scribe = scribe
        self._path = path
        self._owner = os.getpid()
        self._watch_scribe()
        self.all_recalled = False
        self._unanswered: dict[int, range] = {}  # calls that nobody waits for, by the numbers of their requests: ids
        self._trouble = ""  # why the scribe has given up
        self._settled: Ranges | None = None  # once the boss has died: ids of the jobs that may have run
        self._given_out = GivenOut(inbox)
        self._dropped = False  # results that are here are being dropped: they do not count as given out

    def _watch_scribe(self) -> None:
        if self._boss_fd is not None:
            self._selector.unregister(self._boss_fd)
            close_fds([self._boss_fd])
        self._boss_fd = processes.pidfd(self._scribe.pid)
        if self._boss_fd is not None:
            self._selector.register(self._boss_fd, select.POLLIN)

    def alive(self) -> bool:
        return not self.gone and processes.is_alive(self._scribe.pid)

    def who_died(self) -> str:
        if self._trouble:
            return f"the pool's scribe (process {self._scribe.pid}) gave up ({self._trouble}); the pool"
        if self._settled is None:
            return f"the pool's scribe (process {self._scribe.pid})"
        return super().who_died()

    def never_started(self, ids: Iterable[int]) -> set[int]:
        if self._settled is None:
            return super().never_started(ids)
        return {job_id for job_id in ids if job_id not in self._settled}

    # -- receiving --------------------------------------------------------------------------------------

    def _on_frame(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.RECALL:
                self._recall(frame)
            case Kind.RECALLED:
                self.all_recalled = True
            case Kind.SETTLED:
                ranges = json.loads(bytes(frame.body))
                self._settled = Ranges(range(first, first + count) for first, count in ranges)
            case Kind.OPENED:
                self._trouble = json.loads(bytes(frame.body))["text"]
                _logger.error("journal closed: %s", self._trouble)
            case Kind.RESULTS:
                # Before the inbox has it: a result that is handed out at once must be known to be here, or it would not
                # count as got.
                self._given_out.arrived(read_segments(frame.head, frame.body))
        super()._on_frame(frame)
        if frame.kind is Kind.REPLY and self._unanswered:
            self._look_at_answers()

    def _recall(self, frame: Frame) -> None:
        """Jobs that an earlier owner has added."""
        batch = Batch.read(frame.head, frame.body[messages.MARK.size :])
        self.inbox.note_call(batch.first_id)
        self.inbox.expect(batch.first_id, recalled_jobs(batch))

    # -- calls ------------------------------------------------------------------------------------------

    def await_record(self, number: int, ids: range) -> str:
        """Wait until a call is accepted; why it was not. On an event loop: see to it that its jobs have results."""
        if not self.may_wait():
            self._unanswered[number] = ids
            return ""
        self.wait_until(lambda: self.answered(number))
        answer = self.answer(number)
        return "" if answer is None else answer.get("refused", "")

    def _look_at_answers(self) -> None:
        for number in [number for number in self._unanswered if self.answered(number)]:
            ids, answer = self._unanswered.pop(number), self.answer(number)
            if answer is not None and "refused" in answer:
                now, text = (
                    time.monotonic(),
                    encode_text(f"JournalError: the journal did not take the job: {answer['refused']}"),
                )
                outcome = Outcome.BAD_JOB | Outcome.TEXT
                self.inbox.receive([single(job_id, 0, 0, now, now, outcome, memoryview(text)) for job_id in ids])

    # -- what the program has got -----------------------------------------------------------------------

    # What is got once the pool has ended is written down when all of it is, or when the handle or the program goes.

    def on_given_out(self) -> None:
        if self.closed:
            if self.inbox.outstanding <= 0:
                self.mark_alone()
        elif self._given_out.due:
            self._tell_given_out()
            self._given_out.look()

    def _tell_given_out(self) -> None:
        ids = self._given_out.found()
        if not ids or self._dropped or self.closed:
            return
        body = array("Q", [number for one in as_ranges(ids) for number in (one.start, len(one))]).tobytes()
        # Struck off only if it goes out. Several threads may be at this: then some are told twice, which does no harm.
        if self.try_send(pack(Kind.RETRIEVED, b"", [body])):
            self._given_out.told(ids)

    def _listen(self, seconds: float | None) -> None:
        self.on_given_out()
        self._tell_given_out()
        super()._listen(seconds)

    def before_drop(self) -> None:
        if not self._dropped:
            self._tell_given_out()
            if self.closed:
                self.mark_alone()
            # Behind the telling: from here on, what is thrown away must not be taken for what the program has got.
            self._dropped = True

    def mark_alone(self) -> None:
        """Once the scribe is gone: write down which results the program has got."""
        if self._owner != os.getpid():
            return
        self._given_out.look()
        ids = self._given_out.found()
        self._given_out.told(ids)
        if ids:
            with suppress(JournalError):  # it is gone; or somebody has it who does not answer: they come again
                Journal(self._path).mark_retrieved(as_ranges(ids))

    # -- the end ----------------------------------------------------------------------------------------

    def end(self, force: bool) -> None:
        if not force and not self.gone:
            self._given_out.look()
            self._tell_given_out()
            self._flush()
        super().end(force)
        self.link.close()
        processes.wait_or_kill(self._scribe.pid, END_SECONDS)

    def new_number(self) -> int:
        """Of a request."""
        return self._replies.expect()


_connections: weakref.WeakSet[JournalConnection] = weakref.WeakSet()


def watch_exit(connection: JournalConnection) -> None:
    """As the program ends, have it written down which results it has got of this pool."""
    _connections.add(connection)
    run_at_exit(_mark_all)


def _mark_all() -> None:
    for connection in list(_connections):
        if connection.closed:
            connection.before_drop()
