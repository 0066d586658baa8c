"""``run --journal``: the same command line goes on where the last one stopped, whatever was killed.

A command is in the database before it may begin (run_database.py), and has a cell in a file, in which its host tells
that it starts and how it has ended. The file is true when all processes are killed; after a restart of the machine it
is not there to be believed, and all that was given to the crew may have run.

Commands are known by what they are, not by their place in the list, which may have changed.
"""

from __future__ import annotations

import hashlib
import os
import select
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bossworker.cli.cell_book import CellBook, cells_for
from bossworker.cli.outcomes import Ended, Planned
from bossworker.cli.replacements import Row
from bossworker.commands.hosting.cells import QUEUED, size_of_cells
from bossworker.errors import JournalError
from bossworker.journal.ownership import Ownership
from bossworker.journal.questions import Questions
from bossworker.journal.run_contents import RunContents
from bossworker.journal.run_database import DONE, FAILED, GIVEN, INTERRUPTED, RunDatabase, StoredCommand
from bossworker.journal.run_recovery import INTERRUPTED_KIND, STOPPED, TOKEN_BYTES, cells_path, settle
from bossworker.system import identity

_HALTED = f"it was running when {STOPPED}"
_EARLIER = ", in an earlier run"
_KEY = 16  # bytes


class Again(NamedTuple):
    """What runs again though it has run."""

    failed: bool
    interrupted: bool


