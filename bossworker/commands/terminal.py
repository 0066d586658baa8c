"""A terminal for a command that asks for one: what it writes there is copied into its stdout's file."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ROWS, COLUMNS = 24, 80
_END_OF_FILE = b"\x04"
_OUTPUT = 1  # of the attributes, the index of the flags for output


class Terminal:
    """The other side of a command's terminal."""

    def __init__(self, out: int) -> None:
        """`out` is the file for what comes; it stays the caller's. OSError when there is no terminal to be had."""
        self.fd, self._theirs = os.openpty()
        self._out = os.dup(out)
        attributes = termios.tcgetattr(self._theirs)
        attributes[_OUTPUT] &= ~termios.ONLCR  # lines end as in a file
        termios.tcsetattr(self._theirs, termios.TCSANOW, attributes)
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        os.write(self.fd, _END_OF_FILE)  # there is nothing to be read from it, rather than nothing yet
        os.set_blocking(self.fd, False)

    def stdio(self, stdin: int | None) -> tuple[int, int, int]:
        """Standard streams for the command; the terminal is its stdin, too, unless it has one. They stay ours."""
        return self._theirs if stdin is None else stdin, self._theirs, self._theirs

    def last_step(self, also: Callable[[], object] | None) -> Callable[[], object]:
        """What the child has to do before exec: the terminal becomes that of its session."""

        def control() -> None:
            if also is not None:
                also()
            fcntl.ioctl(1, termios.TIOCSCTTY, 0)

        return control

    def is_started(self) -> None:
        """The command has its side; the end of it is to be seen on ours."""
        if self._theirs >= 0:
            os.close(self._theirs)
        self._theirs = -1

    def hand_over(self) -> None:
        """Whoever has the command's standard streams closes its side."""
        self._theirs = -1

    def take(self) -> bool:
        """Copy what is there; False when nobody has the terminal any more."""
        try:
            while data := os.read(self.fd, 65536):
                self._keep(data)
        except BlockingIOError:
            return True
        except OSError:  # EIO: all have closed it
            pass
        return False

    def _keep(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._out, data) :]
        except OSError:  # a full disk: what finds no room is lost, and the command goes on
            pass

    def close(self) -> None:
        """Take what is left, and hang up."""
        self.is_started()
        self.take()
        os.close(self.fd)
        os.close(self._out)
