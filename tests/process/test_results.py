"""Jobs in, results out: the calls of everyday use."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import select
import selectors
import threading
import time
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cloudpickle
import pytest

from bossworker import BossWorker, JobFailed, NothingPending, PoolClosed, Result, ResultHandlerError
from bossworker.pool.caller.mapping import MAP_FIRST, MAP_JOBS, MAP_STEP
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]


def multiply(job: dict[str, Any]) -> dict[str, Any]:
    return {"product": job["a"] * job["b"]}


def echo(job: dict[str, Any]) -> dict[str, Any]:
    return job


def nap(job: dict[str, Any]) -> dict[str, Any]:
    time.sleep(job.get("seconds", 0))
    return {"n": job.get("n")}


def fail(job: dict[str, Any]) -> dict[str, Any]:
    raise ValueError("rattle")


def test_a_job_goes_in_and_its_result_comes_out(pool: Pool) -> None:
    bw = pool(multiply)
    assert list(bw.add_work({"a": 3, "b": 4})) == [1]
    assert bw.pending() == 1
    result = bw.get_result()
    assert result == {"product": 12}
    assert isinstance(result, Result)
    assert bw.pending() == 0


def test_ids_come_in_the_order_of_the_jobs(pool: Pool) -> None:
    bw = pool(echo)
    ids = bw.add_work(*[{"n": n} for n in range(300)])
    more = bw.add_work({"n": 300})
    assert [*ids, *more] == list(range(ids[0], ids[0] + 301))
    assert {r.job_id: r["n"] for r in bw.results()} == dict(zip([*ids, *more], range(301)))


def test_add_work_without_jobs_adds_none(pool: Pool) -> None:
    bw = pool(echo)
    assert list(bw.add_work()) == []
    assert bw.pending() == 0


def test_a_result_tells_where_it_comes_from(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)
    job = {"seconds": 0.05}
    before = time.time()
    bw.add_work(job)
    result = bw.get_result()
    assert result is not None
    assert result.job == job
    assert result.ok
    assert [result.error, result.error_kind, result.exception, result.traceback] == [None] * 4
    assert result.worker_pid in bw.worker_pids
    assert result.attempts == 1
    assert before - 0.01 <= result.queued_at <= result.started_at <= result.finished_at <= time.time() + 0.01
    assert 0.05 <= result.duration < 5
    assert result.raise_for_error() is result


def test_nonblocking_gives_none_until_there_is_a_result(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)
    assert bw.get_result_nb() is None
    assert bw.get_result(blocking=False) is None
    bw.add_work({"seconds": 0.2, "n": 5})
    assert bw.get_result_nb() is None
    assert wait_for(bw.get_result_nb) == {"n": 5}


def test_a_blocking_call_with_a_timeout_gives_none_after_it(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)
    bw.add_work({"seconds": 0.4})
    start = time.monotonic()
    assert bw.get_result(timeout=0.05) is None
    assert time.monotonic() - start >= 0.05
    assert bw.get_result() is not None


@pytest.mark.parametrize("timeout", ["soon", -1, float("nan")])
def test_a_bad_timeout_is_named(pool: Pool, timeout: Any) -> None:
    bw = pool(nap)
    bw.add_work({"seconds": 0.1})
    with pytest.raises((TypeError, ValueError), match="timeout"):
        bw.get_result(timeout=timeout)
    assert bw.get_result() is not None


def test_blocking_with_nothing_pending_raises_instead_of_hanging(pool: Pool) -> None:
    bw = pool(echo)
    with pytest.raises(NothingPending):
        bw.get_result()
    bw.add_work({})
    assert bw.get_result() == {}
    with pytest.raises(NothingPending):
        bw.get_result(timeout=5)
    assert list(bw.results()) == []


def test_results_come_in_the_order_of_completion(pool: Pool) -> None:
    bw = pool(nap, worker_count=3)
    for n, seconds in enumerate([0.5, 0.25, 0.0]):
        bw.add_work({"seconds": seconds, "n": n})
    assert [r["n"] for r in bw.results()] == [2, 1, 0]


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        (None, {}),
        ({}, {}),
        (OrderedDict(a=1), {"a": 1}),
        (MappingProxyType({"a": [1, 2]}), {"a": [1, 2]}),
        ({1: {2: (3, "ä", b"\x00", None, 1.5)}}, {1: {2: (3, "ä", b"\x00", None, 1.5)}}),
    ],
)
def test_a_handler_may_return_any_mapping_or_none(pool: Pool, returned: Any, expected: Any) -> None:
    bw = pool(lambda job: returned)
    bw.add_work({})
    result = bw.get_result()
    assert result == expected
    assert type(result) is Result


def test_jobs_may_hold_lambdas_closures_and_local_classes(pool: Pool) -> None:
    class Local:
        value = 20

    one = 1
    bw = pool(lambda job: {"n": job["f"](1) + job["c"]().value})
    bw.add_work({"f": lambda x: x + one, "c": Local})
    assert bw.get_result() == {"n": 22}


def test_jobs_may_be_any_mapping(pool: Pool) -> None:
    bw = pool(lambda job: {"type": type(job).__name__, **job})
    bw.add_work(MappingProxyType({"a": 1}), OrderedDict(a=2))
    assert sorted(r["a"] for r in bw.results()) == [1, 2]


def test_jobs_that_are_added_together_may_hold_what_the_core_leaves_to_pickle(pool: Pool) -> None:
    values: list[object] = [(1, 2), 1 << 70, {1}, "\udcff"]
    bw = pool(echo)
    bw.add_work(*[{"value": value} for value in values])
    results = [bw.get_result(timeout=30) for _ in values]
    assert sorted(repr(result and result["value"]) for result in results) == sorted(map(repr, values))


def test_a_handle_can_be_neither_copied_nor_pickled(pool: Pool) -> None:
    bw = pool(echo)
    for take in (copy.copy, copy.deepcopy, pickle.dumps, cloudpickle.dumps, lambda bw: bw.add_work({"pool": bw})):
        with pytest.raises(TypeError, match="a BossWorker is a handle that belongs to its process"):
            take(bw)


def test_a_result_made_by_hand_is_a_job_like_any_dict(pool: Pool) -> None:
    bw = pool(echo)
    bw.add_work(Result({"n": 1}))
    assert bw.get_result() == {"n": 1}


@pytest.mark.parametrize("bad", [5, "text", None, [("a", 1)]])
def test_a_job_that_is_no_mapping_queues_none(pool: Pool, bad: Any) -> None:
    bw = pool(echo)
    with pytest.raises(TypeError, match="job 70 must be a mapping"):
        bw.add_work(*[{"n": n} for n in range(70)], bad, {"n": 1})
    assert bw.pending() == 0


def test_a_job_that_cannot_be_pickled_queues_none_and_is_named(pool: Pool) -> None:
    bw = pool(echo)
    with pytest.raises(TypeError, match=r"job 1 .*'guard'.*lock"):
        bw.add_work({"n": 1}, {"n": 2, "guard": threading.Lock()})
    assert bw.pending() == 0
    bw.add_work({"n": 3})
    assert bw.get_result() == {"n": 3}


def test_many_threads_may_use_one_handle(pool: Pool) -> None:
    bw = pool(echo, worker_count=2)
    got: list[int] = []

    def work(first: int) -> None:
        for n in range(first, first + 100):
            bw.add_work({"n": n})
            while True:
                result = bw.get_result(timeout=0.001)
                if result is not None:
                    got.append(result["n"])
                    break

    threads = [threading.Thread(target=work, args=(k * 100,)) for k in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(got) == list(range(2000))
    assert bw.pending() == 0


def test_threads_that_wait_in_vain_are_told(pool: Pool) -> None:
    """Twenty threads wait for three results: three get one, the others hear that nothing is pending."""
    bw = pool(nap, worker_count=2)
    bw.add_work(*[{"seconds": 0.1, "n": n} for n in range(3)])
    outcomes: list[Any] = []

    def take() -> None:
        try:
            outcomes.append(bw.get_result())
        except NothingPending:
            outcomes.append(None)

    threads = [threading.Thread(target=take) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(o["n"] for o in outcomes if o is not None) == [0, 1, 2]
    assert len(outcomes) == 20


# -- result_handler --------------------------------------------------------------------------------------------


def test_the_result_handler_runs_here_and_its_return_is_returned(pool: Pool) -> None:
    def handle(result: Result) -> Mapping[str, Any]:
        return {"text": f"the answer is: {result['product']}", "pid": os.getpid()}

    bw = pool(multiply, result_handler=handle)
    bw.add_work({"a": 3, "b": 4})
    result = bw.get_result()
    assert result == {"text": "the answer is: 12", "pid": os.getpid()}
    assert result is not None
    assert result.job == {"a": 3, "b": 4}


def test_a_result_handler_may_change_the_result_or_return_nothing(pool: Pool) -> None:
    def amend(result: Result) -> Result:
        result["more"] = 1
        return result

    bw = pool(multiply, result_handler=amend)
    bw.add_work({"a": 1, "b": 1})
    assert bw.get_result() == {"product": 1, "more": 1}
    bw = pool(multiply, result_handler=lambda result: None)
    bw.add_work({"a": 1, "b": 1})
    assert bw.get_result() == {}


def test_a_result_handler_that_raises_loses_nothing(pool: Pool) -> None:
    def handle(result: Result) -> None:
        raise KeyError("oops")

    bw = pool(multiply, result_handler=handle)
    bw.add_work({"a": 3, "b": 4})
    with pytest.raises(ResultHandlerError, match="oops") as caught:
        bw.get_result()
    assert caught.value.result == {"product": 12}
    assert isinstance(caught.value.__cause__, KeyError)
    assert bw.pending() == 0


def test_a_result_handler_that_returns_no_mapping_loses_nothing(pool: Pool) -> None:
    bw = pool(multiply, result_handler=lambda result: 5)
    bw.add_work({"a": 3, "b": 4})
    with pytest.raises(ResultHandlerError, match="it returned an int, not a mapping or None") as caught:
        bw.get_result()
    assert caught.value.result == {"product": 12}


def test_errors_pass_through_the_result_handler(pool: Pool) -> None:
    bw = pool(fail, result_handler=lambda result: {"seen": result["ERROR"]})
    bw.add_work({})
    result = bw.get_result()
    assert result == {"seen": "ValueError: rattle"}
    assert result is not None
    assert not result.ok
    with pytest.raises(JobFailed):
        result.raise_for_error()


def test_the_job_of_a_result_is_what_was_added_though_the_dict_was_filled_again(pool: Pool) -> None:
    bw = pool(echo, worker_count=1)
    job: dict[str, int] = {}
    for n in range(3):
        job["n"] = n
        bw.add_work(job)
        bw.add_work(job, {"n": n})
    job.clear()
    results = list(bw.results())
    assert [r.job for r in results] == [{"n": n // 3} for n in range(9)]
    assert results == [r.job for r in results]

    def again() -> Iterator[dict[str, int]]:
        for n in range(100):
            job["n"] = n
            yield job

    mapped = list(bw.map(again()))
    assert mapped == [r.job for r in mapped] == [{"n": n} for n in range(100)]


# -- map -------------------------------------------------------------------------------------------------------


def test_map_yields_in_the_order_of_the_jobs(pool: Pool) -> None:
    bw = pool(nap, worker_count=4)
    jobs = [{"seconds": 0.03 * (7 - n % 8), "n": n} for n in range(24)]
    assert [r["n"] for r in bw.map(jobs)] == list(range(24))
    assert bw.pending() == 0


def test_map_yields_as_completed(pool: Pool) -> None:
    bw = pool(nap, worker_count=2)
    jobs: list[dict[str, Any]] = [{"seconds": 0.5, "n": 0}, *[{"n": n} for n in range(1, 50)]]
    got = [r["n"] for r in bw.map(jobs, ordered=False)]
    assert sorted(got) == list(range(50))
    assert got[-1] == 0


def test_map_takes_an_endless_iterable_a_bounded_part_at_a_time(pool: Pool) -> None:
    taken = 0

    def endless() -> Iterator[dict[str, int]]:
        nonlocal taken
        while True:
            taken += 1
            yield {"n": taken - 1}

    bw = pool(echo, worker_count=2)
    results = bw.map(endless())
    assert taken == 0
    assert next(results)["n"] == 0
    assert taken <= MAP_JOBS + MAP_STEP
    assert [next(results)["n"] for _ in range(999)] == list(range(1, 1000))
    assert taken <= 1000 + MAP_JOBS
    results.close()
    assert bw.pending() == 0
    bw.add_work({"n": -1})
    assert bw.get_result() == {"n": -1}


def test_map_takes_few_jobs_until_results_come(pool: Pool, tmp_path: Path) -> None:
    """Eight a worker; a worker that is slow to answer is not buried."""
    taken = 0
    gate = tmp_path / "open"

    def endless() -> Iterator[dict[str, str]]:
        nonlocal taken
        while True:
            taken += 1
            if taken > MAP_FIRST * 2:
                assert gate.exists(), "more than that before the first result"
            yield {"gate": str(gate)}

    results = pool(once_there_is_a_gate, worker_count=2).map(endless())
    opener = threading.Timer(0.1, gate.touch)
    opener.start()
    assert next(results).ok
    opener.join()
    results.close()


def once_there_is_a_gate(job: dict[str, str]) -> None:
    while not os.path.exists(job["gate"]):
        time.sleep(0.001)


def test_map_bounds_large_jobs_by_their_bytes(pool: Pool) -> None:
    taken = 0

    def large() -> Iterator[dict[str, bytes]]:
        nonlocal taken
        while True:
            taken += 1
            yield {"data": bytes(4 << 20)}

    bw = pool(lambda job: {"size": len(job["data"])}, worker_count=2)
    results = bw.map(large())
    assert [next(results)["size"] for _ in range(30)] == [4 << 20] * 30
    assert taken <= 30 + 64
    results.close()


def test_map_leaves_other_results_alone(pool: Pool) -> None:
    bw = pool(echo, worker_count=2)
    others = list(bw.add_work(*[{"other": n} for n in range(100)]))
    mapped = list(bw.map({"n": n} for n in range(500)))
    assert [r["n"] for r in mapped] == list(range(500))
    assert sorted(r.job_id for r in bw.results()) == others


def test_get_result_in_a_thread_does_not_steal_from_map(pool: Pool) -> None:
    bw = pool(echo, worker_count=2)
    stop = threading.Event()
    stolen: list[Any] = []

    def steal() -> None:
        while not stop.is_set():
            result = bw.get_result_nb()
            if result is not None:
                stolen.append(result)

    thread = threading.Thread(target=steal)
    thread.start()
    try:
        assert [r["n"] for r in bw.map({"n": n} for n in range(3000))] == list(range(3000))
    finally:
        stop.set()
        thread.join()
    assert stolen == []


def test_map_passes_errors_on_and_times_jobs_out(pool: Pool) -> None:
    bw = pool(nap, worker_count=2)
    jobs: list[dict[str, Any]] = [{"seconds": 0}, {"seconds": 60}, {"seconds": "x"}, {"seconds": 0}]
    assert [r.error_kind for r in bw.map(jobs, timeout=1.0)] == [None, "timeout", "exception", None]


def test_an_iterable_that_raises_ends_map_and_leaves_the_pool_well(pool: Pool) -> None:
    def broken() -> Iterator[dict[str, int]]:
        yield from ({"n": n} for n in range(10))
        raise OSError("no more")

    bw = pool(echo)
    results = bw.map(broken())
    assert [next(results)["n"] for _ in range(10)] == list(range(10))
    with pytest.raises(OSError, match="no more"):
        next(results)
    assert bw.pending() == 0
    bw.add_work({"n": 1})
    assert bw.get_result() == {"n": 1}


@pytest.mark.parametrize("at", [0, 1, 5000])
@pytest.mark.parametrize(("bad", "text"), [(7, "must be a mapping"), ({"lock": threading.Lock()}, "key 'lock'")])
def test_what_is_no_job_ends_map_after_the_results_of_the_jobs_before_it(
    pool: Pool, at: int, bad: Any, text: str
) -> None:
    bw = pool(echo)
    results = bw.map([*[{"n": n} for n in range(at)], bad, {"n": -1}])
    assert [next(results)["n"] for _ in range(at)] == list(range(at))
    with pytest.raises(TypeError, match=f"job {at} .*{text}"):
        next(results)
    assert bw.pending() == 0


def test_two_maps_and_a_slow_iterable(pool: Pool) -> None:
    bw = pool(echo, worker_count=2)

    def slow() -> Iterator[dict[str, int]]:
        for n in range(5):
            time.sleep(0.01)
            yield {"n": n}

    pairs = list(zip(bw.map(slow()), bw.map({"n": -n} for n in range(5))))
    assert [(a["n"], b["n"]) for a, b in pairs] == [(n, -n) for n in range(5)]


# -- fileno ----------------------------------------------------------------------------------------------------


def test_fileno_is_readable_when_a_result_is_ready(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)
    fd = bw.fileno()
    assert select.select([fd], [], [], 0)[0] == []
    bw.add_work({"n": 1, "seconds": 0.05})
    assert select.select([fd], [], [], 20)[0] == [fd]
    assert wait_for(bw.get_result_nb) == {"n": 1}
    assert bw.get_result_nb() is None
    assert select.select([fd], [], [], 0)[0] == []


def test_a_handle_in_a_circle_is_collected_without_a_warning() -> None:
    """One that was shut down, and whose descriptor was asked for; a service that keeps its pool is such a circle."""

    class Service:
        def __init__(self) -> None:
            self.pool = BossWorker(self.handle, worker_count=1)

        def handle(self, job: dict[str, int]) -> dict[str, int]:
            return job

    service = Service()
    with service.pool as bw:
        bw.fileno()
    readiness = weakref.ref(bw._connection._readiness)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        del service, bw
        gc.collect()
    assert readiness() is None
    assert told == []


def test_fileno_stays_readable_while_results_wait_here(pool: Pool) -> None:
    """Results come many to a message: taking one of them must not put the event loop to sleep over the others."""
    bw = pool(echo, worker_count=1)
    bw.add_work(*[{"n": n} for n in range(500)])
    got: list[int] = []
    with selectors.DefaultSelector() as selector:
        selector.register(bw.fileno(), selectors.EVENT_READ)
        while len(got) < 500:
            assert selector.select(20), f"asleep over {500 - len(got)} results"
            result = bw.get_result_nb()
            if result is not None:
                got.append(result["n"])
    assert sorted(got) == list(range(500))
    assert bw.get_result_nb() is None
    assert select.select([bw.fileno()], [], [], 0)[0] == []


def test_results_can_be_polled_from_asyncio(pool: Pool) -> None:
    import asyncio

    bw = pool(nap, worker_count=2)

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        got: list[int] = []
        done = asyncio.Event()

        def fetch() -> None:
            while (result := bw.get_result_nb()) is not None:
                got.append(result["n"])
            if not bw.pending():
                done.set()

        loop.add_reader(bw.fileno(), fetch)
        bw.add_work(*[{"n": n, "seconds": 0.01} for n in range(20)])
        await asyncio.wait_for(done.wait(), 20)
        loop.remove_reader(bw.fileno())
        return got

    assert sorted(asyncio.run(main())) == list(range(20))


def test_asking_before_anything_is_ready_costs_microseconds(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)
    bw.add_work({"seconds": 0.5})
    start = time.process_time()
    for _ in range(1000):
        assert bw.get_result_nb() is None
    assert (time.process_time() - start) / 1000 < 100e-6
    bw.get_result()


# -- shut_down -------------------------------------------------------------------------------------------------


def test_shut_down_processes_the_queue_and_keeps_the_results(pool: Pool) -> None:
    bw = pool(nap, worker_count=2)
    bw.add_work(*[{"n": n, "seconds": 0.01} for n in range(30)])
    bw.shut_down()
    assert bw.pending() == 30
    assert sorted(r["n"] for r in bw.results()) == list(range(30))
    with pytest.raises(NothingPending):
        bw.get_result()
    assert bw.get_result_nb() is None
    bw.shut_down()
    assert bw.worker_pids == ()
    for call in (lambda: bw.add_work({}), lambda: bw.resize(2), bw.stats, lambda: bw.map([])):
        with pytest.raises(PoolClosed):
            call()


def test_a_forced_shut_down_is_quick_and_leaves_nothing(pool: Pool) -> None:
    bw = pool(nap, worker_count=3)
    bw.add_work(*[{"seconds": 100}] * 10)
    pids = bw.worker_pids
    start = time.monotonic()
    bw.shut_down(force=True)
    assert time.monotonic() - start < 1.5
    assert not any(os.path.exists(f"/proc/{pid}") for pid in (bw.boss_pid, *pids))
    assert bw.pending() == 0
    bw.shut_down(force=True)
    bw.shut_down()


def test_shut_down_with_a_timeout_gives_up_waiting_but_not_the_work(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)
    bw.add_work({"n": 1, "seconds": 0.5})
    with pytest.raises(TimeoutError):
        bw.shut_down(timeout=0.05)
    with pytest.raises(PoolClosed):
        bw.add_work({})
    bw.shut_down()
    assert bw.get_result() == {"n": 1}


def test_a_number_of_seconds_is_not_taken_for_force(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)
    bw.add_work({"n": 1})
    with pytest.raises(TypeError, match="force must be True or False, not 10"):
        bw.shut_down(10)  # type: ignore[arg-type]
    assert bw.get_result() == {"n": 1}


def test_leaving_the_with_block_is_orderly_or_forced() -> None:
    with BossWorker(nap, worker_count=1) as bw:
        bw.add_work({"n": 1, "seconds": 0.05})
    assert bw.get_result() == {"n": 1}
    start = time.monotonic()
    with pytest.raises(KeyError), BossWorker(nap, worker_count=1) as bw:  # noqa: PT012
        bw.add_work({"seconds": 100})
        raise KeyError
    assert time.monotonic() - start < 5
    assert bw.pending() == 0


def test_a_pool_that_is_dropped_is_ended_with_a_warning() -> None:
    bw = BossWorker(nap, worker_count=1)
    boss = bw.boss_pid
    with pytest.warns(ResourceWarning, match="was not shut down"):
        del bw
    assert not os.path.exists(f"/proc/{boss}")


def test_a_pool_has_a_name(pool: Pool) -> None:
    bw = pool(echo, worker_count=1, name="thumbnails")
    assert bw.name == "thumbnails"
    assert repr(bw) == f"<BossWorker thumbnails, boss {bw.boss_pid}, 0 pending, open>"
    assert "BossWorker thumbnails, open" in bw._repr_html_()
    assert pool(echo, worker_count=1).name == "echo"
