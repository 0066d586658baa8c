"""What an engine has to be able to do for a pool; each kind of engine has an adapter that does it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from bossworker.engines.node_messages import BatchAnswer, Body, NodeRequest, PoolSpec, VersionError, packed


class EngineEvents(Protocol):
    """What an adapter tells, from any of its threads."""

    def on_answer(self, number: int, answer: BatchAnswer) -> None:
        """A node has answered a batch."""

    def on_failure(self, number: int, error: BaseException) -> None:
        """The engine has given one up, whether or not it was begun."""

    def on_claim(self, number: int, node: str) -> None:
        """A node has begun one."""

    def on_nodes(self, nodes: set[str]) -> None:
        """These are all the nodes that there are."""

    def on_gone(self, reason: str) -> None:
        """There is no engine any more."""


class Adapter:
    """See the module. `title` is what errors call the engine."""

    title = ""
    default_workers = 1  # of a node, for worker_count=None; 0: as many as it runs tasks at a time
    threads_per_node = 1  # tasks that a node runs at the same time
    takes_next = False  # whether a node can have the next batch while it runs one: see `Resident.run`
    reclaims = True  # whether `reclaim` takes back all that no node has begun
    beats = False  # whether `ask` reaches all nodes, so that they may rely on being asked all the time
    home = ""  # see PoolSpec
    waits_to_open = False  # whether `open` waits for others

    spec: PoolSpec
    events: EngineEvents

    def open(self) -> None:
        """Connect, or make what `home` tells of. Whatever comes after it is followed by `close`."""

    def prepare(self, spec: PoolSpec) -> None:
        """Take in what nodes need, and start what has to be started before this program has more threads."""
        self.take_spec(spec)

    def take_spec(self, spec: PoolSpec) -> None:
        """The same, or another one for nodes to come."""
        self.spec = spec
        self.packed_spec = packed(spec)

    def start(self, events: EngineEvents) -> Future[str]:
        """Start the pool's part on nodes; why it did not come up, or an empty text."""
        raise NotImplementedError

    def slots(self) -> int:
        """How many batches it can run at a time, as far as that is known; 0: nobody is there yet."""
        raise NotImplementedError

    def slots_of(self, node: str) -> int:
        """How many of these a node can run."""
        return self.threads_per_node

    def window(self) -> int:
        """How many it should have."""
        raise NotImplementedError

    def run(self, number: int, order: bytes, body: Body, priority: int) -> None:
        """Run a batch; `events` hear of its end."""
        raise NotImplementedError

    def reclaim(self, number: int) -> Future[bool]:
        """Take a batch back; False: it has been begun, or may have been."""
        raise NotImplementedError

    def is_unbegun(self, number: int) -> bool:
        """Whether no node has begun a batch, nor ever will; False where that cannot be told at once."""
        return False

    def release(self, number: int) -> None:
        """Nothing more is wanted of a batch."""
        raise NotImplementedError

    def ask(self, request: NodeRequest, nodes: list[str] | None, seconds: float | None) -> Future[dict[str, Any]]:
        """Ask nodes (None: all that are there); those that answered within `seconds`, and what they said."""
        raise NotImplementedError

    def try_spec(self, packed_spec: bytes) -> Future[str]:
        """Have one node, whichever, take it up; why that failed, or an empty text. With no node, there is no try."""
        raise NotImplementedError

    def unreachable(self) -> str:
        """Why there may be nodes that cannot be asked; empty: there are none."""
        return ""

    def close(self) -> None:
        """Let go of the engine, which goes on."""

    def disown(self) -> None:
        """In a forked child: close what is the parent's."""


def when_done(future: Future[Any], act: Callable[[Any], None], failed: Callable[[BaseException], None]) -> None:
    """Call one of the two once the future is done, in whichever thread that is."""

    def look(done: Future[Any]) -> None:
        if done.cancelled():
            failed(RuntimeError("it was cancelled"))
        elif (error := done.exception()) is not None:
            failed(error)
        else:
            act(done.result())

    future.add_done_callback(look)


def refused(error: VersionError) -> BatchAnswer:
    """What an answer of another version amounts to: a node that does not understand us has begun nothing of ours."""
    return BatchAnswer("unstarted", "a node", reason=str(error))


def finished(value: Any) -> Future[Any]:
    """A future that is done."""
    future: Future[Any] = Future()
    future.set_result(value)
    return future
