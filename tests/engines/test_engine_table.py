"""The table of what each engine can, and cannot, in docs/engines.md: what each of its cells says is tried.

What takes a cluster to pieces, or half a minute, has tests of its own; `TESTED_ELSEWHERE` says where.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import bossworker
from bossworker import AsyncBossWorker, BossDied, BossWorker, JobEnded, JobQueued
from tests.conftest import wait_for
from tests.engines.conftest import check_what_is_refused, wait_for_batches
from tests.engines.marks import PATIENCE, leave_a_mark, runs
from tests.engines.test_losses import Elsewhere, on_another_machine

PAGE = Path(__file__).parents[2] / "docs/engines.md"
COLUMNS = {"Dask": "dask", "executor, this machine": "near", "executor, other machines; Ray elsewhere": "far"}
TESTED_ELSEWHERE = {
    ("a node dies", "dask"): "test_losses.test_a_node_is_killed",
    (
        "a long job with others behind it in its batch",
        "dask",
    ): "test_next_batch.test_what_is_behind_a_long_job_goes_to_an_idle_node",
    (
        "the machine of the program is asleep, or stopped (Ctrl-Z) for 30 s",
        "dask",
    ): "test_losses.test_a_program_elsewhere_falls_silent",
    (
        "the machine of the program is asleep, or stopped (Ctrl-Z) for 30 s",
        "near",
    ): "test_losses.test_a_stopped_program_is_waited_for",
    (
        "the machine of the program is asleep, or stopped (Ctrl-Z) for 30 s",
        "far",
    ): "test_losses.test_nodes_of_an_executor_elsewhere_end_when_idle",
}


class Place:
    """A column: makes pools on engines of that kind."""

    def __init__(self, kind: str, folder: Path, make: Callable[..., BossWorker], engine: Any) -> None:
        self.kind = kind
        self.folder = folder
        self._make = make
        self.engine = engine
        self.go = folder / "go"

    def pool(self, handler: Any, engine: Any = None, **settings: Any) -> BossWorker:
        with self.elsewhere():
            return self._make(handler, engine=engine or self.engine, **{"worker_count": 1, **settings})

    def elsewhere(self) -> AbstractContextManager[None]:
        return on_another_machine() if self.kind == "far" else nullcontext()

    def hold(self, bw: BossWorker, n: int = 0) -> int:
        """Add a job that runs until `let_go`; its id, once it runs."""
        started = self.folder / f"started {n}"
        (job_id,) = bw.add_work({"n": n, "started": str(started), "until": str(self.go)})
        wait_for(started.exists, PATIENCE)
        return job_id

    def let_go(self) -> None:
        self.go.touch()


def work(job: dict[str, Any]) -> dict[str, Any]:
    if "started" in job:
        Path(job["started"]).touch()
    while "until" in job and not Path(job["until"]).exists():
        time.sleep(0.01)
    if "dies" in job:
        os._exit(3)
    if "grows" in job:
        hoard = [b"x" * (1 << 20) for _ in range(job["grows"])]
        time.sleep(60 + len(hoard))
    if "says" in job:
        print(job["says"], flush=True)
    time.sleep(job.get("seconds", 0.0))
    return {"n": job.get("n")}


def in_order(bw: BossWorker) -> list[int]:
    """In which they were begun: which of two batches is told of first is the engine's affair."""
    return [result.job["n"] for result in sorted(bw.results(), key=lambda one: one.started_at)]


# -- the rows -------------------------------------------------------------------------------------------------------

Check = Callable[[Place, str], None]
CHECKS: dict[str, Check] = {}


def row(title: str) -> Callable[[Check], Check]:
    """Checks the row of that title: with a place, and what the table says of it."""

    def add(check: Check) -> Check:
        CHECKS[title] = check
        return check

    return add


@row("one Result a job, none run twice unasked")
def once(at: Place, said: str) -> None:
    """Also where the engine runs each task twice; if it does so elsewhere, so are the jobs, of course."""
    twice = at.kind != "dask"  # which does so only when a worker has died
    bw = at.pool(leave_a_mark, Elsewhere(at.engine, 2) if twice else None)
    bw.add_work(*({"n": n, "folder": str(at.folder)} for n in range(50)))
    assert sorted(in_order(bw)) == list(range(50))
    bw.shut_down()
    assert said == ("yes" if at.kind != "far" else "as far as the engine runs a task once: set its own retries to 0")
    assert (runs(at.folder) == Counter(range(50))) == (said == "yes")


@row("a node dies")
def node_dies(at: Place, said: str) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        bw = at.pool(work, executor if at.kind == "near" else Elsewhere(executor))
        held = at.hold(bw)
        rest = bw.add_work(*({"n": n} for n in range(100)))
        (process,) = executor._processes.values()  # which the public face does not tell
        process.kill()
        seen: list[bossworker.Result] = []
        with pytest.raises(BossDied) as caught:
            seen += iter(bw.get_result, None)
        unfinished = {job.job_id: job.may_have_run for job in caught.value.unfinished}
        told = {result.job_id: result.error for result in seen}
        if "`node lost`" in said:
            assert "node lost" in (told.get(held) or "")
        assert unfinished.get(held, True)
        assert sorted([*unfinished, *told]) == sorted([held, *rest])


