"""The pools of executors: one of its own, which starts with the first call, or somebody else's."""

from __future__ import annotations

import concurrent.futures
import os
import sys
import threading
import weakref
from contextlib import suppress
from functools import partial
from typing import Any

from bossworker.display import shorten
from bossworker.errors import BossDied, PoolClosed, WorkerStartError
from bossworker.function_calls import run_call
from bossworker.pool.caller.call_futures import CallFutures
from bossworker.pool.caller.client import BossWorker
from bossworker.pool.caller.deferred import DeferredPool
from bossworker.system.exits import run_at_exit


class _CallPool(DeferredPool):
    """The pool of an executor."""

    def cancel_what_waits(self) -> None:
        """Once the workers are up: so that of many calls some are made, as with ``ProcessPoolExecutor``."""
        line = self._connection
        line.wait_until(lambda: line.said.up or bool(line.said.failure))
        self.cancel(*list(self._inbox.jobs), queued_only=True)

    def _warn_of_neglect(self) -> None:
        """No: an executor that is dropped sees to the end of its pool."""


class OwnPool:
    """The pool that an executor has for itself, and those that ``with_options`` made of it share."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.pool = _CallPool(run_call, **settings)
        self._workers = self.pool._options.worker_count
        self._book: CallFutures | None = None
        self._closed = False
        self._closer: threading.Thread | None = None
        self.renew_lock()
        _pools.add(self)
        run_at_exit(_see_through)  # with the first executor: what the program registered earlier finds them closed

    def renew_lock(self) -> None:
        self._lock = threading.RLock()

    def book(self) -> CallFutures:
        """The pool's open calls. Starts it."""
        return self._book or self._start()

    def _start(self) -> CallFutures:
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self._book is None:
                self.pool.start()
                self._book = self.pool._keep(CallFutures(self.pool._parts(), self._workers, plain=True))
                _running.add(self)
        return self._book

    def shut_down(self, wait: bool, cancel_futures: bool) -> None:
        with self._lock:
            self._closed = True
        if self._book is None:
            return
        self._book.close_entry(cancel_futures)
        if wait:
            self._finish(cancel_futures)
        else:
            self._finish_later(cancel_futures)

    def _finish(self, cancel_futures: bool) -> None:
        with suppress(BossDied, WorkerStartError, PoolClosed):  # its futures tell of that
            if cancel_futures:
                self.pool.cancel_what_waits()
            self.pool.shut_down()
        _running.discard(self)

    def _finish_later(self, cancel_futures: bool) -> None:
        with self._lock:
            if self._closer is None:
                act = partial(self._finish, cancel_futures)
                self._closer = threading.Thread(target=act, name="bossworker executor", daemon=True)
                self._closer.start()

    def terminate(self) -> None:
        with self._lock:
            self._closed = True
        if self._book is not None:
            self.pool.shut_down(force=True)
            _running.discard(self)

    def stop(self) -> None:
        """Calls that run are stopped, and have ``kill_grace`` to tidy up; those that wait are not made."""
        with self._lock:
            self._closed = True
        if self._book is not None:
            self.pool.__exit__(KeyboardInterrupt, None, None)
            _running.discard(self)

    def drop(self) -> None:
        """Nobody can call anything any more; what was called is seen through. The garbage collector calls this."""
        book = self._book
        if book is None or self not in _running or self._closer is not None or self.pool._state.is_foreign():
            return
        self._closed = book.closing = True
        if self.pool._inbox.pending() or book.unsent:
            self._finish_later(cancel_futures=False)
        else:
            self.terminate()

    def __repr__(self) -> str:
        return repr(self.pool) if self.pool.started else "not started"


class ForeignPool:
    """A pool that is somebody else's."""

    def __init__(self, pool: BossWorker) -> None:
        if not isinstance(pool, BossWorker):
            raise TypeError(f"pool must be a BossWorker or None, not {shorten(pool)}")
        self.pool = pool
        self._book = pool._keep(CallFutures(pool._parts(), pool._options.worker_count or 1, plain=False))

    def book(self) -> CallFutures:
        return self._book

    def shut_down(self, wait: bool, cancel_futures: bool) -> None:
        self._book.close_entry(cancel_futures)
        if cancel_futures:
            with suppress(PoolClosed):
                self.pool.cancel(*list(self._book.open), queued_only=True)
        if wait:
            concurrent.futures.wait(list(self._book.open.values()))

    def terminate(self) -> None:
        """The pool is not ours: only our calls are cancelled."""
        self._book.close_entry(cancel=True)
        for future in list(self._book.open.values())[::-1]:  # or those that wait would begin as others are stopped
            future.cancel()

    stop = terminate

    def drop(self) -> None:
        """The pool sees to what was called."""

    def __repr__(self) -> str:
        return f"on {self.pool!r}"


class Lease:
    """Goes with the last of the executors that share a pool."""

    def __init__(self, pool: OwnPool | ForeignPool) -> None:
        self._pool = pool

    def __del__(self) -> None:
        self._pool.drop()


_pools: weakref.WeakSet[OwnPool] = weakref.WeakSet()
_running: set[OwnPool] = set()  # those that the program must not leave


def _in_child() -> None:
    _running.clear()
    for pool in list(_pools):
        pool.renew_lock()


os.register_at_fork(after_in_child=_in_child)


def _see_through() -> None:
    """The program ends: first what it has called is seen through, as with ``ProcessPoolExecutor``.

    But not by Ctrl-C, of which the workers have heard nothing, as those of that would.
    """
    interrupted = getattr(sys, "last_type", None) is KeyboardInterrupt and not hasattr(sys, "ps1")
    for own in list(_pools):
        if own in _running or not own.pool.started:  # else it has ended, or is a parent's
            own.stop() if interrupted else own.shut_down(wait=True, cancel_futures=False)
