"""Which results the program has got, as the scribe is told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bossworker.pool.caller.given_out import GivenOut, as_ranges
from bossworker.pool.wire.segments import single


class Queue:
    """What an inbox tells: of which results it has none any more."""

    def __init__(self) -> None:
        self.waiting: set[int] = set()

    def given_out(self, ids: Iterable[int]) -> list[int]:
        return [job_id for job_id in ids if job_id not in self.waiting]


def given_out(inbox: Any) -> GivenOut:
    return GivenOut(inbox)


def result(job_id: int) -> Any:
    return single(job_id, 7, 1, 1.0, 2.0, 0, b"")


def test_what_another_thread_finds_meanwhile_is_told_of_at_the_next_look() -> None:
    queue = Queue()
    given = given_out(queue)
    given.arrived([result(3), result(1)])
    given.look()
    telling = given.found()
    assert telling == [1, 3]
    given.arrived([result(2), result(4)])  # in another thread, while this one sends
    given.look()
    given.told(telling)
    assert given.found() == [2, 4]


def test_what_two_threads_tell_of_at_once_is_told_of_twice_and_nothing_is_left_out() -> None:
    queue = Queue()
    given = given_out(queue)
    given.arrived([result(1)])
    given.look()
    one, other = given.found(), given.found()
    given.told(one)
    given.arrived([result(2)])
    given.look()
    given.told(other)
    assert given.found() == [2]


def test_what_waits_in_the_queue_was_not_got() -> None:
    queue = Queue()
    queue.waiting = {2}
    given = given_out(queue)
    given.arrived([result(1), result(2)])
    given.look()
    assert given.found() == [1]
    queue.waiting = set()
    given.look()
    assert given.found() == [1, 2]
    assert list(as_ranges([1, 2, 5])) == [range(1, 3), range(5, 6)]
