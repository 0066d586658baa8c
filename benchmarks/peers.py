"""One adapter a library. Each brings a pool up for one handler, and offers the library's own ways to use it.

A way is a method that takes jobs and gives their results; a row names it as ``peer.way``, and LABELS says what the
library calls it. A library is imported when its adapter is made: one that is missing costs only its own rows.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Any, Literal

from benchmarks.handlers import Handler, Job

TIMEOUT = 30  # seconds: what pools that can limit a job's time are asked to do while they are measured
DRAIN = 60  # seconds a pool may take to close


class Peer:
    """A pool that is up."""

    pool: Any

    def __init__(self, handler: Handler, workers: int, timeout: float = TIMEOUT) -> None:
        self.handler = handler
        self.timeout = timeout
        self.open(workers)

    def open(self, workers: int) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class BossWorkerPeer(Peer):
    transport: Literal["zmq", "socketpair"] = "zmq"

    def open(self, workers: int) -> None:
        from bossworker import BossWorker

        self.pool = BossWorker(
            self.handler, worker_count=workers, global_timeout=self.timeout, transport=self.transport
        )

    def bulk(self, jobs: list[Job]) -> Iterator[Job]:
        self.pool.add_work(*jobs)
        return self.pool.results()  # type: ignore[no-any-return]

    def each(self, jobs: list[Job]) -> Iterator[Job]:
        add_work = self.pool.add_work
        for job in jobs:
            add_work(job)
        return self._results(len(jobs))

    def map(self, jobs: list[Job]) -> Iterator[Job]:
        return self.pool.map(jobs)  # type: ignore[no-any-return]

    def one(self, job: Job) -> Job:
        self.pool.add_work(job)
        return self.pool.get_result()  # type: ignore[no-any-return]

    def _results(self, count: int) -> Iterator[Job]:
        get_result = self.pool.get_result
        for _ in range(count):
            yield get_result()

    def close(self) -> None:
        self.pool.shut_down()


class SocketPairPeer(BossWorkerPeer):
    """The other transport."""

    transport = "socketpair"


class NeverSpinningPeer(BossWorkerPeer):
    """As it would be if no process of it stayed awake while an answer is due."""

    def open(self, workers: int) -> None:
        from bossworker.pool.wire import spin

        spin.SPIN_SECONDS = 0.0
        super().open(workers)


class PoolPeer(Peer):
    def open(self, workers: int) -> None:
        import multiprocessing

        self.pool = multiprocessing.Pool(workers)

    def map(self, jobs: list[Job]) -> Iterable[Job]:
        return self.pool.map(self.handler, jobs)  # type: ignore[no-any-return]

    def imap_64(self, jobs: list[Job]) -> Iterable[Job]:
        return self.pool.imap_unordered(self.handler, jobs, chunksize=64)  # type: ignore[no-any-return]

    def imap_1(self, jobs: list[Job]) -> Iterable[Job]:
        return self.pool.imap_unordered(self.handler, jobs, chunksize=1)  # type: ignore[no-any-return]

    def each(self, jobs: list[Job]) -> Iterable[Job]:
        handles = [self.pool.apply_async(self.handler, (job,)) for job in jobs]
        return (handle.get() for handle in handles)

    def one(self, job: Job) -> Job:
        return self.pool.apply(self.handler, (job,))  # type: ignore[no-any-return]

    def close(self) -> None:
        self.pool.close()
        self.pool.join()


class ExecutorPeer(Peer):
    """What concurrent.futures and its kin have in common."""

    def each(self, jobs: list[Job]) -> Iterable[Job]:
        futures = [self.pool.submit(self.handler, job) for job in jobs]
        return (future.result() for future in futures)

    def as_completed(self, jobs: list[Job]) -> Iterable[Job]:
        from concurrent.futures import as_completed

        futures = [self.pool.submit(self.handler, job) for job in jobs]
        return (future.result() for future in as_completed(futures))

    def map_1(self, jobs: list[Job]) -> Iterable[Job]:
        return self.pool.map(self.handler, jobs)  # type: ignore[no-any-return]

    def map_64(self, jobs: list[Job]) -> Iterable[Job]:
        return self.pool.map(self.handler, jobs, chunksize=64)  # type: ignore[no-any-return]

    def one(self, job: Job) -> Job:
        return self.pool.submit(self.handler, job).result()  # type: ignore[no-any-return]

    def close(self) -> None:
        self.pool.shutdown()


class ProcessPoolPeer(ExecutorPeer):
    def open(self, workers: int) -> None:
        from concurrent.futures import ProcessPoolExecutor

        self.pool = ProcessPoolExecutor(workers)


class OursPeer(ExecutorPeer):
    """bossworker.Executor, in the same way."""

    def open(self, workers: int) -> None:
        from bossworker import Executor

        self.pool = Executor(workers, timeout=self.timeout)


class LokyPeer(ExecutorPeer):
    def open(self, workers: int) -> None:
        import loky

        self.pool = loky.ProcessPoolExecutor(workers)


class DeadpoolPeer(ExecutorPeer):
    def open(self, workers: int) -> None:
        import deadpool

        self.pool = deadpool.Deadpool(max_workers=workers, mp_context="fork")

    def each(self, jobs: list[Job]) -> Iterable[Job]:
        futures = [self.pool.submit(self.handler, job, deadpool_timeout=self.timeout) for job in jobs]
        return (future.result() for future in futures)

    def one(self, job: Job) -> Job:
        return self.pool.submit(self.handler, job, deadpool_timeout=self.timeout).result()  # type: ignore[no-any-return]


class JoblibPeer(Peer):
    def open(self, workers: int) -> None:
        import joblib

        self.delayed = joblib.delayed(self.handler)
        self.pool = joblib.Parallel(workers)
        self.pool.__enter__()

    def bulk(self, jobs: list[Job]) -> Iterable[Job]:
        return self.pool(self.delayed(job) for job in jobs)  # type: ignore[no-any-return]

    def one(self, job: Job) -> Job:
        return self.pool([self.delayed(job)])[0]  # type: ignore[no-any-return]

    def close(self) -> None:
        from joblib.externals import loky

        self.pool.__exit__(None, None, None)
        loky.get_reusable_executor().shutdown(wait=True)


class PebblePeer(Peer):
    def open(self, workers: int) -> None:
        import pebble

        self.pool = pebble.ProcessPool(max_workers=workers)

    def each(self, jobs: list[Job]) -> Iterable[Job]:
        futures = [self.pool.schedule(self.handler, [job], timeout=self.timeout) for job in jobs]
        return (future.result() for future in futures)

    def map_64(self, jobs: list[Job]) -> Iterable[Job]:
        return self.pool.map(self.handler, jobs, chunksize=64, timeout=self.timeout).result()  # type: ignore[no-any-return]

    def one(self, job: Job) -> Job:
        return self.pool.schedule(self.handler, [job], timeout=self.timeout).result()  # type: ignore[no-any-return]

    def close(self) -> None:
        self.pool.close()
        self.pool.join(DRAIN)


class MpirePeer(Peer):
    """A dict would become keyword arguments there, so each job goes in a tuple."""

    def open(self, workers: int) -> None:
        from mpire.pool import WorkerPool

        self.pool = WorkerPool(n_jobs=workers, keep_alive=True)

    def imap(self, jobs: list[Job]) -> Iterable[Job]:
        return self.pool.imap_unordered(self.handler, [(job,) for job in jobs])  # type: ignore[no-any-return]

    def each(self, jobs: list[Job]) -> Iterable[Job]:
        handles = [self.pool.apply_async(self.handler, (job,)) for job in jobs]
        return (handle.get() for handle in handles)

    def one(self, job: Job) -> Job:
        return self.pool.apply(self.handler, (job,))  # type: ignore[no-any-return]

    def close(self) -> None:
        self.pool.stop_and_join()


PEERS: dict[str, type[Peer]] = {
    "bossworker": BossWorkerPeer,
    "socketpair": SocketPairPeer,
    "nospin": NeverSpinningPeer,
    "pool": PoolPeer,
    "executor": ProcessPoolPeer,
    "ours": OursPeer,
    "loky": LokyPeer,
    "joblib": JoblibPeer,
    "pebble": PebblePeer,
    "mpire": MpirePeer,
    "deadpool": DeadpoolPeer,
}
DISTRIBUTIONS = {
    "bossworker": "bossworker",
    "loky": "loky",
    "joblib": "joblib",
    "pebble": "pebble",
    "mpire": "mpire",
    "deadpool": "deadpool-executor",
}
NAMES = {"pool": "Pool", "executor": "ProcessPoolExecutor"}

LABELS = {
    "bossworker.bulk": "bossworker add_work",
    "bossworker.each": "bossworker add_work, a call a job",
    "bossworker.one": "bossworker",
    "nospin.bulk": "bossworker add_work, never spinning",
    "nospin.one": "bossworker, never spinning",
    "pool.map": "Pool.map, its own chunks",
    "pool.imap_64": "Pool.imap_unordered(chunksize=64)",
    "pool.imap_1": "Pool.imap_unordered(chunksize=1)",
    "pool.each": "Pool.apply_async",
    "pool.one": "Pool.apply",
    "executor.each": "ProcessPoolExecutor.submit",
    "executor.as_completed": "ProcessPoolExecutor.submit, as_completed",
    "executor.map_1": "ProcessPoolExecutor.map(chunksize=1)",
    "ours.each": "bossworker.Executor.submit",
    "ours.map_1": "bossworker.Executor.map",
    "ours.one": "bossworker.Executor",
    "executor.map_64": "ProcessPoolExecutor.map(chunksize=64)",
    "loky.each": "loky submit",
    "loky.map_64": "loky map(chunksize=64)",
    "joblib.bulk": "joblib.Parallel",
    "pebble.each": "pebble schedule(timeout=30)",
    "pebble.map_64": "pebble map(chunksize=64, timeout=30)",
    "mpire.imap": "mpire imap_unordered",
    "mpire.each": "mpire apply_async",
    "deadpool.each": "deadpool submit(deadpool_timeout=30)",
}


def label(way: str) -> str:
    peer = way.partition(".")[0]
    return LABELS.get(way, NAMES.get(peer, peer))


def missing() -> dict[str, str]:
    """Peers that are not installed: name -> how to get them."""
    return {
        peer: f"not installed: pip install {distribution}"
        for peer, distribution in DISTRIBUTIONS.items()
        if importlib.util.find_spec(peer) is None
    }


def versions() -> dict[str, str]:
    """Of what is measured, and of what the numbers depend on."""
    found = {}
    for distribution in (*DISTRIBUTIONS.values(), "numpy", "pyzmq"):
        try:
            found[distribution] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return found
