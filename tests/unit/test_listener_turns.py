"""Which thread listens: one at a time, and nobody sleeps through what concerns them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from bossworker.pool.caller.listener_turns import ListenerTurns, _Waiter
from tests.conftest import wait_for


class Vacated:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


@pytest.fixture
def vacated() -> Vacated:
    return Vacated()


@pytest.fixture
def turns(vacated: Vacated) -> ListenerTurns:
    return ListenerTurns(vacated)


@pytest.fixture
def in_thread() -> Iterator[Callable[[Callable[[], object]], threading.Thread]]:
    threads: list[threading.Thread] = []

    def start(act: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=act)
        thread.start()
        threads.append(thread)
        return thread

    yield start
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


InThread = Callable[[Callable[[], object]], threading.Thread]


def test_one_thread_at_a_time_listens(turns: ListenerTurns, in_thread: InThread) -> None:
    done = threading.Event()
    in_thread(lambda: turns.take(done.wait))
    wait_for(lambda: turns.taken)
    assert not turns.take(lambda: pytest.fail("a second thread listens"))
    done.set()
    wait_for(lambda: not turns.taken)
    assert turns.take(lambda: None)


def test_a_listener_that_raises_gives_its_turn_back(turns: ListenerTurns) -> None:
    def listen() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        turns.take(listen)
    assert turns.take(lambda: None)


def test_who_waits_is_woken_when_the_listener_leaves(turns: ListenerTurns, in_thread: InThread) -> None:
    done = threading.Event()
    in_thread(lambda: turns.take(done.wait))
    wait_for(lambda: turns.taken)
    waiting = in_thread(lambda: turns.wait(lambda: False, None))
    wait_for(lambda: len(turns.waiters) == 1)
    done.set()
    waiting.join(10)
    assert not waiting.is_alive()
    assert not turns.waiters


def test_nobody_waits_for_news_that_are_there_or_for_a_listener_that_has_left(turns: ListenerTurns) -> None:
    turns.wait(lambda: False, None)  # nobody listens
    turns.take(lambda: turns.wait(lambda: True, None))
    assert not turns.waiters


def test_whoever_is_patient_leaves_the_turn_to_others(turns: ListenerTurns) -> None:
    assert turns.take(lambda: None, patient=True), "nobody else is there"
    assert turns.take(lambda: None)
    assert not turns.take(lambda: pytest.fail("somebody else has just left, and may be back"), patient=True)
    wait_for(lambda: turns.take(lambda: None, patient=True))
    turns.claim()
    assert not turns.take(lambda: pytest.fail("somebody else is coming"), patient=True)


def test_whoever_is_patient_sleeps_until_its_own_has_come(turns: ListenerTurns, in_thread: InThread) -> None:
    listening, done, mine, looks = threading.Event(), threading.Event(), threading.Event(), Vacated()

    def hold() -> None:
        listening.set()
        done.wait()

    def ready() -> bool:
        looks()
        return mine.is_set()

    in_thread(lambda: turns.take(hold))
    listening.wait()
    waiting = in_thread(lambda: turns.wait_patiently(ready, None))
    wait_for(lambda: looks.times == 2 and turns._patient_waiters)  # it sleeps for as long as somebody listens
    mine.set()
    done.set()
    waiting.join(10)
    assert not waiting.is_alive()
    assert not turns._patient_waiters


def test_whoever_is_patient_is_not_woken_for_others_news(turns: ListenerTurns, in_thread: InThread) -> None:
    news, woken = threading.Event(), threading.Event()

    def wait() -> None:
        turns._sleep(turns._patient_waiters, _Waiter(news.is_set), lambda: True, None)
        woken.set()

    in_thread(wait)
    wait_for(lambda: turns._patient_waiters)
    for _ in range(100):
        turns.take(lambda: None)
    assert not woken.wait(0.05)
    news.set()
    turns.take(lambda: None)
    assert woken.wait(10)


def test_closing_wakes_whoever_is_patient(turns: ListenerTurns, vacated: Vacated, in_thread: InThread) -> None:
    done = threading.Event()
    listening = in_thread(lambda: turns.take(done.wait))
    wait_for(lambda: turns.taken)
    waiting = in_thread(lambda: turns.wait_patiently(lambda: False, None))
    wait_for(lambda: turns._patient_waiters)
    turns.closed = True
    turns.wake_waiters()
    waiting.join(10)
    assert not waiting.is_alive()
    assert vacated.times == 0
    done.set()
    listening.join(10)
    assert vacated.times == 1


def test_a_wait_ends_when_its_time_is_up(turns: ListenerTurns, in_thread: InThread) -> None:
    done = threading.Event()
    in_thread(lambda: turns.take(done.wait))
    wait_for(lambda: turns.taken)
    turns.wait(lambda: False, 0.01)
    assert turns.taken
    done.set()


def test_the_last_to_leave_gives_back_what_was_listened_to(
    turns: ListenerTurns, vacated: Vacated, in_thread: InThread
) -> None:
    done = threading.Event()
    listening = in_thread(lambda: turns.take(done.wait))
    wait_for(lambda: turns.taken)
    turns.close()
    assert vacated.times == 0
    assert not turns.take(lambda: pytest.fail("it is closed"))
    done.set()
    listening.join(10)
    assert vacated.times == 1


def test_closing_what_nobody_uses_gives_it_back_at_once(turns: ListenerTurns, vacated: Vacated) -> None:
    turns.close()
    assert vacated.times == 1


def test_a_signal_handler_may_close_it_under_its_own_lock(turns: ListenerTurns, vacated: Vacated) -> None:
    with turns._lock:
        turns.close()
    assert vacated.times == 1
