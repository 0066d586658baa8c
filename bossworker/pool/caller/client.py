"""The caller's handle on a pool: what programs use."""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings
import weakref
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, Self, TypeVar, overload

from bossworker.display import table
from bossworker.errors import (
    NothingPending,
    PoolClosed,
    ResultHandlerError,
    WorkerStartError,
)
from bossworker.pool.caller.connection import Connection
from bossworker.pool.caller.controls import PoolControls, prepare_of
from bossworker.pool.caller.ending import PoolEnding
from bossworker.pool.caller.inbox import Inbox
from bossworker.pool.caller.looks import PoolLooks
from bossworker.pool.caller.mapping import Map, PoolParts
from bossworker.pool.caller.outbox import Outbox
from bossworker.pool.caller.state import HandleState
from bossworker.pool.caller.taps import Tap
from bossworker.pool.launch import launch
from bossworker.pool.options import Handlers, StartMethod, check_options, check_workers
from bossworker.pool.reloading import LoadedModules
from bossworker.pool.wire import messages
from bossworker.pool.wire.codec import type_phrase
from bossworker.pool.wire.messages import Kind
from bossworker.result import Result, make_result
from bossworker.system import processes, signals, stdio
from bossworker.system.checks import check_bool, check_callable, check_count, check_seconds
from bossworker.system.exits import run_at_exit
from bossworker.watch.progress_bar import check_progress, length_of, with_bar

if TYPE_CHECKING:
    from typing_extensions import TypeVar as _TypeVar

    from bossworker.pool.caller.futures import JobFuture, OpenFutures
    from bossworker.pool.caller.journaled import JournalOutbox, OpenJournal
    from bossworker.pool.door.keys import Keys
    from bossworker.pool.door.listening import Door

    _Book = TypeVar("_Book", bound=OpenFutures)
    # Not Any by default: of an Answer | None, mypy would then infer Any from a handler that returns a number.
    Answer_co = _TypeVar("Answer_co", bound=Mapping[Any, Any], covariant=True, default=Mapping[Any, Any])
    Job_contra = _TypeVar("Job_contra", bound=Mapping[Any, Any], contravariant=True, default=Any)
else:
    Answer_co = TypeVar("Answer_co", covariant=True)
    Job_contra = TypeVar("Job_contra", contravariant=True)

_handles: weakref.WeakSet[BossWorker[Any, Any]] = weakref.WeakSet()
_logger = logging.getLogger("bossworker")
_logger.addHandler(logging.NullHandler())  # nothing is printed unless the program asks for it


