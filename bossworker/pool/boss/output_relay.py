"""``logs="relay"``, in the boss: what the workers write, line by line to the caller, ahead of the results.

While the caller takes what it is sent, nothing is lost: when lines have piled up here, the pipes are left alone, and
whoever writes into them waits. When the caller takes nothing (it is busy with something else, or stopped), the jobs
must go on: then the oldest lines are dropped, and it is told how many.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from bossworker.pool.boss.event_ring import EventRing
from bossworker.pool.boss.job_tails import JobTails
from bossworker.pool.boss.ledger import Ledger
from bossworker.pool.boss.output_pipes import OutputPipes
from bossworker.pool.boss.poller import Poller
from bossworker.pool.wire.link import Link
from bossworker.pool.wire.messages import Kind, ProtocolError
from bossworker.pool.wire.output_frames import NO_JOB, RECORD, OutputLine
from bossworker.pool.wire.recorder import WRITES, Recorder
from bossworker.system.wall_clock import wall_clock
from bossworker.watch.event_records import LOG

READS_AT_ONCE = 4  # of one pipe, before others have their turn
LAST_READS = 64  # of a dead worker's pipe: its children may go on writing
MOST_BYTES = 1 << 22  # of lines that may pile up
FRAME_LINES = 2000  # at most in a frame
PATIENCE_SECONDS = 5.0  # a caller that takes nothing for this long is not waited for; one that reads may be held up
LOOK_SECONDS = 0.1  # between looks at it
EVENT_CHARS = 2000  # of a line are in its event


class OutputRelay:
    """See the module. Times are monotonic seconds."""

    def __init__(
        self,
        ledger: Ledger,
        recorders: Mapping[int, Recorder],
        caller: Link,
        poller: Poller,
        ring: EventRing,
        tails: JobTails,
    ) -> None:
        self._ledger = ledger
        self._recorders = recorders
        self._caller = caller
        self._poller = poller
        self._ring = ring
        self._tails = tails
        self._workers: dict[int, OutputPipes] = {}
        self._writes: dict[int, int] = {}  # slot -> WRITES of its recorder, as of the last look
        self._lines: deque[tuple[Any, ...]] = deque()
        self._bytes = 0
        self._missed = 0
        self._taken_at = 0.0  # when the caller last took all it was sent
        self.paused = False  # whether the pipes are left alone
        self.watched: Callable[[], bool] = lambda: False  # whether anybody wants events

    # -- who is there -----------------------------------------------------------------------------------

    def add(self, slot: int, pid: int, stream: int, fd: int, secret: bytes) -> None:
        """A worker was started; our end of one of its pipes. We look at them once both are here."""
        if slot not in self._workers:
            index, words = self._ledger.workers[slot].index, self._recorders[slot].words
            self._workers[slot] = OutputPipes(pid, index, secret, words)
        self._workers[slot].add(stream, fd)
        if not self.paused:
            self._watch(slot)

    def _watch(self, slot: int) -> None:
        if self._workers[slot].complete:
            for fd in self._workers[slot].fds.values():
                self._poller.watch_fd(fd, partial(self._on_readable, slot))

    def remove(self, slot: int, running: int = NO_JOB) -> None:
        """A worker is dead: what it left in the pipes is of the job that ran. Children of its may live on."""
        pipes = self._workers.pop(slot, None)
        if pipes is None:
            return
        self._writes.pop(slot, None)
        for fd in pipes.fds.values():
            self._poller.forget_fd(fd)
        if pipes.complete:
            # Its children may write on for ever: so there is an end to this, and they find a broken pipe.
            for _ in range(LAST_READS):
                lines, more = pipes.read(lambda: running)
                self._take(pipes, lines)
                if not more:
                    break
            self._take(pipes, pipes.end(running))
        pipes.close()

    # -- reading ----------------------------------------------------------------------------------------

    def _on_readable(self, slot: int, events: int) -> None:
        self.read(slot, READS_AT_ONCE)
        if self._bytes > MOST_BYTES:
            self._pause()

    def before_results(self, slot: int) -> None:
        """Results are about to be taken: read what belongs to them. (Their worker has noted that it wrote.)"""
        writes = self._recorders[slot].words[WRITES]
        # The worker counts after it has written, and before it publishes: results that are about to be taken have all
        # their output behind this number.
        if self._writes.get(slot, 0) != writes:
            self._writes[slot] = writes
            self.read(slot, READS_AT_ONCE)

    def read(self, slot: int, reads: int) -> None:
        """Take in what is in a worker's pipes."""
        pipes = self._workers.get(slot)
        more = pipes is not None and pipes.complete
        while reads and more:
            assert pipes is not None
            lines, more = pipes.read(partial(self.running, slot))
            self._take(pipes, lines)
            reads -= 1
        while pipes is not None and pipes.ended:
            self._poller.forget_fd(pipes.ended.pop())

    def running(self, slot: int) -> int:
        """The job that the worker has claimed last, though it may be through with that one."""
        worker = self._ledger.workers.get(slot)
        if worker is not None and worker.batch is not None:
            with suppress(ProtocolError):
                snapshot = self._recorders[slot].snapshot()
                if snapshot.claimed:
                    return worker.batch.first_id + snapshot.claimed - 1
        return NO_JOB

    def _take(self, pipes: OutputPipes, lines: list[OutputLine]) -> None:
        if not lines:
            return
        now = time.monotonic()
        for line in lines:
            job_id = None if line.job_id == NO_JOB else line.job_id
            self._lines.append((job_id, pipes.pid, pipes.worker_index, line.stream, now, line.text))
            self._bytes += len(line.text) + 100
            if job_id is not None:
                self._tails.add(job_id, line.stream, now, line.text)
            if self.watched():
                text = _message(line.text) if line.stream == RECORD else line.text
                self._ring.add(LOG, 1, job_id, pipes.pid, line.stream, text[:EVENT_CHARS], now)

    # -- to the caller ----------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Whether there are lines for the caller, or word of some that were dropped."""
        return bool(self._lines or self._missed)

    def send(self) -> None:
        """Send what the caller takes now. Raises LinkClosed."""
        while self.waiting and self._caller.flush():
            self._taken_at = time.monotonic()
            lines = [self._lines.popleft() for _ in range(min(FRAME_LINES, len(self._lines)))]
            self._bytes -= sum(len(line[-1]) + 100 for line in lines)
            content = {"clock": wall_clock.offset(), "missed": self._missed, "lines": lines}
            self._missed = 0
            self._caller.send(Kind.OUTPUT_LINES, b"", [json.dumps(content).encode()])
        if self.paused and self._bytes < MOST_BYTES // 2:
            self._go_on()

    def attend(self) -> None:
        """The caller may have stopped taking what it is sent."""
        if self._bytes > MOST_BYTES and time.monotonic() > self._taken_at + PATIENCE_SECONDS:
            while self._bytes > MOST_BYTES // 2:
                self._bytes -= len(self._lines.popleft()[-1]) + 100
                self._missed += 1
            self._go_on()

    def _pause(self) -> None:
        self.paused = True
        for pipes in self._workers.values():
            for fd in pipes.fds.values():
                self._poller.forget_fd(fd)

    def _go_on(self) -> None:
        self.paused = False
        for slot in self._workers:
            self._watch(slot)


def _message(record: str) -> str:
    try:
        return str(json.loads(record)["msg"])
    except (ValueError, KeyError, TypeError):
        return record
