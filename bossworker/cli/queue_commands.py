"""``add`` and ``group``: a queue of commands that outlives terminals, crashes and restarts."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

from bossworker.cli.command_parser import FAILED, complain, make_parser, show_json, told
from bossworker.cli.detached import add_command_options, command_of, request_of
from bossworker.cli.entries import EntryError, short
from bossworker.cli.job_entries import add as add_to_queue
from bossworker.cli.quantities import check_with, parse_duration, parse_whole
from bossworker.cli.queue_files import (
    DEFAULT,
    MOST_SLOTS,
    GroupSettings,
    QueueFolder,
    all_groups,
    check_group,
    no_such_group,
)
from bossworker.cli.room import room_for
from bossworker.cli.selecting import select
from bossworker.commands import jobdir, record
from bossworker.commands.request import check
from bossworker.system.checks import check_count


def add_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "add",
        "Queue a command; print its id. It runs in this folder and environment as soon as its group has room (one at\n"
        "a time, unless `bossworker group` says otherwise), and survives logging out and restarts. ps, log, wait,\n"
        "kill and retry know it as any job. The first one starts the queue's process, which leaves when all is done.",
        ["-g backup -- restic backup /home", "-g backup --after last restic check", "--delay 2h -o 5 -- make dist"],
    )
    add_option = parser.add_argument
    add_option("-g", "--group", type=check_with(check_group), default=DEFAULT, help="which queue (default: default)")
    add_option("--after", action="append", default=[], metavar="ID", help="once this one is done, if it ends well; "
               "several times, or with commas")  # fmt: skip
    add_option("--delay", type=check_with(parse_duration), default=0.0, metavar="S", help="not before this: 90, 2h, 1d")
    add_option("-o", "--priority", type=check_with(parse_whole), default=0, metavar="N", help="higher ones run first")
    add_command_options(parser)
    return parser


def add(argv: Sequence[str]) -> int:
    parser = add_parser()
    options = parser.parse_args(argv)
    command = command_of(parser, options)

    def work() -> int:
        request: dict[str, Any] = request_of(command, options)
        check(request)  # whatever is wrong is told here, and not by a job that fails
        after = [entry.id for entry in select([one for text in options.after for one in text.split(",")])]
        if unfit := [one for one in after if not _is_job(one)]:
            raise EntryError(f"{', '.join(map(short, unfit))}: it can come after jobs alone")
        not_before = time.time() + options.delay if options.delay else 0.0
        folder = QueueFolder(options.group)
        entry = add_to_queue(folder, request, after=after, not_before=not_before, priority=options.priority)
        told_ = {"id": entry.id, "short": short(entry.id), "name": options.name, "group": options.group}
        show_json(told_) if options.json else print(entry.id)
        return 0

    return told("add", work)


def _is_job(entry_id: str) -> bool:
    return record.read(entry_id).known or any(folder.request(entry_id) is not None for folder in all_groups())


def group_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "group",
        "List the groups of queued commands, or change one: how many of its commands run at once, and whether any are\n"
        "started. It also sees to what was queued before the machine was restarted.",
        ["", "backup --slots 2", "backup --pause"],
    )
    add_option = parser.add_argument
    add_option("group", nargs="?", type=check_with(check_group), metavar="GROUP", help="which one; made if need be")
    add_option("--slots", type=check_with(_slots), metavar="N", help="how many run at once")
    either = parser.add_mutually_exclusive_group().add_argument
    either("--pause", dest="paused", action="store_true", default=None, help="start no more; what runs goes on")
    either("--resume", dest="paused", action="store_false", help="start them again")
    either("--delete", action="store_true", help="forget it, once all of its commands have ended; these stay jobs")
    return parser


def _slots(text: str) -> int:
    return check_count("N", parse_whole(text), 1, MOST_SLOTS)


def group(argv: Sequence[str]) -> int:
    parser = group_parser()
    options = parser.parse_args(argv)
    changes = {name: getattr(options, name) for name in ("slots", "paused") if getattr(options, name) is not None}
    if (changes or options.delete) and options.group is None:
        parser.error("GROUP is missing: which one?")
    if changes and options.delete:
        parser.error("--slots: not allowed with --delete, which forgets them")
    if options.delete:
        return told("group", lambda: _delete_group(options.group, options.json))
    return told("group", lambda: _change_and_list(options.group, changes, options.json))


def _delete_group(name: str, as_json: bool) -> int:
    with room_for("lock"):
        QueueFolder(name).delete()
    if as_json:
        show_json({"group": name, "deleted": True})
    return 0


def _change_and_list(name: str | None, changes: dict[str, Any], as_json: bool) -> int:
    if name is not None and changes:
        folder = QueueFolder(name)
        folder.settings = folder.settings._replace(**changes)
        folder.nudge()  # _describe sees to it that there is a process, if one is needed
    folders = [folder for folder in all_groups() if name in (None, folder.group)]
    if name is not None and not folders:
        raise no_such_group(name)
    found = [_describe(folder) for folder in folders]
    if as_json:
        for one in found:
            show_json(one)
    elif not changes:
        _print_groups(found)
    for folder in folders:
        if trouble := folder.trouble or (folder.last_words and f"started again: {folder.last_words}"):
            complain("group", f"{folder.group}: {trouble}")
    return FAILED if any(folder.trouble for folder in folders) else 0


def _describe(folder: QueueFolder) -> dict[str, Any]:
    folder.take_up()
    settings: GroupSettings = folder.settings
    states = [record.read(jobid).state for jobid in folder.waiting_ids()]
    running = states.count(jobdir.RUNNING)
    return {"group": folder.group, **settings._asdict(), "running": running, "queued": states.count(jobdir.UNKNOWN)}


def _print_groups(found: list[dict[str, Any]]) -> None:
    if not found:
        return
    width = max(len("GROUP"), *(len(one["group"]) for one in found))
    print(f"{'GROUP':{width}}  SLOTS  RUNNING  QUEUED  STATE")
    for one in found:
        state = "paused" if one["paused"] else "open"
        print(f"{one['group']:{width}}  {one['slots']:>5}  {one['running']:>7}  {one['queued']:>6}  {state}")
