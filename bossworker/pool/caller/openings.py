"""What opens a pool to others: to programs, by a door, and to people, by a page."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from bossworker.pool.caller.ending import PoolEnding
from bossworker.pool.caller.mapping import PoolParts
from bossworker.pool.caller.state import HandleState
from bossworker.pool.options import Handlers, Options

if TYPE_CHECKING:
    from bossworker.pool.door.keys import Keys
    from bossworker.pool.door.listening import Door


class PoolOpenings:
    """The part of a `BossWorker` that does so."""

    name: Any  # what the pool is called
    _state: HandleState
    _ending: PoolEnding
    _options: Options
    _current_handlers: Handlers

    def _parts(self) -> PoolParts:
        raise NotImplementedError

    def listen(
        self,
        address: str | None = None,
        *,
        keys: Keys | None = None,
        accept: Literal["pickle", "json"] = "pickle",
    ) -> Door:
        """Open the pool to other programs, which come in by ``bossworker.connect``; they speak ZeroMQ with it.

        A process of its own holds the door, so that nobody out there can slow the boss or harm the pool.

        Args:
            address: None: a socket in this user's runtime directory (0700), named after the pool. ``ipc://PATH``: a
                socket there, which is this user's alone (0600) unless you chmod it. ``tcp://HOST:PORT``, only with
                `keys`; port 0 takes a free one.
            keys: Whom to let in, over tcp: see :func:`bossworker.keys`.
            accept: ``"pickle"``: jobs are what they are for this program. Whoever may connect can run any code in the
                workers. ``"json"``: jobs and results are JSON, and no pickle from outside is ever loaded; any program
                that speaks ZeroMQ may be a client.

        Raises:
            TypeError, ValueError: An argument is wrong: tcp without keys, above all. Or the pool is inline.
            OSError: The address is in use, or cannot be had.
            PoolClosed: After ``shut_down``.
        """
        from bossworker.pool.caller.doors import open_door

        return open_door(
            self._parts(), self._options, self._current_handlers.work, self._ending.doors, address, keys, accept
        )

    def web(self, port: int = 0, *, unix_socket: str | os.PathLike[str] | None = None, read_only: bool = False) -> str:
        """Serve the pool's page, and return the address to open in a browser; it ends with the pool.

        It is a process of its own, at the loopback address, which looks at the pool through a door (one is opened, by
        ``listen()``, if there is none): this program does nothing for it. Whoever opens it needs the token that is part
        of the address. Called again with the same arguments, it returns the same address. Needs the extra ``web``.

        Args:
            port: 0: a free one.
            unix_socket: Serve at this path instead, for this user alone: for ``ssh -L`` or a proxy.
            read_only: It only shows.

        Raises:
            TypeError, ValueError: An argument is wrong. Or the pool is inline.
            ImportError: The extra ``web`` is not installed.
            OSError: The port, or the path, cannot be had.
            PoolClosed: After ``shut_down``.
        """
        from bossworker.pool.caller.own_page import open_page

        self._state.check_open()
        ending = self._ending
        with ending.opening_page:  # threads that ask at once have one page
            return open_page(ending.pages, ending.doors, self.listen, self.name, port, unix_socket, read_only)
