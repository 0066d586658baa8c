"""The host's end of the line to its run."""

from __future__ import annotations

import os
import select

from bossworker.commands.hosting import hosting_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_CHUNK = 1 << 16


class RunLink:
    """Takes messages as they come, and sends records as the run reads them: it waits for neither."""

    def __init__(self, fd: int, poll: select.poll) -> None:
        """
        Args:
            fd: A descriptor: the run's end of it is what we live for.
            poll: Waits for it from now on.
        """
        self.fd = fd
        self.records: list[tuple[Any, ...]] = []
        """What is to be told."""
        self.is_open = True
        self._mail = hosting_wire.Unpacker()
        self._unsent = b""
        self._poll = poll
        poll.register(fd, select.POLLIN)
        os.set_blocking(fd, False)

    @property
    def is_jammed(self) -> bool:
        """Whether the run has yet to read what was told before."""
        return bool(self._unsent)

    def receive(self, events: int) -> Iterator[Any]:
        """Messages, after the poll. Once the run has hung up, it `is_open` no more."""
        if events & select.POLLOUT:
            self.send()
        if not events & ~select.POLLOUT:
            return
        try:
            data = os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.is_open = bool(data)
        yield from self._mail.feed(data)

    def tell(self) -> None:
        """Send what is to be told."""
        if self.records:
            self._unsent += hosting_wire.pack(self.records)
            self.records = []
            self.send()

    def send(self) -> None:
        """Send what is left from before, as far as it goes."""
        waited = self.is_jammed
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self.fd, self._unsent) :]
        except BlockingIOError:
            self._poll.register(self.fd, select.POLLIN | select.POLLOUT)
            return
        except OSError:  # it is gone; the poll says so
            self._unsent = b""
        if waited:
            self._poll.register(self.fd, select.POLLIN)
