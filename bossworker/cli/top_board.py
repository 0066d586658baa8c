"""What ``top`` shows: pools, workers, jobs and tasks, looked at once a second, as rows of text.

No terminal in here: `top_screen.py` shows the rows by Textual, `top.py` prints them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from bossworker.cli.entries import NOT_STARTED, QUEUED, Entry, EntryError, is_running, short
from bossworker.cli.looking import command_line, state_of
from bossworker.cli.pool_entries import PoolEntry
from bossworker.cli.progress_line import clock
from bossworker.cli.quantities import printable
from bossworker.cli.selecting import everything
from bossworker.cli.text_cells import shown
from bossworker.errors import BossWorkerError
from bossworker.pool.boss.stats import Stats, WorkerStats
from bossworker.pool.caller.operating import Now, name_of
from bossworker.pool.caller.remote_operator import operate, pools

TITLE = "bossworker top"
MOST_ENTRIES = 100  # jobs and tasks that are shown, the newest
ANSWER_SECONDS = 1.0  # for a pool to answer
AGAIN_SECONDS = 5.0  # until one that did not is asked again

POOL_COLUMNS = ("POOL", "ID", "STATE", "WORK", "RUN", "QUEUED", "DONE", "FAILED", "RATE", "MEM", "CPU", "PROGRAM")
WORKER_COLUMNS = ("POOL", "#", "PID", "STATE", "JOB", "TIME", "DONE", "MEM", "CPU", "PROGRESS")
ENTRY_COLUMNS = ("ID", "NAME", "STATE", "STARTED", "TIME", "COMMAND")
NAMES = frozenset(("POOL", "NAME"))
RIGHT = frozenset(("#", "PID", "WORK", "RUN", "QUEUED", "DONE", "FAILED", "RATE", "MEM", "CPU", "TIME"))  # aligned so


class Room(NamedTuple):
    """What lines of a length have room for."""

    width: int
    """Characters, from which on it holds."""
    left_out: frozenset[str]
    """Columns. (The ids of jobs and tasks are shown all the same: they are what people type.)"""
    longest_name: int
    """Characters; a longer one would push all else out of sight."""


_NARROW = frozenset(("ID", "PROGRAM"))
_NARROWER = _NARROW | {"RATE", "MEM", "CPU", "STARTED"}
ROOMS = (
    Room(110, frozenset(), 30),
    Room(78, _NARROW, 16),
    Room(58, _NARROWER, 16),
    Room(0, _NARROWER | {"WORK", "DONE"}, 9),
)


def room_in(width: int) -> Room:
    return next(room for room in ROOMS if width >= room.width)


def columns_shown(columns: tuple[str, ...], width: int) -> list[int]:
    """Which of a table's columns there is room for."""
    left_out = room_in(width).left_out - ({"ID"} if columns is ENTRY_COLUMNS else set())
    return [at for at, name in enumerate(columns) if name not in left_out]


def fitted(column: str, cell: str, width: int) -> str:
    """A cell, cut where it is a name that is too long."""
    return shown(cell, room_in(width).longest_name) if column in NAMES else cell


class BoardRow(NamedTuple):
    """A line of a table."""

    key: str
    """Which one it is, from look to look."""
    cells: tuple[str, ...]
    mood: str
    """``busy``, ``idle``, ``failed``, ``paused`` or ``done``: how it is coloured."""
    entry: Entry | None
    """What keys act on."""
    job_id: int | None = None
    """Of a worker, the job that it runs."""


class Picture(NamedTuple):
    """Everything, at one instant."""

    figures: tuple[str, ...]
    """Of all together: what matters most comes last."""
    pools: list[BoardRow]
    workers: list[BoardRow]
    entries: list[BoardRow]

    def header(self, width: int) -> str:
        """The first line. Where there is no room for all of it, what comes first is left out: the title, and so on."""
        parts = (f"{TITLE} ", *self.figures)
        lines = ("  ".join(parts[at:]) for at in range(len(parts)))
        return next((line for line in lines if len(line) <= width), parts[-1])


class _Look(NamedTuple):
    """A pool, seen."""

    at: float
    now: Now


