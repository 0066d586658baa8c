"""Futures: one for each job that ``submit`` added, and who resolves them.

Nobody listens to the boss all the time; ``listener_turns.py`` says why. So a future is resolved

1. by a thread that waits in its ``result`` or ``exception``: it listens itself, as ``get_result`` does;
2. by ``done``, ``cancelled``, ``cancel`` and ``pending``, and by one of many calls of ``submit``: they look, but do
   not wait. So what is submitted and never asked for does not pile up;
3. by a thread of ours, the **attendant**, which exists only while somebody waits for a future in some other way: with
   a callback (``asyncio.wrap_future`` adds one), or in ``concurrent.futures.wait`` or ``as_completed``. It starts when
   the first such wait begins, and ends soon after the last. It alone calls callbacks, so that none is ever called from
   under a lock that the program holds while it waits for something else.

What that saves: with a thread that always listens, each result crosses a thread switch on its way to ``result()``. On
two busy cores, a round trip took 1.1 to 2.1 times as long so (p50, six alternating pairs) and 1.5 times the CPU time.
And a program that forks would be warned by CPython, from 3.12 on, after its first ``submit``; now it is warned only if
it forks while somebody waits in the third way.

All futures of a pool share one lock. Results that arrive together are resolved together: the lock is taken once for
all of them, and threads that wait for them are woken once. A future of its own has a lock, a condition and three
containers, 1.5 KB; ours has none of these until a callback or a ``wait`` needs them.

**Interrupted anywhere** (Ctrl-C, in the main thread), ``settle`` loses nothing: a result leaves the queue only after
all that follows from it was done, and all of that can be done twice. Waiters and callbacks could not be told twice;
that is the attendant's part, and Ctrl-C is raised in no thread but the main one.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from bossworker.pool.caller.mapping import PoolParts
from bossworker.pool.caller.pool_future import CANCELLED, ENDED, FINISHED, PENDING, JobFuture, PoolFuture, call_back
from bossworker.pool.caller.result_queue import ResultQueue
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import JobOptions
from bossworker.pool.wire.messages import Kind
from bossworker.result import Result

LINGER_SECONDS = 0.2  # the attendant stays this long when nobody needs it: to start a thread takes some 100 µs
JOIN_SECONDS = 0.5  # to wait for it when the pool ends; a callback of the program may keep it longer
LOOK_EVERY = 64  # submits between looks at what has arrived


class _Wakeup:
    """An event that wakes one thread. (A `threading.Event` is set in Python: Ctrl-C could leave its lock taken.)"""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wake(self) -> None:
        with suppress(RuntimeError):  # it has been woken, and did not wait since
            self._lock.release()

    def wait(self, seconds: float) -> None:
        self._lock.acquire(True, seconds)

    def clear(self) -> None:
        self._lock.acquire(False)


class OpenFutures:
    """The futures of a pool that are not done. See the module."""

    def __init__(self, parts: PoolParts) -> None:
        self._outbox, self._inbox, self._connection, self._state = parts
        self.lock = threading.RLock()
        self.open: dict[int, PoolFuture[Any]] = {}
        self._queue = ResultQueue()  # results of ours that have arrived
        self._watched: set[PoolFuture[Any]] = set()  # those that the attendant is to tell of
        self._resolved: dict[PoolFuture[Any], tuple[Any, ...]] = {}  # of these; and whom to tell
        self._attendant: threading.Thread | None = None
        self._needed = _Wakeup()
        self._closed = False
        self._submitted = 0

    # -- jobs in ----------------------------------------------------------------------------------------

    def submit(self, job: Mapping[Any, Any], job_options: JobOptions) -> JobFuture:
        """Send one job."""
        future = JobFuture(self)
        try:
            self._outbox.add_one(job, job_options, self._queue, partial(self.admit, future))
        except BaseException:
            # Ctrl-C may have come before the job was sent, or after. If it is known, it will have a result, which looks
            # for its future here.
            if not self._inbox.jobs.knows(future.job_id):
                self.open.pop(future.job_id, None)
            raise
        self._submitted += 1
        if not self._submitted % LOOK_EVERY:
            self.look(glance=True)
        return future

    def admit(self, future: PoolFuture[Any], job_id: int) -> None:
        """Note a future whose job is about to be sent."""
        future.job_id = job_id
        self.open[job_id] = future

    # -- results out ------------------------------------------------------------------------------------

    def wait_for(self, future: PoolFuture[Any], timeout: float | None) -> None:
        """Wait until it is done. TimeoutError after `timeout` seconds."""
        self._state.check_owner()
        deadline = None if timeout is None else time.monotonic() + timeout
        if timeout is not None and timeout <= 0:
            self.look()
        if self._connection.wait_until(lambda: self._settled(future), deadline):
            return
        self.settle()  # what came in before the pool ended, if that is why we no longer wait
        self.give_up()
        if future._state not in ENDED:
            raise TimeoutError(f"job {future.job_id} had not ended after {timeout} seconds")

    def _settled(self, future: PoolFuture[Any]) -> bool:
        self.settle()
        return future._state in ENDED

    def look(self, glance: bool = False) -> None:
        """Resolve what can be resolved now, without waiting; `glance`: nobody asks for a result."""
        if not self._state.foreign:
            self._connection.glance() if glance else self._connection.poll()
            self.settle()
            self.give_up()

    def settle(self) -> None:
        """Resolve the futures whose results are here."""
        while self._inbox.fill(self._queue):
            with self.lock:
                # Taken out only once all that follows from them is done: Ctrl-C before that has them come again.
                # Another thread that settles waits for the lock, and finds them gone.
                run = list(self._queue)
                for result in run:
                    self._resolve(result)
                for _ in run:
                    self._queue.popleft()

    def _resolve(self, result: Result) -> None:
        job_id = result.job_id
        # None, or not pending: it was cancelled, or given up, under the lock that we hold now.
        future = self.open.get(job_id)
        if future is not None and future._state == PENDING:
            self._end(future, future._take_in(result))
        self.open.pop(job_id, None)

    def _end(self, future: PoolFuture[Any], state: str) -> None:
        if future in self._watched:
            # Who installs itself from now on finds a future that is done, and must not be told of it. So those to
            # be told are noted at this very moment. (If Ctrl-C comes before the next line, they are noted again.)
            self._resolved[future] = tuple(future._watchers or ())
        future._state = state

    def give_up(self) -> None:
        """Once the pool has ended, and all that it sent is here: those that are still open will never have results."""
        line = self._connection
        if not self.open or not (line.gone or line.closed) or self._inbox.has_news(self._queue):
            return
        error = self._why()
        with self.lock:
            self._inbox.forget(list(self.open))
            for job_id, future in list(self.open.items()):
                self._fail(future, error)
                self.open.pop(job_id, None)
        line.wake()

    def _fail(self, future: PoolFuture[Any], error: BaseException) -> None:
        if future._state == PENDING:
            future._exception = error
            self._end(future, FINISHED)

    def _why(self) -> Exception:
        return self._state.why_ended()

    # -- orders -----------------------------------------------------------------------------------------

    def cancel(self, future: PoolFuture[Any]) -> bool:
        if future._state not in ENDED:
            self._state.check_owner()
            self.look(glance=True)
        # The result may have been settled between our look and here: so its state is asked for once more, under the
        # lock that `settle` takes.
        with self.lock:
            if future._state in ENDED:
                return future._state == CANCELLED
            future._state = CANCELLED
            self._watched.discard(future)
            self.open.pop(future.job_id, None)
            self._inbox.forget((future.job_id,))
            for waiter in future._watchers or ():
                waiter.add_cancelled(future)
            callbacks, future._done_callbacks = future._done_callbacks, ()
        self._stop_job(future)
        self._connection.wake()  # threads that wait in its result()
        for callback in callbacks:
            call_back(callback, future)
        return True

    def _stop_job(self, future: PoolFuture[Any]) -> None:
        if not future.job_id:  # not sent yet
            return
        ids = array("Q", (future.job_id,)).tobytes()
        self._connection.send(Kind.CANCEL, messages.REQUEST.pack(0), [ids])

    def is_running(self, future: PoolFuture[Any]) -> bool:
        self._state.check_owner()
        answer = self._connection.request(Kind.STATS) or {"workers": ()}
        return any(worker["job_id"] == future.job_id for worker in answer["workers"])

    # -- the attendant ----------------------------------------------------------------------------------

    def watch(self, future: PoolFuture[Any]) -> bool:
        """Have the attendant tell of this future's end, unless it has been told. The lock is held."""
        if future in self._watched:
            return True
        if future._state in ENDED:
            return False
        self._state.check_owner()
        self._watched.add(future)
        self._attend()
        return True

    def _attend(self) -> None:
        self._needed.wake()
        if self._attendant is None:
            # A daemon: a program may end without having shut its pool down.
            self._attendant = threading.Thread(target=self._serve, name="bossworker futures", daemon=True)
            try:
                self._attendant.start()  # waits for nothing that needs our lock
            except RuntimeError:  # no more threads
                self._attendant = None
                raise

    def _serve(self) -> None:
        while self._is_needed():
            self._do_business()

    def _is_needed(self) -> bool:
        """Wait until it is, off the connection, so that other threads listen for themselves; False: leave."""
        if self._is_idle():
            self._needed.clear()
            # Between this look and the next, `_attend` may have woken us again; then the next look sees why.
            if self._is_idle() and not self._closed:
                self._needed.wait(LINGER_SECONDS)
        # Whoever starts to watch holds the lock, too: it finds us here, or, if we have left, starts another thread.
        with self.lock:
            idle = self._is_idle()
            if idle:
                self._attendant = None
            return not idle

    def _is_idle(self) -> bool:
        return not self._watched

    def _do_business(self) -> None:
        self._connection.wait_until(self._has_business)
        self.settle()
        self.give_up()
        self._tell()

    def _has_business(self) -> bool:
        return bool(self._resolved or not self._watched or self._inbox.has_news(self._queue))

    def _tell(self) -> None:
        """Wake those that wait for what was resolved, and call callbacks."""
        told: list[tuple[PoolFuture[Any], Iterable[Any]]] = []
        with self.lock:
            # Taken under the lock, told outside it: a callback may take locks of the program's, and call us.
            resolved, self._resolved = self._resolved, {}
            for future, waiters in resolved.items():
                if future in self._watched and future._state in ENDED:
                    self._watched.discard(future)
                    for waiter in waiters:
                        getattr(waiter, future._how())(future)
                    told.append((future, future._done_callbacks))
                    future._done_callbacks = ()
        for future, callbacks in told:
            for callback in callbacks:
                call_back(callback, future)

    def close(self) -> None:
        """The pool has ended: resolve what can be, fail the rest, and see the attendant off."""
        self._closed = True
        self.settle()
        self.give_up()
        self._needed.wake()
        attendant = self._attendant
        if attendant is not None and attendant is not threading.current_thread():
            attendant.join(JOIN_SECONDS)

    def disown(self) -> None:
        """In a forked child, where the attendant is not, though it may have held the lock."""
        self.lock = threading.RLock()
        self._attendant = None
        self._needed = _Wakeup()
        self._watched.clear()
