"""A journal below an event loop: what an earlier owner has left, jobs that are there already, and a full disk."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bossworker import INTERRUPTED, AsyncBossWorker, BossDied, JournalError, Result
from bossworker import journal as journals
from tests.conftest import wait_for
from tests.journal.programs import Program
from tests.journal.test_files import disk, fill
from tests.journal.test_recovery import note, ran

__all__ = ["disk"]

BODY = """
    import asyncio
    from bossworker import AsyncBossWorker

    async def main():
        async with AsyncBossWorker(note, worker_count=1, journal=path) as pool:
            tasks = [
                asyncio.ensure_future(pool.run({"n": n, "log": log, "seconds": 60 * (n == 5)})) for n in range(12)
            ]
            for task in tasks[:5]:
                await task
            await pool.stats()  # has it told which results are here
            tell([task.result()["n"] for task in tasks[:5]])
            await asyncio.gather(*tasks)

    asyncio.run(main())
"""


async def with_pool(use: Any, journal: Path, **settings: Any) -> Any:
    async with AsyncBossWorker(note, worker_count=1, journal=journal, **settings) as pool:
        return await use(pool)


async def rest(pool: AsyncBossWorker[Any, Any]) -> list[Result[Any]]:
    """What an earlier owner has left: jobs that nobody here awaits."""
    return await asyncio.to_thread(lambda: list(pool.pool.results()))


def killed(journal: Path, log: Path) -> None:
    """A program on a loop that had five results, was at its sixth job, and had six more to be run."""
    program = Program(BODY, journal, log)
    assert program.told() == [0, 1, 2, 3, 4]
    wait_for(lambda: ran(log)[5])
    program.kill()


def test_what_a_loop_has_left_comes_once(tmp_path: Path) -> None:
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    killed(journal, log)
    results = asyncio.run(with_pool(rest, journal))
    kinds = {result.job["n"]: result.error for result in results}
    assert len(kinds) == len(results)
    assert {n: kinds[n] for n in range(5, 12)} == {5: INTERRUPTED, **dict.fromkeys(range(6, 12))}
    assert not any(kinds[n] for n in kinds if n < 5)  # what it had got just now may come again
    assert asyncio.run(with_pool(rest, journal)) == []
    assert ran(log) == Counter(range(12))


def test_what_runs_again_on_a_loop(tmp_path: Path) -> None:
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    killed(journal, log)

    async def use(pool: AsyncBossWorker[Any, Any]) -> list[Result[Any]]:
        own = await pool.run({"n": 99, "log": str(log)})  # comes behind what is there, and to whoever awaits it
        return [own, *await rest(pool)]

    own, *others = asyncio.run(with_pool(use, journal, interrupted="rerun"))
    assert own["n"] == 99
    kinds = {result.job["n"]: (result.error_kind, result.attempts) for result in others}
    assert kinds[5] == (None, 2)
    assert [kinds[n] for n in range(6, 12)] == [(None, 1)] * 6
    assert 99 not in kinds


def test_jobs_are_resumed_by_their_keys_and_come_once(tmp_path: Path) -> None:
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    jobs = [{"n": n, "log": str(log), "seconds": 0} for n in range(12)]
    jobs[5]["seconds"] = 60
    killed(journal, log)
    jobs[5]["seconds"] = 0  # so it is another job

    async def use(pool: AsyncBossWorker[Any, Any]) -> tuple[list[Result[Any]], list[Result[Any]]]:
        def resumed() -> list[Result[Any]]:
            return list(pool.pool.map(jobs, resume=True))

        return await asyncio.to_thread(resumed), await rest(pool)

    resumed, others = asyncio.run(with_pool(use, journal))
    assert [result["n"] for result in resumed] == list(range(12))
    assert all(result.stored for result in resumed[:5])
    assert [(result.job["n"], result.error) for result in others] == [(5, INTERRUPTED)]
    assert ran(log) == Counter([*range(12), 5])
    again, others = asyncio.run(with_pool(use, journal))
    assert all(result.stored for result in again)
    assert others == []
    assert ran(log) == Counter([*range(12), 5])


def test_on_a_full_disk_awaited_jobs_are_refused_and_the_loop_goes_on(disk: Path, tmp_path: Path) -> None:
    log = str(tmp_path / "log")

    async def use(pool: AsyncBossWorker[Any, Any]) -> list[Result[Any]]:
        await pool.pause()
        ballast = fill(disk)
        refused = await pool.run({"n": 1, "log": log, "more": "x" * 3_000_000})
        assert (await pool.stats()).paused
        ballast.unlink()
        await pool.resume()
        return [refused, await pool.run({"n": 2, "log": log})]

    refused, good = asyncio.run(with_pool(use, disk / "jobs.db"))
    assert refused.error_kind == "bad_job"
    assert refused.error is not None
    assert "the journal did not take the job" in refused.error
    assert good["n"] == 2
    assert ran(Path(log)) == Counter([2])
    assert journals.open(disk / "jobs.db").counts()["done"] == 1


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_what_a_loop_awaits_is_on_the_disk_before_it_runs(tmp_path: Path, start_method: Any) -> None:
    journal, log = tmp_path / "jobs.db", tmp_path / "log"

    async def use(pool: AsyncBossWorker[Any, Any]) -> None:
        await pool.pause()
        tasks = [asyncio.ensure_future(pool.run({"n": n, "log": str(log)})) for n in range(3)]
        deadline = time.monotonic() + 20
        while (await asyncio.to_thread(journals.open(journal).counts))["queued"] < 3:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)
        assert not log.exists()
        await pool.resume()
        assert [(await task)["n"] for task in tasks] == [0, 1, 2]

    asyncio.run(with_pool(use, journal, start_method=start_method))
    assert all(job.retrieved for job in journals.open(journal).jobs())


def test_run_and_map_resume_without_a_thread(tmp_path: Path) -> None:
    """What has a good result is not run; what an earlier owner left comes once; `results` gives what nobody awaits."""
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    jobs = [{"n": n, "log": str(log), "seconds": 0} for n in range(12)]
    jobs[5]["seconds"] = 60
    killed(journal, log)

    async def use(pool: AsyncBossWorker[Any, Any]) -> tuple[list[Result[Any]], list[Result[Any]]]:
        threads = threading.active_count()
        one = await pool.run(jobs[0], resume=True)
        more = [result async for result in pool.map(jobs[6:], resume=True, ordered=True)]
        new = await asyncio.gather(*[pool.run({"n": n, "log": str(log)}, resume=True) for n in (20, 21)])
        assert threading.active_count() == threads
        return [one, *more, *new], [result async for result in pool.results()]

    resumed, others = asyncio.run(with_pool(use, journal))
    assert [result["n"] for result in resumed] == [0, *range(6, 12), 20, 21]
    assert [resumed[at].stored for at in (0, -2, -1)] == [True, False, False]
    kinds = {result.job["n"]: result.error for result in others}
    assert len(kinds) == len(others)
    assert kinds[5] == INTERRUPTED
    assert set(kinds) <= {1, 2, 3, 4, 5}  # what it had got just now may come again; 0 was taken for ours
    again, others = asyncio.run(with_pool(use, journal))
    assert all(result.stored for result in again)
    assert others == []
    assert ran(log) == Counter([*range(12), 20, 21])


def test_what_is_cancelled_while_the_journal_is_asked_never_comes(tmp_path: Path) -> None:
    journal, log = tmp_path / "jobs.db", tmp_path / "log"

    async def use(pool: AsyncBossWorker[Any, Any]) -> None:
        await pool.pause()
        for wait in range(8):
            task = asyncio.ensure_future(pool.run({"n": wait, "log": str(log)}, resume=True))
            for _ in range(wait):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await pool.resume()
        assert (await pool.run({"n": 100, "log": str(log)}))["n"] == 100

    asyncio.run(with_pool(use, journal))
    assert ran(log) == Counter([100])


def test_what_cannot_be_resumed_is_told(tmp_path: Path) -> None:
    async def use(pool: AsyncBossWorker[Any, Any]) -> None:
        log = str(tmp_path / "log")
        good = asyncio.ensure_future(pool.run({"n": 1, "log": log}, resume=True))
        with pytest.raises(TypeError, match="has no job_key"):
            await pool.run({"n": 2, "log": log, "f": object()}, resume=True)
        assert (await good)["n"] == 1

    asyncio.run(with_pool(use, tmp_path / "jobs.db"))

    async def without() -> None:
        async with AsyncBossWorker(note, worker_count=1) as pool:
            with pytest.raises(ValueError, match="resume needs a journal"):
                await pool.run({}, resume=True)
            with pytest.raises(ValueError, match="resume needs a journal"):
                pool.map([], resume=True)

    asyncio.run(without())


def test_a_job_that_is_too_large_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bossworker.pool.caller.journal_outbox.MOST_BYTES", 1_000_000)

    async def use(pool: AsyncBossWorker[Any, Any]) -> None:
        for resume in (False, True):
            with pytest.raises(JournalError, match="a journal keeps at most 1000000"):
                await pool.run({"n": 1, "more": b"x" * 2_000_000}, resume=resume)
        assert (await pool.run({"n": 2, "log": str(tmp_path / "log")}))["n"] == 2

    asyncio.run(with_pool(use, tmp_path / "jobs.db"))


def test_results_end_with_the_pool(tmp_path: Path) -> None:
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    killed(journal, log)

    async def use(pool: AsyncBossWorker[Any, Any]) -> None:
        await pool.pause()
        await asyncio.to_thread(pool.pool.add_work, {"n": 99, "log": str(log)})  # nobody's, and never run
        found = []
        with pytest.raises(BossDied):  # noqa: PT012
            async for result in pool.results():
                found.append(result)
                if result.error == INTERRUPTED:
                    os.kill(pool.pool.boss_pid, signal.SIGKILL)
        assert found

    with pytest.raises(BossDied, match=r"died with . jobs unfinished"):  # as the pool is left in order
        asyncio.run(with_pool(use, journal))
