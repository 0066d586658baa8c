"""What comes back from a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Never, Protocol, Self, overload

from bossworker.display import shorten, table
from bossworker.errors import JobFailed, JobTimeout
from bossworker.failure import KIND_BITS, ErrorData, ErrorKind, Outcome, add_trace, kind_of, rebuild, reported
from bossworker.system.compiled import core

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # which type checkers have anyway, with the default of a later Python

    class _TypedDict(Protocol):
        """What of all Mappings that are not mutable a TypedDict alone has."""

        def setdefault(self, k: Never, default: object) -> object: ...

    Key = TypeVar("Key")
    Value = TypeVar("Value")
    Typed = TypeVar("Typed", bound=_TypedDict)
    Answer_co = TypeVar("Answer_co", covariant=True, default=Any)
else:
    from typing import TypeVar

    Answer_co = TypeVar("Answer_co", covariant=True)


STORED = 1 << 31
"""A bit of a result's number of attempts."""


class MissingFromFailure(KeyError):
    """What a failed result has not: a KeyError that says why the job failed."""

    def __init__(self, key: object, reason: str) -> None:
        super().__init__(key, reason)

    def __str__(self) -> str:
        return f"{shorten(self.args[0])}: {self.args[1]}"


class Origin:
    """What the results of one batch have in common. Times are monotonic seconds."""

    __slots__ = ("attempt", "clock", "errors", "first_id", "jobs", "marks", "outcomes", "pid", "queued")

    def __init__(
        self,
        first_id: int,
        jobs: Sequence[Mapping[Any, Any]],
        pid: int,
        attempt: int,
        clock: float,
        queued: float | Sequence[float],
        marks: Sequence[float],
        outcomes: Sequence[int] | None = None,
        errors: Sequence[ErrorData | None] | None = None,
    ) -> None:
        self.first_id = first_id
        self.jobs = jobs
        self.pid = pid
        self.attempt = attempt
        self.clock = clock  # Unix time minus monotonic time, when the results arrived
        self.queued = queued  # when the jobs were added: all at once, or one by one
        self.marks = marks  # when each started, and, one further on, ended
        self.outcomes = outcomes  # None: all ended well
        self.errors = errors

    def alone(self, at: int) -> Origin:
        """The same for one result, which then drags nothing along of the others."""
        return Origin(
            self.first_id + at,
            (self.jobs[at],),
            self.pid,
            self.attempt,
            self.clock,
            self.queued_at(at),
            tuple(self.marks[at : at + 2]),
            self.outcomes and (self.outcomes[at],),
            self.errors and (self.errors[at],),
        )

    def with_error(self, error: ErrorData) -> Origin:
        """The same for one, with another error."""
        changed = self.alone(0)
        changed.errors = (error,)
        return changed

    def queued_at(self, at: int) -> float:
        queued = self.queued
        return queued if isinstance(queued, float) else queued[at]

    def __reduce__(self) -> tuple[Any, ...]:
        return Origin, tuple(getattr(self, name) for name in _ORIGIN)


_ORIGIN = ("first_id", "jobs", "pid", "attempt", "clock", "queued", "marks", "outcomes", "errors")


def _by_hand(error: ErrorData | None) -> Origin:
    """Of a result that no pool has made."""
    outcome = Outcome.REPORTED if error else Outcome.OK
    return Origin(0, (_NO_JOB,), 0, 0, 0.0, 0.0, (0.0, 0.0), (outcome,), (error,))


_NO_JOB: Any = None  # the job of such


