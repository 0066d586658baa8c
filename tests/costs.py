"""What each test costs in processor time, and which of them a quick run leaves out.

    python -m pytest -p tests.costs --thorough      # measures: each process writes build/costs/PID
    python -m tests.costs                           # chooses: writes tests/costly.txt

A quick run has each test that costs little. Of those that cost more, it has the cheapest of each module, as far as they
fit into 0.3 s, with one set of parameters each.
"""

from __future__ import annotations

import resource
from collections import defaultdict
from collections.abc import Iterator
from os import getpid
from pathlib import Path

import pytest

MEASURED = Path(__file__).parents[1] / "build" / "costs"
COSTLY = Path(__file__).with_name("costly.txt")
LITTLE = 0.1  # seconds of processor time of a test, with all processes that it has waited for
FOR_A_MODULE = 0.3  # seconds of those that cost more


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    before = seconds_taken()
    yield
    if item.get_closest_marker("thorough") is not None:
        return
    MEASURED.mkdir(parents=True, exist_ok=True)
    with open(MEASURED / str(getpid()), "a", encoding="utf-8") as file:
        file.write(f"{seconds_taken() - before:.3f} {item.nodeid}\n")


def seconds_taken() -> float:
    """By this process, and by those that it has waited for."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measured() -> dict[str, float]:
    """Seconds by node id: the least that any run took."""
    lines = [line for file in MEASURED.iterdir() for line in file.read_text(encoding="utf-8").splitlines()]
    costs: dict[str, float] = {}
    for seconds, _, node in (line.partition(" ") for line in lines):
        costs[node] = min(float(seconds), costs.get(node, float("inf")))
    return costs


def left_out(costs: dict[str, float]) -> list[str]:
    """The node ids of what a quick run leaves out, of tests that cost so many seconds."""
    modules: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for node, seconds in costs.items():
        if seconds >= LITTLE:
            modules[node.partition("::")[0]].append((seconds, node))
    return sorted(node for tests in modules.values() for node in beyond_its_share(sorted(tests)))


def beyond_its_share(tests: list[tuple[float, str]]) -> Iterator[str]:
    """All but the cheapest of a module: at least one, with one set of parameters each."""
    room, kept = FOR_A_MODULE, set[str]()
    for seconds, node in tests:
        test = node.partition("[")[0]
        if test not in kept and (seconds <= room or not kept):
            room -= seconds
            kept.add(test)
        else:
            yield node


if __name__ == "__main__":
    COSTLY.write_text("\n".join([*left_out(measured()), ""]), encoding="utf-8")
