"""``start``, ``retry`` and ``clean``: detached jobs come and go."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from typing import Any

from bossworker import jobs
from bossworker.cli.command_parser import FAILED, NO_SUCH, complain, make_parser, pairs, show_json, told
from bossworker.cli.entries import (
    ENDED,
    NAME,
    Entry,
    EntryError,
    GoneError,
    described,
    has_failed,
    is_cancelled,
    is_running,
    runs,
    short,
)
from bossworker.cli.quantities import check_with, is_line, one_of, parse_duration, parse_given, parse_pair, parse_size
from bossworker.cli.room import room_for
from bossworker.cli.selecting import check_name, choose, everything, select
from bossworker.commands.roots import find_root
from bossworker.jobs.cleaning import clear_debris

_PAIRS: Any = {"type": check_with(parse_pair), "action": "append", "default": [], "metavar": "K=V"}


def start_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "start",
        "Start a command that goes on when this terminal is gone; print its id. It runs in this folder, without a\n"
        "terminal, and reads nothing. bossworker wait, log and kill take its id, name, or `last`.",
        ["make -j8", "--name nightly --timeout 2h -- restic check", "--json --env CI=1 -- npm test"],
    )
    add_command_options(parser)
    return parser


def add_command_options(parser: argparse.ArgumentParser) -> None:
    """What `start` and `add` know of a command."""
    add = parser.add_argument
    add("--name", type=check_with(check_name), help="to be found by, besides its id")
    add("--timeout", type=check_with(parse_duration), default=0.0, metavar="S", help="end it after this: 90, 2m, 1h30m")
    add("--env", **_PAIRS, help="a variable to add; several times")
    add("--wd", "--workdir", type=check_with(parse_given), metavar="DIR", help="where it runs, instead of here")
    add("--meta", **_PAIRS, help="kept with it; V is JSON or text")
    add("--memory", type=check_with(parse_size), default=0, metavar="SIZE", help="end it above this: 512M, 2G")
    add("-c", dest="shell", action="store_true", help="CMD is one command line for a shell")
    add("cmd", nargs=argparse.REMAINDER, metavar="CMD ...", help="the program and its arguments")


def command_of(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[str]:
    """CMD, or a complaint."""
    command: list[str] = options.cmd[1:] if options.cmd[:1] == ["--"] else options.cmd
    if not command:
        parser.error("CMD is missing: the program and its arguments")
    if not (command[0] or options.shell):
        parser.error("CMD begins with an empty word: it names no program")
    if options.shell and len(command) > 1:
        parser.error("with -c, CMD is one word")
    if len(command) == 1 and not options.shell and is_line(command[0], options.wd):
        parser.error(f"{command[0]!r} is one word; a command line for a shell needs -c")
    return command


def request_of(command: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """As ``jobs.start`` and `run_command` take it."""
    meta = {key: _value(text) for key, text in pairs(options.meta).items()}
    return {
        "cmd": command[0] if options.shell else command,
        "shell": options.shell,
        "timeout": options.timeout,
        "memory": options.memory,
        "env": pairs(options.env),
        "cwd": os.path.abspath(options.wd or os.getcwd()),
        "meta": meta if options.name is None else {**meta, NAME: options.name},
    }


def start(argv: Sequence[str]) -> int:
    parser = start_parser()
    options = parser.parse_args(argv)
    command = command_of(parser, options)

    def work() -> int:
        request = request_of(command, options)
        with room_for("job"):
            jobid = jobs.start(request.pop("cmd"), **request)
        show_json({"id": jobid, "short": short(jobid), NAME: options.name}) if options.json else print(jobid)
        return 0

    return told("start", work)


def _value(text: str) -> object:
    try:
        return json.loads(text, parse_constant=_no_json)
    except (ValueError, RecursionError):
        return text


def _no_json(name: str) -> object:
    """NaN and Infinity, which Python's parser takes, are words."""
    raise ValueError(name)


