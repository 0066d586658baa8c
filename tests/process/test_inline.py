"""``worker_count=0``: jobs run in this process, in the thread that waits; all else is as in any pool."""

from __future__ import annotations

import bdb
import os
import pdb
import select
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import as_completed
from pathlib import Path
from typing import Any

import pytest

from bossworker import (
    CANCELLED,
    AsyncBossWorker,
    BossWorker,
    CurrentJob,
    Executor,
    NothingPending,
    PoolClosed,
    Result,
    ResultHandlerError,
    WorkerStartError,
    current_job,
    run_command,
)
from bossworker.system import processes
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]
ran: list[Any] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    ran.clear()


def work(job: dict[str, Any]) -> Any:
    ran.append(job.get("n"))
    if "raise" in job:
        raise job["raise"]
    return {"n": job.get("n"), "thread": threading.get_ident()}


def inline(pool: Pool, handler: Any = work, **settings: Any) -> BossWorker:
    return pool(handler, worker_count=0, **settings)


def test_a_job_runs_here_and_when_it_is_asked_for(pool: Pool) -> None:
    before = processes.children(os.getpid())
    bw = inline(pool)
    ids = bw.add_work({"n": 1}, {"n": 2})
    assert (list(ids), ran, bw.pending(), bw.stats().queued) == ([1, 2], [], 2, 2)
    result = bw.get_result()
    assert (dict(result), ran) == ({"n": 1, "thread": threading.get_ident()}, [1])
    assert (result.job_id, result.worker_pid, result.attempts, result.ok) == (1, os.getpid(), 1, True)
    assert 0 <= result.duration < 10
    assert result.queued_at <= result.started_at <= result.finished_at <= time.time() + 1
    assert [r["n"] for r in bw.results()] == [2]
    assert processes.children(os.getpid()) == before
    assert (bw.boss_pid, bw.worker_pids) == (os.getpid(), ())
    assert isinstance(bw, BossWorker)
    with pytest.raises(NothingPending):
        bw.get_result()


def test_get_result_nb_makes_headway(pool: Pool) -> None:
    bw = inline(pool)
    assert bw.get_result_nb() is None
    bw.add_work(*[{"n": n} for n in range(5)])
    found = []
    while bw.pending():
        found.append(bw.get_result_nb())
    assert [r["n"] for r in found if r is not None] == list(range(5))


def test_map_takes_no_more_than_it_needs(pool: Pool) -> None:
    bw = inline(pool)
    taken = []

    def jobs() -> Any:
        n = 0
        while True:
            taken.append(n)
            yield {"n": n}
            n += 1

    results = bw.map(jobs())
    assert [next(results)["n"] for _ in range(10)] == list(range(10))
    results.close()
    assert len(ran) == 10
    assert len(taken) < 50
    assert (bw.pending(), bw.stats().queued) == (0, 0)
    assert [r["n"] for r in bw.map([{"n": n} for n in range(100)], ordered=False)] == list(range(100))


def test_futures_run_when_they_are_asked(pool: Pool) -> None:
    bw = inline(pool)
    first, second = bw.submit({"n": 1}), bw.submit({"n": 2})
    bw.add_work({"n": 3})
    assert second.result()["n"] == 2
    assert first.done()
    assert ran == [1, 2]
    assert bw.get_result()["n"] == 3
    many = [bw.submit({"n": n}) for n in range(20)]
    assert sorted(f.result()["n"] for f in as_completed(many)) == list(range(20))
    dropped = bw.submit({"n": "never"})
    assert dropped.cancel()
    assert "never" not in ran


def test_errors_are_results(pool: Pool) -> None:
    bw = inline(pool)
    bw.add_work({"raise": ValueError("rattle")}, {"raise": SystemExit(3)})
    first, second = bw.results()
    assert (first["ERROR"], first.error_kind) == ("ValueError: rattle", "exception")
    assert "in work" in (first.traceback or "")
    assert "inline_pool" not in (first.traceback or "")
    assert isinstance(first.exception, ValueError)
    assert second.error_kind == "exception"
    bw.reload(lambda job: 5)  # type: ignore[arg-type, return-value]
    bw.add_work({})
    assert bw.get_result().error_kind == "bad_result"
    bw.reload(lambda job: {"lock": threading.Lock()})
    bw.add_work({})
    assert bw.get_result().error_kind == "bad_result"
    with pytest.raises(TypeError, match="job 1 cannot be pickled"):
        bw.add_work({}, {"lock": threading.Lock()})
    assert bw.pending() == 0
    assert (bw.stats().done, bw.stats().failed) == (0, 4)


def test_priorities_and_cancelling(pool: Pool) -> None:
    bw = inline(pool)
    _, never = bw.add_work({"n": "low"}, {"n": "never"})
    bw.add_work({"n": "high"}, priority=1)
    assert bw.cancel(never) == 1
    results = list(bw.results())
    assert ran == ["high", "low"]
    assert [r.error for r in results if not r.ok] == [CANCELLED]
    assert bw.cancel(never) == 0


