"""``ps``, ``show``, ``log`` and ``stack``: what there is to be seen of jobs and tasks."""

from __future__ import annotations

import argparse
import json
import os
import select as polling
import shlex
import time
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, cast

from bossworker.cli.command_parser import make_parser, show_json, told
from bossworker.cli.entries import (
    ENDED,
    LOOK,
    NOT_STARTED,
    QUEUED,
    STREAMS,
    Entry,
    EntryError,
    is_cancelled,
    is_running,
    queue_in,
    runs,
    short,
)
from bossworker.cli.printers import write
from bossworker.cli.progress_line import clock, colours
from bossworker.cli.quantities import check_with, one_of, parse_whole, printable
from bossworker.cli.queue_files import check_group
from bossworker.cli.selecting import choose, everything, pools_there, select
from bossworker.cli.text_cells import cut, padded, shown, width_of
from bossworker.system import descendants, proc

if TYPE_CHECKING:
    from bossworker.cli.pool_entries import PoolEntry

NEWEST = 50  # that `ps` looks at, unless it is to look at all
_CHUNK = 1 << 16


def ps_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "ps",
        "List the pools that have a door (pool.listen), jobs and tasks, the newest last; of what has ended only such\n"
        f"as are among the {NEWEST} newest.",
        ["", "--all --status running", "--json"],
    )
    parser.add_argument("-a", "--all", action="store_true", help="all, however many there are")
    parser.add_argument("--status", type=check_with(one_of(_WORDS)), help="only these: running, completed, failed, ...")
    parser.add_argument("--name", help="only those of this name")
    parser.add_argument(
        "-g", "--group", type=check_with(check_group), help="only those of this group of queued commands"
    )
    return parser


_WORDS = (QUEUED, "created", "running", "paused", *ENDED, "failed", "cancelled", NOT_STARTED)


def ps(argv: Sequence[str]) -> int:
    options = ps_parser().parse_args(argv)

    def work() -> int:
        entries = everything() if options.all else islice(everything(), NEWEST)
        found = [one for one in _described(chain(entries, pools_there())) if _is_wanted(one, options)]
        if options.json:
            for one in reversed(found):
                show_json(one)
        elif found:
            _print_table(found[::-1])
        return 0

    return told("ps", work)


def _described(entries: Iterator[Entry]) -> Iterator[dict[str, Any]]:
    for entry in entries:
        try:
            yield entry.describe()
        except EntryError:  # deleted just now
            continue


def _is_wanted(one: dict[str, Any], options: argparse.Namespace) -> bool:
    if options.name is not None and one["name"] != options.name:
        return False
    if options.group is not None and queue_in(one["meta"]).get("group") != options.group:
        return False
    return options.status is None or options.status in (one["status"], state_of(one).split(" (")[0])


def state_of(one: dict[str, Any]) -> str:
    """In a word or two: ``running``, ``paused``, ``completed``, ``failed (3)``."""
    if is_running(one):
        return "paused" if one["paused"] else str(one["status"])
    if one["status"] == "unknown":
        return "unknown"
    if one["signal"] is not None:
        return f"failed (signal {one['signal']})"
    if one["status"] == "completed":
        return "completed"
    return _unknown_end(one) if one["exit_code"] is None else f"failed ({one['exit_code']})"


def _unknown_end(one: dict[str, Any]) -> str:
    """Of one that has no exit code."""
    if str(one["reason"]).startswith(NOT_STARTED):
        return NOT_STARTED
    return "cancelled" if is_cancelled(one) else f"failed{HOW_IS_NOT_KNOWN}"


HOW_IS_NOT_KNOWN = " (how is not known)"


