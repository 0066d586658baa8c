"""A client in a few lines and without bossworker: what a program in C or Go would do, over a plain ZeroMQ socket.

    python examples/json_client.py ADDRESS JOB...

ADDRESS is what ``pool.listen(accept="json").address`` says; a JOB is a JSON object. ARCHITECTURE.md has the protocol.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import zmq


def main(address: str, *jobs: str) -> int:
    """Run jobs in the pool at this address; print a line a result."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as door:

        def say(**message: Any) -> None:
            door.send(json.dumps(message).encode())

        door.linger, door.rcvtimeo = 0, 60_000  # milliseconds
        door.connect(address)
        say(op="hello", version=1, form="json", program="json_client")
        say(op="submit", jobs=[{"id": n, "job": json.loads(job)} for n, job in enumerate(jobs, 1)], timeout=10)
        say(op="close")  # that is all: tell me when I have all results
        taken = 0
        while (message := json.loads(data := door.recv()))["op"] not in ("closed", "refused", "goodbye"):
            for result in message.get("results", ()):
                print(result["id"], "ok" if result["ok"] else result["error_kind"], json.dumps(result["result"]))
            if message["op"] == "results":
                taken += len(data)
                say(op="credit", bytes=taken)  # or the door sends no more than its window
        print(message["op"], message.get("reason", ""), file=sys.stderr if message["op"] != "closed" else sys.stdout)
        return 0 if message["op"] == "closed" else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run jobs in a pool that listens with accept='json'.")
    parser.add_argument("address", help="what pool.listen(accept='json').address says")
    parser.add_argument("jobs", nargs="+", metavar="JOB", help="a JSON object")
    given = parser.parse_args()
    sys.exit(main(given.address, *given.jobs))
