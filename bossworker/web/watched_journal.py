"""A journal that is listed, whether or not a program has it open; nothing of its jobs and results is run.

Whoever owns it answers. Without an owner, a question opens the database for an instant; so none is asked again as long
as its files are as they were.
"""

from __future__ import annotations

import json
import os
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from bossworker.display import shorten
from bossworker.errors import JournalError, JournalInUse
from bossworker.failure import Outcome, kind_of
from bossworker.journal.answers import CANCELLED, DONE, ENDED, FAILED, INTERRUPTED, QUEUED, RUNNING, STATUSES
from bossworker.journal.listing import QUEUED as IS_QUEUED
from bossworker.journal.listing import RUNNING as IS_RUNNING
from bossworker.journal.listing import STARTED, Run
from bossworker.journal.ownership import lock_path, socket_path
from bossworker.journal.reader import Journal
from bossworker.pool.caller.operating import JobContent, contents_of, error_of, given_of
from bossworker.pool.options import check_journal
from bossworker.pool.wire.opaque import load_opaque
from bossworker.system import identity
from bossworker.web.job_queries import JobQuery, sliced
from bossworker.web.job_texts import fields_of, text_of

LEAST_SECONDS = 0.5  # for which what was read of it is taken for true
COST = 20  # times as long as it took to read it, too: so it takes a twentieth of the owner's time at most
OWNER_SECONDS = 1.0  # the same, of who owns it
MOST_SEARCHED = 5000  # jobs whose texts are looked at, the newest
MOST_AT_ONCE = 500  # that are asked for in a question
MOST_KNOWN = 20_000  # ended jobs that are remembered
_CODES = {IS_QUEUED: QUEUED, IS_RUNNING: RUNNING, STARTED: INTERRUPTED}
_BY_KIND = {None: DONE, "cancelled": CANCELLED, "interrupted": INTERRUPTED}
_FIELDS = ("id", "status", "added", "started", "ended", "attempt", "pid", "priority", "retry_of", "retrieved")


Answer = TypeVar("Answer")


class JournalAway(Exception):
    """It cannot be read now; the text says why."""


@dataclass(frozen=True, slots=True)
class Told:
    """A job, as the journal tells of it."""

    facts: Mapping[str, Any]
    failure: tuple[int, bytes] | None
    good: tuple[int, bytes] | None
    content: JobContent | None


class _Asked(Journal):
    """What is asked here alone, and answered in bytes."""

    def runs(self) -> list[Run]:
        return [(first, jobs, code, time) for first, jobs, code, time in self._ask("runs")["runs"]]

    def some(self, ids: list[int], results: bool = False) -> dict[int, Told]:
        answer = self._ask("some", ids=ids, results=results)
        contents = contents_of(answer["contents"])
        found = {}
        for *facts, failure, good in answer["jobs"]:
            told = dict(zip(_FIELDS, facts))
            found[told["id"]] = Told(told, _payload(failure), _payload(good), contents.get(told["id"]))
        return found


def _payload(told: list[Any] | None) -> tuple[int, bytes] | None:
    return None if told is None else (told[0], b64decode(told[1]))


