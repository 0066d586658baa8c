"""What a run tells at its end: what failed, what was slowest, and how to run the failures again."""

from __future__ import annotations

from collections.abc import Sequence

from bossworker.cli.outcomes import INTERRUPTED, Ended, last_bytes
from bossworker.cli.quantities import printable
from bossworker.system.records import NamedTuple

MOST_SHOWN = 20  # failures that are told of one by one
_LINES, _BYTES = 5, 4096
_SLOWEST = 3
_SLOW = 1.0  # seconds; of a run without any job as slow, none is told of


class FailedJob(NamedTuple):
    """One job that failed, as it is told of."""

    what: str
    """Failed, or interrupted."""
    seq: int
    text: str
    words: str
    seconds: float
    lines: list[str]
    jobid: str


class Summary:
    """Collects it."""

    def __init__(self, slowest: int = _SLOWEST) -> None:
        self.failures: list[FailedJob] = []
        self.ended = self.failed = 0
        self.interrupted = 0
        self._most_slow = slowest
        self._slowest: list[tuple[float, int, str]] = []

    def add(self, ended: Ended) -> None:
        """One has ended."""
        self.ended += 1
        if ended.seconds >= _SLOW:
            self._slowest.append((ended.seconds, ended.plan.row.seq, ended.plan.text))
            self._slowest.sort(reverse=True)
            del self._slowest[self._most_slow :]
        if ended.ok:
            return
        self.failed += 1
        if len(self.failures) < MOST_SHOWN:
            self.failures.append(_failure(ended))

    def lines(self, rerun: Sequence[str], bold: str = "", plain: str = "") -> list[str]:
        """For people. `rerun`: the command that runs the failures again."""
        told: list[str] = []
        for one in self.failures:
            text = printable(" ".join(one.text.split()))
            seconds = f", {one.seconds:.3g} s" if one.seconds else ""
            told.append(f"{bold}{one.what}{plain} {one.seq}: {text:.200}: {one.words}{seconds}")
            told += [f"    {line}" for line in one.lines]
            if one.jobid:
                told.append(f"    all of it: bossworker log {one.jobid}")
        if self.failed > len(self.failures):
            told.append(f"... and {self.failed - len(self.failures):,} more: {self.failed:,} of {self.ended:,} failed")
        told += self._slow_lines()
        if self.failed and rerun:
            import shlex

            told.append(f"rerun them: {shlex.join(rerun)}")
        return told

    def unfinished(self, left: int | None, all_read: bool) -> str:
        """Which jobs of a run that was stopped have not ended. `left`: how many, where that can be known."""
        told = f"{self.interrupted if left is None else left:,} of its jobs"
        return told if all_read or left is not None else f"{told}, and those that were not read yet,"

    def _slow_lines(self) -> list[str]:
        if len(self._slowest) < 2:
            return []
        slow = [(seconds, seq, printable(" ".join(text.split()))) for seconds, seq, text in self._slowest]
        return ["slowest:", *(f"    {seconds:.1f} s  {seq}: {text:.200}" for seconds, seq, text in slow)]


def _failure(ended: Ended) -> FailedJob:
    stream = ended.stderr or ended.stdout
    text = last_bytes(stream, _BYTES).decode("utf-8", "replace") if stream else _traceback_of(ended)
    lines = [printable(line)[:300] for line in text.splitlines()[-_LINES:]]
    if ended.kind and not lines and len(ended.reason.splitlines()) > 1:
        lines = [printable(line)[:300] for line in ended.reason.splitlines()[-_LINES:]]
    if lines and "\n".join(lines) in ended.words:  # they would say it twice
        lines = []
    what = INTERRUPTED if ended.kind == INTERRUPTED else "failed"
    words = printable(ended.words)
    return FailedJob(what, ended.plan.row.seq, ended.plan.text, words, ended.seconds, lines, ended.jobid)


def _traceback_of(ended: Ended) -> str:
    """Of a handler in Python that has raised."""
    return getattr(ended.answer, "traceback", None) or "" if ended.kind == "exception" else ""
