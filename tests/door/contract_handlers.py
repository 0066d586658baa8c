"""What the pools of the contract's tests do. Workers elsewhere load it: so it loads nothing else of the tests."""

from __future__ import annotations

import os
import signal
import time
from typing import Any


def work(job: dict[str, Any]) -> Any:
    match job.get("do"):
        case "raise":
            raise ValueError("rattle")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)
        case "sleep":
            time.sleep(job["seconds"])
        case "own error":
            return {"ERROR": "so so", "n": job["n"]}
        case "nothing":
            return None
        case "number":
            return 17
    return {"n": job.get("n"), "data": job.get("data")}
