"""Jobs that are added again: those that have a good result in the journal, or wait in it, are not run once more.

A job is known by its key. Whoever adds jobs with ``resume=True`` has keys noted with them. Of jobs that were added
without it, keys are asked for once they are needed: only the owner's program can load them.

What is found comes as the result of the new job, under its id. If it is one that an earlier owner has left, to be run
or to be handed out, then it is **adopted**: the program forgets it under its old id, and it comes once.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import Any

from bossworker.failure import KIND_BITS
from bossworker.journal.caller_side import CallerSide, Resume
from bossworker.journal.database import Database
from bossworker.journal.handing_over import as_stored
from bossworker.journal.ranges import Ranges
from bossworker.pool.wire.segments import Segment, part, without

PAGE_BYTES = 1 << 20  # of jobs whose keys are asked for at a time


class Resuming:
    """See the module. `left`: ids of the jobs that an earlier owner has left, until they are adopted."""

    def __init__(self, store: Database, caller: CallerSide, left: Ranges) -> None:
        self._store = store
        self._caller = caller
        self._left = left
        self._new_ids: dict[int, int] = {}  # of adopted jobs, by their old ids
        self._old_ids: dict[int, int] = {}  # the other way round
        self._not_kept = Ranges()  # ids that stored results were given: the journal knows nothing of them

    def answer(self, resume: Resume) -> None:
        """Send what there is, and say for which of the jobs; and which jobs of before the program is to forget."""
        found, forget = [], []
        for at, key in enumerate(resume.keys):
            new_id = resume.ids[at]
            known = self._look_up(new_id, key)
            if known is not None:
                found.append(at)
                if known in self._left:
                    forget.append(known)
                    self._adopt(known, new_id)
                else:
                    self._not_kept.add(new_id, new_id + 1)
        self._caller.reply(resume.number, {"found": found, "forget": forget})

    def _look_up(self, new_id: int, key: bytes) -> int | None:
        """The job of before that is taken for this one; its result, if it is there, is sent."""
        for old_id in self._store.keys.ids_of(key):
            stored = self._store.results.segment_of(old_id)
            if stored is None:
                if old_id in self._left:
                    return old_id
                continue
            segment, clock = stored
            at = old_id - segment.first_id
            if not segment.outcomes[at] & KIND_BITS:
                one = part(segment, at, at + 1)._replace(first_id=new_id)
                self._caller.send_results([as_stored(one, clock)])
                return old_id
        return None

    def _adopt(self, old_id: int, new_id: int) -> None:
        self._left.remove(old_id, old_id + 1)
        self._new_ids[old_id] = new_id
        self._old_ids[new_id] = old_id

    def renamed(self, segments: list[Segment]) -> list[Segment] | None:
        """Results as they are to be told; None: as they are."""
        if not self._new_ids:
            return None
        return [one for segment in segments for one in self._renamed(segment)]

    def _renamed(self, segment: Segment) -> Iterator[Segment]:
        ids = range(segment.first_id, segment.first_id + segment.jobs)
        adopted = [at for at, job_id in enumerate(ids) if job_id in self._new_ids]
        yield from without(segment, adopted)
        for at in adopted:
            yield part(segment, at, at + 1)._replace(first_id=self._new_ids[ids[at]])

    def old_ids(self, ranges: Iterable[range]) -> Iterator[range]:
        """Ids of jobs as the program has them, as the journal has them, if it does."""
        for ids in ranges:
            for kept in self._not_kept.missing(ids.start, ids.stop):
                if self._old_ids:
                    yield from (range(one, one + 1) for one in map(self.old_id, kept))
                else:
                    yield kept

    def old_id(self, job_id: int) -> int:
        """What the journal, and the boss, know a job by."""
        return self._old_ids.get(job_id, job_id)

    def tell_unkeyed(self, number: int) -> None:
        """Some of the jobs whose keys are not known."""
        told: list[dict[str, Any]] = []
        size = 0
        for batch in self._store.unkeyed():
            body = b64encode(b"".join(batch.body())).decode()
            told.append({"head": batch.head().hex(), "body": body})
            size += len(body)
            if size > PAGE_BYTES:
                break
        self._caller.reply(number, {"batches": told})
