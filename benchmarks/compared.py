"""``python -m benchmarks.compared``: the same works by both transports and three other pools, in one run, as a table.

All pools of a row are up at once and take turns, five rounds. Beside each pool stands how many times as fast as ours
over ZeroMQ it was, the median of the rounds. It writes `compared.json` and the README's picture, `compared.png`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import report
from benchmarks.measure import SideFailed, in_turn
from benchmarks.rows import MIB, quick_count
from benchmarks.side import Spec

HERE = Path(__file__).parent
ROUNDS = 5
POOLS = {
    "bossworker": "bossworker, ZeroMQ",
    "socketpair": "bossworker, socket pairs",
    "pool": "multiprocessing.Pool",
    "executor": "ProcessPoolExecutor",
    "joblib": "joblib (loky)",
}
OURS = "bossworker"


class Work(NamedTuple):
    """A row: what is done, and by which way of each pool."""

    key: str
    text: str
    mode: str
    jobs: int
    ways: dict[str, str]
    work: str = "tiny"
    parameter: float = 0
    heap: str = ""

    def specs(self, quick: bool) -> list[Spec]:
        jobs = quick_count(self.jobs) if quick else self.jobs
        return [
            Spec(self.mode, pool, way, self.work, jobs, self.parameter, heap=self.heap)
            for pool, way in self.ways.items()
        ]

    def value(self, seconds: float) -> str:
        if self.mode == "batch":
            return f"{self.jobs / seconds:,.0f}/s"
        return f"{seconds * 1e6:,.0f} µs" if seconds < 1e-3 else f"{seconds * 1e3:,.1f} ms"


def _ways(ours: str, pool: str, executor: str, joblib: str = "") -> dict[str, str]:
    others = {"pool": pool, "executor": executor, "joblib": joblib}
    return {"bossworker": ours, "socketpair": ours, **{name: way for name, way in others.items() if way}}


WORKS = [
    Work("bulk", "100,000 tiny jobs in one call", "batch", 100_000, _ways("bulk", "map", "map_64", "bulk")),
    Work("each", "20,000 tiny jobs, a call each", "batch", 20_000, _ways("each", "each", "each")),
    Work("round", "one job, there and back (p50)", "round", 2000, _ways("one", "one", "one", "one")),
    Work("array/cold", "a 1 MiB array, cold heap", "round", 100, _ways("one", "one", "one"), "array", MIB, "cold"),
    Work("array/warm", "a 1 MiB array, warm heap", "round", 100, _ways("one", "one", "one"), "array", MIB, "warm"),
    Work("start", "start, one job, stop", "start", 10, _ways("one", "one", "one", "one")),
]


class Measured(NamedTuple):
    """Seconds a turn of each pool."""

    work: Work
    seconds: dict[str, list[float]]
    failure: str = ""

    def median(self, pool: str) -> float:
        return statistics.median(self.seconds[pool])

    def times_ours(self, pool: str) -> float:
        """How many times as fast as ours."""
        pairs = zip(self.seconds[OURS], self.seconds[pool], strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)

    def cell(self, pool: str) -> str:
        if pool not in self.seconds:
            return ""
        value = self.work.value(self.median(pool))
        return value if pool == OURS else f"{value} ({self.times_ours(pool):.2f})"


def measure(work: Work, rounds: int, quick: bool) -> Measured:
    try:
        turns = in_turn(work.specs(quick), rounds)
    except SideFailed as failure:
        return Measured(work, {}, str(failure))
    scale = work.jobs / quick_count(work.jobs) if quick and work.mode == "batch" else 1
    seconds = ([turn["seconds"] * scale for turn in each] for each in turns)
    return Measured(work, dict(zip(work.ways, seconds, strict=True)))


def table(rows: Sequence[Measured]) -> str:
    """Markdown."""
    lines = [(row.work.text, *(row.cell(pool) for pool in POOLS)) for row in rows if row.seconds]
    failures = [f"failed: {row.work.key}: {row.failure}" for row in rows if row.failure]
    return "\n\n".join([report.markdown(("work", *POOLS.values()), lines), *failures])


def as_json(row: Measured) -> dict[str, object]:
    return {"key": row.work.key, "work": row.work.text, "seconds": row.seconds, "failure": row.failure}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compared", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the jobs")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path, default=HERE / "compared.json", metavar="FILE")
    parser.add_argument("--plot", type=Path, default=HERE / "compared.png", metavar="FILE")
    options = parser.parse_args()
    rows = [measure(work, options.rounds, options.quick) for work in WORKS]
    print(report.heading({}), table(rows), sep="\n\n")
    found = {"machine": report.machine(), "rows": [as_json(row) for row in rows]}
    options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    from benchmarks.plot import draw_compared

    draw_compared(options.plot, [row for row in rows if row.seconds])


if __name__ == "__main__":
    main()
