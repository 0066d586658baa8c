"""Lines of clients to the boss itself: small jobs and results go over them, and wake nobody in between.

The door lets a client in, knows it, and answers what it asks. One of this user and machine may have a line to the boss
besides, for what must be quick: SUBMIT one way, RESULTS the other. Nothing piles up here: results that a client does
not take at once go to its door, which keeps them for it.

A client is trusted no more than a door's process is: what makes no sense costs it its line, and its jobs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from struct import error as StructError

from bossworker.pool.boss.delivery import Undelivered
from bossworker.pool.boss.poller import EVENT_WRITE, Poller
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.client_jobs import LONGEST_ON_LINE, Allowance, read_batch
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.link import Link, LinkClosed, close_fds
from bossworker.pool.wire.messages import CLIENT_BITS, LAST_CLIENT, OWN_ID, Kind, ProtocolError
from bossworker.pool.wire.segments import Segment

MOST_LINES = 64  # of all doors, as each takes a descriptor of the boss
READS_AT_ONCE = 1  # of one line, so that a client that sends without end has the boss's attention for a moment only
CATCH_UP_READS = 16  # more than a socket holds


class ClientLine(Allowance):
    """One of them, and what its client has unfinished: of jobs that come by the door as well.

    `link` is None where there was no room for it: then all goes by the door. `base` stands above the client's own ids,
    which are what it is told. `on_jobs` takes what it submits, and
    `on_nonsense` the reason for which it has been hung up on.
    """

    def __init__(
        self,
        link: Link | None,
        base: int,
        poller: Poller,
        on_jobs: Callable[[ClientLine, Batch, int], None],
        on_nonsense: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.link = link
        self._base = base
        self._poller = poller
        self._on_jobs = on_jobs
        self._on_nonsense = on_nonsense
        self._results = Undelivered(link) if link is not None else None
        self._ending = False  # it is hung up as soon as what was begun has been sent
        self.lent: set[int] = set()  # jobs that came by the door with a file: the door has to see their results
        if link is not None:
            with suppress(LinkClosed):  # its end will be noticed as we read
                link.send(Kind.READY)
            self._watch()

    def _watch(self) -> None:
        if self.link is not None:
            self._poller.watch(self.link, self._on_event)

    @property
    def unsent(self) -> bool:
        return self.link is not None and self.link.unsent

    def hang_up(self) -> None:
        """May be called again."""
        link, self.link, self._results = self.link, None, None
        if link is not None:
            self._poller.forget(link)
            link.close()

    # -- results ----------------------------------------------------------------------------------------

    def take(self, segment: Segment) -> bool:
        """Results of its jobs; whether they go over this line. (A file goes by the door, and so does what waits.)"""
        self.count(segment.jobs)
        if self.lent and segment.first_id in self.lent:
            self.lent.discard(segment.first_id)
            return False
        # While something is unsent, everything goes by the door: nothing may overtake what was begun here, nor wait
        # behind it.
        if self._results is None or self.unsent or segment.beside is not None:
            return False
        self._results.waiting.append(segment._replace(first_id=segment.first_id & OWN_ID))
        return True

    def send(self) -> list[Segment]:
        """Send what goes over this line; what it does not take now."""
        if (results := self._results) is None:
            return []
        with suppress(LinkClosed):  # its end will be noticed as we read
            results.send()
        if self.unsent:
            self._watch()
        left = [segment._replace(first_id=self._base | segment.first_id) for segment in results.waiting]
        results.waiting.clear()
        return left

    def end(self) -> None:
        """Take nothing more, and hang up when what was begun has been sent."""
        self._ending = True
        if not self.unsent:
            self.hang_up()

    # -- jobs -------------------------------------------------------------------------------------------

    def _on_event(self, events: int) -> None:
        if events & EVENT_WRITE:
            self.flush()
        self.read(READS_AT_ONCE)

    def flush(self) -> None:
        """Send the rest of what was begun."""
        try:
            if self.link is not None and self.link.flush():
                if self._ending:
                    self.hang_up()
                self._watch()
        except LinkClosed:
            self.hang_up()

    def read(self, reads: int = CATCH_UP_READS) -> None:
        """Take in the jobs that have come."""
        if self.link is None or self._ending:
            return
        frames: Iterator[Frame] = iter(())
        try:
            frames = iter(self.link.receive(reads))
            for frame in frames:
                self._on_frame(frame)
            if self.link is not None and (self.link.garbled or self.link.held > LONGEST_ON_LINE):
                raise ProtocolError("what is no frame, or one that is longer than a line takes")
        except LinkClosed:
            self.hang_up()
        except (ProtocolError, StructError, ValueError, TypeError) as error:
            self._refuse(str(error))
        finally:
            for frame in frames:
                close_fds(frame.fds)

    def _on_frame(self, frame: Frame) -> None:
        if frame.kind is not Kind.SUBMIT or frame.fds:
            close_fds(frame.fds)
            raise ProtocolError(f"a frame of kind {frame.kind!r} on a client's line")
        batch = read_batch(frame)
        batch.first_id |= self._base
        self._on_jobs(self, batch, len(frame.body))

    def _refuse(self, reason: str) -> None:
        if self.link is not None:
            with suppress(LinkClosed):
                self.link.send(Kind.GOODBYE, b"", [reason.encode()])
        self.hang_up()
        self._on_nonsense(reason)


class DoorResults(Undelivered):
    """What waits for a door, or for one of its clients that has a line."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.lines: dict[int, ClientLine] = {}
        self._ready: list[ClientLine] = []  # that have something to be sent
        self._ending: list[ClientLine] = []

    @property
    def unsent(self) -> bool:
        return bool(self.waiting or self._ready or self._link.unsent)

    @property
    def links_unsent(self) -> list[Link]:
        """Those that have begun to send something."""
        links = [line.link for line in (*self.lines.values(), *self._ending)]
        return [link for link in (self._link, *links) if link is not None and link.unsent]

    def put(self, segment: Segment) -> None:
        """Have results sent."""
        line = self.lines.get(client_of(segment.first_id)) if self.lines else None
        if line is None or not line.take(segment):
            self.waiting.append(segment)
        elif line not in self._ready:
            self._ready.append(line)

    def send(self) -> None:
        while self._ready:
            self.waiting.extend(self._ready.pop().send())
        super().send()

    def flush_lines(self) -> None:
        """Send the rest of what was begun."""
        for line in (*self.lines.values(), *self._ending):
            line.flush()

    def end_line(self, client: int) -> ClientLine | None:
        """All goes by the door again. The line, whose figures are those of what the door has not been sent."""
        line = self.lines.get(client)
        if line is None:
            return None
        # What the client has sent over it by now counts, whatever it says by its door from here on: so that is taken in
        # first.
        line.read()
        del self.lines[client]
        if line in self._ready:
            self._ready.remove(line)
            self.waiting.extend(line.send())
        coming = self._coming()[client]
        line.unfinished += coming
        line.done -= coming
        self._ending = [one for one in self._ending if one.link is not None] + [line]
        line.end()
        return line

    def _coming(self) -> Counter[int]:
        """How many results of each client still have to be sent to the door."""
        coming: Counter[int] = Counter()
        for segment in self.waiting:
            coming[client_of(segment.first_id)] += segment.jobs
        return coming

    def figures(self) -> dict[str, dict[str, int]]:
        """Of each client that is counted here: a job is done once its result is with the client, or with its door.

        The answer to the door is sent before what waits here: so that must not be counted yet.
        """
        coming = self._coming()
        return {
            str(client): {"unfinished": line.unfinished + coming[client], "done": line.done - coming[client]}
            for client, line in self.lines.items()
        }

    def close_lines(self) -> None:
        for line in (*self.lines.values(), *self._ending):
            line.hang_up()
        self.lines.clear()


def client_of(job_id: int) -> int:
    """The number, at its door, of the client that a job is of."""
    return job_id >> CLIENT_BITS & LAST_CLIENT
