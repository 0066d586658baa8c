"""All pools that are watched, and who watches: a thread looks at each pool, in step with how many look at the page.

In a program's own server, threads begin with the first who looks at the page, and end soon after the last has left.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import bossworker
from bossworker.pool.caller.client import BossWorker
from bossworker.pool.caller.remote_operator import operated
from bossworker.pool.door.addresses import Address, all_doors, is_deserted
from bossworker.web.plain_json import to_json
from bossworker.web.watched_journal import WatchedJournal
from bossworker.web.watched_pool import IDLE_SECONDS, LOOK_SECONDS, Handle, WatchedPool

SEARCH_SECONDS = 1.0  # between looks for new pools
LEAVE_SECONDS = 10.0  # after the last has left, in a program's own server
CONNECT_SECONDS = 2.0
JOURNAL_SECONDS = 0.5  # between looks at journals, which read them only when something was written


class WatchRoom:
    """See the module.

    Args:
        pools: Handles of this program's own pools.
        addresses: Names or addresses of doors. None: all doors of this user, whenever they are there; empty: none.
        journals: Paths. Those of the pools are found by themselves, and stay when a pool has ended.
        always: Whether to watch also while nobody looks: charts then have a past.
    """

    def __init__(
        self,
        pools: Sequence[BossWorker[Any, Any]] = (),
        addresses: Sequence[str] | None = (),
        journals: Sequence[str | os.PathLike[str]] = (),
        always: bool = False,
    ) -> None:
        self._lock = threading.Lock()
        self._pools: dict[str, WatchedPool] = {}
        self._journals: dict[str, WatchedJournal] = {}
        self._searches = addresses is None
        self._always = always
        self._watchers = 0
        self._left_at = time.monotonic()
        self._threads: dict[str, threading.Thread] = {}
        self._wake = threading.Event()
        self.over = False
        for pool in pools:
            self._add(pool.name, lambda pool=pool: pool)  # type: ignore[misc]
        for address in addresses or ():
            operated(address)  # whether it is one; where a name leads is looked up each time
            self._add(address.rpartition("/")[2] or address, _connects(address))
        for path in journals:
            self._add_journal(path, lasting=True)
        if always:
            self._start_threads()

    def _add(self, name: str, connects: Callable[[], Handle]) -> None:
        key = next(key for key in _keys(name) if key not in self._pools)
        self._pools[key] = WatchedPool(key, name, connects)

    def _add_journal(self, path: str | os.PathLike[str], lasting: bool = False) -> None:
        """`lasting`: also when its file is gone."""
        found = WatchedJournal(path)
        found.lasting = lasting
        if all(found.path != one.path for one in self._journals.values()):
            found.key = next(key for key in _keys(found.name) if key not in self._journals)
            self._journals[found.key] = found

    # -- who watches --------------------------------------------------------------------------------------

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Somebody looks at the page."""
        with self._lock:
            self._watchers += 1
        self._start_threads()
        self._wake.set()
        try:
            yield
        finally:
            with self._lock:
                self._watchers -= 1
                self._left_at = time.monotonic()

    @property
    def watchers(self) -> int:
        """How many look just now."""
        return self._watchers

    def _touch(self) -> None:
        """Somebody asks for something: that counts as a look, for a while."""
        self._left_at = time.monotonic()
        self._start_threads()

    def _is_wanted(self) -> bool:
        lately = time.monotonic() < self._left_at + LEAVE_SECONDS
        return not self.over and (self._always or self._watchers > 0 or lately)

    def _start_threads(self) -> None:
        with self._lock:
            if self.over:
                return
            if self._searches:
                self._start("", self._search)
            if self._journals:
                self._start("of journals", self._watch_journals)
            for pool in list(self._pools.values()):
                self._start(f"of {pool.key}", partial(self._watch, pool))

    def _start(self, key: str, work: Callable[[], None]) -> None:
        thread = self._threads.get(key)
        # One that is about to leave still counts as alive, so nobody may watch for now: whoever looks at the page asks
        # again within a second, and has another started.
        if thread is None or not thread.is_alive():
            self._threads[key] = thread = threading.Thread(target=work, name=f"bossworker page {key}", daemon=True)
            thread.start()

    def _watch(self, pool: WatchedPool) -> None:
        while self._is_wanted():
            pool.look()
            self._note_journal_of(pool)
            if pool.why_away and self._searches and not self._is_there(pool):
                with self._lock:
                    self._pools.pop(pool.key, None)
                return
            self._rest(IDLE_SECONDS if not self._watchers or pool.why_away else LOOK_SECONDS)
        pool.let_go()

    def _note_journal_of(self, pool: WatchedPool) -> None:
        now = pool.now
        if now is not None and now.journal and all(now.journal != one.path for one in self.journals):
            # Two threads may find the same journal: `_add_journal` looks once more.
            with self._lock:
                self._add_journal(now.journal)
            self._start_threads()

    def _watch_journals(self) -> None:
        while self._is_wanted():
            for journal in self.journals:
                journal.look()
                if not (journal.lasting or journal.owner or os.path.exists(journal.path)):
                    with self._lock:
                        del self._journals[journal.key]
            time.sleep(JOURNAL_SECONDS)

    def _rest(self, seconds: float) -> None:
        if seconds > LOOK_SECONDS:
            self._wake.wait(seconds)
            self._wake.clear()
        else:
            time.sleep(seconds)

    # -- pools that come and go ---------------------------------------------------------------------------

    def _search(self) -> None:
        while self._is_wanted():
            for name, door in doors_by_name().items():
                if name not in self._pools and not is_deserted(door.path):
                    with self._lock:
                        self._pools[name] = WatchedPool(name, name, _connects(door.text))
            self._start_threads()
            time.sleep(SEARCH_SECONDS)

    def _is_there(self, pool: WatchedPool) -> bool:
        door = doors_by_name().get(pool.key)
        return door is not None and not is_deserted(door.path)

    # -- what is seen -------------------------------------------------------------------------------------

    @property
    def pools(self) -> list[WatchedPool]:
        """All of them, but for a second door of one."""
        found: dict[int, WatchedPool] = {}
        for pool in sorted([*self._pools.values()], key=lambda one: one.name):
            found.setdefault(pool.boss_pid or -id(pool), pool)
        return list(found.values())

    def pool(self, key: str) -> WatchedPool | None:
        """The one of this key, which somebody asks about."""
        self._touch()
        return self._pools.get(key)

    @property
    def journals(self) -> list[WatchedJournal]:
        """All of them."""
        return sorted([*self._journals.values()], key=lambda one: one.key)

    def journal(self, key: str) -> WatchedJournal | None:
        """The one of this key, which somebody asks about."""
        self._touch()
        return self._journals.get(key)

    def snapshot(self) -> dict[str, Any]:
        """What everybody who looks is shown."""
        self._touch()
        journals = [journal.describe() for journal in self.journals]
        return {"time": round(time.time(), 3), "pools": [pool.describe() for pool in self.pools], "journals": journals}

    def shut(self) -> None:
        """Nobody looks any more."""
        self.over = True
        self._wake.set()
        for thread in list(self._threads.values()):
            thread.join(CONNECT_SECONDS)
        for pool in list(self._pools.values()):
            pool.let_go()


class SharedSnapshot:
    """What everybody is shown, made once however many look."""

    def __init__(self, room: WatchRoom) -> None:
        self._room = room
        self._lock = threading.Lock()
        self._text = ""
        self._made_at = 0.0
        self.serial = 0

    def latest(self) -> tuple[int, str]:
        """Its number, and the text."""
        with self._lock:
            if time.monotonic() >= self._made_at + LOOK_SECONDS * 0.8:
                self._text = to_json(self._room.snapshot())
                self._made_at = time.monotonic()
                self.serial += 1
            return self.serial, self._text


def _connects(address: str) -> Callable[[], Handle]:
    return lambda: bossworker.operate(address, timeout=CONNECT_SECONDS)


def _keys(name: str) -> Iterator[str]:
    """What it may be called in addresses: one part of a path, and none that leads elsewhere."""
    key = name.replace("/", "-") if name.strip(".") else "pool"
    yield key
    number = 2
    while True:
        yield f"{key}~{number}"
        number += 1


def doors_by_name() -> dict[str, Address]:
    """The doors of this user; whether somebody is behind them has to be tried."""
    return {door.path.rpartition("/")[2]: door for door in reversed(all_doors())}