class WatchedJournal:
    """See the module. TypeError, ValueError: `path` is no path of a file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = check_journal(path)
        self.name = self.key = os.path.basename(self.path)
        self._journal = _Asked(self.path)
        self._lock = threading.RLock()
        self._runs: list[Run] = []
        self._seen: object = None  # what its files were as they were read
        self._fresh_until = 0.0
        self._known: dict[int, Told] = {}  # of jobs that have ended
        self._owner: int | None = None
        self._owner_until = 0.0
        self.trouble = ""
        self.lasting = True

    # -- what is in it ------------------------------------------------------------------------------------

    def look(self) -> None:
        """Read what has changed. What goes wrong is told by `trouble`."""
        with self._lock, suppress(JournalAway):
            self._read()

    def _read(self) -> list[Run]:
        """All jobs, in the order of their ids. JournalAway."""
        began = time.monotonic()
        if began < self._fresh_until:
            if self.trouble:
                raise JournalAway(self.trouble)
            return self._runs
        if (seen := self._files()) != self._seen or self.trouble:
            self._ask_for_runs()
            seen = self._files()  # to read it may write to it: what an owner that was killed has left is put in order
        self._seen = seen
        self._fresh_until = time.monotonic() + max(LEAST_SECONDS, COST * (time.monotonic() - began))
        return self._runs

    def _ask_for_runs(self) -> None:
        try:
            self._runs = self._journal.runs()
            self.trouble = ""
        except (JournalError, JournalInUse, OSError) as error:
            self.trouble = str(error)
            self._fresh_until = time.monotonic() + OWNER_SECONDS
            raise JournalAway(self.trouble) from error

    def _files(self) -> object:
        """Changes with whatever is written, and with the owner."""
        found: list[tuple[int, int, int] | None] = []
        for path in (self.path, f"{self.path}-wal", socket_path(self.path)):
            try:
                stat = os.stat(path)
                found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
            except OSError:
                found.append(None)
        return found

    @property
    def owner(self) -> int | None:
        """The process that has it open; None: none has."""
        if time.monotonic() >= self._owner_until:
            self._owner = owner_of(self.path)
            self._owner_until = time.monotonic() + OWNER_SECONDS
        return self._owner

    def describe(self) -> dict[str, Any]:
        """Its figures, as they were when it was looked at."""
        counts = dict.fromkeys(STATUSES, 0)
        for _, jobs, code, _ in self._runs:
            counts[status_of(code)] += jobs
        told = {"key": self.key, "name": self.name, "path": self.path, "owner": self.owner, "away": self.trouble}
        return {**told, "counts": counts}

    def find(self, query: JobQuery, offset: int, limit: int) -> dict[str, Any]:
        """Some of the jobs that are wanted, the newest first (of queued ones the next), and how many there are."""
        with self._lock:
            ids = self._ids(query)
            rows = self._tell(list(sliced(ids, offset, limit)))
            return {"total": sum(map(len, ids)), "offset": offset, "rows": [self._row(one) for one in rows]}

    def ids(self, query: JobQuery, most: int) -> list[int]:
        """All of them."""
        with self._lock:
            return list(sliced(self._ids(query), 0, most))

    def _ids(self, query: JobQuery) -> list[range]:
        found = [
            range(first, first + jobs) if query.status == QUEUED else range(first + jobs - 1, first - 1, -1)
            for first, jobs, code, at in self._read()
            if (not query.status or status_of(code) == query.status)
            and (not query.kind or _kind(code) == query.kind)
            and query.since <= at
            and (not query.until or at <= query.until)
        ]
        if query.status != QUEUED:
            found.reverse()
        if query.text:
            searched = self._tell(list(sliced(found, 0, MOST_SEARCHED)))
            text = query.text.casefold()
            found = [range(one.facts["id"], one.facts["id"] + 1) for one in searched if _has_text(one, text)]
        return found

    def _tell(self, ids: list[int]) -> list[Told]:
        """What is known of these, in this order. Those that are gone are left out."""
        wanted = [one for one in ids if one not in self._known]
        found: dict[int, Told] = {}
        for at in range(0, len(wanted), MOST_AT_ONCE):
            found |= self._ask(wanted[at : at + MOST_AT_ONCE])
        if len(self._known) > MOST_KNOWN:
            self._known.clear()
        both = {**{one: self._known[one] for one in ids if one in self._known}, **found}
        # An interrupted job may yet run, and one that was not retrieved may be.
        self._known.update(
            (one, told) for one, told in found.items() if told.facts["ended"] and told.facts["retrieved"]
        )
        return [both[one] for one in ids if one in both]

    def _ask(self, ids: list[int], results: bool = False) -> dict[int, Told]:
        unchanged = self._files() == self._seen
        try:
            return self._journal.some(ids, results)
        except (JournalError, JournalInUse, OSError) as error:
            raise JournalAway(str(error)) from error
        finally:
            if unchanged and self.owner is None:
                self._seen = self._files()  # which our question has changed

    def _row(self, told: Told) -> dict[str, Any]:
        """A job as the list shows it."""
        facts, error = told.facts, None if told.failure is None else error_of(*told.failure)
        kind = None if told.failure is None else kind_of(told.failure[0])
        taken = facts["ended"] - facts["started"] if facts["ended"] else None
        return {
            **facts,
            "id": str(facts["id"]),
            "name": str(facts["id"]),
            "kind": kind,
            "seconds": taken,
            "text": "" if told.content is None else text_of(told.content.value),
            "error": None if error is None else error.text,
            "retry": facts["status"] in ENDED,
        }

    def job(self, job_id: int) -> dict[str, Any] | None:
        """All that is known of one."""
        with self._lock:
            told = self._ask([job_id], results=True).get(job_id)
        if told is None:
            return None
        error = None if told.failure is None else error_of(*told.failure)
        return {
            **self._row(told),
            "content": None if told.content is None else fields_of(told.content.value),
            "options": None if told.content is None else dict(told.content.options),
            "result": _result(told),
            "traceback": None if error is None else error.traceback,
            "log": None if error is None else error.log,
        }

    # -- orders -------------------------------------------------------------------------------------------

    def retry(self, ids: list[int]) -> list[int]:
        """Add jobs that have ended once more; the new ids. ValueError: one has not ended; then none is."""
        return self._order(lambda: self._journal.retry(*ids))

    def forget(self, status: str, older_than: float, unretrieved: bool) -> int:
        """Delete those that have ended, of one status or all; how many."""
        wanted: Any = status or None
        return self._order(lambda: self._journal.forget(older_than, wanted, unretrieved=unretrieved))

    def _order(self, call: Callable[[], Answer]) -> Answer:
        try:
            with self._lock:
                return call()
        except KeyError as error:
            raise ValueError(error.args[0]) from None
        except (JournalError, JournalInUse, OSError) as error:
            raise JournalAway(str(error)) from error
        finally:
            self._fresh_until, self._seen = 0.0, None
            self._known.clear()


def status_of(code: int) -> str:
    """One of a journal's."""
    return _CODES[code] if code < 0 else _BY_KIND.get(kind_of(code), FAILED)


def _kind(code: int) -> str | None:
    return kind_of(code) if code >= 0 else None


def _has_text(told: Told, text: str) -> bool:
    error = "" if told.failure is None else error_of(*told.failure).text
    content = "" if told.content is None else text_of(told.content.value)
    return any(text in one.casefold() for one in (str(told.facts["id"]), content, error))


def _result(told: Told) -> list[list[str]] | None:
    if told.good is not None:
        return _shown(*told.good)
    given = {} if told.failure is None else given_of(*told.failure)
    return fields_of(given) if given else None


def _shown(outcome: int, payload: bytes) -> list[list[str]]:
    """What a handler has returned."""
    if not payload:
        return [["", "(too large to be shown)"]]
    try:
        return fields_of(load_opaque(payload if outcome & Outcome.WHOLE else payload + b"."))
    except Exception as error:
        return [["", f"(cannot be shown: {shorten(error)})"]]


def owner_of(path: str) -> int | None:
    """The process that has a journal open; None: none has."""
    try:
        with open(lock_path(path), "rb") as file:
            told = json.loads(file.read(4096))
        if not told["brief"] and os.path.exists(socket_path(path)) and identity.look(told["owner"]) != identity.GONE:
            return int(told["pid"])
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return None
