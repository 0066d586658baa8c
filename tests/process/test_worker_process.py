"""A worker is a process like those of `multiprocessing`: what it inherits works, and so do its children."""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker
from tests.conftest import wait_for
from tests.process.programs import run_program

Pool = Callable[..., BossWorker]
METHODS = pytest.mark.parametrize("start_method", ["fork", "spawn"])


# -- what multiprocessing does after a fork ------------------------------------------------------------------------


def test_a_proxy_that_the_program_has_used_works_in_every_worker(tmp_path: Path) -> None:
    """Each needs a connection of its own: one that is shared mixes up everybody's answers."""
    program = """
        import multiprocessing as mp
        from bossworker import BossWorker

        def work(job):
            for i in range(200):
                job["d"][f"{job['k']}-{i}"] = i
            return {"seen": {shared["x"] for _ in range(200)}}

        with mp.get_context("fork").Manager() as manager:
            shared, d = manager.dict(x=7), manager.dict(n=0)
            shared["x"], d["n"]
            with BossWorker(work, worker_count=2) as pool:
                pool.add_work(*({"k": k, "d": d} for k in range(6)))
                for i in range(600):
                    d[f"program-{i}"] = i
                print([result.error or result["seen"] for result in pool.results()], len(d))
        """
    assert run_program(tmp_path, program) == f"{[{7}] * 6} {6 * 200 + 600 + 1}\n"


def test_a_queue_that_the_program_has_put_to_takes_what_workers_put() -> None:
    queue = multiprocessing.get_context("fork").Queue()
    queue.put(-1)  # starts a thread here, which is in no worker
    assert queue.get(timeout=20) == -1

    def put(job: dict[str, int]) -> None:
        queue.put(job["n"])

    with BossWorker(put, worker_count=2) as bw:
        bw.add_work(*({"n": n} for n in range(200)))
        list(bw.results())
        assert sorted(queue.get(timeout=20) for _ in range(200)) == list(range(200))
    queue.close()
    queue.join_thread()


def test_a_lock_that_the_program_holds_keeps_workers_out(pool: Pool) -> None:
    lock = multiprocessing.get_context("fork").RLock()

    def take(job: dict[str, Any]) -> dict[str, Any]:
        got = lock.acquire(False)
        if got:
            lock.release()
        return {"got": got}

    with lock:
        bw = pool(take, worker_count=1)
        bw.add_work({})
        assert bw.get_result() == {"got": False}
    bw.add_work({})
    assert bw.get_result() == {"got": True}


