"""``python -m benchmarks.tasks``: how long a task takes to start, what its supervisor holds, and how fast its streams
are.

Starts are measured in turn with `jobs.start`, which does less, so that a busy machine shows in both; with a pause
before each, so that what the last one started is not part of the next.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from bossworker import jobs
from bossworker.commands.supervision import launching
from bossworker.tasks import Task, TaskPool

COMMAND = ["sleep", "600"]
STARTS = 100
SETTLE_SECONDS = 0.5  # for processes that were told to end to be gone
WRITTEN = 1 << 30  # bytes to stdout
CAP = 1 << 20
FED = 100_000_000  # bytes to stdin
READER = "import os\nwhile os.read(0, 1 << 16): pass"


def print_starts(pool: TaskPool, root: Path, pause: float) -> list[Task]:
    """Spawn tasks and start jobs in turn; the tasks."""
    begin = time.perf_counter()
    tasks = [pool.spawn(COMMAND)]
    print(f"spawn, the first in a process: {1000 * (time.perf_counter() - begin):.1f} ms")
    spawns, starts = [], []
    for _ in range(STARTS):
        time.sleep(pause)
        begin = time.perf_counter()
        tasks.append(pool.spawn(COMMAND))
        spawns.append(1000 * (time.perf_counter() - begin))
        time.sleep(pause)
        begin = time.perf_counter()
        jobs.start(["true"], root=root)
        starts.append(1000 * (time.perf_counter() - begin))
    for name, values in (("spawn, warm", spawns), ("jobs.start, warm", starts)):
        values.sort()
        print(
            f"{name}: p50 {values[STARTS // 2]:.2f} ms, p10 {values[STARTS // 10]:.2f}, p90 {values[-STARTS // 10]:.2f}"
        )
    begin = time.perf_counter()
    found = pool.search({"status": {"running": True}})
    print(f"search among {len(found)} running: {1000 * (time.perf_counter() - begin):.1f} ms")
    return tasks


def print_memory(tasks: list[Task]) -> None:
    """The pages that belong to a supervisor alone, by /proc/PID/smaps_rollup: beside others, and the last of them."""
    together = statistics.median(private_kib(task.pid) for task in tasks)
    launching.close_launcher()
    for task in tasks[1:]:
        task.delete()
    time.sleep(SETTLE_SECONDS)
    print(f"a supervisor's own memory: {together:.0f} KiB beside others, {private_kib(tasks[0].pid)} KiB alone")
    tasks[0].delete()


def private_kib(pid: int) -> int:
    """USS of a process, in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def print_streams(pool: TaskPool) -> None:
    """Bytes a second through a supervisor, and what that adds to its memory."""
    producer = ["head", "-c", str(WRITTEN), "/dev/zero"]
    for name, cap in (("all kept", None), (f"{CAP >> 20} MiB kept", CAP)):
        task = pool.spawn(producer, max_read_buf_size=cap)
        before = private_kib(task.pid)
        task.wait()
        elapsed = task.info(fresh=True)["times"]["elapsed"]
        grown = private_kib(task.pid) - before
        print(f"stdout of {WRITTEN >> 20} MiB, {name}: {WRITTEN / elapsed / 1e6:,.0f} MB/s, {grown:+} KiB of memory")
        task.delete()
    begin = time.perf_counter()
    subprocess.run(f"{' '.join(producer)} | cat > /dev/null", shell=True, check=True)
    print(f"the same through `cat > /dev/null`: {WRITTEN / (time.perf_counter() - begin) / 1e6:,.0f} MB/s")
    task = pool.spawn(["python3", "-c", READER])
    begin = time.perf_counter()
    task.stream("stdin").write(bytes(FED))
    print(f"stdin of {FED / 1e6:.0f} MB: {FED / (time.perf_counter() - begin) / 1e6:,.0f} MB/s")
    task.delete()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds before each start")
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    with TemporaryDirectory(prefix="bossworker-tasks-") as folder:
        pool = TaskPool(folder)
        root = Path(folder, "jobs")
        print_memory(print_starts(pool, root, options.pause))
        print_streams(pool)
        time.sleep(SETTLE_SECONDS)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
