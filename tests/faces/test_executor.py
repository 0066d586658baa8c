"""``Executor`` in the place of ``ProcessPoolExecutor``: the same, and what is better."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import itertools
import linecache
import multiprocessing
import operator
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from bossworker import BossDied, BossWorker, Executor, JobFailed, JobTimedOut, WorkerDied
from bossworker.pool.caller.call_errors import NotRebuilt, PoolBroken, RemoteTraceback
from bossworker.pool.caller.call_futures import CallFuture
from tests.conftest import alive, wait_for

Make = Callable[..., Executor]


@pytest.fixture
def executor() -> Iterator[Make]:
    """Makes executors, which end with the test."""
    made: list[Executor] = []

    def make(*args: Any, **settings: Any) -> Executor:
        made.append(Executor(*args, **settings))
        return made[-1]

    yield make
    for one in made:
        one.kill_workers()


def boss(executor: Executor) -> BossWorker:
    return executor._pool.pool


def square(n: int) -> int:
    return n * n


def fail(text: str) -> None:
    try:
        raise KeyError("inner")
    except KeyError as inner:
        raise ValueError(text) from inner


def give_up(text: str) -> None:
    raise TimeoutError(text)


def capture(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def touch_later(path: Path, seconds: float) -> None:
    time.sleep(seconds)
    path.touch()


# -- calls ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_calls(executor: Make, start_method: str) -> None:
    ex = executor(2, start_method=start_method)
    assert isinstance(ex, concurrent.futures.Executor)
    assert ex.submit(square, 7).result() == 49
    assert ex.submit(capture, 1, fn=2, self=3).result() == ((1,), {"fn": 2, "self": 3})
    assert ex.submit(pow, 2, 8).result() == 256
    assert ex.submit(lambda n: n + 1, 1).result() == 2
    assert ex.submit(partial(capture, 1), 2, x=3).result() == ((1, 2), {"x": 3})
    assert ex.submit("a-b".split, "-").result() == ["a", "b"]
    assert ex.submit(Path, "/tmp").result() == Path("/tmp")
    assert ex.submit(operator.itemgetter(1), "ab").result() == "b"
    assert ex.submit(dict.fromkeys, "ab", 0).result() == {"a": 0, "b": 0}
    assert ex.submit(os.getpid).result() != os.getpid()
    with pytest.raises(TypeError):
        ex.submit(fn=capture)  # type: ignore[call-arg]


def test_a_thousand_futures(executor: Make) -> None:
    ex = executor(2)
    futures = [ex.submit(square, n) for n in range(1000)]
    assert [future.result() for future in futures] == [n * n for n in range(1000)]
    assert [future.exception() for future in futures] == [None] * 1000


def test_a_call_that_nobody_waits_for_is_made_soon(executor: Make, tmp_path: Path) -> None:
    """However many were made just before, so that it is collected with others."""
    ex = executor(1)
    futures = [ex.submit((tmp_path / str(n)).touch) for n in range(50)]
    wait_for(lambda: len(list(tmp_path.iterdir())) == 50)
    wait_for(lambda: all(future.done() for future in futures))


def test_functions_of_main_lambdas_and_closures_travel(tmp_path: Path) -> None:
    """Also those that are defined after the start; and those from before find what the initializer left in main."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from bossworker import Executor\n"
        "def start(n):\n"
        "    global base\n"
        "    base = n\n"
        "def early(n):\n"
        "    return base + n\n"
        "class Early:\n"
        "    def __init__(self, n): self.n = n\n"
        "with Executor(2, initializer=start, initargs=(100,), start_method=sys.argv[1]) as ex:\n"
        "    if sys.argv[1] == 'fork':\n"
        "        assert ex.submit(early, 1).result() == 101\n"
        "    assert ex.submit(len, 'abc').result() == 3\n"
        "    def late(n): return n * 10\n"
        "    class Late(Early):\n"
        "        def more(self): return self.n + 1\n"
        "    def twice(f): return lambda n: f(f(n))\n"
        "    assert ex.submit(late, 2).result() == 20\n"
        "    assert list(ex.map(late, range(3))) == [0, 10, 20]\n"
        "    assert list(ex.map(twice(late), range(3))) == [0, 100, 200]\n"
        "    assert ex.submit(lambda f: f(3), late).result() == 30\n"
        "    made = ex.submit(Late, 5).result()\n"
        "    assert type(made) is Late and made.more() == 6\n"
        "    assert type(ex.submit(Early, 5).result()) is Early\n"
        "    if sys.argv[1] == 'fork':\n"
        "        assert ex.submit(early, 1).result() == 101, 'still found by name'\n"
        "        assert ex.submit(lambda f: f(1), early).result() == 101, 'by name within another'\n"
        "    def late(n): return -n\n"
        "    assert ex.submit(late, 2).result() == -2, 'the new one'\n"
        "print('through')\n"
    )
    for method in ("fork", "spawn"):
        told = subprocess.run([sys.executable, program, method], capture_output=True, text=True, check=False)
        assert (told.stderr, told.stdout) == ("", "through\n")


