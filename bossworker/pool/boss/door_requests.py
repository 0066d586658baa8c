"""What comes through the doors: jobs of other programs, asked for by a door's process as the caller asks for its own.

A door's process has checked what strangers sent (``pool/door/``). It is ours, but it has been near them: what makes no
sense here costs it its line, and never harms the boss.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from struct import error as StructError

from bossworker.errors import CANCELLED
from bossworker.failure import Outcome
from bossworker.pool.boss.actions import Finish
from bossworker.pool.boss.client_lines import MOST_LINES, ClientLine, DoorResults, client_of
from bossworker.pool.boss.operations import Operations
from bossworker.pool.boss.poller import EVENT_WRITE, Poller
from bossworker.pool.boss.pool_access import PoolAccess
from bossworker.pool.boss.replying import send_reply
from bossworker.pool.boss.stacks import jobs_meant
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.link import Link, LinkClosed, close_fds
from bossworker.pool.wire.messages import CLIENT_BITS, DOOR_BITS, OWN_ID, WARNING, Kind, ProtocolError
from bossworker.pool.wire.parcel import held

FAREWELL_SECONDS = 1.0  # for a door to take the last results


class Doors:
    """All that are open."""

    def __init__(self, pool: PoolAccess, operations: Operations, poller: Poller) -> None:
        self.pool = pool
        self.operations = operations
        self.poller = poller
        self._lines: dict[int, DoorLine] = {}
        self._told = False  # that no more jobs are taken

    def open(self, frame: Frame) -> None:
        """Listen to a door's process, at the other end of the socket that came along."""
        (number,) = messages.LISTEN.unpack(frame.head)
        if frame.fd is not None:  # else there was no room for it here, and the door finds that nobody is there
            self._lines[number] = DoorLine(self, number, Link(socket.socket(fileno=frame.fd)))
            self._told = False

    def count_lines(self) -> int:
        """How many clients have a line here."""
        return sum(one.link is not None for line in self._lines.values() for one in line.results.lines.values())

    def forget(self, number: int) -> None:
        """It is gone."""
        del self._lines[number]

    @property
    def unsent(self) -> bool:
        return bool(self._lines) and any(line.results.unsent for line in self._lines.values())

    @property
    def _begun(self) -> bool:
        return self.unsent or any(line.results.links_unsent for line in self._lines.values())

    def deliver(self) -> None:
        """Send results, and see to it that we go on when the doors take more."""
        for line in list(self._lines.values()):
            if line.results.unsent:
                line.deliver()

    def take_no_more(self) -> None:
        """The pool is being shut down. May be called again."""
        if not self._told:
            self._told = True
            for line in list(self._lines.values()):
                line.send(Kind.CLOSE)

    def say_farewell(self) -> None:
        """The pool is through: the doors get what they have not taken, if they take it soon."""
        deadline = time.monotonic() + FAREWELL_SECONDS
        while self._begun and time.monotonic() < deadline:
            poll = select.poll()
            for line in self._lines.values():
                for link in line.results.links_unsent:
                    poll.register(link.fileno(), select.POLLOUT)
            poll.poll(100)
            self.deliver()
            for line in self._lines.values():
                line.results.flush_lines()
        for line in list(self._lines.values()):
            line.send(Kind.CLOSED)


