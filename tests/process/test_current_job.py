"""``current_job()``: what a handler knows of its job, and how far it says that it is."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from bossworker import BossWorker, CurrentJob, JobTimeout, current_job
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]


def present() -> CurrentJob:
    job = current_job()
    assert job is not None
    return job


def tell(job: dict[str, Any]) -> dict[str, Any]:
    now = present()
    return {"id": now.id, "attempt": now.attempt, "index": now.worker_index, "deadline": now.deadline}


def test_there_is_none_outside_of_a_pool() -> None:
    assert current_job() is None
    assert tell.__name__ == "tell"


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_handler_knows_its_job(pool: Pool, start_method: str) -> None:
    bw = pool(tell, worker_count=2, start_method=start_method)
    ids = bw.add_work(*[{"n": n} for n in range(500)])
    results = list(bw.results())
    assert sorted(r["id"] for r in results) == list(ids)
    assert all(r["id"] == r.job_id for r in results)
    assert {r["attempt"] for r in results} == {1}
    assert {r["index"] for r in results} <= {0, 1}
    assert {r["deadline"] for r in results} == {None}


def test_the_deadline_is_when_its_time_is_up(pool: Pool) -> None:
    bw = pool(tell, worker_count=1, global_timeout=1000)
    before = time.monotonic()
    bw.add_work(*[{"n": n} for n in range(100)])
    bw.add_work({}, timeout=5)
    *many, one = [r["deadline"] for r in bw.results()]
    after = time.monotonic()
    assert all(before + 1000 <= deadline <= after + 1000 for deadline in many)
    assert many == sorted(many)
    assert before + 5 <= one <= after + 5


def die_once(job: dict[str, Any]) -> dict[str, Any]:
    if present().attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return tell(job)


def test_the_attempt_is_counted(pool: Pool) -> None:
    bw = pool(die_once, worker_count=2, retries=1)
    bw.add_work({}, {}, {})
    assert [r["attempt"] for r in bw.results()] == [2, 2, 2]


index_at_start: CurrentJob | None = None


def note_index() -> None:
    global index_at_start
    index_at_start = current_job()


def compare(job: dict[str, Any]) -> dict[str, Any]:
    if job.get("die"):
        os._exit(3)
    assert index_at_start is not None
    return {"at_start": index_at_start.worker_index, "id": index_at_start.id, "now": present().worker_index}


def test_a_successor_has_the_index_of_the_worker_that_died(pool: Pool) -> None:
    bw = pool(compare, worker_count=3, init_handler=note_index)
    for _ in range(4):
        bw.add_work({"die": True}, {"die": True})
        assert [r.error_kind for r in bw.results()] == ["crash", "crash"]
    wait_for(lambda: sorted(w.index for w in bw.stats().workers if w.state != "starting") == [0, 1, 2])
    bw.add_work(*[{"n": n} for n in range(200)])
    results = list(bw.results())
    assert {r["at_start"] - r["now"] for r in results} == {0}
    assert {r["id"] for r in results} == {0}


def test_one_that_leaves_after_so_many_jobs_passes_its_index_on(pool: Pool) -> None:
    bw = pool(tell, worker_count=2, max_jobs_per_worker=1)
    bw.add_work(*[{} for _ in range(20)])
    results = list(bw.results())
    assert len({r.worker_pid for r in results}) == 20
    assert {r["index"] for r in results} <= {0, 1}


def nap(job: dict[str, Any]) -> dict[str, Any]:
    time.sleep(job["seconds"])
    return {}


def test_with_fewer_workers_those_with_low_numbers_stay(pool: Pool) -> None:
    bw = pool(nap, worker_count=4)
    bw.add_work(*[{"seconds": 0.3}] * 4)
    wait_for(lambda: bw.stats().running == 4)
    bw.resize(2)
    list(bw.results())
    wait_for(lambda: sorted(w.index for w in bw.stats().workers) == [0, 1])


def write_index(folder: str) -> Callable[[], None]:
    def leave() -> None:
        with open(f"{folder}/{present().worker_index}", "w") as file:
            file.write(str(present().id))

    return leave


def test_an_exit_handler_knows_the_index_too(pool: Pool, tmp_path: Any) -> None:
    with pool(tell, worker_count=2, exit_handler=write_index(str(tmp_path))):
        pass
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"0": "0", "1": "0"}


def ask_elsewhere(job: dict[str, Any]) -> dict[str, Any]:
    told: list[int] = []
    thread = threading.Thread(target=lambda: told.append(present().id))
    thread.start()
    thread.join()
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, repr(current_job()).encode())
        os._exit(0)
    os.wait()
    in_child = os.read(read, 100).decode()
    os.close(read)
    os.close(write)
    return {"in_thread": told, "in_child": in_child}


def test_its_threads_know_it_and_its_children_do_not(pool: Pool) -> None:
    bw = pool(ask_elsewhere, worker_count=1)
    (job_id,) = bw.add_work({})
    assert dict(bw.get_result()) == {"in_thread": [job_id], "in_child": "None"}


def tidy_up(job: dict[str, Any]) -> dict[str, Any]:
    try:
        time.sleep(60)
    except JobTimeout:
        return tell(job)
    return {}


def test_it_is_there_while_a_handler_tidies_up(pool: Pool) -> None:
    bw = pool(tidy_up, worker_count=1)
    (job_id,) = bw.add_work({}, timeout=0.05)
    assert bw.get_result()["id"] == job_id


# -- progress -----------------------------------------------------------------------------------------------------


def work_slowly(job: dict[str, Any]) -> dict[str, Any]:
    present().progress(1, 4, "begun")
    if job.get("quiet"):
        return {}
    time.sleep(60)
    return {}


def test_progress_is_seen_while_the_job_runs(pool: Pool) -> None:
    bw = pool(work_slowly, worker_count=1)
    (job_id,) = bw.add_work({})
    worker = wait_for(lambda: [w for w in bw.stats().workers if w.progress is not None])[0]
    assert (worker.job_id, worker.progress) == (job_id, (1, 4, "begun"))
    assert (worker.progress.done, worker.progress.total, worker.progress.text) == (1, 4, "begun")


def keep_the_first(job: dict[str, Any]) -> dict[str, Any]:
    global index_at_start
    first, index_at_start = index_at_start, present()
    if first is not None:
        first.progress(99)
        time.sleep(60)
    return {}


def test_what_is_said_of_a_job_that_has_ended_is_dropped(pool: Pool) -> None:
    bw = pool(keep_the_first, worker_count=1)
    bw.add_work({}, {})
    wait_for(lambda: bw.stats().running)
    bw.get_result()
    wait_for(lambda: bw.stats().workers[0].seconds > 0.2)
    assert bw.stats().workers[0].progress is None


def test_in_an_init_handler_progress_does_nothing(pool: Pool) -> None:
    pool(tell, worker_count=1, init_handler=lambda: present().progress(1, 2, "loading"))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("1",), TypeError),
        ((True,), TypeError),
        ((1, "2"), TypeError),
        ((1, 2, 3), TypeError),
        ((math.nan,), ValueError),
        ((1, math.inf), ValueError),
        ((10**400,), ValueError),
    ],
)
def test_bad_arguments_are_named(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    job = CurrentJob(1, 1, 0, None, lambda job_id, progress: None)
    with pytest.raises(error, match=r"done|total|text"):
        job.progress(*arguments)
