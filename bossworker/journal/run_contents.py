"""What is asked of the journal of ``bossworker run --journal``, answered as of a pool's (``contents.py``).

A job is ``{"command": …}``, a line as it stands in a joblog. Its result tells how the command has ended; what it has
written went elsewhere, but for that of a failure, which is in its job directory.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from typing import Any

from bossworker.failure import Outcome
from bossworker.journal.answers import PAGE_JOBS, STATUSES, UNKNOWN, Answer, Answering, NotDone, text_of
from bossworker.journal.run_database import ALL, DONE, FAILED, GIVEN, INTERRUPTED, RunDatabase, StoredCommand, StoredRow

_PROTOCOL = 4  # of pickles
_GIVEN_STATUSES = ("queued", "running")
_STATUS = {DONE: "done", FAILED: "failed", INTERRUPTED: "interrupted"}
_STATES = {name: state for state, name in _STATUS.items()}


class RunContents(Answering):
    """Answers questions on a run's database."""

    def __init__(self, store: RunDatabase, has_begun: Callable[[int], bool] = lambda cell: False) -> None:
        """
        Args:
            has_begun: Whether the command of a cell has, while the run goes on.
        """
        self._store = store
        self._has_begun = has_begun

    # -- questions --------------------------------------------------------------------------------------

    def counts(self) -> Answer:
        """How many commands there are of each status."""
        counts = dict.fromkeys(STATUSES, 0)
        for state, number in self._store.count().items():
            if state != GIVEN:
                counts[_STATUS[state]] = number
        for row in self._store.rows(0, ALL, (GIVEN,)):
            counts[self._status(row)] += 1
        return counts

    def jobs(self, status: list[str], after: int) -> Answer:
        """A page of commands with one of these statuses, and ids above `after`."""
        states = {GIVEN if one in _GIVEN_STATUSES else _STATES[one] for one in status if one != "cancelled"}
        rows = self._store.rows(after, PAGE_JOBS, states)
        found = [self._record(row) for row in rows if self._status(row) in status]
        return {"jobs": found, "more": len(rows) == PAGE_JOBS, "last": rows[-1].id if rows else after}

    def job(self, id: int, by_file: bool = False) -> Answer:
        """A command's job: its pickle."""
        payload = pickle.dumps({"command": self._row(id).command}, _PROTOCOL)
        return {"counts": [1], "sizes": [len(payload)], "skip": 0, "payload": text_of(payload)}

    def result(self, id: int, by_file: bool = False) -> Answer:
        """How a command has ended; its status, if it has not."""
        row = self._row(id)
        how = row.how
        if how.state == GIVEN:
            return {"status": self._status(row)}
        outcome, payload = _payload(how)
        return {
            "job": self.job(id),
            "added": how.started,
            "pid": 0,
            "attempt": how.tries,
            "clock": 0.0,
            "marks": [how.started, how.started + how.seconds],
            "outcome": outcome,
            "payload": text_of(payload),
        }

    def size(self) -> Answer:
        """How many bytes it takes."""
        return {"bytes": self._store.size()}

    def _row(self, row: int) -> StoredRow:
        found = self._store.row(row)
        if found is None:
            raise NotDone(f"there is no job {row} in the journal", UNKNOWN)
        return found

    def _status(self, row: StoredRow) -> str:
        return _STATUS.get(row.how.state) or _GIVEN_STATUSES[self._has_begun(row.cell)]

    def _record(self, row: StoredRow) -> list[Any]:
        """As `JournalJob` has it."""
        how = row.how
        times = (None, None) if how.state == GIVEN else (how.started, how.started + how.seconds)
        outcome, payload = _payload(how)
        error = [outcome, text_of(payload)] if how.state in (FAILED, INTERRUPTED) else None
        added = time.time() if how.state == GIVEN else how.started
        return [row.id, self._status(row), added, *times, how.tries, 0, 0, None, True, error]

    # -- orders -----------------------------------------------------------------------------------------

    def retry(self, ids: list[int], status: list[str]) -> Answer:
        """It is for the run to do."""
        raise NotDone(
            "this is the journal of a run: the same command line, with --resume-failed, runs again what failed;"
            " and whatever is forgotten",
            "",
        )

    def forget(self, older_than: float, status: list[str], unretrieved: bool) -> Answer:
        """Delete commands that have ended: the same command line runs them again."""
        states = {_STATES[one] for one in status if one in _STATES}
        return {"count": self._store.delete(states, time.time() - older_than)}


def _payload(how: StoredCommand) -> tuple[int, bytes]:
    """Outcome and payload of a result."""
    kind = Outcome[how.kind.upper()] if how.kind else Outcome.OK
    told: dict[str, Any] = {
        "exit_code": how.exit_code,
        "signal": how.signal,
        "elapsed": how.seconds,
        "stdout_bytes": how.received,
        "jobid": how.job or None,
    }
    if how.state != DONE:
        told["ERROR"] = how.reason
    return kind | Outcome.WHOLE | Outcome.GIVEN, pickle.dumps(told, _PROTOCOL)
