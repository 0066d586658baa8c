"""The few descriptors that a listener waits for.

The module selectors takes five times as long for that, which counts: a thread that waits for one result goes to sleep
and wakes up with cold caches.
"""

from __future__ import annotations

import select
import socket
from contextlib import suppress

from bossworker.system.cpython import NO_SIGPIPE

_Source = socket.socket | int  # a socket, or a descriptor


class AwaitedFds:
    """See the module. One thread at a time may wait; any may end its wait."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._fds: dict[_Source, int] = {}
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self.register(self._woken)

    def register(self, source: _Source, events: int = select.POLLIN) -> None:
        """Wait for it, too."""
        fd = source if isinstance(source, int) else source.fileno()
        self._poll.register(fd, events)
        self._fds[source] = fd

    def unregister(self, source: _Source) -> None:
        """Wait for it no more. KeyError: nobody does. (A socket may be closed already.)"""
        self._poll.unregister(self._fds.pop(source))

    def wait(self, seconds: float | None) -> list[int]:
        """Those that are readable or have ended; after that many seconds (None: as long as it takes), none.

        After `end_wait`, one is among them that is nobody else's.
        """
        # A byte that `end_wait` has sent before we got here ends this wait at once: so whoever changes something and
        # then calls it need not know whether we sleep already.
        ready = self._poll.poll(None if seconds is None else seconds * 1000)
        fds = []
        for fd, events in ready:
            if events & select.POLLNVAL:  # another thread has closed it, and has not unregistered it yet
                with suppress(KeyError):  # or has, just now
                    self._poll.unregister(fd)
            else:
                fds.append(fd)
        # Taken off after the wait, before the caller looks at its condition. A byte that comes later ends the next
        # wait.
        if self._woken.fileno() in fds:
            with suppress(BlockingIOError):
                self._woken.recv(4096)
        return fds

    def end_wait(self) -> None:
        """Have the thread that waits, if any, wait no longer."""
        with suppress(OSError):  # full, so it will wake; or closed just now, by that thread as it left
            self._waker.send(b"w", NO_SIGPIPE)

    def close(self) -> None:
        """Wait for nothing any more."""
        self._fds.clear()
        self._poll = select.poll()
        self._woken.close()
        self._waker.close()
