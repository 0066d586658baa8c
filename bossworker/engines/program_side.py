"""What the line's thread tells the program: results, answers, what jobs have printed, what there is to be logged."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from bossworker.failure import Outcome
from bossworker.pool.boss.delivery import Undelivered
from bossworker.pool.boss.event_ring import EventRing
from bossworker.pool.boss.replying import send_reply
from bossworker.pool.wire import messages
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.segments import Segment

_GOOD = (int(Outcome.OK), int(Outcome.OK | Outcome.WHOLE))


class ProgramSide:
    """See the module."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.over = False  # nothing more is told
        self.done = self.failed = 0  # jobs
        self.ring = EventRing()
        self._results = Undelivered(link)

    @property
    def unsent(self) -> bool:
        """Whether results have to wait."""
        return self._results.unsent

    def add(self, segments: list[Segment]) -> None:
        """Results for the program."""
        for segment in segments:
            outcomes = bytes(segment.outcomes)
            good = sum(map(outcomes.count, _GOOD))
            self.done += good
            self.failed += segment.jobs - good
            self._results.put(segment)
            self.ring.ended(segment)

    def deliver(self) -> None:
        """Send what it takes now. LinkClosed: it is gone."""
        if self._results.unsent:
            self._results.send()

    def relay(self, lines: Iterable[bytes]) -> None:
        """Pass on what jobs have printed, ahead of their results."""
        if not self.over:
            for some in lines:
                self.link.send(Kind.OUTPUT_LINES, b"", [some])

    def reply(self, number: int, content: dict[str, object]) -> None:
        """Answer a request; number 0 wants no answer."""
        if not self.over:
            send_reply(self.link.send, number, content)

    def note(self, level: int, text: str) -> None:
        """Have the program's logger say something."""
        with suppress(LinkClosed):
            self.link.send(Kind.NOTE, messages.NOTE.pack(level), [text.encode()])

    def tell_exit_errors(self, errors: dict[int, str]) -> None:
        """What exit_handlers have raised, by the workers' pids."""
        for pid, text in errors.items():
            self.link.send(Kind.EXIT_ERROR, messages.EXIT_ERROR.pack(pid), [text.encode()])
