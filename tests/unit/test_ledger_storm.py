"""The ledger among workers that do anything at any time: every job ends in exactly one result all the same.

A model of boss and workers, without a process or a clock: it carries out the ledger's actions on workers that claim,
finish, spill, hang, die and fail to start in an order drawn from a seed.
"""

from __future__ import annotations

import random
from array import array
from collections import Counter

import pytest

from bossworker.failure import Outcome
from bossworker.pool.boss.actions import Actions, Assign, Finish, Interrupt, Kill, Leave, Spawn, TakeBack, Tell
from bossworker.pool.boss.ledger import Ledger
from bossworker.pool.boss.workers import Exit, State
from bossworker.pool.wire.batch import Batch, JobOptions
from bossworker.pool.wire.recorder import Snapshot

STEPS = 2500
SEEDS = range(25)
MOST_STEPS_TO_CLOSE = 30_000


class FakeWorker:
    """What a worker has done with its batch, as its recorder would show it."""

    def __init__(self) -> None:
        self.batch: Batch | None = None
        self.limit = 0
        self.claimed = 0
        self.published = 0
        self.in_job = False  # the last claimed job is still in the handler
        self.hangs = False  # and stays there until it is told to end, or killed
        self.spilled: set[int] = set()
        self.started = 0.0
        self.began = 0.0
        self.told_to_leave = False
        self.doomed = False

    def snapshot(self) -> Snapshot:
        running = self.claimed > self.published and self.published not in self.spilled
        return Snapshot(self.claimed, self.published, self.started, running)


