"""A handle on a pool of another program, reached through its door."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Self

from bossworker.commands.inline.handler import run_command
from bossworker.display import table
from bossworker.errors import BossDied, BossWorkerError, PoolClosed, UnfinishedJob
from bossworker.pool.caller.client import BossWorker
from bossworker.pool.caller.door_connection import DoorConnection
from bossworker.pool.caller.inbox import Inbox
from bossworker.pool.caller.operating import Operator
from bossworker.pool.caller.outbox import Outbox
from bossworker.pool.caller.recalled import jobs_of
from bossworker.pool.caller.state import HandleState
from bossworker.pool.door.addresses import parse
from bossworker.pool.door.attachment import Attachment, attach
from bossworker.pool.door.door_protocol import JSON, Identity
from bossworker.pool.door.json_form import plain_job
from bossworker.pool.door.keys import Keys, check_keys
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.messages import CLIENT_BITS
from bossworker.system import signals, stdio
from bossworker.system.checks import check_bool, check_seconds
from bossworker.watch.pool_events import Event, EventReader, check_since

if TYPE_CHECKING:
    from bossworker.pool.caller.journal_outbox import JournalOutbox


def connect(
    address_or_name: str,
    *,
    keys: Keys | None = None,
    timeout: float = 5,
    keep: bool = False,
    identity: str | None = None,
    take_over: bool = False,
) -> AttachedPool:
    """Attach to a pool that another program has opened by ``pool.listen()``; a handle like that program's own.

    The pool's workers do not know this program: what is defined in its ``__main__`` travels with the jobs, what is in
    modules must be there as well. Jobs and results are pickles unless the pool was opened with ``accept="json"``: so
    connect to pools that you trust. Nothing of ZeroMQ runs in this process; over tcp, and with JSON, a process beside
    it holds it (a "porter").

    Args:
        address_or_name: The name of a pool of this user, or the address of its door: ``ipc://PATH`` or
            ``tcp://HOST:PORT``.
        keys: For tcp: see :func:`bossworker.keys`.
        timeout: Seconds to wait for the pool to be there, and to answer.
        keep: When this program ends, its jobs go on, and the results that it has not got are kept for the next client
            of the same identity. A result may come a second time if the program ended just after it got it. Leaving by
            ``shut_down(force=True)`` drops them. Where the pool has a journal, jobs are on the disk when ``add_work``
            has returned (JournalError: they were not taken, none of them), and they and their results outlive the
            pool's program as well; without it, or without `keep`, they end with the pool (BossDied tells of them).
        identity: Under which name; None: a new one, or with `keep`, this user and the program's path.
        take_over: If a client of this identity is connected, it has to leave. Otherwise, we are refused.

    Raises:
        TypeError, ValueError: An argument is wrong.
        TimeoutError: Nobody answers, in `timeout` seconds; over tcp also when the keys do not fit.
        DoorRefused: The pool does not let us in, and says why.
        PermissionError: The socket at the path is not for this user; or others may enter this user's folder of doors.
    """
    address = parse(address_or_name, allow_name=True)
    if address.text.endswith(":*"):
        raise ValueError(f"address must have the port of a door, from 1 to 65535, not {address_or_name!r}")
    if (address.kind == "tcp") != (check_keys(keys) is not None):
        raise ValueError("keys must be given for tcp://, and only there: see bossworker.keys")
    seconds = check_seconds("timeout", timeout)
    if identity is not None and (not isinstance(identity, str) or not identity):
        raise TypeError(f"identity must be a str that is not empty, or None, not {identity!r}")
    who = Identity(identity, check_bool("keep", keep), check_bool("take_over", take_over))
    return AttachedPool(attach(address, keys, seconds, who), address.text)


class _AttachedState(HandleState):
    """The state of a handle whose pool is another program's."""

    _connection: DoorConnection

    def check_open(self) -> None:
        super().check_open()
        if self._connection.farewell:
            raise PoolClosed(self._connection.farewell)

    def died(self, unfinished: list[UnfinishedJob]) -> BossDied:
        line = self._connection
        why = f": {line.farewell}" if line.farewell else ""
        return BossDied(f"the pool at the other end is gone with {len(unfinished)} jobs unfinished{why}", unfinished)


