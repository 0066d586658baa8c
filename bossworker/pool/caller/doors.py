"""A door is opened: its process is started, and the boss told of it."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from typing import Any

from bossworker.pool.caller.mapping import PoolParts
from bossworker.pool.door.addresses import named, parse
from bossworker.pool.door.keys import Keys, check_keys
from bossworker.pool.door.listening import Door
from bossworker.pool.options import Options, check_choice
from bossworker.pool.wire import messages
from bossworker.pool.wire.frames import pack
from bossworker.pool.wire.link import link_pair
from bossworker.pool.wire.messages import Kind
from bossworker.system import signals

_numbers = count(1)


def open_door(
    parts: PoolParts,
    options: Options,
    handler: Callable[..., Any],
    doors: list[Door],
    address: object,
    keys: Keys | None,
    accept: object,
) -> Door:
    """See ``BossWorker.listen``. The door is added to the `doors` of the pool."""
    place = named(options.name) if address is None else parse(address)
    if (place.kind == "tcp") != (check_keys(keys) is not None):
        raise ValueError("keys must be given for tcp://, and only there: see bossworker.keys")
    settings = {
        "accept": check_choice("accept", accept, ("pickle", "json")),
        "door": _next_number({door.number for door in doors}),
        **_what_is_told(options, handler, parts.connection.pid),
    }
    if not options.worker_count:
        raise ValueError("an inline pool (worker_count=0) has no door: it runs jobs in this program alone")
    parts.state.check_open()
    doors[:] = [door for door in doors if door.pid]  # but for those that were closed
    with ExitStack() as ends:
        to_boss, boss = _pair(ends)
        to_scribe, scribe = _pair(ends) if options.journal else (None, None)
        with signals.held():
            door = Door(place, settings, boss, keys, scribe)
            told = pack(Kind.LISTEN, messages.LISTEN.pack(settings["door"]), (), (os.dup(to_boss.fileno()),))
            if to_scribe is not None:
                told += pack(Kind.DOOR, b"", (), (os.dup(to_scribe.fileno()),))
            parts.connection.send_packed(told)
            doors.append(door)
    return door


def _what_is_told(options: Options, handler: Callable[..., Any], boss: int) -> dict[str, Any]:
    """To whoever comes in: of the pool and its program."""
    return {
        "pool": options.name,
        "boss_pid": boss,
        "owner_pid": os.getpid(),
        "program": os.path.basename(sys.argv[0] or sys.executable),
        "since": time.time(),
        "commands": hasattr(handler, "prepare_job"),
        "options": {key: getattr(options, key) for key in ("global_timeout", "worker_count", "kill_grace", "retries")},
    }


def _pair(ends: ExitStack) -> tuple[socket.socket, socket.socket]:
    one, other = link_pair()
    return ends.enter_context(one), ends.enter_context(other)


def _next_number(taken: set[int]) -> int:
    """One that was used as long ago as can be: results for clients of an older door may still be on their way."""
    return next(number for number in (n % messages.LAST_DOOR + 1 for n in _numbers) if number not in taken)
