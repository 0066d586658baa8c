"""The host: a process that starts commands, a number of them at once, and sees them through.

It waits for nothing but its poll: for the run that it works for, for the ends of commands, for what is due. Whatever
takes long is done a step at a time. So it keeps to limits whoever else is busy.

When the run is gone, in whatever way, it ends all that the commands have started, and itself.
"""

from __future__ import annotations

import os
import select
import time
from heapq import heappop, heappush

from bossworker.commands.hosting import hosting_wire
from bossworker.commands.hosting.cells import Cells
from bossworker.commands.hosting.hosted import Hosted
from bossworker.commands.hosting.hosting_wire import LINES, MEMORY, TIMEOUT, EndRecord, HostedJob, HostSettings
from bossworker.commands.hosting.relaying import LineRelay, RelayTurns
from bossworker.commands.hosting.remainder import Remainder, reap_all
from bossworker.commands.hosting.run_link import RunLink
from bossworker.commands.hosting.single_spawning import FIRST_LOOK, FOREVER
from bossworker.commands.hosting.threaded_spawning import make_spawning
from bossworker.commands.quota import TICK
from bossworker.system.descendants import Ending

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GRACE = 0.5  # seconds between TERM and KILL
LONGEST_LOOK = 60.0  # seconds between looks at one that has no limits: each after four times as long
_SETTLES = 0.1  # seconds until we have a title, and all that may be needed later: short runs do without
_UNWATCHED = 0.01  # seconds between looks whether one has ended, where there are no descriptors of processes

LOOK, END, STEP, FINISH = range(4)
"""What may be due: a look at a command, its time is up, another step of its ending, the rest of its output."""


