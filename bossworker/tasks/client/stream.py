"""A task's streams as programs see them."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from bossworker.system.checks import check_count, check_seconds
from bossworker.tasks.client.events import EventWatch
from bossworker.tasks.client.shared_connection import SharedConnection
from bossworker.tasks.errors import StreamClosed, TaskGone, TaskRefused
from bossworker.tasks.wire import protocol
from bossworker.tasks.wire.protocol import LONGEST_WAIT, MAX_BODY, MAX_MESSAGE
from bossworker.tasks.wire.stream_files import DATA, NAMES, STDIN
from bossworker.tasks.wire.stream_reader import Extent, Gone

if TYPE_CHECKING:
    from bossworker.tasks.client.task import Task

BYTES_AT_ONCE = 1 << 20  # in a piece of what is followed: there may be gigabytes to begin with
MESSAGES_AT_ONCE = 1000
_MOST = (1 << 63) - 1  # bytes: no stream is longer


class Stream:
    """One stream of a task: ``stdin``, ``stdout``, ``stderr``, or ``data``, which carries whole messages both ways.

    A stream object has a position, where `read`, iteration and `follow` go on, as a file has. `Task.stream` returns the
    same object each time, so that whoever asks again gets what is new; another `Task` object of the same task has
    streams, and positions, of its own. What is counted is bytes from the first that the task ever wrote; for ``data``
    messages.

    Output is read from the task's files: no supervisor is needed for it, nor disturbed. Only where file permissions
    allow the socket but not the files does it come through the supervisor.

    Source: RapidApp::BgTask::Stream.
    """

    def __init__(self, task: Task, number: int) -> None:
        self.task = task
        self.number = number
        self.name = NAMES[number]
        self._contact = task._contact
        self._position: int | None = None  # None: at the start, wherever that is by then
        # A connection of its own, so that nothing else waits for a command that does not read.
        self._writer = SharedConnection(self._contact.connect)

    def __repr__(self) -> str:
        return f"<{self.name} of {self.task!r}>"

    # -- reading ----------------------------------------------------------------------------------------

    @property
    def start(self) -> int:
        """The first byte (or message) that is still there; what was before it was discarded, or more than is kept."""
        return self._extent().start

    @property
    def limit(self) -> int:
        """How many bytes (or messages) there have been; of stdin: how many the command's pipe has taken."""
        return self._extent().limit

    @property
    def ended(self) -> bool:
        """Whether nothing more will come: the stream was closed by all who write to it, or the supervisor is dead."""
        return self._extent().ended or not self._contact.may_live()

    @property
    def position(self) -> int:
        """Where the next `read` begins; `read` returned what is just before it."""
        return self.start if self._position is None else self._position

    def read(self, ofs: int | None = None, count: int | None = None) -> Any:
        """What there is: bytes, or for ``data`` a list of messages. Never waits; empty when there is nothing (more).

        Args:
            ofs: Begin there; None: at the position, which then moves on behind what was read.
            count: At most that many; None: all.

        What is no longer there is left out of the range that was asked for: of the bytes 0 to 2, when the first four
        are gone, nothing is left. (The original gives three bytes from 4 on.) After a read without `ofs`, ``position``
        minus the length is where the bytes really began. What `retain_output` of `TaskPool.spawn` does not keep is
        given up once it has been read.
        """
        begin, found = self._read(ofs, count)
        end = begin + len(found)
        if ofs is None:
            self._position = end
        if len(found):
            self._consumed(end)
        return found

    def peek(self, ofs: int | None = None, count: int | None = None) -> Any:
        """The same bytes or messages as `read`, but the position stays, and nothing counts as having been read."""
        return self._read(ofs, count)[1]

    def discard(self, count: int | None = None) -> int:
        """Give up the oldest bytes or messages, for everyone; the new start.

        Args:
            count: How many of those that are still there. (The original takes the number of the last byte to go.) None:
                all of them.

        Raises TaskGone without a supervisor to do it.
        """
        extent = self._extent()
        upto = extent.limit if count is None else extent.start + check_count("count", count, most=_MOST)
        head, _ = self._contact.ask({"op": "discard", "stream": self._stored(), "upto": min(upto, extent.limit)})
        return int(head["start"])

    def __iter__(self) -> Iterator[Any]:
        """Of bytes the lines, of ``data`` the messages: from the position to what there is now, without waiting."""
        if self.number == DATA:
            yield from self.read()
        else:
            yield from self.read().splitlines(keepends=True)

    def follow(self, timeout: float | None = None) -> Iterator[Any]:
        """Yield new output as it comes, from the position on, until the stream has ended: at most a mebibyte at a time,
        or messages one by one.

        The supervisor tells when there is more; nobody polls. A stream has not ended while anything that the command
        started holds it open, or while a restart is due.

        Args:
            timeout: Stop after this many seconds without anything new; 0: do not wait at all; None: no limit.

        Raises TaskGone when the supervisor lives, or may live on another host, and cannot be reached.
        """
        timeout = None if timeout is None else check_seconds("timeout", timeout)
        try:
            # Watched before the first read: what comes after that is told, and what came before is read. The other way
            # round, output in between would wait for the next one.
            with EventWatch(self._contact) as watch:
                if not (yield from self._followed(watch, timeout)):
                    return
        except TaskGone:
            if self._contact.may_live():
                raise
        yield from self._new()

    def _followed(self, watch: EventWatch, timeout: float | None) -> Generator[Any, None, bool]:
        """Whether the stream has ended."""
        # Whether it has ended is asked before we read, so what is read behind the last question is all.
        while not self._extent().ended:
            yield from self._new()
            if not self._await_more(watch, timeout):
                return False
        return True

    def _new(self) -> Iterator[Any]:
        if self.number == DATA:
            while messages := self.read(count=MESSAGES_AT_ONCE):
                yield from messages
        else:
            while chunk := self.read(count=BYTES_AT_ONCE):
                yield chunk

    def _await_more(self, watch: EventWatch, timeout: float | None) -> bool:
        """Wait until the supervisor tells of more than has been read; False when it does not in time."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (event := watch.event(deadline)) is not None:
            about_us = event.get("event") == protocol.OUTPUT and event.get("stream") == self.name
            if about_us and (event["eof"] or event["limit"] > self.position):
                return True
        return False

    def _read(self, ofs: int | None, count: int | None) -> tuple[int, Any]:
        ofs = self._position if ofs is None else check_count("ofs", ofs, most=_MOST)
        count = None if count is None else check_count("count", count, most=_MOST)
        if self.number == STDIN:
            raise ValueError("stdin is written to, not read")
        try:
            return self._contact.record.reader(self.number).read(ofs, count)
        except PermissionError:
            return self._read_by_supervisor(ofs, count)
        except Gone as error:
            raise TaskGone(str(error)) from error

    def _read_by_supervisor(self, ofs: int | None, count: int | None) -> tuple[int, Any]:
        extent = self._extent()
        begin = at = max(extent.start, ofs or 0)
        end = extent.limit if count is None else min(extent.limit, (extent.start if ofs is None else ofs) + count)
        found: list[bytes] = []
        while at < end:
            request = {"op": "read", "stream": self.number, "ofs": at, "count": min(end - at, MAX_BODY)}
            head, body = self._contact.ask(request)
            begin = begin if found else head["ofs"]
            at = head["ofs"] + head.get("count", len(body))
            found.append(body)
        return begin, found if self.number == DATA else b"".join(found)

    def _consumed(self, upto: int) -> None:
        if not self._contact.keeps_all():
            with suppress(TaskGone, TaskRefused):
                self._contact.ask({"op": "consumed", "stream": self.number, "upto": upto})

    def _stored(self) -> int:
        if self.number == STDIN:
            raise ValueError("stdin is not kept")
        return self.number

    def _extent(self) -> Extent:
        if self.number != STDIN:
            with suppress(PermissionError, Gone):
                return self._contact.record.reader(self.number).extent()
        told = self.task.info(fresh=True)["streams"].get(self.name)
        return Extent(told["start"], told["limit"], told["eof"]) if told else Extent(0, 0, True)

    # -- writing ----------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview | str, timeout: float | None = None) -> int:
        """Hand bytes to the command's stdin, or one message to its ``data``; how many bytes were taken.

        Waits until the command, or its pipe, has taken all of them: neither the supervisor nor this process piles
        them up. A str is written in UTF-8.

        Args:
            timeout: Give up after this many seconds; then fewer bytes than given may have been taken. 0: take what
                there is room for, do not wait; None: no limit.

        Raises:
            StreamClosed: It was closed, or the command has ended.
            TaskGone: The supervisor cannot be reached.
            ValueError: The stream is not written to; or a message is empty, or has more than 131072 bytes.
        """
        if self.number not in (STDIN, DATA):
            raise ValueError(f"{self.name} is read, not written to")
        view = check_message(data) if self.number == DATA else _view(data)
        deadline = None if timeout is None else time.monotonic() + check_seconds("timeout", timeout)
        return self._write_all(view, deadline)

    def _write_all(self, view: memoryview, deadline: float | None) -> int:
        written = 0
        while written < len(view):
            wait = None if deadline is None else min(max(0.0, deadline - time.monotonic()), LONGEST_WAIT)
            taken = self._write(view[written : written + MAX_BODY], wait)
            written += taken
            if not taken:
                break
        return written

    def _write(self, piece: memoryview, wait: float | None) -> int:
        try:
            request = {"op": "write", "stream": self.number, "wait": wait, "task": self._contact.record.id}
            return int(self._writer.ask(request, piece, wait, again=False)[0]["written"])
        except TaskRefused as error:
            if error.facts.get("closed"):
                raise StreamClosed(f"{self.name} of task {self.task.pid} is closed") from error
            raise

    def close(self, immediate: bool = False) -> None:
        """Close the stream for the command: its stdin ends; what it writes to stdout or stderr finds a broken pipe.

        Args:
            immediate: Drop what other clients have under way; otherwise it is delivered first.
        """
        self._contact.ask({"op": "close", "stream": self.number, "immediate": bool(immediate)})
        self._writer.disconnect()


def stream_number(index_or_name: int | str) -> int:
    """A stream's number: 0 to 2 and ``stdin``, ``stdout``, ``stderr`` as everywhere; 3 or ``data`` for messages."""
    if isinstance(index_or_name, str) and index_or_name in NAMES:
        return NAMES.index(index_or_name)
    if isinstance(index_or_name, int) and not isinstance(index_or_name, bool) and 0 <= index_or_name < len(NAMES):
        return index_or_name
    allowed = ", ".join(f"{number} or {name!r}" for number, name in enumerate(NAMES))
    raise ValueError(f"stream must be one of {allowed}; not {index_or_name!r}")


def check_message(data: bytes | bytearray | memoryview | str) -> memoryview:
    """A message's bytes. ValueError if it has none, or too many."""
    view = _view(data)
    if not 0 < len(view) <= MAX_MESSAGE:
        raise ValueError(f"a message must have from 1 to {MAX_MESSAGE} bytes, not {len(view)}")
    return view


def _view(data: bytes | bytearray | memoryview | str) -> memoryview:
    return memoryview(data.encode() if isinstance(data, str) else data).cast("B")
