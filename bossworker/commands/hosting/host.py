"""The host: a process that starts commands, a number of them at once, and sees them through.

It waits for nothing but its poll: for the run that it works for, for the ends of commands, for what is due. Whatever
takes long is done a step at a time. So it keeps to limits whoever else is busy.

When the run is gone, in whatever way, it ends all that the commands have started, and itself.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from heapq import heappop, heappush

from bossworker.commands import jobdir
from bossworker.commands.hosting import hosting_wire
from bossworker.commands.hosting.capture import Capture, make_capture, own_stream
from bossworker.commands.hosting.cells import Cells
from bossworker.commands.hosting.hosted import Hosted
from bossworker.commands.hosting.hosting_wire import (
    DIRECT,
    EXCEPTION,
    LINES,
    MEMORY,
    TIMEOUT,
    EndRecord,
    HostedJob,
    HostSettings,
    Unpacker,
)
from bossworker.commands.hosting.relaying import LineRelay, RelayTurns
from bossworker.commands.hosting.remainder import Remainder, reap_all
from bossworker.commands.quota import TICK
from bossworker.system import cpython, program
from bossworker.system.descendants import Ending
from bossworker.system.records import Any
from bossworker.system.starter import Starter
from bossworker.system.titles import set_title

GRACE = 0.5  # seconds between TERM and KILL
FIRST_LOOK, LONGEST_LOOK = 0.005, 60.0  # seconds between looks at one that has no limits: each after four times as long
_UNWATCHED = 0.01  # seconds between looks whether one has ended, where there are no descriptors of processes
_CHUNK = 1 << 16
_MOST_KNOWN = 64  # programs
_OF_ONE_COMMAND = (b"BOSSWORKER_JOB", b"PARALLEL_SEQ", b"PARALLEL_JOBSLOT")

LOOK, END, STEP, FINISH = range(4)
"""What may be due: a look at a command, its time is up, another step of its ending, the rest of its output."""


class Host:
    """That process, from where it has been forked."""

    def __init__(self, link: int, settings: HostSettings, cells: Cells) -> None:
        """
        Args:
            link: A descriptor: the run's end of it is what we live for.
        """
        self._link = link
        self._cells = cells
        self._settings = settings
        self._mail = Unpacker()
        self._records: list[tuple[Any, ...]] = []
        self._unsent = b""
        self._queue: deque[HostedJob] = deque()
        self._free = settings.slots
        self._captures: list[Capture] = []
        self._running: dict[int, Hosted] = {}  # by pid
        self._watched: dict[int, Hosted] = {}  # by the descriptor that tells of its end
        self._due: list[tuple[float, int, int, Hosted, float]] = []
        self._number = 0
        self._left = self._force = False
        self._turns = RelayTurns()
        self._null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._ours = (own_stream(1), own_stream(2)) if settings.how == DIRECT else None
        self._remainder = Remainder()
        variables = {**cpython.environment(), **{os.fsencode(one): os.fsencode(v) for one, v in settings.env.items()}}
        self._path = variables.get(b"PATH", os.defpath.encode())
        self._starter = Starter([b"%b=%b" % item for item in variables.items() if item[0] not in _OF_ONE_COMMAND])
        self._files: dict[str, list[bytes]] = {}
        self._poll = select.poll()
        self._poll.register(link, select.POLLIN)
        os.set_blocking(link, False)

    def run(self) -> None:
        """Until the run hangs up."""
        if self._settings.nice:
            os.nice(self._settings.nice)
        while True:
            self._start()
            for fd, events in self._poll.poll(self._pause()):
                if fd != self._link:
                    self._on_end(self._watched[fd])
                elif not self._on_link(events):
                    self._end_all()
                    return
            self._do_what_is_due()

    # -- the run ----------------------------------------------------------------------------------------

    def _on_link(self, events: int) -> bool:
        """False: the run has hung up."""
        if events & select.POLLOUT:
            self._send()
        if not events & ~select.POLLOUT:
            return True
        try:
            data = os.read(self._link, _CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        for kind, *told in self._mail.feed(data):
            if kind == hosting_wire.JOBS:
                self._queue.extend(map(HostedJob._make, told[0]))
            elif kind == hosting_wire.CANCEL:
                self._cancel(*told)
            else:
                self._left, (self._force,) = True, told
        return bool(data)

    def _tell(self) -> None:
        """Send what is to be told."""
        if self._records:
            self._unsent += hosting_wire.pack(self._records)
            self._records = []
            self._send()

    def _send(self) -> None:
        waited = bool(self._unsent)
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self._link, self._unsent) :]
        except BlockingIOError:
            self._poll.register(self._link, select.POLLIN | select.POLLOUT)
            return
        except OSError:  # it is gone; the poll says so
            self._unsent = b""
        if waited:
            self._poll.register(self._link, select.POLLIN)

    def _cancel(self, ids: list[int], kind: str, queued_only: bool) -> None:
        doomed = set(ids)
        for job in [one for one in self._queue if one.id in doomed]:
            self._queue.remove(job)
            self._records.append(tuple(EndRecord(job.id, kind, "", None, None, 0.0, time.time())))
        if not queued_only:
            for one in [one for one in self._running.values() if one.job.id in doomed]:
                self._stop(one, kind, "stopped by the run")

    # -- starts -----------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start what may run; and send what is to be told, in one message with what begins."""
        self._send()
        while not self._unsent and (starting := self._take_from_queue()):
            self._tell()
            if self._unsent:
                # The run has not heard of them yet: if we died now, it would have them run a second time.
                self._queue.extendleft(reversed(starting))
                return
            for job in starting:
                self._begin(job)  # which may have ended at once, if it cannot be run
        if not self._unsent:  # if all that waits went out here, the poll would not bring us back to start what may run
            self._tell()

    def _take_from_queue(self) -> list[HostedJob]:
        starting: list[HostedJob] = []
        while self._queue and len(starting) < self._free and self._has_capture(len(starting)):
            starting.append(self._queue.popleft())
            self._records.append((starting[-1].id,))
        return starting

    def _has_capture(self, taken: int) -> bool:
        """Whether there is one more than these. Where descriptors are short, as many run at once as there are."""
        if len(self._captures) > taken:
            return True
        try:
            self._captures.append(make_capture(taken + 1))
        except OSError:
            if not (taken or self._running):
                raise
            self._free = taken
            return False
        return True

    def _begin(self, job: HostedJob) -> None:
        self._free -= 1
        one = Hosted(job, jobdir.new_id(), self._captures.pop())
        try:
            out, err = self._ours or one.capture.streams
            one.start(self._starter, self._files_of(job.argv[0]), (self._null, out, err), self._cells)
        except Exception as error:  # whatever it is, it costs this command, and no other
            if isinstance(error, BlockingIOError) and self._running:  # when one of ours ends, a process is to be had
                self._captures.append(one.capture)
                self._queue.appendleft(job)
                return
            one.kind, one.reason = EXCEPTION, f"{type(error).__name__}: {error}"
        if one.pid:
            self._see_to(one)
        else:
            self._finish(one)

    def _files_of(self, name: str) -> list[bytes]:
        """What a program's name may mean; first of all what it meant when it was first asked for, as a shell has it."""
        if (files := self._files.get(name)) is None:
            files = program.candidates(os.fsencode(name), [b"PATH=" + self._path])
            found = next((one for one in files if os.access(one, os.X_OK) and os.path.isfile(one)), None)
            files = self._files[name] = files if found is None else [found, *files]
            if len(self._files) > _MOST_KNOWN:
                self._files = {}
        return files

    def _see_to(self, one: Hosted) -> None:
        """While it runs: hear of its end, and look at it now and again."""
        self._running[one.pid] = one
        one.fd = _pidfd(one.pid)
        if one.fd >= 0:
            self._watched[one.fd] = one
            self._poll.register(one.fd, select.POLLIN)
        if self._settings.how == LINES:
            one.relay = LineRelay(one.capture.streams, os.fsencode(one.job.tag), self._turns)
        self._later(self._until_look(one, FIRST_LOOK), LOOK, one)
        if self._settings.timeout:
            self._later(self._settings.timeout, END, one)

    def _until_look(self, one: Hosted, seconds: float) -> float:
        """Seconds until the next look at it; as many as these if there is nothing special about it."""
        if self._settings.memory or one.relay is not None:
            return TICK
        return _UNWATCHED if one.fd < 0 else min(seconds, LONGEST_LOOK)

    # -- what is due ------------------------------------------------------------------------------------

    def _later(self, seconds: float, what: int, one: Hosted) -> None:
        self._number += 1
        heappush(self._due, (time.monotonic() + seconds, self._number, what, one, seconds))

    def _pause(self) -> float | None:
        """Milliseconds until something is due."""
        due = self._due
        while due and due[0][3].gone:
            heappop(due)
        return 1000 * max(0.0, due[0][0] - time.monotonic()) if due else None

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
            self._records.append((None, error.errno))
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
        self._records.append(tuple(record))
        self._free += 1
        if one.pid and self._remainder.is_left_by(one.pid, self._running):
            one.capture.close()
        else:
            self._captures.append(one.capture)

    def _end_all(self) -> None:
        """And what the run itself would have tidied up."""
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
    set_title("bossworker host", title)
    Host(link, settings, cells).run()
