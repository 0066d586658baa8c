"""``python -m benchmarks.door``: what a door costs its clients, and what a crowd of clients costs each other.

Floors: a round trip over ipc takes at most 1.5 times that of the pool's own handle; 200,000 tiny jobs a second in one
call over ipc, 100,000 over tcp with keys. Handles take turns, five rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import bossworker
from benchmarks.report import heading
from bossworker import BossWorker, Door
from bossworker.pool.door import addresses
from bossworker.pool.door.client_link import cut_message, shake_hands
from bossworker.pool.wire.zmtp import header_of

TURNS = 5
TRIPS = 200
BULK = 50_000
CLIENTS = 1000
FLOOD = 1_000_000
CALL = 100_000  # jobs of the flood in a call
FLOORS = {"ipc": 200_000, "tcp": 100_000}
MOST_RATIO = 1.5  # of a round trip over ipc


def work(job: dict[str, Any]) -> dict[str, Any]:
    return {"n": job["n"]}


def trip(handle: BossWorker, trips: int = TRIPS) -> float:
    """Seconds of a round trip, the median."""
    taken = []
    for n in range(trips):
        begin = time.perf_counter()
        handle.add_work({"n": n})
        handle.get_result()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def bulk(handle: BossWorker) -> float:
    """Jobs a second, added in one call."""
    jobs = [{"n": n} for n in range(BULK)]
    begin = time.perf_counter()
    handle.add_work(*jobs)
    assert sum(1 for _ in handle.results()) == BULK
    return BULK / (time.perf_counter() - begin)


def compare(pool: BossWorker) -> None:
    """A client's handles beside the pool's own."""
    keys = bossworker.keys()
    tcp = pool.listen("tcp://127.0.0.1:0", keys=keys)
    faces = {
        "own": pool,
        "ipc": bossworker.connect(pool.listen().address),
        "tcp": bossworker.connect(tcp.address, keys=keys),
    }
    trips: dict[str, list[float]] = {name: [] for name in faces}
    rates: dict[str, list[float]] = {name: [] for name in faces}
    for handle in faces.values():
        trip(handle)
    for _ in range(TURNS):
        for name, handle in faces.items():
            trips[name].append(trip(handle))
            rates[name].append(bulk(handle))
    print("| by | a round trip | of the own | tiny jobs in one call | floor |\n| --- | --- | --- | --- | --- |")
    for name in faces:
        ratio = statistics.median(a / b for a, b in zip(trips[name], trips["own"], strict=True))
        floor = f"{FLOORS[name]:,}/s" if name in FLOORS else ""
        most = f" (at most {MOST_RATIO})" if name == "ipc" else ""
        print(
            f"| {name} | {statistics.median(trips[name]) * 1e6:.0f} µs | {ratio:.2f}{most} |"
            f" {statistics.median(rates[name]):,.0f}/s | {floor} |"
        )
    for name in FLOORS:
        faces[name].shut_down()


# -- a crowd --------------------------------------------------------------------------------------------


def say(sock: socket.socket, **message: Any) -> None:
    data = json.dumps(message).encode()
    sock.sendall(header_of(len(data)) + data)


def await_result(sock: socket.socket) -> None:
    read = b""
    while True:
        while (cut := cut_message(read, 1 << 20)) is None:
            read += sock.recv(1 << 16)
        message, read = cut
        if json.loads(message)["op"] == "results":
            return


@contextmanager
def crowd(door: Door, clients: int) -> Iterator[list[socket.socket]]:
    """Clients as programs without bossworker would be, in this process."""
    hello = {"op": "hello", "version": 1, "form": "json"}
    socks = []
    try:
        for _ in range(clients):
            socks.append(sock := addresses.dial(door.address.removeprefix("ipc://"), 30))
            shake_hands(sock, hello, time.monotonic() + 30)
            sock.setblocking(True)
        yield socks
    finally:
        for sock in socks:
            sock.close()


def measure_crowd(pool: BossWorker, clients: int) -> None:
    """Each client of a crowd has one job, and another client a million, which were added before."""
    door = pool.listen(accept="json")
    print(f"\nowner's round trip with nobody there: {trip(pool) * 1e6:.0f} µs")
    with crowd(door, clients) as socks, bossworker.connect(pool.listen(f"{door.address}-flood").address) as flood:
        print(f"with {clients:,} idle clients: {trip(pool) * 1e6:.0f} µs")
        jobs = [{"n": n} for n in range(CALL)]
        for _ in range(FLOOD // CALL):
            flood.add_work(*jobs)
        left = pool.stats().queued
        begin = time.perf_counter()
        for n, sock in enumerate(socks):
            say(sock, op="submit", jobs=[{"id": 1, "job": {"n": n}}])
        for sock in socks:
            await_result(sock)
        seconds = time.perf_counter() - begin
        done = left - pool.stats().queued
        told = f"all in {seconds:.2f} s, {done:,} of those done"
        print(f"one job of each, beside {left:,} queued jobs of one client: {told}")
        print(f"owner's round trip beside both: {trip(pool) * 1e6:.0f} µs")
        assert sum(1 for _ in flood.results()) == FLOOD


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    options = parser.parse_args()
    print(heading({}))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    measures: list[Callable[[BossWorker], None]] = [compare, lambda pool: measure_crowd(pool, options.clients)]
    for measure in measures:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_RUNTIME_DIR"] = folder  # doors of this run are not those of the user
            with BossWorker(work, worker_count=2) as pool:
                measure(pool)


if __name__ == "__main__":
    main()
