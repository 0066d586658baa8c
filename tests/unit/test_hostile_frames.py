"""What is written into a worker's socket and recorder ends that worker, not the boss, and each job has one result.

Frames and memory are random, mutated, or forged with care; the boss is a real one (see ``hostile.py``).
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from bossworker.pool.boss import deadlines, worker_reader
from tests.unit.hostile import (
    IN_MEMORY,
    ON_THE_WIRE,
    PATIENCE,
    Deed,
    FakeWorker,
    Stage,
    endless_frame,
    forged_counts,
    forged_sending,
    hang_up,
    scribble,
)

DEEDS = 300  # of each kind; with --long this many that all make 100,000
LONG_DEEDS = 9000
POSTS_NO_MORE = (scribble, forged_counts)  # to post a semaphore that was written over would end this process


@pytest.fixture
def stage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(worker_reader, "STALLED_SECONDS", 0.001)
    monkeypatch.setattr(deadlines, "GLANCE_SECONDS", 0.0005)
    monkeypatch.setattr(deadlines, "SENDING_SECONDS", 0.01)
    made = Stage(random.Random(str(request.node.name)))
    yield made
    made.close()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("deed", [*ON_THE_WIRE, *IN_MEMORY], ids=lambda deed: deed.__name__)
def test_each_job_has_one_result_whatever_a_worker_writes(
    stage: Stage, deed: Deed, request: pytest.FixtureRequest
) -> None:
    rng = stage.rng
    left = LONG_DEEDS if request.config.getoption("--long") else DEEDS
    while left:
        if len(stage.results) > stage.next_id - 20:
            stage.submit(rng.choice([1, 1, 2, 5, 40]))
        if rng.random() < 0.2:
            stage.ask()
        for _ in range(rng.choice([0, 1, 1, 2, 5])):
            stage.turn()
        worker = rng.choice([one for one in stage.workers.values() if one.alive] or [None])
        if worker is None:
            continue
        left -= 1
        if worker.batch is not None and rng.random() < 0.5:
            worker.recorder.unclaimed.acquire(False)  # it is in a job
        worker.turns_left = worker.turns_left if worker.turns_left > 0 else PATIENCE
        worker.works = worker.works and deed not in POSTS_NO_MORE and rng.random() < 0.5
        worker.obeys = worker.works
        deed(rng, worker)
    stage.settle()
    assert stage.notes or deed is hang_up, "no worker was ended for it"
    assert set(stage.results) == set(range(1, stage.next_id))
    assert set(stage.results.values()) == {1}


def busy_worker(stage: Stage) -> FakeWorker:
    """One that is in a job, and does nothing by itself."""
    stage.submit(1)
    while True:
        for worker in stage.workers.values():
            worker.works = False
            if worker.alive and worker.batch is not None and worker.recorder.unclaimed.acquire(False):
                return worker
        stage.turn()


@pytest.mark.parametrize("deed", [endless_frame, forged_sending])
def test_a_worker_that_says_it_sends_and_does_not_is_ended(stage: Stage, deed: Deed) -> None:
    stage.immortal = True
    for _ in range(20):
        worker = busy_worker(stage)
        deed(stage.rng, worker)
        stage.settle()
        assert not worker.alive


def test_a_result_is_taken_within_a_second_whatever_the_worker_does_not_say(stage: Stage) -> None:
    stage.immortal = True
    busy_worker(stage).publish(1)
    stage.settle()