def test_the_pool_starts_with_the_first_call(executor: Make) -> None:
    before = set(os.listdir("/proc/self/fd"))
    ex = executor(2)
    assert set(os.listdir("/proc/self/fd")) == before
    assert repr(ex) == "<Executor, not started>"
    ex.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        ex.submit(square, 1)


def test_an_initializer(executor: Make) -> None:
    ex = executor(2, initializer=os.environ.update, initargs=({"BOSSWORKER_TEST": "set"},))
    assert {f.result() for f in [ex.submit(os.getenv, "BOSSWORKER_TEST") for _ in range(10)]} == {"set"}


def test_an_initializer_that_fails_breaks_the_pool(executor: Make) -> None:
    ex = executor(2, initializer=fail, initargs=("rattle",))
    future = ex.submit(square, 1)
    with pytest.raises(BrokenProcessPool, match=r"initializer raised: ValueError: rattle"):
        future.result()
    with pytest.raises(BrokenProcessPool, match="ValueError: rattle"):
        ex.submit(square, 1)
    with pytest.raises(BrokenProcessPool, match="ValueError: rattle"):
        list(ex.map(square, range(3)))
    ex.shutdown()


def test_contexts_and_tasks_per_child(executor: Make) -> None:
    ex = executor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=2)
    pids = [ex.submit(os.getpid).result() for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]
    assert boss(ex)._options.start_method == "spawn"
    ex = executor(1, multiprocessing.get_context("fork"), max_tasks_per_child=1)
    assert ex.submit(os.getpid).result() != ex.submit(os.getpid).result()
    assert boss(ex)._options.start_method == "fork"


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"max_workers": 0}, ValueError, "max_workers must be greater than 0"),
        ({"max_workers": -1}, ValueError, "max_workers must be greater than 0"),
        ({"max_workers": "2"}, TypeError, "max_workers must be an int, not '2'"),
        ({"max_workers": True}, TypeError, "max_workers must be an int"),
        ({"max_workers": 5000}, ValueError, "max_workers must be an int from 1 to 1024, not 5000"),
        ({"mp_context": "spawn"}, TypeError, "mp_context must be a context of multiprocessing, such as get_context"),
        ({"initializer": 3}, TypeError, "initializer"),
        ({"initializer": print, "initargs": 3}, TypeError, "initargs must be a tuple .*, not 3"),
        ({"max_tasks_per_child": 0}, ValueError, "max_tasks_per_child"),
        ({"timeout": -1}, ValueError, "^timeout"),
        ({"retries": 0.5}, TypeError, "retries"),
        ({"start_method": "forkserver"}, ValueError, "start_method"),
        ({"pool": 3}, TypeError, "pool must be a BossWorker"),
    ],
)
def test_wrong_settings_are_told_at_once(settings: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Executor(**settings)


def test_there_are_no_more_workers_than_a_pool_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("executor", "pool.options"):
        monkeypatch.setattr(f"bossworker.{module}.usable_cpus", lambda: 5000)
    assert Executor()._max_workers == 1024


# -- what goes wrong ------------------------------------------------------------------------------------------


def test_errors_are_raised_as_they_were(executor: Make) -> None:
    future = executor(1).submit(fail, "rattle")
    with pytest.raises(ValueError, match=r"^rattle$") as caught:
        future.result()
    assert future.exception() is caught.value
    cause = caught.value.__cause__
    assert isinstance(cause, RemoteTraceback)
    shown = "".join(traceback.format_exception(caught.value))
    assert "raise ValueError(text) from inner" in shown
    assert "KeyError: 'inner'" in shown
    assert repr(future).endswith("raised ValueError>")


def test_a_worker_that_dies_costs_its_own_call(executor: Make) -> None:
    ex = executor(2)
    good = [ex.submit(square, n) for n in range(50)]
    bad = ex.submit(os._exit, 3)
    after = [ex.submit(square, n) for n in range(50)]
    with pytest.raises(WorkerDied, match=r"worker died \(exit code 3\)") as caught:
        bad.result()
    assert isinstance(caught.value, BrokenProcessPool)
    assert isinstance(caught.value, JobFailed)
    assert caught.value.result.error_kind == "crash"
    assert [future.result() for future in (*good, *after)] == [n * n for n in range(50)] * 2
    assert pickle.loads(pickle.dumps(caught.value)).result.error_kind == "crash"


def test_retries(executor: Make, tmp_path: Path) -> None:
    def die_once() -> str:
        if not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os._exit(1)
        return "done"

    assert executor(1).with_options(retries=1).submit(die_once).result() == "done"


def test_time_limits(executor: Make) -> None:
    ex = executor(1, timeout=0.1)
    with pytest.raises(JobTimedOut) as caught:
        ex.submit(time.sleep, 60).result()
    assert isinstance(caught.value, TimeoutError)
    assert "JobTimeout" in str(caught.value.__cause__)
    assert ex.with_options(timeout=0).submit(time.sleep, 0.2).result() is None
    with pytest.raises(TimeoutError):
        list(ex.map(time.sleep, [0, 60]))


def exits() -> None:
    sys.exit(3)


class Fails:
    """Fails to be pickled, or to be rebuilt."""

    def __init__(self, when: str) -> None:
        self.when = when

    def __reduce__(self) -> Any:
        if self.when == "pickled":
            raise pickle.PicklingError("rattle")
        if self.when == "pickled, by exiting":
            sys.exit(3)
        return fail, ("rattle",)


def test_what_does_not_pickle_or_rebuild(executor: Make) -> None:
    ex = executor(1)
    for _ in range(2):  # among others, too
        others = [ex.submit(square, n) for n in range(20)]
        with pytest.raises(pickle.PicklingError, match="rattle"):
            ex.submit(id, Fails("pickled")).result()
        with pytest.raises(SystemExit):
            ex.submit(id, Fails("pickled, by exiting")).result()
        with pytest.raises(NotRebuilt, match="could not be rebuilt in the worker") as caught:
            ex.submit(id, Fails("rebuilt")).result()
        assert isinstance(caught.value, BrokenProcessPool)
        assert isinstance(caught.value, JobFailed)
        with pytest.raises(pickle.PicklingError, match="rattle"):
            ex.submit(Fails, "pickled").result()
        with pytest.raises(SystemExit):
            ex.submit(Fails, "pickled, by exiting").result()
        with pytest.raises(NotRebuilt, match="could not be rebuilt here"):
            ex.submit(Fails, "rebuilt").result()
        with pytest.raises(SystemExit):
            ex.submit(exits).result()
        assert [future.result() for future in others] == [n * n for n in range(20)]


def test_the_boss_s_death_breaks_the_pool(executor: Make) -> None:
    ex = executor(1)
    assert ex.submit(square, 2).result() == 4
    futures = [ex.submit(time.sleep, 60) for _ in range(300)]
    values = ex.map(time.sleep, [60])
    os.kill(boss(ex).boss_pid, signal.SIGKILL)
    for future in futures:
        with pytest.raises(BrokenProcessPool) as caught:
            future.result(20)
    assert isinstance(caught.value, PoolBroken)
    assert isinstance(caught.value.__cause__, BossDied)
    with pytest.raises(BrokenProcessPool):
        next(values)
    with pytest.raises(BrokenProcessPool):
        ex.submit(square, 2)
    ex.shutdown()


# -- cancelling, and asyncio ----------------------------------------------------------------------------------


def test_cancel_stops_a_call_that_runs(executor: Make) -> None:
    ex = executor(1)
    future = ex.submit(time.sleep, 300)
    wait_for(future.running)
    waiting = [ex.submit(time.sleep, 300) for _ in range(20)]
    assert future.cancel()
    assert all(one.cancel() for one in waiting), "sent or not"
    assert ex.submit(square, 3).result(20) == 9
    with pytest.raises(CancelledError):
        future.result()
    assert all(one.cancelled() for one in waiting)
    assert not boss(ex).pending()


def test_asyncio_frees_a_worker_by_its_timeout(executor: Make) -> None:
    ex = executor(1)

    async def main() -> tuple[float, list[int]]:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(ex, square, 3) == 9
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.run_in_executor(ex, time.sleep, 300), 0.2)
        start = time.monotonic()
        await loop.run_in_executor(ex, square, 3)
        freed = time.monotonic() - start
        return freed, await asyncio.gather(*[loop.run_in_executor(ex, square, n) for n in range(300)])

    freed, squares = asyncio.run(main())
    assert freed < 20
    assert squares == [n * n for n in range(300)]


