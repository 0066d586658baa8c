"""What the page asks for, and has done: JSON. Nothing in here is HTML."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from anyio import fail_after
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bossworker.cli.entries import EntryError
from bossworker.errors import BossWorkerError
from bossworker.journal.contents import ENDED
from bossworker.journal.contents import STATUSES as JOURNAL_STATUSES
from bossworker.pool.caller.operating import Operator
from bossworker.system.checks import check_bool, check_signal
from bossworker.web import command_jobs, task_list
from bossworker.web.job_queries import STATUSES, JobQuery
from bossworker.web.pool_history import FIELDS
from bossworker.web.watch_room import WatchRoom
from bossworker.web.watched_journal import JournalAway, WatchedJournal
from bossworker.web.watched_pool import PoolAway, WatchedPool
from bossworker.web.worker_lanes import lanes

BODY_SECONDS = 10.0  # for a request to arrive
TRIAL_SECONDS = 5.0  # for a handler that was reloaded to be tried; a worker may be busy for longer
MOST_ROWS = 500  # in an answer
MOST_AT_ONCE = 100_000  # jobs that one request is about
MOST_TEXT = 1000  # characters of a filter
LONGEST_WINDOW = 24 * 3600.0  # seconds of a timeline

audit = logging.getLogger("bossworker.web")

Answer = Callable[[Request], Awaitable[Response]]


def answering(call: Callable[..., Any], reads_body: bool = False) -> Answer:
    """An endpoint: what `call` returns for a request, as JSON; it runs in a thread, since it may have to wait."""

    async def answer(request: Request) -> Response:
        arguments = [request, await read_json(request)] if reads_body else [request]
        try:
            found = await run_in_threadpool(call, *arguments)
        except (PoolAway, JournalAway) as error:
            return JSONResponse({"error": str(error)}, 503)
        except (BossWorkerError, EntryError) as error:
            return JSONResponse({"error": str(error)}, 409)
        except (ValueError, TypeError, KeyError) as error:
            return JSONResponse({"error": f"that makes no sense: {error}"}, 400)
        if found is None:
            return JSONResponse({"error": "there is no such thing, or not any more"}, 404)
        return found if isinstance(found, Response) else JSONResponse(found)

    return answer


async def read_json(request: Request) -> dict[str, Any]:
    """The body; the guard has bounded it. HTTPException."""
    try:
        with fail_after(BODY_SECONDS):
            told = json.loads(await request.body() or b"{}")
    except TimeoutError:
        raise HTTPException(408, "the request did not arrive in time") from None
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body must be JSON") from None
    if not isinstance(told, dict):
        raise HTTPException(400, "the body must be a JSON object")
    return told


class Routes:
    """What can be asked for, of the pools in a room."""

    def __init__(self, room: WatchRoom) -> None:
        self._room = room
        self._commands = command_jobs.CommandJobs()

    def all(self) -> list[Route]:
        """All of them."""
        looks = {
            "/api/jobs/{pool}": self.jobs,
            "/api/jobs/{pool}/{id}": self.job,
            "/api/jobs/{pool}/{id}/stack": self.stack,
            "/api/pools/{pool}/history": self.history,
            "/api/pools/{pool}/timeline": self.timeline,
            "/api/pools/{pool}/stack": self.stack,
            "/api/pools/{pool}/trace": self.trace,
            "/api/commands": self.commands,
            "/api/commands/{id}": lambda request: self._commands.describe(request.path_params["id"]),
            "/api/commands/{id}/output": self.command_output,
            "/api/commands/{id}/stack": lambda request: {"text": self._commands.processes(request.path_params["id"])},
            "/api/tasks": lambda request: {"tasks": task_list.listing()},
            "/api/tasks/{id}": lambda request: task_list.describe(request.path_params["id"]),
            "/api/tasks/{id}/output": task_output,
            "/api/journals/{journal}": self.journal_jobs,
            "/api/journals/{journal}/{id}": self.journal_job,
            "/metrics": self.metrics,
        }
        orders = {
            "/api/pools/{pool}/{order}": self.steer_pool,
            "/api/jobs/{pool}/{order}": self.steer_jobs,
            "/api/commands/{order}": self.steer_commands,
            "/api/tasks/{id}/{order}": steer_task,
            "/api/journals/{journal}/{order}": self.steer_journal,
        }
        return [
            *(Route(path, answering(call)) for path, call in looks.items()),
            *(Route(path, answering(call, reads_body=True), methods=["POST"]) for path, call in orders.items()),
        ]

    def _pool(self, request: Request) -> WatchedPool:
        pool = self._room.pool(request.path_params["pool"])
        if pool is None:
            raise PoolAway(f"there is no pool {request.path_params['pool']}: it has ended, or its door was closed")
        return pool

    # -- pools and their jobs -------------------------------------------------------------------------------

    def jobs(self, request: Request) -> dict[str, Any]:
        """A part of the list."""
        return self._pool(request).find(query_of(request.query_params), *_part_of(request))

    def job(self, request: Request) -> dict[str, Any] | None:
        """All about one."""
        return self._pool(request).job(whole(request.path_params["id"]))

    def stack(self, request: Request) -> dict[str, Any]:
        """Of a job, or of all workers."""
        job_id = request.path_params.get("id")
        wanted = None if job_id is None else whole(job_id)
        return {"text": self._pool(request).order(lambda operator: operator.stack(wanted))}

    def history(self, request: Request) -> dict[str, Any]:
        """The points of the charts so far."""
        return {"fields": FIELDS, "points": list(self._pool(request).history.points)}

    def timeline(self, request: Request) -> dict[str, Any]:
        """Which worker had which jobs, between two times."""
        pool = self._pool(request)
        until = float(request.query_params.get("until", 0)) or time.time()
        since = max(until - LONGEST_WINDOW, float(request.query_params.get("since", until - 60)))
        with pool.lock:
            drawn = lanes(reversed(pool.table.stretches), since, until)
        return {"since": since, "until": until, "lanes": drawn}

    def trace(self, request: Request) -> Response | None:
        """The last events for ui.perfetto.dev."""
        pool = self._pool(request)
        handle = pool.handle
        if handle is None:
            raise PoolAway(f"pool {pool.name} is away: {pool.why_away}")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "trace.json")
            handle.trace(path)
            name = f'attachment; filename="trace-{pool.key}.json"'
            return Response(path.read_bytes(), media_type="application/json", headers={"Content-Disposition": name})

    def steer_pool(self, request: Request, told: dict[str, Any]) -> dict[str, Any] | None:
        """``pause``, ``resume``, ``resize``, ``reload``."""
        pool, order, by = self._pool(request), request.path_params["order"], who(request)
        orders: dict[str, Callable[[Operator], object]] = {
            "pause": lambda operator: operator.pause(by),
            "resume": lambda operator: operator.resume(by),
            "resize": lambda operator: operator.resize(whole(told["workers"]), by),
            "reload": lambda operator: operator.reload(str(told["handler"]), by),
        }
        if order not in orders:
            return None
        note(request, order, pool=pool.name, **{name: told[name] for name in ("workers", "handler") if name in told})
        answer = pool.order(orders[order])
        return {"done": order != "reload" or pool.await_trial(answer, TRIAL_SECONDS)}

    def steer_jobs(self, request: Request, told: dict[str, Any]) -> dict[str, Any] | None:
        """``cancel`` and ``retry``: those named, or all that a filter lets through."""
        pool, order, by = self._pool(request), request.path_params["order"], who(request)
        if order not in ("cancel", "retry"):
            return None
        named = [whole(one) for one in told["ids"]] if "ids" in told else None
        ids = pool.ids(query_of(told["query"]), MOST_AT_ONCE) if named is None else named
        if order == "cancel":
            count = pool.order(lambda operator: operator.cancel(ids, by))
            note(request, order, pool=pool.name, jobs=len(ids), done=count)
            return {"count": count, "of": len(ids)}
        new = pool.order(lambda operator: operator.run_again(ids, by))
        note(request, order, pool=pool.name, jobs=len(ids), done=len(new))
        return {"count": len(new), "of": len(ids), "new": {str(old): str(one) for old, one in new.items()}}

    def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        try:
            from prometheus_client import CollectorRegistry, generate_latest

            from bossworker.metrics import collector
        except ImportError as error:
            raise HTTPException(501, str(error)) from None
        registry = CollectorRegistry()
        handles = [pool.handle for pool in self._room.pools if pool.handle is not None]
        registry.register(collector(*handles))
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    # -- journals -------------------------------------------------------------------------------------------

    def _journal(self, request: Request) -> WatchedJournal:
        journal = self._room.journal(request.path_params["journal"])
        if journal is None:
            raise JournalAway(f"there is no journal {request.path_params['journal']} here")
        return journal

    def journal_jobs(self, request: Request) -> dict[str, Any]:
        """A part of the list."""
        return self._journal(request).find(query_of(request.query_params, JOURNAL_STATUSES), *_part_of(request))

    def journal_job(self, request: Request) -> dict[str, Any] | None:
        """All about one."""
        journal = self._journal(request)
        found = journal.job(whole(request.path_params["id"]))
        return None if found is None else {**found, "journal": journal.name, "owner": journal.owner}

    def steer_journal(self, request: Request, told: dict[str, Any]) -> dict[str, Any] | None:
        """``retry``: those named, or all that a filter lets through; ``forget``: all of a status that have ended."""
        journal, order = self._journal(request), request.path_params["order"]
        if order == "retry":
            ids = [whole(one) for one in told["ids"]] if "ids" in told else None
            if ids is None:
                ids = journal.ids(query_of(told["query"], JOURNAL_STATUSES), MOST_AT_ONCE)
            new = journal.retry(ids) if ids else []
            note(request, order, journal=journal.path, jobs=len(ids), done=len(new))
            return {"count": len(new), "of": len(ids), "new": dict(zip(map(str, ids), map(str, new)))}
        if order != "forget":
            return None
        status, unretrieved = str(told.get("status", "")), check_bool("unretrieved", told.get("unretrieved", False))
        if status and status not in ENDED:
            raise ValueError(f"status must be one of {', '.join(ENDED)}, or empty, not {status[:50]!r}")
        count = journal.forget(status, float(told.get("older_than", 0)), unretrieved)
        note(request, order, journal=journal.path, status=status, unretrieved=unretrieved, done=count)
        return {"count": count}

    # -- commands -------------------------------------------------------------------------------------------

    def commands(self, request: Request) -> dict[str, Any]:
        """A part of the list."""
        given = request.query_params
        return self._commands.find(given.get("status", ""), given.get("text", "")[:MOST_TEXT], *_part_of(request))

    def command_output(self, request: Request) -> dict[str, Any] | None:
        """What one has written, from a byte on."""
        given = request.query_params
        return self._commands.output(request.path_params["id"], stream_of(given), int(given.get("since", 0)))

    def steer_commands(self, request: Request, told: dict[str, Any]) -> dict[str, Any] | None:
        """``retry``, ``cancel``, ``signal``, ``pause``, ``resume``, ``clean``: those named, or all that fit."""
        order = request.path_params["order"]
        number = int(check_signal(told.get("signal", "TERM")))
        orders: dict[str, Callable[[Any], Any]] = {
            "retry": lambda entry: entry.again(),
            "cancel": lambda entry: entry.signal(9),
            "signal": lambda entry: entry.signal(number),
            "pause": lambda entry: entry.pause(True),
            "resume": lambda entry: entry.pause(False),
            "clean": lambda entry: entry.delete(),
        }
        if order not in orders:
            return None
        if "ids" in told:
            ids = [str(one) for one in told["ids"]]
        else:
            query = told["query"]
            ids = self._commands.ids(str(query.get("status", "")), str(query.get("text", "")), MOST_AT_ONCE)
        count, wrong = command_jobs.each(ids, self._commands.entry, orders[order])
        note(request, order, commands=len(ids), done=count)
        return {"count": count, "of": len(ids), "wrong": wrong[:10]}


# -- tasks ----------------------------------------------------------------------------------------------------


def task_output(request: Request) -> dict[str, Any] | None:
    """What one has written, from a byte on."""
    given = request.query_params
    return task_list.output(request.path_params["id"], stream_of(given), int(given.get("since", 0)))


def steer_task(request: Request, told: dict[str, Any]) -> dict[str, Any] | None:
    """``stdin``, ``signal``, ``pause``, ``resume``, ``restart``, ``delete``."""
    order, entry = request.path_params["order"], task_list.find(request.path_params["id"])
    orders: dict[str, Callable[[Any], Any]] = {
        "stdin": lambda entry: entry.send(str(told["text"])),
        "signal": lambda entry: entry.signal(int(check_signal(told["signal"]))),
        "pause": lambda entry: entry.pause(True),
        "resume": lambda entry: entry.pause(False),
        "restart": lambda entry: entry.again(),
        "delete": lambda entry: entry.delete(),
    }
    if entry is None or order not in orders:
        return None
    note(request, order, task=entry.id, **{name: told[name] for name in ("signal",) if name in told})
    return {"done": orders[order](entry) is not False}


# -- what is given ----------------------------------------------------------------------------------------------


def query_of(given: Any, statuses: Sequence[str] = STATUSES) -> JobQuery:
    """A filter. ValueError."""
    status = str(given.get("status", ""))
    if status and status not in statuses:
        raise ValueError(f"status must be one of {', '.join(statuses)}, not {status[:50]!r}")
    return JobQuery(
        status,
        str(given.get("kind", ""))[:50],
        since=float(given.get("since") or 0),
        until=float(given.get("until") or 0),
        text=str(given.get("text", "")).strip()[:MOST_TEXT],
    )


def _part_of(request: Request) -> tuple[int, int]:
    """Which part of a list is wanted: from where on, and how many."""
    given = request.query_params
    return whole(given.get("offset", 0)), min(MOST_ROWS, whole(given.get("limit", 100)))


def whole(value: object) -> int:
    """A number from 0 on. ValueError."""
    text = str(value)
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise ValueError(f"a number is needed, not {text[:50]!r}")
    return int(text)


def stream_of(given: Any) -> str:
    """``stdout`` or ``stderr``. ValueError."""
    stream = str(given.get("stream", "stdout"))
    if stream not in ("stdout", "stderr"):
        raise ValueError(f"stream must be stdout or stderr, not {stream[:50]!r}")
    return stream


def who(request: Request) -> str:
    """Whoever has sent this, for the log."""
    client = request.client
    return "the page" if client is None or not client.host else f"the page, from {client.host}:{client.port}"


def note(request: Request, order: str, **facts: object) -> None:
    """A line in the log for each order."""
    told = " ".join(f"{name}={value!r:.100}" for name, value in facts.items())
    audit.info("%s", f"order={order} {told} by={who(request)!r}")
