"""The scribe's line to the program, and what it reads from it: calls, orders, and what just passes through."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from bossworker.journal.adding_side import AddingSide
from bossworker.pool.wire import messages
from bossworker.pool.wire.filed_memory import FiledMemory
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.messages import Kind
from bossworker.system import processes

KEY_SIZE = 32  # bytes of a job's key; all 0: it has none


class Resume(NamedTuple):
    """A request for results that are there already, of jobs with these keys."""

    number: int
    ids: range  # that the jobs are going to have
    keys: list[bytes]


class CallerSide(AddingSide):
    """The line to the program."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.closing = False  # the program adds no more
        self.stopping = False  # the program ends the pool, with what is queued left in the journal
        self._resumes: list[Resume] = []
        self._unkeyed: list[int] = []
        self._doors: list[Link] = []

    # -- from the program -------------------------------------------------------------------------------

    def take_other(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.KEYS:
                self._keys += zip(frame.head.cast("Q").tolist(), _cut_keys(frame.body))
            case Kind.RESUME:
                (number,) = messages.REQUEST.unpack_from(frame.head)
                (first_id,) = messages.FIRST_ID.unpack_from(frame.head, messages.REQUEST.size)
                keys = _cut_keys(frame.body)
                self._resumes.append(Resume(number, range(first_id, first_id + len(keys)), keys))
            case Kind.UNKEYED:
                self._unkeyed.append(messages.REQUEST.unpack(frame.head)[0])
            case Kind.RETRIEVED:
                numbers = iter(frame.body.cast("Q").tolist())
                self._retrieved += [range(first, first + count) for first, count in zip(numbers, numbers)]
            case Kind.DOOR:
                if frame.fd is not None:  # else there was no room for it, and its clients find that nobody is there
                    self._doors.append(Link(socket.socket(fileno=frame.fd)))
            case _:
                self.stopping = self.stopping or frame.kind is Kind.STOP
                self.closing = self.closing or frame.kind in (Kind.STOP, Kind.CLOSE)
                self.frames.append(frame)

    def take_resumes(self) -> list[Resume]:
        resumes, self._resumes = self._resumes, []
        return resumes

    def take_unkeyed(self) -> list[int]:
        """Numbers of requests for jobs whose keys are not known."""
        numbers, self._unkeyed = self._unkeyed, []
        return numbers

    def take_doors(self) -> list[Link]:
        """Lines to doors that have been opened."""
        doors, self._doors = self._doors, []
        return doors

    def take_frames(self, waiting: int) -> list[Frame]:
        """What is for the boss. That no more jobs will come it is told once it has all of them."""
        held = [frame for frame in self.frames if frame.kind is Kind.CLOSE and waiting and not self.stopping]
        frames = [frame for frame in self.frames if frame not in held]
        self.frames = held
        return frames

    # -- to the program ---------------------------------------------------------------------------------

    def note(self, level: int, text: str) -> None:
        """Have the program's logger say something."""
        self.send(Kind.NOTE, messages.NOTE.pack(level), [text.encode()])

    def pass_on(self, frames: Iterable[Frame]) -> None:
        """What has come from the boss."""
        for frame in frames:
            self.send(frame.kind, bytes(frame.head), [frame.body], tuple(frame.fds))

    # -- the beginning ----------------------------------------------------------------------------------

    def tell_error(self, what: str, text: str, pid: int = 0) -> None:
        """The journal cannot be used, or not any more."""
        self.send(Kind.OPENED, b"", [json.dumps({"error": what, "text": text, "pid": pid}).encode()])
        self.finish()

    def tell_opened(self, told: Mapping[str, int], memory: FiledMemory) -> None:
        """The journal is open; the recorders are in that file."""
        assert memory.fd is not None
        fd, memory.fd = memory.fd, None
        self.send(Kind.OPENED, b"", [json.dumps(told).encode()], (fd,))

    def await_boss(self) -> Link | None:
        """The boss's line, which the program hands over; None when it has ended instead."""
        while not self.ended:
            poll = select.poll()
            self.register(poll)
            poll.poll()
            frames = self.receive()
            if frames and frames[0].kind is Kind.ATTACH and frames[0].fd is not None:
                self.link.frames = frames[1:]
                return Link(socket.socket(fileno=frames[0].fd))
        return None

    # -- the end ----------------------------------------------------------------------------------------

    def tell_settled(self, may_have_run: Iterable[range]) -> None:
        """The boss has died: which of the jobs without a result may have run."""
        ranges = [[ids.start, len(ids)] for ids in may_have_run]
        self.send(Kind.SETTLED, b"", [json.dumps(ranges).encode()])

    def finish(self) -> None:
        """Send what is left, as long as somebody reads it, and hang up."""
        with suppress(LinkClosed):
            while not self.ended and not self.link.flush():
                processes.await_fd(self.link.fileno(), select.POLLOUT)
        self.link.drop()


def _cut_keys(body: memoryview) -> list[bytes]:
    return [bytes(body[at : at + KEY_SIZE]) for at in range(0, len(body) - KEY_SIZE + 1, KEY_SIZE)]
