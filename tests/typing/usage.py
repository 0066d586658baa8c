"""The public API as a program uses it that checks its types: mypy --strict has nothing to say.

What a call gives is asked for by ``assert_type``; nothing here is run.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict, assert_type

import bossworker
from bossworker import (
    AsyncBossWorker,
    BossDied,
    BossWorker,
    CommandHandler,
    CurrentJob,
    Result,
    Stats,
    current_job,
    job_key,
    jobs,
    run_command,
    tasks,
)
from bossworker.forkqueue import Call, ForkQueue, installed
from bossworker.tasks import Stream, Task, TaskPool


def square(job: Mapping[str, int]) -> dict[str, int]:
    return {"square": job["n"] ** 2}


class Number(TypedDict):
    n: int


class Root(TypedDict):
    root: float


def root(job: Number) -> Root | None:
    return {"root": job["n"] ** 0.5} if job["n"] else None


def nothing(job: dict[str, Any]) -> None:
    """A handler may return nothing."""


def checked(result: Result) -> Mapping[str, Any] | None:
    return result.raise_for_error()


def use_a_pool(path: Path) -> None:
    with BossWorker(square, worker_count=2, global_timeout=1.5, init_handler=list) as pool:
        ids = pool.add_work({"n": 1}, {"n": 2}, timeout=None, priority=3, retries=1)
        assert_type(ids[0], int)
        assert_type(pool.pending(), int)
        assert_type(pool, BossWorker[Mapping[str, int], dict[str, int]])
        assert_type(pool.get_result(), Result[dict[str, int]])
        assert_type(pool.get_result(timeout=1), Result[dict[str, int]] | None)
        assert_type(pool.get_result(blocking=False), Result[dict[str, int]] | None)
        assert_type(pool.get_result_nb(), Result[dict[str, int]] | None)
        assert_type(pool.submit({"n": 1}).result().raise_for_error().job_id, int)
        for result in pool.results():
            assert_type(result.job_id, int)
            assert_type(result.ok, bool)
            assert_type(result.error, str | None)
            assert_type(result.exception, BaseException | None)
            assert_type(result.duration, float)
            assert_type(result.raise_for_error(), Result[dict[str, int]])
            assert_type(
                result.error_kind,
                None
                | Literal["exception", "timeout", "crash", "cancelled", "bad_result", "bad_job", "memory", "reported"]
                | Literal["interrupted"],
            )
        for result in pool.map(({"n": n} for n in range(10)), ordered=False, timeout=2):
            assert_type(result, Result[dict[str, int]])
        assert_type(pool.cancel(*ids), int)
        assert_type(pool.stats(), Stats)
        assert_type(pool.stats().workers[0].rss, int)
        assert_type(pool.stats().workers[0].state, Literal["starting", "idle", "busy", "leaving"])
        assert_type(pool.stack(3), str)
        assert_type(pool.name, str)
        pool.pause()
        pool.resume()
        pool.reload(square, init_handler=None)
        assert_type(pool.fileno(), int)
        pool.resize(3)
        pool.shut_down(force=True, timeout=1)
    with BossWorker(square, result_handler=checked) as handled:  # what becomes of an answer is not known
        assert_type(handled, BossWorker[Mapping[str, int], Any])


def use_other_pools(path: Path) -> None:
    with BossWorker(lambda job: {"n": job["n"]}) as quick:
        assert_type(quick, BossWorker[Any, dict[str, Any]])
    with BossWorker(nothing) as empty:
        assert_type(empty.get_result().raise_for_error().job_id, int)
    with BossWorker(root, name="roots", max_job_memory=1 << 20, start_method="spawn") as roots:
        assert_type(roots, BossWorker[Number, Root])
        roots.add_work({"n": 1}, {"n": 2})
        assert_type(roots.get_result(), Result[Root])
        assert_type(roots.get_result().job_id, int)
        assert_type(roots.get_result().raise_for_error(), Root)
        assert_type(roots.get_result()["root"], float)
        assert_type(roots.get_result()["ERROR"], str)
        for answer in roots.map({"n": n} for n in range(3)):
            assert_type(answer.raise_for_error()["root"], float)
        use_any(roots, roots.get_result())
    job = current_job()
    assert_type(job, CurrentJob | None)
    if job is not None:
        job.progress(job.worker_index, 1.5, "text")
    try:
        BossWorker(run_command).add_work({"cmd": ["ls", path], "meta": {"a": 1}})
    except BossDied as death:
        assert_type(death.unfinished[0].job_id, int)
    BossWorker(CommandHandler(root=path, keep="failed", inline_output=1000))
    assert_type(job_key({"n": 1}), str)
    assert_type(bossworker.__version__, str)


async def use_a_pool_on_a_loop() -> None:
    async with AsyncBossWorker(root, worker_count=2) as pool:
        assert_type(await pool.run({"n": 1}), Result[Root])
        async for result in pool.map({"n": n} for n in range(3)):
            assert_type(result.raise_for_error(), Root)
        await pool.pause()
        await pool.resume()
        await pool.reload(root)
        assert_type(await pool.stack(), str)
        assert_type(await pool.stats(), Stats)


def use_any(pool: BossWorker, result: Result) -> None:
    """What takes any pool takes one of TypedDicts, too."""
    assert_type(pool.get_result().raise_for_error().job_id, int)
    assert_type(result.raise_for_error().job_id, int)
    pool.get_result().raise_for_error()["n"] = 3


def use_jobs(path: Path) -> None:
    jobid = jobs.start(["sleep", path], timeout=3, env={"A": "b", "C": None}, cwd=path, meta={"name": "x"})
    assert_type(jobid, str)
    assert_type(jobs.status(jobid), jobs.Status)
    assert_type(jobs.wait(jobid, 3), jobs.Status)
    assert_type(jobs.stdout(jobid), str)
    assert_type(jobs.stdout(jobid, text=False), bytes)
    assert_type(jobs.follow(jobid), Iterator[str])
    assert_type(jobs.result(jobid, "file"), str | None)
    assert_type(jobs.info(jobid), jobs.Info | None)
    assert_type(jobs.signal(jobid, signal.SIGTERM), bool)
    assert_type(jobs.listing(root=path), list[str])
    assert_type(bossworker.jobs.details(jobid), list[str])


def use_tasks(path: Path) -> None:
    pool = TaskPool(path, mkdir_if_missing=True)
    task = pool.spawn(["cat"], behavior="daemon", meta={"name": "x"}, retain_output=1 << 20)
    assert_type(task, Task)
    assert_type(pool.search({"meta": {"name": "x"}}), list[Task])
    assert_type(pool.search(lambda info: bool(info["pid"])), list[Task])
    assert_type(pool.task_by_pid(1), Task | None)
    assert_type(task.stream("stdout"), Stream)
    assert_type(task.stream(0).write(b"text"), int)
    assert_type(task.kill("TERM"), bool)
    assert_type(task.wait(3), dict[str, Any] | None)
    assert_type(tasks.search(), list[Task])


def use_a_fork_queue() -> None:
    with ForkQueue(4, delay=0.1) as queue:
        assert_type(queue.fork(), int)
        assert_type(queue.system_back("ls", "-l"), int | None)
        assert_type(queue.call(len, "four"), Call[int])
        assert_type(queue.all_exit_ok(1, None), bool)
    with installed(size=4):
        pass
