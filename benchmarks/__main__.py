"""``python -m benchmarks``: measure, print, and write JSON and a plot."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import curves, peers, report, rows
from benchmarks.curves import Drawn
from benchmarks.rows import Outcome

HERE = Path(__file__).parent
PAIRS = 5
QUICK_PAIRS = 3


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="The pool side by side with its peers.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the jobs, three pairs a row")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="rows whose key contains NAME")
    parser.add_argument("--list", action="store_true", help="print the keys, and measure nothing")
    parser.add_argument("--pairs", type=int, help=f"pairs a row (default {PAIRS})")
    parser.add_argument("--json", type=Path, default=HERE / "results.json", metavar="FILE")
    parser.add_argument("--plot", type=Path, default=HERE / "speed.png", metavar="FILE")
    return parser.parse_args(arguments)


def print_keys() -> None:
    for row in rows.ROWS:
        print(f"{row.key:32} {row.work}, beside {row.beside}")
    for curve in curves.CURVES:
        print(f"{'curves/' + curve.key:32} {curve.title}")


def measure_rows(options: argparse.Namespace, missing: dict[str, str]) -> list[Outcome]:
    pairs = options.pairs or (QUICK_PAIRS if options.quick else PAIRS)
    outcomes = []
    for row in rows.without(rows.chosen(options.only), missing):
        progress(row.key)
        outcomes.append(rows.measure(rows.quick(row) if options.quick else row, pairs))
    return outcomes


def measure_curves(options: argparse.Namespace, missing: dict[str, str]) -> list[Drawn]:
    drawn = []
    for curve in curves.chosen(options.only):
        progress(f"curves/{curve.key}")
        drawn.append(curves.measure(curves.trimmed(curve, missing, options.quick)))
    return drawn


def progress(key: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {key}", file=sys.stderr, flush=True)


def print_report(outcomes: Sequence[Outcome], drawn: Sequence[Drawn], missing: dict[str, str], quick: bool) -> None:
    parts = [report.heading(missing)]
    if quick:
        parts.append("A quick run: fewer jobs than the floors are meant for.")
    if outcomes:
        parts.append(report.table(outcomes))
    parts += map(report.curve_table, drawn)
    print("\n\n".join(parts))


def write_plot(path: Path, outcomes: Sequence[Outcome], drawn: Sequence[Drawn]) -> None:
    try:
        from benchmarks.plot import draw
    except ImportError as error:
        print(f"no plot: {error} (pip install matplotlib)", file=sys.stderr)
        return
    draw(path, outcomes, drawn)


def main() -> None:
    options = parse()
    if options.list:
        print_keys()
        return
    missing = peers.missing()
    outcomes, drawn = measure_rows(options, missing), measure_curves(options, missing)
    if not outcomes and not drawn:
        sys.exit("nothing has that name, or what has is not installed: see --list")
    print_report(outcomes, drawn, missing, options.quick)
    report.write_json(options.json, outcomes, drawn, {"quick": options.quick, "missing": missing})
    write_plot(options.plot, outcomes, drawn)


if __name__ == "__main__":
    main()
