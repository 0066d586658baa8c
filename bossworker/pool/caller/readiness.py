"""A descriptor that is readable while results wait: what ``fileno`` gives to programs with a loop of their own."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from bossworker.system.cpython import NO_SIGPIPE


class _QuietSocket(socket.socket):
    """Closed without a ResourceWarning: the collector may come to it before it comes to the handle, which closes it."""

    def __del__(self) -> None:
        self.close()


class ReadinessFd:
    """A selector over what a connection listens to, and a byte that keeps it readable while results wait."""

    def __init__(self) -> None:
        self.selector: selectors.BaseSelector | None = None
        self._seen: socket.socket | None = None
        self._shown: socket.socket | None = None
        self._making = threading.RLock()

    def fileno(self, watch: Callable[[selectors.BaseSelector], None]) -> int:
        # Two threads may ask for it for the first time at once. If each made one, the first would be closed as the
        # second takes its place, and whoever has got it would watch a number that means nothing, or something else.
        with self._making:
            if self.selector is None:
                self._make(watch)
            return self.selector.fileno()  # type: ignore[union-attr, no-any-return]

    def _make(self, watch: Callable[[selectors.BaseSelector], None]) -> None:
        self._seen, self._shown = (_QuietSocket(fileno=one.detach()) for one in socket.socketpair())
        self._seen.setblocking(False)
        self._shown.setblocking(False)
        selector = selectors.DefaultSelector()
        selector.register(self._seen, selectors.EVENT_READ)
        watch(selector)
        self.selector = selector

    def raise_(self) -> None:
        if self._shown is not None:
            with suppress(BlockingIOError, OSError):
                self._shown.send(b"s", NO_SIGPIPE)

    def lower(self) -> None:
        if self._seen is not None:
            with suppress(BlockingIOError, OSError):
                self._seen.recv(65536)

    def show(self, has_news: Callable[[], bool]) -> None:
        """Raise it if there is something, lower it if not."""
        try:
            # Lowered, then looked: news that come before the look are seen by it, and whoever brings news after it
            # raises the sign again. The other way round, we would take down the sign of news that came in between.
            self.lower()
            if has_news():
                self.raise_()
        except BaseException:  # by a signal handler: rather one time too many than never again
            self.raise_()
            raise

    def close(self) -> None:
        for one in (self.selector, self._seen, self._shown):
            if one is not None:
                one.close()
