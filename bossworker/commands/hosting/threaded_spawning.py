"""How a host starts its commands where there is a core: by spawners, threads that need no Python between two.

Of what ends within milliseconds, well, and without a word, the host only hears, of several at a time. It sees to all
others: to those that have ended otherwise, and from the first look on to those that run longer.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque

from bossworker.commands import jobdir
from bossworker.commands.hosting.capture import Capture, make_capture
from bossworker.commands.hosting.hosted import Hosted, own_variables
from bossworker.commands.hosting.hosting_wire import GROUP, HostedJob, HostSettings
from bossworker.commands.hosting.remainder import open_children
from bossworker.commands.hosting.single_spawning import (
    FIRST_LOOK,
    FOREVER,
    CommandEnvironment,
    SingleSpawning,
    Spawning,
)
from bossworker.system.compiled import core
from bossworker.system.starter import StartedProgram

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from typing import Any

    from bossworker.commands.hosting.cells import Cells
    from bossworker.commands.hosting.run_link import RunLink

_LOW = 4  # commands a slot: with fewer that wait, we are woken by each end, and the run gives us more
_WELL = 3  # items of what is told of those that have ended well: their records


def make_spawning(settings: HostSettings, cells: Cells, link: RunLink, poll: select.poll) -> Spawning:
    """By spawners, if that works here, and nothing is to be passed on while commands run."""
    environment = CommandEnvironment(settings)
    if environment.starter.is_compiled and settings.how == GROUP and (children := open_children()) >= 0:
        event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        poll.register(event, select.POLLIN)
        try:
            spawners = core.Spawners(cells.words, settings.slots, _LOW * settings.slots, event, children)
        except OSError:  # there can be no thread
            poll.unregister(event)
        else:
            return ThreadedSpawning(settings, spawners, link, environment)
    return SingleSpawning(settings, cells, link, environment)


class ThreadedSpawning:
    """All the commands that spawners have, or are to have."""

    def __init__(self, settings: HostSettings, spawners: Any, link: RunLink, environment: CommandEnvironment) -> None:
        """
        Args:
            spawners: As the core makes them.
        """
        self._spawners = spawners
        self._link = link
        self._environment = environment
        self._jobs: dict[int, tuple[HostedJob, str]] = {}  # and their ids as jobs, by their ids
        self._bad: deque[tuple[HostedJob, str, Exception]] = deque()  # that cannot be started
        self._captures: dict[int, Capture] = {}  # by the descriptors of their stdout
        self._slots = settings.slots
        self._seen_to = 0  # by the host, with their files
        self._taken_over: set[int] = set()  # pids of those that ran then
        self._age = min(FIRST_LOOK, settings.timeout or FIRST_LOOK)
        self._oldest = 0.0
        self._holds = False

    def add(self, jobs: Sequence[HostedJob]) -> None:
        self._lend(len(jobs))  # at once, so that the first begins while we lay out the others
        for job in jobs:
            jobid = jobdir.new_id()
            try:
                self._spawners.add(job.id, job.cell, self._describe(job, jobid))
            except Exception as error:  # whatever it is, it costs this command, and no other
                self._bad.append((job, jobid, error))
            else:
                self._jobs[job.id] = job, jobid

    def withdraw(self, ids: Collection[int]) -> list[int]:
        found: list[int] = self._spawners.withdraw(ids)
        for job_id in found:
            del self._jobs[job_id]
        bad = [one for one in self._bad if one[0].id in ids]
        for one in bad:
            self._bad.remove(one)
        return found + [job.id for job, *_ in bad]

    def go_on(self) -> Iterator[Hosted]:
        self._hold(self._link.is_jammed)
        begun, ended, self._oldest = self._spawners.collect()
        self._link.records += begun
        for one in ended:
            if len(one) == _WELL:
                del self._jobs[one[0]]
                self._link.records.append(one)
            else:
                yield self._handed_in(*one)
        yield from self._refused()
        if self.next_look <= (now := time.monotonic()):
            yield from self._take_over(now - self._age)

    def running(self) -> Iterator[Hosted]:
        self._spawners.hold(True)  # so that none is about to begin
        yield from self._take_over(FOREVER)
        self._spawners.hold(False)

    @property
    def next_look(self) -> float:
        return self._oldest + self._age if self._oldest else FOREVER

    def over(self, one: Hosted, leaves: bool) -> None:
        if one.pid:
            self._taken_over.discard(one.pid)
            self._spawners.release(one.exit is None)
        lent = self._captures.pop(one.capture.streams[0], None)
        self._seen_to -= lent is not None
        if leaves or lent is None:
            one.capture.close()
        else:
            self._give(one.capture)
        self._lend(0)

    def close(self) -> None:
        self._spawners.hold(True)

    def _describe(self, job: HostedJob, jobid: str) -> tuple[object, ...]:
        environment = self._environment
        files = environment.files_of(job.argv[0])
        stdio = environment.null, -1, -1  # where it writes is decided when it begins
        return environment.starter.describe(job.argv, files, job.cwd, own_variables(job, jobid), stdio)

    def _hold(self, holds: bool) -> None:
        if holds != self._holds:
            self._holds = holds
            self._spawners.hold(holds)

    def _refused(self) -> Iterator[Hosted]:
        while self._bad:
            try:
                capture = Capture()
            except OSError:
                if not (self._jobs or self._seen_to):
                    raise
                return  # once others have ended, there are descriptors
            job, jobid, error = self._bad.popleft()
            one = Hosted(job, jobid, capture)
            one.could_not_start(error)
            yield one

    def _lend(self, coming: int) -> None:
        """As many pairs of files as commands can use. Where descriptors are short, as many as there are."""
        while len(self._captures) < min(self._slots, self._seen_to + len(self._jobs) + coming):
            try:
                capture = make_capture(len(self._captures) + 1 - len(self._taken_over))
            except OSError:
                if not self._captures:
                    raise
                return
            self._give(capture)

    def _give(self, capture: Capture) -> None:
        self._captures[capture.streams[0]] = capture
        self._spawners.lend(*capture.streams)

    def _take_over(self, started: float) -> Iterator[Hosted]:
        for told in self._spawners.take_over(started):
            one = self._found(*told)
            self._taken_over.add(one.pid)
            yield one

    def _handed_in(self, job_id: int, pid: int, error: int, *told: Any) -> Hosted:
        one = self._found(job_id, pid, error, *told)
        if error:
            one.could_not_start(OSError(error, os.strerror(error)))
        else:
            one.has_ended()
        return one

    def _found(
        self, job_id: int, pid: int, error: int, started_at: float, started: float, out: int, begun: object
    ) -> Hosted:
        one = Hosted(*self._jobs.pop(job_id), self._captures[out])
        self._seen_to += 1
        one.was_started(StartedProgram(0 if error else pid, begun), started_at, started)
        return one