def test_waiting_for_many(executor: Make) -> None:
    ex = executor(2)
    futures = [ex.submit(square, n) for n in range(300)]
    assert {future.result() for future in concurrent.futures.as_completed(futures)} == {n * n for n in range(300)}
    bad = ex.submit(fail, "rattle")
    slow = ex.submit(time.sleep, 60)
    done, _ = concurrent.futures.wait([slow, bad], return_when=concurrent.futures.FIRST_EXCEPTION)
    assert done == {bad}


# -- map ------------------------------------------------------------------------------------------------------


def test_map_is_eager_and_ordered(executor: Make) -> None:
    ex = executor(2)
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for n in range(3000):
            taken.append(n)
            yield n

    values = ex.map(square, numbers())
    assert len(taken) == 3000
    assert list(values) == [n * n for n in range(3000)]
    assert list(ex.map(pow, range(5), itertools.count(), chunksize=3)) == [pow(n, n) for n in range(5)]
    assert list(ex.map(square, [])) == []
    assert list(ex.map(lambda n: -n, range(3))) == [0, -1, -2]
    with pytest.raises(ValueError, match="chunksize"):
        ex.map(square, [1], chunksize=0)


def test_map_raises_in_turn_and_cancels_the_rest(executor: Make) -> None:
    ex = executor(1)
    values = ex.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert [next(values), next(values)] == [(0, 1), (0, 1)]
    with pytest.raises(ZeroDivisionError):
        next(values)
    values = ex.map(time.sleep, [0, "no number", 300])
    next(values)
    with pytest.raises(TypeError):
        next(values)
    assert ex.submit(square, 2).result(20) == 4
    values = ex.map(id, [1, Fails("pickled"), 2])
    next(values)
    with pytest.raises(pickle.PicklingError, match="rattle"):
        next(values)
    assert not boss(ex).pending()


