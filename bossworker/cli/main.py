"""``bossworker COMMAND``: which command it is."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from io import TextIOWrapper

from bossworker.system.cpython import signal

COMMANDS = {  # the module, the function in it, and what it does
    "run": ("run_start", "begin", "run a command for each argument, as xargs and GNU parallel do"),
    "start": ("detached", "start", "start a command that goes on when this terminal is gone"),
    "add": ("queue_commands", "add", "queue a command; it survives restarts"),
    "group": ("queue_commands", "group", "list groups of queued commands, or change one"),
    "ps": ("looking", "ps", "list pools, jobs and tasks"),
    "show": ("looking", "show", "tell all that is known of one"),
    "log": ("looking", "log", "print what one has written; follow it"),
    "wait": ("steering", "wait", "wait for its end; exit as it does"),
    "kill": ("steering", "kill", "send a signal"),
    "pause": ("steering", "pause", "stop it where it is"),
    "resume": ("steering", "resume", "let it go on"),
    "send": ("steering", "send", "hand a line of text to a task"),
    "retry": ("detached", "retry", "start it once more"),
    "clean": ("detached", "clean", "delete what has ended, or what is named"),
    "stack": ("looking", "stack", "show what a command or a pool does just now"),
    "top": ("top", "top", "show it all live"),
    "trace": ("looking", "trace", "write what a pool has done to a file"),
    "web": ("web_command", "web", "serve a page: pools, jobs and tasks in a browser"),
    "doctor": ("doctor", "doctor", "look at what this machine lacks"),
    "completion": ("shells", "completion", "print completion for bash, zsh or fish"),
}

PIPE_CLOSED = 141  # exit status of a program that SIGPIPE has ended
INTERRUPTED = 130  # the same of Ctrl-C
USAGE = 2  # exit status of a command line that makes no sense


def usage() -> str:
    """What there is."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, (*_, text) in COMMANDS.items()]
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
    _open_standard_streams()
    if argv is None:
        _show_any_letter()
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name == "help" and rest:
        name, *rest = rest[0], "--help"
    if name in COMMANDS:
        return _call(name, rest, is_program=argv is None)
    return _guarded("bossworker", lambda: _tell(name))


def _tell(name: str) -> int:
    """What there is; or that there is no such command."""
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name == "--version":
        from bossworker import __version__

        print(f"bossworker {__version__}")
        return 0
    _say(f"bossworker: there is no command {name!r:.200}; there are {', '.join(COMMANDS)}")
    return USAGE


def _open_standard_streams() -> None:
    """Those that were closed lead nowhere: or whatever is opened first would get what is printed."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _show_any_letter() -> None:
    """One that the terminal's encoding lacks is a question mark, and no error. (JSON has none of these.)"""
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="replace")


def _call(name: str, argv: Sequence[str], is_program: bool) -> int:
    gc.disable()  # of what is loaded, nothing is garbage: to look for it takes milliseconds
    loads = is_program and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        if loads:  # to be interrupted is to end: imports have callbacks, in which a KeyboardInterrupt is lost
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        command = _load(name)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        if is_program:  # where all that there is has just been loaded; or else garbage of others would stay for good
            gc.freeze()  # or the first look goes through all of that, and so does one at the end
        if loads:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        gc.enable()
    return _guarded(f"bossworker {name}", lambda: command(argv))


def _guarded(name: str, work: Callable[[], int]) -> int:
    """Its exit status, also where nobody takes what is printed."""
    try:
        try:
            status = work()
        except SystemExit as exit:  # argparse's
            status = exit.code if isinstance(exit.code, int) else 1
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever reads has read enough
        _drop_output()
        return PIPE_CLOSED
    except OSError as error:  # a full disk under stdout; a folder that may not be written to
        _drop_output()
        _say(f"{name}: {error}")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _load(name: str) -> Callable[[Sequence[str]], int]:
    module, function, _ = COMMANDS[name]
    found = getattr(import_module(f"bossworker.cli.{module}"), function)
    return found() if name == "run" else found  # type: ignore[no-any-return] # see run_start.py


def _say(text: str) -> None:
    from bossworker.cli.printers import say

    say(text)


def _drop_output() -> None:
    """Or Python complains as it flushes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
