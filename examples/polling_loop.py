"""A program with a loop of its own that uses a pool without ever waiting for it.

    python examples/polling_loop.py [--jobs N] [--workers N]

Type a number to have the primes below it counted; meanwhile the loop goes on counting by itself. The end of the input
(Ctrl-D) ends the program when all jobs are done; `q` ends it at once. `--jobs N` adds N jobs at the start.
"""

from __future__ import annotations

import argparse
import os
import selectors
import sys

from arguments import MAX_WORKERS, whole

from bossworker import BossWorker, Result

TICK_SECONDS = 0.1  # of the loop's own counter
SMALLEST, LARGEST = 2, 100_000_000  # the numbers taken as jobs
CLEAR_LINE = "\r\x1b[K"


def count_primes(job: dict[str, int]) -> dict[str, int]:
    """The work handler: the number of primes below a limit, by sieve."""
    limit = job["below"]
    sieve = bytearray([1]) * limit
    sieve[:2] = bytes(min(2, limit))
    for n in range(2, int(limit**0.5) + 1):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, limit, n)))
    return {"primes": sum(sieve)}


class Loop:
    """The program: its counter, its input, its pool."""

    def __init__(self, pool: BossWorker) -> None:
        self.pool = pool
        self.selector = selectors.DefaultSelector()
        self.ticks = 0
        self.partial = b""  # a line that has not ended yet
        self.input_open = True
        self.quit = False
        self.on_terminal = sys.stdout.isatty()

    def run(self) -> None:
        """Until there is nothing left to wait for."""
        with self.selector:
            self.selector.register(self.pool, selectors.EVENT_READ, self.take_results)  # it has a fileno()
            self.watch_input()
            while not self.quit and (self.input_open or self.pool.pending()):
                for key, _ in self.selector.select(TICK_SECONDS):
                    key.data()
                self.tick()

    def tick(self) -> None:
        """What the program does besides."""
        self.ticks += 1
        if self.on_terminal:
            print(f"{CLEAR_LINE}{self.ticks} ticks, {self.pool.pending()} jobs pending ", end="", flush=True)

    def take_results(self) -> None:
        """The pool's descriptor was readable: take what there is, and wait for nothing."""
        while (result := self.pool.get_result_nb()) is not None:
            self.say(describe(result))

    def watch_input(self) -> None:
        """Have stdin watched; a plain file or /dev/null cannot be, but never blocks either."""
        if sys.stdin is None:  # closed from the start
            self.input_open = False
            return
        try:
            self.selector.register(0, selectors.EVENT_READ, self.read_input)
        except PermissionError:
            while self.input_open and not self.quit:
                self.read_input()

    def read_input(self) -> None:
        """Stdin was readable: a look is enough, a line may come in parts."""
        data = os.read(0, 4096)
        *lines, self.partial = (self.partial + data).split(b"\n")
        if not data:
            self.input_open = False
            lines.append(self.partial)
            if 0 in self.selector.get_map():
                self.selector.unregister(0)
        for line in lines:
            if not self.quit:
                self.obey(line.decode(errors="replace").strip())

    def obey(self, line: str) -> None:
        """One line of input."""
        if line == "q":
            self.quit = True
        elif line.isdecimal() and SMALLEST <= int(line) <= LARGEST:
            self.pool.add_work({"below": int(line)})
        elif line:
            self.say(f"a number from {SMALLEST} to {LARGEST}, or q, please; not {line!r}")

    def say(self, text: str) -> None:
        """A line of output, above the counter."""
        print(f"{CLEAR_LINE if self.on_terminal else ''}{text}", flush=True)


def describe(result: Result) -> str:
    """A result in words."""
    if not result.ok:
        return f"job {result.job_id}: {result.error}"
    return f"job {result.job_id}: {result['primes']} primes below {result.job['below']}, {result.duration:.3f} s"


def main() -> int:
    """Run the program; its exit code."""
    parser = argparse.ArgumentParser(description="Count primes in a pool, from a loop that never waits for it.")
    parser.add_argument(
        "--jobs", type=whole(0, LARGEST // 1000), default=0, metavar="N", help="jobs to add at the start (default: 0)"
    )
    parser.add_argument(
        "--workers", type=whole(1, MAX_WORKERS), metavar="N", help="default: the CPUs this process may use"
    )
    options = parser.parse_args()
    with BossWorker(count_primes, worker_count=options.workers, global_timeout=60) as pool:
        pool.add_work(*({"below": 1000 * n} for n in range(1, options.jobs + 1)))
        loop = Loop(pool)
        loop.run()
        left = pool.pending()
        pool.shut_down(force=True)  # at once, whatever is left
    loop.say(f"the end after {loop.ticks} ticks; jobs left: {left}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
