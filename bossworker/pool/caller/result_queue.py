"""Where results wait to be taken: the pool's own queue, and one for each map and each kind of future."""

from __future__ import annotations

from collections import deque

from bossworker.result import Result


class ResultQueue(deque[Result]):
    """Results that have arrived, and how many are still to come. Made by its owner; see ``inbox.py`` for the rules.

    Each count has one writer: `sent` is written under the outbox's lock, `arrived` under the inbox's.
    """

    __slots__ = ("arrived", "closed", "forgotten", "sent")

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0  # jobs whose results come here
        self.arrived = 0  # jobs of these whose results have come, whether they were kept or not
        self.forgotten: set[int] = set()  # ids of jobs whose results are still to come, and are not wanted
        self.closed = False  # nobody takes anything from here any more

    @property
    def waiting(self) -> int:
        """Results that are still to come."""
        return self.sent - self.arrived - len(self.forgotten)

    @property
    def pending(self) -> int:
        """Results that have not been taken.

        Of results that another thread takes in just now, some may be counted twice, none is left out: they are added
        here before they stop to be waited for, and `waiting` is asked first.
        """
        return self.waiting + len(self)
