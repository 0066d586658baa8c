"""Any ``concurrent.futures.Executor`` as an engine: each of its processes that runs a task of ours is a node.

Nodes of the program's own machine have a line to it (``home_line.py``): over it they claim batches, and are asked. Of
those elsewhere nothing is known until they give back what they were given.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from bossworker.engines import engine_tasks
from bossworker.engines.adapter import Adapter, EngineEvents, finished, refused, when_done
from bossworker.engines.home_line import HomeDoor, WayHome
from bossworker.engines.node_messages import (
    BatchAnswer,
    Body,
    Node,
    NodeRequest,
    PoolSpec,
    VersionError,
    packed,
    packed_answer,
    unpacked,
    unpacked_answer,
)
from bossworker.engines.resident import find_resident
from bossworker.errors import WorkerStartError
from bossworker.system import identity
from bossworker.system.cpus import usable_cpus

FIRST_WINDOW = 4  # batches that an executor has at first which does not say how many it can run
WIDEST_WINDOW = 10_000


class ExecutorEngine(Adapter):
    """See the module."""

    def __init__(self, executor: Executor) -> None:
        self.title = type(executor).__name__
        self._use(executor)
        self._futures: dict[int, Future[tuple[bytes, Body]]] = {}
        self._sent_at: dict[int, float] = {}
        self._unclaimed: set[int] = set()  # numbers of batches
        self._claimed: set[int] = set()  # the same, by nodes that have a line to us
        self._deciding = threading.Lock()
        self._far: set[str] = set()  # nodes that have no line to us
        self._broken = False

    def _use(self, executor: Executor) -> None:
        self.executor = executor
        most = getattr(executor, "_max_workers", None)  # by this name, all executors of the standard library have it
        self._most = most if isinstance(most, int) and most > 0 else 0
        self._window = self._most or FIRST_WINDOW
        # Those that are on this machine: a node without a line asks nobody. Where there may be one, a batch that was
        # given away stays so.
        self.reclaims = isinstance(executor, ProcessPoolExecutor | ThreadPoolExecutor)
        if isinstance(executor, ThreadPoolExecutor):  # in this process
            self.threads_per_node = self._most
            self.default_workers = usable_cpus()

    def open(self) -> None:
        self._door = HomeDoor()
        self.home = self._door.path

    def prepare(self, spec: PoolSpec) -> None:
        super().prepare(spec)
        # Some executors fork their processes now, once for all: before there are threads of ours.
        try:
            self._started = self.executor.submit(start_on_executor, self.packed_spec)
        except Exception as error:  # each kind of executor has its own
            raise WorkerStartError(f"the {self.title} takes no tasks: {error}") from error

    def start(self, events: EngineEvents) -> Future[str]:
        self.events = events
        self._door.serve(self._may_have, events.on_nodes, self._give_up)
        return self._outcome_of(self._started)

    def _outcome_of(self, start: Future[tuple[str, str]]) -> Future[str]:
        """Why a node did not come up. One that did, and has no line to us, is noted."""
        outcome: Future[str] = Future()

        def note(told: tuple[str, str]) -> None:
            why, far = told
            if far:
                self._far.add(far)
            outcome.set_result(why)

        when_done(start, note, partial(_fail_start, outcome, self.title))
        return outcome

    def slots(self) -> int:
        return self._window

    def window(self) -> int:
        return self._window

    def run(self, number: int, order: bytes, body: Body, priority: int) -> None:
        # Before the executor has it: a node may claim it before `submit` returns.
        self._unclaimed.add(number)
        try:
            future = self.executor.submit(run_on_executor, self.packed_spec, order, body)
        except (
            Exception
        ) as error:  # of whichever kind: it was shut down, or it is broken, or this program has no memory
            self.events.on_failure(number, error)
            if not self._futures:  # or what runs may come to its end first: others are tried again meanwhile
                self._give_up(error)
            return
        self._futures[number], self._sent_at[number] = future, time.monotonic()
        when_done(future, partial(self._answered, number), partial(self._failed, number))

    def _answered(self, number: int, told: tuple[bytes, Body]) -> None:
        try:
            data, seconds, lined = unpacked(told[0])
            answer = unpacked_answer(data, told[1])
        except VersionError as error:
            self.events.on_answer(number, refused(error))
            return
        if not lined:
            self._far.add(answer.node)
        sent_at = self._sent_at.pop(number, None)
        if not self._most and sent_at is not None:
            waited = time.monotonic() - sent_at - seconds
            if waited < seconds / 2:  # it was begun soon: there is room for more
                self._window = min(self._window + 1, WIDEST_WINDOW)
        self.events.on_answer(number, answer)

    def _failed(self, number: int, error: BaseException) -> None:
        self._sent_at.pop(number, None)
        self.events.on_failure(number, error)
        if isinstance(error, BrokenExecutor):
            self._give_up(error)

    def _give_up(self, reason: object) -> None:
        if not self._broken:
            self._broken = True
            self.events.on_gone(f"{self.title}: {reason}")

    def _may_have(self, number: int, node: str) -> bool:
        """Whether a node may run a batch; from the thread of its line."""
        mine = self._take(number, self._claimed)
        if mine:
            self.events.on_claim(number, node)
        return mine

    def _take(self, number: int, noted: set[int] | None = None) -> bool:
        """Take the only token of a batch; False: it is taken. `noted`: where to note that it is ours."""
        # A node's claim comes in the thread of its line, the wish to have it back in another: one of the two gets it.
        with self._deciding:
            there = number in self._unclaimed
            self._unclaimed.discard(number)
            if there and noted is not None:
                noted.add(number)
        return there

    def reclaim(self, number: int) -> Future[bool]:
        # What futures say as they are cancelled does not tell: those of many executors do not know whether they run.
        return finished(self.reclaims and self._take(number))

    def is_unbegun(self, number: int) -> bool:
        self._take(number)  # or a node does so now
        return self.reclaims and number not in self._claimed

    def release(self, number: int) -> None:
        self._take(number)
        self._claimed.discard(number)
        future = self._futures.pop(number, None)
        # A broken executor is about to end all futures, which Python 3.11's cannot do with one that was cancelled.
        if future is not None and not self._broken:
            with suppress(Exception):  # some cannot be cancelled, and say so by whatever they like
                future.cancel()

    def ask(self, request: NodeRequest, nodes: list[str] | None, seconds: float | None) -> Future[dict[str, Any]]:
        near = [node for node in self._door.nodes if nodes is None or node in nodes]
        asked = {node: self._door.ask(request, node, seconds) for node in near}
        if self._far and request.act in ("end", "end now") and not self._broken:
            asked |= {node: self._ask_by_task(request) for node in list(self._far)}
        return gathered(asked)

    def try_spec(self, packed_spec: bytes) -> Future[str]:
        near = next(iter(self._door.nodes), None)
        if near is not None:
            return self._door.ask(NodeRequest("start", body=packed_spec), near)
        try:
            return self._outcome_of(self.executor.submit(start_on_executor, packed_spec))
        except Exception as error:
            return finished(f"the {self.title} takes no tasks: {error}")

    def _ask_by_task(self, request: NodeRequest) -> Future[Any]:
        """By a task like any other, which some node runs; what it does not reach ends by itself, some time after."""
        try:
            return self.executor.submit(attend_on_executor, self.spec.pool, packed(request))
        except Exception:
            return finished(None)

    def unreachable(self) -> str:
        if self._far:
            return (
                f"some workers of the {self.title} are on other machines, where they cannot be reached while they run"
            )
        return ""

    def close(self) -> None:
        for number in list(self._futures):
            self.release(number)
        self._door.close()

    def disown(self) -> None:
        self._door.disown()


def _fail_start(outcome: Future[str], title: str, error: BaseException) -> None:
    outcome.set_result(f"the {title} could not run a task: {type(error).__name__}: {error}")


def gathered(futures: dict[str, Future[Any]]) -> Future[dict[str, Any]]:
    """What those nodes said that did answer, once all have, or are gone."""
    whole: Future[dict[str, Any]] = Future()
    answers: dict[str, Any] = {}
    left = set(futures)
    lock = threading.Lock()

    def note(node: str, answer: Any = None) -> None:
        with lock:
            left.discard(node)
            if answer is not None:
                answers[node] = answer
            # Under the lock: two answers that come at once must not both be the last.
            over = not left
        if over and not whole.done():
            whole.set_result(answers)

    if not futures:
        whole.set_result(answers)
    for node, future in futures.items():
        when_done(future, partial(note, node), lambda error, node=node: note(node))  # type: ignore[misc]
    return whole


# -- on a node ------------------------------------------------------------------------------------------------------

_ways: dict[str, WayHome] = {}  # by pool
_making = threading.Lock()


def this_node() -> Node:
    """This process: its engine has no name for it."""
    return Node(f"{socket.gethostname()}:{os.getpid()}")


def start_on_executor(spec: bytes) -> tuple[str, str]:
    """Start the pool's part here; why it did not come up, and the name of a node that has no line to the program."""
    node = this_node()
    told = PoolSpec(*unpacked(spec))
    (why,) = unpacked(engine_tasks.attend(told.pool, packed(NodeRequest("start", body=spec)), node))
    if why:
        return str(why), ""
    if not _is_local(told):
        return "", node.name
    _way_home(told, node)
    return "", ""


