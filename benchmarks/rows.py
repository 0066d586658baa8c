"""The table: rows of work, each beside one peer, with the least ratio that is asked for where one is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.measure import SideFailed, Spread, in_turn, spread
from benchmarks.peers import label
from benchmarks.side import Spec

MIB = 1 << 20
QUICK_SHARE = 10  # a quick run does this part of the jobs,
QUICK_LEAST = 200  # but not fewer than this many


class Row(NamedTuple):
    """Ours and theirs at the same work. The ratio is how many times faster ours is."""

    key: str
    text: str
    ours: Spec
    theirs: Spec
    floor: float | None = None

    @property
    def work(self) -> str:
        return self.text.format(count=self.ours.jobs)

    @property
    def beside(self) -> str:
        return label(f"{self.theirs.peer}.{self.theirs.way}")


class Outcome(NamedTuple):
    """What a row's pairs gave; `failure` says why where there are none."""

    row: Row
    ours: list[float]
    theirs: list[float]
    failure: str = ""

    @property
    def ratios(self) -> list[float]:
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> Spread | None:
        return spread(self.ratios) if self.ours else None

    @property
    def met(self) -> bool | None:
        if self.row.floor is None or self.ratio is None:
            return None
        return self.ratio.median >= self.row.floor


def _tiny(key: str, count: int, ours: str, theirs: str, floor: float | None = None) -> Row:
    how = "one add_work" if ours == "bulk" else "an add_work call each"
    return _row("batch", key, f"{{count:,}} tiny jobs, {how}", count, ours, theirs, floor)


def _round(key: str, count: int, theirs: str, floor: float | None = None) -> Row:
    return _row("round", key, "one job, add then get, p50", count, "one", theirs, floor)


def _array(key: str, what: str, work: str, size: int, count: int, floor: float | None = None) -> Row:
    return _row("round", key, what, count, "one", "executor.one", floor, work, size)


def _start(key: str, theirs: str, floor: float | None = None) -> Row:
    return _row("start", key, "start + one job + stop", 10, "one", theirs, floor)


def _face(key: str, mode: str, what: str, count: int, way: str, floor: float) -> Row:
    """Our Executor beside the one of concurrent.futures, used in the same way."""
    row = _row(mode, key, what, count, way, f"executor.{way}", floor)
    return row._replace(ours=row.ours._replace(peer="ours"))


def _row(
    mode: str,
    key: str,
    what: str,
    count: int,
    ours: str,
    theirs: str,
    floor: float | None,
    work: str = "tiny",
    parameter: float = 0,
) -> Row:
    peer, _, way = theirs.partition(".")
    spec = Spec(mode, peer, way, work, count, parameter)
    return Row(key, what, spec._replace(peer="bossworker", way=ours), spec, floor)


ROWS = [
    _tiny("bulk/pool.map", 100_000, "bulk", "pool.map", 1.0),
    _tiny("bulk/pool.imap_64", 100_000, "bulk", "pool.imap_64", 1.5),
    _tiny("bulk/pool.imap_1", 100_000, "bulk", "pool.imap_1", 8),
    _tiny("bulk/executor.submit", 10_000, "bulk", "executor.each", 30),
    _tiny("each/pool.apply_async", 20_000, "each", "pool.each", 3),
    _tiny("each/executor.submit", 20_000, "each", "executor.each", 8),
    _round("round/executor", 2000, "executor.one", 1.5),
    _round("round/pool.apply", 2000, "pool.one", 1.3),
    _array("array/1MiB", "a 1 MiB array there and back", "array", MIB, 100, 4),
    _array("array/64MiB", "a 64 MiB array there and back", "array", 64 * MIB, 5, 6),
    _start("start/pool", "pool.one", 0.8),
    _face("face/submit", "batch", "{count:,} calls, submit and result", 10_000, "each", 4),
    _face("face/map_1", "batch", "{count:,} calls, map with chunksize=1", 10_000, "map_1", 20),
    _face("face/round", "round", "one call, submit and result, p50", 2000, "one", 1.3),
    _tiny("others/bulk/executor.map_64", 20_000, "bulk", "executor.map_64"),
    _tiny("others/bulk/loky.map_64", 20_000, "bulk", "loky.map_64"),
    _tiny("others/bulk/joblib", 20_000, "bulk", "joblib.bulk"),
    _tiny("others/bulk/pebble.map_64", 20_000, "bulk", "pebble.map_64"),
    _tiny("others/bulk/mpire", 20_000, "bulk", "mpire.imap"),
    _tiny("others/each/loky", 2_000, "each", "loky.each"),
    _tiny("others/each/pebble", 2_000, "each", "pebble.each"),
    _tiny("others/each/mpire", 2_000, "each", "mpire.each"),
    _tiny("others/each/deadpool", 2_000, "each", "deadpool.each"),
    *(_round(f"others/round/{peer}", 500, f"{peer}.one") for peer in ("loky", "joblib", "pebble", "mpire", "deadpool")),
    _array("others/array/64MiB+1", "a 64 MiB array, 1 added, and summed here", "array+1", 64 * MIB, 5),
    *(
        _start(f"others/start/{peer}", f"{peer}.one")
        for peer in ("executor", "loky", "joblib", "pebble", "mpire", "deadpool")
    ),
]


def quick(row: Row) -> Row:
    """The same with fewer jobs."""
    count = quick_count(row.ours.jobs)
    return row._replace(ours=row.ours._replace(jobs=count), theirs=row.theirs._replace(jobs=count))


def quick_count(count: int) -> int:
    """Few stay as they are."""
    return max(count // QUICK_SHARE, min(count, QUICK_LEAST))


def chosen(only: list[str]) -> list[Row]:
    return [row for row in ROWS if not only or any(part in row.key for part in only)]


def measure(row: Row, pairs: int) -> Outcome:
    try:
        ours, theirs = in_turn([row.ours, row.theirs], pairs)
    except SideFailed as failure:
        return Outcome(row, [], [], str(failure))
    return Outcome(row, [turn["seconds"] for turn in ours], [turn["seconds"] for turn in theirs])


def as_json(outcome: Outcome) -> dict[str, Any]:
    row = outcome.row
    return {
        "key": row.key,
        "work": row.work,
        "beside": row.beside,
        "spec": row.theirs._asdict(),
        "floor": row.floor,
        "met": outcome.met,
        "ratio": outcome.ratio._asdict() if outcome.ratio else None,
        "ratios": outcome.ratios,
        "ours_seconds": outcome.ours,
        "theirs_seconds": outcome.theirs,
        "failure": outcome.failure,
    }


def without(rows: list[Row], missing: dict[str, str]) -> Iterator[Row]:
    """Rows whose libraries are there."""
    return (row for row in rows if row.theirs.peer not in missing and row.ours.peer not in missing)
