"""``worker_count=0``: a pool without processes, whose jobs run in the thread that waits for their results.

What is above the connection (handle, maps, futures) is the same as of any pool, and so is what a job goes through: it
is pickled and rebuilt, and so is its result. In the place of the connection to a boss there is one that does itself
what it is asked for.
"""

from __future__ import annotations

import bdb
import os
import sys
import threading
import time
import traceback
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from types import EllipsisType
from typing import Any, NoReturn

from bossworker.errors import CANCELLED, WorkerStartError
from bossworker.failure import KIND_BITS, Outcome, describe, encode_text
from bossworker.function_calls import FunctionCall, run_call
from bossworker.pool.boss.job_queue import Queue
from bossworker.pool.caller.client import BossWorker
from bossworker.pool.caller.connection import Connection
from bossworker.pool.caller.controls import Handler, prepare_of
from bossworker.pool.caller.inbox import Inbox
from bossworker.pool.caller.listener_turns import ListenerTurns
from bossworker.pool.caller.readiness import ReadinessFd
from bossworker.pool.caller.said_by_boss import SaidByBoss
from bossworker.pool.options import Handlers
from bossworker.pool.wire import codec, messages
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.codec import encode_result
from bossworker.pool.wire.frames import Frame, Part, cut_frames
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.parcel import Parcel
from bossworker.pool.wire.progress import Progress
from bossworker.pool.wire.segments import Segment, single
from bossworker.pool.worker.current_job import CurrentJob, working_on
from bossworker.pool.worker.job_steps import blocks_of, describe_failed_init, failure_of
from bossworker.watch.relayed_lines import RelayedLines

_QUIT = (KeyboardInterrupt, bdb.BdbQuit)  # somebody at the keyboard wants out of the job, and of what asked for it


class InlineWorker:
    """Runs handlers, here and now."""

    def __init__(self, handlers: Handlers) -> None:
        self.handlers = handlers

    def start(self) -> str:
        """Call the init_handler; what went wrong, with its traceback."""
        error = self._call(self.handlers.init)
        return "" if error is None else describe_failed_init(self.handlers.init, error).decode()

    def leave(self) -> str:
        """Call the exit_handler; what went wrong. Its traceback goes to stderr, as from a worker."""
        error = self._call(self.handlers.exit)
        if error is None:
            return ""
        traceback.print_exception(error)
        return describe(error)

    def _call(self, handler: Handler) -> Exception | None:
        try:
            if handler is not None:
                with working_on(CurrentJob(0, 0, 0, None, _drop)):
                    handler()
        except Exception as error:
            return error
        return None

    def run(self, batch: Batch) -> tuple[Segment, BaseException | None]:
        """Run the one job of a batch; its result, and what is to be raised here besides."""
        started = time.monotonic()
        attempt, timeout = batch.job_options.attempt, batch.job_options.timeout
        deadline = started + timeout if timeout else None
        with working_on(CurrentJob(batch.first_id, attempt, 0, deadline, _drop)):
            outcome, payload, quitting = self._outcome(batch)
        if isinstance(payload, Parcel):
            outcome, payload = outcome | Outcome.WHOLE, payload.inline()
        elif not outcome & Outcome.WHOLE:
            payload = payload[:-1]
        ended = time.monotonic()
        segment = single(batch.first_id, os.getpid(), attempt, started, ended, outcome, memoryview(payload))
        return segment, quitting

    def _outcome(self, batch: Batch) -> tuple[int, bytes | Parcel, BaseException | None]:
        stage = Outcome.BAD_JOB
        try:
            job: Any = next(chain.from_iterable(blocks_of(batch)))
            if type(job) is memoryview:
                job = codec.load_job(job, None)
            work = run_call if type(job) is FunctionCall else self.handlers.work
            stage = Outcome.EXCEPTION
            value = work(job)
            stage = Outcome.BAD_RESULT
            return *encode_result(value), None
        except BaseException as error:
            return *failure_of(error, stage, False), error if isinstance(error, _QUIT) else None


def _drop(job_id: int, progress: Progress) -> None:
    """Nobody can look at the progress of a job here."""


class _NoLink:
    """What is asked of a link where there is none: all that was queued has been sent."""

    unsent = left_over = False


