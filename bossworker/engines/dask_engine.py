"""Dask as an engine (extra ``dask``): a node is a worker of the cluster.

**Claims.** Dask runs a task again when its worker has died, whatever ``retries=0`` says. So each batch has a token, the
only element of a queue that is kept by the scheduler. A node takes it before it runs the batch; a second run finds
none, and answers "lost". We take it ourselves to get back a batch that nobody has begun.

**The end.** While a pool has a mark on the scheduler (a ``distributed.Event``), nodes may start their parts of it. The
mark goes first, then all are asked to end that are there by then: a new one may run batches before we know of it.

**Asking.** ``Client.run`` reaches each worker's event loop past the tasks that it runs, by way of the scheduler. So it
needs no connection between program and workers but those that Dask has.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from distributed import Client, get_worker, secede

from bossworker.engines import engine_tasks
from bossworker.engines.adapter import Adapter, EngineEvents, refused, when_done
from bossworker.engines.node_messages import (
    BatchAnswer,
    Body,
    Node,
    NodeRequest,
    PoolSpec,
    VersionError,
    packed,
    unpacked,
    unpacked_answer,
)
from bossworker.errors import WorkerStartError
from bossworker.failure import describe

ENDED = ("closing", "closed", "failed", "stopping", "stopped")  # states of a worker that the scheduler has no more
LOOK_SECONDS = 0.5  # between looks whether scheduler and workers are there
START_SECONDS = 60.0  # for workers to take up the pool; those that take longer may still do so
MOST_LATE = 1000  # tokens that are kept until the pool ends
SCATTER_BYTES = 1 << 20  # a larger batch does not travel in the task, which the scheduler keeps


class _DaskBatch:
    """A batch that Dask has, or is about to get; in the client's event loop.

    `before`: the one that goes before it.
    """

    def __init__(self, before: _DaskBatch | None) -> None:
        self.before = before
        self.settled = asyncio.Event()  # it has gone, or never will
        self.token = ""  # its name, once the scheduler has it
        self.begun: Future[None] | None = None  # the coroutine that sees to it
        self.submitted = self.answered = False
        self.taken_back = False  # before that

    async def turn(self) -> None:
        """Until all that were to go before it have gone, or never will."""
        while self.before is not None:
            await self.before.settled.wait()
            self.before = self.before.before  # that of one which was taken back may have yet to go


class DaskEngine(Adapter):
    """See the module."""

    takes_next = True
    beats = True
    default_workers = 0

    def __init__(self, engine: Client | str) -> None:
        self._own = self.waits_to_open = isinstance(engine, str)
        self._address = engine.removeprefix("dask://") if isinstance(engine, str) else _address(engine)
        if not isinstance(engine, str):
            if engine.asynchronous:
                raise ValueError(
                    "engine must be a Client that is not asynchronous: its event loop would wait for itself"
                )
            self.client = engine
        self.title = f"Dask cluster {self._address}"
        self._threads: dict[str, int] = {}
        self._batches: dict[int, _DaskBatch] = {}
        self._newest: _DaskBatch | None = None
        self._late: deque[str] = deque()  # tokens of batches that Dask may run yet, though we want nothing more of them
        self._watch: Future[None] | None = None
        # Looks may overlap, each with a call to the scheduler in it: without this, an older one could end last, and
        # bring back a node that is gone.
        self._looking = asyncio.Lock()

    def open(self) -> None:
        if not self._own:
            return
        try:
            self.client = Client(self._address, set_as_default=False)
        except ValueError as error:
            raise ValueError(f"engine must be 'dask://HOST:PORT', not 'dask://{self._address}': {error}") from error
        except OSError as error:  # TimeoutError is one
            raise WorkerStartError(
                f"engine='dask://{self._address}': no scheduler answers there ({error}). Start one (dask scheduler), "
                "or give the address that it tells. How long it is tried: Dask's distributed.comm.timeouts.connect"
            ) from error

    def prepare(self, spec: PoolSpec) -> None:
        super().prepare(spec)
        self._prefix = _mark_of(spec.pool)

    def start(self, events: EngineEvents) -> Future[str]:
        self.events = events
        return self._soon(self._start())

    async def _start(self) -> str:
        self.client.subscribe_topic(self._prefix, self._on_claim)
        await self.client.scheduler.event_set(name=self._prefix)
        await self._look()
        self._watch = self._soon(self._keep_looking())
        when_done(self._watch, lambda _: None, lambda error: self.events.on_gone(f"{self.title}: {describe(error)}"))
        told = await self._ask(NodeRequest("start", body=self.packed_spec), None, START_SECONDS)
        return next((why for why in told.values() if why), "")

    def _soon(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Have the client's event loop do it."""
        return asyncio.run_coroutine_threadsafe(work, self.client.loop.asyncio_loop)

    async def _look(self) -> None:
        async with self._looking:
            self._threads = await self.client.nthreads()
            self.events.on_nodes(set(self._threads))

    async def _keep_looking(self) -> None:
        while self.client.status == "running":
            with suppress(OSError, TimeoutError):
                await asyncio.wait_for(self._look(), 10 * LOOK_SECONDS)
            await asyncio.sleep(LOOK_SECONDS)
        self.events.on_gone(f"{self.title}: the connection to the scheduler is {self.client.status}")

    # -- batches ----------------------------------------------------------------------------------------

    def slots(self) -> int:
        return sum(self._threads.values())

    def slots_of(self, node: str) -> int:
        return self._threads.get(node, 1)

    def window(self) -> int:
        return max(2, 2 * self.slots())

    def run(self, number: int, order: bytes, body: Body, priority: int) -> None:
        batch = self._batches[number] = self._newest = _DaskBatch(self._newest)
        batch.begun = self._soon(self._run(batch, number, order, body, priority))
        when_done(batch.begun, lambda _: None, partial(self.events.on_failure, number))

    async def _run(self, batch: _DaskBatch, number: int, order: bytes, body: Body, priority: int) -> None:
        try:
            task = await self._submit(batch, f"{self._prefix}-{number}", order, body, priority)
        finally:
            batch.settled.set()
        if task is None:
            return
        try:
            answer = await task
        finally:
            task.release()
        batch.answered = True
        self.events.on_answer(number, _read(*answer))

    async def _submit(self, batch: _DaskBatch, name: str, order: bytes, body: Body, priority: int) -> Any:
        """Make its token, then a task of it; None: it has been taken back before that."""
        await self._make_token(batch, name)
        told: Any = body
        if len(body) > SCATTER_BYTES:
            told = await self.client.scatter(body, hash=False)
        # The calls before this, each on a connection of its own, may have overtaken those of batches that are more
        # urgent. From here on, Dask keeps the order: a less urgent task that came first would find a node idle.
        await batch.turn()
        # Taken back while the token was made, or the body was sent: then no task is made. From this look to `submitted`
        # nothing is awaited, so `_reclaim` comes before both or after.
        if batch.taken_back:
            return None
        batch.submitted = True
        settings = {"key": name, "retries": 0, "priority": priority}
        return self.client.submit(run_on_dask, self.packed_spec, order, told, name, **settings)

    async def _make_token(self, batch: _DaskBatch, name: str) -> None:
        """Without a `Queue`: one that is made in an event loop counts twice, and so is never forgotten."""
        scheduler = self.client.scheduler
        if scheduler is None:
            raise ConnectionError(f"the client is {self.client.status}")
        await scheduler.queue_create(name=name, maxsize=0)
        batch.token = name
        await scheduler.queue_put(name=name, data=1, timeout=None)

    def reclaim(self, number: int) -> Future[bool]:
        return self._soon(self._reclaim(number))

    def is_unbegun(self, number: int) -> bool:
        """One that never got to Dask, such as one that was tried once more when the client had been closed."""
        batch = self._batches.get(number)
        return batch is not None and not batch.submitted

    def _on_claim(self, event: tuple[float, tuple[int, str]]) -> None:
        """A node tells that it has taken a token: so it is known which, should it die."""
        self.events.on_claim(*event[1])

    async def _reclaim(self, number: int) -> bool:
        batch = self._batches.get(number)
        if batch is None:
            return False
        # No task of it exists, nor will one: it need not be asked for at the scheduler.
        if not batch.submitted:
            batch.taken_back = True
            return True
        # The scheduler gives the token once: to us, or to the node that is about to begin the batch.
        return bool(await self.client.scheduler.queue_get(name=batch.token, batch=True))

    def release(self, number: int) -> None:
        batch = self._batches.pop(number, None)
        if batch is not None:
            self.client.loop.add_callback(self._let_go, batch)

    def _let_go(self, batch: _DaskBatch) -> None:
        batch.taken_back = True
        batch.settled.set()  # here, too: a coroutine that is cancelled before its first step never runs
        if batch.begun is not None:
            batch.begun.cancel()
        if batch.submitted and not batch.answered:
            self._late.append(batch.token)
        elif batch.token:
            self._forget(batch.token)
        if len(self._late) > MOST_LATE:
            self._forget(self._late.popleft())

    def _forget(self, token: str) -> None:
        """As `Queue.close` does. Whoever looks for it later has the scheduler log an error."""
        if self.client.status == "running":
            self.client._send_to_scheduler({"op": "queue_release", "name": token})

    def _forget_late(self) -> None:
        while self._late:
            self._forget(self._late.popleft())

    # -- nodes ------------------------------------------------------------------------------------------

    def ask(self, request: NodeRequest, nodes: list[str] | None, seconds: float | None) -> Future[dict[str, Any]]:
        return self._soon(self._ask(request, nodes, seconds))

    async def _ask(self, request: NodeRequest, nodes: list[str] | None, seconds: float | None) -> dict[str, Any]:
        # A program may close its client at any moment; what we would ask then raises, or waits for ever.
        if self.client.status != "running":
            return {}
        if request.act in ("end", "end now"):
            with suppress(OSError):
                await self.client.scheduler.event_clear(name=self._prefix)
                await self._look()
        if nodes is None:
            nodes = list(self._threads)
        asked = {node: asyncio.ensure_future(self._ask_one(request, node)) for node in nodes}
        await self._wait_for(asked, None if seconds is None else time.monotonic() + seconds)
        done = {node: one for node, one in asked.items() if one.done() and not one.cancelled()}
        for one in asked.values():
            one.cancel()
        told = {node: one.result() for node, one in done.items() if one.exception() is None}
        return {node: answer for node, answer in told.items() if answer is not None}

    async def _wait_for(self, asked: Mapping[str, asyncio.Future[Any]], deadline: float | None) -> None:
        """Until they have answered, or the time is up; no longer for those that the cluster has lost meanwhile.

        To a node that is gone, Dask tries to connect for half a minute; to one that was stopped it waits for ever.
        """
        while left := [one for node, one in asked.items() if not one.done() and self._has(node)]:
            seconds = LOOK_SECONDS if deadline is None else min(LOOK_SECONDS, deadline - time.monotonic())
            if seconds <= 0:
                return
            await asyncio.wait(left, timeout=seconds)

    def _has(self, node: str) -> bool:
        return node in self._threads and self.client.status == "running"

    def try_spec(self, packed_spec: bytes) -> Future[str]:
        return self._soon(self._try_spec(packed_spec))

    async def _try_spec(self, packed_spec: bytes) -> str:
        for node in list(self._threads):
            told = await self._ask(NodeRequest("start", body=packed_spec), [node], None)
            if node in told:  # else it is gone
                return str(told[node])
        return ""

    async def _ask_one(self, request: NodeRequest, node: str) -> Any:
        """Its answer; None: it has none, since it is gone. Of what it cannot start, why, whatever that is."""
        pool, asked = self.spec.pool, packed(request)
        told = await self.client.run(attend_on_dask, pool, asked, workers=[node], on_error="return")
        answer = told.get(node)
        try:
            if isinstance(answer, Exception):
                raise answer
            return None if answer is None else unpacked(answer)[0]
        except OSError:  # it cannot be reached any more
            return None
        except Exception as error:  # bossworker is not there, for instance
            return f"on {node}: {describe(error)}" if request.act == "start" else None

    def close(self) -> None:
        for number in list(self._batches):
            self.release(number)
        self.client.loop.add_callback(self._forget_late)
        if self._watch is not None:
            self._watch.cancel()
            with suppress(Exception):  # it is closed, as its program may have done amid our work; or was never told
                self.client.unsubscribe_topic(self._prefix)
        if self._own:
            self.client.close()


