"""How a pool's processes come to be: caller -> boss -> fork server, and what each of them sheds.

A forked child inherits everything. What it must not keep, and why:

    boss      Every descriptor but its links and 0-2: it would hold open the caller's pipes and sockets.
              The caller's session: a Ctrl-C or a hang-up of the terminal is for the caller.
              The caller's signal handlers and its garbage collection.
    fork server   The boss's link to the caller: only the boss may hold that open.
              It keeps the caller's other descriptors, since handlers may use them.
    workers   See forkserver.py.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import NamedTuple, NoReturn

import cloudpickle

from bossworker.failure import describe
from bossworker.pool.boss.boss import Boss, CallerGone
from bossworker.pool.options import Handlers, Options
from bossworker.pool.wire.link import Link, LinkClosed, link_pair
from bossworker.pool.wire.recorder import Memory, Recorder
from bossworker.pool.wire.shared_counter import exclusive
from bossworker.pool.worker import worker
from bossworker.pool.worker.forkserver import ForkServer
from bossworker.system import forking, processes, signals, stdio
from bossworker.system.cpython import interpreter_flags
from bossworker.system.originals import native

FORK_SERVER_END_SECONDS = 0.9  # the fork server needs less; then it is stuck, and we end what we can ourselves


class Launched(NamedTuple):
    """A boss that has been started: its pid, our end of its link, the memory it shares with us."""

    pid: int
    link: Link
    memory: Memory

    def abandon(self) -> None:
        """End it again."""
        self.link.close()
        processes.wait_for(self.pid, FORK_SERVER_END_SECONDS)
        self.memory.close()


def launch(handlers: Handlers, options: Options) -> Launched:
    """Start a boss by the options' start method; with signals held, and the standard streams taken."""
    start = _spawn_boss if options.start_method == "spawn" else _fork_boss
    exclusive()  # found out here, once for all pools that are forked from this process
    ours, theirs = link_pair()
    memory = Memory()
    try:
        pid = start(handlers, options, ours, theirs, memory)
    except BaseException:
        ours.close()
        memory.close()
        raise
    finally:
        theirs.close()
    return Launched(pid, Link(ours), memory)


def _fork_boss(
    handlers: Handlers,
    options: Options,
    ours: socket.socket,
    theirs: socket.socket,
    memory: Memory,
) -> int:
    stdio.flush_streams()
    parent = os.getpid()
    pid = forking.fork()
    if pid == 0:
        _never_return(partial(_boss_main, lambda: handlers, options, theirs, memory, parent, ours))
    return pid


def _never_return(main: Callable[[], None]) -> NoReturn:
    """Run a forked child's main; the frames it inherited below this one must never run on."""
    status = 1
    try:
        main()
        status = 0
    except BaseException:
        with suppress(BaseException):
            traceback.print_exc()
    finally:
        stdio.flush_streams()
        os._exit(status)


def _boss_main(
    load_handlers: Callable[[], Handlers],
    options: Options,
    caller: socket.socket,
    memory: Memory,
    parent: int,
    callers_end: socket.socket | None = None,
) -> None:
    """The boss's process, from its first instruction to its last."""
    with suppress(PermissionError):  # a spawned boss leads its session already
        os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # this also drops one that came for the caller's group until now
    signals.drop_handlers()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    processes.adopt_orphans()
    _shut_stdin()
    collecting = gc.isenabled()
    gc.disable()
    gc.freeze()
    if callers_end is not None:
        callers_end.close()
    fork_server, fork_servers_end = link_pair()
    pid = native("fork")()
    if pid == 0:
        caller.close()
        fork_server.close()
        _never_return(partial(_fork_server_main, load_handlers, options, fork_servers_end, memory, collecting))
    fork_servers_end.close()
    _close_all_but(caller.fileno(), fork_server.fileno(), memory.fd)
    link = Link(fork_server)
    with suppress(CallerGone, LinkClosed):
        Boss(Link(caller), link, memory, options, parent).run()
    _end(link, pid)


