"""The caller's results: what has arrived, taken apart when it is asked for, each given out once."""

from __future__ import annotations

import threading
import time
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import count, pairwise, repeat
from operator import itemgetter
from typing import Any
from weakref import WeakValueDictionary

from bossworker.errors import CANCELLED
from bossworker.failure import KIND_BITS, ErrorData, Outcome, capture, describe, reported
from bossworker.pool.caller.taps import Tap
from bossworker.pool.wire.codec import load_error, load_result, load_results
from bossworker.pool.wire.parcel import Arrived
from bossworker.pool.wire.segments import Segment
from bossworker.result import Facts, Origin, Result
from bossworker.watch.relayed_lines import RelayedLines

Job = Mapping[Any, Any]
_OK = int(Outcome.OK)
_set_facts = Result.__dict__["_facts"].__set__
_new_result: Callable[[type[Result]], Result] = dict.__new__
_fill_result: Callable[[Result, Mapping[Any, Any]], None] = dict.update
_GIVEN_OUT = (Outcome.OK, Outcome.REPORTED)


class Inbox:
    """Jobs without a result, and results as they came.

    **Given out once.** A result is popped from its queue, which only one thread can do; then its job is struck out of
    `jobs`, and whoever finds it gone drops the result. Neither a thread that is held anywhere nor another thread can
    lose a result or get it twice. Nor can a Ctrl-C: CPython runs signal handlers at calls, at jumps back and as a
    function is entered, and there is none of these from the pop to the return. (So it is an iterator that pops.)

    The same test makes all that comes before repeatable: a segment that is taken apart twice, because Ctrl-C came
    in between, yields items whose jobs are gone by then, and they are dropped.
    """

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}  # without a result given out
        self._calls: list[tuple[int, float]] = []  # for each add_work: its first id, and when it was
        self.routed: dict[int, deque[Result]] = {}  # ids of jobs whose results go to a queue of their own
        self._routes: WeakValueDictionary[int, deque[Result]] = WeakValueDictionary()  # these queues
        self._forgotten: set[int] = set()  # ids of dropped jobs whose results are still to come
        self._segments: deque[Segment] = deque()
        self._ready: deque[Result] = deque()
        self._pops = iter(self._ready.popleft, None)  # pops from there whenever it is advanced
        self._unpacking = threading.RLock()
        self.tap: Tap | None = None
        self.output: RelayedLines | None = None  # what jobs have printed

    def note_call(self, first_id: int) -> None:
        """Note when jobs are added, from this id on."""
        if self.tap is not None:
            self.tap.on_call(first_id, self.jobs)
        if len(self._calls) > 2 * len(self.jobs) + 100:
            calls = self._calls
            self._calls = [calls[n] for n in sorted({_call_of(job_id, calls) for job_id in list(self.jobs)})]
        self._calls.append((first_id, time.monotonic()))

    def expect(self, first_id: int, jobs: Sequence[Job], route: deque[Result] | None = None) -> None:
        """Note jobs that are about to be sent, and the queue that their results go to."""
        if route is not None:
            if id(route) not in self._routes:
                self._routes[id(route)] = route
            # Before `jobs`: see `outstanding`.
            self.routed.update(zip(range(first_id, first_id + len(jobs)), repeat(route)))
        self.jobs.update(zip(count(first_id), jobs))

    def _queued(self, ids: range) -> float | list[float]:
        """When jobs were added: one time if all came together."""
        calls = self._calls  # which another thread may replace meanwhile
        first, last = _call_of(ids[0], calls), _call_of(ids[-1], calls)
        if first == last:
            return calls[first][1]
        starts = [ids.start, *(calls[n][0] for n in range(first + 1, last + 1)), ids.stop]
        times: list[float] = []
        for n, (start, stop) in enumerate(pairwise(starts), first):
            times += [calls[n][1]] * (stop - start)
        return times

    def forget(self, ids: Iterable[int], here: Container[int] = ()) -> None:
        """Drop jobs: their results, but for those that are `here` already, will be thrown away. Takes no lock."""
        for job_id in ids:
            if self.jobs.pop(job_id, None) is not None and job_id not in here:
                self._forgotten.add(job_id)
            self.routed.pop(job_id, None)

    def strike(self, job_id: int) -> None:
        """A job's result has been given out by its queue's owner. May be done twice."""
        self.jobs.pop(job_id, None)
        self.routed.pop(job_id, None)

    def strike_all(self, ids: Sequence[int]) -> None:
        """The same for many, without a call of ours for each."""
        deque(map(self.jobs.pop, ids, repeat(None)), maxlen=0)
        deque(map(self.routed.pop, ids, repeat(None)), maxlen=0)

    def clear(self) -> None:
        """Drop everything."""
        with self._unpacking:
            self.jobs.clear()
            self.routed.clear()
            self._forgotten.clear()
            self._segments.clear()
            self._ready.clear()

    def arrived(self) -> set[int]:
        """Ids of the jobs whose results are here, not given out yet."""
        with self._unpacking:
            while self._segments:
                self._unpack_next()
            queues = [self._ready, *self._routes.values()]
            return {result.job_id for queue in queues for result in list(queue)}

    def receive(self, segments: list[Segment], fd: int | None = None) -> None:
        """Take results in; `fd`: the file with the data of the last one, which is read now."""
        if fd is not None:
            last = segments[-1]
            segments[-1] = last._replace(beside=Arrived(last.payload, fd))  # type: ignore[arg-type]
        self._segments.extend(segments)

    def put_back(self, result: Result) -> None:
        """Take a result back that could not be given out: it is the next one again."""
        self.jobs[result.job_id] = result.job
        self._ready.appendleft(result)

    def _sweep(self) -> None:
        """Throw away results that nobody will take, so that they are not counted."""
        with self._unpacking:
            while self._segments:
                self._unpack_next()
            here = list(self._ready)
            kept = [result for result in here if result.job_id not in self._forgotten]
            if len(kept) < len(here):
                self._forgotten.difference_update([result.job_id for result in here])
                self._ready = deque(kept)  # whoever still pops from the old one strikes jobs out of the same `jobs`
                self._pops = iter(self._ready.popleft, None)

    @property
    def outstanding(self) -> int:
        """Jobs whose results are nobody's in particular."""
        count = len(self.jobs) - len(self.routed)
        if count > 0 or not self.jobs:
            return count
        # Where another thread is noting or striking jobs, some are in `routed` and not in `jobs`, never the other way
        # round: so the difference may be too small for an instant, and a thread would find nothing to wait for.
        return sum(job_id not in self.routed for job_id in list(self.jobs))

    def has_news(self, queue: deque[Result] | None = None) -> bool:
        """Whether there may be something for the common queue, or the given one."""
        return bool((self._ready if queue is None else queue) or self._segments)

    def unfinished(self) -> int:
        """Jobs of which no result has arrived."""
        if self._forgotten:
            self._sweep()
        here = len(self._ready) + sum(segment.jobs for segment in list(self._segments))
        return len(self.jobs) - here - sum(map(len, list(self._routes.values())))

    def next(self, queue: deque[Result] | None = None) -> Result | None:
        """The next result, from the common queue or the given one; None when there is none."""
        jobs = self.jobs
        while True:
            try:
                for result in self._pops if queue is None else iter(queue.popleft, None):
                    try:
                        del jobs[result._facts[0]]
                        if queue is not None:
                            del self.routed[result._facts[0]]
                    except KeyError:  # dropped, or here for the second time
                        continue
                    return result
            except IndexError:
                pass
            if not self.fill(queue):  # out here, so that what does not load has no IndexError of ours as its context
                return None

    def fill(self, queue: deque[Result] | None) -> bool:
        """Take segments apart until there is something in a queue (None: the common one); whether there is."""
        with self._unpacking:
            wanted = self._ready if queue is None else queue
            while not wanted and self._segments:
                self._unpack_next()
            return bool(wanted)

    def _distribute(self, results: list[Result]) -> None:
        """Each to its queue. Those that come together go mostly to one."""
        ids = [result._facts[0] for result in results]
        queues = list(map(self.routed.get, ids, repeat(self._ready))) if self.routed else [self._ready] * bool(ids)
        if len(set(map(id, queues))) == 1:
            queues[0].extend(results)
        else:
            for result, queue in zip(results, queues):
                queue.append(result)

    def _with_log(self, result: Result, output: RelayedLines) -> Result:
        """A failed result gets the last lines of its job."""
        tail = output.tail_of(result.job_id)
        *facts, error = result._facts
        if tail and error is not None:
            result._facts = (*facts, error._replace(log=tail))  # type: ignore[assignment]
        return result

    def _unpack_next(self) -> None:
        segment = self._segments[0]
        ids = range(segment.first_id, segment.first_id + segment.jobs)
        results = _results(segment, ids, map(self.jobs.get, ids), self._queued(ids))
        if dropped := self._forgotten and self._forgotten.intersection(ids):
            results = [result for result in results if result.job_id not in dropped]
        if self.output is not None and self.output.tails:
            results = [self._with_log(result, self.output) for result in results]
        if self.tap is not None:
            deque(map(self.tap.on_result, results), maxlen=0)
        self._distribute(results)
        if self._segments and self._segments[0] is segment:  # not so if a signal handler cleared everything
            del self._segments[0]
        if dropped:
            self._forgotten -= dropped


