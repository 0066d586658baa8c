"""A bar that shows how far a map is: tqdm's where that is installed, else a line that is painted anew.

Where stderr is no terminal (and this no notebook), nothing is shown, or a line every few seconds where that was
asked for. What running jobs say of themselves (``current_job().progress``) stands behind the counts. It is looked for
ten times a second, also while no result comes: by whoever waits for the next one, in its own thread.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any, Protocol

from bossworker.display import shorten
from bossworker.result import Result

REPAINT_SECONDS = 0.1
MOST_TOLD = 3  # jobs whose progress is shown
LONGEST_WORD = 24  # characters of what one of them says
USUAL_COLUMNS = 80  # where the terminal does not tell

Said = tuple[int, tuple[float, float | None, str]]
"""Of a job, by its id: how much is done, of how much, and a word on it."""
_open_bars: list[Bar] = []


class Bar(Protocol):
    """What shows how far we are."""

    def count(self, done: int, failed: int) -> None:
        """How many jobs are done by now, and how many of these have failed."""

    def tell(self, told: str) -> None:
        """What running jobs say of themselves."""

    def hidden(self) -> Any:
        """A context manager: in its block, others may write to the terminal."""

    def close(self) -> None:
        """Leave the last state to be read."""


def check_progress(value: object) -> float | None:
    """None: no bar. Else the seconds between lines where there is no terminal; 0: nothing there."""
    if value is None or value is False:
        return None
    if value is True:
        return 0.0
    if not isinstance(value, int | float):
        raise TypeError(
            f"progress must be True, False, or the seconds between lines without a terminal, not {shorten(value)}"
        )
    if not value > 0:
        raise ValueError(f"progress must be a number of seconds above 0, not {shorten(value)}")
    return float(value)


def length_of(jobs: object) -> int | None:
    """How many there are, if that is known."""
    return len(jobs) if isinstance(jobs, Sized) else None


class Waiting(Protocol):
    """What waits for results."""

    bars: list[Callable[[], None]]
    """Called while it waits."""

    def running_progress(self) -> Iterable[Said]:
        """What running jobs say of themselves."""


def with_bar(
    results: Generator[Result, None, None] | Iterator[Result], total: int | None, seconds: float, line: Waiting
) -> Generator[Result, None, None]:
    """The same results, with a bar. `line` is where they come from."""
    with ExitStack() as ends:
        if isinstance(results, Generator):
            ends.enter_context(closing(results))
        tally = ends.enter_context(closing(Tally(total, seconds, line.running_progress)))
        if tally.shown:
            line.bars.append(tally.look)
            ends.callback(line.bars.remove, tally.look)
        for result in results:
            tally.add(result)
            yield result


class Tally:
    """Counts results, and shows the bar. Show nothing of it after `close`."""

    def __init__(self, total: int | None, seconds: float, progress: Callable[[], Iterable[Said]]) -> None:
        self._done = self._failed = 0
        self._progress = progress
        self._look_due = 0.0
        self._thread = threading.get_ident()
        self._bar = _bar(total, seconds)
        _open_bars.append(self._bar)

    def add(self, result: Result) -> None:
        """One more."""
        self._thread = threading.get_ident()
        self._done += 1
        self._failed += not result.ok
        self.look()
        self._bar.count(self._done, self._failed)

    @property
    def shown(self) -> bool:
        """Whether there is anything to be seen."""
        return type(self._bar) is not NoBar

    def look(self) -> None:
        """Show what running jobs say, ten times a second at most. (Other threads that wait, too, call it in vain.)"""
        now = time.monotonic()
        if now >= self._look_due and self.shown and threading.get_ident() == self._thread:
            self._look_due = now + REPAINT_SECONDS
            self._bar.tell(told_of(self._progress()))

    def close(self) -> None:
        """No more will come."""
        if self._bar in _open_bars:
            _open_bars.remove(self._bar)
            self._bar.close()


def told_of(progress: Iterable[Said]) -> str:
    """What running jobs say of themselves, on one line."""
    told = [f"job {job_id}: {_fraction(*said)}" for job_id, said in sorted(progress)]
    more = [f"{len(told) - MOST_TOLD} more"] if len(told) > MOST_TOLD else []
    return ", ".join(told[:MOST_TOLD] + more)


def _fraction(done: float, total: float | None, word: str) -> str:
    shown = "".join(c if c.isprintable() else " " for c in word[:LONGEST_WORD])
    return f"{done:g}{'' if total is None else f'/{total:g}'} {shown}".rstrip()


@contextmanager
def bars_hidden() -> Iterator[None]:
    """In the block, something is written that would tear the bars."""
    with ExitStack() as hidden:
        for bar in _open_bars:
            hidden.enter_context(bar.hidden())
        yield


def _bar(total: int | None, seconds: float) -> Bar:
    terminal = sys.stderr is not None and sys.stderr.isatty()
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return LineBar(total) if terminal else SparseLines(total, seconds) if seconds else NoBar()
    if terminal or _is_notebook() or any("notebook" in one.__module__ for one in tqdm.__mro__):
        return TqdmBar(tqdm(total=total, unit="job", dynamic_ncols=True))
    return SparseLines(total, seconds) if seconds else NoBar()


def _is_notebook() -> bool:
    """Whether a notebook's kernel shows what is written. (Without ipywidgets, tqdm has no bar of its own for that.)"""
    return type(sys.stderr).__module__.startswith("ipykernel.")


