"""Start one program after the other, by the thousand, as `program.start` does, but in less time where there is a core.

CPython's ``fork_exec`` asks at each start for the dispositions of 64 signals, copies the environment, and waits until
the program is executed, which it hears through a pipe. The core waits for nothing: whether a program is executed is
seen later.
"""

from __future__ import annotations

import os

from bossworker.system import program
from bossworker.system.compiled import core

_CHANGING_FOLDER = 1  # what went wrong, as native/starting.c has it


class StartedProgram:
    """A program that was started, and may still be about to execute."""

    __slots__ = ("_begun", "pid")

    def __init__(self, pid: int, begun: object = None) -> None:
        """
        Args:
            begun: As `core.start` gives it; None: it is executed.
        """
        self.pid = pid
        self._begun = begun

    @property
    def executes(self) -> bool:
        """Whether it is our copy no more."""
        return self._begun is None or core.look_at_start(self._begun) is not None

    def refusal(self, argv: list[str], cwd: str) -> program.CannotStart | None:
        """Of one that has ended: why it was not executed, if so."""
        number, step = (0, 0) if self._begun is None else core.look_at_start(self._begun) or (0, 0)
        folder = os.fsencode(cwd) if step == _CHANGING_FOLDER else b""
        return program.refusal(number, os.fsencode(argv[0]), folder) if number else None


_found: list[object] = []


def prepare_starts() -> None:
    """Find out ahead of the next `Starter`, since it takes milliseconds, how the core is to start programs."""
    _found.append(_find_out())


def _find_out() -> object:
    """None: not at all."""
    return core.prepare_starts() if core is not None else None


class Starter:
    """For a process with one thread, that ignores no signal and sets no handler any more."""

    def __init__(self, environment: list[bytes]) -> None:
        """
        Args:
            environment: ``NAME=value`` each, of all programs.
        """
        self._environment = environment
        self._prepared = _found.pop() if _found else _find_out()

    @property
    def is_compiled(self) -> bool:
        """Whether the core starts them."""
        return self._prepared is not None

    def start(
        self, argv: list[str], files: list[bytes], cwd: str, more: list[str], stdio: tuple[int, int, int]
    ) -> StartedProgram:
        """Start a program in a session of its own.

        Args:
            files: What its name may mean.
            more: ``NAME=value`` each, of this one alone.
            stdio: As for `program.start`, and so are the errors; but CannotStart may be told later.
        """
        if self._prepared is None:
            own = [*self._environment, *map(os.fsencode, more)]
            words = list(map(os.fsencode, argv))
            return StartedProgram(program.start(words, own, os.fsencode(cwd), stdio, files=files, none_ignored=True))
        return StartedProgram(*core.start(*self.describe(argv, files, cwd, more, stdio)))

    def describe(
        self, argv: list[str], files: list[bytes], cwd: str, more: list[str], stdio: tuple[int, int, int]
    ) -> tuple[object, ...]:
        """What the core takes to start one; as for `start`. CannotStart where the name is none."""
        program.check_name(argv)
        return argv, files, self._environment, more, cwd, stdio, self._prepared