def test_init_and_exit_handlers_run_here(pool: Pool) -> None:
    bw = inline(pool, init_handler=lambda: ran.append("init"), exit_handler=lambda: ran.append("exit"))
    bw.add_work({"n": 1}, {"n": 2})
    bw.shut_down()
    assert ran == ["init", 1, 2, "exit"]
    assert [r["n"] for r in bw.results()] == [1, 2]
    bw.shut_down()
    with pytest.raises(PoolClosed):
        bw.add_work({})


def test_an_init_that_fails_is_told_of() -> None:
    with pytest.raises(WorkerStartError, match="ValueError: no database") as raised:
        BossWorker(work, worker_count=0, init_handler=lambda: work({"raise": ValueError("no database")}))
    assert "in work" in str(raised.value)


@pytest.mark.filterwarnings("default")
def test_an_exit_handler_that_fails_is_warned_of(pool: Pool, capfd: pytest.CaptureFixture[str]) -> None:
    bw = inline(pool, exit_handler=lambda: work({"raise": ValueError("late")}))
    with pytest.warns(RuntimeWarning, match="exit_handler raised in one worker: ValueError: late"):
        bw.shut_down()
    assert "in work" in capfd.readouterr().err


def test_a_forced_end_runs_nothing(pool: Pool) -> None:
    bw = inline(pool, exit_handler=lambda: ran.append("exit"))
    bw.add_work({"n": 1})
    future = bw.submit({"n": 2})
    bw.shut_down(force=True)
    assert (ran, bw.pending()) == ([], 0)
    with pytest.raises(PoolClosed):
        future.result()


def test_an_exception_through_the_block_runs_nothing_more() -> None:
    with pytest.raises(ZeroDivisionError), BossWorker(work, worker_count=0) as bw:
        bw.add_work({"n": 1}, timeout=1 / 0)
    bw = BossWorker(work, worker_count=0)
    bw.add_work({"n": 1})
    bw.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert ran == []


@pytest.mark.parametrize("quitting", [KeyboardInterrupt(), bdb.BdbQuit()])
def test_who_quits_a_job_quits_what_asked_for_it(pool: Pool, quitting: BaseException) -> None:
    bw = inline(pool)
    bw.add_work({"n": 1, "raise": quitting}, {"n": 2})
    with pytest.raises(type(quitting)):
        bw.get_result()
    first, second = bw.results()
    assert (first.error_kind, second["n"], ran) == ("exception", 2, [1, 2])


def test_the_job_knows_itself(pool: Pool) -> None:
    def tell(job: dict[str, Any]) -> dict[str, Any]:
        me = current_job()
        assert isinstance(me, CurrentJob)
        me.progress(1, 2, "half")
        return {"id": me.id, "index": me.worker_index, "attempt": me.attempt, "deadline": me.deadline is not None}

    bw = inline(pool, tell)
    bw.add_work({}, timeout=5)
    assert dict(bw.get_result()) == {"id": 1, "index": 0, "attempt": 1, "deadline": True}
    assert current_job() is None


def test_pause_and_reload(pool: Pool) -> None:
    bw = inline(pool, exit_handler=lambda: ran.append("old exit"))
    bw.add_work({"n": 1})
    bw.pause()
    assert bw.stats().paused
    assert bw.get_result(timeout=0.05) is None
    with pytest.raises(WorkerStartError, match="old handlers"):
        bw.reload(init_handler=lambda: work({"raise": ValueError("new")}))
    bw.reload(lambda job: {"by": "new"}, init_handler=lambda: ran.append("init"), exit_handler=None)
    bw.resume()
    assert bw.get_result()["by"] == "new"
    assert ran[-2:] == ["init", "old exit"]
    with pytest.raises(ValueError, match="inline"):
        bw.resize(2)


def test_fileno_is_readable_while_there_is_something_to_do(pool: Pool) -> None:
    bw = inline(pool)
    fd = bw.fileno()
    assert select.select([fd], [], [], 0) == ([], [], [])
    bw.add_work({"n": 1}, {"n": 2})
    for n in (1, 2):
        assert select.select([fd], [], [], 5)[0] == [fd]
        result = bw.get_result_nb()
        assert result is not None
        assert result["n"] == n
    assert bw.get_result_nb() is None
    assert select.select([fd], [], [], 0) == ([], [], [])


def test_max_pending_runs_jobs_to_make_room(pool: Pool) -> None:
    bw = inline(pool, max_pending=3)
    bw.add_work(*[{"n": n} for n in range(10)])
    assert len(ran) >= 7
    assert [r["n"] for r in bw.results()] == list(range(10))