class Result(dict[Any, Any], Generic[Answer_co]):
    """What the handler returned for one job, as a dict; the key ``ERROR`` says what went wrong, if anything did.

    The attributes tell the rest. Times are Unix seconds as floats.

    One that is made by hand, in a test for instance, is of no job: ``job`` is None, numbers and times are 0. It is ok,
    unless it has an ``ERROR``: then its ``error_kind`` is ``reported``.

    For type checkers: a ``Result[Answer]``, where `Answer` is what the handler says that it returns. The keys of a
    TypedDict are known of what ``raise_for_error()`` returns.
    """

    __slots__ = ("_at", "_origin")

    _origin: Origin
    _at: int  # which one of those it is

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As ``dict``."""
        super().__init__(*args, **kwargs)
        error = reported(self) if "ERROR" in self else None
        self._origin, self._at = _by_hand(error), 0

    @property
    def _outcome(self) -> int:
        outcomes = self._origin.outcomes
        return Outcome.OK if outcomes is None else outcomes[self._at]

    @property
    def _error(self) -> ErrorData | None:
        errors = self._origin.errors
        return None if errors is None else errors[self._at]

    @property
    def job_id(self) -> int:
        """The id that ``add_work`` returned for the job."""
        return self._origin.first_id + self._at

    @property
    def job(self) -> Mapping[Any, Any]:
        """The job as it was submitted: the entries that the dict had when it was added, whatever became of it since.

        Of plain data (numbers, text, bytes, None, and lists, tuples and dicts of them), it may be a copy. Other values
        are not copied; a mapping that is no plain dict is the very object.
        """
        if core is not None:
            core.track(self)  # whoever has the job may put this into it
        return self._origin.jobs[self._at]

    @property
    def worker_pid(self) -> int:
        """The process that ran it; 0 when none did."""
        return self._origin.pid

    @property
    def attempts(self) -> int:
        """How often it was started: 0 when it never was, more than 1 after retries."""
        return self._origin.attempt & ~STORED

    @property
    def stored(self) -> bool:
        """Whether it comes from the journal: the job was not run by this pool, but before."""
        return bool(self._origin.attempt & STORED)

    @property
    def queued_at(self) -> float:
        """When it was added."""
        return self._origin.queued_at(self._at) + self._origin.clock

    @property
    def started_at(self) -> float:
        """When it was started the last time; when it ended, for a job that never was."""
        return self._origin.marks[self._at] + self._origin.clock

    @property
    def finished_at(self) -> float:
        """When it ended."""
        return self._origin.marks[self._at + 1] + self._origin.clock

    @property
    def duration(self) -> float:
        """Seconds from start to end."""
        marks, at = self._origin.marks, self._at
        return marks[at + 1] - marks[at]

    @property
    def ok(self) -> bool:
        """Whether nothing went wrong."""
        return self._outcome & KIND_BITS == Outcome.OK

    @property
    def error(self) -> str | None:
        """The text under ``ERROR``, as it was when the job ended; None when it ended well."""
        error = self._error
        return error.text if error is not None else None

    @property
    def error_kind(self) -> ErrorKind | None:
        """``exception``, ``timeout``, ``crash``, ``cancelled``, ``bad_result``, ``bad_job``, ``memory``, or None.

        ``reported``: the handler returned an ``ERROR`` of its own.
        """
        return kind_of(self._outcome)

    @property
    def traceback(self) -> str | None:
        """The worker's traceback, with its chain of causes, as text; None when there is none."""
        error = self._error
        return (error.traceback or None) if error is not None else None

    @property
    def log(self) -> str:
        """The last 64 KiB (of UTF-8) of what a failed job has printed and logged; empty without ``logs="relay"``."""
        error = self._error
        return error.log if error is not None else ""

    @property
    def exception(self) -> BaseException | None:
        """The exception, rebuilt now with its causes; a RemoteError stands in for what cannot be rebuilt here.

        Its notes end with the worker's traceback, so that whatever prints it shows where it was raised.
        """
        error = exception_of(self)
        if error is not None and self.traceback:
            add_trace(error, self.traceback)
        return error

    @property
    def exit_code(self) -> int | None:
        """What the worker exited with, when its death is the error (``crash``) and no signal was the cause."""
        code = self._exit_code
        return code if code is not None and code >= 0 else None

    @property
    def signal(self) -> int | None:
        """The number of the signal that killed the worker, when its death is the error (``crash``)."""
        code = self._exit_code
        return -code if code is not None and code < 0 else None

    @property
    def _exit_code(self) -> int | None:
        error = self._error
        return error.code if error is not None else None

    @overload
    def raise_for_error(self: Result[dict[Key, Value]]) -> Result[dict[Key, Value]]: ...

    @overload
    def raise_for_error(self: Result[Typed]) -> Typed: ...  # type: ignore[overload-overlap]  # the first that fits

    @overload
    def raise_for_error(self) -> Self: ...

    def raise_for_error(self) -> Any:
        """Return self when ok; otherwise raise JobFailed, with the worker's exception as its cause."""
        if self.ok:
            return self
        raise JobFailed(f"{self._whose()}: {self.error}", self) from self.exception

    def __missing__(self, key: object) -> Any:
        if self.error is not None:
            raise MissingFromFailure(key, f"{self._whose()} failed: {self.error}")
        raise KeyError(key)

    def _is_by_hand(self) -> bool:
        return self.job_id == 0

    def _whose(self) -> str:
        return "a job" if self._is_by_hand() else f"job {self.job_id}"

    def __repr__(self) -> str:
        return f"<{self._title()}: {shorten(dict(self))}>"

    def _title(self) -> str:
        if self._is_by_hand():
            return "Result"
        return f"Result of job {self.job_id}, {'ok' if self.ok else self.error_kind}"

    def _repr_html_(self) -> str:
        facts = () if self._is_by_hand() else (("took", f"{self.duration:.3g} s"), ("job", self.job))
        return table(self._title(), [*self.items(), *facts], self.traceback or "")

    def __reduce__(self) -> tuple[Any, ...]:
        if self._is_by_hand():
            return Result, (dict(self),)
        return make_result, (dict(self), self._origin.alone(self._at))


def make_result(value: Mapping[Any, Any], origin: Origin, at: int = 0) -> Result[Any]:
    """A result with its attributes."""
    result = bare_result(value)
    result._origin, result._at = origin, at
    return result


def bare_result(value: Mapping[Any, Any]) -> Result[Any]:
    """A result with nothing but its contents."""
    result: Result[Any] = dict.__new__(Result)
    result.update(value)
    return result


def exception_of(result: Result) -> BaseException | None:
    """As ``result.exception``, without the worker's traceback."""
    error = result._error
    if error is None:
        return None
    if result.error_kind in ("timeout", "memory") and error.pickled is None:
        return JobTimeout(error.text)
    return rebuild(error)
