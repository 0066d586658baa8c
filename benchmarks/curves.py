"""What goes beyond the table: one pool beside the others over a range, or by another measure than time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.measure import SideFailed, Spread, in_turn, spread
from benchmarks.peers import label
from benchmarks.rows import quick_count
from benchmarks.side import Answer, Spec

ROUNDS = 3
KIB = 1 << 10
MIB = 1 << 20
SIZE_BUDGET = 128 * MIB  # a turn of the size curve carries about so much,
SIZE_JOBS = (4, 5000)  # within these bounds of jobs
NAP = 0.005  # seconds a job sleeps where scaling is measured
LONG_JOB = 2.0  # seconds, in front of the tiny ones
IDLE_SECONDS = 5.0
QUEUED = 300_000
LENGTHS = {0.0: 20_000, 1e-5: 20_000, 1e-4: 5_000, 1e-3: 1_000, 1e-2: 100}
"""Seconds a job spins -> jobs a turn."""
SIZES = (64, KIB, 16 * KIB, 256 * KIB, MIB, 8 * MIB, 64 * MIB)
WORKERS = (1, 2, 4, 8)

CROWDS = (2, 4, 8, 16)  # workers
LOOPS = 3000  # of a job: some 100 µs of a processor

FOUR = ("bossworker.bulk", "pool.map", "pool.imap_1", "executor.each")
ALL = (
    "bossworker.bulk",
    "pool.each",
    "executor.each",
    "loky.each",
    "joblib.bulk",
    "pebble.each",
    "mpire.imap",
    "deadpool.each",
)


class Point(NamedTuple):
    """All ways at one place of the range. `value` makes of an answer what is reported."""

    at: str
    specs: tuple[Spec, ...]
    value: Callable[[Spec, Answer], float]
    rounds: int = ROUNDS


class Curve(NamedTuple):
    key: str
    title: str
    unit: str
    axis: str
    points: tuple[Point, ...]


class Line(NamedTuple):
    """One way over the range: what it gave at each place, or None where it failed."""

    way: str
    values: list[Spread | None]


class Drawn(NamedTuple):
    """A curve that has been measured."""

    curve: Curve
    lines: list[Line]
    failures: list[str]


def _rate(spec: Spec, answer: Answer) -> float:
    return float(spec.jobs / answer["seconds"])


def _field(name: str, scale: float = 1) -> Callable[[Spec, Answer], float]:
    return lambda _, answer: float(answer[name] * scale)


def _specs(
    ways: tuple[str, ...], mode: str, work: str, count: int, parameter: float = 0, workers: int = 2
) -> tuple[Spec, ...]:
    return tuple(
        Spec(mode, peer, way, work, count, parameter, workers)
        for peer, _, way in (name.partition(".") for name in ways)
    )


def _seconds(seconds: float) -> str:
    if not seconds:
        return "0"
    return f"{seconds * 1e6:.0f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.0f} ms"


def _bytes(size: int) -> str:
    for unit, name in ((MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size // unit} {name}"
    return f"{size} B"


def _length() -> Curve:
    points = [
        Point(_seconds(length), _specs(FOUR, "batch", "spin", count, length), _rate)
        for length, count in LENGTHS.items()
    ]
    return Curve("length", "Throughput against job length", "jobs/s", "a job spins for", tuple(points))


def _size() -> Curve:
    least, most = SIZE_JOBS
    points = [
        Point(_bytes(size), _specs(FOUR, "batch", "bytes", min(most, max(least, SIZE_BUDGET // size)), size), _rate)
        for size in SIZES
    ]
    return Curve("size", "Throughput against job size, there and back", "jobs/s", "bytes in a job", tuple(points))


def _scaling() -> Curve:
    points = [
        Point(str(workers), _specs(FOUR, "batch", "nap", 100 * workers, NAP, workers), _rate) for workers in WORKERS
    ]
    return Curve("scaling", f"Jobs that sleep {NAP * 1000:.0f} ms, over workers", "jobs/s", "workers", tuple(points))


def _crowd() -> Curve:
    ways = ("bossworker.bulk", "nospin.bulk", "pool.imap_1", "executor.each")
    points = [Point(str(workers), _specs(ways, "batch", "count", 5000, LOOPS, workers), _rate) for workers in CROWDS]
    title = "Jobs of 100 µs of a processor, more workers than cores"
    return Curve("crowd", title, "jobs/s", "workers", tuple(points))


def _memory() -> Curve:
    ways = ("bossworker.bulk", "bossworker.each", "pool.each", "executor.each")
    point = Point("bytes a job", _specs(ways, "memory", "gate", QUEUED), _field("bytes"), rounds=1)
    title = f"Memory of a queued tiny job, one of {QUEUED:,}"
    return Curve("memory", title, "", "all processes together", (point,))


def _idle() -> Curve:
    specs = _specs(ALL, "idle", "tiny", 0, IDLE_SECONDS)
    points = (
        Point("CPU ms a second", specs, _field("cpu", 1000), rounds=1),
        Point("wake-ups a second, without the caller", specs, _field("wakeups"), rounds=1),
        Point("processes besides the caller", specs, _field("processes"), rounds=1),
    )
    return Curve("idle", "An idle pool, two workers", "", "idle", points)


def _stall() -> Curve:
    ways = ("bossworker.bulk", "pool.map", "pool.imap_64", "pool.imap_1", "executor.as_completed", "mpire.imap")
    specs = _specs(ways, "stall", "stall", 1000, LONG_JOB)
    points = (Point("p50", specs, _field("p50", 1000)), Point("the longest", specs, _field("max", 1000)))
    title = f"Tiny jobs behind one of {LONG_JOB:.0f} s"
    return Curve("stall", title, "ms", "their delay", points)


CURVES = [_length(), _size(), _scaling(), _crowd(), _memory(), _idle(), _stall()]


def chosen(only: list[str]) -> list[Curve]:
    return [curve for curve in CURVES if not only or any(part in f"curves/{curve.key}" for part in only)]


def trimmed(curve: Curve, missing: dict[str, str], is_quick: bool) -> Curve:
    """The same without what is not installed, and in a quick run with fewer jobs."""
    points = []
    for point in curve.points:
        specs = tuple(spec for spec in point.specs if spec.peer not in missing)
        if is_quick and curve.key != "memory":
            specs = tuple(spec._replace(jobs=quick_count(spec.jobs)) for spec in specs)
        points.append(point._replace(specs=specs, rounds=1 if is_quick else point.rounds))
    return curve._replace(points=tuple(points))


def measure(curve: Curve) -> Drawn:
    """Each point's sides in turn. Points that differ only in what they report are measured once."""
    failures: list[str] = []
    measured: dict[tuple[Spec, ...], dict[Spec, list[Answer]]] = {}
    for point in curve.points:
        if point.specs not in measured:
            measured[point.specs] = _answers(point, failures)
    ways = {f"{spec.peer}.{spec.way}": None for point in curve.points for spec in point.specs}
    lines = [Line(way, [_value(point, way, measured[point.specs]) for point in curve.points]) for way in ways]
    return Drawn(curve, lines, failures)


