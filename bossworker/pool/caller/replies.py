"""What the boss answers to requests, until whoever asked takes it."""

from __future__ import annotations

from itertools import count
from typing import Any


class Replies:
    """See the module. Any thread may ask; whichever listens adds what has come."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._here: dict[int, dict[str, Any]] = {}
        self._unwanted: set[int] = set()  # numbers of requests whose answers nobody waits for any more

    def expect(self) -> int:
        """A number for the next request."""
        return next(self._numbers)

    def add(self, number: int, answer: dict[str, Any]) -> None:
        """One has come."""
        # In this order, and `disown` in the other one: whoever asked gives up just as the answer comes, and at least
        # one of the two finds both the answer and the mark, and drops it.
        self._here[number] = answer
        if self._unwanted:
            self._drop(number)

    def is_here(self, number: int) -> bool:
        return number in self._here

    def take(self, number: int) -> dict[str, Any] | None:
        """The answer, once; None when there is none."""
        return self._here.pop(number, None)

    def disown(self, number: int) -> None:
        """Nobody waits for it any more, since a call was interrupted or cancelled."""
        self._unwanted.add(number)  # first: it may come between the two
        self._drop(number)

    def _drop(self, number: int) -> None:
        if number in self._unwanted and self._here.pop(number, None) is not None:
            self._unwanted.discard(number)
