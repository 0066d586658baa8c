"""What comes back from a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Never, Protocol, Self, overload

from bossworker.display import shorten, table
from bossworker.errors import JobFailed, JobTimeout
from bossworker.failure import KIND_BITS, ErrorData, ErrorKind, Outcome, add_trace, kind_of, rebuild, reported

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


class Origin(NamedTuple):
    """What the results of one batch have in common. Times are monotonic seconds."""

    pid: int
    attempt: int
    clock: float  # Unix time minus monotonic time, when the results arrived
    queued: float | Sequence[float]  # when the jobs were added: all at once, or one by one
    marks: Sequence[float]  # when each started, and, one further on, ended

    def alone(self, position: int) -> Origin:
        """The same for one result, which then drags nothing along of the others."""
        queued = self.queued if isinstance(self.queued, float) else self.queued[position]
        return self._replace(queued=queued, marks=tuple(self.marks[position : position + 2]))


_BY_HAND = Origin(pid=0, attempt=0, clock=0.0, queued=0.0, marks=(0.0, 0.0))  # of results that no pool has made
_NO_JOB: Any = None  # the job of such

Facts = tuple[int, Mapping[Any, Any], Origin, int, int, ErrorData | None]
"""About one result; a plain tuple, because they are made by the hundred thousand:

0 job id; 1 the job; 2 origin; 3 its position there; 4 outcome; 5 error.
"""


class Result(dict[Any, Any], Generic[Answer_co]):
    """What the handler returned for one job, as a dict; the key ``ERROR`` says what went wrong, if anything did.

    The attributes tell the rest. Times are Unix seconds as floats.

    One that is made by hand, in a test for instance, is of no job: ``job`` is None, numbers and times are 0. It is ok,
    unless it has an ``ERROR``: then its ``error_kind`` is ``reported``.

    For type checkers: a ``Result[Answer]``, where `Answer` is what the handler says that it returns. The keys of a
    TypedDict are known of what ``raise_for_error()`` returns.
    """

    __slots__ = ("_facts",)

    _facts: Facts

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As ``dict``."""
        super().__init__(*args, **kwargs)
        error = reported(self) if "ERROR" in self else None
        self._facts = (0, _NO_JOB, _BY_HAND, 0, Outcome.REPORTED if error else Outcome.OK, error)

    @property
    def job_id(self) -> int:
        """The id that ``add_work`` returned for the job."""
        return self._facts[0]

    @property
    def job(self) -> Mapping[Any, Any]:
        """The job as it was submitted: the entries that the dict had when it was added, whatever became of it since.

        Its values are not copied. A mapping that is no plain dict is the very object.
        """
        return self._facts[1]

    @property
    def worker_pid(self) -> int:
        """The process that ran it; 0 when none did."""
        return self._facts[2].pid

    @property
    def attempts(self) -> int:
        """How often it was started: 0 when it never was, more than 1 after retries."""
        return self._facts[2].attempt & ~STORED

    @property
    def stored(self) -> bool:
        """Whether it comes from the journal: the job was not run by this pool, but before."""
        return bool(self._facts[2].attempt & STORED)

    @property
    def queued_at(self) -> float:
        """When it was added."""
        origin = self._facts[2]
        queued = origin.queued
        return (queued if isinstance(queued, float) else queued[self._facts[3]]) + origin.clock

    @property
    def started_at(self) -> float:
        """When it was started the last time; when it ended, for a job that never was."""
        origin = self._facts[2]
        return origin.marks[self._facts[3]] + origin.clock

    @property
    def finished_at(self) -> float:
        """When it ended."""
        origin = self._facts[2]
        return origin.marks[self._facts[3] + 1] + origin.clock

    @property
    def duration(self) -> float:
        """Seconds from start to end."""
        marks, position = self._facts[2].marks, self._facts[3]
        return marks[position + 1] - marks[position]

    @property
    def ok(self) -> bool:
        """Whether nothing went wrong."""
        return self._facts[4] & KIND_BITS == Outcome.OK

    @property
    def error(self) -> str | None:
        """The text under ``ERROR``, as it was when the job ended; None when it ended well."""
        error = self._facts[5]
        return error.text if error is not None else None

    @property
    def error_kind(self) -> ErrorKind | None:
        """``exception``, ``timeout``, ``crash``, ``cancelled``, ``bad_result``, ``bad_job``, ``memory``, or None.

        ``reported``: the handler returned an ``ERROR`` of its own.
        """
        return kind_of(self._facts[4])

    @property
    def traceback(self) -> str | None:
        """The worker's traceback, with its chain of causes, as text; None when there is none."""
        error = self._facts[5]
        return (error.traceback or None) if error is not None else None

    @property
    def log(self) -> str:
        """The last 64 KiB (of UTF-8) of what a failed job has printed and logged; empty without ``logs="relay"``."""
        error = self._facts[5]
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
        error = self._facts[5]
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
        return self._facts[2] is _BY_HAND

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
        job_id, job, origin, position, *rest = self._facts
        return make_result, (dict(self), (job_id, job, origin.alone(position), 0, *rest))


def make_result(value: Mapping[Any, Any], facts: Facts) -> Result[Any]:
    """A result with its attributes."""
    result: Result[Any] = dict.__new__(Result)
    result.update(value)
    result._facts = facts
    return result


def exception_of(result: Result) -> BaseException | None:
    """As ``result.exception``, without the worker's traceback."""
    error = result._facts[5]
    if error is None:
        return None
    if result.error_kind in ("timeout", "memory") and error.pickled is None:
        return JobTimeout(error.text)
    return rebuild(error)
