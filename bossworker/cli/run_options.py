"""The options of ``bossworker run``: what each is called, takes and means.

`run_arguments.py` reads command lines by them, and `run_parser.py` has argparse do so.
"""

from __future__ import annotations

import os

from bossworker.cli.halting import OTHER, HaltRule, parse_halt
from bossworker.cli.inputs import TRIMS, Source
from bossworker.cli.printers import say
from bossworker.cli.quantities import (
    parse_count,
    parse_duration,
    parse_given,
    parse_jobs,
    parse_share,
    parse_size,
    parse_whole,
    shortened,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_NEWLINE = "\\n"


class RunOptions:
    """What was asked for."""

    command: list[str]
    shell_command: str | None
    function: str | None
    jobs: str
    arg_file: list[str]
    null: bool
    delimiter: str
    colsep: str | None
    trim: str | None
    repeated: int | None
    per_job: int
    header: str | None
    keep_order: bool
    tag: bool
    tagstring: str | None
    how: str
    dry_run: bool
    joblog: str | None
    joblog_grows: bool
    resume: bool
    resume_failed: bool
    retry_failed: bool
    journal: str | None
    interrupted: str | None
    retries: int
    halt: HaltRule
    timeout: tuple[float, bool]
    delay: float
    load: tuple[float, bool] | None
    memfree: int
    memory: int
    results: str | None
    wd: str | None
    nice: int
    bar: bool
    eta: bool
    env: list[str]
    quiet: bool
    json: bool
    junit: str | None
    sources: list[Source]

    @property
    def slots(self) -> int:
        """How many jobs may run at once."""
        if self.jobs.isdigit():
            return parse_jobs(self.jobs, 1)
        from bossworker.system.cpus import usable_cpus

        return parse_jobs(self.jobs, usable_cpus())

    @property
    def kept_joblog(self) -> str | None:
        """The joblog, if another run can read it."""
        return self.joblog if self.joblog != "-" else None

    @property
    def stdout_is_data(self) -> bool:
        """Whether stdout is for what programs read: JSON, what a function returns, a table."""
        return self.json or self.function is not None or (self.results or "").rpartition(".")[0] == "-"

    @property
    def fixed_timeout(self) -> float:
        """Seconds; 0: none, or one that depends on the median."""
        return 0.0 if self.timeout[1] else self.timeout[0]

    @property
    def delimiter_bytes(self) -> bytes:
        return b"\0" if self.null else _delimiter_of(self.delimiter)


def _timeout(text: str) -> tuple[float, bool]:
    if text.endswith("%"):
        return parse_share(text)
    try:
        return parse_duration(text), False
    except ValueError as error:
        raise ValueError(f"it is a share of the median, such as 400%, or {str(error).removeprefix('it is ')}") from None


def _expression(text: str) -> str:
    import re

    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"it is a regular expression: {error}") from None
    return text


def _delimiter_of(text: str) -> bytes:
    if text == _NEWLINE:  # as it mostly is: the codec need not be loaded
        return b"\n"
    if text == "\\":
        return b"\\"
    return text.encode("utf-8", "surrogateescape").decode("unicode_escape").encode("latin-1")


def _delimiter(text: str) -> str:
    try:
        _delimiter_of(parse_given(text))
    except UnicodeError:
        raise ValueError(r"it is a text, in which \n, \t, \0 and \x1f mean what they mean in C") from None
    return text


def _header(text: str) -> str:
    if text not in (":", r".*\n", "1", "0"):
        raise ValueError(
            "it is : (the first line of each input has names), or 0 (what comes from a file has its name); others are"
            " for --pipe, which is not here"
        )
    return text


def _joblog(text: str) -> str:
    parse_given(text.removeprefix("+"))
    return text


def _folder(text: str) -> str:
    if text == "...":
        raise ValueError("it is a folder; GNU parallel's ..., a temporary one, is not here")
    return parse_given(text)


def _nice(text: str) -> int:
    number = parse_whole(text)
    if not -20 <= number <= 19:
        raise ValueError("it is a whole number from -20 to 19")
    return number


def _variable(text: str) -> str:
    if text not in os.environ and text.find("=") < 1:
        raise ValueError("it is K=V, or the name of a variable that is there")
    return text


def _slots(text: str) -> str:
    parse_jobs(text, 1)
    return text


class Option:
    """One of them."""

    def __init__(self, *names: str, **settings: Any) -> None:
        """
        Args:
            settings: As those of ``argparse.ArgumentParser.add_argument``. A ``type`` raises a ValueError that says
                what is allowed.
        """
        self.names = names
        self.settings = settings
        first_long = next(name for name in names if name.startswith("--"))
        self.dest = str(settings.get("dest", first_long[2:].replace("-", "_")))
        self.takes_value = settings.get("action", "append") == "append"
        self.default = settings.get("default", None if self.takes_value else False)

    def put(self, options: RunOptions, text: str) -> bool:
        """Have it in `options`. False: its value is none that is allowed."""
        settings = self.settings
        if not self.takes_value:
            value: Any = settings.get("const", True)
        elif not text or text not in settings.get("choices", (text,)):
            return False
        else:
            try:
                value = settings.get("type", str)(text)
            except (OSError, TypeError, ValueError):
                return False
        if settings.get("action") == "append":
            value = [*getattr(options, self.dest), value]
        setattr(options, self.dest, value)
        return True


