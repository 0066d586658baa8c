"""The operator's face of a pool: all of it to be seen and steered, whoever has added its jobs.

Ids are those of the boss: of the pool's own program, those it knows; of jobs that came through a door, with the numbers
of door and client above them; of jobs that an operator had run once more, above all others. `name_of` writes them.
"""

from __future__ import annotations

import pickle
from array import array
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bossworker.errors import BossWorkerError
from bossworker.failure import ErrorData, ErrorKind, Outcome, decode_text
from bossworker.pool.boss.stats import Stats, stats_of
from bossworker.pool.wire.codec import load_plain
from bossworker.pool.wire.messages import CLIENT_BITS, DOOR_BITS, FIRST_RERUN_ID
from bossworker.pool.wire.opaque import load_opaque
from bossworker.system.identity import Identity
from bossworker.watch.event_records import ENDED, QUEUED
from bossworker.watch.pool_events import STREAMS, Clock, Event

OWN_BITS = (1 << CLIENT_BITS) - 1
_RERUN = FIRST_RERUN_ID >> DOOR_BITS


def name_of(job_id: int) -> str:
    """An id as people read it: ``17``; ``1.3-17`` of client 3 of door 1; ``again-2`` of one that is run once more."""
    door, client, own = job_id >> DOOR_BITS, (job_id >> CLIENT_BITS) & 0xFFFF, job_id & OWN_BITS
    if door == _RERUN:
        return f"again-{own}"
    return f"{door}.{client}-{own}" if door else str(own)


class QueuedStretch(NamedTuple):
    """Jobs that were added at one time, with ids that follow each other."""

    first_id: int
    jobs: int
    time: float


class EndedStretch(NamedTuple):
    """Jobs that have ended, with ids that follow each other."""

    first_id: int
    worker_pid: int
    """0 when no worker ran them."""
    worker_index: int
    attempt: int
    times: array[float]
    """One more than there are jobs: number *i* ran from ``times[i]`` to ``times[i + 1]``."""
    outcomes: bytes
    """One a job; `kind_of` says which is which."""


class ReloadState(NamedTuple):
    """Which handler a pool has, and what has become of the last reload."""

    handler: str = ""
    """``pkg.mod:fn``; empty: one that is not found by a name."""
    trial: str | None = None
    """The handler that is being tried, as soon as a worker is through with its job; None: none is."""
    tried: int = 0
    """The number of the last reload that is through, as `Operator.reload` returns it,"""
    error: str = ""
    """and why the pool goes on with the handler that it had; empty: it has the new one."""


UNKNOWN_HANDLER = ReloadState()


@dataclass(frozen=True, slots=True)
class Now:
    """A pool at an instant, and what has happened since the look before."""

    stats: Stats
    """Without the figures of the last minute, and of memory and processor time only with ``usage``."""
    target: int
    """How many workers are wanted."""
    queued: tuple[QueuedStretch, ...]
    """Jobs that were added; of a pool that is very quick, and of all that follows, the newest."""
    ended: tuple[EndedStretch, ...]
    """Jobs that have ended, some thousand at most."""
    events: tuple[Event, ...]
    """What else has happened."""
    seen: int
    """For the next look."""
    last_ids: Mapping[int, int]
    """Of each client (the upper bits of its ids; 0: the pool's program), the highest id that it has used."""
    last_failed: int
    """The number of the newest job that has failed, for `Operator.failed`."""
    time: float
    """Unix seconds."""
    reload: ReloadState = UNKNOWN_HANDLER
    """Which handler the pool has."""
    journal: str = ""
    """The path of its journal; empty: it has none."""


@dataclass(frozen=True, slots=True)
class FailedRecord:
    """A job that has failed, as the boss remembers it."""

    number: int
    job_id: int
    worker_pid: int
    attempt: int
    started: float
    finished: float
    kind: ErrorKind
    error: str
    traceback: str
    log: str
    can_run_again: bool
    result: Mapping[str, Any] = field(default_factory=dict)
    """What its handler has returned beside ``ERROR``: of a command, ``stdout`` and ``stderr``, and its ``jobid``."""


class JobContent(NamedTuple):
    """A job that is queued, runs or has failed."""

    value: Any
    """What was submitted; what is more than plain data in it is shown as text, and nothing of it is run."""
    options: Mapping[str, Any]
    """``priority``, ``timeout``, ``retries`` and ``attempt``."""


class JobLine(NamedTuple):
    """A line that a job has printed, or a record that it has logged."""

    stream: str
    """``stdout``, ``stderr`` or ``logging``."""
    time: float
    """Unix seconds."""
    text: str


