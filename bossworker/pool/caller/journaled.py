"""A journal that this program owns: its scribe is started, and the pool's line to its boss goes through it.

The scribe stands between the connection and the boss: see ``bossworker/journal``. So what is sent and what arrives is
the same as without it. What comes on top of that: each call of the outbox is accepted or refused
(``journal_outbox.py``); an earlier owner's jobs are recalled; and the scribe is told which results the program has got
(``journal_line.py``, ``given_out.py``).
"""

from __future__ import annotations

import json
import logging
import os
import select
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from bossworker.errors import JournalError, JournalInUse
from bossworker.pool.caller.connection import Connection
from bossworker.pool.caller.inbox import Inbox
from bossworker.pool.caller.journal_line import JournalConnection, watch_exit
from bossworker.pool.caller.journal_outbox import JournalOutbox
from bossworker.pool.caller.outbox import Outbox
from bossworker.pool.caller.state import HandleState
from bossworker.pool.door.side_process import SideProcess
from bossworker.pool.launch import Launched, launch
from bossworker.pool.options import Handlers, Options
from bossworker.pool.wire.filed_memory import FiledMemory
from bossworker.pool.wire.link import LinkClosed, close_fds
from bossworker.pool.wire.messages import Kind
from bossworker.system import processes, signals
from bossworker.system.callers_line import warn_caller
from bossworker.system.mounts import file_system_of, is_shared
from bossworker.system.stdio import stdio_reserved

SCRIBE = "bossworker.journal.scribe_process"
_logger = logging.getLogger("bossworker")


class OpenJournal:
    """A journal that this program owns: its scribe is up, and has taken over what an earlier owner left."""

    def __init__(self, options: Options) -> None:
        """JournalInUse, JournalError: see `BossWorker`."""
        self._options = options
        _warn_of_file_system(os.path.dirname(options.journal))
        settings = {
            "journal": options.journal,
            "interrupted": options.interrupted,
            "workers": options.worker_count,
            "name": options.name,
            "program": os.getpid(),
            "max_age": options.max_journal_age,
            "max_size": options.max_journal_size,
        }
        scribe: SideProcess | None = None
        try:
            with signals.held():
                scribe = self._scribe = SideProcess(SCRIBE, settings)
            with stdio_reserved():  # it sends a descriptor
                told, fd = self._opened()
        except BaseException:
            if scribe is not None:
                scribe.end()
            raise
        self.next_id: int = told["next_id"]
        self._fd: int | None = fd
        self._connection: JournalConnection | None = None
        _say_recovered(told)

    def _opened(self) -> tuple[dict[str, Any], int]:
        """What the scribe says, and the file of the flight recorders."""
        link = self._scribe.link
        while True:
            processes.await_fd(link.fileno(), select.POLLIN)
            try:
                link.pull()
            except LinkClosed:
                if not link.frames:
                    why = "its scribe ended before it was open"
                    raise JournalError(f"the journal {self._options.journal} cannot be used: {why}") from None
            if not link.frames:
                continue
            frame = link.frames.pop(0)
            told = json.loads(bytes(frame.body))
            if "error" in told:
                raise (
                    JournalInUse(told["text"], told["pid"]) if told["error"] == "in use" else JournalError(told["text"])
                )
            if frame.fd is None:
                raise OSError("no descriptor is left for the journal's file")
            return told, frame.fd

    def launch(
        self, handlers: Handlers, options: Options, connection_type: type[Connection], inbox: Inbox
    ) -> Connection:
        """Start a boss whose line goes through the scribe."""
        return self.connect(launch(handlers, options, self.take_memory()), connection_type, inbox)

    def take_memory(self) -> FiledMemory:
        """The memory of the pool's flight recorders, once."""
        fd, self._fd = self._fd, None
        assert fd is not None
        return FiledMemory(fd)

    def connect(self, launched: Launched, connection_type: type[Connection], inbox: Inbox) -> Connection:
        """Have the line of a boss that was started go through the scribe."""
        try:
            boss = launched.link.sock
            self._scribe.link.send(Kind.ATTACH, b"", (), (boss.detach(),))
            scribed = Launched(launched.pid, self._scribe.link, launched.memory)
            kind = type(f"Journal{connection_type.__name__}", (JournalConnection, connection_type), {})
            self._connection = kind(scribed, inbox, self._scribe, self._options.journal)
        except BaseException:
            launched.abandon()
            raise
        return self._connection

    def attach(self, outbox: Outbox, state: HandleState) -> None:
        """The handle is put together."""
        outbox.start_at(self.next_id)
        state.tells_others = True
        assert self._connection is not None
        watch_exit(self._connection)

    @property
    def outbox_type(self) -> type[Outbox]:
        return JournalOutbox

    def await_recovery(self) -> None:
        """Wait until all is here that an earlier owner has left."""
        line = self._connection
        assert line is not None
        line.wait_until(lambda: line.all_recalled)

    def abandon(self) -> None:
        """The pool was not started."""
        if self._fd is not None:
            close_fds([self._fd])
            self._fd = None
        self._scribe.end()


def _warn_of_file_system(folder: str) -> None:
    with suppress(OSError):
        kind, mounted = file_system_of(folder)
        if is_shared(kind):
            text = f"the journal lies in {folder}, on {kind} (mounted at {mounted})"
            advice = "its locks and syncs may not be what a journal relies on: put it on a local disk"
            warn_caller(f"{text}: {advice}", RuntimeWarning)


def _say_recovered(told: Mapping[str, int]) -> None:
    queued, interrupted, rerun = told["queued"], told["interrupted"], told["rerun"]
    if queued or interrupted:
        fate = f"{rerun} run again" if rerun else f"{interrupted} interrupted"
        _logger.info("recovered %d jobs: %d never started, %s", queued + interrupted, queued, fate)
