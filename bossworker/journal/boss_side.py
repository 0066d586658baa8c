"""The scribe's line to the boss, and what it reads from it: results, and what just passes through."""

from __future__ import annotations

import json
import socket
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from bossworker.journal.line_side import LineSide
from bossworker.journal.whole_payloads import results_frame, whole_results
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.link import Link
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.segments import Segment, read_segments


class BossSide(LineSide):
    """The line to the boss. `orderly`: it has said that it was through."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.orderly = False
        self.wanted = 0  # how many jobs it wants to have, if it has said so
        self._results: list[Segment] = []
        self._more: dict[int, tuple[str, int | None]] = {}  # by requests' numbers: what is to be added to which figure

    def hang_up(self) -> None:
        """Have it end everything. What it has sent can still be read."""
        with suppress(OSError):
            self.link.sock.shutdown(socket.SHUT_WR)

    def read(self) -> None:
        for frame in self.receive():
            self.orderly = self.orderly or frame.kind is Kind.CLOSED
            if frame.kind is Kind.RESULTS:
                whole, segments = whole_results(frame)
                self._results += segments
                self.frames.append(whole)
            elif frame.kind is Kind.WANTED:
                (self.wanted,) = messages.COUNT.unpack(frame.head)
            else:
                self.frames.append(frame)

    def take_results(self) -> list[Segment]:
        results, self._results = self._results, []
        return results

    def take_frames(
        self, waiting: int, rename: Callable[[list[Segment]], list[Segment] | None], recorded: bool
    ) -> Iterator[Frame]:
        """What is for the program: results of which all are recorded, and the rest.

        Args:
            waiting: How many jobs were not passed on.
            rename: Gives results the ids that the program knows them by; None: those that they have.
            recorded: Whether all results are. Where the disk has no room for some, they have to stay here, and so has
                the word that there are no more; the program gets its answers all the same.
        """
        frames, self.frames = self.frames, []
        for frame in frames:
            # What is not on the disk stays here, and whatever says that nothing more will come stays behind it.
            if not recorded and frame.kind in (Kind.RESULTS, Kind.CLOSED):
                self.frames.append(frame)
            elif frame.kind is Kind.REPLY:
                yield self._amended(frame, waiting)
            elif frame.kind is Kind.RESULTS:
                renamed = rename(read_segments(frame.head, frame.body))
                if renamed is None:
                    yield frame
                elif renamed:
                    yield results_frame(renamed)
            else:
                yield frame

    def _amended(self, frame: Frame, waiting: int) -> Frame:
        """An answer, with what the boss does not know of added to its numbers."""
        (number,) = messages.REQUEST.unpack(frame.head)
        if number not in self._more:
            return frame
        key, more = self._more.pop(number)
        content = json.loads(bytes(frame.body))
        content[key] = content.get(key, 0) + (waiting if more is None else more)
        return frame._replace(body=memoryview(json.dumps(content).encode()))

    # -- to the boss ------------------------------------------------------------------------------------

    def submit(self, batch: Batch) -> None:
        self.send(Kind.SUBMIT, batch.head(), batch.body())

    def cancel(self, number: int, ids: list[int], how: bytes, elsewhere: int) -> None:
        """Have jobs cancelled; of those that were asked for, `elsewhere` are already."""
        self._more[number] = "count", elsewhere
        self.send(Kind.CANCEL, messages.REQUEST.pack(number) + how, [array("Q", ids).tobytes()])

    def pass_on(self, frames: Iterable[Frame]) -> None:
        """What has come from the program."""
        for frame in frames:
            if frame.kind is Kind.STATS:
                self._more[messages.REQUEST.unpack(frame.head)[0]] = "queued", None
            self.send(frame.kind, bytes(frame.head), [frame.body], tuple(frame.fds))
