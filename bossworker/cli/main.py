"""``bossworker COMMAND``: which command it is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {  # each is a function `main` of a module
    "run": ("run_main", "run a command for each argument, as xargs and GNU parallel do"),
}

USAGE = 2  # exit status of a command line that makes no sense


def usage() -> str:
    """What there is."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: bossworker COMMAND [OPTION]... [ARG]...",
            "Run commands, many at once or detached, and look after them.",
            "",
            *lines,
            "",
            "bossworker COMMAND --help tells more of each; --version tells which version this is.",
            "examples:",
            "  bossworker run -j 4 gzip -9 ::: *.log",
            "  bossworker start --name build -- make -j8",
            "  bossworker wait last; bossworker log last",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status of ``bossworker`` with these arguments."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else USAGE
    if name == "--version":
        from bossworker import __version__

        print(f"bossworker {__version__}")
        return 0
    if name not in COMMANDS:
        print(f"bossworker: there is no command {name!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return USAGE
    command = import_module(f"bossworker.cli.{COMMANDS[name][0]}")
    try:
        return int(command.main(arguments[1:]))
    except SystemExit as exit:  # argparse's
        return exit.code if isinstance(exit.code, int) else 1
    except KeyboardInterrupt:
        return 130
