"""What happens in a pool, event by event: ``for event in pool.events()``."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bossworker.display import short_record, shorten
from bossworker.failure import ErrorKind, kind_of
from bossworker.watch.event_records import ENDED, FROM_NOW, MEMORY, QUEUED

STREAMS = ("", "stdout", "stderr", "logging")  # by their numbers in records of LOG


@dataclass(frozen=True, slots=True)
class JobQueued:
    """A job was added."""

    seq: int
    time: float
    """When it happened: Unix seconds, of all events."""
    job_id: int


@dataclass(frozen=True, slots=True)
class JobStarted:
    """A worker began a job; again, with the next attempt, when the worker before died with it."""

    seq: int
    time: float
    job_id: int
    worker_pid: int
    worker_index: int
    attempt: int


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A job has its result."""

    seq: int
    time: float
    job_id: int
    worker_pid: int
    """0 when no worker ran it."""
    worker_index: int
    """-1 when no worker ran it."""
    attempt: int
    started: float
    """When its last attempt began, in Unix seconds."""
    error_kind: ErrorKind | None
    """As of its ``Result``; None when it ended well."""

    @property
    def ok(self) -> bool:
        """Whether it ended well."""
        return self.error_kind is None

    @property
    def duration(self) -> float:
        """Seconds from start to end."""
        return self.time - self.started


@dataclass(frozen=True, slots=True, repr=False)
class JobProgress:
    """What a job tells of itself by ``current_job().progress``. It is looked at some twenty times a second.

    Of what is said in quicker succession, or just before the job's end, some is left out; and so is what is said while
    no reader has asked for events for five seconds.
    """

    seq: int
    time: float
    job_id: int
    worker_pid: int
    worker_index: int
    done: float
    total: float | None
    text: str

    __repr__ = short_record


@dataclass(frozen=True, slots=True, repr=False)
class JobLog:
    """A line that a job has printed, or a record that it has logged; with ``logs="relay"``."""

    seq: int
    time: float
    job_id: int | None
    """None: the worker was in no job."""
    worker_pid: int
    worker_index: int
    stream: str
    """``stdout``, ``stderr`` or ``logging``."""
    text: str

    __repr__ = short_record


@dataclass(frozen=True, slots=True)
class WorkerUp:
    """A worker is ready for jobs: its ``init_handler`` is through."""

    seq: int
    time: float
    worker_pid: int
    worker_index: int
    """From 0; whoever replaces a worker has its index."""


@dataclass(frozen=True, slots=True, repr=False)
class WorkerDown:
    """A worker has ended."""

    seq: int
    time: float
    worker_pid: int
    worker_index: int
    reason: str
    """How it died, or why it left."""
    orderly: bool
    """Whether it left by itself, or on request, with nothing lost."""

    __repr__ = short_record


@dataclass(frozen=True, slots=True)
class Missed:
    """`n` events were dropped, since this reader was slower than the pool."""

    n: int
    seq: int = 0
    """The number of the last of them."""
    time: float = 0.0


Event = JobQueued | JobStarted | JobEnded | JobProgress | JobLog | WorkerUp | WorkerDown | Missed


class Clock:
    """What makes events of an answer's records: it knows the boss's clock, and its workers."""

    def __init__(self, offset: float, indexes: Mapping[str, int]) -> None:
        self.offset = offset  # Unix time minus monotonic time
        self.indexes = {int(pid): index for pid, index in indexes.items()}

    def events(self, record: list[Any]) -> Iterable[Event]:
        """All the events of a record."""
        kind, first, count, *facts = record
        if kind == ENDED:
            return self._ended(first, *facts)
        if kind == MEMORY:
            return ()
        if kind == QUEUED:
            first_id, at = facts
            time = at + self.offset
            return [JobQueued(first + n, time, first_id + n) for n in range(count)]
        return (self._single(kind, first, *facts),)

    def _single(self, kind: str, seq: int, *facts: Any) -> Event:
        *facts_, at = facts
        time, index = at + self.offset, self.indexes.get
        match kind, facts_:
            case "started", (job_id, attempt, pid):
                return JobStarted(seq, time, job_id, pid, index(pid, -1), attempt)
            case "progress", (job_id, pid, done, total, text):
                return JobProgress(seq, time, job_id, pid, index(pid, -1), done, total, text)
            case "log", (job_id, pid, stream, text):
                return JobLog(seq, time, job_id, pid, index(pid, -1), STREAMS[stream], text)
            case "up", (pid,):
                return WorkerUp(seq, time, pid, index(pid, -1))
            case "down", (pid, reason, orderly):
                return WorkerDown(seq, time, pid, index(pid, -1), reason, orderly)
        raise ValueError(f"no record of this version: {kind!r}")

    def _ended(
        self, seq: int, first_id: int, jobs: int, attempt: int, pid: int, told: int, marks: str, outcomes: str
    ) -> list[Event]:
        offset, index = self.offset, self.indexes.get(pid, -1)
        times = [at + offset for at in array("d", bytes.fromhex(marks))]
        events: list[Event] = []
        for n, outcome in enumerate(bytes.fromhex(outcomes)):
            job_id, started = first_id + n, times[n]
            if pid and job_id != told:
                events.append(JobStarted(seq, started, job_id, pid, index, attempt))
                seq += 1
            error_kind = kind_of(outcome) if outcome else None
            events.append(JobEnded(seq, times[n + 1], job_id, pid, index, attempt, started, error_kind))
            seq += 1
        return events


