"""Commands are run by a process of their own, the host (``commands/hosting``); this is its other end.

If the host is killed, what it was running is ended and counts as failed, and another host goes on with the rest. The
cells that we share with it tell the two apart, and what had ended meanwhile.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Collection, Sequence
from itertools import chain

from bossworker.cli.cell_book import CellBook, cells_for
from bossworker.cli.crews import CANCELLED
from bossworker.cli.host_process import HostProcess
from bossworker.cli.outcomes import Ended, Planned
from bossworker.commands.hosting import hosting_wire
from bossworker.commands.hosting.cells import QUEUED
from bossworker.commands.hosting.hosting_wire import EndRecord, HostSettings, Unpacker
from bossworker.system import descendants
from bossworker.system.cpython import signal

HANG_UP_SECONDS = 0.9  # for a host to end by force; then we do so ourselves
_MOST_BARREN = 3  # hosts, one after the other, that have ended before a command of theirs had run
_CHUNK = 1 << 18
_OF_WELL_ENDED = 3  # items of the record of one that has ended well


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bossworker.commands.hosting.lost_records import LostRecords


class CommandCrew:
    """A host, and what is with it."""

    ahead = 48  # some hundredths of a second for commands as short as can be

    def __init__(
        self,
        settings: HostSettings,
        name: str,
        on_begin: Callable[[list[str]], None] | None = None,
        book: CellBook | None = None,
        host: HostProcess | None = None,
    ) -> None:
        """
        Args:
            name: Of the run, for whoever looks at processes.
            on_begin: Called with the command lines of those that have begun.
            book: Gives the cells, where they have to outlive us.
            host: The first one, if it is forked already.
        """
        host = host or HostProcess()
        self._book = book or CellBook(cells_for(self.ahead, settings.slots))
        self._on_begin = on_begin
        self._settings = settings
        self._title = f"bossworker {name}: host"
        self._next_id = 0
        self._given: dict[int, tuple[Planned, int]] = {}  # what is with the host, and in which cell
        self._began: dict[int, float] = {}  # monotonic seconds, of what runs
        self._others = frozenset(descendants.children(os.getpid())) - {host.pid}
        self._adopted = descendants.adopts_orphans()
        descendants.adopt_orphans()
        self._barren = 0
        self._launch(host)

    def _launch(self, host: HostProcess) -> None:
        if self._book.file < 0:
            host.drop()
            host = HostProcess(self._book.cells)
        self._mail = Unpacker()
        self._pid = host.pid
        self._link = host.tell(self._settings, self._title, self._book)

    # -- what a run asks ----------------------------------------------------------------------------------

    def add(self, plans: Sequence[Planned]) -> None:
        begin = self._next_id
        self._next_id += len(plans)
        given = dict(enumerate(zip(plans, self._book.give(plans), strict=True), begin))
        self._given |= given
        self._give(given)

    def fileno(self) -> int:
        return self._link

    def receive(self) -> list[tuple[Planned, Ended | None]]:
        if not _is_readable(self._link):
            return []
        try:
            data = os.read(self._link, _CHUNK)
        except ConnectionError:
            data = b""
        if not data:
            return self._replace_host()
        begun: list[int] = []
        ended: list[tuple[Any, ...]] = []
        for one in chain.from_iterable(self._mail.feed(data)):
            if len(one) == 1:
                begun += one
            elif one[0] is None:
                raise OSError(one[1], os.strerror(one[1]), "standard output")
            else:
                ended.append(one)
        if begun:
            self._note_begun(begun)
        return [self._told(one) for one in ended]

    def cancel(self, places: Collection[int], kind: str = CANCELLED, queued_only: bool = False) -> None:
        ids = [job_id for job_id, (plan, _) in self._given.items() if plan.place in places]
        self._say((hosting_wire.CANCEL, ids, kind, queued_only))

    def running(self) -> list[tuple[Planned, float]]:
        now = time.monotonic()
        return [(self._given[job_id][0], now - began) for job_id, began in self._began.items()]

    def close(self, force: bool = False) -> None:
        self._say((hosting_wire.LEAVE, force))
        self._hang_up()
        if force:
            self._await_host(HANG_UP_SECONDS)
        elif self._pid:
            os.waitpid(self._pid, 0)
        self._pid = 0
        self._book.close()
        self._end_orphans(0.0)
        if not self._adopted:
            descendants.adopt_orphans(False)

    def _hang_up(self) -> None:
        if self._link >= 0:
            os.close(self._link)
        self._link = -1

    # -- the host -----------------------------------------------------------------------------------------

    def _give(self, given: dict[int, tuple[Planned, int]]) -> None:
        self._say((hosting_wire.JOBS, [(job_id, *plan.job, cell) for job_id, (plan, cell) in given.items()]))

    def _say(self, message: object) -> None:
        data = hosting_wire.pack(message)
        try:
            while data and self._link >= 0:
                data = data[os.write(self._link, data) :]
        except ConnectionError:  # it is gone, as we shall read
            pass

    def _note_begun(self, ids: list[int]) -> None:
        self._began |= dict.fromkeys(ids, time.monotonic())
        if self._on_begin is not None:
            self._on_begin([self._given[one][0].text for one in ids])

    def _told(self, record: tuple[Any, ...]) -> tuple[Planned, Ended | None]:
        if len(record) > _OF_WELL_ENDED:
            return self._ended(EndRecord._make(record))
        job_id, seconds, started_at = record
        plan = self._forget(job_id)
        return plan, Ended(plan, True, 0, None, seconds, started_at, b"", b"", "", "", "", {})

    def _forget(self, job_id: int) -> Planned:
        """It has ended."""
        self._barren = 0
        self._began.pop(job_id, None)
        plan, cell = self._given.pop(job_id)
        self._book.take_back(cell)
        return plan

    def _ended(self, record: EndRecord) -> tuple[Planned, Ended | None]:
        plan = self._forget(record.id)
        if record.kind == CANCELLED:
            return plan, None
        return plan, Ended(
            plan=plan,
            ok=not record.kind,
            exit_code=record.exit_code,
            signal=record.signal,
            seconds=record.seconds,
            started_at=record.started_at,
            stdout=record.stdout,
            stderr=record.stderr,
            jobid=record.jobid,
            kind=record.kind,
            reason=record.reason,
            answer={},
            received=record.received,
        )

    def _replace_host(self) -> list[tuple[Planned, Ended | None]]:
        """It was killed. What may have run counts as failed, after its end; what has not is for the next one."""
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        self._hang_up()
        ended = {child: how for child in self._adopted_children() if (how := _reap(child)) is not None}
        self._end_orphans(_GRACE)
        self._barren += 1
        if self._barren > _MOST_BARREN:
            raise ChildProcessError(f"the process that starts commands has ended {self._barren} times: {_how(status)}")
        from bossworker.commands.hosting.lost_records import LostRecords

        lost = self._what_was_lost(LostRecords(self._settings.how, f"({_how(status)})", ended))
        self._began.clear()
        self._launch(HostProcess())
        self._give(self._given)
        return lost

    def _what_was_lost(self, records: LostRecords) -> list[tuple[Planned, Ended | None]]:
        found = [(job_id, self._book.cells.read(cell)) for job_id, (_, cell) in self._given.items()]
        now = time.time()
        return [self._ended(records.make(job_id, cell, now)) for job_id, cell in found if cell.state != QUEUED]

    def _await_host(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self._pid and not os.waitpid(self._pid, os.WNOHANG)[0]:
            if time.monotonic() > until:
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
                return
            time.sleep(0.002)

    def _end_orphans(self, grace: float) -> None:
        """End what a host has left us, whatever ended it."""
        ending = descendants.Ending(grace, self._pid, self._orphans)
        while (pause := ending.step()) is not None and not ending.hopeless:
            time.sleep(pause)
            for child in self._adopted_children():
                _reap(child)

    def _adopted_children(self) -> list[int]:
        children = descendants.children(os.getpid())
        return [one for one in children if one not in self._others and not descendants.is_detached(one)]

    def _orphans(self) -> list[int]:
        found = self._adopted_children()
        return [*found, *(one for child in found for one in descendants.descendants(child))]


_GRACE = 0.5  # seconds


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _reap(child: int) -> int | None:
    """How it has ended, if it has."""
    try:
        pid, status = os.waitpid(child, os.WNOHANG)
    except ChildProcessError:
        return None
    return status if pid else None


def _how(status: int) -> str:
    import signal as signals

    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else f"signal {-code}, {signals.Signals(-code).name}"