def attend_on_executor(pool: str, request: bytes) -> Any:
    """Answer the program."""
    return unpacked(engine_tasks.attend(pool, request, this_node()))[0]


def run_on_executor(spec: bytes, order: bytes, body: Body) -> tuple[bytes, Body]:
    """Run a batch."""
    node, began = this_node(), time.monotonic()
    try:
        told = PoolSpec(*unpacked(spec))
    except VersionError as error:
        answer, results = packed_answer(BatchAnswer("unstarted", node.name, reason=str(error)))
        return packed((answer, 0.0, False)), results
    lined = _is_local(told)

    def claim(number: int) -> bool:
        if not lined:
            return True  # by the executor's word that it runs a task once
        way = _way_home(told, node)
        return way is not None and way.claim(number)

    with _undisturbed():
        answer, results = engine_tasks.run_batch(spec, order, body, node, claim)
    return packed((answer, time.monotonic() - began, lined)), results


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C, which a terminal sends to all processes of a program, is for the program: the jobs go on.

    A handler, unlike SIG_IGN, does not pass to what is started here.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield  # no handler runs here; or there is one that cannot be put back
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _way_home(spec: PoolSpec, node: Node) -> WayHome | None:
    """The line to the program, made if there is none; None: there can be none. If the program is gone, we end.

    It may have ended the pool while ours was being started: then it does not know of us.
    """
    try:
        return _make_way(spec, node)
    except (FileNotFoundError, ConnectionError):
        _end(spec.pool)
    except OSError:  # too many open files, for instance
        pass
    return None


def _make_way(spec: PoolSpec, node: Node) -> WayHome | None:
    # Several tasks of the executor may come to this process at once: they share one line.
    with _making:
        way = _ways.get(spec.pool)
        resident = find_resident(spec.pool)
        if resident is None or (way is not None and not way.gone and resident.tied):
            return way
        pool = spec.pool
        way = _ways[pool] = WayHome(
            spec.home,
            node.name,
            lambda request: engine_tasks.attend(pool, request, node),
            lambda: _end(pool),
        )
        resident.tied = True
        return way


def _is_local(spec: PoolSpec) -> bool:
    """Whether this process is on the program's machine."""
    return spec.program[2:] == identity.own()[2:]


def _end(pool: str) -> None:
    """The program is gone."""
    engine_tasks.attend(pool, packed(NodeRequest("end now")), this_node())
