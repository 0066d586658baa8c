"""The caller's line to its boss: frames sent, and one thread at a time listening for all."""

from __future__ import annotations

import json
import os
import select
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from bossworker import messages, process
from bossworker.launch import Launched
from bossworker.link import Frame, LinkClosed, Part, pack
from bossworker.messages import Kind, Segment

FORCE_SECONDS = 0.95  # for the boss to end everything; then it is killed itself
DEATH_TICK = 0.05  # seconds between looks at the boss where it has no descriptor


class Connection:
    """See the module. `on_results` is called with what arrives, by whichever thread listens."""

    def __init__(self, launched: Launched, on_results: Callable[[list[Segment]], None]) -> None:
        self.pid, self.link, self.memory = launched
        self.on_results = on_results
        self.up = False
        self.gone = False  # the boss has ended, in order or not; all it sent is here
        self.orderly = False  # it said that it was through
        self.failure = ""  # why no worker can be started
        self.closed = False
        self._replies: dict[int, dict[str, Any]] = {}
        self._requests = 0
        self._sending = threading.Lock()  # for putting frames into the link
        self._lock = threading.Lock()  # for the next four
        self._news = threading.Condition(self._lock)
        self._listener = False  # whether a thread listens now
        self.waiters = 0  # threads that wait for it
        self._wake_us, self._waker = socket.socketpair()  # ends the listener's sleep
        self._wake_us.setblocking(False)
        self._waker.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.link.sock, selectors.EVENT_READ)
        self._selector.register(self._wake_us, selectors.EVENT_READ)
        self._boss_fd = process.pidfd(self.pid)
        if self._boss_fd is not None:
            self._selector.register(self._boss_fd, selectors.EVENT_READ)

    # -- sending ----------------------------------------------------------------------------------------

    def send(self, kind: Kind, head: bytes = b"", body: Sequence[bytes] = ()) -> None:
        """Send a frame, however long the boss takes to read it."""
        self.send_packed(pack(kind, head, body))

    def send_packed(self, parts: list[Part]) -> None:
        """As `send`, for several frames at once: all of them or, if interrupted before they are queued, none."""
        with self._sending:
            self.link.queue(parts)
            self._flush()

    def _flush(self) -> None:
        with suppress(LinkClosed):  # who waits for an answer will hear of it
            while not self.link.flush():
                if not _writable(self.link.sock, DEATH_TICK) and not self.alive():
                    return

    def alive(self) -> bool:
        """Whether the boss's process exists."""
        if self.gone:
            return False
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    def request(self, kind: Kind, head: bytes = b"", body: Sequence[bytes] = ()) -> dict[str, Any] | None:
        """Ask the boss and wait for its answer; None when it is gone."""
        with self._lock:
            self._requests += 1
            number = self._requests
        self.send(kind, messages.REQUEST.pack(number) + head, body)
        self.wait_until(lambda: number in self._replies)
        return self._replies.pop(number, None)

    # -- listening --------------------------------------------------------------------------------------

    def wait_until(self, ready: Callable[[], bool], deadline: float | None = None) -> bool:
        """Wait until `ready()`, the deadline (monotonic) or the boss's end; whether `ready()`.

        One thread listens, the others wait for it to take in what concerns them; when it leaves, the next one takes
        over.
        """
        while not ready():
            seconds = None if deadline is None else deadline - time.monotonic()
            if self.gone or (seconds is not None and seconds <= 0):
                return False
            mine = False
            try:
                with self._lock:
                    if self._listener:
                        self._sleep(ready, seconds)
                    else:
                        self._listener = mine = True
                if mine:
                    self._listen(seconds)
            finally:
                if mine:
                    self._listener = False
                    self._hand_over()
        return True

    def _sleep(self, ready: Callable[[], bool], seconds: float | None) -> None:
        """Wait for the listener's next news. The lock is held."""
        self.waiters += 1
        try:
            if not ready():
                self._news.wait(seconds)
        finally:
            self.waiters -= 1

    def _hand_over(self) -> None:
        with self._lock:
            self._news.notify_all()

    def poll(self) -> None:
        """Take in what has arrived, without waiting; nothing to do when another thread listens."""
        mine = False
        try:
            with self._lock:
                if not self._listener and not self.gone:
                    self._listener = mine = True
            if mine:
                self._take_in()
        finally:
            if mine:
                self._listener = False
                if self.waiters:
                    self._hand_over()

    def _listen(self, seconds: float | None) -> None:
        if self.link.unsent and self._sending.acquire(False):  # left over from an interrupted call
            try:
                self._flush()
            finally:
                self._sending.release()
        if self._boss_fd is None:
            seconds = DEATH_TICK if seconds is None else min(seconds, DEATH_TICK)
        keys = [key.fd for key, _ in self._selector.select(seconds)]
        if self._wake_us.fileno() in keys:
            with suppress(BlockingIOError):
                self._wake_us.recv(4096)
        self._take_in()
        if not self.gone and (self._boss_fd in keys or (not keys and self._boss_fd is None)):
            self._check_boss()

    def _check_boss(self) -> None:
        if not self.alive():
            self._take_in()
            self._lose_boss()

    def _take_in(self) -> None:
        """Read the link and act on each frame, which is struck off only then: to act on it twice does no harm."""
        try:
            self.link.pull()
        except LinkClosed:
            self._lose_boss()
        while self.link.frames:
            self._on_frame(self.link.frames[0])
            del self.link.frames[0]

    def _lose_boss(self) -> None:
        if not self.gone:
            for watched in (self.link.sock, self._boss_fd):
                with suppress(KeyError, ValueError, TypeError):
                    self._selector.unregister(watched)  # type: ignore[arg-type]
            self.gone = True

    def _on_frame(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.RESULTS:
                self.on_results(messages.read_segments(frame.head, frame.body))
            case Kind.REPLY:
                (number,) = messages.REQUEST.unpack(frame.head)
                self._replies[number] = json.loads(bytes(frame.body))
            case Kind.READY:
                self.up = True
            case Kind.START_FAILED | Kind.BROKEN:
                self.failure = str(frame.body, "utf-8", "replace")
            case Kind.CLOSED:
                self.orderly = True

    def wake(self) -> None:
        """Make the threads that wait look at their condition again."""
        if self.waiters or self._listener:
            with suppress(BlockingIOError):
                self._waker.send(b"w")
            self._hand_over()

    # -- a sign for select() ----------------------------------------------------------------------------

    def fileno(self) -> int:
        """A descriptor that is readable when something arrived, or while the sign is up."""
        return self._selector.fileno()

    def sign(self, up: bool) -> None:
        """Raise or lower the sign that there is something to fetch here already."""
        if up:
            with suppress(BlockingIOError):
                self._waker.send(b"s")
        else:
            with suppress(BlockingIOError):
                self._wake_us.recv(4096)

    # -- the end ----------------------------------------------------------------------------------------

    def end(self, force: bool) -> None:
        """Wait for the boss to be gone. `force`: make it end everything, now.

        It takes our hanging up for an order; so does a dead boss's nursery.
        """
        if force:
            self.link.close()
        if not process.wait_for(self.pid, FORCE_SECONDS):
            self.link.close()
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            process.wait_for(self.pid, FORCE_SECONDS)
        self._lose_boss()
        self.wake()

    def never_started(self, ids: Iterable[int]) -> set[int]:
        """After the boss's death: those of the jobs that provably never ran, and never will."""
        through = self.memory.assigned_through
        never = {job_id for job_id in ids if job_id >= through}
        return never.union(*self.memory.withdraw())

    def close(self, in_child: bool = False) -> None:
        """Give back every descriptor."""
        if self.closed:
            return
        self.closed = True
        self._selector.close()
        self.link.drop() if in_child else self.link.close()
        self._wake_us.close()
        self._waker.close()
        if self._boss_fd is not None:
            os.close(self._boss_fd)
        self.memory.close()


def _writable(sock: socket.socket, seconds: float) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    return any(event & select.POLLOUT for _, event in poll.poll(seconds * 1000))