def retry_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "retry",
        "Start jobs once more, each as a new job; print the new ids. Of a task, the command is executed again;\n"
        "of a pool, the jobs that have failed are run again, and the pool's id is printed.",
        ["last", "nightly", "--failed"],
        ids="*",
    )
    parser.add_argument("--failed", action="store_true", help="all that have failed and were not tried again")
    return parser


def retry(argv: Sequence[str]) -> int:
    parser = retry_parser()
    options = parser.parse_args(argv)
    if bool(options.ids) == options.failed:
        parser.error("give IDs, or --failed")

    def work() -> int:
        status = 0
        for entry in _failed_ones() if options.failed else select(options.ids):
            try:
                again = entry.again()
            except EntryError as error:
                complain("retry", error)
                status = NO_SUCH if isinstance(error, GoneError) else FAILED
                continue
            show_json({"id": again.id, "short": short(again.id), "retry_of": entry.id}) if options.json else print(
                again.id
            )
        return status

    return told("retry", work)


def _failed_ones() -> list[Entry]:
    """Those that no later job is a retry of, and that nobody has cancelled."""
    found = [(entry, one) for entry in everything() if (one := described(entry)) is not None]
    tried = {str(one["meta"].get("retry_of")) for _, one in found}
    failed = [entry for entry, one in reversed(found) if has_failed(one) and not is_cancelled(one)]
    return [entry for entry in failed if entry.id not in tried]


def clean_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "clean",
        "Delete jobs and tasks with all their files: those that are named (what runs is killed, unless it is meant by\n"
        "all), or else all that have ended.",
        ["", "--older-than 7d", "last"],
        ids="*",
    )
    parser.add_argument(
        "--older-than", type=check_with(parse_duration), metavar="S", help="only what is older: 7d, 12h"
    )
    parser.add_argument(
        "--status",
        type=check_with(one_of(ENDED)),
        action="append",
        help="only these: completed, terminated by error, unknown, ...",
    )
    return parser


def clean(argv: Sequence[str]) -> int:
    parser = clean_parser()
    options = parser.parse_args(argv)
    if options.ids and (options.older_than is not None or options.status):
        parser.error("IDs go neither with --older-than nor with --status")

    def work() -> int:
        if options.ids:
            chosen = [one.entry for one in choose(options.ids) if one.named or not runs(one.entry)]
        else:
            chosen = [entry for entry in everything() if _may_go(entry, options.older_than, options.status)]
        deleted = [entry.id for entry in chosen if _is_deleted(entry)]
        if not (options.ids or options.status):
            _delete_joblogs(options.older_than)
        show_json({"deleted": deleted}) if options.json else print(f"{len(deleted)} deleted")
        return 0 if len(deleted) == len(chosen) else FAILED

    return told("clean", work)


def _is_deleted(entry: Entry) -> bool:
    """Delete it, or tell why it stays."""
    try:
        entry.delete()
    except (EntryError, OSError) as error:
        complain("clean", error)
        return False
    return True


def _may_go(entry: Entry, age: float | None, statuses: list[str] | None) -> bool:
    try:
        found = entry.describe()
    except EntryError:
        return False
    if is_running(found) or (found["status"] == "unknown" and "unknown" not in (statuses or ())):
        return False
    old = age is None or (found["created"] is not None and time.time() - found["created"] >= age)
    return old and (not statuses or found["status"] in statuses)


def _delete_joblogs(age: float | None) -> None:
    """Those that `run` has written for its failures, when nobody has asked for a joblog; and what crashes have left."""
    root = find_root()
    if not os.path.isdir(root):
        return
    clear_debris()
    for file in os.scandir(root):
        ours = file.name.startswith("run-") and file.name.endswith(".joblog") and file.is_file(follow_symlinks=False)
        if ours and (age is None or time.time() - file.stat().st_mtime >= age):
            os.unlink(file.path)
