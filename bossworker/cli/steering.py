"""``wait``, ``kill``, ``pause``, ``resume`` and ``send``: what is done to jobs and tasks that run."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

from bossworker.cli.command_parser import FAILED, NO_SUCH, TIME_IS_UP, complain, make_parser, show_json, told
from bossworker.cli.entries import Entry, EntryError, GoneError, LateError, exit_status, is_running, runs
from bossworker.cli.looking import HOW_IS_NOT_KNOWN, state_of
from bossworker.cli.printers import say
from bossworker.cli.quantities import check_with, parse_duration
from bossworker.cli.selecting import Choice, choose
from bossworker.system.checks import check_signal

_STATUSES = {GoneError: NO_SUCH, LateError: TIME_IS_UP}  # exit statuses of errors


def wait_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "wait",
        "Wait until jobs or tasks have ended. Exit status: that of the command (128 and the signal's number, if one\n"
        "ended it); of several the first that is not 0; 124 when time is up; 125 when there is no such job.",
        ["last", "--timeout 60 --json 4f1c", "build test && deploy"],
        ids="+",
    )
    parser.add_argument("--timeout", type=check_with(parse_duration), metavar="S", help="wait no longer: 90, 2m, 1h30m")
    return parser


def wait(argv: Sequence[str]) -> int:
    options = wait_parser().parse_args(argv)

    def work() -> int:
        deadline = None if options.timeout is None else time.monotonic() + options.timeout
        statuses = [_wait_for(choice, deadline, options.json) for choice in choose(options.ids)]
        return next(filter(None, statuses), 0)

    return told("wait", work)


def _wait_for(choice: Choice, deadline: float | None, as_json: bool) -> int:
    entry = choice.entry
    try:
        entry.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        found = entry.describe()
    except EntryError as error:
        # Somebody has deleted it since it was listed: the others are waited for all the same.
        if isinstance(error, GoneError) and not choice.named:
            return 0
        complain("wait", error)
        return _STATUSES.get(type(error), FAILED)
    status = TIME_IS_UP if is_running(found) else exit_status(found)
    if as_json:
        show_json(found)
    elif status:
        say(f"{entry.kind} {entry.id}: {_how_it_ended(found)}")
    return status


def _how_it_ended(found: dict[str, Any]) -> str:
    """In words; with the reason, or what it waits for."""
    state, reason = state_of(found), found["reason"] or ""
    if reason.startswith(state):  # not started, cancelled
        return str(reason)
    return f"{state.removesuffix(HOW_IS_NOT_KNOWN)}: {reason}" if reason else state


def kill_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "kill",
        "Send a signal to jobs or tasks that run: TERM, unless another one is named. KILL ends all that a command has\n"
        "started. Of a pool that is named, all jobs are cancelled.",
        ["last", "-s KILL nightly", "all"],
        ids="+",
    )
    parser.add_argument("-s", "--signal", type=check_with(_signal), default=15, metavar="SIG", help="KILL, INT, 10")
    return parser


def _signal(text: str) -> int:
    return check_signal(int(text) if _is_number(text) else text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _names_signal(word: str) -> bool:
    """Whether it is one as kill(1) takes it: ``-9``, ``-KILL``."""
    try:
        return word.startswith("-") and bool(_signal(word[1:]))
    except ValueError:
        return False


def kill(argv: Sequence[str]) -> int:
    parser = kill_parser()
    if named := next(filter(_names_signal, argv), ""):
        parser.error(f"{named}: a signal is named by -s {named[1:]}")
    options = parser.parse_args(argv)
    return _to_each("kill", options, lambda entry: entry.signal(int(options.signal)))


def pause_parser() -> argparse.ArgumentParser:
    return make_parser(
        "pause", "Stop jobs or tasks where they are; have a pool start no more.", ["last", "nightly", "all"], ids="+"
    )


def pause(argv: Sequence[str]) -> int:
    return _to_each("pause", pause_parser().parse_args(argv), lambda entry: entry.pause(True))


def resume_parser() -> argparse.ArgumentParser:
    text = "Let jobs, tasks or pools go on that are paused."
    return make_parser("resume", text, ["last", "nightly", "all"], ids="+")


def resume(argv: Sequence[str]) -> int:
    return _to_each("resume", resume_parser().parse_args(argv), lambda entry: entry.pause(False))


def _to_each(name: str, options: argparse.Namespace, action: Callable[[Entry], bool]) -> int:
    """Whatever runs of them. That one does not is an error only of one that was named."""

    def work() -> int:
        status = 0
        for choice in choose(options.ids):
            failed = _try(name, choice, action)
            status = status or (failed if choice.named else 0)
            if options.json and (choice.named or not failed):
                show_json({"id": choice.entry.id, "done": not failed})
        return status

    return told(name, work)


def _try(name: str, choice: Choice, action: Callable[[Entry], bool]) -> int:
    """The exit status."""
    entry = choice.entry
    try:
        if action(entry):
            return 0
        if choice.named:
            complain(name, f"{entry.kind} {entry.id} does not run: {state_of(entry.describe())}")
    except EntryError as error:
        if choice.named or runs(entry):
            complain(name, error)
        return _STATUSES.get(type(error), FAILED)
    return FAILED


def send_parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "send",
        "Hand a line of text to a task that reads it from its stdin.",
        ["last yes", "chat 'how are you?'", "-n --timeout 5 4f1c 'no newline'"],
    )
    parser.add_argument("-n", dest="bare", action="store_true", help="without a newline at the end")
    parser.add_argument("--timeout", type=check_with(parse_duration), metavar="S", help="give up then, with exit "
                        "status 124, if it has not taken all of it")  # fmt: skip
    parser.add_argument("ids", metavar="ID", nargs=1, help="which one")
    parser.add_argument("text", metavar="TEXT", help="what to send")
    return parser


def send(argv: Sequence[str]) -> int:
    options = send_parser().parse_args(argv)

    def hand(entry: Entry) -> bool:
        entry.send(options.text if options.bare else f"{options.text}\n", options.timeout)
        return True

    return _to_each("send", options, hand)
