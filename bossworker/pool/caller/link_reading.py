"""What comes over a caller's links, taken in by a thread that a signal handler may interrupt anywhere."""

from __future__ import annotations

import os
from collections.abc import Callable

from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.parcel import give_back
from bossworker.system.one_step import steps_of, take_steps


class LinkReading:
    """See the module. One thread at a time.

    What was read and not acted on stays with the link (``Link.left_over``): nothing else may come over it that would
    have anybody look again. So `interrupted` is called then.
    """

    def __init__(self, interrupted: Callable[[], object]) -> None:
        self._interrupted = interrupted
        self._acted_on: Frame | None = None  # though it has not been struck off

    def take_in(self, link: Link, on_frame: Callable[[Frame], None]) -> tuple[bool, bool]:
        """Read, and act on each frame, which is struck off only then: to act on it twice does no harm.

        Whether anything came, and whether the other end has hung up.
        """
        try:
            return self._take_in(link, on_frame)
        except BaseException:
            self._interrupted()
            raise

    def _take_in(self, link: Link, on_frame: Callable[[Frame], None]) -> tuple[bool, bool]:
        came = hung_up = False
        try:
            came = link.pull()
        except LinkClosed:
            hung_up = True
        while link.frames:
            frame = link.frames[0]
            if frame.fd is not None:
                self._act_on_file(link, frame, on_frame)
                continue
            # Acted on, then struck off: Ctrl-C in between has it come again. The other way round, it would be lost.
            on_frame(frame)
            del link.frames[0]
        return came, hung_up

    def _act_on_file(self, link: Link, frame: Frame, on_frame: Callable[[Frame], None]) -> None:
        """The same for a frame with a file: once it has been given back, it must not be read again."""
        # Ctrl-C between the action and the end of this function has the frame come again: its file may have been lent
        # anew by then, and would be read with another job's data.
        if frame is not self._acted_on:
            on_frame(frame)
            self._acted_on = frame  # no signal handler runs between the two
        assert frame.fd is not None
        give_back(frame.fd)
        take_steps(steps_of([(link.frames.pop, 0), *((os.close, fd) for fd in frame.fds if fd >= 0)]))
        self._acted_on = None
