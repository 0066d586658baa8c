"""How a pool's processes come to be: caller -> boss -> fork server, and what each of them sheds.

A forked child inherits everything. What it must not keep, and why:

    boss          Every descriptor but its links and 0-2: it would hold open the caller's pipes and sockets.
                  The caller's session: a Ctrl-C or a hang-up of the terminal is for the caller.
                  The caller's signal handlers and its garbage collection.
    fork server   The boss's link to the caller: only the boss may hold that open.
                  It keeps the caller's other descriptors, since handlers may use them, unless told to close them.
    workers       See forkserver.py and worker.py.

Boss and fork server never touch the standard streams: a thread of the caller may have held a lock of theirs.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import NamedTuple, NoReturn

from bossworker.errors import WorkerStartError
from bossworker.failure import describe
from bossworker.pickling import identify_classes, note_main_definitions
from bossworker.pool import fresh_interpreter
from bossworker.pool.boss.boss import Boss
from bossworker.pool.boss.delivery import CallerGone
from bossworker.pool.boss.first_workers import NoPool
from bossworker.pool.boss.worker_lines import has_room
from bossworker.pool.fresh_interpreter import Packed
from bossworker.pool.options import Handlers, Options
from bossworker.pool.reloading import load_renewed
from bossworker.pool.wire import messages
from bossworker.pool.wire.doorway import Doorway
from bossworker.pool.wire.link import Link, LinkClosed, link_pair
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.output_frames import OutputEnds
from bossworker.pool.wire.recorder import Memory, Recorder
from bossworker.pool.wire.shared_counter import exclusive
from bossworker.pool.wire.worker_wire import WorkerWire
from bossworker.pool.worker.forkserver import ForkServer
from bossworker.pool.worker.relayed_output import RelayedOutput, direct_output
from bossworker.pool.worker.worker import Worker, refuse
from bossworker.system import cpython, forking, multiprocess, processes, signals, stdio
from bossworker.system.cpython import signal  # the whole module makes enums of what it gives back
from bossworker.system.descriptors import close_all_but
from bossworker.system.multiprocess import WorkerIdentity
from bossworker.system.originals import native
from bossworker.system.own_process import separate_from_program
from bossworker.system.titles import look_where_titles_are, set_title

_logger = logging.getLogger("bossworker")

WORKER_NAME = "BossWorker"  # what comes before a worker's number in its name
FORK_SERVER_END_SECONDS = 0.9  # the fork server needs less; then it is stuck, and we end what we can ourselves


class Launched(NamedTuple):
    """A boss that has been started: its pid (0: no process), our end of its link, the memory it shares with us."""

    pid: int
    link: Link
    memory: Memory

    def abandon(self) -> None:
        """End it again."""
        self.link.close()
        if self.pid:
            processes.wait_for(self.pid, FORK_SERVER_END_SECONDS)
        self.memory.close()


class Start(NamedTuple):
    """What the boss and those below it are told."""

    handlers: Handlers | Packed  # packed where the boss is a fresh interpreter
    options: Options
    caller: int  # process id
    memory: Memory
    threads: bool  # whether the caller had any when it was forked


def launch(handlers: Handlers | Packed, options: Options, memory: Memory | None = None) -> Launched:
    """Start a boss by the options' start method; with signals held, and the standard streams taken.

    Handlers that are packed already are for ``"spawn"``.
    `memory`: to be used for the flight recorders; it is closed if the boss cannot be started.
    """
    options = _with_usable_transport(options)
    exclusive()  # found out here, once for all pools that are forked from this process
    ours, theirs = link_pair()
    memory = memory or Memory()
    try:
        if options.start_method == "spawn" or isinstance(handlers, Packed):
            pid = fresh_interpreter.spawn_boss(handlers, options, ours, theirs, memory)
        else:
            pid = _fork_boss(handlers, options, ours, theirs, memory)
        memory.close_file()
    except BaseException:
        ours.close()
        memory.close()
        raise
    finally:
        theirs.close()
    return Launched(pid, Link(ours), memory)


def _with_usable_transport(options: Options) -> Options:
    """Load pyzmq, once for all processes that are forked from this one (it starts no thread); or do without."""
    if options.transport != "zmq":
        return options
    try:
        import zmq  # noqa: F401
    except Exception as error:  # whatever is wrong with the installation
        _logger.warning("ZeroMQ not used: transport=socketpair reason=%r", f"pyzmq cannot be loaded: {describe(error)}")
        return replace(options, transport="socketpair")
    return options


def _fork_boss(
    handlers: Handlers,
    options: Options,
    ours: socket.socket,
    theirs: socket.socket,
    memory: Memory,
) -> int:
    if forking.patched_by_gevent():
        raise WorkerStartError(
            "gevent has replaced parts of the standard library (monkey.patch_all), and what it put there does not work "
            'after a fork: use start_method="spawn"'
        )
    stdio.flush_streams()
    identify_classes()
    note_main_definitions()
    look_where_titles_are()
    start = Start(handlers, options, os.getpid(), memory, cpython.has_other_threads())
    # A service manager may end all processes of the program just now: the child would still have the program's
    # handlers. The signals wait until it has its own.
    with signals.endings_blocked():
        pid = forking.fork()
        if pid == 0:
            _never_return(partial(_boss_main, start, theirs, ours))
    return pid


def _never_return(main: Callable[[], None]) -> NoReturn:
    """Run the main of a child that has no use for the standard streams; the frames below must never run on in it."""
    status = 1
    try:
        main()
        status = 0
    except BaseException:
        with suppress(BaseException):
            stdio.write_error(traceback.format_exc())
    finally:
        processes.exit_at_once(status)


def _boss_main(start: Start, caller: socket.socket, callers_end: socket.socket | None = None) -> None:
    """The boss's process, from its first instruction to its last."""
    with suppress(PermissionError):  # a spawned boss leads its session already
        os.setsid()
    signals.disregard_endings()
    on_sigpipe = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    processes.adopt_orphans()
    if callers_end is not None:
        callers_end.close()  # first of all: there may be no descriptor but this one for what follows
    _shut_stdin()
    collecting = gc.isenabled()
    gc.disable()
    gc.freeze()
    doorway, trouble = _doorway(start.options)
    try:
        # As early as this: each page that we have written to by then is copied once more when we write to it again.
        fork_server, pid = _start_fork_server(start, caller, doorway, collecting, on_sigpipe)
        set_title("bossworker boss", f"bossworker {start.options.name}: boss")
        start.memory.note_boss()
        listener = None if doorway is None else doorway.listener
        boss = Boss(Link(caller), fork_server, start.memory, start.options, start.caller, listener)
    except OSError as error:  # neither a process nor a descriptor is left
        _report_no_start(caller, error)
        return
    with suppress(CallerGone, NoPool, LinkClosed):
        if trouble:
            boss.notes.add(logging.WARNING, f"ZeroMQ not used: transport=socketpair reason={trouble!r}")
        boss.run()
    if doorway is not None:
        doorway.remove_name()
    _end(fork_server, pid, boss)


