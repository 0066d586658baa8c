"""The fork server: forks the workers and reaps them. The only fork and the only waitpid of a pool.

A process of its own, so that a worker is forked from a small and clean image, with the handlers and all that was
imported before the pool was made, however large the boss's queue has grown. It is single-threaded, and stays so.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn

from bossworker.pool.wire import messages
from bossworker.pool.wire.link import Link, LinkClosed, close_fds, link_pair
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.output_frames import STDERR, STDOUT, OutputEnds, new_secret
from bossworker.pool.wire.recorder import Memory, Recorder
from bossworker.pool.worker.leaving import exit_status, leave_at_once
from bossworker.system import processes, signals
from bossworker.system.cpython import signal  # the whole module makes enums of what it gives back
from bossworker.system.descendants import is_detached
from bossworker.system.originals import native

END_SECONDS = 0.8  # for the whole tree to be gone, within the second that the contract gives

WorkerMain = Callable[[Recorder, socket.socket, int, bytes, bytes, OutputEnds | None], None]
"""What a worker does with its recorder, its link, its index, its identity at the boss's ZeroMQ socket, with the
handlers that the program has reloaded (empty: it has not), and with its ends of the pipes that its output goes into, if
that goes to the caller.
"""


class _Ends:
    """The socket pair between the boss and a worker; and the pipes for the worker's output, if that is relayed."""

    def __init__(self, relayed: bool) -> None:
        """OSError: there is no descriptor left."""
        pipes: list[int] = []
        try:
            self.ours, self.theirs = link_pair()
            for _ in (STDOUT, STDERR) if relayed else ():
                pipes += os.pipe()
        except OSError:
            close_fds(pipes)
            raise
        self.output_fds = pipes[::2]  # the boss's
        self.output = OutputEnds(pipes[1], pipes[3], new_secret()) if relayed else None
        self._pipes = pipes

    @property
    def secret(self) -> bytes:
        return self.output.secret if self.output is not None else b""

    def close_boss_ends(self) -> None:
        """In the worker."""
        self.ours.close()
        close_fds(self.output_fds)

    def close_worker_ends(self) -> None:
        """In the fork server. The others go to the boss, and are closed as they are sent."""
        self.theirs.close()
        close_fds(self._pipes[1::2])

    def close(self) -> None:
        """There is no worker."""
        self.close_boss_ends()
        self.close_worker_ends()


