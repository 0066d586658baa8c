"""``bossworker run``: a pool of commands, or of a handler in Python, is fed with arguments until they are through."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator

from bossworker import BossWorker, Result
from bossworker.cli.halting import NEVER, NOW, RunTally
from bossworker.cli.inputs import NOT_YET, Inputs
from bossworker.cli.interrupts import Interrupts
from bossworker.cli.joblog import Finished
from bossworker.cli.outcomes import Ended, Planned, ended
from bossworker.cli.planning import CommandPlanner, FunctionPlanner, LinePlanner
from bossworker.cli.progress_line import INTERVAL, ProgressLine
from bossworker.cli.replacements import Row
from bossworker.cli.run_arguments import RunOptions
from bossworker.cli.throttle import TICK, Throttle
from bossworker.errors import NothingPending

LEAST_MEDIAN = 3  # jobs that must have ended well before a timeout in per cent has a meaning
_COMMANDS_AHEAD, _FUNCTIONS_AHEAD = 4, 256  # jobs a slot that are with the pool; a function may take microseconds
_LOOK = 0.05  # seconds between looks at jobs whose time may be up


class Feed:
    """Rows, numbered; those of a joblog are left out."""

    def __init__(self, inputs: Inputs | Iterator[tuple[int, str]], done: Finished | None) -> None:
        self.inputs = inputs if isinstance(inputs, Inputs) else None
        self._rows = enumerate(inputs, 1) if isinstance(inputs, Inputs) else ((seq, (text,)) for seq, text in inputs)
        self._done = done
        self._seq = 0
        self.exhausted = False
        self.skipped = 0

    def next(self, text_of: Callable[[Row], str]) -> tuple[Row, str] | None:
        """The next row and its text. None: there is none, now or at all."""
        for seq, args in self._rows:
            if args is NOT_YET:
                return None
            self._seq = self._seq + 1 if self.inputs is not None else seq
            row = Row(self._seq, args)
            text = text_of(row)
            if self._done is None or not self._done.takes(text):
                return row, text
            self.skipped += 1
        self.exhausted = True
        return None

    def close(self) -> None:
        """Give up what is read lazily."""
        if self.inputs is not None:
            self.inputs.close()

    @property
    def waits_for(self) -> int:
        """The descriptor that the next row is to come from, if it is not there yet; else -1."""
        return -1 if self.inputs is None or self.exhausted else self.inputs.waits_for


Planner = CommandPlanner | FunctionPlanner | LinePlanner


class Runner:
    """Keeps the pool busy until the feed is exhausted, or the run halts or is interrupted."""

    def __init__(
        self,
        options: RunOptions,
        pool: BossWorker,
        feed: Feed,
        planner: Planner,
        tally: RunTally,
        throttle: Throttle,
        progress: ProgressLine,
        on_end: Callable[[Ended], None],
        on_nothing: Callable[[Planned], None],
        is_full: Callable[[], bool],
    ) -> None:
        """
        Args:
            on_end: Called with each job that has ended.
            on_nothing: Called with each that was cancelled: nothing is told of it.
            is_full: Whether no more should be started for the time being.
        """
        self._options = options
        self._pool = pool
        self._feed = feed
        self._planner = planner
        self._tally = tally
        self._throttle = throttle
        self._progress = progress
        self._on_end = on_end
        self._on_nothing = on_nothing
        self._is_full = is_full
        self._flight: dict[int, Planned] = {}
        self._again: list[Planned] = []
        self._index = 0
        self._slots = options.slots
        self._free_slots = list(range(self._slots, 0, -1)) if planner.template.uses_slot else []
        self._percent = options.timeout[0] if options.timeout[1] else 0.0
        self._times: list[float] = []
        self._overdue: set[int] = set()
        self._put_back: set[int] = set()
        self._stopping = False
        self._pause = 0.0
        strict = bool(self._throttle or self._percent or self._free_slots or tally.rule.when != NEVER)
        ahead = _FUNCTIONS_AHEAD if isinstance(planner, FunctionPlanner) else _COMMANDS_AHEAD
        self._most = self._slots if strict else ahead * self._slots + 4
        self._least = self._most - 1 if strict else self._most // 2

    def run(self, interrupts: Interrupts, workers: int) -> None:
        """Until the end. Stopped when it is interrupted a second time: then the pool is to be shut down by force.

        Args:
            workers: How many there shall be, if more than there are; started as the first jobs run. 0: no more.
        """
        self._interrupts = interrupts
        self._fill()
        if workers:
            self._pool.resize(workers)
        while True:
            self._fill()
            if not self._flight and not self._more_may_come():
                return
            result = self._await()
            if interrupts.count and not interrupts.known:
                interrupts.known = True
                self._stop()
            if result is not None:
                self._take(result)
            elif self._stopping and not self._pool.pending():
                return
            self._look()

    def _more_may_come(self) -> bool:
        return not self._stopping and not (self._feed.exhausted and not self._again)

    # -- in ---------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        self._pause = 0.0
        if self._stopping or len(self._flight) > self._least:
            return
        plans: list[Planned] = []
        while len(self._flight) + len(plans) < self._most:
            if self._throttle and (pause := self._throttle.pause(len(self._flight) + len(plans))):
                self._pause = pause
                break
            # What is tried again comes first, also when all is full: the others may be waiting for its output.
            plan = self._again.pop() if self._again else None if self._is_full() else self._next()
            if plan is None:
                break
            plans.append(plan)
        if plans:
            self._flight.update(zip(self._pool.add_work(*(plan.job for plan in plans)), plans, strict=True))

    def _next(self) -> Planned | None:
        found = self._feed.next(self._planner.text) if not self._free_slots else self._next_with_slot()
        if found is None:
            return None
        row, text = found
        self._index += 1
        return self._planner.plan(row, text, self._index - 1)

    def _next_with_slot(self) -> tuple[Row, str] | None:
        slot = self._free_slots[-1]
        found = self._feed.next(lambda row: self._planner.text(row._replace(slot=slot)))
        if found is None:
            return None
        return found[0]._replace(slot=self._free_slots.pop()), found[1]

    # -- out --------------------------------------------------------------------------------------------

    def _await(self) -> Result | None:
        """The next result; None after a while, or when there is a new row, or a signal has come."""
        seconds = self._seconds()
        hungry = len(self._flight) <= self._least and not self._stopping and not self._is_full()
        waits_for = self._feed.waits_for if hungry else -1
        if waits_for >= 0:
            results = self._pool.fileno() if self._flight else -1
            self._interrupts.wait(lambda: await_either(results, waits_for, seconds))
            return self._pool.get_result_nb() if self._flight else None
        if not self._flight:
            self._interrupts.wait(lambda: time.sleep(min(self._pause or TICK, TICK)))
            return None
        try:
            return self._interrupts.wait(lambda: self._pool.get_result(timeout=seconds))
        except NothingPending:
            return None

    def _seconds(self) -> float | None:
        """How long nothing else is to be looked at."""
        ticks = [self._pause] if self._pause else []
        if self._progress.shown:
            ticks.append(INTERVAL)
        if self._percent or self._throttle.memfree:
            ticks.append(_LOOK)
        if self._stopping:
            ticks.append(TICK)
        return min(ticks) if ticks else None

    def _take(self, result: Result) -> None:
        plan = self._flight.pop(result.job_id)
        if plan.row.slot:
            self._free_slots.append(plan.row.slot)
        timed_out = result.job_id in self._overdue and result.error_kind == "cancelled"
        self._overdue.discard(result.job_id)
        if result.error_kind == "cancelled" and not timed_out:
            self._cancelled(result.job_id, plan)
            return
        one = ended(plan, result, timed_out=timed_out, of_function=isinstance(self._planner, FunctionPlanner))
        if not one.ok and not self._stopping and self._may_try_again(plan):
            self._again.append(self._once_more(plan, plan.tries + 1))
            return
        if one.ok and self._percent:
            self._times.append(one.seconds)
        self._on_end(one)
        if self._tally.add(one.ok, one.exit_status):
            self._halt()

    def _cancelled(self, job_id: int, plan: Planned) -> None:
        if job_id in self._put_back and not self._stopping:
            self._put_back.discard(job_id)
            self._again.append(self._once_more(plan, plan.tries))
        else:
            self._on_nothing(plan)

    def _may_try_again(self, plan: Planned) -> bool:
        return not self._options.retries or plan.tries < self._options.retries

    def _once_more(self, plan: Planned, tries: int) -> Planned:
        """The same job, in whichever slot is free by now."""
        if plan.row.slot:
            row = plan.row._replace(slot=self._free_slots.pop())
            plan = self._planner.plan(row, self._planner.text(row), plan.place)
        return plan._replace(tries=tries)

    # -- looks --------------------------------------------------------------------------------------------

    def _look(self) -> None:
        self._progress.draw()
        if self._percent and len(self._times) >= LEAST_MEDIAN:
            self._end_overdue(median(self._times) * self._percent / 100)
        if len(self._flight) > 1 and self._throttle.memory_is_short:
            self._put_back_youngest()

    def _running(self) -> dict[int, float]:
        """The jobs that run, and for how many seconds."""
        return {
            one.job_id: one.seconds
            for one in self._pool.stats().workers
            if one.job_id is not None and one.job_id in self._flight
        }

    def _end_overdue(self, limit: float) -> None:
        late = {job_id for job_id, seconds in self._running().items() if seconds > limit} - self._overdue
        if late:
            self._overdue |= late
            self._pool.cancel(*late)

    def _put_back_youngest(self) -> None:
        running = {job_id: seconds for job_id, seconds in self._running().items() if job_id not in self._put_back}
        if len(running) > 1:
            youngest = min(running, key=lambda job_id: running[job_id])
            self._put_back.add(youngest)
            self._pool.cancel(youngest)

    # -- the end ----------------------------------------------------------------------------------------

    def _halt(self) -> None:
        self._stopping = True
        self._pool.cancel(*self._flight, queued_only=self._tally.rule.when != NOW)

    def _stop(self) -> None:
        self._stopping = True
        self._progress.clear()
        self._pool.cancel(*self._flight)


def await_either(results: int, rows: int, seconds: float | None = None) -> None:
    """Until a descriptor can be read; one that is -1 is none."""
    poll = select.poll()
    for fd in (results, rows):
        if fd >= 0:
            poll.register(fd, select.POLLIN)
    poll.poll(None if seconds is None else 1000 * seconds)


def median(values: list[float]) -> float:
    """As that of `statistics`, which takes ten milliseconds to load."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
