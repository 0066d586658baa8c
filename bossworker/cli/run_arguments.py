"""The command line of ``bossworker run``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence

from bossworker.cli.argument_parser import ArgumentParser
from bossworker.cli.halting import OTHER, HaltRule, parse_halt
from bossworker.cli.inputs import TRIMS, Source
from bossworker.cli.quantities import (
    check_with,
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
    from typing import NoReturn

ARGUMENTS, FILES, LINKED_ARGUMENTS, LINKED_FILES = ":::", "::::", ":::+", "::::+"
_NEWLINE = "\\n"
Add = Callable[..., argparse.Action]  # a parser's add_argument
_SEPARATORS = (ARGUMENTS, FILES, LINKED_ARGUMENTS, LINKED_FILES)

HELP = """\
usage: bossworker run [OPTION]... CMD [ARG]... [::: A... | :::: FILE...]
Run a command for each argument: of :::, of the lines of files, or of stdin. No shell; -c is for one.
Without a command, the arguments themselves are command lines. Replaced in a command, as by GNU parallel:
{} argument  {.} no extension  {/} file name  {//} folder  {/.}  {#} number  {%} slot  {2} {2/.} {name}

what to run
  -c STRING                 a shell's command line; what is replaced in it is quoted
  -f PKG.MOD:FN             a Python handler: lines, or JSON objects, are its jobs; prints JSON lines
  -a FILE, -0, -d D         arguments from a file (- is stdin); they end with a NUL, or with D
  -N N (-n), --colsep RE, --header :       N arguments a job; columns; the first line has their names
  --trim n|l|r|lr           white space taken from arguments; of columns (--colsep) by itself, on both sides
  --env K=V, --wd DIR, --nice N            how commands run
how many, how long
  -j N (N%, +N, -N, 0, FILE)               at once; by default one a core
  --timeout S or N%         time for a job, or for one that takes N % of the median; S is 90, 2m or 1h30m
  --delay S, --load N or N%, --memfree SIZE, --memory SIZE   when to start one; what one may hold
  --retries N               how often a job is tried
  --halt now|soon,fail|success|done=N|N%   stop early
what is seen
  -k, --tag, --tagstring T  output in order; each line begins with the argument, or with T
  --group, --line-buffer, -u               output when a job ends, line by line, or as it comes
  --json, --results DIR or X.csv           a JSON line a job; output into files
  --bar, --eta, --quiet     progress (by itself on a terminal), no summary
  --junit FILE, --dry-run   a report for CI; only say what would be run
again
  --joblog FILE             a line for each job that has ended, as GNU parallel writes and reads it
  --resume, --resume-failed, --retry-failed    not what is in the joblog; but what failed; only that
  --journal FILE            whatever was killed, the same command goes on, and runs nothing twice: --resume-failed has
                            run again what failed, --interrupted rerun what was running
exit status: 0, the number of failed jobs up to 100, 101 if more, 130 after Ctrl-C, 255 for other errors
examples:
  bossworker run gzip -9 ::: *.log
  bossworker run -j 8 --joblog log --timeout 400% -c 'sort {} > {.}.sorted' :::: files.txt
  find . -name '*.png' -print0 | bossworker run -0 --bar convert {} {.}.jpg
"""


class RunOptions(argparse.Namespace):
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
    def delimiter_bytes(self) -> bytes:
        return b"\0" if self.null else _delimiter_of(self.delimiter)


class RunParser(ArgumentParser):
    """Errors are told with exit status 255, as everything that is no job's."""

    def error(self, message: str) -> NoReturn:
        self.exit(OTHER, f"bossworker run: {shortened(message)}\n(bossworker run --help shows how it is used)\n")

    def format_help(self) -> str:
        return HELP


def _timeout(text: str) -> tuple[float, bool]:
    return parse_share(text) if text.endswith("%") else (parse_duration(text), False)


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
    return text.encode("utf-8", "surrogateescape").decode("unicode_escape").encode("latin-1")


def _delimiter(text: str) -> str:
    try:
        _delimiter_of(parse_given(text))
    except UnicodeError:
        raise ValueError(r"it is a text, in which \n, \t, \0 and \x1f mean what they mean in C") from None
    return text


def _header(text: str) -> str:
    if text != ":":
        raise ValueError("it is : (the first line has the names)")
    return text


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


def _of_fixed_width(prog: str) -> argparse.HelpFormatter:
    """As argparse makes one for each option; it would load shutil to ask for the terminal's width."""
    return argparse.HelpFormatter(prog, width=80)


def build_parser() -> RunParser:
    """Also for completion and the manual page."""
    parser = RunParser(prog="bossworker run", allow_abbrev=False, formatter_class=_of_fixed_width)
    for add_some in (_add_what_is_run, _add_input, _add_output, _add_earlier_runs, _add_limits, _add_reports):
        add_some(parser.add_argument)
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _add_what_is_run(add: Add) -> None:
    """What is run, and how many at once."""
    add("-c", "--command", dest="shell_command", metavar="STRING", help="a shell's command line, not a program")
    add(
        "-f",
        "--function",
        type=check_with(parse_given),
        metavar="PKG.MOD:FN",
        help="a Python handler of JSON objects or lines",
    )
    add(
        "-j",
        "--jobs",
        type=check_with(_slots),
        default="+0",
        metavar="N",
        help="jobs at once: N, N%%, +N, -N, 0 or FILE",
    )


def _add_input(add: Add) -> None:
    """Where arguments come from, and what they are cut into."""
    add(
        "-a",
        "--arg-file",
        type=check_with(parse_given),
        action="append",
        default=[],
        metavar="FILE",
        help="arguments from a file; - is stdin",
    )
    add("-0", "--null", action="store_true", help="arguments end with NUL")
    add("-d", "--delimiter", type=check_with(_delimiter), default=_NEWLINE, metavar="D", help="arguments end with D")
    add("--colsep", "-C", type=check_with(_expression), metavar="REGEX", help="what separates columns of an argument")
    add("--trim", choices=TRIMS, help="white space that is taken from arguments: none, left, right; with --colsep lr")
    add("-N", "--max-replace-args", dest="repeated", type=check_with(parse_count), metavar="N", help="arguments a job")
    add("-n", "--max-args", dest="per_job", type=check_with(parse_count), default=1, metavar="N", help="the same")
    add("--header", type=check_with(_header), metavar=":", help="the first line of each input names its columns")


def _add_output(add: Add) -> None:
    """What becomes of what jobs print."""
    add("-k", "--keep-order", action="store_true", help="output in the order of the input")
    add("--tag", action="store_true", help="begin each line with the arguments")
    add("--tagstring", metavar="T", help="begin each line with T")
    add("--group", dest="how", action="store_const", const="group", default="group", help="output as a job ends")
    add("--line-buffer", "--lb", dest="how", action="store_const", const="lines", help="output line by line")
    add("-u", "--ungroup", dest="how", action="store_const", const="direct", help="output as it comes")
    add("--dry-run", "--dryrun", action="store_true", help="print what would be run")


def _add_earlier_runs(add: Add) -> None:
    """What earlier runs have left."""
    add("--joblog", type=check_with(parse_given), metavar="FILE", help="a line for each job that has ended")
    add("--resume", action="store_true", help="leave out what is in the joblog")
    add("--resume-failed", action="store_true", help="leave out what is in the joblog and has not failed")
    add("--retry-failed", action="store_true", help="run what has failed, according to the joblog")
    add(
        "--journal",
        type=check_with(parse_given),
        metavar="FILE",
        help="go on with what an earlier run has left, and run nothing twice",
    )
    add("--interrupted", choices=("report", "rerun"), help="what --journal does with what may have run")


def _add_limits(add: Add) -> None:
    """How often, when and how long jobs run, and with how much."""
    add("--retries", type=check_with(parse_count), default=1, metavar="N", help="how often a job is tried")
    add("--halt", "--halt-on-error", type=check_with(parse_halt), default=HaltRule(), metavar="RULE", help="stop early")
    add("--timeout", type=check_with(_timeout), default=(0.0, False), metavar="S", help="seconds, or N%% of the median")
    add("--delay", type=check_with(parse_duration), default=0.0, metavar="S", help="seconds between two starts")
    add("--load", type=check_with(parse_share), metavar="N", help="start none while more processes want to run")
    add("--memfree", type=check_with(parse_size), default=0, metavar="SIZE", help="start none while less is free")
    add("--memory", type=check_with(parse_size), default=0, metavar="SIZE", help="what a job may hold")


def _add_reports(add: Add) -> None:
    """Where and how commands run, and what is told of them."""
    add(
        "--results",
        type=check_with(parse_given),
        metavar="DIR",
        help="output into files below DIR, or into X.csv or X.tsv",
    )
    add(
        "--wd",
        "--workdir",
        type=check_with(parse_given),
        metavar="DIR",
        help="where commands run; made if it is not there",
    )
    add("--nice", type=check_with(_nice), default=0, metavar="N", help="how nice commands are")
    add("--bar", action="store_true", help="show progress")
    add("--eta", action="store_true", help="show progress")
    add(
        "--env",
        type=check_with(_variable),
        action="append",
        default=[],
        metavar="K=V",
        help="a variable for the commands",
    )
    add("--quiet", "-q", action="store_true", help="no bar, no summary")
    add("--json", action="store_true", help="a JSON line a job on stdout")
    add("--junit", type=check_with(parse_given), metavar="FILE", help="a JUnit report")


def parse_run(argv: Sequence[str]) -> RunOptions:
    """SystemExit with 255 when it makes no sense."""
    head, sources = _split(argv)
    parser = build_parser()
    options = parser.parse_args(_joined(head, parser._option_string_actions), RunOptions())
    if options.command[:1] == ["--"]:
        del options.command[0]
    options.sources = [Source(path=path) for path in options.arg_file] + sources
    if not options.sources and not options.retry_failed:
        options.sources = [Source(path="-")]
    if options.repeated is not None:
        options.per_job = options.repeated
    _check(parser, options)
    if options.results or (options.keep_order and options.how == "lines"):
        options.how = "group"  # into files; and lines that have to wait for another job's are no sooner there
    return options


def _check(parser: RunParser, options: RunOptions) -> None:
    if sum((bool(options.command), options.shell_command is not None, options.function is not None)) > 1:
        parser.error("a command, -c STRING and -f PKG.MOD:FN exclude each other")
    if (options.resume or options.resume_failed or options.retry_failed) and not (options.joblog or options.journal):
        parser.error("--resume, --resume-failed and --retry-failed need --joblog FILE")
    if options.journal and (options.resume or options.retry_failed):
        parser.error("--journal resumes by itself; --resume and --retry-failed are for a joblog alone")
    if options.interrupted and not options.journal:
        parser.error("--interrupted needs --journal FILE")
    if len(options.command) == 1 and options.command[0].split() != options.command and not _is_program(options):
        parser.error(f"{options.command[0]!r} is one word; a command line for a shell needs -c")
    if options.function is not None and options.how != "group":
        parser.error("-f prints JSON lines: it goes neither with --line-buffer nor with -u")


def _is_program(options: RunOptions) -> bool:
    """Whether the one word, spaces and all, is the path of a program."""
    return os.access(os.path.join(options.wd or "", options.command[0]), os.X_OK)


def _split(argv: Sequence[str]) -> tuple[list[str], list[Source]]:
    """What is before the first ``:::``, and the sources after it."""
    at = next((index for index, one in enumerate(argv) if one in _SEPARATORS), len(argv))
    sources: list[Source] = []
    kind, found = "", list[str]()
    for one in [*argv[at:], ARGUMENTS]:
        if one not in _SEPARATORS:
            found.append(one)
            continue
        if kind in (FILES, LINKED_FILES):
            sources += [Source(path=path, linked=kind == LINKED_FILES) for path in found]
        elif kind:
            sources.append(Source(args=found, linked=kind == LINKED_ARGUMENTS))
        kind, found = one, []
    return list(argv[:at]), sources


def _joined(argv: Sequence[str], known: Mapping[str, argparse.Action]) -> list[str]:
    """``-j -1`` as ``-j-1``: argparse would take what begins with ``-`` for an option, also where a value belongs.

    What is an option's name stays one: the value before it was forgotten. The command's own words stay as they are.
    """
    joined, at = list[str](), 0
    while at < len(argv) and argv[at].startswith("-") and argv[at] not in ("-", "--"):
        option, value = argv[at], "".join(argv[at + 1 : at + 2])
        is_option = value in known and not value[1:].isdigit()
        has_value = at + 1 < len(argv) and _wants_value(option, known) and not is_option
        if has_value and value.startswith("-") and value != "-":
            joined.append(f"{option}={value}" if option.startswith("--") else option + value)
        else:
            joined += argv[at : at + 1 + has_value]
        at += 1 + has_value
    return [*joined, *argv[at:]]


def _wants_value(option: str, known: Mapping[str, argparse.Action]) -> bool:
    """Whether the next word is its value: so it is of ``--jobs``, ``-j`` and ``-kj``; not of ``-j2`` and ``-jk``."""
    if option in known or option.startswith("--"):
        return option in known and known[option].nargs is None
    for at, letter in enumerate(option[1:], 2):
        action = known.get(f"-{letter}")
        if action is None or action.nargs is None:
            return action is not None and at == len(option)
    return False