def test_what_the_iterables_of_a_map_raise_is_raised_by_it(executor: Make) -> None:
    ex = executor(1)
    with pytest.raises(ZeroDivisionError):
        ex.map(time.sleep, (1 / n for n in (2, 0)))
    assert ex.submit(square, 2).result(20) == 4


def test_map_has_a_time_limit_for_all(executor: Make) -> None:
    ex = executor(1)
    ex.submit(square, 2).result()  # its worker is up
    values = ex.map(time.sleep, [0, 300], timeout=2)
    next(values)
    with pytest.raises(TimeoutError):
        next(values)
    assert ex.submit(square, 2).result(20) == 4, "the rest was cancelled"


def test_a_map_that_nobody_takes_from_is_run_and_freed(executor: Make, tmp_path: Path) -> None:
    ex = executor(1)
    ex.map(Path.touch, [tmp_path / str(n) for n in range(100)])
    wait_for(lambda: len(list(tmp_path.iterdir())) == 100)
    assert ex.submit(square, 2).result() == 4
    assert not boss(ex).pending()
    assert boss(ex)._inbox.pending() == 0


def test_a_map_that_is_dropped_half_way_is_cancelled(executor: Make) -> None:
    ex = executor(1)
    values = ex.map(time.sleep, [0, 300, 300])
    next(values)
    del values
    assert ex.submit(square, 2).result(20) == 4