def _start_fork_server(
    start: Start, caller: socket.socket, doorway: Doorway | None, collecting: bool, on_sigpipe: signals.Handler
) -> tuple[Link, int]:
    """Fork it; the boss's link to it, and its pid. The boss keeps no descriptor but those that it needs itself."""
    ours, theirs = link_pair()
    pid = native("fork")()
    if pid == 0:
        # Only the boss may hold the caller's link: while another process had it, the caller would not see the boss's
        # end.
        caller.close()
        ours.close()
        if doorway is not None:
            doorway.listener.close()
        _never_return(partial(_fork_server_main, start, theirs, doorway, collecting, on_sigpipe))
    theirs.close()
    listener = [] if doorway is None else [doorway.listener.fileno()]
    close_all_but(caller.fileno(), ours.fileno(), *listener)
    return Link(ours), pid


def _report_no_start(caller: socket.socket, error: OSError) -> None:
    """In a boss that could not get what it needs: tell the caller why."""
    reason = f"no boss: {processes.describe_shortage(error.errno or 0)}"
    with suppress(LinkClosed):
        Link(caller).send(Kind.START_FAILED, b"", [reason.encode()])


def _doorway(options: Options) -> tuple[Doorway | None, str]:
    """Where workers find the boss's ZeroMQ socket. None: they speak over socket pairs alone; and why, if unasked."""
    if options.transport != "zmq":
        return None, ""
    most = processes.descriptor_ceiling()
    if not has_room(options.worker_count, most, options.relayed):
        return (
            None,
            f"a limit of {most} descriptors (ulimit -n), too few for {options.worker_count} workers over ZeroMQ",
        )
    try:
        return Doorway(), ""
    except OSError as error:
        return None, f"no folder for a socket: {error}"