class AttachedPool(BossWorker):
    """A pool of another program. Made by :func:`bossworker.connect`; used like a `BossWorker`.

    Results come here for the jobs that were added here. Each client of a pool has its turn: one with a million jobs
    does not hold up one with a few, of the same priority.

    ``shut_down`` leaves the pool, which goes on: in order, once all our jobs are done; with ``force=True`` at once:
    what we have queued is dropped, what runs is cancelled. When the pool goes away, ``BossDied`` says what is left.
    """

    _connection: DoorConnection
    _state_type = _AttachedState

    def __init__(self, attachment: Attachment, address: str) -> None:
        self.address = address
        """Of the door."""
        self._told = {**attachment.told, "form": attachment.form}
        self._options = attachment.options
        self._neglect_told = False
        self._result_handler = None
        self._inbox = Inbox()
        self._futures = None
        self._books = []
        self._first_future = threading.Lock()
        self._loaded = None
        with signals.held(), stdio.stdio_reserved():
            self._attach(DoorConnection(attachment, self._inbox), _prepare(attachment))
        self._outbox.start_at(self._told["next_id"])
        self._connection.recalled = partial(_recall, self._inbox)  # not a method: we are freed once we are dropped
        self._connection.poll()  # what came right behind the welcome is not to be waited for
        if self._told["kept"]:
            self._await_what_was_kept()

    def _outbox_type(self) -> type[Outbox]:
        if not self._told.get("journal"):
            return super()._outbox_type()
        from bossworker.pool.caller.journal_outbox import JournalOutbox  # which is for those pools that have one

        return JournalOutbox

    def _journal_outbox(self) -> JournalOutbox:
        raise ValueError("resume is for the program that owns the journal, which alone loads what is in it")

    def _await_what_was_kept(self) -> None:
        line = self._connection
        if not line.wait_until(lambda: line.all_recalled):
            raise BossWorkerError(f"the pool at {self.address} is gone: {line.farewell}")

    @property
    def identity(self) -> str:
        """Under which the pool knows us."""
        return str(self._told["identity"])

    @property
    def name(self) -> str:
        """The pool's."""
        return str(self._told["pool"])

    @property
    def boss_pid(self) -> int:
        """The boss's process id, on its own host."""
        return int(self._told["boss_pid"])

    def detach(self) -> None:
        """Leave at once. With ``keep=True``, jobs go on and results are kept for the next client of this identity."""
        self._connection.keep_rest()
        self._ending.at_once()

    def events(self, since: int | None = None) -> EventReader:
        """As of a pool of this program's.

        Jobs of others are in it, too, unless the pool was opened with ``accept="json"``. Their ``job_id`` is above
        2**56, or, of the pool's own program, the same as one of ours may be: it is told as a negative number.
        """
        if self._told["form"] == JSON:
            return EventReader(self._ask_events, check_since(since))
        return _OwnIds(self._ask_events, check_since(since), int(self._told["number"]))

    @property
    def operator(self) -> Operator:
        """It is had by :func:`bossworker.operate`: BossWorkerError."""
        raise BossWorkerError(f"a handle that was connected adds jobs alone: bossworker.operate({self.address!r})")

    def _not_ours(self, *args: Any, **options: Any) -> NoReturn:
        """Only the program that made the pool can do this: BossWorkerError."""
        raise BossWorkerError("only the program that made the pool can do that")

    listen = pause = resume = reload = resize = _not_ours

    def __enter__(self) -> Self:
        return super().__enter__()

    def __del__(self) -> None:
        if hasattr(self, "_state") and not self._state.is_foreign():
            self._connection.keep_rest()
        super().__del__()

    def __repr__(self) -> str:
        state = "closed" if self._state.closing or self._connection.farewell else "open"
        return f"<AttachedPool, {self.name} at {self.address}, {self._inbox.pending()} pending, {state}>"

    def _repr_html_(self) -> str:
        rows = [("pool", self.name), ("address", self.address), ("pending", self._inbox.pending())]
        return table("AttachedPool", rows)


class _OwnIds(EventReader):
    """Events, in which our jobs have the ids that they have for us."""

    def __init__(self, ask: Any, since: int | None, number: int) -> None:
        super().__init__(ask, since)
        self._number = number

    def _unpack(self, answer: Mapping[str, Any]) -> Iterator[Event]:
        return map(self._as_ours, super()._unpack(answer))

    def _as_ours(self, event: Any) -> Event:
        whole = getattr(event, "job_id", None)
        if whole is None:
            return event  # type: ignore[no-any-return]
        client, own = whole >> CLIENT_BITS, whole & (1 << CLIENT_BITS) - 1
        told = own if client == self._number else whole if client else -whole
        return replace(event, job_id=told)  # type: ignore[no-any-return]


def _recall(inbox: Inbox, batch: Batch) -> None:
    """Jobs that a client of this identity had added before us."""
    inbox.note_call(batch.first_id)
    inbox.expect(batch.first_id, jobs_of(batch))


def _prepare(attachment: Attachment) -> Any:
    """What is to be done to each job before it travels."""
    ours = run_command.prepare_job if attachment.told["commands"] else None  # type: ignore[attr-defined]
    if attachment.form != JSON:
        return ours
    return plain_job if ours is None else lambda job: plain_job(ours(job))