class JobOutput(NamedTuple):
    """What a job has written of late, and where it runs."""

    logs: str
    """Of the pool: ``relay``, or nothing is known here of what its jobs write."""
    first: int
    """The number of the first of these lines, from 0 on,"""
    next: int
    """and of the one that will come next."""
    lines: tuple[JobLine, ...]
    worker: Identity | None
    """The process that runs it (`bossworker.system.identity`); None: none does, or that is not known here."""


class Operator:
    """All of a pool, to be seen and steered, whoever has added its jobs. Made by ``pool.operator``.

    Any call raises PoolClosed or BossDied once the pool has ended.

    BossWorkerError: the pool refuses, and says why. `by` of what steers: who wants it, for the log of the pool.
    """

    def __init__(self, name: str, ask: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
        self.name = name
        self._asked = ask

    def _ask(self, op: str, **facts: Any) -> dict[str, Any]:
        answer = self._asked({"op": op, **facts})
        if "refused" in answer:
            raise BossWorkerError(f"the pool refused: {answer['refused']}")
        return answer

    # -- looks --------------------------------------------------------------------------------------------

    def now(self, seen: int = 0, usage: bool = True) -> Now:
        """Figures, and what has happened behind event number `seen`. Costs the boss some tenths of a millisecond."""
        told = self._ask("now", seen=seen, usage=usage)
        clock = Clock(told["clock"], told["indexes"])
        records: dict[str, list[list[Any]]] = {QUEUED: [], ENDED: []}
        others: list[list[Any]] = []
        for record in told["records"]:
            records.get(record[0], others).append(record)
        return Now(
            stats_of(told["stats"]),
            told["target"],
            tuple(QueuedStretch(first, jobs, at + clock.offset) for _, _, jobs, first, at in records[QUEUED]),
            tuple(_ended_stretch(record, clock) for record in records[ENDED]),
            tuple(event for record in others for event in clock.events(record) if event.seq > seen),
            told["next"] - 1,
            {int(client): last for client, last in told["last_ids"].items()},
            told["last_failed"],
            told["now"] + told["clock"],
            ReloadState(**told["reload"]),
            told["journal"],
        )

    def stats(self) -> Stats:
        """All figures, those of the last minute included, which cost the boss some milliseconds."""
        return stats_of(self._ask("stats")["stats"])

    def failed(self, seen: int = 0) -> list[FailedRecord]:
        """Jobs that have failed, behind number `seen`: not all at once, ask again. The last few thousand are kept."""
        told = self._ask("failed", seen=seen)
        return [_failed_record(one, told["clock"]) for one in told["failed"]]

    def queued(self) -> list[range]:
        """The ids of queued jobs, in about the order in which they will run; of a very long queue the first part."""
        return [range(start, stop) for start, stop in self._ask("queued")["stretches"]]

    def job(self, job_id: int) -> JobContent | None:
        """What a job is that is queued, runs or has failed; None: it is gone."""
        return self.jobs([job_id]).get(job_id)

    def jobs(self, ids: Iterable[int]) -> dict[int, JobContent]:
        """The same for some hundred jobs, in one request: those that are known, as far as there is room for them."""
        return contents_of(self._ask("jobs", ids=list(ids))["runs"])

    def output(self, job_id: int, since: int = 0) -> JobOutput:
        """What a job has written from line number `since` on: some 64 KiB at its end, of a pool with ``logs="relay"``.

        Of jobs that have ended, those are forgotten after a while that were the first to write. With a negative number
        there are no lines in the answer.
        """
        told = self._ask("output", id=job_id, since=since)
        lines = tuple(_line(stream, at + told["clock"], text) for stream, at, text in told["lines"])
        return JobOutput(told["logs"], told["first"], told["next"], lines, told["worker"])

    def stack(self, job_id: int | None = None) -> str:
        """As ``pool.stack``, of anybody's job; None: of all workers."""
        return str(self._ask("stack", id=job_id)["text"])

    # -- orders -------------------------------------------------------------------------------------------

    def pause(self, by: str = "") -> None:
        """Start no new job."""
        self._ask("pause", on=True, by=by)

    def resume(self, by: str = "") -> None:
        """Start jobs again."""
        self._ask("pause", on=False, by=by)

    def resize(self, workers: int, by: str = "") -> None:
        """Change the number of workers."""
        self._ask("resize", workers=workers, by=by)

    def reload(self, handler: str, by: str = "") -> int:
        """Replace the workers by such with another work handler, one by one, as ``BossWorker.reload`` does.

        `handler`: its name, ``pkg.mod:fn``. Its module is imported by the new workers, or loaded anew where they have
        it. It stays until the pool's program reloads a handler itself.

        Returns at once, with a number: once `now` tells that this one was tried, it tells what has come of it.
        """
        return int(self._ask("reload", handler=handler, by=by)["number"])

    def cancel(self, ids: Iterable[int], by: str = "") -> int:
        """Cancel anybody's jobs; how many had not finished. Each of them still has its result, which says so."""
        return int(self._ask("cancel", ids=list(ids), by=by)["count"])

    def run_again(self, ids: Iterable[int], by: str = "") -> dict[int, int]:
        """Run failed jobs once more; the ids of the new ones, by those of the old. One that is gone is passed over.

        Whoever added a job has had its result, and gets no second one: the new job's result is dropped, but for what
        events and `failed` tell of it.
        """
        return {int(old): int(new) for old, new in self._ask("again", ids=list(ids), by=by)["new"].items()}


def _failed_record(told: Mapping[str, Any], clock: float) -> FailedRecord:
    payload = None if told["error"] is None else b64decode(told["error"])
    error = error_of(told["outcome"], payload)
    return FailedRecord(
        told["number"],
        told["id"],
        told["pid"],
        told["attempt"],
        told["started"] + clock,
        told["finished"] + clock,
        told["kind"],
        error.text,
        error.traceback,
        error.log,
        told["again"],
        given_of(told["outcome"], payload),
    )


def contents_of(runs: Iterable[Mapping[str, Any]]) -> dict[int, JobContent]:
    """What jobs are, by their ids, as a boss or a journal tells it: runs of jobs that follow each other."""
    found: dict[int, JobContent] = {}
    for told in runs:
        first, options = told["first"], told["options"]
        if told["payload"] is None:
            contents: list[Any] = ["(too large to be shown)"]
        else:
            contents = _contents(b64decode(told["payload"]), told["counts"], told["sizes"])[told["skip"] :]
        found.update((first + at, JobContent(value, options)) for at, value in zip(range(told["jobs"]), contents))
    return found


def error_of(outcome: int, payload: bytes | None) -> ErrorData:
    """What is told of an error: plain data, whatever a worker has written there."""
    if payload is None:
        return _text("(too long to be kept)")
    try:
        if outcome & Outcome.TEXT:
            return decode_text(payload)
        if _is_given(outcome):
            return _text(str(_given(outcome, payload)["ERROR"]))
        error = ErrorData(*load_plain(payload))
        return error._replace(text=str(error.text), traceback=str(error.traceback), log=str(error.log))
    except Exception:
        return _text("(cannot be shown)")


def given_of(outcome: int, payload: bytes | None) -> dict[str, Any]:
    """What a handler has returned that told of an error by itself, beside that; empty where there is nothing."""
    if payload is None or not _is_given(outcome):
        return {}
    try:
        return {str(name): value for name, value in _given(outcome, payload).items() if name != "ERROR"}
    except Exception:
        return {}


def _is_given(outcome: int) -> bool:
    return bool(outcome & Outcome.GIVEN) or outcome & 0x0F == Outcome.REPORTED


def _given(outcome: int, payload: bytes) -> Any:
    return load_opaque(payload if outcome & Outcome.WHOLE else payload + pickle.STOP)


def _line(stream: int, at: float, text: str) -> JobLine:
    name = STREAMS[stream]
    if name == "logging":
        from bossworker.watch.relayed_lines import record_text  # which only those need who look at such a job

        text = record_text(text)
    return JobLine(name, at, text)


def _text(text: str) -> ErrorData:
    return ErrorData(text, "", text, "", None, None)


def _ended_stretch(record: list[Any], clock: Clock) -> EndedStretch:
    _, _, _, first_id, _, attempt, pid, _, marks, outcomes = record
    times = array("d", [at + clock.offset for at in array("d", bytes.fromhex(marks))])
    return EndedStretch(first_id, pid, clock.indexes.get(pid, -1), attempt, times, bytes.fromhex(outcomes))


def _contents(payload: bytes, counts: list[int], sizes: list[int]) -> list[Any]:
    """What is in blocks of jobs."""
    contents: list[Any] = []
    at = 0
    for count, size in zip(counts, sizes):
        block = payload[at : at + size]
        at += size
        try:
            value = load_opaque(block)
            contents += value if count > 1 else [value]
        except Exception as error:
            contents += [f"(cannot be shown: {type(error).__name__})"] * count
    return contents
