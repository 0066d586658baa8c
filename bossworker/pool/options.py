"""The settings of a pool, checked before any process is started."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal

from bossworker.display import shorten
from bossworker.system.checks import check_bool, check_count, check_path, check_seconds
from bossworker.system.cpus import usable_cpus

MAX_WORKERS = 1024  # slots in the flight recorder's file
StartMethod = Literal["fork", "spawn"]
START_METHODS = ("fork", "spawn")
LONGEST_NAME = 100  # characters of a pool's
LONGEST_HANDLER = 300  # and of a handler's
TRANSPORTS = ("zmq", "socketpair")
LOGS = ("inherit", "relay", "discard")
INTERRUPTED_JOBS = ("report", "rerun")
_SIGNED_LIMIT = 1 << 63  # of the 64 bits that hold a priority


@dataclass(frozen=True, slots=True)
class Options:
    """What boss, fork server and workers need to know of a pool's settings."""

    global_timeout: float
    worker_count: int
    kill_grace: float
    retries: int
    max_pending: int
    max_jobs_per_worker: int
    max_worker_memory: int
    max_job_memory: int
    start_method: str
    close_fds: bool
    transport: str
    name: str
    logs: str = "inherit"
    log_levels: Mapping[str, int] = field(default_factory=dict)  # that loggers have in the program, with logs="relay"
    journal: str = ""  # path of the database; empty: there is none
    interrupted: str = "report"  # what becomes of jobs that may have run when an earlier owner of the journal ended
    max_journal_age: float = 0  # seconds for which results that the program has got stay in it
    max_journal_size: int = 0  # bytes
    handler: str = ""  # the work handler, as pkg.mod:fn; empty where a fresh interpreter does not find it by a name

    @property
    def relayed(self) -> bool:
        """Whether the workers' output goes to the caller."""
        return self.logs == "relay"


@dataclass(frozen=True, slots=True)
class Handlers:
    """The callables that run in a worker."""

    work: Callable[[Any], Mapping[Any, Any] | None]
    init: Callable[[], object] | None
    exit: Callable[[], object] | None


def check_priority(value: object) -> int:
    """A whole number of 64 bits; a higher one runs first."""
    return check_count("priority", value, -_SIGNED_LIMIT, _SIGNED_LIMIT - 1)


def check_workers(name: str, value: object, least: int = 1) -> int:
    """A number of workers."""
    return check_count(name, value, least, MAX_WORKERS)


def start_method_of(context: object) -> StartMethod:
    """The one of ours that does what a context of ``multiprocessing`` does."""
    method = getattr(context, "get_start_method", None)
    if not callable(method):
        allowed = "a context of multiprocessing, such as get_context('spawn'), or None"
        raise TypeError(f"mp_context must be {allowed}, not {shorten(context)}")
    return "fork" if method() == "fork" else "spawn"


def check_name(value: object, handler: object) -> str:
    """A pool's name, by default its handler's."""
    if value is None:
        named = getattr(handler, "func", handler)  # of a functools.partial
        return str(getattr(named, "__qualname__", type(named).__qualname__))[:LONGEST_NAME]
    if not isinstance(value, str):
        raise TypeError(f"name must be a str or None, not {shorten(value)}")
    if not (0 < len(value) <= LONGEST_NAME and value.isprintable()):
        raise ValueError(f"name must be 1 to {LONGEST_NAME} printable characters, not {shorten(value)}")
    return value


def handler_name(handler: object) -> str:
    """``pkg.mod:fn``, where that finds this very handler; else empty."""
    module, path = getattr(handler, "__module__", None), getattr(handler, "__qualname__", "")
    if not isinstance(module, str) or module == "__main__" or not isinstance(path, str):
        return ""
    try:
        found = reduce(getattr, path.split("."), sys.modules[module])
    except (KeyError, AttributeError):  # of a function in a function, for one
        return ""
    return f"{module}:{path}" if found is handler else ""


