"""What workers have printed and logged, in the program: handed to its own logging, and kept for failed results."""

from __future__ import annotations

import json
import logging
import sys
from collections import deque
from collections.abc import Container, Mapping
from typing import Any

from bossworker.system.one_step import Step, steps_of, take_steps
from bossworker.watch.progress_bar import bars_hidden

JOB_LOGGER = "bossworker.job"
TAIL_BYTES = 1 << 16  # of a job's last lines, in UTF-8, are kept while it has no result,
MOST_TAILS = 1 << 10  # of this many jobs at most
_STDOUT, _STDERR, _RECORD = 1, 2, 3
_FILTERED = "filtered_in_worker"  # of a record: whether the filters of its logger have been asked
_LEVELS = {_STDOUT: logging.INFO, _STDERR: logging.WARNING}

_logger = logging.getLogger("bossworker")


class RelayedLines:
    """See the module. Lines are taken in by whichever thread listens, and shown once it does not listen any more.

    Args:
        unfinished: Holds the ids of the jobs without a result.
    """

    def __init__(self, unfinished: Container[int]) -> None:
        self._unfinished = unfinished
        self.waiting: deque[tuple[float, list[Any]]] = deque()  # clock, line
        self._missed = 0
        self._source: object = None
        self._taken = 0  # lines of what came last
        self.tails: dict[int, _Tail] = {}

    def add(self, content: Mapping[str, Any], source: object = None) -> None:
        """Take in what the boss has sent.

        `source`: what it came in. With the same as before, it is the same content: who was interrupted in it goes on.
        """
        clock, lines, missed = content["clock"], content["lines"], content["missed"]
        if source is None or source is not self._source:
            self._source, self._taken, self._missed = source, 0, self._missed + missed
        for line in lines[self._taken :]:
            job_id = line[0]
            if job_id in self._unfinished:
                self._tail(job_id).add(line[3], line[5])
            # Put in the queue and counted in one step: Ctrl-C has the same content come again, and it goes on behind
            # this line.
            taken: Step = setattr, self, "_taken", self._taken + 1
            take_steps(steps_of([(self.waiting.append, (clock, line)), taken]))

    def _tail(self, job_id: int) -> _Tail:
        if job_id not in self.tails:
            if len(self.tails) >= MOST_TAILS:
                del self.tails[next(iter(self.tails))]
            self.tails[job_id] = _Tail()
        return self.tails[job_id]

    def tail_of(self, job_id: int) -> str:
        """The last lines of a job, once."""
        tail = self.tails.pop(job_id, None)
        return tail.text() if tail is not None else ""

    def show(self) -> None:
        """Hand everything to the program's logging. Each line once at the most, whatever interrupts us."""
        if missed := self._missed:
            # No call lies between the look and this, so of two threads that show one tells of them; and what another
            # thread adds meanwhile stays.
            self._missed -= missed
            _logger.warning("output missed: lines=%d reason='the program took nothing from the pool'", missed)
        with bars_hidden():
            self._show_all()

    def _show_all(self) -> None:
        while self.waiting:
            try:
                clock, line = self.waiting.popleft()
            except IndexError:  # another thread is at it, too
                return
            _show(clock, *line)


class _Tail:
    """The last lines of one job."""

    def __init__(self) -> None:
        self._lines: deque[tuple[str, int]] = deque()  # with its bytes
        self._bytes = 0

    def add(self, stream: int, text: str) -> None:
        line = f"{text if stream != _RECORD else record_text(text)}\n"
        size = len(line) if line.isascii() else len(line.encode("utf-8", "surrogatepass"))
        self._lines.append((line, size))
        self._bytes += size
        while self._bytes - self._lines[0][1] >= TAIL_BYTES:  # what is left is enough
            self._bytes -= self._lines.popleft()[1]

    def text(self) -> str:
        return _last_bytes("".join(line for line, _ in self._lines), TAIL_BYTES)


def _last_bytes(text: str, most: int) -> str:
    """The end of a text, as much of it as makes this many bytes at most."""
    data = text.encode("utf-8", "surrogatepass")
    at = max(0, len(data) - most)
    while at < len(data) and data[at] & 0xC0 == 0x80:  # amid a character
        at += 1
    return data[at:].decode("utf-8", "surrogatepass")


def _show(clock: float, job_id: int | None, pid: int, index: int, stream: int, at: float, text: str) -> None:
    try:
        facts = {"job_id": job_id, "worker_pid": pid, "worker_index": index}
        filtered = False
        if stream == _RECORD:
            record = logging.makeLogRecord({**_loaded(text), **facts})
            filtered = bool(record.__dict__.pop(_FILTERED, False))
        else:
            record = _record_of_line(_LEVELS[stream], text, at + clock, facts)
            if not _is_handled(logging.getLogger(JOB_LOGGER)):
                _print(f"job {job_id} │ {text}" if job_id is not None and _in_notebook() else text, stream)
                return
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            (logger.callHandlers if filtered else logger.handle)(record)
    except Exception:  # what a program's handlers raise is not the pool's to pass on
        if logging.raiseExceptions and sys.stderr:
            _logger.exception("output not shown: job=%s", job_id)


def _print(text: str, stream: int) -> None:
    print(text, file=sys.stdout if stream == _STDOUT else sys.stderr)


def _in_notebook() -> bool:
    """Whether what is printed appears below a cell: for people, who want to know which job said it."""
    return type(sys.stdout).__module__.partition(".")[0] == "ipykernel"


def _record_of_line(level: int, text: str, at: float, facts: Mapping[str, Any]) -> logging.LogRecord:
    record = logging.LogRecord(JOB_LOGGER, level, "(worker)", 0, text, None, None)
    record.created, record.msecs = at, at % 1 * 1000
    record.process = facts["worker_pid"]
    record.__dict__.update(facts)
    return record


def _is_handled(logger: logging.Logger | None) -> bool:
    """Whether the program has set up a handler for this logger, or one above it."""
    while logger is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def _loaded(text: str) -> dict[str, Any]:
    try:
        facts = json.loads(text)
    except ValueError:  # torn by something that a handler has forked
        facts = None
    if not isinstance(facts, dict) or not isinstance(facts.get("name"), str) or type(facts.get("levelno")) is not int:
        return {"name": JOB_LOGGER, "levelno": logging.INFO, "levelname": "INFO", "msg": text}
    return facts


def record_text(text: str) -> str:
    facts = _loaded(text)
    trace = facts.get("exc_text")
    return f"{facts.get('levelname')}:{facts['name']}:{facts.get('msg')}" + (f"\n{trace}" if trace else "")
