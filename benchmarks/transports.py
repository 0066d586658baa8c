"""What a message costs between processes: why the pool speaks over socket pairs.

``python -m benchmarks.transports`` measures the round trip of a small message from a caller over a relay (where the
boss sits) to a worker and back, over

    sockets      Unix socket pairs on both hops
    zmq worker   a socket pair to the caller, ZeroMQ (ipc) to the worker
    zmq          ZeroMQ on both hops

each with everyone asleep until a message comes, and with relay and worker looking again for a while, yielding the
processor in between. Runs alternate; each brings its processes up anew.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, NoReturn

from benchmarks.report import heading

MESSAGE = bytes(100)
READ = 65536
WARM = 200
SPIN = 100e-6  # seconds to look again before sleeping
START = 30_000  # milliseconds for the processes to come up

Receive = Callable[[], bytes]
Send = Callable[[bytes], object]


class End(NamedTuple):
    """One end of a hop: how to send, and how to receive with and without waiting (b"" when there is nothing)."""

    send: Send
    wait: Receive
    look: Receive


class Hop(NamedTuple):
    """A hop not yet open: each side opens its end in its own process, since a ZeroMQ context survives no fork."""

    near: Callable[[], End]
    far: Callable[[], End]


class Trips(NamedTuple):
    p50: float
    p90: float


def socket_hop(stack: ExitStack, _: str) -> Hop:
    near, far = socket.socketpair()
    stack.callback(near.close)
    stack.callback(far.close)
    return Hop(lambda: _socket_end(near), lambda: _socket_end(far))


def _socket_end(sock: socket.socket) -> End:
    def look() -> bytes:
        try:
            return sock.recv(READ, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""

    return End(sock.send, lambda: sock.recv(READ), look)


def zmq_hop(stack: ExitStack, address: str) -> Hop:
    return Hop(lambda: _zmq_end(address, bind=True), lambda: _zmq_end(address, bind=False))


def _zmq_end(address: str, bind: bool) -> End:
    import zmq

    sock: Any = zmq.Context().socket(zmq.PAIR)
    sock.linger = 0
    sock.rcvtimeo = START
    sock.bind(address) if bind else sock.connect(address)

    def look() -> bytes:
        try:
            return bytes(sock.recv(zmq.NOBLOCK))
        except zmq.Again:
            return b""

    return End(sock.send, sock.recv, look)


TRANSPORTS: dict[str, tuple[Callable[[ExitStack, str], Hop], Callable[[ExitStack, str], Hop]]] = {
    "sockets": (socket_hop, socket_hop),
    "zmq worker": (socket_hop, zmq_hop),
    "zmq": (zmq_hop, zmq_hop),
}


def receive(end: End, spin: float) -> bytes:
    """Look for this many seconds, then sleep until there is something."""
    until = time.perf_counter() + spin
    while time.perf_counter() < until:
        if message := end.look():
            return message
        os.sched_yield()
    return end.wait()


def run_worker(above: End, spin: float) -> None:
    while True:
        above.send(receive(above, spin))


def run_relay(above: End, below: End, spin: float) -> None:
    """It sleeps for the next job, and spins only while an answer is due."""
    while True:
        below.send(above.wait())
        above.send(receive(below, spin))


@contextmanager
def forked(main: Callable[[], None]) -> Iterator[None]:
    """A child that runs until the block ends."""
    pid = os.fork()
    if pid == 0:
        _run_child(main)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _run_child(main: Callable[[], None]) -> NoReturn:
    try:
        main()
    finally:
        os._exit(1)


def measure(name: str, spin: float, count: int) -> Trips:
    """Bring a chain up, in a child of its own for each place in it, and time the trips."""
    to_relay, to_worker = TRANSPORTS[name]
    with ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="hop"))
        upper, lower = to_relay(stack, f"ipc://{place}/a"), to_worker(stack, f"ipc://{place}/b")
        stack.enter_context(forked(lambda: run_worker(lower.far(), spin)))
        stack.enter_context(forked(lambda: run_relay(upper.far(), lower.near(), spin)))
        return _in_child(lambda: _trips(upper.near(), count))


def _in_child(work: Callable[[], Trips]) -> Trips:
    """Do it in a child: the next fork finds no ZeroMQ threads here."""
    ours, theirs = socket.socketpair()

    def main() -> None:
        theirs.sendall("{} {}".format(*work()).encode())
        os._exit(0)

    with ours, forked(main):
        theirs.close()
        answer = ours.recv(READ).split()
    if not answer:
        raise RuntimeError("no answer came")
    return Trips(*map(float, answer))


def _trips(caller: End, count: int) -> Trips:
    for _ in range(WARM):
        _trip(caller)
    trips = sorted(_trip(caller) for _ in range(count))
    return Trips(statistics.median(trips), trips[count * 9 // 10])


def _trip(caller: End) -> float:
    begin = time.perf_counter()
    caller.send(MESSAGE)
    caller.wait()
    return time.perf_counter() - begin


def measured_in_turn(names: list[str], runs: int, count: int) -> dict[tuple[str, float], list[Trips]]:
    """A B C ..., A B C ...: so that what else the machine does hits all alike."""
    found: dict[tuple[str, float], list[Trips]] = {(name, spin): [] for name in names for spin in (0.0, SPIN)}
    for _ in range(runs):
        for (name, spin), trips in found.items():
            trips.append(measure(name, spin, count))
    return found


def print_table(found: dict[tuple[str, float], list[Trips]]) -> None:
    print("| transport  | waiting | p50 µs (min–max) | p90 µs (min–max) |")
    print("| ---------- | ------- | ---------------- | ---------------- |")
    for (name, spin), trips in found.items():
        how = "spins" if spin else "sleeps"
        p50, p90 = (_microseconds(column) for column in zip(*trips, strict=True))
        print(f"| {name:10} | {how:7} | {p50:16} | {p90:16} |")


def _microseconds(seconds: tuple[float, ...]) -> str:
    middle, least, most = (1e6 * pick for pick in (statistics.median(seconds), min(seconds), max(seconds)))
    return f"{middle:.0f} ({least:.0f}–{most:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transports", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="three short runs")
    options = parser.parse_args()
    runs, count = (3, 500) if options.quick else (7, 3000)
    names = list(TRANSPORTS)
    try:
        import zmq  # noqa: F401
    except ImportError:
        print("pyzmq is not installed: sockets alone", file=sys.stderr)
        names = ["sockets"]
    print(heading({}), end="\n\n")
    print_table(measured_in_turn(names, runs, count))


if __name__ == "__main__":
    main()