@row("timeouts, `max_job_memory`, crashes")
def limits(at: Place, said: str) -> None:
    assert said == "yes"
    bw = at.pool(work, max_job_memory=64 << 20)
    bw.add_work({"n": 0, "seconds": 60}, timeout=0.2)
    bw.add_work({"n": 1, "dies": True}, {"n": 2, "grows": 200}, {"n": 3})
    found = {result.job["n"]: result for result in bw.results()}
    assert [found[n].error_kind for n in range(4)] == ["timeout", "crash", "memory", None]
    assert found[1].exit_code == 3


@row("`cancel` of what is queued here")
def cancel_queued(at: Place, said: str) -> None:
    assert said == "yes"
    bw = at.pool(work)
    at.hold(bw)
    ids = bw.add_work(*({"n": n} for n in range(1, 1000)))
    assert bw.cancel(*ids[500:], queued_only=True) == 499
    at.let_go()
    assert Counter(result.error_kind for result in bw.results()) == {None: 501, "cancelled": 499}


@row("`cancel` of what runs, `stack`, `resize`")
def reach(at: Place, said: str) -> None:
    bw = at.pool(work)
    held = at.hold(bw)
    if said == "ValueError that names the engine":
        for refused in (lambda: bw.cancel(held), lambda: bw.stack(held), lambda: bw.resize(2)):
            with pytest.raises(ValueError, match=r"a pool on an engine \(Elsewhere\) cannot .*: .* other machines"):
                refused()
        at.let_go()
        assert bw.get_result().ok
    else:
        assert said == "yes"
        assert "in work" in bw.stack(held)
        bw.resize(2)
        wait_for(lambda: len(bw.worker_pids) == 2, PATIENCE)
        assert bw.cancel(held) == 1
        assert bw.get_result().error_kind == "cancelled"


@row("priorities")
def priorities(at: Place, said: str) -> None:
    """The engine has as much as it wants by then; on Dask, that is one batch more than it runs."""
    bw = at.pool(work)
    window = bw._connection.line.adapter.window()  # type: ignore[attr-defined]
    at.hold(bw)
    for n in range(1, 11):  # each of them is a batch, since no two have the same terms
        bw.add_work({"n": n}, timeout=1000.0 + n)
    wait_for_batches(bw, *[0] * window, queued=11 - window)
    bw.add_work({"n": 11}, priority=-1)
    bw.add_work({"n": 12}, priority=1)
    wait_for_batches(bw, *[0] * (window - 1), 1 if at.kind == "dask" else 0, queued=13 - window)
    at.let_go()
    order = in_order(bw)
    assert order[-1] == 11
    assert (order[1] == 12) == said.startswith("yes")


@row("results before their batch is through")
def early(at: Place, said: str) -> None:
    bw = at.pool(work, worker_count=2)
    bw.add_work({"n": 0, "until": str(at.go)}, {"n": 1})
    first = bw.get_result(timeout=PATIENCE if said.startswith("yes") else 1.0)
    assert (first is None) == said.startswith("no")
    at.let_go()
    assert in_order(bw) == ([0] if first else [0, 1]) or first is None


