"""The command line of ``bossworker run``."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bossworker.cli.inputs import Source
from bossworker.cli.quantities import is_line
from bossworker.cli.run_options import BY_NAME, OPTIONS, RunOptions, fail

ARGUMENTS, FILES, LINKED_ARGUMENTS, LINKED_FILES = ":::", "::::", ":::+", "::::+"
_SEPARATORS = (ARGUMENTS, FILES, LINKED_ARGUMENTS, LINKED_FILES)


def parse_run(argv: Sequence[str]) -> RunOptions:
    """SystemExit with 255 when it makes no sense."""
    head, sources = _split(argv)
    options = read_plain(head)
    if options is None:
        from bossworker.cli import run_parser

        options = run_parser.parse(head)
    if options.command[:1] == ["--"]:
        del options.command[0]
    options.sources = [Source(path=path) for path in options.arg_file] + sources
    if not options.sources and not options.retry_failed:
        options.sources = [Source(path="-")]
    options.joblog_grows = (options.joblog or "").startswith("+")
    if options.joblog_grows:
        options.joblog = (options.joblog or "")[1:]
    if options.repeated is not None:
        options.per_job = options.repeated
    _check(options)
    if options.results or (options.keep_order and options.how == "lines"):
        options.how = "group"  # into files; and lines that have to wait for another job's are no sooner there
    return options


def read_plain(words: Sequence[str]) -> RunOptions | None:
    """What they say, if all is written as it mostly is: ``-k``, ``-j2``, ``-j 2``, ``--jobs 2`` or ``--jobs=2``.

    Otherwise None: then argparse reads them, and says what is wrong. To load it takes a sixth of the time until a run's
    first command begins.
    """
    options, at = RunOptions(), 0
    for option in reversed(OPTIONS):  # of several with one destination, the first says what is the default
        setattr(options, option.dest, option.default)
    while at < len(words) and words[at].startswith("-") and words[at] not in ("-", "--"):
        name, has_value, value = _halves(words[at])
        known = BY_NAME.get(name)
        at += 1
        if known is None or (has_value and not known.takes_value):
            return None
        if known.takes_value and not has_value:
            value = "".join(words[at : at + 1])
            at += 1
            if value.startswith("-") and value != "-":
                return None
        if not known.put(options, value):
            return None
    options.command = list(words[at:])
    return options


def _halves(word: str) -> tuple[str, bool, str]:
    """An option's name, whether a value is in the same word, and which."""
    if not word.startswith("--"):
        return word[:2], len(word) > 2, word[2:].removeprefix("=")
    name, equals, value = word.partition("=")
    return name, bool(equals), value


def _check(options: RunOptions) -> None:
    if sum((bool(options.command), options.shell_command is not None, options.function is not None)) > 1:
        fail("a command, -c STRING and -f PKG.MOD:FN exclude each other")
    earlier = options.joblog or options.journal or (options.resume and _has_result_files(options))
    if (options.resume or options.resume_failed or options.retry_failed) and not earlier:
        fail("--resume, --resume-failed and --retry-failed need --joblog FILE (--resume: or --results with folders)")
    if options.journal and (options.resume or options.retry_failed):
        fail("--journal resumes by itself; --resume and --retry-failed are for a joblog alone")
    given = (options.joblog, options.journal, options.junit, options.results)
    files = [os.path.abspath(one) for one in given if one and not one.startswith("/dev/")]
    if len(set(files)) < len(files):
        fail("--joblog, --journal, --junit and --results are files of their own: two of them have one name")
    if options.interrupted and not options.journal:
        fail("--interrupted needs --journal FILE")
    if len(options.command) == 1 and is_line(options.command[0], options.wd):
        fail(f"{options.command[0]!r} is one word; a command line for a shell needs -c")
    _refuse_perl(options)
    if options.results and (options.json or options.function is not None):
        fail("--results has what commands print: it goes neither with --json (but there is X.json) nor with -f")
    if options.function is not None and options.how != "group":
        fail("-f prints JSON lines: it goes neither with --line-buffer nor with -u")


def _refuse_perl(options: RunOptions) -> None:
    """GNU parallel replaces it. Taken as it is, ``rm {=s/.gz$//=}`` would get its argument added, and delete that."""
    for word in (" ".join(options.command), options.shell_command, options.tagstring, options.results, options.wd):
        if word and "=}" in word.partition("{=")[2]:
            fail("{= perl =} is not here; -c has the shell's means, such as 'name={}; echo ${name%.gz}'")


def _has_result_files(options: RunOptions) -> bool:
    from bossworker.cli.result_files import is_table  # which few need

    return options.results is not None and not is_table(options.results)


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
