"""What the boss waits for: its links, and whether its parent lives; awake for an instant where an answer is due."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

from bossworker.pool.boss.reports import Reports
from bossworker.pool.wire.link import Link
from bossworker.pool.wire.spin import Spin
from bossworker.system.processes import LONGEST_POLL

EVENT_READ, EVENT_WRITE = select.POLLIN, select.POLLOUT

OnEvent = Callable[[int], None]
"""Called with the events that are there: EVENT_READ, EVENT_WRITE, or what the system tells of an end."""


class Poller:
    """See the module. (The module selectors does the same in twice the time, which counts while we stay awake.)"""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._poll = self._epoll or select.poll()
        self._watched: dict[int, OnEvent] = {}
        self._answers, self._requests = Spin(), Spin()
        self._awake_until = 0.0  # monotonic seconds; 0.0: nothing is due
        self._patience = self._answers  # for what we are awake for,
        self._asked_at = 0.0  # since then; 0.0: it has come

    def watch(self, link: Link, on_event: OnEvent) -> None:
        """Call it when the link has something for us, or takes something that waits to be sent."""
        self._watch(link.fileno(), EVENT_READ | (EVENT_WRITE if link.unsent else 0), on_event)

    def refresh(self, link: Link) -> None:
        """Of a link that is watched: from now on also for what waits to be sent, or no longer, as it has become."""
        fd = link.fileno()
        if fd in self._watched:
            self._poll.modify(fd, EVENT_READ | (EVENT_WRITE if link.unsent else 0))

    def watch_fd(self, fd: int, on_event: OnEvent) -> None:
        """Call it while the descriptor is readable."""
        self._watch(fd, EVENT_READ, on_event)

    def _watch(self, fd: int, events: int, on_event: OnEvent) -> None:
        if fd in self._watched:
            self._poll.modify(fd, events)
        else:
            self._poll.register(fd, events)
        self._watched[fd] = on_event

    def forget(self, link: Link) -> None:
        """Stop watching it, if it is watched."""
        self.forget_fd(link.fileno())

    def forget_fd(self, fd: int) -> None:
        """The same for a descriptor."""
        if self._watched.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def expect_answer(self, now: float) -> None:
        """Do not fall asleep at once: a worker will soon be through with its jobs."""
        self._expect(self._answers, now)

    def expect_request(self, now: float) -> None:
        """Do not fall asleep at once: whoever has got a result may want another one. (Nothing else is due.)"""
        self._expect(self._requests, now)

    def _expect(self, patience: Spin, now: float) -> None:
        self._patience, self._asked_at = patience, now
        self._awake_until = patience.until(now)

    def wait(self, seconds: float | None) -> None:
        """Sleep until something is there, or a report, at most this many seconds (None: without limit).

        Calls whoever watches what is there. The boss reads the reports, after what the links brought.
        """
        ready = (self._awake_until and self._look_again()) or self._sleep(seconds)
        if self._asked_at:
            self._patience.learn(time.monotonic() - self._asked_at)
            self._asked_at = 0.0
        for fd, events in ready:
            # One call may have closed another's descriptor. A new one may have its number by now; then it gets events
            # that are not its own, finds nothing to read, and goes on.
            if fd in self._watched:  # not so if one of those before it has ended it
                self._watched[fd](events)

    def _look(self, seconds: float | None) -> list[tuple[int, int]]:
        """What is there within this many seconds, or LONGEST_POLL: descriptors and events."""
        if seconds is not None:
            seconds = min(seconds, LONGEST_POLL)
        if self._epoll is not None:
            return self._epoll.poll(seconds)
        return self._poll.poll(None if seconds is None else seconds * 1000)

    def _sleep(self, seconds: float | None) -> list[tuple[int, int]]:
        try:
            # The word that we sleep goes before the last look at the mailboxes, and that before the sleep; what comes
            # in between wakes us over its link.
            return self._look(0 if self._reports.fall_asleep() else seconds)
        finally:
            self._reports.wake_up()

    def _look_again(self) -> list[tuple[int, int]]:
        """Stay awake while an answer is due."""
        while (now := time.monotonic()) < self._awake_until:
            ready = self._look(0)
            if ready or self._reports.waiting():
                return ready
            self._patience.rest(now)
        self._awake_until = 0.0
        return []
