"""What travels between the program and the nodes. Jobs and results are in there as their bytes on the wire.

Program and nodes are installed apart. So each message begins with a line that says in which **form** it is: a number
that is another one as soon as anything here, or what it is made of, has other fields. Whoever does not have that form
refuses the message by that line alone; nothing of it is decoded.
"""

from __future__ import annotations

import pickle
from binascii import crc32
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, Literal, NamedTuple

from bossworker import __version__
from bossworker.pool.options import Handlers, Options
from bossworker.pool.wire import messages
from bossworker.system.identity import Identity

ASK_SECONDS = 5.0  # for nodes to answer what they can answer at once

Verdict = Literal["done", "lost", "unstarted"]


class PoolSpec(NamedTuple):
    """What a node needs to start its part of a pool."""

    pool: str  # its id, unlike that of any other
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
    wanted: Callable[[], bool] = lambda: True  # whether the program still has the pool, as far as can be seen at once


class Body:
    """The bytes of jobs or results, on their way beside what tells of them.

    An engine whose pickles leave buffers out, as Dask's do, makes no copy of them. With 50 MB, each counts.
    """

    __slots__ = ("data",)

    def __init__(self, data: Any) -> None:
        self.data = memoryview(data)

    @classmethod
    def of(cls, parts: Sequence[bytes | bytearray | memoryview]) -> Body:
        """That of a frame; what is in one piece stays as it is."""
        return cls(parts[0] if len(parts) == 1 else b"".join(parts))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return Body, (pickle.PickleBuffer(self.data) if protocol >= 5 else bytes(self.data),)

    def __len__(self) -> int:
        return self.data.nbytes

    def __sizeof__(self) -> int:
        """Engines reckon with it."""
        return object.__sizeof__(self) + len(self)


class BatchOrder(NamedTuple):
    """Jobs to be run: a SUBMIT frame, but for its body, which travels beside it."""

    number: int
    head: bytes
    quick: bool  # whether it is so short that the node should have the next one before it is through


class BatchAnswer(NamedTuple):
    """What became of them: a RESULTS frame, unless another run of the same batch was first."""

    verdict: Verdict
    node: str
    clock: float = 0.0  # Unix seconds minus monotonic ones, there
    head: bytes = b""
    body: bytes | memoryview = b""  # which travels beside the rest
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


def _form() -> str:
    """Which form messages have: that of the frames in them, and a number made of the names of all fields."""
    tuples = (PoolSpec, BatchOrder, BatchAnswer, NodeReport, NodeRequest)
    names = [one._fields for one in tuples] + [
        tuple(field.name for field in fields(one)) for one in (Options, Handlers)
    ]
    return f"{messages.VERSION}.{crc32(repr(names).encode()):08x}"


SPOKEN = f"bossworker {__version__} (form {_form()})"  # what messages begin with, as a line of its own
LONGEST_LINE = 100  # bytes, of such lines


class VersionError(Exception):
    """A message is of a bossworker with which this one does not speak."""


def packed(message: tuple[Any, ...]) -> bytes:
    """A message as it travels."""
    return SPOKEN.encode() + b"\n" + pickle.dumps(tuple(message), pickle.HIGHEST_PROTOCOL)


def unpacked(data: bytes) -> Any:
    """The same, read: by our own processes, from our own. VersionError."""
    end = data.find(b"\n", 0, LONGEST_LINE)
    spoken = data[: max(end, 0)].decode("utf-8", "replace")
    if spoken != SPOKEN:
        theirs = spoken if spoken.startswith("bossworker ") else "another bossworker"
        raise VersionError(f"{SPOKEN} does not understand {theirs}: install the same version here and on all nodes")
    return pickle.loads(memoryview(data)[end + 1 :])


def packed_answer(answer: BatchAnswer) -> tuple[bytes, Body]:
    """An answer as it travels."""
    return packed(answer._replace(body=b"")), Body(answer.body)


def unpacked_answer(data: bytes, body: Body) -> BatchAnswer:
    """The same, read. VersionError."""
    return BatchAnswer(*unpacked(data))._replace(body=body.data)
