"""Output that is passed on as it comes, whole lines at a time."""

from __future__ import annotations

import os
import select

_MOST = 1 << 20  # bytes that are read at once
_WITHOUT_WAITING = select.PIPE_BUF  # bytes that a pipe takes at once that can be written to


def tagged(data: bytes, tag: bytes) -> bytes:
    """Lines, with the tag before each."""
    if not (tag and data):
        return data
    return b"".join(tag + line for line in data.splitlines(keepends=True))


class RelayTurns:
    """Of all commands that pass lines on to one descriptor, one has the turn until its last line is whole."""

    def __init__(self) -> None:
        self.owners: list[LineRelay | None] = [None, None]


class LineRelay:
    """Passes on what one command writes into its two files, to our own stdout and stderr.

    It never waits for whoever reads: what cannot be written just now is written at a later look.
    """

    def __init__(self, streams: tuple[int, int], tag: bytes, turns: RelayTurns) -> None:
        self._streams = streams
        self._tag = tag
        self._owners = turns.owners
        self._read = [0, 0]
        self._waiting = [b"", b""]

    @property
    def received(self) -> int:
        """Bytes of stdout so far."""
        return self._read[0]

    def pass_on(self, at_last: bool = False) -> bool:
        """What has come by now; `at_last` with what is no whole line. Whether all of it is written.

        OSError when it cannot be written; BrokenPipeError: nobody reads any more.
        """
        written = [self._pass_on(index, at_last) for index in (0, 1)]
        return all(written)

    def _pass_on(self, index: int, at_last: bool) -> bool:
        while self._write(index):
            data = os.pread(self._streams[index], _MOST, self._read[index])
            whole = data if at_last else data[: data.rfind(b"\n") + 1]
            if not whole:
                return True
            self._read[index] += len(whole)
            self._waiting[index] = tagged(whole, self._tag)
        return False

    def _write(self, index: int) -> bool:
        """Whether nothing waits any more."""
        if self._waiting[index] and self._owners[index] is None:
            self._owners[index] = self
        while self._waiting[index]:
            if self._owners[index] is not self or not _takes_more(index + 1):
                return False
            self._waiting[index] = self._waiting[index][os.write(index + 1, self._waiting[index][:_WITHOUT_WAITING]) :]
        if self._owners[index] is self:
            self._owners[index] = None
        return True


def _takes_more(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))
