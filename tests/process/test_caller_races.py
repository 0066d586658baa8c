"""Two threads of a program, or one and what interrupts it, at the very steps between which the other one comes."""

from __future__ import annotations

import selectors
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from bossworker import BossWorker
from bossworker.pool.caller import ending
from bossworker.pool.caller.readiness import ReadinessFd
from bossworker.pool.wire.frames import Part
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]


def echo(job: dict[str, Any]) -> dict[str, Any]:
    return job


def in_thread(act: Callable[[], object]) -> None:
    """Do it in a thread of its own, to its end."""
    thread = threading.Thread(target=act)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()


def test_nobody_listens_for_what_another_thread_takes_in_between_the_look_and_the_turn(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing more would come that could wake it."""
    bw = pool(echo, worker_count=1)
    first, second = bw.submit({"n": 1}), bw.submit({"n": 2})
    take, calls = bw._connection.turns.take, iter((True,))

    def late(listen: Callable[[], object], patient: bool = False) -> bool:
        if next(calls, False):
            in_thread(second.result)
            assert first._state == "FINISHED"  # or it is still to come, and proves nothing
        return take(listen, patient)

    monkeypatch.setattr(bw._connection.turns, "take", late)
    in_thread(first.result)


def test_what_closed_maps_have_left_may_be_cancelled_by_two_at_once(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or by the garbage collector, which closes a map amid an `add_work`."""
    bw = pool(echo, worker_count=1)
    try_send, calls = bw._connection.try_send, iter((True,))

    def twice(parts: Sequence[Part] = ()) -> bool:
        if next(calls, False):
            bw._outbox.cancel_dropped()
            bw._outbox.dropped.append(1003)  # by a map that is closed just now
        return try_send(parts)

    monkeypatch.setattr(bw._connection, "try_send", twice)
    bw._outbox.dropped.extend((1001, 1002))
    bw.add_work({"n": 1})
    assert list(bw._outbox.dropped) == [1003]
    assert bw.get_result() == {"n": 1}


def test_an_interrupted_call_knows_what_it_has_sent_whatever_others_send_since(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bw = pool(echo, worker_count=1)
    line, calls = bw._connection, iter((True,))
    flush, send_packed = line._flush, line.send_packed

    def interrupted() -> None:
        flush()
        if next(calls, False):
            raise KeyboardInterrupt

    def then_another(parts: list[Part]) -> None:
        try:
            send_packed(parts)
        except KeyboardInterrupt:
            in_thread(bw.stats)
            raise

    monkeypatch.setattr(line, "_flush", interrupted)
    monkeypatch.setattr(line, "send_packed", then_another)
    with pytest.raises(KeyboardInterrupt):
        bw.add_work({"n": 1})
    assert bw.pending() == 1
    assert bw.get_result(timeout=20) == {"n": 1}


def test_a_result_that_is_put_back_wakes_a_thread_that_has_found_none_meanwhile(pool: Pool) -> None:
    bw = pool(echo, worker_count=1)
    bw.add_work({"n": 1}, {"n": 2})
    wait_for(lambda: bw.stats().done == 2)
    line, got = bw._connection, list[object]()
    first, second = bw.get_result(), bw.get_result()
    assert first is not None
    assert second is not None
    bw._inbox.ready.sent += 1  # a third, which is still to come
    other = threading.Thread(target=lambda: got.append(bw.get_result()), daemon=True)
    other.start()
    wait_for(lambda: line.turns.taken)
    bw._inbox.ready.appendleft(second)
    line.tell_of_news()
    other.join(20)
    bw._inbox.ready.sent -= 1
    assert got == [{"n": 2}]


def test_two_threads_that_ask_for_the_descriptor_at_once_get_the_same() -> None:
    readiness, found, others = ReadinessFd(), list[int](), list[threading.Thread]()

    def watch(selector: selectors.BaseSelector) -> None:
        if not others:
            others.append(threading.Thread(target=lambda: found.append(readiness.fileno(watch))))
            others[0].start()
            others[0].join(0.2)  # it gets on, or waits for us

    found.append(readiness.fileno(watch))
    others[0].join(20)
    assert found == [readiness.fileno(watch)] * 2
    readiness.close()


def test_one_of_two_threads_that_end_a_pool_at_once_lets_its_boss_go(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bw = pool(echo, worker_count=1)
    end, ends, calls = bw._connection.end, list[bool](), iter((True,))

    def ended(force: bool) -> None:
        ends.append(force)
        end(force)

    class LateThreading:
        @staticmethod
        def get_ident() -> int:
            if next(calls, False):
                in_thread(lambda: bw.shut_down(force=True))
            return threading.get_ident()

    monkeypatch.setattr(bw._connection, "end", ended)
    monkeypatch.setattr(ending, "threading", LateThreading)
    bw.shut_down(force=True)
    assert ends == [True]
