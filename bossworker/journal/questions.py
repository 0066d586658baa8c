"""The scribe's socket for other programs: they ask, it answers."""

from __future__ import annotations

import json
import os
import select
import socket
from contextlib import suppress
from typing import Protocol

from bossworker.journal.answers import Answer
from bossworker.journal.ownership import socket_path
from bossworker.pool.door.addresses import bind_path
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.messages import Kind, ProtocolError

MOST_READERS = 64  # at a time; others wait
MOST_QUESTION = 1 << 24  # bytes


class Answerer(Protocol):
    """What is in a journal."""

    def answer(self, question: Answer) -> Answer: ...


class Questions:
    """See the module. Where no socket can be had, there is none, and nobody can ask while the journal has an owner."""

    def __init__(self, path: str) -> None:
        self._path = socket_path(path)
        self._readers: dict[int, Link] = {}
        self._listener: socket.socket | None = None
        with suppress(OSError):
            with suppress(FileNotFoundError):
                os.unlink(self._path)  # of an owner that was killed: we have its lock
            self._listener = bind_path(self._path)
            self._listener.setblocking(False)

    def register(self, poll: select.poll) -> None:
        """Wait for what comes from here."""
        if self._listener is not None and len(self._readers) < MOST_READERS:
            poll.register(self._listener.fileno(), select.POLLIN)
        for fd, link in self._readers.items():
            poll.register(fd, select.POLLIN | (select.POLLOUT if link.unsent else 0))

    def answer(self, contents: Answerer, ready: set[int]) -> None:
        """Answer what has come; `ready`: descriptors on which something has happened."""
        if self._listener is not None and self._listener.fileno() in ready:
            with suppress(OSError):
                link = Link(self._listener.accept()[0])
                self._readers[link.fileno()] = link
        for fd in ready & self._readers.keys():
            link = self._readers[fd]
            try:
                self._converse(link, contents)
            except (LinkClosed, ProtocolError, ValueError, KeyError, TypeError):  # it is gone, or none of ours
                del self._readers[fd]
                link.close()

    def _converse(self, link: Link, contents: Answerer) -> None:
        link.flush()
        for frame in link.receive():
            if frame.kind is not Kind.ASK or len(frame.body) > MOST_QUESTION:
                raise ProtocolError("not a question")
            answer = contents.answer(json.loads(bytes(frame.body)))
            link.send(Kind.REPLY, b"", [json.dumps(answer).encode()])

    def close(self) -> None:
        """Nobody listens any more."""
        for link in self._readers.values():
            link.close()
        if self._listener is not None:
            self._listener.close()
            with suppress(OSError):
                os.unlink(self._path)