class BossWorker(PoolControls, PoolLooks, Generic[Job_contra, Answer_co]):
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
            handlers travel as with ``"spawn"``. BossWorker itself can be on an engine, not a subclass of it.
        journal: Path of a database (SQLite; it is made if it is not there) that keeps jobs and results. When
            ``add_work`` has returned, its jobs are on the disk, and so is a result before it is handed out. Whoever
            opens the journal next, however this program ended, goes on where it was: jobs that never started are run;
            those that may have run are `interrupted`; results that nobody has got are handed out. A result counts as
            got once the program asks for another one, or shuts the pool down in order. Leaving by force, or by an
            exception, leaves what is queued in the journal; leaving in order does it first. A journal has one owner at
            a time; ``bossworker.journal.open`` tells any process what is in it. Handlers are not kept. Neither are the
            jobs of programs that come in by a door. It lies on a local disk: see the guarantees in the manual.
        interrupted: What becomes of a job that may have run when the journal's last owner ended, and has no result:
            ``"report"``: it has one now, with ERROR ``BossWorkerAsync: interrupted``. ``"rerun"``: it is run again,
            which counts as an attempt.

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
        if type(self) is not BossWorker:
            raise ValueError(f"engine must be None for a subclass of BossWorker ({type(self).__name__})")
        # By its name, since what is there stands on this module; and for the same reason as inline pools.
        self.__class__ = import_module("bossworker.engines.engine_pool").EnginePool
        return self._adopt(engine, worker_count)

    def _adopt(self, engine: object, worker_count: int | None) -> int | None:
        raise NotImplementedError

    def _check_inline(self) -> None:
        """ValueError: This class has no inline pools, or these settings mean nothing to one."""
        which = f"of a subclass of BossWorker ({type(self).__name__})"
        raise ValueError(f"worker_count {which} must be at least 1, not 0: only BossWorker itself can be inline")

    _connection_type = Connection
    _journal: OpenJournal | None = None

    def __reduce__(self) -> NoReturn:
        raise TypeError("a BossWorker is a handle that belongs to its process: it can be neither copied nor pickled")

    def _start(self, handlers: Handlers) -> None:
        try:
            self._open_journal()
            with signals.held(), stdio.stdio_reserved():
                self._launch(handlers)
        except OSError as error:
            if error.errno is None:  # what a signal handler of the program's raises, a TimeoutError for instance
                raise
            reason = processes.describe_shortage(error.errno, error.strerror)
            raise WorkerStartError(f"the pool's processes could not be started: {reason}") from error
        self._await_start()

    def _launch(self, handlers: Handlers) -> None:
        if self._journal is not None:
            connection = self._journal.launch(handlers, self._options, self._connection_type, self._inbox)
        else:
            launched = launch(handlers, self._options)
            try:
                connection = self._connection_type(launched, self._inbox)
            except BaseException:
                launched.abandon()
                raise
        self._attach(connection, prepare_of(handlers))

    def _open_journal(self) -> None:
        """JournalInUse, JournalError."""
        if self._options.journal and self._journal is None:
            from bossworker.pool.caller.journaled import OpenJournal  # which is for those pools that have one

            self._journal = OpenJournal(self._options)

    _state_type = HandleState

    def _attach(self, connection: Connection, prepare: Callable[[Any], Any] | None) -> None:
        """Put the handle together, once it has a connection."""
        self._connection = connection
        self._waiters = self._connection.turns.waiters
        self._state = self._state_type(self._connection, self._inbox)
        outbox_type = Outbox if self._journal is None else self._journal.outbox_type
        self._outbox = outbox_type(self._connection, self._inbox, self._state, self._options, prepare)
        if self._journal is not None:
            self._journal.attach(self._outbox, self._state)
        self._ending = PoolEnding(self._connection, self._inbox, self._outbox, self._state, self._books)
        _handles.add(self)
        run_at_exit(_at_exit)

    def _await_start(self) -> None:
        line = self._connection
        line.wait_until(lambda: line.up or bool(line.failure))
        if not line.up:
            raise WorkerStartError(line.why_not_up())
        if self._journal is not None:
            self._journal.await_recovery()

    # -- jobs in ----------------------------------------------------------------------------------------

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
            raise ValueError("resume needs a journal: make the pool with journal=PATH")
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

    # -- results out ------------------------------------------------------------------------------------

    def pending(self) -> int:
        """How many jobs were added whose results have not been retrieved. Truthy while there are any.

        A job of ``submit`` counts until its future is done.
        """
        if self._state.foreign:
            self._state.check_owner()
        if self._books:
            for book in self._books:
                book.look(glance=True)
        return self._inbox.pending()

    @overload
    def get_result(self, blocking: Literal[True] = True, timeout: None = None) -> Result[Answer_co]: ...

    @overload
    def get_result(self, blocking: bool = True, timeout: float | None = None) -> Result[Answer_co] | None: ...

    def get_result(self, blocking: bool = True, timeout: float | None = None) -> Result[Answer_co] | None:
        """The next finished job's result, in order of completion.

        Args:
            blocking: Wait for one. Otherwise, None when none is ready.
            timeout: Wait for at most this many seconds; then None.

        Raises:
            NothingPending: Blocking, with no job outstanding.
            ResultHandlerError: The ``result_handler`` raised; ``.result`` is what it was given.
            BossDied: The boss is gone, and every result that it sent has been retrieved.
        """
        try:
            for result in self._inbox.pops:  # noqa: B007 - as in `Inbox.next`, without that call
                break
        except IndexError:
            result = None
        if result is None:
            result = self._await_result(blocking, timeout)
            if result is None:
                return None
        if self._state.tells_others or self._waiters:
            self._tell_others_of(result)
        return result if self._result_handler is None else self._handle(result)

    def get_result_nb(self) -> Result[Answer_co] | None:
        """``get_result(blocking=False)``."""
        return self.get_result(blocking=False)

    def results(self, *, progress: bool | float = False) -> Iterator[Result[Answer_co]]:
        """Results as they come, until nothing is pending. `progress`: with a bar, as of ``map``."""
        seconds = check_progress(progress)
        if seconds is None:
            return self._results()
        return with_bar(self._results(), self._inbox.outstanding, seconds, self._connection)

    def _results(self) -> Iterator[Result[Answer_co]]:
        while self._inbox.outstanding > 0:
            try:
                result = self.get_result()
            except NothingPending:  # another thread took the last one
                return
            if result is not None:
                yield result
        self._state.check_owner()

    def _await_result(self, blocking: bool, timeout: float | None) -> Result | None:
        self._state.check_owner()
        inbox, line = self._inbox, self._connection
        if timeout is not None:
            timeout = check_seconds("timeout", timeout)
        if not blocking:
            line.poll()
            result = inbox.next()
            if result is None:
                self._state.check_results()
                self._tell_others()
            return result
        deadline = None if timeout is None else time.monotonic() + timeout
        while (result := inbox.next()) is None:
            if inbox.outstanding <= 0:
                raise NothingPending("no job is outstanding: add_work first, or ask without blocking")
            if not line.wait_until(self._has_news, deadline):
                self._state.check_results()
                return inbox.next()
        return result

    def _has_news(self) -> bool:
        return self._inbox.has_news() or self._inbox.outstanding <= 0

    def _tell_others_of(self, result: Result) -> None:
        """The same when a result is about to be given out."""
        try:
            self._tell_others()
        except BaseException:  # Ctrl-C: as if it had not been asked for
            self._inbox.put_back(result)
            raise

    def _tell_others(self) -> None:
        """Keep fileno() readable while results wait here; let threads go that wait for nothing any more."""
        if self._state.fileno_used:
            self._connection.show_readiness(self._inbox.has_news)
        if self._inbox.outstanding <= 0:
            self._connection.wake()
        self._connection.on_given_out()

    def _handle(self, result: Result) -> Result:
        assert self._result_handler is not None
        try:
            handled = self._result_handler(result)
            if handled is result:
                return result
            if not isinstance(handled, Mapping | None):
                raise TypeError(f"it returned {type_phrase(handled)}, not a mapping or None")
            return make_result(handled or {}, result._origin, result._at)
        except Exception as error:
            text = f"result_handler failed on job {result.job_id}: {type(error).__name__}: {error}"
            raise ResultHandlerError(text, result) from error
        except BaseException:  # Ctrl-C: as if it had not been asked for
            self._inbox.put_back(result)
            raise

    def map(
        self,
        jobs: Iterable[Job_contra],
        *,
        ordered: bool = True,
        timeout: float | None = None,
        progress: bool | float = False,
        resume: bool = False,
    ) -> Generator[Result[Answer_co], None, None]:
        """Run the jobs of an iterable, endless if you like; yield a Result a job.

        Lazy: takes from `jobs` only as results are taken from it, and keeps a bounded number in flight: eight a worker
        at first, and as many more as have come back, up to 4,096. Results of other jobs are left for ``get_result``.
        When it is closed early, the jobs in flight are cancelled and their results dropped. When `jobs` raises, or
        gives what is no job (TypeError, with its index), map raises that after the results of the jobs before it.

        Args:
            ordered: Yield in the order of `jobs`; otherwise, as completed.
            timeout: Seconds each of these jobs may run; None: the pool's ``global_timeout``.
            progress: Show how far it is, with the rate, the failures and the time that is left: by tqdm where that is
                installed, in notebooks too, else by a line on stderr where that is a terminal. A number: where it is no
                terminal, a line every this many seconds. How many jobs there are is known if `jobs` has a length. What
                running jobs say by ``current_job().progress`` is shown, of three of them. (Of a pool that is reached by
                ``connect`` it cannot be seen.)
            resume: As of ``add_work``: jobs that have a good result in the journal are not run.
        """
        seconds = check_progress(progress)
        iterator = iter(jobs)
        job_options = self._outbox.job_options(timeout, 0, None)
        self._state.check_open()
        add = self._journal_outbox().send_resumed if check_bool("resume", resume) else self._outbox.send
        results = Map(self._parts(), iterator, job_options, ordered, self._options.worker_count or 1, add).results()
        if seconds is not None:
            results = with_bar(results, length_of(jobs), seconds, self._connection)
        return self._handled(results)

    def _handled(self, results: Generator[Result, None, None]) -> Generator[Result, None, None]:
        """Results after the ``result_handler``, if there is one."""
        if self._result_handler is None:
            return results
        return self._handle_each(results)

    def _handle_each(self, results: Generator[Result, None, None]) -> Generator[Result, None, None]:
        with closing(results):
            for result in results:
                yield self._handle(result)

    # -- orders -----------------------------------------------------------------------------------------

    def cancel(self, *ids: int, queued_only: bool = False) -> int:
        """Cancel jobs; return how many of them had not finished.

        A queued one never runs; a running one is stopped as by a timeout. Each still yields one Result, with
        ERROR ``BossWorkerAsync: cancelled``. Ids that are finished or unknown are passed over.

        Args:
            queued_only: Leave those alone that a worker has got, and do not count them.
        """
        for job_id in ids:
            check_count("job id", job_id, most=(1 << 63) - 1)
        self._state.check_owner()
        live = [job_id for job_id in dict.fromkeys(ids) if job_id in self._inbox.jobs]
        if not live or self._connection.gone:
            return 0
        how = messages.QUEUED_ONLY if check_bool("queued_only", queued_only) else b""
        answer = self._connection.request(Kind.CANCEL, how, [array("Q", live).tobytes()])
        return int(answer["count"]) if answer is not None else 0

    def resize(self, n: int) -> None:
        """Change the number of workers. Surplus workers leave when they have finished their job."""
        check_workers("n", n)
        self._state.check_open()
        self._ask(Kind.RESIZE, messages.COUNT.pack(n))

    def _ask(self, kind: Kind, head: bytes = b"", body: Sequence[bytes] = ()) -> dict[str, Any]:
        answer = self._connection.request(kind, head, body)
        if answer is None:
            self._state.check_alive()
            raise PoolClosed("the pool has been shut down")
        return answer

    def fileno(self) -> int:
        """A descriptor that is readable when a result may be ready, for select, selectors or asyncio's add_reader.

        It stays readable while results wait. After it fired, call ``get_result_nb`` until it returns None.
        """
        self._state.check_owner()
        if self._state.ended and not self._state.fileno_used:
            raise PoolClosed("the pool has been shut down")
        fd = self._connection.fileno()
        if not self._state.fileno_used:
            self._state.fileno_used = self._state.tells_others = True
            self._connection.show_readiness(self._inbox.has_news)
        return fd

    def _tap(self, tap: Tap) -> None:
        """Tell it of jobs and results from now on. RuntimeError when there is one already."""
        if self._inbox.tap is not None:
            raise RuntimeError("this pool is instrumented already")
        self._inbox.tap = tap

    # -- other programs ---------------------------------------------------------------------------------

    def listen(
        self,
        address: str | None = None,
        *,
        keys: Keys | None = None,
        accept: Literal["pickle", "json"] = "pickle",
    ) -> Door:
        """Open the pool to other programs, which come in by ``bossworker.connect``; they speak ZeroMQ with it.

        A process of its own holds the door, so that nobody out there can slow the boss or harm the pool.

        Args:
            address: None: a socket in this user's runtime directory (0700), named after the pool. ``ipc://PATH``: a
                socket there, which is this user's alone (0600) unless you chmod it. ``tcp://HOST:PORT``, only with
                `keys`; port 0 takes a free one.
            keys: Whom to let in, over tcp: see :func:`bossworker.keys`.
            accept: ``"pickle"``: jobs are what they are for this program. Whoever may connect can run any code in the
                workers. ``"json"``: jobs and results are JSON, and no pickle from outside is ever loaded; any program
                that speaks ZeroMQ may be a client.

        Raises:
            TypeError, ValueError: An argument is wrong: tcp without keys, above all. Or the pool is inline.
            OSError: The address is in use, or cannot be had.
            PoolClosed: After ``shut_down``.
        """
        from bossworker.pool.caller.doors import open_door

        return open_door(
            self._parts(), self._options, self._current_handlers.work, self._ending.doors, address, keys, accept
        )

    def web(self, port: int = 0, *, unix_socket: str | os.PathLike[str] | None = None, read_only: bool = False) -> str:
        """Serve the pool's page, and return the address to open in a browser; it ends with the pool.

        It is a process of its own, at the loopback address, which looks at the pool through a door (one is opened, by
        ``listen()``, if there is none): this program does nothing for it. Whoever opens it needs the token that is part
        of the address. Called again with the same arguments, it returns the same address. Needs the extra ``web``.

        Args:
            port: 0: a free one.
            unix_socket: Serve at this path instead, for this user alone: for ``ssh -L`` or a proxy.
            read_only: It only shows.

        Raises:
            TypeError, ValueError: An argument is wrong. Or the pool is inline.
            ImportError: The extra ``web`` is not installed.
            OSError: The port, or the path, cannot be had.
            PoolClosed: After ``shut_down``.
        """
        from bossworker.pool.caller.own_page import open_page

        self._state.check_open()
        ending = self._ending
        return open_page(ending.pages, ending.doors, self.listen, self.name, port, unix_socket, read_only)

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
        if timeout is not None:
            timeout = check_seconds("timeout", timeout)
        self._state.check_owner()
        if force:
            self._ending.at_once()
        elif not self._state.ended:
            self._ending.in_order(timeout)

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
            if not self._state.ended:  # it is Ctrl-C that comes while we wait
                self._ending.soon(self._options.kill_grace)
            raise

    def __del__(self) -> None:
        if not hasattr(self, "_ending") or self._state.foreign:  # construction failed
            return
        try:
            self._warn_of_neglect()
        finally:
            self._ending.at_once()

    def _warn_of_neglect(self) -> None:
        """Nobody has shut it down, and nobody is going to."""
        if self._neglect_told or self._state.ended or self._state.foreign:
            return
        self._neglect_told = True
        lost, text = self._inbox.unfinished(), f"{self!r} was not shut down"
        if lost:
            text += f", and {lost} of its jobs are unfinished"
            _logger.warning("pool dropped boss=%d unfinished=%d", self.boss_pid, lost)
        warnings.warn(text, ResourceWarning, source=self, stacklevel=3)

    @property
    def name(self) -> str:
        """What it is called."""
        return self._options.name

    def __repr__(self) -> str:
        state = "closed" if self._state.closing else "open"
        return f"<BossWorker {self.name}, boss {self.boss_pid}, {self._inbox.pending()} pending, {state}>"

    def _repr_html_(self) -> str:
        """What is known here: the boss is not asked, and nothing waits."""
        rows = [("boss", self.boss_pid), ("pending", self._inbox.pending()), ("see also", "stats()")]
        return table(f"BossWorker {self.name}, {'closed' if self._state.closing else 'open'}", rows)

    def _disown(self) -> None:
        """In a forked child: let go of the parent's pool."""
        self._state.foreign = True
        self._inbox = Inbox()  # the old one's lock may be held by a thread that is not here
        for book in self._books:
            book.disown()
        for page in self._ending.pages:
            page.disown()
        for door in self._ending.doors:
            door.disown()
        self._connection.close(in_child=True)


def _in_child() -> None:
    for handle in list(_handles):
        handle._disown()


os.register_at_fork(after_in_child=_in_child)


def _at_exit() -> None:
    for handle in list(_handles):
        handle._warn_of_neglect()


# As early as this, since exit functions run last what was registered first: those of the program may shut pools down.
run_at_exit(_at_exit)