def _call_of(job_id: int, calls: list[tuple[int, float]]) -> int:
    """The position of the add_work that brought a job."""
    return bisect_right(calls, job_id, key=itemgetter(0)) - 1


def _results(segment: Segment, ids: range, jobs: Iterable[Any], queued: float | list[float]) -> list[Result]:
    """Take a segment apart. (A job that has been forgotten is None.)"""
    marks = array("d", bytes(segment.marks))
    origin = Origin(segment.pid, segment.attempt, time.time() - time.monotonic(), queued, marks)
    contents = _all_well(segment)
    if contents is not None:
        facts: Iterable[Facts] = zip(ids, jobs, repeat(origin), count(), repeat(_OK), repeat(None))
    else:
        contents, outcomes, errors = zip(*_one_by_one(segment))
        facts = [
            (job_id, job, origin.alone(n), 0, outcome, error)  # failures are what programs keep
            for n, (job_id, job, outcome, error) in enumerate(zip(ids, jobs, outcomes, errors))
        ]
    results: list[Result] = list(map(_new_result, repeat(Result, len(contents))))  # not by its __init__, as by hand
    deque(map(_fill_result, results, contents), maxlen=0)  # a loop, without the cost of one
    deque(map(_set_facts, results, facts), maxlen=0)
    return results


