"""``bossworker.journal.open``: what is in a journal, for any process.

That may be a pool's, or that of ``bossworker run --journal``.

While the journal has an owner, its scribe (or the run) answers, over a socket beside the database, which is this user's
alone.
Otherwise the database is opened here, for one question: whoever wants to own it next has to wait for no more than that.
"""

from __future__ import annotations

import datetime
import json
import os
import select
import sqlite3
import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn, Self

from bossworker.display import shorten
from bossworker.errors import JournalError, JournalInUse
from bossworker.failure import KIND_BITS, ErrorData, ErrorKind, Outcome, kind_of, reported
from bossworker.journal.answers import ENDED, STATUSES
from bossworker.journal.contents import Contents
from bossworker.journal.database import Database, DiskFull
from bossworker.journal.file_check import application_of, unusable
from bossworker.journal.ownership import Ownership, socket_path
from bossworker.journal.payload_files import read_payload
from bossworker.journal.recovery import take_stock
from bossworker.journal.run_contents import RunContents
from bossworker.journal.run_database import RunDatabase
from bossworker.journal.run_recovery import settle
from bossworker.journal.schema import APPLICATION_OF_RUNS
from bossworker.pool.door.addresses import dial
from bossworker.pool.options import check_journal
from bossworker.pool.wire.codec import load_block, load_error, load_job, load_result
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.messages import Kind
from bossworker.result import Origin, Result, make_result
from bossworker.system import processes
from bossworker.system.checks import check_bool, check_count, check_seconds

ANSWER_SECONDS = 60.0  # for the owner to answer; it may be busy with a full disk
MOST_ID = (1 << 63) - 1  # of jobs
TRY_SECONDS = 10.0  # for an owner that comes or goes just now

JobStatus = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]


@dataclass(frozen=True, slots=True, repr=False)
class JournalJob:
    """A job in a journal, at one instant. Times are Unix seconds."""

    id: int
    status: JobStatus
    """``interrupted``: it may have run when its pool ended, and has no other result."""
    added_at: float
    started_at: float | None
    """None while it has no result."""
    finished_at: float | None
    attempts: int
    worker_pid: int
    priority: int
    retry_of: int | None
    """The job that it was made from by ``retry``."""
    retrieved: bool
    """Whether the owner has got its result."""
    _failure: tuple[int, bytes] | None = field(default=None, compare=False)

    @property
    def error_kind(self) -> ErrorKind | None:
        """As of a `Result`; None when it ended well, or has not ended."""
        return kind_of(self._failure[0]) if self._failure is not None else None

    @property
    def error(self) -> str | None:
        """The same."""
        if self._failure is None:
            return None
        try:
            return _content(*self._failure)[1].text  # type: ignore[union-attr]
        except Exception:
            return self.error_kind

    def __repr__(self) -> str:
        error = "" if self.error is None else f": {self.error:.120}"
        return f"<JournalJob {self.id}, {self.status}{error}>"