class RunJournal:
    """See the module."""

    def __init__(self, path: str, again: Again, key_of: Callable[[Row, str], str]) -> None:
        """Open it, and find out what an earlier run has left. JournalError, JournalInUse.

        Args:
            key_of: What a command is, in words: of its row, and its text.
        """
        self._again = again
        self._key_of = key_of
        self.path = os.path.abspath(path)
        if os.path.exists(path) and not os.path.isfile(path):  # to open a pipe would wait for somebody who writes
            raise JournalError(f"--journal {self.path!r} cannot be opened: it is no regular file")
        self._given: dict[int, tuple[int, int]] = {}  # by place: the row, and the cell
        self._book: _JournaledCells | None = None
        self._questions: Questions | None = None
        self._ownership = Ownership(self.path, os.getpid())
        try:
            self._store = RunDatabase(self.path)
        except BaseException:
            self._ownership.release()
            raise
        try:
            settle(self._store)
            self._before = self._store.count()
            self._run = (self._store.meta("run") or 0) + 1
        except BaseException:
            self.close()
            raise

    # -- the crew -----------------------------------------------------------------------------------------

    def open_book(self, ahead: int, slots: int) -> CellBook:
        """Begin: cells for a crew, each noted before its command may begin. JournalError, OSError."""
        count, token = cells_for(ahead, slots), os.urandom(TOKEN_BYTES)
        for name, value in (("run", self._run), ("token", token), ("cells", count), ("boot", identity.boot_id())):
            self._store.set_meta(name, value)
        self._store.commit()  # from here on, nothing is in the cells of the run before
        file = cells_path(self.path)
        if os.path.lexists(file):
            os.unlink(file)
        fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, bytes(size_of_cells(count)) + token, 0)  # a page that finds no room later kills its process
            self._book = _JournaledCells(count, fd, self._give, self._ownership.fileno())
        finally:
            os.close(fd)
        self._questions = Questions(self.path)
        return self._book

    def _give(self, plans: Sequence[Planned], cells: Sequence[int]) -> None:
        for plan, cell in zip(plans, cells, strict=True):
            known = self._given.get(plan.place)
            if known is None:
                row = self._store.give(self._key(plan.row, plan.text), self._run, cell, plan.text)
            else:
                row = known[0]
                self._store.give_again(row, cell, plan.tries)
            self._given[plan.place] = row, cell
        self._store.commit()

    def _key(self, row: Row, text: str) -> bytes:
        words = self._key_of(row, text).encode("utf-8", "surrogateescape")
        return hashlib.blake2b(words, digest_size=_KEY).digest()

    def end(self, ended: Ended) -> None:
        """It has, and is shown."""
        row, _ = self._given.pop(ended.plan.place)
        how = ended.exit_code, ended.signal, ended.kind, ended.reason, ended.started_at, ended.seconds
        state = DONE if ended.ok else FAILED
        self._store.end(row, StoredCommand(state, ended.plan.tries, *how, ended.stdout_bytes, ended.jobid))

    def drop(self, plan: Planned) -> None:
        """It was cancelled: if it had begun, it may have done something."""
        assert self._book is not None
        row, cell = self._given.pop(plan.place)
        found = self._book.cells.read(cell)
        if found.state == QUEUED:
            self._store.forget(row)
        else:
            how = StoredCommand(
                INTERRUPTED, plan.tries, kind=INTERRUPTED_KIND, reason=_HALTED, started=found.started_at
            )
            self._store.end(row, how)

    def flush(self) -> None:
        """What was told of is on the disk when this returns. JournalError: there is no room."""
        self._store.commit()
        if self._book is not None:
            self._book.release()

    # -- what comes again -----------------------------------------------------------------------------------

    def meet(self, row: Row, text: str) -> Ended | None:
        """How this command has ended in an earlier run, or was interrupted. None: it is to be run."""
        if not self._before:
            return None
        met = self._store.meet(self._key(row, text), self._run)
        if met is None:
            return None
        number, found = met
        again = {FAILED: self._again.failed, INTERRUPTED: self._again.interrupted, GIVEN: True}
        if again.get(found.state):
            self._store.forget(number)
            return None
        return _told_again(found, row, text)

    def words(self) -> str:
        """What earlier runs have left; nothing if there is nothing."""
        done, failed, stopped = (self._before.get(state, 0) for state in (DONE, FAILED, INTERRUPTED))
        if not self._before:
            return ""
        told = f"{done + failed:,} ended before, {failed:,} of them failed"
        if stopped:
            left = "run again" if self._again.interrupted else "not run again (--interrupted rerun does)"
            told += f"; {stopped:,} were interrupted, and are {left}"
        return told

    # -- others who ask -------------------------------------------------------------------------------------

    def register(self, poll: select.poll) -> None:
        """Wait for their questions, too."""
        if self._questions is not None:
            self._questions.register(poll)

    def answer(self) -> None:
        """Tell them what they have asked (`bossworker.journal.open`)."""
        if self._questions is None:
            return
        poll = select.poll()
        self._questions.register(poll)
        if ready := {fd for fd, _ in poll.poll(0)}:
            self._questions.answer(RunContents(self._store, self._has_begun), ready)

    def _has_begun(self, cell: int) -> bool:
        return self._book is not None and self._book.cells.read(cell).state != QUEUED

    def close(self, keep: bool = True) -> None:
        """`keep`: what was told of; it is on the disk when this returns. JournalError: there is no room."""
        try:
            if keep:
                self._store.commit()
        finally:
            if self._questions is not None:
                self._questions.close()
            self._store.close()
            self._ownership.release()


def _told_again(found: StoredCommand, row: Row, text: str) -> Ended:
    """One that has ended in an earlier run, or was interrupted, as if it had ended now."""
    return Ended(
        plan=Planned(row, text, -1, "", None, found.tries),
        ok=found.state == DONE,
        exit_code=found.exit_code,
        signal=found.signal,
        seconds=found.seconds,
        started_at=found.started,
        stdout=b"",
        stderr=b"",
        jobid=found.job,
        kind=found.kind,
        reason=found.reason + _EARLIER if found.state == FAILED else found.reason,
        answer={},
        received=found.received,
    )


class _JournaledCells(CellBook):
    """Those of a file. A cell is given to another command once it is on the disk how the one before has ended."""

    def __init__(
        self, count: int, fd: int, note: Callable[[Sequence[Planned], Sequence[int]], None], lock: int
    ) -> None:
        super().__init__(count, fd)
        self._note = note
        self._ended: list[int] = []
        self.lock = lock

    def give(self, plans: Sequence[Planned]) -> list[int]:
        taken = super().give(plans)
        self._note(plans, taken)
        self.release()
        return taken

    def take_back(self, cell: int) -> None:
        self._ended.append(cell)

    def release(self) -> None:
        """All that was told of is on the disk."""
        for cell in self._ended:
            super().take_back(cell)
        self._ended = []
