"""``BossWorker(handler, engine=...)``: the handle, and its connection to what has batches run."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import asdict, replace
from typing import Any, NoReturn

from bossworker.display import shorten, table
from bossworker.engines.adapter import Adapter
from bossworker.engines.engine_line import EngineLine
from bossworker.engines.flight_notes import FlightNotes
from bossworker.engines.node_messages import PoolSpec
from bossworker.errors import BossDied, UnfinishedJob
from bossworker.pool.caller.client import BossWorker
from bossworker.pool.caller.connection import Connection
from bossworker.pool.caller.controls import prepare_of
from bossworker.pool.caller.deferred import DeferredPool
from bossworker.pool.caller.state import HandleState
from bossworker.pool.door.attachment import NoFiles
from bossworker.pool.fresh_interpreter import dumps_handlers
from bossworker.pool.launch import Launched
from bossworker.pool.options import Handlers
from bossworker.pool.wire.link import Link, link_pair
from bossworker.system import identity

LEASE_SECONDS = 30.0  # without a word from us, after which a node's part of the pool ends itself


class LineInMemory(NoFiles):
    """Stands for the memory that a boss shares with its program: what is at the other end of the line is here."""

    def __init__(self, line: EngineLine) -> None:
        self.line = line


class EngineConnection(Connection):
    """The handle's line to our thread. There is no process at its other end. What was launched has a `LineInMemory`."""

    @property
    def line(self) -> EngineLine:
        memory: Any = self.memory
        line: EngineLine = memory.line
        return line

    @property
    def jobs_wanted(self) -> int:  # type: ignore[override]
        return self.line.batches.jobs_wanted

    def alive(self) -> bool:
        return not self.gone and self.line.thread.is_alive()

    def why_not_up(self) -> str:
        return self.said.failure or f"the engine is gone: {self.line.ending.reason}"

    def end(self, force: bool) -> None:
        self._let_go = not self.gone
        if force or not self.said.orderly:
            self.line.end_now()
        else:
            self.line.thread.join()
        self.link.close()
        self._lose_boss()
        self.wake()

    def who_died(self) -> str:
        """Nobody but the engine; with a journal, it may be the scribe."""
        return ""

    def never_started(self, ids: Iterable[int]) -> set[int]:
        return self.line.batches.book.never_started(ids)


class EngineState(HandleState):
    """The state of a handle whose jobs run on an engine."""

    _connection: EngineConnection

    def died(self, unfinished: list[UnfinishedJob]) -> BossDied:
        if self._connection.who_died():
            return super().died(unfinished)
        line = self._connection.line
        why = line.ending.reason or "its thread in this program has ended"
        return BossDied(f"the engine is gone with {len(unfinished)} jobs unfinished ({why})", unfinished)


