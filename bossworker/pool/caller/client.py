"""The caller's handle on a pool: what programs use."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, Self

from bossworker.errors import PoolClosed
from bossworker.pool.caller.adding import PoolJobs
from bossworker.pool.caller.controls import PoolControls
from bossworker.pool.caller.inbox import Inbox
from bossworker.pool.caller.job_types import Answer_co, Job_contra
from bossworker.pool.caller.looks import PoolLooks
from bossworker.pool.caller.openings import PoolOpenings
from bossworker.pool.caller.retrieving import PoolResults
from bossworker.pool.caller.starting import PoolStart
from bossworker.pool.options import Handlers, StartMethod, check_options
from bossworker.pool.reloading import LoadedModules
from bossworker.pool.wire.messages import Kind
from bossworker.result import Result
from bossworker.system.checks import check_bool, check_callable, check_seconds

if TYPE_CHECKING:
    from bossworker.pool.caller.futures import OpenFutures

_logger = logging.getLogger("bossworker")
_logger.addHandler(logging.NullHandler())  # nothing is printed unless the program asks for it


class BossWorker(
    PoolStart,
    PoolJobs[Job_contra, Answer_co],
    PoolResults[Job_contra, Answer_co],
    PoolControls,
    PoolLooks,
    PoolOpenings,
    Generic[Job_contra, Answer_co],
):
    """A preforked pool: jobs in, results out, and nothing lost in between.

    Forks a boss process, which keeps `worker_count` workers. Jobs are dicts; `work_handler` turns one into a
    dict of results, in a worker. Every job added yields exactly one :class:`Result`, whatever is killed; what goes
    wrong is under its key ``ERROR``.

    Args:
        work_handler: Called with each job; returns a mapping, or None for an empty one.
        result_handler: Called with each result, in this process, inside ``get_result``, which then returns what it
            returns (a mapping, or None for an empty one) with the same attributes.
        init_handler: Called once in each worker before its first job. Has no time limit. When it fails in a worker that
            replaces another, it is tried again, after pauses that grow to two seconds, until it succeeds: the jobs
            wait, and ``stats().start_error`` and the logger ``bossworker`` tell why.
        exit_handler: Called once in each worker that leaves in order. Has no time limit. What it raises goes to stderr,
            and ``shut_down`` warns of it.
        global_timeout: Seconds a job may run; 0: no limit.
        worker_count: Number of workers; None: the CPUs this process may use. 0: the pool is **inline**, and has no
            processes. A job runs in this one, in the thread that asks for results: inside ``get_result``, ``results``,
            ``map``, ``shut_down``, or a future's ``result`` or ``done``. So ``breakpoint()``, profilers and coverage
            work in handlers. What needs another process does not: timeouts and ``max_job_memory`` are not enforced, a
            job that runs cannot be cancelled, and one that crashes the interpreter takes this program along. Nothing
            watches it, either: ``logs`` must be "inherit", ``events`` and ``trace`` raise ValueError, and what a job
            says by ``current_job().progress`` is dropped. BossWorker itself can be inline, not a subclass of it.
        kill_grace: Seconds between the soft timeout (``JobTimeout`` in the handler) and SIGKILL.
        retries: How often a job whose worker died is given to another worker.
        max_pending: ``add_work`` blocks while this many jobs are unfinished; 0: no bound.
        max_jobs_per_worker: Replace a worker after this many jobs; 0: never.
        max_worker_memory: Replace a worker, between jobs, above this many bytes of resident memory; 0: never. A new
            worker has what this program has loaded; when that alone is more, WorkerStartError says so.
        max_job_memory: Bytes that a job's worker, and all that it has started, may grow by while the job runs; 0: no
            limit. Above it the job ends as by a timeout (``JobTimeout`` in the handler, ``kill_grace``, SIGKILL); ERROR
            is ``BossWorkerAsync: memory limit exceeded (612 MiB of 512)``. Looked at 20 times a second (Linux).
        start_method: ``"fork"``, or ``"spawn"``: the boss is a fresh interpreter, and the handlers travel by
            cloudpickle and are loaded in each worker. For programs with threads.
        close_fds: Workers let go of the files, sockets and pipes that this process had open, but for stdout and stderr
            (with "spawn" they have none of them anyway). By default a file, a port or a pipe that this process closes
            stays open in the workers, since handlers may use it; and so do they need the pipes of a
            ``multiprocessing.Queue``.
        transport: What carries messages between boss and workers: ``"zmq"`` (ZeroMQ), or ``"socketpair"``. Both keep
            the same promises. Where pyzmq cannot be loaded, it is "socketpair", and the logger ``bossworker`` says so.
        name: What the pool is called where people read of it; by default, the handler's qualified name.
        logs: Where it goes what handlers print and log, and what C code and subprocesses write to their stdout and
            stderr. ``"inherit"``: where that of this process goes. ``"discard"``: nowhere (but to what handlers open
            themselves). ``"relay"``: to this process, line by line, whenever it calls the pool: log records to their
            loggers, lines of output to the logger ``bossworker.job`` (stdout INFO, stderr WARNING), all of them with
            the attributes ``job_id``, ``worker_pid`` and ``worker_index``. Levels and filters of loggers hold in the
            workers as they were when the pool was made, and here as they are. Where no handler is set up for
            ``bossworker.job``, lines are printed to ``sys.stdout`` and ``sys.stderr``: in a notebook, below the cell.
            A failed result has the last 64 KiB of its job's lines in ``log``. While this process takes nothing from
            the pool, the oldest lines are dropped at some 4 MiB; it is told how many.
        engine: Where the workers are, if not here: a ``dask.distributed.Client``, ``"dask://HOST:PORT"``,
            ``"ray://HOST:PORT"``, or any ``concurrent.futures.Executor``. In each of the engine's workers (a node),
            a part of the pool is started and stays, with `worker_count` workers (None: as many as the node runs tasks
            at a time). Jobs travel as batches, each of them a task of the engine, which no node runs twice. What runs
            when its node is lost has ``node lost`` in its ERROR, or is tried again as far as `retries` goes. The
            handlers travel as with ``"spawn"``. What each engine cannot do is told in the manual.
        journal: Path of a database (SQLite; it is made if it is not there) that keeps jobs and results. When
            ``add_work`` has returned, its jobs are on the disk, and so is a result before it is handed out. Whoever
            opens the journal next, however this program ended, goes on where it was: jobs that never started are run;
            those that may have run are `interrupted`; results that nobody has got are handed out. A result counts as
            got once the program asks for another one, or shuts the pool down in order. Leaving by force, or by an
            exception, leaves what is queued in the journal; leaving in order does it first. A journal has one owner at
            a time; ``bossworker.journal.open`` tells any process what is in it. Handlers are not kept. Jobs of programs
            that come in by a door are, if these want it: ``connect(..., keep=True)``. It lies on a local disk: see the
            guarantees in the manual.
        interrupted: What becomes of a job that may have run when the journal's last owner ended, and has no result:
            ``"report"``: it has one now, with ERROR ``BossWorkerAsync: interrupted``. ``"rerun"``: it is run again,
            which counts as an attempt.
        max_journal_age: Seconds after its end at which the journal forgets a job whose result this program has got; 0:
            never. It is looked for at least once a minute.
        max_journal_size: Bytes that the journal may take (jobs and results, in the database and in the files beside it;
            see ``bossworker.journal.Journal.size``); 0: no limit. At that size, the jobs that ended first are
            forgotten, of those whose results this program has got. What is queued, runs, or has a result that was not
            got is never forgotten: where there is nothing else, ``add_work`` raises JournalError, and takes none of the
            call's jobs. Results are always taken in, so that it may grow beyond the limit by those.

    Raises:
        TypeError, ValueError: An argument is wrong; no process was started.
        WorkerStartError: A worker did not come up; the text holds the ``init_handler``'s traceback, or the limit that
            was reached.
        JournalInUse: The journal belongs to another program; ``pid`` is its process.
        JournalError: The journal cannot be used: it is damaged, for instance. Then it is left as it is.

    Of a limit, 0 and None mean that there is none. Of a wait, a `timeout` of None means as long as it takes, and 0 not
    to wait at all. A job's time stands still while the machine sleeps. It runs on while the processes are stopped
    (Ctrl-Z, ``docker pause``).

    A worker is like a ``multiprocessing.Process``: queues, locks and proxies of that module work in handlers, and when
    it leaves in order, it waits for threads that are no daemons, and runs what ``atexit`` has registered in it. Each
    has its own random numbers (``random``, NumPy's global ones), and a name: ``BossWorker-3``. TERM, HUP, QUIT, USR1,
    USR2 and INT do nothing in it, unless a handler asks for them: a service manager may send them to all processes.

    The handle may be used from several threads. In a forked child it refuses (PoolClosed). It can be neither copied nor
    pickled (TypeError).

    For type checkers, a pool is a ``BossWorker[Job, Answer]``, by what its handler says that it takes and returns. With
    TypedDicts, a job with a wrong key is found, and so is a misspelt key of what ``raise_for_error()`` returns.

    After Perl's Parallel::Fork::BossWorkerAsync.
    """

    def __init__(
        self,
        work_handler: Callable[[Job_contra], Answer_co | None],
        *,
        result_handler: Callable[[Result[Answer_co]], Mapping[Any, Any] | None] | None = None,
        init_handler: Callable[[], object] | None = None,
        exit_handler: Callable[[], object] | None = None,
        global_timeout: float | None = 0,
        worker_count: int | None = None,
        kill_grace: float = 1.0,
        retries: int = 0,
        max_pending: int | None = 0,
        max_jobs_per_worker: int | None = 0,
        max_worker_memory: int | None = 0,
        max_job_memory: int | None = 0,
        start_method: StartMethod = "fork",
        close_fds: bool = False,
        transport: Literal["zmq", "socketpair"] = "zmq",
        logs: Literal["inherit", "relay", "discard"] = "inherit",
        name: str | None = None,
        engine: object = None,
        journal: str | os.PathLike[str] | None = None,
        interrupted: Literal["report", "rerun"] = "report",
        max_journal_age: float | None = 0,
        max_journal_size: int | None = 0,
    ) -> None:
        check_callable("work_handler", work_handler, optional=False)
        check_callable("result_handler", result_handler)
        check_callable("init_handler", init_handler)
        check_callable("exit_handler", exit_handler)
        if engine is not None:
            worker_count = self._become_engine(engine, worker_count)
        self._options = check_options(
            global_timeout=global_timeout,
            worker_count=worker_count,
            kill_grace=kill_grace,
            retries=retries,
            max_pending=max_pending,
            max_jobs_per_worker=max_jobs_per_worker,
            max_worker_memory=max_worker_memory,
            max_job_memory=max_job_memory,
            start_method=start_method,
            close_fds=close_fds,
            transport=transport,
            logs=logs,
            journal=journal,
            interrupted=interrupted,
            max_journal_age=max_journal_age,
            max_journal_size=max_journal_size,
            name=name,
            handler=work_handler,
        )
        if not self._options.worker_count:
            self._become_inline()
        self._neglect_told = False
        self._result_handler = result_handler
        self._inbox = Inbox()
        self._futures: OpenFutures | None = None  # those of submit, from the first on
        self._books: list[OpenFutures] = []  # these, and those of executors
        self._first_future = threading.Lock()
        handlers = Handlers(work_handler, init_handler, exit_handler)
        # For `reload`. A worker that is spawned later opens semaphores by name, which go with the last one here.
        self._current_handlers = handlers
        self._loaded = LoadedModules() if start_method == "fork" else None
        try:
            self._start(handlers)
        except BaseException:
            if hasattr(self, "_ending"):
                self._ending.at_once()
            elif self._journal is not None:
                self._journal.abandon()
            raise

    def _become_inline(self) -> None:
        """ValueError: see `_check_inline`."""
        if type(self) is BossWorker:
            from bossworker.pool.caller.inline_pool import InlinePool  # which is seldom needed

            # Not by a __new__, whose arguments would be what help() shows of the class.
            self.__class__ = InlinePool  # type: ignore[assignment]
        self._check_inline()

    def _become_engine(self, engine: object, worker_count: int | None) -> int | None:
        """Have jobs run elsewhere; the number of workers to check. TypeError, ValueError: not by that."""
        # By its name, since what is there stands on this module; and for the same reason as inline pools.
        self.__class__ = import_module("bossworker.engines.engine_pool").on_engine(type(self))
        return self._adopt(engine, worker_count)

    def _adopt(self, engine: object, worker_count: int | None) -> int | None:
        raise NotImplementedError

    def _check_inline(self) -> None:
        """ValueError: This class has no inline pools, or these settings mean nothing to one."""
        which = f"of a subclass of BossWorker ({type(self).__name__})"
        raise ValueError(f"worker_count {which} must be at least 1, not 0: only BossWorker itself can be inline")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a BossWorker is a handle that belongs to its process: it can be neither copied nor pickled")

    def _ask(self, kind: Kind, head: bytes = b"", body: Sequence[bytes] = ()) -> dict[str, Any]:
        answer = self._connection.request(kind, head, body)
        if answer is None:
            self._state.check_alive()
            raise PoolClosed("the pool has been shut down")
        return answer

    # -- the end ----------------------------------------------------------------------------------------

    def shut_down(self, force: bool = False, timeout: float | None = None) -> None:
        """End the pool. May be called again; from a signal handler, only with ``force=True``.

        In order: queued work is processed, ``exit_handler`` runs in each worker, and every result can still be
        retrieved afterwards. With ``force=True``: boss, workers and what they started are gone within a second, and
        so are the results: ``pending()`` is 0.

        A worker that leaves in order waits for its threads, and for what its exit functions wait for: a
        ``multiprocessing.Queue``, for instance, until somebody takes what was put into it.

        Args:
            timeout: Wait for the orderly end at most this many seconds. No new work is taken from then on; call again
                to go on waiting, or with ``force=True``.

        Raises:
            TimeoutError: The work was not done in `timeout` seconds.
            BossDied: The boss died before it was.

        Warns (RuntimeWarning) of workers whose ``exit_handler`` has failed.
        """
        check_bool("force", force)  # or shut_down(10) would end at once what it is to wait for
        if timeout is not None:
            timeout = check_seconds("timeout", timeout)
        self._state.check_owner()
        if force:
            self._ending.at_once()
        elif not self._state.ended:
            self._ending.in_order(timeout)
        else:
            self._ending.await_end()

    def __enter__(self) -> Self:
        self._state.check_owner()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._state.foreign:
            return
        if kind is not None:
            self._ending.soon(self._options.kill_grace)
            return
        try:
            self.shut_down()
        except BaseException:
            # A second thread may have ended it while we were interrupted.
            if not self._state.ended:  # it is Ctrl-C that comes while we wait
                self._ending.soon(self._options.kill_grace)
            raise

    def __del__(self) -> None:
        if not hasattr(self, "_ending") or self._state.is_foreign():  # construction failed
            return
        try:
            self._warn_of_neglect()
        finally:
            if not self._ending.over:
                self._ending.at_once()

    def _warn_of_neglect(self) -> None:
        """Nobody has shut it down, and nobody is going to."""
        if self._neglect_told or self._state.ended or self._state.foreign:
            return
        self._neglect_told = True
        lost, text = self._inbox.unfinished(), f"{self!r} was not shut down"
        if lost:
            text += f", and {lost} of its jobs are unfinished"
            _logger.warning("pool dropped: boss=%d unfinished=%d pool=%r", self.boss_pid, lost, self.name)
        warnings.warn(text, ResourceWarning, source=self, stacklevel=3)

    @property
    def name(self) -> str:
        """What it is called."""
        return self._options.name

    def __repr__(self) -> str:
        state = "closed" if self._state.closing else "open"
        return f"<BossWorker {self.name}, boss {self.boss_pid}, {self._inbox.pending()} pending, {state}>"

    def _disown(self) -> None:
        """In a forked child: let go of the parent's pool."""
        self._state.foreign = True
        # Other threads of the program are not here, but whatever lock they had at the fork is taken for ever.
        self._inbox = Inbox()  # the old one's lock may be held by a thread that is not here
        for book in self._books:
            book.disown()
        for page in self._ending.pages:
            page.disown()
        for door in self._ending.doors:
            door._disown()
        self._connection.close(in_child=True)
