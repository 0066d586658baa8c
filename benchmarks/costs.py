"""``python -m benchmarks.costs``: where the time of a tiny job goes, and that of a start: why the table says what it
says.

Figures are CPU time, which other programs on the machine disturb less than the clock; of each step, the least of many
rounds.
"""

from __future__ import annotations

import os
import pickle
import resource
import socket
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import chain

from benchmarks import procfs
from benchmarks.handlers import WORKS, Job, multiply
from benchmarks.peers import PEERS, label
from bossworker.pool.caller.inbox import Inbox
from bossworker.pool.options import Handlers, check_options
from bossworker.pool.wire.batch import Batch, JobOptions
from bossworker.pool.wire.codec import RESULT_PROTOCOL, encode_jobs, encode_result, load_results
from bossworker.pool.wire.recorder import Memory, Recorder
from bossworker.pool.wire.segments import Segment
from bossworker.pool.worker.worker import Worker, _blocks

JOBS = 100_000
BATCH = 1500
TURNS = 5
ROUNDS = 100  # of a step
STARTS = 20
WAYS = ("bossworker.bulk", "pool.map", "pool.imap_64")

Step = Callable[[], object]


# -- a whole run ----------------------------------------------------------------------------------------


def print_runs() -> None:
    """CPU time a job of all processes of a pool, by process."""
    print(f"{JOBS:,} tiny jobs, two workers: CPU nanoseconds a job (medians of {TURNS} turns)\n")
    print("| way | caller | the other processes | sum | wall clock |\n| --- | --- | --- | --- | --- |")
    for way in WAYS:
        caller, others, wall = _run_costs(way)
        apart = " + ".join(f"{cost:,.0f}" for cost in others)
        print(f"| {label(way)} | {caller:,.0f} | {apart} | {caller + sum(others):,.0f} | {wall:,.0f} |")


def _run_costs(way: str) -> tuple[float, list[float], float]:
    name, _, method = way.partition(".")
    peer = PEERS[name](multiply, 2)
    run = getattr(peer, method)
    jobs = WORKS["tiny"].make_jobs(JOBS, 0)
    consume = WORKS["tiny"].consume
    try:
        consume(run(jobs[:BATCH]))
        pids = [os.getpid(), *procfs.descendants()]
        turns = []
        for _ in range(TURNS):
            before, begin = _cpu(pids), time.perf_counter()
            consume(run(jobs))
            wall = time.perf_counter() - begin
            turns.append([wall, *(b - a for a, b in zip(before, _cpu(pids), strict=True))])
    finally:
        peer.close()
    wall, caller, *others = (statistics.median(column) / JOBS * 1e9 for column in zip(*turns, strict=True))
    return caller, [cost for cost in others if cost >= 1], wall


def _cpu(pids: Sequence[int]) -> list[float]:
    return [procfs.usage([pid]).cpu_seconds for pid in pids]


# -- its steps ------------------------------------------------------------------------------------------


def print_steps() -> None:
    """What the steps of a tiny job take, one after the other in this process."""
    print("\nthe steps of a tiny job, alone and warm: CPU nanoseconds")
    jobs = WORKS["tiny"].make_jobs(BATCH, 0)
    memory = Memory()
    try:
        for who, steps in (("caller", _caller_steps(jobs)), ("worker", _worker_steps(jobs, memory))):
            for what, step in steps.items():
                print(f"  {who}  {_least(step):5.0f}  {what}")
    finally:
        memory.close()
    print(f"  Pool    {_least(lambda: pickle.loads(pickle.dumps(jobs))):5.0f}  pickle and unpickle a chunk of jobs")


def _least(step: Step) -> float:
    costs = []
    for _ in range(ROUNDS):
        begin = time.process_time_ns()
        step()
        costs.append(time.process_time_ns() - begin)
    return min(costs) / BATCH


def _caller_steps(jobs: list[Job]) -> dict[str, Step]:
    inbox = Inbox()
    segment = _segment(jobs)

    def all_of_it() -> None:
        inbox.note_call(1)
        inbox.expect(1, jobs)
        inbox.receive([segment])
        while inbox.next() is not None:
            pass

    return {
        "encode the jobs": lambda: encode_jobs(jobs),
        "load the results' contents": lambda: load_results(memoryview(segment.payload)),
        "note the jobs; make results of the contents; hand them out": all_of_it,
    }