class Board:
    """Looks, again and again. To be used by one thread at a time."""

    def __init__(self) -> None:
        self._pools: dict[str, PoolEntry] = {}  # by address
        self._before: dict[str, _Look] = {}
        self._not_before: dict[str, float] = {}  # when to ask again one that did not answer
        self._ended: dict[str, BoardRow] = {}  # jobs that have ended: how they are shown changes no more

    def look(self) -> Picture:
        """What there is now. Costs a request a pool, and a look at each job that has not ended."""
        self._find_pools()
        seen: list[tuple[PoolEntry, Now | None, _Look | None]] = []
        for address, entry in list(self._pools.items()):
            now = self._ask(address, entry)
            seen.append((entry, now, self._before.get(address)))
            if now is not None:
                self._before[address] = _Look(time.monotonic(), now)
        workers = [row for entry, now, before in seen if now for row in _worker_rows(entry, now, before)]
        entries = list(self._entry_rows())
        return Picture(_figures(seen, entries), [_pool_row(*one) for one in seen], workers, entries)

    def _find_pools(self) -> None:
        there = pools()
        for address in [one for one in self._pools if one not in there or self._pools[one].gone]:
            self._pools.pop(address).operator.close()
            self._before.pop(address, None)
        for address in there:
            if address not in self._pools and time.monotonic() >= self._not_before.get(address, 0.0):
                try:
                    self._pools[address] = PoolEntry(operate(address, timeout=ANSWER_SECONDS))
                except (OSError, BossWorkerError):  # nobody is there any more, it does not answer, or is another's
                    self._not_before[address] = time.monotonic() + AGAIN_SECONDS

    def _ask(self, address: str, entry: PoolEntry) -> Now | None:
        if time.monotonic() < self._not_before.get(address, 0.0):
            return None
        before = self._before.get(address)
        try:
            return entry.told(lambda: entry.operator.now(before.now.seen if before else 0))
        except EntryError:
            self._not_before[address] = time.monotonic() + AGAIN_SECONDS
            return None

    def _entry_rows(self) -> Iterator[BoardRow]:
        shown: dict[str, BoardRow] = {}
        for entry in islice(everything(), MOST_ENTRIES):
            row = self._ended.get(entry.id)
            if row is None:
                try:
                    found = entry.describe()
                except EntryError:  # deleted just now
                    continue
                row = _entry_row(entry, found)
                if entry.kind == "job" and not is_running(found) and found["status"] != "unknown":
                    shown[entry.id] = row
            else:
                shown[entry.id] = row
            yield row
        self._ended = shown

    def close(self) -> None:
        """Hang up."""
        for entry in self._pools.values():
            entry.operator.close()


# -- rows ---------------------------------------------------------------------------------------------------------


def _pool_row(entry: PoolEntry, now: Now | None, before: _Look | None) -> BoardRow:
    if now is None:
        return BoardRow(
            entry.id, (entry.name, entry.id, "no answer", *"-" * 8, entry.operator.program), "failed", entry
        )
    stats = now.stats
    state = "paused" if stats.paused else "busy" if stats.running else "idle"
    cells = (
        entry.name,
        entry.id,
        state,
        f"{len(stats.workers)}" if len(stats.workers) == now.target else f"{len(stats.workers)}/{now.target}",
        f"{stats.running:,}",
        count(stats.queued),
        count(stats.done),
        count(stats.failed),
        _rate(now, before),
        size(sum(one.rss for one in stats.workers)),
        _cpu(now, before, stats.workers),
        entry.operator.program,
    )
    return BoardRow(entry.id, cells, "paused" if stats.paused else state, entry)


def _worker_rows(entry: PoolEntry, now: Now, before: _Look | None) -> Iterator[BoardRow]:
    for one in sorted(now.stats.workers, key=lambda worker: (worker.index, worker.pid)):
        job = "-" if one.job_id is None else name_of(one.job_id)
        cells = (
            entry.name,
            str(one.index),
            str(one.pid),
            one.state,
            job,
            clock(one.seconds) if one.job_id is not None else "-",
            count(one.jobs_done),
            size(one.rss),
            _cpu(now, before, (one,)),
            _progress(one),
        )
        mood = "busy" if one.state == "busy" else "idle"
        yield BoardRow(f"{entry.id}/{one.index}/{one.pid}", cells, mood, entry, one.job_id)


def _progress(worker: WorkerStats) -> str:
    said = worker.progress
    if said is None:
        return ""
    of = f"{said.done:g}" if said.total is None else f"{said.done:g}/{said.total:g}"
    return printable(f"{of}  {said.text}".rstrip())


def _entry_row(entry: Entry, found: dict[str, Any]) -> BoardRow:
    state = state_of(found)
    mood = "failed" if state.startswith(("failed", NOT_STARTED)) else "busy" if is_running(found) else "done"
    mood = "paused" if state == "paused" else "idle" if found["status"] == QUEUED else mood
    began = found["started"]
    cells = (
        short(found["id"]),
        printable(found["name"] or "-"),
        state,
        time.strftime("%m-%d %H:%M", time.localtime(began)) if began else "-",
        clock(found["elapsed"]) if found["elapsed"] is not None else "-",
        command_line(found),
    )
    return BoardRow(found["id"], cells, mood, entry)


def _rate(now: Now, before: _Look | None) -> str:
    """Jobs that have ended, a second, since the look before."""
    if before is None:
        return "-"
    ended = _ended(now.stats) - _ended(before.now.stats)
    return f"{count(round(ended / max(1e-3, now.time - before.now.time)))}/s"