OPTIONS = (
    # what is run, and how many at once
    Option("-c", "--command", dest="shell_command", metavar="STRING", help="a shell's command line, not a program"),
    Option(
        "-f",
        "--function",
        type=parse_given,
        metavar="PKG.MOD:FN",
        help="a Python handler of JSON objects or lines",
    ),
    Option(
        "-j",
        "--jobs",
        "-P",
        "--max-procs",
        type=_slots,
        default="+0",
        metavar="N",
        help="jobs at once: N, N%%, +N, -N, 0 or FILE",
    ),
    # where arguments come from, and what they are cut into
    Option(
        "-a",
        "--arg-file",
        type=parse_given,
        action="append",
        default=[],
        metavar="FILE",
        help="arguments from a file; - is stdin",
    ),
    Option("-0", "--null", action="store_true", help="arguments end with NUL"),
    Option("-d", "--delimiter", type=_delimiter, default=_NEWLINE, metavar="D", help="arguments end with D"),
    Option("--colsep", "-C", type=_expression, metavar="REGEX", help="what separates columns of an argument"),
    Option("--trim", choices=TRIMS, help="white space taken from arguments: none, left, right; with --colsep lr"),
    Option("-N", "--max-replace-args", dest="repeated", type=parse_count, metavar="N", help="arguments a job"),
    Option("-n", "--max-args", dest="per_job", type=parse_count, default=1, metavar="N", help="the same"),
    Option("--header", type=_header, metavar=":", help="the first line of each input names its columns"),
    # what becomes of what jobs print
    Option("-k", "--keep-order", action="store_true", help="output in the order of the input"),
    Option("--tag", action="store_true", help="begin each line with the arguments"),
    Option("--tagstring", metavar="T", help="begin each line with T"),
    Option("--group", dest="how", action="store_const", const="group", default="group", help="output as a job ends"),
    Option("--line-buffer", "--lb", dest="how", action="store_const", const="lines", help="output line by line"),
    Option("-u", "--ungroup", dest="how", action="store_const", const="direct", help="output as it comes"),
    Option("--dry-run", "--dryrun", action="store_true", help="print what would be run"),
    # what earlier runs have left
    Option(
        "--joblog", "--jl", type=_joblog, metavar="FILE", help="a line for each job that has ended; +FILE adds to it"
    ),
    Option("--resume", action="store_true", help="leave out what is in the joblog, or in --results"),
    Option("--resume-failed", action="store_true", help="leave out what is in the joblog and has not failed"),
    Option("--retry-failed", action="store_true", help="run what has failed, according to the joblog"),
    Option(
        "--journal",
        type=parse_given,
        metavar="FILE",
        help="go on with what an earlier run has left, and run nothing twice",
    ),
    Option("--interrupted", choices=("report", "rerun"), help="what --journal does with what may have run"),
    # how often, when and how long jobs run, and with how much
    Option("--retries", type=parse_count, default=1, metavar="N", help="how often a job is tried"),
    Option("--halt", "--halt-on-error", type=parse_halt, default=HaltRule(), metavar="RULE", help="stop early"),
    Option("--timeout", type=_timeout, default=(0.0, False), metavar="S", help="seconds, or N%% of the median"),
    Option("--delay", type=parse_duration, default=0.0, metavar="S", help="seconds between two starts"),
    Option("--load", type=parse_share, metavar="N", help="start none while more processes want to run"),
    Option("--memfree", type=parse_size, default=0, metavar="SIZE", help="start none while less is free"),
    Option("--memory", type=parse_size, default=0, metavar="SIZE", help="what a job may hold"),
    # where and how commands run, and what is told of them
    Option(
        "--results",
        "--res",
        type=parse_given,
        metavar="NAME",
        help="output into files below NAME, or into X.csv, X.tsv or X.json",
    ),
    Option(
        "--wd",
        "--workdir",
        type=_folder,
        metavar="DIR",
        help="where commands run; made if it is not there",
    ),
    Option("--nice", type=_nice, default=0, metavar="N", help="how nice commands are"),
    Option("--bar", action="store_true", help="show progress"),
    Option("--eta", action="store_true", help="show progress"),
    Option(
        "--env",
        type=_variable,
        action="append",
        default=[],
        metavar="K=V",
        help="a variable for the commands",
    ),
    Option("--quiet", "-q", action="store_true", help="no bar, no summary"),
    Option("--json", action="store_true", help="a JSON line a job on stdout"),
    Option("--junit", type=parse_given, metavar="FILE", help="a JUnit report"),
)

BY_NAME = {name: option for option in OPTIONS for name in option.names}


def fail(message: str) -> NoReturn:
    """A command line that makes no sense is told with exit status 255, as everything that is no job's."""
    say(f"bossworker run: {shortened(message)}\n(bossworker run --help shows how it is used)")
    raise SystemExit(OTHER)