class EnginePool(BossWorker):
    """A `BossWorker` made with ``engine=``; of a subclass, `on_engine` makes one like it."""

    _connection: EngineConnection
    _state_type = EngineState
    _adapter: Adapter
    _opened = False

    def _adopt(self, engine: object, worker_count: int | None) -> int | None:
        """Take the engine. The number of workers to check: of a node."""
        if worker_count == 0:
            raise ValueError("worker_count counts per node with an engine, and must be at least 1, not 0")
        self._adapter = adapter_for(engine)
        self._waits_to_start = self._adapter.waits_to_open
        self._node_decides = worker_count is None and not self._adapter.default_workers
        return worker_count if worker_count is not None else self._adapter.default_workers or 1

    def _start(self, handlers: Handlers) -> None:
        if not isinstance(self, DeferredPool):  # that is launched later, and in another thread
            self._open()  # here, where Ctrl-C comes through: others may let us wait
        try:
            super()._start(handlers)
        except BaseException:
            if self._opened and not hasattr(self, "_ending"):
                self._adapter.close()
            raise

    def _open(self) -> None:
        if not self._opened:
            self._adapter.open()
            self._opened = True

    def _launch(self, handlers: Handlers) -> None:
        self._options = replace(self._options, start_method="spawn", close_fds=False)
        self._loaded = None
        self._open()
        adapter = self._adapter
        try:
            adapter.prepare(self._spec(handlers))
        except BaseException:
            adapter.close()
            raise
        ours, theirs = link_pair()
        workers = 1 if self._node_decides else self._options.worker_count
        notes = FlightNotes(self._journal.take_memory() if self._journal is not None else None)
        line = EngineLine(Link(theirs), adapter, workers, self._options.relayed, notes)
        launched = Launched(0, Link(ours), LineInMemory(line))  # type: ignore[arg-type]
        kind, journal = _connection_type(self._connection_type), self._journal
        connection = (
            journal.connect(launched, kind, self._inbox) if journal is not None else kind(launched, self._inbox)
        )
        self._attach(connection, prepare_of(handlers))
        line.thread.start()

    def _spec(self, handlers: Handlers) -> PoolSpec:
        options = asdict(replace(self._options, max_pending=0, journal=""))
        return PoolSpec(
            uuid.uuid4().hex,
            {**options, "worker_count": 0} if self._node_decides else options,
            dumps_handlers(handlers, "to the nodes of an engine"),
            LEASE_SECONDS,
            self._adapter.beats,
            self._adapter.home,
            identity.own(),
        )

    @property
    def boss_pid(self) -> int:
        """This process: what is queued is kept here."""
        return os.getpid()

    def _disown(self) -> None:
        super()._disown()
        self._connection.line.disown()

    def _cannot(self, what: str, why: str) -> NoReturn:
        raise ValueError(f"a pool on an engine ({self._adapter.title}) {what}: {why}")

    def listen(self, *args: Any, **options: Any) -> NoReturn:
        """Cannot be done."""
        self._cannot("has no door", "open one on a pool without an engine")

    def web(self, *args: Any, **options: Any) -> NoReturn:
        """Cannot be done."""
        self._cannot("has no page", "open one of a pool without an engine")

    def cancel(self, *ids: int, queued_only: bool = False) -> int:
        answer = self._ask_to_cancel(ids, queued_only)
        if beyond := answer.get("beyond"):  # what can be cancelled has been
            self._check_reach(f"cancel {beyond} of these jobs, which may run")
        return int(answer["count"])

    def stack(self, job_id: int | None = None) -> str:
        self._check_reach("show a stack")
        return super().stack(job_id)

    def resize(self, n: int) -> None:
        self._check_reach("resize")
        super().resize(n)

    def _check_reach(self, what: str) -> None:
        """ValueError: nodes cannot be asked."""
        if why := self._adapter.unreachable():
            self._cannot(f"cannot {what}", why)

    def __repr__(self) -> str:
        state = "closed" if self._state.closing else "open"
        return f"<BossWorker {self.name}, {self._adapter.title}, {self._inbox.pending()} pending, {state}>"

    def _repr_html_(self) -> str:
        rows = [("engine", self._adapter.title), ("pending", self._inbox.pending()), ("see also", "stats()")]
        return table(f"BossWorker {self.name}, {'closed' if self._state.closing else 'open'}", rows)


_kinds: dict[type[BossWorker], type[EnginePool]] = {BossWorker: EnginePool}


def on_engine(kind: type[BossWorker]) -> type[EnginePool]:
    """The class of what `kind` becomes with an engine: it is one of those as well."""
    if kind not in _kinds:
        named = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
        _kinds[kind] = type(kind.__name__, (kind, EnginePool), named)
    return _kinds[kind]


def _connection_type(kind: type[Connection]) -> type[EngineConnection]:
    """The same for a connection."""
    if kind is Connection:
        return EngineConnection
    return type(f"Engine{kind.__name__}", (kind, EngineConnection), {})


def adapter_for(engine: object) -> Adapter:
    """What can have batches run by it."""
    if isinstance(engine, str):
        return _by_address(engine)
    distributed = sys.modules.get("distributed")
    if distributed is not None and isinstance(engine, distributed.Client):
        from bossworker.engines.dask_engine import DaskEngine

        return DaskEngine(engine)
    if isinstance(engine, Executor):
        from bossworker.engines.executor_engine import ExecutorEngine

        return ExecutorEngine(engine)
    allowed = "a dask.distributed.Client, 'dask://HOST:PORT', 'ray://HOST:PORT', a concurrent.futures.Executor, or None"
    raise TypeError(f"engine must be {allowed}, not {shorten(engine)}")


def _by_address(address: str) -> Adapter:
    kind, slashes, place = address.partition("://")
    if slashes and kind == "dask" and place:
        try:
            from bossworker.engines.dask_engine import DaskEngine
        except ImportError as error:
            raise ImportError(f"engine={address!r} needs distributed: pip install 'bossworker[dask]'") from error
        return DaskEngine(address)
    if slashes and kind == "ray" and place:
        try:
            from bossworker.engines.ray_engine import RayEngine
        except ImportError as error:
            raise ImportError(f"engine={address!r} needs Ray: pip install ray") from error
        return RayEngine(address)
    raise ValueError(f"engine must be 'dask://HOST:PORT' or 'ray://HOST:PORT', not {shorten(address)}")