def _ended(stats: Stats) -> int:
    return stats.done + stats.failed


def _cpu(now: Now, before: _Look | None, workers: tuple[WorkerStats, ...]) -> str:
    """Processor time that these have used since the look before, in per cent of one."""
    if before is None:
        return "-"
    then = {one.pid: one.cpu_seconds for one in before.now.stats.workers}
    used = sum(max(0.0, one.cpu_seconds - then.get(one.pid, one.cpu_seconds)) for one in workers)
    return f"{100 * used / max(1e-3, now.time - before.now.time):.0f}%"


def _figures(seen: list[tuple[PoolEntry, Now | None, _Look | None]], entries: list[BoardRow]) -> tuple[str, ...]:
    stats = [now.stats for _, now, _ in seen if now]
    running, waiting = (sum(row.mood in moods for row in entries) for moods in (("busy", "paused"), ("idle",)))
    return (
        _counted(len(seen), "pool"),
        _counted(sum(len(one.workers) for one in stats), "worker"),
        f"{count(sum(one.running for one in stats) + running)} running",
        f"{count(sum(one.queued for one in stats) + waiting)} queued",
        f"{count(sum(one.failed for one in stats) + sum(row.mood == 'failed' for row in entries))} failed",
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def count(number: int) -> str:
    """At most six characters: ``9,999``, ``10.0k``, ``1.2M``."""
    for unit, factor in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= factor and number >= 10_000:
            scaled = number / factor
            return f"{scaled:.1f}{unit}" if scaled < 100 else f"{scaled:.0f}{unit}"
    return f"{number:,}"


def size(bytes_: int) -> str:
    """``840K``, ``41M``, ``1.2G``; ``-`` where it is not known."""
    if not bytes_:
        return "-"
    if bytes_ >= 10 << 30 or (1 << 20) <= bytes_ < (1 << 30):
        unit = ("G", 30) if bytes_ >= 1 << 30 else ("M", 20)
        return f"{bytes_ >> unit[1]}{unit[0]}"
    return f"{bytes_ / (1 << 30):.1f}G" if bytes_ >= 1 << 30 else f"{bytes_ >> 10}K"


# -- what keys do -------------------------------------------------------------------------------------------------


def stack_of(row: BoardRow) -> str:
    """What it does just now. EntryError when that cannot be seen."""
    entry = row.entry
    if isinstance(entry, PoolEntry):
        return entry.told(lambda: entry.operator.stack(row.job_id)) or "it has just ended"
    from bossworker.cli.looking import process_tree

    assert entry is not None
    found = entry.describe()
    if found["pid"] is None:
        raise EntryError(f"{entry.kind} {short(entry.id)} does not run: {state_of(found)}")
    tree = process_tree(found["pid"])
    return "\n".join(f"{one['pid']:>8} {one['state']} {'  ' * one['depth']}{printable(one['command'])}" for one in tree)


def kill(row: BoardRow) -> str:
    """End it; what to tell of that."""
    entry = row.entry
    assert entry is not None
    if row.job_id is not None and isinstance(entry, PoolEntry):
        pool, job_id = entry, row.job_id
        pool.told(lambda: pool.operator.cancel([job_id], by="top"))
        return f"cancelled job {name_of(job_id)} of {pool.name}"
    if not entry.signal(15):
        raise EntryError(f"{_called(entry)} does not run")
    return f"cancelled all jobs of {entry.name}" if entry.kind == "pool" else f"sent TERM to {_called(entry)}"


def retry(row: BoardRow) -> str:
    """Start it once more."""
    assert row.entry is not None
    again = row.entry.again()
    if again.kind == "pool":
        return f"runs the failed jobs of {again.name} again"
    return f"{_called(row.entry)} runs again" + (f", as {short(again.id)}" if again.id != row.entry.id else "")


def pause(row: BoardRow) -> str:
    """Stop it where it is, or let it go on."""
    entry = row.entry
    assert entry is not None
    on = not entry.describe()["paused"]
    if not entry.pause(on):
        raise EntryError(f"{_called(entry)} does not run")
    return f"{'paused' if on else 'resumed'} {_called(entry)}"


def _called(entry: Entry) -> str:
    return f"{entry.kind} {entry.name or short(entry.id)}"


def failures(entry: PoolEntry) -> str:
    """The last jobs of a pool that have failed, the newest first, with their errors."""
    told: list[str] = []
    for one in reversed(entry.told(entry.operator.failed)):
        at = time.strftime("%H:%M:%S", time.localtime(one.finished))
        told.append(f"{at}  job {name_of(one.job_id)}  {one.error}")
        told += [f"    {line}" for text in (one.traceback, one.log) for line in text.splitlines()]
    return "\n".join(map(printable, told)) or "no job has failed"


Action = Callable[[BoardRow], str]
