"""The jobs that were sent, run by run: which of them have no result yet, and what they were.

A **run** is what one frame to the boss held: jobs with consecutive ids, and of one queue. Of small jobs of plain data
only the bytes that were sent are kept, block by block, and loaded again when somebody asks for one of them: 17 bytes a
job in place of 300. What is not plain data is kept as it is.

Jobs that are added one at a time share a run, which grows.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter, setitem
from typing import Any, overload

from bossworker.pool.caller.result_queue import ResultQueue
from bossworker.pool.wire.codec import BLOCK_JOBS, Blocks, load_group
from bossworker.system.one_step import Step, steps_of, take_steps

Job = Mapping[Any, Any]
GROWN_JOBS = 512  # jobs of a run that grows; a result that is kept keeps this many of them, at the most
SPARE_RUNS = 64  # runs that are through, before they are swept out

_first_id = attrgetter("first_id")


class KeptJobs(Sequence[Job]):
    """Jobs in groups of `BLOCK_JOBS`, each as its encoded block, or as a list; the first `skip` are not ours."""

    __slots__ = ("_count", "_groups", "_skip")

    def __init__(self, groups: list[bytes | list[Job]], count: int, skip: int = 0) -> None:
        self._groups = groups
        self._count = count
        self._skip = skip

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> Job: ...

    @overload
    def __getitem__(self, at: slice) -> KeptJobs: ...

    def __getitem__(self, at: int | slice) -> Job | KeptJobs:
        if isinstance(at, slice):
            return self._part(*at.indices(self._count)[:2])
        if not 0 <= at < self._count:
            raise IndexError(at)
        group, position = divmod(self._skip + at, BLOCK_JOBS)
        return self._group(group)[position]

    def _group(self, number: int) -> list[Job]:
        group = self._groups[number]
        if isinstance(group, bytes):
            self._groups[number] = group = load_group(group)
        return group

    def _part(self, start: int, stop: int) -> KeptJobs:
        first, skip = divmod(self._skip + start, BLOCK_JOBS)
        last = (self._skip + stop - 1) // BLOCK_JOBS
        return KeptJobs(self._groups[first : last + 1], stop - start, skip)


def kept(jobs: Sequence[Job], blocks: Blocks) -> KeptJobs:
    """The jobs that were encoded to these blocks."""
    groups: list[bytes | list[Job]] = []
    position = 0
    for start in range(0, len(jobs), BLOCK_JOBS):
        stop = min(start + BLOCK_JOBS, len(jobs))
        part = blocks.parts[position]
        if blocks.counts[position] > 1 and isinstance(part, bytes):
            groups.append(part)
            position += 1
        else:
            groups.append(list(map(as_submitted, jobs[start:stop])))
            position += stop - start
    return KeptJobs(groups, len(jobs))


def as_submitted(job: Job) -> Job:
    """A dict as it is now: programs fill the same one again for the next job. Other mappings are left as they are."""
    return job.copy() if type(job) is dict else job


class SentRun:
    """See the module."""

    __slots__ = ("arrived", "first_id", "jobs", "marks", "queue", "times")

    def __init__(self, first_id: int, jobs: Sequence[Job], queue: ResultQueue, times: float | array[float]) -> None:
        self.first_id = first_id
        self.jobs = jobs  # until all their results have arrived
        self.times = times  # when all were added; or, where they were added one at a time, when each was
        self.queue = queue  # that their results go to
        self.marks = bytearray(len(jobs))  # 1 for each whose result has arrived
        self.arrived = 0  # how many have; written under the inbox's lock

    @property
    def stop(self) -> int:
        return self.first_id + len(self.marks)

    def queued(self, start: int, stop: int) -> float | Sequence[float]:
        """When jobs were added."""
        times = self.times
        return times if isinstance(times, float) else times[start:stop]

    def fresh(self, start: int, stop: int) -> bool:
        """Whether none of these jobs has a result."""
        return self.marks.count(0, start, stop) == stop - start

    def marking(self, start: int, stop: int) -> list[Step]:
        """The steps that note results of jobs that had none. (Whoever needs the jobs has taken them by then.)"""
        count = stop - start
        steps: list[Step] = [
            (setitem, self.marks, slice(start, stop), b"\1" * count),
            (setattr, self, "arrived", self.arrived + count),
        ]
        if isinstance(self.times, array):
            steps.append((setitem, self.jobs, slice(start, stop), [_GONE] * count))
        elif self.arrived + count == len(self.marks):
            steps.append((setattr, self, "jobs", ()))
        return steps

    def unfinished(self) -> Iterator[int]:
        """Positions of jobs that have no result."""
        at = self.marks.find(0)
        while at >= 0:
            yield at
            at = self.marks.find(0, at + 1)


class SentJobs:
    """The runs. A container of the ids of those jobs that have no result yet.

    Runs are added under the outbox's lock. Others look for them without any: so the list is only appended to, or
    another is put in its place.
    """

    def __init__(self) -> None:
        self._runs: list[SentRun] = []  # by id
        self._most = SPARE_RUNS

    # -- what was sent ----------------------------------------------------------------------------------

    def add(self, first_id: int, jobs: Sequence[Job], queue: ResultQueue) -> None:
        """Note jobs that are about to be sent, and where their results go."""
        self._add(SentRun(first_id, jobs, queue, time.monotonic()))

    def add_one(self, job_id: int, job: Job, queue: ResultQueue) -> None:
        """The same for one job."""
        last = self._runs[-1] if self._runs else None
        now = time.monotonic()
        if last is None or last.queue is not queue or last.stop != job_id or not _may_grow(last):
            self._add(SentRun(job_id, [job], queue, array("d", (now,))))
            return
        steps: list[Step] = [
            (last.jobs.append, job),  # type: ignore[attr-defined]  # a list, in a run that grows
            (last.times.append, now),  # type: ignore[union-attr]
            (last.marks.append, 0),
            (setattr, queue, "sent", queue.sent + 1),
        ]
        take_steps(steps_of(steps))

    def _add(self, run: SentRun) -> None:
        runs, queue = self._runs, run.queue
        if len(runs) > self._most:
            # Other threads look for jobs in the list that they have got, without a lock: so what is through is left out
            # of another list, and never taken out of this one.
            runs = [one for one in runs if one.arrived < len(one.marks)]
            self._most = 2 * len(runs) + SPARE_RUNS
        counted: Step = setattr, queue, "sent", queue.sent + len(run.marks)
        if runs is self._runs and (not runs or runs[-1].first_id < run.first_id):
            take_steps(steps_of([(runs.append, run), counted]))
            return
        # A call takes the outbox's lock once for its ids, and again for its jobs. Another thread that got later ids may
        # have been quicker, and others may look for jobs now: so it is another list that is put in place, sorted.
        at = bisect_right(runs, run.first_id, key=_first_id)
        take_steps(steps_of([(setattr, self, "_runs", [*runs[:at], run, *runs[at:]]), counted]))

    def retract(self, ids: range) -> None:
        """These jobs were not sent after all, if they were noted at all."""
        run = self.find(ids.start)
        if run is None:
            return
        counted: Step = setattr, run.queue, "sent", run.queue.sent - len(ids)
        if run.first_id < ids.start:  # the last job of a run that grows
            at = ids.start - run.first_id
            take_steps(steps_of([(one.pop, at) for one in (run.jobs, run.times, run.marks)] + [counted]))  # type: ignore[union-attr]
        else:
            take_steps(steps_of([(setattr, self, "_runs", [one for one in self._runs if one is not run]), counted]))

    def clear(self) -> None:
        self._runs = []

    # -- what is known of it ----------------------------------------------------------------------------

    def find(self, job_id: int) -> SentRun | None:
        """The run that a job is in. One that is through may have been forgotten."""
        runs = self._runs
        at = bisect_right(runs, job_id, key=_first_id) - 1
        return runs[at] if at >= 0 and job_id < runs[at].stop else None

    def knows(self, job_id: int) -> bool:
        """Whether a job was sent."""
        return self.find(job_id) is not None

    def __contains__(self, job_id: object) -> bool:
        if not isinstance(job_id, int):
            return False
        run = self.find(job_id)
        return run is not None and not run.marks[job_id - run.first_id]

    def __iter__(self) -> Iterator[int]:
        for run in self._runs:
            for at in run.unfinished():
                yield run.first_id + at

    def items(self) -> Iterator[tuple[int, Job]]:
        """Ids and jobs."""
        for run in self._runs:
            jobs = run.jobs
            for at in run.unfinished():
                # All results may have arrived, and the jobs been let go, between the choice of the run and `jobs`.
                if at < len(jobs):
                    yield run.first_id + at, jobs[at]

    def waited_for_in(self, queue: ResultQueue) -> list[int]:
        """Ids of the jobs whose results are to come to a queue."""
        runs = [run for run in self._runs if run.queue is queue]
        return [run.first_id + at for run in runs for at in run.unfinished()]

    def __len__(self) -> int:
        return sum(len(run.marks) - run.arrived for run in self._runs)


def _may_grow(run: SentRun) -> bool:
    return isinstance(run.times, array) and len(run.marks) < GROWN_JOBS


_GONE: Job = {}
"""In the place of a job that nobody will ask for."""