class Host:
    """That process, from where it has been forked."""

    def __init__(self, link: int, settings: HostSettings, cells: Cells) -> None:
        """
        Args:
            link: A descriptor: the run's end of it is what we live for.
        """
        if settings.nice:
            os.nice(settings.nice)
        self._cells = cells
        self._settings = settings
        self._poll = select.poll()
        self._link = RunLink(link, self._poll)
        self._spawning = make_spawning(settings, cells, self._link, self._poll)
        self._running: dict[int, Hosted] = {}  # by pid
        self._watched: dict[int, Hosted] = {}  # by the descriptor that tells of its end
        self._due: list[tuple[float, int, int, Hosted, float]] = []
        self._number = 0
        self._left = self._force = False
        self._turns = RelayTurns()
        self._remainder = Remainder()

    def run(self, title: str) -> None:
        """Until the run hangs up. `title`: of this process, once it has lived for a while."""
        until = time.monotonic() + _SETTLES
        while self._link.is_open and time.monotonic() < until:
            self._turn(until)
        if self._link.is_open:
            self._settle(title)
        while self._link.is_open:
            self._turn()
        self._end_all()

    def _settle(self, title: str) -> None:
        """This is no short run, which would do without: what is loaded here takes as long as a tenth of one."""
        try:
            from bossworker.commands.hosting import later_modules

            later_modules.load(later_modules.OF_HOST)
            from bossworker.system.titles import set_title
        except Exception:  # the package is being replaced just now: commands can be seen through all the same
            return
        set_title("bossworker host", title)

    def _turn(self, until: float = FOREVER) -> None:
        """Start what may run, wait until something happens or is due, and see to that."""
        self._start()
        for fd, events in self._poll.poll(self._pause(until)):
            if fd == self._link.fd:
                self._on_link(events)
            elif one := self._watched.get(fd):
                self._on_end(one)
        if self._link.is_open:
            self._do_what_is_due()

    # -- the run ----------------------------------------------------------------------------------------

    def _on_link(self, events: int) -> None:
        for kind, *told in self._link.receive(events):
            if kind == hosting_wire.JOBS:
                self._spawning.add(list(map(HostedJob._make, told[0])))
            elif kind == hosting_wire.CANCEL:
                self._cancel(*told)
            else:
                self._left, (self._force,) = True, told

    def _cancel(self, ids: list[int], kind: str, queued_only: bool) -> None:
        doomed = set(ids)
        for job_id in self._spawning.withdraw(doomed):
            self._link.records.append(tuple(EndRecord(job_id, kind, "", None, None, 0.0, time.time())))
        if not queued_only:
            for one in self._spawning.running():
                self._see_to(one)
            for one in [one for one in self._running.values() if one.job.id in doomed]:
                self._stop(one, kind, "stopped by the run")

    # -- starts -----------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start what may run; and send what is to be told, in one message with what begins."""
        self._link.send()
        for one in self._spawning.go_on():
            self._see_to(one)
        if not self._link.is_jammed:  # if all that waits went out here, nothing would bring us back to start more
            self._link.tell()

    def _see_to(self, one: Hosted) -> None:
        """While it runs: hear of its end, and look at it now and again."""
        if not one.pid or one.exit is not None:
            self._finish(one)
            return
        self._running[one.pid] = one
        one.fd = _pidfd(one.pid)
        if one.fd >= 0:
            self._watched[one.fd] = one
            self._poll.register(one.fd, select.POLLIN)
        if self._settings.how == LINES:
            one.relay = LineRelay(one.capture.streams, os.fsencode(one.job.tag), self._turns)
        self._later(self._until_look(one, FIRST_LOOK), LOOK, one, one.started)
        if self._settings.timeout:
            self._later(self._settings.timeout, END, one, one.started)

    def _until_look(self, one: Hosted, seconds: float) -> float:
        """Seconds until the next look at it; as many as these if there is nothing special about it."""
        if self._settings.memory or one.relay is not None:
            return TICK
        return _UNWATCHED if one.fd < 0 else min(seconds, LONGEST_LOOK)

    # -- what is due ------------------------------------------------------------------------------------

    def _later(self, seconds: float, what: int, one: Hosted, since: float = 0.0) -> None:
        self._number += 1
        heappush(self._due, ((since or time.monotonic()) + seconds, self._number, what, one, seconds))

    def _pause(self, until: float) -> float | None:
        """Milliseconds until something is due, or it is `until`."""
        due = self._due
        while due and due[0][3].gone:
            heappop(due)
        at = min(due[0][0] if due else FOREVER, self._spawning.next_look, until)
        return 1000 * max(0.0, at - time.monotonic()) if at < FOREVER else None

    def _do_what_is_due(self) -> None:
        due, now = self._due, time.monotonic()
        while due and due[0][0] <= now:
            _, _, what, one, seconds = heappop(due)
            if not one.gone:
                self._do(what, one, seconds)

    def _do(self, what: int, one: Hosted, seconds: float) -> None:
        if what == LOOK:
            self._look(one, seconds)
        elif what == END:
            self._stop(one, TIMEOUT, f"timed out after {self._settings.timeout:g} seconds")
        elif what == STEP:
            self._step(one)
        else:
            self._finish(one)

    def _look(self, one: Hosted, seconds: float) -> None:
        if one.fd < 0 and one.ending is None and one.has_ended():
            self._on_end(one)
            return
        if one.exit is not None:
            return
        if one.relay is not None:
            self._pass_on(one)
        if one.executes:
            one.look(seconds)
            self._check_memory(one)
        self._later(self._until_look(one, 4 * seconds), LOOK, one)

    def _check_memory(self, one: Hosted) -> None:
        from bossworker.system import memory

        limit = self._settings.memory
        if limit and one.ending is None and (held := memory.excess(self._members(one), limit)):
            self._stop(one, MEMORY, memory.describe_excess(held, limit))

    def _pass_on(self, one: Hosted, at_last: bool = False) -> bool:
        assert one.relay is not None
        try:
            return one.relay.pass_on(at_last)
        except OSError as error:  # nobody reads any more, or the disk is full: that ends the run
            self._link.records.append((None, error.errno))
            return True

    # -- ends -------------------------------------------------------------------------------------------

    def _on_end(self, one: Hosted) -> None:
        """It may have ended."""
        if one.has_ended():
            self._unwatch(one)
            if one.ending is None:
                self._finish(one)

    def _unwatch(self, one: Hosted) -> None:
        if one.fd >= 0:
            self._poll.unregister(one.fd)
            del self._watched[one.fd]
            os.close(one.fd)
            one.fd = -1

    def _stop(self, one: Hosted, kind: str, reason: str) -> None:
        """End all that it has started, unless it has just ended by itself."""
        if one.ending is None and not one.has_ended():
            one.kind, one.reason = kind, reason
            one.ending = Ending(GRACE, one.pid, lambda: self._members(one))
            self._step(one)

    def _step(self, one: Hosted) -> None:
        assert one.ending is not None
        if one.has_ended():
            self._unwatch(one)
            self._family(one).reap_group()
        self._family(one).reap()
        pause = one.ending.step()
        if pause is None or one.ending.hopeless:
            one.hopeless = one.ending.hopeless
            self._unwatch(one)
            self._finish(one)
        else:
            self._later(pause, STEP, one)

    def _family(self, one: Hosted) -> Any:
        if one.family is None:
            from bossworker.commands.inline.family import Family, adoption

            if not adoption.was_there:  # as from now on: orphans come to us for good
                adoption.__enter__()
            one.family = Family(one.jobid, in_pool=False, pid=one.pid, others=self._running.keys() - {one.pid})
        return one.family

    def _members(self, one: Hosted) -> list[int]:
        return list(self._family(one).members())

    def _finish(self, one: Hosted) -> None:
        """Make its record, and its slot free."""
        if one.relay is not None and not self._pass_on(one, at_last=True):
            self._later(TICK, FINISH, one)  # whoever reads is slow
            return
        one.gone = True
        one.ending = None  # which knows of it, and would keep it
        self._running.pop(one.pid, None)
        record = one.record(self._settings)
        if one.exit is not None and not one.kind:
            self._cells.ended(one.job.cell, one.exit[0], one.wrote, one.exit[2])
        self._link.records.append(tuple(record))
        self._spawning.over(one, bool(one.pid) and self._remainder.is_left_by(one.pid, self._running))

    def _end_all(self) -> None:
        """And what the run itself would have tidied up."""
        self._spawning.close()
        ending = Ending(0.0 if self._force else GRACE)
        while True:
            reap_all()
            pause = ending.step()
            if pause is None or ending.hopeless:
                break
            time.sleep(pause)
        if not self._left and os.path.isdir(self._settings.folder):
            from bossworker.system import folders

            folders.remove(self._settings.folder)


def _pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # not Linux, or no descriptor is left
        return -1


def become_host(link: int, settings: HostSettings, title: str, cells: Cells) -> None:
    """The main of a process that was forked from a run, and has prepared for it (``preparing.py``)."""
    Host(link, settings, cells).run(title)
