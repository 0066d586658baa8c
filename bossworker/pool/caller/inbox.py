"""The caller's results: what has arrived, taken apart when it is asked for, each given out once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import repeat, starmap

from bossworker.pool.caller.result_queue import ResultQueue
from bossworker.pool.caller.sent_jobs import Job, SentJobs, SentRun
from bossworker.pool.caller.taps import Tap
from bossworker.pool.caller.unpacking import Unpacked
from bossworker.pool.wire.parcel import Arrived
from bossworker.pool.wire.segments import Segment
from bossworker.result import Result
from bossworker.system.one_step import Step, steps_of, take_steps
from bossworker.watch.relayed_lines import RelayedLines


class Inbox:
    """Results as they came, and where each is to go.

    **Given out once.** A segment of results is taken apart under a lock. In one step, which nothing can come between,
    those of jobs that had none yet are put into their queue, the jobs are marked, and the segment is struck off. A
    segment that comes twice, because Ctrl-C came between its frame and its end, thus yields nothing the second time.

    From a queue a result is popped, by an iterator: see `next`.
    """

    def __init__(self) -> None:
        self.jobs = SentJobs()
        self.ready = ResultQueue()  # of the results that are nobody's in particular
        self.pops = starmap(self.ready.popleft, repeat(()))  # pops from there whenever it is advanced
        self._queues: dict[int, ResultQueue] = {}  # the others, by their id()
        self._segments: deque[Segment] = deque()
        self._unpacking = threading.RLock()
        self._unwanted = False  # whether there have ever been results that nobody waits for
        self.tap: Tap | None = None
        self.output: RelayedLines | None = None  # what jobs have printed

    # -- jobs in ----------------------------------------------------------------------------------------

    def note_call(self, first_id: int) -> None:
        """Jobs are about to be added, from this id on."""
        if self.tap is not None:
            self.tap.on_call(first_id, self.jobs)

    def expect(self, first_id: int, jobs: Sequence[Job], queue: ResultQueue | None = None) -> None:
        """Note jobs that are about to be sent, and the queue that their results go to."""
        self.jobs.add(first_id, jobs, self._known(queue))

    def expect_one(self, job_id: int, job: Job, queue: ResultQueue | None = None) -> None:
        """The same for one."""
        self.jobs.add_one(job_id, job, self._known(queue))

    def _known(self, queue: ResultQueue | None) -> ResultQueue:
        if queue is None:
            return self.ready
        if not queue.closed:
            self._queues[id(queue)] = queue
        return queue

    def close_queue(self, queue: ResultQueue) -> None:
        """Nobody wants the results in it, or those to come. Takes no lock: the garbage collector may call this."""
        queue.closed = self._unwanted = True
        self._queues.pop(id(queue), None)
        queue.clear()

    def forget(self, ids: Iterable[int]) -> None:
        """Results of these jobs, if they are still to come, will be thrown away. Takes no lock."""
        self._unwanted = True
        for job_id in ids:
            run = self.jobs.find(job_id)
            # Another thread may hand this result over just now. Between this look and the note there is no call, so
            # with the GIL it comes before both or after; where there is none, the look behind the note finds it.
            if run is None or run.marks[job_id - run.first_id]:
                continue
            run.queue.forgotten.add(job_id)
            if run.marks[job_id - run.first_id]:  # it came between that look and the note of it
                run.queue.forgotten.discard(job_id)

    def discard(self, ids: Collection[int]) -> None:
        """The same, also of results that have come and were not given out."""
        self.forget(ids)
        self.unpack()
        wanted, ready = set(ids), self.ready
        for _ in range(len(ready)):
            try:
                result = ready.popleft()
            except IndexError:  # other threads take some, too
                return
            if result.job_id not in wanted:
                ready.append(result)

    def clear(self) -> None:
        """Drop everything."""
        with self._unpacking:
            self._segments.clear()
            self.jobs.clear()
            for queue in (self.ready, *list(self._queues.values())):
                queue.clear()
                queue.forgotten.clear()
                queue.arrived = queue.sent
            self._queues.clear()

    # -- numbers ----------------------------------------------------------------------------------------

    def pending(self) -> int:
        """Jobs whose results have not been taken."""
        ready = self.ready
        # As `pending` there: this is asked often.
        pending = ready.sent - ready.arrived - len(ready.forgotten) + len(ready)
        if self._queues:
            pending += sum([queue.pending for queue in list(self._queues.values())])
        return pending

    @property
    def outstanding(self) -> int:
        """Of these, the jobs whose results are nobody's in particular."""
        return self.ready.pending

    def unfinished(self) -> int:
        """Jobs of which no result has arrived."""
        if self._unwanted:  # those are not waited for: they must not be counted as results for others
            self.unpack()
        waiting = sum([queue.waiting for queue in (self.ready, *list(self._queues.values()))])
        return waiting - sum([segment.jobs for segment in list(self._segments)])

    def has_news(self, queue: ResultQueue | None = None) -> bool:
        """Whether there may be something for the common queue, or the given one."""
        return bool((self.ready if queue is None else queue) or self._segments)

    def given_out(self, ids: Iterable[int]) -> list[int]:
        """Those of the jobs whose results the program has got, or does not want."""
        # A result is marked as arrived in the step that queues it. So what is marked now, and is in no queue
        # afterwards, has been taken out in between: the other way round, one that came between the two looks would
        # count as got.
        arrived = [job_id for job_id in ids if job_id not in self.jobs]
        here = {result.job_id for queue in (self.ready, *list(self._queues.values())) for result in list(queue)}
        return [job_id for job_id in arrived if job_id not in here]

    def unfinished_jobs(self) -> list[tuple[int, Job]]:
        """Ids of the jobs whose results are still waited for, and the jobs."""
        return [(job_id, job) for job_id, job in self.jobs.items() if self._is_wanted(job_id)]

    def _is_wanted(self, job_id: int) -> bool:
        run = self.jobs.find(job_id)
        return run is not None and not run.queue.closed and job_id not in run.queue.forgotten

    # -- results out ------------------------------------------------------------------------------------

    def receive(self, segments: list[Segment], fd: int | None = None) -> None:
        """Take results in; `fd`: the file with the data of the last one, which is read now."""
        if fd is not None:
            last = segments[-1]
            segments[-1] = last._replace(beside=Arrived(last.payload, fd))  # type: ignore[arg-type]
        self._segments.extend(segments)

    def next(self, queue: ResultQueue | None = None) -> Result | None:
        """The next result, from the common queue or the given one; None when there is none."""
        while True:
            try:
                # A pop gives each result to one thread only. Nor can Ctrl-C lose one: CPython runs signal handlers at
                # calls, at jumps back and as a function is entered, and from the pop, which is no call but the loop's
                # own step, to the return there is none of these.
                for result in self.pops if queue is None else iter(queue.popleft, None):
                    return result
            except IndexError:
                pass
            if not self.fill(queue):  # out here, so that what does not load has no IndexError of ours as its context
                return None

    def fill(self, queue: ResultQueue | None) -> bool:
        """Take segments apart until there is something in a queue (None: the common one); whether there is."""
        wanted = self.ready if queue is None else queue
        # Two threads may both find that there is nothing. One takes the segments apart; the other waits for the lock,
        # and finds the queue filled, or nothing left.
        if not wanted and self._segments:
            with self._unpacking:
                self._unpack_for(wanted)
        return bool(wanted)

    def _unpack_for(self, queue: ResultQueue) -> None:
        while not queue and self._segments:
            self._unpack_next()

    def unpack(self) -> None:
        """Take all apart that has come."""
        with self._unpacking:
            self._unpack_all()

    def _unpack_all(self) -> None:
        while self._segments:
            self._unpack_next()

    def drop(self, ids: Iterable[int]) -> None:
        """The results of these jobs will not come: the program has them."""
        with self._unpacking:
            for job_id in ids:
                self._drop_one(job_id)

    def _drop_one(self, job_id: int) -> None:
        run = self.jobs.find(job_id)
        if run is not None and job_id in self.jobs:
            at = job_id - run.first_id
            counted: Step = setattr, run.queue, "arrived", run.queue.arrived + 1
            take_steps(steps_of([*run.marking(at, at + 1), counted]))

    def _unpack_next(self) -> None:
        segment = self._segments[0]
        unpacked = Unpacked(segment)
        for run, first, stop in self._shares(segment):
            self._deliver(unpacked, run, first, stop)
        # Struck off last: whoever interrupts us before this line has the segment come again, and those of its results
        # that have been handed over are marked by then.
        if self._segments and self._segments[0] is segment:  # not so if a signal handler cleared everything
            self._segments.popleft()

    def _shares(self, segment: Segment) -> Iterator[tuple[SentRun, int, int]]:
        """What of a segment belongs to which run, and is new: job ids, from the first to before the last.

        (Jobs that are in no run have been dropped, with everything.)
        """
        job_id, end = segment.first_id, segment.first_id + segment.jobs
        while job_id < end:
            run = self.jobs.find(job_id)
            stop = min(end, run.stop) if run is not None else job_id + 1
            if run is not None:
                yield from _fresh(run, job_id, stop)
            job_id = stop

    def _deliver(self, unpacked: Unpacked, run: SentRun, first: int, stop: int) -> None:
        """Hand over results of jobs of a run that had none, in one step."""
        segment, queue, count = unpacked.segment, run.queue, stop - first
        start = first - run.first_id
        jobs = run.jobs[start : start + count]
        steps = run.marking(start, start + count)
        steps.append((setattr, queue, "arrived", queue.arrived + count))
        if not queue.closed:
            at = first - segment.first_id
            results = unpacked.results(at, at + count, jobs, run.queued(start, start + count))
            steps.insert(0, (queue.extend, self._finished(results, queue)))
        strike: Step = queue.forgotten.difference_update, range(first, stop)
        delivery, with_forgotten = steps_of(steps), steps_of([*steps, strike])
        # Between these looks and the delivery there is no call: so no signal handler can clear everything, and then
        # find these results there; and `forget` can note none of these jobs that would stay noted, and be taken for
        # ever for one more whose result has come.
        if self._segments and self._segments[0] is segment:
            take_steps(with_forgotten if queue.forgotten else delivery)

    def _finished(self, results: list[Result], queue: ResultQueue) -> list[Result]:
        """What is to be done to results before they are handed over."""
        if queue.forgotten:
            results = [result for result in results if result.job_id not in queue.forgotten]
        if self.output is not None and self.output.tails:
            for result in results:
                _add_log(result, self.output)
        if self.tap is not None:
            for result in results:
                self.tap.on_result(result)
        return results


def _fresh(run: SentRun, first: int, stop: int) -> Iterator[tuple[SentRun, int, int]]:
    """All of them, or those that had no result, one by one."""
    if run.fresh(first - run.first_id, stop - run.first_id):
        yield run, first, stop
        return
    for job_id in range(first, stop):
        if run.fresh(job_id - run.first_id, job_id - run.first_id + 1):
            yield run, job_id, job_id + 1


def _add_log(result: Result, output: RelayedLines) -> None:
    """A failed result gets the last lines of its job."""
    tail = output.tail_of(result.job_id)
    if tail and result._error is not None:
        result._origin = result._origin.with_error(result._error._replace(log=tail))
