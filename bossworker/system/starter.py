"""Start one program after the other, by the thousand, as `program.start` does, but in less time where there is a core.

CPython's ``fork_exec`` asks at each start for the dispositions of 64 signals, copies the environment, and hears through
a pipe whether the program runs.
"""

from __future__ import annotations

import os

from bossworker.system import program
from bossworker.system.compiled import core

_CHANGING_FOLDER = 1  # what went wrong, as native/starting.c has it


class Starter:
    """For a process with one thread, that ignores no signal and sets no handler any more."""

    def __init__(self, environment: list[bytes]) -> None:
        """
        Args:
            environment: ``NAME=value`` each, of all programs.
        """
        self._environment = environment
        self._prepared = core.prepare_starts() if core is not None else None

    def start(self, argv: list[str], files: list[bytes], cwd: str, more: list[str], stdio: tuple[int, int, int]) -> int:
        """Start a program in a session of its own; its pid.

        Args:
            files: What its name may mean.
            more: ``NAME=value`` each, of this one alone.
            stdio: As for `program.start`, and so are the errors.
        """
        if self._prepared is None:
            own = [*self._environment, *map(os.fsencode, more)]
            words = list(map(os.fsencode, argv))
            return program.start(words, own, os.fsencode(cwd), stdio, files=files, none_ignored=True)
        program.check_name(argv)
        told = core.start(argv, files, self._environment, more, cwd, stdio, self._prepared)
        if isinstance(told, int):
            return told
        number, step = told
        raise program.refusal(number, os.fsencode(argv[0]), os.fsencode(cwd) if step == _CHANGING_FOLDER else b"")
