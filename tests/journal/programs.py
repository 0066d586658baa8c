"""Programs that own a journal, and are killed; and what is to be known of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bossworker.system import processes

_HEAD = """
import json, os, sys, time
from pathlib import Path
from bossworker import BossWorker

def note(job):
    with open(job["log"], "a") as file:
        file.write(f"{job['n']}\\n")
    time.sleep(job.get("seconds", 0))
    return {"n": job["n"]}

def tell(value):
    print(json.dumps(value), flush=True)

path, log = sys.argv[1], sys.argv[2]
"""


class Program:
    """A program in a process of its own; its body may use `note`, `tell`, `path` and `log`."""

    def __init__(self, body: str, journal: Path, log: Path, variables: Mapping[str, str] | None = None) -> None:
        text = _HEAD + textwrap.dedent(body)
        command = [sys.executable, "-W", "error", "-c", text, str(journal), str(log)]
        environment = {**os.environ, **(variables or {})}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def told(self) -> Any:
        """The next thing that it tells."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the program has ended"
        return json.loads(line)

    def tree(self) -> dict[str, list[int]]:
        """The pids of its pool's processes, by what they are."""
        pids: dict[str, list[int]] = {"program": [self.process.pid]}
        for pid in processes.descendants(self.process.pid):
            pids.setdefault(role(pid), []).append(pid)
        return pids

    def begin_at(self, number: int) -> None:
        """Once its pool is up, tell it with which job to begin."""
        assert self.told() == "up"
        assert self.process.stdin is not None
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()

    def kill_in_turn(self, victims: Sequence[str], seconds: float) -> None:
        """SIGKILL to these, or to all; and to the program after a while, if it was not one of them."""
        self.kill(*victims)
        if victims and "program" not in victims:
            time.sleep(seconds)
            self.kill("program")

    def kill(self, *roles: str) -> None:
        """SIGKILL to processes of these roles, or to all of them: none of these does anything more once it returns."""
        tree = self.tree()
        assert {*roles} - {"worker"} <= tree.keys(), "whom to kill is not there"
        pids = [pid for role in roles or tree for pid in tree.get(role, [])]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        if "program" in roles or not roles:
            self.wait()

    def wait(self) -> int:
        """Its end."""
        with self.process:
            pass
        return self.process.returncode


_NAMES = {"bossworker boss": "boss", "bossworker fork": "fork server", "bossworker scri": "scribe"}


def role(pid: int) -> str:
    """What a process of a pool is: by its name, of which there are 15 characters."""
    try:
        return _NAMES.get(Path(f"/proc/{pid}/comm").read_text().strip(), "worker")
    except OSError:
        return "gone"
