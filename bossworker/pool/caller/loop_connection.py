"""The line to a boss, of a pool on an event loop: the loop says when something has arrived."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from bossworker.pool.caller.connection import DEATH_TICK, Connection
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.link import LinkClosed


class LoopConnection(Connection):
    """A connection that never waits in the thread of its event loop, and tells the loop of what others take in."""

    _loop: asyncio.AbstractEventLoop | None = None

    def attach(self, loop: asyncio.AbstractEventLoop, on_news: Callable[[], None]) -> None:
        """Listen from now on whenever the loop finds something; then `on_news` is called, in the loop's thread."""
        self._on_news = on_news
        self._thread = threading.get_ident()
        self._watched = [self.link.fileno()] + ([self._boss_fd] if self._boss_fd is not None else [])
        self._loop = loop
        for fd in self._watched:
            loop.add_reader(fd, self._look)
        self._look_again()

    def detach(self) -> None:
        """Leave the loop, while the descriptors are still ours."""
        loop, self._loop = self._loop, None
        if loop is not None and not loop.is_closed():
            for fd in self._watched:
                loop.remove_reader(fd)
            loop.remove_writer(self._watched[0])

    def _look(self) -> None:
        if self._loop is None:
            return
        try:
            self.turns.take(lambda: self._listen(0))
            if self.output.waiting:
                self.output.show()
            if self.gone:
                self.detach()  # or the loop would find its end again and again
            self._on_news()
        except BaseException:  # by a signal handler: and nothing else may come that would have us look again
            if self._loop is not None:
                self._loop.call_later(DEATH_TICK, self._look)
            raise

    def _look_again(self) -> None:
        self._look()
        if self._loop is not None and self._boss_fd is None and self.pid:  # nothing tells of its death but a look
            self._loop.call_later(DEATH_TICK, self._look_again)

    def may_wait(self) -> bool:
        return self._loop is None or threading.get_ident() != self._thread

    def _flush(self) -> None:
        if self.may_wait():
            super()._flush()
            return
        try:
            if not self.link.flush():
                self.send_rest()
        except LinkClosed:
            self.poll()

    def send_rest(self) -> None:
        """As soon as the boss takes more; then `on_news` is called."""
        if self._loop is not None:
            self._loop.add_writer(self._watched[0], self._go_on)

    def _go_on(self) -> None:
        """Send the rest of what the boss had no room for."""
        self.try_send()
        if not self.link.unsent and self._loop is not None:
            self._loop.remove_writer(self._watched[0])
        self._on_news()

    def _on_frame(self, frame: Frame) -> None:
        super()._on_frame(frame)
        self._tell_loop()

    def _lose_boss(self) -> None:
        super()._lose_boss()
        self._tell_loop()

    def _tell_loop(self) -> None:
        loop = self._loop
        # Another thread has taken something in, of which the loop's selector will never tell: so the loop is told, and
        # looks once more.
        if loop is not None and threading.get_ident() != self._thread:
            try:
                loop.call_soon_threadsafe(self._look)
            except RuntimeError:  # the loop has been closed
                self._loop = None
