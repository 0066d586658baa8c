"""One pool for several programs: here the workers of a web server, each a process of its own.

    python examples/shared_pool.py [--workers N] [--requests N]

Without a shared pool, each of them would have one, all with as many processes as there are CPUs. With it, there are so
many for all; each has its turn, and one that dies takes nothing along but its own jobs.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys

from arguments import MAX_WORKERS, whole

import bossworker
from bossworker import BossWorker


def thumbnail(job: dict[str, str]) -> dict[str, str]:
    """Stands for something that takes its time."""
    return {"thumbnail": hashlib.sha256(job["image"].encode() * 1000).hexdigest()[:12]}


def serve(address: str, me: str, requests: int) -> None:
    """One of the web server's workers: it has the pool do what would hold it up."""
    with bossworker.connect(address) as pool:
        for result in pool.map(({"image": f"{me}/{n}.jpg"} for n in range(requests)), ordered=False):
            result.raise_for_error()
        line = f"web worker {me}: {requests} thumbnails, from a pool of {len(pool.stats().workers)}\n"
        print(line, end="", flush=True)  # with its end, by one write: others print there, too


def main() -> int:
    """Run the program; its exit code."""
    parser = argparse.ArgumentParser(description="Several programs share one pool.")
    parser.add_argument(
        "--workers", type=whole(1, MAX_WORKERS), default=2, metavar="N", help="of the pool (default: 2)"
    )
    parser.add_argument("--requests", type=whole(1, 10**6), default=50, metavar="N", help="each (default: 50)")
    parser.add_argument("--serve", nargs=2, metavar=("ADDRESS", "NAME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        address, me = options.serve
        serve(address, me, options.requests)
        return 0
    with BossWorker(thumbnail, worker_count=options.workers) as pool, pool.listen() as door:
        command = [sys.executable, *sys.orig_argv[1 : -len(sys.argv)], sys.argv[0], "--requests", str(options.requests)]
        servers = [subprocess.Popen([*command, "--serve", door.address, name]) for name in "abc"]
        failed = sum(server.wait() != 0 for server in servers)
        print(f"{pool.stats().done} thumbnails in all, {failed} web workers failed")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
