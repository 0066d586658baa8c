"""What a journal forgets by itself: with ``max_journal_age`` and ``max_journal_size``, the oldest that is of no use.

Only jobs whose results the program has got are forgotten, and those that ended first come first. A row of results is
forgotten as a whole, so nothing has to be written anew. What is queued, runs, or has a result that was not got stays:
when a journal is full of that, it takes no more jobs, and says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from math import inf

from bossworker.journal.database import Database, DiskFull
from bossworker.journal.ranges import Ranges
from bossworker.pool.wire.messages import INFO, WARNING

STEP_ROWS = 200  # that are looked at in one go: others wait for as long as that takes
LEFT_SHARE = 0.9  # of the most bytes: down to this, so that it is not due again at once
SELDOM, OFTEN = 60.0, 0.5  # seconds between looks for what has become old, at most and at least
LOOKS_AN_AGE = 20


class Forgetting:
    """See the module. `note`: has the program's logger say something. Of a limit, 0 means that there is none."""

    def __init__(self, store: Database, most_age: float, most_bytes: int, note: Callable[[int, str], None]) -> None:
        self._store = store
        self._most_age = most_age
        self._most_bytes = most_bytes
        self._note = note
        self._got = Ranges(store.retrieved) if most_age or most_bytes else Ranges()
        self._old = _Walk(store, self._got)
        self._oldest = _Walk(store, self._got)
        self._old_due = time.monotonic() if most_age else inf
        self._most_due = 0.0  # not before then, however full it is
        self._in_vain = False  # there is nothing that may be forgotten, until more was got
        self._full_told = False

    def due(self) -> float:
        """When there is something to do (monotonic); `inf`: nothing, until something happens."""
        return min(self._old_due, self._most_due if self._excess() > 0 and not self._in_vain else inf)

    def on_got(self, ranges: Iterable[range]) -> None:
        """It is on the disk that the program has got these results."""
        if self._most_age or self._most_bytes:
            for one in ranges:
                self._got.add(one.start, one.stop)
                self._in_vain = False

    def look(self) -> None:
        """Forget some, if that is due. Where the disk has no room even for that, later."""
        now = time.monotonic()
        try:
            if now >= self._old_due:
                self._forget_old()
            if now >= self._most_due and self._excess() > 0 and not self._in_vain:
                self._forget_oldest(0)
        except DiskFull:
            self._old_due, self._most_due = max(self._old_due, now + OFTEN), now + OFTEN

    def finish(self, seconds: float) -> None:
        """The pool has ended: forget what is due yet, as far as it takes no longer than that."""
        end = time.monotonic() + seconds
        while self.due() <= time.monotonic() < end:
            self.look()

    def is_full(self, more: int) -> bool:
        """Whether there is no room for this many bytes, as it is."""
        return self._excess(more) > 0

    def refusal(self, more: int) -> str:
        """Make room for this many bytes; why there is none. DiskFull: there was no room to do so."""
        if self._most_bytes and more > self._most_bytes:  # nothing is forgotten in vain
            return (
                f"the call has {more} bytes, and max_journal_size is {self._most_bytes}: allow more, or make it smaller"
            )
        while self._excess(more) > 0 and not self._in_vain:
            self._forget_oldest(more)
        if self._excess(more) <= 0:
            self._full_told = False
            return ""
        size, limit = self._store.size(), f"max_journal_size is {self._most_bytes}"
        if not self._full_told:
            self._note(WARNING, f"journal full: path={self._store.path} bytes={size} max={self._most_bytes}")
            self._full_told = True
        kept = "what is queued, runs, or has a result that was not got is never forgotten"
        return f"it is full: it has {size} bytes, the call {more}, and {limit}; {kept}: get results, or allow more"

    def _excess(self, more: int = 0) -> int:
        """Bytes beyond the limit, with `more` of them."""
        return self._store.size() + more - self._most_bytes if self._most_bytes else 0

    def _forget_old(self) -> None:
        if self._forget(self._old, time.time() - self._most_age, inf):
            self._old_due = time.monotonic() + min(SELDOM, max(OFTEN, self._most_age / LOOKS_AN_AGE))

    def _forget_oldest(self, more: int) -> None:
        began = time.monotonic()
        too_many = self._excess(more) + (1 - LEFT_SHARE) * self._most_bytes
        if self._forget(self._oldest, inf, too_many):
            self._in_vain = not self._oldest.found
        else:  # nothing else waits for long while it looks at a million results that nobody has got
            self._most_due = time.monotonic() + (time.monotonic() - began)

    def _forget(self, walk: _Walk, before: float, most: float) -> bool:
        """Take a step of a walk, and forget what it finds; whether it is through."""
        doomed, through = walk.step(before, most)
        if doomed:
            size = self._store.size()
            with self._store.transaction:
                self._store.delete(doomed)
            for one in list(doomed):
                self._got.remove(one.start, one.stop)
            freed = size - self._store.size()
            self._note(INFO, f"journal forgot: path={self._store.path} jobs={len(doomed)} bytes={freed}")
        return through


class _Walk:
    """Through the rows of results, from the one that ended first on. `found`: whether it has found any to forget."""

    def __init__(self, store: Database, got: Ranges) -> None:
        self._store = store
        self._got = got
        self._begin()

    def _begin(self) -> None:
        self._last: tuple[float, int] = (0.0, 0)
        self._again = False
        self.found = False

    def step(self, before: float, most: float) -> tuple[Ranges, bool]:
        """What to forget of the next rows, of some that ended before then, and `most` bytes; whether that was all.

        The next step begins anew, if it was.
        """
        if self._again:
            self._begin()
        doomed = Ranges()
        rows = self._store.results.rows_behind(*self._last, STEP_ROWS)
        self._again = len(rows) < STEP_ROWS
        for row in rows:
            if row.at > before or most <= 0:
                self._again = True
                break
            self._last = row.at, row.first_id
            if self._got.within(row.ids.start, row.ids.stop) == [row.ids]:
                doomed.add(row.ids.start, row.ids.stop)
                most -= row.bytes
        self.found = self.found or bool(doomed)
        return doomed, self._again
