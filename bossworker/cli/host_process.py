"""The process that is to be the host of a run's commands (``commands/hosting``), until it is told to.

It is forked before the run has loaded what it needs itself, and loads what a host needs meanwhile.
"""

from __future__ import annotations

import marshal
import os
import sys

from bossworker.commands.hosting.cells import Cells
from bossworker.commands.hosting.hosting_wire import LENGTH, HostSettings
from bossworker.system import descendants, forking
from bossworker.system.cpython import signal, socket
from bossworker.system.signals import endings_blocked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bossworker.cli.cell_book import CellBook

_MOST_PASSED = 2  # descriptors
_INT = 4  # bytes: of a descriptor that is passed


class HostProcess:
    """As the run has it."""

    def __init__(self, cells: Cells | None = None) -> None:
        """
        Args:
            cells: Those that it inherits, where they are in no file that it could be told of.
        """
        if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:  # then no exit status of it would be kept for us
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if sys.platform == "linux":
            descendants.load_prctl()  # which both need
        self._link, theirs = socket.socketpair()
        try:
            with endings_blocked():
                self.pid = forking.fork()
                if not self.pid:
                    self._link.close()  # or it would never see that we are gone
                    _become_host(theirs, cells)
        except BaseException:
            self._link.close()
            raise
        finally:
            theirs.close()

    def tell(self, settings: HostSettings, title: str, book: CellBook) -> int:
        """Have it be the host from now on; the descriptor of its link."""
        data = marshal.dumps((tuple(settings), title, book.cells.count))
        passed = b"".join(fd.to_bytes(_INT, sys.byteorder) for fd in (book.file, book.lock) if fd >= 0)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)] if passed else []
        try:
            self._link.sendmsg([len(data).to_bytes(LENGTH, "little")], rights)
            self._link.sendall(data)
        except ConnectionError:  # it is gone, as whoever reads from the link will see
            pass
        return self._link.detach()

    def drop(self) -> None:
        """End it, unless it was told to be a host: nothing has begun in it."""
        if self._link.fileno() >= 0:
            self._link.close()
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def _become_host(link: socket.socket, cells: Cells | None) -> None:
    """In the child: never return. `cells`: None: we shall be told of a file."""
    status = 1
    try:
        from bossworker.commands.hosting import host, preparing

        preparing.prepare(link.fileno())
        if (told := _receive(link)) is not None:
            (settings, title, count), fds = told
            if cells is None:
                cells = Cells(count, fds[0])
                os.close(fds[0])
            host.become_host(link.detach(), HostSettings._make(settings), title, cells)
        status = 0
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode("utf-8", "backslashreplace"))
    finally:
        os._exit(status)


def _receive(link: socket.socket) -> tuple[Any, list[int]] | None:
    """What we are told, and descriptors: that of the cells, and one that just stays open; None: the run is gone."""
    size, passed, *_ = link.recvmsg(LENGTH, socket.CMSG_SPACE(_MOST_PASSED * _INT))
    missing, data = int.from_bytes(size, "little"), b""
    while len(data) < missing and (part := link.recv(missing - len(data))):
        data += part
    fds = [fd for _, _, some in passed for fd in memoryview(some).cast("i")]
    for fd in fds:
        os.set_inheritable(fd, False)
    return (marshal.loads(data), fds) if data and len(data) == missing else None
