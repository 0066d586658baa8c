"""``bossworker run``: a crew is fed with arguments until they are through."""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

from bossworker.cli.crews import TIMEOUT, Crew
from bossworker.cli.halting import NEVER, NOW, RunTally
from bossworker.cli.inputs import NOT_YET, Inputs
from bossworker.cli.interrupts import Interrupts
from bossworker.cli.outcomes import Ended, Planned
from bossworker.cli.planning import CommandPlanner, FunctionPlanner, LinePlanner
from bossworker.cli.progress_line import INTERVAL, ProgressLine
from bossworker.cli.replacements import Row
from bossworker.cli.run_options import RunOptions
from bossworker.cli.throttle import TICK, Throttle
from bossworker.system.signal_pipe import SignalPipe

LEAST_MEDIAN = 3  # jobs that must have ended well before a timeout in per cent has a meaning
_LEAST_TIMEOUT = 1.0  # seconds of a timeout in per cent: of short jobs, those that a busy machine holds up do not hang
_REST = 0.02  # seconds that we leave to the jobs, while enough of them are with the crew: many ends cost one look
_MANY = 2000  # rows that are left out, until we look whether somebody wants us to stop
_PACE = 0.2  # seconds: with a journal, no more is given to the crew ahead than ends in these
_LOOK = 0.05  # seconds between looks at jobs whose time may be up
_SETTLES = 1.0  # seconds until all that may be needed later is loaded: short runs do without


class Feed:
    """Rows, numbered; those of a joblog are left out."""

    def __init__(
        self, inputs: Inputs | Iterator[tuple[int, str]], leaves_out: Callable[[Row, str], bool] | None
    ) -> None:
        self.leaves_out = leaves_out
        self.inputs = inputs if isinstance(inputs, Inputs) else None
        self._rows = enumerate(inputs, 1) if isinstance(inputs, Inputs) else ((seq, (text,)) for seq, text in inputs)
        self._seq = 0
        self.exhausted = False
        self.skipped = 0
        self.has_more = False
        """Whether there may be a next one at once, though `next` has given none: so that signals are heard."""

    def next(self, text_of: Callable[[Row], str]) -> tuple[Row, str] | None:
        """The next row and its text. None: there is none, now or at all."""
        self.has_more = False
        for seq, args in self._rows:
            if args is NOT_YET:
                return None
            self._seq = self._seq + 1 if self.inputs is not None else seq
            row = Row(self._seq, args)
            text = text_of(row)
            if self.leaves_out is None or not self.leaves_out(row, text):
                return row, text
            self.skipped += 1
            if not self.skipped % _MANY:
                self.has_more = True
                return None
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
    """Keeps the crew busy until the feed is exhausted, or the run halts or is interrupted."""

    def __init__(
        self,
        options: RunOptions,
        crew: Crew,
        feed: Feed,
        planner: Planner,
        tally: RunTally,
        throttle: Throttle,
        progress: ProgressLine,
        on_end: Callable[[Ended], None],
        on_nothing: Callable[[Planned], None],
        on_rest: Callable[[], None],
        is_full: Callable[[], bool],
        register: Callable[[select.poll], None],
    ) -> None:
        """
        Args:
            on_end: Called with each job that has ended.
            on_nothing: Called with each that was cancelled: nothing is told of it.
            on_rest: Called when several may have ended, before others are waited for, and at last.
            is_full: Whether no more should be started for the time being.
            register: Adds what else is waited for, until `on_rest` is called.
        """
        self._options = options
        self._crew = crew
        self._feed = feed
        self._planner = planner
        self._tally = tally
        self._throttle = throttle
        self._progress = progress
        self._on_end = on_end
        self._on_nothing = on_nothing
        self._on_rest = on_rest
        self._is_full = is_full
        self._register = register
        self._settles_at: float | None = time.monotonic() + _SETTLES
        self._flight: set[int] = set()  # the places of what is with the crew
        self._rested = 0.0  # monotonic seconds
        self._again: deque[Planned] = deque()  # in the order in which they failed
        self._index = 0
        self._slots = options.slots
        self._free_slots = list(range(self._slots, 0, -1)) if planner.template.uses_slot else []
        self._percent = options.timeout[0] if options.timeout[1] else 0.0
        self._times: list[float] = []
        self._overdue: set[int] = set()  # places
        self._put_back: set[int] = set()
        self._stopping = False
        self._pause = 0.0
        strict = bool(self._throttle or self._percent or self._free_slots or tally.rule.when != NEVER)
        self._most = self._slots if strict else crew.ahead * self._slots + 4
        self._least = self._most - 1 if strict else self._most // 2
        self._paced = JournalPace(self._slots, self._most) if options.journal and not strict else None

    def run(self, interrupts: Interrupts) -> None:
        """Until the end. Stopped when it is interrupted a second time: then the crew is to be closed by force."""
        self._interrupts = interrupts
        while True:
            self._fill()
            self._on_rest()
            if not self._flight and not self._more_may_come():
                return
            self._await()
            if interrupts.count and not interrupts.known:
                interrupts.known = True
                self._stop()
            for plan, one in self._crew.receive() if self._flight else ():
                self._take(plan, one)
            self._look()

    def _more_may_come(self) -> bool:
        return not self._stopping and not (self._feed.exhausted and not self._again)

    # -- in ---------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        self._pause = 0.0
        if self._paced is not None:
            self._most, self._least = self._paced.limits()
        if self._stopping or len(self._flight) > self._least:
            return
        plans: list[Planned] = []
        full, throttled = self._is_full(), bool(self._throttle)
        while len(self._flight) + len(plans) < self._most:
            if throttled and (pause := self._throttle.pause(len(self._flight) + len(plans))):
                self._pause = pause
                break
            # What is tried again comes first, also when all is full: the others may be waiting for its output.
            plan = self._again.popleft() if self._again else None if full else self._next()
            if plan is None:
                break
            plans.append(plan)
        if plans:
            self._flight.update(plan.place for plan in plans)
            self._crew.add(plans)

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

    def _await(self) -> None:
        """Until something may have ended; or a while, or until there is a new row, or a signal has come."""
        hungry = len(self._flight) <= self._least and not self._stopping and not self._is_full()
        rows = self._feed.waits_for if hungry and not self._pause else -1
        seconds = self._seconds()
        if not self._flight and rows < 0:
            seconds = min(self._pause or TICK, TICK)
        if hungry and self._feed.has_more:
            seconds = 0.0
        fd = self._crew.fileno() if self._flight else -1
        rest = 0.0 if hungry else min(_REST, self._rested + _REST - time.monotonic())
        self._interrupts.wait(lambda: self._sleep(fd, rows, seconds, rest))
        self._rested = time.monotonic()

    def _sleep(self, fd: int, rows: int, seconds: float | None, rest: float) -> None:
        if rest > 0:
            time.sleep(rest)
        await_either(fd, rows, seconds, self._register, self._interrupts.pipe)

    def _seconds(self) -> float | None:
        """How long nothing else is to be looked at."""
        ticks = [self._pause] if self._pause else []
        if self._settles_at is not None:
            ticks.append(max(0.0, self._settles_at - time.monotonic()))
        if self._progress.shown:
            ticks.append(INTERVAL)
        if self._percent or self._throttle.memfree:
            ticks.append(_LOOK)
        if self._stopping:
            ticks.append(TICK)
        return min(ticks) if ticks else None

    def _take(self, plan: Planned, one: Ended | None) -> None:
        self._flight.discard(plan.place)
        self._overdue.discard(plan.place)
        if plan.row.slot:
            self._free_slots.append(plan.row.slot)
        if one is None:
            self._cancelled(plan)
            return
        if self._paced is not None:
            self._paced.count += 1
        self._put_back.discard(plan.place)
        if not one.ok and not self._stopping and self._may_try_again(plan):
            self._again.append(self._once_more(plan, plan.tries + 1))
            return
        if one.ok and self._percent:
            self._times.append(one.seconds)
        self._on_end(one)
        if self._tally.add(one.ok, one.exit_status):
            self._halt()

    def _cancelled(self, plan: Planned) -> None:
        if plan.place in self._put_back and not self._stopping:
            self._put_back.discard(plan.place)
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
        if self._settles_at is not None and time.monotonic() >= self._settles_at:
            self._settle()
        if self._percent and len(self._times) >= LEAST_MEDIAN:
            self._end_overdue(max(_LEAST_TIMEOUT, median(self._times) * self._percent / 100))
        if len(self._flight) > 1 and self._throttle.memory_is_short:
            self._put_back_youngest()

    def _settle(self) -> None:
        """This is no short run, which would do without."""
        self._settles_at = None
        with suppress(Exception):  # the package is being replaced just now
            from bossworker.cli import run_later

            run_later.load()

    def _end_overdue(self, limit: float) -> None:
        late = [plan for plan, seconds in self._crew.running() if seconds > limit and plan.place not in self._overdue]
        if late:
            self._overdue.update(plan.place for plan in late)
            self._crew.cancel([plan.place for plan in late], TIMEOUT)

    def _put_back_youngest(self) -> None:
        running = [(seconds, plan.place) for plan, seconds in self._crew.running() if plan.place not in self._put_back]
        if len(running) > 1:
            _, youngest = min(running)
            self._put_back.add(youngest)
            self._crew.cancel([youngest])

    # -- the end ----------------------------------------------------------------------------------------

    def _halt(self) -> None:
        self._stopping = True
        self._crew.cancel(self._flight, queued_only=self._tally.rule.when != NOW)

    def _stop(self) -> None:
        self._stopping = True
        self._progress.clear()
        self._crew.cancel(self._flight)


