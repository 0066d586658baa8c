"""``python -m benchmarks.commands``: commands beside xargs and GNU parallel; detached jobs; many job directories.

Commands are run in a pool that is up, with job directories that stay, and by ``bossworker run`` from start to end.

All sides run ``/bin/true`` two at a time, in turn (A B C A B C ...), in folders of one disk, which are deleted only
at the end: a file system may be slow to make files where it has just deleted many.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measure import spread
from bossworker import BossWorker, CommandHandler, jobs
from bossworker.commands import job_status, jobdir
from bossworker.commands.supervision import launching

WORKERS = 2
COMMAND = "/bin/true"
FLOORS = {"xargs": 0.9, "parallel": 8.0}
PARALLEL_SHARE = 10  # GNU parallel is given this part of the commands that a pool is
STARTS = 300
DIRECTORIES = 10_000

Side = Callable[[Path, int], float]


# -- commands a second ----------------------------------------------------------------------------------


@contextmanager
def pool(root: Path) -> Iterator[BossWorker]:
    """Up and warm."""
    with BossWorker(CommandHandler(root=root, keep="all"), worker_count=WORKERS) as made:
        made.add_work(*[{"cmd": [COMMAND]}] * 50)
        list(made.results())
        yield made


def ours(root: Path, count: int) -> float:
    """Seconds for this many commands, with their results taken and their directories kept."""
    with pool(root) as made:
        begin = time.perf_counter()
        made.add_work(*({"cmd": [COMMAND]} for _ in range(count)))
        good = sum(result.ok for result in made.results())
        seconds = time.perf_counter() - begin
    if good != count:
        sys.exit(f"only {good} of {count} commands went well")
    return seconds


def xargs(root: Path, count: int) -> float:
    return _timed(["xargs", f"-P{WORKERS}", "-n1", COMMAND], count)


def parallel(root: Path, count: int) -> float:
    root.mkdir()
    command = ["parallel", f"-j{WORKERS}", "--results", f"{root}/results", "--joblog", f"{root}/log", COMMAND]
    return _timed(command, count)


def _timed(command: list[str], count: int) -> float:
    lines = "\n".join(map(str, range(count))).encode()
    begin = time.perf_counter()
    subprocess.run(command, input=lines, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begin


SIDES: dict[str, Side] = {"bossworker": ours, "xargs": xargs, "parallel": parallel}


def measure_rates(
    folder: Path, count: int, rounds: int, sides: dict[str, Side], parallel_share: int = 1
) -> dict[str, list[float]]:
    """Commands a second of each side that is installed, a figure a turn. The first side is ours."""
    ours = next(iter(sides))
    sides = {name: side for name, side in sides.items() if name == ours or shutil.which(name)}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, side in sides.items():
            share = max(20, count // parallel_share) if name == "parallel" else count
            rates[name].append(share / side(folder / f"{name}{number}", share))
    return rates


def print_rates(rates: dict[str, list[float]], floors: dict[str, float]) -> None:
    ours = next(iter(rates))
    print(f"{COMMAND}, {WORKERS} at a time, commands a second: median (least to most)")
    for name, values in rates.items():
        median, least, most = spread(values)
        print(f"  {name:12} {median:8,.0f}  ({least:,.0f} to {most:,.0f})")
    for name, floor in floors.items():
        if name in rates:
            ratios = [mine / its for mine, its in zip(rates[ours], rates[name], strict=True)]
            median, least, most = spread(ratios)
            met = "met" if median >= floor else "MISSED"
            print(f"  {ours} / {name}: {median:.2f} ({least:.2f} to {most:.2f}); floor {floor}: {met}")


# -- bossworker run ---------------------------------------------------------------------------------------


def run(root: Path, count: int) -> float:
    root.mkdir()
    command = [sys.executable, "-m", "bossworker", "run", f"-j{WORKERS}", "--joblog", f"{root}/log", COMMAND]
    return _timed(command, count)


def parallel_run(root: Path, count: int) -> float:
    root.mkdir()
    return _timed(["parallel", f"-j{WORKERS}", "--joblog", f"{root}/log", COMMAND], count)


RUN_SIDES: dict[str, Side] = {"run": run, "xargs": xargs, "parallel": parallel_run}
RUN_FLOORS = {"xargs": 0.9, "parallel": 6.0}


def print_first_command() -> None:
    """How long `bossworker run` takes to its first command, which says when it runs, and to its end."""
    firsts, wholes = [], []
    for _ in range(15):
        begin = time.clock_gettime(time.CLOCK_MONOTONIC)
        command = [sys.executable, "-m", "bossworker", "run", "-j2", "date", "+%s.%N", ":::", "--utc"]
        told = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        end, now = time.clock_gettime(time.CLOCK_MONOTONIC), time.time()
        firsts.append(1000 * (float(told.stdout) - now + end - begin))
        wholes.append(1000 * (end - begin))
    first, whole = statistics.median(firsts), statistics.median(wholes)
    print(f"bossworker run: {first:.0f} ms to the first command (floor 60), {whole:.0f} ms for all of it")


# -- detached jobs --------------------------------------------------------------------------------------


FIRST = """
import time
begin = time.perf_counter()
from bossworker import jobs
middle = time.perf_counter()
jobs.start([{command!r}], root={root!r})
print(middle - begin, time.perf_counter() - middle)
"""


def print_starts(root: Path, pause: float) -> None:
    """How long `jobs.start` takes, the first time in a process, and after."""
    program = FIRST.format(command=COMMAND, root=str(root))
    firsts = [
        [float(part) for part in subprocess.check_output([sys.executable, "-c", program], text=True).split()]
        for _ in range(9)
    ]
    imports, starts = (1000 * statistics.median(column) for column in zip(*firsts, strict=True))
    print(f"jobs.start, the first in a process: {starts:.1f} ms, and {imports:.1f} ms for the import (floor 60)")
    warm = sorted(_start(root, pause) for _ in range(STARTS))
    print(f"jobs.start, warm: p50 {warm[STARTS // 2]:.2f} ms, p90 {warm[STARTS * 9 // 10]:.2f} ms (floor 5)")


def _start(root: Path, pause: float) -> float:
    begin = time.perf_counter()
    jobs.start([COMMAND], root=root)
    milliseconds = 1000 * (time.perf_counter() - begin)
    time.sleep(pause)  # as somebody who starts one now and then; what it started is not part of the next
    return milliseconds


def print_memory(root: Path) -> None:
    """What supervisors hold of their own: of several that share pages, and of one alone."""
    ids = [jobs.start(["sleep", "60"], root=root) for _ in range(10)]
    together = [_private(one, root) for one in ids]
    for one in ids[1:]:
        jobs.clean(one, root=root)
    launching.close_launcher()
    time.sleep(0.5)
    print(
        f"a supervisor's own memory: {max(together)} KiB beside others, {_private(ids[0], root)} KiB alone (floor 4096)"
    )
    jobs.clean(ids[0], root=root)


def _private(jobid: str, root: Path) -> int:
    told = jobs.info(jobid, root=root)
    assert told is not None
    lines = Path(f"/proc/{told.supervisor_pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


# -- many directories -----------------------------------------------------------------------------------


def print_looks(root: Path, count: int) -> None:
    """Listing, and the status of each."""
    root.mkdir()
    usage = os.wait4(subprocess.Popen([COMMAND]).pid, 0)[2]
    for _ in range(count):
        directory, streams = jobdir.create(str(root), {"argv": [COMMAND], "created": time.time()})
        directory.write_status(job_status.ended(job_status.running([1, 1, ""], None, time.time()), 0, usage, 0.1))
        for fd in streams:
            os.close(fd)
        directory.close()
    begin = time.perf_counter()
    states = [jobs.status(one, root=root) for one in jobs.listing(root)]
    seconds = time.perf_counter() - begin
    assert states == [jobs.Status.COMPLETED] * count
    print(f"listing and status of {count:,} job directories: {seconds:.2f} s (floor 2)")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commands")
    parser.add_argument("--count", type=int, default=2000, help="commands a turn (default 2000)")
    parser.add_argument("--rounds", type=int, default=5, help="turns a side (default 5)")
    parser.add_argument("--directories", type=int, default=DIRECTORIES, help=f"(default {DIRECTORIES})")
    parser.add_argument("--dir", help="where the job directories go (default: the folder for temporary files)")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="benchmark", dir=options.dir) as name:
        folder = Path(name)
        xargs(folder, int(options.count))
        print(f"load average {os.getloadavg()[0]:.1f}, job directories in {folder.parent}")
        print_rates(measure_rates(folder, options.count, options.rounds, SIDES, PARALLEL_SHARE), FLOORS)
        (folder / "run").mkdir()
        print_rates(measure_rates(folder / "run", 2 * options.count, options.rounds, RUN_SIDES), RUN_FLOORS)
        print_first_command()
        print_starts(folder / "starts", pause=0.01)
        print_memory(folder / "memory")
        print_looks(folder / "looks", options.directories)


if __name__ == "__main__":
    main()