class _NoFiles:
    """Large jobs need not be lent."""

    def lend(self, parcel: Parcel, fds: list[int], job_id: int = 0) -> bool:
        return False


class InlineConnection(Connection):
    """See the module. It has no descriptor but that of ``fileno``, and nobody at its other end."""

    def __init__(self, worker: InlineWorker, inbox: Inbox) -> None:  # not Connection's, which connects
        self.worker = worker
        self.inbox = inbox
        self.pid = os.getpid()
        self.link: Any = _NoLink()
        self.memory_files: Any = _NoFiles()
        self.said = SaidByBoss()
        self.gone = False
        self.output = RelayedLines(inbox.jobs)
        self.bars = []
        self.turns = ListenerTurns(lambda: None)
        self.running: tuple[int, int] | None = None  # the job's id, and the thread that runs it
        self.paused = self._closing = False
        self.done = self.failed = 0
        self._queue = Queue()
        self._orders: deque[Frame] = deque()  # that have come, perhaps amid anything else
        self._lock = threading.RLock()  # for all that is above; not held while a job runs
        self._news = threading.Event()
        self._readiness = ReadinessFd()

    def running_progress(self) -> list[tuple[int, Progress]]:
        return []

    def _watch(self, selector: Any) -> None:
        """There is nothing to watch: `show_readiness` says all."""

    # -- what comes from the handle -----------------------------------------------------------------------

    def send_packed(self, parts: list[Part]) -> None:
        frames = _frames_of(parts)
        self._orders += frames  # no call: see `Link.queue`
        del parts[:]
        self._readiness.raise_()
        self.wake()

    def try_send(self, parts: Sequence[Part] = ()) -> bool:
        self._orders.extend(_frames_of(parts))
        self._readiness.raise_()
        return True

    def request(
        self, kind: Kind, head: bytes = b"", body: Sequence[bytes] = (), patient: bool = False
    ) -> dict[str, Any] | None:
        with self._lock:
            self._obey()
            match kind:
                case Kind.CANCEL:
                    return {"count": self._cancel(array("Q", b"".join(body)))}
                case Kind.PAUSE:
                    (self.paused,) = messages.SWITCH.unpack(head)
                    self.wake()
                    return {}
                case Kind.STATS:
                    return self._count()
        raise AssertionError(f"an inline pool is not asked for {kind!r}")

    def _obey(self) -> None:
        while self._orders:
            frame = self._orders.popleft()
            match frame.kind:
                case Kind.SUBMIT:
                    self._queue.add(Batch.read(frame.head, frame.body))
                case Kind.CANCEL:
                    self._cancel(frame.body.cast("Q").tolist())
                case Kind.CLOSE | Kind.STOP:
                    self._closing, self.paused = True, False
                    if frame.kind is Kind.STOP:
                        self._queue.drain()

    def _cancel(self, ids: Iterable[int]) -> int:
        """Strike out what is queued; how many that is."""
        removed, now = self._queue.remove(ids), time.monotonic()
        for job_id, attempt in removed:
            outcome = Outcome.CANCELLED | Outcome.TEXT
            self._give(single(job_id, 0, attempt - 1, now, now, outcome, memoryview(encode_text(CANCELLED))))
        return len(removed)

    def _count(self) -> dict[str, Any]:
        return {
            "queued": self._queue.jobs,
            "running": int(self.running is not None),
            "done": self.done,
            "failed": self.failed,
            "restarts": 0,
            "failed_starts": 0,
            "start_error": None,
            "workers": (),
            "paused": self.paused,
        }

    def glance(self) -> None:
        """Run nothing."""

    # -- work -------------------------------------------------------------------------------------------

    def wait_until(self, ready: Callable[[], bool], deadline: float | None = None, *, patient: bool = False) -> bool:
        running = self.running
        if running is not None and running[1] == threading.get_ident() and not ready():
            raise RuntimeError("a handler cannot wait for results of its own pool, which is inline (worker_count=0)")
        return super().wait_until(ready, deadline, patient=patient)

    def _listen(self, seconds: float | None) -> None:
        """Run a job, if there is one; or wait until something is asked for."""
        self._news.clear()
        if self._take_in() or self.gone:
            return
        with self._lock:
            done = self._closing and not self.paused and not self.said.orderly
        if done:
            self._leave()
        else:
            self._news.wait(seconds)

    def _take_in(self) -> bool:
        """Run one job; whether there was one."""
        with self._lock:
            self._obey()
            if self.paused or not self._queue.jobs:
                return False
            batch = self._queue.cut(1)
            self.running = batch.first_id, threading.get_ident()
        try:
            segment, quitting = self.worker.run(batch)
        finally:
            self.running = None
        with self._lock:
            self._give(segment)
        if quitting is not None:
            raise quitting
        return True

    def _give(self, segment: Segment) -> None:
        well = segment.outcomes[0] & KIND_BITS == Outcome.OK
        self.done += well
        self.failed += not well
        self.inbox.receive([segment])
        self._readiness.raise_()

    def _leave(self) -> None:
        if error := self.worker.leave():
            self.said.exit_errors[self.pid] = error
        self.said.orderly = self.gone = True

    def wake(self) -> None:
        self._news.set()
        self.turns.wake_waiters()

    def show_readiness(self, has_news: Callable[[], bool]) -> None:
        super().show_readiness(lambda: has_news() or bool(self._orders) or (self._queue.jobs > 0 and not self.paused))

    # -- the end ----------------------------------------------------------------------------------------

    def alive(self) -> bool:
        return not self.gone

    def end(self, force: bool) -> None:
        with self._lock:
            self._orders.clear()
            self._queue.drain()
        self.gone = True
        self.wake()

    def close(self, keep_sign: bool = False, in_child: bool = False) -> None:
        if not keep_sign:
            self._readiness.close()
        self.turns.closed = True
        if not in_child:
            self.wake()
            self.turns.close()


