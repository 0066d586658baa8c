"""``top``: what all pools, jobs and tasks of this user do, live."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

from bossworker.cli.command_parser import make_parser, show_json, told
from bossworker.cli.progress_line import is_terminal
from bossworker.cli.quantities import check_with, parse_count, parse_duration
from bossworker.cli.text_cells import cut, padded, width_of
from bossworker.cli.top_board import (
    ENTRY_COLUMNS,
    POOL_COLUMNS,
    RIGHT,
    WORKER_COLUMNS,
    Board,
    BoardRow,
    Picture,
    columns_shown,
    fitted,
)

LEAST_SECONDS = 0.1  # between two looks
_NO_KEYS = "no keys without Textual: pip install 'bossworker[top]'"


def top_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "top",
        "Show pools that have a door (pool.listen) with their workers, jobs and tasks, once a second. On a terminal,\n"
        "keys kill, pause, retry, show the stack or the log; ? tells of them. That needs the extra `top`:\n"
        "pip install 'bossworker[top]'. Without it, or without a terminal, the tables are printed again and again.",
        ["", "-n 1", "--interval 5 --plain"],
    )
    add = parser.add_argument
    add("-n", "--count", type=check_with(parse_count), default=0, metavar="N", help="print the tables N times, and end")
    add("-i", "--interval", type=check_with(parse_duration), default=1.0, metavar="S", help="seconds between two looks")
    add("--plain", action="store_true", help="print tables, also on a terminal")
    return parser


def top(argv: Sequence[str]) -> int:
    options = top_parser().parse_args(argv)
    interval = max(LEAST_SECONDS, options.interval)
    plain = options.plain or options.json or options.count or not (is_terminal(0) and is_terminal(1))
    hint = ""
    if not plain:
        try:
            from bossworker.cli.top_screen import Top
        except ImportError:
            hint = _NO_KEYS
        else:
            Top(interval).run()
            return 0
    return told("top", lambda: _print_again_and_again(options, interval, hint))


def _print_again_and_again(options: argparse.Namespace, interval: float, hint: str) -> int:
    board, shown = Board(), 0
    try:
        while True:
            picture = board.look()
            _print_json(picture) if options.json else _print(picture, hint)
            shown += 1
            if shown == options.count:
                return 0
            time.sleep(interval)
    finally:
        board.close()


def _print_json(picture: Picture) -> None:
    tables = {"pools": POOL_COLUMNS, "workers": WORKER_COLUMNS, "entries": ENTRY_COLUMNS}
    show_json({name: [_object(columns, row) for row in getattr(picture, name)] for name, columns in tables.items()})


def _object(columns: tuple[str, ...], row: BoardRow) -> dict[str, Any]:
    return {"key": row.key, "mood": row.mood, **dict(zip(map(str.lower, columns), row.cells, strict=True))}


def _print(picture: Picture, hint: str) -> None:
    terminal = is_terminal(1)
    size = shutil.get_terminal_size() if terminal else None
    width = sys.maxsize if size is None else size.columns
    lines = [picture.header(width), *([hint] if hint else [])]
    for columns, rows in (
        (POOL_COLUMNS, picture.pools),
        (WORKER_COLUMNS, picture.workers),
        (ENTRY_COLUMNS, picture.entries),
    ):
        if rows:
            lines += ["", *_table(columns, rows, width)]
    if size is not None:
        lines = [cut(line, size.columns) for line in lines[: size.lines - 1]]
    clear = "\x1b[H\x1b[2J" if terminal else ""
    print(clear + "\n".join(lines) + ("" if terminal else "\n"), flush=True)


def _table(columns: tuple[str, ...], rows: list[BoardRow], width: int) -> list[str]:
    shown = columns_shown(columns, width)
    titles = [columns[at] for at in shown]
    lines = [titles, *([fitted(columns[at], row.cells[at], width) for at in shown] for row in rows)]
    widths = [max(map(width_of, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(map(_aligned, titles, line, widths)).rstrip() for line in lines]


def _aligned(column: str, cell: str, width: int) -> str:
    return cell.rjust(width) if column in RIGHT else padded(cell, width)