def _all_well(segment: Segment) -> Sequence[dict[Any, Any]] | None:
    """All contents at one go; None when not all jobs ended well, or something does not load."""
    if bytes(segment.outcomes) != bytes(segment.jobs):
        return None
    try:
        values = load_results(segment.payload)  # type: ignore[arg-type]
    except KeyboardInterrupt:
        raise
    except BaseException:  # loading may run anything, sys.exit for instance
        return None
    return values if len(values) == segment.jobs else None


def _one_by_one(segment: Segment) -> Iterator[tuple[dict[Any, Any], int, ErrorData | None]]:
    if isinstance(segment.beside, Arrived):
        yield _content(segment.outcomes[0], segment.beside)
        return
    start = 0
    for outcome, end in zip(segment.outcomes, array("Q", bytes(segment.ends)), strict=True):
        stop = max(start, end - segment.base)  # a handler may have written over it
        payload = segment.payload[start:stop]
        start = stop
        yield _content(outcome, payload)  # type: ignore[arg-type]


def _content(outcome: int, payload: memoryview | Arrived) -> tuple[dict[Any, Any], int, ErrorData | None]:
    """Content, outcome and error of one job. What does not load here is a bad result."""
    try:
        kind = Outcome(outcome & KIND_BITS)
        if kind in _GIVEN_OUT or outcome & Outcome.GIVEN:
            value = load_result(outcome, payload)
            if kind is Outcome.CANCELLED:
                value["ERROR"] = CANCELLED
            return value, kind, None if kind is Outcome.OK else reported(value)
        error = load_error(outcome, payload)
    except KeyboardInterrupt:
        raise
    except BaseException as problem:
        kind = Outcome.BAD_RESULT
        text = f"BossWorkerAsync: the result could not be rebuilt here: {describe(problem)}"
        error = capture(problem, skip_frames=1, text=text)
    return {"ERROR": error.text}, kind, error
