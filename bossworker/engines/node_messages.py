"""What travels between the program and the nodes. Jobs and results are in there as their bytes on the wire."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from bossworker.system.identity import Identity

Verdict = Literal["done", "lost", "unstarted"]


class PoolSpec(NamedTuple):
    """What a node needs to start its part of a pool."""

    pool: str  # its id, unlike that of any other
    version: str  # of the program's bossworker, and
    form: int  # of its frames; a node that speaks another one refuses
    options: dict[str, Any]
    handlers: bytes
    lease_seconds: float  # without a word from the program, after which the node's part ends itself
    beats: bool  # whether the program speaks up all the time; otherwise, with batches alone
    home: str  # the path of a socket of the program's, for nodes on its machine; empty: there is none
    program: Identity  # which process that is, on which machine
    generation: int = 0  # of the handlers: how often they were reloaded


class Node(NamedTuple):
    """What an engine's worker is to a pool."""

    name: str
    threads: int = 1  # tasks that it runs at a time
    lives: Callable[[], bool] = lambda: True  # whether the engine still has it, though its process may go on


class BatchOrder(NamedTuple):
    """Jobs to be run: a SUBMIT frame."""

    number: int
    head: bytes
    body: bytes


class BatchAnswer(NamedTuple):
    """What became of them: a RESULTS frame, unless another run of the same batch was first."""

    verdict: Verdict
    node: str
    clock: float = 0.0  # Unix seconds minus monotonic ones, there
    head: bytes = b""
    body: bytes = b""
    reason: str = ""  # why it was not started, or not brought to its end
    lines: tuple[bytes, ...] = ()  # what jobs have printed: bodies of OUTPUT_LINES


class NodeReport(NamedTuple):
    """What a node has to tell between answers."""

    node: str
    claimed: list[int]  # numbers of the batches that it has now
    clock: float
    head: bytes  # results of batches that take long, as a RESULTS frame
    body: bytes
    lines: list[bytes]  # what jobs have printed: bodies of OUTPUT_LINES
    notes: list[tuple[int, str]]  # for the program's log: level, text
    exit_errors: dict[int, str]  # what exit_handlers raised, by the workers' pids


class NodeRequest(NamedTuple):
    """What is asked of a node's part of a pool."""

    act: Literal["start", "report", "ask", "stop", "end", "end now"]
    kind: int = 0  # for "ask": of a frame to its boss, which comes without the number of the request
    head: bytes = b""
    body: bytes = b""


def packed(message: tuple[Any, ...]) -> bytes:
    """A message as it travels."""
    return pickle.dumps(tuple(message), pickle.HIGHEST_PROTOCOL)


def unpacked(data: bytes) -> Any:
    """The same, read: by our own processes, from our own."""
    return pickle.loads(data)