def _end(fork_server: Link, pid: int, boss: Boss) -> None:
    """Hang up on the fork server, which then ends the workers; end ourselves whatever it leaves.

    libzmq's threads end before we do: to reap a process that left them behind takes the kernel milliseconds.
    """
    fork_server.close()
    boss.lines.close()
    processes.wait_for(pid, FORK_SERVER_END_SECONDS)
    processes.end_children(FORK_SERVER_END_SECONDS)


def _fork_server_main(
    start: Start, boss: socket.socket, doorway: Doorway | None, collecting: bool, on_sigpipe: signals.Handler
) -> None:
    processes.adopt_orphans()
    set_title("bossworker fork", f"bossworker {start.options.name}: fork server")
    start.memory.note_fork_server()
    _prepare_for_workers(start, boss, doorway)

    def worker_main(
        recorder: Recorder,
        link: socket.socket,
        index: int,
        route: bytes,
        renewed: bytes,
        ends: OutputEnds | None,
    ) -> None:
        if on_sigpipe is not None:
            signal.signal(signal.SIGPIPE, on_sigpipe)
        if collecting:
            gc.enable()
        set_title(f"bossworker {index}", f"bossworker {start.options.name}: worker {index}")
        wire = WorkerWire(link, doorway, route)
        output = direct_output(start.options, ends, recorder.words)
        _worker_main(start, recorder, wire, WorkerIdentity(WORKER_NAME, index, start.caller), renewed, output)

    try:
        ForkServer(boss, start.memory, worker_main, start.options.relayed).run(start.options.worker_count)
    except OSError as error:  # no descriptor is left
        with suppress(LinkClosed):
            Link(boss).send(Kind.SPAWN_FAILED, messages.SPAWN_FAILED.pack(0, error.errno or 0))
    if doorway is not None:
        doorway.remove_name()


def _prepare_for_workers(start: Start, boss: socket.socket, doorway: Doorway | None) -> None:
    """Shed, or renew, what workers must not inherit."""
    start.memory.close_file()  # or a handler finds it among its descriptors
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it is the process's
    if start.threads:
        stdio.renew_streams()
    if isinstance(start.handlers, Packed):
        start.handlers.settle()
    elif start.options.close_fds:
        ways = set() if doorway is None or doorway.way is None else {doorway.way}
        processes.release_descriptors({boss.fileno(), *ways, *_descriptors_in_use()})


def _worker_main(
    start: Start,
    recorder: Recorder,
    wire: WorkerWire,
    identity: WorkerIdentity,
    renewed: bytes,
    output: RelayedOutput | None,
) -> None:
    handlers = start.handlers
    if isinstance(handlers, Packed):
        identity.take()
    else:
        separate_from_program(identity)

    def first() -> Handlers:
        return handlers.load() if isinstance(handlers, Packed) else handlers

    try:
        loaded = load_renewed(renewed, first) if renewed else first()
    except BaseException as error:
        refuse(wire, "the handlers could not be loaded", error)
        return
    Worker(recorder, wire, start.memory, loaded, start.options, identity, output).live()


def _descriptors_in_use() -> Iterator[int]:
    """Those of the caller's that Python itself uses in a worker."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # none, or no file
            yield stream.fileno()
    if (tracker := multiprocess.tracker_fd()) is not None:
        yield tracker


def _shut_stdin() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)


def spawned(*told: str) -> None:
    """The fresh interpreter's main: take in what it needs, then go on as a forked boss does."""
    with suppress(EOFError):
        packed, options, caller, memory, pid = fresh_interpreter.receive(*told)
        _never_return(partial(_boss_main, Start(packed, options, pid, memory, threads=False), caller))