def _end(fork_server: Link, pid: int) -> None:
    """Hang up on the fork server, which then ends the workers; end ourselves whatever it leaves."""
    fork_server.close()
    processes.wait_for(pid, FORK_SERVER_END_SECONDS)
    processes.end_children(FORK_SERVER_END_SECONDS)


def _fork_server_main(
    load_handlers: Callable[[], Handlers],
    options: Options,
    boss: socket.socket,
    memory: Memory,
    collecting: bool,
) -> None:
    processes.adopt_orphans()
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it is the process's
    try:
        loaded: Handlers | BaseException = load_handlers()
    except BaseException as error:
        loaded = error

    def worker_main(recorder: Recorder, link: socket.socket) -> None:
        if collecting:
            gc.enable()
        if isinstance(loaded, BaseException):
            worker.refuse(link, "the handlers could not be loaded", loaded)
        else:
            worker.main(recorder, link, memory, loaded, options)

    ForkServer(boss, memory, worker_main).run(options.worker_count)


def _shut_stdin() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)


def _close_all_but(*keep: int) -> None:
    """Close every descriptor above 2 except these."""
    low = 3
    for fd in (*sorted(keep), os.sysconf("SC_OPEN_MAX")):
        os.closerange(low, fd)
        low = fd + 1


# -- start_method="spawn" ---------------------------------------------------------------------------------------

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from bossworker.pool.launch import spawned; spawned(*sys.argv[2:])"
)


def _spawn_boss(
    handlers: Handlers,
    options: Options,
    ours: socket.socket,
    theirs: socket.socket,
    memory: Memory,
) -> int:
    """Start the boss in a fresh interpreter; the handlers travel by cloudpickle.

    Safe in a program with threads: between fork and exec, no Python runs in the child.
    """
    import subprocess

    pickled = _pickled(handlers)
    fds = (theirs.fileno(), memory.fd)
    command = [sys.executable, *interpreter_flags()]
    command += ["-c", _PROGRAM, json.dumps(sys.path), json.dumps(asdict(options))]
    command += map(str, (*fds, os.getpid(), len(pickled)))
    boss = subprocess.Popen(command, pass_fds=fds, stdin=subprocess.DEVNULL, start_new_session=True)
    boss.returncode = 0  # its end is the handle's to wait for
    ours.setblocking(True)
    with suppress(BrokenPipeError, ConnectionResetError):  # then its end will be noticed
        ours.sendall(pickled)
    return boss.pid


def _pickled(handlers: Handlers) -> bytes:
    """The handlers' bytes; TypeError names the one that has none."""
    try:
        return cloudpickle.dumps(handlers)  # type: ignore[no-any-return]
    except Exception as error:
        name, handler = next((name, one) for name, one in _named(handlers) if not _travels(one))
        text = (
            f'{name}_handler must be something that cloudpickle takes along with start_method "spawn", not {handler!r}'
        )
        raise TypeError(f"{text} ({describe(error)})") from error


def _named(handlers: Handlers) -> list[tuple[str, object]]:
    return [("work", handlers.work), ("init", handlers.init), ("exit", handlers.exit)]


def _travels(handler: object) -> bool:
    try:
        cloudpickle.dumps(handler)
    except Exception:
        return False
    return True


def spawned(options: str, link: str, memory: str, parent: str, size: str) -> None:
    """The fresh interpreter's main: take in the handlers' bytes, then go on as a forked boss does."""
    sys.argv[1:] = []
    caller = socket.socket(fileno=int(link))
    pickled = bytearray()
    while len(pickled) < int(size):
        data = caller.recv(int(size) - len(pickled))
        if not data:
            return
        pickled += data
    settings = Options(**json.loads(options))
    shared = Memory(int(memory))
    load = partial(cloudpickle.loads, bytes(pickled))
    _never_return(partial(_boss_main, load, settings, caller, shared, int(parent)))
