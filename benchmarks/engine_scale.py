"""How a pool on a Dask cluster would grow, on paper: the scheduler's side, simulated. python -m benchmarks.engine_scale

A scheduler is one process that does one thing at a time. Here it is a queue with one server: a batch needs it as it is
submitted (with its token), as it is claimed, and as its result is fetched. What it costs was measured by
``benchmarks.engines``; how many jobs make a batch is decided by the pool's own code.
Nodes have one slot each; jobs of a batch vary by half. Bytes are those of real frames of jobs like ``{"n": 12345678}``.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from bossworker.engines.batch_sizes import BatchSizes
from bossworker.pool.wire.codec import encode_jobs, encode_result

BATCH_COST = 0.0064  # seconds of the scheduler's, for a whole batch: measured, on a busy machine
PARTS = {"submit": 0.6, "claim": 0.15, "finish": 0.25}  # of it
MESSAGES = 15  # to and from the scheduler, a batch: token, task, claim, note of it, room for the next, result, release
BEAT_MESSAGES = 4  # to and from it, for each node that is asked
NODE_SECONDS = 0.004  # that a batch takes on its node, besides its jobs
SIMULATED_SECONDS = 300.0
JOBS = 10**9


@dataclass
class Simulation:
    """One cluster at work, with more jobs than it can do. Times are simulated seconds."""

    nodes: int
    job_seconds: float
    seconds: float
    now: float = 0.0
    free_at: float = 0.0  # when the scheduler has done what it was asked for
    busy: float = 0.0  # seconds that it was at it
    worked: float = 0.0  # seconds that nodes ran jobs
    jobs: int = 0
    batches: int = 0
    sizes: BatchSizes = field(default_factory=BatchSizes)
    idle: list[int] = field(default_factory=list)  # nodes
    ready: list[int] = field(default_factory=list)  # batches that wait for a node: how many jobs each has
    events: list[tuple[float, int, str, int, int]] = field(default_factory=list)

    def run(self) -> None:
        self.numbers = count()
        self.idle = list(range(self.nodes))
        for _ in range(2 * self.nodes):
            self.ask_scheduler("submit", -1, self.sizes.jobs_in_batch(1, self.nodes))
        while self.events and self.events[0][0] < self.seconds:
            self.now, _, what, node, jobs = heapq.heappop(self.events)
            getattr(self, f"on_{what}")(node, jobs)

    def at(self, when: float, what: str, node: int, jobs: int) -> None:
        heapq.heappush(self.events, (when, next(self.numbers), what, node, jobs))

    def ask_scheduler(self, what: str, node: int, jobs: int) -> None:
        cost = PARTS[what] * BATCH_COST
        self.free_at = max(self.free_at, self.now) + cost
        self.busy += cost
        self.at(self.free_at, what, node, jobs)

    def on_submit(self, _: int, jobs: int) -> None:
        self.ready.append(jobs)
        self.assign()

    def assign(self) -> None:
        while self.idle and self.ready:
            self.ask_scheduler("claim", self.idle.pop(), self.ready.pop())

    def on_claim(self, node: int, jobs: int) -> None:
        work = jobs * self.job_seconds * random.uniform(0.5, 1.5)
        self.worked += work
        self.at(self.now + work + NODE_SECONDS, "done", node, jobs)

    def on_done(self, node: int, jobs: int) -> None:
        self.idle.append(node)
        self.assign()
        self.ask_scheduler("finish", node, jobs)

    def on_finish(self, _: int, jobs: int) -> None:
        self.jobs += jobs
        self.batches += 1
        self.sizes.learn(jobs, jobs * self.job_seconds)
        self.ask_scheduler("submit", -1, self.sizes.jobs_in_batch(1, self.nodes))


def bytes_a_job(jobs: int = 1000) -> tuple[float, float]:
    """Of an order and of its answer."""
    blocks = encode_jobs([{"n": n} for n in range(10**7, 10**7 + jobs)])
    answer = sum(len(encode_result({"n": n})[1]) for n in range(10**7, 10**7 + jobs))
    return sum(blocks.sizes) / jobs, answer / jobs + 17  # its marks, end and outcome


def rows() -> Iterator[str]:
    out, back = bytes_a_job()
    yield f"bytes a job: {out:.0f} there, {back:.0f} back"
    yield "| nodes | job | jobs a batch | batches/s | messages/s | scheduler busy | nodes busy | 10^9 jobs take |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for nodes in (1, 10, 100, 1000):
        for job_seconds in (0.001, 0.01, 0.1, 1.0):
            random.seed(1)
            run = Simulation(nodes, job_seconds, SIMULATED_SECONDS)
            run.run()
            beats = BEAT_MESSAGES * min(nodes / 0.2, 100.0)
            messages = MESSAGES * run.batches / SIMULATED_SECONDS + beats
            hours = JOBS / max(1, run.jobs) * SIMULATED_SECONDS / 3600
            yield (
                f"| {nodes:,} | {job_seconds * 1000:g} ms | {run.jobs / max(1, run.batches):,.0f} | "
                f"{run.batches / SIMULATED_SECONDS:.1f} | {messages:,.0f} | {run.busy / SIMULATED_SECONDS:.0%} | "
                f"{run.worked / SIMULATED_SECONDS / nodes:.0%} | {_long(hours)} |"
            )


def _long(hours: float) -> str:
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:,.0f} days"


if __name__ == "__main__":
    for line in rows():
        print(line)
