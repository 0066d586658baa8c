"""A pool that is watched: one look every quarter of a second, however many people look at the page."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from bossworker.errors import BossDied, BossWorkerError, DoorRefused, PoolClosed
from bossworker.function_calls import run_call
from bossworker.pool.caller.client import BossWorker
from bossworker.pool.caller.operating import FailedRecord, Now, Operator, name_of
from bossworker.pool.caller.remote_operator import RemoteOperator
from bossworker.pool.options import handler_name
from bossworker.web.job_insides import JobInsides
from bossworker.web.job_queries import JobQuery, JobView
from bossworker.web.job_table import JobTable
from bossworker.web.job_texts import fields_of, text_of
from bossworker.web.pool_history import PoolHistory

LOOK_SECONDS = 0.25  # between looks while somebody looks at the page
IDLE_SECONDS = 2.0  # and while nobody does, so that charts have a past
USAGE_SECONDS = 1.0  # between looks at memory and processor time, which take longest
QUEUE_SECONDS = 0.5  # for which a list of queued jobs is taken for true
CONNECTING = "connecting"  # why a pool is away that nobody has looked at yet
NO_LINES = -1  # of a job's output
MOST_TEXTS = 20_000  # of jobs that are remembered
TEXTS_AT_ONCE = 200  # jobs that are asked for in a request
MOST_SEARCHED = 4000  # queued and failed jobs whose texts are fetched for a search

_logger = logging.getLogger("bossworker.web")
Handle = BossWorker[Any, Any] | RemoteOperator
"""Of a pool of this program, or of another one."""

_CALLS = handler_name(run_call)  # of a pool whose jobs say what is to be run: it has no handler to be reloaded

_Gone = (PoolClosed, BossDied, DoorRefused, OSError, TimeoutError)


class PoolAway(Exception):
    """The pool cannot be asked now; the text says why."""


class WatchedPool:
    """See the module. `connect` gives a handle, whenever there is none."""

    def __init__(self, key: str, name: str, connect: Callable[[], Handle]) -> None:
        self.key = key
        self.name = name
        self.why_away = CONNECTING
        self.table = JobTable()
        self.history = PoolHistory()
        self.now: Now | None = None
        self._connect = connect
        self._handle: Handle | None = None
        self._operator: Operator | None = None
        self.lock = threading.RLock()
        self._seen = self._seen_failed = 0
        self._seen_of = 0  # the boss whose events these are
        self._usage_at = 0.0
        self._usage: dict[int, tuple[int, float, float]] = {}  # pid -> bytes, seconds, share of a processor
        self._queued: list[range] = []
        self._queued_at = 0.0
        self._texts: OrderedDict[int, str] = OrderedDict()
        self._insides = JobInsides()

    # -- looks --------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Once. What goes wrong is told by `why_away`."""
        with self.lock:
            try:
                self._look(self._operate())
                self.why_away = ""
            except _Gone as error:
                self._away(str(error) or type(error).__name__)
            except BossWorkerError as error:
                self._away(str(error))

    def _away(self, why: str) -> None:
        if not self.why_away:
            _logger.info("pool away name=%r reason=%r", self.name, why)
        self.why_away = why
        self.now = None
        self.let_go()

    def _operate(self) -> Operator:
        if self._operator is None:
            handle = self._handle = self._connect()
            self._operator = handle if isinstance(handle, RemoteOperator) else handle.operator
            self.name = handle.name
            if handle.boss_pid != self._seen_of:
                self._begin_anew()
            self._seen_of = handle.boss_pid
        return self._operator

    def _begin_anew(self) -> None:
        """It is another pool than before: ids begin anew."""
        self.table, self.history = JobTable(), PoolHistory()
        self._seen = self._seen_failed = 0
        self._texts.clear()
        self._insides = JobInsides()

    def _look(self, operator: Operator) -> None:
        usage = time.monotonic() >= self._usage_at
        now = operator.now(self._seen, usage)
        self._seen = now.seen
        self.table.note(now)
        if now.last_failed > self._seen_failed and (failed := operator.failed(self._seen_failed)):
            self.table.note_failed(failed)
            self._seen_failed = failed[-1].number
        # At once: what runs now may have ended by the time that somebody looks.
        self._learn([worker.job_id for worker in now.stats.workers if worker.job_id is not None], operator)
        if usage:
            self._usage_at = time.monotonic() + USAGE_SECONDS
            self._note_usage(now)
        self.history.note(now, self.table)
        self.now = now

    def _note_usage(self, now: Now) -> None:
        before, usage = self._usage, dict[int, tuple[int, float, float]]()
        for worker in now.stats.workers:
            _, seconds, _ = before.get(worker.pid, (0, worker.cpu_seconds, 0.0))
            share = max(0.0, worker.cpu_seconds - seconds) / max(0.05, now.time - self._noted_at) if before else 0.0
            usage[worker.pid] = worker.rss, worker.cpu_seconds, share
        self._noted_at, self._usage = now.time, usage

    _noted_at = 0.0

    def let_go(self) -> None:
        """Hang up."""
        with self.lock:
            handle, self._handle, self._operator = self._handle, None, None
            if isinstance(handle, RemoteOperator):
                handle.close()

    @property
    def handle(self) -> Handle | None:
        """For metrics and traces."""
        return self._handle

    @property
    def boss_pid(self) -> int:
        """0 while it is away."""
        handle = self._handle  # which may be let go of meanwhile
        return 0 if handle is None else handle.boss_pid

    def _ask(self) -> Operator:
        if self.why_away == CONNECTING:  # nobody has looked yet
            self.look()
        if self._operator is None or self.why_away:
            raise PoolAway(f"pool {self.name} is away: {self.why_away}")
        return self._operator

    # -- what is shown ------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """The figures of the last look. Without the lock: a pool that does not answer must not hold up the others."""
        now, handle = self.now, self._handle
        told: dict[str, Any] = {"key": self.key, "name": self.name, "away": self.why_away}
        told["boss"] = 0 if handle is None else handle.boss_pid
        if now is None:
            return told | {"away": self.why_away or CONNECTING}
        stats = now.stats
        return told | {
            "paused": stats.paused,
            "target": now.target,
            "queued": stats.queued,
            "running": stats.running,
            "done": stats.done,
            "failed": stats.failed,
            "kinds": stats.failed_by_kind,
            "restarts": stats.restarts,
            "reasons": stats.restart_reasons,
            "start_error": stats.start_error,
            "reload": {**now.reload._asdict(), "offered": now.reload.handler != _CALLS},
            "workers": [self._worker(worker) for worker in sorted(stats.workers, key=lambda one: one.index)],
            "point": self.history.newest,
        }

    def _worker(self, worker: Any) -> dict[str, Any]:
        rss, _, share = self._usage.get(worker.pid, (0, 0.0, 0.0))
        return {
            "index": worker.index,
            "pid": worker.pid,
            "state": worker.state,
            "id": None if worker.job_id is None else str(worker.job_id),
            "name": None if worker.job_id is None else name_of(worker.job_id),
            "text": self._texts.get(worker.job_id or 0),
            "seconds": worker.seconds,
            "done": worker.jobs_done,
            "rss": rss,
            "cpu": share,
            "progress": None if worker.progress is None else list(worker.progress),
        }

    def view(self) -> JobView:
        """All jobs at this instant. PoolAway."""
        with self._talking() as operator, self.lock:
            if time.monotonic() >= self._queued_at + QUEUE_SECONDS:
                self._queued = operator.queued()
                self._queued_at = time.monotonic()
                self._look(operator)  # after that: what is queued no more is seen to run, or to have ended
            assert self.now is not None
            return JobView(self.table, self._queued, self.now.stats.workers, self._texts)

    def find(self, query: JobQuery, offset: int, limit: int) -> dict[str, Any]:
        """Some of the jobs that are wanted, and how many there are."""
        with self._talking(), self.lock:
            view = self.view()
            if query.text:
                self._learn(self._searched(view))
            total, ids = view.find(query, offset, limit)
            self._learn(ids)
            return {"total": total, "offset": offset, "rows": [view.row(job_id) for job_id in ids]}

    def ids(self, query: JobQuery, most: int) -> list[int]:
        """All of them."""
        with self._talking(), self.lock:
            view = self.view()
            if query.text:
                self._learn(self._searched(view))
            return view.find(query, 0, most)[1]

    def _searched(self, view: JobView) -> list[int]:
        """The jobs whose texts the boss may still know."""
        ids = [*view.running, *reversed(view.table.records)][:MOST_SEARCHED]
        for stretch in view.queued:
            ids += stretch[: max(0, MOST_SEARCHED - len(ids))]
        return ids

    def job(self, job_id: int) -> dict[str, Any] | None:
        """All that is known of a job."""
        with self._talking() as operator, self.lock:
            view = self.view()
            if not self.table.knows(job_id):
                return None
            self._learn([job_id])
            content = operator.job(job_id)
            record = self.table.records.get(job_id)
            return {
                **view.row(job_id),
                "pool": self.key,
                "content": None if content is None else fields_of(content.value),
                "options": None if content is None else dict(content.options),
                "traceback": None if record is None else record.traceback,
                "result": fields_of(record.result) if record is not None and record.result else None,
                "inside": self._look_inside(operator, job_id),
            }

    def _look_inside(self, operator: Operator, job_id: int) -> dict[str, Any]:
        asked_at = time.time()
        try:
            told = operator.output(job_id, NO_LINES)
        except BossWorkerError as error:
            if isinstance(error, _Gone):
                raise
            return {"unseen": f"What it writes cannot be had: {error}."}  # that program has an older version of us
        self._insides.note_directory(job_id, told, asked_at)
        return self._insides.describe(job_id, told)

    def lines(self, job_id: int, since: int) -> dict[str, Any]:
        """What a job has printed and logged, from a line on."""
        told = self.order(lambda operator: operator.output(job_id, since))
        lines = [[line.stream, line.text] for line in told.lines]
        return {"first": told.first, "next": told.next, "lines": lines, "running": self._is_running(job_id)}

    def output(self, job_id: int, stream: str, since: int) -> dict[str, Any] | None:
        """What a job that is a command has written, from a byte on."""
        running = self._is_running(job_id)  # before we read: what is read then is all
        with self.lock:
            found = self._insides.output(job_id, stream, since)
        return None if found is None else {**found, "running": running}

    def _is_running(self, job_id: int) -> bool:
        now = self.now
        return now is not None and any(worker.job_id == job_id for worker in now.stats.workers)

    def record(self, job_id: int) -> FailedRecord | None:
        """Of a failed job."""
        return self.table.records.get(job_id)

    def _learn(self, ids: Iterable[int], operator: Operator | None = None) -> None:
        """Get to know what these jobs are, as far as the boss knows."""
        wanted = [job_id for job_id in ids if job_id not in self._texts and self._may_be_known(job_id)]
        for at in range(0, len(wanted), TEXTS_AT_ONCE):
            some = wanted[at : at + TEXTS_AT_ONCE]
            with suppress(PoolAway, *_Gone):
                found = (operator or self._ask()).jobs(some)
                self._texts.update((job_id, text_of(content.value)) for job_id, content in found.items())
                self._texts.update((job_id, "") for job_id in some if job_id not in found)
        while len(self._texts) > MOST_TEXTS:
            self._texts.popitem(last=False)

    def _may_be_known(self, job_id: int) -> bool:
        return job_id in self.table.records or self.table.end_of(job_id) is None

    # -- orders -------------------------------------------------------------------------------------------

    def order(self, call: Callable[[Operator], Any]) -> Any:
        """Have something done. PoolAway; BossWorkerError says why it is refused."""
        with self._talking() as operator:
            return call(operator)

    @contextmanager
    def _talking(self) -> Iterator[Operator]:
        """PoolAway for whatever says that the pool is gone, or does not answer."""
        if self.why_away not in ("", CONNECTING):  # nobody waits for it with us
            raise PoolAway(f"pool {self.name} is away: {self.why_away}")
        with self.lock:
            operator = self._ask()
        try:
            yield operator
        except _Gone as error:
            raise PoolAway(f"pool {self.name} is away: {error}") from error

    def await_trial(self, number: int, seconds: float) -> bool:
        """Whether a reload is through, which is waited for. BossWorkerError says why it has changed nothing."""
        deadline = time.monotonic() + seconds
        while (state := self.order(lambda operator: operator.now(self._seen, usage=False)).reload).tried < number:
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_SECONDS)
        if state.error and state.tried == number:
            raise BossWorkerError(f"The pool goes on with its old handler, since with this one {state.error}")
        return True
