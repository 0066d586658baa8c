"""A program attached to a pool: the line to its door, and what it was told there."""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from typing import Any, NamedTuple

from bossworker.errors import BossWorkerError, DoorRefused
from bossworker.pool.door import addresses, door_protocol
from bossworker.pool.door.addresses import Address
from bossworker.pool.door.client_link import ClientLink, shake_hands
from bossworker.pool.door.direct_lines import take_line
from bossworker.pool.door.door_protocol import FRAMES, JSON, Identity
from bossworker.pool.door.greeting import machine
from bossworker.pool.door.keys import Keys
from bossworker.pool.door.side_process import SideProcess
from bossworker.pool.launch import Launched
from bossworker.pool.options import Options
from bossworker.pool.wire import messages
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.messages import Kind, ProtocolError
from bossworker.system import processes

PORTER = "bossworker.pool.door.porter"


class NoFiles:
    """Stands for the memory that a boss shares with its caller: through a door, no file goes along."""

    held = most_held = slots = 0

    def running_progress(self) -> tuple[()]:
        """None can be seen from here."""
        return ()

    def close(self) -> None:
        """There is nothing."""


class _Lines(NamedTuple):
    """What connects us."""

    link: Link
    to_boss: Link | None = None  # besides, for small jobs and results
    porter: SideProcess | None = None


class Attachment:
    """See the module."""

    def __init__(self, lines: _Lines, told: dict[str, Any], keep: bool, form: str) -> None:
        self._link, self.to_boss, self._porter = lines
        self.told = told
        self.keep = keep
        self.form = form
        elsewhere = told["machine"] != machine()
        self.clock_shift = time.monotonic() - told["monotonic"] if elsewhere else 0.0

    def launched(self) -> Launched:
        """As a boss that was started: with the process to watch, if there is one of ours in between."""
        return Launched(self._porter.pid if self._porter else 0, self._link, NoFiles())  # type: ignore[arg-type]

    @property
    def carries_files(self) -> bool:
        """Whether descriptors get to the pool."""
        return self._porter is None and not isinstance(self._link, ClientLink) and not self.keep

    def alive(self) -> bool:
        """Whether there is somebody who may still speak to us. (Without a porter, the socket alone tells.)"""
        return self._porter is None or processes.is_alive(self._porter.pid)

    def end(self) -> None:
        if self._porter is not None:
            self._porter.end()

    @property
    def options(self) -> Options:
        """The pool's, as far as they concern a client."""
        told = self.told["options"]
        return Options(
            global_timeout=told["global_timeout"],
            worker_count=told["worker_count"],
            kill_grace=told["kill_grace"],
            retries=told["retries"],
            max_pending=self.told["most_jobs"],
            max_jobs_per_worker=0,
            max_worker_memory=0,
            max_job_memory=0,
            start_method="spawn",  # the workers know nothing of this program
            close_fds=False,
            transport="zmq",
            name=self.told["pool"],
        )


def attach(
    address: Address,
    keys: Keys | None,
    seconds: float,
    who: Identity,
) -> Attachment:
    """Knock at a door until it lets us in. TimeoutError, DoorRefused, PermissionError."""
    deadline = time.monotonic() + seconds
    if who.keep and who.identity is None:
        who = who._replace(identity=f"{os.getuid()}:{os.path.abspath(sys.argv[0] or sys.executable)}")
    for form in (FRAMES, JSON):
        directly = address.kind == "ipc" and form == FRAMES
        hello = door_protocol.hello(form, who, directly)
        try:
            if directly:
                lines, told = _directly(address, hello, deadline)
            else:
                lines, told = _by_porter(address, keys, hello, deadline)
        except _OtherForm:
            continue
        return Attachment(lines, told, who.keep, form)
    raise DoorRefused(f"{address.text} takes neither pickles nor JSON")


class _OtherForm(Exception):
    """The door takes another form of messages."""


def _check(told: dict[str, Any], hello: dict[str, Any], address: Address) -> None:
    """Raise unless it is a welcome."""
    if told.get("op") == "refused":
        if told.get("form") not in (None, hello["form"]):
            raise _OtherForm
        raise DoorRefused(f"{address.text} does not let us in: {told.get('reason')}")
    if told.get("op") != "welcome":
        raise ProtocolError(f"neither welcome nor refused, but {str(told.get('op'))[:50]!r}")


def _directly(address: Address, hello: dict[str, Any], deadline: float) -> tuple[_Lines, dict[str, Any]]:
    """To a door at a path, without libzmq."""
    while True:
        try:
            addresses.check_runtime_folder(address.path)
            sock = addresses.dial(address.path, max(0.001, deadline - time.monotonic()))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"there is no pool at {address.text}: {error.strerror}") from error
            time.sleep(0.02)
            continue
        try:
            told = shake_hands(sock, hello, deadline)
            _check(told, hello, address)
            return _own_lines(sock, told, deadline), told
        except LinkClosed:  # it is just closing
            sock.close()
            if time.monotonic() >= deadline:
                raise TimeoutError(f"nobody answers at {address.text}") from None
            time.sleep(0.02)
        except BaseException:
            sock.close()
            raise


def _own_lines(sock: socket.socket, told: dict[str, Any], deadline: float) -> _Lines:
    """Those that the door offers, in the place of the one by which it has let us in, if there are any."""
    offered = told.get("line")
    if offered is not None and (lines := take_line(offered, deadline)) is not None:
        sock.close()
        return _Lines(*lines)
    link = ClientLink(sock)
    if offered is not None:
        link.send(Kind.CREDIT, messages.CREDIT.pack(0))  # whatever it is told first, it waits for us no longer
    return _Lines(link)


def _by_porter(
    address: Address, keys: Keys | None, hello: dict[str, Any], deadline: float
) -> tuple[_Lines, dict[str, Any]]:
    """By a process that holds ZeroMQ, and speaks JSON where the door does."""
    told_keys = None
    if keys is not None:
        told_keys = {"public": keys.public, "secret": keys.secret, "server": keys.server or keys.public}
    settings = {"address": address.text, "path": address.path, "keys": told_keys, "hello": hello}
    porter = SideProcess(PORTER, settings)
    try:
        told = _await_answer(porter, deadline, address)
        _check(told, hello, address)
    except BaseException:
        porter.end()
        raise
    return _Lines(porter.link, porter=porter), told


def _await_answer(porter: SideProcess, deadline: float, address: Address) -> dict[str, Any]:
    why = "no such pool, or it does not know our key"
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not processes.await_fd(porter.link.fileno(), select.POLLIN, left):
            raise TimeoutError(f"nobody answers at {address.text}: {why}")
        try:
            porter.link.pull()
        except LinkClosed:
            raise BossWorkerError(f"the process that should connect to {address.text} has ended") from None
        while porter.link.frames:  # those behind the answer are for the handle
            frame = porter.link.frames.pop(0)
            if frame.kind is not Kind.NOTE:
                return door_protocol.decode(bytes(frame.body))
            why = str(frame.body, "utf-8")
