"""What a run found, as a table and as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import curves, peers, rows
from benchmarks.curves import Drawn
from benchmarks.measure import Spread
from benchmarks.rows import Outcome

CPUINFO = Path("/proc/cpuinfo")


def machine() -> dict[str, Any]:
    """What the numbers depend on, besides the versions."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _cpu_model() -> str:
    if CPUINFO.exists():
        for line in CPUINFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def heading(missing: dict[str, str]) -> str:
    found = machine()
    versions = ", ".join(f"{name} {version}" for name, version in peers.versions().items())
    lines = [f"{found['cpu']}, {found['cores']} cores, {found['system']}, {found['python']}", versions]
    lines += [f"{peer}: {why}" for peer, why in missing.items()]
    return "\n".join(lines)


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown: a row an outcome. The ratio is how many times faster the pool is."""
    head = ("work", "beside", "ratio", "min–max", "floor", "met", "bossworker", "the other")
    return markdown(head, [_cells(outcome) for outcome in outcomes]) + _failures(
        f"{outcome.row.key}: {outcome.failure}" for outcome in outcomes if outcome.failure
    )


def _cells(outcome: Outcome) -> tuple[str, ...]:
    row, ratio = outcome.row, outcome.ratio
    floor = "" if row.floor is None else f"{row.floor:g}"
    if ratio is None:
        return (row.work, row.beside, "failed", "", floor, "", "", "")
    met = {None: "", True: "yes", False: "no"}[outcome.met]
    ours, theirs = _time(row, outcome.ours), _time(row, outcome.theirs)
    return (row.work, row.beside, _short(ratio.median), _range(ratio), floor, met, ours, theirs)


def _time(row: rows.Row, seconds: list[float]) -> str:
    """The median turn: a rate for many jobs, else a time."""
    middle = sorted(seconds)[len(seconds) // 2]
    if row.ours.mode == "batch":
        return f"{row.ours.jobs / middle:,.0f}/s"
    return f"{middle * 1e6:,.0f} µs" if middle < 1e-3 else f"{middle * 1e3:.1f} ms"


def curve_table(drawn: Drawn) -> str:
    curve = drawn.curve
    head = (curve.axis, *(point.at for point in curve.points))
    lines = [(peers.label(line.way), *(_value(value) for value in line.values)) for line in drawn.lines]
    unit = f" ({curve.unit})" if curve.unit else ""
    return f"{curve.title}{unit}\n\n{markdown(head, lines)}{_failures(drawn.failures)}"


def _value(value: Spread | None) -> str:
    if value is None:
        return "failed"
    return _short(value.median) if value.least == value.most else f"{_short(value.median)} ({_range(value)})"


def _range(value: Spread) -> str:
    return f"{_short(value.least)}–{_short(value.most)}"


def _short(number: float) -> str:
    """Three digits that count."""
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"


def markdown(head: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> str:
    """A table."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    rule = tuple("-" * width for width in widths)
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (head, rule, *lines)
    )


def _failures(reasons: Iterable[str]) -> str:
    return "".join(f"\n\nfailed: {reason}" for reason in reasons)


def write_json(path: Path, outcomes: Sequence[Outcome], drawn: Sequence[Drawn], run: dict[str, Any]) -> None:
    found = {
        "machine": machine(),
        "versions": peers.versions(),
        **run,
        "rows": [rows.as_json(outcome) for outcome in outcomes],
        "curves": [curves.as_json(each) for each in drawn],
    }
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
