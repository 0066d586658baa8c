"""Sides in turn, and what the turns amount to."""

from __future__ import annotations

import json
import os
import select
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from tempfile import TemporaryFile
from types import TracebackType
from typing import NamedTuple, Self

from benchmarks.side import Answer, Spec

PATIENCE = 300  # seconds for a turn; a pool that hangs costs its own row, not the run
CLOSING = 30  # seconds for a side to close its pool
TICK = 0.2  # seconds between looks whether a side still lives
LAST_LINES = 3  # of what a side that failed had to say


# glibc's own threshold moves with what a program has freed, so that it decides whether a peer pays page faults.
HEAPS = {
    "": {},
    "cold": {"MALLOC_MMAP_THRESHOLD_": str(128 << 10), "MALLOC_TRIM_THRESHOLD_": str(128 << 10)},
    "warm": {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)},
}


class SideFailed(Exception):
    """A side ended, or did not answer."""


class Side:
    """A side's process, from outside. It and all that it leaves behind are gone when the `with` block ends."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.errors = TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self.answers, theirs = os.pipe()
        command = [sys.executable, "-m", "benchmarks.side", json.dumps(spec._asdict()), str(theirs)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=self.errors,
            stderr=self.errors,
            pass_fds=[theirs],
            start_new_session=True,
            env={**os.environ, **HEAPS[spec.heap]},
        )
        os.close(theirs)
        self.buffer = b""

    def __enter__(self) -> Self:
        return self

    def ready(self) -> None:
        """Wait until its pool is up and warm."""
        self._answer()

    def turn(self) -> Answer:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # the missing answer says why
            self.process.stdin.write(b"\n")
            self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Answer:
        deadline = time.monotonic() + PATIENCE
        while b"\n" not in self.buffer:
            if select.select([self.answers], [], [], TICK)[0]:
                self.buffer += self._read()
            elif self._ended():
                raise SideFailed(self._last_words())
            elif time.monotonic() > deadline:
                raise SideFailed(f"no answer within {PATIENCE} seconds")
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)  # type: ignore[no-any-return]

    def _read(self) -> bytes:
        data = os.read(self.answers, 65536)
        if not data:
            self._await_end(CLOSING)
            raise SideFailed(self._last_words())
        return data

    def _last_words(self) -> str:
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").split("\n")
        return " / ".join([line.strip() for line in lines if line.strip()][-LAST_LINES:]) or "ended without a word"

    def _ended(self) -> bool:
        """Whether it has; it is not reaped, so that its process group stays its own."""
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _await_end(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._ended() and time.monotonic() < deadline:
            time.sleep(0.01)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self._await_end(CLOSING if kind is None else TICK)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.answers)
        self.errors.close()


def in_turn(specs: Sequence[Spec], rounds: int) -> list[list[Answer]]:
    """All sides' pools up and warm, then turns: A B C, A B C, ... A list of answers a side.

    Raises:
        SideFailed: One of them did.
    """
    with ExitStack() as stack:
        sides = [stack.enter_context(Side(spec)) for spec in specs]
        for side in sides:
            side.ready()
        turns = [[side.turn() for side in sides] for _ in range(rounds)]
    return [list(answers) for answers in zip(*turns, strict=True)]


class Spread(NamedTuple):
    """Of what was measured several times."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))
