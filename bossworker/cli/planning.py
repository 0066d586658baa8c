"""From rows of arguments to jobs of the pool."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping

from bossworker.cli.outcomes import Planned
from bossworker.cli.replacements import Row, Template, Text, quote_word
from bossworker.cli.run_options import RunOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SHELL = "/bin/sh"


class UsageError(Exception):
    """What was asked for makes no sense; the text says why."""


class CommandPlanner:
    """Makes commands."""

    def __init__(self, options: RunOptions, names: list[str]) -> None:
        words = [options.shell_command] if options.shell_command is not None else options.command
        shell = options.shell_command is not None
        self.template = Template(words, shell=shell, names=names, repeat=options.repeated is not None)
        self.tag = _tag_of(options, names)
        self._wd = _text(options.wd, options, names) if options.wd else None
        self._cwd = os.getcwd()
        others = options.tagstring, options.wd, options.results
        if any(_text(one, options, names).uses_slot for one in others if one):
            self.template.uses_slot = True

    def text(self, row: Row) -> str:
        """As it stands in a joblog."""
        return self.template.command_line(row)

    def plan(self, row: Row, text: str, index: int) -> Planned:
        """The job: a `HostedJob`, but for its id."""
        tag = self.tag(row)
        env = {"PARALLEL_SEQ": str(row.seq)}
        if row.slot:
            env["PARALLEL_JOBSLOT"] = str(row.slot)
        argv = [SHELL, "-c", text] if self.template.shell else self.template.argv(row)
        folder = self._cwd if self._wd is None else self._folder(row)
        if self._wd is not None:
            try:
                os.makedirs(folder, exist_ok=True)
            except OSError as error:
                error.filename = f"--wd {folder}"
                raise
        return Planned(row, text, index, tag, (argv, folder, tag, env))

    def _folder(self, row: Row) -> str:
        if self._wd is None:
            return self._cwd
        return os.path.join(self._cwd, os.path.expanduser(self._wd.of(row)))

    def key(self, row: Row, text: str) -> str:
        """What it is, for a journal: whatever slot it has, and wherever it stands in the list."""
        if self.template.uses_slot:
            text = self.template.command_line(row._replace(slot=0))
        return f"{'shell' if self.template.shell else 'program'}\0{text}\0{self._folder(row)}"


class LinePlanner:
    """Makes commands of the lines of a joblog, which are run as they stand there."""

    def __init__(self, planner: CommandPlanner) -> None:
        self._planner = planner
        self.template = planner.template
        self.tag = planner.tag

    def text(self, row: Row) -> str:
        return row.args[0]

    def plan(self, row: Row, text: str, index: int) -> Planned:
        return self._planner.plan(row, text, index)

    def key(self, row: Row, text: str) -> str:
        return self._planner.key(row, text)


class FunctionPlanner:
    """Makes jobs for a handler in Python: a JSON object is a job; else ``{"line": …}``, or the columns by name."""

    def __init__(self, options: RunOptions, names: list[str]) -> None:
        self.template = Template(["{}"], shell=False)
        self._names = names
        self._function = options.function
        self.tag = _tag_of(options, names)

    def text(self, row: Row) -> str:
        return " ".join(map(quote_word, row.args))

    def plan(self, row: Row, text: str, index: int) -> Planned:
        return Planned(row, text, index, self.tag(row), self._job(row.args))

    def key(self, row: Row, text: str) -> str:
        """What it is, for a journal."""
        return f"{self._function}\0{text}\0{self._names}"

    def _job(self, args: tuple[str, ...]) -> Mapping[str, Any]:
        if self._names:
            return dict(zip(self._names, args, strict=False))
        if len(args) != 1:
            return {"args": list(args)}
        if args[0].lstrip().startswith("{"):
            import json

            try:
                job = json.loads(args[0])
            except (ValueError, RecursionError):
                job = None
            if isinstance(job, dict):
                return job
        return {"line": args[0]}


def _tag_of(options: RunOptions, names: list[str]) -> Callable[[Row], str]:
    """What each line of a job's output begins with."""
    if options.tagstring:
        text = _text(_unescaped(options.tagstring), options, names)
        return lambda row: f"{text.of(row)}\t"
    if options.tag:
        return lambda row: f"{' '.join(row.args)}\t"
    return lambda row: ""


def _unescaped(text: str) -> str:
    return text.replace("\\t", "\t").replace("\\n", "\n").replace("\\r", "\r")


def _text(text: str, options: RunOptions, names: list[str]) -> Text:
    return Text(text, names, options.repeated is not None)


def load_function(name: str) -> Callable[[Any], Any]:
    """``pkg.mod:fn``, looked for in the current folder, too. UsageError when it is not there."""
    module, colon, path = name.partition(":")
    if not (module and colon and path) or module.startswith("."):
        raise UsageError(f"-f {name!r}: it is PKG.MOD:FUNCTION, such as mypackage.jobs:handle")
    from contextlib import redirect_stdout

    sys.path.insert(0, os.getcwd())
    try:
        with redirect_stdout(sys.stderr):  # stdout is for what the function returns
            found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"-f {name!r} cannot be loaded: {error}") from error
    except (Exception, SystemExit) as error:
        raise UsageError(f"-f {name!r} cannot be loaded: {_with_place(error)}") from error
    if not callable(found):
        raise UsageError(f"-f {name!r} is not a function: {found!r:.100}")
    return found  # type: ignore[no-any-return]


def _with_place(error: BaseException) -> str:
    """What a module has raised, and where."""
    import traceback

    place = traceback.extract_tb(error.__traceback__)[-1]
    told = f"{type(error).__name__}: {error}"
    return told if isinstance(error, SyntaxError) else f"{told} ({place.filename}, line {place.lineno})"
