"""A program that forks, and knows nothing of any queue. Its children note in a file when they start and end.

    python unaware.py FILE COUNT CROWD

The first children stay until CROWD of them have started.
"""

import os
import sys
import time
from pathlib import Path

PATIENCE_SECONDS = 20  # for a crowd to gather


def note(path: str, mark: str) -> None:
    with open(path, "ab", buffering=0) as file:
        file.write(mark.encode())


def child(path: str, crowd: int) -> None:
    note(path, "+")
    give_up = time.monotonic() + PATIENCE_SECONDS
    while Path(path).read_text().count("+") < crowd and time.monotonic() < give_up:
        time.sleep(0.005)
    note(path, "-")


def main(path: str, count: int, crowd: int) -> None:
    codes = {}
    for code in range(count):
        pid = os.fork()
        if pid == 0:
            child(path, crowd)
            os._exit(code)
        codes[pid] = code
    while codes:
        pid, status = os.wait()
        if os.waitstatus_to_exitcode(status) != codes.pop(pid):
            sys.exit("a wrong exit code")
    try:
        os.wait()
    except ChildProcessError:
        print("all well")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