class Storm:
    """A boss that does what the ledger says, and whatever the seed makes of the rest."""

    def __init__(self, seed: int, fragile: bool | None = None) -> None:
        self.rng = rng = random.Random(seed)
        self.now = 0.0
        self.fragile = rng.random() < 0.2 if fragile is None else fragile  # most starts fail
        self.max_jobs = rng.choice([0, 0, 3, 20])
        self.ledger = Ledger(
            rng.randint(1, 5), kill_grace=0.1, max_jobs_per_worker=self.max_jobs, max_batch=rng.choice([1, 4, 50])
        )
        self.workers: dict[int, FakeWorker] = {}
        self.pids = 1000
        self.next_id = 1
        self.retries: dict[int, int] = {}
        self.starts: Counter[int] = Counter()
        self.results: Counter[int] = Counter()
        self.outcomes: dict[int, Outcome] = {}
        self.cancelled: set[int] = set()
        self.failed_starts = 0
        self.misbehaved = 0
        self.perform(self.ledger.on_tick(self.now))

    # -- the boss's part --------------------------------------------------------------------------------

    def perform(self, actions: Actions) -> None:
        for action in actions:
            match action:
                case Spawn(slot):
                    assert slot not in self.workers
                    self.workers[slot] = FakeWorker()
                    self.pids += 1
                    self.ledger.on_spawned(slot, self.pids)
                case Assign(slot, batch):
                    self.assign(self.workers[slot], batch)
                case Leave(slot):
                    worker = self.workers[slot]
                    assert worker.batch is None
                    worker.told_to_leave = True
                case Interrupt(slot, job_id):
                    self.interrupt(self.workers[slot], job_id)
                case Kill(slot):
                    self.workers[slot].doomed = True
                case TakeBack(slot):
                    if self.rng.random() < 0.9:  # else the worker is just writing
                        self.take_back(slot)
                case Finish():
                    self.result(action.job_id, action.outcome)
                    assert action.attempt <= self.starts[action.job_id]
                case Tell():
                    pass

    def assign(self, worker: FakeWorker, batch: Batch) -> None:
        assert worker.batch is None
        assert not worker.told_to_leave
        assert not worker.doomed
        assert batch.count > 0
        assert not self.max_jobs or batch.count <= self.max_jobs
        worker.batch, worker.limit, worker.claimed, worker.published = batch, batch.count, 0, 0
        worker.in_job = False
        worker.spilled = set()
        worker.began = self.now

    def interrupt(self, worker: FakeWorker, job_id: int) -> None:
        assert worker.batch is not None
        assert worker.batch.first_id <= job_id < worker.batch.first_id + worker.limit
        if worker.in_job and worker.batch.first_id + worker.claimed - 1 == job_id and self.rng.random() < 0.5:
            worker.in_job = False

    def take(self, slot: int) -> None:
        worker, seen = self.workers[slot], self.ledger.workers[slot]
        if worker.batch is None:
            return
        stop = worker.snapshot().published
        for position in range(seen.taken, stop):
            if position not in worker.spilled:
                self.collect(slot, worker.batch.first_id + position)
        if stop > seen.taken:
            self.ledger.on_taken(slot, stop)

    def collect(self, slot: int, job_id: int) -> None:
        cancelled = job_id in self.ledger.workers[slot].cancelled
        self.result(job_id, Outcome.CANCELLED if cancelled else Outcome.OK)

    def take_back(self, slot: int) -> None:
        worker = self.workers[slot]
        if worker.batch is None:
            return
        worker.limit = worker.claimed
        self.take(slot)
        self.perform(self.ledger.on_taken_back(slot, worker.snapshot(), self.now))

    def result(self, job_id: int, outcome: Outcome) -> None:
        assert job_id not in self.outcomes, f"a second result of job {job_id}: {outcome!r}"
        self.results[job_id] += 1
        self.outcomes[job_id] = outcome

    # -- what happens -----------------------------------------------------------------------------------

    def submit(self) -> None:
        count = self.rng.choice([1, 1, 2, 5, 30])
        counts = array("I")
        while (left := count - sum(counts)) > 0:
            counts.append(self.rng.randint(1, left))
        retries = self.rng.choice([0, 0, 0, 1, 3])
        self.add(counts, JobOptions(self.rng.choice([0, 0, 0, 2, -1]), self.rng.choice([0.0, 0.0, 0.05]), retries, 1))

    def add(self, counts: array[int], job_options: JobOptions) -> None:
        """Submit jobs, this many in each block."""
        count = sum(counts)
        run = Batch(self.next_id, count, 0, job_options, counts, array("Q", [3] * len(counts)), b"job" * len(counts))
        self.retries.update(dict.fromkeys(run.ids, job_options.retries))
        self.next_id += count
        self.perform(self.ledger.on_submit(run, self.now))

    def progress(self) -> None:
        """One worker does the next thing it can do."""
        if self.workers:
            self.step(self.rng.choice(list(self.workers)))

    def step(self, slot: int) -> None:
        worker = self.workers[slot]
        state = self.ledger.workers[slot].state
        if worker.doomed:
            self.die(slot)
        elif state is State.STARTING:
            self.start(slot)
        elif worker.told_to_leave:
            self.die(slot)
        elif worker.batch is not None:
            self.work(slot, worker, worker.batch)

    def start(self, slot: int) -> None:
        if self.rng.random() < (0.9 if self.fragile else 0.05):
            del self.workers[slot]
            self.failed_starts += 1
            self.perform(self.ledger.on_start_failed(slot, "no luck", self.now))
        else:
            self.perform(self.ledger.on_up(slot, self.now))

    def work(self, slot: int, worker: FakeWorker, batch: Batch) -> None:
        if worker.in_job:
            worker.in_job = worker.hangs or self.rng.random() < 0.3
        elif worker.published < worker.claimed:
            worker.published = worker.claimed
        elif worker.claimed < worker.limit:
            self.claim(worker, batch)
        else:
            self.done(slot, worker)

    def claim(self, worker: FakeWorker, batch: Batch) -> None:
        job_id = batch.first_id + worker.claimed
        assert job_id not in self.outcomes, f"job {job_id} runs although it has a result"
        worker.claimed += 1
        worker.started, worker.in_job = self.now, True
        worker.hangs = self.rng.random() < (0.1 if batch.job_options.timeout else 0 if self.ledger.closing else 0.001)
        self.starts[job_id] += 1
        assert self.starts[job_id] == batch.job_options.attempt
        assert self.starts[job_id] <= 1 + self.retries[job_id]

    def spill(self) -> None:
        """A job whose handler is through sends its large result by itself."""
        for slot, worker in self.workers.items():
            position = worker.published
            if worker.batch is None or worker.in_job or position == worker.claimed or position in worker.spilled:
                continue
            worker.spilled.add(position)
            job_id = worker.batch.first_id + position
            self.ledger.on_spilled(slot, job_id)
            self.collect(slot, job_id)
            return

    def done(self, slot: int, worker: FakeWorker) -> None:
        self.take(slot)
        worker.batch = None
        leaves = self.rng.random() < 0.02
        worker.told_to_leave = leaves
        self.perform(self.ledger.on_done(slot, self.now - worker.began, leaves, self.now))

    def die(self, slot: int) -> None:
        if self.ledger.workers[slot].state is State.STARTING:
            del self.workers[slot]
            self.perform(self.ledger.on_start_failed(slot, "killed", self.now))
            return
        forged = bool(self.ledger.workers[slot].condemned) and self.rng.random() < 0.7
        if not forged:
            self.take(slot)
        seen = self.ledger.workers[slot]
        if forged and seen.batch is not None:
            for position in seen.lost(seen.limit):  # each may have run
                self.starts[seen.batch.first_id + position] = seen.batch.job_options.attempt
        look = self.workers.pop(slot).snapshot()
        self.perform(self.ledger.on_exit(slot, Exit("signal 9, SIGKILL)", -9), None if forged else look, self.now))

    def kill(self) -> None:
        if self.workers and self.rng.random() < 0.3:
            self.die(self.rng.choice(list(self.workers)))

    def misbehave(self) -> None:
        """A worker writes over its recorder: whatever is in there now is not believed."""
        if self.workers and self.rng.random() < 0.1:
            self.misbehaved += 1
            slot = self.rng.choice(list(self.workers))
            self.perform(self.ledger.on_misbehaved(slot, "scribbled"))

    def cancel(self) -> None:
        self.cancel_these([self.rng.randint(1, self.next_id + 3) for _ in range(self.rng.choice([1, 1, 3, 20]))])

    def cancel_these(self, ids: list[int]) -> None:
        looks: dict[int, Snapshot] = {}
        for seen in self.ledger.busy():
            worker = self.workers[seen.slot]
            assert worker.batch is not None
            if set(ids) & set(worker.batch.ids) and not seen.condemned:
                worker.limit = worker.claimed
                self.take(seen.slot)
                self.ledger.reclaim(seen.slot, worker.snapshot(), self.now)
                looks[seen.slot] = worker.snapshot()
        unfinished = {i for i in ids if i < self.next_id and i not in self.outcomes and i not in self.cancelled}
        count, actions = self.ledger.on_cancel(ids, looks, self.now)
        assert count == len(unfinished)
        self.cancelled |= unfinished
        self.perform(actions)

    def resize(self) -> None:
        if self.rng.random() < 0.3:
            self.perform(self.ledger.on_resize(self.rng.randint(1, 6), self.now))

    def snapshot(self) -> None:
        for slot in self.ledger.due(self.now):
            self.take(slot)
            self.perform(self.ledger.on_look(slot, self.workers[slot].snapshot(), self.now))

    def pass_time(self) -> None:
        self.pass_seconds(self.rng.expovariate(1 / 0.003))

    def pass_seconds(self, seconds: float) -> None:
        self.now += seconds
        self.snapshot()
        self.perform(self.ledger.on_tick(self.now))

    # -- the whole --------------------------------------------------------------------------------------

    def rage(self) -> None:
        events = [self.submit, self.progress, self.spill, self.kill, self.cancel, self.resize, self.pass_time]
        events.append(self.misbehave)
        weights = [3, 30, 2, 1, 1, 1, 8, 1]
        for event in self.rng.choices(events, weights, k=STEPS):
            event()
            self.check()

    def close(self) -> None:
        """Wind the pool up in order; nobody kills any more, but limits still pass and starts still fail."""
        for worker in self.workers.values():
            worker.hangs = worker.hangs and worker.batch is not None and bool(worker.batch.job_options.timeout)
        self.perform(self.ledger.on_close(self.now))
        for _ in range(MOST_STEPS_TO_CLOSE):
            if self.ledger.finished:
                return
            if not self.workers:
                seconds = self.ledger.seconds_until_due(self.now)
                assert seconds is not None, "nobody is left, and nothing is due"
                self.now += seconds
            self.progress()
            self.pass_time()
        pytest.fail("the pool never finished")

    def check(self) -> None:
        ledger = self.ledger
        assert ledger.workers.keys() == self.workers.keys()
        assert ledger.queue.jobs == sum(len(cursor) for cursor in ledger.queue)
        for slot, worker in self.workers.items():
            seen = ledger.workers[slot]
            assert (seen.batch is None) == (worker.batch is None)
            assert worker.batch is None or seen.limit == worker.limit or seen.limit >= worker.claimed

    def check_results(self) -> None:
        """At the end: one result a job, no more runs than its retries allow, and what was cancelled is that."""
        jobs = set(range(1, self.next_id))
        assert set(self.results) == jobs
        assert set(self.results.values()) <= {1}
        assert all(self.starts[job_id] <= 1 + self.retries[job_id] for job_id in jobs)
        assert {self.outcomes[job_id] for job_id in self.cancelled} <= {Outcome.CANCELLED}
        never_ran = {job_id for job_id in jobs if not self.starts[job_id]}
        assert never_ran <= self.cancelled


@pytest.mark.parametrize("seed", SEEDS)
def test_every_job_ends_in_exactly_one_result(seed: int) -> None:
    storm = Storm(seed)
    storm.rage()
    storm.close()
    storm.check_results()


def test_the_storms_see_every_kind_of_end() -> None:
    """A storm that never times out, cancels, crashes, misbehaves or fails to start would prove little."""
    outcomes: set[Outcome] = set()
    most_starts = failed_starts = misbehaved = 0
    for seed in range(8):
        storm = Storm(seed, fragile=seed < 3)
        storm.rage()
        storm.close()
        outcomes |= set(storm.outcomes.values())
        most_starts = max([most_starts, *storm.starts.values()])
        failed_starts += storm.failed_starts
        misbehaved += storm.misbehaved
    assert outcomes >= {Outcome.OK, Outcome.CRASH, Outcome.CANCELLED, Outcome.TIMEOUT}
    assert most_starts > 1
    assert failed_starts > 50
    assert misbehaved