def test_values_of_a_map_are_not_kept(executor: Make) -> None:
    ex = executor(1)
    gc.disable()
    try:
        for value in ex.map(Holder, range(5)):
            ref = weakref.ref(value)
            del value
            assert ref() is None
    finally:
        gc.enable()


class Holder:
    def __init__(self, n: int) -> None:
        self.n = n


def test_map_with_a_buffer_is_lazy(executor: Make) -> None:
    ex = executor(2)
    numbers = itertools.count()
    values = ex.map(square, numbers, buffersize=3)
    assert next(numbers) == 3
    assert [next(values), next(values)] == [0, 1]
    assert next(numbers) == 6
    with pytest.raises(ValueError, match="buffersize"):
        ex.map(square, numbers, buffersize=0)


@pytest.mark.parametrize("buffersize", [None, 2])
def test_a_map_whose_time_is_up_says_so(executor: Make, buffersize: int | None) -> None:
    values = executor(1).map(time.sleep, [0, 60], timeout=0.3, buffersize=buffersize)
    with pytest.raises(TimeoutError, match=r"^not all values were there when the time was up$"):
        list(values)


@pytest.mark.parametrize("buffersize", [None, 2])
def test_a_call_of_a_map_may_raise_a_timeout_of_its_own(executor: Make, buffersize: int | None) -> None:
    with pytest.raises(TimeoutError, match=r"^mine$"):
        list(executor(1).map(give_up, ["mine"], timeout=60, buffersize=buffersize))


# -- the end --------------------------------------------------------------------------------------------------


def test_shutdown_waits_for_what_was_called(executor: Make) -> None:
    ex = executor(2)
    calls: list[object] = []
    futures = [ex.submit(time.sleep, 0.01) for _ in range(50)]
    futures[-1].add_done_callback(calls.append)
    ex.shutdown()
    assert calls == [futures[-1]]
    assert all(future.done() for future in futures)
    ex.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        ex.submit(square, 1)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        ex.map(square, [1])
    assert not alive(boss(ex).boss_pid)


def test_shutdown_without_waiting(executor: Make) -> None:
    ex = executor(1)
    future = ex.submit(time.sleep, 0.3)
    values = ex.map(square, range(5))
    ex.shutdown(wait=False)
    assert not future.done()
    assert list(values) == [0, 1, 4, 9, 16]
    assert future.result() is None
    wait_for(lambda: not alive(boss(ex).boss_pid))


@pytest.mark.parametrize("wait", [True, False])
def test_shutdown_cancels_what_no_worker_has(executor: Make, wait: bool) -> None:
    ex = executor(1)
    first = ex.submit(time.sleep, 0.3)
    wait_for(first.running)
    rest = [ex.submit(time.sleep, 300) for _ in range(300)]
    ex.shutdown(wait=wait, cancel_futures=True)
    assert first.result(20) is None
    wait_for(lambda: all(future.done() for future in rest))
    assert all(future.cancelled() for future in rest)