def unpack_events(answer: Mapping[str, Any], cursor: int) -> Iterator[Event]:
    """The events of the boss's answer to whoever has had those up to number `cursor`."""
    clock, now = Clock(answer["clock"], answer["indexes"]), answer["now"] + answer["clock"]
    if answer["first"] > cursor + 1:
        yield Missed(answer["first"] - cursor - 1, answer["first"] - 1, now)
        cursor = answer["first"] - 1
    for record in answer["records"]:
        first = record[1]
        if first > cursor:
            yield from clock.events(record)
        else:
            yield from [event for event in clock.events(record) if event.seq > cursor]


def memory_points(answer: Mapping[str, Any]) -> Iterator[tuple[float, dict[str, int]]]:
    """When (Unix seconds) how many bytes each worker had in memory, by its index."""
    for kind, _, _, *facts in answer["records"]:
        if kind == MEMORY:
            yield facts[1] + answer["clock"], facts[0]


def last_number(answer: Mapping[str, Any]) -> int:
    """Where to go on after an answer."""
    number: int = answer["next"] - 1
    return number


def events_left(answer: Mapping[str, Any] | None, seen: int) -> Mapping[str, Any] | None:
    """The last answer of a pool that has ended, if there is anything in it that a reader has not seen."""
    return answer if answer is not None and seen < last_number(answer) else None


Ask = Callable[[int, bool], Mapping[str, Any] | None]
"""The boss's answer to whoever has had the events up to a number, or FROM_NOW; whether to wait until there are some.
None once the pool has ended, and there is nothing more."""


class EventReader:
    """What ``pool.events()`` gives: an iterator that waits for the next event, and ends with the pool.

    To be read by one thread at a time. Any number of them may read the same pool, each at its own pace.
    """

    def __init__(self, ask: Ask, since: int | None) -> None:
        self._ask = ask
        self._cursor = FROM_NOW if since is None else since  # the number of the last event that was given
        self._events: Iterator[Event] = iter(())
        self._last = self._cursor  # where to go on after these
        if since is None and (answer := ask(FROM_NOW, False)) is not None:
            self._cursor = self._last = last_number(answer)

    def __iter__(self) -> EventReader:
        return self

    def __next__(self) -> Event:
        while True:
            if (event := self._next_here()) is not None:
                return event
            answer = self._ask(self._cursor, True)
            if answer is None:
                raise StopIteration
            events, last = self._unpack(answer), last_number(answer)
            self._events, self._last = events, last  # both or none: Ctrl-C comes at calls, and there is none between

    def _unpack(self, answer: Mapping[str, Any]) -> Iterator[Event]:
        return unpack_events(answer, self._cursor)

    def _next_here(self) -> Event | None:
        try:
            for event in self._events:
                self._cursor = event.seq
                return event
        except BaseException:  # Ctrl-C has ended the generator: what was left in it is asked for once more
            self._events, self._last = iter(()), self._cursor
            raise
        self._cursor = max(self._cursor, self._last)
        return None


def check_since(since: object) -> int | None:
    """A number of an event, 0 for all that are there; None: from now on."""
    if since is None:
        return None
    if isinstance(since, bool) or not isinstance(since, int):
        raise TypeError(f"since must be the seq of an event, 0 for all that are left, or None, not {shorten(since)}")
    if not 0 <= since < FROM_NOW:
        raise ValueError(f"since must be from 0 to {FROM_NOW - 1}, not {since}")
    return since
