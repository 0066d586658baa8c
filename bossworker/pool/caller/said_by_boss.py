"""What a boss tells of itself and its workers: that these are up, that it is through, or what is wrong."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from typing import Any

from bossworker.pool.wire import messages
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.messages import Kind

MOST_EXIT_ERRORS = 100  # that are kept until shut_down; one tells what is wrong


class SaidByBoss:
    """See the module."""

    def __init__(self) -> None:
        self.pool = ""  # what it is called
        self.up = False  # the first workers are
        self.orderly = False  # it said that it was through
        self.failure = ""  # why no worker can be started
        self.exit_errors: dict[int, str] = {}  # what exit_handlers raised, by the workers' pids
        self.last_events: dict[str, Any] | None = None  # once the pool has ended in order, if anybody watched it

    def take_in(self, frame: Frame) -> None:
        """What it has said. May be done twice."""
        match frame.kind:
            case Kind.READY:
                self.up = True
            case Kind.CLOSED:
                self.orderly = True
            case Kind.START_FAILED:
                self.failure = _text(frame)
            case Kind.EXIT_ERROR if len(self.exit_errors) < MOST_EXIT_ERRORS:
                (pid,) = messages.EXIT_ERROR.unpack(frame.head)
                self.exit_errors[pid] = _text(frame)
            case Kind.LAST_EVENTS:
                self.last_events = json.loads(bytes(frame.body))
            case Kind.NOTE:
                (level,) = messages.NOTE.unpack(frame.head)
                self.log(level, _text(frame))

    def log(self, level: int, text: str) -> None:
        """Say it of the pool, whatever the program's logging makes of it."""
        with suppress(Exception):
            logging.getLogger("bossworker").log(level, "%s pool=%r", text, self.pool)


def _text(frame: Frame) -> str:
    return str(frame.body, "utf-8", "replace")