def _frames_of(parts: Sequence[Part]) -> list[Frame]:
    """What a boss would read."""
    return cut_frames(memoryview(b"".join(part for part, _ in parts)), [])[0]


class InlinePool(BossWorker):
    """A `BossWorker` made with ``worker_count=0``."""

    _connection: InlineConnection

    def _check_inline(self) -> None:
        if (logs := self._options.logs) != "inherit":
            why = "with worker_count=0 the handlers print and log here"
            raise ValueError(f"logs must be 'inherit' in an inline pool, not {logs!r}: {why}")

    def _launch(self, handlers: Handlers) -> None:
        self._attach(InlineConnection(InlineWorker(handlers), self._inbox), prepare_of(handlers))

    def _await_start(self) -> None:
        """Its init_handler may ask for the keyboard: no signal is held back any more."""
        if error := self._connection.worker.start():
            raise WorkerStartError(error)
        self._connection.said.up = True

    def resize(self, n: int) -> NoReturn:
        """Cannot be done."""
        raise ValueError("an inline pool (worker_count=0) has no workers, and cannot get any: make another pool")

    def events(self, since: int | None = None) -> NoReturn:
        """There is no boss that would note them."""
        raise ValueError("an inline pool (worker_count=0) has no events: what happens, happens in your own calls")

    def trace(self, path: str | os.PathLike[str]) -> NoReturn:
        """The same."""
        self.events()

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """None."""
        return ()

    def stack(self, job_id: int | None = None) -> str:
        """Of the thread that runs the job, if another asks."""
        running = self._connection.running
        if running is None or job_id not in (None, running[0]):
            return ""
        frame = sys._current_frames().get(running[1])
        lines = traceback.format_stack(frame)[::-1]
        return f"process {os.getpid()}: job {running[0]} (most recent call first):\n{''.join(lines)}".rstrip()

    def reload(
        self,
        work_handler: Callable[[Any], Mapping[Any, Any] | None] | None = None,
        *,
        init_handler: Handler | EllipsisType = ...,
        exit_handler: Handler | EllipsisType = ...,
    ) -> None:
        """As of any pool: the new ``init_handler`` is called, then the old ``exit_handler``."""
        self._state.check_open()
        handlers = self._other_handlers(work_handler, init_handler, exit_handler)
        successor = InlineWorker(handlers)
        self._take_over(handlers, {"error": successor.start()})
        self._connection.worker.leave()
        self._connection.worker = successor
