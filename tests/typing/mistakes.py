"""What a type checker has to find: each line that is wrong says with which of mypy's errors. Nothing here is run."""

from __future__ import annotations

from typing import TypedDict

import bossworker
from bossworker import AsyncBossWorker, BossWorker, Executor, JobEnded, Result, jobs
from bossworker.forkqueue import ForkQueue
from bossworker.tasks import TaskPool


def returns_a_number(job: dict[str, int]) -> int:
    return job["n"]


def square(job: dict[str, int]) -> dict[str, int]:
    return {"square": job["n"] ** 2}


class Number(TypedDict):
    n: int


class Root(TypedDict):
    root: float


def root(job: Number) -> Root:
    return {"root": job["n"] ** 0.5}


BossWorker(returns_a_number)  # error: arg-type
BossWorker(square, 4)  # error: arg-type, call-arg
BossWorker(square, workers=4)  # error: call-arg
BossWorker(square, worker_count="4")  # error: arg-type
BossWorker(square, result_handler="square")  # error: arg-type
BossWorker(square, start_method="thread")  # error: arg-type
BossWorker(square, name=3)  # error: arg-type
AsyncBossWorker(square, worker_cuont=3)  # error: call-arg
AsyncBossWorker(square, logs="relays")  # error: arg-type
AsyncBossWorker(square, kill_grace=None)  # error: arg-type
Executor(1, start_method="forkserver")  # error: arg-type

with BossWorker(square) as pool:
    pool.add_work([{"n": 1}, {"n": 2}])  # error: arg-type
    pool.add_work({"n": 1}, timeout="1")  # error: arg-type
    pool.map([1, 2, 3])  # error: list-item
    pool.get_result(timeout=1)["square"]  # error: index
    pool.get_result_nb().ok  # error: union-attr
    pool.results()[0]  # error: index
    pool.get_result().misspelt  # error: attr-defined
    pool.stats().worker  # error: attr-defined
    pool.add_job({"n": 1})  # error: attr-defined
    text: str = pool.get_result().error  # error: assignment

with BossWorker(root) as roots:
    roots.add_work({"m": 1})  # error: typeddict-item, typeddict-unknown-key
    roots.add_work({"n": "1"})  # error: typeddict-item
    roots.submit({"m": 1})  # error: typeddict-item, typeddict-unknown-key
    list(roots.map({"m": n} for n in range(3)))  # error: typeddict-item, typeddict-unknown-key
    roots.get_result()["misspelt"]  # error: typeddict-item
    number_of_key: int = roots.get_result()["root"]  # error: assignment
    roots.get_result().raise_for_error()["misspelt"]  # error: typeddict-item
    roots.submit({"n": 1}).result().raise_for_error()["misspelt"]  # error: typeddict-item
    number_of_root: int = roots.get_result().raise_for_error()["root"]  # error: assignment
    assert roots.get_result().error_kind == "misspelt"  # error: comparison-overlap
    assert roots.stats().workers[0].state == "misspelt"  # error: comparison-overlap

Result().job_id = 3  # error: misc

jobs.start(5)  # error: arg-type
data: str = jobs.stdout("id", text=False)  # error: assignment
jobs.info("id").pid  # error: union-attr
jobs.state("id")  # error: attr-defined

TaskPool("/tmp").spawn("ls")  # a str is a sequence of str: only the call itself refuses it
TaskPool("/tmp").spawn(["ls"], behaviour="daemon")  # error: call-arg
TaskPool("/tmp").task_by_pid(1).kill()  # error: union-attr

number: int = ForkQueue("4").call(str, 5).result()  # error: arg-type, assignment


def is_late(event: JobEnded) -> bool:
    return event.error_kind == "tiemout"  # error: comparison-overlap


bossworker.BosWorker  # error: attr-defined
bossworker.pool.caller  # error: attr-defined
