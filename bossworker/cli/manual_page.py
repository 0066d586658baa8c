"""The manual page, made of the parsers: ``python -m bossworker.cli.manual_page FOLDER`` writes it, and completion, too.

What it writes lies in ``data/``, which a wheel installs where ``man`` and the shells look.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from bossworker.cli.main import COMMANDS
from bossworker.cli.parsers import all_parsers, options_of
from bossworker.cli.run_parser import HELP
from bossworker.cli.shells import script

_JSON = """\
Every command but completion takes --json. Keys may be added; none that is here goes away or changes its meaning.
run: an object a job, with seq, args, command, ok, exit_code, signal, error (null, or its kind: reported, crash,
timeout, memory, bad_job, interrupted), reason, started (Unix seconds), seconds, tries, job (the id of its job
directory, if it failed), stdout and stderr; with -f also result, what the handler returned.
ps, show, wait: an object a job, task or pool, with id, kind (job, task or pool), name, status (queued, created,
running, completed, terminated by request, terminated by error, unknown), exit_code, signal, reason, paused, command,
shell, cwd, pid, created, started, ended (Unix seconds), elapsed, user_time, system_time (seconds), max_rss (bytes),
timeout, meta, directory.
Of a pool also pool, an object with address, boss_pid, and, if it answers, workers, queued, running, done,
failed, restarts (numbers); pid is that of its program, its status is running or unknown.
What was queued has queue in its meta: group, priority, after (ids). add: id, short, name, group. group: group, slots,
paused, running, queued; with --delete group, deleted.
log: id, stream, since, next (for the next --since), text, status, exit_code, signal.
start: id, short, name. retry: id, short, retry_of. kill, pause, resume, send: id, done. clean: deleted. stack: id,
processes (pid, state, depth, command), or text of a pool. trace: id, file. doctor: what, state, text. web: url.
top: an object a look, with pools, workers and entries: what its tables show, as text.
What JSON has no word for, a handler's answer for instance, is text; NaN and infinities are null."""


def page() -> str:
    """In roff."""
    lines = [
        ".TH BOSSWORKER 1",
        ".SH NAME",
        "bossworker \\- run commands, many at once or detached, and look after them",
        ".SH SYNOPSIS",
        ".B bossworker",
        ".I COMMAND",
        "[OPTION]... [ARG]...",
        ".SH COMMANDS",
    ]
    for name, parser in all_parsers().items():
        lines += [f".SS {name}", *_description(name, parser)]
        for one in options_of(parser):
            lines += [".TP", f".B {_roff(_flags(one))}", _roff((one.help or "").replace("%%", "%"))]
    lines += [".SH EXIT STATUS", *_text(_EXIT), ".SH JSON", *_text(_JSON), ".SH ENVIRONMENT", *_text(_ENVIRONMENT)]
    return "\n".join(lines) + "\n"


_EXIT = """\
run: 0, the number of failed jobs up to 100, 101 if there were more, 130 after Ctrl-C, 143 after TERM, 255 for any other
error. With --halt, as GNU parallel: of fail=1 and done=1, the exit status of the job that made it halt (128 and the
signal's number, if one ended it); of N%, how many of a hundred failed; of success, 0 if so many did well; or else the
number of failed jobs.
wait: that of the command; 128 and the number of the signal that ended it.
Others: 0, 1 when something could not be done, 2 for a command line that makes no sense, 124 when time is up (wait,
send), 125 when there is no such job or group."""

_ENVIRONMENT = """\
BOSSWORKER_ROOT: the folder of job directories. BOSSWORKER_TASKS: that of tasks. BOSSWORKER_QUEUE_IDLE: seconds with
nothing to do after which the process of a queue leaves (10). TMPDIR: for output that is captured.
NO_COLOR: no colours. GITHUB_ACTIONS: "true" has the output of run folded.
Commands of run see PARALLEL_SEQ, and BOSSWORKER_JOB, which is their job's id."""


def _description(name: str, parser: argparse.ArgumentParser) -> list[str]:
    if name == "run":
        return [".nf", *(_roff(line) for line in HELP.splitlines()), ".fi"]
    return [*_text(parser.description or COMMANDS[name][-1]), ".PP", ".nf", *_text(parser.epilog or ""), ".fi"]


def _text(text: str) -> list[str]:
    return [line for one in text.splitlines() for line in (_roff(one), ".br")][:-1]


def _flags(one: argparse.Action) -> str:
    value = f" {one.metavar or (one.dest.upper() if one.nargs != 0 else '')}".rstrip()
    return ", ".join(one.option_strings) + (value if one.nargs != 0 else "")


def _roff(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text


PLACES: dict[str, Callable[[], str]] = {
    "man/man1/bossworker.1": page,
    "bash-completion/completions/bossworker": lambda: script("bash"),
    "zsh/site-functions/_bossworker": lambda: script("zsh"),
    "fish/vendor_completions.d/bossworker.fish": lambda: script("fish"),
}
"""Files below ``share``, and what makes them."""


def write_all(folder: Path) -> None:
    """All of them, below a folder."""
    for place, make in PLACES.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make())


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
