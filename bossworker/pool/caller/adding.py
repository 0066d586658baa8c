"""Jobs in: the part of a `BossWorker` that takes them, and takes them back."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bossworker.pool.caller.connection import Connection
from bossworker.pool.caller.inbox import Inbox
from bossworker.pool.caller.job_types import Answer_co, Job_contra
from bossworker.pool.caller.mapping import PoolParts
from bossworker.pool.caller.outbox import Outbox
from bossworker.pool.caller.state import HandleState
from bossworker.pool.wire import messages
from bossworker.pool.wire.messages import Kind
from bossworker.system.checks import check_bool, check_count

if TYPE_CHECKING:
    from bossworker.pool.caller.futures import OpenFutures
    from bossworker.pool.caller.journal_outbox import JournalOutbox
    from bossworker.pool.caller.journaled import OpenJournal
    from bossworker.pool.caller.pool_future import JobFuture

    _Book = TypeVar("_Book", bound=OpenFutures)


def no_journal() -> ValueError:
    """What is raised where there is none."""
    return ValueError("resume needs a journal: make the pool with journal=PATH")


class PoolJobs(Generic[Job_contra, Answer_co]):
    """See the module."""

    _connection: Connection
    _inbox: Inbox
    _state: HandleState
    _outbox: Outbox
    _futures: OpenFutures | None  # those of submit, from the first on
    _books: list[OpenFutures]  # these, and those of executors
    _first_future: threading.Lock
    _journal: OpenJournal | None

    def add_work(
        self,
        *jobs: Job_contra,
        timeout: float | None = None,
        priority: int = 0,
        retries: int | None = None,
        resume: bool = False,
    ) -> Sequence[int]:
        """Queue jobs (dicts); return their ids, in order.

        All or nothing: when one of them is no mapping, or cannot be pickled, none is queued.

        Args:
            timeout: Seconds each of these jobs may run; 0: no limit; None: the pool's ``global_timeout``.
            priority: A higher one runs first.
            retries: How often each is given to another worker after a crash; None: the pool's ``retries``.
            resume: With a journal, a job whose ``job_key`` has a good result in it is not run: it has that result,
                whose ``stored`` is True. One that an earlier owner of the journal has left is taken for this one: it
                runs once, and its result comes once. TypeError: a job has no ``job_key``.

        Raises:
            TypeError: A job is no mapping (names its index) or cannot be pickled (names the key).
            PoolClosed: After ``shut_down``.
            BossDied: The boss is gone, and the pool with it.
            JournalError: The journal did not take the jobs (the disk is full): none of them was accepted.
        """
        outbox = self._outbox
        job_options = outbox.job_options(timeout, priority, retries)
        if check_bool("resume", resume):
            return self._journal_outbox().resume(jobs, job_options) if jobs else range(0)
        if len(jobs) == 1:
            return outbox.add_one(jobs[0], job_options)
        self._state.check_open()
        return outbox.add(jobs, job_options) if jobs else range(0)

    def _journal_outbox(self) -> JournalOutbox:
        """ValueError: There is none."""
        if self._journal is None:
            raise no_journal()
        return self._outbox  # type: ignore[return-value]

    def submit(
        self,
        job: Job_contra,
        *,
        timeout: float | None = None,
        priority: int = 0,
        retries: int | None = None,
    ) -> JobFuture[Answer_co]:
        """Queue one job; return the future of its `Result`, which never goes to ``get_result``.

        Args and errors as for ``add_work``. See :class:`JobFuture` for what the future can do. One that is dropped
        costs nothing after its job's end; the job is run all the same.
        """
        return self._open_futures().submit(job, self._outbox.job_options(timeout, priority, retries))

    def _open_futures(self) -> OpenFutures:
        if self._futures is None:
            from bossworker.pool.caller.futures import OpenFutures  # loads concurrent.futures, which takes a while

            # Two threads may submit their first jobs at once: both must have the same book, or one of them is never
            # looked at.
            with self._first_future:
                self._futures = self._futures or self._keep(OpenFutures(self._parts()))
        return self._futures

    def _keep(self, book: _Book) -> _Book:
        """Take care of open futures, here and at our end."""
        self._books.append(book)
        return book

    def _parts(self) -> PoolParts:
        """What maps, futures and the other faces of a pool stand on."""
        return PoolParts(self._outbox, self._inbox, self._connection, self._state)

    def cancel(self, *ids: int, queued_only: bool = False) -> int:
        """Cancel jobs; return how many of them had not finished.

        A queued one never runs; a running one is stopped as by a timeout. Each still yields one Result, with
        ERROR ``BossWorkerAsync: cancelled``. Ids that are finished or unknown are passed over.

        Args:
            queued_only: Leave those alone that a worker has got, and do not count them.
        """
        return int(self._ask_to_cancel(ids, queued_only)["count"])

    def _ask_to_cancel(self, ids: Iterable[int], queued_only: bool) -> dict[str, Any]:
        """What the boss says to it."""
        for job_id in ids:
            check_count("job id", job_id, most=(1 << 63) - 1)
        self._state.check_owner()
        # One of them may end before the boss reads this: it passes over those, and does not count them.
        live = [job_id for job_id in dict.fromkeys(ids) if job_id in self._inbox.jobs]
        how = messages.QUEUED_ONLY if check_bool("queued_only", queued_only) else b""
        nothing = {"count": 0}
        if not live or self._connection.gone:
            return nothing
        return self._connection.request(Kind.CANCEL, how, [array("Q", live).tobytes()]) or nothing