@row("a long job with others behind it in its batch")
def behind(at: Place, said: str) -> None:
    """With two slots, one of which is idle."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        bw = at.pool(work, executor if at.kind == "near" else Elsewhere(executor))
        bw.add_work(*({"n": n} for n in range(100)))
        assert sorted(in_order(bw)) == list(range(100))  # so they are known to be quick, and batches are long
        count = 4 * bw._connection.line.adapter.window()  # type: ignore[attr-defined]  # so some are in its batch
        bw.add_work({"n": -1, "until": str(at.go)}, *({"n": n} for n in range(count)))
        found: list[int] = []
        while len(found) < count and (result := bw.get_result(timeout=PATIENCE if said == "the same" else 2.0)):
            found.append(result.job["n"])
        assert (len(found) == count) == (said == "the same")
        assert said in ("the same", "they wait")
        at.let_go()
        assert sorted(found + in_order(bw)) == list(range(-1, count))
        bw.shut_down()


@row("`worker_count` above the tasks that a node runs at a time")
def many_workers(at: Place, said: str) -> None:
    bw = at.pool(work, worker_count=2)
    at.hold(bw)
    bw.add_work({"n": 1})
    result = bw.get_result(timeout=PATIENCE if said.startswith("yes") else 1.0)
    assert (result is not None) == said.startswith("yes")
    at.let_go()
    assert len(in_order(bw)) == (1 if result else 2)


@row("`pause`, `resume`")
def pause(at: Place, said: str) -> None:
    bw = at.pool(work)
    bw.pause()
    assert bw.stats().paused
    bw.add_work({"n": 1}, {"n": 2})
    assert bw.get_result(timeout=0.3) is None
    bw.resume()
    assert sorted(in_order(bw)) == [1, 2]


@row("`stats`, by node (`stats().nodes`)")
def stats(at: Place, said: str) -> None:
    bw = at.pool(work)
    bw.add_work(*({"n": n} for n in range(10)))
    assert len(in_order(bw)) == 10
    told = bw.stats()
    assert (told.done, told.failed, told.queued) == (10, 0, 0)
    if said == "yes":
        assert sum(node.done for node in told.nodes) == 10
    else:
        assert said == "figures of the program alone"
        assert (told.nodes, told.workers) == ((), ())


@row("`events`, `trace`")
def events(at: Place, said: str) -> None:
    bw = at.pool(work)
    told = bw.events()
    bw.add_work({"n": 1})
    assert bw.get_result().ok
    bw.trace(at.folder / "trace")
    bw.shut_down()
    kinds = [type(event) for event in told]
    assert kinds[0] is JobQueued
    assert JobEnded in kinds
    for missing in ("WorkerUp", "WorkerDown", "JobProgress"):
        assert getattr(bossworker, missing) not in kinds
        assert missing in said or said == "the same"
    assert json.loads((at.folder / "trace").read_text())["traceEvents"]


@row('`logs="relay"`')
def output(at: Place, said: str) -> None:
    heard: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("bossworker.job")
    before = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    try:
        bw = at.pool(work, logs="relay")
        bw.add_work({"n": 1, "says": "good morning"})
        assert bw.get_result().ok
    finally:
        logger.removeHandler(listener)
        logger.setLevel(before)
    assert heard == ["good morning"]


@row("`fileno`, `map`, `submit`, a subclass, `AsyncBossWorker(engine=...)`, `Executor(engine=...)`")
def faces(at: Place, said: str) -> None:
    assert said == "yes"

    class Mine(BossWorker):
        pass

    with at.elsewhere():
        bw = Mine(work, engine=at.engine, worker_count=1)
    with bw:
        assert isinstance(bw.fileno(), int)
        assert [result["n"] for result in bw.map({"n": n} for n in range(50))] == list(range(50))
        assert bw.submit({"n": 1}).result()["n"] == 1

    async def main() -> None:
        async with AsyncBossWorker(work, engine=at.engine, worker_count=1) as bw:
            assert (await bw.run({"n": 1}))["n"] == 1

    with at.elsewhere():
        asyncio.run(main())
        with bossworker.Executor(1, engine=at.engine) as executor:
            assert executor.submit(pow, 2, 10).result() == 1024


@row("`reload`")
def reload(at: Place, said: str) -> None:
    assert said.startswith("yes")
    bw = at.pool(work)
    bw.reload(lambda job: {"new": job["n"]})
    bw.add_work({"n": 1})
    assert bw.get_result() == {"new": 1}


@row("`journal=`")
def journal(at: Place, said: str) -> None:
    bw = at.pool(work, journal=at.folder / "jobs.db")
    bw.add_work(*({"n": n} for n in range(20)))
    assert len(in_order(bw)) == 20
    bw.shut_down()
    assert bossworker.journal.open(at.folder / "jobs.db").counts()["done"] == 20


@row("`listen`, `web`, `operator`")
def refused(at: Place, said: str) -> None:
    assert said == "refused"
    check_what_is_refused(at.pool(work))


@row("the machine of the program is asleep, or stopped (Ctrl-Z) for 30 s")
def asleep(at: Place, said: str) -> None:
    raise AssertionError("it is tested elsewhere")


# -- the table ------------------------------------------------------------------------------------------------------


class Cell(NamedTuple):
    """What the table says of an engine."""

    title: str
    kind: str
    said: str


def cells() -> list[Cell]:
    """The table's, of all rows but its head."""
    lines = PAGE.read_text().partition("## What each engine can, and cannot")[2].partition("\n\n")[2].splitlines()
    table = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[: lines.index("")]]
    (_, *heads), _, *rows = table
    assert heads == list(COLUMNS)
    return [Cell(title, COLUMNS[head], said) for title, *told in rows for head, said in zip(heads, told)]


TABLE = cells()


def test_all_rows_are_checked() -> None:
    assert {cell.title for cell in TABLE} == set(CHECKS)
    assert set(TESTED_ELSEWHERE) <= {(cell.title, cell.kind) for cell in TABLE}
    for name in TESTED_ELSEWHERE.values():
        module, _, test = name.partition(".")
        assert callable(getattr(importlib.import_module(f"tests.engines.{module}"), test))


@pytest.mark.parametrize(
    "cell",
    [cell for cell in TABLE if (cell.title, cell.kind) not in TESTED_ELSEWHERE],
    ids=lambda cell: f"{CHECKS[cell.title].__name__}-{cell.kind}" if isinstance(cell, Cell) else None,
)
def test_the_table_says_what_is_so(
    cell: Cell, tmp_path: Path, pool: Callable[..., BossWorker], engine: Callable[[str], Any]
) -> None:
    made = engine("dask" if cell.kind == "dask" else "processes")
    CHECKS[cell.title](Place(cell.kind, tmp_path, pool, Elsewhere(made) if cell.kind == "far" else made), cell.said)
