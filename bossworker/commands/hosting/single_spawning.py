"""How a host starts its commands: one after the other, as its own loop comes to it.

Where there is a core, and nothing of a command is to be passed on while it runs, spawners do it: see
``threaded_spawning.py``.
"""

from __future__ import annotations

import os
from collections import deque

from bossworker.commands import jobdir
from bossworker.commands.hosting.capture import Capture, make_capture, own_stream
from bossworker.commands.hosting.hosted import Hosted
from bossworker.commands.hosting.hosting_wire import DIRECT, HostedJob, HostSettings
from bossworker.system import cpython, program
from bossworker.system.records import Protocol
from bossworker.system.starter import Starter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from bossworker.commands.hosting.cells import Cells
    from bossworker.commands.hosting.run_link import RunLink

FOREVER = float("inf")  # seconds
FIRST_LOOK = 0.01  # seconds after its start at which one that still runs is looked at
_MOST_KNOWN = 64  # programs
_OF_ONE_COMMAND = (b"BOSSWORKER_JOB", b"PARALLEL_SEQ", b"PARALLEL_JOBSLOT")


class Spawning(Protocol):
    """Commands that are to run, and those that run, as far as they have slots."""

    def add(self, jobs: Sequence[HostedJob]) -> None:
        """They are to run, after those that are to run already."""

    def withdraw(self, ids: Collection[int]) -> list[int]:
        """Those of them that have not begun, and will not."""

    def go_on(self) -> Iterator[Hosted]:
        """Start what may run; those that have begun, or could not, or have ended: the host has to see to them."""

    def running(self) -> Iterator[Hosted]:
        """All others that have begun."""

    @property
    def next_look(self) -> float:
        """When to go on at the latest: monotonic seconds."""

    def over(self, one: Hosted, leaves: bool) -> None:
        """The host has seen to it. `leaves`: something of it may still write into its files."""

    def close(self) -> None:
        """Start nothing more."""


class CommandEnvironment:
    """What all commands of a run find."""

    def __init__(self, settings: HostSettings) -> None:
        variables = {**cpython.environment(), **{os.fsencode(one): os.fsencode(v) for one, v in settings.env.items()}}
        self.starter = Starter([b"%b=%b" % item for item in variables.items() if item[0] not in _OF_ONE_COMMAND])
        self.null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._path = variables.get(b"PATH", os.defpath.encode())
        self._files: dict[str, list[bytes]] = {}

    def files_of(self, name: str) -> list[bytes]:
        """What a program's name may mean; first of all what it meant when it was first asked for, as a shell has it."""
        if (files := self._files.get(name)) is None:
            files = program.candidates(os.fsencode(name), [b"PATH=" + self._path])
            found = next((one for one in files if os.access(one, os.X_OK) and os.path.isfile(one)), None)
            files = self._files[name] = files if found is None else [found, *files]
            if len(self._files) > _MOST_KNOWN:
                self._files = {}
        return files


class SingleSpawning:
    """Each is told of before it begins, and heard of by its descriptor."""

    def __init__(self, settings: HostSettings, cells: Cells, link: RunLink, environment: CommandEnvironment) -> None:
        self._cells = cells
        self._link = link
        self._environment = environment
        self._queue: deque[HostedJob] = deque()
        self._free = settings.slots
        self._busy = 0
        self._captures: list[Capture] = []
        self._ours = (own_stream(1), own_stream(2)) if settings.how == DIRECT else None

    def add(self, jobs: Sequence[HostedJob]) -> None:
        self._queue.extend(jobs)

    def withdraw(self, ids: Collection[int]) -> list[int]:
        found = [job for job in self._queue if job.id in ids]
        for job in found:
            self._queue.remove(job)
        return [job.id for job in found]

    def go_on(self) -> Iterator[Hosted]:
        while not self._link.is_jammed and (starting := self._take_from_queue()):
            self._link.tell()
            if self._link.is_jammed:
                # The run has not heard of them yet: if we died now, it would have them run a second time.
                self._queue.extendleft(reversed(starting))
                return
            for job in starting:
                if one := self._begin(job):
                    yield one

    def running(self) -> Iterator[Hosted]:
        return iter(())

    @property
    def next_look(self) -> float:
        return FOREVER

    def over(self, one: Hosted, leaves: bool) -> None:
        self._busy -= 1
        self._free += 1
        if leaves:
            one.capture.close()
        else:
            self._captures.append(one.capture)

    def close(self) -> None:
        self._queue.clear()

    def _take_from_queue(self) -> list[HostedJob]:
        starting: list[HostedJob] = []
        while self._queue and len(starting) < self._free and self._has_capture(len(starting)):
            starting.append(self._queue.popleft())
            self._link.records.append((starting[-1].id,))
        return starting

    def _has_capture(self, taken: int) -> bool:
        """Whether there is one more than these. Where descriptors are short, as many run at once as there are."""
        if len(self._captures) > taken:
            return True
        try:
            self._captures.append(make_capture(taken + 1))
        except OSError:
            if not (taken or self._busy):
                raise
            self._free = taken
            return False
        return True

    def _begin(self, job: HostedJob) -> Hosted | None:
        self._free -= 1
        one = Hosted(job, jobdir.new_id(), self._captures.pop())
        try:
            out, err = self._ours or one.capture.streams
            files = self._environment.files_of(job.argv[0])
            one.start(self._environment.starter, files, (self._environment.null, out, err), self._cells)
        except Exception as error:  # whatever it is, it costs this command, and no other
            if isinstance(error, BlockingIOError) and self._busy:  # when one of ours ends, a process is to be had
                self._captures.append(one.capture)
                self._queue.appendleft(job)
                return None
            one.could_not_start(error)
        self._busy += 1
        return one
