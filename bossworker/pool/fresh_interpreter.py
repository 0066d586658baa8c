"""``start_method="spawn"``: the boss in a fresh interpreter, and what travels to it.

The handlers go by cloudpickle, as bytes to the fork server, and are loaded in each worker: what their modules start as
they are imported (threads, connections, random numbers) is each worker's own.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import NamedTuple

import cloudpickle

from bossworker.failure import describe
from bossworker.pickling import Pickler
from bossworker.pool.options import Handlers, Options
from bossworker.pool.wire.filed_memory import FiledMemory
from bossworker.pool.wire.recorder import Memory
from bossworker.system import multiprocess, signals
from bossworker.system.cpython import NO_SIGPIPE, interpreter_flags
from bossworker.system.multiprocess import Heritage

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from bossworker.pool.launch import spawned; spawned(*sys.argv[2:])"
)


@dataclass(frozen=True)
class Packed:
    """Handlers as bytes, with what the program has and a fresh interpreter has not."""

    surroundings: bytes
    handlers: bytes

    def settle(self) -> None:
        """In the fork server, once for all workers: nothing of the program's code runs in it."""
        heritage: Heritage | None
        sys.argv[:], heritage = pickle.loads(self.surroundings)
        if heritage is not None:
            heritage.take_over()

    def load(self) -> Handlers:
        """In a worker."""
        handlers: Handlers = pickle.loads(self.handlers)
        return handlers


def spawn_boss(
    handlers: Handlers | Packed, options: Options, ours: socket.socket, theirs: socket.socket, memory: Memory
) -> int:
    """Start the boss; its pid. Handlers may be packed already: by a program elsewhere.

    Safe in a program with threads: between fork and exec, no Python runs in the child.
    """
    import subprocess

    pickled, shared = _pickled(handlers)
    heritage = Heritage.of_this_process()
    if heritage is not None and heritage.tracker_fd is not None:
        shared.append(heritage.tracker_fd)
    surroundings = pickle.dumps((sys.argv, heritage))
    assert memory.fd is not None
    links = (theirs.fileno(), memory.fd)
    inherited = sorted({*links, *shared})
    command = [sys.executable, *interpreter_flags(), "-c", _PROGRAM]
    command += map(json.dumps, (sys.path, asdict(options), inherited))
    command += map(str, (*links, os.getpid(), len(surroundings), len(pickled)))
    with signals.endings_blocked():  # they stay so there, until the boss disregards them
        boss = subprocess.Popen(command, pass_fds=inherited, stdin=subprocess.DEVNULL, start_new_session=True)
    # At once: subprocess looks after children whose object is gone, at any later start, and would take the exit status.
    boss.returncode = 0  # its end is the handle's to wait for
    ours.setblocking(True)
    with suppress(BrokenPipeError, ConnectionResetError):  # then its end will be noticed
        ours.sendall(surroundings + pickled, NO_SIGPIPE)
    return boss.pid


class Received(NamedTuple):
    """What a fresh interpreter was given."""

    packed: Packed
    options: Options
    caller: socket.socket
    memory: Memory
    pid: int  # the caller's


def receive(options: str, inherited: str, link: str, memory: str, pid: str, *sizes: str) -> Received:
    """In the fresh interpreter: take in all of it. EOFError when the caller is gone."""
    for fd in json.loads(inherited):
        os.set_inheritable(fd, False)
    caller = socket.socket(fileno=int(link))
    packed = Packed(*[_read(caller, int(size)) for size in sizes])
    settings = Options(**json.loads(options))
    shared = FiledMemory(int(memory)) if settings.journal else Memory(int(memory))
    return Received(packed, settings, caller, shared, int(pid))


def _read(sock: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        data = sock.recv(min(size - len(received), 1 << 20))
        if not data:
            raise EOFError
        received += data
    return bytes(received)


# -- the handlers as bytes ------------------------------------------------------------------------------------------


def _pickled(handlers: Handlers | Packed) -> tuple[bytes, list[int]]:
    """The handlers' bytes, and the descriptors that are in them; TypeError names the one that has none."""
    if isinstance(handlers, Packed):
        return handlers.handlers, []
    with multiprocess.passing_on() as descriptors:
        return dumps_handlers(handlers, 'with start_method "spawn"'), descriptors


def dumps_handlers(handlers: Handlers, when: str) -> bytes:
    """The handlers' bytes; TypeError names the one that has none."""
    try:
        return _dumps(handlers)
    except Exception as error:
        name, handler = next((name, one) for name, one in _named(handlers) if not _travels(one))
        text = f"{name}_handler must be something that cloudpickle takes along {when}"
        raise TypeError(f"{text}, not {handler!r} ({describe(error)})") from error


def _named(handlers: Handlers) -> list[tuple[str, object]]:
    return [("work", handlers.work), ("init", handlers.init), ("exit", handlers.exit)]


def _travels(handler: object) -> bool:
    try:
        _dumps(handler)
    except Exception:
        return False
    return True


def _dumps(value: object) -> bytes:
    file = io.BytesIO()
    _HandlerPickler(file).dump(value)
    return file.getvalue()


class _HandlerPickler(Pickler):
    """By cloudpickle, and what it cannot take along by the rules of `multiprocessing`."""

    def __init__(self, file: io.BytesIO) -> None:
        self.dispatch_table = multiprocess.with_reducers(cloudpickle.Pickler.dispatch_table)
        super().__init__(file)