class DoorLine:
    """The line to one door's process."""

    def __init__(self, doors: Doors, number: int, link: Link) -> None:
        self._doors = doors
        self._pool = doors.pool
        self._number = number
        self.link = link
        self._closed = False
        self.results = self._pool.delivery.doors[number] = DoorResults(link)
        doors.poller.watch(link, self._read)

    def deliver(self) -> None:
        try:
            self.results.send()
        except LinkClosed:
            self._close()
        else:
            self._watch()

    def send(self, kind: Kind, head: bytes = b"", body: Sequence[bytes] = ()) -> None:
        """Also the answer to what was asked long ago, by a door that is closed by now."""
        if self._closed:
            return
        with suppress(LinkClosed):  # its end will be noticed as we read
            self.link.send(kind, head, body)
        self._watch()

    def _watch(self) -> None:
        if self.link.unsent:
            self._doors.poller.watch(self.link, self._read)

    def _close(self) -> None:
        """The door is gone: what came through it is nobody's any more. May be called again."""
        if self._closed:
            return
        self._closed = True
        del self._pool.delivery.doors[self._number]
        self._doors.poller.forget(self.link)
        self.link.close()
        self.results.close_lines()
        self._doors.forget(self._number)
        first = self._number << DOOR_BITS - CLIENT_BITS
        self._drop(range(first, first + messages.LAST_CLIENT + 1))

    # -- what it asks for -------------------------------------------------------------------------------

    def _read(self, events: int) -> None:
        try:
            if events & EVENT_WRITE and self.link.flush():
                self._doors.poller.watch(self.link, self._read)
            frames = iter(self.link.receive())
        except (LinkClosed, ProtocolError):
            self._close()
            return
        try:
            for frame in frames:
                self._on_frame(frame)
        except (ProtocolError, StructError, ValueError, TypeError) as error:
            self._pool.note(WARNING, f"door closed: number={self._number} reason={str(error)!r}")
            self._close()
        finally:
            for frame in frames:
                close_fds(frame.fds)

    def _on_frame(self, frame: Frame) -> None:
        if frame.kind is Kind.SUBMIT:
            self._on_submit(frame)
            return
        for line in list(self.results.lines.values()):  # it may be about jobs that were sent before, on their own lines
            line.read()
        match frame.kind:
            case Kind.CLIENT_LINE | Kind.LINE_END | Kind.CLIENTS | Kind.CLIENT_GONE:
                self._on_clients(frame)
            case Kind.NOTE:
                (level,) = messages.unpack(messages.NOTE, frame.head)
                self._pool.note(level, str(frame.body, "utf-8", "replace"))
            case kind if (see_to := _REQUESTS.get(kind)) is not None:
                (number,) = messages.REQUEST.unpack_from(frame.head)
                see_to(self, number, frame.head[messages.REQUEST.size :], frame.body)
            case kind:
                raise ProtocolError(f"a frame of kind {kind!r}")

    # Requests: each has a number, which its reply has, too.

    def _on_cancel(self, number: int, more: memoryview, body: memoryview) -> None:
        ids = [job_id for job_id in body.cast("Q").tolist() if self._owns(job_id)]
        self._reply(number, {"count": self._pool.cancel(ids, messages.QUEUED_ONLY if more else b"")})

    def _on_stats(self, number: int, more: memoryview, body: memoryview) -> None:
        if self.results.unsent:  # so that what is counted as done has been sent
            self.deliver()
        self._reply(number, self._pool.stats())

    def _on_stack(self, number: int, more: memoryview, body: memoryview) -> None:
        (job_id,) = messages.unpack(messages.JOB, more)
        self._pool.stacks.ask(number, _jobs_meant(job_id), self._reply)

    def _on_events(self, number: int, more: memoryview, body: memoryview) -> None:
        seen, wait = messages.unpack(messages.EVENTS, more)
        self._pool.watchers.ask(number, seen, wait, self._reply)

    def _on_operate(self, number: int, more: memoryview, body: memoryview) -> None:
        self._doors.operations.ask(number, bytes(body), self._reply)

    def _owns(self, job_id: int) -> bool:
        return job_id >> DOOR_BITS == self._number

    def _reply(self, number: int, content: dict[str, object]) -> None:
        send_reply(self.send, number, content)

    def _on_submit(self, frame: Frame) -> None:
        """Jobs that come by the door."""
        batch = Batch.read(frame.head, frame.body, held(frame.fd, self._pool.memory))
        if not self._owns(batch.first_id) or batch.count < 1:
            raise ProtocolError(f"a job with id {batch.first_id}")
        line = self.results.lines.get(client_of(batch.first_id))
        if line is None:
            self._submit(batch)
            return
        line.read()  # what it has sent before
        size = len(frame.body)
        if batch.file is not None:
            size += os.fstat(batch.file.fd).st_size
            line.lent.add(batch.first_id)
        self._submit_counted(line, batch, size)

    def _submit_counted(self, line: ClientLine, batch: Batch, size: int) -> None:
        why = line.why_full(batch, size)
        line.add(batch.count, size)
        if why:
            self._finish(batch, Outcome.BAD_JOB, f"BossWorkerAsync: not taken: {why}")
        else:
            self._submit(batch)

    def _submit(self, batch: Batch) -> None:
        if self._pool.ledger.closing:  # it was on its way as the pool was closed
            self._pool.delivery.ring.queued(batch.first_id, batch.count, time.monotonic())
            self._finish(batch, Outcome.CANCELLED, CANCELLED)
        else:
            self._pool.submit(batch)

    def _finish(self, batch: Batch, outcome: Outcome, text: str) -> None:
        """Give jobs their results without having run them."""
        now = time.monotonic()
        self._pool.perform([Finish(job_id, 0, 0, outcome, text, now, now) for job_id in batch.ids])

    # -- clients that have a line here ------------------------------------------------------------------

    def _on_clients(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.CLIENT_LINE:
                (client,) = messages.unpack(messages.COUNT, frame.head)
                self._open_line(client, frame.fd)
            case Kind.LINE_END:
                number, client = messages.unpack(messages.CLIENT_GONE, frame.head)
                self._reply(number, _figures(self.results.end_line(client)))
            case Kind.CLIENT_GONE:
                number, client = messages.unpack(messages.CLIENT_GONE, frame.head)
                figures = _figures(self.results.end_line(client))
                self._reply(number, {"count": self._drop_client(client), **figures})
            case Kind.CLIENTS:
                (number,) = messages.unpack(messages.REQUEST, frame.head)
                if self.results.unsent:
                    self.deliver()
                self._reply(number, {"clients": self.results.figures()})

    def _open_line(self, client: int, fd: int | None) -> None:
        link = Link(socket.socket(fileno=fd)) if fd is not None else None
        if link is not None and self._doors.count_lines() >= MOST_LINES:
            link.close()  # the client finds that nobody is there, and does without
            link = None
        base = self._number << DOOR_BITS | client << CLIENT_BITS

        def on_nonsense(reason: str) -> None:
            self._pool.note(WARNING, f"client dropped: door={self._number} client={client} reason={reason!r}")
            self._drop_client(client)

        # Nothing that it holds may lead back to it: there is no garbage collector in the boss.
        line = ClientLine(link, base, self._doors.poller, self._submit_counted, on_nonsense)
        self.results.lines[client] = line

    def _drop_client(self, client: int) -> int:
        whole = self._number << DOOR_BITS - CLIENT_BITS | client
        return self._drop(range(whole, whole + 1))

    def _drop(self, clients: range) -> int:
        """Forget these clients' jobs, and stop those that run; how many of those there are."""
        running = [job_id for worker in self._pool.ledger.busy() for job_id in worker.batch.ids]  # type: ignore[union-attr]
        count = self._pool.cancel([job_id for job_id in running if job_id >> CLIENT_BITS in clients])
        self._pool.ledger.queue.drop(clients)
        self._pool.delivery.ring.forget_clients(clients)
        return count


_REQUESTS: dict[Kind, Callable[[DoorLine, int, memoryview, memoryview], None]] = {
    Kind.CANCEL: DoorLine._on_cancel,
    Kind.STATS: DoorLine._on_stats,
    Kind.STACK: DoorLine._on_stack,
    Kind.EVENTS: DoorLine._on_events,
    Kind.OPERATE: DoorLine._on_operate,
}


def _jobs_meant(job_id: int) -> range | None:
    """The jobs whose stacks a door asks for; an id without a client's own part stands for all of that client."""
    return range(job_id, job_id + OWN_ID + 1) if not job_id & OWN_ID else jobs_meant(job_id)


def _figures(line: ClientLine | None) -> dict[str, object]:
    return {} if line is None else {"unfinished": line.unfinished, "done": line.done}
