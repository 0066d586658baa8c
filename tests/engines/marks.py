"""Jobs that leave a mark each time that they are run. Workers elsewhere load this: so it loads little itself."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

PATIENCE = 60.0  # seconds; a machine may be busy with other things


def leave_a_mark(job: dict[str, Any]) -> dict[str, Any]:
    """A job that tells each time that it is run, and waits for a file if it has to."""
    with (Path(job["folder"]) / "runs").open("a") as file:
        file.write(f"{job['n']} {os.getppid()}\n")
    while job.get("waits") and not (Path(job["folder"]) / "go").exists():
        time.sleep(0.01)
    return {"n": job["n"]}


def runs(folder: Path) -> Counter[int]:
    """How often each job was run."""
    file = folder / "runs"
    return Counter(int(line.split()[0]) for line in file.read_text().splitlines()) if file.exists() else Counter()