@pytest.mark.parametrize("end", ["terminate_workers", "kill_workers"])
def test_ending_the_workers_ends_the_pool(executor: Make, end: str) -> None:
    ex = executor(1)
    futures = [ex.submit(time.sleep, 300) for _ in range(20)]
    values = ex.map(time.sleep, [300])
    getattr(ex, end)()
    for future in futures:
        with pytest.raises(BrokenProcessPool):
            future.result(20)
    with pytest.raises(BrokenProcessPool):
        next(values)
    with pytest.raises(RuntimeError):
        ex.submit(square, 1)
    assert not alive(boss(ex).boss_pid)


def test_an_executor_that_is_dropped_sees_its_calls_through(tmp_path: Path) -> None:
    ex = Executor(1)
    ex.submit(touch_later, tmp_path / "done", 0.2)
    values = ex.map(square, range(3))
    pid = boss(ex).boss_pid
    del ex
    assert list(values) == [0, 1, 4]
    wait_for((tmp_path / "done").exists)
    wait_for(lambda: not alive(pid))


def test_an_idle_executor_that_is_dropped_ends_at_once() -> None:
    ex = Executor(1)
    assert ex.submit(square, 2).result() == 4
    other = ex.with_options(timeout=5)
    pid = boss(ex).boss_pid
    del ex
    assert other.submit(square, 2).result() == 4
    del other
    wait_for(lambda: not alive(pid))


ENDINGS = {
    "by itself": "ex.submit(late, 'apple')",
    "without waiting": "ex.submit(late, 'apple'); ex.shutdown(wait=False)",
    "dropped": "ex.submit(late, 'apple'); del ex",
    "by an error": "ex.submit(late, 'apple'); sys.exit(3)",
    "with another pool": "ex.submit(late, 'apple'); bw = BossWorker(print, start_method='spawn'); bw.shut_down()",
    "in a with": "with ex: ex.submit(late, 'apple')",
}


