"""``start_method="spawn"``: the boss in a fresh interpreter, and what travels to it.

The handlers go by cloudpickle, as bytes to the fork server, and are loaded in each worker: what their modules start as
they are imported (threads, connections, random numbers) is each worker's own. With them goes what `multiprocessing` has
in the program, as far as it is loaded there, so that its queues, events, locks and proxies mean the same in a worker.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import sys
from collections import ChainMap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import cloudpickle

from bossworker.failure import describe
from bossworker.pool.options import Handlers, Options
from bossworker.pool.wire.recorder import Memory
from bossworker.system import signals
from bossworker.system.clib import NO_SIGPIPE

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from bossworker.pool.launch import spawned; spawned(*sys.argv[2:])"
)


@dataclass(frozen=True)
class ProgramState:
    """What is in the program and not in a fresh interpreter."""

    argv: list[str]
    start_method: str | None = None  # of multiprocessing, like the rest
    name: str = ""
    identity: tuple[int, ...] = ()
    authkey: bytes = b""  # empty: it is not loaded
    tracker_fd: int = -1

    @classmethod
    def of_this_process(cls) -> ProgramState:
        process: Any = sys.modules.get("multiprocessing.process")
        if process is None:
            return cls(sys.argv)
        import multiprocessing

        current = process.current_process()
        return cls(
            sys.argv,
            multiprocessing.get_start_method(allow_none=True),
            current.name,
            current._identity,
            bytes(current.authkey),
            _shared_tracker(),
        )

    def take_over(self) -> None:
        """Have it in this process."""
        sys.argv[:] = self.argv
        if not self.authkey:
            return
        import multiprocessing

        current: Any = multiprocessing.current_process()
        current.name, current._identity, current.authkey = self.name, self.identity, self.authkey
        if self.start_method is not None:
            multiprocessing.set_start_method(self.start_method, force=True)
        if self.tracker_fd >= 0:
            from multiprocessing import resource_tracker

            resource_tracker._resource_tracker._fd = self.tracker_fd  # type: ignore[attr-defined]


def _shared_tracker() -> int:
    """A descriptor that leads to the tracker of shared memory and semaphores; -1 if the program does not use any.

    A worker that started one of its own would have removed what it only uses, at its end.
    """
    module: Any = sys.modules.get("multiprocessing.resource_tracker")
    return -1 if module is None else module.getfd()


@dataclass(frozen=True)
class Packed:
    """Handlers as bytes, with the state that they are loaded in."""

    state: bytes
    handlers: bytes

    def settle(self) -> None:
        """In the fork server, once for all workers: nothing of the program's code runs in it."""
        pickle.loads(self.state).take_over()

    def load(self) -> Handlers:
        handlers: Handlers = pickle.loads(self.handlers)
        return handlers


def spawn_boss(handlers: Handlers, options: Options, ours: socket.socket, theirs: socket.socket, memory: Memory) -> int:
    """Start the boss in a fresh interpreter.

    Safe in a program with threads: between fork and exec, no Python runs in the child.
    """
    import subprocess

    pickled, shared = _pickled(handlers)
    state = ProgramState.of_this_process()
    told = pickle.dumps(state)
    links = (theirs.fileno(), memory.fd)
    inherited = sorted({*links, *shared, state.tracker_fd} - {-1})
    command = [sys.executable, *subprocess._args_from_interpreter_flags()]  # type: ignore[attr-defined]
    command += ["-c", _PROGRAM, json.dumps(sys.path), json.dumps(asdict(options)), json.dumps(inherited)]
    command += map(str, (*links, os.getpid(), len(told), len(pickled)))
    with signals.endings_blocked():  # they stay so, until the boss disregards them
        boss = subprocess.Popen(command, pass_fds=inherited, stdin=subprocess.DEVNULL, start_new_session=True)
    boss.returncode = 0  # its end is the handle's to wait for
    ours.setblocking(True)
    with suppress(BrokenPipeError, ConnectionResetError):  # then its end will be noticed
        ours.sendall(told + pickled, NO_SIGPIPE)
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
    return Received(packed, Options(**json.loads(options)), caller, Memory(int(memory)), int(pid))


def _read(sock: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        data = sock.recv(min(size - len(received), 1 << 20))
        if not data:
            raise EOFError
        received += data
    return bytes(received)


# -- the handlers as bytes ------------------------------------------------------------------------------------------


def _pickled(handlers: Handlers) -> tuple[bytes, list[int]]:
    """The handlers' bytes, and the descriptors that are in them; TypeError names the one that has none."""
    with _spawning() as descriptors:
        try:
            return _dumps(handlers), descriptors
        except Exception as error:
            name, handler = next((name, one) for name, one in _named(handlers) if not _travels(one))
            text = f'{name}_handler must be something that cloudpickle takes along with start_method "spawn"'
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
    """By cloudpickle, and by the rules of `multiprocessing` for what it hands from one process to another."""
    file = io.BytesIO()
    _HandlerPickler(file).dump(value)
    return file.getvalue()


class _HandlerPickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: io.BytesIO) -> None:
        reduction: Any = sys.modules.get("multiprocessing.reduction")
        if reduction is not None:
            self.dispatch_table = ChainMap(cloudpickle.Pickler.dispatch_table, reduction.ForkingPickler._extra_reducers)
        super().__init__(file)


class _Inheritance:
    """What `multiprocessing` takes for a process that is being started: lists the descriptors that must be passed."""

    class DupFd(int):
        """A descriptor that has the same number in the process that is started."""

        def detach(self) -> int:
            return int(self)

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def duplicate_for_child(self, fd: int) -> int:
        self.descriptors.append(fd)
        return fd


@contextmanager
def _spawning() -> Iterator[list[int]]:
    """Have synchronisation objects let themselves be pickled, as for a process that inherits them."""
    inheritance = _Inheritance()
    context: Any = sys.modules.get("multiprocessing.context")
    if context is None:
        yield inheritance.descriptors
        return
    before = context.get_spawning_popen()
    context.set_spawning_popen(inheritance)
    try:
        yield inheritance.descriptors
    finally:
        context.set_spawning_popen(before)
