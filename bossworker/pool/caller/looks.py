"""What can be seen of a pool: figures, events, a trace, its processes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bossworker.display import table
from bossworker.errors import PoolClosed
from bossworker.pool.boss.stats import Stats, stats_of
from bossworker.pool.caller.connection import Connection
from bossworker.pool.caller.inbox import Inbox
from bossworker.pool.caller.state import HandleState
from bossworker.pool.caller.taps import Tap
from bossworker.pool.wire import messages
from bossworker.pool.wire.messages import Kind
from bossworker.system.checks import check_path

if TYPE_CHECKING:
    from bossworker.watch.pool_events import EventReader

# What makes events of the boss's records is loaded where it is needed: its classes take long to make, and most pools
# are not watched.


class PoolLooks:
    """The part of a `BossWorker` that tells of it."""

    _state: HandleState
    _connection: Connection
    _inbox: Inbox

    @property
    def name(self) -> str:
        """What the pool is called."""
        raise NotImplementedError

    def _ask(self, kind: Kind, head: bytes = b"", body: Sequence[bytes] = ()) -> dict[str, Any]:
        raise NotImplementedError

    def stats(self) -> Stats:
        """The pool at this instant. PoolClosed after ``shut_down``."""
        self._state.check_owner()
        if self._state.ended:
            raise PoolClosed("the pool has been shut down")
        return stats_of(self._ask(Kind.STATS))

    def events(self, since: int | None = None) -> EventReader:
        """What happens in the pool, as it happens: an iterator that waits for the next event, and ends with the pool.

        When the boss dies, it raises BossDied after the events that have arrived.

        The events are `JobQueued`, `JobStarted`, `JobEnded`, `JobProgress`, `JobLog`, `WorkerUp` and `WorkerDown`,
        each with its number (``seq``) and time. Numbers are in the order in which the boss learned of them, which
        for events of different workers may differ from that of their times by some hundredths of a second. Of a short
        job, the boss learns that it has started when it has ended: then its `JobLog` events come before `JobStarted`.

        Any number of iterators may read, in any threads, each at its own pace. The boss keeps the last 32,768 events:
        whoever falls behind gets one `Missed`, with how many were dropped, and goes on with the oldest that is left. An
        event may come some hundredths of a second late, or tenths where other threads use the pool; and readers that
        keep up with thousands of jobs a second get parts of them: a pool is not slowed down by being watched.
        `JobProgress` is not kept but looked for, some twenty times a second, while somebody reads: not once no reader
        has asked for five seconds.

        Args:
            since: Begin behind the event of this number; 0: with the oldest that is left; None: with what happens
                from now on. After an orderly ``shut_down``, what is left may still be read, if the pool was watched.

        Raises:
            PoolClosed: The pool has been shut down, and nobody had watched it; or it was shut down by force.
            BossDied: The boss has died; here or, once the iterator has given out what is left, there.
        """
        from bossworker.watch.pool_events import EventReader, check_since

        number = check_since(since)
        self._state.check_owner()
        if self._state.ended and self._connection.said.last_events is None:
            self._state.check_death()
            raise self._state.why_unwatched()
        return EventReader(self._ask_events, number)

    def trace(self, path: str | os.PathLike[str]) -> None:
        """Write the last events to a file in Chrome's trace format, for ui.perfetto.dev or chrome://tracing.

        It has a lane a worker, failed jobs in red, and counters of jobs and memory. It costs nothing until it is
        called: the boss keeps the last 32,768 events anyway. The file is written anew.

        Raises:
            TypeError, ValueError: `path` is no path.
            OSError: It cannot be written.
            PoolClosed: The pool has been shut down, and nobody had watched it; or it was shut down by force.
            BossDied: The boss has died, and the events with it.
        """
        from bossworker.watch.chrome_trace import write_trace
        from bossworker.watch.pool_events import memory_points, unpack_events

        check_path("path", path)
        self._state.check_owner()
        answer = self._ask_events(0, False)
        if answer is None:
            raise self._state.why_unwatched()
        write_trace(path, self.name, self.boss_pid, unpack_events(answer, 0), memory_points(answer))

    def _ask_events(self, seen: int, wait: bool) -> Mapping[str, Any] | None:
        """The boss's answer, or what is left of one that has ended. BossDied when there is no more, and it died."""
        self._state.check_owner()
        line = self._connection
        answer: Mapping[str, Any] | None = None
        if not self._state.ended and not line.gone:
            answer = line.request(Kind.EVENTS, messages.EVENTS.pack(seen, wait), patient=wait)
        if answer is None:
            from bossworker.watch.pool_events import events_left

            answer = events_left(line.said.last_events, seen)
        if answer is None:
            self._state.check_death()
        return answer

    @property
    def boss_pid(self) -> int:
        """The boss's process id."""
        return self._connection.pid

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """The process ids of the workers that are up; empty when the pool is down."""
        self._state.check_owner()
        if self._state.ended or self._connection.gone:
            return ()
        answer = self._connection.request(Kind.STATS) or {"workers": ()}
        return tuple(w["pid"] for w in answer["workers"] if w["state"] != "starting")

    def _tap(self, tap: Tap) -> None:
        """Tell it of jobs and results from now on. RuntimeError when there is one already."""
        if self._inbox.tap is not None:
            raise RuntimeError("this pool is instrumented already")
        self._inbox.tap = tap

    def _repr_html_(self) -> str:
        """What is known here: the boss is not asked, and nothing waits."""
        rows = [("boss", self.boss_pid), ("pending", self._inbox.pending()), ("see also", "stats()")]
        return table(f"BossWorker {self.name}, {'closed' if self._state.closing else 'open'}", rows)