def test_several_threads_run_one_job_at_a_time(pool: Pool) -> None:
    inside = []

    def alone(job: dict[str, Any]) -> dict[str, Any]:
        inside.append(1)
        time.sleep(0.002)
        assert inside == [1]
        inside.clear()
        return {}

    bw = inline(pool, alone)
    bw.add_work(*[{"n": n} for n in range(60)])
    results: list[Result] = []
    threads = [threading.Thread(target=lambda: results.extend(bw.results())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 60
    assert all(r.ok for r in results)


def test_another_thread_sees_what_a_job_does(pool: Pool) -> None:
    go = threading.Event()

    def wait_here(job: dict[str, Any]) -> dict[str, Any]:
        go.wait(20)
        return {}

    bw = inline(pool, wait_here)
    (job_id,) = bw.add_work({})
    thread = threading.Thread(target=bw.get_result)
    thread.start()
    wait_for(lambda: bw.stats().running and "in wait_here" in bw.stack(job_id))
    assert bw.stack(job_id + 1) == ""
    assert bw.cancel(job_id) == 0
    go.set()
    thread.join()
    assert bw.stack() == ""


def test_a_handler_that_waits_for_its_own_pool_is_told(pool: Pool) -> None:
    def ask(job: dict[str, Any]) -> Mapping[str, Any]:
        bw.add_work({})
        return bw.get_result()

    bw = inline(pool, ask)
    bw.add_work({})
    assert "inline (worker_count=0)" in str(bw.get_result().error)
    bw.shut_down(force=True)


def test_a_result_handler_is_called_as_ever(pool: Pool) -> None:
    bw = inline(pool, result_handler=lambda result: {"doubled": 2 * result["n"]})
    bw.add_work({"n": 4}, {"n": None})
    assert dict(bw.get_result()) == {"doubled": 8}
    with pytest.raises(ResultHandlerError):
        bw.get_result()


def test_large_jobs_and_results(pool: Pool) -> None:
    bw = inline(pool, lambda job: {"data": job["data"] + b"!"})
    data = os.urandom(3 << 20)
    bw.add_work({"data": data}, {"data": b"small"})
    assert [r["data"] for r in bw.results()] == [data + b"!", b"small!"]


def test_a_command_runs_too(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOSSWORKER_ROOT", str(tmp_path))
    bw = inline(pool, run_command)
    bw.add_work({"cmd": ["echo", "hello"]}, {"cmd": ["sleep", "60"], "timeout": 0.1})
    first, second = bw.results()
    assert (first["stdout"], second.error_kind) == ("hello\n", "timeout")


def test_an_executor_may_stand_on_it(pool: Pool) -> None:
    bw = inline(pool)
    with Executor(pool=bw) as executor:
        assert executor.submit(divmod, 7, 2).result() == (3, 1)
        assert list(executor.map(abs, [-1, -2])) == [1, 2]
        with pytest.raises(ZeroDivisionError):
            executor.submit(divmod, 7, 0).result()


def test_an_event_loop_has_none() -> None:
    with pytest.raises(ValueError, match="worker_count of an AsyncBossWorker must be at least 1, not 0"):
        AsyncBossWorker(work, worker_count=0)


def test_a_subclass_has_none() -> None:
    class Own(BossWorker[Any, Any]):
        pass

    with pytest.raises(ValueError, match=r"subclass of BossWorker \(Own\) must be at least 1, not 0"):
        Own(work, worker_count=0)


@pytest.mark.parametrize("logs", ["relay", "discard"])
def test_its_output_goes_where_the_program_s_goes(pool: Pool, logs: str) -> None:
    with pytest.raises(ValueError, match=f"logs must be 'inherit' in an inline pool, not '{logs}'"):
        inline(pool, logs=logs)
    assert not ran


def test_nobody_watches_it(pool: Pool, tmp_path: Path) -> None:
    bw = inline(pool)
    with pytest.raises(ValueError, match="has no events"):
        bw.events()
    with pytest.raises(ValueError, match="has no events"):
        bw.trace(tmp_path / "trace.json")


def test_a_fork_has_no_part_in_it(pool: Pool) -> None:
    bw = inline(pool)
    bw.add_work({"n": 1})
    pid = os.fork()
    if pid == 0:
        try:
            bw.add_work({})
        except PoolClosed:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert bw.get_result()["n"] == 1


def test_pdb_works_in_a_handler(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        from bossworker import BossWorker

        def work(job):
            secret = job["n"] * 111
            breakpoint()
            return {"n": secret}

        with BossWorker(work, worker_count=0) as pool:
            pool.add_work({"n": 3})
            print("got", pool.get_result()["n"])
        """)
    )
    assert pdb
    told = subprocess.run(
        [sys.executable, script], input="p secret\nc\n", capture_output=True, text=True, timeout=60, check=True
    )
    assert "(Pdb) 333" in told.stdout
    assert "got 333" in told.stdout


@pytest.mark.parametrize("bad", [False, -1, 0.0])
def test_only_zero_means_inline(bad: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="worker_count must be an int"):
        BossWorker(work, worker_count=bad)
