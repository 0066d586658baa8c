"""A board of background tasks: start a few, look at them from any terminal, and steer them.

    python examples/task_board.py start [FOLDER]     three tasks: compress, find, count; they outlive this program
    python examples/task_board.py list               all of them, with their progress
    python examples/task_board.py tail NAME          the output so far, and what comes, until the task ends (or Ctrl-C)
    python examples/task_board.py pause NAME         and `resume`
    python examples/task_board.py end NAME           stop it; its output stays
    python examples/task_board.py delete NAME        and remove all that there is of it

NAME is a task's name or its pid; `all` means every task. `--pool DIRECTORY` names another pool than the user's own.
`start` compresses a file that it makes first, finds the largest files below FOLDER (by default Python's own library),
and runs a loop that counts primes and tells of its progress in its metadata.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bossworker.tasks import Task, TaskError, TaskGone, TaskPool, current

LINES = 400_000  # of the file to be compressed
PRIMES_BELOW = 2_000_000
STEP = 20_000  # numbers between two reports of progress


COMPRESS = """
exec < "$MADE"
rm "$MADE"  # whatever ends this task, nothing stays
echo "$(gzip --best | wc -c) bytes"
"""


# -- starting -------------------------------------------------------------------------------------------


def start(pool: TaskPool, folder: Path) -> None:
    """The three tasks."""
    with tempfile.NamedTemporaryFile("w", prefix="task-board-", suffix=".txt", delete=False) as made:
        made.writelines(f"line {n}: {n * n}\n" for n in range(LINES))
    library = str(Path(__file__).resolve().parents[1])
    tasks = [
        pool.spawn(
            cmd=COMPRESS,
            env={"MADE": made.name},
            behavior="daemon",
            meta={"name": "compress"},
        ),
        pool.spawn(
            cmd='find "$FOLDER" -type f -size +100k -exec ls -l {} +',
            env={"FOLDER": str(folder)},
            behavior="daemon",
            meta={"name": "find"},
        ),
        pool.spawn(
            [sys.executable, __file__, "count"],
            env={"PYTHONPATH": library},
            behavior="daemon",
            meta={"name": "count"},
            restart="on-failure",
            restart_limit=3,
        ),
    ]
    for task in tasks:
        print(f"{task.info()['meta']['name']}: task {task.pid}")


def count() -> None:
    """What the task `count` runs: a program that knows that it is a task."""
    task = current()
    found = 0
    for n in range(2, PRIMES_BELOW):
        found += all(n % d for d in range(2, int(n**0.5) + 1))
        if n % STEP == 0 and task is not None:
            task.apply_meta(progress=f"{n / PRIMES_BELOW:.0%}")
            print(f"{found} primes below {n}", flush=True)


# -- looking --------------------------------------------------------------------------------------------


def show(pool: TaskPool) -> None:
    """A line a task."""
    print(f"{'pid':>8}  {'name':10} {'state':22} {'seconds':>8} {'output':>9}  progress")
    for task in pool.search():
        info = task.info()
        name, output = info["meta"].get("name", "-"), info["streams"]["stdout"]["limit"]
        progress = info["meta"].get("progress", "")
        print(f"{task.pid:8}  {name:10} {state(info):22} {seconds(info):8.1f} {output:9}  {progress}")


def state(info: dict[str, Any]) -> str:
    """How it stands, in words."""
    status = info["status"]
    if status["paused"]:
        return "paused"
    if status["signal"]:
        return f"{status['state'].split()[0]} by signal {status['signal']}"
    return str(status["state"])


def seconds(info: dict[str, Any]) -> float:
    """How long it has run."""
    times = info["times"]
    return float(times["elapsed"] or time.time() - (times["started"] or time.time()))


def tail(tasks: list[Task]) -> None:
    """Output so far, and as it comes."""
    for task in tasks:
        for chunk in task.stream("stdout").follow():
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()


# -- the program ----------------------------------------------------------------------------------------


def named(pool: TaskPool, name: str) -> list[Task]:
    """The tasks that are meant. SystemExit when there is none."""
    found = pool.search(
        lambda info: name in (info["meta"].get("name"), str(info["supervisor"]["pid"])) or name == "all"
    )
    if not found:
        raise SystemExit(f"no task {name!r} in {pool.path}")
    return found


def steer(tasks: list[Task], action: str) -> None:
    """Do the same to each of them."""
    for task in tasks:
        if action == "end":
            task.terminate_supervisor()
        elif action == "delete":
            task.delete()
        elif not pause(task, action == "pause"):
            print(f"{task.info()['meta'].get('name', task.pid)}: not running")


def pause(task: Task, on: bool) -> bool:
    """Pause it, or let it go on; whether it runs."""
    try:
        return task.pause(on)
    except TaskGone:
        return False


def main() -> int:
    """Run the program; its exit code."""
    parser = argparse.ArgumentParser(description="A board of background tasks.")
    parser.add_argument("--pool", metavar="DIRECTORY", help="the pool's directory")
    commands = parser.add_subparsers(dest="action", required=True)
    starting = commands.add_parser("start")
    starting.add_argument("folder", nargs="?", type=Path, default=Path(argparse.__file__).parent)
    commands.add_parser("list")
    commands.add_parser("count")
    for action in ("tail", "pause", "resume", "end", "delete"):
        commands.add_parser(action).add_argument("name")
    options = parser.parse_args()
    if options.action == "count":
        count()
        return 0
    try:
        pool = TaskPool(options.pool, mkdir_if_missing=True if options.action == "start" else None)
        if options.action == "start":
            start(pool, options.folder)
        elif options.action == "list":
            show(pool)
        elif options.action == "tail":
            tail(named(pool, options.name))
        else:
            steer(named(pool, options.name), options.action)
    except BrokenPipeError:  # whoever reads what we print has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (TaskError, OSError) as error:
        print(f"task_board: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
