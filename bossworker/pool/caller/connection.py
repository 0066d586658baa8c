"""The caller's line to its boss: frames sent, and one thread at a time listening for all.

Rules, for this module and its users (``client.py``, ``inbox.py``, ``mapping.py``):

1. Locks are taken in the order adding (outbox), sending, turns (``listener_turns.py``); or adding, unpacking (inbox).
   No thread waits for the boss with a lock held, but to send.
2. Descriptors are closed by ``_give_back`` alone: by the thread that closes the connection or, when threads are still
   listening or waiting, by the last of them to leave.
3. What the garbage collector, a signal handler or a forked child may call takes no lock that the interrupted code
   could hold: ``try_send``, ``Inbox.forget``, ``close(in_child=True)``, and ``shut_down(force=True)``, whose locks may
   be taken twice.
"""

from __future__ import annotations

import errno
import json
import os
import select
import selectors
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from bossworker.pool.caller.awaited_fds import AwaitedFds
from bossworker.pool.caller.inbox import Inbox
from bossworker.pool.caller.link_reading import LinkReading
from bossworker.pool.caller.listener_turns import ListenerTurns
from bossworker.pool.caller.readiness import ReadinessFd
from bossworker.pool.caller.replies import Replies
from bossworker.pool.caller.said_by_boss import SaidByBoss
from bossworker.pool.launch import Launched
from bossworker.pool.wire import messages
from bossworker.pool.wire.frames import Frame, Part, pack
from bossworker.pool.wire.link import LinkClosed
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.parcel import MemoryFiles
from bossworker.pool.wire.progress import Progress
from bossworker.pool.wire.segments import read_segments
from bossworker.system import processes
from bossworker.system.one_step import taken_at_once
from bossworker.watch.progress_bar import REPAINT_SECONDS
from bossworker.watch.relayed_lines import RelayedLines

FORCE_SECONDS = 0.95  # for the boss to end everything; then it is killed itself
UNSENT_TICK = 0.005  # seconds between tries to send the rest of a frame, while results are waited for
DEATH_TICK = 0.05  # seconds between looks at the boss where it has no descriptor


