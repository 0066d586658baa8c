"""The flight recorders of a pool with a journal: in a file with a name, which outlives all the processes.

Whoever opens the journal next reads there which jobs a worker had claimed, and which had ended. The recorders tell that
of the batches that workers have now. For the others there is a log behind them: as a worker gets its next batch, or has
died, the boss writes down which jobs of the one before were claimed. The log is a ring of as many entries as there may
be jobs whose results are not in the journal yet (see its ``job_lanes.py``): what is needed is never written over. A job
that was passed to the boss and stands in neither never started. Behind the log are results that were on their way
(``kept_results.py``).

The kernel writes memory to the file whenever it likes. So after a power cut, or a crash of the machine, the file means
nothing: the boot id in it tells. But for one word: the number of the last commit, which is noted once that is on the
disk. Whatever else has become of the file, a database that has not come so far has lost something.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress

from bossworker.failure import Outcome
from bossworker.pool.options import MAX_WORKERS
from bossworker.pool.wire import kept_results
from bossworker.pool.wire.kept_results import KeptResults
from bossworker.pool.wire.messages import FIRST_CLIENT_ID, ProtocolError
from bossworker.pool.wire.recorder import FIRST_ID, LIMIT, SLOT_SIZE, Memory, Recorder
from bossworker.pool.wire.segments import Segment, without
from bossworker.system import identity

MOST_PASSED = 1 << 16  # jobs that the boss may have without a result in the journal: as many as the log has entries
_ENTRY = 2  # words: the first id, and how many jobs from there on were claimed
_HEAD = 512  # words: what is below, before the entries
_WRITTEN, _BOSS, _FORK_SERVER = 0, 1, 3  # entries that were ever written; pids, each with a start time behind it
_SHUT = 5  # whether what is noted here is being read, and nothing may be begun any more
_COMMITS = 6  # the number of the database's last commit
_NAME_AT, _NAME_SIZE = 64 * 8, 256  # bytes: which session of the journal this is of, and the boot id


class FiledMemory(Memory):
    """See the module."""

    log_at = Memory.size
    kept_at = log_at + 8 * (_HEAD + _ENTRY * MOST_PASSED)
    size = kept_at + kept_results.SIZE

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._recorders: dict[int, Recorder] = {}
        self._log = self._view[self.log_at : self.kept_at].cast("Q")
        self.kept = KeptResults(self._view[self.kept_at :])
        self.keep_results = self.kept.add
        self._name = self._view[Memory.size + _NAME_AT : Memory.size + _NAME_AT + _NAME_SIZE]

    # -- whose it is ------------------------------------------------------------------------------------

    def name(self, session: str) -> None:
        """A new file: which session of the journal it is of. It counts until the machine is restarted."""
        self._name[:] = _name_of(session).ljust(_NAME_SIZE, b"\0")

    def is_of(self, session: str) -> bool:
        """Whether it is of this session, and of this boot."""
        return bytes(self._name).rstrip(b"\0") == _name_of(session)

    def note_commit(self, number: int) -> None:
        """A commit of the database is on the disk."""
        self._log[_COMMITS] = number

    def note_boss(self) -> None:
        """This process is the boss."""
        self._note_process(_BOSS)

    def note_fork_server(self) -> None:
        """This process is the fork server."""
        self._note_process(_FORK_SERVER)

    def _note_process(self, at: int) -> None:
        started = identity.start_time(os.getpid())
        self._log[at], self._log[at + 1] = os.getpid(), started if isinstance(started, int) else 0

    def processes_left(self) -> list[int]:
        """Pids of boss and fork server, as far as they still run: no job can start once both are gone."""
        noted = [(self._log[at], self._log[at + 1]) for at in (_BOSS, _FORK_SERVER)]
        return [pid for pid, started in noted if pid and started and identity.start_time(pid) == started]

    # -- the log ----------------------------------------------------------------------------------------

    def note_assigned(self, slot: int, batch_end: int) -> None:
        super().note_assigned(slot, batch_end)
        self._log_batch(slot)

    def note_exit(self, slot: int) -> None:
        self._log_batch(slot)

    def _log_batch(self, slot: int) -> None:
        """Note what was claimed of the batch that this slot's recorder tells of."""
        recorder = self._recorders.get(slot)
        if recorder is None:
            recorder = self._recorders[slot] = self.recorder(slot)
        limit, first_id = recorder.notes[LIMIT], recorder.notes[FIRST_ID]
        claimed = min(limit, max(0, limit - recorder.unclaimed._get_value()))  # a handler may have written over it
        if not claimed or first_id >= FIRST_CLIENT_ID:
            return
        # The entry, then its number: whoever reads behind a boss that was killed in between does not find it, but finds
        # the batch in the recorder still, since the next one is opened only after this.
        written = self._log[_WRITTEN]
        at = _HEAD + _ENTRY * (written % MOST_PASSED)
        self._log[at], self._log[at + 1] = first_id, claimed
        self._log[_WRITTEN] = written + 1

    def note_given(self, entry: int, first_id: int, count: int) -> bool:
        """In the place of the boss's notes, with an engine: it is about to get jobs. False: it may not any more.

        The note is there before we look, and whoever reads the notes says so before: one of the two sees the other.
        """
        at = _HEAD + _ENTRY * entry
        self._log[at + 1] = 0
        self._log[at], self._log[at + 1] = first_id, count
        self._log[_WRITTEN] = max(self._log[_WRITTEN], entry + 1)
        # We write, then look; `claimed` says that it reads, then reads. So it finds this note, or we find that it
        # reads, and give the jobs to nobody.
        return not self._log[_SHUT]

    def running(self) -> Iterator[int]:
        """Ids of the jobs that run now."""
        for slot in range(min(self.slots, MAX_WORKERS)):
            recorder = self.recorder(slot)
            with suppress(ProtocolError):  # a handler has written over it, or the boss gives out jobs just now
                snapshot = recorder.snapshot()
                if snapshot.running:
                    yield recorder.notes[FIRST_ID] + snapshot.claimed - 1

    # -- once all are dead ------------------------------------------------------------------------------

    def claimed(self) -> Iterator[range]:
        """Ids of the jobs that may have run. No worker that still lives can claim another one from then on."""
        # Before anything is read: see `note_given`.
        self._log[_SHUT] = 1
        for slot in range(min(self.slots, MAX_WORKERS)):
            recorder = self.recorder(slot)
            first_id = recorder.notes[FIRST_ID]
            yield range(first_id, first_id + recorder.claimed_at_most())
        for entry in range(min(self._log[_WRITTEN], MOST_PASSED)):
            at = _HEAD + _ENTRY * entry
            if self._log[at + 1]:
                yield range(self._log[at], self._log[at] + self._log[at + 1])

    def published(self) -> Iterator[Segment]:
        """Results that lie in the recorders, or were taken from there a while ago. Some may have been taken before."""
        yield from self.kept
        for slot in range(min(self.slots, MAX_WORKERS)):
            with suppress(ProtocolError):
                yield from self._published_in(slot)

    def _published_in(self, slot: int) -> Iterator[Segment]:
        recorder = self.recorder(slot)
        _, first_id, attempt, *_ = recorder.notes
        count = recorder.snapshot().published
        if not count or first_id >= FIRST_CLIENT_ID:
            return
        results = recorder.results(0, count, first_id, 0, attempt, one_by_one=True)
        elsewhere = [at for at, outcome in enumerate(results.outcomes) if outcome == Outcome.ELSEWHERE]
        yield from without(results, elsewhere)

    def close(self) -> None:
        self.keep_results = None
        self.kept.close()
        self._log.release()
        self._name.release()
        super().close()


def commit_noted(fd: int, session: str) -> int:
    """The last commit that is noted in a file of this session, of whichever boot; 0: none is."""
    name = os.pread(fd, _NAME_SIZE, Memory.size + _NAME_AT)
    noted = os.pread(fd, 8, Memory.size + 8 * _COMMITS)
    return int.from_bytes(noted, sys.byteorder) if name.startswith(f"{session} ".encode()) else 0


def slots_end(slots: int) -> int:
    """How far the file is written to with this many workers, but for the log."""
    return Memory.size - (MAX_WORKERS - min(slots, MAX_WORKERS)) * SLOT_SIZE


def _name_of(session: str) -> bytes:
    return f"{session} {identity.boot_id()}".encode()[:_NAME_SIZE]