class NoBar:
    """Nothing is shown."""

    def count(self, done: int, failed: int) -> None:
        """Not shown."""

    def tell(self, told: str) -> None:
        """Nor this."""

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """It always is."""
        yield

    def close(self) -> None:
        """Nothing to do."""


class TqdmBar:
    """One of tqdm's, in a terminal or a notebook."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._failed = 0
        self._told = ""

    def count(self, done: int, failed: int) -> None:
        if failed != self._failed:
            self._failed = failed
            self._set_postfix()
        self._bar.update(done - self._bar.n)

    def tell(self, told: str) -> None:
        if told != self._told:
            self._told = told
            self._set_postfix()
            self._bar.refresh()

    def _set_postfix(self) -> None:
        failed = [f"failed={self._failed}"] if self._failed else []
        self._bar.set_postfix_str(", ".join([*failed, *filter(None, [self._told])]), refresh=False)

    def hidden(self) -> Any:
        return self._bar.external_write_mode()

    def close(self) -> None:
        self._told = ""
        self._set_postfix()
        self._bar.close()


class Pace:
    """What can be told of the rate, and of the end."""

    def __init__(self, total: int | None) -> None:
        self.total = total
        self.began = time.monotonic()

    def line(self, done: int, failed: int) -> str:
        """As text."""
        spent = max(1e-9, time.monotonic() - self.began)
        rate = done / spent
        told = f"{done}/{self.total} {100 * done // max(1, self.total)}%" if self.total is not None else str(done)
        told += f" jobs, {rate:.3g}/s, {failed} failed"
        if self.total is not None and rate and done < self.total:
            told += f", {_clock((self.total - done) / rate)} left"
        return told


class LineBar:
    """One line of the terminal, painted anew ten times a second at most."""

    def __init__(self, total: int | None) -> None:
        self._pace = Pace(total)
        self._state = (0, 0)
        self._told = self._painted = ""
        self._painted_at = 0.0
        self._paint()

    def count(self, done: int, failed: int) -> None:
        self._state = (done, failed)
        if time.monotonic() >= self._painted_at + REPAINT_SECONDS:
            self._paint()

    def tell(self, told: str) -> None:
        self._told = told
        if told != self._painted and time.monotonic() >= self._painted_at + REPAINT_SECONDS:
            self._paint()

    def _paint(self) -> None:
        self._painted_at = time.monotonic()
        self._painted = self._told
        line = self._pace.line(*self._state)
        told = f"{line}, {self._told}" if self._told else line
        self._write(f"\r{told[: _columns() - 1]}\x1b[K")  # what does not fit could not be painted over

    def _write(self, text: str) -> None:
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        self._write("\r\x1b[K")
        yield
        self._paint()

    def close(self) -> None:
        self._told = ""
        self._paint()
        self._write("\n")


class SparseLines(NoBar):
    """A line every few seconds: for the logs of a service."""

    def __init__(self, total: int | None, seconds: float) -> None:
        self._pace = Pace(total)
        self._seconds = seconds
        self._due = self._pace.began + seconds
        self._state = (0, 0)

    def count(self, done: int, failed: int) -> None:
        self._state = (done, failed)
        self._print_if_due("")

    def tell(self, told: str) -> None:
        self._print_if_due(f", {told}" if told else "")

    def _print_if_due(self, told: str) -> None:
        if time.monotonic() >= self._due and sys.stderr is not None:
            self._due = time.monotonic() + self._seconds
            print(f"{self._pace.line(*self._state)}{told}", file=sys.stderr, flush=True)


def _columns() -> int:
    with suppress(AttributeError, OSError, ValueError):  # none, closed, or what stands in its place
        return os.get_terminal_size(sys.stderr.fileno()).columns or USUAL_COLUMNS
    return USUAL_COLUMNS


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