def _print_table(found: list[dict[str, Any]]) -> None:
    width = _width()
    longest = None if width is None else max(9, width // 5)  # cells of a name: there are states and commands, too
    rows = [("ID", "NAME", "STATE", "STARTED", "TIME", "COMMAND"), *(_row(one, longest) for one in found)]
    widths = [max(width_of(row[at]) for row in rows) for at in range(5)]
    for row in rows:
        line = "  ".join(map(padded, row, widths)) + f"  {row[5]}"
        print(_coloured(line if width is None else cut(line, width), row[2]))


def _width() -> int | None:
    import shutil

    return shutil.get_terminal_size().columns if os.isatty(1) else None


def _coloured(line: str, state: str) -> str:
    if not colours(1) or not state.startswith(("failed", NOT_STARTED)):
        return line
    return f"\x1b[31m{line}\x1b[0m"


def _row(one: dict[str, Any], longest: int | None) -> tuple[str, ...]:
    name = printable(one["name"] or "-")
    if longest is not None:
        name = shown(name, longest)
    started = time.strftime("%m-%d %H:%M", time.localtime(one["started"])) if one["started"] else "-"
    elapsed = clock(one["elapsed"]) if one["elapsed"] is not None else "-"
    return short(one["id"]), name, state_of(one), started, elapsed, command_line(one)


def command_line(one: dict[str, Any]) -> str:
    """As it would be typed, on one line; of a pool, its program and what it does."""
    if one["kind"] == "pool":
        return _pool_line(one["command"][0], one["pool"])
    line = one["command"][0] if one["shell"] and one["command"] else shlex.join(map(str, one["command"] or ()))
    return printable(line)


def _pool_line(program: str, pool: dict[str, Any]) -> str:
    figures = ("workers", "running", "queued", "done", "failed")
    return f"{program}: {', '.join(f'{pool[name]:,} {name}' for name in figures)}" if "workers" in pool else program


def show_parser() -> argparse.ArgumentParser:
    text = "Tell all that is known of a job, task or pool."
    return make_parser("show", text, ["last", "nightly", "--json 4f1c"], ids="+")


def show(argv: Sequence[str]) -> int:
    options = show_parser().parse_args(argv)

    def work() -> int:
        for at, entry in enumerate(select(options.ids)):
            found = entry.describe()
            if options.json:
                show_json(found)
                continue
            if at:
                print()
            _print_all(found)
        return 0

    return told("show", work)


def _print_all(found: dict[str, Any]) -> None:
    for key, value in {**found, "command": command_line(found), "status": state_of(found)}.items():
        if value in (None, "", {}, False):
            continue
        print(f"{key:12} {_readable(key, value)}")


def _readable(key: str, value: object) -> str:
    if key in ("created", "started", "ended"):
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(str(value))))
    if key == "max_rss":
        return f"{int(str(value)) / (1 << 20):.1f} MiB"
    if isinstance(value, dict):
        return json.dumps(value)
    return f"{value:.3f} s" if isinstance(value, float) else printable(str(value))


def log_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "log",
        "Print what a job or task has written: its stdout, and to stderr its stderr. With --since, only what is new:\n"
        "the answer of --json has `next`, for the next --since.",
        ["last", "-f nightly", "--since 4096 --json 4f1c"],
        ids="1",
    )
    add = parser.add_argument
    add("-f", "--follow", action="store_true", help="go on until it has ended")
    add(
        "--since",
        type=check_with(parse_whole),
        metavar="N",
        help="from this byte on; a negative number counts from the end",
    )
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--stderr", action="store_true", help="only its stderr, to stdout")
    either.add_argument("--stdout", action="store_true", help="only its stdout")
    return parser


def log(argv: Sequence[str]) -> int:
    options = log_parser().parse_args(argv)

    def work() -> int:
        entries = select([options.ids])
        if options.json or options.since is not None or options.stderr or options.stdout:
            wanted = [STREAMS[1 if options.stderr else 0]]
        else:
            wanted = list(STREAMS)
        for entry in entries:
            if options.json:
                _log_json(entry, wanted[0], options.since or 0, options.follow)
            else:
                _log(entry, wanted, options)
        return 0

    return told("log", work)


def _log(entry: Entry, wanted: list[str], options: argparse.Namespace) -> None:
    places = dict.fromkeys(wanted, options.since or 0)
    while True:
        ended = not is_running(entry.describe()) or not options.follow  # before we read: what is read then is all
        for stream in wanted:
            to = 2 if len(wanted) > 1 and stream == STREAMS[1] else 1
            for data in _new(entry, stream, places):
                write(to, data)
        if ended:
            return
        _await_more()


def _await_more() -> None:
    """For an instant. BrokenPipeError when nobody reads what we print: there may never be more to print."""
    time.sleep(LOOK)
    poll = polling.poll()
    poll.register(1, 0)
    if any(told & (polling.POLLERR | polling.POLLHUP) for _, told in poll.poll(0)):
        raise BrokenPipeError