@pytest.mark.parametrize("how", ENDINGS)
def test_a_program_ends_when_its_calls_are_through(how: str) -> None:
    program = (
        "import sys, time\n"
        "from bossworker import BossWorker, Executor\n"
        "def late(text):\n"
        "    time.sleep(0.5)\n"
        "    print(text, flush=True)\n"
        f"ex = Executor(2)\n{ENDINGS[how]}\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (told.stdout, told.stderr) == ("apple\n", "")


def tidied(folder: Path) -> None:
    try:
        (folder / "began").touch()
        time.sleep(300)
    finally:
        (folder / "tidied").touch()


def begin_three(ex: Executor, folder: Path) -> list[CallFuture]:
    """One call runs, two wait."""
    futures = [ex.submit(tidied, folder), *[ex.submit((folder / "waited").touch) for _ in range(2)]]
    wait_for((folder / "began").exists)
    return futures


@pytest.mark.parametrize("on_a_pool", [False, True])
@pytest.mark.parametrize("where", ["in the block", "at its end"])
def test_ctrl_c_in_a_with_stops_what_runs(
    pool: Callable[..., BossWorker], tmp_path: Path, where: str, on_a_pool: bool
) -> None:
    futures: list[CallFuture] = []

    def use(ex: Executor) -> None:
        with ex:
            futures.extend(begin_three(ex, tmp_path))
            if where == "in the block":
                raise KeyboardInterrupt
            threading.Timer(0.1, partial(signal.pthread_kill, threading.get_ident(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        use(Executor(1, pool=pool(lambda job: {}, worker_count=1) if on_a_pool else None))
    wait_for((tmp_path / "tidied").exists)
    assert all(future.done() for future in futures)
    assert not (tmp_path / "waited").exists()


def test_calls_that_wait_are_cancelled_before_the_one_that_runs(
    pool: Callable[..., BossWorker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or they would begin."""
    cancelled: list[CallFuture] = []
    whole = CallFuture.cancel

    def cancel(future: CallFuture) -> bool:
        cancelled.append(future)
        return whole(future)

    monkeypatch.setattr(CallFuture, "cancel", cancel)
    ex = Executor(pool=pool(lambda job: {}, worker_count=1))
    futures = begin_three(ex, tmp_path)
    ex.terminate_workers()
    assert cancelled == futures[::-1]


def test_ctrl_c_ends_a_program_though_calls_run(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from tests.faces.test_executor import Executor, begin_three
ex = Executor(1)
begin_three(ex, Path({str(tmp_path)!r}))
raise KeyboardInterrupt
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr.splitlines()[-1] == "KeyboardInterrupt"
    assert (tmp_path / "tidied").exists()
    assert not (tmp_path / "waited").exists()


def test_a_forked_child_is_refused_but_may_have_its_own(executor: Make) -> None:
    ex, unused = executor(1), executor(1)
    future = ex.submit(time.sleep, 0.3)
    pid = os.fork()
    if pid == 0:
        refused = 0
        for call in (lambda: ex.submit(square, 1), lambda: ex.map(square, [1]), future.result):
            try:
                call()
            except Exception:
                refused += 1
        right = refused == 3 and unused.submit(square, 3).result() == 9
        unused.shutdown()
        os._exit(0 if right else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert future.result() is None


GARBAGE = """
import gc, os
os.register_at_fork(after_in_child=gc.collect)  # before the hooks of ours
import bossworker

class Cycle:
    def __init__(self, held):
        self.own, self.held = self, held

gc.disable()
pool = bossworker.BossWorker(lambda job: job, worker_count=1)
results = pool.map({"n": n} for n in range(100))
assert next(results)["n"] == 0
executor = bossworker.Executor(1)
assert executor.submit(abs, -1).result() == 1
boss = executor._pool.pool.boss_pid
Cycle([executor, results])
del executor, results
if os.fork() == 0:
    os._exit(0)
os.wait()
print(open(f"/proc/{boss}/stat").read().rpartition(")")[2].split()[0] != "Z", pool.pending() > 0)
gc.collect()
pool.add_work({"n": 100})
print(pool.get_result()["n"])
"""


def test_a_childs_garbage_collector_leaves_the_parents_pools_alone() -> None:
    """However early it comes by."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", GARBAGE]  # of a fork among threads
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("True True\n100\n", "")


def test_many_threads_call(executor: Make) -> None:
    ex = executor(2)
    wrong: list[object] = []

    def use(start: int) -> None:
        futures = [ex.submit(square, n) for n in range(start, start + 300)]
        wrong.extend(n for n, future in enumerate(futures, start) if future.result(60) != n * n)

    threads = [threading.Thread(target=use, args=(1000 * n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def append(path: Path) -> None:
    with path.open("a") as file:
        file.write("x")


def test_a_call_whose_submit_was_interrupted_is_not_made_later(
    executor: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ex = executor(1)
    assert ex.submit(square, 2).result() == 4
    book = ex._pool.book()
    flush = book.flush

    def interrupt() -> None:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        flush()

    wait_for(lambda: book._attendant is None)  # then a call is first put with others, of which there are none
    with monkeypatch.context() as patch:
        patch.setattr(book, "flush", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ex.submit(append, tmp_path / "made")
    assert ex.submit(square, 3).result() == 9
    ex.shutdown()
    assert not (tmp_path / "made").exists()
    assert not book.unsent


def test_wherever_a_submit_is_interrupted_its_call_is_made_at_most_once(
    executor: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each line of it: the next call is made, and nothing is left of this one."""
    monkeypatch.setattr("bossworker.pool.caller.futures.LINGER_SECONDS", 0.001)
    monkeypatch.setattr("bossworker.pool.caller.call_futures.LOOK_SECONDS", 0.001)
    ex = executor(1)
    ex.submit(square, 2).result()
    book = ex._pool.book()
    interrupted = 0
    for stop in range(1, 80):
        path = tmp_path / str(stop)
        if stop % 2:  # which decides on the way that a call takes
            wait_for(lambda: book._attendant is None)
        try:
            with interrupted_at_line(stop):
                ex.submit(append, path).result(60)
            assert path.read_text() == "x"
        except KeyboardInterrupt:
            interrupted += 1
        assert ex.submit(square, 3).result(60) == 9
    assert interrupted > 20
    ex.shutdown()
    assert {path.read_text() for path in tmp_path.iterdir()} == {"x"}
    assert (book.unsent, book.open, boss(ex).pending()) == (False, {}, 0)


@contextmanager
def interrupted_at_line(stop: int) -> Iterator[None]:
    """As by Ctrl-C, at the n-th line of what collects and sends calls.

    (Not where a `with` ends: no signal is looked for between its last line and the release of its lock.)
    """
    lines = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal lines
        path = frame.f_code.co_filename
        if event == "line" and path.endswith("call_futures.py"):
            lines += not linecache.getline(path, frame.f_lineno).lstrip().startswith("with ")
            if lines == stop:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(None)


# -- on somebody's pool ---------------------------------------------------------------------------------------


def test_an_executor_on_a_pool_that_does_other_work(executor: Make) -> None:
    with BossWorker(lambda job: {"n": job["n"] + 1}, worker_count=2) as bw:
        ex = executor(pool=bw)
        assert ex.submit(square, 7).result() == 49
        bw.add_work({"n": 1})
        assert list(ex.map(lambda n: -n, range(100))) == [-n for n in range(100)]
        assert bw.get_result()["n"] == 2
        assert bw.submit({"n": 2}).result()["n"] == 3
        with pytest.raises(ValueError, match="rattle"):
            ex.submit(fail, "rattle").result()
        with pytest.raises(TimeoutError):
            ex.with_options(timeout=0.1).submit(time.sleep, 60).result()
        last = ex.submit(time.sleep, 0.2)
        ex.shutdown()
        assert last.done()
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            ex.submit(square, 1)
        bw.add_work({"n": 1})
        assert bw.get_result()["n"] == 2
        other = Executor(pool=bw)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        other.submit(square, 1)


def test_priorities(executor: Make) -> None:
    ex = executor(1)
    first = ex.submit(time.sleep, 0.3)
    wait_for(first.running)
    order: list[int] = []
    futures = [ex.with_options(priority=n).submit(square, n) for n in range(3)]
    for future in futures:
        future.add_done_callback(lambda f: order.append(f.result()))
    wait_for(lambda: len(order) == 3)
    assert order == [4, 1, 0]
    with pytest.raises(TypeError, match="priority"):
        ex.with_options(priority="high")  # type: ignore[arg-type]


# -- memory ---------------------------------------------------------------------------------------------------


def test_arguments_are_freed_with_their_call(executor: Make) -> None:
    """Also if nobody asks for the future."""
    ex = executor(1)
    argument = Holder(1)
    gone = weakref.ref(argument)
    ex.submit(id, argument)
    del argument
    wait_for(lambda: gone() is None)


@pytest.mark.alone
def test_an_open_call_takes_little_memory() -> None:
    program = (
        "import resource, time\n"
        "from bossworker import Executor\n"
        "def resident(): return int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize()\n"
        "ex = Executor(1)\n"
        "ex.submit(time.sleep, 300)\n"
        "before = resident()\n"
        "futures = [ex.submit(abs, n) for n in range(30_000)]\n"
        "print((resident() - before) / 30_000)\n"
        "ex.kill_workers()\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert float(told) < 2048


def wait_in_a_call() -> None:
    time.sleep(60)


def test_it_can_be_paused_and_looked_into() -> None:
    with Executor(2) as executor:
        executor.pause()
        quick = executor.submit(abs, -3)
        assert executor.stats().paused
        with pytest.raises(TimeoutError):
            quick.result(0.1)
        executor.resume()
        assert quick.result() == 3
        slow = executor.submit(wait_in_a_call)
        wait_for(lambda: "in wait_in_a_call" in executor.stack(slow))
        assert executor.stack(quick) == ""
        assert "in wait_in_a_call" in executor.stack()
        assert executor.stats().running == 1
        slow.cancel()
