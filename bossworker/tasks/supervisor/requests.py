"""What clients may ask of a supervisor: each request checked, then done."""

from __future__ import annotations

from bossworker.commands import safe_files
from bossworker.system.cpython import signal
from bossworker.tasks.wire.lockfile import LockHeld
from bossworker.tasks.wire.protocol import LONGEST_WAIT, MAX_BODY, MAX_MESSAGE
from bossworker.tasks.wire.stream_files import DATA, NAMES, STDIN, STORED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bossworker.tasks.supervisor.clients import Client
    from bossworker.tasks.supervisor.task_supervisor import TaskSupervisor

    Head = dict[str, Any]

_SIGNALS = frozenset(map(int, signal.valid_signals()))


class BadRequest(Exception):
    """The request is not one; the text says why."""


class Requests:
    """Sees to requests, on behalf of one supervisor."""

    def __init__(self, supervisor: TaskSupervisor) -> None:
        self.supervisor = supervisor

    def serve(self, client: Client, head: Head, body: bytes) -> None:
        """See to one request; its answer may come later."""
        if self.supervisor.ledger.left:  # the request was there already; its client sees us hang up
            return
        op = head.get("op")
        see_to = _OPS.get(op) if isinstance(op, str) else None
        try:
            if head.get("task") not in (None, self.supervisor.directory.id):  # it had our pid before us
                client.refuse("another task has this pid", other=True)
                return
            if see_to is None:
                raise BadRequest(f"op must be one of {', '.join(_OPS)}; not {op!r:.200}")
            see_to(self, client, head, body)
        except BadRequest as error:
            client.refuse(str(error))
        except OSError as error:  # a full disk
            client.refuse(f"{op}: {error.strerror}")
        except (ValueError, RecursionError) as error:  # what JSON has no name for; or is nested too deep to be named
            client.refuse(f"{op if see_to else 'op'}: {error}")

    def info(self, client: Client, head: Head, body: bytes) -> None:
        client.answer({"info": self.supervisor.info()})

    def meta(self, client: Client, head: Head, body: bytes) -> None:
        change = head.get("meta")
        if not isinstance(change, dict):
            raise BadRequest(f"meta must be an object, not {change!r:.200}")
        if safe_files.is_too_deep(change):
            raise BadRequest(f"meta must be nested at most {safe_files.MAX_DEPTH} deep")
        self.supervisor.apply_meta(change)
        client.answer({})

    def signal(self, client: Client, head: Head, body: bytes) -> None:
        number = _number(head, "signal", 0)
        if number and number not in _SIGNALS:
            raise BadRequest(f"signal must be the number of a signal, not {number}")
        client.answer({"sent": self.supervisor.signal(number)})

    def restart(self, client: Client, head: Head, body: bytes) -> None:
        try:
            restarted = self.supervisor.restart()
        except LockHeld as error:
            client.refuse(str(error), holder=error.pid)
            return
        failure = self.supervisor.failure
        if restarted and failure is not None:
            client.refuse(failure.reason, exit_code=failure.exit_code)
        else:
            client.answer({"restarted": restarted})

    def read(self, client: Client, head: Head, body: bytes) -> None:
        stream = _stream(head, STORED)
        ofs, count = _number(head, "ofs", 0), min(_number(head, "count", 0), MAX_BODY)
        client.answer(*self._read(NAMES[stream], ofs, count))

    def consumed(self, client: Client, head: Head, body: bytes) -> None:
        self.supervisor.streams.consumed(_stream(head, STORED), _number(head, "upto", 0))
        client.answer({})

    def discard(self, client: Client, head: Head, body: bytes) -> None:
        store = self.supervisor.streams.stores[_stream(head, STORED)]
        store.discard(_number(head, "upto", 0))
        client.answer({"start": store.start})

    def write(self, client: Client, head: Head, body: bytes) -> None:
        stream, wait = _stream(head, (STDIN, DATA)), head.get("wait")
        if wait is not None and not (isinstance(wait, int | float) and 0 <= wait <= LONGEST_WAIT):
            raise BadRequest(f"wait must be null or a number of seconds, not {wait!r:.200}")
        if not body or (stream == DATA and len(body) > MAX_MESSAGE):
            raise BadRequest(f"a message must have from 1 to {MAX_MESSAGE} bytes, not {len(body)}")
        self.supervisor.streams.write(stream, client, body, wait)

    def close(self, client: Client, head: Head, body: bytes) -> None:
        self.supervisor.streams.close_stream(_stream(head, range(len(NAMES))), bool(head.get("immediate")))
        client.answer({})

    def watch(self, client: Client, head: Head, body: bytes) -> None:
        self.supervisor.watch(client)

    def _read(self, name: str, ofs: int, count: int) -> tuple[dict[str, Any], bytes]:
        from bossworker.tasks.wire.stream_reader import ByteReader, Gone, MessageReader  # it takes memory

        folder = self.supervisor.directory.path
        try:
            if name != NAMES[DATA]:
                begin, data = ByteReader(folder, name).read(ofs, count)
                return {"ofs": begin}, data
            begin, messages = MessageReader(folder, name).read(ofs, 1)
            return {"ofs": begin, "count": len(messages)}, b"".join(messages)
        except Gone as error:
            raise BadRequest(str(error)) from None

    def terminate(self, client: Client, head: Head, body: bytes) -> None:
        self.supervisor.leave(lambda: client.answer({}), client.refuse)

    def _delete(self, client: Client) -> None:
        self.supervisor.remove_files()
        client.answer({})

    def delete(self, client: Client, head: Head, body: bytes) -> None:
        self.supervisor.leave(lambda: self._delete(client), client.refuse, grace=0.0)


_OPS: dict[str, Callable[[Requests, Client, Head, bytes], None]] = {
    op: getattr(Requests, op)
    for op in ("info", "meta", "signal", "restart", "read", "consumed", "discard", "write", "close", "watch",
               "terminate", "delete")
}  # fmt: skip


def _number(head: Head, name: str, least: int) -> int:
    value = head.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise BadRequest(f"{name} must be a whole number from {least} on, not {value!r:.200}")
    return value


def _stream(head: Head, allowed: tuple[int, ...] | range) -> int:
    value = head.get("stream")
    if not isinstance(value, int) or isinstance(value, bool) or value not in allowed:
        raise BadRequest(f"stream must be one of {', '.join(map(str, allowed))}; not {value!r:.200}")
    return value