def check_handler_name(value: object) -> str:
    """A name that can be looked up in a worker: ``pkg.mod:fn``."""
    text = value if isinstance(value, str) else ""
    module, colon, path = text.partition(":")
    if (
        not colon
        or len(text) > LONGEST_HANDLER
        or not all(map(str.isidentifier, [*module.split("."), *path.split(".")]))
    ):
        raise ValueError(f"handler must be pkg.mod:fn, a function by its module and name, not {shorten(value)}")
    if module == "__main__":
        raise ValueError("handler must be of a module that workers can import: what is in __main__ the program reloads")
    return text


def check_choice(name: str, value: object, allowed: Sequence[str]) -> str:
    """One of those that are allowed."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {shorten(value)}")
    if value not in allowed:
        raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}, not {shorten(value)}")
    return value


def check_journal(value: object, worker_count: object = None) -> str:
    """The path of a journal, the same however it is reached; empty: none is wanted."""
    if value is None:
        return ""
    path = check_path("journal", value)
    if path == ":memory:" or path.endswith(os.sep) or os.path.isdir(path):
        raise ValueError(f"journal must be the path of a file, not {shorten(path)}")
    if os.path.exists(path) and not os.path.isfile(path):  # to open a pipe would wait for somebody who writes
        raise ValueError(f"journal must be the path of a regular file, not of a pipe, a socket or a device: {path}")
    if worker_count == 0:
        raise ValueError("journal needs workers: worker_count must be at least 1 with it, not 0")
    return os.path.realpath(path)


def _of_journal(name: str, value: object, journal: object) -> object:
    """A limit of a journal, which there has to be."""
    if value and journal is None:
        raise ValueError(f"{name} needs a journal: make the pool with journal=PATH, or without {name}")
    return _limit(value)


def _limit(value: object) -> object:
    """0 and None mean the same of a limit: there is none."""
    return 0 if value is None else value


def log_levels() -> dict[str, int]:
    """The levels that the program has set, by the names of its loggers."""
    root = logging.getLogger()
    loggers = [logger for logger in root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    return {"" if one is root else one.name: one.level for one in [root, *loggers] if one.level}


def check_options(
    *,
    global_timeout: object,
    worker_count: object,
    kill_grace: object,
    retries: object,
    max_pending: object,
    max_jobs_per_worker: object,
    max_worker_memory: object,
    max_job_memory: object,
    start_method: object,
    close_fds: object,
    transport: object,
    logs: object = "inherit",
    journal: object = None,
    interrupted: object = "report",
    max_journal_age: object = 0,
    max_journal_size: object = 0,
    name: object = None,
    handler: object = None,
) -> Options:
    """The settings, all of them checked. TypeError or ValueError names the one at fault. `handler` has a name."""
    if worker_count is None:
        worker_count = min(usable_cpus(), MAX_WORKERS)
    return Options(
        global_timeout=check_seconds("global_timeout", _limit(global_timeout)),
        worker_count=check_workers("worker_count", worker_count, 0),
        kill_grace=check_seconds("kill_grace", kill_grace),
        retries=check_count("retries", retries),
        max_pending=check_count("max_pending", _limit(max_pending)),
        max_jobs_per_worker=check_count("max_jobs_per_worker", _limit(max_jobs_per_worker)),
        max_worker_memory=check_count("max_worker_memory", _limit(max_worker_memory), most=_SIGNED_LIMIT - 1),
        max_job_memory=check_count("max_job_memory", _limit(max_job_memory), most=_SIGNED_LIMIT - 1),
        start_method=check_choice("start_method", start_method, START_METHODS),
        close_fds=check_bool("close_fds", close_fds),
        transport=check_choice("transport", transport, TRANSPORTS),
        logs=check_choice("logs", logs, LOGS),
        log_levels=log_levels() if logs == "relay" else {},
        journal=check_journal(journal, worker_count),
        interrupted=check_choice("interrupted", interrupted, INTERRUPTED_JOBS),
        max_journal_age=check_seconds("max_journal_age", _of_journal("max_journal_age", max_journal_age, journal)),
        max_journal_size=check_count("max_journal_size", _of_journal("max_journal_size", max_journal_size, journal)),
        name=check_name(name, handler),
        handler=handler_name(handler),
    )