def _segment(jobs: list[Job]) -> Segment:
    memory = Memory()
    try:
        recorder, run = memory.recorder(0, fresh=True), _run(jobs)
        perform = _performer(recorder, memory)
        recorder.open_batch(1, BATCH, 1, 0.0)
        perform(run)
        return recorder.results(0, BATCH, 1, 1, 1)
    finally:
        memory.close()


def _run(jobs: list[Job]) -> Batch:
    blocks = encode_jobs(jobs)
    payload = blocks.payload()
    assert isinstance(payload, bytes)
    return Batch(1, BATCH, 0, JobOptions(0, 30.0, 0, 1), blocks.counts, blocks.sizes, payload)


def _performer(recorder: Recorder, memory: Memory) -> Callable[[Batch], None]:
    ours, _ = socket.socketpair()
    options = check_options(
        global_timeout=30,
        worker_count=1,
        kill_grace=1,
        retries=0,
        max_pending=0,
        max_jobs_per_worker=0,
        max_worker_memory=0,
        start_method="fork",
    )
    return Worker(recorder, ours, memory, Handlers(multiply, None, None), options)._perform


def _worker_steps(jobs: list[Job], memory: Memory) -> dict[str, Step]:
    recorder, run = memory.recorder(0, fresh=True), _run(jobs)
    perform = _performer(recorder, memory)
    results = [multiply(job) for job in jobs]
    numbers = range(BATCH)

    def whole_batch() -> None:
        recorder.open_batch(1, BATCH, 1, 0.0)
        perform(run)

    def claim_and_publish() -> None:
        recorder.open_batch(1, BATCH, 1, 0.0)
        claim, publish = recorder.unclaimed.acquire, recorder.published.release
        for _ in numbers:
            claim(False)
            publish()

    def note() -> None:
        marks, ends, area, payload, clock = (
            recorder.marks,
            recorder.ends,
            recorder.payload,
            bytes(30),
            time.monotonic,
        )
        at = 0
        for index in numbers:
            marks[index + 1] = clock()
            area[at : at + 30] = payload
            ends[index] = at = at + 29

    return {
        "load the jobs": lambda: [job for job in chain.from_iterable(_blocks(run))],  # noqa: C416
        "call the handler": lambda: [multiply(job) for job in jobs],
        "encode a result": lambda: [encode_result(result) for result in results],
        "  of which pickle": lambda: [pickle.dumps(result, RESULT_PROTOCOL) for result in results],
        "read the clock, note time, end and bytes": note,
        "claim and publish": claim_and_publish,
        "all of a job in a worker": whole_batch,
    }


# -- a start --------------------------------------------------------------------------------------------


def print_starts() -> None:
    """What a pool's processes cost, from start to end."""
    print("\nstart + one job + stop, two workers")
    for name in ("bossworker", "pool"):
        print(f"  {label(f'{name}.one'):24} {_start_costs(lambda name=name: _cycle(name))}")  # type: ignore[misc]
    for depth in (2, 4):  # as many as Pool's processes, and as ours
        print(f"  {f'{depth} bare forks in a chain':24} {_start_costs(lambda depth=depth: _chain(depth))}")  # type: ignore[misc]


def _start_costs(cycle: Step) -> str:
    cycle()
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    for _ in range(STARTS):
        cycle()
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    faults = (after.ru_minflt - before.ru_minflt) / STARTS
    return (
        f"{1e3 * wall / STARTS:6.1f} ms; its processes: {1e3 * cpu / STARTS:.1f} ms of CPU, {faults:,.0f} page faults"
    )


def _cycle(name: str) -> None:
    peer = PEERS[name](multiply, 2)
    assert peer.one({"a": 6, "b": 7})["product"] == 42  # type: ignore[attr-defined]
    peer.close()


def _chain(depth: int) -> None:
    """Processes that do nothing, each forked by the one before."""
    if depth:
        pid = os.fork()
        if pid == 0:
            _chain(depth - 1)
            os._exit(0)
        os.waitpid(pid, 0)


def main() -> None:
    print_runs()
    print_steps()
    print_starts()


if __name__ == "__main__":
    main()
