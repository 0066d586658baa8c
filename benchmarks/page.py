"""What an open page costs a pool: ``python -m benchmarks.page``. The floor is 1 % at 100,000 jobs a second.

One pool, with its page served; turns with somebody who reads the stream, as a tab does, and without, in pairs. The pool
is given as many jobs a second as asked for (``--rate 0``: as many as it takes). Processor time is that of the program,
the boss, its fork server, the workers and the door: all but the page's own process, which is told apart.

On a machine with other work, pairs differ by more than a page costs. So what a look costs is measured by itself, too:
many in a row, right after as many jobs as there are between two looks. Its share follows from the pool's time a job.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from benchmarks import procfs
from benchmarks.handlers import multiply
from bossworker import BossWorker, RemoteOperator, operate
from bossworker.web.watched_pool import LOOK_SECONDS, USAGE_SECONDS

RATE = 100_000  # jobs a second
BATCH_SECONDS = 0.05  # worth of jobs that are added at a time
FULL_BATCH = 20_000  # jobs, where the rate has no limit
WARM_SECONDS = 1.0
LOOKS, ROUNDS = 25, 15  # that are measured together; the median counts
USAGE_EVERY = round(USAGE_SECONDS / LOOK_SECONDS)  # looks, of which one asks for memory and processor time, too


class Turn(NamedTuple):
    """Of one turn: jobs a second, and microseconds of processor time a job."""

    rate: float
    pool: float
    boss: float
    page_share: float
    """Of one processor, by the page's own process."""


class Load:
    """A pool, and the jobs for it."""

    def __init__(self, pool: BossWorker, rate: float) -> None:
        self.pool = pool
        self._seconds = BATCH_SECONDS if rate else 0.0
        self._jobs = [{"a": n, "b": 2} for n in range(int(rate * BATCH_SECONDS) or FULL_BATCH)]
        self.others: list[int] = []  # processes that are not the pool's
        self._page = [pid for pid in procfs.descendants() if _title(pid).endswith(": page")]

    def turn(self, seconds: float) -> Turn:
        before, began = self._usage(), time.monotonic()
        done, due = 0, began
        while (now := time.monotonic()) < began + seconds:
            if now < due:
                time.sleep(due - now)
            due += self._seconds
            self.pool.add_work(*self._jobs)
            done += sum(1 for _ in self.pool.results())
        took = time.monotonic() - began
        pool, boss, page = (after - earlier for after, earlier in zip(self._usage(), before, strict=True))
        return Turn(done / took, pool / done * 1e6, boss / done * 1e6, page / took)

    def look_seconds(self, operator: RemoteOperator) -> float:
        """Of the pool's processes (but for the program), for one look."""
        others = [pid for pid in procfs.descendants() if pid not in self._page]
        costs: list[float] = []
        told = 3 * len(self._jobs)  # events
        for _ in range(ROUNDS):
            self.turn(LOOK_SECONDS)  # which is what there is to be told of
            seen = operator.now(usage=False).seen
            before = procfs.usage(others).cpu_seconds
            for number in range(LOOKS):
                operator.now(max(0, seen - told), usage=not number % USAGE_EVERY)
            costs.append((procfs.usage(others).cpu_seconds - before) / LOOKS)
        return statistics.median(costs)

    def _usage(self) -> tuple[float, float, float]:
        """Seconds of the pool, of its boss, of the page."""
        ours = [os.getpid(), *(pid for pid in procfs.descendants() if pid not in {*self._page, *self.others})]
        return (
            procfs.usage(ours).cpu_seconds,
            procfs.usage([self.pool.boss_pid]).cpu_seconds,
            procfs.usage(self._page).cpu_seconds,
        )


_READER = """
import sys, urllib.request
base, _, token = sys.argv[1].partition("/?token=")
request = urllib.request.Request(base + "/events", headers={"Authorization": "Bearer " + token})
with urllib.request.urlopen(request) as answer:
    for line in answer:
        print(len(line), flush=True)
"""


@contextmanager
def reading(url: str) -> Iterator[int]:
    """Somebody reads the stream, in a process of its own: its pid."""
    with subprocess.Popen([sys.executable, "-c", _READER, url], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        for _ in range(4):  # it is up
            reader.stdout.readline()
        drain = threading.Thread(target=reader.stdout.read)
        drain.start()
        try:
            yield reader.pid
        finally:
            reader.kill()
            drain.join()


def _title(pid: int) -> str:
    try:
        return (procfs.PROC / str(pid) / "cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
    except OSError:
        return ""


Pairs = list[tuple[Turn, Turn]]


def measure(rate: float, pairs: int, seconds: float, workers: int) -> tuple[Pairs, float]:
    """Turns without and with a reader, in pairs, which comes first alternates; and the seconds of a look."""
    with BossWorker(multiply, worker_count=workers, name="floor") as pool:
        url = pool.web()
        load = Load(pool, rate)
        load.turn(WARM_SECONDS)
        found = []
        for number in range(pairs):
            turns: dict[bool, Turn] = {}
            for watched in (bool(number % 2), not number % 2):
                if watched:
                    with reading(url) as pid:
                        load.others = [pid]
                        turns[watched] = load.turn(seconds)
                else:
                    turns[watched] = load.turn(seconds)
            found.append((turns[False], turns[True]))
        with operate("floor") as operator:  # by the door that the page has
            return found, load.look_seconds(operator)


def report(found: Pairs, look: float, rate: float) -> str:
    lines = []
    for name in ("rate", "pool", "boss"):
        without, watched = ([getattr(turn, name) for turn in turns] for turns in zip(*found, strict=True))
        shares = sorted(100 * (b / a - 1) for a, b in zip(without, watched, strict=True))
        middle = statistics.median(shares)
        told = {"rate": "jobs a second", "pool": "µs of the pool a job", "boss": "µs of the boss a job"}[name]
        lines.append(
            f"{told:22} without {statistics.median(without):12,.3f}  with {statistics.median(watched):12,.3f}"
            f"  {middle:+.2f} % ({shares[0]:+.1f} to {shares[-1]:+.1f})"
        )
    pages = [statistics.median(turn.page_share for turn in turns) for turns in zip(*found, strict=True)]
    lines.append(f"the page's own process, of one processor: without {pages[0]:.1%}, with {pages[1]:.1%}")
    a_second = statistics.median((rate or without.rate) * without.pool for without, _ in found) * 1e-6
    share = look / LOOK_SECONDS / a_second
    lines.append(f"a look: {look * 1e3:.2f} ms of the pool, {1 / LOOK_SECONDS:.0f} a second: {share:.2%} of its time")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--rate", type=float, default=RATE, help=f"jobs a second (default {RATE}); 0: no limit")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0, help="a turn")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    found, look = measure(options.rate, options.pairs, options.seconds, options.workers)
    print(report(found, look, options.rate))


if __name__ == "__main__":
    main()