class ForkServer:
    """Serves the boss until it hangs up or dies; then ends every worker and whatever they started."""

    def __init__(self, boss: socket.socket, memory: Memory, worker_main: WorkerMain, relayed: bool = False) -> None:
        self.boss = Link(boss)
        self.memory = memory
        self.worker_main = worker_main
        self.relayed = relayed  # whether the workers' output goes to the caller
        self.slots: dict[int, int] = {}  # pid -> slot, of the workers not reaped yet
        self.handlers: dict[int, bytes] = {}  # reloaded ones, by generation; never looked into here
        self.wake, self.waker = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(self.waker, False)

    def run(self, first: int) -> None:
        """Start the first workers, while the boss is busy with itself; serve; clean up. Never raises LinkClosed."""
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self.waker, warn_on_full_buffer=False)
        try:
            for slot in range(first):
                self._spawn(slot, slot)
            self._serve()
        except LinkClosed:
            pass
        finally:
            processes.end_children(END_SECONDS)

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self.boss.sock, select.POLLIN)
        poll.register(self.wake, select.POLLIN)
        while True:
            # The pipe is emptied before we reap: a child that ends after the last look of `_reap` writes into it again,
            # and the next poll returns at once.
            poll.poll()
            with suppress(BlockingIOError):
                os.read(self.wake, 4096)
            self._obey()
            self._reap()
            self.boss.flush()

    def _obey(self) -> None:
        for frame in self.boss.receive():
            match frame.kind:
                case Kind.SPAWN:
                    self._spawn(*messages.SPAWN.unpack(frame.head))
                case Kind.KILL:
                    self._kill(*messages.KILL.unpack(frame.head))
                case Kind.HANDLERS:
                    (generation,) = messages.GENERATION.unpack(frame.head)
                    self._keep(generation, bytes(frame.body))

    def _keep(self, generation: int, handlers: bytes) -> None:
        """Have them for the workers to come; or not any more, if they are empty."""
        self.handlers.pop(generation, None)
        if handlers:
            self.handlers[generation] = handlers

    def _spawn(self, slot: int, index: int, by_zmq: bool = True, generation: int = 0) -> None:
        try:
            ends = _Ends(self.relayed)
        except OSError as error:
            self._report_failure(slot, error)
            return
        recorder = self.memory.recorder(slot, fresh=True)
        server = os.getpid()
        # An identity that is nobody else's, ever, and cannot be guessed.
        route = slot.to_bytes(4, "little") + os.urandom(8) if by_zmq else b""
        try:
            pid = native("fork")()
        except OSError as error:
            ends.close()
            self._report_failure(slot, error)
            return
        if pid == 0:
            ends.close_boss_ends()
            handlers = self.handlers.get(generation, b"")
            work = partial(self.worker_main, recorder, ends.theirs, index, route, handlers, ends.output)
            self._become_worker(server, work)
        # Before anything can be reaped: there is one thread, and it reaps in `_reap` alone. So the worker's end is told
        # after its start, however soon it dies.
        self.slots[pid] = slot
        ends.close_worker_ends()
        for stream, fd in zip((STDOUT, STDERR), ends.output_fds):
            self.boss.send(Kind.OUTPUT, messages.OUTPUT.pack(slot, pid, stream, ends.secret), fds=(fd,))
        self.boss.send(Kind.SPAWNED, messages.SPAWNED.pack(slot, pid, route), fds=(ends.ours.detach(),))

    def _report_failure(self, slot: int, error: OSError) -> None:
        self.boss.send(Kind.SPAWN_FAILED, messages.SPAWN_FAILED.pack(slot, error.errno or 0))

    def _become_worker(self, server: int, work: Callable[[], None]) -> NoReturn:
        """In the child: shut what is the fork server's, lead a group of our own, work, and never return."""
        status = 1
        try:
            # The fork server may end between the fork and this: `die_with` asks for its parent behind the request.
            processes.die_with(server)
            os.setpgid(0, 0)
            processes.adopt_orphans()  # what a handler starts stays its worker's, and goes with it
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signals.give_children_defaults()
            for fd in (self.wake, self.waker):
                os.close(fd)
            self.boss.drop()
            work()
            status = 0
        except BaseException as error:
            status = exit_status(error)
        finally:
            leave_at_once(status)

    def _kill(self, slot: int, pid: int, number: int) -> None:
        """Signal a worker of ours, or end its whole tree. It is not reaped yet, so the pid can be no one else's."""
        # The order may have crossed the word of the worker's end. Its pid is no longer its own then, and perhaps
        # another worker's: the slot tells.
        if self.slots.get(pid) != slot:
            return
        if number:
            with suppress(OSError):  # it may have another user's rights by now
                os.kill(pid, number)
        else:
            processes.kill_tree(pid)

    def _reap(self) -> None:
        """Reap the dead, tell of the workers among them, and end what those leave."""
        any_dead = False
        while (dead := processes.reap_one(self.slots)) is not None:
            any_dead = True
            pid, status = dead
            slot = self.slots.pop(pid, None)
            if slot is not None:
                self.boss.send(Kind.EXITED, messages.EXITED.pack(slot, pid, status))
        if any_dead:
            self._end_strangers()

    def _end_strangers(self) -> None:
        """Workers adopt the orphans beneath them. So a child that is no worker of ours was left by one that is gone.

        Each of its own children comes to us as it dies, and its death brings us here again, until none is left; but
        for those that stand apart, as detached jobs do.
        """
        # A child that dies after this list was made brings its own children to us with its SIGCHLD: `_reap` comes back
        # here.
        for pid in processes.children(os.getpid()):
            if pid not in self.slots and not is_detached(pid):
                processes.kill_tree(pid)