def _address(client: Client) -> str:
    return client.scheduler.address if client.scheduler is not None else ""


def _read(answer: bytes, body: Body) -> BatchAnswer:
    try:
        return unpacked_answer(answer, body)
    except VersionError as error:
        return refused(error)


# -- on a node ------------------------------------------------------------------------------------------------------


def run_on_dask(spec: bytes, order: bytes, body: Body, token: str) -> tuple[bytes, Body]:
    """Run a batch, if its token is there."""
    worker = get_worker()

    async def take() -> bool:
        try:
            return bool(await worker.scheduler.queue_get(name=token, batch=True))
        except (KeyError, OSError):  # it is not there any more; or the scheduler is not
            return False

    def claim(number: int) -> bool:
        # The token is gone if the program has taken the batch back, or another worker has begun it (Dask runs a task
        # again whose worker seemed to be lost).
        mine = asyncio.run_coroutine_threadsafe(take(), worker.loop.asyncio_loop).result()
        if mine:
            worker.log_event(token.rpartition("-")[0], [number, worker.address])
        return mine

    def make_room() -> None:
        # A worker that is being closed holds the lock for that, and waits for our thread.
        if _lives(worker):
            secede()

    return engine_tasks.run_batch(spec, order, body, _node(worker, token.rpartition("-")[0]), claim, make_room)


def _mark_of(pool: str) -> str:
    return f"bossworker-{pool}"


def _node(worker: Any, mark: str) -> Node:
    return Node(worker.address, worker.state.nthreads, partial(_lives, worker), partial(_is_wanted, worker, mark))


def _lives(worker: Any) -> bool:
    return worker.status.name not in ENDED


def _is_wanted(worker: Any, mark: str) -> bool:
    async def look() -> bool:
        try:
            return bool(await worker.scheduler.event_is_set(name=mark))
        except OSError:  # there is no scheduler: the worker will be closed
            return True

    return asyncio.run_coroutine_threadsafe(look(), worker.loop.asyncio_loop).result()


async def attend_on_dask(pool: str, request: bytes, dask_worker: Any) -> bytes:
    """Answer the program."""
    return await asyncio.to_thread(engine_tasks.attend, pool, request, _node(dask_worker, _mark_of(pool)))