def _new(entry: Entry, stream: str, places: dict[str, int]) -> Iterator[bytes]:
    while True:
        begin, data = entry.read(stream, places[stream], _CHUNK)
        places[stream] = begin + len(data)
        if not data:
            return
        yield data


def _log_json(entry: Entry, stream: str, since: int, follow: bool) -> None:
    while True:
        found = entry.describe()
        ended = not is_running(found)  # before we read: what is read then is all
        begin, data = entry.read(stream, since)
        data = data if ended else _whole_characters(data)
        since = begin + len(data)
        if data or ended or not follow:
            text = data.decode("utf-8", "replace")
            new = {"id": entry.id, "stream": stream, "since": begin, "next": since, "text": text}
            show_json({**new, "status": found["status"], "exit_code": found["exit_code"], "signal": found["signal"]})
        if ended or not follow:
            return
        _await_more()


def _whole_characters(data: bytes) -> bytes:
    """Without the beginning of a UTF-8 character whose end has not come yet: it is whole at the next look."""
    for length in range(1, min(3, len(data)) + 1):
        if _FIRST_OF_SEVERAL <= data[-length] <= _LAST_OF_SEVERAL:
            return data[:-length] if length < _LENGTHS[data[-length] >> 4 & 3] else data
        if not _LATER_ONES <= data[-length] < _FIRST_OF_SEVERAL:
            break
    return data


_LATER_ONES, _FIRST_OF_SEVERAL, _LAST_OF_SEVERAL = 0x80, 0xC0, 0xF4  # bytes
_LENGTHS = (2, 2, 3, 4)  # of a character, by bits 4 and 5 of its first byte


def trace_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "trace",
        "Write what a pool has done of late to a file in Chrome's trace format: open it at ui.perfetto.dev.",
        ["mill -o trace.json", "-o trace.json p4711", "--json mill -o trace.json"],
        ids="1",
    )
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the file, which is written anew")
    return parser


def trace(argv: Sequence[str]) -> int:
    options = trace_parser().parse_args(argv)

    def work() -> int:
        for entry in select([options.ids]):
            if entry.kind != "pool":
                raise EntryError(f"{entry.kind} {entry.id} is no pool")
            cast("PoolEntry", entry).trace(options.output)
            if options.json:
                show_json({"id": entry.id, "file": options.output})
        return 0

    return told("trace", work)


def stack_parser() -> argparse.ArgumentParser:
    text = (
        "Show the processes of a command that runs, with their states and arguments; of a pool, the Python stacks of\n"
        "its workers."
    )
    return make_parser("stack", text, ["last", "nightly", "--json 4f1c"], ids="+")


def stack(argv: Sequence[str]) -> int:
    options = stack_parser().parse_args(argv)

    def work() -> int:
        for entry, named in choose(options.ids):
            if named or runs(entry):
                _show_stack(entry, named, options.json)
        return 0

    return told("stack", work)


def _show_stack(entry: Entry, named: bool, as_json: bool) -> None:
    if entry.kind == "pool":
        text = cast("PoolEntry", entry).stack()
        show_json({"id": entry.id, "text": text}) if as_json else print(text)
        return
    found = entry.describe()
    if found["pid"] is None:
        if named:
            raise EntryError(f"{entry.kind} {entry.id} does not run: {state_of(found)}")
        return
    tree = list(process_tree(found["pid"]))
    if as_json:
        show_json({"id": entry.id, "processes": tree})
        return
    for one in tree:
        print(f"{one['pid']:>8} {one['state']} {'  ' * one['depth']}{one['command']}")


def process_tree(pid: int, depth: int = 0) -> Iterator[dict[str, Any]]:
    """A process and all below it, parents first."""
    state, _ = proc.state_and_start(pid)
    if state == "X":
        return
    words = proc.read(f"{pid}/cmdline").decode("utf-8", "replace").split("\0")[:-1]
    line = shlex.join(words) if words else f"[{proc.read(f'{pid}/comm').decode('utf-8', 'replace').strip()}]"
    yield {"pid": pid, "state": state, "depth": depth, "command": line}
    for child in descendants.children(pid):
        yield from process_tree(child, depth + 1)
