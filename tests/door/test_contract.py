"""One contract, and five ways to a pool: its own handle over both transports, and clients over ipc, tcp and JSON.

`tests/engines/test_engine_contract.py` has it kept by pools on engines, too. The fixture `kind` says which way it is.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from concurrent.futures import as_completed
from typing import Any

import pytest

from bossworker import JobEnded, JobFailed, NothingPending, PoolClosed
from tests.conftest import wait_for
from tests.door.conftest import Face
from tests.door.contract_handlers import work


def test_jobs_have_their_results(face: Face, kind: str) -> None:
    bw = face(kind, work, worker_count=2)
    assert bw.pending() == 0
    assert bw.get_result_nb() is None
    with pytest.raises(NothingPending):
        bw.get_result()
    ids = bw.add_work({"n": 1}, {"n": 2, "data": [1, 2.5, "drei", None, True, {"a": "b"}]})
    assert list(ids) == [1, 2]
    assert bw.pending() == 2
    results = {result.job_id: result for result in bw.results()}
    assert dict(results[1]) == {"n": 1, "data": None}
    assert dict(results[2]) == {"n": 2, "data": [1, 2.5, "drei", None, True, {"a": "b"}]}
    assert results[2].job == {"n": 2, "data": [1, 2.5, "drei", None, True, {"a": "b"}]}
    assert results[1].ok
    assert results[1].attempts == 1
    assert results[1].worker_pid > 0
    now = time.time()
    assert now - 60 < results[1].queued_at <= results[1].started_at <= results[1].finished_at < now + 1
    assert bw.pending() == 0


def test_many_jobs_and_single_ones(face: Face, kind: str) -> None:
    bw = face(kind, work, worker_count=2)
    bw.add_work(*({"n": n} for n in range(5000)))
    for n in range(5000, 5100):
        bw.add_work({"n": n})
    assert sorted(result["n"] for result in bw.results()) == list(range(5100))


@pytest.mark.parametrize("size", [10_000, 300_000, 6_000_000])
def test_large_payloads(face: Face, kind: str, size: int) -> None:
    bw = face(kind, work, worker_count=2)
    bw.add_work(*({"n": n, "data": str(n) * size} for n in range(3)))
    found = {result["n"]: result["data"] for result in bw.results()}
    assert found == {n: str(n) * size for n in range(3)}


def test_errors_are_results(face: Face, kind: str) -> None:
    bw = face(kind, work, worker_count=1)
    asked = ("raise", "die", "exit", "own error", "nothing", "number")
    bw.add_work(*({"do": do, "n": 5} for do in asked))
    found = {result.job["do"]: result for result in bw.results()}
    assert found["raise"]["ERROR"] == found["raise"].error == "ValueError: rattle"
    assert found["raise"].error_kind == "exception"
    assert 'raise ValueError("rattle")' in (found["raise"].traceback or "")
    with pytest.raises(JobFailed, match="rattle"):
        found["raise"].raise_for_error()
    assert found["die"].error == "BossWorkerAsync: worker died (signal 9, SIGKILL)"
    assert (found["die"].error_kind, found["die"].signal) == ("crash", signal.SIGKILL)
    assert (found["exit"].error_kind, found["exit"].exit_code) == ("crash", 3)
    assert dict(found["own error"]) == {"ERROR": "so so", "n": 5}
    assert found["own error"].error_kind == "reported"
    assert dict(found["nothing"]) == {}
    assert found["nothing"].ok
    assert found["number"].error_kind == "bad_result"
    assert "int" in found["number"]["ERROR"]


def test_times_retries_and_priorities_are_the_jobs_own(face: Face, kind: str) -> None:
    bw = face(kind, work, worker_count=1, global_timeout=30.0)
    bw.add_work({"do": "sleep", "seconds": 60, "n": 0}, timeout=0.1)
    bw.add_work({"do": "die", "n": 1}, retries=2)
    bw.add_work({"n": 2}, priority=-1)
    bw.add_work({"n": 3}, priority=1)
    found = list(bw.results())
    results = {result.job["n"]: result for result in found}
    assert results[0]["ERROR"] == "BossWorkerAsync: timed out"
    assert results[0].error_kind == "timeout"
    assert results[1].attempts == 3
    order = [result.job["n"] for result in found]
    assert order.index(3) < order.index(1) < order.index(2)


def test_cancel(face: Face, kind: str) -> None:
    bw = face(kind, work, worker_count=1)
    (running,) = bw.add_work({"do": "sleep", "seconds": 60})
    wait_for(lambda: bw.stats().running == 1)
    queued = bw.add_work(*({"n": n} for n in range(3)))
    assert bw.cancel(*queued[1:], queued_only=True) == 2
    assert bw.cancel(running, *queued[1:], 999_999) == 1
    results = {result.job_id: result for result in bw.results()}
    assert results[running]["ERROR"] == "BossWorkerAsync: cancelled"
    assert results[queued[0]]["n"] == 0
    assert {results[job_id].error_kind for job_id in queued[1:]} == {"cancelled"}


@pytest.mark.parametrize("ordered", [True, False])
def test_map(face: Face, kind: str, ordered: bool) -> None:
    bw = face(kind, work, worker_count=2)
    (other,) = bw.add_work({"n": -1})
    found = [result["n"] for result in bw.map(({"n": n} for n in range(300)), ordered=ordered)]
    assert (found if ordered else sorted(found)) == list(range(300))
    assert bw.get_result().job_id == other
    few = bw.map({"n": n} for n in range(10**9))
    assert [next(few)["n"] for _ in range(5)] == list(range(5))
    few.close()
    bw.add_work({"n": 7})
    assert bw.get_result()["n"] == 7


def test_submit(face: Face, kind: str) -> None:
    bw = face(kind, work, worker_count=2)
    futures = [bw.submit({"n": n}) for n in range(20)]
    assert sorted(future.result()["n"] for future in as_completed(futures, timeout=60)) == list(range(20))
    long = bw.submit({"do": "sleep", "seconds": 60})
    assert long.cancel()
    assert bw.submit({"do": "raise"}).result(timeout=60).error == "ValueError: rattle"
    wait_for(lambda: bw.pending() == 0)


def test_bad_jobs_are_refused_whole(face: Face, kind: str) -> None:
    bw = face(kind, work, worker_count=1)
    with pytest.raises(TypeError, match="job 1 must be a mapping"):
        bw.add_work({"n": 1}, 17)
    with pytest.raises(TypeError, match="lock"):
        bw.add_work({"n": 1, "lock": threading.Lock()})
    with pytest.raises(ValueError, match="timeout"):
        bw.add_work({"n": 1}, timeout=-1)
    assert bw.pending() == 0


def test_fileno(face: Face, kind: str) -> None:
    bw = face(kind, work, worker_count=1)
    fd = bw.fileno()
    bw.add_work({"n": 1}, {"n": 2})
    seen = []
    while bw.pending():
        assert select.select([fd], [], [], 60)[0]
        while (result := bw.get_result_nb()) is not None:
            seen.append(result["n"])
    assert sorted(seen) == [1, 2]


def test_stats(face: Face, kind: str) -> None:
    bw = face(kind, work, worker_count=2)
    (job_id,) = bw.add_work({"do": "sleep", "seconds": 60})
    stats = wait_for(lambda: (told := bw.stats()).running and told)
    assert [worker.job_id for worker in stats.workers if worker.job_id is not None] == [job_id]
    assert f"job {job_id} for" in bw.stack(job_id)
    assert "in work" in bw.stack(job_id)
    assert bw.stack(job_id + 1) == ""
    assert f"job {job_id} for" in bw.stack()
    assert "in work" in bw.stack()
    assert len(bw.worker_pids) == 2
    assert bw.boss_pid > 0


def test_events(face: Face, kind: str) -> None:
    bw = face(kind, work, worker_count=1)
    events = bw.events()
    bw.add_work({"n": 1}, {"do": "raise"})
    assert sum(1 for _ in bw.results()) == 2
    ended: dict[int, bool] = {}
    while len(ended) < 2:
        event = next(events)
        if isinstance(event, JobEnded):
            ended[event.job_id] = event.ok
    assert ended == {1: True, 2: False}


def test_several_threads(face: Face, kind: str) -> None:
    bw = face(kind, work, worker_count=2)
    found: list[int] = []

    def add_and_get(start: int) -> None:
        for n in range(start, start + 20):
            bw.add_work({"n": n})
            found.append(bw.get_result()["n"])

    threads = [threading.Thread(target=add_and_get, args=(20 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(80))


def test_the_end_in_order_leaves_results(face: Face, kind: str) -> None:
    bw = face(kind, work, worker_count=2)
    bw.add_work(*({"n": n} for n in range(100)))
    bw.shut_down()
    with pytest.raises(PoolClosed):
        bw.add_work({"n": 1})
    assert sorted(result["n"] for result in bw.results()) == list(range(100))
    bw.shut_down()


def test_the_end_by_force_leaves_nothing(face: Face, kind: str) -> None:
    bw = face(kind, work, worker_count=2)
    bw.add_work(*({"do": "sleep", "seconds": 60} for n in range(100)))
    bw.shut_down(force=True)
    assert bw.pending() == 0
    with pytest.raises(PoolClosed):
        bw.add_work({"n": 1})


def test_an_exception_through_with_lets_handlers_tidy_up(face: Face, kind: str, tmp_path: Any) -> None:
    tidied = tmp_path / "tidied"

    def careful(job: dict[str, Any]) -> None:
        try:
            (tmp_path / "started").touch()
            time.sleep(60)
        finally:
            tidied.touch()

    bw = face(kind, careful, worker_count=1, kill_grace=10.0)
    bw.add_work({})
    wait_for((tmp_path / "started").exists)
    with pytest.raises(ZeroDivisionError), bw:
        raise ZeroDivisionError
    wait_for(tidied.exists)


def test_a_forked_child_is_refused(face: Face, kind: str) -> None:
    bw = face(kind, work, worker_count=1)
    if sys.version_info >= (3, 12) and threading.active_count() > 1:
        pytest.skip("a fork among threads warns")
    pid = os.fork()
    if pid == 0:
        try:
            bw.add_work({"n": 1})
        except PoolClosed:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    bw.add_work({"n": 2})
    assert bw.get_result()["n"] == 2
