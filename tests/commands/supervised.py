"""Commands under a supervisor that the test itself forks, and the shell programs that make trouble."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Any

from bossworker.commands import jobdir
from bossworker.commands.supervision.supervisor import Order, Supervisor
from bossworker.system.cpython import loads
from bossworker.system.eventloop import Loop

ENVIRONMENT = [b"PATH=" + os.environb[b"PATH"], b"LC_ALL=C"]

ESCAPES = "import os, sys, time; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0); "
"""Python that forks twice, with a session of its own in between, and goes on as the grandchild."""


def escaping(then: str) -> list[str]:
    """A command whose grandchild has left its group, its session and its parents."""
    return [sys.executable, "-c", ESCAPES + then]


def supervise(root: Path, argv: list[str], **order: Any) -> tuple[Path, int]:
    """Run a command under a supervisor; its directory and the supervisor's pid."""
    root.mkdir(exist_ok=True)
    directory, (out, err) = jobdir.create(str(root), {"argv": argv})
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            stdio = os.open(os.devnull, os.O_RDONLY), out, err
            what = Order([os.fsencode(arg) for arg in argv], ENVIRONMENT, directory.files(), stdio, **order)
            supervisor = Supervisor(directory, what, Loop())
            supervisor.begin()
            supervisor.run()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    directory.close()
    os.close(out)
    os.close(err)
    return Path(directory.path), pid


def read_status(directory: Path) -> dict[str, Any]:
    try:
        return loads((directory / jobdir.STATUS).read_text())  # type: ignore[no-any-return]
    except FileNotFoundError:
        return {"state": "created"}