class Connection:
    """See the module. What arrives goes to the inbox, put there by whichever thread listens."""

    jobs_wanted = 0  # in flight at the same time, by an engine that has many workers

    def __init__(self, launched: Launched, inbox: Inbox) -> None:
        self.pid, self.link, self.memory = launched
        self.inbox = inbox
        self.memory_files = MemoryFiles(self.memory, inbox.jobs)
        self.said = SaidByBoss()
        self.gone = False  # the boss has ended, in order or not; all it sent is here
        self._let_go = False  # it ends, or has ended, because we want it to
        self.output = RelayedLines(inbox.jobs)
        inbox.output = self.output
        self.all_recalled = True  # whether all is here that somebody before us has left
        self.bars: list[Callable[[], None]] = []  # to be called ten times a second while somebody waits
        self.turns = ListenerTurns(self._give_back)
        self._given_back = False
        self._replies = Replies()
        self._sending = threading.Lock()  # for putting frames into the link
        self._readiness = ReadinessFd()
        self._reading = LinkReading(self._readiness.raise_)
        self._selector = AwaitedFds()
        self._boss_fd = processes.pidfd(self.pid)
        self._watch(self._selector)

    def _watch(self, selector: AwaitedFds | selectors.BaseSelector) -> None:
        """Register what becomes readable when the boss sends something, or ends."""
        for watched in (self.link.sock, self._boss_fd):
            if watched is not None:
                selector.register(watched, selectors.EVENT_READ)

    # -- sending ----------------------------------------------------------------------------------------

    def send(self, kind: Kind, head: bytes = b"", body: Sequence[bytes] = ()) -> None:
        """Send a frame, however long the boss takes to read it."""
        self.send_packed(pack(kind, head, body))

    def send_packed(self, parts: list[Part]) -> None:
        """As `send`, for several frames at once: all of them or, if interrupted before they are queued, none."""
        # Up to the end of the flush no other frame gets between ours: what a garbage collection sends amid this finds
        # the lock taken (`try_send`).
        with self._sending:
            self.link.queue(parts)
            try:
                self._flush()
            except BaseException:  # interrupted: the rest is sent by the next call
                self._readiness.raise_()
                raise

    def was_queued(self, parts: list[Part]) -> bool:
        """Whether frames go out for which `send_packed` was called, though it was interrupted: see `Link.queue`."""
        return not parts

    def _flush(self) -> None:
        try:
            while not self.link.flush():
                if not processes.await_fd(self.link.fileno(), select.POLLOUT, DEATH_TICK) and not self.alive():
                    return
        except LinkClosed:
            self.poll()  # for what it sent before, and for its end: a program that only adds must hear of it, too

    def try_send(self, parts: Sequence[Part] = ()) -> bool:
        """Send without ever waiting, neither for the boss nor for another thread; False when that is not possible now.

        So it may be called from where it interrupts anything at all: by the garbage collector.
        """
        if self.closed:
            return False
        # Whatever interrupts us here, and sends by itself, finds the lock taken or free; Ctrl-C behind the taking finds
        # that noted in `held`.
        held: list[bool] = []
        try:
            if not taken_at_once(self._sending, held):
                return False
            self.link.queue([*parts])
            with suppress(LinkClosed):
                self.link.flush()
        finally:
            if held:
                self._sending.release()
        return True

    def may_wait(self) -> bool:
        """Whether this thread may wait for an answer."""
        return True

    def on_given_out(self) -> None:
        """The program has got a result. (What is done about it, and below, is for those who keep results for it.)"""

    def before_drop(self) -> None:
        """All results that the program has not got are about to be dropped."""

    def who_died(self) -> str:
        """Whose end it was, once the boss is gone before its time."""
        return f"the boss (process {self.pid})"

    def alive(self) -> bool:
        """Whether the boss's process exists."""
        return not self.gone and processes.is_alive(self.pid)

    @property
    def died(self) -> bool:
        """Whether the boss ended before its time, and not because we ended it."""
        return self.gone and not self.said.orderly and not self._let_go

    def why_not_up(self) -> str:
        """Why there are no workers: what the boss has said, or else how it ended."""
        if self.said.failure:
            return self.said.failure
        if self._boss_fd is not None:
            processes.await_fd(self._boss_fd, select.POLLIN, 1.0)  # its link is closed before it has ended
        code = processes.exit_code_of(self.pid)
        if code == -signal.SIGABRT:  # by libzmq, which aborts where it gets no thread; it has said so on stderr
            return f"the boss aborted before the workers were up: {processes.describe_shortage(errno.EAGAIN)}"
        how = "" if code is None else f" ({processes.describe_code(code)})"
        return f"the boss ended before the workers were up{how}"

    def request(
        self, kind: Kind, head: bytes = b"", body: Sequence[bytes] = (), patient: bool = False
    ) -> dict[str, Any] | None:
        """Ask the boss and wait for its answer; None when it is gone. `patient`: it may take long."""
        number = self.ask(kind, head, body)
        try:
            self.wait_until(lambda: self.answered(number), patient=patient)
        except BaseException:
            self.disown(number)
            raise
        return self.answer(number)

    def ask(self, kind: Kind, head: bytes = b"", body: Sequence[bytes] = ()) -> int:
        """Send a request; its number. Where Ctrl-C ends this, nobody waits for the answer, if there will be one."""
        number = self._replies.expect()
        parts = pack(kind, messages.REQUEST.pack(number) + head, body)
        try:
            self.send_packed(parts)
        except BaseException:
            # If it does not go out, no answer comes, and a number that is marked as unwanted would stay so for ever.
            if self.was_queued(parts):
                self.disown(number)
            raise
        return number

    def answered(self, number: int) -> bool:
        return self._replies.is_here(number)

    def answer(self, number: int) -> dict[str, Any] | None:
        """The boss's answer, once; None when there is none."""
        return self._replies.take(number)

    def disown(self, number: int) -> None:
        """Nobody wants the answer any more."""
        self._replies.disown(number)

    # -- listening --------------------------------------------------------------------------------------

    def wait_until(self, ready: Callable[[], bool], deadline: float | None = None, *, patient: bool = False) -> bool:
        """Wait until `ready()`, the deadline (monotonic) or the boss's end; whether `ready()`.

        One thread listens. The others wait for it to take in what concerns them; when it leaves, one takes over.
        `patient`: rather not this one.
        """
        while not ready():
            seconds = None if deadline is None else deadline - time.monotonic()
            if self.gone or self.closed or (seconds is not None and seconds <= 0):
                return False
            if self.bars and not patient:
                seconds = self._look_at_bars(seconds)
            if self.turns.take(lambda: self._listen_for(ready, seconds), patient):  # noqa: B023
                if self.output.waiting:
                    self.output.show()
            elif patient:
                self.turns.wait_patiently(ready, seconds)
            else:
                self._ask_for_turn()
                self.turns.wait(ready, seconds)
        return True

    def _listen_for(self, ready: Callable[[], bool], seconds: float | None) -> None:
        # Between our last look and our turn, another thread may have had one, and have taken in what we wait for. It
        # found us neither listening nor waiting, so it has woken nobody; and nothing more need ever come.
        if not ready():
            self._listen(seconds)

    def _ask_for_turn(self) -> None:
        """From whoever would rather not listen."""
        if self.turns.patient:
            self.turns.claim()
            # Claimed first: the patient thread that is woken here must not take its turn again.
            self._selector.end_wait()

    def _look_at_bars(self, seconds: float | None) -> float:
        """Have them painted anew; how long to wait before that is due again."""
        for look in list(self.bars):
            look()
        return REPAINT_SECONDS if seconds is None else min(seconds, REPAINT_SECONDS)

    def running_progress(self) -> list[tuple[int, Progress]]:
        """The jobs that run now and say how far they are."""
        with suppress(ValueError):  # another thread has given the memory back
            return list(self.memory.running_progress())
        return []

    def poll(self) -> None:
        """Take in what has arrived, without waiting; nothing to do when another thread listens."""
        if not self.gone:
            if self.link.unsent:  # left over from an interrupted call, or another thread is at it
                self.try_send()
            self.turns.take(self._take_in)
            if self.output.waiting:
                self.output.show()

    def glance(self) -> None:
        """The same for those who do not ask for a result. (An inline pool runs no job for it.)"""
        self.poll()

    def _listen(self, seconds: float | None) -> None:
        if self.gone:
            return
        ticks = [] if seconds is None else [min(seconds, processes.LONGEST_POLL)]
        if self.link.unsent:  # left over from an interrupted call, or another thread is at it
            self.try_send()
            ticks.append(UNSENT_TICK)
        if self._boss_fd is None and self.pid:
            ticks.append(DEATH_TICK)
        # What an interrupted call has read will not make the socket readable again: so there is no sleep while some of
        # it is left.
        ready = self._selector.wait(0.0 if self._has_read() else min(ticks, default=None))
        self._take_in()
        if not self.gone and (self._boss_fd in ready or (not ready and self._boss_fd is None)):
            self._check_boss()

    def _check_boss(self) -> None:
        if not self.alive():
            # It may have sent results and then ended, both since our last read. They must be here before it counts as
            # gone, which other threads take for "nothing more will come".
            while self._take_in():
                pass
            self._lose_boss()

    def _take_in(self) -> bool:
        """Take in what has arrived; whether anything came."""
        came, hung_up = self._reading.take_in(self.link, self._on_frame)
        if hung_up:  # not before what it said last is here: another thread may look at both
            self._lose_boss()
        return came

    def _has_read(self) -> bool:
        """Whether an interrupted call has read what it did not act on."""
        return self.link.left_over

    def _lose_boss(self) -> None:
        if not self.gone:
            self.gone = True
            for selector in (self._selector, self._readiness.selector):
                for watched in (self.link.sock, self._boss_fd):
                    with suppress(AttributeError, KeyError, ValueError, TypeError):
                        selector.unregister(watched)  # type: ignore[union-attr, arg-type]

    def _on_frame(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.RESULTS:
                self.inbox.receive(read_segments(frame.head, frame.body), frame.fd)
                self._readiness.raise_()
            case Kind.REPLY:
                (number,) = messages.REQUEST.unpack(frame.head)
                self._replies.add(number, json.loads(bytes(frame.body)))
            case Kind.OUTPUT_LINES:
                self.output.add(json.loads(bytes(frame.body)), frame)
            case _:
                self.said.take_in(frame)

    def wake(self) -> None:
        """Make the threads that wait look at their condition again."""
        # A thread that takes its turn after this look finds by itself what has changed (`_listen_for`).
        if self.turns.taken:
            self._selector.end_wait()
        self.turns.wake_waiters()

    def fileno(self) -> int:
        """A descriptor that is readable when something arrives, or while the sign is up."""
        return self._readiness.fileno(self._watch)

    def show_readiness(self, has_news: Callable[[], bool]) -> None:
        """Have that descriptor show whether there is something to do here already."""
        self._readiness.show(lambda: has_news() or self._has_read() or self.link.unsent)

    def tell_of_news(self) -> None:
        """There is something to do here, whoever watches that descriptor, or waits."""
        self._readiness.raise_()
        self.wake()

    @property
    def closed(self) -> bool:
        """Whether no thread may begin to listen any more."""
        return self.turns.closed

    # -- the end ----------------------------------------------------------------------------------------

    def end(self, force: bool) -> None:
        """Wait for the boss to be gone. `force`: make it end everything, now.

        It takes our hanging up for an order; so does a dead boss's fork server.
        """
        # Before we hang up: a thread that listens must not take for a death what we want.
        self._let_go = not self.gone
        if force or not processes.wait_for(self.pid, FORCE_SECONDS):
            self.link.close()
        processes.wait_or_kill(self.pid, FORCE_SECONDS)
        self._lose_boss()
        self.wake()

    def never_started(self, ids: Iterable[int]) -> set[int]:
        """After the boss's death: those of the jobs that provably never ran, and never will."""
        through = self.memory.assigned_through
        never = {job_id for job_id in ids if job_id >= through}
        with suppress(ValueError, IndexError):  # a handler has written over the memory
            never.update(*self.memory.withdraw())
        return never

    def close(self, keep_sign: bool = False, in_child: bool = False) -> None:
        """Give back every descriptor, as soon as no thread uses them; `keep_sign`: but for that of `fileno`."""
        if not keep_sign:
            self._readiness.close()
        if in_child:
            self.turns.closed = True
            self.link.drop()
            self._give_back()
            return
        # First the link, then the mark, then the wake-up: a thread that is about to listen sees the mark, one that
        # listens is woken, and one that sends finds the link closed.
        self.link.close()
        self.turns.closed = True
        self.wake()
        self.turns.close()

    def _give_back(self) -> None:
        if self._given_back:
            return
        self._given_back = True
        if self._boss_fd is not None:
            os.close(self._boss_fd)
            self._boss_fd = None
        self._selector.close()
        self.memory_files.close()
        self.memory.close()
