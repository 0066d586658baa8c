"""``bossworker run``'s command line as argparse reads it: help, mistakes, and what is not written plainly."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bossworker.cli.argument_parser import ArgumentParser
from bossworker.cli.quantities import check_with
from bossworker.cli.run_options import BY_NAME, OPTIONS, RunOptions, fail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

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
  --json                    a JSON line a job
  --results DIR, X.csv, X.tsv, X.json or 'DIR/{}'    output into files, or into a table
  --bar, --eta, --quiet     progress (by itself on a terminal), no summary
  --junit FILE, --dry-run   a report for CI; only say what would be run
again
  --joblog FILE or +FILE    a line for each job that has ended, as GNU parallel writes and reads it; + adds to it
  --resume, --resume-failed, --retry-failed    not what is in the joblog (or --results); but what failed; only that
  --journal FILE            whatever was killed, the same command goes on, and runs nothing twice: --resume-failed has
                            run again what failed, --interrupted rerun what was running
exit status: 0, the number of failed jobs up to 100, 101 if more, 130 after Ctrl-C, 255 for other errors
examples:
  bossworker run gzip -9 ::: *.log
  bossworker run -j 8 --joblog log --timeout 400% -c 'sort {} > {.}.sorted' :::: files.txt
  find . -name '*.png' -print0 | bossworker run -0 --bar convert {} {.}.jpg
"""


_UNKNOWN = "unrecognized arguments: "
_INSTEAD = {  # of options of GNU parallel and xargs that are not here: what is, or why not
    "--link --xapply": ":::+ in the place of the second ::: takes arguments pair by pair",
    "-L -l -m -s -X --max-lines --xargs": "-N 100 gives a hundred arguments to each command",
    "-I -i --replace": "{} is replaced without it",
    "-r --no-run-if-empty": "without arguments nothing is run, anyway",
    "-p -t -v -vv --verbose": "--dry-run shows commands",
    "--progress": "--bar shows it",
    "--plus --rpl": "-c has the shell's means, such as 'name={}; echo ${name%.gz}'",
    "--quote": "a program gets its words as they are, without it",
    "--files": "--results DIR has output in files",
    "--shuf": "shuf mixes the lines of a file",
    "--block --pipe --pipe-part --pipepart --spreadstdin": "streams are not cut here; split does that",
    "-S --nonall --onall --sshlogin --sshloginfile --trc": "commands run on this machine alone",
    "--id --semaphore": "bossworker add -g GROUP queues a command",
}


class RunParser(ArgumentParser):
    """Errors are told with exit status 255, as everything that is no job's."""

    def error(self, message: str) -> NoReturn:
        instead = _instead_of(message.removeprefix(_UNKNOWN)) if message.startswith(_UNKNOWN) else ""
        fail(f"{message} ({instead})" if instead else message)

    def format_help(self) -> str:
        return HELP


def _instead_of(unknown: str) -> str:
    """What does the work of the first of these options, as far as we know."""
    name = unknown.split(maxsplit=1)[0].partition("=")[0]
    names = (name,) if name.startswith("--") else (name, name[:2])
    return next((told for others, told in _INSTEAD.items() if not set(names).isdisjoint(others.split())), "")


def build_parser() -> RunParser:
    """Also for completion and the manual page."""
    parser = RunParser(prog="bossworker run", allow_abbrev=False)
    for option in OPTIONS:
        parse = {"type": check_with(option.settings["type"])} if "type" in option.settings else {}
        parser.add_argument(*option.names, **{**option.settings, **parse})
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def parse(words: Sequence[str]) -> RunOptions:
    """What they say. SystemExit with 255 when it makes no sense."""
    return build_parser().parse_args(_joined(words), RunOptions())


def _joined(words: Sequence[str]) -> list[str]:
    """``-j -1`` as ``-j-1``: argparse would take what begins with ``-`` for an option, also where a value belongs.

    What is an option's name stays one: the value before it was forgotten. The command's own words stay as they are.
    """
    joined, at = list[str](), 0
    while at < len(words) and words[at].startswith("-") and words[at] not in ("-", "--"):
        name, value = words[at], "".join(words[at + 1 : at + 2])
        is_option = value in BY_NAME and not value[1:].isdigit()
        has_value = at + 1 < len(words) and _wants_value(name) and not is_option
        if has_value and value.startswith("-") and value != "-":
            joined.append(f"{name}={value}" if name.startswith("--") else name + value)
        else:
            joined += words[at : at + 1 + has_value]
        at += 1 + has_value
    return [*joined, *words[at:]]


def _wants_value(name: str) -> bool:
    """Whether the next word is its value: so it is of ``--jobs``, ``-j`` and ``-kj``; not of ``-j2`` and ``-jk``."""
    if name in BY_NAME or name.startswith("--"):
        return name in BY_NAME and BY_NAME[name].takes_value
    for at, letter in enumerate(name[1:], 2):
        option = BY_NAME.get(f"-{letter}")
        if option is None or option.takes_value:
            return option is not None and at == len(name)
    return False
