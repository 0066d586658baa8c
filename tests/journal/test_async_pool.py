"""A journal below an event loop: what an earlier owner has left, jobs that are there already, and a full disk."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bossworker import INTERRUPTED, AsyncBossWorker, Result
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
