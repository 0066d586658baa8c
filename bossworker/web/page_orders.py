"""What the page has done: to pools and their jobs, journals, commands and tasks. Each order has a line in the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from starlette.requests import Request

from bossworker.journal.answers import ENDED
from bossworker.journal.answers import STATUSES as JOURNAL_STATUSES
from bossworker.pool.caller.operating import Operator
from bossworker.system.checks import check_bool, check_signal
from bossworker.web.answering import noted, who
from bossworker.web.page_sources import PageSources
from bossworker.web.request_parts import ids_in, number, query_in, query_of, text_in, whole
from bossworker.web.watched_journal import WatchedJournal

TRIAL_SECONDS = 5.0  # for a handler that was reloaded to be tried; a worker may be busy for longer
MOST_AT_ONCE = 1_000_000  # jobs that one order is about
PART = 100_000  # that the boss is told of at a time

Told = dict[str, Any]


def steer_pool(sources: PageSources, request: Request, told: Told) -> Told | None:
    """``pause``, ``resume``, ``resize``, ``reload``."""
    pool, order, by = sources.pool(request), request.path_params["order"], who(request)
    orders: dict[str, Callable[[Operator], Any]] = {
        "pause": lambda operator: operator.pause(by),
        "resume": lambda operator: operator.resume(by),
        "resize": lambda operator: operator.resize(whole(told["workers"]), by),
        "reload": lambda operator: operator.reload(str(told["handler"]), by),
    }
    if order not in orders:
        return None
    facts = {name: told[name] for name in ("workers", "handler") if name in told}
    with noted(request, order, pool=pool.name, **facts):
        answer = pool.order(orders[order])
        return {"done": order != "reload" or pool.await_trial(answer, TRIAL_SECONDS)}


def steer_jobs(sources: PageSources, request: Request, told: Told) -> Told | None:
    """``cancel`` and ``retry``: those named, or all that a filter lets through."""
    pool, order, by = sources.pool(request), request.path_params["order"], who(request)
    if order not in ("cancel", "retry"):
        return None
    named = ids_in(told, whole)
    ids = pool.ids(query_of(query_in(told)), MOST_AT_ONCE) if named is None else named
    new: dict[int, int] = {}
    with noted(request, order, pool=pool.name, jobs=len(ids)) as facts:
        done = 0
        for part in _parts(ids):
            if order == "cancel":
                done += pool.order(lambda operator, part=part: operator.cancel(part, by))  # type: ignore[misc]
            else:
                new |= pool.order(lambda operator, part=part: operator.run_again(part, by))  # type: ignore[misc]
            facts["done"] = done or len(new)
    if order == "cancel":
        return {"count": done, "of": len(ids)}
    return {"count": len(new), "of": len(ids), "new": {str(old): str(one) for old, one in new.items()}}


def _parts(ids: list[int]) -> Iterator[list[int]]:
    for at in range(0, len(ids) or 1, PART):
        yield ids[at : at + PART]


def steer_journal(sources: PageSources, request: Request, told: Told) -> Told | None:
    """``retry``: those named, or all that a filter lets through; ``forget``: all of a status that have ended."""
    journal, order = sources.journal(request), request.path_params["order"]
    if order == "retry":
        named = ids_in(told, whole)
        ids = journal.ids(query_of(query_in(told), JOURNAL_STATUSES), PART) if named is None else named
        with noted(request, order, journal=journal.path, jobs=len(ids)) as facts:
            new = journal.retry(ids) if ids else []
            facts["done"] = len(new)
        return {"count": len(new), "of": len(ids), "new": dict(zip(map(str, ids), map(str, new)))}
    return _forget(request, journal, told) if order == "forget" else None


def _forget(request: Request, journal: WatchedJournal, told: Told) -> Told:
    status, unretrieved = str(told.get("status", "")), check_bool("unretrieved", told.get("unretrieved", False))
    if status and status not in ENDED:
        raise ValueError(f"status must be one of {', '.join(ENDED)}, or empty, not {status[:50]!r}")
    older_than = number(told.get("older_than"))
    with noted(request, "forget", journal=journal.path, status=status, unretrieved=unretrieved) as facts:
        count = facts["done"] = journal.forget(status, older_than, unretrieved)
    return {"count": count}


def steer_commands(sources: PageSources, request: Request, told: Told) -> Told | None:
    """``retry``, ``cancel``, ``signal``, ``pause``, ``resume``, ``clean``: those named, or all that fit."""
    order = request.path_params["order"]
    signal = int(check_signal(told.get("signal", "TERM")))
    orders: dict[str, Callable[[Any], Any]] = {
        "retry": lambda entry: entry.again(),
        "cancel": lambda entry: entry.signal(9),
        "signal": lambda entry: entry.signal(signal),
        "pause": lambda entry: entry.pause(True),
        "resume": lambda entry: entry.pause(False),
        "clean": lambda entry: entry.delete(),
    }
    if order not in orders:
        return None
    ids = ids_in(told, str)
    if ids is None:
        query = query_in(told)
        ids = sources.commands.ids(str(query.get("status", "")), str(query.get("text", "")), PART)
    with noted(request, order, commands=len(ids)) as facts:
        count, wrong = sources.commands.each(ids, orders[order])
        facts["done"] = count
    return {"count": count, "of": len(ids), "wrong": wrong[:10]}


def steer_task(sources: PageSources, request: Request, told: Told) -> Told | None:
    """``stdin``, ``data``, ``close``, ``signal``, ``pause``, ``resume``, ``restart``, ``delete``."""
    tasks, order = sources.tasks, request.path_params["order"]
    entry = tasks.find(request.path_params["id"])
    orders: dict[str, Callable[[Any], Any]] = {
        "stdin": lambda entry: entry.send(text_in(told, "text"), tasks.send_seconds),
        "data": lambda entry: entry.send(text_in(told, "text"), tasks.send_seconds, "data"),
        "close": lambda entry: entry.close_input(),
        "signal": lambda entry: entry.signal(int(check_signal(told["signal"]))),
        "pause": lambda entry: entry.pause(True),
        "resume": lambda entry: entry.pause(False),
        "restart": lambda entry: tasks.restart(entry, check_bool("stop", told.get("stop", False))),
        "delete": lambda entry: entry.delete(),
    }
    if entry is None or order not in orders:
        return None
    facts = {name: told[name] for name in ("signal", "stop") if name in told}
    with noted(request, order, task=entry.id, **facts):
        return {"done": orders[order](entry) is not False}