def test_finalizers_and_children_of_the_program_are_not_the_worker_s(pool: Pool, tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    mark = tmp_path / "finalized"
    finalizer = multiprocessing.util.Finalize(None, mark.touch, exitpriority=0)
    finalizer._pid = None  # type: ignore[attr-defined]  # whoever has it believes that it is its own
    sleeper = fork.Process(target=threading.Event().wait, daemon=True)
    sleeper.start()
    try:
        bw = pool(lambda job: {"children": multiprocessing.active_children()}, worker_count=1)
        bw.add_work({})
        assert bw.get_result() == {"children": []}
        bw.shut_down()
        assert not mark.exists()
        assert sleeper.is_alive()
    finally:
        finalizer.cancel()
        sleeper.terminate()
        sleeper.join()
        sleeper.close()


# -- who a worker is ---------------------------------------------------------------------------------------------------


def who(job: dict[str, Any]) -> dict[str, Any]:
    process = multiprocessing.current_process()
    parent = multiprocessing.parent_process()
    assert parent is not None
    record = logging.makeLogRecord({})
    logger = logging.getLogger("who").makeRecord("who", logging.INFO, "", 0, "", (), None)
    return {
        "name": process.name,
        "identity": process._identity,
        "parent": (parent.name, parent.pid, parent.is_alive()),
        "logged": (record.processName or logger.processName, logger.processName),
        "pid": process.pid == os.getpid(),
    }


@METHODS
def test_workers_have_names_which_their_successors_take(pool: Pool, start_method: str) -> None:
    bw = pool(who, worker_count=3, start_method=start_method)

    def names() -> dict[str, int]:
        bw.add_work(*[{"n": n} for n in range(100)])
        found = {}
        for result in bw.results():
            number = int(result["name"].removeprefix("BossWorker-"))
            assert result == {
                "name": f"BossWorker-{number}",
                "identity": (number,),
                "parent": ("MainProcess", os.getpid(), True),
                "logged": (f"BossWorker-{number}",) * 2,
                "pid": True,
            }
            found[result["name"]] = result.worker_pid
        return found

    everyone: dict[str, int] = {}
    wait_for(lambda: everyone.update(names()) or len(everyone) == 3)
    assert sorted(everyone) == ["BossWorker-1", "BossWorker-2", "BossWorker-3"]
    os.kill(everyone["BossWorker-2"], signal.SIGKILL)
    wait_for(lambda: names().get("BossWorker-2", everyone["BossWorker-2"]) != everyone["BossWorker-2"])


def test_a_worker_that_is_replaced_in_order_hands_on_its_name(pool: Pool) -> None:
    bw = pool(who, worker_count=1, max_jobs_per_worker=1)
    bw.add_work({}, {}, {})
    results = list(bw.results())
    assert len({result.worker_pid for result in results}) == 3
    assert {result["name"] for result in results} == {"BossWorker-1"}


def test_a_pool_that_grows_and_shrinks_gives_out_the_lowest_numbers(pool: Pool) -> None:
    bw = pool(who, worker_count=1)
    bw.resize(3)
    seen: dict[str, int] = {}

    def ask() -> bool:
        bw.add_work(*[{}] * 50)
        seen.update((result["name"], result.worker_pid) for result in bw.results())
        return len(seen) == 3

    wait_for(ask)
    assert sorted(seen) == ["BossWorker-1", "BossWorker-2", "BossWorker-3"]


def test_multiprocessing_may_be_loaded_by_a_handler(tmp_path: Path) -> None:
    program = """
        import sys
        from bossworker import BossWorker

        def name(job):
            import multiprocessing
            return {"name": multiprocessing.current_process().name}

        assert "multiprocessing" not in sys.modules
        with BossWorker(name, worker_count=1) as pool:
            pool.add_work({})
            pool.get_result()
            pool.add_work({})
            print(pool.get_result()["name"])
        """
    assert run_program(tmp_path, program) == "BossWorker-1\n"


# -- spawn -----------------------------------------------------------------------------------------------------------


def test_a_spawned_worker_has_the_program_s_arguments_and_key(tmp_path: Path) -> None:
    program = """
        import multiprocessing as mp, sys
        from bossworker import BossWorker

        def work(job):
            job["q"].put(1)
            shared["x"] = 2
            return {"argv": sys.argv[1:], "method": mp.get_start_method(allow_none=True)}

        if __name__ == "__main__":
            mp.set_start_method("spawn")
            with mp.get_context("fork").Manager() as manager:
                shared, queue = manager.dict(), manager.Queue()
                with BossWorker(work, worker_count=1, start_method="spawn") as pool:
                    pool.add_work({"q": queue})
                    print(pool.get_result(), queue.get(), shared["x"])
        """
    assert run_program(tmp_path, program, "-v", "now") == (
        "<Result of job 1, ok: {'argv': ['-v', 'now'], 'method': 'spawn'}> 1 2\n"
    )


def test_what_synchronises_processes_reaches_spawned_workers_in_the_handlers(tmp_path: Path) -> None:
    program = """
        import multiprocessing as mp
        from bossworker import BossWorker

        def program():
            context = mp.get_context("spawn")
            event, queue, lock, (reader, writer) = context.Event(), context.Queue(), context.Lock(), context.Pipe()

            def work(job, event=event):
                queue.put(("queued", job["n"]))
                writer.send(("piped", job["n"]))
                return {"set": event.wait(20), "got": lock.acquire(False)}

            pool = BossWorker(work, worker_count=1, start_method="spawn", max_jobs_per_worker=1)
            with lock, pool:
                event.set()
                pool.add_work({"n": 1}, {"n": 2})
                print(list(pool.results()), [queue.get() for _ in "12"], [reader.recv() for _ in "12"])
                del event, work
                pool.add_work({"n": 3})  # to a worker that is started when nobody else has the event any more
                print(pool.get_result())

        if __name__ == "__main__":
            program()
        """
    assert run_program(tmp_path, program) == (
        "[<Result of job 1, ok: {'set': True, 'got': False}>, <Result of job 2, ok: {'set': True, 'got': False}>] "
        "[('queued', 1), ('queued', 2)] [('piped', 1), ('piped', 2)]\n"
        "<Result of job 3, ok: {'set': True, 'got': False}>\n"
    )


def test_what_cannot_reach_a_worker_is_refused_with_advice(pool: Pool) -> None:
    lock = multiprocessing.get_context("fork").Lock()
    with pytest.raises(TypeError, match=r"work_handler must .* fork context .* spawn context.*use the same context"):
        BossWorker(lambda job: {"got": lock.acquire()}, worker_count=1, start_method="spawn")
    bw = pool(who, worker_count=1)
    with pytest.raises(TypeError, match=r"key 'lock' holds Lock .*: let the handlers refer to it.*Manager"):
        bw.add_work({"lock": lock})


THREAD_AT_IMPORT = """
import threading, time
lock = threading.Lock()

def loop():
    while True:
        with lock:
            time.sleep(0.02)
        time.sleep(0.001)

threading.Thread(target=loop, daemon=True).start()
"""


def test_a_thread_that_a_module_starts_is_each_spawned_worker_s_own(tmp_path: Path) -> None:
    (tmp_path / "thread_at_import.py").write_text(THREAD_AT_IMPORT)
    program = """
        import thread_at_import
        from bossworker import BossWorker

        def handle(job):
            with thread_at_import.lock:
                return {}

        if __name__ == "__main__":
            with BossWorker(handle, worker_count=2, start_method="spawn", global_timeout=20) as pool:
                pool.add_work(*[{}] * 8)
                print([result.error for result in pool.results()])
        """
    assert run_program(tmp_path, program) == f"{[None] * 8}\n"


# -- random numbers ------------------------------------------------------------------------------------------------


def draw(job: dict[str, Any]) -> dict[str, Any]:
    import random

    import numpy as np

    return {"python": random.random(), "numpy": float(np.random.random())}


@METHODS
def test_random_numbers_differ_from_worker_to_worker_and_from_job_to_job(pool: Pool, start_method: str) -> None:
    import numpy as np

    np.random.seed(7)
    bw = pool(draw, worker_count=2, start_method=start_method, max_jobs_per_worker=1)
    bw.add_work(*[{}] * 4)
    results = list(bw.results())
    for kind in ("python", "numpy"):
        assert len({result[kind] for result in results}) == 4


# -- children that a handler forks ----------------------------------------------------------------------------------


def fork_and(end: Callable[[], object]) -> int:
    """Fork; the exit code of the child that ends as told."""
    pid = os.fork()
    if pid == 0:
        end()
        return 0
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fail() -> None:
    raise ValueError("in the child")


ENDS = [
    (lambda: None, 0, ""),
    (lambda: sys.exit(3), 3, ""),
    (sys.exit, 0, ""),
    (lambda: sys.exit("no luck"), 1, "no luck\n"),
    (fail, 1, "ValueError: in the child\n"),
]


@pytest.mark.parametrize(("end", "code", "said"), ENDS)
@pytest.mark.parametrize("where", ["work", "init", "exit"])
def test_a_forked_child_that_comes_back_from_a_handler_ends_as_a_program_does(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], where: str, end: Callable[[], object], code: int, said: str
) -> None:
    path = tmp_path / "code"

    def fork(*job: object) -> None:
        path.write_text(str(fork_and(end)))

    handlers: dict[str, Any] = {"work_handler": who, f"{where}_handler": fork}
    with BossWorker(**handlers, worker_count=1) as bw:
        if where == "work":
            bw.add_work({})
            assert bw.get_result() == {}
    assert path.read_text() == str(code)
    err = capfd.readouterr().err
    assert err.endswith(said)
    assert err.count("Traceback") == (1 if end is fail else 0)