class JournalPace:
    """How many commands may be with the crew, if each of them may have run as far as a journal can tell.

    After a power failure, that is so. Long ones do not wait there for others; of short ones, some must.
    """

    def __init__(self, slots: int, most: int) -> None:
        self._slots = slots
        self._most = most
        self._ahead = 0.0
        self._since = time.monotonic()
        self.count = 0
        """Of those that have ended."""

    def limits(self) -> tuple[int, int]:
        """How many at most, and at how many more are added."""
        now = time.monotonic()
        if now - self._since >= _PACE:
            self._ahead, self.count, self._since = self.count * _PACE / (now - self._since), 0, now
        most = min(self._most, self._slots + int(self._ahead))
        return most, most - 1 if most < 2 * self._slots else most // 2


def await_either(
    results: int,
    rows: int,
    seconds: float | None = None,
    register: Callable[[select.poll], None] | None = None,
    signals: SignalPipe | None = None,
) -> None:
    """Until a descriptor can be read, or one of those that `register` adds is ready; one that is -1 is none.

    Args:
        signals: Ends it, too.
    """
    poll = select.poll()
    if register is not None:
        register(poll)
    if signals is not None:
        signals.drain()  # what came until now has been heard
        poll.register(signals, select.POLLIN)
    for fd in (results, rows):
        if fd >= 0:
            poll.register(fd, select.POLLIN)
    poll.poll(None if seconds is None else 1000 * seconds)


def median(values: list[float]) -> float:
    """As that of `statistics`, which takes ten milliseconds to load."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
