"""Runs Python programs, each in a fork of this process, which has loaded what they need: so a page takes one start.

Reads paths from stdin, a line each; answers each with a line of JSON: its exit status, and what it has written.
Warnings are errors here, as of ``python -W error``.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile

import bossworker


def load_all() -> None:
    """What most programs import, once for all of them."""
    for name in ("BossWorker", "Executor", "AsyncBossWorker", "jobs", "tasks", "forkqueue", "run_command"):
        getattr(bossworker, name)


def run_forked(path: str) -> tuple[int, str, str]:
    """Run a program as ``__main__``: exit status, stdout, stderr."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if (pid := os.fork()) == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.argv = [path]
            os.chdir(os.path.dirname(path))
            sys.path.insert(0, os.path.dirname(path))
            runpy.run_path(path, run_name="__main__")
            sys.exit()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0)
        err.seek(0)
        return status, out.read().decode(), err.read().decode()


def main() -> None:
    load_all()
    for line in sys.stdin:
        print(json.dumps(run_forked(line.strip())), flush=True)


if __name__ == "__main__":
    main()
