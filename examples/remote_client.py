"""A pool that is reached over the network, by whoever has the keys.

    python examples/remote_client.py keys FILE                      make a pair of keys, once
    python examples/remote_client.py serve FILE [ADDRESS]           a pool; prints its address
    python examples/remote_client.py ask FILE ADDRESS NUMBER...     from another host with a copy of FILE (mode 0600)

What travels is encrypted (CURVE), and nobody without the keys gets in. Both sides have the same keys here; with
``Keys.admit`` and ``Keys.trust``, each has its own.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys

import bossworker
from bossworker import BossWorker, Keys


def factorize(job: dict[str, int]) -> dict[str, list[int]]:
    """The work handler: the prime factors of a number."""
    n, factors = job["n"], []
    for p in range(2, math.isqrt(n) + 1):
        while n % p == 0:
            factors.append(p)
            n //= p
    return {"factors": factors + [n] * (n > 1)}


def serve(keys: Keys, address: str) -> None:
    """Until somebody ends it."""
    with BossWorker(factorize) as pool, pool.listen(address, keys=keys) as door:
        print(door.address, flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


def ask(keys: Keys, address: str, numbers: list[int]) -> None:
    """Have numbers factorized there."""
    with bossworker.connect(address, keys=keys) as pool:
        for result in pool.map({"n": n} for n in numbers):
            print(result.job["n"], "=", " * ".join(map(str, result.raise_for_error()["factors"])))


def main() -> int:
    """Run the program; its exit code."""
    parser = argparse.ArgumentParser(description="A pool that is reached over the network.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("keys", "serve", "ask"):
        commands.add_parser(name).add_argument("file")
    commands.choices["serve"].add_argument("address", nargs="?", default="tcp://127.0.0.1:0")
    commands.choices["ask"].add_argument("address")
    commands.choices["ask"].add_argument("numbers", nargs="+", type=int)
    options = parser.parse_args()
    if options.command == "keys":
        bossworker.keys().save(options.file)
    elif options.command == "serve":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})  # sigwait takes them
        serve(Keys.load(options.file), options.address)
    else:
        ask(Keys.load(options.file), options.address, options.numbers)
    return 0


if __name__ == "__main__":
    sys.exit(main())