def _answers(point: Point, failures: list[str]) -> dict[Spec, list[Answer]]:
    """All sides in turn; when one of them fails, each alone, so that it costs only itself."""
    try:
        return dict(zip(point.specs, in_turn(point.specs, point.rounds), strict=True))
    except SideFailed:
        return {spec: _alone(spec, point, failures) for spec in point.specs}


def _alone(spec: Spec, point: Point, failures: list[str]) -> list[Answer]:
    try:
        return in_turn([spec], point.rounds)[0]
    except SideFailed as failure:
        failures.append(f"{label(f'{spec.peer}.{spec.way}')} at {point.at}: {failure}")
        return []


def _value(point: Point, way: str, answers: dict[Spec, list[Answer]]) -> Spread | None:
    (spec,) = (spec for spec in point.specs if f"{spec.peer}.{spec.way}" == way)
    values = [point.value(spec, answer) for answer in answers[spec]]
    return spread(values) if values else None


def as_json(drawn: Drawn) -> dict[str, Any]:
    curve = drawn.curve
    return {
        "key": curve.key,
        "title": curve.title,
        "unit": curve.unit,
        "axis": curve.axis,
        "at": [point.at for point in curve.points],
        "lines": {line.way: [value._asdict() if value else None for value in line.values] for line in drawn.lines},
        "failures": drawn.failures,
    }