class Journal:
    """A journal, made by :func:`open`. Each call sees it as it is at that time.

    Jobs and results are pickles: only open the journals of programs that you trust, and have at hand what their jobs
    and results are made of.

    Raises (all calls):
        JournalError: It cannot be read; the text says why.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        """The database."""

    def counts(self) -> dict[JobStatus, int]:
        """How many jobs there are of each status."""
        return self._ask("counts")  # type: ignore[return-value]

    def size(self) -> int:
        """Bytes that jobs and results take, in the database and in the files beside it.

        What is forgotten leaves room in the database, which what comes next uses; its file does not become smaller.
        """
        return int(self._ask("size")["bytes"])

    def jobs(self, status: JobStatus | None = None) -> Iterator[JournalJob]:
        """All jobs, in the order of their ids, or those of one status."""
        wanted = list(STATUSES) if status is None else [_check_status(status)]
        return self._pages(wanted)

    def _pages(self, status: list[str]) -> Iterator[JournalJob]:
        after, more = 0, True
        while more:
            page = self._ask("jobs", status=status, after=after)
            for record in page["jobs"]:
                failure = record.pop()
                record.append(None if failure is None else (failure[0], b64decode(failure[1])))
                yield JournalJob(*record)
            more = page["more"]
            after = page["last"] if "last" in page else page["jobs"][-1][0] if page["jobs"] else after

    def job(self, id: int) -> Mapping[Any, Any]:
        """A job, as it was added. KeyError: there is none of this id. EOFError: the file that it was in is lost."""
        checked = check_count("id", id, most=MOST_ID)
        try:
            return _load_job(self._ask("job", id=checked, by_file=True))
        except FileNotFoundError:  # forgotten just now, or lost
            return _load_job(self._ask("job", id=checked))

    def result(self, id: int) -> Result[Any] | None:
        """A job's result; None when it has none yet. KeyError: there is no job of this id."""
        checked = check_count("id", id, most=MOST_ID)
        told = self._ask("result", id=checked, by_file=True)
        try:
            return None if "status" in told else _result(checked, told)
        except FileNotFoundError:  # forgotten just now, or lost: then there is an error in its place
            return _result(checked, self._ask("result", id=checked))

    def retry(self, *ids: int, status: JobStatus | None = None) -> list[int]:
        """Add jobs that have ended once more; the ids of the new ones, which say of which job they are (`retry_of`).

        They are run by the owner, which gets their results; without one, by the next.

        Args:
            ids: Which jobs.
            status: Instead, all those of one status: ``failed``, for instance.

        Raises:
            KeyError: There is no job of such an id.
            ValueError: One of them has not ended; then none is retried.
        """
        if bool(ids) == (status is not None):
            raise TypeError("retry takes either ids or a status")
        checked = [check_count("id", one, most=MOST_ID) for one in ids]
        told = self._ask("retry", ids=checked, status=[_check_status(status)] if status is not None else [])
        return list(told["ids"])

    def forget(
        self,
        older_than: float | datetime.timedelta = 0,
        status: JobStatus | None = None,
        *,
        unretrieved: bool = False,
    ) -> int:
        """Delete jobs that have ended, with their results; how many.

        Of jobs that were added by one call, the results make room at once, and the jobs once all of them are deleted.

        Args:
            older_than: Seconds that must have passed since a job's end.
            status: Only jobs of this status.
            unretrieved: Also those whose results the owner has not got yet: nobody will.
        """
        seconds = older_than.total_seconds() if isinstance(older_than, datetime.timedelta) else older_than
        wanted = list(ENDED) if status is None else [_check_status(status)]
        told = self._ask(
            "forget",
            older_than=check_seconds("older_than", seconds),
            status=wanted,
            unretrieved=check_bool("unretrieved", unretrieved),
        )
        return int(told["count"])

    def mark_retrieved(self, ranges: Iterable[range]) -> None:
        """The results of these jobs are not handed out any more. For whoever owned the journal and has got them."""
        self._ask("retrieved", ranges=[[ids.start, len(ids)] for ids in ranges])

    # Between calls nothing is open: so there is nothing that would have to be closed. But people expect to.

    def close(self) -> None:
        """Nothing: a journal holds nothing open between calls, and can be asked again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Journal {self.path}>"

    # -- asking -----------------------------------------------------------------------------------------

    def _ask(self, ask: str, **details: Any) -> dict[str, Any]:
        """The answer to a question, of whoever has the database open."""
        question = {"ask": ask, **details}
        deadline = time.monotonic() + TRY_SECONDS
        while True:
            answer = self._ask_owner(question)
            if answer is None:
                try:
                    answer = self._answer_alone(question)
                except JournalInUse:  # an owner came just now, or is about to listen
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
                    continue
            if "refused" in answer:
                _refuse(answer)
            return answer

    def _ask_owner(self, question: dict[str, Any]) -> dict[str, Any] | None:
        """None: nobody listens."""
        try:
            link = Link(dial(socket_path(self.path), ANSWER_SECONDS))
        except OSError:
            return None
        try:
            return _converse(link, question)
        except LinkClosed:
            return None
        finally:
            link.close()

    def _answer_alone(self, question: dict[str, Any]) -> dict[str, Any]:
        if not os.path.exists(self.path):
            raise JournalError(f"there is no journal {self.path}")
        try:
            ownership = Ownership(self.path, os.getpid(), brief=True)
            try:
                return _answered(self.path, question)
            finally:
                ownership.release()
        except (DiskFull, OSError) as error:
            raise JournalError(f"the journal {self.path} cannot be used: {error}") from error
        except sqlite3.Error as error:
            raise unusable(self.path, error) from error


def _answered(path: str, question: dict[str, Any]) -> dict[str, Any]:
    """By the database itself, which nobody else has open."""
    if application_of(path) == APPLICATION_OF_RUNS:
        return _answered_of_run(path, question)
    store = Database(path)
    try:
        take_stock(store)
        return Contents(store).answer(question)
    finally:
        store.close()


def _answered_of_run(path: str, question: dict[str, Any]) -> dict[str, Any]:
    store = RunDatabase(path)
    try:
        settle(store)
        store.commit()
        return RunContents(store).answer(question)
    finally:
        store.close()


def open(path: str | os.PathLike[str]) -> Journal:
    """Open the journal at a path, of a pool or of ``bossworker run``, whether or not it is in use.

    Of a run, a job is ``{"command": …}``, a line as in a joblog. Its result has `exit_code`, `signal`, `elapsed`,
    `stdout_bytes`, and as `jobid` the job directory of a failure, with what it has written. What is forgotten is run
    again by the same command line; `retry` is refused.

    Raises:
        TypeError, ValueError: `path` is no path of a file.
        JournalError: There is none, or it cannot be read.
    """
    if path is None:
        raise TypeError("path must be a str, or path-like, not None")
    journal = Journal(check_journal(path))
    journal.counts()
    return journal


def _converse(link: Link, question: dict[str, Any]) -> dict[str, Any]:
    """Ask over a link. LinkClosed: there is no answer."""
    deadline = time.monotonic() + ANSWER_SECONDS
    link.send(Kind.ASK, b"", [json.dumps(question).encode()])
    while link.unsent:
        processes.await_fd(link.fileno(), select.POLLOUT, 1.0)
        link.flush()
    while time.monotonic() < deadline:
        processes.await_fd(link.fileno(), select.POLLIN, 1.0)
        if frames := link.receive():
            answer: dict[str, Any] = json.loads(bytes(frames[0].body))
            return answer
    raise JournalError(f"the owner of the journal has not answered for {ANSWER_SECONDS:.0f} seconds")


def _refuse(answer: dict[str, Any]) -> NoReturn:
    kinds: dict[str, Callable[[str], Exception]] = {"unknown": KeyError, "not now": ValueError}
    raise kinds.get(answer.get("why", ""), JournalError)(answer["refused"])


def _check_status(status: object) -> str:
    if status not in STATUSES:
        raise ValueError(f"status must be one of {', '.join(STATUSES)}, not {shorten(status)}")
    return str(status)


# -- payloads -----------------------------------------------------------------------------------------------------


def _load_job(told: Mapping[str, Any]) -> Mapping[Any, Any]:
    """The one job of a block."""
    payload = memoryview(_payload(told))
    count = told["counts"][0]
    job: Mapping[Any, Any] = load_block(count, payload)[told["skip"]] if count > 1 else load_job(payload, None)
    return job


def _result(job_id: int, told: Mapping[str, Any]) -> Result[Any]:
    value, error = _content(told["outcome"], _payload(told))
    job: Any = None
    with suppress(Exception):  # what it was made of may be missing here
        job = _load_job(told["job"])
    clock = told["clock"]
    added, outcome = told["added"] - clock, told["outcome"]
    origin = Origin(job_id, (job,), told["pid"], told["attempt"], clock, added, told["marks"], (outcome,), (error,))
    return make_result(value, origin)


def _payload(told: Mapping[str, Any]) -> bytes:
    """What was told, or lies in the file that was told of. FileNotFoundError: that is not there as it was written."""
    if "file" not in told:
        return b64decode(told["payload"])
    payload = read_payload(*told["file"])
    if payload is None:
        raise FileNotFoundError(told["file"][0])
    return payload


def _content(outcome: int, payload: bytes) -> tuple[dict[Any, Any], ErrorData | None]:
    """What a result holds, and its error."""
    kind = Outcome(outcome & KIND_BITS)
    view = memoryview(payload)
    if kind in (Outcome.OK, Outcome.REPORTED) or outcome & Outcome.GIVEN:
        value = load_result(outcome, view)
        return value, None if kind is Outcome.OK else reported(value)
    error = load_error(outcome, view)
    return {"ERROR": error.text}, error
